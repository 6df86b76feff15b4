"""A run's folder: its files, which are replaced atomically, and how a run goes on from them.

`config.json`, `metrics.jsonl` (a line per outer step), `checkpoints/`, and `dataset.safetensors`, the best so far. All
of them come from the disk and are read as what anybody may have written.
"""

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floppy.dataset.file import DATASET_NAME as DATASET_NAME
from floppy.errors import FloppyError, one_line, shown
from floppy.fields import encode, parent_fields, with_lists
from floppy.files import MEBIBYTE, append_to, is_there, read_file, remove_leftovers, what_blocks, write_atomically
from floppy.parallel import first_process_says, is_first_process
from floppy.run.config import DistillConfig
from floppy.run.loggers import WRITTEN

CONFIG_NAME = "config.json"
METRICS_NAME = "metrics.jsonl"
CHECKPOINT_NAME = "checkpoints/latest.safetensors"
PREVIOUS_NAME = "checkpoints/previous.safetensors"
"""The checkpoint before the latest, to fall back to."""

MOST_CONFIG_BYTES = MEBIBYTE
MOST_METRICS_BYTES = 2048 * MEBIBYTE


class About(NamedTuple):
    """What `config.json` says of a run beside its configuration."""

    command: str
    """That started it."""
    parents: list[str]
    """Datasets that take part."""
    versions: list[dict[str, str]]
    """Of packages, one entry for each part of the run that had others than the part before."""


Figures = dict[str, np.ndarray]
"""What outer steps report, by name, `[steps]`."""


def check_resume_or_overwrite(*, resume: bool, overwrite: bool) -> None:
    """Checks that a run is not both to go on and to be replaced."""
    if resume and overwrite:
        raise FloppyError(
            "A run can go on or be replaced: give one of --resume and --overwrite (in Python resume, overwrite)."
        )


FILES = (CONFIG_NAME, DATASET_NAME, METRICS_NAME, CHECKPOINT_NAME, PREVIOUS_NAME)
"""In the order in which they are removed: no log may be left without its checkpoints."""


def files_of_run(folder: Path) -> list[str]:
    """What a folder holds of an earlier run."""
    return [name for name in FILES if is_there(folder / name)]


def already_taken(folder: Path) -> FloppyError:
    """The complaint about an earlier run in the way of a new one."""
    return FloppyError(
        f"{folder} already holds a run: give --overwrite, --resume, or another folder (in Python overwrite=True or "
        "resume=True)."
    )


def check_free(folder: Path, *, overwrite: bool) -> None:
    """Checks that a run can begin in a folder.

    Raises:
      FloppyError: if it is taken, or no folder.
    """
    if first_process_says(folder.exists() and not folder.is_dir()):
        raise FloppyError(f"{folder} is a file: give a folder.")
    taken = files_of_run(folder)
    # Decided by the process that writes, for all: the others may see another disk, and would wait for it for ever.
    if first_process_says(bool(taken) and not overwrite):
        raise already_taken(folder)
    check_places(folder)


def check_places(folder: Path) -> None:
    """Checks that nothing else stands where a run has its files, and its folder of checkpoints.

    Raises:
      FloppyError: naming what is in the way.
    """
    blocked = [
        f"{folder / name} is {found} where a run has a file" for name in FILES if (found := what_blocks(folder / name))
    ]
    checkpoints = (folder / CHECKPOINT_NAME).parent
    if os.path.lexists(checkpoints) and not checkpoints.is_dir():
        blocked.append(f"{checkpoints} is no folder, where a run has one")
    if first_process_says(bool(blocked)):
        raise FloppyError(f"{(blocked or [f'{folder} cannot be used'])[0]}: give another folder.")


def begin(folder: Path, config: DistillConfig, about: About, replaces: Sequence[Path] = ()) -> None:
    """Clears a folder of an earlier run, and those of runs that went on from it; writes a new run's configuration.

    Raises:
      FloppyError: if the folder cannot be written.
    """
    if not is_first_process():
        return

    def clear_all() -> None:
        for each in replaces:
            clear(each)
        clear(folder, but=(CONFIG_NAME,))  # whose place is taken

    _write_config(folder, about._asdict() | config.as_dict(), before=clear_all)  # a full disk costs no earlier run


def clear(folder: Path, but: Sequence[str] = ()) -> None:
    """Removes a run's files, and what its loggers wrote; files of the names in `but` stay."""
    remove_leftovers((folder / CHECKPOINT_NAME).parent)
    for name in files_of_run(folder):
        if name not in but:
            (folder / name).unlink()
    for written in (path for pattern in WRITTEN for path in folder.glob(pattern)):
        written.unlink()


def _write_config(folder: Path, entry: Mapping[str, Any], before: Callable[[], None] = lambda: None) -> None:
    write_atomically(folder / CONFIG_NAME, (json.dumps(entry, indent=2) + "\n").encode(), before=before)


def tidy(folder: Path, step: int) -> None:
    """Removes what a killed run has left beside its checkpoints, and what it logged after its checkpoint at `step`."""
    if not is_first_process():
        return
    remove_leftovers((folder / CHECKPOINT_NAME).parent)
    _truncate_metrics(folder / METRICS_NAME, step)


def check_same_options(folder: Path, config: DistillConfig, parents: list[str]) -> About:
    """Checks that a folder holds a run with the same options.

    Args:
      folder: of the run.
      config: what is asked for.
      parents: digests of the teacher's and start's files.

    Returns:
      What the folder says of the run: the command that started it, and the versions of its parts.

    Raises:
      FloppyError: naming the options that differ.
    """
    saved = _read_config(folder)
    versions = saved.pop("versions", [])
    if not _are_versions(versions):
        raise FloppyError(
            f"{folder / CONFIG_NAME} has versions {shown(versions)}, which must be a list of versions "
            "of packages by name: put the file back, or delete them from it."
        )
    command = str(saved.pop("command", ""))
    if saved.pop("parents", []) != parents:
        raise FloppyError(
            f"{folder} holds a run with another teacher's or start's file: put that file back, or start a new run."
        )
    wanted = json.loads(json.dumps(config.as_dict()))
    for part, old, new in ((config, saved, wanted), (config.outer, saved.get("outer"), wanted["outer"])):
        for name in parent_fields(part):  # files that are known by their digests, wherever they lie
            if isinstance(old, dict) and old.get(name) and new[name]:
                new[name] = old[name]
    differing = _differing(saved, wanted, _defaults_of(config))
    if differing:
        raise FloppyError(
            f"{folder} holds a run that differs in {', '.join(differing)}: give these options as they are there."
        )
    return About(command, parents, versions)


def add_versions(folder: Path, config: DistillConfig, before: About, versions: Sequence[dict[str, str]]) -> About:
    """What is known of a run of which another part begins; `config.json` names its versions too if they are others."""
    added = [each for each in versions if each not in before.versions[-1:]]
    whole = before._replace(versions=[*before.versions, *added])
    if is_first_process() and added:
        _write_config(folder, whole._asdict() | config.as_dict())
    return whole


def _are_versions(listed: Any) -> bool:
    """Whether something from JSON is a list of packages' versions, as `About` has it."""
    return isinstance(listed, list) and all(
        isinstance(part, dict) and all(isinstance(version, str) for version in part.values()) for part in listed
    )


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        saved = json.loads(read_file(folder / CONFIG_NAME, "a run's config.json", most=MOST_CONFIG_BYTES))
        if not isinstance(saved, dict):
            raise ValueError(f"{CONFIG_NAME} is no JSON object")
    except (ValueError, RecursionError) as error:  # a FloppyError is a ValueError
        raise FloppyError(f"{folder} holds no run to resume ({one_line(error)}): run without --resume.") from error
    return saved


def changed_versions(about: About) -> str:
    """What a run goes on with in another version than before, such as `jax 0.10.1, now 0.10.2`; empty for nothing."""
    if len(about.versions) < 2:
        return ""
    before, now = about.versions[-2:]
    names = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    return "; ".join(f"{name} {before.get(name, 'none')}, now {now.get(name, 'none')}" for name in names)


def versions_of_parts(about: About) -> dict[str, str]:
    """Versions for the card: of a package that changed between parts of a run all of them, the first one first."""
    by_name: dict[str, dict[str, None]] = {}
    for part in about.versions:
        for name, version in part.items():
            by_name.setdefault(str(name), {})[str(version)] = None
    return {name: ", then ".join(versions) for name, versions in sorted(by_name.items())}


def _defaults_of(config: DistillConfig) -> dict[str, Any]:
    """An option that an older run knew nothing of was as it is by default."""
    fields = dataclasses.fields(config)
    by_default = with_lists({field.name: field.default for field in fields if field.default is not dataclasses.MISSING})
    parts: dict[str, Any] = {"cloning": encode(type(config.cloning)()), "outer": encode(type(config.outer)())}
    return by_default | OLDER_DEFAULTS | parts


OLDER_DEFAULTS = {"early_stop": False, "scaled_actions": False}
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


def append_metrics(path: Path, figures: Figures, first: int, **last: Any) -> list[dict[str, Any]]:
    """Writes a line per outer step from number `first` on; `last` goes to the last line alone. Gives the lines."""
    count = len(next(iter(figures.values()), ()))
    lines: list[dict[str, Any]] = [
        {"step": first + row + 1} | {name: float(values[row]) for name, values in figures.items()}
        for row in range(count)
    ]
    if lines:
        lines[-1] |= last
        append_to(path, "".join(json.dumps(line) + "\n" for line in lines))
    return lines


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log; none where there is no log. What follows the first line that is not whole is left out.

    Raises:
      FloppyError: if it is no log of a run.
    """
    return [entry for entry, _ in _logged(folder / METRICS_NAME)]


def _logged(path: Path) -> list[tuple[dict[str, Any], str]]:
    """The entries of a log with their lines: step after step, up to the first that is broken or missing.

    A log that somebody has deleted begins where the run went on.
    """
    if not path.exists():
        return []
    found: list[tuple[dict[str, Any], str]] = []
    for line in read_file(path, "a run's log", most=MOST_METRICS_BYTES).decode(errors="replace").splitlines(True):
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            break
        if not (isinstance(entry, dict) and line.endswith("\n") and _are_figures(entry)):
            break
        if found and entry["step"] != found[-1][0]["step"] + 1:
            break
        found.append((entry, line))
    if path.stat().st_size and not found and not _is_cut_short(path):
        raise FloppyError(f"{path} is no log of a run: put the run's log back, or delete it to go on without.")
    return found


def _is_cut_short(path: Path) -> bool:
    """Whether a log is its first line, or less of it."""
    with path.open("rb") as file:
        first = file.readline(MEBIBYTE)
    return b"\n" not in first and len(first) < MEBIBYTE and first[: len(FIRST_LINE)] == FIRST_LINE[: len(first)]


FIRST_LINE = b'{"step": '
"""How every line of a log begins."""


def _are_figures(entry: dict[str, Any]) -> bool:
    """Whether a line of a log holds numbers alone, its step among them; a score may be null."""
    step = entry.get("step")
    return (
        type(step) is int
        and step >= 1
        and all(
            (value is None and name == "selection_score")
            or (isinstance(value, int | float) and abs(value) < MOST_NUMBER)
            for name, value in entry.items()
        )
    )


MOST_NUMBER = 1e300
"""In a log: a whole number beyond it is no float."""


def _truncate_metrics(path: Path, step: int) -> None:
    """Drops what was logged after the checkpoint, the last line of a killed run included, and a log without a line."""
    if path.exists():
        kept = [line for entry, line in _logged(path) if entry["step"] <= step]
        if kept:
            write_atomically(path, "".join(kept).encode())
        else:
            path.unlink()
