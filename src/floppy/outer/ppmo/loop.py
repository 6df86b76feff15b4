"""PPMO: proximal policy meta-optimisation (Wilhelm and Ventura, ECAI 2025, section 4)."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import optax

from floppy.cloning import Distilled, clone
from floppy.errors import MAX_COUNT, FloppyError
from floppy.fields import bounded, check_fields, one_of, parent_file
from floppy.keys import named_key
from floppy.learner.network import Network
from floppy.outer.base import Info, OuterLoopDefaults, Parameters, Problem, register_outer_loop, updates_made
from floppy.outer.ppmo.ppo import (
    clipped_surrogate,
    discounted_returns,
    gae,
    published_gae,
    shuffled,
    standardise,
    value_loss,
)
from floppy.outer.teacher import Teacher, read_teacher, teacher_of
from floppy.parallel import shard_rows
from floppy.play.arena import Arena, Trajectory
from floppy.play.device import ON_DEVICE
from floppy.play.normalise import RunningStatistics, init_statistics, normalise, update_statistics
from floppy.spaces import Discrete
from floppy.tasks.base import EPISODIC, Task

CRITICS = ("mlp", "minatar-cnn", "nature-cnn")


class PPMOState(NamedTuple):
    """Everything that the next outer step depends on."""

    distilled: Distilled
    optimiser: optax.OptState
    critic: Any
    critic_optimiser: optax.OptState
    environments: tuple[Any, ...]
    """Per member of the learner mixture, `[learners, environments]`: episodes run on across outer steps. The arena says
    what stands for them."""
    statistics: RunningStatistics
    discounted: tuple[jax.Array, ...]
    """Per member of the learner mixture, `[learners, environments]`: discounted return of the episode so far."""
    return_statistics: RunningStatistics
    """`[]`, of all those discounted returns."""


class Samples(NamedTuple):
    """One learner group's rollout, ready for the updates; `n = T · environments` entries per learner."""

    observations: jax.Array
    """`[n, learners, *obs]`, raw: bytes, where they are pixels, are a quarter of the memory. A minibatch has them
    normalised."""
    actions: jax.Array
    """`[n, learners]` or `[n, learners, a]`."""
    log_probs: jax.Array
    """`[n, learners]` under the collecting policy."""
    advantages: jax.Array
    """`[n, learners]`"""
    returns: jax.Array
    """`[n, learners]`, the critic's targets."""
    taught: jax.Array | None = None
    """`[n, learners, a]`: the teacher's outputs, if there is one."""


@register_outer_loop
@dataclasses.dataclass(frozen=True)
class PPMO(OuterLoopDefaults):
    """Outer loop by PPO's meta-gradient through the cloning.

    Each outer step draws fresh learners, clones them, lets them collect, and then improves the dataset by PPO's
    clipped objective, differentiated through the cloning of those same fresh learners. With an encoder that holds every
    layer nothing is left to clone, and this is plain PPO.
    """

    name: ClassVar[str] = "ppmo"
    kinds: ClassVar[tuple[str, ...]] = EPISODIC
    learners: int = bounded(16, least=1, most=MAX_COUNT)
    """Fresh learners per outer step, in equal shares over the learner distributions."""
    environments: int = bounded(4, least=1, most=MAX_COUNT)
    """Environments per learner."""
    horizon: int = bounded(128, least=1, most=MAX_COUNT)
    """Steps per environment and outer step."""
    epochs: int = bounded(4, least=1, most=MAX_COUNT)
    """Passes over the collected samples."""
    minibatch_size: int = bounded(2048, least=1, most=MAX_COUNT)
    """Samples of all learners together per update; rounded so that every minibatch has the same size."""
    rate: float = bounded(2e-3, above=0)
    """Adam's rate for the dataset."""
    encoder_rate: float = bounded(0.0, least=0)
    """Adam's rate for the encoder's layers, where there are any, and so for all layers in plain PPO; log standard
    deviations keep that of the dataset. 0 for that of the dataset."""
    observation_rate: float = bounded(0.0, least=0)
    """Adam's rate for the examples' observations: the steps of an image's pixels add up. 0 for that of the dataset."""
    critic_rate: float = bounded(2e-3, above=0)
    """Adam's rate for the critic."""
    anneal: bool = True
    """Whether all rates fall linearly to 0 over the run's outer steps."""
    discount: float = bounded(0.99, least=0, most=1)
    """γ."""
    gae_lambda: float = bounded(0.95, least=0, most=1)
    """λ of generalised advantage estimation."""
    clip: float = bounded(0.2, above=0)
    """ε of the clipped objective."""
    target_kl: float = bounded(0.0, least=0)
    """Early stopping: the dataset skips the outer step's remaining minibatches once the mean KL divergence (nats) of
    the policies from those that collected exceeds this; 0 for never. Large networks leave their samples behind
    otherwise. The critic learns from all of them."""
    entropy_bonus: float = bounded(0.01, least=0)
    """Weight of the entropy in the objective."""
    least_std: float = bounded(0.0, least=0)
    """A penalty holds the standard deviation of continuous actions at about this or above. Without it PPO narrows
    down the first gait that it finds, and the trust region shrinks with the deviation."""
    max_grad_norm: float = bounded(0.5, above=0)
    """Gradients of dataset and critic are scaled down to this norm, each for itself."""
    adam_eps: float = bounded(1e-5, above=0)
    """Adam's eps."""
    critic_width: int = bounded(64, least=1, most=MAX_COUNT)
    """Units of the critic's two hidden layers; its activation is that of the learners."""
    critic_warm_up: int = bounded(0, least=0, most=MAX_COUNT)
    """Outer steps at the start in which the critic alone learns and the dataset is held, for one that is good already
    (`start`): a critic that knows nothing would lead it away."""
    critic_network: str = one_of("", ("", *CRITICS))
    """What the critic has before its hidden layers, see `LearnerDistribution.network`; by default what learners have.
    With mlp it has nothing, which on Atari's frames saves half of the arithmetic."""
    normalise_observations: bool = False
    """Whether observations are scaled by running statistics, which the file then carries."""
    normalise_rewards: bool = False
    """Whether rewards are divided by the running standard deviation of discounted returns, for a critic and a gradient
    norm that know no task's units (Gymnasium's NormalizeReward; Engstrom et al., 2020). Returns are reported as they
    were before that."""
    teacher: str = parent_file()
    """File of a dataset whose policy learners imitate at first, where an expert is at hand, as plain PPO makes one: the
    KL divergence from its policy is added to the loss (kickstarting; Schmitt et al., 2018). Off by default."""
    teacher_weight: float = bounded(1.0, above=0)
    """Weight of that divergence at the start; it falls linearly to 0."""
    teacher_share: float = bounded(0.5, above=0, most=1)
    """Share of the run's outer steps after which it is 0."""
    published_errors: bool = False
    """Repeat the published code's errors, to show the difference they make: advantages read the end of an episode one
    step late and take time limits for terminations, the entropy has no gradient, ratios use raw logits."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)

    def context(self, task: Task) -> Teacher | None:
        """The teacher, if there is one."""
        return read_teacher(self.teacher, task) if self.teacher else None

    def check(self, problem: Problem) -> None:
        """Checks that learners can be shared, and that the dataset is improved."""
        self._share(problem)
        problem.check_normaliser(normalises=self.normalise_observations)
        if self.critic_warm_up >= problem.outer_steps:
            raise FloppyError(
                f"critic_warm_up must be less than the {problem.outer_steps} outer steps, got {self.critic_warm_up}: "
                "the dataset would not be improved."
            )

    def init(self, problem: Problem, key: jax.Array, arena: Arena[Any] = ON_DEVICE) -> PPMOState:
        """The state before the first outer step."""
        known = None
        if self.normalise_observations and problem.knows_statistics:
            known = problem.first_statistics(arena, named_key(key, "warm-up"))
        distilled = problem.init_distilled(named_key(key, "distilled"), known, arena)
        environments = tuple(
            arena.start_environments(
                problem.task, named_key(key, f"environments {group}"), self._share(problem), self.environments
            )
            for group in range(len(problem.learners))
        )
        return arena.compiled(self._begin)(problem, distilled, environments, known, named_key(key, "critic"))

    def restarted(self, state: PPMOState) -> PPMOState:
        """The state for environments that begin new episodes."""
        return state._replace(discounted=jax.tree.map(jnp.zeros_like, state.discounted))

    def _begin(
        self,
        problem: Problem,
        distilled: Distilled,
        environments: tuple[Any, ...],
        known: RunningStatistics | None,
        critic_key: jax.Array,
    ) -> PPMOState:
        critic = self._critic(problem).init(critic_key)
        return PPMOState(
            distilled,
            self._optimiser(problem, self.rate).init(problem.parameters(distilled)),
            critic,
            self._optimiser(problem, self.critic_rate).init(critic),
            environments,
            init_statistics(problem.task.observation_shape) if known is None else known,
            (jnp.zeros((self._share(problem), self.environments)),) * len(problem.learners),
            init_statistics(()),
        )

    def step(
        self, problem: Problem, state: PPMOState, key: jax.Array, arena: Arena[Any] = ON_DEVICE
    ) -> tuple[PPMOState, Info]:
        """One outer step: draw and clone, collect, improve."""
        fresh, cloned = arena.compiled(self._draw)(problem, state.distilled, key)
        collected = [
            arena.collect(
                problem.task,
                network,
                cloned[group],
                state.environments[group],
                named_key(key, f"collect {group}"),
                steps=self.horizon,
                statistics=self.statistics(state),
            )
            for group, network in enumerate(problem.networks)
        ]
        environments, trajectories = zip(*collected, strict=True)
        log_stds = tuple(weights.log_std for weights in cloned)
        state, info = arena.compiled(self._improve)(problem, state, fresh, log_stds, trajectories, key)
        return state._replace(environments=environments), info

    def _draw(self, problem: Problem, distilled: Distilled, key: jax.Array) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
        """Fresh learners, and what cloning makes of them, per member of the mixture."""
        fresh = tuple(
            shard_rows(
                jax.vmap(functools.partial(problem.draw, network))(
                    jax.random.split(named_key(key, f"learners {group}"), self._share(problem))
                )
            )
            for group, network in enumerate(problem.networks)
        )
        cloned = tuple(
            jax.vmap(lambda w, n=network: clone(problem.cloning, n, distilled, w))(fresh[group])
            for group, network in enumerate(problem.networks)
        )
        return fresh, cloned

    def _improve(
        self,
        problem: Problem,
        state: PPMOState,
        fresh: tuple[Any, ...],
        log_stds: tuple[jax.Array, ...],
        trajectories: tuple[Trajectory, ...],
        key: jax.Array,
    ) -> tuple[PPMOState, Info]:
        """Everything that follows the play; `log_stds [learners, a]` are those of the collecting policies."""
        info = _episode_info(trajectories)
        if self.normalise_rewards:
            state, trajectories = self._scale_rewards(state, trajectories)
        samples = tuple(
            self._samples(problem, state, trajectory, log_std)
            for trajectory, log_std in zip(trajectories, log_stds, strict=True)
        )
        state, losses = self._update(problem, state, fresh, samples, named_key(key, "shuffle"))
        if self.normalise_observations and not problem.freezes_statistics:
            state = state._replace(statistics=_absorb(state.statistics, trajectories))
        return state, losses | info

    def _scale_rewards(
        self, state: PPMOState, trajectories: tuple[Trajectory, ...]
    ) -> tuple[PPMOState, tuple[Trajectory, ...]]:
        """Trajectories with rewards in units of the discounted returns' running standard deviation."""
        statistics, carried = state.return_statistics, []
        for trajectory, before in zip(trajectories, state.discounted, strict=True):
            ended = trajectory.terminated | trajectory.truncated
            after, returns = discounted_returns(trajectory.rewards, ended, before, discount=self.discount)
            statistics = update_statistics(statistics, returns.ravel())
            carried.append(after)
        scale = jax.lax.rsqrt(statistics.var + statistics.floor[0])
        scaled = tuple(trajectory._replace(rewards=trajectory.rewards * scale) for trajectory in trajectories)
        return state._replace(discounted=tuple(carried), return_statistics=statistics), scaled

    def distilled(self, state: PPMOState) -> Distilled:
        """The dataset as it stands."""
        return state.distilled

    def statistics(self, state: PPMOState) -> RunningStatistics | None:
        """The running statistics, if observations are normalised."""
        return state.statistics if self.normalise_observations else None

    def _share(self, problem: Problem) -> int:
        return problem.share(self.learners, "learners per outer step")

    def _minibatches(self) -> int:
        per_learner = self.horizon * self.environments
        wanted = max(1, round(per_learner * self.learners / self.minibatch_size))
        return min(wanted, per_learner)

    def _updates(self, outer_steps: int) -> int:
        return outer_steps * self.epochs * self._minibatches()

    def _teacher_weight(self, problem: Problem, state: PPMOState) -> jax.Array:
        until = max(1, round(self.teacher_share * self._updates(problem.outer_steps)))
        return optax.linear_schedule(self.teacher_weight, 0.0, until)(updates_made(state.critic_optimiser))

    def _optimiser(self, problem: Problem, rate: float) -> optax.GradientTransformation:
        schedule = optax.linear_schedule(rate, 0.0, self._updates(problem.outer_steps)) if self.anneal else rate
        return optax.chain(optax.clip_by_global_norm(self.max_grad_norm), optax.adam(schedule, eps=self.adam_eps))

    def _critic(self, problem: Problem) -> Network[Any]:
        architecture = problem.learners[0].critic(self.critic_width, self.critic_network)
        return architecture.bind(problem.task.observation_shape, Discrete(1))

    def _samples(self, problem: Problem, state: PPMOState, trajectory: Trajectory, log_std: jax.Array) -> Samples:
        """Advantages and everything else that the updates read; `log_std [learners, a]` of the collecting policies."""
        statistics, teacher = self.statistics(state), teacher_of(problem)
        values = self._values(problem, state.critic, normalise(statistics, trajectory.observations))
        next_values = self._next_values(problem, state, trajectory, values)
        advantages = self._advantages(trajectory, values, next_values)
        log_probs = self._log_probability(problem, trajectory.outputs, log_std[:, None], trajectory.actions)
        samples = Samples(
            trajectory.observations,
            trajectory.actions,
            log_probs,
            advantages,
            advantages + values,
            teacher.outputs(trajectory.observations, problem.actions) if teacher else None,
        )
        # [T, learners, environments, ...] -> [T · environments, learners, ...]
        return jax.tree.map(lambda x: jnp.swapaxes(x, 1, 2).reshape(-1, x.shape[1], *x.shape[3:]), samples)

    def _values(self, problem: Problem, critic: Any, observations: jax.Array) -> jax.Array:
        shape = problem.task.observation_shape
        leading = observations.shape[: observations.ndim - len(shape)]
        return self._critic(problem).apply(critic, observations.reshape(-1, *shape)).reshape(leading)

    def _next_values(self, problem: Problem, state: PPMOState, trajectory: Trajectory, values: jax.Array) -> jax.Array:
        """Values `[T, L, E]` of the states that steps reached: those of the steps after them, unless time ran out.

        Of a termination no value is used; where a time limit has cut an episode, all of them are computed anew.
        """

        def of(observations: jax.Array) -> jax.Array:
            return self._values(problem, state.critic, normalise(self.statistics(state), observations))

        return jax.lax.cond(
            jnp.any(trajectory.truncated[:-1]),
            lambda: of(trajectory.next_observations),
            lambda: jnp.concatenate([values[1:], of(trajectory.next_observations[-1:])]),
        )

    def _advantages(self, trajectory: Trajectory, values: jax.Array, next_values: jax.Array) -> jax.Array:
        rates = {"discount": self.discount, "gae_lambda": self.gae_lambda}
        if self.published_errors:
            ended = trajectory.terminated | trajectory.truncated
            return published_gae(trajectory.rewards, values, next_values[-1], ended, **rates)
        return gae(trajectory.rewards, values, next_values, trajectory.terminated, trajectory.truncated, **rates)

    def _log_probability(self, problem: Problem, output: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
        actions = problem.actions
        function = actions.unnormalised if self.published_errors else actions.log_probability
        return function(output, log_std, action)

    def _update(
        self,
        problem: Problem,
        state: PPMOState,
        fresh: tuple[Any, ...],
        samples: tuple[Samples, ...],
        key: jax.Array,
    ) -> tuple[PPMOState, Info]:
        """All policy epochs: every minibatch re-clones the same fresh learners with the dataset as it then stands."""
        count = samples[0].log_probs.shape[0]
        minibatches = self._minibatches()
        size = count // minibatches
        orders = shuffled(key, count, self.epochs)
        rows = orders[:, : minibatches * size].reshape(self.epochs * minibatches, size)

        def minibatch_of(rows: jax.Array) -> tuple[Samples, ...]:
            taken: tuple[Samples, ...] = jax.tree.map(lambda x: x[rows], samples)
            statistics = self.statistics(state)
            return tuple(each._replace(observations=normalise(statistics, each.observations)) for each in taken)

        def update(state: PPMOState, rows: jax.Array) -> tuple[PPMOState, Info]:
            minibatch = minibatch_of(rows)
            gradient, info = self._policy_gradient(problem, state, fresh, minibatch)
            state, critic_info = self._moved(problem, state, gradient, minibatch)
            return state, info | critic_info | problem.rates(state.distilled)

        if self.target_kl > 0.0:
            return self._update_until_kl_limit(problem, state, fresh, minibatch_of, rows)
        state, info = jax.lax.scan(update, state, rows)
        return state, jax.tree.map(jnp.mean, info)

    def _update_until_kl_limit(
        self,
        problem: Problem,
        state: PPMOState,
        fresh: tuple[Any, ...],
        minibatch_of: Callable[[jax.Array], tuple[Samples, ...]],
        rows: jax.Array,
    ) -> tuple[PPMOState, Info]:
        """Updates of the critic by all minibatches in `rows`, and of the dataset up to where policies went too far.

        That is found by the first minibatch whose KL divergence is too large; the policy's figures are means over those
        looked at, this one included.
        """

        def gradient_of(state: PPMOState, minibatch: tuple[Samples, ...]) -> tuple[Parameters, Info]:
            return self._policy_gradient(problem, state, fresh, minibatch)

        shapes = jax.eval_shape(lambda: gradient_of(state, minibatch_of(rows[0])))
        nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

        def step(carry: tuple[PPMOState, jax.Array], rows: jax.Array) -> tuple[tuple[PPMOState, jax.Array], Any]:
            (state, was_far), minibatch = carry, minibatch_of(rows)
            gradient, info = jax.lax.cond(was_far, lambda: nothing, lambda: gradient_of(state, minibatch))
            is_far = was_far | ~(info["kl"] <= self.target_kl)  # NaN is far
            after, critic_info = self._moved(problem, state, gradient, minibatch)
            return (_held(after, state, is_far), is_far), (info, critic_info, ~was_far, ~is_far)

        (state, _), (info, critic_info, seen, done) = jax.lax.scan(step, (state, jnp.zeros((), bool)), rows)
        info = jax.tree.map(lambda values: jnp.sum(values) / jnp.sum(seen), info)
        info |= jax.tree.map(jnp.mean, critic_info) | {"updates": jnp.mean(done)}
        return state, info | problem.rates(state.distilled)

    def _policy_gradient(
        self, problem: Problem, state: PPMOState, fresh: tuple[Any, ...], minibatch: tuple[Samples, ...]
    ) -> tuple[Parameters, Info]:
        """The meta-gradient, through the cloning of the fresh learners with the dataset as it stands."""
        teacher_weight = self._teacher_weight(problem, state)

        def objective(parameters: Parameters) -> tuple[jax.Array, Info]:
            distilled = problem.distilled(parameters, state.distilled)
            losses = [
                self._policy_loss(problem, network, distilled, weights, group, teacher_weight)
                for network, weights, group in zip(problem.networks, fresh, minibatch, strict=True)
            ]
            return jax.tree.map(lambda *groups: jnp.mean(jnp.stack(groups)), *losses)

        gradient, info = jax.grad(objective, has_aux=True)(problem.parameters(state.distilled))
        return gradient, info | {"gradient_norm": optax.tree.norm(gradient)}

    def _moved(
        self, problem: Problem, state: PPMOState, gradient: Parameters, minibatch: tuple[Samples, ...]
    ) -> tuple[PPMOState, Info]:
        """Dataset and critic after one update."""

        def critic_objective(critic: Any) -> jax.Array:
            values = [self._values(problem, critic, group.observations) for group in minibatch]
            return value_loss(jnp.stack(values), jnp.stack([group.returns for group in minibatch]))

        loss, critic_gradient = jax.value_and_grad(critic_objective)(state.critic)
        critic_change, critic_optimiser = self._optimiser(problem, self.critic_rate).update(
            critic_gradient, state.critic_optimiser
        )
        change, optimiser = self._optimiser(problem, self.rate).update(gradient, state.optimiser)
        for part, rate in (("encoder", self.encoder_rate), ("observations", self.observation_rate)):
            if rate:  # Adam's steps are in proportion to its rate
                change[part] = optax.tree.scale(rate / self.rate, change[part])
        parameters = optax.apply_updates(problem.parameters(state.distilled), change)
        after = state._replace(
            distilled=problem.improved(parameters, state.distilled),
            optimiser=optimiser,
            critic=optax.apply_updates(state.critic, critic_change),
            critic_optimiser=critic_optimiser,
        )
        if self.critic_warm_up:
            is_held = updates_made(state.critic_optimiser) < self._updates(self.critic_warm_up)
            after = _held(after, state, is_held)
        return after, {"value_loss": loss}

    def _policy_loss(
        self,
        problem: Problem,
        network: Network[Any],
        distilled: Distilled,
        fresh: Any,
        samples: Samples,
        teacher_weight: jax.Array | float = 0.0,
    ) -> tuple[jax.Array, Info]:
        """PPO's objective of one learner group, as a function of the dataset that the learners are cloned from."""
        cloned = jax.vmap(lambda w: clone(problem.cloning, network, distilled, w))(fresh)
        output = jax.vmap(network.apply, in_axes=(0, 1), out_axes=1)(cloned, samples.observations)
        log_probs = self._log_probability(problem, output, cloned.log_std, samples.actions)
        log_ratio = log_probs - samples.log_probs
        ratio = jnp.exp(log_ratio)
        surrogate = clipped_surrogate(ratio, standardise(samples.advantages), self.clip)
        mean_entropy = jnp.mean(problem.actions.entropy(output, cloned.log_std))
        if self.published_errors:
            mean_entropy = jax.lax.stop_gradient(mean_entropy)
        info = {
            "policy_loss": surrogate,
            "entropy": mean_entropy,
            "kl": jnp.mean(ratio - 1.0 - log_ratio),
            "clip_fraction": jnp.mean(jnp.abs(ratio - 1.0) > self.clip),
        }
        loss = surrogate - self.entropy_bonus * mean_entropy
        if self.least_std > 0.0 and cloned.log_std.size:
            below = jax.nn.relu(math.log(self.least_std) - cloned.log_std)
            loss += jnp.mean(jnp.sum(below**2, axis=-1))
        if (teacher := teacher_of(problem)) and samples.taught is not None:
            apart = problem.actions.kl(samples.taught, teacher.log_std_for(problem.actions), output, cloned.log_std)
            info["teacher_kl"] = jnp.mean(apart)
            loss += teacher_weight * info["teacher_kl"]
        return loss, info


def _held(after: PPMOState, before: PPMOState, is_held: jax.Array) -> PPMOState:
    """`after`, with the dataset as it was `before` where it is held; its rate falls all the same."""
    clipping, (adam, _) = before.optimiser
    schedule = after.optimiser[1][1]
    distilled, optimiser = jax.tree.map(
        functools.partial(jnp.where, is_held),
        (before.distilled, (clipping, (adam, schedule))),
        (after.distilled, after.optimiser),
    )
    return after._replace(distilled=distilled, optimiser=optimiser)


def _absorb(statistics: RunningStatistics, trajectories: tuple[Trajectory, ...]) -> RunningStatistics:
    for trajectory in trajectories:
        shape = statistics.mean.shape
        statistics = update_statistics(statistics, trajectory.observations.reshape(-1, *shape))
    return statistics


def _episode_info(trajectories: tuple[Trajectory, ...]) -> Info:
    """Finished episodes of this step and their mean return (0 where none finished)."""
    episodes: Any = sum(jnp.sum(t.terminated | t.truncated) for t in trajectories)
    total: Any = sum(jnp.sum(t.final_returns) for t in trajectories)
    env_steps = sum(t.rewards.size for t in trajectories)
    return {
        "env_steps": jnp.asarray(env_steps),
        "episodes": episodes,
        "episode_return": total / jnp.maximum(episodes, 1),
    }
