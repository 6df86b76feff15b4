"""What two runs of the same command have in common: digests of their files, without what the clock says."""

import csv
import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import floppy
from floppy.files import TEMPORARY_FILES

CLOCKS = ("seconds", "compilation", "compiles")
"""Columns of tables, and figures of logs, that no two runs have in common."""
ABOUT = (".lock", "config.json", "study.json")
"""Files that name the command which began, and the process."""


def without_clocks(entry: Any) -> Any:
    """What JSON or a table holds beside what the clock says."""
    if isinstance(entry, list):
        return [without_clocks(each) for each in entry]
    if isinstance(entry, dict):
        return {name: without_clocks(value) for name, value in entry.items() if name not in CLOCKS}
    return entry


def digest(path: Path) -> str:
    """SHA-256 of what a file says."""
    data = path.read_bytes()
    if path.suffix == ".csv":
        rows = csv.DictReader(io.StringIO(data.decode(), newline=""))
        data = repr(without_clocks(list(rows))).encode()
    elif path.suffix == ".json":
        data = repr(without_clocks(json.loads(data))).encode()
    elif path.suffix == ".jsonl":
        lines = [json.loads(line) for line in data.splitlines(True) if line.endswith(b"\n")]  # a cut one is mended
        data = repr(without_clocks(lines)).encode()
    elif path.name == "dataset.safetensors":
        dataset = floppy.load(path)
        # All but the command, which is that of the first go that came to write it down.
        card = dataclasses.replace(dataset.card, command="").to_json()
        data = card.encode() + b"".join(tensor.tobytes() for tensor in dataset.numpy().values())
    return hashlib.sha256(data).hexdigest()


def digests(folder: Path) -> dict[str, str]:
    """Of all files below a folder that hold results, by their names."""
    return {
        str(path.relative_to(folder)): digest(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ABOUT
    }


def leftovers(folder: Path) -> list[Path]:
    """What a write that failed has left behind."""
    return list(folder.rglob(TEMPORARY_FILES))
