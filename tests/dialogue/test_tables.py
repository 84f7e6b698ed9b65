"""A template and an encoder are one entry of a table each: toy ones, added from outside, work from recipe to check."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from helpers import end_to_end
from helpers.end_to_end import own_take
from helpers.template_cases import DOG, rule, table
from PIL import Image

from vpt_data import recipe
from vpt_data.columns import Views
from vpt_data.dialogue import tokens
from vpt_data.dialogue.looks.look import Look
from vpt_data.dialogue.render import inspect_text, render
from vpt_data.dialogue.retarget import retarget
from vpt_data.dialogue.rule import RenderRule
from vpt_data.dialogue.templates import TEMPLATES, Template
from vpt_data.dialogue.tokens import reencode
from vpt_data.dialogue.tokens.reencode import ENCODERS, Encoder
from vpt_data.errors import UsageError
from vpt_data.exchange.published.lint import lint, row_keys
from vpt_data.inspect.check import check
from vpt_data.recipe.key_reference import keys
from vpt_data.take import Take

PROMPT = "Look at the top left, and then answer the question."
RECIPE = 'name = "toys"\nencoder = "thermal"\n' + "".join(
    (own_take("corner", template="corner", count=4), own_take("warm", template="reencode"))
)


def corner_look(annotations: pa.Table, how: RenderRule) -> Look:
    """The top left quarter of a 640x480 image, whatever the boxes say."""
    every = np.arange(annotations.num_rows)
    none = np.zeros(len(every), np.int64)
    boxes = np.tile(np.array([0, 0, 320, 240], np.int32), (len(every), 1))
    return Look(
        pa.repeat("[corner]", len(every)), pa.repeat("<image>", len(every)), Views(every, none, none, "vlm", boxes)
    )


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    corner = Template(look=corner_look, explain=lambda _: "A corner look shows the top left.", prompt=PROMPT)
    monkeypatch.setitem(TEMPLATES, "corner", corner)
    monkeypatch.setitem(ENCODERS, "thermal", Encoder("thermal", "heat", "<heat_image>", "heat_images"))


@pytest.fixture
def corpus(toys: None, tmp_path: Path) -> Path:
    raw = end_to_end.own_root(tmp_path / "raw", end_to_end.own_rows(12))
    (raw / "own/images").mkdir()
    for number in range(4):
        Image.new("RGB", (640, 480)).save(raw / f"own/images/{number:03d}.jpg")
    return end_to_end.build(end_to_end.recipe_file(tmp_path, RECIPE), raw, tmp_path / "out", mode="embed")


def test_without_its_entry_a_template_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown value of template 'corner'; .*\(at take.corner"):
        recipe.load(str(end_to_end.recipe_file(tmp_path, RECIPE.replace('"thermal"', '"sam"'))))


def test_a_recipe_knows_the_entries(toys: None) -> None:
    assert keys(Take)["template"].choices[-1] == "corner"
    assert keys(Take)["encoder"].choices[-1] == "thermal"


def test_a_corpus_is_built_and_found_sound(corpus: Path) -> None:
    assert {name: part.kept for name, part in end_to_end.account(corpus).items()} == {"corner": 4, "warm": 8}
    assert check(corpus).findings == []
    rows = {row["template"]: row for row in end_to_end.rows(corpus)}
    first, call, shown, _ = (turn["content"] for turn in rows["corner"]["messages"])
    assert (first.endswith(f" \n{PROMPT}"), call, shown) == (True, "[corner]", "<image>")
    assert rows["corner"]["views"][1]["box"] == [0, 0, 320, 240] and rows["corner"]["looks"] == ["region"]
    assert [turn["content"] for turn in rows["reencode"]["messages"]][1:3] == [
        "<|heat_action_start|><|heat_action|><|heat_action_end|>",
        "<heat_image>",
    ]
    assert rows["reencode"]["looks"] == ["thermal"]
    card = (corpus / "README.md").read_text(encoding="utf-8")
    assert "- A corner look shows the top left." in card and "as `<heat_image>`." in card


def test_a_broken_row_is_found(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rules of rows follow the table: without its entry the same corpus breaks them."""
    monkeypatch.delitem(ENCODERS, "thermal")
    assert {"placeholder_count", "special_text"} <= {finding.rule for finding in check(corpus).findings}
    monkeypatch.setitem(ENCODERS, "thermal", Encoder("thermal", "heat", "<heat_image>", "heat_images"))
    monkeypatch.setitem(TEMPLATES, "corner", Template(look=corner_look, prompt="Another sentence."))
    assert {finding.rule for finding in check(corpus).findings} == {"prompted"}


def test_rows_change_encoder_and_lose_their_prompt(toys: None) -> None:
    through = render(table(DOG), rule("reencode", encoder="dino"))
    warm = retarget(through, "thermal")
    assert warm.to_pylist() == render(table(DOG), rule("reencode", encoder="thermal")).to_pylist()
    assert retarget(warm, "dino").to_pylist() == through.to_pylist()
    asked = render(table(DOG), rule("corner"))
    assert retarget(asked, prompted=False).to_pylist() == render(table(DOG), rule("corner", prompted=False)).to_pylist()


def test_tokens_follow_the_table(toys: None) -> None:
    assert tokens.added_tokens("thermal", 2)[0].content == "<|heat_image_pad|>"
    assert not tokens.carries_loss("<|heat_action|>")
    assert [call.encoder for call in reencode.decode_action(reencode.action_turn("thermal", 2))] == ["thermal"]
    literal = table({**DOG, "question": "a <heat_image>?"})
    assert inspect_text(literal).tolist() == [True]


def test_published_files_are_linted_with_its_list(toys: None, tmp_path: Path) -> None:
    texts = ["<image>\nHot?", reencode.action_turn("thermal"), "<heat_image>", "Yes."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(texts)]
    row: dict[str, Any] = {**{name: [] for name in row_keys()}, "messages": messages, "images": ["a.jpg"]}
    for listed, broken in ((["a.jpg"], set()), ([], {"placeholders_heat_images", "action_list"})):
        (tmp_path / "file.json").write_text(json.dumps([{**row, "heat_images": listed}]))
        assert {finding.rule for finding in lint(tmp_path / "file.json").findings} == broken
