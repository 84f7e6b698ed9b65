"""The images that rows name, and which of them are there: numbers add up, and what is wrong is named."""

from __future__ import annotations

import gzip
import json
import random
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vpt_data.inspect import raw_files, raw_images
from vpt_data.inspect.raw_images import Stock, take_stock
from vpt_data.sources import locate


def rows_of(images: list[tuple[str, int, int]], dataset: str) -> str:
    """Lines of Visual-CoT metadata, one for each image and the size claimed for it."""
    lines = [
        {
            "question": f"What is in {name}?",
            "answer": "Nothing.",
            "image": name,
            "width": width,
            "height": height,
            "bboxs": [[0, 0, 1, 1]],
            "dataset": dataset,
            "split": "train",
        }
        for name, width, height in images
    ]
    return "".join(f"{json.dumps(line)}\n" for line in lines)


def write_rows(root: Path, dataset: str, images: list[tuple[str, int, int]]) -> Path:
    path = root / f"visual_cot/metadata/{dataset}_cot_train.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(rows_of(images, dataset), encoding="utf-8")
    return path


def save(path: Path, size: tuple[int, int], orientation: int | None = None) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    exif = Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.new("RGB", size, "white").save(path, exif=exif)


def stock_of(root: Path, dataset: str = "gqa", sizes: bool = True) -> Stock:
    jobs = {("viscot", dataset): locate.find(root, "viscot", [dataset]).jobs}
    found, problems = take_stock(root, jobs, 0, sizes, lambda done, total: None)
    assert problems == []
    return found["viscot", dataset]


def stocks(found: raw_files.RawReport) -> dict[tuple[str, str], dict[str, Any]]:
    """The image reports of all data sets whose files are there."""
    return {
        (source, dataset): about.images.as_dict()
        for source, upstream in found.sources.items()
        for dataset, about in upstream.datasets.items()
        if about.images is not None
    }


def adds_up(images: dict[str, Any]) -> bool:
    lost = images["missing"]["count"] + images["unreadable"]["count"]
    found = sum(images["found"].values())
    by_set = images["sets"].values()
    return bool(
        found + lost == images["distinct"] == sum(count["distinct"] for count in by_set)
        and found == sum(count["found"] for count in by_set)
    )


def test_an_image_is_one_of_found_missing_unreadable(tmp_path: Path) -> None:
    folder = tmp_path / "gqa/images"
    for name in ("1.jpg", "2.jpg", "3.jpg"):
        save(folder / name, (8, 6))
    save(tmp_path / "vg/VG_100K/4.jpg", (8, 6))
    (folder / "5.jpg").write_bytes(b"")
    (folder / "6.jpg").write_bytes((folder / "1.jpg").read_bytes()[:30])
    names = ["1", "1", "2", "3", "4", "5", "6", "9", "8", "7"]
    path = write_rows(tmp_path, "gqa", [(f"{name}.jpg", 8, 6) for name in names])
    with path.open("a") as file:
        file.write("{damaged\n")
    stock = stock_of(tmp_path)
    assert (stock.rows, stock.malformed, stock.distinct) == (11, 1, 9)
    assert stock.found == {"gqa/images/": 3, "vg/VG_100K/": 1}
    assert stock.missing.count == 3
    assert stock.missing.first == ["gqa/images/7.jpg", "gqa/images/8.jpg", "gqa/images/9.jpg"]
    assert stock.unreadable.count == 2
    assert [text.split(":")[0] for text in stock.unreadable.first] == ["gqa/images/5.jpg", "gqa/images/6.jpg"]
    assert stock.wrong_size == raw_images.Count()
    assert stock.sets == {"gqa/images/": [9, 4]}
    assert adds_up(stock.as_dict())


def test_wrong_sizes_are_named_with_both_sizes(tmp_path: Path) -> None:
    save(tmp_path / "gqa/images/1.jpg", (8, 6))
    save(tmp_path / "gqa/images/2.jpg", (8, 6))
    # Two rows that contradict each other, and one image that is turned to its size as a build would turn it.
    save(tmp_path / "gqa/images/3.jpg", (8, 6), orientation=6)
    save(tmp_path / "gqa/images/4.jpg", (8, 6))
    claims = [("1.jpg", 16, 12), ("2.jpg", 8, 6), ("2.jpg", 9, 6), ("2.jpg", 7, 6), ("3.jpg", 6, 8), ("4.jpg", 6, 8)]
    write_rows(tmp_path, "gqa", claims)
    stock = stock_of(tmp_path)
    assert stock.wrong_size == raw_images.Count(
        3,
        [
            "gqa/images/1.jpg: the file is 8x6, the rows say 16x12",
            "gqa/images/2.jpg: the file is 8x6, the rows say 7x6",
            "gqa/images/4.jpg: the file is 8x6, the rows say 6x8",
        ],
    )
    assert stock.found == {"gqa/images/": 4}


def test_without_sizes_no_file_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "gqa/images/1.jpg", (8, 6))
    write_rows(tmp_path, "gqa", [("1.jpg", 80, 60), ("2.jpg", 8, 6)])
    monkeypatch.setattr("vpt_data.images.root.ImageRoot.size", None)
    stock = stock_of(tmp_path, sizes=False)
    assert (stock.found, stock.missing.count) == ({"gqa/images/": 1}, 1)
    assert (stock.unreadable.count, stock.as_dict()["wrong_size"]) == (0, None)


def test_an_image_of_several_data_sets_is_looked_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vpt_data.images.root import ImageRoot

    save(tmp_path / "textvqa/train_images/a.jpg", (8, 6))
    for dataset, width in (("textvqa", 8), ("textcap", 16)):
        write_rows(tmp_path, dataset, [("a.jpg", width, 6)])
    looked: list[str] = []
    size = ImageRoot.size
    monkeypatch.setattr(ImageRoot, "size", lambda self, path: looked.append(path) or size(self, path))
    found = stocks(raw_files.sources(tmp_path))
    assert looked == ["textvqa/train_images/a.jpg"]
    assert [found["viscot", name]["wrong_size"]["count"] for name in ("textvqa", "textcap")] == [0, 1]


def test_class_folders_are_one_place(tmp_path: Path) -> None:
    for name in ("001.Black/a.jpg", "002.White/b.jpg"):
        save(tmp_path / "cub/CUB_200_2011/images" / name, (8, 6))
    save(tmp_path / "visual_cot/cot/cub/003.Red/c.jpg", (8, 6))
    names = ["001.Black/a.jpg", "002.White/b.jpg", "003.Red/c.jpg"]
    write_rows(tmp_path, "cub", [(name, 8, 6) for name in names])
    assert stock_of(tmp_path, "cub").found == {"cub/CUB_200_2011/images/": 2, "visual_cot/cot/cub/": 1}


def test_what_leads_out_of_the_raw_root_is_not_looked_at(tmp_path: Path) -> None:
    root = tmp_path / "raw"
    save(tmp_path / "secret.jpg", (8, 6))
    save(root / "gqa/images/1.jpg", (8, 6))
    (root / "gqa/images/2.jpg").symlink_to(tmp_path / "secret.jpg")
    names = ["../../../secret.jpg", "a\0.jpg", "..\\..\\..\\secret.jpg", "2.jpg"]
    write_rows(root, "gqa", [(name, 8, 6) for name in names])
    stock = stock_of(root)
    assert (stock.distinct, stock.missing.count, stock.found) == (4, 0, {})
    assert stock.unreadable.count == 4
    assert "gqa/images/../../../secret.jpg: the image path leads out of the raw root" in stock.unreadable.first
    assert any(text.startswith("gqa/images/2.jpg: the link leads out of") for text in stock.unreadable.first)
    assert adds_up(stock.as_dict())


def test_images_in_an_archive(tmp_path: Path) -> None:
    save(tmp_path / "one.jpg", (8, 6))
    (tmp_path / "gqa").mkdir()
    with zipfile.ZipFile(tmp_path / "gqa/images.zip", "w") as archive:
        for name in ("1.jpg", "2.jpg"):
            archive.write(tmp_path / "one.jpg", f"images/{name}")
    save(tmp_path / "gqa/images/3.jpg", (8, 6))
    write_rows(tmp_path, "gqa", [("1.jpg", 8, 6), ("2.jpg", 16, 12), ("3.jpg", 8, 6), ("4.jpg", 8, 6)])
    stock = stock_of(tmp_path)
    assert stock.found == {"gqa/images.zip": 2, "gqa/images/": 1}
    assert stock.wrong_size == raw_images.Count(1, ["gqa/images/2.jpg: the file is 8x6, the rows say 16x12"])
    shutil.rmtree(tmp_path / "gqa/images")
    text = raw_files.text(raw_files.sources(tmp_path), 1_000)
    [gone] = [line for line in text.splitlines() if line.startswith("No images of: ")]
    assert "gqa/images/" not in gone and "docvqa/documents/" in gone


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "gqa").mkdir()
    (tmp_path / "gqa/images.zip").write_bytes(b"<html>no such file</html>")
    write_rows(tmp_path, "gqa", [("1.jpg", 8, 6)])
    found = raw_files.sources(tmp_path)
    [problem] = found.problems
    assert problem.startswith("gqa/images.zip: not a")
    assert f"\n{problem}.\n" in raw_files.text(found, 1_000)
    missing = stocks(found)["viscot", "gqa"]["missing"]
    assert missing == {"count": 1, "first": [f"gqa/images/1.jpg: not under the raw root; {problem}"]}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Indexes of archives go into a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


def test_a_file_that_cannot_be_read_is_a_problem_and_the_others_are_read(tmp_path: Path) -> None:
    write_rows(tmp_path, "gqa", [("1.jpg", 8, 6)])
    write_rows(tmp_path, "vsr", []).write_text("<html>not found</html>")
    datasets = raw_files.sources(tmp_path).sources["viscot"].datasets
    said = "visual_cot/metadata/vsr_cot_train.jsonl: the file starts with b'<'; expected JSON lines or one JSON array."
    assert datasets["vsr"].problem == said
    assert datasets["vsr"].images.rows == 0
    assert (datasets["gqa"].problem, datasets["gqa"].images.rows) == (None, 1)


def test_progress_counts_rows_then_headers(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        save(tmp_path / "gqa/images" / name, (8, 6))
    write_rows(tmp_path, "gqa", [("1.jpg", 8, 6), ("2.jpg", 8, 6), ("3.jpg", 8, 6)])
    told: list[tuple[int, int]] = []
    raw_files.sources(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 98_149), (2, 2)]


def test_twenty_thousand_images_in_one_folder(tmp_path: Path) -> None:
    count = 20_000
    save(tmp_path / "one.png", (8, 6))
    data = (tmp_path / "one.png").read_bytes()
    folder = tmp_path / "gqa/images"
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(data)
    # Every image in three rows, in any order; a tenth of them is not there.
    named = [(f"{number}.jpg", 8, 6) for number in range(count + count // 10)] * 3
    random.Random(0).shuffle(named)
    write_rows(tmp_path, "gqa", named)
    stock = stock_of(tmp_path)
    assert (stock.rows, stock.distinct, stock.found["gqa/images/"]) == (66_000, 22_000, count)
    assert (stock.missing.count, stock.wrong_size) == (2_000, raw_images.Count())
    assert stock.missing.first == [f"gqa/images/{number}.jpg" for number in (20_000, 20_001, 20_002)]


# Real rows


def test_real_rows_are_found_or_reported(shared: Path) -> None:
    root = shared / "data/raw"
    found = stocks(raw_files.sources(root))
    assert {source for source, _ in found} == {
        "viscot",
        "viscot_benchmark",
        "llava",
        "pope",
        "cub",
        "vsr",
        "aurora_count",
    }
    for name, images in found.items():
        assert adds_up(images), name
        assert images["wrong_size"] == images["unreadable"] == {"count": 0, "first": []}, name
    with gzip.open(root / "visual_cot/viscot_dataset/cub_cot_train.jsonl.gz", "rt") as lines:
        named = {json.loads(line)["image"] for line in lines}
    here = [name for name in named if (root / "cub/CUB_200_2011/images" / name).is_file()]
    cub = found["viscot", "cub"]
    assert (cub["distinct"], cub["found"]) == (len(named), {"cub/CUB_200_2011/images/": len(here)})
    assert cub["rows"] == 10_056 and len(here) > 10


def test_resized_copies_are_reported_and_drawn_ones_cannot_be(shared: Path, tmp_path: Path) -> None:
    data = shared / "data"
    rows: dict[str, list[tuple[str, int, int]]] = {"flickr30k": [], "sroie": []}
    for line in (data / "images.jsonl").read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        kind = entry["source"].partition("_")[0]
        if entry["file"].startswith("wrong_copies/") and entry["source"] != "sroie_resized_copy":
            folder = "flickr30k/flickr30k-images" if kind == "flickr30k" else "sroie/images"
            (tmp_path / folder).mkdir(parents=True, exist_ok=True)
            shutil.copy(data / entry["file"], tmp_path / folder)
            first = entry["rows"][0]
            rows[kind].append((Path(entry["file"]).name, first["w"], first["h"]))
    for kind, claims in rows.items():
        write_rows(tmp_path, kind, claims)
    found = stocks(raw_files.sources(tmp_path))
    resized = found["viscot", "flickr30k"]["wrong_size"]
    assert resized["count"] == len(rows["flickr30k"]) == 3
    prefix = "flickr30k/flickr30k-images/1032122270.jpg: the file is 200x150, the rows say 500x375"
    assert resized["first"][0] == prefix
    assert found["viscot", "sroie"]["wrong_size"]["count"] == 0 < found["viscot", "sroie"]["distinct"]
    text = raw_files.text(raw_files.sources(tmp_path), width=300)
    assert "flickr30k: wrong size: flickr30k/flickr30k-images/1032122270.jpg: the file is 200x150" in text
