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
from floppy.classify import log_likelihoods, right_answers
from floppy.errors import FloppyError
from floppy.host import MOST_ENVIRONMENTS, Row, environment_seeds
from floppy.keys import named_key
from floppy.normalise import RunningStatistics, as_floats, init_statistics, update_statistics
from floppy.parallel import chunk_size, shard_rows, sharded_map
from floppy.rollout import NetworkPolicy, Played, RandomPolicy, Trajectory
from floppy.tasks.base import HostTask, Labelled, SupervisedTask, Task

WARM_UP = 512
"""Random observations that statistics start from."""


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

    def fitness(self, task: Any, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        """As `play_episodes`, for an outer loop that learns from the returns, which may be others than a score's.

        With `alike` clones of the same fresh learner differ in their output layer alone.
        """

    def play_random(self, task: Any, key: jax.Array, episodes: int) -> Played:
        """See `rollout.play_random`."""

    def random_observations(self, task: Any, key: jax.Array, count: int) -> Any:
        """See `rollout.random_observations`."""

    def warm_up(self, task: Any, key: jax.Array) -> RunningStatistics:
        """Statistics `[*obs]` to start from, before anything was learnt."""


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

    def fitness(self, *arguments: Any, alike: bool = False, **options: Any) -> Played:
        """Episodes' returns."""
        del alike  # from the first step on they see different observations
        return self.play_episodes(*arguments, **options)

    def play_random(self, *arguments: Any) -> Played:
        """See `rollout.play_random`."""
        return rollout.play_random(*arguments)

    def random_observations(self, *arguments: Any) -> jax.Array:
        """See `rollout.random_observations`."""
        return rollout.random_observations(*arguments)

    def warm_up(self, task: Any, key: jax.Array) -> RunningStatistics:
        """Of observations met by random actions."""
        return _statistics_of(self.random_observations(task, key, WARM_UP))


ON_DEVICE = DeviceArena()


class Ticket(NamedTuple):
    """What stands for live environments in a state, which holds arrays only."""

    number: jax.Array
    """`[]` int: of the row in the arena. A resumed run has started the same rows anew."""


class _ArenaInPieces:
    """Where only the pieces between the plays are compiled."""

    is_pure = False

    def __init__(self) -> None:
        if jax.process_count() > 1:
            raise FloppyError("Several processes were asked for with a task of another kind than JAX's: run it in one.")
        self._compiled: dict[Hashable, Callable[..., Any]] = {}

    def compiled(self, function: Callable[..., Any], static: int = 1) -> Callable[..., Any]:
        """Compiled once per function."""
        if function not in self._compiled:
            self._compiled[function] = jax.jit(function, static_argnums=tuple(range(static)))
        return self._compiled[function]

    def map(self, function: Callable[..., Any], count: int, chunk: int, *operands: Any) -> Any:
        """Chunk after chunk; the last one is filled up with others, which do not count."""
        chunks = [function(jnp.arange(first, first + chunk) % count, *operands) for first in range(0, count, chunk)]
        return jax.tree.map(lambda *rows: jnp.concatenate(rows)[:count], *chunks)


class HostArena(_ArenaInPieces):
    """Where host tasks are played: Python steps the environments, which live until `close`."""

    def __init__(self) -> None:
        super().__init__()
        self._running: list[Row] = []
        self._rows: dict[Hashable, Row] = {}

    def close(self) -> None:
        """Ends all environments."""
        for row in [*self._running, *self._rows.values()]:
            row.close()

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

    def fitness(self, *arguments: Any, alike: bool = False, **options: Any) -> Played:
        """Episodes' returns."""
        del alike
        return self.play_episodes(*arguments, **options)

    def play_random(self, task: HostTask, key: jax.Array, episodes: int) -> Played:
        """See `host.play`."""
        width = _width(1, episodes)
        policy = RandomPolicy(task.actions)
        return host.play(self._row(task, width), policy, None, key[None], (1, width), episodes=episodes)

    def random_observations(self, task: HostTask, key: jax.Array, count: int) -> np.ndarray:
        """See `host.random_observations`."""
        return host.random_observations(self._row(task, max(1, min(count, 16))), key, count)

    def warm_up(self, task: HostTask, key: jax.Array) -> RunningStatistics:
        """Of observations met by random actions."""
        return _statistics_of(self.random_observations(task, key, WARM_UP))

    def _row(self, task: HostTask, count: int) -> Row:
        """Environments for plays that leave nothing behind, made once per number."""
        if (task, count) not in self._rows:
            self._rows[task, count] = Row(task, count, training=False)
        return self._rows[task, count]


class ImageArena(_ArenaInPieces):
    """Where classifiers answer: the images are arguments of what is compiled, no constants of many megabytes in it."""

    def __init__(self, task: SupervisedTask) -> None:
        super().__init__()
        self._splits = {split: jax.device_put(task.labelled(split)) for split in ("train", "held-out", "test")}

    def chunk(self, task: Any, count: int, weights: Any, episodes: int) -> int:
        """By the memory for weights: images are seen block by block."""
        del task, episodes
        return chunk_size(count, sum(4 * leaf.size for leaf in jax.tree.leaves(weights)))

    def play_episodes(
        self, task: SupervisedTask, network: Any, weights: Any, keys: jax.Array, **options: Any
    ) -> Played:
        """Answers for `episodes` images of the task's split, for all of them if it has no more: 100 for a right one.

        An answer is the likeliest class.
        """
        if options.get("afresh"):
            raise FloppyError(
                "A normaliser per evaluation was asked for with images: give one that is frozen, or none."
            )
        (images, labels), episodes = self._splits[task.split], options["episodes"]
        rows = None
        if episodes < len(labels):
            some = jax.vmap(lambda key: jax.random.choice(key, len(labels), (episodes,), replace=False))(keys)
            rows = jnp.tile(some, (jax.tree.leaves(weights)[0].shape[0] // len(keys), 1))
        return _answered(100.0 * right_answers(network, weights, images, labels, options.get("statistics"), rows))

    def fitness(self, task: SupervisedTask, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        """Log-likelihoods of `episodes` training images per learner, see `classify.log_likelihoods`."""
        if options.get("most_steps"):
            raise FloppyError(
                f"A horizon was asked for with {task.task_id}, where an episode is one answer: leave horizon at 0."
            )
        images, labels = self._splits["train"]
        statistics, count, alike = options.get("statistics"), options["episodes"], options.get("alike", False)
        return _answered(log_likelihoods(network, weights, images, labels, statistics, keys, count, alike))

    def play_random(self, task: SupervisedTask, key: jax.Array, episodes: int) -> Played:
        """Random answers for `episodes` random images of the task's split."""
        labels = self._splits[task.split].labels
        asked = jax.random.choice(named_key(key, "images"), labels, (1, episodes))
        answers = jax.random.randint(named_key(key, "answers"), (1, episodes), 0, task.actions.size)
        return _answered(100.0 * (asked == answers))

    def random_observations(self, task: SupervisedTask, key: jax.Array, count: int) -> jax.Array:
        """Training images."""
        del task
        return jax.random.choice(key, self._splits["train"].images, (count,))

    def class_examples(self, key: jax.Array, classes: np.ndarray, *, means: bool) -> jax.Array:
        """Training images of the classes `[k]`, at random, or means of as many equal parts as a class is asked for.

        Raises:
          FloppyError: if there are fewer images of a class than means.
        """
        images, labels = (np.asarray(part) for part in self._splits["train"])
        asked = np.bincount(classes)
        held = np.bincount(labels)[: len(asked)]
        if means and np.any(asked > held):
            scarce = int(np.argmax(asked > held))
            raise FloppyError(
                f"{asked[scarce]} means of class {scarce} were asked for, which has {held[scarce]} training images: "
                "give fewer examples."
            )
        found = []
        for index, wanted in enumerate(classes):
            of_class = images[labels == wanted]
            if means:
                part = np.count_nonzero(classes[:index] == wanted)
                found.append(as_floats(of_class[part :: asked[wanted]]).mean(axis=0))
            else:
                row = jax.random.randint(jax.random.fold_in(key, index), (), 0, len(of_class))
                found.append(as_floats(of_class[int(row)]))
        return jnp.stack(found)

    def start_environments(self, task: SupervisedTask, key: jax.Array, learners: int, environments: int) -> Any:
        """Refused: there is nothing to step through."""
        del key, learners, environments
        raise FloppyError(
            f"PPO was asked for with {task.task_id}, which has no episodes: distil by --outer supervised or hades, or "
            "take --method neuroevolution or random as a baseline."
        )

    def collect(
        self, task: SupervisedTask, network: Any, weights: Any, environments: Any, key: jax.Array, **options: Any
    ) -> tuple[Any, Trajectory]:
        """Refused, see `start_environments`."""
        return self.start_environments(task, key, 0, 0)

    def warm_up(self, task: SupervisedTask, key: jax.Array) -> RunningStatistics:
        """Those of the training images' channels, the same for all pixels: some pixels never change."""
        del task, key
        images = self._splits["train"].images
        known = _statistics_of(images.reshape(-1, images.shape[-1]))
        return RunningStatistics(known.seen, *(jnp.broadcast_to(x, images.shape[1:]) for x in known[1:]))

    def batch(self, key: jax.Array, learners: int, count: int) -> Labelled:
        """Random training images for every learner: `[learners, count, *obs]` and `[learners, count]`."""
        images, labels = self._splits["train"]
        rows = jax.random.randint(key, (learners, count), 0, len(labels))
        return Labelled(images[rows], labels[rows])


def _statistics_of(observations: Any) -> RunningStatistics:
    """Those of a batch `[n, *obs]`."""
    return update_statistics(init_statistics(observations.shape[1:]), observations)


def _answered(returns: jax.Array) -> Played:
    """Episodes of one step each."""
    return Played(returns, jnp.ones(returns.shape, jnp.int32), None)


def _width(learners: int, episodes: int) -> int:
    """Environments per learner, so that shares are as equal as can be."""
    share = math.ceil(episodes / max(1, MOST_ENVIRONMENTS // learners))
    return math.ceil(episodes / share)


@contextlib.contextmanager
def open_arena(task: Task) -> Iterator[Arena]:
    """The arena for a task, and its end."""
    if isinstance(task, SupervisedTask):
        yield ImageArena(task)
        return
    if not isinstance(task, HostTask):
        yield ON_DEVICE
        return
    arena = HostArena()
    try:
        yield arena
    finally:
        arena.close()
