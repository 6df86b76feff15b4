"""Plain gradient steps."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax

from floppy.cloning.base import MAX_STEPS, CloningDefaults, Term, register_cloning, step_rates, total_loss
from floppy.cloning.losses import LOSSES
from floppy.fields import bounded, check_fields, one_of

MIN_BLOCK = 4
"""Fewer than the square of so many steps are not worth computing twice."""

Carry = TypeVar("Carry")


@register_cloning
@dataclasses.dataclass(frozen=True)
class GradientStep(CloningDefaults):
    """Plain gradient steps at a learned rate: `φ <- φ - η ∇L(φ)`, one step in the PPMO paper (section 4).

    The step may overshoot the loss's minimum on purpose: what counts is the policy that comes out.
    """

    loss: str = one_of("mse", lambda: LOSSES)
    """A loss by name. Cross-entropy is for discrete actions, gaussian-nll for continuous ones."""
    steps: int = bounded(1, least=1, most=MAX_STEPS)
    """Gradient steps, each on the full batch."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self, "cloning.")

    def fit(self, terms: Sequence[Term], weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        """See `Cloning`."""
        loss, rates = total_loss(terms, LOSSES[self.loss].function), step_rates(self.steps, rate, steps)

        def step(weights: Any, rate: jax.Array) -> Any:
            return jax.tree.map(lambda w, g: w - rate * g, weights, jax.grad(loss)(weights))

        return step(weights, rates[0]) if self.steps == 1 else scan_in_blocks(step, weights, rates)


def scan_in_blocks(step: Callable[[Carry, jax.Array], Carry], carry: Carry, xs: jax.Array) -> Carry:
    """`step` for every row of `xs [n, ...]`, in about `√n` blocks, of which the gradient keeps the first states only.

    It recomputes a block's other states, and so holds `2√n` of them at a time in place of `n`.
    """
    whole = math.isqrt(xs.shape[0])
    rest = xs.shape[0] % whole

    def some(carry: Carry, xs: jax.Array) -> Carry:
        return jax.lax.scan(lambda carry, x: (step(carry, x), None), carry, xs)[0]

    if whole < MIN_BLOCK:
        return some(carry, xs)
    block = jax.checkpoint(some, prevent_cse=False)  # a scan needs no such barrier
    blocks = xs[rest:].reshape(-1, whole, *xs.shape[1:])
    carry = block(carry, xs[:rest]) if rest else carry
    return jax.lax.scan(lambda carry, xs: (block(carry, xs), None), carry, blocks)[0]
