"""Bodies of MuJoCo's and Brax's environments: where their models lie, and their joints' positions in observations."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

SIDE, TOP, SLANTING = "side", "top", "slanting"
"""From where a body is seen: along y, along z, or from above at an angle."""


class Body(NamedTuple):
    """How an observation is posed."""

    package: str
    """The installed package that holds the model."""
    model: str
    """The model's file, in MuJoCo's XML, within the package."""
    size: int
    """Numbers of an observation."""
    positions: Callable[[np.ndarray], np.ndarray]
    """From an observation `[size]` to the positions `[nq]` of the model's joints, `qpos`."""
    view: str = SIDE
    has_height: bool = False
    """Whether `qpos[1]` is given as the height of the torso where the model has it relative to the torso's own."""


def _after(hidden: int, count: int) -> Callable[[np.ndarray], np.ndarray]:
    """Positions of which an observation leaves out the first `hidden`: where the body is does not matter."""
    return lambda observation: np.concatenate([np.zeros(hidden), observation[: count - hidden]])


def _double_pendulum(observation: np.ndarray) -> np.ndarray:
    """From the cart's place, and sines and cosines of both angles."""
    return np.array([observation[0], *np.arctan2(observation[1:3], observation[3:5])])


def _reacher(observation: np.ndarray) -> np.ndarray:
    """From cosines and sines of both angles, and the target's place."""
    return np.array([*np.arctan2(observation[2:4], observation[:2]), *observation[4:6]])


Parts = tuple[Callable[[np.ndarray], np.ndarray], str, tuple[str, ...], tuple[str, ...]]
"""Positions, view, names of the observation's numbers, and of the actions."""

_HOPPER = ("thigh", "leg", "foot")
_WALKER = (*_HOPPER, "left thigh", "left leg", "left foot")
_CHEETAH = ("back thigh", "back shin", "back foot", "front thigh", "front shin", "front foot")
_ANT = tuple(f"{joint} {leg}" for leg in range(1, 5) for joint in ("hip", "ankle"))
_ANT_ACTIONS = ("hip 4", "ankle 4", "hip 1", "ankle 1", "hip 2", "ankle 2", "hip 3", "ankle 3")
_LIMBS = tuple(
    f"{side} {joint}" for side in ("right", "left") for joint in ("hip x", "hip z", "hip y", "knee")
) + tuple(f"{side} {joint}" for side in ("right", "left") for joint in ("shoulder 1", "shoulder 2", "elbow"))
_HUMANOID = ("abdomen z", "abdomen y", "abdomen x", *_LIMBS)
_HUMANOID_ACTIONS = ("abdomen y", "abdomen z", "abdomen x", *_LIMBS)


def _planar(joints: tuple[str, ...]) -> tuple[str, ...]:
    """Height and angles, then velocities."""
    angles = ("torso", *joints)
    return (
        "height (m)",
        *(f"{name} angle (rad)" for name in angles),
        "forward velocity (m/s)",
        "upward velocity (m/s)",
        *(f"{name} velocity (rad/s)" for name in angles),
    )


def _free(joints: tuple[str, ...]) -> tuple[str, ...]:
    """Height, orientation and angles, then velocities."""
    axes = ("x", "y", "z")
    return (
        "height (m)",
        *(f"orientation {each}" for each in ("w", *axes)),
        *(f"{name} (rad)" for name in joints),
        *(f"{each} velocity (m/s)" for each in axes),
        *(f"{each} rotation (rad/s)" for each in axes),
        *(f"{name} velocity (rad/s)" for name in joints),
    )


_PENDULUM = ("cart position (m)", "pole angle (rad)", "cart velocity (m/s)", "pole velocity (rad/s)")
_DOUBLE = (
    "cart position (m)",
    "sin lower angle",
    "sin upper angle",
    "cos lower angle",
    "cos upper angle",
    "cart velocity (m/s)",
    "lower pole velocity (rad/s)",
    "upper pole velocity (rad/s)",
    "force at the cart",
    "force at the lower pole",
    "force at the upper pole",
)
_REACHER = ("cos angle 1", "cos angle 2", "sin angle 1", "sin angle 2", "target x (m)", "target y (m)")
_REACH = tuple(f"fingertip to target {axis} (m)" for axis in ("x", "y", "z"))
_TURNS = ("velocity 1 (rad/s)", "velocity 2 (rad/s)")
_TIP = ("fingertip x velocity (m/s)", "fingertip y velocity (m/s)")

_BODIES: dict[str, Parts] = {
    "hopper": (_after(1, 6), SIDE, _planar(_HOPPER), _HOPPER),
    "walker2d": (_after(1, 9), SIDE, _planar(_WALKER), _WALKER),
    "half_cheetah": (_after(1, 9), SIDE, _planar(_CHEETAH), _CHEETAH),
    "inverted_pendulum": (_after(0, 2), SIDE, _PENDULUM, ("push of the cart",)),
    "inverted_double_pendulum": (_double_pendulum, SIDE, _DOUBLE, ("push of the cart",)),
    "reacher": (_reacher, TOP, (*_REACHER, *_TURNS, *_REACH), ("shoulder", "elbow")),
    "ant": (_after(2, 15), SLANTING, _free(_ANT), _ANT_ACTIONS),
    "humanoid": (_after(2, 24), SLANTING, _free(_HUMANOID), _HUMANOID_ACTIONS),
    "humanoidstandup": (_after(2, 24), SLANTING, _free(_HUMANOID), _HUMANOID_ACTIONS),
}
"""By the stems of the models' files, which Brax and Gymnasium share."""

_BRAX_SIZES = {
    "hopper": 11,
    "walker2d": 17,
    "half_cheetah": 17,
    "inverted_pendulum": 4,
    "inverted_double_pendulum": 8,
    "reacher": 11,
    "ant": 27,
    "humanoid": 244,
    "humanoidstandup": 244,
}
_GYMNASIUM = {
    "Hopper-v4": ("hopper", 11),
    "Hopper-v5": ("hopper", 11),
    "Walker2d-v4": ("walker2d", 17),
    "Walker2d-v5": ("walker2d", 17),
    "HalfCheetah-v4": ("half_cheetah", 17),
    "HalfCheetah-v5": ("half_cheetah", 17),
    "InvertedPendulum-v4": ("inverted_pendulum", 4),
    "InvertedPendulum-v5": ("inverted_pendulum", 4),
    "InvertedDoublePendulum-v4": ("inverted_double_pendulum", 11),
    "InvertedDoublePendulum-v5": ("inverted_double_pendulum", 9),
    "Reacher-v4": ("reacher", 11),
    "Reacher-v5": ("reacher", 10),
    "Ant-v4": ("ant", 27),
    "Ant-v5": ("ant", 105),
    "Humanoid-v4": ("humanoid", 376),
    "Humanoid-v5": ("humanoid", 348),
    "HumanoidStandup-v4": ("humanoidstandup", 376),
    "HumanoidStandup-v5": ("humanoidstandup", 348),
}
"""Stem of the model and numbers of an observation, with the environment's usual arguments."""

Posed = tuple[Body, tuple[str, ...], tuple[str, ...]]
"""A body, names of the observation's numbers, and of the actions."""


def brax_body(name: str) -> Posed | None:
    """Of a Brax environment; None where there is no such."""
    stem = "half_cheetah" if name == "halfcheetah" else name
    if stem not in _BODIES:
        return None
    positions, view, names, actions = _BODIES[stem]
    names = (*_REACHER, *_TIP, *_REACH) if stem == "reacher" else names
    has_height = stem in ("hopper", "walker2d")
    body = Body("brax", f"envs/assets/{stem}.xml", _BRAX_SIZES[stem], positions, view, has_height)
    return body, names[: body.size], actions


def gymnasium_body(name: str) -> Posed | None:
    """Of a MuJoCo environment of Gymnasium's, with its usual arguments; None for any other."""
    if name not in _GYMNASIUM:
        return None
    stem, size = _GYMNASIUM[name]
    positions, view, names, actions = _BODIES[stem]
    file = "walker2d_v5" if name == "Walker2d-v5" else stem
    body = Body("gymnasium", f"envs/mujoco/assets/{file}.xml", size, positions, view)
    return body, names[:size], actions
