"""Files that a run begins with or learns from: what `start.py` and `teacher.py` ask of both."""

import contextlib
from collections.abc import Iterator

import jax
import numpy as np

from floppy.dataset import load
from floppy.errors import FloppyError
from floppy.learner.network import W
from floppy.tasks.base import Task
from floppy.teach.codec import Lesson, unpack


@contextlib.contextmanager
def refusals_of(what: str, path: str) -> Iterator[None]:
    """Has refusals within say of which file they are, such as `Start FILE: ...`."""
    try:
        yield
    except FloppyError as error:
        raise FloppyError(f"{what} {path}: {str(error).removeprefix(f'{path}: ')}") from error


def lesson_for(path: str, task: Task) -> Lesson:
    """A file's dataset, which is for a task's observations and actions, in whatever units, and normalises by itself.

    Raises:
      FloppyError: if it is none, see `refusals_of`.
    """
    lesson = unpack(load(path))
    if lesson.blocks or (lesson.dataset.observation_shape, lesson.actions.raw) != (
        task.observation_shape,
        task.actions,
    ):
        raise FloppyError(
            f"it is for {lesson.dataset.card.task}, not for {task.task_id}: give a dataset of one task with the same "
            "observations and actions."
        )
    if lesson.per_evaluation_stats:
        raise FloppyError("it has no normaliser of its own (its card says per-evaluation): give another dataset.")
    return lesson


def check_finite(weights: W) -> W:
    """Weights that were trained on a file's dataset.

    Raises:
      FloppyError: if they are not finite, see `refusals_of`.
    """
    if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(weights)):
        raise FloppyError("what was trained on it is not finite: give another dataset.")
    return weights
