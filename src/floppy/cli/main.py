"""The command line. Results go to stdout, progress and complaints to stderr; bad input is one sentence and exit code 2.

Every command is a dataclass: its fields are the options, its `run` does the work and returns what `--json` prints. This
module knows where commands are and imports none of them, nor JAX, before one is run.
"""

import ast
import contextlib
import importlib
import os
import shlex
import signal
import sys
import time
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from floppy.cli.interrupts import INTERRUPTED, USER_ERROR, leave_at_once, prompt_interrupts
from floppy.cli.output import keep_stdout
from floppy.errors import FloppyError, raised, shown, text_of
from floppy.studies.registry import STUDIES

RESUMABLE = ("distill", "baseline", "reproduce")
"""Commands that go on with --resume after Ctrl-C, as every study does."""

HOMES = {
    "distill": "runs:Distill",
    "train": "datasets:Train",
    "evaluate": "datasets:Evaluate",
    "baseline": "runs:Baseline",
    "import": "datasets:Import",
    "export": "exports:ExportDataset",
    "show": "datasets:Show",
    "tasks": "datasets:Tasks",
    "merge": "datasets:Merge",
    "redraw": "studies:Redraw",
    "reproduce": "studies:Reproduce",
    "report": "report:Report",
    "zoo": "zoo:Zoo",
    "completion": "datasets:Completion",
}
"""Commands that are no studies by name: the module in this folder, and the class."""


class Commands(Mapping[str, Any]):
    """The commands by name, imported when they are asked for; every study is one."""

    def __getitem__(self, name: str) -> Any:
        if name in HOMES:
            return _member(HOMES[name])
        return _member("studies:study_command")(STUDIES[name])

    def __contains__(self, name: object) -> bool:
        return name in HOMES or name in STUDIES

    def __iter__(self) -> Iterator[str]:
        yield from HOMES
        yield from STUDIES

    def __len__(self) -> int:
        return len(HOMES) + len(STUDIES)

    def summary(self, name: str) -> str:
        """What a command does, in a sentence: the first line of its docstring, read from the source."""
        if name not in HOMES:
            return STUDIES.summary(name)
        module, _, wanted = HOMES[name].partition(":")
        tree = ast.parse(Path(__file__).with_name(f"{module}.py").read_text(encoding="utf-8"))
        texts = [
            ast.get_docstring(node) for node in tree.body if isinstance(node, ast.ClassDef) and node.name == wanted
        ]
        return (texts[0] or "").partition("\n")[0]


def _member(home: str) -> Any:
    module, _, name = home.partition(":")
    return getattr(importlib.import_module(f"floppy.cli.{module}"), name)


COMMANDS = Commands()


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None:
        keep_stdout()
    try:
        with _faults_of_closing() as faults:
            said, code = _answer(words)
            if said:
                print(said, flush=True)
        for fault in faults:
            if "--traceback" in words:
                traceback.print_exception(fault.__cause__)
            print(f"floppy: {fault}", file=sys.stderr)
        return USER_ERROR if faults else code
    except SystemExit as stop:  # a command's --help
        return int(stop.code or 0)
    except BrokenPipeError:  # the reader of stdout, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    except FloppyError as error:
        if "--traceback" in words:
            traceback.print_exc()
        print(f"floppy: {text_of(error)}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:  # a disk that is full, a name that is too long: what the library did not foresee
        if "--traceback" in words:
            traceback.print_exc()
        print(f"floppy: Reading or writing failed ({text_of(error)}): check the path.", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print(f"floppy: {_interrupted(words)}", file=sys.stderr)
        return INTERRUPTED
    finally:
        if arguments is None:
            sys.stdout = sys.stderr  # environments may print when they are thrown away


def program() -> int:
    """Runs the command of the process's own words; returns the exit code. It can be interrupted at any moment."""
    with prompt_interrupts(lambda: _interrupted(sys.argv[1:])) as interrupts:
        code = main()
        interrupts.is_answered.set()
        leave_at_once(code)
        return code


def _interrupted(words: Sequence[str]) -> str:
    again = (
        "; the same command with --resume goes on" if words and (words[0] in RESUMABLE or words[0] in STUDIES) else ""
    )
    return f"interrupted{again}"


@contextlib.contextmanager
def _faults_of_closing() -> Iterator[list[Warning]]:
    """What is to be said of environments that failed when closed; the result is printed before it."""
    said: list[Warning] = []
    with warnings.catch_warnings():
        before = warnings.showwarning

        def note(message: Any, category: Any, *place: Any, **options: Any) -> None:
            if category.__name__ == "FaultyEnvironmentWarning":  # its class would bring JAX
                said.extend([message] if str(message) not in map(str, said) else [])
            else:
                before(message, category, *place, **options)

        warnings.showwarning = note
        warnings.filterwarnings("always", message=".* (called sys.exit when closed|did not return from close )")
        yield said


def overview() -> str:
    """The commands, a line each."""
    lines = [f"  {name:<14}{COMMANDS.summary(name)}" for name in HOMES]
    studies = [f"  {name:<14}{COMMANDS.summary(name)}" for name in STUDIES]
    last = "`floppy COMMAND --help` lists a command's options."
    return "\n".join(["usage: floppy COMMAND [options]", "", *lines, "", "Studies:", *studies, "", last])


def _answer(words: list[str]) -> tuple[str, int]:
    """What is to be printed, and the exit code."""
    if not words or words[0] in ("-h", "--help", "help"):
        return overview(), 0
    if words[0] == "--version":
        return metadata.version("floppy-rl"), 0
    began = time.monotonic()
    with _useless_settings_said():
        from floppy.cli.base import Call, carry_out  # with them come JAX and tyro

        call = Call(shlex.join(["floppy", *words]), main, COMMANDS, began)
        return carry_out(words[0], words[1:], call)


@contextlib.contextmanager
def _useless_settings_said() -> Iterator[None]:
    """Says it in a sentence where nothing can be computed; only what fails has JAX tried, for it may need no device.

    Raises:
      FloppyError: in place of an unforeseen error, where JAX cannot even add two numbers.
    """
    try:
        yield
    except (FloppyError, OSError):
        raise
    except Exception as error:
        try:
            import jax.numpy as jnp

            float(jnp.asarray(1.0) + 1.0)
        except Exception as fault:
            raise _useless_settings(fault) from error
        raise


def _useless_settings(fault: Exception) -> FloppyError:
    """The complaint about variables with which JAX fails; it does not always tell which of them is wrong."""
    given = [f"{name}={shown(value)}" for name, value in sorted(os.environ.items()) if name.startswith("JAX_")]
    if not given:
        return FloppyError(
            f"JAX cannot compute here ({raised(fault)}): set JAX_PLATFORMS=cpu, or repair its installation."
        )
    which = "it" if len(given) == 1 else "the wrong one"
    return FloppyError(f"JAX cannot compute with {' and '.join(given)} ({raised(fault)}): unset or correct {which}.")
