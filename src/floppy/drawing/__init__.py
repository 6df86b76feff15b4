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

PICTURES.register("bars", Bars())
PICTURES.register("heat-map", HeatMap())
PICTURES.register("image", Image())
PICTURES.register("frames", Frames())
PICTURES.register("cartpole", CartPole())
PICTURES.register("acrobot", Acrobot())
PICTURES.register("mountain-car", MountainCar())
PICTURES.register("pendulum", Pendulum())
PICTURES.register("lander", Lander())
PICTURES.register("cells", Cells())
PICTURES.register("body", PosedBody())

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
