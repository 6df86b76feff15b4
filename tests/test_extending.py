"""Members of users' own, refused while they are not registered; and the page's diffs, applied to a copy of the library.

The page's other code is executed by test_docs.py.
"""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ObservationProbe, hand_dataset

import floppy
from floppy.cli import main
from floppy.cloning import CLONINGS, LOSSES, total_loss
from floppy.cloning.losses import huber_loss
from floppy.dataset.file import DistilledDataset
from floppy.errors import FloppyError
from floppy.outer import OUTER_LOOPS
from floppy.play.device import ON_DEVICE
from floppy.run.loop import Run
from floppy.tasks import register

pytestmark = pytest.mark.slow

REPOSITORY = Path(__file__).parents[1]
PAGE = REPOSITORY / "docs/extending.md"


@dataclasses.dataclass(frozen=True)
class SignStep(floppy.CloningDefaults):
    """One step of the same size in every weight."""

    loss: str = "mse"

    def fit(self, terms: Any, weights: Any, rate: jax.Array, steps: jax.Array | None = None) -> Any:
        gradient = jax.grad(total_loss(terms, LOSSES[self.loss].function))(weights)
        return jax.tree.map(lambda w, g: w - rate * jnp.tanh(100.0 * g), weights, gradient)


@dataclasses.dataclass(frozen=True)
class Keeping(floppy.OuterLoopDefaults):
    """Improves nothing, but tries what there is."""

    name = "test-keeping"
    learners: int = 4

    def init(self, problem: Any, key: jax.Array, arena: Any) -> Any:
        return problem.init_distilled(key, arena=arena)

    def step(self, problem: Any, state: Any, key: jax.Array, arena: Any) -> Any:
        fitness, steps = problem.fitness(state, key, arena, learners=self.learners, episodes=2)
        return state, {"fitness": fitness, "env_steps": steps}

    def distilled(self, state: Any) -> Any:
        return state


@dataclasses.dataclass(frozen=True)
class Reporting(Keeping):
    """Says other things than it should."""

    name = "test-reporting"
    says: Callable[[Any], Any] = dict

    def step(self, problem: Any, state: Any, key: jax.Array, arena: Any) -> Any:
        return state, self.says(jnp.zeros(()))


def absolute(output: jax.Array, log_std: jax.Array, targets: jax.Array, target_log_std: jax.Array) -> jax.Array:
    return jnp.mean(jnp.abs(output - targets))


def configuration(**changes: Any) -> floppy.DistillConfig:
    """A run that costs next to nothing."""
    register_once()
    values: dict[str, Any] = {
        "outer": floppy.PPMO(),
        "distribution": "width=8:depth=1:initialiser=xavier",
        "outer_steps": 2,
        "evaluate_every": 2,
        "initial_rate": 0.1,
    } | dict.fromkeys(("selection_learners", "selection_episodes", "score_learners", "score_episodes"), 2)
    return floppy.DistillConfig("extending-probe/1", **(values | changes))


def register_once() -> None:
    if "extending-probe" not in floppy.tasks.registry.FAMILIES:
        register("extending-probe", lambda rest: ObservationProbe(task_id=f"extending-probe/{rest}"))


@pytest.fixture
def unregistered() -> Iterator[None]:
    """Takes back what a test registers."""
    registries = (CLONINGS, LOSSES, OUTER_LOOPS)
    before = [dict(registry) for registry in registries]
    yield
    for registry, members in zip(registries, before, strict=True):
        registry._members = members


def refusal(function: Callable[[], Any]) -> str:
    with pytest.raises(FloppyError) as caught:
        function()
    message = str(caught.value)
    assert "\n" not in message
    return message


def run(config: floppy.DistillConfig, folder: Path) -> DistilledDataset:
    """Distils into a folder, and reads what was written."""
    floppy.distill(config, folder, progress=False)
    return floppy.load(folder / "dataset.safetensors")


@pytest.mark.parametrize("is_pure", [True, False])
@pytest.mark.parametrize(
    ("says", "got"),
    [
        (lambda zero: {}, r"got \[\]"),
        (lambda zero: {"fitness": zero}, r"got \['fitness'\]"),
        (lambda zero: None, "got None"),
        (lambda zero: {"env_steps": zero, "all": jnp.stack([zero, zero])}, r"got all of shape \(2,\)"),
        (lambda zero: {"env_steps": zero, "words": "few"}, "got words = 'few'"),
    ],
)
def test_a_step_that_reports_no_figures_is_refused(says: Any, got: str, is_pure: bool, unregistered: None) -> None:
    """By name; without any the run would never end."""
    floppy.register_outer_loop(Reporting)
    config = configuration(outer=Reporting(says=says))
    tried = Run(config, config.problem(), "", dataclasses.replace(ON_DEVICE, is_pure=is_pure))
    words = f"The step of outer loop test-reporting must report scalars by name, env_steps among them, {got}"
    with pytest.raises(FloppyError, match=words):
        tried.steps(tried.init().outer, [0], lambda: False)


def test_a_cloning_is_refused_until_it_is_registered(unregistered: None, tmp_path: Path) -> None:
    assert "register_cloning" in refusal(lambda: configuration(cloning=SignStep()))
    card = {"cloning": {"kind": "SignStep", "loss": "mse"}}
    assert "SignStep" in refusal(lambda: floppy.train(hand_dataset(card), 0))
    floppy.register_cloning(SignStep)
    floppy.register_outer_loop(Keeping)
    dataset = run(configuration(cloning=SignStep("huber"), outer=Keeping()), tmp_path / "run")
    assert dataset.card.cloning == {"kind": "SignStep", "loss": "huber"}
    assert dataset.card.algorithm["name"] == "test-keeping"
    before = floppy.parse_distribution(dataset_distribution(dataset)).bind((1,), ObservationProbe().actions)
    fresh = jax.jit(before.init)(jax.random.split(jax.random.key(0), 1)[0])
    moved = floppy.train(dataset, 0)[0].weights.layers[-1]["bias"] - fresh.layers[-1]["bias"]
    assert np.all(np.abs(moved) <= 0.1 * 1.0001)  # the rate, for nothing has improved it
    assert np.any(np.abs(moved) > 0.01)
    assert floppy.evaluate(dataset, learners=2, episodes=2)["card"].learners == 2


def dataset_distribution(dataset: DistilledDataset) -> str:
    entry = dataset.card.learners[0]
    return f"width={entry['width'][0]}:depth={entry['depth'][0]}:initialiser={entry['initialiser'][0]}"


def test_a_loss_is_refused_until_it_is_registered(unregistered: None) -> None:
    card = {"cloning": {"kind": "GradientStep", "loss": "absolute", "steps": 1}}
    assert "got 'absolute'" in refusal(lambda: floppy.GradientStep(loss="absolute"))
    assert "got 'absolute'" in refusal(lambda: floppy.train(hand_dataset(card), 0))
    floppy.register_loss("absolute", floppy.Loss(absolute, action_kinds=("discrete",)))
    (moved,) = floppy.train(hand_dataset(card, targets=np.ones((3, 2))), 0).weights.layers[-1]["bias"]
    np.testing.assert_allclose(moved, [0.25, 0.25], rtol=1e-6)  # rate 0.5, slope -1 / 2 per output
    assert "registered already" in refusal(lambda: floppy.register_loss("absolute", floppy.Loss(huber_loss)))


def test_a_loss_for_other_actions_is_refused(unregistered: None) -> None:
    floppy.register_loss("absolute", floppy.Loss(absolute, action_kinds=("continuous",)))
    cloning = floppy.GradientStep(loss="absolute")
    assert "for discrete actions, got absolute" in refusal(lambda: configuration(cloning=cloning).problem())


def test_an_outer_loop_is_refused_until_it_is_registered(unregistered: None) -> None:
    assert "register_outer_loop" in refusal(lambda: configuration(outer=Keeping()))
    floppy.register_outer_loop(Keeping)
    assert configuration(outer=Keeping()).outer == Keeping()
    assert "shared equally" in refusal(
        lambda: (
            configuration(outer=Keeping(learners=3), distribution="lambda,xavier").problem()
            and floppy.distill(configuration(outer=Keeping(learners=3), distribution="lambda,xavier"), progress=False)
        )
    )


def test_what_lacks_a_part_of_the_contract(unregistered: None) -> None:
    assert "must be a frozen dataclass" in refusal(lambda: floppy.register_cloning(int))
    assert "must be a frozen dataclass" in refusal(lambda: floppy.register_outer_loop(int))

    @dataclasses.dataclass(frozen=True)
    class Empty:
        loss: str = "mse"

    assert "Empty lacks needs" in refusal(lambda: floppy.register_cloning(Empty))
    assert "Empty lacks name" in refusal(lambda: floppy.register_outer_loop(Empty))


@pytest.mark.thorough
@pytest.mark.slow
def test_the_page_on_the_command_line(
    unregistered: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page's commands, which test_docs.py does not run, with the module that the page's first blocks make."""
    text = PAGE.read_text(encoding="utf-8")
    members = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[:3]
    (tmp_path / "my_module.py").write_text("\n".join(members), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_module", raising=False)
    quick = {
        "distill": "--outer-steps 1 --learners 2 --selection-learners 2 --score-learners 2 --score-episodes 1",
        "evaluate": "--learners 2 --episodes 1",
    }
    for line in re.findall(r"^floppy .*$", text.replace("\\\n", ""), re.MULTILINE):
        words = line.split()[1:]
        assert main([*words, *quick.get(words[0], "").split()]) == 0
    said = capsys.readouterr().out
    assert "random-search" in said
    assert "MomentumSteps" in said
    dataset = floppy.load("runs/search/dataset.safetensors")
    assert dataset.card.cloning == {"kind": "MomentumSteps", "loss": "hinge", "momentum": 0.9, "steps": 4}
    assert len(floppy.load_policies("runs/policies.safetensors")) == 1


class Change(NamedTuple):
    """What a diff does to a file: it is new, or one line follows another."""

    path: str
    after: str
    """Nothing for a new file."""
    added: list[str]


def changes() -> list[list[Change]]:
    """Those of each diff on the page."""
    found = []
    for block in re.findall(r"```diff\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL):
        parts = re.split(r"^--- .*\n\+\+\+ b/(.*)\n", block, flags=re.MULTILINE)[1:]
        diff = []
        for path, lines in zip(parts[::2], map(str.splitlines, parts[1::2]), strict=True):
            assert all(line[:1] in ("+", " ", "@") for line in lines), path
            context = [line[1:] for line in lines if line.startswith(" ")]
            diff.append(Change(path, "".join(context), [line[1:] for line in lines if line.startswith("+")]))
        found.append(diff)
    return found


def apply(change: Change, root: Path) -> None:
    path = root / change.path
    if not change.after:
        assert not path.exists()
        path.write_text("\n".join(change.added) + "\n", encoding="utf-8")
        return
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines.count(change.after) == 1, f"{change.path} has no line {change.after}"
    place = lines.index(change.after) + 1
    path.write_text("\n".join(lines[:place] + change.added + lines[place:]) + "\n", encoding="utf-8")


def test_each_diff_is_a_new_file_and_a_line() -> None:
    for new, existing in changes():
        assert not new.after
        assert existing.after
        assert len(existing.added) == 1
    homes = [new.path.split("/")[2] for new, _ in changes()]
    assert sorted(homes) == ["cloning", "learner", "outer", "tasks"]


USE = """
import json, sys
import floppy
from floppy.cli import main
from floppy.cloning import CLONINGS
from floppy.outer import OUTER_LOOPS
from floppy.play.device import ON_DEVICE
from floppy.run.loop import Run

kinds = OUTER_LOOPS["blind"], CLONINGS["NormalisedStep"]
outer, cloning = (kind() for kind in kinds)
quick = dict.fromkeys(("selection_learners", "selection_episodes", "score_learners", "score_episodes"), 4)
config = floppy.DistillConfig(
    "coin/10", outer=outer, cloning=cloning, distribution="linear", outer_steps=64, evaluate_every=64, **quick
)
dataset = floppy.distill(config, progress=False).dataset
card = dataset.card
print(json.dumps([card.task, card.algorithm["name"], card.cloning, card.learners, card.score["mean"]]))
print(json.dumps([name for name in floppy.list_tasks() if name.startswith("coin")]))
sys.exit(main(["distill", "--help"]))
"""


def test_the_diffs_add_members_that_can_be_used(tmp_path: Path) -> None:
    shutil.copytree(REPOSITORY / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__"))
    for change in (change for diff in changes() for change in diff):
        apply(change, tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env=os.environ | {"PYTHONPATH": str(tmp_path / "src")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    card, tasks, *help_lines = done.stdout.splitlines()
    task, outer, cloning, learners, score = json.loads(card)
    assert (task, outer) == ("coin/10", "blind")
    assert cloning == {"kind": "NormalisedStep", "loss": "mse"}
    assert learners == [{"network": "module", "name": "linear"}]
    assert score > 7.5  # at random 5 of 10
    assert json.loads(tasks) == ["coin/1", "coin/10"]
    text = " ".join(" ".join(help_lines).split())
    for member in ("blind", "NormalisedStep", "linear"):
        assert member in text
