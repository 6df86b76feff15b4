"""Two processes that share a run, of which one dies or freezes: the other ends with a sentence, and the run goes on.

    python tests/stress/partners.py --out partners.csv

Process 0, which the other reports to, or process 1 is killed (SIGKILL) while it starts or after its second checkpoint,
or is frozen there (SIGSTOP). Writes a row per try: how long the other one took to end, with which exit code, whether
its last words are one sentence, and whether both, started once more with --resume, end with the bytes of an undisturbed
run. One that has died is noticed at once; one that is frozen, or cut off, when 100 seconds have passed without a sign.
"""

import argparse
import itertools
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import tables
from compared import digest

WORDS = "distill cartpole --outer hades --outer-steps 300 --evaluate-every 2 --population 10 --environments 1 "
WORDS += "--selection-learners 6 --score-learners 6 --score-episodes 2 --no-early-stop "
WORDS += "--distribution width=16:depth=1:initialiser=xavier --processes 2"
MOST = {"killed at the start": 60.0, "killed": 30.0, "frozen": 200.0}
"""Seconds after which the other process must have ended, by what happens to the first; on a machine that is busy."""
Process = "subprocess.Popen[str]"


def start(folder: Path, *more: str) -> list[Process]:
    """Both processes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [*WORDS.split(), "--coordinator", f"127.0.0.1:{port}", "--out", str(folder), *more]
    environment = os.environ | {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "FLOPPY_CACHE": str(folder.parent / "cache"),
        "JAX_PLATFORMS": "cpu",
    }
    return [
        subprocess.Popen(
            [sys.executable, "-m", "floppy", *words, "--process", str(index)],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for index in range(2)
    ]


def finish(processes: list[Process]) -> None:
    """Waits for both; both must succeed."""
    said = [process.communicate(timeout=900)[1] for process in processes]
    for process, words in zip(processes, said, strict=True):
        if process.returncode:
            raise RuntimeError(f"exit code {process.returncode}: {words[-2000:]}")


def tried(what: str, index: int, folder: Path, wanted: str) -> dict[str, object]:
    """The row of a try."""
    processes, run = start(folder), folder
    mark = ".lock" if what.endswith("start") else "checkpoints/previous.safetensors"
    while not (run / mark).exists() and processes[0].poll() is None:
        time.sleep(0.05)
    processes[index].send_signal(signal.SIGSTOP if what == "frozen" else signal.SIGKILL)
    began = time.monotonic()
    _, said = processes[1 - index].communicate(timeout=600)
    seconds, code = time.monotonic() - began, processes[1 - index].returncode
    processes[index].kill()
    processes[index].communicate()
    *_, last = said.splitlines() or [""]
    is_sentence = last.startswith("floppy: ") and "--resume" in last and "Traceback" not in said
    if not is_sentence:
        print(said[-3000:], flush=True)
    finish(start(run, "--resume"))
    return {
        "process": index,
        "what": what,
        "seconds": round(seconds, 1),
        "exit_code": code,
        "a_sentence": is_sentence,
        "same_bytes": digest(run / "dataset.safetensors") == wanted,
    }


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("partners.csv"))
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        finish(start(place / "whole"))
        wanted = digest(place / "whole/dataset.safetensors")
        for number, (what, index) in enumerate(itertools.product(MOST, range(2))):
            rows.append(tried(what, index, place / str(number), wanted))
            print(rows[-1], flush=True)
    tables.write(rows, given.out)
    ok = [row["exit_code"] == 2 and row["a_sentence"] and row["same_bytes"] for row in rows]
    return int(not all(ok) or any(float(str(row["seconds"])) > MOST[str(row["what"])] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
