"""Whether a clone is a good start for plain PPO, on its own task and after the task has changed."""

import dataclasses
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from tyro.conf import Positional

from floppy.dataset import load
from floppy.errors import MAX_COUNT, FloppyError
from floppy.evaluation.evaluate import evaluate_policies, evaluate_random
from floppy.evaluation.score import mean_interval
from floppy.fields import bounded, check_fields
from floppy.figure import label_of
from floppy.learner.distribution import as_learners, describe_distribution
from floppy.learner.network import LAYERS, check_offers
from floppy.recipes import steps_of_baseline
from floppy.studies.base import UNIT, Row, by, check_some, column, finite, interval_where_finite, unit_of
from floppy.studies.runs import BudgetedRun, configure_method, lesson_of_examples, try_run
from floppy.tasks.base import score_unit
from floppy.tasks.registry import make_task
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import MAX_LEARNERS, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COLD, WARM = STARTS = ("cold", "warm")
"""From a fresh network, and from a clone of the dataset."""

RANDOM = "random actions"
"""What scores are measured from."""

SHARES = (0.25, 0.5, 0.75, 0.9, 1.0)
"""Scores to be reached: these shares of the way from random actions to the better end."""

EVALUATIONS = 20
"""Along each run."""


@dataclasses.dataclass(frozen=True)
class WarmStart:
    """Lets plain PPO begin with clones of a dataset and with fresh networks, and compares what both take."""

    name: ClassVar[str] = "warm-start"
    dataset: Positional[Path]
    """The dataset's file."""
    tasks: tuple[str, ...] = ()
    """Where PPO learns: task ids with the dataset's observations and actions, such as its own task with another
    gravity; by default the dataset's own."""
    distribution: str = ""
    """Networks, of one width and depth; by default the first ones on the dataset's card."""
    env_steps: int = bounded(200_000, least=1, most=MAX_COUNT)
    """Of each run of PPO, rounded up to whole outer steps; its rates are annealed over them."""
    critic_steps: int = bounded(10, least=0)
    """Outer steps at the beginning of a warm run in which the critic alone learns: an ignorant one leads a good policy
    away. They count among its environment steps."""
    seeds: tuple[int, ...] = bounded((0, 1, 2), least=0, most=2**32 - 1)
    """Of the runs; that of a warm one draws its clone too."""
    episodes: int = bounded(32, least=1, most=MAX_LEARNERS)
    """Of each evaluation."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "seeds")

    def cells(self) -> list[Row]:
        """A task, and random actions or a start and a seed.

        Raises:
          FloppyError: for a dataset that cannot be read or that nothing is cloned from, and tasks or networks that do
            not fit it.
        """
        lesson = lesson_of_examples(self.dataset)
        learners = self._learners(lesson)
        check_offers(lesson.network(learners), (LAYERS,), "Plain PPO")
        if not learners.is_fixed:
            raise FloppyError(
                f"Plain PPO trains one network, not {learners}: give --distribution with one width and depth."
            )
        tasks = self.tasks or (lesson.task().task_id,)
        for task in tasks:
            for start in STARTS:
                self._run_of(task, start, self.seeds[0])
        starts = [{"start": start, "seed": seed} for start in STARTS for seed in self.seeds]
        return [{"task": task} | cell for task in tasks for cell in ({"start": RANDOM, "seed": self.seeds[0]}, *starts)]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per evaluation of a run: the environment steps till then, and the mean return.

        The first one of a warm run is that of its clone, before any step; of random actions there is one row. A run
        that diverged has a last row with the score -inf.
        """
        task = make_task(cell["task"])
        unit = {UNIT: score_unit(task)}
        if cell["start"] == RANDOM:
            score = evaluate_random(task, episodes=10 * self.episodes, seed=self.seeds[0]).mean
            return [{"env_steps": 0, "score": score} | unit]
        ended = try_run(self._run_of(cell["task"], cell["start"], cell["seed"]), folder)
        points = [(point.env_steps, point.score) for point in ended.points]
        if cell["start"] == WARM:
            points.insert(0, (0, self._score_at_start(task.task_id, cell["seed"])))
        if ended.dataset is None:
            points.append((ended.env_steps, -math.inf))
        return [{"env_steps": steps, "score": score} | unit for steps, score in points]

    def summary(self, rows: list[Row]) -> Row:
        """The scores of both kinds of start on every task, and the environment steps to several scores.

        Of the runs that reach a score the steps are those of the first evaluation that is there, and the median over
        all runs counts; it is null where no more than half of them come so far. The scores to be reached are shares of
        the way from random actions to the mean end of the cold runs or of the warm ones, whichever is better.
        """
        scores, to_reach = [], []
        for task, of_task in by(rows, "task").items():
            summed_up, steps = _task_summary(of_task)
            scores.append({"task": task} | summed_up)
            to_reach += [{"task": task} | each for each in steps]
        return {"scores": scores, "to_reach": to_reach}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Mean return over environment steps, a panel per task; thinner each of the runs."""
        tasks = by(rows, "task")
        figure.set_size_inches(1 + 4 * len(tasks), 4)
        panels = np.atleast_1d(figure.subplots(1, len(tasks)))
        for axes, (task, of_task) in zip(panels, tasks.items(), strict=True):
            for number, start in enumerate(STARTS):
                runs = list(by([row for row in of_task if row["start"] == start], "seed").values())
                for run in runs:
                    axes.plot(column(run, "env_steps"), column(run, "score"), f"C{number}", alpha=0.25, linewidth=0.8)
                shared = [at for at in by([row for run in runs for row in run], "env_steps").values()]
                whole = [at for at in shared if len(at) == len(runs)]
                axes.plot(
                    [at[0]["env_steps"] for at in whole],
                    [column(at, "score").mean() for at in whole],
                    f"C{number}",
                    label=f"{start} start",
                )
            axes.set(xlabel="environment steps", ylabel=unit_of(of_task))
            axes.set_title(label_of(str(task)), fontsize="small")
            axes.legend(fontsize="small")

    def _learners(self, lesson: Lesson) -> Any:
        return as_learners(self.distribution) if self.distribution else lesson.learners[0]

    def _run_of(self, task: str, start: str, seed: int) -> BudgetedRun:
        """Plain PPO as its recipe has it; a warm run keeps the normaliser and the units of actions of its dataset.

        All runs are evaluated as often and by as many episodes.
        """
        lesson = unpack(load(self.dataset))
        learners = self._learners(lesson)
        distribution = describe_distribution(learners)
        whole, _ = configure_method("ppo", task, seed=seed, distribution=distribution, encoder_layers=learners.layers)
        steps = math.ceil(self.env_steps / steps_of_baseline(whole))
        changes: Row = {
            "outer_steps": steps,
            "evaluate_every": math.ceil(steps / EVALUATIONS),
            "selection_learners": 1,
            "selection_episodes": self.episodes,
            "score_learners": 1,
            "score_episodes": self.episodes,
        }
        if start == WARM:
            outer: Any = whole.outer
            normalises = lesson.statistics is not None
            changes |= {
                "start": str(self.dataset),
                "scaled_actions": lesson.actions == lesson.actions.raw.in_units,
                "frozen_normaliser": normalises,
                "outer": dataclasses.replace(
                    outer, normalise_observations=normalises, critic_warm_up=min(self.critic_steps, steps - 1)
                ),
            }
        config = dataclasses.replace(whole, **changes)
        config.problem()
        return BudgetedRun(config)

    def _score_at_start(self, task: str, seed: int) -> float:
        """That of the clone which a run of the seed begins with."""
        dataset = load(self.dataset)
        policies = train(dataset, seed, distribution=self._learners(unpack(dataset)))
        return evaluate_policies(policies, task=task, episodes=self.episodes, seed=seed).mean


def _task_summary(rows: list[Row]) -> tuple[Row, list[Row]]:
    """Scores of a task, and an entry for each score that is to be reached."""
    runs = {
        start: list(by(of_start, "seed").values()) for start, of_start in by(rows, "start").items() if start != RANDOM
    }
    (random,) = [row["score"] for row in rows if row["start"] == RANDOM]
    ends = {start: np.array([run[-1]["score"] for run in of_start], float) for start, of_start in runs.items()}
    scores: Row = {"random": random}
    if WARM in runs:
        scores["clones"] = finite(np.mean([run[0]["score"] for run in runs[WARM]]))
    for start, of_start in ends.items():
        scores[f"{start}_end"] = finite(of_start.mean())
        scores[f"{start}_interval"] = interval_where_finite(mean_interval, of_start)
    span = max((each.mean() for each in ends.values()), default=-math.inf) - random
    shares = SHARES if span > 0 else ()
    return scores, [_to_reach(runs, share, random + share * span) for share in shares]


def _to_reach(runs: dict[str, list[list[Row]]], share: float, score: float) -> Row:
    """The median environment steps to a score, by start."""
    entry: Row = {"share": share, "score": score}
    for start, of_start in runs.items():
        steps = [next((row["env_steps"] for row in run if row["score"] >= score), math.inf) for run in of_start]
        entry[f"{start}_steps"] = finite(float(np.median(steps)))
        entry[f"{start}_reached"] = sum(map(math.isfinite, steps))
    return entry
