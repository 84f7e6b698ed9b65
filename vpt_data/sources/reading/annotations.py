"""Build the nested ANNOTATION columns from flat lists, and the field types that readers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.schema import ANNOTATION
from vpt_data.sources.base import Chunk
from vpt_data.sources.reading.json_feed import Records

_LARGEST = 2**31 - 1

Side = Annotated[float, msgspec.Meta(multiple_of=1, ge=-_LARGEST, le=_LARGEST)]
"""Image width or height: 640 and 640.0 pass, 640.5 does not. Whether it makes sense is judged later."""

Box = tuple[float, float, float, float]


def chunk(records: Records, table: pa.Table, form: pa.Array | None = None) -> Chunk:
    """The Chunk of `records`, of which `table` holds the good ones."""
    return Chunk(table, records.row, form, records.bad, records.line)


def text_array(values: Sequence[str | None] | pa.Array) -> pa.Array:
    """A string column; None is null."""
    return values if isinstance(values, pa.Array) else pa.array(values, pa.string())


def _lists(values: pa.Array, offsets: np.ndarray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), values)


def offsets_of(lengths: Iterable[int]) -> np.ndarray:
    """int64[N + 1] list offsets of N list lengths; [2, 0, 1] gives [0, 2, 2, 3]."""
    sizes = np.fromiter(lengths, dtype=np.int64)
    return np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(sizes)])


def answers_array(offsets: np.ndarray, answers: Sequence[str] | pa.Array) -> pa.Array:
    """The `answers` column from flat answers; `offsets` int[N + 1]."""
    return _lists(text_array(answers), offsets)


def images_array(
    paths: Sequence[str | None], widths: Sequence[float] | None = None, heights: Sequence[float] | None = None
) -> pa.Array:
    """The `images` column with one image a row, none where the path is None. Sizes are whole numbers."""
    kept = [path for path in paths if path is not None]
    here = np.array([path is not None for path in paths], dtype=np.bool_)
    sides = [
        pa.nulls(len(kept), pa.int32()) if side is None else pa.array(np.asarray(side, dtype=np.int32)[here])
        for side in (widths, heights)
    ]
    return _lists(pa.StructArray.from_arrays([text_array(kept), *sides], ["path", "width", "height"]), offsets_of(here))


def regions_array(
    offsets: np.ndarray, boxes: np.ndarray, image: int = 0, labels: Sequence[str | None] | None = None
) -> pa.Array:
    """The `regions` column: `boxes` float64[M, 4] as x0, y0, x1, y1 in px, `offsets` int[N + 1] into them."""
    count = len(boxes)
    flat = pa.array(np.ascontiguousarray(boxes, dtype=np.float64).reshape(-1))
    label = pa.nulls(count, pa.string()) if labels is None else text_array(labels)
    images = pa.array(np.full(count, image, dtype=np.int32))
    parts = [images, pa.FixedSizeListArray.from_arrays(flat, 4), label]
    return _lists(pa.StructArray.from_arrays(parts, ["image", "box", "label"]), offsets)


def no_regions(count: int) -> pa.Array:
    """The `regions` column of `count` rows that have none."""
    return regions_array(np.zeros(count + 1, dtype=np.int64), np.empty((0, 4)))


def turns_array(offsets: np.ndarray, roles: Sequence[str] | pa.Array, contents: Sequence[str] | pa.Array) -> pa.Array:
    """The `turns` column from flat roles and contents; `offsets` int[N + 1]."""
    parts = [text_array(roles), text_array(contents)]
    return _lists(pa.StructArray.from_arrays(parts, ["role", "content"]), offsets)


def annotation_table(count: int, **columns: pa.Array | Sequence[Any] | str | None) -> pa.Table:
    """A table of `count` rows in schema ANNOTATION: a str fills its column, what is absent is null."""
    unknown = columns.keys() - set(ANNOTATION.names)
    assert not unknown, f"not columns of ANNOTATION: {unknown}"
    arrays = []
    for field in ANNOTATION:
        given = columns.get(field.name)
        if given is None:
            arrays.append(pa.nulls(count, field.type))
        elif isinstance(given, str):
            arrays.append(pa.repeat(pa.scalar(given, field.type), count))
        else:
            array = given if isinstance(given, pa.Array) else pa.array(given, field.type)
            arrays.append(array.cast(field.type))
    return pa.Table.from_arrays(arrays, schema=ANNOTATION)
