from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import image_files as make
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vpt_data.errors import CorpusError, RawError, UsageError
from vpt_data.images.root import ImageRoot
from vpt_data.images.views import pixels, shown

WIDTH, HEIGHT = make.SIZE


def _row(data: bytes | None, *boxes: list[int] | None, **info: Any) -> dict[str, Any]:
    return {
        "id": "t/1",
        "views": [{"image": 0, "box": box} for box in boxes],
        "images": [{"bytes": data, "path": "a.png"}],
        "image_info": [{"width": WIDTH, "height": HEIGHT, **info}],
    }


@given(st.data())
def test_a_box_is_half_open_pixels_of_the_image(data: st.DataObject) -> None:
    x0, x1 = sorted(data.draw(st.lists(st.integers(0, WIDTH), min_size=2, max_size=2, unique=True)))
    y0, y1 = sorted(data.draw(st.lists(st.integers(0, HEIGHT), min_size=2, max_size=2, unique=True)))
    mode = data.draw(st.sampled_from(["1", "L", "P", "RGB", "RGBA", "CMYK"]))
    image = make.picture(mode)
    seen = np.asarray(pixels(image, (x0, y0, x1, y1)))
    assert np.array_equal(seen, np.asarray(pixels(image))[y0:y1, x0:x1])


def test_all_of_an_image_is_a_copy_in_rgb() -> None:
    image = make.picture()
    copy = pixels(image)
    copy.paste("white", (0, 0, WIDTH, HEIGHT))
    assert np.array_equal(np.asarray(image), np.asarray(make.picture()))
    assert {pixels(make.picture(mode)).mode for mode in ("1", "L", "P", "LA", "CMYK")} == {"RGB"}


def test_bytes_are_decoded_without_turning_them() -> None:
    assert pixels(make.jpeg(exif=make.exif(6))).size == make.SIZE
    assert np.array_equal(np.asarray(pixels(make.png())), np.asarray(make.picture()))


def test_what_is_transparent_lies_on_white() -> None:
    seen = np.asarray(pixels(make.translucent()))
    assert (seen[:, : WIDTH // 2] == 255).all()
    assert np.array_equal(seen[:, WIDTH // 2 :], np.asarray(make.picture())[:, WIDTH // 2 :])


def test_a_crop_of_a_huge_page_gives_no_warning() -> None:
    """Pillow's crop warns above 89 million pixels, which a part of a scanned page may have."""
    page = Image.new("1", (13_000, 13_000), 1)
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = 1_000
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert pixels(page, (5, 5, 3_005, 2_005)).size == (3_000, 2_000)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@pytest.mark.parametrize("box", [(0, 0, 33, 24), (0, 0, 0, 24), (5, 5, 4, 6), (-1, 0, 3, 3), (0, 23, 1, 25)])
def test_a_box_out_of_the_image_is_an_error(box: tuple[int, int, int, int]) -> None:
    text = (
        f"The box {list(box)} is empty or reaches out of its image of 32x24 pixels; run `vpt-data check` on the corpus."
    )
    with pytest.raises(CorpusError) as caught:
        pixels(make.picture(), box)
    assert str(caught.value) == text
    with pytest.raises(CorpusError) as caught:
        list(shown(_row(make.png(), None, list(box))))
    assert str(caught.value) == f"t/1: view 1: {text}"


def test_broken_bytes_are_an_error() -> None:
    with pytest.raises(CorpusError) as caught:
        pixels(b"nothing")
    assert str(caught.value) == (
        "An image cannot be decoded (not an image of a known format); build the corpus again from good images."
    )
    with pytest.raises(CorpusError) as caught:
        list(shown(_row(b"nothing", None)))
    assert str(caught.value) == (
        "t/1: a.png cannot be decoded (not an image of a known format); replace it and build again."
    )


def test_a_row_shows_its_views_in_order() -> None:
    views = list(shown(_row(make.png(), None, [4, 2, 10, 20])))
    assert [view.size for view in views] == [make.SIZE, (6, 18)]
    assert np.array_equal(np.asarray(views[1]), np.asarray(make.picture())[2:20, 4:10])


def test_a_row_of_datasets_has_images_that_are_decoded_already() -> None:
    row = {**_row(None, [0, 0, 8, 8]), "images": [make.picture("L")]}
    assert [view.size for view in shown(row)] == [(8, 8)]


def test_a_reference_row_is_read_from_its_raw_root(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(make.png())
    row = _row(None, [0, 0, 3, 4], None)
    assert [view.size for view in shown(row, ImageRoot(tmp_path))] == [(3, 4), make.SIZE]
    with pytest.raises(UsageError) as unnamed:
        list(shown(row))
    assert str(unnamed.value) == "t/1: a.png is not in the shard; give the raw root that holds it."
    (tmp_path / "empty").mkdir()
    with pytest.raises(RawError) as missing:
        list(shown(row, ImageRoot(tmp_path / "empty")))
    assert str(missing.value) == (
        "t/1: a.png: not under the raw root; see `vpt-data sources` for where images are looked for."
    )


def test_a_row_that_does_not_fit_its_image_is_an_error() -> None:
    with pytest.raises(CorpusError) as size:
        list(shown(_row(make.png(), None, width=99)))
    assert str(size.value) == "t/1: image 0 is 32x24, the row says 99x24; build the corpus again."
    row = _row(make.png(), None)
    row["views"][0]["image"] = 1
    with pytest.raises(CorpusError) as number:
        list(shown(row))
    assert str(number.value) == "t/1: view 0 shows image 1, and the row has 1; build it again."
    assert len(list(shown(_row(make.png(), None, width=None, height=None)))) == 1


def test_views_of_a_real_corpus_are_those_of_its_raw_root(
    embedded_corpus: Path, reference_corpus: Path, sample_root: Path
) -> None:
    from helpers import end_to_end

    raw = ImageRoot(sample_root)
    referenced = {row["id"]: row for row in end_to_end.rows(reference_corpus)}
    compared = 0
    for row in end_to_end.rows(embedded_corpus)[:40]:
        here, there = list(shown(row)), list(shown(referenced[row["id"]], raw))
        assert [np.asarray(one).tobytes() for one in here] == [np.asarray(one).tobytes() for one in there]
        boxes = [view["box"] for view in row["views"] if view["box"]]
        cut = [one.size for one, view in zip(here, row["views"], strict=True) if view["box"]]
        assert cut == [(x1 - x0, y1 - y0) for x0, y0, x1, y1 in boxes]
        compared += len(here)
    assert compared > 40
