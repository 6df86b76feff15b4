"""Scores: the statistics by hand, the stream of seeds, and the published datasets' own numbers."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from probes import SMALL, ActionProbe, TimeLimitProbe, hand_dataset

from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError
from floppy.evaluate import evaluate, evaluate_random, score_returns
from floppy.tasks import make_task

PUBLISHED = Path(__file__).parents[2] / "shared/reference/ppmo"
QUICKLY = {"learners": 3, "episodes": 2, "distributions": ("card",)}
"""Options for evaluations of which only the form matters."""


def dataset_for_small_learners() -> DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(SMALL)]})


# --- statistics ---


def test_constant_returns() -> None:
    score = score_returns(np.full((4, 3), 7.0), 7.0, seed=3)
    assert (score.mean, score.sd, score.ci95) == (7.0, 0.0, (7.0, 7.0))
    assert (score.learners, score.episodes, score.max_share, score.seed) == (4, 3, 1.0, 3)


def test_two_valued_returns() -> None:
    score = score_returns(np.array([[0.0, 2.0], [9.0, 11.0]]), None, seed=0)
    # Learners' means are 1 and 10: half of all resamples mix them, a quarter each repeats one.
    assert score.mean == 5.5
    assert score.sd == pytest.approx(9 / math.sqrt(2))
    assert score.ci95 == (1.0, 10.0)
    assert score.max_share is None


def test_the_spread_is_that_between_learners() -> None:
    score = score_returns(np.array([[0.0, 10.0], [10.0, 0.0], [4.0, 6.0]]), 10.0, seed=0)
    assert (score.mean, score.sd, score.ci95) == (5.0, 0.0, (5.0, 5.0))
    assert score.max_share == 0.0


@pytest.mark.parametrize(
    ("returns", "share"),
    [([[5, 5], [5, 4]], 0.5), ([[5, 5], [6, 5]], 1.0), ([[4, 5], [5, 4]], 0.0), ([[5], [5], [5], [0]], 0.75)],
)
def test_the_share_at_the_maximum_asks_for_every_episode(returns: list[list[float]], share: float) -> None:
    assert score_returns(np.array(returns, np.float32), 5.0, seed=0).max_share == share


def test_one_learner_has_no_spread() -> None:
    score = score_returns(np.array([[1.0, 2.0, 6.0]]), 6.0, seed=0)
    assert (score.mean, score.sd, score.learners, score.episodes) == (3.0, 0.0, 1, 3)


def test_the_interval_has_the_width_of_the_standard_error() -> None:
    returns = np.random.default_rng(0).normal(100.0, 20.0, size=(400, 1))
    score = score_returns(returns, None, seed=1)
    half = 1.96 * returns.std(ddof=1) / math.sqrt(400)
    np.testing.assert_allclose(score.ci95, [score.mean - half, score.mean + half], atol=0.15 * half)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    random = np.random.default_rng(0)
    intervals = [score_returns(random.normal(10.0, 3.0, size=(30, 1)), None, seed).ci95 for seed in range(200)]
    covered = np.mean([low <= 10.0 <= high for low, high in intervals])
    assert 0.88 <= covered <= 0.99


def test_long_sums_keep_their_precision() -> None:
    returns = np.full((2, 100_000), 16_777_217.0, np.float64)
    assert score_returns(returns, None, seed=0).mean == 16_777_217.0
    half_way = np.tile(np.array([1e8, 1.0], np.float32), (2, 50_000))
    assert score_returns(half_way, None, seed=0).mean == pytest.approx((1e8 + 1) / 2, rel=1e-9)


def test_an_episode_that_diverged_counts_as_the_worst_and_is_named() -> None:
    returns = np.array([[1.0, 5.0], [np.nan, 3.0], [np.inf, -np.inf], [2.0, 2.0]])
    score = score_returns(returns, None, seed=0)
    assert score.diverged == 2
    assert score.mean == pytest.approx(np.mean([[1, 5], [1, 3], [1, 1], [2, 2]]))
    assert score_returns(returns[:1], None, seed=0).diverged == 0
    assert score_returns(np.array([[5.0, 5.0], [np.nan, 5.0], [np.nan, np.nan]]), 5.0, seed=0).max_share == 1 / 3
    with pytest.raises(FloppyError, match=r"^Every fresh learner diverged: "):
        score_returns(returns[2:3], None, seed=0)


def test_the_seed_moves_the_interval_only() -> None:
    returns = np.random.default_rng(0).normal(size=(20, 2))
    first, again, other = (score_returns(returns, None, seed) for seed in (0, 0, 1))
    assert first == again
    assert (first.mean, first.sd) == (other.mean, other.sd)
    assert first.ci95 != other.ci95


# --- evaluate ---


def test_what_an_evaluation_says() -> None:
    scores = evaluate(dataset_for_small_learners(), **QUICKLY, seed=4)
    assert list(scores) == ["card"]
    entry = json.loads(json.dumps(scores["card"].as_dict(), allow_nan=False))
    assert set(entry) == {"mean", "sd", "ci95", "learners", "episodes", "max_share", "diverged", "seed"}
    assert (entry["learners"], entry["episodes"], entry["seed"]) == (3, 2, 4)
    assert 8 <= entry["mean"] <= 500
    low, high = entry["ci95"]
    assert low <= entry["mean"] <= high
    assert 0.0 <= entry["max_share"] <= 1.0


def test_the_same_seed_gives_the_same_numbers_and_another_one_others() -> None:
    dataset = dataset_for_small_learners()
    first, again, other = (evaluate(dataset, **QUICKLY, seed=seed)["card"] for seed in (0, 0, 1))
    assert first == again
    assert first.mean != other.mean


def test_distributions_come_in_the_order_asked_for_and_by_their_description() -> None:
    described = "width=16:depth=1:initialiser=xavier"
    scores = evaluate(dataset_for_small_learners(), learners=3, episodes=2, distributions=(described, "card"))
    assert list(scores) == [described, "card"]
    # The same learners under two names are two samples.
    assert scores[described].mean != scores["card"].mean
    joined = evaluate(dataset_for_small_learners(), learners=3, episodes=2, distributions=f"{described},card")
    assert joined == scores


def test_greedy_actions_keep_up_what_sampled_ones_let_fall() -> None:
    # A plain policy that prefers, but only just, the side to which the pole falls.
    kernel = np.array([[0.0, 0.3], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    encoder = {"0/kernel": np.eye(4) / 10, "0/bias": np.zeros(4), "1/kernel": kernel, "1/bias": np.zeros(2)}
    learners = dataclasses.asdict(dataclasses.replace(SMALL, width=(4, 4)))
    dataset = hand_dataset(
        {"learners": [learners], "encoder": {"layers": 2, "of": 2}},
        encoder=encoder,
        observations=np.zeros((0, 4)),
        targets=np.zeros((0, 2)),
    )
    greedy, sampled = (evaluate(dataset, **QUICKLY, greedy=greedy)["card"] for greedy in (True, False))
    assert (greedy.mean, greedy.sd, greedy.max_share) == (500.0, 0.0, 1.0)
    assert sampled.mean < 100.0
    assert sampled.max_share == 0.0


@pytest.mark.parametrize("wrong", [{"learners": 0}, {"learners": -2}, {"episodes": 0}, {"seed": -1}, {"seed": 2**32}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(FloppyError, match=rf"{name}.*{wrong[name]}"):
        evaluate(dataset_for_small_learners(), **wrong)


def test_an_unknown_distribution_is_refused_before_anything_is_played() -> None:
    # So many learners would take for ever, or all memory.
    with pytest.raises(FloppyError, match="'lamda' is unknown"):
        evaluate(dataset_for_small_learners(), learners=10**6, episodes=10**5, distributions=("card", "lamda"))


def test_a_dataset_of_another_task_is_refused() -> None:
    with pytest.raises(FloppyError, match="another task"):
        evaluate(hand_dataset(sizes=(8, 4)), **QUICKLY)


# --- random actions ---


def test_random_cartpole_scores_what_everyone_finds() -> None:
    score = evaluate_random(make_task("ndcartpole/1"), episodes=2000)
    assert 21.0 < score.mean < 23.5
    assert (score.learners, score.episodes, score.max_share, score.sd) == (1, 2000, 0.0, 0.0)


def test_random_actions_depend_on_the_seed() -> None:
    first, again, other = (evaluate_random(TimeLimitProbe(), episodes=50, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert first.mean != other.mean


def test_random_actions_need_an_episode() -> None:
    with pytest.raises(FloppyError, match="at least 1"):
        evaluate_random(ActionProbe(), episodes=0)


# --- published datasets ---


@pytest.mark.parametrize(
    ("name", "mean", "standard_error"),
    [("1d-k2", 500.0, 0.0), ("2d-k3", 366.7, 5.0), ("4d-k5", 127.6, 1.5)],
)
def test_published_datasets_score_as_in_their_re_run(name: str, mean: float, standard_error: float) -> None:
    path = PUBLISHED / f"ndcartpole-{name}.npz"
    if not path.exists():
        pytest.skip(f"the published datasets are not at {PUBLISHED}")
    dimensions = int(name[0])
    with np.load(path) as arrays:
        dataset = hand_dataset(
            {"task": f"ndcartpole/{dimensions}"},
            sizes=(4 * dimensions, 2 * dimensions),
            observations=arrays["observations"],
            targets=arrays["targets"],
            inner_rate=arrays["inner_lr"],
        )
    score = evaluate(dataset, distributions=("lambda",), learners=100, episodes=10)["lambda"]
    own_error = score.sd / math.sqrt(score.learners)
    assert abs(score.mean - mean) <= 3 * math.hypot(own_error, standard_error)
    assert own_error < 2 * standard_error + 0.1, "too wide a spread to tell anything"
