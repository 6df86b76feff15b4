"""Evolution strategies by evosax's names, behind one contract; Open_ES and SNES never hold the whole population."""

import dataclasses
import functools
import inspect
import warnings
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import optax

from floppy.errors import FloppyError, must_be_one_of
from floppy.parallel import sharded_sum
from floppy.tasks.base import lenient_broadcasting, strong_types
from floppy.tasks.lookup import import_optional

STREAMED = ("Open_ES", "SNES")
"""Strategies whose population is never stored: each member's noise is drawn again from its key."""
SHAPINGS = ("centred-rank", "z-score")


def centred_ranks(fitness: jax.Array) -> jax.Array:
    """Ranks of `fitness [p]` scaled to -0.5 (worst) .. 0.5 (best); equal values share their mean rank."""
    count = fitness.shape[0]
    return (jax.scipy.stats.rankdata(fitness) - 1.0) / max(count - 1, 1) - 0.5


def z_scores(fitness: jax.Array) -> jax.Array:
    """`fitness [p]` with mean 0 and standard deviation 1; all 0 where all are equal."""
    differ = jnp.max(fitness) > jnp.min(fitness)  # a mean of equal values may be off by a rounding error
    return jnp.where(differ, (fitness - jnp.mean(fitness)) / (jnp.std(fitness) + 1e-8), 0.0)


def snes_utilities(fitness: jax.Array) -> jax.Array:
    """Utilities of natural evolution strategies for `fitness [p]`: sum 0, the worse half equal (Wierstra et al., 2014).

    `u_r = max(0, ln(p/2 + 1) - ln r) / Σ - 1/p` for rank `r = 1` (best) to `p`; equal values share the mean utility of
    their ranks.
    """
    count = fitness.shape[0]
    raw = jnp.maximum(0.0, jnp.log(count / 2 + 1) - jnp.log(jnp.arange(1, count + 1)))
    by_rank = raw / jnp.sum(raw) - 1.0 / count
    # Summed over the ranks that a value could take, so that ties cost no symmetry.
    total = jnp.concatenate([jnp.zeros(1), jnp.cumsum(by_rank)])
    first = jnp.sum(fitness[None, :] > fitness[:, None], axis=1)
    ties = jnp.sum(fitness[None, :] == fitness[:, None], axis=1)
    return (total[first + ties] - total[first]) / ties


@dataclasses.dataclass(frozen=True)
class Decay:
    """A schedule that goes from `start` to `start * factor` over `steps`, by the same factor every step."""

    start: float
    factor: float
    steps: int

    def __call__(self, step: Any) -> Any:
        """The value at a step, a number or an array."""
        return self.start * self.factor ** (step / self.steps)


class Strategy(Protocol):
    """Improves the mean `[d]` of a search distribution by the fitness of its samples (higher is better)."""

    def init(self, mean: jax.Array) -> Any:
        """The state before the first generation."""

    def ask(self, state: Any, key: jax.Array) -> Any:
        """What `member` needs to give this generation's population."""

    def member(self, candidates: Any, index: jax.Array) -> jax.Array:
        """Member `[d]` number `index` of the population."""

    def tell(self, state: Any, candidates: Any, fitness: jax.Array, key: jax.Array) -> Any:
        """The state after a generation with this `fitness [p]`."""

    def mean(self, state: Any) -> jax.Array:
        """The centre of the search, `[d]`."""

    def sigma(self, state: Any) -> jax.Array:
        """The mean standard deviation of the search, `[]`."""


class GaussianState(NamedTuple):
    """State of a streamed strategy."""

    mean: jax.Array
    """`[d]`"""
    std: jax.Array
    """`[d]`"""
    optimiser: optax.OptState
    generation: jax.Array
    """`[]` int."""


class Samples(NamedTuple):
    """A population that has not been drawn yet."""

    mean: jax.Array
    std: jax.Array
    key: jax.Array


@dataclasses.dataclass(frozen=True)
class Streamed:
    """Open_ES and SNES (see evosax), with a population of which only one member at a time exists.

    Both move the mean by `Σ u_i z_i` and SNES the deviation by `Σ u_i (z_i² - 1)`: sums over members, whose noise `z_i`
    is drawn again from the generation's key.
    """

    name: str
    population: int
    shaping: str
    antithetic: bool
    rate: Decay
    sigma_schedule: Decay

    def init(self, mean: jax.Array) -> GaussianState:
        """The mean with a deviation of σ everywhere."""
        std = jnp.full(mean.shape, self.sigma_schedule.start, jnp.float32)
        return GaussianState(mean, std, self._optimiser.init(mean), jnp.zeros((), jnp.int32))

    def ask(self, state: GaussianState, key: jax.Array) -> Samples:
        """The distribution and the key of its samples."""
        return Samples(state.mean, state.std, key)

    def member(self, candidates: Samples, index: jax.Array) -> jax.Array:
        """`mean + std z`; antithetic members 2i and 2i+1 have opposite noise."""
        return candidates.mean + candidates.std * self._noise(candidates, index)

    def tell(self, state: GaussianState, candidates: Samples, fitness: jax.Array, key: jax.Array) -> GaussianState:
        """Sums the noise, weighted by the shaped fitness, and steps."""
        del key
        if self.name == "Open_ES":
            weights = centred_ranks(fitness) if self.shaping == "centred-rank" else z_scores(fitness)
        else:
            weights = snes_utilities(fitness)
        first, second = self._sums(candidates, weights)
        generation = state.generation + 1
        if self.name == "Open_ES":
            gradient = -first / (self.population * state.std)
            std = jnp.full_like(state.std, self.sigma_schedule(generation))
        else:
            gradient = -state.std * first
            size = state.mean.size
            rate = (3 + jnp.log(size)) / (5 * jnp.sqrt(size))
            std = state.std * jnp.exp(0.5 * rate * (second - jnp.sum(weights)))
        change, optimiser = self._optimiser.update(gradient, state.optimiser, state.mean)
        return GaussianState(state.mean + change, std, optimiser, generation)

    def mean(self, state: GaussianState) -> jax.Array:
        """The centre of the search."""
        return state.mean

    def sigma(self, state: GaussianState) -> jax.Array:
        """Mean over dimensions."""
        return jnp.mean(state.std)

    @property
    def _optimiser(self) -> optax.GradientTransformation:
        return optax.adam(self.rate) if self.name == "Open_ES" else optax.sgd(self.rate)

    def _noise(self, candidates: Samples, index: jax.Array) -> jax.Array:
        shape = candidates.mean.shape
        if not self.antithetic:
            return jax.random.normal(jax.random.fold_in(candidates.key, index), shape)
        sign = 1.0 - 2.0 * (index % 2)
        return sign * jax.random.normal(jax.random.fold_in(candidates.key, index // 2), shape)

    def _sums(self, candidates: Samples, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        """`Σ w z` and `Σ w z²`; a pair of opposite noise is drawn once."""
        stride = 2 if self.antithetic else 1

        def term(pair: jax.Array, candidates: Samples, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
            z = self._noise(candidates, stride * pair)
            own = weights[stride * pair]
            if not self.antithetic:
                return own * z, own * z**2
            other = weights[stride * pair + 1]
            return (own - other) * z, (own + other) * z**2

        return sharded_sum(term, self.population // stride, candidates, weights)


@dataclasses.dataclass(frozen=True)
class Evosax:
    """Any other distribution-based strategy of evosax; its population `[p, d]` is stored, on every device.

    Those that take an optimiser and a schedule of σ get Adam and the schedule given; the others have rules of their
    own, and of these settings read at most where σ starts.
    """

    name: str
    population: int
    size: int
    rate: Decay
    sigma_schedule: Decay

    def init(self, mean: jax.Array) -> Any:
        """Evosax's own state, around `mean`."""
        with lenient_broadcasting():
            return strong_types(self._algorithm.init(jax.random.key(0), mean, self._parameters))

    def ask(self, state: Any, key: jax.Array) -> Any:
        """The population `[p, d]`, and the state after asking."""
        with lenient_broadcasting():
            return self._algorithm.ask(key, state, self._parameters)

    def member(self, candidates: Any, index: jax.Array) -> jax.Array:
        """A row of the population."""
        return candidates[0][index]

    def tell(self, state: Any, candidates: Any, fitness: jax.Array, key: jax.Array) -> Any:
        """Evosax minimises."""
        population, asked = candidates
        with warnings.catch_warnings(), lenient_broadcasting():
            warnings.simplefilter("ignore", DeprecationWarning)  # evosax still uses old names of optax
            told = self._algorithm.tell(key, population, -fitness, asked, self._parameters)[0]
        return jax.tree.map(lambda new, old: new.astype(old.dtype), told, state)

    def mean(self, state: Any) -> jax.Array:
        """The centre of the search."""
        return self._algorithm.get_mean(state)

    def sigma(self, state: Any) -> jax.Array:
        """Mean over dimensions; 0 for a strategy that names none."""
        return jnp.mean(getattr(state, "std", jnp.zeros(())))

    @property
    def _algorithm(self) -> Any:
        return _evosax_algorithm(self.name, self.population, self.size, self.rate, self.sigma_schedule)

    @property
    def _parameters(self) -> Any:
        parameters = self._algorithm.default_params
        if not hasattr(parameters, "std_init"):
            return parameters
        return parameters.replace(std_init=jnp.asarray(self.sigma_schedule.start, jnp.float32))


# No mean to follow, or several; LM_MA_ES cannot be compiled, and gives NaN in the second generation.
_UNSUITED = ("LM_MA_ES", "RandomSearch", "SV_CMA_ES", "SV_Open_ES")


def _evosax() -> Any:
    """Its strategies; importing them takes a second."""
    what = f"Strategies other than {' and '.join(STREAMED)} need evosax"
    return import_optional("evosax.algorithms", "evosax", what).distribution_based


@functools.cache
def _evosax_algorithm(name: str, population: int, size: int, rate: Decay, sigma_schedule: Decay) -> Any:
    kind = getattr(_evosax(), name)
    settings: dict[str, Any] = {}
    if "std_schedule" in inspect.signature(kind).parameters:
        settings["std_schedule"] = sigma_schedule
        if "optimizer" in inspect.signature(kind).parameters:
            settings["optimizer"] = optax.adam(rate)
    try:
        with jax.ensure_compile_time_eval(), lenient_broadcasting():
            return kind(population, jnp.zeros(size), **settings)
    except AssertionError as error:
        raise FloppyError(f"{name} takes no population of {population}: give an even number of at least 4.") from error


@functools.cache
def strategy_names() -> tuple[str, ...]:
    """All distribution-based strategies of evosax that follow one mean."""
    return tuple(
        name for name, kind in sorted(vars(_evosax()).items()) if isinstance(kind, type) and name not in _UNSUITED
    )


def check_strategy(name: str, population: int, *, antithetic: bool) -> None:
    """Checks that evosax knows a name, and that its population suits antithetic noise."""
    if name not in STREAMED and name not in strategy_names():
        raise must_be_one_of("strategy", name, strategy_names())
    if name in STREAMED and antithetic and population % 2:
        raise FloppyError(f"population must be even for antithetic noise, got {population}: or give --no-antithetic.")


def default_rate(name: str) -> float:
    """The step of the mean where nothing else is asked for: a factor for SNES, Adam's rate for the others."""
    return 1.0 if name == "SNES" else 0.05


def make_strategy(
    name: str, population: int, size: int, shaping: str, antithetic: bool, rate: Decay, sigma_schedule: Decay
) -> Strategy:
    """The strategy of a name for a search in `size` dimensions."""
    if name in STREAMED:
        return Streamed(name, population, shaping, antithetic, rate, sigma_schedule)
    return Evosax(name, population, size, rate, sigma_schedule)
