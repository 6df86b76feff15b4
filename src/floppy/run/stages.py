"""Runs in a row, each of which goes on from the dataset of the one before it."""

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from floppy.files import as_path
from floppy.parallel import first_process_says, is_first_process
from floppy.run.config import DistillConfig
from floppy.run.folder import DATASET_NAME, check_free, check_resume_or_overwrite, check_same_options, files_of_run
from floppy.run.loop import DistillResult, distill, parents


class Stage(NamedTuple):
    """One of the runs."""

    name: str
    """Of its folder, within that of them all; empty for the last one, whose folder that is."""
    config: Callable[[str], DistillConfig]
    """From the file of the stage before it, or nothing for the first one."""


def distill_stages(
    stages: Sequence[Stage],
    out: Path | str,
    *,
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    **options: Any,
) -> DistillResult:
    """Distils stage after stage.

    Args:
      stages: one at least.
      out: folder of the last run; the others have folders in it.
      resume: go on with what is there, whichever stage it stands at; the files of those before it stay as they are.
      overwrite: replace what is there.
      time_limit: seconds for all of them.
      **options: as for `distill`.

    Returns:
      The result of the last stage that was begun, with the seconds of them all; it is not finished unless all are.

    Raises:
      FloppyError: as `distill`; of folders that are taken before anything runs.
    """
    check_resume_or_overwrite(resume=resume, overwrite=overwrite)
    folder, started = as_path(out), time.monotonic()
    for number, stage in enumerate(stages):  # what can be said of them all is said before anything is written
        stage.config("").problem(awaits_files=number > 0)
    for stage in stages if not resume else ():
        check_free(folder / stage.name, overwrite=overwrite)
    before, result, current = "", None, _current(stages, folder) if resume else 0
    for number, stage in enumerate(stages, 1):
        left = None if time_limit is None else time_limit - (time.monotonic() - started)
        if result is not None and left is not None and left <= 0:
            result = dataclasses.replace(result, finished=False)
            break
        place = folder / stage.name
        config = stage.config(before)
        before = str(place / DATASET_NAME)
        if number < current:
            check_same_options(place, config, parents(config, config.problem()))
            continue
        if is_first_process():
            print(f"floppy: stage {number} of {len(stages)}, {stage.name or 'the last'}: {place}", file=sys.stderr)
        # All go as the first one begins: what followed the earlier run could not follow this one.
        later = [folder / each.name for each in stages[1:]] if overwrite and number == 1 else []
        result = distill(config, place, resume=resume, overwrite=overwrite, time_limit=left, replaces=later, **options)
        if not result.finished:
            break
    assert result is not None, "there is a stage"
    return dataclasses.replace(result, seconds=time.monotonic() - started)


def _current(stages: Sequence[Stage], folder: Path) -> int:
    """The number of the last stage that has begun: it knows the files of those before it, which are finished."""
    begun = [first_process_says(bool(files_of_run(folder / stage.name))) for stage in stages]
    return max((number for number, has_begun in enumerate(begun, 1) if has_begun), default=0)
