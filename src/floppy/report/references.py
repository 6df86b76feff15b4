"""What others reach on the task of a dataset: scores that are known without measuring."""

from typing import NamedTuple

from floppy.dataset.file import DistilledDataset
from floppy.papers.experiments import experiments


class Reference(NamedTuple):
    """A score to compare with."""

    who: str
    mean: float


def references_of(dataset: DistilledDataset) -> list[Reference]:
    """Published scores of the dataset's task: those with as many examples, if there are such; else all of the task's.

    Args:
      dataset: of one task.
    """
    found = experiments()
    of_task = [cell for cell in (found.cells | found.further).values() if cell.task == dataset.card.task]
    same = [cell for cell in of_task if cell.examples == dataset.examples]
    return [
        Reference(f"{cell.paper} paper, {cell.where} ({cell.examples} examples)", cell.published)
        for cell in same or of_task
    ]
