"""`python -m floppy` is the command `floppy`."""

import contextlib
import os
import sys

# Python searches the current folder first; what lies there is imported where the command line says so, and not else.
with contextlib.suppress(FileNotFoundError):  # it has been removed
    if sys.path and sys.path[0] in ("", os.getcwd()):
        del sys.path[0]

from floppy.cli.main import program

sys.exit(program())
