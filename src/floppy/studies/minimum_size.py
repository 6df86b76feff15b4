"""How few examples a task needs, beside the paper's minimum (PPMO, section 4.2).

The paper counts `k_min = ceil(c / 2) + 1` examples for `c` classes, or actions. That is no bound for learners with an
odd activation: from an example they learn its opposite too, and one is enough for cart-pole in one dimension.
"""

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import jax
import numpy as np
from tyro.conf import Positional

from floppy.arena import open_arena
from floppy.cloning import Cloning
from floppy.errors import DivergedError, FloppyError, check_number
from floppy.evaluate import learner_means, returns_of
from floppy.keys import named_key
from floppy.learners import describe_distribution, parse_distributions
from floppy.recipes import check_recipe, recipe
from floppy.studies._runs import Limited, check_seeds, limited, run
from floppy.studies.base import Row, by, column
from floppy.tasks import make_task
from floppy.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class MinimumSize:
    """Distils a task into ever more examples and finds the least number from which fresh learners learn it."""

    name: ClassVar[str] = "minimum-size"
    task: Positional[str]
    """Task id or short name."""
    sizes: tuple[int, ...] = ()
    """Numbers of examples; by default all up to one more than the paper's minimum."""
    activations: tuple[str, ...] = ("tanh", "relu")
    """Of the learners: tanh, which is odd, and relu, which is not."""
    losses: tuple[str, ...] = ("mse",)
    """Of the cloning: mse, cross-entropy or gaussian-nll."""
    seeds: tuple[int, ...] = (0, 1)
    """Of each distillation; a size is enough if one of them is."""
    recipe: str = "ppmo"
    """Of the distillations."""
    budget: str = ""
    """When to stop each of them: a number of steps (500steps) or a time (60s, 10m); by default as the recipe says."""
    best: float | None = None
    """The best known score; by default the highest that the task allows, where that is known."""
    share: float = 0.9
    """A learner succeeds with a mean return of this share of the best known score, which one below 0 may fall short of
    by as much."""
    enough: float = 0.9
    """A dataset is good enough if this share of fresh learners succeeds."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        for size in self.sizes:
            check_number("sizes", size, least=1)
        for name in ("share", "enough"):
            check_number(name, getattr(self, name), above=0, most=1)
        if self.best is not None:
            check_number("best", self.best)
        check_seeds(self.seeds)
        check_recipe(self.recipe)
        if not (self.activations and self.losses):
            raise FloppyError("A study of sizes got no activations or no losses: give at least one of each.")

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
            self._limited(cell)
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per fresh learner: its mean return, on seeds that the distillation has not seen.

        Where a run or all its learners diverge, none of them succeeds: a single row says -inf.
        """
        try:
            scores = self._scores(cell, folder)
        except DivergedError:
            scores = np.array([-np.inf])
        return [{"learner": learner, "score": float(score)} for learner, score in enumerate(scores)]

    def summary(self, rows: list[Row]) -> Row:
        """The criterion, the paper's minimum, and by activation and loss the least size that meets the criterion."""
        task = make_task(self.task)
        return {
            "paper_minimum": paper_minimum(task),
            "score_of_success": self.threshold(task),
            "share_of_learners": self.enough,
            "smallest": [
                {"activation": activation, "loss": loss} | self._smallest(of_kind)
                for (activation, loss), of_kind in by(rows, "activation", "loss").items()
            ],
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Share of learners that succeed over the number of examples: the best seed as a line, all as points."""
        axes = figure.subplots()
        for number, entry in enumerate(self.summary(rows)["smallest"]):
            colour = f"C{number}"
            sizes = [size["examples"] for size in entry["sizes"]]
            shares = [size["shares"] for size in entry["sizes"]]
            label = f"{entry['activation']}, {entry['loss']}"
            axes.plot(sizes, [max(of_size) for of_size in shares], color=colour, label=label)
            for size, of_size in zip(sizes, shares, strict=True):
                axes.plot([size] * len(of_size), of_size, "o", color=colour, alpha=0.5)
        axes.axvline(paper_minimum(make_task(self.task)), color="black", linestyle="--", label="the paper's minimum")
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
        wanted = self._limited(cell)
        config, dataset = wanted.config, run(wanted, folder).result.dataset
        task = make_task(self.task)
        with open_arena(task) as arena:
            returns = returns_of(
                dataset,
                task,
                named_key(jax.random.key(cell["seed"]), "minimum size"),
                learners=config.score_learners,
                episodes=config.score_episodes,
                arena=arena,
            )
        return learner_means(returns)

    def _limited(self, cell: Row) -> Limited:
        own = recipe(self.task, self.recipe, examples=cell["examples"])
        cloning: Cloning = dataclasses.replace(own.cloning, loss=cell["loss"])
        learners = [
            dataclasses.replace(each, activation=cell["activation"]) for each in parse_distributions(own.distribution)
        ]
        return limited(
            self.recipe,
            self.task,
            examples=cell["examples"],
            seed=cell["seed"],
            budget=self.budget,
            cloning=cloning,
            distribution=",".join(describe_distribution(each) for each in learners),
        )

    def _smallest(self, rows: list[Row]) -> Row:
        """`smallest` for which one seed meets the criterion, and for which every seed does; None if there is none."""
        threshold = self.threshold(make_task(self.task))
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
