"""The index: all that selection needs to know of each record, so that it is decided without the annotations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data import hashing
from vpt_data.columns import column, unlist
from vpt_data.dialogue.ask import have_labels, have_tokens
from vpt_data.dialogue.regions import inspect_regions
from vpt_data.dialogue.render import inspect_text
from vpt_data.images.policy import Failure
from vpt_data.schema import ANNOTATION, Repair

INDEX = pa.schema(
    [
        ("dataset", pa.string()),
        ("form", pa.string()),
        ("key", pa.string()),
        ("identity", pa.uint64()),  # seeded hash of the first image's identity
        ("more", pa.list_(pa.uint64())),  # the same of further images
        ("record", pa.uint64()),  # hash of data set, split and the key without `source_id`: equal for duplicates
        ("content", pa.uint64()),  # more bits of the hash that the key is; 0 where it is the owner's id
        ("variant", pa.uint64()),  # hash of what duplicates may still differ in
        ("row", pa.int64()),
        ("line", pa.int64()),
        ("images", pa.int32()),  # how many images the record shows
        ("pairs", pa.int32()),  # question and answer pairs of a conversation, else 1
        ("region", pa.uint8()),  # a regions.RegionState
        ("repairs", pa.uint16()),
        ("labelled", pa.bool_()),  # whether a box has a label
        ("label_tokens", pa.bool_()),  # whether such a label holds a placeholder or special token
        ("unanswered", pa.bool_()),  # whether an answer is empty
        ("owned", pa.bool_()),  # whether the key is the owner's id
        ("fault", pa.string()),  # why the size of an image could not be had, where it was looked for: a Reason
        ("detail", pa.string()),
    ]
)


@dataclass(frozen=True, slots=True)
class InputIndex:
    """The index of one input, or of one partition of it.

    number    which of the build's inputs
    pool      inputs of one pool are offered to the same takes, in order
    dataset   the data set of the file, or "" where each record names its own
    table     INDEX
    position  int64[N], the position of each record in the annotations that pass 1 wrote
    """

    number: int
    pool: str
    source: str
    dataset: str
    file: str
    table: pa.Table
    position: npt.NDArray[np.int64]


def index_of(
    table: pa.Table,
    *,
    identity: pa.Array,
    unanswered: npt.NDArray[np.bool_],
    seed: int,
    failures: Mapping[str, Failure],
    with_id: bool = False,
) -> tuple[pa.Table, pa.Table]:
    """Annotations with keys filled in, and their index rows in the same order.

    table       ANNOTATION with the sizes that are known, and the columns `row`, `line` and `form`
    identity    string[M], which image each of the images of all rows is, row by row
    unanswered  bool[N], whether an answer is empty
    failures    why sizes that were looked for are not known, by image path
    with_id     whether keys end with the `source_id`, so that equal rows with different ids have different keys
    """
    listed = column(table, "images")
    first, more, joined = _identities(table, listed, identity, seed)
    owned = pc.is_valid(column(table, "key"))
    unnumbered, content = _keys(table, joined)
    key = unnumbered
    if with_id:
        key = pc.if_else(owned, key, pc.binary_join_element_wise(key, column(table, "source_id"), "-"))
    table = table.set_column(table.schema.get_field_index("key"), ANNOTATION.field("key"), key)
    turns = column(table, "turns")
    flags, region = inspect_regions(table)
    text = inspect_text(table)
    columns = {
        "dataset": table["dataset"],
        "form": table["form"],
        "key": key,
        "identity": first,
        "more": more,
        "record": _records(table, unnumbered),
        "content": content,
        "variant": hashing.hashes(_variants(table)),
        "row": table["row"],
        "line": table["line"],
        "images": pc.fill_null(pc.list_value_length(listed), 0),
        "pairs": np.maximum(pc.fill_null(pc.list_value_length(turns), 2).to_numpy(zero_copy_only=False) // 2, 1),
        "region": region,
        "repairs": flags | np.where(text, int(Repair.NEUTRALISED), 0),
        "labelled": have_labels(table),
        "label_tokens": have_tokens(table),
        "unanswered": unanswered,
        "owned": owned,
        **_unsized(listed, failures),
    }
    index = pa.table(
        [pa.array(column) if isinstance(column, np.ndarray) else column for column in columns.values()],
        names=list(columns),
    ).cast(INDEX)
    return table.select(ANNOTATION.names), index


def _unsized(listed: pa.Array, failures: Mapping[str, Failure]) -> dict[str, pa.Array]:
    """Columns `fault` and `detail`: the first image of each record whose size could not be had, and why."""
    if not failures:
        return {"fault": pa.nulls(len(listed), pa.string()), "detail": pa.nulls(len(listed), pa.string())}
    found = [
        next((failures[image["path"]] for image in shown or () if image["path"] in failures), None)
        for shown in listed.to_pylist()
    ]
    reasons = [failure and str(failure.reason) for failure in found]
    return {"fault": pa.array(reasons, pa.string()), "detail": pa.array([f and f.detail for f in found], pa.string())}


def _identities(table: pa.Table, listed: pa.Array, names: pa.Array, seed: int) -> tuple[np.ndarray, pa.Array, pa.Array]:
    """Seeded hash of the first image's identity, of the further ones', and all identities joined by spaces."""
    rows = unlist(listed).rows
    lengths = np.bincount(rows, minlength=len(table))
    starts = np.cumsum(lengths) - lengths
    hashes = hashing.seeded(names, seed)
    if (lengths == 1).all():
        return hashes, pa.nulls(len(table), INDEX.field("more").type), names
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    joined = pc.binary_join(pa.ListArray.from_arrays(offsets, names), " ")
    first = np.zeros(len(table), np.uint64)
    first[lengths > 0] = hashes[starts[lengths > 0]]
    textual = np.flatnonzero(lengths == 0)
    if len(textual):
        # A row without an image has no image to share a partition with: spread by what it says.
        keys = hashing.hex_keys(hashing.row_digests([column(table, "question")], column(table, "turns")))
        first[textual] = hashing.seeded(keys.take(pa.array(textual)), seed)
    further = np.ones(len(rows), bool)
    further[starts[lengths > 0]] = False
    rest = np.concatenate([[0], np.cumsum(np.maximum(lengths - 1, 0))]).astype(np.int32)
    more = pa.ListArray.from_arrays(pa.array(rest), pa.array(hashes[further]))
    return first, more, joined


def _keys(table: pa.Table, identity: pa.Array) -> tuple[pa.Array, hashing.UInt64]:
    """The owner's id where the reader gave one, else half of a hash of what the record says about which image.

    And the other half, by which records differ that share a key by chance.
    """
    own = column(table, "key")
    if own.null_count == 0:
        return own, np.zeros(len(table), np.uint64)
    content = [identity, *(column(table, name) for name in ("question", "answers", "regions"))]
    digests = hashing.row_digests(content, column(table, "turns"))
    owned = own.is_valid().to_numpy(zero_copy_only=False)
    rest = np.where(owned, np.uint64(0), hashing.second_halves(digests))
    return pc.coalesce(own, hashing.hex_keys(digests)), rest


def _records(table: pa.Table, key: pa.Array) -> hashing.UInt64:
    """Equal for records of one data set and split with the same key."""
    group = pc.binary_join_element_wise(table["dataset"], pc.fill_null(table["split"], ""), "\0")
    known = group.combine_chunks().dictionary_encode()
    records: hashing.UInt64 = hashing.hashes(key) ^ hashing.seeded(known.dictionary, 0)[known.indices.to_numpy()]
    return records


def _variants(table: pa.Table) -> pa.Array:
    """What records with the same key may still differ in, as one text: which of them stays must not be chance."""
    parts = [pc.fill_null(column(table, name), "") for name in ("source_id", "meta", "region_status")]
    return pc.binary_join_element_wise(*parts, "\0")
