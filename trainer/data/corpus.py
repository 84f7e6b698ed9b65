"""A corpus as the trainer sees it: row groups of Parquet files, and their rows in a seeded order.

The order of an epoch depends on the corpus, the seed and the epoch alone, so a position in it can be found again by any
number of ranks and workers.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing, store
from vpt_data.corpus import manifest, reader
from vpt_data.corpus.reader import DROPPED, ORIGINS, Shard
from vpt_data.errors import CorpusError, UsageError
from vpt_data.store import AnyPath

_TEXT: Final = ("id", "messages", "views", "image_info", "k", "take", "weight")
_GROUPS_AT_ONCE: Final = 16  # row groups that are shuffled together at most; one has 32 MB of distinct images


class Group(NamedTuple):
    """A row group and how many rows of it are wanted."""

    shard: Shard
    number: int
    rows: int


@dataclass(frozen=True)
class Images:
    """The images of a row group, read when the first of them is asked for: most of its bytes, and often not needed.

    `place` is its place in the order of the epoch, `rows` how many rows it has, of all takes.
    """

    group: Group
    place: int
    rows: int

    @cached_property
    def column(self) -> pa.Array:
        """list<struct<bytes, path>> of its rows; bytes that rows share are in memory once."""
        found = self.group.shard.row_group(self.group.number, ["images"], images=True)["images"].combine_chunks()
        if len(found) != self.rows:
            raise _changed(self.group.shard.name)
        return found


class Row(NamedTuple):
    """The text of a row, and where its images are."""

    fields: dict[str, Any]
    group: Images
    at: int

    @property
    def images(self) -> list[dict[str, Any]]:
        """The `images` of the row."""
        return self.group.column[self.at].as_py() or []


@dataclass(frozen=True)
class Corpus:
    """Row groups with their rows; `takes` are the takes to read (all if empty), `identity` is a name for the corpus."""

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
        position = place = 0
        for groups in self._windows(seed, epoch, window):
            count = sum(group.rows for group in groups)
            if position + count > start:
                yield from self._mixed(groups, place, seed, epoch, max(0, start - position))
            position, place = position + count, place + len(groups)

    def _windows(self, seed: int, epoch: int, window: int) -> Iterator[list[Group]]:
        names = pa.array([f"{group.shard.path.name}\0{group.number}" for group in self.groups], pa.string())
        gathered: list[Group] = []
        for place in _order(names, seed, epoch).tolist():
            gathered.append(self.groups[place])
            if len(gathered) == _GROUPS_AT_ONCE or sum(group.rows for group in gathered) >= window:
                yield gathered
                gathered = []
        if gathered:
            yield gathered

    def _mixed(self, groups: Sequence[Group], place: int, seed: int, epoch: int, skip: int) -> Iterator[Row]:
        tables = [group.shard.row_group(group.number, _TEXT) for group in groups]
        images = [
            Images(group, place + n, len(table)) for n, (group, table) in enumerate(zip(groups, tables, strict=True))
        ]
        kept = [np.flatnonzero(_wanted(table["take"], self.takes)) for table in tables]
        if any(len(rows) != group.rows for rows, group in zip(kept, groups, strict=True)):
            raise _changed(self.name)
        texts = pa.concat_tables([table.take(pa.array(rows)) for table, rows in zip(tables, kept, strict=True)])
        part, inside = np.repeat(np.arange(len(groups)), [len(rows) for rows in kept]), np.concatenate(kept)
        ranked = _order(texts["id"].combine_chunks(), seed, epoch)[skip:]
        for start in range(0, len(ranked), 256):
            some = ranked[start : start + 256]
            fields = texts.take(pa.array(some)).to_pylist()
            places = zip(part[some].tolist(), inside[some].tolist(), strict=True)
            yield from (Row(row, images[p], at) for row, (p, at) in zip(fields, places, strict=True))


def _order(names: pa.Array, seed: int, epoch: int) -> npt.NDArray[np.int64]:
    salted = pc.binary_join_element_wise(str(epoch), names, "\0")
    return np.argsort(hashing.seeded(salted, seed), kind="stable")


def _wanted(takes: pa.ChunkedArray, chosen: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which rows are of the chosen takes; of all of them if none is chosen."""
    return pc.is_in(takes, pa.array(chosen)).to_numpy() if chosen else np.ones(len(takes), np.bool_)


def _changed(name: str) -> CorpusError:
    return CorpusError(f"{name}: its shards changed while they were read; do not write to a corpus in use.")


def open_corpus(place: str, split: str = "train", takes: Sequence[str] = (), *, raw: Path | None = None) -> Corpus:
    """One split of a corpus (of its takes, if given) in a folder, an object store or on the Hub.

    place   output of `vpt-data build`, or a folder with shards alone. From an object store, or from the Hub
            (`hf://datasets/ORG/NAME[@REVISION]`), each row group is fetched when it is its turn
    raw     raw root that a corpus without pixels needs; given here only to say so at once
    """
    folder = store.at(place)
    made = reader.open_corpus(folder) if (folder / manifest.NAME).is_file() else None
    if made is not None and not made.embed and raw is None:
        raise UsageError(f"{place}: there are no pixels in this corpus; give its raw root with --raw")
    if made is not None and split not in made.manifest.splits:
        raise _no_split(place, split, made.manifest.splits)
    shards = made.shards(split) if made else _found(folder, split, place)
    groups = [group for shard in shards for group in _groups(shard, takes)]
    if not any(group.rows for group in groups):
        wanted = f"of the takes {', '.join(takes)} " if takes else ""
        raise CorpusError(f"{place}: no row {wanted}in the split {split}; choose others, see `vpt-data stats`.")
    listed = [[group.shard.path.name, group.number, group.rows] for group in groups]
    sizes = [shard.path.stat().st_size for shard in shards]
    facts = json.dumps([made.manifest.fingerprint if made else "", sizes, listed, sorted(takes)])
    identity = hashlib.sha256(facts.encode()).hexdigest()
    return Corpus(place, tuple(group for group in groups if group.rows), identity, tuple(takes))


def _found(folder: AnyPath, split: str, place: str) -> list[Shard]:
    """Shards of a folder without a manifest, in it or in its `data`; all of them if they name no split."""
    there = [file for pattern in ("*.parquet", "data/*.parquet") for file in folder.glob(pattern)]
    there = sorted((file for file in there if file.name not in (DROPPED, ORIGINS)), key=str)
    splits = {file.name.split("-")[0] for file in there if "-of-" in file.name}
    if not there:
        raise CorpusError(f"{place}: no Parquet file here or in its folder data; give a corpus of `vpt-data build`.")
    if splits and split not in splits:
        raise _no_split(place, split, splits)
    wanted = [file for file in there if not splits or file.name.startswith(f"{split}-")]
    return [Shard(file, split, embed=True) for file in wanted]


def _no_split(place: str, split: str, known: Iterable[str]) -> CorpusError:
    return CorpusError(f"{place}: no split {split}; choose one of {', '.join(sorted(known))}.")


def _groups(shard: Shard, takes: Sequence[str]) -> list[Group]:
    """The row groups of a shard, as its footer (and its column `take`) says."""
    with shard.opened() as file:
        if missing := [name for name in (*_TEXT, "images") if name not in file.schema_arrow.names]:
            raise CorpusError(
                f"{shard.name}: no column {missing[0]}, so this is no shard of samples; see docs/format.md."
            )
        rows = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        if takes:
            columns = (file.read_row_group(number, columns=["take"])["take"] for number in range(len(rows)))
            rows = [int(_wanted(column, takes).sum()) for column in columns]
    return [Group(shard, number, count) for number, count in enumerate(rows)]
