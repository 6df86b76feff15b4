"""Files of labelled images as they come: IDX files, plain and gzipped, and `.npz` files with several sets of keys."""

import gzip
import json
import math
import os
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple, cast

import numpy as np

from floppy.errors import FloppyError, one_line
from floppy.files import MEBIBYTE, check_file, size_text
from floppy.npz import listed_arrays, read_npz
from floppy.tasks.base import Labelled

MOST_BYTES = 512 * MEBIBYTE
"""Of the images and labels of one file, once they are decompressed."""

MOST_ENTRIES = 10_000
"""Entries of a folder among which files are looked for."""

IMAGES_MAGIC, LABELS_MAGIC = 2051, 2049
MOST_SIDE = 2**16
"""Pixels."""

GZIP_MAGIC = b"\x1f\x8b"
CHUNK = MEBIBYTE

TRAIN, VALIDATION, TEST = "train", "validation", "test"

KEYS: dict[str, tuple[tuple[str, str], ...]] = {
    TRAIN: (("images", "labels"), ("x_train", "y_train"), ("train_images", "train_labels"), ("x", "y")),
    VALIDATION: (("val_images", "val_labels"), ("x_val", "y_val"), ("x_valid", "y_valid")),
    TEST: (("test_images", "test_labels"), ("x_test", "y_test")),
}
"""The names of arrays in an .npz file, in any case: this library's, Keras's and MedMNIST's."""

KEYS_TEXT = (
    "it needs images and labels (or x_train and y_train, or train_images and train_labels), and may have both of "
    "test_images and test_labels (or x_test and y_test), both of val_images and val_labels"
)

MAX_PIXEL = 1e6
CHANNELS = (1, 2, 3, 4)
"""How many an image may have for their axis to be told from those of pixels."""

MAX_CLASSES = 10_000
MAX_WORD = 200
"""Characters of a label that is a word."""

MOST_LABELS_BYTES = 256 * 1024
"""Of all labels as JSON, for they are written on the card."""

RAW = "raw"
"""The folder within a data set's own in which torchvision has its files."""

IDX_FILE = "an IDX file"
IDX_NAME = re.compile(r"(train|t10k|test)[-_.]?(images|labels)[-_.]?(idx[13])?[-_.]?(ubyte)?(\.gz)?", re.IGNORECASE)
"""Of MNIST's files: LeCun's names, the dotted ones, with and without .gz."""


class ImageSets(NamedTuple):
    """What a file, or a folder of files, holds."""

    train: Labelled
    """Validation images among them, where there are some."""
    test: Labelled | None
    labels: tuple[int | str, ...]
    """What each class, from 0, is called in the file."""


def read_idx_folder(folder: Path) -> ImageSets:
    """The training and test images of MNIST's four files, whatever they are called."""
    parts = {}
    for part, names in ((TRAIN, ("train",)), (TEST, ("t10k", "test"))):
        images_path, labels_path = (_idx_path(folder, names, kind) for kind in ("images", "labels"))
        images = _read_idx(images_path, IMAGES_MAGIC, 3)[..., None]
        labels = _read_idx(labels_path, LABELS_MAGIC, 1)
        if len(images) != len(labels):
            raise FloppyError(
                f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels: give files that belong "
                "together."
            )
        parts[part] = Labelled(images, labels.astype(np.int64))
    return _image_sets(folder, parts)


def holds_idx(folder: Path) -> bool:
    """Whether a folder has training images in IDX format, by its names."""
    return next(_idx_paths(folder, ("train",), "images"), None) is not None


def folders_named(root: Path, name: str) -> Iterator[Path]:
    """Folders in which a data set of a name may lie: `root/NAME`, however it is spelt, and `raw` in it.

    Args:
      root: the folder that the user has named; it comes last.
      name: of the data set, such as fashion-mnist.
    """
    for folder in (*(each for each in _entries(root) if spelling(each.name) == spelling(name)), root):
        yield from (folder, folder / RAW)


def spelling(name: str) -> str:
    """A name in small letters alone: fashion-mnist and FashionMNIST are one."""
    return re.sub("[^a-z]", "", name.lower())


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, by name, none if it cannot be looked into."""
    try:
        with os.scandir(folder) as found:
            return sorted(folder / entry.name for entry, _ in zip(found, range(MOST_ENTRIES), strict=False))
    except (OSError, ValueError):
        return []


def _idx_paths(folder: Path, parts: tuple[str, ...], kind: str) -> Iterator[Path]:
    """Files of a part and kind by their names, plain ones first; Kaggle has some in a folder of the same name."""
    for path in _entries(folder):
        match = IDX_NAME.fullmatch(path.name)
        if match and match[1].lower() in parts and match[2].lower() == kind:
            yield path / path.name if os.path.isdir(path) else path


def _idx_path(folder: Path, parts: tuple[str, ...], kind: str) -> Path:
    plain = f"{parts[0]}-{kind}-idx{3 if kind == 'images' else 1}-ubyte"
    return next(_idx_paths(folder, parts, kind), folder / plain)


def _read_idx(path: Path, magic: int, dimensions: int) -> np.ndarray:
    """The bytes of an IDX file (LeCun's MNIST page): magic number and sizes, big-endian, then the values."""
    check_file(path, IDX_FILE, most=MOST_BYTES + MEBIBYTE)
    try:
        with path.open("rb") as raw:
            is_gzip = raw.read(2) == GZIP_MAGIC
            raw.seek(0)
            with gzip.open(raw) if is_gzip else raw as file:
                return _idx_values(path, cast(IO[bytes], file), magic, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): give the whole file.") from error


def _idx_values(path: Path, file: IO[bytes], magic: int, dimensions: int) -> np.ndarray:
    size = 4 * (1 + dimensions)
    head = file.read(size)
    found, *shape = struct.unpack(f">{1 + dimensions}I", head) if len(head) == size else (0,)
    if found != magic:
        raise FloppyError(
            f"{path} begins with {found} where an IDX file of its kind has {magic}: give the original file."
        )
    if not all(1 <= side <= MOST_SIDE for side in shape[1:]):
        raise FloppyError(f"{path} announces images of {shape[1:]} pixels: give the original file.")
    announced = math.prod(shape)
    if announced > MOST_BYTES:
        raise FloppyError(
            f"{path} announces {size_text(announced)}, {IDX_FILE} may have {size_text(MOST_BYTES)} at most: give fewer "
            "images."
        )
    values, at = np.empty(announced, np.uint8), 0  # which takes memory only as it is filled
    while at < announced and (got := file.read(min(CHUNK, announced - at))):
        values[at : at + len(got)] = np.frombuffer(got, np.uint8)
        at += len(got)
    if at < announced or file.read(1):
        held = f"{at}" if at < announced else "more"
        raise FloppyError(f"{path} announces {announced} bytes and holds {held}: give the whole file.")
    return values.reshape(shape)


def read_image_npz(path: Path) -> ImageSets:
    """The images of an .npz file.

    Raises:
      FloppyError: for a file that cannot be read, or holds no images and labels that this library can use.
    """
    known = {key for pairs in KEYS.values() for pair in pairs for key in pair}
    arrays, names = read_npz(
        path,
        lambda name, _: name.lower() in known,
        most=MOST_BYTES,
        what="an .npz file with images and labels",
        remedy="give fewer images, or bytes (uint8) in place of floats",
    )
    by_key = {name.lower(): array for name, array in arrays.items()}
    if len(by_key) < len(arrays):
        raise FloppyError(
            f"{path} holds {listed_arrays(list(arrays))}, some of which differ in case alone: rename one."
        )
    parts = {}
    for part, pairs in KEYS.items():
        images, labels = _pair(path, by_key, names, pairs, part)
        if images is not None and labels is not None:
            parts[part] = Labelled(_checked_images(path, images), _plain_labels(path, labels, len(images)))
    return _image_sets(path, parts)


def _pair(
    path: Path, arrays: dict[str, np.ndarray], names: list[str], pairs: tuple[tuple[str, str], ...], part: str
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The images and labels of a part, `None` twice where a part that may be left out is."""
    whole = [pair for pair in pairs if set(pair) <= arrays.keys()]
    if len(whole) > 1:
        raise FloppyError(
            f"{path} holds {part} images under several names, {' and '.join(pair[0] for pair in whole)}: leave one "
            "pair of them."
        )
    if not whole and (part == TRAIN or any(arrays.keys() & set(pair) for pair in pairs)):
        raise FloppyError(f"{path} holds {listed_arrays(names)}: {KEYS_TEXT}.")
    return (arrays[whole[0][0]], arrays[whole[0][1]]) if whole else (None, None)


def _checked_images(path: Path, images: np.ndarray) -> np.ndarray:
    """Images `[n, rows, columns, channels]`, bytes or float32."""
    held = f"{path} holds images of shape {images.shape} and type {images.dtype}"
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise FloppyError(f"{held}: give [n, rows, columns] or [n, rows, columns, channels]{_square(images.shape)}.")
    is_byte = images.dtype == np.uint8
    if images.dtype.kind == "f":
        least, most = float(images.min()), float(images.max())
        if not math.isfinite(least) or not math.isfinite(most):
            raise FloppyError(f"{path} holds images with NaN or infinite pixels: give finite ones.")
        is_byte_or_float = max(-least, most) <= MAX_PIXEL
    else:
        is_byte_or_float = is_byte
    if not is_byte_or_float:
        raise FloppyError(f"{held}: give bytes (uint8: images.astype('uint8')) or floats up to {MAX_PIXEL:g}.")
    pixels = images if is_byte else images.astype(np.float32)
    return pixels[..., None] if images.ndim == 3 else _channels_last(path, pixels)


def _square(shape: tuple[int, ...]) -> str:
    """The remedy for images that were flattened, if they can have been square."""
    side = math.isqrt(shape[1]) if len(shape) == 2 else 0
    return f", such as images.reshape({shape[0]}, {side}, {side})" if side > 1 and side**2 == shape[1] else ""


def _channels_last(path: Path, images: np.ndarray) -> np.ndarray:
    """Images `[n, rows, columns, channels]` from those, or from PyTorch's `[n, channels, rows, columns]`.

    The last axis counts channels where it has few entries, unless those behind the first are a larger square, as of
    one channel of 4 x 4 pixels.
    """
    _, first, rows, columns = images.shape
    is_square = rows == columns > first
    if first in CHANNELS and (columns not in CHANNELS or is_square):
        return np.moveaxis(images, 1, -1)
    if columns not in CHANNELS and is_square:
        raise FloppyError(
            f"{path} holds images of shape {images.shape}, which look as if the channels came first: move them to the "
            "end (numpy.moveaxis(images, 1, -1))."
        )
    return images


def _plain_labels(path: Path, labels: np.ndarray, count: int) -> np.ndarray:
    """Labels `[n]` as whole numbers or words, from `[n]`, `[n, 1]`, or one-hot `[n, classes]`."""
    held = f"{path} holds labels of shape {labels.shape} and type {labels.dtype}"
    plain = labels[:, 0] if labels.ndim == 2 and labels.shape[1] == 1 else labels
    is_number = plain.dtype.kind in "buif"
    if plain.ndim == 2 and len(plain) == count and is_number:
        if not (np.isin(plain, (0, 1)).all() and (np.count_nonzero(plain, axis=1) == 1).all()):
            raise FloppyError(f"{held} that are not one-hot: give one label for each image, [{count}].")
        return np.argmax(plain, axis=1)
    if plain.shape != (count,) or not (is_number or plain.dtype.kind in "US"):
        raise FloppyError(f"{held} for {count} images: give as many whole numbers or words, [{count}].")
    if not is_number:
        return _words(path, plain)
    numbers = plain.astype(np.float64) if plain.dtype.kind == "f" else plain
    if not ((numbers == np.floor(numbers)) & (numbers < 2**53) & (numbers > -(2**53))).all():
        raise FloppyError(
            f"{held} that are not all whole numbers between -2**53 and 2**53: give such numbers or words, one for each "
            "image."
        )
    return numbers.astype(np.int64)


def _words(path: Path, words: np.ndarray) -> np.ndarray:
    """Labels that are words, as text."""
    if words.dtype.itemsize > MAX_WORD * (4 if words.dtype.kind == "U" else 1):
        raise FloppyError(
            f"{path} holds labels of type {words.dtype}: give words of {MAX_WORD} characters at most, or whole numbers."
        )
    try:
        text = np.char.decode(words, "utf-8") if words.dtype.kind == "S" else words
        "".join(np.unique(text)).encode()
    except (ValueError, SystemError) as error:  # of code points that there are not
        raise FloppyError(f"{path} holds labels that are no text ({one_line(error)}): give words.") from error
    return np.asarray(text)


def _image_sets(source: Path, parts: dict[str, Labelled]) -> ImageSets:
    """The parts of a source, of one size, type and numbering: classes are the labels in sorted order, from 0."""
    (first, *others) = parts.values()
    for other in others:
        if (first.images.shape[1:], first.images.dtype) != (other.images.shape[1:], other.images.dtype):
            raise FloppyError(
                f"{source} holds training images of shape {first.images.shape[1:]} and type {first.images.dtype}, "
                f"others of shape {other.images.shape[1:]} and type {other.images.dtype}: give images of one size and "
                "type."
            )
    kinds = {part.labels.dtype.kind == "U" for part in parts.values()}
    if len(kinds) > 1:
        raise FloppyError(f"{source} holds words as labels of some images, numbers of others: give one kind.")
    labels = np.unique(np.concatenate([np.unique(part.labels) for part in parts.values()]))
    if len(labels) > MAX_CLASSES:
        raise FloppyError(
            f"{source} holds {len(labels)} different labels: give those of {MAX_CLASSES} classes at most."
        )
    names = tuple(labels.tolist())
    if len(json.dumps(names)) > MOST_LABELS_BYTES:
        raise FloppyError(
            f"{source} holds labels of {size_text(len(json.dumps(names)))} as text, of which the card has room for "
            f"{size_text(MOST_LABELS_BYTES)}: give shorter words, or numbers."
        )
    numbered = {
        name: Labelled(part.images, np.searchsorted(labels, part.labels).astype(np.int32))
        for name, part in parts.items()
    }
    train = numbered[TRAIN]
    if VALIDATION in numbered:
        train = Labelled(*map(np.concatenate, zip(train, numbered[VALIDATION], strict=True)))
    return ImageSets(train, numbered.get(TEST), names)
