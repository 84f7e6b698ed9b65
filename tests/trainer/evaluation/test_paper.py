"""`--protocol paper`: what the published program makes of the same answers, beside what we make of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from answer_files import GQA, POPE, gold, results
from helpers.chat_server import ChatServer, says
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation import items, paper
from trainer.evaluation.predictions import Prediction, read_as_said
from trainer.generation import paper as looks
from trainer.generation.dialog import Ended
from vpt_data.dialogue.prompts import ACTION_PROMPT
from vpt_data.dialogue.tokens import grid
from vpt_data.dialogue.tokens.reencode import action_turn

K, CALL = 8, action_turn("dino")


def region(*tokens: str) -> str:
    return grid.START + "".join(f"<|{token}|>" for token in tokens) + grid.END


RIGHT, REVERSED = region("x_1", "y_2", "x_3", "y_4"), region("x_3", "y_4", "x_1", "y_2")
NO_ROW = region("x_1", "x_3")

Expected = tuple[str, list[tuple[int, ...]]]
#: Turns -> the answer and the cells as the program has them, then ours.
TURNS: dict[str, tuple[list[str], Expected, Expected]] = {
    "as trained": ([RIGHT, "red"], ("red", [(1, 2, 3, 4)]), ("red", [(1, 2, 3, 4)])),
    "no look": (["red"], ("red", []), ("red", [])),
    "reversed": ([REVERSED, "red"], ("red", [(1, 2, 3, 4)]), ("red", [])),
    "repeated": ([region("x_1", "x_1", "y_0", "x_5"), "red"], ("red", [(1, 0, 5, 0)]), ("red", [])),
    "two cells": ([region("y_0", "x_5"), "red"], ("red", [(5, 0, 5, 0)]), ("red", [])),
    "two regions": ([RIGHT + region("x_0", "y_0"), "a"], ("a", [(1, 2, 3, 4), (0, 0, 0, 0)]), ("a", [(1, 2, 3, 4)])),
    "blanks": ([RIGHT.replace("><", "> <"), "red"], (RIGHT.replace("><", "> <"), []), ("red", [(1, 2, 3, 4)])),
    "out of range": ([region("x_8", "y_0"), "red"], (region("x_8", "y_0"), []), ("red", [])),
    "two kinds": ([RIGHT + CALL, "red"], (RIGHT + CALL, [(1, 2, 3, 4)]), ("red", [(1, 2, 3, 4)])),
    "a second look": ([RIGHT, RIGHT + "<|im_end|>", "red"], (RIGHT, [(1, 2, 3, 4)]), ("red", [(1, 2, 3, 4)] * 2)),
}  # fmt: skip


@pytest.mark.parametrize("name", TURNS)
def test_turns_as_the_program_reads_them_and_as_we_do(name: str) -> None:
    turns, published, ours = TURNS[name]
    one = Prediction(id="a", turns=tuple(turns))
    for read, (answer, cells) in ((paper.read, published), (read_as_said, ours)):
        found = read(one, K)
        assert (found.answer, list(found.looks.cells), found.left_out) == (answer, cells, False)


def test_a_crop_that_fails_leaves_its_row_out() -> None:
    for turns in ([NO_ROW], [NO_ROW * 2, "red"], [RIGHT + NO_ROW, "red"]):
        found = paper.read(Prediction(id="a", turns=tuple(turns)), K)
        assert found.left_out and found.looks.invalid == {"region_crop_failed": 1}, "a row is counted once"
    scored = paper.read(Prediction(id="a", turns=(NO_ROW + CALL, "red")), K)
    assert (scored.answer, scored.looks.invalid) == (NO_ROW + CALL, {}), "what is scored is not counted"


def test_what_is_cut_is_an_answer_and_what_was_not_shown_is_none() -> None:
    assert paper.read(Prediction(id="a", turns=("It is r",), ended=Ended.TOKEN_LIMIT), K).answer == "It is r"
    assert paper.read(Prediction(id="a", turns=(REVERSED,), ended=Ended.INVALID_LOOK), K).answer is None
    assert paper.read(Prediction(id="a", ended=Ended.FAULT, fault="too_long: 9,000 tokens"), K).answer is None
    assert paper.read(Prediction(id="a", answer=" red<|im_end|>"), K).answer == "red"


@given(st.lists(st.tuples(st.sampled_from("xy"), st.integers(0, K - 1)), min_size=1))
def test_the_box_is_around_all_tokens_in_any_order(tokens: list[tuple[str, int]]) -> None:
    found = looks.read(region(*(f"{axis}_{index}" for axis, index in tokens)), K)
    columns, rows = ([index for axis, index in tokens if axis == wanted] for wanted in "xy")
    if columns and rows:
        assert found.cells == ((min(columns), min(rows), max(columns), max(rows)),)
    else:
        assert (found.cells, found.failed) == ((), 1)


def test_a_row_without_a_crop_is_in_no_mean(corpus: Path, asked: items.Items, tmp_path: Path) -> None:
    rows = gold(asked)
    lost = next(row for row in rows if row["id"].startswith(GQA))
    lost["turns"] = [NO_ROW]
    found: dict[bool, Any] = {}
    for as_paper in (True, False):
        folder = tmp_path / str(as_paper)
        folder.mkdir()
        options = ["--protocol", "paper"] if as_paper else []
        made = results(corpus, rows, folder, "--judge", "offline", *options)
        found[as_paper] = made["splits"][GQA]
        assert made["settings"]["as_published"] is as_paper
        assert made["settings"]["limit"] == (1000 if as_paper else None)
    count = found[False]["rows"]
    assert found[True]["rows"] == count
    for name in ("score", "exact", "judge"):
        here, theirs = (found[as_paper]["figures"][name] for as_paper in (False, True))
        assert (here["rows"], here["value"]) == (count, pytest.approx((count - 1) / count))
        assert (theirs["rows"], theirs["value"]) == (count - 1, 1.0)
    assert (found[True]["unscored"], found[True]["invalid"]) == (1, {"region_crop_failed": 1})
    assert (found[False]["unscored"], found[False]["invalid"]) == (0, {"region_missing_axis": 1})
    page = (tmp_path / "True" / "out" / "report.md").read_text(encoding="utf-8")
    assert "a row without an answer scores 0, and one whose crop failed is left out." in page
    assert f"{count - 1} of {count}" in page
    record = next(
        row
        for row in pq.read_table(tmp_path / "True" / "out" / "records.parquet").to_pylist()
        if row["id"] == lost["id"]
    )
    assert (record["score"], record["judge"], record["judge_fault"], record["iou_box"]) == (None, None, None, None)
    regions = [found[as_paper]["regions"] for as_paper in (True, False)]
    for name in ("iou_box", "gold_iou"):
        assert regions[0][name]["rows"] == regions[1][name]["rows"] - 1
    assert regions[0]["iou_cells"]["value"] == 1.0 > regions[1]["iou_cells"]["value"]


def test_the_judge_sees_the_whole_turn_and_its_score_is_read_as_published(
    corpus: Path, asked: items.Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a key")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with ChatServer(always=says("Score: 5/10")) as server:
        monkeypatch.setenv("OPENAI_BASE_URL", server.url)
        made = results(
            corpus, gold(asked), tmp_path, "--split", POPE, "--limit", "1", "--judge", "gpt-4o", "--protocol", "paper"
        )
    [shown] = server.asked
    [question] = [
        text for text, split in zip(asked.texts("question"), asked.texts("split"), strict=True) if split == POPE
    ][:1]
    assert f"\nQuestion: <image>\n{question} \n{ACTION_PROMPT}\nStandard answer: " in shown["messages"][0]["content"]
    assert made["splits"][POPE]["figures"]["judge"]["value"] == 10.0
    assert json.loads((tmp_path / "out" / "results.json").read_text())["judge"]["as_published"] is True
