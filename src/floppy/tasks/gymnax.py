"""Any gymnax environment as a task."""

import dataclasses
import functools
import importlib.util
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, check_number, one_line, shown
from floppy.keys import named_key
from floppy.spaces import Continuous, Discrete
from floppy.tasks.arguments import TIME_LIMIT, join, split
from floppy.tasks.arguments import with_arguments as with_arguments
from floppy.tasks.base import Profile, Transition, lenient_broadcasting, strong_types, usual_profile
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import Picture, gymnax_picture

DESCRIPTION = (
    "every environment of gymnax, gymnax/ID?key=value (or --env-kwargs) with other parameters; needs pip install "
    "'floppy-rl[gymnax]'"
)
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


OWN_TIME_LIMIT = "max_steps_in_episode"
"""What gymnax calls the argument `max_episode_steps`."""
MOST = 2**31 - 1
"""No number of an argument is larger: environments count in int32."""
REPEAT = "repeat_action_probability"
"""The argument of sticky actions: how probable it is that a step takes the action before it once more (Machado et al.,
2018); an episode begins with action 0."""


class Made(NamedTuple):
    """A gymnax environment with what this library reads of it."""

    environment: Any
    parameters: Any
    repeat: float
    """Probability that a step repeats the action before it."""
    observation_shape: tuple[int, ...]
    actions: Discrete | Continuous


class Sticky(NamedTuple):
    """The state of an environment with sticky actions."""

    state: Any
    before: jax.Array
    """The action that the last step took."""


@functools.cache
def make_environment(name: str) -> Made:
    """Makes gymnax environment `name`, once per process.

    Raises:
      FloppyError: if gymnax is not installed, if its spaces are of a kind that policies here cannot serve, if it
        needs a file that is not there, or has no such parameters.
    """
    gymnax = _gymnax()
    name, arguments = split(name)
    repeat = arguments.pop(REPEAT, 0.0)
    if isinstance(repeat, bool) or not isinstance(repeat, int | float) or not 0 <= repeat < 1:
        raise FloppyError(f"{REPEAT} must be a number from 0 to below 1, got {shown(repeat)}.")
    # Gymnax describes its spaces by JAX arrays: made within a compiled function they would have no values.
    with jax.ensure_compile_time_eval():
        try:
            environment, parameters = gymnax.make(name)
        except OSError as error:
            raise FloppyError(f"gymnax/{name} needs absent data ({one_line(error)}): choose another task.") from error
        shape = getattr(environment.observation_space(parameters), "shape", None)
        if shape is None:
            raise FloppyError(f"gymnax/{name} has observations that are no array: choose a task with box observations.")
        parameters = _with_arguments(name, parameters, arguments)
        actions = _actions(name, environment.action_space(parameters))
    return Made(environment, parameters, float(repeat), tuple(int(length) for length in shape) or (1,), actions)


def _with_arguments(name: str, parameters: Any, arguments: Mapping[str, Any]) -> Any:
    """An environment's parameters with other values for some numbers."""
    fields = {field.name.replace(OWN_TIME_LIMIT, TIME_LIMIT): field.name for field in dataclasses.fields(parameters)}
    before = {key: getattr(parameters, field) for key, field in fields.items()}
    known = {key: type(value) for key, value in before.items() if isinstance(value, bool | int | float)}
    for key, value in arguments.items():
        if key not in known:
            raise FloppyError(f"gymnax/{name} has no parameter {key}: give one of {', '.join([*known, REPEAT])}.")
        if type(value) is not known[key] and not (known[key] is float and type(value) is int):
            what = {bool: "true or false", int: "a whole number", float: "a number"}[known[key]]
            raise FloppyError(f"{key} of gymnax/{name} must be {what}, got {shown(value)}.")
        check_number(f"{key} of gymnax/{name}", value, least=-MOST, most=MOST)
    return parameters.replace(**{fields[key]: known[key](value) for key, value in arguments.items()})


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
    """Its id, with arguments behind it: parameters of the environment, and how sticky its actions are."""
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
        return MAX_RETURN.get(self.name)  # not known of changed ones

    @property
    def profile(self) -> Profile:
        """The usual one; MinAtar's images are of zeros and ones, and so are its rewards."""
        return usual_profile(self)._replace(is_of_unit_size=_identifier(self.name).endswith("-MinAtar"))

    @property
    def picture(self) -> Picture:
        """Classic control and MinAtar have pictures of their own."""
        return gymnax_picture(_identifier(self.name))

    def reset(self, key: jax.Array) -> tuple[Any, jax.Array]:
        """Starts an episode."""
        made = make_environment(self.name)
        with lenient_broadcasting():
            observation, state = made.environment.reset_env(key, made.parameters)
        state = strong_types(state)
        if made.repeat:
            none = jnp.array(0, jnp.int32) if isinstance(made.actions, Discrete) else jnp.zeros(made.actions.size)
            state = Sticky(state, none)
        return state, self._observation(observation)

    def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
        """Takes one action, without resetting at the end of the episode."""
        if not (repeat := make_environment(self.name).repeat):
            return self._step(key, state, action)
        is_repeated = jax.random.bernoulli(named_key(key, "repeat"), repeat)
        taken = jnp.where(is_repeated, state.before, action)
        moved = self._step(named_key(key, "step"), state.state, taken)
        return moved._replace(state=Sticky(moved.state, taken))

    def _step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
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
    name, arguments = split(rest)
    if name not in known:
        raise unknown_task(f"gymnax/{name}", [f"gymnax/{each}" for each in known])
    return GymnaxTask(join(name, arguments))


def _identifier(name: str) -> str:
    """The environment's id alone."""
    return name.partition("?")[0]


def picture(rest: str) -> Picture:
    """How `gymnax/rest` is drawn."""
    return gymnax_picture(_identifier(rest))


def names() -> list[str]:
    """Those that gymnax registers; none where it is not installed."""
    return list(_gymnax().registered_envs) if importlib.util.find_spec("gymnax") else []
