"""Imports flow one way: a room may use the rooms above it in this list, never those below."""

import ast
import re
from functools import cache
from pathlib import Path

import triarch

ROOMS = [
    "errors",
    "limits",
    "suggest",
    "checks",
    "files",
    "config",
    "kinds",
    "layers",
    "inputs",
    "family",
    "weights",
    "hub",
    "models",
    "checkpoint",
    "surgery",
    "starters",
    "metrics",
    "data",
    "objectives",
    "generation",
    "engine",
    "tasks",
    "pages",
    "training",
    "tour",
    "cli",
    "__main__",
]
SPINE_LINES = 9000
PACKAGE = Path(triarch.__file__).parent
CONTRIBUTING = Path(__file__).parents[1] / "CONTRIBUTING.md"
FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def room_of(path):
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@cache
def nodes(path):
    """All of a file's syntax tree."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path):
    """Dotted names under triarch that a file imports, at its top or inside a function."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("triarch."))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "triarch":
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_every_file_lies_in_a_room():
    assert {room_of(path) for path in FILES} == set(ROOMS)


def test_imports_flow_one_way():
    for path in FILES:
        for name in imported(path):
            if (room := name.split(".")[1]) in ROOMS:
                assert ROOMS.index(room) <= ROOMS.index(room_of(path)), f"{path} imports {name}, a room below"


def test_families_do_not_import_each_other():
    for path in (PACKAGE / "models").glob("[!_]*.py"):
        assert not [name for name in imported(path) if name.startswith("triarch.models")], path


def test_tasks_hold_no_family():
    for path in (PACKAGE / "tasks").rglob("*.py"):
        assert not [name for name in imported(path) if name.startswith(("triarch.layers", "triarch.weights"))], path


def test_nothing_imports_the_oracle_or_unpickles():
    for path in FILES:
        names = {alias.name for node in nodes(path) if isinstance(node, ast.Import) for alias in node.names}
        modules = {node.module for node in nodes(path) if isinstance(node, ast.ImportFrom)}
        roots = {str(name).split(".")[0] for name in names | modules}
        assert not roots & {"transformers", "pickle", "pickletools", "marshal", "dill", "shelve"}, path
        calls = {ast.unparse(node.func) for node in nodes(path) if isinstance(node, ast.Call)}
        assert not calls & {"torch.load", "eval", "exec", "compile", "__import__"}, path


# What CONTRIBUTING.md says of the rooms


def section(heading):
    """The text below one of its headings."""
    return CONTRIBUTING.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def test_the_spine_is_short_enough_for_a_weekend():
    files = re.findall(r"\]\(src/triarch/([^)]+)\)", section("The spine"))
    assert len(files) == len(set(files)) > 20
    counts = {name: len((PACKAGE / name).read_text(encoding="utf-8").splitlines()) for name in files}
    assert sum(counts.values()) <= SPINE_LINES, counts


def test_the_rooms_are_listed_in_their_order():
    named = re.findall(r"^  (\w+)[./]", section("The rooms"), re.MULTILINE)
    assert named == [room for room in ROOMS if room != "__main__"]
