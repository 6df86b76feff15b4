"""Long runs: memory that stays, and steps that take no longer at the end than at the beginning.

    python tests/stress/long.py --minutes 60 --out long.csv

runs every outer loop by the real command, with evaluations as by default, for so many minutes, and adds a row per loop
as it ends. A row has the resident memory (MiB) when it is warm, at the end and at its greatest after that, and the time
per outer step in the first and the last ten minutes, by CPU and by wall clock. CPU time is what counts: other work on
the machine changes the wall clock, and a run may be stopped for a while (SIGSTOP) without harm. Exit code 1 if a loop
failed, its memory grew by more than 5%, or its last steps took more than 1.1 times the CPU time of its first.

It reads /proc, so it needs Linux.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tables
from loops import LOOPS, OUTER_STEPS, words_of

from floppy.files import MEBIBYTE

EVERY = 10.0
"""Seconds between samples."""
WARM = 300.0
"""Seconds from the first logged step on, after which memory is to stay as it is."""
SPAN = 600.0
"""Seconds at both ends in which steps are timed; the first ones begin with the first logged step, after compilation."""
TICKS = os.sysconf("SC_CLK_TCK")
WRITING = threading.Lock()


class Sample(NamedTuple):
    """What is known of a process at a moment."""

    wall: float
    """Seconds since it started."""
    cpu: float
    """Seconds of all its threads."""
    memory: float
    """MiB that are resident."""
    steps: int
    """Lines in its log."""


class Watched:
    """A run, and what has been seen of it."""

    def __init__(self, loop: str, folder: Path) -> None:
        words = words_of(loop)
        rest = ["--outer-steps", str(OUTER_STEPS), "--no-early-stop", "--out", str(folder)]
        command = [sys.executable, "-m", "floppy", "distill", *words, *rest]
        self.loop, self.task, self._log, self._read, self._steps = loop, words[0], folder / "metrics.jsonl", 0, 0
        self._said = (folder.parent / f"{loop}.txt").open("w+")
        environment = os.environ | {"FLOPPY_CACHE": str(folder.parent / "cache")}
        self._process = subprocess.Popen(command, stdout=self._said, stderr=self._said, env=environment)
        self._started = time.monotonic()
        self.samples: list[Sample] = []

    def sample(self) -> Sample:
        """Looks at the process."""
        if self._process.poll() is not None:
            self._said.seek(0)
            raise RuntimeError(f"{self.loop} ended by itself: {self._said.read()[-500:]}")
        proc = Path("/proc") / str(self._process.pid)
        # The name, in brackets, may hold anything; the 12th and 13th figures after it are user and system time.
        figures = (proc / "stat").read_text().rpartition(")")[2].split()
        pages = int((proc / "statm").read_text().split()[1])
        wall, cpu = time.monotonic() - self._started, (int(figures[11]) + int(figures[12])) / TICKS
        seen = Sample(wall, cpu, pages * os.sysconf("SC_PAGE_SIZE") / MEBIBYTE, self._logged())
        self.samples.append(seen)
        return seen

    def _logged(self) -> int:
        """Lines in the log; only what is new is read."""
        if self._log.exists():
            with self._log.open("rb") as file:
                file.seek(self._read)
                new = file.read()
            self._read, self._steps = self._read + len(new), self._steps + new.count(b"\n")
        return self._steps

    def end(self) -> int:
        """Has it score what it has reached, as Ctrl-C does; the exit code."""
        self._process.send_signal(signal.SIGINT)
        try:
            return self._process.wait(timeout=3600)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()


def per_step(samples: list[Sample]) -> tuple[float, float]:
    """Seconds per outer step, by CPU and by wall clock: lines through the samples, for steps are logged in groups."""
    cpu, wall, steps = (np.asarray([getattr(each, name) for each in samples]) for name in ("cpu", "wall", "steps"))
    if np.ptp(steps) == 0:
        return float("nan"), float("nan")
    return float(np.polyfit(steps, cpu, 1)[0]), float(np.polyfit(steps, wall, 1)[0])


def figures(watched: Watched, code: int) -> dict[str, object]:
    """The row of a loop."""
    samples = [each for each in watched.samples if each.steps > 0]
    first, last = samples[0].wall, samples[-1].wall
    warm = [each for each in samples if each.wall >= min(first + WARM, last)]
    cpu, wall = per_step([each for each in samples if each.wall <= first + SPAN])
    cpu_last, wall_last = per_step([each for each in samples if each.wall >= last - SPAN])
    greatest = max(each.memory for each in warm)
    return {
        "loop": watched.loop,
        "task": watched.task,
        "minutes": round(last / 60, 1),
        "steps": samples[-1].steps,
        "cpu_minutes": round(samples[-1].cpu / 60, 1),
        "warm_mib": round(warm[0].memory),
        "end_mib": round(warm[-1].memory),
        "greatest_mib": round(greatest),
        "growth": round(greatest / warm[0].memory - 1, 3),
        "cpu_ms_first": round(1000 * cpu, 2),
        "cpu_ms_last": round(1000 * cpu_last, 2),
        "cpu_ratio": round(cpu_last / cpu, 3),
        "wall_ratio": round(wall_last / wall, 3),
        "exit_code": code,
    }


def is_as_promised(row: dict[str, object]) -> bool:
    """Whether memory and the pace of steps have stayed."""
    return row["exit_code"] == 0 and float(str(row["growth"])) <= 0.05 and float(str(row["cpu_ratio"])) <= 1.1


def watch(loop: str, minutes: float, folder: Path) -> dict[str, object]:
    """Runs a loop for so many minutes."""
    watched = Watched(loop, folder / loop)
    try:
        while (seen := watched.sample()).wall < 60 * minutes:
            if len(watched.samples) % 30 == 1:
                print(f"{loop}: {seen}", flush=True)
            time.sleep(EVERY)
    finally:
        code = watched.end()
    return figures(watched, code)


def keep(row: dict[str, object], path: Path) -> None:
    """Puts a loop's row into the table; those of the other loops stay."""
    with WRITING:
        kept = [each for each in tables.read(path) if each["loop"] != row["loop"]]
        tables.write(sorted([*kept, row], key=lambda each: str(each["loop"])), path)


def main() -> int:
    """Runs them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--out", type=Path, default=Path("long.csv"))
    parser.add_argument("--at-a-time", type=int, default=len(LOOPS), help="loops that run side by side")
    parser.add_argument("--only", nargs="*", default=[], help="some of the loops; the rows of the others stay")
    given = parser.parse_args()
    loops = [loop for loop in LOOPS if loop in given.only or not given.only]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(given.at_a_time) as pool:

        def tried(loop: str) -> bool:
            row = watch(loop, given.minutes, Path(folder))
            print(row, flush=True)
            keep(row, given.out)
            return is_as_promised(row)

        return int(not all(list(pool.map(tried, loops))))


if __name__ == "__main__":
    sys.exit(main())
