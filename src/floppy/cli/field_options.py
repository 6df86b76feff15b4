"""Fields of dataclasses as options, and dataclasses from the values of options."""

import ast
import contextlib
import dataclasses
import functools
import inspect
import itertools
import textwrap
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

from tyro.conf import Positional

from floppy.fields import CHOICES

MISSING = dataclasses.MISSING
NAME = "name"
"""In a field's metadata: the option's name, where it is another than the field's."""

PREFIXED = ("cloning",)
"""Parts whose options bear the part's name, as in `--cloning.steps`: other parts may have options of the same name."""

ALIASES = {"out": ("-o",)}
"""Short forms of options, by field."""

TYPES = (int, float, str, bool, Path, type(None))
"""What an option can be, alone, in a union or in a tuple. A field of anything else is no option and has its default."""


class Group(NamedTuple):
    """Options that are listed together in a command's help."""

    title: str
    """Nothing for those that come first."""
    about: str
    names: tuple[str, ...]
    """Fields, or parts whose fields are all meant, in the order of the help."""


class Option(NamedTuple):
    """A field as an option."""

    path: tuple[str, ...]
    """Names of the parts that lead to the field, and its own."""
    name: str
    """As it is typed, without the dashes."""
    hint: Any
    """The type, with what `Annotated` adds to it."""
    default: Any
    """`MISSING` where a value has to be given."""
    text: str
    choices: tuple[str, ...]
    """The names among which to choose; none where any value may be given."""

    @property
    def key(self) -> str:
        """A Python name that stands for it."""
        return "__".join(self.path)

    @property
    def is_positional(self) -> bool:
        """Whether it is typed without a name."""
        return Positional in extras(self.hint)

    @property
    def typed(self) -> str:
        """How messages call it."""
        return self.name.upper() if self.is_positional else f"--{self.name}"


class Part(NamedTuple):
    """A part of a command: a dataclass, and what is given for its fields."""

    kind: type[Any]
    given: Mapping[str, Any]


def options_of(kind: Any, given: Mapping[str, Any], path: tuple[str, ...] = ()) -> Iterator[Option]:
    """The fields of a dataclass and its parts as options."""
    hints, texts = get_type_hints(kind, include_extras=True), field_texts(kind)
    own = vars(kind).get("__annotations__", {})
    for field in sorted(dataclasses.fields(kind), key=lambda field: field.name not in own):  # those of bases last
        default, place = _default(field, given), (*path, field.name)
        if part := _part(default):
            yield from options_of(*part, place)
        elif _is_option(hints[field.name]):
            choices = field.metadata.get(CHOICES, ())
            choices = tuple(choices() if callable(choices) else choices)
            name = field.metadata.get(NAME, field.name.replace("_", "-"))
            prefix = "".join(f"{each}." for each in path if each in PREFIXED)
            yield Option(place, prefix + name, hints[field.name], default, texts.get(field.name, ""), choices)


def build(kind: type[Any], given: Mapping[str, Any], path: tuple[str, ...], values: Mapping[str, Any]) -> Any:
    """The dataclass with its parts, from the values of its options by their keys."""
    fields = {}
    for field in dataclasses.fields(kind):
        place, default = (*path, field.name), _default(field, given)
        if part := _part(default):
            fields[field.name] = build(*part, place, values)
        else:
            fields[field.name] = values.get("__".join(place), default)
    return kind(**fields)


def _default(field: dataclasses.Field[Any], given: Mapping[str, Any]) -> Any:
    """The default of a field, or MISSING."""
    if field.name in given:
        return given[field.name]
    return field.default_factory() if field.default_factory is not MISSING else field.default


def _part(default: Any) -> Part | None:
    """A part with the defaults of its fields, if the value of a field is one."""
    if isinstance(default, Part):
        return default
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        return None
    return Part(type(default), {field.name: getattr(default, field.name) for field in dataclasses.fields(default)})


@functools.cache
def field_texts(kind: Any) -> dict[str, str]:
    """The texts that stand below the fields of a dataclass in its source, and in that of its bases."""
    texts: dict[str, str] = {}
    for each in reversed(kind.__mro__):
        if "__dataclass_fields__" not in vars(each):
            continue
        with contextlib.suppress(OSError, TypeError):  # typed in at a prompt: no source
            body: Any = ast.parse(textwrap.dedent(inspect.getsource(each))).body[0]
            for field, text in itertools.pairwise(body.body):
                if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                    texts[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(text.value)).split())
    return texts


def _is_option(hint: Any) -> bool:
    """Whether a field of this type can be typed as an option."""
    hint = bare(hint)
    if get_origin(hint) is tuple or isinstance(hint, types.UnionType) or get_origin(hint) is Union:
        return all(each is Ellipsis or _is_option(each) for each in get_args(hint))
    return hint in TYPES or get_origin(hint) is Literal


def alternatives(hint: Any) -> tuple[Any, ...]:
    """The members of a union, or the type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


def bare(hint: Any) -> Any:
    """A type without what `Annotated` adds."""
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def extras(hint: Any) -> tuple[Any, ...]:
    """What `Annotated` adds to a type."""
    return tuple(getattr(hint, "__metadata__", ()))
