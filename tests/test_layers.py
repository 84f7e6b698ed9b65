"""The order of the rooms is the architecture: an import points up the list, and no room holds a circle."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

#: From the foundation to the command line: root files and rooms, each may import what is above it.
ROOMS = [
    "errors", "schema", "take", "columns", "hashing", "geometry", "hub_files", "store", "report",
    "upstream", "sources", "images", "dialogue", "depth", "recipe", "selection", "corpus", "pipeline", "inspect",
    "exchange", "synthetic", "api", "cli", "__main__",
]  # fmt: skip
#: The same for the trainer.
TRAINER = [
    "packages", "config", "encoders", "data", "model", "training", "generation", "evaluation", "entry", "run",
    "generate", "export", "evaluate",
]  # fmt: skip


def _run_time(tree: ast.Module) -> list[ast.AST]:
    """All nodes but those that only type checkers see."""
    skipped = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    return [node for node in ast.walk(tree) if node not in skipped]


def _modules(package: str) -> dict[str, Path]:
    """Every module of a package by its dotted name."""
    found = {}
    for path in (ROOT / package).rglob("*.py"):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def _imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports at run time, or names in a string, as import hooks and process pools do."""
    found: set[str] = set()
    for node in _run_time(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            whole = str(node.module)
            found.update(name if (name := f"{whole}.{alias.name}") in known else whole for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found.add(node.value)
    return found & set(known)


def _room(module: str) -> str:
    """The room of a dotted name, "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


@pytest.mark.parametrize(("package", "rooms"), [("vpt_data", ROOMS), ("trainer", TRAINER)])
def test_every_room_has_a_place_and_imports_point_up(package: str, rooms: list[str]) -> None:
    known = _modules(package)
    assert {_room(name) for name in known if _room(name)} == set(rooms)
    wrong = [
        f"{name} imports {other}"
        for name, path in known.items()
        for other in _imports(path, known) - {package}
        if name != package and rooms.index(_room(other)) > rooms.index(_room(name))
    ]
    assert not wrong


@pytest.mark.parametrize("package", ["vpt_data", "trainer"])
def test_no_circle(package: str) -> None:
    known = _modules(package)
    # A room's own `__init__` stands for its face, and its files may be named there.
    rooms = {name for name in known if known[name].name == "__init__.py"}
    graph = {name: _imports(path, known) - {name} - rooms for name, path in known.items() if name not in rooms}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_root_holds_few_files() -> None:
    assert len(list((ROOT / "vpt_data").glob("*.py"))) <= 12


@pytest.mark.parametrize("package", ["vpt_data", "trainer"])
def test_every_room_lists_its_files(package: str) -> None:
    """The first page of a room names each of its files, so that a reader finds the way by it."""
    for folder in (path.parent for path in (ROOT / package).glob("*/**/__init__.py")):
        words = set(re.findall(r"\w+", (folder / "__init__.py").read_text(encoding="utf-8")))
        names = {path.stem for path in folder.glob("*.py")} - {"__init__"}
        names |= {path.parent.name for path in folder.glob("*/__init__.py")}
        assert names <= words, folder


def test_the_trainer_may_use_the_toolkit_and_never_the_reverse() -> None:
    known = _modules("trainer")
    assert not [path for path in (ROOT / "vpt_data").rglob("*.py") if _imports(path, known)]


def test_sources_build_no_prompt_and_dialogues_open_no_file() -> None:
    known = _modules("vpt_data")
    for name, path in known.items():
        if _room(name) == "sources":
            assert "dialogue" not in {_room(other) for other in _imports(path, known)}
        if _room(name) in {"dialogue", "selection"}:
            calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
            assert not [call for call in calls if getattr(call.func, "id", getattr(call.func, "attr", "")) == "open"]


def test_a_build_imports_nothing_that_only_others_need() -> None:
    """Neither what a download needs nor pandas, which Arrow imports for the first array that is made."""
    code = (
        "import sys, vpt_data.pipeline.build, vpt_data.pipeline.writing;"
        "print([m for m in ('torch', 'datasets', 'pandas', 'matplotlib', 'httpx2', 'urllib.request', 'http.client') "
        "if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_no_two_files_of_tests_have_one_name() -> None:
    """pytest collects neither of them when both are asked for; a room that runs its own tests alone does not see it."""
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert not {name for name in names if names.count(name) > 1}
