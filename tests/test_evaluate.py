"""Scores: the statistics by hand, the stream of seeds, and the published datasets' own numbers."""

import dataclasses
import importlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import SMALL, ActionProbe, TimeLimitProbe, hand_dataset

from floppy.cloning import AdamSteps, FeatureSteps
from floppy.dataset import DistilledDataset
from floppy.errors import DivergedError, FloppyError
from floppy.evaluation.evaluate import evaluate, evaluate_policies, evaluate_random
from floppy.evaluation.score import score_returns
from floppy.learner.mlp import LearnerDistribution
from floppy.tasks import make_task
from floppy.teach.codec import card_cloning, with_cloning
from floppy.teach.merge import merge
from floppy.teach.policies import train

PUBLISHED = Path(__file__).parents[2] / "shared/reference/ppmo"
pytestmark = pytest.mark.slow

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
    # Learners' means are 1 and 10; Student's t of one degree of freedom is 12.706.
    assert (score.mean, score.worst) == (5.5, 1.0)
    assert score.sd == pytest.approx(9 / math.sqrt(2))
    assert score.ci95 == pytest.approx((5.5 - 12.706 * 4.5, 5.5 + 12.706 * 4.5), abs=0.01)
    assert score.max_share is None
    assert score_returns(np.array([[0.0, 2.0], [9.0, 11.0]]), 11.0, seed=0).ci95[1] == 11.0, "no return is higher"


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


@pytest.mark.parametrize("learners", [4, 8])
@pytest.mark.parametrize("draw", ["normal", "uniform"])
def test_so_does_that_of_few_learners(learners: int, draw: str) -> None:
    """By a bootstrap it is 78 times of 100 with four."""
    random = np.random.default_rng(0)
    samples = getattr(random, draw)(size=(1000, learners, 1)) + random.normal(0.0, 0.01, size=(1000, learners, 5))
    intervals = [score_returns(sample, None, 0).ci95 for sample in samples]
    truth = 0.5 if draw == "uniform" else 0.0
    assert 0.92 <= np.mean([low <= truth <= high for low, high in intervals]) <= 0.98


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
    assert set(entry) == {"mean", "sd", "worst", "ci95", "learners", "episodes", "max_share", "diverged", "seed"}
    assert (entry["learners"], entry["episodes"], entry["seed"]) == (3, 2, 4)
    assert 8 <= entry["mean"] <= 500
    low, high = entry["ci95"]
    assert low <= entry["mean"] <= high
    assert 8 <= entry["worst"] <= entry["mean"]
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
    joined = evaluate(dataset_for_small_learners(), learners=3, episodes=2, distributions=f"{described},card")
    assert joined == scores


def test_equal_distributions_score_the_same_however_they_are_spelt() -> None:
    dataset = hand_dataset({"learners": [dataclasses.asdict(LearnerDistribution())]})
    spellings = ("card", "lambda", "width=64", LearnerDistribution(depth=(2, 2)))
    scores = evaluate(dataset, learners=3, episodes=2, distributions=spellings)
    assert list(scores)[:3] == ["card", "lambda", "width=64"]
    assert len(scores) == 4
    assert len(set(scores.values())) == 1
    assert evaluate(dataset, learners=3, episodes=2, seed=1)["card"].mean != scores["card"].mean


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
    with pytest.raises(FloppyError, match="give a task with the same spaces"):
        evaluate(hand_dataset(sizes=(8, 4)), **QUICKLY)


def test_another_cloning_than_the_cards() -> None:
    dataset = dataset_for_small_learners()
    cloning = AdamSteps("mse", steps=3)
    asked = evaluate(dataset, **QUICKLY, cloning=cloning, rate=0.5)["card"]
    made = with_cloning(dataset, cloning, 0.5)
    assert (made.card.cloning["kind"], float(made.inner_rate), made.card.score) == ("AdamSteps", 0.5, None)
    assert asked == evaluate(made, **QUICKLY)["card"]
    assert asked.mean != evaluate(dataset, **QUICKLY)["card"].mean
    own = with_cloning(dataset, card_cloning(dataset))
    np.testing.assert_array_equal(own.inner_rate, dataset.inner_rate)
    assert float(with_cloning(dataset, cloning).inner_rate) == pytest.approx(0.01), "what suits AdamSteps"
    assert with_cloning(dataset, FeatureSteps()).inner_rate.shape == (3,)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"rate": 0.5}, "rate must be None where the card's cloning is kept"),
        ({"cloning": AdamSteps("mse"), "rate": 0.0}, "rate must be above 0, got 0"),
        ({"cloning": AdamSteps("gaussian-nll")}, "gaussian-nll"),
        ({"cloning": "AdamSteps"}, "cloning must be one of .*AdamSteps"),
    ],
    ids=str,
)
def test_a_cloning_that_does_not_fit_is_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FloppyError, match=complaint):
        evaluate(dataset_for_small_learners(), **QUICKLY, **options)


# --- policies that are trained already ---


def test_trained_policies_score_as_fresh_learners_do() -> None:
    dataset = dataset_for_small_learners()
    policies = train(dataset, 0, learners=40)
    score, again = (evaluate_policies(policies, episodes=20, seed=3) for _ in range(2))
    assert score == again
    assert (score.learners, score.episodes, score.seed) == (40, 20, 3)
    fresh = evaluate(dataset, learners=40, episodes=20)["card"]
    assert abs(score.mean - fresh.mean) < 4 * math.hypot(score.sd, fresh.sd) / math.sqrt(40)
    other = evaluate_policies(policies, episodes=20, seed=4)
    assert other.mean != score.mean


def test_trained_policies_play_by_their_own_statistics_and_greedily() -> None:
    """A plain policy that pushes to the side to which the pole falls, but for statistics that turn it round."""
    kernel = np.array([[0.0, 0.3], [0.0, 0.5], [0.0, 3.0], [0.0, 1.0]])
    tensors = {"observations": np.zeros((0, 4)), "targets": np.zeros((0, 2))}
    tensors |= {"obs_mean": np.zeros(4), "obs_var": np.ones(4)}
    learners = [dataclasses.asdict(LearnerDistribution(depth=(0, 0), initialiser=("xavier",)))]
    card = {"learners": learners, "encoder": {"layers": 1, "of": 1}, "normaliser": "frozen"}
    encoder = {"0/kernel": kernel / 100, "0/bias": np.zeros(2)}
    policies = train(hand_dataset(card, encoder=encoder, **tensors), 0, learners=2)
    greedy = evaluate_policies(policies, episodes=3, greedy=True)
    assert (greedy.mean, greedy.max_share) == (500.0, 1.0)
    shifted = policies.with_statistics(np.full(4, 9.0), np.ones(4))  # the output always says left
    assert evaluate_policies(shifted, episodes=3, greedy=True).mean < 15.0
    # Sampled actions of so weak a preference are random ones.
    assert evaluate_policies(policies, episodes=3).mean < 100.0
    one = evaluate_policies(policies, episodes=3, greedy=True, ensemble=True)
    assert (one.learners, one.mean) == (1, 500.0)
    assert evaluate_policies(dataclasses.replace(policies, is_ensemble=True), episodes=3, greedy=True) == one


def test_policies_of_several_tasks_play_the_one_that_is_named() -> None:
    card = {"learners": [dataclasses.asdict(SMALL)]}
    joint = train(
        merge([hand_dataset(card), hand_dataset(card | {"task": "ndcartpole/2"}, sizes=(8, 4))]), 0, learners=3
    )
    with pytest.raises(FloppyError, match=r"ndcartpole/1, ndcartpole/2 together: name one of these tasks \(--task\)"):
        evaluate_policies(joint)
    score = evaluate_policies(joint, task="ndcartpole/2", episodes=4)
    assert score == evaluate_policies(joint.for_task("ndcartpole/2"), episodes=4)
    assert 5 < score.mean < 500
    with pytest.raises(FloppyError, match="not of ndcartpole/3"):
        evaluate_policies(joint, task="ndcartpole/3")


@pytest.mark.parametrize("wrong", [{"episodes": 0}, {"seed": -1}])
def test_evaluations_of_policies_refuse_wrong_numbers(wrong: dict[str, int]) -> None:
    with pytest.raises(FloppyError, match=next(iter(wrong))):
        evaluate_policies(train(dataset_for_small_learners(), 0), **wrong)


def test_one_policy_plays_as_the_only_one_of_several() -> None:
    policies = train(dataset_for_small_learners(), 0, learners=2)
    assert evaluate_policies(policies[0], episodes=3) == evaluate_policies(policies[:1], episodes=3)
    assert evaluate_policies(policies.together(), episodes=3) == evaluate_policies(policies, episodes=3, ensemble=True)


def test_policies_that_do_not_fit_their_task_are_refused() -> None:
    with pytest.raises(FloppyError, match="give a task with the same spaces"):
        evaluate_policies(train(hand_dataset({"learners": [dataclasses.asdict(SMALL)]}, sizes=(8, 4)), 0))


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


@pytest.mark.thorough
def test_who_diverged_is_named_and_what_helps_them(monkeypatch: pytest.MonkeyPatch) -> None:
    def without_numbers(returns: np.ndarray, *rest: Any, **options: Any) -> Any:
        return score_returns(np.full(returns.shape, np.nan), *rest, **options)

    monkeypatch.setattr(importlib.import_module("floppy.evaluation.evaluate"), "score_returns", without_numbers)
    dataset = dataset_for_small_learners()
    with pytest.raises(DivergedError, match="Every fresh learner diverged: give a smaller inner rate"):
        evaluate(dataset, learners=1, episodes=1)
    with pytest.raises(DivergedError, match="No policy had a finite return: train again"):
        evaluate_policies(train(dataset, 0), episodes=1)
    with pytest.raises(DivergedError, match="Random actions had no finite return: check the task's rewards"):
        evaluate_random(ActionProbe(), episodes=1)


# --- published datasets ---


@pytest.mark.thorough(all_but=["1d-k2-500.0-0.0"])
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
