"""Labelled images: files, classifiers' answers, and their distillation by meta-gradients and by evolution."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from striped import KEY, classifiers, idx, labelled_task, stripes, write_mnist, write_stripes

from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distribution
from floppy.learner.mlp import LayeredNetwork, Weights
from floppy.play.images import ImageArena, log_likelihoods, right_answers, shared_log_likelihoods
from floppy.tasks import Discrete, make_task

pytestmark = pytest.mark.usefixtures("quick_compile", "compiled_once")

REFERENCE = Path(__file__).parents[2] / "shared/reference"
NEEDS_FILES = pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the published datasets are not here ({REFERENCE})")


@pytest.fixture
def mnist(tmp_path: Path) -> Path:
    return write_mnist(tmp_path / "data" / "mnist")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_stripes(tmp_path_factory.mktemp("images"))


# --- the files ---


@pytest.mark.parametrize("above", [False, True], ids=["its-folder", "the-folder-above"])
def test_idx_files_are_read(mnist: Path, monkeypatch: pytest.MonkeyPatch, above: bool) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(mnist.parent if above else mnist))
    task = labelled_task("mnist")
    assert (task.task_id, task.observation_shape, task.actions) == ("images/mnist", (4, 5, 1), Discrete(3))
    images, labels = stripes(20)
    np.testing.assert_array_equal(task.labelled("test").images, images[..., None])
    np.testing.assert_array_equal(task.labelled().labels, labels)
    train, held_out = task.labelled("train"), task.labelled("held-out")
    assert (len(train.labels), len(held_out.labels)) == (54, 6)
    everything = np.concatenate([train.images, held_out.images])[..., 0].reshape(60, -1)
    wanted = stripes(60)[0].reshape(60, -1)
    assert sorted(map(bytes, everything)) == sorted(map(bytes, wanted)), "each image in one of the two"


BROKEN: list[tuple[str, Callable[[bytes], bytes], str]] = [
    ("train-images-idx3-ubyte", lambda content: content[:-20], "cannot be read"),
    ("train-labels-idx1-ubyte", lambda _: b"no gzip", "cannot be read"),
    ("t10k-images-idx3-ubyte", lambda content: gzip.compress(gzip.decompress(content)[:-3]), "announces 400 bytes"),
    ("t10k-labels-idx1-ubyte", lambda _: idx(2051, np.zeros((20, 1, 1))), "begins with 2051"),
    ("t10k-labels-idx1-ubyte", lambda _: gzip.compress(b""), "begins with 0"),
    ("train-labels-idx1-ubyte", lambda _: idx(2049, np.zeros(59)), "60 images"),
    ("train-labels-idx1-ubyte", lambda _: idx(2049, np.full(60, 2)), "no training image of class 0"),
    ("t10k-labels-idx1-ubyte", lambda _: idx(2049, np.zeros(0)), "20 images"),
    ("t10k-images-idx3-ubyte", lambda _: idx(2051, np.zeros((20, 5, 5))), "images of one size"),
]


@pytest.mark.parametrize(("name", "breaks", "complaint"), BROKEN, ids=[complaint for *_, complaint in BROKEN])
def test_broken_files_are_refused(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, name: str, breaks: Callable[[bytes], bytes], complaint: str
) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(mnist))
    path = mnist / f"{name}.gz"
    path.write_bytes(breaks(path.read_bytes()))
    with pytest.raises(FloppyError, match=complaint):
        make_task("mnist")


def test_missing_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOPPY_DATA", raising=False)
    with pytest.raises(FloppyError, match=r"images/mnist needs its four .gz files in IDX format.*FLOPPY_DATA"):
        make_task("images/mnist")
    monkeypatch.setenv("FLOPPY_DATA", str(tmp_path))
    with pytest.raises(FloppyError, match="holds no fashion-mnist"):
        make_task("fashion-mnist")


def test_one_data_set_is_not_taken_for_another(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(mnist))
    with pytest.raises(FloppyError, match="holds no fashion-mnist"):
        make_task("fashion-mnist")


def test_an_npz_file_is_a_task(tmp_path: Path, file: str) -> None:
    task = labelled_task(file)
    assert [len(task.labelled(split).labels) for split in ("train", "held-out", "test")] == [54, 6, 30]
    path = tmp_path / "with-test.npz"
    colours = np.random.default_rng(0).random((20, 3, 3, 2))
    np.savez(path, images=colours, labels=np.arange(20) % 2, test_images=colours[:4], test_labels=np.arange(4) % 2)
    task = labelled_task(f"images/{path}")
    assert task.observation_shape == (3, 3, 2)
    np.testing.assert_allclose(task.labelled("test").images, colours[:4], rtol=1e-6)
    assert task.with_split("train").labelled() is task.labelled("train")


IMAGES, LABELS = stripes(30)
WRONG: list[tuple[dict[str, np.ndarray], str]] = [
    ({"images": IMAGES}, "it needs images and labels"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "both of test_images and test_labels"),
    ({"images": IMAGES.reshape(30, -1), "labels": LABELS}, "holds images of shape"),
    ({"images": np.full((30, 2, 2), np.nan), "labels": LABELS}, "NaN or infinite pixels"),
    ({"images": np.full((30, 2, 2), 1e300), "labels": LABELS}, "type float64: .*or floats up to"),
    ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "type int64"),
    ({"images": IMAGES, "labels": LABELS.astype(np.int64) + 2**32}, "below 10000"),
    ({"images": IMAGES, "labels": np.where(np.arange(30) == 3, 10**9, LABELS)}, "10000"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES / 255, "test_labels": LABELS}, "one size and type"),
    ({"images": IMAGES, "labels": np.where(np.arange(30) == 3, 4, LABELS)}, "no training image of class 3"),
    ({"images": IMAGES, "labels": LABELS[:-1]}, "for 30 images"),
    ({"images": IMAGES, "labels": LABELS + 0.5}, "holds labels of"),
    ({"images": IMAGES, "labels": LABELS - 1}, "from -1 to .* whole numbers from 0"),
    ({"images": IMAGES[:12], "labels": LABELS[:12]}, "gives 8 training and 4 test images"),
    ({"images": IMAGES[:2], "labels": LABELS[:2]}, "at least 10 for training"),
]


@pytest.mark.parametrize(("arrays", "complaint"), WRONG, ids=[complaint for _, complaint in WRONG])
def test_wrong_arrays_are_refused(tmp_path: Path, arrays: dict[str, Any], complaint: str) -> None:
    path = tmp_path / "wrong.npz"
    np.savez(path, **arrays)
    with pytest.raises(FloppyError, match=complaint):
        make_task(f"images/{path}")


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "folder.npz").mkdir()
    wrong = {"text.npz": "is no .npz archive", "folder.npz": "is no .npz archive", "absent.npz": "is no file"}
    wrong |= {"a\0.npz": "is no file", f"{'long' * 1000}.npz": "is no file"}
    for name, complaint in wrong.items():
        with pytest.raises(FloppyError, match=complaint):
            make_task(f"images/{tmp_path / name}")
    with pytest.raises(FloppyError, match="did you mean images/digits"):
        make_task("images/digit")


def test_digits_need_no_file() -> None:
    task = labelled_task("digits")
    assert (task.observation_shape, task.actions) == ((8, 8, 1), Discrete(10))
    sizes = [len(task.labelled(split).labels) for split in ("train", "held-out", "test")]
    assert (sum(sizes), sizes[2]) == (1797, 599)
    images = task.labelled("train").images
    assert (images.min(), images.max()) == (0.0, 1.0)


# --- classifiers' answers ---


def numpy_logits(weights: Weights, learner: int, images: np.ndarray) -> np.ndarray:
    (first, second) = jax.tree.map(lambda leaf: np.asarray(leaf[learner], np.float64), weights.layers)
    hidden = np.tanh(images.reshape(len(images), -1) / 255.0 @ first["kernel"] + first["bias"])
    return hidden @ second["kernel"] + second["bias"]


@pytest.mark.slow
def test_right_answers_are_the_likeliest_classes() -> None:
    (network, weights), (images, labels) = classifiers(), stripes(50)
    got = right_answers(network, weights, images[..., None], labels, None)
    wanted = [numpy_logits(weights, learner, images).argmax(axis=1) == labels for learner in range(4)]
    np.testing.assert_array_equal(got, np.asarray(wanted, float))
    assert 0 < np.mean(wanted) < 1
    broken = weights._replace(layers=jax.tree.map(lambda leaf: leaf.at[1].set(jnp.nan), weights.layers))
    assert np.isnan(right_answers(network, broken, images[..., None], labels, None)[1]).all()


def test_log_likelihoods_are_those_of_random_images_which_learners_share() -> None:
    (network, weights), (images, labels) = classifiers(), stripes(50)
    keys = jax.random.split(KEY, 2)
    got = log_likelihoods(network, weights, images[..., None], labels, None, keys, 7)
    for learner in range(4):
        rows = np.asarray(jax.random.randint(keys[learner % 2], (7,), 0, 50))
        logits = numpy_logits(weights, learner, images[rows])
        probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got[learner], np.log(probabilities[np.arange(7), labels[rows]]), rtol=1e-5)


def test_classifiers_that_share_hidden_layers_share_what_these_compute() -> None:
    (network, weights), (images, labels) = classifiers(), stripes(50)
    keys = jax.random.split(KEY, 2)
    hidden = jax.tree.map(lambda leaf: jnp.concatenate([leaf[:2], leaf[:2]]), weights.layers[:-1])
    shared = weights._replace(layers=(*hidden, weights.layers[-1]))
    alike, apart = (
        function(network, shared, images[..., None], labels, None, keys, 7)
        for function in (shared_log_likelihoods, log_likelihoods)
    )
    np.testing.assert_allclose(alike, apart, rtol=1e-5)


def test_each_learner_answers_for_images_of_its_own_wherever_it_is_asked() -> None:
    (network, weights), (images, labels) = classifiers(), stripes(50)
    rows = jnp.asarray([[3, 1, 4], [1, 5, 9], [2, 6, 5], [3, 5, 8]])
    got = right_answers(network, weights, images[..., None], labels, None, rows)
    whole = right_answers(network, weights, images[..., None], labels, None)
    np.testing.assert_array_equal(got, np.take_along_axis(np.asarray(whole), np.asarray(rows), axis=1))


@pytest.mark.slow
def test_an_answer_does_not_depend_on_the_learners_beside_it(file: str) -> None:
    (network, weights), task = classifiers(), labelled_task(file)
    arena, keys = ImageArena(task), jax.random.split(KEY, 4)
    together = arena.play_episodes(task, network, weights, keys, episodes=7).returns
    for learner in range(4):
        alone = jax.tree.map(lambda leaf, i=learner: leaf[i : i + 1], weights)
        played = arena.play_episodes(task, network, alone, keys[learner : learner + 1], episodes=7)
        np.testing.assert_array_equal(played.returns[0], together[learner])


@pytest.mark.slow
def test_convolutions_see_images_in_blocks_with_a_rest() -> None:
    """Of 70 images two blocks are whole on a CPU, and six images are left."""
    images = jax.random.uniform(KEY, (70, 12, 12, 1))
    labels = jnp.arange(70) % 3
    learners = parse_distribution("network=pyramid-cnn:depth=0:activation=relu")
    network = LayeredNetwork(learners, (12, 12, 1), Discrete(3))
    weights = jax.jit(jax.vmap(network.init))(jax.random.split(KEY, 2))
    logits = jax.vmap(network.apply, in_axes=(0, None))(weights, images)
    np.testing.assert_array_equal(
        right_answers(network, weights, images, labels, None), jnp.argmax(logits, axis=-1) == labels[None]
    )
    keys = jax.random.split(KEY, 1)
    rows = jax.random.randint(keys[0], (70,), 0, 70)
    wanted = jnp.take_along_axis(jax.nn.log_softmax(logits[:, rows]), labels[rows][None, :, None], axis=-1)[..., 0]
    got = log_likelihoods(network, weights, images, labels, None, keys, 70)
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
