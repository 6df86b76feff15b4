"""The dataset that a run begins with, in place of fresh examples."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from floppy.cloning.base import Distilled, rates_shape
from floppy.cloning.losses import LOSSES
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.fields import encode
from floppy.outer.base import LABEL_SMOOTHING, Problem, Start
from floppy.outer.files import check_finite, lesson_for, refusals_of
from floppy.outer.history import history_of
from floppy.teach.codec import Lesson
from floppy.teach.policies import train

SEEN_BY_FILES = 1e6
"""Observations that a file's normaliser counts for."""


def with_start(problem: Problem, path: str, seed: int) -> Problem:
    """The problem with the dataset of a file to begin with: examples, rates, encoder and normaliser.

    One-hot labels that are to be improved are smoothed: from the logarithm of 0 none could move. Plain PPO and direct
    neuroevolution, in which nothing is cloned, begin with a policy: the file's own, or of a file with examples one that
    is cloned from them.

    Args:
      problem: without a start.
      path: of the file.
      seed: of the fresh network that is cloned, where one is.

    Raises:
      FloppyError: if the file is no dataset, or not one of this problem.
    """
    with refusals_of("Start", path):
        lesson = lesson_for(path, problem.task)
        is_cloned = problem.is_plain and not lesson.dataset.card.is_plain_policy
        _check(lesson, problem, is_cloned=is_cloned)
        distilled = _clone(lesson, problem, seed) if is_cloned else lesson.distilled
    dataset, statistics = lesson.dataset, lesson.statistics
    if statistics is not None:
        statistics = statistics._replace(seen=jnp.asarray(SEEN_BY_FILES, jnp.float32))
    if problem.targets == "learned" and LOSSES[problem.cloning.loss].takes_probabilities:
        distilled = distilled._replace(targets=_learnable(distilled.targets))
    start = Start(origin(dataset), history_of(dataset), distilled, statistics, seed if is_cloned else None)
    return dataclasses.replace(problem, start=start)


def _learnable(targets: jax.Array) -> jax.Array:
    """Probabilities `[k, a]` that have logarithms: labels that leave a class none, as one-hot ones, are smoothed."""
    smoothed = (1 - LABEL_SMOOTHING) * targets + LABEL_SMOOTHING / targets.shape[1]
    return jnp.where(jnp.all(targets > 0, axis=1, keepdims=True), targets, smoothed)


def _clone(lesson: Lesson, problem: Problem, seed: int) -> Distilled:
    """A policy that learned from the dataset, as a dataset without examples: every layer is in its encoder."""
    policy = train(lesson.dataset, seed, distribution=problem.learners[0])[0]
    network: Any = policy.network
    weights = check_finite(policy.weights)
    shape, size = problem.task.observation_shape, problem.actions.size
    rates = jnp.ones(rates_shape(problem.cloning), jnp.float32)
    return Distilled(jnp.zeros((0, *shape)), jnp.zeros((0, size)), weights.log_std, rates, network.layers(weights))


def _check(lesson: Lesson, problem: Problem, *, is_cloned: bool) -> None:
    if lesson.actions != problem.actions:
        no = "no-" if problem.scaled_actions else ""
        raise FloppyError(f"its policies act in other units than those of the run: give --{no}scaled-actions.")
    counts = lesson.dataset.examples, len(lesson.distilled.encoder)
    if not is_cloned and counts != (problem.examples, problem.encoder_layers):
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
