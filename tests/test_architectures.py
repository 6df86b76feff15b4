"""What hidden layers can be beside dense layers of one width: LayerNorm, residual connections, a taper."""

import itertools
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floppy.cloning import FeatureSteps, GradientStep, ImplicitStep
from floppy.cloning.base import Cloning, Distilled, clone
from floppy.errors import FloppyError
from floppy.learner.activations import layer_norm
from floppy.learner.cnn import CONVOLUTIONS
from floppy.learner.distribution import describe_distribution, learners_of, parse_distribution
from floppy.learner.mlp import LearnerDistribution
from floppy.learner.network import PLAIN_LAYERS, check_offers
from floppy.spaces import Discrete

OBSERVATIONS = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)


def in_plain_python(weights: Any, norm: str, *, residual: bool) -> np.ndarray:
    """The tanh network a row at a time."""
    *hidden_layers, last = weights.layers
    outputs = []
    for row in OBSERVATIONS:
        hidden = row
        for index, layer in enumerate(hidden_layers):
            before = hidden @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])
            if norm == "layer":
                before = (before - before.mean()) / np.sqrt(before.var() + 1e-5)
            hidden = np.tanh(before) + (hidden if residual and index else 0.0)
        outputs.append(hidden @ np.asarray(last["kernel"]) + np.asarray(last["bias"]))
    return np.array(outputs)


def drawn(text: str) -> tuple[Any, Any]:
    network = parse_distribution(text).bind((3,), Discrete(2))
    return network, jax.jit(network.init)(jax.random.key(0))


@pytest.mark.parametrize(("norm", "residual"), [*itertools.product(("none", "layer"), (False, True))])
def test_hidden_layers_against_plain_python(norm: str, residual: bool) -> None:
    text = f"width=6:depth=3:initialiser=xavier1:norm={norm}:residual={'yes' if residual else 'no'}"
    network, weights = drawn(text)
    expected = in_plain_python(weights, norm, residual=residual)
    np.testing.assert_allclose(network.apply(weights, OBSERVATIONS), expected, rtol=1e-4, atol=1e-5)


def test_layer_norm_by_hand() -> None:
    np.testing.assert_allclose(layer_norm(jnp.array([[1.0, 3.0], [5.0, 5.0]])), [[-1.0, 1.0], [0.0, 0.0]], atol=1e-4)


@pytest.mark.parametrize(
    ("taper", "widths"), [("0.5", (8, 4, 2, 1)), ("1", (8, 8, 8, 8)), ("2", (8, 16, 32, 64)), ("0.1", (8, 1, 1, 1))]
)
def test_a_taper_multiplies_the_width_from_layer_to_layer(taper: str, widths: tuple[int, ...]) -> None:
    network, weights = drawn(f"width=8:depth=4:taper={taper}")
    assert [layer["kernel"].shape for layer in weights.layers] == list(itertools.pairwise((3, *widths, 2)))
    assert network.apply(weights, OBSERVATIONS).shape == (5, 2)


def test_random_depth_leaves_residual_layers_out() -> None:
    network = parse_distribution("width=6:depth=1..3:residual=yes:initialiser=xavier1").bind((3,), Discrete(2))
    seen = set()
    for seed in range(12):
        weights = jax.jit(network.init)(jax.random.key(seed))
        used = [layer for layer, skip in zip(weights.layers, weights.skip, strict=True) if not skip]
        expected = in_plain_python(weights._replace(layers=tuple(used)), "none", residual=True)
        np.testing.assert_allclose(network.apply(weights, OBSERVATIONS), expected, rtol=1e-4, atol=1e-5)
        seen.add(len(used))
    assert seen == {2, 3, 4}


@pytest.mark.parametrize(
    "cloning", [GradientStep(steps=20), ImplicitStep(), FeatureSteps()], ids=lambda each: type(each).__name__
)
def test_every_cloning_teaches_them(cloning: Cloning) -> None:
    network, weights = drawn("width=16:depth=3:norm=layer:residual=yes:initialiser=xavier1")
    targets = jnp.asarray(np.random.default_rng(1).normal(size=(5, 2)), jnp.float32)
    rate = jnp.array([0.1, 0.1, 100.0]) if isinstance(cloning, FeatureSteps) else jnp.array(0.05)
    distilled = Distilled(jnp.asarray(OBSERVATIONS), targets, jnp.zeros(0), rate, ())
    cloned = jax.jit(lambda fresh: clone(cloning, network, distilled, fresh))(weights)
    before, after = (jnp.mean((network.apply(each, OBSERVATIONS) - targets) ** 2) for each in (weights, cloned))
    assert after < 0.9 * before


@pytest.mark.parametrize("text", ["norm=layer", "residual=yes:depth=3", "depth=3:taper=0.75", "lambda"])
def test_texts_and_cards_hold_them(text: str) -> None:
    learners = parse_distribution(text)
    assert parse_distribution(describe_distribution(learners)) == learners
    assert learners_of(json.loads(json.dumps(learners.as_entry()))) == learners


def test_a_taper_is_kept_as_its_text_says_it() -> None:
    learners = LearnerDistribution(depth=(3, 3), taper=1 / 3)
    assert learners.taper == 0.333333333
    assert parse_distribution(str(learners)) == learners


def test_layers_trained_for_others_mean_something_else() -> None:
    learners = parse_distribution("width=8:depth=3:norm=layer")
    assert learners.shares_layers_with(parse_distribution("width=8:depth=2:norm=layer"))
    for other in ("width=8:depth=3", "width=8:depth=3:norm=layer:residual=yes", "width=8:depth=3:norm=layer:taper=0.5"):
        assert not learners.shares_layers_with(parse_distribution(other))


def test_the_first_hidden_layer_behind_a_convolution_adds_to_nothing() -> None:
    learners = parse_distribution("network=minatar-cnn:width=6:depth=2:norm=layer:residual=yes:initialiser=xavier1")
    network = learners.bind((10, 10, 4), Discrete(2))
    weights = jax.jit(network.init)(jax.random.key(0))
    images = np.random.default_rng(2).uniform(size=(3, 10, 10, 4)).astype(np.float32)
    convolution, *dense, last = weights.layers
    flat = CONVOLUTIONS["minatar-cnn"][0].apply(convolution, images, jnp.tanh).reshape(3, -1)
    first = jnp.tanh(layer_norm(flat @ dense[0]["kernel"]))  # fresh biases are 0
    second = first + jnp.tanh(layer_norm(first @ dense[1]["kernel"]))
    expected = second @ last["kernel"]
    np.testing.assert_allclose(network.apply(weights, images), expected, rtol=1e-4, atol=1e-5)


def test_a_policy_of_random_depth_is_written_and_read() -> None:
    network = parse_distribution("width=6:depth=1..3:residual=yes:initialiser=xavier1").bind((3,), Discrete(2))
    for seed in range(4):
        weights = jax.jit(network.init)(jax.random.key(seed))
        read = network.from_tensors(network.to_tensors(weights), np.zeros(0, np.float32))
        outputs = [network.apply(each, OBSERVATIONS) for each in (weights, read)]
        np.testing.assert_allclose(*outputs, rtol=1e-4, atol=1e-6)


def test_a_card_without_them_is_as_before() -> None:
    usual = {"width", "depth", "initialiser", "activation", "network", "init_seed"}
    assert LearnerDistribution().as_entry().keys() == usual


def test_other_libraries_refuse_them() -> None:
    network, _ = drawn("width=8:norm=layer")
    with pytest.raises(
        FloppyError,
        match=r"ONNX needs a network that is a plain stack of floppy's own layers .*norm=layer.*: choose a built-in",
    ):
        check_offers(network, (PLAIN_LAYERS,), "ONNX")
