"""The datasets that come with the package, and their cards; docs/zoo.md is about them."""

import os

from floppy.dataset.file import MOST_BYTES
from floppy.dataset.zoo_index import Entry, Stated, entry, names
from floppy.files import check_new_file, read_file, write_atomically
from floppy.zoo.verification import Verified, verify


def copy(name: str, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Copies a dataset of the zoo to a file, whole or not at all.

    Args:
      name: as for `entry`.
      path: of the new file.
      overwrite: whether a file that stands there may be replaced.

    Raises:
      FloppyError: for a wrong name, or if the file cannot be read or written.
    """
    found = entry(name)
    check_new_file(path, overwrite=overwrite)
    write_atomically(path, read_file(found.path, "a dataset", most=MOST_BYTES))


__all__ = ["Entry", "Stated", "Verified", "copy", "entry", "names", "verify"]
