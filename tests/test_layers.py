"""The order of the modules is the architecture: an import may only point up the list."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "vpt_data"

#: From the foundation to the command line; a module may import what stands above it (and its own folder).
ORDER = [
    "errors", "ahead", "store", "schema", "recipe", "columns", "hashing", "geometry", "upstream", "sources",
    "images", "dialogue", "selection", "markdown", "corpus", "pipeline", "report", "exchange", "inspect",
    "sample", "commands", "cli",
]  # fmt: skip


def _imports(path: Path) -> set[str]:
    """The modules of the package that a file imports at run time (imports for type checkers do not count)."""
    found: set[str] = set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        child
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if node in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vpt_data"):
            parts = str(node.module).split(".")
            found.update([parts[1]] if len(parts) > 1 else [alias.name for alias in node.names])
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[1] for alias in node.names if alias.name.startswith("vpt_data."))
    return found - {"__version__", "keep_memory"}


def _module(path: Path) -> str:
    relative = path.relative_to(PACKAGE)
    return relative.parts[0] if len(relative.parts) > 1 else relative.stem


def test_every_module_has_a_place() -> None:
    modules = {_module(path) for path in PACKAGE.rglob("*.py")} - {"__init__"}
    assert modules == set(ORDER)


def test_imports_point_up() -> None:
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in PACKAGE.rglob("*.py")
        if _module(path) != "__init__"
        for name in _imports(path)
        if name != _module(path) and ORDER.index(name) > ORDER.index(_module(path))
    ]
    assert not wrong


def test_sources_know_no_templates_and_templates_open_no_files() -> None:
    for path in (PACKAGE / "sources").glob("*.py"):
        assert not _imports(path) & {"dialogue"}
    calls = [
        node
        for node in ast.walk(ast.parse((PACKAGE / "dialogue/templates.py").read_text()))
        if isinstance(node, ast.Call)
    ]
    assert not [call for call in calls if isinstance(call.func, ast.Name) and call.func.id == "open"]


def test_nothing_heavy_is_imported_for_help() -> None:
    import subprocess
    import sys

    code = (
        "import sys, click.testing, vpt_data.cli as c; click.testing.CliRunner().invoke(c.main, ['--help']);"
        "print([m for m in ('torch','datasets','pandas','pyarrow','numpy','PIL') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
