"""The policy in a dataset's file, which learners imitate: at first (kickstarting; Schmitt et al., 2018), or alone."""

import dataclasses
from typing import Any

import jax
import numpy as np

from floppy.dataset.file import origin
from floppy.learner.network import Network
from floppy.outer.base import Problem
from floppy.outer.files import check_finite, lesson_for, refusals_of
from floppy.outer.history import History, entries_of, history_of
from floppy.play.normalise import RunningStatistics, normalise
from floppy.spaces import ActionSpace
from floppy.tasks.base import Task
from floppy.teach.policies import train


@dataclasses.dataclass(frozen=True)
class Teacher:
    """One trained policy. It is known by its origin, so that compiled functions can hold it as a constant."""

    origin: str
    """The task of its file, and `sha256:` with the file's digest, as on a card under `parents`."""
    network: Network[Any]
    weights: Any = dataclasses.field(compare=False, repr=False)
    statistics: RunningStatistics | None = dataclasses.field(compare=False, repr=False)
    history: History = dataclasses.field(default=History(None, False), compare=False, repr=False)

    @property
    def log_std(self) -> jax.Array:
        """`[a]`, or `[0]` for discrete actions."""
        log_std: jax.Array = self.weights.log_std
        return log_std

    def log_std_for(self, actions: ActionSpace) -> jax.Array:
        """`[a]` in the units of a pupil's actions."""
        return actions.log_std_of_policy(self.log_std, self.network.actions)

    def outputs(self, observations: jax.Array, actions: ActionSpace) -> jax.Array:
        """Logits, or means within the bounds in a pupil's units: `[..., a]` for raw observations `[..., *obs]`."""
        shape = self.network.observation_shape
        leading = observations.shape[: observations.ndim - len(shape)]
        rows = normalise(self.statistics, observations.reshape(-1, *shape))
        outputs = self.network.actions.clip(self.network.apply(self.weights, rows))
        return actions.of_policy(outputs).reshape(*leading, -1)


def teacher_of(problem: Problem) -> Teacher | None:
    """The teacher that the outer loop has read, if there is one."""
    return problem.context if isinstance(problem.context, Teacher) else None


def parents_of(problem: Problem) -> list[str]:
    """Files that the problem begins with or learns from, as a card lists them."""
    return [each.origin for each in (problem.start, teacher_of(problem)) if each]


def before(problem: Problem) -> dict[str, Any]:
    """What a card says of the runs that made these files."""
    teacher = teacher_of(problem)
    return entries_of([each.history for each in (problem.start, teacher) if each], taught=teacher is not None)


def read_teacher(path: str, task: Task) -> Teacher:
    """The policy in a dataset's file: that of an encoder with every layer (plain PPO), or one clone of its examples.

    Raises:
      FloppyError: if the file is no dataset, or not one for the task's observations and actions, or if what it trains
        diverges.
    """
    with refusals_of("Teacher", path):
        return _teacher(path, task)


def _teacher(path: str, task: Task) -> Teacher:
    dataset = lesson_for(path, task).dataset
    policies = train(dataset, jax.random.key(0))
    weights, statistics = jax.tree.map(
        np.asarray, (jax.tree.map(lambda leaf: leaf[0], policies.weights), policies.statistics)
    )
    return Teacher(origin(dataset), policies.network, check_finite(weights), statistics, history_of(dataset))
