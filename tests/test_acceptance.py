"""The counts that the real rows must give, as measured on the owners' files (read only where they are present)."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest
from helpers import end_to_end

TAKE = """
[take.{name}]
source = "{source}"
dataset = "{dataset}"
template = "region"
task = "spatial"
"""
REGIONS = "name = 'regions'\nshards = 1\n" + "".join(
    TAKE.format(name=name, source=source, dataset=dataset)
    for name, source, dataset in (
        ("vsr", "viscot", "vsr"),
        ("cub", "viscot", "cub"),
        ("bench_cub", "viscot_benchmark", "cub"),
        ("bench_docvqa", "viscot_benchmark", "docvqa"),
        ("bench_gqa", "viscot_benchmark", "gqa"),
    )
)
LLAVA = """
name = "llava"
[take.everything]
source = "llava"
template = "plain"
task = "instruction"
"""


@pytest.fixture(scope="module")
def raw(shared: Path) -> Path:
    return shared / "data" / "raw"


@pytest.fixture(scope="module")
def regions(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All real Visual-CoT rows as region looks, by the default rule."""
    folder = tmp_path_factory.mktemp("regions")
    return end_to_end.build(end_to_end.recipe_file(folder, REGIONS), raw, folder / "corpus")


@pytest.fixture(scope="module")
def legacy(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same by the published rule."""
    folder = tmp_path_factory.mktemp("legacy")
    return end_to_end.build(end_to_end.recipe_file(folder, REGIONS), raw, folder / "corpus", 'edge="legacy"')


@pytest.fixture(scope="module")
def mix(raw: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The mix of the paper, as far as its files are there."""
    return end_to_end.build("mixvrt_dino", raw, tmp_path_factory.mktemp("mix") / "corpus", "shards=2")


def indices(row: dict[str, Any]) -> set[int]:
    """Every grid index that a row names, in its views and in its tokens, which must agree."""
    cells = {cell for view in row["views"] for cell in view["cells"] or ()}
    said = " ".join(message["content"] for message in row["messages"] if message["role"] == "assistant")
    assert {int(number) for number in re.findall(r"<\|[xy]_(-?\d+)\|>", said)} == cells
    return cells


def with_index(corpus: Path, index: int) -> dict[str, int]:
    """How many rows of each take name an index."""
    found: dict[str, int] = {}
    for row in end_to_end.rows(corpus):
        found[row["take"]] = found.get(row["take"], 0) + (index in indices(row))
    return found


def test_every_real_box_becomes_a_region_look(regions: Path) -> None:
    account = end_to_end.account(regions)
    assert {take: (part.read, part.kept, part.repaired) for take, part in account.items()} == {
        "vsr": (3_376, 3_376, {}),
        "cub": (10_056, 10_056, {"clipped": 28}),
        "bench_cub": (492, 492, {"clipped": 4}),
        "bench_docvqa": (888, 888, {"swapped": 8}),
        "bench_gqa": (978, 978, {"clipped": 9}),
    }
    assert all(row["looks"] == ["region"] for row in end_to_end.rows(regions))


def test_no_index_lies_outside_the_grid(regions: Path) -> None:
    assert set().union(*map(indices, end_to_end.rows(regions))) == set(range(8))


def test_the_published_rule_gives_the_published_defect(regions: Path, legacy: Path) -> None:
    expected = {"vsr": 986, "cub": 72, "bench_docvqa": 0, "bench_gqa": 105}
    found = with_index(legacy, 8)
    assert {take: found[take] for take in expected} == expected
    assert set().union(*map(indices, end_to_end.rows(legacy))) == set(range(9))
    default = {row["id"]: row for row in end_to_end.rows(regions)}
    for row in end_to_end.rows(legacy):
        if 8 not in indices(row):
            assert row == default[row["id"]]


def test_images_of_the_evaluation_rows_stay_out(mix: Path, regions: Path) -> None:
    account = end_to_end.account(mix)
    vsr = account["vsr"]
    assert (vsr.expected, vsr.read, vsr.dropped, vsr.kept) == (3_376, 3_376, {"eval_image": 29}, 3_347)
    cub = account["cub"]
    assert (cub.expected, cub.read, cub.repaired, cub.kept) == (10_056, 10_056, {"clipped": 28}, 10_056)
    keys = {drop["key"] for drop in end_to_end.drops(mix) if (drop["take"], drop["reason"]) == ("vsr", "eval_image")}
    rows = [row for row in end_to_end.rows(regions) if row["take"] == "vsr" and row["id"].partition("/")[2] in keys]
    assert len(rows) == 29
    assert len({row["images"][0]["path"] for row in rows}) == 14


def test_evaluation_images_are_those_of_pope(raw: Path, mix: Path, regions: Path) -> None:
    """The same 14 images, found without the package: the POPE file names them by COCO number."""
    pope = gzip.decompress((raw / "pope/coco/coco_pope_popular.json.gz").read_bytes()).splitlines()
    shown = {int(re.findall(r"\d+", json.loads(line)["image"])[-1]) for line in pope}
    numbers = {
        row["id"]: int(Path(row["images"][0]["path"]).stem) for row in end_to_end.rows(regions) if row["take"] == "vsr"
    }
    kept = {sample for sample in end_to_end.ids(mix) if sample.startswith("vsr/")}
    assert numbers.keys() - kept == {sample for sample, number in numbers.items() if number in shown}


def test_takes_without_files_are_reported(mix: Path) -> None:
    account = end_to_end.account(mix)
    absent = {"docvqa": 33_453, "textvqa": 18_524, "textcap": 32_152, "gqa": 98_149, "openimages": 43_053}
    for take, expected in absent.items():
        part = account[take]
        assert (part.expected, part.read, part.dropped, part.kept) == (expected, 0, {}, 0)
    missing = json.loads((mix / "manifest.json").read_text())["missing"]
    assert [line.partition(":")[0] for line in missing] == list(absent)
    assert missing[0] == "docvqa: visual_cot/metadata/docvqa_cot_train.jsonl"


def test_all_llava_rows_are_accounted_for(raw: Path, tmp_path: Path) -> None:
    corpus = end_to_end.build(end_to_end.recipe_file(tmp_path, LLAVA), raw, tmp_path / "corpus")
    part = end_to_end.account(corpus)["everything"]
    assert (part.read, part.kept, part.dropped) == (600, 600, {})
    assert sorted(origin["row"] for origin in end_to_end.origins(corpus)) == list(range(600))


def test_the_mix_accounts_for_all_llava_rows(mix: Path) -> None:
    """A record is read by each take that it fits, and the takes share out the 600 among them."""
    account = end_to_end.account(mix)
    takes = ("llava_coco", "llava_gqa", "llava_rest")
    settled = sum(part.kept for take, part in account.items() if take in takes or take == "unmatched:llava")
    other = sum(
        count
        for take, part in account.items() if take in takes or take == "unmatched:llava"
        for reason, count in part.dropped.items() if reason != "claimed"
    )  # fmt: skip
    assert settled + other == 600
    assert not any("duplicate" in account[take].dropped for take in takes)


def test_real_images_are_embedded_as_they_are(raw: Path, tmp_path: Path) -> None:
    """Rows whose image is not there go, with a reason; those kept hold the owner's bytes."""
    corpus = end_to_end.build("vpt_eval", raw, tmp_path / "corpus", mode="embed")
    account = end_to_end.account(corpus)
    assert account["GQA_region_test"].read == 978
    assert account["GQA_region_test"].kept + account["GQA_region_test"].dropped["missing_image"] == 978
    known = (json.loads(line) for line in (raw.parent / "images.jsonl").read_text().splitlines())
    sha256 = {Path(image["file"]).name: image["sha256"] for image in known}
    kept = end_to_end.rows(corpus)
    assert kept
    for row in kept:
        # A COCO picture may lie in the folder of another year, under the name it has there.
        name = Path(row["images"][0]["path"]).name
        assert row["image_info"][0]["sha256"] == (sha256.get(name) or sha256[name.rpartition("_")[2]])
    assert {drop["reason"] for drop in end_to_end.drops(corpus)} == {"missing_image", "not_selected"}


def test_sizes_in_the_rows_are_those_of_the_annotation(regions: Path) -> None:
    """The first row of the VSR file, whose box ends 0.2 px short of the border of a 640x640 image."""
    found = end_to_end.table(regions).filter(pc.field("question") == "Is the car over the cat?").to_pylist()
    row = next(row for row in found if row["images"][0]["path"].endswith("000000068878.jpg"))
    assert [(info["width"], info["height"]) for info in row["image_info"]] == [(640, 640)]
    assert [view["cells"] for view in row["views"]] == [None, [0, 4, 7, 7]]
    assert [view["box"] for view in row["views"]] == [None, [0, 320, 640, 640]]
