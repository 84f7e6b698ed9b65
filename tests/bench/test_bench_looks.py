"""The benchmark of second looks at a tiny size: its world, its arms, its figures."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

pytest.importorskip("torch")

from bench import looks, looks_report, looks_score, looks_world
from bench.looks_arms import ARMS, random_box, shown
from vpt_data import geometry

IMAGES = {"train": 24, "test": 6}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("looks")
    looks.make_corpora(place, IMAGES)
    return place


def rows(folder: Path, split: str = "train") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = pq.read_table(folder / f"{split}-00000-of-00001.parquet").to_pylist()
    return found


def test_the_world_follows_from_its_seed(tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        looks_world.make(tmp_path / name, {"train": 3}, seed)
    files = {
        name: {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in "abc"
    }
    assert files["a"] == files["b"]
    assert files["a"].keys() == files["c"].keys()
    pictures = [path for path in files["a"] if path.suffix == ".png"]
    assert len(pictures) == 3
    assert all(files["a"][path] != files["c"][path] for path in pictures)


@pytest.mark.parametrize("pattern", looks_world.PATTERNS)
def test_a_pattern_is_gone_in_the_first_look_and_there_in_the_second(pattern: str) -> None:
    lit = 128 + looks_world.STRENGTH * looks_world.texture(pattern, 112, 112, (1, 3))
    plate = Image.fromarray(lit.astype(np.uint8))
    small = np.asarray(plate.resize((28, 28), Image.Resampling.BICUBIC), dtype=float)[4:-4, 4:-4]
    assert small.std() < 1
    assert abs(lit.mean() - 128) < 0.01
    assert (np.asarray(plate, dtype=float).std() > 30) == (pattern != "plain")


def test_plates_share_no_cell_and_one_at_most_is_red() -> None:
    for number in range(50):
        found = looks_world.plates(random.Random(number), red=number % 2 == 0)
        assert [plate.red for plate in found] == [number % 2 == 0, *[False] * (len(found) - 1)]
        cells = geometry.cells([plate.box for plate in found], [(448, 448)] * len(found), 8).tolist()
        taken = [(x, y) for x0, y0, x1, y1 in cells for x in range(x0, x1 + 1) for y in range(y0, y1 + 1)]
        assert len(taken) == len(set(taken))


def test_arms_have_the_same_rows_and_differ_in_the_second_look_only(work: Path) -> None:
    whole = [row for row in rows(work / "corpus" / "data") if row["looks"] == ["region"]]
    found = {arm: rows(work / "arms" / arm) for arm in ARMS}
    assert found["own"] == whole
    for arm in ("whole", "random"):
        assert [row | {"views": None} for row in found[arm]] == [row | {"views": None} for row in whole]
        for row, true in zip(found[arm], whole, strict=True):
            assert row["views"][0] == true["views"][0]
            assert row["views"][1] | {"box": None} == true["views"][1] | {"box": None}
            assert row["views"][1]["box"] == (None if arm == "whole" else random_box(true))
    for row, true in zip(found["plain"], whole, strict=True):
        assert row["messages"] == [true["messages"][0], true["messages"][-1]]
        assert row["views"] == true["views"][:1]


def test_a_random_box_is_as_large_and_elsewhere(work: Path) -> None:
    for row in rows(work / "arms" / "own"):
        x0, y0, x1, y1 = random_box(row)
        a0, b0, a1, b1 = row["views"][1]["box"]
        assert (x1 - x0, y1 - y0) == (a1 - a0, b1 - b0)
        assert (x0, y0) != (a0, b0)
        assert 0 <= x0 < x1 <= 448
        assert 0 <= y0 < y1 <= 448
        assert shown(row, "random")["views"][1]["box"] == [x0, y0, x1, y1]


def test_figures_of_regions() -> None:
    assert looks_score.iou((0, 0, 1, 1), (0, 0, 1, 1)) == 1
    assert looks_score.iou((0, 0, 0, 0), (0, 0, 1, 1)) == pytest.approx(0.25)
    scores = looks_score.region_scores([(0, 0, 1, 1), None, (0, 0, 0, 1)], [(0, 0, 1, 1), (0, 0, 0, 0), (0, 0, 1, 1)])
    assert scores == {"iou": pytest.approx(0.5), "iou_half": pytest.approx(2 / 3)}


def row(answer: str, cells: list[int] | None, question: str = "q") -> dict[str, Any]:
    views: list[dict[str, Any]] = [{"encoder": "vlm", "cells": None}]
    if cells:
        views.append({"encoder": "vlm", "cells": cells})
    return {"messages": [{"content": question}, {"content": answer}], "views": views, "k": 8}


def test_baselines_are_those_of_the_training_rows() -> None:
    train = [row("a", [0, 0, 1, 1]), row("a", [0, 0, 1, 1]), row("b", [4, 4, 4, 4])]
    some = [looks_score.Case(one) for one in (row("a", [0, 0, 1, 1]), row("b", [0, 4, 1, 5]))]
    found = looks_score.baselines(train, some)
    assert found["answer"] == {"majority": 0.5, "chance": 0.5}
    assert found["region"]["majority"] == {"iou": 0.5, "iou_half": 0.5}
    assert found["x"] == {"majority": 1.0, "chance": 0.125}
    assert found["y"] == {"majority": 0.5, "chance": 0.125}
    train += [row("c", None, "r"), row("c", None, "r")]
    some.append(looks_score.Case(row("c", None, "r")))
    kinds = looks_score.kind_baselines(train, some)
    assert kinds == {"majority": pytest.approx(2 / 3), "question": 1.0, "chance": pytest.approx(1 / 3)}


def test_every_run_ends_in_a_result_and_the_report_reads_them(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in looks.RUNS:
        looks.one(work, name, 0, 2)
    assert not list((work / "runs").iterdir())
    tables = looks_report.report(work, 1)
    assert tables.startswith("## A second look\n")
    assert tables.count("| own |") == 2
    assert "| oracle | 0.00 (0.00 to 0.00) | 1 (given) | 1 (given) |" in tables
    assert "| kind of action |" in tables
    monkeypatch.setattr("bench.looks.subprocess.run", None)
    looks.run_all(work, 1, 1, None)  # nothing is missing, so nothing runs
