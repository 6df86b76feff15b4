"""Random keys split by name, so that a new use of randomness never shifts the others."""

import zlib

import jax


def named_key(key: jax.Array, name: str) -> jax.Array:
    """The key for one purpose: `key` folded with a checksum of `name`."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
