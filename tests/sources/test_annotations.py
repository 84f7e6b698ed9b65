"""The nested columns that readers build have the types of the schema, and their rows the right numbers."""

from __future__ import annotations

import numpy as np

from vpt_data.schema import ANNOTATION, Reason
from vpt_data.sources.base import Drop
from vpt_data.sources.reading import annotations
from vpt_data.sources.reading.json_records import Records


def test_columns_have_the_types_of_the_schema() -> None:
    offsets = annotations.offsets_of([2, 0, 1])
    assert offsets.tolist() == [0, 2, 2, 3]
    boxes = np.arange(12, dtype=np.float64).reshape(3, 4)
    table = annotations.annotation_table(
        3,
        source="s",
        images=annotations.images_array(["p", None, "q"], [640.0, 1, 2], [480, 1, 3.0]),
        answers=annotations.answers_array(offsets, ["a", "b", "c"]),
        regions=annotations.regions_array(offsets, boxes, labels=["cat", None, "dog"]),
        turns=annotations.turns_array(offsets, ["user", "assistant", "user"], ["1", "2", "3"]),
        meta=["{}", None, None],
    )
    table.validate(full=True)
    assert table.schema.equals(ANNOTATION)
    rows = table.to_pylist()
    assert [row["source"] for row in rows] == ["s"] * 3
    assert [row["key"] for row in rows] == [None] * 3
    assert rows[0]["images"] == [{"path": "p", "width": 640, "height": 480}]
    assert rows[1]["images"] == [] == rows[1]["answers"] == rows[1]["regions"] == rows[1]["turns"]
    assert rows[2]["images"] == [{"path": "q", "width": 2, "height": 3}]
    assert rows[0]["regions"][0] == {"image": 0, "box": [0.0, 1.0, 2.0, 3.0], "label": "cat"}
    assert rows[2]["regions"] == [{"image": 0, "box": [8.0, 9.0, 10.0, 11.0], "label": "dog"}]
    assert rows[2]["turns"] == [{"role": "user", "content": "3"}]


def test_columns_of_no_rows_are_well_formed() -> None:
    table = annotations.annotation_table(
        0, source="s", images=annotations.images_array([]), regions=annotations.no_regions(0)
    )
    table.validate(full=True)
    assert table.schema.equals(ANNOTATION)
    assert table.num_rows == 0


def test_without_moves_values_to_bad_and_keeps_the_order() -> None:
    old = Drop(1, 2, Reason.MALFORMED, "old")
    found = Records(["x", "y", "z"], np.array([0, 2, 3]), np.array([1, 3, 4]), [old])
    left = found.without({2: "last", 0: "first"}, {0: "coco"})
    assert (left.values, left.row.tolist(), left.line.tolist()) == (["y"], [2], [3])
    assert left.bad == [
        Drop(0, 1, Reason.MALFORMED, "first", "coco"), old, Drop(3, 4, Reason.MALFORMED, "last", None)
    ]  # fmt: skip
    assert found.without({}) is found
