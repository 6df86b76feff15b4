"""Action spaces, and what a policy's output means in each: sampling, log-probability, entropy, KL divergence.

`a` is the size of the space. A policy's `output` is `[..., a]`: logits of discrete actions, means of continuous ones
beside a `log_std [a]` (`[0]` for discrete actions).
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


@dataclasses.dataclass(frozen=True)
class Discrete:
    """Actions `0 .. size-1`; a policy puts out `size` logits."""

    kind: ClassVar[str] = "discrete"
    size: int

    @property
    def log_std_size(self) -> int:
        """How many log standard deviations a policy has: none."""
        return 0

    def as_entry(self) -> dict[str, Any]:
        """The form that a dataset's card stores."""
        return {"kind": self.kind, "size": self.size}

    @property
    def raw(self) -> "Discrete":
        """The space itself: numbers of actions have no units."""
        return self

    @property
    def in_units(self) -> "Discrete":
        """The space itself: numbers of actions have no units."""
        return self

    def of_policy(self, values: jax.Array) -> jax.Array:
        """The values as they are."""
        return values

    def log_std_of_policy(self, log_std: jax.Array, other: "ActionSpace") -> jax.Array:
        """The (empty) values as they are."""
        del other
        return log_std

    def part(self, first: int, count: int) -> "Discrete":
        """The space of `count` of the actions."""
        del first
        return Discrete(count)

    def joined(self, others: "Sequence[ActionSpace]") -> "Discrete":
        """The space of its actions and those of others of its kind side by side."""
        return Discrete(self.size + sum(each.size for each in others))

    def sample(self, key: jax.Array, output: jax.Array, log_std: jax.Array) -> jax.Array:
        """Samples an action: `[...]` int."""
        del log_std
        return jax.random.categorical(key, output)

    def most_likely(self, output: jax.Array) -> jax.Array:
        """The most likely action: `[...]` int."""
        return jnp.argmax(output, axis=-1)

    def random(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniformly random actions of leading `shape`."""
        return jax.random.randint(key, shape, 0, self.size)

    def clip(self, action: jax.Array) -> jax.Array:
        """The action that the task receives: as it is."""
        return action

    def without_nan(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions `[n]` that an environment may be given, and `[n]` whether another one was meant, a NaN: never."""
        return actions, np.zeros(len(actions), bool)

    def log_probability(self, output: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
        """Log-probability `[...]` of an action."""
        del log_std
        chosen = _aligned(jnp.arange(self.size), output) == action[..., None]
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(output), 0.0), axis=-1)

    def unnormalised(self, output: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
        """The action's raw logit `[...]`, which the published PPMO code takes for its log-probability."""
        del log_std
        return jnp.sum(jnp.where(_aligned(jnp.arange(self.size), output) == action[..., None], output, 0.0), axis=-1)

    def entropy(self, output: jax.Array, log_std: jax.Array) -> jax.Array:
        """Entropy `[...]` in nats."""
        del log_std
        log_p = jax.nn.log_softmax(output)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)

    def kl(self, output: jax.Array, log_std: jax.Array, other: jax.Array, other_log_std: jax.Array) -> jax.Array:
        """KL divergence `[...]` in nats of the policy with `output` from the one with `other`."""
        del log_std, other_log_std
        log_p = jax.nn.log_softmax(output)
        return jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(other)), axis=-1)

    def average(self, outputs: jax.Array) -> jax.Array:
        """Outputs `[N, ..., a]` of `N` policies as those `[..., a]` of one: log mean probabilities."""
        return jax.nn.logsumexp(jax.nn.log_softmax(outputs), axis=0) - jnp.log(outputs.shape[0])


@dataclasses.dataclass(frozen=True)
class Continuous:
    """Actions in a box of `size` dimensions; a policy puts out `size` means and holds as many log deviations.

    Policies act in units: an action of the policy's is the task's `centre + half_width · action`.
    """

    kind: ClassVar[str] = "continuous"
    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    centre: tuple[float, ...] = ()
    """Of the units, in the task's; empty together with `half_width` where policies act in the task's own units."""
    half_width: tuple[float, ...] = ()
    """Of the units, in the task's."""

    @property
    def raw(self) -> "Continuous":
        """The same space, in the task's own units."""
        return Continuous(self.size, self.low, self.high)

    @property
    def in_units(self) -> "Continuous":
        """The same space in units of its bounds, which are -1 and 1 then; as it is where they are so already."""
        bounds = list(zip(self.low, self.high, strict=True))
        # Halves first: the sum of two large bounds may be infinite.
        centre, half = (
            tuple(low / 2 + high / 2 for low, high in bounds),
            tuple(high / 2 - low / 2 for low, high in bounds),
        )
        if set(centre) == {0.0} and set(half) == {1.0}:
            return self.raw
        return Continuous(self.size, self.low, self.high, centre, half)

    def of_task(self, values: jax.Array) -> jax.Array:
        """Policies' actions `[..., a]` in the task's units."""
        if not self.half_width:
            return values
        centre, half = (_aligned(jnp.array(each), values) for each in (self.centre, self.half_width))
        return centre + half * values

    def of_policy(self, values: jax.Array) -> jax.Array:
        """The task's actions `[..., a]` in units of policies."""
        if not self.half_width:
            return values
        centre, half = (_aligned(jnp.array(each), values) for each in (self.centre, self.half_width))
        return (values - centre) / half

    def log_std_of_policy(self, log_std: jax.Array, other: "ActionSpace") -> jax.Array:
        """Log standard deviations `[..., a]` in units of this space, from those in units of another one."""
        log_units = [
            jnp.log(jnp.array(getattr(each, "half_width", ()) or (1.0,) * self.size)) for each in (self, other)
        ]
        return log_std + _aligned(log_units[1] - log_units[0], log_std)

    @property
    def log_std_size(self) -> int:
        """How many log standard deviations a policy has: one per dimension."""
        return self.size

    def as_entry(self) -> dict[str, Any]:
        """The form that a dataset's card stores."""
        entry: dict[str, Any] = {"kind": self.kind, "size": self.size, "low": list(self.low), "high": list(self.high)}
        units = {"centre": list(self.centre), "half_width": list(self.half_width)}
        return entry | (units if self.half_width else {})

    def part(self, first: int, count: int) -> "Continuous":
        """The space of `count` of the dimensions."""
        given = slice(first, first + count)
        return Continuous(count, self.low[given], self.high[given], self.centre[given], self.half_width[given])

    def joined(self, others: "Sequence[ActionSpace]") -> "Continuous":
        """The space of its dimensions and those of others of its kind side by side."""
        every: list[Any] = [self, *others]
        low, high = (tuple(bound for each in every for bound in getattr(each, name)) for name in ("low", "high"))
        if not any(each.half_width for each in every):
            return Continuous(len(low), low, high)
        centre = tuple(number for each in every for number in each.centre or (0.0,) * each.size)
        half_width = tuple(number for each in every for number in each.half_width or (1.0,) * each.size)
        return Continuous(len(low), low, high, centre, half_width)

    def sample(self, key: jax.Array, output: jax.Array, log_std: jax.Array) -> jax.Array:
        """Samples an action: `[..., a]`, not yet clipped (see `clip`)."""
        return output + _aligned(jnp.exp(log_std), output) * jax.random.normal(key, output.shape)

    def most_likely(self, output: jax.Array) -> jax.Array:
        """The most likely action: the mean."""
        return output

    def random(self, key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """Uniformly random actions of leading `shape`, within the bounds, in units of policies."""
        low, high = jnp.array(self.low), jnp.array(self.high)
        return self.of_policy(jax.random.uniform(key, (*shape, self.size), minval=low, maxval=high))

    def clip(self, action: jax.Array) -> jax.Array:
        """The action that the task receives: in its units, clipped to its bounds."""
        low, high = (_aligned(jnp.array(bounds), action) for bounds in (self.low, self.high))
        return jnp.clip(self.of_task(action), low, high)

    def without_nan(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Actions `[n, a]` that an environment may be given, and `[n]` whether another one was meant, a NaN."""
        diverged = np.isnan(actions)
        return np.where(diverged, np.array(self.low, np.float32), actions), diverged.any(axis=1)

    def log_probability(self, output: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
        """Log density `[...]` of an action before clipping."""
        log_std = _aligned(log_std, output)
        z = (action - output) / jnp.exp(log_std)
        return jnp.sum(-0.5 * z**2 - log_std - LOG_SQRT_2_PI, axis=-1)

    def unnormalised(self, output: jax.Array, log_std: jax.Array, action: jax.Array) -> jax.Array:
        """As `log_probability`: the published PPMO code normalises densities."""
        return self.log_probability(output, log_std, action)

    def entropy(self, output: jax.Array, log_std: jax.Array) -> jax.Array:
        """Entropy `[...]` in nats, before clipping."""
        return jnp.broadcast_to(jnp.sum(log_std + 0.5 + LOG_SQRT_2_PI, axis=-1), output.shape[:-1])

    def kl(self, output: jax.Array, log_std: jax.Array, other: jax.Array, other_log_std: jax.Array) -> jax.Array:
        """KL divergence `[...]` in nats of the policy with `output` from the one with `other`, before clipping."""
        log_std, other_log_std = _aligned(log_std, output), _aligned(other_log_std, output)
        apart = jnp.exp(2.0 * log_std) + (output - other) ** 2
        return jnp.sum(other_log_std - log_std + 0.5 * apart / jnp.exp(2.0 * other_log_std) - 0.5, axis=-1)

    def average(self, outputs: jax.Array) -> jax.Array:
        """Outputs `[N, ..., a]` of `N` policies as those `[..., a]` of one: mean means."""
        return jnp.mean(outputs, axis=0)


def _aligned(values: jax.Array, output: jax.Array) -> jax.Array:
    """Values `[..., a]` with as many axes as an output, so that no axis is added by implication."""
    return jnp.expand_dims(values, tuple(range(output.ndim - values.ndim)))


ActionSpace = Discrete | Continuous


def space_of(entry: Mapping[str, Any]) -> ActionSpace:
    """The action space that a card's `actions` describe."""
    if entry["kind"] == Discrete.kind:
        return Discrete(entry["size"])
    units = (tuple(entry.get(name, ())) for name in ("centre", "half_width"))
    return Continuous(entry["size"], tuple(entry["low"]), tuple(entry["high"]), *units)
