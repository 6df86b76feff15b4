"""Draws the two figures at the head of the README from datasets in docs/results: `python scripts/figures.py`.

`distillation.svg` is after Figure 1 of the HaDES paper: two examples, one step, a policy. `examples.svg` is after
Figure 3 of the PPMO paper: the examples of cart-pole as carts and poles.
"""

import itertools
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import floppy
from floppy.draw import Scene
from floppy.draw.base import BLUE, GREY, INK, ORANGE
from floppy.draw.page import kind_of
from floppy.draw.plain import number_text
from floppy.draw.scenes import groups_of
from floppy.figure import figure_bytes, usual_settings
from floppy.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
FIGURES = ROOT / "docs/figures"
CART_POLE = "cartpole/lambda-1d-k2.safetensors"
HOPPER = "brax/hopper-k4.safetensors"
SHORT = ("position", "velocity", "angle", "angular velocity")


def scenes_of(name: str) -> tuple[Scene, ...]:
    return groups_of(floppy.load(RESULTS / name))[0].scenes


def page(width: float, height: float) -> tuple[Figure, Axes]:
    """An empty light figure with rounded corners, and axes in inches over all of it."""
    figure = Figure(figsize=(width, height), facecolor="none")
    FigureCanvasAgg(figure)
    whole = figure.add_axes((0, 0, 1, 1))
    whole.set_xlim(0, width)
    whole.set_ylim(0, height)
    whole.set_axis_off()
    card = FancyBboxPatch((0.06, 0.06), width - 0.12, height - 0.12, boxstyle="round,pad=0,rounding_size=0.12")
    card.set(facecolor="white", edgecolor="#d0d7de", linewidth=1.0)
    whole.add_patch(card)
    return figure, whole


def place(figure: Figure, left: float, bottom: float, width: float, height: float) -> Axes:
    across, up = figure.get_size_inches()
    return figure.add_axes((left / across, bottom / up, width / across, height / up))


def picture(figure: Figure, scene: Scene, left: float, bottom: float, width: float, height: float) -> None:
    kind_of(scene).draw(place(figure, left, bottom, width, height), scene)


def step(whole: Axes, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    """A thick grey arrow with words above."""
    whole.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=22, linewidth=3, color=GREY))
    whole.text((start[0] + end[0]) / 2, start[1] + 0.18, text, ha="center", va="bottom", fontsize=10, color=INK)


def asked(scene: Scene) -> str:
    """The target in words."""
    assert scene.target is not None
    best = int(scene.target.values.argmax())
    return f"{scene.target.names[best]}: {scene.target.values[best]:.0%}"


def distillation() -> Figure:
    """Examples, one step, a policy: for cart-pole above, for the hopper below."""
    width, height = 10.4, 5.6
    figure, whole = page(width, height)
    titles = ((2.55, "a distilled dataset"), (6.85, "one training step"), (9.0, "a policy that plays"))
    for x, title in titles:
        whole.text(x, height - 0.4, title, ha="center", fontsize=13, weight="bold", color=INK)
    rows = ((CART_POLE, 3.05, "CartPole: {} examples", slice(2)), (HOPPER, 0.45, "Brax Hopper: {} examples", slice(4)))
    for name, bottom, words, shown in rows:
        dataset, scenes = floppy.load(RESULTS / name), scenes_of(name)[shown]
        each = 4.4 / len(scenes)
        for number, scene in enumerate(scenes):
            left = 0.35 + number * each
            picture(figure, scene, left, bottom + 0.32, each - 0.08, 1.35)
            note = asked(scene) if scene.target and scene.target.is_discrete else "torques"
            whole.text(left + each / 2, bottom + 0.2, note, ha="center", fontsize=9, color=ORANGE)
        whole.text(2.55, bottom + 1.85, words.format(dataset.examples), ha="center", fontsize=11, color=INK)
        middle = bottom + 0.95
        whole.text(5.85, middle + 0.75, "a fresh network", ha="center", fontsize=10, color=INK)
        network(whole, 5.85, middle)
        step(whole, (4.9, middle), (5.35, middle), "")
        step(whole, (6.4, middle), (7.75, middle), "")
        steps = int(dataset.card.cloning["steps"])
        word = "1 gradient step" if steps == 1 else f"{steps} gradient steps"
        whole.text(7.05, middle + 0.2, word, ha="center", fontsize=10, color=INK)
        assert dataset.card.score is not None
        score = dataset.card.score
        whole.text(9.0, middle + 0.28, f"{score['mean']:.0f}", ha="center", fontsize=24, weight="bold", color=BLUE)
        whole.text(9.0, middle - 0.02, "mean return", ha="center", fontsize=10, color=INK)
        many = f"{score['learners']} fresh networks,\n{score['episodes']} episodes each"
        whole.text(9.0, middle - 0.2, many, ha="center", va="top", fontsize=9, color="#57606a")
    whole.text(
        0.35,
        0.25,
        "Orange: what an example asks for, the push or the torques. Blue: velocities in the example.",
        fontsize=9,
        color="#57606a",
    )
    return figure


def network(whole: Axes, x: float, y: float) -> None:
    """Units in layers, and the lines between them."""
    layers = [
        [(x - 0.35 + 0.35 * layer, y + 0.24 * (unit - (count - 1) / 2)) for unit in range(count)]
        for layer, count in enumerate((3, 4, 2))
    ]
    for before, after in itertools.pairwise(layers):
        for a in before:
            for b in after:
                whole.plot(*zip(a, b, strict=True), color=GREY, linewidth=0.6, zorder=2)
    for layer in layers:
        for unit in layer:
            whole.plot(*unit, "o", markersize=8, color="white", markeredgecolor=INK, markeredgewidth=1.0, zorder=3)


def examples() -> Figure:
    """Both examples of cart-pole, with their numbers and targets in words."""
    scenes = scenes_of(CART_POLE)
    width, height = 9.0, 3.5
    figure, whole = page(width, height)
    title = f"All that a fresh network needs to balance CartPole-v1: {len(scenes)} examples"
    whole.text(width / 2, height - 0.4, title, ha="center", fontsize=13, weight="bold", color=INK)
    each = (width - 0.6) / len(scenes)
    for number, scene in enumerate(scenes):
        left = 0.3 + number * each
        picture(figure, scene, left, 1.15, each - 0.2, 1.75)
        assert scene.target is not None
        chances = ", ".join(
            f"{name} {value:.0%}" for name, value in zip(scene.target.names, scene.target.values, strict=True)
        )
        whole.text(left + each / 2, 1.0, f"target: {chances}", ha="center", fontsize=10, color=ORANGE)
        units = ("m", "m/s", "rad", "rad/s")
        numbers = [
            f"{name} {number_text(value)} {unit}"
            for name, value, unit in zip(SHORT, scene.observation, units, strict=True)
        ]
        for line, pair in enumerate((numbers[:2], numbers[2:])):
            whole.text(left + each / 2, 0.74 - 0.2 * line, ", ".join(pair), ha="center", fontsize=9.5, color=INK)
    note = "Orange arrows: the pushes that the target asks for. Blue arrows: velocities of cart and pole."
    whole.text(width / 2, 0.22, note, ha="center", fontsize=9, color="#57606a")
    return figure


def main() -> None:
    for draw in (distillation, examples):
        with usual_settings():
            figure = draw()
        write_atomically(FIGURES / f"{draw.__name__}.svg", figure_bytes(figure, "svg"))


if __name__ == "__main__":
    main()
