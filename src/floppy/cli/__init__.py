"""The command line."""

from floppy.cli.main import COMMANDS, main

__all__ = ["COMMANDS", "main"]
