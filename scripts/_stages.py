"""What the scripts that regenerate a results page share: distil what is missing, evaluate what changed, tables."""

import argparse
import csv
import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Protocol

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
FLOPPY = Path(sys.executable).with_name("floppy")
Row = dict[str, Any]


class Run(Protocol):
    """One distillation: `name` and `path` of its dataset, `command` that makes it in the folder of its last word."""

    @property
    def name(self) -> str: ...

    @property
    def command(self) -> str: ...

    @property
    def path(self) -> Path: ...


def distill_missing(runs: Iterable[Run], only: str) -> None:
    """Runs, or resumes, every distillation whose dataset is not there yet and whose name holds `only`."""
    for run in runs:
        if run.path.exists() or only not in run.name:
            continue
        words = shlex.split(run.command)
        folder = ROOT / words[-1]
        if folder.exists():
            words.append("--resume")
        print(shlex.join(words), flush=True)
        done = subprocess.run([FLOPPY, *words[1:], "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True)
        result = json.loads(done.stdout)
        if "--resume" in words:
            del result["seconds"]  # they are those of the last part
        (folder / "result.json").write_text(json.dumps(result))
        run.path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / "dataset.safetensors", run.path)


def import_missing(run: Run, source: Path, only: str) -> None:
    """Imports a published dataset that is not there yet and whose name holds `only`, if the folder `source` exists."""
    if not run.path.exists() and source.is_dir() and only in run.name:
        run.path.parent.mkdir(parents=True, exist_ok=True)
        subprocess.run([FLOPPY, *shlex.split(run.command)[1:]], cwd=ROOT, check=True)


def evaluation(path: Path, options: str, answer: Path, *, wanted: bool) -> Row | None:
    """What `floppy evaluate` says of a dataset, by distribution; asked again if dataset or options have changed."""
    known = json.loads(answer.read_text()) if answer.exists() else {}
    is_old = path.exists() and known.get("asked") != [options, path.stat().st_mtime]
    if is_old and wanted:
        answer.parent.mkdir(parents=True, exist_ok=True)
        words = ["evaluate", str(path.relative_to(ROOT)), *shlex.split(options), "--json"]
        done = subprocess.run([FLOPPY, *words], cwd=ROOT, check=True, capture_output=True, text=True)
        known = {"asked": [options, path.stat().st_mtime]} | json.loads(done.stdout)
        answer.write_text(json.dumps(known))
    if (is_old and not wanted) or not known:
        print(f"left out, not evaluated: {path.stem}", file=sys.stderr)
        return None
    distributions: Row = known["distributions"]
    return distributions


def what_it_took(folder: Path, earlier: dict[str, str] | None) -> Row:
    """Generations and environment steps from the log of a run; seconds from its result, if that was kept.

    Of a run whose folder is gone, what the table says already.
    """
    if not (folder / "metrics.jsonl").exists() and earlier:
        return {name: earlier[name] for name in ("outer_steps", "env_steps", "seconds")}
    log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
    return {
        "outer_steps": len(log),
        "env_steps": int(sum(line["env_steps"] for line in log)),
        "seconds": result.get("seconds", ""),
    }


def write_rows(rows: list[Row], table: Path) -> None:
    """The CSV of all answers."""
    if not rows:
        sys.exit("no dataset has been evaluated: run the stage distill first")
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_rows(table: Path) -> list[dict[str, str]]:
    """The CSV as text; none where it is not there yet."""
    if not table.exists():
        return []
    with table.open(newline="") as file:
        return list(csv.DictReader(file))


def put_into_readme(script: str, table: str) -> None:
    """Replaces the table in the README that `script` writes."""
    readme = ROOT / "README.md"
    start, end = f"<!-- table: written by scripts/{script} -->", "<!-- end of table -->"
    before, rest = readme.read_text().split(start)
    _, after = rest.split(end, 1)
    readme.write_text(f"{before}{start}\n{table}\n{end}{after}")


def markdown_table(head: list[str], rows: Iterable[Iterable[str]]) -> str:
    """A table in Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def run_stage(
    about: str, distill: Callable[[str], None] | None, evaluate: Callable[[str], None], page: Callable[[], None]
) -> None:
    """The command line of such a script: one of its stages."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("stage", choices=[*(["distill"] if distill else []), "evaluate", "page"])
    parser.add_argument("--only", default="", help="distil or evaluate only runs whose name holds this text")
    arguments = parser.parse_args()
    if arguments.stage == "page":
        page()
    elif arguments.stage == "distill" and distill:
        distill(arguments.only)
    else:
        evaluate(arguments.only)
