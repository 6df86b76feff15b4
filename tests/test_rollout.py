"""Playing policies: what is recorded, where episodes end and go on, and whose weights act."""

import dataclasses
import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.typing import ArrayLike
from probes import (
    SMALL,
    TWO_ACTIONS,
    ActionProbe,
    ContinuousProbe,
    DelayProbe,
    ObservationProbe,
    ProbeState,
    TimeLimitProbe,
    hand_policies,
    start,
    transition,
)

from floppy.keys import named_key
from floppy.learner.mlp import LayeredNetwork
from floppy.play.arena import Arena, EpisodicArena
from floppy.play.device import ON_DEVICE, DeviceArena, Environments, collect, start_environments
from floppy.play.host import HostArena
from floppy.play.images import ImageArena
from floppy.play.normalise import RunningStatistics
from floppy.tasks import Continuous, Discrete, JaxTask, Transition
from floppy.tasks.ndcartpole import NDCartPole

KEY = jax.random.key(0)
ALWAYS = 50.0
"""A logit that makes its action certain."""


def constant(task: JaxTask, *outputs: ArrayLike) -> Any:
    """One policy per row of `outputs`, each with the same output for every observation."""
    biases = np.asarray(outputs, np.float32)
    size = int(np.prod(task.observation_shape))
    return hand_policies(task, np.zeros((len(biases), size, task.actions.size)), biases)


quick_episodes = jax.jit(ON_DEVICE.play_episodes, static_argnames=("task", "network", "episodes", "greedy"))
quick_collect = jax.jit(collect, static_argnames=("task", "network", "steps"))


def play(task: JaxTask, policies: Any, environments: Environments, steps: int, **options: Any) -> Any:
    """`collect`, quick to compile and with a key of its own."""
    network, weights = policies
    return quick_collect(task, network, weights, environments, named_key(KEY, f"play {steps}"), steps=steps, **options)


# --- collect ---


@pytest.mark.parametrize("kind", [EpisodicArena, DeviceArena, HostArena, ImageArena])
def test_arenas_take_what_their_contract_says(kind: type) -> None:
    def parameters(method: Any) -> list[tuple[str, Any]]:
        return [(each.name, each.default) for each in inspect.signature(method).parameters.values()]

    own = [name for name in vars(Arena) if not name.startswith("_") and inspect.isfunction(getattr(kind, name, None))]
    assert "play_episodes" in own
    for name in own:
        assert parameters(getattr(kind, name)) == parameters(getattr(Arena, name)), name


@pytest.mark.slow
def test_an_episodes_end_is_recorded_before_the_reset() -> None:
    task = DelayProbe()
    _, trajectory = play(task, constant(task, [0.0, ALWAYS]), start_environments(task, KEY, 1, 1), 5)
    at_start, at_second = [1.0, 0.0], [0.0, 1.0]
    wanted = [at_start, at_second, at_start, at_second, at_start]
    np.testing.assert_array_equal(trajectory.observations[:, 0, 0], wanted)
    np.testing.assert_array_equal(trajectory.next_observations[:, 0, 0], [at_second] * 5)
    np.testing.assert_array_equal(trajectory.actions[:, 0, 0], np.ones(5))
    np.testing.assert_array_equal(trajectory.rewards[:, 0, 0], [0, 1, 0, 1, 0])
    np.testing.assert_array_equal(trajectory.terminated[:, 0, 0], [False, True, False, True, False])
    np.testing.assert_array_equal(trajectory.final_returns[:, 0, 0], [0, 1, 0, 1, 0])
    assert not np.any(trajectory.truncated)


@pytest.mark.slow
def test_episodes_go_on_across_calls() -> None:
    task = TimeLimitProbe(max_steps=5)
    policies = constant(task, [0.0, ALWAYS])
    environments, first = play(task, policies, start_environments(task, KEY, 1, 2), 3)
    assert not np.any(first.truncated)
    np.testing.assert_array_equal(environments.states.time, [[3, 3]])
    np.testing.assert_array_equal(environments.returns, [[3.0, 3.0]])
    environments, second = play(task, policies, environments, 4)
    for column in range(2):
        np.testing.assert_array_equal(second.truncated[:, 0, column], [False, True, False, False])
        np.testing.assert_array_equal(second.final_returns[:, 0, column], [0.0, 5.0, 0.0, 0.0])
    assert not np.any(second.terminated)
    np.testing.assert_array_equal(environments.states.time, [[2, 2]])
    np.testing.assert_array_equal(environments.returns, [[2.0, 2.0]])


@pytest.mark.slow
def test_only_environments_at_an_end_restart() -> None:
    task = ObservationProbe()
    indifferent = constant(task, [0.0, 0.0], [0.0, 0.0])
    environments, trajectory = play(task, indifferent, start_environments(task, KEY, 2, 50), 20)
    # Every episode lasts one step, so each observation is a fresh cue: about half of each sign, no two columns alike.
    cues = np.asarray(trajectory.observations[..., 0])
    assert np.isin(cues, [-1.0, 1.0]).all()
    assert abs(cues.mean()) < 0.1
    assert len(np.unique(cues.reshape(20, -1), axis=1).T) == 100
    np.testing.assert_array_equal(trajectory.next_observations, trajectory.observations)
    wanted = np.where(cues > 0, 1, 0) == np.asarray(trajectory.actions)
    np.testing.assert_array_equal(trajectory.rewards, wanted)
    np.testing.assert_array_equal(environments.observations[..., 0], environments.states.cue)

    task = NDCartPole(1)
    indifferent = constant(task, [0.0, 0.0], [0.0, 0.0])
    trajectories = []
    environments = start_environments(task, KEY, 2, 4)
    for _ in range(2):
        environments, trajectory = play(task, indifferent, environments, 20)
        trajectories.append(trajectory)
    # The second call goes on where the first one stopped.
    trajectory = jax.tree.map(lambda *parts: np.concatenate(parts), *trajectories)
    ended = np.asarray(trajectory.terminated | trajectory.truncated)
    assert 0 < ended[:-1].sum() < ended[:-1].size / 4
    following = np.asarray(trajectory.observations)[1:]
    reached = np.asarray(trajectory.next_observations)[:-1]
    np.testing.assert_array_equal(following[~ended[:-1]], reached[~ended[:-1]])
    assert np.abs(following[ended[:-1]]).max() <= 0.05
    assert (np.abs(reached[ended[:-1]]).max(axis=1) > 0.2).all()


@pytest.mark.slow
def test_every_learner_acts_by_its_own_weights() -> None:
    task = ObservationProbe()
    kernels = np.array([[[-ALWAYS, ALWAYS]], [[ALWAYS, -ALWAYS]], [[0.0, 0.0]]])
    biases = np.array([[0.0, 0.0], [0.0, 0.0], [ALWAYS, 0.0]])
    network, weights = hand_policies(task, kernels, biases)
    _, trajectory = play(task, (network, weights), start_environments(task, KEY, 3, 8), 10)
    right = np.asarray(trajectory.observations[..., 0] > 0).astype(int)
    np.testing.assert_array_equal(trajectory.actions[:, 0], right[:, 0])
    np.testing.assert_array_equal(trajectory.actions[:, 1], 1 - right[:, 1])
    np.testing.assert_array_equal(trajectory.actions[:, 2], np.zeros((10, 8)))
    for learner in range(3):
        own = jax.tree.map(lambda leaf, learner=learner: leaf[learner], weights)
        wanted = network.apply(own, trajectory.observations[:, learner].reshape(-1, 1)).reshape(10, 8, 2)
        np.testing.assert_allclose(trajectory.outputs[:, learner], wanted, rtol=1e-5)


@pytest.mark.slow
def test_actions_are_sampled_from_the_policy() -> None:
    task = ActionProbe()
    _, trajectory = play(task, constant(task, [0.0, np.log(3.0)]), start_environments(task, KEY, 1, 200), 50)
    assert abs(float(trajectory.actions.mean()) - 0.75) < 4 * np.sqrt(0.75 * 0.25 / 10_000)


@pytest.mark.slow
def test_continuous_actions_are_recorded_as_sampled_and_reach_the_task_clipped() -> None:
    task = ContinuousProbe(target=(0.5, -0.5))
    network, weights = constant(task, [10.0, 0.0], [0.0, 1.0])
    weights = weights._replace(log_std=jnp.log(jnp.array([[0.1, 0.2], [1e-3, 1e-3]])))
    _, trajectory = play(task, (network, weights), start_environments(task, KEY, 2, 100), 20)
    actions = np.asarray(trajectory.actions)
    assert actions.shape == (20, 2, 100, 2)
    np.testing.assert_allclose(actions[:, 0].mean(axis=(0, 1)), [10.0, 0.0], atol=0.02)
    np.testing.assert_allclose(actions[:, 0].std(axis=(0, 1)), [0.1, 0.2], rtol=0.1)
    np.testing.assert_allclose(actions[:, 1].std(axis=(0, 1)), [1e-3, 1e-3], rtol=0.1)
    wanted = -((np.clip(actions, -2.0, 2.0) - [0.5, -0.5]) ** 2).sum(axis=-1)
    np.testing.assert_allclose(trajectory.rewards, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_policies_see_normalised_observations_and_the_record_keeps_raw_ones() -> None:
    task = ObservationProbe()
    network, weights = hand_policies(task, [[[0.0, 1.0]]], [[0.0, 0.0]])
    statistics = RunningStatistics(jnp.ones(()), jnp.array([1.0]), jnp.array([4.0]))
    environments = start_environments(task, KEY, 1, 30)
    _, trajectory = play(task, (network, weights), environments, 2, statistics=statistics)
    raw = np.asarray(trajectory.observations[..., 0])
    assert set(raw.ravel()) == {-1.0, 1.0}
    np.testing.assert_allclose(trajectory.outputs[..., 1], np.tanh((raw - 1.0) / 2.0), atol=1e-6)


@pytest.mark.slow
def test_the_same_key_plays_the_same_and_steps_differ() -> None:
    task = ActionProbe()
    policies = constant(task, [0.0, 0.0])
    environments = start_environments(task, KEY, 1, 64)
    _, trajectory = play(task, policies, environments, 3)
    _, again = play(task, policies, environments, 3)
    np.testing.assert_array_equal(trajectory.actions, again.actions)
    assert len(np.unique(np.asarray(trajectory.actions[:, 0]), axis=0)) == 3


# --- complete episodes ---


def starts_of(task: JaxTask, keys: jax.Array, episodes: int) -> Environments:
    """The environments in which `play_episodes` starts, for one key per learner."""
    starts = [start_environments(task, named_key(key, "start"), 1, episodes) for key in keys]
    return jax.tree.map(lambda *learners: jnp.concatenate(learners), *starts)


def plain_loop(task: JaxTask, network: LayeredNetwork, weights: Any, starts: Environments) -> np.ndarray:
    """Greedy returns `[L, E]`, one environment and one step at a time."""
    learners, environments = starts.returns.shape
    step, apply = jax.jit(task.step), jax.jit(network.apply)
    returns = np.zeros((learners, environments))
    for learner in range(learners):
        own = jax.tree.map(lambda leaf, learner=learner: leaf[learner], weights)
        for environment in range(environments):
            state, observation = jax.tree.map(
                lambda leaf, at=(learner, environment): leaf[at], (starts.states, starts.observations)
            )
            ended = False
            while not ended:
                action = jnp.argmax(apply(own, observation[None])[0])
                state, observation, reward, terminated, truncated = step(KEY, state, action)
                returns[learner, environment] += float(reward)
                ended = bool(terminated | truncated)
    return returns


@pytest.mark.slow
def test_episodes_equal_a_plain_loop() -> None:
    task = NDCartPole(2, max_steps=40)
    network = LayeredNetwork(SMALL, task.observation_shape, task.actions)
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 3))
    weights = weights._replace(layers=jax.tree.map(lambda leaf: 10 * leaf, weights.layers))
    keys = jax.random.split(KEY, 3)
    played = quick_episodes(task, network, weights, keys, episodes=4, greedy=True)
    wanted = plain_loop(task, network, weights, starts_of(task, keys, 4))
    assert played.returns.shape == (3, 4)
    np.testing.assert_array_equal(played.returns, wanted)
    assert len(np.unique(wanted)) > 3, "the episodes are too much alike to tell anything"


@dataclasses.dataclass(frozen=True)
class EarlyEndProbe(TimeLimitProbe):
    """Ends after 1 to 5 steps, known from the start, and pays 1 in every step, the end or not."""

    def reset(self, key: jax.Array) -> tuple[ProbeState, jax.Array]:
        length = jax.random.randint(key, (), 1, 6).astype(jnp.float32)
        return start(length), jnp.stack([length, length])

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key, action
        time = state.time + 1
        # True at one step only: whoever looks away there goes on for ever.
        return transition(state._replace(time=time), [time, time], 1.0, terminated=time == state.cue)


@pytest.mark.slow
def test_rewards_after_an_episodes_end_do_not_count() -> None:
    task = EarlyEndProbe(max_steps=12)
    network, weights = constant(task, [0.0, 0.0], [0.0, 0.0])
    keys = jax.random.split(KEY, 2)
    returns, steps, _ = quick_episodes(task, network, weights, keys, episodes=20)
    lengths = starts_of(task, keys, 20).states.cue
    np.testing.assert_array_equal(returns, lengths)
    np.testing.assert_array_equal(steps, lengths)
    assert set(np.unique(returns)) == {1.0, 2.0, 3.0, 4.0, 5.0}


@pytest.mark.parametrize(
    ("task", "kernel", "bias", "best"),
    [
        (ActionProbe(), [[0, 0], [0, 0]], [0, ALWAYS], 1.0),
        (ObservationProbe(), [[-ALWAYS, ALWAYS]], [0, 0], 1.0),
        (DelayProbe(), [[0, ALWAYS], [0, 0]], [0, 0], 1.0),
        (ContinuousProbe(), [[0], [0]], [0.5], 0.0),
        (TimeLimitProbe(), [[0, 0], [0, 0]], [0, ALWAYS], 5.0),
    ],
    ids=lambda value: value.task_id if isinstance(value, JaxTask) else "",
)
def test_every_probe_is_solved_by_its_known_policy(task: JaxTask, kernel: Any, bias: Any, best: float) -> None:
    network, weights = hand_policies(task, [kernel], [bias])
    played = quick_episodes(task, network, weights, KEY[None], episodes=8, greedy=True)
    np.testing.assert_allclose(played.returns, np.full((1, 8), best), atol=1e-6)
    assert task.max_return == best


@pytest.mark.slow
def test_greedy_takes_the_likeliest_action_and_sampling_does_not() -> None:
    task = ActionProbe()
    network, weights = constant(task, [0.0, 0.5])
    greedy, sampled = (
        quick_episodes(task, network, weights, KEY[None], episodes=4000, greedy=greedy).returns
        for greedy in (True, False)
    )
    assert float(greedy.mean()) == 1.0
    chance = 1 / (1 + np.exp(-0.5))
    assert abs(float(sampled.mean()) - chance) < 4 * np.sqrt(chance * (1 - chance) / 4000)


def test_episodes_see_normalised_observations() -> None:
    task = ObservationProbe()
    network, weights = hand_policies(task, [[[-1.0, 1.0]]], [[0.0, 0.0]])
    # Cues of -1 and 1 become 1 and 3: the policy then always takes action 1, right half of the time.
    statistics = RunningStatistics(jnp.ones(()), jnp.array([-2.0]), jnp.array([1.0]))
    played = quick_episodes(task, network, weights, KEY[None], episodes=400, greedy=True, statistics=statistics)
    assert abs(float(played.returns.mean()) - 0.5) < 0.1


# --- random actions ---


@dataclasses.dataclass(frozen=True)
class EchoProbe(ActionProbe):
    """One step whose reward is the action itself, or one dimension of it."""

    actions: Discrete | Continuous = TWO_ACTIONS
    dimension: int = 0

    def step(self, key: jax.Array, state: ProbeState, action: jax.Array) -> Transition:
        del key
        reward = action if isinstance(self.actions, Discrete) else action[self.dimension]
        return transition(state, [1.0, -1.0], reward, terminated=True)


def random_returns(task: JaxTask, episodes: int) -> np.ndarray:
    """Of random actions, `[1, episodes]`."""
    return np.asarray(jax.jit(ON_DEVICE.play_random, static_argnums=(0, 2))(task, KEY, episodes).returns)


def test_random_play_takes_every_action_equally_often() -> None:
    episodes = 5000
    returns = random_returns(EchoProbe(actions=Discrete(5)), episodes)
    assert returns.shape == (1, episodes)
    actions, counts = np.unique(returns, return_counts=True)
    np.testing.assert_array_equal(actions, np.arange(5))
    assert (np.abs(counts / episodes - 0.2) < 4 * np.sqrt(0.2 * 0.8 / episodes)).all()


@pytest.mark.parametrize(("dimension", "low", "high"), [(0, -1.0, 3.0), (1, 0.0, 0.5)])
def test_random_play_fills_the_bounds_evenly(dimension: int, low: float, high: float) -> None:
    task = EchoProbe(actions=Continuous(2, (-1.0, 0.0), (3.0, 0.5)), dimension=dimension)
    returns = random_returns(task, 5000)
    counts, _ = np.histogram(returns, bins=4, range=(low, high))
    assert counts.sum() == 5000
    assert (np.abs(counts / 5000 - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 5000)).all()


def test_random_play_plays_whole_episodes() -> None:
    returns = random_returns(TimeLimitProbe(max_steps=10), 2000)
    # Ten fair coins each.
    assert abs(returns.mean() - 5.0) < 4 * np.sqrt(2.5 / 2000)
    assert abs(returns.var() - 2.5) < 0.5
    assert returns.max() > 8
