"""What a task is: the contract that every environment family fulfils."""

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp

from floppy.errors import FloppyError

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

TaskState = Any
"""A task's own state, any pytree."""


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions `0 .. size-1`; a policy puts out `size` logits."""

    size: int

    def as_dict(self) -> dict[str, Any]:
        """The form that a dataset's card stores."""
        return {"kind": "discrete", "size": self.size}


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions in a box of `size` dimensions; a policy puts out `size` means and holds as many log deviations."""

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]

    def as_dict(self) -> dict[str, Any]:
        """The form that a dataset's card stores."""
        return {"kind": "continuous", "size": self.size, "low": list(self.low), "high": list(self.high)}


class Transition(NamedTuple):
    """What one step of a task gives back. No reset happens inside: the caller starts the next episode."""

    state: TaskState
    observation: jax.Array
    """`[*obs]`, of the state reached, also when the episode ended there."""
    reward: jax.Array
    """`[]`"""
    terminated: jax.Array
    """`[]` bool: the task itself ended, the state reached is worth nothing more."""
    truncated: jax.Array
    """`[]` bool: the time limit was reached, the state reached still has a value."""


class FaultyEnvironmentError(FloppyError):
    """An environment raised, or returned what no environment may: a run ends here, with what it has reached."""


class Task(Protocol):
    """What every task says of itself.

    Implementations are frozen dataclasses, so that they can be hashed and compared, and a compiled function is reused
    for an equal task.
    """

    @property
    def task_id(self) -> str:
        """The full id, `family/name`."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape `[*obs]` of one observation."""

    @property
    def actions(self) -> Discrete | Continuous:
        """The action space."""

    @property
    def max_steps(self) -> int:
        """Steps after which every episode has ended."""

    @property
    def max_return(self) -> float | None:
        """The highest possible episode return, where one is known."""

    @property
    def package(self) -> str:
        """Name of the installed package that defines the dynamics (its version goes into the card)."""


@runtime_checkable
class JaxTask(Task, Protocol):
    """A task written in JAX: pure functions of explicit keys, one environment, no reset inside.

    Callers batch it with `jax.vmap`.
    """

    def reset(self, key: jax.Array) -> tuple[TaskState, jax.Array]:
        """Starts an episode: the state and its observation `[*obs]`."""

    def step(self, key: jax.Array, state: TaskState, action: jax.Array) -> Transition:
        """Takes one action: `[]` int for discrete actions, `[size]` float for continuous ones."""


@runtime_checkable
class HostTask(Task, Protocol):
    """A task that Python steps on the host, many copies at a time."""

    def make_vector(self, count: int, *, training: bool) -> "VectorEnv":
        """Makes `count` independent copies as one Gymnasium vector environment.

        Its observations are `[count, *obs]`; those of type uint8 are pixels, which policies see as 0 .. 1. Its actions
        are `[count]` ints from 0, or `[count, size]` floats within the bounds. An episode that ends is followed by the
        next within the same step (same-step autoreset), and `infos["final_obs"]` then holds the observation that it
        ended with. `reset(seed=[...])` seeds every copy. Where `options={"episodes": n}` is given, a copy may rest
        after `n` episodes: it goes on returning an observation, but costs nothing.

        Args:
          count: of the copies.
          training: whether learning takes place in it: rewards may be shaped then. Scores and fitness take False.

        Raises:
          FloppyError: if it cannot be made.
        """


class Labelled(NamedTuple):
    """Observations of which the right action is known: arrays of NumPy, or of JAX once they are on a device."""

    images: Any
    """`[n, *obs]`, bytes or floats; bytes are seen as 0 .. 1."""
    labels: Any
    """`[n]` int."""


@runtime_checkable
class SupervisedTask(Task, Protocol):
    """A task of labelled examples: an episode is one of them, its return 100 for the right answer, else 0."""

    @property
    def actions(self) -> Discrete:
        """One per class."""

    @property
    def split(self) -> str:
        """What is played: train, held-out or test."""

    def labelled(self, split: Any = None) -> Labelled:
        """The examples of a split, by default those that are played."""

    def with_split(self, split: Any) -> "SupervisedTask":
        """The task of answering for another split."""


def strong_types(state: Any) -> Any:
    """Gives every leaf a fixed dtype: some environments' `reset` holds Python numbers where `step` returns arrays."""
    return jax.tree.map(lambda leaf: jax.lax.convert_element_type(leaf, jnp.asarray(leaf).dtype), state)
