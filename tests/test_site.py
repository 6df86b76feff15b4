"""The documentation site: both references are whole, it is built without a warning, fetches nothing, and links lead on.

Its pages' code is executed by test_docs.py.
"""

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

import pytest

import floppy
from floppy.cli.main import COMMANDS

REPOSITORY = Path(__file__).parents[1]
DOCS = REPOSITORY / "docs"
NEEDED = ("mkdocs", "material", "mkdocstrings_handlers", "latex2mathml", "nbconvert")
NOWHERE = "http://127.0.0.1:9"
"""A proxy that nobody answers at: what is fetched all the same fails, and the build with it."""


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    """What the site is made with, scripts/site_hooks.py."""
    spec = importlib.util.spec_from_file_location("site_hooks", REPOSITORY / "scripts/site_hooks.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def public_names() -> Iterator[str]:
    """All of them, with their modules."""
    yield from (f"floppy.{name}" for name in floppy.__all__)
    for submodule in ("studies", "tasks", "zoo", "drawing"):
        module = importlib.import_module(f"floppy.{submodule}")
        yield from (f"{module.__name__}.{name}" for name in module.__all__)


def test_every_public_name_is_in_the_reference(hooks: ModuleType) -> None:
    page = hooks.api_page()
    assert [name for name in public_names() if not re.search(rf"(::: |`){re.escape(name)}(?!\w)", page)] == []
    assert [name for name in floppy._SUBMODULES if f"## floppy.{name}\n" not in page] == []


def test_every_option_is_in_the_reference(hooks: ModuleType) -> None:
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", hooks.commands_page(), re.DOTALL | re.MULTILINE))
    general = sections["Options of every command"]
    for name, command in COMMANDS.items():
        section = sections[f"floppy {name}"]
        for option in command.parser(["--help"]).options.values():
            row = re.search(rf"^\| `{option.typed}[ `].*$", section + general, re.MULTILINE)
            assert row, f"{name} {option.typed}"
            assert hooks.escaped(option.text) in row[0]
            if isinstance(option.default, int | float) and not isinstance(option.default, bool):
                assert f"| `{option.default}` |" in row[0]
    assert "--smoothness" in sections["Outer loops"]
    assert "--cloning.max-grad-norm" in sections["Kinds of cloning"]


def test_pages_that_are_not_there_are_left_out(hooks: ModuleType) -> None:
    nav = [{"Home": "index.md"}, {"Start": [{"a": "start.md"}, {"b": "never-there.md"}]}, {"c": ["never.md"]}]
    assert hooks.there(nav) == [{"Home": "index.md"}, {"Start": [{"a": "start.md"}]}]


def test_a_link_that_shows_a_files_name_shows_the_title_of_its_page(hooks: ModuleType) -> None:
    link = r"\[[\w./-]+\.md\]\(([\w./-]+\.md)"
    text = "See [tasks.md](tasks.md#faults), [the scores](results/papers.md), [papers.md](papers.md)."
    said = "See [Your own environment](tasks.md#faults), [the scores](results/papers.md), "
    assert re.sub(link, hooks.titled, text) == f"{said}[Every score of both papers](papers.md)."


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda page: page.stem)
def test_pages_are_not_wide(page: Path) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if len(line) > 120 and not re.match(r"[|!]|TWO=", line)] == []


class Reader(HTMLParser):
    """Notes what a page fetches, where it leads, and what can be led to."""

    FETCHED = (("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "srcset"), ("object", "data"))

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.fetched: set[str] = set()
        self.links: set[str] = set()
        self.anchors: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self.anchors |= {values[name] for name in ("id", "name") if name in values}
        self.fetched |= {values[name] for kind, name in self.FETCHED if kind == tag and name in values}
        if tag == "link" and values.get("rel") not in ("canonical", "next", "prev"):
            self.fetched.add(values["href"])
        if tag == "a" and "href" in values:
            self.links.add(values["href"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` does."""
    if absent := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the extra docs is not installed: {', '.join(absent)}")
    folder = tmp_path_factory.mktemp("site")
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), NOWHERE)
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)],
        cwd=REPOSITORY,
        env=os.environ | proxies | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.mark.thorough
@pytest.mark.slow
def test_the_site_fetches_nothing_and_its_links_lead_somewhere(site: Path) -> None:
    pages = {path: Reader(path) for path in site.rglob("*.html") if path.name != "404.html"}
    assert {"index.html", "api.html", "commands.html", "start.html"} <= {path.name for path in pages}
    for path, page in pages.items():
        for link in page.fetched | page.links:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                assert link in page.links - page.fetched, f"{path.name} fetches {link}"
                continue
            place = (path.parent / unquote(target.path)).resolve() if target.path else path
            place = place / "index.html" if place.is_dir() else place
            assert place.is_file(), f"{path.name} leads to {link}"
            if target.fragment and place in pages:
                assert unquote(target.fragment) in pages[place].anchors, f"{path.name} leads to {link}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*[\"']?(https?:)?//", sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.thorough
@pytest.mark.slow
def test_the_site_has_every_public_name_and_no_formula_in_latex(site: Path) -> None:
    anchors = Reader(site / "api.html").anchors
    for name in public_names():
        module, _, last = name.rpartition(".")
        thing = getattr(importlib.import_module(module), last)
        is_twice = module != "floppy" and last in floppy.__all__ and thing is getattr(floppy, last)
        assert (f"floppy.{last}" if is_twice else name) in anchors, name
    text = (site / "concepts.html").read_text(encoding="utf-8")
    formulas = re.findall(r"<math .*?</math>", text, re.DOTALL)
    assert len(formulas) == len(re.findall('class="arithmatex"', text)) > 10
    assert not [formula for formula in formulas if "\\" in formula or "merror" in formula]
    assert text.count('<div class="drawing"') == 2
