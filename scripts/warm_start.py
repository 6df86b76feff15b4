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
STEPS = {"cold": 12 * ROLLOUT, "warm": 3 * ROLLOUT, "warm, critic first": 3 * ROLLOUT}
"""Environment steps of each kind of start."""
SCORES = (100, 200, 400, 475)
COLUMNS = ("start", "seed", "steps", "mean", "episodes")
BEGIN, END = "<!-- table: written by scripts/warm_start.py -->\n", "\n<!-- end of table -->"
Row = dict[str, Any]


def model(start: str, seed: int) -> PPO:
    environments = make_vec_env(TASK, n_envs=ENVIRONMENTS, seed=seed)
    options: dict[str, Any] = {"seed": seed, "n_steps": ROLLOUT // ENVIRONMENTS, "device": "cpu"}
    if start == "cold":
        return PPO("MlpPolicy", environments, **options)
    critic_steps = ROLLOUT if start == "warm, critic first" else 0
    return floppy.sb3.warm_start(floppy.load(DATASET), environments, critic_steps=critic_steps, **options)


def measure(start: str, seed: int) -> list[Row]:
    """Scores of sampled actions, in episodes of their own, after every update."""
    learner, rows = model(start, seed), []
    played = make_vec_env(TASK, n_envs=EPISODES, seed=10_000 + seed)
    while True:
        mean, _ = evaluate_policy(learner, played, n_eval_episodes=EPISODES, deterministic=False)
        done = learner.num_timesteps
        rows.append({"start": start, "seed": seed, "steps": done, "mean": mean, "episodes": EPISODES})
        if done >= STEPS[start]:
            return rows
        learner.learn(ROLLOUT, reset_num_timesteps=False)


def steps_to(rows: list[Row], score: float) -> float:
    """Environment steps at the first score that is reached; infinite where it never is."""
    return next((int(row["steps"]) for row in rows if float(row["mean"]) >= score), np.inf)


def table(rows: list[Row]) -> str:
    """The median over seeds of the steps to each score, and the lowest score after the highest was reached."""
    lines = []
    for start in STEPS:
        runs = [[row for row in rows if (row["start"], row["seed"]) == (start, str(seed))] for seed in range(SEEDS)]
        medians = [float(np.median([steps_to(run, score) for run in runs])) for score in SCORES]
        texts = [f"{each:,.0f}" if np.isfinite(each) else f"over {STEPS[start]:,}" for each in medians]
        first = np.mean([float(run[0]["mean"]) for run in runs])
        last = [float(run[-1]["mean"]) for run in runs]
        lines.append([start, f"{first:.0f}", *texts, f"{np.mean(last):.0f}", f"{STEPS[start]:,}"])
    head = ("start", "first score", *(f"steps to {score}" for score in SCORES), "last score", "after steps")
    return markdown_table(head, lines, narrow=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table alone")
    torch.set_num_threads(1)
    rows: list[Row] = []
    if FILE.exists():
        with FILE.open(newline="") as file:
            rows = list(csv.DictReader(file))
    if not parser.parse_args().table:
        for seed in range(SEEDS):
            for start in STEPS:
                if any((row["start"], row["seed"]) == (start, str(seed)) for row in rows):
                    continue
                rows += [{name: str(value) for name, value in row.items()} for row in measure(start, seed)]
                with FILE.open("w", newline="") as file:
                    writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
                    writer.writeheader()
                    writer.writerows(rows)
                print(start, seed, rows[-1], flush=True)
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    PAGE.write_text(before + BEGIN + table(rows) + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
