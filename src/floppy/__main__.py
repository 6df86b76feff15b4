"""`python -m floppy` is the command `floppy`."""

import sys

from floppy.cli.main import program

sys.exit(program())
