"""`--env-kwargs` and `--max-episode-steps`: they move into the id of the task, where all else finds them."""

import re
from collections import deque

from floppy.cli.parsing import HELP
from floppy.errors import FloppyError
from floppy.tasks.arguments import TIME_LIMIT
from floppy.tasks.registry import with_arguments

ENV_KWARGS, MAX_EPISODE_STEPS = "--env-kwargs", "--max-episode-steps"
TASK = "--task"


def with_environment_arguments(words: list[str], *, begins_with_task: bool) -> list[str]:
    """A command's words, of which those for an environment stand in the ids of its tasks.

    Args:
      words: of the command, its name left out.
      begins_with_task: whether the first of them is a task; another one is that of --task.

    Raises:
      FloppyError: if there is no task that takes them, or they are not allowed.
    """
    rest, pairs = _taken_out(words)
    if not pairs or set(rest) & set(HELP):
        return rest
    placed = [
        _placed(word, pairs, is_task=before == TASK or (before == "" and begins_with_task))
        for before, word in zip(["", *rest], rest, strict=False)
    ]
    if placed == rest:
        raise FloppyError(
            f"{ENV_KWARGS} and {MAX_EPISODE_STEPS} need a task gymnasium/ID on the command line: give it by {TASK}."
        )
    return placed


def _placed(word: str, pairs: list[str], *, is_task: bool) -> str:
    option, is_joined, value = word.partition("=")
    if option == TASK and is_joined:
        return f"{TASK}={with_arguments(value, pairs)}"
    return with_arguments(word, pairs) if is_task and not word.startswith("-") else word


def _taken_out(words: list[str]) -> tuple[list[str], list[str]]:
    """The words without the two options, and what these give as `key=value`."""
    ahead, rest, pairs = deque(words), list[str](), list[str]()
    while ahead:
        word = ahead.popleft()
        option, is_joined, value = word.partition("=")
        if option == MAX_EPISODE_STEPS:
            limit = value if is_joined else ahead.popleft() if ahead else ""
            if not limit or limit.startswith("--"):
                raise FloppyError(f"{MAX_EPISODE_STEPS} needs a value: a number of steps.")
            pairs.append(f"{TIME_LIMIT}={limit}")
        elif option == ENV_KWARGS:
            given = [value] if is_joined else []
            while ahead and not is_joined and re.match(r"[^\W\d]\w*=", ahead[0]):
                given.append(ahead.popleft())
            if not given:
                raise FloppyError(f"{ENV_KWARGS} needs a value: KEY=VALUE, or several of them.")
            pairs += given
        else:
            rest.append(word)
    return rest, pairs
