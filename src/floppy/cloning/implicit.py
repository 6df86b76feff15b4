"""One implicit step of the output layer."""

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg

from floppy.cloning.base import CloningDefaults, Term, register_cloning
from floppy.errors import FloppyError
from floppy.fields import check_fields
from floppy.learner.initialisers import exact_product
from floppy.learner.network import FEATURES

SOLVE_TOLERANCE = 1e-6
"""Of the linear system, relative to its right side."""
SOLVE_STEPS = 3
"""At most so many iterations per example; but for rounding one is enough."""


@register_cloning
@dataclasses.dataclass(frozen=True)
class ImplicitStep(CloningDefaults):
    """One implicit gradient step of the output layer: `φ = φ0 - η ∇L(φ)`, with the gradient where the step ends.

    It is the proximal point `argmin L(φ) + |φ - φ0|² / 2η` (Rockafellar, 1976). As the squared error is quadratic in
    the output layer, one linear system with an unknown per example finds it; the hidden layers stay as they were
    drawn. A small η makes it the gradient step, a large one the least squares on the network's features: it cannot
    overshoot, and different fresh networks come to nearly the same policy.
    """

    needs: ClassVar[frozenset[str]] = frozenset({FEATURES})
    moves_readout_alone: ClassVar[bool] = True
    loss: str = "mse"
    """mse alone: of the others the step has no closed form."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self, "cloning.")
        if self.loss != "mse":
            raise FloppyError(f"loss must be mse for an ImplicitStep, got {self.loss}: or choose another cloning.")

    @property
    def is_heavy(self) -> bool:
        """Behind convolutions it is."""
        return True

    def fit(self, terms: Sequence[Term], weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        """See `Cloning`; with several terms each takes its own step, for they share no output. `steps` is ignored."""
        del steps
        return implicit_steps(terms, weights, rate)

    def defaults(self) -> dict[str, Any]:
        """A large rate: nearly the least squares."""
        return {"cloning": self, "initial_rate": 100.0}


def implicit_steps(terms: Sequence[Term], weights: Any, rate: jax.Array) -> Any:
    """The output layer's step of each term."""
    for term in terms:
        weights = _step(term, weights, term.weight * rate)
    return weights


def _step(term: Term, weights: Any, rate: jax.Array) -> Any:
    """Takes the step of one term.

    With features `Φ [k, f]` (a column of ones for the bias), output weights `W`, targets `Y [k, a]` and
    `c = 2η / (k a)`, the step is `W0 + c Φᵀ R` with `(I + c Φ Φᵀ) R = Y - Φ W0`.
    """
    features, output = term.policy.features(weights, term.observations), term.policy.readout(weights)
    factor = 2.0 * rate / term.targets.size
    gram = exact_product(features, features.T) + 1.0
    missing = term.targets - exact_product(features, output["kernel"]) - output["bias"][None]
    # Without LAPACK, as everything here; at full precision, for the system may be ill-conditioned; divided by its
    # diagonal (Jacobi's preconditioner), so that large features of some examples alone do not make it so.
    diagonal = 1.0 + factor * jnp.diagonal(gram)[:, None]
    residual, _ = cg(  # type: ignore[no-untyped-call]
        lambda x: x + factor * exact_product(gram, x),
        missing,
        tol=SOLVE_TOLERANCE,
        maxiter=SOLVE_STEPS * missing.shape[0],
        M=lambda x: x / diagonal,
    )
    moved = {
        "kernel": output["kernel"] + factor * exact_product(features.T, residual),
        "bias": output["bias"] + factor * residual.sum(axis=0),
    }
    log_std = term.policy.log_std(weights)
    if log_std.size:
        pull = 2.0 * rate / log_std.size
        log_std = (log_std + pull * term.log_std) / (1.0 + pull)
    return term.policy.with_readout(weights, moved, log_std)
