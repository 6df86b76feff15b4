"""Encoder rollback: the same distillation with ever fewer layers in the encoder (PPMO paper, section 4)."""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from floppy.errors import FloppyError
from floppy.fields import bounded, check_fields
from floppy.learner.distribution import parse_distributions
from floppy.recipes import apply_budget
from floppy.run.config import DistillConfig
from floppy.run.folder import DATASET_NAME
from floppy.studies.base import CELLS_NAME, UNIT, Row, column, error_bars, finite, unit_of
from floppy.studies.runs import BudgetedRun, try_run
from floppy.tasks.base import score_unit
from floppy.tasks.registry import make_task

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Rollback:
    """Distils a task once for every number of encoder layers, from the whole network down to none.

    No layer is full distillation. With all layers in the encoder nothing is left to clone, which is plain PPO, or
    neuroevolution.
    """

    name: ClassVar[str] = "rollback"
    config: DistillConfig
    """Of every run, but for `encoder_layers`, and for `examples` where the encoder holds every layer."""
    levels: tuple[int, ...] = bounded((), least=0)
    """Numbers of encoder layers, in the order of the runs; by default all, from the whole network down to 0."""
    budget: str = ""
    """When each run stops: after a number of steps (500steps) or a time (60s, 10m); by default as the configuration
    says."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        if self.config.encoder_layers:
            raise FloppyError(
                f"encoder_layers must be 0 in a study of all of them, got {self.config.encoder_layers}: choose them by "
                "levels."
            )

    def cells(self) -> list[Row]:
        """A number of encoder layers, and the number of examples beside them.

        Raises:
          FloppyError: for a level that the network does not have, learners without levels, and a budget that is none.
        """
        layers = parse_distributions(self.config.distribution)[0].layers
        levels = self.levels or range(layers, -1, -1)
        if wrong := [level for level in levels if level > layers]:
            raise FloppyError(f"levels must be at most the network's {layers} layers, got {wrong[0]}.")
        cells = [
            {"encoder_layers": level, "examples": 0 if level == layers else self.config.examples} for level in levels
        ]
        for cell in cells:
            self._run_of(cell).config.problem()
        return cells

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row: the score of the run's best dataset on fresh seeds, as on its card, and the cost.

        The score is -inf where the run or all its learners diverged. `dataset` is a path within the study's folder.
        """
        ended = try_run(self._run_of(cell), folder)
        row: Row = {"finished": ended.finished} | ended.totals | {"sd": ended.score["sd"]}
        row[UNIT] = score_unit(make_task(self.config.task))
        if ended.dataset is None:
            return [row]
        low, high = ended.score["ci95"]
        counts = {name: ended.score[name] for name in ("learners", "episodes")}
        dataset = str(Path(CELLS_NAME) / folder.name / DATASET_NAME)
        return [row | {"low": low, "high": high} | counts | {"dataset": dataset}]

    def summary(self, rows: list[Row]) -> Row:
        """The task, and by level the score with its 95% interval over learners, what it cost and where it lies."""
        return {"task": self.config.task, "levels": [_level(row) for row in rows]}

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """Scores over the number of encoder layers, with their intervals."""
        unit = unit_of(rows)
        rows = sorted((row for row in rows if np.isfinite(row["score"])), key=lambda row: row["encoder_layers"])
        levels, means = column(rows, "encoder_layers"), column(rows, "score")
        axes = figure.subplots()
        if rows:
            intervals = np.stack([column(rows, "low"), column(rows, "high")], axis=1)
            axes.errorbar(levels, means, error_bars(means, intervals), fmt="o-", capsize=3)
            axes.set_xticks(levels)
        axes.set_xlabel("encoder layers")
        axes.set_ylabel(unit)

    def _run_of(self, cell: Row) -> BudgetedRun:
        return BudgetedRun(*apply_budget(dataclasses.replace(self.config, **cell), self.budget))


def _level(row: Row) -> Row:
    """The summary of one run."""
    entry = {name: row[name] for name in ("encoder_layers", "examples", "outer_steps", "env_steps", "seconds")}
    entry["finished"] = row["finished"]
    if finite(row["score"]) is None:
        return entry | {"score": None, "dataset": None}
    score = {"mean": row["score"], "sd": row["sd"], "ci95": [row["low"], row["high"]]}
    return entry | {
        "score": score | {"learners": row["learners"], "episodes": row["episodes"]},
        "dataset": row["dataset"],
    }
