"""Host tasks: Gymnasium environments as tasks, played and learnt from in live environments."""

import importlib.util
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from host_environments import FAULTS, PREFIX, SAID, UNFIT, probe
from probes import SMALL, hand_policies, task_refusal

from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_random
from floppy.learner.mlp import LayeredNetwork
from floppy.play import host, open_arena
from floppy.play.acting import NetworkPolicy
from floppy.play.arena import Played, Trajectory
from floppy.play.device import ON_DEVICE
from floppy.play.host import HostArena, HostEnvironments, _decide, _seeds, collect, play, random_observations
from floppy.play.normalise import RunningStatistics, init_statistics
from floppy.tasks import Continuous, Discrete, FaultyEnvironmentError, HostTask, JaxTask, list_tasks, make_task
from floppy.tasks.registry import FAMILIES, register

pytestmark = pytest.mark.usefixtures("compiled_once")

KEY = jax.random.key(0)
NEEDS_MUJOCO = pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ("mujoco", "imageio"))), reason="needs pip install 'floppy-rl[mujoco]'"
)
ALWAYS = 100.0


def constant(task: Any, *biases: list[float]) -> tuple[LayeredNetwork, Any]:
    """One policy per bias, which looks at nothing."""
    (size,) = task.observation_shape
    return hand_policies(task, np.zeros((len(biases), size, task.actions.size)), biases)


def start(task: HostTask, count: int, seed: int = 0) -> HostEnvironments:
    row = HostEnvironments(task, count, training=True)
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
        ("SequenceObservation", "observations of space Sequence, which cannot be flattened"),
        ("GraphObservation", "observations of space Graph, which cannot be flattened"),
        ("NestedSequence", "observations of space Dict, which cannot be flattened"),
        ("OwnSpace", "observations of space OwnSpace, which cannot be flattened"),
        ("NoObservation", "observations of 0 numbers"),
        ("HugeObservation", "observations of 1000000000000 numbers.*16777216"),
        ("MultiDiscrete", "actions of space MultiDiscrete.*one number per combination"),
        ("ManyActions", "1000000000 discrete actions.*65536"),
        ("MultiBinary", "actions of space MultiBinary.*one number per combination"),
        ("Unbounded", "without finite real bounds"),
        ("Huge", r"from \[-1e\+300\] to \[1e\+300\], which must be from -1e\+30 to 1e\+30"),
        ("NearlyHuge", r"which must be from -1e\+30 to 1e\+30"),
        ("Close", "which must be further apart, in float32 they are equal"),
        ("WholeNumbers", "without finite real bounds"),
        ("Fixed", "bounds that differ"),
        ("Endless", "no time limit.*--max-episode-steps N"),
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


@pytest.mark.parametrize(("extra", "name"), [("mujoco", "Swimmer-v5"), ("box2d", "BipedalWalker-v3")])
def test_a_missing_package_is_named(extra: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(*_: Any, **__: Any) -> None:
        raise gymnasium.error.DependencyNotInstalled("it is not installed")

    monkeypatch.setattr(gymnasium, "make", make)
    assert f"pip install 'floppy-rl[{extra}]'" in task_refusal(f"gymnasium/{name}")


def test_environments_of_ones_own_are_listed_and_families_registered() -> None:
    assert {"gymnasium/CartPole-v1", f"gymnasium/{PREFIX}Sign-v0"} <= set(list_tasks())
    assert "gymnasium/FrozenLake-v1" in list_tasks()
    assert "gymnasium/Blackjack-v1" not in list_tasks(), "it has no time limit"
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


@pytest.mark.slow
def test_collecting_equals_a_plain_loop() -> None:
    task: Any = make_task("gymnasium/CartPole-v1")
    network = LayeredNetwork(SMALL, task.observation_shape, task.actions)
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 2))
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


@pytest.mark.slow
def test_policies_see_bytes_as_parts_of_one() -> None:
    task = probe("Image")
    network = LayeredNetwork(SMALL, task.observation_shape, task.actions)
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 1))
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


@pytest.mark.slow
def test_episodes_equal_a_plain_loop() -> None:
    task: Any = make_task("gymnasium/CartPole-v1")
    network = LayeredNetwork(SMALL, task.observation_shape, task.actions)
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 3))
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


@pytest.mark.parametrize("own_statistics", [False, True])
@pytest.mark.parametrize(("learners", "seats_wanted"), [(8, {8, 4, 2}), (7, {7, 3, 1})])
def test_learners_who_are_done_are_no_longer_computed(
    monkeypatch: pytest.MonkeyPatch, learners: int, seats_wanted: set[int], *, own_statistics: bool
) -> None:
    task: Any = make_task("gymnasium/CartPole-v1")
    network = LayeredNetwork(SMALL, task.observation_shape, task.actions)
    weights = jax.vmap(network.init)(jax.random.split(KEY, learners))
    seats: list[int] = []

    def decide(*given: Any) -> Any:
        seats.append(given[4].shape[0])
        return _decide(*given)

    def played() -> Played:
        options: Any = {"statistics": init_statistics((4,)), "per_evaluation_stats": own_statistics}
        keys = jax.random.split(KEY, 4 if learners == 8 else learners)
        return HostArena().play_episodes(task, network, weights, keys, episodes=2, **options)

    monkeypatch.setattr(host, "_decide", decide)
    plain = played()
    assert set(seats) == {learners}, "small observations are worth no compiling"
    seats.clear()
    monkeypatch.setattr(host, "LARGE_OBSERVATION", 1)
    fewer = played()
    assert seats == sorted(seats, reverse=True)
    assert seats_wanted <= set(seats)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), fewer, plain)


@pytest.mark.parametrize("width", [1, 4, 7])
def test_every_environment_plays_its_share_however_short_its_episodes_are(width: int) -> None:
    task = probe("Length")
    network, weights = constant(task, [0.0, 0.0], [0.0, 0.0])
    keys, row = jax.random.split(KEY, 2), HostEnvironments(task, 2 * width, training=False)
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
    row = HostEnvironments(probe(name), 2, training=False)
    played = play(row, NetworkPolicy(network), weights, KEY[None], (1, 2), episodes=6)
    np.testing.assert_array_equal(played.returns, np.full((1, 6), length * (length + 1) / 2))
    np.testing.assert_array_equal(played.steps, np.full((1, 6), length))


def test_uneven_shares_leave_the_last_ones_out() -> None:
    network, weights = constant(probe("Length"), [0.0, 0.0])
    row = HostEnvironments(probe("Length"), 4, training=False)
    many, few = (play(row, NetworkPolicy(network), weights, KEY[None], (1, 4), episodes=n).returns[0] for n in (12, 10))
    np.testing.assert_array_equal(many[:10], few)


def test_the_environments_that_are_done_rest() -> None:
    task = probe("Length")
    row = HostEnvironments(task, 3, training=False)
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
    played = HostArena().play_episodes(probe("TimeLimit"), network, weights, KEY[None], episodes=3, max_episode_steps=2)
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


@pytest.mark.parametrize("bias", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["host", "device"])
def test_a_policy_that_diverged_is_seen_where_actions_are_discrete(name: str, bias: float) -> None:
    task = probe("Echo") if name == "host" else make_task("ndcartpole/1")
    biases = np.zeros((2, task.actions.size))
    biases[1, 0] = bias
    network, weights = constant(task, *biases)
    with open_arena(task) as arena:
        returns = arena.play_episodes(task, network, weights, jax.random.split(KEY, 2), episodes=3).returns
    np.testing.assert_array_equal(np.isnan(returns), [[False] * 3, [True] * 3])


@pytest.mark.slow
def test_random_play_takes_every_action_equally_often() -> None:
    score = evaluate_random(probe("Echo"), episodes=2000)
    assert (score.learners, score.episodes) == (1, 2000)
    assert abs(score.mean - 2.0) < 4 * np.sqrt(2.0 / 2000)
    with open_arena(probe("Echo")) as arena:
        returns = arena.play_random(probe("Echo"), KEY, 1000).returns
    assert returns.shape == (1, 1000)
    np.testing.assert_array_equal(np.unique(returns), np.arange(5))


@pytest.mark.slow
def test_random_observations_come_from_everywhere_in_episodes() -> None:
    row = HostEnvironments(probe("TimeLimit"), 4, training=False)
    met = random_observations(row, KEY, 300)
    assert met.shape == (300, 2)
    np.testing.assert_array_equal(np.unique(met[:, 0]), np.arange(5))
    assert random_observations(row, KEY, 1000).shape == (1000, 2)
    np.testing.assert_array_equal(met[:, 0], random_observations(row, KEY, 300)[:, 0])


# --- faults ---


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
