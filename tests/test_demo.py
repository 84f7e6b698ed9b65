"""`make demo` builds a corpus with its images, says where things are, and shows that a row can be read."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import undrawn
from helpers.command import run

ROOT = Path(__file__).resolve().parents[1]


def recipe() -> list[str]:
    """The commands of the target `demo`."""
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    [found] = re.findall(r"^demo:.*\n((?:\t.*\n)+)", text, re.MULTILINE)
    return [line.strip().lstrip("@") for line in found.splitlines()]


def test_the_demo_embeds_its_images_shows_a_row_and_ends_with_a_page(
    sample_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undrawn.undraw_plots(monkeypatch.setattr)
    build, *rest = recipe()
    words = shlex.split(build)[1:]
    assert words[words.index("--images") + 1] == "embed"
    words[words.index("--raw") + 1] = str(sample_root)
    words[words.index("--out") + 1] = str(tmp_path / "corpora/sample")
    assert run(*words, "--workers", "1").exit_code == 0
    [shown] = [line for line in rest if "first_row.py" in line]
    command = [sys.executable, str(ROOT / "docs/first_row.py"), *shlex.split(shown)[2:]]
    environment = {**os.environ, "HF_HOME": str(tmp_path / "hf"), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^rows\[0\] of \d+, loaded with datasets: \w+/\w+$", done.stdout, re.MULTILINE)
    assert "user" in done.stdout and "its image: <PIL." in done.stdout
    assert any("sample-raw" in line for line in rest), "it says where the raw root is"
    [page] = [shlex.split(line)[1:] for line in rest if "vpt-data view" in line]
    made = run(*[str(tmp_path / word) if word.startswith("corpora/") else word for word in page])
    assert made.exit_code == 0, made.stderr
    assert (tmp_path / "corpora/sample.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    after = "".join(rest[rest.index(f"$(BIN)/{shlex.join(['vpt-data', *page])}") :])
    assert "Open corpora/sample.html in a browser" in after and "problems first" in after
