"""Merging: several datasets as one, from which a single policy learns all their tasks (HaDES paper, section 5.5)."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from floppy.cloning import Distilled
from floppy.cloning.merged import Block
from floppy.dataset import DistilledDataset
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.learner.network import Learners
from floppy.play.normalise import RunningStatistics, restored_statistics
from floppy.tasks.base import LABELLED, kind_of
from floppy.teach.codec import CardParts, Lesson, pack, unpack, versions_of


def merge(datasets: Sequence[DistilledDataset], *, notes: str = "", command: str = "") -> DistilledDataset:
    """Merges datasets of different tasks into one: observations and actions side by side, examples below one another.

    Every task gets a block of the joint observation vector, of the joint actions and of the examples; an example is
    zero outside of its task's block (HaDES paper, section 5.5, Figure 5). A policy that is cloned from the result
    learns all tasks at once, each by the loss of its own examples on its own actions. The inner rate is the geometric
    mean of the datasets'; gradient steps give each task its own rate back through the weight of its loss: one step
    changes first and last layer for each task as its own dataset does (docs/design.md has the maths). Adam's steps are
    of one rate for all.

    Args:
      datasets: two or more, of different tasks, with the same cloning recipe and the same learners.
      notes: for the card.
      command: what made it, for the card.

    Returns:
      The merged dataset; its card's `blocks` say what is whose. A task without frozen statistics gets mean 0 and
      variance 1 where others have some, which clips its observations to ±10.

    Raises:
      FloppyError: for datasets that cannot be merged, naming the first reason.
    """
    if len(datasets) < 2:
        raise FloppyError(f"Merging takes two datasets at least, {len(datasets)} given: name more.")
    lessons = [unpack(each) for each in datasets]
    for lesson in lessons:
        _check(lesson)
    _check_together(lessons)
    rate, weights = _rate_and_weights(lessons)
    has_std = any(each.log_std is not None for each in datasets)
    log_stds = [np.asarray(lesson.distilled.log_std) for lesson in lessons if has_std]
    distilled = Distilled(
        jnp.asarray(_block_diagonal([_flat(each.observations) for each in datasets])),
        jnp.asarray(_block_diagonal([each.targets for each in datasets])),
        jnp.asarray(np.concatenate(log_stds) if log_stds else np.zeros(0, np.float32)),
        jnp.asarray(rate, jnp.float32),
        (),
    )
    actions = lessons[0].actions.joined([lesson.actions for lesson in lessons[1:]])
    parts = CardParts(
        task="+".join(each.card.task for each in datasets),
        actions=actions,
        cloning=lessons[0].cloning,
        learners=_common_learners(lessons),
        blocks=tuple(_blocks(datasets, weights)),
    )
    return pack(
        parts,
        distilled,
        _joint_statistics(datasets),
        algorithm={"name": "merge", "config": {}},
        command=command,
        versions=_joint_versions(datasets),
        licence=" AND ".join(dict.fromkeys(each.card.licence for each in datasets)),
        parents=[origin(each) for each in datasets],
        notes=notes,
    )


def _check(lesson: Lesson) -> None:
    """Checks that a dataset can be merged with any other."""
    card = lesson.dataset.card
    if lesson.blocks:
        fault = "is merged itself: merge all its parents at once"
    elif lesson.distilled.encoder:
        fault = "holds an encoder, which is of use to its own task alone: merge fully distilled datasets"
    elif lesson.per_evaluation_stats:
        fault = "has statistics that start with zero in every evaluation: merge datasets with frozen ones, or none"
    elif kind_of(lesson.task()) == LABELLED:
        fault = "is one of labelled images: merge datasets of tasks with episodes"
    else:
        return
    raise FloppyError(f"The dataset of {card.task} {fault}.")


def _check_together(lessons: Sequence[Lesson]) -> None:
    """Checks that the others go with the first one."""
    first, names = lessons[0], [each.dataset.card.task for each in lessons]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FloppyError(f"Two of the datasets are of {twice[0]}: give one dataset of each task.")
    same: dict[str, Callable[[Lesson], Any]] = {
        "kind of actions": lambda each: each.actions.kind,
        "cloning recipe": lambda each: each.cloning,
        "number of observation axes": lambda each: len(each.dataset.observation_shape),
    }
    for what, value in same.items():
        for other in lessons[1:]:
            if value(other) != value(first):
                tasks = other.dataset.card.task, first.dataset.card.task
                raise FloppyError(
                    f"The {what} of {tasks[0]} is {value(other)}, that of {tasks[1]} is {value(first)}: "
                    "merge datasets that have it in common."
                )


def _common_learners(lessons: Sequence[Lesson]) -> tuple[Learners, ...]:
    """The distributions that all datasets were distilled for."""
    common = [each for each in lessons[0].learners if all(each in other.learners for other in lessons[1:])]
    if not common:
        raise FloppyError("The datasets were distilled for different learners: merge datasets for the same ones.")
    if not all(each.is_dense for each in common):
        raise FloppyError(
            "The datasets were distilled for convolutions, or for one draw of weights, which a joint network does not "
            "have: merge datasets for fresh dense networks."
        )
    return tuple(common)


def _rate_and_weights(lessons: Sequence[Lesson]) -> tuple[np.ndarray, list[float]]:
    """The joint inner rate η, and the weight of each task's loss: `ηᵢ / η`; of several rates the first one says it.

    With Adam it is 1: a loss's scale would not change the size of its steps, only the tasks' shares in hidden layers.
    """
    rates = [np.asarray(each.distilled.inner_rate, np.float64) for each in lessons]
    rate = np.exp(np.mean(np.log(rates), axis=0)).astype(np.float32)
    firsts, first = [float(each.flat[0]) for each in rates], float(rate.flat[0])
    return rate, [each / first if lessons[0].cloning.balances_rates else 1.0 for each in firsts]


def _blocks(datasets: Sequence[DistilledDataset], weights: Sequence[float]) -> list[Block]:
    found, ends = [], (0, 0, 0)
    for dataset, weight in zip(datasets, weights, strict=True):
        sizes = dataset.examples, math.prod(dataset.observation_shape), dataset.card.actions["size"]
        rows, observations, actions = zip(ends, sizes, strict=True)
        found.append(Block(dataset.card.task, rows, observations, actions, weight))
        ends = (sum(rows), sum(observations), sum(actions))
    return found


def _joint_versions(datasets: Sequence[DistilledDataset]) -> dict[str, str]:
    """Those of the datasets, all of them where they differ, and of the library as it merges."""
    found: dict[str, set[str]] = {}
    for dataset in datasets:
        for package, version in dataset.card.versions.items():
            found.setdefault(package, set()).add(version)
    found["floppy"] = {versions_of()["floppy"]}
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(found.items())}


def _joint_statistics(datasets: Sequence[DistilledDataset]) -> RunningStatistics | None:
    """All statistics side by side, those of a dataset without any being 0 and 1; None where none has any."""
    if all(each.obs_mean is None for each in datasets):
        return None
    means = [np.zeros(each.observation_shape) if each.obs_mean is None else each.obs_mean for each in datasets]
    variances = [np.ones(each.observation_shape) if each.obs_var is None else each.obs_var for each in datasets]
    epsilons = {each.epsilon for each in datasets if each.obs_var is not None}
    epsilon = min(epsilons)
    if len(epsilons) > 1:
        variances = [var + (each.epsilon - epsilon) for var, each in zip(variances, datasets, strict=True)]
    mean, var = (np.concatenate([part.ravel() for part in parts]) for parts in (means, variances))
    return restored_statistics(mean, var, epsilon)


def _block_diagonal(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Matrices along the diagonal of one, which is 0 elsewhere."""
    whole = np.zeros(np.sum([part.shape for part in parts], axis=0), np.float32)
    row = column = 0
    for part in parts:
        whole[row : row + part.shape[0], column : column + part.shape[1]] = part
        row, column = row + part.shape[0], column + part.shape[1]
    return whole


def _flat(observations: np.ndarray) -> np.ndarray:
    """`[k, *obs]` as `[k, o]`."""
    return observations.reshape(len(observations), -1)
