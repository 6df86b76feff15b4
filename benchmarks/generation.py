"""Seconds per generation of HaDES on Brax hopper, on one and on two host devices: `python benchmarks/generation.py`.

Width 512, 64 examples, 32 candidates, one initialisation, 400 Adam steps, 4 environments of 1000 steps (a whole
episode: the candidates lie close around a dataset with which hopper does not fall). The published code, whose 1024
steps hold 2% more, took 31 s on two idle cores.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from floppy import load, recipe
from floppy.cloning import AdamSteps
from floppy.outer import HaDES
from floppy.parallel import replicate
from floppy.train import distilled_of, statistics_of

DATASET = Path(__file__).resolve().parents[1] / "docs" / "results" / "hades" / "r-hopper-k4.safetensors"
EXAMPLES = 64
GENERATIONS = 2


def seconds_per_generation() -> tuple[float, float]:
    """Seconds, and the mean length of an episode."""
    outer = HaDES(population=32, initialisations=1, environments=4, sigma=1e-3, rate=1e-6, normalise_observations=True)
    config = recipe(
        "hopper",
        "hades-brax",
        examples=EXAMPLES,
        outer=outer,
        cloning=AdamSteps(loss="gaussian-nll", steps=400, eps_root=0.0),
    )
    problem, key, dataset = config.problem(), jax.random.key(0), load(DATASET)
    few = distilled_of(dataset)
    copies = EXAMPLES // few.observations.shape[0]  # the same examples many times: the same policies
    distilled = few._replace(
        observations=jnp.tile(few.observations, (copies, 1)), targets=jnp.tile(few.targets, (copies, 1))
    )
    state = outer.start(problem, distilled, statistics_of(dataset))
    state = replicate(state)
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
