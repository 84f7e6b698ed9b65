"""What is under RAW/.vpt-data: the lock file, the accepted licences, and the lock that keeps two downloads apart."""

from __future__ import annotations

import datetime
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

import msgspec

from vpt_data import store
from vpt_data.errors import OutputError, RawError
from vpt_data.upstream.download.entries import PRIVATE, Group

#: What a checksum was compared with: a manifest, the Hub's own record, or nothing yet.
Checked = Literal["manifest", "hub", "first use"]


class Recorded(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A file as it was when it was fetched or first seen; `mtime_ns` shows whether it was changed since.

    unpacked  what an archive left, as paths relative to the raw root; None while it has not been unpacked
    """

    url: str
    size: int
    sha256: str
    date: str
    checked: Checked
    mtime_ns: int
    etag: str | None = None
    revision: str | None = None
    unpacked: list[str] | None = None


class _Lock(msgspec.Struct, forbid_unknown_fields=True):
    version: Literal[1] = 1
    files: dict[str, Recorded] = {}
    hub: dict[str, str] = {}


class Accepted(msgspec.Struct, forbid_unknown_fields=True, frozen=True):
    """A licence that was accepted for a source, where its terms are, and when."""

    source: str
    license: str
    page: str
    date: str


_T = TypeVar("_T")


def _read(path: Path, kind: type[_T], empty: _T) -> _T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return empty
    except (msgspec.DecodeError, OSError) as error:
        raise RawError(
            f"{path}: cannot be read ({error}); repair it, or remove it to have every file recorded again."
        ) from error


def _write(path: Path, content: object) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        store.write(path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n", durable=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({error.strerror}).") from error


def today() -> str:
    """The date in UTC, as 2026-11-21."""
    return datetime.datetime.now(datetime.UTC).date().isoformat()


class Book:
    """The lock file of a raw root: what each downloaded file was, and which commit of a Hub repository was used."""

    def __init__(self, root: Path) -> None:
        self._path = root / PRIVATE / "downloads.json"
        self._lock = _read(self._path, _Lock, _Lock())

    def get(self, path: str) -> Recorded | None:
        """What is recorded of a file, by its path relative to the raw root."""
        return self._lock.files.get(path)

    def put(self, path: str, recorded: Recorded) -> None:
        """Record a file, on disk when this returns."""
        self._lock.files[path] = recorded
        _write(self._path, self._lock)

    def revision(self, repository: str) -> str | None:
        """The commit that files of a repository without a pinned revision were taken from first."""
        return self._lock.hub.get(repository)

    def pin(self, repository: str, revision: str) -> None:
        """Take the files still to come from the same commit."""
        self._lock.hub[repository] = revision
        _write(self._path, self._lock)


def accepted(root: Path) -> list[Accepted]:
    """The licences accepted for what was downloaded into a raw root, by source; [] where nothing was."""
    return _read(root / PRIVATE / "licenses.json", list[Accepted], [])


def accept(root: Path, group: Group) -> None:
    """Record that the licence of a source was accepted today; what was accepted before keeps its date."""
    known = accepted(root)
    if not has_accepted(known, group):
        rest = [each for each in known if each.source != group.name]
        new = Accepted(group.name, group.license, group.page, today())
        _write(root / PRIVATE / "licenses.json", sorted([*rest, new], key=lambda each: each.source))


def has_accepted(known: list[Accepted], group: Group) -> bool:
    """Whether this very licence (identifier and page) was accepted for a source."""
    return (group.name, group.license, group.page) in {(each.source, each.license, each.page) for each in known}


@contextmanager
def alone(root: Path) -> Iterator[None]:
    """Hold a raw root for one download; the system lets go of it when the process ends, however it ends."""
    try:
        (root / PRIVATE).mkdir(parents=True, exist_ok=True)
        lock = (root / PRIVATE / "lock").open("w")
    except OSError as error:
        raise OutputError(f"{root}: cannot be used as a raw root ({error.strerror}).") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise OutputError(f"{root}: another download is at work in this raw root; wait for it.") from error
        for left in (root / PRIVATE).glob("*.tmp"):  # of a download that was killed
            left.unlink()
        store.remove_tree(root / PRIVATE / "unpack")
        yield
