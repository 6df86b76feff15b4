"""Runs within studies: which configuration a method has, resuming a run that was cut short, and the clock."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_runs import TINY

from floppy.errors import DivergedError, FloppyError
from floppy.learner.distribution import describe_distribution, parse_distribution, parse_distributions
from floppy.learner.mlp import LearnerDistribution
from floppy.outer import HaDES
from floppy.recipes import recipe
from floppy.run.config import DistillConfig
from floppy.run.loop import DistillResult
from floppy.studies import runs as module
from floppy.studies.runs import BudgetedRun, Point, configure_method, run, timed_points, try_run

pytestmark = pytest.mark.usefixtures("compiled_once")

# --- Configurations.


def test_recipes_are_methods_whose_runs_go_to_their_end() -> None:
    assert configure_method("ppmo", "cartpole") == BudgetedRun(recipe("cartpole", early_stop=False), None)
    config, seconds = configure_method("hades-minatar", "breakout", examples=7, seed=3, budget="2m", score_learners=5)
    wanted = recipe("breakout", "hades-minatar", examples=7, seed=3, score_learners=5, early_stop=False)
    assert (config, seconds) == (wanted, 120.0)
    config = configure_method("hades", "cartpole", budget="70steps", early_stop=True).config
    assert config == recipe("cartpole", "hades", outer_steps=70)


@pytest.mark.parametrize(("method", "loop"), [("ppo", "ppmo"), ("neuroevolution", "hades")])
def test_baselines_have_no_examples(method: str, loop: str) -> None:
    config = configure_method(method, "cartpole", examples=16, seed=2, budget="9steps").config
    assert (config.examples, config.encoder_layers, config.outer.name) == (0, 3, loop)
    assert (config.seed, config.outer_steps) == (2, 9)


@pytest.mark.parametrize("task", ["cartpole", "breakout"])
def test_hades_f_is_for_the_one_learner_that_its_seed_draws(task: str) -> None:
    robust = recipe(task, "hades", early_stop=False)
    fixed, other = (configure_method("hades-f", task, seed=seed).config for seed in (0, 1))
    assert isinstance(robust.outer, HaDES)
    assert fixed.outer == dataclasses.replace(
        robust.outer, initialisations=1, environments=robust.outer.initialisations * robust.outer.environments
    )
    assert dataclasses.replace(fixed, outer=robust.outer, distribution=robust.distribution) == robust
    (learner,) = parse_distributions(robust.distribution)
    assert parse_distributions(fixed.distribution) == (dataclasses.replace(learner, init_seed=0),)
    assert parse_distributions(other.distribution) == (dataclasses.replace(learner, init_seed=1),)


def test_descriptions_are_read_back() -> None:
    learner = LearnerDistribution((32, 64), (1, 3), ("xavier", "lecun"), "relu", "minatar-cnn", 4)
    assert parse_distribution(describe_distribution(learner)) == learner


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (("sarsa", "cartpole"), "method must be one of ppmo, .*, got 'sarsa'"),
        (("ppmo", "cartpool"), "cartpool"),
        (("supervised", "cartpole"), "Recipe supervised needs labelled examples"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused(arguments: tuple[str, str], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        configure_method(*arguments)


@pytest.mark.parametrize("method", ["ppo", "ppmo"])
def test_labelled_images_have_no_episodes_for_ppo(method: str, tmp_path: Path) -> None:
    images, labels = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "dots.npz", images=images, labels=labels)
    with pytest.raises(FloppyError, match="episodes"):
        configure_method(method, f"images/{tmp_path / 'dots.npz'}")


@pytest.mark.parametrize("budget", ["5", "-1s", "steps", "0steps"])
def test_budgets_that_are_none_are_refused(budget: str) -> None:
    with pytest.raises(FloppyError, match="budget must be a number of steps or a time"):
        configure_method("ppo", "cartpole", budget=budget)


# --- The clock.


def log(*calls: tuple[float, bool, float | None], steps: int = 2) -> list[dict[str, Any]]:
    """The lines of a run whose calls of a few outer steps, of ten environment steps each, end with these figures.

    Each call has the seconds of the run till then, whether it compiled, and its selection score.
    """
    lines: list[dict[str, Any]] = []
    for seconds, compiles, score in calls:
        for _ in range(steps):
            lines.append({"step": len(lines) + 1, "env_steps": 10.0})
        lines[-1] |= {"seconds": seconds, "compiles": compiles, "selection_score": score}
    return lines


def test_compilation_is_what_the_first_call_took_longer() -> None:
    # 2 s for two steps in the median of the calls that did not compile.
    points, compilation = timed_points(
        log((10.0, True, 1.0), (13.0, False, 5.0), (14.0, False, None), (16.0, False, 7.0))
    )
    assert compilation == 8.0
    assert points == [Point(2, 20, 2.0, 1.0), Point(4, 40, 5.0, 5.0), Point(8, 80, 8.0, 7.0)]


def test_a_run_that_was_resumed_has_compiled_twice() -> None:
    calls = [(10.0, True, 1.0), (12.0, False, 2.0), (21.0, True, 3.0), (23.0, False, 4.0)]
    points, compilation = timed_points(log(*calls))
    assert compilation == 8.0 + 7.0
    assert [point.seconds for point in points] == [2.0, 4.0, 6.0, 8.0]


def test_a_shorter_call_counts_by_its_steps() -> None:
    lines = log((3.0, False, 1.0), steps=3) + log((9.0, True, 2.0), steps=1)
    lines[-1]["step"] = 4
    points, compilation = timed_points(lines)
    assert compilation == 5.0  # one of its six seconds was the step's
    assert [(point.seconds, point.env_steps) for point in points] == [(3.0, 30), (4.0, 40)]


@pytest.mark.parametrize(
    ("calls", "wanted", "compilation"),
    [
        ([(10.0, True, 1.0)], [10.0], 0.0),  # nothing to compare with
        ([(1.0, True, 1.0), (4.0, False, 1.0)], [1.0, 4.0], 0.0),  # it was in the cache
        ([], [], 0.0),
    ],
)
def test_clocks_that_say_little(
    calls: list[tuple[float, bool, float]], wanted: list[float], compilation: float
) -> None:
    points, found = timed_points(log(*calls))
    assert [point.seconds for point in points] == wanted
    assert found == compilation


# --- Runs.


@pytest.mark.slow
def test_a_run_is_resumed_where_it_was_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    early = run(BudgetedRun(TINY, 0.0), tmp_path / "run")
    assert (early.outer_steps, early.finished, len(early.points)) == (1, False, 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("  step 1/3: score ")
    later = run(BudgetedRun(TINY), tmp_path / "run")
    assert "step 1/3" not in capsys.readouterr().err
    ticks = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [(tick["step"], tick["compiles"]) for tick in ticks] == [(1, True), (2, True), (3, False)]
    assert 0 < ticks[0]["seconds"] < ticks[1]["seconds"] < ticks[2]["seconds"]
    assert [point.outer_steps for point in later.points] == [1, 2, 3]
    assert [point.env_steps for point in later.points] == [16, 32, 48]
    assert later.points[0].score == early.points[0].score
    np.testing.assert_allclose(later.points[-1].seconds + later.compilation, ticks[-1]["seconds"])
    score = later.best.card.score
    assert score is not None
    totals = {
        "outer_steps": 3,
        "env_steps": 48,
        "seconds": later.points[-1].seconds,
        "compilation": later.compilation,
        "score": score["mean"],
    }
    assert (later.totals, later.finished, later.score) == (totals, True, score)
    assert later.rows[1] == {"what": "evaluation"} | later.points[1]._asdict()
    assert later.rows[3:] == [{"what": "end"} | totals]
    again = run(BudgetedRun(TINY), tmp_path / "run")
    assert (again.points, again.totals) == (later.points, later.totals)
    assert capsys.readouterr().err == ""


def test_time_that_is_spent_is_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def remember(*_: Any, time_limit: float | None, **__: Any) -> DistillResult:
        left.append(time_limit)
        raise FloppyError("enough")

    monkeypatch.setattr(module, "distill", remember)
    for calls, seconds in (([], 5.0), ([(3.5, True, 1.0)], 5.0), ([(9.0, True, 1.0)], 5.0), ([], None)):
        (tmp_path / "config.json").touch()
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(each) + "\n" for each in log(*calls)))
        with pytest.raises(FloppyError, match="enough"):
            run(BudgetedRun(TINY, seconds), tmp_path)
    assert left == [5.0, 1.5, 0.0, None]


def test_a_run_that_diverged_is_a_result_where_that_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverges(config: DistillConfig, out: Path, **_: Any) -> DistillResult:
        lines = log((4.0, True, 3.0), (5.0, False, None))
        (out / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        raise DivergedError("lower the rate")

    monkeypatch.setattr(module, "distill", diverges)
    with pytest.raises(DivergedError, match="lower the rate"):
        run(BudgetedRun(TINY), tmp_path)
    ended = try_run(BudgetedRun(TINY), tmp_path)
    wanted = {"outer_steps": 4, "env_steps": 40, "seconds": 1.0, "compilation": 3.0, "score": -np.inf}
    assert (ended.totals, ended.points, ended.finished) == (wanted, [Point(2, 20, 1.0, 3.0)], False)
    with pytest.raises(DivergedError):
        _ = ended.best


def test_ctrl_c_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = DistillResult(None, 1, 16, 1.0, finished=False, interrupted=True)  # type: ignore[arg-type]
    monkeypatch.setattr(module, "distill", lambda *_, **__: result)
    with pytest.raises(KeyboardInterrupt):
        run(BudgetedRun(TINY), tmp_path)
