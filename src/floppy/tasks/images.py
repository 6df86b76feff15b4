"""Labelled images as tasks: a policy is a classifier, its actions are the classes, an episode is one image."""

import dataclasses
import functools
import gzip
import math
import os
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any, Literal

import numpy as np

from floppy.errors import FloppyError, one_line, shown
from floppy.spaces import Discrete
from floppy.tasks.base import Labelled
from floppy.tasks.lookup import import_optional, unknown_task

DESCRIPTION = (
    "labelled images, images/FILE.npz for a file with images and labels, mnist and fashion-mnist from their own files "
    "(--data); digits need pip install 'floppy-rl[images]'"
)
SHORT_NAMES = {name: name for name in ("digits", "mnist", "fashion-mnist")}
DATA_VARIABLE = "FLOPPY_DATA"
IDX_NAMES = ("mnist", "fashion-mnist")
NAMES = ("digits", *IDX_NAMES)
IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
MAX_HELD_OUT = 5000
MIN_IMAGES = 10
MAX_CLASSES = 10_000
MAX_PIXEL = 1e6
SPLIT_SEED = 0
"""Of the permutations by which images are put aside: the same for everyone."""

Split = Literal["train", "held-out", "test"]


@dataclasses.dataclass(frozen=True)
class ImageTask:
    """Images of which the class is asked for; the return of an episode is 100 for the right answer, else 0.

    A mean return is therefore an accuracy in percent: over the test images for scores, over training images held out
    for the choice of the best dataset. Outer loops learn from the other training images.
    """

    name: str
    """digits, mnist, fashion-mnist, or the path of an .npz file."""
    folder: str = ""
    """Where the files of mnist and fashion-mnist lie."""
    split: Split = "test"
    """The images that are played."""

    @property
    def task_id(self) -> str:
        """`images/NAME`."""
        return f"images/{self.name}"

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """`(rows, columns, channels)`."""
        return tuple(self.labelled().images.shape[1:])

    @property
    def actions(self) -> Discrete:
        """One per class."""
        return Discrete(_data(self.name, self.folder).classes)

    @property
    def max_steps(self) -> int:
        """One answer."""
        return 1

    @property
    def max_return(self) -> None:
        """None: no classifier is right about every image, so nobody counts those that are."""

    @property
    def package(self) -> str:
        """That of the data."""
        return "scikit-learn" if self.name == "digits" else "numpy"

    def labelled(self, split: Split | None = None) -> Labelled:
        """The images of a split, by default those that are played."""
        return _data(self.name, self.folder).splits[split or self.split]

    def with_split(self, split: Split) -> "ImageTask":
        """The task of answering for other images."""
        return dataclasses.replace(self, split=split)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a task is made of."""

    splits: dict[str, Labelled]
    classes: int


def image_task(name: str) -> ImageTask:
    """The task of a name, with its files checked.

    Raises:
      FloppyError: if files are missing or broken, or scikit-learn is not installed.
    """
    task = ImageTask(name, _folder_of(name) if name in IDX_NAMES else "")
    _data(task.name, task.folder)
    return task


def _folder_of(name: str) -> str:
    """The folder that holds the four files of a name: what FLOPPY_DATA names, or NAME within it."""
    root = os.environ.get(DATA_VARIABLE, "")
    if not root:
        raise FloppyError(
            f"images/{name} needs its four .gz files in IDX format: give their folder by --data or {DATA_VARIABLE}."
        )
    is_anothers = Path(root).name in IDX_NAMES and Path(root).name != name
    for folder in (Path(root) / name, *([] if is_anothers else [Path(root)])):
        if (folder / "train-images-idx3-ubyte.gz").is_file():
            return str(folder)
    raise FloppyError(
        f"{shown(root)} holds no {name}/train-images-idx3-ubyte.gz: give the folder in which the four .gz files of "
        f"{name} lie, or the one above, by --data or {DATA_VARIABLE}."
    )


@functools.lru_cache(maxsize=4)
def _data(name: str, folder: str) -> _Data:
    """Reads a task's images, once: they are many megabytes."""
    if name == "digits":
        return _digits()
    if name in IDX_NAMES:
        train, test = _read_idx(Path(folder), "train"), _read_idx(Path(folder), "t10k")
        return _split(train, test, folder)
    train_or_all, test_or_none = _read_npz(Path(name))
    return _split(train_or_all, test_or_none, name)


def _digits() -> _Data:
    datasets = import_optional("sklearn.datasets", "images", "images/digits needs scikit-learn, which holds them")
    images, labels = datasets.load_digits(return_X_y=True)
    return _split(Labelled(images.reshape(-1, 8, 8, 1).astype(np.float32) / 16.0, labels.astype(np.int32)), None, "")


def _split(train: Labelled, test: Labelled | None, source: str) -> _Data:
    """Puts a third aside as test images where there are none, and a tenth of the others (at most 5000) as held out."""
    if test is None:
        train, test = _put_aside(train, len(train.labels) // 3)
    kinds = [(part.images.shape[1:], part.images.dtype) for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise FloppyError(
            f"{source} holds training images of shape {kinds[0][0]} and type {kinds[0][1]}, test images of shape "
            f"{kinds[1][0]} and type {kinds[1][1]}: give images of one size and type."
        )
    if len(train.labels) < MIN_IMAGES or not len(test.labels):
        raise FloppyError(
            f"{source} gives {len(train.labels)} training and {len(test.labels)} test images: give at least "
            f"{MIN_IMAGES} for training, and one for tests (of a file without test images, a third is taken)."
        )
    train, held_out = _put_aside(train, min(MAX_HELD_OUT, len(train.labels) // 10))
    classes = 1 + int(max(part.labels.max() for part in (train, held_out, test)))
    missing = np.setdiff1d(np.arange(classes), train.labels)
    if missing.size:
        raise FloppyError(
            f"{source} has no training image of class {missing[0]} once test images and those that choose the best "
            "dataset are put aside: give more of it, and labels from 0 without gaps."
        )
    return _Data({"train": train, "held-out": held_out, "test": test}, classes)


def _put_aside(labelled: Labelled, count: int) -> tuple[Labelled, Labelled]:
    """What remains, and `count` images chosen at random."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labelled.labels))
    kept, aside = np.sort(order[count:]), np.sort(order[:count])
    return (
        Labelled(labelled.images[kept], labelled.labels[kept]),
        Labelled(labelled.images[aside], labelled.labels[aside]),
    )


def _read_idx(folder: Path, part: str) -> Labelled:
    images_path, labels_path = folder / f"{part}-images-idx3-ubyte.gz", folder / f"{part}-labels-idx1-ubyte.gz"
    images = _read_idx_array(images_path, IMAGES_MAGIC, 3)[..., None]
    labels = _read_idx_array(labels_path, LABELS_MAGIC, 1).astype(np.int32)
    if len(images) != len(labels):
        raise FloppyError(
            f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels: give files that belong "
            "together."
        )
    return Labelled(images, labels)


def _read_idx_array(path: Path, magic: int, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file (LeCun's MNIST page): magic number and sizes, big-endian, then the values."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): give the whole .gz file.") from error
    head = 4 * (1 + dimensions)
    found = struct.unpack(f">{1 + dimensions}I", content[:head]) if len(content) >= head else (0,)
    if found[0] != magic:
        raise FloppyError(
            f"{path} begins with {found[0]} where an IDX file of its kind has {magic}: give the original file."
        )
    if len(content) - head != math.prod(found[1:]):
        raise FloppyError(
            f"{path} announces {math.prod(found[1:])} bytes and holds {len(content) - head}: give the whole file."
        )
    return np.frombuffer(content, np.uint8, offset=head).reshape(found[1:])


def _read_npz(path: Path) -> tuple[Labelled, Labelled | None]:
    """Training images, and test images where the file has them."""
    try:
        is_archive, exists = zipfile.is_zipfile(path), path.exists()
    except (OSError, ValueError):  # no name that any file could have
        is_archive = exists = False
    if not is_archive:
        what = "no .npz archive" if exists else "no file"
        raise FloppyError(
            f"images/{path} is no task: {shown(str(path))} is {what}; give {', '.join(NAMES)}, or the path of an .npz "
            "file with images and labels."
        )
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    except Exception as error:  # a broken archive raises whatever zipfile, zlib or NumPy happens to raise
        raise FloppyError(
            f"{path} is no readable .npz ({one_line(error)}): give a file that numpy.savez wrote."
        ) from error
    if not {"images", "labels"} <= arrays.keys() or ("test_images" in arrays) != ("test_labels" in arrays):
        held = ", ".join(sorted(arrays)) or "nothing"
        raise FloppyError(
            f"{path} holds {held}: it needs images and labels, and may have both of test_images and test_labels."
        )
    train = _checked(path, arrays["images"], arrays["labels"])
    has_test = "test_images" in arrays
    return train, _checked(path, arrays["test_images"], arrays["test_labels"]) if has_test else None


def _checked(path: Path, images: np.ndarray, labels: np.ndarray) -> Labelled:
    if images.dtype.kind == "f" and not np.isfinite(images).all():
        raise FloppyError(f"{path} holds images with NaN or infinite pixels: give finite ones.")
    is_picture = images.ndim in (3, 4) and 0 not in images.shape
    is_byte = images.dtype == np.uint8
    if not is_picture or not (is_byte or (images.dtype.kind == "f" and np.abs(images).max() <= MAX_PIXEL)):
        raise FloppyError(
            f"{path} holds images of shape {images.shape} and type {images.dtype}: give bytes (uint8) or floats up to "
            f"{MAX_PIXEL:g}, [n, rows, columns] or [n, rows, columns, channels]."
        )
    is_whole = labels.shape == images.shape[:1] and labels.dtype.kind in "ui"
    if not is_whole or labels.min() < 0 or labels.max() >= MAX_CLASSES:
        span = f", from {labels.min()} to {labels.max()}," if is_whole else ""
        raise FloppyError(
            f"{path} holds labels of shape {labels.shape} and type {labels.dtype}{span} for {len(images)} images: "
            f"give as many whole numbers from 0, below {MAX_CLASSES}."
        )
    pixels = images if is_byte else images.astype(np.float32)
    return Labelled(pixels if images.ndim == 4 else pixels[..., None], labels.astype(np.int32))


def make(rest: str) -> ImageTask:
    """The task `images/rest`."""
    if rest not in NAMES and not rest.endswith(".npz"):
        raise unknown_task(f"images/{rest}", [f"images/{name}" for name in NAMES])
    return image_task(rest)


def from_file(rest: str, command: str) -> str:
    """The name of images that the user has given in place of a path that a file names; see `task_of_file`.

    Raises:
      FloppyError: where only the file names them.
    """
    del command
    if rest in NAMES:
        return rest
    given = os.environ.get(DATA_VARIABLE, "")
    moved = Path(given) / Path(rest).name
    if given.endswith(".npz") or moved.is_file():
        return given if given.endswith(".npz") else str(moved)
    raise FloppyError(
        f"The file is of task images/{rest}, and no path is opened because a file names it: say where the images are, "
        f"by --data {Path(rest).name} or {DATA_VARIABLE}."
    )


def names() -> list[str]:
    """Those with a name of their own."""
    return list(NAMES)
