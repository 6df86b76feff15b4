"""The distilled dataset: k synthetic examples, the card that says what they are, and the file that holds both.

Axis letters: `k` examples, `*obs` the shape of one observation, `a` the width of one target (the number of actions, or
of action dimensions). The file is specified in `docs/dataset-format.md`. This module needs NumPy and safetensors only.
"""

import dataclasses
import hashlib
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from floppy.dataset import zoo_index
from floppy.dataset.card import EPSILON, FORMAT, Card
from floppy.errors import FloppyError, check_kind, listed, one_line, shown
from floppy.files import MEBIBYTE, as_path, check_file, check_new_file, size_text, write_atomically

METADATA_KEY = "floppy"
"""The key of the safetensors metadata under which the card stands."""

Content = TypeVar("Content")

POLICIES_KEY = "floppy-policies"
"""The same of a file of trained policies (docs/policy-file.md), which `load` tells from a broken dataset."""

MOST_BYTES = 256 * MEBIBYTE
"""Of a dataset's file: it holds a few examples, and at most the layers of an encoder."""

MOST_HEADER_BYTES = MEBIBYTE
"""Of the card and the names of tensors, which take a hundred times the memory once they are read."""

_REQUIRED_TENSORS = ("observations", "targets")
_OPTIONAL_TENSORS = ("log_std", "inner_rate", "obs_mean", "obs_var")
_ENCODER_PREFIX = "encoder/"
_ENCODER_NAME = re.compile(r"(0|[1-9][0-9]{0,3})/(kernel|bias)")


@dataclasses.dataclass(frozen=True, eq=False)
class DistilledDataset:
    """k synthetic examples with their card: all that a fresh policy needs to learn the task.

    The tensors become read-only float32 NumPy arrays, copied from whatever arrays were given (JAX's too).

    Raises:
      FloppyError: when built from tensors that contradict each other or the card, or are not finite.
    """

    card: Card
    observations: np.ndarray
    """`[k, *obs]`, in normalised units unless the card's `normaliser` is `none`."""
    targets: np.ndarray
    """`[k, a]`: logits or class probabilities (discrete actions), or means (continuous ones)."""
    log_std: np.ndarray | None = None
    """`[a]`: the target of the policy's log standard deviations; in a plain policy they themselves."""
    inner_rate: np.ndarray | None = None
    """`[]`: the learned step size of the cloning; `[r]` for a kind with several."""
    obs_mean: np.ndarray | None = None
    """`[*obs]`, in the task's units."""
    obs_var: np.ndarray | None = None
    """`[*obs]`, in the task's units squared."""
    encoder: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    """Weights of the leading layers by `<layer>/kernel` and `<layer>/bias`, layers counted from 0."""

    def __post_init__(self) -> None:
        """Converts the tensors and validates them."""
        for name in _REQUIRED_TENSORS:
            object.__setattr__(self, name, _as_tensor(name, getattr(self, name)))
        for name in _OPTIONAL_TENSORS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, _as_tensor(name, getattr(self, name)))
        encoder = {name: _as_tensor(_ENCODER_PREFIX + name, self.encoder[name]) for name in sorted(self.encoder)}
        object.__setattr__(self, "encoder", encoder)
        self.validate()

    def __repr__(self) -> str:
        """On one line: its task, the shapes of its tensors and its score."""
        names = [name for name in _REQUIRED_TENSORS + _OPTIONAL_TENSORS if getattr(self, name) is not None]
        parts = [f"{name} {list(getattr(self, name).shape)}" for name in names]
        parts += [f"encoder of {len(self.encoder) // 2} layers"] if self.encoder else []
        score = "no score" if self.card.score is None else f"score {shown(self.card.score['mean'])}"
        return f"<DistilledDataset of {self.card.task}, {self.examples} examples: {', '.join(parts)}; {score}>"

    @property
    def examples(self) -> int:
        """The number of examples, k."""
        return len(self.observations)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape `[*obs]` of one observation."""
        return self.observations.shape[1:]

    @property
    def epsilon(self) -> float:
        """What is added to the variances of observations."""
        return EPSILON if self.card.epsilon is None else self.card.epsilon

    def validate(self) -> None:
        """Checks the tensors against each other and against the card.

        Raises:
          FloppyError: naming the first contradiction found.
        """
        for name, tensor in self.numpy().items():
            if not np.isfinite(tensor).all():
                raise FloppyError(
                    f"Tensor {name} holds NaN or infinity, only finite numbers are allowed: distil again."
                )
        self._check_examples()
        self._check_parameters()
        self._check_normaliser()
        self._check_encoder()

    def numpy(self) -> dict[str, np.ndarray]:
        """The tensors that are present, by their names in the file."""
        tensors = {name: getattr(self, name) for name in _REQUIRED_TENSORS + _OPTIONAL_TENSORS}
        present = {name: tensor for name, tensor in tensors.items() if tensor is not None}
        return present | {_ENCODER_PREFIX + name: tensor for name, tensor in self.encoder.items()}

    def describe(self) -> dict[str, Any]:
        """What `floppy show --json` prints.

        Returns:
          JSON-ready: `card`, `examples`, `observation_shape`, `tensors` (shape and dtype of each by name) and `floats`
          (how many numbers the file stores).
        """
        tensors = self.numpy()
        return {
            "card": json.loads(self.card.to_json()),
            "examples": self.examples,
            "observation_shape": list(self.observation_shape),
            "tensors": {name: {"shape": list(t.shape), "dtype": str(t.dtype)} for name, t in tensors.items()},
            "floats": sum(tensor.size for tensor in tensors.values()),
        }

    def _check_examples(self) -> None:
        if self.observations.ndim < 2 or 0 in self.observation_shape:
            raise FloppyError(
                f"Tensor observations has shape {self.observations.shape}, it must be [k, *obs] with no empty axis "
                "after the first: keep the axis of examples."
            )
        size = self.card.actions["size"]
        if self.targets.shape != (self.examples, size):
            raise FloppyError(
                f"Tensor targets has shape {self.targets.shape}, {self.examples} observations and the card's "
                f"actions of size {size} need {(self.examples, size)}: give one target per observation and action."
            )
        if self.examples == 0 and not self.card.is_plain_policy:
            raise FloppyError(
                "The dataset holds 0 examples, at least 1 is needed unless the card's encoder is a whole policy "
                '({"layers": L, "of": L}): give an example.'
            )

    def _check_parameters(self) -> None:
        actions = self.card.actions
        if self.log_std is not None:
            if actions["kind"] != "continuous":
                raise FloppyError(
                    f"Tensor log_std is present, only continuous actions have it and the card's are {actions['kind']}: "
                    "leave it out."
                )
            if self.log_std.shape != (actions["size"],):
                raise FloppyError(
                    f"Tensor log_std has shape {self.log_std.shape}, the card's actions need {(actions['size'],)}: "
                    "give one number per action dimension."
                )
        if self.inner_rate is not None and (
            self.inner_rate.ndim > 1 or self.inner_rate.shape in ((0,), (1,)) or not (self.inner_rate > 0).all()
        ):
            raise FloppyError(
                f"Tensor inner_rate is {shown(self.inner_rate.tolist())}, it must be one number above 0 of shape (), "
                "or a row of them for a cloning with several rates: give the step sizes themselves."
            )

    def _check_normaliser(self) -> None:
        frozen = self.card.normaliser == "frozen"
        for name in ("obs_mean", "obs_var"):
            tensor = getattr(self, name)
            if (tensor is not None) != frozen:
                state = "missing" if frozen else "present"
                raise FloppyError(
                    f"Tensor {name} is {state} though the card's normaliser is {self.card.normaliser!r}: "
                    'obs_mean and obs_var are stored for "frozen" and for nothing else.'
                )
            if tensor is not None and tensor.shape != self.observation_shape:
                raise FloppyError(
                    f"Tensor {name} has shape {tensor.shape}, one observation has {self.observation_shape}: "
                    "give statistics of the same shape."
                )
        if self.obs_var is not None and (self.obs_var < 0).any():
            raise FloppyError("Tensor obs_var holds a negative number, a variance is 0 or more: check the statistics.")
        if self.obs_var is not None and (self.obs_var + self.epsilon <= 0).any():
            raise FloppyError("Tensor obs_var holds 0 where the card's epsilon is 0: a spread must be above 0.")

    def _check_encoder(self) -> None:
        layers = self.card.encoder["layers"] if self.card.encoder else 0
        present = {f"{layer}/{part}" for layer in range(len(self.encoder) // 2) for part in ("kernel", "bias")}
        if len(self.encoder) != 2 * layers or set(self.encoder) != present:
            raise FloppyError(
                f"The encoder tensors are {listed(self.encoder)}, the card's encoder has {layers} layers: "
                "store <layer>/kernel and <layer>/bias for each of them, counted from 0, and for no other."
            )
        for layer in range(layers):
            kernel, bias = self.encoder[f"{layer}/kernel"], self.encoder[f"{layer}/bias"]
            if kernel.ndim < 2 or bias.shape != kernel.shape[-1:]:
                raise FloppyError(
                    f"Encoder layer {layer} has a kernel of shape {kernel.shape} and a bias of shape {bias.shape}: "
                    "a kernel is [..., in, out] and its bias [out]."
                )


def save(dataset: DistilledDataset, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Writes a dataset to a file, whole or not at all.

    The same dataset gives the same bytes.

    Args:
      dataset: what to write.
      path: the file, by custom `NAME.safetensors`; missing parent folders are made.
      overwrite: whether a file that stands there may be replaced.

    Raises:
      FloppyError: for anything but a dataset, if the path is a folder, or exists and `overwrite` is false, or if it
        cannot be written.
    """
    check_dataset(dataset, "floppy.save_policies writes policies")
    check_new_file(path, overwrite=overwrite)
    write_atomically(path, to_bytes(dataset))


def check_dataset(dataset: Any, advice: str = "") -> None:
    """Checks that an argument is a dataset.

    Args:
      dataset: what was given.
      advice: what to do with policies.

    Raises:
      FloppyError: for anything else; it says where datasets come from.
    """
    kind, allowed = DistilledDataset, "a DistilledDataset, such as floppy.load(path) or result.dataset"
    check_kind("dataset", dataset, kind, allowed, advice)


def to_bytes(dataset: DistilledDataset) -> bytes:
    """What `save` writes."""
    return safetensors.numpy.save(dataset.numpy(), {METADATA_KEY: dataset.card.to_json()})


def origin(dataset: DistilledDataset) -> str:
    """What a card says of it under `parents`: its task, and `sha256:` with the digest of what `save` writes."""
    return f"{dataset.card.task} sha256:{hashlib.sha256(to_bytes(dataset)).hexdigest()}"


def load(path: str | os.PathLike[str]) -> DistilledDataset:
    """Reads a dataset from a file that `save` or another writer of the format made, or one of the zoo's by its name.

    Args:
      path: the file; or a name of the zoo (docs/zoo.md), such as `cartpole` or `brax/hopper@4`, if there is no file of
        that name.

    Returns:
      The dataset, valid in every respect that `DistilledDataset.validate` checks.

    Raises:
      FloppyError: if there is no such file, or if it is anything else than a valid dataset of a known format.
    """
    path = zoo_index.located(path)
    return read_safetensors(path, _read, "a dataset", "a .safetensors file that floppy wrote", most=MOST_BYTES)


def read_safetensors(
    path: str | os.PathLike[str], read: Callable[[Any], Content], kind: str, which: str, *, most: int
) -> Content:
    """Reads a safetensors file of bounded size.

    Args:
      path: the file.
      read: makes its content of the open file.
      kind: of file, as messages call it: `a dataset`.
      which: what such a file is, for the message where it is none.
      most: bytes of the file.

    Returns:
      What `read` made.

    Raises:
      FloppyError: naming the file, for whatever is wrong with it.
    """
    path = as_path(path)
    check_safetensors(path, f"{kind}, {which}", most=most)
    try:
        with safe_open(path, framework="numpy") as file:
            return read(file)
    except FloppyError as error:
        raise FloppyError(f"{path}: {error}") from error
    except (SafetensorError, ValueError) as error:  # ValueError: a shape that no NumPy array can have
        raise FloppyError(
            f"{path} is no safetensors file, or a damaged one ({one_line(error)}): "
            f"give {kind} that floppy wrote, or copy it again."
        ) from error
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): check the path and its permissions.") from error


def check_safetensors(path: Path, what: str, *, most: int) -> None:
    """Checks the sizes that a safetensors file announces, before anything reads it.

    Args:
      path: the file.
      what: it should be, as messages call it.
      most: bytes of the file.

    Raises:
      FloppyError: for anything but a regular file, and for what is larger than allowed.
    """
    check_file(path, what, most=most)
    try:
        with path.open("rb") as file:
            announced = int.from_bytes(file.read(8), "little")
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): check its permissions.") from error
    if MOST_HEADER_BYTES < announced <= path.stat().st_size:
        raise FloppyError(
            f"{path} has a header of {size_text(announced)}, it may have {size_text(MOST_HEADER_BYTES)} at most: "
            "give a file that floppy wrote."
        )


def _read(file: Any) -> DistilledDataset:
    """Builds a dataset from an open safetensors file, its card first."""
    metadata = file.metadata() or {}
    if POLICIES_KEY in metadata:
        raise FloppyError(
            "The file holds trained policies, not a dataset: play them with `floppy evaluate` or read them with "
            "floppy.load_policies."
        )
    if METADATA_KEY not in metadata:
        raise FloppyError(
            f"The file has no card (metadata key {METADATA_KEY!r}), so it is no floppy dataset: "
            "bring plain arrays in with `floppy import`."
        )
    card = Card.from_json(metadata[METADATA_KEY])
    names = file.keys()
    _check_tensor_names(names)
    for name in names:
        dtype = file.get_slice(name).get_dtype()
        if dtype != "F32":
            raise FloppyError(
                f"Tensor {name} has dtype {dtype}, only F32 (float32) is allowed: convert and save it again."
            )
    tensors = {name: file.get_tensor(name) for name in names}
    encoder = {name: tensors.pop(name) for name in names if name.startswith(_ENCODER_PREFIX)}
    encoder = {name.removeprefix(_ENCODER_PREFIX): tensor for name, tensor in encoder.items()}
    return DistilledDataset(card=card, encoder=encoder, **tensors)


def _check_tensor_names(names: list[str]) -> None:
    missing = [name for name in _REQUIRED_TENSORS if name not in names]
    if missing:
        raise FloppyError(f"The tensor {listed(missing)} is missing, every dataset has it: write the file again.")
    known = _REQUIRED_TENSORS + _OPTIONAL_TENSORS
    unknown = [name for name in names if name not in known and not _is_encoder_tensor(name)]
    if unknown:
        raise FloppyError(
            f"The tensor {listed(unknown)} is unknown: format {FORMAT} has {', '.join(known)} and "
            "encoder/<layer>/<kernel|bias>, so leave it out."
        )


def _is_encoder_tensor(name: str) -> bool:
    return name.startswith(_ENCODER_PREFIX) and _ENCODER_NAME.fullmatch(name.removeprefix(_ENCODER_PREFIX)) is not None


def _as_tensor(name: str, value: Any) -> np.ndarray:
    """A read-only float32 copy of `value`, C-contiguous."""
    try:
        array = np.asarray(value)
        # Complex numbers would lose their imaginary part; text and objects might happen to parse. Neither is meant.
        if array.dtype.kind not in "biufV":
            raise TypeError(f"dtype {array.dtype}")
        with np.errstate(over="ignore"):  # what overflows becomes infinite, which validation refuses by name
            tensor = np.array(array, dtype=np.float32, order="C", copy=True)
    except (TypeError, ValueError) as error:
        raise FloppyError(
            f"Tensor {name} is not an array of real numbers ({one_line(error)}): give one that converts to float32."
        ) from error
    tensor.flags.writeable = False
    return tensor
