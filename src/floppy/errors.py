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


def page(title: str) -> str:
    """How a sentence names a page of the documentation, which an installed package does not hold."""
    return f"the page {title!r} of floppy's documentation"


class FloppyError(ValueError):
    """Bad input, said in one sentence: what was got, what is allowed, what to do next.

    The command line prints the message alone and exits with code 2; anything else that escapes is a bug.
    """


class DivergedError(FloppyError):
    """A run, or every fresh learner, left the finite numbers."""


def shown(value: Any) -> str:
    """A value as it appears in a message: on one line and never long."""
    try:
        text = reprlib.repr(value)
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return f"a value of type {type(value).__name__} that is too long to write"
    return re.sub(r"\s*\n\s*", " ", text)  # of a matrix it has several lines


def listed(names: Iterable[Any]) -> str:
    """Names as they appear in a message: the first few of them."""
    names = sorted(names)
    first = ", ".join(shown(name) for name in names[:6]) or "none"
    return first if len(names) <= 6 else f"{first} and {len(names) - 6} more"


def text_of(error: object) -> str:
    """What an error says on one line, control characters escaped; its class's name where it says nothing.

    The errors of users' own code may fail at that too.
    """
    try:
        said = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException:
        said = ""
    seen = (each if each.isprintable() else each.encode("unicode_escape").decode() for each in said)
    return "".join(seen) or type(error).__name__


def one_line(error: BaseException) -> str:
    """What another library's error says, fit for the middle of a sentence."""
    # The text of an error of files has a number, and the path once more.
    why = error.strerror if isinstance(error, OSError) else None
    text = text_of(why if isinstance(why, str) and why else error).rstrip(".") or type(error).__name__
    return text if len(text) <= 160 else f"{text[:160]}..."


def raised(error: BaseException) -> str:
    """An exception as it appears in a sentence: its type, and what it says if it says anything."""
    name, said = type(error).__name__, one_line(error)
    return name if said == name else f"{name}: {said}"


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
