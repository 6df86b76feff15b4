"""The blocks of a merged dataset: what of the joint observations, actions and examples is whose task's.

`K` examples, `O` observation numbers and `A` actions are those of all tasks together. A task's examples are zero
outside of its block, and a network reads nothing from zeros. So the joint network holds a network for each task, which
`Block.cut` takes out of it. The loss is the sum of the tasks' own losses times their weights; an implicit step, which
has no sum, takes its own for each task, at the rate times the weight. An example says nothing about the actions of
other tasks. In the HaDES paper (section 5.5) its targets for those are zero and it takes part in one mean over all.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import jax

from floppy.learner.mlp import LayeredNetwork, Weights
from floppy.learner.network import Layer
from floppy.spaces import ActionSpace

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

        The first layer's weights for other tasks' observations go, and so do the others' outputs.
        """
        layers = list(weights.layers)
        read, given = _slice(self.observations), _slice(self.actions)
        layers[0] = layers[0] | {"kernel": layers[0]["kernel"][..., read, :]}
        layers[-1] = {"kernel": layers[-1]["kernel"][..., given], "bias": layers[-1]["bias"][..., given]}
        return Weights(tuple(layers), weights.skip, weights.log_std[..., given])

    def paste_output(self, weights: Weights, output: Layer, log_std: jax.Array) -> Weights:
        """A joint policy with the output layer and the log deviations of the task's own, as `cut` gives them."""
        last, given = weights.layers[-1], _slice(self.actions)
        read = _slice(self.observations) if len(weights.layers) == 1 else slice(None)
        pasted = {
            "kernel": last["kernel"].at[read, given].set(output["kernel"]),
            "bias": last["bias"].at[given].set(output["bias"]),
        }
        log_std = weights.log_std.at[given].set(log_std)
        return weights._replace(layers=(*weights.layers[:-1], pasted), log_std=log_std)

    def network(self, joint: LayeredNetwork) -> LayeredNetwork:
        """That of the policies which `cut` gives, for observations in a row."""
        return LayeredNetwork(joint.distribution, (self.observations[1],), self.own_actions(joint.actions))

    def own_actions(self, joint: ActionSpace) -> ActionSpace:
        """The task's own actions."""
        return joint.part(*self.actions)

    def examples(
        self, observations: jax.Array, targets: jax.Array, log_std: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """The task's own observations, targets and log deviations."""
        rows, given = _slice(self.rows), _slice(self.actions)
        return observations[rows, _slice(self.observations)], targets[rows, given], log_std[given]

    def own_statistic(self, joint: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The task's own part of a statistic `[O]`, in the `shape` of its observations."""
        return joint[_slice(self.observations)].reshape(shape)


@dataclasses.dataclass(frozen=True)
class BlockPolicy:
    """A term's policy that is one task's part of a joint one; see `TermPolicy`."""

    network: LayeredNetwork
    """The task's own."""
    block: Block

    @classmethod
    def of(cls, joint: Any, block: Block) -> Self:
        """Of a joint network."""
        return cls(block.network(joint), block)

    def apply(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """The task's outputs."""
        return self.network.apply(self.block.cut(weights), observations)

    def log_std(self, weights: Weights) -> jax.Array:
        """The task's log deviations."""
        return self.block.cut(weights).log_std

    def features(self, weights: Weights, observations: jax.Array) -> jax.Array:
        """What the task's output layer reads."""
        return self.network.features(self.block.cut(weights), observations)

    def readout(self, weights: Weights) -> Layer:
        """The task's output layer."""
        return self.network.readout(self.block.cut(weights))

    def with_readout(self, weights: Weights, readout: Layer, log_std: jax.Array) -> Weights:
        """The joint weights with another output layer of the task."""
        return self.block.paste_output(weights, readout, log_std)


def _slice(span: Span) -> slice:
    return slice(span[0], sum(span))
