"""Labelled images: files, classifiers' answers, and their distillation by meta-gradients and by evolution."""

import gzip
import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from npz_files import announce
from probes import hand_dataset
from striped import KEY, classifiers, idx, labelled_task, stripes, write_mnist, write_stripes

from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError
from floppy.learner.distribution import parse_distribution
from floppy.learner.mlp import LayeredNetwork, Weights
from floppy.play.images import ImageArena, log_likelihoods, right_answers, shared_log_likelihoods
from floppy.tasks import Discrete, make_task
from floppy.tasks.images import ImageTask
from floppy.teach.codec import unpack

pytestmark = pytest.mark.usefixtures("compiled_once")

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
    ("train-labels-idx1-ubyte", lambda _: b"no gzip", "begins with 0"),
    ("train-images-idx3-ubyte", lambda _: idx(2051, np.zeros((60, 0, 5))), "0, 5.* pixels"),
    ("t10k-images-idx3-ubyte", lambda content: gzip.compress(gzip.decompress(content) + b"\0"), "and holds more"),
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
    with pytest.raises(FloppyError, match=r"images/mnist needs its four files in IDX format.*FLOPPY_DATA"):
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


LAYOUTS: dict[str, tuple[str, str]] = {
    "plain": ("", "-"),
    "dotted": ("", "."),
    "mnist": ("", "-"),
    "MNIST/raw": (".gz", "-"),
    "named-gz-but-plain": (".gz", "-"),
    "gzipped-without-ending": ("", "-"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_idx_files_are_found_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    suffix, joint = LAYOUTS[layout]
    gzipped = write_mnist(tmp_path / "gz")
    (tmp_path / layout).mkdir(parents=True)
    for path in gzipped.iterdir():
        content = path.read_bytes()
        is_plain = not suffix or layout.startswith("named")
        name = path.name.removesuffix(".gz").replace("-idx", f"{joint}idx") + suffix
        plain = gzip.decompress(content) if is_plain and not layout.startswith("gzipped") else content
        (tmp_path / layout / name).write_bytes(plain)
    monkeypatch.setenv("FLOPPY_DATA", str(tmp_path / ("" if "mnist" in layout.lower() else layout)))
    np.testing.assert_array_equal(labelled_task("mnist").labelled("test").images, stripes(20)[0][..., None])
    if "mnist" in layout.lower():
        with pytest.raises(FloppyError, match="holds no fashion-mnist"):
            make_task("fashion-mnist")


def test_idx_files_are_found_in_folders_of_their_own_names(
    mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for path in mnist.iterdir():
        own = tmp_path / "kaggle" / path.name.removesuffix(".gz")
        own.mkdir(parents=True)
        (own / own.name).write_bytes(gzip.decompress(path.read_bytes()))
    monkeypatch.setenv("FLOPPY_DATA", str(tmp_path / "kaggle"))
    assert len(labelled_task("mnist").labelled().labels) == 20


@pytest.mark.parametrize("compress", [gzip.compress, bytes], ids=["gzipped", "plain"])
def test_idx_files_that_announce_too_much_are_refused(
    mnist: Path, monkeypatch: pytest.MonkeyPatch, compress: Callable[[bytes], bytes]
) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(mnist))
    bomb = struct.pack(">4I", 2051, 4_000_000, 32, 32) + bytes(1000)
    (mnist / "train-images-idx3-ubyte.gz").write_bytes(compress(bomb))
    with pytest.raises(FloppyError, match=r"announces 3.81 GiB, an IDX file may have 512 MiB at most"):
        make_task("mnist")


def test_a_pipe_among_idx_files_is_refused(mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(mnist))
    (mnist / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(FloppyError, match="There is no such file"):
        make_task("mnist")
    os.mkfifo(mnist / "t10k-labels-idx1-ubyte.gz")
    with pytest.raises(FloppyError, match="not a regular file"):
        make_task("mnist")


def test_a_folder_that_is_none_says_so(mnist: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(tmp_path / "absent"))
    with pytest.raises(FloppyError, match="No such file or directory"):
        make_task("mnist")
    monkeypatch.setenv("FLOPPY_DATA", "~/mnist")
    monkeypatch.setenv("HOME", str(mnist.parent))
    assert len(labelled_task("mnist").labelled().labels) == 20


IMAGES, LABELS = stripes(30)
PLAIN = (0, 1, 2)


def written(path: Path, **arrays: Any) -> ImageTask:
    """The task of a file of these arrays."""
    np.savez(path, **arrays)
    return labelled_task(f"images/{path}")


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (LABELS[:, None], PLAIN),
        (LABELS + 1, (1, 2, 3)),
        (LABELS - 1, (-1, 0, 1)),
        (LABELS * 2, (0, 2, 4)),
        (LABELS.astype(np.int64) + 2**40, (2**40, 2**40 + 1, 2**40 + 2)),
        (LABELS.astype(np.uint8)[:, None] + 5, (5, 6, 7)),
        (LABELS.astype(np.float16) + 1, (1, 2, 3)),
        (LABELS.astype(">f8"), PLAIN),
        (np.eye(3)[LABELS], PLAIN),
        (np.eye(3, dtype=bool)[LABELS], PLAIN),
        (np.eye(5)[LABELS + 1], (1, 2, 3)),
        (LABELS > 0, (0, 1)),
        (np.array(["ant", "bee", "Ö"])[LABELS], ("ant", "bee", "Ö")),
        (np.array(["ant", "bee", "cat"])[LABELS][:, None], ("ant", "bee", "cat")),
        (np.array([b"ant", b"bee", b"cat"])[LABELS], ("ant", "bee", "cat")),
    ],
    ids=[
        "column",
        "from-1",
        "from--1",
        "gaps",
        "large",
        "bytes-column",
        "float16",
        "float64",
        "one-hot",
        "truths",
        "empty-classes",
        "yes-no",
        "words",
        "column-of-words",
        "bytes",
    ],
)
def test_labels_of_any_kind_become_classes(tmp_path: Path, labels: np.ndarray, classes: tuple[int | str, ...]) -> None:
    task = written(tmp_path / "a.npz", images=IMAGES, labels=labels, test_images=IMAGES, test_labels=labels)
    assert (task.classes, task.actions) == (classes, Discrete(len(classes)))
    np.testing.assert_array_equal(task.labelled("test").labels, np.minimum(LABELS, len(classes) - 1))
    assert task.labelled("test").labels.dtype == np.int32
    noted = task.card_notes.removeprefix("The classes, from 0, are the labels ")
    assert (json.loads(noted) if noted else list(range(len(classes)))) == list(classes)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        (("x_train", "y_train"), None, ("x_test", "y_test")),
        (("X_train", "Y_train"), ("X_val", "y_val"), ("X_test", "Y_test")),
        (("train_images", "train_labels"), ("val_images", "val_labels"), ("test_images", "test_labels")),
        (("x", "y"), None, None),
        (("images", "labels"), None, ("x_test", "y_test")),
    ],
    ids=["Keras", "upper-case", "MedMNIST", "x-y", "mixed"],
)
def test_npz_files_have_several_names_for_the_same(
    tmp_path: Path, train: tuple[str, str], validation: tuple[str, str] | None, test: tuple[str, str] | None
) -> None:
    arrays = {"notes": np.array("read by nobody"), "pickled": np.array([{}])}
    for pair, count in ((train, 30), (validation, 12), (test, 9)):
        if pair:
            arrays |= dict(zip(pair, stripes(count), strict=True))
    task = written(tmp_path / "a.npz", **arrays)
    sizes = [len(task.labelled(split).labels) for split in ("train", "held-out", "test")]
    assert sum(sizes) == 30 + (12 if validation else 0) + (9 if test else 0)
    assert sizes[2] == (9 if test else 10)


@pytest.mark.parametrize(
    ("shape", "seen"),
    [
        ((3, 6, 5), (6, 5, 3)),
        ((1, 8, 8), (8, 8, 1)),
        ((1, 4, 4), (4, 4, 1)),
        ((3, 4, 4), (4, 4, 3)),
        ((8, 8, 3), (8, 8, 3)),
        ((4, 4, 3), (4, 4, 3)),
        ((3, 3, 2), (3, 3, 2)),
        ((8, 6, 13), (8, 6, 13)),
        ((1, 20, 1), (1, 20, 1)),
    ],
)
def test_channels_may_come_first(tmp_path: Path, shape: tuple[int, ...], seen: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random((20, *shape)).astype(np.float16)
    labels = np.arange(20) % 2
    task = written(tmp_path / "a.npz", images=images, labels=labels, test_images=images, test_labels=labels)
    assert task.observation_shape == seen
    wanted = images if seen == shape else np.moveaxis(images, 1, -1)
    np.testing.assert_array_equal(task.labelled("test").images, wanted.astype(np.float32))
    assert task.labelled("test").images.dtype == np.float32


def test_a_file_that_announces_too_much_is_refused(tmp_path: Path) -> None:
    announce(tmp_path / "a.npz", images=(3_000_000, 1000), labels=(3_000_000,))
    with pytest.raises(FloppyError, match=r"2.8 GiB of arrays, 'images' alone 2.79 GiB.*512 MiB are read at most"):
        make_task(f"images/{tmp_path / 'a.npz'}")


def test_home_is_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_stripes(tmp_path)
    assert labelled_task("images/~/stripes.npz").task_id == "images/~/stripes.npz"


def test_equal_names_in_two_folders_are_two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder, classes in (("a", 2), ("b", 3)):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        assert written(Path("same.npz"), images=IMAGES, labels=LABELS % classes).actions.size == classes


def test_a_file_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    before = written(tmp_path / "a.npz", images=IMAGES, labels=LABELS)
    after = written(tmp_path / "a.npz", images=IMAGES, labels=LABELS % 2)
    assert (before.actions.size, after.actions.size) == (3, 2)


# --- images of a card ---


def moved_dataset(tmp_path: Path) -> DistilledDataset:
    """Of a file that is elsewhere now, `tmp_path/new/cat.npz`, with labels from 1."""
    (tmp_path / "new").mkdir()
    np.savez(tmp_path / "new" / "cat.npz", images=IMAGES, labels=LABELS + 1)
    np.savez(tmp_path / "new" / "two.npz", images=IMAGES, labels=LABELS > 0)
    np.savez(tmp_path / "new" / "small.npz", images=IMAGES[:, :3], labels=LABELS)
    card = {"task": "images/old/cat.npz", "actions": {"kind": "discrete", "size": 3}}
    return hand_dataset(card, observations=np.zeros((3, 4, 5, 1)), targets=np.eye(3), log_std=None)


def test_a_path_on_a_card_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FLOPPY_DATA", raising=False)
    (tmp_path / "old").mkdir()
    np.savez(tmp_path / "old" / "cat.npz", images=IMAGES, labels=LABELS)
    with pytest.raises(FloppyError, match=r"say where the images are, by --data, --task images/FILE.npz"):
        unpack(moved_dataset(tmp_path)).task()


@pytest.mark.parametrize("given", ["new", "new/cat.npz", "~/new/cat.npz"])
def test_images_that_moved_are_found_where_the_user_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    lesson = unpack(moved_dataset(tmp_path))
    monkeypatch.setenv("FLOPPY_DATA", given)
    assert lesson.task().task_id == f"images/{given if given.endswith('.npz') else 'new/cat.npz'}"
    assert lesson.task("images/new/cat.npz").actions == Discrete(3)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        ("new/two.npz", "3 action outputs, .* has .* and 2"),
        ("new/small.npz", r"shape \(4, 5, 1\) .* has \(3, 5, 1\)"),
        ("absent", "There is no such file"),
    ],
)
def test_other_images_in_their_place_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, complaint: str
) -> None:
    monkeypatch.setenv("FLOPPY_DATA", str(tmp_path / given))
    with pytest.raises(FloppyError, match=complaint):
        unpack(moved_dataset(tmp_path)).task()


WRONG: list[tuple[dict[str, np.ndarray], str]] = [
    ({"images": IMAGES}, "it needs images and labels"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES}, "both of test_images and test_labels"),
    ({"images": IMAGES.reshape(30, -1), "labels": LABELS}, "holds images of shape"),
    ({"images": np.full((30, 2, 2), np.nan), "labels": LABELS}, "NaN or infinite pixels"),
    ({"images": np.full((30, 2, 2), 1e300), "labels": LABELS}, "type float64: .*or floats up to"),
    ({"images": IMAGES.astype(np.int64), "labels": LABELS}, "type int64"),
    ({"images": np.zeros((10_001, 1, 1), np.uint8), "labels": np.arange(10_001)}, "10001 different labels: .*10000"),
    ({"images": IMAGES, "labels": np.array([f"{n:0200}" for n in range(30)])}, "no training image of class '0"),
    ({"images": IMAGES, "labels": np.array([f"{n:0201}" for n in range(30)])}, "200 characters at most"),
    ({"images": np.zeros((2000, 1, 1), np.uint8), "labels": [f"{n:0200}" for n in range(2000)]}, "card has room for"),
    ({"images": IMAGES, "labels": LABELS, "test_images": IMAGES / 255, "test_labels": LABELS}, "one size and type"),
    ({"images": IMAGES, "labels": LABELS, "x_test": IMAGES, "y_test": LABELS + 2}, "no training image of class 3"),
    ({"images": IMAGES, "labels": LABELS[:-1]}, "for 30 images"),
    ({"images": IMAGES, "labels": LABELS + 0.5}, "holds labels of"),
    ({"images": IMAGES, "labels": np.full(30, 7)}, "label 7 for every image"),
    ({"images": IMAGES, "labels": np.full(30, np.nan)}, "not all whole"),
    ({"images": IMAGES, "labels": LABELS.astype(np.uint64) + 2**60}, "not all whole numbers between .* and 2..53:"),
    ({"images": IMAGES, "labels": LABELS.astype(np.uint64) + 2**63}, "not all whole numbers between .* and 2..53:"),
    ({"images": IMAGES, "labels": np.ones((30, 3))}, "not one-hot"),
    ({"images": IMAGES, "labels": np.zeros((30, 3))}, "not one-hot"),
    ({"images": IMAGES, "labels": LABELS[:, None, None]}, "holds labels of shape"),
    ({"images": IMAGES, "labels": LABELS.astype(complex)}, "holds labels of"),
    ({"images": IMAGES, "labels": np.array([b"\xff"] * 30)}, "no text"),
    ({"images": IMAGES, "labels": np.full(30, 0x110000, "<u4").view("<U1")}, "no text"),
    ({"images": IMAGES, "labels": LABELS.astype(object)}, "Python objects in labels"),
    ({"images": IMAGES, "labels": LABELS, "x_train": IMAGES, "y_train": LABELS}, "several names, images and x_train"),
    ({"X": IMAGES, "x": IMAGES, "y": LABELS}, "differ in case alone"),
    ({"images": IMAGES, "labels": LABELS, "x_test": IMAGES, "y_test": LABELS.astype(str)}, "words as labels of some"),
    ({"x_train": IMAGES, "y_train": LABELS, "x_val": IMAGES[:, :3], "y_val": LABELS}, "one size and type"),
    ({"images": np.zeros((30, 13, 20, 20), np.uint8), "labels": LABELS}, "channels came first: .*moveaxis"),
    ({"images": np.zeros((30, 784), np.uint8), "labels": LABELS}, r"images.reshape\(30, 28, 28\)"),
    ({"images": IMAGES > 90, "labels": LABELS}, "type bool: give bytes"),
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
    os.mkfifo(tmp_path / "pipe.npz")
    np.save(tmp_path / "single.npy", IMAGES)
    (tmp_path / "single.npy").rename(tmp_path / "single.npz")
    wrong = {"text.npz": "is no .npz archive", "folder.npz": "This is a folder", "absent.npz": "There is no such file"}
    wrong |= {"a\0.npz": "cannot be read", f"{'long' * 1000}.npz": "cannot be read", "pipe.npz": "not a regular file"}
    wrong |= {"single.npz": "is a single .npy array", "text.npz/a.npz": "Not a directory"}
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


@pytest.mark.thorough
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
