"""A distillation run: the same seed gives the same bytes, however often the run was stopped, killed and resumed."""

import dataclasses
import json
import random
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from probes import ActionProbe, logged

import floppy.run.loop
from floppy.cloning import GradientStep
from floppy.dataset import DistilledDataset, load, save
from floppy.errors import FloppyError
from floppy.outer import HaDES
from floppy.play.device import ON_DEVICE
from floppy.run.config import DistillConfig
from floppy.run.loop import Clock, DistillResult, distill
from floppy.tasks.registry import FAMILIES, register
from floppy.teach.codec import versions_of

WORDS = shlex.split(
    "cartpole --outer-steps 60 --evaluate-every 2 --selection-learners 2 --selection-episodes 2 --rate 0.02 "
    "--distribution width=16:depth=1:initialiser=xavier --score-learners 8 --score-episodes 2 "
    "--learners 2 --environments 2 --horizon 8 --epochs 1 --minibatch-size 32"
)
CONFIG = dataclasses.replace(
    floppy.recipe("cartpole"),
    outer_steps=60,
    evaluate_every=2,
    selection_learners=2,
    selection_episodes=2,
    score_learners=8,
    score_episodes=2,
    distribution="width=16:depth=1:initialiser=xavier",
    outer=dataclasses.replace(
        floppy.recipe("cartpole").outer,
        rate=0.02,
        learners=2,
        environments=2,
        horizon=8,
        epochs=1,
        minibatch_size=32,
    ),
)
"""One configuration for nearly all tests, so that it is compiled once; the same on the command line and here."""

COMMAND = "floppy distill ..."
CHECKPOINT, PREVIOUS = "checkpoints/latest.safetensors", "checkpoints/previous.safetensors"
RUN_FILES = {".lock", "config.json", "metrics.jsonl", "checkpoints", CHECKPOINT, PREVIOUS, "dataset.safetensors"}
VERSIONS = [versions_of("jax", "optax")]

module: Any = floppy.run.loop

pytestmark = pytest.mark.usefixtures("compiled_once")


class Undisturbed(NamedTuple):
    folder: Path
    result: DistillResult
    observations: dict[int, np.ndarray]
    """The examples as they stood, by outer steps done."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, compiled_once: None) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    observations = {}

    def remember(step: int, *_: object) -> None:
        state = safetensors.numpy.load_file(folder / "checkpoints/latest.safetensors")
        observations[step] = state[".outer.distilled.observations"]

    return Undisturbed(folder, distill(CONFIG, folder, command=COMMAND, progress=remember), observations)


def metrics(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): None if path.is_dir() else path.read_bytes() for path in folder.rglob("*")}


def assert_same_contents(folder: Path, other: Path) -> None:
    """But for what the clock says in the log."""
    one, two = contents(folder), contents(other)
    del one["metrics.jsonl"], two["metrics.jsonl"]
    assert one == two
    assert logged(folder) == logged(other)


def assert_same_tensors(one: DistilledDataset, other: DistilledDataset) -> None:
    assert one.numpy().keys() == other.numpy().keys()
    for name, tensor in one.numpy().items():
        assert tensor.tobytes() == other.numpy()[name].tobytes(), name


def assert_same_run(folder: Path, undisturbed: Undisturbed) -> None:
    """All but the command that started it, which is kept from the start and stands on the card."""
    dataset = load(folder / "dataset.safetensors")
    assert_same_tensors(dataset, undisturbed.result.dataset)
    assert dataclasses.replace(dataset.card, command=COMMAND) == undisturbed.result.dataset.card
    config = json.loads((folder / "config.json").read_text())
    assert config.pop("command") == dataset.card.command
    assert config == {"parents": [], "versions": VERSIONS} | CONFIG.as_dict()
    for checkpoint in (CHECKPOINT, PREVIOUS):
        assert (folder / checkpoint).read_bytes() == (undisturbed.folder / checkpoint).read_bytes()
    assert logged(folder) == logged(undisturbed.folder)
    assert contents(folder).keys() == RUN_FILES


def refusal(config: DistillConfig, out: Path | None, **options: Any) -> str:
    with pytest.raises(FloppyError) as caught:
        distill(config, out, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    return message


def fake_run(
    monkeypatch: pytest.MonkeyPatch, *, infinite_at: int | None = None, scores: dict[int, float] | None = None
) -> list[tuple[Any, int, int]]:
    """Replaces learning and playing, so that nothing takes long; gives the key and counts of every evaluation."""
    evaluations: list[tuple[Any, int, int]] = []
    starts: list[jax.Array] = []
    """Of examples, as every evaluation met them; the first one follows `evaluate_every` steps."""

    def advance(state: Any, steps: jax.Array, _: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        moved = state.distilled._replace(observations=state.distilled.observations + len(steps))
        loss = 1.0 * steps if infinite_at is None else jnp.where(steps == infinite_at, jnp.nan, 1.0 * steps)
        return state._replace(distilled=moved), {"env_steps": 0 * steps, "fine": 2.0 * steps, "loss": loss}

    def play(
        run: Any, task: Any, distilled: Any, _: object, key: jax.Array, learners: int, episodes: int
    ) -> np.ndarray:
        assert task == run.problem.task
        evaluations.append((np.asarray(jax.random.key_data(key)).tolist(), learners, episodes))
        starts.append(distilled.observations[0, 0])
        moved = round(float(distilled.observations[0, 0] - starts[0])) + run.config.evaluate_every
        score = (scores or {}).get(moved, 0.0)
        return np.asarray(jax.random.uniform(key, (learners, episodes)) + score)

    original, programs = module.Run.__init__, module._programs

    def init(run: Any, *arguments: Any) -> None:
        original(run, *arguments)
        run.returns = lambda *a, **k: play(run, *a, **k)

    monkeypatch.setattr(module, "_programs", lambda *of: programs(*of)._replace(advance=jax.jit(advance)))
    monkeypatch.setattr(module.Run, "__init__", init)
    return evaluations


# --- What a run leaves behind.


@pytest.mark.slow
def test_the_folder_holds_what_the_design_says(undisturbed: Undisturbed) -> None:
    folder, result, _ = undisturbed
    assert contents(folder).keys() == RUN_FILES
    about = {"command": COMMAND, "parents": [], "versions": VERSIONS}
    assert json.loads((folder / "config.json").read_text()) == about | CONFIG.as_dict()
    lines = metrics(folder)
    assert [line["step"] for line in lines] == list(range(1, CONFIG.outer_steps + 1))
    evaluated = [line["step"] % CONFIG.evaluate_every == 0 for line in lines]
    assert [{"seconds", "compiles", "selection_score"} <= line.keys() for line in lines] == evaluated
    assert [{"seconds", "compiles", "selection_score"}.isdisjoint(line) for line in lines] == [not e for e in evaluated]
    assert [line["compiles"] for line in lines if "compiles" in line] == [True] + [False] * 29
    names = {"policy_loss", "value_loss", "entropy", "kl", "inner_rate", "episode_return", "episodes", "gradient_norm"}
    assert all(names <= line.keys() for line in lines)
    assert load(folder / "dataset.safetensors").card == result.dataset.card
    assert_same_tensors(load(folder / "dataset.safetensors"), result.dataset)


def test_the_result_says_what_was_done(undisturbed: Undisturbed) -> None:
    result = undisturbed.result
    assert result.finished
    assert result.outer_steps == CONFIG.outer_steps
    assert result.env_steps == CONFIG.outer_steps * 2 * 2 * 8
    assert result.seconds > 0
    assert list(undisturbed.observations) == list(range(2, CONFIG.outer_steps + 1, 2))


def test_the_card_records_everything(undisturbed: Undisturbed) -> None:
    card = undisturbed.result.dataset.card
    assert card.task == "ndcartpole/1"
    spent = sum(line["env_steps"] for line in logged(undisturbed.folder))
    assert card.algorithm == {
        "name": "ppmo", "config": json.loads(json.dumps(CONFIG.as_dict())), "env_steps": spent,
    }  # fmt: skip
    for part in (CONFIG, CONFIG.cloning, CONFIG.outer):
        recorded = card.algorithm["config"]
        recorded = {CONFIG.cloning: recorded["cloning"], CONFIG.outer: recorded["outer"]}.get(part, recorded)
        assert {field.name for field in dataclasses.fields(part)} <= recorded.keys()
    assert card.cloning == {"kind": "GradientStep", "loss": "mse", "steps": 1}
    assert card.command == COMMAND
    assert card.seed == CONFIG.seed
    assert {"floppy", "jax", "optax"} <= card.versions.keys()
    assert card.score is not None
    assert (card.score["learners"], card.score["episodes"], card.score["seed"]) == (8, 2, CONFIG.seed)
    assert 1 <= card.score["mean"] <= 500


def test_the_best_dataset_is_kept(undisturbed: Undisturbed) -> None:
    scores = {
        line["step"]: line["selection_score"] for line in metrics(undisturbed.folder) if "selection_score" in line
    }
    best = max(scores, key=lambda step: (scores[step], step))  # on a tie the later one
    kept = undisturbed.result.dataset.observations
    assert best < CONFIG.outer_steps, "the last one is the best: nothing is tested"
    np.testing.assert_array_equal(kept, undisturbed.observations[best])
    assert not np.array_equal(kept, undisturbed.observations[CONFIG.outer_steps])


@pytest.mark.slow
def test_the_best_is_kept_and_scored_on_seeds_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = fake_run(monkeypatch, scores={2: 5.0, 4: 9.0, 6: 7.0, 8: 0.0})
    config = dataclasses.replace(CONFIG, outer_steps=8, selection_learners=8, selection_episodes=2)
    result = distill(config)
    start = module.Run(config, config.problem(), "").init().best.observations
    np.testing.assert_allclose(result.dataset.observations, start + 4, rtol=1e-5)
    assert len(evaluations) == 5
    assert len({str(evaluation) for evaluation in evaluations}) == 5  # same counts, so the keys differ
    shorter = evaluations[-1]
    distill(dataclasses.replace(config, outer_steps=4))
    assert evaluations[-1] == shorter  # and the final one does not depend on the length of the run


# --- The same seed.


@pytest.mark.slow
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """In place of an earlier run, of which nothing may be left."""
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    for path in folder.rglob("*.*"):
        path.write_bytes(b"something else\n")
    distill(CONFIG, folder, overwrite=True, command=COMMAND)
    assert_same_contents(folder, undisturbed.folder)


@pytest.mark.slow
def test_a_run_in_memory_gives_the_same(undisturbed: Undisturbed) -> None:
    in_memory = distill(CONFIG, command=COMMAND)
    assert_same_tensors(in_memory.dataset, undisturbed.result.dataset)
    assert in_memory.dataset.card == undisturbed.result.dataset.card


@pytest.mark.slow
def test_nothing_compiles_twice(caplog: pytest.LogCaptureFixture) -> None:
    """Outer steps, selections and the final score have a program each; a run with another seed has the same ones."""
    # Numbers of which no other test has compiled a program.
    outer = dataclasses.replace(CONFIG.outer, horizon=9)
    config = dataclasses.replace(CONFIG, outer_steps=6, selection_learners=3, score_learners=7, outer=outer)

    def compiled(seed: int) -> list[str]:
        caplog.clear()
        with jax.log_compiles():
            distill(dataclasses.replace(config, seed=seed), progress=False)
        names = re.findall(r"Finished XLA compilation of jit\(([^)]*)\)", caplog.text)
        return [name for name in names if name in ("advance", "_play")]

    assert compiled(0) == ["advance", "_play", "_play"]
    assert compiled(1) == []


@pytest.mark.slow
def test_a_last_stretch_of_another_length_says_that_it_compiles(tmp_path: Path) -> None:
    distill(dataclasses.replace(CONFIG, outer_steps=5), tmp_path / "run", progress=False)
    lines = [line for line in metrics(tmp_path / "run") if "compiles" in line]
    assert [(line["step"], line["compiles"]) for line in lines] == [(2, True), (4, False), (5, True)]


@pytest.mark.slow
def test_another_seed_gives_another_dataset(undisturbed: Undisturbed) -> None:
    other = distill(dataclasses.replace(CONFIG, seed=1), time_limit=0.0)
    assert other.outer_steps == CONFIG.evaluate_every
    first = undisturbed.observations[CONFIG.evaluate_every]
    assert not np.isclose(other.dataset.observations, first).any()


# --- Stopped, killed, resumed.


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_as_if_nothing_had_been(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = tmp_path / "run"
    stopped = distill(CONFIG, folder, time_limit=0.0)
    assert not stopped.finished
    assert stopped.outer_steps == CONFIG.evaluate_every
    assert stopped.env_steps == CONFIG.evaluate_every * 2 * 2 * 8
    assert stopped.dataset.card.score is not None
    np.testing.assert_array_equal(stopped.dataset.observations, undisturbed.observations[CONFIG.evaluate_every])
    # What a kill between log and checkpoint, in the middle of a line, leaves behind.
    with (folder / "metrics.jsonl").open("a") as log:
        log.write('{"step": 3, "entropy": 0.0}\n{"step": 4, "ent')
    resumed = distill(CONFIG, folder, resume=True)
    assert resumed.finished
    assert resumed.outer_steps == CONFIG.outer_steps
    assert_same_run(folder, undisturbed)
    clock = [(line["seconds"], line["compiles"]) for line in metrics(folder) if "seconds" in line]
    seconds = [each for each, _ in clock]
    assert seconds == sorted(seconds), "the clock goes on from where the run was stopped"
    assert [compiles for _, compiles in clock] == [True, True] + [False] * 28, "once in each of two processes"


@pytest.mark.slow
def test_resuming_a_finished_run_changes_nothing(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    again = distill(CONFIG, folder, resume=True, command=COMMAND)
    assert again.finished
    assert contents(folder) == contents(undisturbed.folder)  # the log too, word for word


def start(folder: Path, *words: str) -> "subprocess.Popen[str]":
    """The same run as `CONFIG`'s, through the command line, in a process of its own."""
    command = [sys.executable, "-m", "floppy", "distill", *WORDS, "--out", str(folder), "--json", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for_change(path: Path, process: "subprocess.Popen[str]") -> None:
    """Until the process writes the file."""

    def written() -> int | None:
        return path.stat().st_mtime_ns if path.exists() else None

    before, deadline = written(), time.monotonic() + 300
    while written() == before:
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.mark.thorough
@pytest.mark.slow
def test_killed_at_random_moments_it_ends_with_the_same_dataset(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = tmp_path / "run"
    moments = random.Random(0)
    words: list[str] = []
    steps = []
    for _ in range(2):
        process = start(folder, *words)
        for _ in range(moments.randint(1, 6)):
            wait_for_change(folder / "checkpoints/latest.safetensors", process)
        time.sleep(moments.uniform(0.0, 0.05))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL, "it had finished: nothing is tested"
        load(folder / "dataset.safetensors")  # whole at any moment
        steps.append(int(safetensors.numpy.load_file(folder / "checkpoints/latest.safetensors")[".step"]))
        words = ["--resume"]
    assert 0 < steps[0] < steps[1] < CONFIG.outer_steps
    for left in folder.glob("**/.floppy-*.tmp"):  # a kill in the middle of a write leaves it, and nothing reads it
        left.unlink()
    assert distill(CONFIG, folder, resume=True).outer_steps == CONFIG.outer_steps
    assert_same_run(folder, undisturbed)


@pytest.mark.thorough
@pytest.mark.slow
def test_ctrl_c_saves_and_ends_well(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = tmp_path / "run"
    process = start(folder)
    wait_for_change(folder / "checkpoints/latest.safetensors", process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    result = json.loads(out)
    assert 0 < result["outer_steps"] < CONFIG.outer_steps
    assert f"--resume goes on from step {result['outer_steps']}" in err
    assert "Traceback" not in err
    assert load(folder / "dataset.safetensors").card.score == result["score"]
    assert contents(folder).keys() | {PREVIOUS} == RUN_FILES
    assert [line["step"] for line in metrics(folder)] == list(range(1, result["outer_steps"] + 1))
    assert distill(CONFIG, folder, resume=True).finished
    assert_same_run(folder, undisturbed)


@pytest.mark.slow
def test_a_signal_as_the_first_checkpoint_is_written_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees the file may take it that there is something to score."""
    save_checkpoint = module.save_checkpoint

    def signalled(*args: Any, **options: Any) -> None:
        save_checkpoint(*args, **options)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(module, "save_checkpoint", signalled)
    result = distill(CONFIG, tmp_path / "run")
    assert result.interrupted and 0 < result.outer_steps < CONFIG.outer_steps
    assert result.dataset.card.score is not None


@pytest.mark.slow
def test_a_run_killed_before_its_first_checkpoint_starts_afresh(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, "_advance", killed)
        distill(CONFIG, folder)
    assert (folder / "config.json").exists()
    assert distill(CONFIG, folder, resume=True).finished
    assert_same_run(folder, undisturbed)


# --- The end of a run: a clock, or nothing left to gain.

AT_MAXIMUM = {2: 500.0, 4: 500.0, 6: float("nan"), 8: 500.0, 10: 500.0, 12: 500.0}
"""Scores of evaluations, by the outer steps before them: only the last three stand at cart-pole's maximum in a row."""


@pytest.mark.slow
def test_a_run_at_the_tasks_maximum_ends_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    evaluations = fake_run(monkeypatch, scores=AT_MAXIMUM)
    config = dataclasses.replace(CONFIG, outer_steps=20)
    ended = distill(config, tmp_path / "run", command=COMMAND)
    assert (ended.finished, ended.outer_steps, len(evaluations)) == (True, 12, 6 + 1)
    before = contents(tmp_path / "run")
    again = distill(config, tmp_path / "run", resume=True)
    assert (again.finished, again.outer_steps, len(evaluations)) == (True, 12, 6 + 1 + 1)  # scored once more
    assert contents(tmp_path / "run") == before


@pytest.mark.slow
def test_the_maximum_counts_across_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(monkeypatch, scores=AT_MAXIMUM)
    config, folder = dataclasses.replace(CONFIG, outer_steps=20), tmp_path / "run"
    parts = [distill(config, folder, time_limit=0.0)]
    while not parts[-1].finished:
        parts.append(distill(config, folder, time_limit=0.0, resume=True))
    assert [part.outer_steps for part in parts] == [2, 4, 6, 8, 10, 12]


def test_a_run_without_early_stop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(monkeypatch, scores=dict.fromkeys(range(2, 13, 2), 500.0))
    on = distill(dataclasses.replace(CONFIG, outer_steps=12, early_stop=False))
    assert (on.finished, on.outer_steps) == (True, 12)


def test_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([100.0, 106.0, 106.0, 106.0, 107.5, 107.5])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(now))
    clock = Clock(10.0)
    assert not clock.is_late(4.0)  # 6 and 4 are the 10 that there are
    assert clock.is_late(4.5)
    assert clock.seconds() == 6.0
    clock.before = 30.0
    assert clock.total() == 37.5
    assert clock.seconds() == 7.5
    monkeypatch.undo()
    assert not Clock().is_late(1e9), "without a limit nothing is late"


def test_the_estimate_of_the_final_score_by_hand() -> None:
    run = module.Run(CONFIG, CONFIG.problem(), "")
    assert run.scoring_estimate() == 0.0
    # The first selection compiled for 4 s. One takes 1 s for 2 x 2 episodes, so 8 x 2 take 4 s, after as long a
    # compilation.
    run._selection_seconds = [5.0, 2.0, 1.0]
    assert run.scoring_estimate() == 4.0 + 4.0


@pytest.mark.parametrize(("limit", "steps"), [(90.0, 2), (1000.0, 8)])
def test_a_time_limit_leaves_time_for_the_final_score(
    monkeypatch: pytest.MonkeyPatch, limit: float, steps: int
) -> None:
    fake_run(monkeypatch)
    monkeypatch.setattr(module.Run, "scoring_estimate", lambda _: 100.0)
    result = distill(dataclasses.replace(CONFIG, outer_steps=8), time_limit=limit)
    assert (result.outer_steps, result.finished) == (steps, steps == 8)


@pytest.mark.slow
def test_progress_goes_to_stderr(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake_run(monkeypatch, scores={2: 10.0})
    config = dataclasses.replace(CONFIG, outer_steps=4)
    distill(config, progress=True)
    said = capsys.readouterr()
    assert said.out == ""
    first, second, scoring = said.err.splitlines()
    assert re.fullmatch(r"step 2/4: score 10\.\d, best 10\.\d", first)
    assert re.fullmatch(r"step 4/4: score 0\.\d, best 10\.\d, \d+\.\d steps/s", second)
    assert scoring == "scoring 8 fresh learners x 2 episodes"
    distill(config, progress=False)
    assert capsys.readouterr() == ("", "")


# --- Refused.


@pytest.mark.thorough(all_but=["-task", "-cloning.steps", "-outer"])
@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"examples": 3}, "examples (2 there, 3 here)"),
        ({"outer_steps": 61}, "outer_steps (60 there, 61 here)"),
        ({"task": "ndcartpole/2"}, "task ('ndcartpole/1' there, 'ndcartpole/2' here)"),
        ({"outer": dataclasses.replace(CONFIG.outer, rate=0.5)}, "rate (0.02 there, 0.5 here)"),
        (
            {"cloning": dataclasses.replace(CONFIG.cloning, steps=2), "seed": 1},
            "cloning.steps (1 there, 2 here), seed (0 there, 1 here)",
        ),
        ({"outer": HaDES()}, "outer (PPMO there, HaDES here)"),
    ],
    ids=lambda value: value.partition(" ")[0] if isinstance(value, str) else "",
)
def test_resuming_with_another_configuration_is_refused(
    undisturbed: Undisturbed, changes: dict[str, Any], difference: str
) -> None:
    before = contents(undisturbed.folder)
    message = refusal(dataclasses.replace(CONFIG, **changes), undisturbed.folder, resume=True)
    assert f"differs in {difference}: give these options as they are there." in message
    assert contents(undisturbed.folder) == before


@pytest.mark.slow
def test_what_an_older_run_knew_nothing_of_was_as_it_is_by_default(undisturbed: Undisturbed, tmp_path: Path) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    saved = json.loads((folder / "config.json").read_text())
    assert (saved.pop("learned_rate"), saved["outer"].pop("target_kl")) == (True, 0.0)
    (folder / "config.json").write_text(json.dumps(saved))
    limited = dataclasses.replace(CONFIG, outer=dataclasses.replace(CONFIG.outer, target_kl=0.01))
    assert "differs in target_kl (0.0 there, 0.01 here):" in refusal(limited, folder, resume=True)
    assert distill(CONFIG, folder, resume=True).finished


def test_what_is_no_configuration_is_refused() -> None:
    wrong: Any = "cartpole"
    with pytest.raises(FloppyError, match=r"config must be a DistillConfig, .*, got 'cartpole'\.$"):
        distill(wrong)


def test_what_the_outer_loop_cannot_improve_is_refused_before_anything_runs(tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, distribution=",".join([CONFIG.distribution] * 3))
    wanted = "2 learners per outer step cannot be shared equally by 3 learner distributions"
    with pytest.raises(FloppyError, match=wanted):
        config.problem()
    assert wanted in refusal(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_resuming_what_is_not_there_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/metrics.jsonl").write_text('{"step": 1}\n')
    assert "no run" in refusal(CONFIG, tmp_path / "run", resume=True)
    assert "folder" in refusal(CONFIG, None, resume=True)


def test_a_run_that_was_killed_before_it_wrote_anything_begins(tmp_path: Path, undisturbed: Undisturbed) -> None:
    assert distill(CONFIG, tmp_path / "run", resume=True, command=COMMAND).finished
    assert_same_run(tmp_path / "run", undisturbed)


def test_an_earlier_run_is_refused(undisturbed: Undisturbed) -> None:
    before = contents(undisturbed.folder)
    message = refusal(CONFIG, undisturbed.folder)
    assert "--overwrite" in message
    assert "--resume" in message
    assert contents(undisturbed.folder) == before


def first_bytes(content: bytes) -> bytes:
    return content[: len(content) // 2]


def other_shapes(_: bytes) -> bytes:
    return safetensors.numpy.save({".step": np.zeros((), np.int32)})


@pytest.mark.parametrize("damage", [first_bytes, other_shapes, lambda _: b"", lambda _: b"\0" * 99])
def test_a_broken_checkpoint_is_refused(tmp_path: Path, undisturbed: Undisturbed, damage: Any) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    for name in (CHECKPOINT, PREVIOUS):
        (folder / name).write_bytes(damage((folder / name).read_bytes()))
    before = contents(folder)
    assert str(folder / CHECKPOINT) in refusal(CONFIG, folder, resume=True)
    assert contents(folder) == before


def flipped(content: bytes) -> bytes:
    """One bit of a tensor."""
    return content[:-5] + bytes([content[-5] ^ 4]) + content[-4:]


@pytest.mark.parametrize("damage", [first_bytes, flipped, None])
def test_a_run_goes_on_from_the_checkpoint_before_a_damaged_one(
    tmp_path: Path, undisturbed: Undisturbed, capsys: pytest.CaptureFixture[str], damage: Any
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    if damage is None:  # somebody has removed it
        (folder / CHECKPOINT).unlink()
    else:
        (folder / CHECKPOINT).write_bytes(damage((folder / CHECKPOINT).read_bytes()))
    distill(CONFIG, folder, resume=True, command=COMMAND, progress=False)
    said = capsys.readouterr().err
    assert ("going on from the one before it, at step 58" in said) == (damage is not None)
    assert_same_run(folder, undisturbed)


@pytest.mark.parametrize(("name", "value"), [(".step", 10**9), (".step", -3), (".env_steps", -1)])
def test_numbers_of_a_checkpoint_that_cannot_be_are_refused(
    tmp_path: Path, undisturbed: Undisturbed, name: str, value: int
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    (folder / PREVIOUS).unlink()
    arrays = safetensors.numpy.load_file(folder / CHECKPOINT)
    arrays[name] = np.asarray(value, arrays[name].dtype)
    data = safetensors.numpy.save(arrays, {"sha256": floppy.run.checkpoint._checksum(arrays)})
    (folder / CHECKPOINT).write_bytes(data)
    assert f"{value}" in refusal(CONFIG, folder, resume=True)


def test_a_log_that_lacks_what_the_checkpoint_has_seen_is_refused(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
    (folder / "metrics.jsonl").write_text("".join(lines[:30]) + lines[30][:9] + "".join(lines[31:]))
    before = contents(folder)
    assert "metrics.jsonl ends at step 30, the checkpoint" in refusal(CONFIG, folder, resume=True)
    assert contents(folder) == before
    (folder / "metrics.jsonl").unlink()
    for _ in range(2):
        assert distill(CONFIG, folder, resume=True, progress=False).finished


def test_an_empty_log_is_refused_as_one_that_lacks_steps(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    (folder / "metrics.jsonl").write_text("")
    before = contents(folder)
    assert "ends at step 0, the checkpoint" in refusal(CONFIG, folder, resume=True)
    assert contents(folder) == before


@pytest.mark.parametrize(
    "kept", [("metrics.jsonl",), ("dataset.safetensors",), ("metrics.jsonl", "dataset.safetensors")]
)
def test_a_run_that_lost_its_checkpoints_does_not_begin_again(
    tmp_path: Path, undisturbed: Undisturbed, kept: tuple[str, ...]
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in kept:
        shutil.copy(undisturbed.folder / name, folder)
    config = json.loads((undisturbed.folder / "config.json").read_text())
    config["versions"] = [VERSIONS[0] | {"jax": "0.0.1"}]  # else there is nothing to write before the refusal
    (folder / "config.json").write_text(json.dumps(config))
    before = contents(folder)
    said = refusal(CONFIG, folder, resume=True)
    assert "no checkpoint to go on from" in said and "give --overwrite" in said and "to begin again" in said
    assert ("60 steps" in said) == ("metrics.jsonl" in kept)
    (folder / "checkpoints").write_text("x")
    assert "checkpoints is no folder, where a run has one" in refusal(CONFIG, folder, resume=True)
    (folder / "checkpoints").unlink()
    assert {name: content for name, content in contents(folder).items() if name != ".lock"} == before


def test_a_run_that_was_killed_before_its_first_checkpoint_goes_on(tmp_path: Path, undisturbed: Undisturbed) -> None:
    """After its first dataset and log were written; also with the first bytes of a line."""
    folder = tmp_path / "run"
    for log_bytes in (None, 0, 5, -1):
        shutil.rmtree(folder, ignore_errors=True)
        distill(CONFIG, folder, time_limit=0.0, progress=False)
        unscored = dataclasses.replace(load(folder / "dataset.safetensors").card, score=None)
        dataset = dataclasses.replace(load(folder / "dataset.safetensors"), card=unscored)
        save(dataset, folder / "dataset.safetensors", overwrite=True)
        shutil.rmtree(folder / "checkpoints")
        content = (folder / "metrics.jsonl").read_bytes()
        (folder / "metrics.jsonl").unlink()
        if log_bytes is not None:
            (folder / "metrics.jsonl").write_bytes(content[:log_bytes] if log_bytes >= 0 else content)
        assert distill(CONFIG, folder, resume=True, time_limit=0.0, progress=False).outer_steps == 2
        assert [line["step"] for line in metrics(folder)] == [1, 2]


def test_a_log_that_was_deleted_begins_where_the_run_goes_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    distill(CONFIG, folder, time_limit=0.0, progress=False)
    (folder / "metrics.jsonl").unlink()
    distill(CONFIG, folder, resume=True, time_limit=0.0, progress=False)
    assert [line["step"] for line in metrics(folder)] == [3, 4]
    assert distill(CONFIG, folder, resume=True, time_limit=0.0, progress=False).outer_steps == 6
    assert [line["step"] for line in metrics(folder)] == [3, 4, 5, 6]


@pytest.mark.parametrize("line", ['{"step": 1, "seconds": null}', '{"step": "1"}', '{"step": 0}', "[1]", '{"a": 1}'])
def test_a_log_of_other_things_is_refused(tmp_path: Path, undisturbed: Undisturbed, line: str) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    (folder / "metrics.jsonl").write_text(line + "\n")
    assert "is no log of a run" in refusal(CONFIG, folder, resume=True)


@pytest.mark.parametrize("versions", [None, 5, "x", {"jax": "1"}, [1, None], [{"jax": 1}]])
def test_versions_of_other_types_are_refused(tmp_path: Path, undisturbed: Undisturbed, versions: Any) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text()) | {"versions": versions}
    (folder / "config.json").write_text(json.dumps(config))
    before = contents(folder)
    said = refusal(CONFIG, folder, resume=True)
    assert "config.json has versions" in said and "of packages by name" in said
    assert contents(folder) == before
    del config["versions"]  # as in runs of before it
    (folder / "config.json").write_text(json.dumps(config))
    assert distill(CONFIG, folder, resume=True, progress=False).dataset.card.versions == VERSIONS[0]


def test_other_versions_are_said_and_both_are_kept(
    tmp_path: Path, undisturbed: Undisturbed, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    config = json.loads((folder / "config.json").read_text())
    config["versions"] = [VERSIONS[0] | {"jax": "0.0.1"}]
    (folder / "config.json").write_text(json.dumps(config))
    now = VERSIONS[0]["jax"]
    for _ in range(2):
        dataset = distill(CONFIG, folder, resume=True, progress=False).dataset
        assert f"jax 0.0.1, now {now}; the card names them all" in capsys.readouterr().err
        assert dataset.card.versions["jax"] == f"0.0.1, then {now}"
        assert dataset.card.versions["optax"] == VERSIONS[0]["optax"]


def test_a_finished_run_is_scored_once_more_with_the_time_of_a_first_call(
    tmp_path: Path, undisturbed: Undisturbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, allowed = shutil.copytree(undisturbed.folder, tmp_path / "run"), []
    original = module.Run.dataset

    class Watchdog(module.Watchdog):
        def __enter__(self) -> Any:
            watchdogs.append(self)
            return super().__enter__()

    def dataset(run: Any, state: Any, *, score: bool) -> DistilledDataset:
        allowed.extend(each.allowed for each in watchdogs)
        return original(run, state, score=score)

    watchdogs: list[Any] = []
    monkeypatch.setattr(module, "Watchdog", Watchdog)
    monkeypatch.setattr(module.Run, "dataset", dataset)
    distill(CONFIG, folder, resume=True, progress=False, step_timeout=50.0)
    assert allowed == [6 * 50.0]


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"[[1, 2]]", b'{"task": ', b"\xff\xfe"])
def test_a_broken_configuration_is_refused(tmp_path: Path, undisturbed: Undisturbed, content: bytes) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    (folder / "config.json").write_bytes(content)
    before = contents(folder)
    assert str(folder) in refusal(CONFIG, folder, resume=True)
    assert contents(folder) == before


def test_a_log_that_is_no_text_is_refused(tmp_path: Path, undisturbed: Undisturbed) -> None:
    folder = shutil.copytree(undisturbed.folder, tmp_path / "run")
    (folder / "metrics.jsonl").write_bytes(b"\xff\xfe" * 50)
    before = contents(folder)
    assert "metrics.jsonl" in refusal(CONFIG, folder, resume=True)
    assert contents(folder) == before


def test_a_run_that_diverges_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(monkeypatch, infinite_at=5)
    folder = tmp_path / "run"
    message = refusal(dataclasses.replace(CONFIG, outer_steps=8), folder)
    assert "loss" in message
    assert "fine" not in message
    assert re.search(r"step 6\b", message)  # counted as in metrics.jsonl, where the first step is 1
    assert str(folder / "dataset.safetensors") in message
    load(folder / "dataset.safetensors")
    assert [line["step"] for line in metrics(folder)] == [1, 2, 3, 4]


def test_a_run_that_diverges_at_once_promises_no_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_run(monkeypatch, infinite_at=0)
    message = refusal(dataclasses.replace(CONFIG, outer_steps=8), tmp_path / "run")
    assert re.search(r"step 1\b", message)
    assert "dataset.safetensors" not in message
    assert not (tmp_path / "run/dataset.safetensors").exists()


def test_a_task_of_no_installed_package_is_refused_at_once(tmp_path: Path) -> None:
    task = dataclasses.replace(ActionProbe(), package="no-such-package")
    register("homeless", lambda rest: task)
    try:
        message = refusal(dataclasses.replace(CONFIG, task="homeless/task"), tmp_path / "run")
    finally:
        FAMILIES.pop("homeless")
    assert "has package 'no-such-package', which is not installed" in message
    assert not (tmp_path / "run").exists()


@pytest.mark.thorough
@pytest.mark.slow
def test_an_absurd_rate_diverges() -> None:
    config = dataclasses.replace(CONFIG, outer_steps=2, outer=dataclasses.replace(CONFIG.outer, rate=1e30))
    assert re.search(r"diverged: \w+ is not finite at outer step [12]\b", refusal(config, None))


# --- Numbers from Python.


@pytest.mark.parametrize(
    "changes", [{"examples": 0}, {"seed": -1}, {"seed": 2**32}, {"outer_steps": 0}, {"initial_rate": float("nan")}]
)
def test_configurations_check_themselves(changes: dict[str, Any]) -> None:
    (name,) = changes
    with pytest.raises(FloppyError, match=name):
        DistillConfig("cartpole", **changes)


@pytest.mark.parametrize("is_pure", [True, False], ids=["device", "host"])
def test_every_outer_step_has_a_key_of_its_own(is_pure: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for a step wherever a call begins: a resumed run draws what an undisturbed one does."""

    def step(_: object, __: object, state: Any, key: jax.Array, ___: object) -> tuple[Any, dict[str, jax.Array]]:
        return state, {"drawn": jax.random.uniform(key), "env_steps": jnp.zeros(())}

    monkeypatch.setattr(type(CONFIG.outer), "step", step)
    module._programs.cache_clear()  # another test may have run the true steps
    run = module.Run(CONFIG, CONFIG.problem(), "", dataclasses.replace(ON_DEVICE, is_pure=is_pure))
    drawn = run.steps(jnp.zeros(()), [0, 1, 2], lambda: False)[1]["drawn"]
    assert len(set(drawn.tolist())) == 3
    assert run.steps(jnp.zeros(()), [2], lambda: False)[1]["drawn"].tolist() == [drawn[2]]
    module._programs.cache_clear()


@pytest.mark.thorough
@pytest.mark.slow
def test_cross_entropy_keeps_its_targets_probabilities() -> None:
    config = dataclasses.replace(CONFIG, cloning=GradientStep(loss="cross-entropy"), outer_steps=4)
    targets = distill(config).dataset.targets
    np.testing.assert_allclose(targets.sum(axis=1), 1.0, rtol=1e-5)
    assert np.all(targets > 0)
