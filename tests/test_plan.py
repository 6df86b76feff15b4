"""What a run would take is said without running it."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from tiny_runs import TINY

from floppy.cli import main
from floppy.run.loop import Run
from floppy.run.plan import plan

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("compiled_once")]


def test_a_plan_counts_and_measures() -> None:
    found = plan(dataclasses.replace(TINY, outer_steps=30, evaluate_every=4))
    assert (found.outer_steps, found.evaluations) == (30, 8)
    assert found.env_steps == 30 * 16
    assert found.floats == 2 * 4 + 2 * 2 + 1
    assert found.memory_bytes > 2**20 and found.checkpoint_bytes > 4 * found.floats
    in_steps = 30 * found.step_seconds + 8 * found.evaluation_seconds
    assert found.seconds == pytest.approx(found.compilation_seconds + in_steps + found.score_seconds)
    assert min(found.step_seconds, found.evaluation_seconds) > 0


def test_what_the_first_step_counts_besides_is_counted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Imitation's first step reports the steps that its teacher took before it."""
    original = Run.steps

    def steps(run: Run, state: Any, steps: list[int], is_to_stop: Any) -> Any:
        after, figures, fault = original(run, state, steps, is_to_stop)
        reached.append(after)
        before = 0.0 if any(state is each for each in reached[:-1]) else 1000.0
        return after, figures | {"env_steps": figures["env_steps"] + before}, fault

    reached: list[Any] = []
    monkeypatch.setattr(Run, "steps", steps)
    assert plan(dataclasses.replace(TINY, outer_steps=30)).env_steps == 30 * 16 + 1000


def test_the_command_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["distill", "cartpole", "--horizon", "4", "--learners", "2", "--environments", "1", "--plan"]
    words += ["--selection-learners", "1", "--distribution", "width=4:depth=1"]
    assert main(words) == 0
    assert "ms per step" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["outer_steps"] == 300
    assert list(tmp_path.iterdir()) == []
