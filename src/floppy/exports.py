"""Exports: what a dataset can be written as, by name, for `floppy export`. Another one is a function and a line."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from floppy.dataset.file import DistilledDataset
from floppy.dataset.folder import save_folder
from floppy.fields import Registry
from floppy.teach.arrays import export_npz
from floppy.teach.policies import train


class Export(NamedTuple):
    """What is to be written."""

    dataset: DistilledDataset
    out: Path
    seed: int
    """Of the policy's initial weights, where one is cloned."""
    episodes: int
    """That it plays, where it plays."""
    overwrite: bool


def to_huggingface(export: Export) -> None:
    """The dataset in a folder with a README."""
    save_folder(export.dataset, export.out, overwrite=export.overwrite)


def to_npz(export: Export) -> None:
    """Its arrays."""
    export_npz(export.dataset, export.out, overwrite=export.overwrite)


def to_onnx(export: Export) -> None:
    """A policy that is cloned from it."""
    from floppy import onnx  # an extra

    onnx.export(train(export.dataset, export.seed)[0], export.out, overwrite=export.overwrite)


def to_minari(export: Export) -> None:
    """Episodes of such a policy."""
    from floppy import minari  # an extra

    minari.export(
        export.dataset, str(export.out), episodes=export.episodes, seed=export.seed, overwrite=export.overwrite
    )


EXPORTS: Registry[Callable[[Export], None]] = Registry(
    "export", {"huggingface": to_huggingface, "minari": to_minari, "npz": to_npz, "onnx": to_onnx}.items()
)
