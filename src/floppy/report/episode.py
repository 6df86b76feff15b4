"""One episode of a freshly cloned policy, as a moving picture."""

import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from floppy.compilation import FOR_FEW_CALLS, compiled
from floppy.drawing import draw_observation, observation_size
from floppy.files import MEBIBYTE
from floppy.keys import named_key
from floppy.play import Arena
from floppy.play.arena import Trajectory
from floppy.tasks.base import Task
from floppy.teach.policies import Policies

MOST_STEPS = 500
"""Of an episode, that are shown."""
MOST_FRAMES = 100
MILLISECONDS = 100
"""Per frame."""
MOST_BYTES = MEBIBYTE * 15 // 16
COLOURS = 64
PIXELS = 512
"""Width of a frame, as the page shows it."""
INCHES = (4.0, 3.0)
"""At most, of a frame."""


class Episode(NamedTuple):
    """What a policy saw."""

    observations: np.ndarray
    """`[T, *obs]`, in the task's units."""
    has_ended: bool
    """Whether that is all of the episode."""
    total: float | None = None
    """Its return, where it has ended and rewards are those of a score."""


def play_episode(task: Task, policies: Policies, arena: Arena[Any], seed: int) -> Episode:
    """Has the first of several policies play from the start of an episode, with sampled actions.

    Args:
      task: with episodes.
      policies: trained for it.
      arena: where they play.
      seed: of the episode.

    Returns:
      The first 500 steps, or less where the episode ended.
    """
    key = named_key(jax.random.key(seed), "report episode")
    weights = jax.tree.map(lambda leaf: leaf[:1], policies.weights)

    def play(weights: Any, statistics: Any, key: jax.Array) -> Trajectory:
        environments = arena.start_environments(task, named_key(key, "start"), 1, 1)
        steps = min(MOST_STEPS, task.max_steps)
        return arena.collect(
            task, policies.network, weights, environments, named_key(key, "play"), steps=steps, statistics=statistics
        )[1]

    run = compiled(play, FOR_FEW_CALLS) if arena.is_pure else play
    played = run(weights, policies.statistics, key)
    ended = np.asarray(played.terminated | played.truncated)[:, 0, 0]
    steps = int(ended.argmax()) + 1 if ended.any() else len(ended)
    is_scored = ended.any() and not getattr(task, "shapes_rewards", False)
    total = float(np.asarray(played.final_returns)[steps - 1, 0, 0]) if is_scored else None
    return Episode(np.asarray(played.observations)[:steps, 0, 0], bool(ended.any()), total)


def frames_of(episode: Episode) -> np.ndarray:
    """The observations `[n, *obs]` that are shown: 100 at most, of a grid, whose things jump, the first ones."""
    count = steps_shown(episode)
    if count < len(episode.observations):
        return episode.observations[:count]
    return episode.observations[:: -(-count // MOST_FRAMES)]


def steps_shown(episode: Episode) -> int:
    """How much of an episode its frames are about."""
    count = len(episode.observations)
    return min(count, MOST_FRAMES) if episode.observations.ndim == 4 else count


def draw_frames(task: Task, observations: Sequence[np.ndarray] | np.ndarray) -> list[Any]:
    """A picture for each observation, all of one size: images of Pillow's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from PIL import Image

    size = np.minimum(observation_size(task), INCHES)
    figure = Figure(figsize=tuple(size), dpi=PIXELS / size[0], facecolor="white")
    canvas = FigureCanvasAgg(figure)
    axes = figure.add_axes((0.02, 0.02, 0.96, 0.96))
    frames = []
    for observation in observations:
        axes.clear()
        draw_observation(axes, task, observation)
        canvas.draw()
        frames.append(Image.fromarray(np.asarray(canvas.buffer_rgba())[..., :3].copy()))
    return frames


def as_gif(frames: Sequence[Any]) -> bytes:
    """Frames as an animated GIF of less than 1 MB: every second one is left out, and again, until it is."""
    from PIL import Image

    # One palette for all of them, else colours flicker; of several, for what is small is not in every one.
    some = frames[:: max(1, len(frames) // 8)]
    together = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for number, frame in enumerate(some):
        together.paste(frame, (0, number * frame.height))
    palette = together.quantize(COLOURS)
    kept = [frame.quantize(palette=palette, dither=0) for frame in frames]
    step = 1
    while True:
        picture = io.BytesIO()
        first, *others = kept[::step]
        first.save(
            picture, "GIF", save_all=True, append_images=others, duration=MILLISECONDS * step, loop=0, optimize=True
        )
        if picture.tell() <= MOST_BYTES or step >= len(kept):
            return picture.getvalue()
        step *= 2
