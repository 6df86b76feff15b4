"""The same questions to combinations of {outer loop} x {arena} x {cloning} x {encoder none, part, all}.

The members come from the registries: one that is added is asked too. `make test` asks every outer loop in every arena,
and every cloning and encoder once at least; `make test-all` asks all combinations.
"""

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any, NamedTuple

import host_environments  # noqa: F401  registers its environments
import jax
import numpy as np
import pytest
from probes import ObservationProbe, hand_dataset, logged

import floppy
from floppy.cli import datasets
from floppy.cloning import CLONINGS
from floppy.dataset.file import save, to_bytes
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import OUTER_LOOPS
from floppy.play import ARENAS, open_arena
from floppy.run import loop
from floppy.run.config import DistillConfig
from floppy.run.folder import CHECKPOINT_NAME
from floppy.run.interrupts import Watchdog
from floppy.run.loop import Run, distill
from floppy.tasks.base import kind_of
from floppy.tasks.registry import FAMILIES, make_task, register

pytestmark = pytest.mark.usefixtures("compiled_once")

TASKS = {"jax": "probe/observation", "host": "gymnasium/FloppyTest/Sign-v0", "labelled": "images/digits"}
"""A task of every kind, which is played in an arena of its own."""

SMALL: dict[str, dict[str, Any]] = {
    "ppmo": {"learners": 2, "environments": 2, "horizon": 4, "minibatch_size": 8, "epochs": 1},
    "hades": {"population": 4, "initialisations": 1, "environments": 1},
    "supervised": {"learners": 1, "batch_size": 8},
    "imitation": {"updates": 2, "batch_size": 4, "states": 8, "clones": 2, "environments": 2, "horizon": 2},
    "GradientStep": {"steps": 1},
    "AdamSteps": {"steps": 2, "loss": "mse"},
}
"""What makes a member quick; one that is not here is asked as it is by default."""

LAYERS = 2
ENCODERS = {"none": 0, "part": 1, "all": LAYERS}

REFUSED = {
    ("ppmo", "labelled"): "needs episodes",
    ("supervised", "jax"): "needs labelled examples",
    ("supervised", "host"): "needs labelled examples",
    ("imitation", "labelled"): "needs episodes",
}
"""What cannot be, and the words that say why."""

TEACHERS: dict[str, str] = {}
"""Files for loops that have a teacher, by the kind of task."""


class Combination(NamedTuple):
    outer: str
    arena: str
    cloning: str
    encoder: str

    def __str__(self) -> str:
        return "-".join(self)

    def teacher(self) -> dict[str, str]:
        """The option of loops that do nothing without a teacher."""
        return {"teacher": TEACHERS[self.arena]} if self.outer == "imitation" and self.arena in TEACHERS else {}

    def config(self) -> DistillConfig:
        """Two outer steps, each of which is evaluated."""
        layers = ENCODERS[self.encoder]
        return DistillConfig(
            TASKS[self.arena],
            examples=0 if layers == LAYERS else 2,
            outer_steps=2,
            evaluate_every=1,
            distribution="width=4:depth=1:initialiser=xavier",
            encoder_layers=layers,
            cloning=CLONINGS[self.cloning](**SMALL.get(self.cloning, {})),
            outer=OUTER_LOOPS[self.outer](**SMALL.get(self.outer, {}), **self.teacher()),
            early_stop=False,
            **dict.fromkeys(("selection_learners", "score_learners"), 2),
            **dict.fromkeys(("selection_episodes", "score_episodes"), 1),
        )


EVERY = [Combination(*each) for each in itertools.product(OUTER_LOOPS, ARENAS, CLONINGS, ENCODERS)]
# With every layer in the encoder nothing is cloned: one cloning stands for all.
EVERY = [each for each in EVERY if each.encoder != "all" or each.cloning == next(iter(CLONINGS))]
POSSIBLE = [each for each in EVERY if each[:2] not in REFUSED]


def is_quick(combination: Combination) -> bool:
    """`make test` asks one cloning of every outer loop that plays, on the device; `make test-all` all of them."""
    return combination.arena == "jax" and combination[2:] == ("GradientStep", "none")


@pytest.fixture(autouse=True, scope="module")
def probe_family() -> None:
    if "probe" not in FAMILIES:
        register("probe", lambda rest: ObservationProbe())


@pytest.fixture(autouse=True, scope="module")
def teachers(probe_family: None, tmp_path_factory: pytest.TempPathFactory) -> None:
    for arena in ("jax", "host"):
        task = make_task(TASKS[arena])
        sizes, actions = (task.observation_shape[0], task.actions.size), task.actions.in_units.as_entry()
        learner = dataclasses.asdict(LearnerDistribution(width=(4, 4), depth=(1, 1)))
        TEACHERS[arena] = str(path := tmp_path_factory.mktemp("teachers") / f"{arena}.safetensors")
        save(hand_dataset({"task": task.task_id, "actions": actions, "learners": [learner]}, sizes=sizes), path)


def test_every_kind_of_task_is_there() -> None:
    assert TASKS.keys() == ARENAS.keys()
    assert {arena: kind_of(make_task(task)) for arena, task in TASKS.items()} == {arena: arena for arena in TASKS}


@pytest.mark.parametrize("combination", [each for each in EVERY if each[:2] in REFUSED], ids=str)
def test_what_cannot_be_is_refused_in_one_sentence(combination: Combination) -> None:
    with pytest.raises(FloppyError, match=REFUSED[combination[:2]]) as caught:
        combination.config().problem()
    assert "\n" not in str(caught.value)


def marked(combination: Combination) -> Any:
    marks = () if is_quick(combination) else pytest.mark.thorough
    return pytest.param(combination, marks=marks)


@pytest.mark.parametrize("combination", [marked(each) for each in POSSIBLE], ids=str)
def test_a_combination(combination: Combination, tmp_path: Path) -> None:
    """Same key, same bytes; another key, others; finite; saved, read back, evaluated; gone on with where it stopped."""
    config = combination.config()
    first = distill(config, tmp_path / "run", progress=False).dataset
    assert all(np.isfinite(tensor).all() for tensor in first.numpy().values())
    assert first.card.score is not None and np.isfinite(first.card.score["mean"])
    read = floppy.load(tmp_path / "run/dataset.safetensors")
    assert to_bytes(read) == to_bytes(first)
    assert np.isfinite(floppy.evaluate(read, learners=2, episodes=1)["card"].mean)
    stopped = distill(config, tmp_path / "again", time_limit=0.0, progress=False)
    assert not stopped.finished
    other = distill(dataclasses.replace(config, seed=1), time_limit=0.0, progress=False).dataset.numpy()
    assert not all(np.array_equal(tensor, other[name]) for name, tensor in stopped.dataset.numpy().items())
    again = distill(config, tmp_path / "again", resume=True, progress=False)
    assert again.finished and again.outer_steps == config.outer_steps
    folder = tmp_path / "again"
    if combination.arena == "host":  # its environments cannot be saved, and start new episodes
        folder = tmp_path / "whole"
        again = distill(config, folder, progress=False)
    assert to_bytes(again.dataset) == to_bytes(first)
    # The best dataset may be that of the first step: the second one shows in the checkpoint and the log.
    assert (folder / CHECKPOINT_NAME).read_bytes() == (tmp_path / "run" / CHECKPOINT_NAME).read_bytes()
    assert logged(folder) == logged(tmp_path / "run")


ON_DEVICE = [each for each in POSSIBLE if each.arena == "jax" and each.cloning == "GradientStep"]


@pytest.mark.thorough(all_but=["hades-jax-GradientStep-none", "ppmo-jax-GradientStep-none"])
@pytest.mark.slow
@pytest.mark.parametrize("combination", ON_DEVICE, ids=str)
def test_outer_steps_are_traced_once(combination: Combination) -> None:
    config = combination.config()
    problem = config.problem()
    with open_arena(problem.task) as arena:
        run = Run(config, problem, "", arena)
        state = run.init().outer
        for step in range(2):
            state, _, _ = run.steps(state, [step], lambda: False)
        assert run.programs().advance._cache_size() == 1
        changed = dataclasses.replace(config, seed=1)
        other = Run(changed, changed.problem(), "", arena)
        assert jax.tree.structure(other.init().outer) == jax.tree.structure(state)


class WatchedError(Exception):
    """With the limit that a watchdog was given."""


@pytest.mark.parametrize("kind", TASKS)
def test_all_is_watched_but_environments_with_limits_of_their_own(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def watchdog(limit: float, *_: object) -> None:
        raise WatchedError(limit)

    monkeypatch.setattr(loop, "Watchdog", watchdog)
    monkeypatch.setattr(datasets, "Watchdog", watchdog)
    with pytest.raises(WatchedError) as of_run:
        distill(Combination("hades", kind, "GradientStep", "none").config(), step_timeout=7.0, progress=False)
    with pytest.raises(WatchedError) as of_command, datasets._watched(7.0, make_task(TASKS[kind])):
        pass
    limit = math.inf if kind == "host" else 7.0
    assert (of_run.value.args, of_command.value.args) == ((limit,), (limit,))


@pytest.mark.slow
def test_the_first_evaluation_has_the_time_of_a_first_call_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps on images are calls of their own, and have ended before it."""
    watchdogs: list[Watchdog] = []
    allowed: list[float] = []

    def select(run: Run, state: Any) -> Any:
        allowed.append(watchdogs[0].allowed)
        return original(run, state)

    original = Run.select
    monkeypatch.setattr(Run, "select", select)
    monkeypatch.setattr(Watchdog, "__enter__", lambda watchdog: watchdogs.append(watchdog) or watchdog)
    distill(Combination("supervised", "labelled", "GradientStep", "none").config(), step_timeout=1e6, progress=False)
    assert allowed == [6e6, 1e6]
