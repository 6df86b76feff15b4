"""`.npz` files that are not what they say, for the tests of what reads them."""

import io
import zipfile
from pathlib import Path

import numpy as np


def npy_header(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    """What stands before an array's values."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": kind, "fortran_order": False, "shape": shape})
    return file.getvalue()


def write_members(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    """A zip archive of `.npy` files of these contents."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return path


def announce(path: Path, kind: str = "|u1", **shapes: tuple[int, ...]) -> Path:
    """A file of which the arrays announce shapes of bytes, and hold a thousand zeros."""
    return write_members(path, {name: npy_header(shape, kind) + bytes(1000) for name, shape in shapes.items()})
