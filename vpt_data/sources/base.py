"""What a reader gets and gives: raw files in, annotation tables out, nothing lost on the way.

A reader is a generator `read(job) -> Iterator[Chunk]`. It opens files only through `RawFile.open` (which undoes gzip
and hashes what passes), decodes records into ANNOTATION columns, and says of every record it cannot use why not.
It never builds a prompt, never opens an image, never decides about quality: boxes stay as given, `key` stays null
unless the owner's id is unique.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from vpt_data.errors import RawError
from vpt_data.schema import Reason

if TYPE_CHECKING:
    from vpt_data.recipe import Take


class HashingReader(io.RawIOBase):
    """A binary file whose bytes are counted and hashed as they are read; `finish` reads what is left."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb", buffering=0)
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


@dataclass(slots=True)
class RawFile:
    """One file of a raw root: `name` is its posix path relative to the root without `.gz`."""

    path: Path
    name: str
    size: int = 0
    sha256: str | None = None

    def open(self) -> IO[bytes]:
        """Open for reading, decompressed; closing it completes `size` and `sha256` of the stored bytes."""
        try:
            reader = HashingReader(self.path)
        except OSError as error:
            raise RawError(f"{self.name}: cannot be read ({error.strerror}); expected a file.") from error
        return _open_stream(self, reader)


def _open_stream(raw: RawFile, reader: HashingReader) -> IO[bytes]:
    class Stream(io.BufferedReader):
        def close(self) -> None:
            if not self.closed:
                raw.sha256 = reader.finish()
                raw.size = reader.size
            super().close()

    stream = Stream(reader, buffer_size=1 << 20)
    if stream.peek(2)[:2] == b"\x1f\x8b":
        return _Gunzip(stream)
    return stream


class _Gunzip(gzip.GzipFile):
    """A decompressing reader that also closes (and so completes the hash of) the file below."""

    def __init__(self, below: io.BufferedReader) -> None:
        super().__init__(fileobj=below, mode="rb")
        self._below = below

    def close(self) -> None:
        super().close()
        self._below.close()


class Drop(NamedTuple):
    """A record that cannot be used: 0-based record index, 1-based line (None where lines mean nothing), reason."""

    row: int
    line: int | None
    reason: Reason
    detail: str
    dataset: str | None = None


class Chunk(NamedTuple):
    """Up to a few ten thousand records of one file, in file order.

    annotations  schema.ANNOTATION
    row          int64[N], 0-based record index in the main file, counting damaged records, not blank lines
    form         string[N] or None: the kind of record, for `forms` of a recipe (conversation, short, choice, ...)
    drops        the records of this stretch that are not in `annotations`
    """

    annotations: pa.Table
    row: np.ndarray
    form: pa.Array | None
    drops: list[Drop]
    line: np.ndarray | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One file to read, with the files it is joined to and the take options that matter to the reader.

    files   the main file under "rows", others under the role names of manifests/sources.toml
    take    the recipe entry (columns, box units, ... of own data); readers of fixed formats ignore it
    limit   read at most this many records
    """

    source: str
    dataset: str
    files: Mapping[str, RawFile]
    take: Take | None = None
    limit: int | None = None

    @property
    def rows(self) -> RawFile:
        """The main file."""
        return self.files["rows"]


@dataclass(frozen=True, slots=True)
class Source:
    """One upstream format: its reader, and whether its records are whole conversations (`turns`)."""

    read: Callable[[Job], Iterator[Chunk]]
    conversations: bool = False
    forms: tuple[str, ...] = ()
    own_files: bool = field(default=False)  # files are named in the recipe, not in manifests/sources.toml
