"""Whether one policy learns several tasks from their merged datasets (HaDES paper, section 5.5, Figure 5)."""

import dataclasses
import functools
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.dataset import DistilledDataset, load
from floppy.evaluation.evaluate import evaluate_random, evaluation_of
from floppy.evaluation.score import mean_interval
from floppy.fields import bounded, check_fields
from floppy.figure import label_of
from floppy.keys import named_key
from floppy.play import open_arena
from floppy.studies.base import Row, by, column, error_bars, finite, interval_where_finite, scores_of
from floppy.tasks.base import Task
from floppy.teach.codec import unpack
from floppy.teach.merge import merge
from floppy.teach.policies import MAX_LEARNERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RANDOM, SINGLE, MERGED, WRONG = AGENTS = ("random", "single", "merged", "wrong")


@dataclasses.dataclass(frozen=True)
class Multitask:
    """Scores learners of merged datasets on each task, against learners of its own dataset and of the other tasks'."""

    name: ClassVar[str] = "multitask"
    datasets: Positional[tuple[Path, ...]]
    """Files of two or more datasets that can be merged."""
    learners: int = bounded(20, least=2, most=MAX_LEARNERS)
    """Fresh learners of each kind and task."""
    episodes: int = bounded(10, least=1, most=MAX_LEARNERS)
    """Per learner."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of initial weights and episodes."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)

    def cells(self) -> list[Row]:
        """A dataset, and an agent that plays its task: random actions, or learners of one of three kinds.

        These learn from the dataset itself (single), from all datasets merged, or from the others alone (wrong).

        Raises:
          FloppyError: for datasets that cannot be read or merged.
        """
        self._merged()
        return [{"dataset": str(path), "agent": agent} for path in self.datasets for agent in AGENTS]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per learner: its mean return, -inf where all of them diverged; of random actions only one row."""
        dataset, agent = load(cell["dataset"]), cell["agent"]
        task = unpack(dataset).task()
        if agent == RANDOM:
            score = evaluate_random(task, episodes=self.learners * self.episodes, seed=self.seed)
            scores = np.array([score.mean])
        else:
            returns = self._returns(dataset, task, agent)
            scores = scores_of(returns)
        rows = enumerate(map(float, scores))
        return [{"task": task.task_id, "learner": learner, "score": score} for learner, score in rows]

    def summary(self, rows: list[Row]) -> Row:
        """By task the agents' mean scores, and those of the learners as shares of the single-task learners'.

        A share is 0 for random actions and 1 for learners of the task's own dataset, both at their means; its 95%
        interval is over the agent's learners. It is null if the task's own dataset is no better than random actions.
        """
        return {task: self._task_summary(of_task) for task, of_task in by(rows, "task").items()}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The shares side by side, as in the paper."""
        axes, tasks = figure.subplots(), self.summary(rows)
        for number, agent in enumerate((SINGLE, MERGED, WRONG)):
            shares = [(place, entry["shares"][agent]) for place, entry in enumerate(tasks.values()) if entry["shares"]]
            means = column([share for _, share in shares], "mean")
            intervals = np.array([share["interval"] or (np.nan, np.nan) for _, share in shares]).reshape(-1, 2)
            axes.bar(
                [place + 0.27 * (number - 1) for place, _ in shares],
                means,
                0.25,
                yerr=error_bars(means, intervals),
                capsize=3,
                label={SINGLE: "own dataset", MERGED: "merged datasets", WRONG: "other tasks' datasets"}[agent],
            )
        axes.set_xticks(range(len(tasks)), list(map(label_of, tasks)))
        axes.set_ylabel("score (0: random actions, 1: own dataset)")
        axes.axhline(0, color="grey", linewidth=0.8)
        figure.legend(fontsize="small", loc="outside upper center", ncols=3)

    def _merged(self) -> DistilledDataset:
        return merge([load(path) for path in self.datasets])

    def _returns(self, dataset: DistilledDataset, task: Task, agent: str) -> np.ndarray:
        """Returns `[L, episodes]` of the learners of an agent."""
        lesson = unpack(dataset if agent == SINGLE else self._merged())
        block = None if agent == SINGLE else lesson.block(task.task_id)
        learnt = tuple(each for each in lesson.blocks if agent != WRONG or each != block)
        evaluation = evaluation_of(
            lesson, task, learners=self.learners, episodes=self.episodes, block=block, blocks=learnt
        )
        with open_arena(task) as arena:
            return evaluation.of_lesson(lesson, named_key(jax.random.key(self.seed), "multitask"), arena=arena)

    def _task_summary(self, rows: list[Row]) -> Row:
        scores = {agent: column(of_agent, "score") for agent, of_agent in by(rows, "agent").items()}
        means = {agent: of_agent.mean() for agent, of_agent in scores.items()}
        span = means[SINGLE] - means[RANDOM]

        def share(agent: str) -> Row:
            own = (scores[agent] - means[RANDOM]) / span
            return {
                "mean": finite(own.mean()),
                "interval": interval_where_finite(functools.partial(mean_interval, seed=self.seed), own),
            }

        return {"means": means, "shares": {each: share(each) for each in (SINGLE, MERGED, WRONG)} if span > 0 else None}
