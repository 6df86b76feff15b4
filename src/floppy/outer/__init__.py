"""Outer loops: how a distilled dataset is improved."""

from floppy.outer.base import Info, OuterLoop, Problem
from floppy.outer.metagradient import PPMO

__all__ = ["PPMO", "Info", "OuterLoop", "Problem"]
