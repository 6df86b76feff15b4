"""Draws the two figures at the head of the README from datasets in docs/results: `python scripts/figures.py`.

`distillation.svg` is after Figure 1 of the HaDES paper: two examples, one step, a policy. `examples.svg` is after
Figure 3 of the PPMO paper: the examples of cart-pole in three dimensions as carts and poles.
"""

import itertools
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

import floppy
from floppy.drawing import Scene
from floppy.drawing.base import BLUE, GREY, INK, ORANGE
from floppy.drawing.page import kind_of
from floppy.drawing.scenes import groups_of
from floppy.figure import figure_bytes, usual_settings
from floppy.files import write_atomically

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs/results"
FIGURES = ROOT / "docs/figures"
CART_POLE = "cartpole/lambda-1d-k2.safetensors"
HOPPER = "hades/r-hopper-k4.safetensors"
THREE = "cartpole/lambda-3d-k4.safetensors"


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


def arrow(whole: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    whole.add_patch(FancyArrowPatch(start, end, arrowstyle="-|>", mutation_scale=22, linewidth=3, color=GREY))


def asked(scene: Scene) -> str:
    """The target in words."""
    assert scene.target is not None
    best = int(scene.target.values.argmax())
    return f"{scene.target.names[best]}: {scene.target.values[best]:.0%}"


def distillation() -> Figure:
    """Examples, one step, a policy: for cart-pole above, for the hopper below."""
    width, height = 10.4, 4.9
    figure, whole = page(width, height)
    titles = ((2.5, "a distilled dataset"), (6.4, "training, no environment"), (9.2, "a policy that plays"))
    for x, title in titles:
        whole.text(x, height - 0.42, title, ha="center", fontsize=13, weight="bold", color=INK)
    rows = ((CART_POLE, 2.5, "CartPole: {} examples", 2), (HOPPER, 0.4, "Hopper: {} examples", 4))
    for name, bottom, words, shown in rows:
        dataset, scenes = floppy.load(RESULTS / name), scenes_of(name)[:shown]
        each = 4.4 / len(scenes)
        for number, scene in enumerate(scenes):
            left = 0.3 + number * each
            picture(figure, scene, left, bottom + 0.25, each - 0.08, 1.3)
            assert scene.target is not None
            if scene.target.is_discrete:
                whole.text(left + each / 2, bottom + 0.3, asked(scene), ha="center", fontsize=9.5, color=ORANGE)
        whole.text(2.5, bottom + 1.6, words.format(dataset.examples), ha="center", fontsize=11, color=INK)
        middle = bottom + 0.9
        whole.text(5.75, middle + 0.68, "a fresh network", ha="center", fontsize=10, color=INK)
        network(whole, 5.75, middle)
        arrow(whole, (4.75, middle), (5.25, middle))
        arrow(whole, (6.3, middle), (8.0, middle))
        steps = int(dataset.card.cloning["steps"])
        word = "1 gradient step" if steps == 1 else f"{steps} gradient steps"
        whole.text(7.1, middle + 0.16, word, ha="center", fontsize=10, color=INK)
        returns(whole, dataset, 9.2, middle)
    note = "Orange: what an example asks for, the push of the cart or the torques at the joints. Blue: velocities."
    whole.text(0.35, 0.25, note, fontsize=9, color="#57606a")
    return figure


def returns(whole: Axes, dataset: floppy.DistilledDataset, x: float, y: float) -> None:
    """The score on a card."""
    score, most = dataset.card.score, floppy.make_task(dataset.card.task).max_return
    assert score is not None
    whole.text(x, y + 0.24, f"{score['mean']:.0f}", ha="center", fontsize=24, weight="bold", color=BLUE)
    of = "" if most is None else f", of at most {most:.0f}"
    whole.text(x, y - 0.02, f"mean return{of}", ha="center", fontsize=10, color=INK)
    random = next(each.random for each in floppy.zoo.entry(dataset.card.task).scores)
    many = f"{score['learners']} fresh networks,\n{score['episodes']} episodes each\n(random play: {random:.0f})"
    whole.text(x, y - 0.2, many, ha="center", va="top", fontsize=9, color="#57606a")


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
    """The examples of cart-pole in three dimensions, and what each asks for most."""
    scenes = scenes_of(THREE)
    width, height = 10.4, 4.75
    figure, whole = page(width, height)
    title = f"All that a fresh network needs to balance three poles at once: {len(scenes)} examples"
    whole.text(width / 2, height - 0.42, title, ha="center", fontsize=13, weight="bold", color=INK)
    each = (width - 0.5) / len(scenes)
    for number, scene in enumerate(scenes):
        left = 0.25 + number * each
        picture(figure, scene, left, 0.9, each, 3.0)
        whole.text(left + each / 2, height - 0.75, f"example {number + 1}", ha="center", fontsize=10, color=INK)
        whole.text(left + each / 2, 0.68, f"pole {asked(scene)}", ha="center", fontsize=10, color=ORANGE)
    note = (
        "Each line is one of the three carts. Orange: the pushes that the example asks for; the longer, the likelier. "
        "Blue: velocities of carts and poles."
    )
    whole.text(width / 2, 0.3, note, ha="center", fontsize=9, color="#57606a")
    return figure


def main() -> None:
    for draw in (distillation, examples):
        with usual_settings():
            figure = draw()
        write_atomically(FIGURES / f"{draw.__name__}.svg", figure_bytes(figure, "svg"))


if __name__ == "__main__":
    main()
