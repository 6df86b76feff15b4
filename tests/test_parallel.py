"""Work on several devices and in several processes: the same results as on one, and files from one process only."""

import functools
import json
import os
import shlex
import socket
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import ImageProbe, logged, make_problem

from floppy import parallel
from floppy.cli import runs as commands
from floppy.cli.main import main
from floppy.cloning import AdamSteps
from floppy.dataset import load
from floppy.errors import FloppyError
from floppy.outer import HaDES
from floppy.parallel import (
    CPU_CHUNK_BYTES,
    Processes,
    chunk_size,
    first_process_says,
    is_first_process,
    replicate,
    shard_rows,
    sharded_map,
    sharded_sum,
)

KEY = jax.random.key(0)
MAPS = ((1, 2), (5, 1), (7, 3), (12, 5))
"""Counts and chunks; none of them divides evenly over 2 or 3 devices."""
SUMS = (1, 5, 7)
RUN = shlex.split(
    "distill cartpole --outer hades --outer-steps 4 --evaluate-every 2 --population 10 --selection-learners 6 "
    "--distribution width=16:depth=1:initialiser=xavier --cloning.steps 4 --normalise-observations --json"
)

pytestmark = pytest.mark.slow


# --- what every number of devices must agree on ---


def row(index: jax.Array, x: jax.Array) -> dict[str, jax.Array]:
    return {"index": index, "row": jnp.sin(x * (index + 1.0)), "total": jnp.sum(x) + index}


def operand() -> jax.Array:
    return jnp.linspace(-1.0, 2.0, 3)


def map_figures() -> dict[str, np.ndarray]:
    figures = {}
    for count, chunk in MAPS:
        every = jax.jit(lambda x, count=count, chunk=chunk: sharded_map(jax.vmap(row, (0, None)), count, chunk, x))
        figures |= {f"map {count} {name}": np.asarray(values) for name, values in every(operand()).items()}
    for count in SUMS:
        total = jax.jit(lambda x, count=count: sharded_sum(row, count, x))
        figures |= {f"sum {count} {name}": np.asarray(values) for name, values in total(operand()).items()}
    return figures


def evolution_figures() -> dict[str, np.ndarray]:
    """Two generations of a population of 10, with noise that depends on everything and is smooth on images."""
    problem = make_problem(
        ImageProbe(), cloning=AdamSteps(loss="cross-entropy", steps=3), initial_rate=0.1, outer_steps=2
    )
    outer = HaDES(
        population=10, initialisations=2, environments=8, sigma=2.0, smoothness=2.0, normalise_observations=True
    )
    state = replicate(jax.jit(outer.init, static_argnums=0)(problem, KEY))
    step = jax.jit(outer.step, static_argnums=0)
    figures = {}
    for generation in range(2):
        state, info = step(problem, state, jax.random.fold_in(KEY, generation))
        figures |= {f"{name} {generation}": np.asarray(values) for name, values in info.items()}
    leaves = jax.tree.leaves((outer.distilled(state), outer.statistics(state), state.strategy))
    return figures | {f"leaf {index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}


def child(out: str) -> None:
    """What a process of several devices does: all figures into a file."""
    rows = jax.jit(shard_rows)({"even": jnp.arange(12.0).reshape(6, 2), "odd": jnp.arange(5)})
    spread = {name: len(values.sharding.device_set) for name, values in rows.items()}
    sizes = {"devices": jax.device_count(), "chunk": chunk_size(10, CPU_CHUNK_BYTES // 2)}
    others = {f"rows {name}": np.asarray(values) for name, values in rows.items()} | sizes
    np.savez(out, spread=spread["even"], **map_figures(), **evolution_figures(), **others)


def start(words: list[str], folder: Path, devices: int) -> subprocess.Popen[str]:
    """A process of its own, with so many CPU devices."""
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}",
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]),
    }
    words = [sys.executable, "-W", "ignore", *words]
    return subprocess.Popen(
        words, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def finish(processes: list[subprocess.Popen[str]]) -> list[str]:
    """What they print; all of them must succeed."""
    try:
        outputs = [process.communicate(timeout=300) for process in processes]
    finally:
        for process in processes:
            process.kill()  # where one failed, another may wait for it
            process.wait()
    for process, (_, complaint) in zip(processes, outputs, strict=True):
        assert process.returncode == 0, complaint[-3000:]
    return [output for output, _ in outputs]


@pytest.fixture(scope="module", params=[3], ids=["3-devices"])
def spread(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    """The figures of a process with several devices; all tests of one count share it."""
    folder = tmp_path_factory.mktemp(f"devices{request.param}")
    finish([start(["-c", "import test_parallel; test_parallel.child('figures.npz')"], folder, request.param)])
    with np.load(folder / "figures.npz") as archive:
        figures = dict(archive)
    assert figures["devices"] == request.param
    return figures


def assert_maps_equal_vmap(figures: dict[str, np.ndarray]) -> None:
    plain = jax.jit(jax.vmap(row, (0, None)))
    for count, _ in MAPS:
        for name, wanted in plain(jnp.arange(count), operand()).items():
            np.testing.assert_allclose(figures[f"map {count} {name}"], wanted, rtol=1e-6, atol=1e-7)
    for count in SUMS:
        for name, wanted in plain(jnp.arange(count), operand()).items():
            np.testing.assert_allclose(figures[f"sum {count} {name}"], np.sum(wanted, axis=0), rtol=1e-5, atol=1e-6)


def test_work_on_one_device_equals_vmap() -> None:
    assert_maps_equal_vmap(map_figures())


def test_work_on_several_devices_equals_vmap(spread: dict[str, np.ndarray]) -> None:
    assert_maps_equal_vmap(spread)


@functools.cache
def alone() -> dict[str, np.ndarray]:
    assert jax.device_count() == 1
    return evolution_figures()


def test_evolution_on_several_devices_equals_that_on_one(spread: dict[str, np.ndarray]) -> None:
    for name, wanted in alone().items():
        if name.startswith("env_steps"):
            np.testing.assert_array_equal(spread[name], wanted, err_msg=name)
        else:
            np.testing.assert_allclose(spread[name], wanted, rtol=1e-5, atol=1e-5, err_msg=name)
    assert float(alone()["fitness_sd 0"]) > 0.01, "all candidates are alike: this shows nothing"


def test_a_chunk_is_at_most_a_devices_share() -> None:
    seen = []

    def count(indices: jax.Array) -> jax.Array:
        seen.append(indices.shape)
        return indices

    np.testing.assert_array_equal(jax.jit(lambda: sharded_map(count, 7, 1000))(), np.arange(7))
    assert set(seen) == {(7,)}


def test_rows_are_spread_where_they_divide_evenly(spread: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(spread["rows even"], np.arange(12.0).reshape(6, 2))
    np.testing.assert_array_equal(spread["rows odd"], np.arange(5))
    assert spread["spread"] == spread["devices"]
    # Half of what a chunk may take each: pairs, of five or four per device.
    assert spread["chunk"] == 2


# --- several processes ---


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Runs(NamedTuple):
    folder: Path
    """Runs `one` and `two-0`; were it to write, also that of the second process, `two-1`."""
    one: str
    """What is printed by one process with two devices."""
    two: list[str]
    """What is printed by each of two processes with one device."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    command = ["-m", "floppy", *RUN]
    [one] = finish([start([*command, "--out", "one"], folder, 2)])
    shared = [*command, "--coordinator", f"127.0.0.1:{free_port()}", "--processes", "2"]
    two = finish([start([*shared, "--process", str(i), "--out", f"two-{i}"], folder, 1) for i in range(2)])
    return Runs(folder, one, two)


@pytest.mark.thorough
def test_two_processes_give_what_one_with_two_devices_gives(runs: Runs) -> None:
    wanted, got = (load(runs.folder / name / "dataset.safetensors") for name in ("one", "two-0"))
    assert got.numpy().keys() == wanted.numpy().keys()
    for name, tensor in wanted.numpy().items():
        assert got.numpy()[name].tobytes() == tensor.tobytes(), name
    assert got.card.score == wanted.card.score
    logs = [logged(runs.folder / name) for name in ("one", "two-0")]
    assert logs[0] == logs[1]
    assert len(logs[0]) == 4


@pytest.mark.thorough
def test_only_the_first_process_writes(runs: Runs) -> None:
    assert sorted(path.name for path in runs.folder.iterdir()) == ["one", "two-0"]


@pytest.mark.thorough
def test_the_first_process_prints_one_json_object_and_the_second_nothing(runs: Runs) -> None:
    first, second = runs.two
    assert second == ""
    assert first.count("\n") == runs.one.count("\n") == 1
    result, reference = json.loads(first), json.loads(runs.one)
    for name in ("task", "score", "outer_steps", "env_steps"):
        assert result[name] == reference[name]


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        ("distill", "--processes 2", "Several processes need a --coordinator: give its host:port."),
        ("baseline", "--process 1", "Several processes need a --coordinator: give its host:port."),
        ("distill", "--coordinator foo --processes 2", "coordinator must be host:port or auto, got 'foo'."),
        ("distill", "--coordinator localhost:1 --processes 0", "processes must be at least 1"),
        (
            "baseline",
            "--coordinator localhost:1 --processes 2 --process 2",
            "process must be at least 0 and at most 1, got 2.",
        ),
        # JAX has long looked for its devices in this process.
        ("distill", "--coordinator localhost:1 --processes 2", "The processes could not be joined ("),
    ],
)
def test_wrong_processes_are_refused(
    command: str, words: str, message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    jax.devices()
    code = main([command, "cartpole", *words.split(), "--out", str(tmp_path / "run"), "--json"])
    captured = capsys.readouterr()
    assert (code, captured.out) == (2, "")
    assert captured.err.startswith(f"floppy: {message}")
    assert captured.err.count("\n") == 1
    assert captured.err.endswith(".\n")
    assert not (tmp_path / "run").exists()


def test_one_process_is_the_first_and_has_nothing_to_join() -> None:
    Processes().join()
    assert is_first_process()
    assert first_process_says(True)
    assert not first_process_says(False)
    with pytest.raises(FloppyError, match="need a --coordinator"):
        Processes(processes=2).join()


# --- chunks ---


@pytest.mark.parametrize(
    ("count", "share", "devices", "wanted"),
    [
        (10, 4, 1, 4),  # at most 4 at a time: 3 chunks, of 4, 4 and 2
        (9, 4, 1, 3),  # 3 chunks of 3 rather than 4, 4 and 1
        (8, 4, 1, 4),
        (3, 4, 1, 3),
        (10, 4, 2, 3),  # 5 per device, in 2 chunks
        (1, 4, 2, 1),
        (10, 0.5, 1, 1),  # one piece alone is too large: one at a time all the same
    ],
)
def test_chunk_sizes_by_hand(
    count: int, share: float, devices: int, wanted: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel.jax, "device_count", lambda: devices)
    assert chunk_size(count, int(CPU_CHUNK_BYTES / share)) == wanted


@pytest.mark.parametrize(
    ("words", "is_spread"),
    [
        ("cartpole --outer hades", True),
        ("breakout --outer=hades --out x", True),
        ("brax/hopper --recipe hades-brax", True),
        ("cartpole --method neuroevolution", True),
        ("cartpole", False),
        ("cartpole --outer ppmo", False),
        ("gymnasium/CartPole-v1 --outer hades", False),  # Python steps it
        ("images/digits --outer hades", False),
        ("of-my-own/1 --outer hades", False),
        ("cartpole --outer hades --coordinator auto", False),  # the processes are what shares the work
        ("--outer hades", False),
        ("", False),
    ],
)
def test_evolution_on_jax_tasks_is_spread_over_the_cores(
    words: str, is_spread: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(commands, "use_all_cores", lambda: calls.append(1))
    commands.spread_evolution(shlex.split(words))
    assert bool(calls) == is_spread


CORES = "from floppy.parallel import use_all_cores; use_all_cores(); import jax; print(jax.device_count())"


@pytest.mark.parametrize(
    "variable", ["JAX_NUM_CPU_DEVICES=3", "XLA_FLAGS=--xla_force_host_platform_device_count=3", ""]
)
def test_every_core_is_a_device_unless_the_environment_says_otherwise(variable: str) -> None:
    name, _, value = variable.partition("=")
    others = {each: text for each, text in os.environ.items() if each not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")}
    environment = others | {"JAX_PLATFORMS": "cpu"} | ({name: value} if name else {})
    told = subprocess.run([sys.executable, "-c", CORES], env=environment, capture_output=True, text=True, check=True)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    assert int(told.stdout) == (3 if name else min(cores, parallel.MOST_CORES))


def test_devices_that_jax_knows_stay_as_they_are() -> None:
    before = jax.device_count()
    parallel.use_all_cores()
    assert jax.device_count() == before


def test_what_takes_no_memory_is_done_at_once() -> None:
    assert chunk_size(1000, 0) == 1000
    assert chunk_size(1000, 1) == 1000


def test_an_accelerators_chunks_take_their_share_of_its_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    class Accelerator:
        platform = "gpu"

        def __init__(self, stats: dict[str, int] | None) -> None:
            self.stats = stats

        def memory_stats(self) -> dict[str, int] | None:
            return self.stats

    monkeypatch.setattr(parallel.jax, "local_devices", lambda: [Accelerator({"bytes_limit": 800})])
    assert chunk_size(100, 10) == 10
    monkeypatch.setattr(parallel.jax, "local_devices", lambda: [Accelerator(None)])
    assert chunk_size(100, CPU_CHUNK_BYTES // 50) == 50


# --- copies ---


def test_replicated_values_are_the_same() -> None:
    tree = {"key": jax.random.key(3), "rows": jnp.arange(6.0).reshape(3, 2), "flag": jnp.asarray(True)}
    copy = replicate(tree)
    assert jax.tree.structure(copy) == jax.tree.structure(tree)
    np.testing.assert_array_equal(jax.random.key_data(copy["key"]), jax.random.key_data(tree["key"]))
    for name in ("rows", "flag"):
        np.testing.assert_array_equal(copy[name], tree[name])
        assert copy[name].dtype == tree[name].dtype
        assert copy[name].sharding.is_fully_replicated
