"""The dataset that a run begins with, in place of fresh examples."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from floppy.cloning.losses import LOSSES
from floppy.dataset import load
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.outer.base import LABEL_SMOOTHING, Problem, Start
from floppy.outer.history import history_of
from floppy.teach.codec import Lesson, unpack

SEEN_BY_FILES = 1e6
"""Observations that a file's normaliser counts for."""


def with_start(problem: Problem, path: str) -> Problem:
    """The problem with the dataset of a file to begin with: examples, rates, encoder and normaliser.

    One-hot labels that are to be improved are smoothed: from the logarithm of 0 none could move.

    Raises:
      FloppyError: if the file is no dataset, or not one of this problem.
    """
    try:
        dataset = load(path)
        lesson = unpack(dataset)
        _check(lesson, problem)
    except FloppyError as error:
        raise FloppyError(f"Start {path}: {str(error).removeprefix(f'{path}: ')}") from error
    statistics = lesson.statistics
    if statistics is not None:
        statistics = statistics._replace(seen=jnp.asarray(SEEN_BY_FILES, jnp.float32))
    distilled = lesson.distilled
    if problem.targets == "learned" and LOSSES[problem.cloning.loss].takes_probabilities:
        distilled = distilled._replace(targets=_learnable(distilled.targets))
    start = Start(origin(dataset), history_of(dataset), distilled, statistics)
    return dataclasses.replace(problem, start=start)


def _learnable(targets: jax.Array) -> jax.Array:
    """Probabilities `[k, a]` that have logarithms: labels that leave a class none, as one-hot ones, are smoothed."""
    smoothed = (1 - LABEL_SMOOTHING) * targets + LABEL_SMOOTHING / targets.shape[1]
    return jnp.where(jnp.all(targets > 0, axis=1, keepdims=True), targets, smoothed)


def _check(lesson: Lesson, problem: Problem) -> None:
    task, card = problem.task, lesson.dataset.card
    found: Any = lesson.dataset.observation_shape, lesson.actions
    if lesson.blocks or found != (task.observation_shape, problem.actions):
        raise FloppyError(
            f"it is for {card.task}, not for {task.task_id} with policies in the same units of actions: give a dataset "
            "of one task with the same observations and actions."
        )
    if lesson.per_evaluation_stats:
        raise FloppyError("it has no normaliser of its own (its card says per-evaluation): give another dataset.")
    counts = lesson.dataset.examples, len(lesson.distilled.encoder)
    if counts != (problem.examples, problem.encoder_layers):
        raise FloppyError(
            f"it has {counts[0]} examples and {counts[1]} layers of an encoder, the run {problem.examples} and "
            f"{problem.encoder_layers}: give --examples {counts[0]} --encoder-layers {counts[1]}."
        )
    if not problem.is_plain and lesson.cloning != problem.cloning:
        raise FloppyError(f"its cloning is {lesson.cloning}, that of the run {problem.cloning}: give the same one.")
    for learners in problem.learners:
        lesson.network(learners)
