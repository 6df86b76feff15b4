"""Every score of both papers beside this project's, from the tables in docs/results: `floppy reproduce --cells`."""

import dataclasses
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from floppy.errors import FloppyError, shown
from floppy.papers.experiments import Cell, Experiments, Page, Run
from floppy.studies.base import finite

Json = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Answer:
    """What this project's runs of a task, which differ in their seed alone, have to say to a published score."""

    cell: Cell
    page: Page
    runs: tuple[Run, ...]
    rows: tuple[Mapping[str, str], ...]
    """Of the page's table, one per run: the learners that the published score is about."""

    @property
    def means(self) -> list[float]:
        """Mean return, or accuracy in percent, of each run."""
        return [_number(row, "mean") for row in self.rows]

    @property
    def mean(self) -> float:
        """Over all runs."""
        return sum(self.means) / len(self.means)

    @property
    def error(self) -> float:
        """Standard error of the mean, over the learners of all runs."""
        learners = sum(_number(row, "learners") for row in self.rows)
        variance = sum(_number(row, "sd") ** 2 for row in self.rows) / len(self.rows)
        return math.sqrt(variance / learners)

    @property
    def interval(self) -> tuple[float, float]:
        """Of one run the 95% interval of its mean over learners; of several the least and the greatest of theirs."""
        if len(self.rows) == 1:
            return _number(self.rows[0], "ci_low"), _number(self.rows[0], "ci_high")
        return min(self.means), max(self.means)

    @property
    def is_reached(self) -> bool:
        """Whether the mean is at least the published score."""
        return self.mean >= self.cell.published

    def as_json(self) -> Json:
        """Plain JSON; what a table does not say is null."""
        run = self.runs[0]
        return self.cell.as_json() | {
            "examples": run.examples,
            "run": run.id,
            "taught": run.taught,
            "mean": self.mean,
            "interval": list(self.interval),
            "learners": int(sum(_number(row, "learners") for row in self.rows)),
            "seeds": [run.seed for run in self.runs],
            "seed_means": self.means,
            "env_steps": self._per_run("env_steps"),
            "seconds": self._per_run("seconds"),
            "reached": self.is_reached,
        }

    def _per_run(self, column: str) -> float | None:
        """The mean of a column over the runs."""
        known = [_number(row, column) for row in self.rows if row.get(column)]
        return sum(known) / len(known) if known else None


def answers(found: Experiments, tables: Path) -> dict[str, list[Answer]]:
    """By cell and further score: the answer by reward alone, then the taught one, as far as the tables have them.

    Scores for learners of one distribution alone are answered by the run for all of them.

    Args:
      found: the list of experiments.
      tables: folder of this project's tables.

    Raises:
      FloppyError: for a table with anything but numbers where numbers belong.
    """
    cells = found.cells | found.further | found.of_learners
    return {cell.id: list(_answers(found, cell, tables)) for cell in cells.values()}


def _answers(found: Experiments, cell: Cell, tables: Path) -> Iterator[Answer]:
    for name in filter(None, (cell.run, cell.taught)):
        runs = found.runs(name)
        page = found.pages[runs[0].page]
        pairs = [(run, row) for run in runs if (row := row_of(page, run, cell.distribution, tables))]
        if pairs:
            yield Answer(cell, page, *(tuple(column) for column in zip(*pairs, strict=True)))


def row_of(page: Page, run: Run, distribution: str, tables: Path) -> Mapping[str, str] | None:
    """A run's row of a learner distribution; the first row of a run is of the learners that the run was for."""
    rows = [row for row in page.rows(tables) if run.owns(row)]
    return next((row for row in rows if row.get("distribution", distribution) == distribution), None)


def mean_of(row: Mapping[str, str]) -> float:
    """The mean in a row of a table.

    Raises:
      FloppyError: for one that is no number.
    """
    return _number(row, "mean")


def rescored(answer: Answer, scores: Sequence[Json]) -> Json:
    """What evaluating the datasets of an answer once more says of it.

    Args:
      answer: to a published score.
      scores: what `floppy evaluate` says of each of its datasets.

    Returns:
      The mean over all runs, and by how many standard errors of both it differs from the table's.
    """
    mean = sum(score["mean"] for score in scores) / len(scores)
    variance = sum(score["sd"] ** 2 / score["learners"] for score in scores) / len(scores) ** 2
    error = math.sqrt(variance + answer.error**2)
    return {"mean": mean, "standard_errors": (mean - answer.mean) / error if error else 0.0}


def evaluation_of(answer: Answer, run: Run, tables: Path) -> list[str]:
    """The words of the command that scores a run's dataset under the learners that the published score is about."""
    path = tables / run.page / run.dataset.name
    (options, *_) = answer.page.evaluations(run)
    words = shlex.split(options)
    if "--distribution" in words:  # of several
        words[words.index("--distribution") + 1] = answer.cell.distribution
    return ["evaluate", str(path), *words]


def count_reached(found: Mapping[str, list[Answer]]) -> int:
    """How many published scores at least one answer reaches."""
    return sum(any(answer.is_reached for answer in each) for each in found.values())


def _number(row: Mapping[str, str], column: str) -> float:
    text = row.get(column, "")
    try:
        number = finite(float(text))
    except ValueError:
        number = None
    if number is None:
        raise FloppyError(f"A table has {column} that is no number, {shown(text)}: restore the table.")
    return number
