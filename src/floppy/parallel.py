"""Work spread over every device that JAX sees, those of other processes included, and cut into chunks on each."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

AXIS = "devices"
CPU_CHUNK_BYTES = 32 * 2**20  # about what the caches hold; larger chunks measured no faster
ACCELERATOR_SHARE = 8
"""A chunk takes at most this fraction of an accelerator's memory."""

Tree = TypeVar("Tree")


def device_mesh() -> Mesh:
    """All devices in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def replicate(tree: Tree) -> Tree:
    """Puts a copy of every array on every device; all processes must hold the same values."""
    everywhere = NamedSharding(device_mesh(), PartitionSpec())
    return jax.tree.map(lambda leaf: jax.device_put(leaf, everywhere), tree)


def chunk_size(count: int, bytes_each: int) -> int:
    """How many of `count` pieces of work, each of so many bytes, a device does at a time."""
    on_device = math.ceil(count / jax.device_count())
    most = max(1, _chunk_bytes() // max(bytes_each, 1))
    return math.ceil(on_device / math.ceil(on_device / most))


def _chunk_bytes() -> int:
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    return CPU_CHUNK_BYTES if stats is None else int(stats["bytes_limit"]) // ACCELERATOR_SHARE


def sharded_map(function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
    """`function(indices [chunk], *operands)` for all indices `0 .. count-1`, spread over the devices.

    Args:
      function: gives leaves `[chunk, ...]`; it may depend on an index and the operands only.
      count: of the indices.
      chunk: how many a device does at a time.
      *operands: pytrees of arrays, the same on every device.

    Returns:
      Leaves `[count, ...]`, the same on every device.
    """

    def local(*operands: Any) -> Any:
        results = jax.lax.map(lambda indices: function(indices, *operands), _local_indices(count, chunk))
        rows = jax.tree.map(lambda x: x.reshape(x.shape[0] * chunk, *x.shape[2:]), results)
        return jax.lax.all_gather(rows, AXIS, tiled=True)

    return jax.tree.map(lambda x: x[:count], _everywhere(local)(*operands))


def sharded_sum(function: Callable[..., Any], count: int, *operands: Any) -> Any:
    """The sum of `function(index, *operands)` over all indices `0 .. count-1`, spread over the devices."""

    def local(*operands: Any) -> Any:
        def add(total: Any, index: jax.Array) -> tuple[Any, None]:
            counts = index < count
            index = jnp.minimum(index, count - 1)
            term = function(index, *operands)
            return jax.tree.map(lambda sum_, x: sum_ + jnp.where(counts, x, 0), total, term), None

        shapes = jax.eval_shape(function, jnp.zeros((), jnp.int32), *operands)
        zero = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        indices = _first_index(count, 1) + jnp.arange(math.ceil(count / jax.device_count()))
        return jax.lax.psum(jax.lax.scan(add, zero, indices)[0], AXIS)

    return _everywhere(local)(*operands)


def _local_indices(count: int, chunk: int) -> jax.Array:
    """`[chunks, chunk]` of this device; those beyond `count` repeat others, and their results are dropped."""
    chunks = math.ceil(count / (chunk * jax.device_count()))
    return ((_first_index(count, chunk) + jnp.arange(chunks * chunk)) % count).reshape(chunks, chunk)


def _first_index(count: int, chunk: int) -> jax.Array:
    return jax.lax.axis_index(AXIS) * chunk * math.ceil(count / (chunk * jax.device_count()))


def _everywhere(local: Callable[..., Any]) -> Callable[..., Any]:
    """`local` run by every device on the same operands; its results must be the same everywhere."""
    same = PartitionSpec()
    return jax.shard_map(local, mesh=device_mesh(), in_specs=same, out_specs=same, check_vma=False)
