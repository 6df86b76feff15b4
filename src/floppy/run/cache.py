"""The persistent compilation cache, by which a second start is quick."""

import os
import sys
from pathlib import Path

from floppy.errors import FloppyError, one_line
from floppy.files import as_path

VARIABLE = "FLOPPY_CACHE"


def cache_folder() -> Path | None:
    """Where compiled programs are kept: `$FLOPPY_CACHE` (`off` for nowhere), else the user's cache folder."""
    wanted = os.environ.get(VARIABLE, "")
    if wanted.lower() == "off":
        return None
    try:
        return as_path(wanted or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "floppy" / "xla")
    except FloppyError:  # nobody is at home: HOME is unset, and the user unknown
        return None


def enable_compilation_cache() -> None:
    """Lets JAX keep compiled programs between processes; a cache folder that JAX was already given is left alone."""
    import jax  # only here: asking where the folder is must not wait for it

    folder = cache_folder()
    given: str | None = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if folder is None or given is not None:
        return
    if why := _why_unusable(folder):
        print(
            f"floppy: Compiled programs are not kept, for {folder} cannot be written ({why}): set {VARIABLE} to a "
            "folder that is writable, or to off.",
            file=sys.stderr,
            flush=True,
        )
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _why_unusable(folder: Path) -> str:
    """Why nothing can be kept in a folder, which is made if need be; empty if it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        return "it is no folder"
    except (OSError, ValueError) as error:  # ValueError: a name that no folder could have
        return one_line(error)
    return "" if os.access(folder, os.W_OK | os.X_OK) else "Permission denied"
