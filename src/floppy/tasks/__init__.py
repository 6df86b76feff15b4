"""Tasks: what a policy is scored on."""

from floppy.tasks.base import (
    Continuous,
    Discrete,
    FaultyEnvironmentError,
    HostTask,
    JaxTask,
    Labelled,
    SupervisedTask,
    Task,
    Transition,
)
from floppy.tasks.registry import SHORT_NAMES, list_tasks, make_task, register

__all__ = [
    "SHORT_NAMES",
    "Continuous",
    "Discrete",
    "FaultyEnvironmentError",
    "HostTask",
    "JaxTask",
    "Labelled",
    "SupervisedTask",
    "Task",
    "Transition",
    "list_tasks",
    "make_task",
    "register",
]
