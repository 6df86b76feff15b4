"""Datasets that the HaDES paper published: their `.npz` files say by themselves what they are and how to use them."""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from probes import QUICK

from floppy.cloning import AdamSteps
from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate
from floppy.learner.initialisers import flax_orthogonal
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution
from floppy.tasks import Continuous, make_task
from floppy.teach.arrays import import_npz
from floppy.teach.codec import card_cloning, card_learners, unpack
from floppy.teach.policies import train

FOLDER = Path(__file__).parents[2] / "shared/reference/hades"
NEEDS_FILES = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the published datasets are not here ({FOLDER})")

HOPPER_R = "brax/hopper-HaDES-R-d64-w512-seed0.npz"
HOPPER_F = "brax/hopper-HaDES-F-d64-w512-seed0.npz"
HOPPER_D4 = "brax-d4-constnorm/hopper-HaDES-R-d4-w512-seed1.npz"
BREAKOUT_R = "minatar-2k/Breakout-MinAtar-HaDES-R-d16-w512-seed0.npz"
BREAKOUT_F = "minatar-2k/Breakout-MinAtar-HaDES-F-d16-w512-seed0.npz"
ALL = (HOPPER_R, HOPPER_F, HOPPER_D4, BREAKOUT_R, BREAKOUT_F)

HOPPER_CLONING = AdamSteps(loss="gaussian-nll", steps=200, max_grad_norm=0.5, eps=1e-5, eps_root=0.0)
BREAKOUT_CLONING = AdamSteps(loss="cross-entropy", steps=64, max_grad_norm=0.0, eps=1e-5, eps_root=0.0)

pytestmark = pytest.mark.usefixtures("quick_compile")


def published(name: str, **options: Any) -> Any:
    """The dataset, and the file's own arrays."""
    if name.startswith("brax"):
        pytest.importorskip("brax", reason="Brax is an optional dependency: pip install 'floppy-rl[brax]'")
    with np.load(FOLDER / name) as archive:
        return import_npz(FOLDER / name, **options), dict(archive)


# --- what the file says ---


@NEEDS_FILES
@pytest.mark.parametrize(
    ("name", "task", "examples", "cloning", "rate", "distribution", "normaliser"),
    [
        (HOPPER_R, "brax/hopper", 64, HOPPER_CLONING, 0.005, {"activation": "tanh"}, "per-evaluation"),
        (
            HOPPER_F,
            "brax/hopper",
            64,
            HOPPER_CLONING,
            0.005,
            {"activation": "tanh", "initialiser": ("flax-orthogonal",), "init_seed": 420},
            "per-evaluation",
        ),
        (HOPPER_D4, "brax/hopper", 4, HOPPER_CLONING, 0.005, {"activation": "tanh"}, "frozen"),
        (BREAKOUT_R, "gymnax/Breakout-MinAtar", None, BREAKOUT_CLONING, 0.03, {"activation": "relu"}, "frozen"),
        (
            BREAKOUT_F,
            "gymnax/Breakout-MinAtar",
            15,
            BREAKOUT_CLONING,
            0.03,
            {"activation": "relu", "initialiser": ("flax-orthogonal",), "init_seed": 420},
            "frozen",
        ),
    ],
    ids=["hopper-R", "hopper-F", "hopper-d4", "Breakout-R", "Breakout-F"],
)
def test_a_published_file_fills_the_card(
    name: str,
    task: str,
    examples: int | None,
    cloning: AdamSteps,
    rate: float,
    distribution: dict[str, Any],
    normaliser: str,
) -> None:
    dataset, arrays = published(name)
    meta = json.loads(str(arrays["meta"]))
    card = dataset.card
    assert card.task == task
    assert card_cloning(dataset) == cloning
    assert dataset.inner_rate == np.float32(rate)
    assert card_learners(dataset) == (LearnerDistribution(width=(512, 512), **distribution),)
    assert card.normaliser == normaliser
    assert card.algorithm == {"name": "import", "config": {"file": Path(name).name}}
    assert card.reference_score == {"final_mean_fitness": meta["final_mean_fitness"], "fitness": meta["fitness"]}
    assert card.notes == f"Published by the HaDES paper: {meta['source_repository']}, {meta['source_file']}"
    # The mean of the search at its end, not the best sample.
    assert dataset.examples == len(arrays["observations"]) == (examples or dataset.examples)
    shape = make_task(task).observation_shape
    np.testing.assert_array_equal(dataset.observations, arrays["observations"].reshape(-1, *shape))
    np.testing.assert_array_equal(dataset.targets, arrays["actions"])
    if normaliser == "frozen":
        np.testing.assert_array_equal(dataset.obs_mean, arrays["obs_mean"].reshape(shape))
        np.testing.assert_array_equal(dataset.obs_var, arrays["obs_var"].reshape(shape))
    else:
        assert dataset.obs_mean is None
        assert unpack(dataset).statistics is None


@NEEDS_FILES
def test_what_is_asked_for_comes_before_what_the_file_says() -> None:
    cloning = AdamSteps(loss="mse", steps=3)
    dataset, _ = published(
        BREAKOUT_F, cloning=cloning, rate=0.5, distribution="width=32:activation=relu", normaliser="none", notes="mine"
    )
    assert card_cloning(dataset) == cloning
    assert dataset.inner_rate == 0.5
    assert card_learners(dataset) == (LearnerDistribution(width=(32, 32), activation="relu"),)
    assert (dataset.card.normaliser, dataset.card.notes, dataset.obs_mean) == ("none", "mine", None)
    with pytest.raises(FloppyError, match="give the task that it was distilled for"):
        published(BREAKOUT_F, task="gymnax/Asterix-MinAtar")


@NEEDS_FILES
@pytest.mark.parametrize("name", ALL)
def test_a_published_dataset_survives_its_file(name: str, tmp_path: Path) -> None:
    dataset, _ = published(name)
    save(dataset, tmp_path / "dataset.safetensors")
    again = load(tmp_path / "dataset.safetensors")
    assert again.card == dataset.card
    assert card_learners(again) == card_learners(dataset)
    for tensor, values in dataset.numpy().items():
        np.testing.assert_array_equal(again.numpy()[tensor], values)


@pytest.mark.slow
@NEEDS_FILES
def test_fresh_learners_learn_the_published_labels() -> None:
    dataset, arrays = published(BREAKOUT_F)
    policies = train(dataset, jax.random.key(1))
    outputs = policies.network.apply(jax.tree.map(lambda leaf: leaf[0], policies.weights), dataset.observations)
    labels = np.argmax(arrays["actions"], axis=1)
    np.testing.assert_array_equal(np.argmax(outputs, axis=1), labels)
    assert set(labels.tolist()) == {0, 1, 2}


@NEEDS_FILES
@pytest.mark.slow
def test_a_published_dataset_reaches_its_published_fitness() -> None:
    dataset, arrays = published(HOPPER_D4)
    reached = evaluate(dataset, distributions=["card"], learners=2, episodes=2)["card"]
    meta = json.loads(str(arrays["meta"]))
    # Over the population of the last ten generations; fresh learners of the mean itself do a little better.
    assert reached.mean == pytest.approx(meta["mean_last10"], rel=0.05)


# --- the learners of HaDES-F ---


SIZES = (11, 512, 512, 3)


@pytest.fixture(scope="module")
def kernels() -> tuple[np.ndarray, ...]:
    pytest.importorskip("flax", reason="flax comes with evosax")
    return flax_orthogonal(420, SIZES)


@pytest.mark.slow
def test_the_kernels_of_a_seed_are_orthogonal(kernels: tuple[np.ndarray, ...]) -> None:
    assert [kernel.shape for kernel in kernels] == [(11, 512), (512, 512), (512, 3)]
    for kernel, gain in zip(kernels, (2**0.5, 2**0.5, 0.01), strict=True):
        wide = kernel if kernel.shape[0] <= kernel.shape[1] else kernel.T
        np.testing.assert_allclose(wide @ wide.T, gain**2 * np.eye(len(wide)), atol=1e-5 * gain**2)


def test_the_kernels_of_a_seed_are_always_the_same(kernels: tuple[np.ndarray, ...]) -> None:
    for kernel, again in zip(kernels, flax_orthogonal.__wrapped__(420, SIZES), strict=True):
        np.testing.assert_array_equal(kernel, again)
    for kernel, other in zip(kernels, flax_orthogonal(421, SIZES), strict=True):
        assert (kernel != other).mean() > 0.99
    before = jax.config.jax_threefry_partitionable
    for partitionable in (False, True):
        with jax.threefry_partitionable(partitionable):
            for kernel, again in zip(kernels, flax_orthogonal.__wrapped__(420, SIZES), strict=True):
                np.testing.assert_array_equal(kernel, again)
    assert jax.config.jax_threefry_partitionable == before


def test_the_kernels_of_a_seed_are_those_that_the_published_datasets_were_made_for(
    kernels: tuple[np.ndarray, ...],
) -> None:
    # From flax itself, in JAX's former form of random numbers; HaDES-F fails with any other draw.
    first = [[-0.0136298, 0.1324074, 0.0335627], [0.0413987, -0.055329, 0.0530853], [-0.0004053, -0.0006173, 0.0000601]]
    for kernel, wanted in zip(kernels, first, strict=True):
        np.testing.assert_allclose(kernel[0, :3], wanted, atol=2e-6)


def test_a_network_of_one_draw_has_these_kernels(kernels: tuple[np.ndarray, ...]) -> None:
    distribution = LearnerDistribution(width=(512, 512), initialiser=("flax-orthogonal",), init_seed=420)
    network = LayeredNetwork(distribution, (11,), Continuous(3, (-1.0,) * 3, (1.0,) * 3))
    drawn = jax.jit(jax.vmap(network.init), compiler_options=QUICK)(jax.random.split(jax.random.key(7), 2))
    for layer, kernel in zip(drawn.layers, kernels, strict=True):
        for learner in range(2):
            np.testing.assert_array_equal(layer["kernel"][learner], kernel)
        assert not layer["bias"].any()
    assert not drawn.log_std.any()
