"""One process at a time works in a folder: a lock of the operating system, which ends with the process."""

import contextlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from floppy.errors import FloppyError, one_line
from floppy.files import remove_leftovers
from floppy.parallel import first_process_says, is_first_process

LOCK_NAME = ".lock"
"""The file that is locked; it stays behind, and says who held the lock last."""


class Held:
    """A folder that is held; what a run asks before it writes, hours after it began."""

    def __init__(self, lock: Path, identity: tuple[int, int] | None = None) -> None:
        self._lock, self._identity = lock, identity

    def check(self) -> None:
        """Checks that the folder is still there, and the same.

        Raises:
          FloppyError: if it was removed or replaced, or cannot be read any more.
        """
        if self._identity is None:  # another process holds it, and writes
            return
        try:
            is_same = _identity(self._lock) == self._identity
            why = f"another {LOCK_NAME} stands there"
        except OSError as error:
            is_same, why = False, one_line(error)
        if not is_same:
            raise FloppyError(
                f"{self._lock.parent} was removed or replaced while it was in use ({why}): put it back and give "
                "--resume, or begin in another folder."
            )


def _identity(path: Path) -> tuple[int, int]:
    """What tells a file from another one of its name."""
    found = path.stat()
    return found.st_dev, found.st_ino


@contextlib.contextmanager
def hold(folder: Path) -> Iterator[Held]:
    """Holds a folder, which is made if need be, against other runs; of processes that share a run the first one does.

    Raises:
      FloppyError: if a run holds it, with that run's process and host; or if the folder cannot be written.
    """
    lock, held, problem = None, Held(folder / LOCK_NAME), ""
    if is_first_process():
        try:
            lock, held = _locked(folder)
        except FloppyError as error:
            problem = str(error)
    if not first_process_says(not problem):  # the others would wait for the first one for ever
        raise FloppyError(problem or f"{folder} is held by another run: wait for it, or give another folder.")
    try:
        yield held
    finally:
        if lock is not None:
            lock.release()


def _locked(folder: Path) -> tuple[FileLock, Held]:
    path = folder / LOCK_NAME
    lock = FileLock(path, timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
        remove_leftovers(folder)
        path.write_text(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        return lock, Held(path, _identity(path))
    except Timeout:
        raise FloppyError(
            f"{folder} is in use by {_holder(path)}: wait for it, stop it, or give another folder."
        ) from None
    except OSError as error:
        lock.release()
        raise FloppyError(f"{folder} cannot be written ({one_line(error)}): give another folder.") from error


def _holder(path: Path) -> str:
    """Who wrote into a lock's file."""
    try:
        found = json.loads(path.read_bytes()[:1000])
        return f"process {int(found['pid'])} on {str(found['host'])[:100]}"
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return "another process"
