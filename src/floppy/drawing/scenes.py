"""From a dataset to what is drawn of each example: observations in the task's units, targets as probabilities."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import softmax

from floppy.cloning.losses import LOSSES
from floppy.cloning.merged import Block
from floppy.dataset.file import DistilledDataset, check_dataset
from floppy.drawing.base import Scene, Target
from floppy.errors import FloppyError, shown
from floppy.fields import whole_number
from floppy.spaces import ActionSpace, Continuous, space_of
from floppy.tasks.base import picture_of
from floppy.tasks.pictures import Picture, PictureError
from floppy.tasks.registry import picture_by_name
from floppy.tasks.untrusted import task_of_file
from floppy.teach.codec import card_cloning

MOST_EXAMPLES = 16
"""On a page, where nobody says which."""
MOST_CHOSEN = 100
"""On a page, where somebody does."""


class Group(NamedTuple):
    """The examples of one task."""

    task: str
    """Its id, as the card has it: from anywhere."""
    indexes: tuple[int, ...]
    """Of the examples, among all of the dataset."""
    total: int
    """Of the task's examples, those that are not drawn included."""
    scenes: tuple[Scene, ...]


def groups_of(dataset: DistilledDataset, examples: Sequence[int] | None = None) -> list[Group]:
    """What is drawn of a dataset, task by task; a dataset that is not merged has one.

    Args:
      dataset: the dataset.
      examples: numbers of the examples, from 0; by default the first ones.

    Raises:
      FloppyError: for anything but a dataset, and for numbers of examples that it does not have.
    """
    check_dataset(dataset)
    blocks = [Block.from_entry(entry) for entry in dataset.card.blocks] or [_whole(dataset)]
    chosen = None if examples is None else _chosen(dataset, examples)
    most = max(4, MOST_EXAMPLES // len(blocks))
    groups = []
    for block in blocks:
        rows = range(block.rows[0], sum(block.rows))
        indexes = rows[:most] if chosen is None else [index for index in chosen if index in rows]
        if len(indexes) or len(blocks) == 1:
            groups.append(Group(block.task, tuple(indexes), len(rows), _scenes(dataset, block, indexes)))
    return groups


def picture_of_card(task: str, command: str) -> Picture:
    """How the task that a card names is drawn: without names where it cannot be told here.

    Raises:
      PictureError: for a task whose picture does not fit it.
    """
    try:
        known = picture_by_name(task)
        return picture_of(task_of_file(task, command)) if known is None else known
    except PictureError:
        raise
    except FloppyError:  # of a module or a package that is not here
        return Picture()


def target_of(values: np.ndarray, actions: ActionSpace, picture: Picture, *, takes_probabilities: bool) -> Target:
    """A row of targets `[a]` as people read it; see `Target`."""
    known = picture.actions if len(picture.actions) == actions.size else ()
    names = known or tuple(f"action {index}" for index in range(actions.size))
    values = np.asarray(values, float)
    if isinstance(actions, Continuous):
        if actions.half_width:
            values = np.array(actions.centre) + np.array(actions.half_width) * values
        return Target(values, names, np.array(actions.low), np.array(actions.high))
    return Target(values if takes_probabilities else softmax(values), names)


def takes_probabilities(dataset: DistilledDataset) -> bool:
    """Whether the targets of discrete actions are probabilities, not logits."""
    try:
        return LOSSES.find(card_cloning(dataset).loss).takes_probabilities
    except FloppyError:  # a cloning or loss of the user's own, not imported: rows of probabilities look like it
        return bool((dataset.targets >= 0).all() and np.allclose(dataset.targets.sum(axis=-1), 1.0, atol=1e-3))


def _whole(dataset: DistilledDataset) -> Block:
    """A dataset that is not merged, as a block that is all of it; its observations keep their shape."""
    return Block(dataset.card.task, (0, dataset.examples), (0, 0), (0, dataset.card.actions["size"]), 1.0)


def _chosen(dataset: DistilledDataset, examples: Sequence[int]) -> list[int]:
    if isinstance(examples, str) or not isinstance(examples, Sequence | np.ndarray) or not len(examples):
        raise FloppyError(f"examples must be a list of numbers of examples, from 0, got {shown(examples)}.")
    if len(examples) > MOST_CHOSEN:
        raise FloppyError(f"examples names {len(examples)}, a page has room for {MOST_CHOSEN}: draw several pages.")
    if not dataset.examples:
        raise FloppyError("The dataset holds no examples, only a policy: there is none to choose.")
    return [whole_number("examples", each, least=0, most=dataset.examples - 1) for each in examples]


def _scenes(dataset: DistilledDataset, block: Block, indexes: Sequence[int]) -> tuple[Scene, ...]:
    """The examples of a block."""
    picture = picture_of_card(block.task, dataset.card.command)
    seen, raw = _observations(dataset, block)
    actions = space_of(dataset.card.actions).part(*block.actions)
    columns = slice(block.actions[0], sum(block.actions))
    are_probabilities = takes_probabilities(dataset)
    limits = _limits(raw)
    mean = raw.mean(axis=0) if len(raw) else None
    found = []
    for index in indexes:
        row = index - block.rows[0]
        target = target_of(dataset.targets[index, columns], actions, picture, takes_probabilities=are_probabilities)
        normalised = seen[row] if dataset.card.normaliser == "frozen" else None
        has_units = dataset.card.normaliser != "per-evaluation"
        found.append(Scene(picture, raw[row], normalised, target, mean, limits, has_units))
    return tuple(found)


def _observations(dataset: DistilledDataset, block: Block) -> tuple[np.ndarray, np.ndarray]:
    """The block's observations `[n, *obs]`, as networks see them and, where that is known, in the task's units."""
    seen = dataset.observations[block.rows[0] : sum(block.rows)].astype(float)
    mean, var = dataset.obs_mean, dataset.obs_var
    raw = seen if mean is None or var is None else seen * np.sqrt(var.astype(float) + dataset.epsilon) + mean
    if block.observations[1] == 0:
        return seen, raw
    part = slice(block.observations[0], sum(block.observations))
    shape = _shape_of(block, dataset.card.command)
    return seen[:, part].reshape(-1, *shape), raw[:, part].reshape(-1, *shape)


def _shape_of(block: Block, command: str) -> tuple[int, ...]:
    """The shape of a block's observations, which lie in a row; a row where the task is not here."""
    size = block.observations[1]
    try:
        shape = task_of_file(block.task, command).observation_shape
    except FloppyError:
        return (size,)
    return shape if int(np.prod(shape)) == size else (size,)


def _limits(observations: np.ndarray) -> tuple[float, float] | None:
    """Numbers between which nearly all of `[n, *obs]` lie, so that a few outliers do not make everything grey."""
    if not observations.size:
        return None
    low, high = np.quantile(observations, [0.005, 0.995])
    return (float(low), float(high)) if high > low else None


def as_observation(observation: Any, shape: tuple[int, ...]) -> np.ndarray:
    """An observation from play, checked.

    Raises:
      FloppyError: for another shape than the task's, and for what is no finite number.
    """
    array = np.asarray(observation)
    if array.shape != shape or array.dtype.kind not in "biuf":
        raise FloppyError(
            f"observation has shape {array.shape} and dtype {array.dtype}, the task's are numbers of shape {shape}: "
            "give one of its observations."
        )
    if not np.isfinite(array).all():
        raise FloppyError("observation holds NaN or infinity, which cannot be drawn: give finite numbers.")
    return array
