"""What a dataset and its clones cost beside a run of PPO for every agent (PPMO, section 5.4 and Table 3)."""

import dataclasses
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import jax
import numpy as np
from tyro.conf import Positional

from floppy.dataset import DistilledDataset
from floppy.evaluation.evaluate import evaluate_random
from floppy.fields import bounded, check_fields, one_of
from floppy.keys import named_key
from floppy.recipes import ONE_RUN
from floppy.studies.base import Row, by, check_some, column, finite
from floppy.studies.runs import BudgetedRun, configure_method, run, try_run
from floppy.tasks import make_task
from floppy.teach.policies import train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

AT_ONCE = (1, 1000)
"""Agents that are cloned in one call."""
REPEATS = 5
"""Of each of these calls; the median counts."""
RANDOM_EPISODES = 100
UNITS = {"seconds": "seconds", "env_steps": "environment steps"}


class _Measured(NamedTuple):
    """What the table holds."""

    random: float
    """Score of random actions."""
    target: float
    """Score that an agent has to reach."""
    dataset: Row
    """The end of its distillation."""
    clones: list[Row]
    agents: list[Row]
    """The end of each run of PPO."""
    arrivals: list[Row]
    """The evaluation at which each of them was there, its end where it never was."""
    reached: int
    """How many were there."""


@dataclasses.dataclass(frozen=True)
class Cost:
    """Compares what a dataset and its clones cost with a run of plain PPO for every agent."""

    name: ClassVar[str] = "cost"
    task: Positional[str]
    """Task id or short name."""
    examples: int = bounded(0, least=0)
    """Of the dataset; 0 for the recipe's number."""
    recipe: str = one_of("ppmo", ONE_RUN)
    """Of the distillation."""
    budget: str = ""
    """When the distillation stops: after a number of steps (500steps) or a time (60s, 10m)."""
    ppo_budget: str = ""
    """When each run of PPO stops, likewise."""
    seed: int = bounded(0, least=0, most=2**32 - 1)
    """Of the distillation, the clones and the random actions."""
    seeds: tuple[int, ...] = bounded((0, 1, 2), least=0, most=2**32 - 1)
    """Of the agents that PPO trains, one each."""
    share: float = bounded(0.95, above=0, most=1)
    """An agent is there when it has gone this share of the way from random actions' mean return to the clones'."""
    every: int = bounded(10, least=1)
    """Outer steps between the evaluations that tell how far PPO is; they take about as much time in all as the
    recipe's."""

    def __post_init__(self) -> None:
        """Validates the fields."""
        check_fields(self)
        check_some(self, "seeds")

    def cells(self) -> list[Row]:
        """The distillation, then an agent per seed.

        Raises:
          FloppyError: for a task or budget that cannot be.
        """
        self._distillation()
        self._ppo(self.seeds[0])
        return [{"method": "distillation", "seed": self.seed}, *({"method": "ppo", "seed": s} for s in self.seeds)]

    def measure(self, cell: Row, folder: Path) -> list[Row]:
        """A row per evaluation of the run and one of its end; after the distillation also random actions and clones.

        `seconds` is wall-clock time without `compilation`. It holds that of evaluations, while `env_steps` leaves
        their steps out. An agent whose run diverged ends with a score of -inf.

        Raises:
          DivergedError: if the distillation diverged, for then nothing is left to compare.
        """
        if cell["method"] == "ppo":
            return try_run(self._ppo(cell["seed"]), folder).rows
        ended = run(self._distillation(), folder)
        random = evaluate_random(make_task(self.task), episodes=RANDOM_EPISODES, seed=self.seed)
        clones = [{"what": "clones"} | self._timed_clones(ended.best, agents) for agents in AT_ONCE]
        return [*ended.rows, {"what": "random", "score": random.mean}, *clones]

    def summary(self, rows: list[Row]) -> Row:
        """Costs, and from how many agents on the dataset is the cheaper way.

        `to_target` counts an agent that was never there with all it took, so that it may cost more than is said.
        """
        known = self._measured(rows)
        summary: Row = {
            "scores": {"random": known.random, "clones": known.dataset["score"], "target": known.target},
            "dataset": _costs([known.dataset]) | {"compilation": known.dataset["compilation"]},
            "clones": [{name: row[name] for name in ("agents", "seconds", "compilation")} for row in known.clones],
        }
        if not known.agents:
            return summary
        if known.dataset["score"] <= known.random:
            summary["note"] = "The clones are no better than random actions: these figures compare nothing."
        summary["scores"]["ppo"] = finite(column(known.agents, "score").mean())
        summary["ppo"] = {
            "agents": len(known.agents),
            "reached": known.reached,
            "compilation": float(column(known.agents, "compilation").max()),
            "to_target": _costs(known.arrivals) | _compared(known, _costs(known.arrivals)),
            "in_total": _costs(known.agents) | _compared(known, _costs(known.agents)),
        }
        return summary

    def draw(self, rows: list[Row], figure: "Figure") -> None:
        """The cost of all agents over their number, in time and in environment steps."""
        known = self._measured(rows)
        ways = {f"PPO to {known.target:.4g}": known.arrivals, "PPO to its end": known.agents} if known.agents else {}
        most = max([100.0, *(known.dataset[unit] / _costs(way)[unit] for way in ways.values() for unit in UNITS)])
        agents = np.geomspace(1, 10 * most, 100)
        figure.set_size_inches(9, 4)
        for axes, unit in zip(figure.subplots(1, 2), UNITS, strict=True):
            axes.plot(agents, known.dataset[unit] + agents * known.clones[0][unit], label="dataset and clones")
            for (label, way), style in zip(ways.items(), ("-", "--"), strict=False):
                axes.plot(agents, agents * _costs(way)[unit], f"C1{style}", label=label)
            axes.set(xscale="log", yscale="log", xlabel="agents", ylabel=UNITS[unit])
            axes.legend(fontsize="small")

    def _distillation(self) -> BudgetedRun:
        return configure_method(self.recipe, self.task, examples=self.examples, seed=self.seed, budget=self.budget)

    def _ppo(self, seed: int) -> BudgetedRun:
        """Plain PPO, which is evaluated more often, each time with fewer episodes."""
        config, seconds = configure_method("ppo", self.task, seed=seed, budget=self.ppo_budget)
        learners = max(1, config.selection_learners * self.every // config.evaluate_every)
        return BudgetedRun(dataclasses.replace(config, evaluate_every=self.every, selection_learners=learners), seconds)

    def _timed_clones(self, dataset: DistilledDataset, agents: int) -> Row:
        """How long it takes to clone so many at once."""
        key, seconds = named_key(jax.random.key(self.seed), "cost"), []
        for repeat in range(1 + REPEATS):
            started = time.perf_counter()
            policies = train(dataset, jax.random.fold_in(key, repeat), learners=agents)
            jax.block_until_ready(policies.weights)
            seconds.append(time.perf_counter() - started)
        once = float(np.median(seconds[1:]))
        return {"agents": agents, "env_steps": 0, "seconds": once, "compilation": max(0.0, seconds[0] - once)}

    def _measured(self, rows: list[Row]) -> _Measured:
        """Sorts the rows."""
        methods = by(rows, "method")
        of_dataset = by(methods["distillation"], "what")
        random, dataset = of_dataset["random"][0]["score"], of_dataset["end"][0]
        target = random + self.share * (dataset["score"] - random)
        agents, arrivals, reached = [], [], 0
        for of_agent in by(methods.get("ppo", []), "seed").values():
            of_run = by(of_agent, "what")
            there = [row for row in of_run.get("evaluation", []) if row["score"] >= target]
            reached += bool(there)
            arrivals += (there or of_run["end"])[:1]
            agents += of_run["end"]
        return _Measured(random, target, dataset, of_dataset["clones"], agents, arrivals, reached)


def _costs(rows: list[Row]) -> Row:
    """Means over agents, in every unit."""
    return {unit: float(column(rows, unit).mean()) for unit in UNITS}


def _compared(known: _Measured, agent: Row) -> Row:
    """The dataset and its clones beside what an agent by PPO costs."""
    clone = known.clones[0]
    return {
        "clone_is_faster": agent["seconds"] / clone["seconds"],
        "dataset_costs_agents": {unit: known.dataset[unit] / agent[unit] for unit in UNITS},
        "break_even": {unit: break_even(known.dataset[unit], clone[unit], agent[unit]) for unit in UNITS},
    }


def break_even(dataset: float, clone: float, agent: float) -> int | None:
    """The least number `n` of agents with `dataset + n · clone < n · agent`; None where a clone costs as much.

    Args:
      dataset: what the distillation costs.
      clone: what cloning an agent costs.
      agent: what training one without a dataset costs.
    """
    return math.floor(dataset / (agent - clone)) + 1 if agent > clone else None
