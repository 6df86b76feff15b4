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

from floppy.errors import FloppyError, one_line, raised, shown
from floppy.spaces import Continuous, Discrete
from floppy.tasks.arguments import split
from floppy.tasks.base import MOST_ACTIONS, FaultyEnvironmentError, bounds_fault, quiet_mujoco
from floppy.tasks.descriptions import first_paragraph
from floppy.tasks.faults import fault_of_closing, in_time
from floppy.tasks.lookup import install_hint
from floppy.tasks.pictures import Picture

FAMILY = "gymnasium"
PICTURE, OBSERVATION_NAMES, ACTION_NAMES = "picture", "observation_names", "action_names"
"""Of an environment's `metadata`."""
MOST_NUMBERS = 2**24
"""In one flattened observation; a frame of 1080 rows has a third of that."""
BYTES = (0, 255)
"""Bounds of pixels."""
EXTRAS = ("MuJoCo", "Box2D")
"""Packages that modules of Gymnasium's own, named after them, need; so are the extras that install them."""
NUMBERS = "biufV"
"""Kinds of NumPy types that are real numbers; V: those of other packages, as bfloat16."""


def registered_names() -> list[str]:
    """The ids of all environments that Gymnasium knows."""
    return list(gymnasium.registry)


def likely_names() -> list[str]:
    """Ids that look as if they could be tasks: with a time limit, and with spaces that are not known to be unfit."""
    unfit = ("gymnasium.envs.tabular", "gymnasium.envs.phys2d")
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

    observation_space: spaces.Space
    observation_shape: tuple[int, ...]
    """In which a task gives observations."""
    observes_bytes: bool
    """Whether they are pixels."""
    action_space: spaces.Discrete | spaces.Box
    max_steps: int
    package: str
    is_gymnasiums: bool
    """Whether the environment's code is Gymnasium's own."""
    notes: str
    """For the card: how observations were flattened, where that is not plain."""
    picture: Any
    """What the environment's `metadata` gives as its picture, or as names alone; `picture_of` checks it."""
    about: str
    """The first paragraph of the docstring of its class; Gymnasium's own have sections there."""


@functools.cache
def describe(name: str) -> Description:
    """Makes an environment once, to see whether it can be a task.

    Args:
      name: of the environment, with its arguments.

    Raises:
      FloppyError: if it cannot be made, or if it cannot be a task.
    """
    environment = make_environment(name)
    observation_space = _attribute(name, environment, "observation_space")
    action_space = _attribute(name, environment, "action_space")
    spec = _attribute(name, environment, "spec")
    picture, about = _words(environment)
    if fault := fault_of_closing(f"{FAMILY}/{name}", environment.close):
        raise fault
    if spec is None or not spec.max_episode_steps:
        remedy = "give it one (--max-episode-steps N), or register it with max_episode_steps"
        raise _unfit(name, "has no time limit", remedy)
    shape = _observation_shape(name, observation_space)
    _check_actions(name, action_space)
    is_box = isinstance(observation_space, spaces.Box)
    notes = "" if is_box else f"Observations are gymnasium.spaces.flatten of {described(observation_space)}."
    package, is_gymnasiums = _package(spec.entry_point), _module(spec.entry_point).startswith("gymnasium.envs.")
    steps, is_of_bytes = int(spec.max_episode_steps), _is_of_bytes(observation_space)
    spaces_of = (observation_space, shape, is_of_bytes, action_space)
    return Description(*spaces_of, steps, package, is_gymnasiums, notes, picture, about)


def _words(environment: gymnasium.Env) -> tuple[Any, str]:
    """The picture in an environment's `metadata`, and what it is about: nothing where its own code fails to say."""
    try:
        metadata, kind = environment.metadata, type(environment.unwrapped)
        picture = metadata.get(PICTURE, Picture())
        names, actions = (metadata.get(key, ()) for key in (OBSERVATION_NAMES, ACTION_NAMES))
    except Exception:
        return Picture(), ""
    if isinstance(picture, Picture):
        picture = picture._replace(names=picture.names or names, actions=picture.actions or actions)
    return picture, "" if kind.__module__.startswith("gymnasium.envs.") else first_paragraph(kind)


def _attribute(name: str, environment: gymnasium.Env, attribute: str) -> Any:
    """What an environment says of itself; it may be missing, or be computed by the environment's own code."""
    try:
        with in_time(f"{FAMILY}/{name}", "made"):
            return getattr(environment, attribute)
    except (FloppyError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _unfit(name, f"has no {attribute} ({raised(error)})", f"repair its {attribute}") from error


def _observation_shape(name: str, space: Any) -> tuple[int, ...]:
    """The shape of a task's observations: three dimensions stay, for they may be an image, all else is flattened.

    Raises:
      FloppyError: if there is no such shape.
    """
    try:
        size = spaces.flatdim(space)
    except Exception as error:  # a space of its own, one of no fixed size, or no space at all
        what = f"has observations of {_kind(space)}, which cannot be flattened to a fixed size"
        raise _unfit(name, what, "wrap it so that they are a Box") from error
    if not 1 <= size <= MOST_NUMBERS:
        what = f"has observations of {size} numbers (allowed are 1 to {MOST_NUMBERS})"
        raise _unfit(name, what, "wrap it so that they are a Box of fewer")
    if isinstance(space, spaces.Box) and len(space.shape) == 3:
        return tuple(map(int, space.shape))
    return (int(size),)


def _check_actions(name: str, space: Any) -> None:
    if isinstance(space, spaces.Box):
        bounds = np.stack([space.low, space.high])
        bounded = space.low.size and np.isfinite(bounds).all() and (bounds[0] < bounds[1]).all()
        if not np.issubdtype(space.dtype, np.floating) or not bounded:
            what = "has actions in a Box without finite real bounds that differ"
            raise _unfit(name, what, "wrap it so that they have bounds")
        if fault := bounds_fault(space.low, space.high):
            low, high = shown(space.low.tolist()), shown(space.high.tolist())
            what = f"has actions in a Box from {low} to {high}, which must be {fault}"
            raise _unfit(name, what, "wrap it so that they have other bounds")
    elif isinstance(space, spaces.Discrete):
        if int(space.n) > MOST_ACTIONS:
            what = f"has {space.n} discrete actions (allowed are up to {MOST_ACTIONS})"
            raise _unfit(name, what, "wrap it so that they are fewer")
    else:
        remedy = "wrap it so that they are Discrete, one number per combination, or a Box"
        raise _unfit(name, f"has actions of {_kind(space)}", remedy)


def described(space: Any) -> str:
    """A space in a few words: how its parts are built, without their bounds."""
    kind = type(space).__name__
    if isinstance(space, spaces.Dict):
        return f"{kind}({', '.join(f'{key}={described(part)}' for key, part in space.spaces.items())})"
    if isinstance(space, spaces.Tuple | spaces.OneOf):
        return f"{kind}({', '.join(map(described, space.spaces))})"
    if isinstance(space, spaces.Discrete):
        return f"{kind}({space.n})" if space.start == 0 else f"{kind}({space.n}, start={space.start})"
    if isinstance(space, spaces.MultiDiscrete):
        return f"{kind}({space.nvec.tolist()})"
    return kind if space.shape is None else f"{kind}{space.shape}"


def make_environment(name: str) -> gymnasium.Env:
    """Makes one environment, without Gymnasium's checker, which costs time in every step, and without its warnings.

    Args:
      name: of the environment, with its arguments.

    Raises:
      FloppyError: if it cannot be made.
    """
    identifier, arguments = split(name)
    given: dict[str, Any] = dict(arguments)
    try:
        with _quiet(), in_time(f"{FAMILY}/{name}", "made"):
            return gymnasium.make(identifier, disable_env_checker=True, **given)
    except (FloppyError, KeyboardInterrupt):
        raise
    except BaseException as error:  # the environment's own code may raise anything
        spec = gymnasium.registry.get(identifier)
        module = "" if spec is None else _module(spec.entry_point)
        needed = next((package for package in EXTRAS if package.lower() in module), "")
        missing = isinstance(error, ImportError | gymnasium.error.DependencyNotInstalled)
        if needed and missing:
            hint = install_hint(needed.lower())
            raise FloppyError(f"{FAMILY}/{name} needs {needed} ({one_line(error)}): {hint}.") from error
        remedy = "repair it, or choose another task"
        if missing:
            remedy = "install what it needs"
        elif arguments:
            remedy = "give it arguments that it takes (--env-kwargs), or repair it"
        raise FloppyError(f"{FAMILY}/{name} could not be made ({raised(error)}): {remedy}.") from error


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
        with quiet_mujoco(mujoco):
            yield


def _unfit(name: str, what: str, remedy: str) -> FloppyError:
    return FloppyError(
        f"{FAMILY}/{name} {what}; a task needs observations of a fixed size, Discrete or bounded Box actions and a "
        f"time limit: {remedy}."
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
        self.raw_space, self.raw_actions = inner.observation_space, inner.action_space
        # Bytes are pixels, which policies see as 0 .. 1, where the space says so.
        self.dtype = np.uint8 if _is_of_bytes(self.raw_space) else np.float32
        low, high = BYTES if self.dtype == np.uint8 else (-np.inf, np.inf)
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
            started = self.env.reset(seed=seed)
            if not isinstance(started, tuple) or len(started) != 2:
                raise self.wrong("from reset", started, "the pair (observation, info)")
            self.last = self.converted(started[0])
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
        terminated, truncated = self.flag("terminated", terminated), self.flag("truncated", truncated)
        self.left -= terminated or truncated
        self.last = self.converted(observation)
        return self.last, self.number(reward), terminated, truncated, {}

    def number(self, reward: Any) -> float:
        """A reward, which may be an array of one element."""
        if isinstance(reward, float | int):
            return float(reward)
        array = np.asarray(reward)
        if array.size != 1 or array.dtype.kind not in "fiub":
            raise self.wrong("as its reward", reward, "a number")
        return float(array.item())

    def flag(self, name: str, value: Any) -> bool:
        """Whether an episode is over, which may also be said by the numbers 0 and 1, or an array of one element."""
        if isinstance(value, bool | np.bool_):
            return bool(value)
        array = np.asarray(value)
        if array.size != 1 or array.dtype.kind not in NUMBERS or array.item() not in (0, 1):
            raise self.wrong(f"as {name}", value, "True or False")
        return bool(array.item())

    def converted(self, observation: Any) -> np.ndarray:
        """The observation, in the shape that the task promises."""
        if not isinstance(self.raw_space, spaces.Box):
            observation = self.flattened(observation)
        elif np.shape(observation) != self.raw_space.shape:
            raise FaultyEnvironmentError(
                f"{self.task_id} returned an observation of shape {np.shape(observation)}, its space says "
                f"{self.raw_space.shape}: repair the environment."
            )
        elif why := _misfit(self.raw_space, observation):
            raise self.unfit(observation, f" ({why})")
        with np.errstate(over="ignore"):  # what is too large for float32 becomes infinite, and is refused as such
            # A copy: some environments write each observation into the same array.
            return np.array(observation, self.dtype).reshape(self.observation_shape)

    def flattened(self, observation: Any) -> np.ndarray:
        """An observation that is no array as one, by Gymnasium's own rules."""
        try:
            why = _misfit(self.raw_space, observation)
            flat = np.zeros(0) if why else np.asarray(spaces.flatten(self.raw_space, observation))
        except Exception as error:  # a part that is missing, or of another type
            raise self.unfit(observation, f" ({raised(error)})") from error
        if flat.shape != self.observation_shape:
            raise self.unfit(observation, why and f" ({why})")
        return flat

    def unfit(self, observation: Any, why: str = "") -> FaultyEnvironmentError:
        """The complaint about an observation that is not in its space."""
        return self.wrong("as its observation", observation, f"one of {described(self.raw_space)}{why}")

    def wrong(self, where: str, got: Any, wanted: str) -> FaultyEnvironmentError:
        """The complaint about what an environment returned."""
        return FaultyEnvironmentError(
            f"{self.task_id} returned {shown(got)} {where} in place of {wanted}: repair the environment."
        )


def _is_of_bytes(space: spaces.Space) -> bool:
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return False
    return bool((space.low == BYTES[0]).all() and (space.high == BYTES[1]).all())


def _misfit(space: spaces.Space, value: Any) -> str:
    """Why a value is not of its space, "" where it is; floats may lie beyond a box's bounds."""
    if isinstance(space, spaces.Dict):
        return next(filter(None, (_misfit(part, value[key]) for key, part in space.spaces.items())), "")
    if isinstance(space, spaces.Tuple):
        if len(value) != len(space.spaces):
            return f"{len(value)} parts in place of {len(space.spaces)}"
        return next(filter(None, map(_misfit, space.spaces, value)), "")
    if isinstance(space, spaces.OneOf):
        index, part = value
        return _misfit(space.spaces[index], part) if index >= 0 else f"{index} is the number of no space"
    if isinstance(space, spaces.Discrete):  # a negative index would count from the end
        return "" if 0 <= np.asarray(value).item() - space.start < space.n else f"{shown(value)} is beyond its ends"
    if isinstance(space, spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete):
        return _misfit_of_array(space, np.asarray(value))
    return ""


def _misfit_of_array(space: spaces.Box | spaces.MultiBinary | spaces.MultiDiscrete, array: np.ndarray) -> str:
    if array.shape != space.shape:
        return f"shape {array.shape} in place of {space.shape}"
    if array.dtype.kind not in NUMBERS:
        return f"{array.dtype} in place of real numbers"
    if isinstance(space, spaces.MultiBinary):
        return "" if ((array == 0) | (array == 1)).all() else "numbers other than 0 and 1"
    if isinstance(space, spaces.MultiDiscrete):
        from_zero = array - space.start
        return "" if ((from_zero >= 0) & (from_zero < space.nvec)).all() else "numbers beyond its ends"
    if array.dtype == space.dtype or not np.issubdtype(space.dtype, np.integer):
        return ""
    with np.errstate(invalid="ignore"):
        return "" if (array.astype(space.dtype) == array).all() else f"numbers that no {space.dtype} holds"
