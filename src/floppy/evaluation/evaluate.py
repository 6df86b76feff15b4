"""Evaluations: fresh learners are trained on a dataset and play complete episodes."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.cloning.base import Cloning, Distilled, clone, map_clones
from floppy.cloning.merged import Block
from floppy.compilation import FOR_FEW_CALLS, compiled
from floppy.dataset.file import DistilledDataset, check_dataset
from floppy.errors import FloppyError
from floppy.evaluation.score import CLONES_DIVERGED, POLICIES_DIVERGED, RANDOM_DIVERGED, Score, score_returns
from floppy.fields import as_seed, whole_number
from floppy.keys import named_key
from floppy.learner.distribution import NAMED_DISTRIBUTIONS, as_learners, describe_distribution, members_of
from floppy.learner.ensemble import MAX_MEMBERS, EnsembleNetwork, assemble
from floppy.learner.network import Learners, Network
from floppy.parallel import replicate
from floppy.play import Arena, Played, open_arena
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics
from floppy.tasks.base import Task, default_episodes
from floppy.tasks.check import check_own_task
from floppy.tasks.registry import make_task
from floppy.tasks.untrusted import task_of_file
from floppy.teach.codec import Lesson, unpack, with_cloning
from floppy.teach.policies import MAX_LEARNERS, Policies, Policy, as_policies

CARD, ALL = "card", "all"
"""Names that stand for the first distribution on the card, and for the six named ones."""


class PerLearner(NamedTuple):
    """What learners have of their own in place of the dataset's."""

    rates: jax.Array | None = None
    """`[L]` inner rates."""
    steps: jax.Array | None = None
    """`[L]` int: how many of the cloning's steps they take."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """How fresh learners are trained and what they play; the same for all datasets and seeds."""

    task: Task
    network: Network[Any]
    """How fresh learners are drawn."""
    cloning: Cloning
    learners: int
    """`L`."""
    episodes: int
    """Per learner."""
    greedy: bool = False
    """Most likely actions in place of sampled ones."""
    per_evaluation_stats: bool = False
    """Whether every learner starts statistics of observations with zero."""
    blocks: tuple[Block, ...] = ()
    """Of a merged dataset, those that are learnt."""
    block: Block | None = None
    """The task's part of a joint network; only this part of it plays."""
    ensemble: int = 1
    """Of how many clones each learner is the average."""

    def returns(
        self,
        distilled: Distilled,
        statistics: RunningStatistics | None,
        key: jax.Array,
        *,
        arena: Arena[Any] = ON_DEVICE,
        own: PerLearner | None = None,
    ) -> np.ndarray:
        """Trains fresh learners and lets them play, in chunks, which are spread over all devices for a JAX task.

        Args:
          distilled: what they learn from.
          statistics: of observations, if they are normalised.
          key: PRNG key, consumed; a learner depends on it and its own number alone.
          arena: where they play.
          own: what learners have of their own.

        Returns:
          `[L, episodes]` undiscounted returns.
        """
        play = _compiled_play if arena.is_pure else _play
        return np.asarray(play(self, arena, distilled, statistics, key, own or PerLearner()))

    def of_lesson(
        self,
        lesson: Lesson,
        key: jax.Array,
        *,
        arena: Arena[Any] = ON_DEVICE,
        own: PerLearner | None = None,
    ) -> np.ndarray:
        """As `returns`, for the tensors of a dataset."""
        statistics = lesson.block_statistics(self.block, self.task.observation_shape)
        return self.returns(replicate(lesson.distilled), replicate(statistics), replicate(key), arena=arena, own=own)


def evaluation_of(
    lesson: Lesson, task: Task, *, learners: int, episodes: int, block: Block | None = None, **changes: Any
) -> Evaluation:
    """The evaluation of a dataset on its task.

    Args:
      lesson: the dataset, unpacked.
      task: what is played.
      learners: `L`.
      episodes: per learner.
      block: the task's part of a merged dataset.
      **changes: other fields of `Evaluation`, in place of the card's.

    Returns:
      What `of_lesson` then plays.
    """
    card: dict[str, Any] = {
        "network": changes.pop("network", None) or lesson.network(),
        "cloning": lesson.cloning,
        "per_evaluation_stats": lesson.per_evaluation_stats,
        "blocks": lesson.blocks,
    }
    return Evaluation(task=task, learners=learners, episodes=episodes, block=block, **(card | changes))


def evaluate(
    dataset: DistilledDataset,
    *,
    distributions: str | Learners | Iterable[str | Learners] = CARD,
    learners: int = 100,
    episodes: int | None = None,
    seed: int = 0,
    greedy: bool = False,
    task: str = "",
    ensemble: int = 1,
    cloning: Cloning | None = None,
    rate: float | None = None,
    progress: Callable[[str], object] | None = None,
) -> dict[str, Score]:
    """Trains fresh learners on a dataset and lets each play complete episodes of the dataset's task.

    Equal distributions meet the same random numbers, however they are spelt.

    Args:
      dataset: what is evaluated.
      distributions: of learners, as text joined by commas or one by one, see `parse_distribution`, or as objects;
        `card` stands for the first one on the dataset's card, `all` for the six named ones, `any` for the eight
        of that mixture, one by one.
      learners: `L`, per distribution.
      episodes: per learner; by default 100, or all test images.
      seed: of initial weights, environments and actions. The stream is never used in distillation.
      greedy: most likely actions in place of sampled ones.
      task: id of the task to be played: of a merged dataset one of its tasks, all of which its learners learn; else the
        dataset's own, or another one with the same spaces.
      ensemble: `N`, of how many clones every learner is the average (see `ensemble.py`); learner `i` is that of
        learners `i N` to `i N + N - 1` of an evaluation without ensembles.
      cloning: how learners are trained, in place of the card's recipe.
      rate: of that cloning, see `floppy.teach.codec.with_cloning`.
      progress: called with each distribution's text once it is scored.

    Returns:
      A score per distribution, by its text, in the order given.

    Raises:
      FloppyError: for a wrong name or number, or a dataset that does not fit its task.
    """
    check_dataset(dataset, "floppy.evaluate_policies plays policies")
    learners, seed = whole_number("learners", learners, most=MAX_LEARNERS), as_seed(seed)
    ensemble = whole_number("ensemble", ensemble, most=MAX_MEMBERS)
    episodes = None if episodes is None else _episodes(episodes)
    if cloning is None and rate is not None:
        raise FloppyError("rate must be None where the card's cloning is kept: give a cloning beside it.")
    lesson = unpack(dataset if cloning is None else with_cloning(dataset, cloning, rate))
    known, block = lesson.task(task), lesson.block(task)
    chosen = {
        name: lesson.learners[0] if given == CARD else as_learners(given) for name, given in _named(distributions)
    }
    options = {
        "learners": learners,
        "episodes": default_episodes(known) if episodes is None else episodes,
        "greedy": greedy,
        "ensemble": ensemble,
    }
    complaint = POLICIES_DIVERGED if dataset.card.is_plain_policy else CLONES_DIVERGED
    scores = {}
    with open_arena(known) as arena:
        for name, distribution in chosen.items():
            network = lesson.network(distribution)
            evaluation = evaluation_of(lesson, known, block=block, network=network, **options)
            key = named_key(jax.random.key(seed), f"evaluate {describe_distribution(distribution)}")
            returns = evaluation.of_lesson(lesson, key, arena=arena)
            scores[name] = score_returns(returns, known.max_return, seed, complaint=complaint)
            if progress is not None:
                progress(name)
    return scores


def _named(distributions: str | Learners | Iterable[str | Learners]) -> list[tuple[str, str | Learners]]:
    """Distributions with the names under which their scores are given."""
    if isinstance(distributions, str):
        distributions = [name.strip() for name in distributions.split(",")]
    elif not isinstance(distributions, Iterable):
        distributions = [distributions]
    found: list[tuple[str, str | Learners]] = []
    for each in distributions:
        if isinstance(each, str):
            found += [(name, name) for name in (NAMED_DISTRIBUTIONS if each == ALL else members_of(each))]
        else:
            learners = as_learners(each)
            found.append((describe_distribution(learners), learners))
    if not found:
        raise FloppyError(
            "distributions must hold at least one text or distribution, got none: name one, such as card."
        )
    return found


def evaluate_random(task: Task, *, episodes: int = 1000, seed: int = 0) -> Score:
    """The score of uniformly random actions, as one learner.

    Args:
      task: as `make_task` gives it, or one of your own.
      episodes: complete ones; of labelled images, answers.
      seed: from 0 to 2**32 - 1.

    Returns:
      Its mean is over episodes, in the task's units of reward; of labelled images the accuracy, in percent.

    Raises:
      FloppyError: for counts or a seed that are not allowed, or if the environment fails.
    """
    episodes, seed = _episodes(episodes), as_seed(seed)
    check_own_task(task, is_registered=False)
    key = named_key(jax.random.key(seed), "evaluate random")
    with open_arena(task) as arena:
        play = _compiled_random if arena.is_pure else _play_random
        played = play(arena, task, key, episodes)
    return score_returns(np.asarray(played.returns), task.max_return, seed, complaint=RANDOM_DIVERGED)


def _play_random(arena: Arena[Any], task: Task, key: jax.Array, episodes: int) -> Played:
    return arena.play_random(task, key, episodes)


_compiled_random = compiled(_play_random, FOR_FEW_CALLS, static_argnums=(0, 1, 3))


def evaluate_policies(
    policies: Policies | Policy,
    *,
    task: str = "",
    episodes: int | None = None,
    seed: int = 0,
    greedy: bool = False,
    ensemble: bool = False,
) -> Score:
    """Lets trained policies play complete episodes of their task; nothing is trained.

    Args:
      policies: as `train` or `load_policies` gives them, or one of them, or their average `policies.together()`.
      task: id of the task to be played: one of those of a merged dataset; else theirs, or another one with the same
        spaces.
      episodes: per policy; by default 100, or all test images.
      seed: of environments and actions. Every policy depends on it and its own number alone.
      greedy: most likely actions in place of sampled ones.
      ensemble: whether they act as one policy, the average of all, as they do too where `policies.is_ensemble`.

    Returns:
      The score, of as many learners as there are policies; of an ensemble, one.

    Raises:
      FloppyError: for a wrong name or number, or policies that do not fit their task.
    """
    policies = as_policies(policies, "floppy.evaluate plays datasets, floppy.load_policies reads files")
    whole_number("policies", len(policies), most=MAX_LEARNERS)
    episodes, seed = None if episodes is None else _episodes(episodes), as_seed(seed)
    known = task_of_policies(policies, task)
    episodes = default_episodes(known) if episodes is None else episodes
    returns = returns_of_policies(policies, known, episodes=episodes, seed=seed, greedy=greedy, ensemble=ensemble)
    return score_returns(returns, known.max_return, seed, complaint=POLICIES_DIVERGED)


def returns_of_policies(
    policies: Policies, task: Task, *, episodes: int, seed: int, greedy: bool = False, ensemble: bool = False
) -> np.ndarray:
    """Returns `[L, episodes]` of policies that play a task, of an ensemble `[1, episodes]`; see `evaluate_policies`."""
    own = policies.for_task(task.task_id)
    network, weights = own.network, own.weights
    if ensemble or own.is_ensemble:
        whole_number("policies of an ensemble", len(own), most=MAX_MEMBERS)
        network, weights = EnsembleNetwork(network), assemble(weights, len(own))
    given = GivenPlay(task, network, episodes, greedy, own.per_evaluation_stats)
    key = named_key(jax.random.key(seed), "evaluate policies")
    with open_arena(task) as arena:
        play = _compiled_given if arena.is_pure else _play_given
        return np.asarray(play(given, arena, replicate(weights), replicate(own.statistics), replicate(key)))


def task_of_policies(policies: Policies, task: str) -> Task:
    """The task to be played by policies, see `evaluate_policies`.

    Raises:
      FloppyError: if it is not one of theirs, or of a merged dataset's tasks none is named.
    """
    if policies.blocks and not task:
        names = ", ".join(block.task for block in policies.blocks)
        raise FloppyError(f"These are policies of {names} together: name one of these tasks (--task).")
    known = make_task(task) if task else task_of_file(policies.task)
    check_own_task(known)
    return known


class GivenPlay(NamedTuple):
    """How policies that are trained already play; the static part of a compiled function."""

    task: Task
    network: Network[Any]
    episodes: int
    """Per policy."""
    greedy: bool
    per_evaluation_stats: bool


def _play_given(
    given: GivenPlay, arena: Arena[Any], weights: Any, statistics: RunningStatistics | None, key: jax.Array
) -> jax.Array:
    """Returns `[L, episodes]` of policies with weights `[L, ...]`."""

    def some(indices: jax.Array, weights: Any, statistics: RunningStatistics | None, key: jax.Array) -> jax.Array:
        chosen, keys = arena.compiled(_rows, static=0)(indices, weights, key)
        return arena.play_episodes(
            given.task,
            given.network,
            chosen,
            keys,
            episodes=given.episodes,
            greedy=given.greedy,
            statistics=statistics,
            per_evaluation_stats=given.per_evaluation_stats,
        ).returns

    count = weights.log_std.shape[0]
    # `chunk` takes weights of one learner, as shapes with a leading axis of 1.
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape[1:]), leaf.dtype), weights)
    chunk = arena.chunk(given.task, count, shapes, given.episodes)
    returns: jax.Array = arena.map(some, count, chunk, weights, statistics, key)
    return returns


_compiled_given = compiled(_play_given, FOR_FEW_CALLS, static_argnums=(0, 1))


def _rows(indices: jax.Array, weights: Any, key: jax.Array) -> tuple[Any, jax.Array]:
    """The policies of indices `[c]`, and keys for their play."""
    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)
    return jax.tree.map(lambda leaf: leaf[indices], weights), keys


def _play(
    evaluation: Evaluation,
    arena: Arena[Any],
    distilled: Distilled,
    statistics: RunningStatistics | None,
    key: jax.Array,
    own: PerLearner,
) -> jax.Array:
    policy = evaluation.network
    if evaluation.block is not None:
        policy = evaluation.block.network(policy)  # type: ignore[arg-type]
    player = policy if evaluation.ensemble == 1 else EnsembleNetwork(policy)

    def some(
        indices: jax.Array,
        distilled: Distilled,
        statistics: RunningStatistics | None,
        key: jax.Array,
        own: PerLearner,
    ) -> jax.Array:
        weights, keys = arena.compiled(_clones)(evaluation, indices, distilled, key, own)
        return arena.play_episodes(
            evaluation.task,
            player,
            weights,
            keys,
            episodes=evaluation.episodes,
            greedy=evaluation.greedy,
            statistics=statistics,
            per_evaluation_stats=evaluation.per_evaluation_stats,
        ).returns

    shapes = jax.eval_shape(jax.vmap(evaluation.network.init), jax.random.split(key, evaluation.ensemble))
    chunk = arena.chunk(evaluation.task, evaluation.learners, shapes, evaluation.episodes)
    returns: jax.Array = arena.map(some, evaluation.learners, chunk, distilled, statistics, key, own)
    return returns


_compiled_play = compiled(_play, FOR_FEW_CALLS, static_argnums=(0, 1))


def _clones(
    evaluation: Evaluation, indices: jax.Array, distilled: Distilled, key: jax.Array, own: PerLearner
) -> tuple[Any, jax.Array]:
    """Trained learners of `indices [c]`, each of `ensemble` clones, and keys for their play."""
    network, cloning, ensemble = evaluation.network, evaluation.cloning, evaluation.ensemble
    members = (indices[:, None] * ensemble + jnp.arange(ensemble)[None, :]).ravel()
    keys, member_keys = (
        jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, numbers) for numbers in (indices, members)
    )
    fresh = jax.vmap(lambda k: network.init(named_key(k, "learner")))(member_keys)

    def one(learner: tuple[Any, PerLearner]) -> Any:
        weights, (rate, steps) = learner
        given = distilled if rate is None else distilled._replace(inner_rate=rate)
        return clone(cloning, network, given, weights, steps, evaluation.blocks)

    weights = map_clones(cloning, one, (fresh, jax.tree.map(lambda values: values[members // ensemble], own)))
    weights = weights if evaluation.block is None else evaluation.block.cut(weights)
    weights = weights if ensemble == 1 else assemble(weights, ensemble)
    return weights, jax.vmap(lambda k: named_key(k, "play"))(keys)


def _episodes(given: Any) -> int:
    return whole_number("episodes", given, most=MAX_LEARNERS)
