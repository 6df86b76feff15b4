"""What it costs to reach fixed scores: seconds since a process began, compilation included, and environment steps.

A run is over at the first of its evaluations that reaches the score, at its time limit, or with its recipe. The
time of evaluations counts, their environment steps do not; those of a teacher do. One seed each: orders of magnitude.
"""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _measure import Row

from floppy import distill, recipe
from floppy.parallel import use_all_cores
from floppy.recipes import STAGED
from floppy.run.cache import enable_compilation_cache
from floppy.run.folder import read_metrics
from floppy.run.stages import Stage

LIMITS = {"ppmo": 300.0, "hades": 300.0, "taught": 900.0}
"""Seconds, by method."""
SCORES = {"ndcartpole/1": 475.0, "ndcartpole/2": 365.0, "breakout": 10.0, "hopper": 1500.0}
EVALUATIONS = 30
"""Of a run that goes to its end, at least."""


class ReachedError(Exception):
    """The score, or the time limit."""


def rows(*, quick: bool) -> list[Row]:
    """A pair of rows per task and method; or one that says what was reached instead."""
    del quick
    found: list[Row] = []
    for task, score in SCORES.items():
        for method in LIMITS:
            print(f"  {task} by {method}", file=sys.stderr, flush=True)
            found += _told(f"{task} by {method}", score, _in_process(task, method, score))
    return found


def _told(name: str, score: float, told: dict[str, Any]) -> list[Row]:
    seconds = told["seconds"]
    time_taken = f"{seconds / 60:.0f} minutes" if seconds >= 60 else f"{seconds:.0f} seconds"
    if told["score"] is None:
        return [Row(f"{name}, not {score:g}: the teacher took all {time_taken}", seconds, "s")]
    if told["score"] < score:
        return [Row(f"{name}, not {score:g}: best of {time_taken}", told["score"], "mean return")]
    return [
        Row(f"{name}, to {score:g}", seconds, "s"),
        Row(f"{name}, to {score:g}", told["env_steps"], "environment steps"),
    ]


def _in_process(task: str, method: str, score: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:  # nothing is found compiled
        words = [sys.executable, "-W", "ignore", __file__, task, method, str(score), str(time.time())]
        environment = os.environ | {"FLOPPY_CACHE": cache}
        said = subprocess.run(words, env=environment, check=True, stdout=subprocess.PIPE, text=True).stdout
    told: dict[str, Any] = json.loads(said.splitlines()[-1])
    return told


def _reach(task: str, method: str, score: float, started: float) -> dict[str, Any]:
    enable_compilation_cache()
    if method == "hades":  # as the command does
        use_all_cores()
    config = recipe(task, method)
    alone = [Stage("", lambda _: config)]
    with tempfile.TemporaryDirectory() as folder:
        stages = STAGED[method](config) if method in STAGED else alone
        return _through(stages, Path(folder), score, started, LIMITS[method])


def _through(stages: Any, folder: Path, score: float, started: float, limit: float) -> dict[str, Any]:
    best, steps, before = -float("inf"), 0, ""
    for stage in stages:
        config, place = stage.config(before), folder / (stage.name or "last")
        every = max(1, min(config.evaluate_every, config.outer_steps // EVALUATIONS))
        is_teacher = stage.name == "teacher"

        def look(_done: int, _total: int, figures: dict[str, float], is_teacher: bool = is_teacher) -> None:
            nonlocal best
            best = best if is_teacher else max(best, figures["score"])
            if best >= score or time.time() - started > limit:
                raise ReachedError

        with contextlib.suppress(ReachedError):
            distill(dataclasses.replace(config, evaluate_every=every), place, progress=look)
        steps += int(sum(line["env_steps"] for line in read_metrics(place)))
        before = str(place / "dataset.safetensors")
        if best >= score or time.time() - started > limit:
            break
    return {"score": best if best > -float("inf") else None, "seconds": time.time() - started, "env_steps": steps}


if __name__ == "__main__":
    print(json.dumps(_reach(sys.argv[1], sys.argv[2], float(sys.argv[3]), float(sys.argv[4]))))
