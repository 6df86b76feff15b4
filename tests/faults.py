"""Disks that fill up, or turn read-only, at a given write: every change of the files below a folder is counted."""

import builtins
import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

FULL = errno.ENOSPC
READ_ONLY = errno.EROFS
DENIED = errno.EACCES

NAMES = ("replace", "link", "mkdir")
"""Of functions in `os` that change a folder, and need room for it, unless they replace what is there."""
REMOVING = ("unlink", "rmdir")
"""Of those that work on a full disk too, but not on one that is read-only."""


class Writing:
    """A file that is written through the disk's count; half of what does not fit is there."""

    def __init__(self, file: Any, disk: "Disk") -> None:
        self._file, self._disk = file, disk

    def write(self, data: Any) -> int:
        if self._disk.fails():
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise self._disk.error()
        return int(self._file.write(data))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Disk:
    """Counts the changes of what lies below a folder."""

    def __init__(self, folder: Path, first: int | None, code: int, happens: Callable[[], object] | None) -> None:
        self._folder, self._first, self._code, self._happens = str(folder), first, code, happens
        self.changes = 0
        """So far, those that failed included."""
        self.files: set[int] = set()
        """Descriptors of what is written."""

    def fails(self) -> bool:
        """Counts a change; whether it fails, as all after the first that does."""
        self.changes += 1
        if self._happens is not None:
            if self.changes == self._first:
                self._happens()
            return False
        return self._first is not None and self.changes >= self._first

    def error(self, *names: object) -> OSError:
        return OSError(self._code, os.strerror(self._code), *names)

    def holds(self, path: object) -> bool:
        """Whether it is below the folder."""
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self._folder)

    def check(self, path: object) -> None:
        """Counts a change of a path, and raises if it fails."""
        if self.holds(path) and self.fails():
            raise self.error(str(path))


@contextmanager
def disk(
    folder: Path, first: int | None, code: int = FULL, happens: Callable[[], object] | None = None
) -> Iterator[Disk]:
    """Has all changes below a folder fail from a first one on, which is counted from 1; with None nothing fails.

    What counts: files that Python opens to write, their writes and `fsync`, and the functions of `os` by which folders
    change. With `happens` this is called before the first one, and nothing fails but for what it did.
    """
    counted = Disk(folder, first, code, happens)
    plain_open, plain_fsync, plain_os_open = io.open, os.fsync, os.open

    def opened(file: Any, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if not (set(mode) & set("wxa+") and counted.holds(file)):
            return plain_open(file, mode, *rest, **more)
        counted.check(file)
        writing = plain_open(file, mode, *rest, **more)
        counted.files.add(writing.fileno())
        return Writing(writing, counted)

    def os_opened(path: Any, flags: int, *rest: Any, **more: Any) -> int:
        if flags & os.O_CREAT:
            counted.check(path)
        return plain_os_open(path, flags, *rest, **more)

    def synced(descriptor: int) -> None:
        if descriptor in counted.files and counted.fails():
            raise counted.error()
        plain_fsync(descriptor)

    def changing(plain: Any) -> Any:
        def changed(path: Any, *rest: Any, **more: Any) -> Any:
            made = rest[0] if rest and isinstance(rest[0], str | os.PathLike) else path
            if more.get("dir_fd") is None and (code != FULL or not os.path.exists(made)):
                counted.check(path)
            return plain(path, *rest, **more)

        return changed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(builtins, "open", opened)
        patch.setattr(io, "open", opened)
        patch.setattr(os, "open", os_opened)
        patch.setattr(os, "fsync", synced)
        for name in (*NAMES, *(REMOVING if code != FULL else ())):
            patch.setattr(os, name, changing(getattr(os, name)))
        yield counted
