"""Classifiers' answers to labelled images: what stands for episodes where a task has labels."""

from collections.abc import Callable
from functools import partial
from typing import Any, NoReturn, Self

import jax
import jax.numpy as jnp
import numpy as np
from optax.losses import softmax_cross_entropy_with_integer_labels

from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.learner.network import FeatureNetwork, Network
from floppy.parallel import chunk_size
from floppy.play.arena import ArenaInPieces, Played, Trajectory, statistics_of_batch
from floppy.play.normalise import RunningStatistics, as_floats, normalise
from floppy.tasks.base import Labelled, SupervisedTask

BLOCK = 1024
"""Images that a learner sees at a time."""
CACHED_BLOCK = 32
"""The same for convolutions on a CPU: their values stay in its caches then, which measured twice as fast."""


@partial(jax.jit, static_argnums=0)
def right_answers(
    network: Network[Any],
    weights: Any,
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

    def answers(weights: Any, images: jax.Array, labels: jax.Array) -> jax.Array:
        def one(image: jax.Array, label: jax.Array) -> jax.Array:
            output = network.apply(weights, normalise(statistics, image)[None])[0]
            return jnp.where(jnp.all(jnp.isfinite(output)), jnp.argmax(output) == label, jnp.nan)

        own: jax.Array = jax.lax.map(lambda pair: one(*pair), (images, labels), batch_size=_block(network))
        return own

    found: jax.Array
    if rows is None:
        found = jax.lax.map(lambda weights: answers(weights, images, labels), weights)
    else:
        found = jax.lax.map(lambda pair: answers(pair[0], images[pair[1]], labels[pair[1]]), (weights, rows))
    return found


@partial(jax.jit, static_argnums=(0, 6))
def log_likelihoods(
    network: Network[Any],
    weights: Any,
    images: jax.Array,
    labels: jax.Array,
    statistics: RunningStatistics | None,
    keys: jax.Array,
    count: int,
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

    Returns:
      `[L, count]`
    """
    rows, candidates = _random_rows(keys, labels, count), _per_key(weights, keys)

    def one(pair: tuple[Any, jax.Array]) -> jax.Array:
        weights, rows = pair
        outputs = _each(network, lambda image: network.apply(weights, image[None])[0], images[rows], statistics)
        return -jnp.asarray(softmax_cross_entropy_with_integer_labels(outputs, labels[rows]))

    found: jax.Array = jax.lax.map(one, (weights, jnp.tile(rows, (candidates, 1))))
    return found


@partial(jax.jit, static_argnums=(0, 6))
def shared_log_likelihoods(
    network: FeatureNetwork[Any],
    weights: Any,
    images: jax.Array,
    labels: jax.Array,
    statistics: RunningStatistics | None,
    keys: jax.Array,
    count: int,
) -> jax.Array:
    """As `log_likelihoods`, where classifiers that share a key differ in their output layer alone.

    What the output layer reads is computed once for all of them.
    """
    rows, candidates = _random_rows(keys, labels, count), _per_key(weights, keys)

    def together(pair: tuple[Any, jax.Array]) -> jax.Array:
        """`[L / S, count]` of the classifiers that see the same images."""
        weights, rows = pair
        first = jax.tree.map(lambda leaf: leaf[0], weights)
        features = features_of(network, first, images[rows], statistics)
        output = network.readout(weights)
        outputs = features @ output["kernel"] + output["bias"][:, None]
        right = jnp.broadcast_to(labels[rows], outputs.shape[:-1])
        return -jnp.asarray(softmax_cross_entropy_with_integer_labels(outputs, right))

    shape = (candidates, keys.shape[0])
    groups = jax.tree.map(lambda leaf: jnp.swapaxes(leaf.reshape(*shape, *leaf.shape[1:]), 0, 1), weights)
    return jnp.swapaxes(jax.lax.map(together, (groups, rows)), 0, 1).reshape(-1, count)


def features_of(
    network: FeatureNetwork[Any], weights: Any, images: jax.Array, statistics: RunningStatistics | None
) -> jax.Array:
    """What the output layer of one classifier reads of images: `[n, f]`."""
    return _each(network, lambda image: network.features(weights, image[None])[0], images, statistics)


def _random_rows(keys: jax.Array, labels: jax.Array, count: int) -> jax.Array:
    """`[S, count]` int."""
    return jax.vmap(lambda key: jax.random.randint(key, (count,), 0, labels.shape[0]))(keys)


def _per_key(weights: Any, keys: jax.Array) -> int:
    return int(jax.tree.leaves(weights)[0].shape[0]) // keys.shape[0]


def _each(
    network: Network[Any],
    function: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    statistics: RunningStatistics | None,
) -> jax.Array:
    """`function` of every image, once it is normalised."""
    found: jax.Array = jax.lax.map(
        lambda image: function(normalise(statistics, image)), images, batch_size=_block(network)
    )
    return found


def _block(network: Network[Any]) -> int:
    return CACHED_BLOCK if network.is_costly_on_images and jax.default_backend() == "cpu" else BLOCK


class ImageArena(ArenaInPieces):
    """Where classifiers answer; see `Arena`.

    The images are arguments of what is compiled, no constants of many megabytes in it.
    """

    @classmethod
    def of(cls, task: SupervisedTask, *, step_timeout: float | None = None) -> Self:
        """One that holds the task's images."""
        del step_timeout
        return cls(task)

    def __init__(self, task: SupervisedTask) -> None:
        super().__init__()
        self._splits = {split: jax.device_put(task.labelled(split)) for split in ("train", "held-out", "test")}

    def chunk(self, task: SupervisedTask, count: int, weights: Any, episodes: int) -> int:
        """By the memory for weights: images are seen block by block."""
        del task, episodes
        return chunk_size(count, sum(4 * leaf.size for leaf in jax.tree.leaves(weights)))

    def play_episodes(
        self,
        task: SupervisedTask,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        greedy: bool = False,
        statistics: RunningStatistics | None = None,
        per_evaluation_stats: bool = False,
        max_episode_steps: int | None = None,
    ) -> Played:
        """Answers for `episodes` images of the task's split, for all of them if it has no more: 100 for a right one.

        An answer is the likeliest class.
        """
        del greedy, max_episode_steps
        if per_evaluation_stats:
            raise FloppyError("normaliser must be frozen or none for images, got per-evaluation.")
        images, labels = self._splits[task.split]
        rows = None
        if episodes < len(labels):
            some = jax.vmap(lambda key: jax.random.choice(key, len(labels), (episodes,), replace=False))(keys)
            rows = jnp.tile(some, (jax.tree.leaves(weights)[0].shape[0] // len(keys), 1))
        return _answered(100.0 * right_answers(network, weights, images, labels, statistics, rows))

    def fitness(
        self,
        task: SupervisedTask,
        network: Network[Any],
        weights: Any,
        keys: jax.Array,
        *,
        episodes: int,
        statistics: RunningStatistics | None = None,
        max_episode_steps: int | None = None,
        share_features: bool = False,
    ) -> Played:
        """Log-likelihoods of `episodes` training images per learner, see `log_likelihoods`."""
        if max_episode_steps:
            raise FloppyError(f"horizon must be 0 for {task.task_id}, where an episode is one answer.")
        images, labels = self._splits["train"]
        function = shared_log_likelihoods if share_features else log_likelihoods
        return _answered(function(network, weights, images, labels, statistics, keys, episodes))

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

    def examples_of_classes(
        self, task: SupervisedTask, key: jax.Array, classes: np.ndarray, *, means: bool
    ) -> jax.Array:
        """Training images of the classes `[k]`, at random, or means of as many equal parts as a class is asked for.

        Raises:
          FloppyError: if there are fewer images of a class than means.
        """
        del task
        images, labels = (np.asarray(part) for part in self._splits["train"])
        asked = np.bincount(classes)
        held = np.bincount(labels)[: len(asked)]
        if means and np.any(asked > held):
            scarce = int(np.argmax(asked > held))
            raise FloppyError(
                f"examples must leave every class an image for each of its means, got {asked[scarce]} of class "
                f"{scarce}, which has {held[scarce]} training images."
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

    def start_environments(self, task: SupervisedTask, key: jax.Array, learners: int, environments: int) -> NoReturn:
        """Refused: there is nothing to step through."""
        del key, learners, environments
        raise FloppyError(f"The outer loop needs episodes, {task.task_id} has none: choose another loop (--outer).")

    def collect(
        self,
        task: SupervisedTask,
        network: Network[Any],
        weights: Any,
        environments: Any,
        key: jax.Array,
        *,
        steps: int,
        statistics: RunningStatistics | None = None,
    ) -> tuple[Any, Trajectory]:
        """Refused, see `start_environments`."""
        del network, weights, environments, steps, statistics
        self.start_environments(task, key, 0, 0)

    def warm_up(self, task: SupervisedTask, key: jax.Array) -> RunningStatistics:
        """Those of the training images' channels, the same for all pixels: some pixels never change."""
        del task, key
        images = self._splits["train"].images
        known = statistics_of_batch(images.reshape(-1, images.shape[-1]))
        return known._replace(
            mean=jnp.broadcast_to(known.mean, images.shape[1:]), var=jnp.broadcast_to(known.var, images.shape[1:])
        )

    def labelled_batch(self, task: SupervisedTask, key: jax.Array, learners: int, count: int) -> Labelled:
        """Random training images."""
        del task
        images, labels = self._splits["train"]
        rows = jax.random.randint(key, (learners, count), 0, len(labels))
        return Labelled(images[rows], labels[rows])


def _answered(returns: jax.Array) -> Played:
    """Episodes of one step each."""
    return Played(returns, jnp.ones(returns.shape, jnp.int32), None)
