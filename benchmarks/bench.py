"""Measures everything in one run: docs/performance.json, and from it the table of docs/performance.md.

`make bench` on an idle machine; `make bench-quick` prints a part of it in less than three minutes and writes nothing.
Each group of figures is measured in a process of its own.
"""

import argparse
import dataclasses
import importlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent
DOCS = FOLDER.parent / "docs"
FILE, PAGE = DOCS / "performance.json", DOCS / "performance.md"
MARK = "<!-- table: written by benchmarks/bench.py -->"
GROUPS = ("startup", "ppmo", "hades", "clones", "play", "memory")
QUICK = GROUPS[:-1]
ON_DEMAND = ("cost", "published")
"""Measured by `--only`: `cost.py` takes an hour, `published.py` needs programs that are not installed here."""
ALL = (*GROUPS, *ON_DEMAND)


def main() -> None:
    """Runs groups, shows the table, and writes it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="what takes minutes is left out; nothing is written")
    parser.add_argument("--only", nargs="+", choices=ALL, help="these groups alone; the others stay as they were")
    parser.add_argument("--table", action="store_true", help="write the page from the file, measure nothing")
    parser.add_argument("--group", choices=ALL, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.group:
        print(json.dumps(_measured(options.group, quick=options.quick)))
        return
    if options.quick and set(options.only or ()) & set(ON_DEMAND):
        parser.error(f"--quick leaves out what takes minutes, {' and '.join(ON_DEMAND)} among it: ask for one of both")
    if "published" in (options.only or ()):
        importlib.import_module("published").check()
    told = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {"groups": {}}
    for group in () if options.table else options.only or (QUICK if options.quick else GROUPS):
        print(f"measuring {group}", file=sys.stderr, flush=True)
        answer = _in_process(group, quick=options.quick)
        told["groups"][group] = answer
        if not options.quick:  # a group that fails loses no other one
            FILE.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(_table(answer["rows"]), flush=True)
    if not options.quick:
        _write_page(told)


def _measured(group: str, *, quick: bool) -> dict[str, Any]:
    from _measure import machine

    rows = importlib.import_module(group).rows(quick=quick)
    return {"machine": machine(), "rows": [dataclasses.asdict(row) for row in rows]}


def _in_process(group: str, *, quick: bool) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", __file__, "--group", group, *(["--quick"] if quick else [])]
    with tempfile.TemporaryDirectory() as folder:  # MuJoCo writes its warnings into the current one
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=folder)
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _table(rows: list[dict[str, Any]]) -> str:
    lines = ["| what | measured | floor | share | floor by |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        floor = "–" if row["floor"] is None else _number(row["floor"])
        share = "–" if row["of_floor"] is None else f"{row['of_floor']:.0%}"
        lines.append(
            f"| {row['what']} | {_number(row['value'])} {row['unit']} | {floor} | {share} | {row['by'] or '–'} |"
        )
    return "\n".join(lines)


def _described(machine: dict[str, Any]) -> str:
    return (
        f"{machine['processor']}, {machine['cores']} cores, device {machine['device']}, Python {machine['python']}, "
        f"JAX {machine['jax']}, NumPy {machine['numpy']}"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _write_page(told: dict[str, Any]) -> None:
    """A table per group, under the machine that it was measured on: groups may be of several days."""
    head = PAGE.read_text(encoding="utf-8").partition(MARK)[0]
    parts = []
    for group in (each for each in ALL if each in told["groups"]):
        machine, rows = told["groups"][group]["machine"], told["groups"][group]["rows"]
        ceiling = f"products of large matrices at {machine['ceiling_gflops']:.0f} GFLOP/s"
        parts.append(f"### {group}\n\n{_described(machine)}; {ceiling}.\n\n{_table(rows)}")
    PAGE.write_text(f"{head}{MARK}\n\n" + "\n\n".join(parts) + "\n", encoding="utf-8")
    print(f"{PAGE} holds {', '.join(told['groups'])}", file=sys.stderr)


if __name__ == "__main__":
    main()
