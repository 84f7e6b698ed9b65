"""Statistics against rows counted by hand, one at a time."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from helpers import small_corpora
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry
from vpt_data.cli.main import main
from vpt_data.errors import CorpusError
from vpt_data.inspect import stats, stats_text, tally


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("stats"))


@pytest.fixture(scope="module")
def statistics(corpus: Path) -> stats.Statistics:
    return stats.stats(corpus)


@pytest.fixture(scope="module")
def found(statistics: stats.Statistics) -> dict[str, Any]:
    """The statistics as `--json` prints them."""
    values: dict[str, Any] = msgspec.to_builtins(statistics)
    return values


@pytest.fixture(scope="module")
def rows(corpus: Path) -> list[dict[str, Any]]:
    return small_corpora.rows_of(corpus)


def test_counts(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    assert (found["recipe"], found["rows"], found["splits"]) == ("tiny", 45, {"train": 33, "coarse": 6, "test": 6})
    for name in ("task", "template"):
        assert found[name] == Counter(row[name] for row in rows)
    assert found["looks"] == Counter("+".join(row["looks"]) or "none" for row in rows)
    assert found["looks"]["region+region"] == 2
    assert found["turns"] == Counter(str(len(row["messages"])) for row in rows)
    assert {name: take["rows"] for name, take in found["takes"].items()} == Counter(row["take"] for row in rows)
    assert found["distinct_images"] == len({image["path"] for row in rows for image in row["images"]})


def test_texts(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for name, take in found["takes"].items():
        mine = [row for row in rows if row["take"] == name]
        for key, texts in (
            ("question_characters", [row["question"] for row in mine]),
            ("answer_characters", [row["answers"][0] for row in mine]),
        ):
            lengths = sorted(map(len, texts))
            due = [np.quantile(lengths, quantile, method="inverted_cdf") for quantile in tally.QUANTILES]
            assert take[key] == due
    gqa = found["takes"]["gqa"]
    assert (gqa["yes"], gqa["no"]) == (2, 2)
    assert gqa["top_answers"] == {"Yes": 2, "no.": 2, "thing 2": 1, "thing 5": 1}


def _union(row: dict[str, Any]) -> list[float]:
    boxes = np.array([region["box"] for region in row["regions"]])
    return [*boxes[:, :2].min(axis=0), *boxes[:, 2:].max(axis=0)]


def test_boxes(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for name, take in found["takes"].items():
        mine = [row for row in rows if row["take"] == name and row["regions"]]
        if not mine:
            assert take["boxes"] is None
            continue
        shares, overlaps = [], []
        for row in mine:
            size = [row["image_info"][0]["width"], row["image_info"][0]["height"]]
            box = np.minimum(_union(row), size * 2)
            shares.append((box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1]))
            cells = geometry.cells([box], [size], row["k"])
            overlaps.append(geometry.iou(geometry.crop(cells, [size], row["k"]), [box])[0])
        due = [np.quantile(shares, quantile, method="inverted_cdf") for quantile in tally.QUANTILES]
        assert take["boxes"]["rows"] == len(mine)
        assert take["boxes"]["area_share"] == pytest.approx(due, abs=1e-6)
        assert take["boxes"]["mean_iou_of_cells"] == pytest.approx(np.mean(overlaps))
        assert take["boxes"]["smaller_than_a_cell"] == 0


def test_small_boxes(corpus: Path, tmp_path: Path) -> None:
    small = small_corpora.build(
        tmp_path / "small", recipe=small_corpora.RECIPE + "\n[take.gqa.columns]\n".replace("\n[take.gqa.columns]\n", "")
    )
    assert small_corpora.change_rows(small, _shrink) == 6
    assert msgspec.to_builtins(stats.stats(small))["takes"]["gqa"]["boxes"]["smaller_than_a_cell"] == 1


def _shrink(row: dict[str, Any]) -> bool:
    if row["take"] != "gqa":
        return False
    row["regions"] = [{"image": 0, "box": [1.0, 1.0, 3.0, 3.0], "label": None}]
    return True


def test_heat(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for side, grid in found["heat"].items():
        due = np.zeros((int(side), int(side)), int)
        for row in rows:
            if row["regions"] and row["k"] == int(side):
                size = [row["image_info"][0]["width"], row["image_info"][0]["height"]]
                ((col0, row0, col1, row1),) = geometry.cells([np.minimum(_union(row), size * 2)], [size], row["k"])
                due[row0 : row1 + 1, col0 : col1 + 1] += 1
        assert grid == due.tolist()
    assert set(found["heat"]) == {"4", "8"}


def _grids(k: int) -> st.SearchStrategy[tuple[int, list[list[int]]]]:
    quad = st.lists(st.integers(0, k - 1), min_size=4, max_size=4)
    return st.tuples(st.just(k), st.lists(quad, max_size=20))


@given(st.integers(1, 12).flatmap(_grids))
def test_coverage_is_a_count(case: tuple[int, list[list[int]]]) -> None:
    k, quads = case
    cells = np.array([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in quads], np.int32).reshape(-1, 4)
    due = np.zeros((k, k), int)
    for col0, row0, col1, row1 in cells:
        due[row0 : row1 + 1, col0 : col1 + 1] += 1
    assert tally.coverage(cells, k).tolist() == due.tolist()


def test_rows_without_size(tmp_path: Path) -> None:
    blind = small_corpora.build(tmp_path / "blind")

    def forget(row: dict[str, Any]) -> bool:
        for info in row["image_info"]:
            info["width"] = None
        return True

    small_corpora.change_rows(blind, forget)
    found = stats.stats(blind)
    assert found.heat == {}
    assert all(take.boxes is None for take in found.takes.values())
    assert "Boxes" not in stats_text.text(found)


def test_text_for_people(statistics: stats.Statistics) -> None:
    lines = stats_text.text(statistics).splitlines()
    assert lines[0] == "tiny: 45 rows, 21 distinct images"
    assert lines[1] == "splits: train 33, coarse 6, test 6"
    assert "messages a row: 4 in 29, 2 in 10, 5 in 6" in lines
    take = next(line for line in lines if line.startswith("gqa "))
    assert take.split("  ")[-1] == "Yes (2), no. (2), thing 2 (1)"
    at = lines.index("Cells that boxes touch, 8 x 8, at most 20:")
    assert lines[at + 1 : at + 9] == ["  @@@@@@++++++"] * 2 + ["  @@@@@@++++@@++++"] + ["  ++++++++++@@++++"] * 5


def test_pixels_are_not_read(tmp_path: Path, statistics: stats.Statistics, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded = small_corpora.build(tmp_path / "embedded", "embed")
    read: list[pa.Schema] = []
    read_row_group = pq.ParquetFile.read_row_group

    def seen(self: Any, *arguments: Any, **options: Any) -> Any:
        table = read_row_group(self, *arguments, **options)
        read.append(table.schema)
        return table

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", seen)
    again = stats.stats(embedded)
    assert _without_bytes(again) == _without_bytes(statistics)
    assert read
    assert all([field.name for field in schema.field("images").type.value_type] == ["path"] for schema in read)


def _without_bytes(found: stats.Statistics) -> stats.Statistics:
    """What does not depend on where the pixels are; with them, images of LLaVA have a size."""
    takes = {name: msgspec.structs.replace(take, image_tokens={}) for name, take in found.takes.items()}
    groups = [msgspec.structs.replace(group, bytes=0, image_bytes=0) for group in found.row_groups]
    return msgspec.structs.replace(found, fingerprint="", row_groups=groups, takes=takes)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="there is no such folder; give the output folder"):
        stats.stats(tmp_path / "none")
    corpus = small_corpora.build(tmp_path / "errors")
    shard = corpus / "data/test-00000-of-00002.parquet"
    shard = shard if shard.exists() else next((corpus / "data").glob("test-*"))
    pq.write_table(pq.read_table(shard, partitioning=None).drop_columns(["regions"]), shard)
    with pytest.raises(CorpusError, match=r"data/test-.*: no column regions; run `vpt-data check` on the corpus\."):
        stats.stats(corpus)
    shard.write_bytes(b"PAR1")
    with pytest.raises(CorpusError, match=rf"{shard.name}: not a readable shard"):
        stats.stats(corpus)


def test_command(corpus: Path, statistics: stats.Statistics, found: dict[str, Any]) -> None:
    done = CliRunner().invoke(main, ["stats", str(corpus)])
    assert (done.exit_code, done.stdout) == (0, stats_text.text(statistics) + "\n")
    assert json.loads(CliRunner().invoke(main, ["stats", str(corpus), "--json"]).stdout) == found
