"""Who an image is where Visual Genome's own list says which of its images are COCO's."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pytest
from helpers.packed import put

from vpt_data.errors import RawError
from vpt_data.images import identity
from vpt_data.images.identity import identities
from vpt_data.images.root import ImageRoot


def _genome(root: Path, place: str, records: object) -> Path:
    data = json.dumps(records).encode()
    put(root / place, gzip.compress(data) if place.endswith(".gz") else data)
    return root


PATHS = ["gqa/images/17.jpg", "vg/VG_100K_2/17.jpg", "vg/VG_100K/18.jpg", "gqa/images/n17.jpg", "own/17.jpg"]
RECORDS = [{"image_id": 17, "coco_id": 310196, "width": 5, "url": "x"}, {"image_id": 18, "coco_id": None}]


PLACES = [f"{folder}/image_data.json{ending}" for folder in ("vg", "gqa") for ending in ("", ".gz")]


@pytest.mark.parametrize("place", PLACES)
def test_images_of_visual_genome_that_are_cocos(place: str, tmp_path: Path) -> None:
    paths = pa.array(PATHS)
    plain = ["vg:17", "vg:17", "vg:18", "file:gqa/images/n17.jpg", "file:own/17.jpg"]
    assert identities(paths, tmp_path).to_pylist() == identities(paths).to_pylist() == plain
    assert identity.image_data(tmp_path) is None
    _genome(tmp_path, place, RECORDS)
    mapped = ["coco:310196", "coco:310196", *plain[2:]]
    assert identities(paths, tmp_path).to_pylist() == ImageRoot(tmp_path).identity(paths).to_pylist() == mapped
    assert identities(paths).to_pylist() == plain
    found = identity.image_data(tmp_path)
    assert found is not None and found.name == place.removesuffix(".gz")


def test_the_list_of_visual_genome_is_read_once_and_again_when_it_changes(tmp_path: Path) -> None:
    paths = pa.array(PATHS[:1])
    _genome(tmp_path, "vg/image_data.json", RECORDS)
    assert identities(paths, tmp_path).to_pylist() == ["coco:310196"]
    assert identity.coco_numbers(tmp_path) is identity.coco_numbers(tmp_path)
    _genome(tmp_path, "vg/image_data.json", [{"image_id": 17, "coco_id": 5}])
    assert identities(paths, tmp_path).to_pylist() == ["coco:5"]


def test_a_list_of_visual_genome_that_is_none(tmp_path: Path) -> None:
    _genome(tmp_path, "vg/image_data.json", [{"id": 1}])
    with pytest.raises(RawError) as error:
        identities(pa.array(PATHS), tmp_path)
    assert str(error.value) == (
        "vg/image_data.json: not image_data.json (Object missing required field `image_id` - at `$[0]`); expected "
        "Visual Genome's list of objects with image_id and coco_id: fetch the file again."
    )
    put(tmp_path / "vg/image_data.json", b"\xff")
    with pytest.raises(RawError, match=r"^vg/image_data.json: not image_data.json \("):
        identities(pa.array(PATHS), tmp_path)


def test_visual7w_and_emotic_show_images_of_others(tmp_path: Path) -> None:
    """Their own names for photos of Visual Genome and COCO; EMOTIC's other photos are its own."""
    paths = pa.array(
        [
            "visual7w/images/v7w_17.jpg",
            "emotic/images/mscoco/images/COCO_train2014_000000310196.jpg",
            "emotic/images/framesdb/images/frame_6nxz.jpg",
        ]
    )
    assert identities(paths).to_pylist() == [
        "vg:17", "coco:310196", "file:emotic/images/framesdb/images/frame_6nxz.jpg",
    ]  # fmt: skip
    _genome(tmp_path, "vg/image_data.json", RECORDS)
    assert identities(paths, tmp_path).to_pylist()[:2] == ["coco:310196"] * 2
