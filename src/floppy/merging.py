"""Merging: several datasets as one, from which a single policy learns all their tasks (HaDES paper, section 5.5)."""

import dataclasses
import importlib.metadata
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import scipy.linalg

from floppy.blocks import Block
from floppy.card import MERGED_FORMAT, Card
from floppy.cloning import AdamSteps
from floppy.dataset import DistilledDataset, origin
from floppy.errors import FloppyError
from floppy.learners import LearnerDistribution
from floppy.tasks.base import SupervisedTask
from floppy.train import card_distributions, cloning_of, distilled_of, task_of


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
    _check_each(datasets)
    _check_together(datasets)
    rate, weights = _rate_and_weights(datasets)
    tensors = {
        "observations": scipy.linalg.block_diag(*(_flat(each.observations) for each in datasets)),
        "targets": scipy.linalg.block_diag(*(each.targets for each in datasets)),
        "inner_rate": np.asarray(rate),
    }
    if any(each.log_std is not None for each in datasets):
        tensors["log_std"] = np.concatenate([np.asarray(distilled_of(each).log_std) for each in datasets])
    if any(each.obs_mean is not None for each in datasets):
        tensors["obs_mean"] = np.concatenate([_statistic(each, each.obs_mean, np.zeros) for each in datasets])
        tensors["obs_var"] = np.concatenate([_statistic(each, each.obs_var, np.ones) for each in datasets])
    card = Card(
        task="+".join(each.card.task for each in datasets),
        actions=_joint_actions(datasets),
        cloning=datasets[0].card.cloning,
        learners=[dataclasses.asdict(distribution) for distribution in _common_learners(datasets)],
        algorithm={"name": "merge", "config": {}},
        normaliser="frozen" if "obs_mean" in tensors else "none",
        command=command,
        versions=_joint_versions(datasets),
        licence=" AND ".join(dict.fromkeys(each.card.licence for each in datasets)),
        parents=[origin(each) for each in datasets],
        notes=notes,
        blocks=[dataclasses.asdict(block) for block in _blocks(datasets, weights)],
        format=MERGED_FORMAT,
    )
    return DistilledDataset(card, **tensors)


def _check_each(datasets: Sequence[DistilledDataset]) -> None:
    if len(datasets) < 2:
        raise FloppyError(f"Merging takes two datasets at least, {len(datasets)} given: name more.")
    for dataset in datasets:
        card = dataset.card
        if card.blocks:
            fault = "is merged itself: merge all its parents at once"
        elif dataset.encoder:
            fault = "holds an encoder, which is of use to its own task alone: merge fully distilled datasets"
        elif card.normaliser == "per-evaluation":
            fault = "has statistics that start afresh in every evaluation: merge datasets with frozen ones, or none"
        elif isinstance(task_of(dataset), SupervisedTask):
            fault = "is one of labelled images: merge datasets of tasks with episodes"
        else:
            continue
        raise FloppyError(f"The dataset of {card.task} {fault}.")


def _check_together(datasets: Sequence[DistilledDataset]) -> None:
    """Refuses the first that does not go with the first one."""
    first, names = datasets[0], [each.card.task for each in datasets]
    if twice := [name for name in names if names.count(name) > 1]:
        raise FloppyError(f"Two of the datasets are of {twice[0]}: give one dataset of each task.")
    same: dict[str, Callable[[DistilledDataset], Any]] = {
        "kind of actions": lambda each: each.card.actions["kind"],
        "cloning recipe": cloning_of,
        "number of observation axes": lambda each: len(each.observation_shape),
    }
    for what, value in same.items():
        for other in datasets[1:]:
            if value(other) != value(first):
                raise FloppyError(
                    f"The {what} of {other.card.task} is {value(other)}, that of {first.card.task} is {value(first)}: "
                    "merge datasets that have it in common."
                )


def _common_learners(datasets: Sequence[DistilledDataset]) -> list[LearnerDistribution]:
    """The distributions that all datasets were distilled for."""
    first = card_distributions(datasets[0])
    common = [each for each in first if all(each in card_distributions(other) for other in datasets[1:])]
    if not common:
        raise FloppyError("The datasets were distilled for different learners: merge datasets for the same ones.")
    if any(each.network != "mlp" or each.init_seed >= 0 for each in common):
        raise FloppyError(
            "The datasets were distilled for convolutions, or for one draw of weights, which a joint network does not "
            "have: merge datasets for fresh dense networks."
        )
    return common


def _rate_and_weights(datasets: Sequence[DistilledDataset]) -> tuple[float, list[float]]:
    """The joint inner rate η, and the weight of each task's loss: `ηᵢ / η`.

    With Adam it is 1: a loss's scale would not change the size of its steps, only the tasks' shares in hidden layers.
    """
    rates = [float(distilled_of(each).inner_rate) for each in datasets]
    rate = float(np.float32(math.exp(np.mean(np.log(rates)))))
    uses_adam = isinstance(cloning_of(datasets[0]), AdamSteps)
    return rate, [1.0 if uses_adam else each / rate for each in rates]


def _blocks(datasets: Sequence[DistilledDataset], weights: Sequence[float]) -> list[Block]:
    found, ends = [], (0, 0, 0)
    for dataset, weight in zip(datasets, weights, strict=True):
        sizes = dataset.examples, math.prod(dataset.observation_shape), dataset.card.actions["size"]
        rows, observations, actions = zip(ends, sizes, strict=True)
        found.append(Block(dataset.card.task, rows, observations, actions, weight))
        ends = (sum(rows), sum(observations), sum(actions))
    return found


def _joint_actions(datasets: Sequence[DistilledDataset]) -> dict[str, Any]:
    each = [dataset.card.actions for dataset in datasets]
    joint = {"kind": each[0]["kind"], "size": sum(actions["size"] for actions in each)}
    bounds = ("low", "high") if joint["kind"] == "continuous" else ()
    return joint | {name: [bound for actions in each for bound in actions[name]] for name in bounds}


def _joint_versions(datasets: Sequence[DistilledDataset]) -> dict[str, str]:
    """Those of the datasets, all of them where they differ, and of the library as it merges."""
    found: dict[str, set[str]] = {}
    for dataset in datasets:
        for package, version in dataset.card.versions.items():
            found.setdefault(package, set()).add(version)
    found["floppy"] = {importlib.metadata.version("floppy")}
    return {package: ", ".join(sorted(versions)) for package, versions in sorted(found.items())}


def _statistic(
    dataset: DistilledDataset, own: np.ndarray | None, default: Callable[[tuple[int, ...]], np.ndarray]
) -> np.ndarray:
    return (default(dataset.observation_shape) if own is None else own).ravel()


def _flat(observations: np.ndarray) -> np.ndarray:
    """`[k, *obs]` as `[k, o]`."""
    return observations.reshape(len(observations), -1)
