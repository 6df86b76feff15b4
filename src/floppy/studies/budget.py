"""Scores of datasets over their size, beside methods without a dataset (HaDES, Figure 6)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from tyro.conf import Positional

from floppy.errors import FloppyError, check_number
from floppy.studies._runs import BASELINES, LABELS, Limited, check_seeds, limited, run
from floppy.studies.base import Row, by, column, error_bars, interquartile_mean, stratified_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Budget:
    """Scores datasets of several sizes, beside PPO and neuroevolution."""

    name: ClassVar[str] = "budget"
    task: Positional[str]
    """Task id or short name."""
    sizes: tuple[int, ...] = (4, 16, 64, 256)
    """Numbers of examples."""
    methods: tuple[str, ...] = ("hades", "ppmo", "neuroevolution", "ppo")
    """Recipes, or hades-f, which is recipe hades for a single fixed learner; ppo and neuroevolution, which have no
    dataset, run once per seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of each method's runs."""
    budget: str = ""
    """When to stop each run: a number of steps (500steps) or a time (60s, 10m); by default as the recipe says."""
    learners: int = 0
    """Fresh learners of each score; 0 for the recipe's number."""
    episodes: int = 0
    """Of each of these learners; 0 for the recipe's number."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        for size in self.sizes:
            check_number("sizes", size, least=1)
        for count in ("learners", "episodes"):
            check_number(count, getattr(self, count), least=0)
        check_seeds(self.seeds)
        if not (self.sizes and self.methods):
            raise FloppyError("A study of budgets got no sizes or no methods: give at least one of each.")

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
            self._limited(cell)
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row: the score of the run's best dataset on fresh seeds, its spread over learners, and the cost."""
        ended = run(self._limited(cell), folder)
        return [ended.totals | {"sd": (ended.result.dataset.card.score or {})["sd"]}]

    def summary(self, rows: list[Row]) -> Row:
        """By method and size: interquartile mean of the runs' scores, with its interval."""
        return {
            str(method): [self._size_summary(size, of_size) for size, of_size in by(of_method, "examples").items()]
            for method, of_method in by(rows, "method").items()
        }

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Interquartile means over the size with their intervals; a line across for what has no dataset."""
        axes = figure.subplots()
        for number, (method, entries) in enumerate(self.summary(rows).items()):
            colour, label = f"C{number}", LABELS.get(method, method)
            middle = np.array([entry["interquartile_mean"] for entry in entries])
            intervals = np.array([entry["interval"] for entry in entries])
            if method in BASELINES:
                axes.axhline(middle[0], color=colour, linestyle="--", label=label)
                axes.axhspan(*intervals[0], color=colour, alpha=0.1)
            else:
                sizes = [entry["examples"] for entry in entries]
                reach = error_bars(middle, intervals)
                axes.errorbar(sizes, middle, reach, color=colour, marker="o", capsize=3, label=label)
        axes.set_xscale("log", base=2)
        axes.set_xticks(self.sizes, [str(size) for size in self.sizes])
        axes.set_xlabel("examples")
        axes.set_ylabel("mean return")
        axes.legend(fontsize="small")

    def _limited(self, cell: Row) -> Limited:
        wanted = {"score_learners": self.learners, "score_episodes": self.episodes}
        return limited(
            cell["method"],
            self.task,
            examples=cell["examples"],
            seed=cell["seed"],
            budget=self.budget,
            **{name: count for name, count in wanted.items() if count},
        )

    def _size_summary(self, size: int, rows: list[Row]) -> Row:
        scores = column(rows, "score")
        return {
            "examples": size,
            "runs": len(rows),
            "interquartile_mean": interquartile_mean(scores),
            "interval": list(stratified_interval([scores])),
        }
