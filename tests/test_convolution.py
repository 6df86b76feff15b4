"""Convolutions against XLA's own, and by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floppy.learner import cnn
from floppy.learner.cnn import convolve, convolve_by_products

SHAPES = [(3, 1, 10, 10), (8, 4, 16, 21), (3, 2, 9, 12), (2, 4, 9, 10)]
"""Window, stride, rows, columns; with windows that the stride divides and others."""


@pytest.mark.thorough(all_but=["3-2-9-12", "8-4-16-21"])
@pytest.mark.slow
@pytest.mark.parametrize(("window", "stride", "rows", "columns"), SHAPES)
def test_it_equals_xlas_and_so_does_its_gradient(window: int, stride: int, rows: int, columns: int) -> None:
    keys = jax.random.split(jax.random.key(window), 3)
    images = jax.random.normal(keys[0], (2, rows, columns, 3))
    kernel = jax.random.normal(keys[1], (window, window, 3, 4))

    def xlas(images: jax.Array, kernel: jax.Array) -> jax.Array:
        numbers = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(images, kernel, (stride, stride), "VALID", dimension_numbers=numbers)

    def with_gradient(function: Callable[[jax.Array, jax.Array], jax.Array]) -> Any:
        def weighted(images: jax.Array, kernel: jax.Array) -> tuple[jax.Array, jax.Array]:
            output = function(images, kernel)
            return jnp.sum(output * jax.random.normal(keys[2], output.shape)), output

        return jax.jit(jax.grad(weighted, (0, 1), has_aux=True))(images, kernel)

    # On a CPU `convolve` is this one, which the test below makes sure of.
    got, wanted = with_gradient(functools.partial(convolve_by_products, stride=stride)), with_gradient(xlas)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), got, wanted)


@pytest.mark.slow
def test_accelerators_take_xlas_own(monkeypatch: pytest.MonkeyPatch) -> None:
    images, kernel = jnp.ones((1, 6, 5, 2)), jnp.ones((3, 3, 2, 4))
    ours = jax.make_jaxpr(functools.partial(convolve, stride=2))(images, kernel)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    theirs = jax.make_jaxpr(functools.partial(convolve, stride=2))(images, kernel)
    assert "conv_general_dilated" in str(theirs)
    assert "conv_general_dilated" not in str(ours)
    np.testing.assert_allclose(
        convolve(images, kernel, 2), convolve_by_products(images, kernel, 2), err_msg="both are the same convolution"
    )


def test_by_hand() -> None:
    # 1 2 3      window 2, stride 1, kernel 1 0: top left plus twice the bottom right
    # 4 5 6                                 0 2
    images = jnp.arange(1.0, 7.0).reshape(1, 2, 3, 1)
    kernel = jnp.asarray([[1.0, 0.0], [0.0, 2.0]]).reshape(2, 2, 1, 1)
    np.testing.assert_array_equal(convolve_by_products(images, kernel, 1).ravel(), [1 + 10, 2 + 12])


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (4, 2), (8, 4)])
@pytest.mark.parametrize("count", [0, 1, 6, 7])
def test_images_in_batches_are_those_at_once(
    count: int, window: int, stride: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(count)
    images = jnp.asarray(random.normal(size=(count, 12, 13, 3)), jnp.float32)
    kernel = jnp.asarray(random.normal(size=(window, window, 3, 5)), jnp.float32)

    def summed(kernel: jax.Array) -> jax.Array:
        return jnp.sum(convolve_by_products(images, kernel, stride) ** 2)

    wanted, gradient = convolve_by_products(images, kernel, stride), jax.grad(summed)(kernel)
    monkeypatch.setattr(cnn, "CACHE_BYTES", 1)
    np.testing.assert_allclose(convolve_by_products(images, kernel, stride), wanted, rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(jax.grad(summed)(kernel), gradient, rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize(("room", "wanted"), [(0.5, 1), (3.9, 3), (5.0, 4), (100.0, 12)])
def test_as_many_images_at_a_time_as_the_caches_hold(room: float, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 2 x 3 places with 1 channel and 2 x 2 x 5 products: 504 bytes an image; 12 images have no 5 for a divisor."""
    monkeypatch.setattr(cnn, "CACHE_BYTES", int(room * 4 * 6 * 21))
    assert cnn._images_at_a_time(jnp.zeros((12, 2, 3, 1)), jnp.zeros((2, 2, 1, 5))) == wanted
