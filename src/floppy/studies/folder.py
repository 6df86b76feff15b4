"""A study's folder: how a study is run, resumed, read back and drawn again.

It holds `study.json` (the study's fields), `rows.csv` (what was measured), `summary.json` and `figure.png`, both of
which are made from the table alone, and in `cells/` what cells keep for themselves.
"""

import csv
import dataclasses
import hashlib
import io
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

from floppy.errors import FloppyError, one_line
from floppy.files import write_atomically
from floppy.run.folder import already_taken, check_resume_or_overwrite
from floppy.studies.base import (
    CELLS_NAME,
    FIGURE_NAME,
    ROWS_NAME,
    STUDY_NAME,
    SUMMARY_NAME,
    Progress,
    Row,
    Study,
)
from floppy.studies.registry import STUDIES

FILES_ENTRY = "files"
"""In `study.json`: digests of the files that a study reads."""

COUNT_COLUMN = "cell_rows"
"""In `rows.csv`: how many rows the row's cell has. A cell that lacks some is measured again."""

Texts = dict[str, str]
"""A row as it stands in the table."""

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
    check_resume_or_overwrite(resume=resume, overwrite=overwrite)
    study = _from_json(type(study), _as_json(study))  # from Python, paths may be texts, and tuples lists
    folder, cells = Path(out), study.cells()
    _check_each_once(cells)
    if resume:
        _check_same_study(study, folder)
    else:
        _begin(study, folder, command, overwrite=overwrite)
    measured = _measured(cells, _read_texts(folder) if (folder / ROWS_NAME).exists() else [])
    for done, cell in enumerate(cells):
        if _texts(cell) not in measured:
            if progress is not None:
                progress(done, len(cells), _described(cell))
            rows = study.measure(cell, folder / CELLS_NAME / _folder_name(cell))
            measured[_texts(cell)] = [cell | {COUNT_COLUMN: len(rows)} | row for row in rows]
            _write_rows([row for each in cells for row in measured.get(_texts(each), [])], folder)
    draw_study(folder)
    return read_rows(folder)


def draw_study(folder: Path | str) -> Row:
    """Rewrites a study's summary and figure from its table.

    Returns:
      The summary.

    Raises:
      FloppyError: for a folder without a study, or with a table that is not its own.
    """
    from matplotlib.figure import Figure  # takes a second to import

    folder = Path(folder)
    study, rows = read_study(folder), read_rows(folder)
    figure, picture = Figure(figsize=(6, 4), layout="constrained"), io.BytesIO()
    try:
        summary = study.summary(rows)
        text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
        study.draw(rows, figure)
    except KeyError as error:
        raise FloppyError(
            f"{folder / ROWS_NAME} has nothing for {error}, which {study.name} needs: if it has not ended, run it with "
            "--resume, else restore the table."
        ) from error
    except (TypeError, ValueError) as error:
        raise FloppyError(
            f"{folder / ROWS_NAME} cannot be summed up ({one_line(error)}): restore it, or run the study again with "
            "--overwrite."
        ) from error
    figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    write_atomically(folder / SUMMARY_NAME, text.encode())
    write_atomically(folder / FIGURE_NAME, picture.getvalue())
    return summary


def read_study(folder: Path | str) -> Study:
    """The study that a folder holds.

    Raises:
      FloppyError: if it holds none.
    """
    try:
        entry = dict(json.loads((Path(folder) / STUDY_NAME).read_bytes()))
        kind = STUDIES[entry.pop("study")]
        entry.pop("command")
        entry.pop(FILES_ENTRY, None)  # studies had none at first
        return _from_json(kind, entry)
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise FloppyError(f"{folder} holds no study ({one_line(error)}): give the folder that one wrote.") from error


def read_rows(folder: Path | str) -> list[Row]:
    """A study's table, with each cell parsed into an int, float, bool or str; what a row does not have is an empty str.

    Raises:
      FloppyError: if the folder holds no table.
    """
    rows = _read_texts(folder)
    return [{name: _value(text) for name, text in row.items() if name != COUNT_COLUMN} for row in rows]


def _check_each_once(cells: list[Row]) -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        if _texts(cell) in seen:
            raise FloppyError(f"A study measures everything once, got {_described(cell)} twice.")
        seen.add(_texts(cell))


def _measured(cells: list[Row], table: list[Texts]) -> dict[tuple[str, ...], list[Any]]:
    """The rows of every cell that a table holds as a whole, by the cell's texts."""
    # By texts: what is read back as a number may have been none, such as the file of a dataset called 7.
    found: dict[tuple[str, ...], list[Any]] = {}
    for row in table if cells else []:
        found.setdefault(tuple(row.get(name, "") for name in cells[0]), []).append(row)
    # Tables written before there was the column have whole cells only.
    return {key: rows for key, rows in found.items() if rows[0].get(COUNT_COLUMN) in (None, str(len(rows)))}


def _described(cell: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.items())


def _texts(cell: Row) -> tuple[str, ...]:
    """The values of a cell as they stand in the table."""
    return tuple("" if value is None else str(value) for value in cell.values())


def _begin(study: Study, folder: Path, command: str, *, overwrite: bool) -> None:
    """Clears the folder and writes the study's fields."""
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
            f"{' '.join(changed)} changed after {folder} began: put the old file back, or run the study again with "
            "--overwrite."
        )


def _digests(study: Study) -> dict[str, str]:
    """SHA-256 of the files that a study reads, by their paths."""
    paths = [each for value in vars(study).values() for each in (value if isinstance(value, tuple) else (value,))]
    files = [path for path in paths if isinstance(path, Path) and path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _as_json(study: Any) -> Row:
    """The fields of a study: paths as texts, tuples as lists, a configuration as its `as_dict`."""
    values = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    return {name: json.loads(json.dumps(value, default=_plain)) for name, value in values.items()}


def _plain(value: Any) -> Any:
    return value.as_dict() if hasattr(value, "as_dict") else str(value)


def _from_json(kind: type[AnyStudy], entry: Mapping[str, Any]) -> AnyStudy:
    """A study from its fields in JSON, see `_as_json`."""
    hints = get_type_hints(kind)

    def value(got: Any, hint: Any) -> Any:
        if isinstance(got, list):
            inner = next((each for each in get_args(hint) if each is not type(None)), Any)
            return tuple(value(each, inner) for each in got)
        if isinstance(got, dict):
            return hint.from_dict(got)
        return Path(got) if isinstance(got, str) and Path in (hint, *get_args(hint)) else got

    return kind(**{name: value(got, hints[name]) for name, got in entry.items()})


def _read_texts(folder: Path | str) -> list[Texts]:
    """A study's table as it stands."""
    path = Path(folder) / ROWS_NAME
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, csv.Error, ValueError) as error:
        raise FloppyError(f"{folder} holds no rows of a study ({one_line(error)}): run it first.") from error
    # So the reader of CSV marks rows that are longer or shorter than the first line.
    if not rows or any(None in row or None in row.values() for row in rows):
        raise FloppyError(f"{path} is no table of a study: restore it, or run the study again with --overwrite.")
    return rows


def _write_rows(rows: list[Row], folder: Path) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / ROWS_NAME, text.getvalue().encode())


def _value(text: str) -> Any:
    """An int, float or bool where the text is one, else the text."""
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
