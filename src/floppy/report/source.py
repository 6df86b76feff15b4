"""What a report is about: a run's folder, or a dataset by its file or name."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from floppy.dataset.file import DistilledDataset, load, to_bytes
from floppy.dataset.zoo_index import find
from floppy.errors import FloppyError
from floppy.files import as_path, is_there
from floppy.run.folder import CONFIG_NAME, DATASET_NAME, read_metrics

PAGE_NAME = "report.html"
"""Of a report, by default, in the folder of a run."""


class Source(NamedTuple):
    """A dataset, and what is known of the run that made it."""

    dataset: DistilledDataset
    path: Path
    """By which `load` finds it."""
    folder: Path | None
    """Of the run."""
    log: list[dict[str, Any]]
    """Of the run: the lines of its `metrics.jsonl`."""

    @property
    def file_name(self) -> str:
        """Under which the dataset is offered."""
        if self.folder is not None:
            stem = self.folder.resolve().name
        else:
            stem = "-".join(self.path.parts[-2:]) if not self.path.suffix else self.path.stem
        return f"{stem or 'dataset'}.safetensors"

    @property
    def typed(self) -> str:
        """How a command names it: by its name in the zoo, else by the file as it is offered."""
        name = self.path.as_posix()
        return name if find(name) is not None and not is_there(self.path) else self.file_name

    @property
    def data(self) -> bytes:
        """The dataset's file: the same dataset is the same bytes."""
        return to_bytes(self.dataset)


def read_source(given: str | os.PathLike[str]) -> Source:
    """Reads what a report is about.

    Args:
      given: the folder of a run, or whatever `load` takes.

    Raises:
      FloppyError: for a folder without a dataset, and for what `load` refuses.
    """
    path = as_path(given)
    if not (is_there(path) and path.is_dir()):
        return Source(load(path), path, None, [])
    if not is_there(path / DATASET_NAME):
        has_begun = is_there(path / CONFIG_NAME)
        why = "has no dataset yet: wait for its first evaluation" if has_begun else "holds no run: give a run's folder"
        raise FloppyError(f"{path} {why}, or give the file of a dataset.")
    return Source(load(path / DATASET_NAME), path / DATASET_NAME, path, read_metrics(path))
