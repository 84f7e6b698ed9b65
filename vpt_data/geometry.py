"""Boxes in pixels, cells of a grid, and the crops between them, all on columns.

Conventions, everywhere in this module:

- a *box* is a row `x0, y0, x1, y1` of a float64 array [N, 4], in pixels of the stored image, half open
  (`x1` and `y1` are the first coordinates that no longer belong to it), origin at the top left;
- a *size* is a row `width, height` of an integer array [N, 2], in pixels, at least 1;
- *cells* are a row `col0, row0, col1, row1` of an int32 array [N, 4], indices of a k x k grid, BOTH ends
  included.

Functions never change their arguments. Programmer errors (wrong shape, unsorted corners, NaN where a number
is needed) are `ValueError`s of one sentence; dirty data is reported through masks, so that the caller can
count it.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from vpt_data.take import BoxFormat, BoxUnits, Edge

Floats: TypeAlias = npt.NDArray[np.float64]
Int32s: TypeAlias = npt.NDArray[np.int32]
Bools: TypeAlias = npt.NDArray[np.bool_]

_INT32_MAX = 2**31 - 1


def sort_corners(boxes: npt.ArrayLike) -> tuple[Floats, Bools]:
    """Put each box's corners in order: boxes [N, 4] px -> (boxes [N, 4], swapped [N]).

    >>> sort_corners([[40, 10, 20, 30], [1, 2, 3, 4]])
    (array([[20., 10., 40., 30.],
           [ 1.,  2.,  3.,  4.]]), array([ True, False]))
    """
    given = _rows(boxes, 4, "boxes")
    first, second = given[:, :2], given[:, 2:]
    ordered: Floats = np.hstack([np.minimum(first, second), np.maximum(first, second)])
    return ordered, _any(first > second)


def clip(boxes: npt.ArrayLike, sizes: npt.ArrayLike) -> tuple[Floats, Bools, Bools]:
    """Cut boxes to their images: sorted boxes [N, 4], sizes [N, 2] px -> (boxes, clipped [N], outside [N]).

    `outside` marks rows of which nothing is left, judged on each axis alone: an extent with length is
    outside when it ends at or before 0 or starts at or after the side; an extent of length zero (one line
    of pixels without width) is outside only when it is beyond the image, so that a point on the border,
    `x0 == x1 == W` included, stays and belongs to the last cell. A row with a NaN (an empty group of
    `union`) is outside too. Rows marked outside come back as NaN: to use one by mistake is an error in
    `cells`, not a plausible border cell. `clipped` marks the rows that were changed and kept.

    >>> clip([[-5, 10, 20, 30], [100, 0, 120, 50], [100, 0, 100, 0]], [[100, 50]] * 3)
    (array([[  0.,  10.,  20.,  30.],
           [ nan,  nan,  nan,  nan],
           [100.,   0., 100.,   0.]]), array([ True, False, False]), array([False,  True, False]))
    """
    given, sides = _sorted_boxes(boxes), _sides(sizes)
    low, high, size = given[:, :2], given[:, 2:], sides[:, :2]
    beyond = np.where(low == high, (low < 0) | (low > size), (high <= 0) | (low >= size))
    outside = _any(beyond | np.isnan(low) | np.isnan(high))
    kept: Floats = np.clip(given, 0.0, sides)
    clipped = _any(kept != given) & ~outside
    kept[outside] = np.nan
    return kept, clipped, outside


def union(boxes: npt.ArrayLike, offsets: npt.ArrayLike) -> Floats:
    """Smallest box around each group: sorted boxes [N, 4] px, Arrow offsets [G + 1] -> boxes [G, 4].

    Group g is `boxes[offsets[g]:offsets[g + 1]]`; offsets may start above 0 (a sliced Arrow list does). An
    empty group gives a row of NaN, and so does a group that holds a NaN.

    >>> union([[0, 0, 2, 2], [1, 1, 5, 3], [7, 7, 8, 8]], [0, 2, 2, 3])
    array([[ 0.,  0.,  5.,  3.],
           [nan, nan, nan, nan],
           [ 7.,  7.,  8.,  8.]])
    """
    given = _sorted_boxes(boxes)
    bounds = np.asarray(offsets, dtype=np.int64)
    counts = _group_lengths(bounds, len(given))
    around = np.full((len(counts), 4), np.nan)
    filled = counts > 0
    if filled.any():
        # reduceat gives an empty group the value of the row after it and runs its last group to the end of
        # the array: so it sees only the groups that hold something, and no row behind the last of them.
        starts = bounds[:-1][filled] - bounds[0]
        members = given[bounds[0] : bounds[-1]]
        around[filled, :2] = np.minimum.reduceat(members[:, :2], starts, axis=0)
        around[filled, 2:] = np.maximum.reduceat(members[:, 2:], starts, axis=0)
    return around


def cells(boxes: npt.ArrayLike, sizes: npt.ArrayLike, k: int, edge: Edge = "floor") -> Int32s:
    """Grid cells that a box touches: sorted boxes [N, 4] px, sizes [N, 2] px -> cells [N, 4], ends included.

    The near corner is always in cell `floor(k * v / side)`. `edge` says where the far corner is:

    - `floor`: by the same formula, at most k - 1;
    - `inside`: the last cell with pixels of the box, `ceil(k * v / side) - 1`, never before the near cell;
      differs from `floor` where the box ends exactly on an inner grid line;
    - `legacy`: the defect of the published data, for comparison only: `floor` without the upper limit, for
      both corners, so that a box which ends on the right border gets index k, a token that does not exist.
      It gives the same indices on clipped boxes as on the published ones unless a box ends a whole cell
      beyond the image, so the counts of the real files (986 in VSR, 72 in CUB, 105 in the GQA benchmark)
      hold either way.

    Boxes are meant to be clipped; in any case indices are in 0..k-1 (legacy: from 0). Values are exact, as if
    computed with integers, for integer boxes with `k * v < 2**53` and for any box when k is a power of two.

    Raises ValueError for k < 1, unsorted corners, numbers that are not finite and legacy indices above int32.

    >>> cells([[0, 0, 500, 300]], [[500, 375]], 8), cells([[0, 0, 500, 300]], [[500, 375]], 8, "legacy")
    (array([[0, 0, 7, 6]], dtype=int32), array([[0, 0, 8, 6]], dtype=int32))
    """
    given, sides = _sorted_boxes(boxes), _sides(sizes)
    _check_k(k)
    if not np.isfinite(given).all():
        row = int(_any(~np.isfinite(given)).argmax())
        raise ValueError(f"cells: box {row} is {given[row].tolist()}, expected finite pixels; drop it first")
    if edge == "legacy":
        return _legacy_cells(given, sides, k)
    scaled = np.clip(given, 0.0, sides) * k
    # Multiply first: a quotient of exact numbers never rounds across an integer, a product with k / side may.
    index: Floats = np.floor(scaled / sides)
    if edge == "inside":
        index[:, 2:] = np.ceil(scaled[:, 2:] / sides[:, 2:]) - 1
    index = np.clip(index, 0, k - 1)
    index[:, 2:] = np.maximum(index[:, :2], index[:, 2:])
    return index.astype(np.int32)


def crop(cells: npt.ArrayLike, sizes: npt.ArrayLike, k: int, margin_cells: int = 0) -> Int32s:
    """Pixels that cells show: cells [N, 4], sizes [N, 2] px -> int32 boxes [N, 4] px, half open.

    Edges are `floor(col0 * W / k)`, `floor((col1 + 1) * W / k)` and the same for rows, in integers.
    `margin_cells` adds cells on every side, but none beyond the grid. Each side has at least one pixel (a
    side shorter than k would give empty crops), and for cells in 0..k-1 the crop is inside the image.
    Cells beyond the grid (the `legacy` edge) give a crop beyond the border, as in the published rows.

    >>> crop([[0, 0, 7, 6], [0, 0, 8, 6]], [[500, 375]] * 2, 8)
    array([[  0,   0, 500, 328],
           [  0,   0, 562, 328]], dtype=int32)
    """
    _check_k(k)
    if margin_cells < 0:
        raise ValueError(f"crop: margin_cells is {margin_cells}, expected 0 or more")
    index = _ordered_cells(cells)
    sides = _sizes(sizes).astype(np.int64)
    near = np.maximum(index[:, :2] - margin_cells, 0)
    # A legacy cell is behind the last one and must not be pulled back by the limit.
    far = np.minimum(index[:, 2:] + margin_cells, np.maximum(index[:, 2:], k - 1))
    start = near * sides // k
    # One pixel more always fits: a cell below k starts below k * side / k, so at most on the last pixel.
    end = np.maximum((far + 1) * sides // k, start + 1)
    return np.hstack([start, end]).astype(np.int32)


def iou(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    """Intersection over union of sorted boxes [N, 4], row by row -> float64 [N] in 0..1.

    Two boxes without area: 1 if they are the same, else 0. A row with a NaN (no valid box) gives 0.

    >>> iou([[0, 0, 2, 2], [0, 0, 1, 1]], [[1, 0, 3, 2], [5, 5, 6, 6]])
    array([0.33333333, 0.        ])
    """
    left, right = _sorted_boxes(a), _sorted_boxes(b)
    shared = _area(_intersection(left, right))
    total = _area(left) + _area(right) - shared
    return _ratio(shared, total, otherwise=~_any(left != right))


def iogt(pred: npt.ArrayLike, truth: npt.ArrayLike) -> Floats:
    """Share of the truth that a prediction covers: sorted boxes [N, 4] twice -> float64 [N] in 0..1.

    It is 1 exactly when the prediction contains the truth and never below `iou`; so a truth without area
    scores 1 if it is in the prediction (border included), else 0. A row with a NaN (no valid box): 0.

    >>> iogt([[0, 0, 2, 2], [0, 0, 9, 9]], [[1, 0, 3, 2], [5, 5, 5, 6]])
    array([0.5, 1. ])
    """
    given, wanted = _sorted_boxes(pred), _sorted_boxes(truth)
    shared, area = _area(_intersection(given, wanted)), _area(wanted)
    around = ~_any(~(given[:, :2] <= wanted[:, :2])) & ~_any(~(given[:, 2:] >= wanted[:, 2:]))
    return _ratio(shared, area, otherwise=around & (area == 0))


def xywh_to_xyxy(boxes: npt.ArrayLike) -> Floats:
    """Near corner and lengths (COCO) -> corners: `x, y, w, h` [N, 4] -> `x0, y0, x1, y1` [N, 4], same unit.

    >>> xywh_to_xyxy([[10, 20, 30, 40]])
    array([[10., 20., 40., 60.]])
    """
    given = _rows(boxes, 4, "boxes")
    return np.hstack([given[:, :2], given[:, :2] + given[:, 2:]])


def cxcywh_to_xyxy(boxes: npt.ArrayLike) -> Floats:
    """Centre and lengths (YOLO) -> corners: `cx, cy, w, h` [N, 4] -> `x0, y0, x1, y1` [N, 4], same unit.

    >>> cxcywh_to_xyxy([[10, 20, 6, 8]])
    array([[ 7., 16., 13., 24.]])
    """
    given = _rows(boxes, 4, "boxes")
    half = given[:, 2:] / 2
    return np.hstack([given[:, :2] - half, given[:, :2] + half])


def corners(numbers: npt.ArrayLike, form: BoxFormat) -> Floats:
    """Boxes [N, 4] in any format -> corners `x0, y0, x1, y1` [N, 4], same unit, neither sorted nor clipped.

    >>> corners([[10, 20, 6, 8]], "cxcywh"), corners([[20, 10, 28, 16]], "yxyx")
    (array([[ 7., 16., 13., 24.]]), array([[10., 20., 16., 28.]]))
    """
    if form == "xywh":
        return xywh_to_xyxy(numbers)
    if form == "cxcywh":
        return cxcywh_to_xyxy(numbers)
    given: Floats = _rows(numbers, 4, "boxes")
    return given[:, [1, 0, 3, 2]] if form == "yxyx" else given.copy()


def from_corners(boxes: npt.ArrayLike, form: BoxFormat) -> Floats:
    """Corners [N, 4] -> boxes [N, 4] in another format, same unit; the inverse of `corners`.

    >>> from_corners([[7, 16, 13, 24]], "cxcywh")
    array([[10., 20.,  6.,  8.]])
    """
    given: Floats = _rows(boxes, 4, "boxes")
    lengths = given[:, 2:] - given[:, :2]
    if form == "xywh":
        return np.hstack([given[:, :2], lengths])
    if form == "cxcywh":
        return np.hstack([given[:, :2] + lengths / 2, lengths])
    return given[:, [1, 0, 3, 2]] if form == "yxyx" else given.copy()


def scale(boxes: npt.ArrayLike, factors: npt.ArrayLike) -> Floats:
    """Multiply x by the first and y by the second factor: boxes [N, 4], factors [N, 2], [2] or one number.

    >>> scale([[1, 1, 2, 2]], [10, 100])
    array([[ 10., 100.,  20., 200.]])
    """
    given = _rows(boxes, 4, "boxes")
    pairs = np.broadcast_to(np.asarray(factors, dtype=np.float64), (len(given), 2))
    return given * np.hstack([pairs, pairs])


def common_factor(sizes: npt.ArrayLike, others: npt.ArrayLike) -> Floats:
    """The one factor from sizes [N, 2] to others [N, 2], px -> float64 [N], NaN where there is none.

    The longer side decides; each side has to come out to less than a pixel, since whoever resizes an image rounds.

    >>> common_factor([[1024, 683], [463, 894]], [[500, 333], [608, 1168]])
    array([0.48828125,        nan])
    """
    before, after = _sizes(sizes), _sizes(others)
    longer = (np.arange(len(before)), before.argmax(axis=1))
    factor: Floats = after[longer] / before[longer]
    factor[_any(np.abs(before * factor[:, None] - after) >= 1)] = np.nan
    return factor


def to_pixels(boxes: npt.ArrayLike, sizes: npt.ArrayLike, unit: BoxUnits) -> Floats:
    """Boxes [N, 4] in `unit` (pixel, or fraction 0..1 or permille 0..1000 of the side) -> boxes [N, 4] px.

    >>> to_pixels([[0, 250, 500, 1000]], [[640, 480]], "permille")
    array([[  0., 120., 320., 480.]])
    """
    if unit == "pixel":
        return _rows(boxes, 4, "boxes").copy()
    whole = scale(boxes, sizes)
    # Divide last: 500 permille of 640 is then exactly 320, where 500 * 0.64 need not be.
    return whole / 1000 if unit == "permille" else whole


def padded_square(boxes: npt.ArrayLike, sizes: npt.ArrayLike) -> Floats:
    """Boxes [N, 4] px -> fractions [N, 4] of the image padded to a square: the text form of Visual-CoT.

    The padding is whole pixels, the smaller half above or to the left. Nothing is clipped: a box beyond its
    image gives values beyond 0..1.

    >>> padded_square([[74, 398, 404, 1118]], [[1695, 2200]]).round(3)
    array([[0.148, 0.181, 0.298, 0.508]])
    """
    given, pairs = _rows(boxes, 4, "boxes"), _sizes(sizes)
    longest = pairs.max(axis=1, keepdims=True)
    pad = (longest - pairs) // 2
    fractions: Floats = (given + np.hstack([pad, pad])) / longest
    return fractions


def _rows(values: npt.ArrayLike, width: int, name: str, dtype: Any = np.float64) -> npt.NDArray[Any]:
    rows = np.asarray(values, dtype=dtype)
    if rows.size == 0:
        rows = rows.reshape(0, width)
    if rows.ndim != 2 or rows.shape[1] != width:
        raise ValueError(f"{name}: shape is {list(rows.shape)}, expected [N, {width}]")
    return rows


def _any(flags: npt.NDArray[Any]) -> Bools:
    rows: Bools = np.asarray(flags.any(axis=1))
    return rows


def _sorted_boxes(boxes: npt.ArrayLike) -> Floats:
    rows: Floats = _rows(boxes, 4, "boxes")
    swapped = _any(rows[:, :2] > rows[:, 2:])
    if swapped.any():
        row = int(swapped.argmax())
        raise ValueError(f"boxes: box {row} is {rows[row].tolist()}, expected sorted corners; use sort_corners")
    return rows


def _ordered_cells(cells: npt.ArrayLike) -> npt.NDArray[np.int64]:
    index: npt.NDArray[np.int64] = _rows(cells, 4, "cells", np.int64)
    wrong = _any((index[:, :2] < 0) | (index[:, :2] > index[:, 2:]))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"cells: row {row} is {index[row].tolist()}, expected 0 <= near cell <= far cell")
    return index


def _sizes(sizes: npt.ArrayLike) -> Floats:
    pairs: Floats = _rows(sizes, 2, "sizes")
    wrong = _any(~(pairs >= 1))
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"sizes: image {row} is {pairs[row].tolist()}, expected width and height from 1 pixel")
    return pairs


def _sides(sizes: npt.ArrayLike) -> Floats:
    pairs = _sizes(sizes)
    return np.hstack([pairs, pairs])


def _check_k(k: int) -> None:
    if k < 1:
        raise ValueError(f"k is {k}, expected a grid of at least 1 cell a side")


def _group_lengths(bounds: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    lengths = np.diff(bounds)
    if bounds.ndim != 1 or len(bounds) == 0 or (lengths < 0).any() or bounds[0] < 0 or bounds[-1] > rows:
        raise ValueError(f"union: offsets do not divide {rows} boxes, expected rising values in 0..{rows}")
    return lengths


def _legacy_cells(boxes: Floats, sides: Floats, k: int) -> Int32s:
    with np.errstate(over="ignore"):
        # Below 0 there is no token either, and truncation, unlike floor, gives 0 there.
        index = np.floor(np.maximum(boxes, 0.0) * k / sides)
    if (index > _INT32_MAX).any():
        raise ValueError(f"cells: a legacy index is above {_INT32_MAX}, expected boxes on their image; clip first")
    return index.astype(np.int32)


def _intersection(a: Floats, b: Floats) -> Floats:
    return np.hstack([np.maximum(a[:, :2], b[:, :2]), np.minimum(a[:, 2:], b[:, 2:])])


def _area(boxes: Floats) -> Floats:
    lengths = np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0)
    area: Floats = lengths[:, 0] * lengths[:, 1]
    return area


def _ratio(part: Floats, whole: Floats, otherwise: Bools) -> Floats:
    """Part of the whole where they share an area, else 1 or 0 as `otherwise` says."""
    filled = otherwise.astype(np.float64)
    np.divide(part, whole, out=filled, where=part > 0)
    return filled
