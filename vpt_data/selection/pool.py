"""The records that takes of one pool see, and what of them is a duplicate or the first of its image."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.selection.index import InputIndex
from vpt_data.take import Take

Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


class Pool:
    """The records of all inputs of one pool, as flat columns. `place` of an input is its number in the list."""

    def __init__(self, places: list[int], inputs: Sequence[InputIndex]) -> None:
        tables = [inputs[place].table for place in places]
        lengths = [len(table) for table in tables]
        self.places = places
        self.input = np.repeat(np.asarray(places, np.int64), lengths)
        self.position = np.concatenate([inputs[place].position for place in places] or [np.zeros(0, np.int64)])
        whole = pa.concat_tables(tables).combine_chunks() if tables else None
        self.table = whole
        self.size = int(sum(lengths))

    def column(self, name: str) -> np.ndarray:
        """A number column of the index."""
        if self.table is None:
            return np.zeros(0, np.int64)
        column: np.ndarray = self.table[name].to_numpy()  # a copy where the column is of bits
        return column

    def among(self, name: str, values: Iterable[str]) -> Mask:
        """Whether a text column holds one of the values."""
        if self.table is None:
            return np.zeros(0, bool)
        found = pc.is_in(self.table[name], value_set=pa.array(list(values), pa.string()))
        mask: Mask = found.to_numpy()
        return mask


def units_of(take: Take, pool: Pool, rows: Rows) -> tuple[Rows, npt.NDArray[np.int32]]:
    """The record of each sample that could be, and the turn of it (-1: not split)."""
    if take.turns != "each":
        return rows, np.full(len(rows), -1, np.int32)
    pairs = pool.column("pairs")[rows]
    units = np.repeat(rows, pairs)
    return units, (np.arange(len(units)) - np.repeat(np.cumsum(pairs) - pairs, pairs)).astype(np.int32)


class Equals(NamedTuple):
    """Which records of a pool are met again.

    first          True for one record of each group of equal ones: one with an answer, then by content, file, row
    other_content  True for those whose content is not that of the first one: they share its key by chance
    """

    first: Mask
    other_content: Mask


def compare_records(pool: Pool, inputs: Sequence[InputIndex], by_id: bool = False) -> Equals:
    """Find the records that are met again in the pool; with `by_id` those with different owner's ids are not equal."""
    other = np.zeros(pool.size, bool)
    if pool.table is None:
        return Equals(other, other)
    record = pool.column("record")
    if by_id:
        record = record ^ hashing.seeded(pool.table["key"].combine_chunks(), 1)
    _, inverse, counts = np.unique(record, return_inverse=True, return_counts=True)
    keep = np.ones(pool.size, bool)
    repeated = np.flatnonzero(counts[inverse] > 1)
    if len(repeated):
        ranks = {place: rank for rank, place in enumerate(sorted(pool.places, key=lambda n: inputs[n].file))}
        place = np.asarray([ranks[place] for place in pool.input[repeated]])
        unanswered, variant, row = (pool.column(name)[repeated] for name in ("unanswered", "variant", "row"))
        order = repeated[np.lexsort((row, place, variant, unanswered, record[repeated]))]
        begins = np.append(True, record[order[1:]] != record[order[:-1]])
        keep[order[~begins]] = False
        content = pool.column("content")[order]
        other[order] = content != content[np.maximum.accumulate(np.where(begins, np.arange(len(order)), 0))]
    return Equals(keep, other)


def smallest_of_images(order: hashing.UInt64, images: np.ndarray) -> Mask:
    """True for the sample with the smallest hash of each image."""
    rank = np.lexsort((order, images))
    first = np.ones(len(rank), bool)
    first[1:] = images[rank][1:] != images[rank][:-1]
    keep = np.zeros(len(rank), bool)
    keep[rank[first]] = True
    return keep
