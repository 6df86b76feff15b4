"""Arguments within a task's id: `ID?key=value&key2=value2`, in an order and spelling that are always the same."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from floppy.errors import FloppyError, shown

Value = int | float | bool | str | None

LONGEST = 200
"""Characters of a text."""
TIME_LIMIT = "max_episode_steps"
"""The argument that limits an episode's length, of `gymnasium.make` and of gymnax's environments."""
TAKEN = ("id", "disable_env_checker", "vectorization_mode", "vector_kwargs")
"""Arguments of `gymnasium.make` that are floppy's own."""
PYTHON = {"True": True, "False": False, "None": None}
"""Values that people spell as in Python."""


def split(rest: str) -> tuple[str, dict[str, Value]]:
    """A name and the arguments behind it.

    Args:
      rest: such as `CartPole-v1?sutton_barto_reward=true`.

    Raises:
      FloppyError: for what is no `key=value`, a key that is given twice, or a value that is not allowed.
    """
    name, has_arguments, text = rest.partition("?")
    return name, parse(text.split("&")) if has_arguments else {}


def parse(pairs: Iterable[str]) -> dict[str, Value]:
    """The arguments that `key=value` pairs give.

    Raises:
      FloppyError: as for `split`.
    """
    found: dict[str, Value] = {}
    for pair in pairs:
        key, has_value, text = pair.partition("=")
        if not has_value or not key.isidentifier() or key in TAKEN:
            raise FloppyError(
                f"Arguments of an environment must be key=value, the key a name (not {', '.join(TAKEN)}), "
                f"got {shown(pair)}."
            )
        value = _value(key, text)
        if key in found:
            raise FloppyError(f"The environment's argument {key} is given twice: give it once.")
        found[key] = value
    return found


def _value(key: str, text: str) -> Any:
    """The JSON scalar that a text is, else the text."""
    value = _scalar(text)
    if isinstance(value, str) and (len(value) > LONGEST or not value.isprintable() or set(value) & set("&+?")):
        what = f"a text of at most {LONGEST} characters on one line, without &, + and ?"
        raise FloppyError(f"The environment's argument {key} must be {what}, got {shown(value)}.")
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(value, list | dict) or (isinstance(value, float) and not math.isfinite(value)):
        raise FloppyError(
            f"The environment's argument {key} must be a finite number, true, false, null or a text, got {shown(text)}."
        )
    if key == TIME_LIMIT and not (is_number and isinstance(value, int) and 1 <= value < 2**31):
        raise FloppyError(f"{TIME_LIMIT} must be a whole number from 1 to {2**31 - 1}, got {shown(text)}.")
    return value


def _scalar(text: str) -> Any:
    if text in PYTHON:
        return PYTHON[text]
    try:
        return json.loads(text, parse_constant=lambda name: name)
    except (ValueError, RecursionError):
        return text


def join(name: str, arguments: Mapping[str, Value]) -> str:
    """The one spelling of a name with arguments, sorted by key; `split` reads it back."""
    if not arguments:
        return name
    return f"{name}?" + "&".join(f"{key}={_spelt(arguments[key])}" for key in sorted(arguments))


def with_arguments(rest: str, pairs: Sequence[str]) -> str:
    """The name with arguments `key=value`, those that it has already included.

    Raises:
      FloppyError: for what is no argument, or one that is given twice.
    """
    identifier, _, given = rest.partition("?")
    return join(identifier, parse([*(given.split("&") if given else ()), *pairs]))


def _spelt(value: Value) -> str:
    if isinstance(value, str):
        return value if _scalar(value) == value else json.dumps(value, ensure_ascii=False)
    return json.dumps(value).replace("e+", "e")  # a plus sign joins the tasks of a merged dataset
