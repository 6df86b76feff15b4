"""Steps of Adam."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import optax

from floppy.cloning.base import (
    MAX_STEPS,
    CloningDefaults,
    Term,
    norm_of_at_least,
    register_cloning,
    step_rates,
    total_loss,
)
from floppy.cloning.gradient import scan_in_blocks
from floppy.cloning.losses import LOSSES
from floppy.fields import bounded, check_fields, one_of


@register_cloning
@dataclasses.dataclass(frozen=True)
class AdamSteps(CloningDefaults):
    """Adam steps on the full batch (HaDES, section 4)."""

    balances_rates: ClassVar[bool] = False
    loss: str = one_of("cross-entropy", lambda: LOSSES)
    """A loss by name. Cross-entropy is for discrete actions, gaussian-nll for continuous ones."""
    steps: int = bounded(64, least=1, most=MAX_STEPS)
    """Adam steps, each on the full batch."""
    max_grad_norm: float = bounded(0.5, least=0)
    """Gradients are scaled down to this norm; 0 leaves them alone."""
    eps: float = bounded(1e-5, above=0)
    """Adam's eps."""
    eps_root: float = bounded(1e-12, least=0)
    """Added inside Adam's square root: without it the meta-gradient is NaN where a gradient is 0."""
    anneal: bool = False
    """Whether the rate falls linearly to 0 over the steps."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self, "cloning.")

    @property
    def is_annealed(self) -> bool:
        """As the field says."""
        return self.anneal

    def fit(self, terms: Sequence[Term], weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        """See `Cloning`."""
        loss, rates = total_loss(terms, LOSSES[self.loss].function), step_rates(self.steps, rate, steps)
        clip = _clip_by_norm(self.max_grad_norm) if self.max_grad_norm > 0 else optax.identity()
        optimiser = optax.chain(clip, optax.scale_by_adam(eps=self.eps, eps_root=self.eps_root))
        if self.anneal:
            rates *= jnp.arange(self.steps, 0, -1) / self.steps

        def step(carry: tuple[Any, optax.OptState], rate: jax.Array) -> tuple[Any, optax.OptState]:
            weights, state = carry
            update, state = optimiser.update(jax.grad(loss)(weights), state)
            return jax.tree.map(lambda w, u: w - rate * u, weights, update), state

        return scan_in_blocks(step, (weights, optimiser.init(weights)), rates)[0]

    def defaults(self) -> dict[str, Any]:
        """The mean squared error, and a small rate."""
        return {"cloning": dataclasses.replace(self, loss="mse"), "initial_rate": 0.01}


def _clip_by_norm(most: float) -> optax.GradientTransformation:
    """As `optax.clip_by_global_norm`, which however has a NaN derivative where the gradient is exactly 0."""

    def clip(gradient: Any, _: Any) -> Any:
        scale = most / norm_of_at_least(most, gradient)
        return jax.tree.map(lambda g: g * scale, gradient)

    return optax.stateless(clip)
