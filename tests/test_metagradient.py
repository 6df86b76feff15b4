"""PPMO: it solves the probes, its corrections hold, and with every layer in the encoder it is plain PPO."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from probes import (
    PROBES,
    SMALL,
    ActionProbe,
    ContinuousProbe,
    DelayProbe,
    ImageProbe,
    ObservationProbe,
    ProbeState,
    TimeLimitProbe,
    make_problem,
    plain_problem,
)

from floppy.cloning import Distilled
from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.learner.mlp import LearnerDistribution, Weights
from floppy.outer import PPMO, Problem
from floppy.outer.base import MIN_INNER_RATE
from floppy.outer.ppmo.loop import PPMOState, Samples
from floppy.outer.ppmo.ppo import shuffled
from floppy.play.arena import WARM_UP, Trajectory
from floppy.play.device import collect, random_observations
from floppy.tasks import JaxTask, Transition

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)
TINY = PPMO(learners=2, environments=2, horizon=6, epochs=2, minibatch_size=12, rate=1e-2, critic_width=8)
"""An outer loop for tests that look at single steps: two minibatches in each of two epochs."""


TWO_TARGETS = ContinuousProbe(target=(0.5, -0.5))


def plain_policies(distilled: Distilled, learners: int) -> Weights:
    """The weights of a plain policy, once per learner."""
    weights = Weights(distilled.encoder, (jnp.zeros(()),) * len(distilled.encoder), distilled.log_std)
    return jax.tree.map(lambda leaf: jnp.stack([leaf] * learners), weights)


@functools.partial(jax.jit, static_argnums=(0, 1, 4))
def run_steps(
    outer: PPMO, problem: Problem, state: PPMOState, key: jax.Array, steps: int
) -> tuple[PPMOState, dict[str, jax.Array]]:
    """Several outer steps; infos are stacked."""
    return jax.lax.scan(lambda state, k: outer.step(problem, state, k), state, jax.random.split(key, steps))


@functools.partial(jax.jit, static_argnums=(0, 1))
def quick_init(outer: PPMO, problem: Problem, key: jax.Array = KEY) -> PPMOState:
    return outer.init(problem, key)


# --- it learns ---

SEEDS = 3
LEARNING = PPMO(
    learners=4, environments=8, horizon=10, minibatch_size=160, rate=3e-2, critic_rate=3e-2, discount=0.8, anneal=False
)


@functools.cache
def learnt(probe: JaxTask, plain: bool) -> tuple[PPMOState, np.ndarray]:
    """The final states of `SEEDS` runs and their mean episode returns `[SEEDS, steps]`."""
    problem = (plain_problem if plain else make_problem)(probe, outer_steps=40)

    def run(key: jax.Array) -> Any:
        def one(state: PPMOState, key: jax.Array) -> Any:
            return LEARNING.step(problem, state, key)

        return jax.lax.scan(one, LEARNING.init(problem, named_key(key, "init")), jax.random.split(key, 40))

    states, info = jax.jit(jax.vmap(run))(jax.random.split(KEY, SEEDS))
    return states, np.asarray(info["episode_return"])


@pytest.mark.thorough(all_but=["probe/observation-ppmo", "probe/continuous-ppmo"])
@pytest.mark.parametrize(
    ("probe", "plain"),
    [
        *((probe, False) for probe in PROBES if probe != ActionProbe()),  # the observation probe is harder
        (ContinuousProbe(), True),
        (TimeLimitProbe(), True),
    ],
    ids=lambda value: value.task_id if isinstance(value, JaxTask) else "plain-ppo" if value else "ppmo",
)
def test_probes_are_solved(probe: JaxTask, plain: bool) -> None:
    _, returns = learnt(probe, plain)
    # Actions are sampled with a variance of their own, which the continuous probe's return pays for.
    near = probe.max_return - (0.25 if isinstance(probe, ContinuousProbe) else 0.05 * probe.max_return)
    assert returns[:, 0].mean() < near, "solved before the first step: this shows nothing"
    assert (returns[:, -5:].mean(axis=1) > near).all(), returns[:, -5:]


@pytest.mark.thorough
def test_the_critic_values_what_a_time_limit_cuts_off() -> None:
    probe = TimeLimitProbe()
    states, _ = learnt(probe, True)
    observation = probe.reset(KEY)[1][None]
    values = jax.jit(jax.vmap(lambda critic: LEARNING._values(plain_problem(probe), critic, observation)))(
        states.critic
    )
    # Were time limits terminations, the mean over an episode's five steps would be 2.3.
    np.testing.assert_allclose(values, np.full((SEEDS, 1), 1 / (1 - LEARNING.discount)), rtol=0.05)


# --- the corrections: advantages ---


def advantages(outer: PPMO, rewards: Any, terminated: Any, truncated: Any) -> np.ndarray:
    """Of one environment, with a critic that says 0 everywhere."""
    steps = len(rewards)
    flags = (jnp.array(flag, bool)[:, None] for flag in (terminated, truncated))
    trajectory = Trajectory(*(jnp.zeros((steps, 1)),) * 4, jnp.array(rewards, jnp.float32)[:, None], *flags, None)
    zeros = jnp.zeros((steps, 1))
    return np.asarray(outer._advantages(trajectory, zeros, zeros))[:, 0]


@pytest.mark.parametrize(("published", "wanted"), [(False, [1, 1, 1, 2]), (True, [0, 0, 3, 2])])
def test_a_terminal_reward_reaches_the_steps_before_it(published: bool, wanted: list[float]) -> None:
    outer = PPMO(discount=1.0, gae_lambda=1.0, published_errors=published)
    # Published: a step reads whether the step after it ended, so the reward of the next episode leaks in.
    got = advantages(outer, [0, 0, 1, 2], terminated=[0, 0, 1, 0], truncated=[0, 0, 0, 0])
    np.testing.assert_allclose(got, wanted)


@pytest.mark.parametrize(("published", "wanted"), [(False, [1, 1, 1]), (True, [0, 0, 1])])
def test_the_papers_worked_example(published: bool, wanted: list[float]) -> None:
    outer = PPMO(discount=1.0, gae_lambda=1.0, published_errors=published)
    got = advantages(outer, [0, 0, 1], terminated=[0, 0, 1], truncated=[0, 0, 0])
    np.testing.assert_allclose(got, wanted)


def samples_with_constant_critic(outer: PPMO, task: JaxTask, value: float) -> tuple[Trajectory, Samples]:
    """Samples of learners whose policy is the initial one and whose critic says `value` everywhere."""
    problem = plain_problem(task)
    state = quick_init(outer, problem)
    critic = jax.tree.map(jnp.zeros_like, state.critic)
    last = {"kernel": critic.layers[-1]["kernel"], "bias": jnp.full(1, value)}
    state = state._replace(critic=critic._replace(layers=(*critic.layers[:-1], last)))
    weights = plain_policies(state.distilled, outer.learners)

    def run(key: jax.Array) -> tuple[Trajectory, Samples]:
        _, trajectory = collect(
            task, problem.networks[0], weights, state.environments[0], key, steps=outer.horizon, statistics=None
        )
        return trajectory, outer._samples(problem, state, trajectory, weights.log_std)

    return jax.jit(run)(KEY)


@pytest.mark.parametrize("task", [TimeLimitProbe(max_steps=3), DelayProbe()], ids=["time limit", "termination"])
def test_time_limits_bootstrap_and_terminations_do_not(task: JaxTask) -> None:
    discount, decay, value = 0.9, 0.8, 7.0
    outer = dataclasses.replace(TINY, discount=discount, gae_lambda=decay, learners=3)
    trajectory, samples = samples_with_constant_critic(outer, task, value)
    limited = isinstance(task, TimeLimitProbe)
    assert np.any(trajectory.truncated) == limited
    assert np.any(trajectory.terminated) != limited
    wanted = np.zeros(trajectory.rewards.shape)
    following = np.zeros(trajectory.rewards.shape[1:])
    for t in reversed(range(outer.horizon)):
        ended = np.asarray(trajectory.terminated[t] | trajectory.truncated[t])
        bootstrap = value if limited else np.where(ended, 0.0, value)
        delta = np.asarray(trajectory.rewards[t]) + discount * bootstrap - value
        following = delta + discount * decay * np.where(ended, 0.0, following)
        wanted[t] = following
    # [T, learners, environments] becomes [T · environments, learners].
    wanted = wanted.transpose(0, 2, 1).reshape(-1, outer.learners)
    np.testing.assert_allclose(samples.advantages, wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(samples.returns, wanted + value, rtol=1e-5)


# --- the corrections: entropy ---


class NoReward(ActionProbe):
    """Nothing to earn: with a critic that says 0, every advantage is 0."""

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        return super().step(key, state, action)._replace(reward=jnp.zeros(()))


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("problem", "published"),
    [(make_problem(NoReward()), False), (plain_problem(NoReward()), True)],
    ids=["ppmo", "published plain-ppo"],
)
def test_the_entropy_bonus_has_a_gradient(problem: Problem, published: bool) -> None:
    outer = dataclasses.replace(TINY, published_errors=published)
    before = quick_init(TINY, problem)
    # A lopsided policy, for at the uniform one the entropy has no gradient.
    distilled = before.distilled._replace(
        targets=before.distilled.targets + jnp.array([[1.0, -1.0]]),
        encoder=jax.tree.map(
            lambda leaf: leaf + raised(0.5 * jnp.arange(leaf.shape[-1]), leaf), before.distilled.encoder
        ),
    )
    before = before._replace(distilled=distilled, critic=jax.tree.map(jnp.zeros_like, before.critic))
    after, info = run_steps(outer, problem, before, KEY, 3)
    unchanged = jax.tree.all(jax.tree.map(np.array_equal, distilled, after.distilled))
    if published:
        assert unchanged
        np.testing.assert_array_equal(info["gradient_norm"], 0.0)
    else:
        assert not unchanged
        assert (info["gradient_norm"] > 1e-5).all()
        assert info["entropy"][-1] > info["entropy"][0]
        assert info["entropy"][0] < 0.99 * np.log(2)
    np.testing.assert_array_equal(info["policy_loss"], 0.0)
    np.testing.assert_array_equal(info["value_loss"], 0.0)


# --- the corrections: ratios ---


@pytest.mark.parametrize("published", [False, True])
def test_a_constant_on_all_logits_changes_nothing(published: bool) -> None:
    outer = dataclasses.replace(TINY, published_errors=published)
    problem = plain_problem(ObservationProbe())
    random = np.random.default_rng(0)
    rows = (20, outer.learners)
    layers = tuple(
        {
            "kernel": random.normal(size=shape).astype(np.float32),
            "bias": random.normal(size=shape[1]).astype(np.float32),
        }
        for shape in ((1, 16), (16, 2))
    )
    observations, actions = random.normal(size=(*rows, 1)).astype(np.float32), random.integers(2, size=rows)
    logits = mlp(layers, observations, np)
    collected = logits if published else np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    log_probs = np.take_along_axis(collected, actions[..., None], axis=-1)[..., 0]
    samples = Samples(observations, actions, log_probs, random.normal(size=rows).astype(np.float32), np.zeros(rows))

    def loss(shift: float) -> tuple[jax.Array, dict[str, jax.Array]]:
        moved = (layers[0], layers[1] | {"bias": layers[1]["bias"] + shift})
        distilled = Distilled(jnp.zeros((0, 1)), jnp.zeros((0, 2)), jnp.zeros(0), jnp.ones(()), moved)
        fresh = plain_policies(distilled, outer.learners)
        return outer._policy_loss(problem, problem.networks[0], distilled, fresh, jax.tree.map(jnp.asarray, samples))

    quick_loss = jax.jit(loss)
    (same, same_info), (moved, moved_info) = quick_loss(0.0), quick_loss(1.0)
    np.testing.assert_allclose(same_info["kl"], 0.0, atol=1e-6)
    if published:
        assert moved_info["clip_fraction"] == 1.0
        assert abs(moved - same) > 0.01
    else:
        assert moved_info["clip_fraction"] == 0.0
        np.testing.assert_allclose(moved, same, atol=1e-5)
        np.testing.assert_allclose(moved_info["kl"], 0.0, atol=1e-6)
        np.testing.assert_allclose(moved_info["entropy"], same_info["entropy"], rtol=1e-5)


SHARP = LearnerDistribution(width=(16, 16), depth=(1, 1), initialiser=("xavier1",))
"""Learners that differ much from each other: their outputs are not scaled down."""


@functools.cache
def one_minibatch(task: JaxTask) -> dict[str, jax.Array]:
    """What two outer steps of one minibatch each report: no update has happened when the policies are compared."""
    problem = make_problem(task, learners=(SHARP,))
    outer = dataclasses.replace(TINY, learners=4, epochs=1, minibatch_size=10_000, rate=0.1)
    return run_steps(outer, problem, quick_init(outer, problem), KEY, 2)[1]


@pytest.mark.thorough(all_but=["continuous"])
@pytest.mark.parametrize("task", [TimeLimitProbe(), TWO_TARGETS], ids=["discrete", "continuous"])
def test_the_same_fresh_learners_collect_and_are_updated(task: JaxTask) -> None:
    info = one_minibatch(task)
    np.testing.assert_allclose(info["kl"], 0.0, atol=1e-5)
    np.testing.assert_array_equal(info["clip_fraction"], 0.0)
    np.testing.assert_allclose(info["policy_loss"], 0.0, atol=1e-5)


def test_later_minibatches_compare_a_changed_dataset_with_the_collecting_one() -> None:
    problem = make_problem(encoder_layers=1)
    _, info = run_steps(TINY, problem, quick_init(TINY, problem), KEY, 2)
    assert (info["kl"] > 1e-6).all()


def one_step_with(**changes: Any) -> tuple[PPMOState, dict[str, jax.Array]]:
    """Of four minibatches, if the changes leave it at that."""
    outer, problem = dataclasses.replace(TINY, **changes), make_problem(encoder_layers=1)
    return run_steps(outer, problem, quick_init(TINY, problem), KEY, 1)


def test_updates_end_where_the_policies_have_gone_far_enough() -> None:
    state, info = one_step_with(target_kl=1e-6)
    # The first minibatch finds the policies where they were, and the second one further than that.
    np.testing.assert_allclose(info["updates"], [0.25])
    adam, schedule = state.optimiser[1]
    assert (int(adam.count), int(schedule.count)) == (1, 4)  # the rate falls by outer steps
    assert int(state.critic_optimiser[1][0].count) == 4  # the critic has no such limit
    assert info["kl"] > 1e-5
    assert 0.5 < info["entropy"][0] < np.log(2)  # what was left out does not count
    np.testing.assert_array_equal(info["inner_rate"][0], state.distilled.inner_rate)
    # One update moves targets by Adam's rate at most.
    start = quick_init(TINY, make_problem(encoder_layers=1)).distilled.targets
    assert 0.5 * TINY.rate < np.abs(state.distilled.targets - start).max() < 1.1 * TINY.rate


@pytest.mark.thorough
def test_updates_go_on_while_the_policies_are_near() -> None:
    state, info = one_step_with(target_kl=1e9)
    np.testing.assert_allclose(info.pop("updates"), [1.0])
    wanted_state, wanted = one_step_with()
    np.testing.assert_array_equal(info.pop("inner_rate")[0], state.distilled.inner_rate)  # as it is in the end
    del wanted["inner_rate"]
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6)
    jax.tree.map(close, (state, info), (wanted_state, wanted))


@pytest.mark.thorough
def test_a_penalty_widens_policies_that_are_too_narrow() -> None:
    problem = plain_problem(TWO_TARGETS)
    start = quick_init(TINY, problem)

    def log_std_with(least_std: float) -> np.ndarray:
        outer = dataclasses.replace(TINY, least_std=least_std)
        return np.asarray(run_steps(outer, problem, start, KEY, 2)[0].distilled.log_std)

    # Policies start with deviation 1, and eight updates at rate 0.01 move the logarithm by 0.08 at most.
    np.testing.assert_array_equal(log_std_with(0.3), log_std_with(0.0))
    assert (log_std_with(0.0) < 0.05).all()
    assert (log_std_with(3.0) > 0.05).all()


@pytest.mark.thorough
def test_the_critic_can_do_without_convolutions() -> None:
    problem = make_problem(
        ImageProbe(), learners=(LearnerDistribution(width=(4, 4), depth=(1, 1), network="minatar-cnn"),)
    )
    like_learners, plain = (
        quick_init(outer, problem).critic for outer in (TINY, dataclasses.replace(TINY, critic_network="mlp"))
    )
    assert [len(critic.layers) for critic in (like_learners, plain)] == [4, 3]
    unknown: Any = "vgg"
    with pytest.raises(FloppyError, match=r'critic_network must be one of "", mlp, minatar-cnn, nature-cnn, got .vgg.'):
        PPMO(critic_network=unknown)


def test_the_entropy_is_that_of_one_policy() -> None:
    # A fresh learner has log_std 0 and is cloned towards 0: its entropy is half of log(2 π e) per action dimension.
    np.testing.assert_allclose(one_minibatch(TWO_TARGETS)["entropy"][0], np.log(2 * np.pi * np.e), rtol=1e-5)


# --- the step as a whole ---


@functools.cache
def inner_rates_after_a_step() -> Any:
    """Maps a start to the inner rates that one large step leads to, for several seeds."""
    outer = dataclasses.replace(TINY, rate=8.0, epochs=1, minibatch_size=10_000, anneal=False)
    problem = make_problem()

    def run(start: jax.Array, key: jax.Array) -> jax.Array:
        state = outer.init(problem, key)
        state = state._replace(distilled=state.distilled._replace(inner_rate=start))
        return outer.step(problem, state, key)[0].distilled.inner_rate

    quick = jax.jit(jax.vmap(run, in_axes=(None, 0)))
    return lambda start: np.asarray(quick(jnp.float32(start), jax.random.split(KEY, 12)))


@pytest.mark.thorough
def test_the_inner_rate_never_falls_below_its_floor() -> None:
    rates = inner_rates_after_a_step()(1e-4)
    assert rates.min() == np.float32(MIN_INNER_RATE) == np.float32(1e-6)
    assert rates.max() > 1e-4


@pytest.mark.thorough
def test_the_inner_rate_can_leave_its_floor() -> None:
    rates = inner_rates_after_a_step()(MIN_INNER_RATE)
    assert rates.min() == np.float32(MIN_INNER_RATE)
    assert rates.max() > 1.01 * MIN_INNER_RATE


def test_the_inner_rate_is_put_back_to_its_floor_which_it_can_leave() -> None:
    problem = make_problem()
    start = quick_init(TINY, problem).distilled._replace(inner_rate=jnp.float32(MIN_INNER_RATE))
    free = problem.parameters(start)
    for step, wanted in ((-1.0, MIN_INNER_RATE), (1.0, np.e * MIN_INNER_RATE)):
        moved = problem.improved(free | {"inner_rate": free["inner_rate"] + step}, start)
        np.testing.assert_allclose(moved.inner_rate, wanted, rtol=1e-5)
    slope = jax.grad(lambda parameters: problem.distilled(parameters, start).inner_rate)(free)["inner_rate"]
    np.testing.assert_allclose(slope, MIN_INNER_RATE, rtol=1e-5)


MIXTURE = make_problem(DelayProbe(), learners=(SMALL, SHARP))
NORMALISING = dataclasses.replace(TINY, horizon=5, normalise_observations=True)


@pytest.mark.thorough
def test_the_same_key_gives_the_same_state_bit_for_bit() -> None:
    def run(key: jax.Array) -> PPMOState:
        state = quick_init(NORMALISING, MIXTURE)
        for index in range(3):
            state, _ = run_steps(NORMALISING, MIXTURE, state, jax.random.fold_in(key, index), 1)
        return state

    first, again, other = run(KEY), run(jax.random.key(0)), run(jax.random.key(1))
    assert jax.tree.all(jax.tree.map(lambda a, b: np.asarray(a).tobytes() == np.asarray(b).tobytes(), first, again))
    for name in ("observations", "targets", "inner_rate"):
        assert not np.array_equal(getattr(first.distilled, name), getattr(other.distilled, name)), name
    assert not jax.tree.all(jax.tree.map(np.array_equal, first.critic, other.critic))


def test_normalisation_statistics_are_those_of_all_collected_observations() -> None:
    # In odd numbers of steps the two observations of this task, [1, 0] and [0, 1], do not come up equally often.
    state = quick_init(NORMALISING, MIXTURE)
    assert state.statistics.seen == 0
    for steps, share in ((1, 0.6), (2, 0.5)):
        state, _ = run_steps(NORMALISING, MIXTURE, state, KEY, 1)
        assert NORMALISING.statistics(state) is state.statistics
        assert state.statistics.seen == steps * 5 * NORMALISING.learners * NORMALISING.environments
        np.testing.assert_allclose(state.statistics.mean, [share, 1 - share], rtol=1e-5)
        np.testing.assert_allclose(state.statistics.var, [share * (1 - share)] * 2, rtol=1e-5)
    assert TINY.statistics(state) is None


@pytest.mark.thorough
def test_random_examples_are_scaled_like_the_observations_that_follow() -> None:
    task = TimeLimitProbe()
    state = quick_init(NORMALISING, make_problem(task, examples=64, initial_examples="random-policy"))
    warm_up = np.asarray(random_observations(task, named_key(KEY, "warm-up"), WARM_UP))
    assert state.statistics.seen == WARM_UP
    np.testing.assert_allclose(state.statistics.mean, warm_up.mean(axis=0), rtol=1e-5)
    met = random_observations(task, named_key(named_key(KEY, "distilled"), "random policy"), 64)
    wanted = (np.asarray(met) - warm_up.mean(axis=0)) / np.sqrt(warm_up.var(axis=0) + 1e-8)
    np.testing.assert_allclose(state.distilled.observations, np.clip(wanted, -10, 10), rtol=1e-4, atol=1e-5)
    assert quick_init(TINY, make_problem(task, initial_examples="random-policy")).statistics.seen == 0


def test_rewards_are_scaled_by_the_spread_of_discounted_returns_and_reported_raw() -> None:
    """Against plain NumPy, over two steps, of which the second goes on with the episodes of the first."""
    outer = dataclasses.replace(TINY, normalise_rewards=True, discount=0.9)
    rewards = np.random.default_rng(0).normal(3.0, 2.0, (2, 5, 2, 2)).astype(np.float32)
    ended = np.random.default_rng(1).random((2, 5, 2, 2)) < 0.3
    state = quick_init(outer, make_problem(TimeLimitProbe()))._replace(discounted=(jnp.zeros((2, 2)),))
    carried, sums = np.zeros((2, 2)), []
    for step in range(2):
        zeros = jnp.zeros((5, 2, 2))
        trajectory = Trajectory(*(zeros,) * 4, jnp.asarray(rewards[step]), zeros > 0, jnp.asarray(ended[step]), zeros)
        state, (scaled,) = outer._scale_rewards(state, (trajectory,))
        for t in range(5):
            carried = 0.9 * carried + rewards[step, t]
            sums.append(carried)
            carried = np.where(ended[step, t], 0.0, carried)
        np.testing.assert_allclose(scaled.rewards, rewards[step] / np.std(sums), rtol=1e-4)


def test_a_step_learns_from_the_scaled_rewards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where that is asked for, and what it carries from step to step stays in its state."""
    outer, problem = dataclasses.replace(TINY, normalise_rewards=True), make_problem()
    learnt_from: list[Any] = []

    def scaled(_: PPMO, state: PPMOState, trajectories: Any) -> Any:
        marked = tuple(trajectory._replace(rewards="scaled") for trajectory in trajectories)
        return state._replace(discounted="carried"), marked

    def samples(_: PPMO, problem: Problem, state: PPMOState, trajectory: Trajectory, log_std: Any) -> None:
        learnt_from.append(trajectory.rewards)

    monkeypatch.setattr(PPMO, "_scale_rewards", scaled)
    monkeypatch.setattr(PPMO, "_samples", samples)
    monkeypatch.setattr(PPMO, "_update", lambda _, problem, state, *rest: (state, {}))
    carried: list[Any] = []

    def step(outer: PPMO, state: PPMOState, key: jax.Array) -> dict[str, jax.Array]:
        after, info = outer.step(problem, state, key)
        carried.append(after.discounted)
        return info

    start = jax.eval_shape(lambda key: outer.init(problem, key), KEY)
    info = jax.eval_shape(functools.partial(step, outer), start, KEY)
    assert (learnt_from, carried) == (["scaled"], ["carried"])
    assert info["episode_return"].shape == ()  # of the rewards as they were
    jax.eval_shape(functools.partial(step, TINY), start, KEY)
    assert learnt_from[1].shape == (TINY.horizon, TINY.learners, TINY.environments)


@pytest.mark.thorough
def test_with_scaled_rewards_their_unit_does_not_matter() -> None:
    factor = 100.0

    @dataclasses.dataclass(frozen=True)
    class InOtherUnits(TimeLimitProbe):
        def step(self, key: jax.Array, state: Any, action: jax.Array) -> Transition:
            transition = super().step(key, state, action)
            return transition._replace(reward=factor * transition.reward)

    outer = dataclasses.replace(TINY, normalise_rewards=True)
    states, infos = [], []
    for task in (TimeLimitProbe(), InOtherUnits()):
        problem = make_problem(task)
        state, info = run_steps(outer, problem, quick_init(outer, problem), KEY, 2)
        states.append(state)
        infos.append(info)
    np.testing.assert_allclose(states[0].distilled.observations, states[1].distilled.observations, rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(factor * infos[0]["episode_return"], infos[1]["episode_return"], rtol=1e-5)


def test_learners_are_shared_equally_by_the_distributions() -> None:
    problem = make_problem(learners=(SMALL,) * 3)
    outer = dataclasses.replace(TINY, learners=6, environments=3, horizon=5)
    state = jax.eval_shape(lambda key: outer.init(problem, key), KEY)
    assert [group.returns.shape for group in state.environments] == [(2, 3)] * 3
    _, info = run_steps(NORMALISING, MIXTURE, quick_init(NORMALISING, MIXTURE), KEY, 1)
    np.testing.assert_array_equal(info["env_steps"], [2 * 2 * 5])


def test_learners_that_cannot_be_shared_equally_are_refused() -> None:
    problem = make_problem(learners=(SMALL,) * 3)
    outer = dataclasses.replace(TINY, learners=4)
    with pytest.raises(FloppyError, match=r"4 learners .* 3 learner distributions: give a multiple of 3\.") as caught:
        outer.check(problem)
    assert "\n" not in str(caught.value)
    dataclasses.replace(TINY, learners=3).check(problem)


@pytest.mark.thorough
def test_every_distribution_of_a_mixture_counts() -> None:
    """The gradient is there when only the first group's samples say anything, and when only the second's do."""
    outer = dataclasses.replace(TINY, entropy_bonus=0.0)
    shapes = jax.eval_shape(lambda: outer.init(MIXTURE, KEY))
    state = jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), shapes)
    rows = 4
    nothing = Samples(*(jnp.zeros((rows, 1)),) * 5)
    nothing = nothing._replace(observations=jnp.ones((rows, 1, 2)), actions=jnp.zeros((rows, 1), jnp.int32))
    something = nothing._replace(actions=jnp.arange(rows)[:, None] % 2, advantages=jnp.arange(rows)[:, None] % 2 + 1.0)

    def gradient_norm(key: jax.Array, minibatch: tuple[Samples, Samples]) -> jax.Array:
        fresh = tuple(jax.vmap(network.init)(key[None]) for network in MIXTURE.networks)
        return outer._policy_gradient(MIXTURE, state, fresh, minibatch)[1]["gradient_norm"]

    norm = jax.jit(gradient_norm)
    assert norm(KEY, (nothing, nothing)) == 0.0
    assert norm(KEY, (something, nothing)) > 1e-4
    assert norm(KEY, (nothing, something)) > 1e-4


def test_a_partial_encoder_is_trained_with_the_examples() -> None:
    problem = make_problem(encoder_layers=1)
    before = quick_init(TINY, problem)
    after, _ = run_steps(TINY, problem, before, KEY, 2)
    assert len(after.distilled.encoder) == 1
    for name in ("observations", "targets", "inner_rate"):
        old, new = (getattr(state.distilled, name) for state in (before, after))
        assert not np.array_equal(old, new), name
    for name in ("kernel", "bias"):
        assert not np.array_equal(before.distilled.encoder[0][name], after.distilled.encoder[0][name]), name


def test_fresh_learners_leave_out_what_the_encoder_gives() -> None:
    problem = make_problem(encoder_layers=1)
    (network,) = problem.networks
    drawn, whole = jax.jit(lambda: (problem.draw(network, KEY), network.init(KEY)))()
    assert drawn.layers[0] == {}
    assert len(drawn.layers) == len(whole.layers)
    jax.tree.map(np.testing.assert_array_equal, drawn.layers[1:], whole.layers[1:])


def test_encoder_and_observations_can_have_rates_of_their_own() -> None:
    problem = make_problem(encoder_layers=1)
    start = quick_init(TINY, problem)
    start = start._replace(distilled=start.distilled._replace(inner_rate=jnp.float32(MIN_INNER_RATE)))
    gradient = jax.tree.map(jnp.ones_like, problem.parameters(start.distilled))
    samples = Samples(*(jnp.ones((4, TINY.learners)),) * 5)._replace(observations=jnp.ones((4, TINY.learners, 1)))

    def moved(**rates: float) -> dict[str, np.ndarray]:
        outer = dataclasses.replace(TINY, **rates)
        after = jax.jit(lambda: outer._moved(problem, start, gradient, (samples,))[0].distilled)()
        before = start.distilled
        assert after.inner_rate == np.float32(MIN_INNER_RATE)  # and no lower, whatever the gradient
        return {
            "targets": after.targets - before.targets,
            "observations": after.observations - before.observations,
            "encoder": after.encoder[0]["kernel"] - before.encoder[0]["kernel"],
        }

    same, other = moved(), moved(encoder_rate=TINY.rate / 10, observation_rate=TINY.rate / 5)
    for part, factor in {"targets": 1, "observations": 5, "encoder": 10}.items():
        np.testing.assert_allclose(other[part], same[part] / factor, rtol=1e-3, atol=2e-7)
        assert np.abs(other[part]).max() > 1e-4


COUNTS = ("learners", "environments", "horizon", "epochs", "minibatch_size", "critic_width")
POSITIVE = ("rate", "critic_rate", "clip", "max_grad_norm", "adam_eps")
SHARES = ("discount", "gae_lambda")
ZERO_OR_MORE = ("encoder_rate", "observation_rate", "entropy_bonus", "target_kl", "least_std")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, value) for name in COUNTS for value in (0, -3)),
        *((name, value) for name in POSITIVE for value in (0.0, -1.0, float("nan"), float("inf"))),
        *((name, value) for name in SHARES for value in (-0.1, 1.1, float("nan"))),
        *((name, value) for name in ZERO_OR_MORE for value in (-0.01, float("nan"), float("inf"))),
    ],
)
def test_numbers_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(FloppyError, match=rf"^{name} must be .*, got {value}\.$") as caught:
        PPMO(**{name: value})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"), [("discount", 0.0), ("gae_lambda", 1.0), ("entropy_bonus", 0.0), ("epochs", 1)]
)
def test_the_bounds_themselves_are_allowed(name: str, value: float) -> None:
    assert getattr(PPMO(**{name: value}), name) == value


# --- plain PPO, written once more ---


def mlp(layers: Any, x: Any, numpy: Any = jnp) -> Any:
    for layer in layers[:-1]:
        x = numpy.tanh(x @ layer["kernel"] + raised(layer["bias"], x))
    return x @ layers[-1]["kernel"] + raised(layers[-1]["bias"], x)


def raised(vector: Any, like: Any) -> Any:
    """With as many axes as another array."""
    return vector[(None,) * (like.ndim - 1)]


def log_prob_and_entropy(output: Any, log_std: Any, action: Any, numpy: Any = jnp) -> tuple[Any, Any]:
    """Log-probabilities of the actions, and the policy's mean entropy; discrete where the actions are integers."""
    if log_std.size:
        std, log = raised(numpy.exp(log_std), output), raised(log_std, output)
        density = -0.5 * ((action - output) / std) ** 2 - log - 0.5 * np.log(2 * np.pi)
        return density.sum(-1), (0.5 * np.log(2 * np.pi * np.e) + log_std).sum()
    log_p = numpy.log(numpy.exp(output) / numpy.exp(output).sum(-1, keepdims=True))
    return numpy.take_along_axis(log_p, action[..., None], axis=-1)[..., 0], -(numpy.exp(log_p) * log_p).sum(-1).mean()


def ordinary_ppo(outer: PPMO, problem: Problem, state: PPMOState, trajectory: Trajectory, key: jax.Array) -> Any:
    """The same outer step as plain PPO on a flat batch: layers and `log_std` of the policy, layers of the critic."""
    policy, critic = (state.distilled.encoder, state.distilled.log_std), state.critic.layers
    log_std, layers = np.asarray(policy[1]), jax.tree.map(np.asarray, critic)
    record = Trajectory(*map(np.asarray, trajectory))
    values, next_values = (mlp(layers, o, np)[..., 0] for o in (record.observations, record.next_observations))
    advantage, advantages = np.zeros(values.shape[1:]), np.zeros(values.shape)
    for t in reversed(range(outer.horizon)):
        ended = record.terminated[t] | record.truncated[t]
        target = record.rewards[t] + outer.discount * next_values[t] * ~record.terminated[t]
        advantage = target - values[t] + outer.discount * outer.gae_lambda * advantage * ~ended
        advantages[t] = advantage
    rows = {
        "observation": record.observations,
        "action": record.actions,
        "log_prob": log_prob_and_entropy(record.outputs, log_std, record.actions, np)[0],
        "advantage": advantages.astype(np.float32),
        "return": (advantages + values).astype(np.float32),
    }
    # One row holds what all learners did at one time in one environment.
    rows = {name: np.swapaxes(array, 1, 2) for name, array in rows.items()}
    rows = {name: array.reshape(-1, *array.shape[2:]) for name, array in rows.items()}

    def policy_loss(policy: Any, batch: dict[str, jax.Array]) -> jax.Array:
        layers, log_std = policy
        log_prob, entropy = log_prob_and_entropy(mlp(layers, batch["observation"]), log_std, batch["action"])
        a = (batch["advantage"] - batch["advantage"].mean()) / batch["advantage"].std()
        ratio = jnp.exp(log_prob - batch["log_prob"])
        clipped = jnp.clip(ratio, 1 - outer.clip, 1 + outer.clip)
        return -jnp.minimum(ratio * a, clipped * a).mean() - outer.entropy_bonus * entropy

    def critic_loss(layers: Any, batch: dict[str, jax.Array]) -> jax.Array:
        return 0.5 * ((mlp(layers, batch["observation"])[..., 0] - batch["return"]) ** 2).mean()

    count, size = len(rows["advantage"]), outer.minibatch_size // outer.learners
    updates = problem.outer_steps * outer.epochs * (count // size)

    def train(loss: Any, rate: float, parameters: Any, batches: Any) -> Any:
        optimiser = optax.chain(
            optax.clip_by_global_norm(outer.max_grad_norm),
            optax.adam(lambda done: rate * (1 - done / updates), eps=outer.adam_eps),
        )
        memory = optimiser.init(parameters)
        for batch in batches:
            change, memory = optimiser.update(jax.grad(loss)(parameters, batch), memory)
            parameters = optax.apply_updates(parameters, change)
        return parameters

    batches = []
    for order in np.asarray(shuffled(named_key(key, "shuffle"), count, outer.epochs)):
        batches += [{name: array[chosen] for name, array in rows.items()} for chosen in order.reshape(-1, size)]

    def both(batches: Any) -> Any:
        return (
            *train(policy_loss, outer.rate, policy, batches),
            train(critic_loss, outer.critic_rate, critic, batches),
        )

    return jax.jit(both)(batches)


@pytest.mark.thorough(all_but=["discrete"])
@pytest.mark.parametrize("task", [TimeLimitProbe(max_steps=3), TWO_TARGETS], ids=["discrete", "continuous"])
def test_with_every_layer_in_the_encoder_it_is_ppo(task: JaxTask) -> None:
    learners = 3
    problem = plain_problem(task, outer_steps=3)
    outer = dataclasses.replace(TINY, learners=learners, minibatch_size=6 * learners, rate=3e-2, entropy_bonus=0.1)
    state, key = quick_init(outer, problem), jax.random.key(3)
    after, _ = jax.jit(lambda s, k: outer.step(problem, s, k))(state, key)
    network, weights = problem.networks[0], plain_policies(state.distilled, learners)
    _, trajectory = jax.jit(
        lambda s, k: collect(task, network, weights, s.environments[0], named_key(k, "collect 0"), steps=outer.horizon)
    )(state, key)
    wanted = ordinary_ppo(outer, problem, state, trajectory, key)
    got = (after.distilled.encoder, after.distilled.log_std, after.critic.layers)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, wanted)
    for layer, old in zip(after.distilled.encoder, state.distilled.encoder, strict=True):
        assert np.abs(layer["kernel"] - old["kernel"]).max() > 1e-3
    assert after.distilled.inner_rate == state.distilled.inner_rate
