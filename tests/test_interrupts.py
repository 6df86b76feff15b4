"""Ctrl-C and SIGTERM end a program at any moment in one line; what never returns is noticed."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from floppy.cli import interrupts
from floppy.cli.main import COMMANDS, RESUMABLE
from floppy.run.interrupts import Stop, Watchdog, running_stop, stoppable
from floppy.studies.registry import STUDIES

pytestmark = pytest.mark.slow

HANGS = """
import signal, sys, time
{setup}
sys.argv = ["floppy", "distill", "cartpole"]
from floppy.cli.main import main, program
module = sys.modules["floppy.cli.main"]
{work}
sys.exit(program())
"""
MAIN_IS_BUSY = """
import hashlib
def busy(words):
    print("ready", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 10**9)  # a call into C of minutes, in which Python handles no signal
module._answer = busy
"""
IMPORTS = """
import builtins
before = builtins.__import__
def slow(name, *rest):
    if name == "jax":
        print("ready", flush=True)
        time.sleep(60)
    return before(name, *rest)
builtins.__import__ = slow
"""
EXIT_TAKES_LONG = """
import atexit
atexit.register(time.sleep, 60)  # as of a computation that the end of Python waits for
def wait(words):
    print("ready", flush=True)
    time.sleep(60)
module._answer = wait
"""
TERMINAL = "signal.signal(signal.SIGINT, signal.default_int_handler)  # which shells withhold from what runs behind"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
@pytest.mark.parametrize("work", [MAIN_IS_BUSY, IMPORTS, EXIT_TAKES_LONG], ids=["in C", "importing", "then waits"])
def test_a_signal_ends_the_program_within_two_seconds(number: int, work: str) -> None:
    code = HANGS.format(setup=TERMINAL, work=work)
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "ready\n"
    started = time.monotonic()
    process.send_signal(number)
    _, said = process.communicate(timeout=60)
    assert time.monotonic() - started < 4  # two seconds, on a machine with nothing else to do
    assert (process.returncode, said) == (130, "floppy: interrupted; the same command with --resume goes on\n")


def test_a_command_goes_on_if_it_has_the_option() -> None:
    for name in COMMANDS:
        options = {option.name for option in COMMANDS[name].parser(["cartpole"]).options.values()}
        assert ("resume" in options) == (name in RESUMABLE or name in STUDIES), name


@pytest.fixture
def terminal() -> Iterator[None]:
    """Ctrl-C means what it does in a terminal, also where a shell runs pytest behind."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("terminal")
def test_a_run_is_asked_to_stop_and_a_second_signal_interrupts(capsys: pytest.CaptureFixture[str]) -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    with pytest.raises(KeyboardInterrupt), stoppable() as stop:
        assert running_stop() is stop and not stop.is_set()
        stop.has_steps = True
        signal.raise_signal(signal.SIGINT)
        assert stop.is_set()
        signal.raise_signal(signal.SIGINT)
    assert capsys.readouterr().err.count("Ctrl-C again stops at once") == 1
    assert running_stop() is None
    assert {number: signal.getsignal(number) for number in before} == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_without_steps_is_interrupted_at_once(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    """While the first ones are traced, which takes long on a busy machine, there is nothing to score."""
    with pytest.raises(KeyboardInterrupt), stoppable():
        signal.raise_signal(number)
    assert capsys.readouterr().err == ""
    assert running_stop() is None


def test_other_threads_are_told_of_no_signal() -> None:
    found: list[Stop] = []

    def work() -> None:
        with stoppable() as stop:
            found.append(stop)
            assert running_stop() is None

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert not found[0].is_set()


def test_a_call_that_does_not_return_is_noticed() -> None:
    said: list[str] = []
    with Watchdog(0.05, said.append) as watchdog:
        assert watchdog.allowed == pytest.approx(0.3)  # the first call compiles
        watchdog.beat()
        deadline = time.monotonic() + 20
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    assert len(said) == 1
    assert said[0].startswith("No progress for ") and "with --resume" in said[0]


def test_calls_may_take_twenty_times_the_longest(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog = Watchdog(600.0, lambda _: None)
    assert watchdog.allowed == 3600.0
    for took, allowed in ((10.0, 600.0), (100.0, 2000.0), (1.0, 2000.0)):
        now[0] += took
        watchdog.beat()
        assert watchdog.allowed == allowed


def test_a_call_that_is_expected_is_the_first_one_where_none_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the last scoring of a run that is finished already: it compiles."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    watchdog = Watchdog(600.0, lambda _: None)
    watchdog.expect(0.0)
    assert watchdog.allowed == 3600.0
    watchdog.beat()
    watchdog.expect(100.0)
    assert watchdog.allowed == 2000.0
    watchdog.beat()
    assert watchdog.allowed == 600.0


@pytest.mark.thorough
def test_a_run_that_hangs_ends_with_its_checkpoint(tmp_path: Path) -> None:
    code = """
import sys, time
import floppy.run.interrupts as interrupts
import floppy.run.loop as loop
from floppy.cli.main import main
interrupts.FIRST_CALL, interrupts.USUAL_CALLS = 1000.0, 1.0  # it compiles, on a machine that may be busy
before, calls = loop.Run.steps, []
def steps(self, *rest):
    calls.append(0)
    if len(calls) == 3:
        time.sleep(60)
    return before(self, *rest)
loop.Run.steps = steps
small = "--distribution width=4:depth=1:initialiser=xavier --outer-steps 8 --evaluate-every 1 --learners 2"
small += " --horizon 4 --environments 1 --selection-learners 2"
sys.exit(main(["distill", "cartpole", *small.split(), "--out", sys.argv[1], "--step-timeout", "1"]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "floppy: No progress for" in done.stderr.splitlines()[-1]
    assert (tmp_path / "run/checkpoints/latest.safetensors").exists()


def test_a_signal_that_the_run_has_seen_ends_nothing_however_late_this_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On a busy machine the thread that answers may sleep until its patience is over."""
    monkeypatch.setattr(interrupts, "PATIENCE", 0.0)
    ended: list[int] = []
    monkeypatch.setattr(interrupts, "end", lambda _, code: ended.append(code))
    with stoppable() as stop:
        stop.has_steps = True
        stop()
        stop.has_steps = False  # when the thread looked
        interrupts.Interrupts(lambda: "interrupted")._answer(is_first=True)
    assert ended == []
