"""Pictures as files: PNG, SVG and PDF, by the ends of their names."""

import os
from typing import TYPE_CHECKING

from floppy.errors import FloppyError
from floppy.figure import FORMATS, figure_bytes
from floppy.files import as_path, check_new_file, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def check_picture(path: str | os.PathLike[str], *, overwrite: bool = False) -> str:
    """Checks that a picture may be written, before it is drawn.

    Returns:
      The kind of file: `png`, `svg` or `pdf`.

    Raises:
      FloppyError: for a name that ends in none of these, and for what exists and is not to be replaced.
    """
    kind = as_path(path).suffix.lower().removeprefix(".")
    if kind not in FORMATS:
        ends = ", ".join(f".{each}" for each in FORMATS)
        raise FloppyError(f"{path} is no name for a picture, it must end in one of {ends}: give such a name.")
    check_new_file(path, overwrite=overwrite)
    return kind


def save_picture(figure: "Figure", path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a figure to a file, whole or not at all; the same figure gives the same bytes.

    Args:
      figure: such as `floppy.draw(dataset)`.
      path: the file, whose name ends in .png, .svg or .pdf.
      overwrite: whether a file that stands there may be replaced.

    Raises:
      FloppyError: see `check_picture`, and where it cannot be written.
    """
    kind = check_picture(path, overwrite=overwrite)
    write_atomically(path, figure_bytes(figure, kind))
