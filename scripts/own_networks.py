"""Writes docs/results/own-networks.csv, which docs/networks.md and docs/extending.md quote.

Datasets are distilled for a network of flax and kept in docs/examples/own-networks. One of them, and one that was
distilled for built-in networks, then teach networks of several libraries. A row that is there is left out; `--only
TEXT` keeps to rows whose name holds the text. Of libraries that are not installed there is no row.
"""

import argparse
import csv
import dataclasses
import functools
import importlib.util
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.linen as nn
import jax
import numpy as np

import floppy
from floppy.evaluation.score import score_returns
from floppy.learner.initialisers import HIDDEN_GAIN, OUTPUT_GAIN, orthogonal

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FILE = RESULTS / "own-networks.csv"
FOLDER = ROOT / "docs" / "examples" / "own-networks"
EXTENDING = ROOT / "docs" / "extending.md"
TASK, LEARNERS, EPISODES = "ndcartpole/1", 100, 20
COLUMNS = (
    *("name", "network", "library", "dataset", "examples", "outer_steps"),
    *("score_mean", "score_sd", "ci95_low", "ci95_high", "learners", "episodes", "seed", "seconds", "command"),
)
RESIDUAL = "residual MLP with LayerNorm, 64 units, 2 blocks"
Row = dict[str, Any]


class Residual(nn.Module):
    """The network of docs/networks.md."""

    outputs: int
    width: int = 64
    blocks: int = 2

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.Dense(self.width)(x)
        for _ in range(self.blocks):
            x = x + nn.Dense(self.width)(nn.tanh(nn.LayerNorm()(x)))
        small = nn.initializers.normal(0.001)
        return nn.Dense(self.outputs, kernel_init=small)(nn.LayerNorm()(x))


floppy.register_network("residual", lambda shape, outputs: Residual(outputs))


@dataclasses.dataclass(frozen=True)
class Distilling:
    """A dataset that is distilled for the residual network."""

    name: str
    recipe: str
    outer_steps: int
    seed: int
    network: str = RESIDUAL
    library: str = "flax.linen"

    def row(self) -> Row:
        file = FOLDER / f"{self.name}.safetensors"
        config = floppy.recipe(
            TASK, self.recipe, examples=2, distribution="residual", outer_steps=self.outer_steps, seed=self.seed
        )
        if not file.exists():
            result = floppy.distill(config, command="python scripts/own_networks.py", progress=False)
            floppy.save(result.dataset, file)
        dataset = floppy.load(file)
        score = floppy.evaluate(dataset, learners=LEARNERS, episodes=EPISODES)["card"]
        return of_dataset(file, dataset) | as_cells(score)


@dataclasses.dataclass(frozen=True)
class Searching:
    """A dataset that the random search of docs/extending.md finds for built-in networks."""

    name: str
    outer_steps: int = 300
    seed: int = 0
    network: str = "lambda"
    library: str = "floppy"

    def row(self) -> Row:
        blocks = re.findall(r"```python\n(.*?)```", EXTENDING.read_text(encoding="utf-8"), re.DOTALL)
        page: Row = {}
        exec("\n".join(block for block in blocks[:3]), page)
        file = FOLDER / f"{self.name}.safetensors"
        if not file.exists():
            config = floppy.recipe(
                TASK, examples=4, outer=page["RandomSearch"](), outer_steps=self.outer_steps, seed=self.seed
            )
            result = floppy.distill(config, command="python scripts/own_networks.py", progress=False)
            floppy.save(result.dataset, file)
        dataset = floppy.load(file)
        score = floppy.evaluate(dataset, learners=LEARNERS, episodes=EPISODES)["card"]
        return of_dataset(file, dataset) | as_cells(score)


@dataclasses.dataclass(frozen=True)
class Taught:
    """A network that a dataset teaches which was distilled for others."""

    name: str
    network: str
    library: str
    file: Path
    make: Callable[[], Any]
    seed: int = 0

    def row(self) -> Row:
        dataset = floppy.load(self.file)
        if self.library == "torch":
            returns = play_torch(dataset, self.make, self.seed)
            score = score_returns(returns, 500.0, self.seed)
        else:
            network = floppy.network(self.make())
            scores = floppy.evaluate(dataset, distributions=network, learners=LEARNERS, episodes=EPISODES)
            (score,) = scores.values()
        return of_dataset(self.file, dataset) | as_cells(score)


def of_dataset(file: Path, dataset: floppy.DistilledDataset) -> Row:
    """What is said of the dataset."""
    steps = dataset.card.algorithm["config"]["outer_steps"]
    return {"dataset": str(file.relative_to(ROOT)), "examples": len(dataset.observations), "outer_steps": steps}


def as_cells(score: floppy.Score) -> Row:
    return {
        "score_mean": f"{score.mean:.1f}",
        "score_sd": f"{score.sd:.1f}",
        "ci95_low": f"{score.ci95[0]:.1f}",
        "ci95_high": f"{score.ci95[1]:.1f}",
    }


def play_torch(dataset: floppy.DistilledDataset, make: Callable[[], Any], seed: int) -> np.ndarray:
    """Returns `[learners, episodes]` of trained torch modules, which sample their actions."""
    import torch

    import floppy.torch

    torch.set_num_threads(1)
    policies = floppy.torch.train(dataset, make, learners=LEARNERS, seed=seed)
    task, shape = floppy.make_task(TASK), (LEARNERS, EPISODES)
    assert task.max_steps == 500
    reset, step = (jax.jit(jax.vmap(jax.vmap(each))) for each in (task.reset, task.step))
    keys = jax.jit(lambda key, time: jax.random.split(jax.random.fold_in(key, time), shape))
    key, generator = jax.random.key(seed), torch.Generator().manual_seed(seed)
    state, observations = reset(keys(key, task.max_steps))
    returns, alive = np.zeros(shape), np.ones(shape, bool)
    for time_step in range(task.max_steps):
        seen = np.array(observations)
        actions = np.stack([policy.act(own, generator) for policy, own in zip(policies, seen, strict=True)])
        after = step(keys(key, time_step), state, actions)
        state, observations = after.state, after.observation
        returns += np.where(alive, after.reward, 0.0)
        alive &= ~np.asarray(after.terminated | after.truncated)
        if not alive.any():
            break
    return returns


def equinox_mlp() -> Any:
    import equinox as eqx

    return functools.partial(eqx.nn.MLP, 4, 2, 64, 2, activation=jax.nn.tanh)


def orthogonal_equinox_mlp() -> Any:
    import equinox as eqx

    def draw(key: jax.Array) -> Any:
        module = equinox_mlp()(key=key)
        last = len(module.layers) - 1
        for index, layer in enumerate(module.layers):
            outputs, inputs = layer.weight.shape
            gain = OUTPUT_GAIN if index == last else HIDDEN_GAIN
            kernel = orthogonal(jax.random.fold_in(key, index), (inputs, outputs), inputs, outputs, gain)
            where = lambda each, index=index: (each.layers[index].weight, each.layers[index].bias)  # noqa: E731
            module = eqx.tree_at(where, module, (kernel.T, jax.numpy.zeros(outputs)))
        return module

    return draw


def nnx_mlp() -> Any:
    from flax import nnx

    class Policy(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(4, 64, rngs=rngs)
            self.second = nnx.Linear(64, 64, rngs=rngs)
            self.output = nnx.Linear(64, 2, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.output(nnx.tanh(self.second(nnx.tanh(self.first(x)))))

    return Policy


def haiku_mlp() -> Any:
    import haiku as hk

    return hk.transform(lambda x: hk.nets.MLP([64, 64, 2], activation=jax.nn.tanh)(x))


def torch_mlp() -> Any:
    from torch import nn as layers

    return layers.Sequential(
        layers.Linear(4, 64), layers.Tanh(), layers.Linear(64, 64), layers.Tanh(), layers.Linear(64, 2)
    )


def orthogonal_torch_mlp() -> Any:
    from torch import nn as layers

    module = torch_mlp()
    linear = [each for each in module if isinstance(each, layers.Linear)]
    for layer in linear:
        layers.init.orthogonal_(layer.weight, OUTPUT_GAIN if layer is linear[-1] else HIDDEN_GAIN)
        layers.init.zeros_(layer.bias)
    return module


def residual_torch_mlp() -> Any:
    """`Residual` in PyTorch, with flax's initialisation."""
    import torch
    from torch import nn as layers

    def dense(inputs: int, outputs: int, std: float = 0.0) -> layers.Linear:
        layer = layers.Linear(inputs, outputs)
        layers.init.normal_(layer.weight, std=std or inputs**-0.5)
        layers.init.zeros_(layer.bias)
        return layer

    class Block(layers.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.normal, self.dense = layers.LayerNorm(width, eps=1e-6), dense(width, width)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.dense(torch.tanh(self.normal(x)))

    return layers.Sequential(
        dense(4, 64), Block(64), Block(64), layers.LayerNorm(64, eps=1e-6), dense(64, 2, std=0.001)
    )


OWN = "tanh MLP, 64-64, the library's own initialisation"
ORTHOGONAL = "tanh MLP, 64-64, orthogonal as the built-in lambda"
NETWORKS: tuple[tuple[str, str, str, Callable[[], Any]], ...] = (
    ("equinox", "equinox", OWN, equinox_mlp),
    ("equinox orthogonal", "equinox", ORTHOGONAL, orthogonal_equinox_mlp),
    ("nnx", "flax.nnx", OWN, nnx_mlp),
    ("haiku", "haiku", OWN, haiku_mlp),
    ("torch", "torch", OWN, torch_mlp),
    ("torch orthogonal", "torch", ORTHOGONAL, orthogonal_torch_mlp),
    ("torch residual", "torch", RESIDUAL, residual_torch_mlp),
)
FILES = {
    "lambda": RESULTS / "cartpole/lambda-1d-k2.safetensors",
    "residual-hades-seed0": FOLDER / "residual-hades-seed0.safetensors",
}
ROWS: tuple[Distilling | Searching | Taught, ...] = (
    *(Distilling(f"residual-hades-seed{seed}", "hades", 150, seed) for seed in (0, 1)),
    *(
        Taught(f"{each} by {name}", network, library, file, make)
        for each, library, network, make in NETWORKS
        for name, file in FILES.items()
    ),
    Distilling("residual-ppmo-seed0", "ppmo", 300, 0),
    Searching("random-search"),
)


def is_installed(library: str) -> bool:
    return importlib.util.find_spec(library.split(".")[0]) is not None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="rows whose name holds this text")
    only = parser.parse_args().only
    FOLDER.mkdir(exist_ok=True)
    found: dict[str, Row] = {}
    if FILE.exists():
        with FILE.open(encoding="utf-8") as file:
            found = {row["name"]: row for row in csv.DictReader(file)}
    for wanted in ROWS:
        if wanted.name in found or only not in wanted.name or not is_installed(wanted.library):
            continue
        started = time.monotonic()
        row = {"name": wanted.name, "network": wanted.network, "library": wanted.library, "seed": wanted.seed}
        row |= {"learners": LEARNERS, "episodes": EPISODES} | wanted.row()
        row["seconds"] = f"{time.monotonic() - started:.0f}"
        row["command"] = f"python scripts/own_networks.py --only '{wanted.name}'"
        found[wanted.name] = row
        print(row["name"], row["score_mean"], row["score_sd"], flush=True)
        with FILE.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(found[each.name] for each in ROWS if each.name in found)


if __name__ == "__main__":
    main()
