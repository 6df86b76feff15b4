"""The command line: results on stdout, all else on stderr, and bad input refused in one line that costs nothing."""

import dataclasses
import errno
import importlib
import inspect
import json
import math
import os
import re
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
from npz_files import announce
from probes import hand_dataset

from floppy.cli import datasets
from floppy.cli.base import task_sources
from floppy.cli.field_options import field_texts
from floppy.cli.main import COMMANDS, HOMES, main
from floppy.cli.studies import summary_lines
from floppy.cloning.base import CLONINGS, defaults_of_kind
from floppy.dataset import DistilledDataset, load, save
from floppy.errors import FloppyError
from floppy.evaluation.evaluate import evaluate
from floppy.fields import BOUNDS
from floppy.learner.distribution import NAMED_DISTRIBUTIONS, parse_distributions
from floppy.learner.user_networks import NETWORKS
from floppy.outer import OUTER_LOOPS, HaDES
from floppy.recipes import RECIPES, apply_budget
from floppy.run.config import DistillConfig
from floppy.studies import STUDIES
from floppy.tasks import list_tasks
from floppy.teach.arrays import import_npz
from floppy.teach.codec import unpack
from floppy.teach.policy_file import load_policies

PUBLISHED = Path(__file__).parents[2] / "shared/reference/ppmo/ndcartpole-1d-k2.npz"

SMALL = shlex.split(
    "--learners 2 --environments 2 --horizon 8 --epochs 1 --minibatch-size 32 --selection-learners 2 "
    "--selection-episodes 1 --distribution width=16:depth=2:initialiser=xavier"
)
"""Options of a run that is quick to compile."""

BROKEN = {"empty": b"", "garbage": b"\x93NUMPY but not really\n" * 9, "zeros": bytes(100)}

Run = Callable[..., Any]
Refuse = Callable[..., str]


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

    monkeypatch.setattr(importlib.import_module("floppy.run.loop"), "_advance", work)

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


@pytest.mark.thorough
@pytest.mark.slow
def test_distill_prints_its_score_and_writes_a_run() -> None:
    words = ["distill", "cartpole", *SMALL, "--budget", "2steps", "--out", "a run", "--json"]
    done = in_subprocess(*words)
    assert done.returncode == 0, done.stderr
    assert "step 2/2" in done.stderr, "progress and results keep apart"
    result = json.loads(done.stdout)
    keys = "task dataset score beside_random outer_steps env_steps seconds finished interrupted"
    assert list(result) == keys.split()
    beside = result["beside_random"]
    assert beside["episodes"] == 20
    assert 10 < beside["random"] < 40
    assert beside["difference"] == pytest.approx(result["score"]["mean"] - beside["random"])
    assert (result["task"], result["dataset"]) == ("ndcartpole/1", "a run/dataset.safetensors")
    assert (result["outer_steps"], result["env_steps"]) == (2, 2 * 2 * 2 * 8)
    assert result["seconds"] > 0
    assert {"mean", "sd", "learners", "episodes"} <= result["score"].keys()
    assert 1 <= result["score"]["mean"] <= 500
    card = load("a run/dataset.safetensors").card
    assert card.score == result["score"]
    assert card.command == shlex.join(["floppy", *words])


@pytest.mark.thorough
@pytest.mark.slow
def test_baseline_ppo_keeps_the_run_it_is_told_to_and_goes_on_with_it(tmp_path: Path, run: Run) -> None:
    words = [
        "baseline",
        "cartpole",
        *SMALL,
        *["--outer-steps", "2", "--evaluate-every", "1", "--episodes", "2", "--out", "ppo"],
    ]
    part = run(*words, "--budget", "0.001s")
    assert part.keys() == {"task", "method", "score", "outer_steps", "env_steps", "finished", "seconds"}
    assert (part["task"], part["method"]) == ("ndcartpole/1", "ppo")
    assert (part["score"]["learners"], part["score"]["episodes"]) == (1, 2)
    assert (part["outer_steps"], part["finished"]) == (1, False)
    kept = load(tmp_path / "ppo/dataset.safetensors")
    assert kept.card.is_plain_policy
    assert kept.examples == 0
    whole = run(*words, "--resume")
    assert (whole["outer_steps"], whole["finished"]) == (2, True)


@pytest.mark.parametrize(("strategy", "rate"), [("SNES", HaDES(strategy="SNES").rate), ("Open_ES", 0.02)])
def test_a_baselines_strategy_has_its_own_rate(strategy: str, rate: float) -> None:
    words = ["cartpole", "--method", "neuroevolution", "--strategy", strategy, "--distribution", "depth=4"]
    config = COMMANDS["baseline"].parse(words).config
    assert (config.outer.strategy, config.outer.rate) == (strategy, rate)
    assert config.encoder_layers == 5


def test_baseline_random_prints_its_score_and_writes_nothing(tmp_path: Path, run: Run) -> None:
    result = run("baseline", "cartpole", "--method", "random", "--episodes", "40")
    assert (result["task"], result["method"]) == ("ndcartpole/1", "random")
    assert (result["score"]["learners"], result["score"]["episodes"]) == (1, 40)
    assert 15 < result["score"]["mean"] < 30  # random actions hold the pole for about 22 steps
    assert snapshot(tmp_path) == {}


@pytest.mark.slow
def test_train_times_itself_and_saves_the_policies(dataset: Path, tmp_path: Path, run: Run) -> None:
    result = run("train", dataset, "--learners", "3", "--save", "policies.safetensors")
    assert (result["task"], result["dataset"], result["learners"]) == ("ndcartpole/1", str(dataset), 3)
    assert result["seconds"] > 0
    assert result["policies"] == "policies.safetensors"
    policies = load_policies("policies.safetensors")
    assert (len(policies), policies.task, policies.is_ensemble) == (3, "ndcartpole/1", False)
    run("train", dataset, "--learners", "2", "--save", "policies.safetensors", "--overwrite", "--ensemble")
    assert (len(load_policies("policies.safetensors")), load_policies("policies.safetensors").is_ensemble) == (2, True)


@pytest.mark.slow
def test_evaluate_plays_a_policy_file(dataset: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    run("train", dataset, "--learners", "3", "--save", "policies.safetensors")
    result = run("evaluate", "policies.safetensors", "--episodes", "2")
    assert (result["task"], result["policies"]) == ("ndcartpole/1", "policies.safetensors")
    assert (result["score"]["learners"], result["score"]["episodes"]) == (3, 2)
    assert run("evaluate", "policies.safetensors", "--episodes", "2", "--seed", "1") != result
    assert main(["evaluate", "policies.safetensors", "--episodes", "2"]) == 0
    assert "ndcartpole/1: 3 policies x 2 episodes\nmean return" in capsys.readouterr().out
    assert main(["evaluate", "policies.safetensors", "--learners", "2", "--distribution", "lambda"]) == 2
    assert "leave --distribution, --learners out" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluate_prints_a_score_per_distribution(dataset: Path, run: Run) -> None:
    words = ["evaluate", dataset, "--learners", "2", "--episodes", "3", "--distribution", "card,lambda"]
    result = run(*words)
    assert list(result) == ["task", "distilled_for", "dataset", "distributions"]
    assert (result["task"], result["dataset"]) == ("ndcartpole/1", str(dataset))
    assert list(result["distributions"]) == ["card", "lambda"]
    for score in result["distributions"].values():
        assert {"mean", "sd", "worst", "ci95", "learners", "episodes", "max_share"} <= score.keys()
        assert (score["learners"], score["episodes"]) == (2, 3)
        assert score["ci95"][0] <= score["mean"] <= score["ci95"][1]
        assert 0 <= score["max_share"] <= 1
    assert run(*words) == result
    assert run(*words, "--seed", "1") != result
    assert run(*words, "--task", "cartpole") == result


@pytest.mark.slow
def test_evaluate_takes_another_cloning(dataset: Path, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["evaluate", str(dataset), "--learners", "2", "--episodes", "3"]
    result = run(*words, "--cloning", "AdamSteps", "--steps", "2", "--rate", "0.1")
    assert (result["cloning"]["kind"], result["cloning"]["steps"]) == ("AdamSteps", 2)
    assert result["distributions"] != run(*words)["distributions"]
    assert main([*words, "--cloning", "ImplicitStep", "--steps", "2"]) == 2
    assert "ImplicitStep has no --steps" in capsys.readouterr().err


def test_evaluate_has_the_defaults_of_the_function() -> None:
    function = {name: each.default for name, each in inspect.signature(evaluate).parameters.items()}
    command = {field.name: field.default for field in dataclasses.fields(datasets.Evaluate)}
    assert command["distribution"] == function.pop("distributions") == "card"
    assert function.pop("progress") is function.pop("cloning") is None
    assert command["cloning"] == ""
    assert {name: command[name] for name in function} | {"dataset": function["dataset"]} == function


def test_evaluate_all_means_the_six_of_table_1(dataset: Path, monkeypatch: pytest.MonkeyPatch, run: Run) -> None:
    asked: list[str] = []

    def remember(*_: object, distributions: str, **__: object) -> dict[str, Any]:
        asked.append(distributions)
        return {}

    monkeypatch.setattr(datasets, "evaluate", remember)
    run("evaluate", dataset, "--distribution", "all,width=8")
    assert asked == ["all,width=8"]
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


@pytest.mark.parametrize("kind", CLONINGS)
def test_import_gives_a_kind_of_cloning_its_own_defaults(tmp_path: Path, kind: str) -> None:
    made = datasets.Import(file=Path(write_npz(tmp_path / "a.npz")), out=Path("b.safetensors"), cloning=kind).recipe()
    assert made == defaults_of_kind(kind)["cloning"]


@pytest.mark.slow
def test_import_takes_the_authors_published_dataset(run: Run) -> None:
    if not PUBLISHED.exists():
        pytest.skip(f"the reference data is not here: {PUBLISHED}")
    run("import", PUBLISHED, "--task", "ndcartpole/1", "--out", "published.safetensors")
    with np.load(PUBLISHED) as arrays:
        np.testing.assert_array_equal(load("published.safetensors").targets, arrays["targets"])
    scores = run("evaluate", "published.safetensors", "--learners", "20", "--episodes", "3")["distributions"]
    assert scores["card"]["mean"] > 400  # the paper gives 500


# --- For people.


@pytest.mark.slow
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


def test_the_overview_says_what_each_command_does(capsys: pytest.CaptureFixture[str]) -> None:
    main([])
    lines = capsys.readouterr().out.splitlines()
    for name in COMMANDS:
        summary = (COMMANDS[name].__doc__ or "").partition("\n")[0]
        assert f"  {name:<14}{summary}" in lines
    assert set(COMMANDS) == set(HOMES) | set(STUDIES)


def test_help_of_distill_is_in_groups_and_what_people_change_comes_first(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["distill", "cartpole", "--help"]) == 0
    said = capsys.readouterr().out
    first = "examples distribution cloning outer recipe budget seed out resume overwrite"
    groups = ["dataset", "targets import", "learner", "network encoder-layers", "cloning", "initial-rate cloning.loss"]
    groups += ["outer-loop", "outer-steps horizon", "run", "evaluate-every no-early-stop json"]
    wanted = [rf"--{name}\b" for name in first.split()]
    for title, names in zip(groups[::2], groups[1::2], strict=True):
        wanted += [f"{title} options", *(rf"--{name}\b" for name in names.split())]
    assert re.search("TASK.*" + ".*".join(wanted), said, re.DOTALL)
    assert "-o PATH, --out PATH" in said
    assert all(name in said for names in (OUTER_LOOPS, CLONINGS, RECIPES) for name in names)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_a_text(name: str) -> None:
    for option in COMMANDS[name].parser(["cartpole"]).options.values():
        assert option.text.endswith("."), option.name


def test_texts_are_read_from_the_source() -> None:
    class Plain:
        """No dataclass."""

    assert field_texts(Plain) == {}
    assert field_texts(DistillConfig)["seed"] == "Seed of everything random."
    assert "\n" not in field_texts(DistillConfig)["distribution"]


def test_help_of_distill_shows_the_defaults_of_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    shown = []
    for task in ("ndcartpole/1", "ndcartpole/3"):
        assert main(["distill", task, "--help"]) == 0
        shown.append(" ".join(capsys.readouterr().out.split()))
    assert "k. (default: 2)" in shown[0]
    assert "k. (default: 4)" in shown[1]


@pytest.mark.slow
def test_a_process_refuses_in_one_sentence(tmp_path: Path) -> None:
    done = in_subprocess("distill", "cartpole", "--exampels", "3", PYTHONIOENCODING="ascii")
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
        [sys.executable, "-m", "floppy", "--help"], stdout=writer, stderr=subprocess.PIPE, timeout=300, check=False
    )
    os.close(writer)
    assert done.returncode == 128 + signal.SIGPIPE
    assert done.stderr == b""


def test_ctrl_c_leaves_no_traceback(
    dataset: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(datasets, "load", interrupt)
    assert main(["show", str(dataset)]) == 130
    assert capsys.readouterr() == ("", "floppy: interrupted\n")


# --- What users bring along.

OWN = """
import dataclasses
from typing import Any, ClassVar

import floppy
from floppy.fields import bounded

@floppy.register_outer_loop
@dataclasses.dataclass(frozen=True)
class Mine(floppy.PPMO):
    name: ClassVar[str] = "mine"
    zeal: int = bounded(3, least=1)
    \"\"\"How much.\"\"\"
    unseen: Any = None

@floppy.register_cloning
@dataclasses.dataclass(frozen=True)
class MyStep(floppy.GradientStep):
    warmth: float = bounded(0.5, above=0)
    \"\"\"How warm.\"\"\"

class Linear:
    def init(self, key, observations):
        import jax
        return {"w": 0.1 * jax.random.normal(key, (observations.shape[-1], 2))}

    def apply(self, params, observations):
        return observations @ params["w"]

    def __hash__(self):
        return 7

    def __eq__(self, other):
        return type(other) is type(self)

def make():
    return Linear()

made = Linear()
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a module that registers parts of its own; other tests do not see them."""
    (tmp_path / "own_parts.py").write_text(OWN)
    for registry in (OUTER_LOOPS, CLONINGS, NETWORKS):
        monkeypatch.setattr(registry, "_members", dict(registry._members))
    importlib.invalidate_caches()
    monkeypatch.setitem(sys.modules, "own_parts", None)  # for its removal in the end
    del sys.modules["own_parts"]
    return "own_parts"


def test_own_outer_loops_and_clonings_have_options(own: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["distill", "cartpole", "--import", own, "--outer", "mine", "--cloning", "MyStep"]
    assert main([*words, "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "--zeal INT How much. (default: 3)" in said
    assert "--cloning.warmth FLOAT How warm. (default: 0.5)" in said
    assert "unseen" not in said
    with task_sources(words):
        config = COMMANDS["distill"].parse([*words[1:], "--zeal", "4", "--cloning.warmth", "2"]).config
    assert (config.outer, config.cloning) == (OUTER_LOOPS["mine"](zeal=4), CLONINGS["MyStep"](warmth=2.0))
    assert main([*words, "--zeal", "0"]) == 2
    assert "zeal must be at least 1, got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_of_ones_own_is_the_default_distribution(
    own: str, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cartpole", "--network", f"{own}:make"]
    with task_sources(words):
        config = COMMANDS["distill"].parse(words).config
        assert config.problem().networks[0].learners == NETWORKS[config.distribution] == NETWORKS[f"{own}:make"]
    write_npz(Path("a.npz"))
    run("import", "a.npz", "--task", *words, "-o", "made.safetensors")
    dataset, few = "made.safetensors", ["--learners", "2", "--episodes", "1"]
    assert load(dataset).card.learners[0]["name"] == f"{own}:make"
    for network in (f"{own}:make", f"{own}:made"):
        assert list(run("evaluate", dataset, "--network", network, *few)["distributions"]) == [network]
    named = ["--network", f"{own}:make", "--distribution", "card,lambda"]
    assert list(run("evaluate", dataset, *named, *few)["distributions"]) == ["card", "lambda"]
    del NETWORKS._members[f"{own}:make"]
    assert main(["train", dataset]) == 2
    assert "give it by --network" in one_sentence(capsys.readouterr().err)
    run("train", dataset, "--network", f"{own}:make")


@pytest.mark.parametrize("levels", [["2,1,0"], ["2", "1", "0"], ["2,1", "0"]])
def test_numbers_of_a_list_are_words_or_joined_by_commas(levels: list[str]) -> None:
    assert COMMANDS["rollback"].parse(["cartpole", "--levels", *levels]).study.levels == (2, 1, 0)


# --- For the shell, and for people.


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_their_options(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(name in script for name in COMMANDS)
    assert all(option in script for option in ("--examples", "--cloning.loss", "--levels", "--distribution"))


def test_completion_in_bash(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["completion", "bash"])
    (tmp_path / "floppy.bash").write_text(capsys.readouterr().out)
    lines = (
        "source floppy.bash",
        "COMP_WORDS=(floppy distill cartpole --exam) COMP_CWORD=3",
        "COMP_LINE='floppy distill cartpole --exam' COMP_POINT=30",
        "set -- $(complete -p floppy)",
        'while [ "$1" != -F ]; do shift; done',
        '"$2" floppy --exam cartpole',
        'echo "${COMPREPLY[@]}"',
    )
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["--examples"]


def test_a_summary_is_readable() -> None:
    summary = {
        "top": 5,
        "share_of": None,
        "spearman": {"value": 0.528592, "interval": [0.1, 0.25]},
        "levels": [{"examples": 2, "score": {"mean": 12345.6}}, {"examples": 0, "finished": True}],
        "smallest": [{"loss": "mse", "sizes": [{"examples": 1, "shares": [0.5, 1.0, 1.0]}]}],
    }
    assert summary_lines(summary) == [
        "top: 5",
        "share of: -",
        "spearman:",
        "  value: 0.5286",
        "  interval: 0.1 to 0.25",
        "levels:",
        "  examples  score mean  finished",
        "  2         12346",
        "  0                     True",
        "smallest:",
        "  loss: mse",
        "  sizes:",
        "    examples  shares",
        "    1         0.5, 1, 1",
    ]


@pytest.mark.slow
def test_an_evaluation_names_the_worst_learner(dataset: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(dataset), "--learners", "3", "--episodes", "2", "--json"]) == 0
    score = json.loads(capsys.readouterr().out)["distributions"]["card"]
    assert main(["evaluate", str(dataset), "--learners", "3", "--episodes", "2"]) == 0
    assert f", the worst learner {score['worst']:.1f}" in capsys.readouterr().out
    assert score["worst"] <= score["mean"]


def test_a_baseline_of_one_policy_has_an_interval_over_episodes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["baseline", "cartpole", "--method", "random", "--episodes", "40"]) == 0
    said = capsys.readouterr().out
    assert re.fullmatch(
        r"ndcartpole/1, random: mean return [\d.]+, 95% interval [\d.]+ to [\d.]+ over 40 episodes\n", said
    )


def test_tyro_still_tells_what_it_finds_wrong() -> None:
    """Its hook is not public; without it the sentences are less helpful, see `Parser.parse`."""
    assert callable(importlib.import_module("tyro")._errors.on_parse_error)


def test_without_that_hook_a_mistake_is_still_one_sentence(refuse: Refuse, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("tyro._errors")
    assert "`floppy tasks --help` lists the options." in refuse("tasks", "--nonsense")


# --- Bad input.


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("nonsense", "one of distill, train, evaluate, baseline, import, export, show, tasks"),
        ("--nonsense", "got '--nonsense'"),
        ("distil cartpole", "There is no command 'distil': did you mean distill?"),
        ("distill", "needs a task"),
        ("distill --examples 2", "needs a task"),
        ("baseline", "needs a task"),
        ("distill cartpol", "did you mean cartpole?"),
        ("distill ndcartpol/2", "did you mean ndcartpole/2?"),
        ("distill gymnax/acrobot", "did you mean gymnax/Acrobot-v1?"),
        ("baseline breakuot", "did you mean breakout?"),
        ("distill ''", "needs a task"),
        ("distill ndcartpole/0", "number of dimensions"),
        ("distill ndcartpole/²", "number of dimensions"),
        ("distill ndcartpole/" + "9" * 5000, "number of dimensions"),
        ("distill cartpole extra", "extra"),
        ("distill cartpole --nonsense 3", "has no option --nonsense"),
        ("distill cartpole --exampels 3", "did you mean --examples"),
        ("distill cartpole --outer-steps 2.5", "--outer-steps must be a whole number, got '2.5'"),
        ("distill cartpole --rate fast", "--rate must be a number, got 'fast'"),
        ("distill cartpole --examples", "--examples needs a value"),
        ("distill cartpole --out", "--out needs a value"),
        ("distill cartpole --population 8", "has --population only with --outer hades"),
        (
            "distill cartpole --outer hades --learners 2",
            "--learners only with --outer imitation or --outer ppmo or --outer supervised",
        ),
        ("distill cartpole --targets hard", "must be one of learned, one-hot, got 'hard'"),
        ("distill cartpole --network x", "MODULE:NAME"),
        ("distill cartpole --network nowhere_to_be_found:make", "nowhere_to_be_found"),
        ("distill cartpole --network json:nothing", "json has no nothing"),
        ("distill cartpole --anneal maybe", "maybe"),
        ("distill cartpole --outer nonsense", "outer loop must be one of"),
        ("distill cartpole --outer", "--outer needs a value"),
        ("distill cartpole --outer hades --recipe ppmo-paper", "give one of the two"),
        ("distill cartpole --recipe", "--recipe needs a value"),
        (
            "distill cartpole --recipe nonsense",
            "ppmo, ppmo-robust, ppmo-any, ppmo-paper, ppmo-published, taught, hades",
        ),
        ("distill cartpole --cloning", "--cloning needs a value"),
        ("distill cartpole --cloning Nonsense", "GradientStep, AdamSteps"),
        ("distill cartpole --cloning.loss nonsense", "mse, cross-entropy"),
        ("distill cartpole --cloning.loss gaussian-nll", "mse, cross-entropy"),
        ("distill pendulum --outer hades --cloning.loss cross-entropy", "mse, gaussian-nll"),
        ("distill cartpole --encoder-layers 9", "at most the network's 3"),
        ("distill cartpole --encoder-layers 3", "examples must be 0"),
        ("distill cartpole --encoder-layers 1 --distribution random-depth", "one distribution of fixed width"),
        ("distill cartpole --learners 3 --distribution lambda,xavier", "multiple of 2"),
        ("distill cartpole --resume --overwrite", "one of --resume and --overwrite"),
        ("rollback", "needs a task"),
        ("rollback cartpole --levels 4", "at most the network's 3"),
        ("rollback cartpole --encoder-layers 1", "choose them by levels"),
        ("rollback cartpole --resume --overwrite", "one of --resume and --overwrite"),
        ("baseline cartpole --examples 3", "examples must be 0"),
        ("distill cartpole --examples 0", "for a plain policy give as many encoder_layers as the network has"),
        ("baseline cartpole --encoder-layers 1", "--encoder-layers must be 3 in a baseline"),
        ("baseline cartpole --strategy SNES", "--strategy only with --method neuroevolution"),
        ("baseline cartpole --method random --rate 1", "--rate only with --method ppo or --method neuroevolution"),
        ("baseline cartpole --method random --out a --budget 9s", "takes no run: leave --out and --budget out"),
        ("baseline cartpole --method random --resume --overwrite", "leave --resume and --overwrite out"),
        ("baseline cartpole --method nonsense", "ppo"),
        ("baseline cartpole --budget nonsense", "500steps"),
        ("baseline cartpole --episodes 0", "at least 1"),
        ("tasks extra", "extra"),
        ("show", "needs DATASET"),
        ("train", "needs DATASET"),
        ("evaluate", "needs DATASET"),
        ("import", "needs FILE and --out"),
        ("import a.npz", "--out"),
        ("import a.npz --task cartpole", "--out"),
        ("show a b", "b"),
        ("show nowhere.safetensors", "no such file"),
        ("train nowhere.safetensors", "no such file"),
        ("train nowhere.safetensors --save .", "cannot be written (it is a folder): give the name of a file in it"),
        ("train nowhere.safetensors --save . --overwrite", "cannot be written (it is a folder)"),
        ("evaluate nowhere.safetensors", "no such file"),
        ("import nowhere.npz --task cartpole --out b.safetensors", "nowhere.npz"),
        ("show .", "folder"),
        ("show ''", "show was given an empty argument: leave it out, or say what it is to be"),
        ("distill cartpole --out ''", "--out needs a value, got an empty one"),
        ("distill cartpole -o ''", "-o needs a value, got an empty one"),
        ("distill cartpole --out=", "--out needs a value, got an empty one"),
        ("distill cartpole --budget ''", "--budget needs a value, got an empty one"),
        ("evaluate '' --learners 2", "an empty argument"),
        ("train a.safetensors --save ''", "--save needs a value, got an empty one"),
        ("distill cartpole --critic-network '' --population 3", "--population"),  # a network may be called so
        ("distill cartpole --examples 1000000000", "examples must be at most 11184810 for ndcartpole/1"),
    ],
)
def test_nonsense_is_refused(refuse: Refuse, words: str, hint: str) -> None:
    assert hint in refuse(*shlex.split(words))


# --- Bounds, which are the dataclasses': tyro is asked for one mistake of each kind above.

REQUIRED: dict[str, Any] = {
    "task": "cartpole",
    "dataset": Path("a"),
    "datasets": (Path("a"), Path("b")),
    "config": DistillConfig("cartpole"),
}
"""Values of fields that have no default."""

BESIDE: dict[tuple[str, str], dict[str, Any]] = {
    ("DistillConfig", "examples"): {"encoder_layers": 3},
    ("HaDES", "population"): {"antithetic": False},
}
"""What else a value asks for, by class and field."""

CONFIGURATIONS: list[type[Any]] = [
    DistillConfig,
    *OUTER_LOOPS.values(),
    *CLONINGS.values(),
    *(STUDIES[name] for name in STUDIES),
]
BOUNDED = [(kind, field) for kind in CONFIGURATIONS for field in dataclasses.fields(kind) if BOUNDS in field.metadata]


def built(kind: type[Any], name: str, value: Any) -> Any:
    """A configuration with a value in one of its fields."""
    fields = {field.name for field in dataclasses.fields(kind)}
    required = {each: given for each, given in REQUIRED.items() if each in fields}
    return kind(**(required | BESIDE.get((kind.__name__, name), {}) | {name: value}))


@pytest.mark.parametrize(("kind", "field"), BOUNDED, ids=lambda value: getattr(value, "__name__", None) or value.name)
def test_bounds_are_where_they_are_said_to_be(kind: type[Any], field: dataclasses.Field[Any]) -> None:
    bounds = field.metadata[BOUNDS]
    is_whole = "int" in str(field.type)
    many = 2 if field.type == tuple[float, float] else 1 if "tuple" in str(field.type) else 0
    step = 1 if is_whole else 1e-9
    least, above, most = bounds["least"], bounds["above"], bounds["most"]
    wrong = [math.nan, math.inf, -math.inf]
    right: list[float] = []
    if math.isfinite(least):
        wrong, right = [*wrong, least - step], [*right, least]
    if math.isfinite(above):
        wrong, right = [*wrong, above], [*right, above + step]
    if math.isfinite(most):
        wrong, right = [*wrong, most + step], [*right, most]
    if is_whole:
        wrong.append(1.5)
    for value in wrong:
        with pytest.raises(FloppyError, match=rf"^(cloning\.)?{field.name} must be "):
            built(kind, field.name, (value,) * many if many else value)
    for value in right:
        built(kind, field.name, (value,) * many if many else value)


def test_every_number_has_bounds() -> None:
    for kind in (DistillConfig, *OUTER_LOOPS.values(), *CLONINGS.values()):
        for field in dataclasses.fields(kind):
            if set(str(field.type).split(" | ")) & {"int", "float", "<class 'int'>", "<class 'float'>"}:
                assert BOUNDS in field.metadata, f"{kind.__name__}.{field.name}"


@pytest.mark.parametrize("value", ["-1", "1.5", "nan", "", "x", str(2**32), "9" * 400, "9" * 5000])
def test_seeds_are_refused(dataset: Path, refuse: Refuse, value: str) -> None:
    assert "seed" in refuse("evaluate", dataset, "--seed", value)


@pytest.mark.parametrize(
    "words",
    [
        "train DATASET --seed -1",
        "train DATASET --learners 0",
        "evaluate DATASET --learners 0",
        "evaluate DATASET --episodes 0",
        "evaluate DATASET --ensemble 0",
        "baseline cartpole --episodes 0",
        "baseline cartpole --method random --episodes 0",
        "baseline cartpole --method random --seed -1",
        "distill cartpole --learners 0",
        "distill cartpole --cloning AdamSteps --cloning.eps 0",
        "distill cartpole --outer hades --sigma 0",
        "budget cartpole --episodes -1",
    ],
)
def test_every_command_keeps_to_the_bounds(dataset: Path, refuse: Refuse, words: str) -> None:
    option = words.split()[-2].removeprefix("--")
    assert f"{option} must be " in refuse(*words.replace("DATASET", str(dataset)).split())


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
def test_budgets_are_refused(budget: str) -> None:
    with pytest.raises(FloppyError, match="500steps, 60s or 10m"):
        apply_budget(DistillConfig("cartpole"), budget)


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


@pytest.mark.parametrize("distribution", NO_DISTRIBUTIONS)
def test_distributions_are_refused(distribution: str) -> None:
    with pytest.raises(FloppyError):
        parse_distributions(distribution)


def test_every_command_refuses_them(dataset: Path, refuse: Refuse) -> None:
    words: tuple[list[str | Path], ...] = (
        ["distill", "cartpole"],
        ["train", dataset],
        ["evaluate", dataset],
        ["import", write_npz(dataset.with_suffix(".npz")), "--task", "cartpole", "--out", "b.safetensors"],
    )
    for command in words:
        assert "'nonsense' is unknown" in refuse(*command, "--distribution=nonsense")


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
def test_cards_that_cannot_be_followed_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FloppyError):
        unpack(hand_dataset(changes)).network()


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_a_card_that_cannot_be_followed_is_refused(dataset: Path, refuse: Refuse, command: str) -> None:
    save(hand_dataset({"cloning": {"kind": "Nonsense"}}), dataset, overwrite=True)
    assert "Nonsense" in refuse(command, dataset)


@pytest.mark.slow
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
        ({"observations": np.array([["a"] * 4] * 3)}, "observations of type <U1"),
        ({"observations": np.ones((3, 4), complex)}, "observations of type complex128"),
        ({"targets": np.array([[object()] * 2] * 3)}, "Python objects in targets"),
        ({"targets": None, "actions": np.array([0, 2, 1])}, "action 2 in row 1, ndcartpole/1 has actions 0 to 1"),
        ({"targets": None, "actions": np.array([[0], [1], [-1]])}, "action -1 in row 2"),
        ({"targets": None, "actions": np.array([0, 1, 0.5])}, "action 0.5 in row 2"),
        ({"targets": None, "actions": np.array([np.nan, 1, 0])}, "action nan in row 0"),
        ({"targets": None, "actions": np.array([2**63, 1, 0], np.uint64)}, "action 9223372036854775808 in row 0"),
        ({"targets": None, "actions": np.array([0, 1])}, "targets of shape (2,)"),
        ({"meta": np.array('{"overfit"')}, "begins like a JSON object and is none"),
        ({"meta": np.array(b'{"a": ' * 100_000)}, "begins like a JSON object and is none (RecursionError)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value),
)
def test_import_refuses_arrays(changes: dict[str, Any], hint: str) -> None:
    with pytest.raises(FloppyError, match=re.escape(hint)):
        imported(write_npz(Path("a.npz"), **changes))


def imported(path: Path) -> DistilledDataset:
    """What the import of a file without options gives."""
    return import_npz(path, "cartpole")


@pytest.mark.parametrize(
    "numbers",
    [np.array([1, 0, 1]), np.array([[1], [0], [1]], np.uint8), np.array([1.0, 0, 1]), np.array([True, False, True])],
    ids=["row", "column", "whole-floats", "truths"],
)
@pytest.mark.parametrize("name", ["targets", "actions", "y_mean"])
def test_action_numbers_become_one_hot_targets(tmp_path: Path, name: str, numbers: np.ndarray) -> None:
    dataset = imported(write_npz(tmp_path / "a.npz", **{"targets": None, name: numbers}))
    np.testing.assert_array_equal(dataset.targets, [[0, 1], [1, 0], [0, 1]])


def test_actions_of_one_number_need_no_second_axis(tmp_path: Path) -> None:
    arrays = {"observations": np.ones((2, 3)), "targets": np.array([0.5, 1.0])}
    dataset = import_npz(write_npz(tmp_path / "a.npz", **arrays), "pendulum")
    np.testing.assert_array_equal(dataset.targets, [[0.5], [1.0]])


@pytest.mark.parametrize("meta", ["text", "[1]", "3", '{"author": "me"}', "", np.array(["a", "b"]), np.array([{}])])
def test_meta_of_ones_own_is_nobodys_business(tmp_path: Path, meta: Any) -> None:
    assert imported(write_npz(tmp_path / "a.npz", meta=np.array(meta))).card.notes == ""


@pytest.mark.parametrize(
    ("kind", "name", "limit"), [("<f8", "observations", "256 MiB"), ("<U9", "meta", "1 MiB")], ids=["arrays", "meta"]
)
def test_import_refuses_announced_gigabytes(tmp_path: Path, kind: str, name: str, limit: str) -> None:
    path = announce(tmp_path / "a.npz", kind, **{name: (300_000_000, 4)}, targets=(3, 2))
    with pytest.raises(FloppyError, match=f"'{name}' alone .* of which {limit} are read at most"):
        imported(path)


def test_the_command_refuses_arrays(refuse: Refuse) -> None:
    write_npz(Path("a.npz"), targets=None)
    assert "targets" in refuse("import", "a.npz", "--task", "cartpole", "--out", "b.safetensors")


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
        ("--normaliser nonsense", "none, frozen, per-evaluation"),
        ("--loss gaussian-nll", "mse, cross-entropy"),
        ("--steps 0", "at least 1"),
        ("--steps 1.5", "--steps"),
        ("--cloning ImplicitStep --steps 2", "ImplicitStep has no --steps"),
        ("--cloning ImplicitStep --loss cross-entropy", "mse"),
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
    ("command", "name"),
    [
        ("distill", "config.json"),
        ("distill", "metrics.jsonl"),
        ("distill", "dataset.safetensors"),
        ("distill", "checkpoints/latest.safetensors"),
        ("baseline", "config.json"),
    ],
)
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


@pytest.mark.slow
def test_a_file_in_place_of_the_folder_is_refused(refuse: Refuse) -> None:
    Path("taken").write_text("precious")
    assert "taken is a file: give a folder" in refuse("distill", "cartpole", *SMALL, "--out", "taken")


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

    monkeypatch.setattr(datasets, "load", full)
    assert os.strerror(errno.ENOSPC) in refuse("show", dataset)


def test_messages_of_several_lines_become_one(dataset: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse) -> None:
    def complain(*_: object) -> None:
        raise FloppyError("First this,\n  then that.")

    monkeypatch.setattr(datasets, "load", complain)
    assert refuse("show", dataset) == "floppy: First this, then that.\n"


def test_a_bug_is_not_hidden(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(datasets, "load", fail)
    with pytest.raises(RuntimeError, match="a bug"):
        main(["show", str(dataset)])


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("JAX_ENABLE_X64", "maybe"),
        pytest.param("JAX_PLATFORMS", "nonsense", marks=pytest.mark.slow),
        pytest.param("JAX_TRANSFER_GUARD", "disallow", marks=[pytest.mark.slow, pytest.mark.thorough]),
    ],
)
def test_variables_with_which_jax_cannot_compute_are_named(dataset: Path, variable: str, value: str) -> None:
    done = in_subprocess("train", str(dataset), "--learners", "2", **{variable: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{variable}='{value}'" in one_sentence(done.stderr)
    assert "unset or correct" in done.stderr


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, "cannot compute here (RuntimeError: no device): set JAX_PLATFORMS=cpu, or repair its installation."),
        ({"JAX_PLATFORMS": "cuda"}, "with JAX_PLATFORMS='cuda' (RuntimeError: no device): unset or correct it."),
        (
            {"JAX_PLATFORMS": "cuda", "JAX_LOGGING_LEVEL": "INFO"},
            "with JAX_LOGGING_LEVEL='INFO' and JAX_PLATFORMS='cuda' (RuntimeError: no device): unset or correct the "
            "wrong one.",
        ),
    ],
)
def test_a_device_that_cannot_be_had_is_said_in_one_sentence(
    variables: dict[str, str], wanted: str, dataset: Path, monkeypatch: pytest.MonkeyPatch, refuse: Refuse
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("no device")

    for name in [each for each in os.environ if each.startswith("JAX_")]:
        monkeypatch.delenv(name)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(datasets, "train", fail)
    monkeypatch.setattr(jax.numpy, "asarray", fail)
    assert wanted in refuse("train", dataset)


def test_the_command_line_leaves_the_compiler_as_it_was(run: Run, dataset: Path) -> None:
    before = jax.config.read("jax_enable_x64")
    run("show", dataset)
    assert jax.config.read("jax_enable_x64") == before
