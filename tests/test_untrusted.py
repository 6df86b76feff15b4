"""Nothing is imported, opened or connected to because a file says so: every command reads hostile files under watch.

The commands run in a process of its own (`sys.addaudithook` can never be taken back), all of them in one, as starting
takes seconds.
"""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from probes import hand_dataset

import floppy
from floppy.recipes import recipe
from floppy.run.cache import VARIABLE

pytestmark = pytest.mark.slow

WATCHED = '''
"""Runs commands, given as JSON, and prints what each of them answered and what it touched beyond what it may."""

import contextlib, importlib.metadata, io, json, os, site, sys

own, commands = json.loads(sys.argv[1]), json.loads(sys.argv[2])
packages = set(sys.stdlib_module_names) | set(importlib.metadata.packages_distributions()) | {"floppy"}
roots = (sys.prefix, sys.base_prefix, *site.getsitepackages(), "/proc", "/sys", "/dev", "/etc", "/usr", "/lib", *own)
roots = tuple(os.path.realpath(root) for root in roots)
touched = None

def watch(event, args):
    if touched is None:
        return
    if event == "import" and args[0].partition(".")[0] not in packages:
        touched.append(["import", args[0]])
    elif event == "open" and isinstance(args[0], (str, bytes)):
        path = os.path.realpath(os.fsdecode(args[0]))
        if not path.startswith(roots):
            touched.append(["open", path])
    elif event in ("socket.connect", "socket.bind", "subprocess.Popen", "os.system", "os.exec", "exec.hostile"):
        touched.append([event, repr(args)[:100]])

from floppy.cli import main

sys.addaudithook(watch)
for words in commands:
    touched, out, err = [], io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(words)
        except BaseException as error:
            code = repr(error)
    found, touched = touched, None
    print(json.dumps({"words": words, "code": code, "err": err.getvalue(), "touched": found}), flush=True)
'''


@dataclasses.dataclass(frozen=True)
class Place:
    """A folder in which the command is started, with a module that must not run, and one elsewhere that is named."""

    here: Path
    elsewhere: Path

    @property
    def tasks(self) -> dict[str, str]:
        """Ids of tasks that ask for something."""
        return {
            "module": "gymnasium/hostile_mod:X-v0",
            "images": f"images/{self.elsewhere / 'secret.npz'}",
            "arguments": f"gymnasium/CartPole-v1?path={self.elsewhere / 'secret.npz'}",
            "family": "hostile_mod/x",
        }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    place = Place(tmp_path_factory.mktemp("here"), tmp_path_factory.mktemp("elsewhere"))
    (place.here / "hostile_mod.py").write_text("open('it-ran', 'w').close()\n")
    images, labels = np.zeros((40, 2, 2, 1), np.uint8), np.arange(40) % 2
    np.savez(place.elsewhere / "secret.npz", images=images, labels=labels)
    honest = hand_dataset()
    floppy.save(honest, place.elsewhere / "secret.safetensors")
    floppy.save(honest, place.here / "honest.safetensors")
    config = recipe("cartpole", outer_steps=1).as_dict()
    config["outer"]["teacher"] = str(place.elsewhere / "secret.safetensors")
    for name, task in place.tasks.items():
        parents = [str(place.elsewhere / "secret.safetensors")]
        card = {"task": task, "algorithm": {"name": "ppmo", "config": config}, "parents": parents}
        floppy.save(hand_dataset(card), place.here / f"{name}.safetensors")
        policies = dataclasses.replace(floppy.train(honest, 0), task=task)
        floppy.save_policies(policies, place.here / f"{name}-policies.safetensors")
        meta = {"env": task.partition("/")[2], "inner_steps": 1, "source_repository": "x", "source_file": "x"}
        arrays = {"observations": np.ones((2, 4)), "targets": np.ones((2, 2)), "inner_lr": np.float32(0.1)}
        np.savez(place.here / f"{name}.npz", meta=json.dumps(meta), **arrays)
        run = place.here / f"{name}-run"
        run.mkdir()
        saved = config | {"task": task, "command": f"floppy distill {task}", "versions": [{"hostile_mod": "1"}]}
        (run / "config.json").write_text(json.dumps(saved))
        study = place.here / f"{name}-study"
        study.mkdir()
        entry = {"study": "minimum-size", "command": "", "files": {parents[0]: "0"}, "task": task}
        (study / "study.json").write_text(json.dumps(entry))
        (study / "rows.csv").write_text("activation,loss,examples,seed,learner,score,cell_rows\ntanh,mse,1,0,0,1.0,1\n")
    return place


QUICK = ("show", "train", "evaluate", "redraw")
"""Commands that an honest file is read with first: what libraries look for then, they may look for later."""


def commands(name: str) -> list[list[str]]:
    """Every command that reads a file."""
    file = f"{name}.safetensors"
    return [
        ["show", file],
        ["train", file],
        ["evaluate", file, "--learners", "1", "--episodes", "1"],
        ["evaluate", f"{name}-policies.safetensors", "--episodes", "1"],
        ["transfer", file, "--widths", "4", "--draws", "1", "--episodes", "1", "--out", f"{name}-transfer"],
        ["search", file, "--out", f"{name}-search"],
        ["ensemble", file, "--out", f"{name}-ensemble"],
        ["families", file, "--out", f"{name}-families"],
        ["warm-start", file, "--out", f"{name}-warm-start"],
        ["merge", file, "honest.safetensors", "--out", f"{name}-merged.safetensors"],
        ["multitask", file, "honest.safetensors", "--out", f"{name}-multitask"],
        ["forgetting", file, "honest.safetensors", "--out", f"{name}-forgetting"],
        ["import", f"{name}.npz", "--out", f"{name}-imported.safetensors"],
        ["redraw", f"{name}-study"],
        ["distill", "cartpole", "--resume", "--out", f"{name}-run", "--outer-steps", "1"],
    ]


@pytest.fixture(scope="module")
def answers(place: Place) -> list[dict[str, Any]]:
    own = [str(place.here), str(Path(floppy.__file__).parents[1]), os.environ[VARIABLE]]
    words = [command for command in commands("honest") if command[0] in QUICK]
    words += [command for name in place.tasks for command in commands(name)]
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, json.dumps(own), json.dumps(words)],
        cwd=place.here,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [each["words"] for each in found] == words
    # Libraries look for packages that may not be there, whatever they read.
    usual = [what for each in found if each["words"][1].startswith("honest") for what in each["touched"]]
    for each in found:
        each["touched"] = [what for what in each["touched"] if what not in usual]
    return [each for each in found if not each["words"][1].startswith("honest")]


def test_nothing_is_touched_because_a_file_names_it(answers: list[dict[str, Any]], place: Place) -> None:
    assert [(each["words"], each["touched"]) for each in answers if each["touched"]] == []
    assert not (place.here / "it-ran").exists()


def test_every_command_answers_in_one_sentence(answers: list[dict[str, Any]]) -> None:
    for each in answers:
        command = each["words"][0]
        assert each["code"] == (0 if command in ("show", "train") else 2), each
        if each["code"] == 2:
            assert each["err"].startswith("floppy: ") and each["err"].count("\n") == 1, each


def test_a_module_is_named_with_what_to_give(answers: list[dict[str, Any]]) -> None:
    asked = [each for each in answers if each["words"][0] in ("evaluate", "transfer", "merge", "import")]
    for each in asked:
        if each["words"][1].startswith("module"):
            assert "give --import hostile_mod if you trust it" in each["err"], each


def test_a_module_beside_the_file_stands_for_no_package_that_is_missing(tmp_path: Path) -> None:
    """A card's task may need an optional package; what bears its name in the current folder must not run."""
    (tmp_path / "Box2D.py").write_text("open('it-ran', 'w').close()\n")
    floppy.save(hand_dataset({"task": "gymnasium/LunarLander-v3"}), tmp_path / "lunar.safetensors")
    for start in (["-m", "floppy"], ["-c", "import sys; from floppy.cli import main; sys.exit(main())"]):
        if start[0] == "-c":
            start = ["-P", *start]  # as the installed command: the current folder is not searched
        words = ["evaluate", "lunar.safetensors", "--learners", "1", "--episodes", "1"]
        done = subprocess.run(
            [sys.executable, *start, *words], cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False
        )
        assert not (tmp_path / "it-ran").exists(), done.stderr
        assert done.returncode == 2


def test_the_command_on_a_card_says_which_module_was_forgotten(tmp_path: Path) -> None:
    card = {"task": "gymnasium/Own-v0", "command": "floppy distill gymnasium/Own-v0 --import own_module"}
    with pytest.raises(floppy.FloppyError, match="give --import own_module, as the command that made the file did"):
        floppy.evaluate(hand_dataset(card))


def test_what_the_user_has_named_may_be_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trusted_mod.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('Trusted-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=5)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    dataset = hand_dataset({"task": "gymnasium/trusted_mod:Trusted-v0"})
    with pytest.raises(floppy.FloppyError, match="--import trusted_mod"):
        floppy.evaluate(dataset, learners=1, episodes=1)
    score = floppy.evaluate(dataset, learners=1, episodes=1, task="gymnasium/trusted_mod:Trusted-v0")["card"]
    assert 1 <= score.mean <= 5
    assert floppy.evaluate(dataset, learners=1, episodes=1)["card"] == score
