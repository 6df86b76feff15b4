"""The contract of an outer loop, and the bi-level problem that it is given."""

import dataclasses
from collections.abc import Hashable
from typing import Any, ClassVar, Protocol

import jax
import jax.numpy as jnp
import numpy as np
import optax

from floppy.cloning.base import Cloning, Distilled, clone, map_clones, rates_shape
from floppy.cloning.losses import LOSSES
from floppy.errors import FloppyError, page, shown
from floppy.fields import Registry, is_frozen_dataclass
from floppy.keys import named_key
from floppy.learner.network import Learners, Network
from floppy.outer.history import History
from floppy.play.arena import Arena
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics, normalise, with_one_deviation
from floppy.spaces import ActionSpace
from floppy.tasks.base import EPISODIC, LABELLED, Task, kind_of

Parameters = dict[str, Any]
"""Improved parts of θ by their names in `Distilled`."""

Info = dict[str, jax.Array]
"""Named scalars that a step reports; the same names stand in the log and in the docs."""


MIN_INNER_RATE = 1e-6
TARGETS = ("learned", "one-hot")
LABELLED_EXAMPLES = ("class-means", "samples")
INITIAL_EXAMPLES = ("normal", "zeros", "random-policy", *LABELLED_EXAMPLES)
LABEL_SMOOTHING = 0.1
"""Share of the probability of learned class labels that is spread over all classes at the start."""
INITIAL_LOGIT_GAP = 10.0
"""How far a learned logit of the right class is above the others at the start: answers are scored by their likelihood,
and end about there."""


@dataclasses.dataclass(frozen=True)
class Start:
    """A dataset to begin with. It is known by its origin, so that compiled functions can hold it as a constant."""

    origin: str
    """The task of its file, and `sha256:` with the file's digest, as on a card under `parents`."""
    history: History
    distilled: Distilled = dataclasses.field(compare=False, repr=False)
    statistics: RunningStatistics | None = dataclasses.field(compare=False, repr=False)
    seed: int | None = None
    """Of the fresh network that learned from the dataset, where its clone is what the run begins with."""


@dataclasses.dataclass(frozen=True)
class Problem:
    """What is distilled, for whom: everything but the way in which the dataset is improved."""

    task: Task
    learners: tuple[Learners, ...]
    """Mixture with equal shares."""
    cloning: Cloning
    examples: int
    """`k`."""
    initial_rate: float | tuple[float, ...]
    """Where the inner rate η starts, or each of the cloning's rates; one number stands for all of them."""
    encoder_layers: int
    """`l` leading layers are trained in the outer loop and given to every learner; all of them: plain PPO, or direct
    neuroevolution."""
    outer_steps: int
    """Length of the run, over which rates are annealed."""
    targets: str = "learned"
    """`learned`, or `one-hot`: fixed class labels, spread evenly over the actions."""
    initial_examples: str = "normal"
    """Where the examples start: see `init_distilled`."""
    learned_rate: bool = True
    """Whether η is improved too."""
    held_rates: tuple[str, ...] = ()
    """Those of the cloning's rates that are not improved all the same."""
    observation_deviation: float = 0.0
    """By which observations are divided where they are normalised; 0: each by its own running deviation."""
    scaled_actions: bool = True
    """Whether policies act in units of the actions' bounds."""
    frozen_normaliser: bool = False
    """Whether statistics of observations stay those that the run begins with, whatever they are divided by."""
    start: Start | None = None
    """The dataset that the run begins with, in place of fresh examples."""
    context: Hashable = None
    """What the outer loop has read for the problem, see `OuterLoop.context`. It lives here, as compiled functions know
    the problem by its hash."""
    awaits_files: bool = False
    """Whether `start` and what `context` reads are yet to be made: the problem is to be checked, not to be run."""

    @property
    def networks(self) -> tuple[Network[Any], ...]:
        """One per member of the mixture."""
        return tuple(each.bind(self.task.observation_shape, self.actions) for each in self.learners)

    @property
    def actions(self) -> ActionSpace:
        """The task's, in the units in which policies act."""
        return self.task.actions.in_units if self.scaled_actions else self.task.actions

    @property
    def reads_log_std(self) -> bool:
        """Whether `log_std` is of use: as a target of mse, or as the policy's own where nothing is cloned."""
        return LOSSES[self.cloning.loss].reads_log_std or self.is_plain

    @property
    def is_plain(self) -> bool:
        """Whether the encoder holds every layer, so that nothing is cloned: plain PPO, or direct neuroevolution."""
        return 0 < self.encoder_layers == self.learners[0].layers

    @property
    def moves_readout_alone(self) -> bool:
        """Whether clones of one fresh learner differ in their output layer alone."""
        return self.cloning.moves_readout_alone and not self.encoder_layers

    def share(self, count: int, what: str) -> int:
        """How many of `count` learners each distribution of the mixture gets."""
        groups = len(self.learners)
        if count % groups:
            raise FloppyError(
                f"{count} {what} cannot be shared equally by {groups} learner distributions: "
                f"give a multiple of {groups}."
            )
        return count // groups

    def draw(self, network: Network[Any], key: jax.Array) -> Any:
        """A fresh learner; layers that the encoder gives are left out: nothing reads them, and they can be large."""
        weights, given = network.init(key), self.encoder_layers
        if not given:
            return weights
        return network.with_layers(network.without_layers(weights, given), ({},) * given)  # type: ignore[attr-defined]

    @property
    def freezes_statistics(self) -> bool:
        """Whether statistics of observations stay those that a run begins with."""
        return self.frozen_normaliser or self.observation_deviation > 0

    @property
    def knows_statistics(self) -> bool:
        """Whether statistics of observations are needed at once, as no running ones follow or examples are in them."""
        return self.freezes_statistics or self.start is not None or self.initial_examples == "random-policy"

    def check_normaliser(self, *, normalises: bool) -> None:
        """Checks that a loop which normalises observations, or does not, can have what is asked for.

        Raises:
          FloppyError: if it cannot.
        """
        if self.observation_deviation and not normalises:
            raise FloppyError(
                f"observation_deviation must be 0 where observations are not normalised, got "
                f"{self.observation_deviation:g}: give --normalise-observations."
            )
        if self.start and (self.start.statistics is not None) != normalises:
            has, no = ("has no", "no-") if normalises else ("has a", "")
            raise FloppyError(
                f"The dataset to start from {has} normaliser of observations: give --{no}normalise-observations."
            )

    def first_statistics(self, arena: Arena[Any], key: jax.Array) -> RunningStatistics:
        """Statistics that a run begins with where it normalises: its start's, or of what random actions meet."""
        if self.start and self.start.statistics:
            return self.start.statistics
        return self.in_one_deviation(arena.warm_up(self.task, key))

    def in_one_deviation(self, statistics: RunningStatistics) -> RunningStatistics:
        """Statistics with the deviation that is asked for, if one is."""
        return with_one_deviation(statistics, self.observation_deviation) if self.observation_deviation else statistics

    def init_distilled(
        self, key: jax.Array, statistics: RunningStatistics | None = None, arena: Arena[Any] = ON_DEVICE
    ) -> Distilled:
        """The dataset before the first step: the one to start from, or a fresh one.

        Observations and learned targets are standard `normal`, or `zeros`; with `random-policy` the observations are
        seen under random actions, normalised by `statistics`, and the targets zeros, which ask for no action in
        particular.
        With `class-means` and `samples` they are what they say, of labelled examples in classes spread evenly, and the
        targets their labels, as probabilities or as logits around 0. The encoder is fresh.
        """
        if self.start:
            return self.start.distilled
        seen: Any = None
        if self.initial_examples == "random-policy":
            seen = arena.random_observations(self.task, named_key(key, "random policy"), self.examples)
        if self.initial_examples in LABELLED_EXAMPLES and self.examples:
            own_key, means = named_key(key, self.initial_examples), self.initial_examples == "class-means"
            seen = arena.examples_of_classes(self.task, own_key, self._classes, means=means)
        start: Distilled = arena.compiled(Problem._init_distilled)(self, key, statistics, seen)
        return start

    def fitness(
        self,
        distilled: Distilled,
        key: jax.Array,
        arena: Arena[Any] = ON_DEVICE,
        *,
        learners: int,
        episodes: int,
        statistics: RunningStatistics | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """How well fresh learners play that are cloned from a dataset.

        Args:
          distilled: the dataset.
          key: PRNG key, consumed.
          arena: where they play.
          learners: in total, shared equally by the distributions.
          episodes: per learner.
          statistics: by which observations are normalised.

        Returns:
          `[]` mean undiscounted return (of labelled images the arena's own measure), and `[]` environment steps taken.
        """
        share, returns, steps = self.share(learners, "learners"), [], []
        for group, network in enumerate(self.networks):
            own_key = named_key(key, f"fitness {group}")
            weights, keys = arena.compiled(Problem._clones, static=3)(self, group, share, distilled, own_key)
            played = arena.fitness(self.task, network, weights, keys, episodes=episodes, statistics=statistics)
            returns.append(jnp.mean(played.returns))
            steps.append(jnp.sum(played.steps))
        return jnp.mean(jnp.stack(returns)), jnp.sum(jnp.stack(steps))

    def _clones(self, group: int, count: int, distilled: Distilled, key: jax.Array) -> tuple[Any, jax.Array]:
        """Trained learners `[count]` of a member of the mixture, and keys for their play."""
        network = self.networks[group]

        def one(key: jax.Array) -> Any:
            return clone(self.cloning, network, distilled, self.draw(network, named_key(key, "learner")))

        keys = jax.random.split(key, count)
        return map_clones(self.cloning, one, keys), jax.vmap(lambda k: named_key(k, "play"))(keys)

    @property
    def _takes_probabilities(self) -> bool:
        return LOSSES[self.cloning.loss].takes_probabilities

    @property
    def _target_unit(self) -> float:
        """How large learned logits are; steps of an optimiser are made for numbers around 1."""
        return INITIAL_LOGIT_GAP if kind_of(self.task) == LABELLED else 1.0

    @property
    def _classes(self) -> np.ndarray:
        """`[k]`: a class per example, spread evenly."""
        return np.arange(self.examples) * self.task.actions.size // max(self.examples, 1)

    def _init_distilled(
        self, key: jax.Array, statistics: RunningStatistics | None, seen: jax.Array | None
    ) -> Distilled:
        actions = self.task.actions
        observations = jax.random.normal(named_key(key, "observations"), (self.examples, *self.task.observation_shape))
        targets = jax.random.normal(named_key(key, "targets"), (self.examples, actions.size))
        if self.initial_examples == "zeros":
            observations, targets = jnp.zeros_like(observations), jnp.zeros_like(targets)
        if seen is not None:
            observations, targets = normalise(statistics, seen), jnp.zeros_like(targets)
        one_hot = jax.nn.one_hot(self._classes, actions.size)
        if self.initial_examples in LABELLED_EXAMPLES:
            is_probability = self._takes_probabilities
            probabilities = (1 - LABEL_SMOOTHING) * one_hot + LABEL_SMOOTHING / actions.size
            logits = INITIAL_LOGIT_GAP * (one_hot - 1 / actions.size)
            targets = jnp.log(probabilities) if is_probability else logits
        if self.targets == "one-hot":
            targets = one_hot
        elif self._takes_probabilities:
            targets = jax.nn.softmax(targets)
        log_std = jnp.zeros(actions.log_std_size)
        encoder: Any = ()
        if self.encoder_layers:
            network: Any = self.networks[0]
            encoder = network.layers(network.init(named_key(key, "encoder")))[: self.encoder_layers]
        rates = jnp.broadcast_to(jnp.asarray(self.initial_rate, jnp.float32), rates_shape(self.cloning))
        return Distilled(observations, targets, log_std, rates, encoder)

    def parameters(self, distilled: Distilled) -> Parameters:
        """The part of θ that is improved, in coordinates in which every real number is allowed.

        The inner rate goes by its logarithm, so that a step changes it by a factor (the published code steps η itself,
        which from a small start falls to its floor). Class probabilities, the targets of cross-entropy, go by
        their logarithms too, and so stay probabilities.
        """
        free: Parameters = {"observations": distilled.observations, "encoder": distilled.encoder}
        if self.reads_log_std:
            free["log_std"] = distilled.log_std
        if self.targets == "learned":
            is_probability = self._takes_probabilities
            free["targets"] = jnp.log(distilled.targets) if is_probability else distilled.targets / self._target_unit
        if learned := self._learned_rates:
            rates = jnp.log(distilled.inner_rate)
            free["inner_rate"] = rates if len(learned) == len(self.cloning.rates) else rates[jnp.array(learned)]
        return free

    def distilled(self, parameters: Parameters, fixed: Distilled) -> Distilled:
        """θ from what `parameters` gave; what is not improved comes from `fixed`."""
        changed = dict(parameters)
        if "targets" in changed:
            free = changed["targets"]
            changed["targets"] = jax.nn.softmax(free) if self._takes_probabilities else free * self._target_unit
        if "inner_rate" in changed:
            rates, learned = jnp.exp(changed["inner_rate"]), self._learned_rates
            all_learned = len(learned) == len(self.cloning.rates)
            changed["inner_rate"] = rates if all_learned else fixed.inner_rate.at[jnp.array(learned)].set(rates)
        return fixed._replace(**changed)

    def improved(self, parameters: Parameters, fixed: Distilled) -> Distilled:
        """As `distilled`, for the end of a step: an inner rate that a step made too small is put back to the least."""
        distilled = self.distilled(parameters, fixed)
        return distilled._replace(inner_rate=jnp.maximum(distilled.inner_rate, MIN_INNER_RATE))

    def rates(self, distilled: Distilled) -> Info:
        """The cloning's rates by their names, for the log."""
        return dict(zip(self.cloning.rates, distilled.inner_rate.reshape(-1), strict=True))

    @property
    def _learned_rates(self) -> list[int]:
        """Places of the rates that are improved."""
        if not self.learned_rate:
            return []
        return [place for place, name in enumerate(self.cloning.rates) if name not in self.held_rates]


class OuterLoop(Protocol):
    """Improves a distilled dataset step by step. Implementations are frozen dataclasses: they are the configuration.

    `state` is a pytree of arrays: it can be saved, sharded and compared. Register one of your own with
    `register_outer_loop`.
    """

    name: ClassVar[str]
    """The method's, as on the command line and the card."""
    kinds: ClassVar[tuple[str, ...]]
    """Kinds of tasks that it is for."""

    def context(self, task: Task) -> Hashable:
        """What the loop reads from files before it starts, such as a teacher; it becomes `problem.context`."""

    def parents(self, problem: Problem) -> list[str]:
        """Datasets that took part, for the card: each the task, and `sha256:` with the digest of its file."""

    def check(self, problem: Problem) -> None:
        """Checks that it can improve a problem, before anything runs.

        Raises:
          FloppyError: saying what does not fit.
        """

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> Any:
        """The state before the first step.

        Args:
          problem: what is distilled, for whom.
          key: PRNG key, consumed.
          arena: where policies play.

        Returns:
          A pytree of arrays, for `step`, which gives one of the same structure, shapes and types.
        """

    def step(self, problem: Problem, state: Any, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> tuple[Any, Info]:
        """One outer step.

        It is written as pieces with play in between. On the device it is pure, so that many run in one compiled call.
        On the host the arena compiles the pieces, each of them pure, and Python plays.

        Args:
          problem: what is distilled, for whom.
          state: as `init` or the step before gave it.
          key: PRNG key of this step, consumed.
          arena: where policies play.

        Returns:
          The next state, and figures by name, `env_steps` among them.
        """

    def restarted(self, state: Any) -> Any:
        """The state for environments that begin new episodes, as live ones do when a run is resumed."""

    def distilled(self, state: Any) -> Distilled:
        """The dataset as it stands."""

    def statistics(self, state: Any) -> RunningStatistics | None:
        """The observation normaliser as it stands, if there is one."""


class OuterLoopDefaults:
    """What most outer loops are like; one of your own may inherit it."""

    kinds: ClassVar[tuple[str, ...]] = (*EPISODIC, LABELLED)

    def context(self, task: Task) -> Hashable:
        """Nothing: the loop reads no files."""
        del task
        return None

    def parents(self, problem: Problem) -> list[str]:
        """None: no other dataset takes part."""
        del problem
        return []

    def check(self, problem: Problem) -> None:
        """Any problem will do."""

    def restarted(self, state: Any) -> Any:
        """The state as it is: no episode runs on across steps."""
        return state

    def statistics(self, state: Any) -> RunningStatistics | None:
        """Observations are not normalised."""
        del state
        return None


OUTER_LOOPS: Registry[type[Any]] = Registry("outer loop")
"""Outer loops by name."""


def register_outer_loop(kind: type[Any]) -> type[Any]:
    """Adds an outer loop (a decorator): configurations, cards and the command line know it by its `name`.

    Raises:
      FloppyError: if it is no frozen dataclass, lacks a part of the contract, or has another loop's name.
    """
    if not is_frozen_dataclass(kind):
        raise FloppyError(f"An outer loop must be a frozen dataclass, got {shown(kind)}.")
    parts = ("name", "kinds", "context", "parents", "check", "init", "step", "restarted", "distilled", "statistics")
    if missing := [part for part in parts if not hasattr(kind, part)]:
        raise FloppyError(
            f"{kind.__name__} lacks {', '.join(missing)} of the contract ({page('Your own outer loop')})."
        )
    name = str(getattr(kind, "name", ""))
    if taken := [known for known, each in OUTER_LOOPS.items() if each.__name__ == kind.__name__ and known != name]:
        raise FloppyError(
            f"An outer loop of class {kind.__name__} is registered as {taken[0]}: name the class otherwise."
        )
    OUTER_LOOPS.register(name, kind)
    return kind


def check_info(outer: OuterLoop, info: Any) -> None:
    """Checks that the figures of a step can stand in a log.

    Raises:
      FloppyError: if they are no scalars by name, with `env_steps` among them.
    """
    must = f"The step of outer loop {outer.name} must report scalars by name, env_steps among them, got"
    if not isinstance(info, dict) or "env_steps" not in info:
        raise FloppyError(f"{must} {shown(sorted(map(str, info)) if isinstance(info, dict) else info)}.")
    for name, value in info.items():
        if not isinstance(value, int | float | np.number | np.bool_ | np.ndarray | jax.Array):
            raise FloppyError(f"{must} {name} = {shown(value)}.")
        if np.shape(value):
            raise FloppyError(f"{must} {name} of shape {np.shape(value)}.")


def is_for(outer: OuterLoop | type[Any], task: Task) -> bool:
    """Whether an outer loop, or all of a class, can improve datasets for tasks of this kind."""
    return kind_of(task) in outer.kinds


def check_is_for(outer: OuterLoop, task: Task) -> None:
    """Checks that an outer loop is for tasks of this kind.

    Raises:
      FloppyError: if it is not; it lists those that are.
    """
    if not is_for(outer, task):
        lacks = "episodes" if kind_of(task) == LABELLED else "labelled examples"
        others = ", ".join(name for name, kind in OUTER_LOOPS.items() if is_for(kind, task))
        raise FloppyError(
            f"Outer loop {outer.name} needs {lacks}, {task.task_id} has none: choose one of {others} (--outer)."
        )


def check_outer_loop(outer: Any) -> None:
    """Checks that an outer loop is registered.

    Raises:
      FloppyError: if it is not.
    """
    if OUTER_LOOPS.get(getattr(outer, "name", "")) is not type(outer):
        names = ", ".join(kind.__name__ for kind in OUTER_LOOPS.values())
        raise FloppyError(
            f"outer must be one of {names}, as recipe(task, 'hades') has one, got {shown(outer)}: register a loop of "
            "your own with floppy.register_outer_loop."
        )


def updates_made(optimiser: optax.OptState) -> jax.Array:
    """How many updates `[]` int an optimiser has made: that of `optax.chain(clip_by_global_norm(...), adam(...))`."""
    count: jax.Array = optimiser[1][0].count
    return count
