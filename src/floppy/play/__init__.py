"""Playing: how a policy meets a task. An arena for another kind of task is a file here and a line below."""

import contextlib
from collections.abc import Iterator
from typing import Any

from floppy.fields import Registry
from floppy.play.arena import Arena, Played, Trajectory
from floppy.play.device import DeviceArena
from floppy.play.host import HostArena
from floppy.play.images import ImageArena
from floppy.tasks.base import HOST, JAX, LABELLED, Task, kind_of

ARENAS: Registry[type[Any]] = Registry("kind of task")
ARENAS.register(JAX, DeviceArena)
ARENAS.register(HOST, HostArena)
ARENAS.register(LABELLED, ImageArena)
"""Classes of arenas by kinds of tasks; what their `of` makes of the task and the options of `open_arena` plays it."""


def has_own_limits(task: Task) -> bool:
    """Whether a task is played where every call has a time limit of its own, see `Arena`."""
    return bool(ARENAS.find(kind_of(task)).has_own_limits)


@contextlib.contextmanager
def open_arena(task: Task, *, step_timeout: float | None = None) -> Iterator[Arena[Any]]:
    """The arena for a task, and its end.

    Args:
      task: that is to be played.
      step_timeout: seconds that an environment of a host task may take to be made, reset, stepped or closed; None for
        the default, 600 unless `floppy.tasks.patience` says otherwise.

    Yields:
      The arena.

    Raises:
      FloppyError: for a time limit that is not above 0.
    """
    arena: Arena[Any] = ARENAS.find(kind_of(task)).of(task, step_timeout=step_timeout)
    try:
        yield arena
    finally:
        arena.close()


__all__ = ["ARENAS", "Arena", "Played", "Trajectory", "has_own_limits", "open_arena"]
