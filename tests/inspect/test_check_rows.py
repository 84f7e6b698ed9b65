"""Every row rule of `check`: one row is broken, and the rule is found with its id."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from helpers import small_corpora

from vpt_data.corpus.manifest import Manifest
from vpt_data.dialogue.tokens import depth
from vpt_data.inspect import row_rules
from vpt_data.inspect.check import check

Row = dict[str, Any]
_DEPTH = depth.encode([[7] * depth.LENGTH])[0].as_py()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_corpora.build(tmp_path_factory.mktemp("whole"))


@pytest.fixture
def corpus(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "corpus"))


# ---- row rules: how to break one row, and the rules that then do not hold


def _text(place: int, change: Callable[[str], str]) -> Callable[[Row], None]:
    def edit(row: Row) -> None:
        row["messages"][place]["content"] = change(row["messages"][place]["content"])

    return edit


def _view(place: int, **values: Any) -> Callable[[Row], None]:
    return lambda row: row["views"][place].update(values)


def _set(**values: Any) -> Callable[[Row], None]:
    return lambda row: row.update(values)


def _swap(row: Row) -> None:
    row["messages"][1]["role"] = "user"


def _odd(row: Row) -> None:
    del row["messages"][-1]


def _late_system(row: Row) -> None:
    row["messages"][2]["role"] = "system"


def _null_text(row: Row) -> None:
    row["messages"][-1]["content"] = None


def _placeholder_in_answer(row: Row) -> None:
    row["messages"][-1]["content"] += "<image>"
    row["views"].append({"turn": 3, "image": 0, "encoder": "vlm", "box": None, "cells": None})
    row["looks"].append("region")


def _views_swapped(row: Row) -> None:
    row["views"].reverse()


def _two_words_swapped(row: Row) -> None:
    row["messages"][0]["content"] = "<image> " + row["messages"][0]["content"]
    row["views"].insert(0, {"turn": 0, "image": 0, "encoder": "dino", "box": None, "cells": None})


def _no_path(row: Row) -> None:
    row["images"][0]["path"] = None


def _no_info(row: Row) -> None:
    row["image_info"] = []


def _shifted_crop(row: Row) -> None:
    row["views"][1]["box"][0] += 1


def _no_crop(row: Row) -> None:
    row["views"][1]["box"] = None


def _beyond(row: Row) -> None:
    row["views"][1]["cells"] = [0, 0, 8, 8]
    row["views"][1]["box"] = [0, 0, 9, 9]


def _other_cells(row: Row) -> None:
    cells = row["views"][1]["cells"] = [0, 0, 0, 0]
    width, height = (row["image_info"][0][side] for side in ("width", "height"))
    row["views"][1]["box"] = [0, 0, width // 8, height // 8]
    assert cells != [0, 0, 7, 7]


def _regions_swapped(row: Row) -> None:
    first, _, second = row["messages"][1]["content"].partition("<|region_token_end|>")
    row["messages"][1]["content"] = second + first + "<|region_token_end|>"


def _bytes_given(row: Row) -> None:
    row["images"][0]["bytes"] = b"x"


_TEXT_BOX = {"take": "vsr"}
_REGION = {"take": "gqa"}
_EACH = {"take": "textvqa", "question": "What is thing 4 of textvqa?"}
_CALL = {"take": "cub"}
_EVAL = {"take": "test"}
_PLAIN = {"take": "rest"}
_CAPTION = {"take": "captions"}
_SEG = "<|seg_action_start|><|seg_action|><|seg_action_end|>"
_CALLS = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
_SPAN = "<|region_token_start|><|x_0|><|y_0|><|x_1|><|y_1|><|region_token_end|>"
BREAKS: list[tuple[str, Row, Callable[[Row], None], list[str]]] = [
    ("answer said by the user", _REGION, _swap, ["roles", "special_text"]),
    ("no answer", _REGION, _odd, ["roles"]),
    ("a system turn in between", _PLAIN | {"source_id": "0"}, _late_system, ["roles"]),
    ("no messages", _PLAIN, _set(messages=[], views=[]), ["roles"]),
    ("no text", _PLAIN, _null_text, ["content"]),
    ("a placeholder in the answer", _REGION, _placeholder_in_answer, ["placeholder_role"]),
    ("one placeholder too many", _PLAIN, _text(0, lambda text: f"<image>{text}"), ["placeholder_count"]),
    ("views in another order", _REGION, _views_swapped, ["view_turn"]),
    ("another turn", _EVAL, _view(0, turn=1), ["view_turn", "looks", "expected"]),
    ("a turn that is not there", _EVAL, _view(0, turn=7), ["view_turn", "looks", "expected"]),
    ("an unknown encoder", _EVAL, _view(0, encoder="vit"), ["view_encoder"]),
    ("another encoder", _CAPTION, _view(0, encoder="sam"), ["view_encoder"]),
    ("encoders in another order", _CAPTION, _two_words_swapped, ["view_encoder"]),
    ("an image that is not there", _EVAL, _view(0, image=1), ["view_image"]),
    ("a negative image", _EVAL, _view(0, image=-1), ["view_image"]),
    ("no path", _EVAL, _no_path, ["image_info"]),
    ("no image_info", _EVAL, _no_info, ["image_info"]),
    ("cells beyond the grid", _REGION, _beyond, ["cells"]),
    ("cells in the wrong order", _REGION, _view(1, cells=[3, 0, 2, 1]), ["cells"]),
    ("negative cells", _REGION, _view(1, cells=[-1, 0, 2, 1]), ["cells"]),
    ("a crop one pixel off", _REGION, _shifted_crop, ["crop"]),
    ("no crop", _REGION, _no_crop, ["crop"]),
    ("another margin", _EACH, _set(crop_margin_cells=0), ["crop"]),
    ("a box beyond the image", _TEXT_BOX, _view(1, box=[0, 0, 999, 9]), ["box"]),
    ("a box without pixels", _TEXT_BOX, _view(1, box=[3, 0, 3, 9]), ["box"]),
    ("other cells than said", _REGION, _other_cells, ["region_cells"]),
    ("regions said in another order", _EACH, _regions_swapped, ["region_cells"]),
    ("a region that nobody shows", _PLAIN, _text(1, lambda text: text + _SPAN), ["region_cells"]),
    ("cells of a first question", _EVAL, _view(0, cells=[0, 0, 7, 7]), ["crop", "region_cells"]),
    ("half a region", _REGION, _text(1, lambda text: text[:-22]), ["region_tokens"]),
    ("half a call", _CALL, _text(2, lambda text: text[:-28]), ["action_tokens"]),
    ("two kinds of look", _CALL, _text(2, lambda text: text + _SEG), ["action_kinds", "action_views"]),
    (
        "a call beside a region",
        _REGION,
        _text(1, lambda text: text + _CALLS),
        ["action_kinds", "action_views"],
    ),
    ("a call that nobody answers", _PLAIN, _text(1, lambda text: _CALLS), ["action_views"]),
    ("a view that nobody called", _CALL, _text(2, lambda text: "Let me see."), ["action_views"]),
    ("a token in the question", _PLAIN, _text(0, lambda text: f"{text} <|x_3|>"), ["special_text"]),
    ("an unknown token in the answer", _PLAIN, _text(1, lambda text: "<|im_end|>"), ["special_text"]),
    ("a depth token in the question", _PLAIN, _text(0, lambda text: f"{text} <DEPTH_3>"), ["spoken_tokens"]),
    ("half a depth map", _PLAIN, _text(1, lambda text: "<DEPTH_START><DEPTH_3>"), ["spoken_tokens", "tokenizer"]),
    ("codes of nobody", _PLAIN, _text(1, lambda text: _DEPTH), ["tokenizer"]),
    ("half a box of pixels", _PLAIN, _text(1, lambda text: "(<PIXEL_3>,<PIXEL_4>)"), ["spoken_tokens"]),
    ("looks that are not there", _PLAIN, _set(looks=["region"]), ["looks"]),
    ("other looks", _CALL, _set(looks=["sam"]), ["looks"]),
    ("a look of an evaluation row", _REGION, _set(expected="region"), ["expected"]),
    ("no prompt", _REGION, _text(0, lambda text: text[:-1]), ["prompted"]),
    ("a prompted plain row", _PLAIN, _set(prompted=True), ["prompted"]),
    ("pixels in reference mode", _EVAL, _bytes_given, ["image_bytes"]),
    ("an id of another take", _EVAL, _set(id="other/1"), ["id_take", "origins"]),
    ("another split", _EVAL, _set(split="dev"), ["split"]),
]


@pytest.mark.parametrize(("where", "edit", "rules"), [case[1:] for case in BREAKS], ids=[case[0] for case in BREAKS])
def test_one_broken_row_is_found(corpus: Path, where: Row, edit: Callable[[Row], None], rules: list[str]) -> None:
    broken: list[str] = []

    def change(row: Row) -> bool:
        if broken or any(row[key] != value for key, value in where.items()):
            return False
        broken.append(row["id"])
        edit(row)
        broken.append(row["id"])
        return True

    assert small_corpora.change_rows(corpus, change) == 1
    # A row that has lost what it says of its image is missing in the account of images as well.
    findings = [finding for finding in check(corpus).findings if finding.rule != "images"]
    assert {finding.rule for finding in findings} == set(rules)
    for finding in findings:
        assert any(name in finding.example for name in broken)
        if finding.rule != "origins":
            assert finding.where.startswith("data/")
            assert finding.count == 1


def test_every_row_rule_is_tested() -> None:
    embedded_only = {"image_sha256"}
    assert set(row_rules.RULES) - embedded_only == {rule for case in BREAKS for rule in case[3]} - {
        "id_take",
        "origins",
        "split",
    }


def test_rows_are_counted_and_the_first_is_the_example(corpus: Path) -> None:
    def change(row: Row) -> bool:
        row["looks"] = [*row["looks"], "sam"]
        return True

    assert small_corpora.change_rows(corpus, change) == 45
    looks = check(corpus).findings[0]
    assert (looks.rule, looks.where, looks.count) == ("looks", "data/train-00000-of-00002.parquet", 45)
    assert looks.example == small_corpora.rows_of(corpus)[0]["id"]


def test_legacy_takes_may_leave_the_grid(corpus: Path) -> None:
    beyond = [row for row in small_corpora.rows_of(corpus) if any(max(v["cells"] or [0]) > 7 for v in row["views"])]
    assert {row["take"] for row in beyond} == {"docvqa"}

    def floor(made: Manifest) -> None:
        made.recipe.resolved["take"]["docvqa"]["edge"] = "floor"

    small_corpora.change_manifest(corpus, floor)
    assert [(f.rule, f.count) for f in check(corpus).findings] == [("cells", len(beyond))]


def test_text_around_region_tokens_is_allowed(corpus: Path) -> None:
    def change(row: Row) -> bool:
        if row["take"] != "gqa":
            return False
        row["messages"][1]["content"] = f"Let me look: {row['messages'][1]['content']}."
        return True

    assert small_corpora.change_rows(corpus, change) == 6
    assert not check(corpus).findings


def test_placeholders_of_two_encoders_in_one_turn(corpus: Path) -> None:
    def change(row: Row) -> bool:
        if row["take"] != "captions":
            return False
        row["messages"][0]["content"] += " <image>"
        row["views"].append(row["views"][0] | {"encoder": "vlm"})
        return True

    assert small_corpora.change_rows(corpus, change) == 3
    assert not check(corpus).findings
