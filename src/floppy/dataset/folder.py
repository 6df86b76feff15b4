"""A dataset in a folder of its own, as Hugging Face's hub lays it out: `README.md` with metadata, and the file.

What a card says is untrusted text: in the README it can neither end the metadata nor become Markdown or HTML.
"""

import json
import os
from collections.abc import Callable

from floppy.dataset.card import Card
from floppy.dataset.file import DATASET_NAME, DistilledDataset, check_dataset, to_bytes
from floppy.errors import FloppyError
from floppy.files import as_path, check_new_file, write_atomically

README_NAME = "README.md"

HUB_LICENCES = ("apache-2.0", "bsd-3-clause", "cc-by-4.0", "cc-by-sa-4.0", "cc0-1.0", "gpl-3.0", "mit")
"""SPDX identifiers, in small letters, that the hub knows too; the licence of any other is `other`, with its name."""

HUB_UNKNOWN = {"noassertion": "unknown", "": "unknown"}


def save_folder(dataset: DistilledDataset, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a dataset to a folder that can be uploaded to Hugging Face as it is, and that `load` reads.

    Args:
      dataset: what to write, as `dataset.safetensors`; the card is in `README.md` too.
      folder: where to; it is made if need be, and what else is in it stays.
      overwrite: whether these two files may be replaced.

    Raises:
      FloppyError: for anything but a dataset, if one of the files exists and `overwrite` is false, or if they cannot be
        written.
    """
    check_dataset(dataset)
    path = as_path(folder)
    if path.exists() and not path.is_dir():
        raise FloppyError(f"{path} is a file: give a folder.")
    contents = {DATASET_NAME: to_bytes(dataset), README_NAME: readme(dataset).encode()}
    for name in contents:
        check_new_file(path / name, overwrite=overwrite)
    for name, data in contents.items():
        write_atomically(path / name, data)


def readme(dataset: DistilledDataset) -> str:
    """The text of `README.md`, in ASCII: metadata in YAML, what the dataset is, how to use it, and its card."""
    card, count = dataset.card, dataset.examples
    task = markdown_text(card.task)
    learns = f"A freshly initialised policy network that learns from these {count} synthetic examples"
    who = "The trained policy in this file" if card.is_plain_policy else learns
    lines = [
        *("---", *metadata(card, count), "---", "", f"# {task}", ""),
        f"{who} plays {task}; no environment takes part.",
        *_score_lines(card),
        "Distilled with floppy (`pip install floppy-rl`), which reads this folder:",
        *("", "```python", "import floppy", "", 'dataset = floppy.load("path/to/this/folder")'),
        *(*_training(card), "```", ""),
        f"`{DATASET_NAME}` holds {', '.join(f'`{name}`' for name in dataset.numpy())}, and this card:",
        *("", "```json", json.dumps(json.loads(card.to_json()), indent=2), "```", ""),
    ]
    return "\n".join(lines)


def _training(card: Card) -> list[str]:
    """Python that makes a policy; of a merged dataset it plays the first task."""
    if not card.blocks:
        return ["policy = floppy.train(dataset, 0)[0]  # action = policy.act(observation)"]
    return [
        "task = dataset.card.blocks[0]['task']  # or another one",
        "policy = floppy.train(dataset, 0).for_task(task)[0]  # action = policy.act(observation)",
    ]


def metadata(card: Card, examples: int) -> list[str]:
    """The lines of YAML by which the hub lists and filters datasets."""
    known = card.licence.strip().lower()
    licence = [f"license: {known}"] if known in HUB_LICENCES else []
    if known in HUB_UNKNOWN:
        licence = [f"license: {HUB_UNKNOWN[known]}"]
    return [
        *(licence or ["license: other", f"license_name: {yaml_text(card.licence)}"]),
        f"pretty_name: {yaml_text(f'{card.task}, distilled')}",
        *("task_categories:", "- reinforcement-learning", "size_categories:", f"- {_size_category(examples)}"),
        *("tags:", "- floppy", "- dataset-distillation", "viewer: false"),
    ]


def _size_category(examples: int) -> str:
    """As the hub has it: a power of ten from 1,000 on, and the next one."""
    if examples < 1000:
        return "n<1K"
    return "1K<n<10K" if examples < 10_000 else "10K<n<100K" if examples < 100_000 else "100K<n<1M"


def _score_lines(card: Card) -> list[str]:
    if card.score is None:
        return [""]
    mean, learners, episodes = (markdown_text(str(card.score[name])) for name in ("mean", "learners", "episodes"))
    return ["", f"Mean score {mean}, of {learners} fresh networks x {episodes} episodes.", ""]


def yaml_text(text: str) -> str:
    """A text in YAML's double quotes, whatever it holds."""
    return '"' + _escaped(text, lambda each: f"\\U{ord(each):08x}") + '"'


def markdown_text(text: str) -> str:
    """A text on one line of Markdown that means nothing but itself: all but letters and digits as HTML's entities."""
    return _escaped(text, lambda each: " " if each.isspace() else f"&#{ord(each)};")


def _escaped(text: str, escape: Callable[[str], str]) -> str:
    """A text of which letters, digits and spaces of ASCII, and a few harmless signs, stay as they are."""
    return "".join(each if each.isascii() and (each.isalnum() or each in " ,.-/") else escape(each) for each in text)
