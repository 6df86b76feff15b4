"""Datasets from arrays made elsewhere, and their arrays for elsewhere."""

import io
import math
import os
import re
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from floppy.cloning import Cloning, Distilled, GradientStep
from floppy.dataset import DistilledDataset
from floppy.dataset.card import NORMALISERS
from floppy.dataset.file import check_dataset
from floppy.errors import FloppyError, must_be_one_of
from floppy.files import MEBIBYTE, as_path, check_new_file, size_text, write_atomically
from floppy.learner.distribution import parse_distributions
from floppy.learner.network import Layer
from floppy.npz import listed_arrays, read_npz
from floppy.play.normalise import RunningStatistics, restored_statistics
from floppy.tasks import Discrete, Task, make_task, task_of_file
from floppy.tasks.ale import frames_last
from floppy.tasks.base import card_notes
from floppy.teach.codec import CardParts, pack, unpack, versions_of
from floppy.teach.published import read_published

MOST_BYTES = 256 * MEBIBYTE
"""Of the arrays that a dataset is made of."""

OBSERVATIONS, TARGETS = "observations", ("targets", "actions", "y_mean")
RATES, LOG_STDS = ("inner_lr", "inner_rate"), ("y_logstd", "log_std")
ARRAYS = re.compile("|".join((OBSERVATIONS, *TARGETS, *RATES, *LOG_STDS, "obs_(mean|var)", "encoder_conv[1-9]_[a-z]+")))
"""The names of the arrays that are read."""


def import_npz(
    path: Path | str,
    task: str = "",
    *,
    cloning: Cloning | None = None,
    rate: float | None = None,
    distribution: str = "",
    normaliser: str = "",
    notes: str = "",
    command: str = "",
) -> DistilledDataset:
    """A dataset from the arrays of an `.npz` file.

    Args:
      path: the file. Read are observations `[k, *obs]`; targets, actions or y_mean `[k, a]`, of discrete actions also
        their numbers `[k]` or `[k, 1]`, which become one-hot targets; where present inner_lr or inner_rate `[]`,
        y_logstd or log_std `[a]`, obs_mean and obs_var `[*obs]`; and the text `meta` of a published HaDES or PPMO run,
        which then gives the defaults of everything below, and names an encoder's arrays.
      task: id of the task that the dataset is of.
      cloning: how fresh policies learn from it; by default one gradient step.
      rate: of the cloning steps; by default the file's.
      distribution: the learners that it is for, see `parse_distribution`; by default lambda.
      normaliser: none, frozen or per-evaluation; by default frozen if the file has statistics.
      notes: where it comes from, for the card.
      command: what made it, for the card.

    Returns:
      The dataset, checked against the task.

    Raises:
      FloppyError: if the file cannot be read, is larger than `MOST_BYTES`, lacks an array, or does not fit the task.
    """
    path = as_path(path)
    published = read_published(path)
    arrays = _read_arrays(path)
    if not (task or published):
        raise FloppyError(f"{path} does not say which task it is of: name the task (--task).")
    known = make_task(task) if task else task_of_file(published["task"])
    given = {"cloning": cloning, "rate": rate, "distribution": distribution, "normaliser": normaliser, "notes": notes}
    published |= {name: value for name, value in given.items() if value not in (None, "")}
    distilled = _distilled(path, arrays, known, published)
    statistics, per_evaluation_stats = _statistics(path, arrays, known, published.get("normaliser", ""))
    learners = parse_distributions(published.get("distribution", "lambda"))
    parts = CardParts(
        task=known.task_id,
        actions=known.actions,
        cloning=published.get("cloning", GradientStep()),
        learners=learners,
        per_evaluation_stats=per_evaluation_stats,
        encoder_of=learners[0].layers if distilled.encoder else 0,
    )
    dataset = pack(
        parts,
        distilled,
        statistics,
        algorithm={"name": "import", "config": {"file": path.name}},
        command=command,
        versions=versions_of(known.package, why=known.task_id),
        licence="NOASSERTION",  # SPDX's word for what nobody has said
        reference_score=published.get("reference_score"),
        notes="\n".join(filter(None, (published.get("notes", ""), card_notes(known)))),
    )
    lesson = unpack(dataset)
    lesson.task(task)
    lesson.network()
    return dataset


def export_npz(dataset: DistilledDataset, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a dataset's arrays to an `.npz` file, by the names of its tensors, and its card as the text `card`.

    `import_npz` reads them back where the card has no units of actions, no `epsilon` and no encoder; all else, the
    recipe among it, is to be said again.

    Args:
      dataset: what to write.
      path: the file.
      overwrite: whether a file that stands there may be replaced.

    Raises:
      FloppyError: for anything but a dataset, if the file exists and `overwrite` is false, or if it cannot be written.
    """
    check_dataset(dataset)
    check_new_file(path, overwrite=overwrite)
    data = io.BytesIO()
    arrays: dict[str, Any] = {"card": np.array(dataset.card.to_json()), **dataset.numpy()}
    np.savez(data, **arrays)
    write_atomically(path, data.getvalue())


def _distilled(path: Path, arrays: dict[str, np.ndarray], task: Task, published: dict[str, Any]) -> Distilled:
    """The tensors of the dataset."""
    rates = (published.get("rate"), _find(arrays, RATES), published.get("own_rate"))
    rate = next((each for each in rates if each is not None), None)
    if rate is None:
        raise FloppyError(f"{path} holds neither inner_lr nor inner_rate: give the rate (--rate).")
    observations, targets = _examples(path, arrays, task, frames_first="frames_first" in published)
    log_std = _find(arrays, LOG_STDS)
    with np.errstate(over="ignore"):  # a dataset refuses what has become infinite
        return Distilled(
            jnp.asarray(observations),
            jnp.asarray(targets.astype(np.float32)),
            jnp.zeros(0) if log_std is None else jnp.asarray(log_std.ravel()),
            jnp.asarray(rate, jnp.float32),
            _encoder_of(path, arrays, published.get("encoder_layers", 0)),
        )


def _statistics(
    path: Path, arrays: dict[str, np.ndarray], task: Task, normaliser: str
) -> tuple[RunningStatistics | None, bool]:
    """Statistics of observations, if they are stored, and whether they start with zero in every evaluation."""
    mean, var = arrays.get("obs_mean"), arrays.get("obs_var")
    normaliser = normaliser or ("none" if mean is None or not mean.size else "frozen")
    if normaliser not in NORMALISERS:
        raise must_be_one_of("normaliser", normaliser, NORMALISERS)
    if normaliser != "frozen":
        return None, normaliser == "per-evaluation"
    if mean is None or var is None:
        raise FloppyError(f"normaliser must be none or per-evaluation, for {path} holds no obs_mean and obs_var.")
    return restored_statistics(_reshape_to(task, mean), _reshape_to(task, var)), False


def _examples(
    path: Path, arrays: dict[str, np.ndarray], task: Task, *, frames_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[k, *obs]` and targets `[k, a]` of the task."""
    observations, targets = arrays[OBSERVATIONS], _find(arrays, TARGETS)
    assert targets is not None, "`_read_arrays` asks for them"
    if frames_first and observations.ndim == 4:
        observations = frames_last(observations)
    else:
        observations = _reshape_to(task, observations)
    examples = observations.shape[:1]
    targets = _targets(path, targets, task, examples)
    shapes = observations.shape, targets.shape
    wanted = (*examples, *task.observation_shape), (*examples, task.actions.size)
    if shapes != wanted:
        raise FloppyError(
            f"{path} holds observations of shape {shapes[0]} and targets of shape {shapes[1]}, {task.task_id} "
            f"needs {wanted[0]} and {wanted[1]}: give the task that it was distilled for."
        )
    return observations, targets


def _targets(path: Path, targets: np.ndarray, task: Task, examples: tuple[int, ...]) -> np.ndarray:
    """Targets `[k, a]`; of one number per example the one-hot ones, where these are the numbers of discrete actions."""
    size = task.actions.size
    if targets.shape == (*examples, size) or targets.shape not in (examples, (*examples, 1)):
        return targets
    if not isinstance(task.actions, Discrete):
        return targets[:, None] if (size, targets.ndim) == (1, 1) else targets
    is_number = (targets >= 0) & (targets < size) & (targets == np.floor(targets))
    if not is_number.all():
        row = int(np.argmin(is_number.ravel()))
        raise FloppyError(
            f"{path} holds action {targets.ravel()[row]} in row {row}, {task.task_id} has actions 0 to {size - 1}: "
            "give their whole numbers, from 0, or targets [k, a]."
        )
    if 4 * targets.size * size > MOST_BYTES:
        raise FloppyError(
            f"{path} holds {targets.size} actions, {size_text(4 * targets.size * size)} as one-hot targets, of which "
            f"{size_text(MOST_BYTES)} are taken at most: a dataset holds a few examples, so give those alone."
        )
    one_hot = np.zeros((targets.size, size), np.float32)
    one_hot[np.arange(targets.size), targets.ravel().astype(np.int64)] = 1.0
    return one_hot


def _reshape_to(task: Task, array: np.ndarray) -> np.ndarray:
    """Flattened observations in the task's shape; others, or those of another size, as they are."""
    size = math.prod(task.observation_shape)
    if array.ndim == 0 or array.shape[-1] != size:
        return array
    return array.reshape(*array.shape[:-1], *task.observation_shape)


def _encoder_of(path: Path, arrays: dict[str, np.ndarray], layers: int) -> tuple[Layer, ...]:
    """The leading convolutions, `encoder_conv1_weight [outputs, inputs, height, width]` and so on."""
    encoder: list[Layer] = []
    for layer in range(layers):
        kernel, bias = (arrays.get(f"encoder_conv{layer + 1}_{part}") for part in ("weight", "bias"))
        if kernel is None or bias is None or kernel.ndim != 4:
            raise FloppyError(
                f"{path} needs an encoder of {layers} layers, layer {layer + 1} of which it does not hold: "
                "without it the examples mean nothing, so take a file that has it."
            )
        encoder.append({"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": jnp.asarray(bias)})
    return tuple(encoder)


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a file that a dataset can be made of, as float32; targets, which may be whole, as they are."""
    arrays, names = read_npz(
        path,
        lambda name, _: bool(ARRAYS.fullmatch(name)),
        most=MOST_BYTES,
        remedy="a dataset holds a few examples, so give those alone",
    )
    for name, array in arrays.items():
        if array.dtype.kind not in "fiub":
            raise FloppyError(f"{path} holds {name} of type {array.dtype}: give real numbers.")
        if name not in TARGETS:
            with np.errstate(over="ignore"):  # a dataset refuses what has become infinite
                arrays[name] = array.astype(np.float32)
    if OBSERVATIONS not in arrays or _find(arrays, TARGETS) is None:
        raise FloppyError(
            f"{path} holds {listed_arrays(names)}: it needs observations, and targets (or actions, or y_mean)."
        )
    return arrays


def _find(arrays: dict[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
