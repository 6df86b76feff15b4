"""A policy as an ONNX model puts out what it puts out here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import floppy
from floppy.errors import FloppyError
from floppy.learner.activations import ACTIVATIONS
from floppy.learner.cnn import CONVOLUTIONS
from floppy.learner.mlp import LearnerDistribution, Weights
from floppy.play.normalise import normalise, restored_statistics
from floppy.spaces import Continuous, Discrete
from floppy.teach.policies import Policy, as_policies

onnx = pytest.importorskip("onnx", reason="onnx is not installed (extra [onnx])")

BOX = Continuous(2, (-2.0, 0.0), (2.0, 10.0))


def policy_of(
    shape: tuple[int, ...], actions: Any, *, normalised: bool = True, **distribution: Any
) -> tuple[Policy, np.ndarray]:
    """A policy with random biases, of which fresh ones have none, and observations of which a few are clipped."""
    network = LearnerDistribution(**distribution).bind(shape, actions)
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype(np.float32)

    layers = tuple(
        {"kernel": draw(*kernel) / np.float32(np.prod(kernel[:-1]) ** 0.5), "bias": draw(kernel[-1])}
        for kernel in network.kernel_shapes
    )
    skip = (np.float32(0.0),) * len(layers)
    weights: Any = Weights(layers, skip, np.linspace(-1.0, 0.5, actions.log_std_size, dtype=np.float32))  # type: ignore[arg-type]
    statistics = restored_statistics(draw(*shape), draw(*shape) ** 2) if normalised else None
    observations = draw(3, *shape)
    observations[0] *= 100.0
    return Policy(network, weights, statistics, task="a task"), observations


def outputs_of(path: Path, observations: np.ndarray) -> list[np.ndarray]:
    from onnx.reference import ReferenceEvaluator

    return list(ReferenceEvaluator(str(path)).run(None, {"observations": observations}))


def expected(policy: Policy, observations: np.ndarray) -> np.ndarray:
    """Logits, or means in the task's units, by floppy."""

    @jax.jit
    def outputs(weights: Any, observations: Any) -> Any:
        found = policy.network.apply(weights, normalise(policy.statistics, observations))
        actions = policy.network.actions
        return actions.of_task(found) if isinstance(actions, Continuous) else found

    return np.asarray(outputs(policy.weights, observations))


def check(policy: Policy, observations: np.ndarray, path: Path) -> list[np.ndarray]:
    floppy.onnx.export(policy, path)
    found = outputs_of(path, observations)
    np.testing.assert_allclose(found[0], expected(policy, observations), rtol=1e-4, atol=1e-4)
    return found


@pytest.mark.thorough(all_but=["gelu"])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_dense_networks(activation: str, tmp_path: Path) -> None:
    given = policy_of((4,), Discrete(3), width=(8, 8), depth=(2, 2), activation=activation)
    assert len(check(*given, tmp_path / "policy.onnx")) == 1


@pytest.mark.thorough(all_but=["convnet-3", "nature-cnn"])
@pytest.mark.parametrize("network", [name for name in CONVOLUTIONS if name != "mlp"])
def test_convolutions(network: str, tmp_path: Path) -> None:
    side = 36 if network == "nature-cnn" else 9
    given = policy_of((side, side, 2), Discrete(3), width=(8, 8), depth=(1, 1), network=network, activation="relu")
    check(*given, tmp_path / "policy.onnx")


@pytest.mark.parametrize("actions", [BOX, BOX.in_units], ids=["raw", "units"])
def test_continuous_actions_are_in_the_units_of_the_task(actions: Continuous, tmp_path: Path) -> None:
    path = tmp_path / "policy.onnx"
    policy, observations = policy_of((4,), actions, width=(8, 8), depth=(1, 1), normalised=False)
    _, std = check(policy, observations, path)
    half = np.array([2.0, 5.0]) if actions.half_width else 1.0
    np.testing.assert_allclose(std, np.exp([-1.0, 0.5]) * half, rtol=1e-6)
    properties = {each.key: each.value for each in onnx.load(path).metadata_props}
    assert properties["task"] == "a task"
    assert json.loads(properties["actions"]) == actions.as_entry()


def test_layers_that_a_policy_leaves_out_are_not_written(tmp_path: Path) -> None:
    policy, observations = policy_of((4,), Discrete(2), width=(3, 8), depth=(1, 3))
    skip = tuple(map(np.float32, (0, 1, 0, 0)))
    weights = policy.weights._replace(skip=skip)
    check(dataclasses.replace(policy, weights=weights), observations, path := tmp_path / "policy.onnx")
    assert sum(node.op_type == "Tanh" for node in onnx.load(path).graph.node) == 2


def test_images_without_convolutions_are_flattened(tmp_path: Path) -> None:
    check(*policy_of((3, 2, 2), Discrete(2), width=(4, 4), depth=(1, 1)), tmp_path / "policy.onnx")


def test_no_hidden_layer(tmp_path: Path) -> None:
    check(*policy_of((4,), Discrete(2), depth=(0, 0)), tmp_path / "policy.onnx")


def test_what_is_no_such_policy_is_refused(tmp_path: Path) -> None:
    policy, _ = policy_of((4,), Discrete(2), width=(4, 4), depth=(1, 1))
    path, policies = tmp_path / "policy.onnx", as_policies(policy, "")
    with pytest.raises(FloppyError, match="policy must be one Policy, such as"):
        floppy.onnx.export(policies, path)
    with pytest.raises(FloppyError, match="ONNX needs a network that is a plain stack of floppy's own layers"):
        floppy.onnx.export(policies.together(), path)
    with pytest.raises(FloppyError, match="with_statistics"):
        floppy.onnx.export(dataclasses.replace(policy, per_evaluation_stats=True), path)
    assert not path.exists()
    floppy.onnx.export(policy, path)
    whole = path.read_bytes()
    with pytest.raises(FloppyError, match="exists already"):
        floppy.onnx.export(policy, path)
    floppy.onnx.export(policy, path, overwrite=True)
    assert path.read_bytes() == whole, "the same policy is the same bytes"
