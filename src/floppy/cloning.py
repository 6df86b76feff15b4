"""Cloning: from distilled examples and a fresh policy to a trained one, with no environment involved."""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.scipy.sparse.linalg import cg

from floppy.errors import MOST, FloppyError, check_number
from floppy.initialisers import exact_product
from floppy.learners import Layer, Network, Weights
from floppy.tasks.base import Continuous, Discrete

SOLVE_TOLERANCE = 1e-6
"""Of an implicit step's linear system, relative to its right side."""
SOLVE_STEPS = 3
"""At most so many iterations per example; but for rounding one is enough."""
LEAST_BLOCK = 4
"""Fewer than the square of so many steps are not worth computing twice."""

Carry = TypeVar("Carry")


class Distilled(NamedTuple):
    """θ, the free parameters of a distilled dataset. `k` examples, `a` outputs of the policy."""

    observations: jax.Array
    """`[k, *obs]`, in normalised units where the task's observations are normalised."""
    targets: jax.Array
    """`[k, a]`: logits, class probabilities or action means, as the loss reads them."""
    log_std: jax.Array
    """`[a]`: target of the policy's log standard deviation; `[0]` where the loss has none."""
    inner_rate: jax.Array
    """`[]`: η, the rate of the cloning steps."""
    encoder: tuple[Layer, ...]
    """The leading layers that are not learnt by cloning (encoder rollback); empty for full distillation."""


def mse_loss(output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array) -> jax.Array:
    """Mean squared error over all `k·a` entries, plus that of the log standard deviations (PPMO, section 4).

    Args:
      output: `[k, a]`, the policy's logits or means.
      log_std: `[a]`, the policy's; `[0]` for discrete actions.
      targets: `[k, a]`.
      target_log_std: shaped as `log_std`.
    """
    loss = jnp.mean((output - targets) ** 2)
    return loss + jnp.mean((log_std - target_log_std) ** 2) if log_std.size else loss


def cross_entropy_loss(
    output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array
) -> jax.Array:
    """Cross-entropy of the policy under class probabilities `targets [k, a]`, averaged over the `k` rows (HaDES)."""
    del log_std, target_log_std
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(output), axis=-1))


def gaussian_nll_loss(
    output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array
) -> jax.Array:
    """Gaussian negative log-likelihood of `targets [k, a]`, summed over dimensions, averaged over rows (HaDES)."""
    del target_log_std
    z = (targets - output) / jnp.exp(log_std)
    return jnp.mean(jnp.sum(0.5 * z**2 + log_std + 0.5 * jnp.log(2 * jnp.pi), axis=-1))


LOSSES: dict[str, Callable[..., jax.Array]] = {
    "mse": mse_loss,
    "cross-entropy": cross_entropy_loss,
    "gaussian-nll": gaussian_nll_loss,
}


def check_loss(loss: str, actions: Discrete | Continuous) -> None:
    """Refuses an unknown loss, or one that does not suit the actions."""
    fitting = ("mse", "gaussian-nll") if isinstance(actions, Continuous) else ("mse", "cross-entropy")
    if loss not in fitting:
        kind = actions.as_dict()["kind"]
        raise FloppyError(f"Loss {loss} was asked for with {kind} actions: choose from {', '.join(fitting)}.")


@dataclasses.dataclass(frozen=True)
class GradientStep:
    """Plain gradient steps at a learned rate: `φ <- φ - η ∇L(φ)`, one step in the PPMO paper (section 4).

    The step may overshoot the loss's minimum on purpose: what counts is the policy that comes out.
    """

    loss: str = "mse"
    """mse, cross-entropy or gaussian-nll."""
    steps: int = 1
    """Gradient steps, each on the full batch."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        check_number("cloning.steps", self.steps, least=1, most=MOST)

    def run(self, loss: Callable[[Weights], jax.Array], weights: Weights, rates: jax.Array) -> Weights:
        """Takes a step per entry of `rates [steps]` from `weights`.

        Differentiable in everything that `loss` reads and in `rates`.
        """

        def step(weights: Weights, rate: jax.Array) -> Weights:
            return jax.tree.map(lambda w, g: w - rate * g, weights, jax.grad(loss)(weights))

        return step(weights, rates[0]) if self.steps == 1 else _scan_in_blocks(step, weights, rates)


@dataclasses.dataclass(frozen=True)
class AdamSteps:
    """Adam steps on the full batch (HaDES, section 4)."""

    loss: str = "cross-entropy"
    """mse, cross-entropy or gaussian-nll."""
    steps: int = 64
    """Adam steps, each on the full batch."""
    max_grad_norm: float = 0.5
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    eps: float = 1e-5
    """Adam's eps."""
    eps_root: float = 1e-12
    """Added inside Adam's square root: without it the meta-gradient is NaN where a gradient is 0."""
    anneal: bool = False
    """Whether the rate falls linearly to 0 over the steps."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        check_number("cloning.steps", self.steps, least=1, most=MOST)
        check_number("cloning.max_grad_norm", self.max_grad_norm, least=0)
        check_number("cloning.eps", self.eps, above=0)
        check_number("cloning.eps_root", self.eps_root, least=0)

    def run(self, loss: Callable[[Weights], jax.Array], weights: Weights, rates: jax.Array) -> Weights:
        """As for `GradientStep`."""
        clip = _clip_by_norm(self.max_grad_norm) if self.max_grad_norm > 0 else optax.identity()
        optimiser = optax.chain(clip, optax.scale_by_adam(eps=self.eps, eps_root=self.eps_root))
        if self.anneal:
            rates *= jnp.arange(self.steps, 0, -1) / self.steps

        def step(carry: tuple[Weights, optax.OptState], rate: jax.Array) -> tuple[Weights, optax.OptState]:
            weights, state = carry
            update, state = optimiser.update(jax.grad(loss)(weights), state)
            return jax.tree.map(lambda w, u: w - rate * u, weights, update), state

        return _scan_in_blocks(step, (weights, optimiser.init(weights)), rates)[0]


@dataclasses.dataclass(frozen=True)
class ImplicitStep:
    """One implicit gradient step of the output layer: `φ = φ0 - η ∇L(φ)`, with the gradient where the step ends.

    It is the proximal point `argmin L(φ) + |φ - φ0|² / 2η` (Rockafellar, 1976). As the squared error is quadratic in
    the output layer, one linear system with an unknown per example finds it; the hidden layers stay as they were
    drawn. A small η makes it the gradient step, a large one the least squares on the network's features: it cannot
    overshoot, and different fresh networks come to nearly the same policy.
    """

    loss: str = "mse"
    """mse alone: of the others the step has no closed form."""
    steps: ClassVar[int] = 1

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        if self.loss != "mse":
            raise FloppyError(f"Loss {self.loss} was asked for with an ImplicitStep: give mse, or another cloning.")

    def step(self, network: Network, distilled: Distilled, weights: Weights) -> Weights:
        """Takes the step. Differentiable in `distilled`.

        With features `Φ [k, f]` (a column of ones for the bias), output weights `W`, targets `Y [k, a]` and
        `c = 2η / (k a)`, the step is `W0 + c Φᵀ R` with `(I + c Φ Φᵀ) R = Y - Φ W0`.
        """
        features, output = network.features(weights, distilled.observations), weights.layers[-1]
        factor = 2.0 * distilled.inner_rate / distilled.targets.size
        gram = exact_product(features, features.T) + 1.0
        missing = distilled.targets - exact_product(features, output["kernel"]) - output["bias"]
        # Without LAPACK, as everything here; at full precision, for the system may be ill-conditioned.
        residual, _ = cg(
            lambda x: x + factor * exact_product(gram, x),
            missing,
            tol=SOLVE_TOLERANCE,
            maxiter=SOLVE_STEPS * missing.shape[0],
        )
        moved = {
            "kernel": output["kernel"] + factor * exact_product(features.T, residual),
            "bias": output["bias"] + factor * residual.sum(axis=0),
        }
        log_std = weights.log_std
        if log_std.size:
            pull = 2.0 * distilled.inner_rate / log_std.size
            log_std = (log_std + pull * distilled.log_std) / (1.0 + pull)
        return weights._replace(layers=(*weights.layers[:-1], moved), log_std=log_std)


Cloning = GradientStep | AdamSteps | ImplicitStep


def as_entry(part: Any) -> dict[str, Any]:
    """A part of a configuration in plain JSON, with the `kind` it is of."""
    return {"kind": type(part).__name__} | dataclasses.asdict(part)


def _scan_in_blocks(step: Callable[[Carry, jax.Array], Carry], carry: Carry, xs: jax.Array) -> Carry:
    """`step` for every entry of `xs [n]`, in about `√n` blocks, of which the gradient keeps the first states only.

    It computes a block's other states anew, and so holds `2√n` of them at a time in place of `n`.
    """
    whole = math.isqrt(xs.shape[0])
    rest = xs.shape[0] % whole

    def some(carry: Carry, xs: jax.Array) -> Carry:
        return jax.lax.scan(lambda carry, x: (step(carry, x), None), carry, xs)[0]

    if whole < LEAST_BLOCK:
        return some(carry, xs)
    block = jax.checkpoint(some, prevent_cse=False)  # a scan needs no such barrier
    blocks = xs[rest:].reshape(-1, whole)
    carry = block(carry, xs[:rest]) if rest else carry
    return jax.lax.scan(lambda carry, xs: (block(carry, xs), None), carry, blocks)[0]


def _clip_by_norm(most: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, which however has a NaN derivative where the gradient is exactly 0."""

    def clip(gradient: Weights, _: Weights | None) -> Weights:
        scale = most / jnp.sqrt(jnp.maximum(optax.tree.norm(gradient, squared=True), most**2))
        return jax.tree.map(lambda g: g * scale, gradient)

    return optax.stateless(clip)


def clone(
    cloning: Cloning, network: Network, distilled: Distilled, fresh: Weights, steps: jax.Array | None = None
) -> Weights:
    """Trains a fresh policy on distilled examples, and on nothing else.

    Args:
      cloning: the recipe.
      network: the policy's network.
      distilled: the examples, and the encoder where there is one.
      fresh: φ0, drawn by `network.init`; its leading layers give way to the encoder.
      steps: `[]` int, to take only so many of the recipe's steps, where it has several; by default all of them.

    Returns:
      φ, the trained weights, encoder included. Differentiable in `distilled`.
    """
    encoder = distilled.encoder
    if len(encoder) == len(fresh.layers):
        return Weights(encoder, fresh.skip, distilled.log_std)
    loss_function = LOSSES[cloning.loss]

    def join(learner: Weights) -> Weights:
        return learner._replace(layers=encoder + learner.layers)

    def loss(learner: Weights) -> jax.Array:
        output = network.apply(join(learner), distilled.observations)
        return loss_function(output, learner.log_std, distilled.targets, distilled.log_std)

    if isinstance(cloning, ImplicitStep):
        return cloning.step(network, distilled, join(fresh._replace(layers=fresh.layers[len(encoder) :])))
    learner = fresh._replace(layers=fresh.layers[len(encoder) :])
    return join(cloning.run(loss, learner, step_rates(cloning, distilled.inner_rate, steps)))


def step_rates(cloning: GradientStep | AdamSteps, rate: jax.Array, steps: jax.Array | None) -> jax.Array:
    """The rate of each step `[cloning.steps]`, 0 from `steps` on; None for all of them."""
    rates = jnp.full(cloning.steps, rate)
    return rates if steps is None else jnp.where(jnp.arange(cloning.steps) < steps, rates, 0.0)


def map_clones(cloning: Cloning, function: Callable[[Any], Weights], xs: Any) -> Weights:
    """`function`, which clones, for every row of `xs`; leaves of the result get a leading axis.

    On CPU several steps of one clone keep its weights in the caches: one after the other measured 30 to 40% faster than
    all at once, and implicit steps 2.6 times as fast behind convolutions, whose values stay there too (without them
    no slower). A single gradient step, and an accelerator, do better in one batch.
    """
    one_by_one = (cloning.steps > 1 or isinstance(cloning, ImplicitStep)) and jax.default_backend() == "cpu"
    return jax.lax.map(function, xs) if one_by_one else jax.vmap(function)(xs)
