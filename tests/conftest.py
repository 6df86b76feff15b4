"""What every test shares: compiled programs go to a temporary folder, never to the user's cache."""

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# Before anything imports JAX, and for the processes that tests start: programs, which are many and tiny, compile in a
# third of the time without most optimisations, two to six times faster without fusion emitters, and a tenth faster in
# one piece; they run a little slower.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "True"
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)

import jax
import psutil

from floppy.cli.main import main
from floppy.play.arena import _program
from floppy.run.cache import VARIABLE, enable_compilation_cache
from floppy.run.loop import _programs

# Tracing makes millions of small objects that are seldom garbage: looking for it less often saves a twentieth.
gc.set_threshold(200_000, 50, 100)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """`make test` asks those cases of a thorough test that `thorough(all_but=IDS)` names: they stand for the others."""
    named, there = set(), set()
    for item in items:
        mark, case = item.get_closest_marker("thorough"), getattr(item, "callspec", None)
        if mark and case:
            usual = mark.kwargs.get("all_but", ())
            function = item.nodeid.partition("[")[0]
            named |= {(function, each) for each in usual}
            there.add((function, case.id))
            if case.id in usual:
                item.own_markers.remove(mark)
    is_whole = not any("::" in each for each in config.args)
    if is_whole and (absent := named - there):
        raise pytest.UsageError(f"thorough(all_but=...) names cases that do not exist: {sorted(absent)}")


@pytest.fixture(autouse=True, scope="session")
def temporary_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """One for all processes of the suite: what one of them has compiled the others find."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(shared / "floppy-cache"))
        yield


@pytest.fixture(autouse=True, scope="session")
def strict_ranks() -> Iterator[None]:
    """Arrays of different ranks are combined on purpose or not at all."""
    with jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def compiled_once(temporary_cache: None) -> None:
    """Every run compiles, or finds the program in the cache: this makes sure that it does."""
    from jax.experimental.compilation_cache import compilation_cache

    enable_compilation_cache()
    compilation_cache.reset_cache()  # tests that ran before may have compiled without one


MUCH_MEMORY = psutil.virtual_memory().total // 4
"""Of one process, in bytes; freeing it takes seconds."""


@pytest.fixture(autouse=True, scope="module")
def forget_programs() -> Iterator[None]:
    """Frees what modules have compiled, gigabytes in the end; what is little they share."""
    yield
    if psutil.Process().memory_info().rss > MUCH_MEMORY:
        _programs.cache_clear()
        _program.cache_clear()
        jax.clear_caches()
        gc.collect()


@pytest.fixture(scope="module")
def no_nans() -> Iterator[None]:
    """The first operation that makes a NaN raises, for modules of plain maths that never mean one."""
    with jax.debug_nans(True):
        yield


Refused = Callable[[list[str], str], None]


@pytest.fixture
def refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Checks that a study's command line is answered with one sentence that holds a text, and writes nothing."""

    def check(words: list[str], wanted: str) -> None:
        out = tmp_path / "out"
        assert main([*words, "--out", str(out)]) == 2
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err.startswith("floppy: ")
        assert said.err.count("\n") == 1
        assert wanted in said.err
        assert not out.exists()

    return check
