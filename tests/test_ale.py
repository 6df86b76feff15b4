"""Atari games as host tasks."""

import dataclasses
import importlib.util
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import task_refusal

from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate, evaluate_random
from floppy.learner.distribution import parse_distribution
from floppy.learner.mlp import LayeredNetwork
from floppy.outer import PPMO
from floppy.play.host import HostEnvironments, collect
from floppy.recipes import ppo_baseline, recipe
from floppy.run.config import DistillConfig
from floppy.run.loop import distill
from floppy.tasks import Discrete, HostTask, JaxTask, list_tasks, make_task
from floppy.tasks.base import observes_bytes
from floppy.teach.arrays import import_npz

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("compiled_once"),
    pytest.mark.skipif(not importlib.util.find_spec("ale_py"), reason="needs pip install 'floppy-rl[atari]'"),
]

PUBLISHED = Path(__file__).parents[2] / "shared/reference/ppmo"
NEEDS_FILES = pytest.mark.skipif(not PUBLISHED.is_dir(), reason=f"the published datasets are not here ({PUBLISHED})")
KEY = jax.random.key(0)
TINY = "width=4:depth=1:activation=relu"


def started(task: Any, count: int = 2, *, training: bool = True) -> HostEnvironments:
    row = HostEnvironments(task, count, training=training)
    row.reset(jnp.arange(count))
    return row


@pytest.mark.parametrize(
    ("name", "task_id", "actions", "settings"),
    [
        ("ale/breakout", "ale/breakout", 4, (False, False)),
        ("pong", "ale/pong", 6, (False, False)),
        ("ms-pacman", "ale/ms_pacman", 9, (False, False)),
        ("ale/centipede/sticky", "ale/centipede/sticky", 18, (True, False)),
        ("ale/centipede/raw", "ale/centipede/raw", 18, (False, True)),
        ("ale/pong/sticky/raw", "ale/pong/sticky/raw", 6, (True, True)),
    ],
)
def test_a_game_is_a_task(name: str, task_id: str, actions: int, settings: tuple[bool, bool]) -> None:
    task: Any = make_task(name)
    assert isinstance(task, HostTask)
    assert not isinstance(task, JaxTask)
    assert (task.task_id, task.actions, (task.sticky, task.raw)) == (task_id, Discrete(actions), settings)
    assert task.card_task == task_id.removesuffix("/raw")
    assert task.observation_shape == (84, 84, 4)
    assert observes_bytes(task)
    assert task.max_steps == 27_000
    assert task.max_return is None
    assert task == make_task(task_id)
    assert f"ale/{task.game}" in list_tasks()


@pytest.mark.parametrize(
    ("name", "nearest"), [("ale/centiped", "ale/centipede"), ("ale/pong/stiky", "ale/pong/sticky")]
)
def test_unknown_games_are_refused(name: str, nearest: str) -> None:
    assert f"did you mean {nearest}?" in task_refusal(name)


def test_a_missing_ale_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ale_py", None)
    assert "pip install 'floppy-rl[atari]'" in task_refusal("ale/pong")
    assert not [task for task in list_tasks() if task.startswith("ale/")]


def test_a_lost_life_ends_an_episode_in_training_only() -> None:
    """A ball that is served again and again to a paddle at rest: five lives make a game."""
    task: Any = make_task("ale/breakout")
    ends = {}
    for training in (True, False):
        row = started(task, training=training)
        ends[training] = np.stack([row.step(np.array([1, 1])).terminated for _ in range(300)]).sum(axis=0)
    for lives, games in zip(ends[True], ends[False], strict=True):
        assert 1 <= games <= 3
        assert 5 * games <= lives < 5 * (games + 1)


def test_scores_are_raw_and_of_whole_games() -> None:
    """A centipede's parts are worth 10 points and more; in training each is worth 1, if it is not raw."""
    task = make_task("ale/centipede")
    score = evaluate_random(task, episodes=2, seed=1)
    assert score.mean > 200
    for name, is_best in (("ale/centipede", lambda best: best == 1.0), ("ale/centipede/raw", lambda best: best >= 10)):
        row = started(make_task(name), 4)
        rewards = np.stack([row.step(np.full(4, 1)).rewards for _ in range(100)])
        assert is_best(rewards.max())


@pytest.mark.thorough
@pytest.mark.parametrize("name", ["ale/breakout", "ale/breakout/sticky"])
def test_the_same_seeds_give_the_same_frames(name: str) -> None:
    rows = [started(make_task(name), 3) for _ in range(2)]
    rows.append(HostEnvironments(make_task(name), 3, training=True))
    rows[-1].reset(jnp.arange(3) + 10)
    actions = np.random.default_rng(0).integers(0, 4, (60, 3))
    frames = [np.stack([row.step(taken).reached for taken in actions]) for row in rows]
    np.testing.assert_array_equal(frames[0], frames[1])
    assert (frames[0] != frames[2]).any()


@pytest.mark.thorough
def test_what_is_collected_stays_bytes() -> None:
    task: Any = make_task("ale/breakout")
    network = LayeredNetwork(parse_distribution(TINY), task.observation_shape, task.actions)
    weights = jax.vmap(network.init)(jax.random.split(KEY, 1))
    trajectory = collect(started(task, 3), network, weights, KEY, steps=4)
    assert trajectory.observations.dtype == trajectory.next_observations.dtype == np.uint8
    assert trajectory.observations.shape == (4, 1, 3, 84, 84, 4)


def test_no_transition_crosses_the_border_of_a_game() -> None:
    row = started(make_task("ale/breakout"), training=False)
    started_anew = np.zeros(2, bool)
    games = 0
    for _ in range(150):
        before = row.observations
        step = row.step(np.array([1, 1]))
        moved = (step.reached != before).any(axis=(1, 2, 3))
        assert moved[started_anew].all(), "the first action of a game is taken"
        goes_on = (step.reached == row.observations).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(goes_on, ~(step.terminated | step.truncated))
        started_anew = ~goes_on
        games += int(step.terminated.sum())
    assert games


def test_the_recipe_has_the_papers_network_and_examples() -> None:
    config = recipe("ale/centipede", encoder_layers=4)
    assert config.examples == 10
    (network,) = config.problem().networks
    kernels = [(8, 8, 4, 32), (4, 4, 32, 64), (3, 3, 64, 64), (3136, 512), (512, 18)]
    assert network.kernel_shapes == kernels
    assert [recipe(game).examples for game in ("ale/pong", "ale/ms_pacman", "ale/space_invaders")] == [4, 6, 4]


def test_plain_ppo_of_a_game_moves_at_the_encoders_rate() -> None:
    config = ppo_baseline("ale/pong")
    assert (config.examples, config.encoder_layers, config.initial_examples) == (0, 5, "normal")
    assert isinstance(config.outer, PPMO)
    assert (config.outer.rate, config.outer.encoder_rate) == (1.5e-4, 0.0)


@pytest.mark.thorough
def test_a_game_is_distilled_without_an_encoder() -> None:
    """The recipe's test starts from a random policy, with an encoder of convolutions."""
    config = DistillConfig(
        "ale/breakout",
        examples=3,
        outer_steps=2,
        distribution=TINY,
        evaluate_every=2,
        selection_learners=1,
        selection_episodes=1,
        score_learners=2,
        score_episodes=1,
        outer=PPMO(learners=1, environments=2, horizon=8, epochs=1, minibatch_size=8, critic_width=4),
    )
    result = distill(config)
    assert result.env_steps == 2 * 2 * 8
    score = result.dataset.card.score
    assert score is not None
    assert (score["learners"], score["episodes"]) == (2, 1)
    assert 0 <= score["mean"] < 20
    assert result.dataset.observations.shape == (3, 84, 84, 4)
    assert np.abs(result.dataset.observations).max() < 7, "in units of 0 .. 1"


@pytest.mark.thorough
def test_the_recipe_distils_a_game() -> None:
    config = recipe("ale/breakout", encoder_layers=4, outer_steps=1, selection_learners=1, score_learners=1)
    assert isinstance(config.outer, PPMO)
    assert config.distribution.startswith("network=nature-cnn:width=512:")
    narrow = config.distribution.replace("512", "16")
    outer = dataclasses.replace(config.outer, environments=2, horizon=8, epochs=1, minibatch_size=8, critic_width=16)
    config = dataclasses.replace(config, outer=outer, distribution=narrow, selection_episodes=1, score_episodes=1)
    dataset = distill(config, progress=False).dataset
    assert dataset.card.score is not None
    assert 0 <= dataset.card.score["mean"] < 20
    assert dataset.card.encoder == {"layers": 4, "of": 5}
    assert dataset.obs_mean is not None
    assert 0 < dataset.obs_mean.max() < 1, "pixels are scaled to 0 .. 1 before statistics are taken"


@NEEDS_FILES
@pytest.mark.parametrize(("level", "game", "examples"), [(0, "centipede", 10), (3, "spaceinvaders", 4)])
def test_published_games_are_imported_with_their_encoder(level: int, game: str, examples: int) -> None:
    path = PUBLISHED / f"atari-{game}-l{level}.npz"
    dataset = import_npz(path)
    assert dataset.card.task == {"centipede": "ale/centipede", "spaceinvaders": "ale/space_invaders"}[game]
    assert dataset.examples == examples
    assert dataset.card.encoder == ({"layers": level, "of": 5} if level else None)
    with np.load(path) as archive:
        for layer in range(level):
            # [outputs, inputs, height, width] there, [height, width, inputs, outputs] here.
            theirs = archive[f"encoder_conv{layer + 1}_weight"]
            np.testing.assert_array_equal(dataset.encoder[f"{layer}/kernel"][1, 2, 3, 0], theirs[0, 3, 1, 2])
        np.testing.assert_array_equal(dataset.observations[1, 5, 7], archive["observations"][1, :, 5, 7])


@NEEDS_FILES
def test_an_encoder_fits_one_network() -> None:
    with pytest.raises(FloppyError, match=r"encoder of layers .*, learners of layers .*network=mlp\) do not fit it"):
        import_npz(PUBLISHED / "atari-spaceinvaders-l3.npz", distribution="lambda")


@NEEDS_FILES
def test_published_games_that_lack_their_encoder_are_refused() -> None:
    with pytest.raises(FloppyError, match=r"needs an encoder of 4 layers, layer 1 of which it does not hold"):
        import_npz(PUBLISHED / "atari-pong-l4.npz")


@NEEDS_FILES
@pytest.mark.skipif(not importlib.util.find_spec("mujoco"), reason="needs pip install 'floppy-rl[mujoco]'")
def test_published_mujoco_files_say_that_they_lack_statistics() -> None:
    dataset = import_npz(PUBLISHED / "mujoco-reacher-k64.npz")
    assert dataset.card.task == "gymnasium/Reacher-v4"
    assert dataset.card.normaliser == "none"
    assert "mean and variance that was not published" in dataset.card.notes
    assert dataset.log_std is not None
    score = evaluate(dataset, distributions=["card"], learners=2, episodes=2)["card"]
    assert -60 < score.mean < 0
