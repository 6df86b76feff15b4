"""Running statistics of observations, and the scale of pixels."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from floppy.dataset.card import EPSILON

CLIP = 10.0

FILE_FLOOR = np.array([EPSILON, 0.0], np.float32)
"""The `floor` of statistics in those files."""

UNIT_FREE_FLOOR = np.array([1e-24, 1e-12], np.float32)
"""The `floor` of statistics that a run keeps: the same for a task in any units. What varies by less than a millionth of
its mean is noise of float32."""


class RunningStatistics(NamedTuple):
    """Mean and variance of everything seen so far."""

    seen: jax.Array
    """`[]`: observations seen."""
    mean: jax.Array
    """`[*obs]`"""
    var: jax.Array
    """`[*obs]`, population variance."""
    floor: jax.Array | np.ndarray = FILE_FLOOR
    """`[2]`: what is added to the variance, a number and a factor of the squared mean."""


class Moments(NamedTuple):
    """Sums over observations, which add up over time, environments, policies and devices."""

    total: jax.Array
    """`[]`: how many."""
    first: jax.Array
    """`[*obs]`: sum of `o - shift`."""
    second: jax.Array
    """`[*obs]`: sum of `(o - shift)²`."""


def init_statistics(shape: tuple[int, ...], floor: np.ndarray = UNIT_FREE_FLOOR) -> RunningStatistics:
    """Statistics before anything was seen: they scale nothing (but `normalise` clips)."""
    return RunningStatistics(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape), jnp.asarray(floor))


def with_one_deviation(statistics: RunningStatistics, deviation: float) -> RunningStatistics:
    """Statistics that divide everything by the same number: what is rare stays small."""
    return statistics._replace(var=jnp.full_like(statistics.var, deviation**2))


def stored_statistics(statistics: RunningStatistics) -> tuple[np.ndarray, np.ndarray, float]:
    """Statistics as a file holds them.

    Returns:
      Mean `[*obs]`, variance `[*obs]`, and the epsilon that its reader adds to the variance: 1e-8, or 0 where a spread
      is too small for that.
    """
    mean, var, floor = (np.asarray(part, np.float32) for part in statistics[1:])
    if floor[1] == 0 and floor[0] in (np.float32(EPSILON), 0):
        return mean, var, EPSILON if floor[0] else 0.0
    whole = var + floor[0] + floor[1] * mean**2
    is_usual = bool((whole >= EPSILON).all())
    return mean, whole - np.float32(EPSILON) if is_usual else whole, EPSILON if is_usual else 0.0


def restored_statistics(mean: ArrayLike, var: ArrayLike, epsilon: float = EPSILON) -> RunningStatistics:
    """Statistics from what a file holds."""
    floor = jnp.array([epsilon, 0.0], jnp.float32)
    return RunningStatistics(jnp.zeros(()), jnp.asarray(mean), jnp.asarray(var), floor)


def mean_and_deviation(statistics: RunningStatistics) -> tuple[np.ndarray, np.ndarray]:
    """What `normalise` takes away and divides by, `[*obs]` each, in NumPy arrays."""
    mean, var, floor = (np.asarray(part, np.float32) for part in statistics[1:])
    return mean, np.sqrt(var + floor[0] + floor[1] * mean**2)


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
    merged = statistics._replace(
        seen=statistics.seen + moments.total,
        mean=statistics.mean + delta * moments.total / seen,
        var=squares / seen,
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
    """What networks see: `(o - mean) / sqrt(var + floor)`, clipped to ±10, or `o` without statistics.

    The floor is `floor[0] + floor[1] mean²`. Pixels are scaled to 0 .. 1 first, see `as_floats`.
    """
    observations = as_floats(observations)
    if statistics is None:
        return observations
    leading = tuple(range(observations.ndim - statistics.mean.ndim))
    mean, var = (jnp.expand_dims(part, leading) for part in (statistics.mean, statistics.var))
    scaled = (observations - mean) / jnp.sqrt(var + statistics.floor[0] + statistics.floor[1] * mean**2)
    return jnp.clip(scaled, -CLIP, CLIP)
