"""AURORA's counting tasks: of each image of LVIS or COCO, the category with the most instances.

Upstream   https://www.lvisdataset.org (lvis_v1_train.json) and https://cocodataset.org (instances_*.json)
Licence    CC BY 4.0 for both annotations; the images are COCO 2017 ones, under the terms their Flickr owners chose
Files      one JSON file of images, annotations and categories, read whole (LVIS: 1.1 GB)
Layout     a record is an image; its category is the one with the most instances among those annotated in full, else one
           that is known to be absent, with the count 0. `meta` has category and count, and how many other categories of
           the image were left out and why (fewer, not_exhaustive, crowd)
Boxes      x, y, width, height in pixels in the file; x0, y0, x1, y1 here, labelled with the category
Rows       100,170 images of LVIS; 118,287 and 5,000 of COCO
Defects    LVIS images have no file name: it is taken from `coco_url`. What LVIS lists as not exhaustive in an image,
           and in COCO what has a crowd there (`iscrowd` = 1), cannot be counted
Forms      `counted` (1 to 15), `none` (0), `many` (more), `capped` (beyond 1,000 images of one count, as published;
           those with the smallest hashes stay), `nothing` (no category is known to be counted or absent)
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import NamedTuple

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data import geometry
from vpt_data.errors import RawError
from vpt_data.schema import Reason, RegionStatus
from vpt_data.sources.base import Chunk, Drop, Job, Source
from vpt_data.sources.reading.annotations import (
    Box,
    annotation_table,
    answers_array,
    images_array,
    offsets_of,
    regions_array,
)
from vpt_data.store import DECODE_ERRORS
from vpt_data.upstream.rawfile import content, in_memory

COUNTED, NONE, MANY, CAPPED, NOTHING = "counted", "none", "many", "capped", "nothing"
_MOST = 15
_CAP = 1000
_SIDES = range(1, 1 << 31)


class _Image(msgspec.Struct, gc=False):
    id: int
    width: int
    height: int
    file_name: str = ""
    coco_url: str = ""
    neg_category_ids: list[int] | None = None
    not_exhaustive_category_ids: list[int] = []


class _Instance(msgspec.Struct, gc=False):
    image_id: int
    category_id: int
    bbox: Box
    iscrowd: int = 0


class _Category(msgspec.Struct, gc=False):
    id: int
    name: str


class _Instances(msgspec.Struct, gc=False):
    images: list[_Image]
    annotations: list[_Instance]
    categories: list[_Category]


class _Task(NamedTuple):
    """What is counted in an image: the category (None for NOTHING), its boxes, pairs left out by reason."""

    category: int | None
    boxes: list[Box]
    left_out: dict[str, int]


def read(job: Job) -> Iterator[Chunk]:
    """Read the file; one record for each image, in the order of the file."""
    with in_memory(job.rows):
        yield _read(job)


def _read(job: Job) -> Chunk:
    name = job.rows.name
    try:
        data = msgspec.json.decode(content(job.rows), type=_Instances)
    except DECODE_ERRORS as error:
        expected = "expected an object with images, annotations and categories"
        raise RawError(f"{name}: not instances in COCO's format ({error}); {expected}.") from error
    names = {category.id: category.name.replace("_", " ") for category in data.categories}
    instances = _by_image(data, names, name)
    images = data.images[: job.limit]
    drops, kept = [], []
    for row, image in enumerate(images):
        if image.width in _SIDES and image.height in _SIDES and _file(image, job.dataset):
            kept.append(row)
        else:
            what = f"image {image.id} is {image.width}x{image.height} and called {_file(image, job.dataset)!r}"
            drops.append(Drop(row, None, Reason.MALFORMED, f"{what}; expected a size and a name"))
    tasks = [_task(images[row], instances[images[row].id], names) for row in kept]
    here = [images[row] for row in kept]
    forms = _forms(here, tasks)
    table = _table(job.dataset, here, tasks, names)
    return Chunk(table, np.array(kept, np.int64), pa.array(forms, pa.string()), drops)


def _by_image(data: _Instances, names: dict[int, str], file: str) -> dict[int, list[_Instance]]:
    """The instances of each image; RawError for one of an image or category that the file does not have."""
    known = {image.id for image in data.images}
    if len(known) < len(data.images):
        raise RawError(
            f"{file}: two images have one id, so that nobody knows whose instances are whose; fetch it again."
        )
    found: dict[int, list[_Instance]] = defaultdict(list)
    for number, instance in enumerate(data.annotations):
        if instance.image_id not in known or instance.category_id not in names:
            what = f"annotation {number} is of image {instance.image_id} and category {instance.category_id}"
            raise RawError(f"{file}: {what}, and the file lacks one of them; fetch it again.")
        found[instance.image_id].append(instance)
    return found


def _task(image: _Image, instances: list[_Instance], names: dict[int, str]) -> _Task:
    """The first of the categories with the most instances; else one that is not there, by the hash of the image."""
    counts = Counter(instance.category_id for instance in instances)
    partial = counts.keys() & set(image.not_exhaustive_category_ids)
    crowds = {instance.category_id for instance in instances if instance.iscrowd} - partial
    usable = [category for category in counts if category not in partial and category not in crowds]
    left_out = {"not_exhaustive": len(partial), "crowd": len(crowds), "fewer": max(len(usable) - 1, 0)}
    if usable:
        category = max(usable, key=counts.__getitem__)
        return _Task(category, [each.bbox for each in instances if each.category_id == category], left_out)
    # COCO lists no absent categories: it is annotated in full, so that all others are.
    absent = names if image.neg_category_ids is None else image.neg_category_ids
    choices = sorted(set(absent) & names.keys() - counts.keys() - set(image.not_exhaustive_category_ids))
    return _Task(choices[_hash(image) % len(choices)] if choices else None, [], left_out)


def _hash(image: _Image) -> int:
    # The splitmix64 finalizer: neighbouring ids are far apart, and nothing depends on the order of images.
    mixed = (image.id + 0x9E3779B97F4A7C15) % 2**64
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> shift)) * factor % 2**64
    return mixed ^ (mixed >> 31)


def _forms(images: list[_Image], tasks: list[_Task]) -> list[str]:
    forms = [NOTHING] * len(tasks)
    seen: Counter[int] = Counter()
    for at in sorted(range(len(tasks)), key=lambda at: _hash(images[at])):
        count = len(tasks[at].boxes)
        if tasks[at].category is not None:
            seen[count] += 1
            forms[at] = MANY if count > _MOST else CAPPED if seen[count] > _CAP else COUNTED if count else NONE
    return forms


def _file(image: _Image, dataset: str) -> str:
    """The path of an image; COCO 2017's folder is in its address, which LVIS images have instead of a name."""
    if image.coco_url.count("/") > 1:
        return "coco/" + "/".join(image.coco_url.split("/")[-2:])
    folder = "val2017" if "val" in dataset else "train2017"
    return f"coco/{folder}/{image.file_name}" if image.file_name else ""


def _table(dataset: str, images: list[_Image], tasks: list[_Task], names: dict[int, str]) -> pa.Table:
    boxes = np.array([box for task in tasks for box in task.boxes], np.float64).reshape(-1, 4)
    labels = [names[task.category] for task in tasks if task.category is not None for _ in task.boxes]
    status = [(RegionStatus.GIVEN if task.boxes else RegionStatus.NONE_NEEDED).value for task in tasks]
    metas = [
        {"category": None if task.category is None else names[task.category], "count": len(task.boxes)}
        | {"left_out": {reason: count for reason, count in task.left_out.items() if count}}
        for task in tasks
    ]
    return annotation_table(
        len(images),
        source="aurora_count",
        dataset=dataset,
        split="val" if "val" in dataset else "train",
        source_id=[str(image.id) for image in images],
        images=images_array(
            [_file(image, dataset) for image in images],
            [image.width for image in images],
            [image.height for image in images],
        ),
        answers=answers_array(np.arange(len(images) + 1), [str(len(task.boxes)) for task in tasks]),
        regions=regions_array(
            offsets_of(len(task.boxes) for task in tasks), geometry.xywh_to_xyxy(boxes), labels=labels
        ),
        region_status=status,
        meta=[msgspec.json.encode(meta).decode() for meta in metas],
    )


SOURCE = Source(read=read, forms=(COUNTED, NONE, MANY, CAPPED, NOTHING))
