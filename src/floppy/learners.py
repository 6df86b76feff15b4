"""Networks, and the distribution Λ from which a fresh policy is drawn."""

import dataclasses
import math
import re
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from floppy.convolution import convolve
from floppy.errors import FloppyError, check_number
from floppy.initialisers import FLAX_ORTHOGONAL, INITIALISERS, flax_orthogonal
from floppy.keys import named_key
from floppy.tasks.base import Continuous, Discrete

Layer = dict[str, jax.Array]
"""`kernel [inputs, outputs]` (of a convolution `[height, width, inputs, outputs]`), `bias [outputs]`."""

MOST_UNITS = 100_000
RANGE = re.compile(r"([0-9]{1,9})(?:\.\.([0-9]{1,9}))?")
"""`64` or `32..256`"""


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
}
"""What comes before the dense layers, by the network's name."""


ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}
# Both map 0 to 0, on which the zero-padding of random widths relies (see initialisers.py).


class Weights(NamedTuple):
    """A policy network's weights φ."""

    layers: tuple[Layer, ...]
    """From input to output."""
    skip: tuple[jax.Array, ...]
    """`[]` each, per layer: 1.0 where a hidden layer is left out (random depth), else 0.0. Never trained."""
    log_std: jax.Array
    """`[a]` for continuous actions, `[0]` for discrete ones."""


@dataclasses.dataclass(frozen=True)
class LearnerDistribution:
    """How a fresh policy is drawn: a network of random or fixed width, depth and initialiser.

    Widths and depths are inclusive ranges `(least, most)` drawn uniformly; one width holds for all hidden layers.
    The default is Λ of the PPMO paper (section 5.1): 64-64 tanh, orthogonal, gains √2 and 0.01, zero biases.

    Raises:
      FloppyError: when built with an empty range or an unknown name.
    """

    width: tuple[int, int] = (64, 64)
    """Units of every hidden layer: least, most."""
    depth: tuple[int, int] = (2, 2)
    """Hidden layers: least, most. With none the output follows the convolutions, or the observation, at once."""
    initialiser: tuple[str, ...] = ("orthogonal",)
    """Drawn uniformly from these: orthogonal, orthogonal1, xavier, xavier1, lecun."""
    activation: str = "tanh"
    """tanh or relu."""
    network: str = "mlp"
    """mlp, or minatar-cnn: one convolution (16 channels, 3 x 3) before the hidden layers (Young and Tian, 2019, whose
    network has one hidden layer of width 128 behind it), or nature-cnn: three of them (32 channels 8 x 8 at stride 4,
    64 4 x 4 at stride 2, 64 3 x 3; Mnih et al., 2015, with one hidden layer of width 512). For labelled images:
    hades-cnn (16 channels 3 x 3, padded; HaDES paper, section 5.4, with one hidden layer of width 128), convnet-3
    (three layers of `width` channels 3 x 3, padded, with instance norm and average pooling; Gidaris and Komodakis,
    2018, with width 128 and depth 0), pyramid-cnn (the same with 32, 64 and 128 channels, the first of them 5 x 5: as
    many features for a fifth of the arithmetic)."""
    init_seed: int = -1
    """-1 for a new draw every time; any other number is the seed of one fixed draw, the only policy of this
    distribution (HaDES-F; HaDES paper, section 4)."""

    def __post_init__(self) -> None:
        """Refuses nonsense."""
        if self.depth[0] == 0 < self.depth[1]:
            raise FloppyError(f"depth = 0..{self.depth[1]} was asked for: give 0 alone, or a range from 1.")
        for name in ("width", "depth"):
            least, most = getattr(self, name)
            check_number(f"{name} of the learners", least, least=0 if name == "depth" else 1, most=MOST_UNITS)
            check_number(f"{name} of the learners", most, least=least, most=MOST_UNITS)
        known = (*INITIALISERS, FLAX_ORTHOGONAL)
        unknown = [name for name in self.initialiser if name not in known]
        if unknown or not self.initialiser:
            got = ", ".join(unknown) or "none"
            raise FloppyError(f"Initialiser {got} was asked for: choose from {', '.join(known)}.")
        if self.activation not in ACTIVATIONS:
            raise FloppyError(f"Activation {self.activation} was asked for: choose from {', '.join(ACTIVATIONS)}.")
        if self.network not in CONVOLUTIONS:
            raise FloppyError(f"Network {self.network} was asked for: choose from {', '.join(CONVOLUTIONS)}.")
        has_wide_channels = any(convolution.channels is None for convolution in CONVOLUTIONS[self.network])
        if has_wide_channels and self.width[0] < self.width[1]:
            raise FloppyError(f"Network {self.network} was asked for with random widths: give one width.")
        check_number("init_seed", self.init_seed, least=-1, most=2**32 - 1)
        is_one_draw = self.is_fixed and self.init_seed >= 0 and len(self.initialiser) == 1 and self.network == "mlp"
        if FLAX_ORTHOGONAL in self.initialiser and not is_one_draw:
            raise FloppyError(
                f"Initialiser {FLAX_ORTHOGONAL} was asked for without one fixed draw: "
                "give it alone, with an init_seed, one width and depth, and network=mlp."
            )

    @property
    def is_fixed(self) -> bool:
        """Whether every draw has the same architecture (the weights still differ)."""
        return self.width[0] == self.width[1] and self.depth[0] == self.depth[1]

    @property
    def layers(self) -> int:
        """Layers of the deepest network, convolutions and the output layer included."""
        return self.depth[1] + 1 + len(CONVOLUTIONS[self.network])


NAMED_DISTRIBUTIONS = {
    "lambda": LearnerDistribution(),
    "ortho1": LearnerDistribution(initialiser=("orthogonal1",)),
    "xavier": LearnerDistribution(initialiser=("xavier",)),
    "xavier1": LearnerDistribution(initialiser=("xavier1",)),
    "random-width": LearnerDistribution(width=(32, 256)),
    "random-depth": LearnerDistribution(depth=(1, 6)),
}
"""The six columns of the PPMO paper's Table 1."""

NATURE_DISTRIBUTION = "network=nature-cnn:width=512:depth=1:activation=relu"
"""The learners for Atari in the PPMO paper (section 6; Mnih et al., 2015)."""

PYRAMID_DISTRIBUTION = "network=pyramid-cnn:depth=0:activation=relu"
"""Classifiers whose convolutions stay as they are drawn."""

HADES_CNN_DISTRIBUTION = "network=hades-cnn:width=128:depth=1:activation=relu:initialiser=lecun"
"""The classifiers of the HaDES paper (section 5.4)."""


def parse_distribution(text: str) -> LearnerDistribution:
    """A distribution from its name, or from `key=value` pairs joined by colons.

    Example:
      >>> parse_distribution("width=32..256:depth=3:initialiser=xavier").width
      (32, 256)

    Raises:
      FloppyError: if the text is neither.
    """
    if text in NAMED_DISTRIBUTIONS:
        return NAMED_DISTRIBUTIONS[text]
    fields: dict[str, Any] = {}
    for pair in text.split(":"):
        key, _, value = pair.partition("=")
        if key in ("width", "depth") and (bounds := RANGE.fullmatch(value)):
            fields[key] = (int(bounds[1]), int(bounds[2] or bounds[1]))
        elif key == "initialiser" and value:
            fields[key] = tuple(value.split("+"))
        elif key in ("activation", "network") and value:
            fields[key] = value
        elif key == "init_seed" and value.isdecimal():
            fields[key] = int(value)
        else:
            raise FloppyError(
                f"Learner distribution {text!r} is unknown: give one of {', '.join(NAMED_DISTRIBUTIONS)}, "
                "or pairs such as width=32..256:depth=2:initialiser=xavier:activation=tanh:init_seed=7."
            )
    return LearnerDistribution(**fields)


def describe_distribution(distribution: LearnerDistribution) -> str:
    """The text that `parse_distribution` reads as this distribution."""
    fields = {
        "width": "..".join(map(str, distribution.width)),
        "depth": "..".join(map(str, distribution.depth)),
        "initialiser": "+".join(distribution.initialiser),
        "activation": distribution.activation,
        "network": distribution.network,
    }
    if distribution.init_seed >= 0:
        fields["init_seed"] = str(distribution.init_seed)
    return ":".join(f"{name}={value}" for name, value in fields.items())


def parse_distributions(text: str) -> tuple[LearnerDistribution, ...]:
    """Several distributions, joined by commas; see `parse_distribution`."""
    return tuple(parse_distribution(part) for part in text.split(","))


@dataclasses.dataclass(frozen=True)
class Network:
    """A policy network of a distribution for a task's observations and actions.

    Axis letters here and below: `k` rows, `*obs` the observation's shape, `a` the width of the output.
    """

    distribution: LearnerDistribution
    observation_shape: tuple[int, ...]
    actions: Discrete | Continuous

    @property
    def has_convolutions(self) -> bool:
        """Whether anything comes before the dense layers."""
        return bool(CONVOLUTIONS[self.distribution.network])

    @property
    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """From input to output, each at its largest: `[in, out]`, of a convolution `[height, width, in, out]`."""
        shapes: list[tuple[int, ...]] = []
        shape = self.observation_shape
        for convolution in CONVOLUTIONS[self.distribution.network]:
            rows, columns, inputs = self._image_shape() if not shapes else shape
            channels = convolution.channels or self.distribution.width[1]
            shapes.append((convolution.window, convolution.window, inputs, channels))
            shape = (convolution.positions(rows), convolution.positions(columns), channels)
        sizes = [math.prod(shape), *[self.distribution.width[1]] * self.distribution.depth[1], self.actions.size]
        return shapes + list(pairwise(sizes))

    def init(self, key: jax.Array) -> Weights:
        """Draws a fresh policy φ0 ~ Λ; `key` is consumed, and of no influence where the distribution is one draw."""
        if self.distribution.initialiser == (FLAX_ORTHOGONAL,):
            return self._flax_weights()
        if self.distribution.init_seed >= 0:
            key = jax.random.key(self.distribution.init_seed)
        width = _draw_between(named_key(key, "width"), self.distribution.width)
        depth = jnp.asarray(_draw_between(named_key(key, "depth"), self.distribution.depth))
        choices = self.distribution.initialiser
        choice = jax.random.randint(named_key(key, "initialiser"), (), 0, len(choices))
        shapes = self.kernel_shapes
        first, last = self._first_dense, len(shapes) - 1
        layers = []
        for index, shape in enumerate(shapes):
            matrix = (math.prod(shape[:-1]), shape[-1])
            rows = matrix[0] if index <= first else width
            columns = matrix[1] if index < first or index == last else width
            layer_key = named_key(key, f"layer {index}")
            kernels = []
            for name in choices:
                initialise, hidden_gain, output_gain = INITIALISERS[name]
                gain = output_gain if index == last else hidden_gain
                kernels.append(initialise(layer_key, matrix, rows, columns, gain))
            kernel = jnp.select([choice == i for i in range(len(choices))], kernels)
            layers.append({"kernel": kernel.reshape(shape), "bias": jnp.zeros(shape[-1])})
        return self._weights(layers, depth)

    def _flax_weights(self) -> Weights:
        shapes = self.kernel_shapes
        kernels = flax_orthogonal(self.distribution.init_seed, (shapes[0][0], *(shape[1] for shape in shapes)))
        layers = [{"kernel": jnp.asarray(kernel), "bias": jnp.zeros(kernel.shape[1])} for kernel in kernels]
        return self._weights(layers, jnp.asarray(self.distribution.depth[1]))

    def _weights(self, layers: list[Layer], depth: jax.Array) -> Weights:
        first, last = self._first_dense, len(layers) - 1
        # The first dense layer changes the width of its input and the last one gives the output: only those between
        # can go.
        skip = tuple(((i > first) & (i < last) & (i - first >= depth)).astype(jnp.float32) for i in range(last + 1))
        std_size = self.actions.size if isinstance(self.actions, Continuous) else 0
        return Weights(tuple(layers), skip, jnp.zeros(std_size))

    def apply(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """The output for a batch of observations.

        Args:
          weights: of this network.
          observations: `[k, *obs]`.

        Returns:
          `[k, a]`: logits for discrete actions, means for continuous ones.
        """
        output = weights.layers[-1]
        return self.features(weights, observations) @ output["kernel"] + output["bias"]

    def features(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """What the output layer reads: `[k, f]` for observations `[k, *obs]`."""
        activation = ACTIVATIONS[self.distribution.activation]
        hidden = observations
        first, last = self._first_dense, len(weights.layers) - 1
        convolutions = CONVOLUTIONS[self.distribution.network]
        for layer, convolution in zip(weights.layers[:first], convolutions, strict=True):
            hidden = _convolved(layer, convolution, hidden, activation)
        hidden = hidden.reshape(observations.shape[0], -1)
        for index in range(first, last):
            layer = weights.layers[index]
            output = activation(hidden @ layer["kernel"] + layer["bias"])
            if first < index and self.distribution.depth[0] < self.distribution.depth[1]:
                output = jnp.where(jax.lax.stop_gradient(weights.skip[index]) > 0.5, hidden, output)
            hidden = output
        return hidden

    @property
    def _first_dense(self) -> int:
        return len(CONVOLUTIONS[self.distribution.network])

    def _image_shape(self) -> tuple[int, int, int]:
        """`rows, columns, channels` of the observations."""
        network, shape = self.distribution.network, self.observation_shape
        least = 1
        for convolution in reversed(CONVOLUTIONS[network]):
            least = convolution.least_size(least)
        if len(shape) != 3 or min(shape[:2]) < least:
            raise FloppyError(
                f"Network {network} was asked for with observations of shape {shape}: "
                f"it needs [rows, columns, channels] of at least {least} x {least}, give network=mlp."
            )
        rows, columns, channels = shape
        return rows, columns, channels


def _convolved(
    layer: Layer, convolution: Convolution, images: jax.Array, activation: Callable[[jax.Array], jax.Array]
) -> jax.Array:
    """`[n, rows, columns, channels]` after a layer."""
    around, pool = (convolution.padding,) * 2, convolution.pool
    if convolution.padding:
        images = jnp.pad(images, ((0, 0), around, around, (0, 0)))
    values = convolve(images, layer["kernel"], convolution.stride)
    if convolution.normalises:
        values = jax.nn.standardize(values, axis=(1, 2))
    values = activation(values + layer["bias"])
    if pool == 1:
        return values
    count, rows, columns, channels = values.shape
    squares = values[:, : rows // pool * pool, : columns // pool * pool]
    return squares.reshape(count, rows // pool, pool, columns // pool, pool, channels).mean(axis=(2, 4))


def _draw_between(key: jax.Array, bounds: tuple[int, int]) -> jax.Array | int:
    """A number that is known when the program is compiled, where there is one alone."""
    if bounds[0] == bounds[1]:
        return bounds[0]
    return jax.random.randint(key, (), bounds[0], bounds[1] + 1)
