"""The loss curve falls where the loss falls, on an axis of powers, and any run can draw one."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from trainer.training.plot import draw


def curve(losses: list[float], folder: Path) -> list[tuple[int, float]]:
    """The columns of pixels that have the colour of the curve, each with the mean row of its pixels."""
    draw(losses, folder / "loss.png")
    with Image.open(folder / "loss.png") as image:
        assert image.size == (720, 400)
        pixels = np.asarray(image.convert("RGB"), np.int64)
    rows, columns = np.nonzero((np.abs(pixels - [0x00, 0x72, 0xB2]) < 8).all(axis=2))
    return [(int(column), float(rows[columns == column].mean())) for column in np.unique(columns)]


def test_an_exponential_decay_is_a_line(tmp_path: Path) -> None:
    found = curve([6 * math.exp(-step / 20) for step in range(100)], tmp_path)
    columns, rows = np.array(found).T
    slope, start = np.polyfit(columns, rows, 1)
    assert slope > 0.3  # row 0 of a picture is at the top
    assert np.abs(rows - (slope * columns + start)).max() < 2


def test_the_loss_of_one_step_is_a_mark(tmp_path: Path) -> None:
    assert len(curve([2.5], tmp_path)) in range(2, 12)


@pytest.mark.parametrize("losses", [[], [0.0, 1.0], [math.nan, 1.0, math.inf]])
def test_what_has_no_logarithm_is_left_out(losses: list[float], tmp_path: Path) -> None:
    assert len(curve(losses, tmp_path)) < 12
