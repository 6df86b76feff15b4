"""Convolutions before the dense layers, by the names of their architectures; fast inside compiled loops on CPU too."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from floppy.learner.network import Layer
from floppy.parallel import largest_divisor, map_batches

SMALL_WINDOW = 2
"""Up to which few products are left over at the edges of an image."""
CACHE_BYTES = 2**22
"""Of what several images at a time take: one pass over larger ones waits for the memory. 2 to 8 MiB measured alike."""


def convolve(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """A convolution without padding.

    Inside a loop XLA's CPU backend falls back to a naive convolution: the gradient of the Nature CNN for 256 frames
    measured 18 s in `lax.scan`, 0.2 s as the matrix products used here (one core). Accelerators take XLA's own.

    Args:
      images: `[n, rows, columns, channels]`, at least as large as the window.
      kernel: `[window, window, channels, outputs]`.
      stride: of the window, along both axes.

    Returns:
      `[n, positions, positions, outputs]`
    """
    if jax.default_backend() != "cpu":
        return jax.lax.conv_general_dilated(
            images, kernel, (stride, stride), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return convolve_by_products(images, kernel, stride)


def convolve_by_products(images: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """As `convolve`, by matrix products, for as many images at a time as the caches hold."""
    if stride > 1:
        images, kernel = _stride_one(images, kernel, stride)
    convolve_some = _products_first if kernel.shape[0] <= SMALL_WINDOW else _windows_first
    batch = _images_at_a_time(images, kernel)
    values: jax.Array = map_batches(lambda some: convolve_some(some, kernel), images, batch)
    return values


def _images_at_a_time(images: jax.Array, kernel: jax.Array) -> int:
    """A divisor of their number."""
    count, rows, columns, channels = images.shape
    bytes_each = 4 * rows * columns * (channels + math.prod(kernel.shape[:2]) * kernel.shape[3])
    return largest_divisor(count, CACHE_BYTES // bytes_each)


def _products_first(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """One product of all pixels with the whole kernel, and then a sum of shifted parts: no pixel is copied."""
    window, _, channels, outputs = kernel.shape
    count, height, width, _ = images.shape
    rows, columns = height - window + 1, width - window + 1
    products = images.reshape(-1, channels) @ kernel.transpose(2, 0, 1, 3).reshape(channels, -1)
    products = products.reshape(count, height, width, window, window, outputs)
    total = jnp.zeros((count, rows, columns, outputs), images.dtype)
    for row, column in _places(window):
        total += products[:, row : row + rows, column : column + columns, row, column]
    return total


def _windows_first(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A sum of products, one for every place in the window: no product is left over at the edges."""
    window, _, channels, outputs = kernel.shape
    count, rows, columns = images.shape[0], images.shape[1] - window + 1, images.shape[2] - window + 1
    total = jnp.zeros((count * rows * columns, outputs), images.dtype)
    for row, column in _places(window):
        shifted = images[:, row : row + rows, column : column + columns]
        total += shifted.reshape(-1, channels) @ kernel[row, column]
    return total.reshape(count, rows, columns, outputs)


def _places(window: int) -> list[tuple[int, int]]:
    return [(row, column) for row in range(window) for column in range(window)]


def _stride_one(images: jax.Array, kernel: jax.Array, stride: int) -> tuple[jax.Array, jax.Array]:
    """The same convolution with stride 1: blocks of `stride x stride` pixels become channels of one."""
    window, _, channels, outputs = kernel.shape
    blocks = -(-window // stride)
    kernel = jnp.pad(kernel, ((0, blocks * stride - window),) * 2 + ((0, 0), (0, 0)))
    kernel = kernel.reshape(blocks, stride, blocks, stride, channels, outputs)
    kernel = kernel.transpose(0, 2, 1, 3, 4, 5).reshape(blocks, blocks, -1, outputs)
    sizes = [((size - window) // stride + blocks) * stride for size in images.shape[1:3]]
    beyond = [(0, max(0, wanted - size)) for wanted, size in zip(sizes, images.shape[1:3], strict=True)]
    images = jnp.pad(images[:, : sizes[0], : sizes[1]], ((0, 0), *beyond, (0, 0)))
    rows, columns = sizes[0] // stride, sizes[1] // stride
    images = images.reshape(-1, rows, stride, columns, stride, channels)
    return images.transpose(0, 1, 3, 2, 4, 5).reshape(-1, rows, columns, stride * stride * channels), kernel


class Convolution(NamedTuple):
    """A layer that goes over an image."""

    channels: int | None
    """None: as many as hidden layers have units."""
    window: int
    stride: int = 1
    padding: int = 0
    """Zeros on each side of the image."""
    normalises: bool = False
    """Whether every channel of every image is brought to mean 0 and variance 1 before the bias (instance norm)."""
    pool: int = 1
    """Side of the squares that are averaged after the activation; what is left over at the edge is dropped."""

    def positions(self, size: int) -> int:
        """Places along an axis after the layer."""
        return ((size + 2 * self.padding - self.window) // self.stride + 1) // self.pool

    def least_size(self, positions: int) -> int:
        """The smallest image that gives so many places."""
        return max(1, (positions * self.pool - 1) * self.stride + self.window - 2 * self.padding)

    def apply(self, layer: Layer, images: jax.Array, activation: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """`[n, rows, columns, channels]` after the layer, its activation and its pooling."""
        around, pool = (self.padding,) * 2, self.pool
        if self.padding:
            images = jnp.pad(images, ((0, 0), around, around, (0, 0)))
        values = convolve(images, layer["kernel"], self.stride)
        if self.normalises:
            values = jax.nn.standardize(values, axis=(1, 2))
        values = activation(values + layer["bias"][None, None, None])
        if pool == 1:
            return values
        count, rows, columns, channels = values.shape
        squares = values[:, : rows // pool * pool, : columns // pool * pool]
        return squares.reshape(count, rows // pool, pool, columns // pool, pool, channels).mean(axis=(2, 4))


CONVOLUTIONS: dict[str, tuple[Convolution, ...]] = {
    "mlp": (),
    "minatar-cnn": (Convolution(16, 3, 1),),
    "nature-cnn": (Convolution(32, 8, 4), Convolution(64, 4, 2), Convolution(64, 3, 1)),
    "hades-cnn": (Convolution(16, 3, padding=1),),
    "convnet-3": (Convolution(None, 3, padding=1, normalises=True, pool=2),) * 3,
    "pyramid-cnn": (
        Convolution(32, 5, padding=2, normalises=True, pool=2),
        Convolution(64, 3, padding=1, normalises=True, pool=2),
        Convolution(128, 3, padding=1, normalises=True, pool=2),
    ),
    "wide-pyramid-cnn": (
        Convolution(32, 5, padding=2, normalises=True, pool=2),
        Convolution(128, 3, padding=1, normalises=True, pool=2),
        Convolution(256, 3, padding=1, normalises=True, pool=2),
    ),
}
"""What comes before the dense layers, by the architecture's name."""
