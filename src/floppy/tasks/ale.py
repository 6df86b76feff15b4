"""Atari games of the Arcade Learning Environment (Bellemare et al., 2013) as host tasks, in ALE's own threads.

ale-py is optional: all that needs it stands in `ale_emulators.py`.
"""

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from floppy.errors import FloppyError
from floppy.spaces import Discrete
from floppy.tasks.base import Profile
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import Picture, atari_picture

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

FAMILY = "ale"
DESCRIPTION = (
    "Atari games, ale/GAME, with sticky actions ale/GAME/sticky, learnt by raw rewards ale/GAME/raw; "
    "needs pip install 'floppy-rl[atari]'"
)
SHORT_NAMES = {"centipede": "centipede", "ms-pacman": "ms_pacman", "pong": "pong"}
STICKY, RAW = "sticky", "raw"
SETTINGS = {"": (), STICKY: (STICKY,), RAW: (RAW,), f"{STICKY}/{RAW}": (STICKY, RAW)}
"""What stands behind a game's name, and the fields that it sets."""
FRAME_SKIP = 4
STICKINESS = 0.25
MAX_FRAMES = 108_000
"""Of an episode: 30 minutes of play."""


def frames_last(observations: np.ndarray) -> np.ndarray:
    """`[n, rows, columns, frames]` from the published datasets' `[n, frames, rows, columns]`."""
    return np.moveaxis(observations, 1, -1)


def _games() -> Any:
    """The module of what needs ale-py."""
    for package in ("ale_py", "gymnasium"):
        import_optional(package, "atari", "Atari games need ale-py")
    from floppy.tasks import ale_emulators

    return ale_emulators


@dataclasses.dataclass(frozen=True)
class AtariTask:
    """A game with the usual preprocessing: 84 x 84 grey pixels, the last 4 frames, every action for 4 frames.

    An episode starts with up to 30 idle frames, and with FIRE where a game waits for it. In training rewards are
    clipped to ±1 (but for `raw`) and a lost life ends an episode; scores are of whole games, to their end, and raw.
    Observations are uint8, the last frame last.

    Raises:
      FloppyError: when built without ale-py installed.
    """

    shapes_rewards: ClassVar[bool] = True
    game: str
    """In ale-py's spelling."""
    sticky: bool = False
    """Whether every action is replaced by the one before it with probability 0.25 (Machado et al., 2018); without
    this it is the setting of Gym's NoFrameskip-v4, which the PPMO paper uses."""
    raw: bool = False
    """Whether rewards are the game's own in training too, as where a few large ones make the score."""

    def __post_init__(self) -> None:
        """Checks that ale-py is installed."""
        _games()

    @property
    def task_id(self) -> str:
        """`ale/GAME`, with `/sticky` and `/raw` behind it where they are set."""
        return self.card_task + (f"/{RAW}" if self.raw else "")

    @property
    def card_task(self) -> str:
        """Without `/raw`: scores are raw in any case."""
        return f"{FAMILY}/{self.game}" + (f"/{STICKY}" if self.sticky else "")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[rows, columns, frames]`."""
        return (84, 84, 4)

    @property
    def observes_bytes(self) -> bool:
        """Shades of grey."""
        return True

    @property
    def actions(self) -> Discrete:
        """The actions that the game knows, in ALE's order."""
        return Discrete(_games().action_count(self.game))

    @property
    def max_steps(self) -> int:
        """Steps in which the frames of an episode run out."""
        return MAX_FRAMES // FRAME_SKIP

    @property
    def profile(self) -> Profile:
        """Recipes of its own."""
        return Profile("atari", is_slow=True)

    @property
    def max_return(self) -> None:
        """Not known."""
        return

    @property
    def package(self) -> str:
        """That of the emulator."""
        return "ale-py"

    @property
    def picture(self) -> Picture:
        """Frames."""
        return atari_picture(self.game)

    def make_vector(self, count: int, *, training: bool) -> "VectorEnv":
        """Makes `count` copies; see `HostTask`. No copy rests."""
        options: dict[str, Any] = {"max_num_frames_per_episode": MAX_FRAMES, "frameskip": FRAME_SKIP}
        options["repeat_action_probability"] = STICKINESS if self.sticky else 0.0
        clips = training and not self.raw
        vector: VectorEnv = _games().Games(self.game, count, training=training, reward_clipping=clips, **options)
        return vector


def make(rest: str) -> AtariTask:
    """The task `ale/rest`."""
    known = _games().names()
    ids = {f"{game}/{setting}".rstrip("/"): (game, fields) for game in known for setting, fields in SETTINGS.items()}
    if rest not in ids:
        raise unknown_task(f"{FAMILY}/{rest}", [f"{FAMILY}/{each}" for each in ids])
    game, fields = ids[rest]
    return AtariTask(game, **dict.fromkeys(fields, True))


def picture(rest: str) -> Picture:
    """How `ale/rest` is drawn."""
    return atari_picture(rest.partition("/")[0])


def names() -> list[str]:
    """The games that ale-py knows, in its own spelling, as in `ms_pacman`; none where it is not installed."""
    try:
        return list(_games().names())
    except FloppyError:
        return []
