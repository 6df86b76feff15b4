"""The fence around environments' own code: whatever it raises, and a call that hangs, becomes one sentence."""

import contextlib
import contextvars
import math
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from numbers import Real
from typing import Any, Self

from floppy.errors import FloppyError, raised, shown
from floppy.tasks.base import FaultyEnvironmentError

STEP_TIMEOUT = 600.0
"""Seconds that a call of an environment may take where nothing else is said."""
AGAIN = 1.0
"""Seconds between alarms after the first: code may swallow one."""
GRACE = 5.0
"""Seconds after the first alarm till a call that swallows all of them is given up."""
LONGEST = 1e8
"""Seconds beyond which there is no limit."""

_PATIENCE = contextvars.ContextVar("step timeout", default=STEP_TIMEOUT)

CALLS = {"made": "make", "reset": "reset", "stepped": "step", "closed": "close"}
"""What is called, by what is done to the environment."""


def as_step_timeout(seconds: Any) -> float:
    """A time limit as Python's own number; NumPy's are taken too, and infinity stands for no limit.

    Raises:
      FloppyError: unless it is a number above 0 that a float can hold.
    """
    try:
        limit = float(seconds) if isinstance(seconds, Real) and not isinstance(seconds, bool) else math.nan
    except OverflowError:
        limit = math.nan
    if not limit > 0:
        raise FloppyError(f"step_timeout must be a number of seconds above 0, inf for no limit, got {shown(seconds)}.")
    return limit


@contextlib.contextmanager
def patience(seconds: float) -> Iterator[None]:
    """Changes the default time limit of all calls of environments within.

    Args:
      seconds: that make, reset, step and close may take each.

    Raises:
      FloppyError: for a limit that is not above 0.
    """
    token = _PATIENCE.set(as_step_timeout(seconds))
    try:
        yield
    finally:
        _PATIENCE.reset(token)


def patience_now() -> float:
    """The default time limit of calls, in seconds."""
    return _PATIENCE.get()


_ON_STALL: contextvars.ContextVar[Callable[[str], None] | None] = contextvars.ContextVar("on stall", default=None)


@contextlib.contextmanager
def stalls_end(on_stall: Callable[[str], None]) -> Iterator[None]:
    """Has `on_stall` called with a sentence when a run within stalls; a program ends then.

    What stalls is a compiled call that does not return, or an environment's that swallows what should end it.
    """
    token = _ON_STALL.set(on_stall)
    try:
        yield
    finally:
        _ON_STALL.reset(token)


def on_stall_now() -> Callable[[str], None] | None:
    """What is called when a run stalls."""
    return _ON_STALL.get()


class _OutOfTime(BaseException):
    """Raised within a call that hangs; no `Exception`, for environments may catch all of these."""


class _Alarm:
    """Raises `_OutOfTime` in the code within after so many seconds.

    It needs the main thread and a system with timers, else it does nothing; one takes about 15 µs. Code below Python
    that never returns cannot be ended so, and code that swallows whatever is raised is given up after a while, of which
    `give_up` is told once. Another alarm that is set already stays, and goes first if it is due first.
    """

    def __init__(self, seconds: float, give_up: Callable[[], None]) -> None:
        self.seconds, self.give_up = seconds, give_up
        self.rang = False
        self._is_armed = self._is_given_up = False

    def __enter__(self) -> Self:
        is_main = threading.current_thread() is threading.main_thread()
        if not is_main or not hasattr(signal, "setitimer") or self.seconds > LONGEST:
            return self
        due, _ = signal.getitimer(signal.ITIMER_REAL)
        if 0 < due <= self.seconds:
            return self
        self._started = time.monotonic()
        self._before = signal.signal(signal.SIGALRM, self._ring)
        self._is_armed = True
        self._timer = signal.setitimer(signal.ITIMER_REAL, self.seconds, AGAIN)
        return self

    def __exit__(self, *_: object) -> None:
        if not self._is_armed:
            return
        self._is_armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL if self._before is None else self._before)
        due, every = self._timer
        if due:
            signal.setitimer(signal.ITIMER_REAL, max(due - (time.monotonic() - self._started), 1e-3), every)

    def _ring(self, *_: Any) -> None:
        if not self._is_armed:
            return
        self.rang = True
        if not self._is_given_up and time.monotonic() > self._started + self.seconds + GRACE:
            self._is_given_up = True
            self.give_up()
        raise _OutOfTime


@contextlib.contextmanager
def in_time(task_id: str, done: str, seconds: float | None = None) -> Iterator[None]:
    """Ends a call of an environment that hangs.

    Args:
      task_id: of its task.
      done: to the environment: made, reset, stepped or closed.
      seconds: that it may take; None for what `patience` says.

    Raises:
      FaultyEnvironmentError: when the time is up.
    """
    limit = _PATIENCE.get() if seconds is None else seconds

    def late() -> str:  # a sentence for every step would take its time
        return f"{task_id} did not return from {CALLS[done]} within {limit:g} s"

    def give_up() -> None:
        (on_stall_now() or warnings.warn)(
            f"{late()}, and swallows what is raised to end it: repair the environment; a run in a folder goes on from "
            "its last checkpoint with --resume."
        )

    alarm = _Alarm(limit, give_up)
    try:
        with alarm:
            yield
    except BaseException as error:
        if not alarm.rang or isinstance(error, KeyboardInterrupt):
            raise
        raise FaultyEnvironmentError(
            f"{late()}: repair the environment, or give a longer step timeout (--step-timeout)."
        ) from error


@contextlib.contextmanager
def environment_code(task_id: str, done: str, seconds: float | None = None) -> Iterator[None]:
    """Turns whatever an environment's own code raises, `sys.exit` included, into an error that names its task.

    Args:
      task_id: of its task.
      done: to the environment: made, reset, stepped or closed.
      seconds: that it may take; None for what `patience` says.

    Raises:
      FaultyEnvironmentError: for whatever is raised, and when the time is up; a `FloppyError` and Ctrl-C pass.
    """
    try:
        with in_time(task_id, done, seconds):
            yield
    except (FloppyError, KeyboardInterrupt):
        raise
    except BaseException as error:  # an environment's own code may raise anything
        raise FaultyEnvironmentError(
            f"{task_id} raised an error when {done} ({raised(error)}): repair the environment."
        ) from error


def fault_of_closing(task_id: str, close: Callable[[], object], seconds: float | None = None) -> FloppyError | None:
    """Closes environments; errors while closing are ignored, for what they gave before counts all the same.

    Args:
      task_id: of their task.
      close: what closes them.
      seconds: that it may take; None for what `patience` says.

    Returns:
      What is to be said of a call of `sys.exit`, and of a hang; None where there is nothing to say.
    """
    try:
        with in_time(task_id, "closed", seconds):
            close()
    except KeyboardInterrupt:
        raise
    except FaultyEnvironmentError as fault:
        return fault
    except SystemExit as error:
        called = FaultyEnvironmentError(f"{task_id} called sys.exit when closed: repair the environment.")
        called.__cause__ = error
        return called
    except BaseException:
        return None
    return None
