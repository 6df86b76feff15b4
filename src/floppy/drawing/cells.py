"""Grids of few channels, such as MinAtar's games: a colour for each channel."""

from typing import TYPE_CHECKING

import numpy as np

from floppy.drawing.base import COLOURS, PALE, Scene
from floppy.drawing.plain import SMALL
from floppy.figure import label_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEGEND = 0.14
"""Height of a line of the legend, in inches."""
SIDE = 2.0
"""Of the grid, in inches."""
LEAST = 0.25
"""Deviations below this share of the largest are left out: cells would all be speckled."""


class Cells:
    """A square for the channel that matters most in a cell."""

    def fits(self, scene: Scene) -> bool:
        """Rows, columns, and as many channels as there are colours."""
        shape = scene.observation.shape
        return len(shape) == 3 and shape[-1] <= len(COLOURS)

    def size(self, scene: Scene) -> tuple[float, float]:
        """The grid, and the names of the channels below."""
        return SIDE, SIDE + LEGEND * -(-scene.observation.shape[-1] // 2) + 0.08

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Of play: what is there. Of an example: what it has more (full) or less (hollow) of than others."""
        from matplotlib.patches import Rectangle

        rows, columns, channels = scene.observation.shape
        ground = Rectangle((-0.5, -0.5), columns, rows, facecolor="#f6f8fa", edgecolor=PALE, linewidth=0.8)
        ground.set_clip_on(False)
        axes.add_patch(ground)
        for row, column, channel, strength in squares(scene):
            half = 0.46 * min(1.0, abs(strength)) ** 0.5
            colour = COLOURS[channel]
            axes.add_patch(
                Rectangle(
                    (column - half, row - half),
                    2 * half,
                    2 * half,
                    facecolor=colour if strength > 0 else "none",
                    edgecolor=colour,
                    linewidth=1.0,
                )
            )
        line = rows * LEGEND / SIDE
        for channel in range(channels):
            place, side = divmod(channel, 2)
            x, y = -0.5 + side * columns / 2, rows + 0.1 + line * (place + 0.1)
            axes.add_patch(Rectangle((x, y - 0.28 * line), 0.6 * line, 0.6 * line, color=COLOURS[channel], linewidth=0))
            name = label_of(scene.names[channel])
            axes.text(x + 0.9 * line, y, name, fontsize=SMALL - 0.5, va="center")
        axes.set_xlim(-0.5, columns - 0.5)
        axes.set_ylim(rows - 0.5 + line * -(-channels // 2) + 0.08 * rows / SIDE, -0.5)
        axes.set_axis_off()

    def caption(self, scene: Scene) -> str:
        """How to read it."""
        if scene.mean is None:
            return "Each square is what stands in a cell."
        return (
            "Examples are real numbers where the game has 0 and 1. Each square is the channel in which a cell differs "
            "most from the mean of all examples: full where it has more of it, hollow where less, as large as the "
            "difference; small ones are left out."
        )

    def lines(self, scene: Scene) -> list[str]:
        """As text: the letter of a channel, a capital where there is more of it, a small one where less."""
        rows, columns, channels = scene.observation.shape
        grid = [["·"] * columns for _ in range(rows)]
        for row, column, channel, strength in squares(scene):
            letter = chr(ord("a") + channel)
            grid[row][column] = letter.upper() if strength > 0 else letter
        names = [f"{chr(ord('A') + channel)} {label_of(scene.names[channel])}" for channel in range(channels)]
        return [*(" ".join(row) for row in grid), *names]


def squares(scene: Scene) -> list[tuple[int, int, int, float]]:
    """Row, column, channel and strength of every square; of play 1, of examples -1 .. 1, the largest being ±1."""
    cells = np.nan_to_num(scene.observation)
    if scene.mean is not None:
        cells = cells - scene.mean
        if not np.abs(cells).max() > 0:  # a single example is its own mean
            cells = scene.observation
        cells = cells / max(float(np.quantile(np.abs(cells), 0.995)), 1e-12)
    most = np.argmax(np.abs(cells), axis=-1)
    strength = np.take_along_axis(cells, most[..., None], axis=-1)[..., 0]
    places = np.argwhere(np.abs(strength) >= LEAST).tolist()
    return [(row, column, int(most[row, column]), float(strength[row, column])) for row, column in places]
