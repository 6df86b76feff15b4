"""What all studies share: cells are measured one after the other, kept in a table as they come, summed up and drawn.

A study's folder holds `study.json` (what was asked for), `rows.csv` (what was measured), `summary.json` and
`figure.png`, both of which are made from the table alone, and in `cells/` what cells keep for themselves.
"""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, get_args, get_type_hints

import numpy as np
import scipy.stats

from floppy.dataset import write_atomically
from floppy.distill import already_taken, check_intention
from floppy.errors import FloppyError, one_line
from floppy.evaluate import BOOTSTRAP_RESAMPLES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY_NAME = "study.json"
ROWS_NAME = "rows.csv"
SUMMARY_NAME = "summary.json"
FIGURE_NAME = "figure.png"
CELLS_NAME = "cells"
FILES_ENTRY = "files"
"""In `study.json`: digests of the files that a study reads."""

Row = dict[str, Any]
"""Texts and numbers by the names of columns."""

Progress = Callable[[int, int, str], None]
"""Called with the cells done, all cells, and what the next one is."""


class Study(Protocol):
    """An experiment. Implementations are frozen dataclasses: they are the configuration."""

    name: ClassVar[str]
    """As on the command line."""

    def cells(self) -> list[Row]:
        """What is measured, one after the other: the columns that tell one cell from the others.

        Raises:
          FloppyError: for what cannot be measured, such as a file that is not there: nothing is written yet.
        """

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """The other columns of a cell's rows; `folder` is for what the cell keeps, such as runs to be resumed."""

    def summary(self, rows: list[Row]) -> Row:
        """What the rows say, as plain JSON."""

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Draws the rows."""


AnyStudy = TypeVar("AnyStudy", bound=Study)


def run_study(
    study: Study,
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    progress: Progress | None = None,
) -> list[Row]:
    """Measures what a folder lacks of a study's cells, then sums them up and draws them.

    Args:
      study: what to measure.
      out: the study's folder.
      resume: go on with the study in `out`; cells that are there stay.
      overwrite: replace the study in `out`.
      command: kept in `study.json`.
      progress: called before each cell that is measured.

    Returns:
      All rows.

    Raises:
      FloppyError: for a folder that is taken, or that holds another study, and whatever a cell refuses.
    """
    check_intention(resume=resume, overwrite=overwrite)
    study = _from_json(type(study), _as_json(study))  # from Python, paths may be texts, and tuples lists
    folder, cells = Path(out), study.cells()
    _check_each_once(cells)
    if resume:
        _check_same_study(study, folder)
    else:
        _begin(study, folder, command, overwrite=overwrite)
    rows: list[Row] = _read_texts(folder) if (folder / ROWS_NAME).exists() else []
    # By their texts: what is read back as a number may have been none, such as the file of a dataset called 7.
    known = {tuple(row.get(name) for name in cell) for cell in cells[:1] for row in rows}
    for done, cell in enumerate(cells):
        if _texts(cell) not in known:
            if progress is not None:
                progress(done, len(cells), _said(cell))
            rows += [cell | measured for measured in study.measure(cell, folder / CELLS_NAME / _folder_name(cell))]
            _write_rows(rows, folder)
    draw_study(folder)
    return read_rows(folder)


def draw_study(folder: Path | str) -> Row:
    """Writes a study's summary and figure anew from its table; gives the summary.

    Raises:
      FloppyError: for a folder without a study, or with a table that is not its own.
    """
    from matplotlib.figure import Figure  # takes a second to import

    folder = Path(folder)
    study, rows = read_study(folder), read_rows(folder)
    figure, picture = Figure(figsize=(6, 4), layout="constrained"), io.BytesIO()
    try:
        summary = study.summary(rows)
        study.draw(rows, figure)
    except KeyError as error:
        raise FloppyError(
            f"{folder / ROWS_NAME} has nothing for {error}, which {study.name} needs: if it has not ended, run it with "
            "--resume, else restore the table."
        ) from error
    except (TypeError, ValueError) as error:
        raise FloppyError(
            f"{folder / ROWS_NAME} cannot be summed up ({one_line(error)}): restore it, or run the study anew with "
            "--overwrite."
        ) from error
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_atomically(folder / SUMMARY_NAME, (json.dumps(summary, indent=2) + "\n").encode())
    write_atomically(folder / FIGURE_NAME, picture.getvalue())
    return summary


def read_study(folder: Path | str) -> Study:
    """The study that a folder holds."""
    from floppy.studies import STUDIES

    try:
        entry = dict(json.loads((Path(folder) / STUDY_NAME).read_bytes()))
        kind = STUDIES[entry.pop("study")]
        entry.pop("command")
        entry.pop(FILES_ENTRY, None)  # studies had none at first
        return _from_json(kind, entry)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FloppyError(f"{folder} holds no study ({one_line(error)}): give the folder that one wrote.") from error


def read_rows(folder: Path | str) -> list[Row]:
    """A study's table, numbers as numbers and truths as truths; what a row does not have is an empty text."""
    return [{name: _value(text) for name, text in row.items()} for row in _read_texts(folder)]


def interquartile_mean(values: Sequence[float] | np.ndarray) -> float:
    """Mean of the middle half of the values (Agarwal et al., 2021)."""
    return float(scipy.stats.trim_mean(values, 0.25))


def stratified_interval(strata: Sequence[Sequence[float] | np.ndarray], seed: int = 0) -> tuple[float, float]:
    """95% percentile-bootstrap interval of the interquartile mean; each stratum is resampled by itself.

    Args:
      strata: values of each seed or task.
      seed: of the resampling.
    """

    def statistic(*samples: np.ndarray, axis: int) -> np.ndarray:
        kept = [
            sample.take([0], axis=axis) if len(stratum) == 1 else sample
            for sample, stratum in zip(samples, strata, strict=True)
        ]
        return np.asarray(scipy.stats.trim_mean(np.concatenate(kept, axis=axis), 0.25, axis=axis))

    if all(len(stratum) == 1 for stratum in strata):  # nothing to resample
        only = interquartile_mean(np.concatenate([np.asarray(stratum) for stratum in strata]))
        return only, only
    return percentile_interval([np.asarray(stratum) for stratum in strata], statistic, seed)


def percentile_interval(
    samples: Sequence[np.ndarray], statistic: Callable[..., Any], seed: int = 0, **options: Any
) -> tuple[float, float]:
    """95% percentile-bootstrap interval of a statistic of samples; the options are those of SciPy's bootstrap."""
    found = scipy.stats.bootstrap(
        # SciPy asks for two values of each.
        [np.repeat(sample, 2) if len(sample) == 1 else sample for sample in samples],
        statistic,
        n_resamples=BOOTSTRAP_RESAMPLES,
        method="percentile",
        rng=np.random.default_rng(seed),
        **options,
    ).confidence_interval
    return float(found.low), float(found.high)


def error_bars(middle: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Lengths `[2, n]` of the bars from `middle` `[n]` to the ends of `intervals` `[n, 2]`."""
    low, high = intervals.T
    # The interval of a percentile bootstrap may leave the mean out.
    return np.maximum([middle - low, high - middle], 0.0)


def by(rows: Sequence[Row], *names: str) -> dict[Any, list[Row]]:
    """Rows in groups of the same values in the named columns, in the order in which these appear.

    The key of a group is the value of a single name, of several the tuple of their values.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        groups.setdefault(key, []).append(row)
    return groups


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """The numbers of a column."""
    return np.array([row[name] for row in rows], float)


def _check_each_once(cells: list[Row]) -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        if _texts(cell) in seen:
            raise FloppyError(f"A study was asked for with {_said(cell)} twice: give everything once.")
        seen.add(_texts(cell))


def _said(cell: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.items())


def _texts(cell: Row) -> tuple[str, ...]:
    """The values of a cell as they stand in the table."""
    return tuple("" if value is None else str(value) for value in cell.values())


def _begin(study: Study, folder: Path, command: str, *, overwrite: bool) -> None:
    """Clears the folder and writes what was asked for."""
    cells = folder / CELLS_NAME
    if cells.exists() and not (cells.is_dir() and (folder / STUDY_NAME).exists()):
        raise FloppyError(f"{cells} is there, and is no study's: give another folder.")
    # The study's own file last: what is killed here can be overwritten again.
    names = (ROWS_NAME, SUMMARY_NAME, FIGURE_NAME, STUDY_NAME)
    taken = [folder / name for name in names if (folder / name).exists()]
    if taken and not overwrite:
        raise already_taken(folder)
    if cells.exists():  # or cells would go on with the runs of another study
        shutil.rmtree(cells)
    for path in taken:
        path.unlink()
    entry = {"study": study.name, "command": command, FILES_ENTRY: _digests(study)} | _as_json(study)
    write_atomically(folder / STUDY_NAME, (json.dumps(entry, indent=2) + "\n").encode())


def _check_same_study(study: Study, folder: Path) -> None:
    saved = read_study(folder)
    if type(saved) is not type(study):
        raise FloppyError(f"{folder} holds a study of another kind, {saved.name}: give another folder.")
    wanted = _as_json(study)
    differing = [name for name, value in _as_json(saved).items() if wanted.get(name) != value]
    if differing:
        raise FloppyError(
            f"{folder} holds a study that differs in {', '.join(differing)}: give these options as they are there."
        )
    known = json.loads((folder / STUDY_NAME).read_bytes()).get(FILES_ENTRY, {})
    changed = [path for path, digest in _digests(study).items() if known.get(path, digest) != digest]
    if changed:
        raise FloppyError(
            f"{' '.join(changed)} changed after {folder} began: put the old file back, or run the study anew with "
            "--overwrite."
        )


def _digests(study: Study) -> dict[str, str]:
    """SHA-256 of the files that a study reads, by their paths."""
    paths = [each for value in vars(study).values() for each in (value if isinstance(value, tuple) else (value,))]
    files = [path for path in paths if isinstance(path, Path) and path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _as_json(study: Any) -> Row:
    """The fields of a study, paths as texts."""
    values = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    return {name: json.loads(json.dumps(value, default=str)) for name, value in values.items()}


def _from_json(kind: type[AnyStudy], entry: Mapping[str, Any]) -> AnyStudy:
    """A study from its fields in JSON, in which tuples are lists and paths texts."""
    hints = get_type_hints(kind)

    def value(got: Any, hint: Any) -> Any:
        if isinstance(got, list):
            inner = next((each for each in get_args(hint) if each is not type(None)), Any)
            return tuple(value(each, inner) for each in got)
        return Path(got) if isinstance(got, str) and Path in (hint, *get_args(hint)) else got

    return kind(**{name: value(got, hints[name]) for name, got in entry.items()})


def _read_texts(folder: Path | str) -> list[dict[str, str]]:
    """A study's table as it stands."""
    path = Path(folder) / ROWS_NAME
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, ValueError) as error:
        raise FloppyError(f"{folder} holds no rows of a study ({one_line(error)}): run it first.") from error
    # So the reader of CSV marks rows that are longer or shorter than the first line.
    if not rows or any(None in row or None in row.values() for row in rows):
        raise FloppyError(f"{path} is no table of a study: restore it, or run the study anew with --overwrite.")
    return rows


def _write_rows(rows: list[Row], folder: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / ROWS_NAME, text.getvalue().encode())


def _value(text: str) -> Any:
    """A number or a truth where the text is one, else the text."""
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _folder_name(cell: Row) -> str:
    return "-".join(str(value).replace("/", "_") for value in cell.values())
