"""What goes to stdout: the result alone."""

import contextlib
import os
import sys

_kept: list[int] = []


def keep_stdout() -> None:
    """Keeps stdout for `print` of this process: what is written to its file descriptor goes to stderr from now on.

    Libraries below Python, and programs that an environment starts, write there.
    """
    if _kept:
        return
    with contextlib.suppress(OSError, ValueError, AttributeError):  # one of the two is closed
        own = os.dup(1)
        os.dup2(2, 1)
        _kept.append(own)
        sys.stdout = os.fdopen(own, "w", encoding=sys.stdout.encoding, errors=sys.stdout.errors)
