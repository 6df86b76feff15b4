"""Imitation: clones come to do as a teacher does, on states that teacher and clones meet."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import host_environments  # noqa: F401  registers its environments
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused
from probes import SMALL, ContinuousProbe, ObservationProbe, hand_dataset, hand_policies
from probes import make_problem as probe_problem

from floppy.cloning import FeatureSteps
from floppy.dataset import load, save
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import Problem
from floppy.outer.history import History, entries_of, history_of
from floppy.outer.imitation import Imitation, _TurnActions
from floppy.outer.teacher import Teacher
from floppy.run.config import DistillConfig
from floppy.run.loop import distill
from floppy.tasks.base import JaxTask
from floppy.tasks.registry import make_task

KEY = jax.random.key(0)
TINY = Imitation(updates=4, batch_size=16, states=16, clones=2, environments=4, horizon=2)


def teacher_for(task: JaxTask, kernel: Any, bias: Any, log_std: float = 0.0) -> Teacher:
    """One policy of outputs `tanh(o) @ kernel + bias`."""
    network, weights = hand_policies(task, np.asarray(kernel)[None], np.asarray(bias)[None])
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float32), weights)
    return Teacher(f"{kernel} {bias}", network, one._replace(log_std=one.log_std + log_std), None)


def signs(size: float = 2.0) -> Teacher:
    """Of the observation probe: takes the right action mostly, and more surely with larger logits."""
    return teacher_for(ObservationProbe(), [[-size, size]], [0.5, 0.5])


def make_problem(teacher: Teacher | None = None, **changes: Any) -> Problem:
    task = changes.pop("task", ObservationProbe())
    settings = {"cloning": FeatureSteps(), "initial_rate": (10.0, 10.0, 100.0), "context": teacher or signs()}
    return probe_problem(task, **(settings | changes))


# --- who acts ---


@pytest.mark.parametrize(
    ("shares", "wanted"),
    [
        ((0.0, 0.0), [1.0, 0.0]),
        ((1.0, 0.0), [0.0, 1.0]),
        ((0.25, 0.0), [0.75, 0.25]),
        ((1.0, 1.0), [0.5, 0.5]),
        ((0.5, 0.5), [0.5, 0.5]),
    ],
)
def test_policy_teacher_and_chance_act_by_their_shares(shares: tuple[float, float], wanted: list[float]) -> None:
    actions = _TurnActions(ObservationProbe().actions, signs())
    count = 4000
    outputs = jnp.tile(jnp.array([30.0, -30.0, -30.0, 30.0, *shares]), (count, 1))  # sure of 0, and sure of 1
    chosen = np.asarray(actions.sample(KEY, outputs, jnp.zeros((1, 0))))
    np.testing.assert_allclose(np.bincount(chosen, minlength=2) / count, wanted, atol=0.03)


def test_continuous_actions_come_from_the_one_who_acts_with_own_deviations() -> None:
    task = ContinuousProbe(target=(0.5, -0.5))
    actions = _TurnActions(task.actions, teacher_for(task, np.zeros((2, 2)), [0.0, 0.0], log_std=-3.0))
    outputs = jnp.tile(jnp.array([1.0, 1.0, -1.0, -1.0, 0.5, 0.0]), (4000, 1))
    chosen = np.asarray(actions.sample(KEY, outputs, jnp.full((1, 2), -4.0)))
    is_taught = chosen[:, 0] < 0
    assert is_taught.mean() == pytest.approx(0.5, abs=0.03)
    np.testing.assert_allclose(chosen[is_taught].mean(axis=0), -1.0, atol=0.01)
    np.testing.assert_allclose(chosen[is_taught].std(axis=0), np.exp(-3.0), rtol=0.1)
    np.testing.assert_allclose(chosen[~is_taught].std(axis=0), np.exp(-4.0), rtol=0.1)


# --- the ring, and what is counted ---


@pytest.mark.thorough
@pytest.mark.slow
def test_the_ring_is_filled_by_the_teacher_and_then_the_oldest_states_go() -> None:
    problem, size = make_problem(), 16
    state = TINY.init(problem, KEY)
    assert state.states.shape == (size, 1) and set(np.unique(state.states)) == {-1.0, 1.0}
    marked = state._replace(states=jnp.full((size, 1), 7.0), place=jnp.asarray(8))
    after, info = jax.jit(TINY.step, static_argnums=0)(problem, marked, KEY)
    assert (np.asarray(after.states)[:, 0] == 7.0).sum() == 0  # 2 clones x 4 environments x 2 steps are all of it
    assert int(after.place) == 8 and int(info["env_steps"]) == size + 16
    _, info = jax.jit(TINY.step, static_argnums=0)(problem, after, KEY)
    assert int(info["env_steps"]) == 16


@pytest.mark.slow
def test_examples_start_at_the_teachers_states_and_answers() -> None:
    problem = make_problem(signs(20.0), observation_deviation=0.5, examples=5)
    state = jax.jit(TINY.init, static_argnums=0)(problem, KEY)
    mean = float(jnp.mean(state.states))
    raw = np.asarray(state.distilled.observations) * 0.5 + mean
    np.testing.assert_allclose(np.abs(raw), 1.0, atol=1e-5)
    # Logits of 20 tanh(1) = 15 and -15, both moved by 0.5: centred and cut they are 3 and -3.
    np.testing.assert_allclose(state.distilled.targets, np.sign(raw) * np.array([[-3.0, 3.0]]), rtol=1e-5)
    np.testing.assert_allclose(state.statistics.var, 0.25)  # type: ignore[union-attr]


def test_the_rate_is_held_and_then_falls() -> None:
    optimiser = Imitation(updates=10, rate=1.0, max_grad_norm=1e9)._optimiser(make_problem(outer_steps=10))

    def step(state: Any, _: None) -> tuple[Any, jax.Array]:
        change, state = optimiser.update(jnp.ones(()), state)
        return state, -change  # Adam's step down an even slope is its rate

    _, steps = jax.lax.scan(step, optimiser.init(jnp.zeros(())), length=101)
    np.testing.assert_allclose([steps[0], steps[20], steps[60], steps[100]], [1.0, 1.0, 0.51, 0.02], rtol=1e-3)


@dataclasses.dataclass(frozen=True)
class _Overflowing(Imitation):
    """Fresh networks overflow in some updates, or in all."""

    share: float = 0.5

    def _loss(self, problem: Problem, state: Any, key: jax.Array, distilled: Any) -> jax.Array:
        loss = super()._loss(problem, state, key, distilled)
        return loss * jnp.where(jax.random.uniform(key) < self.share, jnp.nan, 1.0)


@pytest.mark.slow
@pytest.mark.parametrize(("share", "passed_over"), [(0.5, 8), (1.0, 16)])
def test_networks_that_overflow_are_passed_over_unless_all_do(share: float, passed_over: int) -> None:
    outer = _Overflowing(updates=16, batch_size=16, states=16, clones=2, environments=4, horizon=2, share=share)
    problem = make_problem()
    start = jax.jit(outer.init, static_argnums=0)(problem, KEY)
    state, info = jax.jit(outer._improve, static_argnums=0)(problem, start, KEY)
    assert int(state.optimiser.total_notfinite) == passed_over
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(state.distilled))
    is_moved = bool(jnp.any(state.distilled.observations != start.distilled.observations))
    # A run ends where a figure is not finite.
    assert is_moved == bool(jnp.isfinite(info["teacher_kl"])) == (share < 1)


# --- learning ---


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("kind", ["discrete", "continuous", "mixture"])
def test_clones_come_to_do_as_the_teacher_does(kind: str) -> None:
    changes: dict[str, Any] = {"outer_steps": 10, "initial_rate": (1.0, 1.0, 10.0)}
    if kind == "continuous":
        task = ContinuousProbe(target=(0.5, -0.5))
        changes |= {"task": task, "teacher": teacher_for(task, np.zeros((2, 2)), [1.0, -1.5], log_std=-1.0)}
    if kind == "mixture":
        changes |= {"learners": (SMALL, dataclasses.replace(SMALL, width=(8, 8)))}
    problem = make_problem(**changes)
    outer = Imitation(updates=30, learners=2, batch_size=32, states=64, clones=4, environments=4, horizon=4, rate=3e-2)
    start = outer.init(problem, KEY)
    # From examples that say nothing.
    blank = start.distilled._replace(targets=jnp.zeros_like(start.distilled.targets))
    keys = jax.random.split(KEY, 10)
    run = jax.jit(lambda state: jax.lax.scan(lambda s, k: outer.step(problem, s, k), state, keys)[1])
    apart = np.asarray(run(start._replace(distilled=blank))["teacher_kl"])
    assert apart[-1] < 0.05 and apart[-1] < 0.5 * apart[0]


@pytest.mark.thorough
@pytest.mark.slow
def test_a_run_says_on_its_card_that_it_is_taught_and_what_was_spent_before(tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    learner = LearnerDistribution(width=(4, 4), depth=(1, 1))
    algorithm = {"name": "ppmo", "config": {}, "env_steps": 1000}
    save(hand_dataset({"learners": [dataclasses.asdict(learner)], "algorithm": algorithm}), teacher)
    counts = dict.fromkeys(("selection_learners", "score_learners", "score_episodes"), 1)
    config = DistillConfig(
        "cartpole", outer_steps=2, evaluate_every=1, distribution="width=4:depth=1", cloning=FeatureSteps(),
        outer=dataclasses.replace(TINY, teacher=str(teacher)), **counts,  # type: ignore[arg-type]
    )  # fmt: skip
    distill(config, tmp_path / "run", progress=False)
    card = load(tmp_path / "run/dataset.safetensors").card
    assert card.parents == [origin(load(teacher))]
    told = {name: card.algorithm[name] for name in ("env_steps", "env_steps_before", "taught")}
    assert told == {"env_steps": 16 + 2 * 16, "env_steps_before": 1000, "taught": True}
    assert history_of(load(tmp_path / "run/dataset.safetensors")) == History(1048, True)


def test_what_was_spent_before_is_unknown_where_one_file_does_not_say() -> None:
    known, unknown = History(10, False), history_of(hand_dataset())
    assert unknown == History(None, False)
    outer = {"learners": 2, "environments": 3, "horizon": 5}
    older = hand_dataset({"algorithm": {"name": "ppmo", "config": {"outer": outer, "outer_steps": 7}}})
    assert history_of(older) == History(2 * 3 * 5 * 7, False)
    evolved = hand_dataset({"algorithm": {"name": "hades", "config": {"outer": outer | {"horizon": 0}}}})
    assert history_of(evolved) == History(None, False)
    boasting = hand_dataset({"algorithm": {"name": "x", "env_steps": 10**29, "env_steps_before": -1, "taught": "no"}})
    assert history_of(boasting) == History(None, False)
    assert entries_of([], taught=False) == {}
    assert entries_of([known, known], taught=False) == {"env_steps_before": 20, "taught": False}
    assert entries_of([known, unknown], taught=True) == {"env_steps_before": None, "taught": True}


# --- what is refused ---


def test_without_a_teacher_it_is_refused(refused: Refused, tmp_path: Path) -> None:
    words = ["distill", "cartpole", "--outer", "imitation", "--out", str(tmp_path / "run")]
    refused(words, "Outer loop imitation needs a teacher: give a dataset's file (--teacher FILE).")
    refused([*words, "--teacher", str(tmp_path / "none.safetensors")], "none.safetensors")
    refused([*words, "--teacher-shares", "0.5", "2"], "teacher_shares must be at least 0 and at most 1, got 2.0")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"targets": "one-hot"}, "targets must be learned for imitation, got one-hot"),
        ({"initial_examples": "zeros"}, "states of the teacher, got zeros: give --initial-examples normal"),
        ({"learners": (SMALL,) * 3}, "cannot be shared equally by 3"),
        ({}, r"states must be at most 268435456 for observations of shape \(1,\), got 300000000: they would take 1.1"),
    ],
)
def test_what_cannot_be_imitated_is_refused(changes: dict[str, Any], words: str) -> None:
    outer = TINY if changes else dataclasses.replace(TINY, states=300_000_000)
    with pytest.raises(FloppyError, match=words):
        outer.check(make_problem(**changes))


@dataclasses.dataclass(frozen=True)
class BytesProbe(ObservationProbe):
    """Observations that are pixels."""

    def reset(self, key: jax.Array) -> Any:
        state, observation = super().reset(key)
        return state, observation.astype(jnp.uint8)


@pytest.mark.parametrize(
    ("task", "number"), [(BytesProbe(), 1), (ObservationProbe(), 4), ("Image", 1), ("Sign", 4)], ids=str
)
def test_states_of_bytes_take_a_byte_a_number(task: Any, number: int) -> None:
    task = make_task(f"gymnasium/FloppyTest/{task}-v0") if isinstance(task, str) else task
    most = 2**30 // (number * math.prod(task.observation_shape))
    problem = make_problem(task=task)
    dataclasses.replace(TINY, states=most).check(problem)
    with pytest.raises(FloppyError, match=f"states must be at most {most} for"):
        dataclasses.replace(TINY, states=most + 1).check(problem)


def test_some_share_of_the_teacher_must_be_given() -> None:
    with pytest.raises(FloppyError, match="teacher_shares must be one share at least"):
        Imitation(teacher_shares=())


@pytest.mark.thorough
@pytest.mark.slow
def test_the_probe_is_hard_enough() -> None:
    """A network that has learnt nothing is far from the teacher."""
    problem = make_problem()
    state = TINY.init(problem, KEY)
    blank = state.distilled._replace(targets=jnp.zeros_like(state.distilled.targets))
    assert float(TINY._loss(problem, state, KEY, blank)) > 0.1
