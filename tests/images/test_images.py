from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vpt_data.images.identity import identities
from vpt_data.images.policy import Failure, Picture
from vpt_data.images.root import ImageRoot, probe
from vpt_data.schema import ANNOTATION, Reason


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("coco/train2017/000000310196.jpg", "coco:310196"),
        ("coco/val2014/COCO_val2014_000000310196.jpg", "coco:310196"),
        ("coco/train2017/000000000000.jpg", "coco:0"),
        ("gqa/images/17.jpg", "vg:17"),
        ("vg/VG_100K_2/17.jpg", "vg:17"),
        ("gqa/images/n17.jpg", "file:gqa/images/n17.jpg"),
        ("textvqa/train_images/0054c91397f2fe05.jpg", "oi:0054c91397f2fe05"),
        ("openimages/images/0054c91397f2fe05.jpg", "oi:0054c91397f2fe05"),
        ("own/images/a.b.png", "file:own/images/a.b.png"),
        ("a.png", "file:a.png"),
    ],
)
def test_identity_is_the_same_for_all_spellings(path: str, who: str) -> None:
    assert identities(pa.array([path])).to_pylist() == [who]


def _save(path: Path, size: tuple[int, int] = (8, 6), orientation: int | None = None, **options: object) -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = Image.new("RGB", size, "white")
    picture.paste((200, 0, 0), (0, 0, size[0] // 2, size[1] // 2))
    if orientation is not None:
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    picture.save(path, **options)  # type: ignore[arg-type]
    return path.read_bytes()


def test_an_image_is_found_in_each_of_its_places(tmp_path: Path) -> None:
    _save(tmp_path / "visual_cot/cot/vsr/000000000001.jpg")
    _save(tmp_path / "ocr_vqa/images/0001.png")
    root = ImageRoot(tmp_path)
    assert root.locate("coco/train2017/000000000001.jpg") == tmp_path / "visual_cot/cot/vsr/000000000001.jpg"
    assert root.locate("ocr_vqa/images/0001.jpg") == tmp_path / "ocr_vqa/images/0001.png"
    assert root.locate("ocr_vqa/images/0002.jpg") is None
    assert root.size("ocr_vqa/images/0001.jpg") == (8, 6)
    missing = root.size("ocr_vqa/images/0002.jpg")
    assert missing == Failure(Reason.MISSING_IMAGE, "ocr_vqa/images/0002.jpg: not under the raw root")


def test_good_bytes_are_kept_as_they_are(tmp_path: Path) -> None:
    data = _save(tmp_path / "a.png")
    loaded = ImageRoot(tmp_path).load("a.png", 8, 6)
    assert loaded == Picture(data, 8, 6, hashlib.sha256(data).hexdigest(), reencoded=False)


@pytest.mark.parametrize("orientation", [0, 1])
def test_orientations_that_turn_nothing_change_nothing(tmp_path: Path, orientation: int) -> None:
    data = _save(tmp_path / "a.jpg", orientation=orientation)
    loaded = ImageRoot(tmp_path).load("a.jpg", 8, 6)
    assert isinstance(loaded, Picture)
    assert (loaded.data, loaded.reencoded) == (data, False)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_turned_image_keeps_the_pixels_its_boxes_mean(tmp_path: Path, orientation: int, name: str) -> None:
    _save(tmp_path / name, orientation=orientation)
    loaded = ImageRoot(tmp_path).load(name, 8, 6)
    assert isinstance(loaded, Picture) and loaded.rewritten
    with Image.open(io.BytesIO(loaded.data)) as image:
        assert image.getexif().get(274, 1) == 1
        assert image.size == (8, 6)
        red, green, _ = image.convert("RGB").getpixel((0, 0))  # type: ignore[misc]
        assert red > green + 20


def test_a_turned_image_whose_turned_size_fits_is_turned(tmp_path: Path) -> None:
    _save(tmp_path / "a.png", orientation=6)
    loaded = ImageRoot(tmp_path).load("a.png", 6, 8)
    assert isinstance(loaded, Picture) and loaded.reencoded
    assert (loaded.width, loaded.height) == (6, 8)


def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    data = _save(tmp_path / "cut.png", (64, 64))
    (tmp_path / "cut.png").write_bytes(data[:60])
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.png").write_text("version https://git-lfs.github.com/spec/v1")
    _save(tmp_path / "small.png", (4, 3))
    root = ImageRoot(tmp_path)
    found = {name: root.load(f"{name}.png", 8, 6) for name in ("cut", "empty", "text", "small", "none")}
    assert found["empty"] == Failure(Reason.BAD_IMAGE, "empty.png: the file is empty")
    assert found["text"] == Failure(
        Reason.BAD_IMAGE, "text.png: a Git LFS pointer in place of the image; fetch it with `git lfs pull`"
    )
    assert found["small"] == Failure(Reason.SIZE_MISMATCH, "small.png: the file is 4x3, the annotation says 8x6")
    assert found["none"] == Failure(Reason.MISSING_IMAGE, "none.png: not under the raw root")
    cut = found["cut"]
    assert isinstance(cut, Failure) and cut.reason == Reason.BAD_IMAGE and cut.detail.startswith("cut.png: ")


def test_an_image_of_too_many_pixels_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _save(tmp_path / "a.png", (8, 6))
    root = ImageRoot(tmp_path)
    assert root.size("a.png") == (8, 6)
    monkeypatch.setattr("vpt_data.images.policy.MAX_PIXELS", 47)
    refused = Failure(Reason.BAD_IMAGE, "a.png: 8x6 is more than 47 pixels")
    assert root.size("a.png") == refused
    assert root.load("a.png", 8, 6) == refused


def test_a_page_larger_than_pillow_likes_is_read(tmp_path: Path) -> None:
    """Real pages of DUDE have 196 million pixels; 13,500 x 13,500 white ones compress to little."""
    Image.new("1", (13_500, 13_500), 1).save(tmp_path / "page.png")
    assert ImageRoot(tmp_path).size("page.png") == (13_500, 13_500)


def test_probe_fills_only_what_is_unknown(tmp_path: Path) -> None:
    _save(tmp_path / "a.png")
    kind = ANNOTATION.field("images").type
    given = [
        [{"path": "a.png", "width": None, "height": None}],
        [],
        [{"path": "a.png", "width": 80, "height": 60}, {"path": "none.png", "width": None, "height": None}],
    ]
    filled, failures = probe(pa.array(given, kind), np.ones(len(given), bool), ImageRoot(tmp_path))
    probed = filled.to_pylist()
    assert failures == {"none.png": Failure(Reason.MISSING_IMAGE, "none.png: not under the raw root")}
    assert probed[0] == [{"path": "a.png", "width": 8, "height": 6}]
    assert probed[1] == []
    assert probed[2] == [given[2][0], given[2][1]]


def test_real_images_have_the_size_the_owners_say(shared: Path) -> None:
    """Every VSR row whose image is at hand: the header agrees with the annotation."""
    import gzip
    import json

    root = ImageRoot(shared / "data/raw")
    rows = (shared / "data/raw/visual_cot/viscot_dataset/vsr_cot_train.jsonl.gz").read_bytes()
    checked = 0
    for line in gzip.decompress(rows).splitlines():
        row = json.loads(line)
        found = root.size(f"coco/train2017/{row['image']}")
        if not isinstance(found, Failure):
            assert found == (row["width"], row["height"])
            checked += 1
    assert checked > 0


def test_real_resized_copies_are_rejected(shared: Path, tmp_path: Path) -> None:
    rejected = 0
    for file in sorted((shared / "data/wrong_copies").rglob("*.*")):
        original = next((shared / "data/raw").rglob(file.name), None)
        if original is None:
            continue
        with Image.open(original) as image, Image.open(file) as copy:
            sizes = image.size, copy.size
        loaded = ImageRoot(file.parent).load(file.name, *sizes[0])
        if sizes[0] != sizes[1]:
            assert isinstance(loaded, Failure) and loaded.reason == Reason.SIZE_MISMATCH
            rejected += 1
    assert rejected > 0
