"""How the pages of the documentation are run: a scratch folder, and what is done with each kind of fence.

What the kinds of fences mean is explained in CONTRIBUTING.md, section Documentation.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
import warnings
from pathlib import Path
from typing import NamedTuple

import click
from click.testing import CliRunner

from vpt_data import __version__, recipe
from vpt_data.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SET_UP = {"git", "cd", "pip", "make"}


class Block(NamedTuple):
    """A fenced block: its kind, the file it belongs in or "", its text."""

    kind: str
    file: str
    text: str


FENCE = re.compile(r"^```(?P<kind>\w+)(?: file=(?P<file>\S+))?\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    return [Block(found["kind"], found["file"] or "", found["text"]) for found in FENCE.finditer(read(page))]


def program_of(line: str) -> tuple[click.Command, list[str]] | None:
    """The program of ours that a line runs, and its arguments; None for a line that needs a shell.

    It runs in this process: one of its own would first import everything again, for half a second to four.
    """
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    if "$" in line or any(set(word) <= set("();<>|&") for word in words):
        return None
    if words[:1] == ["vpt-data"]:
        return main, words[1:]
    if words[:2] == ["python", "-m"] and words[2].startswith("trainer."):
        return importlib.import_module(words[2]).main, words[3:]
    return None


class Scratch:
    """A folder in which a page is run, with `vpt-data` and `python` on its PATH."""

    def __init__(self, folder: Path, raw: Path, own_package: bool) -> None:
        self.folder, self.own_package = folder, own_package
        shutil.copytree(raw, folder / "raw")
        (folder / "docs").symlink_to(DOCS)
        if own_package:
            for name in ("vpt_data", "recipes", "manifests"):
                shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
            (folder / "tests").mkdir()
            for name in ("pyproject.toml", "README.md"):
                shutil.copy(ROOT / name, folder / name)
        self._shim("vpt-data", "-m vpt_data")
        self._shim("python", "")
        self.environment = {
            **{name: value for name, value in os.environ.items() if name != "VPT_DATA_RAW"},
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "PYTHONPATH": str(folder if own_package else ROOT),
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_OFFLINE": "1",
        }

    def _shim(self, name: str, arguments: str) -> None:
        path = self.folder / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {arguments} "$@"\n')
        path.chmod(0o755)

    def here(self, program: click.Command, words: list[str]) -> str:
        """What a program prints that is run in this process."""
        with contextlib.chdir(self.folder), warnings.catch_warnings():
            # What the Hub's client does with its own HTTP library is no finding.
            warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
            done = CliRunner().invoke(program, words, env={"VPT_DATA_RAW": None}, catch_exceptions=False)
        assert done.exit_code == 0, f"{words}\n{done.output}"
        return done.stdout

    def python(self, text: str) -> None:
        """Run a program; one with `datasets`, which reads its settings when it is imported, in a process of its own."""
        if "datasets" in text:
            self.run([sys.executable, "-c", text])
            return
        with contextlib.chdir(self.folder), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are findings in tests only
            exec(compile(text, "<page>", "exec"), {"__name__": "__main__"})

    def run(self, command: list[str]) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def shell(self, line: str, real_data: bool) -> str:
        word = line.split()[0]
        if word in SET_UP:
            check_set_up(shlex.split(line, comments=True))
            return ""
        if line.startswith("vpt-data build"):
            line = line.partition(" #")[0]
            # One process is faster than several on a sample.
            line += "" if "--workers" in line else " --workers 1"
            line += " --dry-run" if real_data and "--dry-run" not in line else ""
        if line.startswith("vpt-data view") and "--rows" not in line:
            line += " --rows 30"
        if line.startswith("vpt-data sample") and "--rows" not in line:
            line += " --rows 200"  # what `raw` is already
        if (known := program_of(line)) and not self.own_package:
            return self.here(*known)
        return self.run(["bash", "-c", f"set -euo pipefail; {line}"])

    def write(self, block: Block) -> None:
        path = self.folder / block.file
        old = read(path) if path.exists() else ""
        path.write_text(f"{old}\n{block.text}" if old else block.text, encoding="utf-8")

    def patch(self, block: Block) -> None:
        lines = block.text.splitlines(keepends=True)
        before = "".join(line[1:] for line in lines if line[0] != "+")
        path = self.folder / block.file
        text = read(path)
        assert text.count(before) == 1, f"{block.file} has no such place, or several:\n{before}"
        after = "".join(line[1:] for line in lines if line[0] != "-")
        path.write_text(text.replace(before, after), encoding="utf-8")


def check_set_up(words: list[str]) -> None:
    """Set-up cannot run here; what it names must exist."""
    if words[0] == "make":
        targets = re.findall(r"^([a-z]+):", read(ROOT / "Makefile"), re.MULTILINE)
        assert words[1] in targets, f"the Makefile has no target {words[1]}"
    if words[0] == "pip":
        extras = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["optional-dependencies"]
        assert set(re.findall(r"\[(\w+)\]", " ".join(words))) <= set(extras)
        assert all(__version__ in word for word in words if word.endswith(".whl")), "the wheel has another version"


def check_output(shown: str, printed: str) -> None:
    """What a page shows is what the command before it prints; `...` stands for any text up to the end of a line."""
    pattern = re.escape(shown.strip()).replace(re.escape("..."), ".*")
    assert re.fullmatch(pattern, printed.strip()), f"the page shows\n{shown}\nand the command prints\n{printed}"


def run_page(listed: list[Block], scratch: Scratch) -> None:
    tmp_path = scratch.folder
    printed = ""
    for number, block in enumerate(listed):
        if block.kind in {"sh", "bash"}:
            for line in block.text.replace("\\\n", " ").splitlines():
                printed = scratch.shell(line, real_data=block.kind == "bash")
        elif block.kind == "output":
            check_output(block.text, printed)
        elif block.kind == "diff":
            scratch.patch(block)
        elif block.file:
            scratch.write(block)
        elif block.kind == "python":
            scratch.python(block.text)
        if block.kind == "toml" and not block.file.startswith("manifests/"):
            path = tmp_path / (block.file or f"recipe_{number}.toml")
            path.write_text(block.text, encoding="utf-8")
            assert recipe.load(str(path)).take
