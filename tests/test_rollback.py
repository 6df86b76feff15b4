"""The study of encoder rollback."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from floppy.cli import main
from floppy.cloning import GradientStep
from floppy.dataset import load
from floppy.distill import DistillConfig, DistillResult, distill
from floppy.errors import FloppyError
from floppy.outer import PPMO, HaDES
from floppy.studies import rollback
from floppy.studies.rollback import _configs

pytestmark = pytest.mark.usefixtures("quick_compile", "compiled_once")

CONFIG = DistillConfig(
    "cartpole",
    outer_steps=2,
    evaluate_every=1,
    distribution="width=4:depth=1",
    selection_learners=2,
    score_learners=3,
    score_episodes=2,
    outer=PPMO(learners=2, environments=2, horizon=4, epochs=1, minibatch_size=16, critic_width=4),
)


def test_every_level_is_a_run_of_its_own(tmp_path: Path) -> None:
    levels = rollback(CONFIG, tmp_path, levels=[2, 0])
    assert [level.encoder_layers for level in levels] == [2, 0]
    for level in levels:
        assert level.dataset == tmp_path / f"l{level.encoder_layers}" / "dataset.safetensors"
        dataset = load(level.dataset)
        assert level.examples == dataset.examples == (0 if level.encoder_layers == 2 else 2)
        assert dataset.card.score == level.score
        assert (level.score["learners"], level.score["episodes"]) == (3, 2)
        assert level.env_steps == 2 * 2 * 2 * 4
        assert level.finished
        wanted = {"layers": level.encoder_layers, "of": 2} if level.encoder_layers else None
        assert dataset.card.encoder == wanted


def test_all_levels_are_run_by_default_from_the_whole_network_down() -> None:
    assert [(each.encoder_layers, each.examples) for each in _configs(CONFIG, ())] == [(2, 0), (1, 2), (0, 2)]


def test_runs_that_were_cut_short_are_resumed(tmp_path: Path) -> None:
    (early,) = rollback(CONFIG, tmp_path, levels=[1], time_limit=0.0)
    assert not early.finished
    again, other = rollback(CONFIG, tmp_path, levels=[1, 2], resume=True)
    assert again.finished
    assert again.env_steps == other.env_steps == 2 * early.env_steps


@pytest.mark.parametrize(
    ("levels", "wanted"),
    [([3], "the network has 2 layers, give 0 to 2"), ([-1], "Level -1"), ([1, 1], "give each of them once")],
)
def test_levels_that_cannot_be_are_refused_before_anything_runs(levels: list[int], wanted: str, tmp_path: Path) -> None:
    with pytest.raises(FloppyError, match=wanted):
        rollback(CONFIG, tmp_path / "out", levels=levels)
    assert not (tmp_path / "out").exists()


def test_learners_of_random_architecture_have_no_levels() -> None:
    with pytest.raises(FloppyError, match="give one distribution of fixed width and depth"):
        rollback(DistillConfig("cartpole", distribution="random-depth"))


def test_a_folder_that_is_taken_is_refused_before_anything_runs(tmp_path: Path) -> None:
    rollback(CONFIG, str(tmp_path), levels=[0])
    before = (tmp_path / "l0" / "dataset.safetensors").read_bytes()
    with pytest.raises(FloppyError, match="l0 already holds a run: give --overwrite, --resume, or another folder"):
        rollback(CONFIG, tmp_path, levels=[1, 0])
    assert not (tmp_path / "l1").exists()
    assert (tmp_path / "l0" / "dataset.safetensors").read_bytes() == before


def test_ctrl_c_ends_the_whole_study() -> None:
    asked = []

    def interrupted(config: DistillConfig, out: Path | None, **options: Any) -> DistillResult:
        asked.append(config.encoder_layers)
        return dataclasses.replace(distill(config, out, **options), finished=False, interrupted=True)

    (level,) = rollback(CONFIG, distil=interrupted)
    assert asked == [level.encoder_layers] == [2]
    assert not level.finished


def test_evolution_has_levels_too() -> None:
    outer = HaDES(population=4, initialisations=1, environments=1, horizon=5)
    (level,) = rollback(dataclasses.replace(CONFIG, outer=outer, cloning=GradientStep()), levels=[1])
    assert level.encoder_layers == 1
    assert level.finished


OPTIONS = (
    "--examples 2 --outer-steps 1 --evaluate-every 1 --distribution width=4:depth=1 --selection-learners 2 "
    "--score-learners 3 --score-episodes 2 --learners 2 --environments 2 --horizon 4 --epochs 1 --critic-width 4"
)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rollback", "cartpole", *OPTIONS.split(), "--levels", "2,0", "--out", str(tmp_path / "study")]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["task"] == "ndcartpole/1"
    assert [(row["encoder_layers"], row["examples"]) for row in result["levels"]] == [(2, 0), (0, 2)]
    assert main(words) == 2
    assert "already holds a run" in capsys.readouterr().err
    assert main([*words, "--levels", "2", "--overwrite"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "ndcartpole/1: encoder layers, examples, score"
    assert [line.split()[:2] for line in lines[1:]] == [["2", "0"]]


@pytest.mark.parametrize("levels", ["1,x", "-1", "9", ","])
def test_levels_that_are_none_are_refused(levels: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["rollback", "cartpole", f"--levels={levels}", "--out", str(tmp_path / "study")]
    assert main(words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert not (tmp_path / "study").exists()
