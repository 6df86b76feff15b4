"""The list of experiments: whether it is whole, and whether commands, datasets, tables and pages agree with it."""

import importlib
import itertools
import json
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from floppy.errors import FloppyError
from floppy.papers.experiments import Experiments, Page, experiments, parse
from floppy.tasks.registry import full_task_id

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs/results"
LIST = experiments()
PAGES = list(LIST.pages.values())
RUNS = [run for page in PAGES for run in page.runs]
DATASETS = [run for run in RUNS if not run.is_study]
SCALES = ("cpu", "paper")


def parse_command(words: list[str]) -> Any:
    """The command that the command line makes of some words, without running it."""
    from floppy.cli import COMMANDS

    return COMMANDS[words[0]].parse(words[1:])


def all_commands() -> Iterator[list[str]]:
    for name, scale in itertools.product(LIST.experiments, SCALES):
        yield from (step.words for step in LIST.steps(name, scale, "out"))
    for run in RUNS:
        yield run.words(run.out)
        yield from map(shlex.split, run.first)
        for options in LIST.pages[run.page].evaluations(run):
            yield ["evaluate", "a.safetensors", *shlex.split(options)]


@pytest.mark.thorough
@pytest.mark.slow
def test_every_command_parses() -> None:
    # MNIST's files are not here; digits have the same options. Many commands are the same ones.
    lines = {
        tuple(word.replace("fashion-mnist", "digits").replace("mnist", "digits") for word in words)
        for words in all_commands()
    }
    # Numbers make no other command of one.
    for words in {tuple(re.sub(r"\d+", "0", word) for word in words): words for words in sorted(lines)}.values():
        try:
            study = getattr(parse_command(list(words)), "study", None)
        except FloppyError as error:
            if "pip install" in str(error):  # of EnvPool and Box2D, which the development install leaves out
                continue
            raise
        if study and not hasattr(study, "dataset") and not hasattr(study, "datasets"):  # else it wants these files
            assert study.cells(), words


def test_every_cell_of_both_papers_is_there() -> None:
    tables = [(cell.paper, cell.id.partition("/")[0]) for cell in LIST.cells.values()]
    assert {table: tables.count(table) for table in tables} == {
        ("PPMO", "ppmo-table1"): 10,
        ("HaDES", "hades-table1"): 2,
        ("HaDES", "hades-table2"): 8,
        ("HaDES", "hades-table3"): 4,
        ("PPMO", "ppmo-table4"): 8,
        ("PPMO", "ppmo-table2"): 5,
    }


def test_cells_are_answered_by_runs_of_their_task_with_no_more_examples() -> None:
    for cell in LIST.cells.values():
        for run in LIST.runs(cell.run):
            assert full_task_id(run.task) == cell.task, cell.id
            assert run.examples <= cell.examples, cell.id
            assert run.cell == cell.id


def test_every_experiment_says_what_it_is_and_what_a_cpu_leaves_out() -> None:
    for name, experiment in LIST.experiments.items():
        assert experiment.source
        assert experiment.question
        assert experiment.out_of_reach or name == "ppmo-table1", name
        for scale in SCALES:
            folders = [step.words[-1] for step in LIST.steps(name, scale, "out") if step.words[0] == "distill"]
            assert len(set(folders)) == len(folders)


def test_cells_belong_to_a_command_of_their_experiment() -> None:
    """At the paper's scale, or on a CPU where that is one command for several cells."""
    for cell in LIST.cells.values():
        name, folder = cell.id.split("/")
        steps = [step for scale in SCALES for step in LIST.steps(name, scale, "")]
        assert folder in {Path(step.words[-1]).name for step in steps if step.words[0] == "distill"}, cell.id


def test_distillations_say_what_their_commands_say() -> None:
    for run in (run for run in RUNS if run.kind == "distill"):
        words = run.words("folder")
        options = dict(itertools.pairwise(words))
        assert full_task_id(words[1]) == full_task_id(run.task), run.id
        assert int(options.get("--examples", run.examples)) == run.examples, run.id
        assert int(options.get("--seed", 0)) == run.seed, run.id
        assert words[-2:] == ["--out", "folder"], run.id
        assert ("--teacher" in words or options.get("--recipe") == "taught") == run.taught, run.id


def test_every_dataset_is_of_a_run_and_the_other_way_round() -> None:
    kept = {str(run.dataset) for run in DATASETS if run.kept and run.kind == "distill"}
    assert kept == {str(path.relative_to(REPOSITORY)) for path in RESULTS.rglob("*.safetensors")}


def test_every_study_is_of_a_run_and_the_other_way_round() -> None:
    commands = {f"{run.page}-{run.name}": run.typed for run in RUNS if run.is_study}
    kept = {path.parent.name: json.loads(path.read_text())["command"] for path in RESULTS.glob("studies/*/study.json")}
    assert commands == kept


@pytest.mark.parametrize("page", [page for page in PAGES if page.tables != "studies"], ids=lambda page: page.name)
def test_every_row_is_of_a_run_and_the_other_way_round(page: Page) -> None:
    rows = page.rows(RESULTS)
    for row in rows:
        (run,) = (run for run in page.runs if run.owns(row))
        assert row.get("set", row.get("method", run.label)) == run.label
        assert int(row.get("examples", run.examples)) == run.examples
        assert int(row.get("distillation_seed", run.seed)) == run.seed
        published = row.get("paper", row.get("published"))
        assert published in ("", str(LIST.published(run, row.get("distribution", "card")))), run.name
    assert [run.name for run in page.runs if not any(run.owns(row) for row in rows)] == []
    known = {row["run"] for row in page.rows(RESULTS, "-curves")}
    assert known <= {run.name for run in page.runs}


def without_tables(path: Path) -> str:
    """A page before the script has written its tables."""
    between = re.compile(r"(<!-- table: written by [^>]* -->).*?(<!-- end of table -->)", re.DOTALL)
    text, count = between.subn(r"\1\2", path.read_text())
    assert count
    return text


def test_the_readme_has_one_table_that_shows_what_is_not_reached_too() -> None:
    table = re.findall(r"^\| .*", (REPOSITORY / "README.md").read_text(), re.MULTILINE)
    head, _, *rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert head == ["task", "examples", "floppy", "taught", "paper"]
    assert len(rows) <= 15
    assert {any("**" in cell for cell in row) for row in rows} == {True, False}


def test_pages_readme_and_faq_are_what_the_script_makes_of_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    results, tables = importlib.import_module("results"), importlib.import_module("_tables")
    shutil.copytree(RESULTS, tmp_path / "results", ignore=shutil.ignore_patterns("*.safetensors", "*.png"))
    others = {"README": REPOSITORY / "README.md", "FAQ": REPOSITORY / "docs/faq.md"}
    for name, path in others.items():
        (tmp_path / path.name).write_text(without_tables(path))
        monkeypatch.setattr(results, name, tmp_path / path.name)
    (tmp_path / "results/index.md").write_text(without_tables(RESULTS / "index.md"))
    monkeypatch.setattr(results, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(tables, "draw_examples", lambda runs, results: None)
    monkeypatch.setattr(tables, "draw_study", lambda folder: json.loads((folder / "summary.json").read_text()))
    for page in PAGES:
        path = tmp_path / f"results/{page.name}.md"
        path.write_text(path.read_text().split(results.MARK)[0] + results.MARK)
        results.write_page(page)
        assert path.read_text() == (RESULTS / path.name).read_text(), page.name
    results.write_papers()
    assert (tmp_path / "results/papers.md").read_text() == (RESULTS / "papers.md").read_text()
    for kind in tables.SUMMARY_TABLES:
        results.write_summary(kind)
    assert (tmp_path / "results/index.md").read_text() == (RESULTS / "index.md").read_text()
    for path in others.values():
        assert (tmp_path / path.name).read_text() == path.read_text()
    for page in (page for page in PAGES if page.tables in tables.COLUMNS):
        assert list(page.rows(RESULTS)[0]) == tables.COLUMNS[page.tables], page.name


SMALL = """
cell = [
  { id = "table/a", paper = "P", where = "Table 1", task = "t", examples = 2, published = 5, run = "page/a" },
]
[names]
letter = ["a", "b"]
[experiment.table]
source = "P, Table 1"
question = "What?"
cpu = ["run page/a --out {out}/a && show {out}/a", "tasks"]
paper = ["distill {letter} --out {out}/{letter}"]
[page.page]
tables = "ppmo"
evaluate = ["--learners 1"]
evaluation_seed = 3
runs = [
  { name = "a", task = "t", examples = 2, seeds = [0, 7], cell = "table/a", command = "distill t --out {out}" },
  { name = "b", task = "t", command = "import it-{seed}.npz --out {out}", evaluate = ["--learners 2"] },
]
"""


@pytest.fixture
def small() -> Experiments:
    return parse(SMALL)


def test_an_entry_is_a_run_for_each_of_its_seeds(small: Experiments) -> None:
    first, second = small.runs("page/a")
    assert (first.name, second.name) == ("a", "a-seed7")
    assert first.typed == "floppy distill t --out runs/page/a"
    assert second.typed == "floppy distill t --seed 7 --out runs/page/a-seed7"
    assert second.dataset == Path("docs/results/page/a-seed7.safetensors")
    (imported,) = small.runs("page/b")
    assert imported.typed == "floppy import it-0.npz --out runs/large/page/b.safetensors"
    page = small.pages["page"]
    assert [page.evaluations(run) for run in (first, imported)] == [
        ["--learners 1 --seed 3"],
        ["--learners 2 --seed 3"],
    ]
    assert [small.published(run) for run in (second, imported)] == [5, None]


def test_steps_are_commands_for_a_folder(small: Experiments) -> None:
    steps = small.steps("table", "cpu", "my runs")
    assert [step.words for step in steps] == [
        ["distill", "t", "--out", "my runs/a"],
        ["show", "my runs/a"],
        ["tasks"],
    ]
    assert [step.run for step in steps] == [small.runs("page/a")[0], None, None]
    assert [step.words[1] for step in small.steps("table", "paper", "out")] == ["a", "b"]


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('published = 5, run = "page/a"', 'published = 5, run = "page/c"', "names 'page/c', which is not in it"),
        ('cell = "table/a", com', 'cell = "table/c", com', "names 'table/c'"),
        ("run page/a --out", "run page/d --out", "names 'page/d'"),
        ('id = "table/a"', 'id = "other/a"', "names "),
        ('{ name = "b"', '{ name = "a"', "has 'page/a' twice"),
        ("examples = 2, seeds", "exampels = 2, seeds", "unknown keys exampels"),
        ("published = 5", 'published = "5"', "wrong type for published"),
    ],
)
def test_mistakes_in_the_list_are_refused(old: str, new: str, wanted: str) -> None:
    assert old in SMALL
    with pytest.raises(FloppyError, match=wanted):
        parse(SMALL.replace(old, new))
