"""Brax tasks: shapes, ends of episodes, determinism, and an upstream that stays quiet."""

import functools
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import assert_is_silent, task_refusal

from floppy.errors import FloppyError
from floppy.tasks import Continuous, JaxTask, make_task
from floppy.tasks.brax import BACKENDS, NAMES, BraxTask, make_environment

pytest.importorskip("brax", reason="Brax is an optional dependency: pip install 'floppy-rl[brax]'")

KEY = jax.random.key(0)
PLAYED = ("inverted_pendulum", "reacher", "hopper")
"""Quick enough to compile."""
SHAPES = {
    "ant": (27, 8),
    "halfcheetah": (17, 6),
    "hopper": (11, 3),
    "humanoid": (244, 17),
    "humanoidstandup": (244, 17),
    "inverted_double_pendulum": (8, 1),
    "inverted_pendulum": (4, 1),
    "reacher": (11, 2),
    "walker2d": (17, 6),
}
"""Observation and action sizes."""
LIMIT = 1000

pytestmark = pytest.mark.slow


class Record(NamedTuple):
    first: np.ndarray
    """`[o]`"""
    observations: np.ndarray
    """`[T, o]`, reached by each step."""
    rewards: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


@functools.cache
def player(task: JaxTask) -> Any:
    """A compiled function of a key: beyond the time limit, whatever ends, with random actions."""

    def step(state: Any, key: jax.Array) -> Any:
        action = jax.random.uniform(key, (task.actions.size,), minval=-1.0, maxval=1.0)
        following = task.step(key, state, action)
        return following.state, following[1:]

    def play(key: jax.Array) -> Any:
        state, observation = task.reset(key)
        return observation, *jax.lax.scan(step, state, jax.random.split(key, LIMIT + 3))[1]

    return jax.jit(play)


def record(task_id: str, seed: int = 0) -> Record:
    return Record(*map(np.asarray, player(make_task(task_id))(jax.random.key(seed))))


# --- shapes and values ---


@pytest.mark.thorough(all_but=["inverted_pendulum"])
@pytest.mark.parametrize("name", NAMES)
def test_declared_shapes_are_those_of_reset_and_step(name: str) -> None:
    task = make_task(f"brax/{name}")
    size, action_size = SHAPES[name]
    assert isinstance(task, JaxTask)
    assert task.task_id == f"brax/{name}"
    assert task.observation_shape == (size,)
    assert task.actions == Continuous(action_size, (-1.0,) * action_size, (1.0,) * action_size)
    assert (task.max_steps, task.max_return, task.package) == (LIMIT, None, "brax")
    state, observation = jax.eval_shape(task.reset, KEY)
    following = jax.eval_shape(task.step, KEY, state, jax.ShapeDtypeStruct((action_size,), jnp.float32))
    assert observation.shape == following.observation.shape == (size,)
    assert observation.dtype == following.observation.dtype == following.reward.dtype == jnp.float32
    assert following.reward.shape == following.terminated.shape == following.truncated.shape == ()
    assert following.terminated.dtype == following.truncated.dtype == bool
    # Loops carry the state: no type may change, nor be weak.
    assert jax.tree.structure(state) == jax.tree.structure(following.state)
    for before, after in zip(jax.tree.leaves(state), jax.tree.leaves(following.state), strict=True):
        assert (before.shape, before.dtype, before.weak_type) == (after.shape, after.dtype, after.weak_type)
        assert not before.weak_type


@pytest.mark.thorough(all_but=["inverted_pendulum"])
@pytest.mark.parametrize("name", PLAYED)
def test_episodes_have_finite_values(name: str) -> None:
    played = record(f"brax/{name}")
    end = int(np.argmax(played.terminated | played.truncated)) + 1
    for values in (played.first, played.observations[:end], played.rewards[:end]):
        assert np.isfinite(values).all()
    assert played.observations.shape == (LIMIT + 3, *played.first.shape)
    assert end > 1
    assert (np.ptp(played.observations[:end], axis=0) > 0).sum() >= len(played.first) - 3, "hardly anything moves"
    assert (np.ptp(played.rewards[:end]) > 0) == (name != "inverted_pendulum"), "that one pays 1 a step"


@pytest.mark.parametrize("name", ["hopper", "hopper/generalized"])
def test_the_size_of_observations_takes_no_simulation(name: str) -> None:
    task = make_task(f"brax/{name}")
    assert task.observation_shape == (11,)
    traced = jax.make_jaxpr(lambda x: x * task.observation_shape[0])(1.0)
    assert len(traced.eqns) == 1, "reading a shape must add nothing to a program"


# --- ends of episodes ---


@pytest.mark.thorough(all_but=["inverted_pendulum"])
@pytest.mark.parametrize("name", PLAYED)
def test_the_time_limit_truncates_and_does_not_terminate(name: str) -> None:
    played = record(f"brax/{name}")
    np.testing.assert_array_equal(played.truncated, np.arange(1, LIMIT + 4) >= LIMIT)
    if name == "reacher":  # the only one here that nothing else ends
        assert not played.terminated.any()


@pytest.mark.thorough
def test_hopper_terminates_when_it_falls() -> None:
    for seed in (0, 1):
        played = record("brax/hopper", seed)
        height, angle = played.observations[:, 0], played.observations[:, 1]
        end = int(np.argmax(played.terminated))
        assert 0 < end < LIMIT - 1
        assert not played.truncated[end]
        fallen = (height <= 0.7) | (np.abs(angle) >= 0.2)
        assert fallen[end]
        assert not fallen[:end].any()


@pytest.mark.thorough
def test_a_pendulum_terminates_when_it_leans() -> None:
    played = record("brax/inverted_pendulum")
    end = int(np.argmax(played.terminated))
    angle = np.abs(played.observations[:, 1])
    assert 0 < end < LIMIT - 1
    assert angle[end] > 0.2 >= angle[:end].max()


# --- determinism ---


@pytest.mark.thorough(all_but=["inverted_pendulum"])
@pytest.mark.parametrize("name", PLAYED)
def test_the_same_key_plays_the_same(name: str) -> None:
    played, again, other = record(f"brax/{name}"), record(f"brax/{name}"), record(f"brax/{name}", 1)
    for values, same in zip(played, again, strict=True):
        assert values.tobytes() == same.tobytes()
    assert (played.first != other.first).any()


@pytest.mark.thorough
def test_a_step_needs_no_key() -> None:
    task = make_task("brax/inverted_pendulum")
    state, _ = jax.jit(task.reset)(KEY)
    step = jax.jit(task.step)
    results = [step(jax.random.key(seed), state, jnp.array([0.5])) for seed in range(2)]
    for one, other in zip(*map(jax.tree.leaves, results), strict=True):
        np.testing.assert_array_equal(one, other)
    assert int(results[0].state.steps) == 1
    moved = step(KEY, state, jnp.array([-0.5]))
    assert (moved.observation != results[0].observation).any()


def test_equal_tasks_are_equal() -> None:
    assert make_task("brax/hopper") == make_task("hopper") == make_task("brax/hopper/positional")
    assert hash(make_task("brax/hopper")) == hash(make_task("hopper"))
    assert make_task("brax/hopper") != make_task("brax/hopper/spring")
    assert make_environment("hopper", "spring") is make_environment("hopper", "spring")


# --- names ---


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_backend_is_chosen_by_id(backend: str) -> None:
    task = make_task(f"brax/hopper/{backend}")
    assert isinstance(task, BraxTask)
    assert (task.name, task.backend) == ("hopper", backend)
    assert task.task_id == ("brax/hopper" if backend == "positional" else f"brax/hopper/{backend}")
    assert make_task(task.task_id) == task
    assert task.observation_shape == (11,)
    # Brax's own backends, not three times the same one.
    assert make_environment("hopper", backend)._pipeline.__name__ == f"brax.{backend}.pipeline"


@pytest.mark.parametrize(
    ("name", "offer"),
    [
        ("brax/hoper", "brax/hopper"),
        ("brax/Hopper", "brax/hopper"),
        ("brax/hopper/sprig", "brax/hopper/spring"),
        ("brax/half_cheetah", "brax/halfcheetah"),
    ],
)
def test_a_wrong_name_gets_the_nearest_one(name: str, offer: str) -> None:
    assert task_refusal(name) == f"There is no task '{name}': did you mean {offer}? `floppy tasks` lists them all."


@pytest.mark.parametrize(("name", "backend"), [("pusher", "positional"), ("hopper", "mjx"), ("Hopper", "spring")])
def test_the_class_refuses_unknown_names(name: str, backend: str) -> None:
    with pytest.raises(FloppyError, match=f"^Brax has no {name} on backend {backend} here: choose from ant, .*spring"):
        BraxTask(name, backend)


# --- the package ---


@pytest.mark.parametrize("missing", ["brax", "mujoco"])
def test_without_brax_the_message_says_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (missing, f"{missing}.envs"):  # which tests before may have imported
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(FloppyError) as caught:
        make_environment.__wrapped__("hopper", "positional")  # not from the cache
    message = str(caught.value)
    assert message.startswith("Tasks brax/... need Brax (")
    assert message.endswith("): pip install 'floppy-rl[brax]'.")


@pytest.mark.thorough
def test_brax_prints_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    program = (
        "import jax, warnings; warnings.simplefilter('error')\n"
        "from floppy.tasks import make_task\n"
        "for name in ('halfcheetah', 'inverted_pendulum'):  # MuJoCo warns about the first\n"
        "    task = make_task('brax/' + name)\n"
        "    jax.eval_shape(task.reset, jax.random.key(0))\n"
    )
    assert_is_silent(program, tmp_path)
