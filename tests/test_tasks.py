"""Tasks: ND cart-pole against Gymnasium and a plain twin, every gymnax id, and the names of tasks."""

import importlib
import importlib.metadata
import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import PROBES, task_refusal

import floppy
from floppy.errors import FloppyError
from floppy.tasks import SHORT_NAMES, Continuous, Discrete, JaxTask, list_tasks, make_task
from floppy.tasks.lookup import import_module
from floppy.tasks.ndcartpole import CartPoleState, NDCartPole
from floppy.tasks.registry import FAMILIES, family_descriptions, full_task_id
from floppy.teach.codec import DISTRIBUTION

DIMENSIONS = (1, 2, 3, 7)
KEY = jax.random.key(0)
HAS_BRAX = importlib.util.find_spec("brax") is not None
NEEDS_BRAX = pytest.mark.skipif(not HAS_BRAX, reason="Brax is optional and not installed")

jitted_reset = jax.jit(lambda task, key: task.reset(key), static_argnums=0)
jitted_step = jax.jit(lambda task, key, state, action: task.step(key, state, action), static_argnums=0)


def balance(observation: np.ndarray) -> int:
    """A hand controller that keeps a one-dimensional cart-pole up."""
    position, velocity, angle, angular_velocity = observation
    return int(0.1 * position + 0.3 * velocity + 3.0 * angle + angular_velocity > 0)


def started_alike(seed: int) -> tuple[gymnasium.Env, CartPoleState]:
    """Gymnasium's CartPole-v1 and ndcartpole/1 in the same state."""
    environment = gymnasium.make("CartPole-v1", disable_env_checker=True)
    environment.reset(seed=seed)
    state, observation = jitted_reset(make_task("ndcartpole/1"), jax.random.key(seed))
    environment.unwrapped.state = np.asarray(observation, np.float64)
    return environment, state


# --- ND cart-pole ---


@pytest.mark.parametrize("seed", range(5))
def test_one_dimension_is_gymnasiums_cartpole(seed: int) -> None:
    task = make_task("ndcartpole/1")
    environment, state = started_alike(seed)
    random = np.random.default_rng(seed)
    for time in range(1, 501):
        action = int(random.integers(2))
        wanted, reward, wanted_terminated, _, _ = environment.step(action)
        state, observation, got_reward, terminated, truncated = jitted_step(task, KEY, state, jnp.asarray(action))
        np.testing.assert_allclose(observation, wanted, rtol=1e-4, atol=1e-5)
        assert (bool(terminated), float(got_reward), bool(truncated)) == (wanted_terminated, reward, False)
        assert int(state.time) == time
        if wanted_terminated:
            break
    assert wanted_terminated
    assert 5 < time < 200


def test_full_episode_is_truncated_where_gymnasiums_time_limit_is() -> None:
    task = make_task("ndcartpole/1")
    environment, state = started_alike(0)
    observation, wanted = (np.asarray(environment.unwrapped.state, np.float32),) * 2
    for time in range(1, 501):
        # Each under its own control: open loop, rounding errors would grow for ten seconds.
        wanted, _, wanted_terminated, wanted_truncated, _ = environment.step(balance(wanted))
        state, observation, reward, terminated, truncated = jitted_step(
            task, KEY, state, jnp.asarray(balance(np.asarray(observation)))
        )
        assert (bool(terminated), bool(truncated)) == (wanted_terminated, wanted_truncated) == (False, time == 500)
        assert float(reward) == 1.0
    assert task.max_steps == 500
    assert task.max_return == 500.0


def plain_physics(state: np.ndarray, force: float) -> np.ndarray:
    """One dimension by the equations of Florian (2007), frictionless, solved as a linear system: `[4]` to `[4]`."""
    gravity, cart, pole, half, tau = 9.8, 1.0, 0.1, 0.5, 0.02
    _, velocity, angle, spin = state
    # (M + m) x'' + m l cos(θ) θ'' = F + m l sin(θ) θ'²;  cos(θ) x'' + 4/3 l θ'' = g sin(θ)
    matrix = np.array([[cart + pole, pole * half * math.cos(angle)], [math.cos(angle), 4 / 3 * half]])
    right = np.array([force + pole * half * math.sin(angle) * spin**2, gravity * math.sin(angle)])
    acceleration, angular_acceleration = np.linalg.solve(matrix, right)
    return state + tau * np.array([velocity, acceleration, spin, angular_acceleration])


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_an_action_pushes_one_dimension_only(dimensions: int) -> None:
    task = NDCartPole(dimensions)
    physics = np.random.default_rng(0).uniform(-0.2, 0.2, (dimensions, 4))
    state = CartPoleState(jnp.asarray(physics, jnp.float32), jnp.zeros((), jnp.int32))
    for action in range(task.actions.size):
        force = np.zeros(dimensions)
        force[action // 2] = 10.0 if action % 2 else -10.0
        wanted = np.stack([plain_physics(row, f) for row, f in zip(physics, force, strict=True)])
        after = jitted_step(task, KEY, state, jnp.asarray(action))
        np.testing.assert_allclose(after.state.physics, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(after.observation, np.asarray(after.state.physics).ravel())
        np.testing.assert_allclose(after.observation[4 * (action // 2)], wanted[action // 2, 0], rtol=1e-5, atol=1e-6)


@pytest.mark.thorough(all_but=["1", "7"])
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_reset_is_uniform_within_the_start_range(dimensions: int) -> None:
    task = NDCartPole(dimensions)
    states, observations = jax.jit(jax.vmap(task.reset))(jax.random.split(KEY, 1000))
    assert observations.shape == (1000, 4 * dimensions) == (1000, *task.observation_shape)
    np.testing.assert_array_equal(np.asarray(states.physics).reshape(1000, -1), observations)
    assert np.abs(observations).max() <= 0.05
    np.testing.assert_allclose(observations.min(axis=0), -0.05, atol=0.002)
    np.testing.assert_allclose(observations.max(axis=0), 0.05, atol=0.002)
    np.testing.assert_allclose(observations.mean(axis=0), 0.0, atol=0.005)
    correlations = np.corrcoef(np.asarray(observations).T) - np.eye(4 * dimensions)
    assert np.abs(correlations).max() < 0.15
    assert not np.any(states.time)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
@pytest.mark.parametrize(("quantity", "limit"), [(0, 2.4), (2, math.radians(12))])
@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_any_dimension_ends_the_episode_by_position_or_angle(
    dimensions: int, quantity: int, limit: float, sign: float
) -> None:
    task = NDCartPole(dimensions)

    def terminated(dimension: int, value: float) -> bool:
        # Velocities are 0, so one step leaves position and angle where they are.
        physics = jnp.zeros((dimensions, 4)).at[dimension, quantity].set(value)
        state = CartPoleState(physics, jnp.zeros((), jnp.int32))
        return bool(jitted_step(task, KEY, state, jnp.asarray(0)).terminated)

    for dimension in range(dimensions):
        assert terminated(dimension, sign * (limit + 1e-4))
        assert not terminated(dimension, sign * (limit - 1e-4))


def test_velocities_never_end_the_episode() -> None:
    state = CartPoleState(jnp.array([[0.0, 50.0, 0.0, 5.0]]), jnp.zeros((), jnp.int32))
    assert not jitted_step(NDCartPole(1), KEY, state, jnp.asarray(1)).terminated


@pytest.mark.parametrize("dimensions", DIMENSIONS)
def test_nd_cartpole_describes_itself(dimensions: int) -> None:
    task = make_task(f"ndcartpole/{dimensions}")
    assert task == NDCartPole(dimensions)
    assert task.task_id == f"ndcartpole/{dimensions}"
    assert task.actions == Discrete(2 * dimensions)
    assert task.package == "floppy"


# --- gymnax ---


def gymnax_ids() -> list[Any]:
    quick = ("CartPole-v1", "Pendulum-v1", "Breakout-MinAtar", "MNISTBandit-bsuite")
    skip = pytest.mark.skip(reason="gymnax downloads its data when it is made")
    marks = {
        name: [*([skip] if "MNIST" in name else []), *([] if name in quick else [pytest.mark.slow])]
        for name in gymnax.registered_envs
    }
    return [pytest.param(name, marks=marks[name]) for name in marks]


@pytest.mark.thorough(
    all_but=[
        "CartPole-v1",
        "Pendulum-v1",
        "SpaceInvaders-MinAtar",
        "Catch-bsuite",
    ]
)
@pytest.mark.slow
@pytest.mark.parametrize("name", gymnax_ids())
def test_every_gymnax_id_fulfils_the_contract(name: str) -> None:
    task = make_task(f"gymnax/{name}")
    copies = 2
    types = {}

    def play(key: jax.Array) -> Any:
        state, observation = task.reset(key)
        types["reset"] = jax.tree.map(jax.typeof, state)

        def step(state: Any, key: jax.Array) -> Any:
            transition = task.step(key, state, task.actions.random(key, ()))
            types["step"] = jax.tree.map(jax.typeof, transition.state)
            return transition.state, transition

        return observation, jax.lax.scan(step, state, jax.random.split(key, 3))[1]

    quick = jax.jit(jax.vmap(play))
    first, transitions = quick(jax.random.split(KEY, copies))
    # Equal states, weak types included: else a compiled step is traced twice.
    assert types["reset"] == types["step"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(types["reset"]))
    assert isinstance(task, JaxTask)
    assert (task.task_id, task.package) == (f"gymnax/{name}", "gymnax")
    assert isinstance(task.max_steps, int)
    assert task.max_steps >= 3
    assert first.shape == (copies, *task.observation_shape)
    assert transitions.observation.shape == (copies, 3, *task.observation_shape)
    assert first.dtype == transitions.observation.dtype == transitions.reward.dtype == jnp.float32
    assert transitions.terminated.dtype == transitions.truncated.dtype == bool
    for entry in (transitions.reward, transitions.terminated, transitions.truncated):
        assert entry.shape == (copies, 3)
        assert np.isfinite(entry).all()
    assert np.isfinite(first).all()
    assert np.isfinite(transitions.observation).all()
    if isinstance(task.actions, Continuous):
        assert len(task.actions.low) == len(task.actions.high) == task.actions.size
        assert all(low < high for low, high in zip(task.actions.low, task.actions.high, strict=True))


@pytest.mark.thorough(all_but=["CartPole-v1", "Pendulum-v1"])
@pytest.mark.slow
@pytest.mark.parametrize("name", ["CartPole-v1", "Breakout-MinAtar", "Pendulum-v1"])
def test_gymnax_transitions_are_gymnaxs_own_and_nothing_resets(name: str) -> None:
    task = make_task(f"gymnax/{name}")
    environment, parameters = gymnax.make(name)
    step = jax.jit(environment.step_env)
    wanted, wanted_state = environment.reset_env(KEY, parameters)
    state, observation = jitted_reset(task, KEY)
    np.testing.assert_allclose(observation, wanted, rtol=1e-6)
    ends = []
    for time in range(1, 61):
        key = jax.random.fold_in(KEY, time)
        action = task.actions.random(key, ())
        wanted, wanted_state, reward, wanted_terminated, _ = step(
            key, wanted_state, action if isinstance(task.actions, Discrete) else action[0], parameters
        )
        state, observation, got_reward, terminated, truncated = jitted_step(task, key, state, action)
        # The steps after the first end would differ if anything reset.
        np.testing.assert_allclose(observation, wanted, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(got_reward, reward, rtol=1e-5)
        assert bool(terminated) == bool(wanted_terminated)
        assert not truncated
        assert int(state.time) == time
        ends.append(bool(terminated))
    assert any(ends[:-5]) == (name != "Pendulum-v1")


@pytest.mark.parametrize(("name", "limit"), [("Pendulum-v1", 200), ("Breakout-MinAtar", 1000)])
def test_gymnaxs_time_limit_is_truncation(name: str, limit: int) -> None:
    task = make_task(f"gymnax/{name}")
    state, _ = jitted_reset(task, KEY)
    action = task.actions.random(KEY, ())
    for time, ended in ((limit - 2, False), (limit - 1, True)):
        late = state.replace(time=jnp.asarray(time, jnp.int32))
        transition = jitted_step(task, KEY, late, action)
        assert bool(transition.truncated) is ended
        assert not transition.terminated
    assert task.max_steps == limit


def test_arguments_change_gymnaxs_parameters() -> None:
    task = make_task("gymnax/CartPole-v1?max_episode_steps=7&gravity=3")
    assert (task.task_id, task.max_steps) == ("gymnax/CartPole-v1?gravity=3&max_episode_steps=7", 7)
    environment, parameters = gymnax.make("CartPole-v1")
    state, observation = task.reset(KEY)
    moved = task.step(KEY, state, jnp.array(1))
    expected, *_ = environment.step_env(KEY, state, jnp.array(1), parameters.replace(gravity=3.0))
    np.testing.assert_allclose(moved.observation, expected, rtol=1e-6)
    usual = make_task("gymnax/CartPole-v1").step(KEY, state, jnp.array(1))
    assert not np.array_equal(moved.observation, usual.observation)
    assert observation.shape == (4,)


@pytest.mark.parametrize("name", ["MountainCar-v0", "Pendulum-v1"])
def test_sticky_actions_repeat_the_action_before(name: str) -> None:
    usual, sticky = (make_task(f"gymnax/{name}{end}") for end in ("", "?repeat_action_probability=0.25"))
    first = usual.actions.kind == "discrete"
    actions = [jnp.array(each, jnp.int32) if first else jnp.array([float(each)]) for each in (2, 0, 1)]
    state, _ = sticky.reset(KEY)
    before, repeated = jnp.zeros_like(actions[0]), []
    for index in range(120):
        action, key = actions[index % 3], jax.random.fold_in(KEY, index)
        moved = jax.jit(sticky.step)(key, state, action)
        steps = {
            taken: jax.jit(usual.step)(key, state.state, each) for taken, each in (("new", action), ("old", before))
        }
        taken = "old" if np.array_equal(moved.state.before, before) else "new"
        np.testing.assert_allclose(moved.observation, steps[taken].observation, rtol=1e-5, atol=1e-6)
        if not np.array_equal(action, before):
            repeated.append(taken == "old")
        state, before = moved.state, moved.state.before
    assert len(repeated) > 60
    assert 0.1 < np.mean(repeated) < 0.4


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("grav=3", "gymnax/CartPole-v1 has no parameter grav: give one of max_episode_steps, gravity, "),
        ("gravity=low", "gravity of gymnax/CartPole-v1 must be a number, got 'low'"),
        ("gravity=true", "gravity of gymnax/CartPole-v1 must be a number, got True"),
        ("max_episode_steps=0", "max_episode_steps must be a whole number from 1"),
        ("gravity=1e300", "gravity of gymnax/CartPole-v1 must be at least -2147483647 and at most 2147483647"),
        ("gravity=1" + 400 * "0", "gravity of gymnax/CartPole-v1 must be at least -2147483647"),
        ("max_steps_in_episode=9", "has no parameter max_steps_in_episode: give one of max_episode_steps, "),
        ("repeat_action_probability=false", "repeat_action_probability must be a number from 0 to below 1, got False"),
        ("repeat_action_probability=1", "repeat_action_probability must be a number from 0 to below 1, got 1"),
        (
            "repeat_action_probability=often",
            "repeat_action_probability must be a number from 0 to below 1, got 'often'",
        ),
    ],
)
def test_wrong_arguments_of_gymnax_are_refused(arguments: str, named: str) -> None:
    with pytest.raises(FloppyError, match=named):
        make_task(f"gymnax/CartPole-v1?{arguments}")


# --- names ---


WRONG_DIMENSIONS = ("ndcartpole/0", "ndcartpole/x", "ndcartpole/", "ndcartpole/-1", "ndcartpole/²", "ndcartpole/1.5")
WRONG_NAMES = ("gymnax/", "gymnax/cartpole-v1", "foo/bar", "ndcartpole/1/2", "", " ", "/", "new\nline")


@pytest.mark.parametrize("name", WRONG_DIMENSIONS + WRONG_NAMES)
def test_wrong_names_are_refused_in_one_line(name: str) -> None:
    message = task_refusal(name)
    assert repr(name.partition("/")[2])[1:-1] in message
    assert "ndcartpole/2" in message or "`floppy tasks` lists" in message


@pytest.mark.parametrize("wrong", [3, None, NDCartPole(1), ["cartpole"]])
@pytest.mark.parametrize("asked", [make_task, floppy.recipe, floppy.ppo_baseline, full_task_id])
def test_a_name_that_is_no_text_is_refused(asked: Callable[[Any], object], wrong: Any) -> None:
    with pytest.raises(FloppyError, match=r"^task must be an id .* as text, .*: of a task object give its task_id\.$"):
        asked(wrong)


@pytest.mark.parametrize("name", ["ndcartpole/" + "9" * 5000, "gymnax/" + "x" * 5000, "x" * 5000])
def test_very_long_names_are_refused_in_a_short_line(name: str) -> None:
    assert len(task_refusal(name)) < 300


@pytest.mark.parametrize(
    ("name", "nearest"),
    [
        ("cartpol", "cartpole"),
        ("Break-out", "breakout"),
        ("cartpole/1", "ndcartpole/1"),
        ("ndcartpole2", "ndcartpole/2"),
        ("gymnax/CartPol-v1", "gymnax/CartPole-v1"),
        ("gymnax/breakout-minatar", "gymnax/Breakout-MinAtar"),
        ("gymnax/Acrobot", "gymnax/Acrobot-v1"),
    ],
)
def test_a_wrong_name_offers_the_nearest(name: str, nearest: str) -> None:
    assert f"did you mean {nearest}?" in task_refusal(name)


FACTORY = {
    "exits": (lambda: sys.exit(3), "raised SystemExit: 3"),
    "raises": (lambda: float("abc"), "raised ValueError: could not convert"),
    "nothing": (lambda: None, "'NoneType' object has no attribute 'task_id'"),
}


@pytest.mark.parametrize("fault", FACTORY)
def test_a_factory_of_ones_own_that_fails_is_one_sentence(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(FAMILIES, "faulty", lambda rest: FACTORY[rest][0]())
    message = task_refusal(f"faulty/{fault}")
    assert message.startswith("What is registered as faulty raised ")
    assert FACTORY[fault][1] in message
    assert f"when asked for 'faulty/{fault}'" in message


@pytest.mark.parametrize("name", ["ndcartpole", "gymnax", "gymnax/", "ndcartpole/", "procgen/coinrun", "cart"])
def test_an_offered_name_is_a_task(name: str) -> None:
    _, _, offer = task_refusal(name).partition("did you mean ")
    if offer:
        make_task(offer.partition("?")[0])


def test_a_module_stays_in_what_is_offered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gymnasium")
    lines = "import gymnasium\ngymnasium.register('Greenhouse-v0', 'house:Greenhouse', max_episode_steps=3)\n"
    (tmp_path / "greenhouse_module.py").write_text(lines)
    monkeypatch.syspath_prepend(tmp_path)
    said = task_refusal("gymnasium/greenhouse_module:Greenhous-v0")
    assert "did you mean gymnasium/greenhouse_module:Greenhouse-v0?" in said


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("greenhouse:Greenhouse-v0", "gymnasium/MODULE:ID, here gymnasium/greenhouse:Greenhouse-v0."),
        ("Greenhouse-v0", "An environment of Gymnasium's is gymnasium/ID, in a module of yours gymnasium/MODULE:ID."),
        ("MyPackage/Greenhouse-v12?size=3", "An environment of Gymnasium's is gymnasium/ID"),
        ("mine/task", "--import MODULE brings tasks of your own."),
    ],
)
def test_what_an_id_lacks_is_said(name: str, wanted: str) -> None:
    assert wanted in task_refusal(name)


def test_nothing_is_offered_where_nothing_is_near() -> None:
    assert "did you mean" not in task_refusal("#########")


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[NEEDS_BRAX, pytest.mark.thorough] if id.startswith("brax/") else [])
        for name, id in SHORT_NAMES.items()
        if not id.startswith(("ale/", "images/"))  # tests/test_ale.py, tests/test_images.py
    ],
)
def test_short_names_stand_for_full_ids(name: str) -> None:
    assert make_task(name) == make_task(name.upper()) == make_task(SHORT_NAMES[name])
    assert make_task(name).task_id == SHORT_NAMES[name]


def test_listed_tasks_are_the_tasks_there_are() -> None:
    names = list_tasks()
    assert len(names) == len(set(names))
    assert names[:5] == [f"ndcartpole/{n}" for n in range(1, 6)]
    brax = [name for name in names if name.startswith("brax/")]
    mjx = [name for name in names if name.startswith("mjx/")]
    gymnasium = [name for name in names if name.startswith("gymnasium/")]
    envpool = [name for name in names if name.startswith("envpool/")]
    ale = [name for name in names if name.startswith("ale/")]
    images = [name for name in names if name.startswith("images/")]
    on_jax = [*(f"gymnax/{name}" for name in gymnax.registered_envs), *brax, *mjx]
    assert names[5:] == [*on_jax, *gymnasium, *envpool, *ale, *images]
    assert len(envpool) in (0, 15)  # where EnvPool is installed
    assert (len(brax), len(mjx)) == (9, 8)
    assert images == ["images/digits", "images/mnist", "images/fashion-mnist"]
    assert "gymnasium/CartPole-v1" in gymnasium
    assert {name for name in SHORT_NAMES.values() if ale or not name.startswith("ale/")} <= set(names)
    # Some of the others are made here and in other files; all of gymnax's take seconds.
    assert [make_task(name).task_id for name in names[:5]] == names[:5]


MODULES = [name for name in FAMILIES.values() if isinstance(name, str)]
OPTIONAL = {
    "gymnax": ("gymnax", "gymnax/CartPole-v1"),
    "brax": ("brax", "brax/hopper"),
    "mujoco.mjx": ("mjx", "mjx/hopper"),
    "gymnasium": ("gymnasium", "gymnasium/CartPole-v1"),
    "ale_py": ("atari", "ale/pong"),
    "sklearn.datasets": ("images", "images/digits"),
}
"""Packages that a family needs, the extra that brings each, and a task."""


def test_families_are_modules_with_the_same_doors() -> None:
    for module in map(importlib.import_module, MODULES):
        assert callable(module.make)
        assert all(isinstance(name, str) for name in module.names())
        assert "\n" not in module.DESCRIPTION
        known = module.names()
        assert set(getattr(module, "SHORT_NAMES", {}).values()) <= set(known or module.SHORT_NAMES.values())
    assert list(family_descriptions()) == list(FAMILIES)
    assert len(SHORT_NAMES) == len({full_task_id(name) for name in SHORT_NAMES})


def run_without(*packages: str, code: str) -> str:
    """What code prints in a process in which some packages are not installed."""
    absent = f"import sys\nfor name in {packages!r}:\n    sys.modules[name] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", absent + code], capture_output=True, text=True, timeout=300, check=True
    )
    return done.stdout


@pytest.mark.slow
def test_the_core_needs_no_optional_package() -> None:
    """Where they are absent, cart-pole can be made, tasks listed, and each of the others says what to install."""
    code = f"""
from floppy.errors import FloppyError
from floppy.tasks import list_tasks, make_task
print(make_task("cartpole").task_id)
print(sum(name.startswith(("gymnax/", "gymnasium/", "ale/")) for name in list_tasks()))
for name in {[task for _, task in OPTIONAL.values()]}:
    try:
        make_task(name)
    except FloppyError as error:
        print(error)
"""
    first, listed, *refusals = run_without(*OPTIONAL, "mujoco", "six", "flax", "evosax", code=code).splitlines()
    assert (first, listed) == ("ndcartpole/1", "0")
    for message, (extra, _) in zip(refusals, OPTIONAL.values(), strict=True):
        assert message.endswith(f"): pip install '{DISTRIBUTION}[{extra}]'.")
    assert {extra for extra, _ in OPTIONAL.values()} <= set(
        importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra")
    )


@pytest.mark.slow
def test_making_one_task_imports_no_other_family() -> None:
    code = "from floppy.tasks import make_task; make_task('ndcartpole/2'); print(*sys.modules)"
    loaded = set(run_without(code=code).split())
    assert "floppy.tasks.ndcartpole" in loaded
    assert not loaded & {"floppy.tasks.brax", "floppy.tasks.mjx", "floppy.tasks.images", "gymnasium", "gymnax"}


# --- compilation ---


@pytest.mark.parametrize("name", ["ndcartpole/2", "gymnax/CartPole-v1", "gymnax/Breakout-MinAtar"])
def test_equal_tasks_are_traced_once(name: str) -> None:
    traces = {"reset": 0, "step": 0}

    @partial(jax.jit, static_argnums=0)
    def reset(task: JaxTask, key: jax.Array) -> Any:
        traces["reset"] += 1
        return task.reset(key)

    @partial(jax.jit, static_argnums=0)
    def step(task: JaxTask, key: jax.Array, state: Any, action: jax.Array) -> Any:
        traces["step"] += 1
        return task.step(key, state, action)

    for seed in range(2):
        state, _ = reset(make_task(name), jax.random.key(seed))
        for time in range(3):
            state, *_ = step(make_task(name), jax.random.key(time), state, jnp.asarray(time % 2))
    assert make_task(name) == make_task(name)
    assert hash(make_task(name)) == hash(make_task(name))
    assert traces == {"reset": 1, "step": 1}


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.task_id)
def test_probes_fulfil_the_contract(probe: JaxTask) -> None:
    assert isinstance(probe, JaxTask)
    state, observation = probe.reset(KEY)
    action = jnp.zeros(probe.actions.size) if isinstance(probe.actions, Continuous) else jnp.asarray(1)
    for _ in range(probe.max_steps):
        state, reached, reward, terminated, truncated = probe.step(KEY, state, action)
        assert reached.shape == observation.shape == probe.observation_shape
        assert reached.dtype == reward.dtype == jnp.float32
        assert terminated.dtype == truncated.dtype == bool
    assert bool(terminated) is not bool(truncated)


@pytest.mark.parametrize("name", ["", ".", "./m", "../m", ".m", "/tmp/x/m.py", "x/m"])
def test_a_path_is_no_modules_name(name: str) -> None:
    with pytest.raises(FloppyError) as caught:
        import_module(name)
    assert str(caught.value) == (
        f"A module must be named as in an import, such as my_module, got {name!r}: give its name, and start floppy in "
        "its folder or put that on PYTHONPATH."
    )
