"""Files read in place from a zip or a plain tar, whole or cut into parts, through a cached index.

The index is made from headers alone and kept as an Arrow file under the user's cache folder. It is sorted by the hash
of each member's name without extension and mapped into memory, so that two million members cost no Python objects.
"""

from __future__ import annotations

import io
import os
import posixpath
import threading
import weakref
import zlib
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import numpy as np
import pyarrow as pa
import xxhash

from vpt_data import store
from vpt_data.columns import column
from vpt_data.errors import RawError
from vpt_data.images.archive_members import DEFLATED, ENCRYPTED, STORED, Member, MemberList, scan_tar, scan_zip
from vpt_data.store import AnyPath, RemotePath

#: The extensions a download may have given to the same picture, in order of trust.
EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif")
#: A member that would be larger is no picture.
MAX_MEMBER_BYTES = 1 << 30
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd"}
_NUMBERS = ("start", "stored", "size", "crc", "method")
_INDEX = pa.schema([("key", pa.uint64()), ("name", pa.large_binary()), *((name, pa.int64()) for name in _NUMBERS)])
_VERSION = 1
_WINDOW = 1 << 16


class _Source:
    """The bytes of an archive, which may be in several files; threads may read at once."""

    def __init__(self, files: Sequence[AnyPath]) -> None:
        self.files = files
        stats = [file.stat() for file in files]
        self.made_from = [(_absolute(f), s.st_size, s.st_mtime_ns) for f, s in zip(files, stats, strict=True)]
        self._starts = [0, *accumulate(stat.st_size for stat in stats)]
        self._opened: dict[int, int | pa.NativeFile] = {}
        self._lock = threading.Lock()

    @property
    def length(self) -> int:
        """Bytes of all files."""
        return self._starts[-1]

    def read(self, start: int, length: int) -> bytes:
        """The bytes from `start`, fewer than `length` at the end."""
        pieces = []
        while length > 0 and start < self.length:
            part = bisect_right(self._starts, start) - 1
            data = self._read(part, start - self._starts[part], min(length, self._starts[part + 1] - start))
            self._check_same(part)
            if not data:  # the file has become shorter since
                break
            pieces.append(data)
            start, length = start + len(data), length - len(data)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _check_same(self, part: int) -> None:
        """RawError where a file on a disk is another one than the index was made from: the places in it are wrong."""
        file = self.files[part]
        if isinstance(file, RemotePath):
            return  # a request for each image would cost more than it is worth
        try:
            now = file.stat()
        except FileNotFoundError:
            now = None
        if now is None or (now.st_size, now.st_mtime_ns) != self.made_from[part][1:]:
            raise RawError(
                f"{file.name}: the archive was changed while it was in use; run the same command with --retry-dropped "
                "once it stays as it is."
            )

    def _read(self, part: int, start: int, length: int) -> bytes:
        opened = self._opened.get(part)
        if opened is None:
            with self._lock:
                opened = self._opened.get(part)
                if opened is None:
                    opened = self._opened[part] = self._open(self.files[part])
        return (
            os.pread(opened, length, start) if isinstance(opened, int) else cast(bytes, opened.read_at(length, start))
        )

    def _open(self, file: AnyPath) -> int | pa.NativeFile:
        if isinstance(file, RemotePath):
            return file.random_access()
        opened = os.open(file, os.O_RDONLY)
        # Never closed earlier: another thread may be reading.
        weakref.finalize(self, os.close, opened)
        return opened


def _absolute(file: AnyPath) -> str:
    return str(file) if isinstance(file, RemotePath) else str(file.absolute())


class Archive:
    """A zip or tar file whose members can be found and read. `name` is how messages call it.

    problem   what is wrong with it from some point on, as a sentence without its full stop; "" where nothing is
    skipped   members that are left out: links, devices, unsafe names

    Raises RawError for what is neither a zip nor a plain tar, OSError where it cannot be read.
    """

    def __init__(self, name: str, files: Sequence[AnyPath], problem: str = "") -> None:
        if not files:
            raise RawError(f"{problem}; get what is missing.")
        self.name = name
        self._source = _Source(files)
        index = _index(name, self._source)
        head = _head(index)
        self.skipped, self.problem = head.skipped, problem or head.problem
        self._keys = column(index, "key").to_numpy()
        self._names = column(index, "name")
        self._numbers = [column(index, name).to_numpy() for name in _NUMBERS]

    def __len__(self) -> int:
        return len(self._keys)

    def find(self, name: str) -> Member | None:
        """The member of a name, else of that name with another extension of EXTENSIONS or in other case; or None."""
        stem, extension = posixpath.splitext(name.encode(errors="surrogateescape"))
        at = int(np.searchsorted(self._keys, np.uint64(_key(stem))))  # any other type converts all keys
        best: tuple[int, int] | None = None
        for place in self._same(at):
            held, ending = posixpath.splitext(self._names[place].as_py())
            if held != stem:
                continue
            rank = _rank(ending, extension)
            # The last of several members of one name is the one that unpacking would leave.
            if rank is not None and (best is None or rank <= best[0]):
                best = (rank, place)
        if best is None:
            return None
        return Member(self._names[best[1]].as_py(), *(int(numbers[best[1]]) for numbers in self._numbers))

    def _same(self, at: int) -> Iterator[int]:
        key = self._keys[at] if at < len(self._keys) else None
        while at < len(self._keys) and self._keys[at] == key:
            yield at
            at += 1

    def names(self) -> Iterator[str]:
        """The names of all members, in no order that means anything."""
        for name in self._names:
            yield name.as_py().decode(errors="surrogateescape")

    def read(self, member: Member) -> bytes:
        """A member's bytes, complete and with the right checksum; else RawError."""
        self._check(member)
        data = self._source.read(self._begin(member), member.stored)
        if len(data) < member.stored:
            raise self._cut()
        if member.method == DEFLATED:
            inflater = zlib.decompressobj(-zlib.MAX_WBITS)
            try:
                data = inflater.decompress(data, member.size + 1)
            except zlib.error as error:
                raise self._damaged() from error
        if len(data) != member.size or (member.crc >= 0 and zlib.crc32(data) != member.crc):
            raise self._damaged()
        return data

    def open(self, member: Member) -> BinaryIO:
        """A member as a file that fetches only as much as is read of it, unchecked; reading may raise RawError."""
        self._check(member)
        return io.BufferedReader(_Contents(self, self._source, member, self._begin(member)), _WINDOW)

    def _check(self, member: Member) -> None:
        if member.method == ENCRYPTED:
            raise RawError(f"{self.name} keeps this image encrypted; extract it with its password.")
        if member.method not in {STORED, DEFLATED}:
            raise RawError(f"{self.name} keeps this image compressed by method {member.method}; extract it.")
        if max(member.size, member.stored) > MAX_MEMBER_BYTES:
            raise RawError(f"{self.name} says this image has {member.size:,} bytes; at most {MAX_MEMBER_BYTES:,} do.")

    def _begin(self, member: Member) -> int:
        """Where a member's data begins: in a zip after a header whose length only the header states."""
        if member.crc < 0:
            return member.start
        header = self._source.read(member.start, 30)
        if len(header) < 30:
            raise self._cut()
        if header[:4] != b"PK\3\4":
            raise self._damaged()
        return member.start + 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")

    def _cut(self) -> RawError:
        return RawError(f"{self.name}: the archive is cut before the end of this image; download it again.")

    def _damaged(self) -> RawError:
        return RawError(f"{self.name}: the archive is damaged at this image; download it again.")


def _rank(held: bytes, wanted: bytes) -> int | None:
    """How well an extension stands for the one that is asked for, 0 best; None where it does not."""
    if held == wanted:
        return 0
    ranks = (wanted.lower(), *(extension.encode() for extension in EXTENSIONS)) if wanted else ()
    return 1 + ranks.index(held.lower()) if held.lower() in ranks else None


class _Contents(io.RawIOBase):
    """A member's bytes from first to last, fetched as they are read."""

    def __init__(self, archive: Archive, source: _Source, member: Member, begin: int) -> None:
        self._archive, self._source = archive, source
        self._next, self._end = begin, begin + member.stored
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS) if member.method == DEFLATED else None

    def readable(self) -> bool:
        """Always true."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer`, or a part of it."""
        data = self._fetched(len(buffer)) if self._inflater is None else self._inflated(self._inflater, len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _inflated(self, inflater: zlib._Decompress, wanted: int) -> bytes:
        data = b""
        while not data and not inflater.eof:
            packed = inflater.unconsumed_tail or self._fetched(wanted)
            try:
                data = inflater.decompress(packed, wanted)
            except zlib.error as error:
                raise self._archive._damaged() from error
            if not packed:
                break
        return data

    def _fetched(self, wanted: int) -> bytes:
        wanted = min(wanted, self._end - self._next)
        data = self._source.read(self._next, wanted)
        if len(data) < wanted:
            raise self._archive._cut()
        self._next += len(data)
        return data


# The index


class _Head(msgspec.Struct):
    """What an index is of, and what else is known of the archive; `digest` is of all that and of the columns."""

    version: int
    made_from: list[tuple[str, int, int]]
    skipped: int
    problem: str
    digest: str = ""


def cache_folder() -> Path:
    """Where indexes are kept: `archives` in this package's part of the user's cache folder."""
    return store.cache() / "archives"


def _index(name: str, source: _Source) -> pa.Table:
    """The index of an archive, from the cache if the one there is of these very files."""
    where = "\0".join(path for path, _, _ in source.made_from)
    path = cache_folder() / f"{xxhash.xxh3_128_hexdigest(where.encode())}.arrow"
    known = _cached(path)
    if known is not None and _head(known).made_from == source.made_from:
        return known
    table = _table(_scan(name, source), source)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write_arrow(path, table)
    except OSError:
        return table  # a cache that cannot be written costs time at the next start, nothing else
    # Mapped from the file, it is no memory of this process.
    known = _cached(path)
    return known if known is not None and _head(known) == _head(table) else table


def _scan(name: str, source: _Source) -> MemberList:
    magic = source.read(0, 4)
    if (kind := _COMPRESSED.get(magic[:2])) is not None:
        raise RawError(f"{name}: a tar compressed by {kind} cannot be read in place; extract it into its folder.")
    how = scan_zip if magic[:2] == b"PK" else scan_tar
    return how(name, source.read, source.length)


def _table(found: MemberList, source: _Source) -> pa.Table:
    keys = np.fromiter((_key(posixpath.splitext(name)[0]) for name in found.names), np.uint64, len(found.names))
    order = np.argsort(keys, kind="stable")
    numbers = np.frombuffer(found.numbers, np.int64).reshape(-1, len(_NUMBERS))[order]
    names = pa.array(found.names, pa.large_binary()).take(pa.array(order))
    columns = [pa.array(keys[order]), names, *(pa.array(numbers[:, n]) for n in range(len(_NUMBERS)))]
    head = _Head(_VERSION, source.made_from, found.skipped, found.problem)
    table = pa.table(columns, schema=_INDEX)
    head.digest = _digest(table, head)
    return table.replace_schema_metadata({"archive": msgspec.json.encode(head)})


def _key(stem: bytes) -> int:
    return xxhash.xxh3_64_intdigest(stem)


def _head(table: pa.Table) -> _Head:
    return msgspec.json.decode(table.schema.metadata[b"archive"], type=_Head)


def _cached(path: Path) -> pa.Table | None:
    """An index as it was written, or None: one that is damaged, or of another version, is made again."""
    try:
        table = store.read_arrow(path)
        head = _head(table)
        if head.version != _VERSION or not table.schema.equals(_INDEX):
            return None
        table.validate(full=True)
        whole = not any(held.null_count for held in table.columns) and _digest(table, head) == head.digest
    except (OSError, pa.ArrowException, LookupError, ValueError, TypeError, msgspec.MsgspecError):
        return None
    return table if whole else None


def _digest(table: pa.Table, head: _Head) -> str:
    made = xxhash.xxh3_128(msgspec.json.encode([head.version, head.made_from, head.skipped, head.problem]))
    _, starts, data = column(table, "name").buffers()
    ends = np.frombuffer(starts, np.int64)[: len(table) + 1]
    made.update(ends.data)
    made.update(np.frombuffer(data or b"", np.uint8)[: ends[-1]].data)
    for name in ("key", *_NUMBERS):
        made.update(column(table, name).to_numpy().data)
    return made.hexdigest()
