"""Arguments of environments within a task's id: one spelling, safe when a file gives them, options of the CLI."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from host_environments import PREFIX, Probe, register
from probes import task_refusal

from floppy.cli.environment import with_environment_arguments
from floppy.cli.main import main
from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.tasks import make_task, task_of_file
from floppy.tasks.arguments import join, split
from floppy.tasks.registry import _ASKED_FOR


class Tuned(Probe):
    """One step; the reward is the argument, 5 for every text."""

    def __init__(self, gain: Any = 1.0, mode: Any = "plain", flag: Any = True) -> None:
        self.gain, self.mode, self.flag = gain, mode, flag

    def reward(self, action: Any) -> float:
        return float(self.gain) if self.flag else 5.0


register("Tuned", Tuned)
TUNED = f"gymnasium/{PREFIX}Tuned-v0"


@pytest.mark.parametrize(
    ("typed", "spelt"),
    [
        ("a=1", "a=1"),
        ("b=2&a=1", "a=1&b=2"),
        ("a=0.50&b=1e3", "a=0.5&b=1000.0"),
        ("a=1e+30&b=-2", "a=1e30&b=-2"),
        ("a=True&b=None&c=false", "a=true&b=null&c=false"),
        ("a=x y&b=/home/me/model.xml", "a=x y&b=/home/me/model.xml"),
        ('a="5"&b="plain"&c=', 'a="5"&b=plain&c='),
        ("a=NaN&b=k=v", "a=NaN&b=k=v"),
    ],
)
def test_arguments_have_one_spelling(typed: str, spelt: str) -> None:
    name, arguments = split(f"X-v0?{typed}")
    assert name == "X-v0"
    assert join(name, arguments) == f"X-v0?{spelt}"
    assert split(f"X-v0?{spelt}") == (name, arguments)


@pytest.mark.parametrize(
    ("typed", "wanted"),
    [
        ("", "must be key=value"),
        ("gain", "must be key=value"),
        ("1=2", "must be key=value"),
        ("gain=1&", "must be key=value"),
        ("id=CartPole-v1", "must be key=value"),
        ("disable_env_checker=1", "must be key=value"),
        ("gain=1&gain=2", "gain is given twice"),
        ("gain=[1]", "gain must be a finite number, true, false, null or a text"),
        ("gain={}", "gain must be a finite number"),
        ("gain=1e999", "gain must be a finite number"),
        ("gain=a+b", "without &, + and ?"),
        ("gain=" + "x" * 300, "at most 200 characters"),
        ("gain=" + "9" * 5000, "at most 200 characters"),
        ("gain=" + "[" * 100_000, "at most 200 characters"),
        ("gain=a\nb", "on one line"),
        ("max_episode_steps=0", "a whole number from 1"),
        ("max_episode_steps=2.5", "a whole number from 1"),
        ("max_episode_steps=true", "a whole number from 1"),
        ("max_episode_steps=99999999999", "a whole number from 1"),
        ("no_such=1", "could not be made (TypeError: .*: give it arguments that it takes"),
    ],
)
def test_other_arguments_are_refused(typed: str, wanted: str) -> None:
    said = task_refusal(f"{TUNED}?{typed}")
    assert all(part in said for part in wanted.split(".*")), said
    assert len(said) < 600


def test_a_task_is_made_with_its_arguments() -> None:
    task: Any = make_task(f"{TUNED}?mode=fast&gain=3")
    assert task.task_id == f"{TUNED}?gain=3&mode=fast"
    assert task == make_task(task.task_id)
    vector = task.make_vector(1, training=True)
    vector.reset(seed=[0])
    assert vector.step(np.zeros(1, int))[1] == 3.0
    own: Any = vector.envs[0].unwrapped
    assert (own.gain, own.mode, own.flag) == (3, "fast", True)


# --- ids in files ---


@pytest.mark.parametrize("arguments", ["gain=2.5", "mode=4x4", "flag=false&mode=CartPole-v1", "max_episode_steps=9"])
def test_harmless_arguments_of_a_file_are_taken(arguments: str) -> None:
    assert task_of_file(f"{TUNED}?{arguments}").task_id == f"{TUNED}?{arguments}"


@pytest.mark.parametrize(
    "arguments",
    [
        *("mode=/etc/passwd", "mode=..", "mode=a\\b", "mode=os:system", "mode=~", "mode=a.xml", "mode=http://x"),
        *("render_mode=human", 'mode="/tmp"', "gain=1&mode=./x", "mode=" + "x" * 65),
    ],
)
def test_arguments_of_a_file_that_might_open_something_are_refused(arguments: str) -> None:
    with pytest.raises(FloppyError, match=r"might open a file or window: name this task yourself \(--task\)"):
        task_of_file(f"{TUNED}?{arguments}")


def test_what_the_user_has_named_may_stand_in_a_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("floppy.tasks.registry._ASKED_FOR", set(_ASKED_FOR))
    asked = make_task(f"{TUNED}?mode=./mine&gain=4")
    assert task_of_file(asked.task_id) == asked


def test_arguments_of_a_file_import_no_module() -> None:
    with pytest.raises(FloppyError, match="give --import no_such_module if you trust it"):
        task_of_file("gymnasium/no_such_module:X-v0?gain=1")
    with pytest.raises(FloppyError, match="is not registered here"):
        task_of_file("gymnasium/X-v0?gain=no_such_module:X-v0")


# --- the command line ---


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("gymnasium/X-v0 --env-kwargs a=1 b=c --seed 1", "gymnasium/X-v0?a=1&b=c --seed 1"),
        ("gymnasium/X-v0 --env-kwargs=a=1 --env-kwargs b=2", "gymnasium/X-v0?a=1&b=2"),
        ("gymnasium/X-v0?a=1 --max-episode-steps 5", "gymnasium/X-v0?a=1&max_episode_steps=5"),
        ("--max-episode-steps=5 --env-kwargs a=1 gymnasium/X-v0", "gymnasium/X-v0?a=1&max_episode_steps=5"),
        ("gymnasium/X-v0 --out gymnasium/Y --env-kwargs a=1", "gymnasium/X-v0?a=1 --out gymnasium/Y"),
        ("gymnasium/X-v0 --seed 1", "gymnasium/X-v0 --seed 1"),
    ],
)
def test_options_move_into_the_task(words: str, expected: str) -> None:
    assert with_environment_arguments(words.split(), begins_with_task=True) == expected.split()


@pytest.mark.parametrize("task", ["--task gymnasium/X-v0", "--task=gymnasium/X-v0"])
def test_options_move_into_the_task_of_an_option(task: str) -> None:
    words = ["gymnasium/d.safetensors", *task.split(), "--env-kwargs", "a=1"]
    assert with_environment_arguments(words, begins_with_task=False) == [words[0], *f"{task}?a=1".split()]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (
            "cartpole --env-kwargs a=1",
            "'cartpole' takes no arguments for its environment: gymnasium/ID and gymnax/ID do",
        ),
        ("nothing --max-episode-steps 5", "takes no arguments"),
        ("gymnasium/X-v0 --env-kwargs", "--env-kwargs needs a value"),
        ("gymnasium/X-v0 --env-kwargs a", "--env-kwargs needs a value"),
        ("gymnasium/X-v0 --max-episode-steps", "--max-episode-steps needs a value"),
        ("gymnasium/X-v0 --max-episode-steps --json", "--max-episode-steps needs a value"),
        ("gymnasium/X-v0 --max-episode-steps ten", "must be a whole number from 1 to 2147483647, got 'ten'"),
        ("gymnasium/X-v0?a=1 --env-kwargs a=2", "a is given twice"),
        ("--json --env-kwargs a=1", "need a task gymnasium/ID on the command line"),
    ],
)
def test_options_without_a_fitting_task_are_refused(words: str, wanted: str) -> None:
    with pytest.raises(FloppyError) as caught:
        with_environment_arguments(words.split(), begins_with_task=True)
    assert wanted in str(caught.value)


def test_arguments_reach_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "baseline",
        TUNED,
        "--method",
        "random",
        "--episodes",
        "2",
        "--json",
        "--env-kwargs",
        "gain=3",
        "mode=fast",
    ]
    assert main(words) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == f"{TUNED}?gain=3&mode=fast"
    assert result["score"]["mean"] == 3.0


def test_options_spelt_with_underscores_reach_the_environment(capsys: pytest.CaptureFixture[str]) -> None:
    words = f"baseline {TUNED} --method random --episodes 2 --json --env_kwargs gain=3 mode=fast --max_episode_steps=9"
    assert main(words.split()) == 0
    assert json.loads(capsys.readouterr().out)["task"] == f"{TUNED}?gain=3&max_episode_steps=9&mode=fast"


@pytest.mark.slow
def test_a_card_makes_the_environment_with_its_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    task, out = f"{TUNED}?gain=3", tmp_path / "imported.safetensors"
    np.savez(tmp_path / "a.npz", observations=np.zeros((2, 2)), targets=np.eye(2), inner_lr=np.float32(0.1))
    assert main(["import", str(tmp_path / "a.npz"), "--task", TUNED, "--env-kwargs", "gain=3", "--out", str(out)]) == 0
    assert load(out).card.task == task
    capsys.readouterr()
    words = ["evaluate", str(out), "--learners", "2", "--episodes", "2", "--json"]
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out)["distributions"]["card"]["mean"] == 3.0
    assert main([*words, "--task", TUNED, "--env-kwargs", "gain=7"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert (again["task"], again["distilled_for"]) == (f"{TUNED}?gain=7", task)
    assert again["distributions"]["card"]["mean"] == 7.0
    honest = load(out)
    card = dataclasses.replace(honest.card, task=f"{TUNED}?mode=/tmp/x")
    save(dataclasses.replace(honest, card=card), out, overwrite=True)
    assert main(words) == 2
    assert "might open a file" in capsys.readouterr().err
