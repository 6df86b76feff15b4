"""The contract of a picture: one observation of a task on one pair of axes, by a kind of its own."""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from floppy.errors import FloppyError, raised, shown
from floppy.tasks.pictures import PICTURES, Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK = "#24292f"
"""Of outlines and text."""
GREY = "#8c959f"
"""Of what stands still: tracks, grounds, grids; and of notes."""
PALE = "#d0d7de"
"""Of bodies' insides and of ranges."""
BLUE = "#0969da"
"""Of motion: velocities."""
ORANGE = "#d1570a"
"""Of what the example asks for: its target."""
COLOURS = (
    "#1f77b4",
    "#d62728",
    "#e8b100",
    "#2ca02c",
    "#9467bd",
    "#17becf",
    "#e377c2",
    "#8c564b",
    "#7f7f7f",
    "#ff7f0e",
)
"""Of channels."""


class Target(NamedTuple):
    """What an example asks for."""

    values: np.ndarray
    """`[a]`: probabilities of discrete actions, or a continuous action in the task's units."""
    names: tuple[str, ...]
    """`[a]`: of the actions, or of their dimensions."""
    low: np.ndarray | None = None
    """`[a]`: bounds of a continuous action; None for probabilities."""
    high: np.ndarray | None = None

    @property
    def is_discrete(self) -> bool:
        """Whether the values are probabilities."""
        return self.low is None

    @property
    def strength(self) -> np.ndarray:
        """`[a]`: probabilities as they are, or an action as -1 .. 1 of its bounds, and further where it is beyond."""
        if self.low is None or self.high is None:
            return self.values
        half = (self.high - self.low) / 2
        return (self.values - self.low - half) / half


class Scene(NamedTuple):
    """What is drawn on one pair of axes."""

    picture: Picture
    observation: np.ndarray
    """`[*obs]`, in the task's units where they are known."""
    normalised: np.ndarray | None = None
    """`[*obs]`: as networks see it, where that is something else."""
    target: Target | None = None
    """Of an example; None for an observation from play."""
    mean: np.ndarray | None = None
    """`[*obs]`: of all examples; None for an observation from play."""
    limits: tuple[float, float] | None = None
    """The smallest and the largest number that is drawn with the same shades; by default the observation's own."""
    has_units: bool = True
    """Whether the observation is in the task's units, not in normalised ones."""

    @property
    def names(self) -> list[str]:
        """Of the numbers of a vector, or of the channels of a grid; those without a name are numbered."""
        count, known = self.observation.shape[-1], self.picture.names
        word = "channel" if self.observation.ndim == 3 else "feature"
        return [known[index] if index < len(known) else f"{word} {index}" for index in range(count)]


class Kind(Protocol):
    """A kind of picture."""

    def fits(self, scene: Scene) -> bool:
        """Whether it can draw this, on this machine; if not, what suits the shape is drawn in its place."""

    def size(self, scene: Scene) -> tuple[float, float]:
        """Width and height of its axes, in inches."""

    def draw(self, axes: "Axes", scene: Scene) -> None:
        """Draws the observation, and the target where it can be shown in the picture itself."""

    def caption(self, scene: Scene) -> str:
        """What a stranger must know to read it, in a sentence or two."""


def register_picture(name: str, kind: Kind) -> None:
    """Adds a kind of picture of your own, which the `picture` of a task may then name.

    Args:
      name: as in `Picture(kind=name)`.
      kind: draws an observation.

    Raises:
      FloppyError: if another kind has the name.
    """
    PICTURES.register(name, _Fenced(name, kind))


@dataclasses.dataclass(frozen=True)
class _Fenced:
    """A kind of the user's own, of which whatever it raises is one sentence."""

    name: str
    own: Kind

    def fits(self, scene: Scene) -> bool:
        return bool(self._asked("fits", scene))

    def size(self, scene: Scene) -> tuple[float, float]:
        size = self._asked("size", scene)
        if np.shape(size) != (2,) or np.asarray(size).dtype.kind not in "fiu" or not (np.asarray(size) > 0).all():
            raise FloppyError(
                f"The size of picture {shown(self.name)} must be a width and a height in inches, got {shown(size)}."
            )
        return float(size[0]), float(size[1])

    def draw(self, axes: "Axes", scene: Scene) -> None:
        self._asked("draw", axes, scene)

    def caption(self, scene: Scene) -> str:
        return str(self._asked("caption", scene))

    @property
    def lines(self) -> Callable[[Scene], list[str]] | None:
        return functools.partial(self._asked, "lines") if hasattr(self.own, "lines") else None

    def _asked(self, method: str, *given: Any) -> Any:
        try:
            return getattr(self.own, method)(*given)
        except (FloppyError, KeyboardInterrupt):
            raise
        except BaseException as error:  # the user's own code may raise anything
            raise FloppyError(
                f"The picture {shown(self.name)} raised an error in {method} ({raised(error)}): mend it."
            ) from error


def blank(axes: "Axes") -> None:
    """Leaves nothing of the axes but what will be drawn, at the same scale both ways."""
    axes.set_axis_off()
    axes.set_aspect("equal")


def is_vector(scene: Scene, size: int) -> bool:
    """Whether the observation is a row of `size` numbers in the task's units."""
    return scene.observation.shape == (size,) and scene.has_units
