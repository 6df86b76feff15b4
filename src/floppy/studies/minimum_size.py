"""How few examples a task needs, beside the paper's minimum (PPMO, section 4.2).

The paper counts `k_min = ceil(c / 2) + 1` examples for `c` classes, or actions. That is no bound for learners with an
odd activation: from an example they learn its opposite too, and one is enough for cart-pole in one dimension.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.errors import DivergedError, FloppyError
from floppy.evaluation.evaluate import evaluation_of
from floppy.fields import bounded, check_fields, one_of
from floppy.figure import label_of
from floppy.keys import named_key
from floppy.learner.distribution import describe_distribution, parse_distributions
from floppy.play import open_arena
from floppy.recipes import ONE_RUN, recipe
from floppy.studies.base import Row, by, check_some, column, scores_of
from floppy.studies.runs import BudgetedRun, configure_method, run
from floppy.tasks.base import Task
from floppy.tasks.registry import full_task_id, make_task
from floppy.tasks.untrusted import task_of_file
from floppy.teach.codec import unpack

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class MinimumSize:
    """Distils a task into ever more examples and finds the least number from which fresh learners learn it."""

    name: ClassVar[str] = "minimum-size"
    task: Positional[str]
    """Task id or short name."""
    sizes: tuple[int, ...] = bounded((), least=1)
    """Numbers of examples; by default all up to one more than the paper's minimum."""
    activations: tuple[str, ...] = ("tanh", "relu")
    """Of the learners: tanh, which is odd, and relu, which is not."""
    losses: tuple[str, ...] = ("mse",)
    """Of the cloning, such as mse, cross-entropy or gaussian-nll."""
    seeds: tuple[int, ...] = bounded((0, 1), least=0, most=2**32 - 1)
    """Of each distillation; a size is enough if one of them is."""
    recipe: str = one_of("ppmo", ONE_RUN)
    """Of the distillations."""
    budget: str = ""
    """When each of them stops: after a number of steps (500steps) or a time (60s, 10m); by default as the recipe
    says."""
    best: float | None = bounded(None)
    """The best known score; by default the highest that the task allows, where that is known."""
    share: float = bounded(0.9, above=0, most=1)
    """A learner succeeds with a mean return of this share of the best known score, which one below 0 may fall short of
    by as much."""
    enough: float = bounded(0.9, above=0, most=1)
    """A dataset is good enough if this share of fresh learners succeeds."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "activations", "losses", "seeds")

    def cells(self) -> list[Row]:
        """An activation, a loss, a number of examples and a seed.

        Raises:
          FloppyError: for a task, activation, loss or budget that cannot be, or a task whose best score is not known.
        """
        task = make_task(self.task)
        self.threshold(task)
        cells = [
            {"activation": activation, "loss": loss, "examples": size, "seed": seed}
            for activation in self.activations
            for loss in self.losses
            for size in self.sizes or range(1, paper_minimum(task) + 2)
            for seed in self.seeds
        ]
        for cell in cells:
            self._run_of(cell)
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per fresh learner: its mean return, on seeds that the distillation has not seen.

        Where a run or all its learners diverge, none of them succeeds: a single row says -inf.
        """
        try:
            scores = self._scores(cell, folder)
        except DivergedError:
            scores = np.array([-np.inf])
        known = self._criterion(make_task(self.task))
        return [{"learner": learner, "score": float(score)} | known for learner, score in enumerate(scores)]

    def summary(self, rows: list[Row]) -> Row:
        """The criterion, the paper's minimum, and by activation and loss the least size that meets the criterion."""
        known = self._criterion_of(rows)
        return known | {
            "share_of_learners": self.enough,
            "smallest": [
                {"activation": activation, "loss": loss} | self._smallest(of_kind, known["score_of_success"])
                for (activation, loss), of_kind in by(rows, "activation", "loss").items()
            ],
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Share of learners that succeed over the number of examples: the best seed as a line, all as points."""
        axes, summary = figure.subplots(), self.summary(rows)
        for number, entry in enumerate(summary["smallest"]):
            colour = f"C{number}"
            sizes = [size["examples"] for size in entry["sizes"]]
            shares = [size["shares"] for size in entry["sizes"]]
            label = label_of(f"{entry['activation']}, {entry['loss']}")
            axes.plot(sizes, [max(of_size) for of_size in shares], color=colour, label=label)
            for size, of_size in zip(sizes, shares, strict=True):
                axes.plot([size] * len(of_size), of_size, "o", color=colour, alpha=0.5)
        axes.axvline(summary["paper_minimum"], color="black", linestyle="--", label="the paper's minimum")
        axes.axhline(self.enough, color="black", linewidth=0.8, linestyle=":")
        axes.set_xticks(sorted(by(rows, "examples")))
        axes.set_xlabel("examples")
        axes.set_ylabel("share of fresh learners that succeed")
        axes.legend(fontsize="small")

    def threshold(self, task: Task) -> float:
        """The mean return with which a learner succeeds."""
        best = task.max_return if self.best is None else self.best
        if best is None:
            raise FloppyError(f"The highest return of {task.task_id} is not known: give --best, the best known score.")
        return best - (1 - self.share) * abs(best)

    def _scores(self, cell: Row, folder: Path) -> np.ndarray:
        wanted = self._run_of(cell)
        config, dataset = wanted.config, run(wanted, folder).best
        task, lesson = make_task(self.task), unpack(dataset)
        evaluation = evaluation_of(lesson, task, learners=config.score_learners, episodes=config.score_episodes)
        with open_arena(task) as arena:
            returns = evaluation.of_lesson(lesson, named_key(jax.random.key(cell["seed"]), "minimum size"), arena=arena)
        return scores_of(returns)

    def _run_of(self, cell: Row) -> BudgetedRun:
        own = recipe(self.task, self.recipe, examples=cell["examples"])
        cloning: Any = own.cloning
        drawn: tuple[Any, ...] = parse_distributions(own.distribution)
        learners = [dataclasses.replace(each, activation=cell["activation"]) for each in drawn]
        return configure_method(
            self.recipe,
            self.task,
            examples=cell["examples"],
            seed=cell["seed"],
            budget=self.budget,
            cloning=dataclasses.replace(cloning, loss=cell["loss"]),
            distribution=",".join(describe_distribution(each) for each in learners),
        )

    def _criterion(self, task: Task) -> Row:
        """What the table says of the task, so that it can be summed up without it."""
        return {"paper_minimum": paper_minimum(task), "score_of_success": self.threshold(task)}

    def _criterion_of(self, rows: list[Row]) -> Row:
        """The same from the table; from the task's name where the table was written before it said so."""
        for row in rows:
            if row.get("score_of_success", "") != "":
                return {name: row[name] for name in ("paper_minimum", "score_of_success")}
        return self._criterion(task_of_file(full_task_id(self.task)))

    def _smallest(self, rows: list[Row], threshold: float) -> Row:
        """`smallest` for which one seed meets the criterion, and for which every seed does; None if there is none."""
        sizes = [
            {
                "examples": size,
                "shares": [
                    float(np.mean(column(of_seed, "score") >= threshold)) for of_seed in by(of_size, "seed").values()
                ],
            }
            for size, of_size in sorted(by(rows, "examples").items())
        ]

        def least(decide: Callable[[list[float]], float]) -> int | None:
            return next((size["examples"] for size in sizes if decide(size["shares"]) >= self.enough), None)

        return {"smallest": least(max), "smallest_by_every_seed": least(min), "sizes": sizes}


def paper_minimum(task: Task) -> int:
    """`k_min = ceil(c / 2) + 1` for `c` outputs of the policy (PPMO, section 4.2)."""
    return math.ceil(task.actions.size / 2) + 1
