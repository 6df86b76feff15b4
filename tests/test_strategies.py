"""Evolution strategies: shaping by hand and by slow twins, steps as evosax takes them, every name usable."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from evosax.algorithms.distribution_based import SNES, Open_ES
from evosax.algorithms.distribution_based.xnes import get_weights
from evosax.core.fitness_shaping import (
    centered_rank_fitness_shaping_fn,
    standardize_fitness_shaping_fn,
    weights_fitness_shaping_fn,
)

from floppy.errors import FloppyError
from floppy.outer.hades.strategies import (
    STREAMED,
    Decay,
    Evosax,
    Streamed,
    centred_ranks,
    check_strategy,
    snes_utilities,
    strategy_names,
    z_scores,
)
from floppy.tasks.base import strong_types

KEY = jax.random.key(0)
POPULATION, SIZE = 8, 5


def make_strategy(name: str, population: int = POPULATION, **changes: Any) -> Any:
    """With a rate that falls to a quarter and a deviation that falls to a half over 60 generations."""
    rate, sigma = Decay(0.1, 0.25, 60), Decay(0.3, 0.5, 60)
    if name not in STREAMED:
        return Evosax(name, population, SIZE, rate, sigma)
    settings = {"shaping": "centred-rank", "antithetic": True, "rate": rate, "sigma_schedule": sigma}
    return Streamed(name, population, **(settings | changes))


@functools.partial(jax.jit, static_argnums=0)
def population_of(strategy: Any, candidates: Any) -> jax.Array:
    """All members, `[p, d]`."""
    return jax.vmap(strategy.member, in_axes=(None, 0))(candidates, jnp.arange(strategy.population))


def hill(population: jax.Array) -> jax.Array:
    """Fitness `[p]` of `[p, d]`: highest at (1, ..., 1), where it is 0, and steeper in later dimensions."""
    return -jnp.sum(jnp.arange(1, SIZE + 1)[None] * (population - 1.0) ** 2, axis=1)


# --- shaping ---


@pytest.mark.parametrize(
    ("fitness", "wanted"),
    [
        ([3.0, 1.0, 2.0], [0.5, -0.5, 0.0]),
        ([1.0, 5.0, 5.0, 0.0], [-1 / 6, 1 / 3, 1 / 3, -1 / 2]),
        ([7.0, 7.0], [0.0, 0.0]),
    ],
)
def test_centred_ranks_by_hand(fitness: list[float], wanted: list[float]) -> None:
    np.testing.assert_allclose(centred_ranks(jnp.array(fitness)), wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("fitness", "wanted"),
    [
        ([1.0, 3.0], [-1.0, 1.0]),
        ([0.0, 0.0, 3.0], [-(0.5**0.5), -(0.5**0.5), 2.0**0.5]),
        ([7.0, 7.0], [0.0, 0.0]),
    ],
)
def test_z_scores_by_hand(fitness: list[float], wanted: list[float]) -> None:
    np.testing.assert_allclose(z_scores(jnp.array(fitness)), wanted, atol=1e-6)


@pytest.mark.parametrize("value", [1234.567, 0.1, -7.3e5])
def test_z_scores_of_equal_fitness_are_zero_whatever_their_mean_rounds_to(value: float) -> None:
    np.testing.assert_array_equal(z_scores(jnp.full(10, value)), np.zeros(10))


@pytest.mark.parametrize(
    ("fitness", "wanted"),
    [
        # ln 3 - ln 1 and ln 3 - ln 2, as shares of their sum ln 4.5, less 1/4; the worse half gets 0 less 1/4.
        ([2.0, 9.0, 4.0, 3.0], [-0.25, 0.480423, 0.019577, -0.25]),
        ([2.0, 4.0, 4.0, 3.0], [-0.25, 0.25, 0.25, -0.25]),
        ([7.0, 7.0, 7.0, 7.0], [0.0, 0.0, 0.0, 0.0]),
    ],
)
def test_snes_utilities_by_hand(fitness: list[float], wanted: list[float]) -> None:
    np.testing.assert_allclose(snes_utilities(jnp.array(fitness)), wanted, atol=1e-6)


def slow_by_rank(fitness: np.ndarray, of_rank: Any) -> list[float]:
    """For every value the mean of `of_rank(r)` over the ranks (1 is best) that it takes if equals are put in a row."""
    return [
        float(np.mean([of_rank(1 + sum(fitness > own) + among) for among in range(sum(fitness == own))]))
        for own in fitness
    ]


def slow_centred_ranks(fitness: np.ndarray) -> list[float]:
    return slow_by_rank(fitness, lambda rank: 0.5 - (rank - 1) / (len(fitness) - 1))


def slow_snes_utilities(fitness: np.ndarray) -> list[float]:
    count = len(fitness)
    raw = [max(0.0, np.log(count / 2 + 1) - np.log(rank)) for rank in range(1, count + 1)]
    return slow_by_rank(fitness, lambda rank: raw[rank - 1] / sum(raw) - 1 / count)


@pytest.mark.parametrize("ties", [False, True], ids=["all-different", "ties"])
@pytest.mark.parametrize(
    ("shaping", "slow", "total"),
    [
        (centred_ranks, slow_centred_ranks, 0.0),
        (snes_utilities, slow_snes_utilities, 0.0),
        (z_scores, lambda fitness: (fitness - fitness.mean()) / fitness.std(), 0.0),
    ],
    ids=["centred-ranks", "snes-utilities", "z-scores"],
)
def test_shaping_equals_its_slow_twin(shaping: Any, slow: Any, total: float, ties: bool) -> None:
    random = np.random.default_rng(0)
    for count in (2, 7, 10):
        fitness = random.integers(0, 4, count) if ties else random.permutation(count) ** 2
        fitness = fitness.astype(np.float32)
        assert (len(set(fitness)) < count) == (ties and count > 2), "another draw would show more"
        got = jax.jit(shaping)(jnp.asarray(fitness))
        np.testing.assert_allclose(got, slow(fitness), atol=1e-6)
        np.testing.assert_allclose(np.sum(got), total, atol=1e-5)


@pytest.mark.thorough(all_but=["7"])
@pytest.mark.slow
@pytest.mark.parametrize("count", [6, 7])
def test_shaping_equals_evosaxs_without_ties(count: int) -> None:
    fitness = jax.random.normal(KEY, (count,))
    # Evosax shapes costs, and goes down its slope: the signs of both differ, but for the weights of SNES.
    costs = -fitness
    ranks = jax.jit(lambda: centered_rank_fitness_shaping_fn(None, costs, None, None))()
    np.testing.assert_allclose(jax.jit(centred_ranks)(fitness), -ranks, atol=1e-6)
    standard = jax.jit(lambda: standardize_fitness_shaping_fn(None, costs, None, None))()
    np.testing.assert_allclose(jax.jit(z_scores)(fitness), -standard, atol=1e-5)

    class Weighted:
        weights = jax.jit(get_weights, static_argnums=0)(count)

    weights = jax.jit(lambda: weights_fitness_shaping_fn(None, costs, None, Weighted))()
    np.testing.assert_allclose(jax.jit(snes_utilities)(fitness), weights, atol=1e-6)


# --- schedules ---


def test_a_decay_by_hand() -> None:
    decay = Decay(2.0, 0.25, 4)
    np.testing.assert_allclose([decay(step) for step in range(5)], [2.0, 2.0**0.5, 1.0, 0.5**0.5, 0.5])
    np.testing.assert_allclose(decay(jnp.array(2)), 1.0)
    assert Decay(0.3, 1.0, 7)(5) == 0.3


# --- the streamed strategies ---


STREAMS = [("Open_ES", "centred-rank"), ("Open_ES", "z-score"), ("SNES", "centred-rank")]


@functools.partial(jax.jit, static_argnums=0)
def ask(strategy: Any, state: Any, key: jax.Array) -> Any:
    return strategy.ask(state, key)


@functools.partial(jax.jit, static_argnums=0)
def tell(strategy: Any, state: Any, candidates: Any, fitness: jax.Array) -> Any:
    return strategy.tell(state, candidates, fitness, KEY)


def evosax_twin(strategy: Streamed) -> Any:
    if strategy.name == "SNES":
        return SNES(POPULATION, jnp.zeros(SIZE), optimizer=optax.sgd(strategy.rate))
    shaping = centered_rank_fitness_shaping_fn if strategy.shaping == "centred-rank" else standardize_fitness_shaping_fn
    return Open_ES(
        POPULATION,
        jnp.zeros(SIZE),
        optimizer=optax.adam(strategy.rate),
        # Evosax reads the schedule before it counts the generation that it ends.
        std_schedule=lambda generation: strategy.sigma_schedule(generation + 1),
        fitness_shaping_fn=shaping,
    )


@pytest.mark.thorough(all_but=["Open_ES-centred-rank-antithetic", "SNES-centred-rank-antithetic"])
@pytest.mark.slow
@pytest.mark.parametrize("antithetic", [True, False], ids=["antithetic", "independent"])
@pytest.mark.parametrize(("name", "shaping"), STREAMS)
def test_generations_equal_evosaxs_on_the_same_population(name: str, shaping: str, antithetic: bool) -> None:
    strategy = make_strategy(name, shaping=shaping, antithetic=antithetic)
    twin = evosax_twin(strategy)
    parameters = twin.default_params
    start = jnp.linspace(-1.0, 0.5, SIZE)

    def generation(states: tuple[Any, Any], key: jax.Array) -> Any:
        ours, theirs = states
        candidates = strategy.ask(ours, key)
        population = population_of(strategy, candidates)
        fitness = hill(population)
        ours = strategy.tell(ours, candidates, fitness, key)
        theirs, _ = twin.tell(key, population, -fitness, theirs, parameters)
        deviations = [jnp.broadcast_to(std, SIZE) for std in (ours.std, theirs.std)]
        return (ours, theirs), ((strategy.mean(ours), deviations[0]), (theirs.mean, deviations[1]))

    def run() -> Any:
        theirs = twin.init(KEY, start, parameters)
        theirs = strong_types(theirs.replace(std=jnp.full_like(theirs.std, 0.3)))
        return jax.lax.scan(generation, (strategy.init(start), theirs), jax.random.split(KEY, 6))[1]

    with jax.numpy_rank_promotion("allow"):  # as evosax needs it
        ours, theirs = jax.jit(run)()
    for got, wanted in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
    assert np.abs(ours[0][-1] - start).max() > 0.05, "nothing moved: this shows nothing"


@pytest.mark.slow
@pytest.mark.parametrize("name", STREAMED)
def test_equal_fitness_moves_no_mean(name: str) -> None:
    for antithetic in (True, False):
        strategy = make_strategy(name, antithetic=antithetic)
        state = strategy.init(jnp.ones(SIZE))
        after = tell(strategy, state, ask(strategy, state, KEY), jnp.full(POPULATION, 3.0))
        np.testing.assert_array_equal(after.mean, np.ones(SIZE))


@pytest.mark.slow
def test_the_rate_of_open_es_decays() -> None:
    # Fitness that falls along the first noise: with one and the same population, Adam's step is the rate itself.
    strategy = make_strategy("Open_ES", population=2)
    state = strategy.init(jnp.zeros(SIZE))
    steps = []
    for _ in range(4):
        candidates = ask(strategy, state._replace(mean=jnp.zeros(SIZE), std=jnp.ones(SIZE)), KEY)
        after = tell(strategy, state._replace(std=jnp.ones(SIZE)), candidates, jnp.array([0.0, 1.0]))
        steps.append(np.abs(after.mean - state.mean))
        state = after
    wanted = [0.1 * 0.25 ** (step / 60) for step in range(4)]
    np.testing.assert_allclose(steps, np.tile(np.array(wanted)[:, None], SIZE), rtol=1e-4)


@pytest.mark.parametrize("name", STREAMED)
def test_antithetic_pairs_are_opposite_and_all_else_differs(name: str) -> None:
    strategy = make_strategy(name)
    mean = jnp.linspace(-1.0, 1.0, SIZE)
    population = np.asarray(population_of(strategy, ask(strategy, strategy.init(mean), KEY)))
    noise = population - np.asarray(mean)
    np.testing.assert_allclose(noise[0::2], -noise[1::2], atol=1e-6)
    assert len(np.unique(np.abs(noise[0::2]))) == POPULATION * SIZE // 2
    independent = make_strategy(name, antithetic=False)
    noise = np.asarray(population_of(independent, ask(independent, independent.init(mean), KEY))) - np.asarray(mean)
    assert len(np.unique(np.abs(noise))) == POPULATION * SIZE


@pytest.mark.parametrize("antithetic", [True, False], ids=["antithetic", "independent"])
def test_noise_is_standard_normal_times_sigma(antithetic: bool) -> None:
    strategy = make_strategy("Open_ES", population=4000, antithetic=antithetic)
    population = np.asarray(population_of(strategy, ask(strategy, strategy.init(jnp.full(SIZE, 2.0)), KEY)))
    z = (population - 2.0) / 0.3
    np.testing.assert_allclose(z.mean(axis=0), np.zeros(SIZE), atol=4 / 4000**0.5)
    np.testing.assert_allclose(z.std(axis=0), np.ones(SIZE), rtol=0.05)
    assert np.mean(np.abs(z) < 0.6745) == pytest.approx(0.5, abs=0.02)


def test_a_member_depends_on_its_number_and_the_key_alone() -> None:
    strategy = make_strategy("SNES")
    state = strategy.init(jnp.zeros(SIZE))
    candidates = ask(strategy, state, KEY)
    population = np.asarray(population_of(strategy, candidates))
    alone = jax.jit(strategy.member)
    for index in (7, 2, 0):
        np.testing.assert_array_equal(alone(candidates, jnp.asarray(index)), population[index])
    larger = make_strategy("SNES", population=2 * POPULATION)
    np.testing.assert_array_equal(population_of(larger, candidates)[:POPULATION], population)
    other = np.asarray(population_of(strategy, ask(strategy, state, jax.random.key(1))))
    assert (other != population).all()


# --- every strategy ---


WELL_BEHAVED = ("CMA_ES", "Open_ES", "SNES", "Sep_CMA_ES", "SimpleES", "xNES")
"""These come close to the top within `GENERATIONS`."""
TRUE_TO_SIGMA = ("ARS", "CMA_ES", "ESMC", "LearnedES", "Open_ES", "PGPE", "Sep_CMA_ES", "SimpleES", "SNES")
"""The first population of these has the deviation asked for; that of xNES, say, its square."""
OWN_RATES = {"SNES": {"rate": Decay(1.0, 1.0, 60)}}
GENERATIONS = 40


@functools.partial(jax.jit, static_argnums=(0, 2))
def search(strategy: Any, key: jax.Array, generations: int = GENERATIONS) -> Any:
    """Means `[generations, d]`, deviations and populations of a search on the hill, from 0."""

    def generation(state: Any, key: jax.Array) -> Any:
        candidates = strategy.ask(state, key)
        population = jax.vmap(strategy.member, in_axes=(None, 0))(candidates, jnp.arange(strategy.population))
        after = strategy.tell(state, candidates, hill(population), jax.random.fold_in(key, 1))
        return after, (strategy.mean(after), strategy.sigma(state), population)

    # The scan itself refuses a state of which any type changes.
    return jax.lax.scan(generation, strategy.init(jnp.zeros(SIZE)), jax.random.split(key, generations))[1]


@pytest.mark.thorough(all_but=["Open_ES", "Sep_CMA_ES"])
@pytest.mark.slow
@pytest.mark.parametrize("name", strategy_names())
def test_every_strategy_takes_a_step_within_a_compiled_loop(name: str) -> None:
    check_strategy(name, 16, antithetic=True)
    is_well_behaved = name in WELL_BEHAVED
    generations = GENERATIONS if is_well_behaved else 1
    strategy = make_strategy(name, population=16, **OWN_RATES.get(name, {}))
    means, sigmas, populations = search(strategy, KEY, generations)
    assert means.shape == (generations, SIZE)
    assert populations.shape == (generations, 16, SIZE)
    for values in (means, sigmas, populations):
        assert np.isfinite(values).all()
    assert len(np.unique(np.asarray(populations[0]), axis=0)) >= 15  # ESMC plays its mean twice
    if name in TRUE_TO_SIGMA:
        assert np.std(populations[0]) == pytest.approx(0.3, rel=0.25)
        assert float(sigmas[0]) == pytest.approx(0.3)
    if is_well_behaved:
        assert float(hill(means)[-1]) > 0.1 * float(hill(jnp.zeros((1, SIZE)))[0])


@pytest.mark.slow
def test_sigma_follows_its_schedule_or_the_rule_of_the_strategy() -> None:
    wanted = 0.3 * 0.5 ** (np.arange(GENERATIONS) / 60)
    _, sigmas, _ = search(make_strategy("Open_ES", population=16), KEY)
    np.testing.assert_allclose(sigmas, wanted, rtol=1e-5)
    _, sigmas, _ = search(make_strategy("ARS", population=16), KEY)
    np.testing.assert_allclose(sigmas[1:], wanted[:-1], rtol=1e-5)  # evosax starts one generation late
    for name in ("SNES", "Sep_CMA_ES"):
        _, sigmas, _ = search(make_strategy(name, population=16, **OWN_RATES.get(name, {})), KEY)
        assert np.abs(sigmas[5:] - wanted[5:]).min() > 1e-3


@pytest.mark.parametrize("name", ["", "open_es", "PSO", "RandomSearch", "SV_CMA_ES", "Strategy"])
def test_an_unknown_strategy_is_refused(name: str) -> None:
    with pytest.raises(FloppyError, match=f"^strategy must be one of .*CMA_ES.*Open_ES.*SNES.*, got '{name}'\\.$"):
        check_strategy(name, 16, antithetic=True)
