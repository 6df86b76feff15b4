"""Whether a dataset teaches other networks, at other rates, in other numbers of steps (HaDES, Figures 4, 7 to 14)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from tyro.conf import Positional

from floppy.dataset import load
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import PerLearner, evaluation_of
from floppy.evaluation.score import bootstrap_interval, interquartile_mean
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.initialisers import FLAX_ORTHOGONAL
from floppy.learner.network import Learners
from floppy.play import open_arena
from floppy.studies.base import UNIT, Row, by, check_some, column, finite, interval_where_finite, scores_of, unit_of
from floppy.studies.runs import dataset_label, lesson_of_examples
from floppy.tasks.base import score_unit
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Scores datasets with other widths, rates and step counts than they were made for."""

    name: ClassVar[str] = "transfer"
    datasets: Positional[tuple[Path, ...]]
    """Files of the datasets to compare, such as one for fresh networks and one for a fixed one."""
    widths: tuple[int, ...] = bounded((32, 64, 128, 256, 512, 1024, 2048), least=1)
    """Of the learners' hidden layers."""
    draws: int = bounded(50, least=1, most=MAX_LEARNERS)
    """Fresh learners per width, each with a rate and a number of steps of its own."""
    rates: float = bounded(1000.0, least=1)
    """Rates are drawn log-uniformly from a range of this ratio, in whose middle the dataset's own is."""
    steps: tuple[float, float] = bounded((0.5, 2.5), above=0)
    """Numbers of steps are drawn uniformly between these multiples of the card's: of 200, from 100 to 500, as in the
    paper. One step stays one."""
    episodes: int = bounded(10, least=1, most=MAX_LEARNERS)
    """Per learner."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of draws, initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "datasets", "widths")
        if self.steps[0] > self.steps[1]:
            raise FloppyError(
                f"steps must be two multiples, the smaller one first, got {self.steps[0]} {self.steps[1]}."
            )

    def cells(self) -> list[Row]:
        """A dataset and a width.

        Raises:
          FloppyError: for a dataset that cannot be read or that nothing can be varied of, and a width it does not fit.
        """
        for path in self.datasets:
            self._check(path, lesson_of_examples(path))
        return [{"dataset": str(path), "width": width} for path in self.datasets for width in self.widths]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per draw: its rate (of several the first), steps and mean return, -inf where all draws diverged."""
        lesson = unpack(load(cell["dataset"]))
        factors, steps = self._draws(lesson)
        rates = np.multiply.outer(factors, np.asarray(lesson.distilled.inner_rate, float))
        cloning: Any = lesson.cloning
        if cloning.steps > 1:
            cloning = dataclasses.replace(cloning, steps=int(steps.max()))
        task = lesson.task()
        evaluation = evaluation_of(
            lesson,
            task,
            network=lesson.network(_at_width(lesson, cell["width"])),
            cloning=cloning,
            learners=self.draws,
            episodes=self.episodes,
        )
        own = PerLearner(jnp.asarray(rates, jnp.float32), None if cloning.steps == 1 else jnp.asarray(steps))
        with open_arena(task) as arena:
            key = named_key(jax.random.key(self.seed), "transfer")
            scores = scores_of(evaluation.of_lesson(lesson, key, arena=arena, own=own))
        unit, is_own = score_unit(task), _widths(lesson) == (cell["width"], cell["width"])
        return [
            {"own_width": is_own, "draw": draw, "rate": float(rate.flat[0]), "steps": int(count), "score": float(score)}
            | {UNIT: unit}
            for draw, (rate, count, score) in enumerate(zip(rates, steps, scores, strict=True))
        ]

    def summary(self, rows: list[Row]) -> Row:
        """Of the better half of the draws: median and interquartile mean by dataset and width."""
        return {
            str(dataset): [self._width_summary(width, of_width) for width, of_width in by(of_dataset, "width").items()]
            for dataset, of_dataset in by(rows, "dataset").items()
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The better half of the draws over the width, as in the paper."""
        axes = figure.subplots()
        for number, (dataset, of_dataset) in enumerate(by(rows, "dataset").items()):
            halves = {width: top_half(of_width) for width, of_width in by(of_dataset, "width").items()}
            places = np.arange(len(halves)) + 0.3 * number
            colour = f"C{number}"
            axes.plot(
                places,
                [np.median(half) for half in halves.values()],
                "o-",
                color=colour,
                label=dataset_label(str(dataset)),
            )
            for place, half in zip(places, halves.values(), strict=True):
                axes.plot(np.full(half.size, place), half, ".", color=colour, alpha=0.25)
        axes.set_xticks(range(len(self.widths)), [str(width) for width in self.widths])
        axes.set_xlabel("width of the learners")
        axes.set_ylabel(f"{unit_of(rows)}, better half of the draws")
        axes.legend(fontsize="small")

    def _check(self, path: Path, lesson: Lesson) -> None:
        """Refuses what cannot be measured."""
        cloning = lesson.cloning
        if cloning.is_annealed:
            raise FloppyError(
                f"{path} asks for rates that are annealed over its own {cloning.steps} steps, a study of transfer for "
                "other numbers of them: give a dataset that was distilled without."
            )
        lesson.task()
        for width in self.widths:
            lesson.network(_at_width(lesson, width))

    def _draws(self, lesson: Lesson) -> tuple[np.ndarray, np.ndarray]:
        """Factors of the dataset's rates, and numbers of steps, the same for every width."""
        random = np.random.default_rng(self.seed)
        reach = np.log(self.rates) / 2
        factors = np.exp(random.uniform(-reach, reach, self.draws))
        wanted = lesson.cloning.steps
        least, most = (max(1, round(factor * wanted)) if wanted > 1 else 1 for factor in self.steps)
        return factors, random.integers(least, most, self.draws, endpoint=True)

    def _width_summary(self, width: int, rows: list[Row]) -> Row:
        half = top_half(rows)
        return {
            "width": width,
            "own_width": bool(rows[0]["own_width"]),
            "median": finite(np.median(half)),
            "interquartile_mean": finite(interquartile_mean(half)),
            "interval": interval_where_finite(self._interval, column(rows, "score")),
        }

    def _interval(self, scores: np.ndarray) -> tuple[float, float]:
        """Of the interquartile mean of the better half: all draws are resampled, for the choice is chance too."""
        import scipy.stats  # takes a second

        def statistic(sample: np.ndarray, axis: int) -> np.ndarray:
            return np.asarray(scipy.stats.trim_mean(better_half(sample, axis), 0.25, axis=axis))

        return bootstrap_interval([scores], statistic, self.seed)


def _widths(lesson: Lesson) -> tuple[int, int] | None:
    """Range of the widths of the dataset's learners; None for a network of a user's own."""
    widths: tuple[int, int] | None = getattr(lesson.learners[0], "width", None)
    return widths


def _at_width(lesson: Lesson, width: int) -> Learners:
    """The dataset's learners at a width, drawn for every learner even where the dataset was made for a single draw."""
    own: Any = lesson.learners[0]
    if _widths(lesson) is None:
        raise FloppyError(f"The learners {own} have no width to vary: give a dataset for built-in networks.")
    # By the name of flax's weights there is one draw only, by the other one their distribution.
    initialiser = ("orthogonal",) if own.initialiser == (FLAX_ORTHOGONAL,) else own.initialiser
    changed: Learners = dataclasses.replace(own, width=(width, width), initialiser=initialiser, init_seed=-1)
    return changed


def top_half(rows: list[Row]) -> np.ndarray:
    """The better half of the scores of rows, in order."""
    return better_half(column(rows, "score"))


def better_half(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    """The better half of scores along an axis, in order; of an odd number the larger half."""
    return np.split(np.sort(scores, axis=axis), [scores.shape[axis] // 2], axis=axis)[1]
