"""What networks apply between their layers."""

import jax
import jax.numpy as jnp

from floppy.fields import Registry

ACTIVATIONS = Registry(
    "activation",
    {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}.items(),
)
"""By name. All map 0 to 0, on which the zero-padding of random widths relies (see initialisers.py)."""


NORM_EPSILON = 1e-5
"""Added to a variance, as in PyTorch."""


def layer_norm(rows: jax.Array) -> jax.Array:
    """Each row `[k, f]` less its mean, divided by its deviation (Ba et al., 2016, without a scale and shift)."""
    return jax.nn.standardize(rows, axis=-1, epsilon=NORM_EPSILON)


NORMS = Registry("norm", {"none": lambda rows: rows, "layer": layer_norm}.items())
"""What is done to the rows of a hidden layer before its activation."""
