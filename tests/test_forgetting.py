"""The study of forgetting: what every stage learns, what its shares say, and what is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import hand_dataset

import floppy
from floppy.cloning import AdamSteps, Cloning, FeatureSteps, GradientStep, ImplicitStep
from floppy.cloning.base import rates_shape
from floppy.dataset import DistilledDataset, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_policies, returns_of_policies
from floppy.fields import encode
from floppy.learner.mlp import LearnerDistribution
from floppy.studies import Forgetting, run_study
from floppy.studies.base import Row, plain_json
from floppy.studies.forgetting import ALONE, OWN, RANDOM, REPLAY, TOGETHER
from floppy.tasks.registry import make_task
from floppy.teach.codec import unpack
from floppy.teach.policies import train_in_stages

FIRST, SECOND = "ndcartpole/1", "ndcartpole/2"


def dataset_of(dimensions: int, cloning: Cloning | None = None, rate: float = 0.5) -> DistilledDataset:
    """Random examples of a cart-pole, for small networks."""
    learners = [dataclasses.asdict(LearnerDistribution(width=(4, 4), depth=(2, 2), initialiser=("xavier1",)))]
    sizes, cloning = (4 * dimensions, 2 * dimensions), cloning or GradientStep()
    card = {
        "task": f"ndcartpole/{dimensions}",
        "actions": {"kind": "discrete", "size": sizes[1]},
        "learners": learners,
        "cloning": encode(cloning),
    }
    return hand_dataset(card, sizes=sizes, inner_rate=np.full(rates_shape(cloning), rate))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, ...]:
    paths = tuple(tmp_path / f"{dimensions}.safetensors" for dimensions in (1, 2))
    for dimensions, path in enumerate(paths, 1):
        save(dataset_of(dimensions), path)
    return paths


def assert_same(weights: Any, others: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), weights, others)


# --- Learning in stages ---


def test_a_single_stage_is_ordinary_cloning() -> None:
    merged, key = floppy.merge([dataset_of(1), dataset_of(2)]), jax.random.key(0)
    staged, whole = train_in_stages(merged, key, [[FIRST, SECOND]], learners=3), floppy.train(merged, key, learners=3)
    jax.tree.map(np.testing.assert_array_equal, staged.weights, whole.weights)
    assert (staged.task, staged.blocks, staged.origin) == (whole.task, whole.blocks, None)
    assert len(staged) == 3


@pytest.mark.slow
@pytest.mark.parametrize(
    "cloning", [GradientStep(), ImplicitStep(), FeatureSteps(), AdamSteps("mse", steps=2)], ids=str
)
def test_a_stage_begins_where_the_one_before_ended(cloning: Cloning) -> None:
    merged = floppy.merge([dataset_of(1, cloning), dataset_of(2, cloning, rate=0.8)])
    lesson, key = unpack(merged), jax.random.key(3)
    network, (first, second) = lesson.network(), lesson.blocks
    weights = network.init(jax.random.split(key, 1)[0])
    for blocks in ((second,), (first, second)):
        weights = floppy.cloning.clone(cloning, network, lesson.distilled, weights, blocks=blocks)
    (policy,) = train_in_stages(merged, key, [[SECOND], [FIRST, SECOND]])
    assert_same(policy.weights, weights)
    (alone,) = train_in_stages(merged, key, [[SECOND], [FIRST]])
    differ = jax.tree.map(lambda one, other: not np.allclose(one, other), alone.weights, policy.weights)
    assert any(jax.tree.leaves(differ)) or isinstance(cloning, ImplicitStep)


def test_a_task_that_the_dataset_is_not_merged_of_cannot_be_learnt() -> None:
    with pytest.raises(FloppyError, match="of ndcartpole/1 alone, stages take several tasks: give a merged one"):
        train_in_stages(dataset_of(1), jax.random.key(0), [[FIRST]])
    with pytest.raises(FloppyError, match="not of ndcartpole/3: give a task that it has"):
        train_in_stages(floppy.merge([dataset_of(1), dataset_of(2)]), jax.random.key(0), [[FIRST], ["ndcartpole/3"]])


def test_returns_of_policies_are_what_their_score_sums_up() -> None:
    policies = floppy.train(floppy.merge([dataset_of(1), dataset_of(2)]), 0, learners=3)
    returns = returns_of_policies(policies, make_task(SECOND), episodes=2, seed=4)
    assert returns.shape == (3, 2)
    assert evaluate_policies(policies, task=SECOND, episodes=2, seed=4).mean == pytest.approx(returns.mean())


# --- The study ---


@pytest.mark.slow
def test_both_ways_begin_as_one(files: tuple[Path, ...], tmp_path: Path) -> None:
    study = Forgetting(files, learners=3, episodes=2)
    rows = run_study(study, tmp_path / "study")
    scores: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        scores.setdefault((row["way"], row["stage"]), []).append(row["score"])
    assert {cell: len(values) for cell, values in scores.items()} == {
        (RANDOM, 0): 2,
        (OWN, 0): 6,
        (ALONE, 1): 3,
        (REPLAY, 1): 3,
        (ALONE, 2): 6,
        (REPLAY, 2): 6,
        (TOGETHER, 2): 6,
    }
    assert scores[ALONE, 1] == scores[REPLAY, 1]
    assert [row["task"] for row in rows if row["way"] == TOGETHER] == [FIRST] * 3 + [SECOND] * 3
    assert (tmp_path / "study/figure.png").exists()
    assert run_study(study, tmp_path / "again") == rows
    assert run_study(dataclasses.replace(study, seed=1), tmp_path / "other") != rows


def test_what_the_stages_of_each_way_learn(files: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def remember(merged: DistilledDataset, key: jax.Array, stages: Any, learners: int) -> Any:
        asked.append(stages)
        return train_in_stages(merged, key, [], learners=learners)

    monkeypatch.setattr("floppy.studies.forgetting.train_in_stages", remember)
    monkeypatch.setattr("floppy.studies.forgetting.returns_of_policies", lambda *_, **__: np.zeros((2, 1)))
    study = Forgetting(files, learners=2)
    for cell in study.cells()[2:]:
        study.measure(cell, Path("unused"))
    both = [FIRST, SECOND]
    assert asked == [[[FIRST]], [[FIRST]], [[FIRST], [SECOND]], [[FIRST], both], [both]]


def table(changes: dict[tuple[str, int], dict[str, list[float]]] | None = None) -> list[Row]:
    """Rows of two learners and two tasks, whose shares are 0 at a score of 10 and 1 at 20."""
    cells = {
        (RANDOM, 0): {"a": [10.0], "b": [10.0]},
        (OWN, 0): {"a": [15.0, 25.0], "b": [20.0, 20.0]},
        (ALONE, 1): {"a": [20.0, 20.0]},
        (REPLAY, 1): {"a": [20.0, 20.0]},
        (ALONE, 2): {"a": [10.0, 15.0], "b": [20.0, 20.0]},
        (REPLAY, 2): {"a": [20.0, 20.0], "b": [15.0, 20.0]},
        (TOGETHER, 2): {"a": [20.0, 20.0], "b": [20.0, 20.0]},
    } | (changes or {})
    return [
        {"stage": stage, "way": way, "task": task, "learner": learner, "score": score}
        for (way, stage), tasks in cells.items()
        for task, scores in tasks.items()
        for learner, score in enumerate(scores)
    ]


def test_forgetting_by_hand() -> None:
    study = Forgetting((Path("a"), Path("b")))
    summary = study.summary(table())
    assert summary["tasks"] == [{"task": task, "random": 10.0, "own": 20.0} for task in ("a", "b")]
    assert [tuple(stage.values()) for stage in summary["stages"]] == [
        (ALONE, 1, 1.0, None),
        (REPLAY, 1, 1.0, None),
        (ALONE, 2, 1.0, 0.25),
        (REPLAY, 2, 0.75, 1.0),
    ]
    # By Student's t of one degree of freedom: 12.706 standard errors of half the difference of two.
    alone, replay, together = (summary["end"][way] for way in (ALONE, REPLAY, TOGETHER))
    assert (alone["mean"], alone["forgetting"]) == (0.625, 0.75)
    assert alone["interval"] == pytest.approx([0.625 - 12.7062 * 0.125, 0.625 + 12.7062 * 0.125], 1e-4)
    assert alone["forgetting_interval"] == pytest.approx([0.75 - 12.7062 * 0.25, 0.75 + 12.7062 * 0.25], 1e-4)
    assert (replay["mean"], replay["forgetting"], replay["forgetting_interval"]) == (0.875, 0.0, [0.0, 0.0])
    assert together == {"mean": 1.0, "interval": [1.0, 1.0]}


def test_the_figure_shows_the_shares() -> None:
    figure = Figure()
    Forgetting((Path("a"), Path("b"))).draw(table(), figure)
    alone, replay = ([text.get_text() for text in axes.texts] for axes in figure.axes[:2])
    assert alone == ["1.00", "0.25", "1.00", "1.00", "1.00"]
    assert replay == ["1.00", "1.00", "0.75", "1.00", "1.00"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["after a", "after b", "all at once"]


@pytest.mark.parametrize(
    ("cell", "scores"),
    [
        ((ALONE, 1), {"a": [-np.inf, -np.inf]}),
        ((ALONE, 2), {"a": [-np.inf, -np.inf], "b": [20.0, 20.0]}),
        ((OWN, 0), {"a": [-np.inf, -np.inf], "b": [20.0, 20.0]}),
        ((OWN, 0), {"a": [10.0, 10.0], "b": [20.0, 20.0]}),
    ],
    ids=["a first stage diverged", "a last stage diverged", "own diverged", "own learners like chance"],
)
def test_what_is_no_finite_number_is_null(cell: tuple[str, int], scores: dict[str, list[float]]) -> None:
    study, rows = Forgetting((Path("a"), Path("b"))), table({cell: scores})
    summary = plain_json(study.summary(rows))
    json.dumps(summary, allow_nan=False)
    assert (summary["end"][ALONE]["forgetting"], summary["end"][ALONE]["forgetting_interval"]) == (None, None)
    study.draw(rows, Figure())


def test_a_table_that_is_not_complete_is_summed_up() -> None:
    study, rows = Forgetting((Path("a"), Path("b"))), table()
    begun = [row for row in rows if row["stage"] < 2]
    summary = study.summary(begun)
    assert (len(summary["stages"]), summary["end"]) == (2, {})
    study.draw(begun, Figure())
    with pytest.raises(KeyError, match=OWN):
        study.summary(rows[:2])


@pytest.mark.parametrize("which", ["one", "twice", "merged"])
def test_datasets_that_cannot_be_merged_are_refused(which: str, files: tuple[Path, ...], tmp_path: Path) -> None:
    save(floppy.merge([dataset_of(1), dataset_of(2)]), tmp_path / "merged.safetensors")
    given, named = {
        "one": (files[:1], "two datasets at least, 1 given"),
        "twice": ((files[0], files[0]), "Two of the datasets are of ndcartpole/1"),
        "merged": ((*files, tmp_path / "merged.safetensors"), "merged itself"),
    }[which]
    with pytest.raises(FloppyError, match=named):
        run_study(Forgetting(given), tmp_path / "study")
    assert not (tmp_path / "study").exists()
