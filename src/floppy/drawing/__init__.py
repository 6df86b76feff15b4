"""Pictures of distilled examples and of observations. A kind of picture is a file here and a line below."""

from floppy.drawing.base import PICTURES, Kind, Scene, Target, register_picture
from floppy.drawing.body import PosedBody
from floppy.drawing.cartpole import CartPole
from floppy.drawing.cells import Cells
from floppy.drawing.classic import Acrobot, Lander, MountainCar, Pendulum
from floppy.drawing.files import save_picture
from floppy.drawing.page import draw, draw_example, draw_observation, observation_size
from floppy.drawing.plain import Bars, Frames, HeatMap, Image
from floppy.drawing.text import draw_text
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
