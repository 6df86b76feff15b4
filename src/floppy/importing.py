"""Datasets from arrays made elsewhere."""

import dataclasses
import importlib.metadata
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from floppy.card import Card
from floppy.cloning import AdamSteps, Cloning, GradientStep, as_entry
from floppy.dataset import DistilledDataset
from floppy.errors import FloppyError, one_line
from floppy.initialisers import FLAX_ORTHOGONAL
from floppy.learners import HADES_CNN_DISTRIBUTION, NATURE_DISTRIBUTION, LearnerDistribution, parse_distributions
from floppy.tasks import Task, make_task
from floppy.train import cloning_of, network_for, task_of


def import_npz(
    path: Path | str,
    task: str = "",
    *,
    cloning: Cloning | None = None,
    rate: float | None = None,
    distribution: str = "",
    normaliser: str = "",
    notes: str = "",
    command: str = "",
) -> DistilledDataset:
    """A dataset from the arrays of an `.npz` file.

    Args:
      path: the file. Read are observations `[k, *obs]`; targets, actions or y_mean `[k, a]`; where present inner_lr or
        inner_rate `[]`, y_logstd or log_std `[a]`, obs_mean and obs_var `[*obs]`; and the text `meta` of a published
        HaDES or PPMO run, which then gives the defaults of everything below, and names an encoder's arrays.
      task: id of the task that the dataset is of.
      cloning: how fresh policies learn from it; by default one gradient step.
      rate: of the cloning steps; by default the file's.
      distribution: the learners that it is for, see `parse_distribution`; by default lambda.
      normaliser: none, frozen or per-evaluation; by default frozen if the file has statistics.
      notes: where it comes from, for the card.
      command: what made it, for the card.

    Returns:
      The dataset, checked against the task.

    Raises:
      FloppyError: if the file cannot be read, lacks an array, or does not fit the task.
    """
    arrays, published = _read_npz(Path(path)), read_published(Path(path))
    if not (task or published):
        raise FloppyError(f"{path} does not say which task it is of: name the task (--task).")
    known = make_task(task or published["task"])
    cloning = cloning or published.get("cloning") or GradientStep()
    rate = published.get("rate") if rate is None else rate
    inner_rate = _find(arrays, "inner_lr", "inner_rate") if rate is None else np.asarray(rate, np.float32)
    if inner_rate is None:
        raise FloppyError(f"{path} holds neither inner_lr nor inner_rate: give the rate (--rate).")
    observations, targets = _examples(path, arrays, known, frames_first="frames_first" in published)
    log_std, mean, var = _find(arrays, "y_logstd", "log_std"), _find(arrays, "obs_mean"), _find(arrays, "obs_var")
    normaliser = normaliser or published.get("normaliser") or ("none" if mean is None or not mean.size else "frozen")
    learners = parse_distributions(distribution or published.get("distribution", "lambda"))
    encoder = _encoder_of(path, arrays, learners[0], published.get("encoder_layers", 0))
    layers = len(encoder) // 2
    card = Card(
        task=known.task_id,
        actions=known.actions.as_dict(),
        cloning=as_entry(cloning),
        learners=[dataclasses.asdict(each) for each in learners],
        algorithm={"name": "import", "config": {"file": Path(path).name}},
        normaliser=normaliser,
        command=command,
        versions={name: importlib.metadata.version(name) for name in sorted({"floppy", known.package})},
        licence="NOASSERTION",  # SPDX's word for what nobody has said
        reference_score=published.get("reference_score"),
        notes=notes or published.get("notes", ""),
        encoder={"layers": layers, "of": learners[0].layers} if layers else None,
    )
    is_frozen = normaliser.startswith("frozen")
    dataset = DistilledDataset(
        card,
        observations,
        targets,
        log_std=None if log_std is None else log_std.ravel(),
        inner_rate=inner_rate,
        obs_mean=_reshape_to(known, mean) if is_frozen and mean is not None else None,
        obs_var=_reshape_to(known, var) if is_frozen and var is not None else None,
        encoder=encoder,
    )
    task_of(dataset)
    cloning_of(dataset)
    network_for(dataset, learners[0])
    return dataset


def _examples(
    path: Path | str, arrays: dict[str, np.ndarray], task: Task, *, frames_first: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Observations `[k, *obs]` and targets `[k, a]` of the task."""
    observations, targets = _find(arrays, "observations"), _find(arrays, "targets", "actions", "y_mean")
    if observations is None or targets is None:
        held = ", ".join(sorted(arrays)) or "nothing"
        raise FloppyError(f"{path} holds {held}: it needs observations, and targets (or actions, or y_mean).")
    if frames_first and observations.ndim == 4:
        from floppy.tasks.ale import frames_last  # imports Gymnasium

        observations = frames_last(observations)
    else:
        observations = _reshape_to(task, observations)
    examples = observations.shape[:1]
    shapes = observations.shape, targets.shape
    wanted = (*examples, *task.observation_shape), (*examples, task.actions.size)
    if shapes != wanted:
        raise FloppyError(
            f"{path} holds observations of shape {shapes[0]} and targets of shape {shapes[1]}, {task.task_id} "
            f"needs {wanted[0]} and {wanted[1]}: give the task that it was distilled for."
        )
    return observations, targets


def _reshape_to(task: Task, array: np.ndarray) -> np.ndarray:
    """Flattened observations in the task's shape; others, or those of another size, as they are."""
    size = math.prod(task.observation_shape)
    if array.ndim == 0 or array.shape[-1] != size:
        return array
    return array.reshape(*array.shape[:-1], *task.observation_shape)


def read_published(path: Path) -> dict[str, Any]:
    """What the `meta` of a published HaDES or PPMO run says, in this library's terms; empty for any other file."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            meta = json.loads(str(archive["meta"]))
            return _hades_defaults(meta) if "overfit" in meta else _ppmo_defaults(meta)
    except Exception:  # some other file, about which `import_npz` has its say
        return {}


IMAGE_TASKS = {"MNIST": "images/mnist", "FashionMNIST": "images/fashion-mnist"}


def _hades_defaults(meta: dict[str, Any]) -> dict[str, Any]:
    about = {
        "reference_score": {"final_mean_fitness": meta["final_mean_fitness"], "fitness": meta["fitness"]},
        "notes": f"Published by the HaDES paper: {meta['source_repository']}, {meta['source_file']}",
    }
    if meta["env"] in IMAGE_TASKS:
        return about | {
            "task": IMAGE_TASKS[meta["env"]],
            "cloning": GradientStep(loss="cross-entropy", steps=meta["epochs"]),
            "rate": meta["lr"] / meta["action_dim"],  # the published loss is a mean over classes, not their sum
            "distribution": HADES_CNN_DISTRIBUTION,
        }
    continuous = not meta["env"].endswith(("-MinAtar", "-misc"))
    width, activation = meta["width"], meta["activation"]
    own_draw = f":initialiser={FLAX_ORTHOGONAL}:init_seed={meta['overfit_seed']}" if meta["overfit"] else ""
    return about | {
        "task": f"{'brax' if continuous else 'gymnax'}/{meta['env']}",
        "cloning": AdamSteps(
            loss="gaussian-nll" if continuous else "cross-entropy",
            steps=meta["epochs"],
            max_grad_norm=meta["max_grad_norm"] or 0.0,
            eps_root=0.0,
        ),
        "rate": meta["lr"],
        "distribution": f"width={width}:activation={activation}{own_draw}",
        "normaliser": {"running": "per-evaluation", "constant": "frozen"}.get(meta["obs_normaliser"], "none"),
    }


PPMO_GAMES = {"Centipede": "centipede", "MsPacMan": "ms_pacman", "Pong": "pong", "SpaceInvaders": "space_invaders"}
"""The PPMO paper's games in ALE's spelling."""

NO_STATISTICS = (
    "The observations are in units of a running mean and variance that was not published, so real ones are taken raw: "
    "expect less than the paper's score"
)


def _ppmo_defaults(meta: dict[str, Any]) -> dict[str, Any]:
    defaults = {
        "cloning": GradientStep(steps=meta["inner_steps"]),
        "distribution": "lambda",
        "notes": f"Published by the PPMO paper: {meta['source_repository']}, {meta['source_file']}",
    }
    if "dimensions" in meta:
        return defaults | {"task": f"ndcartpole/{meta['dimensions']}"}
    if "game" not in meta:
        return defaults | {"task": f"gymnasium/{meta['env']}", "notes": f"{defaults['notes']}. {NO_STATISTICS}"}
    return defaults | {
        "task": f"ale/{PPMO_GAMES[meta['game']]}",
        "distribution": NATURE_DISTRIBUTION,
        "encoder_layers": meta["level"],
        "frames_first": True,
    }


def _encoder_of(
    path: Path | str, arrays: dict[str, np.ndarray], learners: LearnerDistribution, layers: int
) -> dict[str, np.ndarray]:
    """The leading convolutions, `encoder_conv1_weight [outputs, inputs, height, width]` and so on, by layer."""
    if layers and learners.network != "nature-cnn":
        raise FloppyError(
            f"Learners of network {learners.network} were asked for, {path} holds layers of a nature-cnn: "
            "leave the distribution (--distribution) to the file."
        )
    encoder: dict[str, np.ndarray] = {}
    for layer in range(layers):
        kernel, bias = (arrays.get(f"encoder_conv{layer + 1}_{part}") for part in ("weight", "bias"))
        if kernel is None or bias is None or kernel.ndim != 4:
            raise FloppyError(
                f"{path} needs an encoder of {layers} layers, layer {layer + 1} of which it does not hold: "
                "without it the examples mean nothing, so take a file that has it."
            )
        encoder |= {f"{layer}/kernel": kernel.transpose(2, 3, 1, 0), f"{layer}/bias": bias}
    return encoder


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    """The numeric arrays of an .npz file."""
    if not zipfile.is_zipfile(path):
        what = "no .npz archive" if path.is_file() else "no file"
        raise FloppyError(f"{path} is {what}: give a file that numpy.savez wrote.")
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if archive[name].dtype.kind in "fiub"}
    except Exception as error:  # a broken archive raises whatever zipfile, zlib or NumPy happens to raise
        raise FloppyError(
            f"{path} is no readable .npz ({one_line(error)}): give a file that numpy.savez wrote."
        ) from error


def _find(arrays: dict[str, np.ndarray], *names: str) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
