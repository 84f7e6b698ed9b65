"""One line for each row of a corpus: what rows are filtered, sorted and chosen by. No pixel is read for it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.columns import Ints, column, first, flags, unlist
from vpt_data.corpus.fingerprint import sample_hashes
from vpt_data.corpus.reader import Corpus, Shard
from vpt_data.images.policy import Failure
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import row_rules
from vpt_data.inspect.check import legacy_takes
from vpt_data.inspect.view import signals
from vpt_data.inspect.view.where import Where
from vpt_data.schema import SAMPLE, Repair

#: What may be wrong with a row, in the order of the bits of `problems`.
KINDS: Final = (*row_rules.RULES, *signals.SIGNALS)
_NAMES: Final = pa.dictionary(pa.int32(), pa.string())
_NAMED: Final = ("split", "take", "source", "dataset", "template", "expected")
INDEX: Final = pa.schema(
    [
        ("id", pa.string()),
        ("shard", pa.int32()),  # number of the shard, in the order of the manifest
        ("row", pa.int64()),  # number of the row in its shard
        *((name, _NAMES) for name in _NAMED),
        ("looks", _NAMES),  # joined by +, "none" where there is none
        ("box_area", pa.float32()),
        ("cells", pa.float32()),
        ("iou", pa.float32()),
        ("text", pa.int32()),
        ("severity", pa.int32()),
        ("repaired", pa.uint16()),  # Repair bits
        ("problems", pa.uint64()),  # bits by KINDS
        ("pictured", pa.bool_()),  # whether its first image is in the shard or under the raw root, or it has none
        ("hash", pa.binary(16)),
    ]
)
#: Columns that --where knows beside those of a sample.
_DERIVED: Final = pa.schema(
    [
        *(INDEX.field(name) for name in ("box_area", "cells", "iou", "text", "severity")),
        ("repaired", pa.list_(pa.string())),
        ("problems", pa.list_(pa.string())),
    ]
)


def condition(text: str) -> Where:
    """The filter of `--where`: a condition on the columns of a sample and the numbers and problems of the index."""
    sample = SAMPLE.remove_metadata().empty_table().drop_columns(["images"])
    derived = _DERIVED.empty_table()
    for name in derived.column_names:
        sample = sample.append_column(name, derived[name])
    return Where(text, sample)


def read(
    corpus: Corpus,
    where: Where | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    threads: int = 4,
    raw: ImageRoot | None = None,
) -> pa.Table:
    """INDEX of the rows of a corpus in their order, of those that fit `where`.

    raw        where images that are not in the shards are looked for
    progress   is called with the shards that were read, and how many there are

    Raises CorpusError for a damaged shard.
    """
    known = _Known(legacy_takes(corpus.manifest), repaired_rows(corpus.origins()), raw)
    shards = corpus.shards()
    found = [INDEX.empty_table()]
    with ThreadPoolExecutor(min(threads, os.cpu_count() or 1)) as pool:
        lines = pool.map(lambda shard: _of_shard(shard, known, where), shards)
        for number, table in enumerate(lines):
            place = pa.repeat(pa.scalar(number, pa.int32()), len(table))
            found.append(table.set_column(INDEX.get_field_index("shard"), INDEX.field("shard"), place))
            progress(number + 1, len(shards))
    return pa.concat_tables(found).unify_dictionaries().combine_chunks()


def lines_at(corpus: Corpus, shard: int, rows: Ints, repaired: pa.Table) -> pa.Table:
    """INDEX of a few rows without reading all others.

    shard, rows   the number of their shard, and their numbers in it, ascending
    repaired      see `repaired_rows`
    """
    known = _Known(legacy_takes(corpus.manifest), repaired, None)
    table = _lines(corpus.shards()[shard].pick(rows), 0, corpus.embed, known)
    for name, values in (("shard", np.full(len(rows), shard)), ("row", rows)):
        place = INDEX.get_field_index(name)
        table = table.set_column(place, INDEX.field(name), pa.array(values, INDEX.field(name).type))
    return table


def find(corpus: Corpus, wanted: str) -> tuple[int, int] | None:
    """The shard of an id, by number, and its row; only ids are read."""
    for number, shard in enumerate(corpus.shards()):
        start = 0
        for table in shard.tables(["id"]):
            if (place := pc.index(table["id"], wanted).as_py()) >= 0:
                return number, start + place
            start += len(table)
    return None


def names(bits: int, kinds: Iterable[str]) -> list[str]:
    """The names of the bits that are set; `kinds` in their order.

    >>> names(5, ["a", "b", "c"])
    ['a', 'c']
    """
    return [kind for place, kind in enumerate(kinds) if bits >> place & 1]


REPAIRS: Final = tuple(str(kind.name).lower() for kind in Repair)


def repaired_rows(origins: pa.Table) -> pa.Table:
    """`id` and Repair bits of the rows that were repaired: few, so that they are found quickly."""
    some = origins.filter(pc.greater(pc.list_value_length(origins["repaired"]), 0)).combine_chunks()
    kinds = unlist(column(some, "repaired"))
    place = pc.index_in(kinds.values, value_set=pa.array(REPAIRS))
    bits = np.zeros(len(some), np.uint16)
    known = flags(place.is_valid())
    np.bitwise_or.at(bits, kinds.rows[known], (1 << place.drop_null().to_numpy()).astype(np.uint16))
    return pa.table({"id": some["id"], "bits": pa.array(bits)})


class _Known(NamedTuple):
    """What is known of a corpus before its rows are read."""

    legacy: frozenset[str]
    repaired: pa.Table
    raw: ImageRoot | None


def _of_shard(shard: Shard, known: _Known, where: Where | None) -> pa.Table:
    """INDEX of a shard, `shard` still null."""
    found, start = [INDEX.empty_table()], 0
    for samples in shard.tables():
        lines = _lines(samples, start, shard.embed, known)
        start += len(samples)
        if where is not None:
            lines = lines.filter(pa.array(where(_with_derived(samples, lines))))
        found.append(lines)
    return pa.concat_tables(found)


def _lines(samples: pa.Table, start: int, embed: bool, known: _Known) -> pa.Table:
    ids = column(samples, "id")
    measured = signals.measure(samples, known.legacy)
    at = pc.index_in(ids, value_set=known.repaired["id"])
    bits = pc.fill_null(column(known.repaired, "bits").take(at), 0).to_numpy()
    problems = np.zeros(len(samples), np.uint64)
    severity = _weights(bits)
    for kind, rows in measured.problems.items():
        problems[rows] |= np.uint64(1 << KINDS.index(kind))
        severity[rows] += signals.weight(kind)
    looks = column(samples, "looks")
    joined = pc.if_else(pc.greater(pc.list_value_length(looks), 0), pc.binary_join(looks, "+"), "none")
    columns = {
        "id": ids,
        "shard": pa.nulls(len(ids), pa.int32()),
        "row": np.arange(start, start + len(ids)),
        **{name: column(samples, name) for name in _NAMED},
        "looks": joined,
        **{
            name: pa.array(getattr(measured, name), pa.float32(), from_pandas=True)
            for name in ("box_area", "cells", "iou")
        },
        "text": measured.text,
        "severity": severity,
        "repaired": bits,
        "problems": problems,
        "pictured": _pictured(samples, embed, known.raw),
        "hash": sample_hashes(samples),
    }
    arrays = [columns[field.name] for field in INDEX]
    return pa.table(
        [
            pa.array(values).cast(field.type) if isinstance(values, np.ndarray) else _as(values, field.type)
            for values, field in zip(arrays, INDEX, strict=True)
        ],
        schema=INDEX,
    )


def _as(values: pa.Array, kind: pa.DataType) -> pa.Array:
    return values.dictionary_encode().cast(kind) if pa.types.is_dictionary(kind) else values.cast(kind)


def _pictured(samples: pa.Table, embed: bool, raw: ImageRoot | None) -> pa.Array:
    """Whether the first image of each row is there, or it has none: bool[N]."""
    if embed:
        return pa.array(np.ones(len(samples), bool))
    paths = pc.struct_field(first(unlist(column(samples, "images"))), "path").dictionary_encode()
    there = [raw is not None and not isinstance(raw.find(name), Failure) for name in paths.dictionary.to_pylist()]
    return pc.fill_null(pa.array(there, pa.bool_()).take(paths.indices), True)


def _weights(repaired: npt.NDArray[np.uint16]) -> Ints:
    """How much the repairs of each row count."""
    total = np.zeros(len(repaired), np.int64)
    for place, kind in enumerate(REPAIRS):
        total += (repaired >> place & 1) * signals.weight(kind)
    return total


def _with_derived(samples: pa.Table, lines: pa.Table) -> pa.Table:
    table = samples.drop_columns(["images"]).replace_schema_metadata(None)
    for field in _DERIVED:
        values = lines[field.name]
        if pa.types.is_list(field.type):
            kinds = KINDS if field.name == "problems" else REPAIRS
            distinct = values.combine_chunks().dictionary_encode()
            listed = [names(bits, kinds) for bits in distinct.dictionary.to_pylist()]
            values = pa.array(listed, field.type).take(distinct.indices)
        table = table.append_column(field.name, values)
    return table
