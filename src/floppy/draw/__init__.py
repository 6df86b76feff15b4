"""Pictures of distilled examples and of observations. A kind of picture is a file here and a line below."""

import sys
import types
from typing import Any

from floppy.draw.base import PICTURES, Kind, Scene, Target, register_picture
from floppy.draw.body import PosedBody
from floppy.draw.cartpole import CartPole
from floppy.draw.cells import Cells
from floppy.draw.classic import Acrobot, Lander, MountainCar, Pendulum
from floppy.draw.files import save_picture
from floppy.draw.page import draw, draw_example, draw_observation, observation_size
from floppy.draw.plain import Bars, Frames, HeatMap, Image
from floppy.draw.text import draw_text
from floppy.tasks.pictures import Picture

register_picture("bars", Bars())
register_picture("heat-map", HeatMap())
register_picture("image", Image())
register_picture("frames", Frames())
register_picture("cartpole", CartPole())
register_picture("acrobot", Acrobot())
register_picture("mountain-car", MountainCar())
register_picture("pendulum", Pendulum())
register_picture("lander", Lander())
register_picture("cells", Cells())
register_picture("body", PosedBody())


class _Callable(types.ModuleType):
    """This module, which can be called too: `floppy.draw(dataset)` is short for `floppy.draw.draw(dataset)`."""

    def __call__(self, *args: Any, **options: Any) -> Any:
        return draw(*args, **options)


sys.modules[__name__].__class__ = _Callable

__all__ = [
    "PICTURES",
    "Kind",
    "Picture",
    "Scene",
    "Target",
    "draw",
    "draw_example",
    "draw_observation",
    "draw_text",
    "observation_size",
    "register_picture",
    "save_picture",
]
