"""Bodies of MuJoCo and Brax, posed by MuJoCo's kinematics and drawn from the shapes of their models: no renderer."""

import functools
import importlib
import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from floppy.drawing.base import GREY, ORANGE, PALE, Scene, blank
from floppy.drawing.shapes import arrow, capsule_outline, turn
from floppy.tasks.base import quiet_mujoco
from floppy.tasks.bodies import SIDE, SLANTING, TOP, Body

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_AZIMUTH, _ELEVATION = math.radians(25.0), math.radians(22.0)
_FORWARD = np.array([-math.sin(_AZIMUTH), math.cos(_AZIMUTH), 0.0])
_UP = np.array([0.0, 0.0, 1.0])


class View(NamedTuple):
    """From where a body is seen; all `[3]`, in the world's coordinates."""

    right: np.ndarray
    up: np.ndarray
    towards: np.ndarray
    """The eye."""

    def flat(self, points: np.ndarray) -> np.ndarray:
        """Points `[..., 3]` on the page, `[..., 2]`."""
        return np.stack([points @ self.right, points @ self.up], axis=-1)


VIEWS = {
    SIDE: View(np.array([1.0, 0.0, 0.0]), _UP, np.array([0.0, -1.0, 0.0])),
    TOP: View(np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0]), _UP),
    SLANTING: View(
        np.array([math.cos(_AZIMUTH), math.sin(_AZIMUTH), 0.0]),
        _FORWARD * math.sin(_ELEVATION) + _UP * math.cos(_ELEVATION),
        _UP * math.sin(_ELEVATION) - _FORWARD * math.cos(_ELEVATION),
    ),
}
SIDE_LENGTH = 2.3
"""Of the picture, in inches."""
LIMBS = ("#9fb8d9", "#c9a6a0", "#a8c6a2", "#d9c79f", "#b9b4d8", "#9ccbcb")


class PosedBody:
    """A body as an observation poses it, and at its joints the torques of a target."""

    def fits(self, scene: Scene) -> bool:
        """An observation of the body's, in the task's units, where MuJoCo and the model are installed."""
        body = _body_of(scene)
        return body is not None and _is_installed(body)

    def size(self, scene: Scene) -> tuple[float, float]:
        """A square."""
        return SIDE_LENGTH, SIDE_LENGTH

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Every shape of the model, what is nearer over what is farther."""
        from matplotlib.patches import Polygon

        body = scene.picture.body
        assert body is not None
        blank(axes)
        view, model = VIEWS[body.view], _model(body)
        posed = pose(body, scene.observation)
        drawn = []
        for geom, outline in outlines(model, posed, view):
            is_world = model.geom_bodyid[geom] == 0
            colour = PALE if is_world else LIMBS[_limb(model, geom) % len(LIMBS)]
            depth = float(posed.geom_xpos[geom] @ view.towards)
            edge = GREY if is_world else "#24292f"
            axes.add_patch(
                Polygon(outline, facecolor=colour, edgecolor=edge, linewidth=0.7, zorder=2 + 0.1 * math.tanh(depth))
            )
            drawn.append(outline)
        self._frame(axes, body, np.concatenate(drawn))
        if scene.target is not None and body.view != SLANTING:
            self._torques(axes, model, posed, view, scene.target.strength)

    def _frame(self, axes: "Axes", body: Body, points: np.ndarray) -> None:
        """Limits in which the body fits when it stands as its model has it, or farther ones; and the ground."""
        usual = _usual_points(body)
        low, high = np.minimum(usual.min(0), points.min(0)), np.maximum(usual.max(0), points.max(0))
        side = 1.08 * float((high - low).max())
        middle = (high + low) / 2
        axes.set_xlim(middle[0] - side / 2, middle[0] + side / 2)
        axes.set_ylim(middle[1] - side / 2, middle[1] + side / 2)
        if body.view == SIDE:
            axes.axhline(0.0, color=GREY, linewidth=0.8, zorder=0)

    def _torques(self, axes: "Axes", model: Any, posed: Any, view: View, strength: np.ndarray) -> None:
        """Turns of hinges, and pushes along slides."""
        scale = float(np.ptp(axes.get_xlim()))
        for actuator, value in enumerate(np.clip(strength, -1.5, 1.5)[: model.nu].tolist()):
            joint = model.actuator_trnid[actuator, 0]
            anchor, axis = view.flat(posed.xanchor[joint]), posed.xaxis[joint]
            if model.jnt_type[joint] == _SLIDE:
                arrow(axes, anchor, 0.25 * scale * value * view.flat(axis), ORANGE, width=0.02 * scale)
            else:
                turn(axes, anchor, 3.0 * value * float(axis @ view.towards), 0.06 * scale, ORANGE, width=1.8)

    def caption(self, scene: Scene) -> str:
        """What the arrows are."""
        body = scene.picture.body
        is_flat = scene.target is not None and body is not None and body.view != SLANTING
        arrows = " Orange arrows: the torques or pushes that the target asks for." if is_flat else ""
        possible = "" if scene.target is None else " An example need not be a pose that is possible in play."
        seen = _SEEN[body.view if body else SIDE]
        return f"The body as the observation poses it, seen from the {seen}.{arrows}{possible}"


_SEEN = {SIDE: "side", TOP: "top", SLANTING: "front and above"}
# As in mjtGeom and mjtJoint of MuJoCo's documentation.
_PLANE, _SPHERE, _CAPSULE, _ELLIPSOID, _CYLINDER, _BOX = 0, 2, 3, 4, 5, 6
_SLIDE = 2


def missing_of(scene: Scene) -> str:
    """What to install where there is a body, but not what draws it; otherwise empty."""
    body = _body_of(scene)
    if body is None or _is_installed(body):
        return ""
    extra = "brax" if body.package == "brax" else "mujoco"
    return f"To see the body in its pose: pip install 'floppy-rl[{extra}]'."


def _body_of(scene: Scene) -> Body | None:
    """The body that an observation poses, where it is that body's, in the task's units."""
    body = scene.picture.body
    return body if body is not None and scene.observation.shape == (body.size,) and scene.has_units else None


def _is_installed(body: Body) -> bool:
    return model_path(body) is not None and importlib.util.find_spec("mujoco") is not None


def model_path(body: Body) -> Path | None:
    """The file of a body's model, None where the package that holds it is not installed."""
    found = importlib.util.find_spec(body.package)
    if found is None or not found.origin:
        return None
    path = Path(found.origin).parent / body.model
    return path if path.is_file() else None


def pose(body: Body, observation: np.ndarray) -> Any:
    """MuJoCo's data of a body, its positions of shapes and joints computed from an observation."""
    mujoco, model = importlib.import_module("mujoco"), _model(body)
    posed = mujoco.MjData(model)
    posed.qpos[:] = body.positions(np.asarray(observation, float))
    if body.has_height:
        posed.qpos[1] -= model.body_pos[1, 2] - model.qpos0[1]
    mujoco.mj_kinematics(model, posed)
    return posed


def outlines(model: Any, posed: Any, view: View) -> list[tuple[int, np.ndarray]]:
    """The outline `[n, 2]` of every shape of a model, by its number; planes are left out."""
    found = []
    for geom in range(model.ngeom):
        kind, size = int(model.geom_type[geom]), model.geom_size[geom]
        centre, turned = posed.geom_xpos[geom], posed.geom_xmat[geom].reshape(3, 3)
        if kind in (_CAPSULE, _CYLINDER):
            along = size[1] * turned[:, 2]
            ends = view.flat(np.stack([centre - along, centre + along]))
            found.append((geom, capsule_outline(ends[0], ends[1], size[0])))
        elif kind in (_SPHERE, _ELLIPSOID):
            radius = float(size[0] if kind == _SPHERE else size.mean())
            found.append((geom, capsule_outline(view.flat(centre), view.flat(centre), radius)))
        elif kind == _BOX:
            corners = np.array([[a, b, c] for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]) * size
            found.append((geom, _hull(view.flat(centre + corners @ turned.T))))
    return found


def _hull(points: np.ndarray) -> np.ndarray:
    from scipy.spatial import ConvexHull

    return np.asarray(points[ConvexHull(points).vertices])


def _limb(model: Any, geom: int) -> int:
    """A number that is the same for shapes of one part of the body."""
    return int(model.geom_bodyid[geom])


@functools.cache
def _model(body: Body) -> Any:
    """MuJoCo's model, read once."""
    mujoco, path = importlib.import_module("mujoco"), model_path(body)
    with quiet_mujoco(mujoco):
        return mujoco.MjModel.from_xml_path(str(path))


@functools.cache
def _usual_points(body: Body) -> np.ndarray:
    """Where the body's outlines are `[n, 2]` as its model has it, seen as it is drawn."""
    mujoco, model = importlib.import_module("mujoco"), _model(body)
    posed = mujoco.MjData(model)
    mujoco.mj_kinematics(model, posed)
    return np.concatenate([outline for _, outline in outlines(model, posed, VIEWS[body.view])])
