"""Seconds per generation of HaDES on Brax hopper, on one and on two host devices: `python benchmarks/generation.py`.

Width 512, 64 examples, 32 candidates, one initialisation, 400 Adam steps, 4 environments of 1000 steps, in which a
fallen hopper lies on: every candidate plays to the end. The published code, whose 1024 steps hold 2% more, took 31 s on
two idle cores.
"""

import dataclasses
import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp

from floppy import recipe
from floppy.cloning import AdamSteps
from floppy.outer import HaDES
from floppy.parallel import replicate
from floppy.tasks.base import Transition
from floppy.tasks.brax import BraxState, BraxTask

GENERATIONS = 2


@dataclasses.dataclass(frozen=True)
class Unending(BraxTask):
    """A Brax task of which only the time limit ends an episode."""

    def step(self, key: jax.Array, state: BraxState, action: jax.Array) -> Transition:
        """As Brax has it, but for the end."""
        return super().step(key, state, action)._replace(terminated=jnp.zeros((), bool))


def seconds_per_generation() -> tuple[float, float]:
    """Seconds, and the mean length of an episode."""
    outer = HaDES(population=32, initialisations=1, environments=4, normalise_observations=True)
    cloning = AdamSteps(loss="gaussian-nll", steps=400, eps_root=0.0)
    config = recipe("hopper", "hades-brax", outer=outer, cloning=cloning)
    problem = dataclasses.replace(config.problem(), task=Unending("hopper"))
    key = jax.random.key(0)
    state = replicate(jax.jit(outer.init, static_argnums=0)(problem, key))
    step = jax.jit(outer.step, static_argnums=0)
    state, info = jax.block_until_ready(step(problem, state, key))
    started = time.perf_counter()
    for generation in range(GENERATIONS):
        state, info = jax.block_until_ready(step(problem, state, jax.random.fold_in(key, generation)))
    return (time.perf_counter() - started) / GENERATIONS, float(info["episode_length"])


if __name__ == "__main__":
    if len(sys.argv) == 2:
        print(*seconds_per_generation())
        sys.exit()
    measured = []
    for devices in (1, 2):
        environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        command = [sys.executable, "-W", "ignore", __file__, "measure"]
        answer = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
        seconds, length = map(float, answer.split())
        measured.append(seconds)
        print(f"{devices} devices: {seconds:.2f} s per generation, episodes of {length:.0f} steps", flush=True)
    print(f"two devices are {measured[0] / measured[1]:.2f} times as fast as one")
