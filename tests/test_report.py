"""The page: what it says, that nothing in it is taken for markup, that it needs no network; and how it is written."""

import base64
import dataclasses
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import unquote

import numpy as np
import pytest
from PIL import Image
from probes import hand_dataset

import floppy
from floppy.cli.main import main
from floppy.dataset import DistilledDataset, save
from floppy.drawing.base import Scene
from floppy.errors import FloppyError
from floppy.evaluation.score import Score
from floppy.learner.mlp import LearnerDistribution
from floppy.play import open_arena
from floppy.report import html, sections, write_report
from floppy.report.episode import MOST_FRAMES, Episode, as_gif, draw_frames, frames_of, play_episode
from floppy.report.measures import QUICK, SLOW, Extent, Influence, Measured, other_sizes
from floppy.report.pictures import numbers_of
from floppy.report.references import references_of
from floppy.report.sections import page_of
from floppy.report.source import Source, read_source
from floppy.tasks.base import picture_of
from floppy.tasks.descriptions import description_of, first_paragraph
from floppy.tasks.ndcartpole import NDCartPole
from floppy.tasks.pictures import Picture
from floppy.tasks.registry import make_task
from floppy.tasks.untrusted import module_of
from floppy.teach.codec import unpack

gymnasium = pytest.importorskip("gymnasium")

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

SCORE = Score(480.2, 12.0, 451.3, (470.5, 489.9), 32, 4, 0.5, 0, 0)
RANDOM = Score(21.5, 0.0, 21.5, (20.0, 23.0), 1, 128, 0.0, 0, 0)
EXTENT = Extent(32, 4, 0, 300.0, False)
TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier1",))


def points(example: Any = "") -> list[dict[str, Any]]:
    """A map of 2 by 2 points."""
    return [
        {
            "what": "map",
            "example": example,
            "x": x,
            "y": y,
            "output": 1,
            "output_name": "push right",
            "value": 0.5 + x / 4,
        }
        | {"x_feature": "angle (rad)", "y_feature": "position (m)", "actions": 2}
        for y in (0.0, 1.0)
        for x in (0.0, 1.0)
    ]


def influence() -> Influence:
    falls = [
        {"example": index, "score": 480.2 - fall, "fall": fall, "interval": [fall - 1, fall + 1]}
        for index, fall in enumerate((10.0, 400.0, -2.0))
    ]
    summary = {
        "score": {"mean": 480.2, "interval": [470.5, 489.9], "unit": "mean return"},
        "examples": falls,
        "map": {"features": ["angle (rad)", "position (m)"], "outputs": ["push right"]},
    }
    return Influence(summary, points())


def measured(**changes: Any) -> Measured:
    seen = np.random.default_rng(0).normal(size=(30, 4)) * 0.05
    whole = Measured(
        SCORE, RANDOM, Episode(seen, True), influence(), {"four times as wide (256 units a layer)": SCORE}, {}
    )
    return whole._replace(**changes)


def source_of(dataset: DistilledDataset, path: str = "runs/a.safetensors", log: Any = ()) -> Source:
    return Source(dataset, Path(path), None, list(log))


LOG = [{"step": step, "env_steps": 100.0, "selection_score": 20.0 * step} for step in range(1, 5)]

VOID = {"meta", "img", "source", "br"}


class Reader(HTMLParser):
    """Collects a page's tags and texts; complains about tags that do not fit together."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag
        self.text += " " if tag in ("td", "th", "dt", "dd") else ""

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


def check_page(page: str) -> Reader:
    """Checks that a page is well formed, shows its pictures with a text, and asks nobody for anything."""
    read = Reader(page)
    assert {tag for tag, _ in read.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "form", "svg"})
    for tag, attributes in read.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "srcset", "href"):
            assert (attributes.get(name) or "data:").startswith("data:"), tag
    for image in read.all("img"):
        assert image["alt"]
        assert (image["src"] or "").startswith("data:image/")
    (policy,) = (each["content"] for each in read.all("meta") if each.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    assert "url(" not in page and "@import" not in page
    return read


# --- What it says.


@pytest.fixture(scope="module")
def page() -> str:
    dataset = hand_dataset(
        {"command": "floppy distill cartpole", "seed": 7, "algorithm": {"name": "ppmo", "env_steps": 12345}}
    )
    return page_of(source_of(dataset, log=LOG), measured(), EXTENT)


def test_every_part_is_there_in_words(page: str) -> None:
    read = check_page(page)
    said = " ".join(read.text.split())
    for wanted in (
        "ndcartpole/1, taught by 3 examples",
        "takes one training step on 3 examples that a computer has made up",
        "These networks are others than those of the score above",
        "about 95 would have the mean",
        "Keep a pole upright",
        "angular velocity (rad/s)",
        "Example 2",
        "It lasted 30 steps.",
        "480.2 470.5 to 489.9",
        "random actions 21.5",
        "Example 1 matters most: without it the mean return of these networks falls from 480.2 to 80.2.",
        "angle (rad) and position (m)",
        "four times as wide",
        "floppy distill cartpole",
        "12,345",
    ):
        assert wanted in said, wanted
    headings = re.findall("<h2>(.*?)</h2>", page)
    assert headings == [
        *("The task", "The examples", "How it plays", "The score", "How the examples were learned"),
        *(
            "Which example matters most",
            "What policies do in which situation",
            "Other networks",
            "How it was made",
            "The data",
        ),
    ]
    assert len(read.all("img")) == 3 + 1 + 1 + 1 + 1 + 1


def test_the_data_can_be_taken_from_the_page(page: str, tmp_path: Path) -> None:
    (link,) = Reader(page).all("a")
    assert link["download"] == "a.safetensors"
    path = tmp_path / "taken.safetensors"
    path.write_bytes(base64.b64decode(unquote((link["href"] or "").partition(",")[2])))
    np.testing.assert_array_equal(floppy.load(path).observations, hand_dataset().observations)


def test_what_was_left_out_says_why_and_large_data_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "MOST_DOWNLOAD", 10)
    less = measured(episode=None, influence=None, transfer=None, reasons={"influence": QUICK, "transfer": SLOW})
    read = check_page(page_of(source_of(hand_dataset(), "folder/a.safetensors"), less, EXTENT))
    assert QUICK in read.text and SLOW in read.text
    assert "How it plays" not in read.text
    assert "it lies in folder/a.safetensors" in read.text
    assert not read.all("a")


def test_a_whole_policy_is_taught_by_nothing() -> None:
    policy = hand_dataset(
        {"learners": [dataclasses.asdict(LearnerDistribution(depth=(0, 0)))], "encoder": {"layers": 1, "of": 1}},
        observations=np.zeros((0, 4)),
        targets=np.zeros((0, 2)),
        encoder={"0/kernel": np.ones((4, 2)), "0/bias": np.zeros(2)},
        inner_rate=None,
    )
    said = Reader(page_of(source_of(policy), measured(influence=None, transfer=None), EXTENT)).text
    assert "ndcartpole/1, a trained policy" in said
    assert "The policy in this file plays an episode." in said
    assert "the mean over all possible episodes" in said
    assert "taught" not in said and "examples above" not in said


def test_the_interval_of_few_networks_says_what_it_rests_on() -> None:
    for learners, is_said in ((4, True), (32, False)):
        score = dataclasses.replace(SCORE, learners=learners)
        said = Reader(page_of(source_of(hand_dataset()), measured(score=score), EXTENT)).text
        assert ("among so few a rare failure may not show" in said) == is_said


class Shaped(NDCartPole):
    shapes_rewards = True


def test_a_return_is_said_where_it_is_a_score() -> None:
    seen = np.zeros((30, 4))
    said = Reader(page_of(source_of(hand_dataset()), measured(episode=Episode(seen, True, 29.5)), EXTENT)).text
    assert "It lasted 30 steps and its return was 29.5." in said
    policies = floppy.train(hand_dataset({"learners": [dataclasses.asdict(TINY)]}), 0)
    for task, has_total in ((NDCartPole(1), True), (Shaped(1), False)):
        with open_arena(task) as arena:
            episode = play_episode(task, policies, arena, 0)
        assert episode.total == (len(episode.observations) if has_total else None)


def test_numbers_that_a_picture_does_not_write_stand_below_it() -> None:
    far = np.array([0.1, -9.0, 3.0, 4.0, 0.2, 5.0, 6.0, 7.0])
    many = Scene(Picture("heat-map", tuple("abcdefgh")), 100 + far, mean=np.full(8, 100.0))
    assert numbers_of(many) == "b 91, c 103, d 104, f 105, g 106, h 107, and 2 that are nearer to their means"
    assert numbers_of(many._replace(normalised=far[::-1])).startswith("a 100, b 91, c 103, e 100, f 105, g 106, and 2")
    assert numbers_of(many._replace(picture=Picture("bars"))) == ""
    assert numbers_of(Scene(Picture(), np.zeros((8, 8, 1)))) == ""
    three = Scene(Picture("pendulum", ("cos", "sin", "speed")), np.array([1.0, 0.0, -2.5]))
    assert numbers_of(three) == "cos 1, sin 0, speed −2.5"
    assert "speed −2.5" in html.example(html.Picture(b"x", "png", "alt"), "Example 0", [], "", numbers_of(three))


def test_the_page_says_which_examples_were_left_out_and_whether_one_is_missed() -> None:
    of_more = hand_dataset(observations=np.ones((7, 4)), targets=np.ones((7, 2)))
    summary = influence().summary
    few = Reader(page_of(source_of(of_more), measured(episode=None), EXTENT)).text
    assert "3 of the examples, at equal distances, are left out in turn" in few
    assert "Example 1 matters most of these" in few
    falls = [each | {"fall": -1.0} for each in summary["examples"]]
    harmless = measured(episode=None, influence=Influence(summary | {"examples": falls}, points()))
    said = Reader(page_of(source_of(hand_dataset()), harmless, EXTENT)).text
    assert "Each example is left out in turn" in said
    assert "None of them is missed" in said and "matters most:" not in said


def test_continuous_targets_are_bars_from_the_middle() -> None:
    rows = [("torque", -0.5, "-1.0", False), ("push", 0.25, "0.25", True)]
    text = html.example(html.Picture(b"x", "png", "alt"), "Example 0", rows)
    assert "margin-left:25%;width:25%" in text
    assert "margin-left:0%;width:25%" in text


def test_bars_of_large_targets_keep_their_proportions() -> None:
    """The largest one is full, and the text says what that is."""
    actions = {"kind": "continuous", "size": 1, "low": [-2.0], "high": [2.0]}
    targets = np.array([[-4.0], [1.0], [2.0], [0.0], [0.0], [0.0]])
    dataset = hand_dataset(
        {"task": "gymnax/Pendulum-v1", "actions": actions, "cloning": {"kind": "GradientStep", "loss": "mse"}},
        observations=np.ones((6, 3)),
        targets=targets,
        log_std=np.zeros(1),
    )
    read = check_page(page_of(source_of(dataset), measured(episode=None), EXTENT))
    styles = [attributes["style"] for attributes in read.all("i")]
    assert styles[:3] == [
        "margin-left:0%;width:50%", "margin-left:50%;width:12%", "margin-left:50%;width:25%",
    ]  # fmt: skip
    assert "Bars end at 2 times the range; what is beyond the range is cut off before the task sees it" in read.text
    assert len(read.all("details")) == 1 and "2 more examples" in read.text


@pytest.mark.parametrize(("difference", "percents", "is_said"), [(0.2, "55.0%", True), (2.0, "88%", False)])
def test_targets_near_chance_have_a_decimal_and_a_word_on_it(difference: float, percents: str, is_said: bool) -> None:
    """With one large step small differences are all that an example says."""
    read = Reader(page_of(source_of(hand_dataset(targets=np.array([[0.0, difference]] * 3))), measured(), EXTENT))
    assert percents in read.text
    assert ("nearly as likely as any other here" in read.text) == is_said


@pytest.mark.parametrize(
    ("task", "wanted"),
    [
        ("ndcartpole/3", "pole upright"),
        ("gymnax/Breakout-MinAtar", "a brick earns 1"),
        ("gymnasium/MountainCar-v0", "valley"),
        ("brax/hopper", "one leg"),
        ("images/digits", "digit"),
    ],
)
def test_tasks_are_described(task: str, wanted: str) -> None:
    @dataclasses.dataclass
    class Named:
        task_id: str

    assert wanted in description_of(Named(task))  # type: ignore[arg-type]
    assert description_of(Named("gymnasium/Unheard-v3")) == ""  # type: ignore[arg-type]


class Kettle(gymnasium.Env):  # type: ignore[misc]
    """Keep water at 60 degrees.

    The rest is for programmers.
    """

    observation_space = gymnasium.spaces.Box(0.0, 100.0, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    metadata: ClassVar = {"observation_names": ("water (°C)",), "action_names": ["off", "on"]}


class Unsaid(Kettle):
    metadata: ClassVar = {}


gymnasium.register("Kettle-v0", Kettle, max_episode_steps=3)
gymnasium.register("Unsaid-v0", Unsaid, max_episode_steps=3)


def test_an_environment_of_ones_own_names_its_numbers_and_says_what_it_is_about() -> None:
    task = make_task("gymnasium/Kettle-v0")
    assert picture_of(task) == Picture(names=("water (°C)",), actions=("off", "on"))
    assert description_of(task) == "Keep water at 60 degrees."
    silent = make_task("gymnasium/Unsaid-v0")
    assert picture_of(silent) == Picture()
    assert description_of(silent) == ""  # a docstring is not inherited
    assert description_of(make_task("gymnasium/CartPole-v1")).startswith("Keep a pole upright")
    assert first_paragraph(dataclasses.make_dataclass("Plain", ["drift"])) == ""


@pytest.mark.parametrize(
    ("task", "command", "module"),
    [
        ("gymnasium/kettle:Kettle-v0", "floppy distill gymnasium/kettle:Kettle-v0", "kettle"),
        ("line/0.1", "floppy distill line/0.1 --import my_module", "my_module"),
        ("line/0.1", "floppy distill line/0.1 --import=my_module", "my_module"),
        ("cartpole", "floppy distill cartpole", ""),
        ("gymnasium/ki;ll:Kettle-v0", "--import $(reboot)", ""),
    ],
)
def test_the_module_of_a_task_is_the_one_that_made_its_file(task: str, command: str, module: str) -> None:
    assert module_of(task, command) == module


def test_published_scores_are_those_of_as_many_examples() -> None:
    reference = references_of(
        hand_dataset({"task": "ndcartpole/1"}, observations=np.ones((2, 4)), targets=np.ones((2, 2)))
    )[-1]
    assert reference == ("PPMO paper, Table 1 (2 examples)", 500)
    assert {each.mean for each in references_of(hand_dataset({"task": "ndcartpole/1"}))} == {500}
    assert references_of(hand_dataset({"task": "gymnasium/CartPole-v1"})) == []


def test_other_sizes_of_the_learners() -> None:
    wide = LearnerDistribution(width=(32, 256), depth=(1, 2), init_seed=-1)
    found = other_sizes(unpack(hand_dataset({"learners": [dataclasses.asdict(wide)]})))
    assert next(iter(found)) == "a quarter as wide (8 to 64 units a layer)"
    assert [each.width for each in found.values()] == [(8, 64), (128, 1024), (32, 256)]
    assert [each.depth for each in found.values()] == [(1, 2), (1, 2), (2, 3)]
    flat = LearnerDistribution(depth=(0, 0))
    (deeper,) = other_sizes(unpack(hand_dataset({"learners": [dataclasses.asdict(flat)]}))).values()
    assert deeper.depth == (1, 1)
    encoder = {"0/kernel": np.ones((4, 4)), "0/bias": np.zeros(4)}
    entries = {"learners": [dataclasses.asdict(TINY)], "encoder": {"layers": 1}}
    with pytest.raises(FloppyError, match="trained layers"):
        other_sizes(unpack(hand_dataset(entries, encoder=encoder)))


# --- What others say of themselves.

HOSTILE = (
    "<script>alert(1)</script>",
    "</style></body><img src=x onerror=alert(1)>",
    '" onload="alert(1)" x=\'',
    "</title><meta http-equiv=refresh content='0; url=https://example.com'>",
    "$\\frac{1}{0}$ $body ${version}",
    "\u202egnp.exe\u202c \u2066x\u2069 \u200f",
    "x" * 10_000,
    "-->]]><![CDATA[ <svg/onload=alert(1)>",
    "a\x00b\x1b[31mc\nd",
)


@pytest.mark.thorough(all_but=["0", "4"])
@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_nothing_that_a_card_or_a_file_name_says_is_markup(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if "$" not in text:  # which pictures might take for a formula
        for name in ("scene_picture", "scores_picture", "influence_picture", "map_picture"):
            monkeypatch.setattr(sections, name, lambda *given: html.Picture(b"x", "png", str(given[-2:])))
    card = {
        "command": text,
        "notes": text,
        "licence": text,
        "versions": {text: text},
        "algorithm": {"name": text, "env_steps": text},
        "score": {"mean": 1.0, "sd": 0.0, "learners": 3, "episodes": 4, "seed": 0},
        "parents": [text],
    }
    quiet = measured(
        episode=None,
        influence=Influence(influence().summary | {"map": {"features": [text, text], "outputs": [text]}}, points()),
        transfer={text: SCORE},
        reasons={"episode": text},
    )
    page = page_of(source_of(hand_dataset(card), f"folder/{text}.safetensors"), quiet, EXTENT)
    read = check_page(page)
    clean = Reader(page_of(source_of(hand_dataset()), measured(episode=None, reasons={"episode": "x"}), EXTENT))
    assert [tag for tag, _ in read.tags if tag not in ("dt", "dd", "p")] == [
        tag for tag, _ in clean.tags if tag not in ("dt", "dd", "p")
    ]
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00\x1b]", page)
    assert len(read.text) < 30_000
    assert "  " not in (read.all("a")[0]["download"] or "")


def test_texts_are_cut_in_their_middle() -> None:
    assert html.escaped("a" * 30 + "b" * 30, 20) == "a" * 10 + " … " + "b" * 10
    assert html.escaped("<&>\"'\u202e\n") == "&lt;&amp;&gt;&quot;&#x27;\ufffd\n"


# --- Moving pictures.


def test_frames_are_at_most_a_hundred_and_a_grid_leaves_out_no_step() -> None:
    assert len(frames_of(Episode(np.zeros((500, 4)), True))) == MOST_FRAMES
    assert len(frames_of(Episode(np.zeros((101, 4)), True))) == 51
    grid = np.arange(300.0)[:, None, None, None] * np.ones((1, 2, 2, 1))
    assert frames_of(Episode(grid, True))[:, 0, 0, 0].tolist() == list(range(MOST_FRAMES))


def test_a_gif_stays_below_one_megabyte(tmp_path: Path) -> None:
    noise = [Image.fromarray(np.random.default_rng(i).integers(0, 255, (200, 300, 3), np.uint8)) for i in range(40)]
    picture = as_gif(noise)
    assert 10_000 < len(picture) < 2**20
    (tmp_path / "a.gif").write_bytes(picture)
    with Image.open(tmp_path / "a.gif") as found:
        assert found.n_frames < 40
        assert found.info["duration"] * found.n_frames == pytest.approx(4000, rel=0.1)


def test_frames_move() -> None:
    task = floppy.make_task("cartpole")
    first, second = draw_frames(task, np.array([[0.0, 0, 0, 0], [1.0, 0, 0.2, 0]]))
    assert first.size == second.size
    assert np.mean(np.asarray(first) != np.asarray(second)) > 0.005


# --- Writing it.


def test_what_is_no_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match="holds no run: give a run's folder, or give the file of a dataset"):
        read_source(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(FloppyError, match="has no dataset yet: wait for its first evaluation"):
        read_source(tmp_path)
    with pytest.raises(FloppyError, match="There is no such file"):
        read_source(tmp_path / "absent.safetensors")


def test_a_page_that_is_there_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = tmp_path / "a.safetensors", tmp_path / "report.html"
    save(hand_dataset(), path)
    out.write_text("old")
    assert main(["report", str(path), "--out", str(out)]) == 2
    assert "exists already: give --overwrite" in capsys.readouterr().err
    for words in (["--learners", "1"], ["--seconds", "0"], ["--seconds", "inf"], ["--episodes", "0"]):
        assert main(["report", str(path), "--out", str(out), "--overwrite", *words]) == 2
        assert words[0][2:] in capsys.readouterr().err
    assert out.read_text() == "old"


@pytest.mark.thorough
@pytest.mark.slow
def test_a_run_has_its_report_in_its_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(hand_dataset({"learners": [dataclasses.asdict(TINY)]}), tmp_path / "dataset.safetensors")
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LOG))
    words = ["report", str(tmp_path), "--learners", "2", "--episodes", "1", "--quick", "--json"]
    assert main(words) == 0
    out = tmp_path / "report.html"
    assert json.loads(capsys.readouterr().out) == {
        "source": str(tmp_path),
        "report": str(out),
        "bytes": out.stat().st_size,
    }
    read = check_page(out.read_text())
    assert "How the examples were learned" in read.text and "How it plays" in read.text
    assert QUICK in read.text
    before = out.read_bytes()
    assert main([*words, "--overwrite"]) == 0
    assert out.read_bytes() == before


@pytest.mark.slow
@pytest.mark.thorough
def test_all_parts_are_measured(tmp_path: Path) -> None:
    save(hand_dataset({"learners": [dataclasses.asdict(TINY)]}), tmp_path / "a.safetensors")
    out = write_report(tmp_path / "a.safetensors", tmp_path / "a.html", learners=2, episodes=1, seconds=1e6)
    text = check_page(out.read_text()).text
    for heading in (
        "How it plays",
        "Which example matters most",
        "What policies do in which situation",
        "Other networks",
    ):
        assert heading in text
    assert QUICK not in text and SLOW not in text
    few = write_report(tmp_path / "a.safetensors", tmp_path / "b.html", learners=2, episodes=1, seconds=1e-3)
    assert SLOW in few.read_text()


# --- In a browser.

SEES = """<script>
onload = () => {
  const widths = [...document.images].map(each => each.naturalWidth);
  const fetched = performance.getEntriesByType("resource").filter(each => !each.name.startsWith("data:"));
  document.body.innerHTML = "<pre id=seen>" + JSON.stringify([widths, fetched.length]) + "</pre>";
};
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_a_browser_shows_every_picture_and_fetches_nothing(page: str, tmp_path: Path) -> None:
    """The page is looked at as it is, then with a script in it, which its policy would not run."""
    path = tmp_path / "report.html"
    path.write_text(page)
    browse(path, tmp_path, "--screenshot=" + str(tmp_path / "shot.png"))
    with Image.open(tmp_path / "shot.png") as shot:
        assert np.asarray(shot.convert("L")).std() > 10
    policy = re.search("<meta http-equiv.*?>", page)
    assert policy is not None
    path.write_text(page.replace(policy[0], "").replace("</head>", f"{SEES}</head>"))
    seen = re.search("<pre id=.seen.>(.*?)</pre>", browse(path, tmp_path, "--dump-dom").stdout)
    assert seen is not None
    widths, fetched = json.loads(seen[1])
    assert fetched == 0
    assert len(widths) == page.count("<img ")
    assert min(widths) > 100


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian's package chromium)")
def test_a_script_in_the_page_would_not_run(page: str, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    path.write_text(page.replace("</head>", f"{SEES}</head>"))
    ran = browse(path, tmp_path, "--dump-dom", "--enable-logging=stderr", "--v=0")
    assert 'id="seen"' not in ran.stdout
    assert "Content Security Policy" in ran.stderr
    path.write_text(page)
    assert "CONSOLE" not in browse(path, tmp_path, "--dump-dom", "--enable-logging=stderr", "--v=0").stderr


def browse(path: Path, folder: Path, *options: str) -> "subprocess.CompletedProcess[str]":
    """Opens a page in Chromium, without a window."""
    quiet = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
    still = ("--disable-background-networking", "--disable-component-update", "--disable-sync")
    words = [str(CHROMIUM), *quiet, *still, f"--user-data-dir={folder / 'profile'}", *options, path.as_uri()]
    return subprocess.run(words, capture_output=True, text=True, timeout=300, check=True)
