"""Imitation: a dataset whose clones do as a teacher does, where clones are (DAgger; Ross et al., 2011)."""

import dataclasses
import math
from functools import partial
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from floppy.cloning import Distilled, clone
from floppy.cloning.losses import LOSSES
from floppy.errors import MAX_COUNT, FloppyError
from floppy.fields import bounded, check_fields, parent_file
from floppy.files import MEBIBYTE, size_text
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.outer.base import Info, OuterLoopDefaults, Problem, register_outer_loop
from floppy.outer.teacher import Teacher, read_teacher, teacher_of
from floppy.play.arena import Arena, Trajectory, statistics_of_batch
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics, as_floats, normalise
from floppy.spaces import ActionSpace
from floppy.tasks.base import EPISODIC, Task, observes_bytes

MOST_BYTES = 1024 * MEBIBYTE
"""Of the ring, of which every checkpoint holds a copy."""


class ImitationState(NamedTuple):
    """Everything that the next outer step depends on."""

    distilled: Distilled
    optimiser: optax.OptState
    states: jax.Array
    """`[states, *obs]`, raw: where the teacher is asked, the latest in place of the oldest."""
    place: jax.Array
    """`[]` int: where the next of them go."""
    environments: tuple[Any, ...]
    """Per member of the learner mixture, `[clones, environments]`."""
    statistics: RunningStatistics | None
    """Of the first states, if observations are normalised."""
    unreported: jax.Array
    """`[]`: environment steps that the first states took, until a step has reported them."""


@register_outer_loop
@dataclasses.dataclass(frozen=True)
class Imitation(OuterLoopDefaults):
    """Outer loop by imitation of a teacher's policy, through the cloning, where fresh clones are.

    The examples start at states of the teacher. Each outer step makes a number of updates, each with a fresh network:
    the gradient of the KL divergence from the teacher to its clone, on states from a ring. Then clones and teacher play
    in turns, and the states that they meet take the place of the oldest in the ring. No reward is read.
    """

    name: ClassVar[str] = "imitation"
    kinds: ClassVar[tuple[str, ...]] = EPISODIC
    teacher: str = parent_file()
    """File of the dataset whose policy is imitated, as plain PPO makes one. It must be given."""
    updates: int = bounded(100, least=1, most=MAX_COUNT)
    """Of the dataset, per outer step."""
    learners: int = bounded(1, least=1, most=MAX_COUNT)
    """Fresh learners per update, in equal shares over the learner distributions."""
    batch_size: int = bounded(256, least=1, most=MAX_COUNT)
    """States on which each of them is compared with the teacher."""
    rate: float = bounded(1e-2, above=0)
    """Adam's rate."""
    rate_held: float = bounded(0.2, least=0, most=1)
    """Share of the run for which the rate stays."""
    rate_end: float = bounded(0.02, least=0, most=1)
    """Multiple of the rate to which it then falls, linearly."""
    adam_decays: tuple[float, float] = bounded((0.9, 0.99), least=0, most=0.9999)
    """Of Adam's first and second moments, per update."""
    adam_eps: float = bounded(1e-8, above=0)
    """Adam's eps."""
    max_grad_norm: float = bounded(1.0, above=0)
    """The gradient is scaled down to this norm."""
    states: int = bounded(61_440, least=1, most=MAX_COUNT)
    """Size of the ring; rounded up to whole steps of all environments."""
    random_actions: float = bounded(0.8, least=0, most=1)
    """At first the teacher plays alone, and takes random actions: in the environments shares from 0 to this one."""
    clones: int = bounded(4, least=1, most=MAX_COUNT)
    """Clones that play after the updates of an outer step, in equal shares over the learner distributions."""
    environments: int = bounded(16, least=1, most=MAX_COUNT)
    """Environments per clone."""
    horizon: int = bounded(32, least=1, most=MAX_COUNT)
    """Steps per environment and outer step."""
    teacher_shares: tuple[float, ...] = bounded((0.0, 0.0, 0.5, 0.9), least=0, most=1)
    """How often the teacher acts in a clone's place, by equal parts of the environments."""
    largest_target: float = bounded(3.0, above=0)
    """Targets of discrete actions start at the teacher's logits, less their mean, and cut at this size."""
    normalise_observations: bool = True
    """Whether observations are scaled by statistics of the first states, which the file then carries."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        if not self.teacher_shares:
            raise FloppyError("teacher_shares must be one share at least, got none.")

    def context(self, task: Task) -> Teacher | None:
        """The teacher."""
        return read_teacher(self.teacher, task) if self.teacher else None

    def check(self, problem: Problem) -> None:
        """Checks that there are a teacher, and targets that can be those of one."""
        if not problem.awaits_files:
            _teacher(problem)
        each = 1 if observes_bytes(problem.task) else 4
        size = each * self.states * math.prod(problem.task.observation_shape)
        if size > MOST_BYTES:
            raise FloppyError(
                f"states must be at most {self.states * MOST_BYTES // size} for observations of shape "
                f"{problem.task.observation_shape}, got {self.states}: they would take {size_text(size)}."
            )
        if problem.targets != "learned":
            raise FloppyError(f"targets must be learned for imitation, got {problem.targets}.")
        if problem.initial_examples != "normal":
            raise FloppyError(
                "initial_examples must be normal for imitation, whose examples start at states of the teacher, got "
                f"{problem.initial_examples}: give --initial-examples normal."
            )
        problem.check_normaliser(normalises=self.normalise_observations)
        problem.share(self.learners, "learners per update")
        problem.share(self.clones, "clones")

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> ImitationState:
        """The state before the first outer step: the teacher has played."""
        share, groups = problem.share(self.clones, "clones"), len(problem.learners)
        environments = tuple(
            arena.start_environments(problem.task, named_key(key, f"environments {group}"), share, self.environments)
            for group in range(groups)
        )
        start = problem.init_distilled(named_key(key, "distilled"), arena=arena)
        idle = arena.compiled(self._clone, static=2)(problem, share, start, named_key(key, "clones"))
        shares = jnp.linspace(0.0, self.random_actions, self.environments)
        steps = -(-self.states // (self.clones * self.environments))
        environments, trajectories = self._play(
            problem, arena, environments, idle, None, (jnp.ones(self.environments), shares), steps, key
        )
        return arena.compiled(self._begin)(problem, start, environments, trajectories, key)

    def step(
        self, problem: Problem, state: ImitationState, key: jax.Array, arena: Arena[Any] = ON_DEVICE
    ) -> tuple[ImitationState, Info]:
        """One outer step: updates, then play by clones and teacher."""
        state, info = arena.compiled(self._improve)(problem, state, key)
        share = problem.share(self.clones, "clones")
        cloned = arena.compiled(self._clone, static=2)(problem, share, state.distilled, named_key(key, "clones"))
        parts = jnp.arange(self.environments) * len(self.teacher_shares) // self.environments
        shares = jnp.array(self.teacher_shares)[parts], jnp.zeros(self.environments)
        environments, trajectories = self._play(
            problem, arena, state.environments, cloned, state.statistics, shares, self.horizon, key
        )
        state, played = arena.compiled(self._remember)(problem, state, trajectories)
        return state._replace(environments=environments), info | played

    def distilled(self, state: ImitationState) -> Distilled:
        """The dataset as it stands."""
        return state.distilled

    def statistics(self, state: ImitationState) -> RunningStatistics | None:
        """Those of the first states, if observations are normalised."""
        return state.statistics

    def _play(
        self,
        problem: Problem,
        arena: Arena[Any],
        environments: tuple[Any, ...],
        weights: tuple[Any, ...],
        statistics: RunningStatistics | None,
        shares: tuple[jax.Array, jax.Array],
        steps: int,
        key: jax.Array,
    ) -> tuple[tuple[Any, ...], tuple[Trajectory, ...]]:
        """Steps of policies in turns with the teacher; `shares [environments]` of it, and of random actions."""
        collected = [
            arena.collect(
                problem.task,
                _Turns(network, _teacher(problem)),  # type: ignore[arg-type]
                _turn_weights(weights[group], statistics, shares),
                environments[group],
                named_key(key, f"collect {group}"),
                steps=steps,
            )
            for group, network in enumerate(problem.networks)
        ]
        after, trajectories = zip(*collected, strict=True)
        return after, trajectories

    def _draw(self, problem: Problem, count: int, key: jax.Array) -> tuple[Any, ...]:
        """Fresh learners `[count]` per member of the mixture."""
        return tuple(
            jax.vmap(partial(problem.draw, network))(jax.random.split(named_key(key, f"learners {group}"), count))
            for group, network in enumerate(problem.networks)
        )

    def _clone(self, problem: Problem, count: int, distilled: Distilled, key: jax.Array) -> tuple[Any, ...]:
        """Clones `[count]` per member of the mixture."""
        return tuple(
            jax.vmap(lambda w, n=network: clone(problem.cloning, n, distilled, w))(fresh)
            for network, fresh in zip(problem.networks, self._draw(problem, count, key), strict=True)
        )

    def _begin(
        self,
        problem: Problem,
        start: Distilled,
        environments: tuple[Any, ...],
        trajectories: tuple[Trajectory, ...],
        key: jax.Array,
    ) -> ImitationState:
        """The examples are states of the ring with the teacher's answers."""
        states = _observations(problem, trajectories)
        if problem.start:
            distilled, statistics = start, problem.start.statistics
        else:
            known = statistics_of_batch(states)
            statistics = problem.in_one_deviation(known) if self.normalise_observations else None
            distilled = self._first_examples(problem, start, states, statistics, key) if problem.examples else start
        optimiser = self._optimiser(problem).init(problem.parameters(distilled))
        taken, place = jnp.asarray(len(states), jnp.float32), jnp.zeros((), jnp.int32)
        return ImitationState(distilled, optimiser, states, place, environments, statistics, taken)

    def _first_examples(
        self,
        problem: Problem,
        start: Distilled,
        states: jax.Array,
        statistics: RunningStatistics | None,
        key: jax.Array,
    ) -> Distilled:
        """The dataset with random states of the ring, and the teacher's answers."""
        chosen = states[jax.random.choice(named_key(key, "examples"), len(states), (problem.examples,))]
        targets = self._first_targets(problem, _teacher(problem).outputs(chosen, problem.actions))
        return start._replace(observations=normalise(statistics, chosen), targets=targets)

    def _first_targets(self, problem: Problem, outputs: jax.Array) -> jax.Array:
        if problem.actions.log_std_size:
            return outputs
        centred = outputs - jnp.mean(outputs, axis=1, keepdims=True)
        targets = jnp.clip(centred, -self.largest_target, self.largest_target)
        return jax.nn.softmax(targets) if LOSSES[problem.cloning.loss].takes_probabilities else targets

    def _improve(self, problem: Problem, state: ImitationState, key: jax.Array) -> tuple[ImitationState, Info]:
        """The updates of an outer step; figures are means over them, but for those that were passed over."""

        def update(
            carry: tuple[Distilled, optax.OptState], key: jax.Array
        ) -> tuple[tuple[Distilled, optax.OptState], Info]:
            distilled, optimiser = carry
            parameters = problem.parameters(distilled)
            loss = partial(self._loss, problem, state, key)
            apart, gradient = jax.value_and_grad(lambda free: loss(problem.distilled(free, distilled)))(parameters)
            change, optimiser = self._optimiser(problem).update(gradient, optimiser)
            distilled = problem.improved(optax.apply_updates(parameters, change), distilled)
            return (distilled, optimiser), {"teacher_kl": apart, "gradient_norm": optax.tree.norm(gradient)}

        keys = jax.random.split(named_key(key, "updates"), self.updates)
        (distilled, optimiser), info = jax.lax.scan(update, (state.distilled, state.optimiser), keys)
        state = state._replace(distilled=distilled, optimiser=optimiser)
        return state, jax.tree.map(_mean_of_finite, info) | problem.rates(distilled)

    def _loss(self, problem: Problem, state: ImitationState, key: jax.Array, distilled: Distilled) -> jax.Array:
        """Mean KL divergence (nats) from the teacher to fresh clones, on states that are drawn for each of them."""
        count, teacher = problem.share(self.learners, "learners per update"), _teacher(problem)
        deviations, losses = teacher.log_std_for(problem.actions), []
        for group, cloned in enumerate(self._clone(problem, count, distilled, key)):
            rows = jax.random.randint(named_key(key, f"rows {group}"), (count, self.batch_size), 0, len(state.states))
            seen = state.states[rows]
            outputs = jax.vmap(problem.networks[group].apply)(cloned, normalise(state.statistics, seen))
            wanted = teacher.outputs(seen, problem.actions)
            losses.append(jnp.mean(problem.actions.kl(wanted, deviations, outputs, cloned.log_std[:, None])))
        return jnp.mean(jnp.stack(losses))

    def _remember(
        self, problem: Problem, state: ImitationState, trajectories: tuple[Trajectory, ...]
    ) -> tuple[ImitationState, Info]:
        """Puts the latest states in the place of the oldest."""
        size, every = len(state.states), _observations(problem, trajectories)
        latest = every[-size:]
        places = (state.place + jnp.arange(len(latest))) % size
        after = state._replace(
            states=state.states.at[places].set(latest),
            place=(state.place + len(latest)) % size,
            unreported=jnp.zeros_like(state.unreported),
        )
        return after, {"env_steps": state.unreported + float(len(every))}

    def _optimiser(self, problem: Problem) -> optax.GradientTransformation:
        total = problem.outer_steps * self.updates
        held = round(self.rate_held * total)
        schedule = optax.linear_schedule(self.rate, self.rate_end * self.rate, max(1, total - held), held)
        decays = self.adam_decays
        adam = optax.adam(schedule, b1=decays[0], b2=decays[1], eps=self.adam_eps)
        limited = optax.chain(optax.clip_by_global_norm(self.max_grad_norm), adam)
        # Large rates make a rare fresh network overflow. It is passed over; a run in which all do still diverges.
        return optax.apply_if_finite(limited, self.updates)


def _teacher(problem: Problem) -> Teacher:
    """The teacher.

    Raises:
      FloppyError: if none was given.
    """
    teacher = teacher_of(problem)
    if teacher is None:
        raise FloppyError("Outer loop imitation needs a teacher: give a dataset's file (--teacher FILE).")
    return teacher


def _mean_of_finite(values: jax.Array) -> jax.Array:
    return jnp.mean(values, where=jnp.isfinite(values))


def _observations(problem: Problem, trajectories: tuple[Trajectory, ...]) -> jax.Array:
    """What policies acted upon, `[n, *obs]`, raw, in the order of time."""
    shape = problem.task.observation_shape
    every = [trajectory.observations.reshape(len(trajectory.rewards), -1, *shape) for trajectory in trajectories]
    return jnp.concatenate(every, axis=1).reshape(-1, *shape)


# --- a policy that acts in turns with the teacher ---


class _TurnWeights(NamedTuple):
    """Of `L` policies in `E` environments each; leaves `[L, ...]`."""

    own: Any
    statistics: RunningStatistics | None
    """By which the policies' observations are normalised."""
    shares: tuple[jax.Array, jax.Array]
    """`[L, E]` each: how often the teacher acts, and how often a random action is taken."""
    log_std: jax.Array
    """`[L, a]`: the policies' own."""


def _turn_weights(own: Any, statistics: RunningStatistics | None, shares: tuple[jax.Array, jax.Array]) -> _TurnWeights:
    count = own.log_std.shape[0]
    statistics, shares = jax.tree.map(
        lambda leaf: jnp.broadcast_to(jnp.asarray(leaf), (count, *jnp.shape(leaf))), (statistics, shares)
    )
    return _TurnWeights(own, statistics, shares, own.log_std)


@dataclasses.dataclass(frozen=True)
class _Turns:
    """Stands for a network in an arena: its outputs hold those of policy and teacher side by side, and the shares."""

    network: Network[Any]
    teacher: Teacher

    @property
    def actions(self) -> "_TurnActions":
        """By which these outputs become actions."""
        return _TurnActions(self.network.actions, self.teacher)

    def apply(self, weights: _TurnWeights, observations: jax.Array) -> jax.Array:
        """`[E, 2 a + 2]` for raw observations `[E, *obs]` of one policy's environments."""
        own = self.network.apply(weights.own, normalise(weights.statistics, observations))
        taught = self.teacher.outputs(as_floats(observations), self.network.actions)
        return jnp.concatenate([own, taught, *(share[:, None] for share in weights.shares)], axis=1)


@dataclasses.dataclass(frozen=True)
class _TurnActions:
    """Who acts is drawn in every step."""

    own: ActionSpace
    teacher: Teacher

    def sample(self, key: jax.Array, output: jax.Array, log_std: jax.Array) -> jax.Array:
        """An action of the policy, of the teacher, or a random one, for outputs `[..., 2 a + 2]` of `_Turns`."""
        size = self.own.size
        of_policy, of_teacher, shares = output[..., :size], output[..., size : 2 * size], output[..., 2 * size :]
        deviations = self.teacher.log_std_for(self.own)
        chosen = self.own.sample(named_key(key, "own"), of_policy, log_std)
        taught = self.own.sample(named_key(key, "teacher"), of_teacher, deviations)
        random = self.own.random(named_key(key, "random"), output.shape[:-1])
        for name, other, share in (("who", taught, shares[..., 0]), ("whether", random, shares[..., 1])):
            is_other = jax.random.uniform(named_key(key, name), share.shape) < share
            chosen = jnp.where(is_other.reshape(is_other.shape + (1,) * (chosen.ndim - is_other.ndim)), other, chosen)
        return chosen

    def clip(self, action: jax.Array) -> jax.Array:
        """The action that the task receives."""
        return self.own.clip(action)


__all__ = ["Imitation", "ImitationState"]
