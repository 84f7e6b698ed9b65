"""A look at a box that is written as text, as Visual-CoT does it; an ablation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vpt_data import geometry
from vpt_data.columns import Views
from vpt_data.dialogue.looks.look import Look, selected_regions
from vpt_data.dialogue.tokens import IMAGE

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


def look(annotations: pa.Table, rule: RenderRule) -> Look:
    """The union of the boxes as four shares of the image padded to a square, and its crop."""
    found = selected_regions(annotations, rule, "union")
    shares = geometry.padded_square(found.boxes, found.sizes)
    # Row by row on purpose: only formatting rounds as the owners' program does, and this is an ablation.
    words = [f"[{x0:.3f}, {y0:.3f}, {x1:.3f}, {y1:.3f}]" for x0, y0, x1, y1 in shares.tolist()]
    start = np.minimum(found.boxes[:, :2].astype(np.int32), found.sizes - 1)
    crops = np.hstack([start, np.maximum(found.boxes[:, 2:].astype(np.int32), start + 1)]).astype(np.int32)
    view = Views(found.row, np.zeros_like(found.row), found.image, "vlm", crops)
    return Look(pa.array(words, pa.string()), pa.repeat(IMAGE, len(words)), view)


def explain(_: RenderRule) -> str:
    """What the card says of these looks."""
    return "A text box is four numbers from 0 to 1 on the image padded to a square."
