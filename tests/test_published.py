"""Datasets that the HaDES paper published: their `.npz` files say by themselves what they are and how to use them."""

import json
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

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
from floppy.teach.published import read_published

FOLDER = Path(__file__).parents[2] / "shared/reference/hades"
CASES = Path(__file__).parents[2] / "shared/cases"
NEEDS_FILES = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"the published datasets are not here ({FOLDER})")

HOPPER_R = "brax/hopper-HaDES-R-d64-w512-seed0.npz"
HOPPER_F = "brax/hopper-HaDES-F-d64-w512-seed0.npz"
HOPPER_D4 = "brax-d4-constnorm/hopper-HaDES-R-d4-w512-seed1.npz"
BREAKOUT_R = "minatar-2k/Breakout-MinAtar-HaDES-R-d16-w512-seed0.npz"
BREAKOUT_F = "minatar-2k/Breakout-MinAtar-HaDES-F-d16-w512-seed0.npz"
ALL = (HOPPER_R, HOPPER_F, HOPPER_D4, BREAKOUT_R, BREAKOUT_F)

HOPPER_CLONING = AdamSteps(loss="gaussian-nll", steps=200, max_grad_norm=0.5, eps=1e-5, eps_root=0.0)
BREAKOUT_CLONING = AdamSteps(loss="cross-entropy", steps=64, max_grad_norm=0.0, eps=1e-5, eps_root=0.0)


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


@pytest.mark.thorough
@pytest.mark.slow
@NEEDS_FILES
def test_fresh_learners_learn_the_published_labels() -> None:
    dataset, arrays = published(BREAKOUT_F)
    policies = train(dataset, jax.random.key(1))
    outputs = policies.network.apply(jax.tree.map(lambda leaf: leaf[0], policies.weights), dataset.observations)
    labels = np.argmax(arrays["actions"], axis=1)
    np.testing.assert_array_equal(np.argmax(outputs, axis=1), labels)
    assert set(labels.tolist()) == {0, 1, 2}


@pytest.mark.thorough
@NEEDS_FILES
@pytest.mark.slow
def test_a_published_dataset_reaches_its_published_fitness() -> None:
    dataset, arrays = published(HOPPER_D4)
    reached = evaluate(dataset, distributions=["card"], learners=1, episodes=2)["card"]
    meta = json.loads(str(arrays["meta"]))
    # Over the population of the last ten generations; fresh learners of the mean itself do a little better.
    assert reached.mean == pytest.approx(meta["mean_last10"], rel=0.05)


# --- what it may say ---


@NEEDS_FILES
def test_every_published_meta_fits_the_schema() -> None:
    files = [path for path in sorted(FOLDER.parent.rglob("*.npz")) if path.parent != FOLDER]
    assert len(files) == 128
    assert all({"task", "cloning", "distribution", "notes"} <= read_published(path).keys() for path in files)


HADES_META: dict[str, Any] = {
    "env": "Breakout-MinAtar",
    "overfit": False,
    "overfit_seed": None,
    "action_dim": 3,
    "width": 512,
    "activation": "relu",
    "lr": 0.03,
    "epochs": 64,
    "max_grad_norm": None,
    "obs_normaliser": "none",
    "final_mean_fitness": 30.5,
    "fitness": "mean return",
    "source_repository": "a/b",
    "source_file": "c",
}
PPMO_META: dict[str, Any] = {"env": "1D cart-pole", "dimensions": 1, "inner_steps": 1} | {
    name: HADES_META[name] for name in ("source_repository", "source_file")
}
GAME_META = PPMO_META | {"dimensions": None, "game": "Pong", "level": 0, "env": "PongNoFrameskip-v4"}
KEYS = [(HADES_META, key) for key in HADES_META] + [(PPMO_META, key) for key in (*PPMO_META, "lr", "game", "level")]
TEXTS = {"env", "source_repository", "source_file", "fitness", "activation", "obs_normaliser", "game"}
NULL_IS_NONE = {"overfit_seed", "max_grad_norm", "dimensions", "level"}


def wrong_values(meta: dict[str, Any], key: str) -> list[Any]:
    """Values of JSON that a key must not have."""
    found: list[Any] = [[], {}, [1], {"a": 1}, float("nan"), float("inf")]
    found += [0.5, 10**400, "x" * 1001] if key in TEXTS else ["x", 1] if key == "overfit" else ["", "1", True, 10**400]
    return found if key in NULL_IS_NONE or (key == "lr" and meta is PPMO_META) else [*found, None]


def write_meta(path: Path, meta: Any) -> Path:
    """A file of three cart-pole examples with a `meta`."""
    text = meta if isinstance(meta, str) else json.dumps(meta)
    np.savez(path, observations=np.ones((3, 4)), targets=np.ones((3, 2)), inner_lr=np.float32(0.5), meta=np.array(text))
    return path


@pytest.mark.parametrize("meta", [HADES_META, PPMO_META, GAME_META], ids=["HaDES", "PPMO", "game"])
def test_a_sound_meta_is_taken(tmp_path: Path, meta: dict[str, Any]) -> None:
    said = read_published(write_meta(tmp_path / "a.npz", meta | {"of no interest": [{}]}))
    assert "a/b, c" in said["notes"]


@pytest.mark.parametrize(
    ("meta", "key"), KEYS, ids=lambda value: value if isinstance(value, str) else f"{len(value)}-keys"
)
def test_a_value_of_the_wrong_kind_is_named(tmp_path: Path, meta: dict[str, Any], key: str) -> None:
    for value in wrong_values(meta, key):
        with pytest.raises(FloppyError, match=rf"a\.npz: meta\.{key} must be .*, got ") as caught:
            import_npz(write_meta(tmp_path / "a.npz", meta | {key: value}), "cartpole")
        assert len(str(caught.value)) < 300 + len(str(tmp_path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"lr": 0}, "meta.lr must be at least 1e-12 and at most 1000000, got 0.0"),
        ({"width": 0}, "meta.width must be at least 1"),
        ({"width": 2.5}, "meta.width must be a whole number"),
        ({"epochs": 2**31}, "meta.epochs must be"),
        ({"overfit_seed": 2**32}, "meta.overfit_seed must be"),
        ({"overfit": True}, "meta.overfit_seed must be a whole number where meta.overfit is true"),
        ({"activation": "relu:network=hades-cnn"}, "meta.activation must be one of"),
        ({"obs_normaliser": "often"}, "meta.obs_normaliser must be one of none, running, constant"),
        ({"env": "x/y"}, "no task 'brax/x/y'"),
    ],
)
def test_a_value_out_of_bounds_is_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FloppyError, match=re.escape(complaint)):
        import_npz(write_meta(tmp_path / "a.npz", HADES_META | changes))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"game": "Doom"}, "meta.game must be one of"),
        ({"level": 5}, "meta.level must be at least 0 and at most 4, got 5"),
        ({"level": None}, "meta.level must be a whole number from 0 to 4"),
    ],
)
def test_a_game_that_is_not_known_is_named(tmp_path: Path, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FloppyError, match=re.escape(complaint)):
        read_published(write_meta(tmp_path / "a.npz", GAME_META | changes))


def test_keys_that_are_missing_are_named(tmp_path: Path) -> None:
    for key in HADES_META.keys() - {"overfit", "overfit_seed"}:
        meta = {name: value for name, value in HADES_META.items() if name != key}
        with pytest.raises(FloppyError, match=f"lacks '{key}'"):
            read_published(write_meta(tmp_path / "a.npz", meta))


@pytest.mark.parametrize("env", ["hostile:X", "hostile:X-v0", "CartPole", "../x", "", "a:b:c"])
def test_the_env_of_a_meta_imports_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, env: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "hostile.py").write_text("raise SystemExit('imported')")
    meta = PPMO_META | {"dimensions": None, "env": env}
    with pytest.raises(FloppyError, match="The file is of task"):
        import_npz(write_meta(tmp_path / "a.npz", meta))


def test_a_rate_in_the_meta_serves_where_no_array_has_it(tmp_path: Path) -> None:
    arrays = {"observations": np.ones((3, 4)), "targets": np.ones((3, 2))}
    for own, wanted in (({}, 0.25), ({"inner_lr": np.float32(0.5)}, 0.5)):
        np.savez(tmp_path / "a.npz", meta=np.array(json.dumps(PPMO_META | {"lr": 0.25})), **arrays, **own)
        assert import_npz(tmp_path / "a.npz").inner_rate == wanted


@pytest.mark.skipif(not CASES.is_dir(), reason=f"the cases are not here ({CASES})")
@pytest.mark.parametrize(
    ("name", "complaint"), [("type-0", "lr"), ("type-1", "lr"), ("type-2", "level"), ("names-module", "hostile_mod")]
)
def test_cases_are_answered(name: str, complaint: str) -> None:
    with pytest.raises(FloppyError, match=complaint):
        import_npz(CASES / f"meta-{name}.npz", "" if "module" in name else "cartpole")


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
    drawn = jax.jit(jax.vmap(network.init))(jax.random.split(jax.random.key(7), 2))
    for layer, kernel in zip(drawn.layers, kernels, strict=True):
        for learner in range(2):
            np.testing.assert_array_equal(layer["kernel"][learner], kernel)
        assert not layer["bias"].any()
    assert not drawn.log_std.any()
