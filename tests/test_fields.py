"""Fields of configurations: types and bounds, registries, and what JSON gives back."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from floppy.errors import FloppyError
from floppy.fields import Registry, bounded, check_fields, decode, encode, one_of
from floppy.run.config import DistillConfig


@dataclasses.dataclass(frozen=True)
class Some:
    count: int
    rate: float = bounded(0.5, above=0, most=1)
    name: str = one_of("a", ("a", "b"))
    pairs: tuple[tuple[int, int], ...] = ()
    seeds: tuple[int, ...] | None = None
    is_on: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


@pytest.mark.parametrize(
    ("values", "name", "plain"),
    [
        ({"count": np.int64(3)}, "count", 3),
        ({"count": 3.0}, "count", 3),
        ({"count": np.float32(2.0)}, "count", 2),
        ({"count": 1, "rate": np.float64(0.25)}, "rate", 0.25),
        ({"count": 1, "seeds": [1, np.int32(2)]}, "seeds", (1, 2)),
        ({"count": 1, "is_on": np.bool_(True)}, "is_on", True),
    ],
)
def test_numbers_of_numpy_and_whole_floats_are_taken(values: dict[str, Any], name: str, plain: Any) -> None:
    got = getattr(Some(**values), name)
    assert (got, type(got)) == (plain, type(plain))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 1.5}, "count must be a whole number, got 1.5"),
        ({"count": True}, "count must be a whole number, got True"),
        ({"count": "1"}, "count must be a whole number, got '1'"),
        ({"count": 1, "rate": 0}, "rate must be above 0 and at most 1, got 0.0"),
        ({"count": 1, "rate": float("nan")}, "rate must be above 0 and at most 1, got nan"),
        ({"count": 1, "name": "c"}, "name must be one of a, b, got 'c'"),
        ({"count": 1, "seeds": 5}, "seeds must be a list or tuple, got 5"),
        ({"count": 1, "seeds": "0,1"}, "seeds must be a list or tuple, got '0,1'"),
        ({"count": 1, "is_on": 1}, "is_on must be true or false, got 1"),
    ],
)
def test_what_is_not_allowed_is_named_with_what_was_got(values: dict[str, Any], message: str) -> None:
    with pytest.raises(FloppyError) as caught:
        Some(**values)
    assert str(caught.value) == f"{message}."


def test_json_gives_tuples_back_as_tuples() -> None:
    entry = encode(Some(2, pairs=((1, 2), (3, 4)), seeds=(5,)))
    assert entry.pop("kind") == "Some"
    as_json = entry | {"pairs": [[1, 2], [3, 4]], "seeds": [5]}
    assert decode(Some, as_json, "part") == Some(2, pairs=((1, 2), (3, 4)), seeds=(5,))


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "The part lacks count"),
        ({"count": 1, "more": 2}, "unknown keys more"),
        ({"count": "1"}, "values of the wrong type for count"),
        ({"count": 1, "pairs": [1, 2]}, "values of the wrong type for pairs"),
    ],
)
def test_entries_that_are_none_are_refused(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(FloppyError, match=message):
        decode(Some, entry, "part")


def test_a_registry_takes_a_name_once_but_the_same_class_again() -> None:
    registry: Registry[type[Any]] = Registry("kind")
    registry.register("some", Some)
    again = type("Some", (), {"__module__": Some.__module__, "__qualname__": Some.__qualname__})
    registry.register("some", again)
    assert registry["some"] is again
    with pytest.raises(FloppyError, match="A kind called some is registered already"):
        registry.register("some", int)
    with pytest.raises(FloppyError, match="kind must be one of some, got 'other'"):
        registry.find("other")


def test_a_configuration_without_its_parts_has_the_default_ones() -> None:
    assert DistillConfig.from_dict({"task": "cartpole", "examples": 3}) == DistillConfig("cartpole", examples=3)
    with pytest.raises(FloppyError, match="cloning must be an object with its kind, got 'x'"):
        DistillConfig.from_dict({"task": "cartpole", "cloning": "x"})
