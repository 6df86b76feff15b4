"""Tiny Gymnasium environments with known answers, sound ones and faulty ones, registered when this is imported."""

import time
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from floppy.tasks import make_task

PREFIX = "FloppyTest/"


class Probe(gymnasium.Env):
    """What the probes share; a subclass says what a step does."""

    observation_space: spaces.Space = spaces.Box(-10, 10, (2,), np.float64)
    action_space: spaces.Space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        assert options is None
        self.time = 0
        return self.observation(), {"some": "info"}

    def observation(self) -> Any:
        return np.zeros(2)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.time += 1
        return self.observation(), self.reward(action), self.ended(), False, {"some": "info"}

    def reward(self, action: Any) -> Any:
        return 0.0

    def ended(self) -> bool:
        return True


class Sign(Probe):
    """One step; the observation's sign says which of the actions -3 and -2 earns 1."""

    observation_space = spaces.Box(-1, 1, (1, 1), np.float64)
    action_space = spaces.Discrete(2, start=-3)

    def observation(self) -> np.ndarray:
        if self.time == 0:
            self.cue = float(self.np_random.choice([-1, 1]))
        return np.full((1, 1), self.cue)

    def reward(self, action: Any) -> float:
        return float((action == -2) == (self.cue > 0))


class Clock(Probe):
    """Observations tell the time and the episode, rewards the time; ends after `length` steps, 0 for the time limit."""

    def __init__(self, length: int = 0) -> None:
        self.length, self.episode = length, -1

    def observation(self) -> np.ndarray:
        self.episode += self.time == 0
        return np.array([self.time, self.episode], np.float64)

    def reward(self, action: Any) -> float:
        return float(self.time)

    def ended(self) -> bool:
        return self.time == self.length


class Reuse(Clock):
    """A clock that writes all its observations into the same array."""

    observation_space = spaces.Box(-10, 10, (2,), np.float32)

    def __init__(self) -> None:
        super().__init__()
        self.array = np.zeros(2, np.float32)

    def observation(self) -> np.ndarray:
        self.array[:] = super().observation()
        return self.array


class Length(Probe):
    """Episodes of 1 to 9 steps, drawn when they start, and 1 for every step."""

    def observation(self) -> np.ndarray:
        if self.time == 0:
            self.length = int(self.np_random.integers(1, 10))
        return np.array([self.length, self.time], np.float64)

    def reward(self, action: Any) -> float:
        return 1.0

    def ended(self) -> bool:
        return self.time == self.length


class Target(Probe):
    """One step; the action, of shape [1, 2], should be (0.5, -0.5)."""

    action_space = spaces.Box(np.array([[-1, -2]]), np.array([[1, 2]]), dtype=np.float64)

    def reward(self, action: Any) -> float:
        return -float(np.sum((action[0] - [0.5, -0.5]) ** 2))


class Narrow(Probe):
    """Rewards are actions, between bounds that float32 rounds outwards; any other is an error."""

    action_space = spaces.Box(-0.1, 0.1, (1,), np.float64)

    def reward(self, action: Any) -> float:
        return float(action[0])


class Echo(Probe):
    """One step of which the reward is the action."""

    action_space = spaces.Discrete(5)

    def reward(self, action: Any) -> float:
        return float(action)


class Image(Probe):
    observation_space = spaces.Box(0, 255, (4, 3, 2), np.uint8)

    def observation(self) -> np.ndarray:
        return np.arange(24, dtype=np.uint8).reshape(4, 3, 2)


class Faulty(Probe):
    """One-step episodes that go wrong in the way named, after so many steps of this copy."""

    def __init__(self, fault: str, after: int = 40) -> None:
        self.fault, self.after, self.steps = fault, after, 0

    def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
        if self.fault == "reset" and self.steps > self.after:
            raise RuntimeError("the cable\nis out")
        return super().reset(**options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        self.steps += 1
        observation, reward, *rest = super().step(action)
        if self.steps > self.after:
            if self.fault == "step":
                raise KeyError("joint")
            if self.fault == "exit":
                raise SystemExit(3)
            if self.fault == "four":
                return observation, reward, True, {}  # type: ignore[return-value]
            if self.fault == "hang":
                time.sleep(60)
            observation = {"shape": np.zeros(3), "nan": np.array([0.0, np.nan])}.get(self.fault, observation)
            reward = {"infinite": np.inf, "nan reward": np.nan}.get(self.fault, reward)
        return observation, reward, *rest


class Unfit(Probe):
    """Spaces that no task may have."""

    def __init__(self, observations: spaces.Space | None = None, actions: spaces.Space | None = None) -> None:
        self.observation_space = observations or self.observation_space
        self.action_space = actions or self.action_space


class OwnSpace(spaces.Space):
    """A space that Gymnasium does not know."""


FAULTS = ("reset", "step", "exit", "shape", "nan", "infinite", "nan reward")
UNFIT = {
    "SequenceObservation": {"observations": spaces.Sequence(Probe.observation_space)},
    "GraphObservation": {"observations": spaces.Graph(Probe.observation_space, None)},
    "NestedSequence": {"observations": spaces.Dict(a=spaces.Dict(b=spaces.Sequence(spaces.Discrete(2))))},
    "OwnSpace": {"observations": OwnSpace()},
    "NoObservation": {"observations": spaces.Box(0, 1, (0,))},
    "HugeObservation": {"observations": spaces.Dict(a=spaces.Discrete(10**12))},
    "MultiDiscrete": {"actions": spaces.MultiDiscrete([2, 2])},
    "ManyActions": {"actions": spaces.Discrete(10**9)},
    "MultiBinary": {"actions": spaces.MultiBinary(2)},
    "Unbounded": {"actions": spaces.Box(-np.inf, np.inf, (1,))},
    "Huge": {"actions": spaces.Box(-1e300, 1e300, (1,), np.float64)},
    "NearlyHuge": {"actions": spaces.Box(-3e38, 3e38, (1,))},
    "Close": {"actions": spaces.Box(1e8, 1e8 + 1, (1,), np.float64)},
    "WholeNumbers": {"actions": spaces.Box(0, 3, (1,), np.int64)},
    "Fixed": {"actions": spaces.Box(np.zeros(2), np.array([0.0, 1.0]), dtype=np.float64)},
}


def register(name: str, entry_point: Any, steps: int | None = 20, **options: Any) -> None:
    gymnasium.register(f"{PREFIX}{name}-v0", entry_point, max_episode_steps=steps, kwargs=options)


for kind in (Sign, Length, Target, Narrow, Echo, Image):
    register(kind.__name__, kind)
register("TimeLimit", Clock, 5)
register("Termination", Clock, 5, length=3)
register("Reuse", Reuse, 5)
register("Endless", Clock, None)
for fault in FAULTS:
    register("Faulty-" + fault.replace(" ", "-"), Faulty, fault=fault)
register("FaultyAtOnce", Faulty, fault="step", after=0)
register("FaultyReward", Faulty, fault="nan reward", after=0)
register("FaultyFour", Faulty, fault="four", after=0)
register("FaultyHangs", Faulty, fault="hang")
for name, options in UNFIT.items():
    register(name, Unfit, **options)


def probe(name: str) -> Any:
    """The task of one of them."""
    return make_task(f"gymnasium/{PREFIX}{name}-v0")


SAID = {
    "reset": r"raised an error when stepped \(RuntimeError: the cable is out\)",  # the next episode starts in the step
    "step": r"raised an error when stepped \(KeyError: 'joint'\)",
    "exit": r"raised an error when stepped \(SystemExit: 3\)",
    "shape": r"observation of shape \(3,\).*\(2,\)",
    "nan": "NaN as its observation",
    "infinite": "infinite value as its reward",
    "nan reward": "NaN as its reward",
}
"""What a run says of a fault."""
