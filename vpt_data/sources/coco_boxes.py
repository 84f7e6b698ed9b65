"""Your own questions about the instances of a COCO-format file: a question names an image and a category.

Upstream   none; the files are yours. The format is COCO's, https://cocodataset.org (its own annotations: CC
           BY 4.0).
Files      "boxes": the COCO JSON (`instances` of the take: images, annotations, categories); "rows": the
           questions (`files` of the take: CSV, JSON or Parquet as in `table`).
Columns    `columns.image` holds a file name or an image id, `columns.category` (default `category`) a
           category name, a list of names, or such a list as JSON text. The regions are all instances of
           these categories in the image, each labelled with its category.
Boxes      x, y, width, height in pixels in the file; x0, y0, x1, y1 here. Crowd instances (`iscrowd` = 1)
           are not regions: their box spans many objects.
Rows       as many as the questions file has.
Defects    an unknown image or category is a malformed record; a category without an instance in the image
           leaves no region and the status `unknown`, with the reason in `meta`. LVIS images have no file
           name: it is taken from `coco_url`.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NotRequired, TypedDict

import msgspec

from vpt_data.errors import RawError
from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.annotations import Box
from vpt_data.sources.reading.entries import (
    BadCell,
    Entry,
    answers,
    identity,
    image_path,
    shown,
    text,
    to_chunk,
    wanted_columns,
)
from vpt_data.sources.reading.tabular import Record, WantedColumns, read_table
from vpt_data.store import DECODE_ERRORS
from vpt_data.take import Take
from vpt_data.upstream.rawfile import RawFile, content, in_memory


class CocoImage(TypedDict):
    """The fields of a COCO image that are used; LVIS has no file name."""

    id: int | str
    width: int
    height: int
    file_name: NotRequired[str]
    coco_url: NotRequired[str]


class _Annotation(TypedDict):
    id: int | str
    image_id: int | str
    category_id: int
    bbox: Box
    iscrowd: NotRequired[int]


class _Category(TypedDict):
    id: int
    name: str


class _Coco(TypedDict):
    images: list[CocoImage]
    annotations: list[_Annotation]
    categories: list[_Category]


@dataclass(frozen=True, slots=True)
class Instances:
    """A COCO-format file, indexed: images by file name, categories by name in lower case."""

    name: str
    coco: Any
    by_file: dict[str, CocoImage]
    by_category: dict[str, _Category]

    def boxes(self, image: CocoImage, category: str) -> list[Box]:
        """The instances of a category in an image as x, y, width, height in px, crowds left out.

        Raises BadCell for a category that the file does not have.
        """
        wanted = self.by_category.get(category.strip().lower())
        if wanted is None:
            near = difflib.get_close_matches(category.lower(), self.by_category, n=1, cutoff=0)
            hint = f"; the nearest is {near[0]!r}" if near else ""
            raise BadCell(f"category {shown(category)} is not one of {self.name}{hint}")
        found: Sequence[_Annotation] = self.coco.imgToAnns.get(image["id"], ())
        return [
            instance["bbox"]
            for instance in found
            if instance["category_id"] == wanted["id"] and not instance.get("iscrowd")
        ]


def read_instances(raw: RawFile) -> Instances:
    """Read a COCO-format file; raises RawError if it lacks what boxes need."""
    with in_memory(raw):
        return _read_instances(raw)


def _read_instances(raw: RawFile) -> Instances:
    try:
        data = msgspec.json.decode(content(raw), type=_Coco)  # polygons are not kept: they are most of the file
    except DECODE_ERRORS as error:
        expected = "expected an object with images, annotations and categories"
        raise RawError(f"{raw.name}: not COCO instances ({error}); {expected}.") from error
    return Instances(
        name=raw.name,
        coco=_index(data),
        by_file={file_name(image): image for image in data["images"]},
        by_category={category["name"].lower(): category for category in data["categories"]},
    )


def _index(data: _Coco) -> Any:
    from pycocotools.coco import COCO  # slow to import, and only this format needs it

    coco = COCO()  # its own loader neither reads gzip nor checks anything
    coco.dataset = data
    with contextlib.redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def file_name(image: CocoImage) -> str:
    """The image's file name, or folder and name at the end of its address where it has none (LVIS)."""
    return image.get("file_name") or "/".join(image.get("coco_url", "").split("/")[-2:])


def _image(instances: Instances, cell: object) -> CocoImage:
    """The image that a cell names by file name or id; ids are text in a CSV."""
    found = instances.by_file.get(cell) if isinstance(cell, str) else None
    number = int(cell) if isinstance(cell, str) and cell.isascii() and cell.isdigit() else cell
    for key in (cell, number):
        if found is None and isinstance(key, int | str):
            found = instances.coco.imgs.get(key)
    if found is None:
        raise BadCell(f"image {shown(cell)} is not in {instances.name}; expected a file name or an image id of it")
    return found


def _categories(cell: object) -> list[str]:
    if isinstance(cell, str) and cell.startswith("["):
        with contextlib.suppress(msgspec.DecodeError):
            cell = msgspec.json.decode(cell)
    names = [text(name, "columns.category") for name in (cell if isinstance(cell, list) else [cell])]
    return [name for name in names if name]


def _entry(record: Record, take: Take, category: str, instances: Instances) -> Entry:
    columns = take.columns
    image = _image(instances, record.get(columns.image))
    names = _categories(record.get(category))
    found = [(box, name) for name in dict.fromkeys(names) for box in instances.boxes(image, name)]
    why = f"no instance of {', '.join(names)} in the image" if names else "no category is named"
    return Entry(
        image=image_path(take.images, file_name(image)),
        question=text(record.get(columns.question), "columns.question"),
        answers=answers(record, columns.answer),
        size=(image["width"], image["height"]),
        boxes=[box for box, _ in found],
        labels=[name for _, name in found],
        status=RegionStatus.GIVEN if found else RegionStatus.UNKNOWN,
        source_id=identity(record, columns.id),
        meta=None if found else json.dumps({"no_region": why}),
    )


def read(job: Job) -> Iterator[Chunk]:
    """Read questions and join them to the instances; raises UsageError where the take does not fit."""
    take = job.take
    assert take is not None, "own data is read for a take"
    if "boxes" not in job.files:
        raise RawError(f"{job.rows.name}: there is no COCO JSON to join to; set instances in the recipe.")
    wanted = wanted_columns(take)
    category = take.columns.category or "category"
    if take.columns.category is None:
        wanted = WantedColumns([*wanted.pairs, ("columns.category", category)], wanted.optional)
    instances = read_instances(job.files["boxes"])
    for stretch in read_table(job.rows, wanted, job.limit):
        yield to_chunk(
            job.source,
            job.dataset,
            stretch,
            lambda record: _entry(record, take, category, instances),
            "xywh",
        )


SOURCE = Source(read=read, own_files=True)
