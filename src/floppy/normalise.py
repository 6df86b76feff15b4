"""Running statistics of observations."""

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


def init_statistics(shape: tuple[int, ...]) -> RunningStatistics:
    """Statistics before anything was seen: they scale nothing (but `normalise` clips)."""
    return RunningStatistics(jnp.zeros(()), jnp.zeros(shape), jnp.ones(shape))


def update_statistics(statistics: RunningStatistics, batch: jax.Array) -> RunningStatistics:
    """Merges a batch `[n, *obs]` (Chan et al., 1979: parallel variance)."""
    count = batch.shape[0]
    mean, var = jnp.mean(batch, axis=0), jnp.var(batch, axis=0)
    total = statistics.seen + count
    delta = mean - statistics.mean
    squares = statistics.var * statistics.seen + var * count + delta**2 * statistics.seen * count / total
    return RunningStatistics(total, statistics.mean + delta * count / total, squares / total)


def normalise(statistics: RunningStatistics | None, observations: jax.Array) -> jax.Array:
    """`(o - mean) / sqrt(var + 1e-8)`, clipped to ±10; without statistics the observations as they are."""
    if statistics is None:
        return observations
    scaled = (observations - statistics.mean) / jnp.sqrt(statistics.var + EPSILON)
    return jnp.clip(scaled, -CLIP, CLIP)
