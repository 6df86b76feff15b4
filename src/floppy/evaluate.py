"""Scores of many fresh learners."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floppy.arena import ON_DEVICE, Arena, open_arena
from floppy.blocks import Block
from floppy.cloning import Cloning, Distilled, map_clones
from floppy.dataset import DistilledDataset
from floppy.ensembles import MOST_MEMBERS, EnsembleNetwork, assemble
from floppy.errors import DivergedError, check_number, check_seed
from floppy.keys import named_key
from floppy.learners import NAMED_DISTRIBUTIONS, LearnerDistribution, Network, Weights, parse_distribution
from floppy.normalise import RunningStatistics
from floppy.parallel import replicate
from floppy.tasks.base import SupervisedTask, Task
from floppy.train import (
    MOST_LEARNERS,
    block_of,
    card_distributions,
    clone_fresh,
    cloning_of,
    distilled_of,
    network_for,
    statistics_of,
    task_of,
)

BOOTSTRAP_RESAMPLES = 2000
EPISODES = 100
"""Per learner, where nothing else is asked for."""

Own = tuple[jax.Array | None, jax.Array | None]
"""What learners have of their own: inner rate and number of cloning steps."""


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
    diverged: int
    """Learners with an episode whose return is no finite number; such an episode counts as the worst of all others."""
    seed: int

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"ci95": list(self.ci95)}


def evaluate(
    dataset: DistilledDataset,
    *,
    distributions: str | Iterable[str] = tuple(NAMED_DISTRIBUTIONS),
    learners: int = 100,
    episodes: int | None = None,
    seed: int = 0,
    greedy: bool = False,
    task: str = "",
    ensemble: int = 1,
) -> dict[str, Score]:
    """Trains fresh learners on a dataset and lets each play complete episodes of the dataset's task.

    Args:
      dataset: what is evaluated.
      distributions: names or descriptions of learner distributions, see `parse_distribution`, as one text joined by
        commas or one by one; `card` stands for the first one on the dataset's card.
      learners: `L`, per distribution.
      episodes: per learner; by default 100, or all test images.
      seed: of initial weights, environments and actions. The stream is never used in distillation.
      greedy: most likely actions in place of sampled ones.
      task: id of the task to be played; a merged dataset asks for one, all of whose tasks its learners learn.
      ensemble: `N`, of how many clones every learner is the average (see `ensembles.py`); learner `i` is that of
        learners `i N` to `i N + N - 1` of an evaluation without ensembles.

    Returns:
      A score per distribution, in the order given.

    Raises:
      FloppyError: for a wrong name or number, or a dataset that does not fit its task.
    """
    _check_counts(learners, 1 if episodes is None else episodes, seed)
    check_number("ensemble", ensemble, least=1, most=MOST_MEMBERS)
    known = task_of(dataset, task)
    if episodes is None:
        episodes = len(known.labelled().labels) if isinstance(known, SupervisedTask) else EPISODES
    names = map(str.strip, distributions.split(",")) if isinstance(distributions, str) else distributions
    chosen = {name: None if name == "card" else parse_distribution(name) for name in names}
    with open_arena(known) as arena:
        return {
            name: score_returns(
                returns_of(
                    dataset,
                    known,
                    named_key(jax.random.key(seed), f"evaluate {name}"),
                    distribution,
                    learners=learners,
                    episodes=episodes,
                    greedy=greedy,
                    block=block_of(dataset, task),
                    ensemble=ensemble,
                    arena=arena,
                ),
                known.max_return,
                seed,
            )
            for name, distribution in chosen.items()
        }


def returns_of(
    dataset: DistilledDataset,
    task: Task,
    key: jax.Array,
    distribution: LearnerDistribution | None = None,
    *,
    block: Block | None = None,
    network: Network | None = None,
    cloning: Cloning | None = None,
    **options: Any,
) -> np.ndarray:
    """Returns `[L, episodes]` of fresh learners.

    Args:
      dataset: what they learn from.
      task: what they play.
      key: PRNG key, consumed.
      distribution: how they are drawn; by default the first one on the card.
      block: the task's part of a merged dataset.
      network: in place of what `network_for` gives for the distribution.
      cloning: in place of the card's.
      **options: the others of `clone_and_play`.
    """
    statistics = statistics_of(dataset)
    returns = clone_and_play(
        task,
        network or network_for(dataset, distribution or card_distributions(dataset)[0]),
        cloning or cloning_of(dataset),
        replicate(distilled_of(dataset)),
        replicate(key),
        statistics=replicate(block.statistics(statistics, task.observation_shape) if block else statistics),
        afresh=dataset.card.normaliser == "per-evaluation",
        block=block,
        **options,
    )
    return np.asarray(returns)


def evaluate_random(task: Task, *, episodes: int = 1000, seed: int = 0) -> Score:
    """The score of uniformly random actions, as one learner."""
    _check_counts(1, episodes, seed)
    key = named_key(jax.random.key(seed), "evaluate random")
    with open_arena(task) as arena:
        play = jax.jit(arena.play_random, static_argnums=(0, 2)) if arena.is_pure else arena.play_random
        played = play(task, key, episodes)
    return score_returns(np.asarray(played.returns), task.max_return, seed)


def score_returns(returns: np.ndarray, max_return: float | None, seed: int) -> Score:
    """Summarises returns `[L, episodes]`; `seed` also seeds the bootstrap.

    The bootstrap resamples learners, for the question is how the next fresh learner will do; of one learner it
    resamples the episodes.
    """
    diverged = int(np.sum(~np.all(np.isfinite(returns), axis=1)))
    # Of the raw returns: who diverged reached nothing, however well the others did.
    at_max = None if max_return is None else float(np.mean(np.all(returns >= max_return, axis=1)))
    returns, means = finite_returns(returns), learner_means(returns)
    learners, episodes = returns.shape
    units = means if learners > 1 else returns[0].astype(np.float64)
    random = np.random.default_rng(seed)
    resampled = [random.choice(units, size=units.size).mean() for _ in range(BOOTSTRAP_RESAMPLES)]
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Score(
        mean=float(means.mean()),
        sd=float(means.std(ddof=1)) if learners > 1 else 0.0,
        ci95=(float(low), float(high)),
        learners=learners,
        episodes=episodes,
        max_share=at_max,
        diverged=diverged,
        seed=seed,
    )


def learner_means(returns: np.ndarray) -> np.ndarray:
    """Mean return `[L]` of each learner, from returns `[L, episodes]`; see `finite_returns` for those that diverged."""
    return finite_returns(returns).mean(axis=1, dtype=np.float64)


def finite_returns(returns: np.ndarray) -> np.ndarray:
    """Returns `[L, episodes]` in which those of clones or physics that diverged are the worst of the others.

    Raises:
      DivergedError: if none is finite.
    """
    finite = np.isfinite(returns)
    if not finite.any():
        raise DivergedError("Every fresh learner diverged: give a smaller inner rate, or examples of smaller size.")
    return np.where(finite, returns, returns[finite].min())


def clone_and_play(
    task: Task,
    network: Network,
    cloning: Cloning,
    distilled: Distilled,
    key: jax.Array,
    *,
    learners: int,
    episodes: int,
    greedy: bool = False,
    statistics: RunningStatistics | None = None,
    afresh: bool = False,
    rates: jax.Array | None = None,
    steps: jax.Array | None = None,
    block: Block | None = None,
    ensemble: int = 1,
    arena: Arena = ON_DEVICE,
) -> jax.Array:
    """Trains fresh learners and lets them play, in chunks, which are spread over all devices for a JAX task.

    Args:
      task: what is played.
      network: how fresh learners are drawn.
      cloning: how they learn.
      distilled: what they learn from.
      key: PRNG key, consumed; a learner depends on it and its own number alone.
      learners: `L`.
      episodes: per learner.
      greedy: as for `play_episodes`.
      statistics: as for `play_episodes`.
      afresh: as for `play_episodes`.
      rates: `[L]`, inner rates of the learners in place of the dataset's.
      steps: `[L]`, how many of the cloning's steps they take; by default all.
      block: of the task's, where the network is one of several tasks; only this part of it plays.
      ensemble: of how many clones each learner is the average.
      arena: where they play.

    Returns:
      `[L, episodes]` undiscounted returns.
    """
    play = _compiled_clone_and_play if arena.is_pure else _clone_and_play
    options = (task, network, cloning, learners, episodes, greedy, afresh, block, ensemble, arena)
    return play(*options, distilled, statistics, key, (rates, steps))


def _clone_and_play(
    task: Task,
    network: Network,
    cloning: Cloning,
    learners: int,
    episodes: int,
    greedy: bool,
    afresh: bool,
    block: Block | None,
    ensemble: int,
    arena: Arena,
    distilled: Distilled,
    statistics: RunningStatistics | None,
    key: jax.Array,
    own: Own,
) -> jax.Array:
    policy = network if block is None else block.network(network)
    player = policy if ensemble == 1 else EnsembleNetwork(policy)

    def some(
        indices: jax.Array, distilled: Distilled, statistics: RunningStatistics | None, key: jax.Array, own: Own
    ) -> jax.Array:
        clones = arena.compiled(_clones, static=4)
        weights, keys = clones(network, cloning, block, ensemble, indices, distilled, key, own)
        return arena.play_episodes(
            task, player, weights, keys, episodes=episodes, greedy=greedy, statistics=statistics, afresh=afresh
        ).returns

    shapes = jax.eval_shape(jax.vmap(network.init), jax.random.split(key, ensemble))
    return arena.map(some, learners, arena.chunk(task, learners, shapes, episodes), distilled, statistics, key, own)


_compiled_clone_and_play = jax.jit(_clone_and_play, static_argnums=tuple(range(10)))


def _clones(
    network: Network,
    cloning: Cloning,
    block: Block | None,
    ensemble: int,
    indices: jax.Array,
    distilled: Distilled,
    key: jax.Array,
    own: Own,
) -> tuple[Weights, jax.Array]:
    """Trained learners of `indices [c]`, each of `ensemble` clones, and keys for their play."""
    members = (indices[:, None] * ensemble + jnp.arange(ensemble)).ravel()
    keys, member_keys = (
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers) for numbers in (indices, members)
    )
    fresh = jax.vmap(lambda k: network.init(named_key(k, "learner")))(member_keys)

    def one(learner: tuple[Weights, Own]) -> Weights:
        weights, (rate, steps) = learner
        given = distilled if rate is None else distilled._replace(inner_rate=rate)
        return clone_fresh(cloning, network, given, weights, steps)

    weights = map_clones(cloning, one, (fresh, jax.tree.map(lambda values: values[members // ensemble], own)))
    weights = weights if block is None else block.cut(weights)
    weights = weights if ensemble == 1 else assemble(weights, ensemble)
    return weights, jax.vmap(lambda k: named_key(k, "play"))(keys)


def _check_counts(learners: int, episodes: int, seed: int) -> None:
    check_number("learners", learners, least=1, most=MOST_LEARNERS)
    check_number("episodes", episodes, least=1, most=MOST_LEARNERS)
    check_seed(seed)
