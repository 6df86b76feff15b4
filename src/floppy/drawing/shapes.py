"""What several pictures are made of: arrows, capsules, boxes."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from floppy.drawing.base import INK

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def arrow(axes: "Axes", start: Any, move: Any, colour: str, *, width: float = 0.06, label: str = "") -> None:
    """A straight arrow from `start [2]` by `move [2]`, in the units of the axes; none for a move of next to nothing."""
    from matplotlib.patches import FancyArrow

    start, move = np.asarray(start, float), np.asarray(move, float)
    length = float(np.hypot(*move))
    if not length > 2.0 * width:
        return
    head = min(3.2 * width, 0.6 * length)
    axes.add_patch(
        FancyArrow(
            *start,
            *move,
            width=width,
            head_width=3.0 * width,
            head_length=head,
            length_includes_head=True,
            color=colour,
            linewidth=0,
            zorder=6,
            label=label,
        )
    )


def turn(axes: "Axes", centre: Any, angle: float, radius: float, colour: str, *, width: float = 1.6) -> None:
    """An arrow around `centre [2]` by `angle` radians, anticlockwise where positive, from the top on."""
    from matplotlib.patches import Polygon

    if not abs(angle) > 0.3:
        return
    centre = np.asarray(centre, float)
    span = math.copysign(min(abs(angle), 5.2), angle)
    way = math.pi / 2 - span / 2 + np.linspace(0.0, span, 24)
    points = centre + radius * np.stack([np.cos(way), np.sin(way)], axis=1)
    axes.plot(*points.T, color=colour, linewidth=width, zorder=6, solid_capstyle="butt")
    along = math.copysign(1.0, span) * np.array([-math.sin(way[-1]), math.cos(way[-1])])
    aside, size = np.array([-along[1], along[0]]), 0.32 * radius
    tip = points[-1]
    axes.add_patch(
        Polygon(
            [tip + 1.2 * size * along, tip + 0.6 * size * aside, tip - 0.6 * size * aside],
            color=colour,
            linewidth=0,
            zorder=6,
        )
    )


def capsule_outline(start: Any, end: Any, radius: float) -> np.ndarray:
    """The outline `[n, 2]` of all that is within `radius` of the line between two points `[2]`."""
    start, end = np.asarray(start, float), np.asarray(end, float)
    along = math.atan2(end[1] - start[1], end[0] - start[0])
    around = np.linspace(-math.pi / 2, math.pi / 2, 12)
    caps = [
        centre + radius * np.stack([np.cos(along + side + around), np.sin(along + side + around)], axis=1)
        for centre, side in ((end, 0.0), (start, math.pi))
    ]
    return np.concatenate(caps)


def capsule(axes: "Axes", start: Any, end: Any, radius: float, colour: str, *, zorder: float = 3) -> None:
    """A rod with round ends."""
    from matplotlib.patches import Polygon

    outline = capsule_outline(start, end, radius)
    axes.add_patch(Polygon(outline, facecolor=colour, edgecolor=INK, linewidth=0.8, zorder=zorder))


def box(axes: "Axes", centre: Any, width: float, height: float, colour: str, *, zorder: float = 3) -> None:
    """A rectangle around `centre [2]`."""
    from matplotlib.patches import Rectangle

    corner = (centre[0] - width / 2, centre[1] - height / 2)
    axes.add_patch(Rectangle(corner, width, height, facecolor=colour, edgecolor=INK, linewidth=0.8, zorder=zorder))
