from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import hashing

KIND = pa.struct([("role", pa.string()), ("boxes", pa.list_(pa.list_(pa.int32(), 2)))])
_text = st.none() | st.text(max_size=5)
_pair = st.none() | st.lists(st.integers(-9, 9), min_size=2, max_size=2)
_record = st.none() | st.fixed_dictionaries({"role": _text, "boxes": st.none() | st.lists(_pair, max_size=3)})
_rows = st.lists(st.tuples(_text, st.none() | st.lists(_record, max_size=3), st.none() | st.floats(allow_nan=False)))


def _columns(rows: list[tuple[object, object, object]]) -> list[pa.Array]:
    kinds = (pa.string(), pa.list_(KIND), pa.float64())
    return [pa.array([row[place] for row in rows], kind) for place, kind in enumerate(kinds)]


@given(_rows)
def test_equal_rows_and_only_equal_rows_have_equal_bytes(rows: list[tuple[object, object, object]]) -> None:
    encoded = hashing.canonical(*_columns(rows)).to_pylist()
    by_bytes: dict[bytes, object] = {}
    for row, key in zip(rows, encoded, strict=True):
        assert by_bytes.setdefault(key, row) == row
    assert len(by_bytes) == len({json.dumps(row, sort_keys=True) for row in rows})


@given(_rows, st.data())
def test_bytes_do_not_depend_on_slices(rows: list[tuple[object, object, object]], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(rows)))
    whole = hashing.canonical(*_columns(rows)).to_pylist()
    sliced = hashing.canonical(*[column.slice(start) for column in _columns(rows)]).to_pylist()
    assert sliced == whole[start:]


def test_moving_a_character_between_columns_changes_the_bytes() -> None:
    left = hashing.canonical(pa.array(["ab"]), pa.array(["c"]))
    right = hashing.canonical(pa.array(["a"]), pa.array(["bc"]))
    assert left != right


def test_seeded_is_xxh3_of_seed_zero_byte_value() -> None:
    hashes = hashing.seeded(pa.array(["vsr/a", "vsr/b", "vsr/a"]), 7)
    expected = [xxhash.xxh3_64_intdigest(b"7\0" + value) for value in (b"vsr/a", b"vsr/b", b"vsr/a")]
    assert hashes.tolist() == expected
    assert hashes.dtype == np.uint64


def test_keys_are_the_first_sixteen_hex_digits_of_a_digest() -> None:
    digests = xxhash.xxh3_128_digest(b"") + xxhash.xxh3_128_digest(b"x")
    assert hashing.hex_keys(digests).to_pylist() == [
        xxhash.xxh3_128_hexdigest(b"")[:16],
        xxhash.xxh3_128_hexdigest(b"x")[:16],
    ]


_message = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant", "system"]), "content": _text})
_talks = st.lists(st.tuples(_text, st.none() | st.lists(_message, max_size=3)), min_size=1)
TALK = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


@given(_talks, st.data())
def test_digests_tell_rows_apart_and_do_not_depend_on_slices(
    rows: list[tuple[str | None, object]], data: st.DataObject
) -> None:
    names, talks = pa.array([row[0] for row in rows], pa.string()), pa.array([row[1] for row in rows], TALK)
    start = data.draw(st.integers(0, len(rows) - 1))
    whole = hashing.row_digests([names], talks)
    parts = [whole[place : place + 16] for place in range(0, len(whole), 16)]
    assert len(set(parts)) == len({json.dumps(row, sort_keys=True) for row in rows})
    tail = talks.slice(start)
    assert hashing.row_digests([names.slice(start)], tail) == b"".join(parts[start:])
