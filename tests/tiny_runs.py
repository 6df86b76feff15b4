"""One tiny distillation and its baseline for the tests of studies: whichever runs first compiles for all of them."""

import dataclasses
from typing import Any

import pytest

from floppy.outer import PPMO
from floppy.recipes import RECIPES
from floppy.run.config import DistillConfig
from floppy.studies import runs

TINY = DistillConfig(
    "cartpole",
    outer_steps=3,
    evaluate_every=1,
    distribution="width=4:depth=1",
    early_stop=False,
    # The last evaluation is like the others, so that one program does both.
    selection_learners=2,
    score_learners=2,
    score_episodes=2,
    outer=PPMO(learners=2, environments=2, horizon=4, epochs=1, minibatch_size=16, critic_width=4),
)
PLAIN = dataclasses.replace(TINY, examples=0, encoder_layers=2)
"""All layers are in the encoder: PPO."""


def use_tiny_runs(patch: pytest.MonkeyPatch) -> None:
    """Puts `TINY` in the place of every recipe, and `PLAIN` in that of PPO."""

    def recipe(task: str, name: str, *, examples: int | None = None, **changes: Any) -> DistillConfig:
        assert name in RECIPES
        return dataclasses.replace(TINY, task=task, examples=examples or TINY.examples, **changes)

    patch.setattr(runs, "recipe", recipe)
    patch.setitem(runs.BASELINES, "ppo", lambda task, **changes: dataclasses.replace(PLAIN, task=task, **changes))
