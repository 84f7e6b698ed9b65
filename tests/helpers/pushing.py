"""What the tests of `push-to-hub` share: corpora, and the command against a Hub on this machine."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from helpers import command, end_to_end
from helpers.hub import accounts
from helpers.hub.client import point_at
from helpers.hub.server import HubServer
from PIL import Image

from vpt_data.pipeline.plan import Mode


@contextmanager
def hub(home: Path, patch: pytest.MonkeyPatch, **server: Any) -> Iterator[HubServer]:
    """A Hub that the commands of this process push to, as the user `me`, without pauses between attempts."""
    with HubServer(**server) as running:
        point_at(running.url, patch)
        patch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
        patch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(home / "token"))
        patch.setenv("HF_TOKEN", accounts.WRITE)
        patch.setenv("VPT_DATA_HUB_PAUSE", "0")
        yield running
        assert running.broken == []


def corpus(
    folder: Path, rows: int = 12, name: str = "own", mode: Mode = "reference", terms: str = "CC0-1.0",
    changed: bool = False, overrides: Sequence[str] = (), **build: Any,
) -> Path:  # fmt: skip
    """A corpus of own rows in `folder/NAME`, three rows an image; `changed`: one of them has another answer."""
    records = end_to_end.own_rows(rows)
    if changed:
        records[7]["answer"] = "something else"
    root = end_to_end.own_root(folder / f"raw_{name}", records)
    (root / "own/images").mkdir(exist_ok=True)
    for number in range(-(-rows // 3)):
        Image.new("RGB", (640, 480), (number, 80, 120)).save(root / f"own/images/{number:03d}.jpg")
    text = end_to_end.OWN.replace('name = "own"', f'name = "{name}"').replace("CC0-1.0", terms)
    recipe = end_to_end.recipe_file(folder, text, f"{name}.toml")
    return end_to_end.build(recipe, root, folder / name, *overrides, mode=mode, fresh=True, **build)


def run(*arguments: str | Path, **env: str | None) -> Result:
    """The command; what the Hub's client does with its own HTTP library is no finding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Use 'content=", DeprecationWarning)
        return command.run("push-to-hub", *arguments, **env)


def push(*arguments: str | Path) -> str:
    """What a push without questions prints; it must succeed."""
    result = run(*arguments, "--yes")
    assert result.exit_code == 0, result.output
    return result.stdout


def pushed(*arguments: str | Path) -> dict[str, Any]:
    """What a push reports as JSON."""
    found: dict[str, Any] = json.loads(push(*arguments, "--json"))
    return found


def planned(*arguments: str | Path) -> dict[str, Any]:
    """What `--dry-run` reports as JSON."""
    result = run(*arguments, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def refused(*arguments: str | Path, code: int = 1, **env: str | None) -> str:
    """The sentence with which a push is refused; notes before it are left out."""
    result = run(*arguments, "--yes", **env)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    last = result.stderr.splitlines()[-1]
    assert last.startswith("Error: "), result.stderr
    return last.removeprefix("Error: ")


def paths(files: list[dict[str, Any]]) -> list[str]:
    return [file["path"] for file in files]
