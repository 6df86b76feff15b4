"""The study of warm starts: what runs begin with, and what the steps to a score say."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import hand_dataset

from floppy.dataset import save
from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distribution
from floppy.studies import WarmStart, run_study

TINY = "width=4:depth=1"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    save(hand_dataset({"learners": [parse_distribution(TINY).as_entry()]}), tmp_path / "a.safetensors")
    return tmp_path / "a.safetensors"


def row(start: str, seed: int, env_steps: int, score: float) -> dict[str, Any]:
    return {"task": "a", "start": start, "seed": seed, "env_steps": env_steps, "score": score}


ROWS = [
    row("random actions", 0, 0, 10.0),
    *(row("cold", seed, steps, score) for seed in (0, 1) for steps, score in ((100, 20.0), (200, 50.0))),
    *(row("warm", 0, steps, score) for steps, score in ((0, 45.0), (100, 50.0), (200, 60.0))),
    *(row("warm", 1, steps, score) for steps, score in ((0, 15.0), (100, 30.0), (200, 40.0))),
]


def test_steps_to_scores_by_hand() -> None:
    summary = WarmStart(Path("a")).summary(ROWS)
    (scores,) = summary["scores"]
    assert scores == {
        "task": "a",
        "random": 10.0,
        "clones": 30.0,
        "cold_end": 50.0,
        "cold_interval": [50.0, 50.0],
        "warm_end": 50.0,
        "warm_interval": scores["warm_interval"],
    }
    steps = {
        entry["share"]: (entry["score"], entry["cold_steps"], entry["warm_steps"]) for entry in summary["to_reach"]
    }
    assert steps == {
        0.25: (20.0, 100.0, 50.0),
        0.5: (30.0, 200.0, 50.0),
        0.75: (40.0, 200.0, 100.0),
        0.9: (46.0, 200.0, None),
        1.0: (50.0, 200.0, None),
    }
    assert [entry["warm_reached"] for entry in summary["to_reach"]] == [2, 2, 2, 1, 1]


def test_scores_to_be_reached_go_by_the_better_end() -> None:
    better = [each | {"score": 2 * each["score"]} if each["start"] == "warm" else each for each in ROWS]
    diverged = [each | {"score": -math.inf} if each["start"] == "cold" else each for each in ROWS]
    for rows, end, cold in ((better, 100.0, 50.0), (diverged, 50.0, None)):
        summary = WarmStart(Path("a")).summary(rows)
        assert summary["scores"][0]["cold_end"] == cold
        assert summary["to_reach"][-1] == {"task": "a", "share": 1.0, "score": end} | {
            "cold_steps": None,
            "cold_reached": 0,
            "warm_steps": None,
            "warm_reached": 1,
        }
        WarmStart(Path("a")).draw(rows, Figure())


def test_runs_that_are_no_better_than_random_actions_reach_nothing() -> None:
    rows = [each | {"score": 5.0} if each["start"] != "random actions" else each for each in ROWS]
    assert WarmStart(Path("a")).summary(rows)["to_reach"] == []


def test_runs_begin_with_clones_or_fresh_networks_and_differ_in_nothing_else(file: Path) -> None:
    study = WarmStart(file, env_steps=100_000, critic_steps=3, episodes=2)
    cold, warm = (study._run_of("ndcartpole/1", start, 1).config for start in ("cold", "warm"))
    outer: Any = warm.outer
    assert (cold.start, warm.start, outer.critic_warm_up) == ("", str(file), 3)
    assert dataclasses.replace(warm, start="", outer=cold.outer) == cold
    assert dataclasses.replace(outer, critic_warm_up=0) == cold.outer
    assert (warm.distribution, warm.encoder_layers) == (str(parse_distribution(TINY)), 2)


def test_it_runs_and_keeps_its_table(file: Path, tmp_path: Path) -> None:
    study = WarmStart(
        file, tasks=("ndcartpole/1", "gymnax/CartPole-v1?gravity=20"), env_steps=1, seeds=(0,), episodes=2
    )
    rows = run_study(study, tmp_path / "study")
    assert {each["start"] for each in rows} == {"random actions", "cold", "warm"}
    assert {each["task"] for each in rows} == set(study.tasks)
    assert next(each["env_steps"] for each in rows if each["start"] == "warm") == 0
    assert all(np.isfinite(each["score"]) for each in rows)
    assert (tmp_path / "study/figure.png").exists()


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"seeds": ()}, "seeds must have at least one value, got none"),
        ({"tasks": ("ndcartpole/2",)}, "it is for ndcartpole/1, not for ndcartpole/2"),
        ({"distribution": "width=4..8"}, "not width=4..8:.*: give --distribution with one width and depth"),
        ({"env_steps": 0}, "env_steps must be at least 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], named: str, file: Path) -> None:
    with pytest.raises(FloppyError, match=named):
        dataclasses.replace(WarmStart(file), **changes).cells()
