"""Loggers: where else the lines of `metrics.jsonl` go, by name. They are off by default, and never end a run.

A logger of another kind is a class and a line in `LOGGERS`. It is no part of a run's configuration: the same run with
another one is the same run, and `--resume` takes either. What every logger was told is kept in `loggers.json`, so that
a run that goes on repeats nothing, and a logger that joins it later hears of the steps before.
"""

import csv
import importlib
import io
import json
import math
import re
import secrets
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from floppy.errors import FloppyError, raised, shown
from floppy.fields import Registry
from floppy.files import MEBIBYTE, append_to, read_file, write_atomically

Line = Mapping[str, Any]
"""A line of `metrics.jsonl`: `step`, and figures by name; one may be None, a score of which nothing is known."""

LOGGERS_NAME, CSV_NAME, TENSORBOARD_NAME = "loggers.json", "metrics.csv", "tensorboard"

WRITTEN = (LOGGERS_NAME, CSV_NAME, f"{TENSORBOARD_NAME}/events.out.tfevents.*")
"""Patterns of what loggers leave in a run's folder, and a run that takes its place removes."""

PROJECT = "floppy"
"""As which W&B and Trackio list runs."""


class Logged(NamedTuple):
    """What a logger knows of its run."""

    folder: Path
    config: Mapping[str, Any]
    """What `config.json` says of the configuration."""
    key: str
    """Of this run in this folder, the same when it goes on: 16 hexadecimal digits."""
    step: int
    """Outer steps done before."""
    told: int
    """The last step that the logger was told of: after a kill it may lie ahead of `step`."""

    @property
    def name(self) -> str:
        """What people call the run: its folder."""
        return self.folder.resolve().name


class Logger(Protocol):
    """What is told of a run's steps. It may raise whatever it likes."""

    package: ClassVar[str]
    """That it imports; none for the standard library."""
    extra: ClassVar[str]
    """Of floppy, that brings the package."""
    told: int
    """Lines up to this step are not given again."""

    def __init__(self, run: Logged) -> None: ...

    def log(self, lines: Sequence[Line]) -> None:
        """Takes the lines of steps in a row, one at least."""

    def close(self) -> None:
        """Ends."""


class CsvLogger:
    """`metrics.csv` in the run's folder: a column per figure, an empty cell where a step has none.

    A run that goes on writes it anew from `metrics.jsonl`.
    """

    package, extra = "", ""

    def __init__(self, run: Logged) -> None:
        self._path, self.told = run.folder / CSV_NAME, 0
        self._columns: list[str] = []

    def log(self, lines: Sequence[Line]) -> None:
        """Adds rows; where a figure comes for the first time, the file is written anew with its column."""
        found = list(dict.fromkeys([*self._columns, *(name for line in lines for name in line)]))
        if found == self._columns:
            append_to(self._path, self._text(lines))
            return
        before: list[Line] = []
        if self._columns:
            with self._path.open(newline="", encoding="utf-8") as file:
                before = list(csv.DictReader(file))
        self._columns = found
        names = dict(zip(found, found, strict=True))
        write_atomically(self._path, self._text([names, *before, *lines]).encode())

    def close(self) -> None:
        """Every row is on the disk."""

    def _text(self, lines: Sequence[Line]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self._columns, lineterminator="\n").writerows(lines)
        return text.getvalue()


class TensorBoardLogger:
    """Event files in the run's `tensorboard/`, each figure a scalar.

    A run that goes on adds a file, which says from where on it replaces the one before (`purge_step`).
    """

    package, extra = "tensorboardX", "tensorboard"

    def __init__(self, run: Logged) -> None:
        self.told = min(run.step, run.told)
        options: dict[str, Any] = {"purge_step": self.told + 1} if run.told else {}
        options["filename_suffix"] = f".{secrets.token_hex(4)}"  # names have seconds, in which two runs may begin
        folder = run.folder / TENSORBOARD_NAME
        self._writer = importlib.import_module(self.package).SummaryWriter(str(folder), **options)

    def log(self, lines: Sequence[Line]) -> None:
        """Writes the figures."""
        for line in lines:
            for name, value in _figures(line).items():
                self._writer.add_scalar(name, value, line["step"])
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


class WandbLogger:
    """A run of W&B, in the project `floppy`; without a network by `WANDB_MODE=offline`.

    A run that goes on is the same one there. W&B takes no step twice, so what it was told of steps that a kill has
    undone stays.
    """

    package, extra = "wandb", "wandb"

    def __init__(self, run: Logged) -> None:
        self.told = run.told
        self._run = importlib.import_module(self.package).init(
            project=PROJECT, name=run.name, id=run.key, resume="allow", dir=str(run.folder), config=dict(run.config)
        )

    def log(self, lines: Sequence[Line]) -> None:
        """Sends the figures."""
        for line in lines:
            self._run.log(_figures(line), step=line["step"])

    def close(self) -> None:
        """Waits for what is on its way."""
        self._run.finish()


class TrackioLogger:
    """A run of Trackio, in the project `floppy`, on this machine; it goes on as with W&B."""

    package, extra = "trackio", "trackio"

    def __init__(self, run: Logged) -> None:
        self.told = run.told
        name = f"{run.name}-{run.key[:8]}"  # Trackio knows runs by their names
        self._run = importlib.import_module(self.package).init(
            project=PROJECT, name=name, resume="allow", config=dict(run.config)
        )

    def log(self, lines: Sequence[Line]) -> None:
        """Writes the figures."""
        for line in lines:
            self._run.log(_figures(line), step=line["step"])

    def close(self) -> None:
        """Ends the run."""
        self._run.finish()


def _figures(line: Line) -> dict[str, float]:
    """The finite numbers of a line, without its step."""
    numbers = {name: float(value) for name, value in line.items() if name != "step" and value is not None}
    return {name: value for name, value in numbers.items() if math.isfinite(value)}


LOGGERS: Registry[type[Any]] = Registry(
    "logger",
    {"csv": CsvLogger, "tensorboard": TensorBoardLogger, "trackio": TrackioLogger, "wandb": WandbLogger}.items(),
)


def find_loggers(names: str | Sequence[str], folder: Path | None) -> dict[str, type[Any]]:
    """The classes of loggers, their packages imported.

    Args:
      names: as users write them, each alone or several joined by commas.
      folder: of the run.

    Raises:
      FloppyError: for a name that is unknown, a package that is missing, and a run without a folder.
    """
    texts = [names] if isinstance(names, str) else names
    if not isinstance(texts, Sequence) or not all(isinstance(text, str) for text in texts):
        raise FloppyError(f"log must be names of loggers ({', '.join(LOGGERS)}), got {shown(names)}.")
    found = {name: LOGGERS.find(name) for text in texts if text for name in text.split(",")}
    if found and folder is None:
        raise FloppyError("A run kept in memory has no folder for its loggers: give out, or leave log out.")
    for name, kind in found.items():
        _import(name, kind)
    return found


def _import(name: str, kind: type[Any]) -> None:
    try:
        if kind.package:
            importlib.import_module(kind.package)
    except ModuleNotFoundError as error:
        raise FloppyError(
            f"--log {name} needs {kind.package}, which is not installed: pip install 'floppy-rl[{kind.extra}]'."
        ) from error
    except Exception as error:  # a broken installation may raise anything
        raise FloppyError(
            f"--log {name} needs {kind.package}, which cannot be imported ({raised(error)}): repair its installation, "
            f"or leave {name} out."
        ) from error


class Loggers:
    """The loggers of a run. One that raises is named once and left out from then on."""

    def __init__(self) -> None:
        self._live: dict[str, Logger] = {}
        self._state: dict[str, dict[str, Any]] = {}
        self._path = Path()

    def begin(
        self, kinds: Mapping[str, type[Any]], folder: Path, config: Mapping[str, Any], earlier: Sequence[Line]
    ) -> None:
        """Starts them, and tells each what it has not heard of the steps before.

        Args:
          kinds: by name, see `find_loggers`.
          folder: of the run, which this process holds.
          config: of the run.
          earlier: its log so far.
        """
        self._path = folder / LOGGERS_NAME
        self._state = _read_state(self._path)
        step = earlier[-1]["step"] if earlier else 0
        for name, kind in kinds.items():
            state = self._state.setdefault(name, {"key": secrets.token_hex(8), "step": 0})
            with self._guarded(name):
                self._live[name] = kind(Logged(folder, config, state["key"], step, state["step"]))
        self.log(earlier)

    def log(self, lines: Sequence[Line]) -> None:
        """Tells all of them."""
        for name, logger in list(self._live.items()):
            new = [line for line in lines if line["step"] > logger.told]
            if not new:
                continue
            with self._guarded(name):
                logger.log(new)
                logger.told = self._state[name]["step"] = new[-1]["step"]
                write_atomically(self._path, (json.dumps(self._state) + "\n").encode())

    def close(self) -> None:
        """Ends them."""
        for name, logger in list(self._live.items()):
            with self._guarded(name):
                logger.close()
        self._live.clear()

    @contextmanager
    def _guarded(self, name: str) -> Iterator[None]:
        """Goes on without a logger that raises: another library's code, a full disk, a network that is gone."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._live.pop(name, None)
            print(f"floppy: the run goes on without logger {name} ({raised(error)})", file=sys.stderr, flush=True)


def _read_state(path: Path) -> dict[str, dict[str, Any]]:
    """What `loggers.json` says; nothing where it says nothing that makes sense."""
    try:
        saved = json.loads(read_file(path, "what loggers were told", most=MEBIBYTE)) if path.exists() else {}
    except (OSError, ValueError, RecursionError):  # a FloppyError is a ValueError
        return {}
    entries = saved.items() if isinstance(saved, dict) else ()
    return {name: entry for name, entry in entries if _is_state(entry)}


def _is_state(entry: Any) -> bool:
    if not isinstance(entry, dict) or entry.keys() != {"key", "step"}:
        return False
    key, step = entry["key"], entry["step"]
    return isinstance(key, str) and bool(re.fullmatch("[0-9a-f]{16}", key)) and type(step) is int and step >= 0
