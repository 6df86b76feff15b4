"""Encoder rollback: the same distillation with ever fewer layers in the encoder (PPMO paper, section 4)."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from floppy.distill import CONFIG_NAME, DATASET_NAME, DistillConfig, DistillResult, distill
from floppy.errors import FloppyError
from floppy.learners import parse_distributions

Distil = Callable[..., DistillResult]


@dataclasses.dataclass(frozen=True)
class Level:
    """One distillation of the study."""

    encoder_layers: int
    """`l`: 0 is full distillation, all layers are plain PPO."""
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


def rollback(
    config: DistillConfig,
    out: Path | None = None,
    *,
    levels: Sequence[int] = (),
    resume: bool = False,
    distil: Distil = distill,
    **options: Any,
) -> list[Level]:
    """Distils a task once for every number of encoder layers.

    Args:
      config: of every run, but for `encoder_layers`, and for `examples` where the encoder holds every layer.
      out: folder with a run per level, `l0`, `l1` and so on; None keeps everything in memory.
      levels: numbers of encoder layers, in the order of the runs; by default all, from plain PPO down to 0.
      resume: go on with the runs in `out` that have begun.
      distil: what runs one of them, `distill` or something that shows its progress.
      **options: of `distill`, such as `time_limit` (s, of each run).

    Returns:
      A level per run.

    Raises:
      FloppyError: for a level that the network does not have, and whatever `distill` refuses.
    """
    layers = parse_distributions(config.distribution)[0].layers
    levels = list(levels) or list(range(layers, -1, -1))
    if wrong := [level for level in levels if not 0 <= level <= layers]:
        raise FloppyError(f"Level {wrong[0]} was asked for: the network has {layers} layers, give 0 to {layers}.")
    if len(set(levels)) < len(levels):
        raise FloppyError(f"Levels {', '.join(map(str, levels))} were asked for: give each of them once.")
    configs = [_at_level(config, level, layers) for level in levels]
    for each in configs:
        each.problem()  # refused before the first run begins
    return [_run(each, out and out / f"l{each.encoder_layers}", resume, distil, options) for each in configs]


def _at_level(config: DistillConfig, level: int, layers: int) -> DistillConfig:
    return dataclasses.replace(config, encoder_layers=level, examples=0 if level == layers else config.examples)


def _run(config: DistillConfig, folder: Path | None, resume: bool, distil: Distil, options: dict[str, Any]) -> Level:
    begun = folder is not None and (folder / CONFIG_NAME).exists()
    result = distil(config, folder, resume=resume and begun, **options)
    return Level(
        config.encoder_layers,
        config.examples,
        result.dataset.card.score or {},
        folder and folder / DATASET_NAME,
        result.env_steps,
        result.finished,
    )
