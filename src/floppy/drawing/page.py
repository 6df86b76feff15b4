"""The page: a panel for each example, its observation drawn, its target as bars, its numbers beside it."""

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from floppy.dataset.file import DistilledDataset
from floppy.drawing.base import GREY, INK, ORANGE, PALE, PICTURES, Kind, Scene, Target
from floppy.drawing.body import missing_of
from floppy.drawing.plain import SMALL, number_text
from floppy.drawing.scenes import Group, as_observation, groups_of
from floppy.figure import label_of, take_literally, usual_settings
from floppy.tasks.base import Task, picture_of
from floppy.tasks.registry import make_task

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PLAIN = ("bars", "image", "frames", "heat-map")
"""Kinds that suit a shape, where a task's own does not fit, or it has none; the last one suits any."""
MOST_VALUES = 12
"""Numbers of an observation that are written beside its picture."""
MOST_ACTIONS = 20
"""Actions that have a bar; of more, the most probable or the largest."""

# All in inches.
WIDEST = 14.0
MARGIN = 0.25
GAP = 0.35
BETWEEN = 0.22
"""Rows of panels."""
TITLE = 0.26
LINE = 0.155
BARS, NUMBERS, COLUMN = 1.0, 0.45, 0.6
"""Widths of the target's bars, of the numbers beside them, and of a column of the observation's numbers."""
LETTER = 0.058
"""Width of a letter of a name."""
LETTERS = 15.5
"""Letters of a caption in an inch."""


def draw(dataset: DistilledDataset, examples: Sequence[int] | None = None) -> "Figure":
    """Draws the examples of a dataset, each with its target.

    A task says which picture fits it: carts and poles, bodies in their poses, a game's cells, frames, images. All
    others are bars or a heat map. Of a merged dataset every task has rows of its own; of a dataset without examples a
    sentence says what it holds.

    Args:
      dataset: the dataset.
      examples: their numbers, from 0; by default the first 16.

    Returns:
      A figure of Matplotlib's, which no window shows: `figure.savefig("examples.png")` writes it, and notebooks show
      it.

    Raises:
      FloppyError: for anything but a dataset, or for numbers of examples that it does not have.
    """
    groups = groups_of(dataset, examples)
    panels = [_Panels(group) for group in groups]
    head, notes = _heading(dataset, groups), _notes(dataset, panels)
    width = max(6.5, *(each.width for each in panels)) + 2 * MARGIN
    heading = textwrap.wrap(head, int((width - 2 * MARGIN) * LETTERS * 0.72))
    caption = [line for note in notes for line in textwrap.wrap(note, int((width - 2 * MARGIN) * LETTERS))]
    top, bottom = 0.2 + 0.2 * len(heading), 0.15 + 0.15 * len(caption)
    height = top + bottom + sum(each.height for each in panels) + GAP * (len(panels) - 1) + MARGIN
    with usual_settings():
        figure = _figure(width, height)
        for number, line in enumerate(heading):
            y = height - 0.2 - 0.2 * number
            figure.text(MARGIN / width, y / height, line, fontsize=10, weight="bold", color=INK, va="center")
        at = height - top
        for each in panels:
            each.draw(figure, at, is_titled=len(panels) > 1)
            at -= each.height + GAP
        for number, line in enumerate(caption):
            y = bottom - 0.15 * (number + 1)
            figure.text(MARGIN / width, y / height, line, fontsize=SMALL + 0.5, color="#57606a", va="center")
        take_literally(figure)
    return figure


def draw_example(dataset: DistilledDataset, index: int) -> "Figure":
    """Draws one example of a dataset with its target; see `draw`.

    Args:
      dataset: the dataset.
      index: the example's number, from 0.

    Raises:
      FloppyError: for anything but a dataset, or for an example that it does not have.
    """
    return draw(dataset, [index])


def draw_observation(axes: "Axes", task: Task | str, observation: Any) -> None:
    """Draws one observation of a task, as it comes from play, on axes of yours.

    Frames of an episode are drawn at one scale, so that they can be shown one after the other; clear the axes in
    between (`axes.clear()`).

    Args:
      axes: of a Matplotlib figure; their limits are set.
      task: or its id.
      observation: `[*obs]`, in the task's units, bytes or floats.

    Raises:
      FloppyError: for another shape than the task's, NaN or infinity, or a task that is not known.
    """
    task = make_task(task) if isinstance(task, str) else task
    array = as_observation(observation, tuple(task.observation_shape))
    limits = None
    if array.ndim == 3:
        limits = (0.0, 255.0) if array.dtype == np.uint8 else (0.0, 1.0)
    scene = Scene(picture_of(task), array.astype(float), limits=limits)
    with usual_settings():
        kind_of(scene).draw(axes, scene)


def observation_size(task: Task | str) -> tuple[float, float]:
    """Width and height of the axes that `draw_observation` fills well, in inches."""
    task = make_task(task) if isinstance(task, str) else task
    scene = Scene(picture_of(task), np.zeros(task.observation_shape))
    return kind_of(scene).size(scene)


def kind_of(scene: Scene) -> Kind:
    """The task's own kind of picture, or the first of the plain ones that fits."""
    names = [name for name in (scene.picture.kind, *PLAIN) if name in PICTURES]
    return next(PICTURES[name] for name in names if PICTURES[name].fits(scene))


def caption_of(scene: Scene) -> str:
    """How to read the picture, and what is not installed for a better one."""
    return " ".join(filter(None, (kind_of(scene).caption(scene), missing_of(scene))))


class _Panels:
    """The panels of one task: how large they are, and where each of them lies."""

    def __init__(self, group: Group) -> None:
        self.group, self.kind = group, None
        self.columns = self.rows = 0
        self.size = self.picture = (0.0, 0.0)
        self.actions = self.names = 0.0
        if not group.scenes:
            return
        scene = group.scenes[0]
        self.kind = kind_of(scene)
        self.picture = self.kind.size(scene)
        height = TITLE + LINE * (_bar_count(scene) + 0.5)
        self.actions = _longest(scene.target.names if scene.target else ())
        side = self.actions + BARS + NUMBERS
        if _has_table(scene, self.kind):
            height += LINE * (len(scene.observation) + 1.5)
            self.names = max(0.85, _longest(scene.names))  # the head of the column needs that
            side = max(side, self.names + COLUMN * (1 if scene.normalised is None else 2))
        self.size = (self.picture[0] + 0.25 + side, max(self.picture[1] + TITLE, height))
        fit = max(1, int((WIDEST + GAP) // (self.size[0] + GAP)))
        self.rows = -(-len(group.scenes) // fit)
        self.columns = -(-len(group.scenes) // self.rows)

    @property
    def width(self) -> float:
        """Of all of them."""
        return self.columns * (self.size[0] + GAP) - GAP

    @property
    def height(self) -> float:
        """Of all of them."""
        return max(0.0, self.rows * (self.size[1] + BETWEEN) - BETWEEN)

    def draw(self, figure: "Figure", top: float, *, is_titled: bool) -> None:
        """Draws them from a height on downwards."""
        for number, (index, scene) in enumerate(zip(self.group.indexes, self.group.scenes, strict=True)):
            row, column = divmod(number, self.columns)
            left = MARGIN + column * (self.size[0] + GAP)
            name = f"{label_of(self.group.task)}, example {index}" if is_titled else f"example {index}"
            self._panel(figure, left, top - row * (self.size[1] + BETWEEN), name, scene)

    def _panel(self, figure: "Figure", left: float, top: float, name: str, scene: Scene) -> None:
        assert self.kind is not None
        width, height = self.picture
        _text(figure, left, top - 0.1, name, size=8.5, weight="bold")
        kind = self.kind if self.kind.fits(scene) else kind_of(scene)
        kind.draw(_axes(figure, left, top - TITLE - height, width, height), scene)
        if scene.target is None:
            return
        left += width + 0.25
        title = "target probabilities" if scene.target.is_discrete else "target action"
        _text(figure, left, top - 0.1, title, size=SMALL + 0.5, colour=ORANGE, weight="bold")
        bottom = top - TITLE - LINE * _bar_count(scene)
        _bars(_axes(figure, left + self.actions, bottom, BARS, top - TITLE - bottom), scene.target)
        if _has_table(scene, kind):
            _table(figure, left, bottom - LINE, self.names, scene)


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: "Figure", left: float, bottom: float, width: float, height: float) -> "Axes":
    """Axes at a place in inches."""
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def _text(
    figure: "Figure", x: float, y: float, text: str, *, size: float = SMALL, colour: str = INK, **options: Any
) -> None:
    """A line at a place in inches."""
    across, up = figure.get_size_inches()
    figure.text(x / across, y / up, text, fontsize=size, color=colour, va="center", **options)


def _longest(names: Sequence[str]) -> float:
    """The width that names need, in inches."""
    return 0.15 + LETTER * max((len(label_of(name)) for name in names), default=0)


def _bar_count(scene: Scene) -> int:
    return 0 if scene.target is None else min(len(scene.target.values), MOST_ACTIONS)


def _has_table(scene: Scene, kind: Kind) -> bool:
    """Whether the numbers are written: where they are few, and not in the picture already."""
    return scene.observation.ndim == 1 and len(scene.observation) <= MOST_VALUES and kind is not PICTURES["bars"]


def _bars(axes: "Axes", target: Target) -> None:
    """The target: probabilities from 0 to 1, or a continuous action within its range."""
    order = np.arange(len(target.values))
    if len(order) > MOST_ACTIONS:
        order = np.sort(np.argsort(-np.abs(target.strength), kind="stable")[:MOST_ACTIONS])
    values, lengths = target.values[order], target.strength[order]
    places = np.arange(len(order))
    low, most = (0.0, 1.0) if target.is_discrete else (-1.0, 1.0)
    axes.barh(places, [most - low] * len(order), left=low, height=0.8, color=PALE, alpha=0.45, linewidth=0)
    reach = 0.0 if target.is_discrete else 0.3
    axes.barh(places, np.clip(lengths, low - reach, most + reach), height=0.55, color=ORANGE)
    axes.axvline(0.0, color=GREY, linewidth=0.8)
    axes.set_xlim(low - reach, most + reach)
    axes.set_ylim(len(order) - 0.5, -0.5)
    axes.set_yticks(places, [label_of(target.names[index]) for index in order], fontsize=SMALL)
    axes.tick_params(axis="both", length=0)
    axes.set_xticks([])
    for place, value in zip(places.tolist(), values, strict=True):
        text = f"{value:.2f}" if target.is_discrete else number_text(value)
        axes.text(1.04, place, text, transform=axes.get_yaxis_transform(), fontsize=SMALL, va="center")
    for spine in axes.spines.values():
        spine.set_visible(False)


def _table(figure: "Figure", left: float, top: float, width: float, scene: Scene) -> None:
    """Names and numbers, in the task's units and as networks see them."""
    right, far = left + width + COLUMN, left + width + 2 * COLUMN
    units = "task's units" if scene.has_units else "normalised"
    _text(figure, left, top, "observation", size=SMALL + 0.5, weight="bold")
    _text(figure, right, top, units, size=SMALL - 0.5, colour=GREY, ha="right")
    if scene.normalised is not None:
        _text(figure, far, top, "normalised", size=SMALL - 0.5, colour=GREY, ha="right")
    for number, (name, value) in enumerate(zip(scene.names, scene.observation, strict=True)):
        y = top - LINE * (number + 1)
        _text(figure, left, y, label_of(name))
        _text(figure, right, y, number_text(value), ha="right")
        if scene.normalised is not None:
            _text(figure, far, y, number_text(scene.normalised[number]), colour="#57606a", ha="right")


def _heading(dataset: DistilledDataset, groups: list[Group]) -> str:
    """Task, number of examples, and the score on the card."""
    count = dataset.examples
    parts = [label_of(dataset.card.task), f"{count} example{'' if count == 1 else 's'}"]
    drawn = sum(len(group.indexes) for group in groups)
    if 0 < drawn < count:
        parts[-1] += f", {drawn} of them drawn"
    score = dataset.card.score
    if score is not None:
        parts.append(f"score on its card {_plain(score['mean'])} (sd {_plain(score['sd'])})")
    return " · ".join(parts)


def _plain(value: Any) -> str:
    """A number of a card's, which may be anything."""
    return f"{value:.1f}" if isinstance(value, int | float) else label_of(value)


def _notes(dataset: DistilledDataset, panels: list[_Panels]) -> list[str]:
    """What a stranger must know to read the page."""
    captions = [caption_of(each.group.scenes[0]) for each in panels if each.kind is not None]
    notes = list(dict.fromkeys(captions))
    scenes = [each.group.scenes[0] for each in panels if each.group.scenes]
    targets = [scene.target for scene in scenes if scene.target is not None]
    if any(not target.is_discrete for target in targets):
        notes.append("Grey bands: the range of each action; what goes beyond it is cut off before the task sees it.")
    if dataset.card.is_plain_policy:
        more = "it needs the examples no more" if dataset.examples else "there are no examples"
        notes.append(f"All layers of a trained policy are in the file: {more}.")
    elif dataset.card.encoder is not None:
        layers = dataset.card.encoder["layers"]
        notes.append(f"The first {layers} layers of the network are stored in the file; the others learn from this.")
    if dataset.card.normaliser == "per-evaluation":
        notes.append("Observations are in normalised units: their statistics are taken anew in every evaluation.")
    return notes
