"""The study of transfer: what is drawn, that learners really use it, and what the table says."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import ContinuousProbe, hand_dataset

from floppy.cloning import AdamSteps, Cloning, Distilled, GradientStep
from floppy.dataset import DistilledDataset, load, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import Evaluation, PerLearner
from floppy.fields import encode
from floppy.keys import named_key
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution
from floppy.studies import Transfer, read_rows, run_study
from floppy.tasks import make_task
from floppy.teach.codec import unpack

pytestmark = pytest.mark.usefixtures("compiled_once")

TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier",))


def tiny_dataset(cloning: Cloning, learner: LearnerDistribution = TINY, **tensors: Any) -> DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(learner)], "cloning": encode(cloning)}, **tensors)


class Files:
    """Datasets of several steps and of one, at 0.5 and 0.1, in folders of runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.several, self.one = folder / "several/dataset.safetensors", folder / "one.safetensors"
        save(tiny_dataset(AdamSteps("mse", steps=4)), self.several)
        save(tiny_dataset(GradientStep(), inner_rate=0.1), self.one)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("datasets"))


class Asked:
    """Stands for `Evaluation.of_lesson` and remembers what it was asked for; learner `i` scores `i`."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, PerLearner]] = []
        """Evaluations, and what their learners have of their own."""

    def __call__(self, evaluation: Evaluation, *_: Any, own: PerLearner, **__: Any) -> np.ndarray:
        self.calls.append((evaluation, own))
        return np.tile(np.arange(float(evaluation.learners))[:, None], evaluation.episodes)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked = Asked()
    monkeypatch.setattr(Evaluation, "of_lesson", lambda self, *given, **options: asked(self, *given, **options))
    return asked


def measured(study: Transfer) -> list[dict[str, Any]]:
    return [cell | row for cell in study.cells() for row in study.measure(cell, Path("unused"))]


# --- What is drawn.


def test_draws_fill_their_ranges(asked: Asked, tmp_path: Path) -> None:
    save(tiny_dataset(AdamSteps("mse", steps=20)), tmp_path / "x.safetensors")
    rows = measured(Transfer((tmp_path / "x.safetensors",), widths=(4,), draws=2000))
    exponents = np.log10([row["rate"] / 0.5 for row in rows])
    np.testing.assert_allclose([exponents.min(), exponents.max()], [-1.5, 1.5], atol=0.01)
    np.testing.assert_allclose(np.quantile(exponents, [0.25, 0.5, 0.75]), [-0.75, 0.0, 0.75], atol=0.1)
    counts = np.bincount([row["steps"] for row in rows], minlength=51)
    assert np.flatnonzero(counts).tolist() == list(range(10, 51))  # half to two and a half times 20
    assert abs(counts[10] - 2000 / 41) < 30  # the ends are as likely as the others
    assert abs(counts[50] - 2000 / 41) < 30


def test_every_width_gets_the_same_draws(asked: Asked, files: Files) -> None:
    rows = measured(Transfer((files.several, files.one), widths=(4, 8, 5), draws=6, rates=100, steps=(1, 3)))
    assert len(rows) == 2 * 3 * 6
    drawn = {(row["dataset"], row["width"]): [] for row in rows}
    for row in rows:
        drawn[row["dataset"], row["width"]].append((row["rate"], row["steps"]))
    several, one = ([drawn[str(path), width] for width in (4, 8, 5)] for path in (files.several, files.one))
    assert several[0] == several[1] == several[2]
    assert len(set(several[0])) == 6
    assert {4 <= steps <= 12 for _, steps in several[0]} == {True}
    # The datasets share the draws too, around rates of their own; a single step stays one.
    np.testing.assert_allclose([rate / 0.1 for rate, _ in one[0]], [rate / 0.5 for rate, _ in several[0]], rtol=1e-6)
    assert {steps for draws in one for _, steps in draws} == {1}
    other = measured(Transfer((files.several,), widths=(4,), draws=6, seed=1))
    assert [row["rate"] for row in other] != [rate for rate, _ in several[0]]


def test_learners_are_asked_for_what_the_table_says(asked: Asked, files: Files) -> None:
    rows = measured(Transfer((files.several, files.one), widths=(4, 8), draws=5, episodes=3))
    (several, own_of_several), (_, own_of_wide), (one, own_of_one), _ = asked.calls
    assert [evaluation.network.distribution.width for evaluation, _ in asked.calls] == [(4, 4), (8, 8)] * 2
    assert several.cloning == AdamSteps("mse", steps=max(row["steps"] for row in rows[:5]))
    assert one.cloning == GradientStep()
    assert own_of_one.steps is None
    assert {(evaluation.learners, evaluation.episodes) for evaluation, _ in asked.calls} == {(5, 3)}
    np.testing.assert_array_equal(own_of_several.steps, [row["steps"] for row in rows[:5]])  # type: ignore[arg-type]
    np.testing.assert_allclose(own_of_wide.rates, [row["rate"] for row in rows[5:10]], rtol=1e-6)  # type: ignore[arg-type]
    assert [row["score"] for row in rows] == [0.0, 1.0, 2.0, 3.0, 4.0] * 4
    assert [row["own_width"] for row in rows] == ([True] * 5 + [False] * 5) * 2


@pytest.mark.parametrize(
    ("made_for", "wanted"),
    [
        (dataclasses.replace(TINY, init_seed=3), TINY),
        (
            dataclasses.replace(TINY, init_seed=3, initialiser=("flax-orthogonal",)),
            dataclasses.replace(TINY, initialiser=("orthogonal",)),
        ),
    ],
)
def test_learners_are_fresh_where_the_dataset_is_for_a_fixed_one(
    made_for: LearnerDistribution, wanted: LearnerDistribution, asked: Asked, tmp_path: Path
) -> None:
    save(tiny_dataset(GradientStep(), made_for), tmp_path / "f.safetensors")
    measured(Transfer((tmp_path / "f.safetensors",), widths=(4, 8), draws=2))
    (own, _), (wide, _) = asked.calls
    assert own.network.distribution == wanted
    assert wide.network.distribution == dataclasses.replace(wanted, width=(8, 8))


# --- That learners use it.


def probe_returns(cloning: Cloning, rate: float = 0.05, **own: jax.Array) -> np.ndarray:
    """`[3, 2]`, of learners whose every step shows in their returns."""
    task = ContinuousProbe()
    network = LayeredNetwork(TINY, task.observation_shape, task.actions)
    distilled = Distilled(jnp.ones((3, 2)), jnp.full((3, 1), 0.3), jnp.zeros(1), jnp.asarray(rate), ())
    evaluation = Evaluation(task, network, cloning, learners=3, episodes=2)
    return evaluation.returns(distilled, None, jax.random.key(0), own=PerLearner(**own))


@pytest.mark.thorough
@pytest.mark.slow
def test_every_learner_has_a_rate_and_a_number_of_steps_of_its_own() -> None:
    cloning = AdamSteps("mse", steps=3)
    plain, fast = probe_returns(cloning), probe_returns(cloning, 0.4)
    short = probe_returns(dataclasses.replace(cloning, steps=1), 0.1)
    assert len({float(returns[2, 0]) for returns in (plain, fast, short)}) == 3
    both = probe_returns(cloning, rates=jnp.asarray([0.05, 0.4, 0.1]), steps=jnp.asarray([3, 3, 1]))
    np.testing.assert_allclose(both, [plain[0], fast[1], short[2]], rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.slow
def test_learners_may_have_rates_alone_or_steps_alone() -> None:
    cloning = GradientStep(steps=2)
    plain, fast = probe_returns(cloning), probe_returns(cloning, 0.4)
    rates = probe_returns(cloning, rates=jnp.asarray([0.05, 0.4, 0.05]))
    np.testing.assert_allclose(rates, [plain[0], fast[1], plain[2]], rtol=1e-5, atol=1e-6)
    steps = probe_returns(dataclasses.replace(cloning, steps=5), steps=jnp.full(3, 2))
    np.testing.assert_allclose(steps, plain, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def study(files: Files) -> Path:
    """A study in which every draw is the dataset's own rate and steps."""
    out = files.folder / "study"
    run_study(Transfer((files.several, files.one), (4,), 3, rates=1.0, steps=(1.0, 1.0), episodes=2, seed=5), out)
    return out


@pytest.mark.slow
def test_a_draw_of_the_datasets_own_is_its_plain_clone(study: Path, files: Files) -> None:
    rows = read_rows(study)
    assert [(row["dataset"], row["width"], row["draw"]) for row in rows] == [
        (str(path), 4, draw) for path in (files.several, files.one) for draw in range(3)
    ]
    for path, rate, steps in ((files.several, 0.5, 4), (files.one, 0.1, 1)):
        own = [row for row in rows if row["dataset"] == str(path)]
        np.testing.assert_allclose([row["rate"] for row in own], rate, rtol=1e-6)
        assert [row["steps"] for row in own] == [steps] * 3
        lesson = unpack(load(path))
        plain = Evaluation(make_task("cartpole"), lesson.network(TINY), lesson.cloning, learners=3, episodes=2).returns(
            lesson.distilled, None, named_key(jax.random.key(5), "transfer")
        )
        np.testing.assert_allclose([row["score"] for row in own], np.mean(plain, axis=1))


def test_a_study_is_summed_up_and_drawn(study: Path, files: Files) -> None:
    summary = json.loads((study / "summary.json").read_text())
    assert list(summary) == [str(files.several), str(files.one)]
    assert [(entry["width"], entry["own_width"]) for entry in summary[str(files.one)]] == [(4, True)]
    assert (study / "figure.png").stat().st_size > 1000


# --- What the table says.


def hand_rows(scores: list[float], dataset: str = "a.safetensors", width: int = 4) -> list[dict[str, Any]]:
    return [
        {"dataset": dataset, "width": width, "own_width": width == 4, "draw": draw, "score": score}
        for draw, score in enumerate(scores)
    ]


def test_the_better_half_counts() -> None:
    study = Transfer((Path("a.safetensors"), Path("b.safetensors")))
    rows = hand_rows([5.0, 1.0, 9.0, 7.0, 0.0, 2.0, 8.0, 6.0])  # the better half: 6, 7, 8, 9
    rows += hand_rows([3.0, 1.0, 2.0], width=8) + hand_rows([4.0], "b.safetensors", 8)
    summary = study.summary(rows)
    (own, wide), (single,) = summary["a.safetensors"], summary["b.safetensors"]
    assert (own["width"], own["own_width"], own["median"], own["interquartile_mean"]) == (4, True, 7.5, 7.5)
    assert own["interval"][0] < 6.0 < 7.5 < own["interval"][1] <= 9.0  # another sample has another better half
    assert (wide["width"], wide["own_width"], wide["median"]) == (8, False, 2.5)
    assert single == {
        "width": 8, "own_width": False, "median": 4.0, "interquartile_mean": 4.0, "interval": [4.0, 4.0],
    }  # fmt: skip
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary


def test_the_interval_by_its_slow_twin() -> None:
    """All draws are resampled, and then halved."""
    scores = np.random.default_rng(0).uniform(size=50)
    (own,) = Transfer((Path("a.safetensors"),)).summary(hand_rows(list(scores)))["a.safetensors"]
    generator, means = random.Random(1), []
    for _ in range(2000):
        better = sorted(generator.choices(list(scores), k=50))[25:]
        means.append(sum(better[6:-6]) / 13)  # a quarter of 25, rounded down, is left out at either end
    np.testing.assert_allclose(own["interval"], np.quantile(means, [0.025, 0.975]), atol=0.01)


def test_the_figure_names_datasets_and_shows_the_better_half() -> None:
    paths = ("runs/one/dataset.safetensors", "runs/two/dataset.safetensors", "three.safetensors")
    study, figure = Transfer(tuple(map(Path, paths)), widths=(4, 8)), Figure()
    rows = [row for path in paths for width in (4, 8) for row in hand_rows([1.0, 5.0, 3.0, 7.0], path, width)]
    study.draw(rows, figure)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two", "three"]
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [6.0, 6.0])
    np.testing.assert_array_equal(axes.lines[1].get_ydata(), [5.0, 7.0])
    assert [label.get_text() for label in axes.get_xticklabels()] == ["4", "8"]


# --- Refusals.


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"widths": (0,)}, "widths must be at least 1, got 0"),
        ({"widths": ()}, "widths must have at least one value"),
        ({"datasets": ()}, "datasets must have at least one value"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"episodes": 0}, "episodes must be at least 1"),
        ({"rates": 0.5}, "rates must be at least 1, got 0.5"),
        ({"rates": float("nan")}, "rates must be at least 1, got nan"),
        ({"steps": (0.0, 1.0)}, "steps must be above 0, got 0.0"),
        ({"steps": (2.0, 1.0)}, "the smaller one first, got 2.0 1.0"),
        ({"seed": -1}, "seed must be at least 0"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        Transfer(**{"datasets": (Path("a"),)} | options)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("missing", "no such file"),
        ("plain", "whole policy"),
        ("annealed", "annealed over its own 4 steps"),
        ("encoder", "encoder"),
        ("other", "the same spaces"),
    ],
)
def test_a_dataset_that_cannot_be_varied_is_refused(name: str, wanted: str, tmp_path: Path) -> None:
    layers = {"0/kernel": np.ones((4, 4)), "0/bias": np.zeros(4)}
    both = layers | {"1/kernel": np.ones((4, 2)), "1/bias": np.zeros(2)}
    nothing = {"observations": np.zeros((0, 4)), "targets": np.zeros((0, 2))}
    card = {"learners": [dataclasses.asdict(TINY)]}
    path = tmp_path / "x.safetensors"
    if name == "annealed":
        save(tiny_dataset(AdamSteps("mse", steps=4, anneal=True)), path)
    if name == "encoder":
        save(hand_dataset(card | {"encoder": {"layers": 1, "of": 2}}, encoder=layers), path)
    if name == "plain":
        save(hand_dataset(card | {"encoder": {"layers": 2, "of": 2}}, encoder=both, **nothing), path)
    if name == "other":
        save(hand_dataset(sizes=(8, 4)), path)
    with pytest.raises(FloppyError, match=wanted):
        Transfer((path,), widths=(4, 8)).cells()


def test_the_command_line_refuses_in_one_sentence(files: Files, refused: Refused) -> None:
    refused(["transfer", str(files.one), str(files.one)], "twice")
    refused(["transfer", str(files.one), "--widths", "4", "4"], "width 4 twice")
