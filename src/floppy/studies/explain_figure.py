"""The pictures of `explain`: bars of how much a score falls, and maps over two features."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from floppy.figure import label_of
from floppy.studies.base import Row, by, column, error_bars

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANEL = 3.2
"""Inches of a panel's sides."""
IN_A_ROW = 3


def draw_rows(summary: Row, points: list[Row], figure: "Figure") -> None:
    """Draws a summary's bars, and below them the maps of rows.

    Args:
      summary: of the study.
      points: rows of the map, in which `example` is empty for what all examples teach.
      figure: an empty one, which is resized.
    """
    panels: list[Any] = []
    if examples := summary.get("examples"):
        panels.append(lambda axes: draw_examples(examples, summary["score"]["unit"], axes))
    if features := summary.get("features"):
        panels.append(lambda axes: draw_features(features, summary["score"]["unit"], axes))
    panels += [lambda axes, of=of, name=name: draw_map(name, of, axes) for name, of in by(points, "example").items()]
    columns = min(IN_A_ROW, len(panels))
    rows = -(-len(panels) // columns)
    figure.set_size_inches(1.3 * PANEL * columns, PANEL * rows)
    every = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes, draw in zip(every, panels, strict=False):
        draw(axes)
    for axes in every[len(panels) :]:
        axes.set_visible(False)


def draw_examples(examples: Sequence[Row], unit: str, axes: "Axes") -> None:
    """A bar per example: how much the score falls without it."""
    falls = _falls(examples)
    axes.bar(range(len(examples)), falls, yerr=_bars(examples), color="C0", capsize=2)
    step = -(-len(examples) // 16)
    axes.set_xticks(range(0, len(examples), step), [str(each["example"]) for each in examples[::step]])
    axes.axhline(0, color="grey", linewidth=0.8)
    axes.set_xlabel("example that is left out")
    axes.set_ylabel(f"fall of the {unit}")


def draw_features(features: Sequence[Row], unit: str, axes: "Axes") -> None:
    """Two bars per feature: how much the score falls with it shifted, and flipped, in all examples."""
    places = np.arange(len(features))
    changes = [name for name in features[0] if name != "feature"]
    for number, change in enumerate(changes):
        of_change = [feature[change] for feature in features]
        own = places + 0.4 * (number - (len(changes) - 1) / 2)
        axes.barh(own, _falls(of_change), 0.4, xerr=_bars(of_change), label=change, capsize=2)
    axes.set_yticks(places, [label_of(feature["feature"]) for feature in features], fontsize="small")
    axes.invert_yaxis()
    axes.axvline(0, color="grey", linewidth=0.8)
    axes.set_xlabel(f"fall of the {unit}, changed in all examples")
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=len(changes), fontsize="small", frameon=False)


def draw_map(example: Any, points: Sequence[Row], axes: "Axes") -> None:
    """What policies do over two features, or, of an example, what it contributes to that."""
    side = math.isqrt(len(points))
    x, y = column(points[:side], "x"), column(points[::side], "y")
    values = column(points, "value").reshape(side, side)
    outputs = column(points, "output").astype(int).reshape(side, side)
    count = int(points[0]["actions"])
    axes.set_xlabel(label_of(points[0]["x_feature"]))
    axes.set_ylabel(label_of(points[0]["y_feature"]))
    shape: dict[str, Any] = {"origin": "lower", "extent": (x[0], x[-1], y[0], y[-1]), "aspect": "auto"}
    if example != "":
        _draw_contribution(example, points[0], values, shape, axes)
    elif count == 0:
        image = axes.imshow(values, cmap="PuOr", **shape)
        axes.set_title(label_of(points[0]["output_name"]), fontsize="medium")
        axes.figure.colorbar(image, ax=axes)
    elif count == 2:
        first = points[0]
        shown = np.where(outputs == first["output"], values, 1 - values)
        image = axes.imshow(shown, cmap="PuOr", vmin=0, vmax=1, **shape)
        axes.set_title(label_of(f"probability of: {first['output_name']}"), fontsize="medium")
        axes.figure.colorbar(image, ax=axes)
    else:
        names = {int(point["output"]): point["output_name"] for point in points}
        _draw_likeliest(outputs, values, names, shape, axes)


def _draw_contribution(example: Any, first: Row, values: np.ndarray, shape: dict[str, Any], axes: "Axes") -> None:
    most = float(np.abs(values).max()) or 1.0
    image = axes.imshow(values, cmap="RdBu_r", vmin=-most, vmax=most, **shape)
    axes.figure.colorbar(image, ax=axes)
    axes.set_title(label_of(f"example {example} adds to: {first['output_name']}"), fontsize="medium")
    (left, right, low, high), place = shape["extent"], (first["example_x"], first["example_y"])
    x, y = float(np.clip(place[0], left, right)), float(np.clip(place[1], low, high))
    is_inside = (x, y) == place
    axes.plot(x, y, "o", color="black", markerfacecolor="black" if is_inside else "none", clip_on=False, markersize=7)


def _draw_likeliest(
    outputs: np.ndarray, values: np.ndarray, names: dict[int, str], shape: dict[str, Any], axes: "Axes"
) -> None:
    """The likeliest of several actions by colour, paler where it is less likely."""
    from matplotlib.colors import to_rgb
    from matplotlib.patches import Patch

    shown = np.unique(outputs)
    colours = np.array([to_rgb(f"C{action % 10}") for action in range(int(shown.max()) + 1)])
    strength = values[..., None]
    axes.imshow(1 - strength * (1 - colours[outputs]), **shape)
    axes.set_title("likeliest action", fontsize="medium")
    axes.legend(
        handles=[Patch(color=tuple(colours[action]), label=label_of(names[action])) for action in shown],
        fontsize="small",
    )


def _falls(entries: Sequence[Row]) -> np.ndarray:
    return np.array([np.nan if each["fall"] is None else each["fall"] for each in entries], float)


def _bars(entries: Sequence[Row]) -> np.ndarray:
    intervals = np.array([each["interval"] or (np.nan, np.nan) for each in entries], float)
    return np.nan_to_num(error_bars(_falls(entries), intervals))
