"""What a policy's output means: sampling, log-probability, entropy, for discrete and continuous actions.

`output` is `[..., a]`: logits, or means beside `log_std [a]`.
"""

import math

import jax
import jax.numpy as jnp

from floppy.tasks.base import Continuous, Discrete

LOG_SQRT_2_PI = 0.5 * math.log(2 * math.pi)


def sample_action(key: jax.Array, actions: Discrete | Continuous, output: jax.Array, log_std: jax.Array) -> jax.Array:
    """Samples an action: `[...]` int, or `[..., a]` float, not yet clipped (see `clip_action`)."""
    if isinstance(actions, Discrete):
        return jax.random.categorical(key, output)
    return output + jnp.exp(log_std) * jax.random.normal(key, output.shape)


def best_action(actions: Discrete | Continuous, output: jax.Array) -> jax.Array:
    """The most likely action."""
    return jnp.argmax(output, axis=-1) if isinstance(actions, Discrete) else output


def random_action(key: jax.Array, actions: Discrete | Continuous, shape: tuple[int, ...]) -> jax.Array:
    """Uniformly random actions of leading `shape`, within the bounds."""
    if isinstance(actions, Discrete):
        return jax.random.randint(key, shape, 0, actions.size)
    low, high = jnp.array(actions.low), jnp.array(actions.high)
    return jax.random.uniform(key, (*shape, actions.size), minval=low, maxval=high)


def clip_action(actions: Discrete | Continuous, action: jax.Array) -> jax.Array:
    """The action that the task receives: continuous ones clipped to their bounds."""
    if isinstance(actions, Discrete):
        return action
    return jnp.clip(action, jnp.array(actions.low), jnp.array(actions.high))


def log_probability(
    actions: Discrete | Continuous, output: jax.Array, log_std: jax.Array, action: jax.Array
) -> jax.Array:
    """Log-probability (density) `[...]` of `action` before clipping."""
    if isinstance(actions, Discrete):
        chosen = jnp.arange(actions.size) == action[..., None]
        return jnp.sum(jnp.where(chosen, jax.nn.log_softmax(output), 0.0), axis=-1)
    z = (action - output) / jnp.exp(log_std)
    return jnp.sum(-0.5 * z**2 - log_std - LOG_SQRT_2_PI, axis=-1)


def entropy(actions: Discrete | Continuous, output: jax.Array, log_std: jax.Array) -> jax.Array:
    """Entropy `[...]` in nats."""
    if isinstance(actions, Discrete):
        log_p = jax.nn.log_softmax(output)
        return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    return jnp.broadcast_to(jnp.sum(log_std + 0.5 + LOG_SQRT_2_PI, axis=-1), output.shape[:-1])


def kl_divergence(
    actions: Discrete | Continuous, output: jax.Array, log_std: jax.Array, other: jax.Array, other_log_std: jax.Array
) -> jax.Array:
    """KL divergence `[...]` in nats of the policy with `output` from the one with `other`, before clipping."""
    if isinstance(actions, Discrete):
        log_p = jax.nn.log_softmax(output)
        return jnp.sum(jnp.exp(log_p) * (log_p - jax.nn.log_softmax(other)), axis=-1)
    apart = jnp.exp(2.0 * log_std) + (output - other) ** 2
    return jnp.sum(other_log_std - log_std + 0.5 * apart / jnp.exp(2.0 * other_log_std) - 0.5, axis=-1)
