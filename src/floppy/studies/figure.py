"""Figures of studies: whether one can be drawn at all, and what their axes have in common; see `floppy.figure`."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from floppy.errors import FloppyError, raised
from floppy.figure import picture_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def check_drawing() -> None:
    """Draws an empty figure: a study that cannot end in one should not begin.

    Raises:
      FloppyError: saying why not.
    """
    try:
        picture_of(lambda figure: None)
    except Exception as error:  # Matplotlib reads settings, fonts and variables, each of which may be broken
        raise FloppyError(
            f"No figure can be drawn here ({raised(error)}), so nothing is measured: mend "
            "the settings or the installation of Matplotlib."
        ) from error


def scale_by_two(axes: "Axes", numbers: Sequence[int]) -> None:
    """Makes the axis below one of powers of two, with the numbers beside it."""
    if not math.isfinite(axes.dataLim.minposx):  # nothing is drawn where everything diverged
        axes.set_xlim(min(numbers) / 1.1, max(numbers) * 1.1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])
