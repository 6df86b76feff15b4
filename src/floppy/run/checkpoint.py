"""Saving and restoring a run's state, a pytree of arrays, as one file with a checksum that is replaced atomically.

Orbax was tried first: it refuses arrays of size 0, which a discrete policy's `log_std` is.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from floppy.errors import OVERWRITE, FloppyError, one_line
from floppy.files import MEBIBYTE, TEMPORARY_FILES, read_file, write_atomically

Tree = TypeVar("Tree")

CHECKSUM = "sha256"
"""The key of the safetensors metadata under which the checksum stands."""

MOST_BYTES = 16_384 * MEBIBYTE
"""Of a checkpoint: it holds an outer loop's state, in which critics and environments are the largest part."""


class DamagedCheckpointError(FloppyError):
    """A checkpoint that is missing or not as it was written; the one before it may be whole."""

    def __init__(self, what: str, remedy: str = "run without --resume") -> None:
        super().__init__(f"{what}: {remedy}.")
        self.what = what


def save_checkpoint(tree: object, path: Path, *, previous: Path | None = None) -> None:
    """Writes a pytree of arrays; an interruption leaves the old file whole.

    Args:
      tree: what to save.
      path: the file.
      previous: where the checkpoint that stands at `path` is kept, if there is one.

    Raises:
      FloppyError: if it cannot be written.
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in leaves}
    data = safetensors.numpy.save(arrays, {CHECKSUM: _checksum(arrays)})
    if previous is not None and path.exists():
        _keep_as(path, previous)
    write_atomically(path, data)


def _keep_as(path: Path, previous: Path) -> None:
    """Gives a file a second name, of which the first can be written again; at no moment is one of them missing."""
    temporary = previous.with_name(TEMPORARY_FILES.replace("*", secrets.token_hex(8)))
    try:
        os.link(path, temporary)
        os.replace(temporary, previous)
    except OSError:  # a file system without hard links
        write_atomically(previous, read_file(path, "a checkpoint", most=MOST_BYTES))
    finally:  # where both are one file already, replacing one by the other leaves the third name
        with contextlib.suppress(OSError):  # what went wrong before is to be said
            temporary.unlink()


def load_checkpoint(like: Tree, path: Path) -> Tree:
    """Reads a pytree of the structure, shapes and dtypes of `like` (arrays, or what `jax.eval_shape` gives).

    Raises:
      DamagedCheckpointError: if the file is missing, or is not as it was written.
      FloppyError: if it is of another run's shapes.
    """
    arrays = _read(path)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(where) for where, _ in leaves]
    fits = set(names) == set(arrays) and all(
        arrays[name].shape == leaf.shape and arrays[name].dtype == leaf.dtype
        for name, (_, leaf) in zip(names, leaves, strict=True)
    )
    if not fits:
        raise FloppyError(
            f"The checkpoint at {path} is of a run with another configuration, or of another version of floppy: go on "
            f"with that one, or give {OVERWRITE} to begin again."
        )
    restored = [
        arrays[name] if isinstance(leaf, np.ndarray) else jnp.asarray(arrays[name])
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, restored)


def _read(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that is as it was written."""
    try:
        arrays = safetensors.numpy.load(read_file(path, "a checkpoint", most=MOST_BYTES))
        with safe_open(path, framework="numpy") as file:
            said = (file.metadata() or {}).get(CHECKSUM, "")
    except (FloppyError, OSError, SafetensorError, KeyError, ValueError) as error:  # KeyError: a dtype NumPy lacks
        raise DamagedCheckpointError(f"{path} is no readable checkpoint ({one_line(error)})") from error
    if said != _checksum(arrays):
        raise DamagedCheckpointError(f"{path} is not as it was written, its checksum is another one")
    return arrays


def _checksum(arrays: Mapping[str, Any]) -> str:
    """Of names, types, shapes and contents."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {arrays[name].shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
