"""Distillation of labelled images by meta-gradients and by evolution: starts, runs, scores, refusals."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from striped import KEY, SMALL, classifiers, labelled_task, quick, start, stripes, write_mnist, write_stripes

from floppy.cli.main import main
from floppy.cloning import AdamSteps, GradientStep, ImplicitStep, clone
from floppy.dataset import DistilledDataset, load, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate, evaluate_random
from floppy.keys import named_key
from floppy.learner.mlp import LayeredNetwork, LearnerDistribution
from floppy.outer import PPMO, HaDES, Supervised
from floppy.outer.supervised import LEAST_VARIANCE, SupervisedState, principal_components
from floppy.play.images import ImageArena, right_answers
from floppy.recipes import neuroevolution_baseline, recipe
from floppy.run.config import DistillConfig
from floppy.run.loop import Run, distill
from floppy.tasks import Discrete
from floppy.teach.arrays import import_npz

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]

REFERENCE = Path(__file__).parents[2] / "shared/reference"
NEEDS_FILES = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published datasets are not here ({REFERENCE})")


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "data" / "mnist")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_stripes(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="module")
def dataset(file: str) -> DistilledDataset:
    return untrained(quick(file, outer=Supervised(normalise_observations=False)))


def untrained(config: DistillConfig, *, score: bool = False) -> DistilledDataset:
    """A run's dataset before the first step."""
    run = Run(config, config.problem(), "", ImageArena(labelled_task(config.task)))
    return run.dataset(run.init(), score=score)


# --- scores ---


def test_scores_are_accuracies_on_test_images(file: str, dataset: DistilledDataset) -> None:
    score = evaluate(dataset, distributions="card", learners=3, seed=1)["card"]
    assert (score.learners, score.episodes, score.max_share) == (3, 30, None)
    assert score.mean == pytest.approx(100 * round(score.mean / 100 * 90) / 90), "of 3 x 30 answers"
    some = evaluate(dataset, distributions="card", learners=3, episodes=10, seed=1)["card"]
    assert some.episodes == 10
    random = evaluate_random(labelled_task(file), episodes=3000)
    assert random.mean == pytest.approx(100 / 3, abs=3.0)


def test_the_card_says_which_label_a_class_stands_for(file: str, dataset: DistilledDataset, tmp_path: Path) -> None:
    assert dataset.card.notes == "", "labels that are 0, 1, 2 go without saying"
    images, labels = stripes(30)
    path = tmp_path / "words.npz"
    np.savez(path, images=images, labels=np.array(["top", "middle", "Mitte–"])[labels])
    said = 'The classes, from 0, are the labels ["Mitte–", "middle", "top"]'
    of_words = untrained(quick(f"images/{path}", outer=Supervised(normalise_observations=False)))
    assert of_words.card.notes == said
    save(of_words, tmp_path / "dataset.safetensors")
    assert load(tmp_path / "dataset.safetensors").card.notes == said
    np.savez(tmp_path / "a.npz", observations=images[:3, ..., None], actions=[2, 0, 1], inner_lr=0.5)
    imported = import_npz(tmp_path / "a.npz", f"images/{path}", notes="mine", distribution=SMALL)
    assert imported.card.notes == f"mine\n{said}"


def test_an_ensemble_answers_for_images(file: str, dataset: DistilledDataset) -> None:
    together = evaluate(dataset, distributions="card", learners=3, seed=1, ensemble=2)["card"]
    assert (together.learners, together.episodes) == (3, 30)
    assert together.mean > 50, "one of three classes"


@pytest.mark.thorough
def test_images_are_normalised_by_channel(tmp_path: Path) -> None:
    path = tmp_path / "colours.npz"
    colours = np.random.default_rng(0).integers(0, 256, (40, 3, 2, 2), np.uint8)
    np.savez(path, images=colours, labels=np.arange(40) % 2)
    task = labelled_task(f"images/{path}")
    statistics, pixels = ImageArena(task).warm_up(task, KEY), task.labelled("train").images / 255.0
    for channel in range(2):
        np.testing.assert_allclose(statistics.mean[..., channel], pixels[..., channel].mean(), rtol=1e-5)
        np.testing.assert_allclose(statistics.var[..., channel], pixels[..., channel].var(), rtol=1e-5)
    dataset = untrained(quick(task.task_id, examples=2))
    assert dataset.card.normaliser == "frozen"
    assert dataset.obs_mean is not None
    np.testing.assert_allclose(dataset.obs_mean, statistics.mean)
    seen = (images := task.labelled("test").images / 255.0) - np.asarray(statistics.mean)
    seen = seen / np.sqrt(np.asarray(statistics.var))
    network = LayeredNetwork(LearnerDistribution((6, 6), (1, 1), ("xavier1",)), (3, 2, 2), Discrete(2))
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 1))
    labels = np.argmax(network.apply(jax.tree.map(lambda leaf: leaf[0], weights), jnp.asarray(seen)), axis=1)
    assert np.all(right_answers(network, weights, jnp.asarray(images), labels, statistics) == 1.0)
    assert not np.all(right_answers(network, weights, jnp.asarray(images), labels, None) == 1.0)


# --- where examples start ---


def test_examples_start_at_class_means(file: str) -> None:
    distilled = start(file, examples=6, initial_examples="class-means")
    images, labels = labelled_task(file).labelled("train")
    for example in range(6):  # two of each class, means of the even and the odd ones
        of_class = images[labels == example // 2][example % 2 :: 2] / 255.0
        np.testing.assert_allclose(distilled.observations[example], of_class.mean(axis=0), rtol=1e-5)
    wanted = np.full((6, 3), 0.1 / 3) + 0.9 * np.eye(3)[np.arange(6) // 2]
    np.testing.assert_allclose(distilled.targets, wanted, rtol=1e-5)
    logits = start(file, cloning=ImplicitStep()).targets
    np.testing.assert_allclose(logits, 10.0 * (np.eye(3) - 1 / 3), rtol=1e-5)


def test_examples_start_at_samples(file: str) -> None:
    distilled = start(file, examples=6, initial_examples="samples", targets="one-hot")
    images, labels = labelled_task(file).labelled("train")
    for example in range(6):
        is_it = np.all(np.isclose(images / 255.0, distilled.observations[example]), axis=(1, 2, 3))
        assert labels[is_it] == [example // 2]
    np.testing.assert_array_equal(distilled.targets, np.eye(3)[np.arange(6) // 2])


# --- a pool of learners, and principal components ---


POOLED = Supervised(learners=2, batch_size=32, rate=0.05, pool=4, pool_uses=2, coordinates="principal")


def by_one_step(file: str, outer: Supervised, **changes: Any) -> tuple[Any, Any, Any, Any]:
    """Problem, state before and after an outer step, and what it reports."""
    config = quick(file, outer=outer, **(IMPLICIT | changes))
    problem, arena = config.problem(), ImageArena(labelled_task(file))
    before = outer.init(problem, KEY, arena)
    return (problem, before, *outer.step(problem, before, jax.random.key(1), arena))


def test_a_member_of_the_pool_gives_the_gradient_of_a_learner_drawn_anew(file: str) -> None:
    outer = Supervised(learners=1, batch_size=32, pool=1)
    problem, state, _, _ = by_one_step(file, outer)
    (network,), (pool,) = problem.networks, state.pool
    assert pool.features.shape == (1, 32, 8)
    parameters = problem.parameters(state.distilled)
    fresh = jax.tree.map(lambda leaf: leaf[0], pool.weights)
    seen = named_key(named_key(KEY, "pool 0"), "batch")
    batch = jax.tree.map(
        lambda leaf: leaf[0], ImageArena(labelled_task(file)).labelled_batch(problem.task, seen, 1, 32)
    )

    def anew(parameters: Any) -> jax.Array:
        return outer._loss(problem, network, state, jnp.asarray(1), parameters, fresh, batch)[0]

    def kept(parameters: Any) -> jax.Array:
        return outer._loss_of_member(problem, network, state, pool, parameters, jnp.asarray(0))[0]

    pair = [jax.jit(jax.value_and_grad(loss))(parameters) for loss in (anew, kept)]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5), *pair)


def test_the_oldest_member_of_a_pool_gives_way(file: str) -> None:
    outer = Supervised(learners=1, batch_size=8, pool=3, pool_uses=2)
    problem, state, after, _ = by_one_step(file, outer)
    arena, changed = ImageArena(labelled_task(file)), []
    for step in range(1, 9):
        now, _ = outer.step(problem, after, jax.random.key(step + 1), arena)
        pairs = zip(np.asarray(after.pool[0].features), np.asarray(now.pool[0].features), strict=True)
        changed.append([place for place, (old, new) in enumerate(pairs) if not np.array_equal(old, new)])
        after = now
    assert changed == [[], [1], [], [2], [], [0], [], [1]]
    assert int(after.taken) == 9
    assert int(state.taken) == 0


def test_principal_components_of_two_pixels() -> None:
    images = jnp.array([[3.0, 3.0], [-3.0, -3.0], [1.0, -1.0], [-1.0, 1.0]])  # variances 9 and 1 along the diagonals
    small, large = np.asarray(principal_components(images))
    np.testing.assert_allclose(np.abs(large), np.sqrt((9 / 5 + LEAST_VARIANCE) / 2) * np.ones(2), rtol=1e-5)
    np.testing.assert_allclose(np.abs(small), np.sqrt((1 / 5 + LEAST_VARIANCE) / 2) * np.ones(2), rtol=1e-5)
    assert large[0] * large[1] > 0 > small[0] * small[1]
    assert np.isfinite(np.asarray(principal_components(jnp.zeros((4, 2))))).all()


def test_a_first_step_goes_along_components_by_their_length(file: str) -> None:
    """Adam's first step is the rate times the sign of the gradient in each coordinate."""
    outer = Supervised(learners=1, batch_size=32, rate=0.05, coordinates="principal", anneal=False, adam_eps=1e-20)
    _, before, after, _ = by_one_step(file, outer)
    moved = np.asarray(after.distilled.observations - before.distilled.observations).reshape(3, -1)
    in_components = moved @ np.linalg.inv(np.asarray(before.components))
    np.testing.assert_allclose(np.abs(in_components), 0.05, rtol=1e-2)


def test_a_run_with_a_pool_is_resumed_exactly(file: str, tmp_path: Path) -> None:
    config = quick(file, outer=POOLED, outer_steps=6, evaluate_every=3, early_stop=False, **IMPLICIT)
    whole = distill(config, tmp_path / "whole", progress=False).dataset
    first = distill(config, tmp_path / "parts", progress=False, time_limit=1e-3)
    assert first.outer_steps < 6
    parts = distill(config, tmp_path / "parts", progress=False, resume=True).dataset
    for name in ("observations", "targets", "inner_rate"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))
    again = distill(config, progress=False).dataset
    np.testing.assert_array_equal(whole.observations, again.observations)


def test_a_pool_for_each_distribution(file: str) -> None:
    problem, before, after, info = by_one_step(file, POOLED, distribution=f"{SMALL},{SMALL}:activation=relu")
    assert [pool.labels.shape for pool in before.pool] == [(2, 32), (2, 32)]
    assert len(problem.networks) == 2
    assert info["env_steps"] == 64
    assert not np.array_equal(before.distilled.observations, after.distilled.observations)


# --- distillation ---


EVOLVED = HaDES(population=16, initialisations=2, environments=32, sigma=0.2, rate=0.2)


SUPERVISED = Supervised(batch_size=32, rate=0.05)
IMPLICIT = {"cloning": ImplicitStep(), "initial_rate": 100.0, "targets": "learned"}


@pytest.mark.thorough(all_but=["supervised"])
@pytest.mark.parametrize(
    ("outer", "changes"),
    [(SUPERVISED, {}), (SUPERVISED, IMPLICIT), (POOLED, IMPLICIT), (EVOLVED, {})],
    ids=["supervised", "implicit", "pool", "hades"],
)
def test_both_outer_loops_improve_on_noise(file: str, outer: Any, changes: dict[str, Any]) -> None:
    changes = {"targets": "one-hot", "initial_examples": "normal", "outer_steps": 60, "evaluate_every": 60} | changes
    config = quick(file, outer=outer, **changes)
    before = untrained(config, score=True)
    after = distill(config, progress=False).dataset
    assert before.card.score is not None
    assert after.card.score is not None
    assert after.card.score["mean"] > max(60.0, before.card.score["mean"] + 15)


def test_the_meta_gradient_is_the_slope_of_the_loss(file: str) -> None:
    with jax.enable_x64(True):
        config = quick(file, cloning=GradientStep(loss="cross-entropy", steps=20))
        outer, problem = Supervised(), config.problem()
        (network,) = problem.networks
        fixed = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), start(file))
        state = SupervisedState(fixed, (), None)
        fresh = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), jax.jit(lambda: problem.draw(network, KEY))())
        batch = labelled_task(file).labelled("train")

        @jax.jit
        def loss(parameters: Any, steps: int) -> jax.Array:
            return outer._loss(problem, network, state, jnp.asarray(steps), parameters, fresh, batch)[0]

        parameters, slopes = problem.parameters(fixed), jax.jit(jax.grad(loss))
        for steps in (20, 7):
            gradient = slopes(parameters, steps)
            for name, at in (("observations", (1, 2, 3, 0)), ("targets", (0, 1)), ("inner_rate", ())):
                moved = [dict(parameters) | {name: parameters[name].at[at].add(way * 1e-5)} for way in (1, -1)]
                slope = (loss(moved[0], steps) - loss(moved[1], steps)) / 2e-5
                assert gradient[name][at] == pytest.approx(float(slope), rel=1e-4, abs=1e-9), (name, steps)


@pytest.mark.parametrize("cloning", [GradientStep("cross-entropy", 25), AdamSteps(steps=25)], ids=str)
def test_fewer_steps_than_the_recipe_has(file: str, cloning: Any) -> None:
    network, distilled = classifiers()[0], start(file)
    fresh = jax.jit(network.init)(KEY)
    part = clone(cloning, network, distilled, fresh, jnp.asarray(9))
    whole = clone(dataclasses.replace(cloning, steps=9), network, distilled, fresh)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), part, whole)


@pytest.mark.thorough
def test_learners_may_be_random_in_every_way(file: str) -> None:
    mixture = "width=4..8:depth=1..2:initialiser=xavier+lecun:activation=relu"
    outer = Supervised(learners=4, batch_size=16, least_steps=2)
    result = distill(quick(file, distribution=mixture, outer=outer, outer_steps=2, evaluate_every=2), progress=False)
    assert result.env_steps == 2 * 4 * 16
    assert result.dataset.card.learners[0]["width"] == [4, 8]


def test_choice_and_score_see_other_images(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    splits: list[str] = []
    play = ImageArena.play_episodes

    def noting(self: ImageArena, task: Any, *arguments: Any, **options: Any) -> Any:
        splits.append(task.split)
        return play(self, task, *arguments, **options)

    monkeypatch.setattr(ImageArena, "play_episodes", noting)
    distill(quick(file, outer_steps=4, evaluate_every=2), progress=False)
    assert splits[-1] == "test"
    assert set(splits[:-1]) == {"held-out"}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"outer": PPMO()}, r"ppmo needs episodes, images/.* has none: choose one of hades, supervised \(--outer\)"),
    (
        {"outer": dataclasses.replace(EVOLVED, horizon=3)},
        "horizon must be 0 for images/.*, where an episode is one answer",
    ),
    ({"examples": 99}, "an image for each of its means, got 33 of class 0"),
    ({"outer": Supervised(least_steps=7)}, "least_steps must be at most the cloning's 6 steps, got 7"),
    ({"outer": Supervised(learners=3), "distribution": f"{SMALL},{SMALL}"}, "cannot be shared equally"),
    ({"outer": Supervised(pool=4)}, "pool must be 0 for GradientStep, got 4: learners can be kept where the output"),
    ({"outer": Supervised(pool=1), "cloning": ImplicitStep()}, "at least the 2 learners of a step, got 1"),
    (
        {"outer": Supervised(pool=3), "cloning": ImplicitStep(), "distribution": f"{SMALL},{SMALL}"},
        "3 learners of the pool cannot be shared equally",
    ),
    (
        {"task": "cartpole", "initial_examples": "samples"},
        "initial_examples must be normal, zeros or random-policy for ndcartpole/1",
    ),
    (
        {"task": "cartpole", "initial_examples": "normal"},
        "needs labelled examples, ndcartpole/1 has none: choose one of hades, imitation, ppmo",
    ),
]


@pytest.mark.parametrize(("changes", "complaint"), REFUSED, ids=[complaint for _, complaint in REFUSED])
def test_what_does_not_fit_is_refused(file: str, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(FloppyError, match=complaint):
        distill(quick(**({"task": file} | changes)), progress=False)


def test_a_baseline_that_needs_episodes_is_refused(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", file]) == 2
    assert f"method for {file} must be one of neuroevolution, random, got 'ppo'" in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [
        *({"batch_size": 0}, {"learners": 0}, {"rate": 0.0}, {"least_steps": -1}, {"max_grad_norm": -1.0}),
        *({"pool": -1}, {"pool_uses": 0}, {"coordinates": "polar"}),
    ],
    ids=str,
)
def test_nonsense_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FloppyError, match=next(iter(changes))):
        Supervised(**changes)


@pytest.mark.thorough(all_but=["supervised"])
@pytest.mark.parametrize("outer", [Supervised(rate=0.02, batch_size=64), EVOLVED], ids=["supervised", "hades"])
def test_with_every_layer_in_the_encoder_a_classifier_is_trained(file: str, outer: Any) -> None:
    config = quick(file, examples=0, encoder_layers=2, outer=outer, outer_steps=40, evaluate_every=40)
    dataset = distill(config, progress=False).dataset
    assert dataset.card.is_plain_policy
    assert dataset.card.score is not None
    assert dataset.card.score["mean"] > 60


def test_neuroevolution_of_a_classifier_sees_enough_images(file: str) -> None:
    outer = neuroevolution_baseline(file).outer
    assert isinstance(outer, HaDES)
    assert outer.environments == 1024


def test_a_normaliser_per_evaluation_is_refused(dataset: DistilledDataset) -> None:
    assert dataset.card.normaliser == "none"
    asked = dataclasses.replace(dataset, card=dataclasses.replace(dataset.card, normaliser="per-evaluation"))
    with pytest.raises(FloppyError, match="normaliser must be frozen or none for images, got per-evaluation"):
        evaluate(asked, distributions="card", learners=1)


def test_an_encoder_is_not_taken_by_a_network_of_another_kind(file: str) -> None:
    own, other = (f"network={name}:width=4:depth=1:activation=relu" for name in ("minatar-cnn", "hades-cnn"))
    small = "images/digits"
    dataset = untrained(quick(small, distribution=own, examples=10, encoder_layers=1))
    with pytest.raises(FloppyError, match="give the architecture on its card"):
        evaluate(dataset, distributions=other, learners=1)


def test_logits_are_learnt_in_units_of_their_own_size(file: str) -> None:
    problem = quick(file, cloning=ImplicitStep()).problem()
    distilled = start(file, cloning=ImplicitStep())
    free = problem.parameters(distilled)
    np.testing.assert_allclose(free["targets"], distilled.targets / 10.0, rtol=1e-6)
    np.testing.assert_allclose(problem.distilled(free, distilled).targets, distilled.targets, rtol=1e-6)


def test_images_have_recipes_of_their_own(file: str, tmp_path: Path) -> None:
    assert recipe(file).outer.name == "supervised"
    large = tmp_path / "large.npz"
    np.savez(large, images=np.zeros((60, 28, 28), np.uint8), labels=np.arange(60) % 3)
    assert [type(recipe(task).cloning) for task in (file, f"images/{large}")] == [GradientStep, ImplicitStep]
    evolved = [recipe(task, "hades") for task in (file, f"images/{large}")]
    assert [config.targets for config in evolved] == ["one-hot", "learned"]
    assert [type(config.cloning) for config in evolved] == [GradientStep, ImplicitStep]
    assert all(isinstance(config.outer, HaDES) for config in evolved)
    with pytest.raises(FloppyError, match="Recipe supervised needs labelled examples, and ndcartpole/1 has none"):
        recipe("cartpole", "supervised")


# --- the command line ---


def test_the_command_line_takes_a_folder(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("FLOPPY_DATA", raising=False)
    words = ["distill", "mnist", "--data", str(mnist), "--distribution", SMALL, "--outer-steps", "1", "--examples", "3"]
    words += ["--cloning.steps", "6", "--learners", "1", "--selection-learners", "2"]
    assert main([*words, "--score-learners", "2", "--out", str(tmp_path / "run")]) == 0
    assert "accuracy in percent" in capsys.readouterr().out
    assert "FLOPPY_DATA" not in os.environ
    dataset = str(tmp_path / "run" / "dataset.safetensors")
    assert main(["evaluate", dataset, "--learners", "2"]) == 2
    assert "--data or FLOPPY_DATA" in capsys.readouterr().err
    assert main(["evaluate", dataset, "--learners", "2", "--data", str(mnist.parent)]) == 0
    assert "2 fresh learners x 20 images each" in capsys.readouterr().out


# --- the published datasets ---


@pytest.fixture
def real_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(REFERENCE / "images"))


def published(name: str) -> DistilledDataset:
    return import_npz(REFERENCE / f"hades/mnist/{name}-HaDES-R-d10-w128-seed0.npz")


@NEEDS_FILES
@pytest.mark.usefixtures("real_images")
@pytest.mark.parametrize(("name", "task"), [("MNIST", "images/mnist"), ("FashionMNIST", "images/fashion-mnist")])
def test_published_images_are_imported(name: str, task: str) -> None:
    dataset = published(name)
    assert (dataset.card.task, dataset.examples) == (task, 10)
    assert dataset.card.cloning == {"kind": "GradientStep", "loss": "cross-entropy", "steps": 1000}
    assert dataset.inner_rate == pytest.approx(0.01)


@pytest.mark.thorough
@NEEDS_FILES
@pytest.mark.slow
@pytest.mark.usefixtures("real_images")
def test_published_images_score_as_published() -> None:
    """The paper's figure is for 20 learners and all images: docs/results/images.md has it, and Fashion-MNIST's."""
    score = evaluate(published("MNIST"), distributions="card", learners=1, episodes=1500, seed=1)["card"]
    assert score.mean == pytest.approx(90.1, abs=1.5)
