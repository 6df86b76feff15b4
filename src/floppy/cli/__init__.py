"""The command line."""

from floppy.cli.main import COMMANDS, main, program

__all__ = ["COMMANDS", "main", "program"]
