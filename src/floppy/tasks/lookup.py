"""What task families share to find things: the nearest name, modules of the user's, packages that are optional."""

import difflib
import importlib
import os
from collections.abc import Iterable
from typing import Any

from floppy.errors import FloppyError, one_line, raised, shown


def unknown_task(name: str, known: Iterable[str], hint: str = "") -> FloppyError:
    """The complaint about a task that does not exist.

    Args:
      name: as it was given.
      known: names among which the nearest one is offered.
      hint: a sentence of what else might help.
    """
    by_lower = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    offer = f"did you mean {by_lower[nearest[0]]}? " if nearest else ""
    return FloppyError(
        " ".join(filter(None, (f"There is no task {shown(name)}: {offer}`floppy tasks` lists them all.", hint)))
    )


def install_hint(extra: str) -> str:
    """How to install the packages of an extra; PyPI's `floppy` is another project."""
    return f"pip install 'floppy-rl[{extra}]'"


def import_optional(module: str, extra: str, what: str) -> Any:
    """Imports a module of a package that is installed by an extra.

    Args:
      module: its dotted name.
      extra: of floppy-rl.
      what: needs it, as a message begins: `Atari games need ale-py`.

    Raises:
      FloppyError: if it is not installed; it says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise FloppyError(f"{what} ({one_line(error)}): {install_hint(extra)}.") from error


def import_module(name: str) -> None:
    """Imports a module of the user's, which may register environments.

    Raises:
      FloppyError: if it cannot be imported, whatever the reason.
    """
    if not name or name.startswith(".") or "/" in name or os.sep in name:
        raise FloppyError(
            f"A module must be named as in an import, such as my_module, got {shown(name)}: give its name, and start "
            "floppy in its folder or put that on PYTHONPATH."
        )
    try:
        importlib.import_module(name)
    except KeyboardInterrupt:
        raise
    except SystemExit as error:
        raise FloppyError(
            f"Module {shown(name)} ended the program while it was imported ({raised(error)}): take its "
            "call of sys.exit out."
        ) from error
    except BaseException as error:  # the module's own code may raise anything
        absent = error.name if isinstance(error, ModuleNotFoundError) else None
        is_absent = absent is not None and f"{name}.".startswith(f"{absent}.")
        if name.endswith(".py"):
            remedy = f"give its name without the ending, {name.removesuffix('.py')}"
        elif is_absent:
            remedy = "put it in the folder in which you start floppy, or install it"
        else:
            remedy = "mend the module"
        raise FloppyError(f"Module {shown(name)} could not be imported ({raised(error)}): {remedy}.") from error
