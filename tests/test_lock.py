"""One run at a time works in a folder."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_runs import TINY

from floppy.errors import FloppyError
from floppy.run.lock import LOCK_NAME, hold
from floppy.run.loop import distill

HOLDS = """
import sys, time
from pathlib import Path
from floppy.run.lock import hold
with hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def refusal(folder: Path) -> str:
    with pytest.raises(FloppyError) as caught, hold(folder):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_another_process_is_named_and_its_lock_ends_with_it(tmp_path: Path) -> None:
    other = subprocess.Popen([sys.executable, "-c", HOLDS, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None and other.stdout.readline() == "held\n"
    assert f"in use by process {other.pid} on {socket.gethostname()}: wait for it" in refusal(tmp_path)
    for options in ({"resume": True}, {"overwrite": True}, {}):
        with pytest.raises(FloppyError, match="in use by process"):
            distill(TINY, tmp_path, progress=False, **options)
    assert os.listdir(tmp_path) == [LOCK_NAME]
    other.kill()
    other.communicate()
    with hold(tmp_path):
        assert json.loads((tmp_path / LOCK_NAME).read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", [b"", b"[", b"[]", b'{"pid": "x"}', b"[" * 100_000])
def test_a_holder_that_says_nothing_of_itself_is_another_process(tmp_path: Path, content: bytes) -> None:
    with hold(tmp_path):
        (tmp_path / LOCK_NAME).write_bytes(content)
        assert "in use by another process" in refusal(tmp_path)


def test_a_folder_that_cannot_be_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    assert "cannot be written" in refusal(tmp_path / "file/run")
