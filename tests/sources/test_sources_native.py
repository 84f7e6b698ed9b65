"""CUB's lists and VSR's statements, as their owners give them."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from vpt_data.errors import RawError
from vpt_data.schema import ANNOTATION, Reason
from vpt_data.sources import cub, vsr
from vpt_data.sources.base import Chunk, Job
from vpt_data.upstream.rawfile import RawFile

LISTS = {
    "rows": "images.txt",
    "boxes": "bounding_boxes.txt",
    "labels": "image_class_labels.txt",
    "classes": "classes.txt",
    "split": "train_test_split.txt",
}
BIRDS = {
    "images.txt": "1 001.Black_footed_Albatross/A_1.jpg\n2 002.Le_Conte_Sparrow/B_2.jpg\n",
    "bounding_boxes.txt": "1 60.0 27.0 325.0 304.0\n2 1.0 2.0 3.0 4.0\n",
    "image_class_labels.txt": "1 1\n2 2\n",
    "classes.txt": "1 001.Black_footed_Albatross\n2 002.Le_Conte_Sparrow\n",
    "train_test_split.txt": "1 0\n2 1\n",
}
ATTRIBUTES = {
    "attributes.txt": "1 has_size::large_(16_-_32_in)\n2 has_crown_color::blue\n",
    "image_attribute_labels.txt": "1 1 1 4 10.5\n1 2 1 2 3.0\n1 2 0 4 3.0\n2 2 1 3 0 7 9.9\n",
}


def raw_file(root: Path, name: str) -> RawFile:
    path = root / name
    return RawFile(path if path.exists() else root / f"{name}.gz", name)


def read_cub(folder: Path, content: dict[str, str], limit: int | None = None) -> Chunk:
    for name, text in content.items():
        (folder / name).write_text(text, encoding="utf-8")
    roles = LISTS | {"attributes": "attributes.txt", "attribute_labels": "image_attribute_labels.txt"}
    files = {role: raw_file(folder, name) for role, name in roles.items() if name in content}
    [chunk] = cub.read(Job("cub", "cub", files, limit=limit))
    assert chunk.annotations.schema == ANNOTATION
    return chunk


def test_a_bird_is_one_record_with_its_box_species_and_split(tmp_path: Path) -> None:
    chunk = read_cub(tmp_path, BIRDS)
    first, second = chunk.annotations.to_pylist()
    image = {
        "path": "cub/CUB_200_2011/images/001.Black_footed_Albatross/A_1.jpg",
        "width": None,
        "height": None,
    }
    assert first == {
        "source": "cub", "dataset": "cub", "split": "test", "key": "1", "source_id": "1", "images": [image],
        "question": None, "answers": ["Black footed Albatross"],
        "regions": [{"image": 0, "box": [60.0, 27.0, 385.0, 331.0], "label": "bird"}],
        "region_status": "given", "turns": None, "meta": '{"class_id": 1}',
    }  # fmt: skip
    assert (second["split"], second["answers"]) == ("train", ["Le Conte Sparrow"])
    assert chunk.row.tolist() == [0, 1] and chunk.line is not None and chunk.line.tolist() == [1, 2]
    assert len(read_cub(tmp_path, BIRDS, limit=1).annotations) == 1


def test_attributes_that_are_present_and_at_least_probable(tmp_path: Path) -> None:
    rows = read_cub(tmp_path, BIRDS | ATTRIBUTES).annotations.to_pylist()
    assert [json.loads(row["meta"])["attributes"] for row in rows] == [
        ["has_size::large_(16_-_32_in)"],
        ["has_crown_color::blue"],
    ]


@pytest.mark.parametrize(
    ("name", "text", "detail"),
    [
        ("bounding_boxes.txt", "2 1 2 3 4\n", "bounding_boxes.txt has no box for image 1"),
        ("image_class_labels.txt", "2 2\n", "image_class_labels.txt has no class for image 1"),
        ("train_test_split.txt", "2 1\n", "train_test_split.txt has no split for image 1"),
        ("classes.txt", "2 002.Le_Conte_Sparrow\n", "classes.txt has no class 1"),
    ],
)
def test_lists_that_disagree_lose_the_image(tmp_path: Path, name: str, text: str, detail: str) -> None:
    chunk = read_cub(tmp_path, BIRDS | {name: text})
    assert [row["key"] for row in chunk.annotations.to_pylist()] == ["2"]
    [drop] = chunk.drops
    assert drop == (0, 1, Reason.MALFORMED, f"{detail}; expected all lists to be of the same release", "cub")


def test_damaged_lines(tmp_path: Path) -> None:
    chunk = read_cub(tmp_path, BIRDS | {"images.txt": "1\n\n2 a.jpg\nx b.jpg\n"})
    assert [(drop.row, drop.line, drop.detail) for drop in chunk.drops] == [
        (0, 1, "found '1', expected 'image path'"),
        (2, 4, "found 'x b.jpg', expected 'image path'"),
    ]
    for name, text, message in [
        ("bounding_boxes.txt", "1 1 2 3\n", "found '1 1 2 3', expected 'image x y width height'"),
        ("train_test_split.txt", "1 0\n2 7\n", "found '2 7', expected 'image 0|1'"),
        ("classes.txt", "1 Albatross\n", "found '1 Albatross', expected 'class 001.Species_name'"),
    ]:
        with pytest.raises(RawError) as caught:
            read_cub(tmp_path, BIRDS | {name: text})
        line = text.count("\n")
        assert str(caught.value) == f"{name} line {line}: {message}; extract the file again."
    with pytest.raises(RawError) as caught:
        read_cub(tmp_path, BIRDS | ATTRIBUTES | {"image_attribute_labels.txt": "1 9 1 4 1.0\n"})
    assert str(caught.value) == (
        "image_attribute_labels.txt line 1: found b'1 9 1 4 1.0\\n', expected "
        "'image attribute present certainty' with an attribute of attributes.txt; extract the file again."
    )


def test_real_cub_boxes_are_those_of_visual_cot(shared: Path) -> None:
    root = shared / "data" / "raw"
    files = {role: raw_file(root, f"cub/CUB_200_2011/{name}") for role, name in LISTS.items()}
    [chunk] = cub.read(Job("cub", "cub", files))
    assert len(chunk.annotations) == 2_889 and chunk.drops == []
    rows = chunk.annotations.to_pylist()
    prefix = "cub/CUB_200_2011/images/"
    ours = {row["images"][0]["path"].removeprefix(prefix): row for row in rows}
    compared = Counter[bool]()
    with gzip.open(root / "visual_cot/viscot_dataset/cub_cot_train.jsonl.gz") as file:
        for line in file:
            theirs = json.loads(line)
            if theirs["image"] in ours:
                row = ours[theirs["image"]]
                compared[[region["box"] for region in row["regions"]] == theirs["bboxs"]] += 1
                assert row["split"] == "train"
    assert compared == {True: 2_484}
    assert len({row["answers"][0] for row in rows}) == 50
    assert not any("_" in row["answers"][0] or "." in row["answers"][0] for row in rows)


# VSR ---------------------------------------------------------------------------------------------------

BENCH, UMBRELLA, BEAR, TEDDY = 15, 28, 23, 88
COCO = {
    "images": [{"id": 5, "file_name": "5.jpg", "width": 640, "height": 428}],
    "annotations": [
        {"id": 1, "image_id": 5, "category_id": BENCH, "bbox": [10, 20, 30, 40], "iscrowd": 0},
        {"id": 2, "image_id": 5, "category_id": TEDDY, "bbox": [1, 2, 3, 4], "iscrowd": 0},
        {"id": 3, "image_id": 5, "category_id": TEDDY, "bbox": [0, 0, 9, 9], "iscrowd": 1},
        {"id": 4, "image_id": 5, "category_id": UMBRELLA, "bbox": [0, 0, 9, 9]},
        {"id": 5, "image_id": 5, "category_id": UMBRELLA, "bbox": [1, 1, 9, 9]},
    ],
    "categories": [
        {"id": BENCH, "name": "bench"},
        {"id": UMBRELLA, "name": "umbrella"},
        {"id": BEAR, "name": "bear"},
        {"id": TEDDY, "name": "teddy bear"},
    ],
}


def statement(caption: str, relation: str, **values: Any) -> dict[str, Any]:
    link = "http://images.cocodataset.org/val2017/5.jpg"
    return {
        "image": "5.jpg",
        "image_link": link,
        "caption": caption,
        "label": 1,
        "relation": relation,
    } | values


def read_vsr(folder: Path, rows: list[dict[str, Any]], name: str = "dev.jsonl") -> Chunk:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "instances.json").write_text(json.dumps(COCO))
    files = {
        "rows": RawFile(folder / name, name),
        "instances_train": RawFile(folder / "instances.json", "i.json"),
    }
    [chunk] = vsr.read(Job("vsr", "random_dev", files))
    assert chunk.annotations.schema == ANNOTATION
    return chunk


def test_a_statement_has_the_boxes_of_its_subject_and_object(tmp_path: Path) -> None:
    [row] = read_vsr(tmp_path, [statement("The teddy bear is on the bench.", "on")]).annotations.to_pylist()
    assert row == {
        "source": "vsr", "dataset": "vsr", "split": "dev", "key": None, "source_id": None,
        "images": [{"path": "coco/val2017/5.jpg", "width": 640, "height": 428}],
        "question": "The teddy bear is on the bench.", "answers": ["Yes"],
        "regions": [
            {"image": 0, "box": [1.0, 2.0, 4.0, 6.0], "label": "teddy bear"},
            {"image": 0, "box": [10.0, 20.0, 40.0, 60.0], "label": "bench"},
        ],
        "region_status": "given", "turns": None,
        "meta": '{"relation": "on", "subject": "teddy bear", "object": "bench"}',
    }  # fmt: skip


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (
            statement("The umbrella is on the bench.", "on"),
            "2 instances of umbrella in the image, expected one",
        ),
        (statement("The bench is on the bear.", "on"), "0 instances of bear in the image, expected one"),
        (statement("The bench is on the bench.", "on"), "subject and object are both bench"),
        (
            statement("The bench is on the moon.", "on"),
            "the caption does not name two COCO categories around its relation",
        ),
        (
            statement("The bench is on the umbrella.", "beside"),
            "the caption does not name two COCO categories around its relation",
        ),
        (
            statement("The x is on the y.", "on", subj="bench", obj="rocket"),
            "0 instances of rocket in the image, expected one",
        ),
        (
            statement("The teddy bear is on the bench.", "on", image="6.jpg"),
            "the image is not in the COCO instances",
        ),
    ],
)
def test_statements_whose_regions_nobody_knows(tmp_path: Path, row: dict[str, Any], why: str) -> None:
    [found] = read_vsr(tmp_path, [row]).annotations.to_pylist()
    assert (found["regions"], found["region_status"]) == ([], "unknown")
    assert json.loads(found["meta"])["no_region"] == why
    assert (found["images"][0]["width"] is None) == (row["image"] == "6.jpg")


def test_statement_fields(tmp_path: Path) -> None:
    rows = [
        statement("The x is on the y.", "on", subj="teddy bear", obj="bench", label=0, image_link=""),
        statement("The bench is on the bear.", "on", label=2),
    ]
    chunk = read_vsr(tmp_path, rows, "all_vsr_validated_data.jsonl")
    [row] = chunk.annotations.to_pylist()
    assert row["answers"] == ["No"] and row["split"] is None and len(row["regions"]) == 2
    assert row["images"][0]["path"] == "coco/train2017/5.jpg"
    assert [(drop.row, drop.line, drop.detail) for drop in chunk.drops] == [
        (1, 2, "Invalid enum value 2 - at `$.label`")
    ]


@pytest.mark.parametrize(("split", "rows", "true"), [("random", 1_097, 564), ("zeroshot", 340, 167)])
def test_real_statements_all_name_two_coco_categories(shared: Path, split: str, rows: int, true: int) -> None:
    root = shared / "data" / "raw"
    files = {
        "rows": raw_file(root, f"vsr/splits/{split}/dev.jsonl"),
        "instances_train": raw_file(root, "coco/annotations/instances_train2017.json"),
    }
    [chunk] = vsr.read(Job("vsr", f"{split}_dev", files))
    found = chunk.annotations.to_pylist()
    assert len(found) == rows and chunk.drops == []
    assert Counter(row["answers"][0] for row in found) == {"Yes": true, "No": rows - true}
    metas = [json.loads(row["meta"]) for row in found]
    assert all(meta["subject"] and meta["object"] for meta in metas)
    # None of the 32 images of the slice is in the development splits: all stay, without a region.
    assert {meta["no_region"] for meta in metas} == {"the image is not in the COCO instances"}


def test_a_real_statement_with_real_boxes(shared: Path) -> None:
    root = shared / "data" / "raw"
    files = {
        "rows": raw_file(root, "vsr/data_files/all_vsr_raw_data.jsonl"),
        "instances_train": raw_file(root, "coco/annotations/instances_train2017.json"),
    }
    [chunk] = vsr.read(Job("vsr", "vsr", files))
    found = chunk.annotations.to_pylist()
    assert len(found) == 12_809 and chunk.drops == []
    [row] = [row for row in found if row["region_status"] == "given"]
    assert row["question"] == "The bench is adjacent to the umbrella."
    assert row["images"] == [{"path": "coco/val2017/000000308394.jpg", "width": 640, "height": 428}]
    bench, umbrella = row["regions"]
    assert bench["box"] == pytest.approx([183.7, 258.72, 504.94, 421.27]) and bench["label"] == "bench"
    assert umbrella["box"] == pytest.approx([88.89, 235.83, 157.43, 428.0]) and umbrella["label"] == "umbrella"
