"""Playing policies on JAX tasks. `L` learners play `E` environments each; `T` is time."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floppy.keys import named_key
from floppy.learners import Network, Weights
from floppy.normalise import Moments, RunningStatistics, absorb_moments, init_statistics, moments_of, normalise
from floppy.policies import best_action, clip_action, random_action, sample_action
from floppy.tasks.base import JaxTask, TaskState

RANDOM_STEPS = 100


class Environments(NamedTuple):
    """Running episodes of `L x E` environments."""

    states: TaskState
    """Leaves `[L, E, ...]`."""
    observations: jax.Array
    """`[L, E, *obs]`"""
    returns: jax.Array
    """`[L, E]`: undiscounted return of the running episode."""


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


def start_environments(task: JaxTask, key: jax.Array, learners: int, environments: int) -> Environments:
    """Resets `learners x environments` environments."""
    states, observations = jax.vmap(jax.vmap(task.reset))(jax.random.split(key, (learners, environments)))
    return Environments(states, observations, jnp.zeros((learners, environments)))


def collect(
    task: JaxTask,
    network: Network,
    weights: Weights,
    environments: Environments,
    key: jax.Array,
    *,
    steps: int,
    statistics: RunningStatistics | None = None,
) -> tuple[Environments, Trajectory]:
    """Plays `steps` steps with sampled actions, starting the next episode wherever one ends.

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
    shape = environments.returns.shape
    act = jax.vmap(network.apply)
    step_all, reset_all = jax.vmap(jax.vmap(task.step)), jax.vmap(jax.vmap(task.reset))
    log_std = weights.log_std[:, None]

    def step(running: Environments, key: jax.Array) -> tuple[Environments, Trajectory]:
        outputs = act(weights, normalise(statistics, running.observations))
        actions = sample_action(named_key(key, "action"), network.actions, outputs, log_std)
        step_keys = jax.random.split(named_key(key, "step"), shape)
        states, observations, rewards, terminated, truncated = step_all(
            step_keys, running.states, clip_action(network.actions, actions)
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


class Played(NamedTuple):
    """One episode in each of `L x E` environments."""

    returns: jax.Array
    """`[L, E]`: undiscounted return, of an episode that was cut the return so far."""
    steps: jax.Array
    """`[L, E]` int: steps taken."""
    moments: Moments | None
    """Leaves `[L, ...]`: of the observations acted upon, about the mean of the statistics given, if any."""


def play_episodes(
    task: JaxTask,
    network: Network,
    weights: Weights,
    keys: jax.Array,
    *,
    episodes: int,
    greedy: bool = False,
    statistics: RunningStatistics | None = None,
    afresh: bool = False,
    most_steps: int | None = None,
) -> Played:
    """Plays one episode per environment, every one to its own end.

    Args:
      task: what is played.
      network: of the policies.
      weights: leaves `[L, ...]`.
      keys: `[S]` PRNG keys, consumed. `L` is a multiple of `S`: learners `i` and `i + S` meet the same random numbers.
      episodes: per learner.
      greedy: most likely actions in place of sampled ones.
      statistics: by which observations are normalised.
      afresh: in place of `statistics`, every learner starts statistics of its own, which each step updates.
      most_steps: after which an episode is cut; by default the task's own limit.

    Returns:
      Returns, lengths and observation sums.
    """
    learners, streams = jax.tree.leaves(weights)[0].shape[0], keys.shape[0]
    sample = jax.vmap(partial(sample_action, actions=network.actions))

    def act(keys: jax.Array, observations: jax.Array) -> jax.Array:
        outputs = jax.vmap(network.apply)(weights, observations)
        if greedy:
            return best_action(network.actions, outputs)
        blocks = [x.reshape(learners // streams, streams, *x.shape[1:]) for x in (outputs, weights.log_std[:, None])]
        actions = jax.vmap(lambda output, log_std: sample(keys, output=output, log_std=log_std))(*blocks)
        return actions.reshape(learners, *actions.shape[2:])

    return _play(task, act, keys, (learners, episodes), statistics, afresh, most_steps)


def play_random(task: JaxTask, key: jax.Array, episodes: int) -> Played:
    """Complete episodes with uniformly random actions, as one learner."""

    def act(keys: jax.Array, observations: jax.Array) -> jax.Array:
        return random_action(keys[0], task.actions, observations.shape[:2])

    return _play(task, act, key[None], (1, episodes))


def random_observations(task: JaxTask, key: jax.Array, count: int) -> jax.Array:
    """Observations `[count, *obs]` met by uniformly random actions, each at a random time of an episode of its own.

    The time is uniform over the first 100 steps, or over the part of them that the episode lasts.
    """

    def one(key: jax.Array) -> jax.Array:
        def step(carry: tuple[TaskState, jax.Array, jax.Array, jax.Array], time: jax.Array) -> tuple[Any, None]:
            state, observation, kept, alive = carry
            step_key = jax.random.fold_in(key, time)
            # Reservoir sampling: of t + 1 observations so far, each is the kept one with the same probability.
            keeps = alive & (jax.random.randint(named_key(step_key, "keep"), (), 0, time + 1) == 0)
            action = random_action(named_key(step_key, "action"), task.actions, ())
            state, following, _, terminated, truncated = task.step(named_key(step_key, "step"), state, action)
            kept = jnp.where(keeps, observation, kept)
            return (state, following, kept, alive & ~(terminated | truncated)), None

        state, observation = task.reset(named_key(key, "reset"))
        start = (state, observation, observation, jnp.ones((), bool))
        return jax.lax.scan(step, start, jnp.arange(RANDOM_STEPS))[0][2]

    return jax.vmap(one)(jax.random.split(key, count))


def playing_bytes(task: JaxTask, weights: Any, episodes: int) -> int:
    """Roughly what cloning and playing take: weights with Adam's moments, observations before and after a step."""
    floats = 5 * sum(leaf.size for leaf in jax.tree.leaves(weights))
    return 4 * (floats + 8 * episodes * math.prod(task.observation_shape))


class _Playing(NamedTuple):
    running: Environments
    alive: jax.Array
    steps: jax.Array
    moments: Moments | None
    own: RunningStatistics | None
    time: jax.Array


def _play(
    task: JaxTask,
    act: Callable[[jax.Array, jax.Array], jax.Array],
    keys: jax.Array,
    shape: tuple[int, int],
    statistics: RunningStatistics | None = None,
    afresh: bool = False,
    most_steps: int | None = None,
) -> Played:
    """`act(keys [S], observations [L, E, *obs])` chooses actions for normalised observations."""
    step_all, reset_all = jax.vmap(jax.vmap(task.step)), jax.vmap(jax.vmap(task.reset))
    limit = task.max_steps if most_steps is None else min(most_steps, task.max_steps)
    shift = jnp.zeros(task.observation_shape) if statistics is None else statistics.mean

    def split(keys: jax.Array, name: str) -> jax.Array:
        """A key per environment, `[L, E]`."""
        streams = jax.vmap(lambda key: jax.random.split(named_key(key, name), shape[1]))(keys)
        return jnp.tile(streams, (shape[0] // keys.shape[0], 1))

    def observe(now: _Playing) -> tuple[jax.Array, Moments | None, RunningStatistics | None]:
        """What the policies see of the observations, and everything that was learnt from them."""
        observations, moments, own = now.running.observations, now.moments, now.own
        sums = jax.vmap(moments_of, in_axes=(0, 0, None))(observations, now.alive.astype(jnp.float32), shift)
        if moments is not None:
            moments = jax.tree.map(jnp.add, moments, sums)
        if own is None:
            return normalise(statistics, observations), moments, None
        own = jax.vmap(absorb_moments, in_axes=(0, 0, None))(own, sums, shift)
        return jax.vmap(normalise)(own, observations), moments, own

    def step(now: _Playing) -> _Playing:
        step_keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, now.time)
        seen, moments, own = observe(now)
        actions = act(jax.vmap(partial(named_key, name="action"))(step_keys), seen)
        states, observations, rewards, terminated, truncated = step_all(
            split(step_keys, "step"), now.running.states, clip_action(task.actions, actions)
        )
        running = Environments(states, observations, now.running.returns + jnp.where(now.alive, rewards, 0.0))
        alive = now.alive & ~(terminated | truncated)
        return _Playing(running, alive, now.steps + now.alive, moments, own, now.time + 1)

    def unfinished(now: _Playing) -> jax.Array:
        return jnp.any(now.alive) & (now.time < limit)

    states, observations = reset_all(split(keys, "start"))
    fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (shape[0], *x.shape)), init_statistics(task.observation_shape))
    begin = _Playing(
        Environments(states, observations, jnp.zeros(shape)),
        jnp.ones(shape, bool),
        jnp.zeros(shape, jnp.int32),
        None if statistics is None else jax.tree.map(jnp.zeros_like, Moments(*fresh)),
        fresh if afresh else None,
        jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(unfinished, step, begin)
    return Played(end.running.returns, end.steps, end.moments)


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where` with `condition [L, E]` broadcast over trailing axes."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)
