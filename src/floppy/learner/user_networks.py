"""Networks of users' own, from flax, equinox, haiku or anything with `init` and `apply`, as learners."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from floppy.errors import FloppyError, listed, one_line, shown
from floppy.fields import Registry
from floppy.learner.adapters import Adapted, adapt, check_is_network, failure, label
from floppy.learner.mlp import LearnerDistribution
from floppy.learner.network import FEATURES, Learners
from floppy.spaces import ActionSpace

MODULE_KIND = "module"
"""What stands in place of an architecture's name in a card's entry for a network of a user's own."""


class ModuleWeights(NamedTuple):
    """Weights of a user's network."""

    params: Any
    """The module's own, any pytree."""
    log_std: jax.Array
    """`[a]` for continuous actions, `[0]` for discrete ones."""


@dataclasses.dataclass(frozen=True)
class ModuleLearners:
    """Fresh policies of one module; what differs between draws are its initial parameters."""

    module: Any
    """See `floppy.network`."""
    name: str = ""
    """Under which it is registered, see `register_network`; a card can name no other."""
    is_fixed = True
    is_single_draw = False
    is_dense = False
    layers = 0

    def bind(self, observation_shape: tuple[int, ...], actions: ActionSpace) -> "ModuleNetwork":
        """The network for one kind of observations and actions."""
        return _checked(self, observation_shape, actions)

    def critic(self, width: int, network: str = "") -> LearnerDistribution:
        """A built-in network of two tanh layers."""
        return LearnerDistribution(width=(width, width), network=network or "mlp")

    def as_entry(self) -> dict[str, Any]:
        """The module's registered name.

        Raises:
          FloppyError: if it has none: nobody could read the card.
        """
        if not self.name:
            raise FloppyError(
                f"The network {self} has no name that a dataset's card could hold: register it first, "
                "floppy.register_network('my-network', module)."
            )
        return {"network": MODULE_KIND, "name": self.name}

    def shares_layers_with(self, other: Learners) -> bool:
        """No layer of it is stored in a file."""
        del other
        return False

    def __str__(self) -> str:
        """Its name, or that of its class or function."""
        return self.name or label(self.module)


@dataclasses.dataclass(frozen=True)
class ModuleNetwork:
    """A user's network for one kind of observations and actions."""

    learners: ModuleLearners
    observation_shape: tuple[int, ...]
    actions: ActionSpace

    @property
    def offers(self) -> frozenset[str]:
        """What the module offers."""
        return self._adapted.offers

    @property
    def is_costly_on_images(self) -> bool:
        """Taken to be so where observations are images."""
        return len(self.observation_shape) == 3

    def init(self, key: jax.Array) -> ModuleWeights:
        """Draws a fresh policy; `key` is consumed."""
        params = self._adapted.init(key, jnp.zeros((1, *self.observation_shape)))
        return ModuleWeights(params, jnp.zeros(self.actions.log_std_size))

    def apply(self, weights: ModuleWeights, observations: jax.Array) -> jax.Array:
        """`[k, a]` for observations `[k, *obs]`."""
        return self._adapted.apply(weights.params, observations)

    def features(self, weights: ModuleWeights, observations: jax.Array) -> jax.Array:
        """What the output layer reads, where the module says so: `[k, f]`."""
        features: jax.Array = self._adapted.module.features(weights.params, observations)
        return features

    def readout(self, weights: ModuleWeights) -> dict[str, jax.Array]:
        """The output layer, where the module says which it is."""
        layer: dict[str, jax.Array] = self._adapted.module.readout(weights.params)
        return layer

    def with_readout(self, weights: ModuleWeights, readout: dict[str, jax.Array]) -> ModuleWeights:
        """The weights with another output layer."""
        return weights._replace(params=self._adapted.module.with_readout(weights.params, readout))

    def to_tensors(self, weights: ModuleWeights) -> dict[str, np.ndarray]:
        """The module's parameters of one policy, by their paths: `params/<path>`."""
        return {name: np.asarray(leaf) for name, leaf in _named_leaves(weights.params).items()}

    def from_tensors(self, tensors: Mapping[str, np.ndarray], log_std: np.ndarray) -> ModuleWeights:
        """The weights of one policy, from what `to_tensors` gave."""
        params = jax.eval_shape(self.init, jax.random.key(0)).params
        wanted = _named_leaves(params)
        if {name: leaf.shape for name, leaf in wanted.items()} != {name: leaf.shape for name, leaf in tensors.items()}:
            raise FloppyError(
                f"The parameters {listed(tensors)} are not those of the network {self}: register the module that the "
                "policies were trained with."
            )
        leaves = [tensors[name].astype(leaf.dtype) for name, leaf in wanted.items()]
        return ModuleWeights(jax.tree.unflatten(jax.tree.structure(params), leaves), log_std)  # type: ignore[arg-type]

    def check(self) -> None:
        """Traces the module once, so that what is wrong with it is said before anything runs.

        Raises:
          FloppyError: if it raises, has weights of another type than float32, or gives something else than `[k, a]`.
        """
        rows, size = 3, self.actions.size
        observations = jax.ShapeDtypeStruct((rows, *self.observation_shape), jnp.float32)  # type: ignore[no-untyped-call]
        try:
            weights = jax.eval_shape(self.init, jax.random.key(0))
            self._check_weights(weights.params)
            outputs = jax.eval_shape(self.apply, weights, observations)
            reads = jax.eval_shape(self._read, weights, observations) if FEATURES in self.offers else None
        except FloppyError:
            raise
        except Exception as error:  # the module's own code may raise anything
            raise failure(self, observations.shape, error) from error
        if _form(outputs) != f"float32{[rows, size]}":
            raise FloppyError(
                f"The network {self} must give float32{[rows, size]} for {rows} observations and these actions, got "
                f"{_form(outputs)}: let its last layer have {size} outputs."
            )
        if reads is not None:
            self._check_reads(rows, *reads)

    def _check_weights(self, params: Any) -> None:
        types = sorted({str(leaf.dtype) for leaf in jax.tree.leaves(params)})
        if types != ["float32"]:
            raise FloppyError(
                f"The network {self} must have weights, all of them float32, got {', '.join(types) or 'none'}."
            )

    def _read(self, weights: ModuleWeights, observations: jax.Array) -> tuple[Any, Any, Any]:
        readout = self.readout(weights)
        return self.features(weights, observations), dict(readout), self.with_readout(weights, readout)

    def _check_reads(self, rows: int, features: Any, readout: Any, weights: Any) -> None:
        """Checks the shapes of features and readout, and that the weights with the readout are the weights."""
        size = self.actions.size
        width = getattr(features, "shape", (0, 0))[-1]
        wanted = {"kernel": f"float32{[width, size]}", "bias": f"float32{[size]}"}
        got = {name: _form(readout.get(name)) for name in wanted}
        if _form(features) != f"float32{[rows, width]}" or got != wanted:
            raise FloppyError(
                f"The network {self} has features {_form(features)} of {rows} observations and a readout of kernel "
                f"{got['kernel']} and bias {got['bias']}: give features [k, f], and a readout {{'kernel': [f, {size}], "
                f"'bias': [{size}]}}."
            )
        if _forms(weights) != _forms(jax.eval_shape(self.init, jax.random.key(0))):
            raise FloppyError(
                f"with_readout of the network {self} must give parameters of the form that it got: copy them, and "
                "replace the output layer alone."
            )

    @property
    def _adapted(self) -> Adapted:
        return _adapted(self.learners.module, self.observation_shape, self.actions.size)

    def __str__(self) -> str:
        """The module's name."""
        return str(self.learners)


def _named_leaves(params: Any) -> dict[str, Any]:
    """The leaves of parameters by their paths, in the order of `jax.tree.leaves`."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {f"params/{jax.tree_util.keystr(path, simple=True, separator='/')}": leaf for path, leaf in leaves}


def _form(array: Any) -> str:
    """Type and shape, as in `float32[3, 2]`; of what is no array, its class."""
    if hasattr(array, "shape") and hasattr(array, "dtype"):
        return f"{array.dtype}{list(array.shape)}"
    return type(array).__name__


def _forms(weights: ModuleWeights) -> dict[str, str]:
    """Types and shapes of parameters by their paths."""
    return {name: _form(leaf) for name, leaf in _named_leaves(weights.params).items()}


@functools.lru_cache(maxsize=64)
def _checked(learners: ModuleLearners, observation_shape: tuple[int, ...], actions: ActionSpace) -> ModuleNetwork:
    """Outer loops ask for the network many times; it is traced once."""
    network = ModuleNetwork(learners, observation_shape, actions)
    network.check()
    return network


@functools.lru_cache(maxsize=64)
def _adapted(module: Any, observation_shape: tuple[int, ...], outputs: int) -> Adapted:
    return adapt(module, observation_shape, outputs)


NETWORKS: Registry[Learners] = Registry("network")
"""Networks beside the built-in ones by the names that distributions, configurations and cards use."""

MIXTURES = {
    "any": tuple(
        f"{form}:activation={activation}:initialiser=orthogonal+orthogonal1+xavier+lecun"
        for activation in ("tanh", "relu", "gelu", "silu")
        for form in ("width=32..256:depth=1..4", "width=128:depth=1..4:norm=layer:residual=yes")
    )
}
"""Several distributions under one name, for datasets that are to teach networks of any kind."""


def network(module: Any, name: str = "") -> ModuleLearners:
    """A network of your own as a distribution of fresh policies, accepted in place of any distribution.

    Args:
      module: one of
        - a module of `flax.linen`, what `haiku.transform` gives, or any object with `init(key, observations)`, which
          gives parameters (a pytree of float32 arrays), and `apply(params, observations)`, which gives `[k, a]`;
        - a function of a key that makes a module of `equinox`, which acts on one observation, or of `flax.nnx`, which
          acts on a batch; an argument called `rngs` gets `flax.nnx.Rngs` in place of the key;
        - a function `(observation_shape, outputs)` that makes one of these for a task, `outputs` being the number of
          actions or of action dimensions.
        Observations are `[k, *obs]`. Of two that are equal, compiled programs are shared: a module by its fields, a
        function by what it is, so make it once.
      name: for a card; see `register_network`.

    Returns:
      The distribution. Give it to `train` and `evaluate`, or its registered name to `recipe` as well.

    Raises:
      FloppyError: if it is none of these, or cannot be hashed.
    """
    check_is_network(module)
    try:
        hash(module)
    except TypeError as error:
        raise FloppyError(
            f"The network {label(module)} cannot be hashed ({one_line(error)}): "
            "give tuples in place of lists in its fields."
        ) from error
    return ModuleLearners(module, name)


def register_network(name: str, module: Any) -> ModuleLearners:
    """Gives a network of your own a name, which then stands for it in configurations, cards and on the command line.

    Args:
      name: any text without commas and `=`.
      module: see `network`.

    Returns:
      The distribution.

    Raises:
      FloppyError: if the name is that of another network, distribution or mixture, or the module no network.
    """
    if not isinstance(name, str) or not name or "," in name or "=" in name:
        raise FloppyError(f"The name of a network must be text without commas and =, got {shown(name)}.")
    if name in MIXTURES:
        raise FloppyError(f"A network cannot be called {name}, which is a mixture of several: choose another name.")
    learners = network(module, name)
    NETWORKS.register(name, learners)
    return learners
