"""Whether the average of several fresh learners plays better than one of them does."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.arena import open_arena
from floppy.dataset import load
from floppy.ensembles import MOST_MEMBERS
from floppy.errors import FloppyError, check_number, check_seed
from floppy.evaluate import learner_means, returns_of, score_returns
from floppy.keys import named_key
from floppy.learners import LearnerDistribution, parse_distribution
from floppy.studies.base import Row, by, column, error_bars, percentile_interval
from floppy.train import MOST_LEARNERS, card_distributions, network_for, task_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Scores policies that are averages of ever more fresh learners, against single ones."""

    name: ClassVar[str] = "ensemble"
    datasets: Positional[tuple[Path, ...]]
    """Files of the datasets."""
    sizes: tuple[int, ...] = (1, 2, 4, 8, 16, 32)
    """Learners per ensemble; 1, with which the others are compared, is always among them."""
    repeats: int = 20
    """Ensembles of each size, of learners of their own."""
    episodes: int = 10
    """Per ensemble."""
    distribution: str = ""
    """How learners are drawn; by default as each dataset's card says."""
    greedy: bool = False
    """Most likely actions in place of sampled ones: what most members would do, where they do not agree."""
    seed: int = 0
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        for size in self.sizes:
            check_number("size", size, least=1, most=MOST_MEMBERS)
        check_number("repeats", self.repeats, least=2, most=MOST_LEARNERS)
        check_number("episodes", self.episodes, least=1, most=MOST_LEARNERS)
        check_seed(self.seed)
        if not self.datasets:
            raise FloppyError("A study of ensembles got no datasets: give at least one.")

    def cells(self) -> list[Row]:
        """A dataset and a size.

        Raises:
          FloppyError: for a dataset that cannot be read, or is of several tasks, or does not fit the learners.
        """
        for path in self.datasets:
            dataset = load(path)
            task_of(dataset)
            network_for(dataset, self._drawn() or card_distributions(dataset)[0])
        sizes = self.sizes if 1 in self.sizes else (1, *self.sizes)
        return [{"dataset": str(path), "size": size} for path in self.datasets for size in sizes]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per ensemble: its mean return."""
        dataset = load(cell["dataset"])
        task, key = task_of(dataset), named_key(jax.random.key(self.seed), "ensemble")
        with open_arena(task) as arena:
            returns = returns_of(
                dataset,
                task,
                key,
                self._drawn(),
                learners=self.repeats,
                episodes=self.episodes,
                greedy=self.greedy,
                ensemble=cell["size"],
                arena=arena,
            )
        scores = learner_means(returns)
        return [{"repeat": repeat, "score": float(score)} for repeat, score in enumerate(scores)]

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
            sizes, means = ([point[name] for point in points] for name in ("size", "mean"))
            intervals = np.array([point["interval"] for point in points])
            axes.errorbar(sizes, means, error_bars(np.array(means), intervals), fmt="o-", capsize=3)
            axes.axhline(_singles(of_dataset).mean(), color="grey", linestyle="--", label="single learners")
            axes.set_xscale("log", base=2)
            axes.set_xticks(sizes, [str(size) for size in sizes])
            axes.set_xlabel("learners per ensemble")
            axes.set_ylabel("mean return")
            axes.set_title(Path(str(dataset)).stem)
            axes.legend(fontsize="small")

    def _drawn(self) -> LearnerDistribution | None:
        return parse_distribution(self.distribution) if self.distribution else None

    def _dataset_summary(self, rows: list[Row]) -> list[Row]:
        singles, found = _singles(rows), []
        for size, of_size in sorted(by(rows, "size").items()):
            scores = column(of_size, "score")
            row: Row = {"size": size, "mean": scores.mean()}
            row["interval"] = list(score_returns(scores[:, None], None, self.seed).ci95)
            if size > 1:
                row |= {"gain": scores.mean() - singles.mean(), "gain_interval": self._gain(scores, singles)}
            found.append(row)
        return found

    def _gain(self, scores: np.ndarray, singles: np.ndarray) -> list[float]:
        """95% percentile-bootstrap interval of the difference between the means."""
        return list(
            percentile_interval(
                (scores, singles), lambda many, one, axis: many.mean(axis=axis) - one.mean(axis=axis), self.seed
            )
        )


def _singles(rows: list[Row]) -> np.ndarray:
    """Scores of single learners."""
    return column(by(rows, "size")[1], "score")
