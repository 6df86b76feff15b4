"""The zoo: its files and index are what the results give, names find them, scores are compared as they should be."""

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import floppy
from floppy.cli.main import main
from floppy.cli.runs import _beside_text, _less_random_play
from floppy.dataset import zoo_index
from floppy.dataset.file import origin
from floppy.dataset.zoo_index import Stated
from floppy.errors import FloppyError
from floppy.evaluation import random_play
from floppy.evaluation.random_play import beside_random, compared
from floppy.evaluation.score import Score
from floppy.tasks.faults import patience, patience_now
from floppy.zoo import verification
from floppy.zoo.verification import Verified, verify

REPOSITORY = Path(__file__).parents[1]
RESULTS = REPOSITORY / "docs/results"
needs_results = pytest.mark.skipif(not RESULTS.exists(), reason="the results are not part of a source distribution")

ENTRIES = zoo_index.entries()
STATED = Stated(
    task="ndcartpole/1",
    unit="mean return",
    mean=100.0,
    sd=10.0,
    interval=(96.0, 104.0),
    learners=20,
    episodes=5,
    seed=1000,
    random=20.0,
)


def score(mean: float, sd: float = 10.0, learners: int = 20) -> Score:
    return Score(mean, sd, mean - sd, (mean, mean), learners, 5, None, 0, 1000)


@needs_results
def test_files_are_those_of_the_results_and_the_index_is_what_the_script_writes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY / "scripts"))
    script = importlib.import_module("zoo")
    assert script.faults(script.made(measure=False)) == [], "run scripts/zoo.py"
    for entry in ENTRIES.values():
        source = REPOSITORY / entry.source
        if source.is_file():
            assert entry.path.read_bytes() == source.read_bytes(), entry.name
        else:
            datasets = json.loads((source / "study.json").read_text())["datasets"]
            parents = [origin(floppy.load(REPOSITORY / each)) for each in datasets]
            assert floppy.load(entry.name).card.parents == parents


def test_the_files_are_those_that_the_index_is_about() -> None:
    assert sum(entry.path.stat().st_size for entry in ENTRIES.values()) < 8_000_000
    for entry in ENTRIES.values():
        dataset = verification._load(entry)  # checks the digest
        assert (dataset.card.task, dataset.examples) == (entry.task, entry.examples)
        assert "+".join(stated.task for stated in entry.scores) == entry.task
        assert all(np.isfinite([stated.mean, stated.sd, stated.random]).all() for stated in entry.scores)
        assert min(*entry.check, *entry.quick) > 0


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("cartpole/1d", "cartpole"),
        ("ndcartpole/3", "cartpole/3d"),
        ("CARTPOLE/2D-robust", "cartpole/2d-robust"),
        ("brax/hopper@64", "brax/hopper"),
        ("hopper@4", "brax/hopper@4"),
        ("minatar/space_invaders+encoder", "minatar/space-invaders+encoder"),
        ("gymnax/Breakout-MinAtar", "minatar/breakout"),
        ("Hopper-v4", "mujoco/Hopper-v4"),
        ("ale/centipede", "atari/centipede"),
        ("pendulum", "classic/Pendulum-v1"),
        ("cartpole-v1", "classic/CartPole-v1"),
        ("mnist", "images/mnist"),
    ],
)
def test_names_that_people_guess(name: str, meant: str) -> None:
    assert floppy.zoo.entry(name).name == meant


def test_no_name_means_two_datasets() -> None:
    names = [name.casefold() for entry in ENTRIES.values() for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    assert floppy.zoo.names() == list(ENTRIES)


def test_a_name_without_a_method_means_the_best_dataset() -> None:
    of_four = [entry for entry in ENTRIES.values() if (entry.task, entry.examples) == ("brax/hopper", 4)]
    fresh = [entry for entry in of_four if entry.method != "hades-f"]
    best = max(fresh, key=lambda entry: entry.scores[0].mean)
    assert floppy.zoo.entry("brax/hopper@4") == best
    assert len(fresh) > 1


def test_a_file_of_that_name_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert floppy.load("cartpole").card.task == "ndcartpole/1"
    shutil.copy(floppy.zoo.entry("cartpole/3d").path, "cartpole")
    assert floppy.load("cartpole").card.task == "ndcartpole/3"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("brax/hoper", "There is no such file, and no dataset of the zoo is called so.* such as brax/hopper "),
        ("minatar/breakout-encoder", r"such as minatar/breakout\+encoder"),
        ("cartpol.safetensors", "There is no such file: give the path of a dataset"),
        ("/cartpole", "There is no such file: give"),
    ],
)
def test_a_wrong_name_offers_the_nearest(name: str, said: str) -> None:
    with pytest.raises(FloppyError, match=said):
        floppy.load(name)


def test_entry_takes_names_alone() -> None:
    with pytest.raises(FloppyError, match="did you mean cartpole"):
        floppy.zoo.entry("cartpool")
    with pytest.raises(FloppyError, match="name must be the name"):
        floppy.zoo.entry(3)  # type: ignore[arg-type]


@pytest.fixture
def damaged_zoo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of two datasets and their index, for a test to spoil."""
    kept = [entry.as_json() for name, entry in ENTRIES.items() if name in ("cartpole", "cartpole/2d")]
    for each in kept:
        shutil.copy(zoo_index.FOLDER / each["file"], tmp_path)
    (tmp_path / "index.json").write_text(json.dumps(kept))
    monkeypatch.setattr(zoo_index, "FOLDER", tmp_path)
    zoo_index.entries.cache_clear()
    zoo_index._by_name.cache_clear()
    yield tmp_path
    zoo_index.entries.cache_clear()
    zoo_index._by_name.cache_clear()


@pytest.mark.parametrize("text", ["", "{", "[1]", '[{"name": "a"}]', "[" * 100_000, "null"])
def test_a_damaged_index_is_one_sentence(text: str, damaged_zoo: Path) -> None:
    (damaged_zoo / "index.json").write_text(text)
    with pytest.raises(FloppyError, match="install floppy-rl again"):
        floppy.zoo.names()


def test_a_damaged_file_is_one_sentence(damaged_zoo: Path) -> None:
    path = floppy.zoo.entry("cartpole").path
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(FloppyError, match="damaged"):
        floppy.load("cartpole")
    shutil.copy(floppy.zoo.entry("cartpole/2d").path, path)
    with pytest.raises(FloppyError, match="is not the file that the zoo's index names"):
        verify(["cartpole"])
    path.unlink()
    with pytest.raises(FloppyError, match="There is no such file"):
        floppy.zoo.copy("cartpole", damaged_zoo / "new")
    assert not (damaged_zoo / "new").exists()


# --- Verification. ---


def test_differences_are_in_standard_errors_of_both_means() -> None:
    """20 learners of deviation 10 each: standard errors sqrt(5) each, sqrt(10) of the difference."""
    found = Verified("a", STATED, score(90.0), "", 0.0)
    assert found.difference == -10.0
    assert found.standard_errors == pytest.approx(-10 / 10**0.5)
    assert found.p_value == pytest.approx(0.0015, abs=1e-4)  # Student's t of 38 degrees of freedom below -3.16
    assert found.falls_short(1)
    assert not found.falls_short(63), "0.01 / 63 = 0.00016"


@pytest.mark.parametrize(("mean", "falls"), [(99.0, False), (100.0, False), (120.0, False), (80.0, True)])
def test_only_a_lower_score_falls_short(mean: float, falls: bool) -> None:
    assert Verified("a", STATED, score(mean), "", 0.0).falls_short(63) == falls


@pytest.mark.parametrize(("mean", "falls"), [(100.0, False), (99.9, True)])
def test_where_no_network_differs_any_loss_counts(mean: float, falls: bool) -> None:
    stated = Stated(**(vars(STATED) | {"sd": 0.0}))
    found = Verified("a", stated, score(mean, sd=0.0), "", 0.0)
    assert (found.standard_errors, found.falls_short(63)) == (None, falls)


def test_false_alarms_are_rare() -> None:
    """Of 2,000 verifications of 10 datasets that are as good as stated about 20 find fault."""
    rng = np.random.default_rng(0)

    def sample(learners: int) -> tuple[float, float]:
        values = rng.normal(100, 10, learners)
        return float(values.mean()), float(values.std(ddof=1))

    def falls() -> bool:
        (mean, sd), (again, spread) = sample(20), sample(6)
        stated = Stated(**(vars(STATED) | {"mean": mean, "sd": sd}))
        return Verified("a", stated, score(again, spread, 6), "", 0.0).falls_short(10)

    assert sum(falls() for _ in range(2000)) <= 12  # of single comparisons, 2 expected


def test_verify_asks_for_the_stated_seed_and_the_counts_of_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[dict[str, Any]] = []

    def evaluate(dataset: Any, **options: Any) -> dict[str, Score]:
        asked.append(options)
        return {"card": score(500.0)}

    monkeypatch.setattr(verification, "evaluate", evaluate)
    names: list[str] = []
    found = verify(["merged/cartpole", "ndcartpole/1"], progress=lambda done, count, name: names.append(name))
    entries = [floppy.zoo.entry(name) for name in ("merged/cartpole", "cartpole")]
    assert names == ["merged/cartpole", "merged/cartpole", "cartpole"]
    assert [each.stated for each in found] == [*entries[0].scores, *entries[1].scores]
    by_task = {each["task"]: each for each in asked}  # two at a time, in any order
    assert by_task.keys() == {"ndcartpole/1", "ndcartpole/2", ""}
    assert {each["seed"] for each in asked} == {each.stated.seed for each in found}
    assert (by_task[""]["learners"], by_task[""]["episodes"]) == entries[1].check
    verify(["cartpole"], quick=True, seed=7)
    assert asked[-1] == {
        "learners": entries[1].quick[0],
        "episodes": entries[1].quick[1],
        "seed": 7,
        "task": "",
    }
    with pytest.raises(FloppyError, match="seed"):
        verify(["cartpole"], seed=-1)
    assert [each.name for each in verify("cartpole")] == ["cartpole"]
    with pytest.raises(FloppyError, match="names must be a list of names"):
        verify(3)  # type: ignore[arg-type]


def test_a_time_limit_holds_in_what_is_verified(monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []

    def evaluate(dataset: Any, **options: Any) -> dict[str, Score]:
        limits.append(patience_now())
        return {"card": score(500.0)}

    monkeypatch.setattr(verification, "evaluate", evaluate)
    with patience(7.0):
        verify(["cartpole", "cartpole/2d"])
    assert limits == [7.0, 7.0]


def test_quick_takes_a_few_of_every_family() -> None:
    quick = [entry for entry in ENTRIES.values() if entry.is_quick]
    assert {entry.family for entry in quick} == {entry.family for entry in ENTRIES.values()}
    assert len(quick) < len(ENTRIES) / 3


def test_what_is_not_installed_is_skipped_with_the_line_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(dataset: Any) -> Any:
        raise FloppyError("Brax needs brax: pip install 'floppy-rl[brax]'.")

    monkeypatch.setattr(verification, "unpack", unpack)
    (found,) = verify(["brax/hopper"])
    assert found.measured is None
    assert "pip install 'floppy-rl[brax]'" in found.skipped
    assert not found.falls_short(1)
    assert found.as_json()["measured"] is None


# --- The command. ---


def test_list_and_show(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", "list"]) == 0
    table = capsys.readouterr().out
    assert all(f"\n{name} " in table for name in ENTRIES)
    assert main(["zoo", "list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [each["name"] for each in listed] == list(ENTRIES)
    assert main(["zoo", "show", "HOPPER"]) == 0
    card = capsys.readouterr().out
    entry = floppy.zoo.entry("hopper")
    for fact in (entry.name, entry.licence, entry.sha256, entry.teacher, "random play", "plain PPO", "published"):
        assert fact in card
    assert max(map(len, card.splitlines())) <= 120
    assert "a teacher's included" in card
    assert main(["zoo", "show", "cartpole"]) == 0
    assert "teacher's" not in capsys.readouterr().out


def test_copy_writes_the_same_bytes_and_no_file_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "copy.safetensors"
    assert main(["zoo", "copy", "cartpole", str(path)]) == 0
    assert path.read_bytes() == floppy.zoo.entry("cartpole").path.read_bytes()
    assert main(["zoo", "copy", "cartpole/2d", str(path)]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert path.read_bytes() == floppy.zoo.entry("cartpole").path.read_bytes()
    assert main(["zoo", "copy", "cartpole/2d", str(path), "--overwrite"]) == 0
    assert path.read_bytes() == floppy.zoo.entry("cartpole/2d").path.read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("show", "takes one name"),
        ("list cartpole", "takes no name"),
        ("copy cartpole", "takes a name and a file"),
        ("show cartpool", "did you mean cartpole"),
        ("list --quick", "--quick goes with zoo verify, not with list"),
        ("show cartpole --seed 0", "--seed goes with zoo verify, not with show"),
        ("copy cartpole file --seed 3", "--seed goes with zoo verify, not with copy"),
        ("sell", "must be one of list, show, copy, verify"),
        ("verify nothing", "The zoo has no dataset 'nothing'"),
    ],
)
def test_mistakes_are_one_sentence(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["zoo", *words.split()]) == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert said in found.err
    assert found.err.count("\n") == 1


@pytest.mark.parametrize(("mean", "code"), [(500.0, 0), (300.0, 1)])
def test_verify_ends_with_1_where_a_dataset_falls_short(
    mean: float, code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(verification, "evaluate", lambda *_, **__: {"card": score(mean, sd=1.0)})
    assert main(["zoo", "verify", "cartpole"]) == code
    assert ("FALLS SHORT" in capsys.readouterr().out) == bool(code)
    assert main(["zoo", "verify", "cartpole", "--json"]) == code
    (said,) = json.loads(capsys.readouterr().out)["verified"]
    assert (said["falls_short"], said["measured"]["mean"]) == (bool(code), mean)


def test_show_and_merge_take_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "brax/hopper@4", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["examples"] == 4
    assert main(["merge", "cartpole", "cartpole/2d", "--out", str(tmp_path / "both.safetensors")]) == 0
    assert floppy.load(tmp_path / "both.safetensors").card.task == "ndcartpole/1+ndcartpole/2"


# --- Scores beside random play. ---


def test_a_score_is_compared_in_standard_errors_of_both_means() -> None:
    """The score's standard error is 30 / sqrt(100) = 3, random play's 15.68 / 3.92 = 4: 5 of the difference."""
    own = {"mean": 31.0, "sd": 30.0, "learners": 100}
    assert compared(own, 20.0, (12.16, 27.84), 20).is_clear
    assert not compared(own | {"mean": 29.0}, 20.0, (12.16, 27.84), 20).is_clear
    assert compared(own, 20.0, (12.16, 27.84), 20).difference == 11.0


def test_of_one_learner_the_episodes_say_how_well_its_score_is_known() -> None:
    """Its interval of 23.52 is a standard error of 6; with random play's 8 that is 10 of the difference."""
    one = {"mean": 41.0, "sd": 0.0, "learners": 1, "ci95": [29.24, 52.76]}
    assert compared(one, 20.0, (4.32, 35.68), 20).is_clear
    assert not compared(one | {"mean": 39.0}, 20.0, (4.32, 35.68), 20).is_clear


def test_labelled_images_are_compared_with_the_commonest_class(monkeypatch: pytest.MonkeyPatch) -> None:
    task = SimpleNamespace(
        split="test",
        labelled=lambda split=None: SimpleNamespace(labels=np.array([0, 1, 1, 2])),
        with_split=lambda split: task,
        actions=None,
        task_id="images/own",
        observation_shape=(2, 2, 1),
        max_steps=1,
        max_return=100.0,
        package="floppy",
    )
    monkeypatch.setattr(random_play, "evaluate_random", None)
    found = beside_random(task, {"mean": 80.0, "sd": 1.0, "learners": 4}, 0)  # type: ignore[arg-type]
    assert found is not None
    assert (found.random, found.episodes, found.difference, found.is_clear) == (50.0, 0, 30.0, True)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "11.0 above random play, 20.0 over 20 episodes\n"),
        ({"is_clear": False}, "not clearly above random play, 20.0 over 20 episodes: a longer run"),
        ({"episodes": 0}, "11.0 above the commonest class, 20.0\n"),
    ],
)
def test_distill_says_how_its_score_stands(changes: dict[str, Any], said: str) -> None:
    beside = compared({"mean": 31.0, "sd": 30.0, "learners": 100}, 20.0, (12.16, 27.84), 20).as_json()
    assert _beside_text(beside | changes).startswith(said)
    assert _beside_text(None) == ""


def test_a_budget_of_time_keeps_some_for_random_play() -> None:
    assert [_less_random_play(seconds) for seconds in (None, 60.0, 600.0)] == [None, 57.0, 590.0]


def test_an_environment_that_fails_after_the_run_spoils_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Score:
        raise FloppyError("The environment hung.")

    monkeypatch.setattr(random_play, "evaluate_random", fails)
    assert beside_random(floppy.make_task("cartpole"), {"mean": 80.0, "sd": 1.0, "learners": 4}, 0) is None
