"""The region rule: which part of an image the boxes of an annotation ask for, and whether any of it is left.

It exists once: pass 1 selects records by `inspect_regions`, and `templates.render` draws from the same
`regions_px`.
"""

from __future__ import annotations

import enum
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import Ints, column, numbers, quads, relist, sizes_of_images, structs, unlist
from vpt_data.schema import ANNOTATION, Repair
from vpt_data.take import Boxes, Edge

_LEGACY_REACH: Final = 100.0  # image sides; indices beyond would only overflow, no published row is near


class RegionState(enum.IntEnum):
    """Whether a record has a region to look at, and if not, why."""

    OK = 0
    NONE_GIVEN = 1
    OUTSIDE = 2
    NO_SIZE = 3


class Regions(NamedTuple):
    """The usable boxes of N records, and what was found on the way.

    boxes   float64 [M, 4], px of the stored image, sorted and clipped (`legacy`: sorted only)
    row     int64 [M], the record of each box, ascending; one box a record for `union`
    image   int64 [M], which image of the record
    sizes   int64 [M, 2], width and height of that image
    repairs uint16 [N], Repair bits
    status  uint8 [N], RegionState
    """

    boxes: npt.NDArray[np.float64]
    row: Ints
    image: Ints
    sizes: Ints
    repairs: npt.NDArray[np.uint16]
    status: npt.NDArray[np.uint8]


def regions_px(annotations: pa.Table, boxes: Boxes = "union", edge: Edge = "floor") -> Regions:
    """The boxes that a region look shows: corners sorted, clipped, those wholly outside left out.

    `union`: one box around all that is left on the image of the record's first region. `each`: every distinct
    box. Three records on a 100x50 image, [[-5, 0, 20, 30]], [[200, 0, 220, 9]] and []: boxes
    [[0, 0, 20, 30]], row [0], repairs [CLIPPED, 0, 0], status [OK, OUTSIDE, NONE_GIVEN].
    """
    given = unlist(column(annotations, "regions"))
    row, count = given.rows, annotations.num_rows
    raw, image = quads(given.values, "box", np.nan)[0], numbers(pc.struct_field(given.values, "image"), 0)
    sizes = sizes_of_images(given, unlist(column(annotations, "images")))
    sized = (sizes >= 1).all(axis=1)
    usable = sized & np.isfinite(raw).all(axis=1)
    if boxes == "union":
        usable &= image == image[given.starts[row]]
    row_of, image, side = row[usable], image[usable], sizes[usable]
    box, swapped = geometry.sort_corners(raw[usable])
    inside, clipped, outside = geometry.clip(box, side)
    repairs = np.zeros(count, np.uint16)
    repairs[row_of[swapped]] |= np.uint16(Repair.SWAPPED)
    repairs[row_of[(inside[:, :2] == inside[:, 2:]).any(axis=1)]] |= np.uint16(Repair.ZERO_AREA)
    if edge == "legacy":
        reach = np.tile(side, 2) * _LEGACY_REACH
        inside = np.clip(box, -reach, reach)
    else:
        repairs[row_of[clipped | outside]] |= np.uint16(Repair.CLIPPED)
    status = _status(count, row, row_of[~outside], row[~sized])
    repairs[status != RegionState.OK] = 0
    # The published unions were taken of all boxes, the ones outside included.
    kept = (status[row_of] == RegionState.OK) if edge == "legacy" and boxes == "union" else ~outside
    left = _merge if boxes == "union" else _distinct
    return Regions(*left(inside[kept], row_of[kept], image[kept], side[kept]), repairs, status)


def regions_of(samples: pa.Table) -> Regions:
    """`regions_px` of rows of a corpus (edge `floor`), which have the sizes of their images in `image_info`."""
    info, kind = unlist(column(samples, "image_info")), ANNOTATION.field("images").type
    fields = [pa.nulls(len(info.values), pa.string()), *(pc.struct_field(info.values, s) for s in ("width", "height"))]
    images = relist(info.lengths, structs(kind.value_type, fields), kind)
    return regions_px(pa.table({"images": images, "regions": column(samples, "regions")}))


def inspect_regions(
    annotations: pa.Table, edge: Edge = "floor"
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.uint8]]:
    """Pass 1's view of `regions_px`: Repair bits uint16 [N] and status uint8 [N], RegionState."""
    found = regions_px(annotations, edge=edge)
    return found.repairs, found.status


def _status(count: int, given: Ints, left: Ints, unsized: Ints) -> npt.NDArray[np.uint8]:
    status = np.full(count, RegionState.NONE_GIVEN, np.uint8)
    status[given] = RegionState.OUTSIDE
    status[unsized] = RegionState.NO_SIZE
    status[left] = RegionState.OK
    return status


_Boxes: TypeAlias = tuple[npt.NDArray[np.float64], Ints, Ints, Ints]


def _merge(box: npt.NDArray[np.float64], row: Ints, image: Ints, side: Ints) -> _Boxes:
    rows, starts = np.unique(row, return_index=True)
    return geometry.union(box, np.append(starts, len(row))), rows, image[starts], side[starts]


def _distinct(box: npt.NDArray[np.float64], row: Ints, image: Ints, side: Ints) -> _Boxes:
    _, at = np.unique(np.column_stack([row, image, box]), axis=0, return_index=True)
    at.sort()
    return box[at], row[at], image[at], side[at]
