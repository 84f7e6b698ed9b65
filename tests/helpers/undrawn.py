"""Plots without a drawing, and cards with small plain pictures and no plots, for tests of what surrounds them.

Drawing takes most of the time of a small page and of a small push, and is tested elsewhere. A process that pushes
imports `hub/undrawn_here.py`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import Any

from PIL import Image

from vpt_data.exchange.hub import card, pictures
from vpt_data.inspect import picture
from vpt_data.inspect.figures import Plot

Put = Callable[[Any, str, Any], None]


def undraw_plots(put: Put) -> None:
    """Pages and cards with empty plots, beside their numbers; `put` is setattr, or that of a monkeypatch."""
    put(Plot, "svg", lambda plot: f"<svg><title>{plot.name}</title></svg>")
    put(Plot, "png", lambda plot: picture.png(Image.new("RGB", (8, 8))))


def undraw(put: Put) -> None:
    """Cards with plain pictures; `put` is setattr, or that of a monkeypatch."""
    put(pictures.picture, "draw", _plain)
    put(pictures, "thumbnail", _plain)
    put(card, "plots", lambda counts: [])


def _plain(row: dict[str, Any], *_: object) -> Image.Image:
    return Image.new("RGB", (8, 8), zlib.crc32(row["id"].encode()) % (1 << 24))
