"""The study of cost: a real one, tiny, and the arithmetic on a table by hand."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from tiny_runs import use_tiny_runs

from floppy.errors import DivergedError, FloppyError
from floppy.recipes import ppo_baseline, recipe
from floppy.studies import Cost, cost, read_rows, run_study
from floppy.studies import runs as runs_module
from floppy.studies.cost import break_even
from floppy.studies.runs import BudgetedRun, Run

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with tiny recipes."""
    out = tmp_path_factory.mktemp("cost") / "study"
    with pytest.MonkeyPatch.context() as patch:
        use_tiny_runs(patch)
        run_study(Cost("cartpole", seed=7, seeds=(1,), every=1, examples=2), out)
    return out


@pytest.mark.thorough
@pytest.mark.slow
def test_everything_is_measured_in_one_run(study: Path) -> None:
    rows = read_rows(study)
    cells = list(dict.fromkeys((row["method"], row["seed"]) for row in rows))
    assert cells == [("distillation", 7), ("ppo", 1)]
    places = {
        cell: [(row["what"], row["outer_steps"], row["env_steps"]) for row in rows if row["seed"] == cell[1]]
        for cell in cells
    }
    assert places["distillation", 7] == [
        ("evaluation", 1, 16), ("evaluation", 2, 32), ("evaluation", 3, 48), ("end", 3, 48),
        ("random", "", ""), ("clones", "", 0), ("clones", "", 0),
    ]  # fmt: skip
    assert places["ppo", 1] == places["distillation", 7][:4]
    assert [row["agents"] for row in rows if row["what"] == "clones"] == [1, 1000]
    assert all(row["seconds"] > 0 for row in rows if row["what"] != "random")
    assert all(row["compilation"] >= 0 for row in rows if row["what"] in ("end", "clones"))
    assert all(1 <= row["score"] <= 500 for row in rows if row["what"] != "clones")


@pytest.mark.thorough
def test_the_summary_comes_from_the_table(study: Path) -> None:
    summary = json.loads((study / "summary.json").read_text())
    assert summary == Cost("cartpole", seed=7, seeds=(1,), every=1, examples=2).summary(read_rows(study))
    assert summary["ppo"]["agents"] == 1
    assert summary["ppo"]["in_total"]["env_steps"] == 48
    assert summary["ppo"]["in_total"]["break_even"]["env_steps"] == 2  # 48 steps for the dataset as for each agent
    assert (study / "figure.png").stat().st_size > 1000


@pytest.mark.thorough
def test_runs_stay_in_the_folders_of_their_cells(study: Path) -> None:
    assert sorted(path.name for path in (study / "cells").iterdir()) == ["distillation-7", "ppo-1"]
    kept = json.loads((study / "cells/distillation-7/config.json").read_text())
    assert (kept["seed"], kept["examples"]) == (7, 2)


# --- What is run.


def test_ppo_is_evaluated_more_often_and_with_fewer_episodes() -> None:
    plain = ppo_baseline("cartpole")
    often, seconds = Cost("cartpole", every=5, ppo_budget="9s")._ppo(3)
    assert seconds == 9.0
    assert (plain.evaluate_every, plain.selection_learners) == (25, 64)
    assert (often.evaluate_every, often.selection_learners, often.seed) == (5, 12, 3)
    assert dataclasses.replace(often, evaluate_every=25, selection_learners=64, seed=0, early_stop=True) == plain


def test_the_distillation_is_as_asked_for() -> None:
    study = Cost("cartpole", examples=5, recipe="hades", budget="70s", seed=4)
    assert study._distillation() == (
        recipe("cartpole", "hades", examples=5, seed=4, early_stop=False),
        70.0,
    )


# --- What the table says.


def end(method: str, seed: int, seconds: float, env_steps: int, score: float) -> dict[str, Any]:
    took = {"outer_steps": 9, "env_steps": env_steps, "seconds": seconds, "compilation": 2.0 + seed}
    return {"method": method, "seed": seed, "what": "end", "score": score} | took


def at(seed: int, seconds: float, env_steps: int, score: float) -> dict[str, Any]:
    return end("ppo", seed, seconds, env_steps, score) | {"what": "evaluation", "compilation": ""}


def hand_rows(clones: float = 120.0, random: float = 20.0) -> list[dict[str, Any]]:
    """A dataset for 100 s and 5000 steps; an agent that arrives at 12 s, and one that never does."""
    dataset = {"method": "distillation", "seed": 0}
    return [
        at(0, 50.0, 2500, 500.0) | dataset,  # of the distillation, on the way
        end("distillation", 0, 100.0, 5000, clones),
        dataset | {"what": "random", "score": random},
        dataset | {"what": "clones", "agents": 1, "seconds": 0.5, "compilation": 3.0, "env_steps": 0},
        dataset | {"what": "clones", "agents": 1000, "seconds": 1.0, "compilation": 4.0, "env_steps": 0},
        at(0, 6.0, 200, 109.9), at(0, 12.0, 400, 110.0), at(0, 18.0, 600, 50.0), end("ppo", 0, 18.0, 600, 100.0),
        at(1, 6.0, 200, 20.0), at(1, 20.0, 600, 30.0), end("ppo", 1, 20.0, 600, 40.0),
    ]  # fmt: skip


STUDY = Cost("cartpole", share=0.9, seeds=(0, 1))


def test_costs_by_hand() -> None:
    summary = STUDY.summary(hand_rows())
    assert summary["scores"] == {"random": 20.0, "clones": 120.0, "target": 110.0, "ppo": 70.0}
    assert summary["dataset"] == {"seconds": 100.0, "env_steps": 5000.0, "compilation": 2.0}
    assert summary["clones"] == [
        {"agents": 1, "seconds": 0.5, "compilation": 3.0},
        {"agents": 1000, "seconds": 1.0, "compilation": 4.0},
    ]
    ppo = summary["ppo"]
    assert (ppo["agents"], ppo["reached"], ppo["compilation"]) == (2, 1, 3.0)
    # The second agent counts with all it took: 16 s and 500 steps in the mean.
    assert ppo["to_target"] == {
        "seconds": 16.0,
        "env_steps": 500.0,
        "clone_is_faster": 32.0,
        "dataset_costs_agents": {"seconds": 6.25, "env_steps": 10.0},
        "break_even": {"seconds": 7, "env_steps": 11},  # 100 + 7 · 0.5 < 7 · 16; 5000 < 11 · 500
    }
    assert ppo["in_total"]["seconds"] == 19.0
    assert ppo["in_total"]["env_steps"] == 600.0
    assert ppo["in_total"]["break_even"] == {"seconds": 6, "env_steps": 9}
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_target_lies_between_random_and_clones_where_returns_are_negative() -> None:
    summary = STUDY.summary(hand_rows(clones=-100.0, random=-500.0))
    assert summary["scores"]["target"] == pytest.approx(-140.0)
    assert summary["ppo"]["reached"] == 2


def test_that_clones_learnt_nothing_is_said() -> None:
    assert "no better than random actions" in STUDY.summary(hand_rows(clones=19.0, random=20.0))["note"]
    assert "note" not in STUDY.summary(hand_rows(clones=21.0, random=20.0))


def test_a_study_without_agents_yet_can_be_drawn() -> None:
    rows = hand_rows()[:5]
    summary, figure = STUDY.summary(rows), Figure()
    assert summary["scores"]["target"] == 110.0
    assert "ppo" not in summary
    STUDY.draw(rows, figure)
    assert [len(axes.lines) for axes in figure.axes] == [1, 1]


def test_the_figure_crosses_at_the_break_even() -> None:
    figure = Figure()
    STUDY.draw(hand_rows(), figure)
    for axes, most in zip(figure.axes, (7, 11), strict=True):
        assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
        cloned, arrived, whole = (line.get_ydata() for line in axes.lines)
        agents = np.asarray(axes.lines[0].get_xdata())
        assert agents[0] == 1.0
        crossing = agents[np.argmax(cloned < arrived)]
        assert most - 1 <= crossing < most + 1
        assert np.all(arrived < whole)
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "dataset and clones",
        "PPO to 110",
        "PPO to its end",
    ]


@pytest.mark.parametrize(
    ("costs", "wanted"),
    [
        ((100.0, 1.0, 11.0), 11),  # with 10 agents both cost 110
        ((100.0, 0.0, 33.0), 4),
        ((0.5, 0.1, 1.0), 1),
        ((100.0, 2.0, 2.0), None),
        ((100.0, 3.0, 2.0), None),
    ],
)
def test_break_even_by_hand(costs: tuple[float, float, float], wanted: int | None) -> None:
    assert break_even(*costs) == wanted


def test_break_even_by_its_slow_twin() -> None:
    random = np.random.default_rng(0)
    for dataset, clone, agent in random.integers(1, [200, 5, 30], (50, 3)):
        cheaper = (n for n in range(1, 1000) if dataset + n * clone < n * agent)
        assert break_even(float(dataset), float(clone), float(agent)) == next(cheaper, None)


# --- Refusals.


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"task": "cartpool"}, "cartpool"),
        ({"recipe": "ppo"}, "recipe must be one of ppmo, .*, got 'ppo'"),
        ({"examples": -1}, "examples must be at least 0, got -1"),
        ({"budget": "5"}, "budget must be .*, got '5'"),
        ({"ppo_budget": "5"}, "budget must be .*, got '5'"),
        ({"share": 0.0}, "share must be above 0 and at most 1, got 0.0"),
        ({"share": 1.5}, "share must be above 0 and at most 1, got 1.5"),
        ({"every": 0}, "every must be at least 1, got 0"),
        ({"seeds": ()}, "seeds must have at least one value"),
        ({"seeds": (-1,)}, "seeds must be at least 0 .*, got -1"),
        ({"seed": 2**32}, "seed must be .*, got 4294967296"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Cost(**{"task": "cartpole"} | options).cells()


def test_the_command_line_refuses_in_one_sentence(refused: Refused) -> None:
    refused(["cost", "cartpole", "--seeds", "1", "1"], "seed 1 twice")


@pytest.mark.thorough
def test_a_study_that_was_cut_short_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, study: Path) -> None:
    """Cells that are there are not run again: `run` would fail."""
    asked: list[int] = []

    def broken(wanted: BudgetedRun, folder: Path) -> Run:
        asked.append(wanted.config.seed)
        raise KeyboardInterrupt

    monkeypatch.setattr(cost, "run", broken)
    monkeypatch.setattr(cost, "try_run", broken)
    whole = Cost("cartpole", seed=7, seeds=(1, 2))
    with pytest.raises(KeyboardInterrupt):
        run_study(whole, tmp_path)
    (tmp_path / "rows.csv").write_bytes((study / "rows.csv").read_bytes())
    with pytest.raises(KeyboardInterrupt):
        run_study(whole, tmp_path, resume=True)
    assert asked == [7, 2]


def test_an_agent_that_diverges_counts_as_one_that_never_arrived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(wanted: BudgetedRun, folder: Path) -> Run:
        raise DivergedError("Every fresh learner diverged.")

    monkeypatch.setattr(runs_module, "run", diverges)
    (row,) = STUDY.measure({"method": "ppo", "seed": 2}, tmp_path)
    assert (row["what"], row["score"], row["seconds"]) == ("end", -np.inf, 0.0)
    summary = STUDY.summary([*hand_rows(), {"method": "ppo", "seed": 2} | row])
    assert (summary["ppo"]["agents"], summary["ppo"]["reached"]) == (3, 1)
    assert summary["scores"]["ppo"] is None
