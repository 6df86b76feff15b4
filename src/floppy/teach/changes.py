"""Datasets with one thing changed: an example left out, a part of every observation shifted or flipped."""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from floppy.dataset.file import DistilledDataset
from floppy.teach.codec import card_cloning

MOST_FEATURES = 16
"""Of a vector: a longer one is taken in as many parts."""
TILES = 4
"""A side of an image is divided into, at most."""


class Part(NamedTuple):
    """Numbers of an observation that are changed together."""

    name: str
    """Such as `feature 2`, `channel 0`, or `rows 0-4, columns 5-9`."""
    mask: np.ndarray
    """`[*obs]` bool."""


def parts_of(shape: tuple[int, ...], names: Sequence[str] = ()) -> list[Part]:
    """The parts into which an observation is divided, at most 20 of an image with four channels.

    A vector's are its features, or neighbouring ones together where it has more than 16. An image's are its channels,
    if it has several, and tiles of its pixels, 4 by 4 of them.

    Args:
      shape: of the observation.
      names: of the features or channels, as far as they are known.
    """
    if len(shape) not in (2, 3):
        return [Part(*each) for each in _spans("feature", math.prod(shape), shape, names)]
    channels = shape[2] if len(shape) == 3 else 1
    found = []
    if channels > 1:
        for name, mask in _spans("channel", channels, (channels,), names):
            found.append(Part(name, np.broadcast_to(mask[None, None, :], shape)))
    rows, columns = (np.array_split(np.arange(side), min(TILES, side)) for side in shape[:2])
    for some_rows in rows:
        for some_columns in columns:
            mask = np.zeros(shape, bool)
            mask[np.ix_(some_rows, some_columns)] = True
            name = f"rows {some_rows[0]}-{some_rows[-1]}, columns {some_columns[0]}-{some_columns[-1]}"
            found.append(Part(name, mask))
    return found


def feature_name(index: int, names: Sequence[str], word: str = "feature") -> str:
    """Such as `angle (rad)`, or `feature 2` where it has no name."""
    return names[index] if index < len(names) else f"{word} {index}"


def _spans(word: str, count: int, shape: tuple[int, ...], names: Sequence[str]) -> list[tuple[str, np.ndarray]]:
    """`count` numbers in at most 16 parts, by name."""
    found = []
    for span in np.array_split(np.arange(count), min(MOST_FEATURES, count)):
        mask = np.zeros(count, bool)
        mask[span] = True
        name = feature_name(span[0], names, word) if len(span) == 1 else f"{word}s {span[0]}-{span[-1]}"
        found.append((name, mask.reshape(shape)))
    return found


def without_example(dataset: DistilledDataset, index: int) -> DistilledDataset:
    """A dataset without one of its examples; what the others teach stays as it was.

    A loss is a mean over examples, so of `k - 1` each would count `k / (k - 1)` times as much. Where the cloning's rate
    can make up for that, it is smaller by this factor: after one gradient step the outputs of a policy then differ by
    what this example has contributed, up to what is not linear in the step.

    Args:
      dataset: of two examples or more.
      index: of the example, from 0.

    Returns:
      The dataset of `k - 1` examples.
    """
    kept = np.arange(dataset.examples) != index
    rate = dataset.inner_rate
    if rate is not None and card_cloning(dataset).balances_rates:
        rate = rate * (1 - 1 / dataset.examples)
    return dataclasses.replace(
        dataset, observations=dataset.observations[kept], targets=dataset.targets[kept], inner_rate=rate
    )


def with_part_shifted(dataset: DistilledDataset, part: Part, size: float) -> DistilledDataset:
    """A dataset with `size` times its root mean square added to a part of every observation."""
    spread = np.sqrt(np.mean(np.square(dataset.observations[:, part.mask], dtype=np.float64)))
    return dataclasses.replace(dataset, observations=dataset.observations + np.float32(size * spread) * part.mask)


def with_part_flipped(dataset: DistilledDataset, part: Part) -> DistilledDataset:
    """A dataset with the sign of a part of every observation turned."""
    return dataclasses.replace(dataset, observations=np.where(part.mask, -dataset.observations, dataset.observations))
