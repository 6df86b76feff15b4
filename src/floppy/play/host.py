"""Playing policies on host tasks: what `device.py` does for JAX tasks, with a Python loop around compiled policies.

`L` learners play `E` environments each; `T` is time. All of them are one row of one vector environment.
"""

import contextlib
import functools
import math
import warnings
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import raised
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.play.acting import (
    Actor,
    NetworkPolicy,
    ObservationStats,
    RandomPolicy,
    decide,
    explore,
    no_observations,
    of_sound_learners,
    split_keys,
    step_keys,
)
from floppy.play.arena import ArenaInPieces, EpisodicArena, Played, Trajectory
from floppy.play.device import RANDOM_STEPS
from floppy.play.normalise import RunningStatistics
from floppy.tasks.base import FaultyEnvironmentError, FaultyEnvironmentWarning, HostTask
from floppy.tasks.faults import as_step_timeout, environment_code, fault_of_closing

MAX_ENVIRONMENTS = 256
"""Environments that play at a time; a MuJoCo environment takes 1 to 2 MB and 15 ms to make."""

LARGE_OBSERVATION = 4096
"""Numbers in an observation from which on policies cost so much that they are compiled anew for fewer learners."""


class Step(NamedTuple):
    """One step of `n` environments."""

    reached: np.ndarray
    """`[n, *obs]`, before any reset."""
    rewards: np.ndarray
    """`[n]`"""
    terminated: np.ndarray
    """`[n]` bool."""
    truncated: np.ndarray
    """`[n]` bool."""


class HostEnvironments:
    """`n` live environments of a host task. Whatever goes wrong in one of them is a `FaultyEnvironmentError`."""

    def __init__(self, task: HostTask, count: int, *, training: bool, step_timeout: float | None = None) -> None:
        self.task, self.count, self.step_timeout = task, count, step_timeout
        with self._own_code("made"):
            self.vector = task.make_vector(count, training=training)
        self.observations = np.zeros((count, *task.observation_shape), np.float32)
        """`[n, *obs]` of the states that the environments are in."""
        self.returns = np.zeros(count)
        """`[n]`: undiscounted return of the running episode."""

    def reset(self, seeds: jax.Array, episodes: int | None = None) -> None:
        """Starts an episode everywhere, by seeds `[n]`; after so many `episodes` an environment may rest."""
        options = None if episodes is None else {"episodes": episodes}
        each: Any = [int(seed) for seed in np.asarray(seeds)]
        with self._own_code("reset"):
            observations, _ = self.vector.reset(seed=each, options=options)
        self.observations = self._checked(observations, "observation")
        self.returns = np.zeros(self.count)

    def step(self, actions: Any) -> Step:
        """Takes actions `[n]` or `[n, a]`; where an episode ends the next one starts."""
        with self._own_code("stepped"):
            observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(actions))
        terminated, truncated = np.asarray(terminated, bool), np.asarray(truncated, bool)
        ended = np.flatnonzero(terminated | truncated)
        self.observations = reached = self._checked(observations, "observation")
        if ended.size:
            reached = reached.copy()
            reached[ended] = self._checked(self._final(infos, ended), "observation")
        rewards = self._checked(rewards, "reward")
        self.returns = self.returns + rewards
        return Step(reached, rewards, terminated, truncated)

    def close(self) -> None:
        """Closes the environments; errors while closing are ignored, a `sys.exit` and a hang are warned of."""
        if fault := fault_of_closing(self.task.task_id, lambda: self.vector.close(), self.step_timeout):
            warning = FaultyEnvironmentWarning(str(fault))
            warning.__cause__ = fault
            warnings.warn(warning, stacklevel=2)
        # Gymnasium would close one again when it is thrown away.
        with contextlib.suppress(Exception):
            self.vector.closed = True

    def _own_code(self, done: str) -> AbstractContextManager[None]:
        return environment_code(self.task.task_id, done, self.step_timeout)

    def _final(self, infos: Any, ended: np.ndarray) -> np.ndarray:
        """The observations `[m, *obs]` that the episodes of these environments ended with."""
        found = infos.get("final_obs") if isinstance(infos, Mapping) else None
        if found is None or any(found[index] is None for index in ended):
            raise FaultyEnvironmentError(
                f"{self.task.task_id} gave no final_obs in the infos of a step in which an episode ended: make its "
                "vector environment with same-step resets, AutoresetMode.SAME_STEP."
            )
        return np.stack([np.asarray(found[index]) for index in ended])

    def _checked(self, values: Any, what: str) -> np.ndarray:
        """In memory of its own, for a vector environment may use that of `values` again, and finite.

        Pixels stay bytes, a quarter of the memory; all else is float32.
        """
        try:
            is_bytes = what == "observation" and np.asarray(values).dtype == np.uint8
            with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
                array = np.array(values, np.uint8 if is_bytes else np.float32)
        except (TypeError, ValueError) as error:
            raise FaultyEnvironmentError(
                f"{self.task.task_id} returned no numbers as its {what} ({raised(error)}): repair the environment."
            ) from error
        wanted = self.task.observation_shape if what == "observation" else ()
        if array.shape[1:] != wanted or (what == "reward" and len(array) != self.count):
            article = "an" if what == "observation" else "a"
            raise FaultyEnvironmentError(
                f"{self.task.task_id} returned {article} {what} of shape {array.shape[1:]} in place of "
                f"{wanted}: repair the environment."
            )
        if not np.all(np.isfinite(array)):
            kind = "NaN" if np.any(np.isnan(array)) else "an infinite value"
            raise FaultyEnvironmentError(f"{self.task.task_id} returned {kind} as its {what}: repair the environment.")
        return array


def collect(
    row: HostEnvironments,
    network: Network[Any],
    weights: Any,
    key: jax.Array,
    *,
    steps: int,
    statistics: RunningStatistics | None = None,
) -> Trajectory:
    """Plays `steps` steps with sampled actions from where the row stands; see `Arena.collect`.

    Args:
      row: `L · E` environments, those of a learner side by side.
      network: of the policies.
      weights: leaves `[L, ...]`, one policy per learner.
      key: PRNG key of the actions, consumed.
      steps: `T`.
      statistics: by which observations are normalised for the policies.

    Returns:
      The trajectory `[T, L, E, ...]`, of NumPy arrays; the row goes on from there.
    """
    shape = (jax.tree.leaves(weights)[0].shape[0], -1)
    keys = jax.random.split(key, steps)
    records = []
    for time in range(steps):
        before = row.observations
        seen = before.reshape(*shape, *before.shape[1:])
        outputs, actions, clipped = _explore(network, weights, seen, keys, np.int32(time), statistics)
        step = row.step(_without_nan(row.task, clipped)[0])
        ended = step.terminated | step.truncated
        final_returns = np.where(ended, row.returns, 0.0).astype(np.float32)
        row.returns = np.where(ended, 0.0, row.returns)
        flat: list[Any] = [before, step.reached, step.rewards, step.terminated, step.truncated, final_returns]
        observations, reached, *rest = (x.reshape(*shape, *x.shape[1:]) for x in flat)
        record: list[Any] = [observations, reached, np.asarray(actions), np.asarray(outputs), *rest]
        records.append(Trajectory(*record))
    trajectory: Trajectory = jax.tree.map(lambda *times: np.stack(times), *records)
    return trajectory


@functools.partial(jax.jit, static_argnums=0)
def _explore(
    network: Network[Any],
    weights: Any,
    observations: jax.Array,
    keys: jax.Array,
    time: jax.Array,
    statistics: RunningStatistics | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    outputs, actions = explore(network, weights, observations, keys[time], statistics)
    return outputs, actions, network.actions.clip(actions)


def play(
    row: HostEnvironments,
    policy: Actor,
    weights: Any,
    keys: jax.Array,
    shape: tuple[int, int],
    *,
    episodes: int,
    statistics: RunningStatistics | None = None,
    per_evaluation_stats: bool = False,
    max_episode_steps: int | None = None,
) -> Played:
    """Plays complete episodes: every environment exactly as many as its share, for short ones would end first.

    Args:
      row: `L · E` environments, those of a learner side by side.
      policy: how actions are chosen.
      weights: leaves `[L, ...]`.
      keys: `[S]` PRNG keys, consumed, as for `Arena.play_episodes`; seeds of environments follow from them too.
      shape: `L, E`.
      episodes: per learner. With `E` less than that, environments play several in turn, and what the last of them play
        too many is left out.
      statistics: as for `Arena.play_episodes`.
      per_evaluation_stats: as for `Arena.play_episodes`.
      max_episode_steps: after which an episode is cut; it asks for `E = episodes`.

    Returns:
      Returns and lengths `[L, episodes]`, and observation sums. The return is NaN where a policy's output was: the
      environment is not to blame for that.
    """
    share = -(-episodes // shape[1])
    limit = row.task.max_steps * share if max_episode_steps is None else min(max_episode_steps, row.task.max_steps)
    row.reset(_seeds(keys, shape), share)
    stats = no_observations(
        shape[0],
        row.task.observation_shape,
        with_moments=statistics is not None,
        per_evaluation_stats=per_evaluation_stats,
    )
    seats = _Seats(shape, weights, keys, stats)
    closes = math.prod(row.task.observation_shape) >= LARGE_OBSERVATION
    returns, steps = np.zeros((row.count, share)), np.zeros((row.count, share), np.int32)
    done = np.zeros(row.count, int)  # episodes
    for time in range(limit):
        alive = done < share
        if not alive.any():
            break
        if closes:
            seats.close_idle(alive)
        actions = seats.decide(policy, np.int32(time), row.observations, alive, statistics)
        taken, diverged = _without_nan(row.task, actions)
        step = row.step(taken)
        playing = np.flatnonzero(alive)
        returns[playing, done[playing]] += np.where(diverged, np.nan, step.rewards)[playing]
        steps[playing, done[playing]] += 1
        done += alive & (step.terminated | step.truncated)
    by_learner = [jnp.asarray(x.reshape(shape[0], -1)[:, :episodes]) for x in (returns.astype(np.float32), steps)]
    return Played(by_learner[0], by_learner[1], seats.all_stats().moments)


class _Seats:
    """The learners `[l]` of `L` whose policies are computed: all at first, fewer once half have played their share."""

    def __init__(self, shape: tuple[int, int], weights: Any, keys: jax.Array, stats: ObservationStats) -> None:
        self._shape = shape
        self._taken = np.arange(shape[0])
        """`[l]`: which learners."""
        self._of_all = self._of_taken = (weights, jnp.tile(keys, shape[0] // keys.shape[0]))
        """Weights and keys, leaves `[L, ...]` and `[l, ...]`."""
        self._stats = self._stats_of_all = stats
        self._actions: np.ndarray | None = None

    def close_idle(self, alive: np.ndarray) -> None:
        """Halves the seats as long as half of them are idle, given which environments `[L · E]` count."""
        plays = np.any(alive.reshape(self._shape), axis=1)
        seats = len(self._taken)
        while 0 < 2 * plays.sum() <= seats:
            seats //= 2
        if seats == len(self._taken):
            return
        self._stats_of_all = self.all_stats()
        self._taken = self._taken[np.argsort(~plays[self._taken], kind="stable")[:seats]]
        self._of_taken, self._stats = jax.tree.map(lambda leaf: leaf[self._taken], (self._of_all, self._stats_of_all))

    def decide(
        self,
        policy: Actor,
        time: np.int32,
        observations: np.ndarray,
        alive: np.ndarray,
        statistics: RunningStatistics | None,
    ) -> np.ndarray:
        """Actions `[L, E, ...]` for observations `[L · E, *obs]`; without a seat the last one again."""
        seen, counts = (x.reshape(*self._shape, *x.shape[1:])[self._taken] for x in (observations, alive))
        actions, self._stats = _decide(policy, *self._of_taken, time, seen, counts, statistics, self._stats)
        if self._actions is None:
            self._actions = np.array(actions)
        self._actions[self._taken] = actions
        return self._actions.copy()  # an environment may keep what it is given

    def all_stats(self) -> ObservationStats:
        """The statistics of all learners, leaves `[L, ...]`."""
        stats: ObservationStats = jax.tree.map(
            lambda every, some: every.at[self._taken].set(some), self._stats_of_all, self._stats
        )
        return stats


@functools.partial(jax.jit, static_argnums=0)
def _decide(
    policy: Actor,
    weights: Any,
    keys: jax.Array,
    time: jax.Array,
    observations: jax.Array,
    alive: jax.Array,
    statistics: RunningStatistics | None,
    stats: ObservationStats,
) -> tuple[jax.Array, ObservationStats]:
    return decide(policy, weights, step_keys(keys, time), observations, alive, statistics, stats)


def _without_nan(task: HostTask, actions: jax.Array | np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Actions `[L · E, ...]` that an environment may be given, and `[L · E]` whether another one was meant, a NaN."""
    return task.actions.without_nan(np.asarray(actions).reshape(-1, *actions.shape[2:]))


def environment_seeds(key: jax.Array, count: int) -> jax.Array:
    """Seeds `[count]` of environments, of 31 bits, which every library accepts."""
    return jax.random.bits(key, (count,)) >> 1


@functools.partial(jax.jit, static_argnums=1)
def _seeds(keys: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return jax.vmap(lambda key: environment_seeds(key, 1)[0])(split_keys(keys, "start", shape).ravel())


def random_observations(row: HostEnvironments, key: jax.Array, count: int) -> np.ndarray:
    """Observations `[count, *obs]` seen under uniformly random actions at random times.

    They come from the first 100 steps of every environment of the row, episodes following one another, or from more
    steps where so many observations are asked for.
    """
    row.reset(environment_seeds(named_key(key, "reset"), row.count))
    actions = row.task.actions
    observations = []
    for time in range(max(RANDOM_STEPS, -(-count // row.count))):
        observations.append(row.observations)
        row.step(actions.random(jax.random.fold_in(named_key(key, "action"), time), (row.count,)))
    every: np.ndarray = np.concatenate(observations)
    kept = jax.random.choice(named_key(key, "keep"), len(every), (count,), replace=False)
    chosen: np.ndarray = every[np.asarray(kept)]
    return chosen


class EnvironmentHandle(NamedTuple):
    """Stands for live environments in a state, which holds arrays only."""

    number: jax.Array
    """`[]` int: of the row in the arena. A resumed run has started the same rows again."""


class HostArena(ArenaInPieces, EpisodicArena[HostTask]):
    """Where host tasks are played: Python steps the environments, which live until `close`. See `Arena`."""

    has_own_limits = True

    @classmethod
    def of(cls, task: HostTask, *, step_timeout: float | None = None) -> Self:
        """One whose environments have this time limit."""
        del task
        return cls(step_timeout)

    def __init__(self, step_timeout: float | None = None) -> None:
        """An arena without environments yet.

        Args:
          step_timeout: seconds that make, reset, step and close of a row of environments may take each; None for the
            default, 600 unless `floppy.tasks.patience` says otherwise.

        Raises:
          FloppyError: for a limit that is not above 0.
        """
        super().__init__()
        self.step_timeout = None if step_timeout is None else as_step_timeout(step_timeout)
        self._running: list[HostEnvironments] = []
        self._rows: dict[Hashable, HostEnvironments] = {}

    def close(self) -> None:
        """Ends all environments."""
        for row in [*self._running, *self._rows.values()]:
            row.close()

    def chunk(self, task: HostTask, count: int, weights: Any, episodes: int) -> int:
        """By the number of live environments."""
        del task, weights
        most = max(1, MAX_ENVIRONMENTS // episodes)
        return math.ceil(count / math.ceil(count / most))

    def start_environments(self, task: HostTask, key: jax.Array, learners: int, environments: int) -> EnvironmentHandle:
        """Makes and resets a row of their own, in which episodes run on."""
        row = HostEnvironments(task, learners * environments, training=True, step_timeout=self.step_timeout)
        self._running.append(row)
        row.reset(environment_seeds(key, row.count))
        return EnvironmentHandle(jnp.asarray(len(self._running) - 1))

    def collect(
        self,
        task: HostTask,
        network: Network[Any],
        weights: Any,
        environments: EnvironmentHandle,
        key: jax.Array,
        *,
        steps: int,
        statistics: RunningStatistics | None = None,
    ) -> tuple[EnvironmentHandle, Trajectory]:
        """Step after step of the whole row."""
        del task
        row = self._running[int(environments.number)]
        return environments, collect(row, network, weights, key, steps=steps, statistics=statistics)

    def play_episodes(
        self,
        task: HostTask,
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
        """Every environment plays its share."""
        learners = jax.tree.leaves(weights)[0].shape[0]
        # Episodes that may be cut begin together, each in an environment of its own.
        width = episodes if max_episode_steps else _width(learners, episodes)
        played = play(
            self._row(task, learners * width),
            NetworkPolicy(network, greedy),
            weights,
            keys,
            (learners, width),
            episodes=episodes,
            statistics=statistics,
            per_evaluation_stats=per_evaluation_stats,
            max_episode_steps=max_episode_steps,
        )
        return played._replace(returns=of_sound_learners(weights, played.returns))

    def play_random(self, task: HostTask, key: jax.Array, episodes: int) -> Played:
        """Every environment plays its share."""
        width = _width(1, episodes)
        policy = RandomPolicy(task.actions)
        return play(self._row(task, width), policy, None, key[None], (1, width), episodes=episodes)

    def random_observations(self, task: HostTask, key: jax.Array, count: int) -> np.ndarray:
        """See `random_observations`."""
        return random_observations(self._row(task, max(1, min(count, 16))), key, count)

    def _row(self, task: HostTask, count: int) -> HostEnvironments:
        """Environments for plays that leave nothing behind, made once per number."""
        if (task, count) not in self._rows:
            row = HostEnvironments(task, count, training=False, step_timeout=self.step_timeout)
            self._rows[task, count] = row
        return self._rows[task, count]


def _width(learners: int, episodes: int) -> int:
    """Environments per learner, so that shares are as equal as can be."""
    share = math.ceil(episodes / max(1, MAX_ENVIRONMENTS // learners))
    return math.ceil(episodes / share)
