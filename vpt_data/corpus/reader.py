"""Read a corpus: its manifest, its shards row group by row group, its rows, the tables beside them.

A corpus is in a folder, an object store, or on the Hugging Face Hub; nothing is downloaded as a whole. Image bytes are
read only where they are asked for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import store
from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import Manifest, ShardRecord
from vpt_data.errors import CorpusError, unknown_name
from vpt_data.schema import DROP, ORIGIN, SAMPLE
from vpt_data.store import AnyPath, RemotePath

DROPPED: Final = "dropped.parquet"
ORIGINS: Final = "origins.parquet"
#: What pyarrow calls the bytes of images, and all that is read of `images` without them.
IMAGE_LEAF: Final = "images.list.element.bytes"
_PATH_LEAF: Final = "images.list.element.path"
#: Rows that are Python objects at the same time: images that rows share are copied for each of them.
_ROWS: Final = 64


@dataclass(frozen=True, slots=True)
class Shard:
    """One Parquet file of samples.

    embed    its image bytes are Parquet dictionaries: each distinct image of a row group once
    record   what the manifest says of it; None where there is no manifest
    """

    path: AnyPath
    split: str
    embed: bool
    record: ShardRecord | None = None

    @property
    def name(self) -> str:
        """Its path in the corpus, as the manifest has it; without a manifest its file name."""
        return self.record.file if self.record else self.path.name

    @contextmanager
    def opened(self, images: bool = False) -> Iterator[pq.ParquetFile]:
        """The file, for pyarrow; what it raises in the block becomes a CorpusError that names the file.

        images   image bytes come as an Arrow dictionary where the shard has them
        """
        leaves = [IMAGE_LEAF] if images and self.embed else []
        # Over a network a few large requests are faster than one for each column.
        remote = isinstance(self.path, RemotePath)
        try:
            with pq.ParquetFile(store.parquet_source(self.path), read_dictionary=leaves, pre_buffer=remote) as file:
                yield file
        except (OSError, pa.ArrowException, KeyError, json.JSONDecodeError) as error:
            raise CorpusError(f"{self.name}: not a readable shard ({error}); build or download it again.") from error

    def tables(self, columns: Sequence[str] | None = None, images: bool = False) -> Iterator[pa.Table]:
        """The row groups one by one, so that memory stays bounded; see `Corpus.tables`."""
        with self.opened(images) as file:
            for number in range(file.num_row_groups):
                yield file.read_row_group(number, columns=stored(columns, images))

    def row_group(self, number: int, columns: Sequence[str] | None = None, images: bool = False) -> pa.Table:
        """One row group; see `Corpus.tables`."""
        with self.opened(images) as file:
            return file.read_row_group(number, columns=stored(columns, images))

    def pick(self, rows: npt.NDArray[np.int64], columns: Sequence[str] | None = None, images: bool = False) -> pa.Table:
        """Some rows by their number in the shard, ascending; only the row groups that hold them are read."""
        found = []
        with self.opened(images) as file:
            sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
            start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
            group = np.searchsorted(start, rows, side="right") - 1
            for number in np.unique(group).tolist():
                read = file.read_row_group(number, columns=stored(columns, images))
                found.append(read.take(pa.array(rows[group == number] - start[number])))
        return pa.concat_tables(found)


@dataclass(frozen=True, slots=True)
class Corpus:
    """A finished corpus.

    >>> corpus = open_corpus("corpora/sample")  # doctest: +SKIP
    >>> corpus.manifest.splits["train"].rows  # doctest: +SKIP
    2000
    """

    place: AnyPath
    manifest: Manifest

    @property
    def embed(self) -> bool:
        """Whether the images are in the shards."""
        return self.manifest.mode == "embed"

    def shards(self, split: str | None = None) -> list[Shard]:
        """The shards of one split, or of all, in the order of the manifest; UsageError for an unknown split."""
        if split is not None and split not in self.manifest.splits:
            raise unknown_name(f"split of {self.place}", split, self.manifest.splits)
        return [
            Shard(self.place / shard.file, name, self.embed, shard)
            for name, part in self.manifest.splits.items()
            if split in {None, name}
            for shard in part.shards
        ]

    def tables(
        self, split: str | None = None, columns: Sequence[str] | None = None, images: bool = False
    ) -> Iterator[pa.Table]:
        """The rows, one Arrow table for each row group; a CorpusError names a damaged shard.

        split     one split; None: all of them, one after the other
        columns   names of columns (docs/format.md); None: all
        images    with the bytes of images, as an Arrow dictionary that holds each image of the row group once; without,
                  `images` has only the field `path`, and no pixels are read
        """
        for name in columns or ():
            if name not in SAMPLE.names:
                raise unknown_name("column", name, SAMPLE.names)
        for shard in self.shards(split):
            yield from shard.tables(columns, images)

    def rows(
        self, split: str | None = None, columns: Sequence[str] | None = None, images: bool = True
    ) -> Iterator[dict[str, Any]]:
        """The rows as Python values, read as they are asked for; images are bytes as they are stored, not decoded."""
        for table in self.tables(split, columns, images):
            for batch in table.to_batches(max_chunksize=_ROWS):
                yield from batch.to_pylist()

    def dropped(self) -> pa.Table:
        """The records that are not in the corpus, each with file, line, reason and detail (schema DROP)."""
        return self._side_table(DROPPED, DROP)

    def origins(self) -> pa.Table:
        """Which file and record each row comes from, and what was repaired in it (schema ORIGIN)."""
        return self._side_table(ORIGINS, ORIGIN)

    def _side_table(self, name: str, schema: pa.Schema) -> pa.Table:
        found = side_table(self.place, name, schema)
        if isinstance(found, str):
            raise CorpusError(f"{self.place}: {name}: {found}; build the corpus again.")
        return found


def open_corpus(place: str | AnyPath) -> Corpus:
    """The corpus in a folder, at `s3://BUCKET/PREFIX` (or another object store), or at `hf://datasets/ORG/NAME[@REVISION]`.

    Raises CorpusError where there is none, or its build has not finished, and UsageError for a URL nobody knows.
    """
    where = store.at(place) if isinstance(place, str) else place
    return Corpus(where, manifest.read(where))


def stored(columns: Sequence[str] | None, images: bool) -> list[str] | None:
    """The columns as pyarrow names them: of `images` only the path where no bytes are wanted."""
    if images:
        return None if columns is None else list(columns)
    return [_PATH_LEAF if name == "images" else name for name in (SAMPLE.names if columns is None else columns)]


def side_table(place: AnyPath, name: str, schema: pa.Schema) -> pa.Table | str:
    """A table beside the shards, or what is wrong with it."""
    try:
        table = pq.read_table(store.parquet_source(place / name), partitioning=None)
    except FileNotFoundError:
        return "not there"
    except (OSError, pa.ArrowException) as error:
        return f"not readable ({error})"
    return table if table.schema.equals(schema) else difference(table.schema, schema)


def difference(found: pa.Schema, expected: pa.Schema) -> str:
    """The first thing in which a schema differs from the one expected."""
    for field_expected in expected:
        if field_expected.name not in found.names:
            return f"no column {field_expected.name}"
        kind = found.field(field_expected.name).type
        if kind != field_expected.type:
            return f"column {field_expected.name} is {kind}, expected {field_expected.type}"
    extra = [name for name in found.names if name not in expected.names]
    return f"unknown column {extra[0]}" if extra else "columns in another order"
