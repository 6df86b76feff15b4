"""The policy file: trained policies, and all that is needed to act by them. Specified in `docs/policy-file.md`."""

import dataclasses
import json
import os
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from floppy.cloning.merged import Block
from floppy.dataset.card import EPSILON, MERGED_FORMAT, Card
from floppy.dataset.card import FORMAT as CARD_FORMAT
from floppy.dataset.card import UNITS_FORMAT as CARD_UNITS_FORMAT
from floppy.dataset.file import POLICIES_KEY, check_safetensors, read_safetensors
from floppy.errors import FloppyError, check_number, listed, one_line, shown
from floppy.fields import as_seed
from floppy.files import MEBIBYTE, as_path, check_new_file, write_atomically
from floppy.learner.distribution import learners_of
from floppy.learner.network import Network
from floppy.play.normalise import RunningStatistics, restored_statistics, stored_statistics
from floppy.spaces import Continuous, Discrete, space_of
from floppy.teach.policies import MAX_LEARNERS, Origin, Policies, Policy, check_policies

FORMAT = 1
"""The version of the file format."""

UNITS_FORMAT = 2
"""The version of a file whose policies act in units of their actions, or with another epsilon."""

KIND, WHICH = "a policy file", "which `floppy train --save` wrote"
MOST_BYTES = 8192 * MEBIBYTE
"""Of a policy file: it may hold many thousand policies."""

SAMPLING = {Discrete.kind: "softmax", Continuous.kind: "clipped-normal"}
"""How actions are sampled, by their kind."""

_DESCRIPTION: dict[str, tuple[type, ...]] = {
    "format": (int,),
    "task": (str,),
    "observation_shape": (list,),
    "actions": (dict,),
    "network": (dict,),
    "normaliser": (str,),
    "sampling": (str,),
    "policies": (int,),
    "ensemble": (bool,),
    "blocks": (list,),
    "dataset": (str,),
    "seed": (int, type(None)),
}
_STATISTICS = ("obs_mean", "obs_var")
_LOG_STD = "log_std"


def save_policies(
    policies: Policies,
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    ensemble: bool = False,
    seed: int | None = None,
) -> None:
    """Writes policies to a file, whole or not at all. The same policies give the same bytes.

    Args:
      policies: as `train` gives them; one of them is `policies[i : i + 1]`.
      path: the file, by custom `NAME.safetensors`; missing parent folders are made.
      overwrite: whether a file that stands there may be replaced.
      ensemble: whether they are meant to act as one (also where `policies.is_ensemble` says so).
      seed: of their initial weights, where they do not know it themselves.

    Raises:
      FloppyError: for anything but policies, if the path is a folder, or exists and `overwrite` is false, if it cannot
        be written, or if the policies cannot be stored: they are of a network that has no registered name, not
        finite, or none.
    """
    if isinstance(policies, Policy):
        raise FloppyError("A policy file holds several policies: give policies[i : i + 1] for one of them.")
    check_policies(policies, "floppy.save writes datasets")
    check_new_file(path, overwrite=overwrite)
    check_number("policies", len(policies), least=1, most=MAX_LEARNERS)
    about = _describe(policies, ensemble, seed)
    tensors = _tensors_of(policies)
    _check_finite(tensors)
    text = json.dumps(about, sort_keys=True, allow_nan=False)
    write_atomically(path, safetensors.numpy.save(tensors, {POLICIES_KEY: text}))


def is_policy_file(path: str | os.PathLike[str]) -> bool:
    """Whether a file says that it holds policies; it may still be a damaged one."""
    try:
        path = as_path(path)
        check_safetensors(path, f"{KIND}, {WHICH}", most=MOST_BYTES)
        with safe_open(path, framework="numpy") as file:
            return POLICIES_KEY in (file.metadata() or {})
    except (SafetensorError, OSError, ValueError):
        return False


def load_policies(path: str | os.PathLike[str]) -> Policies:
    """Reads policies from a file that `save_policies` or another writer of the format made.

    Args:
      path: the file; `~` stands for the home folder.

    Returns:
      The policies, ready to act and to be evaluated.

    Raises:
      FloppyError: if there is no such file, if it is anything else than a valid policy file of a known format, or if
        its policies are of a network of the writer's own that is not registered here.
    """
    return read_safetensors(path, _read, KIND, WHICH, most=MOST_BYTES)


# --- Writing ---


def _describe(policies: Policies, ensemble: bool, seed: int | None) -> dict[str, Any]:
    """The description of policies, in the form of JSON."""
    network, made = policies.network, policies.origin or Origin()
    frozen = "none" if policies.statistics is None else "frozen"
    actions = network.actions.as_entry()
    epsilon = EPSILON if policies.statistics is None else stored_statistics(policies.statistics)[2]
    has_units = "half_width" in actions or epsilon != EPSILON
    return ({"epsilon": epsilon} if has_units else {}) | {
        "format": UNITS_FORMAT if has_units else FORMAT,
        "task": policies.task,
        "observation_shape": list(network.observation_shape),
        "actions": actions,
        "network": network.learners.as_entry(),
        "normaliser": "per-evaluation" if policies.per_evaluation_stats else frozen,
        "sampling": SAMPLING[network.actions.kind],
        "policies": len(policies),
        "ensemble": ensemble or policies.is_ensemble,
        "blocks": [dataclasses.asdict(block) for block in policies.blocks],
        "dataset": made.dataset,
        "seed": made.seed if seed is None else as_seed(seed),
    }


def _tensors_of(policies: Policies) -> dict[str, np.ndarray]:
    """All tensors of a file."""
    weights = jax.tree.map(np.asarray, policies.weights)
    each = [policies.network.to_tensors(jax.tree.map(lambda leaf, i=i: leaf[i], weights)) for i in range(len(policies))]
    shapes = [{name: array.shape for name, array in one.items()} for one in each]
    if all(one == shapes[0] for one in shapes):
        tensors = {name: np.stack([one[name] for one in each]) for name in each[0]}
    else:
        tensors = {f"policies/{i}/{name}": array for i, one in enumerate(each) for name, array in one.items()}
    if weights.log_std.size:
        tensors[_LOG_STD] = weights.log_std
    if policies.statistics is not None:
        tensors["obs_mean"], tensors["obs_var"], _ = stored_statistics(policies.statistics)
    for name, array in tensors.items():
        if array.dtype != np.float32:
            raise FloppyError(f"Tensor {name} is of {array.dtype}, a policy file holds float32 alone: convert it.")
    return {name: np.ascontiguousarray(array) for name, array in tensors.items()}


# --- Reading ---


def _read(file: Any) -> Policies:
    """Builds policies from an open safetensors file, its description first."""
    about = _description_of(file.metadata() or {})
    tensors, names = {}, file.keys()
    for name in names:
        dtype = file.get_slice(name).get_dtype()
        if dtype != "F32":
            raise FloppyError(f"Tensor {name} has dtype {dtype}, only F32 (float32) is allowed: write the file again.")
        tensors[name] = file.get_tensor(name)
    _check_finite(tensors)
    network = _network_of(about)
    statistics = _take_statistics(about, tensors)
    weights = _take_weights(about, network, tensors)
    return Policies(
        network,
        weights,
        statistics,
        about["normaliser"] == "per-evaluation",
        about["task"],
        tuple(map(Block.from_entry, about["blocks"])),
        about["ensemble"],
        Origin(about["dataset"], about["seed"]),
    )


def _description_of(metadata: Mapping[str, str]) -> dict[str, Any]:
    """The description of a file, checked."""
    if POLICIES_KEY not in metadata:
        raise FloppyError(
            f"The file has no description of policies (metadata key {POLICIES_KEY!r}), so it is no policy file: "
            "give one that `floppy train --save` wrote."
        )
    try:
        about = json.loads(metadata[POLICIES_KEY])
    except (ValueError, RecursionError) as error:
        raise FloppyError(f"The description is not JSON ({one_line(error)}): write the file again.") from error
    number = about.get("format") if isinstance(about, dict) else None
    if type(number) is not int or number not in (FORMAT, UNITS_FORMAT):
        known = f"{FORMAT}, {UNITS_FORMAT}"
        raise FloppyError(f"Format {shown(number)} is unknown, this floppy knows format {known}: update floppy.")
    keys = {*_DESCRIPTION, *(["epsilon"] if number == UNITS_FORMAT else [])}
    if set(about) != keys:
        wrong = listed(set(about) ^ keys)
        raise FloppyError(f"The description has wrong or missing keys {wrong}: write the file again.")
    for name, kinds in _DESCRIPTION.items():
        if type(about[name]) not in kinds:
            raise FloppyError(f"The description has {name} {shown(about[name])}, which is of the wrong type.")
    _check_description(about)
    return about


def _check_description(about: dict[str, Any]) -> None:
    usual = MERGED_FORMAT if about["blocks"] else CARD_FORMAT
    # What it says of tasks, actions and blocks is held to the same rules as a dataset's card.
    Card(
        task=about["task"],
        actions=about["actions"],
        normaliser=about["normaliser"],
        learners=[about["network"]],
        blocks=about["blocks"],
        epsilon=about.get("epsilon"),
        format=CARD_UNITS_FORMAT if about["format"] == UNITS_FORMAT else usual,
        cloning={"kind": ""},
        algorithm={"name": ""},
        command="",
        versions={},
    )
    shape, sampling = about["observation_shape"], SAMPLING[about["actions"]["kind"]]
    if not all(type(size) is int and size >= 1 for size in shape):
        raise FloppyError(f"observation_shape must be whole numbers of at least 1, got {shown(shape)}.")
    if about["sampling"] != sampling:
        raise FloppyError(
            f"sampling must be {sampling} for {about['actions']['kind']} actions, got {shown(about['sampling'])}."
        )
    check_number("policies", about["policies"], least=1, most=MAX_LEARNERS)
    if about["seed"] is not None:
        as_seed(about["seed"])


def _network_of(about: Mapping[str, Any]) -> Network[Any]:
    shape, actions = tuple(about["observation_shape"]), space_of(about["actions"])
    return learners_of(about["network"]).bind(shape, actions)


def _take_statistics(about: Mapping[str, Any], tensors: dict[str, np.ndarray]) -> RunningStatistics | None:
    """Takes the statistics of observations out of the tensors."""
    found = [name for name in _STATISTICS if name in tensors]
    if len(found) != (len(_STATISTICS) if about["normaliser"] == "frozen" else 0):
        raise FloppyError(
            f"The file has the statistics {listed(found)}, normaliser {about['normaliser']} has "
            f"{'obs_mean and obs_var' if about['normaliser'] == 'frozen' else 'none'}: write the file again."
        )
    if not found:
        return None
    mean, var = (tensors.pop(name) for name in _STATISTICS)
    shape, epsilon = tuple(about["observation_shape"]), about.get("epsilon", EPSILON)
    if mean.shape != shape or var.shape != shape or (var < 0).any() or (var + epsilon <= 0).any():
        raise FloppyError(f"obs_mean and obs_var must be of shape {shape}, and no variance below 0: write them again.")
    return restored_statistics(mean, var, epsilon)


def _take_weights(about: Mapping[str, Any], network: Network[Any], tensors: dict[str, np.ndarray]) -> Any:
    """The weights, leaves `[L, ...]`, from all tensors but the statistics."""
    count, size = about["policies"], network.actions.log_std_size
    log_std = tensors.pop(_LOG_STD, None) if size else np.zeros((count, 0), np.float32)
    if log_std is None or log_std.shape != (count, size):
        found = "none" if log_std is None else log_std.shape
        raise FloppyError(f"log_std must be of shape {(count, size)}, got {found}: write the file again.")
    each = _each_policy(count, tensors)
    weights = [network.from_tensors(own, log_std[i]) for i, own in enumerate(each)]
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *weights)


def _each_policy(count: int, tensors: Mapping[str, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """The tensors of each policy, from those of all with a leading axis, or from each one's own `policies/<i>/`."""
    each: list[dict[str, np.ndarray]] = [{} for _ in range(count)]
    for name, array in tensors.items():
        first, _, rest = name.partition("/")
        if first == "policies":
            number, _, own = rest.partition("/")
            if not number.isdecimal() or not number.isascii() or int(number) >= count:
                raise FloppyError(f"Tensor {name} is of none of the file's {count} policies: write the file again.")
            each[int(number)][own] = array
        elif array.shape[:1] != (count,):
            raise FloppyError(f"Tensor {name} must have a leading axis of {count} policies, got {array.shape}.")
        else:
            for i in range(count):
                each[i][name] = array[i]
    return each


def _check_finite(tensors: Mapping[str, np.ndarray]) -> None:
    wrong = [name for name, array in tensors.items() if not np.isfinite(array).all()]
    if wrong:
        raise FloppyError(
            f"Tensor {listed(wrong)} holds NaN or infinite numbers: policies diverged, so leave them out or lower the "
            "inner rate."
        )
