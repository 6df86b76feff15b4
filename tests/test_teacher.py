"""A teacher: its policy is read from a dataset's file, and learners imitate it at first."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused
from probes import ActionProbe, ContinuousProbe, hand_dataset, hand_policies, make_problem

from floppy.dataset import DistilledDataset, load, save
from floppy.dataset.file import origin
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import PPMO, Problem
from floppy.outer.ppmo.loop import PPMOState
from floppy.outer.teacher import Teacher, parents_of, read_teacher
from floppy.run.config import DistillConfig
from floppy.run.folder import About, begin
from floppy.run.loop import Run, distill
from floppy.tasks.registry import make_task
from floppy.teach.merge import merge
from floppy.teach.policies import policy_outputs, train

pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def expert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of plain PPO on cart-pole before its first step, with statistics of observations."""
    path = tmp_path_factory.mktemp("expert") / "expert.safetensors"
    outer = PPMO(learners=1, environments=1, normalise_observations=True)
    config = DistillConfig(
        "cartpole", examples=0, encoder_layers=3, distribution="width=8", outer=outer, initial_examples="random-policy"
    )
    run = Run(config, config.problem(), "")
    dataset = run.dataset(run.init(), score=False)
    assert dataset.card.normaliser == "frozen"
    save(dataset, path)
    return path


def probe_teacher(means: tuple[float, ...] = (), logits: tuple[float, ...] = ()) -> tuple[Teacher, Problem]:
    """A policy that always has these outputs, and a problem that is taught by it."""
    task = ContinuousProbe(target=(0.5, -0.5)) if means else ActionProbe()
    (size,) = task.observation_shape
    network, weights = hand_policies(task, np.zeros((1, size, task.actions.size)), [means or logits])
    one = jax.tree.map(lambda leaf: np.asarray(leaf[0], np.float32), weights)
    teacher = Teacher(f"{means} {logits}", network, one._replace(log_std=one.log_std - 1.0), None)
    return teacher, make_problem(task, outer_steps=40, context=teacher)


def examples(task: str, sizes: tuple[int, int] = (4, 2), **entries: Any) -> DistilledDataset:
    """A few examples for a tiny network."""
    learner = LearnerDistribution(width=(4, 4), depth=(1, 1))
    return hand_dataset({"task": task, "learners": [dataclasses.asdict(learner)]} | entries, sizes=sizes)


# --- reading one ---


@pytest.mark.thorough(all_but=["examples"])
@pytest.mark.parametrize("kind", ["a whole policy", "examples"])
def test_a_teacher_has_the_policy_of_its_file(kind: str, expert: Path, tmp_path: Path) -> None:
    path = expert
    if kind == "examples":
        path = tmp_path / "examples.safetensors"
        save(examples("ndcartpole/1", (4, 2)), path)
    task = make_task("cartpole")
    teacher = read_teacher(str(path), task)
    observations = np.random.default_rng(0).normal(size=(5, 3, 4)).astype(np.float32)
    wanted = policy_outputs(train(load(path), KEY), jnp.asarray(observations).reshape(1, -1, 4))[0]
    got = teacher.outputs(jnp.asarray(observations), task.actions)
    np.testing.assert_allclose(got, wanted.reshape(5, 3, 2), rtol=1e-5, atol=1e-6)
    assert np.std(got) > 0


def test_means_of_a_teacher_lie_within_the_bounds_of_actions() -> None:
    teacher, problem = probe_teacher(means=(0.25, -7.0))
    low = problem.task.actions.low[1]  # type: ignore[union-attr]
    observations = jnp.zeros((2, *problem.task.observation_shape))
    np.testing.assert_allclose(teacher.outputs(observations, problem.task.actions), [[0.25, low]] * 2)


def test_teachers_of_other_tasks_are_refused(expert: Path, tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match=r"Teacher .*: it is for ndcartpole/1, not for ndcartpole/2: "):
        read_teacher(str(expert), make_task("ndcartpole/2"))
    merged = tmp_path / "merged.safetensors"
    save(merge([examples("ndcartpole/1"), examples("ndcartpole/2", (8, 4))]), merged)
    with pytest.raises(FloppyError, match="not for ndcartpole/1: give a dataset of one task"):
        read_teacher(str(merged), make_task("cartpole"))


def test_teachers_without_a_policy_of_their_own_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    save(examples("ndcartpole/1", normaliser="per-evaluation"), path)
    with pytest.raises(FloppyError, match=r"Teacher .*: it has no normaliser of its own"):
        read_teacher(str(path), make_task("cartpole"))
    steps = {"kind": "GradientStep", "loss": "mse", "steps": 60}
    save(dataclasses.replace(examples("ndcartpole/1", cloning=steps), inner_rate=np.float32(1e3)), path, overwrite=True)
    with pytest.raises(FloppyError, match=r"Teacher .*: what was trained on it is not finite"):
        read_teacher(str(path), make_task("cartpole"))


def test_a_teacher_that_is_no_dataset_is_refused_before_anything_is_written(refused: Refused, tmp_path: Path) -> None:
    (text := tmp_path / "text.safetensors").write_text("no dataset")
    for path in (tmp_path / "nobody.safetensors", text, tmp_path):
        refused(["distill", "cartpole", "--teacher", str(path)], str(path))


@pytest.mark.parametrize(("name", "value"), [("teacher_weight", 0.0), ("teacher_share", 0.0), ("teacher_share", 1.5)])
def test_nonsense_about_teachers_is_refused(name: str, value: float) -> None:
    with pytest.raises(FloppyError, match=rf"^{name} must be above 0.*, got {value}\.$"):
        PPMO(**{name: value})  # type: ignore[arg-type]


# --- learning from one ---


def test_the_weight_of_a_teacher_falls_to_nothing_by_its_share_of_the_run() -> None:
    _, problem = probe_teacher(logits=(3.0, 0.0))
    outer = PPMO(learners=2, environments=2, horizon=6, epochs=2, minibatch_size=12, teacher_weight=0.8)
    # 40 outer steps x 2 epochs x 2 minibatches = 160 updates, 80 of them with a teacher.
    # The critic's updates are counted: `target_kl` leaves none of them out.
    critic = outer._optimiser(problem, outer.critic_rate).init(jnp.zeros(1))
    state = PPMOState(*[None] * 8)

    def weight(updates: int) -> float:
        adam = critic[1][0]._replace(count=jnp.asarray(updates))
        optimiser = (critic[0], (adam, *critic[1][1:]))
        return float(outer._teacher_weight(problem, state._replace(critic_optimiser=optimiser)))

    np.testing.assert_allclose([weight(n) for n in (0, 20, 40, 80, 160)], [0.8, 0.6, 0.4, 0.0, 0.0], atol=1e-6)


@pytest.mark.thorough(all_but=["continuous"])
@pytest.mark.parametrize("outputs", [{"logits": (4.0, -4.0)}, {"means": (-2.0, 2.0)}], ids=["discrete", "continuous"])
def test_learners_imitate_their_teacher_against_their_interest(outputs: dict[str, tuple[float, ...]]) -> None:
    """The teacher does the opposite of what earns most, and while it has weight learners follow it."""
    _, problem = probe_teacher(**outputs)
    outer = PPMO(
        learners=4, environments=8, horizon=10, minibatch_size=160, rate=3e-2, critic_rate=3e-2, anneal=False,
        teacher_weight=10.0, teacher_share=1.0,
    )  # fmt: skip

    def run(problem_key: jax.Array) -> dict[str, jax.Array]:
        state = outer.init(problem, problem_key)
        return jax.lax.scan(lambda s, k: outer.step(problem, s, k), state, jax.random.split(KEY, 25))[1]

    info = jax.jit(run)(KEY)
    apart, returns = np.asarray(info["teacher_kl"]), np.asarray(info["episode_return"])
    assert apart[0] > 0.2, "near the teacher before the first step: this shows nothing"
    assert apart[-3:].mean() < 0.1 * apart[0]
    assert returns[-3:].mean() < returns[0]


def test_a_card_names_the_teacher_and_another_one_is_refused(expert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(expert.read_bytes())
    outer = PPMO(learners=2, environments=2, horizon=8, teacher=str(teacher))
    config = DistillConfig("cartpole", outer=outer, distribution="width=8:depth=1")
    run = Run(config, config.problem(), "")
    card = run.dataset(run.init(), score=False).card
    assert card.algorithm["config"]["outer"]["teacher"] == str(teacher)
    assert card.parents == [origin(load(expert))]
    alone = dataclasses.replace(config, outer=dataclasses.replace(outer, teacher=""))
    assert parents_of(alone.problem()) == []
    begin(tmp_path / "run", config, About("", card.parents, []))
    save(examples("ndcartpole/1"), teacher, overwrite=True)
    with pytest.raises(FloppyError, match="run holds a run with another teacher's or start's file: put that file back"):
        distill(config, tmp_path / "run", resume=True, progress=False)


@pytest.mark.thorough
def test_a_run_goes_on_with_the_teacher_that_it_began_with(expert: Path, tmp_path: Path) -> None:
    teacher = tmp_path / "teacher.safetensors"
    teacher.write_bytes(expert.read_bytes())
    outer = PPMO(learners=2, environments=2, horizon=8, epochs=1, critic_width=4, teacher=str(teacher))
    config = DistillConfig(
        "cartpole", outer_steps=2, outer=outer, evaluate_every=1, distribution="width=8:depth=1", selection_learners=1,
        score_learners=1, score_episodes=1,
    )  # fmt: skip
    whole = distill(config, progress=False).dataset
    assert whole.card.algorithm["config"]["outer"]["teacher"] == str(teacher)
    assert whole.card.parents == [origin(load(expert))]
    alone = dataclasses.replace(config, outer=dataclasses.replace(outer, teacher=""))
    assert parents_of(alone.problem()) == []
    part = distill(config, tmp_path / "run", time_limit=0.0, progress=False)
    assert part.outer_steps == 1
    save(examples("ndcartpole/1"), teacher, overwrite=True)
    with pytest.raises(FloppyError, match="run holds a run with another teacher's or start's file: put that file back"):
        distill(config, tmp_path / "run", resume=True, progress=False)
    teacher.write_bytes(expert.read_bytes())
    resumed = distill(config, tmp_path / "run", resume=True, progress=False).dataset
    np.testing.assert_array_equal(resumed.targets, whole.targets)


@pytest.mark.thorough
@pytest.mark.parametrize(
    "options",
    [
        {"distribution": "width=4:depth=1,width=6:depth=2"},
        {"examples": 0, "distribution": "width=4:depth=1", "encoder_layers": 2},
    ],
    ids=["a mixture", "plain PPO"],
)
def test_a_step_of_imitation_alone_brings_all_kinds_of_learners_nearer(options: dict[str, Any], expert: Path) -> None:
    outer = PPMO(
        learners=8, environments=2, horizon=32, epochs=30, minibatch_size=512, rate=1e-2, anneal=False,
        teacher=str(expert), teacher_weight=1e3, teacher_share=1.0,
    )  # fmt: skip
    config = DistillConfig("cartpole", outer=outer, outer_steps=2, **options)
    problem = config.problem()
    step = jax.jit(outer.step, static_argnums=0)
    state, first = step(problem, outer.init(problem, KEY), KEY)
    _, second = step(problem, state, jax.random.fold_in(KEY, 1))
    assert float(second["teacher_kl"]) < 0.7 * float(first["teacher_kl"])


@pytest.mark.thorough
def test_a_host_task_has_a_teacher_too(tmp_path: Path) -> None:
    save(examples("gymnasium/CartPole-v1"), tmp_path / "teacher.safetensors")
    outer = PPMO(
        learners=2, environments=2, horizon=8, epochs=1, critic_width=4, teacher=str(tmp_path / "teacher.safetensors"),
        target_kl=0.1,
    )  # fmt: skip
    config = DistillConfig(
        "gymnasium/CartPole-v1", outer_steps=1, outer=outer, distribution="width=8:depth=1", selection_learners=1,
        selection_episodes=1, score_learners=1, score_episodes=1,
    )  # fmt: skip
    distill(config, tmp_path / "run", progress=False)
    (line,) = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["teacher_kl"] > 0
