"""The comparison of methods: what is run, what is kept of it, and what is drawn."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import hand_dataset

from floppy.errors import DivergedError, FloppyError
from floppy.studies import Compare, compare, read_rows, run_study
from floppy.studies import runs as runs_module
from floppy.studies.runs import BudgetedRun, Point, Run

METHODS = ("hades-f", "hades", "ppmo", "neuroevolution", "ppo")


class Runs:
    """Stands for `run`: seed `s` climbs to `10 s + 5` in two evaluations; remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[BudgetedRun, str]] = []

    def __call__(self, wanted: BudgetedRun, folder: Path) -> Run:
        self.asked.append((wanted, folder.name))
        seed = wanted.config.seed
        points = [Point(10, 100, 1.0, 10.0 * seed), Point(20, 250, 2.0, 10.0 * seed + 5)]
        score = {"mean": 10.0 * seed + 4, "sd": 1.0, "learners": 2, "episodes": 2, "seed": 0}
        return Run(points, 3.0, 20, 250, hand_dataset({"score": score}))


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs()
    monkeypatch.setattr(compare, "try_run", runs)
    return runs


def test_every_method_is_run_with_every_seed(runs: Runs, tmp_path: Path) -> None:
    run_study(Compare("cartpole", seeds=(0, 4), examples=6, budget="90steps"), tmp_path)
    assert [name for _, name in runs.asked] == [f"{method}-{seed}" for method in METHODS for seed in (0, 4)]
    configs = [wanted.config for wanted, _ in runs.asked]
    assert {config.outer_steps for config in configs} == {90}
    assert [config.examples for config in configs[::2]] == [6, 6, 6, 0, 0]
    assert [config.outer.name for config in configs[::2]] == ["hades", "hades", "ppmo", "hades", "ppmo"]
    assert "init_seed=4" in configs[1].distribution
    rows = read_rows(tmp_path)
    assert [(row["what"], row["outer_steps"], row["env_steps"], row["score"]) for row in rows[:6]] == [
        ("evaluation", 10, 100, 0.0), ("evaluation", 20, 250, 5.0), ("end", 20, 250, 4.0),
        ("evaluation", 10, 100, 40.0), ("evaluation", 20, 250, 45.0), ("end", 20, 250, 44.0),
    ]  # fmt: skip
    assert len(rows) == 5 * 2 * 3
    assert (tmp_path / "figure.png").stat().st_size > 1000
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary) == [*METHODS]
    assert summary["ppo"] == {
        "runs": 2,
        "interquartile_mean": 24.0,
        "interval": [4.0, 44.0],  # each in a quarter of all resamples
        "outer_steps": 20.0,
        "env_steps": 250.0,
        "seconds": 2.0,
    }


@pytest.mark.slow
@pytest.mark.parametrize("kept", [4, 5, 6])
def test_what_is_there_is_not_run_again(kept: int, runs: Runs, tmp_path: Path) -> None:
    """A cell of which a row is gone is run again, as a whole."""
    study = Compare("cartpole", methods=("ppo",), seeds=(0, 1))
    run_study(study, tmp_path)
    lines = (tmp_path / "rows.csv").read_text().splitlines(keepends=True)
    (tmp_path / "rows.csv").write_text("".join(lines[:kept]))
    run_study(study, tmp_path, resume=True)
    assert [name for _, name in runs.asked] == ["ppo-0", "ppo-1", "ppo-1"]
    assert "".join(lines) == (tmp_path / "rows.csv").read_text()


def test_a_run_that_diverges_is_recorded_and_the_study_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(wanted: BudgetedRun, folder: Path) -> Run:
        if wanted.config.seed == 1:
            raise DivergedError("Every fresh learner diverged.")
        return Runs()(wanted, folder)

    monkeypatch.setattr(runs_module, "run", run)
    rows = run_study(Compare("cartpole", methods=("ppo",), seeds=(0, 1, 2)), tmp_path)
    assert [row["score"] for row in rows if row["what"] == "end"] == [4.0, -np.inf, 24.0]
    summary = json.loads((tmp_path / "summary.json").read_text())["ppo"]
    assert [summary[name] for name in ("runs", "diverged", "interquartile_mean", "interval")] == [3, 1, None, None]


def row(what: str, method: str, seed: int, outer_steps: int, env_steps: int, score: float) -> dict[str, Any]:
    entry = {"method": method, "seed": seed, "what": what, "outer_steps": outer_steps, "env_steps": env_steps}
    return entry | {"score": score, "seconds": 1.0}


def test_curves_are_means_over_seeds() -> None:
    rows = [
        row("evaluation", "hades", seed, step, step * (100 + 10 * seed), score)
        for seed, scores in enumerate([(0.0, 1.0, 2.0), (4.0, 5.0, 6.0), (8.0, 9.0)])
        for step, score in enumerate(scores, start=1)
    ]
    rows += [row("end", "hades", seed, 3, 300, score) for seed, score in enumerate((2.0, 6.0, 9.0))]
    study, figure = Compare("cartpole", methods=("hades",)), Figure()
    study.draw(rows, figure)
    steps, environment = figure.axes
    # Each run, then the mean as far as all of them go.
    assert [list(line.get_xdata()) for line in steps.lines] == [[1, 2, 3], [1, 2, 3], [1, 2], [1, 2]]
    np.testing.assert_allclose(steps.lines[3].get_ydata(), [4.0, 5.0])
    np.testing.assert_allclose(environment.lines[3].get_xdata(), [110.0, 220.0])
    np.testing.assert_allclose(environment.lines[0].get_xdata(), [100.0, 200.0, 300.0])
    assert (steps.get_xlabel(), environment.get_xlabel()) == ("outer steps", "environment steps")
    assert (steps.get_xscale(), environment.get_xscale()) == ("linear", "log")
    assert [text.get_text() for text in steps.get_legend().get_texts()] == ["HaDES-R"]
    summary = study.summary(rows)["hades"]
    assert (summary["runs"], summary["interquartile_mean"]) == (3, pytest.approx(17 / 3))
    assert 2.0 <= summary["interval"][0] < 17 / 3 < summary["interval"][1] <= 9.0


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"task": "cartpool"}, "cartpool"),
        ({"methods": ("sarsa",)}, "method must be one of ppmo, .*, got 'sarsa'"),
        ({"methods": ("ppmo", "supervised")}, "Recipe supervised needs labelled examples"),
        ({"methods": ()}, "methods must have at least one value"),
        ({"seeds": ()}, "seeds must have at least one value"),
        ({"seeds": (0, -2)}, "seeds must be at least 0 .*, got -2"),
        ({"examples": -2}, "examples must be at least 0, got -2"),
        ({"budget": "5"}, "budget must be .*, got '5'"),
    ],
)
def test_what_cannot_be_compared_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Compare(**{"task": "cartpole"} | options).cells()


def test_the_command_line_refuses_in_one_sentence(runs: Runs, refused: Refused) -> None:
    refused(["compare", "cartpole", "--methods", "ppo", "ppo"], "method ppo, seed 0 twice")
    assert runs.asked == []
