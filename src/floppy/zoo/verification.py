"""Whether datasets of the zoo reach here what their cards say: fresh networks are trained and scored once more."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import Any

from floppy.dataset import DistilledDataset, load
from floppy.dataset.zoo_index import Entry, Stated, entries, entry
from floppy.errors import FloppyError, check_kind
from floppy.evaluation.evaluate import evaluate
from floppy.evaluation.score import Score, standard_error
from floppy.fields import as_seed
from floppy.tasks.base import HOST, FaultyEnvironmentError, kind_of
from floppy.tasks.registry import make_task
from floppy.teach.codec import unpack

FALSE_ALARM = 0.01
"""Chance that a verification finds fault with any dataset though all are as good as their cards say."""

AT_A_TIME = 2
"""Datasets: most of the time goes into compiling, which takes one core."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """What came of a dataset on a task."""

    name: str
    stated: Stated
    measured: Score | None
    """None if it was skipped."""
    skipped: str
    """Why it could not be played here, and what to do; empty if it was."""
    seconds: float

    @property
    def difference(self) -> float | None:
        """Measured less stated score."""
        return None if self.measured is None else self.measured.mean - self.stated.mean

    @property
    def standard_errors(self) -> float | None:
        """The difference in standard errors of both means; None where both are 0."""
        error = self._error
        return self.difference / error if self.difference is not None and error else None

    @property
    def p_value(self) -> float | None:
        """Chance of so low a score, or a lower one, if the dataset is as good as stated: Welch's one-sided t-test.

        Samples are learners. Where no learner differs from another it is 0 or 1.
        """
        if self.measured is None:
            return None
        stated, measured = self.stated, self.measured
        if not self._error:
            return float(measured.mean >= stated.mean)
        import scipy.stats  # takes a second

        counts = max(measured.learners, 2), max(stated.learners, 2)
        found = scipy.stats.ttest_ind_from_stats(
            *(measured.mean, measured.sd, counts[0], stated.mean, stated.sd, counts[1]),
            equal_var=False,
            alternative="less",
        )
        return float(found.pvalue)

    def falls_short(self, comparisons: int) -> bool:
        """Whether the score is so far below the stated one that chance does not explain it.

        Args:
          comparisons: how many there are: each gets its part of `FALSE_ALARM`.
        """
        return self.p_value is not None and self.p_value < FALSE_ALARM / comparisons

    @property
    def _error(self) -> float:
        if self.measured is None:
            return 0.0
        return math.hypot(*(standard_error(each.sd, each.learners) for each in (self.stated, self.measured)))

    def as_json(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "name": self.name,
            "task": self.stated.task,
            "stated": dataclasses.asdict(self.stated),
            "measured": None if self.measured is None else self.measured.as_dict(),
            "standard_errors": self.standard_errors,
            "p_value": self.p_value,
            "skipped": self.skipped,
            "seconds": round(self.seconds, 1),
        }


def verify(
    names: Iterable[str] | str | None = None,
    *,
    quick: bool = False,
    seed: int | None = None,
    progress: Callable[[int, int, str], object] | None = None,
) -> list[Verified]:
    """Trains fresh networks on datasets of the zoo and scores them on this machine.

    Args:
      names: of datasets, or one; by default all, with `quick` a few of every family.
      quick: fewer networks and episodes.
      seed: of the evaluations, by default that of the score on the card, which gives the same first networks and
        episodes; with another one the scores are independent.
      progress: called with the scores done, all scores, and the name of the next dataset.

    Returns:
      One result per dataset and task; those that need an extra which is not installed are skipped.

    Raises:
      FloppyError: for a wrong name or seed, a damaged file, or an environment that fails.
    """
    seed = None if seed is None else as_seed(seed)
    chosen = [each for each in entries().values() if each.is_quick or not quick]
    if names is not None:
        names = [names] if isinstance(names, str) else names
        check_kind("names", names, Iterable, "a list of names of datasets of the zoo")
        chosen = list(dict.fromkeys(map(entry, names)))
    pairs = [(each, stated) for each in chosen for stated in each.scores]
    pool = ThreadPoolExecutor(AT_A_TIME)
    works = [partial(_verified, each, stated, each.quick if quick else each.check, seed) for each, stated in pairs]
    running = {
        # With a context of its own, time limits and what a stall means hold in its thread too.
        number: pool.submit(copy_context().run, works[number])
        for number, (_, stated) in enumerate(pairs)
        if not _is_stepped_by_python(stated.task)
    }
    found = []
    try:
        for done, (each, _) in enumerate(pairs):
            if progress is not None:
                progress(done, len(pairs), each.name)
            found.append(running[done].result() if done in running else works[done]())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return found


def _is_stepped_by_python(task: str) -> bool:
    """Whether only the main thread can end a step that hangs."""
    try:
        return kind_of(make_task(task)) == HOST
    except FloppyError:  # what it needs is not there, and it will be skipped
        return False


def _verified(entry: Entry, stated: Stated, counts: tuple[int, int], seed: int | None) -> Verified:
    started, (learners, episodes) = time.monotonic(), counts
    dataset = _load(entry)
    which = stated.task if len(entry.scores) > 1 else ""
    try:
        unpack(dataset).task(which)
    except FaultyEnvironmentError:
        raise
    except FloppyError as error:  # a package or file that is not there
        return Verified(entry.name, stated, None, str(error), time.monotonic() - started)
    seed = stated.seed if seed is None else seed
    (score,) = evaluate(dataset, learners=learners, episodes=episodes, seed=seed, task=which).values()
    return Verified(entry.name, stated, score, "", time.monotonic() - started)


def _load(entry: Entry) -> DistilledDataset:
    """The dataset, from the very file that the index is about."""
    dataset = load(entry.path)
    if hashlib.sha256(entry.path.read_bytes()).hexdigest() != entry.sha256:
        raise FloppyError(f"{entry.path} is not the file that the zoo's index names: install floppy-rl again.")
    return dataset
