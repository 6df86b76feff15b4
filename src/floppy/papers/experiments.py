"""The list in `experiments.toml` as objects: every score and figure of both papers, and every run of this project.

`floppy reproduce` runs what it says, `scripts/results.py` measures it and writes the pages.
"""

import csv
import dataclasses
import functools
import importlib.resources
import shlex
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from floppy.errors import FloppyError, one_line, shown
from floppy.fields import decode
from floppy.files import MEBIBYTE, read_file

RUN = "run"
"""The first word of a step that is the command of a run."""

MOST_TABLE = 16 * MEBIBYTE
"""Size of a page's table beyond which it is none."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """A score that a paper reports."""

    id: str
    """EXPERIMENT/FOLDER, for the folder into which the experiment's commands distil."""
    paper: str
    where: str
    task: str
    examples: int
    published: float
    """Mean return, or test accuracy in percent."""
    distribution: str = "card"
    """The learners that it is about."""
    others: dict = dataclasses.field(default_factory=dict)
    """Scores of learners of other distributions, by these."""
    run: str = ""
    """The run of this project that answers it, if there is one."""
    taught: str = ""
    """The run that answers it with a teacher's help, if there is one."""
    robust: str = ""
    """The run for learners of all these distributions, if there is one."""

    def as_json(self) -> dict[str, Any]:
        """What `floppy reproduce --cells` says of it."""
        return {
            "cell": self.id,
            "paper": f"{self.paper}, {self.where}",
            "task": self.task,
            "examples": self.examples,
            "published": self.published,
        }

    def figures(self) -> dict[str, float]:
        """All its scores by learner distribution."""
        return {self.distribution: self.published} | self.others

    def each_alone(self) -> "list[Cell]":
        """A score for each learner distribution, if there is a run for all of them: that run answers all."""
        figures = self.figures() if self.robust else {}
        return [
            dataclasses.replace(
                self, id=f"{self.id}-{name}", distribution=name, published=figure, others={}, run=self.robust, taught=""
            )
            for name, figure in figures.items()
        ]


@dataclasses.dataclass(frozen=True)
class Run:
    """A distillation, an imported dataset or a study on a page of results."""

    page: str
    series: str
    """Its name on the page; runs that differ in their seed alone share it."""
    name: str
    """The same with the seed."""
    task: str
    command: str
    """As it is typed, but for the word floppy; `{out}` and `{seed}` are filled in."""
    examples: int = 0
    label: str = ""
    """What its rows are called."""
    seed: int = 0
    cell: str = ""
    """The score of a paper that its rows stand beside."""
    published: float | None = None
    """Such a score that is no cell, and where it is from."""
    where: str = ""
    evaluate: tuple[str, ...] = ()
    """Options of `floppy evaluate`, one text per evaluation; by default the page's."""
    kept: bool = True
    """Whether the dataset is small enough to be part of the project."""
    taught: bool = False
    """Whether a policy was imitated in the making of the dataset."""
    first: tuple[str, ...] = ()
    """Commands that make what it needs."""

    @property
    def id(self) -> str:
        """By which cells and experiments call it, whatever the seed."""
        return f"{self.page}/{self.series}"

    @property
    def kind(self) -> str:
        """The command: distill, import, or that of a study."""
        return self.command.split()[0]

    @property
    def is_study(self) -> bool:
        """Whether it has a table of its own in place of a dataset."""
        return self.kind not in ("distill", "import")

    @property
    def out(self) -> Path:
        """Where it goes, from the root of the repository."""
        if self.is_study:
            return Path("runs/studies") / f"{self.page}-{self.name}"
        return self.dataset if self.kind == "import" else Path("runs") / self.page / self.name

    @property
    def dataset(self) -> Path:
        """The file of its dataset, from the root of the repository."""
        folder = Path("docs/results") if self.kept and self.kind != "import" else Path("runs/large")
        return folder / self.page / f"{self.name}.safetensors"

    @property
    def typed(self) -> str:
        """The command as it is typed."""
        return typed(self.words(self.out))

    @property
    def commands(self) -> list[str]:
        """As they are typed, those of what the run needs first, then its own."""
        return [*(typed(shlex.split(command)) for command in self.first), self.typed]

    def words(self, out: str | Path) -> list[str]:
        """The command's words, for another place to go to."""
        words = [word.format(out=out, seed=self.seed) for word in shlex.split(self.command)]
        if self.seed and "{seed}" not in self.command:
            words[-2:-2] = ["--seed", str(self.seed)]  # before --out
        return words

    def owns(self, row: Mapping[str, str]) -> bool:
        """Whether a row of its page's table is about it."""
        return row["command"] == self.typed if "command" in row else row.get("file") == self.name


@dataclasses.dataclass(frozen=True)
class Page:
    """A page of docs/results."""

    name: str
    tables: str
    """The kind of its tables."""
    evaluate: tuple[str, ...] = ()
    """Options of `floppy evaluate` for its runs."""
    evaluation_seed: int = 0
    networks: dict = dataclasses.field(default_factory=dict)
    """Names of the learners' networks, by learner distribution, or by all options of an evaluation but its seed."""
    names_seed_0: bool = False
    """Whether the seed 0 stands in the names of runs too."""
    runs: tuple[Run, ...] = ()

    def rows(self, results: Path, part: str = "") -> list[dict[str, str]]:
        """The rows of its table in a folder, or of another part of it, as text; none where there is none."""
        path = results / f"{self.name}{part}.csv"
        if not path.exists():
            return []
        try:
            return list(csv.DictReader(read_file(path, "a table", most=MOST_TABLE).decode().splitlines(keepends=True)))
        except (UnicodeDecodeError, csv.Error) as error:
            raise FloppyError(f"{path} is no table ({one_line(error)}): restore it.") from error

    def evaluations(self, run: Run) -> list[str]:
        """Options of each evaluation of a run."""
        seed = f" --seed {self.evaluation_seed}" if self.evaluation_seed else ""
        return [options + seed for options in run.evaluate or self.evaluate]


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table or figure."""

    source: str
    """Where it stands."""
    question: str
    """What it asks."""
    cpu: tuple[str, ...]
    """Commands of minutes to a few hours on one CPU core."""
    paper: tuple[str, ...]
    """The same at the paper's scale."""
    out_of_reach: str = ""
    """What a CPU does not reach of it."""


class Step(NamedTuple):
    """A command of an experiment, and the run whose command it is, if it is one's."""

    words: list[str]
    run: Run | None


@dataclasses.dataclass(frozen=True)
class Experiments:
    """The whole list."""

    cells: dict[str, Cell]
    further: dict[str, Cell]
    """Scores that stand in none of the papers' tables."""
    experiments: dict[str, Experiment]
    pages: dict[str, Page]

    @property
    def of_learners(self) -> dict[str, Cell]:
        """The scores of cells for learners of each distribution, as one run for all of them answers these."""
        return {alone.id: alone for cell in self.cells.values() for alone in cell.each_alone()}

    def runs(self, run_id: str) -> list[Run]:
        """The runs of an id, one per seed."""
        page = self.pages.get(run_id.partition("/")[0])
        return [run for run in page.runs if run.id == run_id] if page else []

    def steps(self, name: str, scale: str, out: str | Path) -> list[Step]:
        """The commands of an experiment, for a folder to write to."""
        experiment = self.experiments[name]
        return [self._step(text, out) for text in (experiment.cpu if scale == "cpu" else experiment.paper)]

    def _step(self, text: str, out: str | Path) -> Step:
        words = [word.format(out=out) for word in shlex.split(text)]
        if words[0] != RUN:
            return Step(words, None)
        run = self.runs(words[1])[0]
        return Step(run.words(words[-1]), run)

    def published(self, run: Run, distribution: str = "card") -> float | None:
        """The published score that a run's row of a learner distribution stands beside."""
        cell = self.cells.get(run.cell)
        return cell.figures().get(distribution, cell.published) if cell else run.published


@functools.cache
def experiments() -> Experiments:
    """The list that comes with the package."""
    return parse(importlib.resources.files(__package__).joinpath("experiments.toml").read_text(encoding="utf-8"))


def parse(text: str) -> Experiments:
    """The list from its text.

    Raises:
      FloppyError: for unknown keys, values of wrong types, names that stand there twice, and names of nothing.
    """
    data = tomllib.loads(text)
    cells, further = (
        [decode(Cell, entry, f"{kind} {entry.get('id')}") for entry in data.get(kind, [])]
        for kind in ("cell", "further")
    )
    pages = [_page(name, entry) for name, entry in data.get("page", {}).items()]
    found = Experiments(
        cells={cell.id: cell for cell in cells},
        further={cell.id: cell for cell in further},
        experiments={name: _experiment(name, entry, data) for name, entry in data["experiment"].items()},
        pages={page.name: page for page in pages},
    )
    _check_names(
        [cell.id for cell in (*cells, *further)], [f"{run.page}/{run.name}" for page in pages for run in page.runs]
    )
    _check_references(found)
    return found


def _page(name: str, entry: dict[str, Any]) -> Page:
    page: Page = decode(Page, {"name": name} | {key: entry[key] for key in entry if key != "runs"}, f"page {name}")
    return dataclasses.replace(page, runs=tuple(run for each in entry["runs"] for run in _series(page, each)))


def _series(page: Page, entry: dict[str, Any]) -> Iterator[Run]:
    """The runs of an entry, one for each of its seeds."""
    rest = {key: entry[key] for key in entry if key not in ("name", "seeds")}
    for seed in entry.get("seeds", [0]):
        name = f"{entry['name']}-seed{seed}" if seed or page.names_seed_0 else entry["name"]
        about = {"page": page.name, "series": entry["name"], "name": name, "seed": seed}
        yield decode(Run, about | rest, f"run {page.name}/{name}")


def _experiment(name: str, entry: dict[str, Any], data: dict[str, Any]) -> Experiment:
    """One experiment, with a command for each of the names that a command stands for."""
    commands = {
        scale: [command for text in entry[scale] for command in _each(text, data.get("names", {}))]
        for scale in ("cpu", "paper")
    }
    reach = entry.get("out_of_reach", "").format_map(data.get("texts", {}))
    experiment: Experiment = decode(Experiment, entry | commands | {"out_of_reach": reach}, f"experiment {name}")
    return experiment


def _each(text: str, names: dict[str, list[str]]) -> list[str]:
    """The commands of a line."""
    for kind, members in names.items():
        if (mark := f"{{{kind}}}") in text:
            return [command for name in members for command in _each(text.replace(mark, name), names)]
    return text.split(" && ")


def _check_names(*lists: list[str]) -> None:
    for names in lists:
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise FloppyError(f"The list of experiments has {shown(twice)} twice: give one of them another name.")


def _check_references(found: Experiments) -> None:
    """Whether every name in the list is one of something in it."""
    steps = [text.split() for each in found.experiments.values() for text in (*each.cpu, *each.paper)]
    cells = found.cells | found.further
    runs = {name for cell in cells.values() for name in (cell.run, cell.taught, cell.robust) if name}
    runs |= {words[1] for words in steps if words[0] == RUN}
    unknown = [run for run in runs if not found.runs(run)]
    unknown += [run.cell for page in found.pages.values() for run in page.runs if run.cell not in ("", *found.cells)]
    unknown += [cell for cell in cells if cell.partition("/")[0] not in found.experiments]
    if unknown:
        raise FloppyError(f"The list of experiments names {shown(unknown[0])}, which is not in it: correct the name.")


def typed(words: list[str]) -> str:
    """A command as it is typed."""
    return shlex.join(["floppy", *words])
