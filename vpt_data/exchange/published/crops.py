"""Crops of the published form against the tokens that name them, although no row says how large its image is.

A crop shows whole cells: x1 = int(col0 * W / k), x2 = int((col1 + 1) * W / k), and so for rows and heights. So each
crop allows some widths W and heights H only, and all crops of one image must allow a common one.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from vpt_data.columns import Bools, Ints

_ANY = np.iinfo(np.int64).max


def contradictions(row: Ints, path: pa.Array, cells: Ints, corners: Ints, k: int) -> Bools:
    """Which crops [N] no image could have: by itself, or beside the other crops of the same image in its row.

    row      int64 [N], the row of each crop; path: string [N], its image
    cells    int64 [N, 4] col0, row0, col1, row1, ends included; corners: int64 [N, 4] x1, y1, x2, y2 in px

    >>> cells, corners = np.array([[0, 0, 7, 6]] * 2), np.array([[0, 0, 500, 328], [0, 0, 500, 375]])
    >>> contradictions(np.array([0, 1]), pa.array(["a.jpg", "b.jpg"]), cells, corners, 8).tolist()
    [False, False]
    >>> contradictions(np.array([0, 0]), pa.array(["a.jpg", "a.jpg"]), cells, corners, 8).tolist()
    [True, True]
    """
    image = np.unique(np.stack([row, path.dictionary_encode().indices.to_numpy()]), axis=1, return_inverse=True)[1]
    bad = np.zeros(len(row), np.bool_)
    for axis in (0, 1):
        near_low, near_high = _sides(cells[:, axis], corners[:, axis], k)
        far_low, far_high = _sides(cells[:, axis + 2] + 1, corners[:, axis + 2], k)
        # A crop has a pixel at least, so one of a single pixel says nothing of its far side.
        single = corners[:, axis + 2] == corners[:, axis] + 1
        low = np.maximum(near_low, np.where(single, 1, far_low))
        high = np.minimum(near_high, np.where(single, _ANY, far_high))
        common_low, common_high = np.ones(len(row), np.int64), np.full(len(row), _ANY)
        np.maximum.at(common_low, image, low)
        np.minimum.at(common_high, image, high)
        bad |= (common_low > common_high)[image]
    return bad


def _sides(edge: Ints, pixel: Ints, k: int) -> tuple[Ints, Ints]:
    """The least and the greatest side of an image with int(edge * side / k) == pixel; the edge 0 is at pixel 0."""
    divisor = np.maximum(edge, 1)
    low, high = -(-pixel * k // divisor), -(-(pixel + 1) * k // divisor) - 1
    start = edge == 0
    return np.where(start, np.where(pixel == 0, 1, _ANY), low), np.where(start, _ANY, high)
