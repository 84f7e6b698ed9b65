"""LLaVA-1.5 instruction mix: whole conversations about an image, or about none.

Upstream   https://huggingface.co/datasets/liuhaotian/LLaVA-Instruct-150K, llava_v1_5_mix665k.json (1.03 GB)
Licence    CC BY 4.0 (until 2024 CC BY-NC 4.0), with the terms of OpenAI; the images have terms of their own
Layout     one JSON array of id, image (absent in text-only records) and conversations of human and gpt turns
Boxes      only inside the text of RefCOCO and Visual Genome records, as rounded fractions; they stay text
Rows       665,298: coco 364,100, vg 86,417, ocr_vqa 80,000, gqa 72,140, textvqa 21,953, text only 40,688
Defects    id is an int in gqa records and not unique; the `<image>` of a first turn may stand at its end;
           OCR-VQA images are often GIF or PNG whatever their name; nothing but the wording of the first turn
           distinguishes the sub-sources of coco
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import ROLES, alternating
from vpt_data.schema import RegionStatus
from vpt_data.sources.base import Chunk, Job, Source
from vpt_data.sources.reading.annotations import (
    annotation_table,
    answers_array,
    chunk,
    images_array,
    no_regions,
    offsets_of,
    text_array,
    turns_array,
)
from vpt_data.sources.reading.json_records import Records, read_records

FORMS = ("conversation", "detail", "complex", "short", "choice", "region", "ocr_tokens", "text")
_CONVERSATION, _DETAIL, _COMPLEX, _SHORT, _CHOICE, _REGION, _OCR_TOKENS, _TEXT = range(len(FORMS))
_DATASETS = ("coco", "gqa", "ocr_vqa", "textvqa", "vg")
_TEXT_ONLY = "text"

# how first turns of each form end or begin; these are the owners' words, kept to recognise them
_SHORT_ASKED = "Answer the question using a single word or phrase."
_CHOICE_ASKED = "Answer with the option's letter from the given choices directly."
_OCR_GIVEN = "Reference OCR token"
_REGION_ASKED = (
    r"Please provide the bounding box coordinate of the region this sentence describes"
    r"|Please provide a short description for this region"
)
_BOX_ANSWERED = r"^\s*\[\d\.\d+, ?\d\.\d+, ?\d\.\d+, ?\d\.\d+\]\s*$"
_DETAIL_ASKED = (
    "Analyze the image in a comprehensive and detailed manner.",
    "Can you describe the main features of this image for me?",
    "Can you elaborate on the elements of the picture provided?",
    "Describe the following image.",
    "Explain the visual content of the image in great detail.",
    "What are the key elements in this picture?",
    "What do you think is going on in this snapshot?",
    "What do you see happening in this image?",
    "What is this photo about'?",
    "What is this photo about?",
    "What's happening in the scene?",
    "Write a detailed description of the given image.",
)


class Turn(msgspec.Struct, gc=False):
    """One turn of a LLaVA conversation."""

    speaker: Literal["human", "gpt"] = msgspec.field(name="from")
    value: str


class Conversation(msgspec.Struct, gc=False):
    """One record of a LLaVA file."""

    id: str | int
    conversations: list[Turn]
    image: str | None = None


class Talks(NamedTuple):
    """The conversations of some records, flat: record i has `contents[offsets[i] : offsets[i + 1]]`."""

    offsets: np.ndarray
    contents: pa.Array

    def turn(self, number: int) -> pa.Array:
        """Turn 0 or 1 of every record."""
        return self.contents.take(pa.array(self.offsets[:-1] + number))


def read(job: Job) -> Iterator[Chunk]:
    """Read the whole mix; the data set of a record is the first folder of its image, `text` without one."""
    for records in read_records(job.rows, Conversation, limit=job.limit):
        datasets = [_dataset(record) for record in records.values]
        problems = talk_problems(records.values)
        problems |= {
            index: f"unknown image prefix {records.values[index].image!r}"
            for index, dataset in enumerate(datasets)
            if dataset is None
        }
        known = {index: name for index, name in enumerate(datasets) if name is not None}
        good = records.without(problems, known)
        if problems:
            datasets = [_dataset(record) for record in good.values]
        talks = talks_of(good.values)
        names = text_array(datasets)
        table = talk_table(good, talks, "llava", names, [record.image for record in good.values])
        yield chunk(good, table, _forms(talks, names))


def _dataset(record: Conversation) -> str | None:
    if record.image is None:
        return _TEXT_ONLY
    folder = record.image.partition("/")[0]
    return folder if folder in _DATASETS else None


def talk_problems(records: list[Conversation]) -> dict[int, str]:
    """What is wrong with which conversation: it must be human, gpt, human, gpt, ... and end with gpt."""
    talks = [record.conversations for record in records]
    sizes = np.array([len(turns) for turns in talks], dtype=np.int64)
    human = np.array([turn.speaker == "human" for turns in talks for turn in turns], dtype=np.bool_)
    rows = np.repeat(np.arange(len(records)), sizes)
    position = np.arange(len(rows)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    wrong = rows[human != (position % 2 == 0)]
    problems = {int(i): "human and gpt do not take turns, beginning with human" for i in np.unique(wrong)}
    problems |= {
        int(i): f"{sizes[i]} turns, expected an even number of at least 2"
        for i in np.flatnonzero((sizes < 2) | (sizes % 2 == 1))
    }
    return problems


def talks_of(records: list[Conversation]) -> Talks:
    """The turns of well-formed conversations, flat."""
    contents = text_array([turn.value for record in records for turn in record.conversations])
    return Talks(offsets_of([len(record.conversations) for record in records]), contents)


def talk_table(
    records: Records, talks: Talks, source: str, dataset: pa.Array | str, paths: list[str | None]
) -> pa.Table:
    """Annotations of well-formed conversations: the first answer is the target, where to look is unknown."""
    count = len(records.values)
    # Well-formed conversations have an even number of turns, so speakers alternate across their borders as well.
    roles = pa.array(ROLES).take(pa.array(alternating(np.arange(len(talks.contents)))))
    return annotation_table(
        count,
        source=source,
        dataset=dataset,
        split="train",
        source_id=[str(record.id) for record in records.values],
        images=images_array(paths),
        answers=answers_array(np.arange(count + 1), talks.turn(1)),
        regions=no_regions(count),
        region_status=RegionStatus.UNKNOWN.value,
        turns=turns_array(talks.offsets, roles, talks.contents),
    )


def _forms(talks: Talks, datasets: pa.Array) -> pa.Array:
    """The form of each record, by the wording of its first turn; the first rule that fits counts."""
    asked, answered = talks.turn(0), talks.turn(1)
    plain = pc.utf8_trim_whitespace(pc.replace_substring(asked, "<image>", ""))
    single = pa.array(np.diff(talks.offsets) == 2)
    free = pc.and_(single, pc.equal(datasets, "coco"))
    rules = [
        (_TEXT, pc.equal(datasets, _TEXT_ONLY)),
        (_REGION, pc.match_substring_regex(asked, _REGION_ASKED)),
        (_REGION, pc.match_substring_regex(answered, _BOX_ANSWERED)),
        (_OCR_TOKENS, pc.match_substring_regex(asked, re.escape(_OCR_GIVEN))),
        (_CHOICE, pc.match_substring_regex(asked, re.escape(_CHOICE_ASKED))),
        (_SHORT, pc.match_substring_regex(asked, re.escape(_SHORT_ASKED))),
        (_DETAIL, pc.and_(single, pc.is_in(plain, pa.array(_DETAIL_ASKED)))),
        (_COMPLEX, free),
    ]
    form = np.full(len(asked), _CONVERSATION, dtype=np.int8)
    for number, fits in reversed(rules):
        form[fits.to_numpy(zero_copy_only=False)] = number
    return pa.array(FORMS).take(pa.array(form))


SOURCE = Source(read=read, regions=False, conversations=True, forms=FORMS, splittable=True)
