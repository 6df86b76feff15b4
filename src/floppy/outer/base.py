"""The contract of an outer loop, and the bi-level problem that it is given."""

import dataclasses
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from floppy.arena import ON_DEVICE, Arena, ImageArena
from floppy.cloning import Cloning, Distilled
from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.learners import LearnerDistribution, Network, Weights
from floppy.normalise import RunningStatistics, normalise
from floppy.tasks.base import Continuous, SupervisedTask, Task
from floppy.teacher import Teacher

Parameters = dict[str, Any]
"""Improved parts of θ by their names in `Distilled`."""

Info = dict[str, jax.Array]
"""Named scalars that a step reports; the same names stand in the log and in the docs."""


LEAST_INNER_RATE = 1e-6
TARGETS = ("learned", "one-hot")
LABELLED_EXAMPLES = ("class-means", "samples")
INITIAL_EXAMPLES = ("normal", "zeros", "random-policy", *LABELLED_EXAMPLES)
DOUBT = 0.1
"""Share of the probability that learned class labels start with spread over all classes."""
SURE = 10.0
"""How far above the others a learned logit starts: what answers end at, for they are scored by their likelihood."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is distilled, for whom: everything but the way in which the dataset is improved."""

    task: Task
    learners: tuple[LearnerDistribution, ...]
    """Mixture with equal shares."""
    cloning: Cloning
    examples: int
    """`k`."""
    initial_rate: float
    """Where the inner rate η starts."""
    encoder_layers: int
    """`l` leading layers are trained in the outer loop and given to every learner; all of them: plain PPO, or direct
    neuroevolution."""
    outer_steps: int
    """Length of the run, over which rates are annealed."""
    targets: str = "learned"
    """`learned`, or `one-hot`: fixed class labels, spread evenly over the actions."""
    initial_examples: str = "normal"
    """Where the examples start: see `init_distilled`."""
    learned_rate: bool = True
    """Whether η is improved too."""
    teacher: Teacher | None = None
    """Whom learners imitate at first, if PPMO was asked for one. Here, as compiled functions know this by its hash."""

    @property
    def networks(self) -> tuple[Network, ...]:
        """One per member of the mixture."""
        return tuple(Network(d, self.task.observation_shape, self.task.actions) for d in self.learners)

    @property
    def reads_log_std(self) -> bool:
        """Whether `log_std` is of use: as a target of mse, or as the policy's own where nothing is cloned."""
        return self.cloning.loss == "mse" or self.encoder_layers == self.learners[0].layers

    def share(self, count: int, what: str) -> int:
        """How many of `count` learners each distribution of the mixture gets."""
        groups = len(self.learners)
        if count % groups:
            raise FloppyError(
                f"{count} {what} cannot be shared equally by {groups} learner distributions: "
                f"give a multiple of {groups}."
            )
        return count // groups

    def draw(self, network: Network, key: jax.Array) -> Weights:
        """A fresh learner; layers that the encoder gives are left out: nothing reads them, and they can be large."""
        weights = network.init(key)
        return weights._replace(layers=({},) * self.encoder_layers + weights.layers[self.encoder_layers :])

    def init_distilled(
        self, key: jax.Array, statistics: RunningStatistics | None = None, arena: Arena = ON_DEVICE
    ) -> Distilled:
        """The dataset before the first step.

        Observations and learned targets are standard `normal`, or `zeros`; with `random-policy` the observations are
        met by random actions, normalised by `statistics`, and the targets zeros, which ask for no action in particular.
        With `class-means` and `samples` they are what they say, of labelled examples in classes spread evenly, and the
        targets their labels, as probabilities or as logits around 0. The encoder is fresh.
        """
        met = None
        if self.initial_examples == "random-policy":
            met = arena.random_observations(self.task, named_key(key, "random policy"), self.examples)
        if self.initial_examples in LABELLED_EXAMPLES and self.examples:
            assert isinstance(arena, ImageArena)
            means = self.initial_examples == "class-means"
            met = arena.class_examples(named_key(key, self.initial_examples), self._classes, means=means)
        return arena.compiled(Problem._init_distilled)(self, key, statistics, met)

    @property
    def _target_unit(self) -> float:
        """How large learned logits are; steps of an optimiser are made for numbers around 1."""
        return SURE if isinstance(self.task, SupervisedTask) else 1.0

    @property
    def _classes(self) -> np.ndarray:
        """`[k]`: a class per example, spread evenly."""
        return np.arange(self.examples) * self.task.actions.size // max(self.examples, 1)

    def _init_distilled(self, key: jax.Array, statistics: RunningStatistics | None, met: jax.Array | None) -> Distilled:
        actions = self.task.actions
        observations = jax.random.normal(named_key(key, "observations"), (self.examples, *self.task.observation_shape))
        targets = jax.random.normal(named_key(key, "targets"), (self.examples, actions.size))
        if self.initial_examples == "zeros":
            observations, targets = jnp.zeros_like(observations), jnp.zeros_like(targets)
        if met is not None:
            observations, targets = normalise(statistics, met), jnp.zeros_like(targets)
        one_hot = jax.nn.one_hot(self._classes, actions.size)
        if self.initial_examples in LABELLED_EXAMPLES:
            is_probability = self.cloning.loss == "cross-entropy"
            probabilities, logits = (1 - DOUBT) * one_hot + DOUBT / actions.size, SURE * (one_hot - 1 / actions.size)
            targets = jnp.log(probabilities) if is_probability else logits
        if self.targets == "one-hot":
            targets = one_hot
        elif self.cloning.loss == "cross-entropy":
            targets = jax.nn.softmax(targets)
        log_std = jnp.zeros(actions.size if isinstance(actions, Continuous) else 0)
        encoder = self.networks[0].init(named_key(key, "encoder")).layers[: self.encoder_layers]
        return Distilled(observations, targets, log_std, jnp.asarray(self.initial_rate, jnp.float32), encoder)

    def parameters(self, distilled: Distilled) -> Parameters:
        """The part of θ that is improved, in coordinates in which every real number is allowed.

        The inner rate goes by its logarithm, so that a step changes it by a factor (the published code steps η itself,
        which from a small start falls to its floor). Class probabilities, the targets of cross-entropy, go by
        their logarithms too, and so stay probabilities.
        """
        free: Parameters = {"observations": distilled.observations, "encoder": distilled.encoder}
        if self.reads_log_std:
            free["log_std"] = distilled.log_std
        if self.targets == "learned":
            is_probability = self.cloning.loss == "cross-entropy"
            free["targets"] = jnp.log(distilled.targets) if is_probability else distilled.targets / self._target_unit
        if self.learned_rate:
            free["inner_rate"] = jnp.log(distilled.inner_rate)
        return free

    def distilled(self, parameters: Parameters, fixed: Distilled) -> Distilled:
        """θ from what `parameters` gave; what is not improved comes from `fixed`."""
        changed = dict(parameters)
        if "targets" in changed:
            free = changed["targets"]
            changed["targets"] = (
                jax.nn.softmax(free) if self.cloning.loss == "cross-entropy" else free * self._target_unit
            )
        if "inner_rate" in changed:
            changed["inner_rate"] = jnp.exp(changed["inner_rate"])
        return fixed._replace(**changed)

    def improved(self, parameters: Parameters, fixed: Distilled) -> Distilled:
        """As `distilled`, for the end of a step: an inner rate that a step made too small is put back to the least."""
        distilled = self.distilled(parameters, fixed)
        return distilled._replace(inner_rate=jnp.maximum(distilled.inner_rate, LEAST_INNER_RATE))


class OuterLoop(Protocol):
    """Improves a distilled dataset step by step. Implementations are frozen dataclasses: they are the configuration.

    `state` is a pytree of arrays: it can be saved, sharded and compared.
    """

    name: ClassVar[str]
    """The method's, as on the command line and the card."""

    def init(self, problem: Problem, key: jax.Array, arena: Arena = ON_DEVICE) -> Any:
        """The state before the first step."""

    def step(self, problem: Problem, state: Any, key: jax.Array, arena: Arena = ON_DEVICE) -> tuple[Any, Info]:
        """One outer step. The info counts its `env_steps`.

        It is written as pieces with play in between. On the device it is pure, so that many run in one compiled call.
        On the host the arena compiles the pieces, each of them pure, and Python plays.
        """

    def restarted(self, state: Any) -> Any:
        """The state for environments that begin new episodes, as live ones do when a run is resumed."""

    def distilled(self, state: Any) -> Distilled:
        """The dataset as it stands."""

    def statistics(self, state: Any) -> RunningStatistics | None:
        """The observation normaliser as it stands, if there is one."""
