"""A run's folder: its files, which are replaced atomically, and how a run goes on from them.

`config.json`, `metrics.jsonl` (a line per outer step), `checkpoints/`, and `dataset.safetensors`, the best so far.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from floppy.errors import FloppyError, one_line, shown
from floppy.fields import encode
from floppy.files import TEMPORARY_FILES, write_atomically
from floppy.parallel import first_process_says, is_first_process
from floppy.run.config import DistillConfig

DATASET_NAME = "dataset.safetensors"
CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
CHECKPOINT_NAME = "checkpoints/latest.safetensors"

Figures = dict[str, np.ndarray]
"""What outer steps report, by name, `[steps]`."""


def check_resume_or_overwrite(*, resume: bool, overwrite: bool) -> None:
    """Checks that a run is not both to go on and to be replaced."""
    if resume and overwrite:
        raise FloppyError("A run can go on or be replaced: give one of --resume and --overwrite.")


def files_of_run(folder: Path) -> list[str]:
    """What a folder holds of an earlier run."""
    return [name for name in (CONFIG_NAME, DATASET_NAME, CHECKPOINT_NAME, METRICS_NAME) if (folder / name).exists()]


def already_taken(folder: Path) -> FloppyError:
    """The complaint about an earlier run in the way of a new one."""
    return FloppyError(f"{folder} already holds a run: give --overwrite, --resume, or another folder.")


def begin(folder: Path, config: DistillConfig, parents: list[str], command: str, *, overwrite: bool) -> None:
    """Clears a folder and writes the configuration of a new run.

    Raises:
      FloppyError: if it is taken, or no folder.
    """
    if first_process_says(folder.is_file()):
        raise FloppyError(f"{folder} is a file: give a folder.")
    taken = files_of_run(folder)
    # Decided by the process that writes, for all: the others may see another disk, and would wait for it for ever.
    if first_process_says(bool(taken) and not overwrite):
        raise already_taken(folder)
    blocked = [str(folder / name) for name in taken if (folder / name).is_dir()]
    if first_process_says(bool(blocked)):
        raise FloppyError(f"{' '.join(blocked) or folder} is a folder where a run has a file: give another folder.")
    if not is_first_process():
        return
    for name in taken:
        (folder / name).unlink()
    entry = {"command": command, "parents": parents} | config.as_dict()
    write_atomically(folder / CONFIG_NAME, (json.dumps(entry, indent=2) + "\n").encode())


def tidy(folder: Path, step: int) -> None:
    """Removes what a killed run has left behind, and what it logged after its checkpoint at `step`."""
    if not is_first_process():
        return
    for place in (folder, (folder / CHECKPOINT_NAME).parent):
        for leftover in place.glob(TEMPORARY_FILES):
            leftover.unlink()
    _truncate_metrics(folder / METRICS_NAME, step)


def check_same_run(folder: Path, config: DistillConfig, parents: list[str]) -> str:
    """Checks that a folder holds a run of this configuration; gives the command that started it, for the card.

    Raises:
      FloppyError: naming the options that differ.
    """
    try:
        saved = dict(json.loads((folder / CONFIG_NAME).read_bytes()))
    except (OSError, TypeError, ValueError) as error:
        raise FloppyError(f"{folder} holds no run to resume ({one_line(error)}): run without --resume.") from error
    command = str(saved.pop("command", ""))
    if saved.pop("parents", []) != parents:
        raise FloppyError(f"{folder} holds a run with another teacher's file: put that file back, or start a new run.")
    differing = _differing(saved, json.loads(json.dumps(config.as_dict())), _defaults_of(config))
    if differing:
        raise FloppyError(
            f"{folder} holds a run that differs in {', '.join(differing)}: give these options as they are there."
        )
    return command


def _defaults_of(config: DistillConfig) -> dict[str, Any]:
    """An option that an older run knew nothing of was as it is by default."""
    by_default = {
        field.name: field.default for field in dataclasses.fields(config) if field.default is not dataclasses.MISSING
    }
    parts: dict[str, Any] = {"cloning": encode(type(config.cloning)()), "outer": encode(type(config.outer)())}
    return by_default | OLDER_DEFAULTS | parts


OLDER_DEFAULTS = {"early_stop": False}
"""Of options whose default is not what runs did before there was the option."""


def _differing(saved: Mapping[str, Any], wanted: Mapping[str, Any], by_default: Mapping[str, Any]) -> list[str]:
    """Options in which two configurations differ, with their values; `by_default` stands for what `saved` lacks."""
    found = []
    for name in sorted(saved.keys() | wanted.keys()):
        old, new = saved.get(name, by_default.get(name)), wanted.get(name)
        if isinstance(old, dict) and isinstance(new, dict) and old.get("kind") == new.get("kind"):
            prefix = "" if name == "outer" else f"{name}."
            found += [prefix + each for each in _differing(old, new, by_default[name])]
        elif old != new:
            found.append(f"{name} ({_brief(old)} there, {_brief(new)} here)")
    return found


def _brief(value: Any) -> str:
    """A value of a configuration, of a part of it only the kind."""
    return str(value["kind"]) if isinstance(value, dict) and "kind" in value else shown(value)


def append_metrics(path: Path, figures: Figures, first: int, **last: Any) -> None:
    """Writes a line per outer step from number `first` on; `last` goes to the last line alone."""
    count = len(next(iter(figures.values()), ()))
    lines: list[dict[str, Any]] = [
        {"step": first + row + 1} | {name: float(values[row]) for name, values in figures.items()}
        for row in range(count)
    ]
    if lines:
        lines[-1] |= last
    with path.open("a") as file:
        file.writelines(json.dumps(line) + "\n" for line in lines)


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; none where there is no log.

    Raises:
      FloppyError: if it is no log of a run.
    """
    path = folder / METRICS_NAME
    try:
        return [dict(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []
    except (OSError, TypeError, ValueError) as error:
        raise FloppyError(f"{path} is no log of a run ({one_line(error)}): run without --resume.") from error


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops what was logged after the checkpoint, the last line of a killed run included."""
    try:
        kept = path.read_text().splitlines(keepends=True)[:step] if path.exists() else []
    except ValueError as error:
        raise FloppyError(f"{path} is no log of a run ({one_line(error)}): run without --resume.") from error
    write_atomically(path, "".join(kept).encode())
