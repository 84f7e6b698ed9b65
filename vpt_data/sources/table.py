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

import datetime
import math
import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from vpt_data import geometry
from vpt_data.errors import UsageError
from vpt_data.recipe import Take
from vpt_data.schema import Reason, RegionStatus
from vpt_data.sources.arrays import Box, annotation_table, offsets_of, regions_array
from vpt_data.sources.base import Chunk, Drop, Job, Source
from vpt_data.sources.tabular import Record, Stretch, Wanted, read_table

_LARGEST = 2**31 - 1
_SEPARATORS = re.compile(r"[\s,;]+")
# A tuple made once: `int | float` in a function is put together anew in every call.
_NUMERIC = (int, float, str, Decimal)


class BadCell(ValueError):
    """A cell that cannot be what the recipe says it is; the text says which and what was found."""


class Entry(NamedTuple):
    """One usable record; its boxes may still be in the format and units of the file."""

    image: str
    question: str | None
    answers: list[str]
    size: tuple[int | None, int | None] = (None, None)
    boxes: Sequence[Box] = ()
    labels: Sequence[str | None] = ()
    status: RegionStatus = RegionStatus.UNKNOWN
    source_id: str | None = None
    key: str | None = None
    meta: str | None = None
    split: str | None = None


def to_chunk(
    source: str,
    dataset: str,
    stretch: Stretch,
    convert: Callable[[Any], Entry],
    to_pixels: Callable[[geometry.Floats, npt.NDArray[np.float64]], geometry.Floats] | None = None,
) -> Chunk:
    """The chunk of a stretch: records for which `convert` raises BadCell become malformed drops.

    `to_pixels` turns all boxes [M, 4] with the sizes [M, 2] of their images (NaN = unknown) into px corners.
    """
    entries, kept = [], []
    drops = [drop._replace(dataset=dataset) for drop in stretch.drops]
    for index, record in enumerate(stretch.records):
        try:
            entries.append(convert(record))
            kept.append(index)
        except BadCell as error:
            line = None if stretch.line is None else stretch.line[index]
            drops.append(Drop(stretch.row[index], line, Reason.MALFORMED, str(error), dataset))
    boxes = np.array([box for entry in entries for box in entry.boxes], dtype=np.float64).reshape(-1, 4)
    if to_pixels:
        sizes = [entry.size for entry in entries for _ in entry.boxes]
        boxes = to_pixels(boxes, np.array(sizes, dtype=np.float64).reshape(-1, 2))
    offsets = offsets_of(len(entry.boxes) for entry in entries)
    labels = [label for entry in entries for label in entry.labels]
    table = annotation_table(
        len(entries),
        source=source,
        dataset=dataset,
        split=[entry.split for entry in entries],
        key=[entry.key for entry in entries],
        source_id=[entry.source_id for entry in entries],
        images=[[(entry.image, *entry.size)] for entry in entries],
        question=[entry.question for entry in entries],
        answers=[entry.answers for entry in entries],
        regions=regions_array(offsets, boxes, labels=labels),
        region_status=[entry.status for entry in entries],
        meta=[entry.meta for entry in entries],
    )
    lines = None if stretch.line is None else _taken(stretch.line, kept)
    return Chunk(table, _taken(stretch.row, kept), None, drops, lines)


def _taken(numbers: Sequence[int], kept: list[int]) -> npt.NDArray[np.int64]:
    return np.array([numbers[index] for index in kept], dtype=np.int64)


def shown(cell: object) -> str:
    """A cell as an error message quotes it: at most 60 characters."""
    quoted = repr(cell)
    return quoted if len(quoted) <= 60 else f"{quoted[:57]}..."


def text(cell: object, key: str) -> str | None:
    """A cell as text: numbers as they are written, true and false in lower case, null and NaN as None.

    >>> text(1, "columns.answer"), text(2.5, "columns.answer"), text(True, "columns.answer")
    ('1', '2.5', 'true')
    """
    if cell is None or isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        return str(cell).lower()
    if isinstance(cell, int | float | Decimal):
        return None if math.isnan(cell) else str(cell)
    if isinstance(cell, datetime.date | datetime.time):
        return cell.isoformat()
    raise BadCell(f"{key} holds {shown(cell)}; expected text or a number")


def answers(record: Record, columns: str | list[str]) -> list[str]:
    """The answers of one column or several, a list cell counting as several; none if the first is null."""
    cells: list[Any] = []
    for column in [columns] if isinstance(columns, str) else columns:
        cell = record.get(column)
        cells += (cell or [None]) if isinstance(cell, list) else [cell]
    target, *others = (text(cell, "columns.answer") for cell in cells)
    return [] if target is None else [target, *filter(None, others)]


def identity(record: Record, column: str | None) -> str | None:
    """The owner's id as text, None where the recipe maps no id."""
    if column is None:
        return None
    found = text(record.get(column), "columns.id")
    if not found:
        raise BadCell("columns.id is empty; expected an id in every record")
    return found


def image_path(folder: str, cell: object) -> str:
    """The posix path of an image relative to the raw root: `folder` of the take joined to the cell.

    >>> image_path("own/images", "./north/a.jpg")
    'own/images/north/a.jpg'
    """
    if not isinstance(cell, str) or not cell.strip():
        raise BadCell(f"columns.image holds {shown(cell)}; expected the name of an image file")
    if "://" in cell:
        raise BadCell(f"columns.image holds the address {shown(cell)}; expected a file under the raw root")
    return posixpath.normpath(posixpath.join(folder, cell).replace("\\", "/"))


def side(cell: object, key: str) -> int | None:
    """An image's width or height in pixels, None for an empty cell."""
    if cell is None or cell == "":
        return None
    number = _number(cell)
    if number is None or not 1 <= number <= _LARGEST or number % 1:
        raise BadCell(f"{key} holds {shown(cell)}; expected a whole number of pixels, at least 1")
    return int(number)


def boxes_of(record: Record, columns: str | list[str]) -> list[Box]:
    """The boxes of one column or of four, in the file's own format and units.

    >>> boxes_of({"box": "[[1, 2, 3, 4], [5, 6, 7, 8]]"}, "box")
    [(1.0, 2.0, 3.0, 4.0), (5.0, 6.0, 7.0, 8.0)]
    """
    if not isinstance(columns, str):
        corners = [record.get(column) for column in columns]
        return [] if all(corner is None or corner == "" for corner in corners) else [_box(corners, corners)]
    cell = record.get(columns)
    found = _parsed(cell.strip()) if isinstance(cell, str) else cell
    if found is None or found == []:
        return []
    if isinstance(found, list) and isinstance(found[0], list):
        return [_box(box, box) for box in found]
    return [_box(found, cell)]


def _parsed(cell: str) -> Any:
    if not cell.startswith("["):
        return _SEPARATORS.split(cell.strip("()")) if cell else None
    try:
        return msgspec.json.decode(cell)
    except msgspec.DecodeError as error:
        raise BadCell(f"columns.box holds {shown(cell)}, which is not JSON ({error})") from error


def _box(corners: object, cell: object) -> Box:
    numbers = [_number(corner) for corner in corners] if isinstance(corners, list) else []
    match numbers:
        case [float(a), float(b), float(c), float(d)]:
            return a, b, c, d
    raise BadCell(f"columns.box holds {shown(cell)}; expected four finite numbers")


def _number(cell: object) -> float | None:
    if isinstance(cell, bool) or not isinstance(cell, _NUMERIC):
        return None
    try:
        number = float(cell)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def wanted_columns(take: Take) -> Wanted:
    """What the take's `columns` name; a question that `ask` supplies need not be in the file."""
    pairs = []
    for field in take.columns.__struct_fields__:
        value = getattr(take.columns, field)
        names = [value] if isinstance(value, str) else value or []
        pairs += [(f"columns.{field}", name) for name in names]
    asked = take.ask is not None and take.columns.question == "question"
    return Wanted(pairs, frozenset({"columns.question"} if asked else ()))


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
    return geometry.to_pixels(boxes, sizes, "px" if take.box_units == "pixel" else take.box_units)


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
