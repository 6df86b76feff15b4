"""Running statistics of observations, and the scale of pixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

CLIP = 10.0
EPSILON = 1e-8


class RunningStatistics(NamedTuple):
    """Mean and variance of everything seen so far."""

    seen: jax.Array
    """`[]`: observations seen."""
    mean: jax.Array
    """`[*obs]`"""
    var: jax.Array
    """`[*obs]`, population variance."""


class Moments(NamedTuple):
    """Sums over observations, which add up over time, environments, policies and devices."""

    total: jax.Array
    """`[]`: how many."""
    first: jax.Array
    """`[*obs]`: sum of `o - shift`."""
    second: jax.Array
    """`[*obs]`: sum of `(o - shift)²`."""


def init_statistics(shape: tuple[int, ...]) -> RunningStatistics:
    """Statistics before anything was seen: they scale nothing (but `normalise` clips)."""
    return RunningStatistics(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def as_floats(observations: jax.Array) -> jax.Array:
    """Pixels, which are bytes, as numbers from 0 to 1; all other observations as they are."""
    return observations.astype(jnp.float32) / 255.0 if observations.dtype == jnp.uint8 else observations


def moments_of(batch: jax.Array, weight: jax.Array, shift: jax.Array) -> Moments:
    """Sums over a batch `[n, *obs]` with weights `[n]` (0 leaves an observation out) about `shift [*obs]`.

    Near the mean as a shift, the difference of the sums does not cancel. What is left out may be anything, also NaN.
    """
    counts = (weight != 0).reshape(-1, *(1,) * shift.ndim)
    centred = jnp.where(counts, as_floats(batch) - shift[None], 0.0)
    return Moments(jnp.sum(weight), jnp.tensordot(weight, centred, 1), jnp.tensordot(weight, centred**2, 1))


def absorb_moments(statistics: RunningStatistics, moments: Moments, shift: jax.Array) -> RunningStatistics:
    """Merges sums taken about `shift [*obs]` (Chan et al., 1979: parallel variance); sums of nothing change nothing."""
    count = jnp.maximum(moments.total, 1.0)
    offset = moments.first / count
    mean, squares = shift + offset, jnp.maximum(moments.second - moments.total * offset**2, 0.0)
    seen = jnp.maximum(statistics.seen + moments.total, 1.0)
    delta = mean - statistics.mean
    squares = statistics.var * statistics.seen + squares + delta**2 * statistics.seen * moments.total / seen
    merged = RunningStatistics(
        statistics.seen + moments.total, statistics.mean + delta * moments.total / seen, squares / seen
    )
    chosen: RunningStatistics = jax.tree.map(
        lambda new, old: jnp.where(moments.total > 0, new, old), merged, statistics
    )
    return chosen


def update_statistics(statistics: RunningStatistics, batch: jax.Array) -> RunningStatistics:
    """Merges a batch `[n, *obs]`."""
    shift = jnp.mean(as_floats(batch), axis=0)
    return absorb_moments(statistics, moments_of(batch, jnp.ones(batch.shape[0]), shift), shift)


def normalise(statistics: RunningStatistics | None, observations: jax.Array) -> jax.Array:
    """What networks see: `(o - mean) / sqrt(var + 1e-8)`, clipped to ±10, or `o` without statistics.

    Pixels are scaled to 0 .. 1 first, see `as_floats`.
    """
    observations = as_floats(observations)
    if statistics is None:
        return observations
    leading = tuple(range(observations.ndim - statistics.mean.ndim))
    mean, var = (jnp.expand_dims(part, leading) for part in (statistics.mean, statistics.var))
    scaled = (observations - mean) / jnp.sqrt(var + EPSILON)
    return jnp.clip(scaled, -CLIP, CLIP)
