"""Decode a file of JSON records in constant memory: JSON lines or one JSON array, whatever its name.

A chunk of bytes is cut at record boundaries and decoded by one msgspec call. Only if that call fails are its
records decoded one by one, so that a damaged one becomes a Drop and the good ones around it stay.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from vpt_data.errors import RawError
from vpt_data.sources.reading.json_array import ArrayReader
from vpt_data.sources.reading.json_feed import (
    BLANK,
    INSIDE,
    MAX_RECORD_BYTES,
    TOO_LONG,
    Feed,
    Found,
    Records,
    decode_one,
    only_bad,
)
from vpt_data.store import DECODE_ERRORS
from vpt_data.upstream.rawfile import RawFile

__all__ = ["Records", "read_records"]

CHUNK_BYTES = 8 << 20  # 16 are slower: what is decoded no longer stays in the cache
_EXPECTED = "expected JSON lines or one JSON array."


def read_records(
    raw: RawFile, kind: Any, *, limit: int | None = None, chunk_bytes: int = CHUNK_BYTES
) -> Iterator[Records]:
    """Yield the records of `raw` as `kind`, a msgspec.Struct type; at most `limit`, damaged ones counted.

    The first byte that is not blank decides: `[` is one JSON array, `{` is JSON lines. A truncated file or a
    damaged gzip stream ends in one Drop whose detail begins with `truncated`. Raises RawError for a
    file that is empty or neither. A msgspec.Raw field of `kind` is a view that the next step makes invalid.
    """
    if limit is not None:  # a short look at a large file should not decode a whole chunk
        chunk_bytes = min(chunk_bytes, max(1 << 16, limit << 12))
    with raw.open() as stream:
        feed = Feed(stream, raw.name, chunk_bytes)
        first = feed.first_byte()
        if first == b"":
            found = f"it cannot be decompressed ({feed.damage})" if feed.damage else "the file is empty"
            raise RawError(f"{raw.name}: {found}; {_EXPECTED}")
        if first not in {b"[", b"{"}:
            raise RawError(f"{raw.name}: the file starts with {first!r}; {_EXPECTED}")
        parts = ArrayReader(feed, kind).read() if first == b"[" else _read_lines(feed, kind)
        yield from _limited(parts, limit if limit is not None else sys.maxsize)


def _limited(parts: Iterator[Records], limit: int) -> Iterator[Records]:
    """Parts that hold something, up to `limit` records in all."""
    seen = 0
    for part in parts:
        keep = int(np.searchsorted(part.row, limit))
        bad = [drop for drop in part.bad if drop.row < limit]
        if keep or bad:
            yield Records(part.values[:keep], part.row[:keep], part.line[:keep], bad)
        seen += len(part.values) + len(part.bad)
        if seen >= limit:
            return


def _read_lines(feed: Feed, kind: Any) -> Iterator[Records]:
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
    found = Found(row)
    texts = block.split(b"\n")
    for index, text in enumerate(texts):
        if not text.strip(BLANK):
            continue
        last = index == len(texts) - 1
        value, error = decode_one(one, text)
        if error is None:
            found.good(value, line + index)
        elif not (last and damaged):  # the half line before damage is told once, by the caller
            cut_off = last and error == "Input data was truncated"
            found.bad(INSIDE if cut_off else error, line + index)
    return found.records()
