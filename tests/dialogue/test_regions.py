"""The region rule: eligibility, repairs, union and each, on made and on real boxes."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers.template_cases import DOG, TWO, annotation, check_rules, rule, table

from vpt_data.dialogue.regions import RegionState, inspect_regions, regions_px
from vpt_data.dialogue.render import render
from vpt_data.schema import Repair


@pytest.mark.parametrize(
    ("boxes", "size", "state", "repairs"),
    [
        ([[10, 10, 20, 20]], (100, 50), RegionState.OK, 0),
        ([[20, 10, 10, 20]], (100, 50), RegionState.OK, Repair.SWAPPED),
        ([[-5, 10, 20, 70]], (100, 50), RegionState.OK, Repair.CLIPPED),
        ([[10, 10, 10, 20]], (100, 50), RegionState.OK, Repair.ZERO_AREA),
        ([[200, 10, -1, 10]], (100, 50), RegionState.OK, Repair.SWAPPED | Repair.CLIPPED | Repair.ZERO_AREA),
        ([[10, 10, 20, 20], [200, 0, 300, 9]], (100, 50), RegionState.OK, Repair.CLIPPED),
        ([[300, 0, 200, 9]], (100, 50), RegionState.OUTSIDE, 0),
        ([[0, 0, float("nan"), 9]], (100, 50), RegionState.OUTSIDE, 0),
        ([None], (100, 50), RegionState.OUTSIDE, 0),
        ([], (100, 50), RegionState.NONE_GIVEN, 0),
        ([[10, 10, 20, 20]], (None, None), RegionState.NO_SIZE, 0),
        ([[10, 10, 20, 20]], (0, 50), RegionState.NO_SIZE, 0),
        ([[10, 10, 20, 20]], None, RegionState.NO_SIZE, 0),
    ],
)
def test_region_state_and_repairs(
    boxes: list[Any], size: tuple[int, int] | None, state: RegionState, repairs: int
) -> None:
    rows = table(DOG, annotation(boxes=boxes, size=size), DOG)
    flags, status = inspect_regions(rows)
    assert (status.tolist(), flags.tolist()) == ([0, state, 0], [0, repairs, 0])
    assert flags.dtype == np.uint16
    legacy, same = inspect_regions(rows, "legacy")
    assert same.tolist() == status.tolist(), "the edge rule does not decide who is eligible"
    assert legacy[1] == repairs & ~Repair.CLIPPED, "legacy does not clip"


def test_regions_union_each_and_legacy() -> None:
    far = annotation(boxes=[[10, 10, 20, 20], [600, 5, 700, 9], [30, 30, 40, 40], [10, 10, 20, 20]])
    rows = table(annotation(), far)
    assert regions_px(rows).boxes.tolist() == [[10, 10, 40, 40]]
    each = regions_px(rows, "each")
    assert (each.boxes.tolist(), each.row.tolist()) == ([[10, 10, 20, 20], [30, 30, 40, 40]], [1, 1])
    assert regions_px(rows, edge="legacy").boxes.tolist() == [[10, 5, 700, 40]]


def test_regions_keep_to_their_image() -> None:
    row = annotation(size=(500, 375))
    row["images"].append({"path": "b.jpg", "width": 80, "height": 40})
    row["regions"] = [{"image": i, "box": [0, 0, 9, 9 + i], "label": None} for i in (1, 0, 7)]
    union = regions_px(table(row))
    assert (union.image.tolist(), union.sizes.tolist(), union.boxes.tolist()) == (
        [1],
        [[80, 40]],
        [[0, 0, 9, 10]],
    )
    assert regions_px(table(row), "each").image.tolist() == [1, 0]
    samples = render(table(row), rule(boxes="each"))
    check_rules(samples)
    assert [view["image"] for view in samples["views"][0].as_py()] == [0, 1, 1, 0]


def test_regions_of_a_slice_and_of_null_lists() -> None:
    nothing = annotation() | {"regions": None, "images": None}
    rows = pa.concat_tables([table(nothing, DOG), table(TWO, DOG)])
    part = rows.slice(1, 2)
    assert regions_px(part).boxes.tolist() == [[0, 0, 490, 300], [10, 10, 420, 370]]
    assert inspect_regions(rows)[1].tolist() == [1, 0, 0, 0]
    assert render(part, rule()).equals(pa.concat_tables([render(part[i : i + 1], rule()) for i in range(2)]))


def test_legacy_survives_absurd_boxes() -> None:
    samples = render(table(annotation(boxes=[[-1e12, 5, 1e12, 9]])), rule(edge="legacy"))
    assert samples["views"][0][1]["cells"].as_py() == [0, 0, 800, 0]


def test_vsr_training_file(shared: Path) -> None:
    path = shared / "data/raw/visual_cot/viscot_dataset/vsr_cot_train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    rows = table(
        *(
            annotation(
                key=str(i),
                question=r["question"],
                answers=[r["answer"]],
                boxes=r["bboxs"],
                size=(r["width"], r["height"]),
            )
            for i, r in enumerate(records)
        )
    )
    assert set(inspect_regions(rows)[1]) == {RegionState.OK}
    cells = {}
    for edge in ("floor", "legacy"):
        samples = render(rows, rule(edge=edge))
        cells[edge] = np.array([views[1]["cells"] for views in samples["views"].to_pylist()])
        if edge == "floor":
            check_rules(samples)
    assert len(cells["floor"]) == 3376
    assert (cells["floor"] <= 7).all()
    assert (cells["legacy"] >= 8).any(axis=1).sum() == 986
