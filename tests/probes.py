"""Probe problems after Andy Jones: tiny tasks, each solved by one known policy and each failing for one reason only.

Also small helpers that several test files share: quick compilation, learners that are cheap to draw, a dataset by hand.
"""

import dataclasses
import importlib.metadata
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.dataset import Card, DistilledDataset
from floppy.learners import LearnerDistribution
from floppy.tasks.base import Continuous, Discrete, Transition

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
    "xla_cpu_use_fusion_emitters": False,
}
"""Options for `jax.jit`: code that is several times faster to compile and slower to run, for what runs only briefly."""

SMALL = LearnerDistribution(width=(16, 16), depth=(1, 1), initialiser=("xavier",))
"""Learners that are cheap to draw, to compile and to clone."""


class ProbeState(NamedTuple):
    time: jax.Array
    """`[]` int: steps taken in this episode."""
    cue: jax.Array
    """`[]`: what a probe has to remember."""


def start(cue: jax.Array | float = 0.0) -> ProbeState:
    return ProbeState(jnp.zeros((), jnp.int32), jnp.asarray(cue, jnp.float32))


def transition(
    state: ProbeState,
    observation: Any,
    reward: Any,
    *,
    terminated: jax.Array | bool = False,
    truncated: jax.Array | bool = False,
) -> Transition:
    return Transition(
        state,
        jnp.asarray(observation, jnp.float32),
        jnp.asarray(reward, jnp.float32),
        jnp.asarray(terminated),
        jnp.asarray(truncated),
    )


@dataclasses.dataclass(frozen=True)
class ActionProbe:
    """One step, always the same observation, action 1 earns 1: fails if better actions do not become likelier."""

    task_id: str = "probe/action"
    observation_shape: tuple[int, ...] = (2,)
    actions: Discrete = Discrete(2)
    max_steps: int = 1
    max_return: float = 1.0
    package: str = "floppy"

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), jnp.array([1.0, -1.0])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        return transition(state._replace(time=state.time + 1), [1.0, -1.0], action == 1, terminated=True)


@dataclasses.dataclass(frozen=True)
class ObservationProbe:
    """One step, the observation's sign says which action earns 1: fails if policies do not read observations."""

    task_id: str = "probe/observation"
    observation_shape: tuple[int, ...] = (1,)
    actions: Discrete = Discrete(2)
    max_steps: int = 1
    max_return: float = 1.0
    package: str = "floppy"

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        cue = jax.random.rademacher(key, (), jnp.float32)
        return start(cue), cue[None]

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        right = action == (state.cue > 0)
        return transition(state._replace(time=state.time + 1), state.cue[None], right, terminated=True)


@dataclasses.dataclass(frozen=True)
class DelayProbe:
    """Two steps; action 1 in the first earns 1 in the second, unseen till then: fails if credit does not flow back."""

    task_id: str = "probe/delay"
    observation_shape: tuple[int, ...] = (2,)
    actions: Discrete = Discrete(2)
    max_steps: int = 2
    max_return: float = 1.0
    package: str = "floppy"

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), jnp.array([1.0, 0.0])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        first = state.time == 0
        following = ProbeState(state.time + 1, jnp.where(first, action.astype(jnp.float32), state.cue))
        return transition(following, [0.0, 1.0], jnp.where(first, 0.0, state.cue), terminated=~first)


@dataclasses.dataclass(frozen=True)
class ContinuousProbe:
    """One step, reward `-(a - target)²` summed over dimensions: fails if continuous actions do not learn."""

    target: tuple[float, ...] = (0.5,)
    task_id: str = "probe/continuous"
    observation_shape: tuple[int, ...] = (2,)
    max_steps: int = 1
    max_return: float = 0.0
    package: str = "floppy"

    @property
    def actions(self) -> Continuous:
        size = len(self.target)
        return Continuous(size, (-2.0,) * size, (2.0,) * size)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), jnp.array([1.0, -1.0])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        reward = -jnp.sum((action - jnp.array(self.target)) ** 2)
        return transition(state._replace(time=state.time + 1), [1.0, -1.0], reward, terminated=True)


@dataclasses.dataclass(frozen=True)
class TimeLimitProbe:
    """Action 1 earns 1 in every step and only a time limit ends it: fails if time limits count as terminations.

    The observation does not tell the time, so the optimal policy's value is `1 / (1 - γ)` everywhere.
    """

    max_steps: int = 5
    task_id: str = "probe/time-limit"
    observation_shape: tuple[int, ...] = (2,)
    actions: Discrete = Discrete(2)
    package: str = "floppy"

    @property
    def max_return(self) -> float:
        return float(self.max_steps)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), jnp.array([1.0, -1.0])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        time = state.time + 1
        return transition(state._replace(time=time), [1.0, -1.0], action == 1, truncated=time >= self.max_steps)


PROBES = (ActionProbe(), ObservationProbe(), DelayProbe(), ContinuousProbe(), TimeLimitProbe())


def hand_dataset(
    task: str = "ndcartpole/1", *, observation_size: int = 4, actions: int = 2, examples: int = 3, **changes: Any
) -> DistilledDataset:
    """A dataset for discrete actions with random examples; `changes` are keys of the card or tensors."""
    random = np.random.default_rng(0)
    card: dict[str, Any] = {
        "task": task,
        "actions": {"kind": "discrete", "size": actions},
        "cloning": {"kind": "GradientStep", "loss": "mse", "steps": 1},
        "learners": [dataclasses.asdict(LearnerDistribution())],
        "algorithm": {"name": "hand"},
        "normaliser": "none",
        "command": "",
        "versions": {"floppy": importlib.metadata.version("floppy")},
    }
    tensors: dict[str, Any] = {
        "observations": random.normal(size=(examples, observation_size)),
        "targets": random.normal(size=(examples, actions)),
        "inner_rate": 0.5,
    }
    card |= {name: value for name, value in changes.items() if name not in DistilledDataset.__annotations__}
    tensors |= {name: value for name, value in changes.items() if name in DistilledDataset.__annotations__}
    return DistilledDataset(Card(**card), **tensors)
