"""Where policies play: within compiled functions for JAX tasks, in live environments for host tasks.

An outer loop and an evaluation are written once, for either arena. The contract is in the functions of `rollout.py`.
"""

import contextlib
import dataclasses
import math
from collections.abc import Callable, Hashable, Iterator
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from floppy import host, rollout
from floppy.errors import FloppyError
from floppy.host import MOST_ENVIRONMENTS, Row, environment_seeds
from floppy.parallel import chunk_size, shard_rows, sharded_map
from floppy.rollout import NetworkPolicy, Played, RandomPolicy, Trajectory
from floppy.tasks.base import HostTask, Task


class Arena(Protocol):
    """Plays policies, and runs what lies between."""

    @property
    def is_pure(self) -> bool:
        """Whether all that happens here may stand in a compiled function."""

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """A pure function, the first `static` arguments of which are hashable constants, made fast."""

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """`function(indices [chunk], *operands)` for all indices: see `parallel.sharded_map`."""

    def chunk(self, task: Any, count: int, weights: Any, episodes: int) -> int:
        """How many of `count` pieces of work, each cloning `weights` and playing `episodes`, are done at a time."""

    def start_environments(self, task: Any, key: jax.Array, learners: int, environments: int) -> Any:
        """Resets `learners x environments` environments: see `rollout.start_environments`."""

    def collect(
        self, task: Any, network: Any, weights: Any, environments: Any, key: jax.Array, **options: Any
    ) -> tuple[Any, Trajectory]:
        """See `rollout.collect`."""

    def play_episodes(self, task: Any, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        """See `rollout.play_episodes`."""

    def play_random(self, task: Any, key: jax.Array, episodes: int) -> Played:
        """See `rollout.play_random`."""

    def random_observations(self, task: Any, key: jax.Array, count: int) -> Any:
        """See `rollout.random_observations`."""


@dataclasses.dataclass(frozen=True)
class DeviceArena:
    """Where JAX tasks are played: everything is one compiled function, which the caller compiles."""

    is_pure: bool = True

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """The caller compiles."""
        del static
        return function

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """Spread over all devices."""
        return sharded_map(function, count, chunk, *operands)

    def chunk(self, task: Any, count: int, weights: Any, episodes: int) -> int:
        """By memory."""
        return chunk_size(count, rollout.playing_bytes(task, weights, episodes))

    def start_environments(self, *arguments: Any) -> rollout.Environments:
        """See `rollout.start_environments`."""
        return rollout.start_environments(*arguments)

    def collect(
        self, task: Any, network: Any, weights: Any, environments: Any, key: jax.Array, **options: Any
    ) -> tuple[rollout.Environments, Trajectory]:
        """See `rollout.collect`; learners are spread over the devices."""
        return rollout.collect(task, network, weights, shard_rows(environments), key, **options)

    def play_episodes(self, *arguments: Any, **options: Any) -> Played:
        """See `rollout.play_episodes`."""
        return rollout.play_episodes(*arguments, **options)

    def play_random(self, *arguments: Any) -> Played:
        """See `rollout.play_random`."""
        return rollout.play_random(*arguments)

    def random_observations(self, *arguments: Any) -> jax.Array:
        """See `rollout.random_observations`."""
        return rollout.random_observations(*arguments)


ON_DEVICE = DeviceArena()


class Ticket(NamedTuple):
    """What stands for live environments in a state, which holds arrays only."""

    number: jax.Array
    """`[]` int: of the row in the arena. A resumed run has started the same rows anew."""


class HostArena:
    """Where host tasks are played: pieces are compiled, Python steps the environments, which live until `close`."""

    is_pure = False

    def __init__(self) -> None:
        if jax.process_count() > 1:
            raise FloppyError("A host task was asked for with several processes: run it in one.")
        self._running: list[Row] = []
        self._rows: dict[Hashable, Row] = {}
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def close(self) -> None:
        """Ends all environments."""
        for row in [*self._running, *self._rows.values()]:
            row.close()

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """Compiled once per function."""
        if function not in self._compiled:
            self._compiled[function] = jax.jit(function, static_argnums=tuple(range(static)))
        return self._compiled[function]

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """Chunk after chunk; the last one is filled up with others, which do not count."""
        chunks = [function(jnp.arange(first, first + chunk) % count, *operands) for first in range(0, count, chunk)]
        return jax.tree.map(lambda *rows: jnp.concatenate(rows)[:count], *chunks)

    def chunk(self, task: Any, count: int, weights: Any, episodes: int) -> int:
        """By the number of live environments."""
        del task, weights
        most = max(1, MOST_ENVIRONMENTS // episodes)
        return math.ceil(count / math.ceil(count / most))

    def start_environments(self, task: HostTask, key: jax.Array, learners: int, environments: int) -> Ticket:
        """Makes and resets a row of their own, in which episodes run on."""
        row = Row(task, learners * environments, training=True)
        self._running.append(row)
        row.reset(environment_seeds(key, row.count))
        return Ticket(jnp.asarray(len(self._running) - 1))

    def collect(
        self, task: HostTask, network: Any, weights: Any, environments: Ticket, key: jax.Array, **options: Any
    ) -> tuple[Ticket, Trajectory]:
        """See `host.collect`."""
        del task
        row = self._running[int(environments.number)]
        return environments, host.collect(row, network, weights, key, **options)

    def play_episodes(
        self,
        task: HostTask,
        network: Any,
        weights: Any,
        keys: jax.Array,
        **options: Any,
    ) -> Played:
        """See `host.play`."""
        episodes, policy = options["episodes"], NetworkPolicy(network, options.pop("greedy", False))
        learners = jax.tree.leaves(weights)[0].shape[0]
        # Episodes that may be cut begin together, each in an environment of its own.
        width = episodes if options.get("most_steps") else _width(learners, episodes)
        row = self._row(task, learners * width)
        return host.play(row, policy, weights, keys, (learners, width), **options)

    def play_random(self, task: HostTask, key: jax.Array, episodes: int) -> Played:
        """See `host.play`."""
        width = _width(1, episodes)
        policy = RandomPolicy(task.actions)
        return host.play(self._row(task, width), policy, None, key[None], (1, width), episodes=episodes)

    def random_observations(self, task: HostTask, key: jax.Array, count: int) -> np.ndarray:
        """See `host.random_observations`."""
        return host.random_observations(self._row(task, max(1, min(count, 16))), key, count)

    def _row(self, task: HostTask, count: int) -> Row:
        """Environments for plays that leave nothing behind, made once per number."""
        if (task, count) not in self._rows:
            self._rows[task, count] = Row(task, count, training=False)
        return self._rows[task, count]


def _width(learners: int, episodes: int) -> int:
    """Environments per learner, so that shares are as equal as can be."""
    share = math.ceil(episodes / max(1, MOST_ENVIRONMENTS // learners))
    return math.ceil(episodes / share)


@contextlib.contextmanager
def open_arena(task: Task) -> Iterator[Arena]:
    """The arena for a task, and its end."""
    if not isinstance(task, HostTask):
        yield ON_DEVICE
        return
    arena = HostArena()
    try:
        yield arena
    finally:
        arena.close()
