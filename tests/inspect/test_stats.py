"""Statistics against rows counted by hand, one at a time."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
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

from trainer.data.vision import Vision
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


def _edges_hold(histogram: dict[str, Any], values: list[float]) -> None:
    """The counts of a histogram are those of its values."""
    edges = histogram["edges"]
    inside = [min(max(value, edges[0]), np.nextafter(edges[-1], 0)) for value in values]
    due = [sum(low <= value < high for value in inside) for low, high in pairwise(edges)]
    assert histogram["counts"] == due and sum(due) == len(values)


def test_histograms_and_other_grids(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for name, take in found["takes"].items():
        mine = [row for row in rows if row["take"] == name]
        _edges_hold(take["answer_histogram"], [len(row["answers"][0]) for row in mine])
        boxed = [(row, *_box(row)) for row in mine if row["regions"]]
        if not boxed:
            continue
        shares = [(box[2] - box[0]) * (box[3] - box[1]) / (size[0] * size[1]) for _, box, size in boxed]
        _edges_hold(take["boxes"]["area_histogram"], shares)
        cells = [share * row["k"] ** 2 for share, (row, *_) in zip(shares, boxed, strict=True)]
        _edges_hold(take["boxes"]["cells_histogram"], cells)
        for k, fit in take["boxes"]["grids"].items():
            overlaps = [
                geometry.iou(geometry.crop(geometry.cells([box], [size], int(k)), [size], int(k)), [box])[0]
                for _, box, size in boxed
            ]
            assert fit["mean_iou"] == pytest.approx(np.mean(overlaps))
            assert fit["smaller_than_a_cell"] == np.mean([share * int(k) ** 2 < 1 for share in shares])
        assert list(take["boxes"]["grids"]) == ["4", "8", "16", "32"]


def _box(row: dict[str, Any]) -> tuple[Any, list[int]]:
    size = [row["image_info"][0]["width"], row["image_info"][0]["height"]]
    return np.minimum(_union(row), size * 2), size


def test_heat_of_takes_adds_up(found: dict[str, Any]) -> None:
    for k, grid in found["heat"].items():
        parts = [
            take["boxes"]["heat"][k] for take in found["takes"].values() if k in (take["boxes"] or {"heat": ()})["heat"]
        ]
        assert np.sum(parts, axis=0).tolist() == grid


def test_sources(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    due = Counter((row["take"], row["source"], row["dataset"]) for row in rows)
    assert {(at["take"], at["source"], at["dataset"]): at["rows"] for at in found["sources"]} == due


def test_image_tokens_are_those_of_the_trainer(found: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    for preset in ("224", "512"):
        vision = Vision(longest=int(preset))
        for name, take in found["takes"].items():
            counts = [_tokens(row, vision) for row in rows if row["take"] == name]
            known = sorted(count for count in counts if count is not None)
            at = take["image_tokens"][preset]
            assert at["rows"] == len(known)
            assert at["mean"] == pytest.approx(np.mean(known) if known else 0, abs=1e-3)
            due = (
                [np.quantile(known, quantile, method="inverted_cdf") for quantile in tally.QUANTILES] if known else None
            )
            assert at["quantiles"] == due
            _edges_hold(at["histogram"], known)
    assert found["takes"]["short"]["image_tokens"]["224"]["rows"] == 0  # LLaVA does not say how large its images are
    assert found["takes"]["rest"]["image_tokens"]["224"]["quantiles"][0] == 0  # a row without an image


def _tokens(row: dict[str, Any], vision: Vision) -> int | None:
    total = 0
    for view in row["views"]:
        info = row["image_info"][view["image"]]
        size = (info["width"], info["height"])
        if view["box"] is not None:
            size = (view["box"][2] - view["box"][0], view["box"][3] - view["box"][1])
        if None in size and view["encoder"] not in {"dino", "sam"}:
            return None
        total += vision.tokens(view["encoder"], size)[0]
    return total


def test_row_groups(found: dict[str, Any], corpus: Path) -> None:
    assert sum(group["rows"] for group in found["row_groups"]) == 45
    for group in found["row_groups"]:
        with pq.ParquetFile(corpus / group["shard"]) as file:
            about = file.metadata.row_group(group["number"])
            rows = file.read_row_group(group["number"]).to_pylist()
        assert group["split"] == group["shard"].removeprefix("data/").partition("-")[0]
        assert group["rows"] == len(rows)
        assert group["distinct_images"] == len({image["path"] for row in rows for image in row["images"]})
        assert group["bytes"] == sum(about.column(at).total_compressed_size for at in range(about.num_columns))
        assert group["image_bytes"] == 0


@given(st.lists(st.integers(0, 400)), st.lists(st.integers(0, 400)))
def test_numbers_are_counted_exactly(some: list[int], others: list[int]) -> None:
    counted, both = tally.Numbers(), np.array([*some, *others], np.int64)
    counted.add(np.array(some, np.int64))
    counted.add(np.array(others, np.int64))
    assert counted.quantiles() == tally.quantiles(both)
    assert counted.mean() == pytest.approx(both.mean() if len(both) else 0)
    assert counted.histogram(tally.CHARACTERS).counts == tally.binned(both, tally.CHARACTERS).tolist()


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
    tables = {title: _below(lines, title) for title in lines if title.endswith(":")}
    assert tables["Text:"]["gqa"][-1] == "Yes (2), no. (2), thing 2 (1)"
    assert tables["Sources:"]["gqa"] == ["viscot", "gqa", "6"]
    boxes = statistics.takes["gqa"].boxes
    assert boxes
    fits = [f"{boxes.grids[k].mean_iou:.3f}" for k in ("4", "8", "16", "32")]
    assert tables["Mean IoU of cells and box:"]["gqa"] == [f"{boxes.mean_iou_of_cells:.3f}", *fits]
    at = lines.index("Cells that boxes touch, 8 x 8, at most 20:")
    assert lines[at + 1 : at + 9] == ["  @@@@@@++++++"] * 2 + ["  @@@@@@++++@@++++"] + ["  ++++++++++@@++++"] * 5


def _below(lines: list[str], title: str) -> dict[str, list[str]]:
    """The lines of a table by their first cell."""
    found: dict[str, list[str]] = {}
    for line in lines[lines.index(title) + 3 :]:
        if not line:
            break
        name, *cells = re.split(r" {2,}", line)
        found[name] = cells
    return found


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
    assert all(0 < group.image_bytes < group.bytes for group in again.row_groups)
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


REAL = 'description = "Rows of the benchmark of Visual-CoT."\nencoder = "dino"\n' + "".join(
    f'[take.{name}]\nsource = "viscot_benchmark"\ndataset = "{name}"\ntemplate = "region"\ntask = "spatial"\n'
    for name in ("docvqa", "gqa", "cub")
)


@pytest.mark.parametrize(
    ("take", "rows", "fits", "small"),
    [
        ("docvqa", 888, [0.195, 0.301, 0.441], 0.74),
        ("gqa", 978, [0.481, 0.622, 0.746], 0.26),
        ("cub", 492, [0.670, 0.802, 0.891], 0.0),
    ],
)
def test_real_boxes_have_the_iou_that_others_measured(
    real: stats.Statistics, take: str, rows: int, fits: list[float], small: float
) -> None:
    boxes = real.takes[take].boxes
    assert boxes and boxes.rows == rows
    assert [round(boxes.grids[k].mean_iou, 3) for k in ("8", "16", "32")] == fits
    assert round(boxes.mean_iou_of_cells, 3) == fits[0]
    assert round(boxes.smaller_than_a_cell, 2) == small


@pytest.fixture(scope="module")
def real(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> stats.Statistics:
    folder = tmp_path_factory.mktemp("real")
    (folder / "raw").symlink_to(shared / "data" / "raw")
    return stats.stats(small_corpora.build(folder, recipe=REAL))
