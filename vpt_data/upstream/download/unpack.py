"""Archives into a folder: every member inside it, plain files and folders only, within limits, or nothing at all.

Python 3.11's own `extractall` writes outside its target for tar files, and renames such members in silence for zips.
Here a member that would leave the folder, a link, a device or a bomb refuses the archive as a whole.
"""

from __future__ import annotations

import gzip
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

from vpt_data import store
from vpt_data.errors import OutputError, RawError
from vpt_data.upstream.download import sniff

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What an archive may become: members, bytes in all, and bytes in all for each byte of the archive."""

    members: int = 5_000_000
    total: int = 2_000_000_000_000
    ratio: float = 200.0


class _Member(NamedTuple):
    """A file of an archive, by its path in the folder; `data` is to be read before the next member is asked for."""

    path: str
    size: int
    data: IO[bytes]


class _Unsafe(Exception):
    """Why an archive is refused."""


def unpack(archive: Path, folder: Path, name: str, limits: Limits = Limits()) -> list[str]:
    """Unpack a zip or tar file into `folder`, which is made again; returns what is directly in it, sorted.

    `name` is used in messages. Raises RawError, with nothing left in `folder`, for an archive that is damaged or
    unsafe; OutputError where the disk is full.
    """
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True)
        _unpack(archive, folder, limits)
    except _Unsafe as why:
        shutil.rmtree(folder, ignore_errors=True)
        raise RawError(f"{name}: {why}; the archive is refused as a whole, nothing of it was unpacked.") from None
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise RawError(
            f"{name}: the archive is damaged ({error}); remove it and run the same command again."
        ) from error
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        # gzip reports damage as an OSError without a number.
        if error.errno is None:
            raise RawError(f"{name}: the archive is damaged ({error}); remove it and run the command again.") from error
        raise OutputError(f"{name}: cannot be unpacked ({error.strerror}); free some space and try again.") from error
    return sorted(path.name for path in folder.iterdir())


def _unpack(archive: Path, folder: Path, limits: Limits) -> None:
    most = min(limits.total, int(max(archive.stat().st_size, 4096) * limits.ratio))
    seen: set[str] = set()
    written = 0
    members = _zip(archive, limits) if sniff.kind(archive.name) == "zip" else _tar(archive, limits)
    for member in members:
        if member.path in seen:
            raise _Unsafe(f"member {member.path!r} is in it twice")
        seen.add(member.path)
        if written + member.size > most:
            raise _Unsafe(f"it would become more than {most:,} bytes")
        target = folder / member.path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            shutil.copyfileobj(member.data, file, _CHUNK)
            # Both readers stop at the stated size, but a stored zip member may be shorter.
            if file.tell() != member.size:
                raise _Unsafe(f"member {member.path!r} has {file.tell():,} bytes, not the {member.size:,} it states")
        written += member.size
    if not seen:
        raise _Unsafe("it holds no files")


def _zip(archive: Path, limits: Limits) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        members = opened.infolist()
        if len(members) > limits.members:
            raise _Unsafe(f"it has {len(members):,} members, more than {limits.members:,}")
        for member in members:
            # orig_filename: `filename` was changed on reading (cut at NUL), which would hide a trick.
            path = _inside(member.orig_filename)
            kind = (member.external_attr >> 16) & 0o170000
            if kind not in {0, 0o100000, 0o040000}:
                raise _Unsafe(f"member {path!r} is a link or a device")
            if member.flag_bits & 1:
                raise _Unsafe(f"member {path!r} is encrypted")
            if path and not member.is_dir():
                with opened.open(member) as data:
                    yield _Member(path, member.file_size, data)


def _tar(archive: Path, limits: Limits) -> Iterator[_Member]:
    # Not tarfile's own decompression, which ends in a TypeError where the gzip header is cut.
    packed = sniff.kind(archive.name) == "gz"
    with (
        gzip.open(archive) if packed else archive.open("rb") as plain,
        tarfile.open(fileobj=plain, mode="r|") as opened,
    ):
        for count, member in enumerate(opened, 1):
            if count > limits.members:
                raise _Unsafe(f"it has more than {limits.members:,} members")
            path = _inside(member.name)
            if member.isdir():
                continue
            if not member.isreg() or member.issparse():
                raise _Unsafe(f"member {path!r} is a link, a device or sparse")
            data = opened.extractfile(member)
            assert data is not None  # it is a regular file
            with data:
                yield _Member(path, member.size, data)


def _inside(name: str) -> str:
    """The plain path of a member; `./` in front is customary in tar files, everything else odd is refused."""
    plain = name.removeprefix("./").rstrip("/")
    if plain in {"", "."}:
        return ""
    if not store.is_plain(plain):
        raise _Unsafe(f"member {name!r} would not be inside its folder")
    return plain


def check_free(folder: Path, names: list[str], ours: list[str], name: str) -> None:
    """OutputError where something that is not `ours` (of an earlier run that was killed) has one of the names."""
    for target in (folder / each for each in names if each not in ours):
        if target.exists() or target.is_symlink():
            raise OutputError(f"{target}: is there already; move it away to have {name} unpacked.")


def place(unpacked: Path, folder: Path, names: list[str]) -> None:
    """Move what was unpacked into `folder`, each of `names` in one step, in place of what has that name."""
    folder.mkdir(parents=True, exist_ok=True)
    for target in (folder / each for each in names):
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        (unpacked / target.name).replace(target)
    shutil.rmtree(unpacked)
