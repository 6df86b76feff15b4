"""The same run on 1, 2 and 4 devices: by how much datasets and scores differ.

    python tests/stress/devices.py --out devices.csv

runs every outer loop for a few steps on so many devices that XLA makes of the processor, and writes a row per loop and
number of devices: the largest difference from one device of any of the dataset's numbers, relative to the largest
number of its tensor, and of the scores. Only the order of sums, and what is computed side by side, differ; so a few
steps differ by rounding, and by a little more where rounding changes one of the actions that are drawn. Exit code 1
beyond the tolerances below.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import tables
from loops import LOOPS, words_of

import floppy
from floppy.dataset import DistilledDataset

COUNTS = (1, 2, 4)
STEPS = 4
TENSORS, SCORES = 0.01, 0.02
"""Tolerances: of tensors, relative to their largest number; of scores, relative to the score."""
SMALL = f"--outer-steps {STEPS} --evaluate-every 2 --selection-learners 8 --score-learners 20 --no-early-stop"


def distilled(loop: str, devices: int, folder: Path) -> DistilledDataset:
    """What a loop makes on so many devices."""
    out = folder / f"{loop}-{devices}"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "FLOPPY_CACHE": str(folder / "cache")}
    words = ["distill", *words_of(loop), *SMALL.split(), "--out", str(out)]
    subprocess.run(
        [sys.executable, "-m", "floppy", *words], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=1200
    )
    return floppy.load(out / "dataset.safetensors")


def differences(one: DistilledDataset, other: DistilledDataset) -> dict[str, float]:
    """The largest ones."""
    tensors = [
        float(np.max(np.abs(tensor - other.numpy()[name]), initial=0) / max(np.max(np.abs(tensor), initial=0), 1e-9))
        for name, tensor in one.numpy().items()
    ]
    score, again = ((each.card.score or {})["mean"] for each in (one, other))
    return {
        "tensors": float(f"{max(tensors):.2g}"),
        "scores": float(f"{abs(score - again) / max(abs(score), 1e-9):.2g}"),
    }


def main() -> int:
    """Tries them all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("devices.csv"))
    given = parser.parse_args()
    rows: list[dict[str, object]] = []
    worst = {"tensors": 0.0, "scores": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for loop in LOOPS:
            one = distilled(loop, 1, Path(folder))
            for devices in COUNTS:
                found = differences(one, one if devices == 1 else distilled(loop, devices, Path(folder)))
                worst = {name: max(worst[name], value) for name, value in found.items()}
                rows.append({"loop": loop, "task": words_of(loop)[0], "steps": STEPS, "devices": devices} | found)
                print(rows[-1], flush=True)
    tables.write(rows, given.out)
    return int(worst["tensors"] > TENSORS or worst["scores"] > SCORES)


if __name__ == "__main__":
    sys.exit(main())
