"""POPE: is there such an object in the image, yes or no; evaluation only.

Upstream   https://github.com/AoiDragon/POPE (before: RUCAIBox/POPE), output/coco/coco_pope_<setting>.json and
           output/seem/{gqa,aokvqa}/<data set>_pope_seem_<setting>.json, settings random, popular, adversarial
Licence    MIT for the questions; images are those of COCO val2014 and Visual Genome
Layout     question_id, image, text, label; the coco files are JSON lines whatever their name says, the
           others are JSON arrays
Boxes      none, and none needed
Rows       3,000 a file, 500 images with six questions each
Defects    an older version of the random file has 2,910 rows and misspells `image` in some questions
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.annotations import annotation_table, answers_array, chunk, images_array, no_regions
from vpt_data.sources.reading.json_records import read_records

_COCO, _GQA = "coco/val2014/", "gqa/images/"


class _Row(msgspec.Struct, gc=False):
    question_id: int | str
    image: str
    text: str
    label: str


def read(job: Job) -> Iterator[Chunk]:
    """Read one file; the key is its name with question_id, which is unique in one file only."""
    folder = _GQA if job.dataset.startswith("gqa") else _COCO
    for records in read_records(job.rows, _Row, limit=job.limit):
        yield chunk(records, _table(records.values, job.dataset, folder))


def _table(rows: list[_Row], dataset: str, folder: str) -> pa.Table:
    ids = [str(row.question_id) for row in rows]
    return annotation_table(
        len(rows),
        source="pope",
        dataset=dataset,
        split="test",
        key=[f"{dataset}-{number}" for number in ids],
        source_id=ids,
        images=images_array([folder + row.image for row in rows]),
        question=[row.text for row in rows],
        answers=answers_array(np.arange(len(rows) + 1), [row.label for row in rows]),
        regions=no_regions(len(rows)),
        region_status=RegionStatus.NONE_NEEDED.value,
    )


SOURCE = Source(read=read, regions=False)
