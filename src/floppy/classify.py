"""Classifiers' answers to labelled images: what stands for episodes where a task is supervised."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from optax.losses import softmax_cross_entropy_with_integer_labels

from floppy.learners import Network, Weights
from floppy.normalise import RunningStatistics, normalise

BLOCK = 1024
"""Images that a learner sees at a time."""
CACHED_BLOCK = 32
"""The same for convolutions on a CPU: their values stay in its caches then, which measured twice as fast."""


@partial(jax.jit, static_argnums=0)
def right_answers(
    network: Network,
    weights: Weights,
    images: jax.Array,
    labels: jax.Array,
    statistics: RunningStatistics | None,
    rows: jax.Array | None = None,
) -> jax.Array:
    """Whether each of `L` classifiers finds the class of each image likeliest.

    Args:
      network: of the classifiers.
      weights: leaves `[L, ...]`.
      images: `[n, *obs]`, bytes or floats.
      labels: `[n]` int.
      statistics: by which images are normalised, if at all.
      rows: `[L, m]` int: the images that each of them answers for; by default all of them, `m = n`.

    Returns:
      `[L, m]` floats: 1.0 or 0.0, and NaN where a classifier's outputs are no numbers.
    """

    def answers(weights: Weights, images: jax.Array, labels: jax.Array) -> jax.Array:
        def one(image: jax.Array, label: jax.Array) -> jax.Array:
            output = network.apply(weights, normalise(statistics, image)[None])[0]
            return jnp.where(jnp.all(jnp.isfinite(output)), jnp.argmax(output) == label, jnp.nan)

        return jax.lax.map(lambda pair: one(*pair), (images, labels), batch_size=_block(network))

    if rows is None:
        return jax.lax.map(lambda weights: answers(weights, images, labels), weights)
    return jax.lax.map(lambda pair: answers(pair[0], images[pair[1]], labels[pair[1]]), (weights, rows))


@partial(jax.jit, static_argnums=(0, 6, 7))
def log_likelihoods(
    network: Network,
    weights: Weights,
    images: jax.Array,
    labels: jax.Array,
    statistics: RunningStatistics | None,
    keys: jax.Array,
    count: int,
    alike: bool = False,
) -> jax.Array:
    """Log probabilities that classifiers give to the right classes of random images.

    Args:
      network: of the classifiers.
      weights: leaves `[L, ...]`.
      images: `[n, *obs]`, bytes or floats.
      labels: `[n]` int.
      statistics: by which images are normalised, if at all.
      keys: `[S]` PRNG keys, consumed. `L` is a multiple of `S`: classifiers `i` and `i + S` see the same images.
      count: of images for each classifier, drawn with replacement.
      alike: whether these two differ in their output layer alone. What it reads is computed once for both then.

    Returns:
      `[L, count]`
    """
    rows = jax.vmap(lambda key: jax.random.randint(key, (count,), 0, labels.shape[0]))(keys)
    candidates = jax.tree.leaves(weights)[0].shape[0] // keys.shape[0]

    def each(function: Callable[[jax.Array], jax.Array], rows: jax.Array) -> jax.Array:
        """`function` of every image of `rows`."""
        return jax.lax.map(lambda row: function(normalise(statistics, images[row])), rows, batch_size=_block(network))

    def together(pair: tuple[Weights, jax.Array]) -> jax.Array:
        """`[L / S, count]` of the classifiers that see the same images."""
        weights, rows = pair
        first = jax.tree.map(lambda leaf: leaf[0], weights)
        features = each(lambda image: network.features(first, image[None])[0], rows)
        output = weights.layers[-1]
        outputs = features @ output["kernel"] + output["bias"][:, None]
        return -softmax_cross_entropy_with_integer_labels(outputs, jnp.broadcast_to(labels[rows], outputs.shape[:-1]))

    def one(pair: tuple[Weights, jax.Array]) -> jax.Array:
        weights, rows = pair
        outputs = each(lambda image: network.apply(weights, image[None])[0], rows)
        return -softmax_cross_entropy_with_integer_labels(outputs, labels[rows])

    if alike:
        shape = (candidates, keys.shape[0])
        groups = jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(*shape, *leaf.shape[1:]), 0, 1), weights)
        return jnp.swapaxes(jax.lax.map(together, (groups, rows)), 0, 1).reshape(-1, count)
    return jax.lax.map(one, (weights, jnp.tile(rows, (candidates, 1))))


def _block(network: Network) -> int:
    return CACHED_BLOCK if network.has_convolutions and jax.default_backend() == "cpu" else BLOCK
