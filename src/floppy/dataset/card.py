"""The card of a distilled dataset: what it is, how to use it, what it scores and how it was made."""

import dataclasses
import json
from typing import Any, Self

import numpy as np

from floppy.errors import MAX_COUNT, FloppyError, listed, one_line, shown
from floppy.fields import LARGEST

FORMAT = 1
"""The version of the file format of a dataset of one task."""

MERGED_FORMAT = 2
"""The version of the file format of a merged dataset, whose card has `blocks`."""

UNITS_FORMAT = 3
"""The version of a dataset, of one task or merged, whose card has units of actions, or an `epsilon`."""

KNOWN_FORMATS = (FORMAT, MERGED_FORMAT, UNITS_FORMAT)
"""The versions that this module reads."""

NORMALISERS = ("none", "frozen", "per-evaluation")
ACTION_KINDS = ("discrete", "continuous")

EPSILON = 1e-8
"""Added to the variances of observations where a card does not say otherwise: spreads below 1e-4 are not told apart."""

WEIGHTS = (1e-6, 1e6)
"""Between these bounds is the weight of a merged task's loss."""

SPANS = ("rows", "observations", "actions")
"""What a block of a merged dataset has `[first, count]` of."""

_SCORE_KEYS = ("mean", "sd", "learners", "episodes", "seed")
_BLOCK_KEYS = ("task", *SPANS, "weight")
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
    "blocks": (list, "a list of objects"),
    "epsilon": (float | int | None, "a number or null"),
}
_SINCE_LATER_FORMATS = ("blocks", "epsilon")
"""Keys that readers of format 1 do not know: left out where they are empty."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Card:
    """What a distilled dataset is, how to use it, what it scores and how it was made.

    Every value is kept in the form JSON gives back (tuples become lists, NumPy numbers plain ones), so a card
    equals the card read from its own text.

    Raises:
      FloppyError: when built with a value of the wrong kind, NaN or infinity.
    """

    task: str
    """Full task id, such as `ndcartpole/1`; of a merged dataset those of its tasks, joined by `+`."""
    actions: dict[str, Any]
    """`{"kind": "discrete", "size": n}` or `{"kind": "continuous", "size": n, "low": [n], "high": [n]}`, the
    latter with `"centre": [n], "half_width": [n]` where policies act in units of these."""
    cloning: dict[str, Any]
    """The recipe that turns a fresh policy and the dataset into a trained policy, by its `kind`."""
    learners: list[dict[str, Any]]
    """The distributions of fresh policies that the dataset was distilled for, at least one."""
    algorithm: dict[str, Any]
    """What made the dataset: `name` and `config`."""
    normaliser: str
    """`none`, `frozen` (statistics in the file) or `per-evaluation` (statistics start with zero in each one)."""
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
    """Tasks and digests of the datasets that were merged into this one, that it began with, or that taught it."""
    notes: str = ""
    """Anything else, for people."""
    blocks: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    """Of a merged dataset: for each `task` its `rows`, `observations` and `actions`, each as `[first, count]`, and the
    `weight` of its loss."""
    epsilon: float | None = None
    """Added to the variances of observations; null stands for 1e-8."""
    format: int = FORMAT
    """Version of the file format."""

    def __post_init__(self) -> None:
        """Puts the values into JSON's own types and validates them."""
        for name, value in _plain_json({name: getattr(self, name) for name in _CARD_TYPES}).items():
            object.__setattr__(self, name, value)
        _check_format(self.format)
        _check_card_types(self)
        _check_numbers(vars(self))
        _check_actions(self.actions)
        _check_units(self)
        _check_card_contents(self)
        _check_encoder_entry(self.encoder)
        _check_blocks(self)

    @property
    def is_plain_policy(self) -> bool:
        """Whether the encoder holds every layer, so that nothing is left for a learner to learn."""
        return self.encoder is not None and self.encoder.get("of") == self.encoder["layers"]

    def to_json(self) -> str:
        """The card as JSON in ASCII, keys sorted: the same card is the same bytes."""
        values = {
            name: value
            for name, value in vars(self).items()
            if name not in _SINCE_LATER_FORMATS or value not in ([], None)
        }
        return json.dumps(values, sort_keys=True, allow_nan=False)

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
                f"The card is not JSON ({one_line(error)}): it must be one JSON object, so write the file again."
            ) from error
        if not isinstance(values, dict):
            raise FloppyError(f"The card is {shown(values)}, it must be one JSON object: write the file again.")
        # The format comes first: the keys of another format are not ours to judge.
        if "format" in values:
            _check_format(values["format"])
        _check_card_keys(values)
        return cls(**values)


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
            f"The card holds something that JSON cannot store ({one_line(error)}): "
            "use text, finite numbers, true, false, null, lists and objects."
        ) from error
    return result


def _check_format(number: Any) -> None:
    if type(number) is not int or number not in KNOWN_FORMATS:
        known = ", ".join(str(known) for known in KNOWN_FORMATS)
        raise FloppyError(f"Format {shown(number)} is unknown, this floppy knows format {known}: update floppy.")


def _check_card_keys(values: dict[str, Any]) -> None:
    unknown = [name for name in values if name not in _CARD_TYPES]
    if unknown:
        raise FloppyError(
            f"The card has the unknown key {listed(unknown)}, format {FORMAT} does not know it: "
            "update floppy or move it to notes."
        )
    optional = {field.name for field in dataclasses.fields(Card) if not _is_mandatory(field)}
    missing = [name for name in _CARD_TYPES if name not in values and name not in optional]
    if missing:
        raise FloppyError(f"The card lacks the mandatory key {listed(missing)}: write the file again with it.")


def _is_mandatory(field: dataclasses.Field[Any]) -> bool:
    no_default = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    # A writer in Python may leave the format out; a file may not.
    return no_default or field.name == "format"


def _check_card_types(card: Card) -> None:
    for name, (allowed, words) in _CARD_TYPES.items():
        value = getattr(card, name)
        # To Python, true is an integer; to the format it is not.
        if not isinstance(value, allowed) or isinstance(value, bool):
            raise FloppyError(f"The card's {name} is {shown(value)}, it must be {words}: correct it.")
    elements: list[tuple[str, list[Any], type]] = [
        ("learners", card.learners, dict),
        ("parents", card.parents, str),
        ("blocks", card.blocks, dict),
        ("versions", list(card.versions.values()), str),
    ]
    for name, values, kind in elements:
        if not all(isinstance(value, kind) for value in values):
            raise FloppyError(f"The card's {name} is {shown(values)}, it must be {_CARD_TYPES[name][1]}: correct it.")


def _check_numbers(values: dict[str, Any]) -> None:
    """Checks the size of every number, however deep it lies."""
    ahead = list(values.items())
    while ahead:
        name, value = ahead.pop()
        if isinstance(value, dict):
            ahead += [(f"{name}.{key}", each) for key, each in value.items()]
        elif isinstance(value, list):
            ahead += [(name, each) for each in value]
        elif isinstance(value, int | float) and not abs(value) <= LARGEST:
            raise FloppyError(f"The card's {name} is {shown(value)}, numbers are at most {LARGEST:g}: correct it.")


def _check_card_contents(card: Card) -> None:
    if not card.task:
        raise FloppyError("The card's task is empty: give a task id such as gymnax/CartPole-v1.")
    if not card.learners:
        raise FloppyError("The card's learners is empty: give at least one distribution of fresh policies.")
    for name, value, key in (("cloning", card.cloning, "kind"), ("algorithm", card.algorithm, "name")):
        if not isinstance(value.get(key), str):
            raise FloppyError(f"The card's {name} is {shown(value)}, it must have a text under {key!r}: add it.")
    if card.normaliser not in NORMALISERS:
        raise FloppyError(
            f"The card's normaliser is {shown(card.normaliser)}, allowed are {', '.join(NORMALISERS)}: choose one."
        )
    missing = [key for key in _SCORE_KEYS if card.score is not None and key not in card.score]
    if missing:
        raise FloppyError(f"The card's score lacks {listed(missing)}, it must say {', '.join(_SCORE_KEYS)}: add it.")


def _check_actions(actions: dict[str, Any]) -> None:
    kind, size = actions.get("kind"), actions.get("size")
    if kind not in ACTION_KINDS:
        raise FloppyError(
            f"The card's actions have kind {shown(kind)}, allowed are {' and '.join(ACTION_KINDS)}: choose one."
        )
    if type(size) is not int or not 1 <= size <= MAX_COUNT:
        raise FloppyError(
            f"The card's actions have size {shown(size)}, it must be an integer from 1 to {MAX_COUNT}: correct it."
        )
    if kind == "continuous":
        low, high = actions.get("low"), actions.get("high")
        if not _are_bounds(low, high, size):
            raise FloppyError(
                f"The card's actions have low {shown(low)} and high {shown(high)}: "
                f"give {size} numbers each, every low below its high."
            )


def _check_units(card: Card) -> None:
    """Checks the units of actions and the epsilon, which formats 1 and 2 do not have."""
    units = [card.actions[name] for name in ("centre", "half_width") if name in card.actions]
    if card.format != UNITS_FORMAT and (units or card.epsilon is not None):
        raise FloppyError(
            f"Format {card.format} was given with units of actions or an epsilon: a dataset with them is of format "
            f"{UNITS_FORMAT}."
        )
    if units:
        low, high = ([bound * sign for bound in units[-1]] if isinstance(units[-1], list) else None for sign in (-1, 1))
        is_numbers = len(units) == 2 and _are_numbers(units[0], card.actions["size"])
        if card.actions["kind"] != "continuous" or not is_numbers or not _are_bounds(low, high, card.actions["size"]):
            raise FloppyError(
                f"The card's actions have units {shown(units)}: continuous actions may have centre and half_width, of "
                f"{card.actions['size']} numbers each, the half_width above 0."
            )
    if card.epsilon is not None and not 0 <= card.epsilon <= 1:
        raise FloppyError(f"The card's epsilon is {shown(card.epsilon)}, it must be from 0 to 1: correct it.")


def _are_numbers(values: Any, size: int) -> bool:
    return isinstance(values, list) and len(values) == size and all(type(each) in (int, float) for each in values)


def _are_bounds(low: Any, high: Any, size: int) -> bool:
    for bounds in (low, high):
        if not _are_numbers(bounds, size):
            return False
    return all(least < most for least, most in zip(low, high, strict=True))


def _check_encoder_entry(encoder: dict[str, Any] | None) -> None:
    if encoder is None:
        return
    layers = encoder.get("layers")
    of = encoder.get("of", layers)
    if type(layers) is not int or type(of) is not int or not 1 <= layers <= of <= MAX_COUNT:
        raise FloppyError(
            f"The card's encoder is {shown(encoder)}, it must give layers, at least 1, and may give of, the number of "
            "layers of the whole network: correct it, or use null for no encoder."
        )


def _check_blocks(card: Card) -> None:
    if card.format != UNITS_FORMAT and bool(card.blocks) != (card.format == MERGED_FORMAT):
        raise FloppyError(
            f"Format {card.format} was given with {len(card.blocks)} blocks: a merged dataset, which has them, is of "
            f"format {MERGED_FORMAT}, any other one of format {FORMAT}."
        )
    ends = dict.fromkeys(SPANS, 0)
    for block in card.blocks:
        if not (_is_block(block) and all(block[name][0] == ends[name] for name in SPANS)):
            raise FloppyError(
                f"The card's blocks hold {shown(block)}: give {', '.join(_BLOCK_KEYS)}, the weight from {WEIGHTS[0]:g} "
                f"to {WEIGHTS[1]:g}, and {', '.join(SPANS)} as [first, count], block after block without gaps."
            )
        ends = {name: sum(block[name]) for name in SPANS}
    if card.blocks and (ends["actions"] != card.actions["size"] or card.encoder or card.normaliser == "per-evaluation"):
        raise FloppyError(
            f"The card's blocks have {ends['actions']} actions, which must be the card's {card.actions['size']}, "
            "and a merged dataset has neither an encoder nor a normaliser per evaluation: correct it."
        )


def _is_block(block: dict[str, Any]) -> bool:
    """Whether all of its values are of the right kind."""
    if (
        set(block) != set(_BLOCK_KEYS)
        or not isinstance(block["task"], str)
        or type(block["weight"]) not in (int, float)
    ):
        return False
    spans = [block[name] for name in SPANS]
    are_spans = all(isinstance(span, list) and len(span) == 2 and all(type(n) is int for n in span) for span in spans)
    is_in_range = WEIGHTS[0] <= block["weight"] <= WEIGHTS[1]
    return are_spans and all(count >= 1 for _, count in spans) and is_in_range
