"""Every score of both papers beside this project's: `floppy reproduce --cells`."""

import csv
import math
from pathlib import Path
from typing import Any

import pytest

from floppy.cli.main import main
from floppy.errors import FloppyError
from floppy.papers import reproduce
from floppy.papers.cells import answers, count_reached, rescored
from floppy.papers.experiments import Experiments, experiments, parse
from floppy.papers.reproduce import Json, Reproduce

RESULTS = Path(__file__).parents[1] / "docs/results"

LIST = """
cell = [
  { id = "table/a", paper = "P", where = "Table 1", task = "t", examples = 3, published = 20, run = "page/a", taught = "page/b" },
  { id = "table/b", paper = "P", where = "Table 1", task = "t", examples = 2, distribution = "lambda", published = -8, run = "page/c" },
  { id = "table/c", paper = "P", where = "Table 1", task = "t", examples = 2, published = 5 },
]
further = [
  { id = "table/d", paper = "P", where = "data", task = "t", examples = 2, published = 1, run = "page/a" },
]
[experiment.table]
source = "P, Table 1"
question = "What?"
cpu = []
paper = []
[page.page]
tables = "ppmo"
evaluate = ["--distribution card,lambda --learners 4"]
evaluation_seed = 3
runs = [
  { name = "a", task = "t", examples = 2, seeds = [0, 7], command = "distill t --out {out}" },
  { name = "b", task = "t", examples = 3, taught = true, command = "distill t --teacher x --out {out}" },
  { name = "c", task = "t", examples = 2, evaluate = ["--learners 2"], command = "distill t --examples 2 --out {out}" },
]
"""  # noqa: E501
COLUMNS = ["distribution", "mean", "sd", "learners", "ci_low", "ci_high", "env_steps", "seconds", "command"]
ROWS = [
    ("card", 10, 3, 4, 8, 12, 1e6, 60, "floppy distill t --out runs/page/a"),
    ("lambda", 99, 1, 4, 0, 0, 1e6, 60, "floppy distill t --out runs/page/a"),
    ("card", 16, 5, 4, 12, 20, 3e6, "", "floppy distill t --seed 7 --out runs/page/a-seed7"),
    ("card", 25, 2, 4, 24, 26, "", "", "floppy distill t --teacher x --out runs/page/b"),
    ("card", 0, 1, 4, 0, 0, "", "", "floppy distill t --examples 2 --out runs/page/c"),
    ("lambda", -9, 1, 4, -10, -8, "", "", "floppy distill t --examples 2 --out runs/page/c"),
]


@pytest.fixture
def small_list(monkeypatch: pytest.MonkeyPatch) -> Experiments:
    """A list of three scores in place of the papers'."""
    found = parse(LIST)
    monkeypatch.setattr(reproduce, "experiments", lambda: found)
    return found


def write_table(folder: Path, rows: list[Any]) -> Path:
    with (folder / "page.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, *rows])
    return folder


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder of tables, with the datasets of one run."""
    (tmp_path / "page").mkdir()
    for name in ("a", "a-seed7"):
        (tmp_path / f"page/{name}.safetensors").touch()
    return write_table(tmp_path, ROWS)


def never(words: list[str]) -> Json:
    raise AssertionError(f"nothing is to be run, got {words}")


def test_answers_are_those_of_the_learners_that_the_score_is_about(small_list: Experiments, tables: Path) -> None:
    result = Reproduce(cells=True, results=tables).carry_out(never)
    alone, taught, other, none = result["cells"]
    # Two seeds: the mean of theirs, and the least and greatest.
    assert (alone["mean"], alone["interval"], alone["seeds"], alone["seed_means"]) == (13, [10, 16], [0, 7], [10, 16])
    assert (alone["learners"], alone["env_steps"], alone["seconds"]) == (8, 2e6, 60)
    assert (alone["examples"], alone["taught"], alone["reached"]) == (2, False, False)
    # One seed: its interval over learners.
    assert (taught["mean"], taught["interval"], taught["examples"], taught["taught"]) == (25, [24, 26], 3, True)
    assert taught["reached"] and taught["env_steps"] is None
    assert (other["mean"], other["reached"]) == (-9, False)
    assert none == small_list.cells["table/c"].as_json()
    assert (result["reached"], result["count"]) == (1, 3)
    ((further),) = result["further"]
    assert (further["cell"], further["mean"], further["reached"]) == ("table/d", 13, True)


def test_one_run_answers_the_scores_of_all_learners(tables: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = parse(LIST.replace('run = "page/c"', 'run = "page/c", others = { card = 14 }, robust = "page/a"'))
    monkeypatch.setattr(reproduce, "experiments", lambda: found)
    result = Reproduce(cells=True, results=tables).carry_out(never)
    (_, _, own, _), (_, of_lambda, of_card) = result["cells"], result["further"]
    assert (own["cell"], own["run"], own["mean"]) == ("table/b", "page/c", -9)
    # Of the two seeds only the first one was scored by learners of lambda.
    assert [of_lambda[key] for key in ("cell", "published", "mean", "reached")] == ["table/b-lambda", -8, 99, True]
    assert [of_card[key] for key in ("cell", "published", "mean", "reached")] == ["table/b-card", 14, 13, False]
    assert (result["reached"], result["count"]) == (1, 3)


def test_every_learner_of_table_1_is_taught_by_one_dataset() -> None:
    found = answers(experiments(), RESULTS)
    alone = {name: found[name] for name in experiments().of_learners}
    assert len(alone) == 5 * 2 * 6
    assert count_reached(alone) == len(alone)


def test_they_are_printed_in_lines(small_list: Experiments, tables: Path) -> None:
    command = Reproduce(cells=True, results=tables)
    lines = command.text(command.carry_out(never)).splitlines()
    assert " ".join(lines[1].split()) == "table/a 2 20 13.0 10.0 to 16.0 (2 seeds), 2.0 M steps, 1 min"
    assert " ".join(lines[2].split()) == "table/a 3 20 25.0 24.0 to 26.0 (4 learners), taught"
    assert lines[4].split() == ["table/c", "2", "5", "-"]
    assert lines[-1] == "1 of the papers' 3 scores are at or above the published one."


def test_datasets_are_scored_again_once_where_they_are_kept(
    small_list: Experiments, tables: Path, tmp_path: Path
) -> None:
    asked: list[list[str]] = []

    def run_command(words: list[str]) -> Json:
        asked.append(words)
        return {"distributions": {"card": {"mean": 11.0 + len(asked), "sd": 4.0, "learners": 4}}}

    again = Reproduce(cells=True, rescore=True, results=tables, out=tmp_path / "out")
    result = again.carry_out(run_command)
    options = ["--distribution", "card", "--learners", "4", "--seed", "3"]
    assert asked == [["evaluate", str(tables / f"page/{name}.safetensors"), *options] for name in ("a", "a-seed7")]
    alone, *others = result["cells"]
    # Means 12 and 13, of four learners each with deviation 4; the table has deviations 3 and 5 of eight learners.
    error = math.sqrt((16 / 4 + 16 / 4) / 4 + (9 + 25) / 2 / 8)
    assert alone["again"]["mean"] == 12.5
    assert alone["again"]["standard_errors"] == pytest.approx((12.5 - 13) / error)
    assert "again 12.5, -0.2 standard errors" in again.text(result)
    assert not any("again" in row for row in others)
    resumed = Reproduce(cells=True, rescore=True, results=tables, out=tmp_path / "out", resume=True)
    assert resumed.carry_out(never) == result


def test_scores_without_any_spread_differ_by_no_standard_error(small_list: Experiments, tables: Path) -> None:
    sure = [(*row[:2], 0, *row[3:]) for row in ROWS]
    ((_, taught), *_) = answers(small_list, write_table(tables, sure)).values()
    assert rescored(taught, [{"mean": 25.0, "sd": 0.0, "learners": 4}]) == {"mean": 25.0, "standard_errors": 0.0}


@pytest.mark.parametrize("wrong", ["many", "nan", ""])
def test_a_damaged_table_is_refused(small_list: Experiments, tables: Path, wrong: str) -> None:
    write_table(tables, [(*ROWS[0][:1], wrong, *ROWS[0][2:])])
    with pytest.raises(FloppyError, match="A table has mean that is no number"):
        Reproduce(cells=True, results=tables).carry_out(never)


def test_all_scores_of_both_papers_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    result = Reproduce(cells=True, results=RESULTS).carry_out(never)
    assert {row["cell"] for row in result["cells"]} == experiments().cells.keys()
    assert result["count"] == 37
    known = answers(experiments(), RESULTS)
    assert result["reached"] == count_reached({name: known[name] for name in experiments().cells})
    for row in result["cells"]:
        assert row.get("reached", False) == (row.get("mean", -math.inf) >= row["published"])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("--cells", "--cells is about all scores: give it alone, and their folder: --results docs/results"),
        (f"ppmo-table1 --cells --results {RESULTS}", "give it alone, not ppmo-table1 as well"),
        (f"--rescore --results {RESULTS}", "--rescore is for --cells: give both"),
        ("--cells --results nowhere", "got nowhere"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(words: str, wanted: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", *words.split()]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert wanted in said.err
    assert said.err.count("\n") == 1
