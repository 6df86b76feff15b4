"""Learning curves of the methods side by side (HaDES, Figure 3)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from tyro.conf import Positional

from floppy.evaluation.score import interquartile_mean
from floppy.fields import bounded, check_fields
from floppy.figure import label_of
from floppy.studies.base import UNIT, Row, by, check_some, column, spread_of_runs, unit_of
from floppy.studies.runs import LABELS, BudgetedRun, configure_method, try_run
from floppy.tasks.base import score_unit
from floppy.tasks.registry import make_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PANELS = {"outer_steps": "outer steps", "env_steps": "environment steps"}


@dataclasses.dataclass(frozen=True)
class Compare:
    """Draws the learning curves of HaDES, PPMO, neuroevolution and PPO over outer and over environment steps."""

    name: ClassVar[str] = "compare"
    task: Positional[str]
    """Task id or short name."""
    methods: tuple[str, ...] = ("hades-f", "hades", "ppmo", "neuroevolution", "ppo")
    """ppo and neuroevolution, which have no dataset; hades-f, which is recipe hades for a single fixed learner; or
    recipes."""
    seeds: tuple[int, ...] = bounded((0, 1, 2), least=0, most=2**32 - 1)
    """Of each method's runs."""
    examples: int = bounded(0, least=0)
    """Of the datasets; 0 for each recipe's number."""
    budget: str = ""
    """When each run stops: after a number of steps (500steps) or a time (60s, 10m); by default as the recipe says."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "methods", "seeds")

    def cells(self) -> list[Row]:
        """A method and a seed.

        Raises:
          FloppyError: for a method, task or budget that cannot be.
        """
        for method in self.methods:
            self._run_of(method, self.seeds[0])
        return [{"method": method, "seed": seed} for method in self.methods for seed in self.seeds]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per evaluation of the run, and one of its end, with its best dataset's score on fresh seeds.

        That score is -inf where the run or all its learners diverged.
        """
        unit = {UNIT: score_unit(make_task(self.task))}
        return [row | unit for row in try_run(self._run_of(cell["method"], cell["seed"]), folder).rows]

    def summary(self, rows: list[Row]) -> Row:
        """By method, of its runs' ends: interquartile mean of the scores with its interval, and the mean cost."""
        return {method: self._method_summary(of_method) for method, of_method in by(rows, "method").items()}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Interquartile means of the runs, and thinner each of them."""
        figure.set_size_inches(10, 4)
        curves = by([row for row in rows if row["what"] == "evaluation"], "method")
        for axes, (place, label) in zip(figure.subplots(1, 2, sharey=True), PANELS.items(), strict=True):
            for number, (method, curve) in enumerate(curves.items()):
                runs = by(curve, "seed").values()
                for one in runs:
                    axes.plot(column(one, place), column(one, "score"), f"C{number}", alpha=0.25, linewidth=0.8)
                # Runs that a time limit or divergence ended differ in length: no mean where some are missing.
                whole = [at for at in by(curve, "outer_steps").values() if len(at) == len(runs)]
                axes.plot(
                    [column(at, place).mean() for at in whole],
                    [interquartile_mean(column(at, "score")) for at in whole],
                    f"C{number}",
                    label=label_of(LABELS.get(method, method)),
                )
            axes.set_xlabel(label)
        figure.axes[0].set_ylabel(unit_of(rows))
        figure.axes[0].legend(fontsize="small")
        figure.axes[1].set_xscale("log")
        figure.axes[1].tick_params(axis="x", which="minor", labelbottom=False)  # they would cover each other

    def _run_of(self, method: str, seed: int) -> BudgetedRun:
        return configure_method(method, self.task, examples=self.examples, seed=seed, budget=self.budget)

    def _method_summary(self, rows: list[Row]) -> Row:
        ends = by(rows, "what")["end"]
        costs = {name: float(column(ends, name).mean()) for name in ("outer_steps", "env_steps", "seconds")}
        return spread_of_runs(column(ends, "score")) | costs
