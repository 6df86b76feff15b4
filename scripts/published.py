"""Regenerates docs/results/published: `python scripts/published.py evaluate`, then `page`.

Imports datasets that the HaDES paper published (`../shared/reference/hades`, not part of this project) and evaluates
them with fresh networks. What has been evaluated is left out.
"""

import dataclasses
import subprocess
import sys
from dataclasses import dataclass

from _stages import FLOPPY, RESULTS, ROOT, Row, evaluation, markdown_table, read_rows, run_stage, write_rows

REFERENCE = ROOT.parent / "shared" / "reference" / "hades"
WORK = ROOT / "runs" / "published"
TABLE = RESULTS / "published.csv"
PAGE = RESULTS / "published.md"
MARK = "<!-- table: written by scripts/published.py -->"


@dataclass(frozen=True)
class Run:
    """A published file, whom it is cloned into, and where its published score stands."""

    file: str
    distribution: str = "card"
    learners: int = 8
    episodes: int = 4
    score: str = "mean_last10"
    """Column of published.csv, or of minatar_reevaluation.csv."""

    @property
    def options(self) -> str:
        return f"--distribution {self.distribution} --learners {self.learners} --episodes {self.episodes}"

    @property
    def published(self) -> float:
        """What the file reached in its own run (Brax), or when its authors' code evaluated it again (MinAtar)."""
        suite, name = self.file.split("/")
        environment, method, variant, _, width, seed = name.replace("-MinAtar", "").split("-")
        if suite != "minatar-5k":
            rows = [r for r in read_rows(REFERENCE / "published.csv") if r["file"] == f"hades/{self.file}.npz"]
            return float(rows[0][self.score])
        wanted = (f"{environment}-MinAtar", f"{method}-{variant}", width[1:], seed[4:], "mean")
        rows = read_rows(REFERENCE / "minatar_reevaluation.csv")
        found = [r for r in rows if (r["env"], r["method"], r["width"], r["seed"], r["dataset"]) == wanted]
        return float(found[0]["last_finished_return"])


HOPPER_F = [f"brax/hopper-HaDES-F-d64-w512-seed{seed}" for seed in range(3)]
RUNS = [
    Run("brax-d4-constnorm/hopper-HaDES-R-d4-w512-seed1"),
    *(Run(f"brax/hopper-HaDES-R-d64-w512-seed{seed}") for seed in range(3)),
    *(Run(file, learners=1, episodes=32, score="final_mean_fitness") for file in HOPPER_F),
    *(Run(file, "width=512", score="final_mean_fitness") for file in HOPPER_F),
    *(Run(f"minatar-5k/Breakout-MinAtar-HaDES-R-d16-w512-seed{s}", learners=16, episodes=8) for s in range(3)),
]


def evaluate(only: str) -> None:
    """Imports and evaluates every file, then writes the CSV of all answers."""
    if not REFERENCE.is_dir():
        sys.exit(f"the published datasets are not here ({REFERENCE})")
    rows: list[Row] = []
    known = read_rows(TABLE)
    for run in RUNS:
        path = WORK / f"{run.file.replace('/', '-')}.safetensors"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            subprocess.run([FLOPPY, "import", REFERENCE / f"{run.file}.npz", "--out", path], check=True)
        answer = path.with_name(f"{path.stem}-{run.distribution}.json")
        scores = evaluation(path, run.options, answer, wanted=only in run.file)
        if scores is not None:
            score = scores[run.distribution]
            kept = {name: score[name] for name in ("mean", "sd", "learners", "episodes", "seed")}
            rows.append(dataclasses.asdict(run) | kept | {"published": run.published, "options": run.options})
            print(run.file, run.distribution, round(score["mean"], 2), run.published, file=sys.stderr, flush=True)
        else:  # what was not asked for stays
            rows += [row for row in known if (row["file"], row["options"]) == (run.file, run.options)]
    write_rows(rows, TABLE)


def page() -> None:
    """Puts the table made from the CSV below the mark on the page."""
    head = ["published file", "learners", "networks x episodes", "mean return", "published", "difference", "options"]
    lines = []
    for row in read_rows(TABLE):
        mean, published = float(row["mean"]), float(row["published"])
        own = "HaDES-F" in row["file"] and row["distribution"] == "card"
        lines.append(
            [
                row["file"],
                "its own initialisation" if own else "fresh, width 512",
                f"{row['learners']} x {row['episodes']}",
                f"{mean:.4g} ± {float(row['sd']):.3g}",
                f"{published:.4g}",
                f"{100 * (mean / published - 1):+.1f} %",
                f"`{row['options']}`",
            ]
        )
    PAGE.write_text(f"{PAGE.read_text().split(MARK)[0]}{MARK}\n\n{markdown_table(head, lines)}\n")


if __name__ == "__main__":
    run_stage(__doc__ or "", None, evaluate, page)
