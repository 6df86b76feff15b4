"""Playing policies on JAX tasks: everything is one compiled function. `T` is time.

`L` learners play `E` environments each.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.parallel import chunk_size, shard_rows, sharded_map
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
from floppy.play.arena import EpisodicArena, Played, Trajectory
from floppy.play.normalise import RunningStatistics
from floppy.tasks.base import JaxTask, TaskState, reset_of, step_of

RANDOM_STEPS = 100


class Environments(NamedTuple):
    """Running episodes of `L x E` environments."""

    states: TaskState
    """Leaves `[L, E, ...]`."""
    observations: jax.Array
    """`[L, E, *obs]`"""
    returns: jax.Array
    """`[L, E]`: undiscounted return of the running episode."""


def start_environments(task: JaxTask, key: jax.Array, learners: int, environments: int) -> Environments:
    """Resets `learners x environments` environments."""
    states, observations = jax.vmap(jax.vmap(reset_of(task)))(jax.random.split(key, (learners, environments)))
    return Environments(states, observations, jnp.zeros((learners, environments)))


def collect(
    task: JaxTask,
    network: Network[Any],
    weights: Any,
    environments: Environments,
    key: jax.Array,
    *,
    steps: int,
    statistics: RunningStatistics | None = None,
) -> tuple[Environments, Trajectory]:
    """Plays `steps` steps from where the previous call left off; see `Arena.collect`."""
    shape = environments.returns.shape
    step_all, reset_all = jax.vmap(jax.vmap(step_of(task))), jax.vmap(jax.vmap(reset_of(task)))

    def step(running: Environments, key: jax.Array) -> tuple[Environments, Trajectory]:
        outputs, actions = explore(network, weights, running.observations, key, statistics)
        step_keys = jax.random.split(named_key(key, "step"), shape)
        states, observations, rewards, terminated, truncated = step_all(
            step_keys, running.states, network.actions.clip(actions)
        )
        ended = terminated | truncated
        returns = running.returns + rewards
        fresh_states, fresh_observations = reset_all(jax.random.split(named_key(key, "reset"), shape))
        following = Environments(
            jax.tree.map(lambda fresh, old: _where(ended, fresh, old), fresh_states, states),
            _where(ended, fresh_observations, observations),
            jnp.where(ended, 0.0, returns),
        )
        record = Trajectory(
            running.observations,
            observations,
            actions,
            outputs,
            rewards,
            terminated,
            truncated,
            jnp.where(ended, returns, 0.0),
        )
        return following, record

    return jax.lax.scan(step, environments, jax.random.split(key, steps))


def random_observations(task: JaxTask, key: jax.Array, count: int) -> jax.Array:
    """Observations `[count, *obs]` seen under uniformly random actions, each at a random time of an episode of its own.

    The time is uniform over the first 100 steps, or over the part of them that the episode lasts.
    """

    def one(key: jax.Array) -> jax.Array:
        def step(carry: tuple[TaskState, jax.Array, jax.Array, jax.Array], time: jax.Array) -> tuple[Any, None]:
            state, observation, kept, alive = carry
            step_key = jax.random.fold_in(key, time)
            # Reservoir sampling: of t + 1 observations so far, each is the kept one with the same probability.
            keeps = alive & (jax.random.randint(named_key(step_key, "keep"), (), 0, time + 1) == 0)
            action = task.actions.random(named_key(step_key, "action"), ())
            state, following, _, terminated, truncated = step_of(task)(named_key(step_key, "step"), state, action)
            kept = jnp.where(keeps, observation, kept)
            return (state, following, kept, alive & ~(terminated | truncated)), None

        state, observation = reset_of(task)(named_key(key, "reset"))
        start = (state, observation, observation, jnp.ones((), bool))
        return jax.lax.scan(step, start, jnp.arange(RANDOM_STEPS))[0][2]

    return jax.vmap(one)(jax.random.split(key, count))


def playing_bytes(task: JaxTask, weights: Any, episodes: int) -> int:
    """Roughly what cloning and playing take: weights with Adam's moments, observations before and after a step."""
    floats = 5 * sum(int(leaf.size) for leaf in jax.tree.leaves(weights))
    return 4 * (floats + 8 * episodes * math.prod(task.observation_shape))


class _Playing(NamedTuple):
    running: Environments
    alive: jax.Array
    steps: jax.Array
    stats: ObservationStats
    time: jax.Array


def play(
    task: JaxTask,
    policy: Actor,
    weights: Any,
    keys: jax.Array,
    shape: tuple[int, int],
    statistics: RunningStatistics | None = None,
    per_evaluation_stats: bool = False,
    max_episode_steps: int | None = None,
) -> Played:
    """Plays one episode per environment, every one to its own end; see `Arena.play_episodes`. `shape` is `L, E`."""
    step_all, reset_all = jax.vmap(jax.vmap(step_of(task))), jax.vmap(jax.vmap(reset_of(task)))
    limit = task.max_steps if max_episode_steps is None else min(max_episode_steps, task.max_steps)

    def step(now: _Playing) -> _Playing:
        keys_now = step_keys(keys, now.time)
        actions, stats = decide(policy, weights, keys_now, now.running.observations, now.alive, statistics, now.stats)
        states, observations, rewards, terminated, truncated = step_all(
            split_keys(keys_now, "step", shape), now.running.states, actions
        )
        running = Environments(states, observations, now.running.returns + jnp.where(now.alive, rewards, 0.0))
        alive = now.alive & ~(terminated | truncated)
        return _Playing(running, alive, now.steps + now.alive, stats, now.time + 1)

    def unfinished(now: _Playing) -> jax.Array:
        return jnp.any(now.alive) & (now.time < limit)

    states, observations = reset_all(split_keys(keys, "start", shape))
    begin = _Playing(
        Environments(states, observations, jnp.zeros(shape)),
        jnp.ones(shape, bool),
        jnp.zeros(shape, jnp.int32),
        no_observations(
            shape[0],
            task.observation_shape,
            with_moments=statistics is not None,
            per_evaluation_stats=per_evaluation_stats,
        ),
        jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(unfinished, step, begin)
    return Played(end.running.returns, end.steps, end.stats.moments)


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where` with `condition [L, E]` broadcast over trailing axes."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)


@dataclasses.dataclass(frozen=True)
class DeviceArena(EpisodicArena[JaxTask]):
    """Where JAX tasks are played: everything is one compiled function, which the caller compiles. See `Arena`."""

    is_pure: bool = True
    has_own_limits: ClassVar[bool] = False

    @classmethod
    def of(cls, task: JaxTask, *, step_timeout: float | None = None) -> "DeviceArena":
        """The same for all: tasks never wait for anything."""
        del task, step_timeout
        return ON_DEVICE

    def close(self) -> None:
        """Nothing is live."""

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """The caller compiles."""
        del static
        return function

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """Spread over all devices."""
        return sharded_map(function, count, chunk, *operands)

    def chunk(self, task: JaxTask, count: int, weights: Any, episodes: int) -> int:
        """By memory."""
        return chunk_size(count, playing_bytes(task, weights, episodes))

    def start_environments(self, task: JaxTask, key: jax.Array, learners: int, environments: int) -> Environments:
        """Their states are part of the outer loop's."""
        return start_environments(task, key, learners, environments)

    def collect(
        self,
        task: JaxTask,
        network: Network[Any],
        weights: Any,
        environments: Environments,
        key: jax.Array,
        *,
        steps: int,
        statistics: RunningStatistics | None = None,
    ) -> tuple[Environments, Trajectory]:
        """Learners are spread over the devices."""
        running = shard_rows(environments)
        return collect(task, network, weights, running, key, steps=steps, statistics=statistics)

    def play_episodes(
        self,
        task: JaxTask,
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
        """One episode per environment, every one to its own end."""
        shape = (jax.tree.leaves(weights)[0].shape[0], episodes)
        policy = NetworkPolicy(network, greedy)
        played = play(task, policy, weights, keys, shape, statistics, per_evaluation_stats, max_episode_steps)
        return played._replace(returns=of_sound_learners(weights, played.returns))

    def play_random(self, task: JaxTask, key: jax.Array, episodes: int) -> Played:
        """One episode per environment."""
        return play(task, RandomPolicy(task.actions), None, key[None], (1, episodes))

    def random_observations(self, task: JaxTask, key: jax.Array, count: int) -> jax.Array:
        """Each of an episode of its own."""
        return random_observations(task, key, count)


ON_DEVICE = DeviceArena()
