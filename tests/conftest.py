"""What every test shares: compiled programs go to a temporary folder, never to the user's cache."""

from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import pytest

from floppy.cache import VARIABLE, enable_compilation_cache
from floppy.cli import main


@pytest.fixture(autouse=True, scope="session")
def temporary_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, str(tmp_path_factory.mktemp("floppy-cache")))
        yield


@pytest.fixture(scope="module")
def compiled_once(temporary_cache: None, quick_compile: None) -> None:
    """Every run compiles anew, or finds the program in the cache: this makes sure that it does."""
    from jax.experimental.compilation_cache import compilation_cache

    enable_compilation_cache()
    compilation_cache.reset_cache()  # tests that ran before may have compiled without one


@pytest.fixture(scope="module")
def quick_compile() -> Iterator[None]:
    """Compiles in a third of the time, for modules whose programs are many and tiny."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


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
