"""What a dataset's card means: the only place where cards are packed from live parts and unpacked into them."""

import dataclasses
import importlib.metadata
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from floppy.cloning.base import CLONINGS, Cloning, Distilled, check_cloning, check_fits, rates_shape
from floppy.cloning.losses import check_loss
from floppy.cloning.merged import Block
from floppy.dataset.card import EPSILON, FORMAT, MERGED_FORMAT, UNITS_FORMAT, Card
from floppy.dataset.file import DistilledDataset, check_dataset
from floppy.errors import FloppyError, check_number, shown
from floppy.fields import decode, encode
from floppy.learner.distribution import describe_distribution, learners_of
from floppy.learner.network import LAYERS, Learners, Network, check_offers
from floppy.play.normalise import RunningStatistics, restored_statistics, stored_statistics
from floppy.spaces import ActionSpace, space_of
from floppy.tasks.base import Task
from floppy.tasks.check import check_own_task
from floppy.tasks.registry import make_task
from floppy.tasks.untrusted import task_of_file


@dataclasses.dataclass(frozen=True, kw_only=True)
class CardParts:
    """The live parts of a card; `pack` puts them on it, `unpack` reads them from it."""

    task: str
    """Full id; of a merged dataset those of its tasks, joined by `+`."""
    actions: ActionSpace
    cloning: Cloning
    learners: tuple[Learners, ...]
    """At least one."""
    per_evaluation_stats: bool = False
    """Whether statistics of observations start with zero in every evaluation; else they are in the file, or none."""
    encoder_of: int = 0
    """Layers of the whole network, where the file carries the first of them; 0 where it carries none."""
    blocks: tuple[Block, ...] = ()
    """Of a merged dataset."""


def pack(
    parts: CardParts, distilled: Distilled, statistics: RunningStatistics | None = None, **card: Any
) -> DistilledDataset:
    """A dataset of live parts.

    Args:
      parts: what its card says of the use of it.
      distilled: its tensors; a `log_std` of size 0 is left out.
      statistics: of observations, in the task's units, if they are stored.
      **card: the other fields of the card: `algorithm`, `command`, `versions`, `score`, `seed`, `notes`, ...

    Returns:
      The dataset, checked.
    """
    check_cloning(parts.cloning)
    layers = len(distilled.encoder)
    normaliser = "per-evaluation" if parts.per_evaluation_stats else "none" if statistics is None else "frozen"
    mean, var, epsilon = (None, None, EPSILON) if statistics is None else stored_statistics(statistics)
    actions = parts.actions.as_entry()
    has_units = "half_width" in actions or epsilon != EPSILON
    usual = MERGED_FORMAT if parts.blocks else FORMAT
    whole = Card(
        task=parts.task,
        actions=actions,
        cloning=encode(parts.cloning),
        learners=[each.as_entry() for each in parts.learners],
        normaliser=normaliser,
        encoder={"layers": layers, "of": parts.encoder_of} if layers else None,
        blocks=[dataclasses.asdict(block) for block in parts.blocks],
        epsilon=None if epsilon == EPSILON else epsilon,
        format=UNITS_FORMAT if has_units else usual,
        **card,
    )
    return DistilledDataset(
        whole,
        np.asarray(distilled.observations),
        np.asarray(distilled.targets),
        log_std=np.asarray(distilled.log_std) if distilled.log_std.size else None,
        inner_rate=np.asarray(distilled.inner_rate),
        obs_mean=mean,
        obs_var=var,
        encoder={
            f"{index}/{name}": np.asarray(array)
            for index, layer in enumerate(distilled.encoder)
            for name, array in layer.items()
        },
    )


def with_cloning(dataset: DistilledDataset, cloning: Cloning, rate: float | None = None) -> DistilledDataset:
    """A dataset that is learnt from in another way than it was made for; its score is left out.

    Args:
      dataset: any but a plain policy.
      cloning: the other way.
      rate: of its steps; by default the dataset's where the kind is the same, else what suits the kind.

    Raises:
      FloppyError: for a plain policy, a rate that is no positive number, or a loss that does not suit the actions.
    """
    check_dataset(dataset)
    check_cloning(cloning)
    check_loss(cloning.loss, space_of(dataset.card.actions))
    if dataset.card.is_plain_policy:
        raise FloppyError("The dataset is a plain policy, which nothing is cloned from: leave the cloning out.")
    if rate is not None:
        check_number("rate", rate, above=0)
    is_same_kind = dataset.card.cloning["kind"] == type(cloning).__name__
    rates: Any = (
        rate if rate is not None else dataset.inner_rate if is_same_kind else cloning.defaults()["initial_rate"]
    )
    card = dataclasses.replace(dataset.card, cloning=encode(cloning), score=None)
    rates = np.broadcast_to(np.asarray(rates, np.float32), rates_shape(cloning))
    return dataclasses.replace(dataset, card=card, inner_rate=rates)


def versions_of(*packages: str, why: str = "") -> dict[str, str]:
    """Versions of packages and of floppy itself, for a card.

    Args:
      *packages: by their distributions' names.
      why: what needs them, for the complaint, such as a task's id.

    Raises:
      FloppyError: if one of them is not installed.
    """
    found = {}
    for package in sorted({"floppy", *packages}):
        try:
            found[package] = importlib.metadata.version(DISTRIBUTION if package == "floppy" else package)
        except importlib.metadata.PackageNotFoundError as error:
            raise FloppyError(
                f"{why} has package {shown(package)}, which is not installed: give an installed one's name."
            ) from error
    return found


DISTRIBUTION = "floppy-rl"
"""The name under which this library is installed."""


class Lesson(NamedTuple):
    """A dataset's card and tensors as live parts: what a learner is taught, and by which recipe."""

    dataset: DistilledDataset
    actions: ActionSpace
    cloning: Cloning
    distilled: Distilled
    statistics: RunningStatistics | None
    """By which observations are normalised."""
    per_evaluation_stats: bool
    """Whether statistics start with zero in every evaluation."""
    blocks: tuple[Block, ...]
    """Of a merged dataset."""

    @property
    def learners(self) -> tuple[Learners, ...]:
        """The distributions on the card.

        Raises:
          FloppyError: for one that is not known here.
        """
        return card_learners(self.dataset)

    def network(self, learners: Learners | None = None) -> Network[Any]:
        """The network of a distribution, by default the card's first, for the dataset.

        Raises:
          FloppyError: if it does not fit a stored encoder, or lacks what the cloning needs.
        """
        learners = self.learners[0] if learners is None else learners
        network = learners.bind(self.dataset.observation_shape, self.actions)
        if self.blocks:
            check_offers(network, (LAYERS,), "A merged dataset")
        check_fits(self.cloning, network)
        if self.distilled.encoder:
            check_offers(network, (LAYERS,), "An encoder")
            _check_encoder(self, learners, network)
        return network

    def task(self, name: str = "") -> Task:
        """The task to be played: the dataset's own, or the named one.

        Args:
          name: of a merged dataset's tasks one; of any other dataset any task with the same spaces.

        Raises:
          FloppyError: if it is not of the dataset's shapes, or cannot be made.
        """
        block, card = self.block(name), self.dataset.card
        task = make_task(name) if name else task_of_file(card.task, card.command)
        check_own_task(task)
        shape, actions = self.dataset.observation_shape, self.actions
        if block:
            actions = block.own_actions(actions)
            is_flat = math.prod(task.observation_shape) == block.observations[1]
            shape = task.observation_shape if is_flat else block.observations[1:]
        if shape != task.observation_shape or actions.raw != task.actions:
            raise FloppyError(
                f"The dataset, of {block.task if block else card.task}, holds observations of shape {shape} and "
                f"{actions.size} action outputs, task {task.task_id} has {task.observation_shape} and "
                f"{task.actions.size}: give a task with the same spaces."
            )
        return task

    def block(self, name: str = "") -> Block | None:
        """The named task's part of a merged dataset; None if the dataset is of one task.

        Raises:
          FloppyError: if a merged dataset is not of that task, or none is named.
        """
        if not self.blocks:
            return None
        wanted = make_task(name).task_id if name else ""
        found = [block for block in self.blocks if block.task == wanted]
        if not wanted:
            names = ", ".join(block.task for block in self.blocks)
            raise FloppyError(
                f"The dataset is merged of {names}: name one of these tasks (--task), or give a dataset of one task "
                "where none can be named."
            )
        if not found:
            tasks = " and ".join(block.task for block in self.blocks)
            raise FloppyError(
                f"This is a dataset of {tasks}, not of {wanted}: give a task that it has, or another dataset."
            )
        return found[0]

    def block_statistics(self, block: Block | None, shape: tuple[int, ...]) -> RunningStatistics | None:
        """The statistics of a block's task, whose observations are of `shape`; those of the dataset without a block."""
        if block is None or self.statistics is None:
            return self.statistics
        mean, var = (block.own_statistic(part, shape) for part in (self.statistics.mean, self.statistics.var))
        return self.statistics._replace(mean=mean, var=var)


def unpack(dataset: DistilledDataset) -> Lesson:
    """The live parts of a dataset.

    Raises:
      FloppyError: for anything but a dataset, a recipe that this version does not know, or blocks that do not fit the
        tensors.
    """
    check_dataset(dataset)
    actions = space_of(dataset.card.actions)
    cloning = card_cloning(dataset)
    return Lesson(
        dataset,
        actions,
        cloning,
        _distilled(dataset, actions, cloning),
        _statistics(dataset),
        dataset.card.normaliser == "per-evaluation",
        _blocks(dataset),
    )


def card_cloning(dataset: DistilledDataset) -> Cloning:
    """The cloning recipe on the card."""
    entry = dict(dataset.card.cloning)
    kind = CLONINGS.get(entry.pop("kind"))
    if kind is None:
        raise FloppyError(
            f"The card asks for cloning by {dataset.card.cloning['kind']}: this version knows {', '.join(CLONINGS)}."
        )
    cloning: Cloning = decode(kind, entry, "card's cloning recipe")
    check_loss(cloning.loss, space_of(dataset.card.actions))
    return cloning


def card_learners(dataset: DistilledDataset) -> tuple[Learners, ...]:
    """The learner distributions on the card."""
    return tuple(learners_of(entry) for entry in dataset.card.learners)


def _distilled(dataset: DistilledDataset, actions: ActionSpace, cloning: Cloning) -> Distilled:
    if dataset.inner_rate is None and not dataset.card.is_plain_policy:
        raise FloppyError("The dataset holds no inner_rate, the rate of its cloning: write the file again with it.")
    no_std = np.zeros(actions.log_std_size, np.float32)
    rates = 1.0 if dataset.inner_rate is None else dataset.inner_rate
    _check_rates(rates, cloning)
    encoder = tuple(
        {name: jnp.asarray(dataset.encoder[f"{index}/{name}"]) for name in ("kernel", "bias")}
        for index in range(len(dataset.encoder) // 2)
    )
    return Distilled(
        jnp.asarray(dataset.observations),
        jnp.asarray(dataset.targets),
        jnp.asarray(no_std if dataset.log_std is None else dataset.log_std),
        jnp.asarray(rates, jnp.float32),
        encoder,
    )


def _check_rates(rates: ArrayLike, cloning: Cloning) -> None:
    """Checks that there is a rate for each that the cloning has."""
    if np.shape(rates) != rates_shape(cloning) and not np.isscalar(rates):
        count, names = np.size(rates), cloning.rates
        raise FloppyError(
            f"The dataset holds {count} numbers of shape {list(np.shape(rates))} as inner_rate, "
            f"{type(cloning).__name__} has {len(names)} ({', '.join(names)}): write the file again with them."
        )


def _statistics(dataset: DistilledDataset) -> RunningStatistics | None:
    if dataset.obs_mean is None or dataset.obs_var is None:
        return None
    return restored_statistics(dataset.obs_mean, dataset.obs_var, dataset.epsilon)


def _blocks(dataset: DistilledDataset) -> tuple[Block, ...]:
    """The blocks of a merged dataset, none for any other, checked against the dataset's shapes."""
    blocks = tuple(map(Block.from_entry, dataset.card.blocks))
    shape = (sum(block.rows[1] for block in blocks), sum(block.observations[1] for block in blocks))
    if blocks and dataset.observations.shape != shape:
        raise FloppyError(
            f"The card's blocks have {shape[0]} rows and {shape[1]} observation numbers, the observations are of shape "
            f"{dataset.observations.shape}: merge again."
        )
    return blocks


def _check_encoder(lesson: Lesson, learners: Learners, network: Any) -> None:
    """Checks that a distribution's first layers are those that are stored."""
    stored = lesson.learners[0]
    shapes = [layer["kernel"].shape for layer in lesson.distilled.encoder]
    wanted = network.kernel_shapes[: len(shapes)]
    if shapes != wanted or not learners.shares_layers_with(stored):
        raise FloppyError(
            f"The dataset holds an encoder of layers {shapes} for learners {describe_distribution(stored)}, "
            f"learners of layers {wanted} ({describe_distribution(learners)}) do not fit it: "
            "give the architecture on its card."
        )


__all__: Sequence[str] = ("CardParts", "Lesson", "pack", "unpack", "versions_of")
