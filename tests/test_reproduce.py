"""`floppy reproduce`: the commands behind a table or figure, one after the other, and the figures beside them."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from floppy.errors import FloppyError
from floppy.papers import reproduce
from floppy.papers.experiments import Experiments, experiments, parse
from floppy.papers.reproduce import Json, Reproduce, run_through

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs/results"
DATASET = RESULTS / "cartpole/lambda-1d-k2.safetensors"

LIST = f"""
[[cell]]
id = "two/one"
paper = "Paper"
where = "Table 9"
task = "ndcartpole/1"
examples = 2
published = 200
distribution = "lambda"
others = {{ xavier = 20 }}
run = "page/one"

[experiment.two]
source = "Paper, Table 9"
question = "What is asked?"
cpu = [
  "run page/one --out {{out}}/one && evaluate {{out}}/one/dataset.safetensors --distribution all",
  "transfer {{out}}/one/dataset.safetensors --out {{out}}/study",
]
paper = ["distill cartpole --recipe ppmo-paper --out {{out}}/one"]
out_of_reach = "most of it"

[experiment.shown]
source = "Paper, Figure 1"
question = "What does it look like?"
cpu = ["show {DATASET}"]
paper = ["show {DATASET}"]

[page.page]
tables = "cartpole"
runs = [
  {{ name = "one", task = "cartpole", cell = "two/one", command = "distill cartpole --examples 2 --out {{out}}" }},
]
"""
SCORE = {"mean": 12.5, "sd": 1.5}


@pytest.fixture(autouse=True)
def small_list(monkeypatch: pytest.MonkeyPatch) -> Experiments:
    """A list of two experiments in place of the papers'."""
    found = parse(LIST)
    monkeypatch.setattr(reproduce, "experiments", lambda: found)
    return found


class Runner:
    """Invents the results of commands in place of running them."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.results: dict[str, Any] = {
            "distill": {"score": SCORE},
            "evaluate": {"distributions": {"lambda": {"mean": 400.0, "sd": 2.0}}},
            "transfer": {"figure": "figure.png", "summary": {}},
        }

    def __call__(self, words: list[str]) -> Json:
        self.asked.append(words)
        if words[0] not in self.results:
            raise FloppyError(f"{words[0]} failed")
        result: Json = self.results[words[0]]
        return result


@pytest.fixture
def tables(tmp_path: Path) -> Path:
    """A folder of this project's tables."""
    folder = tmp_path / "tables"
    folder.mkdir()
    command = "floppy distill cartpole --examples 2 --out runs/page/one"
    with (folder / "page.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["distribution", "mean", "command"])
        writer.writerows([["lambda", 1, "floppy distill cartpole --out other"], ["lambda", 300, command]])
    return folder


def test_without_a_name_they_are_listed() -> None:
    command, runner = Reproduce(), Runner()
    result = command.carry_out(runner)
    assert [each["name"] for each in result["experiments"]] == ["two", "shown"]
    assert "two              Paper, Table 9: What is asked?" in command.text(result)
    assert not runner.asked


def test_commands_are_printed_and_nothing_is_run(tmp_path: Path, tables: Path) -> None:
    command, runner = Reproduce("two", dry_run=True, out=tmp_path / "out", results=tables), Runner()
    lines = command.text(command.carry_out(runner)).splitlines()
    assert lines[2] == f"floppy distill cartpole --examples 2 --out {tmp_path}/out/one"
    assert lines[6:] == [
        "published | recorded by this project | here",
        "  one, distribution lambda: 200 | 300.0 | -",
        "  one, distribution xavier: 20 | - | -",
        "",
        "Out of a CPU's reach: most of it.",
    ]
    assert not runner.asked
    assert not (tmp_path / "out").exists()


def test_published_figures_need_no_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even those of the folder that one happens to be in."""
    monkeypatch.chdir(tmp_path)
    result = Reproduce("two", dry_run=True).carry_out(Runner())
    assert [(row["published"], row["recorded"], row["here"]) for row in result["figures"]] == [
        (200, None, None),
        (20, None, None),
    ]


def test_commands_are_run_and_their_scores_stand_beside_the_published(tmp_path: Path, small_list: Experiments) -> None:
    command, runner = Reproduce("two", out=tmp_path / "out"), Runner()
    result = command.carry_out(runner)
    assert runner.asked == [step.words for step in small_list.steps("two", "cpu", tmp_path / "out")]
    # The evaluation says more than the distillation's own score; nothing was said about xavier.
    assert [(row["what"], row["here"]) for row in result["figures"]] == [
        ("one, distribution lambda", 400.0),
        ("one, distribution xavier", None),
    ]
    again = Reproduce("two", out=tmp_path / "out", resume=True).carry_out(runner)
    assert len(runner.asked) == 3  # nothing is run twice
    said = command.text(again)
    assert "  score 12.5 ± 1.5\n" in said
    assert "  lambda 400.0 ± 2.0\n" in said
    assert "  one, distribution lambda: 200 | - | 400.0\n" in said


def test_the_papers_scale_runs_other_commands_for_the_same_figures(tmp_path: Path) -> None:
    runner = Runner()
    result = Reproduce("two", scale="paper", out=tmp_path / "out").carry_out(runner)
    assert [words[:-2] for words in runner.asked] == [["distill", "cartpole", "--recipe", "ppmo-paper"]]
    assert [(row["published"], row["here"]) for row in result["figures"]] == [(200, 12.5), (20, None)]
    assert result["out_of_reach"] == ""


def test_a_failure_ends_it_and_resume_goes_on_from_there(tmp_path: Path) -> None:
    out, runner = tmp_path / "out", Runner()
    transfer = runner.results.pop("transfer")
    (out / "study").mkdir(parents=True)  # what it leaves behind
    with pytest.raises(FloppyError, match="transfer failed"):
        Reproduce("two", out=out, resume=True).carry_out(runner)
    runner.results["transfer"] = transfer
    runner.asked.clear()
    result = Reproduce("two", out=out, resume=True).carry_out(runner)
    assert runner.asked == [["transfer", f"{out}/one/dataset.safetensors", "--out", f"{out}/study", "--resume"]]
    assert result["commands"][0]["result"] == {"score": SCORE}


@pytest.mark.parametrize(("code", "said"), [(130, ""), (0, '{"interrupted": true}')])
def test_ctrl_c_ends_it_and_what_it_cut_short_has_no_result(code: int, said: str, tmp_path: Path) -> None:
    """A distillation that saved what it had ends well, and the next command must not begin."""

    def main(words: list[str]) -> int:
        print(said)
        return code

    with pytest.raises(KeyboardInterrupt):
        Reproduce("two", out=tmp_path / "out").carry_out(run_through(main))
    assert not (tmp_path / "out/results.jsonl").exists()


def test_a_command_that_fails_is_named() -> None:
    with pytest.raises(FloppyError, match="`floppy show x` failed: mend what it says above, then give --resume"):
        run_through(lambda words: 2)(["show", "x"])


def test_the_command_line_runs_commands_through_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from floppy.cli import main

    assert main(["reproduce", "shown", "--out", str(tmp_path / "out"), "--json"]) == 0
    said = capsys.readouterr()
    ((command,), figures) = (json.loads(said.out)[name] for name in ("commands", "figures"))
    assert command["result"]["examples"] == 2
    assert figures == []
    assert said.err == f"1/1: floppy show {DATASET}\n"


@pytest.mark.parametrize("scale", ["cpu", "paper"])
def test_the_figures_of_a_table_are_all_shown(
    scale: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reproduce, "experiments", experiments)
    result = Reproduce("ppmo-table1", scale=scale, dry_run=True, results=RESULTS).carry_out(Runner())
    cells = [cell for cell in experiments().cells.values() if cell.id.startswith("ppmo-table1/")]
    wanted = {
        f"{cell.id.partition('/')[2]}, distribution {distribution}": score
        for cell in cells
        for distribution, score in cell.figures().items()
    }
    assert len(wanted) == 60
    assert {row["what"]: row["published"] for row in result["figures"]} == wanted
    assert all(row["recorded"] is not None for row in result["figures"])


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("ppmo-table9", "name must be one of two, shown, got 'ppmo-table9'"),
        ("two --scale gpu", "scale"),
        ("two --results nowhere", "got nowhere"),
        ("two --out taken", "taken exists: give --resume to go on with it"),
        ("two --out taken --resume", "results.jsonl cannot be read"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    words: str, wanted: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from floppy.cli import main

    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/results.jsonl").write_text("{\n")
    assert main(["reproduce", *words.split()]) == 2
    said = capsys.readouterr()
    assert wanted in said.err
    assert (said.out, said.err.count("\n")) == ("", 1)


def test_a_result_that_was_cut_short_is_dropped(tmp_path: Path) -> None:
    lines = [json.dumps({"command": name, "result": {"score": 1}}) for name in ("floppy a", "floppy b")]
    path = tmp_path / "results.jsonl"
    path.write_text("\n".join(lines)[:-3])
    asked: list[list[str]] = []

    def run_one(words: list[str]) -> Json:
        asked.append(words)
        return {"score": float("nan"), "name": "b"}

    found = reproduce.run_all([["a"], ["b"]], tmp_path, resume=True, run_one=run_one)
    assert asked == [["b"]]
    assert found["floppy a"] == {"score": 1}
    first, last = path.read_text().splitlines()
    assert first == lines[0]
    assert json.loads(last, parse_constant=pytest.fail)["result"] == {"score": None, "name": "b"}


@pytest.mark.parametrize("text", ["[" * 100_000, "[1]", '{"command": 1}', '{"command": "a", "result": 3}', "\xff"])
def test_what_is_no_list_of_results_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").write_bytes(text.encode("latin-1") + b"\n")
    with pytest.raises(FloppyError, match=r"results.jsonl cannot be read"):
        reproduce.read_results(tmp_path)
