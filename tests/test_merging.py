"""Merged datasets: where everything lies, that every task learns what its own dataset teaches, and refusals."""

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import ActionProbe, ContinuousProbe, DelayProbe, ImageProbe, ObservationProbe, hand_dataset

import floppy
from floppy.cli.main import main
from floppy.cloning import AdamSteps, Cloning, FeatureSteps, GradientStep, ImplicitStep, clone
from floppy.cloning.base import rates_shape
from floppy.dataset import DistilledDataset, load, save
from floppy.dataset.card import Card
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import Evaluation
from floppy.evaluation.score import score_returns
from floppy.fields import encode
from floppy.learner.mlp import LearnerDistribution, Weights
from floppy.studies import Multitask, multitask, read_rows
from floppy.tasks.base import Task
from floppy.tasks.registry import FAMILIES
from floppy.teach.codec import Lesson, card_learners, unpack

pytestmark = pytest.mark.usefixtures("compiled_once", "probe_tasks")

LINEAR = LearnerDistribution(depth=(0, 0), initialiser=("xavier",))
TINY = LearnerDistribution(width=(4, 4), initialiser=("xavier",))


@dataclasses.dataclass(frozen=True)
class OtherContinuousProbe(ContinuousProbe):
    target: tuple[float, ...] = (-0.5, 1.0)
    task_id: str = "probe/continuous-2"


@dataclasses.dataclass(frozen=True)
class NamedImageProbe(ImageProbe):
    task_id: str = "probe/image"


@dataclasses.dataclass(frozen=True)
class OtherImageProbe(ImageProbe):
    task_id: str = "probe/image-2"


TASKS: tuple[Any, ...] = (ActionProbe(), ObservationProbe(), DelayProbe(), ContinuousProbe(), OtherContinuousProbe())
IMAGES: tuple[Any, ...] = (NamedImageProbe(), OtherImageProbe())
ACTION, OBSERVATION, DELAY, CONTINUOUS, OTHER_CONTINUOUS = TASKS
IMAGE, OTHER_IMAGE = IMAGES


@pytest.fixture(scope="module")
def probe_tasks() -> Iterator[None]:
    """Probe problems as tasks that a card can name."""
    by_id = {task.task_id: task for task in TASKS + IMAGES}
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(FAMILIES, "probe", lambda rest: by_id[f"probe/{rest}"])
        yield


def dataset_of(
    task: Task, learner: LearnerDistribution = TINY, cloning: Cloning | None = None, seed: int = 0, **tensors: Any
) -> DistilledDataset:
    """Random examples of a task: three, or two of the first one."""
    random, rows = np.random.default_rng(seed), 2 if task == ACTION else 3
    card = tensors.pop("card", {})
    card = {"task": task.task_id, "actions": task.actions.as_entry(), "learners": [dataclasses.asdict(learner)]} | card
    arrays = {
        "observations": random.normal(size=(rows, *task.observation_shape)),
        "targets": random.dirichlet(np.ones(task.actions.size), size=rows),
    }
    return hand_dataset(card | {"cloning": encode(cloning or GradientStep())}, **(arrays | tensors))


# --- What a merged dataset holds ---


@pytest.mark.slow
def test_examples_lie_in_the_blocks_of_their_tasks() -> None:
    first, second = dataset_of(ACTION, inner_rate=2.0), dataset_of(OBSERVATION, inner_rate=8.0)
    merged = floppy.merge([first, second], notes="two at once", command="by hand")
    assert (merged.observations.shape, merged.targets.shape) == ((5, 3), (5, 4))
    np.testing.assert_array_equal(merged.observations[:2, :2], first.observations)
    np.testing.assert_array_equal(merged.observations[2:, 2:], second.observations)
    np.testing.assert_array_equal(merged.targets[:2, :2], first.targets)
    np.testing.assert_array_equal(merged.targets[2:, 2:], second.targets)
    for tensor in (merged.observations, merged.targets):
        assert not tensor[:2, 2:].any()
        assert not tensor[2:, :2].any()
    assert merged.inner_rate == 4.0
    assert (merged.log_std, merged.obs_mean) == (None, None)
    card = merged.card
    assert card.blocks == [
        {"task": "probe/action", "rows": [0, 2], "observations": [0, 2], "actions": [0, 2], "weight": 0.5},
        {"task": "probe/observation", "rows": [2, 3], "observations": [2, 1], "actions": [2, 2], "weight": 2.0},
    ]
    assert (card.task, card.format, card.normaliser) == ("probe/action+probe/observation", 2, "none")
    assert (card.notes, card.command) == ("two at once", "by hand")
    assert card.actions == {"kind": "discrete", "size": 4}


def test_the_card_says_what_was_merged(tmp_path: Path) -> None:
    versions = {"floppy": "0", "brax": "1"}
    first = dataset_of(ACTION, card={"versions": versions, "licence": "MIT"})
    second = dataset_of(OBSERVATION, card={"versions": versions | {"brax": "2"}})
    third = dataset_of(DELAY, card={"licence": "MIT"})
    save(second, tmp_path / "second.safetensors")
    card = floppy.merge([first, second, third]).card
    assert [block["task"] for block in card.blocks] == ["probe/action", "probe/observation", "probe/delay"]
    digest = hashlib.sha256((tmp_path / "second.safetensors").read_bytes()).hexdigest()
    assert card.parents[1] == f"probe/observation sha256:{digest}"
    assert card.parents[0].startswith("probe/action sha256:")
    assert card.versions["brax"] == "1, 2"
    assert card.versions["floppy"] != "0"
    assert card.licence == "MIT AND Apache-2.0"


def test_statistics_deviations_and_bounds_are_put_together() -> None:
    statistics = {"obs_mean": np.array([1.0, 2.0]), "obs_var": np.array([4.0, 9.0])}
    first = dataset_of(CONTINUOUS, log_std=[-1.0], card={"normaliser": "frozen"}, **statistics)
    merged = floppy.merge([dataset_of(OTHER_CONTINUOUS), first])
    np.testing.assert_array_equal(merged.obs_mean, [0, 0, 1, 2])
    np.testing.assert_array_equal(merged.obs_var, [1, 1, 4, 9])
    np.testing.assert_array_equal(merged.log_std, [0, 0, -1])
    assert merged.card.normaliser == "frozen"
    assert merged.card.actions == {"kind": "continuous", "size": 3, "low": [-2.0] * 3, "high": [2.0] * 3}


def test_adam_has_one_rate_for_all_tasks_and_no_weights() -> None:
    each = [dataset_of(task, cloning=AdamSteps(steps=3), inner_rate=rate) for task, rate in ((ACTION, 1), (DELAY, 4))]
    merged = floppy.merge(each)
    assert merged.inner_rate == 2.0
    assert [block["weight"] for block in merged.card.blocks] == [1.0, 1.0]


def test_learners_are_those_that_all_datasets_are_for() -> None:
    both = {"learners": [dataclasses.asdict(LINEAR), dataclasses.asdict(TINY)]}
    merged = floppy.merge([dataset_of(ACTION, card=both), dataset_of(OBSERVATION)])
    assert card_learners(merged) == (TINY,)


# --- What its learners learn ---


Cuts = tuple[Weights, Weights, Weights]


def cloned(datasets: list[DistilledDataset]) -> list[Cuts]:
    """For each dataset a fresh policy's cut: before cloning, after joint cloning, and after cloning alone."""
    lesson, alone = unpack(floppy.merge(datasets)), [unpack(dataset) for dataset in datasets]
    network = lesson.network()

    @jax.jit
    def all_of(key: jax.Array) -> list[Cuts]:
        fresh = network.init(key)
        joint = clone(lesson.cloning, network, lesson.distilled, fresh, blocks=lesson.blocks)
        return [
            (
                block.cut(fresh),
                block.cut(joint),
                clone(lesson.cloning, block.network(network), own.distilled, block.cut(fresh)),
            )
            for block, own in zip(lesson.blocks, alone, strict=True)
        ]

    return all_of(jax.random.key(3))


def assert_same(joint: Any, alone: Any) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=2e-6), joint, alone)


DISCRETE, BOXES = (ACTION, OBSERVATION), (CONTINUOUS, OTHER_CONTINUOUS)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("tasks", "cloning", "learner"),
    [
        ((*DISCRETE, DELAY), GradientStep("mse"), LINEAR),
        (DISCRETE, GradientStep("cross-entropy", steps=3), LINEAR),
        (BOXES, GradientStep("mse", steps=2), LINEAR),
        (BOXES, GradientStep("gaussian-nll"), LINEAR),
        (DISCRETE, ImplicitStep(), LINEAR),
        (BOXES, ImplicitStep(), TINY),
        (BOXES, FeatureSteps(), LINEAR),
    ],
    ids=["logits", "cross-entropy", "means", "nll", "implicit-linear", "implicit", "features"],
)
def test_tasks_that_share_no_weights_learn_as_alone(
    tasks: tuple[Task, ...], cloning: Cloning, learner: LearnerDistribution
) -> None:
    # What hidden layers learn is all that they share.
    datasets = [
        dataset_of(task, learner, cloning, i, inner_rate=np.full(rates_shape(cloning), 0.3 + i))
        for i, task in enumerate(tasks)
    ]
    for fresh, joint, alone in cloned(datasets):
        assert np.abs(alone.layers[-1]["kernel"] - fresh.layers[-1]["kernel"]).max() > 1e-3
        assert_same(joint, alone)


@pytest.mark.slow
def test_one_gradient_step_moves_first_and_last_layer_as_alone() -> None:
    learner = dataclasses.replace(TINY, initialiser=("xavier1",))
    datasets = [dataset_of(task, learner, seed=i, inner_rate=0.5 + i) for i, task in enumerate(DISCRETE)]
    for fresh, joint, alone in cloned(datasets):
        assert np.abs(alone.layers[0]["kernel"] - fresh.layers[0]["kernel"]).max() > 1e-4
        assert_same(joint.layers[0]["kernel"], alone.layers[0]["kernel"])
        assert_same(joint.layers[-1], alone.layers[-1])
        assert np.abs(joint.layers[1]["kernel"] - alone.layers[1]["kernel"]).max() > 1e-4, "the tasks share this one"


def test_unit_steps_of_a_task_do_not_depend_on_the_other_tasks() -> None:
    learner, cloning = dataclasses.replace(TINY, initialiser=("xavier1",)), FeatureSteps(unit_steps=True)
    datasets = [
        dataset_of(task, learner, cloning, i, inner_rate=np.array([0.5, 0.5, 2.0])) for i, task in enumerate(DISCRETE)
    ]
    for fresh, joint, alone in cloned(datasets):
        assert np.abs(alone.layers[0]["kernel"] - fresh.layers[0]["kernel"]).max() > 1e-2
        assert_same(joint.layers[0]["kernel"], alone.layers[0]["kernel"])


def test_what_adam_gives_a_task_does_not_depend_on_how_large_its_loss_is() -> None:
    cloning = AdamSteps("mse", steps=5, max_grad_norm=0.0, eps=1e-8, eps_root=0.0)
    datasets = [dataset_of(task, LINEAR, cloning, i) for i, task in enumerate(DISCRETE)]
    for _, joint, alone in cloned(datasets):
        assert_same(joint, alone)


@pytest.mark.slow
def test_a_policy_of_all_tasks_reads_its_block_and_nothing_else() -> None:
    statistics = {"obs_mean": np.full((8, 6, 1), 2.0), "obs_var": np.linspace(1, 5, 48).reshape(8, 6, 1)}
    merged = floppy.merge([dataset_of(IMAGE, card={"normaliser": "frozen"}, **statistics), dataset_of(OTHER_IMAGE)])
    policies = floppy.train(merged, jax.random.key(0), learners=2)
    assert policies.network.observation_shape == (48 + 48,)
    assert policies.weights.layers[-1]["bias"].shape == (2, 4)
    joint = np.tile(np.asarray(policies.statistics.mean), (2, 3, 1))  # which is 0 once normalised
    for block in policies.blocks:
        first, count = block.observations
        padded, own = joint.copy(), np.random.default_rng(0).normal(size=(2, 3, 8, 6, 1))
        padded[..., first : first + count] = own.reshape(2, 3, -1)
        outputs = floppy.policy_outputs(policies, jnp.asarray(padded))
        mean, var = (block.own_statistic(part, own.shape[2:]) for part in policies.statistics[1:3])
        seen = (own - np.asarray(mean)) / np.sqrt(np.asarray(var) + 1e-8)
        cut = jax.vmap(block.network(policies.network).apply)(block.cut(policies.weights), jnp.asarray(seen))
        np.testing.assert_allclose(outputs[..., block.actions[0] :][..., :2], cut, rtol=1e-4, atol=1e-6)


# --- Scores ---


def good_datasets(learner: LearnerDistribution = LINEAR) -> list[DistilledDataset]:
    """Of which a learner answers almost always right."""
    right = [[-9.0, 9.0], [9.0, -9.0]]
    action = {"observations": [[1.0, -1.0]] * 2, "targets": [right[0]] * 2, "inner_rate": 1.0}
    return [
        dataset_of(ACTION, learner, **action),
        dataset_of(OBSERVATION, learner, observations=[[1.0], [-1.0]], targets=right, inner_rate=3.0),
    ]


@pytest.mark.slow
def test_each_task_is_scored_by_its_own_block() -> None:
    merged = floppy.merge(good_datasets())
    for name in ("probe/action", "probe/observation"):
        score = floppy.evaluate(merged, distributions="card", learners=3, episodes=40, task=name)["card"]
        assert score.mean > 0.95
    with pytest.raises(FloppyError, match=r"merged of probe/action, probe/observation: name one of these tasks"):
        floppy.evaluate(merged)
    with pytest.raises(FloppyError, match=r"a dataset of probe/action and probe/observation, not of probe/image"):
        floppy.evaluate(merged, task="probe/image")
    with pytest.raises(FloppyError, match=r"of probe/action, .* task probe/image has"):
        floppy.evaluate(good_datasets()[0], task="probe/image")


# --- Refusals ---


def image_dataset() -> DistilledDataset:
    learners = [dataclasses.asdict(TINY)]
    card = {"task": "images/digits", "actions": {"kind": "discrete", "size": 10}, "learners": learners}
    return hand_dataset(card, observations=np.zeros((1, 8, 8, 1)), targets=np.zeros((1, 10)))


def with_encoder() -> DistilledDataset:
    layer = {"0/kernel": np.zeros((2, 4)), "0/bias": np.zeros(4)}
    return dataset_of(ACTION, card={"encoder": {"layers": 1, "of": 3}}, encoder=layer)


ONE_DRAW = dataclasses.replace(TINY, init_seed=3)
CNN = LearnerDistribution(width=(4, 4), depth=(1, 1), network="minatar-cnn")

REFUSED: dict[str, tuple[Callable[[], list[DistilledDataset]], str]] = {
    "alone": (lambda: [dataset_of(ACTION)], "two datasets at least, 1 given"),
    "merged": (lambda: [floppy.merge(good_datasets(TINY)), dataset_of(DELAY)], "merged itself"),
    "encoder": (lambda: [dataset_of(OBSERVATION), with_encoder()], "probe/action holds an encoder"),
    "per-evaluation": (
        lambda: [dataset_of(ACTION, card={"normaliser": "per-evaluation"}), dataset_of(OBSERVATION)],
        "statistics that start with zero in every evaluation",
    ),
    "labelled": (lambda: [dataset_of(ACTION), image_dataset()], "images/digits is one of labelled images"),
    "twice": (lambda: [dataset_of(ACTION), dataset_of(ACTION, seed=1)], "Two of the datasets are of probe/action"),
    "kinds": (lambda: [dataset_of(ACTION), dataset_of(CONTINUOUS)], "kind of actions of probe/continuous"),
    "cloning": (lambda: [dataset_of(ACTION), dataset_of(OBSERVATION, cloning=GradientStep(steps=2))], "steps=2"),
    "loss": (
        lambda: [dataset_of(ACTION), dataset_of(OBSERVATION, cloning=GradientStep("cross-entropy"))],
        "cross-entropy",
    ),
    "axes": (lambda: [dataset_of(ACTION), dataset_of(IMAGE)], "observation axes of probe/image is 3"),
    "learners": (lambda: [dataset_of(ACTION), dataset_of(OBSERVATION, LINEAR)], "different learners"),
    "one draw": (lambda: [dataset_of(ACTION, ONE_DRAW), dataset_of(OBSERVATION, ONE_DRAW)], "one draw"),
    "convolutions": (lambda: [dataset_of(IMAGE, CNN), dataset_of(OTHER_IMAGE, CNN)], "convolutions"),
    "another task": (
        lambda: [dataset_of(ACTION), dataset_of(ACTION, card={"task": "probe/observation"})],
        "the same spaces",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("which", REFUSED)
def test_what_cannot_be_merged_is_refused_in_one_sentence(which: str) -> None:
    datasets, wanted = REFUSED[which]
    with pytest.raises(FloppyError) as caught:
        floppy.merge(datasets())
    message = str(caught.value)
    assert wanted in message
    assert message.endswith((".", "?"))
    assert "\n" not in message


# --- The file ---


def merged_card(**changes: Any) -> dict[str, Any]:
    return json.loads(floppy.merge(good_datasets()).card.to_json()) | changes


def changed_block(**changes: Any) -> dict[str, Any]:
    blocks = merged_card()["blocks"]
    return merged_card(blocks=[blocks[0], blocks[1] | changes])


def test_a_merged_file_is_of_format_2_and_no_other_file_has_changed(tmp_path: Path) -> None:
    merged = floppy.merge(good_datasets())
    save(merged, tmp_path / "m.safetensors")
    again = load(tmp_path / "m.safetensors")
    assert again.card == merged.card
    assert again.card.format == 2
    np.testing.assert_array_equal(again.observations, merged.observations)
    assert '"format": 1' in good_datasets()[0].card.to_json()
    assert "blocks" not in good_datasets()[0].card.to_json()


@pytest.mark.parametrize(
    ("card", "wanted"),
    [
        (lambda: merged_card(format=1), "Format 1 was given with 2 blocks"),
        (lambda: merged_card(blocks=[]), "Format 2 was given with 0 blocks"),
        (lambda: merged_card(blocks=[1]), "blocks is [1], it must be a list of objects"),
        (lambda: changed_block(task=1), "The card's blocks hold"),
        (lambda: changed_block(rows=[3, 2]), "without gaps"),
        (lambda: changed_block(observations=[2, 0]), "The card's blocks hold"),
        (lambda: changed_block(observations=[2, 1, 1]), "The card's blocks hold"),
        (lambda: changed_block(actions=[2, 3]), "blocks have 5 actions"),
        (lambda: changed_block(weight=0), "weight from 1e-06 to 1e+06"),
        (lambda: changed_block(weight=1e308), "weight is 1e+308"),
        (lambda: changed_block(colour="red"), "The card's blocks hold"),
        (lambda: merged_card(encoder={"layers": 1}), "neither an encoder"),
        (lambda: merged_card(normaliser="per-evaluation"), "nor a normaliser per evaluation"),
    ],
)
def test_blocks_that_make_no_sense_are_refused(card: Callable[[], dict[str, Any]], wanted: str) -> None:
    with pytest.raises(FloppyError) as caught:
        Card.from_json(json.dumps(card()))
    assert wanted in str(caught.value)


@pytest.mark.parametrize("name", ["rows", "observations"])
def test_blocks_that_do_not_fit_the_tensors_are_refused_before_use(name: str) -> None:
    merged = floppy.merge(good_datasets())
    first, count = merged.card.blocks[1][name]
    card = Card.from_json(json.dumps(changed_block(**{name: [first, count + 1]})))
    wrong = DistilledDataset(card, merged.observations, merged.targets, inner_rate=merged.inner_rate)
    with pytest.raises(FloppyError, match="merge again"):
        floppy.train(wrong, jax.random.key(0))
    with pytest.raises(FloppyError, match="merge again"):
        unpack(wrong)


def test_a_block_of_another_size_than_its_task_is_refused() -> None:
    merged = floppy.merge([dataset_of(ACTION), dataset_of(OBSERVATION)])
    swapped = [
        block | {"task": name}
        for block, name in zip(merged.card.blocks, ("probe/observation", "probe/action"), strict=True)
    ]
    wrong = dataclasses.replace(merged, card=dataclasses.replace(merged.card, blocks=swapped))
    with pytest.raises(FloppyError, match=r"observations of shape \(2,\).*probe/observation has \(1,\)"):
        floppy.evaluate(wrong, task="probe/observation")


# --- The command line ---


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    paths = [tmp_path / "a.safetensors", tmp_path / "b.safetensors"]
    for dataset, path in zip(good_datasets(), paths, strict=True):
        save(dataset, path)
    return [str(path) for path in paths]


def test_the_commands(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "m.safetensors")
    assert main(["merge", *files, "-o", out, "--notes", "both", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    merged = load(out)
    assert result["examples"] == merged.examples == 4
    assert (result["task"], result["dataset"]) == ("probe/action+probe/observation", out)
    assert result["blocks"] == merged.card.blocks
    assert merged.card.notes == "both"
    assert merged.card.command.startswith("floppy merge")
    assert main(["merge", *files, "-o", out]) == 2
    assert "exists already" in capsys.readouterr().err
    assert main(["merge", *files, "-o", out, "--overwrite"]) == 0
    assert "probe/observation: rows 2 to 3, observations 2 to 2, actions 2 to 3" in capsys.readouterr().out
    evaluation = ["evaluate", out, "--learners", "3", "--episodes", "40"]
    assert main([*evaluation, "--task", "probe/observation", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == "probe/observation"
    assert result["distributions"]["card"]["mean"] > 0.95
    assert main(evaluation) == 2
    assert "probe/action, probe/observation" in capsys.readouterr().err
    policies = str(tmp_path / "policies.safetensors")
    assert main(["train", out, "--learners", "2", "--save", policies]) == 0
    loaded = floppy.load_policies(policies)
    assert loaded.weights.layers[0]["kernel"].shape == (2, 3, 4)
    assert json.loads(json.dumps([dataclasses.asdict(block) for block in loaded.blocks])) == merged.card.blocks


def test_nothing_is_written_when_datasets_are_refused(
    files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "m.safetensors"
    for given in (files[:1], [files[0], files[0]], [*files, str(tmp_path / "nowhere.safetensors")]):
        assert main(["merge", *given, "-o", str(out)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.count("\n") == 1
        assert not out.exists()


# --- The study ---


@pytest.mark.slow
def test_who_learns_from_other_tasks_plays_like_chance(files: list[str]) -> None:
    study = Multitask(tuple(map(Path, files)), learners=3, episodes=40)
    rows = study.measure({"dataset": files[1], "agent": "wrong"}, Path("unused"))
    assert [(row["task"], row["learner"]) for row in rows] == [("probe/observation", learner) for learner in range(3)]
    assert abs(np.mean([row["score"] for row in rows]) - 0.5) < 0.15


def test_the_study_compares_who_learnt_from_what(
    files: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def remember(self: Evaluation, lesson: Lesson, *_: Any, **__: Any) -> np.ndarray:
        learnt = [each.task for each in self.blocks]
        asked.append((self.task.task_id, lesson.dataset.card.task, learnt, self.block and self.block.task))
        assert (self.learners, self.episodes) == (3, 2)
        return np.full((3, 2), {0: 4.0, 2: 3.0, 1: 1.0}[len(learnt)])

    monkeypatch.setattr(Evaluation, "of_lesson", remember)
    monkeypatch.setattr(multitask, "evaluate_random", lambda *_, **__: score_returns(np.zeros((1, 1)), None, 0))
    words = ["multitask", *files, "--learners", "3", "--episodes", "2", "--out", str(tmp_path / "study"), "--json"]
    assert main(words) == 0
    own, other = names = ["probe/action", "probe/observation"]
    assert asked[:3] == [
        (own, own, [], None),
        (own, f"{own}+{other}", names, own),
        (own, f"{own}+{other}", [other], own),
    ]
    assert asked[5] == (other, f"{own}+{other}", [own], other)
    assert len(asked) == 6
    summary = json.loads(capsys.readouterr().out)["summary"]
    assert list(summary) == names
    for entry in summary.values():
        assert entry["means"] == {"random": 0.0, "single": 4.0, "merged": 3.0, "wrong": 1.0}
        assert {agent: share["mean"] for agent, share in entry["shares"].items()} == {
            "single": 1.0,
            "merged": 0.75,
            "wrong": 0.25,
        }
    assert len(read_rows(tmp_path / "study")) == 2 * (1 + 3 * 3)
    assert main(["multitask", files[0], "--out", str(tmp_path / "other")]) == 2
    assert not (tmp_path / "other").exists()


def test_shares_are_between_random_and_single() -> None:
    scores = {"random": [10.0], "single": [40.0, 60.0], "merged": [25.0, 35.0], "wrong": [10.0, 10.0]}
    rows = [
        {"dataset": "a", "agent": agent, "task": "t", "learner": learner, "score": score}
        for agent, values in scores.items()
        for learner, score in enumerate(values)
    ]
    study = Multitask((Path("a"), Path("b")), learners=2)
    entry = study.summary(rows)["t"]
    assert entry["means"] == {"random": 10.0, "single": 50.0, "merged": 30.0, "wrong": 10.0}
    # Shares 0.375 and 0.625: a standard error of 0.125, times 12.706 by Student's t of one degree of freedom.
    assert entry["shares"]["merged"]["mean"] == 0.5
    assert entry["shares"]["merged"]["interval"] == pytest.approx([0.5 - 12.7062 * 0.125, 0.5 + 12.7062 * 0.125], 1e-4)
    assert entry["shares"]["wrong"] == {"mean": 0.0, "interval": [0.0, 0.0]}
    useless = [row | {"score": 10.0} for row in rows]
    assert study.summary(useless)["t"]["shares"] is None
    for table in (rows, useless):
        figure = Figure()
        study.draw(table, figure)
        heights = [bar.get_height() for bar in figure.axes[0].patches]
        assert heights == ([1.0, 0.5, 0.0] if table is rows else [])


@pytest.mark.parametrize("wrong", [{"learners": 1}, {"episodes": 0}, {"seed": -1}])
def test_numbers_that_make_no_sense_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(FloppyError, match=next(iter(wrong))):
        Multitask((Path("a"), Path("b")), **wrong)


def test_the_mean_of_rates_is_that_of_their_logarithms() -> None:
    rates = (0.1, 10.0, 7.0)
    merged = floppy.merge(
        [dataset_of(task, inner_rate=rate) for task, rate in zip((*DISCRETE, DELAY), rates, strict=True)]
    )
    assert float(merged.inner_rate) == pytest.approx(math.prod(rates) ** (1 / 3))
    weights = [block["weight"] for block in merged.card.blocks]
    np.testing.assert_allclose(np.multiply(weights, merged.inner_rate), rates, rtol=1e-6)
