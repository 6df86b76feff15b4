"""The house: imports point down the layers, nobody asks which member is running, the door is light."""

import ast
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src/floppy"

LAYERS = (
    {"errors"},
    {"compilation", "fields", "figure", "files", "npz", "keys", "parallel", "spaces"},
    {"dataset", "learner", "tasks"},
    {"cloning", "play"},
    {"teach"},
    {"outer", "evaluation", "drawing"},
    {"run"},
    {"recipes", "torch", "onnx", "sb3", "minari", "zoo"},
    {"exports"},
    {"studies", "papers"},
    {"report"},
    {"cli"},
    {"__init__", "__main__"},
)
"""From the ground up: a folder, or a file beside them, imports from its own layer and from those below."""

OWNERS = {"cloning": "cloning", "learner": "learner", "tasks": "tasks", "outer": "outer", "arenas": "play"}
"""Whose classes nobody else may ask for, by the folder that owns the contract."""

ASKED_BY_NAME = {"loss": "cloning", "task_id": "tasks", "strategy": "outer", "network": "learner", "cloning": "cloning"}
"""Attributes that nobody outside the owning folder may compare with a name."""

ALLOWED: dict[tuple[str, str], str] = {}
"""Places that do so all the same, with the reason: file and what is asked."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        parts = list(path.relative_to(SOURCE.parent).with_suffix("").parts)
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def imported_nodes(tree: ast.AST, *, lazily: bool = True) -> Iterator[ast.ImportFrom]:
    """`from floppy... import ...`, those for type checking alone left out; with `lazily` those in functions too."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "floppy":
            yield node
        if lazily or not isinstance(node, ast.FunctionDef):
            yield from imported_nodes(node, lazily=lazily)


def arrows() -> dict[str, set[str]]:
    """What every module imports."""
    found: dict[str, set[str]] = {}
    for name, path in MODULES.items():
        nodes = imported_nodes(ast.parse(path.read_text(encoding="utf-8")))
        wanted = {f"{node.module}.{each.name}" for node in nodes for each in node.names}
        found[name] = {each if each in MODULES else each.rpartition(".")[0] for each in wanted} & MODULES.keys() - {
            name
        }
    return found


ARROWS = arrows()


def room(module: str) -> str:
    """The folder of a module, or its name where it stands beside the folders."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def reached(module: str) -> set[str]:
    """Every module that is imported along with it."""
    found: set[str] = set()
    ahead = [module]
    while ahead:
        for each in ARROWS[ahead.pop()] - found:
            found.add(each)
            ahead.append(each)
    return found


@pytest.mark.parametrize("module", MODULES)
def test_no_import_cycle(module: str) -> None:
    assert module not in reached(module)


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    storey = {name: number for number, names in enumerate(LAYERS) for name in names}
    wrong = [each for each in ARROWS[module] if storey[room(each)] > storey[room(module)]]
    assert not wrong


def test_every_room_has_a_storey() -> None:
    assert {room(module) for module in MODULES} == set().union(*LAYERS)


def classes_of(folder: str) -> set[str]:
    """Public classes that a folder defines."""
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (SOURCE / folder).rglob("*.py")]
    return {node.name for tree in trees for node in tree.body if isinstance(node, ast.ClassDef)}


MEMBERS = {name: owner for owner in OWNERS.values() for name in classes_of(owner)}
NO_MEMBERS = {"FaultyEnvironmentError", "Profile", "Labelled", "Transition"}
"""Classes of these folders that are values or errors, and no members of a contract."""


def questions(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """What a module asks of others' members: `(owner, what)`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id in ("isinstance", "issubclass"):
                names = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                yield from ((MEMBERS[name], name) for name in names & MEMBERS.keys() - NO_MEMBERS)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = node.func.value
            if node.func.attr == "startswith" and isinstance(asked, ast.Attribute) and asked.attr in ASKED_BY_NAME:
                yield ASKED_BY_NAME[asked.attr], asked.attr
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            has_name = any(isinstance(side, ast.Constant) and isinstance(side.value, str) for side in sides)
            for side in sides if has_name else ():
                if isinstance(side, ast.Attribute) and side.attr in ASKED_BY_NAME:
                    yield ASKED_BY_NAME[side.attr], side.attr


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: str(path.relative_to(SOURCE)))
def test_nobody_asks_which_member_is_running(path: Path) -> None:
    place = path.relative_to(SOURCE)
    asked = {(owner, what) for owner, what in questions(ast.parse(path.read_text(encoding="utf-8")))}
    found = {what for owner, what in asked if place.parts[0] != owner}
    assert {what for what in found if (str(place), what) not in ALLOWED} == set()


def test_every_exception_is_still_needed() -> None:
    for (place, what), reason in ALLOWED.items():
        asked = questions(ast.parse((SOURCE / place).read_text(encoding="utf-8")))
        assert what in {each for _, each in asked}, f"{place} no longer asks for {what}: {reason}"


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("isinstance(outer, PPMO)", {("outer", "PPMO")}),
        ("isinstance(cloning, GradientStep | AdamSteps)", {("cloning", "GradientStep"), ("cloning", "AdamSteps")}),
        ("task.task_id.startswith('ale/')", {("tasks", "task_id")}),
        ("config.cloning.loss == 'mse'", {("cloning", "loss")}),
        ("isinstance(value, dict) and name == 'x'", set()),
    ],
)
def test_questions_are_found(code: str, found: set[tuple[str, str]]) -> None:
    """This very file's reading of code."""
    assert set(questions(ast.parse(code))) == found


def imports_of(code: str) -> set[str]:
    """Top-level packages that are imported by code in a fresh process."""
    script = f"import sys, json\n{code}\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=os.environ)
    return set(json.loads(done.stdout))


HEAVY = {"jax", "scipy", "tyro", "rich", "matplotlib", "optax", "evosax", "gymnax", "gymnasium", "flax", "torch"}


@pytest.mark.parametrize(
    "code",
    [
        "import floppy",
        "import floppy.dataset.file, floppy.dataset.card",
        "import floppy; floppy.load",
        "from floppy.cli.main import main; main(['--help'])",
    ],
    ids=["door", "dataset", "load", "help"],
)
def test_what_needs_no_accelerator_imports_none(code: str) -> None:
    quiet = "import contextlib, io\nwith contextlib.redirect_stdout(io.StringIO()):\n    "
    assert imports_of(quiet + code) & HEAVY == set()
