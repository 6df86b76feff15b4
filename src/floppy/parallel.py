"""Work spread over every device that JAX sees, those of other processes included, and cut into chunks on each."""

import contextlib
import dataclasses
import math
import os
import re
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from floppy.errors import MAX_COUNT, FloppyError, check_number, one_line, shown, text_of

AXIS = "devices"
MOST_CORES = 16
"""Devices that `use_all_cores` makes at most."""
CPU_CHUNK_BYTES = 32 * 2**20  # about what the caches hold; larger chunks measured no faster
ACCELERATOR_SHARE = 8
"""A chunk takes at most this fraction of an accelerator's memory."""

Tree = TypeVar("Tree")


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes that share a run; each sees the devices of all of them."""

    coordinator: str = ""
    """With several processes: host:port at which process 0 can be reached, the same for all; auto asks the cluster
    (SLURM, Open MPI, Kubernetes)."""
    processes: int = 1
    """How many processes share the run."""
    process: int = 0
    """Which of them this one is, from 0."""

    def join(self) -> None:
        """Connects to the others; before JAX has done anything else."""
        if not self.coordinator:
            if self.processes != 1 or self.process != 0:
                raise FloppyError("Several processes need a --coordinator: give its host:port.")
            return
        if self.coordinator != "auto" and not re.fullmatch(r".+:[0-9]{1,5}", self.coordinator):
            raise FloppyError(f"coordinator must be host:port or auto, got {shown(self.coordinator)}.")
        if self.coordinator == "auto":
            arguments: dict[str, Any] = {}
        else:
            check_number("processes", self.processes, least=1, most=MAX_COUNT)
            check_number("process", self.process, least=0, most=self.processes - 1)
            arguments = {
                "coordinator_address": self.coordinator,
                "num_processes": self.processes,
                "process_id": self.process,
            }
        try:
            jax.distributed.initialize(**arguments)
        except (RuntimeError, ValueError, OverflowError) as error:
            raise FloppyError(
                f"The processes could not be joined ({one_line(error)}): start all of them with the same coordinator."
            ) from error


def use_all_cores() -> None:
    """Makes each core of a CPU, up to `MOST_CORES`, a device: XLA by itself uses several only within single operations.

    Nothing changes where the environment says how many devices a CPU is (`XLA_FLAGS`, `JAX_NUM_CPU_DEVICES`), or where
    JAX knows its devices already. The cores are those that this process may run on.
    """
    given = "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", "")
    if given or "JAX_NUM_CPU_DEVICES" in os.environ:
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(RuntimeError):  # devices are known
        jax.config.update("jax_num_cpu_devices", min(cores, MOST_CORES))


LOST = ("gloo", "nccl", "heartbeat", "unavailable", "coordination service", "connection", "deadline_exceeded")
"""What the errors of collective operations speak of when another process has gone."""


class LostProcessError(FloppyError):
    """Another process of the run has ended, or cannot be reached."""

    def __init__(self, why: str) -> None:
        super().__init__(
            f"Another process of the run has ended, or cannot be reached ({why}): start all of them once more, with "
            "--resume."
        )


@contextlib.contextmanager
def losses_said() -> Iterator[None]:
    """Says it in a sentence when another of the processes that share the work is lost.

    Raises:
      LostProcessError: in place of the error of the collective operation that failed.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        said = text_of(error).lower()
        if isinstance(error, FloppyError) or jax.process_count() == 1 or not any(word in said for word in LOST):
            raise
        raise LostProcessError(one_line(error)) from error


def is_first_process() -> bool:
    """Whether this process is the one that writes files."""
    return jax.process_index() == 0


def first_process_says(answer: bool) -> bool:
    """The first process's answer, in all processes: their clocks and signals may differ."""
    if jax.process_count() == 1:
        return answer
    return bool(multihost_utils.broadcast_one_to_all(jnp.asarray(answer)))


def device_mesh() -> Mesh:
    """All devices in one row."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(jax.sharding.AxisType.Auto,))


def replicate(tree: Tree) -> Tree:
    """Puts a copy of every array on every device; all processes must hold the same values."""
    everywhere = NamedSharding(device_mesh(), PartitionSpec())

    def put(leaf: jax.Array) -> jax.Array:
        if jax.process_count() == 1 or not leaf.is_fully_addressable:
            return jax.device_put(leaf, everywhere)
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(put(jax.random.key_data(leaf)))
        values = np.asarray(leaf)
        return jax.make_array_from_callback(values.shape, everywhere, lambda index: values[index])

    return jax.tree.map(put, tree)


def shard_rows(tree: Tree) -> Tree:
    """Within a compiled function: asks for the rows of every leaf to be spread over the devices, if they divide evenly.

    Only where work is done changes, not what is computed.
    """
    devices = jax.device_count()
    rows = NamedSharding(device_mesh(), PartitionSpec(AXIS))

    def shard(leaf: jax.Array) -> jax.Array:
        return leaf if leaf.shape[0] % devices else jax.lax.with_sharding_constraint(leaf, rows)

    return tree if devices == 1 else jax.tree.map(shard, tree)


def chunk_size(count: int, bytes_each: int) -> int:
    """How many of `count` pieces of work, each of so many bytes, a device does at a time."""
    on_device = math.ceil(count / jax.device_count())
    most = max(1, _chunk_bytes() // max(bytes_each, 1))
    return math.ceil(on_device / math.ceil(on_device / most))


def _chunk_bytes() -> int:
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    return CPU_CHUNK_BYTES if stats is None else int(stats["bytes_limit"]) // ACCELERATOR_SHARE


def largest_divisor(count: int, most: int) -> int:
    """The largest number of rows up to `most`, but one at least, that divides `count`; 0 of none."""
    return max((size for size in range(1, min(max(1, most), count) + 1) if count % size == 0), default=count)


def map_batches(function: Callable[[Any], Any], xs: Any, batch: int) -> Any:
    """`function` of all rows of `xs`, `batch` at a time.

    `jax.lax.map(batch_size=...)` compiles another body for the remaining rows, and takes no arrays of size 0.

    Args:
      function: of rows `[batch, ...]`, to leaves `[batch, ...]`.
      xs: a pytree of arrays with a common leading axis.
      batch: rows at a time, a divisor of their number.

    Returns:
      Leaves `[n, ...]`.
    """
    count = jax.tree.leaves(xs)[0].shape[0]
    if batch == count:
        return function(xs)
    batches = jax.tree.map(lambda x: x.reshape(count // batch, batch, *x.shape[1:]), xs)
    results = jax.lax.map(function, batches)
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), results)


def sharded_map(function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
    """`function(indices [chunk], *operands)` for all indices `0 .. count-1`, spread over the devices.

    Args:
      function: gives leaves `[chunk, ...]`; it may depend on an index and the operands only.
      count: of the indices.
      chunk: how many a device does at a time, at most its share.
      *operands: pytrees of arrays, the same on every device.

    Returns:
      Leaves `[count, ...]`, the same on every device.
    """
    chunk = min(chunk, math.ceil(count / jax.device_count()))

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
