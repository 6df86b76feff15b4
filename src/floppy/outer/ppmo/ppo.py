"""Proximal policy optimisation (Schulman et al., 2017) in small free functions. `T` is time, the leading axis."""

import jax
import jax.numpy as jnp


def gae(
    rewards: jax.Array,
    values: jax.Array,
    next_values: jax.Array,
    terminated: jax.Array,
    truncated: jax.Array,
    *,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """Generalised advantage estimation.

    `δ_t = r_t + γ (1 - terminated_t) V(s'_t) - V(s_t)`, `A_t = δ_t + γ λ (1 - ended_t) A_{t+1}`. A termination is worth
    nothing more; a time limit cuts the recursion but keeps the value of the state reached.

    Args:
      rewards: `[T, ...]`.
      values: `[T, ...]`, of the state before each step.
      next_values: `[T, ...]`, of the state that each step reached, before any reset.
      terminated: `[T, ...]` bool, of the step itself.
      truncated: `[T, ...]` bool, of the step itself.
      discount: γ.
      gae_lambda: λ.

    Returns:
      `[T, ...]` advantages.
    """
    delta = rewards + discount * (1.0 - terminated) * next_values - values
    decay = discount * gae_lambda * (1.0 - (terminated | truncated))

    def backwards(advantage: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        delta_t, decay_t = step
        advantage = delta_t + decay_t * advantage
        return advantage, advantage

    return jax.lax.scan(backwards, jnp.zeros_like(delta[0]), (delta, decay), reverse=True)[1]


def published_gae(
    rewards: jax.Array,
    values: jax.Array,
    last_value: jax.Array,
    ended: jax.Array,
    *,
    discount: float,
    gae_lambda: float,
) -> jax.Array:
    """The published PPMO code's advantages, kept to show the difference: each step reads `ended` of the step after it.

    With zero values and γ = λ = 1, a reward of 1 on a terminating third step gives advantages 0, 0, 1 where `gae`
    gives 1, 1, 1. Time limits count as terminations.

    Args:
      rewards: `[T, ...]`.
      values: `[T, ...]`.
      last_value: `[...]`, of the state after the last step.
      ended: `[T, ...]` bool: terminated or truncated.
      discount: γ.
      gae_lambda: λ.

    Returns:
      `[T, ...]` advantages.
    """
    late = jnp.concatenate([ended[1:], ended[-1:]])
    next_values = jnp.concatenate([values[1:], last_value[None]])
    return gae(rewards, values, next_values, late, jnp.zeros_like(late), discount=discount, gae_lambda=gae_lambda)


def discounted_returns(
    rewards: jax.Array, ended: jax.Array, before: jax.Array, *, discount: float
) -> tuple[jax.Array, jax.Array]:
    """Discounted sums of the rewards so far in an episode, `G_t = γ G_{t-1} + r_t`, by which rewards are scaled.

    Args:
      rewards: `[T, ...]`.
      ended: `[T, ...]` bool: whether the step ended an episode, so that the next one starts from 0.
      before: `[...]`, of the step before the first, 0 where an episode has just begun.
      discount: γ.

    Returns:
      What the next call takes for `before`, and `[T, ...]` sums.
    """

    def forwards(carry: jax.Array, step: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, end = step
        total = discount * carry + reward
        return jnp.where(end, 0.0, total), total

    return jax.lax.scan(forwards, before, (rewards, ended))


def clipped_surrogate(ratio: jax.Array, advantages: jax.Array, clip: float) -> jax.Array:
    """PPO's policy loss `-E min(r A, clip(r, 1 - ε, 1 + ε) A)`, a scalar to minimise.

    Args:
      ratio: r, `[...]`, of the probabilities of the samples' actions, the policy's over the collecting policy's.
      advantages: A, `[...]`, as `standardise` gives them.
      clip: ε.

    Returns:
      `[]`, the mean over all samples.
    """
    return -jnp.mean(jnp.minimum(ratio * advantages, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * advantages))


def value_loss(values: jax.Array, returns: jax.Array) -> jax.Array:
    """Half the mean squared error of the critic: of `values [...]` against `returns [...]` the mean over all, `[]`."""
    return 0.5 * jnp.mean((values - returns) ** 2)


def standardise(advantages: jax.Array) -> jax.Array:
    """Advantages `[...]` with zero mean and unit standard deviation over all entries, of the same shape."""
    return (advantages - jnp.mean(advantages)) / (jnp.std(advantages) + 1e-8)


MOST_PACKED = 2**16
"""Samples whose numbers leave as many random bits above them as they take themselves."""


def shuffled(key: jax.Array, count: int, orders: int) -> jax.Array:
    """Random orders of `count` samples, `[orders, count]` int, one for each epoch.

    Random numbers are sorted whose low bits say which sample each stands for: on a CPU a single array sorts eight times
    as fast as the pairs of `jax.random.permutation`. Where the bits above are equal, as for about one pair among 2,000
    samples, the earlier sample comes first.

    Args:
      key: PRNG key, consumed.
      count: samples.
      orders: how many.
    """
    if count > MOST_PACKED:
        return jax.vmap(lambda k: jax.random.permutation(k, count))(jax.random.split(key, orders))
    low = (1 << (count - 1).bit_length()) - 1
    numbers = jax.random.bits(key, (orders, count)) & ~jnp.uint32(low) | jnp.arange(count, dtype=jnp.uint32)[None]
    return (jax.lax.sort(numbers, dimension=1, is_stable=False) & low).astype(jnp.int32)
