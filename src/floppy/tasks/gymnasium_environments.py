"""What the tasks `gymnasium/ID` need Gymnasium for: its registry, an environment's description, vectors of copies."""

import contextlib
import functools
import importlib.metadata
import math
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from floppy.errors import FloppyError, one_line
from floppy.spaces import Continuous, Discrete
from floppy.tasks.base import FaultyEnvironmentError
from floppy.tasks.lookup import install_hint

FAMILY = "gymnasium"


def registered_names() -> list[str]:
    """The ids of all environments that Gymnasium knows."""
    return list(gymnasium.registry)


def likely_names() -> list[str]:
    """Ids that look as if they could be tasks: with a time limit, and with spaces that are not known to be unfit."""
    unfit = ("gymnasium.envs.toy_text", "gymnasium.envs.tabular", "gymnasium.envs.phys2d")
    # In place of environments that have moved to other packages stand functions of this module, which say so.
    gone = "gymnasium.envs"
    return [
        name
        for name, spec in gymnasium.registry.items()
        if spec.max_episode_steps and (module := _module(spec.entry_point)) != gone and not module.startswith(unfit)
    ]


def _module(entry_point: Any) -> str:
    """Where the code of an environment stands; the entry point is a `module:name` or the very thing."""
    return entry_point.partition(":")[0] if isinstance(entry_point, str) else str(entry_point.__module__)


class Description(NamedTuple):
    """What a task needs to know of an environment before it is played."""

    observation_space: spaces.Box
    action_space: spaces.Discrete | spaces.Box
    max_steps: int
    package: str


@functools.cache
def describe(name: str) -> Description:
    """Makes an environment once, to see whether it can be a task.

    Raises:
      FloppyError: if it cannot be made, or if it cannot be a task.
    """
    environment = make_environment(name)
    try:
        observation_space, action_space = environment.observation_space, environment.action_space
    except Exception as error:  # a space may be missing, or be computed by the environment's own code
        raise _unfit(
            name,
            f"has no space ({type(error).__name__}: {one_line(error)})",
            "give it observation_space and action_space",
        ) from error
    spec = environment.spec
    try:
        environment.close()
    except SystemExit as error:
        raise FloppyError(f"{FAMILY}/{name} called sys.exit when closed: repair the environment.") from error
    except Exception:  # one that plays may be closed as it likes
        pass
    if spec is None or not spec.max_episode_steps:
        raise _unfit(name, "has no time limit", "register it with max_episode_steps")
    if not isinstance(observation_space, spaces.Box):
        raise _unfit(name, f"has observations of {_kind(observation_space)}", "wrap it so that they are a Box")
    if isinstance(action_space, spaces.Box):
        bounds = np.stack([action_space.low, action_space.high])
        bounded = np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()
        if not np.issubdtype(action_space.dtype, np.floating) or not bounded:
            what = "has actions in a Box without finite real bounds that differ"
            raise _unfit(name, what, "wrap it so that they have bounds")
    elif not isinstance(action_space, spaces.Discrete):
        raise _unfit(name, f"has actions of {_kind(action_space)}", "wrap it so that they are a Box or Discrete")
    return Description(observation_space, action_space, int(spec.max_episode_steps), _package(spec.entry_point))


def make_environment(name: str) -> gymnasium.Env:
    """Makes one environment, without Gymnasium's checker, which costs time in every step, and without its warnings.

    Raises:
      FloppyError: if it cannot be made.
    """
    with _quiet():
        try:
            return gymnasium.make(name, disable_env_checker=True)
        except (Exception, SystemExit) as error:  # the environment's own code may raise anything
            spec = gymnasium.registry.get(name)
            is_mujoco = spec is not None and "mujoco" in _module(spec.entry_point)
            missing = isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled)
            if is_mujoco and missing:
                raise FloppyError(
                    f"{FAMILY}/{name} needs MuJoCo ({one_line(error)}): {install_hint('mujoco')}."
                ) from error
            raise FloppyError(
                f"{FAMILY}/{name} could not be made ({type(error).__name__}: {one_line(error)}): "
                f"{'install what it needs' if missing else 'repair it, or choose another task'}."
            ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Gymnasium warns of older versions (Hopper-v4), MuJoCo of older models."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import mujoco
        except ImportError:
            yield
            return
        mujoco.set_mju_user_warning(lambda _: None)
        try:
            yield
        finally:
            mujoco.set_mju_user_warning(None)


def _unfit(name: str, what: str, remedy: str) -> FloppyError:
    return FloppyError(
        f"{FAMILY}/{name} {what}; a task needs Box observations, Discrete or bounded Box actions and a time limit: "
        f"{remedy}."
    )


def _kind(space: spaces.Space) -> str:
    return f"space {type(space).__name__}"


def _package(entry_point: Any) -> str:
    """The installed package of an environment's code; Gymnasium itself where the code is no installed package."""
    package = _module(entry_point).partition(".")[0]
    try:
        importlib.metadata.version(package)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return "gymnasium"
    return package


def make_vector(
    name: str, count: int, task_id: str, observation_shape: tuple[int, ...], actions: Discrete | Continuous
) -> SyncVectorEnv:
    """Makes `count` copies of an environment with the spaces that its task promises.

    Processes (Gymnasium's AsyncVectorEnv) measured slower on two cores, 32 copies, steps/s: CartPole-v1 12 k for
    58 k, InvertedPendulum-v5 7 k for 15 k, Hopper-v5 3.5 k for 4.7 k, HalfCheetah-v5 5.8 k for 7.6 k (other work was
    running). Threads would take turns: MuJoCo's Python code holds the interpreter's lock.
    """
    make = functools.partial(_Copy, name, task_id, observation_shape, actions)
    return SyncVectorEnv([make] * count, copy=False, autoreset_mode=AutoresetMode.SAME_STEP)


class _Copy(gymnasium.Wrapper):
    """One copy, with the spaces that the task promises. It rests once it has played the episodes asked for."""

    def __init__(
        self, name: str, task_id: str, observation_shape: tuple[int, ...], actions: Discrete | Continuous
    ) -> None:
        super().__init__(make_environment(name))
        self.task_id, self.observation_shape = task_id, observation_shape
        inner = describe(name)
        self.raw_shape, self.raw_actions = inner.observation_space.shape, inner.action_space
        # Bytes are pixels, which policies see as 0 .. 1.
        self.dtype = np.uint8 if inner.observation_space.dtype == np.uint8 else np.float32
        low, high = (0, 255) if self.dtype == np.uint8 else (-np.inf, np.inf)
        self.observation_space = spaces.Box(low, high, observation_shape, self.dtype)
        if isinstance(actions, Discrete):
            self.action_space = spaces.Discrete(actions.size)
        else:
            bounds = np.array([actions.low, actions.high], np.float32)
            self.action_space = spaces.Box(bounds[0], bounds[1], dtype=np.float32)
        self.left = math.inf
        self.last = np.zeros(observation_shape, self.dtype)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict]:
        """Starts an episode, if there is one left; infos are dropped, for vectors merge them at great cost."""
        if seed is not None or options is not None:
            self.left = (options or {}).get("episodes", math.inf)
        if self.left > 0:
            self.last = self.converted(self.env.reset(seed=seed)[0])
        return self.last, {}

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        """Takes an action of the promised space."""
        if self.left <= 0:
            return self.last, 0.0, False, False, {}
        if isinstance(self.raw_actions, spaces.Discrete):
            action = np.int64(int(self.raw_actions.start) + int(action))
        else:
            action = np.asarray(action, self.raw_actions.dtype).reshape(self.raw_actions.shape)
            if self.raw_actions.dtype != np.float32:  # of which the bounds were rounded
                action = np.clip(action, self.raw_actions.low, self.raw_actions.high)
        observation, reward, terminated, truncated, _ = self.env.step(action)
        self.left -= bool(terminated or truncated)
        self.last = self.converted(observation)
        return self.last, float(reward), bool(terminated), bool(truncated), {}

    def converted(self, observation: Any) -> np.ndarray:
        """The observation, in the shape that the task promises."""
        if np.shape(observation) != self.raw_shape:
            raise FaultyEnvironmentError(
                f"{self.task_id} returned an observation of shape {np.shape(observation)}, its space says "
                f"{self.raw_shape}: repair the environment."
            )
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as such
            # A copy: some environments write each observation into the same array.
            return np.array(observation, self.dtype).reshape(self.observation_shape)
