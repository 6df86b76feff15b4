"""Fields of configurations: bounds beside the field that they bound, registries of kinds, and the one JSON codec.

A configuration is a frozen dataclass. `bounded` and `one_of` say what a field allows, `check_fields` (called from
`__post_init__`) holds the values to it. `encode` and `decode` turn a configuration into plain JSON and back.
"""

import dataclasses
import math
import operator
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Generic, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from floppy.errors import MAX_COUNT, FloppyError, check_number, must_be_one_of, shown

Member = TypeVar("Member")

BOUNDS, CHOICES, PARENT = "bounds", "choices", "parent"

LARGEST = 1e30
"""No number of a configuration or a card is larger: float32 ends at 3e38, and some are multiplied."""

LARGEST_INTEGER = 2**32 - 1
"""The same of whole numbers: seeds have 32 bits."""


def bounded(
    default: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf, **options: Any
) -> Any:
    """A field for a number within bounds: `above < value`, `least <= value <= most`, see `check_fields`."""
    bounds = {"least": least, "above": above, "most": most}
    return dataclasses.field(default=default, metadata={BOUNDS: bounds}, **options)


def one_of(default: Any, names: Iterable[str] | Callable[[], Iterable[str]]) -> Any:
    """A field for a name from a list, or from what a function gives when it is checked (a registry that may grow)."""
    return dataclasses.field(default=default, metadata={CHOICES: names})


def parent_file() -> Any:
    """A field for the file of a dataset that takes part, by default none: runs know it by its digest, not its path."""
    return dataclasses.field(default="", metadata={PARENT: True})


def parent_fields(config: Any) -> list[str]:
    """Names of a dataclass's fields for such files."""
    return [field.name for field in dataclasses.fields(config) if PARENT in field.metadata]


def check_fields(config: Any, prefix: str = "") -> None:
    """Holds the fields of a frozen dataclass to their types, bounds and choices.

    Whole floats and NumPy's numbers are taken for integers and floats, and kept as Python's own.

    Args:
      config: the dataclass, as it is being built.
      prefix: before the fields' names in messages.

    Raises:
      FloppyError: naming the first field that is not allowed, what was got and what is allowed.
    """
    hints = get_type_hints(type(config))
    for field in dataclasses.fields(config):
        name, value = prefix + field.name, getattr(config, field.name)
        plain = plain_value(name, value, hints[field.name])
        if plain is not value:
            object.__setattr__(config, field.name, plain)
        for number in plain if isinstance(plain, tuple) else (plain,):
            if isinstance(number, int | float) and not isinstance(number, bool):
                check_number(name, number, **field.metadata.get(BOUNDS, {}))
                most = LARGEST_INTEGER if isinstance(number, int) else LARGEST
                check_number(name, number, least=-most, most=most)
        if CHOICES in field.metadata:
            allowed = field.metadata[CHOICES]
            allowed = tuple(allowed() if callable(allowed) else allowed)
            if plain not in allowed:
                raise must_be_one_of(name, plain, (each or '""' for each in allowed))


def plain_value(name: str, value: Any, hint: Any) -> Any:
    """A value as Python's own number, text or truth value where the hint asks for one; anything else as it is.

    Raises:
      FloppyError: naming the field, if the value is of another type.
    """
    kinds = _alternatives(hint)
    if value is None and type(None) in kinds:
        return value
    several = next((each for each in kinds if get_origin(each) is tuple), None)
    if several is not None and (isinstance(value, tuple | list) or float not in kinds):
        if not isinstance(value, tuple | list):
            raise FloppyError(f"{name} must be a list or tuple, got {shown(value)}.")
        inner = get_args(several)
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        if len(each) != len(value):
            raise FloppyError(f"{name} must be {len(each)} values, got {len(value)}.")
        return tuple(plain_value(name, element, kind) for element, kind in zip(value, each, strict=True))
    for kind, words in ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text")):
        if kind in kinds:
            found = _as(kind, value)
            if found is None:
                raise FloppyError(f"{name} must be {words}, got {shown(value)}.")
            return found
    return value


def whole_number(name: str, value: Any, *, least: int = 1, most: int = MAX_COUNT) -> int:
    """A count that a function was given, as Python's own: whole floats and NumPy's numbers are taken too.

    Args:
      name: of the argument, as users write it.
      value: what was given.
      least: the smallest number allowed.
      most: the largest number allowed.

    Raises:
      FloppyError: for anything else, and for numbers out of bounds.
    """
    number: int = plain_value(name, value, int)
    check_number(name, number, least=least, most=most)
    return number


def as_seed(seed: Any, name: str = "seed") -> int:
    """A seed of 32 bits, as those of JAX's and NumPy's generators are; see `whole_number`."""
    return whole_number(name, seed, least=0, most=LARGEST_INTEGER)


def _alternatives(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def _as(kind: type, value: Any) -> Any:
    """The value as a `kind`, None where it is none: true is no number, 2.0 is a whole one."""
    is_truth = isinstance(value, bool) or type(value).__name__ == "bool_" or type(value).__name__ == "bool"
    if kind is bool:
        return bool(value) if is_truth else None
    if kind is str:
        return value if isinstance(value, str) else None
    if is_truth or isinstance(value, str):
        return None
    try:
        if kind is float:
            return float(value)
        if hasattr(value, "is_integer") and not hasattr(value, "__index__"):  # a float, NumPy's included
            return int(value) if value.is_integer() else None
        return operator.index(value)
    except (TypeError, ValueError, OverflowError):
        return None


def is_frozen_dataclass(kind: Any) -> bool:
    """Whether a class is one whose objects can be hashed and compared by their fields."""
    return bool(getattr(getattr(kind, "__dataclass_params__", None), "frozen", False))


class Registry(Mapping[str, Member], Generic[Member]):
    """The members of a kind by name. It is the only list of them: help, readers, messages and tests ask it."""

    def __init__(self, what: str, members: Iterable[tuple[str, Member]] = ()) -> None:
        self.what, self._members = what, dict(members)

    def register(self, name: str, member: Member) -> None:
        """Adds a member.

        Raises:
          FloppyError: if another one has the name.
        """
        if name in self._members and not is_same_member(self._members[name], member):
            raise FloppyError(f"A {self.what} called {name} is registered already: choose another name.")
        self._members[name] = member

    def find(self, name: Any) -> Member:
        """The member of a name.

        Raises:
          FloppyError: if there is none; it lists those that there are.
        """
        if not isinstance(name, str) or name not in self._members:
            raise must_be_one_of(self.what, name, self._members)
        return self._members[name]

    def __getitem__(self, name: str) -> Member:
        return self._members[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def is_same_member(old: Any, new: Any) -> bool:
    """Whether one replaces the other: equal, or the same class once more, as when a notebook's cell is run again."""
    places = [(getattr(each, "__module__", None), getattr(each, "__qualname__", None)) for each in (old, new)]
    return bool(old == new) or (places[0] == places[1] and None not in places[0])


def encode(part: Any) -> dict[str, Any]:
    """A part of a configuration in plain JSON, with the `kind` it is of."""
    return {"kind": type(part).__name__} | with_lists(dataclasses.asdict(part))


def with_lists(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Fields with lists in place of tuples, as JSON has them."""
    return {name: list(value) if isinstance(value, tuple) else value for name, value in entry.items()}


def decode(kind: type, entry: Mapping[str, Any], what: str) -> Any:
    """A dataclass from a JSON object, in which tuples have become lists.

    Args:
      kind: the dataclass.
      entry: its fields by name; those left out have their defaults.
      what: how a message calls it.

    Raises:
      FloppyError: for unknown keys, values of the wrong type, and values that the dataclass refuses.
    """
    hints = {field.name: get_type_hints(kind)[field.name] for field in dataclasses.fields(kind)}
    if unknown := sorted(set(entry) - set(hints)):
        raise FloppyError(f"The {what} has unknown keys {', '.join(unknown)}: this version knows {sorted(hints)}.")
    wrong = sorted(name for name, value in entry.items() if not _is_like(value, hints[name]))
    if wrong:
        raise FloppyError(f"The {what} has values of the wrong type for {', '.join(wrong)}: write the file again.")
    mandatory = {
        field.name
        for field in dataclasses.fields(kind)
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    }
    if missing := sorted(mandatory - set(entry)):
        raise FloppyError(f"The {what} lacks {', '.join(missing)}: write the file again.")
    return kind(**{name: _as_tuple(value) for name, value in entry.items()})


def _as_tuple(value: Any) -> Any:
    """A value from JSON with tuples in place of lists, those within lists too."""
    return tuple(map(_as_tuple, value)) if isinstance(value, list) else value


def _is_like(value: Any, hint: Any) -> bool:
    """Whether a value from JSON is of the type that a field's hint says; tuples are lists."""
    kinds = _alternatives(hint)
    if value is None:
        return type(None) in kinds
    if get_origin(hint) is Literal:
        return isinstance(value, str)
    several = next((each for each in kinds if get_origin(each) is tuple), None)
    if several is not None and (isinstance(value, list) or float not in kinds):
        inner = get_args(several)
        if not isinstance(value, list) or not (inner[-1] is Ellipsis or len(value) == len(inner)):
            return False
        each = [inner[0]] * len(value) if inner[-1] is Ellipsis else inner
        return all(_is_like(element, kind) for element, kind in zip(value, each, strict=True))
    if float in kinds and type(value) in (int, float):
        return True
    return type(value) in kinds
