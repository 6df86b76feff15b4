"""The distilled dataset: k synthetic examples, the card that says what they are, and the file that holds both.

Axis letters: `k` examples, `*obs` the shape of one observation, `a` the width of one target (the number of actions, or
of action dimensions). The file is specified in `docs/dataset-format.md`. This module needs NumPy and safetensors only.
"""

import dataclasses
import json
import os
import re
import reprlib
import secrets
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from floppy.errors import FloppyError

FORMAT = 1
"""The version of the file format that this module writes."""

KNOWN_FORMATS = (1,)
"""The versions that this module reads."""

METADATA_KEY = "floppy"
"""The key of the safetensors metadata under which the card stands."""

NORMALISERS = ("none", "frozen", "per-evaluation")
ACTION_KINDS = ("discrete", "continuous")

_REQUIRED_TENSORS = ("observations", "targets")
_OPTIONAL_TENSORS = ("log_std", "inner_rate", "obs_mean", "obs_var")
_ENCODER_PREFIX = "encoder/"
_ENCODER_NAME = re.compile(r"(0|[1-9][0-9]{0,3})/(kernel|bias)")
_SCORE_KEYS = ("mean", "sd", "learners", "episodes", "seed")
_CARD_TYPES: dict[str, tuple[Any, str]] = {
    "format": (int, "an integer"),
    "task": (str, "text"),
    "actions": (dict, "an object"),
    "cloning": (dict, "an object"),
    "learners": (list, "a list of objects"),
    "algorithm": (dict, "an object"),
    "normaliser": (str, "text"),
    "command": (str, "text"),
    "versions": (dict, "an object of texts"),
    "score": (dict | None, "an object or null"),
    "reference_score": (dict | None, "an object or null"),
    "seed": (int | None, "an integer or null"),
    "encoder": (dict | None, "an object or null"),
    "licence": (str, "text"),
    "parents": (list, "a list of texts"),
    "notes": (str, "text"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a distilled dataset is, how to use it, what it scores and how it was made.

    Every value is kept in the form JSON gives back (tuples become lists, NumPy numbers plain ones), so a card
    equals the card read from its own text.

    Raises:
      FloppyError: when built with a value of the wrong kind, NaN or infinity.
    """

    task: str
    """Full task id, such as `ndcartpole/1`."""
    actions: dict[str, Any]
    """`{"kind": "discrete", "size": n}` or `{"kind": "continuous", "size": n, "low": [n], "high": [n]}`."""
    cloning: dict[str, Any]
    """The recipe that turns a fresh policy and the dataset into a trained policy, by its `kind`."""
    learners: list[dict[str, Any]]
    """The distributions of fresh policies that the dataset was distilled for, at least one."""
    algorithm: dict[str, Any]
    """What made the dataset: `name` and `config`."""
    normaliser: str
    """`none`, `frozen` (statistics in the file) or `per-evaluation` (statistics start afresh in every evaluation)."""
    command: str
    """The command or call that made the dataset."""
    versions: dict[str, str]
    """Version of each package that took part, the one that defines the task among them."""
    score: dict[str, Any] | None = None
    """`mean` and `sd` over `learners` fresh policies of `episodes` episodes each, and the `seed` of the evaluation."""
    reference_score: dict[str, Any] | None = None
    """A published score to compare with, where there is one."""
    seed: int | None = None
    """Seed of the run that made the dataset."""
    encoder: dict[str, Any] | None = None
    """`{"layers": l}` when the file carries the first `l` layers; `{"layers": L, "of": L}` is a whole plain policy."""
    licence: str = "Apache-2.0"
    """SPDX identifier."""
    parents: list[str] = dataclasses.field(default_factory=list)
    """Names or digests of the datasets that were merged into this one."""
    notes: str = ""
    """Anything else, for people."""
    format: int = FORMAT
    """Version of the file format."""

    def __post_init__(self) -> None:
        """Puts the values into JSON's own types and refuses what the format does not allow."""
        for name, value in _plain_json({name: getattr(self, name) for name in _CARD_TYPES}).items():
            object.__setattr__(self, name, value)
        _check_format(self.format)
        _check_card_types(self)
        _check_actions(self.actions)
        _check_card_contents(self)
        _check_encoder_entry(self.encoder)

    @property
    def is_plain_policy(self) -> bool:
        """Whether the encoder holds every layer, so that nothing is left for a learner to learn."""
        return self.encoder is not None and self.encoder.get("of") == self.encoder["layers"]

    def to_json(self) -> str:
        """The card as JSON in ASCII, keys sorted: the same card is the same bytes."""
        return json.dumps(vars(self), sort_keys=True, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Reads a card.

        Args:
          text: a JSON object.

        Returns:
          The card.

        Raises:
          FloppyError: if the text is not JSON, has an unknown `format`, unknown keys, missing keys or wrong values.
        """
        try:
            values = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise FloppyError(
                f"The card is not JSON ({_one_line(error)}): it must be one JSON object, so write the file again."
            ) from error
        if not isinstance(values, dict):
            raise FloppyError(f"The card is {_shown(values)}, it must be one JSON object: write the file again.")
        # The format comes first: the keys of another format are not ours to judge.
        if "format" in values:
            _check_format(values["format"])
        _check_card_keys(values)
        return cls(**values)


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
    """`[]`: the learned step size of the cloning."""
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

    @property
    def examples(self) -> int:
        """The number of examples, k."""
        return len(self.observations)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape `[*obs]` of one observation."""
        return self.observations.shape[1:]

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
        if self.inner_rate is not None and (self.inner_rate.shape != () or not self.inner_rate > 0):
            raise FloppyError(
                f"Tensor inner_rate is {_shown(self.inner_rate.tolist())}, it must be one number above 0 of shape (): "
                "give the step size itself."
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

    def _check_encoder(self) -> None:
        layers = self.card.encoder["layers"] if self.card.encoder else 0
        present = {f"{layer}/{part}" for layer in range(len(self.encoder) // 2) for part in ("kernel", "bias")}
        if len(self.encoder) != 2 * layers or set(self.encoder) != present:
            raise FloppyError(
                f"The encoder tensors are {_listed(self.encoder)}, the card's encoder has {layers} layers: "
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
      FloppyError: if the path exists and `overwrite` is false, or if it cannot be written.
    """
    path = Path(path)
    if not overwrite and os.path.lexists(path):
        raise FloppyError(f"{path} exists already, nothing was written: choose another name or allow overwriting.")
    write_atomically(path, safetensors.numpy.save(dataset.numpy(), {METADATA_KEY: dataset.card.to_json()}))


def load(path: str | os.PathLike[str]) -> DistilledDataset:
    """Reads a dataset from a file that `save` or another writer of the format made.

    Args:
      path: the file.

    Returns:
      The dataset, valid in every respect that `DistilledDataset.validate` checks.

    Raises:
      FloppyError: if there is no such file, or if it is anything else than a valid dataset of a known format.
    """
    path = Path(path)
    try:
        _check_is_file(path)
        with safe_open(path, framework="numpy") as file:
            return _read(file)
    except FloppyError as error:
        raise FloppyError(f"{path}: {error}") from error
    except (SafetensorError, ValueError) as error:  # ValueError: a shape that no NumPy array can have
        raise FloppyError(
            f"{path} is no safetensors file, or a damaged one ({_one_line(error)}): "
            "give a dataset that floppy wrote, or copy it again."
        ) from error
    except OSError as error:
        raise FloppyError(f"{path} cannot be read ({_one_line(error)}): check the path and its permissions.") from error


def write_atomically(path: str | os.PathLike[str], data: bytes) -> None:
    """Writes bytes to a file so that no reader, and no crash, ever meets half of them.

    The bytes go to a temporary file in the same folder, which then takes the place of `path` in one step. On
    failure the temporary file is removed and a file that stood there before is as it was.

    Args:
      path: the file; missing parent folders are made.
      data: all of its bytes.

    Raises:
      FloppyError: if the file cannot be written.
    """
    path = Path(path)
    temporary = path.parent / f".floppy-{secrets.token_hex(8)}.tmp"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise FloppyError(
            f"{path} cannot be written ({_one_line(error)}): choose a folder that is writable and has room."
        ) from error


def _check_is_file(path: Path) -> None:
    if path.is_dir():
        raise FloppyError("This is a folder, not a dataset: give the path of a .safetensors file inside it.")
    if not path.exists():
        raise FloppyError("There is no such file: give the path of a .safetensors file that floppy wrote.")
    if not path.is_file():
        raise FloppyError("This is not a regular file: copy the dataset to one first.")


def _read(file: Any) -> DistilledDataset:
    """Builds a dataset from an open safetensors file, its card first."""
    metadata = file.metadata() or {}
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
        raise FloppyError(f"The tensor {_listed(missing)} is missing, every dataset has it: write the file again.")
    known = _REQUIRED_TENSORS + _OPTIONAL_TENSORS
    unknown = [name for name in names if name not in known and not _is_encoder_tensor(name)]
    if unknown:
        raise FloppyError(
            f"The tensor {_listed(unknown)} is unknown: format {FORMAT} has {', '.join(known)} and "
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
            f"Tensor {name} is not an array of real numbers ({_one_line(error)}): give one that converts to float32."
        ) from error
    tensor.flags.writeable = False
    return tensor


def _plain_json(values: dict[str, Any]) -> dict[str, Any]:
    """The same values in the types that JSON gives back; NumPy's numbers and arrays are let in."""

    def plain(value: Any) -> Any:
        if isinstance(value, np.generic | np.ndarray):
            return value.tolist()
        raise TypeError(f"{type(value).__name__} is not JSON")

    try:
        result: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False, default=plain))
    except (TypeError, ValueError, RecursionError) as error:
        raise FloppyError(
            f"The card holds something that JSON cannot store ({_one_line(error)}): "
            "use text, finite numbers, true, false, null, lists and objects."
        ) from error
    return result


def _check_format(number: Any) -> None:
    if type(number) is not int or number not in KNOWN_FORMATS:
        known = ", ".join(str(known) for known in KNOWN_FORMATS)
        raise FloppyError(f"Format {_shown(number)} is unknown, this floppy knows format {known}: update floppy.")


def _check_card_keys(values: dict[str, Any]) -> None:
    unknown = [name for name in values if name not in _CARD_TYPES]
    if unknown:
        raise FloppyError(
            f"The card has the unknown key {_listed(unknown)}, format {FORMAT} does not know it: "
            "update floppy or move it to notes."
        )
    optional = {field.name for field in dataclasses.fields(Card) if not _is_mandatory(field)}
    missing = [name for name in _CARD_TYPES if name not in values and name not in optional]
    if missing:
        raise FloppyError(f"The card lacks the mandatory key {_listed(missing)}: write the file again with it.")


def _is_mandatory(field: dataclasses.Field[Any]) -> bool:
    no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    # A writer in Python may leave the format out; a file may not.
    return no_default or field.name == "format"


def _check_card_types(card: Card) -> None:
    for name, (allowed, words) in _CARD_TYPES.items():
        value = getattr(card, name)
        # To Python, true is an integer; to the format it is not.
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise FloppyError(f"The card's {name} is {_shown(value)}, it must be {words}: correct it.")
    elements: list[tuple[str, list[Any], type]] = [
        ("learners", card.learners, dict),
        ("parents", card.parents, str),
        ("versions", list(card.versions.values()), str),
    ]
    for name, values, kind in elements:
        if not all(isinstance(value, kind) for value in values):
            raise FloppyError(f"The card's {name} is {_shown(values)}, it must be {_CARD_TYPES[name][1]}: correct it.")


def _check_card_contents(card: Card) -> None:
    if not card.task:
        raise FloppyError("The card's task is empty: give a task id such as gymnax/CartPole-v1.")
    if not card.learners:
        raise FloppyError("The card's learners is empty: give at least one distribution of fresh policies.")
    for name, value, key in (("cloning", card.cloning, "kind"), ("algorithm", card.algorithm, "name")):
        if not isinstance(value.get(key), str):
            raise FloppyError(f"The card's {name} is {_shown(value)}, it must have a text under {key!r}: add it.")
    if card.normaliser not in NORMALISERS:
        raise FloppyError(
            f"The card's normaliser is {_shown(card.normaliser)}, allowed are {', '.join(NORMALISERS)}: choose one."
        )
    missing = [key for key in _SCORE_KEYS if card.score is not None and key not in card.score]
    if missing:
        raise FloppyError(f"The card's score lacks {_listed(missing)}, it must say {', '.join(_SCORE_KEYS)}: add it.")


def _check_actions(actions: dict[str, Any]) -> None:
    kind, size = actions.get("kind"), actions.get("size")
    if kind not in ACTION_KINDS:
        raise FloppyError(
            f"The card's actions have kind {_shown(kind)}, allowed are {' and '.join(ACTION_KINDS)}: choose one."
        )
    if type(size) is not int or size < 1:
        raise FloppyError(
            f"The card's actions have size {_shown(size)}, it must be an integer of at least 1: correct it."
        )
    if kind == "continuous":
        low, high = actions.get("low"), actions.get("high")
        if not _are_bounds(low, high, size):
            raise FloppyError(
                f"The card's actions have low {_shown(low)} and high {_shown(high)}: "
                f"give {size} numbers each, every low below its high."
            )


def _are_bounds(low: Any, high: Any, size: int) -> bool:
    for bounds in (low, high):
        if not isinstance(bounds, list) or len(bounds) != size or not all(type(b) in (int, float) for b in bounds):
            return False
    return all(least < most for least, most in zip(low, high, strict=True))


def _check_encoder_entry(encoder: dict[str, Any] | None) -> None:
    if encoder is None:
        return
    layers = encoder.get("layers")
    of = encoder.get("of", layers)
    if type(layers) is not int or type(of) is not int or not 1 <= layers <= of:
        raise FloppyError(
            f"The card's encoder is {_shown(encoder)}, it must give layers, at least 1, and may give of, the number of "
            "layers of the whole network: correct it, or use null for no encoder."
        )


def _shown(value: Any) -> str:
    """A value as it appears in a message: on one line and never long."""
    return reprlib.repr(value)


def _listed(names: Any) -> str:
    """Names as they appear in a message: the first few of them."""
    names = sorted(names)
    shown = ", ".join(_shown(name) for name in names[:6]) or "none"
    return shown if len(names) <= 6 else f"{shown} and {len(names) - 6} more"


def _one_line(error: BaseException) -> str:
    """The text of another library's error, fit for the middle of a sentence."""
    text = " ".join(str(error).split()).rstrip(".")
    return text if len(text) <= 160 else f"{text[:160]}..."
