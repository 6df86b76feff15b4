"""What studies that compare methods share: a method's configuration, and runs that go on where they were cut short."""

import dataclasses
import json
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from floppy.dataset import write_atomically
from floppy.distill import CONFIG_NAME, METRICS_NAME, DistillConfig, DistillResult, distill
from floppy.errors import FloppyError, check_seed, shown
from floppy.learners import describe_distribution, parse_distributions
from floppy.outer import PPMO, HaDES
from floppy.recipes import RECIPES, apply_budget, neuroevolution_baseline, ppo_baseline, recipe
from floppy.tasks import make_task
from floppy.tasks.base import SupervisedTask

CLOCK_NAME = "clock.jsonl"
"""When a run reached which outer step: of every compiled call `step`, `seconds`, and whether it `compiles`."""

BASELINES = {"ppo": ppo_baseline, "neuroevolution": neuroevolution_baseline}
HADES_F = "hades-f"
METHODS = (*RECIPES, HADES_F, *BASELINES)

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

    result: DistillResult
    points: list[Point]
    """Its evaluations but those in which every learner diverged."""
    compilation: float
    """Seconds, as far as the first compiled call took longer than the others; 0 where there was but one."""

    @property
    def totals(self) -> dict[str, Any]:
        """What the run took in all, and the score of its best dataset on fresh seeds."""
        return {
            "outer_steps": self.result.outer_steps,
            "env_steps": self.result.env_steps,
            "seconds": self.points[-1].seconds if self.points else 0.0,
            "compilation": self.compilation,
            "score": (self.result.dataset.card.score or {})["mean"],
        }


class Limited(NamedTuple):
    """What is run, and for how long."""

    config: DistillConfig
    seconds: float | None = None
    """None: to the end."""


def limited(method: str, task: str, *, examples: int = 0, seed: int = 0, budget: str = "", **changes: Any) -> Limited:
    """The configuration of a method for a task, checked as far as that is possible without running it.

    Args:
      method: ppo or neuroevolution, for the baselines; hades-f, which is recipe hades for a single fixed learner (HaDES
        paper, section 4); or a recipe.
      task: id or short name.
      examples: of the dataset; 0 for the recipe's number. A baseline has none.
      seed: of everything random, of the fixed learner too.
      budget: as for `apply_budget`.
      **changes: fields of `DistillConfig` to replace.

    Raises:
      FloppyError: for an unknown method, or one that the task does not allow.
    """
    if method not in METHODS:
        raise FloppyError(f"Method {shown(method)} was asked for: choose from {', '.join(METHODS)}.")
    if method in BASELINES:
        config = BASELINES[method](task, seed=seed)
    else:
        config = recipe(task, "hades" if method == HADES_F else method, examples=examples or None, seed=seed)
    if method == HADES_F:
        config = _for_one_learner(config)
    config, seconds = apply_budget(dataclasses.replace(config, **changes), budget)
    config.problem()
    if isinstance(config.outer, PPMO) and isinstance(make_task(config.task), SupervisedTask):
        raise FloppyError(
            f"Method {method} was asked for with {config.task}, which has no episodes: choose from hades, hades-f, "
            "supervised and neuroevolution, or another task."
        )
    return Limited(config, seconds)


def check_seeds(seeds: tuple[int, ...]) -> None:
    """Refuses seeds that are none, and to have none."""
    if not seeds:
        raise FloppyError("A study got no seeds: give at least one.")
    for seed in seeds:
        check_seed(seed, "seeds")


def run(wanted: Limited, folder: Path) -> Run:
    """Runs a configuration in a folder, or goes on with what is there; shows its progress on stderr.

    Raises:
      KeyboardInterrupt: after Ctrl-C; the folder holds what was reached.
      FloppyError: whatever `distill` refuses.
    """
    has_begun, clock = (folder / CONFIG_NAME).exists(), folder / CLOCK_NAME
    if not has_begun:
        clock.unlink(missing_ok=True)
    ticks = _read_lines(clock)
    before = ticks[-1]["seconds"] if ticks else 0.0
    started, compiles = time.monotonic(), True

    def progress(done: int, total: int, figures: dict[str, float]) -> None:
        nonlocal compiles
        ticks.append({"step": done, "seconds": before + time.monotonic() - started, "compiles": compiles})
        compiles = False
        write_atomically(clock, "".join(json.dumps(tick) + "\n" for tick in ticks).encode())
        text = f"score {figures['score']:.1f}, best {figures['best']:.1f}"
        print(f"  step {done}/{total}: {text}", file=sys.stderr, flush=True)

    left = None if wanted.seconds is None else max(0.0, wanted.seconds - before)
    result = distill(wanted.config, folder, resume=has_begun, time_limit=left, progress=progress)
    if result.interrupted:
        raise KeyboardInterrupt
    return Run(result, *_points(_read_lines(folder / METRICS_NAME), ticks))


def _points(log: Iterable[dict[str, Any]], ticks: list[dict[str, Any]]) -> tuple[list[Point], float]:
    """The evaluations in a run's log with the time of each, and the seconds of compilation that were taken out."""
    steps = np.array([0, *(tick["step"] for tick in ticks)])
    took = np.diff([0.0, *(tick["seconds"] for tick in ticks)])
    compiles = np.array([tick["compiles"] for tick in ticks], bool)
    paces = took / np.diff(steps)
    pace = float(np.median(paces[~compiles])) if not compiles.all() else np.inf
    compilation = np.where(compiles, np.maximum(took - pace * np.diff(steps), 0.0), 0.0)
    seconds = np.cumsum([0.0, *(took - compilation)])
    points, env_steps = [], 0.0
    for line in log:
        env_steps += line["env_steps"]
        if line.get("selection_score") is not None:
            # Of a run that was killed between an evaluation and its tick, the time in between.
            when = float(np.interp(line["step"], steps, seconds))
            points.append(Point(line["step"], round(env_steps), when, line["selection_score"]))
    return points, float(compilation.sum())


def _read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _for_one_learner(config: DistillConfig) -> DistillConfig:
    """HaDES-F: the seed draws the only learner, which plays the episodes of all that HaDES-R has."""
    learner = dataclasses.replace(parse_distributions(config.distribution)[0], init_seed=config.seed)
    assert isinstance(config.outer, HaDES)
    episodes = config.outer.environments * config.outer.initialisations
    outer = dataclasses.replace(config.outer, initialisations=1, environments=episodes)
    return dataclasses.replace(config, distribution=describe_distribution(learner), outer=outer)
