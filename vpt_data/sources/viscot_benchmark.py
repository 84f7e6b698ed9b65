"""Visual-CoT benchmark: evaluation rows, joined from two files about the same questions.

Upstream   https://github.com/deepcs233/Visual-CoT, viscot_benchmark/benchmark_det/<dataset>.jsonl (role
           `rows`: image, question, box, image size) and benchmark/<dataset>.json beside it (role `answers`)
Licence    the repository grants Apache-2.0 to its code and says nothing on the rows; see `viscot`
Layout     JSON lines: img_path (`cot/<source>/<file>`), expression, bbox, height, width, question_id, split;
           one JSON array of four-turn conversations, whose last turn is the answer
Boxes      one for each row, x0, y0, x1, y1 in pixels of the stored image
Rows       flickr30k 1,546, visual7w 1,000, gqa 978, openimages 945, docvqa 888, textcap 853, sroie 686,
           emotic 656, dude 603, textvqa 526, cub 492, vsr 404, infographicsvqa 360
Defects    swapped corners (docvqa 8 rows), boxes outside the image (dude 32, visual7w 12, gqa 9, ...); the
           two visual7w files say `cot/visual7w/` and `cot/v7w/`, textcap images are in `cot/textvqa/`
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

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
    regions_array,
)
from vpt_data.sources.reading.json_records import read_records
from vpt_data.sources.viscot import IMAGE_FOLDER, flat_boxes
from vpt_data.upstream.rawfile import RawFile

_ASKED = "<image>\n"
_BOX_WANTED = " Please provide the bounding box coordinate of the region that can help you answer the question better."


class _Row(msgspec.Struct, gc=False):
    img_path: str
    expression: str
    bbox: Box
    height: Side
    width: Side
    question_id: int | str
    split: str


class _Turn(msgspec.Struct, gc=False):
    value: str


class _Answer(msgspec.Struct, gc=False):
    question_id: int | str
    image: list[str]
    conversations: list[_Turn]


class _Known(msgspec.Struct, gc=False):
    """What the answers file says of one question."""

    file: str
    question: str
    answer: str


def read(job: Job) -> Iterator[Chunk]:
    """Read `rows` in their order and look each up by question_id in `answers`, in any order."""
    known = _answers(job.files["answers"])
    for records in read_records(job.rows, _Row, limit=job.limit):
        found = [_partner(row, known.get(row.question_id, ())) for row in records.values]
        good = records.without({i: what for i, what in enumerate(found) if isinstance(what, str)})
        answers = [what.answer for what in found if isinstance(what, _Known)]
        yield chunk(good, _table(good.values, answers, job.dataset))


def _answers(raw: RawFile) -> Mapping[int | str, Sequence[_Known]]:
    """What is known by question_id; a damaged record is absent, and so shows as a row without an answer."""
    known: dict[int | str, list[_Known]] = defaultdict(list)
    for records in read_records(raw, _Answer):
        for record in records.values:
            if record.image and len(record.conversations) == 4:
                asked, _, _, answer = record.conversations
                question = asked.value.removeprefix(_ASKED).removesuffix(_BOX_WANTED)
                known[record.question_id].append(_Known(_file(record.image[0]) or "", question, answer.value))
    return known


def _file(path: str) -> str | None:
    """`Class/File.jpg` of `cot/cub/Class/File.jpg`; None if the path is not of that form."""
    parts = path.split("/", 2)
    return parts[2] if len(parts) == 3 and parts[0] == "cot" else None


def _partner(row: _Row, known: Sequence[_Known]) -> _Known | str:
    """What is known of this row, or what is wrong with it."""
    file = _file(row.img_path)
    if file is None:
        return f"img_path is {row.img_path!r}, expected cot/<source>/<file>"
    if not known:
        return f"question_id {row.question_id!r} has no usable record in the answers file"
    same = [what for what in known if what.file == file]
    if not same:
        return f"question_id {row.question_id!r} is about image {known[0].file!r} in the answers file"
    for what in same:
        if what.question == row.expression:
            return what
    return f"question_id {row.question_id!r} asks {same[0].question!r} in the answers file"


def _table(rows: list[_Row], answers: list[str], dataset: str) -> pa.Table:
    folder = IMAGE_FOLDER[dataset]
    each = np.arange(len(rows) + 1)
    images = images_array(
        [folder + str(_file(row.img_path)) for row in rows],
        [row.width for row in rows],
        [row.height for row in rows],
    )
    return annotation_table(
        len(rows),
        source="viscot_benchmark",
        dataset=dataset,
        split=[row.split for row in rows],
        # Rows that ask the same of the same image are two rows of the set: its owners count them so.
        key=[f"{dataset}-{row.question_id}" for row in rows],
        source_id=[str(row.question_id) for row in rows],
        images=images,
        question=[row.expression for row in rows],
        answers=answers_array(each, answers),
        regions=regions_array(each, flat_boxes([(row.bbox,) for row in rows])),
        region_status=RegionStatus.GIVEN.value,
    )


SOURCE = Source(read=read)
