"""EnvPool's environments: the physics of Gymnasium's, and the contract of a host task."""

import importlib.util

import jax
import numpy as np
import pytest

from floppy import make_task
from floppy.errors import FloppyError
from floppy.tasks import check_task, envpool
from floppy.tasks.base import card_task
from floppy.tasks.envpool import NAMES

needs_envpool = pytest.mark.skipif(
    importlib.util.find_spec("envpool") is None, reason="EnvPool is not installed: pip install 'floppy-rl[envpool]'"
)
HIDDEN = {"Ant": 2, "Humanoid": 2, "HumanoidStandup": 2, "Swimmer": 2, "InvertedPendulum": 0}
"""Positions that observations leave out, which do not matter for a step; one for the others."""
COARSE = {"Ant": 3e-2, "Humanoid": 1e-3, "HumanoidStandup": 5e-3}
"""Contacts and places are taken from the step before, which a state that was set does not have; 1e-6 for the others."""
CLIPPED = 9.99
"""Velocities of some robots are observed up to 10: a state is known below that."""


@needs_envpool
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NAMES)
def test_steps_are_gymnasiums(name: str) -> None:
    """Gymnasium takes each of EnvPool's steps from the same state, by the same action."""
    import gymnasium

    own = gymnasium.make(name).unwrapped
    robot = name.split("-")[0]
    hidden, tolerance = HIDDEN.get(robot, 1), COARSE.get(robot, 1e-6)
    own.reset(seed=0)
    vector, known = make_task(f"envpool/{name}").make_vector(4, training=True), own.model.nq - hidden + own.model.nv
    before, _ = vector.reset(seed=[1, 2, 3, 4])
    random, compared = np.random.default_rng(0), 0
    for _ in range(40):
        actions = random.uniform(own.action_space.low, own.action_space.high, (4, own.action_space.shape[0]))
        following, rewards, terminated, _, infos = vector.step(actions)
        reached = infos.get("final_obs", following)
        for copy in range(4):
            positions, velocities = np.split(before[copy][:known], [own.model.nq - hidden])
            if np.abs(velocities).max() > CLIPPED:
                continue
            own.set_state(np.concatenate([np.zeros(hidden), positions]), velocities)
            observation, reward, ended, _, _ = own.step(actions[copy])
            np.testing.assert_allclose(reached[copy][:known], observation[:known], rtol=tolerance, atol=tolerance)
            np.testing.assert_allclose(rewards[copy], reward, rtol=tolerance, atol=tolerance)
            assert terminated[copy] == ended
            compared += 1
        before = following
    vector.close()
    assert compared > 30


@needs_envpool
def test_tasks_keep_the_contract() -> None:
    task = make_task("envpool/Hopper-v5")
    check_task(task)
    theirs = make_task("gymnasium/Hopper-v5")
    assert (task.observation_shape, task.actions, task.max_steps) == (
        theirs.observation_shape,
        theirs.actions,
        theirs.max_steps,
    )
    assert task.task_id == "envpool/Hopper-v5"
    assert task.package == "envpool"
    assert task.picture == theirs.picture


@needs_envpool
def test_seeds_decide_about_episodes() -> None:
    task = make_task("envpool/InvertedPendulum-v5")

    def played(seeds: list[int]) -> np.ndarray:
        vector = task.make_vector(2, training=True)
        start, _ = vector.reset(seed=seeds)
        steps = [vector.step(np.full((2, 1), 3.0))[0] for _ in range(60)]
        vector.close()
        return np.stack([start, *steps])

    first, again, other = played([5, 2**32 - 1]), played([5, 2**32 - 1]), played([6, 7])
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)


@needs_envpool
def test_an_episode_that_ends_is_followed_by_the_next_one() -> None:
    """Pushed with all its force, the pendulum falls within a few steps."""
    vector = make_task("envpool/InvertedPendulum-v5").make_vector(2, training=True)
    vector.reset(seed=[0, 1])
    for _ in range(100):
        observations, _, terminated, _, infos = vector.step(np.full((2, 1), 3.0))
        if terminated.any():
            break
    assert (np.abs(infos["final_obs"][terminated][:, 1]) > 0.2).all()
    assert (np.abs(observations[terminated][:, 1]) < 0.02).all()
    vector.close()


def test_other_ids_are_refused() -> None:
    with pytest.raises(FloppyError, match="did you mean envpool/Hopper-v5"):
        make_task("envpool/Hoper-v5")


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "envpool", None)
    with pytest.raises(FloppyError, match=r"pip install 'floppy-rl\[envpool\]'"):
        make_task("envpool/Hopper-v5")
    assert envpool.names() == []


@needs_envpool
@pytest.mark.thorough
def test_it_can_be_distilled() -> None:
    from floppy import PPMO, distill, recipe

    outer = PPMO(learners=2, environments=2, horizon=8, minibatch_size=32, normalise_observations=True)
    quick = {"outer_steps": 2, "evaluate_every": 1, "selection_learners": 2, "selection_episodes": 1}
    config = recipe("envpool/Hopper-v5", examples=4, outer=outer, score_learners=2, score_episodes=1, **quick)
    found = [distill(config, progress=False).dataset for _ in range(2)]
    jax.tree.map(np.testing.assert_array_equal, found[0].observations, found[1].observations)


@needs_envpool
def test_a_dataset_of_its_copies_is_for_gymnasiums() -> None:
    assert card_task(make_task("envpool/Hopper-v5")) == "gymnasium/Hopper-v5"


def test_any_other_tasks_dataset_names_the_task() -> None:
    assert card_task(make_task("cartpole")) == "ndcartpole/1"
