"""The dataset file: what goes in comes out, and everything else is refused in one sentence."""

import dataclasses
import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from floppy.dataset import DistilledDataset, load, save
from floppy.dataset import file as dataset_file
from floppy.dataset.card import FORMAT, Card
from floppy.dataset.file import METADATA_KEY
from floppy.errors import FloppyError
from floppy.learner.cnn import CONVOLUTIONS
from floppy.learner.initialisers import INITIALISERS

SPECIFICATION = Path(__file__).parents[1] / "docs/dataset-format.md"


def make_card(**changes: Any) -> Card:
    values: dict[str, Any] = {
        "task": "gymnax/CartPole-v1",
        "actions": {"kind": "discrete", "size": 2},
        "cloning": {"kind": "GradientStep", "loss": "mse", "steps": 1},
        "learners": [{"width": [64, 64], "depth": [2, 2], "initialiser": ["orthogonal"], "activation": "tanh"}],
        "algorithm": {"name": "ppmo", "config": {"rate": 2.5e-4}},
        "normaliser": "none",
        "command": "floppy distill cartpole",
        "versions": {"floppy": "0.1.0", "gymnax": "1.0.1"},
    }
    return Card(**(values | changes))


def make_dataset(card: Card | None = None, **changes: Any) -> DistilledDataset:
    values: dict[str, Any] = {
        "observations": np.arange(12.0).reshape(3, 4),
        "targets": np.linspace(-1.0, 1.0, 6).reshape(3, 2),
        "inner_rate": 0.5,
    }
    return DistilledDataset(card or make_card(), **(values | changes))


def make_full_dataset() -> DistilledDataset:
    """Every tensor and every key of the card, none at its default."""
    card = make_card(
        task="brax/hopper",
        actions={"kind": "continuous", "size": 2, "low": [-1.0, -2.0], "high": [1.0, 2.0]},
        cloning={"kind": "AdamSteps", "loss": "mse", "steps": 400, "max_grad_norm": 0.5},
        normaliser="frozen",
        score={"mean": 1807.0, "sd": 8.5, "learners": 100, "episodes": 10, "seed": 3},
        reference_score={"mean": 1774.0, "source": "arXiv 2406.15042"},
        seed=7,
        encoder={"layers": 2, "of": 3},
        licence="MIT",
        parents=["a", "b"],
        notes="Größe, naïve, 箱 and a \n new line",
        epsilon=0.0,
        format=3,
    )
    random = np.random.default_rng(0)
    return DistilledDataset(
        card,
        observations=random.normal(size=(5, 2, 3)),
        targets=random.normal(size=(5, 2)),
        log_std=random.normal(size=2),
        inner_rate=np.float64(0.1),
        obs_mean=random.normal(size=(2, 3)),
        obs_var=random.uniform(size=(2, 3)),
        encoder={
            "0/kernel": random.normal(size=(6, 8)),
            "0/bias": random.normal(size=8),
            "1/kernel": random.normal(size=(3, 3, 8, 4)),
            "1/bias": random.normal(size=4),
        },
    )


def write_raw(path: Path, tensors: dict[str, np.ndarray], card: dict[str, Any] | str | None) -> None:
    """A safetensors file with anything in it."""
    text = card if isinstance(card, str) or card is None else json.dumps(card)
    path.write_bytes(safetensors.numpy.save(tensors, None if text is None else {METADATA_KEY: text}))


def refusal(path: Path) -> str:
    """The sentence with which `load` refuses a file."""
    with pytest.raises(FloppyError) as caught:
        load(path)
    return one_sentence(caught.value)


def one_sentence(error: FloppyError) -> str:
    message = str(error)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 1000
    return message


def test_round_trip_keeps_every_field(tmp_path: Path) -> None:
    original = make_full_dataset()
    save(original, tmp_path / "full.safetensors")
    loaded = load(tmp_path / "full.safetensors")
    assert loaded.card == original.card
    for field in dataclasses.fields(Card):
        if field.name != "format":
            assert getattr(original.card, field.name) != field.default, f"{field.name} is at its default, so untested"
    assert list(loaded.numpy()) == list(original.numpy())
    assert len(loaded.numpy()) == 6 + 4
    for name, tensor in original.numpy().items():
        assert tensor.dtype == loaded.numpy()[name].dtype == np.float32
        np.testing.assert_array_equal(tensor, loaded.numpy()[name])


def test_optional_fields_stay_absent(tmp_path: Path) -> None:
    save(make_dataset(inner_rate=None), tmp_path / "a.safetensors")
    loaded = load(tmp_path / "a.safetensors")
    assert loaded.log_std is loaded.inner_rate is loaded.obs_mean is loaded.obs_var is None
    assert loaded.encoder == {}
    assert loaded.examples == 3
    assert loaded.observation_shape == (4,)


def test_same_dataset_is_same_bytes(tmp_path: Path) -> None:
    first = make_full_dataset()
    reordered = dict(reversed(first.encoder.items()))
    turned = make_card(**vars(first.card) | {"actions": dict(reversed(first.card.actions.items()))})
    second = dataclasses.replace(
        first, card=turned, encoder=reordered, observations=np.asfortranarray(first.observations)
    )
    save(first, tmp_path / "first.safetensors")
    save(second, tmp_path / "second.safetensors")
    save(load(tmp_path / "first.safetensors"), tmp_path / "third.safetensors")
    data = (tmp_path / "first.safetensors").read_bytes()
    assert data == (tmp_path / "second.safetensors").read_bytes() == (tmp_path / "third.safetensors").read_bytes()


def test_card_takes_numpy_values_and_tuples() -> None:
    card = make_card(
        actions={"kind": "continuous", "size": np.int64(2), "low": np.zeros(2), "high": (1, np.float32(2.0))},
        seed=np.int32(4),
    )
    assert card.actions == {"kind": "continuous", "size": 2, "low": [0.0, 0.0], "high": [1, 2.0]}
    assert card.seed == 4
    assert Card.from_json(card.to_json()) == card


def test_tensors_are_read_only_copies() -> None:
    observations = np.zeros((3, 4), dtype=np.float32)
    dataset = make_dataset(observations=observations)
    observations[:] = 1.0
    assert not dataset.observations.any()
    with pytest.raises(ValueError, match="read-only"):
        dataset.observations[0, 0] = 1.0


def test_describe_is_json_and_counts_numbers() -> None:
    description = make_full_dataset().describe()
    assert json.loads(json.dumps(description)) == description
    assert description["examples"] == 5
    assert description["observation_shape"] == [2, 3]
    assert description["tensors"]["encoder/1/kernel"] == {"shape": [3, 3, 8, 4], "dtype": "float32"}
    assert description["floats"] == 5 * 6 + 5 * 2 + 2 + 1 + 6 + 6 + 6 * 8 + 8 + 9 * 8 * 4 + 4
    assert description["card"]["task"] == "brax/hopper"


def test_plain_policy_needs_no_example(tmp_path: Path) -> None:
    dataset = make_plain_policy({"layers": 1, "of": 1})
    save(dataset, tmp_path / "policy.safetensors")
    loaded = load(tmp_path / "policy.safetensors")
    assert (loaded.examples, loaded.observation_shape) == (0, (4,))
    assert loaded.card.is_plain_policy
    with pytest.raises(FloppyError, match="0 examples"):
        make_plain_policy({"layers": 1, "of": 2})
    with pytest.raises(FloppyError, match="0 examples"):
        make_plain_policy({"layers": 1})


def make_plain_policy(encoder: dict[str, int]) -> DistilledDataset:
    layers = {"0/kernel": np.ones((4, 2)), "0/bias": np.ones(2)}
    card = make_card(encoder=encoder)
    return make_dataset(card, observations=np.zeros((0, 4)), targets=np.zeros((0, 2)), inner_rate=None, encoder=layers)


CONTINUOUS = {"kind": "continuous", "size": 2, "low": [-1, -1], "high": [1, 1]}

BOX = {"kind": "continuous", "size": 1, "low": [-2.0], "high": [2.0]}
BAD_CARDS: list[tuple[dict[str, Any], str]] = [
    ({"task": ""}, "task"),
    ({"task": 3}, "task"),
    ({"actions": {"kind": "both", "size": 2}}, "both"),
    ({"actions": {"kind": "discrete"}}, "size"),
    ({"actions": {"kind": "discrete", "size": 0}}, "size"),
    ({"actions": {"kind": "discrete", "size": True}}, "size"),
    ({"actions": {"kind": ["discrete"], "size": 2}}, "kind"),
    ({"actions": CONTINUOUS | {"low": [-1]}}, "low"),
    ({"actions": CONTINUOUS | {"high": None}}, "high"),
    ({"actions": CONTINUOUS | {"high": [1, "1"]}}, "high"),
    ({"actions": CONTINUOUS | {"low": [-1, 1]}}, "low"),
    ({"cloning": {"loss": "mse"}}, "kind"),
    ({"learners": []}, "learners"),
    ({"learners": ["lambda"]}, "learners"),
    ({"algorithm": {"config": {}}}, "algorithm"),
    ({"normaliser": "running"}, "per-evaluation"),
    ({"score": {"mean": 1.0, "sd": 0.0, "learners": 1, "episodes": 1}}, "seed"),
    ({"score": {"mean": float("nan"), "sd": 0.0, "learners": 1, "episodes": 1, "seed": 0}}, "finite"),
    ({"reference_score": 500}, "reference_score"),
    ({"seed": 1.5}, "seed"),
    ({"seed": True}, "seed"),
    ({"versions": {"jax": 10}}, "versions"),
    ({"encoder": {}}, "encoder"),
    ({"encoder": {"layers": 0}}, "encoder"),
    ({"epsilon": 0.0}, "is of format 3"),
    ({"epsilon": -1.0, "format": 3}, "epsilon is -1.0"),
    ({"actions": BOX | {"centre": [0.0], "half_width": [2.0]}}, "is of format 3"),
    ({"actions": BOX | {"centre": [0.0]}, "format": 3}, "centre and half_width"),
    ({"actions": BOX | {"centre": [0.0], "half_width": [0.0]}, "format": 3}, "half_width above 0"),
    ({"actions": BOX | {"centre": ["x"], "half_width": [1.0]}, "format": 3}, "of 1 numbers each"),
    ({"actions": {"kind": "discrete", "size": 2, "centre": [0, 0], "half_width": [1, 1]}, "format": 3}, "continuous"),
    ({"encoder": {"layers": 10**12}}, "encoder"),
    ({"score": {"mean": 10**400, "sd": 1.0, "learners": 1, "episodes": 1, "seed": 0}}, "score.mean is 1000"),
    ({"cloning": {"kind": "AdamSteps", "eps": 1e31}}, "cloning.eps is 1e+31, numbers are at most 1e+30"),
    ({"algorithm": {"name": "x", "config": {"rates": [[0.5], [10**31]]}}}, "algorithm.config.rates is 1000"),
    ({"encoder": {"layers": 3, "of": 2}}, "encoder"),
    ({"parents": [1]}, "parents"),
    ({"parents": "a"}, "parents"),
    ({"notes": None}, "notes"),
    ({"format": 2}, "Format 2"),
    ({"algorithm": {"name": "ppmo", "config": {"rate": float("inf")}}}, "finite"),
    ({"algorithm": {"name": "ppmo", "config": object()}}, "JSON"),
]


@pytest.mark.parametrize(("changes", "word"), BAD_CARDS)
def test_bad_card_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(FloppyError) as caught:
        make_card(**changes)
    assert word in one_sentence(caught.value)


FROZEN = {"obs_mean": np.zeros(4), "obs_var": np.ones(4)}
LAYER = {"0/kernel": np.ones((4, 8)), "0/bias": np.ones(8)}

BAD_DATASETS: list[tuple[dict[str, Any], dict[str, Any], str]] = [
    ({}, {"observations": np.zeros(4)}, "observations"),
    ({}, {"observations": np.zeros((3, 0))}, "observations"),
    ({}, {"observations": np.zeros((0, 4)), "targets": np.zeros((0, 2))}, "0 examples"),
    ({}, {"observations": None}, "observations"),
    ({}, {"observations": [["a"] * 4] * 3}, "observations"),
    ({}, {"observations": [[1.0], [1.0, 2.0]]}, "observations"),
    ({}, {"observations": np.full((3, 4), 1j)}, "observations"),
    ({}, {"observations": np.full((3, 4), np.nan)}, "observations holds NaN"),
    ({}, {"observations": np.full((3, 4), 1e300)}, "observations holds NaN or infinity"),
    ({}, {"targets": np.full((3, 2), np.inf)}, "targets holds NaN or infinity"),
    ({}, {"targets": np.zeros((2, 2))}, "targets"),
    ({}, {"targets": np.zeros((3, 3))}, "targets"),
    ({}, {"targets": np.zeros(3)}, "targets"),
    ({}, {"log_std": np.zeros(2)}, "log_std"),
    ({"actions": CONTINUOUS}, {"log_std": np.zeros((1, 2))}, "log_std"),
    ({}, {"inner_rate": 0.0}, "inner_rate"),
    ({}, {"inner_rate": -1.0}, "inner_rate"),
    ({}, {"inner_rate": [0.1]}, "inner_rate"),
    ({}, {"inner_rate": [0.1, 0.0]}, "inner_rate"),
    ({}, FROZEN, "obs_mean is present"),
    ({"normaliser": "per-evaluation"}, FROZEN, "obs_mean is present"),
    ({"normaliser": "frozen"}, {}, "obs_mean is missing"),
    ({"normaliser": "frozen"}, {"obs_mean": np.zeros(4)}, "obs_var is missing"),
    ({"normaliser": "frozen"}, FROZEN | {"obs_mean": np.zeros(3)}, "obs_mean"),
    ({"normaliser": "frozen"}, FROZEN | {"obs_var": np.ones((1, 4))}, "obs_var"),
    ({"normaliser": "frozen"}, FROZEN | {"obs_var": -np.ones(4)}, "negative"),
    ({}, {"encoder": LAYER}, "encoder"),
    (
        {"normaliser": "frozen", "epsilon": 0.0, "format": 3},
        {"obs_mean": np.zeros(4), "obs_var": np.array([1.0, 0.0, 1.0, 1.0])},
        "epsilon is 0",
    ),
    ({"encoder": {"layers": 1}}, {}, "encoder"),
    ({"encoder": {"layers": 2}}, {"encoder": LAYER}, "encoder"),
    ({"encoder": {"layers": 1}}, {"encoder": {"1/kernel": np.ones((4, 8)), "1/bias": np.ones(8)}}, "encoder"),
    ({"encoder": {"layers": 1}}, {"encoder": {"0/kernel": np.ones((4, 8)), "0/weight": np.ones(8)}}, "encoder"),
    ({"encoder": {"layers": 1}}, {"encoder": LAYER | {"0/bias": np.ones(4)}}, "bias"),
    ({"encoder": {"layers": 1}}, {"encoder": LAYER | {"0/kernel": np.ones(8)}}, "kernel"),
    ({"encoder": {"layers": 1}}, {"encoder": LAYER | {"0/bias": np.full(8, np.nan)}}, "encoder/0/bias holds NaN"),
]


@pytest.mark.parametrize(("card_changes", "changes", "word"), BAD_DATASETS)
def test_bad_dataset_is_refused(card_changes: dict[str, Any], changes: dict[str, Any], word: str) -> None:
    card = make_card(**card_changes)
    with pytest.raises(FloppyError) as caught:
        make_dataset(card, **changes)
    assert word in one_sentence(caught.value)


def test_missing_file_and_folder_are_refused(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "absent.safetensors")
    assert "folder" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refusal(tmp_path / "pipe")


def tensors_and_card() -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    dataset = make_dataset()
    return dataset.numpy(), json.loads(dataset.card.to_json())


BAD_CARD_TEXTS: list[tuple[str | None, str]] = [
    (None, "no card"),
    ("", "not JSON"),
    ("{", "not JSON"),
    ("[" * 100_000, "not JSON"),
    ("[]", "JSON object"),
    ("null", "JSON object"),
    ('"' + "text " * 1000 + '"', "JSON object"),
    ("{}", "format"),
    ('{"format": 99, "colour": 1}', "Format 99 is unknown, this floppy knows format 1"),
    ('{"format": true}', "Format True is unknown"),
    ('{"format": "1"}', "unknown"),
    ('{"format": null}', "unknown"),
]


@pytest.mark.parametrize(("text", "word"), BAD_CARD_TEXTS)
def test_file_with_bad_card_text_is_refused(tmp_path: Path, text: str | None, word: str) -> None:
    write_raw(tmp_path / "a.safetensors", tensors_and_card()[0], text)
    message = refusal(tmp_path / "a.safetensors")
    assert word in message
    assert "a.safetensors" in message


@pytest.mark.parametrize("key", [field.name for field in dataclasses.fields(Card)])
def test_mandatory_keys_are_those_that_the_specification_names(tmp_path: Path, key: str) -> None:
    row = re.search(rf"^\| `{key}` \|[^|]*\| (yes|no)", SPECIFICATION.read_text(encoding="utf-8"), re.MULTILINE)
    assert row is not None, f"docs/dataset-format.md has no row for {key}"
    tensors, card = tensors_and_card()
    card.pop(key, None)  # blocks are not there in format 1
    write_raw(tmp_path / "a.safetensors", tensors, card)
    if row[1] == "yes":
        assert f"mandatory key '{key}'" in refusal(tmp_path / "a.safetensors")
    else:
        load(tmp_path / "a.safetensors")


def test_specification_lists_exactly_the_keys_and_tensors_there_are() -> None:
    rows = set(re.findall(r"^\| `([^`]+)` \|", SPECIFICATION.read_text(encoding="utf-8"), re.MULTILINE))
    keys = {field.name for field in dataclasses.fields(Card)}
    tensors = {re.sub(r"/\d+/", "/<layer>/", name) for name in make_full_dataset().numpy()}
    others = {"loss", "mse", "cross-entropy", "gaussian-nll", "huber", *INITIALISERS, "flax-orthogonal", *CONVOLUTIONS}
    assert rows == keys | tensors | others


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"colour": "blue"}, "'colour'"),
        ({"a\nb": 1}, "unknown key"),
        ({f"key {i}": i for i in range(1000)}, "more"),
        ({"task": None}, "task"),
        ({"seed": float("nan")}, "JSON"),
        ({"algorithm": {"name": "x", "rate": float("inf")}}, "JSON"),
        ({"normaliser": "frozen"}, "obs_mean is missing"),
        ({"actions": {"kind": "discrete", "size": 5}}, "targets"),
        ({"encoder": {"layers": 1}}, "encoder"),
    ],
)
def test_file_with_bad_card_value_is_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    tensors, card = tensors_and_card()
    write_raw(tmp_path / "a.safetensors", tensors, card | changes)
    assert word in refusal(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"observations": None}, "'observations' is missing"),
        ({"targets": None}, "'targets' is missing"),
        ({"rewards": np.zeros(3, dtype=np.float32)}, "'rewards' is unknown"),
        ({"encoder/0/weight": np.zeros(3, dtype=np.float32)}, "'encoder/0/weight' is unknown"),
        ({"encoder/00/bias": np.zeros(3, dtype=np.float32)}, "'encoder/00/bias' is unknown"),
        ({"encoder": np.zeros(3, dtype=np.float32)}, "'encoder' is unknown"),
        ({"encoder/0/bias": np.zeros(3, dtype=np.float32)}, "encoder"),
        ({"card": np.zeros(3, dtype=np.float32)}, "'card' is unknown"),
        ({"observations": np.zeros((3, 4))}, "F64"),
        ({"observations": np.zeros((3, 4), dtype=np.float16)}, "F16"),
        ({"targets": np.zeros((3, 2), dtype=np.int32)}, "I32"),
        ({"targets": np.zeros((3, 5), dtype=np.float32)}, "targets has shape (3, 5)"),
        ({"targets": np.zeros((2, 2), dtype=np.float32)}, "targets has shape (2, 2)"),
        ({"observations": np.full((3, 4), np.nan, dtype=np.float32)}, "observations holds NaN"),
        ({"inner_rate": np.array(np.inf, dtype=np.float32)}, "inner_rate holds NaN or infinity"),
        ({"inner_rate": np.zeros((), dtype=np.float32)}, "inner_rate"),
    ],
)
def test_file_with_bad_tensors_is_refused(tmp_path: Path, changes: dict[str, Any], word: str) -> None:
    tensors, card = tensors_and_card()
    tensors = {name: tensor for name, tensor in (tensors | changes).items() if tensor is not None}
    write_raw(tmp_path / "a.safetensors", tensors, card)
    message = refusal(tmp_path / "a.safetensors")
    assert word in message
    assert "a.safetensors" in message


@pytest.mark.parametrize(
    "observations",
    [
        {"dtype": "F32", "shape": [1] * 100, "data_offsets": [0, 4]},
        {"dtype": "F32", "shape": [0, 2**62, 4], "data_offsets": [0, 0]},
        {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]},
        {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]},
        {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]},
    ],
)
def test_file_with_impossible_shape_is_refused(tmp_path: Path, observations: dict[str, Any]) -> None:
    end = observations["data_offsets"][1]
    targets = {"dtype": "F32", "shape": [], "data_offsets": [end, end + 4]}
    metadata = {METADATA_KEY: make_card().to_json()}
    header = json.dumps({"__metadata__": metadata, "observations": observations, "targets": targets}).encode()
    data = len(header).to_bytes(8, "little") + header + bytes(min(end, 8) + 4)
    (tmp_path / "a.safetensors").write_bytes(data)
    refusal(tmp_path / "a.safetensors")


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    save(make_dataset(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    for length in range(len(data)):
        (tmp_path / "part.safetensors").write_bytes(data[:length])
        refusal(tmp_path / "part.safetensors")
    (tmp_path / "part.safetensors").write_bytes(data + b"\0")
    refusal(tmp_path / "part.safetensors")


@pytest.mark.thorough
@pytest.mark.slow
def test_flipped_bytes_are_refused_or_harmless(tmp_path: Path) -> None:
    """A changed byte may still spell a valid file (a letter of the notes); anything else must be a FloppyError."""
    save(make_full_dataset(), tmp_path / "whole.safetensors")
    data = (tmp_path / "whole.safetensors").read_bytes()
    random = np.random.default_rng(0)
    refused = 0
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= int(random.integers(1, 256))
        (tmp_path / "changed.safetensors").write_bytes(changed)
        try:
            load(tmp_path / "changed.safetensors")
        except FloppyError as error:
            one_sentence(error)
            refused += 1
    header = int.from_bytes(data[:8], "little")
    assert header / 2 < refused < len(data)


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    for data in (b"", b"hello", b"PK\x03\x04" + bytes(200), b"\xff" * 64, b"\x00" * 64, b"{}" * 100):
        (tmp_path / "a.safetensors").write_bytes(data)
        assert "safetensors file" in refusal(tmp_path / "a.safetensors")


def test_existing_file_is_not_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(make_dataset(), path)
    before = path.read_bytes()
    with pytest.raises(FloppyError) as caught:
        save(make_full_dataset(), path)
    assert "exists already: give --overwrite (in Python overwrite=True) or" in one_sentence(caught.value)
    assert path.read_bytes() == before
    save(make_full_dataset(), path, overwrite=True)
    assert load(path).card.task == "brax/hopper"
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_a_dataset_prints_on_one_short_line() -> None:
    tensors = "observations [3, 4], targets [3, 2], inner_rate []"
    assert repr(make_dataset()) == f"<DistilledDataset of gymnax/CartPole-v1, 3 examples: {tensors}; no score>"
    assert repr(make_full_dataset()).endswith(", obs_var [2, 3], encoder of 2 layers; score 1807.0>")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_is_not_to_be_overwritten(tmp_path: Path, overwrite: bool) -> None:
    with pytest.raises(FloppyError) as caught:
        save(make_dataset(), tmp_path, overwrite=overwrite)
    message = f"{tmp_path} cannot be written (it is a folder): give the name of a file in it."
    assert one_sentence(caught.value) == message


def test_parent_folders_are_made(tmp_path: Path) -> None:
    save(make_dataset(), tmp_path / "runs/first/a.safetensors")
    assert load(tmp_path / "runs/first/a.safetensors").examples == 3


def test_new_file_has_ordinary_permissions(tmp_path: Path) -> None:
    save(make_dataset(), tmp_path / "a.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "a.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("failing", ["replace", "fsync"])
@pytest.mark.parametrize("kind", [OSError, KeyboardInterrupt])
def test_failed_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, kind: type[BaseException]
) -> None:
    path = tmp_path / "a.safetensors"
    save(make_dataset(), path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise kind("the disk is full")

    monkeypatch.setattr(dataset_file.os, failing, fail)
    with pytest.raises(FloppyError if kind is OSError else kind) as caught:
        save(make_full_dataset(), path, overwrite=True)
    if isinstance(caught.value, FloppyError):
        assert "the disk is full" in one_sentence(caught.value)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["a.safetensors"]


def test_unwritable_places_are_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file/a.safetensors", tmp_path / "folder", tmp_path / ("x" * 300)):
        with pytest.raises(FloppyError) as caught:
            save(make_dataset(), path, overwrite=True)
        assert "cannot be written" in one_sentence(caught.value)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_card_written_is_the_current_format() -> None:
    assert json.loads(make_card().to_json())["format"] == FORMAT == 1
