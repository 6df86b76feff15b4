"""Peak resident memory of evolution against the size of its population.

MinAtar Breakout, policies of width 512, one generation per process: neuroevolution (a candidate has 470 thousand
weights) and HaDES (16 examples). Adam steps and episodes are cut short, for memory does not depend on them.
"""

import resource
import subprocess
import sys

import jax
from _measure import Row

from floppy import recipe
from floppy.cloning import AdamSteps
from floppy.outer import HaDES
from floppy.recipes import neuroevolution_baseline
from floppy.run.config import DistillConfig

POPULATIONS = (256, 4096)
METHODS = ("neuroevolution", "hades")
WIDE = "width=512:activation=relu"


def rows(*, quick: bool) -> list[Row]:
    """A row per method and population."""
    del quick
    return [
        Row(f"Peak memory, {method}, population {population}", _peak(method, population), "MiB")
        for method in METHODS
        for population in POPULATIONS
    ]


def _peak(method: str, population: int) -> float:
    command = [sys.executable, __file__, method, str(population)]
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def config(method: str, population: int) -> DistillConfig:
    """One generation of a method at a population."""
    outer = HaDES(population=population, initialisations=1, environments=1, horizon=4, normalise_observations=True)
    if method == "neuroevolution":
        return neuroevolution_baseline("breakout", distribution=WIDE, outer=outer)
    cloning = AdamSteps(loss="cross-entropy", steps=2)
    return recipe("breakout", "hades", cloning=cloning, distribution=WIDE, outer=outer)


def one_generation(method: str, population: int) -> float:
    """Peak resident memory in MiB of this process after one generation."""
    settings = config(method, population)
    problem, outer, key = settings.problem(), settings.outer, jax.random.key(0)
    state = jax.jit(outer.init, static_argnums=0)(problem, key)
    jax.block_until_ready(jax.jit(outer.step, static_argnums=0)(problem, state, key))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    print(one_generation(sys.argv[1], int(sys.argv[2])))
