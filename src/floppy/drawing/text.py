"""Examples as text, for terminals: numbers with bars, cells as letters, images as shades. Nothing needs colour."""

from collections.abc import Sequence

import numpy as np

from floppy.dataset.file import DistilledDataset
from floppy.drawing.base import Scene, Target
from floppy.drawing.page import kind_of
from floppy.drawing.plain import number_text, shades
from floppy.drawing.scenes import groups_of
from floppy.figure import label_of

FIRST = 4
"""Examples that are shown where nobody says which."""
SHADES = " ·░▒▓█"
EIGHTHS = " ▏▎▍▌▋▊▉█"
MOST_LINES = 12
"""Of numbers and of actions of one example."""


def draw_text(dataset: DistilledDataset, examples: Sequence[int] | None = None, *, width: int = 80) -> str:
    """The examples of a dataset as text.

    Args:
      dataset: the dataset.
      examples: their numbers, from 0; by default the first four of every task.
      width: of the terminal, in letters.

    Returns:
      Lines that are no wider than `width`; none for a dataset without examples.

    Raises:
      FloppyError: for anything but a dataset, or for numbers of examples that it does not have.
    """
    lines: list[str] = []
    for group in groups_of(dataset, examples):
        chosen = list(zip(group.indexes, group.scenes, strict=True))
        if examples is None:
            chosen = chosen[:FIRST]
        for index, scene in chosen:
            of = f" of {label_of(group.task)}" if dataset.card.blocks else ""
            lines += ["", f"example {index}{of}", *_example(scene, width)]
        if examples is None and group.total > len(chosen) > 0:
            lines += ["", f"... and {group.total - len(chosen)} more"]
    return "\n".join(line.rstrip()[:width] for line in lines)


def _example(scene: Scene, width: int) -> list[str]:
    """The observation, beside it the target where there is room."""
    own = getattr(kind_of(scene), "lines", None)
    picture = own(scene) if own is not None else []
    if scene.observation.ndim == 1:
        picture += [*([""] if picture else []), *_numbers(scene)]
    elif not picture:
        picture = _shaded(scene)
    target = [] if scene.target is None else _bars(scene.target)
    left = max(map(len, picture), default=0)
    right = max(map(len, target), default=0)
    if left + right + 6 > width:
        return [f"  {line}" for line in [*picture, "", *target]]
    count = max(len(picture), len(target))
    padded = (picture + [""] * count, target + [""] * count)
    return [f"  {here:<{left}}   {there}" for here, there in list(zip(*padded, strict=False))[:count]]


def _numbers(scene: Scene) -> list[str]:
    """Names and numbers, and bars of what networks see."""
    seen = scene.observation if scene.normalised is None else scene.normalised
    names = [label_of(name) for name in scene.names[:MOST_LINES]]
    longest = max(map(len, names))
    reach = max(float(np.abs(seen).max()), 1e-12)
    lines = []
    for name, value, length in zip(names, scene.observation, seen, strict=False):
        lines.append(f"{name:<{longest}} {number_text(value):>9}  {_signed_bar(length / reach)}")
    left = len(scene.observation) - len(names)
    return [*lines, f"... and {left} more numbers"] if left > 0 else lines


def _bars(target: Target) -> list[str]:
    """Probabilities, or a continuous action with its range."""
    order = np.argsort(-np.abs(target.strength), kind="stable")[:MOST_LINES]
    names = [label_of(name) for name in target.names]
    longest = max(len(names[index]) for index in order)
    lines = ["target probabilities" if target.is_discrete else "target action"]
    for index in sorted(order.tolist()):
        value = target.values[index]
        if target.low is None or target.high is None:
            lines.append(f"{names[index]:<{longest}} {value:4.2f} {_bar(value, 12)}")
        else:
            bounds = f"of {number_text(target.low[index])} to {number_text(target.high[index])}"
            lines.append(
                f"{names[index]:<{longest}} {number_text(value):>8}  {_signed_bar(target.strength[index])}  {bounds}"
            )
    left = len(target.values) - len(order)
    return [*lines, f"... and {left} more actions"] if left > 0 else lines


def _bar(share: float, width: int) -> str:
    """A bar of up to `width` letters."""
    eighths = round(8 * width * min(1.0, max(0.0, share)))
    return EIGHTHS[-1] * (eighths // 8) + EIGHTHS[eighths % 8].strip()


def _signed_bar(share: float, width: int = 6) -> str:
    """A bar to the left or right of a line in the middle."""
    length = round(width * min(1.0, abs(share)))
    here = ("█" * length).rjust(width) if share < 0 else " " * width
    there = ("█" * length).ljust(width) if share > 0 else " " * width
    return f"{here}│{there}"


def _shaded(scene: Scene) -> list[str]:
    """An image, of several channels the last one, made smaller where it is large."""
    grey = shades(scene.observation, scene.limits)
    grey = grey[..., -1] if grey.shape[-1] != 3 else grey.mean(axis=-1)
    step = max(1, -(-grey.shape[1] // 30))
    rows, columns = (length - length % step for length in grey.shape)
    small = grey[:rows, :columns].reshape(rows // step, step, columns // step, step).mean(axis=(1, 3))
    levels = np.minimum((small * len(SHADES)).astype(int), len(SHADES) - 1)
    return ["".join(2 * SHADES[level] for level in row) for row in levels.tolist()]
