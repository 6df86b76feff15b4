"""Atari games of the Arcade Learning Environment (Bellemare et al., 2013) as host tasks, in ALE's own threads."""

import dataclasses
import functools
import os
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from floppy.errors import FloppyError, one_line
from floppy.tasks.base import Discrete

if TYPE_CHECKING:
    from ale_py.vector_env import AtariVectorEnv

FAMILY = "ale"
STICKY = "sticky"
FRAME_SKIP = 4
STICKINESS = 0.25
MOST_FRAMES = 108_000
"""Of an episode: 30 minutes of play."""


def game_names() -> list[str]:
    """The games that ale-py knows, in its own spelling, as in `ms_pacman`; none where it is not installed."""
    try:
        from ale_py import roms
    except ImportError:
        return []
    return sorted(roms.get_all_rom_ids())


def require() -> None:
    """Refuses to go on without ale-py.

    Raises:
      FloppyError: if it is not installed.
    """
    try:
        import ale_py  # noqa: F401
    except ImportError as error:
        raise FloppyError(f"Atari games need ale-py ({one_line(error)}): pip install 'floppy[atari]'.") from error


def frames_last(observations: np.ndarray) -> np.ndarray:
    """`[n, rows, columns, frames]` from ALE's, and the published datasets', `[n, frames, rows, columns]`."""
    return np.moveaxis(observations, 1, -1)


@functools.cache
def _action_count(game: str) -> int:
    environment = _make_vector(game, 1)
    count = len(environment.ale.get_action_set())
    environment.close()
    return count


def _make_vector(game: str, count: int, **options: Any) -> "AtariVectorEnv":
    import ale_py
    from ale_py.vector_env import AtariVectorEnv

    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # not a word about itself on stderr
    return AtariVectorEnv(
        game,
        count,
        num_threads=min(count, os.cpu_count() or 1),
        autoreset_mode=AutoresetMode.NEXT_STEP,
        max_num_frames_per_episode=MOST_FRAMES,
        frameskip=FRAME_SKIP,
        **options,
    )


@dataclasses.dataclass(frozen=True)
class AtariTask:
    """A game with the usual preprocessing: 84 x 84 grey pixels, the last 4 frames, every action for 4 frames.

    An episode starts with up to 30 idle frames, and with FIRE where a game waits for it. In training rewards are
    clipped to ±1 and a lost life ends an episode; scores are of whole games, to their end, and raw. Observations are
    uint8, the last frame last.

    Raises:
      FloppyError: when built without ale-py installed.
    """

    game: str
    """In ale-py's spelling."""
    sticky: bool = False
    """Whether every action is replaced by the one before it with probability 0.25 (Machado et al., 2018); without
    this it is the setting of Gym's NoFrameskip-v4, which the PPMO paper uses."""

    def __post_init__(self) -> None:
        """Refuses to exist without ale-py."""
        require()

    @property
    def task_id(self) -> str:
        """`ale/GAME` or `ale/GAME/sticky`."""
        return f"{FAMILY}/{self.game}" + (f"/{STICKY}" if self.sticky else "")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[rows, columns, frames]`."""
        return (84, 84, 4)

    @property
    def actions(self) -> Discrete:
        """The actions that the game knows, in ALE's order."""
        return Discrete(_action_count(self.game))

    @property
    def max_steps(self) -> int:
        """Steps in which the frames of an episode run out."""
        return MOST_FRAMES // FRAME_SKIP

    @property
    def max_return(self) -> None:
        """Not known."""
        return

    @property
    def package(self) -> str:
        """That of the emulator."""
        return "ale-py"

    def make_vector(self, count: int, *, training: bool) -> VectorEnv:
        """Makes `count` copies; see `HostTask`."""
        return _Games(self.game, count, training=training, sticky=self.sticky)


class _Games(VectorEnv):
    """ALE's vector environment, as `HostTask` promises one. No copy rests.

    Lost lives and the end of a game are dealt with here. Of ALE's own options `episodic_life` would start the game anew
    after every life, so that what follows the first were never seen, and in its mode of same-step resets the
    `final_obs` of ale-py 0.12.1 lie in memory that is used for something else already.
    """

    def __init__(self, game: str, count: int, *, training: bool, sticky: bool) -> None:
        chance = STICKINESS if sticky else 0.0
        self.vector: Any = _make_vector(game, count, repeat_action_probability=chance, reward_clipping=training)
        self.training, self.num_envs = training, count
        self.single_observation_space = self.vector.single_observation_space
        self.single_action_space = self.vector.single_action_space
        self.lives = np.zeros(count, int)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts a game everywhere."""
        del options
        observations, infos = self.vector.reset(seed=None if seed is None else np.array(seed))
        self.lives = infos["lives"]
        return frames_last(observations), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes actions `[count]`; where a game is over the next one starts."""
        observations, rewards, over, truncated, infos = self.vector.step(np.asarray(actions, np.int64))
        terminated = over | (infos["lives"] < self.lives) if self.training else over
        final = {"final_obs": frames_last(observations)} if np.any(terminated | truncated) else {}
        if np.any(over | truncated):
            observations, infos = self.vector.reset(options={"reset_mask": over | truncated})
        self.lives = infos["lives"]
        return frames_last(observations), rewards, terminated, truncated, final

    def close_extras(self, **options: Any) -> None:
        """Ends the emulators, which ALE does when nobody holds them any more."""
        self.vector.close(**options)
        del self.vector
