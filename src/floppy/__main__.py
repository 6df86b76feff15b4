"""`python -m floppy` is the command `floppy`."""

import sys

from floppy.cli import main

sys.exit(main())
