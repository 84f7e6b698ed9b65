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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpt_data import columns, hashing
from vpt_data.errors import CorpusError
from vpt_data.groups import IMAGES_WITH_DICTIONARY, Bucket, Outcome, cut
from vpt_data.images import ImageRoot
from vpt_data.schema import SAMPLE

_IMAGE_LEAF = "images.list.element.bytes"
#: Columns of few values, where a dictionary saves space; elsewhere it would defeat content-defined chunking.
_FEW_VALUED = {
    "take", "source", "dataset", "split", "task", "template", "looks.list.element", "expected", "region_status",
    "messages.list.element.role", "views.list.element.encoder", "image_info.list.element.license",
    "image_info.list.element.attribution", "license", "language",
}  # fmt: skip
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
        "compression": {leaf: "none" if leaf == _IMAGE_LEAF else "zstd" for leaf in leaves},
        "use_dictionary": [leaf for leaf in leaves if leaf in _FEW_VALUED or leaf == _IMAGE_LEAF],
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
    """What a finished shard is: its file, its rows, and what became of the rows that are not in it."""

    rows: int = 0
    bytes: int = 0
    sha256: str = ""
    outcome: Outcome = field(default_factory=Outcome)
    ids: pa.Array = field(default_factory=lambda: pa.array([], pa.string()))
    hashes: pa.Array = field(default_factory=lambda: pa.array([], pa.binary(16)))


class _HashingSink(io.RawIOBase):
    """A file that is hashed while it is written, so that nothing is read back."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")
        self.sha = hashlib.sha256()
        self.size = 0

    def writable(self) -> bool:
        """Always true."""
        return True

    def write(self, data: Any) -> int:
        """Append and hash."""
        view = memoryview(data)
        self.sha.update(view)
        self.size += view.nbytes
        self._file.write(view)
        return view.nbytes

    def tell(self) -> int:
        """Bytes written so far."""
        return self.size

    def finish(self) -> None:
        """Flush to the disk and close."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()

    def abandon(self) -> None:
        """Close without caring."""
        self._file.close()


def write_shard(path: Path, bucket: Bucket, rows: npt.NDArray[np.int64], root: ImageRoot, embed: bool) -> ShardReport:
    """Write the `rows` (as `bucket.ranked()` orders them) of a bucket as one shard.

    With `embed`, a row whose image is missing, broken or of another size is left out and reported. The file appears
    under its name only when it is whole.
    """
    report = ShardReport()
    with _writing(path, embed, report) as add:
        for group in cut(bucket, rows, root, embed, report.outcome):
            add(group)
    return report


def rewrite_shard(source: Path, path: Path, embed: bool, change: Callable[[pa.Table], pa.Table]) -> ShardReport:
    """Write `change(rows)` of every row group of a shard to `path`; image bytes are copied as they are.

    With a change that does nothing the new file has the same bytes, given the same pyarrow.
    """
    report = ShardReport()
    with _writing(path, embed, report) as add:
        for rows in row_groups(source, embed):
            add(change(rows).replace_schema_metadata(None))
    return report


@contextmanager
def _writing(path: Path, embed: bool, report: ShardReport) -> Iterator[Callable[[pa.Table], None]]:
    """Takes finished row groups; the file appears under its name, and in `report`, when all went well."""
    temporary = path.with_name(f"{path.name}.tmp")
    path.parent.mkdir(parents=True, exist_ok=True)
    sink = _HashingSink(temporary)
    ids, hashes = [report.ids], [report.hashes]
    try:
        # One Parquet writer over all groups: pyarrow closes nothing it was handed.
        with pq.ParquetWriter(pa.PythonFile(sink, "w"), _physical(embed), **writer_options()) as writer:

            def add(samples: pa.Table) -> None:
                writer.write_table(samples.combine_chunks(), row_group_size=len(samples))
                ids.append(columns.column(samples, "id"))
                hashes.append(sample_hashes(samples))

            yield add
            writer.add_key_value_metadata(_metadata(SAMPLE))
        sink.finish()
    except BaseException:
        sink.abandon()
        temporary.unlink(missing_ok=True)
        raise
    Path(temporary).replace(path)
    report.bytes, report.sha256 = sink.size, sink.sha.hexdigest()
    report.ids, report.hashes = pa.concat_arrays(ids), pa.concat_arrays(hashes)
    report.rows = len(report.ids)


def _physical(embed: bool) -> pa.Schema:
    """SAMPLE with the image leaf as a dictionary where there are images."""
    place = SAMPLE.get_field_index("images")
    return (SAMPLE.set(place, IMAGES_WITH_DICTIONARY) if embed else SAMPLE).remove_metadata()


def sample_hashes(samples: pa.Table) -> pa.Array:
    """The row hash of each sample, over every column except image bytes: fixed_size_binary(16)[N]."""
    parts = []
    for name in SAMPLE.names:
        value = columns.column(samples, name)
        if name == "images":
            listed = columns.unlist(value)
            value = columns.relist(listed.lengths, pc.struct_field(listed.values, "path"), pa.list_(pa.string()))
        if name != "messages":
            parts.append(value)
    digests = hashing.row_digests(parts, columns.column(samples, "messages"))
    return pa.Array.from_buffers(pa.binary(16), len(samples), [None, pa.py_buffer(digests)])


def fingerprint(ids: list[pa.Array], hashes: list[pa.Array]) -> str:
    """The sha256 over all (id, row hash) pairs sorted by id: equal for equal corpora, however they were cut."""
    table = pa.table({"id": pa.chunked_array(ids, pa.string()), "hash": pa.chunked_array(hashes, pa.binary(16))})
    ordered = table.take(pc.sort_indices(table["id"])).combine_chunks()
    pairs = hashing.canonical(columns.column(ordered, "id"), columns.column(ordered, "hash").cast(pa.binary()))
    sha = hashlib.sha256()
    if len(pairs):
        start, end = np.frombuffer(pairs.buffers()[1], np.int32)[[pairs.offset, pairs.offset + len(pairs)]]
        sha.update(memoryview(pairs.buffers()[2])[start:end])
    return sha.hexdigest()


def row_groups(path: Path, embed: bool, wanted: list[str] | None = None) -> Iterator[pa.Table]:
    """The row groups of a shard one by one, so that memory stays bounded; a CorpusError names a damaged file.

    With `embed`, image bytes come as an Arrow dictionary: each distinct image of the group once.
    """
    try:
        with pq.ParquetFile(path, read_dictionary=[_IMAGE_LEAF] if embed else []) as shard:
            for number in range(shard.num_row_groups):
                yield shard.read_row_group(number, columns=wanted)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path.name}: not a readable shard ({error}); build it again.") from error
