"""What others reach on the task of a dataset: scores that are known without measuring."""

from typing import NamedTuple

from floppy.dataset.file import DistilledDataset
from floppy.dataset.zoo_index import entries
from floppy.papers.experiments import experiments

PLAIN_PPO = "plain PPO, trained on the task itself"


class Reference(NamedTuple):
    """A score to compare with."""

    who: str
    mean: float


def references_of(dataset: DistilledDataset) -> list[Reference]:
    """Scores of plain PPO, as the zoo has them, and those that papers have published.

    Args:
      dataset: of one task.

    Returns:
      Of the papers' those with as many examples, if there are such; else all of the task's.
    """
    task = dataset.card.task
    stated = [score for entry in entries().values() for score in entry.scores if score.task == task]
    plain = {score.ppo for score in stated if score.ppo is not None}
    found = experiments()
    of_task = [cell for cell in (found.cells | found.further).values() if cell.task == task]
    same = [cell for cell in of_task if cell.examples == dataset.examples]
    return [
        *(Reference(PLAIN_PPO, score) for score in sorted(plain)),
        *(
            Reference(f"{cell.paper} paper, {cell.where} ({cell.examples} examples)", cell.published)
            for cell in same or of_task
        ),
    ]
