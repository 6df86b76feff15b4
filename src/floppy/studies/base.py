"""The contract of a study: it measures cells one after the other, then sums up and draws the table of their rows."""

import math
import numbers
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from floppy.errors import DivergedError, FloppyError, shown
from floppy.evaluation.score import interquartile_mean, learner_means, stratified_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STUDY_NAME = "study.json"
ROWS_NAME = "rows.csv"
SUMMARY_NAME = "summary.json"
FIGURE_NAME = "figure.png"
CELLS_NAME = "cells"

UNIT = "unit"
"""The column that says what scores are called, so that a figure needs no task."""

Row = dict[str, Any]
"""Texts and numbers by the names of columns."""

Progress = Callable[[int, int, str], None]
"""Called with the cells done, all cells, and what the next one is."""


class Study(Protocol):
    """An experiment. Implementations are frozen dataclasses: they are the configuration."""

    name: ClassVar[str]
    """As on the command line."""

    def cells(self) -> list[Row]:
        """What the study measures, one cell after the other.

        Returns:
          For every cell the columns that tell it from the others.

        Raises:
          FloppyError: for what cannot be measured, such as a file that is not there: nothing is written yet.
        """

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """Measures a cell.

        Args:
          cell: one of `cells`.
          folder: for what the cell keeps, such as runs to be resumed.

        Returns:
          The cell's rows, without the columns that `cell` has.

        Raises:
          FloppyError: for what stops the study; cells measured before stay.
        """

    def summary(self, rows: list[Row]) -> Row:
        """Sums up a table.

        Args:
          rows: of all cells measured so far.

        Returns:
          What they say, as plain JSON; what is no finite number becomes null.
        """

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Draws a table; texts are taken as they stand, not as formulas.

        Args:
          rows: of all cells measured so far.
          figure: an empty figure of 6 by 4 inches, which may be resized.
        """


def check_some(study: Study, *names: str) -> None:
    """Checks that fields which hold several values have at least one.

    Raises:
      FloppyError: naming the first that is empty.
    """
    for name in names:
        if not getattr(study, name):
            raise FloppyError(f"{name} must have at least one value, got none.")


def finite(value: float) -> float | None:
    """The number as JSON has it: None for infinity and NaN."""
    return float(value) if math.isfinite(value) else None


def plain_json(value: Any) -> Any:
    """A value as JSON has it: None for NaN and infinity, and Python's own in place of NumPy's numbers and arrays."""
    if isinstance(value, Mapping):
        return {str(name): plain_json(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain_json(each) for each in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain_json(value.tolist())
    return finite(value) if isinstance(value, float) else value


def unit_of(rows: Sequence[Row]) -> str:
    """What the scores of a table are called; tables written before there was the column have returns only."""
    return ", ".join(dict.fromkeys(str(row.get(UNIT) or "mean return") for row in rows))


def scores_of(returns: np.ndarray) -> np.ndarray:
    """Mean return `[L]` of each learner, from returns `[L, episodes]`; -inf for all where all of them diverged."""
    try:
        return learner_means(returns)
    except DivergedError:
        return np.full(len(returns), -np.inf)


def interval_where_finite(interval: Callable[..., Sequence[float]], *samples: np.ndarray) -> list[float] | None:
    """An interval of samples; None where one of their scores is not finite."""
    return list(interval(*samples)) if all(np.isfinite(sample).all() for sample in samples) else None


def error_bars(middle: np.ndarray, intervals: np.ndarray) -> np.ndarray:
    """Lengths `[2, n]` of the bars from `middle` `[n]` to the ends of `intervals` `[n, 2]`."""
    low, high = intervals.T
    # The interval of a percentile bootstrap may leave the mean out.
    return np.maximum([middle - low, high - middle], 0.0)


def by(rows: Sequence[Row], *names: str) -> dict[Any, list[Row]]:
    """Rows in groups of the same values in the named columns, in the order in which these appear.

    The key of a group is the value of a single name, of several the tuple of their values.
    """
    groups: dict[Any, list[Row]] = {}
    for row in rows:
        key = row[names[0]] if len(names) == 1 else tuple(row[name] for name in names)
        groups.setdefault(key, []).append(row)
    return groups


def column(rows: Sequence[Row], name: str) -> np.ndarray:
    """The numbers of a column, NaN for None.

    Raises:
      ValueError: for what is no number.
    """
    values = [row[name] for row in rows]
    for value in values:
        if not (value is None or isinstance(value, numbers.Real)):
            raise ValueError(f"{name} is no number: {shown(value)}")
    return np.array(values, float)


def spread_of_runs(scores: np.ndarray) -> Row:
    """Sums up the scores `[n]` of the runs of a method, -inf of those that diverged.

    Returns:
      The number of `runs`, their `interquartile_mean` and its `interval`; the number of those that `diverged`, if any
      did. A figure that is not finite is None.
    """
    diverged = int(np.sum(~np.isfinite(scores)))
    entry: Row = {"runs": len(scores)} | ({"diverged": diverged} if diverged else {})
    middle = finite(interquartile_mean(scores))
    interval = None if diverged else list(stratified_interval([scores]))
    return entry | {"interquartile_mean": middle, "interval": interval}
