"""Figures: drawn without a window, by the same settings everywhere, and every text in them as it stands."""

import importlib
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BACKEND_VARIABLE = "MPLBACKEND"
"""Asks Matplotlib for a kind of window. Programs that a notebook starts inherit it, and may not have that kind."""

LONGEST = 40
"""Characters of a label."""


def picture_of(draw: Callable[["Figure"], None], dpi: int = 100) -> bytes:
    """What a function draws on an empty figure of 6 by 4 inches, which it may resize, as PNG."""
    with usual_settings(), warnings.catch_warnings():
        # Axes may stay empty where everything diverged.
        warnings.simplefilter("ignore", UserWarning)
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(6, 4), layout="constrained")
        FigureCanvasAgg(figure)
        draw(figure)
        return figure_bytes(figure, dpi=dpi)


FORMATS = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""Kinds of files that figures are written to, with what is left out, so that the same figure gives the same bytes."""


def figure_bytes(figure: "Figure", kind: str = "png", dpi: int = 100) -> bytes:
    """A figure as a file of one of the `FORMATS`, every text as it stands."""
    picture = io.BytesIO()
    with usual_settings(), warnings.catch_warnings():
        import matplotlib

        # A letter that the font lacks becomes a box.
        warnings.simplefilter("ignore", UserWarning)
        take_literally(figure)
        matplotlib.rcParams["svg.hashsalt"] = "floppy"
        figure.savefig(picture, format=kind, dpi=dpi, metadata=FORMATS[kind])
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


def printable(value: Any) -> str:
    """A value's text on one line, without codes that a terminal would obey."""
    return "".join(letter if letter.isprintable() else "\ufffd" for letter in str(value))


def label_of(name: Any) -> str:
    """A name as a figure has room for it: on one line, and with its middle left out where it is long."""
    text = printable(name)
    if len(text) > LONGEST:
        text = f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"
    return f" {text}" if text.startswith("_") else text  # legends leave out what begins with it


@contextmanager
def usual_settings() -> Iterator[None]:
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
