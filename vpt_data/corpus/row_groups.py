"""Row groups: which rows of a shard are written together, and the images they share.

Rows are sorted by the hash of their image and cut along it, so that all rows of an image are in one group and share
its bytes; inside a group they are ordered by the hash of their id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, hashing
from vpt_data.corpus import rescale
from vpt_data.images.policy import MAX_EMBEDDED_PIXELS, Failure, Picture
from vpt_data.images.root import ImageRoot
from vpt_data.schema import SAMPLE, Repair
from vpt_data.sources import SOURCES
from vpt_data.upstream.catalog import image_set

#: A row group holds at most this many bytes of distinct images, since a reader of one row fetches them all ...
GROUP_DISTINCT_BYTES = 32_000_000
#: ... and at most this much when every row has its own copy in memory, well below the Hub viewer's limit.
GROUP_DECODED_BYTES = 96_000_000

IMAGES_WITH_DICTIONARY = pa.field(
    "images",
    pa.list_(pa.struct([pa.field("bytes", pa.dictionary(pa.int32(), pa.binary())), pa.field("path", pa.string())])),
)


class Bucket(NamedTuple):
    """Rendered rows of one or more shards.

    identity, order   uint64[N], the hashes they are sorted by
    text              int64[N], about how many bytes each row's text takes in memory
    rescale           takes whose images may be resized copies
    """

    samples: pa.Table
    identity: hashing.UInt64
    order: hashing.UInt64
    text: npt.NDArray[np.int64]
    rescale: frozenset[str] = frozenset()

    def ranked(self) -> npt.NDArray[np.int64]:
        """Row numbers by image, then by order."""
        return np.lexsort((self.order, self.identity))


class LostRow(NamedTuple):
    """A row that could not be written, since one of its images cannot be used."""

    id: str
    failure: Failure


@dataclass(slots=True)
class Outcome:
    """What became of images and rows while the groups were made.

    repaired   the ids of rows whose images are not as their files are, by what was done
    missing    paths of images that are not under the raw root, of rows that stay (mode reference)
    problems   what is wrong with folders and archives that may hold them
    """

    dropped: list[LostRow] = field(default_factory=list)
    repaired: dict[Repair, list[pa.Array]] = field(default_factory=dict)
    missing: set[str] = field(default_factory=set)
    problems: set[str] = field(default_factory=set)


def cut(
    bucket: Bucket, rows: npt.NDArray[np.int64], root: ImageRoot, embed: bool, outcome: Outcome
) -> Iterator[pa.Table]:
    """The row groups of the `rows` (ranked) of a bucket, ready to be written.

    With `embed`, rows whose image cannot be used are left out and the image leaf is an Arrow dictionary.
    """
    if not len(rows):
        return
    edges = np.concatenate([[0], np.flatnonzero(np.diff(bucket.identity[rows])) + 1, [len(rows)]])
    text = np.concatenate([[0], np.cumsum(bucket.text[rows])])
    if embed:
        yield from _embedded(bucket, rows, edges, text, root, outcome)
        return
    start = 0
    while start < len(rows):
        reach = int(np.searchsorted(text, text[start] + GROUP_DECODED_BYTES, side="right")) - 1
        end = int(edges[np.searchsorted(edges, reach, side="right") - 1])
        if end <= start:  # one image with more text than a group should hold
            end = int(edges[np.searchsorted(edges, start, side="right")])
        yield _referenced(_ordered(bucket, rows[start:end]), root, outcome)
        start = end


def _ordered(bucket: Bucket, rows: npt.NDArray[np.int64]) -> pa.Table:
    return bucket.samples.take(pa.array(rows[np.argsort(bucket.order[rows], kind="stable")]))


def text_bytes(samples: pa.Table) -> npt.NDArray[np.int64]:
    """About how many bytes each row's text takes in memory: int64[N]."""
    messages = columns.unlist(columns.column(samples, "messages"))
    lengths = columns.numbers(pc.binary_length(pc.struct_field(messages.values, "content")), 0)
    return 300 + np.bincount(messages.rows, weights=lengths, minlength=len(samples)).astype(np.int64)


def _paths(samples: pa.Table) -> pa.Array:
    return pc.struct_field(columns.unlist(columns.column(samples, "images")).values, "path")


def _referenced(samples: pa.Table, root: ImageRoot, outcome: Outcome) -> pa.Table:
    for name in pc.unique(_paths(samples)).to_pylist():
        if isinstance(found := root.find(name), Failure):
            outcome.missing.add(name)
            outcome.problems.update(found.problems)
    return _with_terms(samples)


def _embedded(
    bucket: Bucket,
    rows: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
    text: npt.NDArray[np.int64],
    root: ImageRoot,
    outcome: Outcome,
) -> Iterator[pa.Table]:
    """Load images run by run (one image's rows at a time) and close a group before it would be too large."""
    shown = _Shown(bucket, root)
    held = _Held(bucket.rescale)
    start = distinct = decoded = 0
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        fresh, copies = shown.load(rows[first:last], held)
        added = sum(len(found.data) for found in fresh.values() if isinstance(found, Picture))
        size = int(text[last] - text[first]) + copies
        if first > start and (distinct + added > GROUP_DISTINCT_BYTES or decoded + size > GROUP_DECODED_BYTES):
            yield from _with_images(_ordered(bucket, rows[start:first]), held, outcome)
            start, distinct, decoded, held = first, 0, 0, _Held(bucket.rescale)
        held.add(fresh)
        distinct, decoded = distinct + added, decoded + size
    yield from _with_images(_ordered(bucket, rows[start:]), held, outcome)


class _Stored(NamedTuple):
    """A picture of a group: what is known of it (its `data` is empty), which of the distinct ones it is, its bytes."""

    picture: Picture
    place: int
    size: int


class _Held:
    """The images of a row group by use (see `_uses`), and their distinct bytes, one behind the other in a buffer.

    One buffer for all: thousands of objects that are freed at once give their memory back to the system, which cost
    800,000 page faults for 2 GB of images, and costs 70,000 this way.
    """

    def __init__(self, rescale: frozenset[str]) -> None:
        self.rescale = rescale
        self.images: dict[str, _Stored | Failure] = {}
        self._places: dict[str, int] = {}  # by sha256: a dictionary with equal entries would make Parquet give up on it
        self._ends = [0]
        self._buffer = pa.allocate_buffer(GROUP_DISTINCT_BYTES)

    def add(self, fresh: dict[str, Picture | Failure]) -> None:
        """Take over images that were loaded."""
        for use, found in fresh.items():
            self.images[use] = found if isinstance(found, Failure) else self._store(found)

    def _store(self, picture: Picture) -> _Stored:
        place = self._places.setdefault(picture.sha256, len(self._places))
        if place == len(self._ends) - 1:
            start, end = self._ends[-1], self._ends[-1] + len(picture.data)
            if end > self._buffer.size:  # one image with more bytes than a group should hold
                larger = pa.allocate_buffer(2 * end)
                _bytes(larger)[:start] = _bytes(self._buffer)[:start]
                self._buffer = larger
            _bytes(self._buffer)[start:end] = picture.data
            self._ends.append(end)
        return _Stored(replace(picture, data=b""), place, len(picture.data))

    def blobs(self) -> pa.Array:
        """The distinct images by place: binary[P]."""
        offsets = pa.py_buffer(np.array(self._ends, np.int32))
        return pa.Array.from_buffers(pa.binary(), len(self._places), [None, offsets, self._buffer])


def _bytes(buffer: pa.Buffer) -> memoryview:
    return memoryview(buffer).cast("B")  # pyarrow's own items are signed


def _uses(samples: pa.Table, rescale: frozenset[str]) -> pa.Array:
    """Path, and size of the annotation, of each shown image as one string: rows may disagree on an image's size."""
    info = columns.unlist(columns.column(samples, "image_info")).values
    parts = [pc.struct_field(info, name).cast(pa.string()) for name in ("width", "height")]
    if rescale:
        parts.append(pa.array(_resizable(samples, rescale)).cast(pa.string()))
    return pc.binary_join_element_wise(_paths(samples), *parts, "\0", null_handling="replace")


def _resizable(samples: pa.Table, rescale: frozenset[str]) -> columns.Bools:
    """Whether each shown image may be a resized copy: bool[I]."""
    takes = pc.is_in(columns.column(samples, "take"), value_set=pa.array(sorted(rescale), pa.string()))
    return columns.flags(takes)[columns.unlist(columns.column(samples, "images")).rows]


class _Shown:
    """Which images each row of a bucket shows, with the sizes its annotation gives."""

    def __init__(self, bucket: Bucket, root: ImageRoot) -> None:
        samples = bucket.samples
        listed = columns.unlist(columns.column(samples, "images"))
        info = columns.unlist(columns.column(samples, "image_info")).values
        self._root = root
        self._starts, self._lengths = listed.starts, listed.lengths
        self._uses, self._paths = _uses(samples, bucket.rescale).to_pylist(), _paths(samples).to_pylist()
        self._stated = list(  # what `load` wants to know beside the path
            zip(
                pc.struct_field(info, "width").to_pylist(),
                pc.struct_field(info, "height").to_pylist(),
                _resizable(samples, bucket.rescale).tolist(),
                strict=True,
            )
        )

    def load(self, rows: npt.NDArray[np.int64], held: _Held) -> tuple[dict[str, Picture | Failure], int]:
        """Images of these rows that are not held yet, and the bytes of one copy for each use."""
        fresh: dict[str, Picture | Failure] = {}
        copies = 0
        for row in rows.tolist():
            for place in range(self._starts[row], self._starts[row] + self._lengths[row]):
                use = self._uses[place]
                stored = held.images.get(use)
                if stored is None and use not in fresh:
                    fresh[use] = self._root.load(self._paths[place], *self._stated[place], MAX_EMBEDDED_PIXELS)
                if isinstance(stored, _Stored):
                    copies += stored.size
                elif isinstance(found := fresh.get(use), Picture):
                    copies += len(found.data)
        return fresh, copies


def _with_images(samples: pa.Table, held: _Held, outcome: Outcome) -> Iterator[pa.Table]:
    """The rows whose images are all good, with them; nothing where no row is left."""
    good = _good(samples, held, outcome)
    if not len(good):
        return
    listed = columns.unlist(columns.column(good, "images"))
    paths = pc.struct_field(listed.values, "path")
    known = _uses(good, held.rescale).dictionary_encode()
    stored = [found for use in known.dictionary.to_pylist() if isinstance(found := held.images[use], _Stored)]
    assert len(stored) == len(known.dictionary), "rows with a failed image were left out"
    _note_repairs(good, known.indices, stored, outcome)
    if held.rescale:
        sizes = np.array([(found.picture.width, found.picture.height) for found in stored], np.int64).reshape(-1, 2)
        good, resized = rescale.rescaled(good, sizes[known.indices.to_numpy()])
        _note(good, resized, Repair.RESCALED, outcome)
    samples = _with_terms(good, [found.picture for found in stored], known.indices)
    # Images that only dropped rows show must not be written.
    used, at = np.unique([found.place for found in stored], return_inverse=True)
    blobs = held.blobs()
    if len(used) < len(blobs):
        blobs = blobs.take(pa.array(used))
    kind = IMAGES_WITH_DICTIONARY.type
    leaf = pa.DictionaryArray.from_arrays(pa.array(at, pa.int32()).take(known.indices), blobs)
    place = samples.schema.get_field_index("images")
    struct = columns.structs(kind.value_type, [leaf, paths])
    yield samples.set_column(place, IMAGES_WITH_DICTIONARY, columns.relist(listed.lengths, struct, kind))


def _good(samples: pa.Table, held: _Held, outcome: Outcome) -> pa.Table:
    listed = columns.unlist(columns.column(samples, "images"))
    uses = _uses(samples, held.rescale).to_pylist()
    failed = {use: found for use in uses if isinstance(found := held.images[use], Failure)}
    if not failed:
        return samples
    keep = np.ones(len(samples), bool)
    ids = samples["id"].to_pylist()
    for row, use in zip(listed.rows.tolist(), uses, strict=True):
        if use in failed and keep[row]:
            keep[row] = False
            outcome.dropped.append(LostRow(ids[row], failed[use]))
    return samples.filter(pa.array(keep))


def _note_repairs(samples: pa.Table, at: pa.Array, stored: list[_Stored], outcome: Outcome) -> None:
    """Note rows with images that are not as their files are; `at` says which of the stored each image is."""
    rows = columns.unlist(columns.column(samples, "images")).rows
    for kind in (Repair.REENCODED, Repair.REWRITTEN):
        repaired = np.array([getattr(found.picture, str(kind.name).lower()) for found in stored], bool)
        _note(samples, np.unique(rows[repaired[at.to_numpy()]]), kind, outcome)


def _note(samples: pa.Table, rows: columns.Ints, kind: Repair, outcome: Outcome) -> None:
    if len(rows):
        outcome.repaired.setdefault(kind, []).append(columns.column(samples, "id").take(pa.array(rows)))


def _with_terms(samples: pa.Table, pictures: Sequence[Picture] = (), at: pa.Array | None = None) -> pa.Table:
    """The samples with each image's licence and attribution and, of the loaded `pictures[at]`, true size and sha256."""
    place = samples.schema.get_field_index("image_info")
    info = columns.unlist(columns.column(samples, "image_info"))
    names = _paths(samples).dictionary_encode()
    sets = [found and found[1] for found in map(image_set, _folders(names.dictionary))]
    licences = pa.array([terms and terms.license for terms in sets], pa.string())
    attributions = pa.array([(terms and terms.attribution) or None for terms in sets], pa.string())
    width, height = (pc.struct_field(info.values, name) for name in ("width", "height"))
    sha256 = pa.nulls(len(names), pa.string())
    if at is not None:
        width = pa.array([picture.width for picture in pictures], pa.int32()).take(at)
        height = pa.array([picture.height for picture in pictures], pa.int32()).take(at)
        sha256 = pa.array([picture.sha256 for picture in pictures], pa.string()).take(at)
    source = columns.column(samples, "source")
    own_files = [name for name in pc.unique(source).to_pylist() if name in SOURCES and SOURCES[name].own_files]
    own = columns.flags(pc.is_in(source, value_set=pa.array(own_files, pa.string())))[info.rows]
    of_take = columns.column(samples, "license").take(pa.array(info.rows))
    licences = licences.take(names.indices)
    # Own images are under the licence of their take; those of an owner's folder stay under the owner's.
    licences = pc.if_else(pc.and_(pc.is_null(licences), pa.array(own)), of_take, licences)
    fields = [width, height, sha256, licences, attributions.take(names.indices)]
    kind = SAMPLE.field("image_info").type
    filled = columns.relist(info.lengths, columns.structs(kind.value_type, fields), kind)
    return samples.set_column(place, SAMPLE.field("image_info"), filled)


def _folders(paths: pa.Array) -> list[str]:
    return [path.rpartition("/")[0] for path in paths.to_pylist()]
