"""Quick evolution for the tests of HaDES."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from probes import ActionProbe, ProbeState, start, transition

from floppy.keys import named_key
from floppy.outer import HaDES, Problem
from floppy.outer.hades.loop import HaDESState
from floppy.tasks import Transition

KEY = jax.random.key(0)
TINY = HaDES(population=8, initialisations=2, environments=3)


@functools.partial(jax.jit, static_argnums=(0, 1, 3))
def evolve(outer: HaDES, problem: Problem, key: jax.Array, steps: int) -> tuple[HaDESState, HaDESState, Any]:
    """The states before and after several generations, and their infos, stacked."""
    first = outer.init(problem, named_key(key, "init"))
    last, info = jax.lax.scan(lambda state, k: outer.step(problem, state, k), first, jax.random.split(key, steps))
    return first, last, info


@functools.partial(jax.jit, static_argnums=(0, 1))
def quick_init(outer: HaDES, problem: Problem, key: jax.Array = KEY) -> HaDESState:
    return outer.init(problem, key)


@dataclasses.dataclass(frozen=True)
class FirstStepProbe(ActionProbe):
    """Ends with action 1 or after 6 steps and pays 1 in every step; observations tell the first step from others."""

    max_steps: int = 6
    max_return: float = 6.0

    def observe(self, time: jax.Array | int) -> jax.Array:
        first = jnp.where(jnp.asarray(time) == 0, 1.0, 0.0)
        return jnp.stack([first, 1000.0 + 2.0 * first])

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), self.observe(0)

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        time = state.time + 1
        ends = {"terminated": action == 1, "truncated": time >= self.max_steps}
        return transition(state._replace(time=time), self.observe(time), 1.0, **ends)
