from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import image_files as make
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from vpt_data.corpus import manifest
from vpt_data.corpus.manifest import ImagesRecord, Manifest, RecipeRecord, ShardRecord, SplitRecord
from vpt_data.errors import CorpusError, UsageError
from vpt_data.inspect import overlap
from vpt_data.inspect.overlap import NEAR, SAME_CONTENT, SAME_IMAGE, Example, Found, compare
from vpt_data.inspect.phash import close_pairs, difference_hash
from vpt_data.schema import SAMPLE

Splits = dict[str, dict[str, bytes]]


def _corpus(folder: Path, splits: Splits, embed: bool = True) -> Path:
    """A corpus with two rows an image, as far as images go; in reference mode its files lie in `raw`."""
    made = {}
    (folder / "data").mkdir(parents=True)
    for split, images in splits.items():
        name = f"data/{split}-00000-of-00001.parquet"
        rows = [_row(path, data if embed else None) for path, data in images.items() for _ in range(2)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SAMPLE), folder / name, row_group_size=4)
        made[split] = SplitRecord(len(rows), [ShardRecord(name, len(rows), 0, "")])
        for path, data in images.items():
            (folder / "raw" / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / "raw" / path).write_bytes(data)
    recipe = RecipeRecord("t", "", {})
    mode = "embed" if embed else "reference"
    manifest.write(Manifest(1, manifest.tool(), recipe, [], mode, False, [], made, ImagesRecord(0, 0, 0), ""), folder)
    return folder


def _row(path: str, data: bytes | None) -> dict[str, Any]:
    row: dict[str, Any] = dict.fromkeys(SAMPLE.names)
    return {**row, "images": [{"bytes": data, "path": path}], "image_info": [{"width": None, "height": None}]}


def _photo(seed: int) -> Image.Image:
    """Smooth light and dark, different for each seed."""
    cells = np.random.default_rng(seed).integers(0, 256, (6, 7, 3), np.uint8)
    return Image.fromarray(cells).resize((210, 180), Image.Resampling.BICUBIC)


def _jpeg(image: Image.Image, quality: int = 90) -> bytes:
    return make.encoded(image, "JPEG", quality=quality)


def _copy(seed: int) -> bytes:
    """The same photo, smaller and compressed again."""
    return _jpeg(_photo(seed).resize((140, 120), Image.Resampling.BICUBIC), 60)


PHOTOS = {seed: _jpeg(_photo(seed)) for seed in range(12)}
SPLITS: Splits = {
    "train": {
        "coco/train2017/000000000001.jpg": PHOTOS[0],
        "own/a.jpg": PHOTOS[1],
        "own/b.jpg": PHOTOS[2],
        "own/other.jpg": PHOTOS[3],
        "own/blank.jpg": _jpeg(Image.new("L", (90, 90), 250)),
    },
    "test": {
        "coco/val2014/COCO_val2014_000000000001.jpg": PHOTOS[0],
        "test/a.jpg": PHOTOS[1],
        "test/b.jpg": _copy(2),
        "test/other.jpg": PHOTOS[4],
        "test/blank.jpg": _jpeg(Image.new("L", (90, 90), 252)),
        "test/broken.jpg": PHOTOS[5][:400],
    },
}
FOUND = [
    Found(SAME_IMAGE, "train", "test", 1, 1, 1),
    Found(SAME_CONTENT, "train", "test", 1, 1, 1),
    Found(NEAR, "train", "test", 1, 1, 1),
]


@pytest.mark.parametrize("embed", [True, False])
def test_each_kind_of_overlap_is_found_once(tmp_path: Path, embed: bool) -> None:
    corpus = _corpus(tmp_path, SPLITS, embed)
    seen = compare(corpus, raw=None if embed else tmp_path / "raw")
    assert seen.found == FOUND
    assert seen.images == {"train": 5, "test": 6}
    assert (seen.plain, seen.unreadable) == (2, 1)
    assert seen.first_unreadable is not None and seen.first_unreadable.startswith("test/broken.jpg: ")
    near = seen.examples[2]
    assert near.distance is not None and near.distance <= 4
    assert seen.examples == [
        Example(
            SAME_IMAGE, "train", "coco/train2017/000000000001.jpg",
            "test", "coco/val2014/COCO_val2014_000000000001.jpg", None,
        ),
        Example(SAME_CONTENT, "train", "own/a.jpg", "test", "test/a.jpg", None),
        Example(NEAR, "train", "own/b.jpg", "test", "test/b.jpg", near.distance),
    ]  # fmt: skip


def test_another_corpus_is_compared_across_only(tmp_path: Path) -> None:
    one = _corpus(tmp_path / "one", {"train": {"a.jpg": PHOTOS[0], "twin.jpg": PHOTOS[0], "c.jpg": PHOTOS[1]}})
    two = _corpus(tmp_path / "two", {"train": {"x.jpg": PHOTOS[0], "y.jpg": PHOTOS[0], "z.jpg": _copy(1)}})
    seen = compare(one, two)
    assert seen.found == [
        Found(SAME_CONTENT, "train", "against:train", 2, 2, 4),
        Found(NEAR, "train", "against:train", 1, 1, 1),
    ]
    assert seen.images == {"train": 3, "against:train": 3}
    assert compare(one).found == [Found(SAME_CONTENT, "train", "train", 2, 2, 1)]


def test_the_report_is_plain_values_and_text(tmp_path: Path) -> None:
    seen = compare(_corpus(tmp_path, SPLITS))
    assert seen.as_dict()["found"][1] == {
        "kind": "same content", "a": "train", "b": "test", "images_a": 1, "images_b": 1, "pairs": 1,
    }  # fmt: skip
    text = seen.text().splitlines()
    assert text[0] == "Distinct images: train 5, test 6."
    assert text[1] == "2 are too plain to look alike or not; compared by name and content only."
    assert text[2].startswith("1 could not be read; the first: test/broken.jpg: ")
    assert "same content: train own/a.jpg - test test/a.jpg" in text
    assert "same content: the same bytes under two names" in text
    assert "same content    train  test            1            1      1" in text
    assert text[-1] == (
        "Near-duplicates are candidates: printed pages and plain scenes look alike to a hash. Look at them."
    )


def test_nothing_in_common_is_said(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, {"train": {"a.jpg": PHOTOS[0]}, "test": {"b.jpg": PHOTOS[1]}})
    assert compare(corpus).text() == (
        f"Distinct images: train 1, test 1.\n{corpus}: no overlap found, up to 4 of 64 bits."
    )
    empty = _corpus(tmp_path / "empty", {"train": {}})
    assert compare(empty).text().startswith("Distinct images: train 0.\n")


def test_examples_are_few_and_the_closest_across_splits(tmp_path: Path) -> None:
    train = {f"{n}.jpg": PHOTOS[0] for n in range(6)}
    seen = compare(_corpus(tmp_path, {"train": train, "test": {"x.jpg": PHOTOS[0]}}), examples=3)
    assert seen.found == [
        Found(SAME_CONTENT, "train", "train", 6, 6, 15),
        Found(SAME_CONTENT, "train", "test", 6, 1, 6),
    ]
    assert [(one.path_a, one.b) for one in seen.examples] == [(f"{n}.jpg", "test") for n in range(3)]


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path / "c", {"train": {"a.jpg": PHOTOS[0]}}, embed=False)
    with pytest.raises(UsageError) as unnamed:
        compare(corpus)
    assert str(unnamed.value) == f"{corpus}: its images are not in the shards; give their raw root with --raw."
    with pytest.raises(UsageError) as radius:
        compare(corpus, radius=11)
    assert str(radius.value) == "A radius of 11 bits is not between 0 and 10; 4 is a good one."
    with pytest.raises(CorpusError):
        compare(tmp_path)


def test_a_missing_image_of_a_reference_corpus_is_counted(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, {"train": {"a.jpg": PHOTOS[0], "b.jpg": PHOTOS[0]}}, embed=False)
    (tmp_path / "raw/b.jpg").unlink()
    seen = compare(corpus, raw=tmp_path / "raw")
    assert (seen.unreadable, seen.first_unreadable, seen.found) == (1, "b.jpg: not under the raw root", [])


def test_shards_without_their_bytes_are_no_crash(tmp_path: Path) -> None:
    corpus = _corpus(tmp_path, {"train": {"a.jpg": PHOTOS[0]}})
    pq.write_table(
        pa.Table.from_pylist([_row("a.jpg", None)], schema=SAMPLE), corpus / "data/train-00000-of-00001.parquet"
    )
    assert compare(corpus).first_unreadable == "a.jpg: not in the shard"


# The hash


@pytest.mark.parametrize("seed", range(12))
def test_a_copy_is_near_and_another_picture_is_far(seed: int) -> None:
    mine = difference_hash(_photo(seed))
    with Image.open(io.BytesIO(_copy(seed))) as copy:
        assert mine is not None and (mine ^ (difference_hash(copy) or 0)).bit_count() <= 4
    other = difference_hash(_photo(seed + 100))
    assert other is not None and (mine ^ other).bit_count() > 10
    mirrored = difference_hash(_photo(seed).transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert mirrored is not None and (mine ^ mirrored).bit_count() > 10


def test_a_brighter_neighbour_sets_a_bit() -> None:
    rising = Image.linear_gradient("L").transpose(Image.Transpose.ROTATE_90)
    assert difference_hash(rising) == 2**64 - 1
    assert difference_hash(rising.transpose(Image.Transpose.FLIP_LEFT_RIGHT)) == 0


def test_plain_images_are_not_compared() -> None:
    page = Image.new("RGB", (300, 400), "white")
    assert difference_hash(page) is None
    ImageDraw.Draw(page).text((140, 200), "12", fill="black")
    assert difference_hash(page) is None
    ImageDraw.Draw(page).rectangle((0, 0, 150, 400), fill="black")
    assert difference_hash(page) is not None


@given(st.lists(st.integers(0, 2**64 - 1), max_size=12), st.integers(0, 10), st.data())
def test_the_search_finds_each_close_pair_once(numbers: list[int], radius: int, data: st.DataObject) -> None:
    flips = data.draw(st.lists(st.sets(st.integers(0, 63), max_size=12), max_size=12))
    near = [numbers[n % len(numbers)] ^ sum(1 << bit for bit in bits) for n, bits in enumerate(flips) if numbers]
    hashes = np.array(numbers + near, np.uint64)
    found = [
        tuple(sorted(pair)) for i, j in close_pairs(hashes, radius) for pair in zip(i.tolist(), j.tolist(), strict=True)
    ]
    brute = [
        (i, j) for j in range(len(hashes)) for i in range(j) if (int(hashes[i]) ^ int(hashes[j])).bit_count() <= radius
    ]
    assert sorted(found) == sorted(brute)


# Real images


def test_real_wrong_copies(shared: Path, tmp_path: Path) -> None:
    """What drawn boxes do not change is enough: a receipt that was drawn on and its resized copy are near."""
    copies = shared / "data/wrong_copies"
    originals = shared / "data/raw"
    photo = (originals / "flickr30k/flickr30k-images/1032122270.jpg").read_bytes()
    splits = {
        "train": {"own/photo.jpg": photo},
        "test": {
            "own/resized.jpg": (copies / "flickr30k_resized_copy/1032122270.jpg").read_bytes(),
            "own/drawn.jpg": (copies / "sroie_drawn_copy/X00016469670.jpg").read_bytes(),
            "own/scan.jpg": (copies / "sroie_resized_copy/X00016469670.jpg").read_bytes(),
            "own/other.jpg": (copies / "flickr30k_resized_copy/1129704496.jpg").read_bytes(),
        },
    }
    seen = compare(_corpus(tmp_path, splits))
    pairs = {(one.path_a, one.path_b) for one in seen.examples}
    assert pairs == {("own/photo.jpg", "own/resized.jpg"), ("own/drawn.jpg", "own/scan.jpg")}


def test_real_images_of_different_names_are_far_apart(shared: Path, tmp_path: Path) -> None:
    files = [file for file in sorted((shared / "data/raw").rglob("*.jpg")) if file.is_file()]
    names = {f"own/{n}.jpg": file.read_bytes() for n, file in enumerate(files)}
    seen = compare(_corpus(tmp_path, {"train": names}))
    assert len(names) > 50
    assert [one for one in seen.found if one.kind == NEAR] == []


def test_the_sample_corpus_is_compared(embedded_corpus: Path) -> None:
    seen = compare(embedded_corpus)
    assert sum(seen.images.values()) > 0 and seen.unreadable == 0
    assert {one.kind for one in seen.found} <= set(overlap.KINDS)
