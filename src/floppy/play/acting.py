"""How policies choose actions, on the device as on the host. `L` learners play `E` environments each."""

import dataclasses
from functools import partial
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from floppy.keys import named_key
from floppy.learner.network import Network, have_diverged
from floppy.play.normalise import (
    FILE_FLOOR,
    Moments,
    RunningStatistics,
    absorb_moments,
    init_statistics,
    moments_of,
    normalise,
)
from floppy.spaces import ActionSpace


def explore(
    network: Network[Any],
    weights: Any,
    observations: jax.Array,
    key: jax.Array,
    statistics: RunningStatistics | None,
) -> tuple[jax.Array, jax.Array]:
    """Outputs `[L, E, a]` for raw observations `[L, E, *obs]`, and sampled actions, before clipping."""
    outputs = jax.vmap(network.apply)(weights, normalise(statistics, observations))
    actions = network.actions.sample(named_key(key, "action"), outputs, weights.log_std[:, None])
    return outputs, actions


class Actor(Protocol):
    """How actions are chosen; hashable, so that a compiled function is reused for an equal one."""

    @property
    def actions(self) -> ActionSpace:
        """The action space."""

    def __call__(self, weights: Any, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Actions, before clipping, for normalised observations `[L, E, *obs]`; `weights [L, ...]`, `keys [S]`."""


@dataclasses.dataclass(frozen=True)
class NetworkPolicy:
    """What networks put out, sampled or the most likely."""

    network: Network[Any]
    greedy: bool = False

    @property
    def actions(self) -> ActionSpace:
        """The action space."""
        return self.network.actions

    def __call__(self, weights: Any, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Learners `i` and `i + S` share a key."""
        outputs = jax.vmap(self.network.apply)(weights, observations)
        if self.greedy:
            return self.actions.most_likely(outputs)
        learners, streams = outputs.shape[0], keys.shape[0]
        sample = jax.vmap(self.actions.sample)
        blocks = [x.reshape(learners // streams, streams, *x.shape[1:]) for x in (outputs, weights.log_std[:, None])]
        actions = jax.vmap(lambda output, log_std: sample(keys, output, log_std))(*blocks)
        return actions.reshape(learners, *actions.shape[2:])


@dataclasses.dataclass(frozen=True)
class RandomPolicy:
    """Uniformly random actions, of one learner."""

    actions: ActionSpace

    def __call__(self, weights: None, keys: jax.Array, observations: jax.Array) -> jax.Array:
        """Looks at the observations' shape only."""
        return self.actions.random(keys[0], observations.shape[:2])


class ObservationStats(NamedTuple):
    """Statistics of the observations seen so far."""

    moments: Moments | None
    """As in `Played`."""
    own: RunningStatistics | None
    """Leaves `[L, ...]`: of the statistics that every learner starts with zero and updates."""


def no_observations(
    learners: int, shape: tuple[int, ...], *, with_moments: bool, per_evaluation_stats: bool
) -> ObservationStats:
    """The statistics before the first observation, which are of `shape`."""
    # Only published files ask for statistics of their own, and they were made with that floor.
    fresh = jax.tree.map(lambda x: jnp.broadcast_to(x, (learners, *x.shape)), init_statistics(shape, FILE_FLOOR))
    moments = jax.tree.map(jnp.zeros_like, Moments(*fresh[:3])) if with_moments else None
    return ObservationStats(moments, fresh if per_evaluation_stats else None)


def decide(
    policy: Actor,
    weights: Any,
    keys: jax.Array,
    observations: jax.Array,
    alive: jax.Array,
    statistics: RunningStatistics | None,
    stats: ObservationStats,
) -> tuple[jax.Array, ObservationStats]:
    """What policies do about observations.

    Args:
      policy: how actions are chosen.
      weights: leaves `[L, ...]`.
      keys: `[S]`, of this step.
      observations: `[L, E, *obs]`, raw.
      alive: `[L, E]` bool: whether an observation counts.
      statistics: by which they are normalised.
      stats: of the observations so far; its own statistics stand in place of `statistics`.

    Returns:
      Actions within their bounds, and the statistics with these observations.
    """
    moments, own = stats
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
    return policy.actions.clip(actions), ObservationStats(moments, own)


def of_sound_learners(weights: Any, returns: jax.Array) -> jax.Array:
    """Returns `[L, episodes]`, NaN of the learners that diverged.

    Where actions are discrete, no task shows it: of logits that are NaN some action is the likeliest too.
    """
    return jnp.where(have_diverged(weights)[:, None], jnp.nan, returns)


def split_keys(keys: jax.Array, name: str, shape: tuple[int, int]) -> jax.Array:
    """A key per environment, `[L, E]`, from keys `[S]`."""
    streams = jax.vmap(lambda key: jax.random.split(named_key(key, name), shape[1]))(keys)
    return jnp.tile(streams, (shape[0] // keys.shape[0], 1))


def step_keys(keys: jax.Array, time: jax.Array) -> jax.Array:
    """Keys `[S]` of one step of a play."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, time)
