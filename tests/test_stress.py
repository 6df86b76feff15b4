"""The page on damaged files and killed runs says what its tables say, and they say what is promised."""

import csv
import sys
from pathlib import Path

import pytest

from floppy.outer import OUTER_LOOPS

STRESS = Path(__file__).with_name("stress")
TABLES = STRESS.parents[1] / "docs/results/stress"


def rows(name: str) -> list[dict[str, str]]:
    with (TABLES / f"{name}.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_page_is_that_of_its_tables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(STRESS)
    import page

    assert (TABLES.parent / "stress.md").read_text() == page.page()
    for name in ("page", "tables"):
        sys.modules.pop(name)


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


def test_full_disks_and_vanished_folders_cost_a_sentence() -> None:
    found = rows("full_disk")
    assert sum(int(row["tries"]) for row in found) >= 300
    assert {row["disk"].partition(",")[0] for row in found} == {"full", "read-only", "vanished"}
    assert {row["faults"] for row in found} == {"0"}


def test_partners_ended_in_time_and_went_on() -> None:
    found = rows("partners")
    assert {(row["process"], row["what"]) for row in found} >= {("0", "killed"), ("1", "killed"), ("1", "frozen")}
    assert {(row["exit_code"], row["a_sentence"], row["same_bytes"]) for row in found} == {("2", "True", "True")}
    for row in found:
        assert float(row["seconds"]) < (200 if row["what"] == "frozen" else 30)


def test_devices_and_budgets_were_within_tolerance() -> None:
    found = rows("devices")
    assert {row["devices"] for row in found} == {"1", "2", "4"}
    assert {row["loop"] for row in found} == {row["loop"] for row in rows("budget")} == set(OUTER_LOOPS)
    assert max(float(row["tensors"]) for row in found) <= 0.01
    assert max(float(row["scores"]) for row in found) <= 0.02
    assert max(abs(float(row["missed"])) for row in rows("budget")) <= 0.1


def test_an_hour_of_every_outer_loop_ended_as_it_began() -> None:
    found = rows("long")
    assert {row["loop"] for row in found} == set(OUTER_LOOPS)
    for row in found:
        assert float(row["minutes"]) >= 59
        assert float(row["growth"]) <= 0.05
        assert float(row["cpu_ratio"]) <= 1.1
