"""The outer loops, each with the words that run it by the command line."""

import dataclasses
from pathlib import Path

from floppy.cli.runs import default_config
from floppy.errors import FloppyError
from floppy.outer import OUTER_LOOPS

TASKS = ("cartpole", "images/digits")
"""A loop is tried on the first of these that it can improve a dataset for."""
TEACHER = Path(__file__).parents[2] / "docs/results/cartpole/lambda-1d-k2.safetensors"
NEEDED = {"imitation": {"teacher": str(TEACHER)}}
"""Settings that a loop cannot do without."""
LOOPS = tuple(OUTER_LOOPS)
OUTER_STEPS = 10_000_000
"""Never reached."""


def words_of(loop: str) -> list[str]:
    """The task that an outer loop is tried on, and the options that choose the loop."""
    settings = NEEDED.get(loop, {})
    for task in TASKS:
        try:
            config = default_config([task, "--outer", loop], "distill")
            dataclasses.replace(config, outer=dataclasses.replace(config.outer, **settings)).problem()
        except FloppyError:
            continue
        return [task, "--outer", loop, *(word for name, value in settings.items() for word in (f"--{name}", value))]
    raise FloppyError(f"The outer loop {loop} takes none of {', '.join(TASKS)}: add a task of its kind.")
