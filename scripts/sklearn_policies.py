"""Writes docs/results/sklearn.csv, and from it a table of docs/exports.md: estimators of scikit-learn as policies.

Each is fitted to the examples of a dataset, whose learners are networks of floppy's own, and plays Gymnasium's
CartPole-v1 by its largest output. `--table` measures nothing.
"""

import argparse
import csv
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from _tables import markdown_table
from sklearn.dummy import DummyRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.linear_model import LinearRegression
from sklearn.neural_network import MLPRegressor

import floppy

ROOT = Path(__file__).resolve().parents[1]
FILE, PAGE = ROOT / "docs/results/sklearn.csv", ROOT / "docs/exports.md"
DATASETS = {"2 examples": "lambda-1d-k2", "512 examples": "gradient-1d-k512"}
TASK, EPISODES = "CartPole-v1", 10
ESTIMATORS: dict[str, Any] = {
    "`DummyRegressor()`": DummyRegressor(),
    "`LinearRegression()`": LinearRegression(),
    '`KernelRidge(kernel="rbf")`': KernelRidge(kernel="rbf"),
    '`KernelRidge(kernel="laplacian")`': KernelRidge(kernel="laplacian"),
    "`MLPRegressor()`": MLPRegressor(
        hidden_layer_sizes=(64, 64), activation="tanh", solver="lbfgs", max_iter=1000, tol=1e-3, random_state=0
    ),
}
COLUMNS = ("examples", "estimator", "mean", "sd", "episodes")
BEGIN, END = "<!-- table: written by scripts/sklearn_policies.py -->\n", "<!-- end of table -->"


def returns(estimator: Any) -> np.ndarray:
    """`[EPISODES]`."""
    environment, found = gymnasium.make(TASK), np.zeros(EPISODES)
    for episode in range(EPISODES):
        observation, ended = environment.reset(seed=episode)[0], False
        while not ended:
            action = int(np.argmax(estimator.predict(observation[None])[0]))
            observation, reward, terminated, truncated, _ = environment.step(action)
            found[episode] += float(reward)
            ended = terminated or truncated
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--table", action="store_true", help="write the table alone")
    if not parser.parse_args().table:
        with FILE.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            for examples, name in DATASETS.items():
                dataset = floppy.load(ROOT / f"docs/results/cartpole/{name}.safetensors")
                for text, estimator in ESTIMATORS.items():
                    scores = returns(estimator.fit(dataset.observations, dataset.targets))
                    writer.writerow([examples, text, scores.mean(), scores.std(ddof=1), EPISODES])
    with FILE.open(newline="") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["examples"], row["estimator"]): f"{float(row['mean']):.1f} ± {float(row['sd']):.1f}" for row in rows}
    lines = [[text, *(cells[examples, text] for examples in DATASETS)] for text in ESTIMATORS]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    text = markdown_table(("estimator", *DATASETS), lines, narrow=True)
    PAGE.write_text(before + BEGIN + text + "\n" + end + after, encoding="utf-8")


if __name__ == "__main__":
    main()
