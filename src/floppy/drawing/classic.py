"""Classic control and Box2D: Acrobot's links, the car in the valley, the pendulum, the lander."""

import itertools
import math
from typing import TYPE_CHECKING

import numpy as np

from floppy.drawing.base import BLUE, GREY, INK, ORANGE, PALE, Scene, blank, is_vector
from floppy.drawing.shapes import arrow, capsule, turn

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WOOD = "#c69c6d"


def expected(scene: Scene) -> float:
    """Of a target: the mean of -1, 0, 1 under the probabilities of three actions, or a continuous action, -1 .. 1."""
    if scene.target is None:
        return 0.0
    strength = scene.target.strength
    return float(strength @ np.linspace(-1.0, 1.0, len(strength))) if scene.target.is_discrete else float(strength[0])


class Acrobot:
    """Two links; the lower one is driven."""

    def fits(self, scene: Scene) -> bool:
        """Cosines and sines of two angles, and their velocities."""
        return is_vector(scene, 6)

    def size(self, scene: Scene) -> tuple[float, float]:
        """A square."""
        return 1.9, 1.9

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Both angles are 0 where the links hang straight down."""
        blank(axes)
        joints = links(scene.observation)
        axes.plot([-2.2, 2.2], [1.0, 1.0], color=GREY, linewidth=1.0, linestyle="--", zorder=1)
        for start, end in itertools.pairwise(joints):
            capsule(axes, start, end, 0.1, PALE)
        axes.plot(*np.array(joints[:-1]).T, "o", color=INK, markersize=3, zorder=5)
        velocities = 0.3 * scene.observation[4:]
        for joint, velocity in zip(joints[:-1], velocities, strict=True):
            turn(axes, joint, velocity, 0.3, BLUE)
        turn(axes, joints[1], 4.0 * expected(scene), 0.55, ORANGE, width=2.6)
        axes.set_xlim(-2.3, 2.3)
        axes.set_ylim(-2.3, 2.3)

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        target = "Orange arrow: the torque that the target asks for, on average. " if scene.target else ""
        return f"{target}Blue arrows: angular velocities. Dashed: the height that the tip has to reach."


def links(observation: np.ndarray) -> list[tuple[float, float]]:
    """Acrobot's two joints and its tip."""
    first = math.atan2(observation[1], observation[0])
    second = first + math.atan2(observation[3], observation[2])
    elbow = (math.sin(first), -math.cos(first))
    return [(0.0, 0.0), elbow, (elbow[0] + math.sin(second), elbow[1] - math.cos(second))]


class MountainCar:
    """A car in a valley, with three actions or a continuous force."""

    def fits(self, scene: Scene) -> bool:
        """Position and velocity."""
        return is_vector(scene, 2)

    def size(self, scene: Scene) -> tuple[float, float]:
        """Wider than high."""
        return 2.6, 1.6

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """The valley of the original environment; beyond its ends it goes on."""
        blank(axes)
        position, velocity = scene.observation
        low, high = min(-1.25, position - 0.25), max(0.65, position + 0.25)
        places = np.linspace(low, high, 160)
        axes.fill_between(places, valley(places), -0.15, color=PALE, linewidth=0, zorder=1)
        axes.plot(places, valley(places), color=GREY, linewidth=1.0, zorder=2)
        goal = 0.5
        axes.plot([goal, goal], [valley(goal), valley(goal) + 0.28], color=INK, linewidth=1.2, zorder=2)
        axes.fill([goal, goal + 0.14, goal], valley(goal) + np.array([0.28, 0.22, 0.16]), color="#e8b100", zorder=2)
        slope = math.atan(1.35 * math.cos(3 * position))
        along, up = np.array([math.cos(slope), math.sin(slope)]), np.array([-math.sin(slope), math.cos(slope)])
        wheels = np.array([position, valley(position)]) + 0.045 * up
        capsule(axes, wheels - 0.07 * along + 0.03 * up, wheels + 0.07 * along + 0.03 * up, 0.05, "#7aa2d6")
        for side in (-0.06, 0.06):
            axes.plot(*(wheels + side * along), "o", color=INK, markersize=3.5, zorder=4)
        arrow(axes, wheels + 0.18 * up, np.clip(8.0 * velocity, -0.7, 0.7) * along, BLUE, width=0.025)
        arrow(axes, wheels + 0.28 * up, np.clip(0.45 * expected(scene), -0.7, 0.7) * along, ORANGE, width=0.045)
        axes.set_xlim(low, high)
        axes.set_ylim(-0.15, 1.45)

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        target = "Orange arrow: the push that the target asks for, on average. " if scene.target else ""
        return f"{target}Blue arrow: the car's velocity. Flag: the goal."


def valley(position: "float | np.ndarray") -> "np.ndarray":
    """The height of the ground."""
    return np.asarray(np.sin(3 * np.asarray(position)) * 0.45 + 0.55)


class Pendulum:
    """A rod that is to be swung up."""

    def fits(self, scene: Scene) -> bool:
        """Cosine and sine of the angle, and its velocity."""
        return is_vector(scene, 3)

    def size(self, scene: Scene) -> tuple[float, float]:
        """A square."""
        return 1.7, 1.7

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """An angle of 0 is upright, a positive one leans to the left, as Gymnasium draws it."""
        blank(axes)
        capsule(axes, (0.0, 0.0), rod_tip(scene.observation), 0.1, WOOD)
        axes.plot(0.0, 0.0, "o", color=INK, markersize=4, zorder=5)
        turn(axes, (0.0, 0.0), 0.35 * scene.observation[2], 0.35, BLUE)
        turn(axes, (0.0, 0.0), 4.0 * expected(scene), 0.62, ORANGE, width=2.6)
        axes.set_xlim(-1.3, 1.3)
        axes.set_ylim(-1.3, 1.3)

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        target = "Orange arrow: the torque that the target asks for. " if scene.target else ""
        return f"{target}Blue arrow: the rod's angular velocity. Up is the goal."


def rod_tip(observation: np.ndarray) -> tuple[float, float]:
    """Where the pendulum's rod, of length 1, ends."""
    angle = math.atan2(observation[1], observation[0])
    return -math.sin(angle), math.cos(angle)


_HULL = np.array([(-14, 17), (-17, 0), (-17, -10), (17, -10), (17, 0), (14, 17)]) / 60
_LEG = np.array([(0, -8), (20, -26), (14, -30), (-6, -10)]) / 60


class Lander:
    """LunarLander's hull and legs above its pad."""

    def fits(self, scene: Scene) -> bool:
        """Place, velocities, angle and whether the legs touch the ground."""
        return is_vector(scene, 8)

    def size(self, scene: Scene) -> tuple[float, float]:
        """A square."""
        return 2.1, 2.1

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """The pad is at the origin, an angle of 0 upright, a positive one turned anticlockwise."""
        blank(axes)
        x, y, across, up, angle, spin, right, left = scene.observation  # the first leg of the model is on the right
        centre, turned = np.array([x, y]), _rotation(angle)
        reach = max(1.2, abs(x) + 0.5)
        axes.plot([-reach, reach], [-0.3, -0.3], color=GREY, linewidth=1.0, zorder=1)
        axes.plot([-0.25, 0.25], [-0.3, -0.3], color=INK, linewidth=3.0, zorder=2)
        for flag in (-0.25, 0.25):
            axes.fill([flag, flag + 0.12, flag], [-0.1, -0.14, -0.18], color="#e8b100", zorder=2)
            axes.plot([flag, flag], [-0.3, -0.1], color=INK, linewidth=1.0, zorder=2)
        for side, touches in ((-1, left), (1, right)):
            leg = centre + _LEG * (side, 1) @ turned
            axes.fill(*leg.T, facecolor=INK if touches > 0.5 else PALE, edgecolor=INK, linewidth=0.8, zorder=3)
        axes.fill(*(centre + _HULL @ turned).T, facecolor="#b9b4d8", edgecolor=INK, linewidth=0.8, zorder=4)
        arrow(axes, centre, 0.4 * np.clip([across, up], -2.0, 2.0), BLUE, width=0.03)
        turn(axes, centre, 0.8 * spin, 0.42, BLUE)
        for power, out in self._engines(scene):
            arrow(axes, centre + 0.28 * out @ turned, 0.6 * power * out @ turned, ORANGE, width=0.07)
        axes.set_xlim(-reach, reach)
        axes.set_ylim(min(-0.45, y - 0.7), max(1.9, y + 0.7))

    def _engines(self, scene: Scene) -> list[tuple[float, np.ndarray]]:
        """How strong each engine is to be, and where its flame goes: the left engine pushes to the left."""
        if scene.target is None:
            return []
        down, left, right = np.array([0.0, -1.0]), np.array([-1.0, 0.0]), np.array([1.0, 0.0])
        strength = np.clip(scene.target.strength, -1.0, 1.0)
        if scene.target.is_discrete:
            return list(zip(strength[1:].tolist(), (right, down, left), strict=True))
        main, side = strength.tolist()
        # Below these thresholds the engines are off.
        return [
            ((main + 1) / 2 if main > 0 else 0.0, down),
            (abs(side) if abs(side) > 0.5 else 0.0, left if side > 0 else right),
        ]

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        target = "Orange arrows: flames of the engines that the target asks for. " if scene.target else ""
        return f"{target}Blue arrows: the lander's velocity and turn. A leg that touches the ground is dark."


def _rotation(angle: float) -> np.ndarray:
    """For rows `[n, 2]` from the right: anticlockwise."""
    return np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
