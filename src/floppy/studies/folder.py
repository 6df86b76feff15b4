"""A study's folder: how a study is run, resumed, read back and drawn again.

It holds `study.json` (the study's fields), `rows.csv` (what was measured), `summary.json` and `figure.png`, both of
which are made from the table alone, and in `cells/` what cells keep for themselves.
"""

import csv
import dataclasses
import hashlib
import io
import json
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args, get_type_hints

from floppy.errors import OVERWRITE, FloppyError, one_line, raised, shown
from floppy.figure import picture_of
from floppy.files import MEBIBYTE, as_path, is_there, read_file, what_blocks, write_atomically
from floppy.run.folder import already_taken, check_resume_or_overwrite
from floppy.run.lock import Held, hold
from floppy.studies.base import (
    CELLS_NAME,
    FIGURE_NAME,
    ROWS_NAME,
    STUDY_NAME,
    SUMMARY_NAME,
    Progress,
    Row,
    Study,
    plain_json,
)
from floppy.studies.figure import check_drawing
from floppy.studies.registry import STUDIES

FILES_ENTRY = "files"
"""In `study.json`: digests of the files that a study reads."""

COUNT_COLUMN = "cell_rows"
"""In `rows.csv`, after the columns of the cell: how many rows it has. One that lacks some is measured again."""

MOST_JSON, MOST_ROWS = MEBIBYTE, 256 * MEBIBYTE
"""Sizes of `study.json` and `rows.csv` beyond which they are no study's."""

LONGEST_NAME = 255
"""Of a file, in bytes: so long a text of digits alone may be a name in the table, a longer one is a broken number."""

Texts = dict[str, str]
"""A row as it stands in the table."""

AnyStudy = TypeVar("AnyStudy", bound=Study)


class _Table(NamedTuple):
    """`rows.csv` as it stands."""

    names: list[str]
    """Of the columns."""
    rows: list[Texts]
    is_whole: bool
    """Whether no line was cut short; such lines are left out."""


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
      resume: go on with the study in `out`, if there is one; cells that are there stay.
      overwrite: replace the study in `out`.
      command: kept in `study.json`.
      progress: called before each cell that is measured.

    Returns:
      All rows.

    Raises:
      FloppyError: for a folder that is taken, or that holds another study, where no figure can be drawn, and whatever a
        cell refuses.
    """
    check_resume_or_overwrite(resume=resume, overwrite=overwrite)
    study = _from_json(type(study), _as_json(study))  # from Python, paths may be texts, and tuples lists
    folder, cells = as_path(out), study.cells()
    _check_each_once(cells)
    check_drawing()
    goes_on = resume and _has_begun(folder)
    if not goes_on:
        _check_free(folder, overwrite=overwrite)
    with hold(folder) as held:
        if goes_on:
            _check_same_study(study, folder)
        else:
            _begin(study, folder, command, overwrite=overwrite)
        _measure(study, cells, folder, progress, held)
        draw_study(folder)
        held.check()
        return read_rows(folder)


def draw_study(folder: Path | str) -> Row:
    """Rewrites a study's summary and figure from its table.

    Nothing is imported or opened because a file of the folder names it.

    Returns:
      The summary.

    Raises:
      FloppyError: for a folder without a study, or with a table that is not its own; if the figure cannot be drawn, in
        which case the summary is written all the same.
    """
    folder = as_path(folder)
    study, rows = read_study(folder), read_rows(folder)
    summary = _summed_up(study, rows, folder)
    text = json.dumps(summary, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / SUMMARY_NAME, text.encode())
    try:
        picture = picture_of(lambda figure: study.draw(_drawable(rows), figure))
    except Exception as error:  # hours of measuring are worth a sentence, whatever it is
        raise FloppyError(
            f"The figure of {folder} cannot be drawn ({raised(error)}); its rows and summary "
            "are saved: once that is mended, `floppy redraw` draws it."
        ) from error
    write_atomically(folder / FIGURE_NAME, picture)
    return summary


def read_study(folder: Path | str) -> Study:
    """The study that a folder holds.

    Raises:
      FloppyError: if it holds none.
    """
    folder = as_path(folder)
    entry = _read_entry(folder)
    try:
        kind = STUDIES[entry.pop("study")]
        entry.pop("command")
        entry.pop(FILES_ENTRY, None)  # studies had none at first
        return _from_json(kind, entry)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise FloppyError(f"{folder} holds no study ({one_line(error)}): give the folder that one wrote.") from error


def read_rows(folder: Path | str) -> list[Row]:
    """A study's table, with each cell parsed into an int, float, bool or str; what a row does not have is an empty str.

    Raises:
      FloppyError: if the folder holds no table, or one that lacks rows, or has some that were added.
    """
    path = as_path(folder) / ROWS_NAME
    table = _read_table(path)
    if table.is_whole and not table.rows:
        raise _no_table(path)
    names = table.names[: table.names.index(COUNT_COLUMN)] if COUNT_COLUMN in table.names else []
    lacking = [key for key, rows in _by_cell(table.rows, names).items() if not _is_whole(rows, path)]
    if lacking or not table.is_whole:
        what = f"lacks rows of {', '.join(lacking[0])}" if lacking else "has a line that was cut short"
        raise FloppyError(f"{path} {what}: run the study with --resume, which measures them again.")
    return [
        {name: _value(text, name, path) for name, text in row.items() if name != COUNT_COLUMN} for row in table.rows
    ]


def _measure(study: Study, cells: list[Row], folder: Path, progress: Progress | None, held: Held) -> None:
    """Measures the cells that the table lacks, and keeps each in it."""
    path = folder / ROWS_NAME
    table = _read_table(path) if path.exists() else _Table([], [], is_whole=True)
    measured = _measured(cells, table, path)
    for done, cell in enumerate(cells):
        if _texts(cell) not in measured:
            if progress is not None:
                progress(done, len(cells), _described(cell))
            rows = study.measure(cell, folder / CELLS_NAME / _folder_name(cell))
            held.check()
            measured[_texts(cell)] = [cell | {COUNT_COLUMN: len(rows)} | row for row in rows]
            _write_rows(cells, measured, path)
    if measured:  # a table that was mended, or that did not count its rows, is written as it should be
        _write_rows(cells, measured, path)


def _summed_up(study: Study, rows: list[Row], folder: Path) -> Row:
    """The summary as plain JSON.

    Raises:
      FloppyError: for a table that holds something else than the study needs, and whatever else its `summary` raises.
    """
    try:
        summary: Row = plain_json(study.summary(rows))
        json.dumps(summary, allow_nan=False)
    except FloppyError:
        raise
    except KeyError as error:
        raise FloppyError(
            f"{folder / ROWS_NAME} has nothing for {shown(error.args[0])}, which {study.name} needs: if it has not "
            "ended, run it with --resume, else restore the table."
        ) from error
    except Exception as error:  # as for the figure
        raise FloppyError(
            f"{folder / ROWS_NAME} cannot be summed up (`summary` of {study.name} raised {raised(error)}); its rows "
            "are saved: once `summary` is mended, or the table restored if it was changed by hand, `floppy redraw` "
            "sums them up."
        ) from error
    return summary


def _drawable(rows: list[Row]) -> list[Row]:
    """Rows whose texts have only letters: names of files may hold bytes that are none."""
    return [
        {name: each.encode(errors="replace").decode() if isinstance(each, str) else each for name, each in row.items()}
        for row in rows
    ]


def _check_each_once(cells: list[Row]) -> None:
    seen: set[tuple[str, ...]] = set()
    for cell in cells:
        if _texts(cell) in seen:
            raise FloppyError(f"A study measures everything once, got {_described(cell)} twice.")
        seen.add(_texts(cell))


def _measured(cells: list[Row], table: _Table, path: Path) -> dict[tuple[str, ...], list[Any]]:
    """The rows of every cell that a table holds as a whole, by the cell's texts.

    Raises:
      FloppyError: for rows of no cell, or more of one than were measured.
    """
    # By texts: what is read back as a number may have been none, such as the file of a dataset called 7.
    known = {_texts(cell): cell for cell in cells}
    found = _by_cell(table.rows, list(cells[0]) if cells else [])
    for key in found:
        if key not in known:
            raise FloppyError(f"{path} has rows of {', '.join(key)}, which this study does not measure: take them out.")
    if not table.is_whole and COUNT_COLUMN not in table.names and found:
        del found[next(reversed(found))]  # nothing says whether what was cut short belonged to it
    return {key: _counted(rows, known[key]) for key, rows in found.items() if _is_whole(rows, path)}


def _by_cell(rows: list[Texts], names: Sequence[str]) -> dict[tuple[str, ...], list[Texts]]:
    """Rows by the texts of their cells, whose columns have these names."""
    found: dict[tuple[str, ...], list[Texts]] = {}
    for row in rows:
        found.setdefault(tuple(row.get(name, "") for name in names), []).append(row)
    return found


def _is_whole(rows: list[Texts], path: Path) -> bool:
    """Whether the rows of a cell are all that were measured.

    Raises:
      FloppyError: if there are more.
    """
    counts = {row.get(COUNT_COLUMN, "") for row in rows}
    if counts == {""}:  # of a table that was begun before there was the column, which has whole cells only
        return True
    count = counts.pop()
    if counts or not count.isdecimal() or len(count) > 9 or int(count) < len(rows):
        raise FloppyError(
            f"{path} has rows that were added or changed by hand, near {shown(','.join(rows[-1].values()))}: take them "
            f"out, or run the study again with {OVERWRITE}."
        )
    return int(count) == len(rows)


def _counted(rows: list[Texts], cell: Row) -> list[Row]:
    """Rows of a cell as they are written: its columns first, then how many rows there are."""
    own = dict(zip(cell, _texts(cell), strict=True)) | {COUNT_COLUMN: str(len(rows))}
    return [own | {name: text for name, text in row.items() if name not in own} for row in rows]


def _described(cell: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in cell.items() if value != "")


def _texts(cell: Row) -> tuple[str, ...]:
    """The values of a cell as they stand in the table."""
    return tuple("" if value is None else str(value) for value in cell.values())


def _has_begun(folder: Path) -> bool:
    """Whether a folder holds anything of a study: what was killed before that begins now."""
    return any(is_there(folder / name) for name in (STUDY_NAME, ROWS_NAME, SUMMARY_NAME, FIGURE_NAME, CELLS_NAME))


def _begin(study: Study, folder: Path, command: str, *, overwrite: bool) -> None:
    """Clears the folder and writes the study's fields."""
    entry = {"study": study.name, "command": command, FILES_ENTRY: _digests(study)} | _as_json(study)
    _check_free(folder, overwrite=overwrite)  # once more, as the only one who holds it

    def clear() -> None:
        try:
            _clear(folder)
        except OSError as error:
            raise FloppyError(f"{folder} cannot be used ({one_line(error)}): give another folder.") from error

    # A full disk costs no earlier study.
    write_atomically(folder / STUDY_NAME, (json.dumps(entry, indent=2) + "\n").encode(), before=clear)


_FILES = (ROWS_NAME, SUMMARY_NAME, FIGURE_NAME, STUDY_NAME)


def _check_free(folder: Path, *, overwrite: bool) -> None:
    """Checks that a study can begin in a folder.

    Raises:
      FloppyError: if it is no folder, or holds a study that is not to be replaced, or something else in its place.
    """
    cells = folder / CELLS_NAME
    if folder.exists() and not folder.is_dir():
        raise FloppyError(f"{folder} cannot be used (Not a directory): give another folder.")
    if is_there(cells) and not (cells.is_dir() and (folder / STUDY_NAME).exists()):
        raise FloppyError(f"{cells} is there, and is no study's: give another folder.")
    taken = [folder / name for name in _FILES if is_there(folder / name)]
    if taken and not overwrite:
        raise already_taken(folder)
    for name in _FILES:
        if found := what_blocks(folder / name):
            raise FloppyError(f"{folder / name} is {found} where a study has a file: give another folder.")


def _clear(folder: Path) -> None:
    """Removes the study before, but for its own file, whose place is taken: until then it can be overwritten again."""
    cells = folder / CELLS_NAME
    for each in cells.iterdir() if cells.exists() else ():  # or cells would go on with the runs of another study
        if each.is_dir() and not each.is_symlink():
            shutil.rmtree(each)
        else:
            each.unlink()
    for name in _FILES:
        if name != STUDY_NAME:
            (folder / name).unlink(missing_ok=True)


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
    known = _read_entry(folder).get(FILES_ENTRY)
    known = known if isinstance(known, dict) else {}
    changed = [path for path, digest in _digests(study).items() if known.get(path, digest) != digest]
    if changed:
        raise FloppyError(
            f"{' '.join(changed)} changed after {folder} began: put the old file back, or run the study again with "
            f"{OVERWRITE}."
        )


def _digests(study: Study) -> dict[str, str]:
    """SHA-256 of the files that a study reads, by their paths."""
    paths = [each for value in vars(study).values() for each in (value if isinstance(value, tuple) else (value,))]
    return {str(path): _digest(path) for path in paths if isinstance(path, Path) and path.is_file()}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _as_json(study: Any) -> Row:
    """The fields of a study: paths as texts, tuples as lists, a configuration as its `as_dict`.

    Raises:
      FloppyError: for what JSON has no room for, such as a number that is not finite.
    """
    values = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    try:
        return {name: json.loads(json.dumps(value, default=_plain, allow_nan=False)) for name, value in values.items()}
    except (TypeError, ValueError, RecursionError) as error:
        raise FloppyError(f"The fields of a study must be plain values ({one_line(error)}): give others.") from error


def _plain(value: Any) -> Any:
    if hasattr(value, "as_dict"):
        return value.as_dict()
    return value.tolist() if hasattr(value, "tolist") else str(value)  # NumPy's


def _from_json(kind: type[AnyStudy], entry: Mapping[str, Any]) -> AnyStudy:
    """A study from its fields in JSON, see `_as_json`."""
    hints = get_type_hints(kind)

    def value(got: Any, hint: Any) -> Any:
        if isinstance(got, list):
            inner = next((each for each in get_args(hint) if each is not type(None)), Any)
            return tuple(value(each, inner) for each in got)
        if isinstance(got, dict):
            return hint.from_dict(got)
        return as_path(got) if isinstance(got, str) and Path in (hint, *get_args(hint)) else got

    return kind(**{name: value(got, hints[name]) for name, got in entry.items()})


def _read_entry(folder: Path) -> Row:
    """`study.json` of a folder.

    Raises:
      FloppyError: if it holds none.
    """
    path = folder / STUDY_NAME
    if not path.exists():
        raise FloppyError(f"{folder} holds no study: give the folder that one wrote.")
    try:
        return dict(json.loads(read_file(path, "a study's file", most=MOST_JSON)))
    except FloppyError:
        raise
    except (TypeError, ValueError, RecursionError) as error:
        raise FloppyError(f"{folder} holds no study ({one_line(error)}): give the folder that one wrote.") from error


def _read_table(path: Path) -> _Table:
    """A study's table.

    Raises:
      FloppyError: if it is none.
    """
    if not path.exists():
        raise FloppyError(f"{path.parent} holds no rows of a study: run it first.")
    text = read_file(path, "a study's table", most=MOST_ROWS).decode(errors="surrogateescape")
    records: list[list[str]] = []
    is_whole = text.endswith(("\n", "\r"))
    try:
        for record in csv.reader(io.StringIO(text, newline=""), strict=True):
            records.append(record)
        if not is_whole:
            del records[-1:]
    except csv.Error as error:
        if "end of data" not in str(error):  # between quotes
            raise _no_table(path) from error
        is_whole = False
    names, *rows = [record for record in records if record] or [[]]
    if any(len(row) > len(names) for row in rows) or len(set(names)) < len(names):
        raise _no_table(path)
    kept = [dict(zip(names, row, strict=True)) for row in rows if len(row) == len(names)]
    if len(kept) < len(rows) and COUNT_COLUMN not in names:
        raise _no_table(path)
    return _Table(names, kept, is_whole and len(kept) == len(rows))


def _no_table(path: Path) -> FloppyError:
    return FloppyError(f"{path} is no table of a study: restore it, or run the study again with {OVERWRITE}.")


def _write_rows(cells: list[Row], measured: Mapping[tuple[str, ...], Iterable[Row]], path: Path) -> None:
    """Writes the rows of all cells that are measured, in the cells' order."""
    rows = [row for cell in cells for row in measured.get(_texts(cell), ())]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(dict.fromkeys(name for row in rows for name in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue().encode(errors="surrogateescape"))  # names of files may hold any bytes


def _value(text: str, name: str, path: Path) -> Any:
    """An int, float or bool where the text is one, else the text.

    Raises:
      FloppyError: for a number too long to be one.
    """
    if text in ("True", "False"):
        return text == "True"
    if re.fullmatch(r"[+-]?[0-9]+", text):
        if len(text) > LONGEST_NAME:
            raise FloppyError(f"{path} has a number of {len(text)} digits for {name}: restore the table.")
        number = int(text)
        return number if abs(number) < 2**63 else text
    try:
        return float(text)
    except ValueError:
        return text


def _folder_name(cell: Row) -> str:
    """A cell's folder: its values, or a digest where these are no name for one."""
    name = "-".join(str(value).replace("/", "_") for value in cell.values())
    is_name = name.strip(".") and "\0" not in name and len(name.encode(errors="surrogateescape")) <= LONGEST_NAME
    return name if is_name else hashlib.sha256(repr(name).encode()).hexdigest()
