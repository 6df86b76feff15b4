"""Ensembles: the average by hand, who is in which, their scores, and the study."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import ContinuousProbe, ObservationProbe, hand_dataset

import floppy
from floppy.cli.main import main
from floppy.cloning import GradientStep
from floppy.dataset import DistilledDataset, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import Evaluation, PerLearner, _clones
from floppy.learner.ensemble import EnsembleNetwork, assemble
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.spaces import Continuous, Discrete
from floppy.studies import Ensemble, read_rows
from floppy.tasks.base import Task
from floppy.teach.codec import unpack

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier1",))


def dataset_of(task: str = "ndcartpole/1", **tensors: Any) -> DistilledDataset:
    return hand_dataset({"task": task, "learners": [dataclasses.asdict(TINY)]}, **tensors)


@pytest.fixture
def file(tmp_path: Path) -> str:
    save(dataset_of(), tmp_path / "a.safetensors")
    return str(tmp_path / "a.safetensors")


# --- The average ---


@pytest.mark.thorough
def test_probabilities_are_averaged_not_logits() -> None:
    logits = jnp.log(jnp.array([[[0.9, 0.1]], [[0.2, 0.8]], [[0.1, 0.9]]])) + jnp.array([5.0, -3.0, 0.0])[:, None, None]
    np.testing.assert_allclose(jnp.exp(Discrete(2).average(logits)), [[0.4, 0.6]], rtol=1e-5)
    # One policy that is sure of itself has no more than its share, however large its logits.
    sure = jnp.array([[0.0, 1000.0], [1.0, 0.0], [1.0, 0.0]])
    assert jnp.exp(Discrete(2).average(sure)[0]) == pytest.approx(2 / 3 * np.e / (1 + np.e), rel=1e-4)


def test_means_of_continuous_actions_are_averaged() -> None:
    means = jnp.array([[[1.0, -2.0]], [[3.0, 6.0]]])
    np.testing.assert_allclose(Continuous(2, (-1.0,) * 2, (1.0,) * 2).average(means), [[2.0, 2.0]])


def test_policies_in_a_row_become_ensembles() -> None:
    layers = ({"kernel": jnp.arange(24.0).reshape(6, 2, 2), "bias": jnp.arange(12.0).reshape(6, 2)},)
    log_std = jnp.array([[0.0, 1.0], [2.0, 3.0], [4.0, 8.0], [0.0, 0.0], [3.0, 3.0], [6.0, 9.0]])
    whole = assemble(Weights(layers, (jnp.zeros(6),), log_std), 3)
    np.testing.assert_array_equal(whole.layers[0]["bias"][1], [[6, 7], [8, 9], [10, 11]])
    np.testing.assert_array_equal(whole.log_std, [[2, 4], [3, 4]])


def test_the_outputs_of_trained_policies_as_one() -> None:
    # Of random widths and depths, for each of which the ensemble has to keep its own.
    distribution = LearnerDistribution((2, 4), (1, 2), ("xavier1",))
    policies = floppy.train(dataset_of(), jax.random.key(0), learners=3, distribution=distribution)
    observations = jnp.asarray(np.random.default_rng(1).normal(size=(5, 4)), jnp.float32)
    each = floppy.policy_outputs(policies, jnp.tile(observations, (3, 1, 1)))
    together = floppy.ensemble_outputs(policies, observations)
    assert together.shape == (5, 2)
    np.testing.assert_allclose(jnp.exp(together), jax.nn.softmax(each).mean(axis=0), rtol=1e-4)
    for shape in ((5, 3), (4,), (3, 5, 4), ()):
        with pytest.raises(FloppyError, match=r"must be \[k, 4\], the same for all policies, got \["):
            floppy.ensemble_outputs(policies, jnp.zeros(shape))


# --- Scores ---


def clones(task: Task, dataset: DistilledDataset, members: int, learners: int) -> tuple[LayeredNetwork, Weights]:
    """As an evaluation trains them, from key 0."""
    network = LayeredNetwork(TINY, task.observation_shape, task.actions)
    evaluation = Evaluation(task, network, GradientStep(), learners, 1, ensemble=members)
    train = jax.jit(_clones, static_argnums=0)
    return network, train(evaluation, jnp.arange(learners), unpack(dataset).distilled, jax.random.key(0), PerLearner())[
        0
    ]


CUES = hand_dataset(sizes=(1, 2), observations=[[1.0], [-1.0]], targets=[[-2.0, 2.0], [2.0, -2.0]], inner_rate=0.1)


def test_an_ensemble_is_the_average_of_learners_of_an_evaluation_without_and_errs_less() -> None:
    """What they were drawn with is noise beside what they have learnt, and cancels out."""
    network, singles = clones(ObservationProbe(), CUES, 1, 64)
    _, groups = clones(ObservationProbe(), CUES, 16, 4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7), groups, assemble(singles, 16))
    assert np.unique(np.asarray(singles.layers[0]["kernel"])[:, 0, 0]).size == 64

    def right(network: Any, weights: Weights) -> float:
        outputs = jax.jit(jax.vmap(network.apply, (0, None)))(weights, jnp.array([[1.0], [-1.0]]))
        return float(jnp.mean(jnp.argmax(outputs, axis=-1) == jnp.array([[1, 0]])))

    alone, together = right(network, singles), right(EnsembleNetwork(network), groups)
    assert 0.5 < alone < 0.9
    assert together > alone + 0.08


@pytest.mark.thorough
def test_an_ensemble_of_continuous_policies_acts_by_the_mean_action() -> None:
    task = ContinuousProbe()
    dataset = hand_dataset({"actions": task.actions.as_entry()}, sizes=(2, 1), inner_rate=1e-9)
    network, weights = clones(task, dataset, 4, 1)
    seen = jnp.array([[1.0, -1.0]])
    mean = EnsembleNetwork(network).apply(jax.tree.map(lambda leaf: leaf[0], weights), seen)[0, 0]
    layers = [jax.tree.map(lambda leaf, i=i: leaf[0, i], weights.layers) for i in range(4)]
    each = [network.apply(Weights(own, (jnp.zeros(()),) * 2, weights.log_std[0]), seen)[0, 0] for own in layers]
    assert np.std(each) > 0.1
    assert mean == pytest.approx(np.mean(each), rel=1e-4)
    evaluation = Evaluation(task, network, GradientStep(), learners=1, episodes=1, greedy=True, ensemble=4)
    returns = evaluation.returns(unpack(dataset).distilled, None, jax.random.key(0))
    assert returns[0, 0] == pytest.approx(-((float(mean) - 0.5) ** 2), rel=1e-3)


@pytest.mark.thorough
def test_ensembles_play_host_tasks_too() -> None:
    score = floppy.evaluate(
        dataset_of("gymnasium/CartPole-v1"), distributions="card", learners=2, episodes=2, ensemble=3
    )["card"]
    assert (score.learners, score.episodes, score.diverged) == (2, 2, 0)
    assert 8 <= score.mean <= 500


@pytest.mark.parametrize("size", [0, 1001])
def test_ensembles_of_none_or_too_many_are_refused(size: int) -> None:
    with pytest.raises(FloppyError, match=f"^ensemble must be at least 1 and at most 1000, got {size}\\.$"):
        floppy.evaluate(dataset_of(), ensemble=size)


# --- The command line ---


@pytest.mark.thorough
def test_the_commands(file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", file, "--learners", "2", "--episodes", "2", "--ensemble", "3"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["ensemble"] == 3
    assert result["distributions"]["card"]["learners"] == 2
    assert main(words) == 0
    assert "2 ensembles of 3 fresh learners" in capsys.readouterr().out
    policies = str(tmp_path / "policies.safetensors")
    assert main(["train", file, "--learners", "2", "--ensemble", "--save", policies]) == 0
    assert "2 fresh policies, one ensemble, for ndcartpole/1" in capsys.readouterr().out
    loaded = floppy.load_policies(policies)
    assert loaded.is_ensemble
    assert loaded.weights.layers[0]["kernel"].shape == (2, 4, 4)
    assert main(["train", file, "--save", policies, "--overwrite"]) == 0
    assert not floppy.load_policies(policies).is_ensemble


# --- The study ---


def test_the_study_compares_every_size_with_single_learners(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[int] = []

    def remember(self: Evaluation, *_: Any, **__: Any) -> np.ndarray:
        asked.append(self.ensemble)
        assert self.network.distribution == LearnerDistribution((8, 8))  # type: ignore[attr-defined]
        assert self.greedy
        assert (self.learners, self.episodes) == (4, 2)
        return 10.0 * self.ensemble + np.array([[0.0, 2.0], [1.0, 3.0], [2.0, 4.0], [3.0, np.nan]])

    monkeypatch.setattr(Evaluation, "of_lesson", remember)
    words = ["ensemble", file, "--sizes", "2", "4", "--repeats", "4", "--episodes", "2", "--distribution", "width=8"]
    words.append("--greedy")
    assert main([*words, "--json", "--out", str(tmp_path / "study")]) == 0
    assert asked == [1, 2, 4]
    single, pair, four = json.loads(capsys.readouterr().out)["summary"][file]
    assert (single["size"], pair["size"], four["size"]) == (1, 2, 4)
    # The episode without a return counts as the worst of its cell.
    assert single["mean"] == pytest.approx(10 + np.mean([1, 2, 3, 1.5]))
    assert "gain" not in single
    assert pair["gain"] == pytest.approx(10)
    low, high = four["gain_interval"]
    assert four["gain"] == pytest.approx(30)
    assert 28 < low < 30 < high < 32
    low, high = pair["interval"]
    assert low < pair["mean"] < high
    assert len(read_rows(tmp_path / "study")) == 3 * 4
    assert (tmp_path / "study/figure.png").exists()


def test_the_figure_has_a_point_per_size_beside_the_mean_of_single_learners() -> None:
    study = Ensemble((Path("a"), Path("b")), sizes=(1, 8))
    rows = [
        {"dataset": name, "size": size, "repeat": repeat, "score": size * 100 + repeat}
        for name in ("a", "b")
        for size in (1, 8)
        for repeat in (0, 1)
    ]
    figure = Figure()
    study.draw(rows, figure)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        points, *_ = axes.lines
        np.testing.assert_allclose(points.get_xydata(), [[1, 100.5], [8, 800.5]])
        assert [100.5, 100.5] in [list(line.get_ydata()) for line in axes.lines]


@pytest.mark.parametrize(
    ("wrong", "word"),
    [({"sizes": (0,)}, "size"), ({"repeats": 1}, "repeats"), ({"episodes": 0}, "episodes"), ({"seed": -1}, "seed")],
)
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, Any], word: str) -> None:
    with pytest.raises(FloppyError, match=word):
        Ensemble((Path("a"),), **wrong)


def test_a_study_of_nothing_is_refused_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FloppyError, match="datasets must have at least one value"):
        Ensemble(())
    assert main(["ensemble", str(tmp_path / "nowhere.safetensors"), "--out", str(tmp_path / "study")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert not (tmp_path / "study").exists()
