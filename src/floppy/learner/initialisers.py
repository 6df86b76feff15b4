"""Weight initialisers without LAPACK, for matrices of which only the top-left block is in use.

A network whose width is random is laid out for its largest width: the unused rows and columns of its kernels are
zero. With an activation that maps 0 to 0 they stay zero under gradient descent, so one compiled program serves every
width. The initialisers here therefore take the used `rows` and `columns` as numbers, traced ones where the width is
random.
"""

import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

QUINTIC_STEPS = 16
CUBIC_STEPS = 5
COUPLED_STEPS = 8
COUPLED_BOUND = 1.4
"""The Gram matrix is divided by so many times the mean of its eigenvalues. Those from 0.2 to 2.5 times the mean then
lie between 0 and 2, where the iteration converges, and the steps are enough."""
OBLONG = 4
"""Ratio of the sides from which a matrix counts as oblong, if the longer has `OBLONG_SIDE` at least: in a small matrix
chance can make two rows alike."""
OBLONG_SIDE = 256


def orthogonalise(matrix: jax.Array) -> jax.Array:
    """The orthogonal polar factor `U Vᵀ` of `matrix = U S Vᵀ`, by matrix products alone.

    The polar factor of a Gaussian matrix is uniform (Haar) on the matrices with orthonormal rows or columns, as is the
    factor Q of its QR decomposition with the signs of R's diagonal made positive. LAPACK's QR inside a compiled loop
    can hang for ever on CPU, hence products: a quintic iteration that lifts small singular values by 3.4 a step, then
    the Newton-Schulz iteration `A <- 1.5 A - 0.5 A AᵀA`, which converges quadratically.
    Zero rows and columns stay zero.

    Args:
      matrix: `[rows, columns]`.

    Returns:
      `[rows, columns]`, orthonormal along its shorter side, with errors near 1e-6.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T

    def quintic(_: int, a: jax.Array) -> jax.Array:
        gram = exact_product(a, a.T)
        return 3.4445 * a + exact_product(-4.7750 * gram + 2.0315 * exact_product(gram, gram), a)

    # Both iterations need singular values of at most 1; |A Aᵀ| bounds the square of the largest.
    wide = wide / jnp.sqrt(jnp.linalg.norm(exact_product(wide, wide.T)))
    wide = jax.lax.fori_loop(0, QUINTIC_STEPS, quintic, wide)
    factor: jax.Array = jax.lax.fori_loop(0, CUBIC_STEPS, lambda _, a: _cubic(a), wide)
    return factor if matrix.shape[0] <= matrix.shape[1] else factor.T


def orthogonalise_oblong(matrix: jax.Array) -> jax.Array:
    """As `orthogonalise`, for a Gaussian matrix without unused rows or columns, one side much the longer, in less time.

    Its singular values lie close together (Marchenko and Pastur, 1967): with sides 1 : 4 their squares lie between 0.25
    and 2.25 times the mean of these. So the inverse square root of the small Gram matrix can be taken, by the coupled
    Newton-Schulz iteration (Higham, Functions of Matrices, 2008, section 6.7).
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = exact_product(wide, wide.T)
    bound = COUPLED_BOUND * jnp.trace(gram) / wide.shape[0]
    identity = jnp.eye(wide.shape[0])

    def coupled(_: int, roots: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        root, inverse = roots
        factor = 1.5 * identity - 0.5 * exact_product(inverse, root)
        return exact_product(root, factor), exact_product(factor, inverse)

    _, inverse = jax.lax.fori_loop(0, COUPLED_STEPS, coupled, (gram / bound, identity))
    wide = _cubic(exact_product(inverse / jnp.sqrt(bound), wide))
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def exact_product(a: jax.Array, b: jax.Array) -> jax.Array:
    """The matrix product at full precision also where an accelerator would round."""
    return jnp.matmul(a, b, precision=jax.lax.Precision.HIGHEST)


def _cubic(a: jax.Array) -> jax.Array:
    return 1.5 * a - 0.5 * exact_product(exact_product(a, a.T), a)


Size = jax.Array | int
"""Used inputs or outputs: a number where it is the same in every draw, else traced."""


def _used_gaussian(key: jax.Array, shape: tuple[int, int], rows: Size, columns: Size) -> jax.Array:
    used = (jnp.arange(shape[0])[:, None] < rows) & (jnp.arange(shape[1])[None, :] < columns)
    return jnp.where(used, jax.random.normal(key, shape), 0.0)


def orthogonal(key: jax.Array, shape: tuple[int, int], rows: Size, columns: Size, gain: float) -> jax.Array:
    """Uniform among matrices with orthonormal rows or columns, times `gain` (Saxe et al., 2014).

    Args:
      key: PRNG key, consumed.
      shape: `(inputs, outputs)` of the kernel.
      rows: used inputs.
      columns: used outputs.
      gain: factor on every singular value.

    Returns:
      `[inputs, outputs]`, zero outside the used block.
    """
    longer, shorter = max(shape), min(shape)
    is_full = isinstance(rows, int) and isinstance(columns, int) and (rows, columns) == shape
    is_oblong = is_full and longer >= OBLONG_SIDE and longer >= OBLONG * shorter
    polar_factor = orthogonalise_oblong if is_oblong else orthogonalise
    return gain * polar_factor(_used_gaussian(key, shape, rows, columns))


def xavier(key: jax.Array, shape: tuple[int, int], rows: Size, columns: Size, gain: float) -> jax.Array:
    """Normal with standard deviation `gain * sqrt(2 / (rows + columns))` (Glorot and Bengio, 2010).

    Arguments and result as for `orthogonal`.
    """
    return gain * jnp.sqrt(2.0 / (rows + columns)) * _used_gaussian(key, shape, rows, columns)


def lecun(key: jax.Array, shape: tuple[int, int], rows: Size, columns: Size, gain: float) -> jax.Array:
    """Normal, cut at two standard deviations, with one of `gain / sqrt(rows)` after that: the default of flax's layers.

    Arguments and result as for `orthogonal` (LeCun et al., 1998, section 4.6).
    """
    used = (jnp.arange(shape[0])[:, None] < rows) & (jnp.arange(shape[1])[None, :] < columns)
    values = jax.random.truncated_normal(key, -2.0, 2.0, shape) / CUT_NORMAL_STD
    return jnp.where(used, gain * values / jnp.sqrt(rows), 0.0)


CUT_NORMAL_STD = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at two."""

HIDDEN_GAIN = 2.0**0.5
OUTPUT_GAIN = 0.01

INITIALISERS: dict[str, tuple[Callable[..., jax.Array], float, float]] = {
    "orthogonal": (orthogonal, HIDDEN_GAIN, OUTPUT_GAIN),
    "orthogonal1": (orthogonal, 1.0, 1.0),
    "xavier": (xavier, HIDDEN_GAIN, OUTPUT_GAIN),
    "xavier1": (xavier, 1.0, 1.0),
    "lecun": (lecun, 1.0, 1.0),
}
"""Initialiser by name: function, gain of the hidden layers, gain of the last layer (PPMO, Table 1)."""

FLAX_ORTHOGONAL = "flax-orthogonal"
"""The one initialiser that is no distribution here: the very weights that flax draws from a seed."""


@functools.cache
def flax_orthogonal(seed: int, sizes: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Kernels of `flax.linen.Dense` layers, orthogonal with gains √2 and 0.01, as the published HaDES code drew them.

    Args:
      seed: of JAX's threefry key, in the form that was JAX's default until 2025.
      sizes: of input, hidden layers and output, as a tuple.

    Returns:
      Kernels `[inputs, outputs]`, by LAPACK and outside of any compiled function.
    """
    import flax.linen as nn  # only datasets of the published HaDES-F need it

    class Policy(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            for index, size in enumerate(sizes[1:]):
                gain = HIDDEN_GAIN if index < len(sizes) - 2 else OUTPUT_GAIN
                x = nn.Dense(size, kernel_init=nn.initializers.orthogonal(gain))(x)
            return x

    with jax.ensure_compile_time_eval(), jax.threefry_partitionable(False):
        layers = Policy().init(jax.random.PRNGKey(seed), jnp.zeros(sizes[0]))["params"]
    return tuple(np.asarray(layers[f"Dense_{index}"]["kernel"]) for index in range(len(sizes) - 1))
