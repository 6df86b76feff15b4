"""What it would gain to collect on the host while the device updates: `python benchmarks/overlap.py [TASK ...]`.

Two runs of PPMO take turns: once one after the other, once with the one collecting while the other updates. That is as
good as overlap within one run could be, which would have to collect with the policies of the outer step before.
"""

import concurrent.futures
import sys
import time
from collections.abc import Callable
from typing import Any

import jax

from floppy import recipe
from floppy.keys import named_key
from floppy.outer import PPMO
from floppy.play.host import HostArena

ROUNDS = 4


class Run:
    """One run, its outer step cut in two."""

    def __init__(self, task: str, seed: int) -> None:
        layers = {"encoder_layers": 4} if task.startswith("ale/") else {}
        config = recipe(task, **layers)
        assert isinstance(config.outer, PPMO)
        self.outer, self.problem, self.arena = config.outer, config.problem(), HostArena()
        self.key = jax.random.key(seed)
        self.state = self.outer.init(self.problem, self.key, self.arena)
        self.collected: Any = None

    def collect(self) -> None:
        """Draws, clones and plays."""
        network = self.problem.networks[0]
        fresh, cloned = self.arena.compiled(self.outer._draw)(self.problem, self.state.distilled, self.key)
        _, trajectory = self.arena.collect(
            self.problem.task,
            network,
            cloned[0],
            self.state.environments[0],
            named_key(self.key, "collect 0"),
            steps=self.outer.horizon,
            statistics=self.outer.statistics(self.state),
        )
        self.collected = fresh, (cloned[0].log_std,), (trajectory,)

    def update(self) -> None:
        """Improves the dataset."""
        improve = self.arena.compiled(self.outer._improve)
        self.state, _ = jax.block_until_ready(improve(self.problem, self.state, *self.collected, self.key))


def timed(*pieces: Callable[[], None]) -> float:
    """Seconds that the pieces take, one after the other."""
    started = time.monotonic()
    for piece in pieces:
        piece()
    return time.monotonic() - started


def seconds(task: str) -> dict[str, float]:
    """Per outer step of one run."""
    first, second = Run(task, 0), Run(task, 1)
    timed(first.collect, first.update, second.collect, second.update)  # compiles
    spent = {"collect": 0.0, "update": 0.0, "overlapped": 0.0}
    with concurrent.futures.ThreadPoolExecutor(1) as pool:

        def both(updating: Run, collecting: Run) -> None:
            playing = pool.submit(collecting.collect)
            updating.update()
            playing.result()

        for _ in range(ROUNDS):
            spent["collect"] += timed(first.collect, second.collect)
            spent["update"] += timed(first.update, second.update)
            first.collect()
            spent["overlapped"] += timed(lambda: both(first, second), lambda: both(second, first))
    first.arena.close()
    second.arena.close()
    return {name: value / (2 * ROUNDS) for name, value in spent.items()}


def main() -> None:
    """A line per task."""
    for task in sys.argv[1:] or ["gymnasium/Hopper-v4", "gymnasium/CartPole-v1", "ale/centipede"]:
        took = seconds(task)
        turns = took["collect"] + took["update"]
        print(
            f"{task}: collect {took['collect']:.2f} s, update {took['update']:.2f} s, in turns {turns:.2f} s, "
            f"overlapped {took['overlapped']:.2f} s, ratio {turns / took['overlapped']:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
