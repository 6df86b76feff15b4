"""Tasks: what a policy is scored on."""

from floppy.spaces import Continuous, Discrete
from floppy.tasks.base import FaultyEnvironmentError, HostTask, JaxTask, Labelled, SupervisedTask, Task, Transition
from floppy.tasks.check import check_task
from floppy.tasks.faults import patience
from floppy.tasks.registry import SHORT_NAMES, family_descriptions, list_tasks, make_task, register
from floppy.tasks.untrusted import task_of_file

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
    "check_task",
    "family_descriptions",
    "list_tasks",
    "make_task",
    "patience",
    "register",
    "task_of_file",
]
