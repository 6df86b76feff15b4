"""Regenerates the pages of studies in docs/results: `python scripts/studies.py evaluate`, then `page`.

`--only transfer` keeps to one page, `--only transfer-cartpole` to one study. What was measured stays.
"""

import json
import shlex
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _stages import FLOPPY, RESULTS, ROOT, markdown_table, run_stage

from floppy.studies import draw_study, read_study
from floppy.studies.base import ROWS_NAME, STUDY_NAME

MARK = "<!-- studies: written by scripts/studies.py -->"
KEPT = RESULTS / "studies"
HADES = "docs/results/hades"
CARTPOLE = "docs/results/cartpole"
PUBLISHED = "runs/large/published"


@dataclass(frozen=True)
class Measured:
    """One study of one task."""

    study: str
    """Its command."""
    task: str
    """Short, for file names and headings."""
    arguments: str
    first: tuple[str, ...] = ()
    """Commands that make what it needs."""

    @property
    def name(self) -> str:
        return f"{self.study}-{self.task}"

    @property
    def kept(self) -> Path:
        return KEPT / self.name

    @property
    def page(self) -> Path:
        return RESULTS / f"{self.study}.md"

    @property
    def command(self) -> str:
        return f"floppy {self.study} {self.arguments} --out runs/studies/{self.name}"


def published(kind: str) -> tuple[str, str]:
    """The dataset that the HaDES paper published for hopper, and the command that imports it."""
    source = f"../shared/reference/hades/brax/hopper-HaDES-{kind.upper()}-d64-w512-seed0.npz"
    path = f"{PUBLISHED}/hopper-{kind}.safetensors"
    return path, f"floppy import {source} --out {path}"


(PUBLISHED_R, IMPORT_R), (PUBLISHED_F, IMPORT_F) = published("r"), published("f")
STUDIES = [
    Measured("transfer", "cartpole", f"{HADES}/r-cartpole-k2.safetensors {HADES}/f-cartpole-k2.safetensors"),
    Measured(
        "transfer",
        "hopper",
        f"{HADES}/r-hopper-k4.safetensors {HADES}/f-hopper-k4.safetensors --widths 32 64 128 256 512 --episodes 4",
    ),
    Measured("transfer", "hopper-wide", f"{HADES}/r-hopper-k4.safetensors --widths 64 1024 2048 --episodes 4"),
    Measured(
        "transfer",
        "hopper-published",
        f"{PUBLISHED_R} {PUBLISHED_F} --widths 32 64 128 256 512 --episodes 4",
        (IMPORT_R, IMPORT_F),
    ),
    Measured("multitask", "cartpole", f"{CARTPOLE}/lambda-1d-k2.safetensors {CARTPOLE}/lambda-2d-k3.safetensors"),
    Measured(
        "multitask",
        "brax",
        f"{HADES}/r-hopper-k4.safetensors {HADES}/r-inverted-double-pendulum-k16.safetensors --episodes 4",
    ),
    Measured("ensemble", "cartpole", f"{CARTPOLE}/lambda-2d-k3.safetensors --distribution xavier"),
    Measured("ensemble", "cartpole-greedy", f"{CARTPOLE}/lambda-2d-k3.safetensors --distribution xavier --greedy"),
    Measured("ensemble", "breakout", f"{HADES}/r-breakout-k16.safetensors --distribution width=512:activation=relu"),
    Measured("cost", "cartpole", "cartpole --examples 2 --every 5 --ppo-budget 200steps --seeds 0 1 2 3 4"),
    Measured(
        "cost",
        "inverted-double-pendulum",
        "inverted-double-pendulum --examples 16 --budget 500steps --ppo-budget 300steps --every 20",
    ),
    Measured("search", "cartpole-2d", f"{CARTPOLE}/steps-2d-k16.safetensors"),
    Measured("search", "breakout", f"{HADES}/r-breakout-k16.safetensors --env-steps 400000 --trained 16 --seeds 0"),
    Measured("minimum-size", "cartpole", "cartpole --losses mse cross-entropy --seeds 0 1"),
    Measured(
        "minimum-size",
        "inverted-double-pendulum",
        "inverted-double-pendulum --sizes 1 2 3 --budget 200steps --best 9359 --share 0.5 --seeds 0",
    ),
    Measured("compare", "cartpole", "cartpole --examples 2 --seeds 0 1 --budget 40s"),
    Measured("compare", "breakout", "breakout --methods hades-f hades neuroevolution ppo --seeds 0 1 --budget 60s"),
    Measured("budget", "cartpole-2d", "ndcartpole/2 --sizes 4 16 64 --seeds 0 1 --budget 30s"),
    Measured(
        "budget",
        "breakout",
        "breakout --sizes 4 16 64 --methods hades neuroevolution ppo --seeds 0 1 --budget 25s",
    ),
]


def evaluate(only: str) -> None:
    """Runs, or goes on with, every study whose name holds `only` and whose table is not kept yet."""
    for study in STUDIES:
        if only not in study.name or (study.kept / ROWS_NAME).exists():
            continue
        folder = ROOT / "runs" / "studies" / study.name
        resumed = ["--resume"] if (folder / STUDY_NAME).exists() else []
        for command in (*(() if resumed else study.first), study.command):
            print(command, flush=True)
            words = shlex.split(command)[1:] + (resumed if command == study.command else [])
            subprocess.run([FLOPPY, *words], cwd=ROOT, check=True)
        study.kept.mkdir(parents=True, exist_ok=True)
        for name in (STUDY_NAME, ROWS_NAME):
            shutil.copy(folder / name, study.kept)


def page() -> None:
    """Puts figures, summaries and commands below the mark on the page of each study."""
    for target in dict.fromkeys(study.page for study in STUDIES):
        parts = [target.read_text().split(MARK)[0] + MARK]
        parts += [section(study) for study in STUDIES if study.page == target and (study.kept / ROWS_NAME).exists()]
        target.write_text("\n\n".join(parts) + "\n")


def section(study: Measured) -> str:
    """One study on its page."""
    summary = draw_study(study.kept)
    place = study.kept.relative_to(study.page.parent)
    figure = f"![{read_study(study.kept).name}]({place}/figure.png)"
    links = f"[rows]({place}/rows.csv), [summary]({place}/summary.json)"
    asked = json.loads((study.kept / STUDY_NAME).read_text())
    settings = ", ".join(
        f"{name.replace('_', ' ')} {text(value)}"
        for name, value in asked.items()
        if name not in ("study", "command", "dataset", "datasets") and value not in ("", None, [])
    )
    commands = "\n".join([*study.first, asked["command"]])
    parts = [f"### {study.task}", figure, *tables(summary), f"Measured with {settings}.", links]
    return "\n\n".join([*parts, f"```text\n{commands}\n```"])


def tables(summary: Any, name: str = "") -> list[str]:
    """A summary as tables: one for each list of entries, and one for the figures beside them."""
    if isinstance(summary, dict) and all(isinstance(entry, dict) for entry in summary.values()):
        summary = [{"": key} | entry for key, entry in summary.items()]
    if isinstance(summary, list):
        rows = [flat(entry) for entry in summary]
        head = list(dict.fromkeys(key for row in rows for key in row))
        table = markdown_table(head, [[text(row.get(key, ""), key) for key in head] for row in rows])
        return [f"{name}:\n\n{table}" if name else table]
    lists = {key: value for key, value in summary.items() if isinstance(value, list) and is_table(value)}
    rest = flat({key: value for key, value in summary.items() if key not in lists})
    made = [markdown_table(["", ""], [[key, text(value, key)] for key, value in rest.items()])] if rest else []
    return made + [table for key, value in lists.items() for table in tables(value, key.replace("_", " "))]


def is_table(value: list[Any]) -> bool:
    """Whether a list has entries with names."""
    return bool(value) and isinstance(value[0], dict)


def flat(entry: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """An entry whose inner entries have become columns of its own."""
    found: dict[str, Any] = {}
    for key, value in entry.items():
        name = prefix + key.replace("_", " ")
        found |= flat(value, f"{name}: ") if isinstance(value, dict) else {name: value}
    return found


def text(value: Any, name: str = "") -> str:
    """A figure in a table; only an interval has a "to"."""
    if isinstance(value, dict):
        return ": ".join(map(text, value.values()))
    if isinstance(value, list):
        between = " to " if name.endswith("interval") else "; " if is_table(value) else ", "
        return between.join(map(text, value))
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return "–" if value is None else str(value)


if __name__ == "__main__":
    run_stage(__doc__ or "", None, evaluate, page)
