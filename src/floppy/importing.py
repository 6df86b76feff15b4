"""Datasets from arrays made elsewhere."""

import dataclasses
import importlib.metadata
from pathlib import Path

import numpy as np

from floppy.card import Card
from floppy.cloning import Cloning, GradientStep
from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError, one_line
from floppy.learners import parse_distributions
from floppy.tasks import make_task
from floppy.train import cloning_of, task_of


def import_npz(
    path: Path | str,
    task: str,
    *,
    cloning: Cloning | None = None,
    rate: float | None = None,
    distribution: str = "lambda",
    notes: str = "",
    command: str = "",
) -> DistilledDataset:
    """A dataset from the arrays of an `.npz` file.

    Args:
      path: the file. Read are observations `[k, *obs]`; targets, actions or y_mean `[k, a]`; where present inner_lr or
        inner_rate `[]`, y_logstd or log_std `[a]`, obs_mean and obs_var `[*obs]`.
      task: id of the task that the dataset is of.
      cloning: how fresh policies learn from it; one gradient step by default.
      rate: of the cloning steps; by default the file's.
      distribution: the learners that it is for, see `parse_distribution`.
      notes: where it comes from, for the card.
      command: what made it, for the card.

    Returns:
      The dataset, checked against the task.

    Raises:
      FloppyError: if the file cannot be read, lacks an array, or does not fit the task.
    """
    arrays = _read_npz(Path(path))
    known, cloning = make_task(task), cloning or GradientStep()
    inner_rate = _find(arrays, "inner_lr", "inner_rate") if rate is None else np.asarray(rate, np.float32)
    if inner_rate is None:
        raise FloppyError(f"{path} holds neither inner_lr nor inner_rate: give the rate (--rate).")
    observations, targets = _find(arrays, "observations"), _find(arrays, "targets", "actions", "y_mean")
    if observations is None or targets is None:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise FloppyError(f"{path} holds {held}: it needs observations, and targets (or actions, or y_mean).")
    examples = observations.shape[:1]
    shapes = observations.shape, targets.shape
    wanted = (*examples, *known.observation_shape), (*examples, known.actions.size)
    if shapes != wanted:
        raise FloppyError(
            f"{path} holds observations of shape {shapes[0]} and targets of shape {shapes[1]}, {known.task_id} "
            f"needs {wanted[0]} and {wanted[1]}: give the task that it was distilled for."
        )
    log_std, mean, var = _find(arrays, "y_logstd", "log_std"), _find(arrays, "obs_mean"), _find(arrays, "obs_var")
    has_statistics = mean is not None and mean.size > 0
    card = Card(
        task=known.task_id,
        actions=known.actions.as_dict(),
        cloning={"kind": type(cloning).__name__} | dataclasses.asdict(cloning),
        learners=[dataclasses.asdict(learners) for learners in parse_distributions(distribution)],
        algorithm={"name": "import", "config": {"file": Path(path).name}},
        normaliser="frozen" if has_statistics else "none",
        command=command,
        versions={name: importlib.metadata.version(name) for name in sorted({"floppy", known.package})},
        notes=notes,
    )
    dataset = DistilledDataset(
        card,
        observations,
        targets,
        log_std=None if log_std is None else log_std.ravel(),
        inner_rate=inner_rate,
        obs_mean=mean if has_statistics else None,
        obs_var=var if has_statistics else None,
    )
    task_of(dataset)
    cloning_of(dataset)
    return dataset


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of an .npz file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if archive[name].dtype.kind in "fiub"}
    except Exception as error:  # a broken archive raises whatever zipfile, zlib or NumPy happens to raise
        raise FloppyError(
            f"{path} is no readable .npz ({one_line(error)}): give a file that numpy.savez wrote."
        ) from error


def _find(arrays: dict[str, np.ndarray], *names: str) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
