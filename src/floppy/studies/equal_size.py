"""Architectures of equal size: they differ in everything but the number of weights, which then ranks nothing."""

import bisect
import functools
import itertools
from collections.abc import Callable

import numpy as np

from floppy.errors import FloppyError
from floppy.learner.mlp import LEAST_NORMALISED, MAX_UNITS

SEED = 0
"""Of the draw of designs, so that everybody who asks for as many weights ranks the same ones."""

TOLERANCE = 0.05
"""By how much of the wanted number of weights an architecture may miss it."""

MAX_WEIGHTS = 10_000_000

DEPTHS, TAPERS = (1, 2, 3, 4), (0.5, 1, 2)
ACTIVATIONS, NORMS, INITIALISERS = (
    ("tanh", "relu", "gelu", "silu"),
    ("none", "layer"),
    ("orthogonal", "orthogonal1", "xavier", "lecun"),
)

Shape = tuple[int, float]
"""Depth and taper, which with the width make the number of weights."""


def equal_size_space(count: Callable[[str], int], weights: int, number: int) -> tuple[str, ...]:
    """Architectures drawn at random from all designs whose number of weights can come near a wanted one.

    Args:
      count: the number of weights of an architecture, given as the text of its learner distribution.
      weights: wanted of each; its width is the one that comes nearest.
      number: how many architectures.

    Returns:
      Their texts, all of them different, and the same ones in every call.

    Raises:
      FloppyError: if fewer designs come within `TOLERANCE`.
    """

    @functools.cache
    def width(shape: Shape) -> int:
        """0 where none comes near."""
        nearest = nearest_width(lambda units: count(_form(units, shape)), weights, _widest(shape))
        return nearest if abs(count(_form(nearest, shape)) - weights) <= TOLERANCE * weights else 0

    known = designs()
    order = [known[place] for place in np.random.default_rng(SEED).permutation(len(known))]
    found = [f"{_form(width(shape), shape)}{rest}" for shape, rest in order if _is_sound(width(shape), shape, rest)]
    if len(found) < number:
        raise FloppyError(
            f"Only {len(found)} designs come within {TOLERANCE:.0%} of {weights:,} weights, got architectures "
            f"{number}: give fewer of them, or other weights."
        )
    return tuple(found[:number])


def designs() -> list[tuple[Shape, str]]:
    """All sensible combinations: shapes, each with the text of what changes no number of weights.

    A single hidden layer has neither taper nor residual connection, and a residual one joins layers of one width.
    """
    return [
        ((depth, taper), f":activation={activation}{_norm(norm)}{residual}:initialiser={initialiser}")
        for depth, taper, activation, norm, residual, initialiser in itertools.product(
            DEPTHS, TAPERS, ACTIVATIONS, NORMS, ("", ":residual=yes"), INITIALISERS
        )
        if (taper == 1 or not residual) and (depth > 1 or (taper == 1 and not residual))
    ]


def nearest_width(count: Callable[[int], int], weights: int, most: int) -> int:
    """The width from 1 to `most` whose number of weights, which grows with it, is nearest; of equals the smaller."""
    high = 1
    while high < most and count(high) < weights:  # doubled, for the widest of all are networks too large to be counted
        high = min(2 * high, most)
    first = min(high, 1 + bisect.bisect_left(range(1, high + 1), weights, key=count))
    return min(max(1, first - 1), first, key=lambda width: abs(count(width) - weights))


def _form(width: int, shape: Shape) -> str:
    depth, taper = shape
    return f"width={width}:depth={depth}" + (f":taper={taper}" if taper != 1 else "")


def _is_sound(width: int, shape: Shape, rest: str) -> bool:
    """Whether there is such a width, with layers that can be normalised where they are."""
    depth, taper = shape
    narrowest = round(width * min(1, taper) ** (depth - 1))
    return width > 0 and (":norm=" not in rest or narrowest >= LEAST_NORMALISED)


def _norm(norm: str) -> str:
    return f":norm={norm}" if norm != "none" else ""


def _widest(shape: Shape) -> int:
    """The width with which the widest hidden layer has as many units as are allowed."""
    depth, taper = shape
    return int(MAX_UNITS / max(1, taper) ** (depth - 1))
