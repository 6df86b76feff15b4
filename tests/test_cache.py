"""Compiled programs are kept where the user says, and nowhere if the user says so."""

import subprocess
import sys
from pathlib import Path

import jax
import pytest

from floppy.run.cache import VARIABLE, cache_folder, enable_compilation_cache

COMPILE = """
import os, sys
import jax, jax.numpy as jnp
from jax.experimental.compilation_cache import compilation_cache
from floppy.run.cache import VARIABLE, enable_compilation_cache

def compiled(wanted, given=None):
    os.environ[VARIABLE] = wanted
    jax.clear_caches()
    compilation_cache.reset_cache()
    jax.config.update("jax_compilation_cache_dir", given)
    enable_compilation_cache()
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # this program is quick to compile
    print(f"{float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(3.0))):.4f}")
    print(jax.config.jax_compilation_cache_dir)

words = iter(sys.argv[1:])
for wanted in words:
    compiled(wanted, next(words) or None)
"""
"""Compiles for each pair of what `FLOPPY_CACHE` says and the folder that JAX was given, as if it had just begun."""
SUM = "1.7508"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any of the variables that matter."""
    for name in (VARIABLE, "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def compile_in_subprocess(*cases: tuple[str | Path, str | Path]) -> list[tuple[str, str]]:
    """What the program printed for each case: its result, and JAX's cache folder."""
    command = [sys.executable, "-c", COMPILE, *(str(word) for case in cases for word in case)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    return list(zip(lines[::2], lines[1::2], strict=True))


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_by_default_it_is_in_the_users_cache(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == home / ".cache/floppy/xla"
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/else")
    assert cache_folder() == Path("/somewhere/else/floppy/xla")
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert cache_folder() == home / ".cache/floppy/xla"


@pytest.mark.usefixtures("home")
def test_the_variable_chooses_the_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere/else")
    monkeypatch.setenv(VARIABLE, "/my own")
    assert cache_folder() == Path("/my own")
    monkeypatch.setenv(VARIABLE, "")
    assert cache_folder() == Path("/somewhere/else/floppy/xla")


@pytest.mark.parametrize("word", ["off", "OFF", "Off"])
@pytest.mark.usefixtures("home")
def test_off_means_nowhere(monkeypatch: pytest.MonkeyPatch, word: str) -> None:
    monkeypatch.setenv(VARIABLE, word)
    assert cache_folder() is None


@pytest.mark.usefixtures("home")
def test_a_folder_that_cannot_be_used_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("no folder")
    given = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        for wanted in ("file", "file/cache"):
            monkeypatch.setenv(VARIABLE, str(tmp_path / wanted))
            enable_compilation_cache()
            assert jax.config.jax_compilation_cache_dir is None  # type: ignore[attr-defined]
            said = capsys.readouterr().err
            assert said.startswith(
                f"floppy: Compiled programs are not kept, for {tmp_path / wanted} cannot be written ("
            )
            assert (
                said.endswith("): set FLOPPY_CACHE to a folder that is writable, or to off.\n")
                and said.count("\n") == 1
            )
    finally:
        jax.config.update("jax_compilation_cache_dir", given)


def programs(folder: Path) -> dict[Path, int]:
    """Kept programs, and when they were written."""
    return {path: path.stat().st_mtime_ns for path in files(folder) if path.name.endswith("-cache")}


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_compiled_programs_are_kept_and_found_again(tmp_path: Path) -> None:
    wanted = tmp_path / "a new/folder"
    assert compile_in_subprocess((wanted, "")) == [(SUM, str(wanted))]
    written = programs(wanted)
    assert written
    assert compile_in_subprocess((wanted, "")) == [(SUM, str(wanted))]
    assert programs(wanted) == written


@pytest.mark.thorough
@pytest.mark.slow
def test_nothing_stops_the_work(tmp_path: Path, home: Path) -> None:
    """Neither a folder that cannot be made, nor half a program, which a kill in the middle of JAX's write may leave."""
    (tmp_path / "file").write_text("no folder")
    kept, given, mine, unmade = (tmp_path / name for name in ("kept", "given", "mine", "file/cache"))
    assert compile_in_subprocess(("off", "")) == [(SUM, "None")]
    assert files(tmp_path) == [tmp_path / "file"]
    assert files(home) == []
    results = compile_in_subprocess((mine, given), (unmade, ""), (kept, ""))
    assert results == [(SUM, str(given)), (SUM, "None"), (SUM, str(kept))]
    assert files(given), "a folder that JAX was given is used"
    assert not mine.exists(), "and no other"
    for path in programs(kept):
        path.write_bytes(path.read_bytes()[:100])
    assert compile_in_subprocess((kept, "")) == [(SUM, str(kept))]
