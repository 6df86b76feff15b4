"""Whether an ensemble of fresh learners plays better than one of them does."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.dataset import load
from floppy.evaluation.evaluate import evaluation_of
from floppy.evaluation.score import bootstrap_interval, mean_interval
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.distribution import parse_distribution
from floppy.learner.ensemble import MAX_MEMBERS
from floppy.learner.network import Learners
from floppy.play import open_arena
from floppy.studies.base import (
    UNIT,
    Row,
    by,
    check_some,
    column,
    error_bars,
    finite,
    interval_where_finite,
    scores_of,
    unit_of,
)
from floppy.studies.figure import scale_by_two
from floppy.studies.runs import dataset_label
from floppy.tasks.base import score_unit
from floppy.teach.codec import unpack
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Scores ensembles of ever more fresh learners, against single ones."""

    name: ClassVar[str] = "ensemble"
    datasets: Positional[tuple[Path, ...]]
    """Files of the datasets."""
    sizes: tuple[int, ...] = bounded((1, 2, 4, 8, 16, 32), least=1, most=MAX_MEMBERS)
    """Learners per ensemble; 1, with which the others are compared, is always among them."""
    repeats: int = bounded(20, least=2, most=MAX_LEARNERS)
    """Ensembles of each size, of learners of their own."""
    episodes: int = bounded(10, least=1, most=MAX_LEARNERS)
    """Per ensemble."""
    distribution: str = ""
    """How learners are drawn; by default as each dataset's card says."""
    greedy: bool = False
    """Most likely actions in place of sampled ones: what most members would do, where they do not agree."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "datasets")

    def cells(self) -> list[Row]:
        """A dataset and a size.

        Raises:
          FloppyError: for a dataset that cannot be read, or is of several tasks, or does not fit the learners.
        """
        for path in self.datasets:
            lesson = unpack(load(path))
            lesson.task()
            lesson.network(self._drawn())
        sizes = self.sizes if 1 in self.sizes else (1, *self.sizes)
        return [{"dataset": str(path), "size": size} for path in self.datasets for size in sizes]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per ensemble: its mean return, which is -inf where all of them diverged."""
        lesson = unpack(load(cell["dataset"]))
        task, key = lesson.task(), named_key(jax.random.key(self.seed), "ensemble")
        evaluation = evaluation_of(
            lesson,
            task,
            network=lesson.network(self._drawn()),
            learners=self.repeats,
            episodes=self.episodes,
            greedy=self.greedy,
            ensemble=cell["size"],
        )
        with open_arena(task) as arena:
            returns = evaluation.of_lesson(lesson, key, arena=arena)
        unit, scores = score_unit(task), scores_of(returns)
        return [{"repeat": repeat, "score": float(score), UNIT: unit} for repeat, score in enumerate(scores)]

    def summary(self, rows: list[Row]) -> Row:
        """By dataset and size the mean score, and what it has gained over single learners, with 95% intervals."""
        return {dataset: self._dataset_summary(of_dataset) for dataset, of_dataset in by(rows, "dataset").items()}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Scores over the size, beside the mean of single learners."""
        panels = by(rows, "dataset")
        figure.set_size_inches(1 + 4 * len(panels), 4)
        for axes, (dataset, of_dataset) in zip(
            np.atleast_1d(figure.subplots(1, len(panels))), panels.items(), strict=True
        ):
            points = self._dataset_summary(of_dataset)
            sizes, means = [point["size"] for point in points], column(points, "mean")
            intervals = np.array([point["interval"] or (np.nan, np.nan) for point in points])
            axes.errorbar(sizes, means, error_bars(means, intervals), fmt="o-", capsize=3)
            axes.axhline(means[sizes.index(1)], color="grey", linestyle="--", label="single learners")
            scale_by_two(axes, sizes)
            axes.set_xlabel("learners per ensemble")
            axes.set_ylabel(unit_of(of_dataset))
            axes.set_title(dataset_label(str(dataset)))
            axes.legend(fontsize="small")

    def _drawn(self) -> Learners | None:
        return parse_distribution(self.distribution) if self.distribution else None

    def _dataset_summary(self, rows: list[Row]) -> list[Row]:
        singles, found = _singles(rows), []
        for size, of_size in sorted(by(rows, "size").items()):
            scores = column(of_size, "score")
            row: Row = {"size": size, "mean": finite(scores.mean())}
            row["interval"] = interval_where_finite(functools.partial(mean_interval, seed=self.seed), scores)
            if size > 1:
                interval = interval_where_finite(self._gain, scores, singles)
                row["gain"] = None if interval is None else scores.mean() - singles.mean()
                row["gain_interval"] = interval
            found.append(row)
        return found

    def _gain(self, scores: np.ndarray, singles: np.ndarray) -> list[float]:
        """95% percentile-bootstrap interval of the difference between the means."""
        return list(
            bootstrap_interval(
                (scores, singles), lambda many, one, axis: many.mean(axis=axis) - one.mean(axis=axis), self.seed
            )
        )


def _singles(rows: list[Row]) -> np.ndarray:
    """Scores of single learners."""
    return column(by(rows, "size")[1], "score")
