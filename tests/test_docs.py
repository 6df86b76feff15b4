"""Documentation runs: every block of code in README.md and docs is executed, and every public name is explained."""

import ast
import gc
import importlib
import inspect
import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import pytest

import floppy
import floppy.drawing  # registers its kinds, which `reader` then leaves alone
from floppy.cli.main import COMMANDS, main
from floppy.dataset.card import KNOWN_FORMATS
from floppy.fields import Registry
from floppy.outer import OUTER_LOOPS
from floppy.teach import policy_file

REPOSITORY = Path(__file__).parents[1]
README = REPOSITORY / "README.md"
DESIGN = REPOSITORY / "docs/design.md"
NOTEBOOKS = sorted((REPOSITORY / "docs").rglob("*.ipynb"))
PAGES = [README, *sorted((REPOSITORY / "docs").rglob("*.md")), *NOTEBOOKS]

SHELLS = ("bash", "console", "sh")
MAY_STAND_WITHOUT_BEING_RUN = re.compile(r"make (demo|test)|git clone .*|(python3? -m )?pip install .*")
"""What needs a network, another virtual environment, or this very test."""

PLAIN = re.compile(r"floppy [\w ./,:='-]+")
"""A command that asks nothing of the shell."""

LENGTHS = re.compile(r"(?<=--budget )\d+(?=steps)|(?<=outer_steps=)\d+")
"""Of runs. Two steps show that what a page says runs; its length is for the reader's dataset to come out well."""

SECONDS = 600


class Block(NamedTuple):
    page: Path
    line: int
    """Of the opening fence, from 1."""
    language: str
    options: list[str]
    code: str

    @property
    def title(self) -> str:
        """The name of the file that it is to be, or nothing."""
        titles = [option.removeprefix("title=").strip('"') for option in self.options if option.startswith("title=")]
        return titles[0] if titles else ""


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order; what follows the language in the opening fence are its options.

    Those of a notebook are its cells of code, by their numbers.
    """
    if page in NOTEBOOKS:
        cells = enumerate(json.loads(page.read_text(encoding="utf-8"))["cells"], start=1)
        return [Block(page, n, "python", [], "".join(cell["source"])) for n, cell in cells if is_code(cell)]
    found, fence, start, language, options, lines = [], "", 0, "", [""], [""]
    for number, line in enumerate(page.read_text(encoding="utf-8").splitlines(), start=1):
        opening = re.fullmatch(r" {0,3}(`{3,}|~{3,})\s*(.*)", line)
        if not fence and opening:
            fence, start, lines = opening[1], number, []
            language, *options = opening[2].split() or [""]
        elif fence and opening and opening[1].startswith(fence) and not opening[2]:
            found.append(Block(page, start, language, options, "\n".join(lines) + "\n"))
            fence = ""
        elif fence:
            lines.append(line)
    assert not fence, f"{page}:{start}: the block is never closed"
    return found


def is_code(cell: dict[str, Any]) -> bool:
    """Whether a notebook's cell is to be executed."""
    return bool(cell["cell_type"] == "code")


def commands(block: Block) -> list[str]:
    """The command lines of a shell block; in a console block those after `$`, the rest being output."""
    lines = block.code.replace("\\\n", " ").splitlines()
    if block.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    return [line.strip() for line in lines if line.strip() and not line.strip().startswith("#")]


def name(page: Path) -> str:
    return str(page.relative_to(REPOSITORY))


BLOCKS = [block for page in PAGES for block in blocks(page)]
PAGES_TO_RUN = [page for page in PAGES if any(b.page == page and b.language in ("python", *SHELLS) for b in BLOCKS)]


def run_in_shell(line: str) -> None:
    """As a reader would with the virtual environment on."""
    folders = [str(Path(sys.executable).parent), os.environ.get("PATH", "")]
    environment = os.environ | {"PATH": os.pathsep.join(folders)}
    done = subprocess.run(
        ["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """An empty folder to read a page in, and the module that its code makes; what is registered there goes again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    modules = set(sys.modules)
    module = ModuleType("page")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    registries = [each for each in gc.get_objects() if issubclass(type(each), Registry)]
    before = [dict(each) for each in registries]
    yield module
    for registry, members in zip(registries, before, strict=True):
        registry._members.clear()
        registry._members.update(members)
    for gone in set(sys.modules) - modules:
        if (getattr(sys.modules[gone], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[gone]


@pytest.fixture
def any_ranks() -> Iterator[None]:
    """A reader's own code may add a bias as everybody does."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.parametrize(
    ("page", "newest"), [("dataset-format", max(KNOWN_FORMATS)), ("policy-file", policy_file.UNITS_FORMAT)]
)
def test_a_pages_title_names_the_newest_format(page: str, newest: int) -> None:
    title = (REPOSITORY / f"docs/{page}.md").read_text(encoding="utf-8").partition("\n")[0]
    assert re.findall(r"\d+", title) == ["1", str(newest)]


def test_the_design_says_where_every_outer_loop_is() -> None:
    house = DESIGN.read_text(encoding="utf-8").partition("## The house")[2].partition("\n## ")[0]
    where = house.partition("- `outer/`")[2].partition("\n- ")[0]
    for loop in OUTER_LOOPS.values():
        assert f"`{loop.__module__.split('.')[2]}" in where, loop


def test_readme_has_two_commands() -> None:
    assert [line for block in blocks(README) if block.language in SHELLS for line in commands(block)] == [
        "make demo",
        "make test",
    ]


@pytest.mark.thorough(
    all_but=[
        "README.md",
        "docs/dataset-format.md",
    ]
)
@pytest.mark.slow
@pytest.mark.usefixtures("compiled_once", "any_ranks")
@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=name)
def test_blocks_run(page: Path, reader: ModuleType) -> None:
    """Those of Python in one namespace, then all command lines in one folder, each as the page is read.

    A block with a title is a file of the reader's. All in this process, so that pages share what they have compiled.
    """
    to_run = [block for block in BLOCKS if block.page == page and "no-run" not in block.options]
    for block in to_run:
        if block.title:
            Path(block.title).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            exec(compile(LENGTHS.sub("2", block.code), f"{name(page)}:{block.line}", "exec"), reader.__dict__)
    lines = [command for block in to_run if block.language in SHELLS for command in commands(block)]
    for line in (LENGTHS.sub("2", line) for line in lines):
        if PLAIN.fullmatch(line):
            assert main(shlex.split(line)[1:]) == 0, line
        else:
            run_in_shell(line)


def public_module(name: str) -> ModuleType:
    """A module that is imported; one whose extra is not installed skips the test."""
    try:
        return importlib.import_module(name)
    except floppy.FloppyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("page", PAGES_TO_RUN, ids=name)
def test_code_names_what_there_is(page: Path) -> None:
    """What `make test` asks of the pages that it does not run."""
    for block in (block for block in BLOCKS if block.page == page):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.code)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "floppy":
                    known = node.attr in (*floppy.__all__, *floppy._SUBMODULES) or hasattr(floppy, node.attr)
                    assert known, f"line {block.line}: {node.attr}"
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("floppy"):
                    module = public_module(node.module or "")
                    assert all(hasattr(module, each.name) for each in node.names), f"line {block.line}: {node.module}"
        elif block.language in SHELLS:
            called = [line.split()[1] for line in commands(block) if line.startswith("floppy ")]
            assert all(each in COMMANDS or each.startswith("-") for each in called), f"line {block.line}: {called}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_only_what_cannot_run_here_is_exempt(page: Path) -> None:
    for block in blocks(page):
        others = [option for option in block.options if not re.fullmatch(r'title="\w+\.py"', option)]
        assert set(others) <= {"no-run"}, f"{name(page)}:{block.line}"
        if "no-run" in block.options:
            assert block.language in SHELLS, f"{name(page)}:{block.line}"
            for command in commands(block):
                assert MAY_STAND_WITHOUT_BEING_RUN.fullmatch(command), f"{name(page)}:{block.line}: {command}"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_links_within_the_repository_lead_somewhere(page: Path) -> None:
    prose = re.sub(r"^( {0,3})(`{3,}|~{3,}).*?^ {0,3}\2\s*$", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)#\s]+)", prose):
        if "://" not in target and not target.startswith("mailto:"):
            assert (page.parent / target).exists(), f"{name(page)} links to {target}"


@pytest.mark.parametrize("public", floppy.__all__)
def test_public_names_are_documented(public: str) -> None:
    thing = getattr(floppy, public)
    if inspect.isclass(thing) or inspect.isfunction(thing):
        text = thing.__doc__ or ""
        assert not text.startswith(f"{public}("), "what dataclass or NamedTuple made up"
    else:
        text = documented_constant(public)
    assert len(text.split()) >= 3


def documented_constant(public: str) -> str:
    """The string below the assignment, in whichever module of the package it stands."""
    for path in sorted((REPOSITORY / "src/floppy").rglob("*.py")):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        for statement, following in itertools.pairwise(body):
            targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
            if any(isinstance(target, ast.Name) and target.id == public for target in targets):
                is_text = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                return str(following.value.value) if is_text else ""
    return ""


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=name)
def test_notebooks_were_executed_from_top_to_bottom(notebook: Path) -> None:
    cells = [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if is_code(cell)]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output["output_type"] for cell in cells for output in cell["outputs"]]
    assert "error" not in kinds
    assert {"display_data", "execute_result", "stream"} <= set(kinds)
    assert notebook.stat().st_size < 200_000


def test_blocks_are_found(tmp_path: Path) -> None:
    """This very file's reading of Markdown."""
    page = tmp_path / "page.md"
    page.write_text(
        "text\n```python\na = 1\n\n  b\n```\n```bash no-run\n# not this\nmake \\\n  demo\n```\n"
        '~~~console\n$ floppy tasks\noutput\n~~~\n````text title="a.py"\n```\ninner\n```\n````\n```\nplain\n```\n'
    )
    found = blocks(page)
    assert [(b.line, b.language, b.options) for b in found] == [
        (2, "python", []),
        (7, "bash", ["no-run"]),
        (12, "console", []),
        (16, "text", ['title="a.py"']),
        (21, "", []),
    ]
    assert [b.title for b in found] == ["", "", "", "a.py", ""]
    assert found[0].code == "a = 1\n\n  b\n"
    assert [commands(b) for b in found[1:3]] == [["make    demo"], ["floppy tasks"]]
    page.write_text("```python\nnever closed\n")
    with pytest.raises(AssertionError, match="never closed"):
        blocks(page)
