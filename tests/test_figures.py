"""Figures of studies: texts as they stand, no window, no settings of the user's, nothing lost where drawing fails."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from matplotlib.figure import Figure
from matplotlib.text import Text
from tiny_runs import TINY

from floppy import figure as module
from floppy.cli.main import main
from floppy.cli.studies import study_text
from floppy.errors import FloppyError
from floppy.evaluation import score as score_module
from floppy.figure import label_of, picture_of, take_literally
from floppy.studies import STUDIES, Compare, Ensemble, Transfer, draw_study, read_rows, run_study
from floppy.studies import folder as folder_module
from floppy.studies.runs import dataset_label

KEPT = Path(__file__).parents[1] / "docs/results/studies"

NAMES = [
    "a$b",
    "$x^{$",
    r"$\frac",
    r"\alpha_{",
    "{",
    "_hidden",
    "__",
    "a_b^c",
    "%#&~",
    "ü$é",
    "line\nbreak",
    "日本$",
    "n" * 200,
]
"""Of files, tasks and whatever else ends in a figure."""


@dataclasses.dataclass(frozen=True)
class Named:
    """A study whose only number has a name, which is written wherever a figure has text."""

    name: ClassVar[str] = "named"
    fails: ClassVar[list[Exception]] = []
    word: str = "a"

    def cells(self) -> list[dict[str, Any]]:
        return [{"word": self.word}]

    def measure(self, cell: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
        return [{"score": 1.0}]

    def summary(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        return {"word": self.word}

    def draw(self, rows: list[dict[str, Any]], figure: Figure) -> None:
        for each in self.fails:
            raise each
        axes, (word,) = figure.subplots(), (str(row["word"]) for row in rows)
        axes.plot([word], [1.0], label=word)
        axes.set(xlabel=word, ylabel=word, title=word)
        axes.set_yticks([1.0], [word])
        axes.annotate(word, (0, 1.0))
        figure.suptitle(word)
        axes.legend(title=word)


@pytest.fixture(autouse=True)
def named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STUDIES._members, Named.name, Named)
    monkeypatch.setattr(Named, "fails", [])


# --- Texts as they stand.


@pytest.mark.parametrize("name", NAMES)
def test_every_text_is_drawn_as_it_stands(name: str, tmp_path: Path) -> None:
    run_study(Named(name), tmp_path)
    assert (tmp_path / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_no_text_of_a_figure_is_a_formula_but_the_powers_of_axes() -> None:
    figure = Figure()
    Named().draw([{"word": "a$b$c"}], figure)
    figure.axes[0].twinx().plot([1, 2])
    figure.axes[1].set(yscale="log", ylim=(1, 1e4), ylabel="$y$")
    take_literally(figure)
    figure.savefig(os.devnull, format="png")  # which writes the numbers beside the axes
    formulas = {text.get_text() for text in figure.findobj(Text) if text.get_parse_math()}
    assert all(text == "" or text.startswith("$\\mathdefault{") for text in formulas)
    assert len(formulas) > 3
    assert any(text.get_text() == "a$b$c" for text in figure.findobj(Text))


def test_a_formula_would_have_been_drawn_in_another_way() -> None:
    """So that the test above is about something."""
    pictures = [
        picture_of(lambda figure, name=name: figure.suptitle(name) and None) for name in ("$a_b$", "$a_c$", "ab")
    ]
    assert len(set(pictures)) == 3
    with pytest.raises(ValueError, match="Expected"):
        Figure().suptitle("$x^{$").get_figure().savefig(os.devnull, format="png")


def test_a_label_is_a_line_that_legends_show() -> None:
    assert label_of("_x$") == " _x$"
    assert label_of("two\nlines\udcff") == "two\ufffdlines\ufffd"
    assert (label_of(7), label_of("")) == ("7", "")
    assert (len(label_of("x" * 300)), label_of("x" * 40)) == (41, "x" * 40)
    assert dataset_label("runs/_a$/dataset.safetensors") == " _a$"
    assert dataset_label("runs/b_{.safetensors") == "b_{"
    assert dataset_label("dataset.safetensors") == "dataset.safetensors"


@pytest.mark.parametrize("kind", ["transfer", "ensemble"])
def test_a_dataset_of_any_name_is_in_the_figure(kind: str, tmp_path: Path) -> None:
    study = rename(kind, "_a$b{.safetensors", tmp_path)
    draw_study(tmp_path)
    figure = Figure()
    study.draw(read_rows(tmp_path), figure)
    texts = [text.get_text() for text in figure.findobj(Text)]
    assert " _a$b{" in texts


def rename(kind: str, name: str, folder: Path) -> Any:
    """A kept study of which the first dataset has another name."""
    kept = KEPT / f"{kind}-cartpole"
    entry = json.loads((kept / "study.json").read_text())
    old = entry["datasets"][0]
    entry["datasets"][0] = name
    (folder / "study.json").write_text(json.dumps(entry))
    (folder / "rows.csv").write_text((kept / "rows.csv").read_text().replace(old, name))
    return {"transfer": Transfer, "ensemble": Ensemble}[kind]((Path(name),))


def test_names_of_any_bytes_are_kept(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """Such as files from a machine with another encoding have."""
    name = os.fsdecode(b"caf\xe9$")
    run_study(Named(name), tmp_path)
    assert read_rows(tmp_path)[0]["word"] == name
    run_study(Named(name), tmp_path, resume=True)
    assert main(["redraw", str(tmp_path)]) == 0
    assert capsysbinary.readouterr().out.startswith(b"word: caf\\udce9$\n")


def test_scores_of_a_table_have_their_own_unit(tmp_path: Path) -> None:
    entry = {"method": "hades", "seed": 0, "outer_steps": 1, "env_steps": 5, "score": 50.0, "seconds": 1.0}
    rows = [entry | {"what": what, "unit": "accuracy in percent"} for what in ("evaluation", "end")]
    for table, unit in ((rows, "accuracy in percent"), ([row | {"unit": ""} for row in rows], "mean return")):
        figure = Figure()
        Compare("images/digits", methods=("hades",), seeds=(0,)).draw(table, figure)
        assert figure.axes[0].get_ylabel() == unit


# --- Nothing lost.


@pytest.mark.parametrize(
    "error", [RuntimeError("no\nfont"), MemoryError(), KeyError("x"), OverflowError("long"), OSError(28, "disk full")]
)
def test_where_drawing_fails_rows_and_summary_are_saved(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Named.fails.append(error)
    assert main(["named", "--out", str(tmp_path)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 2  # progress, and a sentence
    assert "rows and summary are saved: once that is mended, `floppy redraw` draws it" in said.err
    assert json.loads((tmp_path / "summary.json").read_text()) == {"word": "a"}
    assert len(read_rows(tmp_path)) == 1
    assert not (tmp_path / "figure.png").exists()
    Named.fails.clear()
    assert main(["redraw", str(tmp_path)]) == 0
    assert (tmp_path / "figure.png").exists()


def test_where_nothing_can_be_drawn_nothing_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise ImportError("libfreetype.so is missing")

    monkeypatch.setattr(module, "_matplotlib", absent)
    monkeypatch.setattr(Named, "measure", lambda *_: pytest.fail("measured"))
    with pytest.raises(FloppyError, match=r"No figure can be drawn here \(ImportError: libfreetype.so is missing\)"):
        run_study(Named(), tmp_path / "study")
    assert not (tmp_path / "study").exists()


# --- Whatever is around.

DRAW = """
import sys
from floppy.figure import picture_of

def draw(figure):
    figure.subplots().plot([1, 2], label="a$b")
    figure.legend()

sys.stdout.buffer.write(picture_of(draw))
assert not {"matplotlib.pyplot", "jax"} & sys.modules.keys()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "around",
    [
        {"MPLBACKEND": "module://matplotlib_inline.backend_inline"},
        {"MPLBACKEND": "no such thing", "HOME": None, "MPLCONFIGDIR": None},
        {"MPLBACKEND": "tkagg", "MPLCONFIGDIR": "/proc/no/such/folder", "HOME": "/proc"},
        {"MATPLOTLIBRC": "matplotlibrc", "DISPLAY": None},
    ],
    ids=["notebook", "no home", "read-only home", "settings that ask for TeX"],
)
def test_a_figure_needs_nothing_around_it(around: dict[str, str | None], tmp_path: Path) -> None:
    (tmp_path / "matplotlibrc").write_text("text.usetex: True\nfont.family: none\nsavefig.dpi: 7\nbackend: none\n")
    environment = {name: value for name, value in (os.environ | around).items() if value is not None}
    command = [sys.executable, "-W", "error", "-c", DRAW]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr

    def draw(figure: Figure) -> None:
        figure.subplots().plot([1, 2], label="a$b")
        figure.legend()

    assert done.stdout == picture_of(draw)


def test_a_known_backend_stays_the_users(tmp_path: Path) -> None:
    code = f"{DRAW}\nimport matplotlib; assert matplotlib.rcParams._get('backend') == 'TkAgg'"
    environment = os.environ | {"MPLBACKEND": "TkAgg"}
    subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, timeout=60)


# --- Folders from anywhere.

WATCHED: list[str] = []
"""What was opened or imported while a test watches."""

IS_WATCHING: list[bool] = []


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    if IS_WATCHING and event in ("open", "import"):
        WATCHED.append(str(arguments[0]))


sys.addaudithook(watch)  # there is no way to remove one


@pytest.fixture
def bait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of files that nobody has asked for, and of a module that is found."""
    folder = tmp_path / "bait"
    folder.mkdir()
    for name in ("file.npz", "data.safetensors", "space.txt"):
        (folder / name).write_bytes(b"")
    (folder / "hostile_mod.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(folder))
    IS_WATCHING.append(True)
    yield folder
    IS_WATCHING.clear()
    WATCHED.clear()


KINDS = {path.name.partition("-cartpole")[0]: path for path in sorted(KEPT.glob("*-cartpole*"), reverse=True)}


@pytest.mark.parametrize("task", ["gymnasium/hostile_mod:X-v0", "images/{bait}/file.npz", "hostile_mod:X", "no/such"])
@pytest.mark.parametrize("kind", [*KINDS, "rollback"])
def test_a_study_is_drawn_without_what_it_names(
    kind: str, task: str, bait: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(score_module, "BOOTSTRAP_RESAMPLES", 20)
    monkeypatch.setattr(folder_module, "picture_of", lambda draw: draw(Figure()) or b"")
    task = task.format(bait=bait)
    if kind == "rollback":
        entry: dict[str, Any] = {"study": "rollback", "command": "", "config": TINY.as_dict(), "levels": [2, 0]}
        entry["config"] |= {"task": task}
        entry["config"]["outer"]["teacher"] = str(bait / "data.safetensors")
        table = (
            "encoder_layers,examples,cell_rows,finished,outer_steps,env_steps,seconds,score\n2,0,1,True,3,4,5.0,-inf\n"
        )
    else:
        entry = json.loads((KINDS[kind] / "study.json").read_text())
        table = (KINDS[kind] / "rows.csv").read_text()
    for name, value in {"task": task, "datasets": [str(bait / "data.safetensors")] * 2}.items():
        entry |= {name: value} if name in entry else {}
    entry |= {"dataset": str(bait / "data.safetensors"), "space": str(bait / "space.txt")} if kind == "search" else {}
    (tmp_path / "study.json").write_text(json.dumps(entry))
    (tmp_path / "rows.csv").write_text(table)
    if kind == "minimum-size":  # whose table is of before it said what the task's criterion is
        with pytest.raises(FloppyError, match=r"hostile_mod|file\.npz|no/such"):
            draw_study(tmp_path)
    else:
        draw_study(tmp_path)
    assert not [each for each in WATCHED if "bait" in each or each == "hostile_mod"]
    assert any(each.endswith("rows.csv") for each in WATCHED)


@pytest.mark.parametrize("kind", KINDS)
def test_every_study_is_said_in_lines(kind: str) -> None:
    summary = json.loads((KINDS[kind] / "summary.json").read_text())
    lines = study_text({"summary": summary, "figure": "runs/figure.png"}).splitlines()
    assert lines[-1] == "runs/figure.png"
    assert len(lines) > 3
    assert not any(set(line) & set("{}[]") for line in lines)


@pytest.mark.parametrize(
    ("summary", "wanted"),
    [
        (3.14159, ["3.142"]),
        ([], [""]),
        ([[1, 2], [3, 4, 5]], ["1 to 2", "3, 4, 5"]),
        ({"all": [{"a": 1}, 2, None]}, ["all:", "  a: 1", "  2", "  -"]),
        ({"a_b": {}}, ["a b:"]),
    ],
)
def test_a_summary_of_any_form_is_said_in_lines(summary: Any, wanted: list[str]) -> None:
    assert study_text({"summary": summary, "figure": "f"}).splitlines() == [*wanted, "f"]
