"""The papers' own programs beside this library, one after the other in the same run.

They are not installed here: clone github.com/wconnorr/RL-to-SL_Distillation and
github.com/FLAIROx/behaviour-distillation, make an environment of the versions that they need, and say where they are:

    PUBLISHED_PPMO=FOLDER PUBLISHED_HADES=FOLDER PUBLISHED_PYTHON=PYTHON python benchmarks/bench.py --only published

with whole paths. Both are run as they are, by their command lines, and what they print or take is timed from outside.
Ours do the same work: HaDES's episodes never end early, and it has a CPU device of each of two cores, as commands do.
"""

import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import hades
import ppmo
from _measure import Row

from floppy import recipe

PPMO_OPTIONS = "--device cpu --inner_batch 2"
SHORT, LONG, OURS = 5, 45, 500
"""Outer steps of two runs of PPMO, whose difference counts: start-up falls out; and of one of ours."""
ROUNDS = 3
"""In which PPMO's programs take turns, for machines have better and worse minutes."""
COMPILING, GENERATIONS = 2, 4
"""Generations of HaDES: the first ones compile; those that count, of ours as well."""
HADES_OPTIONS = "--env hopper --popsize 32 --rollouts 1 --eval_envs 4 --epochs 400 --width 512 --save_interval 1000"
LAP = re.compile(r"Lap time: ([0-9.]+)s")


VARIABLES = ("PUBLISHED_PPMO", "PUBLISHED_HADES", "PUBLISHED_PYTHON")


def check() -> None:
    """Ends the program if one of the paths is missing, before anything is measured or written."""
    for name in VARIABLES:
        given = os.environ.get(name, "")
        if not given or not Path(given).is_absolute() or not Path(given).exists():
            sys.exit(f"{name} must be the whole path of something that is there, got {given!r}: see published.py.")


def rows(*, quick: bool) -> list[Row]:
    """The published programs, ours, and how many times as fast ours are."""
    del quick
    check()
    where_ppmo, where_hades = (Path(os.environ[name]) for name in VARIABLES[:2])
    ours = ppmo.outer_steps(recipe("ndcartpole/1", "ppmo-paper"), OURS)
    pairs = [(published_step(where_ppmo), ours()) for _ in range(ROUNDS)]
    own = hades.in_process("Brax hopper, 32 candidates, width 512", 2, GENERATIONS)["mean"]
    return [
        *compared("PPMO, cart-pole, the paper's setting", "outer steps/s", pairs),
        *compared(
            "HaDES, Brax hopper, 32 candidates, width 512", "generations/s", [(published_generation(where_hades), own)]
        ),
    ]


def compared(what: str, unit: str, pairs: list[tuple[float, float]]) -> list[Row]:
    """The rows of pairs of mean seconds, theirs and ours; of several pairs the one whose ratio is in the middle."""
    theirs, ours = sorted(pairs, key=lambda pair: pair[0] / pair[1])[len(pairs) // 2]
    return [
        Row(f"{what}: the published program", 1 / theirs, unit),
        Row(f"{what}: floppy in the same run", 1 / ours, unit),
        Row(f"{what}: speed over the published program's", theirs / ours, "times"),
    ]


def published_step(where: Path) -> float:
    """Seconds of an outer step of PPMO's program for cart-pole, with two examples."""
    script = next(where.rglob("ppo_ndcartpole_distill.py"))
    root = script.parents[1]

    def run(steps: int) -> float:
        with tempfile.TemporaryDirectory() as out:
            started = time.perf_counter()
            _run([str(script), *PPMO_OPTIONS.split(), "--meta_epochs", str(steps), out], root)
            return time.perf_counter() - started

    run(1)  # files that are read for the first time
    return (run(LONG) - run(SHORT)) / (LONG - SHORT)


def published_generation(where: Path) -> float:
    """Seconds of a generation of HaDES's program for Brax's hopper, by what it prints."""
    with tempfile.TemporaryDirectory() as out:
        words = [
            "distill_brax.py",
            *HADES_OPTIONS.split(),
            "--generations",
            str(COMPILING + GENERATIONS),
            "--folder",
            out,
        ]
        said = _run(words, where / "policy_distillation")
    laps = [float(lap) for lap in LAP.findall(said)]
    return statistics.mean(laps[COMPILING:])


def _run(words: list[str], where: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(where), "WANDB_MODE": "disabled"}
    done = subprocess.run(
        [os.environ[VARIABLES[2]], *words], cwd=where, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
