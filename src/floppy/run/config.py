"""What a run is made of: the one configuration that is the API, the command line, and what a run's folder keeps."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from floppy.cloning.base import CLONINGS, Cloning, check_cloning, check_fits
from floppy.cloning.gradient import GradientStep
from floppy.cloning.losses import check_loss
from floppy.dataset.file import MOST_BYTES
from floppy.errors import MAX_COUNT, FloppyError, must_be_one_of, shown
from floppy.fields import bounded, check_fields, decode, encode, one_of, parent_file, with_lists
from floppy.learner.distribution import parse_distributions
from floppy.learner.network import LAYERS, Learners, check_offers
from floppy.outer import OUTER_LOOPS, PPMO, OuterLoop, Problem
from floppy.outer.base import INITIAL_EXAMPLES, LABELLED_EXAMPLES, TARGETS, check_is_for, check_outer_loop
from floppy.outer.start import with_start
from floppy.tasks.base import LABELLED, Task, kind_of
from floppy.tasks.check import check_own_task
from floppy.tasks.registry import full_task_id, make_task
from floppy.teach.codec import versions_of


@dataclasses.dataclass(frozen=True)
class DistillConfig:
    """Everything that determines a distilled dataset: the same configuration gives the same dataset, bit for bit.

    Raises:
      FloppyError: when built with a value that is not allowed.
    """

    task: str
    """Task id, such as cartpole, ndcartpole/3 or gymnax/Acrobot-v1."""
    examples: int = bounded(2, least=0, most=MAX_COUNT)  # with every layer in the encoder there is none to store
    """How many synthetic examples, k."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Seed of everything random."""
    outer_steps: int = bounded(400, least=1, most=MAX_COUNT)
    """Length of the run, over which rates are annealed."""
    distribution: str = "lambda"
    """Learner distributions that the dataset is for, by comma: names, also of networks of your own, or pairs such as
    width=32..256:depth=2:initialiser=xavier."""
    initial_rate: float | tuple[float, ...] = bounded(1.0, above=0)
    """Where the inner rate starts; of a cloning with several rates one number for each of them, or one for all."""
    encoder_layers: int = bounded(0, least=0)
    """Leading layers trained in the outer loop and stored in the file (encoder rollback); all of them: nothing is
    cloned, which is plain PPO, or neuroevolution."""
    cloning: Cloning = dataclasses.field(default_factory=GradientStep)
    """How a fresh policy learns from the dataset."""
    targets: str = one_of("learned", TARGETS)
    """learned, or one-hot: fixed class labels, spread evenly over the actions."""
    initial_examples: str = one_of("normal", INITIAL_EXAMPLES)
    """Where the examples start: normal or zeros, or observations that random actions meet (random-policy), with targets
    of zero; of labelled images also class-means, or samples."""
    learned_rate: bool = True
    """Whether the inner rate is improved too."""
    held_rates: tuple[str, ...] = ()
    """Of a cloning with several rates those that stay as they start."""
    start: str = parent_file()
    """File of a dataset to begin with: its examples, rates, encoder and normaliser, in place of initial_examples and
    initial_rate. Where nothing is cloned (plain PPO), a policy cloned from its examples, or the file's own."""
    observation_deviation: float = bounded(0.0, least=0)
    """Where observations are normalised, all of them, less their means, are divided by this one number, and the means
    stay those of the first observations; 0: each is divided by its own running deviation. By that, pixels that are
    rarely anything but 0 become hundreds."""
    frozen_normaliser: bool = False
    """Where observations are normalised, whether their statistics stay those that the run begins with."""
    scaled_actions: bool = True
    """Whether policies act in units of the bounds of continuous actions, from -1 to 1; else in the task's own."""
    outer: OuterLoop = dataclasses.field(default_factory=PPMO)
    """How the dataset is improved."""
    evaluate_every: int = bounded(25, least=1, most=MAX_COUNT)
    """Outer steps between the evaluations that choose the best dataset; also those of one compiled call."""
    early_stop: bool = True
    """Whether the run ends by itself once its evaluations have stood at the task's highest return three times in a
    row."""
    selection_learners: int = bounded(64, least=1, most=MAX_COUNT)
    """Fresh learners per distribution in those evaluations."""
    selection_episodes: int = bounded(2, least=1, most=MAX_COUNT)
    """Episodes of each of these learners."""
    selection_quantile: float = bounded(0.0, least=0, most=1)
    """By which datasets are chosen beside the mean return: this quantile of the learners' own means counts as much,
    so that the worst networks count. 0: by the mean alone."""
    score_learners: int = bounded(100, least=1, most=MAX_COUNT)
    """Fresh learners per distribution in the last evaluation, which gives the card its score."""
    score_episodes: int = bounded(10, least=1, most=MAX_COUNT)
    """Episodes of each of these learners."""

    def __post_init__(self) -> None:
        """Validates the fields, and gives the task its full id."""
        check_fields(self)
        object.__setattr__(self, "task", full_task_id(self.task))
        if self.examples == 0 and self.encoder_layers == 0:
            raise FloppyError(
                "examples must be at least 1, got 0: for a plain policy give as many encoder_layers as the network has."
            )
        check_outer_loop(self.outer)
        check_cloning(self.cloning)

    def problem(self, *, awaits_files: bool = False) -> Problem:
        """The bi-level problem of this configuration, checked as a whole.

        Args:
          awaits_files: whether files that it begins with or learns from are yet to be made, to check the rest of it.

        Raises:
          FloppyError: for parts that do not go together.
        """
        task = make_task(self.task)
        versions_of(task.package, why=task.task_id)  # in time, for the card will name them
        check_own_task(task)
        check_loss(self.cloning.loss, task.actions)
        self._check_rates()
        self._check_size(task)
        learners = parse_distributions(self.distribution)
        if self.encoder_layers:
            network = learners[0].bind(task.observation_shape, task.actions)
            check_offers(network, (LAYERS,), "An encoder")
            self._check_encoder(learners)
        if self.targets == "one-hot" and task.actions.log_std_size:
            raise FloppyError(f"targets must be learned for continuous actions, as {task.task_id} has, got one-hot.")
        if self.initial_examples in LABELLED_EXAMPLES and kind_of(task) != LABELLED:
            raise FloppyError(
                f"initial_examples must be normal, zeros or random-policy for {task.task_id}, which has no labelled "
                f"examples, got {self.initial_examples}."
            )
        check_is_for(self.outer, task)
        problem = Problem(
            task=task,
            learners=learners,
            cloning=self.cloning,
            examples=self.examples,
            initial_rate=self.initial_rate,
            encoder_layers=self.encoder_layers,
            outer_steps=self.outer_steps,
            targets=self.targets,
            initial_examples=self.initial_examples,
            learned_rate=self.learned_rate,
            held_rates=self.held_rates,
            observation_deviation=self.observation_deviation,
            frozen_normaliser=self.frozen_normaliser,
            scaled_actions=self.scaled_actions,
            context=None if awaits_files else self.outer.context(task),
            awaits_files=awaits_files,
        )
        for each in learners:
            each.as_entry()  # a network without a name could not be read again
        self._check_networks(problem)
        if self.start and not awaits_files:
            problem = with_start(problem, self.start, self.seed)
        self.outer.check(problem)
        return problem

    def _check_size(self, task: Task) -> None:
        """Checks that a file can hold the examples."""
        each = 4 * (math.prod(task.observation_shape) + task.actions.size)
        if self.examples * each > MOST_BYTES:
            raise FloppyError(
                f"examples must be at most {MOST_BYTES // each} for {task.task_id}, of which a dataset's file can hold "
                f"no more, got {self.examples}."
            )

    def _check_rates(self) -> None:
        names, kind = self.cloning.rates, type(self.cloning).__name__
        if isinstance(self.initial_rate, tuple) and len(self.initial_rate) != len(names):
            raise FloppyError(
                f"initial_rate must be one number, or {len(names)} for {kind} ({', '.join(names)}), "
                f"got {len(self.initial_rate)}."
            )
        if unknown := [name for name in self.held_rates if name not in names]:
            raise must_be_one_of("held_rates", unknown[0], names)

    def _check_networks(self, problem: Problem) -> None:
        for network in problem.networks:
            if not problem.is_plain:
                check_fits(self.cloning, network)

    def _check_encoder(self, learners: tuple[Learners, ...]) -> None:
        if len(learners) > 1 or not learners[0].is_fixed:
            raise FloppyError(f"An encoder needs one distribution of fixed width and depth, got {self.distribution}.")
        layers = learners[0].layers
        if self.encoder_layers > layers:
            raise FloppyError(f"encoder_layers must be at most the network's {layers}, got {self.encoder_layers}.")
        if (self.examples == 0) != (self.encoder_layers == layers):
            raise FloppyError(
                f"examples must be 0 if and only if the encoder holds every layer, got {self.examples} with "
                f"encoder_layers = {self.encoder_layers} of {layers}."
            )

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON, with the `kind` of cloning and outer loop named."""
        return with_lists(dataclasses.asdict(self)) | {"cloning": encode(self.cloning), "outer": encode(self.outer)}

    @classmethod
    def from_dict(cls, entry: Mapping[str, Any]) -> "DistillConfig":
        """The configuration of which `as_dict` gave the entry; fields left out have their defaults.

        Raises:
          FloppyError: for unknown kinds or fields, and values that are not allowed.
        """
        fields = dict(entry)
        outer_loops = {kind.__name__: kind for kind in OUTER_LOOPS.values()}
        for name, kinds in (("cloning", CLONINGS), ("outer", outer_loops)):
            if name not in fields:
                continue
            if not isinstance(fields[name], Mapping):
                raise FloppyError(
                    f"A configuration's {name} must be an object with its kind, got {shown(fields[name])}."
                )
            part = dict(fields[name])
            if (kind := part.pop("kind", None)) not in kinds:
                raise must_be_one_of(f"{name}'s kind", kind, kinds)
            fields[name] = decode(kinds[kind], part, f"configuration's {name}")
        if unknown := sorted(fields.keys() - {field.name for field in dataclasses.fields(cls)}):
            raise FloppyError(f"A configuration has no {', '.join(unknown)}: give fields of DistillConfig.")
        return cls(**fields)
