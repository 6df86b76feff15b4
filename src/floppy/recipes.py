"""Default configurations per task and outer loop, chosen by measurement (docs/results)."""

import dataclasses
from collections.abc import Callable
from typing import Any

from floppy.cloning import AdamSteps, GradientStep
from floppy.distill import DistillConfig
from floppy.errors import FloppyError
from floppy.outer import PPMO, HaDES
from floppy.tasks.base import Continuous, Discrete
from floppy.tasks.ndcartpole import NDCartPole
from floppy.tasks.registry import make_task
from floppy.train import CLONING_KINDS

ROBUST_DISTRIBUTIONS = "lambda,ortho1,xavier,xavier1,width=32..128,random-depth"
"""Those of the PPMO paper's Table 1, but for the width: 128 is as robust as 256 at a quarter of the arithmetic."""


def _ppmo(task: str, examples: int | None = None) -> DistillConfig:
    """The corrected PPMO with 16 learners per outer step; longer for more dimensions, slower for few examples."""
    config = DistillConfig(task)
    if not isinstance(known := make_task(task), NDCartPole):
        return dataclasses.replace(config, examples=16 if examples is None else examples)
    least = known.dimensions + 1  # the papers' k_min = ceil(c / 2) + 1 for c = 2 N actions
    examples = least if examples is None else examples
    steps, rate = max(300, 400 * (known.dimensions - 1)), 1e-2
    if examples < least:  # with so few a fast run easily sticks in a local optimum
        steps, rate = max(400, steps), 1e-3 if known.dimensions == 1 else 2e-3
    return dataclasses.replace(config, examples=examples, outer_steps=steps, outer=PPMO(rate=rate))


def _ppmo_robust(task: str, examples: int | None = None) -> DistillConfig:
    """The same over random widths, depths and initialisers, as in the PPMO paper's Table 1."""
    config = _ppmo(task, examples)
    outer = dataclasses.replace(config.outer, learners=24, minibatch_size=3072)
    return dataclasses.replace(
        config, distribution=ROBUST_DISTRIBUTIONS, outer=outer, outer_steps=600, evaluate_every=50
    )


def _ppmo_paper(task: str, examples: int | None = None) -> DistillConfig:
    """The PPMO paper's constants (section 5.1), with this library's corrections."""
    outer = PPMO(
        learners=1,
        environments=10,
        horizon=200,
        minibatch_size=512,
        rate=2.5e-4,
        critic_rate=2.5e-4,
        anneal=False,
        clip=0.1 if isinstance(make_task(task).actions, Continuous) else 0.2,
    )
    return dataclasses.replace(
        _ppmo(task, examples), outer=outer, initial_rate=0.02, outer_steps=3000, evaluate_every=50
    )


def _ppmo_published(task: str, examples: int | None = None) -> DistillConfig:
    """The PPMO paper's constants and the published code's errors, to show the difference they make."""
    config = _ppmo_paper(task, examples)
    return dataclasses.replace(config, outer=dataclasses.replace(config.outer, published_errors=True))


def _hades(task: str, examples: int | None = None) -> DistillConfig:
    """HaDES-R that finishes on a small CPU: narrow learners, few Adam steps, a small population."""
    known = make_task(task)
    discrete = isinstance(known.actions, Discrete)
    config = DistillConfig(
        task,
        examples=(2 if isinstance(known, NDCartPole) else 16) if examples is None else examples,
        outer_steps=100,
        evaluate_every=10,
        initial_rate=0.03,
        cloning=AdamSteps(loss="cross-entropy" if discrete else "gaussian-nll", steps=32),
        outer=HaDES(),
    )
    return config


RECIPES: dict[str, Callable[[str, int | None], DistillConfig]] = {
    "ppmo": _ppmo,
    "ppmo-robust": _ppmo_robust,
    "ppmo-paper": _ppmo_paper,
    "ppmo-published": _ppmo_published,
    "hades": _hades,
}
"""Recipes by name; each takes a task id and a number of examples (None: the recipe's own)."""


def recipe(
    task: str, name: str = "ppmo", *, examples: int | None = None, cloning: str | None = None, **changes: Any
) -> DistillConfig:
    """The configuration of a recipe for a task.

    Args:
      task: id or short name.
      name: of the recipe, see `RECIPES`.
      examples: how many, in place of the recipe's number.
      cloning: kind of cloning, GradientStep or AdamSteps, in place of the recipe's.
      **changes: fields of `DistillConfig` to replace.

    Returns:
      The configuration.

    Raises:
      FloppyError: for an unknown name or a value that is not allowed.
    """
    if name not in RECIPES:
        raise FloppyError(f"Recipe {name} was asked for: choose from {', '.join(RECIPES)}.")
    config = RECIPES[name](task, examples)
    if cloning is not None:
        changes = _cloning_defaults(cloning) | changes
    return dataclasses.replace(config, **changes)


def ppo_baseline(task: str, **changes: Any) -> DistillConfig:
    """Plain PPO on a task: PPMO whose encoder holds every layer."""
    config = recipe(task)
    outer = dataclasses.replace(config.outer, learners=1, environments=64, rate=2e-3)
    plain: dict[str, Any] = {"examples": 0, "encoder_layers": 3, "outer": outer}
    return dataclasses.replace(config, **(plain | changes))


def _cloning_defaults(kind: str) -> dict[str, Any]:
    if kind not in CLONING_KINDS:
        raise FloppyError(f"Cloning {kind} was asked for: choose from {', '.join(CLONING_KINDS)}.")
    if kind == "AdamSteps":
        return {"cloning": AdamSteps(loss="mse"), "initial_rate": 0.01}
    return {"cloning": GradientStep(), "initial_rate": 1.0}
