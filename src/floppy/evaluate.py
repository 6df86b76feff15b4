"""Scores of many fresh learners."""

import dataclasses
import functools
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np

from floppy.dataset import DistilledDataset
from floppy.errors import check_number
from floppy.keys import named_key
from floppy.learners import NAMED_DISTRIBUTIONS, Network, Weights, parse_distribution
from floppy.normalise import RunningStatistics
from floppy.rollout import play_episodes, play_random
from floppy.tasks.base import JaxTask
from floppy.train import MOST_LEARNERS, task_of, train

BOOTSTRAP_RESAMPLES = 2000


@dataclasses.dataclass(frozen=True)
class Score:
    """What `L` policies reach, each over `episodes` complete episodes."""

    mean: float
    """Mean undiscounted episode return."""
    sd: float
    """Sample standard deviation over learners of a learner's mean return; 0 for one learner."""
    ci95: tuple[float, float]
    """95% percentile-bootstrap confidence interval of the mean; over learners, or over one learner's episodes."""
    learners: int
    episodes: int
    """Per learner."""
    max_share: float | None
    """Share of learners that reach the task's highest return in every episode, where that is known."""
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"ci95": list(self.ci95)}


def evaluate(
    dataset: DistilledDataset,
    *,
    distributions: Iterable[str] = tuple(NAMED_DISTRIBUTIONS),
    learners: int = 100,
    episodes: int = 100,
    seed: int = 0,
    greedy: bool = False,
) -> dict[str, Score]:
    """Trains fresh learners on a dataset and lets each play complete episodes of the dataset's task.

    Args:
      dataset: what is evaluated.
      distributions: names or descriptions of learner distributions, see `parse_distribution`; `card` stands for the
        first one on the dataset's card.
      learners: `L`, per distribution.
      episodes: per learner.
      seed: of initial weights, environments and actions. The stream is never used in distillation.
      greedy: most likely actions in place of sampled ones.

    Returns:
      A score per distribution, in the order given.

    Raises:
      FloppyError: for a wrong name or number, or a dataset that does not fit its task.
    """
    _check_counts(learners, episodes, seed)
    task = task_of(dataset)
    chosen = {name: None if name == "card" else parse_distribution(name) for name in distributions}
    scores = {}
    for name, distribution in chosen.items():
        key = named_key(jax.random.key(seed), f"evaluate {name}")
        policies = train(dataset, named_key(key, "learners"), learners=learners, distribution=distribution)
        returns = _play(
            task, policies.network, policies.weights, named_key(key, "play"), episodes, greedy, policies.statistics
        )
        scores[name] = score_returns(np.asarray(returns), task.max_return, seed)
    return scores


def evaluate_random(task: JaxTask, *, episodes: int = 1000, seed: int = 0) -> Score:
    """The score of uniformly random actions, as one learner."""
    _check_counts(1, episodes, seed)
    key = named_key(jax.random.key(seed), "evaluate random")
    returns = jax.jit(play_random, static_argnums=(0, 2))(task, key, episodes)
    return score_returns(np.asarray(returns)[None], task.max_return, seed)


def score_returns(returns: np.ndarray, max_return: float | None, seed: int) -> Score:
    """Summarises returns `[L, episodes]`; `seed` also seeds the bootstrap.

    The bootstrap resamples learners, for the question is how the next fresh learner will do; of one learner it
    resamples the episodes.
    """
    learner_means = returns.mean(axis=1, dtype=np.float64)
    learners, episodes = returns.shape
    units = learner_means if learners > 1 else returns[0].astype(np.float64)
    random = np.random.default_rng(seed)
    means = [random.choice(units, size=units.size).mean() for _ in range(BOOTSTRAP_RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    at_max = None if max_return is None else float(np.mean(np.all(returns >= max_return, axis=1)))
    return Score(
        mean=float(learner_means.mean()),
        sd=float(learner_means.std(ddof=1)) if learners > 1 else 0.0,
        ci95=(float(low), float(high)),
        learners=learners,
        episodes=episodes,
        max_share=at_max,
        seed=seed,
    )


@functools.partial(jax.jit, static_argnums=(0, 1, 4, 5))
def _play(
    task: JaxTask,
    network: Network,
    weights: Weights,
    key: jax.Array,
    episodes: int,
    greedy: bool,
    statistics: RunningStatistics | None,
) -> jax.Array:
    return play_episodes(task, network, weights, key, episodes=episodes, greedy=greedy, statistics=statistics)


def _check_counts(learners: int, episodes: int, seed: int) -> None:
    check_number("learners", learners, least=1, most=MOST_LEARNERS)
    check_number("episodes", episodes, least=1, most=MOST_LEARNERS)
    check_number("seed", seed, least=0, most=2**32 - 1)
