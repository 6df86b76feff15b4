"""Striped images of three classes for the tests of labelled images, and runs of a moment on them."""

import dataclasses
import functools
import gzip
import struct
from pathlib import Path
from typing import Any

import jax
import numpy as np

from floppy.cloning import Distilled, GradientStep
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.outer import Supervised
from floppy.play.images import ImageArena
from floppy.run.config import DistillConfig
from floppy.tasks import Discrete, make_task
from floppy.tasks.images import ImageTask

KEY = jax.random.key(0)
SMALL = "width=8:depth=1:activation=relu"


def idx(magic: int, values: np.ndarray) -> bytes:
    return gzip.compress(struct.pack(f">{1 + values.ndim}I", magic, *values.shape) + values.astype(np.uint8).tobytes())


def stripes(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Noisy 4 x 5 images, of which the bright row is the class, one of three."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = random.integers(0, 60, (count, 4, 5))
    images[np.arange(count), labels] += 150
    return images.astype(np.uint8), labels


def write_mnist(folder: Path) -> Path:
    """A folder of IDX files in the form of MNIST, with 60 training and 20 test images."""
    folder.mkdir(parents=True)
    for part, count in (("train", 60), ("t10k", 20)):
        images, labels = stripes(count)
        (folder / f"{part}-images-idx3-ubyte.gz").write_bytes(idx(2051, images))
        (folder / f"{part}-labels-idx1-ubyte.gz").write_bytes(idx(2049, labels))
    return folder


def write_stripes(folder: Path) -> str:
    """The id of a task of 90 striped images without a test set."""
    images, labels = stripes(90)
    np.savez(folder / "stripes.npz", images=images, labels=labels)
    return f"images/{folder / 'stripes.npz'}"


def labelled_task(name: str) -> ImageTask:
    task = make_task(name)
    assert isinstance(task, ImageTask)
    return task


def quick(task: str, **changes: Any) -> DistillConfig:
    """A run of a moment."""
    config = DistillConfig(
        task,
        examples=3,
        outer_steps=30,
        evaluate_every=10,
        distribution=SMALL,
        initial_rate=0.1,
        cloning=GradientStep(loss="cross-entropy", steps=6),
        initial_examples="class-means",
        outer=Supervised(batch_size=32, rate=0.05),
        selection_learners=4,
        selection_episodes=6,
        score_learners=8,
        score_episodes=30,
    )
    return dataclasses.replace(config, **changes)


def start(task: str, **changes: Any) -> Distilled:
    config = dataclasses.replace(quick(task), **changes)
    problem = config.problem()
    return problem.init_distilled(KEY, arena=ImageArena(labelled_task(task)))


@functools.cache
def classifiers(count: int = 4) -> tuple[LayeredNetwork, Weights]:
    network = LayeredNetwork(LearnerDistribution((6, 6), (1, 1), ("xavier1",)), (4, 5, 1), Discrete(3))
    return network, jax.jit(jax.vmap(network.init))(jax.random.split(KEY, count))
