"""How networks written with flax, equinox, haiku or by hand are called: one entry per library in `LIBRARIES`.

No library is imported here. An object can only be of a library that its owner has imported, so a look into
`sys.modules` is enough to recognise it.
"""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

from floppy.errors import FloppyError, page, raised, shown
from floppy.learner.network import FEATURES

READING = ("features", "readout", "with_readout")
"""The methods by which a module shows its output layer, see `FeatureNetwork`."""


class Adapted(NamedTuple):
    """A network of any library behind one calling convention."""

    init: Callable[[jax.Array, jax.Array], Any]
    """From a key and observations `[1, *obs]` to parameters, any pytree of arrays."""
    apply: Callable[[Any, jax.Array], jax.Array]
    """From parameters and observations `[k, *obs]` to `[k, a]`."""
    module: Any = None
    """Where `features`, `readout` and `with_readout` are looked for."""

    @property
    def offers(self) -> frozenset[str]:
        """The abilities of which the module has all methods."""
        has_all = all(callable(getattr(self.module, name, None)) for name in READING)
        return frozenset({FEATURES}) if has_all else frozenset()


class Library(NamedTuple):
    """A library: which objects are its networks, and how they are called."""

    module: str
    """The module in which the class is looked for."""
    kinds: tuple[str, ...]
    """Names of its networks' classes."""
    adapt: Callable[[Any], Adapted]
    """From a network, or from a function of a key where `is_drawn`."""
    is_drawn: bool = False
    """Whether its networks hold their weights, so that a function of a key stands for a fresh one."""

    def has(self, network: Any) -> bool:
        """Whether an object is one of its networks."""
        home = sys.modules.get(self.module)
        kinds = tuple(kind for name in self.kinds if isinstance(kind := getattr(home, name, None), type))
        return isinstance(network, kinds)


def adapt(module: Any, observation_shape: tuple[int, ...], outputs: int) -> Adapted:
    """A network, or what a function `(observation_shape, outputs)` makes, behind one calling convention.

    Args:
      module: see `floppy.network`.
      observation_shape: `[*obs]`.
      outputs: `a`.

    Raises:
      FloppyError: for what is no network of a known kind.
    """
    check_is_network(module)
    if _takes_sizes(module):
        module = module(observation_shape, outputs)
        check_is_network(module)
    if _is_description(module):
        described = (library for library in LIBRARIES if not library.is_drawn and library.has(module))
        library = next(described, None)
        return library.adapt(module) if library else Adapted(module.init, module.apply, module)
    draw = _function_of_key(module)
    example = _made_by(draw)
    for library in LIBRARIES:
        if library.is_drawn and library.has(example):
            return library.adapt(draw)
    raise FloppyError(
        f"A network's function of a key must make a module of equinox or flax.nnx, {label(module)} makes a "
        f"{type(example).__name__}."
    )


def check_is_network(module: Any) -> None:
    """Checks that an object can be a network, as far as can be told without calling it.

    Raises:
      FloppyError: if it is none, is a class in place of an object, or holds one draw of weights.
    """
    if any(library.is_drawn and library.has(module) for library in LIBRARIES):
        raise FloppyError(
            f"The network {label(module)} has its weights already: give a function from a key to a module, such as "
            f"lambda key: {type(module).__name__}(..., key=key), which draws fresh ones."
        )
    if isinstance(module, type) and hasattr(module, "init"):
        raise FloppyError(f"{module.__name__} is a class: give an object of it as the network, {module.__name__}().")
    if not _is_description(module) and not callable(module):
        raise FloppyError(
            f"A network must have `init` and `apply`, or be a function that makes it, got {shown(module)} "
            f"({page('Your own network')})."
        )


def label(module: Any) -> str:
    """How a message calls a network that has no name."""
    named = getattr(module, "__qualname__", None) or getattr(getattr(module, "func", None), "__qualname__", None)
    return str(named or type(module).__name__)


def _is_description(module: Any) -> bool:
    """Whether an object draws its parameters by itself."""
    return not isinstance(module, type) and hasattr(module, "init") and hasattr(module, "apply")


def _required(function: Any) -> list[str]:
    """Names of the arguments that must be given."""
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        each.name for each in _parameters(function).values() if each.default is each.empty and each.kind not in kinds
    ]


def _parameters(function: Any) -> Mapping[str, inspect.Parameter]:
    """Arguments by name; of a class those of `__init__`, which a metaclass may hide."""
    given = function if isinstance(function, functools.partial) else functools.partial(function)
    if isinstance(given.func, type):
        given = functools.partial(given.func.__init__, None, *given.args, **given.keywords)  # type: ignore[misc]
    return inspect.signature(given).parameters


def _takes_sizes(module: Any) -> bool:
    """Whether it is a function `(observation_shape, outputs)`."""
    return not _is_description(module) and len(_required(module)) == 2


def _function_of_key(module: Any) -> Callable[[jax.Array], Any]:
    """A function of a key that makes a module: an argument called `rngs` gets `flax.nnx.Rngs(key)`."""
    names = _required(module)
    if len(names) != 1:
        raise FloppyError(
            f"A network's function must take (observation_shape, outputs) or a key alone, {label(module)} takes "
            f"{', '.join(names) or 'nothing'}."
        )
    (name,) = names
    is_by_name = _parameters(module)[name].kind is inspect.Parameter.KEYWORD_ONLY

    def draw(key: jax.Array) -> Any:
        given = sys.modules["flax.nnx"].Rngs(key) if name == "rngs" and "flax.nnx" in sys.modules else key
        return module(**{name: given}) if is_by_name else module(given)

    return draw


def _made_by(draw: Callable[[jax.Array], Any]) -> Any:
    """What a function of a key makes, with tracers for weights: only its type counts."""
    made = []
    jax.eval_shape(lambda key: made.append(draw(key)), jax.random.key(0))
    return made[0]


def _has_state(collections: str) -> FloppyError:
    return FloppyError(
        f"A network must be a pure function of its parameters, this one keeps {collections} besides, as BatchNorm and "
        "dropout do: leave them out (LayerNorm keeps nothing)."
    )


def _linen(module: Any) -> Adapted:
    """`flax.linen`: the parameters are those of the collection `params`."""

    def init(key: jax.Array, observations: jax.Array) -> Any:
        variables = module.init(key, observations)
        if others := sorted(set(variables) - {"params"}):
            raise _has_state(", ".join(others))
        return variables.get("params", {})

    def apply(params: Any, observations: jax.Array) -> jax.Array:
        outputs: jax.Array = module.apply({"params": params}, observations)
        return outputs

    return Adapted(init, apply, module)


def _haiku(module: Any) -> Adapted:
    """`haiku.transform`, with or without the argument `rng` of `apply`."""
    names = list(inspect.signature(module.apply).parameters)
    if "state" in names:
        raise _has_state("a state (haiku.transform_with_state)")

    def apply(params: Any, observations: jax.Array) -> jax.Array:
        random = (None,) if "rng" in names else ()
        outputs: jax.Array = module.apply(params, *random, observations)
        return outputs

    return Adapted(module.init, apply)


def _equinox(draw: Callable[[jax.Array], Any]) -> Adapted:
    """`equinox`: a module acts on one observation `[*obs]`, and is mapped over the batch.

    Parameters are a dictionary by path, for two draws of a module may differ in what is no array, such as a function.
    """
    eqx = sys.modules["equinox"]
    drawn = eqx.filter_eval_shape(draw, jax.random.key(0))
    is_state = lambda leaf: isinstance(leaf, eqx.nn.StateIndex)  # noqa: E731
    if any(map(is_state, jax.tree.leaves(drawn, is_leaf=is_state))):
        raise _has_state("a state (equinox.nn.StateIndex)")
    arrays, rest = eqx.partition(drawn, lambda leaf: isinstance(leaf, jax.ShapeDtypeStruct))
    names, shape = list(_by_path(arrays)), jax.tree.structure(arrays)

    def init(key: jax.Array, _: jax.Array) -> dict[str, jax.Array]:
        return _by_path(eqx.filter(draw(key), eqx.is_array))

    def apply(params: dict[str, jax.Array], observations: jax.Array) -> jax.Array:
        weights = jax.tree.unflatten(shape, [params[name] for name in names])
        outputs: jax.Array = jax.vmap(eqx.combine(weights, rest))(observations)
        return outputs

    return Adapted(init, apply)


def _by_path(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _nnx(draw: Callable[[jax.Array], Any]) -> Adapted:
    """`flax.nnx`: the parameters are the variables of type `nnx.Param`, as a dictionary."""
    nnx = sys.modules["flax.nnx"]
    drawn = nnx.eval_shape(lambda: draw(jax.random.key(0)))
    graph, state, others = nnx.split(drawn, nnx.Param, ...)
    if kinds := sorted({type(variable).__name__ for _, variable in nnx.to_flat_state(others)}):
        raise _has_state(", ".join(kinds))

    def init(key: jax.Array, _: jax.Array) -> Any:
        return nnx.to_pure_dict(nnx.state(draw(key)))

    def apply(params: Any, observations: jax.Array) -> jax.Array:
        filled = jax.tree.map(lambda leaf: leaf, state)  # a copy, for it is filled in place
        nnx.replace_by_pure_dict(filled, params)
        outputs: jax.Array = nnx.merge(graph, filled)(observations)
        return outputs

    return Adapted(init, apply)


LIBRARIES = (
    Library("flax.linen", ("Module",), _linen),
    Library("haiku", ("Transformed", "TransformedWithState"), _haiku),
    Library("equinox", ("Module",), _equinox, is_drawn=True),
    Library("flax.nnx", ("Module",), _nnx, is_drawn=True),
)
"""Another library is a line here. Objects of none that have `init` and `apply` are called by these."""


def failure(network: Any, observations: tuple[int, ...], error: BaseException) -> FloppyError:
    """The complaint about a network whose own code raises."""
    return FloppyError(
        f"The network {network} fails on observations {list(observations)} ({raised(error)}): correct its "
        "code; it is given no random numbers, so dropout must be off."
    )
