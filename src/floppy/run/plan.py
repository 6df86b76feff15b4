"""What a run would take, from a short measurement: nothing is written."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from floppy.play import open_arena
from floppy.run.config import DistillConfig
from floppy.run.loop import Run

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


@dataclasses.dataclass(frozen=True)
class Plan:
    """What a run would take on this machine, as it is busy now."""

    outer_steps: int
    env_steps: int
    """Environment steps of all outer steps; evaluations are not counted."""
    evaluations: int
    floats: int
    """Numbers that the dataset stores."""
    checkpoint_bytes: int
    memory_bytes: int
    """Peak so far: of the process, or of the accelerator if there is one."""
    compilation_seconds: float
    step_seconds: float
    """Of one outer step."""
    evaluation_seconds: float
    """Of one of the evaluations that choose the best dataset."""
    score_seconds: float
    """Of the last evaluation."""

    @property
    def seconds(self) -> float:
        """Of the whole run."""
        in_steps = self.outer_steps * self.step_seconds + self.evaluations * self.evaluation_seconds
        return self.compilation_seconds + in_steps + self.score_seconds


def plan(config: DistillConfig) -> Plan:
    """Measures two outer steps and two evaluations, and reckons with them.

    Args:
      config: what would be distilled and how.

    Returns:
      Steps, memory and seconds.

    Raises:
      FloppyError: for whatever the run would be refused for.
    """
    problem = config.problem()
    with open_arena(problem.task) as arena:
        run = Run(config, problem, "", arena)
        state = run.init()
        outer, env_steps = state.outer, []

        def step(number: int) -> Any:
            nonlocal outer
            outer, figures, fault = run.steps(outer, [number], lambda: False)
            if fault is not None:
                raise fault
            env_steps.append(int(figures["env_steps"].sum()))
            return outer

        steps = _timed(step)
        reached = state._replace(outer=outer)
        selections = _timed(lambda _: run.select(reached))
        score = run.scoring_estimate() - (selections[0] - selections[1])
    return Plan(
        outer_steps=config.outer_steps,
        env_steps=env_steps[0] + env_steps[1] * (config.outer_steps - 1),  # the first one may count what came before
        evaluations=math.ceil(config.outer_steps / config.evaluate_every),
        floats=sum(leaf.size for leaf in jax.tree.leaves(state.best)),
        checkpoint_bytes=sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(state)),
        memory_bytes=_peak_memory(),
        compilation_seconds=max(0.0, steps[0] - steps[1]) + max(0.0, selections[0] - selections[1]),
        step_seconds=steps[1],
        evaluation_seconds=selections[1],
        score_seconds=max(0.0, score),
    )


def _timed(work: Callable[[int], Any]) -> list[float]:
    """Seconds of a first call, which compiles, and of a second one."""
    seconds = []
    for number in range(2):
        started = time.monotonic()
        jax.block_until_ready(jax.tree.leaves(work(number)))
        seconds.append(time.monotonic() - started)
    return seconds


def _peak_memory() -> int:
    device = jax.local_devices()[0]
    stats = None if device.platform == "cpu" else device.memory_stats()
    if stats:
        return int(stats.get("peak_bytes_in_use", 0))
    return 0 if resource is None else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
