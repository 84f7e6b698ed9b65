"""`vpt-data sources`: what the upstreams are, and what of them lies under a raw root."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from click.testing import CliRunner
from helpers import small_corpora

from vpt_data.cli.main import main
from vpt_data.errors import RawError
from vpt_data.inspect import raw_files
from vpt_data.upstream.catalog import upstreams


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.write_raw(tmp_path_factory.mktemp("sources") / "raw")


def test_without_a_raw_root() -> None:
    found = raw_files.sources(None)
    assert found.raw is None
    assert set(found.sources) == set(upstreams().source)
    gqa = found.as_dict()["sources"]["viscot"]["datasets"]["gqa"]
    assert gqa == {
        "rows": 98_149,
        "places": {"rows": "visual_cot/metadata/gqa_cot_train.jsonl"},
        "optional": [],
    }
    text = raw_files.text(found)
    words = " ".join(text.split())
    for upstream in upstreams().source.values():
        for fact in (upstream.title, upstream.homepage, upstream.license, upstream.get):
            assert fact in words
    assert text.endswith("Give --raw DIR to see what of it is there.")


def test_with_a_raw_root(raw: Path) -> None:
    found = raw_files.sources(raw)
    datasets = found.sources["viscot"].datasets
    gqa = datasets["gqa"]
    assert (gqa.found, gqa.missing) == (["visual_cot/metadata/gqa_cot_train.jsonl"], [])
    assert (datasets["dude"].found, datasets["dude"].missing) == (
        [],
        ["visual_cot/metadata/dude_cot_train.jsonl"],
    )
    assert found.sources["llava"].datasets[""].found == ["llava/llava_v1_5_mix665k.json"]
    assert found.images["gqa/images/"].found == [raw_files.Place("gqa/images/", files=3, folders=0)]
    assert found.images["dude/images/"].found == []
    # Other places of the same images count too.
    places = [place.place for place in found.images["textvqa/train_images/"].found]
    assert places == ["textvqa/train_images/"]


def test_second_copies_and_other_places(raw: Path, tmp_path: Path) -> None:
    here, there = tmp_path / "visual_cot/metadata", tmp_path / "visual_cot/viscot_dataset"
    for folder in (here, there):
        folder.mkdir(parents=True)
        (folder / "gqa_cot_train.jsonl").write_text("{}")
    (there / "vsr_cot_train.jsonl.gz").write_bytes(b"")
    datasets = raw_files.sources(tmp_path).sources["viscot"].datasets
    assert datasets["gqa"].second_copies == ["visual_cot/viscot_dataset/gqa_cot_train.jsonl"]
    assert datasets["vsr"].found == ["visual_cot/viscot_dataset/vsr_cot_train.jsonl.gz"]
    text = raw_files.text(raw_files.sources(tmp_path), width=200)
    assert "(second copy: visual_cot/viscot_dataset/gqa_cot_train.jsonl)" in text


def test_a_needed_partner_is_missing(tmp_path: Path) -> None:
    folder = tmp_path / "visual_cot/viscot_benchmark/benchmark_det"
    folder.mkdir(parents=True)
    (folder / "cub.jsonl").write_text("{}")
    cub = raw_files.sources(tmp_path).sources["viscot_benchmark"].datasets["cub"]
    assert (cub.found, cub.missing) == ([], ["visual_cot/viscot_benchmark/benchmark/cub.json"])


def test_a_folder_where_a_file_should_be(tmp_path: Path) -> None:
    (tmp_path / "llava/llava_v1_5_mix665k.json").mkdir(parents=True)
    found = raw_files.sources(tmp_path)
    sentence = "llava/llava_v1_5_mix665k.json: this is a folder; expected the file of that name."
    assert found.sources["llava"].datasets[""].problem == sentence
    line = next(line for line in raw_files.text(found, width=200).splitlines() if sentence in line)
    assert line.split()[:3] == ["(all)", "665,298", "unusable"]


def test_images_in_class_folders(tmp_path: Path) -> None:
    for name in ("001.Black", "002.White"):
        (tmp_path / "cub/CUB_200_2011/images" / name).mkdir(parents=True)
    found = raw_files.sources(tmp_path).images["cub/CUB_200_2011/images/"].found
    assert found[0] == raw_files.Place("cub/CUB_200_2011/images/", files=0, folders=2)


def test_a_folder_is_listed_once_to_count_and_once_to_find(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    scandir = os.scandir

    def counted(path: Path) -> object:
        listed.append(str(path))
        return scandir(path)

    monkeypatch.setattr("vpt_data.inspect.raw_files.os.scandir", counted)
    raw_files.sources(raw)
    assert len(set(listed)) > 3
    assert max(map(listed.count, listed)) <= 2


def test_a_raw_root_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(RawError, match=r"none: there is no such raw root; give --raw DIR or set VPT_DATA_RAW\."):
        raw_files.sources(tmp_path / "none")


def test_text_with_a_raw_root(raw: Path) -> None:
    lines = raw_files.text(raw_files.sources(raw)).splitlines()
    gqa = next(line for line in lines if line.split()[:1] == ["gqa"])
    assert gqa.split() == ["gqa", "98,149", "found", "visual_cot/metadata/gqa_cot_train.jsonl"]
    images = next(line for line in lines if line.startswith("gqa/images/"))
    assert images.split() == ["gqa/images/", "gqa/images/", "3", "0"]
    gone = next(number for number, line in enumerate(lines) if line.startswith("No images of: "))
    assert "dude/images/" in " ".join(lines[gone:])
    assert "gqa/images/" not in " ".join(lines[gone:])


@pytest.mark.parametrize("width", [80, 100, 140])
@pytest.mark.parametrize("with_root", [False, True])
def test_lines_fit_the_width(raw: Path, width: int, with_root: bool) -> None:
    found = raw_files.sources(raw if with_root else None)
    text = raw_files.text(found, width)
    # A head of fixed columns is not cut, nor a word that is too long to stand anywhere.
    long = [line for line in text.splitlines() if len(line) > width and len(line.split()) > 1]
    assert not long
    wide = raw_files.text(found, 10_000)
    assert [word for word in text.split() if word.strip("-")] == [word for word in wide.split() if word.strip("-")]


def test_images_that_rows_name(raw: Path) -> None:
    found = raw_files.sources(raw)
    gqa = found.sources["viscot"].datasets["gqa"].images
    assert gqa is not None
    assert (gqa.rows, gqa.distinct, gqa.found) == (6, 3, {"gqa/images/": 3})
    assert found.sources["viscot"].datasets["dude"].images is None
    lines = raw_files.text(found, 100).splitlines()
    rows = [line.split() for line in lines if line.split()[:1] == ["gqa"]]
    assert rows[1] == ["gqa", "6", "0", "3", "3", "0", "0", "0"]
    assert "  gqa: found in gqa/images/ 3" in lines
    bare = raw_files.text(raw_files.sources(raw, sizes=False), 100).splitlines()
    assert [line.split() for line in bare if line.split()[:1] == ["gqa"]][1][-2:] == ["0", "-"]


def test_the_width_is_that_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    found = raw_files.sources(None)
    monkeypatch.setenv("COLUMNS", "90")
    assert raw_files.text(found) == raw_files.text(found, 90) != raw_files.text(found, 100)


def test_real_rows(shared: Path) -> None:
    datasets = raw_files.sources(shared / "data/raw").sources["viscot"].datasets
    assert [name for name, about in datasets.items() if about.found] == ["vsr", "cub"]


def test_command(raw: Path) -> None:
    done = CliRunner().invoke(main, ["sources", "--raw", str(raw)])
    assert (done.exit_code, done.stdout) == (0, raw_files.text(raw_files.sources(raw)) + "\n")
    said = json.loads(CliRunner().invoke(main, ["sources", "--raw", str(raw), "--json"]).stdout)
    assert said == raw_files.sources(raw).as_dict()
