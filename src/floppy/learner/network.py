"""What a policy network is: the contract that built-in and users' own networks fulfil.

Axis letters here and below: `k` rows, `*obs` the observation's shape, `a` the width of the output, `f` of the features.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Protocol, Self, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, page
from floppy.spaces import ActionSpace

Layer = dict[str, jax.Array]
"""`kernel [inputs, outputs]` (of a convolution `[height, width, inputs, outputs]`), `bias [outputs]`."""

FEATURES = "features"
"""The ability of a network whose output is a dense layer on features: `features`, `readout`, `with_readout`."""
LAYERS = "layers"
"""The ability of a network that is a stack of layers: `kernel_shapes`, `without_layers`, `with_layers`."""
PLAIN_LAYERS = "plain layers"
"""The ability of a network that can be written in another library from its `plain_layers`."""


class PolicyWeights(Protocol):
    """Weights φ of a policy: a NamedTuple whose log standard deviations are a field of their own."""

    @property
    def log_std(self) -> jax.Array:
        """`[a]` for continuous actions, `[0]` for discrete ones."""

    def _replace(self, **changes: Any) -> Self:
        """The weights with other values of some fields, as NamedTuples give them."""


W = TypeVar("W", bound=PolicyWeights)


class Network(Protocol[W]):
    """A policy network for observations and actions of one kind. It is hashable: equal ones share compiled programs."""

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """Shape `[*obs]` of one observation."""

    @property
    def actions(self) -> ActionSpace:
        """The action space, whose size is the width of the output."""

    @property
    def offers(self) -> frozenset[str]:
        """Its optional abilities: `FEATURES` (see `FeatureNetwork`), `LAYERS` (see `LayerNetwork`), `PLAIN_LAYERS`."""

    @property
    def is_costly_on_images(self) -> bool:
        """Whether a row takes convolutions, so that fewer rows at a time stay in a CPU's caches."""

    def __hash__(self) -> int: ...

    @property
    def learners(self) -> "Learners":
        """The distribution that its fresh policies are drawn from."""

    def init(self, key: jax.Array) -> W:
        """Draws a fresh policy φ0; `key` is consumed."""

    def apply(self, weights: W, observations: jax.Array) -> jax.Array:
        """`[k, a]` for observations `[k, *obs]`: logits for discrete actions, means for continuous ones."""

    def to_tensors(self, weights: W) -> dict[str, np.ndarray]:
        """What a policy file stores of one policy beside its `log_std`: all that `apply` reads, by name."""

    def from_tensors(self, tensors: Mapping[str, np.ndarray], log_std: np.ndarray) -> W:
        """The weights of one policy, as NumPy arrays, from what `to_tensors` gave.

        Raises:
          FloppyError: if the names or shapes are not those of a policy of this network.
        """


class FeatureNetwork(Network[W], Protocol[W]):
    """A network whose output is a dense layer on features, as the implicit step needs it."""

    def features(self, weights: W, observations: jax.Array) -> jax.Array:
        """What the output layer reads: `[k, f]` for observations `[k, *obs]`."""

    def readout(self, weights: W) -> Layer:
        """The output layer."""

    def with_readout(self, weights: W, readout: Layer) -> W:
        """The weights with another output layer."""


class LayerNetwork(FeatureNetwork[W], Protocol[W]):
    """A network that is a stack of layers, as encoder rollback and merging need it."""

    @property
    def kernel_shapes(self) -> list[tuple[int, ...]]:
        """From input to output."""

    def layers(self, weights: W) -> tuple[Layer, ...]:
        """From input to output."""

    def without_layers(self, weights: W, count: int) -> W:
        """The weights behind the first `count` layers."""

    def with_layers(self, weights: W, first: tuple[Layer, ...]) -> W:
        """The weights of a whole policy from its first layers and what `without_layers` gave."""


class Learners(Protocol):
    """A distribution Λ of fresh policies, for whatever observations and actions it is bound to. It is hashable."""

    @property
    def is_fixed(self) -> bool:
        """Whether every draw has the same architecture (the weights still differ)."""

    @property
    def is_single_draw(self) -> bool:
        """Whether it has one policy alone (HaDES-F)."""

    @property
    def is_dense(self) -> bool:
        """Whether its networks read observations as rows of numbers, so that datasets can be merged for them."""

    @property
    def layers(self) -> int:
        """Layers that its deepest networks offer to an encoder; 0 where they are no stacks of layers."""

    def bind(self, observation_shape: tuple[int, ...], actions: ActionSpace) -> "Network[Any]":
        """The network for one kind of observations and actions.

        Raises:
          FloppyError: if it does not fit them.
        """

    def critic(self, width: int, network: str = "") -> "Learners":
        """The critic beside these learners: two hidden layers, behind the convolutions of `network`."""

    def as_entry(self) -> dict[str, Any]:
        """The form that a dataset's card stores."""

    def shares_layers_with(self, other: "Learners") -> bool:
        """Whether layers trained for the other distribution mean the same in this one's networks."""


def check_offers(network: Network[Any], needs: Iterable[str], what: str) -> None:
    """Checks that a network has the abilities that something needs.

    Args:
      network: any.
      needs: `FEATURES`, `LAYERS`.
      what: needs them, as in "ImplicitStep".

    Raises:
      FloppyError: naming the ability that is missing.
    """
    told = {
        FEATURES: "has features and a readout (an output layer of its own)",
        LAYERS: "is a stack of layers",
        PLAIN_LAYERS: "is a plain stack of floppy's own layers (no ensemble, norm or residual connections)",
    }
    for ability in needs:
        if ability not in network.offers:
            raise FloppyError(
                f"{what} needs a network that {told[ability]}, which {network} does not offer: choose a built-in "
                f"network, or see {page('Your own network')}."
            )


def have_diverged(weights: Any) -> jax.Array:
    """`[L]` bool: of which networks, of weights with leaves `[L, ...]`, a weight is NaN or infinite."""
    numbers = [leaf for leaf in jax.tree.leaves(weights) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.any(jnp.stack([~jnp.isfinite(leaf).all(axis=range(1, leaf.ndim)) for leaf in numbers]), axis=0)
