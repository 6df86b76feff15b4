"""Disks that fill up or turn read-only, and folders that vanish, at every write of every command.

    python tests/stress/full_disk.py --out full-disk.csv

counts the changes that a command makes to its folder (files opened, written, synced, renamed and linked, folders made),
and has it fail at each of them in turn. It must end with exit code 2 and one sentence; what stood there before stays,
and is whole; and the same command, with --resume where there is that, then ends with the bytes of an undisturbed run.
The last row is of a real file system in memory, with so many pages free; it needs the right to mount one.
"""

import argparse
import contextlib
import dataclasses
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import jax
import numpy as np
import tables
from compared import digests, leftovers
from faults import READ_ONLY, disk
from probes import hand_dataset

import floppy
from floppy.cli.main import main as floppy_main
from floppy.run.cache import VARIABLE
from floppy.run.folder import CONFIG_NAME
from floppy.studies.base import STUDY_NAME

SMALL = "--distribution width=4:depth=1:initialiser=xavier --outer-steps 3 --evaluate-every 1 --selection-learners 2 "
SMALL += "--score-learners 2 --score-episodes 2 --learners 2 --environments 2 --horizon 4 --epochs 1 "
SMALL += "--minibatch-size 16 --critic-width 4 --no-early-stop"
DISTIL = f"distill cartpole {SMALL} --out FOLDER/run"
TRANSFER = "transfer INPUTS/dataset.safetensors --widths 4 8 --draws 2 --episodes 2 --out FOLDER/study"
ROLLBACK = f"rollback cartpole --levels 1 {SMALL} --out FOLDER/study"
TRAIN = "train INPUTS/dataset.safetensors --learners 2 --save FOLDER/policies.safetensors --overwrite"
MERGE = "merge INPUTS/dataset.safetensors INPUTS/second.safetensors --out FOLDER/merged.safetensors --overwrite"
IMPORT = "import INPUTS/arrays.npz --task cartpole --out FOLDER/imported.safetensors --overwrite"
PAGE = 4096


@dataclasses.dataclass(frozen=True)
class Case:
    """A command that writes into FOLDER and reads from INPUTS."""

    name: str
    words: str
    again: str
    """What goes on after a failure."""
    before: str = ""
    """What was run in the folder before."""
    is_cut_short: bool = False
    """Whether that one has failed in the middle of its changes."""


CASES = (
    Case("distill", DISTIL, f"{DISTIL} --resume"),
    Case("distill --resume", f"{DISTIL} --resume", f"{DISTIL} --resume", DISTIL, is_cut_short=True),
    Case("distill --overwrite", f"{DISTIL} --overwrite", f"{DISTIL} --overwrite", f"{DISTIL} --seed 1"),
    Case("transfer", TRANSFER, f"{TRANSFER} --resume"),
    Case("transfer --overwrite", f"{TRANSFER} --overwrite", f"{TRANSFER} --overwrite", f"{TRANSFER} --draws 3"),
    Case("rollback", ROLLBACK, f"{ROLLBACK} --resume"),
    Case("train --save", TRAIN, TRAIN, f"{TRAIN} --seed 1"),
    Case("merge", MERGE, MERGE, f"{MERGE} --notes before"),
    Case("import", IMPORT, IMPORT, f"{IMPORT} --notes before"),
)


def inputs(folder: Path) -> None:
    """The files that commands read."""
    folder.mkdir()
    floppy.save(hand_dataset(), folder / "dataset.safetensors")
    floppy.save(hand_dataset({"task": "ndcartpole/2"}, sizes=(8, 4)), folder / "second.safetensors")
    arrays = {"observations": np.ones((2, 4)), "targets": np.eye(2), "inner_lr": np.float32(0.1)}
    np.savez(folder / "arrays.npz", **arrays)


class Tried:
    """A case, in a folder of its own."""

    def __init__(self, case: Case, place: Path, inputs: Path) -> None:
        self.case, self.folder, self._inputs, self._start = case, place / "folder", inputs, place / "start"
        self._start.mkdir(parents=True)
        self.restore()
        if case.before:
            count = self.count(case.before) if case.is_cut_short else None
            self.restore()
            with disk(self.folder, None if count is None else count * 2 // 3):
                self.run(case.before)
            shutil.rmtree(self._start)
            shutil.copytree(self.folder, self._start)
        self.old = digests(self._start)
        self.changes = self.count(case.words)
        self.wanted = digests(self.folder)

    def restore(self) -> None:
        """Puts the folder back to where the command begins."""
        self.folder.mkdir(exist_ok=True)  # it may be a file system of its own
        for each in self.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink()
        shutil.copytree(self._start, self.folder, dirs_exist_ok=True)

    def count(self, words: str) -> int:
        """Runs a command that must succeed; how many changes it makes."""
        self.restore()
        with disk(self.folder, None) as counted:
            code, said = self.run(words)
        if code:
            raise RuntimeError(f"{words}: {said}")
        return counted.changes

    def run(self, words: str) -> tuple[int, str]:
        """The exit code, and what was said on stderr."""
        said = io.StringIO()
        places = {"FOLDER": str(self.folder), "INPUTS": str(self._inputs)}
        given = [re.sub("FOLDER|INPUTS", lambda found: places[found[0]], word) for word in words.split()]
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            return floppy_main(given), said.getvalue()

    def faults(self, bad: AbstractContextManager[object], again: str, *, is_full: bool = True) -> list[str]:
        """What went wrong with a command on a disk that is bad within a context, and with the one that goes on."""
        self.restore()
        with bad:
            code, said = self.run(self.case.words)
        if code == 0 and digests(self.folder) == self.wanted:
            return []
        found = []
        *_, last = said.splitlines() or [""]
        if code != 2 or not last.startswith("floppy: ") or said.count("floppy: ") != 1 or "Traceback" in said:
            found.append(f"exit code {code}: {said[-500:]}")
        if "Reading or writing failed" in said:
            found.append(f"unforeseen: {last}")
        if is_full and (kept := leftovers(self.folder)):
            found.append(f"left behind: {kept}")
        if self.old and is_full and not self._is_whole():
            found.append("files that stood there are gone or changed")
        code, said = self.run(again)
        if code or digests(self.folder) != self.wanted:
            found.append(f"not as undisturbed: exit code {code} {said[-500:]}")
        return found

    def _is_whole(self) -> bool:
        """Whether all that stood there does; a run or study that has begun may have gone on, or taken its place."""
        now = {name: text for name, text in digests(self.folder).items() if name in self.old}
        if "--overwrite" in self.case.words:
            about = [path for name in (CONFIG_NAME, STUDY_NAME) for path in self._start.rglob(name)]
            changed = [(self.folder / old.relative_to(self._start)).read_bytes() != old.read_bytes() for old in about]
            return any(changed) or now == self.old
        return now.keys() == self.old.keys()


@contextlib.contextmanager
def filled(folder: Path, pages: int) -> Iterator[None]:
    """A file system that has so many pages left."""
    ballast = folder / "ballast"
    free = os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize // PAGE
    ballast.write_bytes(bytes(max(0, free - pages) * PAGE))
    try:
        yield
    finally:
        ballast.unlink()


def row(name: str, what: str, tries: int, faults: list[str], started: float) -> dict[str, object]:
    """A row of the table."""
    print(*faults, sep="\n", end="\n" if faults else "", flush=True)
    return {
        "command": name,
        "disk": what,
        "tries": tries,
        "faults": len(faults),
        "seconds": round(time.monotonic() - started),
    }


def full(case: Case, place: Path, read: Path) -> dict[str, object]:
    """The row of a command on disks that fill up."""
    one = Tried(case, place, read)
    return swept(one, "full", lambda first: one.faults(disk(one.folder, first), case.again))


def read_only(case: Case, place: Path, read: Path) -> dict[str, object]:
    """The row of a command on disks that turn read-only."""
    one = Tried(case, place, read)
    return swept(
        one, "read-only", lambda first: one.faults(disk(one.folder, first, READ_ONLY), case.again, is_full=False)
    )


def vanished(case: Case, place: Path, read: Path) -> dict[str, object]:
    """The row of a command whose folder is removed."""
    one = Tried(case, place, read)
    gone = one.folder / case.words.rpartition("/")[2]

    def remove() -> None:
        shutil.rmtree(gone, ignore_errors=True)

    return swept(
        one,
        "vanished",
        lambda first: one.faults(disk(one.folder, first, happens=remove), f"{case.words} --overwrite", is_full=False),
    )


def swept(one: Tried, what: str, faults: Callable[[int], list[str]]) -> dict[str, object]:
    """The row of a command that meets something at each of its changes."""
    started, name = time.monotonic(), one.case.name
    found = [
        f"{name}, {what} at change {first}: {fault}" for first in range(1, one.changes + 1) for fault in faults(first)
    ]
    return row(name, what, one.changes, found, started)


def mounted(case: Case, place: Path, read: Path) -> dict[str, object]:
    """The row of a command on a file system that is full in earnest; without the right to mount one it has no disks."""
    started, folder = time.monotonic(), place / "folder"
    folder.mkdir(parents=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], check=False).returncode:
        return row(case.name, "full, mounted: not permitted", 0, [], started)
    try:
        one = Tried(case, place, read)
        used = sum(-(-path.stat().st_size // PAGE) + 1 for path in folder.rglob("*"))
        found = [
            f"{case.name}, {pages} pages: {fault}"
            for pages in range(used)
            for fault in one.faults(filled(folder, pages), case.again)
        ]
    finally:
        subprocess.run(["umount", folder], check=True)
    return row(case.name, "full, mounted", used, found, started)


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("full-disk.csv"))
    parser.add_argument("--only", nargs="*", default=[], help="commands, by their names")
    given = parser.parse_args()
    jax.config.update("jax_disable_most_optimizations", True)  # type: ignore[no-untyped-call]
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.environ[VARIABLE] = str(Path(folder) / "cache")
        inputs(read := Path(folder) / "inputs")
        jobs: list[tuple[Callable[[Case, Path, Path], dict[str, object]], Case]] = [(full, case) for case in CASES]
        jobs += [(work, case) for case in (CASES[0], CASES[3]) for work in (read_only, vanished)]
        for work, case in [*jobs, (mounted, CASES[0])]:
            if case.name in given.only or not given.only:
                rows.append(work(case, Path(folder) / f"{work.__name__} {case.name}", read))
                print(rows[-1], flush=True)
    tables.write(rows, given.out)
    return int(any(each["faults"] for each in rows))


if __name__ == "__main__":
    sys.exit(main())
