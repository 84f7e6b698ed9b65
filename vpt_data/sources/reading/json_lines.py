"""Read JSON lines from a byte feed: one record a line.

A block of whole lines is decoded by one msgspec call. Only if that fails is each of its lines decoded alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from vpt_data.sources.reading.json_feed import (
    BLANK,
    INSIDE,
    TOO_LONG,
    Feed,
    RecordCollector,
    Records,
    decode_one,
    only_bad,
)
from vpt_data.store import DECODE_ERRORS
from vpt_data.upstream.json_border import MAX_RECORD_BYTES


def read_lines(feed: Feed, kind: Any) -> Iterator[Records]:
    """Yield the records of each filled buffer as `kind`; a damaged line is a Drop."""
    many, one = msgspec.json.Decoder(kind), msgspec.json.Decoder(kind)
    row = 0
    while True:
        cut = feed.end if feed.ended else feed.buffer.rfind(b"\n", feed.start, feed.end) + 1
        if cut > feed.start:
            part = _decode_lines(feed, cut, many, one, row)
            row += len(part.values) + len(part.bad)
            feed.advance(cut)
            yield part
        elif feed.end - feed.start > MAX_RECORD_BYTES:
            yield only_bad(row, feed.line, TOO_LONG)
            return
        if feed.ended:
            break
        feed.fill()
    if feed.damage:
        yield only_bad(row, feed.line, f"truncated: {feed.damage}")


def _decode_lines(feed: Feed, cut: int, many: Any, one: Any, row: int) -> Records:
    """Decode the lines of `buffer[start:cut]`; a line that fails is malformed, a blank one is nothing."""
    block = memoryview(feed.buffer)[feed.start : cut]
    lines = feed.buffer.count(b"\n", feed.start, cut) + (block[-1] != 0x0A)
    try:
        values = many.decode_lines(block)
    except DECODE_ERRORS:
        values = None
    if values is not None and len(values) == lines:
        return Records(values, np.arange(row, row + lines), np.arange(feed.line, feed.line + lines), [])
    return _decode_each_line(bytes(block), one, row, feed.line, damaged=feed.damage is not None)


def _decode_each_line(block: bytes, one: Any, row: int, line: int, damaged: bool) -> Records:
    found = RecordCollector(row)
    texts = block.split(b"\n")
    for index, text in enumerate(texts):
        if not text.strip(BLANK):
            continue
        last = index == len(texts) - 1
        value, error = decode_one(one, text)
        if error is None:
            found.good(value, line + index)
        elif not (last and damaged):  # the caller reports the half line before damage, once
            cut_off = last and error == "Input data was truncated"
            found.bad(INSIDE if cut_off else error, line + index)
    return found.records()
