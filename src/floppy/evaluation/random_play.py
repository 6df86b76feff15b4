"""How a score stands to random play: what every run says at its end, from a few episodes."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate_random
from floppy.evaluation.score import standard_error
from floppy.tasks.base import Task, chance_of, profile_of

EPISODES = 20
SLOW_EPISODES = 5
"""Where Python steps the environments."""
CLEARLY = 2.0
"""Standard errors of both means by which a score is above random play."""
IN_95 = 2 * 1.96
"""Standard errors that a 95% interval spans."""


@dataclasses.dataclass(frozen=True)
class Comparison:
    """A score beside that of random play; of labelled images beside that of answering with the commonest class."""

    random: float
    random_interval: tuple[float, float]
    """95% interval over the episodes."""
    episodes: int
    """Of random play; 0 where the score is known without any."""
    difference: float
    """The score less that of random play."""
    is_clear: bool
    """Whether the difference is positive by more than chance explains."""

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return dataclasses.asdict(self) | {"random_interval": list(self.random_interval)}


def beside_random(task: Task, score: Mapping[str, Any], seed: int) -> Comparison | None:
    """Compares a score with that of random play.

    Args:
      task: that was played.
      score: as on a card: `mean` and `sd` over `learners`.
      seed: of random play.

    Returns:
      The comparison; None if the environment fails, for the run is over and its dataset saved.
    """
    chance = chance_of(task)
    if chance is not None:
        return compared(score, chance, (chance, chance), 0)
    episodes = SLOW_EPISODES if profile_of(task).is_slow else EPISODES
    try:
        played = evaluate_random(task, episodes=episodes, seed=seed)
    except FloppyError:
        return None
    return compared(score, played.mean, played.ci95, episodes)


def compared(score: Mapping[str, Any], random: float, interval: tuple[float, float], episodes: int) -> Comparison:
    """A score, as on a card, beside a random one with its 95% interval."""
    learners, difference = score["learners"], score["mean"] - random
    # One learner has no deviation: the interval is over its episodes.
    error = standard_error(score["sd"], learners) if learners > 1 else _error_of(score["ci95"])
    is_clear = difference > CLEARLY * math.hypot(error, _error_of(interval))
    return Comparison(random, interval, episodes, difference, is_clear)


def _error_of(interval: Sequence[float]) -> float:
    """The standard error that a 95% interval shows."""
    return (interval[1] - interval[0]) / IN_95
