"""What networks apply between their layers."""

import jax
import jax.numpy as jnp

from floppy.fields import Registry

ACTIVATIONS = Registry(
    "activation",
    {"tanh": jnp.tanh, "relu": jax.nn.relu, "gelu": jax.nn.gelu, "silu": jax.nn.silu, "elu": jax.nn.elu}.items(),
)
"""By name. All map 0 to 0, on which the zero-padding of random widths relies (see initialisers.py)."""
