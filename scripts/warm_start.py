"""Writes docs/results/warm-start.csv, and from it the table of docs/exports.md: a warm start of PPO beside a cold one.

Stable-Baselines3's PPO with its own defaults learns Gymnasium's CartPole-v1 from fresh networks (cold), and from actors
that were cloned from two examples. Seeds of the CSV are left out; `--table` measures nothing.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _tables import markdown_table
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

import floppy

ROOT = Path(__file__).resolve().parents[1]
FILE, PAGE = ROOT / "docs/results/warm-start.csv", ROOT / "docs/exports.md"
DATASET = ROOT / "docs/results/cartpole/lambda-1d-k2.safetensors"
TASK, SEEDS, EPISODES = "CartPole-v1", 5, 10
ENVIRONMENTS, ROLLOUT = 8, 2048
"""Environment steps between two updates, PPO's default, and between two scores; they are spread over environments."""
STEPS = {"cold": 12 * ROLLOUT, "warm": 3 * ROLLOUT}
"""Environment steps of each kind of start, of which a cold one ends when it has reached the last of the scores."""
SCORES = (100, 200, 400, 475)
AT = (0, STEPS["warm"])
COLUMNS = ("start", "seed", "steps", "mean", "episodes")
BEGIN, END = "<!-- table: written by scripts/warm_start.py -->\n", "<!-- end of table -->"
Row = dict[str, Any]


def model(start: str, seed: int) -> PPO:
    environments = make_vec_env(TASK, n_envs=ENVIRONMENTS, seed=seed)
    options: dict[str, Any] = {"seed": seed, "n_steps": ROLLOUT // ENVIRONMENTS, "device": "cpu"}
    if start == "cold":
        return PPO("MlpPolicy", environments, **options)
    return floppy.sb3.warm_start(floppy.load(DATASET), environments, **options)


def measure(start: str, seed: int) -> list[Row]:
    """Scores of sampled actions, in episodes of their own, after every update."""
    learner, rows = model(start, seed), []
    played = make_vec_env(TASK, n_envs=EPISODES, seed=10_000 + seed)
    while True:
        mean, _ = evaluate_policy(learner, played, n_eval_episodes=EPISODES, deterministic=False)
        done = learner.num_timesteps
        rows.append({"start": start, "seed": seed, "steps": done, "mean": mean, "episodes": EPISODES})
        if done >= STEPS[start] or (done >= STEPS["warm"] and mean >= SCORES[-1]):
            return rows
        learner.learn(ROLLOUT, reset_num_timesteps=False)


def steps_to(rows: list[Row], score: float) -> float:
    """Environment steps at the first score that is reached; infinite where it never is."""
    return next((int(row["steps"]) for row in rows if float(row["mean"]) >= score), np.inf)


def table(rows: list[Row]) -> str:
    """The median over seeds of the steps to each score, and means over seeds at both ends of a warm start."""
    lines = []
    for start in STEPS:
        own = [[row for row in rows if (row["start"], row["seed"]) == (start, str(seed))] for seed in range(SEEDS)]
        runs = [run for run in own if run]
        medians = [float(np.median([steps_to(run, score) for run in runs])) for score in SCORES]
        texts = [f"{each:,.0f}" if np.isfinite(each) else f"over {STEPS[start]:,}" for each in medians]
        ends = [[float(row["mean"]) for run in runs for row in run if int(row["steps"]) == at] for at in AT]
        lines.append([start, str(len(runs)), *texts, *(f"{np.mean(scores):.1f}" for scores in ends)])
    head = ("start", "seeds", *(f"steps to {score}" for score in SCORES), *(f"score after {at:,}" for at in AT))
    return markdown_table(head, lines, narrow=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table alone")
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(SEEDS)))
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows: list[Row] = []
    if FILE.exists():
        with FILE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    for seed in given.seeds if not given.table else ():
        for start in STEPS:
            if any((row["start"], row["seed"]) == (start, str(seed)) for row in rows):
                continue
            measured = measure(start, seed)
            rows += [{name: str(value) for name, value in row.items()} for row in measured]
            is_new = not FILE.exists()
            with FILE.open("a", newline="") as file:  # others may measure other seeds
                writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                if is_new:
                    writer.writeheader()
                writer.writerows(measured)
            print(start, seed, rows[-1], flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table(rows) + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
