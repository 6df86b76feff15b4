"""HaDES: it solves probes by fitness alone, candidates are compared fairly, and a run gives the same bytes again."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from evolving import KEY, TINY, FirstStepProbe, evolve, quick_init
from jax.flatten_util import ravel_pytree
from probes import (
    PROBES,
    SMALL,
    ActionProbe,
    ContinuousProbe,
    ImageProbe,
    ProbeState,
    TimeLimitProbe,
    make_problem,
    plain_problem,
    start,
    transition,
)

from floppy.cloning import AdamSteps, Distilled, clone
from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.outer import HaDES
from floppy.outer.hades.loop import HaDESState, smooth
from floppy.play.device import ON_DEVICE, DeviceArena
from floppy.recipes import neuroevolution_baseline
from floppy.tasks import JaxTask, Transition
from floppy.tasks.ndcartpole import NDCartPole

pytestmark = pytest.mark.slow


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


@pytest.mark.thorough(all_but=["probe/observation-hades"])
@pytest.mark.parametrize(
    ("probe", "plain"),
    [
        *((probe, False) for probe in PROBES if probe != ActionProbe()),  # the observation probe is harder
        (ContinuousProbe(), True),
    ],
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


@pytest.mark.thorough
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
    after, info = jax.jit(outer.step, static_argnums=0)(problem, state, key)

    _, unravel = ravel_pytree(problem.parameters(state.distilled))
    strategy = outer._strategy(problem, state.distilled)
    candidates = jax.jit(strategy.ask)(state.strategy, named_key(key, "ask"))

    @functools.partial(jax.jit, static_argnums=0)
    def episode_returns(group: int, vector: jax.Array, fresh_key: jax.Array, play_key: jax.Array) -> jax.Array:
        network = problem.networks[group]
        dataset = problem.distilled(unravel(vector), state.distilled)
        weights = clone(problem.cloning, network, dataset, network.init(fresh_key))
        alone = jax.tree.map(lambda leaf: leaf[None], weights)
        return ON_DEVICE.play_episodes(task, network, alone, play_key[None], episodes=2).returns

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
    told = jax.jit(strategy.tell)(state.strategy, candidates, jnp.asarray(fitness), KEY)
    np.testing.assert_allclose(after.strategy.mean, told.mean, rtol=1e-4, atol=1e-5)
    # What is distilled is the new mean.
    wanted = jax.jit(lambda: problem.distilled(unravel(told.mean), state.distilled))()
    for got, leaf in zip(jax.tree.leaves(outer.distilled(after)), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(got, leaf, rtol=1e-4, atol=1e-5)


STILL = 1e-30
"""A deviation so small that all candidates are one."""


@pytest.mark.thorough(all_but=["Open_ES"])
@pytest.mark.parametrize("strategy", ["Open_ES", "Sep_CMA_ES"])
def test_identical_candidates_get_identical_fitness_by_common_random_numbers(strategy: str) -> None:
    outer = HaDES(strategy=strategy, population=12, initialisations=2, environments=3, sigma=STILL, chunk=5)
    problem = make_problem(NoisyProbe(), initial_rate=1e-6)
    _, _, info = evolve(outer, problem, KEY, 1)
    assert float(info["best_fitness"][0]) == pytest.approx(float(info["fitness"][0]), rel=1e-5)
    assert float(info["fitness_sd"][0]) < 1e-6
    if strategy != "Open_ES":
        return
    problem = dataclasses.replace(problem, task=TimeLimitProbe())
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


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_the_chunk_size_changes_nothing() -> None:
    problem = make_problem(TimeLimitProbe(), cloning=AdamSteps(loss="cross-entropy", steps=3), initial_rate=0.1)
    outer = dataclasses.replace(TINY, chunk=1, normalise_observations=True)
    first, one_by_one, info = evolve(outer, problem, KEY, 3)
    _, other, other_info = evolve(dataclasses.replace(outer, chunk=3), problem, KEY, 3)
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
    np.testing.assert_allclose(smooth(jnp.asarray(noise), 1.5), slow_smooth(noise, 1.5), rtol=1e-5, atol=1e-6)


def test_smooth_noise_of_a_row_by_hand() -> None:
    # Length 1, two pixels: weights 1 and exp(-1/2), divided by their norm.
    weights = np.array([1.0, np.exp(-0.5)]) / np.sqrt(1 + np.exp(-1))
    got = smooth(jnp.array([1.0, 0.0]).reshape(1, 1, 2, 1), 1.0)
    np.testing.assert_allclose(got[0, 0, :, 0], weights, rtol=1e-6)


def test_smooth_noise_has_variance_one_and_is_alike_within_the_length() -> None:
    # Every pixel of 1 x 41 in turn as the only noise: the columns of the map from white to smooth noise.
    columns = smooth(jnp.eye(41).reshape(41, 1, 41, 1), 3.0)[:, 0, :, 0]
    covariance = np.asarray(columns.T @ columns)
    np.testing.assert_allclose(np.diag(covariance), np.ones(41), rtol=1e-5)
    # Far from the border a Gaussian of deviation l, folded with itself, has deviation l √2.
    np.testing.assert_allclose(covariance[20, 20:27], np.exp(-(np.arange(7) ** 2) / (4 * 9)), rtol=1e-3)


@pytest.mark.thorough
def test_smooth_search_of_nearly_no_length_is_the_plain_one() -> None:
    outer = dataclasses.replace(TINY, strategy="Sep_CMA_ES")
    problem = make_problem(ImageProbe(), initial_rate=0.1)
    first, plain, _ = evolve(outer, problem, KEY, 3)
    _, hardly, _ = evolve(dataclasses.replace(outer, smoothness=1e-3), problem, KEY, 3)
    for before, got, wanted in zip(*(jax.tree.leaves(s.distilled) for s in (first, hardly, plain)), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
        assert np.size(before) == 0 or (np.asarray(before) != np.asarray(got)).any()


@pytest.mark.thorough
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


@pytest.mark.thorough
def test_noise_of_targets_is_in_units_of_that_of_observations() -> None:
    """A quarter of the noise on targets, of their first step too; observations go as they went."""
    problem = make_problem()
    clones, moves = {}, {}
    for unit in (1.0, 0.25):
        outer = dataclasses.replace(TINY, population=16, target_noise=unit, rate=0.01)
        state = quick_init(outer, problem)

        def third(outer: HaDES, state: HaDESState) -> Distilled:
            strategy = outer._strategy(problem, state.distilled)
            member = strategy.member(strategy.ask(state.strategy, KEY), jnp.asarray(3))
            return outer._dataset(problem, state, member)

        clones[unit] = jax.jit(third, static_argnums=0)(outer, state)
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
    with pytest.raises(
        FloppyError,
        match=r"^smoothness must be 0 for probe/observation, whose .* \(1,\) are no images, got 2\.$",
    ):
        HaDES(smoothness=2.0).check(make_problem())


def test_chunks_of_a_direct_search_count_the_weights_that_are_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each candidate has weights of its own: all at once they took 22 GB of a population of 4096."""
    counted = []

    def chunk(arena: DeviceArena, task: Any, count: int, weights: Any, episodes: int) -> int:
        counted.append(sum(leaf.size for leaf in jax.tree.leaves(weights)))
        return count

    monkeypatch.setattr(DeviceArena, "chunk", chunk)
    config = neuroevolution_baseline("cartpole")
    problem, outer, key = config.problem(), config.outer, jax.random.key(0)
    state = jax.eval_shape(lambda: outer.init(problem, key))
    jax.eval_shape(lambda state: outer.step(problem, state, key), state)
    in_layers = sum(leaf.size for leaf in jax.tree.leaves(problem.networks[0].init(key).layers))
    assert counted[0] >= in_layers == 64 * (4 + 1) + 64 * (64 + 1) + 2 * (64 + 1)
