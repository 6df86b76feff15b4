"""Files: what is no file is refused by name, and nothing is ever half written."""

import os
import socket
import stat
from pathlib import Path

import pytest

from floppy.errors import FloppyError
from floppy.files import (
    append_to,
    as_path,
    check_file,
    check_new_file,
    read_file,
    size_text,
    what_blocks,
    write_atomically,
)
from floppy.run.folder import check_free


def refusal(path: Path, most: int = 10) -> str:
    with pytest.raises(FloppyError) as caught:
        read_file(path, "a log", most=most)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_bytes_are_written_and_read(tmp_path: Path) -> None:
    write_atomically(tmp_path / "new/report.html", b"one")
    write_atomically(tmp_path / "new/report.html", b"two")
    assert read_file(tmp_path / "new/report.html", "a report", most=3) == b"two"
    assert os.listdir(tmp_path / "new") == ["report.html"]


def test_what_is_no_file_of_bounded_size_is_refused(tmp_path: Path) -> None:
    assert "no such file: give the path of a log" in refusal(tmp_path / "absent")
    assert "folder" in refusal(tmp_path)
    assert "cannot be read" in refusal(tmp_path / ("x" * 300))
    assert "cannot be read" in refusal(tmp_path / "x\0y")
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refusal(tmp_path / "pipe")
    assert "regular file" in refusal(Path("/dev/zero"))
    (tmp_path / "large").write_bytes(b"12345678901")
    assert "has 11 bytes, a log may have 10 bytes at most" in refusal(tmp_path / "large")
    check_file(tmp_path / "large", "a log", most=11)


def test_home_is_meant_by_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/a/b") == tmp_path / "a/b"
    assert as_path("a/~") == Path("a/~")
    write_atomically("~/a.txt", b"one")
    assert (tmp_path / "a.txt").read_bytes() == b"one"
    for wrong in ("~nobody-of-this-name/a", 3):
        with pytest.raises(FloppyError, match="is no path"):
            as_path(wrong)  # type: ignore[arg-type]


def test_a_link_stays_one_and_permissions_are_kept(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_bytes(b"old")
    target.chmod(0o640)
    link.symlink_to(target)
    write_atomically(link, b"new")
    assert link.is_symlink() and target.read_bytes() == b"new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o640


def blocked(folder: Path, what: str) -> Path:
    """A path below a folder at which a pipe, a socket, or a link that leads to itself stands."""
    path = folder / what
    if what == "pipe":
        os.mkfifo(path)
    elif what == "socket":
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    else:
        path.symlink_to(path)
    return path


@pytest.mark.parametrize("what", ["pipe", "socket", "link that leads to itself"])
@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_file_is_never_replaced(tmp_path: Path, what: str, linked: bool) -> None:
    path = blocked(tmp_path, what)
    if linked:
        path = tmp_path / "link"
        path.symlink_to(tmp_path / what)
    before = [tuple(os.lstat(tmp_path / name))[:2] for name in sorted(os.listdir(tmp_path))]  # kinds and numbers
    for write in (
        lambda: write_atomically(path, b"new"),
        lambda: append_to(path, "new"),
        lambda: check_new_file(path, overwrite=True),
        lambda: check_new_file(path, overwrite=False),
    ):
        with pytest.raises(FloppyError, match=rf"cannot be written \(it is a .*{what}\): give another name"):
            write()  # type: ignore[no-untyped-call]
    assert [tuple(os.lstat(tmp_path / name))[:2] for name in sorted(os.listdir(tmp_path))] == before


def test_devices_are_no_files_and_links_to_nothing_may_become_some(tmp_path: Path) -> None:
    assert what_blocks(Path("/dev/full")) == "a device"
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    assert what_blocks(tmp_path / "link") == what_blocks(tmp_path / "absent") == ""
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "absent").read_bytes() == b"new"


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "dataset.safetensors", "checkpoints"])
def test_a_run_has_no_file_where_something_else_stands(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / name)
    with pytest.raises(FloppyError, match=f"{name} is (a pipe|no folder).* where a run has .*: give another folder"):
        check_free(tmp_path, overwrite=True)
    assert os.listdir(tmp_path) == [name]


def test_a_read_only_file_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "kept"
    path.write_bytes(b"old")
    path.chmod(0o444)
    with pytest.raises(FloppyError, match="read-only: choose another name"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["kept"]


def test_appending_adds_whole_texts(tmp_path: Path) -> None:
    append_to(tmp_path / "log", "one\n")
    append_to(tmp_path / "log", "two\n")
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    with pytest.raises(FloppyError, match="cannot be written"):
        append_to(tmp_path / "absent/log", "one\n")


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 bytes"), (1023, "1023 bytes"), (1536, "1.5 KiB"), (2**28, "256 MiB"), (2**31, "2 GiB")]
)
def test_sizes_read_as_people_say_them(size: int, text: str) -> None:
    assert size_text(size) == text
