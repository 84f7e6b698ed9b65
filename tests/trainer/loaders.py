"""What the tests of the data path share: a tokenizer, rows made by hand, shards of them, what a sample must be."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from trainer.data.encode import SYSTEM, RowEncoder
from trainer.data.sample import IGNORE, Sample
from trainer.model.tiny import tiny_tokenizer, tiny_vision
from vpt_data.dialogue.tokens import label_names, placeholders
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.schema import SAMPLE

TEXT, REGION, X, Y, ACTION = map(label_names().index, ("text", "region", "x", "y", "action"))
TEXTS = ["What is on the left of the red sign? A dog.\nAnswer the question.", "user assistant system You are helpful"]
PAD = {"vlm": "<|image_pad|>", **{name: entry.image_pad for name, entry in ENCODERS.items()}}


@functools.cache
def tokenizer(encoder: str = "dino", k: int = 8) -> Tokenizer:
    found: Tokenizer = tiny_tokenizer(TEXTS, encoder, k).backend_tokenizer
    return found


def row_encoder(encoder: str = "dino", **options: Any) -> RowEncoder:
    k = options.get("k", 8)
    return RowEncoder(tokenizer(encoder, k), tiny_vision(), **{"cutoff": 512, **options})


def row(id: str, *turns: str, views: Sequence[Mapping[str, Any]] = (), system: str | None = None) -> dict[str, Any]:
    """A sample row with user and assistant turns in turn; its images are 80 x 60 and have no bytes."""
    roles = ["user", "assistant"] * len(turns)
    messages = [{"role": role, "content": text} for role, text in zip(roles, turns, strict=False)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    seen = [{"image": 0, "encoder": "vlm", "box": None, "cells": None, **view} for view in views]
    count = 1 + max((view["image"] for view in seen), default=-1)
    info = {"width": 80, "height": 60, "sha256": None, "license": None, "attribution": None}
    empty = dict.fromkeys(SAMPLE.names)
    return {
        **empty,
        "id": id,
        "take": id.split("/")[0],
        "split": "train",
        "looks": [],
        "messages": messages,
        "views": seen,
        "images": [{"bytes": None, "path": f"{id}-{n}.png"} for n in range(count)],
        "image_info": [info] * count,
        "answers": [],
        "regions": [],
        "k": 8,
        "weight": 1.0,
    }


def talks(count: int, takes: Sequence[str] = ("a", "b", "c")) -> list[dict[str, Any]]:
    """Rows without images and of very different lengths; the takes lie one behind the other."""
    each = -(-count // len(takes))
    asked = [f"What is number {n}? " + "Look at the sign. " * (n * 7 % 13) for n in range(count)]
    return [row(f"{takes[n // each]}/{n}", asked[n], "It is " + "red " * (n % 5)) for n in range(count)]


def write_shards(folder: Path, rows: Sequence[dict[str, Any]], files: int = 3, group: int = 10) -> Path:
    """Shards without a manifest, with row groups of `group` rows."""
    folder.mkdir(parents=True, exist_ok=True)
    each = -(-len(rows) // files)
    for number in range(files):
        table = pa.Table.from_pylist(list(rows[number * each : (number + 1) * each]), schema=SAMPLE)
        pq.write_table(table, folder / f"train-{number:05d}-of-{files:05d}.parquet", row_group_size=group)
    return folder


def rendered(found: Mapping[str, Any], lengths: Iterable[int], system: str | None = SYSTEM) -> str:
    """The row in the Qwen2-VL chat template, the n-th placeholder as `lengths[n]` pads."""
    messages = list(found["messages"])
    if system is not None and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": system})
    text = "\n".join(f"<|im_start|>{message['role']}\n{message['content']}<|im_end|>" for message in messages)
    pads = iter([PAD[view["encoder"]] * length for view, length in zip(found["views"], lengths, strict=True)])
    marks = "|".join(map(re.escape, placeholders().values()))
    return re.sub(marks, lambda _: f"<|vision_start|>{next(pads)}<|vision_end|>", text)


def expected_class(token: str) -> int:
    for pattern, kind in ((r"<\|region_token", REGION), (r"<\|x_", X), (r"<\|y_", Y), (r"<\|[a-z]+_action", ACTION)):
        if re.match(pattern, token):
            return kind
    return TEXT


def verify(sample: Sample, found: Mapping[str, Any], words: Tokenizer) -> None:
    """All that must hold for the sample of a row, read off its text alone."""
    lengths = [tiny_vision().tokens(slot.kind, shown_size(found, n))[0] for n, slot in enumerate(sample.slots)]
    text = rendered(found, lengths)
    ids, tokens = sample.input_ids.tolist(), [words.id_to_token(token) for token in sample.input_ids.tolist()]
    assert words.decode(ids, skip_special_tokens=False) == text
    answers = [message["content"] for message in found["messages"] if message["role"] == "assistant"]
    if not any(answer[:1].isspace() for answer in answers):
        assert ids == words.encode(text, add_special_tokens=False).ids
    controls = [entry.control for entry in ENCODERS.values()]
    spoken = "".join(answer + "<|im_end|>" for answer in answers)
    for control in controls:
        spoken = spoken.replace(control, "")
    assert words.decode(sample.input_ids[sample.labels != IGNORE].tolist(), skip_special_tokens=False) == spoken
    assert sample.classes.tolist() == [expected_class(token) for token in tokens]
    covered = [control.at + number for control in sample.controls for number in range(control.count)]
    assert covered == [at for at, token in enumerate(tokens) if token in controls]
    assert all(ENCODERS[control.kind].control == tokens[control.at] for control in sample.controls)
    assert [slot.kind for slot in sample.slots] == [view["encoder"] for view in found["views"]]
    covered = [at for slot in sample.slots for at in range(slot.start, slot.start + slot.length)]
    assert covered == [at for at, token in enumerate(tokens) if token in PAD.values()]
    assert all(tokens[slot.start] == PAD[slot.kind] for slot in sample.slots)
    grids = [slot.grid for slot in sample.slots if slot.grid is not None]
    assert [grid[0] * grid[1] * grid[2] // 4 for grid in grids] == [
        k.length for k in sample.slots if k.grid is not None
    ]
    verify_first_user(sample, tokens)


def shown_size(found: Mapping[str, Any], number: int) -> tuple[int, int]:
    view = found["views"][number]
    if view["box"] is not None:
        return view["box"][2] - view["box"][0], view["box"][3] - view["box"][1]
    info = found["image_info"][view["image"]]
    return info["width"], info["height"]


def verify_first_user(sample: Sample, tokens: list[str]) -> None:
    start, end = sample.first_user
    assert tokens[start : start + 2][0] == "<|im_start|>"
    assert "".join(tokens[start + 1 :]).startswith("user")
    assert "<|im_start|>" not in tokens[:start] or tokens[:start].count("<|im_start|>") == 1
    starts = [entry.start for entry in ENCODERS.values()]
    called = [at for at, token in enumerate(tokens) if token in starts]
    assert end == (called[0] if called else tokens.index("<|im_end|>", start) + 1)
