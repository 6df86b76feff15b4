"""The built-in networks, dense layers behind convolutions or none, and the distributions that they are drawn from."""

import dataclasses
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, check_number, must_be_one_of, shown
from floppy.fields import bounded, check_fields
from floppy.keys import named_key
from floppy.learner.activations import ACTIVATIONS, NORMS
from floppy.learner.cnn import CONVOLUTIONS, Convolution
from floppy.learner.initialisers import FLAX_ORTHOGONAL, INITIALISERS, flax_orthogonal
from floppy.learner.network import FEATURES, LAYERS, PLAIN_LAYERS, Layer
from floppy.spaces import ActionSpace

MAX_UNITS, MAX_DEPTH = 100_000, 1_000
"""Of a hidden layer, and hidden layers of a network."""

MAX_DRAWN = 10**9
"""Numbers that drawing one network takes, its weights once for every initialiser: a file's card must not fill its
reader's memory."""


MAX_TAPER, TAPER_DIGITS = 2.0, 9
"""Of the units of a hidden layer to those of the one before: the largest, and decimals that are kept, as texts are to
say it."""
LEAST_NORMALISED = 2
"""Units of a hidden layer with a norm: a single one, less its mean, is always 0."""


class Weights(NamedTuple):
    """A policy network's weights φ."""

    layers: tuple[Layer, ...]
    """From input to output."""
    skip: tuple[jax.Array, ...]
    """`[]` each, per layer: 1.0 where a hidden layer is left out (random depth), else 0.0. Never trained."""
    log_std: jax.Array
    """`[a]` for continuous actions, `[0]` for discrete ones."""


class PlainLayer(NamedTuple):
    """A layer of one policy in NumPy arrays, for what is written in other libraries."""

    kernel: np.ndarray
    """`[in, out]`, of a convolution `[height, width, in, out]`."""
    bias: np.ndarray
    """`[out]`"""
    activation: str = ""
    """That follows; none after the output layer."""
    convolution: Convolution | None = None
    """Of a convolution, all but its weights; the first dense layer reads `[rows, columns, channels]`, flattened."""


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
    """tanh, relu, gelu (its tanh approximation), silu or elu."""
    network: str = "mlp"
    """mlp, or minatar-cnn: one convolution (16 channels, 3 x 3) before the hidden layers (Young and Tian, 2019, whose
    network has one hidden layer of width 128 behind it), or nature-cnn: three of them (32 channels 8 x 8 at stride 4,
    64 4 x 4 at stride 2, 64 3 x 3; Mnih et al., 2015, with one hidden layer of width 512). For labelled images:
    hades-cnn (16 channels 3 x 3, padded; HaDES paper, section 5.4, with one hidden layer of width 128), convnet-3
    (three layers of `width` channels 3 x 3, padded, with instance norm and average pooling; Gidaris and Komodakis,
    2018, with width 128 and depth 0), pyramid-cnn (the same with 32, 64 and 128 channels, the first of them 5 x 5: as
    many features for a fifth of the arithmetic), wide-pyramid-cnn (the same with 32, 128 and 256 channels: twice as
    many features, whose draws differ less)."""
    init_seed: int = bounded(-1, least=-1, most=2**32 - 1)
    """-1 for a new draw every time; any other number is the seed of one fixed draw, the only policy of this
    distribution (HaDES-F; HaDES paper, section 4)."""
    norm: str = "none"
    """none, or layer: every hidden layer is normalised over its units before its activation, with no scale and shift of
    its own (LayerNorm; Ba et al., 2016)."""
    residual: bool = False
    """Whether hidden layers behind the first one add to what they read, in place of replacing it (He et al., 2016)."""
    taper: float = 1.0
    """Units of each hidden layer as a multiple of those of the one before, rounded: below 1 layers narrow towards the
    output, above 1 they widen."""

    def __post_init__(self) -> None:
        """Validates the fields; a number stands for a range of one, a name for a tuple of one."""
        for name in ("width", "depth"):
            if isinstance(got := getattr(self, name), int):
                object.__setattr__(self, name, (got, got))
        if isinstance(self.initialiser, str):
            object.__setattr__(self, "initialiser", (self.initialiser,))
        check_fields(self)
        object.__setattr__(self, "taper", round(self.taper, TAPER_DIGITS))
        if self.depth[0] == 0 < self.depth[1]:
            raise FloppyError(f"depth must be 0 alone or a range from 1, got 0..{self.depth[1]}.")
        for name, smallest, largest in (("width", 1, MAX_UNITS), ("depth", 0, MAX_DEPTH)):
            least, most = getattr(self, name)
            check_number(f"{name} of the learners", least, least=smallest, most=largest)
            check_number(f"{name} of the learners", most, least=least, most=largest)
        self._check_form()
        self._check_size(list(pairwise(self.widths)))
        known = (*INITIALISERS, FLAX_ORTHOGONAL)
        unknown = [name for name in self.initialiser if name not in known]
        if unknown or not self.initialiser:
            raise must_be_one_of("initialiser", ", ".join(unknown), known)
        if self.activation not in ACTIVATIONS:
            raise must_be_one_of("activation", self.activation, ACTIVATIONS)
        if self.network not in CONVOLUTIONS:
            raise must_be_one_of("network", self.network, CONVOLUTIONS)
        has_wide_channels = any(convolution.channels is None for convolution in CONVOLUTIONS[self.network])
        if has_wide_channels and self.width[0] < self.width[1]:
            raise FloppyError(f"Network {self.network} has channels of `width`: give one width, not a range.")
        is_one_draw = self.is_fixed and self.init_seed >= 0 and len(self.initialiser) == 1 and self.network == "mlp"
        if FLAX_ORTHOGONAL in self.initialiser and not is_one_draw:
            raise FloppyError(
                f"Initialiser {FLAX_ORTHOGONAL} draws one fixed policy: "
                "give it alone, with an init_seed, one width and depth, and network=mlp."
            )

    def _check_form(self) -> None:
        """Checks what shapes hidden layers beside their activation."""
        if self.norm not in NORMS:
            raise must_be_one_of("norm", self.norm, NORMS)
        check_number("taper", self.taper, above=0, most=MAX_TAPER)
        if self.norm != "none" and self.width[0] < self.width[1]:
            raise FloppyError(f"norm={self.norm} is taken over all units of a layer: give one width, not a range.")
        if self.norm != "none" and min(self.widths, default=LEAST_NORMALISED) < LEAST_NORMALISED:
            raise FloppyError(
                f"norm={self.norm} needs hidden layers of {LEAST_NORMALISED} units or more, got {min(self.widths)}: "
                "give more width, or a larger taper."
            )
        if self.taper == 1:
            return
        if not self.is_fixed:
            raise FloppyError("Layers with a taper differ in width: give one width and one depth, not ranges.")
        if self.residual:
            raise FloppyError("residual adds layers of the same width: leave out the taper, or give residual=no.")
        if self.widths and max(self.widths) > MAX_UNITS:
            raise FloppyError(
                f"Hidden layers must have at most {MAX_UNITS:,} units, got {max(self.widths):,}: give a smaller taper."
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """Units of each hidden layer of the largest network."""
        return tuple(max(1, round(self.width[1] * self.taper**index)) for index in range(self.depth[1]))

    @property
    def is_fixed(self) -> bool:
        """Whether every draw has the same architecture (the weights still differ)."""
        return self.width[0] == self.width[1] and self.depth[0] == self.depth[1]

    @property
    def layers(self) -> int:
        """Layers of the deepest network, convolutions and the output layer included."""
        return self.depth[1] + 1 + len(CONVOLUTIONS[self.network])

    @property
    def is_single_draw(self) -> bool:
        """Whether it has one policy alone (HaDES-F)."""
        return self.init_seed >= 0

    @property
    def is_dense(self) -> bool:
        """Whether its networks read observations as rows of numbers, so that datasets can be merged for them."""
        return self.network == "mlp" and not self.is_single_draw

    def bind(self, observation_shape: tuple[int, ...], actions: ActionSpace) -> "LayeredNetwork":
        """The network for one kind of observations and actions.

        Raises:
          FloppyError: for observations that the network is not for, or that make it too large.
        """
        network = LayeredNetwork(self, observation_shape, actions)
        self._check_size(network.kernel_shapes)
        return network

    def _check_size(self, kernel_shapes: list[tuple[int, ...]]) -> None:
        """Checks that a network with such kernels can be drawn.

        Raises:
          FloppyError: if it takes more than `MAX_DRAWN` numbers.
        """
        drawn = len(self.initialiser) * sum(map(math.prod, kernel_shapes))
        if drawn > MAX_DRAWN:
            raise FloppyError(
                f"A network of the learners must take at most {MAX_DRAWN:,} numbers, its weights for each of "
                f"{len(self.initialiser)} initialisers, got {drawn:,}: give a smaller width or depth."
            )

    def critic(self, width: int, network: str = "") -> "LearnerDistribution":
        """The critic beside these learners: two hidden layers, with their activation and convolutions or others."""
        return LearnerDistribution(width=(width, width), network=network or self.network, activation=self.activation)

    def as_entry(self) -> dict[str, Any]:
        """The form that a dataset's card stores; norm, residual and taper where they say something unusual."""
        usual = {name: getattr(LearnerDistribution, name) for name in ("norm", "residual", "taper")}
        entry = dataclasses.asdict(self)
        return {name: value for name, value in entry.items() if name not in usual or value != usual[name]}

    def shares_layers_with(self, other: Any) -> bool:
        """Whether layers trained for the other distribution mean the same in this one's networks."""
        names = ("activation", "norm", "residual", "taper", "network")
        kinds = [[getattr(each, name, None) for name in names] for each in (self, other)]
        return self.is_fixed and kinds[0] == kinds[1]

    def __str__(self) -> str:
        """As users write it: pairs such as `width=64`, joined by colons; the rarer ones where they say something."""
        fields = {
            "width": "..".join(map(str, self.width)),
            "depth": "..".join(map(str, self.depth)),
            "initialiser": "+".join(self.initialiser),
            "activation": self.activation,
            "network": self.network,
        }
        rarer = {
            "norm": self.norm if self.norm != "none" else "",
            "residual": "yes" if self.residual else "",
            "taper": f"{self.taper:.{TAPER_DIGITS}f}".rstrip("0").rstrip(".") if self.taper != 1 else "",
            "init_seed": str(self.init_seed) if self.is_single_draw else "",
        }
        pairs = fields | {name: text for name, text in rarer.items() if text}
        return ":".join(f"{name}={value}" for name, value in pairs.items())


@dataclasses.dataclass(frozen=True)
class LayeredNetwork:
    """A policy network of a built-in distribution for one kind of observations and actions: a `LayerNetwork`."""

    distribution: LearnerDistribution
    observation_shape: tuple[int, ...]
    actions: ActionSpace

    @property
    def offers(self) -> frozenset[str]:
        """All abilities; with norm or residual connections it is no plain stack of layers for other libraries."""
        is_plain = self.distribution.norm == "none" and not self.distribution.residual
        return frozenset({FEATURES, LAYERS, PLAIN_LAYERS} if is_plain else {FEATURES, LAYERS})

    @property
    def is_costly_on_images(self) -> bool:
        """Whether anything comes before the dense layers."""
        return bool(CONVOLUTIONS[self.distribution.network])

    @property
    def learners(self) -> LearnerDistribution:
        """The distribution."""
        return self.distribution

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
        sizes = [math.prod(shape), *self.distribution.widths, self.actions.size]
        return shapes + list(pairwise(sizes))

    def init(self, key: jax.Array) -> Weights:
        """Draws a fresh policy φ0 ~ Λ; `key` is consumed, and of no influence where the distribution is one draw."""
        if self.distribution.initialiser == (FLAX_ORTHOGONAL,):
            return self._flax_weights()
        if self.distribution.init_seed >= 0:
            key = jax.random.key(self.distribution.init_seed)
        drawn = _draw_between(named_key(key, "width"), self.distribution.width)
        depth = jnp.asarray(_draw_between(named_key(key, "depth"), self.distribution.depth))
        choices, is_fixed = self.distribution.initialiser, self.distribution.is_fixed
        choice = jax.random.randint(named_key(key, "initialiser"), (), 0, len(choices))
        shapes = self.kernel_shapes
        first, last = self._first_dense, len(shapes) - 1
        layers = []
        for index, shape in enumerate(shapes):
            matrix = (math.prod(shape[:-1]), shape[-1])
            rows = matrix[0] if index <= first or is_fixed else drawn
            columns = matrix[1] if index < first or index == last or is_fixed else drawn
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
        return Weights(tuple(layers), skip, jnp.zeros(self.actions.log_std_size))

    def apply(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """The output for a batch of observations.

        Args:
          weights: of this network.
          observations: `[k, *obs]`.

        Returns:
          `[k, a]`: logits for discrete actions, means for continuous ones.
        """
        output = weights.layers[-1]
        return self.features(weights, observations) @ output["kernel"] + output["bias"][None]

    def features(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """What the output layer reads: `[k, f]` for observations `[k, *obs]`."""
        activation = ACTIVATIONS[self.distribution.activation]
        hidden = observations
        first, last = self._first_dense, len(weights.layers) - 1
        convolutions = CONVOLUTIONS[self.distribution.network]
        for layer, convolution in zip(weights.layers[:first], convolutions, strict=True):
            hidden = convolution.apply(layer, hidden, activation)
        hidden = hidden.reshape(observations.shape[0], math.prod(hidden.shape[1:]))  # of no observations too
        for index in range(first, last):
            layer = weights.layers[index]
            output = activation(NORMS[self.distribution.norm](hidden @ layer["kernel"] + layer["bias"][None]))
            if first < index and self.distribution.residual:
                output = hidden + output
            if first < index and self.distribution.depth[0] < self.distribution.depth[1]:
                output = jnp.where(jax.lax.stop_gradient(weights.skip[index]) > 0.5, hidden, output)
            hidden = output
        return hidden

    def readout(self, weights: Weights) -> Layer:
        """The output layer."""
        return weights.layers[-1]

    def with_readout(self, weights: Weights, readout: Layer) -> Weights:
        """The weights with another output layer."""
        return weights._replace(layers=(*weights.layers[:-1], readout))

    def layers(self, weights: Weights) -> tuple[Layer, ...]:
        """From input to output."""
        return weights.layers

    def without_layers(self, weights: Weights, count: int) -> Weights:
        """The weights behind the first `count` layers."""
        return weights._replace(layers=weights.layers[count:])

    def with_layers(self, weights: Weights, first: tuple[Layer, ...]) -> Weights:
        """The weights of a whole policy from its first layers and what `without_layers` gave."""
        return weights._replace(layers=first + weights.layers)

    def to_tensors(self, weights: Weights) -> dict[str, np.ndarray]:
        """`layers/<i>/<kernel|bias>` of one policy, counted from 0, without the layers that it leaves out."""
        # As in `features`: a layer is left out where skip says so, not where it is NaN.
        used = [layer for layer, skip in zip(weights.layers, weights.skip, strict=True) if not float(skip) > 0.5]
        return {
            f"layers/{index}/{name}": np.asarray(layer[name])
            for index, layer in enumerate(used)
            for name in ("kernel", "bias")
        }

    def plain_layers(self, weights: Weights) -> list[PlainLayer]:
        """The layers of one policy from input to output, without those that it leaves out."""
        tensors, convolutions = self.to_tensors(weights), CONVOLUTIONS[self.distribution.network]
        layers = []
        for index in range(count := len(tensors) // 2):
            activation = self.distribution.activation if index < count - 1 else ""
            convolution = convolutions[index] if index < len(convolutions) else None
            kernel, bias = (tensors[f"layers/{index}/{name}"] for name in ("kernel", "bias"))
            layers.append(PlainLayer(kernel, bias, activation, convolution))
        return layers

    def from_tensors(self, tensors: Mapping[str, np.ndarray], log_std: np.ndarray) -> Weights:
        """The weights of one policy, from what `to_tensors` gave; layers left out become zeros."""
        shapes, used = self.kernel_shapes, len(tensors) // 2
        inner = used - 1  # layers before the output
        wanted: dict[str, tuple[int, ...]] = {}
        for index, shape in enumerate([*shapes[:inner], shapes[-1]]):
            wanted |= {f"layers/{index}/kernel": shape, f"layers/{index}/bias": shape[-1:]}
        least = len(shapes) - 1 - (self.distribution.depth[1] - self.distribution.depth[0])
        if not least <= inner < len(shapes) or {name: array.shape for name, array in tensors.items()} != wanted:
            found = {name: array.shape for name, array in sorted(tensors.items())}
            raise FloppyError(
                f"The layers {shown(found)} are not those of the network, whose kernels are {shown(shapes)}: "
                "write the file again."
            )
        layers = [{name: tensors[f"layers/{i}/{name}"] for name in ("kernel", "bias")} for i in range(used)]
        left_out = [
            {"kernel": np.zeros(shape, np.float32), "bias": np.zeros(shape[-1], np.float32)}
            for shape in shapes[inner:-1]
        ]
        skip = np.zeros(len(shapes), np.float32)
        skip[inner:-1] = 1.0
        return Weights((*layers[:-1], *left_out, layers[-1]), tuple(skip), log_std)  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The distribution's text."""
        return str(self.distribution)

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
                f"Network {network} needs observations [rows, columns, channels] of at least {least} x {least}, "
                f"got {shape}: give network=mlp."
            )
        rows, columns, channels = shape
        return rows, columns, channels


def _draw_between(key: jax.Array, bounds: tuple[int, int]) -> jax.Array | int:
    """A number that is known when the program is compiled, where there is one alone."""
    if bounds[0] == bounds[1]:
        return bounds[0]
    return jax.random.randint(key, (), bounds[0], bounds[1] + 1)
