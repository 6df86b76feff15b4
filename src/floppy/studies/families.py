"""Whether a dataset teaches kinds of networks that it was not distilled for."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.dataset import load
from floppy.evaluation.evaluate import evaluate_random, evaluation_of
from floppy.evaluation.score import bootstrap_interval
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.distribution import describe_distribution, parse_distribution
from floppy.learner.network import Learners
from floppy.play import open_arena
from floppy.studies.base import UNIT, Row, by, check_some, column, finite, interval_where_finite, scores_of, unit_of
from floppy.studies.runs import dataset_label, lesson_of_examples
from floppy.tasks.base import score_unit
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM, OWN = "random actions", "own"
"""What families are compared with: how little a network can know, and the networks that a dataset was distilled for."""

FAMILIES = (
    "depth=3:residual=yes",
    "width=16",
    "width=512",
    "depth=6:activation=relu",
    "depth=8:norm=layer:residual=yes",
    "activation=elu",
    "activation=elu:norm=layer",
    "activation=relu:initialiser=xavier1",
    "width=128:depth=3:taper=0.5:activation=gelu",
    "width=32:depth=3:taper=2:activation=silu",
)
"""Those that are scored where no others are given."""


@dataclasses.dataclass(frozen=True)
class Families:
    """Scores datasets with networks of other kinds than they were distilled for."""

    name: ClassVar[str] = "families"
    datasets: Positional[tuple[Path, ...]]
    """Files of the datasets to compare, such as one for a single architecture and one for a mixture."""
    families: tuple[str, ...] = FAMILIES
    """Learner distributions; of each a dataset has those that it was distilled for besides."""
    learners: int = bounded(32, least=2, most=MAX_LEARNERS)
    """Fresh ones of each family; of a dataset's own in all."""
    episodes: int = bounded(10, least=1, most=MAX_LEARNERS)
    """Per learner."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "datasets", "families")

    def cells(self) -> list[Row]:
        """A dataset and random actions, its own networks, or a family.

        Raises:
          FloppyError: for a dataset that cannot be read, is a whole policy, or does not fit a family.
        """
        for path in self.datasets:
            lesson = lesson_of_examples(path)
            lesson.task()
            for family in self.families:
                lesson.network(parse_distribution(family))
        return [
            {"dataset": str(path), "family": family}
            for path in self.datasets
            for family in (RANDOM, OWN, *self.families)
        ]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per learner: its mean return, -inf where all of them diverged; of random actions only one row.

        `on_card` says whether the family itself is one of those on the dataset's card; one within a range there is not.
        """
        lesson, family = unpack(load(cell["dataset"])), cell["family"]
        task = lesson.task()
        if family == RANDOM:
            scores = np.array([evaluate_random(task, episodes=self.learners * self.episodes, seed=self.seed).mean])
        elif family == OWN:
            share = -(-self.learners // len(lesson.learners))
            scores = np.concatenate([self._scores(lesson, own, share) for own in lesson.learners])
        else:
            scores = self._scores(lesson, parse_distribution(family), self.learners)
        on_card = family == OWN or (family != RANDOM and parse_distribution(family) in lesson.learners)
        return [
            {"on_card": on_card, "learner": learner, "score": float(score), UNIT: score_unit(task)}
            for learner, score in enumerate(scores)
        ]

    def summary(self, rows: list[Row]) -> Row:
        """By dataset a list of families: mean score, and its share of the way from random actions to the own networks.

        The share's 95% interval is a bootstrap over both families' learners; random actions are taken as they are.
        A share is null where a dataset's own networks are no better than random actions.
        """
        return {str(dataset): self._dataset_summary(of_dataset) for dataset, of_dataset in by(rows, "dataset").items()}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Scores of the families side by side, each as a share of the dataset's own."""
        datasets = by(rows, "dataset")
        names = [family for family in by(rows, "family") if family not in (RANDOM, OWN)]
        figure.set_size_inches(7, 1 + 0.25 * (len(datasets) + 1) * max(1, len(names)))
        axes, height = figure.subplots(), 0.8 / len(datasets)
        for number, (dataset, of_dataset) in enumerate(datasets.items()):
            entries = {entry["family"]: entry["share"] for entry in self._dataset_summary(of_dataset)}
            places = np.arange(len(names)) + height * (number - (len(datasets) - 1) / 2)
            shares = [np.nan if entries.get(name) is None else entries[name] for name in names]
            axes.barh(places, shares, height, label=dataset_label(str(dataset)))
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.axvline(1, color="black", linewidth=0.8, linestyle=":")
        axes.set_xlabel(f"{unit_of(rows)} (0: random actions, 1: networks that the dataset was distilled for)")
        figure.legend(fontsize="small", loc="outside upper center", ncols=2)

    def _scores(self, lesson: Lesson, learners: Learners, count: int) -> np.ndarray:
        """`[count]` mean returns of fresh learners; they depend on their distribution and number, not on the others."""
        task = lesson.task()
        evaluation = evaluation_of(
            lesson, task, network=lesson.network(learners), learners=count, episodes=self.episodes
        )
        key = named_key(jax.random.key(self.seed), f"families {describe_distribution(learners)}")
        with open_arena(task) as arena:
            return scores_of(evaluation.of_lesson(lesson, key, arena=arena))

    def _dataset_summary(self, rows: list[Row]) -> list[Row]:
        scores = {family: column(of_family, "score") for family, of_family in by(rows, "family").items()}
        if not {RANDOM, OWN} <= scores.keys():
            return []
        random = float(scores[RANDOM].mean())
        span = float(scores[OWN].mean()) - random
        return [
            {"family": family, "on_card": bool(of_family[0]["on_card"])}
            | {"mean": finite(scores[family].mean())}
            | self._share(scores[family], scores[OWN], random, span)
            for family, of_family in by(rows, "family").items()
        ]

    def _share(self, scores: np.ndarray, own: np.ndarray, random: float, span: float) -> Row:
        if not (np.isfinite(span) and span > 0) or scores.size < 2:
            return {"share": None, "interval": None}

        def statistic(family: np.ndarray, own: np.ndarray, axis: int) -> np.ndarray:
            return (family.mean(axis=axis) - random) / (own.mean(axis=axis) - random)

        interval = interval_where_finite(lambda *both: bootstrap_interval(both, statistic, self.seed), scores, own)
        return {"share": finite((scores.mean() - random) / span), "interval": interval}
