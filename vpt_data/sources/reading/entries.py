"""Entries: records of a table or a list, one object each, turned into annotations.

Readers whose files hold one record a line or row (own data, CUB, VSR, COCO-format JSON) make an `Entry` of each and
collect them into the chunks that all readers give.
"""

from __future__ import annotations

import datetime
import math
import posixpath
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from vpt_data import geometry
from vpt_data.schema import Reason, RegionStatus
from vpt_data.sources.base import Chunk, Drop
from vpt_data.sources.reading.annotations import Box, annotation_table, offsets_of, regions_array
from vpt_data.sources.reading.tabular import Record, TableRecords, WantedColumns
from vpt_data.take import BoxFormat, Take

_LARGEST = 2**31 - 1
_SEPARATORS = re.compile(r"[\s,;]+")
# A tuple made once: `int | float` in a function is put together again in every call.
_NUMERIC = (int, float, str, Decimal)


class BadCell(ValueError):
    """A cell that cannot be what the recipe says it is; the text says which and what was found."""


class Entry(NamedTuple):
    """One usable record; its boxes are in the format and units of the file.

    frame   the width and height that the boxes count in; None for pixels of the stored image
    """

    image: str
    question: str | None
    answers: list[str]
    size: tuple[int | None, int | None] = (None, None)
    boxes: Sequence[Box] = ()
    frame: tuple[float, float] | None = None
    labels: Sequence[str | None] = ()
    status: RegionStatus = RegionStatus.UNKNOWN
    source_id: str | None = None
    key: str | None = None
    meta: str | None = None
    split: str | None = None


def to_chunk(
    source: str,
    dataset: str,
    stretch: TableRecords,
    convert: Callable[[Any], Entry],
    box_format: BoxFormat = "xyxy",
) -> Chunk:
    """The chunk of a stretch: records for which `convert` raises BadCell become malformed drops.

    Boxes become corners, and stay in the frame that their entries name.
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
        regions=regions_array(offsets, geometry.corners(boxes, box_format), labels=labels),
        region_status=[entry.status for entry in entries],
        meta=[entry.meta for entry in entries],
    )
    lines = None if stretch.line is None else _taken(stretch.line, kept)
    return Chunk(table, _taken(stretch.row, kept), None, drops, lines, _frames(entries))


def _frames(entries: Sequence[Entry]) -> npt.NDArray[np.float64] | None:
    if all(entry.frame is None for entry in entries):
        return None
    return np.array([entry.frame or (np.nan, np.nan) for entry in entries], dtype=np.float64)


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


def wanted_columns(take: Take) -> WantedColumns:
    """What the take's `columns` name; a question that `ask` supplies need not be in the file."""
    pairs = []
    for field in take.columns.__struct_fields__:
        value = getattr(take.columns, field)
        names = [value] if isinstance(value, str) else value or []
        pairs += [(f"columns.{field}", name) for name in names]
    pairs += [("box_frame", name) for name in take.box_frame or [] if isinstance(name, str)]
    asked = take.ask is not None and "{question}" not in take.ask and take.columns.question == "question"
    return WantedColumns(pairs, frozenset({"columns.question"} if asked else ()))
