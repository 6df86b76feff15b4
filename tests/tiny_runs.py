"""One tiny distillation and its baseline for the tests of studies: whichever runs first compiles for all of them."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from floppy.outer import OUTER_LOOPS, PPMO
from floppy.outer.base import OuterLoopDefaults
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


@dataclasses.dataclass(frozen=True)
class Drifting(OuterLoopDefaults):
    """Moves what there is at random, and so compiles in no time."""

    name = "test-drifting"

    def init(self, problem: Any, key: jax.Array, arena: Any) -> Any:
        return problem.init_distilled(key, arena=arena)

    def step(self, problem: Any, state: Any, key: jax.Array, arena: Any) -> Any:
        noise = jax.random.normal(key)
        moved = jax.tree.map(lambda leaf: leaf + noise, (state.targets, state.encoder))
        return state._replace(targets=moved[0], encoder=moved[1]), {"env_steps": jnp.asarray(16)}

    def distilled(self, state: Any) -> Any:
        return state


def use_drifting(patch: pytest.MonkeyPatch) -> None:
    """Registers it; not for good, for tests ask whatever is registered."""
    patch.setattr(OUTER_LOOPS, "_members", dict(OUTER_LOOPS) | {Drifting.name: Drifting})


def use_tiny_runs(patch: pytest.MonkeyPatch) -> None:
    """Puts `TINY` in the place of every recipe, with a loop that compiles in no time, and `PLAIN` in that of PPO."""
    use_drifting(patch)

    def recipe(task: str, name: str, *, examples: int | None = None, **changes: Any) -> DistillConfig:
        assert name in RECIPES
        small = {"task": task, "outer": Drifting(), "examples": examples or TINY.examples}
        return dataclasses.replace(TINY, **(small | changes))

    patch.setattr(runs, "recipe", recipe)
    patch.setitem(runs.BASELINES, "ppo", lambda task, **changes: dataclasses.replace(PLAIN, task=task, **changes))
