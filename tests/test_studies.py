"""The engine of studies, with a study that measures nothing: cells, table, summary, figure, resuming, refusals."""

import csv
import dataclasses
import inspect
import json
import os
import random
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ClassVar

import matplotlib.image
import numpy as np
import pytest

from floppy.cli.main import main
from floppy.errors import FloppyError
from floppy.evaluation.score import interquartile_mean, stratified_interval
from floppy.studies import STUDIES, draw_study, read_rows, read_study, run_study
from floppy.studies.base import by, column

FILES = ("study.json", "rows.csv", "summary.json", "figure.png")


@dataclasses.dataclass(frozen=True)
class Stub:
    """Doubles numbers, and remembers which ones it was asked for."""

    name: ClassVar[str] = "stub"
    measured: ClassVar[list[int]] = []
    fails: ClassVar[dict[int, BaseException]] = {}
    """What comes of a number in place of rows."""
    numbers: tuple[int, ...] = (1, 2, 3)
    word: str = "a"
    paths: tuple[Path, ...] = (Path("x/y.safetensors"),)
    place: Path | None = None
    limit: float | None = 0.5
    span: tuple[float, float] = (0.5, 2.0)
    hard: bool = False

    def cells(self) -> list[dict[str, Any]]:
        if self.word == "refused":
            raise FloppyError("This cannot be measured: give another word.")
        return [{"word": self.word, "number": number} for number in self.numbers]

    def measure(self, cell: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        self.measured.append(cell["number"])
        if cell["number"] in self.fails:
            raise self.fails[cell["number"]]
        folder.mkdir(parents=True)
        (folder / "kept").touch()
        double = {"double": 2 * cell["number"], "half": cell["number"] / 2}
        return [double, {"double": -1, "note": 'says "a, b"\nand more'}]

    def summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"sum": sum(row["double"] for row in rows), "rows": len(rows)}

    def draw(self, rows: list[dict[str, Any]], figure: Any) -> None:
        figure.text(0.1, 0.5, str([row["double"] for row in rows]))  # axes take a tenth of a second


@dataclasses.dataclass(frozen=True)
class OtherStub(Stub):
    name: ClassVar[str] = "other-stub"


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (Stub, OtherStub):
        monkeypatch.setitem(STUDIES._members, kind.name, kind)
    monkeypatch.setattr(Stub, "measured", [])
    monkeypatch.setattr(Stub, "fails", {})


KEPT = sorted((Path(__file__).parents[1] / "docs/results/studies").glob("*"))
"""Studies whose tables are part of the results."""


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- A study's folder.


def test_a_study_is_measured_summed_up_and_drawn(tmp_path: Path) -> None:
    said: list[tuple[int, int, str]] = []
    rows = run_study(Stub(), tmp_path, command="floppy stub", progress=lambda *step: said.append(step))
    assert Stub.measured == [1, 2, 3]
    assert said == [(0, 3, "word a, number 1"), (1, 3, "word a, number 2"), (2, 3, "word a, number 3")]
    assert rows[:2] == [
        {"word": "a", "number": 1, "double": 2, "half": 0.5, "note": ""},
        {"word": "a", "number": 1, "double": -1, "half": "", "note": 'says "a, b"\nand more'},
    ]
    assert len(rows) == 6
    assert rows == read_rows(tmp_path)
    run_study(Stub(), tmp_path, resume=True, progress=lambda *step: pytest.fail("nothing is left to be measured"))
    assert json.loads((tmp_path / "summary.json").read_text()) == {"sum": 2 + 4 + 6 - 3, "rows": 6}
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")
    entry = json.loads((tmp_path / "study.json").read_text())
    assert (entry["study"], entry["command"], entry["numbers"]) == ("stub", "floppy stub", [1, 2, 3])
    assert sorted(path.name for path in (tmp_path / "cells").iterdir()) == ["a-1", "a-2", "a-3"]


def test_a_study_is_read_back_as_it_was(tmp_path: Path) -> None:
    study = Stub((7,), "b", (Path("/some where/ü.npz"), Path("z")), Path("place"), None, (1, 2.5), hard=True)
    run_study(study, tmp_path)
    assert read_study(tmp_path) == study
    assert isinstance(read_study(tmp_path).paths[0], Path)
    run_study(OtherStub(), tmp_path, overwrite=True)
    assert read_study(tmp_path) == OtherStub()


@pytest.mark.parametrize("value", [3, -1, 0.1, 1e-300, np.float32(1e10), True, False, "", "text", "a,b", '"', "x\ny"])
def test_the_table_gives_back_what_was_measured(value: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "measure", lambda *_: [{"double": 1, "value": value}])
    (row,) = run_study(Stub((1,)), tmp_path)
    assert row["value"] == value
    assert isinstance(row["value"], type(value)) or isinstance(value, np.float32)


def test_what_is_no_finite_number_is_kept_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stub, "measure", lambda *_: [{"double": 1, "nan": float("nan"), "infinite": -np.inf}])
    (row,) = run_study(Stub((1,)), tmp_path)
    assert np.isnan(row["nan"])
    assert row["infinite"] == -np.inf


def test_what_is_no_finite_number_is_null_in_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {"mean": np.float32("nan"), "span": (-np.inf, np.array([1, np.inf])), "all": {7: np.int64(3), "x": "nan"}}
    monkeypatch.setattr(Stub, "summary", lambda *_: found)
    run_study(Stub((1,)), tmp_path)
    wanted = {"mean": None, "span": [None, [1.0, None]], "all": {"7": 3, "x": "nan"}}
    assert json.loads((tmp_path / "summary.json").read_text(), parse_constant=pytest.fail) == wanted
    assert main(["redraw", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["summary"] == wanted
    assert main(["redraw", str(tmp_path)]) == 0
    assert capsys.readouterr().out.startswith("mean: -\nspan:\n")


def test_a_field_that_is_no_finite_number_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match="fields of a study must be plain values"):
        run_study(Stub(limit=float("nan")), tmp_path / "study")
    assert not (tmp_path / "study").exists()


# --- The list of studies.


def test_every_study_is_in_the_list_and_says_what_it_does() -> None:
    assert STUDIES.shipped.keys() < set(STUDIES)
    for name in STUDIES:
        kind = STUDIES[name]
        assert kind.name == name
        assert STUDIES.summary(name) == (kind.__doc__ or "").partition("\n")[0]
    modules = {path.stem for path in Path(inspect.getfile(STUDIES["cost"])).parent.glob("*.py")}
    shared = {"__init__", "base", "figure", "folder", "registry", "runs", "explain_figure", "rankings", "equal_size"}
    assert {place.module for place in STUDIES.shipped.values()} == modules - shared


def test_a_study_that_is_not_in_the_list_is_refused() -> None:
    with pytest.raises(FloppyError, match=r"study must be one of transfer, .*, got 'transfers'"):
        STUDIES.find("transfers")
    assert STUDIES.find("stub") is Stub


# --- Going on.


@pytest.mark.parametrize(
    "trouble", [FloppyError("no"), KeyboardInterrupt(), RuntimeError()], ids=lambda e: type(e).__name__
)
def test_what_was_measured_before_trouble_is_kept(trouble: BaseException, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path / "undisturbed")
    Stub.measured.clear()
    Stub.fails[2] = trouble
    with pytest.raises(type(trouble)):
        run_study(Stub(), tmp_path / "study")
    assert [row["number"] for row in read_rows(tmp_path / "study")] == [1, 1]
    assert not (tmp_path / "study/summary.json").exists()
    Stub.fails.clear()
    rows = run_study(Stub(), tmp_path / "study", resume=True)
    assert Stub.measured == [1, 2, 2, 3]
    assert rows == read_rows(tmp_path / "undisturbed")
    assert snapshot(tmp_path / "study") == snapshot(tmp_path / "undisturbed")


@pytest.mark.parametrize("lost", [1, 2, 3, 6])
def test_a_cell_that_lacks_a_row_is_measured_again(lost: int, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    whole = read_rows(tmp_path)
    with (tmp_path / "rows.csv").open(newline="") as file:
        head, *rows = csv.reader(file)
    del rows[lost - 1]
    with (tmp_path / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([head, *rows])
    number = (lost + 1) // 2
    shutil.rmtree(tmp_path / "cells" / f"a-{number}")
    assert run_study(Stub(), tmp_path, resume=True) == whole
    assert Stub.measured == [1, 2, 3, number]


@pytest.mark.parametrize("kept", ["all but the end", "half", "in a number", "between quotes", "in the head", "nothing"])
def test_a_line_that_was_cut_short_is_measured_again(kept: str, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    whole = (tmp_path / "rows.csv").read_bytes()
    ends = {"in the head": 7, "nothing": 0, "all but the end": len(whole) - 1, "half": len(whole) // 2}
    ends |= {"in a number": whole.index(b"a,3") + 7, "between quotes": whole.rindex(b"and more")}
    (tmp_path / "rows.csv").write_bytes(whole[: ends[kept]])
    before = snapshot(tmp_path)
    with pytest.raises(FloppyError, match="run the study with --resume, which measures them again"):
        draw_study(tmp_path)
    assert snapshot(tmp_path) == before
    shutil.rmtree(tmp_path / "cells")
    (tmp_path / "cells").mkdir()
    run_study(Stub(), tmp_path, resume=True)
    assert (tmp_path / "rows.csv").read_bytes() == whole
    assert Stub.measured[3:] == {"in the head": [1, 2, 3], "nothing": [1, 2, 3], "half": [2, 3]}.get(kept, [3])


def test_half_a_line_after_a_whole_table_is_dropped(tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    whole = (tmp_path / "rows.csv").read_text()
    (tmp_path / "rows.csv").write_text(whole + "a,3")
    run_study(Stub(), tmp_path, resume=True)
    assert (tmp_path / "rows.csv").read_text() == whole
    assert Stub.measured == [1, 2, 3]


def test_of_a_table_that_counts_no_rows_the_last_cell_is_measured_again_if_it_was_cut(tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    whole = (tmp_path / "rows.csv").read_text()
    lines = re.sub(r"(?m)^a,(\d),2,", r"a,\1,", whole.replace(",cell_rows", ""))
    (tmp_path / "rows.csv").write_text(lines[:-3])
    shutil.rmtree(tmp_path / "cells/a-3")
    assert run_study(Stub(), tmp_path, resume=True) == read_rows(tmp_path)
    assert Stub.measured == [1, 2, 3, 3]
    run_study(Stub(), tmp_path, resume=True)
    assert Stub.measured == [1, 2, 3, 3]


@pytest.mark.parametrize("added", ["a,4,1,8,,\n", "a,3,2,6,1.5,\n", "a,3,,6,1.5,\n", "a,3,9,6,1.5,\n", "b,3,1,6,,\n"])
def test_rows_that_were_added_by_hand_are_refused(added: str, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    with (tmp_path / "rows.csv").open("a") as file:
        file.write(added)
    before = snapshot(tmp_path)
    with pytest.raises(FloppyError, match=r"take them out") as caught:
        run_study(Stub(), tmp_path, resume=True)
    assert "\n" not in str(caught.value)
    assert snapshot(tmp_path) == before
    assert Stub.measured == [1, 2, 3]


def test_what_has_not_begun_begins_when_it_is_to_go_on(tmp_path: Path) -> None:
    """A study may be killed before its first file is there."""
    (tmp_path / "study").mkdir()
    assert run_study(Stub(), tmp_path / "study", resume=True) == run_study(Stub(), tmp_path / "new", resume=True)
    (tmp_path / "study/study.json").unlink()
    with pytest.raises(FloppyError, match="holds no study"):
        run_study(Stub(), tmp_path / "study", resume=True)


def test_ctrl_c_is_one_line_and_the_study_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["stub", "--numbers", "1", "2", "--out", str(tmp_path / "study")]
    Stub.fails[2] = KeyboardInterrupt()
    assert main([*words, "--json"]) == 130
    said = capsys.readouterr()
    assert said.out == ""
    progress, last = said.err.splitlines()[:-1], said.err.splitlines()[-1]
    assert progress == ["0/2: word a, number 1", "1/2: word a, number 2"]
    assert last == "floppy: interrupted; the same command with --resume goes on"
    Stub.fails.clear()
    assert main([*words, "--json", "--resume"]) == 0
    assert json.loads(capsys.readouterr().out)["summary"] == {"sum": 4, "rows": 4}
    assert Stub.measured == [1, 2, 2]


def test_home_is_meant_by_a_tilde(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    run_study(Stub((1,), paths=("~/data",), place="~"), "~/study")  # type: ignore[arg-type]
    study: Any = read_study("~/study")
    assert (study.paths, study.place) == ((tmp_path / "home/data",), tmp_path / "home")
    assert read_rows("~/study") == read_rows(tmp_path / "home/study")
    draw_study("~/study")
    assert main(["stub", "--numbers", "1", "--paths", "~/data", "--place=~", "--out=~/study", "--resume"]) == 0
    assert main(["redraw", "~/study", "--json"]) == 0
    said = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(said)["figure"] == str(tmp_path / "home/study/figure.png")
    assert list(Path().iterdir()) == []


def test_a_table_that_does_not_count_its_rows_is_taken_as_it_is(tmp_path: Path) -> None:
    """So the tables of before were written."""
    rows = run_study(Stub(), tmp_path)
    whole = (tmp_path / "rows.csv").read_text()
    lines = whole.replace(",cell_rows", "")
    (tmp_path / "rows.csv").write_text(re.sub(r"(?m)^a,(\d),2,", r"a,\1,", lines))
    draw_study(tmp_path)
    assert run_study(Stub(), tmp_path, resume=True) == read_rows(tmp_path) == rows
    assert (tmp_path / "rows.csv").read_text() == whole
    assert Stub.measured == [1, 2, 3]


def test_trouble_in_the_first_cell_can_be_resumed(tmp_path: Path) -> None:
    Stub.fails[1] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_study(Stub(), tmp_path)
    Stub.fails.clear()
    assert len(run_study(Stub(), tmp_path, resume=True)) == 6


def test_a_whole_study_is_only_drawn_again(tmp_path: Path) -> None:
    rows = run_study(Stub(), tmp_path)
    before = snapshot(tmp_path)
    assert run_study(Stub(), tmp_path, resume=True) == rows
    assert Stub.measured == [1, 2, 3]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("word", ["7", "1e3", "007", "True", "nan", "a/b", ""])
def test_a_text_that_looks_like_something_else_is_known_again(word: str, tmp_path: Path) -> None:
    before = run_study(Stub(word=word), tmp_path)
    again = run_study(Stub(word=word), tmp_path, resume=True)
    assert Stub.measured == [1, 2, 3]
    assert len(again) == len(before) == 6


def test_overwriting_forgets_the_cells_of_the_study_before(tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    run_study(Stub((2,)), tmp_path, overwrite=True)  # the stub fails where its folder is there
    assert [row["number"] for row in read_rows(tmp_path)] == [2, 2]
    assert [path.name for path in (tmp_path / "cells").iterdir()] == ["a-2"]


def test_cells_on_another_disk_are_emptied(tmp_path: Path) -> None:
    (tmp_path / "large").mkdir()
    (tmp_path / "study").mkdir()
    run_study(Stub((1,)), tmp_path / "study")
    shutil.rmtree(tmp_path / "study/cells")
    (tmp_path / "study/cells").symlink_to(tmp_path / "large")
    (tmp_path / "large/left-over").touch()
    run_study(Stub((2,)), tmp_path / "study", overwrite=True)
    assert [path.name for path in (tmp_path / "large").iterdir()] == ["a-2"]


@pytest.mark.parametrize("name", FILES)
def test_a_folder_in_the_place_of_a_file_stays(name: str, tmp_path: Path) -> None:
    (tmp_path / name / "precious").mkdir(parents=True)
    (tmp_path / "rows.csv" if name != "rows.csv" else tmp_path / "study.json").write_text("old")
    before = snapshot(tmp_path)
    with pytest.raises(FloppyError, match=f"{name} is a folder where a study has a file"):
        run_study(Stub(), tmp_path, overwrite=True)
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("name", FILES)
def test_a_pipe_in_the_place_of_a_file_stays(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(FloppyError, match=f"{name} is a pipe where a study has a file: give another folder"):
        run_study(Stub(), tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == [name]


def test_cells_that_are_no_studys_stay(tmp_path: Path) -> None:
    (tmp_path / "cells").mkdir()
    (tmp_path / "cells/precious.txt").write_text("somebody's")
    for overwrite in (False, True):
        with pytest.raises(FloppyError, match="cells is there, and is no study's: give another folder"):
            run_study(Stub(), tmp_path, overwrite=overwrite)
    assert snapshot(tmp_path) == {"cells/precious.txt": b"somebody's"}


def test_a_study_goes_on_with_the_files_that_it_began_with(tmp_path: Path) -> None:
    data, folder = tmp_path / "data", tmp_path / "study"
    data.write_text("a")
    # Texts and lists are taken too, as from Python.
    study = Stub(paths=[str(data)], place=tmp_path / "none")  # type: ignore[arg-type]
    run_study(study, folder)
    run_study(study, folder, resume=True)
    data.write_text("b")
    with pytest.raises(FloppyError, match=f"{data} changed after {folder} began: put the old file back"):
        run_study(study, folder, resume=True)
    run_study(study, folder, overwrite=True)
    assert Stub.measured == [1, 2, 3] * 2
    entry = json.loads((folder / "study.json").read_text())
    del entry["files"]  # as in studies of before
    (folder / "study.json").write_text(json.dumps(entry))
    data.write_text("c")
    run_study(study, folder, resume=True)


# --- Drawing.


def test_the_table_alone_is_drawn(tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    before = snapshot(tmp_path)
    for name in ("summary.json", "figure.png", "cells/a-1/kept", "cells/a-2/kept", "cells/a-3/kept"):
        (tmp_path / name).unlink()
    assert draw_study(tmp_path) == {"sum": 9, "rows": 6}
    assert Stub.measured == [1, 2, 3]
    after = snapshot(tmp_path)
    assert after == {name: data for name, data in before.items() if "cells" not in name}
    lines = (tmp_path / "rows.csv").read_text().splitlines(keepends=True)
    (tmp_path / "rows.csv").write_text("".join(lines[:4]))
    assert draw_study(tmp_path) == {"sum": 1, "rows": 2}
    assert (tmp_path / "figure.png").read_bytes() != before["figure.png"]


@pytest.mark.thorough(all_but=["budget-cartpole-2d", "cost-cartpole", "transfer-cartpole"])
@pytest.mark.slow
@pytest.mark.parametrize("kept", KEPT, ids=lambda folder: folder.name)
def test_a_kept_study_is_drawn_from_its_table(kept: Path, tmp_path: Path) -> None:
    for name in ("study.json", "rows.csv"):
        shutil.copy(kept / name, tmp_path)
    draw_study(tmp_path)
    summaries = (json.loads((folder / "summary.json").read_text()) for folder in (tmp_path, kept))
    for got, wanted in zip(*map(leaves, summaries), strict=True):
        assert got == (pytest.approx(wanted, rel=1e-6) if isinstance(wanted, float) else wanted)
    drawn, known = (matplotlib.image.imread(folder / "figure.png")[..., :3] for folder in (tmp_path, kept))
    ink = np.abs(1 - known).sum()
    assert np.abs(drawn - known).sum() < 0.05 * ink


def leaves(value: Any) -> list[Any]:
    """All texts and numbers of JSON, with the names before them."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in [name, *leaves(inner)]]
    return [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]


def test_the_command_that_draws_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run_study(Stub(), tmp_path)
    (tmp_path / "figure.png").unlink()
    assert main(["redraw", str(tmp_path), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result == {
        "study": "stub",
        "folder": str(tmp_path),
        "figure": str(tmp_path / "figure.png"),
        "summary": {"sum": 9, "rows": 6},
    }
    assert (tmp_path / "figure.png").exists()
    assert main(["redraw", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"sum: 9\nrows: 6\n{tmp_path / 'figure.png'}\n"


def shorten_a_row(folder: Path) -> None:
    text = (folder / "rows.csv").read_text()
    (folder / "rows.csv").write_text(text.replace("a,1,2,2,0.5,", "a,1"))


def lengthen_a_row(folder: Path) -> None:
    swap(folder, "a,1,2,2,", "a,1,2,2,2,")


def rename_a_column(folder: Path) -> None:
    swap(folder, "double", "triple")


def spoil_a_number(folder: Path) -> None:
    swap(folder, "a,1,2,2,", "a,1,2,two,")


def swap(folder: Path, old: str, new: str, name: str = "rows.csv") -> None:
    text = (folder / name).read_text()
    assert old in text
    (folder / name).write_text(text.replace(old, new))


def replace(path: Path, make: Callable[[Path], Any]) -> None:
    path.unlink()
    make(path)


@pytest.mark.parametrize(
    ("harm", "wanted"),
    [
        (lambda folder: (folder / "study.json").unlink(), "holds no study"),
        (lambda folder: (folder / "study.json").write_text("[1]"), "holds no study"),
        (lambda folder: (folder / "study.json").write_text('{"study": "none", "command": ""}'), "holds no study"),
        (lambda folder: (folder / "study.json").write_text('{"study": "stub", "command": "", "x": 1}'), "no study"),
        (lambda folder: (folder / "rows.csv").unlink(), "run it first"),
        (lambda folder: (folder / "rows.csv").write_bytes(b"\xff\xfe\x00"), "cut short: run the study with --resume"),
        (lambda folder: (folder / "rows.csv").write_text("word,number\n"), "no table of a study"),
        (lambda folder: (folder / "rows.csv").write_text("word,word\na,b\n"), "no table of a study"),
        (shorten_a_row, "lacks rows of a, 1: run the study with --resume"),
        (lengthen_a_row, "no table of a study"),
        (lambda folder: swap(folder, "a,1,2,2,", f"a,1,2,{'7' * 400},"), "has a number of 400 digits for double"),
        (lambda folder: swap(folder, "a,1,2,", f"a,{'7' * 5000},2,"), "has a number of 5000 digits for number"),
        (lambda folder: swap(folder, "a,1,2,2,", f"a,1,2,{'7' * 40},"), "cannot be summed up"),
        (lambda folder: swap(folder, "a,1,2,2,", "a,1,two,2,"), "rows that were added or changed by hand"),
        (lambda folder: swap(folder, "a,1,2,2,", "a,1,,2,"), "rows that were added or changed by hand"),
        (lambda folder: swap(folder, "a,2,", "a,1,"), "rows that were added or changed by hand"),
        (lambda folder: (folder / "study.json").write_text("[" * 100_000), "holds no study"),
        (lambda folder: (folder / "study.json").write_text('{"study": ' + "[" * 900 + "]" * 900 + "}"), "no study"),
        (lambda folder: swap(folder, "[\n    1,", f"[\n    {'7' * 5000},", "study.json"), "holds no study"),
        (lambda folder: swap(folder, '"word": "a"', '"word": {"a": 1}', "study.json"), "holds no study"),
        (lambda folder: swap(folder, '"x/y.', '"~nobody-here/y.', "study.json"), "holds no study"),
        (lambda folder: replace(folder / "study.json", os.mkfifo), "not a regular file"),
        (lambda folder: replace(folder / "rows.csv", os.mkfifo), "not a regular file"),
        (lambda folder: replace(folder / "study.json", os.mkdir), "This is a folder"),
        (lambda folder: replace(folder / "rows.csv", os.mkdir), "This is a folder"),
        (rename_a_column, "has nothing for 'double'"),
        (spoil_a_number, "cannot be summed up"),
    ],
)
def test_what_is_no_study_is_refused(
    harm: Callable[[Path], Any], wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_study(Stub(), tmp_path)
    harm(tmp_path)
    before = snapshot(tmp_path)
    assert main(["redraw", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("floppy: ")
    assert said.err.count("\n") == 1
    assert wanted in said.err
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    "fault", [TypeError("not so"), ValueError("not so"), RuntimeError("not so"), IndexError("not so")]
)
def test_a_fault_of_a_summary_costs_no_measurement(
    fault: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def summary(*_: object) -> None:
        raise fault

    monkeypatch.setattr(Stub, "summary", summary)
    with pytest.raises(FloppyError) as caught:
        run_study(Stub(), tmp_path)
    said = str(caught.value)
    assert f"`summary` of stub raised {type(fault).__name__}: not so" in said and "rows are saved" in said
    assert "--overwrite" not in said
    assert len(read_rows(tmp_path)) == 6


@pytest.mark.parametrize(("name", "most"), [("study.json", 2**20), ("rows.csv", 2**28)])
def test_a_file_too_large_to_be_a_studys_is_not_read(name: str, most: int, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    os.truncate(tmp_path / name, most + 1)
    with pytest.raises(FloppyError, match=f"{name} has .*iB, a study's .* may have {most // 2**20} MiB at most"):
        draw_study(tmp_path)


# --- Refusals.


@pytest.mark.parametrize("name", FILES)
def test_a_folder_that_is_taken_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("somebody's")
    with pytest.raises(
        FloppyError, match=r"already holds a run: give --overwrite, --resume, or another folder \(in Python"
    ):
        run_study(Stub(), tmp_path)
    assert Stub.measured == []
    assert snapshot(tmp_path) == {name: b"somebody's"}
    run_study(Stub(), tmp_path, overwrite=True)
    assert {*FILES} <= snapshot(tmp_path).keys()


@pytest.mark.parametrize(
    ("other", "wanted"),
    [
        (Stub((1, 2)), "differs in numbers: give"),
        (Stub(word="b", limit=None), "differs in word, limit: give"),
        (OtherStub(), "of another kind, stub"),
    ],
)
def test_another_study_is_not_gone_on_with(other: Stub, wanted: str, tmp_path: Path) -> None:
    run_study(Stub(), tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(FloppyError, match=wanted):
        run_study(other, tmp_path, resume=True)
    assert snapshot(tmp_path) == before
    assert Stub.measured == [1, 2, 3]


@pytest.mark.parametrize(
    ("study", "options", "wanted"),
    [
        (Stub(), {"resume": True, "overwrite": True}, "one of --resume and --overwrite"),
        (Stub((1, 2, 1)), {}, "everything once, got word a, number 1 twice"),
        (Stub(word="refused"), {}, "This cannot be measured"),
    ],
)
def test_what_cannot_be_run_writes_nothing(study: Stub, options: dict[str, bool], wanted: str, tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match=wanted):
        run_study(study, tmp_path / "study", **options)
    assert not (tmp_path / "study").exists()
    assert Stub.measured == []


# --- Statistics.


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ([7.0], 7.0),
        ([1.0, 2.0, 9.0], 4.0),  # a quarter of three is none
        ([-100.0, 1.0, 3.0, 50.0], 2.0),
        ([30.0, 0.0, 1000.0, 10.0, 20.0], 20.0),
        ([0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 100.0, 100.0], 2.5),
    ],
)
def test_the_interquartile_mean_by_hand(values: list[float], wanted: float) -> None:
    assert interquartile_mean(values) == pytest.approx(wanted)


def slow_mean(values: Sequence[float]) -> float:
    cut = len(values) // 4
    middle = sorted(values)[cut : len(values) - cut]
    return sum(middle) / len(middle)


@pytest.mark.parametrize("count", range(1, 14))
def test_the_interquartile_mean_by_its_slow_twin(count: int) -> None:
    values = np.random.default_rng(count).normal(size=count)
    assert interquartile_mean(values) == pytest.approx(slow_mean(list(values)))


@pytest.mark.parametrize(
    ("strata", "wanted"),
    [
        ([[3.0]], (3.0, 3.0)),
        ([[1.0], [2.0], [6.0]], (3.0, 3.0)),
        ([[0.0, 1.0]], (0.0, 1.0)),  # each in a quarter of all resamples
        ([[5.0], [0.0, 4.0]], (5 / 3, 13 / 3)),  # the single one counts once
        ([[0.0, 0.0, 0.0], [8.0, 8.0, 8.0]], (4.0, 4.0)),  # one stratum never takes the place of the other
    ],
)
def test_the_interval_by_hand(strata: list[list[float]], wanted: tuple[float, float]) -> None:
    assert stratified_interval(strata) == pytest.approx(wanted)


@pytest.mark.parametrize("sizes", [(12,), (5, 9), (6, 1, 7)])
def test_the_interval_by_its_slow_twin(sizes: tuple[int, ...]) -> None:
    drawn = np.random.default_rng(0)
    strata = [drawn.normal(10.0 * index, 3.0, size) for index, size in enumerate(sizes)]
    source, means = random.Random(1), []
    for _ in range(4000):
        means.append(
            slow_mean([value for stratum in strata for value in source.choices(list(stratum), k=len(stratum))])
        )
    low, high = sorted(means)[100], sorted(means)[3899]
    assert stratified_interval(strata) == pytest.approx((low, high), abs=0.1 * (high - low))


def test_the_interval_depends_on_its_seed_alone() -> None:
    strata = [np.random.default_rng(0).normal(size=9)]
    assert stratified_interval(strata, 3) == stratified_interval(strata, 3) != stratified_interval(strata, 4)


def test_rows_in_groups() -> None:
    rows = [{"a": 2, "b": "x"}, {"a": 1, "b": "x"}, {"a": 2, "b": "y"}]
    assert by(rows, "a") == {2: [rows[0], rows[2]], 1: [rows[1]]}
    assert list(by(rows, "a")) == [2, 1]
    assert by(rows, "a", "b") == {(2, "x"): [rows[0]], (1, "x"): [rows[1]], (2, "y"): [rows[2]]}
    np.testing.assert_array_equal(column(rows, "a"), [2.0, 1.0, 2.0])
    assert column(rows, "a").dtype == float


def test_every_table_is_plain_csv(tmp_path: Path) -> None:
    run_study(Stub((1,)), tmp_path)
    with (tmp_path / "rows.csv").open(newline="") as file:
        lines = list(csv.reader(file))
    assert lines[:2] == [["word", "number", "cell_rows", "double", "half", "note"], ["a", "1", "2", "2", "0.5", ""]]
