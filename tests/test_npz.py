"""Reading `.npz` files from anywhere: within limits, without running anything, whatever they hold."""

import io
import os
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from npz_files import announce, npy_header, write_members

from floppy.errors import FloppyError
from floppy.npz import read_npz

LIMIT = 1000


def read(path: Path, most: int = LIMIT) -> dict[str, np.ndarray]:
    """The array `a`."""
    return read_npz(path, lambda name, _: name == "a", most=most)[0]


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.arange(6, dtype=">i2"),
        np.float32(3),
        np.zeros((0, 4)),
        np.array([True, False]),
        np.array(["one", "zwölf"]),
        np.array([b"a", b"bc"]),
        np.array([1, 2], np.longdouble),
    ],
    ids=["floats", "Fortran", "big-endian", "scalar", "empty", "truths", "words", "bytes", "long"],
)
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_are_those_of_numpy(tmp_path: Path, array: np.ndarray, save: object) -> None:
    save(tmp_path / "a.npz", a=array, b=np.zeros(10_000))  # type: ignore[operator]
    got = read(tmp_path / "a.npz")["a"]
    assert got.dtype == np.asarray(array).dtype.newbyteorder("=")
    assert got.dtype.isnative
    np.testing.assert_array_equal(got, array)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_arrays_are_read_from_every_version_of_the_format(tmp_path: Path, version: tuple[int, int]) -> None:
    content = io.BytesIO()
    np.lib.format.write_array(content, np.arange(6.0).reshape(2, 3), version=version)
    path = write_members(tmp_path / "a.npz", {"a": content.getvalue()})
    np.testing.assert_array_equal(read(path)["a"], np.arange(6.0).reshape(2, 3))


def test_all_names_are_listed_and_only_the_wanted_ones_count(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.ones(3), large=np.zeros(LIMIT), objects=np.array([{}]))
    arrays, names = read_npz(tmp_path / "a.npz", lambda name, dtype: name == "a", most=LIMIT)
    assert (list(arrays), names) == (["a"], ["a", "large", "objects"])
    with pytest.raises(FloppyError, match=r"announces 7.84 KiB of arrays, 'large' alone 7.81 KiB .* 1000 bytes"):
        read_npz(tmp_path / "a.npz", lambda name, dtype: dtype.kind == "f", most=LIMIT)
    with pytest.raises(FloppyError, match="Python objects in objects, which are never loaded"):
        read_npz(tmp_path / "a.npz", lambda name, dtype: name == "objects", most=LIMIT)


LONG_HEADER = b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**32 - 1)
WRONG: dict[str, tuple[bytes, str]] = {
    "cut": (npy_header((40,)) + bytes(39), "announces 40 bytes of a and holds fewer"),
    "more": (npy_header((40,)) + bytes(41), "announces 40 bytes of a and holds more"),
    "negative": (npy_header((-1, 40)), "shape"),
    "nothing-many-times": (npy_header((10**12,), "<U0"), "type <U0"),
    "header-of-4-gigabytes": (LONG_HEADER + bytes(30_000), "no readable .npz"),
    "nested-header": (b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"(" * 9000, "no readable .npz"),
    "sides-without-bound": (npy_header((10**30, 0)), "no readable .npz"),
    "later-version": (b"\x93NUMPY\x04\x00" + bytes(100), "a is of version 4.0 of the .npy format, later than 3.0"),
    "no-dtype": (npy_header((3,), "q9"), "no readable .npz"),
}


@pytest.mark.parametrize("name", WRONG)
def test_arrays_that_are_not_what_they_say_are_refused(tmp_path: Path, name: str) -> None:
    content, complaint = WRONG[name]
    with pytest.raises(FloppyError, match=complaint):
        read(write_members(tmp_path / "a.npz", {"a": content}))


def test_what_is_no_array_is_left_alone(tmp_path: Path) -> None:
    assert read(write_members(tmp_path / "a.npz", {"a": b"text", "b": npy_header((3,), "|O")})) == {}


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_other_compression_is_refused(tmp_path: Path, method: int) -> None:
    with pytest.raises(FloppyError, match="compressed by method"):
        read(write_members(tmp_path / "a.npz", {"a": npy_header((3,)) + bytes(3)}, method))


def test_a_checksum_that_is_wrong_is_refused(tmp_path: Path) -> None:
    path = write_members(tmp_path / "a.npz", {"a": npy_header((40,)) + b"x" * 40}, zipfile.ZIP_STORED)
    content = path.read_bytes()
    path.write_bytes(content.replace(b"x" * 40, b"x" * 39 + b"y"))
    with pytest.raises(FloppyError, match="CRC"):
        read(path)


def test_files_of_other_kinds_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "text").write_text("no archive")
    os.mkfifo(tmp_path / "pipe")
    np.save(tmp_path / "single.npy", np.ones(3))
    np.savez(tmp_path / "sound.npz", a=np.ones(3))
    (tmp_path / "half").write_bytes((tmp_path / "sound.npz").read_bytes()[:100])
    wrong = {
        "absent": "There is no such file",
        "folder": "This is a folder",
        "pipe": "not a regular file",
        "text": "is no .npz archive",
        "single.npy": "is a single .npy array",
        "half": "is no readable .npz",
    }
    for name, complaint in wrong.items():
        with pytest.raises(FloppyError, match=complaint):
            read(tmp_path / name)
    monkeypatch.setattr("floppy.npz._BoundedFile", lambda _: (tmp_path / "folder").open())
    with pytest.raises(FloppyError, match=r"cannot be read .*: check its permissions"):
        read(tmp_path / "sound.npz")


def test_refusing_takes_little_memory(tmp_path: Path) -> None:
    """Of announced gigabytes, of real ones behind a small header, and of a directory of a million names."""
    real = write_members(tmp_path / "real.npz", {"a": npy_header((3,)) + bytes(50_000_000)})
    large = announce(tmp_path / "large.npz", a=(3_000_000_000,))
    many = tmp_path / "many.npz"
    with zipfile.ZipFile(many, "w") as archive:
        archive.writestr("a" * 60_000, b"")
    # One entry of the directory, repeated as often as it takes.
    content = many.read_bytes()
    start = content.index(b"PK\x01\x02")
    entry, end = content[start:-22], bytearray(content[-22:])
    struct.pack_into("<HHI", end, 8, 1000, 1000, 1000 * len(entry))
    many.write_bytes(content[:start] + 1000 * entry + end)
    tracemalloc.start()
    try:
        for path, complaint in ((real, "holds more"), (large, "announces 2.79 GiB"), (many, "more than 1 MiB")):
            with pytest.raises(FloppyError, match=complaint):
                read(path)
        assert tracemalloc.get_traced_memory()[1] < 8 * 2**20
    finally:
        tracemalloc.stop()
