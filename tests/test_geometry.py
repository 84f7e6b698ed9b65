"""Boxes, cells and crops: rules as examples, invariants as properties, published counts on the real rows."""

import gzip
import json
import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry
from vpt_data.geometry import Floats

GRIDS = [1, 2, 3, 4, 7, 8, 16, 32]
sides = st.integers(1, 3000)


@st.composite
def boxed_images(draw: st.DrawFn) -> tuple[list[float], list[int]]:
    """A sorted box, part of it possibly beyond the image, and the image's size."""
    size = [draw(sides), draw(sides)]
    ends = [sorted(draw(st.tuples(*[st.floats(-0.5, 1.5, width=32)] * 2))) for _ in size]
    whole = draw(st.booleans())
    low, high = ([end[i] * side for end, side in zip(ends, size, strict=True)] for i in (0, 1))
    box = [float(round(v)) if whole else v for v in (*low, *high)]
    return box, size


def read_rows(path: Path) -> tuple[Floats, Floats, list[dict[str, object]]]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    boxes = [r["bboxs"][0] if "bboxs" in r else r["bbox"] for r in records]
    sizes = [(r["width"], r["height"]) for r in records]
    return np.array(boxes, dtype=float), np.array(sizes), records


# --- corners and clipping


def test_sort_corners_reports_the_rows_it_changed() -> None:
    boxes, swapped = geometry.sort_corners([[5, 1, 2, 9], [1, 9, 5, 2], [1, 2, 1, 2]])
    assert boxes.tolist() == [[2, 1, 5, 9], [1, 2, 5, 9], [1, 2, 1, 2]]
    assert swapped.tolist() == [True, True, False]


@pytest.mark.parametrize(
    ("box", "outside", "cell"),
    [
        ([100, 0, 120, 50], True, None),  # starts where the image ends
        ([-20, 0, 0, 50], True, None),  # ends where the image starts
        ([0, 50, 10, 60], True, None),
        ([100, 25, 120, 25], True, None),  # no height, but its width lies beyond
        ([100, 50, 100, 50], False, [7, 7, 7, 7]),  # a point on the corner is in the last cell
        ([0, 0, 0, 0], False, [0, 0, 0, 0]),
        ([100, 10, 100, 30], False, [7, 1, 7, 4]),  # a line on the right border
        ([100.5, 10, 100.5, 30], True, None),
        ([-1, -1, -1, -1], True, None),
        ([50, 20, 50, 20], False, [4, 3, 4, 3]),  # zero area: the one cell that contains it
        ([math.nan] * 4, True, None),
    ],
)
def test_outside_means_nothing_left(box: list[float], outside: bool, cell: list[int] | None) -> None:
    kept, clipped, gone = geometry.clip([box], [[100, 50]])
    assert gone.tolist() == [outside]
    assert not clipped[0]
    if outside:
        assert np.isnan(kept).all()
    else:
        assert kept.tolist() == [box]
        for edge in ("floor", "inside"):
            assert geometry.cells(kept, [[100, 50]], 8, edge)[0].tolist() == cell, edge


@given(boxed_images())
def test_clip_leaves_a_box_inside_and_is_stable(case: tuple[list[float], list[int]]) -> None:
    box, size = case
    kept, clipped, outside = geometry.clip([box], [size])
    if outside[0]:
        assert not clipped[0]
        return
    assert (kept >= 0).all() and (kept <= [[*size, *size]]).all()
    assert clipped[0] == (kept[0].tolist() != box)
    again, clipped, outside = geometry.clip(kept, [size])
    assert again.tolist() == kept.tolist() and not clipped[0] and not outside[0]


# --- union


@given(st.lists(st.lists(st.tuples(*[st.integers(-5, 50)] * 4), max_size=4), max_size=6), st.integers(0, 3))
def test_union_equals_the_loop(groups: list[list[tuple[int, ...]]], before: int) -> None:
    flat = [(-99, -99, 99, 99)] * before + [box for group in groups for box in group] + [(-99, -99, 99, 99)]
    boxes, _ = geometry.sort_corners(flat)
    offsets = before + np.cumsum([0] + [len(group) for group in groups])
    around = geometry.union(boxes, offsets)
    assert around.shape == (len(groups), 4)
    for g, row in enumerate(around):
        members = boxes[offsets[g] : offsets[g + 1]]
        if len(members):
            assert row.tolist() == [*members[:, :2].min(axis=0), *members[:, 2:].max(axis=0)]
        else:
            assert np.isnan(row).all()


def test_union_refuses_offsets_that_do_not_fit() -> None:
    for offsets in ([0, 2], [1, 0], [-1, 1], []):
        with pytest.raises(ValueError, match=r"union: offsets do not divide 1 boxes, expected rising values"):
            geometry.union([[0, 0, 1, 1]], offsets)


# --- cells


@given(boxed_images(), st.sampled_from(GRIDS), st.sampled_from(["floor", "inside"]))
def test_cells_are_ordered_and_on_the_grid(case: tuple[list[float], list[int]], k: int, edge: str) -> None:
    box, size = case
    found = geometry.cells([box], [size], k, edge)  # type: ignore[arg-type]
    assert found.dtype == np.int32
    assert (found >= 0).all() and (found < k).all()
    assert (found[:, :2] <= found[:, 2:]).all()


@given(st.integers(1, 2**31 - 1), st.integers(1, 4096), st.data())
def test_cells_equal_integer_arithmetic(side: int, k: int, data: st.DataObject) -> None:
    near = data.draw(st.integers(0, side) | st.integers(0, k).map(lambda i: i * side // k))
    far = data.draw(st.integers(near, side) | st.integers(0, k).map(lambda i: max(near, -(-i * side // k))))
    box, size = [[near, near, far, far]], [[side, side]]
    first, last = min(k - 1, k * near // side), k * far // side
    assert geometry.cells(box, size, k)[0, ::2].tolist() == [first, min(k - 1, last)]
    inside = max(first, min(k - 1, -(-k * far // side) - 1))
    assert geometry.cells(box, size, k, "inside")[0, ::2].tolist() == [first, inside]
    assert geometry.cells(box, size, k, "legacy")[0, ::2].tolist() == [k * near // side, last]


@given(st.floats(0, 1, exclude_max=True), sides, st.sampled_from([1, 2, 4, 8, 16, 32]), st.integers(0, 32))
def test_cells_of_fractional_boxes_are_exact(share: float, side: int, k: int, line: int) -> None:
    just_below = np.nextafter(min(line, k) * side / k, 0)
    for v in (share * side, float(just_below)):
        expected = math.floor(Fraction(v) * k / side)
        assert geometry.cells([[v, v, v, v]], [[side, side]], k)[0].tolist() == [min(k - 1, expected)] * 4


def test_edges_differ_only_on_grid_lines() -> None:
    box, size = [[0, 0, 250, 375]], [[500, 375]]
    assert geometry.cells(box, size, 8).tolist() == [[0, 0, 4, 7]]
    assert geometry.cells(box, size, 8, "inside").tolist() == [[0, 0, 3, 7]]
    assert geometry.cells(box, size, 8, "legacy").tolist() == [[0, 0, 4, 8]]
    assert geometry.cells([[250, 0, 250, 1]], size, 8, "inside").tolist() == [[4, 0, 4, 0]]


def test_legacy_takes_boxes_as_published() -> None:
    boxes = [[-3, 0, 570, 375]]
    assert geometry.cells(boxes, [[500, 375]], 8, "legacy").tolist() == [[0, 0, 9, 8]]
    with pytest.raises(ValueError, match=r"a legacy index is above 2147483647, .*; clip first"):
        geometry.cells([[0, 0, 1e308, 1]], [[500, 375]], 8, "legacy")


# --- crops


def test_the_published_row() -> None:
    size = [[500, 375]]
    assert geometry.crop([[0, 0, 8, 6]], size, 8).tolist() == [[0, 0, 562, 328]]
    assert geometry.crop([[0, 0, 7, 6]], size, 8).tolist() == [[0, 0, 500, 328]]
    assert geometry.crop([[0, 1, 1, 4]], [[1695, 2200]], 8).tolist() == [[0, 275, 423, 1375]]


def test_margin_stops_at_the_grid() -> None:
    cells, sizes = [[0, 1, 1, 4], [3, 3, 3, 3], [2, 2, 8, 7]], [[1695, 2200], [640, 480], [80, 80]]
    expected = [[0, 0, 635, 1650], [160, 120, 400, 300], [10, 10, 90, 80]]
    assert geometry.crop(cells, sizes, 8, margin_cells=1).tolist() == expected
    assert geometry.crop([[3, 3, 3, 3]], [[640, 480]], 8, margin_cells=99).tolist() == [[0, 0, 640, 480]]


@given(boxed_images(), st.sampled_from(GRIDS), st.sampled_from(["floor", "inside"]), st.integers(0, 2))
def test_crop_shows_the_box(case: tuple[list[float], list[int]], k: int, edge: str, margin: int) -> None:
    box, size = case
    kept, _, outside = geometry.clip([box], [size])
    if outside[0]:
        return
    shown = geometry.crop(geometry.cells(kept, [size], k, edge), [size], k, margin)[0]  # type: ignore[arg-type]
    assert (shown[:2] >= 0).all() and (shown[2:] <= size).all()
    assert (shown[2:] - shown[:2] >= 1).all()
    assert (shown[:2] <= kept[0, :2]).all()
    assert (shown[2:] > kept[0, 2:] - 1).all()  # the far edge is truncated to whole pixels


@given(st.integers(1, 12), st.integers(1, 32), st.data())
def test_every_cell_of_a_tiny_image_shows_a_pixel(side: int, k: int, data: st.DataObject) -> None:
    col, row = data.draw(st.integers(0, k - 1)), data.draw(st.integers(0, k - 1))
    x0, y0, x1, y1 = geometry.crop([[col, row, col, row]], [[side, side]], k)[0].tolist()
    assert 0 <= x0 < x1 <= side and 0 <= y0 < y1 <= side
    assert x0 == col * side // k and x1 == max(x0 + 1, (col + 1) * side // k)


# --- overlap


def test_overlap_without_area() -> None:
    point, square, missing = [5.0] * 4, [0.0, 0.0, 10.0, 10.0], [math.nan] * 4
    left, right = [point, point, square, missing, square], [point, square, point, square, missing]
    assert geometry.iou(left, right).tolist() == [1, 0, 0, 0, 0]
    assert geometry.iogt(left, right).tolist() == [1, 0, 1, 0, 0]
    assert geometry.iogt([square], [[11, 5, 11, 5]]).tolist() == [0]


@given(boxed_images(), boxed_images())
def test_overlap_identities(one: tuple[list[float], list[int]], two: tuple[list[float], list[int]]) -> None:
    a, b = [one[0]], [two[0]]
    around = geometry.union(np.array([one[0], two[0]]), [0, 2])
    assert geometry.iou(a, b) == geometry.iou(b, a)
    assert geometry.iou(a, a) == 1 and geometry.iogt(a, a) == 1
    assert geometry.iogt(around, b) == 1
    assert 0 <= geometry.iou(a, b)[0] <= geometry.iogt(a, b)[0] * (1 + 1e-9)


def test_overlap_values() -> None:
    assert geometry.iou([[0, 0, 4, 4]], [[2, 2, 6, 6]]).tolist() == [4 / 28]
    assert geometry.iogt([[0, 0, 4, 4]], [[2, 2, 6, 6]]).tolist() == [4 / 16]


# --- formats of own data


def test_box_formats_and_units() -> None:
    assert geometry.xywh_to_xyxy([[1, 2, 3, 4]]).tolist() == [[1, 2, 4, 6]]
    assert geometry.cxcywh_to_xyxy([[2.5, 4, 3, 4]]).tolist() == [[1, 2, 4, 6]]
    assert geometry.scale([[1, 2, 3, 4]], [[10, 100]]).tolist() == [[10, 200, 30, 400]]
    sizes = [[640, 480]]
    assert geometry.to_pixels([[0.25, 0.5, 1, 1]], sizes, "fraction").tolist() == [[160, 240, 640, 480]]
    assert geometry.to_pixels([[250, 500, 999, 1000]], sizes, "permille").tolist() == [[160, 240, 639.36, 480]]
    assert geometry.to_pixels([[1, 2, 3, 4]], sizes, "pixel").tolist() == [[1, 2, 3, 4]]


def test_padded_square_pads_the_short_side() -> None:
    tall, wide = [74, 398, 404, 1118], [0, 0, 640, 425]
    values = geometry.padded_square([tall, wide], [[1695, 2200], [640, 425]])
    assert values[0].round(3).tolist() == [0.148, 0.181, 0.298, 0.508]
    assert values[1].tolist() == [0, 107 / 640, 1, 532 / 640]


# --- programmer errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: geometry.clip([[1, 2, 3]], [[9, 9]]), r"boxes: shape is \[1, 3\], expected \[N, 4\]"),
        (lambda: geometry.clip([[3, 0, 1, 1]], [[9, 9]]), r"boxes: box 0 is .*; use sort_corners"),
        (
            lambda: geometry.cells([[0, 0, 1, 1]], [[9, 0]], 8),
            r"sizes: image 0 is \[9.0, 0.0\], expected width",
        ),
        (lambda: geometry.cells([[0, 0, 1, 1]], [[9, math.nan]], 8), r"sizes: image 0 is \[9.0, nan\]"),
        (lambda: geometry.cells([[0, 0, 1, 1]], [[9, 9]], 0), r"k is 0, expected a grid of at least 1 cell"),
        (
            lambda: geometry.cells([[0.0, 0, 1, 1], [0.0, 0, math.inf, 1]], [[9, 9]] * 2, 8),
            r"cells: box 1 is .*inf",
        ),
        (lambda: geometry.cells([[math.nan] * 4], [[9, 9]], 8), r"cells: box 0 is .*expected finite pixels"),
        (
            lambda: geometry.crop([[2, 0, 1, 1]], [[9, 9]], 8),
            r"cells: row 0 is \[2, 0, 1, 1\], expected 0 <= near",
        ),
        (
            lambda: geometry.crop([[0, 0, 1, 1]], [[9, 9]], 8, -1),
            r"crop: margin_cells is -1, expected 0 or more",
        ),
    ],
)
def test_wrong_use_is_one_sentence(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]


def test_no_rows_are_no_rows() -> None:
    none, no_sizes = np.empty((0, 4)), np.empty((0, 2), dtype=int)
    assert geometry.sort_corners(none)[0].shape == (0, 4)
    assert geometry.clip(none, no_sizes)[0].shape == (0, 4)
    assert geometry.union(none, [0]).shape == (0, 4)
    assert geometry.cells(none, no_sizes, 8).shape == (0, 4)
    assert geometry.crop(geometry.cells([], [], 8), [], 8).shape == (0, 4)
    assert geometry.iou(none, none).shape == (0,)
    assert geometry.padded_square([], []).shape == (0, 4)


# --- real rows

TRAIN, BENCH = "viscot_dataset/{}_cot_train.jsonl.gz", "viscot_benchmark/benchmark_det/{}.jsonl.gz"


@pytest.mark.parametrize(
    ("file", "rows", "swapped", "clipped", "index_8", "inside_differs"),
    [
        (TRAIN.format("vsr"), 3376, 0, 0, 986, 4),
        (TRAIN.format("cub"), 10056, 0, 28, 72, 84),
        (BENCH.format("gqa"), 978, 0, 9, 105, 8),
        (BENCH.format("cub"), 492, 0, 4, 7, 3),
        (BENCH.format("docvqa"), 888, 8, 0, 0, 0),
    ],
)
def test_counts_of_the_real_rows(
    shared: Path, file: str, rows: int, swapped: int, clipped: int, index_8: int, inside_differs: int
) -> None:
    boxes, sizes, _ = read_rows(shared / "data" / "raw" / "visual_cot" / file)
    given, was_swapped = geometry.sort_corners(boxes)
    kept, was_clipped, outside = geometry.clip(given, sizes)
    assert (len(kept), was_swapped.sum(), was_clipped.sum()) == (rows, swapped, clipped)
    assert not outside.any()

    found = geometry.cells(kept, sizes, 8)
    assert found.min() >= 0 and found.max() <= 7
    assert (geometry.cells(kept, sizes, 8, "inside") != found).any(axis=1).sum() == inside_differs
    for legacy in (geometry.cells(kept, sizes, 8, "legacy"), geometry.cells(given, sizes, 8, "legacy")):
        assert (legacy > 7).any(axis=1).sum() == (legacy == 8).any(axis=1).sum() == index_8
        assert (np.minimum(legacy, 7) == found).all()


@pytest.mark.parametrize("name", ["docvqa", "gqa", "cub"])
def test_padded_square_equals_the_published_text(shared: Path, name: str) -> None:
    root = shared / "data" / "raw" / "visual_cot" / "viscot_benchmark"
    boxes, sizes, _ = read_rows(root / "benchmark_det" / f"{name}.jsonl.gz")
    with gzip.open(root / "benchmark" / f"{name}.json.gz", "rt", encoding="utf-8") as file:
        published = [record["conversations"][1]["value"] for record in json.load(file)]
    ours = [f"[{', '.join(f'{v:.3f}' for v in row)}]" for row in geometry.padded_square(boxes, sizes)]
    assert ours == published
