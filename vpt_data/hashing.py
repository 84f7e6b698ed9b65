"""Hashes of columns: identity, order and selection everywhere come from here, never from arrival order.

`canonical` turns any nested column into one byte string a row, so that a hash over it depends on the values alone:
not on batches, slices, null buffers or the Arrow version.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from vpt_data.columns import ROLES

UInt64 = npt.NDArray[np.uint64]
_NULL = -1


def seeded(values: pa.Array, seed: int) -> UInt64:
    """xxh3-64 of the seed in decimal, a 0 byte and the value: uint64[N]."""
    return hashes(pc.binary_join_element_wise(f"{seed}\0".encode(), values.cast(pa.binary()), b""))


def hex_keys(digests: bytes) -> pa.Array:
    """The first 16 hex digits of each 16-byte digest: string[N]."""
    heads = np.frombuffer(digests, np.uint8).reshape(-1, 16)[:, :8].tobytes().hex().encode()
    offsets = np.arange(len(heads) // 16 + 1, dtype=np.int32) * 16
    return pa.Array.from_buffers(pa.string(), len(heads) // 16, [None, pa.py_buffer(offsets), pa.py_buffer(heads)])


def second_halves(digests: bytes) -> UInt64:
    """The half of each 16-byte digest that `hex_keys` leaves out: uint64[N]."""
    return np.frombuffer(digests, "<u8").reshape(-1, 2)[:, 1].astype(np.uint64)


def row_digests(columns: Sequence[pa.Array], talk: pa.Array) -> bytes:
    """xxh3-128 of every row, 16 bytes each, over `columns` and a conversation column list<struct<role, content>>.

    The text of a conversation is the bulk of a row, so it is hashed in place and not copied together first.
    """
    counts = pc.fill_null(pc.list_value_length(talk), _NULL)
    rest = _slices(canonical(*columns, counts))
    if talk.null_count == len(talk):
        return b"".join(map(xxhash.xxh3_128_digest, rest))
    role, content = talk.flatten().flatten()
    marks = np.empty(len(content), [("role", "i1"), ("length", "<i4")])
    marks["role"] = pc.fill_null(pc.index_in(role, value_set=pa.array(ROLES)), _NULL).to_numpy(zero_copy_only=False)
    marks["length"] = pc.fill_null(pc.binary_length(content), _NULL).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(np.maximum(counts.to_numpy(zero_copy_only=False), 0), dtype=np.int64)])
    borders = np.frombuffer(content.buffers()[1], np.int32)[content.offset + ends].tolist()
    marked = (ends * marks.itemsize).tolist()
    text, mark = _data(content), marks.tobytes()
    return b"".join(
        [
            xxhash.xxh3_128_digest(b"".join((row, mark[m0:m1], text[t0:t1])))
            for row, m0, m1, t0, t1 in zip(rest, marked, marked[1:], borders, borders[1:], strict=False)
        ]
    )


def hashes(values: pa.Array) -> UInt64:
    """xxh3-64 of each value: uint64[N]."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, _slices(values)), np.uint64, len(values))


def canonical(*columns: pa.Array) -> pa.Array:
    """One byte string a row that holds every value of the columns, with lengths so that no two rows can collide.

    A row is a head of fixed width (lengths, counts, numbers, marks of null), then the text. `canonical(["a", null],
    [1, 2])` has two rows: length 1, valid, 1, `a`; length -1, valid, 2. All numbers are little-endian.
    """
    row = _Row([], [])
    for column in columns:
        _add(row, _whole(column))
    head = _fixed(np.concatenate(row.head, axis=1))
    return pc.binary_join_element_wise(head, *row.text, b"") if row.text else head


class _Row(NamedTuple):
    """Parts of the rows' byte strings: uint8[N, W] arrays, and binary[N] arrays that follow them."""

    head: list[npt.NDArray[np.uint8]]
    text: list[pa.Array]


def _data(values: pa.Array) -> bytes:
    # Bytes and not a view: slices of bytes are faster to make, and the garbage collector does not track them.
    return values.buffers()[2].to_pybytes() if values.buffers()[2] is not None else b""


def _slices(values: pa.Array) -> list[bytes]:
    """The bytes of each value."""
    if len(values) == 0:
        return []
    values = _whole(values)
    offsets = np.frombuffer(values.buffers()[1], np.int32)[values.offset : values.offset + len(values) + 1]
    data = _data(values)
    return [data[start:end] for start, end in pairwise(offsets.tolist())]


def _whole(array: pa.Array) -> pa.Array:
    return array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array


def _fixed(numbers: npt.NDArray[np.uint8]) -> pa.Array:
    """The rows of a [N, W] array as binary[N]."""
    offsets = np.arange(len(numbers) + 1, dtype=np.int32) * numbers.shape[1]
    data = pa.py_buffer(np.ascontiguousarray(numbers))
    return pa.Array.from_buffers(pa.binary(), len(numbers), [None, pa.py_buffer(offsets), data])


def _bytes(numbers: npt.NDArray[np.generic]) -> npt.NDArray[np.uint8]:
    """The little-endian bytes of each row of a [N] or [N, K] array."""
    rows = np.ascontiguousarray(numbers.astype(numbers.dtype.newbyteorder("<"), copy=False))
    return rows.view(np.uint8).reshape(len(rows), rows.dtype.itemsize * (rows.shape[1] if rows.ndim == 2 else 1))


def _valid(array: pa.Array) -> npt.NDArray[np.bool_]:
    valid: npt.NDArray[np.bool_] = array.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _lengths(lengths: pa.Array) -> npt.NDArray[np.int32]:
    """Lengths or counts, -1 for null."""
    filled: npt.NDArray[np.int32] = pc.fill_null(lengths, _NULL).to_numpy(zero_copy_only=False).astype(np.int32)
    return filled


def _add(row: _Row, array: pa.Array) -> None:
    kind = array.type
    if pa.types.is_dictionary(kind):
        _add(row, array.dictionary_decode())
    elif pa.types.is_null(kind):
        row.head.append(np.zeros((len(array), 1), np.uint8))
    elif pa.types.is_struct(kind):
        row.head.append(_bytes(_valid(array)))
        for field in array.flatten():
            _add(row, field)
    elif pa.types.is_string(kind) or pa.types.is_binary(kind):
        row.head.append(_bytes(_lengths(pc.binary_length(array))))
        if array.null_count < len(array):
            row.text.append(pc.fill_null(array.cast(pa.binary()), b""))
    elif pa.types.is_fixed_size_list(kind):
        _add_boxes(row, array)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        _add_list(row, array)
    else:
        zero = pa.scalar(False if pa.types.is_boolean(kind) else 0).cast(kind)
        row.head.extend([_bytes(_valid(array)), _bytes(pc.fill_null(array, zero).to_numpy(zero_copy_only=False))])


def _add_boxes(row: _Row, array: pa.Array) -> None:
    """Fixed-size lists of numbers; what is stored under a null is not part of the value."""
    valid = _valid(array)
    filled = (array if valid.all() else array.drop_null()).flatten().to_numpy(zero_copy_only=False)
    dense = np.zeros((len(array), array.type.list_size), filled.dtype)
    dense[valid] = filled.reshape(-1, array.type.list_size)
    row.head.extend([_bytes(valid), _bytes(dense)])


def _add_list(row: _Row, array: pa.Array) -> None:
    """Count, then the elements: the elements' own byte strings, regrouped without copying."""
    counts = _lengths(pc.list_value_length(array))
    row.head.append(_bytes(counts))
    values = array.flatten()
    if not len(values):
        return
    elements = _whole(canonical(values))
    starts = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))])
    offsets = np.frombuffer(elements.buffers()[1], np.int32)[elements.offset + starts]
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), elements.buffers()[2]]
    row.text.append(pa.Array.from_buffers(pa.binary(), len(array), buffers))


def held_out(identity: UInt64, share: float) -> npt.NDArray[np.bool_]:
    """Which images are held out: about `share` of them, in every partition alike, by a second hash of their identity.

    The second hash is the finalizer of splitmix64: ranges of the first one are partitions and shards.
    """
    mixed = identity.astype(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    held: npt.NDArray[np.bool_] = mixed < np.uint64(share * 2**64)
    return held


def partition_of(identity: UInt64, count: int) -> np.ndarray:
    """Which of `count` equal ranges of the hash each value belongs to: int64[N], `floor(hash * count / 2**64)`."""
    if count == 1:
        return np.zeros(len(identity), np.int64)
    high, low = identity >> np.uint64(32), identity & np.uint64(0xFFFFFFFF)
    n = np.uint64(count)
    return ((high * n + ((low * n) >> np.uint64(32))) >> np.uint64(32)).astype(np.int64)
