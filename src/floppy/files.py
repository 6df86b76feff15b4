"""Files: paths as people type them, reading within limits, writing whole or not at all."""

import errno
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path

from floppy.errors import OVERWRITE, FloppyError, one_line, shown

TEMPORARY_FILES = ".floppy-*.tmp"
"""What a write that was killed may leave behind."""

MEBIBYTE = 2**20


def as_path(path: str | os.PathLike[str]) -> Path:
    """A path of which `~` is the home folder.

    Raises:
      FloppyError: for what is no path, an empty text among it, or a `~` that stands for no folder.
    """
    if path == "":
        raise FloppyError("A path must not be empty: name a file or folder.")
    try:
        return Path(path).expanduser()
    except (TypeError, RuntimeError) as error:  # RuntimeError: HOME is unset, or there is no such user
        raise FloppyError(f"{shown(path)} is no path ({one_line(error)}): write it out, as text.") from error


def is_there(path: Path) -> bool:
    """Whether a path leads to anything.

    Raises:
      FloppyError: if that cannot be told, as in a folder that may not be read.
    """
    try:
        return path.exists()
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): check its permissions.") from error


def check_new_file(path: str | os.PathLike[str], *, overwrite: bool) -> None:
    """Checks that a file may be written.

    Raises:
      FloppyError: for a folder, for what else is no file, and for what exists and is not to be replaced.
    """
    path = as_path(path)
    _check_place(path)
    if not overwrite and os.path.lexists(path):
        raise FloppyError(f"{path} exists already: give {OVERWRITE} or another name.")


KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
"""What no file may take the place of."""


def what_blocks(path: Path) -> str:
    """What stands at a path so that no file can be written there, such as `a device`; empty for a file or nothing."""
    try:
        return KINDS.get(stat.S_IFMT(path.stat().st_mode), "")
    except OSError as error:
        is_loop = error.errno == errno.ELOOP and path.is_symlink()
        return "a symbolic link that leads to itself" if is_loop else ""
    except ValueError:  # a name that no file could have, which writing will say
        return ""


def _check_place(path: Path) -> None:
    """Checks that nothing but a file stands where one is to be written."""
    if found := what_blocks(path):
        remedy = "give the name of a file in it" if found == KINDS[stat.S_IFDIR] else "give another name"
        raise FloppyError(f"{path} cannot be written (it is {found}): {remedy}.")


def check_file(path: Path, what: str, *, most: int) -> None:
    """Checks that a path is a regular file of bounded size: a pipe would wait for ever, a device never end.

    Args:
      path: where it should be.
      what: it should be, as messages call it: `a dataset`.
      most: bytes.

    Raises:
      FloppyError: saying what it is in place of that.
    """
    try:
        found = path.stat()
    except FileNotFoundError:
        raise FloppyError(f"{path}: There is no such file: give the path of {what}.") from None
    except (OSError, ValueError) as error:  # ValueError: a name that no file could have
        raise FloppyError(f"{shown(str(path))} cannot be read ({one_line(error)}): give the path of {what}.") from error
    if stat.S_ISDIR(found.st_mode):
        raise FloppyError(f"{path}: This is a folder: give the path of {what} inside it.")
    if not stat.S_ISREG(found.st_mode):
        raise FloppyError(f"{path}: This is not a regular file: copy it to one first.")
    if found.st_size > most:
        raise FloppyError(f"{path} has {size_text(found.st_size)}, {what} may have {size_text(most)} at most.")


def read_file(path: Path, what: str, *, most: int) -> bytes:
    """All bytes of a regular file; arguments and errors as of `check_file`."""
    check_file(path, what, most=most)
    try:
        return path.read_bytes()
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): check its permissions.") from error


def size_text(size: float) -> str:
    """A size in bytes, as people say it."""
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.3g} {unit}"
        size /= 1024
    return f"{size:.3g} GiB"


def write_atomically(path: str | os.PathLike[str], data: bytes, *, before: Callable[[], None] = lambda: None) -> None:
    """Writes bytes to a file so that no reader, and no crash, ever meets half of them.

    The bytes go to a temporary file in the same folder, which then takes the place of `path` in one step. On
    failure the temporary file is removed and a file that stood there before is as it was. A symbolic link stays one:
    the file that it points to is replaced, and keeps its permissions.

    Args:
      path: the file; missing parent folders are made.
      data: all of its bytes.
      before: called when they are on the disk, before they take the place of what stood there.

    Raises:
      FloppyError: if the file cannot be written, is read-only, or is none, but a device, say.
    """
    path = as_path(path)
    _check_place(path)
    try:
        target = Path(os.path.realpath(path))
        mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else None
        if mode is not None and not mode & stat.S_IWUSR:
            raise FloppyError(f"{path} is read-only: choose another name, or make it writable.")
        temporary = target.parent / TEMPORARY_FILES.replace("*", secrets.token_hex(8))
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            if mode is not None:
                temporary.chmod(mode)
            before()
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a name that no file could have
        if isinstance(error, FloppyError):
            raise
        raise _not_written(path, error) from error


def remove_leftovers(folder: Path) -> None:
    """Removes what writes that were killed have left behind in a folder, once that is held."""
    for leftover in folder.glob(TEMPORARY_FILES):
        leftover.unlink(missing_ok=True)


def append_to(path: Path, text: str) -> None:
    """Adds text to a file, and has it on the disk before it returns.

    Raises:
      FloppyError: if it cannot be written.
    """
    _check_place(path)
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _not_written(path, error) from error


def _not_written(path: Path, error: Exception) -> FloppyError:
    return FloppyError(f"{path} cannot be written ({one_line(error)}): choose a folder that is writable and has room.")
