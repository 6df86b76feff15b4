"""Running statistics of observations against NumPy, and normalisation by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floppy.play.normalise import RunningStatistics, init_statistics, moments_of, normalise, update_statistics

update = jax.jit(update_statistics)


@pytest.mark.parametrize("sizes", [(50,), (1, 1, 1, 2), (10, 1, 30, 9)])
@pytest.mark.parametrize("shape", [(3,), (2, 3)])
def test_batches_merge_to_the_statistics_of_everything(sizes: tuple[int, ...], shape: tuple[int, ...]):
    random = np.random.default_rng(len(sizes))
    batches = [random.normal(random.uniform(-5, 5, shape), 3.0, (n, *shape)).astype(np.float32) for n in sizes]
    statistics = init_statistics(shape)
    for batch in batches:
        statistics = update(statistics, batch)
    everything = np.concatenate(batches).astype(np.float64)
    assert statistics.seen == sum(sizes)
    assert statistics.mean.shape == statistics.var.shape == shape
    np.testing.assert_allclose(statistics.mean, everything.mean(0), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(statistics.var, everything.var(0), rtol=1e-5, atol=1e-5)


def test_mean_far_from_zero_does_not_drown_the_variance():
    random = np.random.default_rng(0)
    batches = (1000.0 + random.normal(size=(20, 100, 1))).astype(np.float32)
    statistics = init_statistics((1,))
    for batch in batches:
        statistics = update(statistics, batch)
    np.testing.assert_allclose(statistics.var, batches.astype(np.float64).var((0, 1)), rtol=1e-2)


def test_what_has_no_weight_may_be_anything():
    batch = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf], [3.0, 4.0]])
    moments = moments_of(batch, jnp.array([1.0, 0.0, 1.0]), jnp.array([1.0, 1.0]))
    assert float(moments.total) == 2.0
    np.testing.assert_allclose(moments.first, [2.0, 4.0])
    np.testing.assert_allclose(moments.second, [4.0, 10.0])


@pytest.mark.parametrize(
    ("mean", "var", "observation", "expected"),
    [
        (1.0, 4.0, 5.0, 2.0),
        (1.0, 4.0, -2.0, -1.5),
        (0.0, 0.25, 4.0, 8.0),
        (1.0, 4.0, 100.0, 10.0),  # clipped
        (1.0, 4.0, -100.0, -10.0),
        (3.0, 0.0, 3.0, 0.0),  # a constant: 1e-8 keeps the quotient finite
        (3.0, 0.0, 3.25, 10.0),
        (0.0, 3e-8, 1e-3, 5.0),  # 1e-3 / sqrt(4e-8)
    ],
)
def test_normalise_by_hand(mean: float, var: float, observation: float, expected: float):
    statistics = RunningStatistics(jnp.asarray(9.0), jnp.asarray([mean]), jnp.asarray([var]))
    np.testing.assert_allclose(normalise(statistics, jnp.full((2, 1), observation)), np.full((2, 1), expected), 1e-5)


def test_normalise_takes_any_leading_axes():
    statistics = RunningStatistics(jnp.asarray(9.0), jnp.asarray([0.0, 1.0]), jnp.asarray([1.0, 4.0]))
    batch = jnp.broadcast_to(jnp.asarray([2.0, 2.0]), (3, 4, 2))
    np.testing.assert_allclose(normalise(statistics, batch), np.broadcast_to([2.0, 0.5], (3, 4, 2)), rtol=1e-6)


def test_without_statistics_observations_stay_as_they_are():
    observations = jnp.asarray([[-1000.0, 0.0, 1000.0]])
    assert normalise(None, observations) is observations


def test_before_anything_was_seen_observations_stay_as_they_are():
    observations = jnp.asarray([[-9.5, 0.0, 9.5]])
    np.testing.assert_allclose(normalise(init_statistics((3,)), observations), observations, rtol=1e-6)


def test_pixels_are_scaled_to_one_before_anything_else():
    pixels = np.random.default_rng(0).integers(0, 256, (20, 3), np.uint8)
    floats = (pixels / 255).astype(np.float32)
    np.testing.assert_allclose(normalise(None, jnp.asarray(pixels)), floats, rtol=1e-6)
    statistics = update(init_statistics((3,)), pixels)
    np.testing.assert_allclose(statistics.mean, floats.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics.var, floats.var(axis=0), rtol=1e-4)
    np.testing.assert_allclose(
        normalise(statistics, jnp.asarray(pixels)), normalise(statistics, jnp.asarray(floats)), rtol=1e-4, atol=1e-5
    )
    weight = jnp.ones(20)
    for ours, theirs in zip(
        moments_of(jnp.asarray(pixels), weight, jnp.zeros(3)),
        moments_of(jnp.asarray(floats), weight, jnp.zeros(3)),
        strict=True,
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5)
