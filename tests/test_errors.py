"""What other people's exceptions say, whatever they are, reaches a sentence in one piece."""

import errno
import os
import re
from pathlib import Path

import pytest
from probes import hand_dataset

from floppy.cli.main import main
from floppy.dataset import save
from floppy.errors import FloppyError, one_line, page, raised, shown, text_of
from floppy.tasks import patience

ROOT = Path(__file__).parents[1]


def test_pages_that_messages_name_are_in_the_documentation() -> None:
    """By their titles: an installed package has no docs/."""
    source = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    titles = set(re.findall(r"""\bpage\(["'](.+?)["']\)""", source))
    assert len(titles) >= 3
    pages = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert [title for title in titles if f"- {title}: " not in pages] == []
    assert page("Reports") == "the page 'Reports' of floppy's documentation"


class MuteError(Exception):
    def __str__(self) -> str:
        raise SystemExit


class Mute:
    def __str__(self) -> str:
        return 1 / 0  # type: ignore[return-value]

    __repr__ = __str__


@pytest.mark.parametrize(
    ("error", "text", "with_type"),
    [
        (KeyError("joint"), "'joint'", "KeyError: 'joint'"),
        (ValueError(), "ValueError", "ValueError"),
        (ValueError("..."), "ValueError", "ValueError"),
        (MuteError(), "MuteError", "MuteError"),
        (SystemExit(Mute()), "SystemExit", "SystemExit"),
        (OSError(1, Mute()), "PermissionError", "PermissionError"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "x"), "No such file or directory", None),
        (ValueError("a\n  b\x1b[31mred\x07\u202e é."), "a b\\x1b[31mred\\x07\\u202e é", None),
        (ValueError("x" * 500), "x" * 160 + "...", None),
    ],
)
def test_an_error_says_something_in_one_line(error: BaseException, text: str, with_type: str | None) -> None:
    assert one_line(error) == text
    assert raised(error) == (with_type or f"{type(error).__name__}: {text}")


def test_whole_sentences_keep_their_length_and_full_stop() -> None:
    assert text_of(ValueError(f"{'x' * 500}\n\x1b.")) == f"{'x' * 500} \\x1b."


def test_numbers_that_python_does_not_write_are_no_bug() -> None:
    assert shown(10**5000) == "a value of type int that is too long to write"
    assert shown([10**5000]) == "a value of type list that is too long to write"
    with pytest.raises(FloppyError, match=r"step_timeout must be .* got a value of type int"), patience(10**5000):
        pass


def test_ctrl_c_is_no_text() -> None:
    class SlowError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        text_of(SlowError())


MUTE = """
class Mute(Exception):
    def __str__(self):
        return 1 / 0

    __repr__ = __str__

"""


@pytest.mark.parametrize(
    ("code", "wanted"),
    [
        ("raise Mute()", "could not be imported (Mute): mend the module."),
        ("import sys; sys.exit(Mute())", "ended the program while it was imported (SystemExit): take its call of"),
        ("raise ValueError('\\x1b[31mred')", "could not be imported (ValueError: \\x1b[31mred): mend the module."),
    ],
)
def test_modules_may_raise_anything(
    code: str, wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mute_module.py").write_text(MUTE + code)
    save(hand_dataset(), tmp_path / "dataset.safetensors")
    assert main(["show", "dataset.safetensors", "--import", "mute_module"]) == 2
    assert capsys.readouterr().err.startswith(f"floppy: Module 'mute_module' {wanted}")
