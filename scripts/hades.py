"""Regenerates docs/results/hades: `python scripts/hades.py distill`, then `evaluate`, then `page`.

Each stage leaves out what is already there. The distillations take some three hours on two cores: two can share the
machine, each with one core of its own (`taskset -c 0 python scripts/hades.py distill --only breakout`).
"""

import dataclasses
import json
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
SHORT = "--outer-steps 300 --budget 20m"
ASTERIX = (
    "--smoothness 3 --horizon 300 --environments 4 --sigma 0.4 --rate 0.04 --rate-decay 0.3 --outer-steps 400 "
    "--budget 38m"
)
REACHER = (
    "--initial-examples zeros --population 128 --environments 8 --horizon 100 --sigma 0.1 --rate-decay 0.2 "
    "--outer-steps 450 --budget 45m"
)
TITLES = {
    "r": "HaDES-R",
    "f,fresh": "HaDES-F against HaDES-R on one task",
}
"""Tables by the kinds of run that they show."""


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
    def command(self) -> str:
        seed = f" --seed {self.seed}" if self.seed else ""
        out = f"runs/hades/{self.name}"
        options = f" {self.options}" if self.options else ""
        return f"floppy distill {self.task} --outer hades --examples {self.examples}{options}{seed} --out {out}"


MINATAR = ("card", "width=512:activation=relu")
BRAX = ("card", "width=512")
RUNS = [
    Run("r", "cartpole", 2, learners=100, episodes=100),
    Run("r", "breakout", 16, "--outer-steps 600 --budget 38m", distributions=MINATAR, published="13.5"),
    Run("r", "space-invaders", 16, "--budget 38m", distributions=MINATAR, published="49.6"),
    Run("r", "asterix", 16, ASTERIX, distributions=MINATAR, published="8.9"),
    Run("r", "freeway", 16, "--outer-steps 200 --budget 38m", distributions=MINATAR, published="0"),
    Run("r", "hopper", 4, "--outer-steps 250 --budget 40m", distributions=BRAX, published="1771"),
    Run("r", "inverted-double-pendulum", 16, "--outer-steps 3000 --rate-decay 0.2 --budget 40m", distributions=BRAX),
    Run("r", "reacher", 64, REACHER, distributions=BRAX, published="-168"),
    *(Run("f", "breakout", 16, f"--distribution {OWN} {SHORT}", s, ("card", FRESH)) for s in range(3)),
    *(Run("fresh", "breakout", 16, SHORT, s, ("card", OWN)) for s in range(3)),
]


def evaluate(only: str) -> None:
    """Evaluates every dataset, then writes the CSV of all answers."""
    rows: list[Row] = []
    earlier = {row["command"]: row for row in read_rows(TABLE)}
    for run in RUNS:
        path = DATASETS / f"{run.name}.safetensors"
        folder = ROOT / "runs" / "hades" / run.name
        options = f"--distribution {','.join(run.distributions)} --learners {run.learners} --episodes {run.episodes}"
        scores = evaluation(
            path, f"{options} --seed {EVALUATION_SEED}", folder / "evaluation.json", wanted=only in run.name
        )
        if scores is not None:
            rows += result_rows(run, path, scores, what_it_took(folder, earlier.get(run.command)))
    write_rows(rows, TABLE)


def what_it_took(folder: Path, earlier: dict[str, str] | None) -> Row:
    """Generations and environment steps from the log of a run; seconds from its result, if that was kept.

    Of a run whose folder is gone, what the table says already.
    """
    if not (folder / "metrics.jsonl").exists() and earlier:
        return {name: earlier[name] for name in ("outer_steps", "env_steps", "seconds")}
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    return {
        "outer_steps": len(log),
        "env_steps": int(sum(line["env_steps"] for line in log)),
        "seconds": result.get("seconds", ""),
    }


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
    for kind, title in TITLES.items():
        chosen = [row for row in rows if row["set"] in kind.split(",")]
        if chosen:
            parts.append(f"### {title}\n\n{table(chosen)}")
    commands = dict.fromkeys(row["command"] for row in rows)
    parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```\n")
    PAGE.write_text("\n\n".join(parts))
    put_into_readme("hades.py", short_table(rows))


def short_table(rows: list[dict[str, str]]) -> str:
    """What fresh learners of the searched width reach."""
    lines = []
    for row in rows:
        if row["set"] == "r" and row["width"] == "64":
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
        method = "HaDES-F" if row["set"] == "f" else "HaDES-R"
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
    run_stage(__doc__ or "", lambda only: distill_missing(RUNS, DATASETS, only), evaluate, page)
