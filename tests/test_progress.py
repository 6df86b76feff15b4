"""What a run shows of its progress: an estimate of the time remaining, once there is something to estimate it by."""

import math

import pytest

from floppy.run import progress
from floppy.run.progress import ProgressBar


def said(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    calls: list[tuple[int, float]],
    *,
    total: int = 100,
    limit: float = math.inf,
    scoring: float = 0.0,
) -> list[str]:
    """What follows "about" in the lines, for calls that end with so many steps done at such a time."""
    bar = ProgressBar(total)
    bar.ends(lambda: limit, lambda: scoring)
    for done, now in calls:
        monkeypatch.setattr(progress.time, "monotonic", lambda now=now: now)
        bar(done, total, {"score": 1.0, "best": 2.0})
    return [line.partition(", about ")[2] for line in capsys.readouterr().err.splitlines()]


def test_time_remaining_goes_by_what_followed_the_compilation(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [(10, 300.0), (20, 310.0), (30, 330.0), (100, 400.0)]
    # After the first call nothing is known; then 80 steps at 1 s; then 70 at 30 s for 20; at the end nothing is left.
    assert said(monkeypatch, capsys, calls) == ["", "0:01:20 left", "0:01:45 left", ""]


def test_time_remaining_holds_the_final_score_and_ends_with_the_budget(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls = [(10, 0.0), (20, 10.0)]
    assert said(monkeypatch, capsys, calls, scoring=40.0)[1] == "0:02:00 left"
    assert said(monkeypatch, capsys, calls, scoring=40.0, limit=30.0)[1] == "0:00:30 left"
    assert said(monkeypatch, capsys, calls, limit=-5.0)[1] == "0:00:00 left"


def test_time_remaining_forgets_an_old_pace(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slow = [(step, 100.0 * step) for step in range(1, 10)]
    quick = [(9 + step, 900.0 + step) for step in range(1, progress.RECENT + 1)]
    assert said(monkeypatch, capsys, slow + quick)[-1] == "0:01:23 left"  # 83 steps at 1 s
