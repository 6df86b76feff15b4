"""Saving and restoring a run's state, a pytree of arrays, as one file that is replaced atomically.

Orbax was tried first: it refuses arrays of size 0, which a discrete policy's `log_std` is.
"""

from pathlib import Path
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError

from floppy.errors import FloppyError, one_line
from floppy.files import write_atomically

Tree = TypeVar("Tree")


def save_checkpoint(tree: object, path: Path) -> None:
    """Writes a pytree of arrays; an interruption leaves the old file whole."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    arrays = {jax.tree_util.keystr(where): np.asarray(leaf) for where, leaf in leaves}
    write_atomically(path, safetensors.numpy.save(arrays))


def load_checkpoint(like: Tree, path: Path) -> Tree:
    """Reads a pytree of the structure, shapes and dtypes of `like` (arrays, or what `jax.eval_shape` gives).

    Raises:
      FloppyError: if the file is missing, broken, or of another run's shapes.
    """
    try:
        arrays = safetensors.numpy.load(path.read_bytes())
    except (OSError, SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise FloppyError(f"{path} is no readable checkpoint ({one_line(error)}): run without --resume.") from error
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    names = [jax.tree_util.keystr(where) for where, _ in leaves]
    fits = set(names) == set(arrays) and all(
        arrays[name].shape == leaf.shape and arrays[name].dtype == leaf.dtype
        for name, (_, leaf) in zip(names, leaves, strict=True)
    )
    if not fits:
        raise FloppyError(f"The checkpoint at {path} is of a run with another configuration: run without --resume.")
    restored = [
        arrays[name] if isinstance(leaf, np.ndarray) else jnp.asarray(arrays[name])
        for name, (_, leaf) in zip(names, leaves, strict=True)
    ]
    return jax.tree_util.tree_unflatten(structure, restored)
