"""Cloning and convolutions: operations per second beside those of matrix products, and how cloning scales."""

from typing import Any

import jax
import jax.numpy as jnp
from _measure import Row, ceiling, fastest, per_loop, product_flops, product_rate, rate

from floppy import LearnerDistribution
from floppy.cloning import AdamSteps, Cloning, Distilled, FeatureSteps, GradientStep, ImplicitStep, clone
from floppy.cloning.base import map_clones, rates_shape
from floppy.learner.distribution import NATURE_DISTRIBUTION, parse_distribution
from floppy.spaces import Continuous, Discrete

OBSERVATION, ACTIONS = 11, 3  # hopper's
LEARNERS = 16
FRAMES = 256  # of a minibatch of Atari's recipe
KINDS: dict[str, Cloning] = {
    "one gradient step": GradientStep(),
    "100 Adam steps": AdamSteps(loss="mse", steps=100),
    "an implicit step": ImplicitStep(),
    "two steps, the hidden layers' and an implicit one": FeatureSteps(),
}


def rows(*, quick: bool) -> list[Row]:
    """Each kind of cloning at width 64 and 512 with 64 examples; then Adam steps by width and by examples."""
    found = []
    for width in (64,) if quick else (64, 512):
        found += [_row(f"{name}, width {width}", kind, width, 64) for name, kind in KINDS.items()]
    adam = KINDS["100 Adam steps"]
    for width in () if quick else (128, 256):
        found.append(_row(f"100 Adam steps, width {width}", adam, width, 64))
    for examples in () if quick else (4, 16, 256):
        found.append(_row(f"100 Adam steps, width 64, {examples} examples", adam, 64, examples))
    return found + ([] if quick else _convolutions())


def _row(name: str, cloning: Cloning, width: int, examples: int) -> Row:
    actions = Continuous(ACTIONS, (-1.0,) * ACTIONS, (1.0,) * ACTIONS)
    network = LearnerDistribution(width=(width, width)).bind((OBSERVATION,), actions)
    key = jax.random.key(0)
    rates = rates_shape(cloning)
    distilled = Distilled(
        jax.random.normal(key, (examples, OBSERVATION)),
        jnp.zeros((examples, ACTIONS)),
        jnp.zeros(ACTIONS),
        jnp.full(rates, 0.1),
        (),
    )
    fresh = jax.jit(jax.vmap(network.init))(jax.random.split(key, LEARNERS))

    def all_clones(distilled: Distilled) -> object:
        return map_clones(cloning, lambda weights: clone(cloning, network, distilled, weights), fresh)

    flops = product_flops(all_clones, distilled)
    seconds = fastest(jax.jit(all_clones), distilled)
    ceiling = product_rate(examples, width, width)
    return rate(
        f"Cloning, {name}: {LEARNERS} clones", flops / seconds / 1e9, "GFLOP", ceiling / 1e9, "products of these shapes"
    )


def _convolutions() -> list[Row]:
    """The Nature CNN on a minibatch of frames: its outputs, and their gradient with respect to the weights."""
    network = parse_distribution(NATURE_DISTRIBUTION).bind((84, 84, 4), Discrete(18))
    frames = jax.random.normal(jax.random.key(0), (FRAMES, 84, 84, 4))
    weights = jax.jit(network.init)(jax.random.key(0))

    def outputs(weights: Any) -> jax.Array:
        return jnp.sum(jnp.tanh(network.apply(weights, frames)))

    def forwards(weights: Any, _: jax.Array) -> Any:
        total = outputs(weights)
        return jax.tree.map(lambda leaf: leaf + 1e-9 * total, weights)

    def there_and_back(weights: Any, _: jax.Array) -> Any:
        return jax.tree.map(lambda leaf, change: leaf - 1e-9 * change, weights, jax.grad(outputs)(weights))

    found, peak = [], ceiling()
    for name, part in {"outputs": forwards, "outputs and gradient": there_and_back}.items():
        flops = product_flops(part, weights, 0)
        seconds = per_loop(part, weights, 3)
        told = f"Nature CNN, {FRAMES} frames, {name}"
        found.append(rate(told, flops / seconds / 1e9, "GFLOP", peak / 1e9, "large matrix products"))
    return found
