"""Convolutions against XLA's own, and by hand."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

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
