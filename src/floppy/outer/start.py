"""The dataset that a run begins with, in place of fresh examples."""

import dataclasses

import jax
import jax.numpy as jnp

from floppy.cloning.losses import LOSSES
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.fields import encode
from floppy.outer.base import LABEL_SMOOTHING, Problem, Start
from floppy.outer.files import lesson_for, refusals_of
from floppy.outer.history import history_of
from floppy.teach.codec import Lesson

SEEN_BY_FILES = 1e6
"""Observations that a file's normaliser counts for."""


def with_start(problem: Problem, path: str) -> Problem:
    """The problem with the dataset of a file to begin with: examples, rates, encoder and normaliser.

    One-hot labels that are to be improved are smoothed: from the logarithm of 0 none could move.

    Raises:
      FloppyError: if the file is no dataset, or not one of this problem.
    """
    with refusals_of("Start", path):
        lesson = lesson_for(path, problem.task)
        _check(lesson, problem)
    dataset, statistics = lesson.dataset, lesson.statistics
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
    if lesson.actions != problem.actions:
        no = "no-" if problem.scaled_actions else ""
        raise FloppyError(f"its policies act in other units than those of the run: give --{no}scaled-actions.")
    counts = lesson.dataset.examples, len(lesson.distilled.encoder)
    if counts != (problem.examples, problem.encoder_layers):
        raise FloppyError(
            f"it has {counts[0]} examples and {counts[1]} layers of an encoder, the run {problem.examples} and "
            f"{problem.encoder_layers}: give --examples {counts[0]} --encoder-layers {counts[1]}."
        )
    if not problem.is_plain:
        made_for, given = encode(lesson.cloning), encode(problem.cloning)
        for name in made_for:  # the kind first
            if made_for[name] != given.get(name):
                option = "cloning" if name == "kind" else f"cloning.{name}"
                raise FloppyError(f"{option} must be {made_for[name]}, as on its card, got {given.get(name)}.")
    for learners in problem.learners:
        lesson.network(learners)
