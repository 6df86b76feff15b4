"""The tables and figures of the papers, and the commands behind them."""

import csv
import dataclasses
import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from floppy import cli
from floppy.cli import COMMANDS, StudyRun, main
from floppy.distill import DistillConfig, DistillResult, distill
from floppy.outer import PPMO
from floppy.studies.reproduce import EXPERIMENTS, SCALES, Experiment

REPOSITORY = Path(__file__).parents[1]

Runs = list[list[str]]

TWO = Experiment(
    "Paper, Table 9",
    "What is asked?",
    cpu=(
        "distill cartpole --examples 2 --out {out}/one",
        "evaluate {out}/one/dataset.safetensors --distribution all",
        "transfer {out}/one/dataset.safetensors --out {out}/study",
    ),
    paper=("distill cartpole --recipe ppmo-paper --out {out}/one",),
    out_of_reach="most of it",
)
QUICK_RUN = DistillConfig(
    "cartpole", outer_steps=1, outer=PPMO(learners=1, environments=1, horizon=4), selection_learners=1,
    selection_episodes=1, score_learners=1, score_episodes=1,
)  # fmt: skip
SCORE = {"mean": 12.5, "sd": 1.5}


@pytest.fixture(autouse=True)
def experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(EXPERIMENTS, "two", TWO)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    """The commands that are run, in place of running them; their results are invented."""
    asked: Runs = []
    results: dict[str, Any] = {
        "distill": {"score": SCORE},
        "evaluate": {"distributions": {"lambda": {"mean": 400.0, "sd": 2.0}}},
        "transfer": {"figure": "figure.png", "summary": {}},
    }

    def stub(words: list[str]) -> int:
        asked.append(words)
        print(json.dumps(results[words[0]]))
        return 0

    monkeypatch.setattr(cli, "main", stub)
    return asked


@pytest.fixture
def results(tmp_path: Path) -> Path:
    """A folder of tables with published figures."""
    folder = tmp_path / "results"
    folder.mkdir()
    command = "floppy distill cartpole --examples 2 --out runs/elsewhere"
    with (folder / "a.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["distribution", "mean", "paper", "command"])
        writer.writerows([["lambda", 300, 200, command], ["xavier", 30, 20, command], ["ortho1", 3, "", command]])
        writer.writerow(["lambda", 1, 2, "floppy distill cartpole --examples 3 --out runs/other"])
    (folder / "b.csv").write_text("step,score\n1,2\n")
    return folder


def test_every_command_of_the_table_parses() -> None:
    # MNIST's files are not here; digits have the same options. Many experiments share commands.
    lines = {
        tuple(word.replace("fashion-mnist", "digits").replace("mnist", "digits") for word in words)
        for name, experiment in EXPERIMENTS.items()
        for scale in SCALES
        for words in experiment.commands(scale, Path("out"))
        if name != "two"
    }
    for words in lines:
        command: Any = COMMANDS[words[0]].parse(list(words[1:]))
        if isinstance(command, StudyRun) and words[0] not in ("transfer", "multitask"):  # which want their datasets
            assert command.study.cells(), words


def test_every_experiment_says_what_it_is_and_what_a_cpu_leaves_out() -> None:
    for name, experiment in EXPERIMENTS.items():
        assert experiment.source
        assert experiment.question
        assert experiment.cpu
        assert experiment.paper
        assert experiment.out_of_reach or name in ("ppmo-table1", "two"), name
        for scale in SCALES:
            commands = experiment.commands(scale, Path("out"))
            folders = [words[-1] for words in commands if words[0] == "distill"]
            assert len(set(folders)) == len(folders)
            assert all(words[-2] == "--out" for words in commands if words[0] == "distill")


@pytest.mark.parametrize("scale", SCALES)
def test_published_figures_are_found_in_this_projects_tables(scale: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ppmo-table1", "--dry-run", "--scale", scale, "--results", str(REPOSITORY / "docs/results"), "--json"]
    assert main(["reproduce", *words]) == 0
    found = {row["what"]: row["published"] for row in json.loads(capsys.readouterr().out)["figures"]}
    with (REPOSITORY / "docs/results/cartpole.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["paper"] and row["set"] in ("lambda", "robust")]
    wanted = {
        f"{row['dimensions']}d-k{row['examples']}, distribution {row['distribution']}": float(row["paper"])
        for row in rows
    }
    assert len(wanted) == 60
    assert found == wanted


@pytest.mark.parametrize("name", ["hades-table1", "hades-table3", "hades-fig1", "ppmo-table2"])
def test_distillations_on_a_cpu_are_those_of_the_results(name: str) -> None:
    """Or their published figures are not found."""
    recorded: set[tuple[str, ...]] = set()
    for path in (REPOSITORY / "docs/results").glob("*.csv"):
        with path.open(newline="") as file:
            recorded |= {tuple(row["command"].split()[1:-2]) for row in csv.DictReader(file) if "command" in row}
    commands = EXPERIMENTS[name].commands("cpu", Path("out"))
    distilled = {tuple(words[:-2]) for words in commands if words[0] == "distill"}
    assert distilled
    assert distilled <= recorded


def test_without_a_name_they_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["reproduce", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["experiments"]] == list(EXPERIMENTS)
    assert main(["reproduce"]) == 0
    assert "two              Paper, Table 9: What is asked?" in capsys.readouterr().out


def test_commands_are_printed_and_nothing_is_run(
    runs: Runs, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["two", "--dry-run", "--out", str(tmp_path / "out"), "--results", str(results)]
    assert main(["reproduce", *words]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2] == f"floppy distill cartpole --examples 2 --out {tmp_path}/out/one"
    assert lines[6:] == [
        "published | in docs/results | here",
        "  one, distribution lambda: 200 | 300.0 | -",
        "  one, distribution xavier: 20 | 30.0 | -",
        "",
        "Out of a CPU's reach: most of it.",
    ]
    assert not runs
    assert not (tmp_path / "out").exists()


def test_commands_are_run_and_their_scores_stand_beside_the_published(
    runs: Runs, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["reproduce", "two", "--out", str(out), "--results", str(results)]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert runs == [[*command, "--json"] for command in TWO.commands("cpu", out)]
    assert [entry["command"] for entry in result["commands"]] == [shlex.join(["floppy", *each[:-1]]) for each in runs]
    # The evaluation says more than the distillation's own score; nothing was said about xavier.
    assert [(row["what"], row["here"]) for row in result["figures"]] == [
        ("one, distribution lambda", 400.0),
        ("one, distribution xavier", None),
    ]
    assert main([*words, "--resume"]) == 0
    assert len(runs) == 3  # nothing is run twice
    said = capsys.readouterr().out
    assert "  score 12.5 ± 1.5\n" in said
    assert "  lambda 400.0 ± 2.0\n" in said
    assert "  one, distribution lambda: 200 | 300.0 | 400.0\n" in said


def test_the_papers_scale_runs_other_commands_for_the_same_figures(
    runs: Runs, results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["two", "--scale", "paper", "--out", str(tmp_path / "out"), "--results", str(results), "--json"]
    assert main(["reproduce", *words]) == 0
    result = json.loads(capsys.readouterr().out)
    assert [words[:-3] for words in runs] == [["distill", "cartpole", "--recipe", "ppmo-paper"]]
    assert [(row["published"], row["here"]) for row in result["figures"]] == [(200.0, 12.5), (20.0, None)]
    assert result["out_of_reach"] == ""


def test_a_failure_ends_it_and_resume_goes_on_from_there(
    runs: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out, stub = tmp_path / "out", cli.main

    def fails(words: list[str]) -> int:
        (out / "study").mkdir(parents=True, exist_ok=True)
        return 2 if words[0] == "transfer" else stub(words)

    with monkeypatch.context() as patch:
        patch.setattr(cli, "main", fails)
        assert main(["reproduce", "two", "--out", str(out)]) == 2
    assert "failed: mend what it says above, then give --resume" in capsys.readouterr().err
    runs.clear()
    assert main(["reproduce", "two", "--out", str(out), "--resume", "--json"]) == 0
    assert runs == [["transfer", f"{out}/one/dataset.safetensors", "--out", f"{out}/study", "--resume", "--json"]]
    assert json.loads(capsys.readouterr().out)["commands"][0]["result"] == {"score": SCORE}


def test_ctrl_c_ends_it(runs: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "main", lambda words: 130)
    assert main(["reproduce", "two", "--out", str(tmp_path / "out")]) == 130


def test_a_distillation_that_ctrl_c_cut_short_has_no_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends well, and the next command must not begin."""

    def interrupted(*asked: Any, **options: Any) -> DistillResult:
        return dataclasses.replace(distill(QUICK_RUN), finished=False, interrupted=True)

    monkeypatch.setattr(cli, "distill_with_progress", interrupted)
    assert main(["reproduce", "two", "--out", str(tmp_path / "out")]) == 130
    said = capsys.readouterr().err
    assert "1/3: " in said
    assert "2/3: " not in said
    assert not (tmp_path / "out/results.jsonl").exists()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ppmo-table9", "is no table or figure: choose from hades-fig1, "),
        ("two --scale gpu", "scale"),
        ("two --results nowhere", "nowhere is no folder"),
        ("two --out taken", "taken exists: give --resume to go on with it"),
        ("two --out taken --resume", "results.jsonl cannot be read"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    words: str,
    wanted: str,
    runs: Runs,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/results.jsonl").write_text("{")
    assert main(["reproduce", *words.split()]) == 2
    said = capsys.readouterr()
    assert wanted in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)
    assert not runs
