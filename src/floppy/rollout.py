"""Playing policies on JAX tasks. `L` learners play `E` environments each; `T` is time."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floppy.keys import named_key
from floppy.learners import Network, Weights
from floppy.normalise import RunningStatistics, normalise
from floppy.policies import best_action, clip_action, random_action, sample_action
from floppy.tasks.base import JaxTask, TaskState


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


def play_episodes(
    task: JaxTask,
    network: Network,
    weights: Weights,
    key: jax.Array,
    *,
    episodes: int,
    greedy: bool = False,
    statistics: RunningStatistics | None = None,
) -> jax.Array:
    """Plays complete episodes, every one to its own end.

    Args:
      task: what is played.
      network: of the policies.
      weights: leaves `[L, ...]`.
      key: PRNG key, consumed.
      episodes: per learner.
      greedy: most likely actions in place of sampled ones.
      statistics: by which observations are normalised.

    Returns:
      `[L, episodes]` undiscounted returns.
    """
    learners = jax.tree.leaves(weights)[0].shape[0]
    log_std = weights.log_std[:, None]

    def act(key: jax.Array, observations: jax.Array) -> jax.Array:
        outputs = jax.vmap(network.apply)(weights, normalise(statistics, observations))
        if greedy:
            return best_action(network.actions, outputs)
        return sample_action(key, network.actions, outputs, log_std)

    return _play(task, act, key, (learners, episodes))


def play_random(task: JaxTask, key: jax.Array, episodes: int) -> jax.Array:
    """Returns `[episodes]` of complete episodes with uniformly random actions."""

    def act(key: jax.Array, observations: jax.Array) -> jax.Array:
        return random_action(key, task.actions, observations.shape[:2])

    return _play(task, act, key, (1, episodes))[0]


def _play(
    task: JaxTask, act: Callable[[jax.Array, jax.Array], jax.Array], key: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Returns `[L, E]` of one episode in each environment; `act(key, observations [L, E, *obs])` chooses actions."""
    step_all = jax.vmap(jax.vmap(task.step))

    def step(carry: tuple[Environments, jax.Array, jax.Array]) -> tuple[Environments, jax.Array, jax.Array]:
        running, alive, time = carry
        step_key = jax.random.fold_in(key, time)
        actions = clip_action(task.actions, act(named_key(step_key, "action"), running.observations))
        step_keys = jax.random.split(named_key(step_key, "step"), shape)
        states, observations, rewards, terminated, truncated = step_all(step_keys, running.states, actions)
        returns = running.returns + jnp.where(alive, rewards, 0.0)
        return Environments(states, observations, returns), alive & ~(terminated | truncated), time + 1

    def unfinished(carry: tuple[Environments, jax.Array, jax.Array]) -> jax.Array:
        return jnp.any(carry[1]) & (carry[2] < task.max_steps)

    start = start_environments(task, named_key(key, "start"), *shape)
    carry = (start, jnp.ones(shape, bool), jnp.zeros((), jnp.int32))
    return jax.lax.while_loop(unfinished, step, carry)[0].returns


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where` with `condition [L, E]` broadcast over trailing axes."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)
