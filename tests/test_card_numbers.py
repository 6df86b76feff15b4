"""Every number of a card is one to compute with, or is refused by name: of every kind of cloning, from the registry."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from probes import hand_dataset

import floppy
from floppy.cloning import CLONINGS
from floppy.cloning.base import rates_shape
from floppy.dataset.file import METADATA_KEY
from floppy.errors import FloppyError
from floppy.teach.codec import unpack

pytestmark = pytest.mark.usefixtures("compiled_once")

NUMBERS = [
    (kind, field.name)
    for kind in CLONINGS.values()
    for field in dataclasses.fields(kind)
    if field.type in (int, float, "int", "float")
]
VALUES = [-1, 0, 1e-30, 3, 2.5, 2147483647, 1e30, 1e31, 10**400, -(10**400)]


def written(path: Path, **changes: Any) -> Path:
    """A dataset of which the card has been changed by hand."""
    dataset = hand_dataset()
    tensors = dataset.numpy()
    if "cloning" in changes:
        shape = rates_shape(CLONINGS[changes["cloning"]["kind"]]())
        tensors |= {"inner_rate": np.full(shape, dataset.inner_rate, np.float32)}
    card = json.loads(dataset.card.to_json()) | changes
    path.write_bytes(safetensors.numpy.save(tensors, {METADATA_KEY: json.dumps(card)}))
    return path


@pytest.mark.parametrize(("kind", "name"), NUMBERS, ids=lambda each: getattr(each, "__name__", each))
def test_numbers_of_a_cloning_are_taken_or_refused_by_name(kind: type[Any], name: str, tmp_path: Path) -> None:
    taken = 0
    for value in VALUES:
        path = written(tmp_path / "card.safetensors", cloning={"kind": kind.__name__, name: value})
        try:
            number = getattr(unpack(floppy.load(path)).cloning, name)
        except FloppyError as error:
            assert name in str(error) and "\n" not in str(error)
        else:
            taken += 1
            assert number == value and abs(number) <= 1e30
    assert taken > 0


def test_a_card_cannot_ask_for_networks_that_fill_the_memory(tmp_path: Path) -> None:
    learners = [{"width": [100_000, 100_000], "depth": [1000, 1000]}]
    dataset = floppy.load(written(tmp_path / "card.safetensors", learners=learners))
    for use in (lambda: floppy.train(dataset, 0), lambda: floppy.evaluate(dataset, learners=1, episodes=1)):
        with pytest.raises(FloppyError, match="must take at most 1,000,000,000 numbers"):
            use()


@pytest.mark.parametrize("seed", [-2, 2**32, 2**40])
def test_the_bounds_of_a_fixed_draw_are_said(seed: int, tmp_path: Path) -> None:
    dataset = floppy.load(written(tmp_path / "card.safetensors", learners=[{"init_seed": seed}]))
    with pytest.raises(FloppyError, match=f"init_seed must be at least -1 and at most 4294967295, got {seed}"):
        unpack(dataset).learners  # noqa: B018


@pytest.mark.thorough(all_but=["max_grad_norm-2147483647"])
@pytest.mark.slow
@pytest.mark.parametrize(("name", "value"), [("max_grad_norm", 2147483647), ("eps", 1), ("eps_root", 1e30)])
def test_whole_and_large_numbers_teach(name: str, value: float, tmp_path: Path) -> None:
    cloning = {"kind": "AdamSteps", "loss": "cross-entropy", "steps": 2, name: value}
    dataset = floppy.load(written(tmp_path / "card.safetensors", cloning=cloning))
    assert not floppy.train(dataset, 0, learners=2).diverged().any()


@pytest.mark.slow
def test_policies_that_diverge_are_counted() -> None:
    policies = floppy.train(hand_dataset(inner_rate=3e38), 0, learners=2)
    np.testing.assert_array_equal(policies.diverged(), [True, True])
    np.testing.assert_array_equal(floppy.train(hand_dataset(), 0, learners=3).diverged(), [False] * 3)
