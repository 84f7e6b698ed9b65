"""Your own data: rows of a CSV, JSON or Parquet file whose columns the recipe names.

Upstream   none; the files are yours and so is their licence (`license` of the take says which).
Files      `files` of the take, relative to the raw root, by suffix: .csv .tsv (comma, semicolon or tab, a
           header line, UTF-8 with or without BOM), .json .jsonl .ndjson (an array or one object a line),
           .parquet; all but Parquet may be gzipped.
Boxes      `columns.box` is one column (four numbers, a list of such lists, or as text "1 2 3 4", "1,2,3,4"
           or JSON) or four columns; `box_format` is xyxy, xywh, cxcywh or yxyx, `box_units` pixel, fraction or
           permille of the side, `box_frame` the size of a resized copy that they count in. They leave here as
           x0, y0, x1, y1, neither clipped nor sorted; `sources.boxes` makes pixels of them when sizes are known.
Rows       as many as the file has; a JSON record without a mapped key has an empty cell there.
Defects    a record whose cells cannot be read is dropped as malformed with what was found; a mapped column
           that is not in the file is a UsageError. The rest (empty answers, boxes outside) is judged later.
"""

from __future__ import annotations

from collections.abc import Iterator

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


def _entry(record: Record, take: Take) -> Entry:
    columns = take.columns
    width = side(record.get(columns.width), "columns.width") if columns.width else None
    height = side(record.get(columns.height), "columns.height") if columns.height else None
    boxes = boxes_of(record, columns.box) if columns.box is not None else []
    if (width is None) != (height is None):
        raise BadCell("only one of width and height is filled in; expected both or neither")
    if take.rescale and width is None:
        raise BadCell("rescale goes by the size that the boxes were drawn on, and width and height are empty")
    status = RegionStatus.UNKNOWN if columns.box is not None else RegionStatus.NONE_NEEDED
    return Entry(
        image=image_path(take.images, record.get(columns.image)),
        question=text(record.get(columns.question), "columns.question"),
        answers=answers(record, columns.answer),
        size=(width, height),
        boxes=boxes,
        frame=_frame(record, take) if boxes else None,
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


def _frame(record: Record, take: Take) -> tuple[float, float] | None:
    if take.box_frame is not None:
        width, height = (side(record.get(one) if isinstance(one, str) else one, "box_frame") for one in take.box_frame)
        if width is None or height is None:
            raise BadCell("box_frame is empty and the record has a box; expected the width and height it counts in")
        return width, height
    return {"fraction": (1.0, 1.0), "permille": (1000.0, 1000.0)}.get(take.box_units)


def read(job: Job) -> Iterator[Chunk]:
    """Read own rows as the take says; raises UsageError where the take does not fit the file."""
    take = job.take
    assert take is not None, "own data is read for a take"
    for stretch in read_table(job.rows, wanted_columns(take), job.limit):
        yield to_chunk(
            job.source,
            job.dataset,
            stretch,
            lambda record: _entry(record, take),
            take.box_format,
        )


SOURCE = Source(read=read, own_files=True)
