"""CUB-200-2011: photographs of birds, each with its species and one box, in the owners' lists.

Upstream   https://data.caltech.edu/records/65de6-vp158 (CUB_200_2011.tgz), non-commercial research use
           only.
Files      space-separated lists without a header, joined by image id: "rows" images.txt, "boxes"
           bounding_boxes.txt, "labels" image_class_labels.txt, "classes" classes.txt, "split"
           train_test_split.txt; optional "attributes" attributes.txt with "attribute_labels"
           attributes/image_attribute_labels.txt.
Boxes      x, y, width, height in pixels, from 0; x0, y0, x1, y1 here.
Rows       11,788, of them 5,994 train and 5,794 test; the image id is unique and is the key. No record has
           a question (a recipe's `ask` supplies it) or the size of its image (it is probed later).
Defects    14 of the boxes of classes 1 to 50 end outside the image; some lines of
           image_attribute_labels.txt have more than five fields, of which the first four count.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from vpt_data.columns import column
from vpt_data.errors import RawError
from vpt_data.schema import Reason, RegionStatus
from vpt_data.sources.base import Chunk, Drop, Job, Source
from vpt_data.sources.reading.annotations import Box
from vpt_data.sources.reading.entries import BadCell, Entry, image_path, to_chunk
from vpt_data.sources.reading.tabular import TableRecords
from vpt_data.upstream.rawfile import RawFile, lines

_PROBABLY = 3  # certainties.txt: 1 not visible, 2 guessing, 3 probably, 4 definitely
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Lists:
    """The lists that images.txt is joined to, by image id."""

    boxes: dict[int, Box]
    labels: dict[int, int]
    classes: dict[int, str]
    split: dict[int, str]
    attributes: dict[int, list[str]] | None


def _lines(raw: RawFile) -> Iterator[tuple[int, str]]:
    """1-based number and text of the lines that are not blank."""
    for number, line in lines(raw):
        if text := line.decode(errors="replace").strip():
            yield number, text


def _pairs(raw: RawFile, expected: str, convert: Callable[[str], T]) -> dict[int, T]:
    """A list as {id: convert(rest of the line)}; a damaged line is a RawError."""
    found = {}
    for number, line in _lines(raw):
        head, _, rest = line.partition(" ")
        try:
            found[int(head)] = convert(rest)
        except ValueError as error:
            what = f"found {line[:60]!r}, expected {expected!r}; extract the file again."
            raise RawError(f"{raw.name} line {number}: {what}") from error
    return found


def _xywh(rest: str) -> Box:
    x, y, width, height = (float(number) for number in rest.split())
    return x, y, width, height


def _species(rest: str) -> str:
    """`001.Black_footed_Albatross` -> `Black footed Albatross`."""
    number, dot, name = rest.partition(".")
    if not (dot and name and number.isdigit()):
        raise ValueError(rest)
    return name.replace("_", " ")


def _train_or_test(rest: str) -> str:
    if rest not in {"0", "1"}:
        raise ValueError(rest)
    return "train" if rest == "1" else "test"


def _attributes(job: Job) -> dict[int, list[str]] | None:
    """Names of the attributes that are present with certainty 3 or 4, by image id; None without the lists."""
    if not {"attributes", "attribute_labels"} <= job.files.keys():
        return None
    names = _pairs(job.files["attributes"], "attribute name", str)
    raw = job.files["attribute_labels"]
    found: dict[int, list[str]] = {}
    for number, line in lines(raw):
        fields = line.split(None, 4)[:4]
        try:
            image, attribute, present, certainty = map(int, fields)
            name = names[attribute]
        except (ValueError, KeyError) as error:
            raise RawError(
                f"{raw.name} line {number}: found {line[:60]!r}, expected 'image attribute present "
                f"certainty' with an attribute of {job.files['attributes'].name}; extract the file again."
            ) from error
        if present == 1 and certainty >= _PROBABLY:
            found.setdefault(image, []).append(name)
    return found


def _read_lists(job: Job) -> _Lists:
    return _Lists(
        boxes=_pairs(job.files["boxes"], "image x y width height", _xywh),
        labels=_pairs(job.files["labels"], "image class", int),
        classes=_pairs(job.files["classes"], "class 001.Species_name", _species),
        split=_pairs(job.files["split"], "image 0|1", _train_or_test),
        attributes=_attributes(job),
    )


def _images(raw: RawFile, limit: int | None) -> TableRecords:
    """images.txt as records (id, path); there are few enough of them for one stretch."""
    records, rows, lines, drops = [], [], [], []
    for row, (number, line) in enumerate(itertools.islice(_lines(raw), limit)):
        head, _, path = line.partition(" ")
        if head.isdigit() and path:
            records.append({"id": int(head), "path": path})
            rows.append(row)
            lines.append(number)
        else:
            what = f"found {line[:60]!r}, expected 'image path'"
            drops.append(Drop(row, number, Reason.MALFORMED, what))
    if not records and not drops:
        raise RawError(f"{raw.name}: the file is empty; expected lines of an image number and its path.")
    return TableRecords(records, rows, lines, drops)


def _listed(table: Mapping[int, T], number: int, file: str, what: str) -> T:
    if number not in table:
        raise BadCell(f"{file} has no {what} {number}; expected all lists to be of the same release")
    return table[number]


def _entry(record: Mapping[str, Any], lists: _Lists, job: Job) -> Entry:
    image, files = record["id"], job.files
    box = _listed(lists.boxes, image, files["boxes"].name, "box for image")
    label = _listed(lists.labels, image, files["labels"].name, "class for image")
    split = _listed(lists.split, image, files["split"].name, "split for image")
    species = _listed(lists.classes, label, files["classes"].name, "class")
    meta: dict[str, Any] = {"class_id": label}
    if lists.attributes is not None:
        meta["attributes"] = lists.attributes.get(image, [])
    return Entry(
        image=image_path("cub/CUB_200_2011/images", record["path"]),
        question=None,
        answers=[species],
        boxes=[box],
        labels=["bird"],
        status=RegionStatus.GIVEN,
        key=str(image),
        source_id=str(image),
        meta=json.dumps(meta),
        split=split,
    )


def read(job: Job) -> Iterator[Chunk]:
    """Read images.txt and join it to the other lists; the form of a record is its split. Raises RawError."""
    lists = _read_lists(job)
    chunk = to_chunk(
        job.source,
        "cub",
        _images(job.rows, job.limit),
        lambda record: _entry(record, lists, job),
        "xywh",
    )
    yield chunk._replace(form=column(chunk.annotations, "split"))


SOURCE = Source(read=read, forms=("train", "test"))
