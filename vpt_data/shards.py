"""Shards: Parquet files of samples, written so that the same rows give the same bytes.

Rows are sorted by the hash of their image, cut into row groups along it, and ordered inside a group by the hash of
their id. Rows of one image share its bytes inside a group, because the image leaf is a Parquet dictionary.
"""

from __future__ import annotations

import base64
import hashlib
import io
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vpt_data import columns, hashing
from vpt_data.errors import CorpusError
from vpt_data.images import Failure, ImageRoot, Picture, image_set
from vpt_data.schema import SAMPLE, Repair

#: A row group holds at most this many bytes of distinct images, since a reader of one row fetches them all ...
GROUP_DISTINCT_BYTES = 32_000_000
#: ... and at most this much when every row has its own copy in memory, well below the Hub viewer's limit.
GROUP_DECODED_BYTES = 96_000_000

_IMAGE_LEAF = "images.list.element.bytes"
#: Columns of few values, where a dictionary saves space; elsewhere it would defeat content-defined chunking.
_FEW_VALUED = {
    "take", "source", "dataset", "split", "task", "template", "looks.list.element", "expected", "region_status",
    "messages.list.element.role", "views.list.element.encoder", "image_info.list.element.license",
    "image_info.list.element.attribution", "license", "language",
}  # fmt: skip
_CHUNKING = {"min_chunk_size": 256 << 10, "max_chunk_size": 1 << 20, "norm_level": 0}


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
    dropped: list[dict[str, Any]] = field(default_factory=list)  # id, reason, detail
    repaired: dict[str, Counter[str]] = field(default_factory=dict)  # take -> kind -> rows
    embedded: int = 0
    missing: int = 0
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


def write_shard(
    path: Path, samples: pa.Table, identity: hashing.UInt64, seed: int, root: ImageRoot, embed: bool
) -> ShardReport:
    """Write the samples of one bucket; `identity` is the image hash of each row (uint64[N]).

    With `embed`, a row whose image is missing, broken or of another size is left out and reported. The file appears
    under its name only when it is whole.
    """
    report = ShardReport()
    with _writing(path, embed, report) as add:
        for group in _groups(samples, identity, seed, root, embed, report):
            add(_finished(group, embed))
    return report


def rewrite_shard(
    source: Path, path: Path, embed: bool, change: Callable[[pa.Table], pa.Table]
) -> ShardReport:
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
    os.replace(temporary, path)
    report.bytes, report.sha256 = sink.size, sink.sha.hexdigest()
    report.ids, report.hashes = pa.concat_arrays(ids), pa.concat_arrays(hashes)
    report.rows = len(report.ids)


def _physical(embed: bool) -> pa.Schema:
    """SAMPLE with the image leaf as a dictionary where there are images."""
    if not embed:
        return SAMPLE.remove_metadata()
    leaf = pa.struct([pa.field("bytes", pa.dictionary(pa.int32(), pa.binary())), pa.field("path", pa.string())])
    place = SAMPLE.get_field_index("images")
    return SAMPLE.set(place, pa.field("images", pa.list_(leaf))).remove_metadata()


@dataclass(slots=True)
class _Group:
    """Rows of one row group in their final order, and the distinct images they share."""

    samples: pa.Table
    blobs: list[bytes]
    index: np.ndarray  # for each image of each row, its place in `blobs`


def _groups(
    samples: pa.Table, identity: hashing.UInt64, seed: int, root: ImageRoot, embed: bool, report: ShardReport
) -> Iterator[_Group]:
    order = hashing.seeded(columns.column(samples, "id"), seed)
    by_image = np.lexsort((order, identity))
    samples, identity, order = samples.take(pa.array(by_image)), identity[by_image], order[by_image]
    text = _text_bytes(samples)
    loader = _Loader(root, embed, report)
    start = 0
    edges = [0, *(np.flatnonzero(np.diff(identity)) + 1).tolist(), len(identity)]
    decoded = 0
    for first, last in zip(edges, edges[1:], strict=False):
        if first == last:
            continue
        run = samples.slice(first, last - first)
        images, shown = loader.peek(run)
        size = int(text[first:last].sum()) + shown
        full = loader.bytes + images > GROUP_DISTINCT_BYTES or decoded + size > GROUP_DECODED_BYTES
        if full and first > start:
            yield from _close(samples, order, start, first, loader)
            start, decoded = first, 0
        loader.admit()
        decoded += size
    if len(identity) > start:
        yield from _close(samples, order, start, len(identity), loader)


def _close(samples: pa.Table, order: hashing.UInt64, start: int, end: int, loader: _Loader) -> Iterator[_Group]:
    part = samples.slice(start, end - start)
    part = part.take(pa.array(np.argsort(order[start:end], kind="stable")))
    group = loader.close(part)
    if len(group.samples):
        yield group


def _text_bytes(samples: pa.Table) -> np.ndarray:
    """About how many bytes each row's text takes in memory: int64[N]."""
    messages = columns.unlist(columns.column(samples, "messages"))
    lengths = columns.numbers(pc.binary_length(pc.struct_field(messages.values, "content")), 0)
    return 300 + np.bincount(messages.rows, weights=lengths, minlength=len(samples)).astype(np.int64)


class _Loader:
    """Loads the images of a row group as it grows: each distinct path once."""

    def __init__(self, root: ImageRoot, embed: bool, report: ShardReport) -> None:
        self._root, self._embed, self._report = root, embed, report
        self._held: dict[str, Picture | Failure] = {}
        self._next: dict[str, Picture | Failure] = {}
        self.bytes = 0

    def peek(self, run: pa.Table) -> tuple[int, int]:
        """Load what the next rows show; bytes of images not held yet, and of one copy for each use."""
        self._next = {}
        if not self._embed:
            return 0, 0
        listed = columns.unlist(columns.column(run, "images"))
        info = columns.unlist(columns.column(run, "image_info")).values
        paths = pc.struct_field(listed.values, "path").to_pylist()
        sizes = zip(pc.struct_field(info, "width").to_pylist(), pc.struct_field(info, "height").to_pylist(), strict=True)
        shown = 0
        for path, (width, height) in zip(paths, sizes, strict=True):
            held = self._held.get(path) or self._next.get(path)
            if held is None:
                held = self._next[path] = self._root.load(path, width, height)
            shown += len(held.data) if isinstance(held, Picture) else 0
        return sum(len(held.data) for held in self._next.values() if isinstance(held, Picture)), shown

    def admit(self) -> None:
        """Count the images of the last `peek` to the group."""
        self._held.update(self._next)
        self.bytes += sum(len(held.data) for held in self._next.values() if isinstance(held, Picture))

    def close(self, part: pa.Table) -> _Group:
        """The group that these rows and the images held for them make."""
        upcoming, held = self._next, self._held
        self._held, self.bytes = {}, 0
        group = self._embedded(part, held) if self._embed else self._referenced(part)
        self._next = upcoming
        return group

    def _referenced(self, part: pa.Table) -> _Group:
        paths = pc.struct_field(columns.unlist(columns.column(part, "images")).values, "path")
        for path in pc.unique(paths).to_pylist():
            self._report.missing += self._root.locate(path) is None
        return _Group(with_terms(part, {}), [], np.zeros(0, np.int32))

    def _embedded(self, part: pa.Table, held: dict[str, Picture | Failure]) -> _Group:
        listed = columns.unlist(columns.column(part, "images"))
        paths = pc.struct_field(listed.values, "path").to_pylist()
        keep = np.ones(len(part), bool)
        ids = part["id"].to_pylist()
        for row, path in zip(listed.rows.tolist(), paths, strict=True):
            found = held[path]
            if isinstance(found, Failure) and keep[row]:
                keep[row] = False
                self._report.dropped.append({"id": ids[row], "reason": str(found.reason), "detail": found.detail})
        good = part.filter(pa.array(keep))
        paths = pc.struct_field(columns.unlist(columns.column(good, "images")).values, "path").to_pylist()
        pictures = {path: found for path, found in held.items() if isinstance(found, Picture)}
        self._count(good, pictures)
        place: dict[str, int] = {}
        index = np.fromiter((place.setdefault(path, len(place)) for path in paths), np.int32, len(paths))
        self._report.embedded += len(place)
        return _Group(with_terms(good, pictures), [pictures[path].data for path in place], index)

    def _count(self, rows: pa.Table, pictures: dict[str, Picture]) -> None:
        mended = {path for path, picture in pictures.items() if picture.reencoded}
        if not mended:
            return
        kind = str(Repair.REENCODED.name).lower()
        for take, images in zip(rows["take"].to_pylist(), rows["images"].to_pylist(), strict=True):
            if any(image["path"] in mended for image in images):
                self._report.repaired.setdefault(take, Counter())[kind] += 1


def with_terms(samples: pa.Table, pictures: dict[str, Picture]) -> pa.Table:
    """The samples with each image's licence, attribution and, where it was loaded, true size and sha256."""
    place = samples.schema.get_field_index("image_info")
    info = columns.unlist(columns.column(samples, "image_info"))
    paths = pc.struct_field(columns.unlist(columns.column(samples, "images")).values, "path")
    encoded = paths.dictionary_encode()
    names = encoded.dictionary.to_pylist()
    sets = [image_set(name.rpartition("/")[0]) for name in names]
    found = [pictures.get(name) for name in names]

    def spread(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(encoded.indices)

    width, height = (pc.struct_field(info.values, name) for name in ("width", "height"))
    fields = [
        pc.coalesce(spread([picture and picture.width for picture in found], pa.int32()), width),
        pc.coalesce(spread([picture and picture.height for picture in found], pa.int32()), height),
        spread([picture and picture.sha256 for picture in found], pa.string()),
        spread([known[1].license if known else None for known in sets], pa.string()),
        spread([known[1].attribution or None if known else None for known in sets], pa.string()),
    ]
    kind = SAMPLE.field("image_info").type
    filled = columns.relist(info.lengths, columns.structs(kind.value_type, fields), kind)
    return samples.set_column(place, SAMPLE.field("image_info"), filled)


def _finished(group: _Group, embed: bool) -> pa.Table:
    """The rows of a group as they are written: image leaf as a dictionary where there are images."""
    samples = group.samples.select(SAMPLE.names)
    if not embed:
        return samples
    physical = _physical(True)
    listed = columns.unlist(columns.column(samples, "images"))
    blobs = pa.DictionaryArray.from_arrays(pa.array(group.index, pa.int32()), pa.array(group.blobs, pa.binary()))
    kind = physical.field("images").type
    struct = columns.structs(kind.value_type, [blobs, pc.struct_field(listed.values, "path")])
    place = samples.schema.get_field_index("images")
    return samples.set_column(place, physical.field("images"), columns.relist(listed.lengths, struct, kind))


def sample_hashes(samples: pa.Table) -> pa.Array:
    """The row hash of each sample, over every column except image bytes: fixed_size_binary(16)[N]."""
    parts = []
    for name in SAMPLE.names:
        value = columns.column(samples, name)
        if name == "images":
            listed = columns.unlist(value)
            value = columns.relist(listed.lengths, pc.struct_field(listed.values, "path"), pa.list_(pa.string()))
        parts.append(value)
    return hashing.row_hashes(hashing.canonical(*parts))


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


def read_shard(path: Path, columns_wanted: list[str] | None = None) -> pa.Table:
    """The samples of a shard, or a CorpusError that names the file."""
    try:
        return pq.read_table(path, columns=columns_wanted, partitioning=None)
    except (OSError, pa.ArrowException) as error:
        raise CorpusError(f"{path.name}: not a readable shard ({error}); build it again.") from error


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
