"""HaDES: what is searched, whose clones play, what diverges, and that a run gives the same bytes again."""

import dataclasses
import re
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from evolving import KEY, TINY, FirstStepProbe, evolve, quick_init
from jax.flatten_util import ravel_pytree
from probes import (
    SMALL,
    ActionProbe,
    ContinuousProbe,
    ObservationProbe,
    TimeLimitProbe,
    make_problem,
    plain_problem,
)

from floppy.cloning import AdamSteps
from floppy.errors import FloppyError
from floppy.keys import named_key
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import HaDES, Problem
from floppy.outer.base import MIN_INNER_RATE
from floppy.outer.hades.loop import HaDESState
from floppy.parallel import replicate
from floppy.play.arena import WARM_UP, Played
from floppy.play.device import ON_DEVICE, DeviceArena, random_observations
from floppy.play.normalise import Moments, RunningStatistics
from floppy.run.config import DistillConfig
from floppy.run.folder import CHECKPOINT_NAME, About
from floppy.run.loop import distill, to_dataset
from floppy.tasks import Discrete, JaxTask
from floppy.tasks.ndcartpole import NDCartPole

pytestmark = pytest.mark.slow


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


@pytest.mark.thorough
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
        jax.jit(make_problem(task, examples=400, initial_examples=kind).init_distilled)(named_key(KEY, "distilled"))
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
    """In place of `DeviceArena.fitness`: a policy's return is the sum of its first kernel; notes who plays."""

    def __init__(self) -> None:
        self.calls: list[tuple[LearnerDistribution, int, int]] = []
        self.episodes: list[int] = []

    def in_place(self, monkeypatch: pytest.MonkeyPatch) -> Self:
        monkeypatch.setattr(DeviceArena, "fitness", lambda _, *arguments, **options: self(*arguments, **options))
        return self

    def __call__(self, task: JaxTask, network: Any, weights: Any, keys: jax.Array, **options: Any) -> Played:
        kernel = weights.layers[0]["kernel"]
        self.calls.append((network.distribution, kernel.shape[0], keys.shape[0]))
        self.episodes.append(options["episodes"])
        shape = (kernel.shape[0], options["episodes"])
        returns = jnp.broadcast_to(jnp.sum(kernel, axis=(1, 2))[:, None], shape)
        return Played(returns, jnp.ones(shape, jnp.int32), None)


@pytest.fixture
def fake_play(monkeypatch: pytest.MonkeyPatch) -> FakePlay:
    return FakePlay().in_place(monkeypatch)


def fitness_of(outer: HaDES, problem: Problem, steps: int = 3) -> np.ndarray:
    """Mean fitness of some generations, in which cloning changes next to nothing; not from any cache."""

    def run(key: jax.Array) -> Any:
        state = outer.init(problem, key)
        return jax.vmap(lambda k: outer.step(problem, state, k)[1])(jax.random.split(key, steps))

    info = jax.jit(run)(KEY)
    # All candidates got the same learners.
    np.testing.assert_allclose(info["best_fitness"], info["fitness"], rtol=1e-4, atol=1e-4)
    return np.asarray(info["fitness"])


def kernel_sum(distribution: LearnerDistribution, task: JaxTask) -> float:
    problem = make_problem(task, learners=(distribution,))
    return float(jnp.sum(jax.jit(problem.networks[0].init)(KEY).layers[0]["kernel"]))


def test_hades_f_trains_one_learner_and_hades_r_ever_new_ones(fake_play: FakePlay) -> None:
    settings: dict[str, Any] = {"initial_rate": 1e-6, "learned_rate": False}
    random = fitness_of(TINY, make_problem(**settings))
    assert len(np.unique(random)) == 3
    fixed = dataclasses.replace(SMALL, init_seed=3)
    got = fitness_of(TINY, make_problem(learners=(fixed,), **settings))
    np.testing.assert_allclose(got, np.full(3, kernel_sum(fixed, ObservationProbe())), rtol=1e-4)
    assert set(fake_play.episodes) == {TINY.environments, TINY.initialisations * TINY.environments}
    assert [call[1:] for call in fake_play.calls[-1:]] == [(8, 1)]  # one draw, the same stream for all candidates
    other = dataclasses.replace(SMALL, init_seed=4)
    assert abs(kernel_sum(other, ObservationProbe()) - got[0]) > 0.01


@pytest.mark.thorough
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
        HaDES(initialisations=3).check(problem)


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
    fake.in_place(monkeypatch)
    outer = dataclasses.replace(TINY, normalise_observations=True, sigma=0.5, chunk=3)
    problem = plain_problem()
    state = quick_init(outer, problem)
    after, info = jax.jit(lambda: outer.step(problem, state, KEY))()

    _, unravel = ravel_pytree(problem.parameters(state.distilled))
    strategy = outer._strategy(problem, state.distilled)
    candidates = jax.jit(strategy.ask)(state.strategy, named_key(KEY, "ask"))

    def kernel_sum_of(index: jax.Array) -> jax.Array:
        return jnp.sum(unravel(strategy.member(candidates, index))["encoder"][0]["kernel"])

    sums = np.asarray(jax.jit(jax.vmap(kernel_sum_of))(jnp.arange(8)))
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
    told = jax.jit(strategy.tell)(state.strategy, candidates, jnp.asarray(fitness), KEY)
    np.testing.assert_allclose(after.strategy.mean, told.mean, rtol=1e-4, atol=1e-5)
    # Two learners of each of the others met one observation each.
    assert float(after.statistics.seen) == WARM_UP + 2 * (8 - failed.sum())
    shift = np.asarray(state.statistics.mean)
    wanted = (WARM_UP * shift + 2 * np.sum(sums[~failed, None] + shift, axis=0)) / (WARM_UP + 2 * (~failed).sum())
    np.testing.assert_allclose(after.statistics.mean, wanted, rtol=1e-4, atol=1e-5)


def test_a_run_of_which_all_candidates_diverge_ends_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FailingPlay()
    fake.most = -np.inf
    fake.in_place(monkeypatch)
    config = DistillConfig("cartpole", outer_steps=2, distribution="width=16:depth=1", outer=TINY, selection_learners=2)
    with pytest.raises(FloppyError, match=r"^The run diverged: best_fitness is not finite at outer step 1: lower the"):
        distill(config)


def test_a_rate_below_its_floor_is_played_as_it_is_stored() -> None:
    problem = make_problem()
    state = quick_init(TINY, problem)
    vector, _ = ravel_pytree(problem.parameters(state.distilled) | {"inner_rate": jnp.log(jnp.asarray(1e-20))})
    dataset = TINY._dataset(problem, state, vector)
    assert float(dataset.inner_rate) == np.float32(MIN_INNER_RATE)


def test_a_search_from_a_files_statistics_keeps_them() -> None:
    outer = dataclasses.replace(TINY, normalise_observations=True)
    problem = make_problem(FirstStepProbe())
    of_a_file = RunningStatistics(jnp.zeros(()), jnp.array([0.5, 1001.0]), jnp.array([0.25, 1.0]))
    state = outer.start(problem, quick_init(outer, problem).distilled, of_a_file)
    after, _ = jax.jit(outer.step, static_argnums=0)(problem, state, KEY)
    assert float(after.statistics.seen) > 1e6
    np.testing.assert_allclose(after.statistics.mean, of_a_file.mean, rtol=1e-3)
    np.testing.assert_allclose(after.statistics.var, of_a_file.var, rtol=1e-2)


@pytest.mark.thorough(all_but=["gaussian-nll-2-True"])
@pytest.mark.parametrize(
    ("loss", "encoder_layers", "searched"), [("gaussian-nll", 0, False), ("mse", 0, True), ("gaussian-nll", 2, True)]
)
def test_log_std_is_searched_where_it_is_read(loss: str, encoder_layers: int, searched: bool) -> None:
    shape = {"encoder_layers": encoder_layers, "examples": 0 if encoder_layers else 2}
    problem = make_problem(ContinuousProbe(), cloning=AdamSteps(loss=loss, steps=2), initial_rate=0.1, **shape)
    first, last, _ = evolve(TINY, problem, KEY, 1)
    assert np.any(first.distilled.log_std != last.distilled.log_std) == searched
    config = DistillConfig("pendulum", outer=TINY, cloning=problem.cloning, **shape)
    stored = to_dataset(config, problem, last.distilled, None, None, About("", [], [])).log_std
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

    def spy(
        _: Any, *arguments: Any, statistics: Any, max_episode_steps: Any, share_features: Any, **options: Any
    ) -> Any:
        given.append(statistics)
        return ON_DEVICE.play_episodes(*arguments, statistics=statistics, **options)

    monkeypatch.setattr(DeviceArena, "fitness", spy)
    problem = make_problem(FirstStepProbe())
    state = quick_init(TINY, problem)
    for normalise in (False, True):
        outer = dataclasses.replace(TINY, normalise_observations=normalise)
        jax.eval_shape(lambda state, key, outer=outer: outer.step(problem, state, key), state, KEY)
    assert given[0] is None
    assert given[1].mean.shape == (2,)


# --- the state ---


@pytest.mark.thorough
@pytest.mark.parametrize("strategy", ["SNES", "PGPE"])
def test_a_second_compiled_call_traces_nothing(strategy: str) -> None:
    outer = dataclasses.replace(TINY, strategy=strategy, normalise_observations=True)
    problem = make_problem()
    traces = []

    @jax.jit
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
        ({"population": 1}, "population must be at least 2 and at most 2147483647, got 1."),
        ({"population": 9}, "population must be even for antithetic noise, got 9: or give --no-antithetic."),
        ({"population": 9, "strategy": "SNES"}, "population must be even for antithetic noise, got 9"),
        ({"initialisations": 0}, "initialisations must be at least 1 and at most 2147483647, got 0."),
        ({"environments": 0}, "environments must be at least 1 and at most 2147483647, got 0."),
        ({"horizon": -1}, "horizon must be at least 0 and at most 2147483647, got -1."),
        ({"chunk": -1}, "chunk must be at least 0 and at most 2147483647, got -1."),
        ({"smoothness": -1.0}, "smoothness must be at least 0, got -1.0."),
        ({"target_noise": 0.0}, "target_noise must be above 0, got 0.0."),
        ({"sigma": 0.0}, "sigma must be above 0, got 0.0."),
        ({"sigma": float("nan")}, "sigma must be above 0, got nan."),
        ({"sigma_decay": -1.0}, "sigma_decay must be above 0, got -1.0."),
        ({"rate_decay": float("inf")}, "rate_decay must be above 0, got inf."),
        ({"rate": 0.0}, "rate must be above 0, got 0.0."),
        ({"population": 8.5}, "population must be a whole number, got 8.5."),
        ({"antithetic": 1}, "antithetic must be true or false, got 1."),
        ({"shaping": "rank"}, "shaping must be one of centred-rank, z-score, got 'rank'."),
        ({"strategy": "OpenES"}, "strategy must be one of "),
    ],
    ids=lambda value: ",".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_nonsense_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(FloppyError, match=f"^{re.escape(message)}"):
        HaDES(**changes)


def test_a_population_that_the_strategy_cannot_share_out_is_refused() -> None:
    with pytest.raises(FloppyError, match=r"^PGPE takes no population of 9: give an even number of at least 4.$"):
        HaDES(strategy="PGPE", population=9).init(make_problem(), KEY)


@pytest.mark.thorough
def test_an_odd_population_is_fine_without_antithetic_noise() -> None:
    assert HaDES(strategy="Sep_CMA_ES", population=5).antithetic  # which is nothing that Sep_CMA_ES reads
    outer = HaDES(strategy="Open_ES", population=5, initialisations=1, environments=2, antithetic=False)
    _, last, info = evolve(outer, make_problem(), KEY, 2)
    assert np.isfinite(info["fitness"]).all()
    assert np.isfinite(last.strategy.mean).all()


# --- a run ---


CONFIG = DistillConfig(
    "cartpole",
    outer_steps=2,
    evaluate_every=2,
    selection_learners=4,
    score_learners=4,
    score_episodes=2,
    distribution="width=16:depth=1:initialiser=xavier",
    cloning=AdamSteps(steps=3),
    initial_rate=0.1,
    outer=HaDES(population=8, environments=2, horizon=40, normalise_observations=True),
)


@pytest.mark.thorough
@pytest.mark.usefixtures("compiled_once")
def test_a_runs_dataset_carries_what_evolution_used(tmp_path: Path) -> None:
    result = distill(CONFIG, tmp_path, progress=False)
    dataset, card = result.dataset, result.dataset.card
    assert card.algorithm["name"] == "hades"
    assert card.algorithm["config"]["outer"]["kind"] == "HaDES"
    assert card.algorithm["config"]["outer"]["population"] == 8
    assert card.normaliser == "frozen"
    assert dataset.obs_mean is not None
    assert dataset.obs_var is not None
    assert dataset.obs_mean.shape == (4,)
    assert (dataset.obs_var > 0).all()
    # Its one evaluation comes last, so these are the statistics of the end, not of the warm-up.
    checkpoint = safetensors.numpy.load_file(tmp_path / CHECKPOINT_NAME)
    np.testing.assert_array_equal(dataset.obs_mean, checkpoint[".outer.statistics.mean"])
    assert 2 * 8 * 2 * 2 * 8 <= result.env_steps <= 2 * 8 * 2 * 2 * 40
