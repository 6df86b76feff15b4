"""Observations of any space as one array, by Gymnasium's own rules; bytes, rewards and time limits as they come."""

import re
from typing import Any

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from host_environments import PREFIX, Probe, probe, register
from probes import task_refusal

from floppy.evaluation.evaluate import evaluate_random
from floppy.play.host import HostArena, HostEnvironments
from floppy.run.config import DistillConfig
from floppy.run.folder import About
from floppy.run.loop import to_dataset
from floppy.tasks import FaultyEnvironmentError, make_task
from floppy.tasks.check import check_task

IMAGE = spaces.Box(0, 255, (2, 2, 3), np.uint8)
FLAT = {
    "Discrete": (spaces.Discrete(4, start=-1), 4, "Discrete(4, start=-1)"),
    "MultiBinary": (spaces.MultiBinary([2, 3]), 6, "MultiBinary(2, 3)"),
    "MultiDiscrete": (spaces.MultiDiscrete([2, 3]), 5, "MultiDiscrete([2, 3])"),
    "Text": (spaces.Text(5), 5, "Text"),
    "Tuple": (spaces.Tuple([spaces.Discrete(2), spaces.Box(-1, 1, (2, 2))]), 6, "Tuple(Discrete(2), Box(2, 2))"),
    "Dict": (
        spaces.Dict(eye=IMAGE, at=spaces.Dict(goal=spaces.Box(-1, 1, (3,)), way=spaces.MultiBinary(2))),
        17,
        "Dict(eye=Box(2, 2, 3), at=Dict(goal=Box(3,), way=MultiBinary(2,)))",
    ),
    "OneOf": (spaces.OneOf([spaces.Discrete(2), spaces.Box(-1, 1, (3,))]), 4, "OneOf(Discrete(2), Box(3,))"),
}


class Shown(Probe):
    """Observations are those given, in turn."""

    def __init__(self, space: spaces.Space, *observations: Any) -> None:
        self.observation_space, self.observations, self.count = space, observations, -1

    def observation(self) -> Any:
        self.count += 1
        return self.observations[self.count % len(self.observations)]

    def ended(self) -> bool:
        return False


def shows(name: str, space: spaces.Space, *observations: Any) -> Any:
    """The task of an environment that shows these observations."""
    if f"{PREFIX}{name}-v0" not in gymnasium.registry:
        register(name, lambda: Shown(space, *observations))
    return probe(name)


def sampled(space: spaces.Space) -> list[Any]:
    space.seed(0)
    return [space.sample() for _ in range(3)]


def row(task: Any) -> HostEnvironments:
    started = HostEnvironments(task, 1, training=True)
    started.reset(np.arange(1))
    return started


@pytest.mark.parametrize("kind", FLAT)
def test_spaces_are_flattened_as_gymnasium_does(kind: str) -> None:
    space, size, described = FLAT[kind]
    seen = sampled(space)
    task = shows(f"Flat{kind}", space, *seen)
    assert task.observation_shape == (size,)
    assert re.search(rf"gymnasium\.spaces\.flatten of {re.escape(described)}(?!\w)", task.card_notes)
    played = row(task)
    for expected in seen[:2]:
        assert played.observations.dtype == np.float32
        np.testing.assert_allclose(played.observations[0], spaces.flatten(space, expected), rtol=1e-6)
        played.step(np.zeros(1, int))
    check_task(task)


def test_boxes_have_no_note() -> None:
    assert probe("Sign").card_notes == ""


def test_the_card_says_how_observations_were_flattened() -> None:
    space, *_ = FLAT["Discrete"]
    task = shows("FlatDiscrete", space, *sampled(space))
    config = DistillConfig(task.task_id)
    problem = config.problem()
    state = config.outer.init(problem, jax.random.key(0), HostArena())
    card = to_dataset(config, problem, config.outer.distilled(state), None, None, About("", [], [])).card
    assert card.notes == "Observations are gymnasium.spaces.flatten of Discrete(4, start=-1)."


OUTSIDE = {
    "below": (spaces.Discrete(3), 0, -1),
    "above": (spaces.Discrete(3), 0, 3),
    "below of many": (spaces.MultiDiscrete([2, 3]), np.array([1, 2]), np.array([-1, 2])),
    "above of many": (spaces.Tuple([spaces.Discrete(3)]), (0,), (3,)),
    "missing part": (spaces.Dict(a=spaces.Discrete(2), b=spaces.Discrete(2)), {"a": 0, "b": 0}, {"a": 0}),
    "short": (spaces.Tuple([spaces.Discrete(2)] * 2), (0, 0), (0,)),
    "wrong shape": (spaces.Dict(a=spaces.Box(0, 1, (2,))), {"a": np.zeros(2)}, {"a": np.zeros(3)}),
    "no number": (spaces.Discrete(3), 0, "one"),
    "nothing": (spaces.Dict(a=spaces.Discrete(2)), {"a": 0}, None),
    "broadcast": (spaces.MultiDiscrete([3, 2]), np.array([1, 1]), np.array([1])),
    "more than bits": (spaces.MultiBinary(3), np.ones(3, np.int8), np.array([5, -7, 300])),
    "parts of bits": (spaces.MultiBinary(2), np.ones(2), np.array([0.5, np.nan])),
    "parts of bytes": (IMAGE, np.ones(IMAGE.shape), np.full(IMAGE.shape, 0.5)),
    "wrapped bytes": (IMAGE, np.ones(IMAGE.shape, np.int64), np.full(IMAGE.shape, 300)),
    "missing bytes": (spaces.Dict(a=IMAGE), {"a": np.ones(IMAGE.shape)}, {"a": np.full(IMAGE.shape, np.nan)}),
    "complex": (spaces.Box(-1, 1, (2,)), np.zeros(2), np.full(2, 1 + 2j)),
    "complex part": (spaces.Dict(b=spaces.Box(-1, 1, (1,))), {"b": np.zeros(1)}, {"b": np.array([1j])}),
    "dates": (spaces.Box(-1, 1, (1,)), np.zeros(1), np.array(["2020-01-01"], "M8[D]")),
    "text": (spaces.Box(-1, 1, (2,)), [0.0, 0.0], ["0.5", "1e-1"]),
    "other of several": (spaces.OneOf([spaces.Discrete(2)] * 2), (0, 1), (-1, 1)),
    "part of several": (spaces.OneOf([spaces.Discrete(2)] * 2), (0, 1), (0, -1)),
}


@pytest.mark.parametrize("kind", OUTSIDE)
def test_an_observation_outside_of_its_space_is_the_environments_fault(kind: str) -> None:
    space, sound, faulty = OUTSIDE[kind]
    played = row(shows(f"Outside-{kind.replace(' ', '-')}", space, sound, faulty))
    with pytest.raises(FaultyEnvironmentError, match=r"as its observation in place of one of .*: repair"):
        played.step(np.zeros(1, int))


def test_what_is_outside_of_a_space_is_named() -> None:
    played = row(shows("Outside-named", IMAGE, np.zeros(IMAGE.shape), np.full(IMAGE.shape, 300)))
    wanted = r"Outside-named-v0 returned array.* one of Box\(2, 2, 3\) \(numbers that no uint8 holds\): repair"
    with pytest.raises(FaultyEnvironmentError, match=wanted):
        played.step(np.zeros(1, int))


LOOSE = {
    "float64": (spaces.Box(-1, 1, (2,)), np.ones(2)),
    "beyond bounds": (spaces.Box(-1, 1, (2,)), np.full(2, 1e6)),
    "whole": (spaces.Box(-1, 1, (2,)), [1, 0]),
    "bool": (spaces.Box(0, 1, (2,)), np.array([True, False])),
    "bfloat16": (spaces.Box(0, 1, (2,)), jax.numpy.ones(2, "bfloat16")),
    "bytes": (spaces.Box(0, 255, (2,), np.uint8), np.array([255.0, 0.0])),
    "whole numbers": (spaces.Box(0, 9, (2,), np.int32), np.array([9, 10], np.int64)),
}


@pytest.mark.parametrize("kind", LOOSE)
def test_numbers_may_be_of_any_type_that_loses_nothing(kind: str) -> None:
    space, value = LOOSE[kind]
    played = row(shows(f"Loose-{kind.replace(' ', '-')}", space, value))
    np.testing.assert_array_equal(played.observations[0], np.asarray(value, float))


class Flagged(Probe):
    """One step, of which `terminated` is given."""

    def __init__(self, flag: Any) -> None:
        self.flag = flag

    def ended(self) -> Any:
        return self.flag


@pytest.mark.parametrize("flag", [True, np.True_, 1, 1.0, np.int64(1), np.array([True]), jax.numpy.array(True)])
def test_a_flag_may_be_a_number_or_an_array_of_one_element(flag: Any) -> None:
    name = f"Flagged-{type(flag).__module__.replace('.', '-')}-{type(flag).__name__}"
    register(name, lambda: Flagged(flag))
    assert row(probe(name)).step(np.zeros(1, int)).terminated.tolist() == [True]


@pytest.mark.parametrize(
    ("name", "flag"), [("None", None), ("Text", "no"), ("Two", 2), ("NaN", np.nan), ("Pair", np.array([True, False]))]
)
def test_any_other_flag_is_the_environments_fault(name: str, flag: Any) -> None:
    register(f"Flagged{name}", lambda: Flagged(flag))
    with pytest.raises(FaultyEnvironmentError, match="as terminated in place of True or False: repair"):
        row(probe(f"Flagged{name}")).step(np.zeros(1, int))


@pytest.mark.parametrize("value", [2, np.int64(2), np.array(2), np.array([2])])
def test_whole_numbers_come_in_many_types(value: Any) -> None:
    task = shows(f"Whole-{type(value).__name__}{np.ndim(value)}", spaces.Discrete(3), value)
    np.testing.assert_array_equal(row(task).observations, [[0, 0, 1]])


@pytest.mark.parametrize(
    ("most", "shape", "dtype"),
    [(255, (2,), np.uint8), (255, (2, 2, 1), np.uint8), (1, (2,), np.float32), (1, (2, 2, 1), np.float32)],
)
def test_bytes_are_pixels_where_their_space_ends_at_255(most: int, shape: Any, dtype: Any) -> None:
    task = shows(f"Bytes-{most}-{len(shape)}", spaces.Box(0, most, shape, np.uint8), np.ones(shape, np.uint8))
    observations = row(task).observations
    assert observations.dtype == dtype
    assert (observations == 1).all()


class Paid(Probe):
    """One step of which the reward is given."""

    def __init__(self, reward: Any) -> None:
        self.paid = reward

    def reward(self, action: Any) -> Any:
        return self.paid


@pytest.mark.parametrize("reward", [2, 2.0, np.float64(2), np.ones(1) * 2, np.array([[2]]), np.array(2, np.int8)])
def test_a_reward_of_one_element_is_a_number(reward: Any) -> None:
    name = f"Paid-{type(reward).__name__}{np.ndim(reward)}"
    register(name, lambda: Paid(reward))
    assert evaluate_random(probe(name), episodes=2).mean == 2.0


@pytest.mark.parametrize(
    ("name", "reward"), [("Two", np.ones(2)), ("None", None), ("Text", "1.0"), ("Empty", np.zeros(0)), ("Complex", 1j)]
)
def test_any_other_reward_is_the_environments_fault(name: str, reward: Any) -> None:
    register(f"Paid{name}", lambda: Paid(reward))
    with pytest.raises(FaultyEnvironmentError, match="as its reward in place of a number: repair"):
        evaluate_random(probe(f"Paid{name}"), episodes=2)


class Bare(Probe):
    """An environment whose reset gives the observation alone, as it was before Gymnasium."""

    def reset(self, **options: Any) -> Any:
        return super().reset(**options)[0]


def test_a_reset_without_info_is_the_environments_fault() -> None:
    register("Bare", Bare)
    with pytest.raises(FaultyEnvironmentError, match=r"from reset in place of the pair \(observation, info\)"):
        evaluate_random(probe("Bare"), episodes=1)


def test_a_time_limit_can_be_given() -> None:
    assert "--max-episode-steps" in task_refusal(f"gymnasium/{PREFIX}Endless-v0")
    task: Any = make_task(f"gymnasium/{PREFIX}Endless-v0?max_episode_steps=4")
    assert task.max_steps == 4
    assert evaluate_random(task, episodes=2).mean == 1 + 2 + 3 + 4
