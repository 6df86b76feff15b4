"""The index of the zoo: the datasets that come with the package, by name, and what the project's results say of each.

The files lie in the folder `zoo` of the package, and beside them `index.json`, which scripts/zoo.py writes. This module
needs the standard library only.
"""

import dataclasses
import difflib
import functools
import json
import os
import re
from pathlib import Path
from typing import Any

from floppy.errors import FloppyError, check_kind, one_line, shown
from floppy.fields import decode
from floppy.files import MEBIBYTE, as_path, read_file

FOLDER = Path(__file__).resolve().parents[1] / "zoo"
INDEX_NAME = "index.json"
MOST_INDEX = 4 * MEBIBYTE
LIST = "`floppy zoo list` has them all"

_NAME_LIKE = re.compile(r"[\w/@+.-]{1,100}")
"""What could have been meant as a name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stated:
    """What fresh learners of a dataset reach on a task, as the project's results have it."""

    task: str
    """Full task id."""
    unit: str
    """What the score is called: mean return, or accuracy in percent."""
    mean: float
    """Over learners, each of which is a fresh network."""
    sd: float
    """Over learners, of their own means."""
    interval: tuple[float, float]
    """95% interval of the mean."""
    learners: int
    episodes: int
    """Per learner; of labelled images, answers."""
    seed: int
    """Of the evaluation."""
    random: float
    """Score of random play; of labelled images that of answering with the commonest class."""
    ppo: float | None = None
    """Score of plain PPO on the task, trained by this project."""
    published: float | None = None
    """Score that a paper reports."""
    where: str = ""
    """In which paper, and where."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A dataset of the zoo."""

    name: str
    """The shortest one."""
    aliases: tuple[str, ...]
    """Its other names, the one that leaves nothing out first."""
    family: str
    """Of its task: what stands before the slash in its name."""
    file: str
    """Its name in the zoo's folder."""
    sha256: str
    """Of the file."""
    source: str
    """Where the file lies among the project's results."""
    task: str
    """Full task id; of a merged dataset several, joined by `+`."""
    examples: int
    encoder_layers: int
    """How many trained layers the file holds beside its examples."""
    method: str
    """ppmo, hades, hades-f, taught, robust, supervised or merged, see docs/zoo.md."""
    licence: str
    command: str
    """What made it."""
    seed: int | None
    """Of the run that made it."""
    seeds: tuple[int, ...]
    """Of all runs of this command, among which it has the best score."""
    seed_means: tuple[float, ...]
    """Mean score of each of them."""
    versions: tuple[str, ...]
    """Packages that took part, each with its version."""
    teacher: str
    """Which policy it learned to imitate; empty if none."""
    env_steps: int | None
    """Environment steps that went into it, a teacher's among them; of labelled images, images seen."""
    scores: tuple[Stated, ...]
    """One per task."""
    check: tuple[int, int]
    """Learners and episodes with which `floppy zoo verify` scores it again."""
    quick: tuple[int, int]
    """The same with `--quick`."""
    is_quick: bool
    """Whether it is among the few that `--quick` takes where none is named."""

    @property
    def path(self) -> Path:
        """The file."""
        return FOLDER / self.file

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, as in the index."""
        return dataclasses.asdict(self)


@functools.cache
def entries() -> dict[str, Entry]:
    """The zoo by the entries' names, in the order of the index.

    Raises:
      FloppyError: if the index is damaged.
    """
    path = FOLDER / INDEX_NAME
    try:
        found = [_entry(each) for each in json.loads(read_file(path, "the zoo's index", most=MOST_INDEX))]
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise FloppyError(f"{path} is damaged ({one_line(error)}): install floppy-rl again.") from error
    return {entry.name: entry for entry in found}


def _entry(given: dict[str, Any]) -> Entry:
    scores = tuple(decode(Stated, each, "zoo's index") for each in given["scores"])
    entry: Entry = decode(Entry, given | {"scores": []}, "zoo's index")
    return dataclasses.replace(entry, scores=scores)


def names() -> list[str]:
    """The names of the datasets that come with the package."""
    return list(entries())


def entry(name: str) -> Entry:
    """What is known of a dataset of the zoo.

    Args:
      name: one of `names()`, or another name of theirs; capitals do not matter, and neither does `_` in place of `-`.

    Raises:
      FloppyError: if there is none; the nearest ones are offered.
    """
    check_kind("name", name, str, "the name of a dataset of the zoo, as text, such as cartpole")
    found = find(name)
    if found is None:
        raise FloppyError(f"The zoo has no dataset {shown(name)}: did you mean {_nearest(name)}? {LIST}.")
    return found


def find(name: str) -> Entry | None:
    """The dataset of a name, None where there is none."""
    return _by_name().get(_key(name))


def located(path: str | os.PathLike[str]) -> Path:
    """Where a dataset lies: the path of a file as it is; else the file of the zoo's dataset of this name.

    Raises:
      FloppyError: for what is no path, and for what might be a name but is none.
    """
    given = as_path(path)
    if os.path.lexists(given):
        return given
    name = given.as_posix()
    found = find(name)
    if found is not None:
        return found.path
    if given.suffix or given.is_absolute() or not _NAME_LIKE.fullmatch(name):
        return given  # whoever reads it says what is wrong
    raise FloppyError(
        f"{given}: There is no such file, and no dataset of the zoo is called so: give the path of a dataset, or a "
        f"name such as {_nearest(name)}; {LIST}."
    )


def _key(name: str) -> str:
    return name.casefold().replace("_", "-")


@functools.cache
def _by_name() -> dict[str, Entry]:
    return {_key(name): entry for entry in entries().values() for name in (entry.name, *entry.aliases)}


def _nearest(name: str) -> str:
    known = _by_name()
    near = difflib.get_close_matches(_key(name), known, n=3, cutoff=0.5)
    return " or ".join(dict.fromkeys(known[each].name for each in near)) or next(iter(entries()))
