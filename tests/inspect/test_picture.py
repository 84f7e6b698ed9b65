"""The picture of a row: lines are where they belong, whatever the row holds, and nothing in it does harm."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageColor

from tests.helpers import small_corpora
from vpt_data.images.root import ImageRoot
from vpt_data.inspect import picture
from vpt_data.inspect.lettering import Run, font, wrapped
from vpt_data.inspect.overlay import BOX, CELLS, ENCODER, thumbnail

#: Left and top of the first image in the picture of a row with cells, and of one without.
WITH_GRID, WITHOUT = (50, 50), (50, 24)


def row(size: tuple[int, int] = (800, 600), color: str = "grey", **more: Any) -> dict[str, Any]:
    """A plain row with one image of one colour, or the same with `more` changed."""
    image = Image.new("RGB", size, color)
    whole = {"turn": 0, "image": 0, "encoder": "vlm", "box": None, "cells": None}
    base: dict[str, Any] = {
        "id": "demo/1",
        "take": "demo",
        "template": "plain",
        "looks": [],
        "expected": None,
        "messages": [{"role": "user", "content": "<image>\nWhere?"}, {"role": "assistant", "content": "There."}],
        "views": [whole],
        "images": [{"bytes": picture.png(image), "path": "own/1.png"}],
        "image_info": [
            {"width": size[0], "height": size[1], "sha256": None, "license": "CC0-1.0", "attribution": None}
        ],
        "regions": [],
        "region_status": "unknown",
        "k": 8,
        "crop_margin_cells": 0,
    }
    return base | more


def look(box: list[int] | None, cells: list[int] | None, encoder: str = "vlm") -> dict[str, Any]:
    """Messages and views of a row with a second look."""
    call = "<|region_token_start|><|x_1|><|y_1|><|x_2|><|y_2|><|region_token_end|>"
    shown = {"vlm": "<image>", "dino": "<detection_image>"}[encoder]
    if encoder == "dino":
        call = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
    texts = ["<image>\nWhere?", call, shown, "There."]
    whole = {"turn": 0, "image": 0, "encoder": "vlm", "box": None, "cells": None}
    return {
        "messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)],
        "views": [whole, {"turn": 2, "image": 0, "encoder": encoder, "box": box, "cells": cells}],
        "looks": ["region" if encoder == "vlm" else encoder],
    }


def regions(*boxes: list[float], label: str | None = None) -> dict[str, Any]:
    return {"regions": [{"image": 0, "box": box, "label": label} for box in boxes], "region_status": "given"}


def mask(drawn: Image.Image, color: str, left: bool = True) -> np.ndarray[Any, Any]:
    """Where a colour is in the column of the image, without its legend; or in the dialogue."""
    pixels = np.asarray(drawn)
    part = pixels[:450, 50:570] if left else pixels[:, 590:]
    return (part == ImageColor.getrgb(color)).all(axis=2)


def corners(found: np.ndarray[Any, Any]) -> list[int]:
    """The rectangle around what is true, x0, y0, x1, y1 with both ends included."""
    ys, xs = np.nonzero(found)
    return [int(edge) for edge in (xs.min(), ys.min(), xs.max(), ys.max())]


# Where lines are --------------------------------------------------------------------------------------------


def test_the_annotated_box_is_red_and_just_around_its_pixels() -> None:
    drawn = picture.draw(row(**regions([200, 150, 400, 300])))
    scale = 520 / 800
    around = [200 * scale - 3, 24 + 150 * scale - 3, 400 * scale + 3, 24 + 300 * scale + 3]
    assert np.abs(np.subtract(corners(mask(drawn, BOX)), around)).max() <= 1.5
    assert not mask(drawn, CELLS).any() and not mask(drawn, ENCODER).any()


def test_the_chosen_cells_are_blue_on_the_grid_and_the_crop_is_beside_its_placeholder() -> None:
    given_row = row(**look([100, 75, 300, 225], [1, 1, 2, 2]), **regions([150, 100, 200, 160]))
    drawn = picture.draw(given_row)
    top, cell = WITH_GRID[1], 65
    expected = [cell, top + 390 / 8, 3 * cell, top + 3 * 390 / 8]
    assert np.abs(np.subtract(corners(mask(drawn, CELLS)), expected)).max() <= 1.5
    assert mask(drawn, BOX).any()
    frame = corners(mask(drawn, CELLS, left=False)[240:])
    assert (frame[2] - frame[0]) / (frame[3] - frame[1]) == pytest.approx(200 / 150, abs=0.05)


def test_a_crop_with_a_margin_has_a_thin_line_of_its_own() -> None:
    more = look([0, 0, 400, 300], [1, 1, 2, 2])
    plain = mask(picture.draw(row(**more)), CELLS)
    margin = mask(picture.draw(row(**more, crop_margin_cells=1)), CELLS)
    assert corners(margin)[:2] == [0, WITH_GRID[1]] != corners(plain)[:2]


def test_a_look_through_another_encoder_marks_the_whole_image() -> None:
    drawn = picture.draw(row(**look(None, None, "dino")))
    assert corners(mask(drawn, ENCODER))[:3] == [0, WITHOUT[1], 519]
    assert mask(drawn, ENCODER, left=False).any()
    assert not mask(drawn, CELLS).any()


def test_a_text_box_is_the_crop_without_a_grid() -> None:
    drawn = picture.draw(row(**look([100, 75, 300, 225], None)))
    assert np.abs(np.subtract(corners(mask(drawn, CELLS)), [65, 24 + 48.75, 195, 24 + 146.25])).max() <= 1.5


def test_messages_that_carry_loss_are_green_and_those_of_evaluation_rows_are_not() -> None:
    trained, evaluated = picture.draw(row()), picture.draw(row(expected="region"))
    assert mask(trained, "#dafbe1", left=False).any()
    assert not mask(evaluated, "#dafbe1", left=False).any()


def test_the_token_without_loss_is_grey() -> None:
    drawn = picture.draw(row(**look(None, None, "dino")))
    assert mask(drawn, "#8c959f", left=False).any()
    assert not mask(picture.draw(row(**look([0, 0, 9, 9], [1, 1, 2, 2]))), "#8c959f", left=False).any()


# Kinds of rows ----------------------------------------------------------------------------------------------


def test_every_kind_of_row_has_a_picture(tmp_path: Path) -> None:
    corpus = small_corpora.build(tmp_path)
    root, kinds = ImageRoot(tmp_path / "raw"), set()
    for one in small_corpora.rows_of(corpus):
        drawn = picture.draw(one, root)
        boxes = [view for view in one["views"] if view["box"]]
        encoders = {view["encoder"] for view in one["views"]} - {"vlm"}
        assert drawn.width == picture.WIDTH and 100 < drawn.height < 1500
        assert bool(boxes) == mask(drawn, CELLS).any()
        assert bool(encoders) == mask(drawn, ENCODER).any()
        assert bool(one["regions"]) == mask(drawn, BOX).any()
        kinds.add((one["template"], len(boxes), one["expected"], len(one["images"])))
    assert len(kinds) >= 8


def test_the_same_row_gives_the_same_bytes_in_another_process(tmp_path: Path) -> None:
    code = (
        "import hashlib; from tests.inspect.test_picture import look, picture, regions, row;"
        "given = row(**look([100, 75, 300, 225], [1, 1, 2, 2]), **regions([1, 2, 30, 40], label='dog'));"
        "print(hashlib.sha256(picture.png(picture.draw(given))).hexdigest())"
    )
    runs = {
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in "12"
    }
    assert len(runs) == 1 and len(runs.pop()) == 65


@pytest.mark.parametrize("size", [(1, 1), (1, 4000), (4000, 1), (3, 5), (6000, 4000)])
def test_every_shape_of_image_has_a_picture(size: tuple[int, int]) -> None:
    box = [0, 0, max(1, size[0] // 8), max(1, size[1] // 8)]
    drawn = picture.draw(row(size, **look(box, [0, 0, 0, 0]), **regions([float(edge) for edge in box])))
    assert 200 < drawn.height < 1200
    assert mask(drawn, BOX).any()


def test_pictures_of_two_images_are_one_below_the_other() -> None:
    two = row()
    two["images"] *= 3
    two["image_info"] *= 3
    one, more = picture.draw(row()), picture.draw(two)
    assert more.height > one.height


# What is not there ------------------------------------------------------------------------------------------


def unlike(one: Image.Image, other: Image.Image) -> bool:
    return one.size != other.size or one.tobytes() != other.tobytes()


def test_a_missing_image_is_a_pattern_of_its_shape_with_a_sentence(tmp_path: Path) -> None:
    gone = row(**look([100, 75, 300, 225], [1, 1, 2, 2]), **regions([150, 100, 200, 160]))
    gone["images"] = [{"bytes": None, "path": "gqa/images/1.jpg"}]
    for drawn in (picture.draw(gone), picture.draw(gone, ImageRoot(tmp_path))):
        assert (np.asarray(drawn)[60:400, 60:560] != 128).any()
        assert mask(drawn, BOX).any() and mask(drawn, CELLS).any() and mask(drawn, CELLS, left=False).any()
    assert unlike(picture.draw(gone), picture.draw(gone, ImageRoot(tmp_path))), "each says what is wrong"


def test_hidden_pixels_are_never_drawn_and_boxes_stay_in_place() -> None:
    more = look([100, 75, 300, 225], [1, 1, 2, 2]) | regions([150, 100, 200, 160])
    red, blue = row(color="red", **more), row(color="blue", **more)
    sentence = "The licence does not allow to show it."
    assert picture.draw(red, hidden=sentence).tobytes() == picture.draw(blue, hidden=sentence).tobytes()
    assert (mask(picture.draw(red, hidden=sentence), CELLS) == mask(picture.draw(red), CELLS)).all()
    thumbs = [thumbnail(each, hidden=sentence) for each in (red, blue)]
    assert thumbs[0].tobytes() == thumbs[1].tobytes()
    assert thumbs[0].width == 240 and (np.asarray(thumbs[0]) == ImageColor.getrgb(BOX)).all(axis=2).any()


@pytest.mark.parametrize("data", [b"", b"\x89PNG\r\n\x1a\nrest", b"\xff\xd8\xff"])
def test_a_damaged_image_is_a_pattern(data: bytes) -> None:
    drawn = picture.draw(row(images=[{"bytes": data, "path": None}]))
    assert drawn.height > 200


@pytest.mark.parametrize(
    "box", [[-1e300, 5, 1e300, 9], [900, 700, 950, 800], [5, 5, 5, 5], [9, 9, 2, 2], [math.nan, 0, 1, 1]]
)
def test_strange_boxes_do_no_harm(box: list[float]) -> None:
    assert picture.draw(row(**regions(box, box))).width == picture.WIDTH


def test_views_that_do_not_fit_their_image_say_so() -> None:
    plain = picture.draw(row())
    for view in ([700, 0, 900, 100], [5, 5, 5, 5]):
        assert unlike(picture.draw(row(**look(view, [7, 0, 8, 1]))), plain)
    wrong = look([0, 0, 9, 9], None)
    wrong["views"][1]["image"] = 7
    assert unlike(picture.draw(row(**wrong)), plain)


# Text -------------------------------------------------------------------------------------------------------


def test_a_long_answer_is_cut_and_a_long_conversation_too() -> None:
    long = [
        {"role": "user", "content": "<image>\n" + "word " * 20_000},
        {"role": "assistant", "content": "x" * 100_000},
    ]
    assert picture.draw(row(messages=long)).height < 700
    assert picture.draw(row(messages=[*row()["messages"], *long[:1] * 500])).height < 2500


def test_what_is_left_out_is_counted() -> None:
    [line] = wrapped([Run("a " * 500, "black")], 200, 1, font(12))
    text = "".join(run.text for run in line)
    shown, _, rest = text.partition(" … ")
    assert int(rest.split()[0]) + len(shown) == pytest.approx(1000, abs=1)
    assert sum(font(12).getlength(run.text) for run in line) <= 200


@given(st.text(max_size=120), st.text(max_size=30), st.text(max_size=30))
def test_any_text_can_be_drawn(content: str, name: str, label: str) -> None:
    messages = [{"role": "user", "content": content}, {"role": name, "content": f"<|{name}|>{content}"}]
    drawn = picture.draw(row(messages=messages, id=name, take=label, **regions([1, 2, 30, 40], label=label)))
    assert drawn.width == picture.WIDTH and drawn.height < 1200


@given(st.lists(st.text(max_size=50), max_size=5), st.integers(40, 400), st.integers(1, 5))
def test_no_line_is_wider_than_asked(texts: list[str], width: int, most: int) -> None:
    lines = wrapped([Run(text, "black") for text in texts], width, most, font(12))
    assert len(lines) <= most
    lengths = [sum(font(12).getlength(run.text) for run in line) for line in lines]
    assert max(lengths) <= max(width, 190), "what says how much is left out has its own width"
