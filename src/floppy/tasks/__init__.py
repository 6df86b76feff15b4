"""Tasks: what a policy is scored on."""

from floppy.tasks.base import Continuous, Discrete, JaxTask, Transition
from floppy.tasks.registry import SHORT_NAMES, list_tasks, make_task

__all__ = ["SHORT_NAMES", "Continuous", "Discrete", "JaxTask", "Transition", "list_tasks", "make_task"]
