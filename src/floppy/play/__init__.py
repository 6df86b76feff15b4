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

ARENAS: Registry[Callable[[Any], Arena[Any]]] = Registry("kind of task")
ARENAS.register(JAX, lambda _: ON_DEVICE)
ARENAS.register(HOST, lambda _: HostArena())
ARENAS.register(LABELLED, ImageArena)
"""What makes the arena of a task, by the task's kind."""


@contextlib.contextmanager
def open_arena(task: Task) -> Iterator[Arena[Any]]:
    """The arena for a task, and its end."""
    arena = ARENAS.find(kind_of(task))(task)
    try:
        yield arena
    finally:
        arena.close()


__all__ = ["ARENAS", "Arena", "Played", "Trajectory", "open_arena"]
