"""Policies from a distilled dataset: the use that a dataset is made for."""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.blocks import Block, JointNetwork, clone_joint
from floppy.cloning import AdamSteps, Cloning, Distilled, GradientStep, ImplicitStep, check_loss, clone, map_clones
from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError, check_number
from floppy.learners import LearnerDistribution, Network, Weights
from floppy.normalise import RunningStatistics, normalise
from floppy.tasks.base import Continuous, Discrete, Task
from floppy.tasks.registry import make_task

MOST_LEARNERS = 1_000_000

CLONING_KINDS: dict[str, type[Cloning]] = {kind.__name__: kind for kind in (GradientStep, AdamSteps, ImplicitStep)}


class Policies(NamedTuple):
    """`L` trained policies of one network: what `train` gives and `policy_outputs` takes."""

    network: Network
    weights: Weights
    """Leaves `[L, ...]`."""
    statistics: RunningStatistics | None
    """By which observations are normalised before they reach the network."""
    afresh: bool = False
    """Whether the dataset asks for statistics that start afresh in every evaluation: there are none to apply then, and
    `policy_outputs` takes observations that the caller has normalised."""


def train(
    dataset: DistilledDataset, key: jax.Array, *, learners: int = 1, distribution: LearnerDistribution | None = None
) -> Policies:
    """Trains fresh policies on a distilled dataset, with no environment involved.

    Those of a merged dataset read the observations of all its tasks side by side and give actions for all of them, as
    the `blocks` on its card say. In place of other tasks' observations they take zeros, once normalised.

    Args:
      dataset: what to learn from, by the cloning recipe on its card.
      key: PRNG key of the initial weights, consumed.
      learners: `L`, how many policies.
      distribution: how fresh policies are drawn; by default the first distribution on the dataset's card.

    Returns:
      The trained policies, weights with a leading axis `L`.

    Raises:
      FloppyError: if the dataset holds an encoder and the distribution asks for another architecture, or if the card's
        recipe cannot be read.
    """
    check_number("learners", learners, least=1, most=MOST_LEARNERS)
    network = network_for(dataset, distribution or card_distributions(dataset)[0])
    statistics = statistics_of(dataset)
    weights = _clone_many(cloning_of(dataset), network, distilled_of(dataset), jax.random.split(key, learners))
    return Policies(network, weights, statistics, dataset.card.normaliser == "per-evaluation")


@functools.partial(jax.jit, static_argnums=(0, 1))
def _clone_many(cloning: Cloning, network: Network, distilled: Distilled, keys: jax.Array) -> Weights:
    return map_clones(cloning, lambda key: clone_fresh(cloning, network, distilled, network.init(key)), keys)


def clone_fresh(
    cloning: Cloning, network: Network, distilled: Distilled, fresh: Weights, steps: jax.Array | None = None
) -> Weights:
    """`cloning.clone`, or for a network of several tasks `blocks.clone_joint`."""
    if isinstance(network, JointNetwork):
        return clone_joint(cloning, network, distilled, fresh, steps)
    return clone(cloning, network, distilled, fresh, steps)


def policy_outputs(policies: Policies, observations: jax.Array) -> jax.Array:
    """The outputs of `L` policies: `[L, k, a]` logits or means for raw observations `[L, k, *obs]` (see `afresh`).

    Raises:
      FloppyError: for observations of another shape.
    """
    wanted = (jax.tree.leaves(policies.weights)[0].shape[0], *policies.network.observation_shape)
    if observations.ndim != len(wanted) + 1 or (observations.shape[0], *observations.shape[2:]) != wanted:
        raise FloppyError(
            f"Observations {list(observations.shape)} were given for {wanted[0]} policies: give k of each policy's, "
            f"[{wanted[0]}, k, {', '.join(map(str, wanted[1:]))}]."
        )
    return jax.vmap(policies.network.apply)(policies.weights, normalise(policies.statistics, observations))


def task_of(dataset: DistilledDataset, name: str = "") -> Task:
    """The task that the dataset was distilled from, of a merged one that of this `name`; checked against its shapes."""
    block = block_of(dataset, name)
    task = make_task(block.task if block else dataset.card.task)
    shape, actions = dataset.observation_shape, actions_of(dataset)
    if block:
        actions = block.own_actions(actions)
        is_flat = math.prod(task.observation_shape) == block.observations[1]
        shape = task.observation_shape if is_flat else block.observations[1:]
    if shape != task.observation_shape or actions != task.actions:
        raise FloppyError(
            f"The dataset holds observations of shape {shape} and {actions.size} "
            f"action outputs, task {task.task_id} has {task.observation_shape} and {task.actions.size}: "
            "was it distilled for another task?"
        )
    return task


def block_of(dataset: DistilledDataset, name: str = "") -> Block | None:
    """The part of a merged dataset that is the named task's; None if the dataset is of one task, which is the named.

    Raises:
      FloppyError: if the dataset is not of that task, or if it is merged and no task is named.
    """
    wanted = make_task(name).task_id if name else ""
    blocks = blocks_of(dataset)
    found = [block for block in blocks if block.task == wanted]
    if blocks and not wanted:
        names = ", ".join(block.task for block in blocks)
        raise FloppyError(
            f"The dataset is merged of {names}: name one of these tasks (--task), or give a dataset of one task where "
            "none can be named."
        )
    if wanted and not found and wanted != dataset.card.task:
        tasks = " and ".join(block.task for block in blocks) or dataset.card.task
        raise FloppyError(
            f"This is a dataset of {tasks}, task {wanted} was asked for: give a task that it has, or another dataset."
        )
    return found[0] if found else None


def blocks_of(dataset: DistilledDataset) -> tuple[Block, ...]:
    """The blocks of a merged dataset, none for any other, checked against the dataset's shapes."""
    blocks = tuple(map(Block.from_entry, dataset.card.blocks))
    shape = (sum(block.rows[1] for block in blocks), sum(block.observations[1] for block in blocks))
    if blocks and dataset.observations.shape != shape:
        raise FloppyError(
            f"The card's blocks have {shape[0]} rows and {shape[1]} observation numbers, the observations are of shape "
            f"{dataset.observations.shape}: merge again."
        )
    return blocks


def actions_of(dataset: DistilledDataset) -> Discrete | Continuous:
    """The action space on the card."""
    actions = dataset.card.actions
    if actions["kind"] == "discrete":
        return Discrete(actions["size"])
    return Continuous(actions["size"], tuple(actions["low"]), tuple(actions["high"]))


def cloning_of(dataset: DistilledDataset) -> Cloning:
    """The cloning recipe on the card."""
    entry = dict(dataset.card.cloning)
    kind = CLONING_KINDS.get(entry.pop("kind"))
    if kind is None:
        raise FloppyError(
            f"The card asks for cloning by {dataset.card.cloning['kind']}: "
            f"this version knows {', '.join(CLONING_KINDS)}."
        )
    cloning = _from_entry(kind, entry, "cloning recipe")
    check_loss(cloning.loss, actions_of(dataset))
    return cloning


def card_distributions(dataset: DistilledDataset) -> tuple[LearnerDistribution, ...]:
    """The learner distributions on the card."""
    return tuple(_from_entry(LearnerDistribution, entry, "learner distribution") for entry in dataset.card.learners)


def _from_entry(kind: type, entry: Mapping[str, Any], what: str) -> Any:
    """A dataclass from a card's JSON object, in which tuples have become lists."""
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := sorted(set(entry) - known):
        raise FloppyError(
            f"The card's {what} has unknown keys {', '.join(unknown)}: this version knows {sorted(known)}."
        )
    defaults = {field.name: field.default for field in dataclasses.fields(kind)}
    wrong = sorted(name for name, value in entry.items() if not _is_like(value, defaults[name]))
    if wrong:
        raise FloppyError(
            f"The card's {what} has values of the wrong type for {', '.join(wrong)}: write the file again."
        )
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in entry.items()})


def _is_like(value: Any, default: Any) -> bool:
    """Whether a value from JSON is of the type of a field's default; tuples are lists of the same length or texts."""
    if isinstance(default, tuple):
        fits = isinstance(value, list) and (isinstance(default[0], str) or len(value) == len(default))
        return fits and all(_is_like(element, default[0]) for element in value)
    if isinstance(default, float):
        return type(value) in (int, float)
    return type(value) is type(default)


def distilled_of(dataset: DistilledDataset) -> Distilled:
    """The dataset's tensors as the arrays that cloning reads."""
    if dataset.inner_rate is None and not dataset.card.is_plain_policy:
        raise FloppyError("The dataset holds no inner_rate, the rate of its cloning: write the file again with it.")
    size = dataset.card.actions["size"]
    no_std = np.zeros(size if dataset.card.actions["kind"] == "continuous" else 0, np.float32)
    layers = len(dataset.encoder) // 2
    encoder = tuple(
        {name: jnp.asarray(dataset.encoder[f"{index}/{name}"]) for name in ("kernel", "bias")}
        for index in range(layers)
    )
    return Distilled(
        jnp.asarray(dataset.observations),
        jnp.asarray(dataset.targets),
        jnp.asarray(no_std if dataset.log_std is None else dataset.log_std),
        jnp.asarray(1.0 if dataset.inner_rate is None else dataset.inner_rate, jnp.float32),
        encoder,
    )


def statistics_of(dataset: DistilledDataset) -> RunningStatistics | None:
    """The frozen normaliser, if the file carries one."""
    if dataset.obs_mean is None or dataset.obs_var is None:
        return None
    return RunningStatistics(jnp.zeros(()), jnp.asarray(dataset.obs_mean), jnp.asarray(dataset.obs_var))


def network_for(dataset: DistilledDataset, distribution: LearnerDistribution) -> Network:
    """The network of `distribution` for the dataset; a stored encoder must fit it."""
    parts = distribution, dataset.observation_shape, actions_of(dataset)
    if blocks := blocks_of(dataset):
        return JointNetwork(*parts, blocks)
    network = Network(*parts)
    encoder = distilled_of(dataset).encoder
    shapes = [layer["kernel"].shape for layer in encoder]
    wanted = network.kernel_shapes[: len(encoder)]
    stored = card_distributions(dataset)[0]
    is_same = (distribution.activation, distribution.network) == (stored.activation, stored.network)
    if encoder and (shapes != wanted or not distribution.is_fixed or not is_same):
        raise FloppyError(
            f"The dataset holds an encoder of layers {shapes} with {stored.activation} ({stored.network}), "
            f"learners of layers {wanted} with {distribution.activation} ({distribution.network}) were asked for: "
            "give the architecture on its card."
        )
    return network
