"""The page on damaged files and killed runs says what its tables say, and they say what is promised."""

import csv
import sys
from pathlib import Path

import pytest

STRESS = Path(__file__).with_name("stress")
TABLES = STRESS.parents[1] / "docs/results/stress"


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_is_that_of_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STRESS)
    import page

    assert (TABLES.parent / "stress.md").read_text() == page.page()
    sys.modules.pop("page")


def test_a_hundred_thousand_files_were_answered() -> None:
    found = rows("fuzz")
    assert sum(int(row["files"]) for row in found) >= 100_000
    assert {row["other"] for row in found} == {"0"}
    assert max(int(row["peak_mib"]) for row in found) < 1024


def test_killed_runs_ended_as_undisturbed_ones() -> None:
    found = rows("kills")
    assert sum(int(row["kills"]) for row in found) >= 60
    assert {row["failed"] for row in found} == {"0"}
    assert [row["run"] for row in found if row["other"] != "0"] in ([], ["host task"])
