"""A task is the same task in any units: of its observations, its actions and its rewards."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import floppy
from floppy.dataset.file import to_bytes
from floppy.play.normalise import (
    FILE_FLOOR,
    init_statistics,
    normalise,
    restored_statistics,
    stored_statistics,
    update_statistics,
)
from floppy.run.loop import Run
from floppy.spaces import Continuous, Discrete, space_of
from floppy.tasks import Transition
from floppy.tasks.registry import FAMILIES, register

pytestmark = pytest.mark.usefixtures("compiled_once")


@dataclasses.dataclass(frozen=True)
class Cue:
    """One step: the observation says which action is wanted. In units of one's own."""

    of_observations: float = 1.0
    offset: float = 0.0
    of_rewards: float = 1.0
    low: float = -1.0
    high: float = 1.0
    is_continuous: bool = False
    dtype: str = "float32"
    max_steps: int = 1
    max_return: None = None
    package: str = "floppy"

    @property
    def task_id(self) -> str:
        return "cue/" + ":".join(str(getattr(self, field.name)) for field in dataclasses.fields(self)[:7])

    @property
    def observation_shape(self) -> tuple[int, ...]:
        return (2,)

    @property
    def actions(self) -> Discrete | Continuous:
        return Continuous(1, (self.low,), (self.high,)) if self.is_continuous else Discrete(2)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        side = jax.random.bernoulli(key).astype(jnp.int32)
        cue = jnp.stack([side, 1 - side]).astype(jnp.float32)
        return side, (self.offset + self.of_observations * cue).astype(self.dtype)

    def step(self, key: jax.Array, side: Any, action: jax.Array) -> Transition:
        del key
        if self.is_continuous:
            unit = 2 * (action[0] - self.low) / (self.high - self.low) - 1
            reward = -(jnp.abs(unit - (side - 0.5)))  # wanted: -0.5 or 0.5 of the half width
        else:
            reward = jnp.float32(action == side)
        observation = jnp.full(2, self.offset, jnp.float32).astype(self.dtype)
        return Transition(side, observation, self.of_rewards * reward, jnp.array(True), jnp.array(False))


@pytest.fixture(autouse=True, scope="module")
def family() -> Any:
    def make(rest: str) -> Cue:
        observations, offset, rewards, low, high, kind, dtype = rest.split(":")
        return Cue(float(observations), float(offset), float(rewards), float(low), float(high), kind == "True", dtype)

    register("cue", make)
    yield
    FAMILIES.pop("cue")


def score(**units: Any) -> float:
    """The score of a short distillation with the recipe's settings but for its size, in units of the rewards."""
    task = Cue(**units)
    config = floppy.recipe(task.task_id, examples=4, outer_steps=30, evaluate_every=30, distribution="width=16:depth=1")
    outer: Any = config.outer
    outer = dataclasses.replace(outer, learners=4, environments=8, horizon=8, minibatch_size=64, rate=1e-2)
    counts = {"selection_learners": 4, "selection_episodes": 8, "score_learners": 8, "score_episodes": 16}
    dataset = floppy.distill(dataclasses.replace(config, outer=outer, **counts), progress=False).dataset
    assert dataset.card.score is not None
    return float(dataset.card.score["mean"]) / task.of_rewards


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize(
    "units",
    [
        pytest.param({"of_observations": 1e6, "of_rewards": 1e-6, "offset": 1e5}, id="other units"),
        pytest.param({"dtype": "uint8"}, id="bytes"),
    ],
)
def test_discrete_tasks_are_learnt_in_any_units(units: dict[str, Any]) -> None:
    assert score(**units) > 0.95


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("units", [{"low": 100.0, "high": 200.0, "of_observations": 1e-6, "of_rewards": 1e6}], ids=str)
def test_continuous_tasks_are_learnt_in_any_units(units: dict[str, Any]) -> None:
    assert score(is_continuous=True, **units) > -0.2  # random actions: -0.6


# --- Actions.


def test_units_by_hand() -> None:
    space = Continuous(2, (100.0, -3.0), (200.0, -1.0)).in_units
    assert (space.centre, space.half_width) == ((150.0, -2.0), (50.0, 1.0))
    np.testing.assert_allclose(space.of_task(jnp.array([[0.5, -1.0]])), [[175.0, -3.0]])
    np.testing.assert_allclose(space.of_policy(jnp.array([175.0, -3.0])), [0.5, -1.0])
    np.testing.assert_allclose(space.clip(jnp.array([2.0, 0.0])), [200.0, -2.0])
    assert space.raw == Continuous(2, (100.0, -3.0), (200.0, -1.0))
    np.testing.assert_allclose(space.log_std_of_policy(jnp.zeros(2), space.raw), [-np.log(50.0), 0.0], rtol=1e-6)
    random = space.random(jax.random.key(0), (1000,))
    assert -1 <= float(random.min()) < -0.95 and 0.95 < float(random.max()) <= 1


def test_bounds_of_one_are_units_already() -> None:
    space = Continuous(2, (-1.0, -1.0), (1.0, 1.0))
    assert space.in_units == space and space.as_entry().keys() == {"kind", "size", "low", "high"}
    assert Discrete(3).in_units == Discrete(3).raw == Discrete(3)
    assert Continuous(1, (-3e38,), (3e38,)).in_units.half_width == (3e38,)


def test_units_are_cut_and_joined() -> None:
    space, other = Continuous(1, (0.0,), (4.0,)).in_units, Continuous(1, (-1.0,), (1.0,))
    joint = space.joined([other])
    assert (joint.centre, joint.half_width) == ((2.0, 0.0), (2.0, 1.0))
    assert joint.part(0, 1) == space
    assert space_of(joint.as_entry()) == joint


@pytest.mark.thorough
@pytest.mark.slow
def test_files_say_the_units_and_policies_act_by_them(tmp_path: Path) -> None:
    task = Cue(is_continuous=True, low=100.0, high=200.0)
    outer = floppy.PPMO(learners=1, environments=1, horizon=4, minibatch_size=4)
    config = floppy.DistillConfig(
        task.task_id,
        outer_steps=1,
        outer=outer,
        distribution="width=4:depth=1:initialiser=xavier",
    )
    run = Run(config, config.problem(), "")
    dataset = run.dataset(run.init(), score=False)
    assert (dataset.card.format, dataset.card.actions["centre"]) == (3, [150.0])
    floppy.save(dataset, tmp_path / "units.safetensors")
    assert to_bytes(floppy.load(tmp_path / "units.safetensors")) == to_bytes(dataset)
    policies = floppy.train(dataset, 0, learners=2)
    floppy.save_policies(policies, tmp_path / "policies.safetensors")
    observations = np.eye(2, dtype=np.float32)
    acted = policies.act(observations)
    assert (acted >= 100).all() and (acted <= 200).all()
    np.testing.assert_array_equal(floppy.load_policies(tmp_path / "policies.safetensors").act(observations), acted)
    assert dataclasses.replace(config, scaled_actions=False).problem().actions == task.actions


# --- Observations.


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_what_networks_see_is_the_same_in_any_units(scale: float) -> None:
    batch = jax.random.normal(jax.random.key(0), (64, 3)) + jnp.array([[0.0, 5.0, -100.0]])
    seen = normalise(update_statistics(init_statistics((3,)), scale * batch), scale * batch)
    wanted = normalise(update_statistics(init_statistics((3,)), batch), batch)
    np.testing.assert_allclose(seen, wanted, atol=2e-3)
    assert 0.9 < float(jnp.std(seen)) < 1.1


@pytest.mark.parametrize(("scale", "epsilon"), [(1.0, 1e-8), (1e-6, 0.0)])
def test_what_a_file_holds_normalises_as_the_run_did(scale: float, epsilon: float) -> None:
    batch = scale * jax.random.normal(jax.random.key(1), (64, 2))
    of_run = update_statistics(init_statistics((2,)), batch)
    mean, var, found = stored_statistics(of_run)
    assert found == epsilon
    of_file = restored_statistics(mean, var, found)
    np.testing.assert_allclose(normalise(of_file, batch), normalise(of_run, batch), rtol=1e-5)
    again = stored_statistics(of_file)
    np.testing.assert_array_equal(again[1], var)
    assert again[2] == found


@pytest.mark.thorough
@pytest.mark.slow
def test_a_constant_says_nothing() -> None:
    statistics = init_statistics((1,))
    for _ in range(5):
        statistics = update_statistics(statistics, jnp.full((16, 1), 0.1))
    assert abs(float(normalise(statistics, jnp.full((1, 1), 0.1))[0, 0])) < 0.2
    np.testing.assert_array_equal(init_statistics((1,), FILE_FLOOR).floor, [np.float32(1e-8), 0])
