"""Initialisers: orthonormal to rounding, distributed as a sign-fixed QR, blocks within larger matrices, no LAPACK."""

import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from floppy.learner import initialisers
from floppy.learner.initialisers import INITIALISERS, lecun, orthogonal, orthogonalise, orthogonalise_oblong, xavier
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution
from floppy.tasks import Discrete

LAPACK = re.compile("lapack|qr|householder|solver", re.IGNORECASE)


@functools.cache
def draw(seed: int, count: int, shape: tuple[int, int], gain: float = 1.0) -> np.ndarray:
    """`[count, *shape]`, one draw per key."""
    keys = jax.random.split(jax.random.key(seed), count)
    rows, columns = map(jnp.asarray, shape)
    return np.asarray(jax.jit(jax.vmap(lambda key: orthogonal(key, shape, rows, columns, gain)))(keys))


def orthonormality_error(matrices: np.ndarray) -> float:
    """Largest deviation of the Gram matrices of the shorter side from the identity; infinite if not finite."""
    rows, columns = matrices.shape[-2:]
    wide = (matrices if rows <= columns else np.swapaxes(matrices, -1, -2)).astype(np.float64)
    if not np.isfinite(wide).all():
        return float("inf")
    return float(np.abs(wide @ np.swapaxes(wide, -1, -2) - np.eye(wide.shape[-2])).max())


@pytest.mark.parametrize("shape", [(4, 64), (64, 64), (64, 2), (256, 256), (20, 32), (1, 7)])
def test_orthonormal_along_the_shorter_side(shape: tuple[int, int]):
    assert orthonormality_error(draw(0, 5, shape)) < 1e-5


@pytest.mark.slow
def test_orthonormal_for_many_keys():
    assert orthonormality_error(draw(1, 200, (64, 64))) < 1e-5


@pytest.mark.thorough(all_but=["shape0", "shape2"])
@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 1), (4, 4), (1, 7), (16, 16)])
def test_no_draw_of_a_small_matrix_diverges(shape: tuple[int, int]):
    # Unusually large or small singular values are common in small matrices; thousands of learners are drawn in a run.
    assert orthonormality_error(draw(0, 20_000, shape)) < 1e-5


@pytest.mark.parametrize("shape", [(3, 5), (5, 5), (6, 2)])
def test_orthogonalise_is_the_polar_factor(shape: tuple[int, int]):
    matrix = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    u, _, v = np.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(jax.jit(orthogonalise)(matrix), u @ v, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(256, 64), (2, 300), (512, 32)])
def test_oblong_matrices_have_the_same_polar_factor(shape: tuple[int, int]):
    keys = jax.random.split(jax.random.key(0), 30)
    matrices = np.asarray(jax.jit(jax.vmap(lambda key: orthogonalise_oblong(jax.random.normal(key, shape))))(keys))
    assert orthonormality_error(matrices) < 1e-5
    u, _, v = np.linalg.svd(jax.random.normal(keys[0], shape), full_matrices=False)
    np.testing.assert_allclose(matrices[0], u @ v, atol=1e-5)


def test_a_draw_takes_the_short_way_only_where_sizes_are_known_and_oblong(monkeypatch: pytest.MonkeyPatch):
    taken = []
    monkeypatch.setattr(initialisers, "orthogonalise_oblong", lambda matrix: taken.append(matrix.shape) or matrix)

    def draws(key: jax.Array) -> None:
        for shape in ((512, 64), (64, 512), (512, 256), (64, 2)):
            orthogonal(key, shape, *shape, 1.0)
        orthogonal(key, (512, 64), jnp.asarray(512), 64, 1.0)
        orthogonal(key, (512, 64), 400, 64, 1.0)

    jax.eval_shape(draws, jax.random.key(0))
    assert taken == [(512, 64), (64, 512)]


@pytest.mark.parametrize("gain", [2.0**0.5, 0.01])
def test_gain_multiplies_every_singular_value(gain: float):
    singular_values = np.linalg.svd(draw(0, 3, (16, 8), gain), compute_uv=False)
    np.testing.assert_allclose(singular_values, np.full((3, 8), gain), rtol=1e-5)


def test_used_block_is_orthonormal_and_the_rest_zero():
    shape = (24, 40)
    blocks = [(24, 40), (5, 40), (24, 7), (12, 12), (20, 9), (9, 20), (10, 1), (1, 12)]
    rows, columns = (jnp.asarray(sizes) for sizes in zip(*blocks, strict=True))
    keys = jax.random.split(jax.random.key(0), len(blocks))
    # One compiled program for every block: the sizes are traced.
    initialise = jax.jit(jax.vmap(lambda key, r, c: orthogonal(key, shape, r, c, 1.0)))
    for (r, c), matrix in zip(blocks, np.asarray(initialise(keys, rows, columns)), strict=True):
        assert orthonormality_error(matrix[:r, :c]) < 1e-5, (r, c)
        assert not matrix[r:].any()
        assert not matrix[:, c:].any()
    assert initialise._cache_size() == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "statistic",
    [
        pytest.param(lambda q: q[:, 0, 0], id="entry"),
        pytest.param(lambda q: q[:, 2, 1], id="off-diagonal-entry"),
        pytest.param(lambda q: np.trace(q, axis1=1, axis2=2), id="trace"),
        pytest.param(lambda q: q[:, 0, 0] * q[:, 1, 1], id="product"),
        pytest.param(lambda q: q[:, 0, 1] * q[:, 1, 0], id="off-diagonal-product"),
        pytest.param(lambda q: np.linalg.det(q), id="determinant"),
    ],
)
def test_distribution_is_that_of_a_sign_fixed_qr(statistic: Callable[[np.ndarray], np.ndarray]):
    gaussians = np.random.default_rng(0).normal(size=(4000, 4, 4))
    q, r = np.linalg.qr(gaussians)
    expected = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    found = draw(1, 4000, (4, 4))
    assert np.isfinite(found).all()
    found_statistic, expected_statistic = np.round(statistic(found), 5), np.round(statistic(expected), 5)
    assert scipy.stats.ks_2samp(found_statistic, expected_statistic).pvalue > 1e-3


def test_distribution_of_a_tall_matrix_is_that_of_a_sign_fixed_qr():
    q, r = np.linalg.qr(np.random.default_rng(0).normal(size=(3000, 8, 3)))
    expected = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    found = draw(1, 3000, (8, 3))
    assert np.isfinite(found).all()
    assert scipy.stats.ks_2samp(found[:, 5, 2], expected[:, 5, 2]).pvalue > 1e-3
    products = (m[:, 5, 2] * m[:, 0, 1] for m in (found, expected))
    assert scipy.stats.ks_2samp(*products).pvalue > 1e-3


@pytest.mark.parametrize(("rows", "columns", "gain"), [(60, 40, 1.0), (20, 40, 2.0**0.5), (5, 7, 0.01)])
def test_xavier_is_normal_with_glorots_deviation(rows: int, columns: int, gain: float):
    keys = jax.random.split(jax.random.key(0), 40)
    initialise = jax.jit(jax.vmap(lambda key, r, c: xavier(key, (60, 40), r, c, gain), in_axes=(0, None, None)))
    matrices = np.asarray(initialise(keys, jnp.asarray(rows), jnp.asarray(columns)))
    used = matrices[:, :rows, :columns]
    deviation = gain * (2.0 / (rows + columns)) ** 0.5
    assert scipy.stats.kstest(used[:, :5, :5].ravel() / deviation, "norm").pvalue > 1e-3
    np.testing.assert_allclose(used.std(), deviation, rtol=5 / (2 * used.size) ** 0.5)
    assert np.count_nonzero(matrices) == used.size


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "columns", "gain"), [(60, 40, 1.0), (20, 30, 0.5)])
def test_lecun_is_the_cut_normal_of_flax(rows: int, columns: int, gain: float):
    keys = jax.random.split(jax.random.key(0), 40)
    initialise = jax.vmap(lambda key: lecun(key, (60, 40), jnp.asarray(rows), jnp.asarray(columns), gain))
    matrices = np.asarray(initialise(keys))
    used = matrices[:, :rows, :columns]
    flax = jax.vmap(lambda key: jax.nn.initializers.lecun_normal()(key, (rows, columns)))(keys)
    np.testing.assert_allclose(used.std(), gain * np.std(flax), rtol=0.02)
    np.testing.assert_allclose(used.std(), gain / rows**0.5, rtol=0.02)
    assert scipy.stats.ks_2samp(used.ravel()[::7], gain * np.ravel(flax)[::7]).pvalue > 1e-3
    assert np.count_nonzero(matrices) == used.size


def test_gains_of_the_paper():
    gains = {name: (hidden, output) for name, (_, hidden, output) in INITIALISERS.items()}
    large = pytest.approx(2.0**0.5)
    assert gains == {
        "orthogonal": (large, 0.01),
        "orthogonal1": (1.0, 1.0),
        "xavier": (large, 0.01),
        "xavier1": (1.0, 1.0),
        "lecun": (1.0, 1.0),
    }


def called_libraries(function: Callable[..., jax.Array], *arguments: jax.Array) -> set[str]:
    """Targets of the custom calls in the lowered and in the compiled program."""
    lowered = jax.jit(function).lower(*arguments)
    text = lowered.as_text() + lowered.compile().as_text()
    return set(re.findall(r'(?:custom_call @|custom_call_target=")([\w.$]+)', text))


@pytest.mark.slow
@pytest.mark.parametrize(
    "distribution",
    [LearnerDistribution(), LearnerDistribution((8, 16), (1, 2), ("orthogonal", "xavier"))],
    ids=["lambda", "random"],
)
def test_drawing_learners_calls_no_lapack(distribution: LearnerDistribution):
    # LAPACK's QR inside a compiled loop can hang for ever on CPU.
    network = LayeredNetwork(distribution, (4,), Discrete(2))
    keys = jax.random.split(jax.random.key(0), 3)
    assert not any(LAPACK.search(target) for target in called_libraries(jax.vmap(network.init), keys))


def test_a_lapack_call_would_be_noticed():
    targets = called_libraries(jax.vmap(lambda matrix: jnp.linalg.qr(matrix)[0]), jnp.ones((3, 4, 4)))
    assert any(LAPACK.search(target) for target in targets)
