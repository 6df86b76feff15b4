"""Runs on host tasks: probes solved, resumed, ended by faults, and by the command line."""

import dataclasses
import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_environments import PREFIX, SAID, probe

from floppy.cli.main import main
from floppy.dataset import load
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_random
from floppy.outer import PPMO, HaDES
from floppy.play.host import HostArena, HostEnvironments
from floppy.play.normalise import init_statistics, update_statistics
from floppy.run.config import DistillConfig
from floppy.run.loop import distill
from floppy.tasks import Continuous, FaultyEnvironmentError, make_task, patience

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

KEY = jax.random.key(0)
NEEDS_MUJOCO = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mujoco", "imageio"))), reason="needs pip install 'floppy-rl[mujoco]'"
)
ALWAYS = 100.0


# --- distilling ---


LEARNERS = "width=16:depth=1:initialiser=xavier"


def config(name: str = "Sign", **changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        "outer_steps": 40,
        "distribution": LEARNERS,
        "evaluate_every": 20,
        "selection_learners": 4,
        "score_learners": 20,
        "score_episodes": 4,
        "outer": PPMO(learners=4, environments=4, horizon=8, epochs=2, minibatch_size=64, rate=0.05),
    }
    return DistillConfig(f"gymnasium/{PREFIX}{name}-v0", **(values | changes))


HADES = HaDES(population=16, initialisations=2, environments=2, sigma=0.5, rate=0.2)
PLAIN = {"examples": 0, "encoder_layers": 2}


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="ppmo"),
        pytest.param(PLAIN | {"outer": HADES, "outer_steps": 15, "evaluate_every": 5}, id="neuroevolution"),
    ],
)
def test_a_probe_is_solved(changes: dict[str, Any]) -> None:
    result = distill(config(**changes), progress=False)
    assert result.finished
    assert result.dataset.card.score is not None
    assert result.dataset.card.score["mean"] > 0.9, "random actions earn 0.5"
    outer = result.dataset.card.algorithm["config"]["outer"]
    per_step = 4 * 4 * 8 if outer["kind"] == "PPMO" else 16 * 2 * 2
    assert result.env_steps == result.outer_steps * per_step


@pytest.mark.thorough
@pytest.mark.parametrize("outer", [config().outer, HADES], ids=["ppmo", "hades"])
def test_observations_are_normalised_by_what_was_met(outer: Any) -> None:
    outer = dataclasses.replace(outer, normalise_observations=True)
    dataset = distill(
        config("TimeLimit", outer=outer, outer_steps=4, evaluate_every=4, initial_examples="random-policy")
    ).dataset
    assert dataset.card.normaliser == "frozen"
    assert dataset.obs_mean is not None
    assert dataset.obs_var is not None
    # Times 0 to 4 equally often, except that PPMO's 32 steps end within an episode.
    assert dataset.obs_mean[0] == pytest.approx(2.0, abs=0.1)
    assert dataset.obs_var[0] == pytest.approx(2.0, abs=0.1)


@pytest.mark.thorough
def test_collected_statistics_are_those_of_the_trajectory() -> None:
    outer = PPMO(learners=2, environments=2, horizon=5, normalise_observations=True)
    problem, arena = config("Length", outer=outer).problem(), HostArena()
    state = outer.init(problem, KEY, arena)
    met: list[np.ndarray] = []
    real = arena.collect

    def spy(*arguments: Any, **options: Any) -> Any:
        environments, trajectory = real(*arguments, **options)
        met.append(np.asarray(trajectory.observations).reshape(-1, 2))
        return environments, trajectory

    arena.collect = spy  # type: ignore[method-assign]
    for step in range(2):
        state, _ = outer.step(problem, state, jax.random.fold_in(KEY, step), arena)
    wanted = update_statistics(init_statistics((2,)), jnp.concatenate([jnp.asarray(part) for part in met]))
    np.testing.assert_allclose(state.statistics.mean, wanted.mean, rtol=1e-4)
    np.testing.assert_allclose(state.statistics.var, wanted.var, rtol=1e-4)


@pytest.mark.thorough
def test_chunks_change_nothing() -> None:
    datasets = [
        distill(config("Sign", outer=dataclasses.replace(HADES, chunk=chunk), outer_steps=2, evaluate_every=2)).dataset
        for chunk in (0, 5)
    ]
    np.testing.assert_allclose(datasets[0].observations, datasets[1].observations, rtol=1e-4, atol=1e-5)


@pytest.mark.thorough
def test_a_mixture_of_learners_plays_in_rows_of_its_own() -> None:
    run = config("TimeLimit", distribution=f"{LEARNERS},width=8:depth=1:initialiser=xavier")
    problem, arena = run.problem(), HostArena()
    state = run.outer.init(problem, KEY, arena)
    assert [int(handle.number) for handle in state.environments] == [0, 1]
    rows = []
    real = arena.collect

    def spy(*arguments: Any, **options: Any) -> Any:
        environments, trajectory = real(*arguments, **options)
        rows.append(np.asarray(trajectory.observations)[:, :, :, 1].max())
        return environments, trajectory

    arena.collect = spy  # type: ignore[method-assign]
    for step in range(2):
        state, info = run.outer.step(problem, state, jax.random.fold_in(KEY, step), arena)
    assert int(info["env_steps"]) == 4 * 4 * 8
    # Episodes run on: steps 0 to 7, then 8 to 15, are of episodes 0 to 1, then 1 to 3, in either row.
    assert rows == [1, 1, 3, 3]


@pytest.mark.thorough
def test_a_run_can_be_resumed_and_closes_its_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(HostEnvironments, "close", lambda row: closed.append(row.count))
    whole = config("Length", outer_steps=6, evaluate_every=2)
    stopped = distill(whole, tmp_path / "run", time_limit=1e-9, progress=False)
    assert not stopped.finished
    assert {16, 8} <= set(closed)  # for collecting and for selecting
    resumed = distill(whole, tmp_path / "run", resume=True, progress=False)
    assert resumed.finished
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert resumed.env_steps == 6 * 4 * 4 * 8


@pytest.mark.thorough
def test_a_resumed_run_begins_new_episodes_with_nothing_earned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = []

    def noted(outer: PPMO, state: Any, trajectories: Any) -> Any:
        jax.debug.callback(lambda x: carried.append(np.asarray(x)), state.discounted[0])
        return scale(outer, state, trajectories)

    scale = PPMO._scale_rewards
    monkeypatch.setattr(PPMO, "_scale_rewards", noted)
    outer = dataclasses.replace(config().outer, normalise_rewards=True, horizon=3)
    whole = config("Length", outer_steps=4, evaluate_every=2, outer=outer)
    distill(whole, tmp_path / "run", time_limit=1e-9, progress=False)
    distill(whole, tmp_path / "run", resume=True, progress=False)
    jax.effects_barrier()
    assert [bool(before.any()) for before in carried] == [False, False, True, True]


@pytest.mark.thorough
def test_a_run_out_of_time_ends_after_the_step_that_it_is_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of a host task may take long, and evaluations be far apart; they come when they would have come."""
    closed = []
    monkeypatch.setattr(HostEnvironments, "close", lambda row: closed.append(row.count))
    whole = config("Length", outer_steps=7, evaluate_every=5)
    assert distill(whole, tmp_path / "run", time_limit=1e-9, progress=False).outer_steps == 1
    assert {16, 8} <= set(closed)  # for collecting and for selecting
    resumed = distill(whole, tmp_path / "run", resume=True, progress=False)
    assert resumed.finished
    assert resumed.env_steps == 7 * 4 * 4 * 8
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert [line["step"] for line in lines if "selection_score" in line] == [1, 5, 7]


# --- faults ---


@pytest.mark.thorough(all_but=["step"])
@pytest.mark.parametrize("fault", ["step", "nan reward"])
def test_a_fault_ends_the_run_and_keeps_what_was_reached(fault: str, tmp_path: Path) -> None:
    with pytest.raises(FaultyEnvironmentError, match=SAID[fault]) as caught:
        distill(config("Faulty-" + fault.replace(" ", "-"), outer_steps=40, evaluate_every=2), tmp_path)
    message = str(caught.value)
    # 40 steps are five outer steps of 8: the fault comes in the sixth.
    assert "after outer step 5" in message
    assert str(tmp_path / "dataset.safetensors") in message
    assert message.endswith(".")
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 5
    assert (tmp_path / "checkpoints/latest.safetensors").exists()
    assert load(tmp_path / "dataset.safetensors").examples == 2


def test_a_hang_ends_the_run_and_keeps_what_was_reached(tmp_path: Path) -> None:
    with (
        patience(0.5),
        pytest.raises(FaultyEnvironmentError, match=r"not return from step within 0.5 s.*after outer step 5,.* best"),
    ):
        distill(config("FaultyHangs", outer_steps=40, evaluate_every=2), tmp_path)
    assert (tmp_path / "checkpoints/latest.safetensors").exists()
    assert load(tmp_path / "dataset.safetensors").examples == 2


@pytest.mark.parametrize("name", ["FaultyAtOnce", "FaultyReward", "FaultyFour"])
def test_what_fails_at_once_costs_and_leaves_nothing(name: str, tmp_path: Path) -> None:
    """It is found before the run begins, so that an earlier run stays."""
    (tmp_path / "dataset.safetensors").write_bytes(b"an earlier run's")
    with pytest.raises(FloppyError, match=name):
        distill(config(name), tmp_path, overwrite=True, progress=False)
    with pytest.raises(FloppyError, match=name):
        distill(config(name), tmp_path / "new", progress=False)
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"an earlier run's"]


def test_a_fault_in_the_first_outer_step_leaves_no_run(tmp_path: Path) -> None:
    outer = dataclasses.replace(config().outer, horizon=64)  # steps, of which the fault comes in the 40th
    for _ in range(2):  # the second run is not refused
        with pytest.raises(FaultyEnvironmentError, match=r"the first outer step was not over, so that .* holds no run"):
            distill(config("Faulty-step", outer=outer), tmp_path / "run", progress=False, log=["csv"])
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


def test_faults_in_evaluation_are_named_too() -> None:
    with pytest.raises(FaultyEnvironmentError, match="FaultyAtOnce"):
        evaluate_random(probe("FaultyAtOnce"), episodes=3)


# --- the command line ---

MODULE = """
import gymnasium, numpy as np

class Mine(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(-1, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(2, np.float32), {}

    def step(self, action):
        if self.spec.id.startswith("Broken"):
            raise RuntimeError("out of order")
        return np.zeros(2, np.float32), float(action), True, False, {}

for name in ("Mine", "Broken"):
    gymnasium.register(f"{name}FromModule-v0", Mine, max_episode_steps=3)
"""
QUICK_RUN = (
    f"--distribution {LEARNERS} --selection-learners 2 --learners 2 --environments 2 --horizon 4 --budget 2steps "
    "--import my_floppy_module"
)


@pytest.mark.thorough
def test_the_command_line_works_with_modules_of_ones_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [*__import__("sys").path])
    (tmp_path / "my_floppy_module.py").write_text(MODULE)
    mine = "gymnasium/MineFromModule-v0"

    def run(line: str, code: int = 0) -> Any:
        assert main(shlex.split(line)) == code
        captured = capsys.readouterr()
        return json.loads(captured.out) if code == 0 else captured.err.splitlines()[-1]

    assert "no task" in run(f"distill {mine} --json", 2)
    assert "--import MODULE brings environments of your own" in run(f"distill {mine}", 2)
    assert "no_module" in run(f"distill {mine} --import no_module", 2)
    assert "without the ending, my_floppy_module." in run(f"distill {mine} --import my_floppy_module.py", 2)
    (tmp_path / "broken_floppy_module.py").write_text("import no_such_dependency")
    assert "'no_such_dependency'): mend the module." in run(f"distill {mine} --import broken_floppy_module", 2)
    assert run("baseline gymnasium/my_floppy_module:MineFromModule-v0 --method random --episodes 4 --json")["score"]
    made = run(f"distill {mine} {QUICK_RUN} --examples 2 --json")
    assert made["task"] == mine
    assert made["dataset"].startswith("runs/gymnasium-MineFromModule-v0")
    line = f"evaluate {made['dataset']} --import my_floppy_module --learners 2 --episodes 3 --json"
    assert run(line)["distributions"]["card"]["episodes"] == 3
    assert run(f"train {made['dataset']} --import my_floppy_module --json")["learners"] == 1
    assert run(f"show {made['dataset']} --json")["card"]["task"] == mine
    score = run(f"baseline {mine} --import my_floppy_module --method random --episodes 400 --json")["score"]
    assert abs(score["mean"] - 0.5) < 0.1
    listed = run("tasks --import my_floppy_module --json")["tasks"]
    assert {"task": mine, "short_name": None} in listed
    error = run(f"distill gymnasium/BrokenFromModule-v0 {QUICK_RUN}", 2)
    assert error.startswith("floppy: gymnasium/BrokenFromModule-v0 raised an error when stepped")
    assert not (tmp_path / "runs/gymnasium-BrokenFromModule-v0-k16-seed0").exists()


# --- MuJoCo ---


@pytest.mark.thorough
@NEEDS_MUJOCO
def test_mujoco_is_played_and_learnt_from() -> None:
    task: Any = make_task("gymnasium/InvertedPendulum-v5")
    assert task.actions == Continuous(1, (-3.0,), (3.0,))
    assert task.observation_shape == (4,)
    assert task.max_steps == 1000
    outer = PPMO(learners=2, environments=2, horizon=16, minibatch_size=64, epochs=1, normalise_observations=True)
    run = DistillConfig(
        task.task_id, outer=outer, outer_steps=2, evaluate_every=2, distribution=LEARNERS,
        selection_learners=2, score_learners=2, score_episodes=2,
    )  # fmt: skip
    score = distill(run, progress=False).dataset.card.score
    assert score is not None
    assert 1.0 <= score["mean"] <= 1000.0
    assert make_task("gymnasium/Hopper-v4").observation_shape == (11,)
