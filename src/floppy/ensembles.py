"""Ensembles: several clones that act as one policy, the average of theirs.

For discrete actions the average is that of the action probabilities, for continuous ones that of the means; the
ensemble's log standard deviation is the mean of theirs, so that it explores as much as any one of them.
"""

import dataclasses

import jax
import jax.numpy as jnp

from floppy.learners import Network, Weights
from floppy.normalise import normalise
from floppy.tasks.base import Continuous, Discrete
from floppy.train import Policies

MOST_MEMBERS = 1000
"""All of them are in memory at once."""


@dataclasses.dataclass(frozen=True)
class EnsembleNetwork:
    """The policy of several clones of one network; its weights are those that `assemble` gives."""

    member: Network

    @property
    def actions(self) -> Discrete | Continuous:
        """The action space."""
        return self.member.actions

    @property
    def has_convolutions(self) -> bool:
        """Those of its members."""
        return self.member.has_convolutions

    def apply(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """The output for a batch of observations.

        Args:
          weights: layers `[N, ...]` of `N` members.
          observations: `[k, *obs]`.

        Returns:
          `[k, a]`: log-probabilities, which are logits too, or means.
        """

        def one(layers: tuple[dict[str, jax.Array], ...], skip: tuple[jax.Array, ...]) -> jax.Array:
            return self.member.apply(Weights(layers, skip, weights.log_std), observations)

        return average_outputs(self.actions, jax.vmap(one)(weights.layers, weights.skip))


def average_outputs(actions: Discrete | Continuous, outputs: jax.Array) -> jax.Array:
    """Outputs `[N, ..., a]` of `N` policies as those `[..., a]` of one: log mean probabilities, or mean means."""
    if isinstance(actions, Continuous):
        return jnp.mean(outputs, axis=0)
    return jax.nn.logsumexp(jax.nn.log_softmax(outputs), axis=0) - jnp.log(outputs.shape[0])


def assemble(weights: Weights, members: int) -> Weights:
    """Each `members` policies in a row as one ensemble: from leaves `[n · members, ...]` to `[n, members, ...]`.

    Their log deviations `[n · members, a]` become the ensembles' own, `[n, a]`.
    """
    count = weights.log_std.shape[0] // members
    stacked = jax.tree.map(lambda leaf: leaf.reshape(count, members, *leaf.shape[1:]), weights)
    return stacked._replace(log_std=jnp.mean(stacked.log_std, axis=1))


def ensemble_outputs(policies: Policies, observations: jax.Array) -> jax.Array:
    """What the average of `L` policies puts out for raw observations.

    Args:
      policies: as `train` gives them.
      observations: `[k, *obs]`, the same for all policies (normalised already where `policies.afresh`).

    Returns:
      `[k, a]`: log-probabilities of discrete actions, whose exponentials are the policies' mean probabilities; or the
      mean of continuous actions.
    """
    whole = jax.tree.map(lambda leaf: leaf[0], assemble(policies.weights, policies.weights.log_std.shape[0]))
    return EnsembleNetwork(policies.network).apply(whole, normalise(policies.statistics, observations))
