"""Distillation of labelled examples by meta-gradients through the cloning (Wang et al., 2018)."""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax
from optax.losses import softmax_cross_entropy_with_integer_labels

from floppy.cloning import Distilled, clone
from floppy.errors import MAX_COUNT, FloppyError
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.outer.base import Info, OuterLoopDefaults, Parameters, Problem, register_outer_loop
from floppy.play.arena import Arena
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics, normalise
from floppy.tasks.base import LABELLED, Labelled


class SupervisedState(NamedTuple):
    """Everything that the next outer step depends on."""

    distilled: Distilled
    optimiser: optax.OptState
    statistics: RunningStatistics | None
    """By which images are normalised, if they are."""


@register_outer_loop
@dataclasses.dataclass(frozen=True)
class Supervised(OuterLoopDefaults):
    """Outer loop by the gradient of the loss on real examples through all steps of the cloning.

    The supervised counterpart of PPMO: each outer step draws fresh learners, clones them, and lowers their mean
    cross-entropy on random training examples. The back-propagation keeps about `2√n` of `n` states of the weights.
    """

    name: ClassVar[str] = "supervised"
    kinds: ClassVar[tuple[str, ...]] = (LABELLED,)
    learners: int = bounded(2, least=1, most=MAX_COUNT)
    """Fresh learners per outer step, in equal shares over the learner distributions."""
    batch_size: int = bounded(512, least=1, most=MAX_COUNT)
    """Training examples that each of them is tested on."""
    least_steps: int = bounded(0, least=0, most=MAX_COUNT)
    """All learners of an outer step take the same random number of the cloning's steps, at least so many; 0: all of
    them always."""
    rate: float = bounded(1e-2, above=0)
    """Adam's rate for the dataset."""
    anneal: bool = True
    """Whether the rate falls linearly to 0 over the run."""
    max_grad_norm: float = bounded(1.0, above=0)
    """The gradient is scaled down to this norm."""
    adam_eps: float = bounded(1e-8, above=0)
    """Adam's eps."""
    normalise_observations: bool = True
    """Whether images are brought to mean 0 and variance 1 by channel, by statistics which the file then carries: the
    cloning takes larger steps then."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)

    def check(self, problem: Problem) -> None:
        """Checks that there are steps enough."""
        if self.least_steps > problem.cloning.steps:
            raise FloppyError(
                f"least_steps must be at most the cloning's {problem.cloning.steps} steps, got {self.least_steps}."
            )
        problem.check_normaliser(normalises=self.normalise_observations)
        self._share(problem)

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> SupervisedState:
        """The state before the first outer step."""
        known = problem.first_statistics(arena, named_key(key, "warm-up")) if self.normalise_observations else None
        distilled = problem.init_distilled(named_key(key, "distilled"), known, arena)
        return SupervisedState(distilled, self._optimiser(problem).init(problem.parameters(distilled)), known)

    def step(
        self, problem: Problem, state: SupervisedState, key: jax.Array, arena: Arena[Any] = ON_DEVICE
    ) -> tuple[SupervisedState, Info]:
        """One outer step: draw, clone, improve."""
        batches = tuple(
            arena.labelled_batch(problem.task, named_key(key, f"batch {group}"), self._share(problem), self.batch_size)
            for group in range(len(problem.learners))
        )
        return arena.compiled(self._improve)(problem, state, batches, key)

    def distilled(self, state: SupervisedState) -> Distilled:
        """The dataset as it stands."""
        return state.distilled

    def statistics(self, state: SupervisedState) -> RunningStatistics | None:
        """Those of the training images, if images are normalised."""
        return state.statistics

    def _improve(
        self, problem: Problem, state: SupervisedState, batches: tuple[Labelled, ...], key: jax.Array
    ) -> tuple[SupervisedState, Info]:
        parameters = problem.parameters(state.distilled)
        steps = jax.random.randint(
            named_key(key, "steps"), (), self.least_steps or problem.cloning.steps, problem.cloning.steps + 1
        )
        results = []
        for group, network in enumerate(problem.networks):
            keys = jax.random.split(named_key(key, f"learners {group}"), self._share(problem))
            fresh = jax.vmap(partial(problem.draw, network))(keys)
            objective = partial(self._loss, problem, network, state, steps)
            one = partial(jax.value_and_grad(objective, has_aux=True), parameters)
            # One learner after the other: the states of one cloning are what fills the memory.
            results.append(jax.lax.map(lambda pair, one=one: one(*pair), (fresh, batches[group])))
        (loss, accuracy), gradient = jax.tree.map(lambda *groups: jnp.mean(jnp.concatenate(groups), axis=0), *results)
        change, optimiser = self._optimiser(problem).update(gradient, state.optimiser)
        distilled = problem.improved(optax.apply_updates(parameters, change), state.distilled)
        info = {
            "loss": loss,
            "train_accuracy": 100.0 * accuracy,
            "gradient_norm": optax.tree.norm(gradient),
            "env_steps": jnp.asarray(float(self.batch_size * self.learners)),
        }
        return SupervisedState(distilled, optimiser, state.statistics), info | problem.rates(distilled)

    def _loss(
        self,
        problem: Problem,
        network: Network[Any],
        state: SupervisedState,
        steps: jax.Array,
        parameters: Parameters,
        fresh: Any,
        batch: Labelled,
    ) -> tuple[jax.Array, jax.Array]:
        """Mean cross-entropy of a clone on real examples, and its accuracy."""
        cloned = clone(problem.cloning, network, problem.distilled(parameters, state.distilled), fresh, steps)
        outputs = network.apply(cloned, normalise(state.statistics, batch.images))
        right = jnp.argmax(outputs, axis=-1) == batch.labels
        return jnp.mean(softmax_cross_entropy_with_integer_labels(outputs, batch.labels)), jnp.mean(right)

    def _share(self, problem: Problem) -> int:
        return problem.share(self.learners, "learners per outer step")

    def _optimiser(self, problem: Problem) -> Any:
        schedule = optax.linear_schedule(self.rate, 0.0, problem.outer_steps) if self.anneal else self.rate
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(schedule, eps=self.adam_eps))


__all__ = ["Supervised", "SupervisedState"]
