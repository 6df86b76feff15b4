"""Networks and learner distributions, against plain NumPy networks of the size that was drawn."""

import dataclasses
import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from floppy.cloning import AdamSteps, Cloning, Distilled, GradientStep, clone
from floppy.errors import FloppyError
from floppy.learner.activations import ACTIVATIONS
from floppy.learner.distribution import (
    NAMED_DISTRIBUTIONS,
    NATURE_DISTRIBUTION,
    parse_distribution,
    parse_distributions,
)
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution, Weights
from floppy.learner.network import Layer
from floppy.tasks import Continuous, Discrete

DISCRETE = Discrete(2)
CONTINUOUS = Continuous(3, (-1.0,) * 3, (1.0,) * 3)
NUMPY_ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "gelu": lambda x: 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3))),
    "silu": lambda x: x / (1.0 + np.exp(-x)),
    "elu": lambda x: np.where(x > 0.0, x, np.expm1(x)),
}


def draw(network: LayeredNetwork, count: int) -> list[Weights]:
    """Up to 40 fresh policies as NumPy arrays. They do not depend on the activation, so they are drawn once for all."""
    distribution = dataclasses.replace(network.distribution, activation="tanh")
    return draw_all(dataclasses.replace(network, distribution=distribution), 40)[:count]


@functools.cache
def draw_all(network: LayeredNetwork, count: int) -> list[Weights]:
    stacked = jax.device_get(jax.jit(jax.vmap(network.init))(jax.random.split(jax.random.key(0), count)))
    return [jax.tree.map(lambda leaf, i=i: leaf[i], stacked) for i in range(count)]


def drawn_width(weights: Weights) -> int:
    """Units of the first hidden layer that any input reaches."""
    return int(np.count_nonzero(weights.layers[0]["kernel"].any(axis=0)))


def drawn_depth(weights: Weights) -> int:
    return len(weights.layers) - 1 - int(sum(weights.skip))


def numpy_network(weights: Weights, activation: str, width: int, depth: int, observations: np.ndarray) -> np.ndarray:
    """The output of the network cut down to `depth` hidden layers of `width` units."""
    chosen = [*weights.layers[:depth], weights.layers[-1]]
    hidden = observations.reshape(len(observations), -1).astype(np.float64)
    for index, layer in enumerate(chosen):
        rows = None if index == 0 else width
        columns = None if index == depth else width
        hidden = hidden @ layer["kernel"][:rows, :columns] + layer["bias"][:columns]
        if index < depth:
            hidden = NUMPY_ACTIVATIONS[activation](hidden)
    return hidden


def distilled_for(network: LayeredNetwork, seed: int = 0) -> Distilled:
    random = np.random.default_rng(seed)
    outputs = network.actions.size
    return Distilled(
        jnp.asarray(random.normal(size=(5, *network.observation_shape)), jnp.float32),
        jnp.asarray(random.normal(size=(5, outputs)), jnp.float32),
        jnp.zeros(outputs if isinstance(network.actions, Continuous) else 0),
        jnp.asarray(0.5),
        (),
    )


@pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
@pytest.mark.parametrize("shape", [(4,), (2, 3), ()])
@pytest.mark.parametrize(("width", "depth"), [((8, 8), (2, 2)), ((8, 8), (1, 1)), ((4, 8), (1, 3))])
def test_shapes(width: tuple[int, int], depth: tuple[int, int], shape: tuple[int, ...], actions: Discrete | Continuous):
    network = LayeredNetwork(LearnerDistribution(width, depth, ("xavier",)), shape, actions)
    weights = jax.eval_shape(network.init, jax.random.key(0))
    inputs = int(np.prod(shape))
    sizes = [inputs, *[8] * depth[1], actions.size]
    assert network.kernel_shapes == list(itertools.pairwise(sizes))
    assert [layer["kernel"].shape for layer in weights.layers] == list(itertools.pairwise(sizes))
    assert [layer["bias"].shape for layer in weights.layers] == [(size,) for size in sizes[1:]]
    assert [skip.shape for skip in weights.skip] == [()] * network.distribution.layers
    assert weights.log_std.shape == ((3,) if actions is CONTINUOUS else (0,))
    assert jax.eval_shape(network.apply, weights, jnp.ones((6, *shape))).shape == (6, actions.size)


@pytest.mark.slow
def test_biases_and_deviations_start_at_zero():
    (weights,) = draw(LayeredNetwork(LearnerDistribution((8, 8)), (4,), CONTINUOUS), 1)
    assert not weights.log_std.any()
    assert not any(layer["bias"].any() for layer in weights.layers)
    assert not any(weights.skip)


def test_same_key_same_weights():
    network = LayeredNetwork(LearnerDistribution((4, 9), (1, 1), ("orthogonal", "xavier")), (4,), DISCRETE)
    init = jax.jit(network.init)
    first, again, other = (init(jax.random.key(seed)) for seed in (7, 7, 8))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    assert not np.array_equal(first.layers[0]["kernel"], other.layers[0]["kernel"])


def test_layers_are_drawn_independently():
    (weights,) = draw(LayeredNetwork(LearnerDistribution((6, 6), (3, 3), ("xavier",)), (6,), DISCRETE), 1)
    first, second, third, _ = weights.layers
    assert not np.allclose(first["kernel"], second["kernel"])
    assert not np.allclose(second["kernel"], third["kernel"])


@pytest.mark.slow
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_fixed_network_equals_numpy(activation: str):
    network = LayeredNetwork(LearnerDistribution((8, 8), (2, 2), ("xavier",), activation), (2, 3), DISCRETE)
    observations = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    (weights,) = draw(network, 1)
    expected = numpy_network(weights, activation, 8, 2, observations)
    np.testing.assert_allclose(network.apply(weights, observations), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("name", "hidden", "output"), [("lambda", 2.0**0.5, 0.01), ("ortho1", 1.0, 1.0)])
def test_gains_of_the_paper_reach_the_kernels(name: str, hidden: float, output: float):
    (weights,) = draw_all(LayeredNetwork(NAMED_DISTRIBUTIONS[name], (4,), DISCRETE), 1)
    for layer, gain in zip(weights.layers, [hidden, hidden, output], strict=True):
        values = np.linalg.svd(layer["kernel"], compute_uv=False)
        np.testing.assert_allclose(values, np.full_like(values, gain), rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "activation"), [("orthogonal", "tanh"), ("xavier1", "relu")])
def test_random_width_is_the_cut_down_network(name: str, activation: str):
    network = LayeredNetwork(LearnerDistribution((12, 20), (2, 2), (name,), activation), (3,), DISCRETE)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    for weights in draw(network, 8):
        width = drawn_width(weights)
        first, second, last = (layer["kernel"] for layer in weights.layers)
        assert not first[:, width:].any()
        assert not second[width:].any()
        assert not second[:, width:].any()
        assert not last[width:].any()
        assert np.count_nonzero(second) == width**2
        assert np.count_nonzero(last) == 2 * width
        expected = numpy_network(weights, activation, width, 2, observations)
        np.testing.assert_allclose(network.apply(weights, observations), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("cloning", "activation"),
    [*((GradientStep(steps=3), name) for name in ACTIVATIONS), (AdamSteps("mse", steps=4), "tanh")],
    ids=[*ACTIVATIONS, "adam-steps"],
)
def test_unused_units_stay_exactly_zero_under_cloning(cloning: Cloning, activation: str):
    network = LayeredNetwork(LearnerDistribution((12, 20), (2, 2), ("xavier1",), activation), (3,), DISCRETE)
    distilled = distilled_for(network)
    train = jax.jit(lambda fresh: clone(cloning, network, distilled, fresh))
    fresh_policies = draw(network, 8)
    assert min(map(drawn_width, fresh_policies)) < 20
    for fresh in fresh_policies:
        width = drawn_width(fresh)
        cloned = jax.device_get(train(fresh))
        for index, layer in enumerate(cloned.layers):
            rows = 3 if index == 0 else width
            columns = 2 if index == 2 else width
            assert not layer["kernel"][rows:].any()
            assert not layer["kernel"][:, columns:].any()
            assert not layer["bias"][columns:].any()
            assert (layer["kernel"] != fresh.layers[index]["kernel"]).any()
            assert layer["bias"][:columns].any()
        expected = numpy_network(cloned, activation, width, 2, np.asarray(distilled.observations))
        np.testing.assert_allclose(network.apply(cloned, distilled.observations), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("activation", ["tanh", "relu"])
def test_random_depth_is_the_shallower_network(activation: str):
    network = LayeredNetwork(LearnerDistribution((6, 6), (1, 3), ("xavier1",), activation), (3,), DISCRETE)
    observations = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    policies = draw(network, 24)
    assert {drawn_depth(weights) for weights in policies} == {1, 2, 3}
    for weights in policies:
        depth = drawn_depth(weights)
        assert [float(skip) for skip in weights.skip] == [0.0] * depth + [1.0] * (3 - depth) + [0.0]
        expected = numpy_network(weights, activation, 6, depth, observations)
        np.testing.assert_allclose(network.apply(weights, observations), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "cloning", [GradientStep(steps=3), AdamSteps("mse", steps=4)], ids=["gradient-steps", "adam-steps"]
)
def test_layers_left_out_are_not_trained(cloning: Cloning):
    network = LayeredNetwork(LearnerDistribution((6, 6), (1, 3), ("xavier1",)), (3,), DISCRETE)
    distilled = distilled_for(network)
    train = jax.jit(lambda fresh: clone(cloning, network, distilled, fresh))
    for fresh in draw(network, 8):
        cloned = jax.device_get(train(fresh))
        assert cloned.skip == fresh.skip
        for before, after, skip in zip(fresh.layers, cloned.layers, fresh.skip, strict=True):
            assert np.array_equal(before["kernel"], after["kernel"]) == bool(skip)
            assert np.array_equal(before["bias"], after["bias"]) == bool(skip)


@pytest.mark.slow
def test_every_width_and_depth_in_range_occurs():
    network = LayeredNetwork(LearnerDistribution((3, 8), (1, 3), ("xavier",)), (3,), DISCRETE)
    policies = draw_all(network, 300)
    pairs = {(drawn_width(weights), drawn_depth(weights)) for weights in policies}
    assert pairs == {(width, depth) for width in range(3, 9) for depth in range(1, 4)}
    widths = np.bincount([drawn_width(weights) for weights in policies], minlength=9)[3:]
    assert widths.min() > 25  # 50 expected, deviation 6.5


def test_random_initialiser_draws_from_each():
    def is_orthogonal(layer: Layer) -> bool:
        return np.allclose(layer["kernel"].T @ layer["kernel"], np.eye(layer["kernel"].shape[1]), atol=1e-4)

    network = LayeredNetwork(LearnerDistribution((8, 8), (1, 1), ("orthogonal1", "xavier")), (8,), DISCRETE)
    drawn = [[is_orthogonal(layer) for layer in weights.layers] for weights in draw(network, 40)]
    assert all(first == last for first, last in drawn)  # one initialiser for the whole network
    assert 10 < sum(first for first, _ in drawn) < 30


def test_is_fixed_and_layers():
    assert LearnerDistribution().is_fixed
    assert not LearnerDistribution(width=(8, 9)).is_fixed
    assert not LearnerDistribution(depth=(1, 2)).is_fixed
    assert LearnerDistribution(depth=(1, 5)).layers == 6


def test_named_distributions_are_the_columns_of_the_papers_table():
    default = {"width": (64, 64), "depth": (2, 2), "initialiser": ("orthogonal",), "activation": "tanh"}
    default["init_seed"] = -1
    default |= {"network": "mlp", "norm": "none", "residual": False, "taper": 1.0}
    assert {name: dataclasses.asdict(value) for name, value in NAMED_DISTRIBUTIONS.items()} == {
        "lambda": default,
        "ortho1": default | {"initialiser": ("orthogonal1",)},
        "xavier": default | {"initialiser": ("xavier",)},
        "xavier1": default | {"initialiser": ("xavier1",)},
        "random-width": default | {"width": (32, 256)},
        "random-depth": default | {"depth": (1, 6)},
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", list(NAMED_DISTRIBUTIONS))
def test_every_named_distribution_parses_and_plays(name: str):
    distribution = parse_distribution(name)
    assert distribution == NAMED_DISTRIBUTIONS[name]
    network = LayeredNetwork(distribution, (4,), DISCRETE)
    (weights,) = draw_all(network, 1)
    output = network.apply(weights, jnp.ones((2, 4)))
    assert np.isfinite(output).all()
    assert np.all(output != 0.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("width=32..256", LearnerDistribution(width=(32, 256))),
        ("width=8", LearnerDistribution(width=(8, 8))),
        ("depth=1..6", LearnerDistribution(depth=(1, 6))),
        ("initialiser=xavier1", LearnerDistribution(initialiser=("xavier1",))),
        ("initialiser=xavier+orthogonal1", LearnerDistribution(initialiser=("xavier", "orthogonal1"))),
        ("activation=relu", LearnerDistribution(activation="relu")),
        ("norm=layer:residual=yes", LearnerDistribution(norm="layer", residual=True)),
        ("residual=no:taper=0.5", LearnerDistribution(taper=0.5)),
        (
            "activation=relu:depth=3:initialiser=xavier:width=1..2",
            LearnerDistribution((1, 2), (3, 3), ("xavier",), "relu"),
        ),
    ],
)
def test_pairs_parse(text: str, expected: LearnerDistribution):
    assert parse_distribution(text) == expected


def test_several_distributions_are_joined_by_commas():
    expected = (LearnerDistribution(), LearnerDistribution(width=(8, 9)), LearnerDistribution(initialiser=("xavier",)))
    assert parse_distributions("lambda,width=8..9,xavier") == expected


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("lamda", "'lamda'"),
        ("lambda:width=3", "'lambda:width=3'"),
        ("width", "'width'"),
        ("width=", "'width='"),
        ("width=wide", "'width=wide'"),
        ("width=3..", "'width=3..'"),
        ("width=-1", "'width=-1'"),
        ("width=1.5", "'width=1.5'"),
        ("width=1..2..3", "'width=1..2..3'"),
        ("width=²", "'width=²'"),
        ("size=3", "'size=3'"),
        ("initialiser=", "'initialiser='"),
        ("activation=", "'activation='"),
        ("width=8:", "'width=8:'"),
        ("width=8\nwidth=9", "width"),
        ("width=0", "width"),
        ("width=9..3", "width"),
        ("width=100000:depth=3", "must take at most 1,000,000,000 numbers"),
        ("width=1..100000:depth=1..2", "got 10,000,000,000: give a smaller width or depth"),
        ("width=1:depth=1001", "depth of the learners must be at least 0 and at most 1000, got 1001"),
        ("depth=0..2", "depth"),
        ("initialiser=he", "initialiser must be one of orthogonal, "),
        ("initialiser=xavier+he", "got 'he'"),
        ("norm=batch", "norm must be one of none, layer, got 'batch'"),
        ("norm=", "'norm='"),
        ("residual=true", "'residual=true'"),
        ("taper=-1", "'taper=-1'"),
        ("taper=0", "taper must be above 0"),
        ("taper=3", "at most 2, got 3"),
        ("any", "Learner distribution any is a mixture of 8, here one is needed: give one of them, such as width="),
        ("norm=layer:width=8..16", "give one width, not a range"),
        ("norm=layer:width=8:depth=4:taper=0.5", "norm=layer needs hidden layers of 2 units or more, got 1"),
        ("taper=0.5:depth=1..2", "give one width and one depth, not ranges"),
        ("taper=0.5:residual=yes", "leave out the taper"),
        ("taper=2:depth=12", "at most 100,000 units, got 131,072: give a smaller taper"),
        ("activation=swish", "activation must be one of tanh, relu, gelu, silu, elu, got 'swish'"),
    ],
)
def test_nonsense_is_refused_in_one_sentence(text: str, named: str):
    with pytest.raises(FloppyError) as refusal:
        parse_distribution(text)
    message = str(refusal.value)
    assert named in message
    assert "\n" not in message
    assert message.endswith(".")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"width": (0, 4)}, "width"),
        ({"width": (5, 4)}, "width"),
        ({"depth": (0, 1)}, "depth"),
        ({"depth": (3, 2)}, "depth"),
        ({"initialiser": ()}, "initialiser must be one of"),
        ({"initialiser": ("orthogonal", "zeros")}, "got 'zeros'"),
        ({"activation": "swish"}, "got 'swish'"),
        ({"network": "convnet-3", "width": (4, 8)}, "give one width"),
    ],
)
def test_distribution_refuses_nonsense_when_built(fields: dict, named: str):
    with pytest.raises(FloppyError) as refusal:
        LearnerDistribution(**fields)
    assert named in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_network_too_large_for_its_observations_is_refused() -> None:
    learners = LearnerDistribution(width=(100_000, 100_000), depth=(1, 1))
    assert learners.bind((4,), Discrete(2)).kernel_shapes == [(4, 100_000), (100_000, 2)]
    with pytest.raises(FloppyError, match="got 2,822,600,000: give a smaller width or depth"):
        learners.bind((84, 84, 4), Discrete(2))


@pytest.mark.slow
def test_the_convolution_against_loops() -> None:
    """The CNN of MinAtar, position by position in plain Python."""
    learners = LearnerDistribution(width=(5, 5), depth=(1, 1), activation="relu", network="minatar-cnn")
    network = LayeredNetwork(learners, (4, 5, 2), Discrete(3))
    assert network.kernel_shapes == [(3, 3, 2, 16), (2 * 3 * 16, 5), (5, 3)]
    assert learners.layers == 3
    (weights,) = draw_all(network, 1)
    random = np.random.default_rng(1)
    layers = tuple(
        {"kernel": layer["kernel"], "bias": jnp.asarray(random.normal(size=layer["bias"].shape), jnp.float32)}
        for layer in weights.layers
    )
    (kernel, bias), (hidden, hidden_bias), (last, last_bias) = (
        (np.asarray(layer["kernel"], np.float64), np.asarray(layer["bias"], np.float64)) for layer in layers
    )
    image = random.normal(size=(4, 5, 2))
    convolved = np.zeros((2, 3, 16))
    for row, column, channel in itertools.product(range(2), range(3), range(16)):
        window = image[row : row + 3, column : column + 3]
        convolved[row, column, channel] = max(0.0, float((window * kernel[..., channel]).sum()) + bias[channel])
    expected = np.maximum(convolved.ravel() @ hidden + hidden_bias, 0.0) @ last + last_bias
    output = network.apply(weights._replace(layers=layers), jnp.asarray(image, jnp.float32)[None])
    np.testing.assert_allclose(output[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_the_kernel_of_the_convolution_is_orthogonal() -> None:
    network = LayeredNetwork(LearnerDistribution(network="minatar-cnn"), (10, 10, 4), Discrete(3))
    (weights,) = draw_all(network, 1)
    matrix = weights.layers[0]["kernel"].reshape(36, 16)
    np.testing.assert_allclose(matrix.T @ matrix, 2.0 * np.eye(16), atol=1e-4)


def test_the_convolution_needs_images() -> None:
    with pytest.raises(FloppyError, match="network=mlp"):
        LayeredNetwork(LearnerDistribution(network="minatar-cnn"), (4,), Discrete(2)).init(jax.random.key(0))


@pytest.mark.thorough
@pytest.mark.slow
def test_the_nature_cnn_against_xlas_convolutions() -> None:
    learners = parse_distribution(NATURE_DISTRIBUTION)
    network = LayeredNetwork(dataclasses.replace(learners, width=(5, 5)), (44, 36, 2), Discrete(3))
    shapes = [(8, 8, 2, 32), (4, 4, 32, 64), (3, 3, 64, 64), (2 * 1 * 64, 5), (5, 3)]
    assert network.kernel_shapes == shapes
    assert learners.layers == 5
    keys = jax.random.split(jax.random.key(0), 6)
    layers = tuple(
        {"kernel": 0.1 * jax.random.normal(key, shape), "bias": jnp.full(shape[-1], 0.1)}
        for key, shape in zip(keys, shapes, strict=False)
    )
    frames = jax.random.normal(keys[5], (3, 44, 36, 2))

    def expected(frames: jax.Array) -> jax.Array:
        hidden = frames.transpose(0, 3, 1, 2)  # channels second throughout
        for layer, stride in zip(layers, (4, 2, 1), strict=False):
            kernel, strides = layer["kernel"].transpose(3, 2, 0, 1), (stride, stride)
            hidden = jax.lax.conv(hidden, kernel, strides, "VALID") + layer["bias"][None, :, None, None]
            hidden = jax.nn.relu(hidden)
        hidden = hidden.transpose(0, 2, 3, 1).reshape(3, -1)
        hidden = jax.nn.relu(hidden @ layers[3]["kernel"] + layers[3]["bias"][None])
        return hidden @ layers[4]["kernel"] + layers[4]["bias"][None]

    weights = Weights(layers, (jnp.zeros(()),) * 5, jnp.zeros(0))
    np.testing.assert_allclose(network.apply(weights, frames), expected(frames), rtol=1e-3, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "shapes"),
    [
        ("network=hades-cnn:depth=1:width=5", [(3, 3, 2, 16), (9 * 7 * 16, 5), (5, 3)]),
        ("network=convnet-3:depth=0:width=12", [(3, 3, 2, 12), (3, 3, 12, 12), (3, 3, 12, 12), (12, 3)]),
    ],
)
def test_networks_for_labelled_images_against_xla(text: str, shapes: list[tuple[int, ...]]) -> None:
    learners = parse_distribution(f"{text}:activation=relu")
    network = LayeredNetwork(learners, (9, 8, 2) if learners.depth == (0, 0) else (9, 7, 2), Discrete(3))
    assert network.kernel_shapes == shapes
    assert learners.layers == len(shapes)
    keys = jax.random.split(jax.random.key(0), len(shapes) + 1)
    layers = tuple(
        {"kernel": 0.1 * jax.random.normal(key, shape), "bias": jnp.linspace(-0.1, 0.1, shape[-1])}
        for key, shape in zip(keys, shapes, strict=False)
    )
    images = jax.random.normal(keys[-1], (3, *network.observation_shape))

    @jax.jit
    def expected() -> jax.Array:
        hidden = images.transpose(0, 3, 1, 2)  # channels second throughout
        for layer in layers[: len(shapes) - 1 - learners.depth[0]]:
            hidden = jax.lax.conv(hidden, layer["kernel"].transpose(3, 2, 0, 1), (1, 1), "SAME")
            if learners.network == "convnet-3":
                deviation = jnp.sqrt(jnp.var(hidden, axis=(2, 3), keepdims=True) + 1e-5)
                hidden = (hidden - jnp.mean(hidden, axis=(2, 3), keepdims=True)) / deviation
            hidden = jax.nn.relu(hidden + layer["bias"][None, :, None, None])
            if learners.network == "convnet-3":
                hidden = jax.lax.reduce_window(hidden, 0.0, jax.lax.add, (1, 1, 2, 2), (1, 1, 2, 2), "VALID") / 4.0
        hidden = hidden.transpose(0, 2, 3, 1).reshape(3, -1)
        for layer in layers[len(shapes) - 1 - learners.depth[0] : -1]:
            hidden = jax.nn.relu(hidden @ layer["kernel"] + layer["bias"][None])
        return hidden @ layers[-1]["kernel"] + layers[-1]["bias"][None]

    weights = Weights(layers, (jnp.zeros(()),) * len(layers), jnp.zeros(0))
    np.testing.assert_allclose(jax.jit(network.apply)(weights, images), expected(), rtol=1e-3, atol=1e-4)


def test_a_network_without_hidden_layers_is_linear() -> None:
    network = LayeredNetwork(parse_distribution("depth=0:initialiser=lecun"), (2, 3), Discrete(4))
    (weights,) = draw_all(network, 1)
    assert network.kernel_shapes == [(6, 4)]
    observations = np.random.default_rng(0).normal(size=(5, 2, 3)).astype(np.float32)
    expected = observations.reshape(5, 6) @ np.asarray(weights.layers[0]["kernel"])
    np.testing.assert_allclose(network.apply(weights, observations), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("shape", "order"), [((35, 84, 4), "at least 36 x 36"), ((84, 84), "rows, columns, channels")])
def test_the_nature_cnn_needs_frames_that_are_large_enough(shape: tuple[int, ...], order: str) -> None:
    with pytest.raises(FloppyError, match=order):
        LayeredNetwork(parse_distribution(NATURE_DISTRIBUTION), shape, Discrete(2)).init(jax.random.key(0))


def test_an_unknown_network_is_refused() -> None:
    with pytest.raises(FloppyError, match=r"network must be one of mlp, minatar-cnn, nature-cnn, .*got 'transformer'"):
        parse_distribution("network=transformer")
