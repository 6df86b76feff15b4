"""Distillation of labelled examples by meta-gradients through the cloning (Wang et al., 2018)."""

import dataclasses
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.losses import softmax_cross_entropy_with_integer_labels

from floppy.cloning import Distilled, clone
from floppy.errors import MAX_COUNT, FloppyError
from floppy.fields import bounded, check_fields, one_of
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.outer.base import Info, OuterLoopDefaults, Parameters, Problem, register_outer_loop, updates_made
from floppy.play.arena import Arena
from floppy.play.device import ON_DEVICE
from floppy.play.images import features_of
from floppy.play.normalise import RunningStatistics, normalise
from floppy.tasks.base import LABELLED, Labelled

COORDINATES = ("pixels", "principal")
COMPONENTS_FROM = 10_000
"""Random training images that principal components are taken from."""
LEAST_VARIANCE = 0.01
"""Of a principal component, in units of the components' mean variance: what hardly varies moves slowly, but moves."""


class Member(NamedTuple):
    """Fresh learners, and what the output layer of each reads of training images of its own; `[p, ...]` in a pool."""

    weights: Any
    features: jax.Array
    """`[p, b, f]`"""
    labels: jax.Array
    """`[p, b]` int."""


class SupervisedState(NamedTuple):
    """Everything that the next outer step depends on."""

    distilled: Distilled
    optimiser: optax.OptState
    statistics: RunningStatistics | None
    """By which images are normalised, if they are."""
    components: jax.Array | None = None
    """`[n, n]`: the images' principal components, a row each, as long as their deviation. None: pixels."""
    pool: tuple[Member, ...] = ()
    """Learners that several outer steps use, for each distribution of the mixture; empty: all of them are new."""

    @property
    def taken(self) -> jax.Array:
        """`[]` int: outer steps done, each of which is one update."""
        return updates_made(self.optimiser)


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

    pool: int = bounded(0, least=0, most=MAX_COUNT)
    """Fresh learners that are kept, each with `batch_size` training images as its output layer reads them, so that an
    outer step costs no convolutions of these. Every step takes random ones of them. 0: all are drawn anew in every
    step."""
    pool_uses: int = bounded(4, least=1, most=MAX_COUNT)
    """Outer steps after which a new learner takes the place of the pool's oldest; of many, the dataset would learn the
    pool by heart."""
    coordinates: str = one_of("pixels", lambda: COORDINATES)
    """In which examples are improved: pixels, or principal components of the training images, each in units of its
    deviation. A file has pixels in either case."""

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
        if self.pool:
            self._check_pool(problem)

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> SupervisedState:
        """The state before the first outer step."""
        known = problem.first_statistics(arena, named_key(key, "warm-up")) if self.normalise_observations else None
        distilled = problem.init_distilled(named_key(key, "distilled"), known, arena)
        components = None
        if self.coordinates == "principal":
            images = arena.random_observations(problem.task, named_key(key, "components"), COMPONENTS_FROM)
            components = principal_components(normalise(known, jnp.asarray(images)))
        pool = tuple(
            self._members(problem, group, known, named_key(key, f"pool {group}"), arena, count)
            for group, count in enumerate(self._pool_shares(problem))
        )
        optimiser = self._optimiser(problem).init(problem.parameters(distilled))
        return SupervisedState(distilled, optimiser, known, components, pool)

    def step(
        self, problem: Problem, state: SupervisedState, key: jax.Array, arena: Arena[Any] = ON_DEVICE
    ) -> tuple[SupervisedState, Info]:
        """One outer step: draw, clone, improve."""
        if self.pool:
            state = self._renewed(problem, state, key, arena)
            changed, info = arena.compiled(self._improve_by_pool)(problem, state, key)
        else:
            batches = tuple(
                arena.labelled_batch(
                    problem.task, named_key(key, f"batch {group}"), self._share(problem), self.batch_size
                )
                for group in range(len(problem.learners))
            )
            changed, info = arena.compiled(self._improve)(problem, state, batches, key)
        distilled, optimiser = changed
        return state._replace(distilled=distilled, optimiser=optimiser), info

    def distilled(self, state: SupervisedState) -> Distilled:
        """The dataset as it stands."""
        return state.distilled

    def statistics(self, state: SupervisedState) -> RunningStatistics | None:
        """Those of the training images, if images are normalised."""
        return state.statistics

    def _improve(
        self, problem: Problem, state: SupervisedState, batches: tuple[Labelled, ...], key: jax.Array
    ) -> tuple[tuple[Distilled, optax.OptState], Info]:
        """Against learners that are drawn for this step."""
        steps = jax.random.randint(
            named_key(key, "steps"), (), self.least_steps or problem.cloning.steps, problem.cloning.steps + 1
        )
        results = []
        for group, network in enumerate(problem.networks):
            keys = jax.random.split(named_key(key, f"learners {group}"), self._share(problem))
            fresh = jax.vmap(partial(problem.draw, network))(keys)
            objective = partial(self._loss, problem, network, state, steps)
            results.append(self._slopes(problem, state, objective, (fresh, batches[group])))
        return self._moved(problem, state, results)

    def _improve_by_pool(
        self, problem: Problem, state: SupervisedState, key: jax.Array
    ) -> tuple[tuple[Distilled, optax.OptState], Info]:
        """Against learners of the pool."""
        results = []
        for group, (network, pool) in enumerate(zip(problem.networks, state.pool, strict=True)):
            own_key, kept = named_key(key, f"members {group}"), len(pool.labels)
            places = jax.random.choice(own_key, kept, (self._share(problem),), replace=False)
            objective = partial(self._loss_of_member, problem, network, state, pool)
            results.append(self._slopes(problem, state, objective, (places,)))
        return self._moved(problem, state, results)

    def _slopes(self, problem: Problem, state: SupervisedState, objective: Any, each: tuple[Any, ...]) -> Any:
        """Loss, accuracy and gradient `[learners, ...]` of an objective of the parameters and of each learner.

        One learner after the other: the states of one cloning are what fills the memory.
        """
        one = partial(jax.value_and_grad(objective, has_aux=True), problem.parameters(state.distilled))
        return jax.lax.map(lambda arguments: one(*arguments), each)

    def _moved(
        self, problem: Problem, state: SupervisedState, results: list[Any]
    ) -> tuple[tuple[Distilled, optax.OptState], Info]:
        """The dataset and the optimiser's state after a step down the mean gradient."""
        (loss, accuracy), gradient = jax.tree.map(lambda *groups: jnp.mean(jnp.concatenate(groups), axis=0), *results)
        if state.components is not None:
            gradient = gradient | {"observations": _times(gradient["observations"], state.components.T)}
        change, optimiser = self._optimiser(problem).update(gradient, state.optimiser)
        if state.components is not None:
            change = change | {"observations": _times(change["observations"], state.components)}
        distilled = problem.improved(optax.apply_updates(problem.parameters(state.distilled), change), state.distilled)
        info = {
            "loss": loss,
            "train_accuracy": 100.0 * accuracy,
            "gradient_norm": optax.tree.norm(gradient),
            "env_steps": jnp.asarray(float(self.batch_size * self.learners)),
        }
        return (distilled, optimiser), info | problem.rates(distilled)

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
        return _judged(network.apply(cloned, normalise(state.statistics, batch.images)), batch.labels)

    def _loss_of_member(
        self,
        problem: Problem,
        network: Any,
        state: SupervisedState,
        pool: Member,
        parameters: Parameters,
        place: jax.Array,
    ) -> tuple[jax.Array, jax.Array]:
        """The same of a member of the pool, whose features no cloning changes."""
        fresh, features, labels = jax.tree.map(lambda leaf: leaf[place], pool)
        cloned = clone(problem.cloning, network, problem.distilled(parameters, state.distilled), fresh)
        output = network.readout(cloned)
        return _judged(features @ output["kernel"] + output["bias"][None], labels)

    def _renewed(self, problem: Problem, state: SupervisedState, key: jax.Array, arena: Arena[Any]) -> SupervisedState:
        """With a new learner in the place of the oldest of each distribution, if it is time for one."""
        taken = int(state.taken)
        if not taken or taken % self.pool_uses:
            return state
        pool = []
        for group, (old, kept) in enumerate(zip(state.pool, self._pool_shares(problem), strict=True)):
            new = self._members(problem, group, state.statistics, named_key(key, f"pool {group}"), arena, 1)
            pool.append(arena.compiled(_with_member, static=0)(old, new, taken // self.pool_uses % kept))
        return state._replace(pool=tuple(pool))

    def _members(
        self,
        problem: Problem,
        group: int,
        statistics: RunningStatistics | None,
        key: jax.Array,
        arena: Arena[Any],
        count: int,
    ) -> Member:
        """`count` new members of a distribution's pool."""
        batches = arena.labelled_batch(problem.task, named_key(key, "batch"), count, self.batch_size)
        keys = jax.random.split(named_key(key, "learners"), count)
        members: Member = arena.compiled(_drawn_members, static=2)(problem, group, statistics, batches, keys)
        return members

    def _check_pool(self, problem: Problem) -> None:
        """Checks that learners can be kept, and that there are enough of them."""
        if not problem.moves_readout_alone:
            raise FloppyError(
                f"pool must be 0 for {type(problem.cloning).__name__}"
                f"{' with encoder layers' if problem.encoder_layers else ''}, got {self.pool}: learners can be kept "
                "where the output layer alone is trained, as by ImplicitStep."
            )
        if self.pool < self.learners:
            raise FloppyError(f"pool must be 0, or at least the {self.learners} learners of a step, got {self.pool}.")
        self._pool_shares(problem)

    def _pool_shares(self, problem: Problem) -> list[int]:
        """Members of each distribution's pool; of none there are no pools."""
        share = problem.share(self.pool, "learners of the pool")
        return [share] * len(problem.learners) if share else []

    def _share(self, problem: Problem) -> int:
        return problem.share(self.learners, "learners per outer step")

    def _optimiser(self, problem: Problem) -> Any:
        schedule = optax.linear_schedule(self.rate, 0.0, problem.outer_steps) if self.anneal else self.rate
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(schedule, eps=self.adam_eps))


def principal_components(images: jax.Array) -> jax.Array:
    """Principal components of images `[m, *obs]`, each as long as its deviation `[n, n]`, a row each.

    The unit is the mean deviation of pixels; `LEAST_VARIANCE` is added to what they vary by.
    """
    rows = np.asarray(images, np.float64).reshape(len(images), -1)
    variances, directions = np.linalg.eigh(np.cov(rows, rowvar=False, bias=True).reshape(rows.shape[1], -1))
    shares = np.maximum(variances, 0.0) / max(float(variances.mean()), np.finfo(np.float64).tiny)
    return jnp.asarray((directions * np.sqrt(shares + LEAST_VARIANCE)).T, jnp.float32)


def _drawn_members(
    problem: Problem, group: int, statistics: RunningStatistics | None, batches: Labelled, keys: jax.Array
) -> Member:
    network: Any = problem.networks[group]

    def one(pair: tuple[jax.Array, Labelled]) -> Member:
        fresh, batch = problem.draw(network, pair[0]), pair[1]
        return Member(fresh, features_of(network, fresh, batch.images, statistics), batch.labels)

    members: Member = jax.lax.map(one, (keys, batches))
    return members


def _with_member(pool: Member, new: Member, place: jax.Array) -> Member:
    changed: Member = jax.tree.map(lambda old, one: old.at[place].set(one[0]), pool, new)
    return changed


def _judged(outputs: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of outputs `[b, a]`, and their accuracy."""
    right = jnp.argmax(outputs, axis=-1) == labels
    return jnp.mean(softmax_cross_entropy_with_integer_labels(outputs, labels)), jnp.mean(right)


def _times(examples: jax.Array, matrix: jax.Array) -> jax.Array:
    """Examples `[k, *obs]`, flattened, times `[n, n]`."""
    return (examples.reshape(examples.shape[0], -1) @ matrix).reshape(examples.shape)


__all__ = ["Supervised", "SupervisedState", "principal_components"]
