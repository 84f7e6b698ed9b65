"""Regions: how well the cells that a model names fit the annotated box, and how well any cells could.

A prediction is N groups of cells `col0, row0, col1, row1` (ends included) on a k x k grid; several regions of a row
count as the one rectangle around them, as the annotated boxes of a row do. Sizes are in pixels. In coordinates of the
image a cell is exactly 1/k of a side, without the rounding to pixels of a crop.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from vpt_data import geometry

Floats: TypeAlias = npt.NDArray[np.float64]
Ints: TypeAlias = npt.NDArray[np.int64]
Cells: TypeAlias = tuple[int, int, int, int]

#: Sizes of annotated boxes in cells, and where the next bucket begins.
BUCKETS: Final = ("under 1 cell", "1 to 4 cells", "over 4 cells")


@dataclass(frozen=True)
class RegionScores:
    """Scores of N rows, each float64 [N] in 0..1; 0 where a row names no usable region.

    iou_box, iogt_box      against the annotated box, which no cells fit exactly
    iou_cells, iogt_cells  against the cells of that box, the answer that was trained: 1 for the right tokens
    gold_iou               of the cells of the box against the box: what the right tokens get
    best_iou               of the best rectangle of cells against the box: nothing on this grid gets more
    """

    iou_box: Floats
    iogt_box: Floats
    iou_cells: Floats
    iogt_cells: Floats
    gold_iou: Floats
    best_iou: Floats


def around(groups: Sequence[Sequence[Cells]]) -> Floats:
    """The rectangle of cells around each group: N lists of cells -> float64 [N, 4], NaN for an empty list.

    >>> around([[(0, 1, 2, 3), (5, 0, 6, 2)], []])
    array([[ 0.,  0.,  6.,  3.],
           [nan, nan, nan, nan]])
    """
    offsets = np.concatenate([[0], np.cumsum([len(group) for group in groups])]).astype(np.int64)
    return geometry.union([cells for group in groups for cells in group], offsets)


def boxes_of(cells: npt.ArrayLike, sizes: npt.ArrayLike, k: npt.ArrayLike) -> Floats:
    """Where cells are on their images: cells [N, 4] (NaN for none), sizes [N, 2] px, k (one or [N]) -> boxes [N, 4] px.

    >>> boxes_of([[0, 1, 2, 3]], [[80, 40]], 8)
    array([[ 0.,  5., 30., 20.]])
    """
    given = np.asarray(cells, np.float64).reshape(-1, 4)
    sides = np.tile(np.asarray(sizes, np.float64).reshape(-1, 2), 2)
    return (given + np.array([0, 0, 1, 1])) * sides / np.reshape(np.asarray(k, np.float64), (-1, 1))


def score_regions(predicted: npt.ArrayLike, truth: npt.ArrayLike, sizes: npt.ArrayLike, k: int) -> RegionScores:
    """Scores of predicted cells [N, 4] (NaN: none) against annotated boxes [N, 4] px (clipped) on images [N, 2] px.

    >>> scores = score_regions([[0, 0, 0, 0], [np.nan] * 4], [[0, 0, 9, 5]] * 2, [[80, 80]] * 2, 8)
    >>> scores.iou_box, scores.iou_cells, scores.best_iou
    (array([0.45, 0.  ]), array([1., 0.]), array([0.45, 0.45]))
    """
    boxes = np.asarray(truth, np.float64).reshape(-1, 4)
    said, cells = boxes_of(predicted, sizes, k), geometry.cells(boxes, sizes, k)
    gold = boxes_of(cells, sizes, k)
    return RegionScores(
        iou_box=geometry.iou(said, boxes),
        iogt_box=geometry.iogt(said, boxes),
        iou_cells=geometry.iou(said, gold),
        iogt_cells=geometry.iogt(said, gold),
        gold_iou=geometry.iou(gold, boxes),
        best_iou=_best(cells, boxes, sizes, k),
    )


def _best(cells: geometry.Int32s, boxes: Floats, sizes: npt.ArrayLike, k: int) -> Floats:
    """The best IoU of any rectangle of cells.

    Only cells that the box fills in part can be worth leaving out, and those are at its edges: sixteen rectangles.
    """
    best = np.zeros(len(boxes))
    for corner in range(16):
        inwards = np.array([corner & 1, corner >> 1 & 1, -(corner >> 2 & 1), -(corner >> 3 & 1)])
        smaller = cells + inwards
        there = (smaller[:, :2] <= smaller[:, 2:]).all(axis=1)
        shown = np.where(there[:, None], smaller, cells)
        best = np.maximum(best, geometry.iou(boxes_of(shown, sizes, k), boxes))
    return best


def bucket(boxes: npt.ArrayLike, sizes: npt.ArrayLike, k: int) -> Ints:
    """How large annotated boxes are in cells: boxes [N, 4] px, sizes [N, 2] px -> int64 [N], places in BUCKETS.

    >>> bucket([[0, 0, 9, 10], [0, 0, 20, 20], [0, 0, 21, 20]], [[80, 80]] * 3, 8).tolist()
    [0, 1, 2]
    """
    given, sides = np.asarray(boxes, np.float64).reshape(-1, 4), np.asarray(sizes, np.float64).reshape(-1, 2)
    area = (given[:, 2:] - given[:, :2]).prod(axis=1) * k**2 / sides.prod(axis=1)
    return (area >= 1).astype(np.int64) + (area > 4)
