"""Runs within studies: which configuration a method has, going on where a run was cut short, and the clock."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from floppy.distill import DistillConfig, DistillResult
from floppy.errors import FloppyError
from floppy.learners import LearnerDistribution, describe_distribution, parse_distribution, parse_distributions
from floppy.outer import PPMO, HaDES
from floppy.recipes import recipe
from floppy.studies import _runs
from floppy.studies._runs import Limited, Point, limited, run

pytestmark = pytest.mark.usefixtures("quick_compile", "compiled_once")

CONFIG = DistillConfig(
    "cartpole",
    outer_steps=3,
    evaluate_every=1,
    distribution="width=4:depth=1",
    selection_learners=2,
    score_learners=2,
    score_episodes=2,
    outer=PPMO(learners=2, environments=2, horizon=4, epochs=1, minibatch_size=16, critic_width=4),
)

# --- Configurations.


def test_recipes_are_methods() -> None:
    assert limited("ppmo", "cartpole") == Limited(recipe("cartpole"), None)
    config, seconds = limited("hades-minatar", "breakout", examples=7, seed=3, budget="2m", score_learners=5)
    assert config == recipe("breakout", "hades-minatar", examples=7, seed=3, score_learners=5)
    assert seconds == 120.0
    assert limited("hades", "cartpole", budget="70steps").config == recipe("cartpole", "hades", outer_steps=70)


@pytest.mark.parametrize(("method", "loop"), [("ppo", "ppmo"), ("neuroevolution", "hades")])
def test_baselines_have_no_examples(method: str, loop: str) -> None:
    config = limited(method, "cartpole", examples=16, seed=2, budget="9steps").config
    assert (config.examples, config.encoder_layers, config.outer.name) == (0, 3, loop)
    assert (config.seed, config.outer_steps) == (2, 9)


@pytest.mark.parametrize("task", ["cartpole", "breakout"])
def test_hades_f_is_for_the_one_learner_that_its_seed_draws(task: str) -> None:
    robust, (fixed, other) = recipe(task, "hades"), (limited("hades-f", task, seed=s).config for s in (0, 1))
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
        (("sarsa", "cartpole"), "Method 'sarsa' was asked for: choose from ppmo"),
        (("ppmo", "cartpool"), "cartpool"),
        (("supervised", "cartpole"), "no labelled examples"),
    ],
)
def test_what_no_run_can_be_made_of_is_refused(arguments: tuple[str, str], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        limited(*arguments)


@pytest.mark.parametrize("method", ["ppo", "ppmo"])
def test_labelled_images_have_no_episodes_for_ppo(method: str, tmp_path: Path) -> None:
    images, labels = np.zeros((40, 4, 4, 1), np.uint8), np.arange(40) % 2
    np.savez(tmp_path / "dots.npz", images=images, labels=labels)
    with pytest.raises(FloppyError, match=f"Method {method} was asked for with images/.*, which has no episodes"):
        limited(method, f"images/{tmp_path / 'dots.npz'}")


@pytest.mark.parametrize("budget", ["5", "-1s", "steps", "0steps"])
def test_budgets_that_are_none_are_refused(budget: str) -> None:
    with pytest.raises(FloppyError, match="give steps or a time"):
        limited("ppo", "cartpole", budget=budget)


# --- The clock.


def tick(step: int, seconds: float, compiles: bool = False) -> dict[str, Any]:
    return {"step": step, "seconds": seconds, "compiles": compiles}


def log(*scores: float | None) -> list[dict[str, Any]]:
    """Two outer steps of ten environment steps for each evaluation."""
    lines: list[dict[str, Any]] = []
    for score in scores:
        lines += [{"step": len(lines) + 1, "env_steps": 10.0}]
        lines += [{"step": len(lines) + 1, "env_steps": 10.0, "selection_score": score}]
    return lines


def test_compilation_is_what_the_first_call_took_longer() -> None:
    ticks = [tick(2, 10.0, True), tick(4, 13.0), tick(6, 14.0), tick(8, 16.0)]  # 2 s for two steps in the median
    points, compilation = _runs._points(log(1.0, 5.0, None, 7.0), ticks)
    assert compilation == 8.0
    assert points == [Point(2, 20, 2.0, 1.0), Point(4, 40, 5.0, 5.0), Point(8, 80, 8.0, 7.0)]


def test_a_run_that_went_on_has_compiled_twice() -> None:
    ticks = [tick(2, 10.0, True), tick(4, 12.0), tick(6, 21.0, True), tick(8, 23.0)]
    points, compilation = _runs._points(log(1.0, 2.0, 3.0, 4.0), ticks)
    assert compilation == 8.0 + 7.0
    assert [point.seconds for point in points] == [2.0, 4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("ticks", "wanted", "compilation"),
    [
        ([tick(2, 10.0, True)], [10.0], 0.0),  # nothing to compare with
        ([tick(2, 1.0, True), tick(4, 4.0)], [1.0, 4.0], 0.0),  # it was in the cache
        ([tick(2, 5.0, True), tick(6, 9.0)], [2.0, 4.0, 6.0], 3.0),  # killed before the tick of step 4
        ([], [0.0], 0.0),
    ],
)
def test_clocks_that_say_little(ticks: list[dict[str, Any]], wanted: list[float], compilation: float) -> None:
    points, found = _runs._points(log(*[1.0] * len(wanted)), ticks)
    assert [point.seconds for point in points] == wanted
    assert found == compilation


# --- Runs.


def test_a_run_goes_on_where_it_was_cut_short(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    early = run(Limited(CONFIG, 0.0), tmp_path / "run")
    assert (early.result.outer_steps, early.result.finished, len(early.points)) == (1, False, 1)
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("  step 1/3: score ")
    later = run(Limited(CONFIG), tmp_path / "run")
    assert "step 1/3" not in capsys.readouterr().err
    ticks = [json.loads(line) for line in (tmp_path / "run/clock.jsonl").read_text().splitlines()]
    assert [(tick["step"], tick["compiles"]) for tick in ticks] == [(1, True), (2, True), (3, False)]
    assert 0 < ticks[0]["seconds"] < ticks[1]["seconds"] < ticks[2]["seconds"]
    assert [point.outer_steps for point in later.points] == [1, 2, 3]
    assert [point.env_steps for point in later.points] == [16, 32, 48]
    assert later.points[0].score == early.points[0].score
    np.testing.assert_allclose(later.points[-1].seconds + later.compilation, ticks[-1]["seconds"])
    score = later.result.dataset.card.score
    assert score is not None
    assert later.totals == {
        "outer_steps": 3,
        "env_steps": 48,
        "seconds": later.points[-1].seconds,
        "compilation": later.compilation,
        "score": score["mean"],
    }
    again = run(Limited(CONFIG), tmp_path / "run")
    assert (again.points, again.totals) == (later.points, later.totals)
    assert capsys.readouterr().err == ""


def test_time_that_is_spent_is_not_given_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = []

    def remember(*_: Any, time_limit: float | None, **__: Any) -> DistillResult:
        left.append(time_limit)
        raise FloppyError("enough")

    monkeypatch.setattr(_runs, "distill", remember)
    for ticks, seconds in (([], 5.0), ([tick(1, 3.5, True)], 5.0), ([tick(1, 9.0, True)], 5.0), ([], None)):
        (tmp_path / "config.json").touch()
        (tmp_path / "clock.jsonl").write_text("".join(json.dumps(each) + "\n" for each in ticks))
        with pytest.raises(FloppyError, match="enough"):
            run(Limited(CONFIG, seconds), tmp_path)
    assert left == [5.0, 1.5, 0.0, None]


def test_ctrl_c_ends_the_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = DistillResult(None, 1, 16, 1.0, finished=False, interrupted=True)  # type: ignore[arg-type]
    monkeypatch.setattr(_runs, "distill", lambda *_, **__: result)
    with pytest.raises(KeyboardInterrupt):
        run(Limited(CONFIG), tmp_path)
