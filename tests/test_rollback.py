"""The study of encoder rollback."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from tiny_runs import TINY

from floppy.cli.main import main
from floppy.dataset import load
from floppy.errors import DivergedError, FloppyError
from floppy.run.config import DistillConfig
from floppy.studies import Rollback, read_rows, read_study, rollback, run_study
from floppy.studies import runs as runs_module
from floppy.studies.runs import BudgetedRun, Run

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A real one, first PPO, then full distillation."""
    folder = tmp_path_factory.mktemp("rollback") / "study"
    run_study(Rollback(TINY, (2, 0)), folder)
    return folder


@pytest.mark.slow
def test_every_level_is_a_run_of_its_own(study: Path) -> None:
    summary = json.loads((study / "summary.json").read_text())
    assert summary["task"] == "ndcartpole/1"
    assert [(level["encoder_layers"], level["examples"]) for level in summary["levels"]] == [(2, 0), (0, 2)]
    for level in summary["levels"]:
        dataset = load(study / level["dataset"])
        assert dataset.examples == level["examples"]
        card_score = dataset.card.score
        assert card_score is not None
        assert level["score"] == {name: card_score[name] for name in ("mean", "sd", "ci95", "learners", "episodes")}
        assert (level["outer_steps"], level["env_steps"], level["finished"]) == (3, 48, True)
        wanted = {"layers": level["encoder_layers"], "of": 2} if level["encoder_layers"] else None
        assert dataset.card.encoder == wanted


def test_the_whole_configuration_is_read_back(study: Path, tmp_path: Path) -> None:
    assert read_study(study) == Rollback(TINY, (2, 0))
    text = (study / "study.json").read_text()
    (tmp_path / "study.json").write_text(text.replace('"kind": "PPMO"', '"kind": "Sarsa"'))
    with pytest.raises(FloppyError, match=r"holds no study \(outer's kind must be one of .*PPMO.*, got 'Sarsa'"):
        read_study(tmp_path)


def test_a_study_is_not_resumed_with_another_configuration(study: Path) -> None:
    rows = read_rows(study)
    assert run_study(Rollback(TINY, (2, 0)), study, resume=True) == rows
    with pytest.raises(FloppyError, match="differs in config: give"):
        run_study(Rollback(dataclasses.replace(TINY, seed=1), (2, 0)), study, resume=True)


def test_all_levels_are_run_by_default_from_the_whole_network_down() -> None:
    cells = [(cell["encoder_layers"], cell["examples"]) for cell in Rollback(TINY).cells()]
    assert cells == [(2, 0), (1, 2), (0, 2)]


def test_every_run_has_the_budget_and_may_diverge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BudgetedRun] = []

    def diverges(wanted: BudgetedRun, folder: Path) -> Run:
        asked.append(wanted)
        raise DivergedError("Every fresh learner diverged.")

    monkeypatch.setattr(runs_module, "run", diverges)
    run_study(Rollback(TINY, budget="9s"), tmp_path)
    assert [(each.config.encoder_layers, each.config.examples, each.seconds) for each in asked] == [
        (2, 0, 9.0), (1, 2, 9.0), (0, 2, 9.0),
    ]  # fmt: skip
    assert {dataclasses.replace(each.config, encoder_layers=0, examples=2) for each in asked} == {TINY}
    levels = json.loads((tmp_path / "summary.json").read_text())["levels"]
    assert [(level["score"], level["dataset"], level["finished"]) for level in levels] == [(None, None, False)] * 3


def test_the_figure_shows_scores_over_levels_in_order() -> None:
    def row(level: int, score: float) -> dict[str, Any]:
        return {"encoder_layers": level, "score": score, "low": score - 1, "high": score + 2}

    figure = Figure()
    Rollback(TINY).draw([row(3, 9.0), row(2, -np.inf), row(0, 4.0), row(1, 5.0)], figure)
    (axes,) = figure.axes
    np.testing.assert_array_equal(axes.lines[0].get_xdata(), [0, 1, 3])
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [4.0, 5.0, 9.0])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("encoder layers", "mean return")


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"levels": (3,)}, "levels must be at most the network's 2 layers, got 3"),
        ({"levels": (-1,)}, "levels must be at least 0, got -1"),
        (
            {"config": DistillConfig("cartpole", distribution="random-depth")},
            "one distribution of fixed width and depth",
        ),
        ({"config": dataclasses.replace(TINY, encoder_layers=1)}, "encoder_layers must be 0 .*, got 1"),
        ({"budget": "soon"}, "budget must be .*, got 'soon'"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Rollback(**{"config": TINY} | options).cells()


def test_a_recipe_of_several_runs_is_refused(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollback, "try_run", lambda *_: pytest.fail("the command was accepted: work began"))
    refused(["rollback", "cartpole", "--recipe", "taught"], "rollback measures recipes of one run, and recipe taught")


def test_the_command_line_has_the_options_of_distill(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[DistillConfig] = []

    def stands_for_run(wanted: BudgetedRun, folder: Path) -> Run:
        asked.append(wanted.config)
        return Run([], 0.0, 7, 70)

    monkeypatch.setattr(rollback, "try_run", stands_for_run)
    words = [
        "rollback",
        "cartpole",
        "--outer",
        "hades",
        "--examples",
        "4",
        "--population",
        "6",
        "--levels",
        "2,0",
        "--budget",
        "7steps",
        "--json",
    ]
    assert main([*words, "--out", str(tmp_path / "study")]) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["study"], result["task"]) == ("rollback", "ndcartpole/1")
    assert [(level["encoder_layers"], level["env_steps"]) for level in result["levels"]] == [(2, 70), (0, 70)]
    assert {(config.outer.name, config.outer_steps) for config in asked} == {("hades", 7)}
    study: Any = read_study(tmp_path / "study")
    assert (study.config.outer.population, study.config.examples) == (6, 4)


@pytest.mark.parametrize("levels", ["1,x", "-1", "9", ","])
def test_levels_that_are_none_are_refused(levels: str, refused: Refused) -> None:
    refused(["rollback", "cartpole", f"--levels={levels}"], "levels")
