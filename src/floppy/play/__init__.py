"""Playing: how a policy meets a task. An arena for another kind of task is a file here and a line below."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from floppy.fields import Registry
from floppy.play.arena import Arena, Played, Trajectory
from floppy.play.device import ON_DEVICE
from floppy.play.host import HostArena
from floppy.play.images import ImageArena
from floppy.tasks.base import HOST, JAX, LABELLED, Task, kind_of

ARENAS: Registry[Callable[..., Arena[Any]]] = Registry("kind of task")
ARENAS.register(JAX, lambda _, **__: ON_DEVICE)
ARENAS.register(HOST, lambda _, **options: HostArena(**options))
ARENAS.register(LABELLED, lambda task, **_: ImageArena(task))
"""What makes the arena of a task, by the task's kind; it is called with the task and the options of `open_arena`."""


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
    arena = ARENAS.find(kind_of(task))(task, step_timeout=step_timeout)
    try:
        yield arena
    finally:
        arena.close()


__all__ = ["ARENAS", "Arena", "Played", "Trajectory", "open_arena"]
