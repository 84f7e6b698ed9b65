"""Find the elements of a JSON array in a stretch of bytes, with numpy alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

QUOTE, BACKSLASH, NEWLINE = 0x22, 0x5C, 0x0A
_STEP = np.zeros(256, dtype=np.int8)
_STEP[[0x5B, 0x7B]] = 1
_STEP[[0x5D, 0x7D]] = -1


class Spans(NamedTuple):
    """Where the elements of an array are in a stretch of bytes that begins between two of them.

    starts, ends  int64[N], half open; an unfinished last element has no span
    lines         int64[N], line breaks before each start
    stop          position of the bracket that closes the array (or of one that closes nothing), else -1
    unfinished    position where an element starts that does not end, else -1
    """

    starts: np.ndarray
    ends: np.ndarray
    lines: np.ndarray
    stop: int
    unfinished: int

    def shifted(self) -> Spans:
        """What is left after the last complete element, counted from its end."""
        end, none = int(self.ends[-1]), self.starts[:0]
        stop = self.stop - end if self.stop >= 0 else -1
        unfinished = self.unfinished - end if self.unfinished >= 0 else -1
        return Spans(none, none, none, stop, unfinished)


def scan(text: np.ndarray) -> Spans:
    """Find the elements; brackets in strings do not count, nor do escaped quotes.

    >>> scan(np.frombuffer(b'{"a": "}"}, {"b": [', np.uint8))._replace(lines=0)
    Spans(starts=array([0]), ends=array([10]), lines=0, stop=-1, unfinished=12)
    """
    fold = text | np.uint8(0x20)  # maps [ to { and ] to }, and nothing else to either
    at = np.flatnonzero((text == QUOTE) | (text == NEWLINE) | (fold == 0x7B) | (fold == 0x7D))
    byte = text[at]
    quote = byte == QUOTE
    quote[_escaped(text, at, quote)] = False
    step = _STEP[byte]
    step[(np.cumsum(quote) & 1).astype(np.bool_)] = 0
    depth = np.cumsum(step, dtype=np.int32)
    stops = np.flatnonzero(depth < 0)
    stop = -1
    if len(stops):
        first = int(stops[0])
        stop = int(at[first])
        at, byte, step, depth = at[:first], byte[:first], step[:first], depth[:first]
    opening = np.flatnonzero((step == 1) & (depth == 1))
    ends = at[(step == -1) & (depth == 0)] + 1
    starts = at[opening]
    unfinished = int(starts[-1]) if len(starts) > len(ends) else -1
    opening = opening[: len(ends)]
    lines = np.cumsum(byte == NEWLINE)[opening] if len(opening) else opening
    return Spans(starts[: len(ends)], ends, lines, stop, unfinished)


def _escaped(text: np.ndarray, at: np.ndarray, quote: np.ndarray) -> np.ndarray:
    """Indices into `at` of the quotes that follow an odd run of backslashes."""
    after = np.flatnonzero(quote & (at > 0) & (text[at - 1] == BACKSLASH))
    if not len(after):
        return after
    slashes = np.flatnonzero(text == BACKSLASH)
    runs = slashes[np.flatnonzero(np.diff(slashes, prepend=-2) != 1)]
    position = at[after]
    run = runs[np.searchsorted(runs, position) - 1]
    odd = (position - run) & 1 == 1
    return np.asarray(after[odd])
