"""Hashes of samples, and the fingerprint of a corpus: one value for its set of rows."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import columns, hashing
from vpt_data.schema import SAMPLE


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


def run(ids: pa.Array, hashes: pa.Array) -> pa.Table:
    """Ids (string[N]) and row hashes (binary(16)[N]) as a table sorted by id."""
    return pa.table({"id": ids, "hash": hashes}).sort_by("id")


def fingerprint(runs: Sequence[pa.Table], rows_at_once: int = 1 << 20) -> str:
    """The sha256 over all (id, row hash) pairs sorted by id: equal for equal corpora, however they were cut.

    runs   tables with columns `id` and `hash`, each sorted by id; they are merged range by range, so that memory
           does not grow with them
    """
    runs = [run.select(["id", "hash"]).combine_chunks() for run in runs if len(run)]
    sha, start = hashlib.sha256(), [0] * len(runs)
    for border in [*_borders(runs, rows_at_once), None]:
        end = [len(run) if border is None else _before(run["id"], border) for run in runs]
        piece = [run.slice(a, b - a) for run, a, b in zip(runs, start, end, strict=True)]
        if piece:
            _hash_pairs(pa.concat_tables(piece), sha)
        start = end
    return sha.hexdigest()


def _borders(runs: Sequence[pa.Table], rows: int) -> list[str]:
    """Ids that cut the runs into ranges of about `rows`."""
    step = 4096
    sampled = sorted(
        text for run in runs for text in run["id"].take(pa.array(np.arange(0, len(run), step))).to_pylist()
    )
    return sampled[rows // step :: max(1, rows // step)] if sum(map(len, runs)) > rows else []


def _before(ids: pa.ChunkedArray, border: str) -> int:
    """How many of the sorted ids are smaller."""
    return bisect_left(range(len(ids)), border, key=lambda place: ids[place].as_py())


def _hash_pairs(table: pa.Table, sha: Any) -> None:
    ordered = table.take(pc.sort_indices(table["id"])).combine_chunks()
    pairs = hashing.canonical(columns.column(ordered, "id"), columns.column(ordered, "hash").cast(pa.binary()))
    if len(pairs):
        start, end = np.frombuffer(pairs.buffers()[1], np.int32)[[pairs.offset, pairs.offset + len(pairs)]]
        sha.update(memoryview(pairs.buffers()[2])[start:end])
