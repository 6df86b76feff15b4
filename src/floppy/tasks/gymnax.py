"""Any gymnax environment as a task."""

import dataclasses
import functools
import importlib.util
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, one_line
from floppy.spaces import Continuous, Discrete
from floppy.tasks.base import Profile, Transition, lenient_broadcasting, strong_types, usual_profile
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import Picture, gymnax_picture

DESCRIPTION = "every environment of gymnax; needs pip install 'floppy-rl[gymnax]'"
SHORT_NAMES = {
    "acrobot": "Acrobot-v1",
    "mountaincar": "MountainCar-v0",
    "pendulum": "Pendulum-v1",
    "asterix": "Asterix-MinAtar",
    "breakout": "Breakout-MinAtar",
    "freeway": "Freeway-MinAtar",
    "space-invaders": "SpaceInvaders-MinAtar",
}

# Known from the environments' rules; elsewhere the highest return is not known.
MAX_RETURN = {"CartPole-v1": 500.0}


def _gymnax() -> Any:
    """The package, which takes seconds to import."""
    return import_optional("gymnax", "gymnax", "Tasks gymnax/... need gymnax")


class Made(NamedTuple):
    """A gymnax environment with what this library reads of it."""

    environment: Any
    parameters: Any
    observation_shape: tuple[int, ...]
    actions: Discrete | Continuous


@functools.cache
def make_environment(name: str) -> Made:
    """Makes gymnax environment `name`, once per process.

    Raises:
      FloppyError: if gymnax is not installed, if its spaces are of a kind that policies here cannot serve, or if it
        needs a file that is not there.
    """
    gymnax = _gymnax()
    # Gymnax describes its spaces by JAX arrays: made within a compiled function they would have no values.
    with jax.ensure_compile_time_eval():
        try:
            environment, parameters = gymnax.make(name)
        except OSError as error:
            raise FloppyError(f"gymnax/{name} needs absent data ({one_line(error)}): choose another task.") from error
        shape = getattr(environment.observation_space(parameters), "shape", None)
        if shape is None:
            raise FloppyError(f"gymnax/{name} has observations that are no array: choose a task with box observations.")
        actions = _actions(name, environment.action_space(parameters))
    return Made(environment, parameters, tuple(int(length) for length in shape) or (1,), actions)


def _actions(name: str, space: Any) -> Discrete | Continuous:
    if hasattr(space, "n"):
        return Discrete(int(space.n))
    if len(space.shape) > 1:
        raise FloppyError(f"gymnax/{name} has actions of shape {space.shape}: choose a task with flat actions.")
    size = space.shape[0] if space.shape else 1
    low, high = (tuple(np.broadcast_to(np.asarray(bound), (size,)).tolist()) for bound in (space.low, space.high))
    return Continuous(size, low, high)


@dataclasses.dataclass(frozen=True)
class GymnaxTask:
    """Gymnax environment `name`, without gymnax's automatic reset, with its own time limit as truncation."""

    name: str
    package: str = "gymnax"

    def __post_init__(self) -> None:
        """Refuses environments that policies here cannot serve."""
        make_environment(self.name)

    @property
    def task_id(self) -> str:
        """`gymnax/NAME`."""
        return f"gymnax/{self.name}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape of the environment's box observations."""
        return make_environment(self.name).observation_shape

    @property
    def actions(self) -> Discrete | Continuous:
        """Discrete or box actions."""
        return make_environment(self.name).actions

    @property
    def max_steps(self) -> int:
        """The environment's own limit."""
        return int(make_environment(self.name).parameters.max_steps_in_episode)

    @property
    def max_return(self) -> float | None:
        """Known for some environments only."""
        return MAX_RETURN.get(self.name)

    @property
    def profile(self) -> Profile:
        """The usual one; MinAtar's images are of zeros and ones, and so are its rewards."""
        return usual_profile(self)._replace(is_of_unit_size=self.name.endswith("-MinAtar"))

    @property
    def picture(self) -> Picture:
        """Classic control and MinAtar have pictures of their own."""
        return gymnax_picture(self.name)

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Starts an episode."""
        environment, parameters, *_ = make_environment(self.name)
        with lenient_broadcasting():
            observation, state = environment.reset_env(key, parameters)
        return strong_types(state), self._observation(observation)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Takes one action, without resetting at the end of the episode."""
        environment, parameters, *_ = make_environment(self.name)
        space = environment.action_space(parameters)
        action = action.astype(space.dtype).reshape(space.shape)
        with lenient_broadcasting():
            observation, state, reward, terminated, _ = environment.step_env(key, state, action, parameters)
            truncated = environment.is_truncated(state, parameters)
        return Transition(
            strong_types(state),
            self._observation(observation),
            jnp.asarray(reward, jnp.float32).reshape(()),
            jnp.asarray(terminated, bool).reshape(()),
            jnp.asarray(truncated, bool).reshape(()),
        )

    def _observation(self, observation: jax.Array) -> jax.Array:
        return jnp.asarray(observation, jnp.float32).reshape(self.observation_shape)


def make(rest: str) -> GymnaxTask:
    """The task `gymnax/rest`."""
    known = list(_gymnax().registered_envs)
    if rest not in known:
        raise unknown_task(f"gymnax/{rest}", [f"gymnax/{name}" for name in known])
    return GymnaxTask(rest)


def picture(rest: str) -> Picture:
    """How `gymnax/rest` is drawn."""
    return gymnax_picture(rest)


def names() -> list[str]:
    """Those that gymnax registers; none where it is not installed."""
    return list(_gymnax().registered_envs) if importlib.util.find_spec("gymnax") else []
