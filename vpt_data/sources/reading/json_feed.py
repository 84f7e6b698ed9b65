"""What the readers of JSON lines and of JSON arrays share: a byte feed and a list of what was found."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from gzip import BadGzipFile
from typing import IO, Any, NamedTuple

import numpy as np

from vpt_data.errors import RawError
from vpt_data.schema import Reason
from vpt_data.sources.base import Drop
from vpt_data.store import DECODE_ERRORS
from vpt_data.upstream.json_border import MAX_RECORD_BYTES

BLANK = b" \t\r\n"
INSIDE = "truncated: the file ends inside a record"
TOO_LONG = f"truncated: no record ends within {MAX_RECORD_BYTES} bytes, the rest of the file is not read"
_READ_BYTES = 256 << 10  # a damaged gzip stream loses what one read call has gathered, so reads are small


class Records(NamedTuple):
    """The records of one chunk of a file.

    values  decoded records
    row     int64[len(values)], 0-based index in the file; damaged records count, blank lines do not
    line    int64[len(values)], 1-based line on which the record starts
    bad     damaged records (Reason.MALFORMED)
    """

    values: list[Any]
    row: np.ndarray
    line: np.ndarray
    bad: list[Drop]

    def without(self, problems: Mapping[int, str], datasets: Mapping[int, str] | None = None) -> Records:
        """The same, with `values[i]` malformed for each `i` of `problems`, which says why."""
        if not problems:
            return self
        keep = np.array([index not in problems for index in range(len(self.values))], dtype=np.bool_)
        bad = [
            Drop(int(self.row[i]), int(self.line[i]), Reason.MALFORMED, detail, (datasets or {}).get(i))
            for i, detail in problems.items()
        ]
        values = [value for index, value in enumerate(self.values) if index not in problems]
        return Records(values, self.row[keep], self.line[keep], sorted([*self.bad, *bad], key=_row))


def _row(drop: Drop) -> int:
    return drop.row


class Feed:
    """The unread bytes of a file: `buffer[start:end]`, with one spare byte before and after.

    `line` is the 1-based line of `buffer[start]`. The buffer is replaced by one twice as long when it
    is full of one record.
    """

    def __init__(self, stream: IO[bytes], name: str, chunk_bytes: int) -> None:
        self._stream = stream
        self._name = name
        self.buffer = bytearray(chunk_bytes + 2)
        self.start = self.end = 1
        self.line = 1
        self.ended = False
        self.damage: str | None = None

    def first_byte(self) -> bytes:
        """Skip a byte order mark and blanks; the byte that is then at `start`, or b"" if there is none."""
        self.fill()
        if self.buffer[self.start : self.start + 3] == b"\xef\xbb\xbf":
            self.start += 3
        while True:
            blank = self.rest()
            content = blank.lstrip(BLANK)
            self.advance(self.end - len(content))
            if content or self.ended:
                return content[:1]
            self.fill()

    def rest(self) -> bytes:
        """A copy of the unread bytes that are in the buffer."""
        return bytes(memoryview(self.buffer)[self.start : self.end])

    def array(self) -> np.ndarray:
        """uint8 view of the unread bytes that are in the buffer."""
        return np.frombuffer(self.buffer, dtype=np.uint8)[self.start : self.end]

    def advance(self, position: int) -> None:
        """Count `buffer[start:position]` as read."""
        self.line += self.buffer.count(b"\n", self.start, position)
        self.start = position

    def fill(self) -> None:
        """Move the unread bytes to the front and read until the buffer is full or the file ends."""
        rest = self.rest()
        if len(rest) + 2 >= len(self.buffer):
            self.buffer = bytearray(2 * len(self.buffer))
        self.start, self.end = 1, 1 + len(rest)
        self.buffer[1 : self.end] = rest
        view = memoryview(self.buffer)
        while not self.ended and self.end < len(view) - 1:
            self.end += self._read(view[self.end : min(self.end + _READ_BYTES, len(view) - 1)])

    def _read(self, into: memoryview) -> int:
        try:
            count = self._stream.readinto1(into)  # type: ignore[attr-defined]
        except (EOFError, zlib.error, BadGzipFile) as error:
            self.damage = str(error)
            count = 0
        except OSError as error:
            raise RawError(f"{self._name}: cannot be read ({error.strerror}); expected a file.") from error
        self.ended = count == 0
        return int(count)


def decode_one(one: Any, text: bytes | memoryview) -> tuple[Any, str | None]:
    """The decoded value, or what is wrong with it."""
    try:
        return one.decode(text), None
    except DECODE_ERRORS as error:
        return None, str(error)


class RecordCollector:
    """Collects good and bad records one by one, numbering both."""

    def __init__(self, row: int) -> None:
        self.row = row
        self._values: list[Any] = []
        self._rows: list[int] = []
        self._lines: list[int] = []
        self._bad: list[Drop] = []

    def good(self, value: Any, line: int) -> None:
        """Add a decoded record."""
        self._values.append(value)
        self._rows.append(self.row)
        self._lines.append(line)
        self.row += 1

    def bad(self, detail: str, line: int) -> None:
        """Add a damaged one."""
        self._bad.append(Drop(self.row, line, Reason.MALFORMED, detail))
        self.row += 1

    def records(self) -> Records:
        """Everything added so far."""
        rows, lines = np.array(self._rows, dtype=np.int64), np.array(self._lines, dtype=np.int64)
        return Records(self._values, rows, lines, self._bad)


def only_bad(row: int, line: int, detail: str) -> Records:
    """One damaged record and nothing else."""
    found = RecordCollector(row)
    found.bad(detail, line)
    return found.records()
