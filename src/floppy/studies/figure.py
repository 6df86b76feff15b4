"""Figures of studies: drawn without a window, by the same settings everywhere, and every text in them as it stands."""

import importlib
import io
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from floppy.errors import FloppyError, raised

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BACKEND_VARIABLE = "MPLBACKEND"
"""Asks Matplotlib for a kind of window. Programs that a notebook starts inherit it, and may not have that kind."""

LONGEST = 40
"""Characters of a label."""


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


def picture_of(draw: Callable[["Figure"], None]) -> bytes:
    """What a function draws on an empty figure of 6 by 4 inches, as PNG."""
    with _usual_settings():
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure, picture = Figure(figsize=(6, 4), layout="constrained"), io.BytesIO()
        FigureCanvasAgg(figure)
        with warnings.catch_warnings():
            # A letter that the font lacks becomes a box, and axes may stay empty where everything diverged.
            warnings.simplefilter("ignore", UserWarning)
            draw(figure)
            take_literally(figure)
            figure.savefig(picture, format="png", dpi=100, metadata={"Software": None})
    return picture.getvalue()


def take_literally(figure: "Figure") -> None:
    """Has the texts of a figure drawn as they stand: a `$` in the name of a file begins no formula.

    The powers of ten that logarithmic axes write are formulas of Matplotlib's own, and stay.
    """
    from matplotlib.axis import Axis
    from matplotlib.text import Text
    from matplotlib.ticker import LogFormatterMathtext

    powers: set[Any] = set()
    for axis in figure.findobj(Axis):
        formatters = (axis.get_major_formatter(), axis.get_minor_formatter())
        for formatter, ticks in zip(formatters, (axis.get_major_ticks(), axis.get_minor_ticks()), strict=True):
            if isinstance(formatter, LogFormatterMathtext):
                powers.update(label for tick in ticks for label in (tick.label1, tick.label2))
    for text in figure.findobj(Text):
        if text not in powers:
            text.set_parse_math(False)


def scale_by_two(axes: "Axes", numbers: Sequence[int]) -> None:
    """Makes the axis below one of powers of two, with the numbers beside it."""
    if not math.isfinite(axes.dataLim.minposx):  # nothing is drawn where everything diverged
        axes.set_xlim(min(numbers) / 1.1, max(numbers) * 1.1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(numbers, [str(number) for number in numbers])


def label_of(name: Any) -> str:
    """A name as a figure has room for it: on one line, and with its middle left out where it is long."""
    text = "".join(letter if letter.isprintable() else "\ufffd" for letter in str(name))
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins with it


@contextmanager
def _usual_settings() -> Iterator[None]:
    """Matplotlib as it is without settings of the user's, which might ask for TeX or a window."""
    matplotlib = _matplotlib()
    usual = {name: value for name, value in matplotlib.rcParamsDefault.items() if not name.startswith("backend")}
    with matplotlib.rc_context(usual):
        yield


def _matplotlib() -> Any:
    """Matplotlib, whose import fails where it does not know the backend that is asked for."""
    if "matplotlib" in sys.modules or BACKEND_VARIABLE not in os.environ:
        return importlib.import_module("matplotlib")
    wanted = os.environ.pop(BACKEND_VARIABLE)
    try:
        matplotlib: Any = importlib.import_module("matplotlib")
    finally:
        os.environ[BACKEND_VARIABLE] = wanted
    with suppress(ValueError):  # for figures of the user's own
        matplotlib.rcParams["backend"] = wanted
    return matplotlib
