"""A program that can be interrupted at any moment: also while it imports, or while XLA compiles."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType

SIGNALS = (signal.SIGINT, signal.SIGTERM)
PATIENCE = 1.5
"""Seconds in which Python itself may answer a signal; it cannot while a call of XLA's runs."""

USER_ERROR, INTERRUPTED = 2, 130


class Interrupts:
    """Answers signals in a thread of its own, where the main thread cannot."""

    def __init__(self, sentence: Callable[[], str]) -> None:
        self.sentence = sentence
        self.is_answered = threading.Event()
        """Set by the main thread, once it has seen the interruption."""

    def listen(self, reader: int) -> None:
        """Reads the numbers of signals as they come in."""
        count = 0
        while number := os.read(reader, 1):
            if number[0] in SIGNALS:
                count += 1
                self._answer(is_first=count == 1)

    def _answer(self, *, is_first: bool) -> None:
        runs = _loaded("floppy.run.interrupts")
        stop = runs.running_stop() if runs else None
        if is_first and stop is not None and stop.has_steps:
            stop.announce()
            return
        deadline = time.monotonic() + PATIENCE * is_first
        # Asked before the clock: on a busy machine this thread may sleep for longer than it wants to.
        while not (self.is_answered.is_set() or (is_first and stop is not None and stop.is_set())):
            if time.monotonic() >= deadline:
                end(self.sentence(), INTERRUPTED)
            time.sleep(0.02)


def _loaded(name: str) -> ModuleType | None:
    """A module, if all of it has been imported."""
    module = sys.modules.get(name)
    spec = getattr(module, "__spec__", None)
    return None if getattr(spec, "_initializing", True) else module


def end(sentence: str, code: int) -> None:
    """Ends the process at once, whatever its other threads are doing; files are whole at any moment."""
    cursor = "\x1b[?25h" if sys.stderr.isatty() else ""  # which a progress bar has hidden
    os.write(2, f"{cursor}floppy: {sentence}\n".encode())
    os._exit(code)


_answers: list[object] = []
"""What answers an abort, kept for as long as the process lives; there is one where processes share a run."""


def answer_aborts(sentence: str) -> None:
    """Says a sentence when code below Python aborts, and ends with the exit code of bad input.

    For processes that share a run: where the one that the others report to has gone, or one is not heard of for 100
    seconds, XLA ends the others by `abort`, of which Python's own handlers are told too late.

    Args:
      sentence: what is said.
    """
    import ctypes

    answer = ctypes.CFUNCTYPE(None, ctypes.c_int)(lambda _: end(sentence, USER_ERROR))
    _answers.append(answer)
    if os.name == "posix":
        ctypes.CDLL(None).signal(signal.SIGABRT, answer)


def leave_at_once(code: int) -> None:
    """Ends what has failed among processes that share a run, which then notice, and what was interrupted.

    Python would wait for the others, or for what XLA still computes.
    """
    if (_answers and code) or code == INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


@contextlib.contextmanager
def prompt_interrupts(sentence: Callable[[], str]) -> Iterator[Interrupts]:
    """Ctrl-C and SIGTERM end the program within two seconds, in one line.

    Args:
      sentence: what is said then.
    """
    interrupts = Interrupts(sentence)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=interrupts.listen, args=(reader,), daemon=True).start()
    try:
        yield interrupts
    finally:
        signal.set_wakeup_fd(-1)
        os.close(writer)
