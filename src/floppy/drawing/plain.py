"""Pictures of anything: bars of named numbers, a heat map, an image, channels side by side."""

import math
from typing import TYPE_CHECKING

import numpy as np

from floppy.drawing.base import BLUE, GREY, INK, PALE, Scene
from floppy.figure import label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BARS = 40
"""Numbers of an observation that have a bar each; more are a heat map."""
SMALL = 7
"""Points of small texts."""


class Bars:
    """A vector as bars, its numbers in the task's units beside them."""

    def fits(self, scene: Scene) -> bool:
        """A row of not too many numbers."""
        return scene.observation.ndim == 1 and len(scene.observation) <= MOST_BARS

    def size(self, scene: Scene) -> tuple[float, float]:
        """A line for each number."""
        return 3.6, max(0.8, 0.16 * len(scene.observation) + 0.2)

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Bars of what networks see, so that numbers of different units can be compared."""
        lengths = scene.observation if scene.normalised is None else scene.normalised
        lengths = np.nan_to_num(np.asarray(lengths, float), posinf=0.0, neginf=0.0)
        limits = scene.limits if scene.normalised is None else None  # which are in the task's units
        reach = max(1e-9, float(np.abs(lengths).max()), 0.0 if limits is None else max(map(abs, limits)))
        places = np.arange(len(lengths))
        axes.barh(places, lengths, height=0.7, color=BLUE)
        axes.axvline(0.0, color=GREY, linewidth=0.8)
        axes.set_xlim(-4.0 * reach, 1.0 * reach)  # names and numbers stand on the left
        axes.set_ylim(len(lengths) - 0.5, -0.5)
        along = axes.get_yaxis_transform()
        for place, name, value in zip(places.tolist(), scene.names, scene.observation, strict=True):
            axes.text(0.0, place, label_of(name), transform=along, fontsize=SMALL, va="center")
            axes.text(0.59, place, number_text(value), transform=along, fontsize=SMALL, va="center", ha="right")
        axes.set_axis_off()

    def caption(self, scene: Scene) -> str:
        """Units."""
        if not scene.has_units:
            return "Numbers are in normalised units."
        compared = "" if scene.normalised is None else "; the bars are as networks see them, normalised"
        return f"Numbers are in the task's units{compared}."


class HeatMap:
    """Any array as shades: blue below 0, red above."""

    def fits(self, scene: Scene) -> bool:
        """Anything."""
        return True

    def size(self, scene: Scene) -> tuple[float, float]:
        """Cells of the same size."""
        rows, columns = as_matrix(scene.observation).shape
        return (2.6, 2.6 * rows / columns) if columns >= rows else (2.6 * max(columns / rows, 0.2), 2.6)

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Vectors row by row, channels side by side."""
        shown = scene.observation if scene.normalised is None else scene.normalised
        cells = as_matrix(np.asarray(shown, float))
        reach = _reach(cells, None if scene.normalised is not None else scene.limits)
        axes.imshow(cells, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="nearest", aspect="auto")
        axes.set_xticks([])
        axes.set_yticks([])
        frame(axes)

    def caption(self, scene: Scene) -> str:
        """How to read it."""
        order = ", row by row" if scene.observation.ndim == 1 else ""
        units = "normalised" if scene.normalised is not None or not scene.has_units else "in the task's units"
        return f"Each cell is a number of the observation{order}, {units}: red above 0, blue below."


class Image:
    """An image, grey or of three colours."""

    def fits(self, scene: Scene) -> bool:
        """Rows, columns, and one channel or three."""
        return scene.observation.ndim == 3 and scene.observation.shape[-1] in (1, 3)

    def size(self, scene: Scene) -> tuple[float, float]:
        """As wide as high, mostly."""
        rows, columns, _ = scene.observation.shape
        return 1.5 * min(2.0, max(0.5, columns / rows)), 1.5

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Shades from the smallest number to the largest."""
        image = shades(scene.observation, scene.limits)
        axes.imshow(image.squeeze(-1) if image.shape[-1] == 1 else image, cmap="gray", vmin=0.0, vmax=1.0)
        axes.set_xticks([])
        axes.set_yticks([])
        frame(axes)

    def caption(self, scene: Scene) -> str:
        """What black and white are."""
        return _scale_caption(scene)


class Frames:
    """Channels of an image side by side, such as the last frames of a game."""

    def fits(self, scene: Scene) -> bool:
        """Rows, columns, and a few channels."""
        return scene.observation.ndim == 3 and scene.observation.shape[-1] <= 10

    def size(self, scene: Scene) -> tuple[float, float]:
        """A square for each."""
        rows, columns, channels = scene.observation.shape
        return 1.35 * channels * min(2.0, max(0.5, columns / rows)), 1.6

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """From left to right, their names above."""
        rows, columns, channels = scene.observation.shape
        gap = max(1, columns // 20)
        strip = np.full((rows, channels * (columns + gap) - gap), np.nan)
        for channel in range(channels):
            start = channel * (columns + gap)
            strip[:, start : start + columns] = shades(scene.observation, scene.limits)[..., channel]
            name = label_of(scene.names[channel])
            axes.text(start + columns / 2 - 0.5, -0.03 * rows, name, ha="center", va="bottom", fontsize=SMALL)
        axes.imshow(strip, cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest", aspect="auto")
        axes.set_ylim(rows - 0.5, -0.13 * rows)  # with room for the names
        axes.set_axis_off()

    def caption(self, scene: Scene) -> str:
        """What black and white are."""
        return _scale_caption(scene)


def number_text(value: float) -> str:
    """A number to three digits."""
    if not math.isfinite(value):
        return str(float(value))
    text = f"{value:.3g}" if abs(value) < 1e3 or abs(value) >= 1e6 else f"{float(f'{value:.3g}'):.0f}"
    return text.replace("-", "−") if value else "0"


def shades(values: np.ndarray, limits: tuple[float, float] | None) -> np.ndarray:
    """Numbers as 0 .. 1, between limits or their own smallest and largest; NaN becomes 0."""
    values = np.nan_to_num(np.asarray(values, float))
    low, high = (float(values.min()), float(values.max())) if limits is None else limits
    return np.clip((values - low) / max(high - low, 1e-12), 0.0, 1.0)


def as_matrix(values: np.ndarray) -> np.ndarray:
    """An array as rows and columns: a vector is broken into rows, channels stand side by side; gaps are NaN."""
    if values.ndim == 1:
        columns = math.ceil(math.sqrt(len(values)))
        rows = math.ceil(len(values) / columns)
        return np.append(values, np.full(rows * columns - len(values), np.nan)).reshape(rows, columns)
    if values.ndim == 2:
        return values
    planes = values.reshape(*values.shape[:2], -1)
    gap = np.full((len(planes), 1), np.nan)
    parts = [part for channel in range(planes.shape[-1]) for part in (planes[..., channel], gap)]
    return np.concatenate(parts[:-1], axis=1)


def frame(axes: "Axes") -> None:
    """A thin line around."""
    for spine in axes.spines.values():
        spine.set(color=PALE, linewidth=0.8)


def _reach(values: np.ndarray, limits: tuple[float, float] | None) -> float:
    """The largest size of a number that is drawn with the same shades."""
    finite = np.abs(values[np.isfinite(values)])
    return max(1e-9, *(map(abs, limits) if limits else (0.0, float(finite.max(initial=0.0)))))


def _scale_caption(scene: Scene) -> str:
    if scene.limits is None:
        return "Black is the smallest number, white the largest."
    low, high = map(number_text, scene.limits)
    units = "" if scene.has_units else ", in normalised units"
    return f"Black is {low} or less, white {high} or more{units}; real images have 0 to 1."


__all__ = ["INK", "Bars", "Frames", "HeatMap", "Image"]
