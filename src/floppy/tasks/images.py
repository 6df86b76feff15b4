"""Labelled images as tasks: a policy is a classifier, its actions are the classes, an episode is one image."""

import dataclasses
import functools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from floppy.errors import FloppyError, one_line, shown
from floppy.files import as_path
from floppy.spaces import Discrete
from floppy.tasks.base import Labelled
from floppy.tasks.image_files import RAW, ImageSets, folders_named, holds_idx, read_idx_folder, read_image_npz, spelling
from floppy.tasks.lookup import import_optional, unknown_task
from floppy.tasks.pictures import FASHION, Picture, image_picture

DESCRIPTION = (
    "labelled images, images/FILE.npz for a file with images and labels, mnist and fashion-mnist from their own files "
    "(--data); digits need pip install 'floppy-rl[images]'"
)
SHORT_NAMES = {name: name for name in ("digits", "mnist", "fashion-mnist")}
DATA_VARIABLE = "FLOPPY_DATA"
IDX_NAMES = ("mnist", "fashion-mnist")
NAMES = ("digits", *IDX_NAMES)
NPZ = ".npz"
MAX_HELD_OUT = 5000
MIN_IMAGES = 10
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
    source: str = ""
    """Where the images lie: the folder of MNIST's files, or an .npz file."""
    written: int = 0
    """When the .npz file was written, in ns: one that is written again, as in a notebook, is another task."""
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
        return Discrete(len(self.classes))

    @property
    def classes(self) -> tuple[int | str, ...]:
        """The label that each class, from 0, has in the data: numbers, or words."""
        return _data(self.name, self.source, self.written).labels

    @property
    def card_notes(self) -> str:
        """Which label each class stands for, where they are not 0, 1, 2, ... anyway."""
        is_plain = self.classes == tuple(range(len(self.classes)))
        return "" if is_plain else f"The classes, from 0, are the labels {json.dumps(self.classes, ensure_ascii=False)}"

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

    @property
    def picture(self) -> Picture:
        """Images."""
        return picture(self.name) if self.name in NAMES else image_picture(self.classes)

    def labelled(self, split: Split | None = None) -> Labelled:
        """The images of a split, by default those that are played."""
        return _data(self.name, self.source, self.written).splits[split or self.split]

    def with_split(self, split: Split) -> "ImageTask":
        """The task of answering for other images."""
        return dataclasses.replace(self, split=split)


@dataclasses.dataclass(frozen=True)
class _Data:
    """What a task is made of."""

    splits: dict[str, Labelled]
    labels: tuple[int | str, ...]


def image_task(name: str) -> ImageTask:
    """The task of a name, with its files checked.

    Raises:
      FloppyError: if files are missing or broken, or scikit-learn is not installed.
    """
    source = "" if name == "digits" else _source_of(name)
    written = os.stat(source).st_mtime_ns if os.path.isfile(source) else 0
    _data(name, source, written)
    return ImageTask(name, source, written)


def _source_of(name: str) -> str:
    """Where the images of a name lie; an absolute path, for the current folder may change."""
    if name not in IDX_NAMES:
        return os.path.abspath(as_path(name))
    given = os.environ.get(DATA_VARIABLE, "")
    if not given:
        raise FloppyError(
            f"images/{name} needs its four files in IDX format, gzipped or not: give their folder by --data or "
            f"{DATA_VARIABLE}."
        )
    root = as_path(given)
    if os.path.exists(root) and not os.path.isdir(root):
        return os.path.abspath(root)
    found = next((folder for folder in _folders(root, name) if holds_idx(folder)), None)
    if found is None:
        raise FloppyError(
            f"{shown(given)} holds no {name}/train-images-idx3-ubyte{_why_not(root)}: give the folder in which the "
            f"four files of {name} lie, gzipped or not, or the one above, by --data or {DATA_VARIABLE}."
        )
    return os.path.abspath(found)


def _folders(root: Path, name: str) -> Iterator[Path]:
    """Folders in which the files of a name may lie, but for those that are named like another data set."""
    others = {spelling(other) for other in IDX_NAMES if other != name}
    for folder in folders_named(root, name):
        named = folder.parent if folder.name == RAW else folder
        if spelling(named.name) not in others:
            yield folder


def _why_not(folder: Path) -> str:
    """Why nothing is found in a folder, if that is not for want of files."""
    try:
        os.listdir(folder)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder could have
        return f" ({one_line(error)})"
    return ""


@functools.lru_cache(maxsize=4)
def _data(name: str, source: str, written: int) -> _Data:
    """Reads a task's images, once: they are many megabytes."""
    del written
    if name == "digits":
        return _split(_digits(), "images/digits")
    path = Path(source)
    return _split(read_idx_folder(path) if os.path.isdir(path) and name in IDX_NAMES else read_image_npz(path), source)


def _digits() -> ImageSets:
    datasets = import_optional("sklearn.datasets", "images", "images/digits needs scikit-learn, which holds them")
    images, labels = datasets.load_digits(return_X_y=True)
    scaled = images.reshape(-1, 8, 8, 1).astype(np.float32) / 16.0
    return ImageSets(Labelled(scaled, labels.astype(np.int32)), None, tuple(range(10)))


def _split(sets: ImageSets, source: str) -> _Data:
    """Puts a third aside as test images where there are none, and a tenth of the others (at most 5000) as held out."""
    train, test = sets.train, sets.test
    if test is None:
        train, test = _put_aside(train, len(train.labels) // 3)
    if len(train.labels) < MIN_IMAGES or not len(test.labels):
        raise FloppyError(
            f"{source} gives {len(train.labels)} training and {len(test.labels)} test images: give at least "
            f"{MIN_IMAGES} for training, and one for tests (of a file without test images, a third is taken)."
        )
    if len(sets.labels) == 1:
        raise FloppyError(f"{source} has the label {shown(sets.labels[0])} for every image: give at least two classes.")
    train, held_out = _put_aside(train, min(MAX_HELD_OUT, len(train.labels) // 10))
    missing = np.setdiff1d(np.arange(len(sets.labels)), train.labels)
    if missing.size:
        raise FloppyError(
            f"{source} has no training image of class {shown(sets.labels[missing[0]])} once test images and those that "
            "choose the best dataset are put aside: give more of it, or leave it out."
        )
    return _Data({"train": train, "held-out": held_out, "test": test}, sets.labels)


def _put_aside(labelled: Labelled, count: int) -> tuple[Labelled, Labelled]:
    """What remains, and `count` images chosen at random."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labelled.labels))
    kept, aside = np.sort(order[count:]), np.sort(order[:count])
    return (
        Labelled(labelled.images[kept], labelled.labels[kept]),
        Labelled(labelled.images[aside], labelled.labels[aside]),
    )


def make(rest: str) -> ImageTask:
    """The task `images/rest`."""
    if rest not in NAMES and not rest.endswith(NPZ) and not os.path.isfile(as_path(rest)):
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
    given, name = os.environ.get(DATA_VARIABLE, ""), Path(rest).name
    if given:
        moved = as_path(given)
        return given if moved.suffix == NPZ or os.path.isfile(moved) else str(moved / name)
    raise FloppyError(
        f"The file is of task {shown(f'images/{rest}')}, and no path is opened because a file names it: say where the "
        f"images are, by --data, --task images/FILE{NPZ} or {DATA_VARIABLE}."
    )


def picture(rest: str) -> Picture:
    """How `images/rest` is drawn; what the classes of a file are called its card says."""
    if rest == "fashion-mnist":
        return image_picture(FASHION)
    return image_picture(tuple(range(10)) if rest in NAMES else ())


def names() -> list[str]:
    """Those with a name of their own."""
    return list(NAMES)
