"""Play: steps per second of policies, beside those of the environments alone."""

import os
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
from _measure import Row, fastest, rate, timed
from gymnasium.vector.utils import batch_space
from mujoco import rollout

from floppy import LearnerDistribution, list_tasks, make_task
from floppy.play import open_arena
from floppy.play.device import ON_DEVICE
from floppy.tasks.base import Task

ON_DEVICE_TASKS = {
    "cart-pole": ("ndcartpole/1", 100),
    "MinAtar Breakout": ("breakout", 100),
    "Brax hopper": ("hopper", 20),
}
ON_HOST_TASKS = {"Gymnasium CartPole": "gymnasium/CartPole-v1", "MuJoCo Hopper": "gymnasium/Hopper-v5"}
LEARNERS, ENVIRONMENTS = 16, 4
COPIES = LEARNERS * ENVIRONMENTS
ALONE = "the environments alone"


def rows(*, quick: bool) -> list[Row]:
    """A row per task."""
    device = {name: each for name, each in ON_DEVICE_TASKS.items() if not (quick and name.startswith("Brax"))}
    return [
        *(_on_device(name, make_task(task), steps) for name, (task, steps) in device.items()),
        *(_on_host(name, make_task(task)) for name, task in ON_HOST_TASKS.items()),
        *([] if quick else _vector_environments()),
    ]


def _policies(task: Task) -> tuple[Any, Any]:
    network = LearnerDistribution().bind(task.observation_shape, task.actions)
    return network, jax.jit(jax.vmap(network.init))(jax.random.split(jax.random.key(0), LEARNERS))


def _on_device(name: str, task: Any, steps: int) -> Row:
    network, weights = _policies(task)
    key = jax.random.key(0)
    environments = jax.jit(lambda: ON_DEVICE.start_environments(task, key, LEARNERS, ENVIRONMENTS))()
    with_policies = jax.jit(lambda e: ON_DEVICE.collect(task, network, weights, e, key, steps=steps)[0])
    step_all, reset_all = jax.vmap(jax.vmap(task.step)), jax.vmap(jax.vmap(task.reset))

    def alone(states: Any) -> Any:
        """As `collect` steps: where an episode ends the next one starts."""

        def step(states: Any, key: jax.Array) -> tuple[Any, jax.Array]:
            keys = jax.random.split(key, (LEARNERS, ENVIRONMENTS))
            actions = task.actions.random(key, (LEARNERS, ENVIRONMENTS))
            following = step_all(keys, states, actions)
            ended = following.terminated | following.truncated
            fresh, _ = reset_all(keys)
            chosen = jax.tree.map(lambda new, old: _where(ended, new, old), fresh, following.state)
            return chosen, jnp.sum(following.observation) + jnp.sum(following.reward)

        return jax.lax.scan(step, states, jax.random.split(key, steps))

    count = steps * LEARNERS * ENVIRONMENTS
    bare = count / fastest(jax.jit(alone), environments.states)
    return rate(f"Play, {name}", count / fastest(with_policies, environments), "steps", bare, ALONE)


def _where(condition: jax.Array, yes: jax.Array, no: jax.Array) -> jax.Array:
    return jnp.where(condition.reshape(condition.shape + (1,) * (yes.ndim - condition.ndim)), yes, no)


def _on_host(name: str, task: Any) -> Row:
    network, weights = _policies(task)
    key, steps, count = jax.random.key(0), 100, LEARNERS * ENVIRONMENTS
    with open_arena(task) as arena:
        environments = arena.start_environments(task, key, LEARNERS, ENVIRONMENTS)

        def play() -> Any:
            return arena.collect(task, network, weights, environments, key, steps=steps)[1].rewards

        play()
        seconds = min(timed(play) for _ in range(3))
    vector = task.make_vector(count, training=False)
    bare = _steps_of(vector, steps)
    vector.close()
    return rate(f"Play, {name}", steps * count / seconds, "steps", bare, ALONE)


def _steps_of(vector: Any, steps: int) -> float:
    """Steps per second with random actions."""
    vector.reset(seed=list(range(vector.num_envs)))
    vector.action_space.seed(0)
    actions = [vector.action_space.sample() for _ in range(steps)]

    def play() -> None:
        for action in actions:
            vector.step(action)

    play()
    return steps * vector.num_envs / min(timed(play) for _ in range(3))


def _vector_environments() -> list[Row]:
    """Gymnasium's two vector environments, MuJoCo's threads and, where it is installed, EnvPool."""
    found = []
    for name in ("CartPole-v1", "Hopper-v5", "HalfCheetah-v5", "Humanoid-v5"):
        for mode in ("sync", "async"):
            vector = gymnasium.make_vec(name, num_envs=COPIES, vectorization_mode=mode)
            found.append(rate(f"Vector environments, {name}, {mode}", _steps_of(vector, 100), "steps"))
            vector.close()
        if f"envpool/{name}" in list_tasks():
            vector = make_task(f"envpool/{name}").make_vector(COPIES, training=False)
            vector.action_space = batch_space(vector.single_action_space, COPIES)
            found.append(rate(f"Vector environments, {name}, EnvPool", _steps_of(vector, 100), "steps"))
            vector.close()
        if name != "CartPole-v1":
            told = f"Vector environments, {name}, MuJoCo's threaded rollout (no observations, rewards or resets)"
            found.append(rate(told, _threaded_rollout(name, 100), "steps"))
    return found


def _threaded_rollout(name: str, steps: int) -> float:
    """Steps per second of `COPIES` robots by `mujoco.rollout`, one call a step, as policies ask for."""
    robot: Any = gymnasium.make(name).unwrapped
    model, skip, threads = robot.model, robot.frame_skip, os.cpu_count() or 1
    full = mujoco.mjtState.mjSTATE_FULLPHYSICS
    robot.reset(seed=0)
    first = np.empty(mujoco.mj_stateSize(model, full))
    mujoco.mj_getState(model, robot.data, first, full)
    space = batch_space(robot.action_space, COPIES)
    space.seed(0)
    actions = [space.sample() for _ in range(steps)]
    data = [mujoco.MjData(model) for _ in range(threads)]
    with rollout.Rollout(nthread=threads) as pool:

        def play() -> None:
            states = np.tile(first, (COPIES, 1))
            for action in actions:
                control = np.repeat(action[:, None], skip, axis=1)
                states = pool.rollout([model] * COPIES, data, states, control)[0][:, -1]

        play()
        return steps * COPIES / min(timed(play) for _ in range(3))
