"""What `make docs` makes beside the pages in docs: both references, the notebook's page, formulas and drawings.

MkDocs calls the functions `on_...` (mkdocs.yml names this file). Nothing here is typed twice: options come from the
commands' dataclasses, names from the package's `__all__`, and the first page is the README.
"""

import dataclasses
import importlib
import importlib.util
import inspect
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, get_args

import floppy
from floppy.cli.field_options import MISSING, Option, bare, options_of
from floppy.cli.main import COMMANDS
from floppy.cli.parsing import HELP, Parser
from floppy.cloning.base import CLONINGS
from floppy.outer import OUTER_LOOPS

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
NOTEBOOKS = "notebooks"
FROM_ROOT = {"README.md": "index.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md"}
"""Pages that lie beside docs, and what they are called in the site."""

MADE = "<!-- made by make docs -->"
"""In a page, where what its function makes belongs."""

SECTIONS = {
    "run": "Distilling",
    "recipes": "Recipes",
    "dataset": "Datasets",
    "teach": "Training policies",
    "evaluation": "Evaluation",
    "learner": "Networks",
    "cloning": "Cloning",
    "outer": "Outer loops",
    "tasks": "Tasks",
    "errors": "Errors",
}
"""Titles of the packages that public names come from, in the order of the page; others follow under their own names."""


# The reference of the command line.


def commands_page() -> str:
    """Every command with all of its options, as `--help` has them."""
    general = list(parser_of("tasks").options.values())
    parts = ["## Options of every command", option_table(general), *map(command_section, COMMANDS)]
    for title, choice, kinds, prefix in (
        ("Outer loops", "--outer", OUTER_LOOPS, ()),
        ("Kinds of cloning", "--cloning", CLONINGS, ("cloning",)),
    ):
        parts.append(f"## {title}")
        for name, kind in kinds.items():
            about = (inspect.getdoc(kind) or "").replace("\n", " ")
            options = list(options_of(kind, {}, prefix))
            parts += [f"### {choice} {name}", escaped(about), option_table(options) if options else ""]
    return "\n\n".join(parts)


def parser_of(name: str) -> Parser:
    """What reads a command's words; defaults that depend on the task are those of its help without one."""
    parser: Parser = COMMANDS[name].parser(HELP)
    return parser


def command_section(name: str) -> str:
    """A command: what it does, what it is typed with, and its options by group."""
    parser, common = parser_of(name), parser_of("tasks").options
    typed = " ".join(["floppy", name, *(each.typed for each in parser.options.values() if each.is_positional)])
    parts = [f"## floppy {name}", f"`{typed}`", escaped(parser.about)]
    own: list[Option] = []
    for field in dataclasses.fields(parser.form()):
        if field.name in parser.options:
            own.append(parser.options[field.name])
            continue
        group = get_args(field.type)[0]
        options = [parser.options[each.name] for each in dataclasses.fields(group)]
        if new := [each for each in options if each.key not in common]:
            parts += [f"**{field.name.removesuffix('_options').replace('_', ' ').capitalize()}.** {group.__doc__}"]
            parts += [option_table(new)]
    if new := [each for each in own if each.key not in common]:
        parts.insert(3, option_table(new))
    return "\n\n".join(parts)


def option_table(options: Iterable[Option]) -> str:
    """A line per option."""
    lines = ["| option | default, or choices | meaning |", "| --- | --- | --- |"]
    for option in options:
        name = f"{option.typed} {value_text(option)}".strip()
        text = escaped(option.text)
        lines.append(f"| `{name}` | {default_text(option)} | {text} |")
    return "\n".join(lines)


def value_text(option: Option) -> str:
    """What may follow the name of an option."""
    if option.is_positional or bare(option.hint) is bool:
        return ""
    if option.choices or any(get_args(each) for each in [bare(option.hint)] if "Literal" in str(each)):
        return "NAME"
    kinds = set(re.findall(r"int|float|str|Path", str(bare(option.hint))))
    word = "NUMBER" if kinds & {"int", "float"} else "PATH" if "Path" in kinds else "TEXT"
    return f"{word} ..." if "tuple" in str(option.hint) else word


def default_text(option: Option) -> str:
    """The value that is taken where none is given, and the values to choose from."""
    values = [str(each) for each in option.choices or get_args(bare(option.hint)) if isinstance(each, str) and each]
    default = option.default
    if default is MISSING:
        return "required"
    if isinstance(default, bool):
        return "on" if default else "off"
    shown = " ".join(map(str, default)) if isinstance(default, tuple) else "" if default is None else str(default)
    others = ", ".join(f"`{each}`" for each in values if each != default)
    return "; or ".join(filter(None, [shown and f"`{shown}`", others]))


def escaped(text: str) -> str:
    """Plain text within Markdown, in a table too."""
    return re.sub(r"([|<*_`\[\]$])", r"\\\1", text.replace("\n", " "))


# The reference of the library.


def api_page() -> str:
    """Every public name, for mkdocstrings to fill in."""
    by_package: dict[str, list[str]] = {}
    for name in floppy.__all__:
        by_package.setdefault(floppy._HOMES[name].split(".")[1], []).append(name)
    parts = []
    for package in [*SECTIONS, *sorted(by_package.keys() - SECTIONS.keys())]:
        if package in by_package:
            parts.append(f"## {SECTIONS.get(package, package.capitalize())}")
            parts += [f"::: floppy.{name}" for name in by_package[package]]
    for module in floppy._SUBMODULES:
        parts += [f"## floppy.{module}", *module_parts(f"floppy.{module}")]
    return "\n\n".join(parts)


def module_parts(name: str) -> Iterator[str]:
    """A public module's names; one that lists none, and may not be importable here, is documented as it stands."""
    spec = importlib.util.find_spec(name)
    source = Path(spec.origin).read_text(encoding="utf-8") if spec and spec.origin else ""
    try:
        module = importlib.import_module(name) if "__all__ =" in source else None
    except floppy.FloppyError:  # its extra is not installed
        module = None
    if module is None:
        yield f"::: {name}\n    options: {{show_root_heading: false, show_root_toc_entry: false}}"
        return
    yield inspect.getdoc(module) or ""
    for each in module.__all__:
        if each in floppy.__all__ and getattr(module, each) is getattr(floppy, each):
            yield f"`{name}.{each}` is [`floppy.{each}`](#floppy.{each})."
        else:
            yield f"::: {name}.{each}"


PAGES = {"commands.md": commands_page, "api.md": api_page}
"""What is made for the mark in a page."""


# What MkDocs calls.


def on_config(config: Any) -> Any:
    """Leaves pages that are not there out of the navigation."""
    config.nav = there(config.nav)
    return config


def there(nav: Any) -> Any:
    """The entries of a navigation whose pages are there or will be made."""
    if isinstance(nav, dict):
        kept = {title: inner for title, each in nav.items() if (inner := there(each))}
        return kept or None
    if isinstance(nav, list):
        return [inner for each in nav if (inner := there(each))] or None
    made = nav in FROM_ROOT.values() or (DOCS / nav).with_suffix(".ipynb").exists()
    return nav if made or (DOCS / nav).exists() else None


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that lie beside docs, and those of notebooks."""
    from mkdocs.structure.files import File

    for source, name in FROM_ROOT.items():
        text = re.sub(r"""(\]\(|(?:src|srcset)=")docs/""", r"\1", (ROOT / source).read_text(encoding="utf-8"))
        for other, place in FROM_ROOT.items():
            text = text.replace(f"]({other}", f"]({place}")
        files.append(File.generated(config, name, content=text))
    for notebook in sorted((DOCS / NOTEBOOKS).glob("*.ipynb")):
        for name, content in notebook_files(notebook).items():
            files.append(File.generated(config, f"{NOTEBOOKS}/{name}", content=content))
    return files


def notebook_files(path: Path) -> dict[str, str | bytes]:
    """The page of a notebook, with its output, and the pictures in it."""
    from nbconvert import MarkdownExporter

    text, resources = MarkdownExporter().from_filename(str(path))
    link = f"[Download this notebook]({path.name})"
    title, _, rest = text.strip().partition("\n")
    return {path.with_suffix(".md").name: f"{title}\n\n{link}\n{rest}\n", **resources["outputs"]}


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Puts in what is made, and leads links to where their pages are in the site."""
    name = page.file.src_uri
    if name in PAGES:
        markdown = markdown.replace(MADE, PAGES[name]())
    markdown = re.sub(r"^(```\w+) no-run$", r"\1", markdown, flags=re.M)
    for source, target in FROM_ROOT.items():
        markdown = markdown.replace(f"](../{source}", f"]({target}")
    markdown = re.sub(r"\[([^\]]+)\]\([\w./-]+/\)", r"\1", markdown)  # folders are no pages
    markdown = re.sub(r"\[[\w./-]+\.md\]\(([\w./-]+\.md)", titled, markdown)
    return re.sub(rf"\]\(((?:\.\./)?{NOTEBOOKS}/[\w-]+)\.ipynb", r"](\1.md", markdown)


def titled(link: re.Match[str]) -> str:
    """A link whose text is a file's name, with the title of that page in its place."""
    path = next((path for path in (DOCS / link[1], DOCS / "results" / link[1]) if path.exists()), None)
    title = path.read_text(encoding="utf-8").partition("\n")[0] if path else f"# {link[1].removesuffix('.md')}"
    return f"[{re.split('[:,]', title.removeprefix('# '))[0]}]({link[1]}"


def on_page_content(html: str, page: Any, config: Any, files: Any) -> str:
    """Formulas as MathML, which browsers draw by themselves, and drawings within the page, in its colours."""
    html = re.sub(r'<(span|div) class="arithmatex">(.*?)</\1>', mathml, html, flags=re.S)
    return re.sub(r'<p>\s*<img alt="([^"]*)" src="([^":]*figures/[\w-]+\.svg)"\s*/?>\s*</p>', drawing, html)


def mathml(found: re.Match[str]) -> str:
    """A formula."""
    from html import unescape

    from latex2mathml.converter import convert

    kind, text = found[1], unescape(found[2]).strip()
    shown = convert(text[2:-2], display="block" if kind == "div" else "inline")
    return f'<{kind} class="arithmatex">{shown}</{kind}>'


def drawing(found: re.Match[str]) -> str:
    """A picture of docs/figures."""
    picture = (DOCS / "figures" / found[2].rpartition("/")[2]).read_text(encoding="utf-8")
    if "currentColor" not in picture:
        return found[0]
    return f'<div class="drawing" role="img" aria-label="{found[1]}">{picture}</div>'
