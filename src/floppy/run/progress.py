"""What a run shows of its progress on stderr: a bar with the time remaining, or plain lines where it is no terminal."""

import collections
import datetime
import math
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

RECENT = 8
"""Calls, each of steps and their evaluation, by whose pace the time remaining is estimated."""


class ProgressCallback(Protocol):
    """What is called after each compiled call, in place of the bar."""

    def __call__(self, done: int, total: int, figures: dict[str, float]) -> None:
        """Steps done, steps in all, and the latest figures by name."""


class ProgressBar:
    """A bar on stderr; plain lines where stderr is no terminal."""

    def __init__(self, total: int) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[figures]}"))
        self._bar = Progress(*columns, TimeElapsedColumn(), console=self._console, disable=not self.is_terminal)
        self._row = self._bar.add_task(f"0/{total} steps", total=total, figures="compiling")
        self._first: tuple[int, float] | None = None
        self._recent: collections.deque[tuple[int, float]] = collections.deque(maxlen=RECENT + 1)
        self._limit: Callable[[], float] = lambda: math.inf
        self._scoring: Callable[[], float] = lambda: 0.0

    @property
    def is_terminal(self) -> bool:
        """Whether somebody looks."""
        return self._console.is_terminal

    def __enter__(self) -> Self:
        """Shows the bar."""
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Leaves the bar as it is."""
        self._bar.stop()

    def ends(self, limit: Callable[[], float], scoring: Callable[[], float]) -> None:
        """What decides about the end beside the steps: seconds to the time limit, and those of the final score."""
        self._limit, self._scoring = limit, scoring

    def seconds_left(self, total: int) -> float | None:
        """An estimate by the latest calls; None before there are two, the first of which has compiled, and at the end.

        A run that reaches the task's maximum ends before.
        """
        done, now = self._recent[-1]
        before, then = self._recent[0]
        if done in (before, total):
            return None
        steps = (total - done) * (now - then) / (done - before)
        return max(0.0, min(steps + self._scoring(), self._limit()))

    def __call__(self, done: int, total: int, figures: dict[str, float]) -> None:
        """After steps: the score, the speed and the time remaining."""
        now = time.monotonic()
        self._recent.append((done, now))
        text = f"score {figures['score']:.1f}, best {figures['best']:.1f}"
        if self._first is None:  # the first call holds the compilation
            self._first = (done, now)
        else:
            text += f", {(done - self._first[0]) / max(now - self._first[1], 1e-9):.1f} steps/s"
        if (left := self.seconds_left(total)) is not None:
            text += f", about {datetime.timedelta(seconds=round(left))} left"
        self._bar.update(self._row, completed=done, description=f"{done}/{total} steps", figures=text)
        if not self.is_terminal:
            print(f"step {done}/{total}: {text}", file=sys.stderr, flush=True)

    def scoring(self, what: str) -> None:
        """Before the last evaluation."""
        self._bar.update(self._row, description="scoring", figures=what, completed=0, total=None)
        if not self.is_terminal:
            print(f"scoring {what}", file=sys.stderr, flush=True)
