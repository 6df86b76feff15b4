"""Loggers: what they are told, what of it a resumed run repeats, and that none of them ends a run."""

import csv
import dataclasses
import json
import struct
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY

import floppy
from floppy.cli.main import main
from floppy.errors import FloppyError
from floppy.run.folder import About, begin, read_metrics
from floppy.run.loggers import LOGGERS, Loggers, find_loggers

CONFIG = {"task": "ndcartpole/1"}


def lines(*steps: int, **figures: Any) -> list[dict[str, Any]]:
    """Steps with a loss, and with more figures in the last one."""
    made: list[dict[str, Any]] = [{"step": step, "loss": step / 2} for step in steps]
    made[-1] |= figures
    return made


def begun(folder: Path, *names: str, earlier: Any = ()) -> Loggers:
    loggers = Loggers()
    loggers.begin(find_loggers(list(names), folder), folder, CONFIG, earlier)
    return loggers


class Remote(types.ModuleType):
    """What W&B's and Trackio's modules have in common, in memory."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.began: list[dict[str, Any]] = []
        self.told: list[tuple[int, dict[str, float]]] = []
        self.ended = 0
        self.fails_at: int | None = None

    def init(self, **options: Any) -> "Remote":
        self.began.append(options)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        if step == self.fails_at:
            raise ConnectionError("no network")
        self.told.append((step, figures))

    def finish(self) -> None:
        self.ended += 1


@pytest.fixture(params=["wandb", "trackio"])
def remote(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Remote:
    """A module of that name, as if it were installed."""
    module = Remote(request.param)
    monkeypatch.setitem(sys.modules, request.param, module)
    return module


# --- What each of them keeps.


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_a_column_that_comes_later_is_empty_before(tmp_path: Path) -> None:
    loggers = begun(tmp_path, "csv")
    loggers.log(lines(1, 2))
    assert (tmp_path / "metrics.csv").read_text() == "step,loss\n1,0.5\n2,1.0\n"
    loggers.log(lines(3, 4, selection_score=None, seconds=7.5))
    loggers.log(lines(5))
    wanted = "step,loss,selection_score,seconds\n1,0.5,,\n2,1.0,,\n3,1.5,,\n4,2.0,,7.5\n5,2.5,,\n"
    assert (tmp_path / "metrics.csv").read_text() == wanted


def test_a_figure_of_any_name_has_its_column(tmp_path: Path) -> None:
    loggers = begun(tmp_path, "csv")
    for step in (1, 2):
        loggers.log([{"step": step, 'my "loss", mean': 0.5} | ({"more": 1.0} if step == 2 else {})])
    assert [row['my "loss", mean'] for row in rows(tmp_path)] == ["0.5", "0.5"]


def test_a_resumed_run_writes_its_csv_anew_from_the_log(tmp_path: Path) -> None:
    begun(tmp_path, "csv").log(lines(1, 2, 3))
    loggers = begun(tmp_path, "csv", earlier=lines(1, 2))  # step 3 was after the checkpoint
    loggers.log(lines(3, 4))
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3", "4"]


def events(folder: Path) -> Iterator[Any]:
    """Those of every file, in the order in which they were written: TFRecords of protocol buffers."""
    from tensorboardX.proto.event_pb2 import Event

    for path in sorted((folder / "tensorboard").iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            (length,) = struct.unpack("<Q", data[:8])
            yield Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]


def test_tensorboard_has_a_scalar_per_figure(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (extra [tensorboard])")
    loggers = begun(tmp_path, "tensorboard")
    loggers.log(lines(1, 2, selection_score=30.0))
    loggers.close()
    found = [(e.step, v.tag, v.simple_value) for e in events(tmp_path) for v in e.summary.value]
    assert found == [(1, "loss", 0.5), (2, "loss", 1.0), (2, "selection_score", 30.0)]


def test_tensorboard_drops_what_a_kill_has_undone(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is not installed (extra [tensorboard])")
    for told, earlier in ((lines(1, 2, 3, 4), ()), (lines(3, 4, 5), lines(1, 2))):
        loggers = begun(tmp_path, "tensorboard", earlier=earlier)
        loggers.log(told)
        loggers.close()
    kept: list[int] = []
    for event in events(tmp_path):
        if event.HasField("session_log"):  # a start: from its step on it replaces what was before
            kept = [step for step in kept if step < event.step]
        kept += [event.step for value in event.summary.value if value.tag == "loss"]
    assert kept == [1, 2, 3, 4, 5]


def test_a_service_gets_every_step_once(tmp_path: Path, remote: Remote) -> None:
    name = remote.__name__
    loggers = begun(tmp_path, name)
    loggers.log(lines(1, 2, selection_score=None, bad=float("nan"), compiles=True))
    loggers.log(lines(3))
    loggers.close()
    again = begun(tmp_path, name, earlier=lines(1, 2))  # step 3 was after the checkpoint
    again.log(lines(3, 4))
    again.close()
    assert remote.told == [
        (1, {"loss": 0.5}),
        (2, {"loss": 1.0, "compiles": 1.0}),
        (3, {"loss": 1.5}),
        (4, {"loss": 2}),
    ]
    first, second = remote.began
    assert first == second, "the same run there"
    assert (first["project"], first["resume"], first["config"]) == ("floppy", "allow", CONFIG)
    assert remote.ended == 2


def test_another_run_in_the_folder_is_another_one_for_a_service(tmp_path: Path, remote: Remote) -> None:
    for _ in range(2):
        begin(tmp_path, TINY, About("", [], []))  # as --overwrite does
        assert not (tmp_path / "loggers.json").exists()
        begun(tmp_path, remote.__name__).log(lines(1))
    first, second = remote.began
    assert first != second
    assert [step for step, _ in remote.told] == [1, 1]


def test_a_logger_that_joins_hears_of_the_steps_before(tmp_path: Path, remote: Remote) -> None:
    begun(tmp_path, "csv").log(lines(1, 2))
    begun(tmp_path, "csv", remote.__name__, earlier=lines(1, 2)).log(lines(3))
    assert [step for step, _ in remote.told] == [1, 2, 3]


@pytest.mark.parametrize("state", [b"", b"[1]", b"[" * 100_000, b'{"csv": {"key": "../x", "step": 1}}', b'{"csv": 3}'])
def test_a_state_that_makes_no_sense_is_none(state: bytes, tmp_path: Path) -> None:
    (tmp_path / "loggers.json").write_bytes(state)
    begun(tmp_path, "csv").log(lines(1))
    (entry,) = json.loads((tmp_path / "loggers.json").read_text()).values()
    assert entry["step"] == 1 and len(entry["key"]) == 16


# --- None of them ends a run.


def test_one_that_fails_is_named_once_and_left_out(
    tmp_path: Path, remote: Remote, capsys: pytest.CaptureFixture[str]
) -> None:
    remote.fails_at = 2
    loggers = begun(tmp_path, remote.__name__, "csv")
    loggers.log(lines(1))
    for step in (2, 3):
        loggers.log(lines(step))
    loggers.close()
    said = f"floppy: the run goes on without logger {remote.__name__} (ConnectionError: no network)\n"
    assert capsys.readouterr() == ("", said)
    assert [step for step, _ in remote.told] == [1]
    assert [row["step"] for row in rows(tmp_path)] == ["1", "2", "3"]


def test_one_that_does_not_even_start_is_left_out(
    tmp_path: Path, remote: Remote, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(**_: Any) -> None:
        raise SystemExit(1)

    monkeypatch.setattr(remote, "init", refuse)
    begun(tmp_path, remote.__name__).log(lines(1))
    assert "goes on without logger" in capsys.readouterr().err


def test_a_full_disk_costs_the_file_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "metrics.csv").mkdir()  # what cannot be written, whoever runs this
    begun(tmp_path, "csv").log(lines(1))
    assert "goes on without logger csv (FloppyError: " in capsys.readouterr().err


def test_ctrl_c_is_no_fault_of_a_logger(tmp_path: Path, remote: Remote, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(remote, "log", interrupt)
    with pytest.raises(KeyboardInterrupt):
        begun(tmp_path, remote.__name__).log(lines(1))


# --- Refused before anything runs.


@pytest.mark.parametrize(
    ("names", "wanted"),
    [
        (["nosuch"], "logger must be one of csv, tensorboard, trackio, wandb, got 'nosuch'."),
        ("csv,", "got ''"),
        ([3], "log must be names of loggers"),
        (None, "log must be names of loggers (csv, tensorboard, trackio, wandb), got None"),
        (["absent"], "--log absent needs no_such_package, which is not installed: pip install 'floppy-rl[absent]'."),
        (["broken"], "--log broken needs broken_package, which cannot be imported (RuntimeError: half installed)"),
    ],
)
def test_what_cannot_log_is_said_before_the_run(
    names: Any, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('half installed')\n")
    monkeypatch.syspath_prepend(tmp_path)
    for name, package in (("absent", "no_such_package"), ("broken", "broken_package")):
        if name in (names or ()):
            monkeypatch.setitem(LOGGERS._members, name, type(name, (), {"package": package, "extra": name}))
    with pytest.raises(FloppyError) as caught:
        floppy.distill(TINY, tmp_path / "run", log=names)
    assert wanted in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_run_in_memory_has_no_place_for_them() -> None:
    with pytest.raises(FloppyError, match="has no folder for its loggers: give out"):
        floppy.distill(TINY, log="csv")


def test_the_command_says_it_in_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "cartpole", "--log", "csv,nosuch", "--out", str(tmp_path / "run")]
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("floppy: logger must be one of csv")
    assert not (tmp_path / "run").exists()


# --- In a run.


@pytest.mark.thorough
@pytest.mark.slow
def test_a_run_goes_on_with_another_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    service = Remote("trackio")
    monkeypatch.setitem(sys.modules, "trackio", service)
    config = dataclasses.replace(TINY, outer_steps=3, evaluate_every=1)
    plain = floppy.distill(config, tmp_path / "plain", progress=False).dataset
    floppy.distill(config, tmp_path / "run", progress=False, log="csv", time_limit=0.0)
    assert len(rows(tmp_path / "run")) == 1
    result = floppy.distill(config, tmp_path / "run", progress=False, log=["csv,trackio"], resume=True)
    assert result.dataset.targets.tobytes() == plain.targets.tobytes()
    logged = read_metrics(tmp_path / "run")
    assert [(int(row["step"]), float(row["seconds"])) for row in rows(tmp_path / "run")] == [
        (line["step"], line["seconds"]) for line in logged
    ]
    assert list(rows(tmp_path / "run")[0]) == list(logged[0])
    assert [step for step, _ in service.told] == [1, 2, 3]
    assert (service.began[0]["name"][:4], service.ended) == ("run-", 1)
