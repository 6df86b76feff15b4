"""What the tasks `ale/GAME` need ale-py and Gymnasium for: the emulators, as vector environments."""

import functools
import os
from typing import Any

import ale_py
import numpy as np
from ale_py import roms
from ale_py.vector_env import AtariVectorEnv
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv


def names() -> list[str]:
    """The games that ale-py knows, in its own spelling."""
    return sorted(roms.get_all_rom_ids())


@functools.cache
def action_count(game: str) -> int:
    """How many actions a game knows."""
    environment = _emulators(game, 1)
    count = len(environment.ale.get_action_set())
    environment.close()
    return count


def _emulators(game: str, count: int, **options: Any) -> Any:
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)  # not a word about itself on stderr
    threads = min(count, os.cpu_count() or 1)
    return AtariVectorEnv(game, count, num_threads=threads, autoreset_mode=AutoresetMode.NEXT_STEP, **options)


def _frames_last(observations: np.ndarray) -> np.ndarray:
    """`[n, rows, columns, frames]` from ALE's `[n, frames, rows, columns]`."""
    return np.moveaxis(observations, 1, -1)


class Games(VectorEnv):
    """ALE's vector environment, as `HostTask` promises one. No copy rests.

    Lost lives and the end of a game are dealt with here. Of ALE's own options `episodic_life` would restart the game
    after every life, so that what follows the first were never seen, and in its mode of same-step resets the
    `final_obs` of ale-py 0.12.1 lie in memory that is used for something else already.
    """

    def __init__(self, game: str, count: int, *, training: bool, **options: Any) -> None:
        self.vector: Any = _emulators(game, count, **options)
        self.training, self.num_envs = training, count
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        frames, *pixels = self.vector.single_observation_space.shape
        self.single_observation_space = spaces.Box(0, 255, (*pixels, frames), np.uint8)
        self.single_action_space = self.vector.single_action_space
        self.lives = np.zeros(count, int)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts a game everywhere."""
        del options
        observations, infos = self.vector.reset(seed=None if seed is None else np.array(seed))
        self.lives = infos["lives"]
        return _frames_last(observations), {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes actions `[count]`; where a game is over the next one starts."""
        observations, rewards, over, truncated, infos = self.vector.step(np.asarray(actions, np.int64))
        terminated = over | (infos["lives"] < self.lives) if self.training else over
        final = {"final_obs": _frames_last(observations)} if np.any(terminated | truncated) else {}
        if np.any(over | truncated):
            observations, infos = self.vector.reset(options={"reset_mask": over | truncated})
        self.lives = infos["lives"]
        return _frames_last(observations), rewards, terminated, truncated, final

    def close_extras(self, **options: Any) -> None:
        """Ends the emulators, which ALE does when nobody holds them any more."""
        self.vector.close(**options)
        del self.vector
