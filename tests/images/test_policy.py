from __future__ import annotations

import hashlib
import io
import json
import random
import struct
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import datasets
import numpy as np
import pytest
from helpers import image_files as make
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vpt_data.images.policy import MAX_EMBEDDED_PIXELS, Failure, Picture, check, header
from vpt_data.images.views import pixels
from vpt_data.schema import Reason

WIDE, TALL = make.SIZE, make.SIZE[::-1]


def _cases(table: dict[str, list[tuple[bytes, str]]]) -> list[object]:
    return [pytest.param(*case, id=f"{row}-{n}") for row, cases in table.items() for n, case in enumerate(cases)]


def _rows() -> dict[str, str]:
    """The policy as docs/images.md has it: file -> outcome."""
    text = (Path(__file__).parents[2] / "docs/images.md").read_text(encoding="utf-8")
    lines = text.partition("## What happens to a file")[2].partition('\n\n"')[0].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return {row[0]: row[1] for row in cells[2:]}


def test_the_written_policy_is_the_one_tested() -> None:
    tested = {row: "rewritten" if cases[0][1] else "untouched" for row, cases in make.KEPT.items()}
    tested |= dict.fromkeys(make.REENCODED, "re-encoded") | dict.fromkeys(make.BAD, "bad_image")
    alone = {  # each of these has a test of its own below
        "orientation 5 to 8, and only the turned size fits": "re-encoded",
        "GIF whose frame is smaller than the picture": "re-encoded",
        "another size than the annotation says": "size_mismatch",
        "damaged pixels": "bad_image",
        "more than 179 million pixels": "bad_image",
        "more than 250 million pixels": "bad_image",
    }
    assert _rows() == tested | alone


def _good(data: bytes, size: tuple[int, int] = WIDE) -> Picture:
    found = check("a.jpg", data, *size, verify="full")
    assert isinstance(found, Picture)
    assert found.sha256 == hashlib.sha256(found.data).hexdigest()
    assert (found.width, found.height) == size
    assert check("a.jpg", data, *size) == found
    return found


def _everywhere(data: bytes) -> np.ndarray:
    """The pixels of embedded bytes, which all readers must agree on: Pillow, `datasets`, and our own function."""
    with Image.open(io.BytesIO(data)) as image:
        assert image.getexif().get(274, 1) in {0, 1}
        seen = np.asarray(image.convert("RGB"))
    turned = datasets.Image().decode_example({"bytes": data, "path": None})
    assert np.array_equal(np.asarray(turned.convert("RGB")), seen)
    assert np.array_equal(np.asarray(pixels(data)), seen)
    return seen


@pytest.mark.parametrize(("data", "why"), _cases(make.KEPT))
def test_the_coded_pixels_stay_as_they_are(data: bytes, why: str) -> None:
    found = _good(data)
    assert (found.why, found.reencoded, found.rewritten) == (why, False, bool(why))
    assert (found.data == data) is (why == "")
    assert np.array_equal(_everywhere(found.data), np.asarray(pixels(data)))
    assert _good(found.data) == Picture(found.data, *WIDE, found.sha256, reencoded=False)


@pytest.mark.parametrize(("data", "why"), _cases(make.REENCODED))
def test_pixels_that_decoders_disagree_on_are_written_anew(data: bytes, why: str) -> None:
    found = _good(data)
    assert (found.why, found.reencoded, found.rewritten) == (why, True, False)
    off = np.abs(_everywhere(found.data).astype(int) - np.asarray(pixels(data)).astype(int))
    # Noise of eight blocks a side is the worst there is for JPEG.
    assert off.mean() < (4 if found.data.startswith(b"\xff\xd8") else 1e-9)
    assert _good(found.data).why == ""


@pytest.mark.parametrize(("data", "why"), _cases(make.BAD))
def test_what_is_no_image_is_named(data: bytes, why: str) -> None:
    for verify in ("markers", "full"):
        assert check("a.jpg", data, *WIDE, verify=verify) == Failure(Reason.BAD_IMAGE, f"a.jpg: {why}")  # type: ignore[arg-type]


def test_pixels_of_each_kind_are_what_people_see() -> None:
    def first(data: bytes, size: tuple[int, int] = WIDE) -> tuple[int, ...]:
        return tuple(_everywhere(_good(data, size).data)[0, 0].tolist())

    assert first(make.encoded(make.translucent(), "PNG")) == (255, 255, 255)
    half = first(make.encoded(make.translucent(alpha=127), "PNG"))
    assert half == (128, 128, 128)
    ramp = _everywhere(_good(make.sixteen()).data)
    assert (ramp[0, 0].tolist(), ramp[-1, -1].tolist()) == ([0, 0, 0], [255, 255, 255])
    assert abs(int(ramp[12, 0, 0]) - 128) < 2
    still = np.asarray(make.picture())
    assert np.array_equal(_everywhere(_good(make.animated("PNG")).data), still)


@pytest.mark.parametrize("turn", range(2, 9))
def test_the_boxes_decide_which_way_is_up(turn: int) -> None:
    """The stored size wins; where only the turned size fits, the picture is turned as EXIF says."""
    for data in (make.jpeg(exif=make.exif(turn)), make.png(exif=make.exif(turn)), make.wide_tiff(turn)):
        stored = np.asarray(pixels(data))
        assert np.array_equal(_everywhere(_good(data).data), stored)
        assert check("a", data, None, None) == check("a", data, *WIDE)
        if turn < 5:
            continue
        found = _good(data, TALL)
        assert (found.reencoded, found.why.endswith(f"turned by EXIF orientation {turn}")) == (True, True)
        with Image.open(io.BytesIO(data)) as image:
            upright = datasets.Image().decode_example({"bytes": data, "path": None}).convert("RGB")
            assert image.size in {WIDE, TALL}  # Pillow turns a TIFF by itself
        off = np.abs(_everywhere(found.data).astype(int) - np.asarray(upright).astype(int))
        assert off.mean() < (4 if data.startswith(b"\xff\xd8") else 1e-9)


def test_the_rest_of_exif_survives() -> None:
    found = _good(make.jpeg(exif=make.exif(6)))
    with Image.open(io.BytesIO(found.data)) as image:
        assert (image.getexif()[271], image.getexif()[274]) == ("us", 1)
    assert len(found.data) == len(make.jpeg(exif=make.exif(6)))


def test_a_gif_frame_smaller_than_the_picture_is_laid_out() -> None:
    found = _good(make.small_frame(), (40, 30))
    assert (found.why, found.reencoded) == ("frame smaller than the picture", True)


def test_another_size_is_refused() -> None:
    detail = "a.jpg: the file is 32x24, the annotation says 64x48"
    for data in (make.jpeg(), make.png(exif=make.exif(6))):
        assert check("a.jpg", data, 64, 48) == Failure(Reason.SIZE_MISMATCH, detail)
    assert isinstance(check("a.jpg", make.jpeg(exif=make.exif(3)), *TALL), Failure)


def test_damaged_pixels_are_found_by_decoding_only() -> None:
    data = bytearray(make.png())
    data[60:80] = bytes(20)
    assert isinstance(check("a", bytes(data), *WIDE), Picture)
    found = check("a", bytes(data), *WIDE, verify="full")
    assert found == Failure(Reason.BAD_IMAGE, "a: cannot be decoded (broken data stream when reading image file)")


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "WEBP", "JPEG", "TIFF"])
def test_bombs_are_refused_by_their_header(kind: str) -> None:
    data = bytearray(make.encoded(make.picture("P" if kind == "GIF" else "RGB"), kind))
    if kind == "PNG":
        data[8:33] = make.chunk(b"IHDR", struct.pack(">II", 50_000, 50_000) + bytes(data[24:29]))
    elif kind == "WEBP":
        data = bytearray(make.animated("WEBP"))
        data[24:30] = (49_999).to_bytes(3, "little") * 2
    elif kind == "JPEG":
        at = data.index(b"\xff\xc0")
        struct.pack_into(">HH", data, at + 5, 50_000, 50_000)
    elif kind == "TIFF":
        for tag in (256, 257):
            at = data.index(struct.pack("<HH", tag, 4), 8)
            struct.pack_into("<I", data, at + 8, 50_000)
    else:
        struct.pack_into("<HH" if kind == "GIF" else "<ii", data, 6 if kind == "GIF" else 18, 50_000, 50_000)
    refused = Failure(Reason.BAD_IMAGE, "a: 50000x50000 is more than 250000000 pixels")
    assert check("a", bytes(data), None, None) == refused
    assert header("a", io.BytesIO(data)) == refused


def test_what_is_embedded_is_what_pillow_opens() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS == MAX_EMBEDDED_PIXELS
    page = make.encoded(Image.new("1", (13_500, 13_500), 1), "PNG")
    detail = (
        "a: 13500x13500 is more than 178,956,970 pixels, which Pillow and `datasets` refuse; set `rescale = true` in "
        "its take to embed it at half its sides"
    )
    assert check("a", page, 13_500, 13_500, limit=MAX_EMBEDDED_PIXELS) == Failure(Reason.BAD_IMAGE, detail)
    found = check("a", page, 13_500, 13_500, rescale=True, limit=MAX_EMBEDDED_PIXELS)
    assert isinstance(found, Picture)
    assert (found.width, found.height, found.reencoded) == (6_750, 6_750, True)
    opened = datasets.Image().decode_example({"bytes": found.data, "path": None})
    assert opened.size == (6_750, 6_750)


def test_a_page_of_today_is_read() -> None:
    """Real pages have up to 213 million pixels; Pillow alone would warn or refuse."""
    page = make.encoded(Image.new("1", (13_500, 13_500), 1), "PNG")
    assert header("a", io.BytesIO(page)) == (13_500, 13_500)
    assert isinstance(check("a", page, 13_500, 13_500), Picture)


def _all_files() -> Iterator[bytes]:
    for table in (make.KEPT, make.REENCODED, make.BAD):
        for cases in table.values():
            yield from (data for data, _ in cases)


def test_the_header_says_what_the_check_says() -> None:
    compared = 0
    for data in _all_files():
        found, size = check("a", data, None, None), header("a", io.BytesIO(data))
        if isinstance(found, Picture):
            assert size == (found.width, found.height)
            compared += 1
    assert compared > 40
    assert header("a", io.BytesIO(b"")) == Failure(Reason.BAD_IMAGE, "a: the file is empty")
    assert header("a", io.BytesIO(make.jpeg()[:100])) == Failure(Reason.BAD_IMAGE, "a: the file is cut off")


def test_a_header_far_behind_is_found_without_reading_all() -> None:
    data = make.jpeg(icc_profile=bytes(300_000)) + bytes(5_000_000)
    file = io.BytesIO(data)
    assert header("a", file) == WIDE
    assert file.tell() < 3_000_000


def _mutated(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        at = rng.randrange(min(len(changed), 300) if rng.random() < 0.6 else len(changed)) if changed else 0
        how = rng.random()
        if how < 0.6 and changed:
            changed[at] = rng.randrange(256)
        elif how < 0.75:
            del changed[at : at + rng.choice((1, 2, 7, 100))]
        elif how < 0.9:
            changed[at:at] = rng.randbytes(rng.choice((1, 2, 30)))
        else:
            del changed[at:]
    return bytes(changed)


def test_damage_gives_a_picture_or_a_failure() -> None:
    """What `full` lets pass is read by Pillow and `datasets` without an error, upright, and in the size it says."""
    rng = random.Random(7)
    # libtiff prints what it thinks of damage; one file of it is enough.
    files = [data for data in _all_files() if len(data) > 60 and not data.startswith(b"II*\0")] + [make.wide_tiff(6)]
    good = 0
    for _ in range(600):
        data = _mutated(rng, rng.choice(files))
        header("a", io.BytesIO(data))
        check("a", data, *WIDE)
        found = check("a", data, None, None, verify="full")
        if isinstance(found, Picture):
            good += 1
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                assert _everywhere(found.data).shape == (found.height, found.width, 3)
    assert good > 100


@given(st.binary(max_size=200), st.sampled_from([b"", *(data[:12] for data in (make.jpeg(), make.png()))]))
def test_any_bytes_are_answered(tail: bytes, start: bytes) -> None:
    for verify in ("markers", "full"):
        assert isinstance(check("a", start + tail, 3, 4, verify=verify), Failure)  # type: ignore[arg-type]
    header("a", io.BytesIO(start + tail))


def test_threads_get_the_same_answers_and_no_warnings() -> None:
    files = [data for data in _all_files() if len(data) < 100_000] * 3

    def answer(data: bytes) -> Picture | Failure:
        return check("a", data, None, None, verify="full")

    filters = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(answer, files)) == [answer(data) for data in files]
    assert warnings.filters == filters


#: File of shared/data/awkward -> what becomes of it, where the annotation says the stored size.
AWKWARD = {
    "16bit.cropped.tif": "TIFF",
    "Landscape_1.jpg": "",
    "Landscape_6.jpg": make.TAG,
    "Portrait_8.jpg": make.TAG,
    "exif_imagemagick_orientation.png": make.TAG,
    "exif_typeerror.jpg": "",
    "hopper_orientation_2.jpg": make.TAG,
    "icc_profile_big.jpg": "",
    "imagedraw_rectangle_width.png": "",
    "mode_16bit.png": "16 bits a sample",
    "mode_grayscale_alpha.png": "animation",
    "mode_palette_alpha.png": "animation",
    "transparent.png": "transparent",
    "truncated_image.png": None,
}


@pytest.mark.parametrize("name", AWKWARD)
def test_real_awkward_files_have_the_outcome_of_the_policy(shared: Path, name: str) -> None:
    data = (shared / "data/awkward" / name).read_bytes()
    why = AWKWARD[name]
    for verify in ("markers", "full"):
        found = check(name, data, None, None, verify=verify)  # type: ignore[arg-type]
        if why is None:
            assert found == Failure(Reason.BAD_IMAGE, f"{name}: the file is cut off")
            continue
        assert isinstance(found, Picture)
        assert (found.why, found.data == data) == (why, why == "")
        assert found.reencoded == (why in {"TIFF", "16 bits a sample", "transparent"})
        assert header(name, io.BytesIO(data)) == (found.width, found.height)
        _everywhere(found.data)


def test_every_awkward_file_is_in_the_table(shared: Path) -> None:
    assert {file.name for file in (shared / "data/awkward").iterdir()} == set(AWKWARD)


def test_a_real_photo_that_boxes_want_upright_is_turned(shared: Path) -> None:
    found = check("p", (shared / "data/awkward/Portrait_8.jpg").read_bytes(), 1200, 1800)
    assert isinstance(found, Picture)
    assert (found.width, found.height, found.why) == (1200, 1800, "turned by EXIF orientation 8")


def test_real_photos_are_untouched(shared: Path) -> None:
    files = [file for file in (shared / "data/raw").rglob("*") if file.suffix.lower() in {".jpg", ".jpeg", ".png"}]
    for file in files:
        data = file.read_bytes()
        found = check(file.name, data, None, None)
        assert isinstance(found, Picture)
        assert (found.why, found.data) == ("", data)
    assert len(files) > 50


def test_real_resized_copies_are_refused_and_drawn_ones_cannot_be(shared: Path) -> None:
    """What a size can tell: a copy with boxes drawn on it has the size that the rows say."""
    lines = (shared / "data/images.jsonl").read_text(encoding="utf-8").splitlines()
    copies = [entry for entry in map(json.loads, lines) if entry["file"].startswith("wrong_copies/")]
    for entry in copies:
        row = next(row for row in entry["rows"] if "w" in row)
        found = check("a", (shared / "data" / entry["file"]).read_bytes(), row["w"], row["h"], verify="full")
        if "drawn" in entry["file"]:
            assert isinstance(found, Picture) and found.why == ""
        else:
            assert isinstance(found, Failure) and found.reason == Reason.SIZE_MISMATCH
    assert len(copies) == 6
