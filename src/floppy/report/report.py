"""Writing a report: what it is about is read, measured, and told in one HTML file."""

import os
from pathlib import Path

from floppy.errors import MAX_COUNT, check_number
from floppy.fields import as_seed, plain_value, whole_number
from floppy.files import as_path, check_new_file, write_atomically
from floppy.report.measures import Extent, Say, measure
from floppy.report.sections import page_of
from floppy.report.source import PAGE_NAME, Source, read_source
from floppy.tasks.base import few_episodes, profile_of
from floppy.teach.codec import unpack
from floppy.teach.policies import MAX_LEARNERS

LEARNERS, SLOW_LEARNERS = 32, 8
"""Fresh learners of each score, and where Python steps the environments."""
SECONDS = 300.0


def write_report(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str] | None = None,
    *,
    learners: int | None = None,
    episodes: int | None = None,
    seconds: float = SECONDS,
    quick: bool = False,
    seed: int = 0,
    overwrite: bool = False,
    say: Say = lambda what: None,
) -> Path:
    """Writes a report, one HTML file that needs no other and no network.

    Args:
      source: a run's folder, the file of a dataset, or the name of one that comes with the package.
      out: the file to write; by default `report.html`, in the folder of a run.
      learners: fresh learners of each score; by default 32, or 8 where Python steps the environments.
      episodes: per learner; by default 4, or 500 labelled images.
      seconds: of the processor; parts that would go beyond are left out, as far as the pace of those before says so.
      quick: leave out the slower parts: what examples and features do, and other networks.
      seed: of initial weights and episodes.
      overwrite: replace a file that is there.
      say: told what is measured next.

    Returns:
      The file.

    Raises:
      FloppyError: for what is no dataset, or one of several tasks; for a file that is there; for numbers that are not
        allowed.
    """
    found = read_source(source)
    path = as_path(out if out is not None else (found.folder or Path()) / PAGE_NAME)
    check_new_file(path, overwrite=overwrite)
    extent = extent_of(found, learners=learners, episodes=episodes, seconds=seconds, quick=quick, seed=seed)
    write_atomically(path, page_of(found, measure(found, extent, say), extent).encode())
    return path


def extent_of(
    source: Source, *, learners: int | None, episodes: int | None, seconds: float, quick: bool, seed: int
) -> Extent:
    """How much is measured: what is asked for, else what suits the task."""
    task = unpack(source.dataset).task()
    seconds = plain_value("seconds", seconds, float)
    check_number("seconds", seconds, above=0, most=MAX_COUNT)
    usual = SLOW_LEARNERS if profile_of(task).is_slow else LEARNERS
    return Extent(
        learners=whole_number("learners", usual if learners is None else learners, least=2, most=MAX_LEARNERS),
        episodes=whole_number("episodes", few_episodes(task) if episodes is None else episodes, most=MAX_LEARNERS),
        seed=as_seed(seed),
        seconds=seconds,
        is_quick=quick,
    )
