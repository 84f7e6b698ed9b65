"""The loss curve as a small picture."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

_SIZE = (720, 400)
_EDGE = 48


def draw(losses: Sequence[float], path: Path) -> None:
    """Write a PNG with the losses of all steps, the axis of the loss in powers of ten."""
    image = Image.new("RGB", _SIZE, "white")
    pen = ImageDraw.Draw(image)
    logs = [math.log10(max(loss, 1e-6)) for loss in losses] or [0.0]
    low, high = math.floor(min(logs)), max(math.ceil(max(logs)), math.floor(min(logs)) + 1)
    wide, tall = _SIZE[0] - 2 * _EDGE, _SIZE[1] - 2 * _EDGE

    def at(step: int, value: float) -> tuple[float, float]:
        across = step / max(1, len(logs) - 1)
        return _EDGE + across * wide, _SIZE[1] - _EDGE - (value - low) / (high - low) * tall

    for power in range(low, high + 1):
        pen.line([at(0, power), (_EDGE + wide, at(0, power)[1])], fill="lightgray")
        pen.text((4, at(0, power)[1] - 6), f"{10.0**power:g}", fill="black")
    pen.text((_EDGE, _SIZE[1] - _EDGE + 8), "1", fill="black")
    pen.text((_EDGE + wide - 24, _SIZE[1] - _EDGE + 8), str(len(logs)), fill="black")
    pen.text((_EDGE, 8), "loss by step", fill="black")
    pen.line([at(step, value) for step, value in enumerate(logs)], fill="royalblue", width=2)
    image.save(path)
