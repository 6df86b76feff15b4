"""Minari: `floppy.minari.export` lets a cloned policy play, and keeps the episodes as a dataset of Minari's.

Nothing else imports this module, Minari or Gymnasium for it.
"""

import secrets
import shutil
import warnings
from typing import Any

import jax
import numpy as np

from floppy.dataset.file import DistilledDataset
from floppy.errors import OVERWRITE, FloppyError, one_line
from floppy.fields import as_seed, whole_number
from floppy.files import TEMPORARY_FILES
from floppy.keys import named_key
from floppy.play import open_arena
from floppy.play.arena import Trajectory
from floppy.spaces import ActionSpace
from floppy.tasks.base import Task, observes_bytes
from floppy.teach.codec import unpack
from floppy.teach.policies import train

try:
    import gymnasium
    import minari
    from minari.data_collector import EpisodeBuffer
    from minari.storage import get_dataset_path
except ImportError as error:
    raise FloppyError("floppy.minari needs Minari, which is not installed: pip install 'floppy-rl[minari]'.") from error

STEPS = 128
"""That are played between two looks at which episodes have ended."""


def export(
    dataset: DistilledDataset, dataset_id: str, *, episodes: int = 10, seed: int = 0, overwrite: bool = False
) -> None:
    """Keeps episodes of a cloned policy, with sampled actions, as a dataset that `minari.load_dataset` finds.

    It is in Minari's own folder, `MINARI_DATASETS_PATH` or else `~/.minari/datasets`. Actions are those that the task
    received, within its bounds. Atari games are played as in training: a life is an episode, rewards are clipped.

    Args:
      dataset: that a fresh policy is cloned from, of one task with episodes.
      dataset_id: as Minari has it, such as `cartpole/clone-v0`.
      episodes: how many, each in an environment of its own.
      seed: of the policy's initial weights, and of the episodes.
      overwrite: whether a dataset of this id may be replaced.

    Raises:
      FloppyError: for a dataset without a task to play, an id that Minari refuses or has already, or if it cannot be
        written.
    """
    seed, episodes = as_seed(seed), whole_number("episodes", episodes)
    task = unpack(dataset).task()
    place = _place(dataset_id, overwrite=overwrite)
    buffers = _buffers(_play(dataset, task, episodes, seed), task.actions)
    aside = place.with_name(TEMPORARY_FILES.replace("*", secrets.token_hex(8)))
    if place.exists():
        place.rename(aside)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it asks for authors, e-mail addresses and links to code
            minari.create_dataset_from_buffers(
                dataset_id,
                buffers,
                algorithm_name="floppy",
                description=f"Episodes of {task.task_id} by a policy cloned from {dataset.examples} examples.",
                observation_space=_observation_space(task),
                action_space=_action_space(task.actions),
                data_format="hdf5",
                jpeg_encoding=False,
            )
    except BaseException as error:
        shutil.rmtree(place, ignore_errors=True)
        if aside.exists():
            aside.rename(place)
        if isinstance(error, OSError):
            raise FloppyError(
                f"{place} cannot be written ({one_line(error)}): let MINARI_DATASETS_PATH be a whole path, with room."
            ) from error
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _place(dataset_id: str, *, overwrite: bool) -> Any:
    """The dataset's folder, its id checked."""
    try:
        minari.dataset.minari_dataset.parse_dataset_id(dataset_id)
        place = get_dataset_path(dataset_id)
    except (TypeError, ValueError, OSError) as error:
        raise FloppyError(
            f"Minari refuses the id {dataset_id!r} ({one_line(error)}): give one such as cartpole/clone-v0."
        ) from error
    if place.exists() and not overwrite:
        raise FloppyError(f"Minari has a dataset {dataset_id} already: give {OVERWRITE} or another id.")
    return place


def _play(dataset: DistilledDataset, task: Task, episodes: int, seed: int) -> Trajectory:
    """Steps `[T, 1, E]` in which each of `E` environments has ended an episode, in NumPy arrays."""
    policies = train(dataset, seed)
    policies.check_acts()
    key = named_key(jax.random.key(seed), "minari")
    parts: list[Trajectory] = []
    with open_arena(task) as arena:
        environments = arena.start_environments(task, named_key(key, "start"), 1, episodes)
        ended = np.zeros(episodes, bool)
        while not ended.all():
            environments, part = arena.collect(
                task,
                policies.network,
                policies.weights,
                environments,
                jax.random.fold_in(key, len(parts)),
                steps=STEPS,
                statistics=policies.statistics,
            )
            clip = policies.network.actions.clip
            part = part._replace(actions=clip(part.actions))
            parts.append(jax.tree.map(np.asarray, part))
            ended |= (parts[-1].terminated | parts[-1].truncated).any(axis=(0, 1))
    whole: Trajectory = jax.tree.map(lambda *each: np.concatenate(each), *parts)
    return whole


def _buffers(played: Trajectory, actions: ActionSpace) -> list[Any]:
    """The first episode of each environment."""
    found, kind = [], np.float32 if actions.log_std_size else np.int64
    for index in range(played.rewards.shape[2]):
        steps = jax.tree.map(lambda each, index=index: each[:, 0, index], played)
        end = int(np.argmax(steps.terminated | steps.truncated)) + 1
        found.append(
            EpisodeBuffer(
                id=index,
                observations=[*steps.observations[:end], steps.next_observations[end - 1]],
                actions=list(steps.actions[:end].astype(kind)),
                rewards=steps.rewards[:end].tolist(),
                terminations=steps.terminated[:end].tolist(),
                truncations=steps.truncated[:end].tolist(),
            )
        )
    return found


def _observation_space(task: Task) -> gymnasium.Space[Any]:
    if observes_bytes(task):
        return gymnasium.spaces.Box(0, 255, task.observation_shape, np.uint8)
    return gymnasium.spaces.Box(-np.inf, np.inf, task.observation_shape, np.float32)


def _action_space(actions: Any) -> gymnasium.Space[Any]:
    if not actions.log_std_size:
        return gymnasium.spaces.Discrete(actions.size)
    return gymnasium.spaces.Box(np.array(actions.low, np.float32), np.array(actions.high, np.float32))


__all__ = ("export",)
