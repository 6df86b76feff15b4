"""What a task says of how its observations are to be drawn: which picture fits, and what its numbers are called."""

import importlib
from typing import Any, NamedTuple

from floppy.errors import FloppyError, must_be_one_of, shown
from floppy.fields import Registry
from floppy.tasks.bodies import Body, Posed, brax_body, gymnasium_body

PICTURES: Registry[Any] = Registry("kind of picture")
"""Kinds by name; `floppy.drawing`, which has their contract, registers those that come with floppy."""


class Picture(NamedTuple):
    """How the observations and actions of a task are drawn; `floppy.drawing` has the pictures themselves."""

    kind: str = ""
    """A name in `floppy.drawing.PICTURES`, such as `cartpole`; empty for what suits the shape of an observation."""
    names: tuple[str, ...] = ()
    """Of all numbers of an observation, with their units in brackets; of a grid the names of its channels."""
    actions: tuple[str, ...] = ()
    """Of all actions, or of the dimensions of a continuous action."""
    body: Body | None = None
    """The model by which an observation is posed; numbers of contacts, which come last, have no names then."""


class PictureError(FloppyError):
    """A task's picture that is none, or does not fit the task."""


def checked_picture(picture: Any, task_id: str, shape: tuple[int, ...], actions: int) -> Picture:
    """What a task gives as its picture, with names in tuples.

    Args:
      picture: anything.
      task_id: of the task, for the message.
      shape: of its observations.
      actions: how many there are, or dimensions of a continuous action.

    Raises:
      PictureError: if it is no `Picture`, of a kind that is not registered, or has names that are not one for each.
    """
    if not isinstance(picture, Picture):
        raise PictureError(f"The picture of {task_id} must be a floppy.drawing.Picture, got {shown(picture)}.")
    importlib.import_module("floppy.drawing")  # a layer above, which registers its kinds
    if picture.kind and picture.kind not in PICTURES:
        raise PictureError(str(must_be_one_of(f"The kind of the picture of {task_id}", picture.kind, PICTURES)))
    numbers = "channels" if len(shape) == 3 else "numbers of an observation"
    for what, where, names, count in (
        (numbers, "observation_names in its metadata, or names of its picture", picture.names, [1, *shape][-1]),
        ("actions", "action_names in its metadata, or actions of its picture", picture.actions, actions),
    ):
        if not _are_names(names, count, may_be_fewer=picture.body is not None):
            raise PictureError(
                f"The names of the {what} of {task_id} ({where}) must be a list of {count} text{'s'[: count != 1]}, "
                f"got {shown(names)}: give so many, or none."
            )
    return picture._replace(names=tuple(picture.names), actions=tuple(picture.actions))


def has_fitting_names(picture: Picture, shape: tuple[int, ...], actions: int) -> bool:
    """Whether a picture has as many names as there are numbers and actions, or none."""
    named = ((picture.names, [1, *shape][-1]), (picture.actions, actions))
    return all(_are_names(names, count, may_be_fewer=picture.body is not None) for names, count in named)


def _are_names(names: Any, count: int, *, may_be_fewer: bool) -> bool:
    """Whether these are texts, one for each of `count`, or none at all."""
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        return False
    return len(names) in (0, count) or (may_be_fewer and len(names) < count)


CART_POLE = ("position (m)", "velocity (m/s)", "angle (rad)", "angular velocity (rad/s)")
PUSHES = ("push left", "push right")


def cart_pole(dimensions: int) -> Picture:
    """Carts and poles; where there are several, names say of which dimension."""
    if dimensions == 1:
        return Picture("cartpole", CART_POLE, PUSHES)
    places = [f"{number + 1}: " for number in range(dimensions)]
    return Picture(
        "cartpole",
        tuple(place + name for place in places for name in CART_POLE),
        tuple(place + name for place in places for name in PUSHES),
    )


_LANDER = (
    "x",
    "y",
    "x velocity",
    "y velocity",
    "angle (rad)",
    "angular velocity",
    "right leg touches",
    "left leg touches",
)
_CAR = ("position", "velocity")

CLASSIC = {
    "CartPole": cart_pole(1),
    "Acrobot": Picture(
        "acrobot",
        ("cos angle 1", "sin angle 1", "cos angle 2", "sin angle 2", "velocity 1 (rad/s)", "velocity 2 (rad/s)"),
        ("torque -1", "no torque", "torque +1"),
    ),
    "MountainCar": Picture("mountain-car", _CAR, ("push left", "no push", "push right")),
    "MountainCarContinuous": Picture("mountain-car", _CAR, ("force",)),
    "Pendulum": Picture("pendulum", ("cos angle", "sin angle", "angular velocity (rad/s)"), ("torque (N m)",)),
    "LunarLander": Picture("lander", _LANDER, ("no engine", "left engine", "main engine", "right engine")),
    "LunarLanderContinuous": Picture("lander", _LANDER, ("main engine", "side engines")),
}
"""Classic control and Box2D, by the names that gymnax and Gymnasium share, without their versions."""

MINATAR = {
    "Asterix": Picture("cells", ("player", "enemy", "trail", "gold"), ("stay", "left", "up", "right", "down")),
    "Breakout": Picture("cells", ("paddle", "ball", "trail", "brick"), ("stay", "left", "right")),
    "Freeway": Picture(
        "cells", ("chicken", "car", *(f"speed {number}" for number in range(1, 6))), ("stay", "up", "down")
    ),
    "SpaceInvaders": Picture(
        "cells",
        ("cannon", "alien", "moving left", "moving right", "own bullet", "enemy bullet"),
        ("stay", "left", "right", "fire"),
    ),
    "Seaquest": Picture(
        "cells",
        (
            "submarine front",
            "submarine back",
            "own bullet",
            "trail",
            "enemy bullet",
            "fish",
            "enemy submarine",
            "oxygen",
            "divers aboard",
            "diver",
        ),
        ("stay", "left", "up", "right", "down", "fire"),
    ),
}
"""MinAtar's games (Young and Tian, 2019)."""

_DIRECTIONS = ("up", "right", "left", "down", "up right", "up left", "down right", "down left")
ATARI_ACTIONS = ("no-op", "fire", *_DIRECTIONS, *(f"{each} fire" for each in _DIRECTIONS))
"""All 18 of the Arcade Learning Environment, in its order."""
_GAMES = {
    "pong": (0, 1, 3, 4, 11, 12),
    "breakout": (0, 1, 3, 4),
    "space_invaders": (0, 1, 3, 4, 11, 12),
    "ms_pacman": (0, 2, 3, 4, 5, 6, 7, 8, 9),
    "centipede": tuple(range(18)),
}
"""Which of them some games know; those of others go by their numbers."""


def without_version(name: str) -> str:
    """The name of an environment without the number of its version: Hopper of Hopper-v4."""
    stem, dash, version = name.rpartition("-v")
    return stem if dash and version.isdigit() else name


def gymnax_picture(name: str) -> Picture:
    """Of a gymnax environment."""
    stem, _, suite = name.partition("-")
    if suite == "MinAtar":
        return MINATAR.get(stem, Picture())
    return CLASSIC.get(without_version(name), Picture())


def gymnasium_picture(name: str) -> Picture:
    """Of a Gymnasium environment, `name` with its version and without arguments."""
    if posed := gymnasium_body(name):
        return _posed(posed)
    return CLASSIC.get(without_version(name), Picture())


def brax_picture(name: str) -> Picture:
    """Of a Brax environment, on any backend."""
    posed = brax_body(name)
    return Picture() if posed is None else _posed(posed)


def atari_picture(game: str) -> Picture:
    """The last four frames, grey."""
    frames = ("oldest frame", "second frame", "third frame", "newest frame")
    return Picture("frames", frames, tuple(ATARI_ACTIONS[index] for index in _GAMES.get(game, ())))


FASHION = ("T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def image_picture(classes: tuple[int | str, ...]) -> Picture:
    """Labelled images."""
    return Picture("image", actions=tuple(map(str, classes)))


def _posed(posed: Posed) -> Picture:
    body, names, actions = posed
    return Picture("body", names, actions, body)
