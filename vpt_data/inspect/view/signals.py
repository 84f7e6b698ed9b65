"""What may be wrong with a row, and the numbers that rows are sorted by, on columns.

A signal is no error: small boxes are common in documents. Rows with a signal are those that people look at first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import Bools, Ints, column, flags, numbers, quads, unlist
from vpt_data.dialogue.regions import Regions, RegionState, regions_of
from vpt_data.dialogue.templates import TEMPLATES
from vpt_data.inspect import row_rules
from vpt_data.schema import Repair

Floats = npt.NDArray[np.float64]


class Signal(NamedTuple):
    """How much a signal counts when rows are sorted by their problems, and what it means."""

    weight: int
    text: str


#: What is computed here; the rules of `check` and the repairs are problems too.
SIGNALS: Final = {
    "uncovered": Signal(500, "the cells do not cover the box"),
    "outside": Signal(300, "every box is outside the image"),
    "flat": Signal(100, "the pixels in the box are nearly all the same"),
    "low_iou": Signal(20, "the IoU of cells and box is under .1"),
    "small": Signal(5, "the box is smaller than a cell"),
    "missing": Signal(2, "an image cannot be shown"),
}
LOW_IOU: Final = 0.1
#: A row that breaks a rule of `check` comes before all others.
RULE_WEIGHT: Final = 1000
_BOX_REPAIRS: Final = (Repair.SWAPPED, Repair.CLIPPED, Repair.ZERO_AREA)


def weight(kind: str) -> int:
    """How much a problem counts: a rule of `check`, a signal, or a repair."""
    if kind in SIGNALS:
        return SIGNALS[kind].weight
    if kind in row_rules.RULES:
        return RULE_WEIGHT
    return 10 if kind in {str(repair.name).lower() for repair in _BOX_REPAIRS} else 1


def text(kind: str) -> str:
    """What a problem means, a sentence without its full stop."""
    if kind in SIGNALS:
        return SIGNALS[kind].text
    return f"a rule of `check` is broken: {row_rules.RULES[kind]}" if kind in row_rules.RULES else f"repaired: {kind}"


@dataclass(frozen=True, slots=True)
class Measured:
    """N rows, beside what was found in them.

    box_area  float64 [N], of the union of a row's boxes, as a share of the image; NaN where there is no usable box
    cells     float64 [N], the same in cells of the row's grid
    iou       float64 [N], of the pixels that the row's cells show (without a look: would show) with that union
    text      int64 [N], characters of question and answers
    problems  the rows of each kind of problem, int64 ascending
    """

    box_area: Floats
    cells: Floats
    iou: Floats
    text: Ints
    problems: dict[str, Ints]


def measure(samples: pa.Table, legacy: frozenset[str]) -> Measured:
    """Measure rows that have every column but the bytes of images; `legacy` are the takes with that edge."""
    count = len(samples)
    found, k = regions_of(samples), np.maximum(numbers(column(samples, "k"), 8), 1)
    crop, look = _shown(samples, found, k)
    area, cells, iou = (np.full(count, np.nan) for _ in range(3))
    sides = found.boxes[:, 2:] - found.boxes[:, :2]
    area[found.row] = np.prod(sides, axis=1) / np.prod(found.sizes.astype(np.float64), axis=1)
    cells[found.row] = area[found.row] * k[found.row] ** 2
    iou[found.row] = geometry.iou(crop, found.boxes)
    problems = dict(row_rules.breaking(samples, legacy, None))
    # A crop ends on a whole pixel, so a box may reach beyond it by less than one.
    out = (crop[:, :2] >= found.boxes[:, :2] + 1) | (crop[:, 2:] <= found.boxes[:, 2:] - 1)
    problems["uncovered"] = found.row[look & out.any(axis=1)]
    problems["outside"] = np.flatnonzero(found.status == RegionState.OUTSIDE)
    # Boxes of templates with words of their own (markers of points, things to count) are not looked at by cells.
    own_words = pa.array([name for name, form in TEMPLATES.items() if form.says])
    by_cells = ~flags(pc.is_in(column(samples, "template"), own_words))
    problems["low_iou"] = np.flatnonzero((iou < LOW_IOU) & by_cells)
    problems["small"] = np.flatnonzero((cells < 1) & by_cells)
    return Measured(
        area, cells, iou, _characters(samples), {kind: rows for kind, rows in problems.items() if len(rows)}
    )


def _shown(samples: pa.Table, found: Regions, k: Ints) -> tuple[Floats, Bools]:
    """The pixels that a row shows of the image of each box [M, 4], and whether a look shows them [M].

    Of several looks it is the union. Without a look it is what the cells of the box would show.
    """
    sides = k[found.row]
    shown = np.zeros((len(sides), 4))
    for side in np.unique(sides).tolist():
        mine = sides == side
        touched = geometry.cells(found.boxes[mine], found.sizes[mine], side)
        shown[mine] = geometry.crop(touched, found.sizes[mine], side)
    views = unlist(column(samples, "views"))
    box, given = quads(views.values, "box", 0)
    given &= quads(views.values, "cells", 0)[1] & (box[:, :2] <= box[:, 2:]).all(axis=1)
    at = np.full(len(samples), -1)
    at[found.row] = np.arange(len(found.row))
    which = at[views.rows]
    given &= which >= 0
    image = numbers(pc.struct_field(views.values, "image"), -1)
    given[given] = image[given] == found.image[which[given]]
    look, starts = np.unique(which[given], return_index=True)
    shown[look] = geometry.union(box[given], np.append(starts, given.sum()))
    return shown, np.isin(np.arange(len(shown)), look)


def _characters(samples: pa.Table) -> Ints:
    answers = unlist(column(samples, "answers"))
    lengths = numbers(pc.utf8_length(answers.values), 0)
    of_answers = np.bincount(answers.rows, weights=lengths, minlength=len(samples)).astype(np.int64)
    return of_answers + numbers(pc.utf8_length(column(samples, "question")), 0)
