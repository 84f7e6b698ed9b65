"""LLaVA alignment sets: one instruction to describe an image, and its caption.

Upstream   https://huggingface.co/datasets/liuhaotian/LLaVA-Pretrain, blip_laion_cc_sbu_558k.json (181 MB),
           https://huggingface.co/datasets/liuhaotian/LLaVA-CC3M-Pretrain-595K, chat.json
Licence    none of its own: the terms of CC-3M, LAION and SBU, captions made by BLIP
Layout     one JSON array of id, image and conversations of one human and one gpt turn
Boxes      none
Rows       blip_laion_cc_sbu_558k 558,128, cc3m_595k 595,375
Defects    none known; the instruction holds `<image>` at its begin or end
"""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.llava import Conversation, talk_problems, talk_table, talks_of
from vpt_data.sources.reading.annotations import chunk
from vpt_data.sources.reading.json_records import read_records

IMAGE_FOLDER = {"blip_laion_cc_sbu_558k": "llava_pretrain/images/", "cc3m_595k": "cc3m_595k/images/"}
FORMS = ("caption",)


def read(job: Job) -> Iterator[Chunk]:
    """Read one of the two files; a record without image, or of more than two turns, is malformed."""
    folder = IMAGE_FOLDER[job.dataset]
    for records in read_records(job.rows, Conversation, limit=job.limit):
        good = records.without(_problems(records.values))
        paths = [folder + record.image for record in good.values if record.image is not None]
        table = talk_table(good, talks_of(good.values), "llava_pretrain", job.dataset, [*paths])
        yield chunk(good, table, pa.repeat(pa.scalar(FORMS[0]), len(paths)))


def _problems(records: list[Conversation]) -> dict[int, str]:
    problems = {i: "no image" for i, record in enumerate(records) if record.image is None}
    for i, record in enumerate(records):
        if len(record.conversations) > 2:
            problems[i] = f"{len(record.conversations)} turns, expected 2"
    return talk_problems(records) | problems


SOURCE = Source(read=read, regions=False, conversations=True, forms=FORMS, splittable=True)
