"""Start-up: imports, commands, compilation, and the time from a process's start to a score."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _measure import Row, duration, middle

FLOPPY = Path(sys.executable).parent / "floppy"
GOAL = 475.0
TO_GOAL = """
import sys, time
started = float(sys.argv[1])
from floppy.run.cache import enable_compilation_cache
from floppy import distill, recipe
from floppy.parallel import use_all_cores
enable_compilation_cache()
if sys.argv[2] == "hades":
    use_all_cores()  # as the command does
config = recipe("cartpole", sys.argv[2], evaluate_every=10)
def progress(done, _, figures):
    if figures["score"] >= float(sys.argv[3]):
        print(time.time() - started, done)
        sys.exit()
distill(config, progress=progress)
"""
COMPILING = """
import sys, time
import jax
spans = []
def listen(event, seconds, **_):
    if event.startswith("/jax/core/compile/"):  # what lies within another span ends before it
        start = time.monotonic() - seconds
        while spans and spans[-1][0] >= start:
            spans.pop()
        spans.append((start, seconds))
jax.monitoring.register_event_duration_secs_listener(listen)
from floppy.run.cache import enable_compilation_cache
from floppy import distill, recipe
enable_compilation_cache()
distill(recipe("cartpole", sys.argv[1], evaluate_every=10), progress=False)
print(sum(seconds for _, seconds in spans))
"""
"""Seconds of tracing, lowering and compiling, or of reading what is compiled, in the run of `make demo`."""


def rows(*, quick: bool) -> list[Row]:
    """Each the median of a few processes; compiled programs go to a folder of their own, cold and then warm."""
    times = 3 if quick else 5
    with tempfile.TemporaryDirectory() as folder:
        found = [
            duration("Start-up, import floppy", middle(lambda: _python("import floppy"), times)),
            duration("Start-up, import jax", middle(lambda: _python("import jax"), times)),
            duration("Start-up, floppy --help", middle(lambda: _command("--help"), times)),
            duration(
                "Start-up, a command that is refused", middle(lambda: _command("distill", "nothing", code=2), times)
            ),
        ]
        for method in ("ppmo",) if quick else ("ppmo", "hades"):
            cold, warm = (_to_goal(method, folder) for _ in range(2))
            found += [
                duration(f"Process start to a mean of 475 in 1D cart-pole by {method}, cold cache", cold),
                duration(f"Process start to a mean of 475 in 1D cart-pole by {method}, warm cache", warm),
            ]
    with tempfile.TemporaryDirectory() as folder:
        for cache in ("cold", "warm"):
            found.append(duration(f"Compiling the run of make demo, {cache} cache", _compiling(folder)))
    with tempfile.TemporaryDirectory() as folder:
        for cache in () if quick else ("cold", "warm"):
            found.append(duration(f"The two commands of make demo, {cache} cache", _demo(folder)))
    return found


def _seconds(words: list[str], cache: str = "", code: int = 0) -> tuple[float, str]:
    environment = os.environ | ({"FLOPPY_CACHE": cache} if cache else {})
    started = time.time()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    seconds = time.time() - started
    assert done.returncode == code, done.stderr
    return seconds, done.stdout


def _python(code: str) -> float:
    return _seconds([sys.executable, "-c", code])[0]


def _command(*words: str, code: int = 0) -> float:
    return _seconds([str(FLOPPY), *words], code=code)[0]


def _to_goal(method: str, cache: str) -> float:
    started = time.time()
    _, said = _seconds([sys.executable, "-c", TO_GOAL, str(started), method, str(GOAL)], cache)
    return float(said.split()[0])


def _compiling(cache: str) -> float:
    return float(_seconds([sys.executable, "-c", COMPILING, "ppmo"], cache)[1])


def _demo(cache: str) -> float:
    """The two commands of `make demo`, in a warm installation."""
    with tempfile.TemporaryDirectory() as folder:
        out = f"{folder}/demo"
        first, _ = _seconds(
            [str(FLOPPY), *f"distill cartpole --examples 2 --evaluate-every 10 --out {out}".split()], cache
        )
        options = f"evaluate {out}/dataset.safetensors --distribution lambda --learners 100 --episodes 20 --json"
        second, said = _seconds([str(FLOPPY), *options.split()], cache)
        assert json.loads(said)
    return first + second
