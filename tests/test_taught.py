"""The taught recipe: stages that follow one another, a run that begins with a dataset, a critic that warms up."""

import dataclasses
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused
from probes import hand_dataset, logged, make_problem
from tiny_runs import Drifting, use_drifting

from floppy.cli.main import main
from floppy.cloning import FeatureSteps, GradientStep
from floppy.dataset import DistilledDataset, load, save
from floppy.dataset.card import UNITS_FORMAT
from floppy.dataset.file import origin, to_bytes
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import PPMO, HaDES
from floppy.recipes import IMITATION_STEPS, ppo_baseline, recipe, taught_stages
from floppy.run import loop
from floppy.run.config import DistillConfig
from floppy.run.folder import About, begin, check_same_options
from floppy.run.loop import Run, distill
from floppy.run.stages import Stage, distill_stages
from floppy.tasks.registry import make_task
from floppy.teach.policies import train

KEY = jax.random.key(0)
TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier",))
SMALL = PPMO(learners=2, environments=2, horizon=8, epochs=2, critic_width=4)
COUNTS: dict[str, Any] = {"selection_learners": 1, "score_learners": 1, "score_episodes": 1, "evaluate_every": 1}
CONFIG = DistillConfig("cartpole", examples=3, outer_steps=2, distribution="width=4:depth=1", outer=SMALL, **COUNTS)
STATISTICS = {"obs_mean": np.full(4, 0.25), "obs_var": np.full(4, 4.0)}


def dataset_of(card: dict[str, Any] | None = None, **tensors: Any) -> DistilledDataset:
    return hand_dataset({"learners": [dataclasses.asdict(TINY)]} | (card or {}), **tensors)


# --- beginning with a dataset ---


@pytest.mark.parametrize("loop", ["ppmo", "hades"])
def test_a_run_begins_with_the_datasets_examples_rates_and_normaliser(loop: str, tmp_path: Path) -> None:
    before = dataset_of({"normaliser": "frozen", "algorithm": {"name": "x", "env_steps": 7}}, **STATISTICS)
    save(before, tmp_path / "before.safetensors")
    outer: Any = {"ppmo": SMALL, "hades": HaDES(population=4, environments=1, horizon=5)}[loop]
    outer = dataclasses.replace(outer, normalise_observations=True)
    config = dataclasses.replace(CONFIG, start=str(tmp_path / "before.safetensors"), outer=outer)
    run = Run(config, config.problem(), "")
    first = run.dataset(run.init(), score=False)
    for name in ("observations", "targets", "inner_rate", "obs_mean"):
        np.testing.assert_allclose(getattr(first, name), getattr(before, name), rtol=1e-6)
    np.testing.assert_allclose(first.obs_var, STATISTICS["obs_var"], rtol=1e-5)
    assert first.card.parents == [origin(before)]
    told = {name: first.card.algorithm[name] for name in ("env_steps", "env_steps_before", "taught")}
    assert told == {"env_steps": 0, "env_steps_before": 7, "taught": False}


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("is_frozen", [True, False])
def test_its_normaliser_is_held_where_that_is_asked_for(is_frozen: bool, tmp_path: Path) -> None:
    save(dataset_of({"normaliser": "frozen"}, **STATISTICS), tmp_path / "before.safetensors")
    outer = dataclasses.replace(SMALL, normalise_observations=True)
    config = dataclasses.replace(
        CONFIG, start=str(tmp_path / "before.safetensors"), outer=outer, frozen_normaliser=is_frozen, outer_steps=1
    )
    after = distill(config, progress=False).dataset
    assert np.array_equal(after.obs_mean, STATISTICS["obs_mean"]) == is_frozen  # type: ignore[arg-type]
    # A file's statistics count for much: they do not jump.
    np.testing.assert_allclose(after.obs_mean, STATISTICS["obs_mean"], atol=1e-3)  # type: ignore[arg-type]


def test_an_encoder_is_begun_with_too(tmp_path: Path) -> None:
    layer = {"0/kernel": np.full((4, 4), 0.5), "0/bias": np.ones(4)}
    save(dataset_of({"encoder": {"layers": 1}}, encoder=layer), tmp_path / "before.safetensors")
    problem = dataclasses.replace(CONFIG, start=str(tmp_path / "before.safetensors"), encoder_layers=1).problem()
    (found,) = problem.init_distilled(KEY).encoder
    np.testing.assert_array_equal(found["kernel"], layer["0/kernel"])


def test_plain_ppo_begins_with_a_clone_of_the_runs_seed(tmp_path: Path) -> None:
    before, text = dataset_of(), "width=4:depth=1:initialiser=xavier"
    save(before, tmp_path / "before.safetensors")
    config = ppo_baseline("cartpole", distribution=text, start=str(tmp_path / "before.safetensors"), seed=3)
    problem, other = config.problem(), dataclasses.replace(config, seed=4).problem()
    fresh = dataclasses.replace(config, start="").problem().init_distilled(KEY)
    begun = problem.init_distilled(KEY)
    assert jax.tree.map(jnp.shape, begun) == jax.tree.map(jnp.shape, fresh)
    (policy,) = train(before, 3, distribution=text)
    for found, wanted in zip(begun.encoder, policy.weights.layers, strict=True):
        np.testing.assert_array_equal(found["kernel"], wanted["kernel"])
        np.testing.assert_array_equal(found["bias"], wanted["bias"])
    assert problem != other
    assert not np.array_equal(begun.encoder[0]["kernel"], other.init_distilled(KEY).encoder[0]["kernel"])


def test_a_clones_deviations_and_normaliser_are_kept_while_the_critic_warms_up(tmp_path: Path) -> None:
    task, text = make_task("gymnax/Pendulum-v1"), "width=4:depth=1:initialiser=xavier"
    card = {"task": task.task_id, "actions": task.actions.in_units.as_entry(), "format": UNITS_FORMAT}
    before = dataset_of(
        card | {"normaliser": "frozen"},
        sizes=(3, 1),
        log_std=np.full(1, -0.5),
        obs_mean=np.full(3, 0.25),
        obs_var=np.full(3, 4.0),
    )
    save(before, tmp_path / "before.safetensors")
    config = ppo_baseline(task.task_id, distribution=text, start=str(tmp_path / "before.safetensors"))
    outer = dataclasses.replace(SMALL, normalise_observations=True, critic_warm_up=2, rate=0.1)
    config = dataclasses.replace(config, outer=outer, frozen_normaliser=True, outer_steps=4, seed=2)
    problem, (policy,) = config.problem(), train(before, 2, distribution=text)
    state, step = outer.init(problem, KEY), jax.jit(outer.step, static_argnums=0)
    for number in range(3):
        held = outer.distilled(state)
        np.testing.assert_array_equal(held.encoder[0]["kernel"], policy.weights.layers[0]["kernel"])
        np.testing.assert_array_equal(held.log_std, policy.weights.log_std)
        state, _ = step(problem, state, jax.random.fold_in(KEY, number))
    assert np.any(outer.distilled(state).encoder[0]["kernel"] != held.encoder[0]["kernel"])
    assert policy.weights.log_std[0] < -0.01
    statistics: Any = outer.statistics(state)
    np.testing.assert_allclose((statistics.mean, statistics.var), ([0.25] * 3, [4.0] * 3))


def test_a_clone_that_is_not_finite_is_no_start(tmp_path: Path) -> None:
    save(dataset_of(inner_rate=3e38), tmp_path / "before.safetensors")
    config = ppo_baseline("cartpole", distribution="width=4:depth=1", start=str(tmp_path / "before.safetensors"))
    with pytest.raises(FloppyError, match=r"Start .*: what was trained on it is not finite: give another dataset"):
        config.problem()


@pytest.mark.parametrize("targets", ["learned", "one-hot"])
def test_one_hot_labels_that_are_to_be_learned_are_smoothed(targets: str, tmp_path: Path) -> None:
    labels = np.array([[1.0, 0.0], [0.0, 1.0], [0.25, 0.75]])
    cloning = {"kind": "GradientStep", "loss": "cross-entropy", "steps": 1}
    save(dataset_of({"cloning": cloning}, targets=labels), tmp_path / "before.safetensors")
    problem = dataclasses.replace(
        CONFIG, start=str(tmp_path / "before.safetensors"), cloning=GradientStep("cross-entropy"), targets=targets
    ).problem()
    begun = problem.init_distilled(KEY)
    wanted = np.array([[0.95, 0.05], [0.05, 0.95], [0.25, 0.75]]) if targets == "learned" else labels
    np.testing.assert_allclose(begun.targets, wanted, rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(problem.parameters(begun)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"task": "ndcartpole/2"}, "it is for ndcartpole/1, not for ndcartpole/2"),
        ({"examples": 2}, "it has 3 examples and 0 layers of an encoder, the run 2 and 0: give --examples 3"),
        ({"cloning": GradientStep(steps=2)}, "Start .*: cloning.steps must be 1, as on its card, got 2"),
        ({"cloning": FeatureSteps()}, "cloning must be GradientStep, as on its card, got FeatureSteps"),
        (
            {"outer": dataclasses.replace(SMALL, normalise_observations=True)},
            "start from has no normaliser of observations: give --no-normalise-observations",
        ),
        ({"start": "nowhere.safetensors"}, "Start nowhere.safetensors: "),
    ],
)
def test_a_dataset_that_does_not_fit_is_refused(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    save(dataset_of(), tmp_path / "before.safetensors")
    with pytest.raises(FloppyError, match=words):
        dataclasses.replace(CONFIG, **({"start": str(tmp_path / "before.safetensors")} | changes)).problem()


@pytest.mark.parametrize(("is_scaled", "option"), [(True, "--no-scaled-actions"), (False, "--scaled-actions")])
def test_other_units_of_actions_are_refused_with_the_option(is_scaled: bool, option: str, tmp_path: Path) -> None:
    task = make_task("gymnax/Pendulum-v1")
    actions = task.actions if is_scaled else task.actions.in_units
    card = {"task": task.task_id, "actions": actions.as_entry(), "format": 1 if is_scaled else UNITS_FORMAT}
    sizes = (*task.observation_shape, task.actions.size)
    save(dataset_of(card, sizes=sizes, log_std=np.zeros(1)), tmp_path / "before.safetensors")
    config = dataclasses.replace(
        CONFIG, task=task.task_id, start=str(tmp_path / "before.safetensors"), scaled_actions=is_scaled
    )
    with pytest.raises(FloppyError, match=f"its policies act in other units than those of the run: give {option}"):
        config.problem()


# --- the critic's warm-up, and selection ---


@pytest.mark.thorough
def test_the_dataset_is_held_while_the_critic_warms_up() -> None:
    problem = make_problem(outer_steps=4)
    outer = dataclasses.replace(SMALL, critic_warm_up=2, rate=0.1)
    step = jax.jit(outer.step, static_argnums=0)
    states = [outer.init(problem, KEY)]
    for number in range(3):
        states.append(step(problem, states[-1], jax.random.fold_in(KEY, number))[0])

    def moved(part: str, first: int, second: int) -> bool:
        both = (jax.tree.leaves(getattr(states[at], part)) for at in (first, second))
        return any(bool(jnp.any(old != new)) for old, new in zip(*both, strict=True))

    assert not moved("distilled", 0, 2) and moved("critic", 0, 2)
    assert [int(state.optimiser[1][0].count) for state in (states[2], states[3])] == [0, 2]  # Adam begins afterwards
    assert moved("distilled", 2, 3)


def test_a_warm_up_as_long_as_the_run_is_refused(refused: Refused) -> None:
    refused(
        ["distill", "cartpole", "--critic-warm-up", "5", "--budget", "5steps"], "must be less than the 5 outer steps"
    )


@pytest.mark.parametrize(("quantile", "score"), [(0.0, 25.0), (0.5, 25.0), (0.25, 21.25)])
def test_selection_may_count_the_worst_networks(quantile: float, score: float) -> None:
    # Means of the learners: 10, 20, 30, 40; their 25% quantile is 17.5.
    returns = np.array([[10.0, 10.0], [15.0, 25.0], [30.0, 30.0], [40.0, 40.0]])
    run = Run(dataclasses.replace(CONFIG, selection_quantile=quantile), CONFIG.problem(), "")
    assert run._selection_score(returns) == score


# --- stages ---


def test_the_stages_of_the_taught_recipe() -> None:
    last = recipe("breakout", "taught", seed=3)
    stages = taught_stages(last, imitation_steps=7)
    assert [stage.name for stage in stages] == ["teacher", "imitation", ""]
    teacher, imitation, alone = (stage.config(path) for stage, path in zip(stages, ("", "t.x", "i.x"), strict=True))
    scoring = {"score_learners": last.score_learners, "score_episodes": last.score_episodes}
    assert teacher == recipe("breakout", seed=3, encoder_layers=1, **scoring)
    assert (imitation.outer.teacher, imitation.outer_steps, imitation.held_rates) == ("t.x", 7, ())  # type: ignore[attr-defined]
    assert alone == dataclasses.replace(last, start="i.x")
    for config in (imitation, alone):
        assert (config.cloning, config.initial_rate) == (FeatureSteps(), (1000.0, 1000.0, 100.0))
        assert (config.observation_deviation, config.examples) == (0.5, 16)
    assert {config.seed for config in (teacher, imitation, alone)} == {3}
    assert taught_stages(last)[1].config("t.x").outer_steps == IMITATION_STEPS
    assert taught_stages(recipe("cartpole", "taught"))[0].config("") == ppo_baseline("cartpole", **scoring)
    for options, held in (({}, ("readout_rate",)), ({"cloning": "ImplicitStep"}, ())):
        last = recipe("gymnasium/Hopper-v5", "taught", held_rates=(), **options)
        assert taught_stages(last)[1].config("t.x").held_rates == held


def test_a_mixture_takes_as_many_fresh_networks_in_all() -> None:
    last = recipe("breakout", "taught", distribution="any", cloning="ImplicitStep")
    imitation = taught_stages(last)[1].config("t.x")
    outer: Any = imitation.outer
    assert (outer.learners, outer.updates, outer.clones, outer.environments) == (8, 13, 8, 8)
    dataclasses.replace(imitation, outer=dataclasses.replace(outer, teacher="")).problem(awaits_files=True)


def test_a_teacher_and_a_start_that_are_given_leave_stages_out() -> None:
    last = recipe("breakout", "taught")
    given = dataclasses.replace(last, outer=dataclasses.replace(last.outer, teacher="t.x"))  # type: ignore[type-var]
    first, second = taught_stages(given)
    assert first.config("").outer.teacher == "t.x"  # type: ignore[attr-defined]
    assert second.config("i.x").outer.teacher == ""  # type: ignore[attr-defined]
    (only,) = taught_stages(dataclasses.replace(last, start="s.x"))
    assert only.config("").start == "s.x"


def two_stages(first: DistillConfig = CONFIG) -> list[Stage]:
    second = dataclasses.replace(first, outer_steps=1)
    return [Stage("first", lambda _: first), Stage("", lambda path: dataclasses.replace(second, start=path))]


@pytest.mark.slow
def test_stages_follow_one_another_and_go_on_where_they_were_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_drifting(monkeypatch)
    stages = two_stages(dataclasses.replace(CONFIG, outer=Drifting()))
    whole = distill_stages(stages, tmp_path / "whole", progress=False)
    assert whole.finished
    assert load(tmp_path / "whole/dataset.safetensors").card.parents == [
        origin(load(tmp_path / "whole/first/dataset.safetensors"))
    ]
    part = distill_stages(stages, tmp_path / "part", time_limit=0.0, progress=False)
    assert not part.finished and not (tmp_path / "part/config.json").exists()
    again = distill_stages(stages, tmp_path / "part", resume=True, progress=False)
    assert again.finished
    np.testing.assert_array_equal(again.dataset.observations, whole.dataset.observations)
    assert logged(tmp_path / "part") == logged(tmp_path / "whole")
    # Another version may score otherwise: what the last stage has begun with stays as it is, wherever it lies.
    first = tmp_path / "part/first/dataset.safetensors"
    other = load(first)
    score = {**other.card.score, "mean": 7.0}  # type: ignore[dict-item]
    save(dataclasses.replace(other, card=dataclasses.replace(other.card, score=score)), first, overwrite=True)
    config = json.loads((tmp_path / "part/config.json").read_text())
    config["parents"] = [origin(load(first))]
    (tmp_path / "part/config.json").write_text(json.dumps(config))
    shutil.move(tmp_path / "part", tmp_path / "moved")
    assert distill_stages(stages, tmp_path / "moved", resume=True, progress=False).finished
    assert load(tmp_path / "moved/first/dataset.safetensors").card.score == score
    shutil.move(tmp_path / "moved", tmp_path / "part")
    before = to_bytes(load(tmp_path / "part/dataset.safetensors"))
    with pytest.raises(FloppyError, match="already holds a run"):
        distill_stages(stages, tmp_path / "part", progress=False)
    assert to_bytes(load(tmp_path / "part/dataset.safetensors")) == before


def earlier_runs(folder: Path) -> list[Path]:
    """What a run of two stages with other options left."""
    other = dataclasses.replace(CONFIG, seed=1)
    for place in (folder / "first", folder):
        begin(place, other, About("", [], []))
        save(dataset_of(), place / "dataset.safetensors")
    return [place / name for place in (folder / "first", folder) for name in ("config.json", "dataset.safetensors")]


def test_stages_that_are_replaced_go_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else those of the earlier run would stand in the way of --resume, when the first one is stopped."""
    files, stages = earlier_runs(tmp_path), two_stages()

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "_advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        distill_stages(stages, tmp_path, overwrite=True, progress=False)
    assert [path.exists() for path in files] == [True, False, False, False]
    assert json.loads(files[0].read_text())["seed"] == CONFIG.seed


def test_finished_stages_are_asked_for_with_their_options(tmp_path: Path) -> None:
    earlier_runs(tmp_path)
    with pytest.raises(FloppyError, match=r"first holds a run that differs in seed \(1 there, 0 here\)"):
        distill_stages(two_stages(), tmp_path, resume=True, progress=False)


def test_a_run_knows_its_files_by_their_digests(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, start="here.x", outer=dataclasses.replace(SMALL, teacher="there.x"))
    begin(tmp_path, config, About("", ["a", "b"], []))
    moved = dataclasses.replace(CONFIG, start="./here.x", outer=dataclasses.replace(SMALL, teacher="y"))
    check_same_options(tmp_path, moved, ["a", "b"])
    with pytest.raises(FloppyError, match="with another teacher's or start's file"):
        check_same_options(tmp_path, moved, ["a", "c"])
    without = dataclasses.replace(moved, start="")
    with pytest.raises(FloppyError, match=r"differs in start \('here.x' there, '' here\)"):
        check_same_options(tmp_path, without, ["a", "b"])


@pytest.mark.parametrize("why", ["options", "disk"])
def test_stages_stay_where_no_new_ones_can_begin(why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, (first, last) = earlier_runs(tmp_path), two_stages()
    before = [path.read_bytes() for path in files]
    if why == "options":
        first = first._replace(config=lambda _: dataclasses.replace(CONFIG, start="nowhere.safetensors"))
    else:
        full = OSError(errno.ENOSPC, "No space left on device")
        monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(full))
    with pytest.raises(FloppyError, match=r"nowhere\.safetensors|No space left"):
        distill_stages([first, last], tmp_path, overwrite=True, progress=False)
    assert [path.read_bytes() for path in files] == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ("--budget 10steps", "critic_warm_up must be less than the 10 outer steps, got 20"),
        ("--distribution lambda,xavier,ortho1", "8 learners per outer step cannot be shared equally by 3"),
    ],
)
def test_all_stages_are_checked_before_the_first_one(
    options: str, words: str, tmp_path: Path, refused: Refused
) -> None:
    """The teacher takes hours on some tasks."""
    refused(["distill", "cartpole", "--recipe", "taught", *options.split()], words)
    assert not (tmp_path / "out").exists()


@pytest.mark.thorough
@pytest.mark.slow
def test_one_command_takes_all_stages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "cartpole", "--recipe", "taught", "--out", str(tmp_path / "run"), "--json"]
    small = "--teacher-steps 1 --imitation-steps 1 --budget 2steps --critic-warm-up 1 --learners 2 --environments 2"
    scores = "--horizon 8 --selection-learners 1 --selection-episodes 1 --score-learners 1 --score-episodes 1"
    assert main([*words, *small.split(), *scores.split(), "--distribution", "width=4:depth=1"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dataset"] == str(tmp_path / "run/dataset.safetensors") and said["finished"]
    card, imitation, teacher = (
        load(tmp_path / "run" / name / "dataset.safetensors").card for name in ("", "imitation", "teacher")
    )
    spent = [each.algorithm["env_steps"] for each in (teacher, imitation, card)]
    assert card.algorithm["env_steps_before"] == spent[0] + spent[1] > 61_440
    assert [each.algorithm.get("taught") for each in (teacher, imitation, card)] == [None, True, True]
    assert imitation.algorithm["env_steps_before"] == spent[0]


@pytest.mark.slow
def test_options_of_stages_are_refused_without_them(refused: Refused) -> None:
    refused(["distill", "cartpole", "--teacher-steps", "3"], "of recipe taught: give --recipe taught")
    refused(["distill", "cartpole", "--recipe", "taught", "--plan"], "--plan is about one run")
    refused(["compare", "cartpole", "--methods", "taught"], "taught")
    refused(["distill", "pong", "--recipe", "taught"], "Recipe taught needs episodes that plain PPO learns from")
