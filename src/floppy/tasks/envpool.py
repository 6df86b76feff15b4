"""Gymnasium's environments in EnvPool's C++: `envpool/ID`, the physics of `gymnasium/ID` in several threads.

EnvPool is optional, and large: all that needs it stands in `envpool_environments.py`.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

from floppy.errors import FloppyError
from floppy.tasks.gymnasium import GymnasiumTask
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import Picture, gymnasium_picture

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

FAMILY = "envpool"
DESCRIPTION = (
    "MuJoCo's robots as gymnasium/ID has them, two to three times as fast; needs pip install 'floppy-rl[envpool]'"
)
ROBOTS = (
    "Ant",
    "HalfCheetah",
    "Hopper",
    "Humanoid",
    "HumanoidStandup",
    "InvertedPendulum",
    "Swimmer",
    "Walker2d",
)
OTHERS = ("HumanoidStandup-v4",)
"""Whose rewards EnvPool counts in another way."""
NAMES = tuple(name for robot in ROBOTS for version in ("v4", "v5") if (name := f"{robot}-{version}") not in OTHERS)
"""Those whose steps a test compares with Gymnasium's; EnvPool has many more."""
SHORT_NAMES: dict[str, str] = {}
"""None: they are Gymnasium's."""


@dataclasses.dataclass(frozen=True)
class EnvPoolTask(GymnasiumTask):
    """Gymnasium's environment `name` as EnvPool steps it: spaces, rewards and ends are the same, random starts others.

    Raises:
      FloppyError: when built without EnvPool or Gymnasium's MuJoCo installed.
    """

    plays_others_code: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Checks that both are installed."""
        _environments()
        super().__post_init__()

    @property
    def task_id(self) -> str:
        """`envpool/NAME`."""
        return f"{FAMILY}/{self.name}"

    @property
    def card_task(self) -> str:
        """`gymnasium/NAME`: what learns from the dataset can do without EnvPool."""
        return f"gymnasium/{self.name}"

    @property
    def package(self) -> str:
        """EnvPool, whose version a card names."""
        return "envpool"

    def make_vector(self, count: int, *, training: bool) -> "VectorEnv":
        """Makes `count` copies, stepped by as many threads as there are cores; see `HostTask`."""
        del training
        vector: VectorEnv = _environments().Pool(self.name, count)
        return vector


def _environments() -> Any:
    """The module of what needs EnvPool."""
    import_optional("envpool", "envpool", f"Tasks {FAMILY}/... need EnvPool")
    from floppy.tasks import envpool_environments

    return envpool_environments


def make(rest: str) -> EnvPoolTask:
    """The task `envpool/rest`.

    Raises:
      FloppyError: for an id that is none of `NAMES`.
    """
    if rest not in NAMES:
        raise unknown_task(f"{FAMILY}/{rest}", [f"{FAMILY}/{name}" for name in NAMES])
    return EnvPoolTask(rest)


def picture(rest: str) -> Picture:
    """As Gymnasium's is drawn."""
    return gymnasium_picture(rest)


def names() -> list[str]:
    """All of them, where EnvPool is installed."""
    try:
        _environments()
    except FloppyError:
        return []
    return list(NAMES)
