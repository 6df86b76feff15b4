"""Pictures and names of tasks of one's own: shown as given, or refused by every command with the same sentence."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import pytest
from probes import ActionProbe, hand_dataset

import floppy
from floppy.cli.main import main
from floppy.drawing import PICTURES, Picture, register_picture
from floppy.errors import FloppyError
from floppy.tasks import check_task, make_task
from floppy.tasks.base import picture_of
from floppy.tasks.pictures import PictureError
from floppy.tasks.registry import FAMILIES


class Dial:
    """A kind of one's own, which fails in the method named."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails

    def at(self, method: str) -> None:
        if method == self.fails:
            raise ZeroDivisionError("no scale")

    def fits(self, scene: Any) -> bool:
        self.at("fits")
        return True

    def size(self, scene: Any) -> Any:
        self.at("size")
        return "wide" if self.fails == "width" else (1, 1.0)

    def draw(self, axes: Any, scene: Any) -> None:
        self.at("draw")
        axes.set_title("my own dial")

    def caption(self, scene: Any) -> str:
        self.at("caption")
        return "A dial."


METHODS = ("fits", "size", "draw", "caption")


@dataclasses.dataclass(frozen=True)
class Own(ActionProbe):
    """A JAX task of two numbers and two actions, of which a test says the picture."""

    picture: ClassVar[Any] = None


class Room(gymnasium.Env):  # type: ignore[misc]
    """Keep a room warm."""

    observation_space = gymnasium.spaces.Box(-40.0, 40.0, (2,))
    action_space = gymnasium.spaces.Discrete(2)
    metadata: ClassVar[dict[str, Any]] = {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        return self.observation_space.sample(), 1.0, False, False, {}


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Kinds, families and environments as they were."""
    members = dict(PICTURES._members)
    monkeypatch.setitem(FAMILIES, "probe", lambda rest: Own())
    for method in (*METHODS, "width"):
        register_picture(f"dial without {method}", Dial(method))
    register_picture("dial", Dial())
    yield
    PICTURES._members.clear()
    PICTURES._members.update(members)


NUMBER = iter(range(1000))


def room(monkeypatch: pytest.MonkeyPatch, **metadata: Any) -> str:
    """The id of an environment with this metadata."""
    monkeypatch.setattr(Room, "metadata", metadata)
    name = f"Room{next(NUMBER)}-v0"
    gymnasium.register(name, Room, max_episode_steps=3)
    return f"gymnasium/{name}"


def saved(tmp_path: Path, task: str) -> str:
    path = tmp_path / "dataset.safetensors"
    floppy.save(hand_dataset({"task": task}, sizes=(2, 2)), path)
    return str(path)


def said(line: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a command that is refused."""
    assert main(line) == 2
    (sentence,) = [each for each in capsys.readouterr().err.splitlines() if not each.startswith("  ")]
    return sentence


FAULTS = {
    "text": (Picture(names="inside"), "numbers of an observation", "must be a list of 2 texts, got 'inside'"),  # type: ignore[arg-type]
    "two letters": (Picture(actions="ab"), "actions", "must be a list of 2 texts, got 'ab'"),  # type: ignore[arg-type]
    "too few": (Picture(names=("inside",)), "numbers of an observation", "2 texts, got ('inside',)"),
    "too many": (Picture(actions=("off", "on", "auto")), "actions", "2 texts, got ('off', 'on', 'auto')"),
    "dict": (Picture(names={"inside": 1, "outside": 2}), "numbers", "got {'inside': 1, 'outside': 2}"),  # type: ignore[arg-type]
    "numbers": (Picture(actions=(0, 1)), "actions", "got (0, 1)"),  # type: ignore[arg-type]
    "kind": (Picture("rivr"), "kind", "must be one of bars, heat-map, image, "),
    "no picture": ({"kind": "dial"}, "picture", "must be a floppy.drawing.Picture, got {'kind': 'dial'}"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_fit_is_refused_alike_everywhere(
    fault: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a task in JAX, and of an environment of Gymnasium's."""
    picture, what, wanted = FAULTS[fault]
    monkeypatch.setattr(Own, "picture", picture)
    for number, task in enumerate(("probe/action", room(monkeypatch, picture=picture))):
        with pytest.raises(PictureError) as caught:
            check_task(make_task(task))
        sentence = f"floppy: {caught.value}"
        assert what in sentence and wanted in sentence and task in sentence
        folder = tmp_path / str(number)
        file = saved(folder, task)
        assert said(["show", file], capsys) == sentence
        assert said(["show", file, "--save", str(folder / "a.png")], capsys) == sentence
        assert said(["report", file, "--out", str(folder / "a.html"), "--quick"], capsys) == sentence
        assert said(["distill", task, "--out", str(folder / "run")], capsys) == sentence
        assert [path.name for path in folder.iterdir()] == ["dataset.safetensors"]


@pytest.mark.parametrize(
    ("key", "value"), [("observation_names", "in"), ("observation_names", {"a": 1, "b": 2}), ("action_names", ["off"])]
)
def test_names_in_metadata_are_refused_too(key: str, value: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PictureError, match=f"{key} in its metadata.* must be a list of 2 texts, got"):
        check_task(make_task(room(monkeypatch, **{key: value})))


def test_an_environment_has_its_picture_in_its_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ["inside (°C)", "outside (°C)"]
    task = room(monkeypatch, picture=Picture("dial", names, ["off", "on"]))  # type: ignore[arg-type]
    wanted = Picture("dial", ("inside (°C)", "outside (°C)"), ("off", "on"))
    assert picture_of(make_task(task)) == wanted
    figure = floppy.draw(hand_dataset({"task": task}, sizes=(2, 2)))
    assert figure.axes[0].get_title() == "my own dial"
    apart = room(monkeypatch, picture=Picture("dial"), observation_names=names, action_names=("off", "on"))
    assert picture_of(make_task(apart)) == wanted


def test_a_known_name_with_other_spaces_takes_no_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Room, "metadata", {})
    monkeypatch.setattr(Room, "observation_space", gymnasium.spaces.Box(-1.0, 1.0, (5,)))
    gymnasium.register("Pendulum-v77", Room, max_episode_steps=3)
    assert picture_of(make_task("gymnasium/Pendulum-v77")) == Picture()


def test_a_picture_that_raises_is_a_task_at_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "picture", property(lambda task: 1 / 0))
    with pytest.raises(PictureError, match=r"picture of probe/action raised ZeroDivisionError: .*: mend it\."):
        check_task(Own())


@pytest.mark.parametrize("method", METHODS)
def test_a_kind_that_fails_is_one_sentence_and_nothing_written(
    method: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Own, "picture", Picture(f"dial without {method}"))
    file = saved(tmp_path, "probe/action")
    wanted = f"floppy: The picture 'dial without {method}' raised an error in {method} (ZeroDivisionError: no scale): "
    assert said(["show", file, "--save", str(tmp_path / "a.png")], capsys).startswith(wanted)
    report = ["report", file, "--out", str(tmp_path / "a.html"), "--quick", "--learners", "2", "--episodes", "1"]
    if method == "draw":  # a report measures first, which takes its time
        assert said(report, capsys).startswith(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["dataset.safetensors"]


def test_a_size_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Own, "picture", Picture("dial without width"))
    with pytest.raises(FloppyError, match=r"size of picture .* must be a width and a height in inches, got 'wide'"):
        floppy.draw(hand_dataset({"task": "probe/action"}, sizes=(2, 2)))
