"""What the tasks `envpool/ID` need EnvPool and Gymnasium for."""

import os
from typing import Any

import envpool
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from floppy.tasks.gymnasium_environments import describe

SEEDS = 2**31
"""EnvPool's are 32-bit integers with a sign."""


class Pool(VectorEnv):
    """EnvPool's environments, as `HostTask` promises them. No copy rests.

    EnvPool takes seeds only where it is made, and starts the next episode only when it is stepped once more; here a
    reset makes it anew, and an episode that ends is followed at once by the next one.
    """

    def __init__(self, name: str, count: int) -> None:
        self.name, self.num_envs = name, count
        self.metadata = {**self.metadata, "autoreset_mode": AutoresetMode.SAME_STEP}
        own = describe(name)
        self.single_observation_space = spaces.Box(-np.inf, np.inf, own.observation_shape, np.float32)
        self.single_action_space = own.action_space
        self.pool: Any = None

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Starts an episode everywhere, by seeds `[count]`; without them by those of the operating system."""
        del options
        seeds = np.random.default_rng().integers(SEEDS, size=self.num_envs) if seed is None else np.asarray(seed)
        self.pool = envpool.make(
            self.name,
            env_type="gymnasium",
            num_envs=self.num_envs,
            num_threads=min(self.num_envs, os.cpu_count() or 1),
            seed=[int(each) % SEEDS for each in seeds],
        )
        return self.pool.reset()[0], {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Takes actions `[count, a]`; where an episode ends the next one starts."""
        reached, rewards, terminated, truncated, _ = self.pool.step(np.asarray(actions, np.float64))
        ended = np.flatnonzero(terminated | truncated).astype(np.int32)
        if not ended.size:
            return reached, rewards, terminated, truncated, {}
        observations = reached.copy()
        observations[ended] = self.pool.reset(ended)[0]
        return observations, rewards, terminated, truncated, {"final_obs": reached}

    def close_extras(self, **options: Any) -> None:
        """Ends the threads, which EnvPool does when nobody holds them any more."""
        del options
        self.pool = None
