"""Task ids: `family/name`, short names, and the nearest name for a wrong one."""

import importlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

from floppy.errors import FloppyError, check_kind, raised, shown
from floppy.fields import is_same_member
from floppy.tasks.base import REQUIRED, Task
from floppy.tasks.lookup import import_module, unknown_task
from floppy.tasks.pictures import Picture

FAMILIES: dict[str, str | Callable[[str], Task]] = {
    "ndcartpole": "floppy.tasks.ndcartpole",
    "gymnax": "floppy.tasks.gymnax",
    "brax": "floppy.tasks.brax",
    "mjx": "floppy.tasks.mjx",
    "gymnasium": "floppy.tasks.gymnasium",
    "envpool": "floppy.tasks.envpool",
    "ale": "floppy.tasks.ale",
    "images": "floppy.tasks.images",
}
"""Families by the prefix of their ids, in the order in which they are listed: the module of one, which is imported when
it is first asked for, or the function that `register` was given.

A module offers `make(rest)`, which makes the task `prefix/rest`; `names()`, the `rest` of every id that is listed;
`DESCRIPTION`, a line on the tasks that there are; and, if it likes, `SHORT_NAMES` from short names to `rest`. One whose
`make` imports or opens what `rest` names also offers `from_file(rest, command)`, see `untrusted.py`: it refuses what
the user has not given, and returns the `rest` to be made. One whose ids may hold arguments offers
`with_arguments(rest, pairs)`, see the function of this name. `picture(rest)`, if there is one, says how the task `rest`
is drawn, and makes nothing. Importing the module must be quick, and must work without the packages that its tasks need:
it imports those in functions.
"""


JAX_FAMILIES = ("ndcartpole", "gymnax", "brax", "mjx")
"""Those whose tasks are JAX tasks, which is known without making one."""


class _ShortNames(Mapping[str, str]):
    """Full ids by short names, as the families give them."""

    def __getitem__(self, name: str) -> str:
        return self._all[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    @property
    def _all(self) -> dict[str, str]:
        return {
            name: f"{prefix}/{rest}"
            for prefix in FAMILIES
            for name, rest in getattr(family_of(prefix), "SHORT_NAMES", {}).items()
        }


SHORT_NAMES: Mapping[str, str] = _ShortNames()
"""Short names that the command line and `make_task` accept in place of a full id."""


def full_task_id(name: str) -> str:
    """The id that a short name stands for; any other name as it is.

    Raises:
      FloppyError: for anything but text.
    """
    check_kind(
        "task", name, str, "an id or a short name as text, such as cartpole", "of a task object give its task_id"
    )
    return name if "/" in name else SHORT_NAMES.get(name.lower(), name)


def make_task(name: str) -> Task:
    """The task of an id such as `ndcartpole/3` or `gymnax/Acrobot-v1`, or of a short name such as `cartpole`.

    Raises:
      FloppyError: if no task has this name, or it is no text; the message offers the nearest one.
    """
    full = full_task_id(name)
    prefix, _, rest = full.partition("/")
    if prefix not in FAMILIES or not rest:
        known = [*SHORT_NAMES, *(f"ndcartpole/{n}" for n in range(1, 6))]
        raise unknown_task(name, known, "" if prefix in FAMILIES else _what_is_missing(full))
    task: Task = family_of(prefix).make(rest)
    _ASKED_FOR.update((full, task.task_id))
    return task


def _what_is_missing(name: str) -> str:
    """What a name without a family's prefix may lack: Gymnasium's ids end in a version."""
    if re.search(r":|-v[0-9]+$", name.partition("?")[0]):
        return f"An environment of Gymnasium's is gymnasium/ID, in a module of yours gymnasium/MODULE:ID{_given(name)}."
    return "--import MODULE brings tasks of your own."


def _given(name: str) -> str:
    """The whole id of an environment of which the module is named too."""
    return f", here gymnasium/{name}" if re.fullmatch(r"[\w.]+:[\w./-]+", name) else ""


_ASKED_FOR: set[str] = set()
"""Ids that `make_task` was given in this process, and what tasks call themselves: what the user has named once may be
read back from a file."""


def was_asked_for(name: str) -> bool:
    """Whether the user has named a task by this id in this process."""
    return name in _ASKED_FOR


def with_arguments(name: str, pairs: Sequence[str]) -> str:
    """A task's id with arguments for its environment.

    Args:
      name: the id.
      pairs: texts `key=value`.

    Raises:
      FloppyError: if the family takes none, or these are not allowed.
    """
    full = full_task_id(name)
    prefix, _, rest = full.partition("/")
    add: Callable[[str, Sequence[str]], str] | None = None
    if prefix in FAMILIES:
        add = getattr(family_of(prefix), "with_arguments", None)
    if add is None:
        raise FloppyError(f"Task {shown(name)} takes no arguments for its environment: gymnasium/ID and gymnax/ID do.")
    return f"{prefix}/{add(rest, pairs)}"


def register(name_prefix: str, factory: Callable[[str], Task]) -> None:
    """Adds a family of tasks of your own: `name_prefix/REST` then stands for `factory(REST)`.

    Environments that are registered with Gymnasium do not need this: `gymnasium/ID` finds them.

    Args:
      name_prefix: of the ids, without a slash.
      factory: makes the task, a `JaxTask`, a `HostTask` or a `SupervisedTask`, of which `task_id` is
        `name_prefix/REST`; raises `FloppyError` for a REST that it does not know.

    Raises:
      FloppyError: if the prefix is taken, or holds anything but letters, digits, `_`, `.` and `-`.
    """
    if not re.fullmatch(r"[A-Za-z0-9_.-]+", name_prefix):
        raise FloppyError(f"name_prefix must consist of letters, digits, _, . and -, got {shown(name_prefix)}.")
    if name_prefix in FAMILIES and not is_same_member(FAMILIES[name_prefix], factory):
        raise FloppyError(f"A family of tasks is registered as {name_prefix} already: choose another prefix.")
    FAMILIES[name_prefix] = factory


def list_tasks() -> list[str]:
    """The ids of all known tasks; `family_descriptions` says which others exist.

    Those of a family that needs a package are listed where it is installed. Tasks of your own are not listed.
    """
    return [f"{prefix}/{rest}" for prefix in FAMILIES for rest in family_of(prefix).names()]


def family_descriptions() -> dict[str, str]:
    """A line on the tasks of each family, by prefix."""
    return {prefix: family_of(prefix).DESCRIPTION for prefix in FAMILIES}


def family_of(prefix: str) -> Any:
    """The module of a family, or what stands for one of the user's own."""
    family = FAMILIES[prefix]
    if isinstance(family, str):
        return importlib.import_module(family)
    return SimpleNamespace(make=_fenced(prefix, family), names=list, DESCRIPTION="tasks of your own")


def picture_by_name(name: str) -> Picture | None:
    """How the observations of a task are drawn, without making it; None where its family does not know.

    Raises:
      FloppyError: for a name that the family refuses.
    """
    prefix, _, rest = full_task_id(name).partition("/")
    if prefix not in FAMILIES:
        return None
    ask: Callable[[str], Picture | None] | None = getattr(family_of(prefix), "picture", None)
    return None if ask is None else ask(rest)


def _fenced(prefix: str, factory: Callable[[str], Task]) -> Callable[[str], Task]:
    """A factory of the user's own, of which whatever it raises is one sentence."""

    def make(rest: str) -> Task:
        asked = shown(f"{prefix}/{rest}")
        try:
            task = factory(rest)
            for name in REQUIRED:
                getattr(task, name)
        except (FloppyError, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise FloppyError(
                f"What is registered as {prefix} raised {raised(error)} when asked for {asked}: name another task, or "
                "repair it."
            ) from error
        return task

    return make


__all__ = [
    "FAMILIES",
    "SHORT_NAMES",
    "family_descriptions",
    "full_task_id",
    "import_module",
    "list_tasks",
    "make_task",
    "register",
    "with_arguments",
]
