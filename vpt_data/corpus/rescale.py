"""Rows whose image is a resized copy: their boxes in pixels of the copy.

Cells, region tokens and boxes that are written as text are shares of an image, so they stay what they are.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import geometry
from vpt_data.columns import Bools, Ints, Lists, column, numbers, of_images, quads, replaced, unlist
from vpt_data.columns import sizes as image_sizes


class _Images(NamedTuple):
    """The images of all rows, one behind the other.

    listed          the column `image_info` taken apart
    stated, sizes   int64 [I, 2], width and height as its row states them (0 where it does not), and as they are
    factor          float64 [I], from the one to the other; 1 where the image is no copy
    """

    listed: Lists
    stated: Ints
    sizes: Ints
    factor: npt.NDArray[np.float64]


def rescaled(samples: pa.Table, sizes: Ints) -> tuple[pa.Table, Ints]:
    """Samples with all boxes in pixels of their images as they are, and which rows were changed: int64 [M].

    samples   columns of SAMPLE, whose `image_info` has the sizes of the annotation
    sizes     int64 [I, 2], width and height of the images of all rows, one behind the other; where the annotation says
              another size, it has to be a resized one (geometry.common_factor)

    `regions` are multiplied by the factor; rounding moves no corner that was inside the image out of it. A view with
    cells gets the crop of these cells, any other the nearest whole pixels. `image_info` is left to the caller.
    """
    info = unlist(column(samples, "image_info"))
    stated = image_sizes(info)
    resized = (stated > 0).all(axis=1) & (stated != sizes).any(axis=1)
    if not resized.any():
        return samples, np.zeros(0, np.int64)
    factor = np.ones(len(sizes))
    factor[resized] = geometry.common_factor(stated[resized], sizes[resized])
    assert not np.isnan(factor).any(), "an image that is no resized copy was refused"
    images = _Images(info, stated, sizes, factor)
    return _with_views(_with_regions(samples, images), images), np.unique(info.rows[resized])


def _with_regions(samples: pa.Table, images: _Images) -> pa.Table:
    given = unlist(column(samples, "regions"))
    box, there = quads(given.values, "box", 0.0)
    at, known = of_images(given, images.listed)
    moved = there & known
    box[moved] = _moved(box[moved], at[moved], images)
    fields = {field.name: pc.struct_field(given.values, field.name) for field in given.values.type}
    fields["box"] = _stored(box, there, fields["box"].type)
    return replaced(samples, "regions", given, list(fields.values()))


def _with_views(samples: pa.Table, images: _Images) -> pa.Table:
    shown = unlist(column(samples, "views"))
    box, boxed = quads(shown.values, "box", 0)
    cells, celled = quads(shown.values, "cells", 0)
    at, known = of_images(shown, images.listed)
    moved = boxed & known & (images.factor[at] != 1)
    free, bound = moved & ~celled, moved & celled
    box[free] = _whole(_moved(box[free].astype(np.float64), at[free], images), images.sizes[at[free]])
    grids = np.stack([numbers(column(samples, name), 0) for name in ("k", "crop_margin_cells")], axis=1)[shown.rows]
    for k, margin in np.unique(grids[bound], axis=0).tolist():
        mine = bound & (grids == [k, margin]).all(axis=1)
        box[mine] = geometry.crop(cells[mine], images.sizes[at[mine]], k, margin)
    fields = {field.name: pc.struct_field(shown.values, field.name) for field in shown.values.type}
    fields["box"] = _stored(box, boxed, fields["box"].type)
    return replaced(samples, "views", shown, list(fields.values()))


def _moved(boxes: npt.NDArray[np.float64], at: Ints, images: _Images) -> npt.NDArray[np.float64]:
    """Boxes [M, 4] of the images `at`, resized with them; corners beyond an image stay beyond it."""
    scaled = geometry.scale(boxes, np.repeat(images.factor[at, None], 2, axis=1))
    inside = boxes <= np.tile(images.stated[at], 2)
    return np.where(inside, np.minimum(scaled, np.tile(images.sizes[at], 2)), scaled)


def _whole(boxes: npt.NDArray[np.float64], sizes: Ints) -> Ints:
    """The nearest whole pixels; where nothing would be left, the pixel in which the box begins."""
    low, high = np.rint(boxes[:, :2]), np.rint(boxes[:, 2:])
    low = np.minimum(np.where(high > low, low, np.floor(boxes[:, :2])), sizes - 1)
    return np.hstack([low, np.maximum(high, low + 1)]).astype(np.int64)


def _stored(quads: npt.NDArray[Any], there: Bools, kind: pa.DataType) -> pa.Array:
    flat = pa.array(quads.ravel()).cast(kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, type=kind, mask=pa.array(~there))
