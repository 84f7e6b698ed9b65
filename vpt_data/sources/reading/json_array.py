"""Read one JSON array of records from a byte feed.

Where the complete records of a buffer end is guessed first: at the last border like the one between the first two
records (upstream/json_border.py). If msgspec decodes all up to there as an array, the guess was right:
text that ends inside a string or a nested object is not JSON. Else the buffer is scanned for its brackets.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

from vpt_data.sources.reading.json_brackets import NEWLINE, Spans, scan
from vpt_data.sources.reading.json_feed import (
    BLANK,
    INSIDE,
    TOO_LONG,
    Feed,
    RecordCollector,
    Records,
    decode_one,
)
from vpt_data.store import DECODE_ERRORS
from vpt_data.upstream.json_border import MAX_RECORD_BYTES, border_behind, next_border

_OPEN = "truncated: the file ends before the closing bracket"
_ANYTHING = msgspec.json.Decoder(msgspec.Raw)


class ArrayReader:
    """Reads one JSON array; between rounds the feed stands between two elements."""

    def __init__(self, feed: Feed, kind: Any) -> None:
        self._feed = feed
        self._many, self._one = msgspec.json.Decoder(list[kind]), msgspec.json.Decoder(kind)
        self._row = 0
        self._first = True  # no element yet, so no comma is due
        self._border = b""  # what stood between two records, once that is known

    def read(self) -> Iterator[Records]:
        """Yield the records of each filled buffer, then what is wrong with the end of the array."""
        feed = self._feed
        feed.advance(feed.start + 1)
        while True:
            guess = self._guess()
            if guess is not None:
                yield self._counted(guess)
                feed.fill()
                continue
            spans = scan(feed.array())
            if len(spans.starts):
                self._learn(spans)
                part, position = self._elements(spans)
                yield self._counted(part)
                whole = position == feed.start + int(spans.ends[-1])
                feed.advance(position)
                if not whole:
                    continue
                spans = spans.shifted()
            if spans.stop >= 0:
                closed = feed.buffer[feed.start + spans.stop] == 0x5D
                yield self._counted(self._stop(spans.stop, closed))
                if closed:
                    yield self._counted(self._after())
                    return
            elif not feed.ended and feed.end - feed.start <= MAX_RECORD_BYTES:
                feed.fill()
            elif spans.unfinished >= 0 and (next_one := self._next(feed.start + spans.unfinished, feed.end)) > 0:
                yield self._counted(self._skipped(next_one))
            else:
                yield self._counted(self._unfinished(spans.unfinished))
                return

    def _counted(self, part: Records) -> Records:
        self._row += len(part.values) + len(part.bad)
        return part

    def _learn(self, spans: Spans) -> None:
        """Remember what stands between two records."""
        if len(spans.starts) > 1:
            feed = self._feed
            self._border = border_behind(feed.buffer, feed.start + int(spans.ends[0])) or self._border

    def _guess(self) -> Records | None:
        """Decode up to the last border of the buffer; None, and nothing read, if that fails."""
        feed, border = self._feed, self._border
        cut = feed.buffer.rfind(border, feed.start, feed.end) if border else -1
        if cut < 0 or not feed.buffer.startswith(border[1:], feed.start):
            return None
        values = self._decode_all(feed.start + border.index(b"{") - 1, cut + 1)
        lines = None if values is None else self._lines(len(values), cut + 1)
        if values is None or lines is None:
            return None
        row = np.arange(self._row, self._row + len(values))
        feed.advance(cut + 1)
        return Records(values, row, lines, [])

    def _lines(self, count: int, end: int) -> np.ndarray | None:
        """The lines of `count` records that a border precedes; None if there are not as many borders."""
        feed = self._feed
        breaks = np.flatnonzero(feed.array()[: end - feed.start] == NEWLINE)
        if not len(breaks):
            return np.full(count, feed.line)
        borders = re.finditer(re.escape(self._border[1:]), memoryview(feed.buffer)[feed.start : end])
        starts = np.fromiter((found.start() for found in borders), dtype=np.int64)
        if len(starts) != count:
            return None
        return feed.line + np.searchsorted(breaks, starts + self._border.index(b"{") - 1)

    def _elements(self, spans: Spans) -> tuple[Records, int]:
        """Decode the complete elements, all at once if all are good; and where the rest begins."""
        feed, begin = self._feed, self._feed.start
        start, end = begin + int(spans.starts[0]), begin + int(spans.ends[-1])
        found = RecordCollector(self._row)
        self._gap(found, feed.buffer[begin:start], feed.line, last=False)
        self._first = False
        values = self._decode_all(start, end) if (feed.array()[spans.starts] == 0x7B).all() else None
        if values is None or len(values) != len(spans.starts):
            return self._each(found, spans)
        row = np.arange(found.row, found.row + len(values))
        return Records(values, row, feed.line + spans.lines, found.records().bad), end

    def _decode_all(self, start: int, end: int) -> list[Any] | None:
        """Decode `buffer[start:end]` as an array, borrowing the bytes around it for the brackets."""
        buffer = self._feed.buffer
        before, after = buffer[start - 1], buffer[end]
        buffer[start - 1], buffer[end] = 0x5B, 0x5D
        try:
            return list(self._many.decode(memoryview(buffer)[start - 1 : end + 1]))
        except DECODE_ERRORS:
            return None
        finally:
            buffer[start - 1], buffer[end] = before, after

    def _each(self, found: RecordCollector, spans: Spans) -> tuple[Records, int]:
        """Decode one element after the other, up to one that is no JSON and holds the begin of the next."""
        begin, line = self._feed.start, self._feed.line
        view = memoryview(self._feed.buffer)[begin:]
        previous = int(spans.starts[0])
        for start, end, breaks in zip(*(part.tolist() for part in spans[:3]), strict=True):
            if start > previous:
                gap = bytes(view[previous:start])
                self._gap(found, gap, line + breaks - gap.count(b"\n"), last=False)
            value, error = decode_one(self._one, view[start:end])
            if error is None and view[start] != 0x7B:
                error = "Expected `object`, got `array`"
            if error is None:
                found.good(value, line + breaks)
            else:
                found.bad(error, line + breaks)
                after = self._next(begin + start, begin + end)
                if after > 0 and not _is_json(view[start:end]):
                    return found.records(), after
            previous = end
        return found.records(), begin + previous

    def _gap(self, found: RecordCollector, text: bytes | bytearray, line: int, *, last: bool) -> None:
        """What stands between two elements is one comma; anything else is a damaged record, or several.

        `line` is where `text` begins.
        """
        line += text[: len(text) - len(text.lstrip(BLANK + b","))].count(b"\n")
        text = bytes(text).strip(BLANK)
        if text == (b"" if self._first or last else b","):
            return
        body = text if self._first else text.removeprefix(b",")
        body = body if last else body.removesuffix(b",")
        try:
            elements = msgspec.json.decode(b"[" + body + b"]", type=list[msgspec.Raw])
        except DECODE_ERRORS:
            elements = []
        for element in elements:
            found.bad(decode_one(self._one, element)[1] or "Expected `object`", line)
        if not elements:
            found.bad(f"{_quoted(text)} stands where one comma should between two records", line)

    def _stop(self, stop: int, closed: bool) -> Records:
        """Judge what stands before the bracket that closes the array, or up to one that closes nothing."""
        feed, found = self._feed, RecordCollector(self._row)
        text = feed.buffer[feed.start : feed.start + stop + (not closed)]
        self._gap(found, text, feed.line, last=True)
        self._first = False
        feed.advance(feed.start + stop + 1)
        return found.records()

    def _after(self) -> Records:
        """Read on to the end of the file: nothing but blanks may follow the array."""
        feed, found = self._feed, RecordCollector(self._row)
        while not found.row > self._row:
            text = feed.rest().lstrip(BLANK)
            feed.advance(feed.end - len(text))
            if text:
                found.bad(f"{_quoted(text)} stands after the end of the array", feed.line)
            feed.advance(feed.end)
            if feed.ended:
                break
            feed.fill()
        if feed.damage:
            found.bad(f"truncated: {feed.damage}", feed.line)
        return found.records()

    def _next(self, start: int, end: int) -> int:
        """The comma before what looks like another element in `buffer[start:end]`; -1 if there is none."""
        feed = self._feed
        return next_border(feed.buffer, self._border[1:], start, end, feed.end, certain=False) if self._border else -1

    def _skipped(self, position: int) -> Records:
        """Give up an element that a lost quote or bracket leaves open, up to where the next one begins."""
        feed, found = self._feed, RecordCollector(self._row)
        text = bytes(feed.buffer[feed.start : position]).lstrip(BLANK + b",")
        feed.advance(position - len(text))
        found.bad(decode_one(self._one, text)[1] or "JSON is malformed", feed.line)
        feed.advance(position)
        return found.records()

    def _unfinished(self, start: int) -> Records:
        """Say of the bytes that no bracket closes, up to the end of the file, what they are."""
        feed, found = self._feed, RecordCollector(self._row)
        if start > 0:
            self._gap(found, feed.buffer[feed.start : feed.start + start], feed.line, last=False)
            feed.advance(feed.start + start)
        inside = feed.rest().strip(BLANK) not in {b"", b","}
        detail = f"truncated: {feed.damage}" if feed.damage else INSIDE if inside else _OPEN
        found.bad(detail if feed.ended else TOO_LONG, feed.line)
        return found.records()


def _is_json(text: memoryview) -> bool:
    return decode_one(_ANYTHING, text)[1] is None


def _quoted(text: bytes) -> str:
    return repr(text[:60].decode(errors="replace"))
