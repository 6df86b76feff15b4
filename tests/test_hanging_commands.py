"""`train` and `evaluate` that hang end with a sentence, and processes whose partner has gone."""

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import hand_dataset

from floppy import parallel
from floppy.cli import base, datasets
from floppy.cli.main import main
from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import Evaluation, evaluate
from floppy.parallel import LostProcessError, losses_said
from floppy.run import interrupts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("hanging") / "dataset.safetensors"
    save(hand_dataset(), path)
    return path


@pytest.mark.parametrize("name", ["train", "evaluate"])
def test_a_command_that_hangs_ends_with_a_sentence(
    name: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []

    def hangs(*given: Any, **more: Any) -> Any:
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
        raise FloppyError("It came back.")

    monkeypatch.setattr(base, "end", lambda sentence, code: said.append(f"{code} {sentence}"))
    monkeypatch.setattr(interrupts, "FIRST_CALL", 1.0)
    monkeypatch.setattr(datasets, name, hangs)
    more = ["--episodes", "1", "--task", "ndcartpole/1"] if name == "evaluate" else []
    assert main([name, str(dataset), "--learners", "1", "--step-timeout", "0.05", *more]) == 2
    assert said == ["2 No progress for 0 s: give a longer --step-timeout, or fewer learners."]
    assert capsys.readouterr().err == "floppy: It came back.\n"


def test_every_distribution_that_is_scored_is_progress(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Evaluation, "of_lesson", lambda *_, **__: np.ones((1, 1)))
    seen: list[str] = []
    scores = evaluate(load(dataset), distributions="lambda, xavier", learners=1, episodes=1, progress=seen.append)
    assert seen == list(scores) == ["lambda", "xavier"]


def test_the_limit_must_be_one(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("train", "evaluate"):
        assert main([name, str(dataset), "--step-timeout", "0"]) == 2
        assert "step_timeout must be a number of seconds above 0" in capsys.readouterr().err


# --- partners ---


@pytest.mark.parametrize(
    ("error", "processes", "wanted"),
    [
        (ValueError("UNKNOWN: Gloo all-reduce failed: Read error: Connection reset by peer"), 2, LostProcessError),
        (RuntimeError("UNAVAILABLE: the coordination service"), 2, LostProcessError),
        (ValueError("Gloo all-reduce failed"), 1, ValueError),
        (ValueError("something of ours"), 2, ValueError),
        (FloppyError("Gloo is no task."), 2, FloppyError),
    ],
)
def test_the_loss_of_a_partner_is_said(
    error: Exception, processes: int, wanted: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel.jax, "process_count", lambda: processes)
    with pytest.raises(wanted) as caught, losses_said():
        raise error
    assert type(caught.value) is wanted
    if wanted is LostProcessError:
        assert "start all of them once more, with --resume" in str(caught.value)


def test_an_abort_below_python_becomes_a_sentence() -> None:
    code = """
import os
from floppy.cli.interrupts import answer_aborts
answer_aborts("the other one has gone.")
os.abort()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "floppy: the other one has gone.\n")


def test_one_of_several_processes_waits_for_nobody() -> None:
    code = """
import atexit, time
from floppy.cli.interrupts import answer_aborts, leave_at_once
atexit.register(time.sleep, 60)
leave_at_once(0)
answer_aborts("")
print("said", end="")
leave_at_once(2)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=50)
    assert (done.returncode, done.stdout) == (2, "said")
