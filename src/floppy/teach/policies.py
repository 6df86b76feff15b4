"""Policies from a distilled dataset: the use that a dataset is made for."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, Self, overload

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from floppy.cloning.base import Cloning, Distilled, clone, map_clones
from floppy.cloning.merged import Block
from floppy.dataset.file import DistilledDataset, origin
from floppy.errors import FloppyError, check_kind, shown
from floppy.fields import as_seed, whole_number
from floppy.learner.distribution import as_learners, describe_distribution
from floppy.learner.ensemble import EnsembleNetwork, assemble
from floppy.learner.mlp import PlainLayer
from floppy.learner.network import LAYERS, PLAIN_LAYERS, Learners, Network, check_offers, have_diverged
from floppy.play.normalise import RunningStatistics, mean_and_deviation, normalise, restored_statistics
from floppy.spaces import ActionSpace
from floppy.tasks.base import Task
from floppy.tasks.registry import make_task
from floppy.tasks.untrusted import task_of_file
from floppy.teach.codec import Lesson, unpack

MAX_LEARNERS = 1_000_000


@dataclasses.dataclass(frozen=True)
class Origin:
    """Where policies come from."""

    dataset: str = ""
    """What they were trained on: its task, and `sha256:` with the digest of its file."""
    seed: int | None = None
    """Of their initial weights, where it was given as a number."""


class PlainPolicy(NamedTuple):
    """One policy of a built-in network, in NumPy arrays."""

    layers: list[PlainLayer]
    """From input to output, which gives logits, or means in the task's units."""
    log_std: np.ndarray
    """`[a]`, in the task's units; `[0]` for discrete actions."""
    mean: np.ndarray | None
    """`[*obs]`, taken away from observations; None where they are not normalised."""
    deviation: np.ndarray | None
    """`[*obs]`, by which they are divided then, before they are clipped."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Trained:
    """What one trained policy and many have in common."""

    network: Network[Any] = dataclasses.field(metadata={"static": True})
    weights: Any
    statistics: RunningStatistics | None = None
    """By which observations are normalised before they reach the network."""
    per_evaluation_stats: bool = dataclasses.field(default=False, metadata={"static": True})
    """Whether the dataset asks for statistics that start with zero in every evaluation: there are none to apply then.
    `policy_outputs` takes observations that the caller has normalised, and `act` asks for `with_statistics`."""
    task: str = dataclasses.field(default="", metadata={"static": True})
    """Full id; of policies for several tasks those of its tasks, joined by `+`."""
    blocks: tuple[Block, ...] = dataclasses.field(default=(), metadata={"static": True})
    """What of the weights is whose task's, for policies of a merged dataset; see `for_task`."""

    def for_task(self, task: str) -> Self:
        """The part of policies of a merged dataset that plays one of its tasks.

        Args:
          task: its id. Policies of one task alone are given back as they are, if the task has their spaces.

        Returns:
          Policies that read the task's own observations `[*obs]` and give its own actions.

        Raises:
          FloppyError: if the policies are not of that task.
        """
        known = task_of_file(task) if task == self.task else make_task(task)
        found = [block for block in self.blocks if block.task == known.task_id]
        if not self.blocks:
            return self._checked_for(known)
        if not found:
            names = " and ".join(block.task for block in self.blocks)
            raise FloppyError(f"These are policies of {names}, not of {known.task_id}: give a task that they play.")
        if LAYERS not in self.network.offers:
            raise FloppyError(
                "An ensemble of policies of several tasks has no part for one of them: choose the task first, "
                "policies.for_task(id).together()."
            )
        block, shape = found[0], known.observation_shape
        network = dataclasses.replace(block.network(self.network), observation_shape=shape)  # type: ignore[arg-type]
        if math.prod(shape) != block.observations[1] or network.actions.raw != known.actions:
            raise FloppyError(
                f"The policies read {block.observations[1]} numbers and have {network.actions.size} action outputs, "
                f"task {known.task_id} has {shape} and {known.actions.size}: were they trained for another version?"
            )
        statistics = self.statistics and self.statistics._replace(
            mean=block.own_statistic(self.statistics.mean, shape),
            var=block.own_statistic(self.statistics.var, shape),
        )
        own: dict[str, Any] = {"weights": block.cut(self.weights), "statistics": statistics}
        return dataclasses.replace(self, network=network, task=known.task_id, blocks=(), **own)

    def _checked_for(self, task: Task) -> Self:
        own = self.network
        if own.observation_shape != task.observation_shape or own.actions.raw != task.actions:
            raise FloppyError(
                f"The policies, of {self.task or 'no named task'}, read observations of shape {own.observation_shape} "
                f"and have {own.actions.size} action outputs, task {task.task_id} has {task.observation_shape} and "
                f"{task.actions.size}: give a task with the same spaces."
            )
        return self

    def with_statistics(self, mean: ArrayLike, var: ArrayLike) -> Self:
        """The same policies with other statistics of observations.

        Args:
          mean: `[*obs]`, in the task's units.
          var: `[*obs]`, in these units squared, 0 or more.

        Returns:
          Policies that normalise by them, and start no statistics of their own.

        Raises:
          FloppyError: for statistics of another shape than an observation's.
        """
        shape = self.network.observation_shape
        mean, var = jnp.asarray(mean, jnp.float32), jnp.asarray(var, jnp.float32)
        if mean.shape != shape or var.shape != shape:
            raise FloppyError(
                f"mean and var must be of shape {list(shape)}, got {list(mean.shape)}, {list(var.shape)}."
            )
        statistics = restored_statistics(mean, var)
        return dataclasses.replace(self, statistics=statistics, per_evaluation_stats=False)

    def __repr__(self) -> str:
        """Without the weights."""
        drawn = describe_distribution(self.network.learners)
        return f"<{self._title} of {self.task or 'no named task'}, {drawn}>"

    @property
    def _title(self) -> str:
        return type(self).__name__

    def __getstate__(self) -> dict[str, Any]:
        """The fields, for pickling and copies: a compiled function, which is kept beside them, cannot be pickled."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def check_acts(self) -> None:
        """Checks that the policies can act.

        Raises:
          FloppyError: if they are of several tasks, or have no statistics to normalise observations by.
        """
        if self.blocks:
            names = ", ".join(block.task for block in self.blocks)
            raise FloppyError(f"These are policies of {names} together: choose a task first, policies.for_task(id).")
        if self.per_evaluation_stats:
            raise FloppyError(
                "The dataset asks for statistics of observations that start with zero in every evaluation, so these "
                "policies have none to normalise by: keep statistics of what you observe and act by "
                "policies.with_statistics(mean, var)."
            )


_STATIC = ["network", "per_evaluation_stats", "task", "blocks"]


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["weights", "statistics"], meta_fields=_STATIC, drop_fields=[]
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Policy(_Trained):
    """One trained policy. It is a pytree whose leaves are its weights and statistics.

    `policies[i]` gives one, and `policies.together()` the average of several.
    """

    def act(self, observation: ArrayLike | jax.Array, key: jax.Array | None = None) -> Any:
        """What the policy does about an observation of the task, or about each of a batch.

        The observation is normalised, the network gives its output, an action is chosen and clipped to its bounds.
        It may be traced, so `act` can stand inside `jax.jit`, `jax.vmap` and `jax.lax.scan`.

        Args:
          observation: `[*obs]` or `[k, *obs]`, in the task's units, as a NumPy or JAX array or lists. Bytes (uint8)
            are pixels and are scaled to 0 .. 1; all other numbers are taken as they are.
          key: PRNG key, consumed: the action is sampled. Without one it is the most likely.

        Returns:
          `[]` int or `[a]` float, of a batch `[k]` or `[k, a]`; a JAX array for a JAX array, else NumPy's.

        Raises:
          FloppyError: for an observation of another shape, or with NaN where it is no JAX array (those are not looked
            into), and by policies that cannot know what to do (of several tasks, or with statistics that start with
            zero in every evaluation).
        """
        given = _as_numbers(observation)
        _check_key(key)
        shape = self.network.observation_shape
        batch = given.ndim - len(shape)
        if given.shape[batch:] != shape or not 0 <= batch <= 1:
            raise _wrong_shape(given, shape, "a batch [k, {}]")
        return _as_given(given, self._program(self.weights, self.statistics, given, key))

    def plain(self, what: str) -> "PlainPolicy":
        """The policy in NumPy arrays, for what is written in other libraries.

        Args:
          what: needs it, as messages call it.

        Raises:
          FloppyError: for policies that cannot know what to do, see `act`, and for a network of one's own.
        """
        self.check_acts()
        check_offers(self.network, (PLAIN_LAYERS,), what)
        network: Any = self.network
        *hidden, output = network.plain_layers(jax.tree.map(np.asarray, self.weights))
        log_std, actions = np.asarray(self.weights.log_std), network.actions
        if getattr(actions, "half_width", ()):
            centre, half = (np.array(each, np.float32) for each in (actions.centre, actions.half_width))
            output = output._replace(kernel=output.kernel * half, bias=centre + half * output.bias)
            log_std = log_std + np.log(half)
        seen = (None, None) if self.statistics is None else mean_and_deviation(self.statistics)
        return PlainPolicy([*hidden, output], log_std, *seen)

    @functools.cached_property
    def _program(self) -> Callable[..., jax.Array]:
        self.check_acts()
        return _policy_program(self.network)


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["weights", "statistics"],
    meta_fields=[*_STATIC, "is_ensemble"],
    drop_fields=["origin"],
)
@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Policies(_Trained):
    """`L` trained policies of one network: what `train` gives and `save_policies` writes.

    It is a pytree whose leaves are the weights, `[L, ...]` each, and the statistics; all else is static. It passes
    through JAX's transformations, which forget its `origin`: what comes out need not be what was trained.
    """

    is_ensemble: bool = False
    """Whether they are meant to act as one, see `together`; `act` and `[i]` take them one by one all the same."""
    origin: Origin | None = None

    @property
    def _title(self) -> str:
        log_std: Any = getattr(self.weights, "log_std", None)  # JAX may put anything in place of arrays
        shape = np.shape(log_std)
        return f"{shape[0]} Policies" if len(shape) == 2 else "Policies"

    def __len__(self) -> int:
        """`L`."""
        return int(self.weights.log_std.shape[0])

    @overload
    def __getitem__(self, index: int | np.integer | jax.Array) -> Policy: ...
    @overload
    def __getitem__(self, index: slice | list[int] | list[bool] | np.ndarray) -> Self: ...
    def __getitem__(self, index: Any) -> "Policy | Self":
        """One policy by its number, or some, as a NumPy array is indexed: by a slice, numbers, or `[L]` bool.

        A number that is traced by a transformation of JAX stands for one policy, and its bounds are not checked.

        Raises:
          IndexError: for a number that no policy has.
          FloppyError: for anything else that chooses none.
        """
        if isinstance(index, jax.core.Tracer) and index.ndim == 0:
            return self._one(self.network, _row(self.weights, index))
        chosen = _chosen(index, len(self))
        if chosen.ndim == 0:
            return self._one(self.network, _row(self.weights, int(chosen)))
        # The seed gives the first policies, no others.
        is_first = np.array_equal(chosen, np.arange(len(chosen)))
        origin = self.origin if is_first or self.origin is None else dataclasses.replace(self.origin, seed=None)
        rows = index if isinstance(index, slice) else chosen
        weights = jax.tree.map(lambda leaf: leaf[rows], self.weights)
        return dataclasses.replace(self, weights=weights, origin=origin)

    def diverged(self) -> np.ndarray:
        """`[L]` bool: of which policies a weight is NaN or infinite."""
        return np.asarray(have_diverged(self.weights))

    def __iter__(self) -> Iterator[Policy]:
        """One after the other."""
        return (self[index] for index in range(len(self)))

    def together(self) -> Policy:
        """The ensemble of all of them: one policy, with the average of their action probabilities or of their means."""
        whole = jax.tree.map(lambda leaf: leaf[0], assemble(self.weights, len(self)))
        return self._one(EnsembleNetwork(self.network), whole)

    def act(self, observations: ArrayLike | jax.Array, key: jax.Array | None = None) -> Any:
        """What every policy does; see `Policy.act`.

        Args:
          observations: `[*obs]`, one for all; `[L, *obs]`, one for each; or `[L, k, *obs]`, `k` for each.
          key: PRNG key, consumed; policy `i` samples by `jax.random.fold_in(key, i)`. Without one all actions are the
            most likely.

        Returns:
          `[L]` int or `[L, a]` float, of `k` observations each `[L, k]` or `[L, k, a]`.

        Raises:
          FloppyError: as `Policy.act`.
        """
        if self.weights.log_std.ndim == 1:  # within `jax.vmap` over the policies there is one
            return self._one(self.network, self.weights).act(observations, key)
        given = _as_numbers(observations)
        _check_key(key)
        shape = self.network.observation_shape
        batch = given.ndim - len(shape)
        if given.shape[batch:] != shape or not 0 <= batch <= 2 or (batch and given.shape[0] != len(self)):
            raise _wrong_shape(given, shape, f"one for each [{len(self)}, {{0}}] or k for each [{len(self)}, k, {{0}}]")
        return _as_given(given, self._program(self.weights, self.statistics, given, key))

    @functools.cached_property
    def _program(self) -> Callable[..., jax.Array]:
        self.check_acts()
        return _policies_program(self.network)

    def _one(self, network: Network[Any], weights: Any) -> Policy:
        return Policy(network, weights, self.statistics, self.per_evaluation_stats, self.task, self.blocks)


def as_policies(policies: Any, advice: str) -> Policies:
    """Policies as they are, one policy as the only one of many; see `check_policies`."""
    if isinstance(policies, Policy):
        own = {field.name: getattr(policies, field.name) for field in dataclasses.fields(policies)}
        return Policies(**(own | {"weights": jax.tree.map(lambda leaf: leaf[None], policies.weights)}))
    check_policies(policies, advice)
    return policies


def check_policies(policies: Any, advice: str = "") -> None:
    """Checks that an argument is policies.

    Args:
      policies: what was given.
      advice: what to do with what else people might give.

    Raises:
      FloppyError: for anything else; it says where policies come from.
    """
    allowed = "the Policies that floppy.train or floppy.load_policies gives, or some of them, policies[:2]"
    check_kind("policies", policies, Policies, allowed, advice)


def _chosen(index: Any, count: int) -> np.ndarray:
    """The number `[]` of the policy, or the numbers `[n]` of those, that an index chooses of `count`."""
    if isinstance(index, int | np.integer) and not -count <= index < count:
        raise IndexError(f"policy {index} of {count}")
    try:
        chosen = np.asarray(np.arange(count)[index])
    except (IndexError, TypeError, ValueError):
        chosen = None
    if chosen is None or chosen.ndim > 1:  # None and True would add an axis
        raise FloppyError(
            f"Policies are chosen by a number, a slice, a list of numbers below {count} or {count} truth values, got "
            f"{shown(index)}."
        )
    return chosen


@jax.jit
def _row(weights: Any, index: jax.Array) -> Any:
    return jax.tree.map(lambda leaf: leaf[index], weights)


def _as_numbers(observations: Any) -> Any:
    """Observations as an array: a JAX array as it is, anything else NumPy's."""
    if isinstance(observations, jax.Array):
        return observations
    try:
        array = np.asarray(observations)
    except ValueError as error:  # lists of different lengths
        raise FloppyError("The observation must be an array of numbers, got lists of different lengths.") from error
    if array.dtype.kind not in "biuf":
        raise FloppyError(f"The observation must be an array of numbers, got {shown(observations)}.")
    if array.dtype.kind == "f" and np.isnan(array).any():  # of which the most likely action would be the first
        raise FloppyError(f"The observation must hold no NaN, got {shown(observations)}: check where it comes from.")
    return array


def _check_key(key: Any) -> None:
    if key is None or _is_key(key):
        return
    given = f"{key.dtype} of shape {list(key.shape)}" if getattr(key, "ndim", 0) else shown(key)
    raise FloppyError(f"key must be a PRNG key, such as jax.random.key(0), got {given}: one serves all observations.")


def _is_key(key: Any) -> bool:
    """Whether a value is one PRNG key, a typed or a raw one."""
    if not isinstance(key, jax.Array | np.ndarray):
        return False
    if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key.ndim == 0
    return key.dtype == np.uint32 and key.ndim == 1


def _as_given(given: Any, actions: jax.Array) -> Any:
    """Actions as NumPy's where the observations were; those of traced weights stay traced."""
    if isinstance(given, jax.Array) or isinstance(actions, jax.core.Tracer):
        return actions
    return np.array(actions)[()]


def _wrong_shape(given: Any, shape: tuple[int, ...], others: str) -> FloppyError:
    inner = ", ".join(map(str, shape))
    return FloppyError(
        f"The observation must be of shape [{inner}] or {others.format(inner)}, got {list(given.shape)}."
    )


@functools.lru_cache(maxsize=64)
def _policy_program(network: Network[Any]) -> Callable[..., jax.Array]:
    """The compiled function behind `Policy.act`. Policies keep it: to find it here takes as long as a small network."""
    rank = len(network.observation_shape)

    @jax.jit
    def act(
        weights: Any, statistics: RunningStatistics | None, observations: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        is_batch = observations.ndim > rank
        outputs = network.apply(weights, _seen(statistics, observations if is_batch else observations[None]))
        chosen = _choose(network.actions, outputs, weights.log_std, key)
        return chosen if is_batch else chosen[0]

    return act


@functools.lru_cache(maxsize=64)
def _policies_program(network: Network[Any]) -> Callable[..., jax.Array]:
    """The compiled function behind `Policies.act`."""
    one, rank = _policy_program(network), len(network.observation_shape)

    @jax.jit
    def act(
        weights: Any, statistics: RunningStatistics | None, observations: jax.Array, key: jax.Array | None
    ) -> jax.Array:
        own = 0 if observations.ndim > rank else None
        numbers = jnp.arange(weights.log_std.shape[0])
        keys = None if key is None else jax.vmap(jax.random.fold_in, (None, 0))(key, numbers)
        return jax.vmap(one, (0, None, own, 0))(weights, statistics, observations, keys)

    return act


def _seen(statistics: RunningStatistics | None, observations: jax.Array) -> jax.Array:
    """What the network reads, as in `normalise`; whole numbers become floats."""
    seen = normalise(statistics, observations)
    return seen if jnp.issubdtype(seen.dtype, jnp.floating) else seen.astype(jnp.float32)


def _choose(actions: ActionSpace, outputs: jax.Array, log_std: jax.Array, key: jax.Array | None) -> jax.Array:
    chosen = actions.most_likely(outputs) if key is None else actions.sample(key, outputs, log_std[None])
    return actions.clip(chosen)


def train(
    dataset: DistilledDataset,
    key: jax.Array | int,
    *,
    learners: int = 1,
    distribution: Learners | str | None = None,
    task: str = "",
) -> Policies:
    """Trains fresh policies on a distilled dataset, with no environment involved.

    Those of a merged dataset read the observations of all its tasks side by side and give actions for all of them, as
    the `blocks` on its card say; with `task` only its part of them is given. In place of other tasks' observations
    they take zeros, once normalised.

    Args:
      dataset: what to learn from, by the cloning recipe on its card.
      key: PRNG key of the initial weights, consumed; or a seed, `jax.random.key` of it.
      learners: `L`, how many policies. Policy `i` has the key `jax.random.split(key, L)[i]`.
      distribution: how fresh policies are drawn, or its text; by default the first distribution on the dataset's card.
      task: id of one of a merged dataset's tasks, or the dataset's own.

    Returns:
      The trained policies, weights with a leading axis `L`.

    Raises:
      FloppyError: if the dataset holds an encoder and the distribution asks for another architecture, if the card's
        recipe cannot be read, or if the dataset is not of the task.
    """
    learners = whole_number("learners", learners, most=MAX_LEARNERS)
    lesson = unpack(dataset)
    if task:
        lesson.task(task)
    drawn = None if distribution is None else as_learners(distribution)
    key, seed = _key_of(key)
    policies = _trained(lesson, (lesson.blocks,), lesson.network(drawn), key, learners)
    policies = dataclasses.replace(policies, origin=Origin(_origin(dataset), seed))
    return policies.for_task(task) if task and lesson.blocks else policies


def train_in_stages(
    dataset: DistilledDataset, key: jax.Array, stages: Sequence[Sequence[str]], *, learners: int = 1
) -> Policies:
    """Trains fresh policies on tasks of a merged dataset in stages, each with the weights that the last one ended with.

    Args:
      dataset: a merged one.
      key: PRNG key, consumed as by `train`.
      stages: of each stage the tasks that are learnt together in it, by their full ids.
      learners: `L`, how many policies.

    Returns:
      The policies after the last stage; a single stage of all tasks gives those of `train`.

    Raises:
      FloppyError: for a dataset that is not merged, or a task that it is not merged of.
    """
    lesson = unpack(dataset)
    found = [[lesson.block(task) for task in tasks] for tasks in stages]
    learnt = tuple(tuple(block for block in blocks if block is not None) for blocks in found)
    if not lesson.blocks:
        raise FloppyError(f"The dataset is of {dataset.card.task} alone, stages take several tasks: give a merged one.")
    return _trained(lesson, learnt, lesson.network(), key, learners)


def _trained(
    lesson: Lesson, stages: tuple[tuple[Block, ...], ...], network: Network[Any], key: jax.Array, learners: int
) -> Policies:
    """Fresh policies of a network, trained in stages, of no origin."""
    weights = _clone_many(lesson.cloning, network, stages, lesson.distilled, _padded(jax.random.split(key, learners)))
    return Policies(
        network,
        weights if len(weights.log_std) == learners else _first(learners, weights),
        lesson.statistics,
        lesson.per_evaluation_stats,
        lesson.dataset.card.task,
        lesson.blocks,
    )


def _key_of(key: Any) -> tuple[jax.Array, int | None]:
    """A key, and the seed that it was made of."""
    if _is_key(key):
        return key, None
    if isinstance(key, bool) or not isinstance(key, int | float | np.integer | np.floating) or key % 1:
        raise FloppyError(f"key must be one PRNG key or a whole number, got {shown(key)}.")
    seed = as_seed(key, "key")
    return jax.random.key(seed), seed


_origin = functools.lru_cache(maxsize=8)(origin)


def _padded(keys: jax.Array) -> jax.Array:
    """Keys `[L]` filled up to a power of two with others of them, so that few counts need a new compilation.

    It goes by NumPy, whose operations are not compiled for every count. Traced keys stay as they are.
    """
    count = keys.shape[0]
    rows = np.arange(1 << (count - 1).bit_length()) % count
    if len(rows) == count or isinstance(keys, jax.core.Tracer):
        return keys
    if not jnp.issubdtype(keys.dtype, jax.dtypes.prng_key):
        return jnp.asarray(np.asarray(keys)[rows])
    data = jnp.asarray(np.asarray(jax.random.key_data(keys))[rows])
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(keys))


@functools.partial(jax.jit, static_argnums=0)
def _first(count: int, weights: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[:count], weights)


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _clone_many(
    cloning: Cloning,
    network: Network[Any],
    stages: tuple[tuple[Block, ...], ...],
    distilled: Distilled,
    keys: jax.Array,
) -> Any:
    def one(key: jax.Array) -> Any:
        weights = network.init(key)
        for blocks in stages:
            weights = clone(cloning, network, distilled, weights, blocks=blocks)
        return weights

    return map_clones(cloning, one, keys)


def policy_outputs(policies: Policies, observations: jax.Array) -> jax.Array:
    """The outputs of `L` policies for raw observations.

    Args:
      policies: as `train` gives them.
      observations: `[L, k, *obs]`, `k` for each policy.

    Returns:
      `[L, k, a]`: logits of discrete actions, means of continuous ones.

    Raises:
      FloppyError: for anything but policies, and for observations of another shape.
    """
    check_policies(policies)
    wanted = (len(policies), *policies.network.observation_shape)
    if observations.ndim != len(wanted) + 1 or (observations.shape[0], *observations.shape[2:]) != wanted:
        raise FloppyError(
            f"Observations must be k of each policy's, [{wanted[0]}, k, {', '.join(map(str, wanted[1:]))}], "
            f"got {list(observations.shape)}."
        )
    return jax.vmap(policies.network.apply)(policies.weights, normalise(policies.statistics, observations))


def ensemble_outputs(policies: Policies, observations: jax.Array) -> jax.Array:
    """What the average of `L` policies puts out for raw observations.

    Args:
      policies: as `train` gives them.
      observations: `[k, *obs]`, the same for all policies (normalised already where `policies.per_evaluation_stats`).

    Returns:
      `[k, a]`: log-probabilities of discrete actions, whose exponentials are the policies' mean probabilities; or the
      mean of continuous actions.

    Raises:
      FloppyError: for anything but policies, and for observations of another shape.
    """
    check_policies(policies)
    shape = policies.network.observation_shape
    if observations.shape[1:] != shape or observations.ndim == 0:
        raise FloppyError(
            f"Observations must be [k, {', '.join(map(str, shape))}], the same for all policies, "
            f"got {list(observations.shape)}."
        )
    whole = policies.together()
    return whole.network.apply(whole.weights, normalise(policies.statistics, observations))
