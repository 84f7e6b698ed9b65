"""AURORA's depth tasks: images with the codes of their depth maps, and images with points that are marked on them.

Upstream   https://github.com/mahtabbigverdi/Aurora-perception (arXiv 2412.03548) published which points were chosen on
           500 ADE20K images, and neither codes nor pictures: `vpt-data depth` makes the files from images and maps
Licence    that of the images: ADE20K is for non-commercial research and education
Files      aurora/depth_maps.jsonl (data set `maps`), aurora/depth_points.jsonl (data set `points`)
Layout     image, codes (100 numbers, row by row), tokenizer_id; in `points` also marked (the picture with markers) and
           points (label, x, y, depth on the picture squashed to 336 x 336; higher is closer)
Boxes      the markers of the points, in pixels of the marked picture, labelled with their letters
Rows       20,000 maps and 500 points as published
Defects    none known; a file in which two tokenizers made the codes is refused
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
from msgspec import Meta

from vpt_data.errors import RawError
from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.annotations import (
    annotation_table,
    answers_array,
    chunk,
    images_array,
    no_regions,
    offsets_of,
    regions_array,
)
from vpt_data.sources.reading.json_records import read_records

_SIDE = 336  # of the marked picture
_RADIUS = 5  # of a marker, its line included

_Codes = Annotated[list[Annotated[int, Meta(ge=0, le=127)]], Meta(min_length=100, max_length=100)]
_Tokenizer = Annotated[str, Meta(min_length=1, max_length=500)]
_Pixel = Annotated[int, Meta(ge=0, lt=_SIDE)]


class _Point(msgspec.Struct, gc=False):
    label: Annotated[str, Meta(pattern="^[A-Z]$")]
    x: _Pixel
    y: _Pixel
    depth: Annotated[int, Meta(ge=0, le=255)]


class _Map(msgspec.Struct, gc=False):
    image: str
    codes: _Codes
    tokenizer_id: _Tokenizer


class _Pointed(msgspec.Struct, gc=False):
    marked: str
    codes: _Codes
    tokenizer_id: _Tokenizer
    points: Annotated[list[_Point], Meta(min_length=2, max_length=26)]


def read(job: Job) -> Iterator[Chunk]:
    """Read a file; the answers are the codes as numbers, or the letter of the closest point."""
    kind, table = (_Pointed, _of_points) if job.dataset == "points" else (_Map, _of_maps)
    tokenizer: str | None = None
    for records in read_records(job.rows, kind, limit=job.limit):
        if kind is _Pointed:
            records = records.without(
                {
                    at: "two points have one letter, or two are the closest; expected one of each"
                    for at, row in enumerate(records.values)
                    if not _clear(row.points)
                }
            )
        for row in records.values:
            tokenizer = tokenizer or row.tokenizer_id
            if row.tokenizer_id != tokenizer:
                raise RawError(
                    f"{job.rows.name}: one record has codes of the tokenizer {tokenizer!r} and one of "
                    f"{row.tokenizer_id!r}, and equal tokens of two tokenizers mean different things; make the file "
                    "again with one of them."
                )
        yield chunk(records, table(records.values))._replace(tokenizers=frozenset([tokenizer] if tokenizer else []))


def _clear(points: list[_Point]) -> bool:
    depths = sorted(point.depth for point in points)
    return len({point.label for point in points}) == len(points) and depths[-1] > depths[-2]


def _of_maps(rows: list[_Map]) -> pa.Table:
    return annotation_table(
        len(rows),
        source="aurora_depth",
        dataset="maps",
        split="train",
        images=images_array([row.image for row in rows]),
        answers=answers_array(np.arange(len(rows) + 1), [" ".join(map(str, row.codes)) for row in rows]),
        regions=no_regions(len(rows)),
        region_status=RegionStatus.NONE_NEEDED.value,
        meta=[_meta({"tokenizer_id": row.tokenizer_id, "codes": row.codes}) for row in rows],
    )


def _of_points(rows: list[_Pointed]) -> pa.Table:
    points = [point for row in rows for point in sorted(row.points, key=lambda point: point.label)]
    middle = np.array([(point.x, point.y) for point in points], np.float64).reshape(-1, 2)
    boxes = np.clip(np.hstack([middle - _RADIUS + 1, middle + _RADIUS]), 0, _SIDE)
    nearest = [max(row.points, key=lambda point: point.depth).label for row in rows]
    return annotation_table(
        len(rows),
        source="aurora_depth",
        dataset="points",
        split="train",
        images=images_array([row.marked for row in rows], [_SIDE] * len(rows), [_SIDE] * len(rows)),
        answers=answers_array(np.arange(len(rows) + 1), nearest),
        regions=regions_array(
            offsets_of(len(row.points) for row in rows), boxes, labels=[point.label for point in points]
        ),
        region_status=RegionStatus.GIVEN.value,
        meta=[
            _meta(
                {
                    "tokenizer_id": row.tokenizer_id,
                    "codes": row.codes,
                    "points": sorted([point.label, point.x, point.y, point.depth] for point in row.points),
                }
            )
            for row in rows
        ],
    )


def _meta(content: dict[str, Any]) -> str:
    return msgspec.json.encode(content).decode()


SOURCE = Source(read=read, splittable=True)
