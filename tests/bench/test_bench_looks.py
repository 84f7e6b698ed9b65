"""The benchmark of second looks at a tiny size: its rows, its arms, its figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from bench import looks, seeds
from trainer.data.corpus import open_corpus
from vpt_data import geometry

PICTURES = {"train": 12, "test": 10}


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("looks")
    looks.make_corpus(place, PICTURES)
    return place


@pytest.fixture(scope="module")
def rows(work: Path) -> list[looks.Found]:
    return looks.held_out(open_corpus(str(work / "corpus"), "test"))


def test_arms_have_the_same_rows_and_differ_in_their_looks_only(rows: list[looks.Found]) -> None:
    for row in rows:
        assert looks.taught(row, "own") == row
        other = looks.taught(row, "elsewhere")
        assert other["messages"] == row["messages"]
        assert other["views"][1] == {**row["views"][1], "box": looks.elsewhere(row)}
        for arm in ("plain", "larger", "full"):
            plain = looks.taught(row, arm)
            assert plain["messages"] == [row["messages"][0], row["messages"][-1]]
            assert plain["views"] == row["views"][:1]


def test_a_crop_elsewhere_is_as_large_and_shares_no_pixel_with_the_true_one(rows: list[looks.Found]) -> None:
    true, other = ([box(row) for row in rows] for box in (lambda row: row["views"][1]["box"], looks.elsewhere))
    assert geometry.iou(true, other).tolist() == [0.0] * len(rows)
    sizes = [np.diff(np.reshape(boxes, (-1, 2, 2)), axis=1).tolist() for boxes in (true, other)]
    assert sizes[0] == sizes[1]


def test_an_interchange_shows_the_true_crop_of_a_row_with_the_same_question_and_another_answer(
    rows: list[looks.Found],
) -> None:
    for row in rows:
        same = [one for one in rows if one["true"] is row["other"]]
        assert [one["gold"] for one in same] == [row["other_gold"]]
        assert row["other_gold"] != row["gold"]
        assert same[0]["messages"][0] == row["messages"][0]


def test_every_arm_ends_in_a_result_and_the_report_reads_them(work: Path) -> None:
    seeds.make(work, list(looks.ARMS), 1, lambda arm, seed: looks.one(work / "corpus", arm, seed, 1))
    lengths = {arm: run["tokens"] / run["samples"] for arm in looks.ARMS for run in seeds.read(work, arm)}
    assert lengths["larger"] == lengths["own"] - 1
    assert lengths["full"] > 3 * lengths["own"]
    tables = looks.report(work)
    assert all(f"| {arm} | 0." in tables for arm in looks.ARMS)
    assert "| the true crop of another row | 0." in tables
    assert "- `own` minus `larger` (seeds: 1): " in tables


def test_a_run_that_is_done_is_not_made_again(tmp_path: Path) -> None:
    made = []

    def one(name: str, seed: int) -> looks.Found:
        made.append((name, seed))
        return {"seed": seed}

    seeds.make(tmp_path, ["a", "b"], 1, one)
    seeds.make(tmp_path, ["a"], 11, one)
    assert made == [("a", 0), ("b", 0), *(("a", seed) for seed in range(1, 11))]
    assert [run["seed"] for run in seeds.read(tmp_path, "a")] == list(range(11))


def test_figures_over_seeds_have_the_interval_of_pictures() -> None:
    scores = [[1.0, 1.0, 0.0, 0.0] * 25, [1.0] * 100]
    alone, together = ([str(n // size) for n in range(100)] for size in (1, 2))
    apart = seeds.figure(scores, alone)
    assert (apart[:6], apart[-12:]) == ("0.75 [", " (0.50 1.00)")
    # Rows of one picture stay together: these are alike, so there is half as much to know from.
    low = [float(seeds.figure(scores, pictures)[6:10]) for pictures in (alone, together)]
    assert low[1] < low[0] < 0.75
    assert seeds.difference(scores, scores, together).endswith("p = 1.0000")
