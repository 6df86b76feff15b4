"""The dataset file is readable, and usable, with NumPy and the standard library alone."""

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from floppy.dataset import Card, DistilledDataset, load, save

REPOSITORY = Path(__file__).parents[1]
SPECIFICATION = REPOSITORY / "docs/dataset-format.md"
SCRIPT = REPOSITORY / "docs/examples/numpy_only.py"
PUBLISHED = REPOSITORY.parent / "shared/reference/ppmo/ndcartpole-1d-k2.npz"

RUN_ALONE = """
import runpy, sys
path = sys.argv[1]
del sys.argv[0]
runpy.run_path(path, run_name="__main__")
strangers = {"jax", "floppy", "safetensors", "flax", "torch"} & set(sys.modules)
assert not strangers, strangers
"""


def make_card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "task": "ndcartpole/1",
        "actions": {"kind": "discrete", "size": 2},
        "cloning": {"kind": "GradientStep", "loss": "mse", "steps": 1},
        "learners": [{"width": [64, 64], "depth": [2, 2], "initialiser": ["orthogonal"], "activation": "tanh"}],
        "algorithm": {"name": "ppmo", "config": {}},
        "normaliser": "none",
        "command": "published by the authors of arXiv 2508.09283",
        "versions": {},
    }
    return Card(**(values | changes))


@pytest.fixture
def read() -> Callable[[Path], tuple[dict[str, Any], dict[str, np.ndarray]]]:
    """The reader printed in the specification."""
    blocks = re.findall(r"^```python\n(.*?)^```$", SPECIFICATION.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    assert "floppy" not in re.findall(r"^(?:import|from) (\w+)", blocks[0], re.MULTILINE)
    namespace: dict[str, Any] = {}
    exec(blocks[0], namespace)
    return namespace["read"]


def test_printed_reader_agrees_with_load(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    random = np.random.default_rng(0)
    card = make_card(normaliser="frozen", encoder={"layers": 1, "of": 3}, notes="naïve 箱", seed=3)
    dataset = DistilledDataset(
        card,
        observations=random.normal(size=(3, 2, 2)),
        targets=random.normal(size=(3, 2)),
        inner_rate=0.3,
        obs_mean=random.normal(size=(2, 2)),
        obs_var=random.uniform(size=(2, 2)),
        encoder={"0/kernel": random.normal(size=(4, 8)), "0/bias": random.normal(size=8)},
    )
    save(dataset, tmp_path / "a.safetensors")
    read_card, read_tensors = read(tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert read_card | {"blocks": [], "epsilon": None} == vars(loaded.card)  # format 1 has none
    assert set(read_tensors) == set(loaded.numpy())
    for name, tensor in loaded.numpy().items():
        assert read_tensors[name].dtype == np.float32
        assert read_tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(read_tensors[name], tensor)


def test_printed_reader_refuses_truncated_files(tmp_path: Path, read: Callable[[Path], Any]) -> None:
    save(DistilledDataset(make_card(), np.ones((2, 4)), np.ones((2, 2))), tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for length in range(len(data)):
        (tmp_path / "part.safetensors").write_bytes(data[:length])
        with pytest.raises(ValueError):
            read(tmp_path / "part.safetensors")


def run_alone(dataset: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", RUN_ALONE, str(SCRIPT), str(dataset), *options]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.slow
def test_published_dataset_plays_cart_pole_with_numpy_alone(tmp_path: Path) -> None:
    """One hand-written gradient step and 20 episodes of Gymnasium's CartPole-v1 (at most 500 each)."""
    pytest.importorskip("gymnasium", reason="gymnasium, which plays the episodes, is not installed")
    if not PUBLISHED.exists():
        pytest.skip(f"the published dataset {PUBLISHED} is not on this machine")
    published = np.load(PUBLISHED, allow_pickle=False)
    rate = published["inner_lr"]
    dataset = DistilledDataset(make_card(), published["observations"], published["targets"], inner_rate=rate)
    save(dataset, tmp_path / "cartpole.safetensors")
    result = run_alone(tmp_path / "cartpole.safetensors", "--seed", "1")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) >= 475


@pytest.mark.slow
def test_our_dataset_plays_cart_pole_with_numpy_alone() -> None:
    pytest.importorskip("gymnasium", reason="gymnasium, which plays the episodes, is not installed")
    result = run_alone(Path(__file__).parents[1] / "docs/results/cartpole/lambda-1d-k2.safetensors")
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) >= 475


def test_script_learns_from_the_dataset_and_not_from_elsewhere(tmp_path: Path) -> None:
    """With a dataset that says nothing, the same script stays near the 22 of random play."""
    pytest.importorskip("gymnasium", reason="gymnasium, which plays the episodes, is not installed")
    blank = DistilledDataset(make_card(), np.zeros((2, 4)), np.zeros((2, 2)), inner_rate=1.0)
    save(blank, tmp_path / "blank.safetensors")
    result = run_alone(tmp_path / "blank.safetensors")
    assert result.returncode == 0, result.stderr
    assert 10 < float(result.stdout) < 60


def test_script_is_short_enough_to_copy() -> None:
    assert len(SCRIPT.read_text(encoding="utf-8").splitlines()) <= 60
