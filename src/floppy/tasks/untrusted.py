"""What a task that a file names may not do: files come from anywhere, so nothing is imported or opened for their sake.

`task_of_file` makes such a task; a family whose `make` would import or open something refuses it, in its `from_file`,
with what stands here.
"""

import itertools
import re
from collections.abc import Callable, Mapping

from floppy.errors import FloppyError, shown
from floppy.tasks.arguments import Value
from floppy.tasks.base import Task
from floppy.tasks.registry import FAMILIES, family_of, full_task_id, make_task, was_asked_for

HARMLESS = re.compile(r"[A-Za-z0-9_-]{0,64}")
"""A text that names no path, module or address."""
MODULE = re.compile(r"[\w.,]{1,100}")
"""What a message offers as a module's name."""


def task_of_file(name: str, command: str = "") -> Task:
    """The task that a file names, such as a dataset's card.

    Files come from anywhere: unlike `make_task` this imports no module and opens no file because one of them says so.

    Args:
      name: the id.
      command: what made the file, as its card says. It tells people which `--import` they have forgotten.

    Raises:
      FloppyError: if there is no such task without that; it says what the user may give.
    """
    name = full_task_id(name)  # a study's file has the short one, as it was typed
    prefix, _, rest = name.partition("/")
    if was_asked_for(name):
        return make_task(name)
    if prefix not in FAMILIES or not rest:
        raise unregistered_task(name, command)
    from_file: Callable[[str, str], str] = getattr(family_of(prefix), "from_file", lambda rest, command: rest)
    task: Task = family_of(prefix).make(from_file(rest, command))
    return task


def unregistered_task(name: str, command: str = "") -> FloppyError:
    """The complaint about a task that a file names and that nothing here has registered.

    Args:
      name: its id.
      command: what made the file; the `--import` in it is offered.
    """
    given = module_of(name, command)
    module = f"--import {given}, as the command that made the file did," if given else "--import MODULE"
    return FloppyError(
        f"The file is of task {shown(name)}, which is not registered here: give {module} if you trust the module that "
        "registers it."
    )


def module_of(name: str, command: str) -> str:
    """The module that registers a file's task, if the command that made it, or the task's own id, names one.

    Args:
      name: the task's id, which may be `gymnasium/module:ID`.
      command: what made the file.
    """
    pairs = itertools.pairwise(command.replace("=", " ").split())
    given = [after for word, after in pairs if word == "--import" and MODULE.fullmatch(after)]
    family, _, rest = name.partition("/")
    module = rest.partition(":")[0] if family == "gymnasium" and ":" in rest else ""
    return given[0] if given else module if MODULE.fullmatch(module) else ""


def foreign_module(name: str, module: str) -> FloppyError:
    """The complaint about a task in a file for which a module would have to be imported."""
    wanted = module if MODULE.fullmatch(module) else "MODULE"  # no escape codes of a file's on a terminal
    return FloppyError(
        f"The file is of task {shown(name)}, which asks for module {shown(module)}: give --import {wanted} if you "
        "trust it."
    )


def check_harmless(task_id: str, arguments: Mapping[str, Value]) -> None:
    """Checks that arguments from a file name nothing that an environment might open.

    Raises:
      FloppyError: for a text of anything but letters, digits, _ and -, and for `render_mode`, which may open a window.
    """
    for key, value in arguments.items():
        if key == "render_mode" or (isinstance(value, str) and not HARMLESS.fullmatch(value)):
            raise FloppyError(
                f"The file is of task {shown(task_id)}, of which argument {key} might open a file or window: name this "
                "task yourself (--task) if you trust it."
            )
