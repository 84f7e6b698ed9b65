"""Hashes of columns: identity, order and selection everywhere come from here, never from arrival order.

`canonical` turns any nested column into one byte string a row, so that a hash over it depends on the values alone:
not on batches, slices, null buffers or the Arrow version.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

UInt64 = npt.NDArray[np.uint64]
_NULL = -1
_ROLES = pa.array(["system", "user", "assistant"])


def seeded(values: pa.Array, seed: int) -> UInt64:
    """xxh3-64 of the seed in decimal, a 0 byte and the value, one uint64 a row; repeated values are hashed once."""
    encoded = values.dictionary_encode()
    prefixed = pc.binary_join_element_wise(f"{seed}\0".encode(), encoded.dictionary.cast(pa.binary()), b"")
    hashes = np.fromiter(map(xxhash.xxh3_64_intdigest, _slices(prefixed)), np.uint64, len(prefixed))
    picked: UInt64 = hashes[encoded.indices.to_numpy(zero_copy_only=False)]
    return picked


def hex_keys(digests: bytes) -> pa.Array:
    """The first 16 hex digits of each 16-byte digest: string[N]."""
    heads = np.frombuffer(digests, np.uint8).reshape(-1, 16)[:, :8].tobytes().hex().encode()
    offsets = np.arange(len(heads) // 16 + 1, dtype=np.int32) * 16
    return pa.Array.from_buffers(pa.string(), len(heads) // 16, [None, pa.py_buffer(offsets), pa.py_buffer(heads)])


def row_digests(columns: Sequence[pa.Array], talk: pa.Array) -> bytes:
    """xxh3-128 of every row, 16 bytes each, over `columns` and a conversation column list<struct<role, content>>.

    The text of a conversation is the bulk of a row, so it is hashed where it lies and not copied together first.
    """
    counts = pc.fill_null(pc.list_value_length(talk), _NULL)
    rest = _slices(canonical(*columns, counts))
    if talk.null_count == len(talk):
        return b"".join(map(xxhash.xxh3_128_digest, rest))
    role, content = talk.flatten().flatten()
    marks = np.empty(len(content), [("role", "i1"), ("length", "<i4")])
    marks["role"] = pc.fill_null(pc.index_in(role, value_set=_ROLES), _NULL).to_numpy(zero_copy_only=False)
    marks["length"] = pc.fill_null(pc.binary_length(content), _NULL).to_numpy(zero_copy_only=False)
    ends = np.concatenate([[0], np.cumsum(np.maximum(counts.to_numpy(zero_copy_only=False), 0), dtype=np.int64)])
    said = np.frombuffer(content.buffers()[1], np.int32)[content.offset + ends].tolist()
    marked = (ends * marks.itemsize).tolist()
    text, mark = memoryview(content.buffers()[2] or b""), memoryview(marks.tobytes())
    return b"".join(
        [
            xxhash.xxh3_128_digest(b"".join((row, mark[m0:m1], text[t0:t1])))
            for row, m0, m1, t0, t1 in zip(rest, marked, marked[1:], said, said[1:], strict=False)
        ]
    )


def hashes(values: pa.Array) -> UInt64:
    """xxh3-64 of each value: uint64[N]."""
    return np.fromiter(map(xxhash.xxh3_64_intdigest, _slices(values)), np.uint64, len(values))


def canonical(*columns: pa.Array) -> pa.Array:
    """One byte string a row that holds every value of the columns, with lengths so that no two rows can collide.

    `canonical(["a", null], [1, 2])` has two rows: length 1, `a`, then 1; length -1, then 2. All integers are
    little-endian; a null has no bytes of its own beyond its mark.
    """
    parts = [_encode(column) for column in columns]
    return pc.binary_join_element_wise(*parts, b"") if len(parts) > 1 else parts[0]


def _slices(values: pa.Array) -> list[memoryview]:
    """The bytes of each value, without copies."""
    if len(values) == 0:
        return []
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    offsets = np.frombuffer(values.buffers()[1], np.int32, len(values) + 1 + values.offset)[values.offset :]
    data = memoryview(values.buffers()[2] or b"")
    return [data[start:end] for start, end in pairwise(offsets.tolist())]


def _fixed(numbers: npt.NDArray[np.generic]) -> pa.Array:
    """The little-endian bytes of each row of a [N] or [N, W] array, as binary[N]."""
    rows = np.ascontiguousarray(numbers)
    width = rows.dtype.itemsize * (rows.shape[1] if rows.ndim == 2 else 1)
    offsets = np.arange(len(rows) + 1, dtype=np.int32) * width
    return pa.Array.from_buffers(pa.binary(), len(rows), [None, pa.py_buffer(offsets), pa.py_buffer(rows)])


def _marks(array: pa.Array) -> pa.Array:
    """One byte a row: 1 valid, 0 null."""
    return _fixed(array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8))


def _encode(array: pa.Array) -> pa.Array:
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _encode(array.dictionary_decode())
    if pa.types.is_null(kind):
        return _marks(array)
    if pa.types.is_struct(kind):
        fields = [_encode(field) for field in array.flatten()]
        return pc.binary_join_element_wise(_marks(array), *fields, b"")
    if pa.types.is_fixed_size_list(kind):
        return _encode_boxes(array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _encode_list(array)
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        lengths = pc.fill_null(pc.binary_length(array), _NULL).to_numpy(zero_copy_only=False).astype("<i4")
        return pc.binary_join_element_wise(_fixed(lengths), pc.fill_null(array.cast(pa.binary()), b""), b"")
    width = kind.bit_width // 8 or 1
    zero = pa.scalar(False if pa.types.is_boolean(kind) else 0).cast(kind)
    numbers = pc.fill_null(array, zero).to_numpy(zero_copy_only=False)
    body = _fixed(numbers.astype(numbers.dtype.newbyteorder("<")) if width > 1 else numbers.astype(np.uint8))
    return pc.binary_join_element_wise(_marks(array), body, b"")


def _encode_boxes(array: pa.Array) -> pa.Array:
    """Fixed-size lists of numbers; what lies under a null is not part of the value."""
    width, valid = array.type.list_size, array.is_valid().to_numpy(zero_copy_only=False)
    filled = array.flatten() if array.null_count == 0 else array.drop_null().flatten()
    dense = np.zeros((len(array), width), filled.to_numpy(zero_copy_only=False).dtype)
    dense[valid] = filled.to_numpy(zero_copy_only=False).reshape(-1, width)
    return pc.binary_join_element_wise(_marks(array), _fixed(dense.astype(dense.dtype.newbyteorder("<"))), b"")


def _encode_list(array: pa.Array) -> pa.Array:
    """Count, then the elements: the elements' own byte strings, regrouped without copying."""
    counts = pc.fill_null(pc.list_value_length(array), _NULL).to_numpy(zero_copy_only=False).astype("<i4")
    elements = _encode(array.flatten())
    if isinstance(elements, pa.ChunkedArray):
        elements = elements.combine_chunks()
    starts = np.concatenate([[0], np.cumsum(np.maximum(counts, 0))])
    offsets = np.frombuffer(elements.buffers()[1], np.int32)[elements.offset + starts]
    buffers = [None, pa.py_buffer(np.ascontiguousarray(offsets)), elements.buffers()[2]]
    body = pa.Array.from_buffers(pa.binary(), len(array), buffers)
    return pc.binary_join_element_wise(_fixed(counts), body, b"")
