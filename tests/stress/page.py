"""Writes docs/results/stress.md from the tables that `make stress` wrote."""

import csv
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs/results"
HEAD = """# Stress: damaged files, killed runs

`make stress` wrote these tables; [reliability.md](../reliability.md) says what is promised.

## Mutated files

Each file is one that can be read, of which a few bytes were flipped, cut out, doubled or replaced (`python
tests/stress/fuzz.py`). It loads, or one sentence refuses it: `other` counts everything else, and must be 0. `peak_mib`
is the most memory that the process had till then, in MiB.

{fuzz}

## Killed runs

Runs killed (SIGKILL) at moments spread over their time, from the start to the final score, then resumed (`python
tests/stress/kills.py`); every second one is killed again while it goes on. `before_checkpoint` counts those that had
written none yet, `same` those that ended with the bytes of an undisturbed run. Environments that Python steps start new
episodes, so that a host task ends with `other` bytes, as promised. `failed` must be 0.

{kills}
"""


def table(name: str) -> str:
    """A CSV table in Markdown."""
    with (FOLDER / "stress" / f"{name}.csv").open(newline="") as file:
        first, *rest = csv.reader(file)
    rows = [first, ["---"] * len(first), *rest]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def page() -> str:
    """The page."""
    return HEAD.format(fuzz=table("fuzz"), kills=table("kills"))


if __name__ == "__main__":
    (FOLDER / "stress.md").write_text(page())
