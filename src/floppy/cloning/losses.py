"""Losses of cloning: what a policy's output on the examples is held to.

`k` examples, `a` outputs of the policy; `log_std [a]` is the policy's own, `[0]` for discrete actions.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from floppy.errors import FloppyError
from floppy.fields import Registry
from floppy.spaces import ActionSpace, Continuous, Discrete

LossFunction = Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]
"""From `output [k, a]`, `log_std [a]`, `targets [k, a]` and `target_log_std [a]` to a scalar."""


class Loss(NamedTuple):
    """A loss, and what it reads."""

    function: LossFunction
    action_kinds: tuple[str, ...] = (Discrete.kind, Continuous.kind)
    """The kinds of actions that it suits."""
    takes_probabilities: bool = False
    """Whether targets are class probabilities, which stay so while they are improved."""
    reads_log_std: bool = False
    """Whether the dataset's target of the log standard deviations takes part."""


def mse_loss(output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array) -> jax.Array:
    """Mean squared error over all `k·a` entries, plus that of the log standard deviations (PPMO, section 4).

    Args:
      output: `[k, a]`, the policy's logits or means.
      log_std: `[a]`, the policy's; `[0]` for discrete actions.
      targets: `[k, a]`.
      target_log_std: shaped as `log_std`.
    """
    loss = jnp.mean((output - targets) ** 2)
    return loss + jnp.mean((log_std - target_log_std) ** 2) if log_std.size else loss


def huber_loss(output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array) -> jax.Array:
    """As `mse_loss`, but linear beyond an error of 1 (Huber, 1964): twice optax's Huber loss, so near 0 it is mse."""
    loss = 2.0 * jnp.mean(optax.losses.huber_loss(output, targets))
    return loss + 2.0 * jnp.mean(optax.losses.huber_loss(log_std, target_log_std)) if log_std.size else loss


def cross_entropy_loss(
    output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array
) -> jax.Array:
    """Cross-entropy of the policy under class probabilities `targets [k, a]`, averaged over the `k` rows (HaDES)."""
    del log_std, target_log_std
    return -jnp.mean(jnp.sum(targets * jax.nn.log_softmax(output), axis=-1))


def gaussian_nll_loss(
    output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array
) -> jax.Array:
    """Gaussian negative log-likelihood of `targets [k, a]`, summed over dimensions, averaged over rows (HaDES)."""
    del target_log_std
    log_std = log_std[None]
    z = (targets - output) / jnp.exp(log_std)
    return jnp.mean(jnp.sum(0.5 * z**2 + log_std + 0.5 * jnp.log(2 * jnp.pi), axis=-1))


LOSSES: Registry[Loss] = Registry(
    "loss",
    {
        "mse": Loss(mse_loss, reads_log_std=True),
        "cross-entropy": Loss(cross_entropy_loss, (Discrete.kind,), takes_probabilities=True),
        "gaussian-nll": Loss(gaussian_nll_loss, (Continuous.kind,)),
        "huber": Loss(huber_loss, reads_log_std=True),
    }.items(),
)
"""By name; `register_loss` adds to them."""


def register_loss(name: str, loss: Loss) -> None:
    """Adds a loss of your own, which `cloning.loss` may then name.

    Args:
      name: by which configurations, cards and the command line know it.
      loss: what it computes, and for which actions.

    Raises:
      FloppyError: if another loss has the name.
    """
    LOSSES.register(name, loss)


def check_loss(name: str, actions: ActionSpace) -> None:
    """Checks that a loss exists and suits the actions.

    Raises:
      FloppyError: naming those that do.
    """
    if actions.kind not in LOSSES.find(name).action_kinds:
        fitting = [each for each, loss in LOSSES.items() if actions.kind in loss.action_kinds]
        raise FloppyError(f"loss must be one of {', '.join(fitting)} for {actions.kind} actions, got {name}.")
