"""Own data: what a cell may hold, and what is said of one that cannot be read."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.own_data import boxes, chunks, drops_of, rows_of, take, write

from vpt_data.errors import UsageError
from vpt_data.take import own_dataset
from vpt_data.upstream.rawfile import RawFile


def one(tmp_path: Path, record: dict[str, Any], **values: Any) -> dict[str, Any]:
    base = {"image": "a.png", "question": "q", "answer": "a"}
    [row] = rows_of(chunks(write(tmp_path, "a.json", json.dumps([base | record])), **values))
    return row


def dropped(tmp_path: Path, record: dict[str, Any], **values: Any) -> str:
    base = {"image": "a.png", "question": "q", "answer": "a"}
    found = chunks(write(tmp_path, "a.jsonl", "\n" + json.dumps(base | record)), **values)
    assert rows_of(found) == []
    [(row, line, detail)] = drops_of(found)
    assert (row, line) == (0, 2)
    return detail


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        ([1, 2, 3, 4], [[1, 2, 3, 4]]),
        ([[1, 2, 3, 4.5], [5, 6, 7, 8]], [[1, 2, 3, 4.5], [5, 6, 7, 8]]),
        ("1 2 3 4", [[1, 2, 3, 4]]),
        (" 1,2, 3 ; 4", [[1, 2, 3, 4]]),
        ("(1.0, 2, 3, 4)", [[1, 2, 3, 4]]),
        ("[[1, 2, 3, 4]]", [[1, 2, 3, 4]]),
        (["1", "2", "3", "4"], [[1, 2, 3, 4]]),
        ([], []),
        ("", []),
        ("[]", []),
        (None, []),
    ],
)
def test_forms_of_a_box(tmp_path: Path, cell: Any, found: list[list[float]]) -> None:
    row = one(tmp_path, {"box": cell}, columns={"box": "box"})
    assert boxes(row) == found
    assert row["region_status"] == ("given" if found else "unknown")


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ([1, 2, 3], "columns.box holds [1, 2, 3]; expected four finite numbers"),
        ([[1, 2, 3, 4], [1]], "columns.box holds [1]; expected four finite numbers"),
        ([1, 2, 3, True], "columns.box holds [1, 2, 3, True]; expected four finite numbers"),
        ("1 2 nan 4", "columns.box holds '1 2 nan 4'; expected four finite numbers"),
        ("10,5 2 3 4", "columns.box holds '10,5 2 3 4'; expected four finite numbers"),
        ({"x": 1}, "columns.box holds {'x': 1}; expected four finite numbers"),
        (7, "columns.box holds 7; expected four finite numbers"),
        ("[1, 2", "columns.box holds '[1, 2', which is not JSON (Input data was truncated)"),
        (["a" * 80], f"columns.box holds ['{'a' * 55}...; expected four finite numbers"),
    ],
)
def test_boxes_that_are_none(tmp_path: Path, cell: Any, message: str) -> None:
    assert dropped(tmp_path, {"box": cell}, columns={"box": "box"}) == message


def test_formats_and_units_of_boxes(tmp_path: Path) -> None:
    size = {"w": 640, "h": 480.0, "box": [100, 50, 40, 20]}
    columns = {"box": "box", "width": "w", "height": "h"}
    assert boxes(one(tmp_path, size, columns=columns, box_format="xywh")) == [[100, 50, 140, 70]]
    assert boxes(one(tmp_path, size, columns=columns, box_format="cxcywh")) == [[80, 40, 120, 60]]
    assert boxes(one(tmp_path, size, columns=columns, box_units="permille")) == [[64, 24, 25.6, 9.6]]
    part = size | {"box": [0.5, 0.5, 0.5, 1]}
    row = one(tmp_path, part, columns=columns, box_units="fraction", box_format="cxcywh")
    assert boxes(row) == [[160, 0, 480, 480]]
    assert row["images"] == [{"path": "a.png", "width": 640, "height": 480}]
    unsized = part | {"w": None, "h": ""}
    assert boxes(one(tmp_path, unsized, columns=columns)) == [[0.5, 0.5, 0.5, 1]]
    # The image says its size later; until then the box stays as it is.
    assert boxes(one(tmp_path, unsized, columns=columns, box_units="fraction")) == [[0.5, 0.5, 0.5, 1]]


def test_half_a_size_is_none(tmp_path: Path) -> None:
    columns = {"box": "box", "width": "w", "height": "h"}
    half = "only one of width and height is filled in; expected both or neither"
    assert dropped(tmp_path, {"w": 640, "h": "", "box": [1, 2, 3, 4]}, columns=columns) == half
    none = "rescale goes by the size that the boxes were drawn on, and width and height are empty"
    assert dropped(tmp_path, {"w": None, "h": "", "box": [1, 2, 3, 4]}, columns=columns, rescale=True) == none


@pytest.mark.parametrize("cell", [0, -5, 10.5, "wide", True, 2**31, [3]])
def test_sizes_that_are_none(tmp_path: Path, cell: Any) -> None:
    columns = {"width": "w", "height": "h"}
    message = f"columns.width holds {cell!r}; expected a whole number of pixels, at least 1"
    assert dropped(tmp_path, {"w": cell, "h": 5}, columns=columns) == message


@pytest.mark.parametrize(
    ("cell", "found"),
    [
        (1, ["1"]),
        (2.5, ["2.5"]),
        (True, ["true"]),
        ("", [""]),
        (None, []),
        ([], []),
        (["b", "a", None, "", 3], ["b", "a", "3"]),
        ([None, "a"], []),
    ],
)
def test_answers_become_text(tmp_path: Path, cell: Any, found: list[str]) -> None:
    assert one(tmp_path, {"answer": cell})["answers"] == found


def test_several_answer_columns_and_their_target(tmp_path: Path) -> None:
    columns = {"answer": ["answer", "also"]}
    assert one(tmp_path, {"also": ["b", "c"]}, columns=columns)["answers"] == ["a", "b", "c"]
    assert one(tmp_path, {"answer": [], "also": "b"}, columns=columns)["answers"] == []
    assert dropped(tmp_path, {"answer": {"text": "a"}}) == (
        "columns.answer holds {'text': 'a'}; expected text or a number"
    )
    assert dropped(tmp_path, {"question": ["a"]}) == "columns.question holds ['a']; expected text or a number"


def test_parquet_types_become_text(tmp_path: Path) -> None:

    path = tmp_path / "a.parquet"
    answers = [
        pa.array([0.1, None], pa.float32()),
        pa.array([datetime.date(2026, 11, 21), None]),
        pa.array([Decimal("1.50"), None]),
        pa.array([float("nan"), None]),
        pa.array(["x", None]).dictionary_encode(),
    ]
    found = []
    for answer in answers:
        pq.write_table(pa.table({"image": ["a.png"] * 2, "question": ["q"] * 2, "answer": answer}), path)
        found.append([row["answers"] for row in rows_of(chunks(RawFile(path, "a.parquet")))])
    assert found == [[["0.1"], []], [["2026-11-21"], []], [["1.50"], []], [[], []], [["x"], []]]


def test_labels(tmp_path: Path) -> None:
    columns = {"box": "box", "label": "label"}
    record = {"box": [[1, 2, 3, 4], [5, 6, 7, 8]], "label": ["total", "date"]}
    assert [region["label"] for region in one(tmp_path, record, columns=columns)["regions"]] == [
        "total",
        "date",
    ]
    both = one(tmp_path, record | {"label": "total"}, columns=columns)
    assert [region["label"] for region in both["regions"]] == ["total", "total"]
    assert [region["label"] for region in one(tmp_path, record, columns={"box": "box"})["regions"]] == [
        None,
        None,
    ]
    assert dropped(tmp_path, record | {"label": ["total"]}, columns=columns) == (
        "columns.label holds 1 labels for 2 boxes; expected one each"
    )


@pytest.mark.parametrize(
    ("folder", "cell", "path"),
    [
        ("", "a.png", "a.png"),
        ("own/images/", "./x/../a.png", "own/images/a.png"),
        ("own", "sub\\a.png", "own/sub/a.png"),
        ("own", "../../a.png", "../a.png"),
        ("own", "/a.png", "/a.png"),
    ],
)
def test_image_paths_are_canonical_and_never_made_safe(tmp_path: Path, folder: str, cell: str, path: str) -> None:
    assert one(tmp_path, {"image": cell}, images=folder)["images"][0]["path"] == path


def test_images_and_ids_that_are_none(tmp_path: Path) -> None:
    assert dropped(tmp_path, {"image": None}) == "columns.image holds None; expected the name of an image file"
    assert dropped(tmp_path, {"image": " "}) == "columns.image holds ' '; expected the name of an image file"
    assert dropped(tmp_path, {"image": "https://example.org/a.png"}) == (
        "columns.image holds the address 'https://example.org/a.png'; expected a file under the raw root"
    )
    assert dropped(tmp_path, {"id": None}, columns={"id": "id"}) == (
        "columns.id is empty; expected an id in every record"
    )
    row = one(tmp_path, {"id": 17}, columns={"id": "id"})
    assert row["key"] is None and row["source_id"] == "17"


@pytest.mark.parametrize("units", ["pixel", "permille"])
def test_fractions_given_as_something_else_are_refused(tmp_path: Path, units: str) -> None:
    size = {"w": 100, "h": 50}
    boxes = [0.1, 0.2, 0.5, 1], [0.2, 0.2, 0.5, 1]  # the same box twice would count once
    rows = [{"image": "a.png", "question": "q", "answer": "a", "box": box, **size} for box in boxes]
    raw = write(tmp_path, "a.json", json.dumps(rows))
    columns = {"box": "box", "width": "w", "height": "h"}
    with pytest.raises(UsageError) as caught:
        chunks(raw, columns=columns, box_units=units)
    assert str(caught.value) == (
        f"a.json: every box number is between 0 and 1, which is next to nothing in {units} units; "
        'set box_units = "fraction" in the take, or check_boxes = false if the boxes are right as they are.'
    )
    found = rows_of(chunks(raw, columns=columns, box_units="fraction"))
    assert found[0]["regions"][0]["box"] == [10, 10, 50, 50]


@pytest.mark.parametrize(
    ("named", "files", "dataset"),
    [
        ("till", ["own/receipts.csv"], "till"),
        (None, ["own/receipts.csv"], "receipts"),
        (None, ["own/receipts.csv.gz"], "receipts"),
        (None, ["own/receipts-1.csv", "own/receipts-2.csv"], "receipts"),
        (None, ["own/receipts-00000-of-00002.csv"], "receipts"),
        (None, ["own/receipts*.csv"], "receipts"),
        (None, ["own/receipts.part*.csv"], "receipts"),
        (None, ["own/page_12_boxes.csv"], "page_12_boxes"),
        (None, ["*"], "own"),
    ],
)
def test_the_dataset_is_the_one_named_or_what_the_files_are_called(
    named: str | None, files: list[str], dataset: str
) -> None:
    assert own_dataset(take(files=files, **({"dataset": named} if named else {}))) == dataset
