"""Regenerates docs/results/hades: `python scripts/hades.py distill`, then `evaluate`, then `page`.

Each stage leaves out what is already there. The distillations take some three hours on two cores: two can share the
machine, each with one core of its own (`taskset -c 0 python scripts/hades.py distill --only breakout`).
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
DATASETS = RESULTS / "hades"
TABLE = RESULTS / "hades.csv"
PAGE = RESULTS / "hades.md"
MARK = "<!-- tables: written by scripts/hades.py -->"
EVALUATION_SEED = 1000
OWN = "width=64:init_seed=0"
"""The learners of HaDES-F: one draw."""


@dataclass(frozen=True)
class Run:
    """One distillation, and the learner distributions that it is evaluated under."""

    kind: str
    task: str
    examples: int
    options: str = ""
    seed: int = 0
    distributions: tuple[str, ...] = ("card",)
    learners: int = 20
    episodes: int = 10
    published: str = ""
    """What the HaDES paper's own dataset reaches, and where that is from."""

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.task}-k{self.examples}" + (f"-seed{self.seed}" if self.seed else "")

    @property
    def command(self) -> str:
        seed = f" --seed {self.seed}" if self.seed else ""
        out = f"runs/hades/{self.name}"
        return f"floppy distill {self.task} --outer hades --examples {self.examples} {self.options}{seed} --out {out}"


MINATAR = ("card", "width=512:activation=relu")
BRAX = ("card", "width=512")
RUNS = [
    Run("r", "cartpole", 2, learners=100, episodes=100),
    Run("r", "breakout", 16, "--budget 38m", distributions=MINATAR, published="13.5"),
    Run("r", "space-invaders", 16, "--budget 38m", distributions=MINATAR, published="49.6"),
    Run("r", "asterix", 16, "--budget 38m", distributions=MINATAR, published="8.9"),
    Run("r", "freeway", 16, "--budget 38m", distributions=MINATAR, published="0"),
    Run("r", "hopper", 4, "--budget 40m", distributions=BRAX, published="1771"),
    Run("r", "inverted-double-pendulum", 16, "--outer-steps 3000 --rate-decay 0.2 --budget 40m", distributions=BRAX),
    Run("r", "reacher", 64, "--budget 30m", distributions=BRAX, published="-168"),
]


def distill(only: str) -> None:
    """Runs every distillation whose dataset is not there yet."""
    DATASETS.mkdir(parents=True, exist_ok=True)
    for run in RUNS:
        target = DATASETS / f"{run.name}.safetensors"
        if target.exists() or only not in run.name:
            continue
        words = shlex.split(run.command)
        if (ROOT / words[-1]).exists():
            words.append("--resume")
        print(shlex.join(words), flush=True)
        subprocess.run([Path(sys.executable).with_name("floppy"), *words[1:]], cwd=ROOT, check=True)
        shutil.copy(ROOT / "runs" / "hades" / run.name / "dataset.safetensors", target)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("stage", choices=["distill", "evaluate", "page"])
    parser.add_argument("--only", default="", help="distil or evaluate only runs whose name holds this text")
    arguments = parser.parse_args()
    {"distill": distill}[arguments.stage](arguments.only)
