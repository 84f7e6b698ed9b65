"""Cards with small plain pictures and no plots, for tests of pushes.

Drawing takes most of the time of a small push, and is tested elsewhere. A process that pushes imports `undrawn_here`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from vpt_data.exchange.hub import card, pictures


def undraw(put: Callable[[Any, str, Any], None]) -> None:
    """Replace what draws; `put` is setattr, or that of a monkeypatch."""
    put(pictures.picture, "draw", _plain)
    put(pictures, "thumbnail", _plain)
    put(card, "plots", lambda counts: [])


def _plain(row: dict[str, Any], *_: object) -> Image.Image:
    return Image.new("RGB", (8, 8), zlib.crc32(row["id"].encode()) % (1 << 24))
