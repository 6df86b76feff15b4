"""Regenerates docs/results/hades: `python scripts/hades.py distill`, then `evaluate`, then `page`.

Each stage leaves out what is already there. The distillations take some three hours on two cores: two can share the
machine, each with one core of its own (`taskset -c 0 python scripts/hades.py distill --only breakout`).
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from _stages import (
    RESULTS,
    ROOT,
    Row,
    distill_missing,
    evaluation,
    markdown_table,
    put_into_readme,
    read_rows,
    run_stage,
    what_it_took,
    write_rows,
)

from floppy import load, parse_distribution

DATASETS = RESULTS / "hades"
TABLE = RESULTS / "hades.csv"
PAGE = RESULTS / "hades.md"
MARK = "<!-- tables: written by scripts/hades.py -->"
EVALUATION_SEED = 1000
FRESH = "width=64:activation=relu"
OWN = f"{FRESH}:init_seed=0"
"""The learners of HaDES-F: one draw."""
BREAKOUT = "--outer-steps 600 --budget 38m"
ASTERIX = (
    "--smoothness 3 --horizon 300 --environments 4 --sigma 0.4 --rate 0.04 --rate-decay 0.3 --outer-steps 400 "
    "--budget 38m"
)
REACHER = (
    "--distribution width=64 --cloning.steps 8 --initial-rate 0.3 --outer-steps 3000 --learners 4 --environments 16 "
    "--horizon 64 --rate 1e-3 --normalise-observations --no-normalise-rewards --least-std 0 "
    "--entropy-bonus 0.01 --critic-rate 2e-3 --minibatch-size 2048 --evaluate-every 100 --selection-learners 64 "
    "--selection-episodes 4 --budget 40m"
)


@dataclass(frozen=True)
class Run:
    """One distillation, and the learner distributions that it is evaluated under."""

    kind: str
    task: str
    examples: int
    options: str = ""
    seed: int = 0
    distributions: tuple[str, ...] = ("card",)
    learners: int = 20
    episodes: int = 10
    published: str = ""
    """What the HaDES paper's own dataset reaches, and where that is from."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.task}-k{self.examples}" + (f"-seed{self.seed}" if self.seed else "")

    @property
    def path(self) -> Path:
        return DATASETS / f"{self.name}.safetensors"

    @property
    def command(self) -> str:
        seed = f" --seed {self.seed}" if self.seed else ""
        out = f"runs/hades/{self.name}"
        options = f" {self.options}" if self.options else ""
        outer = "ppmo" if self.kind == "ppmo" else "hades"
        return f"floppy distill {self.task} --outer {outer} --examples {self.examples}{options}{seed} --out {out}"


MINATAR = ("card", "width=512:activation=relu")
BRAX = ("card", "width=512")
F_BRAX = ("card", "width=64")
RUNS = [
    Run("r", "cartpole", 2, learners=100, episodes=100),
    *(Run("r", "breakout", 16, BREAKOUT, s, (*MINATAR, OWN), published="13.5") for s in range(3)),
    *(Run("f", "breakout", 16, f"--distribution {OWN} {BREAKOUT}", s, ("card", FRESH)) for s in range(3)),
    Run("r", "space-invaders", 16, "--budget 38m", distributions=MINATAR, published="49.6"),
    Run("r", "asterix", 16, ASTERIX, distributions=MINATAR, published="8.9"),
    Run("r", "freeway", 16, "--outer-steps 200 --budget 38m", distributions=MINATAR, published="0"),
    Run("r", "hopper", 4, "--outer-steps 250 --budget 40m", distributions=BRAX, published="1771"),
    Run("f", "cartpole", 2, "--distribution init_seed=0", 0, ("card", "lambda"), learners=100, episodes=100),
    Run("f", "hopper", 4, "--distribution width=64:init_seed=0 --outer-steps 250 --budget 40m", distributions=F_BRAX),
    Run("r", "inverted-double-pendulum", 16, "--outer-steps 3000 --rate-decay 0.2 --budget 40m", distributions=BRAX),
    Run("ppmo", "reacher", 64, REACHER, 1, distributions=BRAX, published="-168"),
]


def evaluate(only: str) -> None:
    """Evaluates every dataset, then writes the CSV of all answers."""
    rows: list[Row] = []
    known = read_rows(TABLE)
    earlier = {row["command"]: row for row in known}
    for run in RUNS:
        path = run.path
        folder = ROOT / "runs" / "hades" / run.name
        options = f"--distribution {','.join(run.distributions)} --learners {run.learners} --episodes {run.episodes}"
        scores = evaluation(
            path, f"{options} --seed {EVALUATION_SEED}", folder / "evaluation.json", wanted=only in run.name
        )
        if scores is not None:
            rows += result_rows(run, path, scores, what_it_took(folder, earlier.get(run.command)))
        else:  # what was not asked for stays
            rows += [row for row in known if row["command"] == run.command]
    write_rows(rows, TABLE)


def result_rows(run: Run, path: Path, scores: Row, result: Row) -> list[Row]:
    """One row per distribution."""
    card = load(path).card
    rows = []
    for distribution, score in scores.items():
        low, high = score.pop("ci95")
        score = {name: value for name, value in score.items() if name not in ("max_share", "diverged")}
        shown = card.learners[0] if distribution == "card" else dataclasses.asdict(parse_distribution(distribution))
        row: Row = {"set": run.kind, "task": run.task, "examples": run.examples, "width": shown["width"][0]}
        row |= {"own_draw": shown.get("init_seed", -1) >= 0}
        row |= score | {"ci_low": low, "ci_high": high, "published": run.published, "distillation_seed": run.seed}
        rows.append(row | result | {"command": run.command})
    print(run.name, [round(row["mean"], 1) for row in rows], file=sys.stderr, flush=True)
    return rows


def page() -> None:
    """Puts the tables made from the CSV below the mark on the page."""
    rows = read_rows(TABLE)
    parts = [PAGE.read_text().split(MARK)[0] + MARK]
    fresh = [row for row in rows if row["set"] in ("r", "ppmo") and row["own_draw"] == "False"]
    compared = [
        row
        for task in dict.fromkeys(run.task for run in RUNS if run.kind == "f")
        for row in rows
        if row["task"] == task and row["width"] == "64"
    ]
    parts.append(f"### Fresh learners\n\n{table(fresh)}")
    parts.append(f"### HaDES-F against HaDES-R\n\n{table(compared)}")
    commands = dict.fromkeys(row["command"] for row in rows)
    parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```\n")
    PAGE.write_text("\n\n".join(parts))
    put_into_readme("hades.py", short_table(rows))


def short_table(rows: list[dict[str, str]]) -> str:
    """What fresh learners of the searched width reach."""
    lines = []
    for row in rows:
        if (row["set"], row["width"], row["own_draw"], row["distillation_seed"]) == ("r", "64", "False", "0"):
            mean = f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}"
            lines.append([row["task"], row["examples"], mean, f"{int(row['env_steps']) / 1e6:.0f} M"])
    return markdown_table(["task", "examples", "mean return", "environment steps"], lines)


def table(rows: list[dict[str, str]]) -> str:
    """One line per dataset and learner distribution."""
    head = [
        "task",
        "k",
        "method",
        "seed",
        "learners",
        "mean return",
        "published",
        "outer steps",
        "env steps",
        "minutes",
    ]
    lines = []
    for row in rows:
        learners = f"width {row['width']}" + (", its own draw" if row["own_draw"] == "True" else "")
        method = {"f": "HaDES-F", "r": "HaDES-R", "ppmo": "PPMO"}[row["set"]]
        lines.append(
            [
                row["task"],
                row["examples"],
                method,
                row["distillation_seed"],
                learners,
                f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}",
                row["published"] or "–",
                row["outer_steps"],
                f"{int(row['env_steps']) / 1e6:.1f} M",
                f"{float(row['seconds']) / 60:.1f}" if row["seconds"] else "–",
            ]
        )
    return markdown_table(head, lines)


if __name__ == "__main__":
    run_stage(__doc__ or "", lambda only: distill_missing(RUNS, only), evaluate, page)
