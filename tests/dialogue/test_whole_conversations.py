"""`turns = "all"` keeps every question and answer, with a look as without one."""

from __future__ import annotations

from pathlib import Path

from helpers import end_to_end

from vpt_data.inspect.check import check

RECIPE = """
name = "whole"
encoder = "sam"

[take.talks]
source = "llava"
dataset = "coco"
template = "reencode"
turns = "all"
task = "general"
"""


def test_no_question_is_lost(sample_root: Path, tmp_path: Path) -> None:
    recipe = end_to_end.recipe_file(tmp_path, RECIPE)
    again = end_to_end.build(recipe, sample_root, tmp_path / "again")
    plain = end_to_end.build(recipe, sample_root, tmp_path / "plain", "take.talks.template=plain")
    assert check(again).findings == []
    whole = {row["id"]: row["messages"] for row in end_to_end.rows(plain)}
    rows = end_to_end.rows(again)
    assert {row["id"] for row in rows} == set(whole) and any(len(talk) > 2 for talk in whole.values())
    for row in rows:
        assert row["looks"] == ["sam"]
        assert row["messages"][3:] == whole[row["id"]][1:]
