"""Own questions joined to a COCO-format file."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from helpers.own_data import boxes, drops_of, rows_of, take, write

from vpt_data.errors import RawError, UsageError
from vpt_data.sources import coco_boxes
from vpt_data.sources.base import Chunk, Job

COCO = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": 640, "height": 480},
        {"id": 8, "coco_url": "http://images.example/val2017/b.jpg", "width": 64, "height": 48},
    ],
    "annotations": [
        {
            "id": 1,
            "image_id": 7,
            "category_id": 18,
            "bbox": [10, 20, 30, 40],
            "iscrowd": 0,
            "segmentation": [[1]],
        },
        {"id": 2, "image_id": 7, "category_id": 18, "bbox": [1.5, 2, 3, 4]},
        {"id": 3, "image_id": 7, "category_id": 18, "bbox": [0, 0, 640, 480], "iscrowd": 1},
        {"id": 4, "image_id": 7, "category_id": 88, "bbox": [5, 5, 5, 5], "iscrowd": 0},
    ],
    "categories": [{"id": 18, "name": "dog"}, {"id": 88, "name": "teddy bear"}],
}


def coco(tmp_path: Path, questions: list[dict[str, Any]], content: Any = COCO, **values: Any) -> list[Chunk]:
    files = {
        "boxes": write(tmp_path, "own/instances.json.gz", gzip.compress(json.dumps(content).encode())),
        "rows": write(tmp_path, "own/questions.jsonl", "".join(json.dumps(row) + "\n" for row in questions)),
    }
    return list(coco_boxes.read(Job("coco_boxes", "questions", files, take(source="coco_boxes", **values))))


def ask(image: Any, category: Any) -> dict[str, Any]:
    return {"image": image, "question": "How many?", "answer": 2, "category": category}


def test_coco_regions_are_the_instances_of_the_category(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = [
        ask("a.jpg", "dog"),
        ask(7, ["teddy bear", "dog", "dog"]),
        ask("7", "Dog"),
        ask(8, "dog"),
        ask(7, None),
    ]
    found = coco(tmp_path, asked, images="own/images")
    rows = rows_of(found)
    assert capsys.readouterr().out == ""
    assert rows[0]["images"] == [{"path": "own/images/a.jpg", "width": 640, "height": 480}]
    assert boxes(rows[0]) == [[10, 20, 40, 60], [1.5, 2, 4.5, 6]] == boxes(rows[2])
    assert [region["label"] for region in rows[1]["regions"]] == ["teddy bear", "dog", "dog"]
    assert rows[3]["images"][0]["path"] == "own/images/val2017/b.jpg"
    assert [row["region_status"] for row in rows] == ["given", "given", "given", "unknown", "unknown"]
    assert json.loads(rows[3]["meta"]) == {"no_region": "no instance of dog in the image"}
    assert json.loads(rows[4]["meta"]) == {"no_region": "no category is named"}
    assert rows[0]["dataset"] == "questions" and rows[0]["answers"] == ["2"] and rows[0]["meta"] is None


def test_coco_category_lists_in_a_csv(tmp_path: Path) -> None:
    raw = write(tmp_path, "q.csv", 'image,question,answer,what\na.jpg,q,a,"[""dog"", ""teddy bear""]"\n')
    boxes_file = write(tmp_path, "i.json", json.dumps(COCO))
    job = Job("coco_boxes", "t", {"rows": raw, "boxes": boxes_file}, take(columns={"category": "what"}))
    [row] = rows_of(list(coco_boxes.read(job)))
    assert len(row["regions"]) == 3


def test_coco_unknown_names_are_malformed(tmp_path: Path) -> None:
    found = coco(tmp_path, [ask("c.jpg", "dog"), ask("a.jpg", "tedy bear"), ask(9, "dog"), ask(None, "dog")])
    where = "own/instances.json; expected a file name or an image id of it"
    assert drops_of(found) == [
        (0, 1, f"image 'c.jpg' is not in {where}"),
        (1, 2, "category 'tedy bear' is not one of own/instances.json; the nearest is 'teddy bear'"),
        (2, 3, f"image 9 is not in {where}"),
        (3, 4, f"image None is not in {where}"),
    ]


def test_coco_files_that_do_not_fit(tmp_path: Path) -> None:
    with pytest.raises(RawError) as caught:
        coco(tmp_path, [ask("a.jpg", "dog")], {"images": []})
    assert str(caught.value) == (
        "own/instances.json: not COCO instances (Object missing required field `annotations`); "
        "expected an object with images, annotations and categories."
    )
    with pytest.raises(UsageError, match=r"columns\.category of the take is 'category'"):
        coco(tmp_path, [{"image": "a.jpg", "question": "q", "answer": "a"}])
    rows = write(tmp_path, "q.jsonl", json.dumps(ask("a.jpg", "dog")))
    with pytest.raises(RawError) as caught:
        list(coco_boxes.read(Job("coco_boxes", "t", {"rows": rows}, take())))
    assert str(caught.value) == "q.jsonl: there is no COCO JSON to join to; set instances in the recipe."
    cut = write(tmp_path, "i.json.gz", gzip.compress(json.dumps(COCO).encode())[:-20])
    with pytest.raises(RawError) as caught:
        list(coco_boxes.read(Job("coco_boxes", "t", {"rows": rows, "boxes": cut}, take())))
    assert str(caught.value) == (
        "i.json: cannot be decompressed (Compressed file ended before the end-of-stream marker was reached); "
        "fetch the file again."
    )
