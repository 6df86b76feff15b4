"""HaDES: it solves probes by fitness alone, candidates are compared fairly, and a run gives the same bytes again."""

import dataclasses
import functools
import math
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from probes import (
    PROBES,
    QUICK,
    SMALL,
    ActionProbe,
    ContinuousProbe,
    ImageProbe,
    ObservationProbe,
    ProbeState,
    TimeLimitProbe,
    make_problem,
    plain_problem,
    start,
    transition,
)

from floppy import rollout
from floppy.arena import WARM_UP
from floppy.cache import enable_compilation_cache
from floppy.cli import Distill
from floppy.cloning import AdamSteps, clone
from floppy.dataset import load
from floppy.distill import DistillConfig, DistillResult, distill, to_dataset
from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.learners import LearnerDistribution
from floppy.normalise import Moments, RunningStatistics
from floppy.outer import HaDES, Problem, evolution
from floppy.outer.base import LEAST_INNER_RATE
from floppy.outer.evolution import HaDESState
from floppy.parallel import replicate
from floppy.rollout import Played, play_episodes, random_observations
from floppy.tasks import Discrete, JaxTask, Transition
from floppy.tasks.ndcartpole import NDCartPole

KEY = jax.random.key(0)
TINY = HaDES(population=8, initialisations=2, environments=3)

pytestmark = pytest.mark.usefixtures("quick_compile")


@functools.partial(jax.jit, static_argnums=(0, 1, 3), compiler_options=QUICK)
def evolve(outer: HaDES, problem: Problem, key: jax.Array, steps: int) -> tuple[HaDESState, HaDESState, Any]:
    """The states before and after several generations, and their infos, stacked."""
    first = outer.init(problem, named_key(key, "init"))
    last, info = jax.lax.scan(lambda state, k: outer.step(problem, state, k), first, jax.random.split(key, steps))
    return first, last, info


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=QUICK)
def quick_init(outer: HaDES, problem: Problem, key: jax.Array = KEY) -> HaDESState:
    return outer.init(problem, key)


@dataclasses.dataclass(frozen=True)
class FirstStepProbe(ActionProbe):
    """Ends with action 1 or after 6 steps and pays 1 in every step; observations tell the first step from others."""

    max_steps: int = 6
    max_return: float = 6.0

    def observe(self, time: jax.Array | int) -> jax.Array:
        first = jnp.where(jnp.asarray(time) == 0, 1.0, 0.0)
        return jnp.stack([first, 1000.0 + 2.0 * first])

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        del key
        return start(), self.observe(0)

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        time = state.time + 1
        ends = {"terminated": action == 1, "truncated": time >= self.max_steps}
        return transition(state._replace(time=time), self.observe(time), 1.0, **ends)


@dataclasses.dataclass(frozen=True)
class NoisyProbe(ContinuousProbe):
    """Two steps, of which the start and every step are random."""

    max_steps: int = 2

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        return start(), jax.random.normal(key, (2,))

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        reward = jax.random.normal(key) - jnp.sum((action - jnp.array(self.target)) ** 2)
        time = state.time + 1
        observation = jax.random.normal(jax.random.fold_in(key, 1), (2,))
        return transition(state._replace(time=time), observation, reward, terminated=time >= 2)


# --- it learns ---


LEARNING = HaDES(population=32, initialisations=2, environments=16, sigma=0.3, sigma_decay=0.1, rate=0.1)


@pytest.mark.parametrize(
    ("probe", "plain"),
    [*((probe, False) for probe in PROBES), (ObservationProbe(), True), (ContinuousProbe(), True)],
    ids=lambda value: value.task_id if isinstance(value, JaxTask) else "plain" if value else "hades",
)
def test_probes_are_solved(probe: JaxTask, plain: bool) -> None:
    problem = plain_problem(probe) if plain else make_problem(probe, initial_rate=0.1)
    _, _, info = evolve(LEARNING, problem, KEY, 60)
    fitness = np.asarray(info["fitness"])
    # Fitness is the mean over a population that is spread around the best; continuous actions are spread too.
    near = probe.max_return - (0.25 if isinstance(probe, ContinuousProbe) else 0.1 * probe.max_return)
    assert fitness[0] < near - 0.2, "solved before the first step: this shows nothing"
    assert fitness[-5:].mean() > near, fitness
    for values in info.values():
        assert np.isfinite(values).all()


@pytest.mark.parametrize("strategy", ["SNES", "Sep_CMA_ES"])
def test_other_strategies_solve_a_probe(strategy: str) -> None:
    outer = dataclasses.replace(LEARNING, strategy=strategy, rate=None)
    _, _, info = evolve(outer, make_problem(initial_rate=0.1), KEY, 60)
    assert float(info["fitness"][0]) < 0.7
    assert float(info["fitness"][-5:].mean()) > 0.9


# --- one generation ---


def test_a_generation_equals_its_slow_twin() -> None:
    """One candidate, one learner at a time, from the contract of the strategy."""
    task = NoisyProbe(target=(0.5, -0.5))
    mixture = (SMALL, dataclasses.replace(SMALL, width=(8, 8), initialiser=("xavier1",)))
    problem = make_problem(task, learners=mixture, cloning=AdamSteps(loss="gaussian-nll", steps=3), initial_rate=0.1)
    outer = HaDES(population=4, initialisations=4, environments=2, chunk=3)
    state = quick_init(outer, problem)
    key = named_key(KEY, "generation")
    after, info = jax.jit(outer.step, static_argnums=0, compiler_options=QUICK)(problem, state, key)

    _, unravel = ravel_pytree(problem.parameters(state.distilled))
    strategy = outer._strategy(problem, state.distilled)
    candidates = strategy.ask(state.strategy, named_key(key, "ask"))

    @functools.partial(jax.jit, static_argnums=0, compiler_options=QUICK)
    def episode_returns(group: int, vector: jax.Array, fresh_key: jax.Array, play_key: jax.Array) -> jax.Array:
        network = problem.networks[group]
        dataset = problem.distilled(unravel(vector), state.distilled)
        weights = clone(problem.cloning, network, dataset, network.init(fresh_key))
        alone = jax.tree.map(lambda leaf: leaf[None], weights)
        return play_episodes(task, network, alone, play_key[None], episodes=2).returns

    fitness = []
    for index in range(4):
        returns = []
        for group in range(2):
            fresh_keys = jax.random.split(named_key(key, f"learners {group}"), 2)
            play_keys = jax.random.split(named_key(named_key(key, "play"), f"group {group}"), 2)
            for fresh_key, play_key in zip(fresh_keys, play_keys, strict=True):
                returns.append(episode_returns(group, strategy.member(candidates, index), fresh_key, play_key))
        fitness.append(np.mean(returns))
    assert len(np.unique(fitness)) == 4
    np.testing.assert_allclose(info["fitness"], np.mean(fitness), rtol=1e-4)
    np.testing.assert_allclose(info["best_fitness"], np.max(fitness), rtol=1e-4)
    np.testing.assert_allclose(info["fitness_sd"], np.std(fitness), rtol=1e-3)
    told = strategy.tell(state.strategy, candidates, jnp.asarray(fitness), KEY)
    np.testing.assert_allclose(after.strategy.mean, told.mean, rtol=1e-4, atol=1e-5)
    # What is distilled is the new mean.
    wanted = problem.distilled(unravel(told.mean), state.distilled)
    for got, leaf in zip(jax.tree.leaves(outer.distilled(after)), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-4, atol=1e-5)


STILL = 1e-30
"""A deviation so small that all candidates are one."""


@pytest.mark.parametrize("strategy", ["Open_ES", "Sep_CMA_ES"])
def test_identical_candidates_get_identical_fitness_by_common_random_numbers(strategy: str) -> None:
    outer = HaDES(strategy=strategy, population=12, initialisations=2, environments=3, sigma=STILL, chunk=5)
    problem = make_problem(TimeLimitProbe(), initial_rate=1e-6)
    for task in (TimeLimitProbe(), NoisyProbe()):
        _, _, info = evolve(outer, dataclasses.replace(problem, task=task), KEY, 1)
        assert float(info["best_fitness"][0]) == pytest.approx(float(info["fitness"][0]), rel=1e-5)
    assert float(info["fitness_sd"][0]) < 1e-6
    independent = dataclasses.replace(outer, common_random_numbers=False)
    _, _, info = evolve(independent, problem, KEY, 1)
    # A fair coin in each of 2 x 3 x 5 steps.
    assert float(info["fitness_sd"][0]) == pytest.approx((5 * 0.25 / 6) ** 0.5, rel=0.5)
    assert float(info["fitness"][0]) == pytest.approx(2.5, abs=0.5)


def test_an_episode_that_is_cut_counts_with_its_return_so_far() -> None:
    outer = dataclasses.replace(TINY, horizon=5)
    # Cart-pole cannot fall within five steps and pays 1 for each.
    _, _, info = evolve(outer, make_problem(NDCartPole(1)), KEY, 2)
    np.testing.assert_array_equal(info["fitness"], [5.0, 5.0])
    np.testing.assert_array_equal(info["best_fitness"], [5.0, 5.0])
    np.testing.assert_array_equal(info["episode_length"], [5.0, 5.0])
    np.testing.assert_array_equal(info["env_steps"], [8 * 2 * 3 * 5] * 2)


def test_a_horizon_beyond_the_tasks_own_limit_changes_nothing() -> None:
    problem = make_problem(TimeLimitProbe())
    _, _, info = evolve(dataclasses.replace(TINY, horizon=50), problem, KEY, 1)
    _, _, unlimited = evolve(TINY, problem, KEY, 1)
    np.testing.assert_array_equal(info["env_steps"], [8 * 2 * 3 * 5])
    for name, values in info.items():
        np.testing.assert_array_equal(values, unlimited[name])


def test_env_steps_are_the_sum_of_episode_lengths() -> None:
    _, _, info = evolve(TINY, make_problem(FirstStepProbe()), KEY, 3)
    # Every step pays 1.
    episodes = 8 * 2 * 3
    np.testing.assert_allclose(info["env_steps"], np.asarray(info["fitness"]) * episodes, rtol=1e-6)
    np.testing.assert_allclose(info["episode_length"], info["fitness"], rtol=1e-6)
    assert (np.asarray(info["env_steps"]) < 5 * episodes).all(), "no episode ended early: this shows nothing"
    assert jnp.issubdtype(info["env_steps"].dtype, jnp.integer)


@pytest.mark.parametrize("chunk", [3, 8])
def test_the_chunk_size_changes_nothing(chunk: int) -> None:
    problem = make_problem(TimeLimitProbe(), cloning=AdamSteps(loss="cross-entropy", steps=3), initial_rate=0.1)
    outer = dataclasses.replace(TINY, chunk=1, normalise_observations=True)
    first, one_by_one, info = evolve(outer, problem, KEY, 3)
    _, other, other_info = evolve(dataclasses.replace(outer, chunk=chunk), problem, KEY, 3)
    for name, values in info.items():
        np.testing.assert_allclose(other_info[name], values, rtol=1e-5, err_msg=name)
    for got, wanted in zip(jax.tree.leaves(other), jax.tree.leaves(one_by_one), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-5)
    assert np.abs(one_by_one.strategy.mean - first.strategy.mean).max() > 0.01, "nothing moved: this shows nothing"


# --- smooth noise ---


def slow_smooth(noise: np.ndarray, length: float) -> np.ndarray:
    """Pixel by pixel: Gaussian weights of all pixels of the channel, of square sum 1."""
    result = np.zeros_like(noise)
    examples, rows, columns, channels = noise.shape
    for row, column in np.ndindex(rows, columns):
        near = [(i, j, (i - row) ** 2 + (j - column) ** 2) for i in range(rows) for j in range(columns)]
        weights = [(i, j, math.exp(-squared / (2 * length**2))) for i, j, squared in near]
        norm = math.sqrt(sum(weight**2 for _, _, weight in weights))
        for k, channel in np.ndindex(examples, channels):
            result[k, row, column, channel] = sum(w * noise[k, i, j, channel] for i, j, w in weights) / norm
    return result


def test_smooth_noise_equals_its_slow_twin() -> None:
    noise = np.random.default_rng(0).normal(size=(2, 4, 3, 2))
    np.testing.assert_allclose(evolution.smooth(jnp.asarray(noise), 1.5), slow_smooth(noise, 1.5), rtol=1e-5, atol=1e-6)


def test_smooth_noise_of_a_row_by_hand() -> None:
    # Length 1, two pixels: weights 1 and exp(-1/2), divided by their norm.
    weights = np.array([1.0, np.exp(-0.5)]) / np.sqrt(1 + np.exp(-1))
    got = evolution.smooth(jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1), 1.0)
    np.testing.assert_allclose(got[0, 0, :, 0], weights, rtol=1e-6)


def test_smooth_noise_has_variance_one_and_is_alike_within_the_length() -> None:
    # Every pixel of 1 x 41 in turn as the only noise: the columns of the map from white to smooth noise.
    columns = evolution.smooth(jnp.eye(41).reshape(41, 1, 41, 1), 3.0)[:, 0, :, 0]
    covariance = np.asarray(columns.T @ columns)
    np.testing.assert_allclose(np.diag(covariance), np.ones(41), rtol=1e-5)
    # Far from the border a Gaussian of deviation l, folded with itself, has deviation l √2.
    np.testing.assert_allclose(covariance[20, 20:27], np.exp(-(np.arange(7) ** 2) / (4 * 9)), rtol=1e-3)


@pytest.mark.parametrize("strategy", ["Open_ES", "Sep_CMA_ES"])
def test_smooth_search_of_nearly_no_length_is_the_plain_one(strategy: str) -> None:
    outer = dataclasses.replace(TINY, strategy=strategy)
    problem = make_problem(ImageProbe(), initial_rate=0.1)
    first, plain, _ = evolve(outer, problem, KEY, 3)
    _, smooth, _ = evolve(dataclasses.replace(outer, smoothness=1e-3), problem, KEY, 3)
    for before, got, wanted in zip(*(jax.tree.leaves(s.distilled) for s in (first, smooth, plain)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert np.size(before) == 0 or (np.asarray(before) != np.asarray(got)).any()


def test_a_smooth_search_moves_neighbouring_pixels_alike() -> None:
    """As differences from a start that is not smooth at all; other parameters move as they do without."""
    outer = dataclasses.replace(TINY, population=32)
    moves = {}
    for smoothness in (0.0, 4.0):
        first, last, _ = evolve(dataclasses.replace(outer, smoothness=smoothness), make_problem(ImageProbe()), KEY, 1)
        moves[smoothness] = jax.tree.map(lambda new, old: np.asarray(new - old), last.distilled, first.distilled)

    def roughness(move: np.ndarray) -> float:
        return float(np.std(np.diff(move, axis=1)) / np.std(move))

    assert roughness(moves[0.0].observations) > 1
    assert roughness(moves[4.0].observations) < 0.35
    assert np.std(np.diff(moves[4.0].observations, axis=0)) > 0.01, "each example moves in its own way"
    np.testing.assert_allclose(np.abs(moves[4.0].targets), np.abs(moves[0.0].targets), rtol=1e-3)


def test_noise_of_targets_is_in_units_of_that_of_observations() -> None:
    """A quarter of the noise on targets, of their first step too; observations go as they went."""
    problem = make_problem()
    clones, moves = {}, {}
    for unit in (1.0, 0.25):
        outer = dataclasses.replace(TINY, population=64, target_noise=unit, rate=0.01)
        state = quick_init(outer, problem)
        candidates = outer._strategy(problem, state.distilled).ask(state.strategy, KEY)
        member = outer._strategy(problem, state.distilled).member(candidates, jnp.asarray(3))
        clones[unit] = outer._dataset(problem, state, member)
        first, last, _ = evolve(outer, problem, KEY, 1)
        moves[unit] = jax.tree.map(lambda new, old: np.asarray(new - old), last.distilled, first.distilled)
    start = quick_init(TINY, problem).distilled
    noise = {unit: np.asarray(dataset.targets - start.targets) for unit, dataset in clones.items()}
    assert np.abs(noise[1.0]).min() > 0
    np.testing.assert_allclose(noise[0.25], noise[1.0] / 4, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(clones[0.25].observations, clones[1.0].observations)
    # Adam's first step is as long as its rate, whichever way fitness points.
    np.testing.assert_allclose(np.abs(moves[1.0].targets), 0.01, rtol=1e-2)
    np.testing.assert_allclose(np.abs(moves[0.25].targets), 0.0025, rtol=1e-2)
    np.testing.assert_allclose(np.abs(moves[0.25].observations), 0.01, rtol=1e-2)


def test_a_smooth_search_solves_an_image_probe() -> None:
    outer = dataclasses.replace(LEARNING, smoothness=3.0)
    _, _, info = evolve(outer, make_problem(ImageProbe(), initial_rate=0.01), KEY, 60)
    fitness = np.asarray(info["fitness"])
    assert fitness[0] < 0.7
    assert fitness[-5:].mean() > 0.9, fitness


def test_smooth_noise_for_observations_that_are_no_images_is_refused() -> None:
    with pytest.raises(FloppyError, match=r"smoothness = 2 was asked for, probe/observation has observations of shape"):
        HaDES(smoothness=2.0).init(make_problem(), KEY)


# --- what is searched ---


def one_hot_problem(**changes: Any) -> Problem:
    cloning = AdamSteps(loss="cross-entropy", steps=2)
    values: dict[str, Any] = {"targets": "one-hot", "examples": 3, "initial_rate": 0.1}
    return make_problem(TimeLimitProbe(), cloning=cloning, **(values | changes))


def test_one_hot_targets_and_a_fixed_rate_never_change() -> None:
    first, last, info = evolve(TINY, one_hot_problem(learned_rate=False), KEY, 4)
    np.testing.assert_array_equal(last.distilled.targets, [[1, 0], [1, 0], [0, 1]])
    assert float(last.distilled.inner_rate) == np.float32(0.1)
    np.testing.assert_array_equal(info["inner_rate"], np.full(4, np.float32(0.1)))
    assert (np.asarray(last.distilled.observations) != np.asarray(first.distilled.observations)).all()


def test_learned_targets_stay_probabilities_and_a_learned_rate_moves() -> None:
    first, last, info = evolve(TINY, one_hot_problem(targets="learned"), KEY, 4)
    targets = np.asarray(last.distilled.targets)
    np.testing.assert_allclose(targets.sum(axis=1), np.ones(3), rtol=1e-5)
    assert (targets > 0).all()
    assert (targets != np.asarray(first.distilled.targets)).all()
    rates = np.asarray(info["inner_rate"])
    assert len(np.unique(rates)) == 4
    assert (rates > 0).all()


def test_a_fixed_dataset_of_labels_is_spread_evenly_over_the_actions() -> None:
    problem = make_problem(ActionProbe(actions=Discrete(3)), examples=7, targets="one-hot", cloning=AdamSteps())
    targets = np.asarray(quick_init(TINY, problem).distilled.targets)
    np.testing.assert_array_equal(targets.argmax(axis=1), [0, 0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(targets.sum(axis=1), np.ones(7))


def test_initial_examples() -> None:
    task = NDCartPole(1)
    normal, zeros, met = (
        quick_init(TINY, make_problem(task, examples=400, initial_examples=kind)).distilled
        for kind in ("normal", "zeros", "random-policy")
    )
    for values in (normal.observations, normal.targets):
        assert float(jnp.mean(values)) == pytest.approx(0.0, abs=0.1)
        assert float(jnp.std(values)) == pytest.approx(1.0, abs=0.1)
    assert not zeros.observations.any()
    assert not zeros.targets.any()
    assert not met.targets.any()
    wanted = random_observations(task, named_key(named_key(KEY, "distilled"), "random policy"), 400)
    np.testing.assert_allclose(met.observations, wanted, rtol=1e-4, atol=1e-5)
    normalised = quick_init(
        dataclasses.replace(TINY, normalise_observations=True),
        make_problem(task, examples=400, initial_examples="random-policy"),
    ).distilled.observations
    warm_up = np.asarray(random_observations(task, named_key(KEY, "warm-up"), WARM_UP))
    scaled = (np.asarray(wanted) - warm_up.mean(axis=0)) / np.sqrt(warm_up.var(axis=0))
    np.testing.assert_allclose(normalised, np.clip(scaled, -10, 10), rtol=1e-3, atol=1e-4)


def test_zero_examples_of_class_labels_are_uniform() -> None:
    problem = one_hot_problem(targets="learned", initial_examples="zeros")
    np.testing.assert_allclose(quick_init(TINY, problem).distilled.targets, np.full((3, 2), 0.5))


# --- whose clones play ---


class FakePlay:
    """In place of `play_episodes`: a policy's return is the sum of its first kernel; notes who plays."""

    def __init__(self) -> None:
        self.calls: list[tuple[LearnerDistribution, int, int]] = []
        self.episodes: list[int] = []

    def __call__(self, task: JaxTask, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        kernel = weights.layers[0]["kernel"]
        self.calls.append((network.distribution, kernel.shape[0], keys.shape[0]))
        self.episodes.append(options["episodes"])
        shape = (kernel.shape[0], options["episodes"])
        returns = jnp.broadcast_to(jnp.sum(kernel, axis=(1, 2))[:, None], shape)
        return Played(returns, jnp.ones(shape, jnp.int32), None)


@pytest.fixture
def fake_play(monkeypatch: pytest.MonkeyPatch) -> FakePlay:
    fake = FakePlay()
    monkeypatch.setattr(rollout, "play_episodes", fake)
    return fake


def fitness_of(outer: HaDES, problem: Problem, steps: int = 3) -> np.ndarray:
    """Mean fitness of some generations, in which cloning changes next to nothing; not from any cache."""

    def run(key: jax.Array) -> Any:
        state = outer.init(problem, key)
        return jax.vmap(lambda k: outer.step(problem, state, k)[1])(jax.random.split(key, steps))

    info = jax.jit(run, compiler_options=QUICK)(KEY)
    # All candidates got the same learners.
    np.testing.assert_allclose(info["best_fitness"], info["fitness"], rtol=1e-4, atol=1e-4)
    return np.asarray(info["fitness"])


def kernel_sum(distribution: LearnerDistribution, task: JaxTask) -> float:
    problem = make_problem(task, learners=(distribution,))
    return float(jnp.sum(problem.networks[0].init(KEY).layers[0]["kernel"]))


def test_hades_f_trains_one_learner_and_hades_r_ever_new_ones(fake_play: FakePlay) -> None:
    settings: dict[str, Any] = {"initial_rate": 1e-6, "learned_rate": False}
    random = fitness_of(TINY, make_problem(**settings))
    assert len(np.unique(random)) == 3
    fixed = dataclasses.replace(SMALL, init_seed=3)
    got = fitness_of(TINY, make_problem(learners=(fixed,), **settings))
    np.testing.assert_allclose(got, np.full(3, kernel_sum(fixed, ObservationProbe())), rtol=1e-4)
    other = dataclasses.replace(SMALL, init_seed=4)
    assert abs(kernel_sum(other, ObservationProbe()) - got[0]) > 0.01


@pytest.mark.parametrize("common", [True, False], ids=["common-streams", "own-streams"])
def test_a_mixture_shares_the_learners_equally(fake_play: FakePlay, common: bool) -> None:
    mixture = tuple(
        dataclasses.replace(SMALL, width=(width, width), init_seed=width, initialiser=("xavier1",))
        for width in (8, 16, 24)
    )
    outer = HaDES(population=4, initialisations=6, environments=2, chunk=4, common_random_numbers=common)
    problem = make_problem(learners=mixture, initial_rate=1e-6, learned_rate=False)
    got = fitness_of(outer, problem)
    wanted = np.mean([kernel_sum(distribution, problem.task) for distribution in mixture])
    np.testing.assert_allclose(got, np.full(3, wanted), rtol=1e-3)
    assert [call[0] for call in fake_play.calls[:3]] == list(mixture)
    # One clone of each kind, which is one draw, for each of 4 candidates; with common random numbers one stream.
    assert {call[1:] for call in fake_play.calls} == {(4, 1 if common else 4)}
    assert set(fake_play.episodes) == {2 * 2}, "a single draw plays the episodes of both its initialisations"


def test_learners_that_cannot_be_shared_are_refused() -> None:
    problem = make_problem(learners=(SMALL, dataclasses.replace(SMALL, width=(8, 8))))
    with pytest.raises(FloppyError, match=r"^3 initialisations cannot be shared equally by 2 learner distributions: "):
        HaDES(initialisations=3).init(problem, KEY)


# --- what diverges ---


class FailingPlay(FakePlay):
    """As `FakePlay`, but policies with a sum above `most` come to nothing; each meets one observation, its kernel."""

    most: float = 0.0

    def __call__(self, task: JaxTask, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        played = super().__call__(task, network, weights, keys, **options)
        returns = jnp.where(played.returns > self.most, jnp.nan, played.returns)
        sums = played.returns[:, :1]
        return played._replace(returns=returns, moments=Moments(jnp.ones(len(sums)), sums, sums**2))


@pytest.mark.parametrize("share", ["some", "all"])
def test_a_candidate_that_fails_counts_as_the_worst(share: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FailingPlay()
    fake.most = 0.0 if share == "some" else -np.inf
    monkeypatch.setattr(rollout, "play_episodes", fake)
    outer = dataclasses.replace(TINY, normalise_observations=True, sigma=0.5, chunk=3)
    problem = plain_problem()
    state = quick_init(outer, problem)
    after, info = jax.jit(lambda: outer.step(problem, state, KEY), compiler_options=QUICK)()

    _, unravel = ravel_pytree(problem.parameters(state.distilled))
    strategy = outer._strategy(problem, state.distilled)
    candidates = strategy.ask(state.strategy, named_key(KEY, "ask"))
    members = [unravel(strategy.member(candidates, index)) for index in range(8)]
    sums = np.array([float(jnp.sum(member["encoder"][0]["kernel"])) for member in members])
    failed = sums > fake.most
    assert 0 < failed.sum() < 8 if share == "some" else failed.all()
    assert int(info["failed"]) == failed.sum()
    if failed.all():
        assert np.isnan(info["fitness"]), "nothing is left to go by: the run must end"
        assert float(after.statistics.seen) == WARM_UP
        return
    fitness = np.where(failed, sums[~failed].min(), sums)
    np.testing.assert_allclose(info["fitness"], fitness.mean(), rtol=1e-4)
    np.testing.assert_allclose(info["best_fitness"], fitness.max(), rtol=1e-4)
    np.testing.assert_allclose(info["fitness_sd"], fitness.std(), rtol=1e-4)
    told = strategy.tell(state.strategy, candidates, jnp.asarray(fitness), KEY)
    np.testing.assert_allclose(after.strategy.mean, told.mean, rtol=1e-4, atol=1e-5)
    # Two learners of each of the others met one observation each.
    assert float(after.statistics.seen) == WARM_UP + 2 * (8 - failed.sum())
    shift = np.asarray(state.statistics.mean)
    wanted = (WARM_UP * shift + 2 * np.sum(sums[~failed, None] + shift, axis=0)) / (WARM_UP + 2 * (~failed).sum())
    np.testing.assert_allclose(after.statistics.mean, wanted, rtol=1e-4, atol=1e-5)


def test_a_run_of_which_all_candidates_diverge_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FailingPlay()
    fake.most = -np.inf
    monkeypatch.setattr(rollout, "play_episodes", fake)
    config = DistillConfig("cartpole", outer_steps=2, distribution="width=16:depth=1", outer=TINY, selection_learners=2)
    with pytest.raises(FloppyError, match=r"^The run diverged: best_fitness is not finite at outer step 1: lower the"):
        distill(config)


def test_a_rate_below_its_floor_is_played_as_it_is_stored() -> None:
    problem = make_problem()
    state = quick_init(TINY, problem)
    vector, _ = ravel_pytree(problem.parameters(state.distilled) | {"inner_rate": jnp.log(jnp.asarray(1e-20))})
    dataset = TINY._dataset(problem, state, vector)
    assert float(dataset.inner_rate) == np.float32(LEAST_INNER_RATE)


def test_a_search_from_a_files_statistics_keeps_them() -> None:
    outer = dataclasses.replace(TINY, normalise_observations=True)
    problem = make_problem(FirstStepProbe())
    of_a_file = RunningStatistics(jnp.zeros(()), jnp.array([0.5, 1001.0]), jnp.array([0.25, 1.0]))
    state = outer.start(problem, quick_init(outer, problem).distilled, of_a_file)
    after, _ = jax.jit(outer.step, static_argnums=0, compiler_options=QUICK)(problem, state, KEY)
    assert float(after.statistics.seen) > 1e6
    np.testing.assert_allclose(after.statistics.mean, of_a_file.mean, rtol=1e-3)
    np.testing.assert_allclose(after.statistics.var, of_a_file.var, rtol=1e-2)


@pytest.mark.parametrize(
    ("loss", "encoder_layers", "searched"), [("gaussian-nll", 0, False), ("mse", 0, True), ("gaussian-nll", 2, True)]
)
def test_log_std_is_searched_where_it_is_read(loss: str, encoder_layers: int, searched: bool) -> None:
    shape = {"encoder_layers": encoder_layers, "examples": 0 if encoder_layers else 2}
    problem = make_problem(ContinuousProbe(), cloning=AdamSteps(loss=loss, steps=2), initial_rate=0.1, **shape)
    first, last, _ = evolve(TINY, problem, KEY, 1)
    assert np.any(first.distilled.log_std != last.distilled.log_std) == searched
    config = DistillConfig("pendulum", outer=TINY, cloning=problem.cloning, **shape)
    stored = to_dataset(config, problem, last.distilled, None, None, "").log_std
    assert (stored is not None) == searched


# --- observations are normalised ---


def test_statistics_are_those_of_all_observations_acted_upon() -> None:
    outer = dataclasses.replace(TINY, normalise_observations=True, chunk=3)
    first, last, info = evolve(outer, make_problem(FirstStepProbe()), KEY, 3)
    statistics = outer.statistics(first)
    assert float(statistics.seen) == WARM_UP
    early = round(float(statistics.mean[0]) * WARM_UP)
    assert 0 < early < WARM_UP
    steps, episodes = int(info["env_steps"].sum()), 3 * 8 * 2 * 3
    is_first = np.zeros(WARM_UP + steps)
    is_first[: early + episodes] = 1.0  # every episode has one first step
    met = np.stack([is_first, 1000.0 + 2.0 * is_first], axis=1)
    statistics = outer.statistics(last)
    assert float(statistics.seen) == len(met)
    np.testing.assert_allclose(statistics.mean, met.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.var, met.var(axis=0), rtol=1e-3)


def test_without_normalisation_there_are_no_statistics() -> None:
    state = quick_init(TINY, make_problem())
    assert TINY.statistics(state) is None


def test_policies_see_normalised_observations(monkeypatch: pytest.MonkeyPatch) -> None:
    given = []

    def spy(*arguments: Any, statistics: Any, **options: Any) -> Any:
        given.append(statistics)
        return play_episodes(*arguments, statistics=statistics, **options)

    monkeypatch.setattr(rollout, "play_episodes", spy)
    problem = make_problem(FirstStepProbe())
    state = quick_init(TINY, problem)
    for normalise in (False, True):
        outer = dataclasses.replace(TINY, normalise_observations=normalise)
        jax.eval_shape(lambda state, key, outer=outer: outer.step(problem, state, key), state, KEY)
    assert given[0] is None
    assert given[1].mean.shape == (2,)


# --- the state ---


@pytest.mark.parametrize("strategy", ["Open_ES", "SNES", "CMA_ES", "PGPE"])
def test_a_second_compiled_call_traces_nothing(strategy: str) -> None:
    outer = dataclasses.replace(TINY, strategy=strategy, normalise_observations=True)
    problem = make_problem()
    traces = []

    @functools.partial(jax.jit, compiler_options=QUICK)
    def step(state: HaDESState, key: jax.Array) -> HaDESState:
        traces.append(strategy)
        return outer.step(problem, state, key)[0]

    state = replicate(quick_init(outer, problem))  # as every run begins
    for key in jax.random.split(KEY, 3):
        assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
        state = step(state, key)
    assert traces == [strategy]


# --- what is refused ---


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"population": 1}, "population = 1 was asked for: give a finite number of at least 2 and at most 2147483647."),
        ({"population": 9}, "population = 9 was asked for with antithetic noise: give an even number, or --no-antith"),
        ({"population": 9, "strategy": "SNES"}, "population = 9 was asked for with antithetic noise"),
        ({"initialisations": 0}, "initialisations = 0 was asked for: give a finite number of at least 1"),
        ({"environments": 0}, "environments = 0 was asked for: give a finite number of at least 1"),
        ({"horizon": -1}, "horizon = -1 was asked for: give a finite number of at least 0"),
        ({"chunk": -1}, "chunk = -1 was asked for: give a finite number of at least 0"),
        ({"smoothness": -1.0}, "smoothness = -1.0 was asked for: give a finite number of at least 0"),
        ({"target_noise": 0.0}, "target_noise = 0.0 was asked for: give a finite number above 0."),
        ({"sigma": 0.0}, "sigma = 0.0 was asked for: give a finite number above 0."),
        ({"sigma": float("nan")}, "sigma = nan was asked for"),
        ({"sigma_decay": -1.0}, "sigma_decay = -1.0 was asked for"),
        ({"rate_decay": float("inf")}, "rate_decay = inf was asked for"),
        ({"rate": 0.0}, "rate = 0.0 was asked for: give a finite number above 0."),
        ({"shaping": "rank"}, "Shaping rank was asked for: choose from centred-rank, z-score."),
        ({"strategy": "OpenES"}, "Strategy OpenES was asked for: choose from "),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FloppyError, match=f"^{re.escape(message)}"):
        HaDES(**changes)


def test_a_population_that_the_strategy_cannot_share_out_is_refused() -> None:
    with pytest.raises(FloppyError, match=r"^PGPE takes no population of 9: give an even number of at least 4.$"):
        HaDES(strategy="PGPE", population=9).init(make_problem(), KEY)


@pytest.mark.parametrize("strategy", ["Open_ES", "Sep_CMA_ES"])
def test_an_odd_population_is_fine_without_antithetic_noise(strategy: str) -> None:
    antithetic = strategy != "Open_ES"  # which Sep_CMA_ES does not have
    outer = HaDES(strategy=strategy, population=5, initialisations=1, environments=2, antithetic=antithetic)
    _, last, info = evolve(outer, make_problem(), KEY, 2)
    assert np.isfinite(info["fitness"]).all()
    assert np.isfinite(last.strategy.mean).all()


# --- a run ---


WORDS = shlex.split(
    "cartpole --outer hades --outer-steps 6 --evaluate-every 2 --selection-learners 4 --selection-episodes 2 "
    "--population 8 --environments 2 --horizon 40 --normalise-observations --cloning.steps 3 "
    "--distribution width=16:depth=1:initialiser=xavier"
)
FILES = ("dataset.safetensors", "metrics.jsonl", "checkpoints/latest.safetensors")


@pytest.fixture(scope="module")
def config(quick_compile: None, temporary_cache: None) -> Iterator[DistillConfig]:
    from jax.experimental.compilation_cache import compilation_cache

    enable_compilation_cache()
    compilation_cache.reset_cache()  # tests that ran before may have compiled without one
    yield Distill.parse(WORDS).config  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def undisturbed(config: DistillConfig, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, DistillResult]:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    return folder, distill(config, folder, command="floppy distill ...")


def test_the_same_seed_gives_the_same_bytes(
    config: DistillConfig, undisturbed: tuple[Path, DistillResult], tmp_path: Path
) -> None:
    folder, result = undisturbed
    distill(config, tmp_path / "run", command="floppy distill ...")
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes(), name
    other = distill(dataclasses.replace(config, seed=1)).dataset
    assert (other.observations != result.dataset.observations).all()


def test_a_resumed_run_gives_the_bytes_of_an_undisturbed_one(
    config: DistillConfig, undisturbed: tuple[Path, DistillResult], tmp_path: Path
) -> None:
    folder, result = undisturbed
    stopped = distill(config, tmp_path / "run", time_limit=1e-9, command="floppy distill ...")
    assert (stopped.finished, stopped.outer_steps) == (False, 2)
    resumed = distill(config, tmp_path / "run", resume=True)
    assert (resumed.finished, resumed.outer_steps, resumed.env_steps) == (True, 6, result.env_steps)
    for name in FILES:
        assert (tmp_path / "run" / name).read_bytes() == (folder / name).read_bytes(), name


def test_a_runs_dataset_carries_what_evolution_used(undisturbed: tuple[Path, DistillResult]) -> None:
    folder, result = undisturbed
    dataset = load(folder / "dataset.safetensors")
    card = dataset.card
    assert card.algorithm["name"] == "hades"
    assert card.algorithm["config"]["outer"]["kind"] == "HaDES"
    assert card.algorithm["config"]["outer"]["population"] == 8
    assert card.normaliser == "frozen"
    assert dataset.obs_mean is not None
    assert dataset.obs_var is not None
    assert dataset.obs_mean.shape == (4,)
    assert (dataset.obs_var > 0).all()
    assert 6 * 8 * 2 * 2 * 8 <= result.env_steps <= 6 * 8 * 2 * 2 * 40
