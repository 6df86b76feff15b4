"""Ctrl-C and SIGTERM during a run, and calls that never return."""

import contextlib
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)

FIRST_CALL = 6.0
"""The first compiled call, which holds the compilation, may take so many times the limit."""

USUAL_CALLS = 20.0
"""A call may take so many times the longest one before it, however short the limit is."""


class Stop:
    """What a run asks whether it is to stop. A second signal interrupts at once, in the middle of a step."""

    def __init__(self) -> None:
        self.has_steps = False
        """Whether this process has steps to score; before, an interruption loses nothing."""
        self._event, self._announced = threading.Event(), False
        self._before = {number: signal.getsignal(number) for number in SIGNALS}

    def __call__(self, *_: object) -> None:
        """As a signal's handler.

        Raises:
          KeyboardInterrupt: where there is nothing to score yet, as while the first steps are traced.
        """
        self.restore()
        if not self.has_steps:
            raise KeyboardInterrupt
        self._event.set()
        self.announce()

    def announce(self) -> None:
        """Says once what happens now; it may come long before Python handles the signal."""
        if not self._announced:
            self._announced = True
            print(
                "stopping after the steps under way, then scoring what was reached; Ctrl-C again stops at once",
                file=sys.stderr,
                flush=True,
            )

    def is_set(self) -> bool:
        """Whether a signal has come."""
        return self._event.is_set()

    def restore(self) -> None:
        """Signals do again what they did before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)


_running: list[Stop] = []
"""Those of the runs in this process, of which a signal means the last: signals belong to the whole process."""


def running_stop() -> Stop | None:
    """What a signal means at the moment, if a run is under way."""
    return _running[-1] if _running else None


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Turns Ctrl-C and SIGTERM into a question, so that a run ends between two compiled calls."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():  # no other thread is told of signals
        yield stop
        return
    _running.append(stop)
    for number in SIGNALS:
        signal.signal(number, stop)
    try:
        yield stop
    finally:
        _running.remove(stop)
        stop.restore()


GO_ON = (
    "a run in a folder goes on from its last checkpoint with --resume; give a longer --step-timeout if the steps are "
    "that long"
)


class Watchdog:
    """Notices that no progress has been made: XLA can hang for ever, and Python cannot end its calls.

    A call may take the limit, or `USUAL_CALLS` times as long as the longest before it if that is more; the first one,
    which compiles, may take `FIRST_CALL` times the limit.
    """

    def __init__(self, limit: float, on_stall: Callable[[str], None], remedy: str = GO_ON) -> None:
        """Watches nothing yet.

        Args:
          limit: in seconds.
          on_stall: called once, in a thread of its own, with a sentence.
          remedy: how that sentence ends.
        """
        self._limit, self._on_stall, self._remedy = limit, on_stall, remedy
        self._last, self._longest = time.monotonic(), 0.0
        self._expected, self._calls, self._ended = 0.0, 0, threading.Event()

    def __enter__(self) -> Self:
        """Begins to watch."""
        threading.Thread(target=self._watch, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Ends watching."""
        self._ended.set()

    def beat(self) -> None:
        """Between two calls."""
        now = time.monotonic()
        self._longest = max(self._longest, now - self._last)
        self._last, self._calls, self._expected = now, self._calls + 1, 0.0

    def expect(self, seconds: float) -> None:
        """Before a call that is expected to take so long; no call has ended."""
        self._last, self._expected = time.monotonic(), seconds

    @property
    def allowed(self) -> float:
        """Seconds that the call under way may take."""
        return max(self._limit * (1.0 if self._calls else FIRST_CALL), USUAL_CALLS * max(self._longest, self._expected))

    def _watch(self) -> None:
        while not self._ended.wait(max(0.05, min(1.0, self._limit / 10))):
            if time.monotonic() - self._last > self.allowed:
                self._on_stall(f"No progress for {self.allowed:.0f} s: {self._remedy}.")
                return
