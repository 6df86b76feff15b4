"""Outer loops: how a distilled dataset is improved. One of them is a file or folder here and a line below."""

from floppy.outer.base import OUTER_LOOPS, Info, OuterLoop, OuterLoopDefaults, Problem, register_outer_loop
from floppy.outer.hades.loop import HaDES
from floppy.outer.imitation import Imitation
from floppy.outer.ppmo.loop import PPMO
from floppy.outer.supervised import Supervised

__all__ = [
    "OUTER_LOOPS",
    "PPMO",
    "HaDES",
    "Imitation",
    "Info",
    "OuterLoop",
    "OuterLoopDefaults",
    "Problem",
    "Supervised",
    "register_outer_loop",
]
