"""Processes that talk to the test Hub: `huggingface_hub` reads its settings when it is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from helpers.hub import accounts

ROOT = Path(__file__).resolve().parents[3]
#: `vpt-data` in a process of its own, whose cards are those of `undrawn`; its `environment` must be set.
VPT_DATA = [
    sys.executable, "-c",
    "import helpers.hub.undrawn_here, runpy; runpy.run_module('vpt_data', run_name='__main__', alter_sys=True)",
]  # fmt: skip


def environment(endpoint: str, home: Path, token: str | None = accounts.WRITE, **more: str) -> dict[str, str]:
    """What a process needs to take the server at `endpoint` for the Hub.

    home   its `HF_HOME`: token file and caches
    """
    kept = {name: text for name, text in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    made = kept | {
        "HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_UPDATE_CHECK": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "NO_PROXY": "127.0.0.1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
    }  # fmt: skip
    return made | ({"HF_TOKEN": token} if token else {}) | more


def point_at(url: str, patch: pytest.MonkeyPatch) -> None:
    """Make `huggingface_hub` in this process take the server at `url` for the Hub."""
    patch.setattr("huggingface_hub.constants.ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    patch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)


def python(program: str, env: dict[str, str], *arguments: str | Path, code: int = 0) -> str:
    """What a Python program prints; it must end with this code."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def python_json(program: str, env: dict[str, str], *arguments: str | Path) -> Any:
    """The JSON that a Python program prints last."""
    return json.loads(python(program, env, *arguments).splitlines()[-1])
