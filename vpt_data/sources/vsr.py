"""Visual Spatial Reasoning: statements about two objects of a COCO image, true or false.

Upstream   https://github.com/cambridgeltl/visual-spatial-reasoning, Apache-2.0; the images are COCO 2017's.
Files      "rows": data/splits/{random,zeroshot}/{train,dev,test}.jsonl; "instances_train" and, optional,
           "instances_val": COCO's instances_{train,val}2017.json, which hold the boxes that VSR lacks.
Boxes      COCO's x, y, width, height in pixels; x0, y0, x1, y1 here. A statement has the boxes of its
           subject and its object if the image has exactly one instance of each that is no crowd; otherwise
           nobody knows which one is meant, the status is `unknown` and `meta` says why.
Rows       random 7,680 / 1,097 / 2,195, zeroshot 3,489 / 340 / 1,222; none has an id of its own.
Defects    only the zeroshot files have `subj` and `obj`: elsewhere both are read from the caption, before
           and after the relation. 4 % of the training images are val2017 images (`image_link` says which).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Literal, NamedTuple

import msgspec

from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.coco_boxes import CocoImage, Instances, read_instances
from vpt_data.sources.reading.annotations import Box
from vpt_data.sources.reading.entries import Entry, image_path, to_chunk
from vpt_data.sources.reading.json_records import read_records
from vpt_data.sources.reading.tabular import TableRecords


class Statement(msgspec.Struct):
    """The fields of a VSR record that are used."""

    image: str
    caption: str
    label: Literal[0, 1]
    relation: str
    image_link: str = ""
    subj: str | None = None
    obj: str | None = None


class _Look(NamedTuple):
    """What is known of a statement's regions; `why` is empty if they are known."""

    boxes: list[Box]
    labels: list[str]
    why: str


class _Matcher(NamedTuple):
    """COCO's category names as one pattern, longest first: `teddy bear` before `bear`."""

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, files: list[Instances]) -> _Matcher:
        names = sorted({name for file in files for name in file.by_category}, key=len, reverse=True)
        return cls(re.compile(rf"\b(?:{'|'.join(map(re.escape, names)) or '(?!)'})\b"))

    def longest(self, text: str) -> str | None:
        """The longest category name in a text, None if it has none."""
        return max(self.pattern.findall(text.lower()), key=len, default=None)


def _sides(statement: Statement, matcher: _Matcher) -> tuple[str | None, str | None]:
    """Subject and object as COCO category names, None where none is named."""
    if statement.subj and statement.obj:
        return statement.subj.lower(), statement.obj.lower()
    relation = re.search(rf"\b{re.escape(statement.relation)}\b", statement.caption)
    if relation is None:
        return None, None
    before, after = statement.caption[: relation.start()], statement.caption[relation.end() :]
    return matcher.longest(before), matcher.longest(after)


def _look(subject: str | None, other: str | None, image: CocoImage | None, file: Instances | None) -> _Look:
    if image is None or file is None:
        return _Look([], [], "the image is not in the COCO instances")
    if subject is None or other is None:
        return _Look([], [], "the caption does not name two COCO categories around its relation")
    if subject == other:
        return _Look([], [], f"subject and object are both {subject}")
    boxes = []
    for name in (subject, other):
        found = file.boxes(image, name) if name in file.by_category else []
        if len(found) != 1:
            return _Look([], [], f"{len(found)} instances of {name} in the image, expected one")
        boxes += found
    return _Look(boxes, [subject, other], "")


def _entry(statement: Statement, files: list[Instances], matcher: _Matcher, split: str | None) -> Entry:
    file = next((file for file in files if statement.image in file.by_file), None)
    image = file.by_file[statement.image] if file else None
    subject, other = _sides(statement, matcher)
    look = _look(subject, other, image, file)
    meta = {"relation": statement.relation, "subject": subject, "object": other}
    folder = "val2017" if "/val2017/" in statement.image_link else "train2017"
    return Entry(
        image=image_path(f"coco/{folder}", statement.image),
        question=statement.caption,
        answers=["Yes" if statement.label else "No"],
        size=(image["width"], image["height"]) if image else (None, None),
        boxes=look.boxes,
        labels=look.labels,
        status=RegionStatus.GIVEN if look.boxes else RegionStatus.UNKNOWN,
        meta=json.dumps({**meta, "no_region": look.why} if look.why else meta),
        split=split,
    )


def read(job: Job) -> Iterator[Chunk]:
    """Read one split file and join it to the instances files that are there."""
    roles = ("instances_train", "instances_val")
    files = [read_instances(job.files[role]) for role in roles if role in job.files]
    matcher = _Matcher.of(files)
    stem = PurePosixPath(job.rows.name).stem
    split = stem if stem in {"train", "dev", "test"} else None
    for part in read_records(job.rows, Statement, limit=job.limit):
        stretch = TableRecords(part.values, part.row.tolist(), part.line.tolist(), part.bad)
        yield to_chunk(
            job.source,
            "vsr",
            stretch,
            lambda statement: _entry(statement, files, matcher, split),
            "xywh",
        )


SOURCE = Source(read=read)
