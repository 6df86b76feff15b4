"""Writes docs/results/stress.md from the tables that `make stress` and `make stress-long` wrote."""

from pathlib import Path
from typing import NamedTuple

import tables

FOLDER = Path(__file__).parents[2] / "docs/results"
HEAD = """# Stress: damaged files, killed runs, full disks, long runs

`make stress` wrote these tables, `make stress-long` the last one; [reliability.md](../reliability.md) says what is
promised."""


class Section(NamedTuple):
    """A table and what it says."""

    title: str
    name: str
    """Of the table, and of the script that makes it."""
    text: str


SECTIONS = (
    Section(
        "Mutated files",
        "fuzz",
        """
Each file is one that can be read, of which a few bytes were flipped, cut out, doubled or replaced (`python
tests/stress/fuzz.py`). It loads, or one sentence refuses it: `other` counts everything else, and must be 0. `peak_mib`
is the most memory that the process had till then, in MiB.""",
    ),
    Section(
        "Killed runs",
        "kills",
        """
Runs killed (SIGKILL) at moments spread over their time, from the start to the final score, then resumed (`python
tests/stress/kills.py`); every second one is killed again while it goes on. `before_checkpoint` counts those that had
written none yet, `same` those that ended with the bytes of an undisturbed run. Environments that Python steps start new
episodes, so that a host task ends with `other` bytes, as promised. `failed` must be 0.""",
    ),
    Section(
        "Disks that fill up, folders that vanish",
        "full_disk",
        """
Every change that a command makes to its folder fails in turn, with all that follow it (`python
tests/stress/full_disk.py`): the disk is `full`, or turns `read-only`, or the folder is removed before that change
(`vanished`). `tries` counts these moments. Each must end with exit code 2 and one sentence; what stood there before is
kept, unless the folder was removed; and the command then goes on, or begins again, and ends with the bytes of an
undisturbed run. `mounted` is a real file system in memory, with one page free, two, and so on. `faults` must be 0.""",
    ),
    Section(
        "Partners that die",
        "partners",
        """
Two processes share a run on one machine, and one of them is killed or frozen (`python tests/stress/partners.py`).
`seconds` is how long the other one, which must end with exit code 2 and a sentence, took to notice. Both are then
started once more with `--resume`, and must end with the bytes of an undisturbed run.""",
    ),
    Section(
        "Numbers of devices",
        "devices",
        """
The same few outer steps on as many devices, which XLA makes of the processor (`python tests/stress/devices.py`): the
largest difference from one device of any number of the dataset, relative to the largest of its tensor (at most 0.01),
and of the score, relative to it (at most 0.02). Rounding differs, for sums are taken in another order; where it changes
one of the actions that are drawn, more does. Over more steps these differences grow.
""".rstrip(),
    ),
    Section(
        "Budgets of time",
        "budget",
        """
Runs with `--budget` (`python tests/stress/budget.py`), on a machine that was busy with other work: the seconds that the
whole program took, its start and the last scoring included, and what it said itself. `missed` must be within 0.1.""",
    ),
    Section(
        "Long runs",
        "long",
        """
Every outer loop for an hour, with evaluations as by default, all of them side by side on two cores (`python
tests/stress/long.py`), with other work in the forty minutes in between. Memory is what is resident (MiB), five minutes
after the first evaluation, at the end, and at its greatest in between; `growth` must be at most 0.05. The time per
outer step in the last ten minutes relative to the first ten, `cpu_ratio`, must be at most 1.1. It is CPU time
(`cpu_ms_first`, `cpu_ms_last`) because other work on the machine changes the wall clock, of which `wall_ratio` is.""",
    ),
)


def path_of(name: str) -> Path:
    """Where a table is."""
    return FOLDER / "stress" / f"{name}.csv"


def table(name: str) -> str:
    """A CSV table in Markdown."""
    rows = tables.read(path_of(name))
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def page() -> str:
    """The page, of the tables that there are."""
    parts = [f"## {each.title}\n{each.text}\n\n{table(each.name)}" for each in SECTIONS if path_of(each.name).exists()]
    return "\n\n".join([HEAD, *parts]) + "\n"


if __name__ == "__main__":
    (FOLDER / "stress.md").write_text(page())
