"""The command that writes a dataset for other libraries."""

import dataclasses
from pathlib import Path
from typing import ClassVar

from floppy.cli.base import Call, Command, Json
from floppy.dataset import load
from floppy.exports import EXPORTS, Export
from floppy.fields import as_seed, one_of, whole_number


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportDataset(Command):
    """Writes a dataset, or a policy cloned from it, in another library's form."""

    name: ClassVar[str] = "export"
    positional: ClassVar[tuple[str, ...]] = ("dataset",)
    dataset: Path
    """The dataset's file."""
    to: str = dataclasses.field(metadata=one_of("", lambda: EXPORTS).metadata)
    """What is written: huggingface, a folder for its hub, with a README; npz, the arrays; onnx, a cloned policy;
    minari, episodes that such a policy plays."""
    out: Path
    """The file or folder to write; of minari the dataset's id, such as cartpole/clone-v0, for Minari keeps its datasets
    in a folder of its own (MINARI_DATASETS_PATH)."""
    seed: int = 0
    """Of the cloned policy's initial weights, and of its episodes."""
    episodes: int = 10
    """For minari, how many."""
    overwrite: bool = False
    """Replace what is at --out."""

    def run(self, call: Call) -> Json:
        """Reads the dataset and writes."""
        seed, episodes = as_seed(self.seed), whole_number("episodes", self.episodes)
        dataset = load(self.dataset)
        EXPORTS.find(self.to)(Export(dataset, self.out, seed, episodes, self.overwrite))
        return {"task": dataset.card.task, "dataset": str(self.dataset), "to": self.to, "out": str(self.out)}

    def text(self, result: Json) -> str:
        """What was written."""
        return f"{result['task']} for {result['to']}\n{result['out']}"
