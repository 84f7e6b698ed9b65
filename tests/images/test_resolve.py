"""Images of a raw root: found wherever owners put them, in folders and archives, and never outside the root."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from helpers.packed import put, tarred, why, zipped
from PIL import Image
from pyarrow import fs

from vpt_data.images.folders import Parts, matching, standing_for
from vpt_data.images.policy import Failure, Picture
from vpt_data.images.root import ImageRoot
from vpt_data.schema import Reason
from vpt_data.store import RemotePath
from vpt_data.upstream import catalog

LEADS_OUT = "the image path leads out of the raw root"
LINK = (
    "the link leads out of the raw root; name the folder that it leads into with --follow-links, "
    "or put or mount it there"
)


def picture(size: tuple[int, int] = (8, 6), kind: str = "JPEG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (9, 80, 200)).save(out, kind)
    return out.getvalue()


# Where


@pytest.mark.parametrize(
    ("asked", "lies"),
    [
        ("coco/train2017/000000000009.jpg", "coco/train2014/COCO_train2014_000000000009.jpg"),
        ("coco/train2017/000000000009.jpg", "coco/val2014/COCO_val2014_000000000009.jpg"),
        ("coco/val2014/COCO_val2014_000000000009.jpg", "coco/train2017/000000000009.jpg"),
        ("coco/val2014/COCO_val2014_000000000009.jpg", "coco/val2014/000000000009.jpg"),
        ("coco/train2014/COCO_train2014_000000000009.jpg", "coco/images/val2017/000000000009.jpg"),
        ("coco/val2017/000000000009.jpg", "visual_cot/cot/vsr/000000000009.jpg"),
        ("ocr_vqa/images/0001.jpg", "ocr_vqa/images/0001.gif"),
        ("ocr_vqa/images/0001.jpg", "ocr_vqa/images/0001.PNG"),
        ("visual7w/images/v7w_1.jpg", "v7w/images/v7w_1.jpg"),
        ("visual7w/images/v7w_1.jpg", "visual_cot/cot/v7w/v7w_1.jpg"),
        ("visual7w/images/v7w_1.jpg", "visual_cot/cot/visual7w/v7w_1.jpg"),
        ("textvqa/train_images/0a.jpg", "visual_cot/cot/textcap/0a.jpg"),
        ("textvqa/train_images/0a.jpg", "visual_cot/cot/textvqa/0a.jpg"),
        ("textvqa/train_images/0a.jpg", "openimages/train_f/0a.jpg"),
        ("infographicsvqa/images/1.jpeg", "visual_cot/cot_image_data/infographicsvqa/1.jpeg"),
        ("cub/CUB_200_2011/images/001.A/b.jpg", "visual_cot/cot/cub/001.A/b.jpg"),
        ("llava_pretrain/images/00453/1.jpg", "LLaVA-Pretrain/00453/1.jpg"),
        ("own/a.JPEG", "own/a.jpg"),
        ("own/a.jpg", "own/a.JPG"),
        ("own/a.tif", "own/a.TIF"),
    ],
)
def test_an_image_is_found_under_all_its_names(asked: str, lies: str, tmp_path: Path) -> None:
    put(tmp_path / lies)
    assert ImageRoot(tmp_path).locate(asked) == tmp_path / lies
    remote = RemotePath(fs.LocalFileSystem(), "test", str(tmp_path))
    assert ImageRoot(remote).locate(asked) == remote / lies
    assert ImageRoot(remote).read(asked) == b"bytes"


@pytest.mark.parametrize(
    ("asked", "archive", "member"),
    [
        ("coco/train2017/000000000009.jpg", "coco/train2017.zip", "train2017/000000000009.jpg"),
        ("coco/train2017/000000000009.jpg", "coco/images/train2017.zip", "train2017/000000000009.jpg"),
        ("coco/train2017/000000000009.jpg", "coco/train2014.zip", "train2014/COCO_train2014_000000000009.jpg"),
        ("coco/val2014/COCO_val2014_000000000009.jpg", "coco/train2017.zip", "train2017/000000000009.jpg"),
        ("gqa/images/1.jpg", "gqa/images.zip", "images/1.jpg"),
        ("gqa/images/1.jpg", "vg/images2.zip", "VG_100K_2/1.jpg"),
        ("vg/VG_100K/1.jpg", "vg/images.zip", "VG_100K/1.jpg"),
        ("textvqa/train_images/0a.jpg", "textvqa/train_val_images.zip", "train_images/0a.jpg"),
        ("textvqa/train_images/0a.jpg", "textvqa/test_images.zip", "test_images/0a.jpg"),
        ("openimages/images/0a.jpg", "openimages/train_3.tar", "train_3/0a.jpg"),
        ("openimages/images/0a.jpg", "visual_cot/cot_images_tar_split/cot_images_00", "cot/openimages/0a.jpg"),
        ("gqa/images/1.jpg", "visual_cot/cot_images_tar_split/cot_images_00", "cot_image_data/gqa/1.jpg"),
        ("cub/CUB_200_2011/images/001.A/b.jpg", "cub/CUB_200_2011.tar", "CUB_200_2011/images/001.A/b.jpg"),
        ("cub/CUB_200_2011/images/001.A/b.jpg", "visual_cot/cot.tar", "cot/cub/001.A/b.jpg"),
        ("docvqa/documents/a_1.png", "docvqa/spdocvqa_images.zip", "a_1.png"),
        ("flickr30k/flickr30k-images/1.jpg", "flickr30k/flickr30k-images.tar", "flickr30k-images/1.jpg"),
        ("llava_pretrain/images/00453/1.jpg", "llava_pretrain/images.zip", "00453/1.jpg"),
        ("llava_pretrain/images/00453/1.jpg", "LLaVA-Pretrain/images.zip", "00453/1.jpg"),
        ("cc3m_595k/images/GCC_1.jpg", "LLaVA-CC3M-Pretrain-595K/images.zip", "GCC_1.jpg"),
        ("ocr_vqa/images/1.jpg", "ocr_vqa/images.zip", "images/1.gif"),
        ("own/images/a.jpg", "own/images.zip", "images/a.jpg"),
        ("own/images/a.jpg", "own/images.zip", "a.JPG"),
        ("own/images/a.jpg", "own/images.tar", "./images/a.jpg"),
        ("own/images/a.jpg", "own/images.tar.part0", "a.jpg"),
        ("own/images/a.jpg", "own/images.zip.001", "a.jpg"),
        ("own/images/deep/er/a.jpg", "own/images.tar.aa", "images/deep/er/a.jpg"),
        ("own/images/deep/er/a.jpg", "own.zip", "images/deep/er/a.jpg"),
        ("images/a.jpg", "images.zip", "a.jpg"),
    ],
)
def test_an_archive_stands_for_its_folder(asked: str, archive: str, member: str, tmp_path: Path) -> None:
    data = picture()
    files = {"readme.txt": b"no picture", member: data}
    put(tmp_path / archive, zipped(files) if ".zip" in archive else tarred(files))
    for root in (tmp_path, RemotePath(fs.LocalFileSystem(), "test", str(tmp_path))):
        found = ImageRoot(root)
        assert found.locate(asked) == root / archive
        assert found.read(asked) == data
        assert found.size(asked) == (8, 6)
        loaded = found.load(asked, 8, 6)
        assert isinstance(loaded, Picture) and loaded.data == data
        assert found.locate(asked.replace(".", "x.")) is None


def test_folders_come_before_archives(tmp_path: Path) -> None:
    """A folder that is listed last still comes before an archive for the first."""
    put(tmp_path / "coco/train2017.zip", zipped({"train2017/000000000009.jpg": b"zip"}))
    put(tmp_path / "coco/val2017.zip", zipped({f"val2017/00000000000{n}.jpg": b"second zip" for n in (8, 9)}))
    assert ImageRoot(tmp_path).read("coco/train2017/000000000009.jpg") == b"zip"
    assert ImageRoot(tmp_path).read("coco/train2017/000000000008.jpg") == b"second zip"
    put(tmp_path / "visual_cot/cot/vsr/000000000009.jpg", b"folder")
    assert ImageRoot(tmp_path).read("coco/train2017/000000000009.jpg") == b"folder"


def test_the_same_bytes_from_folder_zip_and_tar(tmp_path: Path) -> None:
    files = {f"{number:03d}.jpg": os.urandom(3_000 + number) for number in range(40)}
    members = {f"images/{name}": data for name, data in files.items()}
    for name, data in files.items():
        put(tmp_path / "folder/own/images" / name, data)
    put(tmp_path / "zip/own/images.zip", zipped(members, zipfile.ZIP_DEFLATED))
    whole = tarred(members)
    for number, (start, end) in enumerate(pairwise([*range(0, len(whole), 10_000), len(whole)])):
        put(tmp_path / f"tar/own/images.tar.{number}", whole[start:end])
    assert number > 10  # so that 10 must come after 9
    for kind in ("folder", "zip", "tar"):
        root = ImageRoot(tmp_path / kind)
        assert {name: root.read(f"own/images/{name}") for name in files} == files
        assert root.problems() == []


@pytest.mark.parametrize(
    ("names", "found"),
    [
        ("images.zip images.tar images.txt image.zip", [("images.zip",), ("images.tar",)]),
        ("images.tgz images.tar.gz images.tar.md5 images.zip.part", [("images.tgz",), ("images.tar.gz",)]),
        ("images.tar.2 images.tar.10 images.tar.1 images.tar.3", "images.tar.3: the part behind it is missing"),
        ("images.tar-part_aa images.tar-part_ab", [("images.tar-part_aa", "images.tar-part_ab")]),
        ("images.tar.partaa images.tar.partac", "images.tar.partaa: the part behind it is missing"),
        ("images.tar.part2 images.tar.part3", "images.tar.part2: the parts before it are missing"),
        ("images.tar.part1 images.tar.part2", [("images.tar.part1", "images.tar.part2")]),
        ("images.zip.00 images.zip.01", [("images.zip.00", "images.zip.01")]),
    ],
)
def test_archives_by_name(names: str, found: list[tuple[str, ...]] | str) -> None:
    stand = standing_for("images", set(names.split()))
    assert [part.names for part in stand] == found or stand[0].problem == found


def test_archives_that_are_called_otherwise() -> None:
    assert matching("a_*.bin", {"a_0.bin", "a_1.bin", "a_.bin", "b_2.bin"}) == [Parts(("a_0.bin", "a_1.bin"))]
    assert matching("a.zip", {"a.zip"}) == [Parts(("a.zip",))] and matching("a.zip", {"b.zip"}) == []


def test_the_list_of_archives_names_folders() -> None:
    for archive, folder in catalog.upstreams().archives.items():
        assert folder.endswith("/") and archive.startswith(folder) and archive.count("*") <= 1
    prefixed = {folder: known.prefix for folder, known in catalog.upstreams().images.items() if known.prefix}
    assert prefixed == {"coco/train2014/": "COCO_train2014_", "coco/val2014/": "COCO_val2014_"}


def test_each_folder_is_listed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(30):
        put(tmp_path / f"cub/CUB_200_2011/images/{number % 3:03d}.A/{number}.jpg")
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: Any) -> Any:
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counted)
    root = ImageRoot(tmp_path)
    for number in range(60):
        root.find(f"cub/CUB_200_2011/images/{number % 3:03d}.A/{number}.jpg")
    assert len(listed) == len(set(listed))
    assert sum("CUB_200_2011/images/" in path for path in listed) == 3


def test_a_header_costs_one_small_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, noted = picture((99, 33)), picture((99, 33))
    noted = noted[:2] + (b"\xff\xfe\xff\xff" + b"c" * 65_533) * 4 + noted[2:]  # comments before the size
    files = {"own/images/plain.jpg": plain + bytes(3_000_000), "own/images/noted.jpg": noted}
    put(tmp_path / "own.tar", tarred(files))
    put(tmp_path / "packed/own.zip", zipped({f"packed/{name}": data for name, data in files.items()}, 8))
    root = ImageRoot(tmp_path)
    assert root.locate("own/images/plain.jpg") is not None
    fetched: list[int] = []
    pread = os.pread

    def counted(file: int, length: int, start: int) -> bytes:
        fetched.append(length)
        return pread(file, length, start)

    monkeypatch.setattr(os, "pread", counted)
    assert root.size("own/images/plain.jpg") == (99, 33)
    assert fetched == [1 << 16]
    assert root.size("own/images/noted.jpg") == (99, 33)
    assert sum(fetched) < len(noted) + (2 << 16)
    packed = ImageRoot(tmp_path / "packed")
    assert packed.size("own/packed/own/images/plain.jpg") == packed.size("own/packed/own/images/noted.jpg") == (99, 33)


# What is wrong


def test_compressed_tars_are_refused_with_what_to_do(tmp_path: Path) -> None:
    put(tmp_path / "cub/CUB_200_2011.tgz", gzip.compress(tarred({"CUB_200_2011/images/001.A/b.jpg": b"b"})))
    put(tmp_path / "openimages/train_0.tar.gz", gzip.compress(tarred({"train_0/0a.jpg": b"a"})))
    root = ImageRoot(tmp_path)
    refused = "a tar compressed by gzip cannot be read in place; extract it into its folder"
    missing = "missing_image: {}: not under the raw root; {}: " + refused
    assert why(root, "cub/CUB_200_2011/images/001.A/b.jpg") == missing.format(
        "cub/CUB_200_2011/images/001.A/b.jpg", "cub/CUB_200_2011.tgz"
    )
    assert why(root, "openimages/images/0a.jpg") == missing.format(
        "openimages/images/0a.jpg", "openimages/train_0.tar.gz"
    )
    assert root.problems() == [f"cub/CUB_200_2011.tgz: {refused}", f"openimages/train_0.tar.gz: {refused}"]
    put(tmp_path / "cub/CUB_200_2011/images/001.A/b.jpg", b"extracted")
    again = ImageRoot(tmp_path)
    assert again.read("cub/CUB_200_2011/images/001.A/b.jpg") == b"extracted"
    assert again.problems() == []


def test_damaged_archives_are_named_where_an_image_is_missing(tmp_path: Path) -> None:
    whole = zipped({"train2017/000000000009.jpg": picture()})
    put(tmp_path / "coco/train2017.zip", whole[:-30])
    assert why(tmp_path, "coco/train2017/000000000009.jpg") == (
        "missing_image: coco/train2017/000000000009.jpg: not under the raw root; coco/train2017.zip: not a zip, or cut "
        "(it has no central directory at its end); download it again"
    )
    data = tarred({f"cot/gqa/{n}.jpg": picture() * 30 for n in range(9)})
    parts = tmp_path / "visual_cot/cot_images_tar_split"
    for number in (0, 1, 3):
        put(parts / f"cot_images_0{number}", data[number * 40_000 : (number + 1) * 40_000])
    root = ImageRoot(tmp_path)
    assert isinstance(root.read("gqa/images/0.jpg"), bytes)
    assert why(root, "gqa/images/8.jpg") == (
        "missing_image: gqa/images/8.jpg: not under the raw root; "
        "visual_cot/cot_images_tar_split/cot_images_01: the part behind it is missing"
    )
    (parts / "cot_images_00").unlink()
    (parts / "cot_images_01").unlink()
    assert why(tmp_path, "gqa/images/0.jpg") == (
        "missing_image: gqa/images/0.jpg: not under the raw root; "
        "visual_cot/cot_images_tar_split/cot_images_03: the parts before it are missing; get what is missing"
    )


def test_a_damaged_member_is_a_bad_image(tmp_path: Path) -> None:
    data = picture()
    put(tmp_path / "own/images.zip", zipped({"a.jpg": data}).replace(data[-40:], bytes(40)))
    put(tmp_path / "more/images.tar", tarred({"a.jpg": data * 99})[: 512 + 5_000])
    put(tmp_path / "locked/images.zip", zipped({"a.jpg": data}, zipfile.ZIP_LZMA))
    said = {
        "own": "own/images.zip: the archive is damaged at this image; download it again",
        "more": "more/images.tar: the archive is cut before the end of this image; download it again",
        "locked": "locked/images.zip keeps this image compressed by method 14; extract it",
    }
    root = ImageRoot(tmp_path)
    for folder, detail in said.items():
        path = f"{folder}/images/a.jpg"
        bad = Failure(Reason.BAD_IMAGE, f"{path}: {detail}")
        assert root.read(path) == root.load(path, 8, 6) == bad
    assert root.size("locked/images/a.jpg") == Failure(
        Reason.BAD_IMAGE, f"locked/images/a.jpg: {said['locked']}"
    )  # fmt: skip


def test_how_thoroughly_pictures_are_looked_at_is_passed_on(tmp_path: Path) -> None:
    """Pixels that are damaged between good markers are seen by decoding only."""
    damaged = bytearray(picture((64, 64), "PNG"))
    at = damaged.index(b"IDAT") + 10
    damaged[at : at + 9] = bytes(9)
    put(tmp_path / "own/images.zip", zipped({"a.png": bytes(damaged)}))
    assert isinstance(ImageRoot(tmp_path).load("own/images/a.png", 64, 64), Picture)
    refused = ImageRoot(tmp_path, verify="full").load("own/images/a.png", 64, 64)
    assert isinstance(refused, Failure) and refused.reason == Reason.BAD_IMAGE


def test_a_file_too_large_to_be_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "own/a.jpg", bytes(100))
    monkeypatch.setattr("vpt_data.images.root.MAX_MEMBER_BYTES", 99)
    assert ImageRoot(tmp_path).read("own/a.jpg") == Failure(
        Reason.BAD_IMAGE, "own/a.jpg: the file has more than 99 bytes"
    )


def test_a_folder_that_cannot_be_listed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def scandir(path: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", scandir)
    assert why(tmp_path, "own/a.jpg").startswith(
        "missing_image: own/a.jpg: not under the raw root; own cannot be listed (Permission denied)"
    )


def test_a_file_that_goes_away_or_is_no_file(tmp_path: Path) -> None:
    file = put(tmp_path / "own/a.jpg")
    os.mkfifo(tmp_path / "own/pipe.jpg")
    (tmp_path / "own/folder.jpg").mkdir()
    root = ImageRoot(tmp_path)
    assert root.read("own/a.jpg") == b"bytes"
    file.unlink()
    assert root.read("own/a.jpg") == Failure(
        Reason.BAD_IMAGE, "own/a.jpg: the file cannot be read (No such file or directory)"
    )
    for name in ("pipe.jpg", "folder.jpg"):
        assert why(root, f"own/{name}") == f"missing_image: own/{name}: not under the raw root"


# Real images


def test_every_real_image_is_found(shared: Path) -> None:
    root = ImageRoot(shared / "data/raw")
    checked = 0
    for line in (shared / "data/images.jsonl").read_bytes().splitlines():
        known = json.loads(line)
        path = known["file"].removeprefix("raw/")
        if path == known["file"]:
            continue
        assert root.size(path) == (known["width"], known["height"])
        data = root.read(path)
        assert isinstance(data, bytes) and len(data) == known["bytes"]
        checked += 1
    assert checked > 90
