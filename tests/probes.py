"""Probe problems after Andy Jones: tiny tasks, each solved by one known policy and each failing for one reason only.

Also small helpers that several test files share: quick compilation, learners that are cheap to draw, a dataset by hand.
"""

import dataclasses
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike

from floppy.cloning import GradientStep
from floppy.dataset import Card, DistilledDataset
from floppy.errors import FloppyError
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.outer import Problem
from floppy.run.folder import METRICS_NAME
from floppy.spaces import Continuous, Discrete
from floppy.tasks import make_task
from floppy.tasks.base import JaxTask, Transition
from floppy.teach.codec import DISTRIBUTION

SMALL = LearnerDistribution(width=(16, 16), depth=(1, 1), initialiser=("xavier",))
"""Learners that are cheap to draw, to compile and to clone."""


TWO_ACTIONS = Discrete(2)


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
    actions: Discrete = TWO_ACTIONS
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
    actions: Discrete = TWO_ACTIONS
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
class ImageProbe(ObservationProbe):
    """The cue of the observation probe as an image of 8 x 6 pixels, one half bright."""

    observation_shape: tuple[int, ...] = (8, 6, 1)

    def observe(self, cue: jax.Array) -> jax.Array:
        half = jnp.where(jnp.arange(6) < 3, 1.0, -1.0)
        return jnp.broadcast_to((cue * half)[:, None], self.observation_shape)

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        state, cue = super().reset(key)
        return state, self.observe(cue[0])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        after = super().step(key, state, action)
        return after._replace(observation=self.observe(state.cue))


@dataclasses.dataclass(frozen=True)
class DelayProbe:
    """Two steps; action 1 in the first earns 1 in the second, unseen till then: fails if credit does not flow back."""

    task_id: str = "probe/delay"
    observation_shape: tuple[int, ...] = (2,)
    actions: Discrete = TWO_ACTIONS
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
    actions: Discrete = TWO_ACTIONS
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


def make_problem(task: JaxTask | None = None, **changes: Any) -> Problem:
    """A small problem for either outer loop: two examples, one gradient step."""
    values: dict[str, Any] = {
        "task": task or ObservationProbe(),
        "learners": (SMALL,),
        "cloning": GradientStep(),
        "examples": 2,
        "initial_rate": 1.0,
        "encoder_layers": 0,
        "outer_steps": 60,
    }
    return Problem(**(values | changes))


def plain_problem(task: JaxTask | None = None, **changes: Any) -> Problem:
    """A problem of which the encoder holds both layers: plain PPO, or direct neuroevolution."""
    return make_problem(task, examples=0, encoder_layers=2, **changes)


def hand_policies(task: JaxTask, kernels: ArrayLike, biases: ArrayLike) -> tuple[LayeredNetwork, Weights]:
    """`L` policies with outputs `tanh(o) @ kernel + bias`: `kernels [L, o, a]`, `biases [L, a]`."""
    kernels, biases = np.asarray(kernels, np.float32), np.asarray(biases, np.float32)
    learners, size, _ = kernels.shape
    network = LayeredNetwork(
        LearnerDistribution(width=(size, size), depth=(1, 1)), task.observation_shape, task.actions
    )
    identity = {"kernel": np.tile(np.eye(size, dtype=np.float32), (learners, 1, 1)), "bias": np.zeros((learners, size))}
    log_std = np.zeros((learners, task.actions.size if isinstance(task.actions, Continuous) else 0))
    weights = Weights((identity, {"kernel": kernels, "bias": biases}), (np.zeros(learners),) * 2, log_std)
    return network, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), weights)


def hand_dataset(
    card: dict[str, Any] | None = None, *, sizes: tuple[int, int] = (4, 2), **tensors: Any
) -> DistilledDataset:
    """Random examples of `sizes` (observation, actions) for ndcartpole/1; `card` and `tensors` replace parts of it."""
    random = np.random.default_rng(0)
    entries: dict[str, Any] = {
        "task": "ndcartpole/1",
        "actions": {"kind": "discrete", "size": sizes[1]},
        "cloning": {"kind": "GradientStep", "loss": "mse", "steps": 1},
        "learners": [dataclasses.asdict(LearnerDistribution())],
        "algorithm": {"name": "hand"},
        "normaliser": "none",
        "command": "",
        "versions": {"floppy": importlib.metadata.version(DISTRIBUTION)},
    }
    arrays: dict[str, Any] = {
        "observations": random.normal(size=(3, sizes[0])),
        "targets": random.normal(size=(3, sizes[1])),
        "inner_rate": 0.5,
    }
    return DistilledDataset(Card(**(entries | (card or {}))), **(arrays | tensors))


def logged(folder: Path) -> list[dict[str, Any]]:
    """The lines of a run's log, without what depends on the clock and on what was compiled before."""
    lines = [json.loads(line) for line in (folder / METRICS_NAME).read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "compiles")} for line in lines]


def task_refusal(name: str) -> str:
    """The one sentence by which a task's name is refused."""
    with pytest.raises(FloppyError) as caught:
        make_task(name)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def assert_is_silent(program: str, folder: Path) -> None:
    """A program, in a process of its own, ends well, prints nothing and leaves no file in its folder."""
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list(folder.iterdir()) == []
