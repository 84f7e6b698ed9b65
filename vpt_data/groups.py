"""Row groups: which rows of a shard are written together, and the images they share.

Rows are sorted by the hash of their image and cut along it, so that all rows of an image lie in one group and share
its bytes; inside a group they are ordered by the hash of their id.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, hashing
from vpt_data.images import ImageRoot, image_set
from vpt_data.pictures import Failure, Picture
from vpt_data.schema import SAMPLE, Repair

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
    """

    samples: pa.Table
    identity: hashing.UInt64
    order: hashing.UInt64
    text: npt.NDArray[np.int64]

    def ranked(self) -> npt.NDArray[np.int64]:
        """Row numbers by image, then by order."""
        return np.lexsort((self.order, self.identity))


@dataclass(slots=True)
class Outcome:
    """What became of images and rows while the groups were made."""

    dropped: list[dict[str, Any]] = field(default_factory=list)  # id, reason, detail
    repaired: dict[str, Counter[str]] = field(default_factory=dict)  # take -> kind -> rows
    embedded: int = 0
    missing: int = 0


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
    known = _paths(samples).dictionary_encode()
    names = known.dictionary.to_pylist()
    outcome.missing += sum(root.locate(name) is None for name in names)
    return _with_terms(samples, known, names, {})


def _embedded(
    bucket: Bucket,
    rows: npt.NDArray[np.int64],
    edges: npt.NDArray[np.int64],
    text: npt.NDArray[np.int64],
    root: ImageRoot,
    outcome: Outcome,
) -> Iterator[pa.Table]:
    """Load images run by run (one image's rows at a time) and close a group before it would be too large."""
    shown = _Shown(bucket.samples, root)
    held: dict[str, Picture | Failure] = {}
    start = distinct = decoded = 0
    for first, last in zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        fresh, copies = shown.load(rows[first:last], held)
        added = sum(len(found.data) for found in fresh.values() if isinstance(found, Picture))
        size = int(text[last] - text[first]) + copies
        if first > start and (distinct + added > GROUP_DISTINCT_BYTES or decoded + size > GROUP_DECODED_BYTES):
            yield from _with_images(_ordered(bucket, rows[start:first]), held, outcome)
            start, distinct, decoded, held = first, 0, 0, {}
        held.update(fresh)
        distinct, decoded = distinct + added, decoded + size
    yield from _with_images(_ordered(bucket, rows[start:]), held, outcome)


class _Shown:
    """Which images each row of a bucket shows, with the sizes its annotation gives."""

    def __init__(self, samples: pa.Table, root: ImageRoot) -> None:
        listed = columns.unlist(columns.column(samples, "images"))
        info = columns.unlist(columns.column(samples, "image_info")).values
        self._root = root
        self._starts, self._lengths = listed.starts, listed.lengths
        self._paths = pc.struct_field(listed.values, "path").to_pylist()
        self._sizes = list(
            zip(
                pc.struct_field(info, "width").to_pylist(),
                pc.struct_field(info, "height").to_pylist(),
                strict=True,
            )
        )

    def load(
        self, rows: npt.NDArray[np.int64], held: dict[str, Picture | Failure]
    ) -> tuple[dict[str, Picture | Failure], int]:
        """Images of these rows that are not held yet, and the bytes of one copy for each use."""
        fresh: dict[str, Picture | Failure] = {}
        copies = 0
        for row in rows.tolist():
            for place in range(self._starts[row], self._starts[row] + self._lengths[row]):
                path = self._paths[place]
                found = held.get(path) or fresh.get(path)
                if found is None:
                    found = fresh[path] = self._root.load(path, *self._sizes[place])
                copies += len(found.data) if isinstance(found, Picture) else 0
        return fresh, copies


def _with_images(samples: pa.Table, held: dict[str, Picture | Failure], outcome: Outcome) -> Iterator[pa.Table]:
    """The rows whose images are all good, with them; nothing where no row is left."""
    good = _good(samples, held, outcome)
    if not len(good):
        return
    known = _paths(good).dictionary_encode()
    names = known.dictionary.to_pylist()
    pictures = {name: found for name in names if isinstance(found := held[name], Picture)}
    outcome.embedded += len(names)
    _count_repairs(good, pictures, outcome)
    samples = _with_terms(good, known, names, pictures)
    listed = columns.unlist(columns.column(samples, "images"))
    # Two paths may hold the same bytes; a dictionary with equal entries would make Parquet give up on it.
    blobs = {picture.sha256: picture.data for picture in pictures.values()}
    place = {sha256: number for number, sha256 in enumerate(blobs)}
    at = pa.array([place[pictures[name].sha256] for name in names], pa.int32()).take(known.indices)
    kind = IMAGES_WITH_DICTIONARY.type
    leaf = pa.DictionaryArray.from_arrays(at, pa.array(list(blobs.values()), pa.binary()))
    struct = columns.structs(kind.value_type, [leaf, pc.struct_field(listed.values, "path")])
    place = samples.schema.get_field_index("images")
    yield samples.set_column(place, IMAGES_WITH_DICTIONARY, columns.relist(listed.lengths, struct, kind))


def _good(samples: pa.Table, held: dict[str, Picture | Failure], outcome: Outcome) -> pa.Table:
    listed = columns.unlist(columns.column(samples, "images"))
    paths = pc.struct_field(listed.values, "path").to_pylist()
    failed = {path for path in paths if isinstance(held[path], Failure)}
    if not failed:
        return samples
    keep = np.ones(len(samples), bool)
    ids = samples["id"].to_pylist()
    for row, path in zip(listed.rows.tolist(), paths, strict=True):
        if path in failed and keep[row]:
            keep[row] = False
            reason, detail = held[path]  # type: ignore[misc]
            outcome.dropped.append({"id": ids[row], "reason": str(reason), "detail": detail})
    return samples.filter(pa.array(keep))


def _count_repairs(samples: pa.Table, pictures: dict[str, Picture], outcome: Outcome) -> None:
    mended = {path for path, picture in pictures.items() if picture.reencoded}
    if not mended:
        return
    kind = str(Repair.REENCODED.name).lower()
    for take, images in zip(samples["take"].to_pylist(), samples["images"].to_pylist(), strict=True):
        if any(image["path"] in mended for image in images):
            outcome.repaired.setdefault(take, Counter())[kind] += 1


def _with_terms(
    samples: pa.Table, known: pa.DictionaryArray, names: list[str], pictures: dict[str, Picture]
) -> pa.Table:
    """The samples with each image's licence, attribution and, where it was loaded, true size and sha256."""
    place = samples.schema.get_field_index("image_info")
    info = columns.unlist(columns.column(samples, "image_info"))
    sets = [found and found[1] for found in (image_set(name.rpartition("/")[0]) for name in names)]
    loaded = [pictures.get(name) for name in names]

    def spread(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array(values, kind).take(known.indices)

    width, height = (pc.struct_field(info.values, name) for name in ("width", "height"))
    if pictures:
        width = pc.coalesce(spread([picture and picture.width for picture in loaded], pa.int32()), width)
        height = pc.coalesce(spread([picture and picture.height for picture in loaded], pa.int32()), height)
    fields = [
        width,
        height,
        spread([picture and picture.sha256 for picture in loaded], pa.string()),
        spread([terms and terms.license for terms in sets], pa.string()),
        spread([(terms and terms.attribution) or None for terms in sets], pa.string()),
    ]
    kind = SAMPLE.field("image_info").type
    filled = columns.relist(info.lengths, columns.structs(kind.value_type, fields), kind)
    return samples.set_column(place, SAMPLE.field("image_info"), filled)
