"""Studies in which everything diverges end with a table, a summary that is JSON, and a figure."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from probes import hand_dataset
from tiny_runs import use_tiny_runs

from floppy.dataset import save
from floppy.errors import DivergedError
from floppy.evaluation import score as score_module
from floppy.evaluation.evaluate import Evaluation
from floppy.studies import Budget, Compare, Ensemble, Multitask, Search, Study, Transfer, read_rows, run_study
from floppy.studies import runs as runs_module
from floppy.studies.base import plain_json

ARCHITECTURES = [f"width=4:depth=1:initialiser={name}" for name in ("xavier", "xavier1", "lecun")]


@pytest.fixture(autouse=True)
def nothing_is_finite(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverge(*_: Any) -> None:
        raise DivergedError("Every fresh learner diverged.")

    use_tiny_runs(monkeypatch)
    monkeypatch.setattr(runs_module, "run", diverge)
    monkeypatch.setattr(Evaluation, "of_lesson", lambda self, *_, **__: np.full((self.learners, self.episodes), np.nan))
    monkeypatch.setattr(score_module, "BOOTSTRAP_RESAMPLES", 100)


def search(file: Path) -> Search:
    (file.parent / "space.txt").write_text("\n".join(ARCHITECTURES))
    return Search(file, space=file.parent / "space.txt", env_steps=1, learners=2, episodes=2, rates=(1.0, 2.0))


STUDIES: dict[str, Callable[[Path], Study]] = {
    "compare": lambda file: Compare("cartpole", methods=("hades", "ppo"), seeds=(0, 1)),
    "budget": lambda file: Budget("cartpole", (2, 4), ("hades", "ppo"), (0, 1)),
    "transfer": lambda file: Transfer((file,), widths=(4, 8), draws=3, episodes=2),
    "ensemble": lambda file: Ensemble((file,), sizes=(2,), repeats=2, episodes=2),
    "search": search,
}


@pytest.mark.parametrize("name", STUDIES)
def test_where_all_cells_diverge_the_study_ends(name: str, tmp_path: Path) -> None:
    save(hand_dataset(), tmp_path / "x.safetensors")
    study = STUDIES[name](tmp_path / "x.safetensors")
    rows = run_study(study, tmp_path / "study")
    assert {row["score"] for row in rows} == {-np.inf}
    summary = json.loads((tmp_path / "study/summary.json").read_text(), parse_constant=pytest.fail)
    assert {value for key, value in leaves(summary) if key in ("interval", "interquartile_mean", "gain")} <= {None}
    assert (tmp_path / "study/figure.png").exists()
    before = (tmp_path / "study/rows.csv").read_bytes()
    run_study(study, tmp_path / "study", resume=True)
    assert (tmp_path / "study/rows.csv").read_bytes() == before
    assert read_rows(tmp_path / "study") == rows


def leaves(value: Any, key: str = "") -> list[tuple[str, Any]]:
    """The plain values of JSON with their names; an interval that is one is a text."""
    if isinstance(value, dict):
        return [leaf for name, inner in value.items() for leaf in leaves(inner, name)]
    if isinstance(value, list) and value and isinstance(value[0], dict | list):
        return [leaf for inner in value for leaf in leaves(inner, key)]
    return [(key, str(value) if isinstance(value, list) else value)]


@pytest.mark.parametrize("diverged", [("merged",), ("single",), ("single", "merged", "wrong")])
def test_tasks_of_which_learners_diverge_are_summed_up(diverged: tuple[str, ...]) -> None:
    rows = [
        {"dataset": task, "agent": agent, "task": task, "learner": learner, "score": score}
        for task in ("one", "two")
        for agent, scores in {"random": [1.0], "single": [5.0, 6.0], "merged": [4.0, 5.0], "wrong": [0.0, 1.0]}.items()
        for learner, score in enumerate([-np.inf] * 2 if agent in diverged and task == "one" else scores)
    ]
    study = Multitask((Path("one"), Path("two")))
    summary = plain_json(study.summary(rows))
    json.dumps(summary, allow_nan=False)
    assert [summary["one"]["means"][each] for each in diverged] == [None] * len(diverged)
    shares = summary["one"]["shares"]
    assert shares is None if "single" in diverged else shares["merged"] == {"mean": None, "interval": None}
    assert summary["two"]["shares"]["merged"]["mean"] == pytest.approx(7 / 9)
    study.draw(rows, Figure())
