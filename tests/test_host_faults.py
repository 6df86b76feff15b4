"""Environments that fail, exit, hang or print, in whatever they are asked: one sentence, what was measured is kept."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from host_environments import PREFIX, Probe, probe, register
from probes import task_refusal

from floppy.cli.main import main
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_random
from floppy.play import open_arena
from floppy.play.host import HostArena, HostEnvironments
from floppy.tasks import Discrete, FaultyEnvironmentError
from floppy.tasks.base import FaultyEnvironmentWarning
from floppy.tasks.faults import environment_code, patience, patience_now


class MuteError(Exception):
    def __str__(self) -> str:
        return 1 / 0  # type: ignore[return-value]


RAISED: dict[str, Callable[[], BaseException]] = {
    "SystemExit": SystemExit,
    "KeyError": lambda: KeyError("joint"),
    "StopIteration": StopIteration,
    "CancelledError": asyncio.CancelledError,  # no Exception
    "RecursionError": lambda: RecursionError("maximum recursion depth exceeded"),
    "MuteError": MuteError,
}
PLACES = ("init", "observation_space", "action_space", "spec", "reset", "step")


class Failing(Probe):
    """Fails in one place."""

    def __init__(self, place: str, fault: Callable[[], BaseException]) -> None:
        self.place, self.fault = place, fault
        self.at("init")

    def at(self, place: str) -> None:
        if self.__dict__.get("place") == place:
            raise self.fault()

    def __getattribute__(self, name: str) -> Any:
        if name in ("observation_space", "action_space", "spec"):
            object.__getattribute__(self, "at")(name)
        return super().__getattribute__(name)

    def reset(self, **options: Any) -> Any:
        self.at("reset")
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.at("step")
        return super().step(action)


for place in PLACES:
    for kind, fault in RAISED.items():
        register(f"Failing-{place}-{kind}", Failing, place=place, fault=fault)


@pytest.mark.parametrize("kind", RAISED)
@pytest.mark.parametrize("place", PLACES)
def test_whatever_an_environment_raises_is_one_sentence(
    place: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = f"gymnasium/{PREFIX}Failing-{place}-{kind}-v0"
    assert main(["baseline", task, "--method", "random", "--episodes", "2", "--json"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"floppy: {task} ")
    assert said.err.count("\n") == 1
    assert kind in said.err


@pytest.mark.parametrize("place", PLACES)
def test_the_traceback_is_that_of_the_environment(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    task = f"gymnasium/{PREFIX}Failing-{place}-KeyError-v0"
    assert main(["baseline", task, "--method", "random", "--episodes", "2", "--traceback"]) == 2
    said = capsys.readouterr().err
    assert "raise self.fault()" in said
    assert said.splitlines()[-1].startswith(f"floppy: {task} ")


# --- closing ---


class Closing(Probe):
    """Fails when closed, after so many times."""

    closed = 0

    def __init__(self, fault: Any, after: int = 0) -> None:
        self.fault, self.after = fault, after

    def close(self) -> None:
        Closing.closed += 1
        if Closing.closed > self.after:
            self.fault()


def leave() -> None:
    sys.exit()


def fail() -> None:
    raise AttributeError("no viewer")


def sleep() -> None:
    time.sleep(60)


@pytest.fixture
def closing() -> Iterator[None]:
    Closing.closed = 0
    yield
    Closing.closed = 0


for name, what in {"exits": leave, "raises": fail, "hangs": sleep}.items():
    for after in (0, 1, 3):
        register(f"Closing-{name}-{after}", Closing, fault=what, after=after)


@pytest.mark.usefixtures("closing")
@pytest.mark.parametrize("after", [0, 1])
def test_an_error_while_closing_counts_for_nothing(after: int) -> None:
    assert evaluate_random(probe(f"Closing-raises-{after}"), episodes=2).episodes == 2


@pytest.mark.usefixtures("closing")
@pytest.mark.parametrize(
    ("fault", "wanted"), [("exits", "called sys.exit when closed"), ("hangs", "did not return from close within 0.1 s")]
)
def test_an_environment_that_ends_or_stops_the_program_when_closed_is_named(fault: str, wanted: str) -> None:
    with patience(0.1):
        assert wanted in task_refusal(f"gymnasium/{PREFIX}Closing-{fault}-0-v0")


@pytest.mark.usefixtures("closing")
@pytest.mark.parametrize(
    ("fault", "wanted"), [("exits", "called sys.exit when closed"), ("hangs", "did not return from close within 0.1 s")]
)
def test_what_was_measured_is_printed_before_a_fault_of_closing(
    fault: str, wanted: str, capsys: pytest.CaptureFixture[str]
) -> None:
    task = f"gymnasium/{PREFIX}Closing-{fault}-3-v0"  # a look at it closes one, its check two
    with patience(0.1):
        assert main(["baseline", task, "--method", "random", "--episodes", "20", "--json", "--traceback"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["score"]["episodes"] == 20
    assert said.err.count(wanted) == 2, "the error of the traceback, and the sentence once"
    assert f"in {'leave' if fault == 'exits' else 'sleep'}" in said.err


@pytest.mark.usefixtures("closing")
def test_a_vector_that_fails_to_close_is_not_closed_again() -> None:
    row = HostEnvironments(probe("Closing-raises-1"), 1, training=False)
    row.close()
    assert row.vector.closed


# --- hangs ---


class Hanging(Probe):
    """Sleeps in one place."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.at("make")

    def at(self, place: str) -> None:
        if place == self.place:
            with contextlib.suppress(Exception):  # as retrying code does
                time.sleep(60)

    def reset(self, **options: Any) -> Any:
        self.at("reset")
        return super().reset(**options)

    def step(self, action: Any) -> Any:
        self.at("step")
        return super().step(action)


for place in ("make", "reset", "step"):
    register(f"Hanging-{place}", Hanging, place=place)


def test_a_hung_make_is_named() -> None:
    with patience(0.1):
        said = task_refusal(f"gymnasium/{PREFIX}Hanging-make-v0")
    assert "did not return from make within 0.1 s: repair the environment, or give a longer" in said


@pytest.mark.parametrize("call", ["reset", "step"])
def test_a_hung_call_is_named(call: str) -> None:
    task, before = probe(f"Hanging-{call}"), signal.getsignal(signal.SIGALRM)
    with (
        pytest.raises(FaultyEnvironmentError, match=f"did not return from {call} within 0.1 s: repair"),
        open_arena(task, step_timeout=0.1) as arena,
    ):
        arena.play_random(task, jax.random.key(0), 2)
    assert signal.getsignal(signal.SIGALRM) == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), True, np.True_, "1", 10**400])
def test_a_time_limit_is_a_number_above_0(seconds: Any) -> None:
    with pytest.raises(FloppyError, match="step_timeout must be a number of seconds above 0"):
        HostArena(step_timeout=seconds)


@pytest.mark.parametrize("seconds", [np.int64(5), np.float32(5), 5])
def test_a_time_limit_may_be_any_number(seconds: Any) -> None:
    with patience(seconds):
        assert patience_now() == 5.0
        assert type(patience_now()) is float
    assert HostArena(step_timeout=seconds).step_timeout == 5.0


def test_there_may_be_no_time_limit() -> None:
    with environment_code("task", "stepped", float("inf")):
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_on_other_threads_there_is_no_time_limit() -> None:
    seen = []

    def call() -> None:
        with environment_code("task", "stepped", 0.01):
            seen.append(signal.getitimer(signal.ITIMER_REAL))
            time.sleep(0.05)

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert seen == [(0.0, 0.0)]


@pytest.mark.parametrize("due", [0.2, 50.0])
def test_an_alarm_of_somebody_elses_stays(due: float) -> None:
    rung: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: rung.append(1))
    try:
        signal.setitimer(signal.ITIMER_REAL, due)
        with environment_code("task", "stepped", 10.0):
            time.sleep(0.3)
        left, _ = signal.getitimer(signal.ITIMER_REAL)
        assert bool(rung) == (due < 1)
        assert left == 0 if rung else due - 2 < left < due - 0.2
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_what_a_hung_call_raises_instead_is_a_hang_too() -> None:
    def stubborn() -> None:
        try:
            time.sleep(60)
        except BaseException as error:
            raise RuntimeError("interrupted") from error

    with (
        pytest.raises(FaultyEnvironmentError, match=r"did not return from step"),
        environment_code("t", "stepped", 0.1),
    ):
        stubborn()


def test_a_call_that_swallows_the_first_alarm_meets_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floppy.tasks.faults.AGAIN", 0.05)
    with pytest.raises(FaultyEnvironmentError, match="did not return"), environment_code("t", "stepped", 0.05):
        with contextlib.suppress(BaseException):
            time.sleep(60)
        time.sleep(60)


class Stubborn(Probe):
    """Swallows all that is raised to end it, until it has been given up."""

    given_up: ClassVar[list[str]] = []

    def __init__(self, place: str) -> None:
        self.place = place

    def at(self, place: str) -> None:
        deadline = time.monotonic() + 20
        while place == self.place and not self.given_up and time.monotonic() < deadline:
            with contextlib.suppress(BaseException):
                time.sleep(60)

    def step(self, action: Any) -> Any:
        self.at("step")
        return super().step(action)

    def close(self) -> None:
        self.at("close")


for place in ("step", "close"):
    register(f"Stubborn-{place}", Stubborn, place=place)


@pytest.mark.parametrize("call", ["step", "close"])
def test_a_call_that_swallows_every_alarm_ends_the_program(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stubborn, "given_up", [])
    monkeypatch.setattr("floppy.tasks.faults.AGAIN", 0.05)
    monkeypatch.setattr("floppy.tasks.faults.GRACE", 0.2)
    monkeypatch.setattr("floppy.cli.base.end", lambda sentence, code: Stubborn.given_up.append(f"{code} {sentence}"))
    task = f"gymnasium/{PREFIX}Stubborn-{call}-v0"
    with patience(0.1):
        main(["baseline", task, "--method", "random", "--episodes", "2"])
    assert Stubborn.given_up == [
        f"2 {task} did not return from {call} within 0.1 s, and swallows what is raised to end it: repair the "
        "environment; a run in a folder goes on from its last checkpoint with --resume."
    ]


def test_in_python_such_a_call_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floppy.tasks.faults.AGAIN", 0.05)
    monkeypatch.setattr("floppy.tasks.faults.GRACE", 0.1)
    deadline = time.monotonic() + 1
    with pytest.warns(match="swallows what is raised") as said, environment_code("t", "stepped", 0.05):
        while time.monotonic() < deadline:
            with contextlib.suppress(BaseException):
                time.sleep(60)
    assert len(said) == 1


def test_ctrl_c_passes() -> None:
    with pytest.raises(KeyboardInterrupt), environment_code("t", "stepped"):
        raise KeyboardInterrupt


# --- vectors of one's own ---


class Sound(Probe):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def observation(self) -> Any:
        return np.zeros(2, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)


@dataclasses.dataclass(frozen=True)
class Hosted:
    """A host task whose vector is odd in the way named."""

    oddity: str
    observation_shape: tuple[int, ...] = (2,)
    actions: Discrete = dataclasses.field(default_factory=lambda: Discrete(2))
    max_steps: int = 5
    max_return: float | None = None
    package: str = "floppy"

    @property
    def task_id(self) -> str:
        return f"hosted/{self.oddity}"

    def make_vector(self, count: int, *, training: bool) -> Any:
        vector: Any = Odd([Sound] * count, autoreset_mode=AutoresetMode.SAME_STEP)
        vector.oddity = self.oddity
        return vector


class Odd(SyncVectorEnv):
    oddity = ""

    def step(self, actions: Any) -> Any:
        observations, rewards, terminated, truncated, infos = super().step(actions)
        if self.oddity == "lists":
            return observations, rewards.tolist(), terminated.tolist(), truncated.tolist(), infos
        if self.oddity == "text":
            return observations, ["much"] * 2, terminated, truncated, infos
        if self.oddity == "matrix":
            return observations, np.ones((2, 2)), terminated, truncated, infos
        return observations, rewards, terminated, truncated, {"no final_obs": {}, "no infos": None}[self.oddity]


def test_flags_and_rewards_may_be_lists() -> None:
    assert evaluate_random(Hosted("lists"), episodes=4).mean == 0.0


@pytest.mark.parametrize("oddity", ["no final_obs", "no infos"])
def test_missing_final_observations_are_named(oddity: str) -> None:
    row = HostEnvironments(Hosted(oddity), 2, training=False)
    row.reset(np.arange(2))
    with pytest.raises(FaultyEnvironmentError, match=r"gave no final_obs in the infos .*AutoresetMode.SAME_STEP"):
        row.step(np.zeros(2, int))


@pytest.mark.parametrize(
    ("oddity", "wanted"), [("text", "returned no numbers as its reward"), ("matrix", r"a reward of shape \(2,\)")]
)
def test_rewards_that_are_no_row_of_numbers_are_named(oddity: str, wanted: str) -> None:
    row = HostEnvironments(Hosted(oddity), 2, training=False)
    row.reset(np.arange(2))
    with pytest.raises(FaultyEnvironmentError, match=wanted):
        row.step(np.zeros(2, int))


def test_a_vector_that_exits_when_closed_is_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Odd, "close", lambda _: sys.exit())
    with pytest.raises(FaultyEnvironmentError, match=r"hosted/lists called sys.exit when closed"):
        evaluate_random(Hosted("lists", max_steps=6), episodes=4)


# --- what is printed ---

TALKATIVE = """
import atexit, os, gymnasium, numpy as np
print("imported")
atexit.register(print, "bye")

class Talks(gymnasium.Env):
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self):
        print("made")
        os.write(1, b"from below Python")
        os.system("echo from a program")

    @property
    def observation_space(self):
        print("space")
        return gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        print("reset")
        return np.zeros(2, np.float32), {}

    def step(self, action):
        print("step")
        return np.zeros(2, np.float32), 1.0, True, False, {}

    def close(self):
        print("closed")

    def __del__(self):
        print("thrown away")

gymnasium.register("Talkative-v0", Talks, max_episode_steps=3)
"""


@pytest.mark.slow
def test_stdout_holds_the_result_alone(tmp_path: Path) -> None:
    (tmp_path / "talkative.py").write_text(TALKATIVE)
    words = ["baseline", "gymnasium/Talkative-v0", "--import", "talkative", "--method", "random", "--episodes", "2"]
    command = [sys.executable, "-m", "floppy", *words, "--json"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False, env=dict(os.environ)
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["score"]["mean"] == 1.0
    for said in ("imported", "made", "from below Python", "from a program", "step", "closed", "thrown away", "bye"):
        assert said in done.stderr


def test_a_warning_of_closing_has_its_cause() -> None:
    row = HostEnvironments(Hosted("lists"), 1, training=False)
    row.vector.close = leave
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        row.close()
    (warning,) = caught
    assert warning.category is FaultyEnvironmentWarning
    assert isinstance(warning.message, Warning)
    assert isinstance(warning.message.__cause__, FaultyEnvironmentError)
