"""Encoder rollback: the same distillation with ever fewer layers in the encoder (PPMO paper, section 4)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from floppy.distill import (
    CONFIG_NAME,
    DATASET_NAME,
    DistillConfig,
    DistillResult,
    already_taken,
    check_intention,
    distill,
    files_of_run,
)
from floppy.errors import FloppyError
from floppy.learners import parse_distributions


class Distil(Protocol):
    """`distill`, or something that also shows its progress."""

    def __call__(
        self,
        config: DistillConfig,
        out: Path | None,
        *,
        resume: bool,
        overwrite: bool,
        time_limit: float | None,
        command: str,
    ) -> DistillResult:
        """See `distill`."""


@dataclasses.dataclass(frozen=True)
class Level:
    """One distillation of the study."""

    encoder_layers: int
    """`l`: 0 is full distillation, all layers are plain PPO, or neuroevolution."""
    examples: int
    """0 with all layers in the encoder, for nothing is left to clone."""
    score: dict[str, Any]
    """As on the dataset's card."""
    dataset: Path | None
    """Where the dataset lies, if runs are kept."""
    env_steps: int
    """Environment steps used."""
    finished: bool
    """False when a time limit or Ctrl-C ended the run early."""
    interrupted: bool
    """Whether it was Ctrl-C."""


def rollback(
    config: DistillConfig,
    out: Path | str | None = None,
    *,
    levels: Sequence[int] = (),
    resume: bool = False,
    overwrite: bool = False,
    time_limit: float | None = None,
    command: str = "",
    distil: Distil = distill,
) -> list[Level]:
    """Distils a task once for every number of encoder layers.

    Args:
      config: of every run, but for `encoder_layers`, and for `examples` where the encoder holds every layer.
      out: folder with a run per level, `l0`, `l1` and so on; None keeps everything in memory.
      levels: numbers of encoder layers, in the order of the runs; by default all, from the whole network down to 0.
      resume: go on with the runs in `out` that have begun.
      overwrite: replace the runs in `out`.
      time_limit: seconds after which each run ends.
      command: written on the cards.
      distil: what runs one of them.

    Returns:
      A level per run; fewer after Ctrl-C.

    Raises:
      FloppyError: for a level that the network does not have, a folder that is taken, and whatever `distill` refuses.
    """
    check_intention(resume=resume, overwrite=overwrite)
    plan = [(each, None if out is None else Path(out) / f"l{each.encoder_layers}") for each in _configs(config, levels)]
    for each, folder in plan:  # refused before the first run begins
        each.problem()
        if folder is not None and files_of_run(folder) and not (resume or overwrite):
            raise already_taken(folder)
    done = []
    for each, folder in plan:
        has_begun = folder is not None and (folder / CONFIG_NAME).exists()
        result = distil(
            each,
            folder,
            resume=resume and has_begun,
            overwrite=overwrite,
            time_limit=time_limit,
            command=command,
        )
        done.append(_level(each, folder, result))
        if result.interrupted:
            break
    return done


def _configs(config: DistillConfig, levels: Sequence[int]) -> list[DistillConfig]:
    """One per level."""
    layers = parse_distributions(config.distribution)[0].layers
    levels = list(levels) or list(range(layers, -1, -1))
    if config.encoder_layers:
        raise FloppyError(
            f"encoder_layers = {config.encoder_layers} was asked for in a study of all of them: choose by levels."
        )
    if wrong := [level for level in levels if not 0 <= level <= layers]:
        raise FloppyError(f"Level {wrong[0]} was asked for: the network has {layers} layers, give 0 to {layers}.")
    if len(set(levels)) < len(levels):
        raise FloppyError(f"Levels {', '.join(map(str, levels))} were asked for: give each of them once.")
    return [
        dataclasses.replace(config, encoder_layers=level, examples=0 if level == layers else config.examples)
        for level in levels
    ]


def _level(config: DistillConfig, folder: Path | None, result: DistillResult) -> Level:
    return Level(
        config.encoder_layers,
        config.examples,
        result.dataset.card.score or {},
        None if folder is None else folder / DATASET_NAME,
        result.env_steps,
        result.finished,
        result.interrupted,
    )
