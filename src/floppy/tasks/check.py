"""`check_task`: plays a task for a moment, and says in one sentence where it breaks the contract of `tasks/base.py`."""

import contextlib
import functools
import math
import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.compilation import FOR_ONE_CALL, compiled
from floppy.errors import MAX_COUNT, FloppyError, one_line, page, raised, shown
from floppy.spaces import Continuous, Discrete
from floppy.tasks.base import (
    MOST_ACTIONS,
    REQUIRED,
    HostTask,
    JaxTask,
    Labelled,
    SupervisedTask,
    Task,
    Transition,
    bounds_fault,
    picture_of,
    profile_of,
    reset_of,
    step_of,
    strong_types,
)
from floppy.tasks.faults import environment_code, fault_of_closing
from floppy.tasks.registry import FAMILIES, make_task

EPISODES = 8
"""That are played of a JAX task, at the same time."""
MAX_STEPS = 5000
"""After which these episodes are given up."""
HOST_COPIES, HOST_STEPS = 2, 10
"""That are played of a host task."""
OWN_PAGE = page("Your own environment")
SAME_STEP = "SameStep"
"""The value of Gymnasium's `AutoresetMode.SAME_STEP`."""
SPLITS = ("train", "held-out", "test")
MOST_BUILT = 120
"""Characters of what is said of a state's structure."""


def check_task(task: Task, *, is_registered: bool = True) -> None:
    """Plays a task for a moment, to see whether it keeps the contract of `floppy.tasks.Task`.

    Of a JAX task it plays a few episodes to their ends, of a host task some steps of two copies, of labelled examples
    it looks at each split. A second call for an equal task costs nothing.

    Args:
      task: any `JaxTask`, `HostTask` or `SupervisedTask`.
      is_registered: whether its id must stand for it, see `floppy.tasks.register`: a dataset's card names the id alone.

    Raises:
      FloppyError: for the first breach; it names the task, the field, what was got and what is wanted.
    """
    try:
        hash(task)
    except Exception as error:
        _check_attributes(task)  # which may say more about it
        raise FloppyError(
            f"Task {shown(task)} cannot be hashed ({one_line(error)}): let it be a frozen dataclass, without lists or "
            "arrays."
        ) from error
    _check_once(task)  # type: ignore[arg-type]
    if is_registered:
        _check_id(task)


def check_own_task(task: Task, *, is_registered: bool = True) -> None:
    """`check_task` for a task of the user's own; those of the families that come with floppy are checked by its tests.

    A family that plays anybody's environments, as Gymnasium's registry holds them, says so: `plays_others_code`.

    Raises:
      FloppyError: for the first breach.
    """
    if type(task).__module__ not in FAMILIES.values() or getattr(task, "plays_others_code", False):
        check_task(task, is_registered=is_registered)


@functools.lru_cache(maxsize=128)
def _check_once(task: Any) -> None:
    _check_attributes(task)
    if isinstance(task, SupervisedTask):
        _check_labelled(task)
    elif isinstance(task, HostTask):
        _check_host(task)
    elif isinstance(task, JaxTask):
        _check_jax(task)
    else:
        raise _breach(
            task, "it has neither reset and step (JaxTask), nor make_vector (HostTask), nor labelled (SupervisedTask)"
        )


def _breach(task: Any, what: str) -> FloppyError:
    name = getattr(task, "task_id", None) or shown(task)
    return FloppyError(f"Task {name} breaks the contract of a task ({OWN_PAGE}): {what}.")


def _wrong(task: Any, field: str, wanted: Any, got: Any) -> FloppyError:
    return _breach(task, f"{field} must be {wanted}, got {got}")


# --- what every task says of itself ---


def _check_attributes(task: Any) -> None:
    for name in REQUIRED:
        try:
            getattr(task, name)
        except (FloppyError, KeyboardInterrupt):
            raise
        except AttributeError as error:
            raise _breach(task, f"it has no {name}") from error
        except BaseException as error:  # computed by the task's own code
            raise _breach(task, f"its {name} raised {raised(error)}") from error
    for name in ("task_id", "package"):
        if not isinstance(getattr(task, name), str) or not getattr(task, name):
            raise _wrong(task, name, "text", shown(getattr(task, name)))
    shape = task.observation_shape
    if not isinstance(shape, tuple) or not all(map(_is_count, shape)):
        raise _wrong(task, "observation_shape", "a tuple of positive whole numbers", shown(shape))
    _check_count(task, "max_steps", task.max_steps, MAX_COUNT)
    if task.max_return is not None and not _is_finite(task.max_return):
        raise _wrong(task, "max_return", "a finite number or None", shown(task.max_return))
    _check_space(task)
    picture_of(task)


def _is_count(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and int(value) > 0


def _check_count(task: Any, field: str, value: Any, most: int) -> None:
    if not _is_count(value):
        raise _wrong(task, field, "a positive whole number", shown(value))
    if value > most:
        raise _wrong(task, field, f"at most {most}", shown(value))


def _is_finite(value: Any) -> bool:
    try:
        return isinstance(value, int | float | np.integer | np.floating) and math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


def _check_space(task: Any) -> None:
    space = task.actions
    if isinstance(space, Discrete):
        _check_count(task, "the size of actions", space.size, MOST_ACTIONS)
    elif isinstance(space, Continuous):
        _check_count(task, "the size of actions", space.size, MAX_COUNT)
        low, high = np.asarray(space.low), np.asarray(space.high)
        if low.shape != (space.size,) or high.shape != (space.size,):
            raise _wrong(task, "the bounds of actions", f"{space.size} each", f"{low.size} and {high.size}")
        if fault := bounds_fault(low, high):
            raise _wrong(task, "the bounds of actions", fault, f"{shown(space.low)} and {shown(space.high)}")
    else:
        raise _wrong(task, "actions", "a floppy.tasks.Discrete or Continuous", f"a {type(space).__name__}")


def _check_id(task: Any) -> None:
    wanted = f"floppy.tasks.register({task.task_id.partition('/')[0]!r}, ...) must make it again from {task.task_id!r}"
    try:
        found: Any = make_task(task.task_id)
    except FloppyError as error:
        raise _breach(task, f"its task_id stands for no task ({one_line(error)}): {wanted}") from error
    # Labelled tasks share one id for all their splits.
    is_same = found.task_id == task.task_id and (isinstance(task, SupervisedTask) or found == task)
    if not is_same:
        raise _breach(task, f"its task_id stands for {shown(found)}, which is not equal to it: {wanted}")


# --- JAX tasks ---


def _check_jax(task: JaxTask) -> None:
    key = jax.random.key(0)
    with _own_code(task, "reset"):
        started = jax.eval_shape(task.reset, key)
    if not isinstance(started, tuple) or len(started) != 2:
        raise _wrong(task, "what reset returns", "(state, observation)", shown(started))
    state, observation = started
    _check_array(task, "the observation of reset", observation, task.observation_shape)
    action = jax.eval_shape(lambda: task.actions.random(key, ()))
    with _own_code(task, "step"):
        after = jax.eval_shape(task.step, key, jax.eval_shape(lambda: strong_types(task.reset(key)[0])), action)
    if not isinstance(after, tuple) or len(after) != len(Transition._fields):
        raise _wrong(task, "what step returns", f"a Transition of {', '.join(Transition._fields)}", shown(after))
    after = Transition(*after)
    _check_array(task, "the observation of step", after.observation, task.observation_shape)
    if (observation.dtype == jnp.uint8) != (after.observation.dtype == jnp.uint8):  # bytes are seen as 0 .. 1
        raise _wrong(
            task, "the observation of step", f"of type {observation.dtype}, as that of reset", after.observation.dtype
        )
    _check_array(task, "reward", after.reward, (), may_have_one_element=True)
    for name in ("terminated", "truncated"):
        flag = getattr(after, name)
        if getattr(flag, "shape", None) != () or flag.dtype != bool:
            raise _wrong(task, name, "a scalar of type bool", _described(flag))
    _check_state(task, state, after.state)
    _check_purity(task, key)
    with _own_code(task, "step"):
        outcome = jax.device_get(_played(task, jax.random.key(1)))
    _check_outcome(task, outcome)


@contextlib.contextmanager
def _own_code(task: Any, method: str) -> Iterator[None]:
    """Turns whatever a task's own code raises into a breach."""
    try:
        yield
    except (FloppyError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise _breach(
            task, f"{method} raised {raised(error)} when JAX compiled it for actions {task.actions}"
        ) from error


def _described(value: Any) -> str:
    shape, dtype = getattr(value, "shape", None), getattr(value, "dtype", None)
    return f"{type(value).__name__}" if shape is None else f"shape {shape} and type {dtype}"


def _check_array(
    task: Any, field: str, value: Any, shape: tuple[int, ...], *, may_have_one_element: bool = False
) -> None:
    got = getattr(value, "shape", None)
    fits = got == shape or (may_have_one_element and got is not None and int(np.prod(got)) == 1)
    if not fits or not (
        jnp.issubdtype(value.dtype, jnp.floating) or jnp.issubdtype(value.dtype, jnp.integer) or value.dtype == bool
    ):
        raise _wrong(task, field, f"numbers of shape {shape}", _described(value))


def _check_state(task: Any, before: Any, after: Any) -> None:
    """Checks that a step leaves the structure, shapes and types of the state as they are."""
    structures: tuple[Any, Any] = jax.tree.structure(before), jax.tree.structure(after)
    if structures[0] != structures[1]:
        raise _wrong(
            task,
            "the state of step",
            f"built like that of reset, {_built(before)}",
            _built(after),
        )
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(before)]
    for path, old, new in zip(paths, jax.tree.leaves(before), jax.tree.leaves(after), strict=True):
        if (old.shape, old.dtype) != (new.shape, new.dtype):
            name = f"state{jax.tree_util.keystr(path)} of step"
            raise _wrong(task, name, f"as in reset, {_described(old)}", _described(new))


def _built(state: Any) -> str:
    """How a state is built, with stars for its arrays."""
    text = str(jax.tree.map(lambda _: "*", state)).replace("'*'", "*")
    return text if len(text) <= MOST_BUILT else f"{text[:MOST_BUILT]}..."


def _check_purity(task: JaxTask, key: jax.Array) -> None:
    """Checks that two traces are the same program: whatever else a method reads would be fixed when it compiles."""
    state = jax.eval_shape(lambda: strong_types(task.reset(key)[0]))
    action = jax.eval_shape(lambda: task.actions.random(key, ()))
    programs: dict[str, Callable[[], Any]] = {
        "reset": lambda: jax.make_jaxpr(lambda key: task.reset(key))(key),
        "step": lambda: jax.make_jaxpr(lambda *given: task.step(*given))(key, state, action),
    }
    for name, trace in programs.items():
        # The first traces may differ by what JAX has cached in between: pairs that follow one another are compared.
        if not any(_is_same_program(trace(), trace()) for _ in range(2)):
            raise _breach(
                task,
                f"{name} must depend on its arguments alone, two traces of it differ: draw random numbers by "
                "jax.random from the key, and keep what changes in the state",
            )


def _is_same_program(one: Any, other: Any) -> bool:
    return _text(one) == _text(other) and all(map(_equal_constants, one.consts, other.consts))


def _text(program: Any) -> str:
    """A program as text, without addresses in memory."""
    return re.sub(r"0x[0-9a-f]+", "", str(program))


def _equal_constants(one: Any, other: Any) -> bool:
    if isinstance(one, jax.core.Tracer) or isinstance(other, jax.core.Tracer):  # kept from another call
        return False
    if isinstance(one, jax.Array) and jnp.issubdtype(one.dtype, jax.dtypes.extended):
        one, other = jax.random.key_data(one), jax.random.key_data(other)
    return bool(np.array_equal(np.asarray(one), np.asarray(other), equal_nan=np.asarray(one).dtype.kind == "f"))


class _Outcome(NamedTuple):
    """What became of `EPISODES` episodes with random actions; all are arrays `[EPISODES]`."""

    steps: Any
    is_over: Any
    observed: Any
    """Step of the first observation that is not finite, 0 for that of reset, -1 for none."""
    rewarded: Any
    """The same of rewards."""
    went_back: Any
    """Whether, at the end, the state's counter of steps and the observation were those of the start again."""
    last: Any
    """`[EPISODES, *obs]`: the observations at the end."""
    restarted: Any
    """Whether the observation at the end was that of a reset by a key that follows from the step's; `[n, EPISODES]`,
    for several ways to derive it."""


class _Running(NamedTuple):
    state: Any
    observation: jax.Array
    time: jax.Array
    is_over: jax.Array
    observed: jax.Array
    rewarded: jax.Array
    counts: Any
    """For every whole number of the state whether each step so far has added 1 to it."""
    went_back: jax.Array
    moved: jax.Array
    """Whether an observation before the end was another one than the first."""
    key: jax.Array
    """Of the last step."""


def _played(task: JaxTask, key: jax.Array) -> _Outcome:
    options = {} if profile_of(task).is_slow else FOR_ONE_CALL
    play = compiled(lambda keys: jax.vmap(functools.partial(_play_one, task))(keys), options)
    outcome: _Outcome = play(jax.random.split(key, EPISODES))
    return outcome._replace(restarted=outcome.restarted.T)


def _play_one(task: JaxTask, key: jax.Array) -> _Outcome:
    reset, step = reset_of(task), step_of(task)
    first_state, first = reset(jax.random.fold_in(key, 0))
    limit = min(int(task.max_steps), MAX_STEPS)

    def advance(now: _Running) -> _Running:
        step_key, action_key = jax.random.split(jax.random.fold_in(now.key, now.time))
        after = step(step_key, now.state, task.actions.random(action_key, ()))
        time, is_over = now.time + 1, after.terminated | after.truncated
        counts = jax.tree.map(
            lambda counted, old, new: counted & (new == old + 1), now.counts, _numbers(now.state), _numbers(after.state)
        )
        fell = [
            counted & (new == start) & (old != start) & (now.time > 1)
            for counted, old, new, start in zip(
                now.counts, _numbers(now.state), _numbers(after.state), _numbers(first_state), strict=True
            )
        ]
        is_first = jnp.all(after.observation == first)
        went_back = is_over & is_first & now.moved & jnp.any(jnp.array([False, *fell]))
        return _Running(
            after.state,
            after.observation,
            time,
            is_over,
            _first(now.observed, time, ~jnp.all(jnp.isfinite(after.observation))),
            _first(now.rewarded, time, ~jnp.isfinite(after.reward)),
            counts,
            went_back,
            now.moved | (~is_over & ~is_first),
            step_key,
        )

    never = jnp.asarray(-1)
    start = _Running(
        first_state,
        first,
        jnp.asarray(0),
        jnp.asarray(False),
        _first(never, jnp.asarray(0), ~jnp.all(jnp.isfinite(first))),
        never,
        [jnp.asarray(True)] * len(_numbers(first_state)),
        jnp.asarray(False),
        jnp.asarray(False),
        key,
    )
    end = jax.lax.while_loop(lambda now: ~now.is_over & (now.time < limit), advance, start)
    fresh = jax.vmap(lambda key: reset(key)[1])(_likely_reset_keys(end.key))
    restarted = jax.vmap(lambda each: jnp.all(each == end.observation))(fresh)
    return _Outcome(end.time, end.is_over, end.observed, end.rewarded, end.went_back, end.observation, restarted)


def _first(before: jax.Array, time: jax.Array, happens: jax.Array) -> jax.Array:
    return jnp.where((before < 0) & happens, time, before)


def _numbers(state: Any) -> list[jax.Array]:
    """The whole numbers of a state: one of them may count steps."""
    leaves = jax.tree.leaves(state)
    return [leaf for leaf in leaves if not jnp.shape(leaf) and jnp.issubdtype(jnp.result_type(leaf), jnp.integer)]


def _likely_reset_keys(key: jax.Array) -> jax.Array:
    """Keys by which a `step` might reset: the one it got, or one split from it."""
    folded = [jax.random.fold_in(key, number) for number in range(2)]
    return jnp.stack([key, *jax.random.split(key), *jax.random.split(key, 3), *folded])


def _check_outcome(task: JaxTask, outcome: _Outcome) -> None:
    for field, steps in (("observation", outcome.observed), ("reward", outcome.rewarded)):
        if (steps >= 0).any():
            time = steps[steps >= 0].min()
            raise _wrong(
                task, f"every {field}", "finite", f"NaN or infinity at step {time} of an episode with random actions"
            )
    if not outcome.is_over.all():
        if task.max_steps <= MAX_STEPS:
            raise _breach(
                task,
                f"an episode with random actions has not ended after max_steps = {task.max_steps} steps: return "
                "truncated = True in the last of them",
            )
        return
    # Coincidence is out of the question where all of several different observations are those of a reset.
    is_varied = len(np.unique(outcome.last.reshape(EPISODES, -1), axis=0)) == EPISODES
    if outcome.went_back.any() or (is_varied and outcome.restarted.all(axis=1).any()):
        raise _breach(
            task,
            "step resets at the end of an episode: return the state and the observation that it ended in, for floppy "
            "starts the next one",
        )


# --- host tasks ---


def _check_host(task: Any) -> None:
    with environment_code(task.task_id, "made"):
        vector = task.make_vector(HOST_COPIES, training=False)
    try:
        _check_vector(task, vector)
    finally:
        fault = fault_of_closing(task.task_id, lambda: vector.close())
    if fault:
        raise fault


def _check_vector(task: Any, vector: Any) -> None:
    mode = (getattr(vector, "metadata", None) or {}).get("autoreset_mode")
    if mode is not None and getattr(mode, "value", mode) != SAME_STEP:
        raise _wrong(
            task,
            "the autoreset_mode of make_vector's environment",
            "AutoresetMode.SAME_STEP, in which an episode that ends is followed by the next within the same step",
            mode,
        )
    if getattr(vector, "num_envs", None) != HOST_COPIES:
        raise _wrong(task, f"num_envs of make_vector({HOST_COPIES})", HOST_COPIES, getattr(vector, "num_envs", "none"))
    _check_vector_spaces(task, vector)
    with environment_code(task.task_id, "reset"):
        observations, _ = vector.reset(seed=[1, 2])
    _check_batch(task, "the observations of reset", observations, (HOST_COPIES, *task.observation_shape))
    random = np.random.default_rng(0)
    for _ in range(HOST_STEPS):
        with environment_code(task.task_id, "stepped"):
            observations, rewards, terminated, truncated, infos = vector.step(_random_actions(task, random))
        _check_batch(task, "the observations of step", observations, (HOST_COPIES, *task.observation_shape))
        _check_batch(task, "rewards", rewards, (HOST_COPIES,))
        for name, flags in (("terminated", terminated), ("truncated", truncated)):
            if np.shape(flags) != (HOST_COPIES,) or np.asarray(flags).dtype != bool:
                raise _wrong(task, name, f"of shape ({HOST_COPIES},) and type bool", _described(np.asarray(flags)))
        for index in np.flatnonzero(np.asarray(terminated) | np.asarray(truncated)):
            if "final_obs" not in infos:
                raise _breach(
                    task,
                    "infos of a step in which an episode ends must hold final_obs, the observation that it ended with: "
                    "make the vector environment with AutoresetMode.SAME_STEP",
                )
            _check_batch(task, "final_obs", infos["final_obs"][index], task.observation_shape)


def _check_vector_spaces(task: Any, vector: Any) -> None:
    observations, actions = (getattr(vector, f"single_{kind}_space", None) for kind in ("observation", "action"))
    shape = getattr(observations, "shape", None)
    if observations is not None and shape != task.observation_shape:
        raise _wrong(task, "the shape of make_vector's single_observation_space", task.observation_shape, shape)
    if actions is None:
        return
    wanted: Any
    if isinstance(task.actions, Discrete):
        wanted, got = task.actions.size, getattr(actions, "n", None)
    else:
        wanted, got = (task.actions.size,), None if hasattr(actions, "n") else getattr(actions, "shape", None)
    if got != wanted or getattr(actions, "start", 0) != 0:
        raise _wrong(task, "make_vector's single_action_space", f"that of {task.actions}", shown(actions))


def _random_actions(task: Any, random: np.random.Generator) -> np.ndarray:
    space = task.actions
    if isinstance(space, Discrete):
        return random.integers(0, space.size, HOST_COPIES)
    return random.uniform(space.low, space.high, (HOST_COPIES, space.size)).astype(np.float32)


def _check_batch(task: Any, field: str, values: Any, shape: tuple[int, ...]) -> None:
    array = np.asarray(values)
    if array.shape != shape or array.dtype.kind not in "fiub":
        raise _wrong(task, field, f"numbers of shape {shape}", _described(array))
    if not np.isfinite(array).all():
        raise _wrong(task, field, "finite", "NaN or infinity")


# --- labelled examples ---


def _check_labelled(task: SupervisedTask) -> None:
    if task.split not in SPLITS:
        raise _wrong(task, "split", f"one of {', '.join(SPLITS)}", shown(task.split))
    kinds = set()
    for split in SPLITS:
        with _own_code(task, f"labelled({split!r})"):
            images, labels = (np.asarray(part) for part in Labelled(*task.labelled(split)))
        if images.shape[1:] != task.observation_shape or images.dtype.kind not in "fiub" or not len(images):
            wanted = f"numbers of shape (n, {', '.join(map(str, task.observation_shape))})"
            raise _wrong(task, f"the images of split {split}", wanted, _described(images))
        if images.dtype.kind == "f" and not np.isfinite(images).all():
            raise _wrong(task, f"the images of split {split}", "finite", "NaN or infinity")
        if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu":
            wanted = f"whole numbers of shape ({len(images)},)"
            raise _wrong(task, f"the labels of split {split}", wanted, _described(labels))
        if labels.min() < 0 or labels.max() >= task.actions.size:
            got = f"{labels.min()} to {labels.max()}"
            raise _wrong(task, f"the labels of split {split}", f"from 0 to {task.actions.size - 1}", got)
        kinds.add(images.dtype)
        if task.with_split(split).split != split:
            raise _wrong(task, f"with_split({split!r})", "the task of that split", task.with_split(split).split)
    if len(kinds) > 1:
        raise _wrong(task, "the images of all splits", "of one type", " and ".join(sorted(map(str, kinds))))
