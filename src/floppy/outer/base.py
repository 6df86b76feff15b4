"""The contract of an outer loop, and the bi-level problem that it is given."""

import dataclasses
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from floppy.cloning import Cloning, Distilled
from floppy.keys import named_key
from floppy.learners import LearnerDistribution, Network
from floppy.normalise import RunningStatistics
from floppy.tasks.base import Continuous, JaxTask

Info = dict[str, jax.Array]
"""Named scalars that a step reports; the same names stand in the log and in the docs."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is distilled, for whom: everything but the way in which the dataset is improved."""

    task: JaxTask
    learners: tuple[LearnerDistribution, ...]
    """Mixture with equal shares."""
    cloning: Cloning
    examples: int
    """`k`."""
    initial_rate: float
    """Where the inner rate η starts."""
    encoder_layers: int
    """`l` leading layers are trained in the outer loop and given to every learner; all of them: plain PPO."""
    outer_steps: int
    """Length of the run, over which rates are annealed."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """One per member of the mixture."""
        return tuple(Network(d, self.task.observation_shape, self.task.actions) for d in self.learners)

    def init_distilled(self, key: jax.Array) -> Distilled:
        """The dataset before the first step: standard normal observations and targets, a fresh encoder."""
        actions = self.task.actions
        observations = jax.random.normal(named_key(key, "observations"), (self.examples, *self.task.observation_shape))
        targets = jax.random.normal(named_key(key, "targets"), (self.examples, actions.size))
        if self.cloning.loss == "cross-entropy":
            targets = jax.nn.softmax(targets)
        log_std = jnp.zeros(actions.size if isinstance(actions, Continuous) else 0)
        encoder = self.networks[0].init(named_key(key, "encoder")).layers[: self.encoder_layers]
        return Distilled(observations, targets, log_std, jnp.asarray(self.initial_rate, jnp.float32), encoder)


class OuterLoop(Protocol):
    """Improves a distilled dataset step by step. Implementations are frozen dataclasses: they are the configuration.

    `state` is a pytree of arrays: it can be saved, sharded and compared.
    """

    def init(self, problem: Problem, key: jax.Array) -> Any:
        """The state before the first step."""

    def step(self, problem: Problem, state: Any, key: jax.Array) -> tuple[Any, Info]:
        """One outer step; pure, so that many run in one compiled call."""

    def distilled(self, state: Any) -> Distilled:
        """The dataset as it stands."""

    def statistics(self, state: Any) -> RunningStatistics | None:
        """The observation normaliser as it stands, if there is one."""

    def env_steps(self, problem: Problem) -> int:
        """Environment steps that one outer step takes."""
