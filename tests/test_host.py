"""Host tasks: Gymnasium environments as tasks, played and learnt from in live environments."""

import dataclasses
import importlib.util
import json
import shlex
from pathlib import Path
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_environments import FAULTS, PREFIX, UNFIT
from probes import SMALL, hand_policies, task_refusal

from floppy.arena import ON_DEVICE, HostArena, open_arena
from floppy.cli import main
from floppy.dataset import load
from floppy.distill import DistillConfig, distill
from floppy.errors import FloppyError
from floppy.evaluate import evaluate, evaluate_random
from floppy.host import Row, _seeds, collect, play, random_observations
from floppy.learners import Network
from floppy.normalise import RunningStatistics, init_statistics, update_statistics
from floppy.outer import PPMO, HaDES
from floppy.rollout import NetworkPolicy, Trajectory
from floppy.tasks import Continuous, Discrete, FaultyEnvironmentError, HostTask, JaxTask, list_tasks, make_task
from floppy.tasks.registry import FAMILIES, register

pytestmark = pytest.mark.usefixtures("quick_compile", "compiled_once")

KEY = jax.random.key(0)
NEEDS_MUJOCO = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mujoco", "imageio"))), reason="needs pip install 'floppy[mujoco]'"
)
ALWAYS = 100.0


def probe(name: str) -> Any:
    return make_task(f"gymnasium/{PREFIX}{name}-v0")


def constant(task: Any, *biases: list[float]) -> tuple[Network, Any]:
    """One policy per bias, which looks at nothing."""
    (size,) = task.observation_shape
    return hand_policies(task, np.zeros((len(biases), size, task.actions.size)), biases)


def start(task: HostTask, count: int, seed: int = 0) -> Row:
    row = Row(task, count, training=True)
    row.reset(np.arange(seed, seed + count))
    return row


# --- tasks ---


@pytest.mark.parametrize(
    ("name", "shape", "actions", "steps"),
    [
        ("Sign", (1,), Discrete(2), 20),
        ("Target", (2,), Continuous(2, (-1.0, -2.0), (1.0, 2.0)), 20),
        ("Image", (4, 3, 2), Discrete(2), 20),
        ("TimeLimit", (2,), Discrete(2), 5),
    ],
)
def test_a_task_says_what_the_environment_is(name: str, shape: Any, actions: Any, steps: int) -> None:
    task = probe(name)
    assert task.task_id == f"gymnasium/{PREFIX}{name}-v0"
    assert (task.observation_shape, task.actions, task.max_steps) == (shape, actions, steps)
    assert (task.max_return, task.package) == (None, "gymnasium")
    assert isinstance(task, HostTask)
    assert not isinstance(task, JaxTask)
    assert task == probe(name)
    assert hash(task) == hash(probe(name))


def test_a_jax_task_is_no_host_task() -> None:
    task = make_task("cartpole")
    assert isinstance(task, JaxTask)
    assert not isinstance(task, HostTask)
    with open_arena(task) as arena:
        assert arena is ON_DEVICE


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("DictObservation", "observations of space Dict"),
        ("DiscreteObservation", "observations of space Discrete"),
        ("MultiDiscrete", "actions of space MultiDiscrete"),
        ("Unbounded", "without finite real bounds"),
        ("WholeNumbers", "without finite real bounds"),
        ("Fixed", "bounds that differ"),
        ("Endless", "no time limit.*max_episode_steps"),
    ],
)
def test_unfit_environments_are_refused(name: str, wanted: str) -> None:
    assert {*UNFIT, "Endless"} >= {name}
    message = task_refusal(f"gymnasium/{PREFIX}{name}-v0")
    assert name in message
    with pytest.raises(FloppyError, match=wanted):
        probe(name)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("CartPol-v1", "did you mean gymnasium/CartPole-v1"),
        ("", "`floppy tasks`"),
        ("no_such_module:X-v0", "no_such_module"),
        ("GymV21Environment-v0", "could not be made"),
    ],
)
def test_unknown_environments_are_refused(name: str, wanted: str) -> None:
    assert wanted in task_refusal(f"gymnasium/{name}")


def test_a_missing_mujoco_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("MuJoCo is not installed")

    monkeypatch.setattr(gymnasium, "make", make)
    assert "pip install 'floppy[mujoco]'" in task_refusal("gymnasium/Swimmer-v5")


def test_environments_of_ones_own_are_listed_and_families_registered() -> None:
    assert {"gymnasium/CartPole-v1", f"gymnasium/{PREFIX}Sign-v0"} <= set(list_tasks())
    assert "gymnasium/FrozenLake-v1" not in list_tasks()
    try:
        register("mine", lambda rest: probe(rest))
        assert make_task("mine/Sign") == probe("Sign")
        for prefix in ("mine", "brax"):
            with pytest.raises(FloppyError, match="already"):
                register(prefix, probe)
        with pytest.raises(FloppyError, match="prefix"):
            register("a/b", probe)
    finally:
        FAMILIES.pop("mine", None)


# --- collecting ---


@pytest.mark.parametrize(("name", "length"), [("TimeLimit", 5), ("Termination", 3), ("Reuse", 5)])
def test_no_transition_crosses_the_border_of_an_episode(name: str, length: int) -> None:
    task = probe(name)
    network, weights = constant(task, [0.0, 0.0], [0.0, 0.0])
    row = start(task, 6)
    first = collect(row, network, weights, KEY, steps=7)
    second = collect(row, network, weights, KEY, steps=6)
    both = jax.tree.map(lambda *parts: np.concatenate(parts), first, second)
    steps = np.arange(13)
    for learner, environment in np.ndindex(2, 3):
        own = jax.tree.map(lambda leaf, at=(learner, environment): leaf[:, *at], both)
        np.testing.assert_array_equal(own.observations[:, 0], steps % length)
        np.testing.assert_array_equal(own.next_observations[:, 0], steps % length + 1)
        np.testing.assert_array_equal(own.next_observations[:, 1], steps // length)
        ended = steps % length == length - 1
        np.testing.assert_array_equal(own.terminated, ended & (name == "Termination"))
        np.testing.assert_array_equal(own.truncated, ended & (name != "Termination"))
        np.testing.assert_array_equal(own.final_returns, ended * length * (length + 1) / 2)
    assert first.observations.dtype == first.rewards.dtype == np.float32
    assert both.actions.shape == (13, 2, 3)


def test_collecting_equals_a_plain_loop() -> None:
    task: Any = make_task("gymnasium/CartPole-v1")
    network = Network(SMALL, task.observation_shape, task.actions)
    weights = jax.vmap(network.init)(jax.random.split(KEY, 2))
    trajectory = collect(start(task, 6), network, weights, KEY, steps=60)
    assert trajectory.terminated.sum() > 6
    for learner, place in np.ndindex(2, 3):
        own: Trajectory = jax.tree.map(lambda leaf, at=(learner, place): leaf[:, *at], trajectory)
        environment = gymnasium.make("CartPole-v1")
        observation, _ = environment.reset(seed=3 * learner + place)
        total = 0.0
        for time in range(60):
            np.testing.assert_array_equal(own.observations[time], observation)
            observation, reward, terminated, truncated, _ = environment.step(int(own.actions[time]))
            total += float(reward)
            np.testing.assert_array_equal(own.next_observations[time], observation)
            assert (own.terminated[time], own.truncated[time]) == (terminated, truncated)
            assert own.final_returns[time] == (total if terminated or truncated else 0.0)
            if terminated or truncated:
                (observation, _), total = environment.reset(), 0.0
        outputs = network.apply(jax.tree.map(lambda leaf, i=learner: leaf[i], weights), own.observations)
        np.testing.assert_allclose(own.outputs, outputs, rtol=1e-4, atol=1e-5)


def test_continuous_actions_are_recorded_as_sampled_and_taken_clipped() -> None:
    task = probe("Target")
    network, weights = constant(task, [5.0, 0.0])
    trajectory = collect(start(task, 8), network, weights, KEY, steps=30)
    actions = trajectory.actions
    assert actions.shape == (30, 1, 8, 2)
    assert actions.max() > 2.0
    wanted = -((np.clip(actions, [-1, -2], [1, 2]) - [0.5, -0.5]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(trajectory.rewards, wanted, rtol=1e-4, atol=1e-5)


def test_actions_never_leave_bounds_that_float32_rounds() -> None:
    task = probe("Narrow")
    network, weights = constant(task, [-5.0])
    rewards = collect(start(task, 4), network, weights, KEY, steps=5).rewards
    np.testing.assert_allclose(rewards, -0.1, rtol=1e-6)


def test_policies_see_bytes_as_parts_of_one() -> None:
    task = probe("Image")
    network = Network(SMALL, task.observation_shape, task.actions)
    weights = jax.vmap(network.init)(jax.random.split(KEY, 1))
    trajectory = collect(start(task, 2), network, weights, KEY, steps=2)
    assert trajectory.observations.dtype == np.uint8
    seen = np.arange(24, dtype=np.float32).reshape(1, 4, 3, 2) / 255
    wanted = network.apply(jax.tree.map(lambda leaf: leaf[0], weights), seen)[0]
    np.testing.assert_allclose(trajectory.outputs[0, 0], np.stack([wanted] * 2), rtol=1e-4, atol=1e-5)


def test_policies_see_normalised_observations() -> None:
    task = probe("Sign")
    network, weights = hand_policies(task, [[[0.0, 1.0]]], [[0.0, 0.0]])
    statistics = RunningStatistics(jnp.ones(()), jnp.array([1.0]), jnp.array([4.0]))
    trajectory = collect(start(task, 30), network, weights, KEY, steps=2, statistics=statistics)
    assert set(trajectory.observations.ravel()) == {-1.0, 1.0}
    np.testing.assert_allclose(
        trajectory.outputs[..., 1], np.tanh((trajectory.observations[..., 0] - 1.0) / 2.0), atol=1e-6
    )


# --- complete episodes ---


def test_episodes_equal_a_plain_loop() -> None:
    task: Any = make_task("gymnasium/CartPole-v1")
    network = Network(SMALL, task.observation_shape, task.actions)
    weights = jax.vmap(network.init)(jax.random.split(KEY, 3))
    weights = weights._replace(layers=jax.tree.map(lambda leaf: 5 * leaf, weights.layers))
    keys = jax.random.split(KEY, 3)
    played = HostArena().play_episodes(task, network, weights, keys, episodes=4, greedy=True)
    seeds = np.asarray(_seeds(keys, (3, 4))).reshape(3, 4)
    assert len(np.unique(seeds)) == 12
    wanted = np.zeros((3, 4))
    apply = jax.jit(network.apply)
    for learner, place in np.ndindex(3, 4):
        own = jax.tree.map(lambda leaf, i=learner: leaf[i], weights)
        environment, ended = gymnasium.make("CartPole-v1"), False
        observation, _ = environment.reset(seed=int(seeds[learner, place]))
        while not ended:
            action = int(np.argmax(apply(own, observation[None])[0]))
            observation, reward, terminated, truncated, _ = environment.step(action)
            wanted[learner, place] += float(reward)
            ended = terminated or truncated
    np.testing.assert_array_equal(played.returns, wanted)
    np.testing.assert_array_equal(played.steps, wanted)
    assert len(np.unique(wanted)) > 3, "the episodes are too much alike to tell anything"


@pytest.mark.parametrize("width", [1, 4, 7])
def test_every_environment_plays_its_share_however_short_its_episodes_are(width: int) -> None:
    task = probe("Length")
    network, weights = constant(task, [0.0, 0.0], [0.0, 0.0])
    keys, row = jax.random.split(KEY, 2), Row(task, 2 * width, training=False)
    played = play(row, NetworkPolicy(network), weights, keys, (2, width), episodes=28)
    wanted = []
    for seed in np.asarray(_seeds(keys, (2, width))):
        random, _ = gymnasium.utils.seeding.np_random(int(seed))
        wanted.append([int(random.integers(1, 10)) for _ in range(28 // width)])
    np.testing.assert_array_equal(played.returns, np.reshape(wanted, (2, 28)))
    np.testing.assert_array_equal(played.steps, played.returns)


@pytest.mark.parametrize(("name", "length"), [("TimeLimit", 5), ("Termination", 3)])
def test_an_environment_plays_several_episodes_in_turn(name: str, length: int) -> None:
    network, weights = constant(probe(name), [0.0, 0.0])
    row = Row(probe(name), 2, training=False)
    played = play(row, NetworkPolicy(network), weights, KEY[None], (1, 2), episodes=6)
    np.testing.assert_array_equal(played.returns, np.full((1, 6), length * (length + 1) / 2))
    np.testing.assert_array_equal(played.steps, np.full((1, 6), length))


def test_uneven_shares_leave_the_last_ones_out() -> None:
    network, weights = constant(probe("Length"), [0.0, 0.0])
    row = Row(probe("Length"), 4, training=False)
    many, few = (play(row, NetworkPolicy(network), weights, KEY[None], (1, 4), episodes=n).returns[0] for n in (12, 10))
    np.testing.assert_array_equal(many[:10], few)


def test_the_environments_that_are_done_rest() -> None:
    task = probe("Length")
    row = Row(task, 3, training=False)
    row.reset(np.arange(3), episodes=2)
    for _ in range(30):
        row.step(np.zeros(3, int))
    before = row.observations
    step = row.step(np.zeros(3, int))
    np.testing.assert_array_equal(step.rewards, 0.0)
    np.testing.assert_array_equal(row.observations, before)
    row.reset(np.arange(3))
    assert row.step(np.zeros(3, int)).rewards.all()


def test_an_episode_can_be_cut() -> None:
    network, weights = constant(probe("TimeLimit"), [0.0, 0.0])
    played = HostArena().play_episodes(probe("TimeLimit"), network, weights, KEY[None], episodes=3, most_steps=2)
    np.testing.assert_array_equal(played.returns, [[3.0, 3.0, 3.0]])
    np.testing.assert_array_equal(played.steps, [[2, 2, 2]])


def test_learners_that_share_a_key_meet_the_same() -> None:
    task = probe("Length")
    network, weights = constant(task, *[[0.0, 0.0]] * 4)
    returns = HostArena().play_episodes(task, network, weights, jax.random.split(KEY, 2), episodes=6).returns
    np.testing.assert_array_equal(returns[:2], returns[2:])
    assert np.any(returns[0] != returns[1])


def test_moments_are_of_the_observations_acted_upon() -> None:
    task = probe("Length")
    network, weights = constant(task, [0.0, 0.0])
    statistics = init_statistics((2,))
    played = HostArena().play_episodes(task, network, weights, KEY[None], episodes=20, statistics=statistics)
    assert played.moments is not None
    lengths = np.asarray(played.returns[0])
    assert float(played.moments.total[0]) == lengths.sum()
    np.testing.assert_allclose(
        played.moments.first[0], [(lengths**2).sum(), (lengths * (lengths - 1) / 2).sum()], rtol=1e-5
    )


def test_a_policy_that_diverged_is_not_the_environments_fault() -> None:
    task = probe("Target")
    network, weights = constant(task, [0.5, -0.5], [np.nan, 0.0])
    returns = (
        HostArena().play_episodes(task, network, weights, jax.random.split(KEY, 2), episodes=3, greedy=True).returns
    )
    np.testing.assert_allclose(returns[0], 0.0, atol=1e-6)
    assert np.all(np.isnan(returns[1]))


def test_random_play_takes_every_action_equally_often() -> None:
    score = evaluate_random(probe("Echo"), episodes=2000)
    assert (score.learners, score.episodes) == (1, 2000)
    assert abs(score.mean - 2.0) < 4 * np.sqrt(2.0 / 2000)
    with open_arena(probe("Echo")) as arena:
        returns = arena.play_random(probe("Echo"), KEY, 1000).returns
    assert returns.shape == (1, 1000)
    np.testing.assert_array_equal(np.unique(returns), np.arange(5))


def test_random_observations_come_from_everywhere_in_episodes() -> None:
    row = Row(probe("TimeLimit"), 4, training=False)
    met = random_observations(row, KEY, 300)
    assert met.shape == (300, 2)
    np.testing.assert_array_equal(np.unique(met[:, 0]), np.arange(5))
    assert random_observations(row, KEY, 1000).shape == (1000, 2)
    np.testing.assert_array_equal(met[:, 0], random_observations(row, KEY, 300)[:, 0])


# --- distilling ---


LEARNERS = "width=16:depth=1:initialiser=xavier"


def config(name: str = "Sign", **changes: Any) -> DistillConfig:
    values: dict[str, Any] = {
        "outer_steps": 60,
        "distribution": LEARNERS,
        "evaluate_every": 20,
        "selection_learners": 4,
        "outer": PPMO(learners=4, environments=4, horizon=8, epochs=2, minibatch_size=64, rate=0.05),
    }
    return DistillConfig(f"gymnasium/{PREFIX}{name}-v0", **(values | changes))


HADES = HaDES(population=16, initialisations=2, environments=2, sigma=0.5, rate=0.2)
PLAIN = {"examples": 0, "encoder_layers": 2}


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="ppmo"),
        pytest.param(PLAIN, id="plain ppo"),
        pytest.param({"outer": HADES, "outer_steps": 15, "evaluate_every": 5}, id="hades"),
        pytest.param(PLAIN | {"outer": HADES, "outer_steps": 15, "evaluate_every": 5}, id="neuroevolution"),
    ],
)
def test_a_probe_is_solved(changes: dict[str, Any]) -> None:
    result = distill(config(**changes))
    assert result.finished
    assert result.dataset.card.score is not None
    assert result.dataset.card.score["mean"] > 0.9, "random actions earn 0.5"
    outer = result.dataset.card.algorithm["config"]["outer"]
    per_step = 4 * 4 * 8 if outer["kind"] == "PPMO" else 16 * 2 * 2
    assert result.env_steps == result.outer_steps * per_step


def test_the_same_seed_gives_the_same_dataset_and_another_one_another() -> None:
    short = config("Length", outer_steps=4, evaluate_every=2)
    first, again, other = (distill(c).dataset for c in (short, short, dataclasses.replace(short, seed=1)))
    assert first.card == again.card
    for name, tensor in first.numpy().items():
        assert tensor.tobytes() == again.numpy()[name].tobytes()
    assert first.observations.tobytes() != other.observations.tobytes()


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


def test_chunks_change_nothing() -> None:
    datasets = [
        distill(config("Sign", outer=dataclasses.replace(HADES, chunk=chunk), outer_steps=2, evaluate_every=2)).dataset
        for chunk in (0, 5)
    ]
    np.testing.assert_allclose(datasets[0].observations, datasets[1].observations, rtol=1e-4, atol=1e-5)


def test_a_mixture_of_learners_plays_in_rows_of_its_own() -> None:
    run = config("TimeLimit", distribution=f"{LEARNERS},width=8:depth=1:initialiser=xavier")
    problem, arena = run.problem(), HostArena()
    state = run.outer.init(problem, KEY, arena)
    assert [int(ticket.number) for ticket in state.environments] == [0, 1]
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


def test_a_run_can_be_resumed_and_closes_its_environments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr(Row, "close", lambda row: closed.append(row.count))
    whole = config("Length", outer_steps=6, evaluate_every=2)
    stopped = distill(whole, tmp_path / "run", time_limit=1e-9)
    assert not stopped.finished
    assert {16, 8} <= set(closed)  # for collecting and for selecting
    resumed = distill(whole, tmp_path / "run", resume=True)
    assert resumed.finished
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 7))
    assert resumed.env_steps == 6 * 4 * 4 * 8


def test_a_resumed_run_begins_new_episodes_with_nothing_earned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    carried = []

    def noted(outer: PPMO, state: Any, trajectories: Any) -> Any:
        jax.debug.callback(lambda x: carried.append(np.asarray(x)), state.discounted[0])
        return scale(outer, state, trajectories)

    scale = PPMO._scale_rewards
    monkeypatch.setattr(PPMO, "_scale_rewards", noted)
    outer = dataclasses.replace(config().outer, normalise_rewards=True, horizon=3)
    whole = config("Length", outer_steps=4, evaluate_every=2, outer=outer)
    distill(whole, tmp_path / "run", time_limit=1e-9)
    distill(whole, tmp_path / "run", resume=True)
    jax.effects_barrier()
    assert [bool(before.any()) for before in carried] == [False, False, True, True]


def test_a_run_out_of_time_ends_after_the_step_that_it_is_in(tmp_path: Path) -> None:
    """Steps of a host task may take long, and evaluations be far apart; they come when they would have come."""
    whole = config("Length", outer_steps=7, evaluate_every=5)
    assert distill(whole, tmp_path / "run", time_limit=1e-9).outer_steps == 1
    assert distill(whole, tmp_path / "run", resume=True).finished
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "selection_score" in line] == [1, 5, 7]


# --- faults ---


SAID = {
    "reset": r"raised an error when stepped \(RuntimeError: the cable is out\)",  # the next episode starts in the step
    "step": r"raised an error when stepped \(KeyError: 'joint'\)",
    "exit": r"raised an error when stepped \(SystemExit: 3\)",
    "shape": r"observation of shape \(3,\).*\(2,\)",
    "nan": "NaN as its observation",
    "infinite": "infinite value as its reward",
    "nan reward": "NaN as its reward",
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_said_in_a_sentence(fault: str) -> None:
    task = probe("Faulty-" + fault.replace(" ", "-"))
    row = start(task, 3)
    for _ in range(40):
        row.step(np.ones(3, int))
    with pytest.raises(FaultyEnvironmentError, match=SAID[fault]) as caught:
        row.step(np.ones(3, int))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(task.task_id)
    assert message.endswith(": repair the environment.")


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


def test_a_fault_at_once_leaves_the_first_dataset(tmp_path: Path) -> None:
    with pytest.raises(FaultyEnvironmentError, match=r"after outer step 0.*latest dataset, never evaluated, is "):
        distill(config("FaultyAtOnce"), tmp_path)
    assert load(tmp_path / "dataset.safetensors").examples == 2
    with pytest.raises(FaultyEnvironmentError, match="after outer step 0"):
        distill(config("FaultyAtOnce"), tmp_path, resume=True)


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
    assert (tmp_path / "runs/gymnasium-BrokenFromModule-v0-k16-seed0/dataset.safetensors").exists()


# --- MuJoCo ---


@NEEDS_MUJOCO
def test_mujoco_is_played_and_learnt_from() -> None:
    task: Any = make_task("gymnasium/InvertedPendulum-v5")
    assert task.actions == Continuous(1, (-3.0,), (3.0,))
    assert task.observation_shape == (4,)
    assert task.max_steps == 1000
    outer = PPMO(learners=2, environments=2, horizon=16, normalise_observations=True)
    run = DistillConfig(
        task.task_id, outer=outer, outer_steps=2, evaluate_every=2, selection_learners=2, distribution=LEARNERS
    )
    result = distill(run)
    score = evaluate(result.dataset, distributions=["card"], learners=2, episodes=2)["card"]
    assert 1.0 <= score.mean <= 1000.0
    assert make_task("gymnasium/Hopper-v4").observation_shape == (11,)
