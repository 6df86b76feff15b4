"""What datasets and policies took that a run begins with or learns from: for the card, which counts it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from floppy.dataset import DistilledDataset

MOST_STEPS = 10**15
"""Of a run, more than any takes: a file may say what it likes."""


class History(NamedTuple):
    """Of a file: the runs that led to it."""

    env_steps: int | None
    """Environment steps of all of them; None where one does not say."""
    is_taught: bool
    """Whether a policy was imitated in one of them."""


def history_of(dataset: DistilledDataset) -> History:
    """As its card says; of an older one, which does not, what its configuration lets a whole run of PPMO take."""
    algorithm = dataset.card.algorithm
    counts = [algorithm.get("env_steps", _reckoned(algorithm.get("config"))), algorithm.get("env_steps_before", 0)]
    is_known = all(type(count) is int and 0 <= count <= MOST_STEPS for count in counts)
    return History(sum(counts) if is_known else None, algorithm.get("taught") is True)


def _reckoned(config: Any) -> int | None:
    """Environment steps of a run by its configuration on a card; None where it does not say how many it takes."""
    outer = config.get("outer") if isinstance(config, dict) else None
    if not isinstance(outer, dict):
        return None
    factors = [config.get("outer_steps"), *(outer.get(name) for name in ("learners", "environments", "horizon"))]
    whole = [factor for factor in factors if type(factor) is int and factor > 0]
    return math.prod(whole) if len(whole) == len(factors) else None


def entries_of(before: Sequence[History], *, taught: bool) -> dict[str, Any]:
    """What a card says under `algorithm` of what came before: nothing, where nothing did."""
    if not before:
        return {}
    counts = [each.env_steps for each in before]
    total = None if None in counts else sum(count for count in counts if count is not None)
    return {"env_steps_before": total, "taught": taught or any(each.is_taught for each in before)}
