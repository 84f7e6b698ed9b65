"""Shards: Parquet files of samples, written so that the same rows give the same bytes.

Images that rows of a group share are stored once, because the image leaf is a Parquet dictionary.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vpt_data import columns, store
from vpt_data.corpus import image_counts
from vpt_data.corpus.fingerprint import run, sample_hashes
from vpt_data.corpus.manifest import ShardRecord
from vpt_data.corpus.reader import IMAGE_LEAF, Shard
from vpt_data.corpus.row_groups import IMAGES_WITH_DICTIONARY, Bucket, Outcome, cut
from vpt_data.errors import CorpusError
from vpt_data.images.root import ImageRoot
from vpt_data.schema import SAMPLE
from vpt_data.store import AnyPath

T = TypeVar("T")
#: Columns of few values, where a dictionary saves space; elsewhere it would defeat content-defined chunking.
_FEW_VALUED = {
    "take", "source", "dataset", "split", "task", "template", "looks.list.element", "expected", "region_status",
    "messages.list.element.role", "views.list.element.encoder", "image_info.list.element.license",
    "image_info.list.element.attribution", "license", "language",
}  # fmt: skip
#: Bytes hashed and written at once. After each piece the interpreter's lock is asked for again, which the thread that
#: reads ahead may hold: pieces of 64 KiB made a build with one worker slower. Hashing in a third thread gained nothing.
_PIECE = 1 << 20
_CHUNKING = {"min_chunk_size": 256 << 10, "max_chunk_size": 1 << 20, "norm_level": 0}


@functools.cache
def _leaves(schema: pa.Schema) -> list[str]:
    sink = io.BytesIO()
    pq.ParquetWriter(sink, schema).close()
    parquet = pq.ParquetFile(sink).schema
    return [parquet.column(number).path for number in range(len(parquet))]


def writer_options(schema: pa.Schema = SAMPLE) -> dict[str, Any]:
    """Keyword arguments for `pq.ParquetWriter`: zstd text, untouched images, page index, content-defined chunks."""
    leaves = _leaves(schema)
    return {
        "compression": {leaf: "none" if leaf == IMAGE_LEAF else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in leaves if leaf in _FEW_VALUED or leaf == IMAGE_LEAF],
        # Above any group: the default limit is only checked every thousand rows and lets repeats through.
        "dictionary_pagesize_limit": 1 << 30,
        "write_page_index": True,
        "use_content_defined_chunking": _CHUNKING,
        # The image leaf is handed over as an Arrow dictionary; the schema that readers get is SAMPLE all the same.
        "store_schema": False,
    }


def _metadata(schema: pa.Schema) -> dict[bytes, bytes]:
    return {**(schema.metadata or {}), b"ARROW:schema": base64.b64encode(schema.serialize().to_pybytes())}


@dataclass(slots=True)
class ShardReport:
    """A shard that was written: its record, its rows, and what became of the rows that are not in it."""

    record: ShardRecord = field(default_factory=lambda: ShardRecord("", 0, 0, ""))
    outcome: Outcome = field(default_factory=Outcome)
    ids: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    hashes: pa.Array = field(default_factory=lambda: pa.array([], pa.binary(16)))
    images: pa.Table = field(default_factory=image_counts.IMAGES.empty_table)

    def run(self) -> pa.Table:
        """Ids and row hashes sorted by id, as `fingerprint` wants them."""
        return run(self.ids, self.hashes)


class _HashingSink(io.RawIOBase):
    """Passes bytes on to a file and hashes them, so that nothing is read back."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any) -> int:
        """Append and hash."""
        view = memoryview(data)
        for start in range(0, view.nbytes, _PIECE):
            piece = view[start : start + _PIECE]
            self.sha.update(piece)
            self._file.write(piece)
        self.size += view.nbytes
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size


@contextmanager
def ahead(items: Iterator[T]) -> Iterator[Iterator[T]]:
    """The same items in the same order; while one is used, a thread makes the next, and no more than that.

    What making an item raises is raised where the item would have come. The thread has ended when the block ends,
    also where not all items were taken.
    """
    end = object()

    def taken() -> Iterator[T]:
        coming = maker.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = maker.submit(next, items, end)
            yield cast("T", item)

    with ThreadPoolExecutor(1) as maker:
        yield taken()


def write_shard(
    path: AnyPath, bucket: Bucket, rows: npt.NDArray[np.int64], root: ImageRoot, embed: bool
) -> ShardReport:
    """Write the `rows` (as `bucket.ranked()` orders them) of a bucket as one shard.

    With `embed`, a row whose image is missing, broken or of another size is left out and reported. The file appears
    under its name only when it is whole.
    """
    report = ShardReport()
    groups = cut(bucket, rows, root, embed, report.outcome)
    with _writing(path, embed, report) as add, ahead(groups) as ready:
        for group in ready:
            add(group)
    return report


def rewrite_shard(source: Shard, path: AnyPath, change: Callable[[pa.Table], pa.Table]) -> ShardReport:
    """Write `change(rows)` of every row group of a shard to `path`; image bytes are copied as they are.

    With a change that does nothing the new file has the same bytes, given the same pyarrow.
    """
    report = ShardReport()
    with _writing(path, source.embed, report) as add:
        for rows in source.tables(images=True):
            if not rows.schema.remove_metadata().equals(_physical(source.embed)):
                raise CorpusError(
                    f"{source.path.name}: not the columns of a sample; run `vpt-data check` on the corpus."
                )
            add(change(rows).replace_schema_metadata(None))
    return report


@contextmanager
def _writing(path: AnyPath, embed: bool, report: ShardReport) -> Iterator[Callable[[pa.Table], None]]:
    """Takes finished row groups; the file appears under its name, and in `report`, when all went well."""
    ids, hashes, images = [report.ids], [report.hashes], []
    path.parent.mkdir(parents=True, exist_ok=True)
    with store.creating(path, durable=True) as file:
        sink = _HashingSink(file)
        # One Parquet writer over all groups: pyarrow closes nothing it was handed.
        with pq.ParquetWriter(pa.PythonFile(sink, "w"), _physical(embed), **writer_options()) as writer:

            def add(samples: pa.Table) -> None:
                writer.write_table(samples.combine_chunks(), row_group_size=len(samples))
                if isinstance(path, Path):
                    _let_go(file)
                ids.append(columns.column(samples, "id"))
                hashes.append(sample_hashes(samples))
                images.append(image_counts.images_of(samples))

            yield add
            writer.add_key_value_metadata(_metadata(SAMPLE))
    report.ids, report.hashes = pa.concat_arrays(ids), pa.concat_arrays(hashes)
    report.images = image_counts.of_shard(images, report.outcome.missing)
    report.record = ShardRecord(f"data/{path.name}", len(report.ids), sink.size, sink.sha.hexdigest())


def _let_go(file: BinaryIO) -> None:
    """Have the system write what is in a file on a disk now, and give its memory back.

    The last fsync is short then, and the pages serve the next group: a build of many gigabytes does not push the
    images it has still to read out of memory.
    """
    file.flush()
    if hasattr(os, "posix_fadvise"):  # not on macOS
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _physical(embed: bool) -> pa.Schema:
    """SAMPLE with the image leaf as a dictionary where there are images."""
    place = SAMPLE.get_field_index("images")
    return (SAMPLE.set(place, IMAGES_WITH_DICTIONARY) if embed else SAMPLE).remove_metadata()
