"""What a report measures: scores of fresh learners, of others, at other sizes, without examples; and an episode."""

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from floppy.errors import FloppyError, text_of
from floppy.evaluation.evaluate import evaluate, evaluate_random
from floppy.evaluation.score import Score
from floppy.learner.distribution import describe_distribution
from floppy.play import open_arena
from floppy.report.episode import Episode, play_episode
from floppy.report.source import Source
from floppy.studies.base import Row, by
from floppy.studies.explain import EXAMPLES, MAP, WHOLE, WITHOUT, Explain
from floppy.tasks.base import EPISODIC, Task, kind_of, picture_of
from floppy.teach.codec import Lesson, unpack
from floppy.teach.policies import train

Say = Callable[[str], object]
"""Told what is measured next."""


@dataclasses.dataclass(frozen=True)
class Extent:
    """How much is measured."""

    learners: int
    episodes: int
    """Per learner."""
    seed: int
    seconds: float
    """Of the processor; parts that would go beyond are left out, as far as the pace of those before says so."""
    is_quick: bool
    """Whether the slower parts are left out in any case."""


class Influence(NamedTuple):
    """What leaving examples out, and mapping features, has shown."""

    summary: Row
    """See `Explain.summary`."""
    points: list[Row]
    """Of the map."""


class Measured(NamedTuple):
    """All that a report says in numbers; parts that were left out are None, and `reasons` may say why."""

    score: Score
    random: Score
    episode: Episode | None
    influence: Influence | None
    transfer: dict[str, Score] | None
    reasons: dict[str, str]
    """By part, in a sentence."""


QUICK = "Quick reports leave this out: `floppy report` without --quick has it."
SLOW = "It would have taken longer than the report had time for: `floppy report` takes --seconds."


class Clock:
    """Knows what there is time for: of the processor, so that other work on the machine costs no part of a report."""

    def __init__(self, limit: float) -> None:
        self._began, self._limit = time.process_time(), limit

    @property
    def spent(self) -> float:
        """Seconds since the beginning."""
        return time.process_time() - self._began

    @property
    def left(self) -> float:
        """Seconds to the limit."""
        return self._limit - self.spent


class _TooLongError(FloppyError):
    """A part that there is no time for."""


def measure(source: Source, extent: Extent, say: Say) -> Measured:
    """Measures what there is time for, in the order of what people ask for first.

    Raises:
      FloppyError: for a dataset of several tasks, and whatever else has no score.
    """
    clock = Clock(extent.seconds)
    lesson = unpack(source.dataset)
    task = lesson.task()
    say("scoring fresh learners")
    score = evaluate(source.dataset, learners=extent.learners, episodes=extent.episodes, seed=extent.seed)["card"]
    pace = clock.spent  # compilation is most of it
    say("scoring random actions")
    random = evaluate_random(task, episodes=extent.learners * extent.episodes, seed=extent.seed)
    parts: dict[str, tuple[str, float, Callable[[], Any]]] = {}
    if kind_of(task) in EPISODIC and picture_of(task).kind:
        parts["episode"] = ("playing an episode", pace / 2, lambda: _episode(lesson, task, extent))
    if not extent.is_quick:
        parts["influence"] = ("leaving examples out", 2 * pace, lambda: _influence(source, extent, clock, pace, say))
        parts["transfer"] = ("scoring other networks", 3 * pace, lambda: _transfer(lesson, extent))
    found: dict[str, Any] = {}
    reasons = dict.fromkeys(("influence", "transfer"), QUICK) if extent.is_quick else {}
    for name, (what, needed, measured) in parts.items():
        try:
            if needed > clock.left:
                raise _TooLongError(SLOW)
            say(what)
            found[name] = measured()
        except FloppyError as error:
            reasons[name] = text_of(error)
    return Measured(score, random, found.get("episode"), found.get("influence"), found.get("transfer"), reasons)


def _episode(lesson: Lesson, task: Task, extent: Extent) -> Episode:
    with open_arena(task) as arena:
        return play_episode(task, train(lesson.dataset, extent.seed), arena, extent.seed)


def _influence(source: Source, extent: Extent, clock: Clock, pace: float, say: Say) -> Influence:
    """As many examples are left out, at equal distances, as there is time for."""
    options: Any = {"learners": extent.learners, "episodes": extent.episodes, "seed": extent.seed, "kernels": 0}
    study = Explain(source.path, parts=(EXAMPLES, MAP), **options)
    cells = by(study.cells(), "what")

    def measured(cells: list[Row]) -> list[Row]:
        return [cell | row for cell in cells for row in study.measure(cell, Path())]

    began = clock.spent
    rows = measured(cells.get(WHOLE, []))
    took = clock.spent - began
    left_out = cells.get(WITHOUT, [])
    fits = int((clock.left - pace) / max(took, 1e-3))
    if left_out and fits < 2:
        raise _TooLongError(SLOW)
    left_out = left_out[:: -(-len(left_out) // fits)] if left_out else []
    say(f"leaving {len(left_out)} examples out, and mapping what policies do")
    rows += measured(left_out)
    rows += measured(cells.get(MAP, []))
    return Influence(study.summary(rows), [row for row in rows if row["what"] == MAP])


def other_sizes(lesson: Lesson) -> dict[str, Any]:
    """Learners of other widths and depths than the dataset's own, in words: narrower, wider, a layer deeper.

    Raises:
      FloppyError: where nothing can be varied: a network of a user's own has no width, an encoder asks for its own.
    """
    own: Any = lesson.learners[0]
    if getattr(own, "width", None) is None:
        raise FloppyError("These learners are a network of the maker's own, whose size nothing here can change.")
    if lesson.distilled.encoder:
        raise FloppyError("The file holds trained layers, which fit networks of their own size alone.")
    (low, high), (least, most) = own.width, own.depth
    narrow, wide, deep = (max(1, low // 4), max(1, high // 4)), (4 * low, 4 * high), (least + 1, most + 1)
    found = {}
    if most > 0:  # else the width has no meaning, but for some kinds of convolutions
        found[f"a quarter as wide ({_span(narrow)} units a layer)"] = {"width": narrow}
        found[f"four times as wide ({_span(wide)} units a layer)"] = {"width": wide}
        found[f"one layer deeper ({_span(deep)} hidden layers)"] = {"depth": deep}
    else:
        found["one hidden layer more"] = {"depth": (1, 1)}
    return {name: dataclasses.replace(own, init_seed=-1, **change) for name, change in found.items()}


def _span(bounds: tuple[int, int]) -> str:
    low, high = bounds
    return str(low) if low == high else f"{low} to {high}"


def _transfer(lesson: Lesson, extent: Extent) -> dict[str, Score]:
    others = other_sizes(lesson)
    options: Any = {"learners": extent.learners, "episodes": extent.episodes, "seed": extent.seed}
    scores = evaluate(lesson.dataset, distributions=list(others.values()), **options)
    return {name: scores[describe_distribution(each)] for name, each in others.items()}
