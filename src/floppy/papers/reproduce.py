"""`floppy reproduce`: the commands behind a table or figure of the papers, their scores beside the published ones."""

import contextlib
import dataclasses
import io
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from tyro.conf import Positional, arg

from floppy.errors import FloppyError, must_be_one_of, one_line
from floppy.files import MEBIBYTE, append_to, as_path, read_file, write_atomically
from floppy.papers.cells import Answer, answers, count_reached, evaluation_of, mean_of, rescored, row_of
from floppy.papers.experiments import Cell, Experiments, Run, Step, experiments, typed
from floppy.studies.base import plain_json

Json = dict[str, Any]
RunCommand = Callable[[list[str]], Json]
"""Runs a command, given by its words, and gives what it prints as JSON."""

RESULTS_NAME = "results.jsonl"
"""A line per command that has ended: `command` and `result`."""

MOST_RESULTS = 64 * MEBIBYTE
"""Size of `results.jsonl` beyond which it is none."""


@dataclasses.dataclass(frozen=True)
class Reproduce:
    """Runs the commands behind a table or figure of the papers; without a name it lists them all."""

    name: ClassVar[str] = "reproduce"
    experiment: Annotated[Positional[str], arg(name="name")] = ""
    """Such as ppmo-table1; left out, the list of names."""
    scale: Literal["cpu", "paper"] = "cpu"
    """cpu: minutes to a few hours on one core. paper: the paper's own sizes and budgets."""
    dry_run: bool = False
    """Print the commands and the published figures, and run nothing."""
    out: Path | None = None
    """Folder of the runs; by default runs/reproduce/NAME-SCALE."""
    resume: bool = False
    """Go on with what is in --out; commands that have ended are not run again."""
    results: Path | None = None
    """Folder of this project's tables (docs/results), whose scores are then shown beside the published figures."""
    cells: bool = False
    """Print every score of both papers beside this project's, as the tables in --results have them."""
    rescore: bool = False
    """With --cells: evaluate the datasets in --results again, and print how far that is from the tables."""
    json: bool = False
    """Print exactly one JSON object."""

    def carry_out(self, run_command: RunCommand) -> Json:
        """Lists, prints or runs.

        Args:
          run_command: runs one of the experiment's commands; `run_through` makes it of the command line's entry.

        Returns:
          What `--json` prints.

        Raises:
          FloppyError: for a name that is none, a folder that is taken, or a command that failed.
          KeyboardInterrupt: after Ctrl-C.
        """
        found = experiments()
        tables = self._tables()
        if self.cells:
            return self._cells(found, tables, run_command)
        if not self.experiment:
            about = found.experiments.items()
            return {"experiments": [{"name": name, "source": e.source, "question": e.question} for name, e in about]}
        if self.experiment not in found.experiments:
            raise must_be_one_of("name", self.experiment, found.experiments)
        experiment = found.experiments[self.experiment]
        out = as_path(self.out or Path("runs/reproduce") / f"{self.experiment}-{self.scale}")
        steps = found.steps(self.experiment, self.scale, out)
        results = {} if self.dry_run else run_all([step.words for step in steps], out, self.resume, run_command)
        return {
            "name": self.experiment,
            "source": experiment.source,
            "question": experiment.question,
            "scale": self.scale,
            "commands": [{"command": typed(s.words), "result": results.get(typed(s.words))} for s in steps],
            "figures": figures(found, self.experiment, steps, results, tables),
            "out_of_reach": experiment.out_of_reach if self.scale == "cpu" else "",
        }

    def _tables(self) -> Path | None:
        """The folder of this project's tables, if one is given."""
        tables = as_path(self.results) if self.results else None
        if tables and not tables.is_dir():
            raise FloppyError(f"results must be the folder of this project's tables, got {tables}.")
        if self.rescore and not self.cells:
            raise FloppyError("--rescore is for --cells: give both.")
        if self.cells and (self.experiment or not tables):
            what = f"not {self.experiment} as well" if self.experiment else "and their folder: --results docs/results"
            raise FloppyError(f"--cells is about all scores: give it alone, {what}.")
        return tables

    def _cells(self, found: Experiments, tables: Path | None, run_command: RunCommand) -> Json:
        """All scores of both papers, and what evaluating the datasets again says."""
        assert tables is not None, "checked before"
        known = answers(found, tables)
        again: dict[str, Json] = {}
        if self.rescore:
            out = as_path(self.out or Path("runs/reproduce/cells"))
            again = run_all(evaluations(known, tables), out, self.resume, run_command)
        cells, further = (
            [row for cell in each.values() for row in cell_rows(cell, known[cell.id], tables, again)]
            for each in (found.cells, found.further | found.of_learners)
        )
        reached = count_reached({name: known[name] for name in found.cells})
        return {"cells": cells, "further": further, "count": len(found.cells), "reached": reached}

    def text(self, result: Json) -> str:
        """What is asked, the commands with what they found, the published figures, what is out of reach."""
        if "cells" in result:
            return cells_text(result)
        if "experiments" in result:
            lines = [f"{each['name']:<17}{each['source']}: {each['question']}" for each in result["experiments"]]
            return "\n".join([*lines, "", "`floppy reproduce NAME --dry-run` prints the commands behind one of them."])
        lines = [f"{result['source']}: {result['question']}", ""]
        for entry in result["commands"]:
            lines.append(entry["command"])
            lines += [] if entry["result"] is None else [f"  {_outcome(entry['result'])}"]
        if result["figures"]:
            lines += ["", "published | recorded by this project | here"]
            lines += [
                f"  {each['what']}: {each['published']:g} | {_score(each['recorded'])} | {_score(each['here'])}"
                for each in result["figures"]
            ]
        if result["out_of_reach"]:
            lines += ["", f"Out of a CPU's reach: {result['out_of_reach']}."]
        return "\n".join(lines)


def run_all(commands: list[list[str]], out: Path, resume: bool, run_one: RunCommand) -> dict[str, Json]:
    """Runs commands one after the other; gives their results by the commands as they are typed.

    Raises:
      FloppyError: for a folder that is taken, or a command that failed.
      KeyboardInterrupt: after Ctrl-C.
    """
    if out.exists() and not resume:
        raise FloppyError(f"{out} exists: give --resume to go on with it, or another --out.")
    results = read_results(out)
    for number, words in enumerate(commands, start=1):
        command = typed(words)
        if command in results:
            continue
        print(f"{number}/{len(commands)}: {command}", file=sys.stderr, flush=True)
        results[command] = run_one([*words, *_going_on(words)])
        line = json.dumps(plain_json({"command": command, "result": results[command]}), allow_nan=False)
        _make_folder(out)
        append_to(out / RESULTS_NAME, line + "\n")
    return results


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FloppyError(f"{out} cannot be made ({one_line(error)}): give another --out.") from error


def run_through(main: Callable[[list[str]], int]) -> RunCommand:
    """A runner of commands made of the command line's entry, which is given words and returns an exit code."""

    def run_one(words: list[str]) -> Json:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main([*words, "--json"])
        if code == 130:
            raise KeyboardInterrupt
        if code:
            raise FloppyError(f"`{typed(words)}` failed: mend what it says above, then give --resume.")
        result: Json = json.loads(said.getvalue())
        if result.get("interrupted"):  # it saved what it had and ended well, and is to be gone on with
            raise KeyboardInterrupt
        return result

    return run_one


def read_results(out: Path) -> dict[str, Json]:
    """The results of commands that have ended, by these commands; a last line that was cut short is dropped.

    Raises:
      FloppyError: for a file that holds something else.
    """
    path = out / RESULTS_NAME
    if not path.exists():
        return {}
    data = read_file(path, "a list of results", most=MOST_RESULTS)
    whole = data[: data.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.decode().split("\n") if line]
        results = {line["command"]: dict(line["result"]) for line in lines}
        if whole != data:
            write_atomically(path, whole)
        return results
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, FloppyError):
            raise
        raise FloppyError(f"{path} cannot be read ({one_line(error)}): remove it, or give another --out.") from error


def figures(
    found: Experiments, name: str, steps: list[Step], results: dict[str, Json], tables: Path | None
) -> list[Json]:
    """Published figures of the distillations among an experiment's steps, beside recorded scores and those found here.

    A distillation at the paper's scale stands beside the same figures as the one into the same folder on a CPU. Its own
    score is of the learners that the figure is about; those of other distributions come from an evaluation.

    Args:
      found: the list of experiments.
      name: of the experiment.
      steps: its commands.
      results: what commands gave, by these as they are typed.
      tables: folder of this project's tables, if recorded scores are wanted.
    """
    on_cpu = {Path(step.words[-1]).name: step.run for step in found.steps(name, "cpu", "") if step.run}
    rows = []
    for words, _ in (step for step in steps if step.words[0] == "distill"):
        folder = Path(words[-1])
        run = on_cpu.get(folder.name)
        cell = found.cells.get(run.cell if run and run.cell else f"{name}/{folder.name}")
        if cell is None:
            continue
        run = run or next(iter(found.runs(cell.run)), None)
        here = _scores_here(words, cell, steps, results)
        for distribution, published in cell.figures().items():
            what = f"{folder.name}, distribution {distribution}" if cell.others else folder.name
            recorded = _recorded(found, run, distribution, tables) if run and tables else None
            score = here.get(distribution)
            rows.append(
                {"what": what, "published": float(published), "recorded": recorded, "here": score and score["mean"]}
            )
    return rows


def _scores_here(words: list[str], cell: Cell, steps: list[Step], results: dict[str, Json]) -> dict[str, Json]:
    """By learner distribution: the score of a distillation, then what an evaluation of its dataset says."""
    own = results.get(typed(words), {})
    scores: dict[str, Json] = {cell.distribution: own["score"]} if "score" in own else {}
    for other, _ in steps:
        if other[0] == "evaluate" and Path(other[1]).parent == Path(words[-1]):
            scores |= results.get(typed(other), {}).get("distributions", {})
    return scores


def _recorded(found: Experiments, run: Run, distribution: str, tables: Path) -> float | None:
    """The mean score in this project's table."""
    row = row_of(found.pages[run.page], run, distribution, tables)
    return mean_of(row) if row else None


def evaluations(known: Mapping[str, list[Answer]], tables: Path) -> list[list[str]]:
    """The commands that score the datasets of all answers again, as far as they are kept."""
    words = [evaluation_of(answer, run, tables) for each in known.values() for answer in each for run in answer.runs]
    return [each for each in words if Path(each[1]).exists()]


def cell_rows(cell: Cell, found: list[Answer], tables: Path, again: Mapping[str, Json]) -> list[Json]:
    """A row per answer to a published score; one without an answer's figures where there is none.

    Args:
      cell: the score.
      found: what answers it.
      tables: folder of this project's tables.
      again: what evaluations of the datasets gave, by the commands as they are typed.
    """
    if not found:
        return [cell.as_json()]
    rows = []
    for answer in found:
        results = [again.get(typed(evaluation_of(answer, run, tables))) for run in answer.runs]
        scores = [next(iter(result["distributions"].values())) for result in results if result]
        whole = len(scores) == len(answer.runs)
        rows.append(answer.as_json() | ({"again": rescored(answer, scores)} if whole else {}))
    return rows


def cells_text(result: Json) -> str:
    """A line per answer, and how many scores are reached."""
    lines = [f"{'score':<43}{'k':>4}{'published':>11}{'ours':>11}  interval"]
    for row in (*result["cells"], *result["further"]):
        head = f"{row['cell']:<43}{row['examples']:>4}{row['published']:>11,}"
        lines.append(head + (_answer_text(row) if "mean" in row else f"{'-':>11}"))
    said = f"{result['reached']} of the papers' {result['count']} scores are at or above the published one."
    return "\n".join([*lines, "", said])


def _answer_text(row: Json) -> str:
    low, high = row["interval"]
    seeds = f"{len(row['seeds'])} seeds" if len(row["seeds"]) > 1 else f"{row['learners']} learners"
    facts = [f"{row['mean']:>11,.1f}  {low:,.1f} to {high:,.1f} ({seeds})"]
    facts += ["taught"] if row["taught"] else []
    facts += [f"{row['env_steps'] / 1e6:.1f} M steps"] if row["env_steps"] else []
    facts += [f"{row['seconds'] / 60:.0f} min"] if row["seconds"] else []
    if again := row.get("again"):
        facts.append(f"again {again['mean']:,.1f}, {again['standard_errors']:+.1f} standard errors")
    return ", ".join(facts)


def _going_on(words: list[str]) -> list[str]:
    """Options for what an earlier call has left of a command that did not end."""
    option = "-o" if words[0] == "merge" else "--out"
    if option not in words or not Path(words[words.index(option) + 1]).exists():
        return []
    return ["--overwrite"] if words[0] == "merge" else ["--resume"]


def _score(mean: float | None) -> str:
    return "-" if mean is None else f"{mean:.1f}"


def _outcome(result: Json) -> str:
    """The gist of a command's result."""
    scores = result.get("distributions", {"score": result["score"]} if "score" in result else {})
    if scores:
        return ", ".join(f"{name} {score['mean']:.1f} ± {score['sd']:.1f}" for name, score in scores.items())
    return str(result.get("figure") or result.get("dataset") or result.get("task") or "done")
