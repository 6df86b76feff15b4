"""Scores of datasets over the number of their examples, beside methods without a dataset (HaDES, Figure 6)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from tyro.conf import Positional

from floppy.fields import bounded, check_fields
from floppy.figure import label_of
from floppy.studies.base import UNIT, Row, by, check_some, column, error_bars, spread_of_runs, unit_of
from floppy.studies.figure import scale_by_two
from floppy.studies.runs import BASELINES, LABELS, BudgetedRun, configure_method, try_run
from floppy.tasks.base import score_unit
from floppy.tasks.registry import make_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Budget:
    """Scores datasets of several sizes, beside PPO and neuroevolution."""

    name: ClassVar[str] = "budget"
    task: Positional[str]
    """Task id or short name."""
    sizes: tuple[int, ...] = bounded((4, 16, 64, 256), least=1)
    """Numbers of examples: what a dataset may hold."""
    methods: tuple[str, ...] = ("hades", "ppmo", "neuroevolution", "ppo")
    """Recipes, or hades-f, which is recipe hades for a single fixed learner; ppo and neuroevolution, which have no
    dataset, run once per seed."""
    seeds: tuple[int, ...] = bounded((0, 1, 2), least=0, most=2**32 - 1)
    """Of each method's runs."""
    budget: str = ""
    """When each run stops: after a number of steps (500steps) or a time (60s, 10m); by default as the recipe says."""
    learners: int = bounded(0, least=0)
    """Fresh learners of each score; 0 for the recipe's number."""
    episodes: int = bounded(0, least=0)
    """Of each of these learners; 0 for the recipe's number."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "sizes", "methods", "seeds")

    def cells(self) -> list[Row]:
        """A method, a number of examples and a seed.

        Raises:
          FloppyError: for a method, task or budget that cannot be.
        """
        cells = [
            {"method": method, "examples": size, "seed": seed}
            for method in self.methods
            for size in ([0] if method in BASELINES else self.sizes)
            for seed in self.seeds
        ]
        for cell in cells:
            self._run_of(cell)
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row: the score of the run's best dataset on fresh seeds, its spread over learners, and the cost.

        The score is -inf where the run or all its learners diverged.
        """
        ended = try_run(self._run_of(cell), folder)
        return [ended.totals | {"sd": ended.score["sd"], UNIT: score_unit(make_task(self.task))}]

    def summary(self, rows: list[Row]) -> Row:
        """By method and size: interquartile mean of the runs' scores, with its interval."""
        return {
            str(method): [
                {"examples": size} | spread_of_runs(column(of_size, "score"))
                for size, of_size in by(of_method, "examples").items()
            ]
            for method, of_method in by(rows, "method").items()
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Interquartile means over the size with their intervals; a line across for what has no dataset.

        What diverged is left out.
        """
        axes = figure.subplots()
        for number, (method, entries) in enumerate(self.summary(rows).items()):
            colour, label = f"C{number}", label_of(LABELS.get(method, method))
            middle = column(entries, "interquartile_mean")  # None, of runs that diverged, is drawn as a gap
            intervals = np.array([entry["interval"] or (np.nan, np.nan) for entry in entries])
            if method in BASELINES:
                axes.axhline(middle[0], color=colour, linestyle="--", label=label)
                axes.axhspan(*intervals[0], color=colour, alpha=0.1)
            else:
                sizes = [entry["examples"] for entry in entries]
                reach = error_bars(middle, intervals)
                axes.errorbar(sizes, middle, reach, color=colour, marker="o", capsize=3, label=label)
        scale_by_two(axes, self.sizes)
        axes.set_xlabel("examples")
        axes.set_ylabel(unit_of(rows))
        axes.legend(fontsize="small")

    def _run_of(self, cell: Row) -> BudgetedRun:
        wanted = {"score_learners": self.learners, "score_episodes": self.episodes}
        return configure_method(
            cell["method"],
            self.task,
            examples=cell["examples"],
            seed=cell["seed"],
            budget=self.budget,
            **{name: count for name, count in wanted.items() if count},
        )
