"""Arrays of `.npz` files from anywhere: sizes are checked before memory is taken, and nothing in them is ever run.

`numpy.load` believes what a file announces: 12 MB of zeros, compressed, become 3 GB. Here the shape in each array's own
header is checked against a limit first, and no more than the announced bytes are decompressed.
"""

import io
import math
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from floppy.errors import FloppyError, one_line, shown
from floppy.files import MEBIBYTE, as_path, check_file, size_text

MOST_FILE_BYTES = 4096 * MEBIBYTE
"""Of an .npz file: beyond that the zip format needs extensions."""

MOST_DIRECTORY_BYTES = MEBIBYTE
"""Of the list of arrays in it, which takes ten times the memory once it is read."""

MOST_HEADER_BYTES = 16 * 1024
"""Of what stands before an array's values: NumPy's own header has a hundred bytes."""

CHUNK = MEBIBYTE
"""Bytes that are read at a time."""

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Of compression: those that NumPy writes. Others can ask for gigabytes of working memory."""

READERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
    (3, 0): np.lib.format.read_array_header_2_0,  # they differ in the alphabet of fields' names, which nothing asks for
}
"""Of the headers of .npy files, by the version of the format."""

WHAT = "an .npz file"


class _Member(NamedTuple):
    """An array that is not read yet."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    is_fortran: bool
    start: int
    """Bytes of the header."""

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return math.prod(self.shape) * self.dtype.itemsize


class _BoundedFile(io.FileIO):
    """A file that is never read in large pieces: zipfile reads the whole directory in one, however long it says it is.

    The values are read in chunks anyway.
    """

    def read(self, size: int | None = -1, /) -> bytes:
        most = MOST_DIRECTORY_BYTES
        if size is not None and size > most:
            raise zipfile.BadZipFile(f"its directory has more than {size_text(most)}")
        content = super().read(most + 1 if size is None or size < 0 else size)
        if len(content) > most:
            raise zipfile.BadZipFile(f"its end has more than {size_text(most)}")
        return content


def read_npz(
    path: Path,
    wanted: Callable[[str, np.dtype], bool],
    *,
    most: int,
    what: str = WHAT,
    remedy: str = "leave out what is not needed",
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Some arrays of an .npz file, in the machine's byte order.

    Args:
      path: the file; `~` is the home folder.
      wanted: whether an array of this name and type is to be read; the others cost nothing.
      most: bytes of all arrays that are read.
      what: the file should be, as messages call it.
      remedy: what to do about arrays that are too large, for the message.

    Returns:
      The arrays by name, and the names of all that the file holds.

    Raises:
      FloppyError: for a file that is missing, a folder, no regular file, unreadable, no .npz or damaged; for arrays
        beyond the limit, before memory is taken for them; and for Python objects, which are never loaded.
    """
    path = as_path(path)
    check_file(path, what, most=MOST_FILE_BYTES)
    try:
        file = _BoundedFile(path)
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): check its permissions.") from error
    with file:
        try:
            return _read(file, path, wanted, most, remedy)
        except FloppyError:
            raise
        # A broken archive raises whatever zipfile, zlib or NumPy happens to raise; RecursionError and MemoryError come
        # from headers, which are text.
        except Exception as error:
            raise FloppyError(_broken(path, file, error)) from error


def _broken(path: Path, file: _BoundedFile, error: Exception) -> str:
    file.seek(0)
    begin = file.read(6)
    said = one_line(error)
    if begin.startswith(b"PK"):
        return f"{path} is no readable .npz ({said}): give a whole file, as numpy.savez writes it."
    found = "a single .npy array" if begin == b"\x93NUMPY" else "no .npz archive"
    return f"{path} is {found}: give a file that numpy.savez wrote."


def _read(
    file: _BoundedFile, path: Path, wanted: Callable[[str, np.dtype], bool], most: int, remedy: str
) -> tuple[dict[str, np.ndarray], list[str]]:
    # zipfile asks a file for no more than what `IO` promises.
    with zipfile.ZipFile(file) as archive:
        infos = {info.filename.removesuffix(".npy"): info for info in archive.infolist()}
        members = []
        for name, info in infos.items():
            member = _header(archive, name, info)
            if member is not None and wanted(name, member.dtype):
                members.append(_checked(path, member))
        size = sum(member.size for member in members)
        if size > most:
            largest = max(members, key=lambda member: member.size)
            raise FloppyError(
                f"{path} announces {size_text(size)} of arrays, {shown(largest.name)} alone {size_text(largest.size)} "
                f"of shape {largest.shape} and type {largest.dtype}, of which {size_text(most)} are read at most: "
                f"{remedy}."
            )
        return {member.name: _values(archive, path, member, infos[member.name]) for member in members}, list(infos)


def _header(archive: zipfile.ZipFile, name: str, info: zipfile.ZipInfo) -> _Member | None:
    """What an array's header says; None for what is no array."""
    if info.compress_type not in METHODS:
        raise zipfile.BadZipFile(f"{name} is compressed by method {info.compress_type}")
    with archive.open(info) as file:
        head = io.BytesIO(_up_to(file, MOST_HEADER_BYTES))
    if not head.getvalue().startswith(np.lib.format.MAGIC_PREFIX):
        return None
    version = np.lib.format.read_magic(head)
    if version not in READERS:
        raise ValueError(f"{name} is of version {'.'.join(map(str, version))} of the .npy format, later than 3.0")
    shape, is_fortran, dtype = READERS[version](head)
    if any(length < 0 for length in shape) or not (dtype.itemsize or 0 in shape):
        raise ValueError(f"{name} is of shape {shape} and type {dtype}")
    return _Member(name, shape, dtype, is_fortran, head.tell())


def _checked(path: Path, member: _Member) -> _Member:
    if member.dtype.hasobject:
        raise FloppyError(
            f"{path} holds Python objects in {member.name}, which are never loaded, for they can run code: save "
            "numbers or text."
        )
    return member


def _values(archive: zipfile.ZipFile, path: Path, member: _Member, info: zipfile.ZipInfo) -> np.ndarray:
    """The announced values of an array, no byte more, no byte less."""
    values = np.empty(member.size, np.uint8)  # which takes memory only as it is filled
    with archive.open(info) as file:
        _up_to(file, member.start)
        at = 0
        while at < member.size and (got := file.read(min(CHUNK, member.size - at))):
            values[at : at + len(got)] = np.frombuffer(got, np.uint8)
            at += len(got)
        # Reading on beyond the end checks the checksum, too.
        if at < member.size or file.read(1):
            held = "fewer" if at < member.size else "more"
            raise FloppyError(
                f"{path} announces {member.size} bytes of {member.name} and holds {held}: give the whole file, as "
                "numpy.savez wrote it."
            )
    # A byte above 1 is no truth value.
    typed = values != 0 if member.dtype == bool else values.view(member.dtype) if member.size else None
    array = np.empty(0, member.dtype) if typed is None else typed
    array = array.reshape(member.shape[::-1]).T if member.is_fortran else array.reshape(member.shape)
    return array.astype(member.dtype.newbyteorder("="), copy=False)


def _up_to(file: IO[bytes], most: int) -> bytes:
    """The next bytes of a file, fewer where it ends."""
    parts = []
    while most > 0 and (got := file.read(most)):
        parts.append(got)
        most -= len(got)
    return b"".join(parts)


def listed_arrays(names: list[str]) -> str:
    """The names of a file's arrays as they appear in a message: the first few of them."""
    some = ", ".join(name if len(name) <= 40 else shown(name) for name in sorted(names)[:12]) or "nothing"
    return some if len(names) <= 12 else f"{some} and {len(names) - 12} more"
