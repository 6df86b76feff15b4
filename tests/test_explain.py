"""Examples left out, features changed, and the study that measures what comes of it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import matplotlib.image
import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from probes import hand_dataset

import floppy
from floppy.dataset import DistilledDataset, save
from floppy.errors import DivergedError, FloppyError
from floppy.learner.mlp import LearnerDistribution
from floppy.studies import Explain, run_study
from floppy.studies.explain import WHOLE, _grid, _influential, _mean_of_finite, _point_rows
from floppy.studies.explain_figure import draw_map
from floppy.tasks.base import few_episodes
from floppy.teach.changes import parts_of, with_part_flipped, with_part_shifted, without_example

TINY = LearnerDistribution(width=(4, 4), depth=(1, 1), initialiser=("xavier1",))
LINEAR = LearnerDistribution(depth=(0, 0), initialiser=("xavier1",))


def dataset_of(task: str = "ndcartpole/1", learners: LearnerDistribution = TINY, **tensors: Any) -> DistilledDataset:
    return hand_dataset({"task": task, "learners": [dataclasses.asdict(learners)]}, **tensors)


# --- Changed datasets.


def test_parts_of_vectors_and_images() -> None:
    assert [part.name for part in parts_of((3,), ("angle",))] == ["angle", "feature 1", "feature 2"]
    many = parts_of((40,))
    assert len(many) == 16
    assert many[0].name == "features 0-2"
    assert sum(part.mask for part in many).tolist() == [1] * 40  # type: ignore[attr-defined]
    image = parts_of((10, 6, 2), ("ball",))
    assert [part.name for part in image[:3]] == ["ball", "channel 1", "rows 0-2, columns 0-1"]
    assert len(image) == 2 + 16
    assert image[0].mask[..., 0].all() and not image[0].mask[..., 1].any()
    assert np.argwhere(image[2].mask[..., 0]).tolist() == [[row, column] for row in range(3) for column in range(2)]
    assert [part.name for part in parts_of((2, 1))] == ["rows 0-0, columns 0-0", "rows 1-1, columns 0-0"]


def test_a_part_is_shifted_and_flipped_by_hand() -> None:
    dataset = hand_dataset(sizes=(2, 2), observations=[[3.0, 1.0], [-4.0, 2.0]], targets=[[1.0, 0.0], [0.0, 1.0]])
    first = parts_of((2,))[0]
    shifted = with_part_shifted(dataset, first, 2.0).observations
    np.testing.assert_allclose(shifted, [[3 + 2 * 12.5**0.5, 1], [-4 + 2 * 12.5**0.5, 2]], rtol=1e-6)
    np.testing.assert_array_equal(with_part_flipped(dataset, first).observations, [[-3, 1], [4, 2]])


def test_without_an_example_the_others_keep_their_weight_in_the_loss() -> None:
    dataset = dataset_of(inner_rate=0.6)
    fewer = without_example(dataset, 1)
    np.testing.assert_array_equal(fewer.observations, dataset.observations[[0, 2]])
    np.testing.assert_array_equal(fewer.targets, dataset.targets[[0, 2]])
    assert fewer.inner_rate == pytest.approx(0.4)
    adam = dataclasses.replace(
        dataset, card=dataclasses.replace(dataset.card, cloning={"kind": "AdamSteps", "loss": "mse", "steps": 2})
    )
    assert without_example(adam, 1).inner_rate == pytest.approx(0.6)  # Adam's steps know no scale of the loss


@pytest.mark.slow
def test_what_the_examples_contribute_adds_up() -> None:
    """Of linear policies after one gradient step: to the change of the outputs."""
    dataset = dataset_of(learners=LINEAR)
    seen = jnp.asarray(np.random.default_rng(3).normal(size=(1, 6, 4)), jnp.float32)

    def outputs(dataset: DistilledDataset) -> np.ndarray:
        return np.asarray(floppy.policy_outputs(floppy.train(dataset, 0), seen))

    fresh = outputs(dataclasses.replace(dataset, inner_rate=np.float32(1e-12)))
    whole = outputs(dataset)
    each = sum(whole - outputs(without_example(dataset, index)) for index in range(3))
    assert np.abs(whole - fresh).max() > 0.1
    np.testing.assert_allclose(each, whole - fresh, atol=1e-5)


# --- The map.


def test_the_map_is_over_the_features_on_which_outputs_depend() -> None:
    seen = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    weights = np.array([0.1, 5.0, 0.0, -3.0], np.float32)
    assert _influential(lambda rows: jnp.asarray((rows @ weights)[None, :, None]), seen) == (1, 3)


def test_the_grid_reaches_beyond_what_was_seen() -> None:
    seen = np.array([[0.0, 2.0, 5.0], [1.0, 4.0, 7.0]], np.float32)
    points = _grid(seen, 0, 2, 3)
    assert points[:, 0].tolist() == [-0.5, 0.5, 1.5] * 3
    assert points[:, 2].tolist() == [4.0] * 3 + [6.0] * 3 + [8.0] * 3
    assert points[:, 1].tolist() == [3.0] * 9
    still = _grid(np.zeros((2, 2), np.float32), 0, 1, 2)
    assert still.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]


def test_diverged_learners_are_left_out_of_the_map() -> None:
    outputs = jnp.array([[[1.0, 2.0]], [[jnp.nan, 0.0]], [[3.0, 6.0]], [[jnp.inf, 0.0]]])
    assert _mean_of_finite(outputs).tolist() == [[2.0, 4.0]]
    with pytest.raises(DivergedError, match="Every fresh learner diverged"):
        _mean_of_finite(outputs[1:2])


def test_a_map_is_drawn_of_points_that_float32_cannot_tell_apart() -> None:
    seen = np.array([[1e8, 0.0], [1e8 + 8, 1.0]], np.float32)
    points = _grid(seen, 0, 1, 5)
    assert len(np.unique(points[:, 0])) < 5
    names = {"x_feature": "a", "y_feature": "b", "actions": 2}
    rows = list(
        _point_rows(points, ("left", "right"), names | {"what": "map"}, "", np.zeros(25, int), np.ones((25, 2)))
    )
    axes = Figure().subplots()
    draw_map("", rows, axes)
    assert axes.images[0].get_array().shape == (5, 5)


# --- The study.


def small(path: Path, **changes: Any) -> Explain:
    options: dict[str, Any] = {"learners": 2, "episodes": 1, "grid": 3}
    return Explain(path, **(options | changes))


@pytest.mark.thorough
@pytest.mark.slow
def test_the_study_measures_sums_up_and_draws(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(dataset_of(), path)
    rows = run_study(small(path, shift=1e-12), tmp_path / "study")
    scores = [row for row in rows if row["what"] != "map"]
    assert len(scores) == 2 * (1 + 3 + 4 * 2)
    assert {row["unit"] for row in scores} == {"mean return"}
    assert all(8 <= row["score"] <= 500 for row in scores)
    points = [row for row in rows if row["what"] == "map"]
    assert len(points) == 9 * (1 + 3)
    assert {row["output_name"] for row in points} <= {"push left", "push right"}
    assert all(0.5 <= row["value"] <= 1 for row in points if row["example"] == "")
    summary = json.loads((tmp_path / "study/summary.json").read_text())
    whole = summary["score"]["mean"]
    for entry in (*summary["examples"], *(each["flip"] for each in summary["features"])):
        assert entry["fall"] == pytest.approx(whole - entry["score"])
        assert entry["interval"][0] <= entry["fall"] <= entry["interval"][1]
    # The same learners meet the same episodes: what changes nothing costs nothing.
    assert all(each["shift"]["fall"] == 0.0 for each in summary["features"])
    assert [each["example"] for each in summary["examples"]] == [0, 1, 2]
    assert [each["feature"] for each in summary["features"]][2] == "angle (rad)"
    assert matplotlib.image.imread(tmp_path / "study/figure.png").std() > 0.05


def test_cells_of_what_has_nothing_to_leave_out_or_to_map(tmp_path: Path) -> None:
    path = tmp_path / "one.safetensors"
    save(dataset_of(observations=np.ones((1, 4)), targets=np.ones((1, 2))), path)
    assert {cell["what"] for cell in small(path).cells()} == {WHOLE, "part", "map"}
    assert [cell["what"] for cell in small(path, parts=("map",)).cells()] == ["map"]
    assert small(path, parts=("examples,map",)).parts == ("examples", "map")
    with pytest.raises(FloppyError, match=r"examples have nothing to say of 1 example .*: give other --parts"):
        small(path, parts=("examples",)).cells()
    save(dataset_of(observations=np.ones((40, 4)), targets=np.ones((40, 2))), path, overwrite=True)
    left_out = [cell["which"] for cell in small(path, examples=4).cells() if cell["what"] == "without"]
    assert left_out == [0, 13, 26, 39]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"parts": ("nothing",)}, "parts must be one of examples, features, map, got 'nothing'"),
        ({"parts": ()}, "parts must have at least one value"),
        ({"features": (1,)}, "features must be two different numbers, got 1:"),
        ({"features": (1, 1)}, "features must be two different numbers, got 1 1:"),
        ({"features": (0, 4)}, "features must be numbers of an observation of shape .4., got 0 4"),
    ],
)
def test_what_cannot_be_explained_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = tmp_path / "a.safetensors"
    save(dataset_of(), path)
    with pytest.raises(FloppyError, match=message):
        small(path, **changes).cells()


def test_a_merged_dataset_and_a_whole_policy_are_refused(tmp_path: Path, refused: Refused) -> None:
    block = {"task": "ndcartpole/1", "rows": [0, 3], "observations": [0, 4], "actions": [0, 2], "weight": 1.0}
    two = [block, block | {"task": "ndcartpole/2", "rows": [3, 3], "observations": [4, 8], "actions": [2, 4]}]
    merged = hand_dataset(
        {"task": "ndcartpole/1+ndcartpole/2", "blocks": two, "format": 2},
        sizes=(12, 6),
        observations=np.ones((6, 12)),
        targets=np.ones((6, 6)),
    )
    path = tmp_path / "a.safetensors"
    save(merged, path)
    refused(["explain", str(path)], "The dataset is merged of ndcartpole/1, ndcartpole/2: name one of these tasks")
    layer = {"0/kernel": np.ones((4, 2)), "0/bias": np.zeros(2)}
    policy = hand_dataset(
        {"learners": [dataclasses.asdict(LINEAR)], "encoder": {"layers": 1, "of": 1}},
        observations=np.zeros((0, 4)),
        targets=np.zeros((0, 2)),
        encoder=layer,
        inner_rate=None,
    )
    save(policy, path, overwrite=True)
    refused(["explain", str(path)], "is a whole policy, from which nothing is cloned: give a dataset with examples")


def test_few_episodes_of_games_and_many_labels() -> None:
    assert few_episodes(floppy.make_task("cartpole")) == 4
    assert few_episodes(floppy.make_task("images/digits")) == min(
        500, len(floppy.make_task("images/digits").labelled("test").labels)
    )
