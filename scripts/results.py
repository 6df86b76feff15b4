"""Regenerates docs/results, and tables of README and FAQ: `python scripts/results.py distill`, then `evaluate`, `page`.

src/floppy/papers/experiments.toml lists the runs. Each stage leaves out what is there already. `--page brax` keeps to
one page, `--only brax/hopper` to runs whose PAGE/NAME holds this text; so two of them can share a machine, each on a
core of its own: `taskset -c 0 python scripts/results.py distill --only hades/r-breakout`. The papers' own datasets lie
in ../shared/reference, which is no part of this project, and so do the files of MNIST and Fashion-MNIST, if FLOPPY_DATA
does not name another folder.
"""

import argparse
import csv
import dataclasses
import functools
import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from _tables import COLUMNS, SUMMARY_TABLES, TABLES, papers_counts, papers_readme, papers_tables

from floppy import DistilledDataset, load, parse_distribution
from floppy.papers.experiments import Page, Run, experiments
from floppy.studies.base import ROWS_NAME, STUDY_NAME

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
README = ROOT / "README.md"
FAQ = ROOT / "docs" / "faq.md"
MARK = "<!-- tables: written by scripts/results.py -->"
FLOPPY = Path(sys.executable).with_name("floppy")
RANDOM_EPISODES = 400
Row = dict[str, Any]


def floppy(words: Iterable[str | Path]) -> None:
    """Runs a command from the root of the repository."""
    subprocess.run([FLOPPY, *words], cwd=ROOT, check=True)


def answer_of(words: Iterable[str | Path]) -> Row:
    """What a command prints as JSON."""
    done = subprocess.run([FLOPPY, *words, "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
    answer: Row = json.loads(done.stdout)
    return answer


def is_wanted(run: Run, only: str) -> bool:
    return only in f"{run.page}/{run.name}"


# Stage distill.


def distill_page(page: Page, only: str) -> None:
    """Runs, or resumes, every distillation whose dataset is not there yet."""
    for run in page.runs:
        if run.kind == "distill" and is_wanted(run, only) and not (ROOT / run.dataset).exists():
            distill(run)


def distill(run: Run) -> None:
    folder, words = ROOT / run.out, run.words(run.out)
    resumed = folder.exists()
    prepare(run)
    print(run.typed, flush=True)
    result = answer_of([*words, "--resume"] if resumed else words)
    if resumed:
        del result["seconds"]  # they are those of the last part
    (folder / "result.json").write_text(json.dumps(result))
    (ROOT / run.dataset).parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(folder / "dataset.safetensors", ROOT / run.dataset)


def prepare(run: Run) -> None:
    """Makes, or goes on with, what a run needs and is not there yet."""
    for command in run.first:
        words = shlex.split(command)
        out = ROOT / words[words.index("--out") + 1]
        if not (out if out.suffix == ".safetensors" else out / "dataset.safetensors").exists():
            floppy([*words, "--resume"] if out.exists() else words)


# Stage evaluate.


def evaluate_page(page: Page, only: str) -> None:
    """Evaluates every dataset, then writes the CSV of all answers; measures studies whose table is not kept yet."""
    if page.tables == "studies":
        for run in page.runs:
            if is_wanted(run, only) and not (kept_study(run) / ROWS_NAME).exists():
                measure(run)
        return
    known = page.rows(RESULTS)
    rows: list[Row] = []
    for run in page.runs:
        earlier = [of_columns(page, row) for row in known if run.owns(row)]  # what was not asked for stays
        rows += result_rows(page, run, only, earlier) or earlier
    write_rows(rows, RESULTS / f"{page.name}.csv")
    if page.name in CURVES:
        write_curves(page)


def kept_study(run: Run) -> Path:
    return RESULTS / "studies" / f"{run.page}-{run.name}"


def measure(run: Run) -> None:
    """Runs, or goes on with, a study."""
    folder = ROOT / run.out
    if (folder / STUDY_NAME).exists():
        floppy([*run.words(run.out), "--resume"])
    else:
        prepare(run)
        floppy(run.words(run.out))
    kept_study(run).mkdir(parents=True, exist_ok=True)
    for name in (STUDY_NAME, ROWS_NAME):
        shutil.copy(folder / name, kept_study(run))


def result_rows(page: Page, run: Run, only: str, earlier: list[dict[str, str]]) -> list[Row]:
    """One row per learner distribution; none for a run that is not asked for and has changed, or is not there."""
    path = ROOT / run.dataset
    if run.kind == "import" and is_wanted(run, only) and not path.exists() and (ROOT / run.words("")[1]).exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        floppy(run.words(run.out))
    scores = []
    for number, options in enumerate(page.evaluations(run)):
        answer = ROOT / "runs" / run.page / run.name / f"evaluation-{number}.json"
        found = evaluation(path, options, answer, wanted=is_wanted(run, only))
        if found is None:
            return []
        scores += [(options, distribution, score) for distribution, score in found.items()]
    dataset = load(path)
    took = what_it_took(run, dataset, earlier)
    rows = [facts(page, run, dataset, *score) | took for score in scores]
    print(run.name, [round(row["mean"], 1) for row in rows], file=sys.stderr, flush=True)
    return [of_columns(page, row) for row in rows]


def of_columns(page: Page, row: Mapping[str, Any]) -> Row:
    """What a row says of the columns that a page's CSV has; older ones do not say which score the worst network had."""
    return {name: row.get(name, "") if name == "worst" else row[name] for name in COLUMNS[page.tables]}


def evaluation(path: Path, options: str, answer: Path, *, wanted: bool) -> Row | None:
    """What `floppy evaluate` says of a dataset, by distribution; asked again if dataset or options have changed."""
    known = json.loads(answer.read_text()) if answer.exists() else {}
    is_old = path.exists() and known.get("asked") != [options, path.stat().st_mtime]
    if is_old and wanted:
        answer.parent.mkdir(parents=True, exist_ok=True)
        said = answer_of(["evaluate", path.relative_to(ROOT), *shlex.split(options)])
        known = {"asked": [options, path.stat().st_mtime]} | said
        answer.write_text(json.dumps(known))
    if (is_old and not wanted) or not known:
        print(f"left out, not evaluated: {path.stem}", file=sys.stderr)
        return None
    distributions: Row = known["distributions"]
    return distributions


def facts(page: Page, run: Run, dataset: DistilledDataset, options: str, distribution: str, score: Row) -> Row:
    """Whatever a table may say of a score; a page's CSV has the columns of its kind."""
    card, own = dataset.card, distribution == "card"
    learner = card.learners[0] if own else dataclasses.asdict(parse_distribution(distribution))
    published = experiments().published(run, distribution)
    cell = experiments().cells.get(run.cell)
    low, high = score["ci95"]
    return score | {
        "command": run.typed,
        "file": run.name,
        "set": run.label,
        "method": run.label,
        "task": run.task,
        "dimensions": run.task.rpartition("/")[2],
        "examples": dataset.examples,
        "floats": dataset.describe()["floats"],
        "encoder_layers": (card.encoder or {}).get("layers", 0),
        "distillation_seed": run.seed,
        "distribution": distribution,
        "network": page.networks.get(options.partition(" --seed ")[0], page.networks.get(distribution, "")),
        "width": learner["width"][0],
        "own_draw": learner.get("init_seed", -1) >= 0,
        "options": options,
        "ci_low": low,
        "ci_high": high,
        "random": random_score(card.task) if "random" in COLUMNS[page.tables] else "",
        "published": published,
        "paper": published if own or (cell and distribution in cell.figures()) else "",
        "score": run.where,
    }


@functools.cache
def random_score(task: str) -> float:
    """Mean return of uniformly random actions, asked for once."""
    answer = ROOT / "runs" / "random" / f"{task.replace('/', '-')}.json"
    if not answer.exists():
        answer.parent.mkdir(parents=True, exist_ok=True)
        options = f"--method random --episodes {RANDOM_EPISODES} --seed 1000"
        answer.write_text(json.dumps(answer_of(["baseline", task, *options.split()])))
    mean: float = json.loads(answer.read_text())["score"]["mean"]
    return mean


def what_it_took(run: Run, dataset: DistilledDataset, earlier: list[dict[str, str]]) -> Row:
    """Outer and environment steps from the log of a run; seconds from its result or else its logs, if they have them.

    Environment steps of runs before it, a teacher's among them, count where its card knows them. Of a run whose folder
    is gone, what the table says already; of an imported dataset nothing.
    """
    if run.kind == "import" or (earlier and not (ROOT / run.out / "metrics.jsonl").exists()):
        known = earlier[0] if earlier else {}
        return {name: known.get(name, "") for name in ("outer_steps", "env_steps", "seconds")}
    log, result = read_log(run), ROOT / run.out / "result.json"
    stages = [read_log_of(path) for path in sorted((ROOT / run.out).glob("*/metrics.jsonl"))]
    ends = [each[-1] for each in (*stages, log) if each]
    is_timed = bool(ends) and all("seconds" in end for end in ends)
    seconds = sum(end["seconds"] for end in ends) if is_timed else ""
    if result.exists() and not stages:
        seconds = json.loads(result.read_text()).get("seconds", seconds)
    return {
        "outer_steps": len(log),
        "env_steps": int(sum(line["env_steps"] for line in log))
        + (dataset.card.algorithm.get("env_steps_before") or 0),
        "seconds": seconds,
    }


def read_log(run: Run) -> list[Row]:
    """The steps of a run; none if its folder is gone."""
    return read_log_of(ROOT / run.out / "metrics.jsonl")


def read_log_of(path: Path) -> list[Row]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def write_curves(page: Page) -> None:
    """How the runs of a page went; of a run whose folder is gone, what the table says already."""
    known = page.rows(RESULTS, "-curves")
    rows: list[Row] = []
    for run in page.runs:
        log = read_log(run)
        rows += CURVES[page.name](run, log) if log else [row for row in known if row["run"] == run.name]
    write_rows(rows, RESULTS / f"{page.name}-curves.csv")


def image_curve(run: Run, log: list[Row]) -> list[Row]:
    """Accuracies on held-out images while a dataset was made."""
    scored = [step for step in log if step.get("selection_score") is not None]
    return [{"run": run.name, "outer_step": s["step"], "accuracy": s["selection_score"]} for s in scored]


def game_curve(run: Run, log: list[Row]) -> list[Row]:
    """How a game was learnt, in the quarters of a run; of evolution the fitness is the return."""
    log = [{"episode_return": step["fitness"], "episodes": 1} | step if "fitness" in step else step for step in log]
    quarters = [log[len(log) * q // 4 : len(log) * (q + 1) // 4] for q in range(4)]
    row: Row = {"run": run.name, "env_steps": int(sum(step["env_steps"] for step in log))}
    for name in ("episode_return", "selection_score"):
        for number, quarter in enumerate(quarters, start=1):
            # Most steps have no selection, and the return of a step in which no episode ended means nothing.
            counted = quarter if name == "selection_score" else [step for step in quarter if step["episodes"]]
            values = [step[name] for step in counted if step.get(name) is not None]
            row[f"{name} {number}"] = sum(values) / len(values) if values else ""
    return [row]


CURVES = {"images": image_curve, "atari": game_curve}
"""By page."""


def write_rows(rows: list[Row], table: Path) -> None:
    if not rows:
        sys.exit("no dataset has been evaluated: run the stage distill first")
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


# Stage page.


def write_page(page: Page) -> None:
    """Puts the tables made from the CSV, and the commands of its rows, below the mark on a page."""
    path = RESULTS / f"{page.name}.md"
    rows = page.rows(RESULTS)
    parts = [path.read_text().split(MARK)[0] + MARK, *TABLES[page.tables](page, rows, RESULTS)]
    if rows and "command" in rows[0]:
        owners = [run for run in page.runs if any(run.owns(row) for row in rows)]
        commands = dict.fromkeys(command for run in owners for command in run.commands)  # seeds share what is first
        parts.append("### Commands\n\n```text\n" + "\n".join(commands) + "\n```")
    path.write_text("\n\n".join(parts) + "\n")


def write_papers() -> None:
    """Puts all scores of both papers, beside those of this project, on the page about them, some into the README."""
    path, found = RESULTS / "papers.md", experiments()
    parts = [path.read_text().split(MARK)[0] + MARK, *papers_tables(found, RESULTS)]
    path.write_text("\n\n".join(parts) + "\n")
    put_table(README, "page", papers_readme(found, RESULTS))
    put_table(FAQ, "page", papers_counts(found, RESULTS))


def write_summary(kind: str) -> None:
    """Replaces the table of one kind of pages on the page that sums up the results."""
    pages = [page for page in experiments().pages.values() if page.tables == kind]
    names = " ".join(page.name for page in pages)
    rows = [row for page in pages for row in page.rows(RESULTS)]
    put_table(RESULTS / "index.md", f"page --page {names}", SUMMARY_TABLES[kind](rows))


def put_table(path: Path, words: str, table: str) -> None:
    """Replaces a table between its marks, which name the script's words that write it."""
    start, end = f"<!-- table: written by scripts/results.py {words} -->", "<!-- end of table -->"
    before, rest = path.read_text().split(start)
    path.write_text(f"{before}{start}\n\n{table}\n\n{end}{rest.split(end, 1)[1]}")


def main() -> None:
    pages = experiments().pages
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["distill", "evaluate", "page"])
    parser.add_argument("--page", nargs="+", choices=list(pages), default=list(pages), help="keep to these pages")
    parser.add_argument("--only", default="", help="distil or evaluate only runs whose PAGE/NAME holds this text")
    asked = parser.parse_args()
    os.environ.setdefault("FLOPPY_DATA", str((ROOT / "../shared/reference/images").resolve()))
    for page in (pages[name] for name in asked.page):
        if asked.stage == "page":
            write_page(page)
        elif any(is_wanted(run, asked.only) for run in page.runs):
            {"distill": distill_page, "evaluate": evaluate_page}[asked.stage](page, asked.only)
    if asked.stage == "page":
        write_papers()
        for kind in dict.fromkeys(pages[name].tables for name in asked.page):
            if kind in SUMMARY_TABLES:
                write_summary(kind)


if __name__ == "__main__":
    main()
