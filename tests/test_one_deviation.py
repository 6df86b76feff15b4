"""Observations that are all divided by one number: statistics by hand, and every loop that normalises."""

import dataclasses
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused

import floppy
from floppy.outer import PPMO, HaDES, OuterLoop, Supervised
from floppy.play.normalise import init_statistics, normalise, stored_statistics, update_statistics, with_one_deviation
from floppy.run.config import DistillConfig
from floppy.run.loop import distill

LOOPS: dict[str, tuple[str, OuterLoop]] = {
    "ppmo": (
        "cartpole",
        PPMO(learners=2, environments=2, horizon=8, epochs=1, critic_width=4, normalise_observations=True),
    ),
    "hades": ("cartpole", HaDES(population=4, environments=1, horizon=10, normalise_observations=True)),
    "supervised": ("images/digits", Supervised(learners=1, batch_size=8)),
}


def test_a_rare_cell_stays_small() -> None:
    # Two cells, one of which is 1 once in a hundred frames: its own deviation is 0.0995.
    frames = np.zeros((100, 2), np.float32)
    frames[:50, 0], frames[7, 1] = 1.0, 1.0
    statistics = update_statistics(init_statistics((2,)), jnp.asarray(frames))
    seen = normalise(with_one_deviation(statistics, 0.5), jnp.array([[1.0, 1.0], [100.0, 0.0]]))
    np.testing.assert_allclose(seen, [[1.0, 1.98], [10.0, -0.02]], rtol=1e-5)
    np.testing.assert_allclose(normalise(statistics, jnp.array([[1.0, 1.0]])), [[1.0, 9.95]], rtol=1e-3)
    mean, var, epsilon = stored_statistics(with_one_deviation(statistics, 0.5))
    np.testing.assert_allclose(var, 0.25, rtol=1e-6)
    assert epsilon == 1e-8 and mean.tolist() == statistics.mean.tolist()


@pytest.mark.thorough
@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_means_stay_as_they_were_at_first_and_all_variances_are_equal(name: str) -> None:
    task, outer = LOOPS[name]
    settings: dict[str, Any] = {"selection_learners": 1, "score_learners": 1, "score_episodes": 1, "evaluate_every": 1}
    config = DistillConfig(
        task, examples=10, distribution="width=4:depth=1", observation_deviation=0.5, outer=outer, **settings
    )
    short, long = (
        distill(dataclasses.replace(config, outer_steps=steps, early_stop=False), progress=False).dataset
        for steps in (1, 2)
    )
    assert short.card.format == 1 and short.card.normaliser == "frozen"
    np.testing.assert_array_equal(short.obs_mean, long.obs_mean)  # type: ignore[arg-type]
    np.testing.assert_allclose(long.obs_var, 0.25, rtol=1e-5)
    assert np.isfinite(floppy.evaluate(long, learners=1, episodes=1)["card"].mean)


def test_without_normalisation_it_is_refused(refused: Refused, tmp_path: Path) -> None:
    words = ["distill", "cartpole", "--observation-deviation", "0.5", "--out", str(tmp_path / "run")]
    refused([*words], "observation_deviation must be 0 where observations are not normalised, got 0.5")
