"""Policies from a dataset: the weights of one step by hand, other learners, and cards that cannot be used."""

import dataclasses
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import hand_dataset

from floppy.cloning import AdamSteps, GradientStep
from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution
from floppy.spaces import Continuous, Discrete
from floppy.teach.codec import unpack
from floppy.teach.policies import policy_outputs, train

pytestmark = pytest.mark.slow

KEY = jax.random.key(5)
NARROW = LearnerDistribution(width=(8, 8), initialiser=("xavier1",))
"""Learners that are cheap to draw; always two of them, so that cloning them is compiled once."""
ACTIVATIONS = {"tanh": (np.tanh, lambda h: 1 - h**2), "relu": (lambda x: np.maximum(x, 0), lambda h: h > 0)}
"""Each with its derivative as a function of its value."""


def card_of(distribution: LearnerDistribution, **changes: Any) -> dict[str, Any]:
    return {"learners": [dataclasses.asdict(distribution)], **changes}


def forward(layers: list[Any], x: np.ndarray, activation: str) -> list[np.ndarray]:
    """Input, hidden activations and output."""
    values = [x]
    for index, layer in enumerate(layers):
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)
        x = ACTIVATIONS[activation][0](x) if index < len(layers) - 1 else x
        values.append(x)
    return values


def step_by_hand(layers: list[Any], dataset: DistilledDataset, activation: str, fixed: int = 0) -> list[Any]:
    """One gradient step of the card's loss by backpropagation in float64; the first `fixed` layers stay."""
    values = forward(layers, dataset.observations.astype(np.float64), activation)
    output, targets = values[-1], dataset.targets
    if dataset.card.cloning["loss"] == "mse":
        slope = 2 * (output - targets) / targets.size
    else:
        p = np.exp(output) / np.exp(output).sum(axis=1, keepdims=True)
        slope = (p * targets.sum(axis=1, keepdims=True) - targets) / len(targets)
    stepped = list(layers)
    for index in reversed(range(fixed, len(layers))):
        kernel, bias = (np.asarray(layers[index][name], np.float64) for name in ("kernel", "bias"))
        rate = float(dataset.inner_rate)
        stepped[index] = {"kernel": kernel - rate * values[index].T @ slope, "bias": bias - rate * slope.sum(axis=0)}
        slope = slope @ kernel.T * ACTIVATIONS[activation][1](values[index])
    return stepped


def fresh_layers(network: LayeredNetwork, learners: int) -> list[list[Any]]:
    """The layers of each learner before cloning."""
    drawn = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, learners))
    return [list(jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), drawn.layers)) for i in range(learners)]


def assert_layers(weights: Any, learner: int, wanted: list[Any]) -> None:
    for layer, by_hand in zip(weights.layers, wanted, strict=True):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(layer[name][learner], by_hand[name], rtol=1e-4, atol=1e-6)


@pytest.mark.thorough(all_but=["relu", "cross-entropy"])
@pytest.mark.parametrize(
    ("distribution", "loss"),
    [
        (LearnerDistribution(), "mse"),
        (LearnerDistribution(width=(16, 16), depth=(1, 1), initialiser=("xavier1",), activation="relu"), "mse"),
        (NARROW, "cross-entropy"),
    ],
    ids=["lambda", "relu", "cross-entropy"],
)
def test_one_step_equals_one_by_hand(distribution: LearnerDistribution, loss: str) -> None:
    cloning = {"kind": "GradientStep", "loss": loss, "steps": 1}
    targets = np.random.default_rng(1).dirichlet(np.ones(2), size=3)
    dataset = hand_dataset(card_of(distribution, cloning=cloning), targets=targets)
    policies = train(dataset, KEY, learners=2)
    assert policies.network == LayeredNetwork(distribution, (4,), Discrete(2))
    assert policies.statistics is None
    for learner, layers in enumerate(fresh_layers(policies.network, 2)):
        wanted = step_by_hand(layers, dataset, distribution.activation)
        assert np.abs(wanted[-1]["kernel"] - layers[-1]["kernel"]).max() > 1e-3
        assert_layers(policies.weights, learner, wanted)
        observations = np.random.default_rng(2).normal(size=(2, 5, 4)).astype(np.float32)
        by_hand = forward(wanted, observations[learner], distribution.activation)[-1]
        np.testing.assert_allclose(policy_outputs(policies, observations)[learner], by_hand, rtol=1e-3, atol=1e-5)


def test_several_steps_are_several_single_ones() -> None:
    cloning = {"kind": "GradientStep", "loss": "mse", "steps": 3}
    dataset = hand_dataset(card_of(NARROW, cloning=cloning))
    policies = train(dataset, KEY, learners=2)
    for learner, wanted in enumerate(fresh_layers(policies.network, 2)):
        for _ in range(3):
            wanted = step_by_hand(wanted, dataset, "tanh")
        assert_layers(policies.weights, learner, wanted)


def test_the_log_deviations_of_continuous_policies_are_cloned() -> None:
    actions = {"kind": "continuous", "size": 2, "low": [-1.0, -2.0], "high": [1.0, 2.0]}
    log_std = np.array([-0.5, 0.25])
    dataset = hand_dataset(card_of(NARROW, actions=actions), log_std=log_std, inner_rate=0.1)
    policies = train(dataset, KEY, learners=2)
    assert policies.network.actions == unpack(dataset).actions == Continuous(2, (-1.0, -2.0), (1.0, 2.0))
    # From 0, the mean of (0 - target)² over both dimensions has the slope -target.
    np.testing.assert_allclose(policies.weights.log_std, np.tile(0.1 * log_std, (2, 1)), rtol=1e-5)
    for learner, layers in enumerate(fresh_layers(policies.network, 2)):
        assert_layers(policies.weights, learner, step_by_hand(layers, dataset, "tanh"))


def test_the_first_distribution_on_the_card_is_the_default() -> None:
    wide = dataclasses.replace(NARROW, width=(12, 12))
    dataset = hand_dataset({"learners": [dataclasses.asdict(NARROW), dataclasses.asdict(wide)]})
    assert unpack(dataset).learners == (NARROW, wide)
    assert train(dataset, KEY, learners=2).network.distribution == NARROW


@pytest.mark.thorough
def test_learners_of_random_architecture() -> None:
    distribution = LearnerDistribution(width=(3, 8), depth=(1, 3), initialiser=("xavier1",))
    policies = train(hand_dataset(), KEY, learners=24, distribution=distribution)
    assert [layer["kernel"].shape for layer in policies.weights.layers] == [
        (24, 4, 8),
        (24, 8, 8),
        (24, 8, 8),
        (24, 8, 2),
    ]
    used = [np.any(np.asarray(layer["kernel"]) != 0, axis=1) for layer in policies.weights.layers[:-1]]
    widths = used[0].sum(axis=1)
    assert set(widths) <= set(range(3, 9))
    assert len(set(widths)) > 2
    for layer in used:
        # What a narrower network lacks stays zero through cloning.
        np.testing.assert_array_equal(layer, np.arange(8) < widths[:, None])
    skip = np.stack(policies.weights.skip)
    assert set(skip.sum(axis=0)) == {0.0, 1.0, 2.0}
    outputs = np.asarray(policy_outputs(policies, jnp.ones((24, 5, 4))))
    for wrong in ((5, 4), (24, 4), (24, 5, 3), (1, 5, 4)):
        with pytest.raises(FloppyError, match=r"k of each policy's, \[24, k, 4\]"):
            policy_outputs(policies, jnp.ones(wrong))
    assert outputs.shape == (24, 5, 2)
    assert np.isfinite(outputs).all()
    for learner in range(24):
        kept = [
            {name: np.asarray(array[learner]) for name, array in layer.items()}
            for layer, left_out in zip(policies.weights.layers, skip[:, learner], strict=True)
            if not left_out
        ]
        np.testing.assert_allclose(outputs[learner], forward(kept, np.ones((5, 4)), "tanh")[-1], rtol=1e-3, atol=1e-5)


def test_learners_depend_on_the_key_alone_and_differ() -> None:
    dataset = hand_dataset(card_of(NARROW))
    first, again, other = (train(dataset, key, learners=2).weights for key in (KEY, KEY, jax.random.key(6)))
    assert jax.tree.all(jax.tree.map(np.array_equal, first, again))
    kernel, elsewhere = np.asarray(first.layers[0]["kernel"]), np.asarray(other.layers[0]["kernel"])
    assert not np.array_equal(kernel[0], kernel[1])
    assert not np.array_equal(kernel, elsewhere)


def test_observations_are_normalised_by_the_files_statistics() -> None:
    statistics = {"obs_mean": np.array([1.0, 0.0, -1.0, 2.0]), "obs_var": np.array([4.0, 1.0, 0.25, 1e-12])}
    dataset = hand_dataset(card_of(NARROW, normaliser="frozen"), **statistics)
    policies = train(dataset, KEY, learners=2)
    # The examples are in normalised units already: cloning leaves them alone.
    wanted = step_by_hand(fresh_layers(policies.network, 2)[0], dataset, "tanh")
    assert_layers(policies.weights, 0, wanted)
    scaled = np.array([[1.0, -2.0, 0.5, 10.0], [-1.0, 10.0, -10.0, -10.0]])
    raw = np.array([[3.0, -2.0, -0.75, 2.1], [-1.0, 99.0, -50.0, 1.9]], np.float32)
    np.testing.assert_allclose(
        policy_outputs(policies, np.stack([raw, raw]))[0], forward(wanted, scaled, "tanh")[-1], rtol=1e-3, atol=1e-5
    )


# --- encoders ---


def encoder_of(*sizes: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    return {
        f"{index}/{name}": random.normal(size=shape) / 2
        for index, (rows, columns) in enumerate(itertools.pairwise(sizes))
        for name, shape in (("kernel", (rows, columns)), ("bias", columns))
    }


def as_layers(encoder: dict[str, np.ndarray]) -> list[Any]:
    return [{name: encoder[f"{index}/{name}"] for name in ("kernel", "bias")} for index in range(len(encoder) // 2)]


@pytest.mark.parametrize("layers", [1, 2])
def test_an_encoder_stays_and_the_other_layers_learn(layers: int) -> None:
    encoder = encoder_of(4, *(8,) * layers)
    dataset = hand_dataset(card_of(NARROW, encoder={"layers": layers, "of": 3}), encoder=encoder)
    policies = train(dataset, KEY, learners=2)
    for learner, drawn in enumerate(fresh_layers(policies.network, 2)):
        start = as_layers(dataset.encoder) + drawn[layers:]
        assert_layers(policies.weights, learner, step_by_hand(start, dataset, "tanh", fixed=layers))


def test_a_plain_policy_is_its_encoder() -> None:
    encoder = encoder_of(4, 8, 8, 2)
    nothing = {"observations": np.zeros((0, 4)), "targets": np.zeros((0, 2))}
    dataset = hand_dataset(card_of(NARROW, encoder={"layers": 3, "of": 3}), encoder=encoder, **nothing)
    policies = train(dataset, KEY, learners=3)
    observations = np.random.default_rng(4).normal(size=(5, 4))
    wanted = forward(as_layers(encoder), observations, "tanh")[-1]
    outputs = policy_outputs(policies, jnp.asarray(np.stack([observations] * 3), jnp.float32))
    np.testing.assert_allclose(outputs, np.stack([wanted] * 3), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    "distribution",
    [
        dataclasses.replace(NARROW, width=(9, 9)),
        dataclasses.replace(NARROW, width=(8, 9)),
        dataclasses.replace(NARROW, depth=(2, 3)),
        dataclasses.replace(NARROW, depth=(1, 1)),
    ],
    ids=["other width", "random width", "random depth", "too shallow"],
)
def test_an_encoder_refuses_learners_of_another_architecture(distribution: LearnerDistribution) -> None:
    dataset = hand_dataset(card_of(NARROW, encoder={"layers": 2, "of": 3}), encoder=encoder_of(4, 8, 8))
    assert unpack(dataset).network(NARROW).distribution == NARROW
    message = refusal(lambda: train(dataset, KEY, distribution=distribution))
    assert "encoder" in message
    assert "architecture" in message


# --- refusals ---


def refusal(attempt: Any) -> str:
    """The sentence with which something is refused."""
    with pytest.raises(FloppyError) as caught:
        attempt()
    message = str(caught.value)
    assert "\n" not in message
    assert message[-1] in ".?"
    return message


def test_a_dataset_knows_its_task() -> None:
    assert unpack(hand_dataset()).task().task_id == "ndcartpole/1"


CONTINUOUS = {"kind": "continuous", "size": 2, "low": [-1.0, -1.0], "high": [1.0, 1.0]}


@pytest.mark.parametrize(
    ("card", "sizes"),
    [({}, (8, 2)), ({}, (4, 3)), ({"task": "ndcartpole/2"}, (4, 2)), ({"actions": CONTINUOUS}, (4, 2))],
    ids=["observations", "actions", "dimensions", "kind of actions"],
)
def test_a_dataset_that_does_not_fit_its_task_is_refused(card: dict[str, Any], sizes: tuple[int, int]) -> None:
    assert "the same spaces" in refusal(lambda: unpack(hand_dataset(card, sizes=sizes)).task())


def test_a_dataset_of_an_unknown_task_is_refused() -> None:
    message = refusal(lambda: unpack(hand_dataset({"task": "ndcartpol/1"})).task())
    assert "'ndcartpol/1', which is not registered here: give --import MODULE" in message


@pytest.mark.parametrize(
    ("entry", "wanted"),
    [
        ({"kind": "GradientStep", "loss": "cross-entropy", "steps": 2}, GradientStep("cross-entropy", 2)),
        ({"kind": "GradientStep"}, GradientStep()),
        ({"kind": "AdamSteps", "loss": "mse", "steps": 7, "anneal": True}, AdamSteps("mse", 7, anneal=True)),
    ],
)
def test_the_cloning_recipe_is_the_cards(entry: dict[str, Any], wanted: GradientStep | AdamSteps) -> None:
    assert unpack(hand_dataset({"cloning": entry})).cloning == wanted


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"kind": "Sgd"}, "Sgd: this version knows GradientStep, AdamSteps"),
        ({"kind": "GradientStep", "nesterov": 1, "warmup": 1}, "unknown keys nesterov, warmup"),
        ({"kind": "GradientStep", "steps": 0}, "steps"),
        ({"kind": "GradientStep", "steps": "many"}, "card's cloning recipe"),
        ({"kind": "GradientStep", "loss": "gaussian-nll"}, "one of mse, cross-entropy"),
        ({"kind": "GradientStep", "loss": "hinge"}, "one of mse, cross-entropy"),
    ],
)
def test_an_unknown_cloning_recipe_is_refused(entry: dict[str, Any], said: str) -> None:
    dataset = hand_dataset({"cloning": entry})
    assert said in refusal(lambda: train(dataset, KEY))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"breadth": [64, 64]}, "unknown keys breadth"),
        ({"width": [64, 32]}, "width"),
        ({"width": 64}, "card's learner distribution"),
        ({"width": [1, 2, 3]}, "card's learner distribution"),
        ({"initialiser": ["zeros"]}, "one of"),
        ({"initialiser": []}, "one of"),
        ({"activation": "sine"}, "one of tanh, relu"),
    ],
)
def test_an_unknown_learner_distribution_is_refused(entry: dict[str, Any], said: str) -> None:
    dataset = hand_dataset({"learners": [entry]})
    assert said in refusal(lambda: train(dataset, KEY))


@pytest.mark.parametrize("learners", [0, -1])
def test_no_learners_are_refused(learners: int) -> None:
    assert "at least 1" in refusal(lambda: train(hand_dataset(), KEY, learners=learners))


def test_a_normaliser_per_evaluation_gives_no_statistics() -> None:
    dataset = hand_dataset(card_of(NARROW, normaliser="per-evaluation"))
    policies = train(dataset, KEY, learners=2)
    assert policies.statistics is None
    # The examples are in normalised units already: the learners are those of any other dataset.
    for learner, layers in enumerate(fresh_layers(policies.network, 2)):
        assert_layers(policies.weights, learner, step_by_hand(layers, dataset, "tanh"))
