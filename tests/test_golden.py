"""Files that version 0.1.0 wrote are read, learnt from and answered for as they were then; both formats are pinned."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import floppy
from floppy.dataset.file import to_bytes

FOLDER = Path(__file__).with_name("golden")
EXPECTED: dict[str, Any] = json.loads((FOLDER / "expected.json").read_text())["files"]

TOLERANCE = 1e-4


def test_every_file_is_expected() -> None:
    assert {path.name for path in FOLDER.glob("*.safetensors")} == EXPECTED.keys()
    assert {entry["card"]["format"] for entry in EXPECTED.values()} == {1, 2}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_is_read_and_written_as_it_was(name: str) -> None:
    data, entry = (FOLDER / name).read_bytes(), EXPECTED[name]
    assert hashlib.sha256(data).hexdigest() == entry["sha256"]
    dataset = floppy.load(FOLDER / name)
    assert json.loads(dataset.card.to_json()) == entry["card"]
    assert to_bytes(dataset) == data


@pytest.mark.slow
@pytest.mark.parametrize("name", EXPECTED)
def test_a_file_teaches_the_same_policies(name: str) -> None:
    """The weights of two fresh networks, and what they put out for one observation."""
    entry, dataset = EXPECTED[name], floppy.load(FOLDER / name)
    if "steps" in entry:
        fewer = dataclasses.replace(dataset.card, cloning=dataset.card.cloning | {"steps": entry["steps"]})
        dataset = dataclasses.replace(dataset, card=fewer)
    policies = floppy.train(dataset, jax.random.key(0), learners=2)
    leaves = [
        np.asarray(leaf, np.float64) for leaf in jax.tree.leaves((policies.weights.layers, policies.weights.log_std))
    ]
    assert sum(leaf.size for leaf in leaves) == entry["weights"]["numbers"]
    magnitude = entry["weights"]["abs"]
    assert sum(np.abs(leaf).sum() for leaf in leaves) == pytest.approx(magnitude, rel=TOLERANCE)
    assert sum(leaf.sum() for leaf in leaves) == pytest.approx(entry["weights"]["sum"], abs=TOLERANCE * magnitude)
    shape = tuple(entry["observation_shape"])
    observation = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    outputs = floppy.policy_outputs(policies, np.broadcast_to(observation, (2, 1, *shape)))
    np.testing.assert_allclose(np.asarray(outputs)[:, 0], entry["outputs"], rtol=10 * TOLERANCE, atol=TOLERANCE)
