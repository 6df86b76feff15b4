"""The one exception for bad input, and how values appear in its message."""

import reprlib
from typing import Any


class FloppyError(ValueError):
    """Bad input, said in one sentence: what was got, what is allowed, what to do next.

    The command line prints the message alone and exits with code 2; anything else that escapes is a bug.
    """


def shown(value: Any) -> str:
    """A value as it appears in a message: on one line and never long."""
    return reprlib.repr(value)


def listed(names: Any) -> str:
    """Names as they appear in a message: the first few of them."""
    names = sorted(names)
    first = ", ".join(shown(name) for name in names[:6]) or "none"
    return first if len(names) <= 6 else f"{first} and {len(names) - 6} more"


def one_line(error: BaseException) -> str:
    """The text of another library's error, fit for the middle of a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 160 else f"{text[:160]}..."
