"""One file of a raw root: opened decompressed, counted and hashed as it is read, whole or in windows.

A large plain JSON file is read in windows of about `WINDOW_BYTES`, so that several workers can share it. A window of a
JSON array is given its own brackets, so that a reader sees a smaller array of the same records.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import mmap
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from gzip import BadGzipFile
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple, cast

from vpt_data.errors import RawError
from vpt_data.store import AnyPath
from vpt_data.upstream.json_border import first_border, next_border

WINDOW_BYTES = 128 << 20
#: What a compressed file may become: so many times its size, and so many bytes in any case.
MOST_TIMES, ALWAYS_BYTES = 200, 256 << 20
#: What is read whole (COCO-format files, lists of images), and the longest line of a list.
MAX_WHOLE_BYTES, MAX_LINE_BYTES = 8 << 30, 1 << 20
#: How far from where a window should end a record may begin at most, or the file is read in one piece.
_REACH = 32 << 20
_HEAD = 1 << 20


class HashingReader(io.RawIOBase):
    """A binary file whose bytes are counted and hashed as they are read; `finish` reads what is left."""

    def __init__(self, path: AnyPath) -> None:
        self._file = cast("io.RawIOBase", path.open("rb", buffering=0))
        self._sha = hashlib.sha256()
        self.size = 0

    def readable(self) -> bool:
        """Always true; readers are never written to."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`, hashing what was read."""
        count = self._file.readinto(buffer) or 0
        self._sha.update(memoryview(buffer)[:count])
        self.size += count
        return count

    def finish(self) -> str:
        """Read to the end and return the sha256 of the whole file."""
        rest = memoryview(bytearray(1 << 20))
        while self.readinto(rest):
            pass
        return self._sha.hexdigest()

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


class Window(NamedTuple):
    """Bytes `start` to `end` of a file, with what makes them a file of their own."""

    start: int
    end: int
    before: bytes
    after: bytes


class Survey(NamedTuple):
    """A whole file: name, stored bytes, sha256, and lines before each place asked for."""

    file: str
    bytes: int
    sha256: str
    lines: list[int]


class _WindowReader(io.RawIOBase):
    """A window as a binary file."""

    def __init__(self, path: AnyPath, window: Window) -> None:
        self._file = cast("io.RawIOBase", path.open("rb", buffering=0))
        self._file.seek(window.start)
        self._left = window.end - window.start
        self._before, self._after = window.before, window.after

    def readable(self) -> bool:
        """Always true; readers are never written to."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` from what comes before, from the file, then from what comes after."""
        if self._before:
            count = _copy(self._before, buffer)
            self._before = self._before[count:]
        elif self._left:
            count = self._file.readinto(memoryview(buffer)[: self._left]) or 0
            self._left = self._left - count if count else 0
        else:
            count = _copy(self._after, buffer)
            self._after = self._after[count:]
        return count

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _copy(data: bytes, buffer: memoryview) -> int:
    count = min(len(data), len(buffer))
    buffer[:count] = data[:count]
    return count


@dataclass(slots=True)
class RawFile:
    """One file of a raw root: `name` is its posix path relative to the root without `.gz`."""

    path: AnyPath
    name: str
    size: int = 0
    sha256: str | None = None
    window: Window | None = None

    def open(self) -> BinaryIO:
        """Open for reading, decompressed; closing it completes `size` and `sha256` of the stored bytes.

        A window has neither: `survey` gives them.
        """
        try:
            if self.window is not None:
                return io.BufferedReader(_WindowReader(self.path, self.window), buffer_size=1 << 20)
            reader = HashingReader(self.path)
        except OSError as error:
            raise RawError(f"{self.name}: cannot be read ({error.strerror}); expected a file.") from error
        return _open_stream(self, reader)

    def survey(self, starts: list[int]) -> Survey:
        """Size and sha256 of the whole file, and how many lines end before each of the `starts` (ascending)."""
        sha, size, lines, counts = hashlib.sha256(), 0, 0, []
        pending = list(starts)
        with self.path.open("rb") as file:
            while block := file.read(4 << 20):
                while pending and pending[0] <= size + len(block):
                    counts.append(lines + block.count(b"\n", 0, pending.pop(0) - size))
                sha.update(block)
                size, lines = size + len(block), lines + block.count(b"\n")
        return Survey(self.name, size, sha.hexdigest(), counts)

    def windows(self) -> list[RawFile]:
        """The file in windows that hold whole records, or itself where it is small, compressed or cannot be cut."""
        # A remote file is read in one piece: its borders could only be found by fetching it.
        if not isinstance(self.path, Path) or self.path.stat().st_size < 2 * WINDOW_BYTES:
            return [self]
        with self.path.open("rb") as file, contextlib.ExitStack() as opened:
            try:
                data = opened.enter_context(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
            except OSError:
                return [self]  # there are fewer addresses than bytes
            head = data[:_HEAD]
            array = head.lstrip()[:1] == b"["
            border = first_border(head) if array else b"\n"
            if head[:2] == b"\x1f\x8b" or not border:
                return [self]
            gap = border.index(b"{") if array else 1
            cuts: list[int] = []
            near = WINDOW_BYTES
            while near < len(data) - WINDOW_BYTES // 2:
                reach = min(near + _REACH, len(data))
                at = next_border(data, border, near, reach, len(data)) if array else data.find(border, near, reach)
                if at < 0 and reach == len(data):
                    break
                if at < 0:
                    return [self]
                cuts.append(at)
                near = max(near, at + gap) + WINDOW_BYTES
            ends, starts = [at + 1 for at in cuts] + [len(data)], [0] + [at + gap for at in cuts]
        last = len(starts) - 1
        return [
            replace(self, window=Window(start, end, b"[" * (array and n > 0), b"]" * (array and n < last)))
            for n, (start, end) in enumerate(zip(starts, ends, strict=True))
        ]


def _open_stream(raw: RawFile, reader: HashingReader) -> BinaryIO:
    handled = sys.exc_info()[1]

    class Stream(io.BufferedReader):
        def close(self) -> None:
            # Where reading failed, nobody asks for the hash, and what is left may be very long.
            if not self.closed and sys.exc_info()[1] in {handled, None}:
                raw.sha256 = reader.finish()
                raw.size = reader.size
            super().close()

    stream = Stream(reader, buffer_size=1 << 20)
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return cast(BinaryIO, _Gunzip(stream, raw.name, raw.path.stat().st_size))
    return stream


class _Gunzip(gzip.GzipFile):
    """A decompressing reader that also closes (and so completes the hash of) the file below.

    It gives at most MOST_TIMES as many bytes as are stored: no annotations are that repetitive, and a small file could
    otherwise keep a build busy for days. Raises RawError beyond that.
    """

    def __init__(self, below: io.BufferedReader, name: str, stored: int) -> None:
        super().__init__(fileobj=below, mode="rb")
        self._below, self._called = below, name
        self._most = most_bytes(stored)

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes."""
        return self._counted(super().read(size))

    def read1(self, size: int = -1) -> bytes:
        """Up to `size` bytes, those of one read of the file below."""
        return self._counted(super().read1(size))

    def readline(self, size: int | None = -1) -> bytes:
        """A line, or its first `size` bytes."""
        return self._counted(super().readline(size))

    def _counted(self, data: bytes) -> bytes:
        if self.tell() > self._most:
            raise RawError(
                f"{self._called}: it expands to more than {self._most:,} bytes, which no annotations do; "
                "if it is what it should be, decompress it and remove the .gz file."
            )
        return data

    def close(self) -> None:
        super().close()
        self._below.close()


def most_bytes(stored: int) -> int:
    """How many bytes a compressed file of so many may become."""
    return max(MOST_TIMES * stored, ALWAYS_BYTES)


@contextlib.contextmanager
def in_memory(raw: RawFile) -> Iterator[None]:
    """Around what keeps all of a file in memory: RawError where it does not fit."""
    try:
        yield
    except MemoryError as error:
        what = "it has to be kept in memory as a whole, and there is too little; run on a larger machine."
        raise RawError(f"{raw.name}: {what}") from error


@contextlib.contextmanager
def whole(raw: RawFile) -> Iterator[IO[bytes]]:
    """Open a file of which a part is of no use: damaged compression is a RawError."""
    try:
        with raw.open() as stream:
            yield stream
    except (EOFError, zlib.error, BadGzipFile) as error:
        raise RawError(f"{raw.name}: cannot be decompressed ({error}); fetch the file again.") from error


def content(raw: RawFile) -> bytes:
    """All bytes of a file that can only be read whole; RawError for one that is damaged or too large for that."""
    parts, size = [], 0
    with whole(raw) as stream:
        while part := stream.read(4 << 20):
            size += len(part)
            if size > MAX_WHOLE_BYTES:
                raise RawError(f"{raw.name}: it has more than {MAX_WHOLE_BYTES:,} bytes, and is read whole; split it.")
            parts.append(part)
    return b"".join(parts)


def lines(raw: RawFile) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers from 1; RawError for one that is damaged or has an endless line."""
    with whole(raw) as stream:
        number = 0
        while line := stream.readline(MAX_LINE_BYTES):
            number += 1
            if len(line) == MAX_LINE_BYTES:
                raise RawError(
                    f"{raw.name} line {number}: it has {MAX_LINE_BYTES:,} bytes or more; fetch the file again."
                )
            yield number, line
