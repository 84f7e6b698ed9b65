"""Rows of an evaluation as a page shows them: the picture with what the model named, what it said, what was right."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa

from trainer.evaluation.items import Items, in_corpus
from trainer.evaluation.judge.agreement import RIGHT, sample
from trainer.evaluation.metrics.table import METRICS
from trainer.evaluation.results import numbers
from vpt_data.corpus.reader import Corpus
from vpt_data.images.root import ImageRoot
from vpt_data.inspect.overlay import frame_of, overlaid
from vpt_data.inspect.view.flat import with_bytes
from vpt_data.inspect.view.pictures import encoded
from vpt_data.inspect.view.turns import Part, turns
from vpt_data.report import visible
from vpt_data.store import AnyPath

#: Successes, and as many failures.
EACH: Final = 20
#: Pixels of a picture, across and down.
_ROOM: Final = (420, 320)
#: Characters of a text at most; a model may say anything at any length.
_LONGEST: Final = 600


@dataclass(frozen=True)
class Example:
    """A row that was asked.

    picture  data URI of its first image under box and cells; None where the row has no image
    size     width and height of the picture
    missing  why the pixels are a pattern, one sentence; empty where they are those of the image
    looks    in words, what the model asked for
    said     its turns before the answer, taken apart into text and tokens
    ended    why there is no answer; empty where there is one
    """

    id: str
    success: bool
    picture: str | None
    size: tuple[int, int]
    missing: str
    looks: str
    question: str
    said: list[list[Part]]
    answer: str | None
    right: list[str]
    metric: str
    score: float
    iou: float | None
    ended: str


def examples(corpus: Corpus, asked: Items, records: pa.Table, root: AnyPath | None) -> list[Example]:
    """EACH rows that scored half of the highest score or more, and EACH others, in the order of the records.

    Which ones is decided by a hash of their ids, so that nobody has chosen them.

    asked, records  rows of the corpus, and what was made of them
    root            the raw root, for images that are not in the shards
    """
    highest = np.array([METRICS[name].highest for name in records["metric"].to_pylist()])
    share = numbers(records, "score") / highest
    chosen: list[tuple[bool, dict[str, Any]]] = []
    for success, side in ((True, share >= RIGHT), (False, share < RIGHT)):
        some = records.filter(pa.array(side))
        chosen += [(success, one) for one in some.take(_places(some)).to_pylist()]
    raw = None if root is None else ImageRoot(root)
    grids = dict(zip(map(in_corpus, asked.texts("id")), asked.texts("k"), strict=True))
    wanted: dict[str, set[str]] = {}
    for _, one in chosen:
        wanted.setdefault(one["split"], set()).add(in_corpus(one["id"]))
    stored = {row["id"]: row | {"k": grids[row["id"]]} for row in _rows(corpus, wanted)}
    return [_example(one, stored[in_corpus(one["id"])], success, raw) for success, one in chosen]


def _places(records: pa.Table) -> pa.Array:
    return pa.array(sample(records["id"].to_pylist(), EACH), pa.int64())


def _rows(corpus: Corpus, wanted: Mapping[str, Collection[str]]) -> Iterator[dict[str, Any]]:
    """The wanted rows (split -> ids) in full; of the shards only row groups that hold one of them are read."""
    for shard, ids in ((shard, ids) for split, ids in wanted.items() for shard in corpus.shards(split)):
        known = [name for table in shard.tables(["id"]) for name in table["id"].to_pylist()]
        here = np.array([place for place, name in enumerate(known) if name in ids], np.int64)
        if len(here):
            yield from map(with_bytes, shard.pick(here, images=corpus.embed).to_pylist())


def _example(record: dict[str, Any], row: dict[str, Any], success: bool, raw: ImageRoot | None) -> Example:
    picture, size, missing = None, (0, 0), ""
    if row["images"]:
        shown = _looking(row, record)
        frame = frame_of(shown, 0, raw, "")
        panel = overlaid(shown, 0, frame, _ROOM)
        size, missing = panel.size, frame.why
        picture = f"data:image/webp;base64,{base64.b64encode(encoded(panel, max(_ROOM))).decode()}"
    said = record["turns"][:-1] if record["turns"][-1:] == [record["answer"]] else record["turns"]
    return Example(
        id=record["id"],
        success=success,
        picture=picture,
        size=size,
        missing=missing,
        looks=_looks(record),
        question=_cut(record["question"]),
        said=[turns([{"role": "assistant", "content": _cut(text)}], [])[0].parts for text in said],
        answer=None if record["answer"] is None else _cut(record["answer"]),
        right=[_cut(text) for text in dict.fromkeys(record["answers"])],
        metric=record["metric"],
        score=record["score"],
        iou=record["iou_box"],
        ended="" if record["answer"] is not None else _cut(record["fault"] or record["ended"] or "no answer"),
    )


def _looking(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    """The row with the looks that the model asked for in place of its views."""
    looks = [("vlm", record["cells"])] if record["cells"] is not None else []
    looks += [(name, None) for name in record["encoders"] or []]
    views = [{"image": 0, "encoder": encoder, "box": None, "cells": cells} for encoder, cells in looks]
    return {**row, "views": views, "crop_margin_cells": 0}


def _looks(record: dict[str, Any]) -> str:
    """What was asked for, in words."""
    if record["triggered"] is None:
        return "not known"
    said = []
    if record["cells"] is not None:
        col0, row0, col1, row1 = record["cells"]
        said.append(f"{_span('column', col0, col1)}, {_span('row', row0, row1)}")
    said += [f"the whole image through {name.upper()}" for name in record["encoders"] or []]
    said += [f"a look that cannot be used ({cause})" for cause in record["invalid"] or []]
    return ", ".join(said) or "no look"


def _span(name: str, first: int, last: int) -> str:
    return f"{name} {first}" if first == last else f"{name}s {first} to {last}"


def _cut(text: str) -> str:
    shown = visible(text)
    return shown if len(shown) <= _LONGEST else f"{shown[:_LONGEST]} … ({len(shown) - _LONGEST:,} more characters)"
