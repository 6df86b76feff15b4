"""Peak resident memory of evolution against population size: `python benchmarks/memory.py`.

MinAtar Breakout, policies of width 512, one generation per process: neuroevolution (a candidate has 470 thousand
weights) and HaDES (16 examples). Adam steps and episodes are cut short, for memory does not depend on them.
"""

import resource
import subprocess
import sys

import jax

from floppy import recipe
from floppy.cloning import AdamSteps
from floppy.outer import HaDES
from floppy.recipes import neuroevolution_baseline
from floppy.run.config import DistillConfig

POPULATIONS = (256, 4096)
WIDE = "width=512:activation=relu"


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
    if len(sys.argv) == 3:
        print(one_generation(sys.argv[1], int(sys.argv[2])))
        sys.exit()
    for method in ("neuroevolution", "hades"):
        peaks = []
        for population in POPULATIONS:
            command = [sys.executable, __file__, method, str(population)]
            peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(f"{method}, population {population}: {peaks[-1]:.0f} MiB", flush=True)
        print(f"{method}: {100 * (peaks[-1] / peaks[0] - 1):+.1f}% from {POPULATIONS[0]} to {POPULATIONS[-1]}")
