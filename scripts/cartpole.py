"""Regenerates docs/results/cartpole: `python scripts/cartpole.py distill`, then `evaluate`, then `page`.

Each stage leaves out what is already there. The distillations take about an hour on two cores, the evaluations a
quarter of an hour.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from _stages import RESULTS, ROOT, Row, distill_missing, evaluation, put_into_readme, read_rows, run_stage, write_rows

from floppy import load
from floppy.learners import NAMED_DISTRIBUTIONS

DATASETS = RESULTS / "cartpole"
TABLE = RESULTS / "cartpole.csv"
PAGE = RESULTS / "cartpole.md"
MARK = "<!-- tables: written by scripts/cartpole.py -->"
COLUMNS = tuple(NAMED_DISTRIBUTIONS)
EVALUATION_SEED = 1000

# Wilhelm and Ventura (2025), Table 1, in the order of COLUMNS, by (dimensions, examples).
PAPER = {
    (1, 2): (500, 238, 258, 175, 500, 500),
    (2, 3): (365, 16.3, 76.8, 13.4, 443, 415),
    (3, 4): (264, 12.4, 38.6, 10.9, 379, 305),
    (4, 5): (127, 12.5, 35.0, 11.0, 165, 156),
    (5, 6): (87.5, 12.8, 35.7, 11.5, 112, 125),
    (1, 512): (500, 233, 246, 137, 500, 500),
    (2, 512): (350, 15.9, 68.6, 13.9, 457, 439),
    (3, 512): (240, 12.7, 41.8, 11.5, 401, 383),
    (4, 512): (129, 12.5, 39.7, 11.3, 203, 188),
    (5, 512): (87.5, 12.8, 41.0, 12.0, 140, 159),
}


@dataclass(frozen=True)
class Run:
    """One distillation: which table it belongs to and how it is made."""

    kind: str
    dimensions: int
    examples: int
    options: str = ""
    seed: int = 0

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.dimensions}d-k{self.examples}" + (f"-seed{self.seed}" if self.seed else "")

    @property
    def path(self) -> Path:
        return DATASETS / f"{self.name}.safetensors"

    @property
    def command(self) -> str:
        out = f"runs/cartpole/{self.name}"
        seed = f" --seed {self.seed}" if self.seed else ""
        task = f"ndcartpole/{self.dimensions} --examples {self.examples} {self.options}".strip()
        return f"floppy distill {task}{seed} --out {out}"


RUNS = [
    *(Run("lambda", n, n + 1) for n in range(1, 6)),
    *(Run("below", 1, 1, "", seed) for seed in range(5)),
    *(Run("below", n, n) for n in range(2, 4)),
    *(Run("errors", n, n + 1, "--published-errors") for n in (1, 2, 3)),
    Run("robust", 1, 2, "--recipe ppmo-robust --rate 3e-3 --outer-steps 1000"),
    *(Run("robust", n, n + 1, "--recipe ppmo-robust") for n in range(2, 6)),
    Run("steps", 2, 16, "--recipe ppmo-robust --cloning.steps 8 --initial-rate 0.1 --outer-steps 300"),
    Run("robust", 1, 512, "--recipe ppmo-robust --rate 3e-3 --outer-steps 500"),
    *(Run("robust", n, 512, f"--recipe ppmo-robust --outer-steps {200 if n < 3 else 400}") for n in range(2, 6)),
]


def evaluate(only: str) -> None:
    """Evaluates every dataset under the six distributions, then writes the CSV of all answers."""
    rows: list[Row] = []
    known = read_rows(TABLE)
    for run in RUNS:
        path = run.path
        answer = ROOT / "runs" / "cartpole" / run.name / "evaluation.json"
        options = f"--distribution all --seed {EVALUATION_SEED}"
        scores = evaluation(path, options, answer, wanted=only in run.name)
        if scores is not None:
            rows += result_rows(run, path, scores)
        else:  # what was not asked for stays
            rows += [row for row in known if row["command"] == run.command]
    write_rows(rows, TABLE)


def result_rows(run: Run, path: Path, scores: Row) -> list[Row]:
    """One row per distribution."""
    config = load(path).card.algorithm["config"]
    rows = []
    for column, score in scores.items():
        low, high = score.pop("ci95")
        score.pop("diverged", None)
        paper = PAPER.get((run.dimensions, run.examples), (None,) * 6)[COLUMNS.index(column)]
        row = {"set": run.kind, "dimensions": run.dimensions, "examples": run.examples, "distribution": column}
        row |= score | {"ci_low": low, "ci_high": high, "paper": paper}
        row |= {"distillation_seed": config["seed"], "outer_steps": config["outer_steps"]}
        rows.append(row | {"command": run.command})
    print(run.name, [round(row["mean"], 1) for row in rows], file=sys.stderr, flush=True)
    return rows


def page() -> None:
    """Puts the tables made from the CSV below the mark on the page, and a short one into the README."""
    rows = read_rows(TABLE)
    parts = [PAGE.read_text().split(MARK)[0] + MARK]
    titles = {
        "lambda": "Distilled for Λ, k_min examples",
        "errors": "The same with the published code's errors (`--published-errors`)",
        "below": "Fewer than k_min examples, distilled for Λ",
        "robust": "Distilled for random widths, depths and initialisers",
        "steps": "The same with eight gradient steps in place of one",
    }
    for kind, title in titles.items():
        parts.append(f"### {title}\n\n{table([row for row in rows if row['set'] == kind])}")
    commands = dict.fromkeys(row["command"] for row in rows)
    parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```\n")
    PAGE.write_text("\n\n".join(parts))
    put_into_readme("cartpole.py", short_table(rows))


def table(rows: list[dict[str, str]]) -> str:
    """Ours (± standard deviation over learners) above the paper's, per task and number of examples."""
    lines = ["| task | k | seed | | " + " | ".join(COLUMNS) + " |", "|---|---|---|---|" + "---|" * len(COLUMNS)]
    for dimensions, examples, seed in dict.fromkeys(map(which, rows)):
        cells = {row["distribution"]: row for row in rows if which(row) == (dimensions, examples, seed)}
        ours = [f"{float(cells[c]['mean']):.1f} ± {float(cells[c]['sd']):.1f}" for c in COLUMNS]
        paper = [cells[c]["paper"] or "–" for c in COLUMNS]
        lines.append(f"| {dimensions}D | {examples} | {seed} | floppy | " + " | ".join(ours) + " |")
        if any(cells[c]["paper"] for c in COLUMNS):
            lines.append("| | | | paper | " + " | ".join(paper) + " |")
    return "\n".join(lines)


def short_table(rows: list[dict[str, str]]) -> str:
    """The datasets distilled for Λ, evaluated under Λ."""
    rows = [row for row in rows if row["set"] == "lambda" and row["distribution"] == "lambda"]
    lines = ["| cart-pole | examples | floppy | paper |", "|---|---|---|---|"]
    for row in rows:
        ours = f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}"
        lines.append(f"| {row['dimensions']}D | {row['examples']} | {ours} | {row['paper']} |")
    return "\n".join(lines)


def which(row: dict[str, str]) -> tuple[str, str, str]:
    """What tells one distillation of a table from another."""
    return row["dimensions"], row["examples"], row["distillation_seed"]


if __name__ == "__main__":
    run_stage(__doc__ or "", lambda only: distill_missing(RUNS, only), evaluate, page)
