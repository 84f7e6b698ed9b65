"""How many images a corpus shows, and under which licences: counted from its rows.

An image is a path. Each image counts once however many rows and splits show it, and whether its bytes are in the shards
or not: of the `distinct` images of a corpus all are `embedded` (mode embed) or none (mode reference), and `missing` are
those of them that are not under the raw root.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, hashing
from vpt_data.corpus.manifest import ImageLicense, ImagesRecord
from vpt_data.upstream.catalog import image_set

#: The images of a shard: hash of the path, and of path and licence; the image set it belongs to ("" for own images);
#: its licence; whether a row has it as its first image; whether it is not under the raw root.
IMAGES = pa.schema(
    [
        ("image", pa.uint64()),
        ("terms", pa.uint64()),
        ("folder", pa.string()),
        ("license", pa.string()),
        ("first", pa.bool_()),
        ("missing", pa.bool_()),
    ]
)


def images_of(samples: pa.Table) -> pa.Table:
    """The distinct (path, license) of some rows, and whether a row has it as its first image."""
    listed = columns.unlist(columns.column(samples, "images"))
    info = columns.unlist(columns.column(samples, "image_info"))
    first = np.zeros(len(listed.values), bool)
    first[listed.starts[listed.lengths > 0]] = True
    # In a damaged row an image may be without its info, or without a path; `check` reads such rows too.
    place = np.arange(len(listed.values)) - np.repeat(listed.starts, listed.lengths)
    known = place < info.lengths[listed.rows]
    at = pa.array(np.where(known, info.starts[listed.rows] + place, 0), mask=~known)
    paths = pc.struct_field(listed.values, "path")
    fields = {"path": paths, "license": pc.struct_field(info.values, "license").take(at), "first": pa.array(first)}
    return _distinct(pa.table(fields).filter(pc.is_valid(paths)))


def _distinct(shown: pa.Table) -> pa.Table:
    found = shown.group_by(["path", "license"]).aggregate([("first", "max")])
    return found.rename_columns(["path", "license", "first"])


def of_shard(groups: Sequence[pa.Table], missing: Collection[str] = ()) -> pa.Table:
    """The images of a shard (IMAGES) from those of its row groups (`images_of`); `missing` are paths."""
    if not groups:
        return IMAGES.empty_table()
    shown = _distinct(pa.concat_tables(groups)).combine_chunks()
    paths, licenses = (columns.column(shown, name) for name in ("path", "license"))
    terms = pc.binary_join_element_wise(paths, licenses, "\0", null_handling="replace")
    folders = pc.replace_substring_regex(paths, r"(^|/)[^/]*$", "").dictionary_encode()
    known = [found[0] if (found := image_set(folder)) else "" for folder in folders.dictionary.to_pylist()]
    gone = pc.is_in(paths, value_set=pa.array(sorted(missing), pa.string()))
    values = [
        pa.array(hashing.hashes(paths)), pa.array(hashing.hashes(terms)),
        pa.array(known, pa.string()).take(folders.indices), licenses, shown["first"], gone,
    ]  # fmt: skip
    return pa.table(values, schema=IMAGES)


def count(ranges: Callable[[], Iterable[Iterator[pa.Table]]], embed: bool) -> ImagesRecord:
    """The account of all images.

    ranges   IMAGES of all shards, in groups so that no two groups share the first image of a row: then only one group
             (and all images that are not the first of a row) has to be in memory
    """
    rest = [table.filter(pc.invert(table["first"])) for tables in ranges() for table in tables]
    further = pa.concat_tables([IMAGES.empty_table(), *rest])
    images, terms = _Distinct("image", ["missing"], further), _Distinct("terms", ["folder", "license"], further)
    for tables in ranges():
        first = pa.concat_tables([IMAGES.empty_table(), *(table.filter(table["first"]) for table in tables)])
        images.add(first)
        terms.add(first)
    numbers = images.counted()
    total = numbers.total()
    listed = sorted(terms.counted().items(), key=lambda item: (item[0][0], item[0][1] or ""))
    return ImagesRecord(
        distinct=total,
        embedded=total if embed else 0,
        missing=numbers[(True,)],
        licenses=[ImageLicense(folder, license_id, number) for (folder, license_id), number in listed],
    )


class _Distinct:
    """Counts the distinct values of `key` by other columns, range by range; any range may repeat rows of `further`."""

    def __init__(self, key: str, by: list[str], further: pa.Table) -> None:
        self._key, self._by, self._further = key, by, further
        self._counts: Counter[tuple[Any, ...]] = Counter()

    def add(self, table: pa.Table) -> None:
        """Count the rows of a range, which has no value in common with any other but through `further`."""
        seen = pc.is_in(self._further[self._key], value_set=table[self._key].combine_chunks())
        self._further = self._further.filter(pc.invert(seen))
        self._count(table)

    def counted(self) -> Counter[tuple[Any, ...]]:
        """The counts, when all ranges were added."""
        self._count(self._further)
        return self._counts

    def _count(self, table: pa.Table) -> None:
        once = table.take(pa.array(np.unique(table[self._key].to_numpy(), return_index=True)[1]))
        for row in once.group_by(self._by).aggregate([([], "count_all")]).to_pylist():
            self._counts[tuple(row[name] for name in self._by)] += row["count_all"]
