"""Decode a file of JSON records in constant memory: JSON lines or one JSON array, whatever its name.

Which way a file is read is decided by what is in it, in this order:

1. The first byte that is not blank is `{`: JSON lines (json_lines). It is `[`: one array (json_array).
2. A buffer of whole records is decoded by one msgspec call. In an array the end of the last whole record is guessed
   by the border between records (upstream/json_border); that holds for all of nearly every file.
3. If the guess is wrong, the brackets of the buffer are counted (json_brackets), and its elements are decoded at once.
4. If that fails, the records of this buffer are decoded one by one: a damaged one becomes a Drop, the others stay.
5. A record that a lost quote or bracket leaves open ends at the next border behind which whole records follow.

A large plain file is cut into windows before (upstream/rawfile); each is read like a small file.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np

from vpt_data.errors import RawError
from vpt_data.sources.reading.json_array import ArrayReader
from vpt_data.sources.reading.json_feed import Feed, Records
from vpt_data.sources.reading.json_lines import read_lines
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
        parts = ArrayReader(feed, kind).read() if first == b"[" else read_lines(feed, kind)
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
