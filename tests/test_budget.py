"""The study of the number of examples: what is run, what is kept of it, and what is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import hand_dataset
from tiny_runs import use_tiny_runs

from floppy.errors import DivergedError, FloppyError
from floppy.studies import Budget, budget, read_rows, run_study
from floppy.studies import runs as runs_module
from floppy.studies.runs import BudgetedRun, Run

pytestmark = pytest.mark.usefixtures("compiled_once")


class Runs:
    """Stands for `run`: the score is the number of examples, and the seed; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[BudgetedRun, str]] = []

    def __call__(self, wanted: BudgetedRun, folder: Path) -> Run:
        self.asked.append((wanted, folder.name))
        config = wanted.config
        score = {"mean": float(config.examples + config.seed), "sd": 0.5, "learners": 2, "episodes": 2, "seed": 0}
        return Run([], 3.0, 20, 250, hand_dataset({"score": score}))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(budget, "try_run", runs)
    return runs


def test_every_size_is_run_and_baselines_once(runs: Runs, tmp_path: Path) -> None:
    study = Budget("cartpole", (2, 8), ("ppmo", "ppo"), (0, 4), budget="90steps", learners=7, episodes=3)
    run_study(study, tmp_path)
    wanted = ["ppmo-2-0", "ppmo-2-4", "ppmo-8-0", "ppmo-8-4", "ppo-0-0", "ppo-0-4"]
    assert [name for _, name in runs.asked] == wanted
    configs = [wanted.config for wanted, _ in runs.asked]
    assert {(config.outer_steps, config.score_learners, config.score_episodes) for config in configs} == {(90, 7, 3)}
    assert [config.examples for config in configs] == [2, 2, 8, 8, 0, 0]
    rows = read_rows(tmp_path)
    assert [(row["method"], row["examples"], row["seed"], row["score"], row["sd"]) for row in rows] == [
        ("ppmo", 2, 0, 2.0, 0.5), ("ppmo", 2, 4, 6.0, 0.5), ("ppmo", 8, 0, 8.0, 0.5), ("ppmo", 8, 4, 12.0, 0.5),
        ("ppo", 0, 0, 0.0, 0.5), ("ppo", 0, 4, 4.0, 0.5),
    ]  # fmt: skip
    assert {(row["outer_steps"], row["env_steps"], row["compilation"]) for row in rows} == {(20, 250, 3.0)}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary == {
        "ppmo": [
            {"examples": 2, "runs": 2, "interquartile_mean": 4.0, "interval": [2.0, 6.0]},
            {"examples": 8, "runs": 2, "interquartile_mean": 10.0, "interval": [8.0, 12.0]},
        ],
        "ppo": [{"examples": 0, "runs": 2, "interquartile_mean": 2.0, "interval": [0.0, 4.0]}],
    }


def test_the_recipe_says_how_scores_are_taken_where_nothing_is_asked_for(runs: Runs, tmp_path: Path) -> None:
    run_study(Budget("cartpole", sizes=(4,), seeds=(0,)), tmp_path)
    assert [name for _, name in runs.asked] == ["hades-4-0", "ppmo-4-0", "neuroevolution-0-0", "ppo-0-0"]
    assert {(one.config.score_learners, one.config.score_episodes) for one, _ in runs.asked} == {(100, 10)}


@pytest.mark.thorough
@pytest.mark.slow
def test_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    use_tiny_runs(monkeypatch)
    (row,) = run_study(Budget("cartpole", (2,), ("ppmo",), (5,), learners=2, episodes=2), tmp_path)
    assert "  step 1/3: score " in capsys.readouterr().err
    assert 1 <= row["score"] <= 500
    assert row["outer_steps"] == 3
    (entry,) = json.loads((tmp_path / "summary.json").read_text())["ppmo"]
    assert (entry["interquartile_mean"], entry["interval"]) == (row["score"], [row["score"]] * 2)
    kept = json.loads((tmp_path / "cells/ppmo-2-5/config.json").read_text())
    assert (kept["examples"], kept["seed"], kept["score_learners"]) == (2, 5, 2)


def test_a_run_that_diverges_is_recorded_and_the_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(wanted: BudgetedRun, folder: Path) -> Run:
        if wanted.config.examples == 2:
            raise DivergedError("Every fresh learner diverged.")
        return Runs()(wanted, folder)

    monkeypatch.setattr(runs_module, "run", run)
    rows = run_study(Budget("cartpole", (2, 4), ("hades", "ppo"), (1,)), tmp_path)
    assert [(row["examples"], row["score"], row["outer_steps"]) for row in rows] == [
        (2, -np.inf, 0), (4, 5.0, 20), (0, 1.0, 20),
    ]  # fmt: skip
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["hades"] == [
        {"examples": 2, "runs": 1, "diverged": 1, "interquartile_mean": None, "interval": None},
        {"examples": 4, "runs": 1, "interquartile_mean": 5.0, "interval": [5.0, 5.0]},
    ]
    assert (tmp_path / "figure.png").exists()


def test_sizes_make_curves_and_baselines_lines_across() -> None:
    def rows(method: str, examples: int, *scores: float) -> list[dict[str, Any]]:
        return [{"method": method, "examples": examples, "seed": i, "score": s} for i, s in enumerate(scores)]

    table = [*rows("hades", 4, 1.0, 3.0), *rows("hades", 16, 5.0, 5.0), *rows("ppo", 0, 9.0)]
    figure = Figure()
    Budget("cartpole", sizes=(4, 16)).draw(table, figure)
    (axes,) = figure.axes
    curve, across = axes.lines[0], axes.lines[-1]
    np.testing.assert_array_equal(curve.get_xdata(), [4, 16])
    np.testing.assert_allclose(curve.get_ydata(), [2.0, 5.0])
    np.testing.assert_array_equal(across.get_ydata(), [9.0, 9.0])
    assert sorted(text.get_text() for text in axes.get_legend().get_texts()) == ["HaDES-R", "PPO"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "16"]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"task": "cartpool"}, "cartpool"),
        ({"methods": ("sarsa",)}, "method must be one of ppmo, .*, got 'sarsa'"),
        ({"methods": ()}, "methods must have at least one value"),
        ({"sizes": ()}, "sizes must have at least one value"),
        ({"seeds": ()}, "seeds must have at least one value"),
        ({"sizes": (4, 0)}, "sizes must be at least 1, got 0"),
        ({"learners": -1}, "learners must be at least 0, got -1"),
        ({"episodes": -1}, "episodes must be at least 0, got -1"),
        ({"seeds": (0, -1)}, "seeds must be at least 0"),
        ({"budget": "soon"}, "budget must be .*, got 'soon'"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Budget(**{"task": "cartpole"} | options).cells()


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        ("cartpole --sizes 4 4", "method hades, examples 4, seed 0 twice"),
        ("cartpole --methods ppo ppo", "method ppo, examples 0, seed 0 twice"),
    ],
)
def test_the_command_line_refuses_in_one_sentence(words: str, wanted: str, runs: Runs, refused: Refused) -> None:
    refused(["budget", *words.split()], wanted)
    assert runs.asked == []
