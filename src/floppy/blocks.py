"""The blocks of a merged dataset: what of the joint observations, actions and examples is whose task's.

`K` examples, `O` observation numbers and `A` actions are those of all tasks together. A task's examples are zero
outside of its block, and a network reads nothing from zeros. So the joint network holds a network for each task, which
`Block.cut` takes out of it.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax
import jax.numpy as jnp

from floppy.cloning import LOSSES, Cloning, Distilled, ImplicitStep, step_rates
from floppy.learners import Network, Weights
from floppy.normalise import RunningStatistics
from floppy.tasks.base import Continuous, Discrete

Span = tuple[int, int]
"""The first, and how many."""


@dataclasses.dataclass(frozen=True)
class Block:
    """One task's part of a merged dataset, as the card's `blocks` give it."""

    task: str
    """Full id."""
    rows: Span
    """Of the `K` examples."""
    observations: Span
    """Of the `O` numbers of an observation; an image lies there row by row."""
    actions: Span
    """Of the `A` actions."""
    weight: float
    """Of the task's loss in the sum that cloning goes down."""

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Self:
        """From an entry of the card, which has checked it."""
        values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in entry.items()}
        return cls(**values)

    def cut(self, weights: Weights) -> Weights:
        """The task's own policy out of a joint one, whose leaves may have leading axes: the same outputs.

        What observations of other tasks would have met in the first layer goes, and so do the others' outputs.
        """
        layers = list(weights.layers)
        read, given = _slice(self.observations), _slice(self.actions)
        layers[0] = layers[0] | {"kernel": layers[0]["kernel"][..., read, :]}
        layers[-1] = {"kernel": layers[-1]["kernel"][..., given], "bias": layers[-1]["bias"][..., given]}
        return Weights(tuple(layers), weights.skip, weights.log_std[..., given])

    def paste_outputs(self, weights: Weights, own: Weights) -> Weights:
        """A joint policy with the output layer and the log deviations of the task's `own`, as `cut` gives them."""
        last, given = weights.layers[-1], _slice(self.actions)
        read = _slice(self.observations) if len(weights.layers) == 1 else slice(None)
        pasted = {
            "kernel": last["kernel"].at[read, given].set(own.layers[-1]["kernel"]),
            "bias": last["bias"].at[given].set(own.layers[-1]["bias"]),
        }
        log_std = weights.log_std.at[given].set(own.log_std)
        return weights._replace(layers=(*weights.layers[:-1], pasted), log_std=log_std)

    def network(self, joint: Network) -> Network:
        """That of the policies which `cut` gives, for observations in a row."""
        return Network(joint.distribution, (self.observations[1],), self.own_actions(joint.actions))

    def own_actions(self, joint: Discrete | Continuous) -> Discrete | Continuous:
        """The task's own actions."""
        if isinstance(joint, Discrete):
            return Discrete(self.actions[1])
        given = _slice(self.actions)
        return Continuous(self.actions[1], joint.low[given], joint.high[given])

    def examples(self, distilled: Distilled) -> Distilled:
        """The task's own."""
        rows, given = _slice(self.rows), _slice(self.actions)
        return distilled._replace(
            observations=distilled.observations[rows, _slice(self.observations)],
            targets=distilled.targets[rows, given],
            log_std=distilled.log_std[given],
        )

    def statistics(self, joint: RunningStatistics | None, shape: tuple[int, ...]) -> RunningStatistics | None:
        """The task's own of all tasks', for its observations of `shape`."""
        if joint is None:
            return None
        read = _slice(self.observations)
        return RunningStatistics(joint.seen, joint.mean[read].reshape(shape), joint.var[read].reshape(shape))


@dataclasses.dataclass(frozen=True)
class JointNetwork(Network):
    """A policy network for all tasks of a merged dataset: it reads `[O]` and gives `[A]`."""

    blocks: tuple[Block, ...]
    """Those that it learns from."""


def clone_joint(
    cloning: Cloning, network: JointNetwork, distilled: Distilled, fresh: Weights, steps: jax.Array | None = None
) -> Weights:
    """Trains a fresh joint policy on a merged dataset: `cloning.clone` with one loss for each task (docs/design.md).

    The loss is the sum of the tasks' own losses times their weights; an implicit step, which has no sum, takes its own
    for each task, at the rate times the weight. An example says nothing about the actions of other tasks. In the HaDES
    paper (section 5.5) its targets for those are zero and it takes part in one mean over all.

    Args:
      cloning: the recipe.
      network: of the policy.
      distilled: the merged examples.
      fresh: φ0, drawn by `network.init`.
      steps: as for `clone`.

    Returns:
      φ, the trained weights.
    """
    parts = [(block, block.network(network), block.examples(distilled)) for block in network.blocks]
    if isinstance(cloning, ImplicitStep):  # which leaves alone what the tasks share
        for block, own_network, own in parts:
            own = own._replace(inner_rate=block.weight * own.inner_rate)
            fresh = block.paste_outputs(fresh, cloning.step(own_network, own, block.cut(fresh)))
        return fresh
    loss_function = LOSSES[cloning.loss]

    def loss(weights: Weights) -> jax.Array:
        total = jnp.zeros(())
        for block, own_network, own in parts:
            cut = block.cut(weights)
            output = own_network.apply(cut, own.observations)
            total += block.weight * loss_function(output, cut.log_std, own.targets, own.log_std)
        return total

    return cloning.run(loss, fresh, step_rates(cloning, distilled.inner_rate, steps))


def _slice(span: Span) -> slice:
    return slice(span[0], sum(span))
