"""The command line: results on stdout, all else on stderr, and bad input refused in one line that costs nothing."""

import dataclasses
import errno
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import safetensors.numpy
from probes import hand_dataset

from floppy import cli
from floppy.cli import COMMANDS, apply_budget, main
from floppy.dataset import load, save
from floppy.distill import DistillConfig
from floppy.errors import FloppyError
from floppy.learners import NAMED_DISTRIBUTIONS
from floppy.outer import HaDES
from floppy.tasks import list_tasks

PUBLISHED = Path(__file__).parents[2] / "shared/reference/ppmo/ndcartpole-1d-k2.npz"

SMALL = shlex.split(
    "--learners 2 --environments 2 --horizon 8 --epochs 1 --minibatch-size 32 --selection-learners 2 "
    "--selection-episodes 1 --distribution width=16:depth=2:initialiser=xavier"
)
"""Options of a run that is quick to compile."""

BROKEN = {"empty": b"", "garbage": b"\x93NUMPY but not really\n" * 9, "zeros": bytes(100)}

Run = Callable[..., Any]
Refuse = Callable[..., str]

pytestmark = pytest.mark.usefixtures("quick_compile")


@pytest.fixture(autouse=True)
def in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command that must succeed; gives the JSON object that it prints, and nothing else may be there."""

    def run(*words: str | Path) -> Any:
        code = main([*map(str, words), "--json"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        assert "Traceback" not in captured.err
        assert captured.out.count("\n") == 1
        return json.loads(captured.out, parse_constant=pytest.fail)

    return run


@pytest.fixture
def refuse(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Runs a command that must be refused before any work; gives the sentence."""

    def work(*_: object, **__: object) -> None:
        pytest.fail("the command was accepted: work began")

    monkeypatch.setattr(importlib.import_module("floppy.distill"), "_advance", work)

    def refuse(*words: str | Path) -> str:
        before = snapshot(tmp_path)
        code = main(list(map(str, words)))
        captured = capsys.readouterr()
        assert code == 2
        assert captured.out == ""
        sentence = one_sentence(captured.err)
        assert snapshot(tmp_path) == before
        return sentence

    return refuse


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    path = tmp_path / "hand.safetensors"
    save(hand_dataset(), path)
    return path


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: the bytes of files, None for folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


def one_sentence(err: str) -> str:
    assert err.startswith("floppy: ")
    assert err.endswith((".\n", "?\n"))
    assert err.count("\n") == 1
    assert "Traceback" not in err
    assert len(err) < 600
    return err


def in_subprocess(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "floppy", *words]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )


def write_npz(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "observations": np.arange(12.0).reshape(3, 4),
        "targets": np.linspace(-1.0, 1.0, 6).reshape(3, 2),
        "inner_lr": np.float32(0.5),
        "meta": np.array("text is left out"),
    }
    np.savez(path, **{name: array for name, array in (arrays | changes).items() if array is not None})
    return path


# --- What each command gives back.


def test_distill_prints_its_score_and_writes_a_run(tmp_path: Path, run: Run) -> None:
    words = ["distill", "cartpole", *SMALL, "--budget", "2steps", "--out", "a run"]
    result = run(*words)
    assert list(result) == [
        "task",
        "dataset",
        "score",
        "outer_steps",
        "env_steps",
        "seconds",
        "finished",
        "interrupted",
    ]
    assert (result["task"], result["dataset"]) == ("ndcartpole/1", "a run/dataset.safetensors")
    assert (result["outer_steps"], result["env_steps"]) == (2, 2 * 2 * 2 * 8)
    assert result["seconds"] > 0
    assert {"mean", "sd", "learners", "episodes"} <= result["score"].keys()
    card = load(tmp_path / "a run/dataset.safetensors").card
    assert card.score == result["score"]
    assert card.command == shlex.join(["floppy", *words, "--json"])
    assert 1 <= result["score"]["mean"] <= 500


def test_baseline_ppo_prints_its_score_and_keeps_the_run_it_is_told_to(tmp_path: Path, run: Run) -> None:
    result = run("baseline", "cartpole", *SMALL, "--budget", "1steps", "--episodes", "2", "--out", "ppo")
    assert result.keys() == {"task", "method", "score", "outer_steps", "env_steps", "finished", "seconds"}
    assert (result["task"], result["method"]) == ("ndcartpole/1", "ppo")
    assert (result["score"]["learners"], result["score"]["episodes"]) == (1, 2)
    kept = load(tmp_path / "ppo/dataset.safetensors")
    assert kept.card.is_plain_policy
    assert kept.examples == 0


def test_a_baseline_that_ran_out_of_time_is_gone_on_with(run: Run) -> None:
    words = [
        "baseline",
        "cartpole",
        *SMALL,
        "--outer-steps",
        "2",
        "--evaluate-every",
        "1",
        "--episodes",
        "2",
        "--out",
        "r",
    ]
    part = run(*words, "--budget", "0.001s")
    assert (part["outer_steps"], part["finished"]) == (1, False)
    whole = run(*words, "--resume")
    assert (whole["outer_steps"], whole["finished"]) == (2, True)


def test_baseline_random_prints_its_score_and_writes_nothing(tmp_path: Path, run: Run) -> None:
    result = run("baseline", "cartpole", "--method", "random", "--episodes", "40")
    assert (result["task"], result["method"]) == ("ndcartpole/1", "random")
    assert (result["score"]["learners"], result["score"]["episodes"]) == (1, 40)
    assert 15 < result["score"]["mean"] < 30  # random actions hold the pole for about 22 steps
    assert snapshot(tmp_path) == {}


def test_train_times_itself_and_saves_the_policies(dataset: Path, tmp_path: Path, run: Run) -> None:
    result = run("train", dataset, "--learners", "3", "--save", "policies.safetensors")
    assert (result["task"], result["dataset"], result["learners"]) == ("ndcartpole/1", str(dataset), 3)
    assert result["seconds"] > 0
    assert result["policies"] == "policies.safetensors"
    tensors = safetensors.numpy.load_file(tmp_path / "policies.safetensors")
    assert tensors["layers/0/kernel"].shape == (3, 4, 64)
    assert tensors["layers/2/bias"].shape == (3, 2)
    assert all(np.isfinite(tensor).all() for tensor in tensors.values())
    assert not np.array_equal(tensors["layers/0/kernel"][0], tensors["layers/0/kernel"][1])
    run("train", dataset, "--learners", "2", "--save", "policies.safetensors", "--overwrite")
    assert safetensors.numpy.load_file(tmp_path / "policies.safetensors")["layers/0/kernel"].shape == (2, 4, 64)


def test_evaluate_prints_a_score_per_distribution(dataset: Path, run: Run) -> None:
    words = ["evaluate", dataset, "--learners", "2", "--episodes", "3", "--distribution", "card,lambda"]
    result = run(*words)
    assert list(result) == ["task", "dataset", "distributions"]
    assert (result["task"], result["dataset"]) == ("ndcartpole/1", str(dataset))
    assert list(result["distributions"]) == ["card", "lambda"]
    for score in result["distributions"].values():
        assert {"mean", "sd", "ci95", "learners", "episodes", "max_share"} <= score.keys()
        assert (score["learners"], score["episodes"]) == (2, 3)
        assert score["ci95"][0] <= score["mean"] <= score["ci95"][1]
        assert 0 <= score["max_share"] <= 1
    assert run(*words) == result
    assert run(*words, "--seed", "1") != result
    assert run(*words, "--task", "cartpole") == result


def test_evaluate_all_means_the_six_of_table_1(dataset: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    asked: list[str] = []

    def remember(*_: object, distributions: list[str], **__: object) -> dict[str, Any]:
        asked.extend(distributions)
        return {}

    monkeypatch.setattr(cli, "evaluate", remember)
    run("evaluate", dataset, "--distribution", "all,width=8")
    assert asked == [*NAMED_DISTRIBUTIONS, "width=8"]
    assert len(NAMED_DISTRIBUTIONS) == 6


def test_show_prints_the_card(dataset: Path, run: Run) -> None:
    result = run("show", dataset)
    assert result == load(dataset).describe()
    assert result["card"]["task"] == "ndcartpole/1"


def test_tasks_lists_them_all(run: Run) -> None:
    listed = [entry["task"] for entry in run("tasks")["tasks"]]
    assert listed == list_tasks()
    assert {"ndcartpole/1", "gymnax/Breakout-MinAtar"} <= set(listed)


@pytest.mark.parametrize("name", ["targets", "actions", "y_mean"])
def test_import_then_evaluate(tmp_path: Path, run: Run, name: str) -> None:
    arrays = {"targets": None} | {name: np.linspace(-1.0, 1.0, 6).reshape(3, 2)}
    words = ["import", write_npz(tmp_path / "a.npz", **arrays), "--task", "cartpole", "--out", "new/b.safetensors"]
    assert run(*words) == {"task": "ndcartpole/1", "dataset": "new/b.safetensors", "examples": 3}
    written = load("new/b.safetensors")
    np.testing.assert_array_equal(written.observations, np.arange(12.0).reshape(3, 4))
    np.testing.assert_array_equal(written.targets, np.linspace(-1.0, 1.0, 6, dtype=np.float32).reshape(3, 2))
    assert written.inner_rate == 0.5
    assert written.card.command == shlex.join(["floppy", *map(str, words), "--json"])
    scores = run("evaluate", "new/b.safetensors", "--learners", "2", "--episodes", "3")["distributions"]
    assert scores["card"]["learners"] == 2
    run(*words, "--overwrite", "--rate", "0.25")
    assert load("new/b.safetensors").inner_rate == 0.25


def test_import_takes_a_continuous_task_with_a_normaliser(tmp_path: Path, run: Run) -> None:
    arrays = {
        "observations": np.ones((2, 3)),
        "targets": np.ones((2, 1)),
        "log_std": np.zeros(1),
        "obs_mean": np.full(3, 0.5),
        "obs_var": np.full(3, 2.0),
    }
    write_npz(tmp_path / "a.npz", **arrays)
    run("import", "a.npz", "--task", "pendulum", "--out", "b.safetensors", "--cloning", "AdamSteps", "--steps", "7")
    written = load("b.safetensors")
    assert written.card.cloning["steps"] == 7
    assert written.card.normaliser == "frozen"
    for name in ("log_std", "obs_mean", "obs_var"):
        np.testing.assert_array_equal(getattr(written, name), arrays[name])


def test_import_takes_the_authors_published_dataset(run: Run) -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"the reference data is not here: {PUBLISHED}")
    run("import", PUBLISHED, "--task", "ndcartpole/1", "--out", "published.safetensors")
    with np.load(PUBLISHED) as arrays:
        np.testing.assert_array_equal(load("published.safetensors").targets, arrays["targets"])
    scores = run("evaluate", "published.safetensors", "--learners", "20", "--episodes", "3")["distributions"]
    assert scores["card"]["mean"] > 400  # the paper gives 500


# --- For people.


@pytest.mark.parametrize("command", ["show", "train", "evaluate"])
def test_text_names_the_task(dataset: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    extra = ["--learners", "2", "--episodes", "3"] if command == "evaluate" else []
    assert main([command, str(dataset), *extra]) == 0
    assert "ndcartpole/1" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words", [[], ["--help"], ["-h"], ["--version"], *([name, "--help"] for name in COMMANDS)], ids=shlex.join
)
def test_help_is_on_stdout(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    if "--version" not in words:
        expected = list(COMMANDS) if len(words) < 2 else [words[0], "--help", "--json"]
        assert all(word in captured.out for word in expected)


def test_help_of_distill_shows_the_defaults_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for task in ("ndcartpole/1", "ndcartpole/3"):
        assert main(["distill", task, "--help"]) == 0
        shown.append(" ".join(capsys.readouterr().out.split()))
    assert "k. (default: 2)" in shown[0]
    assert "k. (default: 4)" in shown[1]


def test_results_and_progress_keep_apart(tmp_path: Path) -> None:
    words = ["distill", "cartpole", *SMALL, "--budget", "2steps", "--out", "run", "--json"]
    done = in_subprocess(*words, JAX_DISABLE_MOST_OPTIMIZATIONS="1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["outer_steps"] == 2
    assert "step 2/2" in done.stderr
    assert load("run/dataset.safetensors").card.command == shlex.join(["floppy", *words])


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_a_process_refuses_in_one_sentence(tmp_path: Path, encoding: str) -> None:
    done = in_subprocess("distill", "cartpole", "--exampels", "3", PYTHONIOENCODING=encoding)
    assert done.returncode == 2
    assert done.stdout == ""
    sentence = one_sentence(done.stderr)
    assert "--exampels" in sentence
    assert "did you mean --examples" in sentence
    assert snapshot(tmp_path) == {}


def test_a_reader_who_has_seen_enough_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "floppy", "tasks"], stdout=writer, stderr=subprocess.PIPE, timeout=300, check=False
    )
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def test_ctrl_c_leaves_no_traceback(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "load", interrupt)
    assert main(["show", str(dataset)]) == 130
    assert capsys.readouterr() == ("", "floppy: interrupted\n")


# --- Bad input.


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("nonsense", "distill, rollback, train, evaluate, baseline, import, show, tasks"),
        ("--nonsense", "no command"),
        ("distill", "no task"),
        ("distill --examples 2", "no task"),
        ("baseline", "no task"),
        ("distill cartpol", "did you mean cartpole?"),
        ("distill ndcartpol/2", "did you mean ndcartpole/2?"),
        ("distill gymnax/acrobot", "did you mean gymnax/Acrobot-v1?"),
        ("baseline breakuot", "did you mean breakout?"),
        ("distill ''", "no task"),
        ("distill ndcartpole/0", "number of dimensions"),
        ("distill ndcartpole/²", "number of dimensions"),
        ("distill ndcartpole/" + "9" * 5000, "number of dimensions"),
        ("distill cartpole extra", "extra"),
        ("distill cartpole --nonsense 3", "--nonsense"),
        ("distill cartpole --exampels 3", "did you mean --examples"),
        ("distill cartpole --outer-steps 2.5", "a whole number was expected, got '2.5'"),
        ("distill cartpole --rate fast", "a number was expected, got 'fast'"),
        ("distill cartpole --examples", "--examples"),
        ("distill cartpole --out", "--out"),
        ("distill cartpole --anneal maybe", "maybe"),
        ("distill cartpole --outer nonsense", "ppmo, hades"),
        ("distill cartpole --outer", "--outer"),
        ("distill cartpole --outer hades --recipe ppmo-paper", "give one of the two"),
        ("distill cartpole --recipe", "--recipe"),
        ("distill cartpole --recipe nonsense", "ppmo, ppmo-robust, ppmo-paper, ppmo-published, hades"),
        ("distill cartpole --cloning", "--cloning"),
        ("distill cartpole --cloning Nonsense", "GradientStep, AdamSteps"),
        ("distill cartpole --cloning.loss nonsense", "mse, cross-entropy"),
        ("distill cartpole --cloning.loss gaussian-nll", "mse, cross-entropy"),
        ("distill pendulum --cloning.loss cross-entropy", "mse, gaussian-nll"),
        ("distill cartpole --encoder-layers 9", "3 layers"),
        ("distill cartpole --encoder-layers 3", "give 0 examples"),
        ("distill cartpole --encoder-layers 1 --distribution random-depth", "one distribution of fixed width"),
        ("distill cartpole --learners 3 --distribution lambda,xavier", "multiple of 2"),
        ("distill cartpole --resume", "no run"),
        ("distill cartpole --resume --out nowhere", "no run"),
        ("rollback", "got no task"),
        ("rollback cartpole --levels 4", "give 0 to 3"),
        ("rollback cartpole --encoder-layers 1", "choose by levels"),
        ("rollback cartpole --resume --overwrite", "one of --resume and --overwrite"),
        ("baseline cartpole --examples 3", "give 0 examples"),
        ("distill cartpole --examples 0", "for a plain policy, as many encoder_layers as the network has"),
        ("baseline cartpole --method nonsense", "ppo"),
        ("baseline cartpole --budget nonsense", "500steps"),
        ("baseline cartpole --episodes 0", "at least 1"),
        ("tasks extra", "extra"),
        ("show", "PATH"),
        ("train", "PATH"),
        ("evaluate", "PATH"),
        ("import", "PATH"),
        ("import a.npz", "--out"),
        ("import a.npz --task cartpole", "--out"),
        ("show a b", "b"),
        ("show nowhere.safetensors", "no such file"),
        ("train nowhere.safetensors", "no such file"),
        ("evaluate nowhere.safetensors", "no such file"),
        ("import nowhere.npz --task cartpole --out b.safetensors", "nowhere.npz"),
        ("show .", "folder"),
    ],
)
def test_nonsense_is_refused(refuse: Refuse, words: str, hint: str) -> None:
    assert hint in refuse(*shlex.split(words))


WHOLE_NUMBERS = ["0", "-1", "1.5", "nan", "inf", "", "x", "9" * 30]
ABOVE_ZERO = ["0", "-1", "nan", "inf", "-inf", "", "x"]
AT_LEAST_ZERO = ["-1", "nan", "inf", "", "x"]
SHARE = ["-0.1", "1.5", "nan", "inf", "", "x"]
SEEDS = ["-1", "1.5", "nan", "", "x", str(2**32), "9" * 400]
DISTILL_NUMBERS = {
    "examples": WHOLE_NUMBERS,
    "seed": SEEDS,
    "outer-steps": WHOLE_NUMBERS,
    "encoder-layers": WHOLE_NUMBERS[1:],
    "evaluate-every": WHOLE_NUMBERS,
    "selection-learners": WHOLE_NUMBERS,
    "selection-episodes": WHOLE_NUMBERS,
    "score-learners": WHOLE_NUMBERS,
    "score-episodes": WHOLE_NUMBERS,
    "learners": WHOLE_NUMBERS,
    "environments": WHOLE_NUMBERS,
    "horizon": WHOLE_NUMBERS,
    "epochs": WHOLE_NUMBERS,
    "minibatch-size": WHOLE_NUMBERS,
    "critic-width": WHOLE_NUMBERS,
    "cloning.steps": WHOLE_NUMBERS,
    "initial-rate": ABOVE_ZERO,
    "rate": ABOVE_ZERO,
    "critic-rate": ABOVE_ZERO,
    "max-grad-norm": ABOVE_ZERO,
    "adam-eps": ABOVE_ZERO,
    "clip": ABOVE_ZERO,
    "discount": SHARE,
    "gae-lambda": SHARE,
    "entropy-bonus": ["nan", "inf", "-inf", "", "x"],
    "encoder-rate": AT_LEAST_ZERO,
    "target-kl": AT_LEAST_ZERO,
    "least-std": AT_LEAST_ZERO,
    "teacher-weight": ABOVE_ZERO,
    "teacher-share": [*ABOVE_ZERO, "1.1"],
}
ADAM_NUMBERS = {"cloning.max-grad-norm": AT_LEAST_ZERO, "cloning.eps": ABOVE_ZERO, "cloning.eps-root": AT_LEAST_ZERO}

HADES_NUMBERS = {
    "population": [*WHOLE_NUMBERS, "1", "7"],
    "initialisations": WHOLE_NUMBERS,
    "environments": WHOLE_NUMBERS,
    "horizon": WHOLE_NUMBERS[1:],
    "chunk": WHOLE_NUMBERS[1:],
    "sigma": ABOVE_ZERO,
    "sigma-decay": ABOVE_ZERO,
    "rate": ABOVE_ZERO,
    "rate-decay": ABOVE_ZERO,
    "smoothness": AT_LEAST_ZERO,
    "target-noise": ABOVE_ZERO,
}


def pairs(table: dict[str, list[str]]) -> list[tuple[str, str]]:
    return [(option, value) for option, values in table.items() for value in values]


@pytest.mark.parametrize(("option", "value"), pairs(DISTILL_NUMBERS))
def test_distill_refuses_the_number(refuse: Refuse, option: str, value: str) -> None:
    refuse("distill", "cartpole", f"--{option}", value)


@pytest.mark.parametrize(("option", "value"), pairs(ADAM_NUMBERS))
def test_adam_steps_refuse_the_number(refuse: Refuse, option: str, value: str) -> None:
    refuse("distill", "cartpole", "--cloning", "AdamSteps", f"--{option}", value)


@pytest.mark.parametrize(("option", "value"), pairs(HADES_NUMBERS))
def test_hades_refuses_the_number(refuse: Refuse, option: str, value: str) -> None:
    refuse("distill", "cartpole", "--outer", "hades", f"--{option}", value)


def test_every_number_of_distill_is_put_to_the_test() -> None:
    names = set(DISTILL_NUMBERS) | set(ADAM_NUMBERS)
    general = {name.removeprefix("cloning.").replace("-", "_") for name in names}
    evolved = {name.replace("-", "_") for name in HADES_NUMBERS}
    defaults = DistillConfig("cartpole")
    for part, options in ((defaults, general), (defaults.outer, general), (HaDES(), evolved)):
        numbers = {f.name for f in dataclasses.fields(part) if type(getattr(part, f.name)) in (int, float)}
        assert numbers <= options


@pytest.mark.parametrize("value", SEEDS)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_seeds_are_refused(dataset: Path, refuse: Refuse, command: str, value: str) -> None:
    assert "seed" in refuse(command, dataset, "--seed", value)


@pytest.mark.parametrize("value", SEEDS)
def test_baseline_refuses_the_seed(refuse: Refuse, value: str) -> None:
    assert "seed" in refuse("baseline", "cartpole", "--method", "random", "--seed", value)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan", "", "x"])
@pytest.mark.parametrize("words", ["train DATASET --learners", "evaluate DATASET --learners"])
def test_counts_of_learners_are_refused(dataset: Path, refuse: Refuse, words: str, value: str) -> None:
    assert "learners" in refuse(*words.replace("DATASET", str(dataset)).split(), value)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "nan", "", "x"])
@pytest.mark.parametrize("words", ["evaluate DATASET", "baseline cartpole", "baseline cartpole --method random"])
def test_counts_of_episodes_are_refused(dataset: Path, refuse: Refuse, words: str, value: str) -> None:
    assert "episodes" in refuse(*words.replace("DATASET", str(dataset)).split(), "--episodes", value)


@pytest.mark.parametrize(
    "budget",
    [
        "nonsense",
        "5",
        "steps",
        "s",
        ".s",
        "0s",
        "0.0m",
        "0steps",
        "-5s",
        "+5s",
        "1.5steps",
        "5 s",
        "5ss",
        "5sm",
        "1e3s",
        "nans",
        "infs",
        "²s",
        "²steps",
        "9999999999steps",
        "9" * 5000 + "s",
    ],
)
def test_budgets_are_refused(refuse: Refuse, budget: str) -> None:
    assert "500steps, 60s or 10m" in refuse("distill", "cartpole", f"--budget={budget}")


@pytest.mark.parametrize(
    ("budget", "steps", "seconds"),
    [("", 7, None), ("500steps", 500, None), ("60s", 7, 60.0), ("1.5m", 7, 90.0), ("2h", 7, 7200.0), ("007s", 7, 7.0)],
)
def test_budgets_are_read(budget: str, steps: int, seconds: float | None) -> None:
    config, limit = apply_budget(DistillConfig("cartpole", outer_steps=7), budget)
    assert (config.outer_steps, limit) == (steps, seconds)


NO_DISTRIBUTIONS = [
    "nonsense",
    "small",
    "lambda,,xavier",
    ",",
    "",
    "width=0",
    "width=3..2",
    "width=1..2..3",
    "width=",
    "width=²",
    "width=1.5",
    "width=nan",
    "width=-3",
    "width=" + "9" * 30,
    "depth=0..2",
    "initialiser=",
    "initialiser=nonsense",
    "activation=nonsense",
    "nonsense=3",
    "width",
]


@pytest.mark.parametrize(
    ("command", "distribution"),
    [
        *((command, text) for command in ("distill", "evaluate") for text in NO_DISTRIBUTIONS),
        *(("import", text) for text in NO_DISTRIBUTIONS if text),  # nothing: as the file says
    ],
)
def test_distributions_are_refused(dataset: Path, refuse: Refuse, command: str, distribution: str) -> None:
    words: dict[str, list[str | Path]] = {
        "distill": ["distill", "cartpole"],
        "evaluate": ["evaluate", dataset],
        "import": ["import", write_npz(dataset.with_suffix(".npz")), "--task", "cartpole", "--out", "b.safetensors"],
    }
    refuse(*words[command], f"--distribution={distribution}")


@pytest.mark.parametrize("command", ["show", "train", "evaluate"])
@pytest.mark.parametrize("damage", ["truncated", *BROKEN])
def test_damaged_files_are_refused(dataset: Path, refuse: Refuse, command: str, damage: str) -> None:
    dataset.write_bytes(BROKEN.get(damage, dataset.read_bytes()[:-7]))
    assert str(dataset) in refuse(command, dataset)


@pytest.mark.parametrize(
    "changes",
    [
        {"cloning": {"kind": "Nonsense"}},
        {"cloning": {"kind": "GradientStep", "nonsense": 1}},
        {"cloning": {"kind": "GradientStep", "loss": "nonsense"}},
        {"cloning": {"kind": "GradientStep", "loss": ["mse"]}},
        {"cloning": {"kind": "GradientStep", "steps": 0}},
        {"cloning": {"kind": "GradientStep", "steps": 1.5}},
        {"cloning": {"kind": "GradientStep", "steps": "1"}},
        {"cloning": {"kind": "AdamSteps", "loss": "mse", "eps": "x"}},
        {"cloning": {"kind": "AdamSteps", "loss": "mse", "max_grad_norm": None}},
        {"learners": [{"width": [1.5, 2.5]}]},
        {"learners": [{"width": 5}]},
        {"learners": [{"width": [1, 2, 3]}]},
        {"learners": [{"initialiser": "orthogonal"}]},
        {"learners": [{"activation": {}}]},
        {"learners": [{"nonsense": 1}]},
        {"learners": [{"init_seed": 1.5}]},
        {"learners": [{"init_seed": "1"}]},
        {"learners": [{"init_seed": 2**32}]},
        {"learners": [{"initialiser": ["flax-orthogonal"]}]},
    ],
    ids=json.dumps,
)
@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_cards_that_cannot_be_followed_are_refused(
    dataset: Path, refuse: Refuse, command: str, changes: dict[str, Any]
) -> None:
    save(hand_dataset(changes), dataset, overwrite=True)
    refuse(command, dataset)


def test_a_normaliser_per_evaluation_is_followed(dataset: Path, run: Run) -> None:
    words = ["evaluate", dataset, "--learners", "2", "--episodes", "3"]
    without = run(*words)["distributions"]["card"]
    save(hand_dataset({"normaliser": "per-evaluation"}), dataset, overwrite=True)
    score = run(*words)["distributions"]["card"]
    assert 8 <= score["mean"] <= 500
    assert score["mean"] != without["mean"]


def test_a_dataset_without_the_rate_that_its_recipe_needs_is_refused(dataset: Path, refuse: Refuse) -> None:
    save(hand_dataset(inner_rate=None), dataset, overwrite=True)
    assert "inner_rate" in refuse("train", dataset)


@pytest.mark.parametrize("task", ["ndcartpole/2", "gymnax/Acrobot-v1", "nonsense/1"])
def test_a_dataset_whose_card_names_another_task_is_refused(dataset: Path, refuse: Refuse, task: str) -> None:
    save(hand_dataset({"task": task}), dataset, overwrite=True)
    assert task in refuse("evaluate", dataset)


def test_a_dataset_of_another_task_is_refused(dataset: Path, refuse: Refuse) -> None:
    sentence = refuse("evaluate", dataset, "--task", "acrobot")
    assert "ndcartpole/1" in sentence
    assert "gymnax/Acrobot-v1" in sentence
    assert "did you mean cartpole?" in refuse("evaluate", dataset, "--task", "cartpol")


# --- Import.


@pytest.mark.parametrize(
    ("changes", "hint"),
    [
        ({"observations": None}, "observations"),
        ({"targets": None}, "targets"),
        ({"inner_lr": None}, "--rate"),
        ({"observations": np.ones((3, 5))}, "(3, 5)"),
        ({"observations": np.ones(4)}, "(4,)"),
        ({"observations": np.ones((2, 4))}, "targets"),
        ({"observations": np.ones((0, 4)), "targets": np.ones((0, 2))}, "0 examples"),
        ({"targets": np.ones((3, 3))}, "(3, 3)"),
        ({"targets": np.full((3, 2), np.nan)}, "NaN"),
        ({"observations": np.full((3, 4), 1e300)}, "infinity"),
        ({"inner_lr": np.float32(0)}, "inner_rate"),
        ({"inner_lr": np.float32(-1)}, "inner_rate"),
        ({"inner_lr": np.ones(2)}, "inner_rate"),
        ({"y_logstd": np.zeros(2)}, "log_std"),
        ({"obs_mean": np.zeros(4)}, "obs_var"),
        ({"obs_mean": np.zeros(4), "obs_var": -np.ones(4)}, "obs_var"),
        ({"obs_mean": np.zeros(3), "obs_var": np.ones(3)}, "obs_mean"),
        ({"observations": np.array([["a"] * 4] * 3)}, "observations"),
        ({"observations": np.ones((3, 4), complex)}, "observations"),
        ({"targets": np.array([[object()] * 2] * 3)}, "a.npz"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_import_refuses_arrays(tmp_path: Path, refuse: Refuse, changes: dict[str, Any], hint: str) -> None:
    write_npz(tmp_path / "a.npz", **changes)
    assert hint in refuse("import", "a.npz", "--task", "cartpole", "--out", "b.safetensors")


def test_import_asks_for_the_task_where_the_file_does_not_say_it(tmp_path: Path, refuse: Refuse) -> None:
    write_npz(tmp_path / "a.npz")
    assert "--task" in refuse("import", "a.npz", "--out", "b.safetensors")


@pytest.mark.parametrize("damage", ["truncated", "npy", "pickle", *BROKEN])
def test_import_refuses_files(tmp_path: Path, refuse: Refuse, damage: str) -> None:
    path = write_npz(tmp_path / "a.npz")
    content = path.read_bytes()
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, np.ones((3, 4)))
    elif damage == "pickle":
        path.write_bytes(b"\x80\x04cposix\nsystem\n(X\x0c\x00\x00\x00touch hacked\x85R.")
    else:
        path.write_bytes(BROKEN.get(damage, content[: len(content) // 2]))
    assert "a.npz" in refuse("import", "a.npz", "--task", "cartpole", "--out", "b.safetensors")


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("--task nonsense", "nonsense"),
        ("--task acrobot", "(3, 3)"),
        ("--cloning Nonsense", "GradientStep"),
        ("--loss nonsense", "mse, cross-entropy"),
        ("--loss gaussian-nll", "mse, cross-entropy"),
        ("--steps 0", "at least 1"),
        ("--steps 1.5", "--steps"),
        ("--rate nan", "NaN"),
        ("--rate inf", "infinity"),
        ("--rate 0", "above 0"),
        ("--rate -1", "above 0"),
        ("--rate ''", "--rate"),
        ("--rate x", "--rate"),
    ],
)
def test_import_refuses_options(tmp_path: Path, refuse: Refuse, words: str, hint: str) -> None:
    write_npz(tmp_path / "a.npz")
    assert hint in refuse("import", "a.npz", "--task", "cartpole", "--out", "b.safetensors", *shlex.split(words))


# --- Places to write to.


def writing_commands(dataset: Path) -> dict[str, list[str | Path]]:
    """Every command that writes, but for its last word: where to."""
    return {
        "distill": ["distill", "cartpole", *SMALL, "--budget", "1steps", "--out"],
        "baseline": ["baseline", "cartpole", *SMALL, "--budget", "1steps", "--episodes", "1", "--out"],
        "train": ["train", dataset, "--save"],
        "import": ["import", write_npz(dataset.with_suffix(".npz")), "--task", "cartpole", "--out"],
    }


WRITING = ["distill", "baseline", "train", "import"]


@pytest.mark.parametrize("overwrite", [[], ["--overwrite"]], ids=["", "overwrite"])
@pytest.mark.parametrize("command", WRITING)
def test_output_below_a_file_is_refused(dataset: Path, refuse: Refuse, command: str, overwrite: list[str]) -> None:
    Path("a file").write_text("not a folder")
    assert "a file" in refuse(*writing_commands(dataset)[command], "a file/b.safetensors", *overwrite)


@pytest.mark.parametrize("command", WRITING)
def test_output_with_too_long_a_name_is_refused(dataset: Path, refuse: Refuse, command: str) -> None:
    assert os.strerror(errno.ENAMETOOLONG) in refuse(*writing_commands(dataset)[command], "x" * 300)


@pytest.mark.parametrize("command", WRITING)
def test_output_that_exists_is_refused(dataset: Path, refuse: Refuse, command: str) -> None:
    Path("taken").mkdir()
    for name in ("config.json", "metrics.jsonl", "dataset.safetensors"):
        (Path("taken") / name).write_text("precious")
    assert "taken" in refuse(*writing_commands(dataset)[command], "taken")
    if command in ("train", "import"):
        assert "taken" in refuse(*writing_commands(dataset)[command], "taken/config.json")


@pytest.mark.parametrize(
    "name", ["config.json", "metrics.jsonl", "dataset.safetensors", "checkpoints/latest.safetensors"]
)
@pytest.mark.parametrize("command", ["distill", "baseline"])
def test_any_part_of_an_earlier_run_is_refused(dataset: Path, refuse: Refuse, command: str, name: str) -> None:
    path = Path("taken") / name
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    assert "taken" in refuse(*writing_commands(dataset)[command], "taken")


@pytest.mark.parametrize(
    "words", ["--learners 3 --distribution lambda,xavier", "--rate nan", "--cloning.loss gaussian-nll", "--budget 1x"]
)
def test_bad_input_with_overwrite_loses_nothing(refuse: Refuse, words: str) -> None:
    Path("taken/checkpoints").mkdir(parents=True)
    for name in ("config.json", "metrics.jsonl", "dataset.safetensors", "checkpoints/latest.safetensors"):
        (Path("taken") / name).write_text("precious")
    refuse("distill", "cartpole", "--out", "taken", "--overwrite", *words.split())


def test_a_file_in_place_of_the_folder_is_refused(refuse: Refuse) -> None:
    Path("taken").write_text("precious")
    assert "taken is a file: give a folder" in refuse("distill", "cartpole", *SMALL, "--out", "taken")
    assert "No such file" in refuse("distill", "cartpole", *SMALL, "--out", "nothing", "--resume")


def test_a_folder_in_place_of_a_file_of_the_run_is_refused(refuse: Refuse) -> None:
    Path("taken/metrics.jsonl").mkdir(parents=True)
    Path("taken/config.json").write_text("{}")
    assert "metrics.jsonl" in refuse(
        "distill", "cartpole", *SMALL, "--budget", "1steps", "--out", "taken", "--overwrite"
    )


def test_a_disk_that_is_full_is_said_in_one_sentence(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(cli, "load", full)
    assert os.strerror(errno.ENOSPC) in refuse("show", dataset)


def test_messages_of_several_lines_become_one(dataset: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> None:
    def complain(*_: object) -> None:
        raise FloppyError("First this,\n  then that.")

    monkeypatch.setattr(cli, "load", complain)
    assert refuse("show", dataset) == "floppy: First this, then that.\n"


def test_a_bug_is_not_hidden(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(cli, "load", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["show", str(dataset)])


def test_the_command_line_leaves_the_compiler_as_it_was(run: Run, dataset: Path) -> None:
    before = jax.config.read("jax_enable_x64")
    run("show", dataset)
    assert jax.config.read("jax_enable_x64") == before
