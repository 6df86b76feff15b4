"""What studies that compare methods share: a method's configuration, and runs that go on where they were cut short."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floppy.dataset.file import DistilledDataset, load
from floppy.errors import DivergedError, FloppyError, must_be_one_of
from floppy.figure import label_of
from floppy.recipes import (
    ONE_RUN,
    apply_budget,
    for_one_learner,
    neuroevolution_baseline,
    ppo_baseline,
    recipe,
)
from floppy.run.config import DistillConfig
from floppy.run.folder import CONFIG_NAME, DATASET_NAME, read_metrics
from floppy.run.loop import distill
from floppy.teach.codec import Lesson, unpack

BASELINES = {"ppo": ppo_baseline, "neuroevolution": neuroevolution_baseline}
HADES_F = "hades-f"
METHODS = (*ONE_RUN, HADES_F, *BASELINES)

LABELS = {
    "hades": "HaDES-R",
    HADES_F: "HaDES-F",
    "ppmo": "PPMO",
    "ppo": "PPO",
}
"""What the papers call them, where that is another name."""


class Point(NamedTuple):
    """An evaluation within a run, the one that also chooses the best dataset."""

    outer_steps: int
    env_steps: int
    """Taken till then, those of evaluations not counted."""
    seconds: float
    """Wall-clock time till then, evaluations included, compilation left out."""
    score: float
    """Mean return of fresh learners."""


class Run(NamedTuple):
    """A distillation, or a baseline, that has ended."""

    points: list[Point]
    """Its evaluations but those in which every learner diverged."""
    compilation: float
    """Seconds, as far as the calls that compiled took longer than the others; 0 where all calls compiled."""
    outer_steps: int
    env_steps: int
    dataset: DistilledDataset | None = None
    """The best one, scored on fresh seeds; None of a run that diverged."""
    finished: bool = False
    """Whether it reached its last outer step: neither its budget of time nor divergence ended it early."""

    @property
    def score(self) -> dict[str, Any]:
        """Of the best dataset, as on its card; of a run that diverged it is the worst there is."""
        card_score = None if self.dataset is None else self.dataset.card.score
        return card_score or {"mean": -np.inf, "sd": 0.0}

    @property
    def best(self) -> DistilledDataset:
        """The best dataset.

        Raises:
          DivergedError: if there is none.
        """
        if self.dataset is None:
            raise DivergedError("The run diverged, and has no dataset: lower the rate.")
        return self.dataset

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row per evaluation and one of the end, for a study's table."""
        evaluations = [{"what": "evaluation"} | point._asdict() for point in self.points]
        return [*evaluations, {"what": "end"} | self.totals]

    @property
    def totals(self) -> dict[str, Any]:
        """What the run took in all, and the score of its best dataset."""
        return {
            "outer_steps": self.outer_steps,
            "env_steps": self.env_steps,
            "seconds": self.points[-1].seconds if self.points else 0.0,
            "compilation": self.compilation,
            "score": self.score["mean"],
        }


class BudgetedRun(NamedTuple):
    """A run to be made."""

    config: DistillConfig
    seconds: float | None = None
    """Time limit; None: to the last outer step."""


def configure_method(
    method: str, task: str, *, examples: int = 0, seed: int = 0, budget: str = "", **changes: Any
) -> BudgetedRun:
    """The configuration of a method for a task, checked as far as that is possible without running it.

    Args:
      method: ppo or neuroevolution, for the baselines; hades-f, which is recipe hades for a single fixed learner (HaDES
        paper, section 4); or a recipe.
      task: id or short name.
      examples: how many the dataset has; 0 for the recipe's number. A baseline has none.
      seed: of everything random, of the fixed learner too.
      budget: when to stop, see `apply_budget`.
      **changes: fields of `DistillConfig` to replace.

    Returns:
      The configuration and its time limit. The run does not end early at the task's highest return, for studies compare
      runs of the same length.

    Raises:
      FloppyError: for an unknown method, or one that the task does not allow.
    """
    if method not in METHODS:
        raise must_be_one_of("method", method, METHODS)
    if method in BASELINES:
        config = BASELINES[method](task, seed=seed)
    else:
        config = recipe(task, "hades" if method == HADES_F else method, examples=examples or None, seed=seed)
    if method == HADES_F:
        config = for_one_learner(config)
    config, seconds = apply_budget(dataclasses.replace(config, **({"early_stop": False} | changes)), budget)
    config.problem()
    return BudgetedRun(config, seconds)


def run(wanted: BudgetedRun, folder: Path) -> Run:
    """Makes a run in a folder, or goes on with what is there; shows its progress on stderr.

    Args:
      wanted: the run; time that earlier parts of it took counts towards its limit.
      folder: of the run.

    Returns:
      The run, earlier parts included.

    Raises:
      KeyboardInterrupt: after Ctrl-C; the folder holds what was reached.
      DivergedError: if the run or all its learners left the finite numbers, see `try_run`.
      FloppyError: for whatever else `distill` refuses.
    """
    spent = max((line.get("seconds", 0.0) for line in read_metrics(folder)), default=0.0)
    left = None if wanted.seconds is None else max(0.0, wanted.seconds - spent)
    has_begun = (folder / CONFIG_NAME).exists()
    result = distill(wanted.config, folder, resume=has_begun, time_limit=left, progress=_say)
    if result.interrupted:
        raise KeyboardInterrupt
    points, compilation = timed_points(read_metrics(folder))
    return Run(points, compilation, result.outer_steps, result.env_steps, result.dataset, result.finished)


def try_run(wanted: BudgetedRun, folder: Path) -> Run:
    """As `run`, but a run that diverged is a result too: one without a dataset, whose score is -inf."""
    try:
        return run(wanted, folder)
    except DivergedError:
        log = read_metrics(folder)
        points, compilation = timed_points(log)
        return Run(points, compilation, len(log), round(sum(line.get("env_steps", 0.0) for line in log)))


def timed_points(log: Sequence[dict[str, Any]]) -> tuple[list[Point], float]:
    """The evaluations in a run's log with the time of each, and the seconds of compilation that were taken out.

    A compiled call takes a few outer steps, and the last of their lines has the clock. Calls that held a compilation
    count as if they had gone at the median pace of those that did not.
    """
    ticks = [line for line in log if "seconds" in line]
    calls = np.diff([0, *(tick["step"] for tick in ticks)])
    took = np.diff([0.0, *(tick["seconds"] for tick in ticks)])
    compiles = np.array([tick.get("compiles", False) for tick in ticks], bool)
    pace = float(np.median((took / calls)[~compiles])) if not compiles.all() else np.inf
    compilation = np.where(compiles, np.maximum(took - pace * calls, 0.0), 0.0)
    seconds = dict(zip((tick["step"] for tick in ticks), np.cumsum(took - compilation), strict=True))
    env_steps = np.cumsum([line.get("env_steps", 0.0) for line in log])
    points = [
        Point(line["step"], round(taken), float(seconds[line["step"]]), line["selection_score"])
        for line, taken in zip(log, env_steps, strict=True)
        if line.get("selection_score") is not None
    ]
    return points, float(compilation.sum())


def lesson_of_examples(path: Path) -> Lesson:
    """The live parts of a file's dataset, from whose examples policies can be cloned.

    Raises:
      FloppyError: for a file that cannot be read, or holds a whole policy.
    """
    dataset = load(path)
    if dataset.card.is_plain_policy:
        raise FloppyError(f"{path} is a whole policy, from which nothing is cloned: give a dataset with examples.")
    return unpack(dataset)


def dataset_label(path: str) -> str:
    """A dataset's label in a figure: the name of its file, of one that lies in the folder of its run the run's."""
    is_of_run = Path(path).name == DATASET_NAME
    return label_of(Path(path).parent.name or path if is_of_run else Path(path).stem)


def _say(done: int, total: int, figures: dict[str, float]) -> None:
    score, best = (f"{figures[name]:.1f}" for name in ("score", "best"))
    print(f"  step {done}/{total}: score {score}, best {best}", file=sys.stderr, flush=True)
