"""Where policies play: the contract of an arena.

An outer loop and an evaluation are written once, for every arena. `L` learners play `E` environments each; `T` is time.
"""

import abc
import functools
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError
from floppy.learner.network import Network
from floppy.play.normalise import Moments, RunningStatistics, init_statistics, update_statistics
from floppy.tasks.base import Labelled, Task

WARM_UP = 512
"""Random observations that statistics start from."""

T = TypeVar("T", bound=Task, contravariant=True)


class Trajectory(NamedTuple):
    """`T` steps of `L x E` environments."""

    observations: jax.Array
    """`[T, L, E, *obs]`, raw, before each step."""
    next_observations: jax.Array
    """`[T, L, E, *obs]`, raw, reached by each step, before any reset."""
    actions: jax.Array
    """`[T, L, E]` int or `[T, L, E, a]` float, as sampled, before clipping."""
    outputs: jax.Array
    """`[T, L, E, a]`: the policy's logits or means."""
    rewards: jax.Array
    """`[T, L, E]`"""
    terminated: jax.Array
    """`[T, L, E]` bool."""
    truncated: jax.Array
    """`[T, L, E]` bool."""
    final_returns: jax.Array
    """`[T, L, E]`: return of the episode that ended at this step, 0 elsewhere."""


class Played(NamedTuple):
    """One episode in each of `L x E` environments."""

    returns: jax.Array
    """`[L, E]`: undiscounted return, of an episode that was cut the return so far."""
    steps: jax.Array
    """`[L, E]` int: steps taken."""
    moments: Moments | None
    """Leaves `[L, ...]`: of the observations acted upon, about the mean of the statistics given, if any."""


class Arena(Protocol[T]):
    """Plays policies on tasks of one kind, and runs what lies between."""

    @classmethod
    def of(cls, task: T, *, step_timeout: float | None = None) -> Self:
        """The arena for a task; of `step_timeout` see `floppy.play.open_arena`."""

    @property
    def is_pure(self) -> bool:
        """Whether all that happens here may stand in a compiled function."""

    @property
    def has_own_limits(self) -> bool:
        """Whether Python steps environments, every call of which has a time limit; no watchdog need look on then."""

    def close(self) -> None:
        """Ends what is live."""

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """Jit-compiles a pure function; its first `static` arguments are hashable and static.

        Where the caller compiles everything, it gives the function back.
        """

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """`function(indices [chunk], *operands)` for all indices: see `parallel.sharded_map`."""

    def chunk(self, task: T, count: int, weights: Any, episodes: int) -> int:
        """How many of `count` pieces of work, each cloning `weights` and playing `episodes`, are done at a time."""

    def start_environments(self, task: T, key: jax.Array, learners: int, environments: int) -> Any:
        """Resets `learners x environments` environments, whose episodes run on from call to call of `collect`.

        Args:
          task: what is played.
          key: PRNG key, consumed.
          learners: `L`.
          environments: `E`, of each learner.

        Returns:
          What stands for them in a state of arrays.

        Raises:
          FloppyError: where nothing can be stepped through.
        """

    def collect(
        self,
        task: T,
        network: Network[Any],
        weights: Any,
        environments: Any,
        key: jax.Array,
        *,
        steps: int,
        statistics: RunningStatistics | None = None,
    ) -> tuple[Any, Trajectory]:
        """Plays `steps` steps with sampled actions, starting the next episode when one ends.

        Args:
          task: what is played.
          network: of the policies.
          weights: leaves `[L, ...]`, one policy per learner.
          environments: where the previous call left off.
          key: PRNG key, consumed.
          steps: `T`.
          statistics: by which observations are normalised for the policies.

        Returns:
          The environments for the next call, and the trajectory.
        """

    def play_episodes(
        self,
        task: T,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        greedy: bool = False,
        statistics: RunningStatistics | None = None,
        per_evaluation_stats: bool = False,
        max_episode_steps: int | None = None,
    ) -> Played:
        """Plays complete episodes.

        Args:
          task: what is played.
          network: of the policies.
          weights: leaves `[L, ...]`.
          keys: `[S]` PRNG keys, consumed. `L` is a multiple of `S`: learners `i` and `i + S` meet the same random
            numbers.
          episodes: per learner.
          greedy: most likely actions in place of sampled ones.
          statistics: by which observations are normalised.
          per_evaluation_stats: in place of `statistics`, every learner starts statistics with zero and updates them at
            each step.
          max_episode_steps: after which an episode is cut; by default the task's own limit.

        Returns:
          Returns, lengths and observation sums.
        """

    def fitness(
        self,
        task: T,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        statistics: RunningStatistics | None = None,
        max_episode_steps: int | None = None,
        share_features: bool = False,
    ) -> Played:
        """As `play_episodes`, for an outer loop that learns from the returns, which may be others than a score's.

        With `share_features` clones of the same fresh learner differ in their output layer alone.
        """

    def play_random(self, task: T, key: jax.Array, episodes: int) -> Played:
        """Complete episodes with uniformly random actions, as one learner."""

    def random_observations(self, task: T, key: jax.Array, count: int) -> jax.Array | np.ndarray:
        """Observations `[count, *obs]` seen under uniformly random actions, each at a random time."""

    def warm_up(self, task: T, key: jax.Array) -> RunningStatistics:
        """Statistics `[*obs]` to start from, before anything was learnt."""

    def examples_of_classes(self, task: T, key: jax.Array, classes: np.ndarray, *, means: bool) -> jax.Array:
        """Labelled observations of the classes `[k]`, at random, or means of as many equal parts as a class has.

        Raises:
          FloppyError: where observations have no labels, or too few of a class.
        """

    def labelled_batch(self, task: T, key: jax.Array, learners: int, count: int) -> Labelled:
        """Random labelled observations for every learner: `[learners, count, *obs]` and `[learners, count]`.

        Raises:
          FloppyError: where observations have no labels.
        """


def no_labels(task: Task, what: str) -> FloppyError:
    """The complaint about labels that a task with episodes does not have."""
    return FloppyError(f"{what} needs labelled examples, {task.task_id} has none: choose a task of images/.")


class EpisodicArena(abc.ABC, Generic[T]):
    """What arenas share in which policies step through episodes, and nothing has labels."""

    @abc.abstractmethod
    def play_episodes(
        self,
        task: T,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        greedy: bool = False,
        statistics: RunningStatistics | None = None,
        per_evaluation_stats: bool = False,
        max_episode_steps: int | None = None,
    ) -> Played:
        """See `Arena`."""

    @abc.abstractmethod
    def random_observations(self, task: T, key: jax.Array, count: int) -> jax.Array | np.ndarray:
        """See `Arena`."""

    def fitness(
        self,
        task: T,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        statistics: RunningStatistics | None = None,
        max_episode_steps: int | None = None,
        share_features: bool = False,
    ) -> Played:
        """Episodes' returns."""
        del share_features  # from the first step on they see different observations
        return self.play_episodes(
            task,
            network,
            weights,
            keys,
            episodes=episodes,
            statistics=statistics,
            max_episode_steps=max_episode_steps,
        )

    def warm_up(self, task: T, key: jax.Array) -> RunningStatistics:
        """Of observations seen under random actions."""
        return statistics_of_batch(self.random_observations(task, key, WARM_UP))

    def examples_of_classes(self, task: T, key: jax.Array, classes: np.ndarray, *, means: bool) -> jax.Array:
        """Refused: there are no labels."""
        del key, classes
        raise no_labels(task, f"initial_examples = {'class-means' if means else 'samples'}")

    def labelled_batch(self, task: T, key: jax.Array, learners: int, count: int) -> Labelled:
        """Refused: there are no labels."""
        del key, learners, count
        raise no_labels(task, "The outer loop")


class ArenaInPieces:
    """Where only the pieces between the plays are compiled."""

    is_pure, has_own_limits = False, False

    def close(self) -> None:
        """Nothing is live."""

    def __init__(self) -> None:
        if jax.process_count() > 1:
            raise FloppyError("Several processes can share JAX tasks alone: run this task in one.")

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """Compiled once, for all arenas, per function (an equal owner's method is the same) and static arguments."""
        owner, plain = getattr(function, "__self__", None), getattr(function, "__func__", function)

        def call(*arguments: Any) -> Any:
            return _program(plain, owner, arguments[:static])(*arguments[static:])

        return call

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """Chunk after chunk; the last one is filled up with others, which do not count."""
        chunks = [function(jnp.arange(first, first + chunk) % count, *operands) for first in range(0, count, chunk)]
        return jax.tree.map(lambda *rows: jnp.concatenate(rows)[:count], *chunks)


@functools.lru_cache(maxsize=64)  # those of a study's cells in turn, without keeping all of them
def _program(function: Callable[..., Any], owner: Hashable, static: tuple[Hashable, ...]) -> Callable[..., Any]:
    bound = static if owner is None else (owner, *static)
    return jax.jit(functools.partial(function, *bound))


def statistics_of_batch(observations: Any) -> RunningStatistics:
    """Those of a batch `[n, *obs]`."""
    return update_statistics(init_statistics(observations.shape[1:]), observations)
