"""A corpus as the trainer sees it: row groups of Parquet files, and their rows in a seeded order.

The order of an epoch depends on the corpus, the seed and the epoch alone, so a position in it can be found again by any
number of ranks and workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpt_data import hashing, store
from vpt_data.corpus import manifest
from vpt_data.errors import CorpusError, UsageError
from vpt_data.store import AnyPath

HUB: Final = "hf://datasets/"
_NEEDED: Final = ("id", "messages", "views", "images", "image_info", "k", "take", "weight")
_PIXELS: Final = "images.list.element.bytes"
_NO_SHARDS: Final = ("dropped.parquet", "origins.parquet")
_GROUPS_AT_ONCE: Final = 16  # row groups that are shuffled together at most; one has 32 MB of distinct images


class Group(NamedTuple):
    """A row group and how many rows of it are wanted."""

    file: AnyPath
    number: int
    rows: int


class Row(NamedTuple):
    """A row without its images, and where these are: list<struct<bytes, path>> in Arrow, so that none is copied yet."""

    fields: dict[str, Any]
    pictures: pa.Array
    at: int

    @property
    def images(self) -> list[dict[str, Any]]:
        """The `images` of the row."""
        return self.pictures[self.at].as_py() or []


@dataclass(frozen=True)
class Corpus:
    """Row groups with their rows; `takes` are the wanted ones (all if empty), `identity` tells it from any other."""

    name: str
    groups: tuple[Group, ...]
    identity: str
    takes: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        """Rows of an epoch."""
        return sum(group.rows for group in self.groups)

    def stream(self, seed: int, epoch: int, start: int = 0, window: int = 16_384) -> Iterator[Row]:
        """The rows of an epoch from position `start`, in the order of (seed, epoch).

        Row groups come in a seeded order; the rows of some together (about `window` of them) are mixed.
        """
        position = 0
        for groups in self._windows(seed, epoch, window):
            count = sum(group.rows for group in groups)
            if position + count > start:
                yield from self._mixed(groups, seed, epoch, max(0, start - position))
            position += count

    def _windows(self, seed: int, epoch: int, window: int) -> Iterator[list[Group]]:
        names = pa.array([f"{group.file.name}\0{group.number}" for group in self.groups], pa.string())
        gathered: list[Group] = []
        for place in _order(names, seed, epoch).tolist():
            gathered.append(self.groups[place])
            if len(gathered) == _GROUPS_AT_ONCE or sum(group.rows for group in gathered) >= window:
                yield gathered
                gathered = []
        if gathered:
            yield gathered

    def _mixed(self, groups: Sequence[Group], seed: int, epoch: int, skip: int) -> Iterator[Row]:
        tables = [_read(group, self.takes) for group in groups]
        texts = pa.concat_tables([table.drop_columns(["images"]) for table in tables])
        pictures = [table["images"].combine_chunks() for table in tables]
        del tables
        if any(len(found) != group.rows for found, group in zip(pictures, groups, strict=True)):
            raise CorpusError(f"{self.name}: its shards changed while they were read; do not write to a corpus in use.")
        lengths = [len(found) for found in pictures]
        part = np.repeat(np.arange(len(groups)), lengths)
        inside = np.concatenate([np.arange(length) for length in lengths])
        ranked = _order(texts["id"].combine_chunks(), seed, epoch)[skip:]
        for start in range(0, len(ranked), 256):
            some = ranked[start : start + 256]
            fields = texts.take(pa.array(some)).to_pylist()
            places = zip(part[some].tolist(), inside[some].tolist(), strict=True)
            yield from (Row(row, pictures[p], at) for row, (p, at) in zip(fields, places, strict=True))


def _order(names: pa.Array, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    salted = pc.binary_join_element_wise(str(epoch), names, "\0")
    return np.argsort(hashing.seeded(salted, seed), kind="stable")


def _read(group: Group, takes: Sequence[str]) -> pa.Table:
    """The columns that training needs; an image that rows share is in memory once."""
    with _opened(group.file, read_dictionary=[_PIXELS]) as shard:
        table = shard.read_row_group(group.number, columns=list(_NEEDED))
    return table.filter(pc.is_in(table["take"], pa.array(takes))) if takes else table


def _opened(file: AnyPath, **options: Any) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(store.readable(file), **options)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{file.name}: not a readable shard ({error}); build or download it again.") from error


def open_corpus(place: str, split: str = "train", takes: Sequence[str] = (), *, raw: Path | None = None) -> Corpus:
    """One split of a corpus (of its takes, if given) in a folder, an object store or on the Hub.

    place   output of `vpt-data build`, or a folder with shards alone; `hf://datasets/ORG/NAME[@REVISION]` is downloaded
    raw     raw root that a corpus without pixels needs; given here only to say so at once
    """
    folder = _downloaded(place, split) if place.startswith(HUB) else store.at(place)
    made = manifest.read(folder) if (folder / manifest.NAME).is_file() else None
    if made is not None and made.mode == "reference" and raw is None:
        raise UsageError(f"{place}: there are no pixels in this corpus; give its raw root with --raw")
    files = _built(made, folder, split, place) if made else _found(folder, split, place)
    groups: list[Group] = []
    for file in files:
        groups += _groups(file, takes)
    if not any(group.rows for group in groups):
        wanted = f"of the takes {', '.join(takes)} " if takes else ""
        raise CorpusError(f"{place}: no row {wanted}in the split {split}; choose others, see `vpt-data stats`.")
    said = [[group.file.name, group.number, group.rows] for group in groups]
    sizes = [file.stat().st_size for file in files]
    facts = json.dumps([made.fingerprint if made else "", sizes, said, sorted(takes)])
    identity = hashlib.sha256(facts.encode()).hexdigest()
    return Corpus(place, tuple(group for group in groups if group.rows), identity, tuple(takes))


def _built(made: manifest.Manifest, folder: AnyPath, split: str, place: str) -> list[AnyPath]:
    if split not in made.splits:
        raise _no_split(place, split, made.splits)
    return [folder / shard.file for shard in made.splits[split].shards]


def _found(folder: AnyPath, split: str, place: str) -> list[AnyPath]:
    """Shards of a folder without a manifest, in it or in its `data`; all of them if they name no split."""
    there = [file for pattern in ("*.parquet", "data/*.parquet") for file in folder.glob(pattern)]
    there = sorted((file for file in there if file.name not in _NO_SHARDS), key=str)
    splits = {file.name.split("-")[0] for file in there if "-of-" in file.name}
    if not there:
        raise CorpusError(f"{place}: no Parquet file here or in its folder data; give a corpus of `vpt-data build`.")
    if splits and split not in splits:
        raise _no_split(place, split, splits)
    return [file for file in there if not splits or file.name.startswith(f"{split}-")]


def _no_split(place: str, split: str, known: Iterable[str]) -> CorpusError:
    return CorpusError(f"{place}: no split {split}; choose one of {', '.join(sorted(known))}.")


def _groups(file: AnyPath, takes: Sequence[str]) -> list[Group]:
    """The row groups of a file, as its footer (and its column `take`) says."""
    with _opened(file) as shard:
        if missing := [name for name in _NEEDED if name not in shard.schema_arrow.names]:
            raise CorpusError(
                f"{file.name}: no column {missing[0]}, so this is no shard of samples; see docs/format.md."
            )
        rows = [shard.metadata.row_group(number).num_rows for number in range(shard.num_row_groups)]
        if takes:
            columns = (shard.read_row_group(number, columns=["take"])["take"] for number in range(len(rows)))
            rows = [pc.sum(pc.is_in(column, pa.array(takes))).as_py() or 0 for column in columns]
    return [Group(file, number, count) for number, count in enumerate(rows)]


def _downloaded(place: str, split: str) -> Path:
    """The local copy of a Hub dataset: its manifest and the shards of one split."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    name, _, revision = place.removeprefix(HUB).strip("/").partition("@")
    patterns = [manifest.NAME, f"{split}-*.parquet", f"*/{split}-*.parquet"]
    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision or None, allow_patterns=patterns))
    except (HfHubHTTPError, LocalEntryNotFoundError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CorpusError(f"{place}: cannot be downloaded ({reason}); log in, or check the name.") from error
