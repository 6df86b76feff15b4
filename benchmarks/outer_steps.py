"""Outer steps per second at the PPMO paper's setting, where the time goes, and the time to a mean of 475.

10 environments x 200 steps, 4 epochs, minibatches of 512, 2 examples, one learner per outer step: the setting at which
the published code does 2.5 steps per second on two cores. Run on an idle machine: `python benchmarks/outer_steps.py`.
"""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp

from floppy import distill, recipe
from floppy.cloning import clone
from floppy.outer.ppmo.loop import PPMOState
from floppy.play.device import collect

STEPS = 100
REPEATS = 5
GOAL = 475.0


def fastest(function: Callable[..., object], *arguments: object) -> float:
    """Seconds of the fastest of several calls, compilation left out."""
    compiled = jax.jit(function)
    jax.block_until_ready(compiled(*arguments))
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        jax.block_until_ready(compiled(*arguments))
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def paper_setting() -> None:
    """Steps per second, and the parts measured one by one."""
    config = recipe("ndcartpole/1", "ppmo-paper")
    problem, outer = config.problem(), config.outer
    key = jax.random.key(0)
    state = jax.jit(lambda: outer.init(problem, key))()

    def many(state: PPMOState) -> object:
        return jax.lax.scan(lambda s, i: outer.step(problem, s, jax.random.fold_in(key, i)), state, jnp.arange(STEPS))

    total = fastest(many, state) / STEPS
    print(f"{1 / total:.1f} outer steps per second ({1e3 * total:.2f} ms each); published code on two cores: 2.5")

    (network,) = problem.networks
    fresh = jax.jit(jax.vmap(network.init))(jax.random.split(key, 1))
    cloned = jax.jit(jax.vmap(lambda w: clone(config.cloning, network, state.distilled, w)))(fresh)

    def repeated(part: Callable[[jax.Array], object]) -> float:
        """Seconds of one `part`, measured within a compiled loop as it stands in the outer step."""

        def loop(keys: jax.Array) -> object:
            return jax.lax.scan(lambda carry, k: (carry, part(k)), 0, keys)[1]

        return fastest(loop, jax.random.split(key, STEPS)) / STEPS

    drawing = repeated(lambda k: network.init(k))
    collecting = repeated(
        lambda k: collect(problem.task, network, cloned, state.environments[0], k, steps=outer.horizon)[0]
    )
    parts = {
        "drawing the learner": drawing,
        "collecting": collecting,
        "updates and the rest": total - drawing - collecting,
    }
    for name, seconds in parts.items():
        print(f"  {name:<22}{1e3 * seconds:7.2f} ms {seconds / total:6.0%}")


def default_recipe() -> None:
    """Wall-clock time from the start of a run, compilation included, to a selection score of 475."""
    started = time.perf_counter()
    reached: list[tuple[int, float]] = []

    def progress(done: int, _: int, figures: dict[str, float]) -> None:
        if figures["score"] >= GOAL and not reached:
            reached.append((done, time.perf_counter() - started))

    distill(recipe("ndcartpole/1"), progress=progress)
    if reached:
        print(f"ndcartpole/1, default recipe: mean >= {GOAL:.0f} after {reached[0][0]} steps, {reached[0][1]:.1f} s")
    else:
        print(f"ndcartpole/1, default recipe: mean {GOAL:.0f} was not reached")


if __name__ == "__main__":
    print(f"{jax.devices()[0].platform}, {len(jax.devices())} device(s)")
    paper_setting()
    default_recipe()
