"""The Hub that the tests of this folder push to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from helpers import pushing
from helpers.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with pushing.hub(tmp_path, monkeypatch) as server:
        yield server
