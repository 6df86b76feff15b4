"""Cloning: from distilled examples and a fresh policy to a trained one, with no environment involved.

The contract of a kind of cloning (`Cloning`), what it trains on (`Term`, a loss and the policy that it is about), and
the one entry, `clone`. `k` examples, `a` outputs of the policy.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, cast

import jax
import jax.numpy as jnp
import optax

from floppy.cloning.merged import Block, BlockPolicy
from floppy.errors import FloppyError, page, shown
from floppy.fields import Registry, is_frozen_dataclass
from floppy.learner.network import FeatureNetwork, Layer, LayerNetwork, Network, check_offers
from floppy.parallel import largest_divisor, map_batches

MAX_STEPS = 1_000_000
"""Of a cloning: a card is to teach in milliseconds, and must not keep its reader busy for days."""
CACHE_BYTES = 2**20
"""What a core's own caches hold, roughly."""
COPIES = 5
"""Numbers that a step has for each weight: itself, its gradient, moments, what comes next."""


class Distilled(NamedTuple):
    """θ, the free parameters of a distilled dataset."""

    observations: jax.Array
    """`[k, *obs]`, in normalised units where the task's observations are normalised."""
    targets: jax.Array
    """`[k, a]`: logits, class probabilities or action means, as the loss reads them."""
    log_std: jax.Array
    """`[a]`: target of the policy's log standard deviation; `[0]` where the loss has none."""
    inner_rate: jax.Array
    """`[]`: η, the rate of the cloning steps; `[r]` where the cloning has several, in the order of its `rates`."""
    encoder: tuple[Layer, ...]
    """The leading layers that are not learnt by cloning (encoder rollback); empty for full distillation."""


class TermPolicy(Protocol):
    """The policy that a term is about, as it is seen in the weights that are trained."""

    def apply(self, weights: Any, observations: jax.Array) -> jax.Array:
        """Its outputs `[k, a]`."""

    def log_std(self, weights: Any) -> jax.Array:
        """Its log standard deviations `[a]`, or `[0]`."""

    def features(self, weights: Any, observations: jax.Array) -> jax.Array:
        """What its output layer reads: `[k, f]`. Asked for by a cloning that needs it."""

    def readout(self, weights: Any) -> Layer:
        """Its output layer. Asked for by a cloning that needs it."""

    def with_readout(self, weights: Any, readout: Layer, log_std: jax.Array) -> Any:
        """The weights with another output layer and deviations of it. Asked for by a cloning that needs it."""


class Term(NamedTuple):
    """One loss that cloning goes down: examples, and the policy that learns from them."""

    policy: TermPolicy
    observations: jax.Array
    """`[k, *obs]`"""
    targets: jax.Array
    """`[k, a]`"""
    log_std: jax.Array
    """`[a]` or `[0]`"""
    weight: float = 1.0
    """Of the loss in the sum."""

    def loss(self, function: Callable[..., jax.Array], weights: Any) -> jax.Array:
        """The weighted loss of the weights, a scalar."""
        output = self.policy.apply(weights, self.observations)
        return self.weight * function(output, self.policy.log_std(weights), self.targets, self.log_std)


class Cloning(Protocol):
    """A recipe by which a fresh policy learns from a distilled dataset. Members are frozen dataclasses.

    Register one of your own with `register_cloning`: it can then be distilled with, written, read and evaluated.
    """

    needs: ClassVar[frozenset[str]]
    """Abilities that it needs of a network, see `learner/network.py`."""
    moves_readout_alone: ClassVar[bool]
    """Whether hidden layers stay as they were drawn."""
    balances_rates: ClassVar[bool]
    """Whether a term's weight acts as a rate of its own, as with plain gradients; with Adam it does not."""
    rates: ClassVar[tuple[str, ...]]
    """Names of its rates, by which logs and options know them; one alone is `inner_rate`."""

    @property
    def loss(self) -> str:
        """A name in `LOSSES`."""

    @property
    def steps(self) -> int:
        """Training steps."""

    @property
    def is_annealed(self) -> bool:
        """Whether its rates depend on the number of steps."""

    @property
    def is_heavy(self) -> bool:
        """Whether clones are better trained one after the other on a CPU, whose caches then hold their weights."""

    def fit(self, terms: Sequence[Term], weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        """Trains weights on terms.

        Args:
          terms: at least one; the loss is their sum.
          weights: any pytree of float arrays that the terms' policies can read.
          rate: `[]`, η, or `[r]`, a rate for each name in `rates` where these are several.
          steps: `[]` int, to take only so many of the steps; by default all of them.

        Returns:
          The trained weights, of the same structure. Differentiable in the terms and the rate.
        """

    def defaults(self) -> dict[str, Any]:
        """Fields of a configuration that suit it where a recipe is for another kind: at least `initial_rate`."""


CLONINGS: Registry[type[Any]] = Registry("cloning")
"""Kinds of cloning by the names of their classes."""


def register_cloning(kind: type[Any]) -> type[Any]:
    """Adds a kind of cloning (a decorator): configurations, cards and the command line know it by its class's name.

    Raises:
      FloppyError: if it is no frozen dataclass, lacks a part of the contract, or has another kind's name.
    """
    parts = (
        *("needs", "moves_readout_alone", "balances_rates", "rates", "steps"),
        *("is_annealed", "is_heavy", "fit", "defaults"),
    )
    names = {field.name for field in dataclasses.fields(kind)} if is_frozen_dataclass(kind) else set()
    if not names:
        raise FloppyError(f"A kind of cloning must be a frozen dataclass with a field `loss`, got {shown(kind)}.")
    if missing := [part for part in parts if part not in names and not hasattr(kind, part)] + [
        part for part in ("loss",) if part not in names
    ]:
        raise FloppyError(
            f"{kind.__name__} lacks {', '.join(missing)} of the contract of a cloning ({page('Your own outer loop')})."
        )
    CLONINGS.register(kind.__name__, kind)
    return kind


def check_cloning(cloning: Any) -> None:
    """Checks that a cloning is of a registered kind.

    Raises:
      FloppyError: if it is not: no file that names it could be read.
    """
    if CLONINGS.get(type(cloning).__name__) is not type(cloning):
        raise FloppyError(
            f"cloning must be one of {', '.join(CLONINGS)}, got {shown(cloning)}: register a kind of your own with "
            "floppy.register_cloning."
        )


def defaults_of_kind(name: str) -> dict[str, Any]:
    """Fields of a configuration that suit a kind of cloning: its `defaults`, and at least `cloning` itself.

    Raises:
      FloppyError: if no kind has the name; it lists those that there are.
    """
    cloning: Cloning = CLONINGS.find(name)()
    return {"cloning": cloning} | cloning.defaults()


class CloningDefaults:
    """What most kinds of cloning are like; one of your own may inherit it."""

    needs: ClassVar[frozenset[str]] = frozenset()
    moves_readout_alone: ClassVar[bool] = False
    balances_rates: ClassVar[bool] = True
    rates: ClassVar[tuple[str, ...]] = ("inner_rate",)

    @property
    def steps(self) -> int:
        """One step, which every example takes part in."""
        return 1

    @property
    def is_annealed(self) -> bool:
        """Rates stay as they are over the steps."""
        return False

    @property
    def is_heavy(self) -> bool:
        """Whether cloning costs much beside play: true where it has several steps."""
        return self.steps > 1

    def defaults(self) -> dict[str, Any]:
        """What a recipe sets for this kind: itself, at a rate of 1."""
        return {"cloning": self, "initial_rate": 1.0}


@dataclasses.dataclass(frozen=True)
class WholePolicy:
    """A term's policy that is a whole network."""

    network: Network[Any]

    def apply(self, weights: Any, observations: jax.Array) -> jax.Array:
        """The network's outputs."""
        return self.network.apply(weights, observations)

    def log_std(self, weights: Any) -> jax.Array:
        """The weights' own."""
        log_std: jax.Array = weights.log_std
        return log_std

    def features(self, weights: Any, observations: jax.Array) -> jax.Array:
        """The network's."""
        return cast(FeatureNetwork[Any], self.network).features(weights, observations)

    def readout(self, weights: Any) -> Layer:
        """The network's."""
        return cast(FeatureNetwork[Any], self.network).readout(weights)

    def with_readout(self, weights: Any, readout: Layer, log_std: jax.Array) -> Any:
        """The network's."""
        return cast(FeatureNetwork[Any], self.network).with_readout(weights, readout)._replace(log_std=log_std)


@dataclasses.dataclass(frozen=True)
class PolicyBehind:
    """A term's policy behind an encoder: the weights that are trained are those of the layers that follow it."""

    network: LayerNetwork[Any]
    encoder: tuple[Layer, ...]

    def apply(self, weights: Any, observations: jax.Array) -> jax.Array:
        """The outputs of encoder and learner together."""
        return self.network.apply(self.join(weights), observations)

    def log_std(self, weights: Any) -> jax.Array:
        """The weights' own."""
        log_std: jax.Array = weights.log_std
        return log_std

    def features(self, weights: Any, observations: jax.Array) -> jax.Array:
        """Those of encoder and learner together."""
        return self.network.features(self.join(weights), observations)

    def readout(self, weights: Any) -> Layer:
        """The learner's output layer."""
        return self.network.readout(weights)

    def with_readout(self, weights: Any, readout: Layer, log_std: jax.Array) -> Any:
        """The learner with another output layer."""
        return self.network.with_readout(weights, readout)._replace(log_std=log_std)

    def join(self, weights: Any) -> Any:
        """The weights of encoder and learner together."""
        return self.network.with_layers(weights, self.encoder)


def clone(
    cloning: Cloning,
    network: Any,
    distilled: Distilled,
    fresh: Any,
    steps: jax.Array | None = None,
    blocks: tuple[Block, ...] = (),
) -> Any:
    """Trains a fresh policy on distilled examples, and on nothing else.

    With `blocks` the dataset is a merged one, and the loss is the sum of its tasks' own (`merged.py`).

    Args:
      cloning: the recipe.
      network: the policy's network.
      distilled: the examples, and the encoder where there is one.
      fresh: φ0, drawn by `network.init`; its leading layers give way to the encoder.
      steps: `[]` int, to take only so many of the recipe's steps; by default all of them.
      blocks: of a merged dataset, those that the policy learns from.

    Returns:
      φ, the trained weights, encoder included. Differentiable in `distilled`.
    """
    if blocks:
        terms = [_block_term(network, block, distilled) for block in blocks]
        return cloning.fit(terms, fresh, distilled.inner_rate, steps)
    if not distilled.encoder:
        term = Term(WholePolicy(network), distilled.observations, distilled.targets, distilled.log_std)
        return cloning.fit([term], fresh, distilled.inner_rate, steps)
    learner = network.without_layers(fresh, len(distilled.encoder))
    if not network.layers(learner):  # the encoder is the whole policy
        return network.with_layers(learner._replace(log_std=distilled.log_std), distilled.encoder)
    policy = PolicyBehind(network, distilled.encoder)
    term = Term(policy, distilled.observations, distilled.targets, distilled.log_std)
    return policy.join(cloning.fit([term], learner, distilled.inner_rate, steps))


def _block_term(network: LayerNetwork[Any], block: Block, distilled: Distilled) -> Term:
    policy = BlockPolicy.of(network, block)
    return Term(policy, *block.examples(distilled.observations, distilled.targets, distilled.log_std), block.weight)


def step_rates(count: int, rate: jax.Array, steps: jax.Array | None) -> jax.Array:
    """The rate of each step `[count]`, 0 from `steps` on; None for all of them. Of rates `[r]` it is `[count, r]`."""
    shape = jnp.shape(rate)
    rates = jnp.full((count, *shape), rate)
    if steps is None:
        return rates
    taken = jnp.arange(count) < steps
    return jnp.where(taken.reshape(count, *(1,) * len(shape)), rates, 0.0)


def rates_shape(cloning: Cloning) -> tuple[int, ...]:
    """Shape of the `inner_rate` that a cloning takes: `()` for one rate, `(r,)` for several."""
    return () if len(cloning.rates) == 1 else (len(cloning.rates),)


def total_loss(terms: Sequence[Term], function: Callable[..., jax.Array]) -> Callable[[Any], jax.Array]:
    """The sum of the terms' losses, as a function of the weights."""

    def loss(weights: Any) -> jax.Array:
        total = terms[0].loss(function, weights)
        for term in terms[1:]:
            total += term.loss(function, weights)
        return total

    return loss


def norm_of_at_least(least: float, gradients: Any) -> jax.Array:
    """The norm of gradients together, or `least` where that is larger; unlike the norm's, its derivative has no NaN.

    Args:
      least: above 0.
      gradients: any pytree of float arrays.
    """
    return jnp.sqrt(jnp.maximum(optax.tree.norm(gradients, squared=True), least**2))


def map_clones(cloning: Cloning, function: Callable[[Any], Any], xs: Any) -> Any:
    """`function`, which clones, for every row of `xs`; leaves of the result get a leading axis.

    On a CPU several steps are taken by as many clones at a time as its caches hold (weights, gradients and moments):
    one after the other large networks measured 1.8 times as fast as all at once, for small ones whose operations cost
    more than their arithmetic it is the other way round. Implicit steps are taken one after the other, which behind
    convolutions, whose values stay in the caches then, measured 2.6 times as fast (without them no slower). A single
    gradient step, and an accelerator, do better in one batch.
    """
    batch = _clones_at_a_time(cloning, function, xs, jax.tree.leaves(xs)[0].shape[0])
    return jax.lax.map(function, xs) if batch == 1 else map_batches(jax.vmap(function), xs, batch)


def _clones_at_a_time(cloning: Cloning, function: Callable[[Any], Any], xs: Any, count: int) -> int:
    """A divisor of `count`."""
    if not cloning.is_heavy or jax.default_backend() != "cpu":
        return count
    if cloning.steps == 1:
        return 1
    clone = jax.eval_shape(function, jax.tree.map(lambda x: x[0], xs))
    bytes_each = COPIES * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(clone))
    return largest_divisor(count, CACHE_BYTES // max(1, bytes_each))


def check_fits(cloning: Cloning, network: Network[Any]) -> None:
    """Checks that a network offers what a cloning needs."""
    check_offers(network, cloning.needs, type(cloning).__name__)
