"""The one exception for bad input, and how values appear in its message."""

import math
import re
import reprlib
from collections.abc import Iterable
from typing import Any

MAX_COUNT = 2**31 - 1
"""The largest count: array lengths beyond it are out of reach."""


OVERWRITE = "--overwrite (in Python overwrite=True)"
"""How a sentence names the permission to replace what exists; both the command line and functions say it."""


class FloppyError(ValueError):
    """Bad input, said in one sentence: what was got, what is allowed, what to do next.

    The command line prints the message alone and exits with code 2; anything else that escapes is a bug.
    """


class DivergedError(FloppyError):
    """A run, or every fresh learner, left the finite numbers."""


def shown(value: Any) -> str:
    """A value as it appears in a message: on one line and never long."""
    return re.sub(r"\s*\n\s*", " ", reprlib.repr(value))  # of a matrix it has several lines


def listed(names: Iterable[Any]) -> str:
    """Names as they appear in a message: the first few of them."""
    names = sorted(names)
    first = ", ".join(shown(name) for name in names[:6]) or "none"
    return first if len(names) <= 6 else f"{first} and {len(names) - 6} more"


def one_line(error: BaseException) -> str:
    """The text of another library's error, fit for the middle of a sentence."""
    # The text of an error of files has a number, and the path once more.
    said = (isinstance(error, OSError) and error.strerror) or str(error)
    text = " ".join(said.split()).rstrip(".")
    return text if len(text) <= 160 else f"{text[:160]}..."


def must_be_one_of(name: str, value: Any, allowed: Iterable[str]) -> FloppyError:
    """The complaint about a name that is not in a list."""
    return FloppyError(f"{name} must be one of {', '.join(allowed)}, got {shown(value)}.")


def check_kind(name: str, value: Any, kind: type, allowed: str, advice: str = "") -> None:
    """Checks that an argument is an object of a class.

    Args:
      name: of the argument, as users write it.
      value: what was given.
      kind: the class.
      allowed: what the argument must be, as the message says it.
      advice: what to do with what else people might give.

    Raises:
      FloppyError: naming the argument, what was got and what is allowed.
    """
    if not isinstance(value, kind):
        raise FloppyError(f"{name} must be {allowed}, got {shown(value)}{advice and f': {advice}'}.")


def check_number(
    name: str, value: float, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> None:
    """Checks that a number is finite and within its bounds.

    Args:
      name: of the option, as users write it.
      value: what was given.
      least: the smallest number allowed.
      above: a bound that itself is not allowed.
      most: the largest number allowed.

    Raises:
      FloppyError: naming the option, what was got and what is allowed.
    """
    if least <= value <= most and above < value and abs(value) != math.inf:
        return
    lower = f"above {above:.10g}" if above > -math.inf else f"at least {least:.10g}" if least > -math.inf else ""
    upper = f"at most {most:.10g}" if most < math.inf else ""
    bounds = " and ".join(filter(None, (lower, upper))) or "a finite number"
    raise FloppyError(f"{name} must be {bounds}, got {shown(value) if isinstance(value, int) else value}.")
