"""A look at a region: tokens name a rectangle of grid cells, and the next turn shows their pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import Views, relist
from vpt_data.dialogue.looks.look import Look, selected_regions
from vpt_data.dialogue.prompts import crops_turn
from vpt_data.dialogue.tokens.grid import encode

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


def look(annotations: pa.Table, rule: RenderRule) -> Look:
    """Cells of each box (or of their union) on the k x k grid, and the crops of these cells."""
    found = selected_regions(annotations, rule, rule.boxes)
    cells = geometry.cells(found.boxes, found.sizes, rule.k, rule.edge)
    crops = geometry.crop(cells, found.sizes, rule.k, rule.crop_margin_cells)
    counts = np.bincount(found.row, minlength=annotations.num_rows)
    words = encode(cells, rule.k)
    call = words if (counts == 1).all() else pc.binary_join(relist(counts, words, pa.list_(pa.string())), "")
    most = int(counts.max(initial=1))
    shown = pa.array(["", *map(crops_turn, range(1, most + 1))]).take(pa.array(counts))
    return Look(call, shown, Views(found.row, np.zeros_like(found.row), found.image, "vlm", crops, cells))


def explain(rule: RenderRule) -> str:
    """What the card says of these looks."""
    k = rule.k
    example = encode([[0, 1 % k, k - 1, k - 1]], k)[0].as_py()
    return (
        f"A region look names a rectangle on a grid of {k} x {k} cells by its first column, first "
        f"row, last column and last row, counted from 0, ends included: `{example}`. The next turn "
        "shows that crop."
    )
