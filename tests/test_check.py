"""`check_task`: every breach of the contract is named, and nothing that is sound is refused."""

import dataclasses
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from host_environments import PREFIX
from probes import PROBES, ImageProbe

from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_random
from floppy.run.config import DistillConfig
from floppy.run.loop import distill
from floppy.tasks import (
    Continuous,
    Discrete,
    FaultyEnvironmentError,
    Labelled,
    Transition,
    check_task,
    list_tasks,
    make_task,
    register,
)
from floppy.tasks.check import OWN_PAGE, check_own_task
from floppy.tasks.registry import FAMILIES

TWO, THREE = Discrete(2), Discrete(3)
PLANE = Continuous(2, (-1.0, -2.0), (1.0, 2.0))

pytestmark = pytest.mark.usefixtures("families")


class State(NamedTuple):
    position: Any
    time: Any


@dataclasses.dataclass(frozen=True)
class Walk:
    """A walk from a random place to ±1 in steps of 0.4, at most 6 of them. Subclasses differ in one thing each."""

    fault: str = "sound"
    observation_shape: Any = (2,)
    actions: Any = TWO
    max_steps: Any = 6
    max_return: Any = None
    package: Any = "floppy"

    @property
    def task_id(self) -> Any:
        return f"walk/{self.fault}"

    def reset(self, key: jax.Array) -> Any:
        return self.started(jax.random.uniform(key, minval=-0.5, maxval=0.5))

    def started(self, position: Any) -> Any:
        return State(position, jnp.zeros((), jnp.int32)), jnp.stack([position, position])

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        position, time = state.position + 0.4 * (2 * action - 1), state.time + 1
        is_out = jnp.abs(position) > 1
        observation = jnp.stack([position, state.position])
        return Transition(State(position, time), observation, jnp.ones(()), is_out, time >= self.max_steps)


# --- sound tasks, also those that look odd ---

NUMPY = Walk("sizes", (np.int64(2),), Discrete(np.int64(2)), np.int64(6), np.float32(6.0))  # type: ignore[arg-type]


class OneElementReward(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action)._replace(reward=jnp.ones((1,)))


class WholeNumbers(Walk):
    """Whole observations when it starts, floats later; whole rewards; Python's own numbers."""

    def reset(self, key: jax.Array) -> Any:
        return State(0.0, 0), jnp.zeros(2, jnp.int32)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action)._replace(reward=1, truncated=jnp.asarray(state.time) >= 5)


class CarriesKey(Walk):
    """Draws from a key in its state."""

    def reset(self, key: jax.Array) -> Any:
        state, observation = super().reset(key)
        return (state, key), observation

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        after = super().step(key, state[0], action)
        return after._replace(state=(after.state, jax.random.split(state[1])[0]))


class Stateless(Walk):
    """A bandit: one step, nothing to remember, the same observation all the time."""

    def reset(self, key: jax.Array) -> Any:
        return (), jnp.zeros(2)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        yes = jnp.asarray(True)
        return Transition((), jnp.zeros(2), jax.random.normal(key), yes, yes)


class ReturnsHome(Walk):
    """Always starts at 0, takes three steps out and back, and ends where it began; time is counted."""

    def reset(self, key: jax.Array) -> Any:
        return self.started(jnp.zeros(()))

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        time = state.time + 1
        position = 3.0 - jnp.abs(3.0 - time)
        return Transition(State(position, time), jnp.stack([position, position]), position, time >= 6, time >= 6)


@dataclasses.dataclass(frozen=True)
class CountsSinceGoal(Walk):
    """A goal every third step sets a counter to 0, and the third goal ends the episode."""

    max_steps: Any = 9

    def reset(self, key: jax.Array) -> Any:
        start = jax.random.normal(key)
        return (start, jnp.zeros((), int), jnp.zeros((), int)), jnp.stack([start, start])

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        start, since, goals = state
        is_goal = since == 2
        since, goals = jnp.where(is_goal, 0, since + 1), goals + is_goal
        observation = jnp.stack([start, goals + 0.0])
        return Transition((start, since, goals), observation, is_goal + 0.0, goals == 3, jnp.asarray(False))


@pytest.mark.thorough(all_but=["Walk", "CarriesKey"])
@pytest.mark.slow
@pytest.mark.parametrize("kind", [Walk, OneElementReward, WholeNumbers, CarriesKey, Stateless, ReturnsHome])
def test_sound_tasks_pass_and_play(kind: type[Walk]) -> None:
    task = kind(kind.__name__)
    check_task(task)
    assert np.isfinite(evaluate_random(task, episodes=5).mean)


@pytest.mark.thorough(all_but=["ContinuousProbe", "TimeLimitProbe"])
@pytest.mark.parametrize(
    "task", [*PROBES, ImageProbe(), CountsSinceGoal(), NUMPY], ids=lambda task: type(task).__name__
)
def test_odd_tasks_pass(task: Any) -> None:
    check_task(task, is_registered=False)


@pytest.mark.parametrize("name", ["ndcartpole/2", f"gymnasium/{PREFIX}Target-v0"])
def test_tasks_that_come_with_floppy_pass(name: str) -> None:
    check_task(make_task(name))


@pytest.mark.thorough
@pytest.mark.slow
def test_rewards_of_one_element_and_whole_numbers_are_cast() -> None:
    scores = [
        evaluate_random(kind("" if kind is Walk else kind.__name__), episodes=20) for kind in (Walk, OneElementReward)
    ]
    assert scores[0] == scores[1]
    assert scores[0].mean > 1
    assert evaluate_random(WholeNumbers("WholeNumbers"), episodes=5).mean > 1


# --- breaches that show when the task is traced ---


def changed(**parts: Any) -> type[Walk]:
    """A walk of which `step` returns other parts, made by functions of what it should return."""

    class Changed(Walk):
        def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
            after = super().step(key, state, action)
            return after._replace(**{name: function(after) for name, function in parts.items()})

    return Changed


def started(function: Any) -> type[Walk]:
    """A walk of which `reset` returns what a function makes of it."""

    class Started(Walk):
        def reset(self, key: jax.Array) -> Any:
            return function(*super().reset(key))

    return Started


class Raises(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        raise KeyError("joint")


class Exits(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        raise SystemExit(3)


class Computed(Walk):
    def __getattribute__(self, name: str) -> Any:
        if name == "max_steps":
            raise KeyError("limit")
        return super().__getattribute__(name)


class Branches(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action if action > 0 else 1 - action)


class DrawsFromNumpy(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action)._replace(reward=jnp.asarray(np.random.default_rng().normal()))


class Keeps(Walk):
    kept: Any = 0.0

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        after = super().step(key, state, action)
        Keeps.kept = after.reward * action + Keeps.kept
        return after._replace(reward=Keeps.kept)


class Pair(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action)[:2]


class Neither(Walk):
    reset: Any = property(lambda self: self.missing)
    step: Any = property(lambda self: self.missing)


TRACED = {
    "observation of reset": (
        started(lambda state, observation: (state, observation[:1])),
        "the observation of reset must be numbers of shape (2,), got shape (1,) and type float32",
    ),
    "observation of step": (
        changed(observation=lambda after: after.observation[None]),
        "the observation of step must be numbers of shape (2,), got shape (1, 2) and type float32",
    ),
    "no observation": (started(lambda state, _: (state, None)), "the observation of reset must be .* got NoneType"),
    "bytes at first": (
        started(lambda state, observation: (state, observation.astype(jnp.uint8))),
        "the observation of step must be of type uint8, as that of reset, got float32",
    ),
    "reset alone": (started(lambda state, _: state.position), "what reset returns must be (state, observation), got"),
    "a pair": (Pair, "what step returns must be a Transition of state, observation, reward, terminated, truncated"),
    "reward": (
        changed(reward=lambda after: jnp.ones(3)),
        "reward must be numbers of shape (), got shape (3,) and type float32",
    ),
    "complex reward": (changed(reward=lambda after: 1j * after.reward), "reward must be numbers .* type complex64"),
    "terminated": (
        changed(terminated=lambda after: after.terminated + 0.0),
        "terminated must be a scalar of type bool, got shape () and type float32",
    ),
    "truncated": (
        changed(truncated=lambda after: after.truncated[None]),
        "truncated must be a scalar of type bool, got shape (1,) and type bool",
    ),
    "state type": (
        changed(state=lambda after: after.state._replace(time=after.state.time + 0.5)),
        "state.time of step must be as in reset, shape () and type int32, got shape () and type float32",
    ),
    "state shape": (
        changed(state=lambda after: after.state._replace(position=after.state.position[None])),
        "state.position of step must be as in reset, shape () and type float32, got shape (1,)",
    ),
    "state structure": (
        changed(state=lambda after: after.state._replace(time=[after.state.time])),
        "the state of step must be built like that of reset, .*time=.), got .*time=[.])",
    ),
    "exits": (Exits, "step raised SystemExit: 3 when JAX compiled it"),
    "return as text": (functools.partial(Walk, max_return="high"), "max_return must be a finite number or None"),
    "computed attribute": (Computed, "its max_steps raised KeyError: 'limit'"),
    "raises": (Raises, "step raised KeyError: 'joint' when JAX compiled it for actions Discrete(size=2)"),
    "branches": (Branches, "step raised TracerBoolConversionError"),
    "global randomness": (DrawsFromNumpy, "step must depend on its arguments alone, two traces of it differ: draw"),
    "wrong actions": (
        functools.partial(Walk, actions=Continuous(3, (-1.0,) * 3, (1.0,) * 3)),
        "the observation of step must be numbers of shape (2,)|step raised",
    ),
    "foreign actions": (
        functools.partial(Walk, actions=gymnasium.spaces.Discrete(2)),
        "actions must be a floppy.tasks.Discrete or Continuous, got a Discrete",
    ),
    "no actions": (functools.partial(Walk, actions=Discrete(0)), "the size of actions must be a positive whole"),
    "bounds": (
        functools.partial(Walk, actions=Continuous(1, (0.0,), (0.0,))),
        "the bounds of actions must be finite, with low below high, got (0.0,) and (0.0,)",
    ),
    "bounds' number": (
        functools.partial(Walk, actions=Continuous(2, (0.0,), (1.0,))),
        "the bounds of actions must be 2 each, got 1 and 1",
    ),
    "text as bounds": (
        functools.partial(Walk, actions=Continuous(1, ("a",), ("b",))),  # type: ignore[arg-type]
        "the bounds of actions must be finite, with low below high, got ('a',) and ('b',)",
    ),
    "huge bounds": (
        functools.partial(Walk, actions=Continuous(1, (-1e300,), (1e300,))),
        r"the bounds of actions must be from -1e\+30 to 1e\+30, got (-1e\+300,) and (1e\+300,)",
    ),
    "close bounds": (
        functools.partial(Walk, actions=Continuous(1, (1e8,), (1e8 + 1,))),
        "the bounds of actions must be further apart, in float32 they are equal, got (100000000.0,) and (100000001.0,)",
    ),
    "no bounds": (
        functools.partial(Walk, actions=Continuous(0, (), ())),
        "the size of actions must be a positive whole number, got 0",
    ),
    "many actions": (functools.partial(Walk, actions=Discrete(10**9)), "the size of actions must be at most 65536"),
    "many steps": (
        functools.partial(Walk, max_steps=10**12),
        "max_steps must be at most 2147483647, got 1000000000000",
    ),
    "huge return": (
        functools.partial(Walk, max_return=10**400),
        "max_return must be a finite number or None, got 1000",
    ),
    "kept from the last call": (Keeps, "step must depend on its arguments alone, two traces of it differ"),
    "shape as list": (functools.partial(Walk, observation_shape=2), "observation_shape must be a tuple of positive"),
    "steps": (functools.partial(Walk, max_steps=0), "max_steps must be a positive whole number, got 0"),
    "return": (functools.partial(Walk, max_return=float("nan")), "max_return must be a finite number or None, got nan"),
    "package": (functools.partial(Walk, package=None), "package must be text, got None"),
}

# --- breaches that show when it is played ---


class ResetsWithKey(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        after = super().step(key, state, action)
        fresh = self.reset(self.reset_key(key))
        both = (after.state, after.observation)
        state, observation = jax.tree.map(
            lambda new, old: jnp.where(after.terminated | after.truncated, new, old), fresh, both
        )
        return after._replace(state=state, observation=observation)

    def reset_key(self, key: jax.Array) -> jax.Array:
        return key


class ResetsWithSplitKey(ResetsWithKey):
    def reset_key(self, key: jax.Array) -> jax.Array:
        return jax.random.split(key)[1]


class ResetsToTheSamePlace(ResetsWithKey):
    def reset(self, key: jax.Array) -> Any:
        return self.started(jnp.full((), 0.1))


class NeverEnds(Walk):
    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Any:
        return super().step(key, state, action)._replace(terminated=jnp.asarray(False), truncated=jnp.asarray(False))


def sometimes_nan(value: jax.Array, after: Transition) -> jax.Array:
    return jnp.where(after.state.time == 2, jnp.nan, value)


RESETS = "step resets at the end of an episode: return the state and the observation that it ended in"
PLAYED = {
    "NaN at first": (
        started(lambda state, observation: (state, observation / 0)),
        "every observation must be finite, got NaN or infinity at step 0 of an episode with random actions",
    ),
    "NaN observation": (
        changed(observation=lambda after: sometimes_nan(after.observation, after)),
        "every observation must be finite, got NaN or infinity at step 2 of an episode with random actions",
    ),
    "NaN reward": (
        changed(reward=lambda after: sometimes_nan(after.reward, after)),
        "every reward must be finite, got NaN or infinity at step 2 of an episode with random actions",
    ),
    "resets with key": (ResetsWithKey, RESETS),
    "resets with a split key": (ResetsWithSplitKey, RESETS),
    "resets to the same place": (ResetsToTheSamePlace, RESETS),
    "never ends": (
        NeverEnds,
        "an episode with random actions has not ended after max_steps = 6 steps: return truncated",
    ),
}
BREACHES = TRACED | PLAYED


@pytest.fixture(scope="module")
def families() -> Iterator[None]:
    kinds = {kind.__name__: kind for kind in (OneElementReward, WholeNumbers, CarriesKey, Stateless, ReturnsHome)}

    def walk(rest: str) -> Any:
        kind: Any = BREACHES[rest][0] if rest in BREACHES else kinds.get(rest, Walk)
        return kind(rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "walk", walk)
        patch.setitem(FAMILIES, "labels", Labels)
        patch.setitem(FAMILIES, "hosted", lambda rest: Hosted(rest))
        yield


def refusal(task: Any, **options: Any) -> str:
    with pytest.raises(FloppyError) as caught:
        check_task(task, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def said_of(wanted: str) -> re.Pattern[str]:
    """A sentence as a pattern: brackets stand for themselves, `.*` and `|` do not."""
    return re.compile(re.sub(r"([()\[\]])", r"\\\1", wanted))


@pytest.mark.slow
@pytest.mark.parametrize("fault", BREACHES)
def test_breaches_are_named(fault: str) -> None:
    kind, wanted = BREACHES[fault]
    message = refusal(kind(fault))
    assert message.startswith(f"Task walk/{fault} breaks the contract of a task ({OWN_PAGE}): ")
    assert said_of(wanted).search(message), message


def test_a_missing_attribute_is_named() -> None:
    task: Any = SimpleNamespace(task_id="some/task", observation_shape=(2,), actions=Discrete(2))
    assert f"some/task breaks the contract of a task ({OWN_PAGE}): it has no max_steps" in _refused_unhashable(task)


def _refused_unhashable(task: Any) -> str:
    class Hashable(SimpleNamespace):
        __hash__ = object.__hash__

    return refusal(Hashable(**vars(task)))


def test_a_task_without_methods_is_named() -> None:
    task = SimpleNamespace(
        task_id="some/task", observation_shape=(2,), actions=Discrete(2), max_steps=1, max_return=None, package="floppy"
    )
    assert "it has neither reset and step (JaxTask), nor make_vector" in _refused_unhashable(task)


def test_a_task_that_cannot_be_hashed_is_named() -> None:
    assert "cannot be hashed (unhashable type: 'list'): let it be" in refusal(Walk(fault=["a", "list"]))
    assert "observation_shape must be a tuple of positive whole numbers, got [2]" in refusal(
        Walk(observation_shape=[2])
    )


@pytest.mark.slow
def test_an_id_must_stand_for_the_task() -> None:
    @dataclasses.dataclass(frozen=True)
    class Stray(Walk):
        @property
        def task_id(self) -> str:
            return "nowhere/at-all"

    check_task(Stray(), is_registered=False)
    assert "its task_id stands for no task (There is no task 'nowhere/at-all'" in refusal(Stray())
    assert "its task_id stands for Walk(" in refusal(Walk(max_steps=7))


# --- the doors ---


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["reward", "NaN reward"])
def test_a_run_of_a_broken_task_ends_at_the_door(fault: str, tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match=f"^Task walk/{fault} breaks the contract"):
        distill(DistillConfig(f"walk/{fault}"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()
    with pytest.raises(FloppyError, match=f"^Task walk/{fault} breaks the contract"):
        evaluate_random(make_task(f"walk/{fault}"), episodes=2)


def test_tasks_that_come_with_floppy_cost_nothing_at_the_door(monkeypatch: pytest.MonkeyPatch) -> None:
    def play(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr("floppy.tasks.check._check_once", play)
    for name in ("cartpole", "gymnax/CartPole-v1", "images/digits", "gymnasium/CartPole-v1"):
        check_own_task(make_task(name))
    with pytest.raises(AssertionError):
        check_own_task(make_task(f"gymnasium/{PREFIX}Sign-v0"))
    with pytest.raises(AssertionError):
        check_own_task(Walk())


def test_a_task_is_played_once(monkeypatch: pytest.MonkeyPatch) -> None:
    check_task(Walk())
    monkeypatch.setattr("floppy.tasks.check._check_jax", None)
    check_task(Walk())


# --- host tasks ---


@dataclasses.dataclass(frozen=True)
class Hosted:
    """The one-step environment Target as a host task, in a vector of which one thing is wrong."""

    fault: str = "sound"
    observation_shape: Any = (2,)
    actions: Any = PLANE
    max_steps: int = 20
    max_return: float | None = None
    package: str = "floppy"

    @property
    def task_id(self) -> str:
        return f"hosted/{self.fault}"

    def make_vector(self, count: int, *, training: bool) -> Any:
        modes = {mode.value: mode for mode in AutoresetMode}
        mode = modes.get(self.fault, AutoresetMode.SAME_STEP)
        vector = SyncVectorEnv([lambda: OneStep(self.fault)] * count, autoreset_mode=mode)
        if self.fault == "no mode":
            vector.metadata = {}
        if self.fault == "one copy":
            vector.num_envs = 1
        if self.fault == "raises when made":
            raise RuntimeError("no licence")
        return vector


class OneStep(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-10, 10, (2,))
    action_space = gymnasium.spaces.Box(np.array([-1, -2], np.float32), np.array([1, 2], np.float32))

    def __init__(self, fault: str) -> None:
        self.fault = fault
        if fault == "observation space":
            self.observation_space = gymnasium.spaces.Box(-10, 10, (3,))
        if fault == "action space":
            self.action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return np.zeros(2, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        if self.fault == "raises":
            raise RuntimeError("the cable is out")
        if self.fault == "exits":
            raise SystemExit(3)
        observation = np.full(2, np.inf if self.fault == "infinite" else 0.0, np.float32)
        return observation, np.nan if self.fault == "NaN reward" else 1.0, True, False, {}


HOSTED = {
    "NextStep": "the autoreset_mode of make_vector's environment must be AutoresetMode.SAME_STEP, .*, got .*NEXT_STEP",
    "Disabled": "the autoreset_mode of make_vector's environment must be AutoresetMode.SAME_STEP, .*, got .*DISABLED",
    "one copy": "num_envs of make_vector(2) must be 2, got 1",
    "observation space": "make_vector's single_observation_space must be (2,), got (3,)",
    "action space": "make_vector's single_action_space must be that of Continuous",
    "infinite": "must be finite, got NaN or infinity",
    "NaN reward": "rewards must be finite, got NaN or infinity",
    "raises": "hosted/raises raised an error when stepped (RuntimeError: the cable is out): repair the environment",
    "exits": "hosted/exits raised an error when stepped (SystemExit: 3)",
    "raises when made": "raised an error when made (RuntimeError: no licence)",
}


@pytest.mark.parametrize("fault", HOSTED)
def test_breaches_of_host_tasks_are_named(fault: str) -> None:
    message = refusal(Hosted(fault))
    assert f"hosted/{fault}" in message
    assert said_of(HOSTED[fault]).search(message), message


def test_what_an_environment_raises_is_its_own_fault() -> None:
    with pytest.raises(FaultyEnvironmentError):
        check_task(Hosted("raises"))


@pytest.mark.parametrize("fault", ["sound", "no mode"])
def test_sound_host_tasks_pass(fault: str) -> None:
    check_task(Hosted(fault))


def test_a_vector_that_says_nothing_and_keeps_the_last_observation_is_named() -> None:
    @dataclasses.dataclass(frozen=True)
    class Silent(Hosted):
        def make_vector(self, count: int, *, training: bool) -> Any:
            vector = SyncVectorEnv([lambda: OneStep("")] * count, autoreset_mode=AutoresetMode.NEXT_STEP)
            vector.metadata = {}
            return vector

    assert "infos of a step in which an episode ends must hold final_obs" in refusal(Silent(), is_registered=False)


# --- labelled examples ---


@dataclasses.dataclass(frozen=True)
class Labels:
    fault: str = "sound"
    split: str = "test"
    observation_shape: Any = (2, 2, 1)
    actions: Any = THREE
    max_steps: int = 1
    max_return: float | None = None
    package: str = "floppy"

    @property
    def task_id(self) -> str:
        return f"labels/{self.fault}"

    def labelled(self, split: Any = None) -> Labelled:
        images, labels = np.zeros((6, 2, 2, 1), np.float32), np.arange(6) % 3
        if (split or self.split) == "held-out":
            images = {"shape": images[..., 0], "NaN": images + np.nan, "bytes": images.astype(np.uint8)}.get(
                self.fault, images
            )
            labels = {"range": labels + 1, "floats": labels / 2, "count": labels[:5]}.get(self.fault, labels)
            if self.fault == "raises":
                raise OSError("no such file")
        return Labelled(images, labels)

    def with_split(self, split: Any) -> Any:
        return self if self.fault == "with_split" else dataclasses.replace(self, split=split)


LABELLED = {
    "shape": "the images of split held-out must be numbers of shape (n, 2, 2, 1), got shape (6, 2, 2)",
    "NaN": "the images of split held-out must be finite, got NaN or infinity",
    "bytes": "the images of all splits must be of one type, got float32 and uint8",
    "range": "the labels of split held-out must be from 0 to 2, got 1 to 3",
    "floats": "the labels of split held-out must be whole numbers of shape (6,), got shape (6,) and type float64",
    "count": "the labels of split held-out must be whole numbers of shape (6,), got shape (5,)",
    "raises": "labelled('held-out') raised OSError: no such file",
    "with_split": "with_split('train') must be the task of that split, got test",
}


@pytest.mark.parametrize("fault", LABELLED)
def test_breaches_of_labelled_tasks_are_named(fault: str) -> None:
    message = refusal(Labels(fault))
    assert message.startswith(f"Task labels/{fault} breaks the contract")
    assert said_of(LABELLED[fault]).search(message), message


def test_sound_labelled_tasks_pass() -> None:
    check_task(Labels())
    check_task(Labels(split="train"))
    assert "split must be one of train, held-out, test, got 'all'" in refusal(Labels(split="all"))


def test_a_registered_family_is_found_but_not_listed() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "mine", None)
        FAMILIES.pop("mine")
        register("mine", lambda rest: Walk(rest))
        assert make_task("mine/x") == Walk("x")
        assert not [name for name in list_tasks() if name.startswith("mine/")]
