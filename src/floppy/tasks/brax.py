"""Brax environments as tasks. Their physics is unmaintained upstream: it is pinned, and stays behind this file."""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floppy.errors import FloppyError
from floppy.spaces import Continuous
from floppy.tasks.base import Profile, Transition, quiet, quiet_mujoco, strong_types
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import Picture, brax_picture

DESCRIPTION = (
    "physics on JAX, brax/NAME, or brax/NAME/BACKEND for spring and generalized; needs pip install 'floppy-rl[brax]'"
)
NAMES = (
    "ant",
    "halfcheetah",
    "hopper",
    "humanoid",
    "humanoidstandup",
    "inverted_double_pendulum",
    "inverted_pendulum",
    "reacher",
    "walker2d",
)
SHORT_NAMES = {name.replace("_", "-"): name for name in NAMES}
QUICKLY_CLONED = ("hopper", "inverted_double_pendulum")
"""For which the HaDES paper (Table 2) takes half as many Adam steps as for the others."""
BACKENDS = ("positional", "spring", "generalized")
EPISODE_LENGTH = 1000  # as in both papers


@functools.cache
def make_environment(name: str, backend: str) -> Any:
    """Makes a Brax environment, once per process.

    Raises:
      FloppyError: if Brax is not installed.
    """
    # Brax computes constants with JAX: made within a compiled function they would have no values.
    with quiet(), jax.ensure_compile_time_eval():
        mujoco, envs = (
            import_optional(module, "brax", "Tasks brax/... need Brax") for module in ("mujoco", "brax.envs")
        )
        with quiet_mujoco(mujoco):
            return envs.get_environment(name, backend=backend)


@functools.cache
def _observation_size(name: str, backend: str) -> int:
    """Without a simulation, which Brax's own `observation_size` is."""
    environment = make_environment(name, backend)
    with quiet():
        return int(jax.eval_shape(environment.reset, jax.random.key(0)).obs.shape[-1])


class BraxState(NamedTuple):
    """Brax's own state, and the steps taken."""

    environment: Any
    steps: jax.Array
    """`[]` int: steps taken."""


@dataclasses.dataclass(frozen=True)
class BraxTask:
    """Brax environment `name` on one of Brax's physics backends, with episodes of at most 1000 steps."""

    name: str
    backend: str = BACKENDS[0]
    package: str = "brax"

    def __post_init__(self) -> None:
        """Checks name and backend, and that Brax is installed."""
        if self.name not in NAMES or self.backend not in BACKENDS:
            raise FloppyError(
                f"Brax has no {self.name} on backend {self.backend} here: choose from {', '.join(NAMES)}, "
                f"on {', '.join(BACKENDS)}."
            )
        make_environment(self.name, self.backend)

    @property
    def task_id(self) -> str:
        """`brax/NAME`, or `brax/NAME/BACKEND` for another backend than positional."""
        return f"brax/{self.name}" + ("" if self.backend == BACKENDS[0] else f"/{self.backend}")

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`[o]`."""
        return (_observation_size(self.name, self.backend),)

    @property
    def actions(self) -> Continuous:
        """From -1 to 1, which every environment scales to its actuators."""
        size = int(make_environment(self.name, self.backend).action_size)
        return Continuous(size, (-1.0,) * size, (1.0,) * size)

    @property
    def max_steps(self) -> int:
        """The papers' episode length."""
        return EPISODE_LENGTH

    @property
    def max_return(self) -> None:
        """Not known."""
        return

    @property
    def profile(self) -> Profile:
        """That of continuous actions, and how long the HaDES paper clones."""
        return Profile("continuous", is_quickly_cloned=self.name in QUICKLY_CLONED)

    @property
    def picture(self) -> Picture:
        """The body, posed."""
        return brax_picture(self.name)

    def reset(self, key: jax.Array) -> tuple[BraxState, jax.Array]:
        """Starts an episode."""
        environment = make_environment(self.name, self.backend)
        with quiet():
            state = environment.reset(key)
        state = strong_types(state)
        return BraxState(state, jnp.zeros((), jnp.int32)), state.obs

    def step(self, key: jax.Array, state: BraxState, action: jax.Array) -> Transition:
        """Takes one action; the physics is deterministic, `key` is not used."""
        del key
        environment = make_environment(self.name, self.backend)
        with quiet():
            following = strong_types(environment.step(state.environment, action))
        steps = state.steps + 1
        return Transition(
            BraxState(following, steps),
            following.obs,
            following.reward,
            following.done > 0.5,
            steps >= EPISODE_LENGTH,
        )


def make(rest: str) -> BraxTask:
    """The task `brax/rest`."""
    name, slash, backend = rest.partition("/")
    if name not in NAMES or (slash and backend not in BACKENDS):
        known = [f"brax/{name}{suffix}" for name in NAMES for suffix in ("", *(f"/{b}" for b in BACKENDS))]
        raise unknown_task(f"brax/{rest}", known)
    return BraxTask(name, backend or BACKENDS[0])


def picture(rest: str) -> Picture:
    """How `brax/rest` is drawn."""
    return brax_picture(rest.partition("/")[0])


def names() -> list[str]:
    """Those on the backend positional."""
    return list(NAMES)
