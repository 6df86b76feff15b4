"""The pictures of a report, as files: examples, curves, scores, maps. They are narrow, for phones."""

import io
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from floppy.drawing.base import PICTURES, Scene
from floppy.drawing.page import kind_of
from floppy.drawing.plain import number_text
from floppy.figure import label_of, picture_of
from floppy.report.episode import Episode, as_gif, draw_frames, frames_of
from floppy.report.html import Picture
from floppy.studies.explain_figure import draw_examples, draw_map
from floppy.tasks.base import Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 4.6
"""Inches of a figure."""
DPI = 160
MOST_NUMBERS = 6
"""Of an observation, that are written below its picture."""


def drawn(draw: Callable[["Figure"], None], width: float = WIDTH, height: float = 3.0) -> bytes:
    """A PNG of what a function draws."""

    def resized(figure: "Figure") -> None:
        figure.set_size_inches(width, height)
        draw(figure)

    return picture_of(resized, dpi=DPI)


def scene_picture(scene: Scene, alt: str) -> Picture:
    """An example's observation."""
    kind = kind_of(scene)
    width, height = kind.size(scene)
    data = drawn(lambda figure: kind.draw(figure.subplots(), scene), width + 0.1, height + 0.1)
    return Picture(data, "png", alt)


def numbers_of(scene: Scene) -> str:
    """The numbers of an observation with their names, where its picture does not write them; empty where it does.

    Of many those that are furthest from their means, as networks see them.
    """
    values = scene.observation
    if values.ndim != 1 or kind_of(scene) is PICTURES["bars"]:
        return ""
    mean = np.zeros_like(values) if scene.mean is None else scene.mean
    far = np.abs(values - mean if scene.normalised is None else scene.normalised)
    chosen = np.sort(np.argsort(-far, kind="stable")[:MOST_NUMBERS])
    names, left = scene.names, len(values) - len(chosen)
    said = ", ".join(f"{names[index]} {number_text(values[index])}" for index in chosen)
    return said + (f", and {left} that are nearer to their means" if left else "")


def episode_picture(task: Task, episode: Episode, alt: str, caption: str) -> Picture:
    """An episode as a GIF, and its first frame for people who want nothing to move."""
    frames = draw_frames(task, frames_of(episode))
    still = io.BytesIO()
    frames[0].save(still, "PNG")
    return Picture(as_gif(frames), "gif", alt, caption, still.getvalue())


def curve_picture(
    log: Sequence[dict[str, Any]], unit: str, chance: tuple[str, float], alt: str, caption: str
) -> Picture | None:
    """The scores of a run's evaluations over its environment steps; None where it had less than two."""
    steps = np.cumsum([line.get("env_steps", 0.0) for line in log])
    points = [(taken, line["selection_score"]) for taken, line in zip(steps, log, strict=True) if _is_scored(line)]
    if len(points) < 2:
        return None

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(*zip(*points, strict=True), "o-", markersize=3)
        axes.axhline(chance[1], color="grey", linestyle="--", label=chance[0])
        axes.set_xlabel("environment steps")
        axes.set_ylabel(unit)
        axes.legend()

    return Picture(drawn(draw), "png", alt, caption)


def _is_scored(line: dict[str, Any]) -> bool:
    return line.get("selection_score") is not None


def scores_picture(
    rows: Sequence[tuple[str, float, tuple[float, float] | None]], unit: str, alt: str, caption: str
) -> Picture:
    """A dot per score, with a line for its interval."""
    names = [list(map(label_of, textwrap.wrap(who, 22))) for who, _, _ in rows]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for place, (_, mean, interval) in enumerate(rows):
            low, high = interval or (mean, mean)
            colour = "C1" if place == 0 else "C0"
            axes.plot([low, high], [place, place], color=colour, linewidth=3, alpha=0.5)
            axes.plot(mean, place, "o", color=colour)
        axes.set_yticks(range(len(rows)), ["\n".join(lines) for lines in names])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.grid(axis="x", alpha=0.3)

    return Picture(drawn(draw, height=0.9 + len(rows) * max(0.4, 0.2 * max(map(len, names)))), "png", alt, caption)


def influence_picture(examples: Sequence[dict[str, Any]], unit: str, alt: str, caption: str) -> Picture:
    """A bar per example that was left out."""
    return Picture(drawn(lambda figure: draw_examples(examples, unit, figure.subplots())), "png", alt, caption)


def map_picture(points: Sequence[dict[str, Any]], alt: str, caption: str) -> Picture:
    """What clones do over two features."""
    return Picture(drawn(lambda figure: draw_map("", points, figure.subplots())), "png", alt, caption)
