"""What the benchmarks count, by hand, and the page that they write. Nothing is timed here."""

import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(FOLDER))

import _measure  # noqa: E402
import bench  # noqa: E402

A, B = jnp.ones((3, 5)), jnp.ones((5, 7))
PRODUCT = 2 * 3 * 5 * 7


def repeated(times: int, b: jax.Array) -> jax.Array:
    return jax.lax.fori_loop(0, times, lambda _, total: total + jnp.sum(A @ b), jnp.zeros(()))


def until_large(b: jax.Array) -> jax.Array:
    return jax.lax.while_loop(lambda total: total < 1e3, lambda total: total + jnp.sum(A @ b), jnp.zeros(()))


def one_of_two(b: jax.Array) -> jax.Array:
    return jax.lax.cond(b[0, 0] > 0, lambda: jnp.sum(A @ b), lambda: jnp.sum(A @ b @ b.T))


def convolution(b: jax.Array) -> jax.Array:
    """Of 2 images of 6 x 6 pixels in 3 channels, 3 x 3 windows, 4 channels: 4 x 4 places."""
    images, kernel = jnp.ones((2, 6, 6, 3)), jnp.ones((3, 3, 3, 4)) * b[0, 0]
    return jax.lax.conv_general_dilated(images, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize(
    ("function", "wanted"),
    [
        (lambda b: A @ b, PRODUCT),
        (lambda b: jax.jit(lambda x: A @ x)(b), PRODUCT),
        (lambda b: jax.vmap(lambda row: row @ b)(A), PRODUCT),
        (lambda b: repeated(4, b), 4 * PRODUCT),
        (until_large, 10 * PRODUCT),
        (one_of_two, PRODUCT + 2 * 3 * 7 * 5),
        (convolution, 2 * (3 * 3 * 3) * (2 * 4 * 4 * 4)),
        (lambda b: b + 1, 0),
    ],
    ids=["product", "compiled", "batch", "loop", "loop of unknown length", "the longer branch", "convolution", "none"],
)
def test_operations_of_products_by_hand(function, wanted):
    assert _measure.product_flops(function, B, trips=10) == wanted


def test_a_gradient_takes_two_products_more_for_two_arguments():
    gradient = jax.grad(lambda a, b: jnp.sum(jnp.square(a @ b)), argnums=(0, 1))
    assert _measure.product_flops(gradient, A, B) == 3 * PRODUCT


def test_shares_of_a_floor():
    assert _measure.rate("play", 50.0, "steps", 200.0, "products").of_floor == 0.25
    assert _measure.duration("start", 4.0, 1.0, "products").of_floor == 0.25
    assert _measure.rate("play", 50.0, "steps").of_floor is None


def test_the_page_says_what_the_file_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    page = tmp_path / "performance.md"
    page.write_text(bench.PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(bench, "PAGE", page)
    told = json.loads(bench.FILE.read_text(encoding="utf-8"))
    assert set(told["groups"]) == set(bench.GROUPS)
    bench._write_page(told)
    assert page.read_text(encoding="utf-8") == (FOLDER.parent / "docs" / "performance.md").read_text(encoding="utf-8")
