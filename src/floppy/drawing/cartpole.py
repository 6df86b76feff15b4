"""Carts and poles, one above the other where there are several dimensions."""

import math
from typing import TYPE_CHECKING

import numpy as np

from floppy.drawing.base import BLUE, GREY, ORANGE, PALE, Scene, blank
from floppy.drawing.plain import SMALL
from floppy.drawing.shapes import arrow, box, capsule, turn
from floppy.tasks.ndcartpole import HALF_POLE_LENGTH, POSITION_LIMIT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NUMBERS = 4
"""Of each dimension: position, velocity, angle, angular velocity."""
POLE = 2 * HALF_POLE_LENGTH
ROW = 2.5
"""Height of a dimension, in metres: poles may point anywhere."""
CART = (0.7, 0.34)
SECONDS = 0.35
"""Arrows of velocities are as long as the way in this time."""
PUSH = 1.3
"""Length of the arrow of a push that is certain, in metres."""


class CartPole:
    """A cart on a track, and a pole that stands on it."""

    def fits(self, scene: Scene) -> bool:
        """Four numbers for each dimension."""
        shape = scene.observation.shape
        return len(shape) == 1 and shape[0] % NUMBERS == 0 and shape[0] > 0 and scene.has_units

    def size(self, scene: Scene) -> tuple[float, float]:
        """A strip for each dimension."""
        count = len(scene.observation) // NUMBERS
        return 2.9, count * (1.25 if count == 1 else 1.0)

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """In metres and radians, true to scale."""
        blank(axes)
        physics = scene.observation.reshape(-1, NUMBERS)
        pushes = np.zeros((len(physics), 2)) if scene.target is None else scene.target.strength.reshape(-1, 2)
        reach = max(POSITION_LIMIT, float(np.abs(physics[:, 0]).max())) + 0.9
        for dimension, (numbers, push) in enumerate(zip(physics, pushes, strict=True)):
            self._dimension(axes, numbers, push, -ROW * dimension)
            if len(physics) > 1:
                axes.text(-reach, -ROW * dimension + 0.4, f"{dimension + 1}", color=GREY, fontsize=SMALL + 1)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(-ROW * (len(physics) - 1) - 1.05, 1.45)

    def _dimension(self, axes: "Axes", numbers: np.ndarray, push: np.ndarray, ground: float) -> None:
        position, velocity, angle, spin = numbers
        axes.plot([-POSITION_LIMIT, POSITION_LIMIT], [ground] * 2, color=GREY, linewidth=1.0, zorder=1)
        for side in (-1, 1):
            axes.plot([side * POSITION_LIMIT] * 2, [ground - 0.15, ground + 0.15], color=GREY, linewidth=1.0, zorder=1)
        box(axes, (position, ground), *CART, PALE)
        pivot = ground + CART[1] / 2
        tip = pole_tip(position, angle, pivot)
        capsule(axes, (position, pivot), tip, 0.06, "#c69c6d", zorder=7)
        arrow(axes, (position, ground - 0.4), (_within(SECONDS * velocity, 1.6), 0.0), BLUE, width=0.05)
        turn(axes, tip, -spin * SECONDS * 3, 0.22, BLUE)
        left, right = PUSH * np.clip(push, 0.0, 1.0)
        arrow(axes, (position - CART[0] / 2, ground), (-left, 0.0), ORANGE, width=0.13)
        arrow(axes, (position + CART[0] / 2, ground), (right, 0.0), ORANGE, width=0.13)

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        target = "Orange arrows: pushes that the example asks for; the longer, the likelier. " if scene.target else ""
        rows = " Each line is one dimension." if len(scene.observation) > NUMBERS else ""
        return f"{target}Blue arrows: velocities of cart and pole. Ticks: where an episode ends.{rows}"

    def lines(self, scene: Scene) -> list[str]:
        """As text: the pole above its cart, and the push that is asked for most as an arrow."""
        physics = scene.observation.reshape(-1, NUMBERS)
        pushes = np.zeros((len(physics), 2)) if scene.target is None else scene.target.strength.reshape(-1, 2)
        drawn = []
        for (position, _, angle, _), (left, right) in zip(physics.tolist(), pushes.tolist(), strict=True):
            place = round((_within(position / POSITION_LIMIT, 1.0) + 1) / 2 * (TRACK - 3)) + 1
            track = ["-"] * TRACK
            track[0] = track[-1] = "|"
            for number, side in ((right, 1), (left, -1)):
                for step in range(round(PUSH_LETTERS * min(1.0, max(0.0, number)))):
                    at = place + side * (2 + step)
                    if 0 <= at < TRACK:
                        track[at] = ">" if side > 0 else "<"
            track[place - 1 : place + 2] = "[o]"
            drawn += [" " * (place + _LEANING[_eighth(angle)][0]) + _LEANING[_eighth(angle)][1], "".join(track)]
        return drawn


TRACK = 33
"""Letters."""
PUSH_LETTERS = 5
"""Of a push that is certain."""
_LEANING = ((0, "|"), (1, "/"), (1, "__"), (1, "."), (0, "!"), (-1, "."), (-2, "__"), (-1, "\\"))
"""Where the pole's letter stands beside the cart's, and the letter, by eighths of a turn to the right."""


def _eighth(angle: float) -> int:
    return round(angle / (math.pi / 4)) % 8


def pole_tip(position: float, angle: float, pivot: float = 0.0) -> tuple[float, float]:
    """Where the pole ends: an angle of 0 is upright, a positive one leans to the right."""
    return position + POLE * math.sin(angle), pivot + POLE * math.cos(angle)


def _within(value: float, most: float) -> float:
    return max(-most, min(most, value))
