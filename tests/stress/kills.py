"""Runs killed at random moments end, resumed, with the same bytes as undisturbed ones.

    python tests/stress/kills.py --kills 60 --out kills.csv

Each kind of run is made once without a disturbance. Then it is killed (SIGKILL) at moments spread evenly over its time,
which holds start, steps, evaluations, checkpoints and the final score, and goes on with --resume, of which the first go
is killed too every second time. Writes a row per kind: kills, how many came before the first checkpoint, how many runs
ended with the same bytes, with other ones, or failed. Exit code 1 if any did not end as promised.
"""

import argparse
import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tables
from compared import digest

SMALL = "--distribution width=8:depth=1:initialiser=xavier --outer-steps 12 --evaluate-every 2 --score-learners 4"
SMALL += " --score-episodes 2 --selection-learners 4 --no-early-stop"
PPMO = "--learners 2 --environments 2 --horizon 16 --minibatch-size 32"
IMAGES = "--outer-steps 12 --evaluate-every 2 --batch-size 32 --selection-learners 2 --score-learners 2 --no-early-stop"


@dataclasses.dataclass(frozen=True)
class Kind:
    """A command, without the folder that it writes."""

    name: str
    words: str
    file: str = "dataset.safetensors"
    """What is compared."""
    is_repeatable: bool = True
    """Whether it ends with the same bytes: environments that Python steps start new episodes."""


KINDS = (
    Kind("PPMO", f"distill cartpole {SMALL} {PPMO}"),
    Kind("HaDES", f"distill cartpole --outer hades {SMALL} --population 8 --environments 1"),
    Kind("supervised", f"distill images/digits {IMAGES}"),
    Kind("host task", f"distill gymnasium/CartPole-v1 {SMALL} {PPMO}", is_repeatable=False),
    Kind("study transfer", "transfer DATASET --widths 4 8 --draws 2 --episodes 2", "rows.csv"),
    Kind("study rollback", f"rollback cartpole --levels 1 2 {SMALL} {PPMO}", "rows.csv"),
)


def start(kind: Kind, folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    """The command in a process of its own."""
    words = kind.words.replace("DATASET", str(folder.parent / "dataset.safetensors")).split()
    command = [sys.executable, "-m", "floppy", *words, "--out", str(folder), *more]
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "FLOPPY_CACHE": str(folder.parent / "cache")}
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment)


def finish(kind: Kind, folder: Path, *more: str) -> str:
    """Runs a command to its end; gives what is compared."""
    process = start(kind, folder, *more)
    _, said = process.communicate(timeout=600)
    if process.returncode != 0:
        raise RuntimeError(f"{kind.name}: exit code {process.returncode}: {said.decode()[-500:]}")
    return digest(folder / kind.file)


def killed(kind: Kind, folder: Path, after: float, *more: str) -> bool:
    """Kills a command after so many seconds; whether it was still running."""
    process = start(kind, folder, *more)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=after)
        return False
    process.kill()
    process.communicate()
    return True


def tried(kind: Kind, kills: int, folder: Path, dice: random.Random) -> dict[str, object]:
    """The row of a kind of run."""
    finish(kind, folder / "warm")  # fills the cache of compiled programs
    started = time.monotonic()
    wanted = finish(kind, folder / "whole")
    seconds = time.monotonic() - started
    counts = {"kills": 0, "before_checkpoint": 0, "same": 0, "other": 0, "failed": 0}
    for number in range(kills):
        run = folder / "killed"
        shutil.rmtree(run, ignore_errors=True)
        counts["kills"] += killed(kind, run, seconds * (number + dice.random()) / kills)
        counts["before_checkpoint"] += not list(run.glob("**/latest.safetensors")) and not (run / "rows.csv").exists()
        if number % 2:
            counts["kills"] += killed(kind, run, seconds * dice.random(), "--resume")
        try:
            counts["same" if finish(kind, run, "--resume") == wanted else "other"] += 1
        except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
            print(error, flush=True)
            counts["failed"] += 1
    return {"run": kind.name, "seconds_undisturbed": round(seconds, 1)} | counts


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=60, help="moments, shared equally by the kinds of run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("kills.csv"))
    parser.add_argument("--only", default="", help="one kind of run; the rows of the others in --out stay")
    given = parser.parse_args()
    dice, rows = random.Random(given.seed), []
    kept = {}
    if given.only:
        kept = {row["run"]: row for row in tables.read(given.out) if row["run"] != given.only}
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            if kind.name in kept:
                rows.append(kept[kind.name])
                continue
            own = Path(folder) / kind.name.replace(" ", "-")
            own.mkdir()
            if "DATASET" in kind.words:
                shutil.copy(Path(folder) / "PPMO/whole/dataset.safetensors", own / "dataset.safetensors")
            rows.append(tried(kind, -(-given.kills // len(KINDS)), own, dice))
            print(rows[-1], flush=True)
    tables.write(rows, given.out)
    failed = [
        int(row["failed"]) or (int(row["other"]) and kind.is_repeatable) for row, kind in zip(rows, KINDS, strict=True)
    ]
    return int(any(failed))


if __name__ == "__main__":
    sys.exit(main())
