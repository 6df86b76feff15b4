"""PPMO: outer steps and environment steps per second, and where the time of an outer step goes."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from _measure import Row, ceiling, per_loop, product_flops, rate, timed

from floppy import list_tasks, recipe
from floppy.outer.ppmo.loop import PPMOState
from floppy.play import open_arena
from floppy.run.config import DistillConfig

JAX_TASKS = {
    "cart-pole, the paper's setting": ("ndcartpole/1", "ppmo-paper", 100),
    "cart-pole, default recipe": ("ndcartpole/1", "ppmo", 30),
    "MinAtar Breakout": ("breakout", "ppmo", 4),
    "Brax hopper": ("hopper", "ppmo", 2),
}
HOST_TASKS = {
    "MuJoCo Hopper": ("gymnasium/Hopper-v5", 3),
    "MuJoCo Hopper by EnvPool": ("envpool/Hopper-v5", 3),
    "Atari Centipede": ("ale/centipede", 2),
}
PRODUCTS = "matrix products"


def rows(*, quick: bool) -> list[Row]:
    """A pair of rows per task, and the parts of the paper's setting."""
    peak, found = ceiling(), []
    for name, (task, method, steps) in JAX_TASKS.items():
        if not (quick and name.startswith("Brax")):
            found += _on_device(name, recipe(task, method), steps, peak)
    found += _parts(recipe("ndcartpole/1", "ppmo-paper"))
    for name, (task, steps) in HOST_TASKS.items():
        if not (quick and name.startswith("Atari")) and task in list_tasks():
            found += _on_host(name, recipe(task), steps, peak)
    return found


def _pair(name: str, config: DistillConfig, seconds: float, floor_seconds: float) -> list[Row]:
    outer: Any = config.outer
    steps = outer.learners * outer.environments * outer.horizon
    return [
        rate(f"PPMO, {name}", 1 / seconds, "outer steps", 1 / floor_seconds, PRODUCTS),
        rate(f"PPMO, {name}", steps / seconds, "environment steps", steps / floor_seconds, PRODUCTS),
    ]


def _on_device(name: str, config: DistillConfig, steps: int, peak: float) -> list[Row]:
    step, state = _outer_step(config)
    flops = product_flops(step, state, jnp.zeros((), int))
    return _pair(name, config, per_loop(step, state, steps), flops / peak)


def outer_steps(config: DistillConfig, count: int) -> Callable[[], float]:
    """What takes so many outer steps on a JAX task, compiled already, and says how many seconds one took."""
    step, state = _outer_step(config)
    loop = jax.jit(lambda s: jax.lax.scan(lambda s, index: (step(s, index), None), s, jnp.arange(count))[0])
    jax.block_until_ready(loop(state))
    return lambda: timed(loop, state) / count


def _outer_step(config: DistillConfig) -> tuple[Callable[[PPMOState, jax.Array], PPMOState], PPMOState]:
    """What takes an outer step, and the state that it begins with."""
    problem, outer = config.problem(), config.outer
    key = jax.random.key(0)

    def step(state: PPMOState, index: jax.Array) -> PPMOState:
        following: PPMOState = outer.step(problem, state, jax.random.fold_in(key, index))[0]
        return following

    return step, jax.jit(lambda: outer.init(problem, key))()


def _on_host(name: str, config: DistillConfig, steps: int, peak: float) -> list[Row]:
    problem, outer = config.problem(), config.outer
    key = jax.random.key(0)
    with open_arena(problem.task) as arena:
        state = outer.init(problem, key, arena)
        fresh, cloned = jax.jit(lambda s: outer._draw(problem, s.distilled, key))(state)
        state, _ = outer.step(problem, state, key, arena)
        before, trajectory = arena.collect(
            problem.task, problem.networks[0], cloned[0], state.environments[0], key, steps=outer.horizon
        )

        def go_on() -> Any:
            following = state._replace(environments=(before,))
            for index in range(steps):
                following, _ = outer.step(problem, following, jax.random.fold_in(key, index), arena)
            return following.distilled

        go_on()
        seconds = min(timed(go_on) for _ in range(2)) / steps
    log_stds = tuple(weights.log_std for weights in cloned)
    flops = product_flops(lambda s: outer._improve(problem, s, fresh, log_stds, (trajectory,), key), state)
    played = product_flops(
        lambda w, o: jax.vmap(problem.networks[0].apply)(w, o),
        cloned[0],
        jnp.zeros((outer.learners, outer.environments * outer.horizon, *problem.task.observation_shape)),
    )
    return _pair(name, config, seconds, (flops + played) / peak)


def _parts(config: DistillConfig) -> list[Row]:
    """The parts of an outer step, each in a loop of its own in which nothing can be computed once for all."""
    problem, outer = config.problem(), config.outer
    key, network = jax.random.key(0), problem.networks[0]
    state = jax.jit(lambda: outer.init(problem, key))()
    fresh, cloned = jax.jit(lambda: outer._draw(problem, state.distilled, key))()
    play = {"steps": outer.horizon, "statistics": None}

    def draw(total: jax.Array, index: jax.Array) -> jax.Array:
        return total + sum(jnp.sum(leaf) for leaf in jax.tree.leaves(network.init(jax.random.fold_in(key, index))))

    def collect(environments: Any, index: jax.Array) -> Any:
        where = jax.random.fold_in(key, index)
        return _arena().collect(problem.task, network, cloned[0], environments, where, **play)[0]

    environments, trajectory = jax.jit(
        lambda: _arena().collect(problem.task, network, cloned[0], state.environments[0], key, **play)
    )()
    log_stds = tuple(weights.log_std for weights in cloned)

    def improve(state: PPMOState, index: jax.Array) -> PPMOState:
        where = jax.random.fold_in(key, index)
        following: PPMOState = outer._improve(problem, state, fresh, log_stds, (trajectory,), where)[0]
        return following

    seconds = {
        "drawing a learner": per_loop(draw, jnp.zeros(()), 100),
        "collecting": per_loop(collect, environments, 100),
        "improving": per_loop(improve, state, 100),
    }
    return [Row(f"PPMO, cart-pole, the paper's setting: {name}", 1e3 * each, "ms") for name, each in seconds.items()]


def _arena() -> Any:
    from floppy.play.device import ON_DEVICE

    return ON_DEVICE
