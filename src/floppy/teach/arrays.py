"""Datasets from arrays made elsewhere."""

import json
import math
import zipfile
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from floppy.cloning import AdamSteps, Cloning, Distilled, GradientStep
from floppy.dataset import DistilledDataset
from floppy.dataset.card import NORMALISERS
from floppy.errors import FloppyError, must_be_one_of, one_line
from floppy.learner.distribution import HADES_CNN_DISTRIBUTION, NATURE_DISTRIBUTION, parse_distributions
from floppy.learner.initialisers import FLAX_ORTHOGONAL
from floppy.learner.network import Layer
from floppy.play.normalise import RunningStatistics, restored_statistics
from floppy.tasks import Task, make_task, task_of_file
from floppy.teach.codec import CardParts, pack, unpack, versions_of


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
    known = make_task(task) if task else task_of_file(published["task"])
    given = {"cloning": cloning, "rate": rate, "distribution": distribution, "normaliser": normaliser, "notes": notes}
    published |= {name: value for name, value in given.items() if value not in (None, "")}
    distilled = _distilled(path, arrays, known, published)
    statistics, per_evaluation_stats = _statistics(path, arrays, known, published.get("normaliser", ""))
    learners = parse_distributions(published.get("distribution", "lambda"))
    parts = CardParts(
        task=known.task_id,
        actions=known.actions,
        cloning=published.get("cloning", GradientStep()),
        learners=learners,
        per_evaluation_stats=per_evaluation_stats,
        encoder_of=learners[0].layers if distilled.encoder else 0,
    )
    dataset = pack(
        parts,
        distilled,
        statistics,
        algorithm={"name": "import", "config": {"file": Path(path).name}},
        command=command,
        versions=versions_of(known.package, why=known.task_id),
        licence="NOASSERTION",  # SPDX's word for what nobody has said
        reference_score=published.get("reference_score"),
        notes=published.get("notes", ""),
    )
    lesson = unpack(dataset)
    lesson.task(task)
    lesson.network()
    return dataset


def _distilled(path: Path | str, arrays: dict[str, np.ndarray], task: Task, published: dict[str, Any]) -> Distilled:
    """The tensors of the dataset."""
    rate = np.asarray(published["rate"]) if "rate" in published else _find(arrays, "inner_lr", "inner_rate")
    if rate is None:
        raise FloppyError(f"{path} holds neither inner_lr nor inner_rate: give the rate (--rate).")
    observations, targets = _examples(path, arrays, task, frames_first="frames_first" in published)
    log_std = _find(arrays, "y_logstd", "log_std")
    with np.errstate(over="ignore"):  # a dataset refuses what has become infinite
        return Distilled(
            jnp.asarray(observations),
            jnp.asarray(targets),
            jnp.zeros(0) if log_std is None else jnp.asarray(log_std.ravel()),
            jnp.asarray(rate, jnp.float32),
            _encoder_of(path, arrays, published.get("encoder_layers", 0)),
        )


def _statistics(
    path: Path | str, arrays: dict[str, np.ndarray], task: Task, normaliser: str
) -> tuple[RunningStatistics | None, bool]:
    """Statistics of observations, if they are stored, and whether they start with zero in every evaluation."""
    mean, var = _find(arrays, "obs_mean"), _find(arrays, "obs_var")
    normaliser = normaliser or ("none" if mean is None or not mean.size else "frozen")
    if normaliser not in NORMALISERS:
        raise must_be_one_of("normaliser", normaliser, NORMALISERS)
    if normaliser != "frozen":
        return None, normaliser == "per-evaluation"
    if mean is None or var is None:
        raise FloppyError(f"normaliser must be none or per-evaluation, for {path} holds no obs_mean and obs_var.")
    return restored_statistics(_reshape_to(task, mean), _reshape_to(task, var)), False


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


def _encoder_of(path: Path | str, arrays: dict[str, np.ndarray], layers: int) -> tuple[Layer, ...]:
    """The leading convolutions, `encoder_conv1_weight [outputs, inputs, height, width]` and so on."""
    encoder: list[Layer] = []
    for layer in range(layers):
        kernel, bias = (arrays.get(f"encoder_conv{layer + 1}_{part}") for part in ("weight", "bias"))
        if kernel is None or bias is None or kernel.ndim != 4:
            raise FloppyError(
                f"{path} needs an encoder of {layers} layers, layer {layer + 1} of which it does not hold: "
                "without it the examples mean nothing, so take a file that has it."
            )
        encoder.append({"kernel": jnp.asarray(kernel.transpose(2, 3, 1, 0)), "bias": jnp.asarray(bias)})
    return tuple(encoder)


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
