"""The Hub that the tests of this folder push to."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import pushing, undrawn
from helpers.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    undrawn.undraw(monkeypatch.setattr)
    with pushing.hub(tmp_path, monkeypatch) as server:
        yield server


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus; not to be changed."""
    return pushing.corpus(tmp_path_factory.mktemp("built"))


@pytest.fixture
def own(built: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may change."""
    return Path(shutil.copytree(built, tmp_path / "own"))
