"""The study of families: which networks play, what their shares say, and what is refused."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import hand_dataset

from floppy.dataset import save
from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distribution
from floppy.studies import Families, run_study
from floppy.studies.families import FAMILIES

TINY = "width=4:depth=1"


def dataset_for(path: Path, *learners: str) -> Path:
    save(hand_dataset({"learners": [parse_distribution(each).as_entry() for each in learners]}), path)
    return path


def row(family: str, score: float, learner: int = 0) -> dict[str, Any]:
    return {"dataset": "a", "family": family, "on_card": False, "learner": learner, "score": score}


def test_a_family_that_the_dataset_is_for_plays_as_its_own(tmp_path: Path) -> None:
    file = dataset_for(tmp_path / "a.safetensors", TINY)
    rows = run_study(Families((file,), families=(TINY, "width=8:depth=1"), learners=3, episodes=2), tmp_path / "study")
    scores = {family: [each["score"] for each in rows if each["family"] == family] for family in (TINY, "own")}
    assert scores[TINY] == scores["own"]
    assert len(scores["own"]) == 3
    assert {each["family"]: each["on_card"] for each in rows} == {
        "random actions": False,
        "own": True,
        TINY: True,
        "width=8:depth=1": False,
    }
    assert (tmp_path / "study/figure.png").exists()


def test_a_mixture_shares_its_learners(tmp_path: Path) -> None:
    file = dataset_for(tmp_path / "a.safetensors", TINY, "width=8:depth=1")
    study = Families((file,), families=(TINY,), learners=4, episodes=1)
    own, first = (study.measure({"dataset": str(file), "family": family}, tmp_path) for family in ("own", TINY))
    half = dataclasses.replace(study, learners=2).measure({"dataset": str(file), "family": TINY}, tmp_path)
    scores = [[row["score"] for row in rows] for rows in (own, first, half)]
    assert list(map(len, scores)) == [4, 4, 2]
    assert scores[0][:2] == scores[2]


def test_shares_by_hand() -> None:
    study = Families((Path("a"),), families=("half", "twice"))
    rows = [row("random actions", 10.0), row("own", 20.0), row("own", 40.0, 1)]
    rows += [row("half", 20.0), row("half", 20.0, 1), row("twice", 40.0), row("twice", 60.0, 1)]
    shares = {entry["family"]: entry["share"] for entry in study.summary(rows)["a"]}
    assert shares == {"random actions": None, "own": 1.0, "half": 0.5, "twice": 2.0}
    worse = [each | {"score": 5.0} if each["family"] == "own" else each for each in rows]
    assert {entry["share"] for entry in study.summary(worse)["a"]} == {None}
    diverged = [each | {"score": -np.inf} if each["family"] == "twice" else each for each in rows]
    (entry,) = [entry for entry in study.summary(diverged)["a"] if entry["family"] == "twice"]
    assert (entry["mean"], entry["share"], entry["interval"]) == (None, None, None)
    for table in (worse, diverged):
        study.draw(table, Figure())


def test_the_usual_families_are_networks() -> None:
    assert len({parse_distribution(each) for each in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"families": ()}, "families must have at least one value, got none"),
        ({"families": ("widht=3",)}, "'widht=3' is unknown"),
        ({"learners": 1}, "learners must be at least 2"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes: dict[str, Any], named: str, tmp_path: Path) -> None:
    file = dataset_for(tmp_path / "a.safetensors", TINY)
    with pytest.raises(FloppyError, match=named):
        dataclasses.replace(Families((file,)), **changes).cells()
