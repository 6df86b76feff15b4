"""Outer loops: how a distilled dataset is improved."""

from floppy.outer.base import Info, OuterLoop, Problem
from floppy.outer.evolution import HaDES
from floppy.outer.metagradient import PPMO
from floppy.outer.supervised import Supervised

OUTER_LOOPS = {loop.name: loop for loop in (PPMO, HaDES, Supervised)}
"""Outer loops by name."""

__all__ = ["OUTER_LOOPS", "PPMO", "HaDES", "Info", "OuterLoop", "Problem", "Supervised"]
