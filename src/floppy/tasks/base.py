"""What a task is: the contract that every environment family fulfils."""

import contextlib
import io
import math
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, raised
from floppy.fields import LARGEST
from floppy.spaces import ActionSpace, Discrete
from floppy.tasks.pictures import Picture, PictureError, checked_picture

if TYPE_CHECKING:
    from gymnasium.vector import VectorEnv

TaskState = Any
"""A task's own state, any pytree."""

LARGE_IMAGE = 16
"""Pixels a side from which images are large; MNIST's have 28, scikit-learn's digits 8."""

DEFAULT_EPISODES = 100
"""Per learner, in an evaluation."""

FEW_EPISODES, FEW_LABELS = 4, 500
"""The same where a rough score will do."""

MOST_ACTIONS = 2**16
"""Of a discrete space: a policy puts out a number for each."""


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
    """An environment raised, hung, or returned NaN, infinity or a wrong shape: a run ends, with what it has reached."""


class FaultyEnvironmentWarning(UserWarning):
    """An environment ended the program, or hung, while it was closed: what it has given before counts all the same."""


def bounds_fault(low: np.ndarray, high: np.ndarray) -> str:
    """What bounds `[a]` of continuous actions ought to be, "" where they are; policies act in float32."""
    is_numbers = all(bounds.dtype.kind in "iuf" and np.isfinite(bounds).all() for bounds in (low, high))
    if not is_numbers or not (low < high).all():
        return "finite, with low below high"
    if np.abs([low, high]).max() > LARGEST:
        return f"from -{LARGEST:g} to {LARGEST:g}"
    return "" if (np.float32(low) < np.float32(high)).all() else "further apart, in float32 they are equal"


JAX, HOST, LABELLED = "jax", "host", "labelled"
"""Kinds of tasks: `JaxTask`, `HostTask`, `SupervisedTask`."""
EPISODIC = (JAX, HOST)
"""Those that have episodes; the other one has labels."""


class Profile(NamedTuple):
    """What the recipes go by: what a task is like, see `profile_of`."""

    name: str
    """`vector`, `continuous`, `grid`, `cartpole`, `atari`, `small-images`, `large-images`: a row of the recipes."""
    is_slow: bool = False
    """Whether its steps take long, as those that Python takes do, so that fewer episodes are scored."""
    is_small: bool = False
    """Whether few numbers are observed, `FEW_NUMBERS` at most, as in classic control."""
    dimensions: int = 0
    """Of cart-pole."""
    is_of_unit_size: bool = False
    """Whether observations and rewards are known to be around 1, so that nothing need be scaled."""
    is_quickly_cloned: bool = False
    """Whether half of the usual Adam steps will do (HaDES paper, Table 2)."""


REQUIRED = ("task_id", "observation_shape", "actions", "max_steps", "max_return", "package")
"""Attributes that every task has."""


class Task(Protocol):
    """What every task says of itself.

    Implementations are frozen dataclasses, so that they can be hashed and compared, and a compiled function is reused
    for an equal task. A task may also say its `score_unit`, `default_episodes`, `profile`, `picture`, `description`,
    `card_task`, `card_notes`, `observes_bytes` and `selection_view()`; for one that does not, the functions of these
    names below say what is usual for its kind. One whose rewards are others in training says `shapes_rewards = True`.
    """

    @property
    def task_id(self) -> str:
        """The full id, `family/name`."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape `[*obs]` of one observation."""

    @property
    def actions(self) -> ActionSpace:
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


def kind_of(task: Task) -> str:
    """`JAX`, `HOST` or `LABELLED`: by the methods that it has."""
    if isinstance(task, SupervisedTask):
        return LABELLED
    return HOST if isinstance(task, HostTask) else JAX


def profile_of(task: Task) -> Profile:
    """What the recipes go by: the task's own `profile`, or what its actions and observations say."""
    own = getattr(task, "profile", None)
    return own if isinstance(own, Profile) else usual_profile(task)


FEW_NUMBERS = 6
"""As many as Acrobot, the largest of classic control, has in an observation."""


def usual_profile(task: Task) -> Profile:
    """What a task's actions and observations say of it; the recipes go by this where they do not know its own."""
    kind = kind_of(task)
    if kind == LABELLED:
        return Profile("large-images" if min(task.observation_shape[:2]) >= LARGE_IMAGE else "small-images")
    is_grid = not task.actions.log_std_size and len(task.observation_shape) == 3
    name = "grid" if is_grid else "continuous" if task.actions.log_std_size else "vector"
    return Profile(name, is_slow=kind == HOST, is_small=math.prod(task.observation_shape) <= FEW_NUMBERS)


def picture_of(task: Task) -> Picture:
    """How observations are drawn: the task's own `picture`, or one without names that suits any shape.

    Raises:
      PictureError: for one that does not fit the task.
    """
    try:
        own: Any = getattr(task, "picture", None)
    except (FloppyError, KeyboardInterrupt):
        raise
    except BaseException as error:  # computed by the task's own code
        raise PictureError(f"The picture of {task.task_id} raised {raised(error)}: mend it.") from error
    if own is None:
        return Picture()
    return checked_picture(own, task.task_id, tuple(task.observation_shape), task.actions.size)


def score_unit(task: Task) -> str:
    """What a score is called, such as `mean return`."""
    return str(getattr(task, "score_unit", "accuracy in percent" if kind_of(task) == LABELLED else "mean return"))


def episode_word(task: Task) -> str:
    """What a learner plays many of, such as `episodes`."""
    return "images" if kind_of(task) == LABELLED else "episodes"


def default_episodes(task: Task) -> int:
    """How many episodes a learner plays where nothing else is asked for: of labelled examples all."""
    usual = len(task.labelled().labels) if isinstance(task, SupervisedTask) else DEFAULT_EPISODES
    return int(getattr(task, "default_episodes", usual))


def few_episodes(task: Task) -> int:
    """How many episodes a learner plays where a rough score will do; a label is seen in no time, an episode is not."""
    return min(default_episodes(task), FEW_LABELS if kind_of(task) == LABELLED else FEW_EPISODES)


def chance_of(task: Task) -> float | None:
    """Score that takes no learning: of labelled examples the share of the commonest class, in percent; else None.

    Of a task with episodes it is that of random play, which has to be played.
    """
    if not isinstance(task, SupervisedTask):
        return None
    return float(100 * np.bincount(np.asarray(task.labelled().labels)).max() / len(task.labelled().labels))


def selection_view(task: Task) -> Task:
    """The task as it is played to choose the best dataset: on held-out examples, else scores on tests would leak."""
    return task.with_split("held-out") if isinstance(task, SupervisedTask) else task


def card_task(task: Task) -> str:
    """The id on the card of a dataset of a task: its own, or that of the task whose steps it takes in another way."""
    return str(getattr(task, "card_task", task.task_id))


def card_notes(task: Task) -> str:
    """What a task wants to be said on the card of a dataset of it, such as which label each action stands for."""
    return str(getattr(task, "card_notes", ""))


def observes_bytes(task: Task) -> bool:
    """Whether observations are kept as bytes, pixels: as a task says, or as the `reset` of a JAX task gives them."""
    if (own := getattr(task, "observes_bytes", None)) is not None:
        return bool(own)
    return isinstance(task, JaxTask) and jax.eval_shape(reset_of(task), jax.random.key(0))[1].dtype == jnp.uint8


def lenient_broadcasting() -> contextlib.AbstractContextManager[None]:
    """Lets another library's code add vectors to matrices, which JAX can be told to refuse (`rank_promotion`)."""
    manager: contextlib.AbstractContextManager[None] = jax.numpy_rank_promotion("allow")
    return manager


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silences another library, and lets it be lenient.

    Brax and MJX print about packages that they do not need, and warn about their own age.
    """
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), lenient_broadcasting():
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_mujoco(mujoco: Any) -> Iterator[None]:
    """Silences the module `mujoco`, which would write its warnings about older models to a file in this folder."""
    mujoco.set_mju_user_warning(lambda _: None)
    try:
        yield
    finally:
        mujoco.set_mju_user_warning(None)


def strong_types(state: Any) -> Any:
    """Gives every leaf a fixed dtype: some environments' `reset` holds Python numbers where `step` returns arrays."""

    def strong(leaf: Any) -> jax.Array:
        array = jnp.asarray(leaf)
        is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
        return array if is_key else jax.lax.convert_element_type(leaf, array.dtype)

    return jax.tree.map(strong, state)


def reset_of(task: JaxTask) -> Callable[[jax.Array], tuple[TaskState, jax.Array]]:
    """The task's `reset`, of which the results have fixed types: see `step_of`."""

    def reset(key: jax.Array) -> tuple[TaskState, jax.Array]:
        state, observation = task.reset(key)
        return strong_types(state), _as_float(observation)

    return reset


def step_of(task: JaxTask) -> Callable[[jax.Array, TaskState, jax.Array], Transition]:
    """The task's `step`, of which the results have fixed types.

    Whole or truth values become floats where floats are meant (bytes stay bytes, they are pixels), a reward of one
    element becomes a scalar. Callers play tasks through this; of a task that returns floats it changes nothing.
    """

    def step(key: jax.Array, state: TaskState, action: jax.Array) -> Transition:
        after, observation, reward, terminated, truncated = task.step(key, state, action)
        number = jnp.asarray(reward, jnp.float32)
        return Transition(
            strong_types(after),
            _as_float(observation),
            number.reshape(()) if number.shape else number,
            jnp.asarray(terminated),
            jnp.asarray(truncated),
        )

    return step


def _as_float(observation: Any) -> jax.Array:
    array = jnp.asarray(observation)
    return array if array.dtype == jnp.uint8 else array.astype(jnp.float32)
