"""Own data: the same rows as CSV, JSON and Parquet, damage in them, and takes that do not fit them."""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import shlex
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers.own_data import boxes, chunks, drops_of, failure, rows_of, write
from hypothesis import given, settings
from hypothesis import strategies as st

from vpt_data.cli.main import main
from vpt_data.errors import RawError, UsageError
from vpt_data.recipe import load
from vpt_data.upstream.rawfile import RawFile

DOCS = Path(__file__).resolve().parents[2] / "docs"

# Round trip ----------------------------------------------------------------------------------------

WORDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)
COORDINATE = st.one_of(st.integers(-10, 9_999), st.floats(-10, 9_999, width=32))
NAMES = st.from_regex(r"[a-z]{1,5}/[a-z]{1,5}\.(jpg|png)", fullmatch=True)
OWN = st.fixed_dictionaries(
    {
        "file": NAMES,
        "q": WORDS,
        "a": WORDS,
        "id": WORDS,
        "w": st.integers(1, 9_999),
        "h": st.integers(1, 9_999),
        "box": st.lists(st.lists(COORDINATE, min_size=4, max_size=4), max_size=3),
        "label": WORDS,
    }
)
MAPPED = {
    "image": "file", "question": "q", "answer": "a", "id": "id",
    "width": "w", "height": "h", "box": "box", "label": "label",
}  # fmt: skip


def as_csv(rows: list[dict[str, Any]], delimiter: str, bom: bool, ending: str) -> bytes:
    # Python's writer quotes a carriage return only if it ends lines.
    quoting = csv.QUOTE_MINIMAL if ending == "\r\n" else csv.QUOTE_ALL
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*OWN_KEYS], delimiter=delimiter, lineterminator=ending, quoting=quoting)
    writer.writeheader()
    writer.writerows(row | {"box": json.dumps(row["box"])} for row in rows)
    return text.getvalue().encode("utf-8-sig" if bom else "utf-8")


OWN_KEYS = ("file", "q", "a", "id", "w", "h", "box", "label")


@settings(max_examples=25, deadline=None)
@given(
    st.lists(OWN, min_size=1, max_size=6),
    st.sampled_from(",;\t"),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_every_format_gives_the_same_annotations(
    rows: list[dict[str, Any]], delimiter: str, bom: bool, ending: str
) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        files = [
            write(folder, "own.csv", as_csv(rows, delimiter, bom, ending)),
            write(folder, "own.jsonl", lines),
            write(folder, "own.json", json.dumps(rows)),
            write(folder, "own.ndjson.gz", gzip.compress(lines.encode())),
        ]
        kinds = pa.list_(pa.list_(pa.float64()))
        content = pa.Table.from_pylist([row | {"box": [[float(v) for v in box] for box in row["box"]]} for row in rows])
        content = content.set_column(
            content.schema.get_field_index("box"), "box", content["box"].combine_chunks().cast(kinds)
        )
        pq.write_table(content, folder / "own.parquet")
        files.append(RawFile(folder / "own.parquet", "own.parquet"))
        for raw in files:
            found = chunks(raw, images="own/images", columns=MAPPED)
            assert drops_of(found) == []
            assert [expected(row) for row in rows] == rows_of(found), raw.name
            assert raw.size == raw.path.stat().st_size and raw.sha256


def expected(row: dict[str, Any]) -> dict[str, Any]:
    image = {"path": f"own/images/{row['file']}", "width": row["w"], "height": row["h"]}
    regions = [{"image": 0, "box": [float(v) for v in box], "label": row["label"]} for box in row["box"]]
    return {
        "source": "table", "dataset": "own", "split": None, "key": None, "source_id": row["id"],
        "images": [image], "question": row["q"], "answers": [row["a"]], "regions": regions,
        "region_status": "given" if regions else "unknown", "turns": None, "meta": None,
    }  # fmt: skip


# CSV -----------------------------------------------------------------------------------------------

HEADER = "image,question,answer,x0,y0,x1,y1\n"
CORNERS = {"box": ["x0", "y0", "x1", "y1"]}


def test_csv_four_columns_and_status(tmp_path: Path) -> None:
    raw = write(tmp_path, "own/a.csv", HEADER + "a.png,What?,5,1,2.5,30,40\nb.png,Why?,No,,,,\n")
    first, second = rows_of(chunks(raw, columns=CORNERS, images="own"))
    assert boxes(first) == [[1, 2.5, 30, 40]] and first["region_status"] == "given"
    assert first["images"] == [{"path": "own/a.png", "width": None, "height": None}]
    assert first["answers"] == ["5"] and first["key"] is None and first["dataset"] == "own"
    assert second["regions"] == [] and second["region_status"] == "unknown"
    [third, _] = rows_of(chunks(raw, images="own"))
    assert third["regions"] == [] and third["region_status"] == "none_needed"


def test_csv_lines_and_rows_count_quoted_and_blank_lines(tmp_path: Path) -> None:
    text = HEADER + '\na.png,"two\nlines",x,1,2,3,4\n\nb.png,short\nc.png,q,a,1,2,3,4,5\nd.png,q,a,1,2,3,four\n'
    found = chunks(write(tmp_path, "a.csv", text), columns=CORNERS)
    assert rows_of(found)[0]["question"] == "two\nlines"
    assert found[0].row.tolist() == [0] and found[0].line is not None and found[0].line.tolist() == [3]
    assert drops_of(found) == [
        (1, 6, "2 cells, expected 7 as in the header"),
        (2, 7, "8 cells, expected 7 as in the header"),
        (3, 8, "columns.box holds ['1', '2', '3', 'four']; expected four finite numbers"),
    ]


def test_csv_damaged_quotes_and_bytes_lose_one_record_each(tmp_path: Path) -> None:
    text = HEADER.encode() + b'a.png,"x"y,z,1,2,3,4\nb.png,caf\xe9,z,1,2,3,4\nc.png,q,z,1,2,3,4\nd.png,"open,1\n'
    found = chunks(write(tmp_path, "a.csv", text), columns=CORNERS)
    assert [row["images"][0]["path"] for row in rows_of(found)] == ["c.png"]
    assert drops_of(found) == [
        (0, 2, "',' expected after '\"'"),
        (1, 3, "not UTF-8; save the file as UTF-8"),
        (3, 5, "unexpected end of data"),
    ]


@pytest.mark.parametrize(
    "header", ["image, question, answer", "\n\nimage,question,answer", '"image","question","answer"']
)
def test_csv_headers_that_tools_write(tmp_path: Path, header: str) -> None:
    [row] = rows_of(chunks(write(tmp_path, "a.csv", f"{header}\na.png, q, 7\n")))
    assert row["question"].strip() == "q" and row["answers"][0].strip() == "7"


def test_csv_delimiter_is_the_one_that_finds_the_columns(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.tsv", "image;with,many,commas\tquestion\tanswer\na.png\tq\ta\n")
    [row] = rows_of(chunks(raw, columns={"image": "image;with,many,commas"}))
    assert row["images"][0]["path"] == "a.png"


def test_csv_header_errors(tmp_path: Path) -> None:
    assert failure(RawError, write(tmp_path, "e.csv", "")) == (
        "e.csv: the file is empty; expected a header line with the names of the columns."
    )
    assert failure(RawError, write(tmp_path, "u.csv", "image,question".encode("utf-16"))) == (
        "u.csv: not UTF-8; save the file as UTF-8; expected a header line with the names of the columns."
    )
    assert failure(UsageError, write(tmp_path, "d.csv", "image,image,question,answer\n")) == (
        "d.csv: the header has two columns 'image'; rename one of them."
    )


def test_truncated_gzip_keeps_what_can_be_read(tmp_path: Path) -> None:
    body = HEADER + "".join(f"{i}.png,q{i * 7919},a,1,2,3,{i}\n" for i in range(20_000))
    raw = write(tmp_path, "a.csv.gz", gzip.compress(body.encode())[:-2000])
    found = chunks(raw, columns=CORNERS)
    last = drops_of(found)[-1]
    assert len(rows_of(found)) > 5_000
    assert last[2] == "truncated: Compressed file ended before the end-of-stream marker was reached"


def test_limit_counts_damaged_records(tmp_path: Path) -> None:
    lines = HEADER + "a.png,q,a,1,2,3,4\nb.png\nc.png,q,a,1,2,3,4\n"
    found = chunks(write(tmp_path, "a.csv", lines), limit=2, columns=CORNERS)
    assert len(rows_of(found)) == 1 and len(drops_of(found)) == 1
    pq.write_table(
        pa.table({"image": ["a", "b", "c"], "question": ["q"] * 3, "answer": [1, 2, 3]}),
        tmp_path / "a.parquet",
    )
    found = chunks(RawFile(tmp_path / "a.parquet", "a.parquet"), limit=2)
    assert [row["answers"] for row in rows_of(found)] == [["1"], ["2"]] and found[0].line is None


# Columns and takes ---------------------------------------------------------------------------------


def test_a_mapped_column_that_is_not_there_names_the_nearest(tmp_path: Path) -> None:
    text = "file,question,answer,x0,y0,x1,y1\na.png,q,a,1,2,3,4\n"
    raw = write(tmp_path, "own/receipts.csv", text)
    assert failure(UsageError, raw, columns={"image": "fil"}) == (
        "own/receipts.csv: columns.image of the take is 'fil' and the file has no such column, "
        "only file, question, answer, x0, y0, x1, y1; did you mean 'file'? Set columns.image in the recipe."
    )
    assert failure(UsageError, raw) == (
        "own/receipts.csv: columns.image of the take is 'image' and the file has no such column, "
        "only file, question, answer, x0, y0, x1, y1; set columns.image in the recipe."
    )
    wrong = {"image": "file", "box": ["x0", "y0", "x1", "z1"]}
    assert "columns.box of the take is 'z1'" in failure(UsageError, raw, columns=wrong)
    as_json = write(tmp_path, "a.jsonl", '{"image": "a.png", "question": "q", "anwser": "a"}\n')
    assert "only image, question, anwser; did you mean 'anwser'? Set columns.answer" in failure(UsageError, as_json)
    pq.write_table(pa.table({"image": ["a.png"], "question": ["q"], "answer": ["a"]}), tmp_path / "a.parquet")
    parquet = RawFile(tmp_path / "a.parquet", "a.parquet")
    assert "columns.id of the take is 'uid'" in failure(UsageError, parquet, columns={"id": "uid"})


def test_json_boxes_may_begin_late_and_must_begin_somewhere(tmp_path: Path) -> None:
    row = {"image": "a.png", "question": "q", "answer": "a"}
    lines = [json.dumps(row | {"question": "q" * 2_000}) + "\n" for _ in range(10_000)]
    raw = write(tmp_path, "a.jsonl", "".join(lines) + json.dumps(row | {"box": [1, 2, 3, 4]}))
    found = chunks(raw, columns={"box": "box"})
    assert len(found) > 1 and boxes(rows_of(found)[-1]) == [[1, 2, 3, 4]]
    assert "columns.box of the take is 'bocks'" in failure(UsageError, raw, columns={"box": "bocks"})


def test_a_question_that_ask_supplies_need_not_be_a_column(tmp_path: Path) -> None:
    raw = write(tmp_path, "a.csv", "image,answer\na.png,gull\n")
    [row] = rows_of(chunks(raw, ask="Which bird is this?"))
    assert row["question"] is None
    assert "columns.question of the take is 'frage'" in failure(UsageError, raw, ask="?", columns={"question": "frage"})
    assert "columns.question of the take is 'question'" in failure(UsageError, raw)


def test_files_that_are_no_tables(tmp_path: Path) -> None:
    assert failure(UsageError, write(tmp_path, "a.xlsx", "PK")) == (
        "a.xlsx: rows cannot be read from this kind of file; expected one of .csv .tsv .json .jsonl .ndjson .parquet."
    )
    assert failure(RawError, write(tmp_path, "a.parquet", "PK")).startswith("a.parquet: cannot be read as Parquet (")
    struct = pa.array([{"bytes": b"x", "path": "a.png"}])
    pq.write_table(pa.table({"image": struct, "question": ["q"], "answer": ["a"]}), tmp_path / "hf.parquet")
    assert failure(UsageError, RawFile(tmp_path / "hf.parquet", "hf.parquet")) == (
        "hf.parquet: the column 'image' holds the images themselves; save them as files under the raw "
        "root and set columns.image to a column with their names."
    )


# The page ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["receipts", "signs", "coco"])
def test_the_page_quotes_the_examples_and_they_are_recipes(name: str) -> None:
    path = DOCS / "examples" / f"{name}.toml"
    page = (DOCS / "own-data.md").read_text(encoding="utf-8")
    assert f"```toml\n{path.read_text(encoding='utf-8')}```" in page
    assert f"vpt-data build --recipe docs/examples/{name}.toml" in page
    [own] = load(str(path)).take.values()
    assert own.source in {"table", "coco_boxes"} and own.license


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").symlink_to(DOCS)
    page = (DOCS / "own-data.md").read_text(encoding="utf-8")
    few = {"sample": ["--rows", "50"], "build": ["--workers", "1"]}
    for command in re.findall(r"^vpt-data (.+)$", page, re.MULTILINE):
        arguments = shlex.split(command)
        result = CliRunner().invoke(main, arguments + few[arguments[0]])
        assert result.exit_code == 0, result.output
    found = {}
    for name in ("receipts", "signs", "coco"):
        manifest = json.loads((tmp_path / "corpora" / name / "manifest.json").read_text(encoding="utf-8"))
        [component] = manifest["components"]
        found[name] = component["repaired"], component["dropped"]
        assert component["kept"] > 0
    assert found == {"receipts": ({"swapped": 1}, {"empty_answer": 1}), "signs": ({}, {}), "coco": ({}, {})}
