"""The command that writes a page about a dataset."""

import dataclasses
import sys
from pathlib import Path
from typing import Any, ClassVar

from floppy.cli.base import Call, Command, Json
from floppy.files import size_text
from floppy.report import write_report
from floppy.report.report import SECONDS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report(Command):
    """Writes one HTML file that shows a dataset: its examples, how policies play, what they score, and the data.

    The file needs no network and no other file, and holds no scripts.
    """

    name: ClassVar[str] = "report"
    positional: ClassVar[tuple[str, ...]] = ("source",)
    source: Path
    """The folder of a run, the file of a dataset, or the name of one that comes with the package."""
    out: Path | None = None
    """The file to write; by default report.html, in the folder of a run."""
    learners: int | None = None
    """Fresh learners of each score; by default 32, or 8 where Python steps the environments."""
    episodes: int | None = None
    """Per learner; by default 4, or 500 labelled images."""
    quick: bool = False
    """Leave out the slower parts: which example matters, what policies do where, other networks."""
    seconds: float = SECONDS
    """Of processor time: parts that would go beyond are left out, as far as the pace of those before says so."""
    seed: int = 0
    """Of initial weights and episodes."""
    overwrite: bool = False
    """Replace the file of --out."""

    def run(self, call: Call) -> Json:
        """Measures and writes."""
        options: dict[str, Any] = {
            name: getattr(self, name) for name in ("learners", "episodes", "quick", "seconds", "seed", "overwrite")
        }
        path = write_report(self.source, self.out, say=_say, **options)
        return {"source": str(self.source), "report": str(path), "bytes": path.stat().st_size}

    def text(self, result: Json) -> str:
        """Where it lies, and how large it is."""
        return f"{result['report']} ({size_text(result['bytes'])})"


def _say(what: str) -> None:
    print(f"  {what}", file=sys.stderr, flush=True)
