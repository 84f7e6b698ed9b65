"""Which files a repository shall hold: made from the corpora, with the hashes that their manifests state."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.reader import DROPPED, ORIGINS
from vpt_data.exchange.hub import card
from vpt_data.exchange.hub.layout import Part
from vpt_data.store import AnyPath


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of the repository.

    path     in the repository
    source   a file on the disk, or the bytes
    sha256   of a shard that of the manifest: it is read only when it is uploaded
    """

    path: str
    source: Path | bytes
    size: int
    sha256: str

    def git_id(self) -> str:
        """The name that git gives to a file with these bytes, by which the Hub lists small files."""
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


@dataclass(frozen=True)
class Content:
    """What a push makes of a repository with these corpora.

    repo      ORG/NAME
    raw       the raw root, for pictures of the card where the images are not in the shards
    allowed   image sets that may be handed on, and so be shown in the card, whatever their licence says
    """

    parts: list[Part]
    repo: str
    raw: AnyPath | None = None
    allowed: Collection[str] = ()

    @cached_property
    def files(self) -> dict[str, Entry]:
        """The files by path. The first look at them draws the cards: minutes where corpora are large."""
        pages = [_of_bytes(path, data) for path, data in card.pages(self.parts, self.repo, self.raw, self.allowed)]
        files = [entry for part in self.parts for entry in _of_corpus(part)]
        return {entry.path: entry for entry in (*pages, *files)}

    @property
    def rows(self) -> int:
        """Rows of all corpora."""
        return sum(split.rows for part in self.parts for split in part.manifest.splits.values())


def _of_corpus(part: Part) -> Iterator[Entry]:
    place = part.corpus.place
    assert isinstance(place, Path)
    yield _of_bytes(part.folder + manifest.NAME, (place / manifest.NAME).read_bytes())
    for name in (DROPPED, ORIGINS):
        yield Entry(part.folder + name, place / name, (place / name).stat().st_size, store.sha256(place / name))
    for shard in part.corpus.shards():
        assert shard.record is not None
        yield Entry(part.folder + shard.name, place / shard.name, shard.record.bytes, shard.record.sha256)


def _of_bytes(path: str, data: bytes) -> Entry:
    return Entry(path, data, len(data), hashlib.sha256(data).hexdigest())
