"""What a dataset is exported as reads back as what it was, and texts of a card stay texts."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import SMALL, hand_dataset

import floppy
from floppy.cli.main import main
from floppy.cloning import GradientStep
from floppy.dataset.folder import markdown_text, metadata, readme, yaml_text
from floppy.errors import FloppyError
from floppy.exports import EXPORTS

HOSTILE = '---\n# x "\\\n```\n<script>alert(1)</script> [a](javascript:b) | * _ \x1b[31m \u2028 \U0001f4be \ud800'


def dataset_of(**card: Any) -> floppy.DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(SMALL)]} | card)


def same(one: floppy.DistilledDataset, other: floppy.DistilledDataset) -> bool:
    return one.card == other.card and all(
        np.array_equal(array, other.numpy()[name]) for name, array in one.numpy().items()
    )


# --- A folder for Hugging Face.


def test_a_folder_is_read_back(tmp_path: Path) -> None:
    dataset, folder = dataset_of(), tmp_path / "new" / "folder"
    floppy.save_folder(dataset, folder)
    assert {path.name for path in folder.iterdir()} == {"README.md", "dataset.safetensors"}
    assert same(floppy.load(folder), dataset)
    assert same(floppy.load(folder / "dataset.safetensors"), dataset)
    with pytest.raises(FloppyError, match="safetensors exists already"):
        floppy.save_folder(dataset, folder)
    floppy.save_folder(dataset_of(notes="another"), folder, overwrite=True)
    assert floppy.load(folder).card.notes == "another"
    (tmp_path / "file").touch()
    with pytest.raises(FloppyError, match="is a file: give a folder"):
        floppy.save_folder(dataset, tmp_path / "file")


def test_a_folder_without_a_dataset_says_so(tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match="This is a folder: give the path of a dataset"):
        floppy.load(tmp_path)


def test_metadata_are_yaml_and_the_card_is_whole() -> None:
    yaml = pytest.importorskip("yaml")
    dataset = dataset_of(
        task="ndcartpole/1", licence="MIT", score={"mean": 480.5, "sd": 1, "learners": 3, "episodes": 2, "seed": 0}
    )
    _, head, body = readme(dataset).split("---\n", 2)
    assert yaml.safe_load(head) == {
        "license": "mit",
        "pretty_name": "ndcartpole/1, distilled",
        "task_categories": ["reinforcement-learning"],
        "size_categories": ["n<1K"],
        "tags": ["floppy", "dataset-distillation"],
        "viewer": False,
    }
    assert "Mean score 480.5, of 3 fresh networks x 2 episodes." in body
    card = body.partition("```json\n")[2].partition("\n```\n")[0]
    assert json.loads(card) == json.loads(dataset.card.to_json())


@pytest.mark.parametrize(
    ("examples", "category"), [(999, "n<1K"), (1000, "1K<n<10K"), (10_000, "10K<n<100K"), (100_000, "100K<n<1M")]
)
def test_sizes_are_those_of_the_hub(examples: int, category: str) -> None:
    assert f"- {category}" in metadata(dataset_of().card, examples)


def test_the_readmes_program_makes_a_policy_also_of_a_merged_dataset(tmp_path: Path) -> None:
    for name in ("cartpole", "merged/cartpole"):
        folder = tmp_path / name
        floppy.save_folder(floppy.load(name), folder)
        program = (folder / "README.md").read_text().partition("```python\n")[2].partition("```")[0]
        found: dict[str, Any] = {}
        exec(program.replace("path/to/this/folder", str(folder)), found)
        assert found["policy"].act(np.zeros(4)) in (0, 1)


@pytest.mark.parametrize(
    ("licence", "wanted"),
    [
        ("Apache-2.0", {"license": "apache-2.0"}),
        ("NOASSERTION", {"license": "unknown"}),
        ("My own\n---", {"license": "other", "license_name": "My own\n---"}),
    ],
)
def test_a_licence_is_one_that_the_hub_knows(licence: str, wanted: dict[str, str]) -> None:
    yaml = pytest.importorskip("yaml")
    head = yaml.safe_load(readme(dataset_of(licence=licence)).split("---\n", 2)[1])
    assert {name: value for name, value in head.items() if name.startswith("license")} == wanted


def test_hostile_texts_stay_texts() -> None:
    yaml = pytest.importorskip("yaml")
    texts = {name: HOSTILE for name in ("task", "licence", "notes", "command")}
    text = readme(dataset_of(**texts, versions={HOSTILE: HOSTILE}))
    assert text.isascii()
    start, head, body = text.split("---\n", 2)
    assert start == ""
    assert yaml.safe_load(head)["pretty_name"] == f"{HOSTILE}, distilled"
    outside, inside = body.split("```json\n")
    assert "script" in inside and "<" not in outside and "](javascript" not in outside
    assert [line for line in body.splitlines() if line.startswith("#")] == [f"# {markdown_text(HOSTILE)}"]
    assert body.count("\n```") == 4, "no text ends a block"
    assert json.loads(inside.partition("\n```\n")[0])["notes"] == HOSTILE


def test_escapes_by_hand() -> None:
    assert markdown_text("a/b_1\n<") == "a/b&#95;1 &#60;"
    assert yaml_text('a"\n') == '"a\\U00000022\\U0000000a"'


# --- Arrays.


def test_npz_holds_the_arrays_and_import_reads_them(tmp_path: Path) -> None:
    dataset, path = dataset_of(task="ndcartpole/1"), tmp_path / "arrays.npz"
    floppy.export_npz(dataset, path)
    with np.load(path) as file:
        assert set(file) == {"card", *dataset.numpy()}
        assert json.loads(str(file["card"])) == json.loads(dataset.card.to_json())
    again = floppy.import_npz(path, "cartpole", cloning=GradientStep())
    for name, array in dataset.numpy().items():
        np.testing.assert_array_equal(again.numpy()[name], array)
    first = path.read_bytes()
    with pytest.raises(FloppyError, match="exists already"):
        floppy.export_npz(dataset, path)
    floppy.export_npz(dataset, path, overwrite=True)
    assert path.read_bytes() == first


# --- Minari.


@pytest.fixture
def minari(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    module = pytest.importorskip("minari", reason="Minari is not installed (extra [minari])")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    return module


@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once")
def test_minari_has_whole_episodes(minari: Any, tmp_path: Path) -> None:
    dataset = dataset_of(task="ndcartpole/1")
    floppy.minari.export(dataset, "cartpole/clone-v0", episodes=3)
    loaded = minari.load_dataset("cartpole/clone-v0")
    episodes = list(loaded.iterate_episodes())
    assert len(episodes) == loaded.total_episodes == 3
    for episode in episodes:
        steps = len(episode.rewards)
        assert episode.observations.shape == (steps + 1, 4)
        assert episode.rewards.tolist() == [1.0] * steps
        ends = (episode.terminations | episode.truncations).tolist()
        assert ends == [False] * (steps - 1) + [True]
        # One step moves the cart by its velocity: observations and actions are of the same steps.
        np.testing.assert_allclose(
            episode.observations[1:, 0] - episode.observations[:-1, 0], 0.02 * episode.observations[:-1, 1], atol=1e-6
        )
        pushed = np.sign(episode.observations[1:, 1] - episode.observations[:-1, 1])
        assert pushed.tolist() == (2.0 * episode.actions - 1.0).tolist()
    with pytest.raises(FloppyError, match="Minari has a dataset cartpole/clone-v0 already"):
        floppy.minari.export(dataset, "cartpole/clone-v0")
    floppy.minari.export(dataset, "cartpole/clone-v0", episodes=3, seed=1, overwrite=True)
    again = list(minari.load_dataset("cartpole/clone-v0").iterate_episodes())
    assert again[0].observations[0].tolist() != episodes[0].observations[0].tolist()
    assert [path.name for path in (tmp_path / "minari/cartpole").glob("clone*")] == ["clone-v0"]
    assert not list((tmp_path / "minari").rglob(".floppy*"))


def test_minari_keeps_the_dataset_before_until_the_new_one_is_whole(
    minari: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill_the_disk(*_: Any, **__: Any) -> None:
        assert not (place / "old").exists()
        (place / "data").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(floppy.minari, "_play", lambda *_: None)
    monkeypatch.setattr(floppy.minari, "_buffers", lambda *_: [])
    monkeypatch.setattr(minari, "create_dataset_from_buffers", fill_the_disk)
    place = tmp_path / "minari/cartpole/clone-v0"
    for name in (place / "old", place.with_name(".floppy-clone-v0.tmp") / "left by a kill"):
        name.mkdir(parents=True)
    with pytest.raises(FloppyError, match=r"No space left on device.*let MINARI_DATASETS_PATH"):
        floppy.minari.export(dataset_of(task="ndcartpole/1"), "cartpole/clone-v0", overwrite=True)
    assert [path.name for path in place.iterdir()] == ["old"]


def test_minari_refuses_what_is_no_id(minari: Any) -> None:
    with pytest.raises(FloppyError, match="Minari refuses the id"):
        floppy.minari.export(dataset_of(task="ndcartpole/1"), "no id!")


# --- The command.


@pytest.mark.parametrize("to", EXPORTS)
def test_the_command_hands_on_what_was_asked(
    to: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []
    monkeypatch.setitem(EXPORTS._members, to, asked.append)
    floppy.save(dataset_of(), tmp_path / "d.safetensors")
    words = ["export", str(tmp_path / "d.safetensors"), "--to", to, "-o", "there", "--seed", "3", "--json"]
    assert main([*words, "--episodes", "2", "--overwrite"]) == 0
    (export,) = asked
    assert (export.out, export.seed, export.episodes, export.overwrite) == (Path("there"), 3, 2, True)
    assert same(export.dataset, dataset_of())
    assert json.loads(capsys.readouterr().out)["to"] == to


def test_the_command_writes_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "d.safetensors", tmp_path / "out"
    floppy.save(dataset_of(), path)
    assert main(["export", str(path), "--to", "huggingface", "--out", str(out)]) == 0
    assert main(["show", str(out), "--json"]) == 0
    assert main(["export", str(out), "--to", "npz", "--out", str(tmp_path / "a.npz")]) == 0
    capsys.readouterr()
    for words, wanted in (
        (["--to", "huggingface", "--out", str(out)], "exists already"),
        (["--to", "nosuch", "--out", str(out)], "--to must be one of huggingface, minari, npz, onnx"),
        (["--to", "npz", "--out", str(out), "--episodes", "0"], "episodes must be at least 1"),
    ):
        assert main(["export", str(path), *words]) == 2
        said = capsys.readouterr()
        assert said.out == "" and wanted in said.err
