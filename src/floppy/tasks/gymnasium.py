"""Gymnasium environments as host tasks: MuJoCo, classic control, and whatever is registered with Gymnasium.

Gymnasium is optional: all that needs it stands in `gymnasium_environments.py`.
"""

import dataclasses
import importlib.util
import sys
from typing import TYPE_CHECKING, Any

from floppy.spaces import Continuous, Discrete
from floppy.tasks.arguments import join, split
from floppy.tasks.arguments import with_arguments as with_arguments
from floppy.tasks.lookup import import_module, import_optional, unknown_task
from floppy.tasks.pictures import Picture, gymnasium_picture, has_fitting_names
from floppy.tasks.untrusted import check_harmless, foreign_module, unregistered_task

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

FAMILY = "gymnasium"
POSITIONS = "exclude_current_positions_from_observation"
"""The argument by which MuJoCo's environments show where their bodies are, too."""
DESCRIPTION = (
    "every environment that is registered with Gymnasium, with suitable spaces; ID?key=value&key2=value2 (or "
    "--env-kwargs) gives it arguments, max_episode_steps=N a time limit where it has none; needs "
    "pip install 'floppy-rl[gymnasium]', MuJoCo's 'floppy-rl[mujoco]', Box2D's 'floppy-rl[box2d]'"
)


def _environments() -> Any:
    """The module of what needs Gymnasium."""
    import_optional("gymnasium", "gymnasium", f"Tasks {FAMILY}/... need Gymnasium")
    from floppy.tasks import gymnasium_environments

    return gymnasium_environments


@dataclasses.dataclass(frozen=True)
class GymnasiumTask:
    """The environment that is registered with Gymnasium as `name`, which may be `module:id`.

    Arguments for `gymnasium.make` may follow, `id?key=value&key2=value2`; the name holds them in the order of their
    keys. Observations become float32 arrays, bytes from 0 to 255 stay bytes. Those of three dimensions keep their
    shape, for they may be images; other boxes are flattened, and all other spaces by `gymnasium.spaces.flatten`, as
    `card_notes` says. Actions are numbered from 0, and continuous ones flattened.

    Raises:
      FloppyError: when built with the name of an environment that cannot be a task.
    """

    name: str

    def __post_init__(self) -> None:
        """Makes the environment once, to see whether it can be a task."""
        object.__setattr__(self, "name", join(*split(self.name)))
        self._description  # noqa: B018

    @property
    def task_id(self) -> str:
        """`gymnasium/NAME`, with its arguments."""
        return f"{FAMILY}/{self.name}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[rows, columns, channels]` of an image, else `[o]`."""
        shape: tuple[int, ...] = self._description.observation_shape
        return shape

    @property
    def observes_bytes(self) -> bool:
        """Where the space is a box of bytes from 0 to 255."""
        return bool(self._description.observes_bytes)

    @property
    def actions(self) -> Discrete | Continuous:
        """The action space, flattened."""
        space = self._description.action_space
        if hasattr(space, "n"):
            return Discrete(int(space.n))
        low, high = (tuple(map(float, bound.ravel())) for bound in (space.low, space.high))
        return Continuous(len(low), low, high)

    @property
    def max_steps(self) -> int:
        """The time limit that the environment is registered with, or was given."""
        return int(self._description.max_steps)

    @property
    def max_return(self) -> None:
        """Not known: Gymnasium's reward thresholds are no maxima."""
        return

    @property
    def package(self) -> str:
        """The package that registers the environment."""
        return str(self._description.package)

    @property
    def plays_others_code(self) -> bool:
        """Whether the environment is none of Gymnasium's own; see `check_own_task`."""
        return not self._description.is_gymnasiums

    @property
    def card_notes(self) -> str:
        """What observations were before they were flattened, where they were no box."""
        return str(self._description.notes)

    @property
    def picture(self) -> Picture:
        """MuJoCo's bodies and classic control have one of their own; of others `metadata` may say it."""
        known = picture(self.name)
        if known is not None and has_fitting_names(known, self.observation_shape, self.actions.size):
            return known
        own: Picture = self._description.picture
        return own

    @property
    def description(self) -> str:
        """The first paragraph of the docstring of the environment's class, if that is not Gymnasium's own."""
        return str(self._description.about)

    def make_vector(self, count: int, *, training: bool) -> "VectorEnv":
        """Makes `count` copies, stepped one after the other in this process; see `HostTask`."""
        del training
        vector: VectorEnv = _environments().make_vector(
            self.name, count, self.task_id, self.observation_shape, self.actions
        )
        return vector

    @property
    def _description(self) -> Any:
        return _environments().describe(self.name)


def make(rest: str) -> GymnasiumTask:
    """The task `gymnasium/rest`; of `module:id` the module is imported first, as Gymnasium does.

    Raises:
      FloppyError: if the module cannot be imported, Gymnasium does not know the id, or arguments are not allowed.
    """
    identifier, arguments = split(rest)
    known = _environments().registered_names()
    module, colon, name = identifier.rpartition(":")
    if colon:
        import_module(module)
        known = _environments().registered_names()
    if name not in known:
        hint = "--import MODULE brings environments of your own."
        raise unknown_task(f"{FAMILY}/{identifier}", [f"{FAMILY}/{module}{colon}{name}" for name in known], hint)
    return GymnasiumTask(join(identifier, arguments))


def from_file(rest: str, command: str) -> str:
    """The name as it is, if it needs no module that is not imported yet, and names no file; see `task_of_file`.

    Raises:
      FloppyError: saying what to import, or which argument may open something.
    """
    identifier, arguments = split(rest)
    known = _environments().registered_names()
    module, colon, name = identifier.rpartition(":")
    if colon and module not in sys.modules:
        raise foreign_module(f"{FAMILY}/{rest}", module)
    if name not in known:
        raise unregistered_task(f"{FAMILY}/{rest}", command)
    check_harmless(f"{FAMILY}/{rest}", arguments)
    return rest


def picture(rest: str) -> Picture | None:
    """How `gymnasium/rest` is drawn; what does not fit an observation is not."""
    name, _, arguments = rest.partition("?")
    # With positions before all other numbers, names would be those of their neighbours.
    known = Picture() if POSITIONS in arguments else gymnasium_picture(name)
    return None if known == Picture() else known


def names() -> list[str]:
    """Those that look as if they could be tasks; none where Gymnasium is not installed."""
    return list(_environments().likely_names()) if importlib.util.find_spec("gymnasium") else []


__all__ = ["GymnasiumTask"]
