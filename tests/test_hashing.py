from __future__ import annotations

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
    assert len(by_bytes) == len({repr(row) for row in rows})


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


def test_digests_are_sixteen_hex_digits() -> None:
    assert hashing.digests(pa.array([b"", b"x"], pa.binary())).to_pylist() == [
        xxhash.xxh3_128_hexdigest(b"")[:16],
        xxhash.xxh3_128_hexdigest(b"x")[:16],
    ]
