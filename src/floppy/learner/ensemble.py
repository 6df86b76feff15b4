"""Ensembles: several clones that act as one policy, the average of theirs.

For discrete actions the average is that of the action probabilities, for continuous ones that of the means; the
ensemble's log standard deviation is the mean of theirs, so that it explores as much as any one of them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from floppy.learner.network import Learners, Network
from floppy.spaces import ActionSpace

MAX_MEMBERS = 1000
"""All of them are in memory at once."""


@dataclasses.dataclass(frozen=True)
class EnsembleNetwork:
    """The policy of several clones of one network; its weights are those that `assemble` gives."""

    member: Network[Any]

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """That of its members."""
        return self.member.observation_shape

    @property
    def actions(self) -> ActionSpace:
        """The action space."""
        return self.member.actions

    @property
    def offers(self) -> frozenset[str]:
        """No optional ability."""
        return frozenset()

    @property
    def is_costly_on_images(self) -> bool:
        """As its members."""
        return self.member.is_costly_on_images

    @property
    def learners(self) -> Learners:
        """That of its members."""
        return self.member.learners

    def init(self, key: jax.Array) -> Any:
        """Not drawn, but assembled.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("an ensemble is assembled from trained members")

    def apply(self, weights: Any, observations: jax.Array) -> jax.Array:
        """The output for a batch of observations.

        Args:
          weights: leaves `[N, ...]` of `N` members, but for `log_std [a]`.
          observations: `[k, *obs]`.

        Returns:
          `[k, a]`: log-probabilities, which are logits too, or means.
        """
        members = jax.tree.map(lambda _: 0, weights)._replace(log_std=None)
        return self.actions.average(
            jax.vmap(lambda own: self.member.apply(own, observations), in_axes=(members,))(weights)
        )

    def to_tensors(self, weights: Any) -> dict[str, np.ndarray]:
        """Not stored: its members are.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("a policy file stores the members of an ensemble")

    def from_tensors(self, tensors: Mapping[str, np.ndarray], log_std: np.ndarray) -> Any:
        """Not stored: its members are.

        Raises:
          NotImplementedError: always.
        """
        raise NotImplementedError("a policy file stores the members of an ensemble")


def assemble(weights: Any, members: int) -> Any:
    """Each `members` policies in a row as one ensemble: from leaves `[n · members, ...]` to `[n, members, ...]`.

    Their log deviations `[n · members, a]` become the ensembles' own, `[n, a]`.
    """
    count = weights.log_std.shape[0] // members
    stacked = jax.tree.map(lambda leaf: leaf.reshape(count, members, *leaf.shape[1:]), weights)
    return stacked._replace(log_std=jnp.mean(stacked.log_std, axis=1))
