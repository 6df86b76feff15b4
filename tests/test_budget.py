"""The study of the dataset's size: what is run, what is kept of it, and what is drawn."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import hand_dataset

from floppy.cli import main
from floppy.distill import DistillConfig, DistillResult
from floppy.outer import HaDES
from floppy.studies import Budget, _runs, budget, read_rows
from floppy.studies._runs import Limited, Run

pytestmark = pytest.mark.usefixtures("quick_compile", "compiled_once")


class Runs:
    """Stands for `run`: the score is the number of examples, and the seed; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[Limited, str]] = []

    def __call__(self, limited: Limited, folder: Path) -> Run:
        self.asked.append((limited, folder.name))
        config = limited.config
        score = {"mean": float(config.examples + config.seed), "sd": 0.5, "learners": 2, "episodes": 2, "seed": 0}
        return Run(DistillResult(hand_dataset({"score": score}), 20, 250, 9.0, True, False), [], 3.0)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(budget, "run", runs)
    return runs


def test_every_size_is_run_and_baselines_once(runs: Runs, tmp_path: Path) -> None:
    words = f"budget cartpole --sizes 2 8 --seeds 0 4 --methods ppmo ppo --budget 90steps --out {tmp_path}"
    assert main([*words.split(), "--learners", "7", "--episodes", "3"]) == 0
    wanted = ["ppmo-2-0", "ppmo-2-4", "ppmo-8-0", "ppmo-8-4", "ppo-0-0", "ppo-0-4"]
    assert [name for _, name in runs.asked] == wanted
    configs = [limited.config for limited, _ in runs.asked]
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
    assert main(["budget", "cartpole", "--sizes", "4", "--seeds", "0", "--out", str(tmp_path)]) == 0
    assert [name for _, name in runs.asked] == ["hades-4-0", "ppmo-4-0", "neuroevolution-0-0", "ppo-0-0"]
    assert {(one.config.score_learners, one.config.score_episodes) for one, _ in runs.asked} == {(100, 10)}


def test_a_real_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    tiny = DistillConfig(
        "cartpole",
        outer_steps=1,
        evaluate_every=1,
        distribution="width=4:depth=1",
        selection_learners=2,
        outer=HaDES(population=4, initialisations=1, environments=1, horizon=5),
    )

    def recipe(task: str, name: str, *, examples: int, seed: int) -> DistillConfig:
        assert (task, name) == ("cartpole", "hades")
        return dataclasses.replace(tiny, examples=examples, seed=seed)

    monkeypatch.setattr(_runs, "recipe", recipe)
    words = "budget cartpole --sizes 3 --seeds 5 --methods hades --learners 2 --episodes 2 --json"
    assert main([*words.split(), "--out", str(tmp_path / "study")]) == 0
    said = capsys.readouterr()
    assert "0/1: method hades, examples 3, seed 5" in said.err
    assert "  step 1/1: score " in said.err
    (entry,) = json.loads(said.out)["summary"]["hades"]
    (row,) = read_rows(tmp_path / "study")
    assert entry == {
        "examples": 3,
        "runs": 1,
        "interquartile_mean": row["score"],
        "interval": [row["score"], row["score"]],
    }
    assert 1 <= row["score"] <= 500
    assert row["outer_steps"] == 1
    kept = json.loads((tmp_path / "study/cells/hades-3-5/config.json").read_text())
    assert (kept["examples"], kept["seed"], kept["score_learners"]) == (3, 5, 2)


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
    ("words", "wanted"),
    [
        ("cartpool", "cartpool"),
        ("cartpole --methods sarsa", "Method 'sarsa' was asked for: choose from ppmo"),
        ("cartpole --methods", "no sizes or no methods"),
        ("cartpole --sizes", "no sizes or no methods"),
        ("cartpole --sizes 4 0", "sizes = 0"),
        ("cartpole --sizes 4 4", "examples 4, seed 0 twice"),
        ("cartpole --methods ppo ppo", "method ppo, examples 0, seed 0 twice"),
        ("cartpole --seeds", "no seeds"),
        ("cartpole --learners -1", "learners = -1"),
        ("cartpole --episodes -1", "episodes = -1"),
        ("cartpole --budget soon", "Budget 'soon'"),
    ],
)
def test_what_cannot_be_measured_is_refused(words: str, wanted: str, runs: Runs, refused: Refused) -> None:
    refused(["budget", *words.split()], wanted)
    assert runs.asked == []
