"""Budgets of time: how long runs really take, the last scoring and the start of the program included.

    python tests/stress/budget.py --minutes 2 --out budget.csv

runs every outer loop with `--budget` and writes a row per loop: the seconds asked for, those that the program took and
those that it says it took, and how far it missed. Exit code 1 if it missed by more than 10%.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tables
from loops import LOOPS, OUTER_STEPS, words_of

MOST = 0.1
"""Of the budget, by which it may be missed."""


def timed(loop: str, minutes: float, folder: Path) -> dict[str, object]:
    """The row of a loop."""
    words = [*words_of(loop), "--outer-steps", str(OUTER_STEPS), "--no-early-stop"]
    words += ["--budget", f"{60 * minutes:g}s", "--json", "--out", str(folder / loop)]
    environment = os.environ | {"FLOPPY_CACHE": str(folder / "cache")}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "floppy", "distill", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    took = time.monotonic() - started
    if done.returncode:
        raise RuntimeError(f"{loop}: exit code {done.returncode}: {done.stderr[-1000:]}")
    said = json.loads(done.stdout)
    return {
        "loop": loop,
        "task": words[0],
        "budget": 60 * minutes,
        "seconds": round(took, 1),
        "said": round(said["seconds"], 1),
        "missed": round(took / (60 * minutes) - 1, 3),
        "steps": said["outer_steps"],
    }


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=2)
    parser.add_argument("--out", type=Path, default=Path("budget.csv"))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for loop in LOOPS:
            rows.append(timed(loop, given.minutes, Path(folder)))
            print(rows[-1], flush=True)
    tables.write(rows, given.out)
    return int(any(abs(float(str(row["missed"]))) > MOST for row in rows))


if __name__ == "__main__":
    sys.exit(main())
