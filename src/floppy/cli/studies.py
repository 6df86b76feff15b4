"""Commands of studies: one per study, whose options are the study's fields; `redraw`, and `reproduce`."""

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, get_type_hints

from floppy.cli.base import Call, Command, Json
from floppy.cli.field_options import Group, Part
from floppy.cli.runs import GROUPS, Kinds, configured, options_of_others
from floppy.errors import FloppyError
from floppy.files import as_path
from floppy.papers import reproduce
from floppy.recipes import ONE_RUN, STAGED
from floppy.run.config import DistillConfig
from floppy.studies import Study, draw_study, read_study, run_study
from floppy.studies.base import FIGURE_NAME, SUMMARY_NAME


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyRun(Command):
    """Any study, with what it shares with the others."""

    kind: ClassVar[type[Study]]
    study: Study
    out: Path | None = None
    """Folder of the study: its table, summary and figure; by default runs/STUDY."""
    resume: bool = False
    """Go on with the study in --out; what was measured stays."""
    overwrite: bool = False
    """Replace the study in --out."""

    @classmethod
    def given(cls, words: list[str]) -> Json:
        """The study's fields are options."""
        return {"study": Part(cls.kind, {})}

    def run(self, call: Call) -> Json:
        """Measures, sums up, draws."""
        folder = as_path(self.out or Path("runs") / self.study.name)
        run_study(
            self.study,
            folder,
            resume=self.resume,
            overwrite=self.overwrite,
            command=call.typed,
            progress=lambda done, count, what: print(f"{done}/{count}: {what}", file=sys.stderr, flush=True),
        )
        return {"study": self.study.name, "folder": str(folder)} | _summary_of(folder)

    def text(self, result: Json) -> str:
        """The summary, and where the figure lies."""
        return study_text(result)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfiguredStudyRun(StudyRun):
    """A study of one configuration, whose fields are options too."""

    positional: ClassVar[tuple[str, ...]] = ("task",)
    groups: ClassVar[tuple[Group, ...]] = GROUPS
    kinds: Kinds = dataclasses.field(default_factory=Kinds)

    @classmethod
    def given(cls, words: list[str]) -> Json:
        """Those of the configuration have the defaults that task and recipe give them."""
        given = configured(words, cls.name)
        return {"study": Part(cls.kind, {"config": given.pop("config")})} | given

    @classmethod
    def elsewhere(cls) -> dict[str, str]:
        """Those of other outer loops and kinds of cloning."""
        return options_of_others()

    def run(self, call: Call) -> Json:
        """As for any study; what the summary holds is also given by itself."""
        if self.kinds.recipe in STAGED:
            raise FloppyError(
                f"{self.name} measures recipes of one run, and recipe {self.kinds.recipe} takes several: give --recipe "
                f"{' or '.join(ONE_RUN)}."
            )
        result = super().run(call)
        return result | result["summary"]


def study_command(kind: type[Study]) -> type[StudyRun]:
    """The command of a study."""
    base = ConfiguredStudyRun if get_type_hints(kind).get("config") is DistillConfig else StudyRun
    return type(kind.__name__, (base,), {"name": kind.name, "kind": kind, "__doc__": kind.__doc__})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Redraw(Command):
    """Rewrites a study's summary and figure from its table."""

    name: ClassVar[str] = "redraw"
    positional: ClassVar[tuple[str, ...]] = ("folder",)
    folder: Path
    """The study's folder, which holds study.json and rows.csv."""

    def run(self, call: Call) -> Json:
        """Sums up and draws."""
        folder = as_path(self.folder)
        draw_study(folder)
        return {"study": read_study(folder).name, "folder": str(folder)} | _summary_of(folder)

    def text(self, result: Json) -> str:
        """As for the study itself."""
        return study_text(result)


@dataclasses.dataclass(frozen=True)
class Reproduce(reproduce.Reproduce, Command):
    """Runs the commands behind a table or figure of the papers; without a name it lists them all."""

    def run(self, call: Call) -> Json:
        """Lists, prints or runs."""
        return self.carry_out(reproduce.run_through(call.main))


def _summary_of(folder: Path) -> Json:
    return {"figure": str(folder / FIGURE_NAME), "summary": json.loads((folder / SUMMARY_NAME).read_bytes())}


def study_text(result: Json) -> str:
    """A study's summary in lines, and where its figure lies."""
    text = "\n".join([*summary_lines(result["summary"]), result["figure"]])
    return text.encode(errors="backslashreplace").decode()  # names of files may hold what no terminal shows


def summary_lines(value: Any, indent: str = "") -> list[str]:
    """A summary in lines: a line per value, a table for entries that have the same plain values."""
    if _is_plain(value):
        return [indent + _shown(value)]
    if isinstance(value, list) and not all(isinstance(entry, Mapping) for entry in value):
        return [line for entry in value for line in summary_lines(entry, indent)]
    if isinstance(value, list):
        rows = [_flat(entry) for entry in value]
        if all(_is_plain(entry) for row in rows for entry in row.values()):
            return _table(rows, indent)
        blocks = [summary_lines(entry, indent) for entry in value]
        return [line for number, block in enumerate(blocks) for line in ([""] if number else []) + block]
    lines = []
    for name, entry in value.items():
        said = str(name).replace("_", " ")
        if _is_plain(entry):
            lines.append(f"{indent}{said}: {_shown(entry)}")
        else:
            lines += [f"{indent}{said}:", *summary_lines(entry, indent + "  ")]
    return lines


def _table(rows: Sequence[Mapping[str, Any]], indent: str) -> list[str]:
    """Rows below each other; a row may lack some of the columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    cells = [[name.replace("_", " ") for name in names]]
    cells += [[_shown(row[name]) if name in row else "" for name in names] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        indent + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


def _flat(row: Mapping[str, Any]) -> dict[str, Any]:
    """An entry in which objects have become several columns."""
    parts = (
        {f"{name} {key}": each for key, each in value.items()} if isinstance(value, Mapping) else {name: value}
        for name, value in row.items()
    )
    return {name: value for part in parts for name, value in part.items()}


def _is_plain(value: Any) -> bool:
    """Whether a value fits into a line: no object, and no list of objects."""
    return not isinstance(value, Mapping) and not (
        isinstance(value, list) and any(isinstance(entry, Mapping | list) for entry in value)
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        # Intervals are lists of two numbers.
        return (" to " if len(value) == 2 else ", ").join(map(_shown, value))
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)
