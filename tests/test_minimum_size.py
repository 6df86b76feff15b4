"""The study of the least number of examples."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import Refused
from matplotlib.figure import Figure
from tiny_runs import use_tiny_runs

from floppy.errors import DivergedError, FloppyError
from floppy.learner.distribution import parse_distributions
from floppy.recipes import ROBUST_DISTRIBUTIONS
from floppy.run.config import DistillConfig
from floppy.studies import MinimumSize, draw_study, run_study
from floppy.studies.base import Row
from floppy.studies.minimum_size import paper_minimum
from floppy.tasks import make_task

pytestmark = pytest.mark.usefixtures("compiled_once")


@pytest.fixture
def configs(monkeypatch: pytest.MonkeyPatch) -> list[DistillConfig]:
    """The distillations of a study, in place of running them; of `k` examples three learners, `k` of whom succeed."""
    asked: list[DistillConfig] = []

    def scores(self: MinimumSize, cell: Row, folder: Path) -> np.ndarray:
        asked.append(self._run_of(cell).config)
        return np.where(np.arange(3) < cell["examples"], 490.0, 20.0)

    monkeypatch.setattr(MinimumSize, "_scores", scores)
    return asked


def rows(shares: dict[tuple[str, int, int], list[float]]) -> list[Row]:
    """Scores of learners by activation, size and seed."""
    return [
        {"activation": activation, "loss": "mse", "examples": size, "seed": seed, "learner": learner, "score": score}
        for (activation, size, seed), scores in shares.items()
        for learner, score in enumerate(scores)
    ]


@pytest.mark.slow
def test_a_cell_is_a_distillation_whose_learners_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    use_tiny_runs(monkeypatch)
    cell = {"activation": "tanh", "loss": "mse", "examples": 2, "seed": 3}
    measured = MinimumSize("cartpole").measure(cell, tmp_path)
    assert [row["learner"] for row in measured] == [0, 1]
    assert all(8 <= row["score"] <= 500 for row in measured)  # no cart-pole falls in fewer steps
    config = json.loads((tmp_path / "config.json").read_text())
    assert (config["examples"], config["seed"]) == (2, 3)


def test_where_all_diverge_nobody_succeeds(tmp_path: Path, configs: list[DistillConfig]) -> None:
    study = MinimumSize("cartpole", sizes=(1, 2), activations=("tanh",), seeds=(0,))
    scores: Any = MinimumSize._scores

    def diverges(self: MinimumSize, cell: Row, folder: Path) -> Any:
        if cell["examples"] == 1:
            raise DivergedError("Every fresh learner diverged.")
        return scores(self, cell, folder)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MinimumSize, "_scores", diverges)
        rows = run_study(study, tmp_path)
    assert [row["score"] for row in rows if row["examples"] == 1] == [-np.inf]
    assert json.loads((tmp_path / "summary.json").read_text())["smallest"][0]["sizes"][0]["shares"] == [0.0]


def test_every_learner_of_a_mixture_has_the_activation(configs: list[DistillConfig], tmp_path: Path) -> None:
    study = MinimumSize("cartpole", recipe="ppmo-robust", sizes=(2,), activations=("relu",), seeds=(0,))
    run_study(study, tmp_path)
    learners = parse_distributions(configs[0].distribution)
    own = parse_distributions(ROBUST_DISTRIBUTIONS)
    assert learners == tuple(dataclasses.replace(each, activation="relu") for each in own)


def test_sizes_activations_losses_and_seeds_are_crossed(configs: list[DistillConfig], tmp_path: Path) -> None:
    study = MinimumSize("cartpole", losses=("mse", "cross-entropy"), budget="7steps")
    measured = run_study(study, tmp_path)
    assert len(configs) == 2 * 2 * 3 * 2  # the paper's minimum is 2: sizes 1, 2 and 3
    assert len(measured) == 3 * len(configs)
    assert {config.cloning.loss for config in configs} == {"mse", "cross-entropy"}
    assert {config.examples for config in configs} == {1, 2, 3}
    assert all(config.outer_steps == 7 for config in configs)
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["paper_minimum"], summary["score_of_success"], summary["share_of_learners"]) == (2, 450.0, 0.9)
    for entry in summary["smallest"]:
        assert entry["smallest"] == entry["smallest_by_every_seed"] == 3
        shares = [(size["examples"], size["shares"]) for size in entry["sizes"]]
        assert shares == [(1, [pytest.approx(1 / 3)] * 2), (2, [pytest.approx(2 / 3)] * 2), (3, [1.0, 1.0])]
    assert (tmp_path / "figure.png").exists()


def test_a_size_is_enough_by_one_seed_or_by_every_seed() -> None:
    shares = {
        ("tanh", 2, 0): [500.0, 500.0],
        ("tanh", 2, 1): [500.0, 460.0],
        ("tanh", 1, 0): [450.0, 450.0],
        ("tanh", 1, 1): [449.0, 450.0],
        ("relu", 1, 0): [100.0, 500.0],
    }
    tanh, relu = MinimumSize("cartpole").summary(rows(shares))["smallest"]
    assert (tanh["smallest"], tanh["smallest_by_every_seed"]) == (1, 2)
    assert [size["shares"] for size in tanh["sizes"]] == [[1.0, 0.5], [1.0, 1.0]]
    assert (relu["smallest"], relu["smallest_by_every_seed"]) == (None, None)
    lenient = MinimumSize("cartpole", share=0.8, enough=0.5).summary(rows(shares))["smallest"]
    assert [each["smallest_by_every_seed"] for each in lenient] == [1, 1]


def test_the_figure_has_a_line_per_activation_and_the_papers_minimum() -> None:
    figure = Figure()
    shares = {("tanh", 1, 0): [500.0], ("tanh", 1, 1): [0.0], ("relu", 1, 0): [0.0], ("relu", 2, 0): [500.0, 0.0]}
    MinimumSize("cartpole").draw(rows(shares), figure)
    lines = {str(line.get_label()): (list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[0].lines}
    assert lines["tanh, mse"] == ([1], [1.0])  # by the better seed
    assert lines["relu, mse"] == ([1, 2], [0.0, 0.5])
    assert lines["the paper's minimum"][0] == [2, 2]


@pytest.mark.parametrize(("actions", "minimum"), [(2, 2), (3, 3), (4, 3), (10, 6), (18, 10)])
def test_the_papers_minimum(actions: int, minimum: int) -> None:
    task = type("Task", (), {"actions": type("Actions", (), {"size": actions})})
    assert paper_minimum(task) == minimum  # type: ignore[arg-type]


@pytest.mark.parametrize(("best", "wanted"), [(None, 450.0), (100.0, 90.0), (-50.0, -55.0)])
def test_success_is_a_share_of_the_best_known_score(best: float | None, wanted: float) -> None:
    assert MinimumSize("cartpole", best=best).threshold(make_task("cartpole")) == pytest.approx(wanted)


def test_a_task_without_a_known_best_score_asks_for_it() -> None:
    unknown = dataclasses.make_dataclass("Unknown", [("task_id", str), ("max_return", type(None))])("probe/x", None)
    with pytest.raises(FloppyError, match="The highest return of probe/x is not known: give --best"):
        MinimumSize("cartpole").threshold(unknown)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({"task": "cartpolex"}, "cartpolex"),
        ({"sizes": (0,)}, "sizes must be at least 1, got 0"),
        ({"activations": ("sigmoid",)}, "sigmoid"),
        ({"activations": ()}, "activations must have at least one value"),
        ({"losses": ()}, "losses must have at least one value"),
        ({"losses": ("gaussian-nll",)}, "gaussian-nll"),
        ({"losses": ("hinge",)}, "hinge"),
        ({"seeds": ()}, "seeds must have at least one value"),
        ({"seeds": (-1,)}, "seeds must be at least 0 .*, got -1"),
        ({"recipe": "ppm"}, "recipe must be one of ppmo, .*, got 'ppm'"),
        ({"budget": "soon"}, "budget must be .*, got 'soon'"),
        ({"best": float("nan")}, "best must be a finite number, got nan"),
        ({"share": 0.0}, "share must be above 0"),
        ({"enough": 1.1}, "enough must be above 0 and at most 1, got 1.1"),
    ],
)
def test_what_cannot_be_measured_is_refused(options: dict[str, Any], wanted: str) -> None:
    with pytest.raises(FloppyError, match=wanted):
        MinimumSize(**{"task": "cartpole"} | options).cells()


def test_the_command_line_refuses_in_one_sentence(refused: Refused) -> None:
    refused(["minimum-size", "cartpole", "--sizes", "1", "1"], "twice")


def test_a_table_is_summed_up_without_the_task(tmp_path: Path, configs: list[DistillConfig]) -> None:
    run_study(MinimumSize("cartpole", sizes=(1,), activations=("tanh",), seeds=(0,)), tmp_path)
    before = (tmp_path / "summary.json").read_bytes()
    text = (tmp_path / "study.json").read_text()
    (tmp_path / "study.json").write_text(text.replace('"cartpole"', '"gymnasium/absent_module:X-v0"'))
    draw_study(tmp_path)
    assert (tmp_path / "summary.json").read_bytes() == before
    assert json.loads(before)["paper_minimum"] == 2
