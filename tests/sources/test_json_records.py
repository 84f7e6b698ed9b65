"""Reading JSON records: as json.loads does on whole files, and no record without a word on damaged ones."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.errors import RawError
from vpt_data.schema import Reason
from vpt_data.sources.reading import json_array, json_lines
from vpt_data.sources.reading.json_brackets import scan
from vpt_data.sources.reading.json_records import Records, read_records
from vpt_data.upstream.rawfile import RawFile


class Item(msgspec.Struct):
    a: int


def read(folder: Path, data: bytes, kind: Any = dict[str, Any], **options: Any) -> Records:
    """All parts of a file with these bytes, as one."""
    path = folder / "x.json"
    path.write_bytes(data)
    parts = list(read_records(RawFile(path, "x.json"), kind, **options))
    assert all(part.values or part.bad for part in parts)
    rows = [row for part in parts for row in part.row.tolist()]
    lines = [line for part in parts for line in part.line.tolist()]
    values, bad = (
        [value for part in parts for value in part.values],
        [drop for part in parts for drop in part.bad],
    )
    assert len(values) == len(rows) == len(lines)
    return Records(values, np.array(rows, np.int64), np.array(lines, np.int64), bad)


def details(found: Records) -> list[tuple[int, int | None, str]]:
    assert all(drop.reason is Reason.MALFORMED for drop in found.bad)
    return [(drop.row, drop.line, drop.detail) for drop in found.bad]


def accounted(found: Records) -> int:
    """The number of records; each is good or bad, and numbered without a gap."""
    rows = sorted([*found.row.tolist(), *(drop.row for drop in found.bad)])
    assert rows == list(range(len(rows)))
    return len(rows)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


words = st.text(max_size=6) | st.sampled_from(
    ['}, {"a":', "},\n {", '"', "\\", '\\"', "[{", "]", "\n", "\\\\", "é\U0001f600"]
)
leaves = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | words
values = st.recursive(leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(words, x, max_size=3), max_leaves=6)
objects = st.dictionaries(st.sampled_from(["a", "b", "id"]) | words, values, max_size=4)
layouts = st.fixed_dictionaries({"indent": st.sampled_from([None, 1, "\t"]), "ensure_ascii": st.booleans()})


def lines_of(text: str) -> list[int]:
    """The line on which each element of the array in `text` starts, found one element after the other."""
    decoder, at, lines = json.JSONDecoder(), 1, []
    while (at := next((i for i in range(at, len(text)) if text[i] not in " ,\n\t"), len(text))) < len(text) - 1:
        lines.append(1 + text.count("\n", 0, at))
        at = decoder.raw_decode(text, at)[1]
    return lines


@given(st.lists(objects, max_size=8), layouts, st.integers(1, 80))
def test_an_array_reads_as_json_loads_says(
    folder: Path, items: list[dict[str, Any]], layout: dict[str, Any], chunk_bytes: int
) -> None:
    text = json.dumps(items, **layout)
    found = read(folder, text.encode(), chunk_bytes=chunk_bytes)
    assert found.values == items
    assert found.bad == []
    assert found.row.tolist() == list(range(len(items)))
    assert found.line.tolist() == lines_of(text)


@given(
    st.lists(objects, min_size=1, max_size=8),
    st.sampled_from(["\n", "\r\n", "\n\n", " \r\n\t\n"]),
    st.integers(1, 80),
)
def test_json_lines_read_as_json_loads_says(
    folder: Path, items: list[dict[str, Any]], end: str, chunk_bytes: int
) -> None:
    text = "".join(json.dumps(item) + end for item in items)
    found = read(folder, text.encode(), chunk_bytes=chunk_bytes)
    assert found.values == items
    assert found.bad == []
    assert found.row.tolist() == list(range(len(items)))
    assert found.line.tolist() == [1 + i * end.count("\n") for i in range(len(items))]


def naive_scan(text: str) -> tuple[list[int], list[int], list[int], int, int]:
    """The same as `scan`, one character after the other."""
    starts, ends, lines = [], [], []
    depth, inside, slashes = 0, False, 0
    for at, char in enumerate(text):
        if char == '"' and slashes % 2 == 0:
            inside = not inside
        elif not inside and char in "{[":
            depth += 1
            if depth == 1:
                starts.append(at)
                lines.append(text.count("\n", 0, at))
        elif not inside and char in "}]":
            depth -= 1
            if depth < 0:
                return starts, ends, lines, at, -1
            if depth == 0:
                ends.append(at + 1)
        slashes = slashes + 1 if char == "\\" else 0
    whole = len(ends)
    return starts[:whole], ends, lines[:whole], -1, starts[-1] if len(starts) > whole else -1


@given(st.text(alphabet='{}[]",\\\na', max_size=60))
def test_scan_finds_what_one_character_after_the_other_finds(text: str) -> None:
    spans = scan(np.frombuffer(text.encode(), np.uint8))
    found = (spans.starts.tolist(), spans.ends.tolist(), spans.lines.tolist(), spans.stop, spans.unfinished)
    assert found == naive_scan(text)


MISPLACED = "stands where one comma should between two records"
OPEN = "truncated: the file ends before the closing bracket"
INSIDE = "truncated: the file ends inside a record"


def is_whole(data: bytes) -> bool:
    try:
        texts = [data] if data.startswith(b"[") else data.splitlines()
        return [json.loads(text) for text in texts if text] != []
    except ValueError:
        return False


ARRAY = b'[\n {"a": 1},\n {"a": 22, "b": "}, {\\"a\\": ["},\n {"a": 3}\n]\n'
LINES = b'{"a": 1}\n{"a": 22, "b": "}, {\\"a\\": ["}\n\n{"a": 3}\n'


@pytest.mark.parametrize("chunk_bytes", [7, 1000])
@pytest.mark.parametrize("data", [ARRAY, LINES], ids=["array", "lines"])
def test_a_file_cut_at_any_byte_keeps_its_begin_and_says_that_it_was_cut(
    tmp_path: Path, data: bytes, chunk_bytes: int
) -> None:
    for size in range(1, len(data)):
        if not data[:size].strip():
            continue
        found = read(tmp_path, data[:size], Item, chunk_bytes=chunk_bytes)
        number = [item.a for item in found.values]
        assert number == [1, 22, 3][: len(number)]
        assert accounted(found) == len(number) + len(found.bad)
        if is_whole(data[:size]):
            assert found.bad == []
        else:
            assert len(found.bad) == 1, data[:size]
            assert found.bad[0].detail.startswith("truncated: the file ends")


@pytest.mark.parametrize("data", [ARRAY, LINES], ids=["array", "lines"])
@pytest.mark.parametrize("byte", [b"\x00", b"\xff", b'"', b"}", b"]", b"{", b",", b"\\", b"\n", b" ", b"7"])
def test_one_wrong_byte_loses_no_record_without_a_word(tmp_path: Path, data: bytes, byte: bytes) -> None:
    for at in range(len(data)):
        damaged = data[:at] + byte + data[at + 1 :]
        try:
            found = read(tmp_path, damaged, Item, chunk_bytes=16)
        except RawError:
            assert at <= data.index(b"{")
            continue
        accounted(found)
        assert found.bad or len(found.values) == 3, damaged


def test_elements_that_are_no_objects_are_malformed_records(tmp_path: Path) -> None:
    data = b'[1, {"a": 1}, [{"a": 2}], "x{",\n{"a": "y"}, null, 2, {"a": 3}]'
    for chunk_bytes in (3, 1000):
        found = read(tmp_path, data, Item, chunk_bytes=chunk_bytes)
        assert found.values == [Item(1), Item(3)]
        assert found.row.tolist() == [1, 7]
        assert found.line.tolist() == [1, 2]
        assert details(found) == [
            (0, 1, "Expected `object`, got `int`"),
            (2, 1, "Expected `object`, got `array`"),
            (3, 1, "Expected `object`, got `str`"),
            (4, 2, "Expected `int`, got `str` - at `$.a`"),
            (5, 2, "Expected `object`, got `null`"),
            (6, 2, "Expected `object`, got `int`"),
        ]


def test_only_scalars_are_malformed_too(tmp_path: Path) -> None:
    found = read(tmp_path, b'[1, "two"]', Item)
    assert details(found) == [(0, 1, "Expected `object`, got `int`"), (1, 1, "Expected `object`, got `str`")]


@pytest.mark.parametrize(
    ("data", "good", "bad"),
    [
        (b'[{"a": 1} {"a": 2}]', [1, 2], [(1, 1, f"'' {MISPLACED}")]),
        (b'[{"a": 1}, {"a": 2},]', [1, 2], [(2, 1, f"',' {MISPLACED}")]),
        (b'[{"a": 1}}, {"a": 2}]', [1, 2], [(1, 1, "'}' " + MISPLACED)]),
        (b'[{"a": 1}, x?, {"a": 2}]', [1, 2], [(1, 1, f"', x?,' {MISPLACED}")]),
        (b'[{"a": 1}]\nend', [1], [(1, 2, "'end' stands after the end of the array")]),
        (b'[{"a": 1}, {"a": 2}', [1, 2], [(2, 1, OPEN)]),
        (b'[{"a": 1}, {"a": 2},', [1, 2], [(2, 1, OPEN)]),
        (b'[{"a": 1},\n{"a"', [1], [(1, 2, INSIDE)]),
        (b'[{"a": 1}, 5, {"a"', [1], [(1, 1, "Expected `object`, got `int`"), (2, 1, INSIDE)]),
    ],
)  # fmt: skip
def test_what_is_wrong_with_an_array_is_told(
    tmp_path: Path, data: bytes, good: list[int], bad: list[tuple[int, int, str]]
) -> None:
    for chunk_bytes in (2, 1000):
        found = read(tmp_path, data, Item, chunk_bytes=chunk_bytes)
        assert [item.a for item in found.values] == good
        assert details(found) == bad


def test_what_is_wrong_with_lines_is_told(tmp_path: Path) -> None:
    data = b'{"a": 1}\n\x00\x00\n{"a": 2.5}\n\n{"a": 3}{"a": 4}\n{"a": "\xff"}\n{"a":\n5}\n[6]\n{"a": 7}'
    for chunk_bytes in (2, 1000):
        found = read(tmp_path, data, Item, chunk_bytes=chunk_bytes)
        assert found.values == [Item(1), Item(7)]
        assert (found.row.tolist(), found.line.tolist()) == ([0, 8], [1, 10])
        told = details(found)
        assert [(row, line) for row, line, _ in told] == [
            (1, 2),
            (2, 3),
            (3, 5),
            (4, 6),
            (5, 7),
            (6, 8),
            (7, 9),
        ]
        assert told[0][2] == "JSON is malformed: invalid character (byte 0)"
        assert told[1][2] == "Expected `int`, got `float` - at `$.a`"
        assert told[2][2] == "JSON is malformed: trailing characters (byte 9)"
        assert told[6][2] == "Expected `object`, got `array`"


def test_text_that_is_not_unicode_is_malformed_and_never_reaches_arrow(tmp_path: Path) -> None:
    data = rb'[{"q": "\ud800 no"}, {"q": "\ud83d\ude00"}, {"q": "x\udc00"}]' + b"\n"
    found = read(tmp_path, data.replace(b'"x', b'"\xed\xa0\x80'), dict[str, str])
    assert found.row.tolist() == [1]
    assert pa.array([value["q"] for value in found.values]).to_pylist() == ["\U0001f600"]
    assert [drop.row for drop in found.bad] == [0, 2]


def test_nesting_that_is_too_deep_is_malformed(tmp_path: Path) -> None:
    deep = b'{"a": ' + b"[" * 5000 + b"]" * 5000 + b"}"
    for data in (b"[" + deep + b', {"a": 1}]', deep + b'\n{"a": 1}'):
        found = read(tmp_path, data)
        assert found.values == [{"a": 1}]
        assert [drop.row for drop in found.bad] == [0]


@pytest.mark.parametrize(("data", "count"), [(ARRAY, 3), (LINES, 3)], ids=["array", "lines"])
def test_a_byte_order_mark_and_blanks_before_the_first_record_are_skipped(
    tmp_path: Path, data: bytes, count: int
) -> None:
    for chunk_bytes in (4, 1000):
        found = read(tmp_path, b"\xef\xbb\xbf" + b" \r\n" * 5 + data, Item, chunk_bytes=chunk_bytes)
        assert len(found.values) == count
        assert found.bad == []
        assert found.line[0] == 6 + (data is ARRAY)


@pytest.mark.parametrize("data", [b"", b" \r\n\t \n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_refused(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(RawError) as error:
        read(tmp_path, data)
    assert str(error.value) == "x.json: the file is empty; expected JSON lines or one JSON array."


@pytest.mark.parametrize(("data", "first"), [(b"question,answer\n", "b'q'"), (b"\xff\xfe[\0", r"b'\xff'")])
def test_a_file_that_is_neither_is_refused(tmp_path: Path, data: bytes, first: str) -> None:
    with pytest.raises(RawError) as error:
        read(tmp_path, data)
    assert str(error.value) == f"x.json: the file starts with {first}; expected JSON lines or one JSON array."


@pytest.mark.parametrize("data", [ARRAY, LINES], ids=["array", "lines"])
def test_gzip_is_undone_and_damage_told_after_what_could_be_read(tmp_path: Path, data: bytes) -> None:
    whole = gzip.compress(data)
    assert [item.a for item in read(tmp_path, whole, Item).values] == [1, 22, 3]
    for size in range(1, len(whole)):
        try:
            found = read(tmp_path, whole[:size], Item, chunk_bytes=16)
        except RawError as error:
            assert size < len(whole) - 8
            assert "expected JSON lines or one JSON array" in str(error)
            continue
        number = [item.a for item in found.values]
        assert number == [1, 22, 3][: len(number)]
        accounted(found)
        told = found.bad[-1].detail
        assert told == "truncated: Compressed file ended before the end-of-stream marker was reached"
    found = read(tmp_path, whole[:-8] + b"\0" * 8, Item)
    assert len(found.values) == 3
    assert [drop.detail.startswith("truncated: CRC check failed") for drop in found.bad] == [True]


def test_a_gzip_file_of_which_nothing_can_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RawError) as error:
        read(tmp_path, gzip.compress(ARRAY)[:10])
    assert str(error.value) == (
        "x.json: it cannot be decompressed (Compressed file ended before the end-of-stream marker was "
        "reached); expected JSON lines or one JSON array."
    )


@pytest.mark.parametrize("lines", [False, True])
def test_limit_counts_good_and_bad_records(tmp_path: Path, lines: bool) -> None:
    texts = [f'{{"a": {"1" if i % 3 else "null"}}}' for i in range(12)]
    data = ("\n".join(texts) if lines else f"[{', '.join(texts)}]").encode()
    for limit, chunk_bytes in itertools.product(range(14), (5, 1000)):
        found = read(tmp_path, data, Item, limit=limit, chunk_bytes=chunk_bytes)
        assert accounted(found) == min(limit, 12)
        assert [drop.row for drop in found.bad] == [row for row in (0, 3, 6, 9) if row < limit]


def test_the_hash_covers_the_whole_file_whatever_was_read_of_it(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"[" + b", ".join([b'{"a": 1}'] * 300_000) + b"]")
    raw = RawFile(path, "x.json")
    assert sum(len(part.values) for part in read_records(raw, Item, limit=2)) == 2
    assert raw.size == path.stat().st_size
    assert raw.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_record_longer_than_the_chunk_is_read(tmp_path: Path) -> None:
    long = {"a": 1, "b": "x" * 5000 + '"}, {"a": '}
    items = [long, {"a": 2}, long]
    assert read(tmp_path, json.dumps(items).encode(), chunk_bytes=16).values == items
    assert read(tmp_path, b"\n".join(json.dumps(item).encode() for item in items), chunk_bytes=16).values == items


@pytest.mark.parametrize("begin", [b'[{"a": 1},\n', b'{"a": 1}\n'])
def test_a_record_without_end_is_given_up(tmp_path: Path, begin: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (json_array, json_lines):
        monkeypatch.setattr(module, "MAX_RECORD_BYTES", 300)
    found = read(tmp_path, begin + b'{"a": "' + b"x" * 9000, Item, chunk_bytes=64)
    assert found.values == [Item(1)]
    told = "truncated: no record ends within 33554432 bytes, the rest of the file is not read"
    assert details(found) == [(1, 2, told)]


@pytest.mark.parametrize(("lost", "at"), [(b'"', 1), (b'"', 12), (b'"', 17), (b"}", 18)])
def test_a_lost_quote_or_bracket_costs_one_record(tmp_path: Path, lost: bytes, at: int) -> None:
    texts = [b'{"a": %d, "b": "x"}' % i for i in range(10, 60)]
    assert texts[30][at : at + 1] == lost
    texts[30] = texts[30][:at] + texts[30][at + 1 :]
    for chunk_bytes in (200, 100_000):
        found = read(tmp_path, b"[" + b",\n".join(texts) + b"]", Item, chunk_bytes=chunk_bytes)
        assert [item.a for item in found.values] == [i for i in range(10, 60) if i != 40]
        assert [(drop.row, drop.line) for drop in found.bad] == [(30, 31)]


@pytest.mark.parametrize("chunk_bytes", [300, 100_000])
def test_a_damaged_record_costs_one_record_where_lists_look_like_records(tmp_path: Path, chunk_bytes: int) -> None:
    texts = [json.dumps({"id": n, "objects": [{"id": 1}, {"id": 2}, {"id": 3}], "b": "x"}) for n in range(50)]
    texts[30] = texts[30].replace('"id": 1', '"id": ?')
    found = read(tmp_path, f"[{', '.join(texts)}]".encode(), chunk_bytes=chunk_bytes)
    assert [value["id"] for value in found.values] == [n for n in range(50) if n != 30]
    assert [drop.row for drop in found.bad] == [30]


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(b"[" + b",".join(b'{"a": %d, "b": "%s"}' % (i, b"x" * 150) for i in range(50_000)) + b"]")
    tracemalloc.start()
    try:
        count = sum(len(part.values) for part in read_records(RawFile(path, "x.json"), Item, chunk_bytes=1 << 16))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 50_000
    assert path.stat().st_size > 8_000_000
    assert peak < 4_000_000
