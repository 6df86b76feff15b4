"""Regenerates docs/results/images.md: `python scripts/images.py distill`, then `evaluate`, `page`.

MNIST and Fashion-MNIST are read from `../shared/reference/images`, or from where FLOPPY_DATA points. `--only mnist`
keeps to runs with that text in their name.
"""

import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _stages import (
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

TABLE = RESULTS / "images.csv"
CURVES = RESULTS / "images-curves.csv"
PAGE = RESULTS / "images.md"
MARK = "<!-- tables: written by scripts/images.py -->"
PUBLISHED = Path("../shared/reference/hades/mnist")
"""The HaDES paper's own datasets, which are not part of this project."""
EVALUATION_SEED = 1000
MLP = "width=256:depth=2:activation=relu:initialiser=lecun"
CONVNET = "network=convnet-3:width=128:depth=0:activation=relu:initialiser=lecun"
NETWORKS = {"card": "own", MLP: "MLP 256-256", CONVNET: "ConvNet-3"}
TRANSFER_IMAGES = 2000
"""Test images per learner for networks that the examples were not made for: ConvNet-3 is slow."""


@dataclass(frozen=True)
class Run:
    """One distillation, or one dataset that is imported."""

    task: str
    method: str
    """supervised, hades or published."""
    options: str = ""
    seed: int = 0
    paper: str = ""
    """The HaDES paper's accuracy."""

    @property
    def name(self) -> str:
        return f"{self.task}-{self.method}-seed{self.seed}"

    @property
    def path(self) -> Path:
        is_own = self.method != "published"
        return (RESULTS / "images" if is_own else ROOT / "runs" / "large" / "images") / f"{self.name}.safetensors"

    @property
    def command(self) -> str:
        if self.method == "published":
            file = {"mnist": "MNIST", "fashion-mnist": "FashionMNIST"}[self.task]
            source = PUBLISHED / f"{file}-HaDES-R-d10-w128-seed{self.seed}.npz"
            return f"floppy import {source} --out {self.path.relative_to(ROOT)}"
        seed = f" --seed {self.seed}" if self.seed else ""
        options = f" {self.options}" if self.options else ""
        return f"floppy distill images/{self.task} --outer {self.method}{options}{seed} --out runs/images/{self.name}"


PAPER = {"mnist": "90.1", "fashion-mnist": "80.2"}
OPTIONS = {"mnist": "", "fashion-mnist": "--learners 2"}
RUNS = [
    *(Run("digits", method, seed=seed) for method in ("supervised", "hades") for seed in range(3)),
    *(Run(task, "supervised", OPTIONS[task], seed, paper) for task, paper in PAPER.items() for seed in range(3)),
    *(Run(task, "hades", "--evaluate-every 400", 0, paper) for task, paper in PAPER.items()),
    *(Run(task, "published", "", seed, paper) for task, paper in PAPER.items() for seed in range(3)),
]


def evaluate(only: str) -> None:
    """Evaluates every dataset on test images, then writes the CSVs of accuracies and of curves."""
    known = read_rows(TABLE)
    earlier = {row["command"]: row for row in known}
    rows: list[Row] = []
    for run in RUNS:
        if run.method == "published":
            import_missing(run, ROOT / PUBLISHED, only)
        found = result_rows(run, only, earlier.get(run.command))
        rows += found or [row for row in known if row["command"] == run.command]
    write_rows(rows, TABLE)
    write_curves()


def result_rows(run: Run, only: str, earlier: dict[str, str] | None) -> list[Row]:
    """One row per network; none for a run that is not asked for, or not there."""
    folder, rows = ROOT / "runs" / "images" / run.name, []
    took: Row = {"outer_steps": "", "env_steps": "", "seconds": ""}
    for distribution, network in NETWORKS.items():
        # ConvNet-3 is too large for 8 x 8 pixels, and 1000 steps are too many for more than one network.
        if distribution != "card" and (run.method == "published" or (run.task == "digits" and distribution == CONVNET)):
            continue
        images = "" if distribution == "card" else f" --episodes {TRANSFER_IMAGES}"
        options = f"--distribution {distribution} --learners 20{images} --seed {EVALUATION_SEED}"
        answer = folder / f"evaluation-{network.split()[0].lower()}.json"
        scores = evaluation(run.path, options, answer, wanted=only in run.name)
        if scores is None:
            return []
        if run.method != "published":
            took = what_it_took(folder, earlier)
        score, dataset = scores[distribution], load(run.path)
        low, high = score["ci95"]
        row: Row = {"task": run.task, "method": run.method, "distillation_seed": run.seed, "network": network}
        row |= {name: score[name] for name in ("mean", "sd", "learners", "episodes", "seed")}
        row |= {"ci_low": low, "ci_high": high, "paper": run.paper if distribution == "card" else ""}
        row |= {"examples": dataset.examples, "floats": dataset.describe()["floats"]}
        rows.append(row | took | {"command": run.command})
    print(run.name, [round(row["mean"], 1) for row in rows], file=sys.stderr, flush=True)
    return rows


def write_curves() -> None:
    """Accuracies on held-out images while datasets were made; of a run whose folder is gone, as the table has them."""
    known = read_rows(CURVES)
    rows: list[Row] = []
    for run in RUNS:
        log = ROOT / "runs" / "images" / run.name / "metrics.jsonl"
        if log.exists():
            lines = [json.loads(line) for line in log.read_text().splitlines()]
            scored = [line for line in lines if line.get("selection_score") is not None]
            rows += [{"run": run.name, "outer_step": s["step"], "accuracy": s["selection_score"]} for s in scored]
        else:
            rows += [row for row in known if row["run"] == run.name]
    if rows:
        write_rows(rows, CURVES)


def draw() -> None:
    """The examples of every own dataset of seed 0, a row each."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    shown = [run for run in RUNS if run.method != "published" and run.seed == 0 and run.path.exists()]
    figure, axes = pyplot.subplots(len(shown), 10, figsize=(10, 1.2 * len(shown)), squeeze=False)
    for row, run in zip(axes, shown, strict=True):
        images = load(run.path).observations[:10, ..., 0]
        for place, image in zip(row, images, strict=True):
            place.imshow(image, cmap="gray", vmin=np.quantile(images, 0.01), vmax=np.quantile(images, 0.99))
            place.set_xticks([])
            place.set_yticks([])
        row[0].set_ylabel(f"{run.task}\n{run.method}", fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "images" / "examples.png", dpi=80, metadata={"Software": None})


def page() -> None:
    """Puts the tables made from the CSVs below the mark on the page, and draws the examples."""
    rows = read_rows(TABLE)
    parts = [PAGE.read_text().split(MARK)[0] + MARK, result_table(rows)]
    parts.append(f"### Over three seeds\n\n{seeds_table(rows)}")
    parts.append(f"### Curves\n\n{curve_table(read_rows(CURVES))}")
    commands = dict.fromkeys(row["command"] for row in rows)
    parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```\n")
    PAGE.write_text("\n\n".join(parts))
    draw()
    put_into_readme("images.py", seeds_table([row for row in rows if row["method"] != "published"]))


def result_table(rows: list[dict[str, str]]) -> str:
    """One line per dataset, its accuracies by network."""
    head = ["images", "method", "seed", *NETWORKS.values(), "paper", "examples", "floats", "outer steps", "minutes"]
    lines = []
    for run in dict.fromkeys((row["task"], row["method"], row["distillation_seed"]) for row in rows):
        of_run = [row for row in rows if (row["task"], row["method"], row["distillation_seed"]) == run]
        by_network = {row["network"]: f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}" for row in of_run}
        first = of_run[0]
        minutes = f"{float(first['seconds']) / 60:.1f}" if first["seconds"] else "–"
        accuracies = [by_network.get(network, "–") for network in NETWORKS.values()]
        sizes = [first["examples"], first["floats"], first["outer_steps"] or "–", minutes]
        lines.append([*run, *accuracies, first["paper"] or "–", *sizes])
    return markdown_table(head, lines)


def seeds_table(rows: list[dict[str, str]]) -> str:
    """Mean and standard deviation over seeds of a dataset's mean accuracy with its own network."""
    lines = []
    own = [row for row in rows if row["network"] == "own"]
    for task, method in dict.fromkeys((row["task"], row["method"]) for row in own):
        found = [row for row in own if (row["task"], row["method"]) == (task, method)]
        means = np.array([float(row["mean"]) for row in found])
        spread = f" ± {means.std(ddof=1):.1f}" if len(means) > 1 else ""
        lines.append([task, method, str(len(means)), f"{means.mean():.1f}{spread}", found[0]["paper"] or "–"])
    return markdown_table(["images", "method", "seeds", "test accuracy, %", "HaDES paper"], lines)


def curve_table(rows: list[dict[str, str]]) -> str:
    """One line per run: held-out accuracy after eighths of the run."""
    lines = []
    for run in dict.fromkeys(row["run"] for row in rows):
        of_run = [row for row in rows if row["run"] == run]
        chosen = [of_run[place] for place in sorted({round(part * (len(of_run) - 1) / 7) for part in range(8)})]
        lines.append([run, ", ".join(f"{row['outer_step']}: {float(row['accuracy']):.1f}" for row in chosen)])
    return markdown_table(["run", "held-out accuracy by outer step"], lines)


if __name__ == "__main__":
    os.environ.setdefault("FLOPPY_DATA", str((ROOT / "../shared/reference/images").resolve()))
    run_stage(
        __doc__ or "", lambda only: distill_missing([r for r in RUNS if r.method != "published"], only), evaluate, page
    )
