"""What is in a zip or tar file and where, from its headers alone; nothing is unpacked.

A tar is read header by header with `tarfile`, a zip from its central directory. Members that are no plain file, or
whose name would lead out of a folder, are counted and left out. Damage ends the list; what stands before it is kept.
`zipfile` cannot do that: it refuses a damaged directory as a whole, and keeps an object of 700 bytes for each member.
"""

from __future__ import annotations

import stat
import struct
import tarfile
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from vpt_data import store
from vpt_data.errors import RawError

STORED, DEFLATED, ENCRYPTED = 0, 8, -1

#: (offset, length) -> the bytes there, fewer at the end of the archive.
Read = Callable[[int, int], bytes]

_BLOCK = tarfile.BLOCKSIZE
_LONGEST_NAME = 1 << 16
_LARGEST = 1 << 62
_WINDOW = 4 << 20
_END = struct.Struct("<4s4H2LH")
_LOCATOR64 = struct.Struct("<4sLQL")
_END64 = struct.Struct("<4sQ2H2L4Q")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
#: Longest comment of a zip, and longest name, extra field and comment of a member together.
_COMMENT, _TAIL = 0xFFFF, 3 * 0xFFFF
_UNKNOWN32, _UNKNOWN16 = 0xFFFFFFFF, 0xFFFF


class Member(NamedTuple):
    """A file in an archive: UTF-8 name, where it begins, bytes there and unpacked, CRC-32 (-1: none), method.

    In a tar `start` is where the data begins, in a zip where the member's own header does.
    """

    name: bytes
    start: int
    stored: int
    size: int
    crc: int = -1
    method: int = STORED


@dataclass(slots=True)
class MemberList:
    """What was found in an archive, in columns (a tuple each of two million members would cost a gigabyte).

    skipped   members that are left out: links, devices, unsafe names
    problem   what is wrong with the archive from some point on; "" where nothing is
    """

    names: list[bytes] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("q"))
    skipped: int = 0
    problem: str = ""

    def add(self, member: Member) -> None:
        """Keep a plain file, unless its name is unsafe."""
        name = member.name
        while name.startswith(b"./"):
            name = name[2:].lstrip(b"/")
        if store.is_unsafe(name) or max(member[1:]) > _LARGEST:
            self.skipped += 1
        else:
            self.names.append(name)
            self.numbers.extend(member[1:])

    def last(self) -> str:
        """Where in the archive the list ends, for a message."""
        return f"behind {self.names[-1].decode(errors='replace')!r}" if self.names else "before its first file"


# tar


class _Headers:
    """The archive as `tarfile` reads it: it seeks from header to header, and reads nothing else."""

    def __init__(self, read: Read) -> None:
        self._read, self._at = read, 0

    def tell(self) -> int:
        """The position of the next byte."""
        return self._at

    def seek(self, position: int) -> int:
        """Go to a position from the start."""
        self._at = position
        return position

    def read(self, count: int) -> bytes:
        """Up to `count` bytes; a header that states more than a name can have is damaged."""
        if not 0 <= count <= _LONGEST_NAME:
            raise tarfile.HeaderError(f"a header says {count} bytes")
        data = self._read(self._at, count)
        self._at += len(data)
        return data


def scan_tar(name: str, read: Read, length: int) -> MemberList:
    """All plain files of an uncompressed tar of `length` bytes; raises RawError where it is no tar at all."""
    found = MemberList()
    tar: tarfile.TarFile | None = None
    try:
        tar = tarfile.TarFile(fileobj=_Headers(read), encoding="utf-8")  # type: ignore[arg-type]
        while (member := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined] # else it keeps a kilobyte a member
            holes = member.issparse() or any(key.startswith("GNU.sparse") for key in member.pax_headers)
            if member.isreg() and not holes:
                plain = member.name.encode("utf-8", "surrogateescape")
                found.add(Member(plain, member.offset_data, member.size, member.size))
            elif not member.isdir():
                found.skipped += 1
    except (tarfile.TarError, ValueError, OverflowError, RecursionError) as error:
        if tar is None:
            raise RawError(f"{name}: not a tar file ({error}); download it again.") from error
    # A damaged header behind the first one is to `tarfile` an end like any other: the real one is a block of zeros.
    if read(tar.offset, _BLOCK) != bytes(_BLOCK):
        cut = tar.offset + _BLOCK > length
        what = "the archive is cut" if cut else f"the archive is damaged at byte {tar.offset:,}"
        found.problem = f"{name}: {what} {found.last()}; get what is missing, or download it again"
    return found


# zip


class _Directory(NamedTuple):
    """Where the central directory is located, how many members it lists, and how many bytes stand before the zip."""

    start: int
    size: int
    members: int
    shift: int


def scan_zip(name: str, read: Read, length: int) -> MemberList:
    """All plain files of a zip of `length` bytes; raises RawError where its directory is gone."""
    found = MemberList()
    directory = _directory(name, read, length)
    data, at, fetched, seen = b"", 0, 0, 0
    while True:
        if len(data) - at < _CENTRAL.size + _TAIL and fetched < directory.size:
            more = read(directory.start + fetched, min(_WINDOW, directory.size - fetched))
            data, at, fetched = data[at:] + more, 0, directory.size if not more else fetched + len(more)
        if at == len(data):
            break
        after = _central(found, data, at, directory.shift)
        if after is None:
            break
        at, seen = after, seen + 1
    # The count has 16 bits where a writer knew no zip64.
    if seen & _UNKNOWN16 != directory.members & _UNKNOWN16 or at != len(data):
        found.problem = f"{name}: the directory of the zip is damaged {found.last()}; download it again"
    return found


def _directory(name: str, read: Read, length: int) -> _Directory:
    start = max(0, length - _END.size - _COMMENT)
    tail = read(start, length - start)
    at = tail.rfind(b"PK\5\6", 0, max(0, len(tail) - _END.size + 4))
    if at < 0:
        raise RawError(f"{name}: not a zip, or cut (it has no central directory at its end); download it again.")
    _, disk, _, _, count, size, offset, _ = _END.unpack_from(tail, at)
    end = start + at
    locator = read(max(0, end - _LOCATOR64.size), _LOCATOR64.size)
    if locator[:4] == b"PK\6\7" and len(locator) == _LOCATOR64.size:
        end = end - _LOCATOR64.size - _END64.size
        record = read(max(0, end), _END64.size)
        if record[:4] == b"PK\6\6" and len(record) == _END64.size:
            _, _, _, _, disk, _, _, count, size, offset = _END64.unpack(record)
    if disk not in {0, _UNKNOWN16} or end - size - offset < 0:
        what = "one of several disks" if disk not in {0, _UNKNOWN16} else "cut at its start, or damaged"
        raise RawError(f"{name}: the zip is {what}; expected a whole one: download it again, or extract it.")
    return _Directory(end - size, size, count, end - size - offset)


def _central(found: MemberList, data: bytes, at: int, shift: int) -> int | None:
    """Add the member whose entry begins at `at`, and say where the next begins; None where the entry is damaged."""
    if at + _CENTRAL.size > len(data) or data[at : at + 4] != b"PK\1\2":
        return None
    fields: tuple[int, ...] = _CENTRAL.unpack_from(data, at)[1:]
    made, _, flags, method, _, _, crc, stored, size, name_size, extra_size, note_size, _, _, mode, start = fields
    named = at + _CENTRAL.size
    extra = named + name_size
    after = extra + extra_size + note_size
    if after > len(data):
        return None
    name = data[named:extra]
    if _UNKNOWN32 in {stored, size, start}:
        size, stored, start = _wide(data[extra : extra + extra_size], size, stored, start)
    if name.endswith(b"/"):
        return after
    if made >> 8 == 3 and stat.S_IFMT(mode >> 16) not in {0, stat.S_IFREG}:
        found.skipped += 1
        return after
    if not flags & 0x800:
        name = _utf8(name)
    found.add(Member(name, start + shift, stored, size, crc, ENCRYPTED if flags & 1 else method))
    return after


def _utf8(name: bytes) -> bytes:
    """A name without the mark for UTF-8 is in the code page of DOS, or in UTF-8 all the same (most Unix tools)."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return name.decode("cp437").encode()
    return name


def _wide(extra: bytes, size: int, stored: int, start: int) -> tuple[int, int, int]:
    """The 64-bit numbers of a zip64 extra field, in place of those that did not fit into 32 bits."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = [number for (number,) in struct.iter_unpack("<Q", extra[at + 4 : at + 4 + length // 8 * 8])]
            values = [wide.pop(0) if value == _UNKNOWN32 and wide else value for value in (size, stored, start)]
            return values[0], values[1], values[2]
        at += 4 + length
    return size, stored, start
