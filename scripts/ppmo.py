"""Regenerates docs/results/{minatar,brax,mujoco,atari}.md: `python scripts/ppmo.py distill`, then `evaluate`, `page`.

`--only minatar/` keeps to one page, `--only minatar/breakout` to one task. Each stage leaves out what is already there.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _stages import (
    FLOPPY,
    RESULTS,
    ROOT,
    Row,
    distill_missing,
    evaluation,
    import_missing,
    markdown_table,
    put_into_readme,
    read_rows,
    run_stage,
    what_it_took,
    write_rows,
)

from floppy import load
from floppy.card import Card

PUBLISHED = Path("../shared/reference/ppmo")
"""The PPMO paper's own datasets, which are not part of this project."""
MARK = "<!-- tables: written by scripts/ppmo.py -->"
EVALUATION_SEED = 1000


@dataclass(frozen=True)
class Run:
    """One distillation; with every layer in the encoder it is plain PPO."""

    page: str
    task: str
    label: str
    options: str
    seed: int = 0
    learners: int = 20
    episodes: int = 20
    published: str = ""
    """What a paper reaches on this task."""
    is_kept: bool = True
    """Whether the dataset is part of the project."""
    imported: str = ""
    """A file of the PPMO paper that is imported; nothing is distilled then."""

    @property
    def name(self) -> str:
        seed = f"-seed{self.seed}" if self.seed else ""
        return f"{self.page}/{self.task.rpartition('/')[2]}-{self.label}{seed}"

    @property
    def path(self) -> Path:
        # An encoder of Atari's size is no file for a repository.
        return (RESULTS if self.is_kept else ROOT / "runs" / "large") / f"{self.name}.safetensors"

    @property
    def command(self) -> str:
        if self.imported:
            return f"floppy import {PUBLISHED / self.imported}.npz --out {self.path.relative_to(ROOT)}"
        seed = f" --seed {self.seed}" if self.seed else ""
        return f"floppy distill {self.task} {self.options}{seed} --out runs/{self.name}"


def minatar(task: str, level: int, published: str, options: str = "") -> Run:
    """Level 2 is plain PPO: the learners have one hidden layer."""
    examples = 0 if level == 2 else 16
    return Run(
        "minatar",
        task,
        f"l{level}",
        f"--examples {examples} --encoder-layers {level} {options}".strip(),
        published=published,
    )


def imported(task: str, file: str, published: str = "") -> Run:
    """A file of the PPMO paper, evaluated as it is."""
    page, label = file.split("-")[0], file.split("-")[-1] + "-imported"
    return Run(page, task, label, "", learners=10, episodes=10, published=published, imported=file, is_kept=False)


SHORT = "--examples 64 --outer-steps 300 --budget 8m"
SHORTER = "--examples 64 --outer-steps 300 --budget 6m --score-learners 20 --score-episodes 5"
"""Where the last evaluation itself takes minutes."""
WIDE = "--examples 64 --distribution width=256 --entropy-bonus 0.001 --least-std 0"
HOPPER = f"{WIDE} --outer-steps 4000 --evaluate-every 100 --budget 40m"
TAUGHT = (
    "--examples 64 --distribution width=512 --cloning ImplicitStep --initial-rate 100 --initial-examples random-policy "
    "--rate 2e-3 --outer-steps 1000 --teacher docs/results/brax/hopper-ppo.safetensors --teacher-weight 0.2"
)
"""One implicit step, at first in imitation of plain PPO's policy."""
LINEAR = "--examples 0 --encoder-layers 1 --distribution depth=0 --outer-steps 1000 --rate 2e-3"
"""Plain PPO of a policy without hidden layers."""
ATARI = "--budget 20m"
WHOLE_GAME = "--rate 5e-3 --learners 2 --environments 8 --evaluate-every 20"
"""Without an encoder the examples can be moved faster."""
LONG_EPISODES = "--outer-steps 400"
WHOLE = (
    "--distribution width=512:depth=1:activation=relu --initial-rate 10 --initial-examples random-policy "
    "--normalise-observations --learners 8 --environments 16 --epochs 2 --target-kl 0.02 --outer-steps 250 --budget 9m"
)
"""For networks without an encoder, of which one step makes what random features allow: the more of them the better."""
GAMES = {"breakout": "13.5", "space-invaders": "49.6", "asterix": "8.9", "freeway": "0"}
"""MinAtar's, with the re-run score of the HaDES paper's datasets."""
RUNS = [
    *(
        minatar(game, level, published, LONG_EPISODES if game == "freeway" else "")
        for game, published in GAMES.items()
        for level in (2, 1)
    ),
    Run("minatar", "breakout", "l2", "--examples 0 --encoder-layers 2", 1, published="13.5"),
    *(minatar(game, 0, published, WHOLE) for game, published in GAMES.items()),
    Run("brax", "hopper", "k64", HOPPER, published="1771"),
    Run("brax", "hopper", "ppo", "--examples 0 --encoder-layers 3 --outer-steps 1000", published="1771"),
    *(Run("brax", "hopper", "taught-k64", TAUGHT, seed, published="1771") for seed in range(3)),
    Run("brax", "hopper", "linear", LINEAR, published="1771"),
    Run("brax", "hopper", "k4", "--examples 4 --cloning.steps 8 --initial-rate 0.3 --least-std 0", published="1537"),
    Run("brax", "inverted-double-pendulum", "k16", "--examples 16", published="7589"),
    Run("mujoco", "gymnasium/Hopper-v4", "k64", "--examples 64 --least-std 0", published="2168"),
    Run("mujoco", "gymnasium/InvertedDoublePendulum-v4", "k64", "--examples 64 --least-std 0", published="1235"),
    Run("mujoco", "gymnasium/HalfCheetah-v4", "k64", WIDE, published="2226"),
    Run("mujoco", "gymnasium/Reacher-v4", "k64", "--examples 64 --least-std 0"),
    *(
        Run("mujoco", f"gymnasium/{name}-v4", "k64", options, episodes=5)
        for name, options in {"Walker2d": SHORT, "Ant": SHORT, "Humanoid": SHORTER, "HumanoidStandup": SHORTER}.items()
    ),
    *(imported(f"gymnasium/{name}-v4", f"mujoco-{name.lower()}-k64") for name in ("Hopper", "HalfCheetah", "Reacher")),
    *(
        Run("atari", f"ale/{game}", "l4", f"--encoder-layers 4 {ATARI}", learners=10, episodes=10, is_kept=False)
        for game in ("centipede", "space_invaders", "ms_pacman", "pong")
    ),
    Run("atari", "ale/centipede", "l0", f"{ATARI} {WHOLE_GAME}", learners=10, episodes=10, published="8042"),
    imported("ale/centipede", "atari-centipede-l0", published="8042"),
]

TAUGHT_BY_PPO = "PPMO, taught"
PAGES = list(dict.fromkeys(run.page for run in RUNS))


def evaluate(only: str) -> None:
    """Evaluates every dataset and random actions, then writes one CSV per page."""
    for page in PAGES:
        table = RESULTS / f"{page}.csv"
        earlier = {row["command"]: row for row in read_rows(table)}
        rows: list[Row] = []
        for run in (run for run in RUNS if run.page == page):
            path, folder = run.path, ROOT / "runs" / run.name
            if run.imported:
                import_missing(run, ROOT / PUBLISHED, only)
            options = f"--learners {run.learners} --episodes {run.episodes} --seed {EVALUATION_SEED}"
            scores = evaluation(path, options, folder / "evaluation.json", wanted=only in run.name)
            if scores is not None:
                took = {} if run.imported else what_it_took(folder, earlier.get(run.command))
                rows.append(result_row(run, path, scores["card"], took))
            elif run.command in earlier:  # what was not asked for stays
                rows.append(earlier[run.command])
        if rows:
            write_rows(rows, table)
    write_curves()


def write_curves() -> None:
    """How games were learnt, in the quarters of a run; of a run whose folder is gone, what the table says already."""
    table = RESULTS / "atari-curves.csv"
    earlier = {row["run"]: row for row in read_rows(table)}
    rows: list[Row] = []
    for run in RUNS:
        log = ROOT / "runs" / run.name / "metrics.jsonl"
        if run.page == "atari" and log.exists():
            steps = [json.loads(line) for line in log.read_text().splitlines()]
            quarters = [steps[len(steps) * q // 4 : len(steps) * (q + 1) // 4] for q in range(4)]
            row: Row = {"run": run.name.partition("/")[2], "env_steps": int(sum(step["env_steps"] for step in steps))}
            for name in ("episode_return", "selection_score"):
                for number, quarter in enumerate(quarters, start=1):
                    # Most steps have no selection, and the return of a step in which no episode ended means nothing.
                    counted = quarter if name == "selection_score" else [step for step in quarter if step["episodes"]]
                    values = [step[name] for step in counted if step.get(name) is not None]
                    row[f"{name} {number}"] = sum(values) / len(values) if values else ""
            rows.append(row)
        elif (known := earlier.get(run.name.partition("/")[2])) is not None:
            rows.append(known)
    if rows:
        write_rows(rows, table)


def result_row(run: Run, path: Path, score: Row, result: Row) -> Row:
    """A line of the CSV."""
    dataset = load(path)
    card = dataset.card
    layers = (card.encoder or {}).get("layers", 0)
    low, high = score["ci95"]
    kept = {name: score[name] for name in ("mean", "sd", "learners", "episodes", "seed")}
    row: Row = {"task": card.task, "examples": dataset.examples, "encoder_layers": layers}
    row |= {"method": method_of(card, run)} | kept | {"ci_low": low, "ci_high": high}
    row |= {"random": random_score(run.task), "published": run.published, "distillation_seed": run.seed}
    print(run.name, round(row["mean"], 1), file=sys.stderr, flush=True)
    nothing: Row = {"outer_steps": "", "env_steps": "", "seconds": ""}
    return row | nothing | result | {"command": run.command}


def method_of(card: Card, run: Run) -> str:
    """What made a dataset, in the CSV's words."""
    if run.imported:
        return "PPMO, imported"
    if card.is_plain_policy:
        return "PPO"
    return TAUGHT_BY_PPO if card.algorithm["config"]["outer"].get("teacher") else "PPMO"


def random_score(task: str) -> float:
    """Mean return of uniformly random actions, asked for once."""
    answer = ROOT / "runs" / "random" / f"{task.replace('/', '-')}.json"
    if not answer.exists():
        answer.parent.mkdir(parents=True, exist_ok=True)
        words = shlex.split(f"baseline {task} --method random --episodes 400 --seed {EVALUATION_SEED} --json")
        done = subprocess.run([FLOPPY, *words], cwd=ROOT, check=True, capture_output=True, text=True)
        answer.write_text(done.stdout)
    mean: float = json.loads(answer.read_text())["score"]["mean"]
    return mean


def page() -> None:
    """Puts the table made from each CSV below the mark on its page."""
    for name in PAGES:
        rows = read_rows(RESULTS / f"{name}.csv")
        if not rows:
            continue
        path = RESULTS / f"{name}.md"
        commands = dict.fromkeys(row["command"] for row in rows)
        parts = [path.read_text().split(MARK)[0] + MARK, result_table(rows)]
        if curves := read_rows(RESULTS / f"{name}-curves.csv"):
            parts.append(f"### Curves\n\n{curve_table(curves)}")
        parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```\n")
        path.write_text("\n\n".join(parts))
    put_into_readme("ppmo.py", short_table([row for name in PAGES for row in read_rows(RESULTS / f"{name}.csv")]))


def short_table(rows: list[dict[str, str]]) -> str:
    """What fresh learners reach, over all networks of all seeds of a distillation."""
    kinds = ("task", "method", "examples", "encoder_layers")
    groups: dict[tuple[str, ...], list[dict[str, str]]] = {}
    for row in rows:
        if row["method"] in ("PPMO", TAUGHT_BY_PPO):
            groups.setdefault(tuple(row[name] for name in kinds), []).append(row)
    lines = []
    for (task, method, examples, layers), seeds in groups.items():
        means, sds, steps = (np.array([float(row[name]) for row in seeds]) for name in ("mean", "sd", "env_steps"))
        lines.append(
            [
                task + (", taught" if method == TAUGHT_BY_PPO else ""),
                examples,
                layers,
                str(len(seeds)),
                f"{means.mean():.1f} ± {np.sqrt(np.mean(sds**2) + means.var()):.1f}",
                f"{float(seeds[0]['random']):.1f}",
                f"{steps.mean() / 1e6:.1f} M",
            ]
        )
    return markdown_table(["task", "examples", "encoder", "seeds", "mean return", "random", "environment steps"], lines)


def curve_table(rows: list[dict[str, str]]) -> str:
    """One line per run, quarter by quarter."""
    head = ["run", "env steps", "training return, by quarter of the run", "score of fresh learners, by quarter"]
    lines = []
    for row in rows:
        cells = [
            ", ".join(f"{float(row[key]):.1f}" if row[key] else "–" for key in row if key.startswith(name))
            for name in ("episode_return", "selection_score")
        ]
        lines.append([row["run"], f"{int(row['env_steps']) / 1e6:.2f} M", *cells])
    return markdown_table(head, lines)


def result_table(rows: list[dict[str, str]]) -> str:
    """One line per dataset."""
    head = ["task", "method", "k", "encoder", "seed", "mean return", "random", "published", "env steps", "minutes"]
    lines = [
        [
            row["task"].partition("/")[2],
            row["method"],
            row["examples"],
            row["encoder_layers"],
            row["distillation_seed"],
            f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}",
            f"{float(row['random']):.1f}",
            row["published"] or "–",
            f"{int(row['env_steps']) / 1e6:.1f} M" if row["env_steps"] else "–",
            f"{float(row['seconds']) / 60:.1f}" if row["seconds"] else "–",
        ]
        for row in rows
    ]
    return markdown_table(head, lines)


if __name__ == "__main__":
    run_stage(__doc__ or "", lambda only: distill_missing([r for r in RUNS if not r.imported], only), evaluate, page)
