"""Drawn examples: things stand where their numbers say, bars are as long as targets, no text is more than text."""

import ast
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrow, Polygon, Rectangle
from matplotlib.text import Text
from probes import ActionProbe, hand_dataset
from scipy.special import softmax

import floppy
from floppy.cli.main import main
from floppy.dataset import DistilledDataset, save
from floppy.drawing import PICTURES, Picture, Scene, draw, draw_example, draw_observation, draw_text, register_picture
from floppy.drawing.base import INK, Target
from floppy.drawing.body import model_path, outlines, pose
from floppy.drawing.cartpole import PUSH, pole_tip
from floppy.drawing.cells import squares
from floppy.drawing.classic import Lander, links, rod_tip, valley
from floppy.drawing.page import kind_of, observation_size
from floppy.drawing.scenes import groups_of
from floppy.errors import FloppyError
from floppy.figure import figure_bytes
from floppy.tasks.base import picture_of
from floppy.tasks.registry import FAMILIES, list_tasks, picture_by_name

SOURCE = Path(floppy.__file__).parent / "drawing"
DISCRETE, TORQUES = {"kind": "discrete"}, {"kind": "continuous"}


def dataset_of(task: str, shape: tuple[int, ...], size: int, *, kind: str = "discrete", k: int = 2, **more: Any) -> Any:
    """Random examples of a task, targets of ±1 and more."""
    random = np.random.default_rng(0)
    actions: dict[str, Any] = {"kind": kind, "size": size}
    if kind == "continuous":
        actions |= {"low": [-2.0] * size, "high": [2.0] * size}
    card = {"task": task, "actions": actions} | more.pop("card", {})
    arrays = {"observations": random.normal(size=(k, *shape)), "targets": 2 * random.normal(size=(k, size))}
    return hand_dataset(card, **(arrays | more))


CASES: dict[str, tuple[str, tuple[int, ...], int, str]] = {
    "cartpole": ("ndcartpole/3", (12,), 6, "discrete"),
    "acrobot": ("gymnax/Acrobot-v1", (6,), 3, "discrete"),
    "mountain-car": ("gymnasium/MountainCarContinuous-v0", (2,), 1, "continuous"),
    "pendulum": ("gymnax/Pendulum-v1", (3,), 1, "continuous"),
    "lander": ("gymnasium/LunarLander-v3", (8,), 4, "discrete"),
    "cells": ("gymnax/Breakout-MinAtar", (10, 10, 4), 3, "discrete"),
    "body": ("gymnasium/Hopper-v4", (11,), 3, "continuous"),
    "frames": ("ale/pong", (84, 84, 4), 6, "discrete"),
    "image": ("images/digits", (8, 8, 1), 10, "discrete"),
    "bars": ("mine/of-few-numbers", (5,), 2, "discrete"),
    "heat-map": ("mine/of-many-numbers", (400,), 2, "continuous"),
}
"""A task of every kind of picture: id, shape, number of actions and their kind."""


def test_every_kind_of_picture_has_a_case() -> None:
    assert set(CASES) == set(PICTURES)


@pytest.mark.parametrize("kind", CASES)
def test_a_dataset_is_drawn_by_its_tasks_kind(kind: str) -> None:
    task, shape, size, actions = CASES[kind]
    if kind == "body":
        pytest.importorskip("mujoco")
        pytest.importorskip("gymnasium")
    dataset = dataset_of(task, shape, size, kind=actions)
    (group,) = groups_of(dataset)
    assert kind_of(group.scenes[0]) is PICTURES[kind]
    figure = draw_example(dataset, 1)
    assert heading(figure).startswith(f"{task} · 2 examples")
    assert "example 1" in texts(figure)
    assert figure.axes[0].patches or figure.axes[0].images
    assert all(len(line) <= 80 for line in draw_text(dataset).splitlines())


def test_a_page_is_written_as_png_svg_and_pdf_the_same_each_time() -> None:
    figures = [draw(dataset_of("ndcartpole/1", (4,), 2, k=1)) for _ in range(2)]
    for kind, start in (("png", b"\x89PNG"), ("svg", b"<?xml"), ("pdf", b"%PDF")):
        first, second = (figure_bytes(figure, kind, dpi=30) for figure in figures)
        assert first.startswith(start)
        assert first == second


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def heading(figure: Figure) -> str:
    return figure.texts[0].get_text()


def scene(picture: Picture, observation: Any, **more: Any) -> Scene:
    return Scene(picture, np.asarray(observation, float), **more)


def drawn(one: Scene) -> Any:
    """The axes on which a scene is drawn."""
    axes = Figure().add_axes((0, 0, 1, 1))
    kind_of(one).draw(axes, one)
    return axes


# --- Where things stand.


def test_a_pole_ends_where_its_angle_says() -> None:
    assert pole_tip(0.5, 0.0) == (0.5, 1.0)
    assert pole_tip(0.5, math.pi / 2) == pytest.approx((1.5, 0.0))
    assert pole_tip(0.5, -math.pi / 6) == pytest.approx((0.0, math.sqrt(3) / 2))
    axes = drawn(scene(picture_by_name("ndcartpole/1") or Picture(), [0.5, 0.0, math.pi / 2, 0.0]))
    (pole,) = (patch for patch in axes.patches if isinstance(patch, Polygon) and not isinstance(patch, FancyArrow))
    assert pole.get_xy()[:, 0].max() == pytest.approx(1.56, abs=0.01)  # the tip, and the round end
    (cart,) = (patch for patch in axes.patches if isinstance(patch, Rectangle))
    assert cart.get_x() + cart.get_width() / 2 == pytest.approx(0.5)


def test_a_push_is_as_long_as_it_is_likely() -> None:
    dataset = dataset_of("ndcartpole/2", (8,), 4, k=1, observations=np.zeros((1, 8)), targets=np.log([[6, 1, 2, 1]]))
    axes = draw(dataset).axes[0]
    arrows = [patch.get_xy() for patch in axes.patches if isinstance(patch, FancyArrow)]
    assert sorted(np.ptp(xy[:, 0]) for xy in arrows) == pytest.approx([0.6 * PUSH], abs=0.01)  # others are short
    lengths = {round(float(np.ptp(xy[:, 0]) / PUSH), 3): xy for xy in arrows}
    assert 0.6 in lengths
    assert lengths[0.6][:, 0].max() < 0  # action 0 pushes the first cart to the left
    assert lengths[0.6][:, 1].mean() == pytest.approx(0.0, abs=0.3)


def test_links_rods_and_valleys() -> None:
    assert links(np.array([1.0, 0.0, 1.0, 0.0])) == [(0.0, 0.0), (0.0, -1.0), (0.0, -2.0)]  # both hang
    _, elbow, tip = links(np.array([0.0, 1.0, 0.0, 1.0]))  # a quarter turn each
    assert elbow == pytest.approx((1.0, 0.0))
    assert tip == pytest.approx((1.0, 1.0))
    assert rod_tip(np.array([1.0, 0.0])) == pytest.approx((0.0, 1.0))
    assert rod_tip(np.array([0.0, 1.0])) == pytest.approx((-1.0, 0.0))  # as Gymnasium draws it
    assert rod_tip(np.array([0.0, 3.0])) == pytest.approx((-1.0, 0.0))  # examples need not lie on the circle
    assert valley(-math.pi / 6) == pytest.approx(0.1)  # the bottom: 0.55 - 0.45


def test_the_lander_stands_where_it_is() -> None:
    axes = drawn(scene(picture_by_name("gymnasium/LunarLander-v3") or Picture(), [0.4, 1.0, 0, 0, 0, 0, 0, 1]))
    hull = max((patch.get_xy() for patch in axes.patches), key=lambda xy: xy[:, 1].max())
    assert hull[:, 1].max() == pytest.approx(1.0 + 17 / 60)
    assert hull[:, 0].mean() == pytest.approx(0.4, abs=0.1)
    legs = [patch for patch in axes.patches if patch.get_xy()[:, 1].min() == pytest.approx(1.0 - 30 / 60)]
    (left,) = (leg for leg in legs if leg.get_facecolor() == to_rgba(INK))
    assert left.get_xy()[:-1, 0].mean() < 0.4


@pytest.mark.parametrize("name", ["LunarLander-v3", "LunarLanderContinuous-v3"])
def test_the_landers_legs_and_flames_are_on_the_sides_of_the_environments(name: str) -> None:
    """A flame drives the lander away from it; the legs' contacts come in the order of the environment's legs."""
    pytest.importorskip("Box2D")
    gymnasium = pytest.importorskip("gymnasium")
    picture = picture_by_name(f"gymnasium/{name}") or Picture()
    environment: Any = gymnasium.make("LunarLander-v3", continuous="Continuous" in name).unwrapped
    environment.reset(seed=0)
    sides = ["left" if leg.position.x < environment.lander.position.x else "right" for leg in environment.legs]
    assert list(picture.names[6:]) == [f"{side} leg touches" for side in sides]
    for action in (np.eye(2)[1], -np.eye(2)[1]) if "Continuous" in name else (1, 3):
        environment.reset(seed=0)
        before = environment.lander.linearVelocity.x
        for _ in range(3):
            environment.step(action)
        bounds = {"low": -np.ones(2), "high": np.ones(2)} if "Continuous" in name else {}
        target = Target(np.asarray(action, float) if bounds else np.eye(4)[action], picture.actions, **bounds)
        engines = Lander()._engines(scene(picture, np.zeros(8), target=target))
        (flame,) = (out for power, out in engines if power > 0)
        assert flame[0] * (environment.lander.linearVelocity.x - before) < 0


POSED = ["Hopper-v4", "Walker2d-v4", "HalfCheetah-v4", "InvertedDoublePendulum-v4", "Reacher-v4", "Ant-v4"]


@pytest.mark.thorough(all_but=["Hopper-v4"])
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", POSED)
def test_a_body_is_posed_as_the_environment_has_it(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for where it is, which an observation does not say."""
    monkeypatch.chdir(tmp_path)  # MuJoCo writes warnings about a model to a file
    mujoco = pytest.importorskip("mujoco")
    gymnasium = pytest.importorskip("gymnasium")
    environment = gymnasium.make(name, disable_env_checker=True).unwrapped
    observation, _ = environment.reset(seed=0)
    for _ in range(5):
        observation, *_ = environment.step(np.full(environment.action_space.shape, 0.5))
    body = (picture_by_name(f"gymnasium/{name}") or Picture()).body
    assert body is not None
    mujoco.mj_kinematics(environment.model, environment.data)  # a step leaves shapes where they were before
    posed, there = pose(body, observation), environment.data.geom_xpos
    away = posed.geom_xpos - there
    moves = environment.model.geom_bodyid > 0
    shift = away[moves][0] * (1, 1 if name == "Ant-v4" else 0, 0)
    np.testing.assert_allclose(away[moves], np.broadcast_to(shift, away[moves].shape), atol=1e-6)
    environment.close()


def test_braxs_hopper_stands_as_high_as_it_says() -> None:
    pytest.importorskip("mujoco")
    body = (picture_by_name("brax/hopper") or Picture()).body
    assert body is not None
    if model_path(body) is None:
        pytest.skip("Brax is not installed")
    posed = pose(body, np.array([0.9, *[0.0] * 10]))
    assert posed.xpos[1, 2] == pytest.approx(0.9)
    from floppy.drawing.body import VIEWS, _model

    shapes = outlines(_model(body), posed, VIEWS[body.view])
    assert max(outline[:, 1].max() for _, outline in shapes) == pytest.approx(0.9 + 0.25, abs=0.01)  # half its length


@pytest.mark.parametrize("missing", ["mujoco", "gymnasium"])
def test_without_mujoco_or_a_model_a_body_is_named_bars(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from floppy.drawing import body as module

    known = module.importlib.util.find_spec
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda name: None if name == missing else known(name))
    figure = draw(dataset_of(*CASES["body"][:3], kind="continuous"))
    assert "torso angle (rad)" in texts(figure)
    assert len(figure.axes[0].patches) == 11
    assert "pip install 'floppy-rl[mujoco]'" in " ".join(texts(figure))


def test_squares_are_the_channels_that_differ_most() -> None:
    cells = np.zeros((2, 3, 3, 2))
    cells[0, 1, 2] = (0.1, 1.0)
    cells[0, 0, 0] = (-0.5, 0.0)
    mean = cells.mean(axis=0)
    one = scene(Picture("cells"), cells[0], mean=mean)
    found = {(row, column): (channel, strength) for row, column, channel, strength in squares(one)}
    assert found.keys() == {(1, 2), (0, 0)}
    assert found[1, 2] == (1, pytest.approx(1.0, abs=0.1))
    assert found[0, 0] == (0, pytest.approx(-0.5, abs=0.1))
    real = scene(Picture("cells"), (cells[0] > 0.5).astype(float))
    assert squares(real) == [(1, 2, 1, 1.0)]


def test_frames_stand_side_by_side_in_their_order() -> None:
    frames = np.zeros((20, 20, 3)) + np.array([0.0, 0.5, 1.0])
    axes = drawn(scene(picture_by_name("ale/pong") or Picture(), frames, limits=(0.0, 1.0)))
    (image,) = (each for each in axes.images if isinstance(each, AxesImage))
    strip = np.asarray(image.get_array())
    assert [strip[0, 0], strip[0, 25], strip[0, -1]] == [0.0, 0.5, 1.0]


# --- Targets and units.


def widths(figure: Figure) -> list[float]:
    """Of the bars of the first target: those above the bands of its range."""
    bars = figure.axes[1].containers[1]
    return [bar.get_width() for bar in bars]


def test_bars_are_as_long_as_the_probabilities_of_logits() -> None:
    dataset = dataset_of("ndcartpole/2", (8,), 4)
    assert widths(draw(dataset)) == pytest.approx(softmax(dataset.targets[0]).tolist(), abs=1e-6)


def test_probabilities_are_not_taken_for_logits() -> None:
    probabilities = np.array([[0.7, 0.3], [0.0, 1.0]])
    for kind in ("GradientStep", "of-somebody-elses"):
        cloning = {"kind": kind, "loss": "cross-entropy"}
        dataset = dataset_of("ndcartpole/1", (4,), 2, targets=probabilities, card={"cloning": cloning})
        assert widths(draw(dataset)) == pytest.approx([0.7, 0.3])


def test_torques_are_in_the_tasks_units_within_their_range() -> None:
    units = {"centre": [0.0] * 2, "half_width": [2.0] * 2}
    actions = {"kind": "continuous", "size": 2, "low": [-2.0] * 2, "high": [2.0] * 2} | units
    dataset = dataset_of(
        "mine/a", (3,), 2, kind="continuous", targets=[[0.5, -4.0]] * 2, card={"actions": actions, "format": 3}
    )
    figure = draw(dataset)
    assert widths(figure) == pytest.approx([0.5, -1.3])  # half of the range; and beyond the end of it, cut
    assert {"1", "−8"} <= set(texts(figure))


def test_normalised_observations_are_shown_in_the_tasks_units_beside() -> None:
    statistics = {"obs_mean": np.full(4, 10.0), "obs_var": np.full(4, 4.0)}
    dataset = dataset_of(
        "ndcartpole/1", (4,), 2, observations=np.full((2, 4), 0.5), card={"normaliser": "frozen"}, **statistics
    )
    assert groups_of(dataset)[0].scenes[0].observation == pytest.approx(np.full(4, 11.0))
    found = texts(draw(dataset))
    assert {"11", "0.5", "task's units", "normalised"} <= set(found)


def test_without_statistics_nothing_is_posed() -> None:
    dataset = dataset_of("ndcartpole/1", (4,), 2, card={"normaliser": "per-evaluation"})
    figure = draw(dataset)
    assert kind_of(groups_of(dataset)[0].scenes[0]) is PICTURES["bars"]
    assert any("anew in every evaluation" in text for text in texts(figure))


# --- Which picture.


def test_tasks_say_their_picture_themselves_and_by_name_alike() -> None:
    assert picture_of(floppy.make_task("ndcartpole/2")) == picture_by_name("ndcartpole/2")
    assert picture_of(ActionProbe()) == Picture()
    assert picture_by_name("mine/unknown") is None


def test_positions_in_front_take_no_other_numbers_names() -> None:
    shifted = "gymnasium/Hopper-v4?exclude_current_positions_from_observation=False"
    assert picture_by_name(shifted) is None
    assert picture_by_name("gymnasium/Hopper-v4?frame_skip=2") == picture_by_name("gymnasium/Hopper-v4")


def test_every_picture_that_a_task_names_is_there() -> None:
    known = {name: picture_by_name(name) for name in list_tasks()}
    assert {picture.kind for picture in known.values() if picture is not None} <= {"", *PICTURES}
    unknown = {
        name for name, picture in known.items() if picture is None
    }  # of which the environments say it themselves
    assert all(name.startswith("gymnasium/") for name in unknown)
    assert unknown.isdisjoint({"gymnasium/CartPole-v1", "gymnasium/Hopper-v5"})


@dataclasses.dataclass(frozen=True)
class Dial:
    """A kind of somebody else's."""

    def fits(self, one: Scene) -> bool:
        return True

    def size(self, one: Scene) -> tuple[float, float]:
        return 1.0, 1.0

    def draw(self, axes: Any, one: Scene) -> None:
        axes.set_title("my own dial")

    def caption(self, one: Scene) -> str:
        return "A dial."


@pytest.fixture
def dial(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A task of somebody else's with a picture of its own."""

    @dataclasses.dataclass(frozen=True)
    class Own(ActionProbe):
        picture = Picture("dial", ("speed (knots)", "depth (m)"), ("slower", "faster"))

    monkeypatch.setitem(FAMILIES, "own", lambda rest: Own())
    members = dict(PICTURES._members)
    register_picture("dial", Dial())
    yield "own/dial"
    PICTURES._members.clear()
    PICTURES._members.update(members)


def test_a_task_of_ones_own_has_a_picture_of_its_own(dial: str) -> None:
    found = texts(draw(dataset_of(dial, ActionProbe().observation_shape, 2)))
    assert {"my own dial", "A dial.", "slower", "faster"} <= set(found)
    with pytest.raises(FloppyError, match="registered already"):
        register_picture("cells", Dial())


# --- Which examples.


def test_the_first_sixteen_are_drawn_or_those_that_are_named() -> None:
    dataset = dataset_of("images/digits", (8, 8, 1), 10, k=40)
    assert groups_of(dataset)[0].indexes == tuple(range(16))
    assert groups_of(dataset, [30, 2])[0].indexes == (30, 2)
    named = draw(dataset, [30, 2])
    assert {"example 30", "example 2"} <= set(texts(named))
    assert "40 examples, 2 of them drawn" in heading(named)


@pytest.mark.parametrize("wrong", [[2], [-1], [0.5], [], "0", 1, [0] * 101], ids=repr)
def test_examples_that_are_not_there_are_refused(wrong: Any) -> None:
    with pytest.raises(FloppyError, match="examples") as caught:
        draw(dataset_of("ndcartpole/1", (4,), 2), wrong)
    assert "\n" not in str(caught.value)


def test_of_a_merged_dataset_every_task_has_its_rows() -> None:
    parts = [dataset_of(f"ndcartpole/{n}", (4 * n,), 2 * n, k=n + 1) for n in (1, 2)]
    merged = floppy.merge(parts)
    first, second = groups_of(merged)
    assert (first.task, first.indexes, second.task, second.indexes) == (
        "ndcartpole/1",
        (0, 1),
        "ndcartpole/2",
        (2, 3, 4),
    )
    np.testing.assert_allclose(second.scenes[1].observation, parts[1].observations[1])
    assert second.scenes[0].target is not None
    np.testing.assert_allclose(second.scenes[0].target.values, softmax(parts[1].targets[0]), atol=1e-6)
    assert {"ndcartpole/1, example 0", "ndcartpole/2, example 4"} <= set(texts(draw(merged)))
    assert "example 2 of ndcartpole/2" in draw_text(merged)


def plain_policy() -> DistilledDataset:
    random = np.random.default_rng(0)
    encoder = {"0/kernel": random.normal(size=(4, 2)), "0/bias": np.zeros(2)}
    card = {"task": "ndcartpole/1", "encoder": {"layers": 1, "of": 1}}
    return hand_dataset(card, observations=np.zeros((0, 4)), targets=np.zeros((0, 2)), encoder=encoder)


def test_a_dataset_without_examples_says_what_it_holds() -> None:
    figure = draw(plain_policy())
    assert any("there are no examples" in text for text in texts(figure))
    with pytest.raises(FloppyError, match="no examples"):
        draw_example(plain_policy(), 0)
    with pytest.raises(FloppyError, match="DistilledDataset"):
        draw("a.safetensors")  # type: ignore[arg-type]


# --- Hostile cards.


@pytest.mark.parametrize("text", ["$x^{$", r"$\frac{1}{2}$", "a\x1b[31m\nb", "ü" * 300, "_x", "%s{}"])
def test_texts_of_a_card_are_drawn_as_they_stand(text: str) -> None:
    score = {"mean": text, "sd": text, "learners": text, "episodes": text, "seed": 0}
    dataset = dataset_of(f"mine/{text}", (3,), 2, card={"score": score, "notes": text})
    figure = draw(dataset)
    assert not any(each.get_parse_math() for each in figure.findobj(Text))
    assert figure_bytes(figure, dpi=20).startswith(b"\x89PNG")
    assert not any("\x1b" in each or "\n" in each for each in texts(figure))
    assert "\x1b" not in draw_text(dataset)


# --- Observations from play.


def test_an_observation_from_play_is_drawn_on_any_axes() -> None:
    axes = Figure().add_axes((0, 0, 1, 1))
    draw_observation(axes, "cartpole", [0.0, 0.0, 0.1, 0.0])
    limits = axes.get_xlim(), axes.get_ylim()
    axes.clear()
    draw_observation(axes, floppy.make_task("ndcartpole/1"), np.array([1.5, 0.0, -0.1, 0.0], np.float32))
    assert (axes.get_xlim(), axes.get_ylim()) == limits
    assert observation_size("cartpole")[0] > observation_size("cartpole")[1]


@pytest.mark.parametrize(
    ("observation", "said"),
    [([0.0] * 3, "shape"), ([0.0, 0.0, math.nan, 0.0], "NaN"), ([math.inf] * 4, "NaN"), ("x", "shape")],
)
def test_what_is_no_observation_is_refused(observation: Any, said: str) -> None:
    with pytest.raises(FloppyError, match=said):
        draw_observation(Figure().add_axes((0, 0, 1, 1)), "cartpole", observation)


# --- As text, and on the command line.


def test_text_has_names_numbers_and_bars() -> None:
    dataset = dataset_of(
        "ndcartpole/1", (4,), 2, observations=[[0.0, 2.0, 0.0, -1.0]] * 2, targets=np.log([[1, 3]] * 2)
    )
    lines = draw_text(dataset, [0], width=80).splitlines()
    assert any("velocity (m/s)" in line and "2" in line and "██████" in line for line in lines)
    assert any("push right 0.75 █████████" in line for line in lines)
    track = next(line for line in lines if "[o]" in line)
    assert ">>>>" in track
    assert all(len(line) <= 40 for line in draw_text(dataset, width=40).splitlines())


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    save(dataset_of("ndcartpole/1", (4,), 2, card={"command": "floppy " + 100 * "x "}), "a.safetensors")
    return "a.safetensors"


def test_show_is_short_and_shows_examples(file: str, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    monkeypatch.setenv("COLUMNS", "90")
    assert main(["show", file]) == 0
    short = capsys.readouterr().out
    assert "push right" in short
    assert "\x1b" not in short
    assert max(map(len, short.splitlines())) <= 90
    assert main(["show", file, "--config"]) == 0
    assert '"kind": "GradientStep"' in capsys.readouterr().out


@pytest.mark.parametrize(("end", "start"), [("png", b"\x89PNG"), ("SVG", b"<?xml"), ("pdf", b"%PDF")])
def test_show_saves_a_picture(file: str, end: str, start: bytes) -> None:
    Path(f"a.{end}").write_bytes(b"old")
    assert main(["show", file, "--save", f"a.{end}", "--examples", "1", "--overwrite"]) == 0
    assert Path(f"a.{end}").read_bytes().startswith(start)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--save", "a.jpg"], "must end in one of .png, .svg, .pdf"),
        (["--save", "a"], "must end in one of"),
        (["--save", "there.png"], "exists already"),
        (["--examples", "2"], "at most 1"),
        (["--save", "b.png", "--examples", "2"], "at most 1"),
    ],
)
def test_show_refuses_in_a_sentence(file: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("there.png").write_bytes(b"mine")
    assert main(["show", file, *words]) == 2
    captured = capsys.readouterr()
    assert said in captured.err
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert not Path("b.png").exists()
    assert Path("there.png").read_bytes() == b"mine"


# --- The house.


def test_no_picture_touches_pyplots_global_state() -> None:
    paths = sorted(SOURCE.rglob("*.py"))
    assert paths
    for path in paths:
        names = [
            name
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            if isinstance(node, ast.ImportFrom | ast.Import)
            for name in [getattr(node, "module", "") or "", *(alias.name for alias in node.names)]
        ]
        assert not any("pyplot" in name for name in names), path


def test_the_module_can_be_called() -> None:
    assert isinstance(floppy.draw(dataset_of("ndcartpole/1", (4,), 2)), Figure)


def test_the_readmes_figures_are_small() -> None:
    figures = sorted((Path(__file__).parents[1] / "docs/figures").glob("*.svg"))
    assert {"distillation.svg", "examples.svg"} <= {figure.name for figure in figures}
    assert all(figure.stat().st_size < 200_000 for figure in figures)
