"""A cloning with several rates: where they start, which are learned, what the log, the card and the file say."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import Refused
from probes import hand_dataset, make_problem

import floppy
from floppy.cloning import CLONINGS, FeatureSteps, step_rates
from floppy.dataset import load, save
from floppy.errors import FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import PPMO, Supervised
from floppy.run.config import DistillConfig
from floppy.run.loop import distill
from floppy.studies import Transfer

KEY = jax.random.key(0)
RATES = (8.0, 4.0, 2.0)
TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier",))


def feature_dataset(rates: Any = RATES, **card: Any) -> floppy.DistilledDataset:
    entries = {"cloning": {"kind": "FeatureSteps"}, "learners": [dataclasses.asdict(TINY)]} | card
    return hand_dataset(entries, inner_rate=np.array(rates))


def test_several_rates_start_where_they_are_told_to_or_all_at_one() -> None:
    for given, wanted in ((RATES, RATES), (3.0, (3.0, 3.0, 3.0))):
        problem = make_problem(cloning=FeatureSteps(), initial_rate=given)
        np.testing.assert_array_equal(problem.init_distilled(KEY).inner_rate, np.float32(wanted))


@pytest.mark.parametrize(("held", "moved"), [((), (0, 1, 2)), (("kernel_rate", "bias_rate"), (2,)), (None, ())])
def test_rates_are_improved_by_their_logarithms_but_for_held_ones(
    held: tuple[str, ...] | None, moved: tuple[int, ...]
) -> None:
    learned = {"learned_rate": False} if held is None else {"held_rates": held}
    problem = make_problem(cloning=FeatureSteps(), initial_rate=RATES, **learned)
    start = problem.init_distilled(KEY)
    after = problem.improved(jax.tree.map(lambda leaf: leaf + np.log(2.0), problem.parameters(start)), start)
    wanted = np.array([rate * (2.0 if place in moved else 1.0) for place, rate in enumerate(RATES)])
    np.testing.assert_allclose(after.inner_rate, wanted, rtol=1e-6)


def test_the_rates_of_steps_end_where_they_are_told_to() -> None:
    rates = step_rates(3, jnp.array([5.0, 7.0]), jnp.array(2))
    np.testing.assert_array_equal(rates, [[5.0, 7.0], [5.0, 7.0], [0.0, 0.0]])


@pytest.mark.thorough
@pytest.mark.slow
def test_the_log_the_card_and_the_file_name_them(tmp_path: Path) -> None:
    outer = PPMO(learners=2, environments=2, horizon=8, epochs=1, critic_width=4)
    config = DistillConfig(
        "cartpole", outer_steps=1, outer=outer, distribution="width=4:depth=1", cloning=FeatureSteps(), seed=1,
        initial_rate=RATES, held_rates=("bias_rate",), selection_learners=1, score_learners=1, score_episodes=1,
    )  # fmt: skip
    distill(config, tmp_path / "run", progress=False)
    line = json.loads((tmp_path / "run/metrics.jsonl").read_text())
    dataset = load(tmp_path / "run/dataset.safetensors")
    assert dataset.inner_rate is not None and "inner_rate" not in line
    cloning = {"kind": "FeatureSteps", "loss": "mse", "steps": 1, "unit_steps": False}
    assert [dataset.inner_rate[1], dataset.card.cloning] == [4.0, cloning]
    assert dataset.inner_rate[0] != RATES[0] and dataset.inner_rate[2] != RATES[2]
    assert DistillConfig.from_dict(dataset.card.algorithm["config"]) == config
    assert line["bias_rate"] == 4.0 and abs(line["kernel_rate"] - RATES[0]) < 0.1
    assert distill(config, tmp_path / "run", resume=True, progress=False).finished


def test_what_does_not_fit_is_refused_in_one_sentence(refused: Refused, tmp_path: Path) -> None:
    features = ["distill", "cartpole", "--cloning", "FeatureSteps", "--out", str(tmp_path / "run")]
    refused(
        [*features, "--initial-rate", "1", "2"],
        "one number, or 3 for FeatureSteps (kernel_rate, bias_rate, readout_rate), got 2",
    )
    refused([*features, "--initial-rate", "x"], "--initial-rate must be a number, got 'x'")
    refused([*features, "--initial-rate", "1", "0", "1"], "initial_rate must be above 0")
    refused([*features, "--held-rates", "inner_rate"], "held_rates must be one of kernel_rate, bias_rate")
    refused(["distill", "cartpole", "--initial-rate", "1", "2"], "one number, or 1 for GradientStep (inner_rate)")


@pytest.mark.parametrize(
    ("kind", "rates"), [("GradientStep", RATES), ("FeatureSteps", (1.0, 2.0)), ("FeatureSteps", 1.0)]
)
def test_a_file_with_another_number_of_rates_is_refused_where_it_is_used(kind: str, rates: Any) -> None:
    with pytest.raises(FloppyError, match=rf"inner_rate, {kind} has {len(CLONINGS[kind].rates)} \("):
        floppy.train(feature_dataset(rates, cloning={"kind": kind}), 0)


@pytest.mark.slow
def test_a_study_of_transfer_varies_all_of_them_together(tmp_path: Path) -> None:
    save(feature_dataset(), path := tmp_path / "x.safetensors")
    study = Transfer((path,), widths=(4,), draws=3, episodes=1)
    rows = [row for cell in study.cells() for row in study.measure(cell, tmp_path)]
    assert len({row["rate"] for row in rows}) == 3 and all(np.isfinite(row["score"]) for row in rows)


@pytest.mark.thorough
@pytest.mark.slow
def test_labelled_images_are_distilled_through_feature_steps_too() -> None:
    config = DistillConfig(
        "images/digits", examples=10, outer_steps=30, evaluate_every=30, distribution="width=16:depth=1",
        initial_rate=(10.0, 10.0, 100.0), cloning=FeatureSteps(), outer=Supervised(batch_size=128, rate=3e-2),
        initial_examples="class-means", selection_learners=2, selection_episodes=50, score_learners=2,
        score_episodes=100,
    )  # fmt: skip
    assert distill(config, progress=False).dataset.card.score["mean"] > 60  # type: ignore[index]
