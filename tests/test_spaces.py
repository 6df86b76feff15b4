"""Action spaces: what a policy's output means, against SciPy's distributions."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from floppy.spaces import Continuous, Discrete, space_of

pytestmark = pytest.mark.usefixtures("no_nans")

DISCRETE = Discrete(3)
CONTINUOUS = Continuous(2, (-1.0, -0.5), (1.0, 2.0))
NO_STD = jnp.zeros(0)


def normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("leading", [(), (5,), (2, 4)])
def test_discrete_log_probability_is_the_categorical_one(leading: tuple[int, ...]):
    logits = 2.0 * normal(0, *leading, 3)
    actions = np.random.default_rng(1).integers(0, 3, leading)
    found = DISCRETE.log_probability(jnp.asarray(logits), NO_STD, jnp.asarray(actions))
    probabilities = scipy.special.softmax(logits.astype(np.float64), axis=-1)
    expected = np.log(np.take_along_axis(probabilities, actions[..., None], -1)[..., 0])
    assert found.shape == leading
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("leading", [(), (5,), (2, 4)])
def test_continuous_log_probability_is_the_normal_density(leading: tuple[int, ...]):
    mean, action = 2.0 * normal(0, 2, *leading, 2)
    log_std = np.array([-1.0, 0.5], np.float32)
    found = CONTINUOUS.log_probability(jnp.asarray(mean), jnp.asarray(log_std), jnp.asarray(action))
    expected = scipy.stats.norm(mean, np.exp(log_std)).logpdf(action).sum(-1)
    assert found.shape == leading
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("leading", [(), (5,), (2, 4)])
def test_discrete_entropy_is_the_categorical_one(leading: tuple[int, ...]):
    logits = 2.0 * normal(0, *leading, 3)
    found = DISCRETE.entropy(jnp.asarray(logits), NO_STD)
    expected = scipy.stats.entropy(scipy.special.softmax(logits.astype(np.float64), axis=-1), axis=-1)
    assert found.shape == leading
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.parametrize("leading", [(), (5,), (2, 4)])
def test_continuous_entropy_is_the_normal_one(leading: tuple[int, ...]):
    log_std = np.array([-1.0, 0.5], np.float32)
    found = CONTINUOUS.entropy(jnp.zeros((*leading, 2)), jnp.asarray(log_std))
    assert found.shape == leading
    expected = scipy.stats.norm(0, np.exp(log_std)).entropy().sum()
    np.testing.assert_allclose(found, np.full(leading, expected), rtol=1e-5)


def test_every_learner_may_have_its_own_deviation():
    # The meta-gradient's update: output [n, learners, a] beside log_std [learners, a].
    mean, action = normal(0, 2, 4, 3, 2)
    log_std = normal(1, 3, 2)
    normals = scipy.stats.norm(mean, np.exp(log_std))
    output, deviation = jnp.asarray(mean), jnp.asarray(log_std)
    density = CONTINUOUS.log_probability(output, deviation, jnp.asarray(action))
    np.testing.assert_allclose(density, normals.logpdf(action).sum(-1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(CONTINUOUS.entropy(output, deviation), normals.entropy().sum(-1), rtol=1e-4)


@pytest.mark.parametrize("leading", [(), (5,), (2, 4)])
def test_discrete_kl_divergence_is_the_relative_entropy(leading: tuple[int, ...]):
    logits, others = 2.0 * normal(0, *leading, 3), normal(1, *leading, 3)
    found = DISCRETE.kl(jnp.asarray(logits), NO_STD, jnp.asarray(others), NO_STD)
    p, q = (scipy.special.softmax(x.astype(np.float64), axis=-1) for x in (logits, others))
    assert found.shape == leading
    np.testing.assert_allclose(found, scipy.stats.entropy(p, q, axis=-1), rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_continuous_kl_divergence_by_hand_and_by_integration():
    # By hand: one deviation apart is 1/2 nat; of half the deviation, at the same mean, ln 2 + 1/8 - 1/2.
    ones, halves = jnp.zeros(2), jnp.full(2, -np.log(2.0))
    assert CONTINUOUS.kl(jnp.array([1.0, 0.0]), ones, jnp.zeros(2), ones) == pytest.approx(0.5)
    narrow = CONTINUOUS.kl(jnp.zeros((3, 2)), halves, jnp.zeros((3, 2)), ones)
    np.testing.assert_allclose(narrow, np.full(3, 2 * (np.log(2) + 1 / 8 - 1 / 2)), rtol=1e-5)
    x = np.linspace(-12, 12, 20001)
    p, q = scipy.stats.norm(0.3, np.exp(-0.4)), scipy.stats.norm(-0.7, np.exp(0.6))
    slow = 2 * np.sum(p.pdf(x) * (p.logpdf(x) - q.logpdf(x))) * (x[1] - x[0])
    found = CONTINUOUS.kl(jnp.full(2, 0.3), jnp.full(2, -0.4), jnp.full(2, -0.7), jnp.full(2, 0.6))
    assert found == pytest.approx(slow, rel=1e-4)


@pytest.mark.slow
def test_entropy_has_a_gradient():
    gradient = jax.grad(lambda logits: DISCRETE.entropy(logits, NO_STD))(jnp.asarray([0.0, 1.0, 3.0]))
    p = scipy.special.softmax([0.0, 1.0, 3.0])
    np.testing.assert_allclose(gradient, -p * (np.log(p) - np.sum(p * np.log(p))), rtol=1e-5)
    gradient = jax.grad(lambda log_std: CONTINUOUS.entropy(jnp.zeros(2), log_std))(jnp.zeros(2))
    np.testing.assert_allclose(gradient, [1.0, 1.0])


def test_extreme_logits_stay_finite():
    logits = jnp.asarray([1000.0, 0.0, -1000.0])
    np.testing.assert_allclose(DISCRETE.log_probability(logits, NO_STD, jnp.asarray(1)), -1000.0)
    assert DISCRETE.entropy(logits, NO_STD) == 0.0
    assert np.isfinite(jax.grad(lambda o: DISCRETE.entropy(o, NO_STD))(logits)).all()


def test_discrete_samples_have_the_softmax_frequencies():
    logits = jnp.asarray([0.0, 1.0, -1.0])
    actions = DISCRETE.sample(jax.random.key(0), jnp.broadcast_to(logits, (20_000, 3)), NO_STD)
    assert actions.shape == (20_000,)
    expected = 20_000 * scipy.special.softmax(np.asarray(logits, np.float64))
    assert scipy.stats.chisquare(np.bincount(actions, minlength=3), expected).pvalue > 1e-3


def test_continuous_samples_are_normal_and_independent():
    mean, log_std = jnp.asarray([3.0, -2.0]), jnp.asarray([-1.0, 0.5])
    actions = CONTINUOUS.sample(jax.random.key(0), jnp.broadcast_to(mean, (5_000, 2)), log_std)
    scaled = (np.asarray(actions) - np.asarray(mean)) / np.exp(log_std)
    assert actions.shape == (5_000, 2)
    for dimension in range(2):
        assert scipy.stats.kstest(scaled[:, dimension], "norm").pvalue > 1e-3
    assert scipy.stats.pearsonr(scaled[:, 0], scaled[:, 1]).pvalue > 1e-3


@pytest.mark.slow
def test_samples_depend_on_the_key_alone():
    output = jnp.zeros((50, 2))
    first, again, other = (CONTINUOUS.sample(jax.random.key(seed), output, jnp.zeros(2)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).all()


def test_best_action_is_the_likeliest():
    logits = jnp.asarray([[0.0, 2.0, 1.0], [5.0, -1.0, 1.0]])
    np.testing.assert_array_equal(DISCRETE.most_likely(logits), [1, 0])
    means = jnp.asarray([[7.0, -7.0]])
    np.testing.assert_array_equal(CONTINUOUS.most_likely(means), means)


def test_clip_action_keeps_each_dimension_in_its_bounds():
    actions = jnp.asarray([[-3.0, -3.0], [0.25, 0.25], [3.0, 3.0]])
    np.testing.assert_array_equal(CONTINUOUS.clip(actions), [[-1.0, -0.5], [0.25, 0.25], [1.0, 2.0]])


def test_clip_action_leaves_discrete_actions_alone():
    np.testing.assert_array_equal(DISCRETE.clip(jnp.arange(3)), [0, 1, 2])


def test_random_discrete_actions_are_uniform():
    actions = DISCRETE.random(jax.random.key(0), (100, 90))
    assert actions.shape == (100, 90)
    assert scipy.stats.chisquare(np.bincount(np.ravel(actions))).pvalue > 1e-3
    assert set(np.ravel(actions).tolist()) == {0, 1, 2}


def test_random_continuous_actions_are_uniform_within_the_bounds():
    actions = np.asarray(CONTINUOUS.random(jax.random.key(0), (50, 60)))
    assert actions.shape == (50, 60, 2)
    for dimension, (low, high) in enumerate(zip(CONTINUOUS.low, CONTINUOUS.high, strict=True)):
        drawn = actions[..., dimension].ravel()
        assert drawn.min() >= low
        assert drawn.max() <= high
        assert scipy.stats.kstest(drawn, scipy.stats.uniform(low, high - low).cdf).pvalue > 1e-3


def test_spaces_are_cut_and_joined_and_come_back_from_a_card():
    wide = Continuous(3, (-1.0, -0.5, 0.0), (1.0, 2.0, 4.0))
    assert wide.part(1, 2) == Continuous(2, (-0.5, 0.0), (2.0, 4.0))
    assert CONTINUOUS.joined([wide.part(2, 1)]) == Continuous(3, (-1.0, -0.5, 0.0), (1.0, 2.0, 4.0))
    assert DISCRETE.joined([Discrete(2), Discrete(4)]) == Discrete(9)
    assert DISCRETE.part(1, 2) == Discrete(2)
    for space in (DISCRETE, CONTINUOUS, wide):
        assert space_of(json.loads(json.dumps(space.as_entry()))) == space
        assert space.log_std_size == (0 if space is DISCRETE else space.size)


def test_a_diverged_action_becomes_one_within_the_bounds_and_is_told():
    actions, diverged = CONTINUOUS.without_nan(np.array([[0.5, 0.5], [np.nan, 0.5]], np.float32))
    np.testing.assert_array_equal(actions, [[0.5, 0.5], [-1.0, 0.5]])
    np.testing.assert_array_equal(diverged, [False, True])
    np.testing.assert_array_equal(DISCRETE.without_nan(np.arange(3))[1], [False] * 3)
