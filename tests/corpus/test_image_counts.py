"""One way to count images: distinct paths, all or none of them embedded, under the licences that the rows state."""

from __future__ import annotations

import io
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import end_to_end
from helpers.end_to_end import OWN
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vpt_data.corpus import image_counts, row_groups
from vpt_data.corpus.reader import open_corpus
from vpt_data.inspect.stats import stats
from vpt_data.schema import SAMPLE

shown = st.tuples(st.sampled_from([*"abcdef", "coco/val2017/1.jpg"]), st.sampled_from(["CC0-1.0", "MIT", None]))


def table(rows: list[list[tuple[str, str | None]]]) -> pa.Table:
    made = [
        {
            "images": [{"bytes": None, "path": path} for path, _ in row],
            "image_info": [{"license": license_id} for _, license_id in row],
        }
        for row in rows
    ]
    kinds = pa.schema([SAMPLE.field("images"), SAMPLE.field("image_info")])
    return pa.Table.from_pylist(made, schema=kinds)


@given(st.lists(st.lists(shown, max_size=3), max_size=12), st.integers(1, 4), st.randoms(use_true_random=False))
def test_every_image_counts_once(rows: list[list[tuple[str, str | None]]], parts: int, chance: random.Random) -> None:
    """Rows are distributed over shards by their first image, in any number of row groups."""
    ranges: list[list[pa.Table]] = []
    for part in range(parts):
        mine = [row for row in rows if row and sum(map(ord, row[0][0])) % parts == part]
        groups = [table([row]) for row in mine]
        cut = chance.randint(0, len(groups))
        ranges.append(
            [
                image_counts.of_shard([image_counts.images_of(group) for group in some], {"a", "b"})
                for some in (groups[:cut], groups[cut:])
            ]
        )
    found = image_counts.count(lambda: [iter(tables) for tables in ranges], embed=False)
    pairs = {pair for row in rows for pair in row}
    paths = {path for path, _ in pairs}
    assert (found.distinct, found.embedded, found.missing) == (len(paths), 0, len(paths & {"a", "b"}))
    due = Counter(("coco/val2017/" if path.startswith("coco") else "", license_id) for path, license_id in pairs)
    assert {(entry.folder, entry.license): entry.images for entry in found.licenses} == due


@pytest.mark.parametrize("mode", ["reference", "embedded"])
def test_manifest_stats_and_rows_agree(mode: str, request: pytest.FixtureRequest) -> None:
    corpus: Path = request.getfixturevalue(f"{mode}_corpus")
    opened = open_corpus(corpus)
    images = opened.manifest.images
    rows = list(opened.rows(columns=["images", "image_info"], images=False))
    paths = {image["path"] for row in rows for image in row["images"]}
    assert images.distinct == len(paths) == stats(corpus).distinct_images
    assert images.embedded == (images.distinct if mode == "embedded" else 0)
    assert images.missing <= images.distinct
    pairs = {
        (image["path"], info["license"])
        for row in rows
        for image, info in zip(row["images"], row["image_info"], strict=True)
    }
    stated: Counter[Any] = Counter()
    for entry in images.licenses:
        stated[entry.license] += entry.images
    assert stated == Counter(license_id for _, license_id in pairs)


@pytest.mark.parametrize("license_id", ["CC-BY-4.0", None])
def test_own_images_are_under_the_licence_of_their_take(tmp_path: Path, license_id: str | None) -> None:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(6))
    text = "\n".join(line for line in OWN.splitlines() if not line.startswith("license"))
    text += f'\nlicense = "{license_id}"\n' if license_id else "\n"
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, text), raw, tmp_path / "corpus")
    infos = [info for row in open_corpus(corpus).rows() for info in row["image_info"]]
    assert {info["license"] for info in infos} == {license_id}
    [entry] = open_corpus(corpus).manifest.images.licenses
    assert (entry.folder, entry.license, entry.images) == ("", license_id, 2)


@pytest.mark.parametrize("rescale", [False, True])
def test_images_too_large_for_readers_are_dropped_or_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rescale: bool
) -> None:
    """The limit is Pillow's; a lower one stands for it here."""
    monkeypatch.setattr(row_groups, "MAX_EMBEDDED_PIXELS", 640 * 480 - 1)
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(6))
    end_to_end.own_images(raw, 2)
    for path in (raw / "own/images").iterdir():
        Image.new("RGB", (640, 480)).save(path)
    recipe = end_to_end.recipe_file(tmp_path, OWN + ("rescale = true\n" if rescale else ""))
    corpus = end_to_end.build(recipe, raw, tmp_path / "corpus", mode="embed")
    if not rescale:
        dropped = pq.read_table(corpus / "dropped.parquet")
        assert dropped["reason"].to_pylist() == ["bad_image"] * 6
        assert "more than 307,199 pixels" in dropped["detail"][0].as_py()
        return
    opened = open_corpus(corpus)
    [part] = opened.manifest.components
    assert (part.kept, part.repaired) == (6, {"reencoded": 6, "rescaled": 6})
    for row in opened.rows():
        [info], [region] = row["image_info"], row["regions"]
        number = int(row["answers"][0].split()[-1])
        assert (info["width"], info["height"]) == (320, 240)
        assert region["box"] == [number / 2, 10, 155 + number / 2, 200]
        with Image.open(io.BytesIO(row["images"][0]["bytes"])) as image:
            assert image.size == (320, 240)
