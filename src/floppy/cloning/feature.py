"""Gradient steps of the hidden layers, then one implicit step of the output layer."""

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
from floppy.cloning.implicit import implicit_steps
from floppy.cloning.losses import LOSSES
from floppy.errors import FloppyError
from floppy.fields import bounded, check_fields
from floppy.learner.network import FEATURES

LEAST_NORM = 1e-8
"""The smallest number that gradients are divided by: those of a network without hidden layers are 0."""


@register_cloning
@dataclasses.dataclass(frozen=True)
class FeatureSteps(CloningDefaults):
    """Gradient steps of the hidden layers with rates of their own, then an implicit step of the output layer.

    The steps `φ <- φ - η ∇L(φ)` move the features of a fresh network towards ones that the examples need, kernels at
    one rate and biases at another; the output layer stays as it was drawn meanwhile. Then it takes the step of
    `ImplicitStep` on the moved features. A fresh output layer is small, and so is the gradient behind it: rates of the
    hidden layers go to thousands.
    """

    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})
    rates: ClassVar[tuple[str, ...]] = ("kernel_rate", "bias_rate", "readout_rate")
    loss: str = "mse"
    """mse alone: of the others the implicit step has no closed form."""
    steps: int = bounded(1, least=1, most=MAX_STEPS)
    """Gradient steps of the hidden layers, each on the full batch."""
    unit_steps: bool = False
    """Whether the gradient of all hidden layers together is first divided by its norm (normalised gradient descent;
    Hazan et al., 2015), so that one rate suits fresh output layers of any size. Of several terms each is by itself."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self, "cloning.")
        if self.loss != "mse":
            raise FloppyError(f"loss must be mse for FeatureSteps, got {self.loss}: or choose another cloning.")

    @property
    def is_heavy(self) -> bool:
        """As of an implicit step."""
        return True

    def fit(self, terms: Sequence[Term], weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        """See `Cloning`; `steps` counts those of the hidden layers, and the implicit step always follows."""
        rates = step_rates(self.steps, rate[:2], steps)

        def step(weights: Any, rates: jax.Array) -> Any:
            slopes = self._slopes(terms, weights)
            return jax.tree.map(lambda w, g: w - rates[0 if g.ndim > 1 else 1] * g, weights, slopes)

        moved = step(weights, rates[0]) if self.steps == 1 else scan_in_blocks(step, weights, rates)
        return implicit_steps(terms, moved, rate[2])

    def _slopes(self, terms: Sequence[Term], weights: Any) -> Any:
        """The gradient of the hidden layers; with `unit_steps` each term's is divided by its own norm."""
        if not self.unit_steps:
            return self._of_hidden_layers(terms, weights)
        units = []
        for term in terms:
            slopes = self._of_hidden_layers([term], weights)
            units.append(optax.tree.scale(term.weight / norm_of_at_least(LEAST_NORM, slopes), slopes))
        return jax.tree.map(lambda *each: sum(each), *units)

    def _of_hidden_layers(self, terms: Sequence[Term], weights: Any) -> Any:
        """The gradient, with zeros for output layers and deviations."""
        gradients = jax.grad(total_loss(terms, LOSSES[self.loss].function))(weights)
        for term in terms:
            still = jax.tree.map(jnp.zeros_like, (term.policy.readout(gradients), term.policy.log_std(gradients)))
            gradients = term.policy.with_readout(gradients, *still)
        return gradients

    def defaults(self) -> dict[str, Any]:
        """Large rates of hidden layers; at the output nearly the least squares."""
        return {"cloning": self, "initial_rate": (1000.0, 1000.0, 100.0)}
