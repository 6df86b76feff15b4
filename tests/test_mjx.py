"""MJX tasks beside Gymnasium's v5 environments: starts, steps, noise; names, and an upstream that stays quiet."""

import functools
import importlib.util
import sys
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import assert_is_silent, task_refusal
from scipy.stats import kurtosis

from floppy.cli.main import main
from floppy.errors import FloppyError
from floppy.tasks import Continuous, JaxTask, check_task, make_task
from floppy.tasks.base import Profile, profile_of
from floppy.tasks.descriptions import description_of
from floppy.tasks.mjx import ROBOTS, MjxState, MjxTask, _turned, make_model
from floppy.tasks.registry import picture_by_name

if importlib.util.find_spec("mujoco") is None or importlib.util.find_spec("mujoco.mjx") is None:
    pytest.skip("MJX is an optional dependency: pip install 'floppy-rl[mjx]'", allow_module_level=True)

import mujoco

KEY = jax.random.key(0)
STEPS = 100
SIZES = {
    "ant": (105, 8),
    "halfcheetah": (17, 6),
    "hopper": (11, 3),
    "humanoid": (348, 17),
    "humanoidstandup": (348, 17),
    "inverted_double_pendulum": (9, 1),
    "reacher": (10, 2),
    "walker2d": (17, 6),
}
"""Observation and action sizes."""
FALLING = ("hopper", "humanoid", "inverted_double_pendulum", "walker2d")
"""What falls within `STEPS` under random actions."""
QUICK = ("inverted_double_pendulum", "hopper")
"""Quick enough to compile: without contacts, and with."""

pytestmark = pytest.mark.slow


@functools.cache
def started(name: str) -> Any:
    return jax.jit(MjxTask(name).started)


@functools.cache
def stepped(name: str) -> Any:
    return jax.jit(functools.partial(MjxTask(name).step, KEY))


def original(name: str) -> Any:
    mujoco.set_mju_user_warning(lambda _: None)  # of HalfCheetah's model it would warn in a file
    try:
        return gymnasium.make(ROBOTS[name].gymnasium_id, disable_env_checker=True)
    finally:
        mujoco.set_mju_user_warning(None)


def place(name: str, environment: Any) -> float:
    """Where Gymnasium sees the robot, whose speed it is that earns."""
    model, data = environment.unwrapped.model, environment.unwrapped.data
    if name == "humanoid":
        return float(model.body_mass @ data.xipos[:, 0] / model.body_mass.sum())
    return float(data.xpos[1, 0] if name == "ant" else data.qpos[0])


def state_of(name: str, environment: Any, steps: int = 0) -> MjxState:
    """The state in which Gymnasium's environment is."""
    data = environment.unwrapped.data
    numbers = data.qpos, data.qvel, data.qacc_warmstart, place(name, environment)
    return MjxState(*(jnp.asarray(np.array(number), jnp.float32) for number in numbers), jnp.asarray(steps, jnp.int32))


def error(got: Any, wanted: Any) -> np.ndarray:
    """Relative for large numbers, absolute for small ones."""
    return np.abs(np.asarray(got) - wanted) / (1 + np.abs(wanted))


# --- beside Gymnasium ---


@pytest.mark.thorough(all_but=QUICK)
@pytest.mark.parametrize("name", ROBOTS)
def test_a_start_is_gymnasiums(name: str) -> None:
    environment = original(name)
    wanted, _ = environment.reset(seed=0)
    data = environment.unwrapped.data
    state, observation = started(name)(*(jnp.asarray(np.array(each), jnp.float32) for each in (data.qpos, data.qvel)))
    assert error(observation, wanted).max() < 1e-5
    for got, there in zip(state, state_of(name, environment), strict=True):
        np.testing.assert_allclose(got, there, rtol=1e-5, atol=1e-5)


@pytest.mark.thorough(all_but=QUICK)
@pytest.mark.parametrize("name", ROBOTS)
def test_steps_are_gymnasiums(name: str) -> None:
    """Each from Gymnasium's state: over many steps rounding errors at contacts would grow."""
    environment, random = original(name), np.random.default_rng(0)
    environment.reset(seed=0)
    space, ends, errors, rewards = environment.action_space, 0, [], []
    for _ in range(STEPS):
        state = state_of(name, environment)
        action = random.uniform(space.low, space.high).astype(np.float32)
        wanted, wanted_reward, wanted_terminated, _, _ = environment.step(action)
        following, observation, reward, terminated, truncated = stepped(name)(state, jnp.asarray(action))
        errors.append(error(observation, wanted).max())
        rewards.append(error(reward, wanted_reward))
        assert (bool(terminated), bool(truncated), int(following.steps)) == (wanted_terminated, False, 1)
        if wanted_terminated:
            ends += 1
            environment.reset()
    assert ends or name not in FALLING
    assert np.max(rewards) < 1e-3
    assert np.quantile(errors, 0.9) < 1e-3
    assert np.max(errors) < 0.05  # forces at contacts, by iterations that end elsewhere in float32


@pytest.mark.parametrize("name", ROBOTS)
def test_starts_are_as_random_as_gymnasiums(name: str) -> None:
    environment = original(name)
    wanted = []
    for seed in range(300):
        environment.reset(seed=seed)
        wanted.append(np.concatenate([environment.unwrapped.data.qpos, environment.unwrapped.data.qvel]))
    noise, start = ROBOTS[name].noise, make_model(name).start
    got = np.concatenate(jax.vmap(lambda key: noise(key, *start))(jax.random.split(KEY, 300)), axis=1)
    spread = np.std(wanted, axis=0)
    moving = spread > 1e-6
    np.testing.assert_allclose(got.std(0), spread, rtol=0.2, atol=1e-6)
    np.testing.assert_array_less(np.abs(got.mean(0) - np.mean(wanted, axis=0)), 0.4 * spread + 1e-6)
    # -1.2 for uniform noise, 0 for normal one.
    shapes = [np.median(kurtosis(each[:, moving][:, -2:], axis=0)) for each in (got, np.asarray(wanted))]
    assert abs(shapes[0] - shapes[1]) < 0.5


def test_reachers_target_is_within_reach() -> None:
    start = make_model("reacher").start
    qpos, qvel = jax.vmap(lambda key: ROBOTS["reacher"].noise(key, *start))(jax.random.split(KEY, 1000))
    distance = np.linalg.norm(qpos[:, 2:], axis=1)
    assert 0.199 < distance.max() <= 0.2
    assert abs((distance < 0.1).mean() - 0.25) < 0.05, "uniform on a disc"
    assert not np.any(qvel[:, 2:])


def test_friction_acts_along_and_across_a_capsule() -> None:
    frame = jnp.broadcast_to(jnp.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]), (3, 3, 3))
    axes = jnp.array([[0.0, 0.1, 0.99], [0.6, 0.0, 0.8], [0.0, 0.0, 1.0]])
    turned = np.asarray(_turned(frame, axes))
    np.testing.assert_allclose(turned[:, 1], [[0, 1, 0], [1, 0, 0], [0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(turned @ turned.swapaxes(1, 2), np.broadcast_to(np.eye(3), (3, 3, 3)), atol=1e-6)
    np.testing.assert_allclose(np.linalg.det(turned), 1, atol=1e-6)


def test_mjxs_own_table_of_colliders_stays() -> None:
    from mujoco.mjx._src.collision_driver import _COLLISION_FUNC

    before = dict(_COLLISION_FUNC)
    jax.eval_shape(make_task("mjx/hopper").reset, KEY)
    assert before == _COLLISION_FUNC


# --- the contract ---


@pytest.mark.parametrize("name", ROBOTS)
def test_a_task_says_what_gymnasium_says(name: str) -> None:
    task, environment = make_task(f"mjx/{name}"), original(name)
    size, action_size = SIZES[name]
    low, high = (tuple(map(float, bound)) for bound in (environment.action_space.low, environment.action_space.high))
    assert isinstance(task, JaxTask)
    assert task.task_id == f"mjx/{name}"
    assert task.observation_shape == environment.observation_space.shape == (size,)
    assert task.actions == Continuous(action_size, low, high)
    assert (task.max_steps, task.max_return, task.package) == (50 if name == "reacher" else 1000, None, "mujoco-mjx")
    assert profile_of(task) == Profile("continuous", is_slow=True)
    assert task == make_task(task.task_id)


@pytest.mark.thorough
@pytest.mark.parametrize("name", sorted(set(ROBOTS) - {"humanoidstandup"}))  # which takes many minutes on a CPU
def test_tasks_fulfil_the_contract(name: str) -> None:
    check_task(make_task(f"mjx/{name}"))


def test_loops_can_carry_the_state() -> None:
    task = MjxTask("inverted_double_pendulum")
    state, observation = jax.eval_shape(task.reset, KEY)
    after = jax.eval_shape(task.step, KEY, state, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert observation.shape == after.observation.shape == task.observation_shape
    assert observation.dtype == after.observation.dtype == after.reward.dtype == jnp.float32
    for before, later in zip(state, after.state, strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (later.shape, later.dtype, later.weak_type)
        assert not before.weak_type


@pytest.mark.parametrize("name", QUICK)
def test_the_time_limit_truncates(name: str) -> None:
    environment = original(name)
    environment.reset(seed=0)
    action = jnp.zeros(SIZES[name][1])
    for steps, wanted in ((998, False), (999, True)):
        after = stepped(name)(state_of(name, environment, steps), action)
        assert (bool(after.truncated), bool(after.terminated)) == (wanted, False)


@pytest.mark.parametrize("name", ROBOTS)
def test_bodies_are_drawn_and_described(name: str) -> None:
    picture = picture_by_name(f"mjx/{name}")
    assert picture is not None
    assert picture == make_task(f"mjx/{name}").picture
    assert picture.body is not None
    assert (picture.body.package, picture.body.size) == ("gymnasium", SIZES[name][0])
    assert description_of(make_task(f"mjx/{name}"))


@pytest.mark.thorough
def test_a_pendulum_is_distilled(tmp_path: Path) -> None:
    words = (
        "distill mjx/inverted_double_pendulum --budget 2steps --examples 2 --learners 2 --environments 2 --horizon 4"
    )
    few = "--minibatch-size 8 --selection-learners 2 --score-learners 2 --score-episodes 1"
    assert main([*words.split(), *few.split(), "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run/dataset.safetensors").exists()


# --- names and packages ---


@pytest.mark.parametrize(("name", "offer"), [("mjx/hoper", "mjx/hopper"), ("mjx/Hopper-v5", "mjx/hopper")])
def test_a_wrong_name_gets_the_nearest_one(name: str, offer: str) -> None:
    assert task_refusal(name) == f"There is no task '{name}': did you mean {offer}? `floppy tasks` lists them all."


def test_the_class_refuses_unknown_names() -> None:
    with pytest.raises(FloppyError, match=r"^MJX has no robot pusher here: choose from ant, .*walker2d\.$"):
        MjxTask("pusher")


@pytest.mark.parametrize("missing", ["mujoco", "mujoco.mjx", "gymnasium"])
def test_without_mjx_the_message_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(FloppyError) as caught:
        make_model.__wrapped__("hopper")  # not from the cache
    message = str(caught.value)
    assert message.startswith("Tasks mjx/... need Gymnasium, MuJoCo and MJX (")
    assert message.endswith("): pip install 'floppy-rl[mjx]'.")


def test_another_version_of_mjx_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from mujoco.mjx._src import collision_driver

    monkeypatch.delattr(collision_driver, "_COLLISION_FUNC")
    with pytest.raises(FloppyError, match=r"^Tasks mjx/\.\.\. need another version of MJX \(.*\): pip install .*\.$"):
        make_model.__wrapped__("hopper")  # not from the cache


@pytest.mark.thorough
def test_mjx_prints_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import jax, warnings; warnings.simplefilter('error')\n"
        "from floppy.tasks import make_task\n"
        "for name in ('halfcheetah', 'reacher'):  # MuJoCo warns about the first\n"
        "    task = make_task('mjx/' + name)\n"
        "    state, _ = jax.eval_shape(task.reset, jax.random.key(0))\n"
        "    jax.eval_shape(task.step, jax.random.key(0), state, jax.numpy.zeros(task.actions.size))\n"
    )
    assert_is_silent(program, tmp_path)
