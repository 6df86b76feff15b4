"""Playing policies on host tasks: what `rollout.py` does for JAX tasks, with a Python loop around compiled policies.

`L` learners play `E` environments each; `T` is time. All of them are one row of one vector environment.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, one_line
from floppy.keys import named_key
from floppy.learners import Network, Weights
from floppy.normalise import RunningStatistics
from floppy.policies import clip_action, random_action
from floppy.rollout import (
    RANDOM_STEPS,
    Met,
    Played,
    Policy,
    Trajectory,
    decide,
    explore,
    nothing_met,
    split_keys,
    step_keys,
)
from floppy.tasks.base import Discrete, FaultyEnvironmentError, HostTask

MOST_ENVIRONMENTS = 256
"""Environments that play at a time; a MuJoCo environment takes 1 to 2 MB and 15 ms to make."""


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


class Row:
    """`n` live environments of a host task. Whatever goes wrong in one of them is an `FaultyEnvironmentError`."""

    def __init__(self, task: HostTask, count: int, *, training: bool) -> None:
        self.task, self.count = task, count
        try:
            self.vector = task.make_vector(count, training=training)
        except FloppyError:
            raise
        except (Exception, SystemExit) as error:  # an environment's own code may raise anything
            raise self._raised("made", error) from error
        self.observations = np.zeros((count, *task.observation_shape), np.float32)
        """`[n, *obs]` of the states that the environments are in."""
        self.returns = np.zeros(count)
        """`[n]`: undiscounted return of the running episode."""

    def reset(self, seeds: jax.Array, episodes: int | None = None) -> None:
        """Starts an episode everywhere, by seeds `[n]`; after so many `episodes` an environment may rest."""
        options = None if episodes is None else {"episodes": episodes}
        each: Any = [int(seed) for seed in np.asarray(seeds)]
        try:
            observations, _ = self.vector.reset(seed=each, options=options)
        except FloppyError:
            raise
        except (Exception, SystemExit) as error:
            raise self._raised("reset", error) from error
        self.observations = self._checked(observations, "observation")
        self.returns = np.zeros(self.count)

    def step(self, actions: Any) -> Step:
        """Takes actions `[n]` or `[n, a]`; where an episode ends the next one starts."""
        try:
            observations, rewards, terminated, truncated, infos = self.vector.step(np.asarray(actions))
        except FloppyError:
            raise
        except (Exception, SystemExit) as error:
            raise self._raised("stepped", error) from error
        ended = np.flatnonzero(terminated | truncated)
        self.observations = reached = self._checked(observations, "observation")
        if ended.size:
            reached = reached.copy()
            final = np.stack([np.asarray(infos["final_obs"][index]) for index in ended])
            reached[ended] = self._checked(final, "observation")
        rewards = self._checked(rewards, "reward")
        self.returns = self.returns + rewards
        return Step(reached, rewards, np.asarray(terminated, bool), np.asarray(truncated, bool))

    def close(self) -> None:
        """Ends the environments; what they say about it helps nobody."""
        try:
            self.vector.close()
        except Exception:  # the run's own outcome counts
            return

    def _checked(self, values: Any, what: str) -> np.ndarray:
        """In memory of its own, for a vector environment may use that of `values` again, and finite.

        Pixels stay bytes, a quarter of the memory; all else is float32.
        """
        is_bytes = what == "observation" and np.asarray(values).dtype == np.uint8
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite
            array = np.array(values, np.uint8 if is_bytes else np.float32)
        if what == "observation" and array.shape[1:] != self.task.observation_shape:
            raise FaultyEnvironmentError(
                f"{self.task.task_id} returned an observation of shape {array.shape[1:]} in place of "
                f"{self.task.observation_shape}: repair the environment."
            )
        if not np.all(np.isfinite(array)):
            kind = "NaN" if np.any(np.isnan(array)) else "an infinite value"
            raise FaultyEnvironmentError(f"{self.task.task_id} returned {kind} as its {what}: repair the environment.")
        return array

    def _raised(self, done: str, error: BaseException) -> FaultyEnvironmentError:
        said = f": {one_line(error)}" if str(error) else ""
        return FaultyEnvironmentError(
            f"{self.task.task_id} raised an error when {done} ({type(error).__name__}{said}): repair the environment."
        )


def collect(
    row: Row,
    network: Network,
    weights: Weights,
    key: jax.Array,
    *,
    steps: int,
    statistics: RunningStatistics | None = None,
) -> Trajectory:
    """Plays `steps` steps with sampled actions from where the row stands; see `rollout.collect`.

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
        step = row.step(_within_bounds(row.task, clipped)[0])
        ended = step.terminated | step.truncated
        final_returns = np.where(ended, row.returns, 0.0).astype(np.float32)
        row.returns = np.where(ended, 0.0, row.returns)
        flat: list[Any] = [before, step.reached, step.rewards, step.terminated, step.truncated, final_returns]
        observations, reached, *rest = (x.reshape(*shape, *x.shape[1:]) for x in flat)
        record: list[Any] = [observations, reached, np.asarray(actions), np.asarray(outputs), *rest]
        records.append(Trajectory(*record))
    return jax.tree.map(lambda *times: np.stack(times), *records)


@functools.partial(jax.jit, static_argnums=0)
def _explore(
    network: Network,
    weights: Weights,
    observations: jax.Array,
    keys: jax.Array,
    time: jax.Array,
    statistics: RunningStatistics | None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    outputs, actions = explore(network, weights, observations, keys[time], statistics)
    return outputs, actions, clip_action(network.actions, actions)


def play(
    row: Row,
    policy: Policy,
    weights: Any,
    keys: jax.Array,
    shape: tuple[int, int],
    *,
    episodes: int,
    statistics: RunningStatistics | None = None,
    afresh: bool = False,
    most_steps: int | None = None,
) -> Played:
    """Plays complete episodes: every environment exactly as many as its share, for short ones would end first.

    Args:
      row: `L · E` environments, those of a learner side by side.
      policy: how actions are chosen.
      weights: leaves `[L, ...]`.
      keys: `[S]` PRNG keys, consumed, as for `rollout.play_episodes`; seeds of environments follow from them too.
      shape: `L, E`.
      episodes: per learner. With `E` less than that, environments play several in turn, and what the last of them play
        too many is left out.
      statistics: as for `rollout.play_episodes`.
      afresh: as for `rollout.play_episodes`.
      most_steps: after which an episode is cut; it asks for `E = episodes`.

    Returns:
      Returns and lengths `[L, episodes]`, and observation sums. The return is NaN where a policy's output was: the
      environment is not to blame for that.
    """
    share = -(-episodes // shape[1])
    limit = row.task.max_steps * share if most_steps is None else min(most_steps, row.task.max_steps)
    row.reset(_seeds(keys, shape), share)
    met = nothing_met(shape[0], row.task.observation_shape, with_moments=statistics is not None, afresh=afresh)
    returns, steps = np.zeros((row.count, share)), np.zeros((row.count, share), np.int32)
    done = np.zeros(row.count, int)  # episodes
    for time in range(limit):
        alive = done < share
        if not alive.any():
            break
        observations = row.observations.reshape(*shape, *row.observations.shape[1:])
        actions, met = _decide(
            policy, weights, keys, np.int32(time), observations, alive.reshape(shape), statistics, met
        )
        taken, diverged = _within_bounds(row.task, actions)
        step = row.step(taken)
        playing = np.flatnonzero(alive)
        returns[playing, done[playing]] += np.where(diverged, np.nan, step.rewards)[playing]
        steps[playing, done[playing]] += 1
        done += alive & (step.terminated | step.truncated)
    by_learner = [jnp.asarray(x.reshape(shape[0], -1)[:, :episodes]) for x in (returns.astype(np.float32), steps)]
    return Played(by_learner[0], by_learner[1], met.moments)


@functools.partial(jax.jit, static_argnums=0)
def _decide(
    policy: Policy,
    weights: Any,
    keys: jax.Array,
    time: jax.Array,
    observations: jax.Array,
    alive: jax.Array,
    statistics: RunningStatistics | None,
    met: Met,
) -> tuple[jax.Array, Met]:
    return decide(policy, weights, step_keys(keys, time), observations, alive, statistics, met)


def _within_bounds(task: HostTask, actions: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """Actions `[L · E, ...]` that an environment may be given, and `[L · E]` whether another one was meant, a NaN."""
    flat = np.asarray(actions).reshape(-1, *actions.shape[2:])
    if isinstance(task.actions, Discrete):
        return flat, np.zeros(len(flat), bool)
    diverged = np.isnan(flat)
    return np.where(diverged, np.array(task.actions.low, np.float32), flat), diverged.any(axis=1)


def environment_seeds(key: jax.Array, count: int) -> jax.Array:
    """Seeds `[count]` of environments, of 31 bits, which every library accepts."""
    return jax.random.bits(key, (count,)) >> 1


@functools.partial(jax.jit, static_argnums=1)
def _seeds(keys: jax.Array, shape: tuple[int, int]) -> jax.Array:
    return jax.vmap(lambda key: environment_seeds(key, 1)[0])(split_keys(keys, "start", shape).ravel())


def random_observations(row: Row, key: jax.Array, count: int) -> np.ndarray:
    """Observations `[count, *obs]` met by uniformly random actions at random times.

    They come from the first 100 steps of every environment of the row, episodes following one another, or from more
    steps where so many observations are asked for.
    """
    row.reset(environment_seeds(named_key(key, "reset"), row.count))
    actions = row.task.actions
    met = []
    for time in range(max(RANDOM_STEPS, -(-count // row.count))):
        met.append(row.observations)
        row.step(random_action(jax.random.fold_in(named_key(key, "action"), time), actions, (row.count,)))
    all_met = np.concatenate(met)
    kept = jax.random.choice(named_key(key, "keep"), len(all_met), (count,), replace=False)
    return all_met[np.asarray(kept)]
