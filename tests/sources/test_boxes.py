"""Boxes of own data: frames become pixels, and a wrong convention is noticed by how the boxes fit their images."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from helpers import end_to_end
from helpers.image_files import encoded, exif, picture
from helpers.own_data import boxes, chunks, failure, rows_of, take, write
from helpers.packed import put
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry, recipe
from vpt_data.columns import column, quads, sizes_of_images, unlist
from vpt_data.errors import UsageError
from vpt_data.pipeline import build as pipeline
from vpt_data.pipeline import plan
from vpt_data.sources import SOURCES, locate
from vpt_data.sources.boxes import BoxGuard
from vpt_data.take import BoxFormat

COLUMNS = {"box": "box", "width": "w", "height": "h"}
TAIL = " in the take, or check_boxes = false if the boxes are right as they are."


def drawn(count: int, width: int, height: int, seed: int = 0) -> npt.NDArray[np.float64]:
    """Corners of boxes of any place and size in px, as people draw them."""
    plan = np.random.default_rng(seed)
    points = np.sort(plan.uniform(0, 1, (2, count, 2)), axis=0) * (width, height)
    return np.hstack([points[0], points[1]]).round(1)


def file_of(folder: Path, numbers: npt.NDArray[Any], size: tuple[int, int] | None, name: str = "a.jsonl") -> Any:
    stated = {} if size is None else {"w": size[0], "h": size[1]}
    rows = [
        {"image": f"{n % 7}.png", "question": f"q{n}", "answer": "a", "box": box, **stated}
        for n, box in enumerate(numbers.tolist())
    ]
    return write(folder, name, "".join(json.dumps(row) + "\n" for row in rows))


SAID = {"pixel": "pixels", "fraction": "fractions of the image", "permille": "thousandths of the image"}
FORMATS: list[BoxFormat] = ["xyxy", "xywh", "cxcywh", "yxyx"]


@pytest.mark.parametrize("size", [(640, 480), (480, 640), (1700, 2200)])
@pytest.mark.parametrize("meant", FORMATS)
@pytest.mark.parametrize("given", FORMATS)
def test_another_format_is_noticed_and_the_key_is_named(
    tmp_path: Path, size: tuple[int, int], meant: BoxFormat, given: BoxFormat
) -> None:
    raw = file_of(tmp_path, geometry.from_corners(drawn(100, *size), meant), size)
    if meant == given:
        assert len(rows_of(chunks(raw, columns=COLUMNS, box_format=given))) == 100
        return
    text = failure(UsageError, raw, columns=COLUMNS, box_format=given)
    assert text.startswith("a.jsonl: ")
    assert f" of 100 boxes do not fit their images as {'two' if given in {'xyxy', 'yxyx'} else 'a '}" in text
    assert text.endswith(f'; set box_format = "{meant}"{TAIL}')
    assert len(rows_of(chunks(raw, columns=COLUMNS, box_format=given, check_boxes=False))) == 100


@pytest.mark.parametrize("size", [(640, 480), (1700, 2200)])
@pytest.mark.parametrize("meant", ["pixel", "fraction", "permille"])
@pytest.mark.parametrize("given", ["pixel", "fraction", "permille"])
def test_other_units_are_noticed_and_the_key_is_named(
    tmp_path: Path, size: tuple[int, int], meant: str, given: str
) -> None:
    reach = {"pixel": size, "fraction": (1, 1), "permille": (1000, 1000)}[meant]
    raw = file_of(tmp_path, drawn(100, *size) / np.tile(size, 2) * np.tile(reach, 2), size)
    if meant == given:
        assert len(rows_of(chunks(raw, columns=COLUMNS, box_units=given))) == 100
        return
    text = failure(UsageError, raw, columns=COLUMNS, box_units=given)
    assert f'box_units = "{meant}"' in text.rpartition("; set ")[2], text
    assert text.endswith(TAIL)


def test_one_sentence_for_the_likeliest_mistake(tmp_path: Path) -> None:
    raw = file_of(tmp_path, geometry.from_corners(drawn(100, 640, 480), "xywh"), (640, 480))
    assert failure(UsageError, raw, columns=COLUMNS) == (
        "a.jsonl: 75 of 100 boxes do not fit their images as two corners (x0, y0, x1, y1) in pixels; they look like "
        'a corner and a size (x, y, width, height) in pixels; set box_format = "xywh"' + TAIL
    )


def test_boxes_of_unknown_size_are_judged_by_the_order_of_their_corners(tmp_path: Path) -> None:
    raw = file_of(tmp_path, geometry.from_corners(drawn(100, 640, 480), "xywh"), None)
    assert failure(UsageError, raw, columns={"box": "box"}).endswith(f'; set box_format = "xywh"{TAIL}')
    assert len(rows_of(chunks(raw, columns={"box": "box"}, box_format="xywh"))) == 100


def test_boxes_that_fit_nothing_are_left_to_the_repairs(tmp_path: Path) -> None:
    numbers = np.random.default_rng(1).uniform(-5_000, 5_000, (100, 4))
    assert len(rows_of(chunks(file_of(tmp_path, numbers, (640, 480)), columns=COLUMNS))) == 100


def test_a_few_odd_boxes_are_not_enough(tmp_path: Path) -> None:
    numbers = drawn(100, 640, 480)
    numbers[:9] = geometry.from_corners(numbers[:9] + 200, "xywh")
    assert len(rows_of(chunks(file_of(tmp_path, numbers, (640, 480)), columns=COLUMNS))) == 100


@pytest.mark.parametrize("filler", [[0, 0, 0, 0], [0, 0, 1, 1]])
def test_boxes_that_stand_for_none_in_a_part_of_a_file_do_not_end_a_build(
    tmp_path: Path, filler: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last part that is read at once holds nothing but such rows; the file is judged as a whole."""
    monkeypatch.setattr("vpt_data.sources.reading.tabular.STRETCH", 50)
    text = "image,question,answer,x0,y0,x1,y1\n"
    for n, box in enumerate([*drawn(50, 640, 480).tolist(), filler, filler]):
        text += f"a.png,q{n},a,{','.join(map(str, box))}\n"
    raw = write(tmp_path, "a.csv", text)
    assert len(rows_of(chunks(raw, columns={"box": ["x0", "y0", "x1", "y1"]}))) == 52
    only = write(tmp_path, "b.csv", "image,question,answer,x0,y0,x1,y1\n" + "a.png,q,a,0,0,0,0\n" * 2)
    assert len(rows_of(chunks(only, columns={"box": ["x0", "y0", "x1", "y1"]}))) == 2


def test_pages_with_margins_are_not_taken_for_permille(tmp_path: Path) -> None:
    """Nothing is drawn in the outer 3 % of 2,000 squares of 1024 px: no number is above 1000, by design."""
    margins = (drawn(2_000, 1024, 1024) * 0.94 + 1024 * 0.03).round()
    assert margins.max() < 1000
    assert len(rows_of(chunks(file_of(tmp_path, margins, (1024, 1024)), columns=COLUMNS))) == 2_000


def test_permille_is_noticed_on_larger_images_only(tmp_path: Path) -> None:
    """Read as pixels of a square of 1100 px permille are 9 % off at most, and look like pages with margins."""
    numbers = drawn(300, 1000, 1000)
    assert 'set box_units = "permille"' in failure(
        UsageError, file_of(tmp_path, numbers, (1280, 1280)), columns=COLUMNS
    )
    assert len(rows_of(chunks(file_of(tmp_path, numbers, (1100, 1100), "b.jsonl"), columns=COLUMNS))) == 300


def test_many_questions_about_one_box_count_as_one_box(tmp_path: Path) -> None:
    """Five boxes of 1280 x 1280 px with no number above 1000 prove nothing, however often each is asked about."""
    numbers = np.array([[100, 100, 900, 800], [20, 50, 700, 700], [1, 2, 90, 810], [5, 5, 500, 95], [9, 9, 850, 850]])
    rows = np.repeat(numbers, 70, axis=0)  # `file_of` goes through seven images
    assert len(rows_of(chunks(file_of(tmp_path, rows, (1280, 1280)), columns=COLUMNS))) == 350


@pytest.mark.parametrize("turned", [False, True])
def test_boxes_drawn_on_turned_photos_are_noticed(tmp_path: Path, turned: bool) -> None:
    """They are like boxes with y first; only the images tell which of the two it is."""
    raw = file_of(tmp_path, drawn(100, 480, 640), (640, 480))
    text = failure(UsageError, raw, columns=COLUMNS, turned=turned)
    assert ("which an EXIF orientation turns when they are shown" in text) == turned
    assert ("set columns.width and columns.height to columns with the sizes as shown in the take" in text) == turned
    assert ('set box_format = "yxyx"' in text) != turned


def test_the_orientation_is_read_from_the_images(tmp_path: Path) -> None:
    """640 x 480 stored, shown turned; boxes as an annotation tool shows them, a size nowhere."""
    for number in range(7):
        image = encoded(picture(size=(64, 48)), "JPEG", exif=exif(6))
        put(tmp_path / f"raw/own/images/{number}.png", image)
    file_of(tmp_path / "raw/own", drawn(40, 48, 64), None, "rows.jsonl")
    with pytest.raises(UsageError, match="which an EXIF orientation turns when they are shown"):
        end_to_end.build(own_recipe(tmp_path, ""), tmp_path / "raw", tmp_path / "corpus")


def own_recipe(folder: Path, more: str) -> Path:
    text = end_to_end.OWN.replace('box = "box", width = "w", height = "h"', 'box = "box"')
    return end_to_end.recipe_file(folder, text + more + "\n")


# Frames -------------------------------------------------------------------------------------------------------


@given(st.integers(1, 5_000), st.integers(1, 5_000), st.integers(1, 3_000), st.integers(1, 3_000))
def test_a_frame_is_a_resized_copy(
    tmp_path_factory: pytest.TempPathFactory, width: int, height: int, wide: int, high: int
) -> None:
    folder = tmp_path_factory.mktemp("frame")
    row = {"image": "a.png", "question": "q", "answer": "a", "box": [0, 0, wide, high], "w": width, "h": height}
    named = write(folder, "a.json", json.dumps([{**row, "fw": wide, "fh": high}]))
    assert boxes(rows_of(chunks(named, columns=COLUMNS, box_frame=["fw", "fh"]))[0]) == [[0, 0, width, height]]
    assert boxes(rows_of(chunks(named, columns=COLUMNS, box_frame=[wide, high]))[0]) == [[0, 0, width, height]]


def test_a_frame_that_is_not_filled_in_is_malformed(tmp_path: Path) -> None:
    rows = [{"image": "a.png", "question": "q", "answer": "a", "box": [0, 0, 5, 5], "fw": None, "fh": 3}]
    [chunk] = chunks(write(tmp_path, "a.json", json.dumps(rows)), columns={"box": "box"}, box_frame=["fw", "fh"])
    assert [drop.detail for drop in chunk.drops] == [
        "box_frame is empty and the record has a box; expected the width and height it counts in"
    ]
    raw = write(tmp_path, "b.json", json.dumps(rows))
    assert "box_frame of the take is 'fx' and the file has no such column" in failure(
        UsageError, raw, columns={"box": "box"}, box_frame=["fx", "fh"]
    )


@pytest.mark.parametrize(
    ("more", "reach"),
    [
        ('box_units = "fraction"', (1, 1)),
        ('box_units = "permille"', (1000, 1000)),
        ("box_frame = [336, 336]", (336, 336)),
        ("", (64, 48)),
    ],
)
def test_sizes_that_are_not_in_the_file_are_read_from_the_images(
    tmp_path: Path, more: str, reach: tuple[int, int]
) -> None:
    """The same boxes in any units give the same rows but for the text of their numbers."""
    for number in range(7):
        put(tmp_path / f"raw/own/images/{number}.png", encoded(picture(size=(64, 48)), "PNG"))
    places = drawn(40, 64, 48).round()
    file_of(tmp_path / "raw/own", places * np.tile(reach, 2) / (64, 48, 64, 48), None, "rows.jsonl")
    corpus = end_to_end.build(own_recipe(tmp_path, more), tmp_path / "raw", tmp_path / "corpus")
    rows = end_to_end.rows(corpus)
    assert len(rows) == 40
    for row in rows:
        question = row["messages"][0]["content"]
        number = next(n for n in range(40) if f"q{n} " in f"{question} ".replace("\n", " "))
        assert row["image_info"][0]["width"] == 64
        assert np.allclose(row["regions"][0]["box"], places[number])


def test_a_fraction_of_an_image_that_is_not_there_has_no_size(tmp_path: Path) -> None:
    put(tmp_path / "raw/own/images/0.png", encoded(picture(size=(64, 48)), "PNG"))
    file_of(tmp_path / "raw/own", drawn(14, 1, 1), None, "rows.jsonl")
    corpus = end_to_end.build(own_recipe(tmp_path, 'box_units = "fraction"'), tmp_path / "raw", tmp_path / "corpus")
    assert len(end_to_end.rows(corpus)) == 2
    assert {drop["reason"] for drop in end_to_end.drops(corpus)} == {"missing_image"}


def test_many_repaired_boxes_are_a_finding_of_strict(tmp_path: Path) -> None:
    """10 of 40 boxes with their corners swapped fit no other format, and are more than anybody should accept."""
    numbers = drawn(40, 64, 48)
    numbers[:10] = numbers[:10, [2, 3, 0, 1]]
    file_of(tmp_path / "raw/own", numbers, (64, 48), "rows.jsonl")
    planned = plan.make(recipe.load(str(end_to_end.recipe_file(tmp_path))), tmp_path / "raw", "reference", None)
    result = pipeline.build(planned, tmp_path / "corpus")
    [finding] = result.findings
    assert finding == (
        "take mine: the boxes of 25% of 40 rows were repaired (swapped 10), at most 10% are expected; look at some of "
        "them, and check box_format and box_units"
    )


# COCO-format files --------------------------------------------------------------------------------------------


def coco_root(folder: Path, numbers: npt.NDArray[Any], check: bool = True) -> Path:
    """A raw root with one question about each of seven images of 640 x 480 and their boxes, and its recipe."""
    rows = [{"image": f"{n}.png", "question": "q", "answer": "a", "category": "dog"} for n in range(7)]
    write(folder, "raw/own/rows.jsonl", end_to_end.lines(rows))
    listed = enumerate(numbers.tolist())
    content = {
        "images": [{"id": n, "file_name": f"{n}.png", "width": 640, "height": 480} for n in range(7)],
        "annotations": [{"id": n, "image_id": n % 7, "category_id": 1, "bbox": box} for n, box in listed],
        "categories": [{"id": 1, "name": "dog"}],
    }
    write(folder, "raw/own/boxes.json", json.dumps(content))
    text = end_to_end.OWN.replace('"table"', '"coco_boxes"\ninstances = "own/boxes.json"').partition("columns")[0]
    return end_to_end.recipe_file(folder, text + f"check_boxes = {str(check).lower()}\n")


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (
            drawn(100, 640, 480),
            (
                "76 of 100 boxes do not fit their images as a corner and a size (x, y, width, height) in pixels; they "
                "look like two corners (x0, y0, x1, y1) in pixels"
            ),
        ),
        (
            geometry.from_corners(drawn(100, 1, 1) * 0.99, "xywh"),
            "every box number is between 0 and 1, which is next to nothing in pixel units",
        ),
    ],
)
def test_a_coco_file_in_another_convention_is_noticed(
    tmp_path: Path, numbers: npt.NDArray[np.float64], expected: str
) -> None:
    with pytest.raises(UsageError) as caught:
        end_to_end.build(coco_root(tmp_path, numbers), tmp_path / "raw", tmp_path / "corpus")
    assert str(caught.value) == (
        f"own/boxes.json: {expected}; write x, y, width and height in pixels into the file, or set check_boxes = false "
        "in the take if the boxes are right as they are."
    )
    recipe_file = coco_root(tmp_path, numbers, check=False)
    assert len(end_to_end.rows(end_to_end.build(recipe_file, tmp_path / "raw", tmp_path / "corpus"))) == 7


def test_a_coco_file_in_its_own_convention_is_fine(tmp_path: Path) -> None:
    recipe_file = coco_root(tmp_path, geometry.from_corners(drawn(100, 640, 480), "xywh"))
    assert len(end_to_end.rows(end_to_end.build(recipe_file, tmp_path / "raw", tmp_path / "corpus"))) == 7


def test_a_row_that_is_repaired_twice_is_not_two_rows(tmp_path: Path) -> None:
    """All 40 boxes are both swapped and clipped: two repairs of each row, and not 200 % of the rows."""
    numbers = np.tile([[700.0, 500.0, -50.0, -60.0]], (40, 1))
    file_of(tmp_path / "raw/own", numbers, (640, 480), "rows.jsonl")
    loaded = recipe.load(str(end_to_end.recipe_file(tmp_path)), ["take.mine.check_boxes=false"])
    planned = plan.make(loaded, tmp_path / "raw", "reference", None)
    [finding] = pipeline.build(planned, tmp_path / "corpus").findings
    assert finding.startswith("take mine: the boxes of up to 100% of 40 rows were repaired (swapped 40, clipped 40)")


# Real sources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["viscot", "viscot_benchmark"])
def test_the_guard_is_quiet_on_real_sources_and_not_if_they_are_misread(shared: Path, source: str) -> None:
    for job in locate.find(shared / "data/raw", source, None).jobs:
        guards = {form: BoxGuard(job.rows.name, take(box_format=form)) for form in FORMATS}
        for chunk in SOURCES[source].read(job):
            regions = unlist(column(chunk.annotations, "regions"))
            if not len(regions.values):
                continue
            frame = np.full((len(chunk.row), 2), np.nan)
            for form, guard in guards.items():
                # What a reader would make of the same numbers if the take said this format.
                box, _ = quads(regions.values, "box", np.nan)
                misread = geometry.corners(box, form)
                moved = with_boxes(chunk.annotations, misread)
                guard.add(moved, frame)
            assert (sizes_of_images(regions, unlist(column(chunk.annotations, "images"))) > 0).all()
        guards["xyxy"].check(lambda path: False)
        for form in FORMATS[1:]:
            with pytest.raises(UsageError, match='set box_format = "xyxy"'):
                guards[form].check(lambda path: False)


def with_boxes(annotations: Any, corners: npt.NDArray[np.float64]) -> Any:
    from vpt_data.sources.reading.annotations import regions_array

    offsets = np.append(0, np.cumsum(unlist(column(annotations, "regions")).lengths))
    place = annotations.schema.get_field_index("regions")
    return annotations.set_column(place, annotations.schema.field(place), regions_array(offsets, corners))


@pytest.mark.parametrize("source", ["viscot", "viscot_benchmark"])
@pytest.mark.parametrize("side", [(1024, 1024), (1024, 768), (1100, 1100), (1280, 960), (1600, 1600)])
def test_the_guard_is_quiet_on_real_boxes_of_larger_images(shared: Path, source: str, side: tuple[int, int]) -> None:
    """The same boxes on images of other sizes: none of them looks like permille there."""
    for job in locate.find(shared / "data/raw", source, None).jobs:
        guard = BoxGuard(job.rows.name, take())
        for chunk in SOURCES[source].read(job):
            regions, images = unlist(column(chunk.annotations, "regions")), column(chunk.annotations, "images")
            if not len(regions.values):
                continue
            box, _ = quads(regions.values, "box", np.nan)
            scaled = box / np.tile(sizes_of_images(regions, unlist(images)), 2) * np.tile(side, 2)
            guard.add(
                with_sides(with_boxes(chunk.annotations, scaled.round()), side), np.full((len(chunk.row), 2), np.nan)
            )
        guard.check(lambda path: False)


def test_the_guard_is_quiet_on_a_real_coco_file_and_not_if_it_holds_corners(shared: Path, tmp_path: Path) -> None:
    held = shared / "data/raw/coco/annotations/instances_train2017.json.gz"
    content = json.loads(gzip.decompress(held.read_bytes()))
    names = {category["id"]: category["name"] for category in content["categories"]}
    asked = {(annotation["image_id"], names[annotation["category_id"]]) for annotation in content["annotations"]}
    rows = [{"image": image, "question": "q", "answer": "a", "category": name} for image, name in sorted(asked)]
    text = coco_root(tmp_path, np.zeros((0, 4))).read_text()
    write(tmp_path, "raw/own/rows.jsonl", end_to_end.lines(rows))
    write(tmp_path, "raw/own/boxes.json", json.dumps(content))
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, text), tmp_path / "raw", tmp_path / "corpus")
    assert len(end_to_end.rows(corpus)) > 50
    for annotation in content["annotations"]:
        x, y, width, height = annotation["bbox"]
        annotation["bbox"] = [x, y, x + width, y + height]
    write(tmp_path, "raw/own/boxes.json", json.dumps(content))
    with pytest.raises(UsageError, match="they look like two corners"):
        end_to_end.build(end_to_end.recipe_file(tmp_path, text), tmp_path / "raw", tmp_path / "again")


def with_sides(annotations: Any, side: tuple[int, int]) -> Any:
    listed = [
        [image | {"width": side[0], "height": side[1]} for image in row] for row in annotations["images"].to_pylist()
    ]
    place = annotations.schema.get_field_index("images")
    return annotations.set_column(place, annotations.schema.field(place), pa.array(listed, annotations["images"].type))
