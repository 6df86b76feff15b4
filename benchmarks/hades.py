"""HaDES: generations per second, on one CPU device and on two, each in a process of its own."""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from typing import Any

import jax
from _measure import Row, ceiling, product_flops, rate, timed

from floppy import recipe
from floppy.cloning import AdamSteps
from floppy.outer import HaDES
from floppy.parallel import replicate
from floppy.run.config import DistillConfig
from floppy.tasks.base import Transition
from floppy.tasks.brax import BraxState, BraxTask

GENERATIONS = 2
PRODUCTS = "matrix products"


@dataclasses.dataclass(frozen=True)
class Unending(BraxTask):
    """A Brax task of which only the time limit ends an episode: every candidate plays to the end."""

    def step(self, key: jax.Array, state: BraxState, action: jax.Array) -> Transition:
        """As Brax has it, but for the end."""
        return super().step(key, state, action)._replace(terminated=jax.numpy.zeros((), bool))


def hopper(width: int) -> DistillConfig:
    """With 32 candidates in place of the paper's 2048, and one learner; the paper's width is 512."""
    outer = HaDES(population=32, initialisations=1, environments=4, normalise_observations=True)
    cloning = AdamSteps(loss="gaussian-nll", steps=400, eps_root=0.0)
    return recipe("hopper", "hades-brax", outer=outer, cloning=cloning, distribution=f"width={width}")


def cart_pole(population: int) -> DistillConfig:
    """The default recipe with another population."""
    config = recipe("cartpole", "hades")
    outer: Any = config.outer
    return dataclasses.replace(config, outer=dataclasses.replace(outer, population=population))


CASES = {
    "cart-pole": lambda: recipe("cartpole", "hades"),
    "cart-pole, 256 candidates": lambda: cart_pole(256),  # 64 by default
    "MinAtar Breakout": lambda: recipe("breakout", "hades"),
    "Brax hopper, 32 candidates, width 64": lambda: hopper(64),
    "Brax hopper, 32 candidates, width 512": lambda: hopper(512),
}
QUICK = ("cart-pole",)


def rows(*, quick: bool) -> list[Row]:
    """A row per case and number of devices."""
    peak, found = ceiling(), []
    for name in QUICK if quick else CASES:
        for devices in (1, 2):
            told = in_process(name, devices)
            which = f"HaDES, {name}, {devices} device{'s' if devices > 1 else ''}"
            found.append(rate(which, 1 / told["seconds"], "generations", peak / told["flops"], PRODUCTS))
    return found


def in_process(name: str, devices: int, generations: int = GENERATIONS) -> dict[str, float]:
    """What `_generation` tells of a case, on so many CPU devices in a process of their own."""
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
    command = [sys.executable, "-W", "ignore", __file__, name, str(generations)]
    answer = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    told: dict[str, float] = json.loads(answer)
    return told


def _generation(name: str, generations: int) -> dict[str, float]:
    """Seconds of the fastest of some generations, their mean, and the operations at the length of the episodes."""
    config = CASES[name]()
    problem, outer = config.problem(), config.outer
    if name.startswith("Brax"):
        problem = dataclasses.replace(problem, task=Unending("hopper"))
    key = jax.random.key(0)
    state = replicate(jax.jit(outer.init, static_argnums=0)(problem, key))
    step = jax.jit(outer.step, static_argnums=0)
    state, info = jax.block_until_ready(step(problem, state, key))
    started: list[float] = []
    for generation in range(generations):
        keys = jax.random.fold_in(key, generation)

        def one(state: Any = state, keys: jax.Array = keys) -> Any:
            return step(problem, state, keys)

        started.append(timed(one))
    length = float(info["episode_length"])
    one_device = product_flops(lambda s: outer.step(problem, s, key), state, trips=length)
    times = {"seconds": min(started), "mean": statistics.mean(started)}
    return times | {"flops": one_device * jax.device_count(), "length": length}


if __name__ == "__main__":
    print(json.dumps(_generation(sys.argv[1], int(sys.argv[2]))))
