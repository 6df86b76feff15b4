"""What all commands share: their form, how one is carried out, and how scores read."""

import contextlib
import dataclasses
import difflib
import importlib
import inspect
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple, Self

from floppy.cli.environment import with_environment_arguments
from floppy.cli.field_options import NAME, Group
from floppy.cli.interrupts import USER_ERROR, end
from floppy.cli.parsing import HELP, Names, Parser, hyphenated, peek
from floppy.errors import FloppyError, listed, must_be_one_of, one_line, raised, shown
from floppy.learner.user_networks import NETWORKS, register_network
from floppy.parallel import is_first_process, losses_said
from floppy.run.cache import enable_compilation_cache
from floppy.studies.base import plain_json
from floppy.tasks.base import episode_word, score_unit
from floppy.tasks.faults import patience, stalls_end
from floppy.tasks.images import DATA_VARIABLE
from floppy.tasks.registry import import_module, make_task

Json = dict[str, Any]

LISTS: dict[str, Names] = {"distribution": lambda: NETWORKS}
"""Options whose help ends with the names that are known."""


class Call(NamedTuple):
    """What a command knows of the command line as a whole."""

    typed: str
    """As it was typed, for the card."""
    main: Callable[[list[str]], int]
    """Runs another command."""
    commands: "Mapping[str, type[Command]]"
    """All commands by name."""
    began: float
    """By `time.monotonic`, before JAX was imported."""

    def left(self, seconds: float | None) -> float | None:
        """What is left of a budget of time, to which the start of the program belongs."""
        return None if seconds is None else max(0.0, seconds - (time.monotonic() - self.began))


@dataclasses.dataclass(frozen=True)
class Sources:
    """What the library does not bring along: tasks, files and networks of your own."""

    modules: str = dataclasses.field(default="", metadata={NAME: "import"})
    """Python modules to import first, by comma, from this folder or installed: they may register tasks, networks, kinds
    of cloning, losses or outer loops with floppy, or environments with Gymnasium."""
    data: str = ""
    """Folder of the files of images/mnist and images/fashion-mnist, or of .npz files with images that have moved, or
    such a file itself; by default what FLOPPY_DATA names."""
    env_kwargs: tuple[str, ...] = ()
    """Arguments for the environment of the task gymnasium/ID that is named on the command line, KEY=VALUE each; they
    become part of the task's id, gymnasium/ID?KEY=VALUE, and so of the dataset's card."""
    max_episode_steps: int | None = None
    """A time limit in steps for such an environment, which one that registers none needs; part of the task's id too."""
    network: str = ""
    """A network of your own, MODULE:NAME: what the module calls so is registered under this text, which is then the
    default of --distribution. A function without arguments is called, and makes it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """A command: its fields are its options."""

    name: ClassVar[str]
    positional: ClassVar[tuple[str, ...]] = ()
    """Options that are typed without their names."""
    groups: ClassVar[tuple[Group, ...]] = (
        Group("", "", ()),
        Group("general", "For every command.", ("sources", "json", "traceback")),
    )
    """Of the options in its help."""
    sources: Sources = dataclasses.field(default_factory=Sources)
    json: bool = False
    """Print exactly one JSON object."""
    traceback: bool = False
    """After a complaint print where it comes from too, which helps with code of your own."""

    def run(self, call: Call) -> Json:
        """Does the work; gives what `--json` prints."""
        raise NotImplementedError

    def text(self, result: Json) -> str:
        """The result for people."""
        raise NotImplementedError

    def exit_code(self, result: Json) -> int:
        """Of the program, once the result is printed."""
        del result
        return 0

    @classmethod
    def given(cls, words: list[str]) -> Json:
        """Parts of the command that depend on its first words, see `Parser`."""
        del words
        return {}

    @classmethod
    def elsewhere(cls) -> dict[str, str]:
        """Options that there are with others alone, see `Parser`."""
        return {}

    @classmethod
    def parser(cls, words: list[str]) -> Parser:
        """What reads the command's words: options and defaults depend on a few of these."""
        network = peek(words, "network")["network"]
        return Parser(
            cls,
            f"floppy {cls.name}",
            about=inspect.getdoc(cls) or "",
            given=cls.given(words),
            defaults={"distribution": network} if network else {},
            positional=cls.positional,
            groups=cls.groups,
            lists=LISTS,
            elsewhere=cls.elsewhere(),
        )

    @classmethod
    def parse(cls, words: list[str]) -> Self:
        """The command from its words, its name left out."""
        with contextlib.redirect_stdout(sys.stderr):  # the defaults may take a look at an environment
            parser = cls.parser(words)
        command: Self = parser.parse(words)
        return command


def carry_out(name: str, words: list[str], call: Call) -> tuple[str, int]:
    """Parses a command and runs it; gives what is to be printed, nothing in a process that only helps, and the code."""
    enable_compilation_cache()
    words = hyphenated(words)
    # A call that hangs and cannot be ended ends the program.
    stalls = stalls_end(lambda sentence: end(sentence, USER_ERROR))
    with stalls, task_sources(words):  # which may register commands
        if name not in call.commands:
            raise _unknown_command(name, call.commands)
        command = call.commands[name]
        parsed = command.parse(with_environment_arguments(words, begins_with_task=command.positional[:1] == ("task",)))
        # Environments may print; stdout is for the result alone.
        with contextlib.redirect_stdout(sys.stderr), losses_said():
            result = parsed.run(call)
            if _only_helps(parsed):
                return "", 0
            said = json.dumps(plain_json(result), allow_nan=False) if parsed.json else parsed.text(result)
            return said, parsed.exit_code(result)


def _only_helps(command: Command) -> bool:
    """Whether another process prints the result. A command that no processes share asks JAX for no device."""
    shared = getattr(command, "shared", None)
    return bool(shared and shared.coordinator) and not is_first_process()


def _unknown_command(name: str, known: Iterable[str]) -> FloppyError:
    nearest = difflib.get_close_matches(name, known, n=1)
    if nearest:
        return FloppyError(f"There is no command {shown(name)}: did you mean {nearest[0]}? `floppy --help` lists all.")
    return must_be_one_of("The command", name, known)


@contextlib.contextmanager
def task_sources(words: list[str]) -> Iterator[None]:
    """Imports and registers what `Sources` name, before anything makes a task or reads a distribution.

    Modules are searched in the current folder too, if the command line names one.
    """
    given = peek(words, "import", "data", "network", "step-timeout")
    before = os.environ.get(DATA_VARIABLE)
    # Else a file's task could find a module here that is not installed.
    searched = bool(given["import"] or given["network"]) or _names_a_module(words)
    here = _current_folder() if searched else ""
    if searched:
        sys.path.append(here)
    if given["data"]:
        os.environ[DATA_VARIABLE] = given["data"]
    try:
        with contextlib.redirect_stdout(sys.stderr):
            for name in given["import"].split(",") if given["import"] else ():
                import_module(name.strip())
            if given["network"]:
                register_by_name(given["network"])
        with _patience(given["step-timeout"]):  # environments are made while the words are read, too
            yield
    finally:
        if searched:
            sys.path.remove(here)
        os.environ.pop(DATA_VARIABLE, None)
        if before is not None:
            os.environ[DATA_VARIABLE] = before


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError as error:
        raise FloppyError(
            f"The current folder cannot be searched for modules ({one_line(error)}): change to one that is there."
        ) from error


def _names_a_module(words: list[str]) -> bool:
    """Whether somebody has typed a task with its module: `gymnasium/my_module:MyEnvironment-v0`."""
    return any(re.match(r"(--task=)?gymnasium/[^?]*:", word) for word in words)


@contextlib.contextmanager
def _patience(seconds: str) -> Iterator[None]:
    """The time limit of environments' calls, where one is given; what is wrong with it the parser will say."""
    try:
        limit = float(seconds)
    except ValueError:
        limit = 0.0
    with patience(limit) if limit > 0 else contextlib.nullcontext():
        yield


def register_by_name(text: str) -> None:
    """Registers the network `MODULE:NAME` under this text.

    Raises:
      FloppyError: if there is no such module, or nothing of this name in it.
    """
    module_name, _, attribute = text.partition(":")
    if not (module_name and attribute.isidentifier()):
        raise FloppyError(f"--network must be MODULE:NAME, such as my_module:make, got {shown(text)}.")
    if text in NETWORKS:
        return
    import_module(module_name)
    module = importlib.import_module(module_name)
    try:
        found = getattr(module, attribute, None)
        made = found() if found is not None and _makes_one(found) else found
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # the user's own code may raise anything
        raise FloppyError(f"{text} raised an error ({raised(error)}): mend the function.") from error
    if found is None:
        public = [name for name in vars(module) if not name.startswith("_")]
        raise FloppyError(f"Module {module_name} has no {attribute}: it has {listed(public)}.")
    register_network(text, made)


def _makes_one(found: Any) -> bool:
    """Whether it is a function that can be called with nothing."""
    if not inspect.isfunction(found):
        return False
    needed = [each for each in inspect.signature(found).parameters.values() if each.default is each.empty]
    return all(each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD) for each in needed)


def first_word(words: list[str], name: str, example: str) -> str:
    """The task that a command begins with; help without a task shows the defaults of the example's."""
    if words and words[0] in HELP:
        return example.split()[0]
    if not words or not words[0] or words[0].startswith("-"):
        raise FloppyError(f"{name} needs a task: name it first, as in `floppy {name} {example}`.")
    return words[0]


def score_text(task: str, score: Json) -> str:
    """A score with its spread: over learners, or over the episodes of a single one."""
    mean = f"{score_unit(make_task(task))} {score['mean']:.1f}"
    return f"{mean}, {interval_text(score)}" if score["learners"] == 1 else f"{mean} (sd {score['sd']:.1f})"


def interval_text(score: Json) -> str:
    """The confidence interval of a score."""
    low, high = score["ci95"]
    return f"95% interval {low:.1f} to {high:.1f}"


def episodes_text(task: str, score: Json) -> str:
    """How many episodes each learner played."""
    return f"{score['episodes']} {episode_word(make_task(task))}"
