"""Playing policies on JAX tasks. `L` learners play `E` environments each; `T` is time.

What policies see and do, `explore` and `decide`, is the same for host tasks (`host.py`).
"""

import dataclasses
import math
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from floppy.keys import named_key
from floppy.learners import Network, Weights
from floppy.normalise import Moments, RunningStatistics, absorb_moments, init_statistics, moments_of, normalise
from floppy.policies import best_action, clip_action, random_action, sample_action
from floppy.tasks.base import Continuous, Discrete, JaxTask, TaskState

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
    step_all, reset_all = jax.vmap(jax.vmap(task.step)), jax.vmap(jax.vmap(task.reset))

    def step(running: Environments, key: jax.Array) -> tuple[Environments, Trajectory]:
        outputs, actions = explore(network, weights, running.observations, key, statistics)
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


def explore(
    network: Network,
    weights: Weights,
    observations: jax.Array,
    key: jax.Array,
    statistics: RunningStatistics | None,
) -> tuple[jax.Array, jax.Array]:
    """Outputs `[L, E, a]` for raw observations `[L, E, *obs]`, and sampled actions, before clipping."""
    outputs = jax.vmap(network.apply)(weights, normalise(statistics, observations))
    actions = sample_action(named_key(key, "action"), network.actions, outputs, weights.log_std[:, None])
    return outputs, actions


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
    shape = (jax.tree.leaves(weights)[0].shape[0], episodes)
    return _play(task, NetworkPolicy(network, greedy), weights, keys, shape, statistics, afresh, most_steps)


def play_random(task: JaxTask, key: jax.Array, episodes: int) -> Played:
    """Complete episodes with uniformly random actions, as one learner."""
    return _play(task, RandomPolicy(task.actions), None, key[None], (1, episodes))


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


class Policy(Protocol):
    """How actions are chosen; hashable, so that a compiled function is reused for an equal one."""

    @property
    def actions(self) -> Discrete | Continuous:
        """The action space."""

    def __call__(self, weights: Any, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Actions, before clipping, for normalised observations `[L, E, *obs]`; `weights [L, ...]`, `keys [S]`."""


@dataclasses.dataclass(frozen=True)
class NetworkPolicy:
    """What networks put out, sampled or the most likely."""

    network: Network
    greedy: bool = False

    @property
    def actions(self) -> Discrete | Continuous:
        """The action space."""
        return self.network.actions

    def __call__(self, weights: Weights, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Learners `i` and `i + S` share a key."""
        outputs = jax.vmap(self.network.apply)(weights, observations)
        if self.greedy:
            return best_action(self.actions, outputs)
        learners, streams = outputs.shape[0], keys.shape[0]
        sample = jax.vmap(partial(sample_action, actions=self.actions))
        blocks = [x.reshape(learners // streams, streams, *x.shape[1:]) for x in (outputs, weights.log_std[:, None])]
        actions = jax.vmap(lambda output, log_std: sample(keys, output=output, log_std=log_std))(*blocks)
        return actions.reshape(learners, *actions.shape[2:])


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
    """Uniformly random actions, of one learner."""

    actions: Discrete | Continuous

    def __call__(self, weights: None, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Looks at the observations' shape only."""
        return random_action(keys[0], self.actions, observations.shape[:2])


class Met(NamedTuple):
    """What was learnt from the observations met so far."""

    moments: Moments | None
    """As in `Played`."""
    own: RunningStatistics | None
    """Leaves `[L, ...]`: statistics that every learner started afresh."""


def nothing_met(learners: int, shape: tuple[int, ...], *, with_moments: bool, afresh: bool) -> Met:
    """Before the first of the observations, which are of `shape`."""
    fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (learners, *x.shape)), init_statistics(shape))
    return Met(jax.tree.map(jnp.zeros_like, Moments(*fresh)) if with_moments else None, fresh if afresh else None)


def decide(
    policy: Policy,
    weights: Any,
    keys: jax.Array,
    observations: jax.Array,
    alive: jax.Array,
    statistics: RunningStatistics | None,
    met: Met,
) -> tuple[jax.Array, Met]:
    """What policies do about observations.

    Args:
      policy: how actions are chosen.
      weights: leaves `[L, ...]`.
      keys: `[S]`, of this step.
      observations: `[L, E, *obs]`, raw.
      alive: `[L, E]` bool: whether an observation counts.
      statistics: by which they are normalised.
      met: what was learnt from observations so far; its own statistics stand in place of `statistics`.

    Returns:
      Actions within their bounds, and what has been learnt now.
    """
    moments, own = met
    shift = jnp.zeros(observations.shape[2:]) if statistics is None else statistics.mean
    sums = jax.vmap(moments_of, in_axes=(0, 0, None))(observations, alive.astype(jnp.float32), shift)
    if moments is not None:
        moments = jax.tree.map(jnp.add, moments, sums)
    if own is None:
        seen = normalise(statistics, observations)
    else:
        own = jax.vmap(absorb_moments, in_axes=(0, 0, None))(own, sums, shift)
        seen = jax.vmap(normalise)(own, observations)
    actions = policy(weights, jax.vmap(partial(named_key, name="action"))(keys), seen)
    return clip_action(policy.actions, actions), Met(moments, own)


def split_keys(keys: jax.Array, name: str, shape: tuple[int, int]) -> jax.Array:
    """A key per environment, `[L, E]`, from keys `[S]`."""
    streams = jax.vmap(lambda key: jax.random.split(named_key(key, name), shape[1]))(keys)
    return jnp.tile(streams, (shape[0] // keys.shape[0], 1))


def step_keys(keys: jax.Array, time: jax.Array) -> jax.Array:
    """Keys `[S]` of one step of a play."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, time)


class _Playing(NamedTuple):
    running: Environments
    alive: jax.Array
    steps: jax.Array
    met: Met
    time: jax.Array


def _play(
    task: JaxTask,
    policy: Policy,
    weights: Any,
    keys: jax.Array,
    shape: tuple[int, int],
    statistics: RunningStatistics | None = None,
    afresh: bool = False,
    most_steps: int | None = None,
) -> Played:
    step_all, reset_all = jax.vmap(jax.vmap(task.step)), jax.vmap(jax.vmap(task.reset))
    limit = task.max_steps if most_steps is None else min(most_steps, task.max_steps)

    def step(now: _Playing) -> _Playing:
        keys_now = step_keys(keys, now.time)
        actions, met = decide(policy, weights, keys_now, now.running.observations, now.alive, statistics, now.met)
        states, observations, rewards, terminated, truncated = step_all(
            split_keys(keys_now, "step", shape), now.running.states, actions
        )
        running = Environments(states, observations, now.running.returns + jnp.where(now.alive, rewards, 0.0))
        alive = now.alive & ~(terminated | truncated)
        return _Playing(running, alive, now.steps + now.alive, met, now.time + 1)

    def unfinished(now: _Playing) -> jax.Array:
        return jnp.any(now.alive) & (now.time < limit)

    states, observations = reset_all(split_keys(keys, "start", shape))
    begin = _Playing(
        Environments(states, observations, jnp.zeros(shape)),
        jnp.ones(shape, bool),
        jnp.zeros(shape, jnp.int32),
        nothing_met(shape[0], task.observation_shape, with_moments=statistics is not None, afresh=afresh),
        jnp.zeros((), jnp.int32),
    )
    end = jax.lax.while_loop(unfinished, step, begin)
    return Played(end.running.returns, end.steps, end.met.moments)


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    """`jnp.where` with `condition [L, E]` broadcast over trailing axes."""
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)
