"""Your own data: rows of a CSV, JSON or Parquet file whose columns the recipe names.

Upstream   none; the files are yours and so is their licence (`license` of the take says which).
Files      `files` of the take, relative to the raw root, by suffix: .csv .tsv (comma, semicolon or tab, a
           header line, UTF-8 with or without BOM), .json .jsonl .ndjson (an array or one object a line),
           .parquet; all but Parquet may be gzipped.
Boxes      `columns.box` is one column (four numbers, a list of such lists, or as text "1 2 3 4", "1,2,3,4"
           or JSON) or four columns; `box_format` is xyxy, xywh or cxcywh, `box_units` pixel, fraction or
           permille of the side. They leave here as x0, y0, x1, y1 in pixels, neither clipped nor sorted.
Rows       as many as the file has; a JSON record without a mapped key has an empty cell there.
Defects    a record whose cells cannot be read is dropped as malformed with what was found; a mapped column
           that is not in the file is a UsageError. The rest (empty answers, boxes outside) is judged later.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from vpt_data import geometry
from vpt_data.errors import UsageError
from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.entries import (
    BadCell,
    Entry,
    answers,
    boxes_of,
    identity,
    image_path,
    side,
    text,
    to_chunk,
    wanted_columns,
)
from vpt_data.sources.reading.tabular import Record, read_table
from vpt_data.take import Take


def _check(file: str, take: Take) -> None:
    """What a take cannot ask for; each message names the key to change."""
    columns = take.columns
    if columns.category is not None:
        raise UsageError(f"{file}: columns.category goes with source coco_boxes; a table has columns.label.")
    if isinstance(columns.box, list) and len(columns.box) != 4:
        raise UsageError(
            f"{file}: columns.box lists {len(columns.box)} columns; name four, or the one that holds lists."
        )
    if (columns.width is None) != (columns.height is None):
        raise UsageError(f"{file}: only one of columns.width and columns.height is set; set both or neither.")
    if columns.box is not None and take.box_units != "pixel" and columns.width is None:
        raise UsageError(
            f"{file}: box_units is {take.box_units}, which needs the size of each image; "
            f"add the columns width and height to the file and set columns.width and columns.height."
        )


def _entry(record: Record, take: Take) -> Entry:
    columns = take.columns
    width = side(record.get(columns.width), "columns.width") if columns.width else None
    height = side(record.get(columns.height), "columns.height") if columns.height else None
    boxes = boxes_of(record, columns.box) if columns.box is not None else []
    if (width is None) != (height is None):
        raise BadCell("only one of width and height is filled in; expected both or neither")
    if take.rescale and width is None:
        raise BadCell("rescale goes by the size that the boxes were drawn on, and width and height are empty")
    if boxes and take.box_units != "pixel" and (width is None or height is None):
        raise BadCell(f"the box is in {take.box_units} and the image has no width and height; expected both")
    status = RegionStatus.UNKNOWN if columns.box is not None else RegionStatus.NONE_NEEDED
    return Entry(
        image=image_path(take.images, record.get(columns.image)),
        question=text(record.get(columns.question), "columns.question"),
        answers=answers(record, columns.answer),
        size=(width, height),
        boxes=boxes,
        labels=_labels(record.get(columns.label) if columns.label else None, len(boxes)),
        status=RegionStatus.GIVEN if boxes else status,
        source_id=identity(record, columns.id),
    )


def _labels(cell: object, count: int) -> list[str | None]:
    if not isinstance(cell, list):
        return [text(cell, "columns.label") or None] * count
    if len(cell) != count:
        raise BadCell(f"columns.label holds {len(cell)} labels for {count} boxes; expected one each")
    return [text(item, "columns.label") for item in cell]


def _to_pixels(boxes: geometry.Floats, sizes: geometry.Floats, take: Take, file: str) -> geometry.Floats:
    if take.box_units != "fraction" and len(boxes) > 1 and np.nanmax(np.abs(boxes)) <= 1:
        raise UsageError(
            f"{file}: every box number lies between 0 and 1, which is next to nothing in {take.box_units} units; "
            'set box_units = "fraction" in the take.'
        )
    if take.box_format == "xywh":
        boxes = geometry.xywh_to_xyxy(boxes)
    elif take.box_format == "cxcywh":
        boxes = geometry.cxcywh_to_xyxy(boxes)
    return geometry.to_pixels(boxes, sizes, take.box_units)


def read(job: Job) -> Iterator[Chunk]:
    """Read own rows as the take says; raises UsageError where the take does not fit the file."""
    take = job.take
    assert take is not None, "own data is read for a take"
    _check(job.rows.name, take)
    for stretch in read_table(job.rows, wanted_columns(take), job.limit):
        yield to_chunk(
            job.source,
            job.dataset,
            stretch,
            lambda record: _entry(record, take),
            lambda boxes, sizes: _to_pixels(boxes, sizes, take, job.rows.name),
        )


SOURCE = Source(read=read, own_files=True)
