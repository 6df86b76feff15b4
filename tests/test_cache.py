"""Compiled programs are kept where the user says, and nowhere if the user says so."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from floppy.cache import VARIABLE, cache_folder

COMPILE = """
from floppy.cache import enable_compilation_cache
enable_compilation_cache()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)  # this program is quick to compile
print(float(jax.jit(lambda x: jnp.sin(x).sum())(jnp.arange(3.0))))
print(jax.config.jax_compilation_cache_dir)
"""
SUM = "1.7507"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder without any of the variables that matter."""
    for name in (VARIABLE, "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def compile_in_subprocess(**environment: str) -> tuple[str, str]:
    """What the program printed: its result and JAX's cache folder."""
    command = [sys.executable, "-c", COMPILE]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env=os.environ | environment, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    result, folder = done.stdout.splitlines()
    return result[: len(SUM)], folder


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
def test_compiled_programs_are_kept_and_found_again(tmp_path: Path) -> None:
    wanted = tmp_path / "a new/folder"
    assert compile_in_subprocess(**{VARIABLE: str(wanted)}) == (SUM, str(wanted))
    kept = [path for path in files(wanted) if path.name.endswith("-cache")]
    assert kept
    written = {path: path.stat().st_mtime_ns for path in kept}
    assert compile_in_subprocess(**{VARIABLE: str(wanted)}) == (SUM, str(wanted))
    assert {path: path.stat().st_mtime_ns for path in files(wanted) if path.name.endswith("-cache")} == written


def test_off_writes_nothing(tmp_path: Path, home: Path) -> None:
    assert compile_in_subprocess(**{VARIABLE: "off"}) == (SUM, "None")
    assert files(tmp_path) == files(home) == []


@pytest.mark.usefixtures("home")
def test_a_folder_that_jax_was_given_is_left_alone(tmp_path: Path) -> None:
    given = tmp_path / "given"
    environment = {VARIABLE: str(tmp_path / "mine"), "JAX_COMPILATION_CACHE_DIR": str(given)}
    assert compile_in_subprocess(**environment) == (SUM, str(given))
    assert files(given)
    assert not (tmp_path / "mine").exists()


@pytest.mark.usefixtures("home")
def test_a_folder_that_cannot_be_made_does_not_stop_the_work(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    folder = str(tmp_path / "file/cache")
    assert compile_in_subprocess(**{VARIABLE: folder}) == (SUM, folder)


@pytest.mark.usefixtures("home")
def test_damaged_programs_do_not_stop_the_work(tmp_path: Path) -> None:
    """A kill in the middle of JAX's write may leave half a file."""
    folder = tmp_path / "cache"
    compile_in_subprocess(**{VARIABLE: str(folder)})
    kept = [path for path in files(folder) if path.name.endswith("-cache")]
    assert kept
    for path in kept:
        path.write_bytes(path.read_bytes()[:100])
    assert compile_in_subprocess(**{VARIABLE: str(folder)}) == (SUM, str(folder))
