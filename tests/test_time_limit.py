"""A run with a time limit ends at the evaluation that is nearest to it."""

import dataclasses

import pytest
from tiny_runs import TINY

from floppy.cli import base
from floppy.run import loop
from floppy.run.loop import Clock, distill

pytestmark = pytest.mark.usefixtures("compiled_once")


def test_a_lap_is_the_time_since_the_last_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0.0, 60.0, 65.0, 75.0])
    monkeypatch.setattr(loop.time, "monotonic", lambda: next(now))
    clock = Clock(100.0)
    assert [clock.lap() for _ in range(3)] == [0.0, 5.0, 10.0]


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "steps"), [(31.0, 3), (36.0, 4), (44.0, 4), (46.0, 5)])
def test_a_run_ends_at_the_evaluation_nearest_to_its_limit(
    limit: float, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = [0.0]
    plain = loop._advance

    def advance(*given: object) -> loop.RunState:
        seconds[0] += 10.0
        return plain(*given)

    monkeypatch.setattr(loop, "_advance", advance)
    monkeypatch.setattr(loop.Run, "scoring_estimate", lambda _: 0.0)
    monkeypatch.setattr(Clock, "seconds", lambda _: seconds[0])
    before = iter([0.0] + [10.0] * 20)
    monkeypatch.setattr(Clock, "lap", lambda _: next(before))
    result = distill(dataclasses.replace(TINY, outer_steps=9), time_limit=limit, progress=False)
    assert result.outer_steps == steps


def test_the_final_score_is_estimated_by_the_latest_evaluation() -> None:
    config = dataclasses.replace(TINY, selection_learners=2, selection_episodes=2, score_learners=4, score_episodes=4)
    run = loop.Run(config, config.problem(), "")
    run._selection_seconds = [5.0, 1.0, 3.0]  # 4 s of compilation at first; then episodes grow longer
    assert run.scoring_estimate() == 4.0 + 4 * 3.0


def test_the_start_of_the_program_belongs_to_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base.time, "monotonic", lambda: 107.0)
    call = base.Call("", lambda _: 0, {}, began=100.0)
    assert [call.left(seconds) for seconds in (60.0, 5.0, None)] == [53.0, 0.0, None]
