"""Visual-CoT training metadata: a question, its answer, and the boxes one has to look at to answer it.

Upstream   https://huggingface.co/datasets/deepcs233/Visual-CoT, metadata/<dataset>_cot_train.jsonl; the
           folder viscot_dataset/ of https://github.com/deepcs233/Visual-CoT holds the same files
Licence    contradictory: tagged Apache-2.0, the text says Attribution-NonCommercial 4.0
Layout     JSON lines: question, answer, possible_answers (some files), image (a bare file name), width,
           height, bboxs, dataset, split; gqa rows also thought, reasoning and full_answer
Boxes      x0, y0, x1, y1 in pixels of the stored image
Rows       flickr30k 135,735, gqa 98,149, openimages 43,053, docvqa 33,453, textcap 32,152, visual7w 30,491,
           textvqa 18,524, infographicsvqa 15,055, dude 11,735, cub 10,056, vsr 3,376, sroie 2,486
Defects    one box for each possible answer, often the same one; boxes outside the image (dude 7 %), swapped
           corners (docvqa), slightly negative ones (textcap), no area (dude); visual7w calls itself `v7w`
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np
import pyarrow as pa

from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.annotations import (
    Box,
    Side,
    annotation_table,
    answers_array,
    chunk,
    images_array,
    offsets_of,
    regions_array,
)
from vpt_data.sources.reading.json_records import Records, read_records

IMAGE_FOLDER = {
    "docvqa": "docvqa/documents/",
    "textvqa": "textvqa/train_images/",
    "textcap": "textvqa/train_images/",
    "openimages": "openimages/images/",
    "gqa": "gqa/images/",
    "vsr": "coco/train2017/",
    "cub": "cub/CUB_200_2011/images/",
    "flickr30k": "flickr30k/flickr30k-images/",
    "infographicsvqa": "infographicsvqa/images/",
    "visual7w": "visual7w/images/",
    "dude": "dude/images/",
    "sroie": "sroie/images/",
    "emotic": "emotic/images/",
}
_OTHER_NAME = {"visual7w": "v7w"}
_NOTHING = msgspec.Raw()


class _Row(msgspec.Struct, gc=False):
    question: str
    answer: str
    image: str
    width: Side
    height: Side
    bboxs: list[Box]
    dataset: str
    split: str
    possible_answers: list[str] = []


class _GqaRow(_Row, gc=False):
    thought: msgspec.Raw = _NOTHING
    reasoning: msgspec.Raw = _NOTHING
    full_answer: msgspec.Raw = _NOTHING


def read(job: Job) -> Iterator[Chunk]:
    """Read one metadata file; rows of another data set than `job.dataset` are malformed."""
    kind = _GqaRow if job.dataset == "gqa" else _Row
    names = {job.dataset, _OTHER_NAME.get(job.dataset, job.dataset)}
    for records in read_records(job.rows, kind, limit=job.limit):
        wrong: dict[int, str] = {}
        meta: list[str | None] = []
        for index, row in enumerate(records.values):
            try:
                meta.append(_meta(row) if isinstance(row, _GqaRow) else None)
                if row.dataset not in names:
                    wrong[index] = f"dataset is {row.dataset!r}, expected {job.dataset!r}"
            except UnicodeDecodeError:
                meta.append(None)
                wrong[index] = "a reasoning field is not UTF-8"
        good = records.without(wrong)
        yield chunk(good, _table(good, job.dataset, [text for n, text in enumerate(meta) if n not in wrong]))


def _table(records: Records, dataset: str, meta: list[str | None]) -> pa.Table:
    rows: list[_Row] = records.values
    folder = IMAGE_FOLDER[dataset]
    answers = [_answers(row) for row in rows]
    boxes = [_distinct(row.bboxs) for row in rows]
    offsets = offsets_of(map(len, boxes))
    images = images_array(
        [folder + row.image for row in rows], [row.width for row in rows], [row.height for row in rows]
    )
    return annotation_table(
        len(rows),
        source="viscot",
        dataset=dataset,
        split=[row.split for row in rows],
        images=images,
        question=[row.question for row in rows],
        answers=answers_array(offsets_of(map(len, answers)), [text for texts in answers for text in texts]),
        regions=regions_array(offsets, flat_boxes(boxes)),
        region_status=region_status(offsets),
        meta=meta,
    )


def _answers(row: _Row) -> Sequence[str]:
    """The answer, then the possible answers that differ from it."""
    return list(dict.fromkeys((row.answer, *row.possible_answers))) if row.possible_answers else (row.answer,)


def _distinct(boxes: list[Box]) -> list[Box]:
    return boxes if len(boxes) < 2 else list(dict.fromkeys(boxes))


def _meta(row: _GqaRow) -> str | None:
    """The extra fields as they stand in the file, put together to one JSON object."""
    fields = (("thought", row.thought), ("reasoning", row.reasoning), ("full_answer", row.full_answer))
    given = [f'"{name}": {str(raw, "utf-8")}' for name, raw in fields if memoryview(raw).nbytes]
    return "{" + ", ".join(given) + "}" if given else None


def flat_boxes(boxes: Sequence[Sequence[Box]]) -> np.ndarray:
    """All boxes of all rows as float64 [M, 4]."""
    numbers = [number for some in boxes for box in some for number in box]
    return np.array(numbers, dtype=np.float64).reshape(-1, 4)


def region_status(offsets: np.ndarray) -> pa.Array:
    """`given` for each row that has a region, else `unknown`; `offsets` int64 [N + 1] into the regions."""
    words = pa.array([RegionStatus.UNKNOWN.value, RegionStatus.GIVEN.value])
    return words.take(pa.array((np.diff(offsets) > 0).astype(np.int8)))


SOURCE = Source(read=read, splittable=True)
