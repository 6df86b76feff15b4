"""What datasets and policies took that a run begins with or learns from: for the card, which counts it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from floppy.dataset import DistilledDataset


class History(NamedTuple):
    """Of a file: the runs that led to it."""

    env_steps: int | None
    """Environment steps of all of them; None where one does not say."""
    is_taught: bool
    """Whether a policy was imitated in one of them."""


def history_of(dataset: DistilledDataset) -> History:
    """As its card says."""
    algorithm = dataset.card.algorithm
    counts = [algorithm.get("env_steps"), algorithm.get("env_steps_before", 0)]
    is_known = all(type(count) is int and count >= 0 for count in counts)
    return History(sum(counts) if is_known else None, algorithm.get("taught") is True)


def entries_of(before: Sequence[History], *, taught: bool) -> dict[str, Any]:
    """What a card says under `algorithm` of what came before: nothing, where nothing did."""
    if not before:
        return {}
    counts = [each.env_steps for each in before]
    total = None if None in counts else sum(count for count in counts if count is not None)
    return {"env_steps_before": total, "taught": taught or any(each.is_taught for each in before)}
