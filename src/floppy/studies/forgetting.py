"""How much of earlier tasks a network forgets that learns several tasks one after the other.

A replay clones from weights that have learnt the same examples before. A gradient step that overshoots on fresh weights
overshoots these far more, and then forgetting says little beside the mean share.
"""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.dataset import load
from floppy.evaluation.evaluate import evaluate_random, returns_of_policies
from floppy.evaluation.score import mean_interval
from floppy.fields import bounded, check_fields
from floppy.figure import label_of
from floppy.keys import named_key
from floppy.studies.base import Row, by, column, finite, interval_where_finite, scores_of
from floppy.tasks.base import Task
from floppy.teach.codec import unpack
from floppy.teach.merge import merge
from floppy.teach.policies import MAX_LEARNERS, Policies, train, train_in_stages

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.image import AxesImage

RANDOM, OWN = "random actions", "own dataset"
"""What shares are measured by; they belong to no stage, and have the number 0."""
ALONE, REPLAY, TOGETHER = WAYS = ("alone", "replay", "together")
"""What a stage learns: the new task's examples, those of earlier tasks too, or, as the only stage, all examples."""


@dataclasses.dataclass(frozen=True)
class Forgetting:
    """Scores networks that learn tasks one after the other, each from its dataset alone or with all earlier ones."""

    name: ClassVar[str] = "forgetting"
    datasets: Positional[tuple[Path, ...]]
    """Files of two or more datasets that can be merged, in the order in which they are learnt."""
    learners: int = bounded(20, least=2, most=MAX_LEARNERS)
    """Fresh ones, which all ways of learning begin with."""
    episodes: int = bounded(10, least=1, most=MAX_LEARNERS)
    """Per learner and task."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)

    def cells(self) -> list[Row]:
        """A stage and a way of learning, before them random actions and learners of each task's own dataset.

        Raises:
          FloppyError: for datasets that cannot be read or merged.
        """
        merge([load(path) for path in self.datasets])
        last = len(self.datasets)
        cells = [(0, RANDOM), (0, OWN), *((stage, way) for stage in range(1, last + 1) for way in (ALONE, REPLAY))]
        return [{"stage": stage, "way": way} for stage, way in (*cells, (last, TOGETHER))]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per task learnt and learner: its mean return, -inf where all of them diverged.

        Of random actions there is one row per task.
        """
        stage, way = cell["stage"], cell["way"]
        tasks = [unpack(load(path)).task() for path in self.datasets]
        learnt = tasks[:stage] if stage else tasks
        if way == RANDOM:
            count = self.learners * self.episodes
            found = [np.array([evaluate_random(task, episodes=count, seed=self.seed).mean]) for task in learnt]
        elif way == OWN:
            found = [self._scores(self._own(path), task) for path, task in zip(self.datasets, learnt, strict=True)]
        else:
            policies = self._in_stages(way, [task.task_id for task in learnt])
            found = [self._scores(policies, task) for task in learnt]
        return [
            {"task": task.task_id, "learner": learner, "score": float(score)}
            for task, scores in zip(learnt, found, strict=True)
            for learner, score in enumerate(scores)
        ]

    def summary(self, rows: list[Row]) -> Row:
        """What is learnt and forgotten, in shares: 0 for random actions, 1 for learners of the task's own dataset.

        Returns:
          `tasks`: the mean scores that are 0 and 1. `stages`: by stage and way the mean share of the task `learnt` in
          it, and that of all `earlier` ones. `end`: by way the `mean` share over all tasks after the last stage, and
          `forgetting`, what the shares of earlier tasks have lost since their own stages, on average; with 95%
          intervals over learners. Shares are null where learners diverged, or where a task's own dataset is no better
          than random actions.
        """
        means, shares = _means(rows), _shares(rows)
        tasks = [{"task": task, "random": means[RANDOM, task], "own": means[OWN, task]} for task in by(rows, "task")]
        stages: list[Row] = []
        end: Row = {}
        for (way, stage), of_stage in shares.items():
            *earlier, learnt = of_stage.values()
            if way != TOGETHER:
                before = finite(np.mean(earlier)) if earlier else None
                stages.append({"way": way, "stage": stage, "learnt": finite(learnt.mean()), "earlier": before})
            if stage == len(tasks):
                end[way] = self._spread("mean", "interval", list(of_stage.values()))
            if stage == len(tasks) and way != TOGETHER:
                names = [each["task"] for each in tasks[:-1]]
                lost = [shares[way, own][name] - of_stage[name] for own, name in enumerate(names, 1)]
                end[way] |= self._spread("forgetting", "forgetting_interval", lost)
        return {"tasks": tasks, "stages": stages, "end": end}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The tasks' mean shares after every stage, for both ways side by side, each above those of all at once."""
        shares, tasks = _shares(rows), list(by(rows, "task"))
        count, names = len(tasks), [label_of(task) for task in tasks]
        figure.set_size_inches(4 + 1.1 * count, 2 + 0.4 * count)
        panels = figure.subplots(1, 2, sharey=True)
        for axes, way in zip(panels, (ALONE, REPLAY), strict=True):
            cells = [*((way, stage) for stage in range(1, count + 1)), (TOGETHER, count)]
            table = np.full((count + 1, count), np.nan)
            for line, cell in enumerate(cells):
                means = [share.mean() for share in shares.get(cell, {}).values()]
                table[line, : len(means)] = means
            image = _draw_table(table, axes)
            axes.axhline(count - 0.5, color="black", linewidth=0.8)
            axes.set_xticks(range(count), names, rotation=45, ha="right")
            axes.set_title({ALONE: "new examples alone", REPLAY: "with those of earlier tasks"}[way], fontsize="medium")
        panels[0].set_yticks(range(count + 1), [*(f"after {name}" for name in names), "all at once"])
        figure.colorbar(image, ax=panels, label="score (0: random actions, 1: own dataset)")

    def _own(self, path: Path) -> Policies:
        return train(load(path), self._key(), learners=self.learners)

    def _in_stages(self, way: str, tasks: list[str]) -> Policies:
        """Policies that have learnt the tasks, by their full ids, in one of the `WAYS`."""
        merged = merge([load(path) for path in self.datasets])
        stages = {
            ALONE: [[task] for task in tasks],
            REPLAY: [tasks[:count] for count in range(1, len(tasks) + 1)],
            TOGETHER: [tasks],
        }
        return train_in_stages(merged, self._key(), stages[way], learners=self.learners)

    def _key(self) -> jax.Array:
        return named_key(jax.random.key(self.seed), "forgetting")

    def _scores(self, policies: Policies, task: Task) -> np.ndarray:
        return scores_of(returns_of_policies(policies, task, episodes=self.episodes, seed=self.seed))

    def _spread(self, mean: str, interval: str, shares: list[np.ndarray]) -> Row:
        """The mean and its interval of shares `[L]` of several tasks, under these names."""
        values = np.mean(shares, axis=0)
        return {
            mean: finite(values.mean()),
            interval: interval_where_finite(functools.partial(mean_interval, seed=self.seed), values),
        }


def _means(rows: list[Row]) -> dict[tuple[str, str], float]:
    """Mean scores by way and task, of random actions and of learners of the tasks' own datasets."""
    groups = by([row for row in rows if row["way"] in (RANDOM, OWN)], "way", "task")
    return {group: float(column(of_group, "score").mean()) for group, of_group in groups.items()}


def _shares(rows: list[Row]) -> dict[tuple[str, int], dict[str, np.ndarray]]:
    """By way and stage, and by task, the shares `[L]` of learners; NaN for what is no finite number."""
    means = _means(rows)
    found: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    for (way, stage, task), of_task in by([row for row in rows if row["way"] in WAYS], "way", "stage", "task").items():
        random = means[RANDOM, task]
        span = means[OWN, task] - random
        share = (column(of_task, "score") - random) / (span if span > 0 else np.nan)
        found.setdefault((way, stage), {})[task] = np.where(np.isfinite(share), share, np.nan)
    return found


def _draw_table(table: np.ndarray, axes: "Axes") -> "AxesImage":
    """Shares as colours, with their numbers; NaN stays empty."""
    image = axes.imshow(table, cmap="viridis", vmin=0, vmax=1, aspect="auto")
    for line, place in np.argwhere(np.isfinite(table)):
        value = table[line, place]
        colour = "black" if value > 0.5 else "white"
        axes.text(place, line, f"{value:.2f}", ha="center", va="center", color=colour, fontsize="small")
    return image
