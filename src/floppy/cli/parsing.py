"""From words to the object of a command: options derive from fields of dataclasses, complaints are one sentence.

A command is a dataclass, and so are its parts, such as the configuration of a run with its own outer loop. `Parser`
lays all their fields out as options, with the text below a field as its help, lets tyro parse them, and builds the
dataclasses, which then validate what they were given.
"""

import contextlib
import dataclasses
import difflib
import functools
import io
import itertools
import operator
import sys
import types
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_args, get_origin

import tyro
from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from floppy.cli.field_options import ALIASES, MISSING, Group, Option, alternatives, bare, build, extras, options_of
from floppy.errors import FloppyError, must_be_one_of, shown

HELP = ["--help", "-h"]

Names = Callable[[], Iterable[str]]


class Parser:
    """Reads the options of a command."""

    def __init__(
        self,
        kind: type[Any],
        program: str,
        *,
        about: str = "",
        given: Mapping[str, Any] = types.MappingProxyType({}),
        defaults: Mapping[str, Any] = types.MappingProxyType({}),
        positional: Iterable[str] = (),
        groups: tuple[Group, ...] = (),
        lists: Mapping[str, Names] = types.MappingProxyType({}),
        elsewhere: Mapping[str, str] = types.MappingProxyType({}),
    ) -> None:
        """Lays out the options.

        Args:
          kind: the command's dataclass.
          program: what is typed before the options.
          about: what the command does, for its help.
          given: parts of the command by field: an object, whose values are the defaults, or a `Part`.
          defaults: other defaults, by option.
          positional: options that are typed without their names.
          groups: of the help; the first one without names takes the options that are in no other.
          lists: known names, by option, that its help ends with.
          elsewhere: options that there are with others alone, by name, and with which.
        """
        self.kind, self.program, self.about, self.given = kind, program, about, given
        self.groups, self.elsewhere = groups, elsewhere
        found = []
        for option in options_of(kind, given):
            if option.name in positional:
                hint = Annotated[option.hint, Positional]  # type: ignore[name-defined]
                option = option._replace(hint=hint, default=MISSING)
            if option.name in lists:
                option = option._replace(text=f"{option.text} Known by name: {', '.join(lists[option.name]())}.")
            found.append(option._replace(default=defaults.get(option.name, option.default)))
        self.options = {option.key: option for option in found}
        names = [option.name for option in found]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise FloppyError(f"Two fields give the option --{twice}: give one of them another name.")

    def parse(self, words: list[str]) -> Any:
        """The command that the words are.

        Raises:
          FloppyError: for what is no option, a value that is missing or of the wrong type, and what the dataclasses
            refuse.
          SystemExit: after `--help`.
        """
        self._check_empty(words)
        said = io.StringIO()
        # Words that tyro has read by then are not in its help, the first ones of all.
        words = HELP[:1] if set(words) & set(HELP) else words
        try:
            with contextlib.redirect_stderr(said), _complaints_to(self._complain):
                filled = tyro.cli(self.form(), prog=self.program, description=self.about, args=words, registry=NUMBERS)
        except SystemExit as stop:
            if not stop.code:
                raise
            # A complaint of a kind that this version of tyro tells nobody about.
            raise FloppyError(f"These options were not understood: {self._help}.") from None
        values: dict[str, Any] = {}
        for group in dataclasses.fields(filled):
            part = getattr(filled, group.name)
            values |= {group.name: part} if group.name in self.options else vars(part)
        with contextlib.redirect_stdout(sys.stderr):  # checks of the values may take a look at an environment
            return build(self.kind, self.given, (), values)

    def _check_empty(self, words: list[str]) -> None:
        """Refuses empty arguments, such as shell variables that are not set leave behind.

        Raises:
          FloppyError: for one, but for an option among whose choices it is.
        """
        may_be_empty = {option.typed for option in self.options.values() if "" in option.choices}
        for before, word in itertools.pairwise(["", *words]):
            if word and not (word.startswith("--") and word.endswith("=") and word.count("=") == 1):
                continue
            name = word.removesuffix("=") or (before if before.startswith("-") else "")
            if name not in may_be_empty:
                empty = f"{name} needs a value, got an empty one"
                what = empty if name else f"{self._name} was given an empty argument"
                raise FloppyError(f"{what}: leave it out, or say what it is to be.")

    def form(self) -> type[Any]:
        """The dataclass that tyro reads: a field per option, those of a group of the help in a dataclass of its own."""
        first = self.groups[0].names if self.groups else ()
        by_group: dict[int, list[Option]] = {}
        for option in self.options.values():
            by_group.setdefault(self._group(option), []).append(option)
        fields = [_field(option) for option in sorted(by_group.pop(0, []), key=functools.partial(_place, first))]
        for number in sorted(by_group):
            title, about, names = self.groups[number]
            own = sorted(by_group[number], key=functools.partial(_place, names))
            part = dataclasses.make_dataclass(title, [_field(option) for option in own], frozen=True)
            part.__doc__ = about
            shown_as = Annotated[part, arg(name=title, help=about)]  # type: ignore[valid-type]
            name = f"{title.replace('-', '_')}_options"
            fields.append((name, shown_as, dataclasses.field(default_factory=part)))
        form = dataclasses.make_dataclass(self.kind.__name__, fields, frozen=True, kw_only=True)
        form.__doc__ = self.about
        return form

    def _group(self, option: Option) -> int:
        """The group of an option; positional ones come first."""
        if option.is_positional:
            return 0
        places = [number for number, group in enumerate(self.groups) if set(option.path) & set(group.names)]
        return next(iter([*places, *(number for number, group in enumerate(self.groups) if not group.names)]), 0)

    def _complain(self, event: Any) -> None:
        """Says in a sentence what tyro found to be wrong.

        Raises:
          FloppyError: always, but for a kind of event that is unknown here.
        """
        kind, about = type(event).__name__, getattr(event, "argument", None)
        option = None if about is None else self.options[about.field.intern_name]
        if kind == "UnrecognizedArgs":
            raise self._unknown(event.tokens)
        if kind == "MissingArgs":
            missing = [self.options[each.arg.field.intern_name] for each in event.missing_arguments]
            raise FloppyError(f"{self._name} needs {' and '.join(each.typed for each in missing)}: {self._help}.")
        if kind == "InvalidChoice" and option is not None:
            raise must_be_one_of(option.typed, event.value, (each for each in event.choices if each))
        if kind == "BadValue" and option is not None:
            raise FloppyError(f"{option.typed} needs a value: {self._help}.")
        if kind == "InstantiationFailure" and option is not None:
            raise FloppyError(f"{option.typed} {event.message}.")

    def _unknown(self, tokens: list[str]) -> FloppyError:
        """The complaint about words that are no options."""
        token = next((each for each in tokens if each.startswith("--")), tokens[0]).partition("=")[0]
        if not token.startswith("-"):
            return FloppyError(f"{self._name} was given {shown(token)}, which is one argument too many: {self._help}.")
        if token[2:] in self.elsewhere:
            needed = self.elsewhere[token[2:]]
            return FloppyError(f"{self._name} has {token} only with {needed}: give both, or neither.")
        known = [option.typed for option in self.options.values() if not option.is_positional]
        known += [f"--no-{option.name}" for option in self.options.values() if isinstance(option.default, bool)]
        nearest = difflib.get_close_matches(token, known, n=1, cutoff=0.7)
        if nearest:
            return FloppyError(f"{self._name} has no option {shown(token)[1:-1]}: did you mean {nearest[0]}?")
        return FloppyError(f"{self._name} has no option {shown(token)[1:-1]}: {self._help}.")

    @property
    def _name(self) -> str:
        return self.program.removeprefix("floppy ")

    @property
    def _help(self) -> str:
        return f"`{self.program} --help` lists the options"


def hyphenated(words: Iterable[str]) -> list[str]:
    """The command line with `-` in place of `_` in the names of options: tyro takes both, all else only `-`."""
    return [
        word.partition("=")[0].replace("_", "-") + "".join(word.partition("=")[1:]) if word.startswith("--") else word
        for word in words
    ]


def peek(words: list[str], *names: str) -> dict[str, str]:
    """The values of a few options that decide about the others: what is imported, and which defaults there are.

    Args:
      words: the command line.
      names: the options, without their dashes.

    Returns:
      A value for each of them, empty where it is not given. What is wrong with one the parser will say.
    """
    found = dict.fromkeys(names, "")
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):
        name, has_value, value = word.removeprefix("--").partition("=")
        if name in found and word.startswith("--"):
            found[name] = value if has_value else "" if after.startswith("--") else after
    return found


def completion(shell: str, parsers: Mapping[str, tuple[Parser, str]]) -> str:
    """A script by which a shell completes commands and options.

    Args:
      shell: bash, zsh or fish.
      parsers: the parser of each command, with a line on it.
    """
    commands = [
        Annotated[parser.form(), tyro.conf.subcommand(name, description=about)]
        for name, (parser, about) in parsers.items()
    ]
    script = io.StringIO()
    with contextlib.redirect_stdout(script), contextlib.suppress(SystemExit):
        words = ["--tyro-print-completion", shell]
        every: Any = functools.reduce(operator.or_, commands)
        tyro.cli(every, prog="floppy", args=words, registry=NUMBERS)
    return script.getvalue()


@contextlib.contextmanager
def _complaints_to(hook: Callable[[Any], None]) -> Iterator[None]:
    """Has tyro tell a function what it finds wrong. Its hook is not public: without it, `parse` says less."""
    on_parse_error = getattr(getattr(tyro, "_errors", None), "on_parse_error", None)
    with contextlib.nullcontext() if on_parse_error is None else on_parse_error(hook):
        yield


# --- from options to tyro ---


def _field(option: Option) -> tuple[str, Any, Any]:
    """A field of the dataclass that tyro reads."""
    hint: Any = Literal[option.choices] if option.choices else bare(option.hint)
    about = arg(
        name=option.name,
        prefix_name=False,
        metavar=_metavar(option),
        help=option.text,
        help_behavior_hint="" if option.default in (None, "", ()) else None,  # the text says what happens then
        aliases=ALIASES.get(option.path[-1]),
    )
    return option.key, Annotated[(hint, *extras(option.hint), about)], dataclasses.field(default=option.default)


def _metavar(option: Option) -> str | None:
    """What stands for a value in the help; None for tyro's own words."""
    if option.is_positional:
        return option.name.upper()
    if option.choices:
        return f"{{{','.join(filter(None, option.choices))}}}"
    kinds = [each for each in alternatives(bare(option.hint)) if each is not type(None)]
    if len(kinds) == 1 and option.default is None and isinstance(kinds[0], type):
        return kinds[0].__name__.upper()
    return None


def _place(names: tuple[str, ...], option: Option) -> int:
    """Where an option stands in its group."""
    return next((number for number, name in enumerate(names) if name in option.path), len(names))


NUMBERS = ConstructorRegistry()
"""How tyro reads numbers, and lists of them, with complaints in the words of `check_fields`."""


@NUMBERS.primitive_rule
def _numbers(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Reads numbers; those of a list are separate words, or joined by commas. One alone may be no list."""
    hint = next((each for each in alternatives(info.type) if get_origin(each) is tuple), info.type)
    may_be_one = hint is not info.type
    is_list = get_origin(hint) is tuple and get_args(hint)[1:] == (Ellipsis,)
    kind = get_args(hint)[0] if is_list else hint
    if kind not in (int, float):
        return None

    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError:
            expected = "a whole number" if kind is int else "a number"
            raise ValueError(f"must be {expected}, got {shown(text)}") from None

    def is_number(value: Any) -> bool:
        return type(value) is kind or (kind is float and type(value) is int)

    name = kind.__name__.upper()
    if not is_list:
        return PrimitiveConstructorSpec(1, name, lambda words: read(words[0]), is_number, lambda value: [str(value)])

    def read_all(words: list[str]) -> Any:
        found = tuple(read(text) for word in words for text in word.split(","))
        return found[0] if may_be_one and len(found) == 1 else found

    def is_list_of_numbers(value: Any) -> bool:
        return (isinstance(value, tuple) and all(map(is_number, value))) or (may_be_one and is_number(value))

    return PrimitiveConstructorSpec(
        "*",
        f"{name} [{name} ...]",
        read_all,
        is_list_of_numbers,
        lambda value: list(map(str, value if isinstance(value, tuple) else (value,))),
    )
