"""Disks that fill up or turn read-only, and folders that vanish, in the middle of everything that writes."""

import dataclasses
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from faults import DENIED, FULL, READ_ONLY, disk
from probes import hand_dataset, logged
from tiny_runs import TINY

from floppy.cli.main import main
from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.files import append_to, write_atomically
from floppy.run.checkpoint import load_checkpoint, save_checkpoint
from floppy.run.folder import CHECKPOINT_NAME, CONFIG_NAME, DATASET_NAME, METRICS_NAME, PREVIOUS_NAME, read_metrics
from floppy.run.lock import hold
from floppy.run.loop import distill
from floppy.studies.folder import run_study
from floppy.studies.transfer import Transfer

pytestmark = pytest.mark.usefixtures("compiled_once")

CODES = pytest.mark.parametrize("code", [FULL, READ_ONLY, DENIED], ids=errno.errorcode.get)


def refusal(work: Callable[[], object]) -> str:
    """The sentence that something is answered with."""
    with pytest.raises(FloppyError) as caught:
        work()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def changes(work: Callable[[], object], folder: Path) -> int:
    """How many changes it makes."""
    with disk(folder, None) as counted:
        work()
    return counted.changes


@CODES
def test_a_file_is_replaced_as_a_whole_or_not_at_all(tmp_path: Path, code: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    count = changes(lambda: write_atomically(tmp_path / "other", b"x"), tmp_path)
    assert count == 4  # open, write, sync, replace
    for first in range(1, count + 1):
        for name in ("file", "new")[first == count and code == FULL :]:  # to replace what is there needs no room
            with disk(tmp_path, first, code):
                assert os.strerror(code) in refusal(lambda name=name: write_atomically(tmp_path / name, b"new"))
        assert path.read_bytes() == b"old"
        if code == FULL:
            assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "other"]


@CODES
def test_one_of_two_checkpoints_is_whole(tmp_path: Path, code: int) -> None:
    latest, previous = tmp_path / "latest", tmp_path / "previous"

    def write(step: int) -> None:
        save_checkpoint({"step": jax_step(step)}, latest, previous=previous)

    write(0)
    write(1)
    for first in range(1, changes(lambda: write(2), tmp_path) + 1):
        write(1)
        with disk(tmp_path, first, code):
            refusal(lambda: write(2))
        assert int(load_checkpoint({"step": jax_step(0)}, latest)["step"]) == 1
        assert int(load_checkpoint({"step": jax_step(0)}, previous)["step"]) in (1, 2)


def jax_step(step: int) -> object:
    import jax.numpy as jnp

    return jnp.asarray(step)


def test_a_log_of_less_than_a_line_is_an_empty_one(tmp_path: Path) -> None:
    line = b'{"step": 1, "loss": 0.5}\n'
    for length in range(len(line)):
        (tmp_path / METRICS_NAME).write_bytes(line[:length])
        assert read_metrics(tmp_path) == []
    (tmp_path / METRICS_NAME).write_bytes(b"no log")
    assert "is no log of a run" in refusal(lambda: read_metrics(tmp_path))


def test_a_line_that_does_not_fit_is_a_sentence(tmp_path: Path) -> None:
    append_to(tmp_path / "log", "first\n")
    for first in (1, 2, 3):
        with disk(tmp_path, first):
            assert "cannot be written (No space left" in refusal(lambda: append_to(tmp_path / "log", "second\n"))
    assert (tmp_path / "log").read_text().startswith("first\n")


def run(folder: Path, **options: bool) -> None:
    distill(TINY, folder, progress=False, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder)
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    for name in (DATASET_NAME, CHECKPOINT_NAME):
        assert (folder / name).read_bytes() == (undisturbed / name).read_bytes(), name
    assert logged(folder) == logged(undisturbed)


@pytest.mark.thorough(all_but=["0.0", "0.45", "1.0"])
@pytest.mark.slow
@pytest.mark.parametrize("share", [0.0, 0.15, 0.45, 0.6, 0.8, 1.0])
def test_a_run_on_a_disk_that_fails_goes_on_as_if_it_had_not(undisturbed: Path, tmp_path: Path, share: float) -> None:
    count = changes(lambda: run(tmp_path / "counted"), tmp_path)
    assert count > 30
    first = max(1, round(count * share))
    for code in (FULL, READ_ONLY):
        folder = tmp_path / str(code)
        with disk(folder, first, code):
            assert "cannot be written" in refusal(lambda folder=folder: run(folder))
        run(folder, resume=True)
        assert_same(folder, undisturbed)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 1.0])
def test_a_run_whose_folder_vanishes_ends_with_a_sentence(undisturbed: Path, tmp_path: Path, share: float) -> None:
    count = changes(lambda: run(tmp_path / "counted"), tmp_path)
    folder = tmp_path / "run"
    with disk(folder, round(count * share), happens=lambda: shutil.rmtree(folder)):
        said = refusal(lambda: run(folder))
    assert "was removed or replaced while it was in use" in said or "No such file" in said
    run(folder, overwrite=True)
    assert_same(folder, undisturbed)


def test_a_folder_that_was_replaced_is_not_the_one_that_is_held(tmp_path: Path) -> None:
    with hold(tmp_path / "run") as held:
        held.check()
        (tmp_path / "run").rename(tmp_path / "moved")
        assert "No such file" in refusal(held.check)
        shutil.copytree(tmp_path / "moved", tmp_path / "run")
        assert "was removed or replaced while it was in use (another .lock stands there)" in refusal(held.check)


@pytest.mark.parametrize("first", [1, 2, 3])
def test_an_earlier_run_outlives_an_overwrite_without_room(undisturbed: Path, tmp_path: Path, first: int) -> None:
    folder = tmp_path / "run"
    shutil.copytree(undisturbed, folder)
    names = (CONFIG_NAME, DATASET_NAME, CHECKPOINT_NAME, PREVIOUS_NAME, METRICS_NAME)
    before = {name: (folder / name).read_bytes() for name in names}
    other = dataclasses.replace(TINY, seed=1)
    (folder / ".lock").unlink()
    with disk(folder, first):
        refusal(lambda: distill(other, folder, overwrite=True, progress=False))
    assert {name: (folder / name).read_bytes() for name in names} == before


@pytest.mark.thorough
@pytest.mark.slow
def test_a_study_whose_folder_vanishes_or_fills_up_goes_on(tmp_path: Path) -> None:
    save(hand_dataset(), tmp_path / "dataset.safetensors")
    study = Transfer((tmp_path / "dataset.safetensors",), widths=(4, 8), draws=1, episodes=1)
    folder = tmp_path / "study"
    count = changes(lambda: run_study(study, folder), folder)
    wanted = (folder / "rows.csv").read_bytes()
    for first in (count // 3, count // 2):
        shutil.rmtree(folder)
        with disk(folder, first, happens=lambda: shutil.rmtree(folder)):
            assert "removed or replaced" in (said := refusal(lambda: run_study(study, folder))) or "No such" in said
        shutil.rmtree(folder, ignore_errors=True)
        with disk(folder, first):
            assert "No space left" in refusal(lambda: run_study(study, folder))
        run_study(study, folder, resume=True)
        assert (folder / "rows.csv").read_bytes() == wanted


def test_a_folder_that_may_not_be_read_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, **_: object) -> None:
        raise PermissionError(DENIED, os.strerror(DENIED), str(path))

    folder = tmp_path / "run"
    folder.mkdir()
    monkeypatch.setattr(Path, "exists", lambda path: denied(path) if path.parent == folder else True)
    for work in (lambda: run(folder), lambda: run(folder, resume=True)):
        assert f"{folder}/config.json cannot be read (Permission denied): check its permissions." in refusal(work)


def test_a_current_folder_that_is_gone_is_no_matter_or_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "dataset.safetensors"
    save(hand_dataset(), path)
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()
    assert main(["show", str(path)]) == 0
    capsys.readouterr()
    for words, wanted in (
        (["show", "dataset.safetensors"], "There is no such file"),
        (["show", str(path), "--import", "mine"], "The current folder cannot be searched"),
        (["train", str(path), "--save", "policies.safetensors"], "cannot be written (No such file"),
    ):
        assert main(words) == 2
        said = capsys.readouterr().err
        assert wanted in said and said.count("\n") == 1
    assert load(path).examples == 3
    monkeypatch.chdir(tmp_path)
