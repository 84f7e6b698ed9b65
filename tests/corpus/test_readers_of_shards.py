"""Anybody's tools read a corpus: `datasets`, DuckDB, pandas and polars, with no help from this package."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import duckdb
import pandas as pd
import polars as pl
import pytest
from helpers import end_to_end
from PIL import Image

from vpt_data.schema import SAMPLE


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A cache folder of our own, and no progress bars."""
    folder = str(tmp_path_factory.mktemp("cache"))
    datasets.disable_progress_bars()
    yield folder
    datasets.enable_progress_bars()


@pytest.fixture(params=["reference", "embedded"])
def corpus(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(f"{request.param}_corpus")
    return found


@pytest.fixture(scope="module")
def evaluation(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus of several splits, two of them empty in so small a sample."""
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("evaluation") / "corpus")


def files(corpus: Path, split: str = "train") -> list[str]:
    return sorted(map(str, (corpus / "data").glob(f"{split}-*.parquet")))


def plain(row: dict[str, Any]) -> dict[str, Any]:
    """A row without what readers may make of an image."""
    return {key: value for key, value in row.items() if key != "images"}


def test_datasets_reads_all_rows(corpus: Path, cache: str) -> None:
    found = datasets.load_dataset("parquet", data_files=files(corpus), split="train", cache_dir=cache)
    assert found.column_names == SAMPLE.names
    assert found.features["images"] == datasets.List(datasets.Image())
    expected = end_to_end.rows(corpus)
    undecoded = found.cast_column("images", datasets.List(datasets.Image(decode=False)))
    assert [plain(row) for row in undecoded] == [plain(row) for row in expected]
    assert [row["images"] for row in undecoded] == [row["images"] for row in expected]


def test_datasets_streams_all_rows(corpus: Path) -> None:
    found = datasets.load_dataset("parquet", data_files=files(corpus), split="train", streaming=True)
    undecoded = found.cast_column("images", datasets.List(datasets.Image(decode=False)))
    assert [plain(row) for row in undecoded] == [plain(row) for row in end_to_end.rows(corpus)]


def test_images_decode_to_their_size(embedded_corpus: Path, cache: str) -> None:
    found = datasets.load_dataset("parquet", data_files=files(embedded_corpus), split="train", cache_dir=cache)
    shown = 0
    for row in found:
        for image, info in zip(row["images"], row["image_info"], strict=True):
            image.load()
            assert image.size == (info["width"], info["height"])
            shown += 1
    assert shown == sum(len(row["images"]) for row in end_to_end.rows(embedded_corpus))


def test_streamed_images_decode(embedded_corpus: Path) -> None:
    found = datasets.load_dataset("parquet", data_files=files(embedded_corpus), split="train", streaming=True)
    row = next(iter(found.filter(lambda row: len(row["images"]) == 1)))
    assert row["images"][0].size == (row["image_info"][0]["width"], row["image_info"][0]["height"])


def test_a_corpus_folder_is_a_data_set(corpus: Path, cache: str) -> None:
    """The card's YAML says which file belongs to which split; dropped.parquet and origins.parquet do not show."""
    found = datasets.load_dataset(str(corpus), cache_dir=cache)
    assert {name: len(split) for name, split in found.items()} == {"train": len(end_to_end.rows(corpus))}
    assert set(found["train"]["id"]) == end_to_end.ids(corpus)


def test_each_evaluation_split_is_one_of_datasets(evaluation: Path, cache: str) -> None:
    full = {path.name.partition("-")[0] for path in (evaluation / "data").iterdir()}
    expected = {split: len(end_to_end.rows(evaluation, split)) for split in full}
    found = datasets.load_dataset(str(evaluation), cache_dir=cache)
    assert {name: len(split) for name, split in found.items() if len(split)} == {
        name: count for name, count in expected.items() if count
    }


def query(what: str, corpus: Path) -> list[tuple[Any, ...]]:
    with duckdb.connect() as db:
        found: list[tuple[Any, ...]] = db.execute(f"{what} from read_parquet(?)", [files(corpus)]).fetchall()
    return found


def test_duckdb_reads_all_columns(corpus: Path) -> None:
    expected = sorted(end_to_end.rows(corpus), key=lambda row: row["id"])
    found = sorted(query("select id, views, messages[1].content, answers, length(images)", corpus))
    assert [(name, first, answers, images) for name, _, first, answers, images in found] == [
        (row["id"], row["messages"][0]["content"], row["answers"], len(row["images"])) for row in expected
    ]
    cells = [[view["cells"] and list(view["cells"]) for view in views] for _, views, *_ in found]
    assert cells == [[view["cells"] for view in row["views"]] for row in expected]
    assert [name for name, *_ in sorted(query("select id, * exclude (id)", corpus))] == [row["id"] for row in expected]


def test_duckdb_reads_the_images(embedded_corpus: Path) -> None:
    rows = query("select images[1].bytes, image_info[1].sha256", embedded_corpus)
    assert len(rows) > 100
    for data, sha256 in rows:
        assert hashlib.sha256(data).hexdigest() == sha256


def test_pandas_reads_all_rows(corpus: Path) -> None:
    found = pd.concat([pd.read_parquet(file) for file in files(corpus)])
    assert list(found.columns) == SAMPLE.names
    expected = end_to_end.rows(corpus)
    assert list(found["id"]) == [row["id"] for row in expected]
    assert [[turn["content"] for turn in turns] for turns in found["messages"]] == [
        [turn["content"] for turn in row["messages"]] for row in expected
    ]
    assert [[image["bytes"] for image in row] for row in found["images"]] == [
        [image["bytes"] for image in row["images"]] for row in expected
    ]


def test_polars_reads_all_rows(corpus: Path) -> None:
    found = pl.read_parquet(files(corpus)).to_dicts()
    expected = end_to_end.rows(corpus)
    assert [row["id"] for row in found] == [row["id"] for row in expected]
    assert [row["messages"] for row in found] == [row["messages"] for row in expected]
    assert [row["images"] for row in found] == [row["images"] for row in expected]
    cells = [[view["cells"] and list(view["cells"]) for view in row["views"]] for row in found]
    assert cells == [[view["cells"] for view in row["views"]] for row in expected]


def test_a_view_can_be_cut_from_what_polars_reads(embedded_corpus: Path) -> None:
    """From a row to the pixels of its second look, with Pillow and nothing else."""
    looks = pl.read_parquet(files(embedded_corpus)).filter(pl.col("template") == "region").to_dicts()
    assert len(looks) > 50
    for row in looks:
        crop = row["views"][-1]
        image = Image.open(io.BytesIO(row["images"][crop["image"]]["bytes"]))
        x0, y0, x1, y1 = crop["box"]
        assert image.crop((x0, y0, x1, y1)).size == (x1 - x0, y1 - y0)
        assert 0 <= x0 < x1 <= image.width
        assert 0 <= y0 < y1 <= image.height
