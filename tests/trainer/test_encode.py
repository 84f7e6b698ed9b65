"""Rows become tokens, labels, classes, slots and controls."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import end_to_end
from hypothesis import given, settings
from hypothesis import strategies as st
from loaders import ACTION, PAD, row, row_encoder, tokenizer, verify
from tokenizers import Tokenizer

from trainer.data.encode import RowEncoder, Unfit
from trainer.data.sample import IGNORE, Control, Sample
from trainer.model.tiny import tiny_vision
from vpt_data.dialogue.tokens import grid, reencode
from vpt_data.errors import UsageError

torch.set_num_threads(1)

REGION = grid.encode([[1, 2, 3, 4]], 8)[0].as_py()
CROP = {"turn": 2, "box": [10, 15, 40, 38], "cells": [1, 2, 3, 4]}


def tokens_of(ids: Any, encoder: str = "dino") -> list[str]:
    return [tokenizer(encoder).id_to_token(int(token)) for token in ids]


def test_every_row_of_the_sample_corpus(embedded_corpus: Path) -> None:
    rows = end_to_end.rows(embedded_corpus)
    encoder = row_encoder(cutoff=4096)
    for found in rows:
        verify(encoder.encode(found), found, tokenizer())
    forms = {(found["template"], *found["looks"]) for found in rows}
    assert forms >= {("region", "region"), ("reencode", "dino"), ("plain",), ("alignment",), ("textbox", "region")}
    assert any(len(looks) > 2 for _, *looks in forms)


def test_a_call_word_by_word() -> None:
    asked = row(
        "a/1",
        "<image>\nWhat?",
        reencode.action_turn("dino", 2),
        "<detection_image>",
        "A dog.",
        views=[{"turn": 0}, {"turn": 2, "encoder": "dino"}],
    )
    sample = row_encoder(system=None, control_tokens=2).encode(asked)
    tokens = tokens_of(sample.input_ids)
    call = tokens.index("<|detection_action_start|>")
    assert tokens[call : call + 5] == [
        "<|detection_action_start|>",
        "<|detection_action|>",
        "<|detection_action|>",
        "<|detection_action_end|>",
        "<|im_end|>",
    ]
    assert (sample.labels != IGNORE)[call : call + 5].tolist() == [True, False, False, True, True]
    assert sample.classes[call : call + 5].tolist() == [ACTION, ACTION, ACTION, ACTION, 0]
    assert sample.controls == (Control("dino", call + 1, count=2),)
    assert sample.first_user == (0, call)
    assert [(slot.kind, slot.length, slot.grid) for slot in sample.slots] == [("vlm", 6, (1, 4, 6)), ("dino", 16, None)]
    assert tokens[-1] == "<|im_end|>" and sample.labels[-1] != IGNORE


def test_labels_are_ids_where_trained() -> None:
    sample = row_encoder().encode(row("a/1", "What?", REGION, "And?", " A dog."))
    trained = sample.labels != IGNORE
    assert 0 < int(trained.sum()) < len(trained)
    assert torch.equal(sample.labels[trained], sample.input_ids[trained])
    assert (sample.input_ids.dtype, sample.labels.dtype, sample.classes.dtype) == (torch.int64, torch.int64, torch.int8)
    assert (sample.id, sample.slots, sample.controls) == ("a/1", (), ())


def test_a_sample_crosses_processes_as_arrays() -> None:
    """Each tensor would be a file of shared memory, and a few workers would open more than a process may."""
    sample = row_encoder().encode(row("a/1", "<image>", REGION, "<image>", "A dog.", views=[{"turn": 0}, CROP]))
    assert not any(isinstance(part, torch.Tensor) for part in sample.__reduce__()[1])
    again = pickle.loads(pickle.dumps(sample))
    for name in Sample.__dataclass_fields__:
        one, other = getattr(sample, name), getattr(again, name)
        assert torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other


def test_a_crop_takes_the_tokens_of_its_box() -> None:
    sample = row_encoder().encode(row("a/1", "<image>", REGION, "<image>", "A dog.", views=[{"turn": 0}, CROP]))
    assert [slot.length for slot in sample.slots] == [
        tiny_vision().tokens("vlm", size)[0] for size in ((80, 60), (30, 23))
    ]
    assert not sample.controls


def test_the_system_turn() -> None:
    def words(**options: Any) -> str:
        own = options.pop("own", None)
        sample = row_encoder(**options).encode(row("a/1", "What?", "A dog.", system=own))
        return str(tokenizer().decode(sample.input_ids.tolist(), skip_special_tokens=False)).split("<|im_end|>")[0]

    assert words() == "<|im_start|>system\nYou are a helpful assistant."
    assert words(system="Be brief.") == "<|im_start|>system\nBe brief."
    assert words(system="Be brief.", own="Look.") == "<|im_start|>system\nLook."
    assert words(system=None) == "<|im_start|>user\nWhat?"


def test_a_prompt_ends_where_the_answer_begins() -> None:
    encoder = row_encoder()
    whole = encoder.encode(row("a/1", "What?", " A dog."))
    prompt = encoder.encode(row("a/1", "What?"), prompt=True)
    assert whole.input_ids[: len(prompt.input_ids)].tolist() == prompt.input_ids.tolist()
    assert (whole.labels != IGNORE).tolist().index(True) == len(prompt.input_ids)
    assert (prompt.labels == IGNORE).all()


words_in = st.text(st.sampled_from("ab Z9\n\té€😀<>|_?"), max_size=12)


@st.composite
def dialogues(draw: st.DrawFn, control_tokens: int) -> dict[str, Any]:
    answer_part = st.one_of(words_in, st.sampled_from([REGION, reencode.action_turn("dino", control_tokens)]))
    views: list[dict[str, Any]] = []
    turns: list[str] = []
    for number in range(draw(st.integers(1, 4))):
        shown = ""
        for kind in draw(st.lists(st.sampled_from(["vlm", "dino"]), max_size=3)):
            x0, y0 = draw(st.integers(0, 79)), draw(st.integers(0, 59))
            box = draw(st.sampled_from([None, [x0, y0, draw(st.integers(x0 + 1, 80)), draw(st.integers(y0 + 1, 60))]]))
            views.append({"turn": 2 * number, "encoder": kind, "box": box, "image": draw(st.integers(0, 1))})
            shown += draw(words_in) + {"vlm": "<image>", "dino": "<detection_image>"}[kind]
        turns += [shown + draw(words_in), "".join(draw(st.lists(answer_part, min_size=1, max_size=3)))]
    system = draw(st.sampled_from([None, "Look closely."]))
    for view in views:
        view["turn"] += system is not None
    return row("t/1", *turns, views=views, system=system)


@settings(max_examples=150)
@given(st.data(), st.integers(1, 3))
def test_any_dialogue(data: st.DataObject, control_tokens: int) -> None:
    found = data.draw(dialogues(control_tokens))
    sample = row_encoder(cutoff=4096, control_tokens=control_tokens).encode(found)
    verify(sample, found, tokenizer())
    assert {control.count for control in sample.controls} <= {control_tokens}


WHOLE = {"turn": 0}


@pytest.mark.parametrize(
    ("found", "reason", "detail"),
    [
        (row("a/1", "<image>", "Yes"), "malformed", "more placeholders than the 0 views"),
        (row("a/1", "What?", "Yes", views=[WHOLE]), "malformed", "0 placeholders for 1 views"),
        (row("a/1", "<image>", "Yes", views=[{"turn": 2}]), "malformed", "view 0 is vlm in turn 2, not vlm here"),
        (row("a/1", "<image>", "<image>", views=[WHOLE, WHOLE]), "malformed", "an answer holds a placeholder"),
        (row("a/1", "Hi <|x_1|>", "Yes"), "malformed", "a text holds the token <|x_1|>"),
        (row("a/1", "Hi", "Yes<|im_end|>"), "malformed", "a text holds the token <|im_end|>"),
        (row("a/1", "Hi", "<|image_pad|>"), "malformed", "a text holds the token <|image_pad|>"),
        (row("a/1", "a b " * 300, "Yes"), "too_long", "tokens, at most 512 are trained on"),
        (
            row("a/1", "<image>", "Yes", views=[{"turn": 0, "box": [3, 4, 3, 9]}]),
            "malformed",
            "a view shows no pixel: box [3, 4, 3, 9]",
        ),
        (
            {**row("a/1", "<image>", "Yes", views=[WHOLE]), "image_info": [{"width": None, "height": None}]},
            "no_size",
            "image 0: no size in the row, and the image is not there",
        ),
        (
            {**row("a/1", "<image>", "Yes", views=[WHOLE]), "image_info": []},
            "malformed",
            "a view shows image 0 of 0",
        ),
        (row("a/1", "Hi", None), "malformed", "message 1 has no text"),  # type: ignore[arg-type]
    ],
)
def test_unfit_rows(found: dict[str, Any], reason: str, detail: str) -> None:
    with pytest.raises(Unfit) as caught:
        row_encoder().encode(found)
    assert caught.value.reason == reason
    assert caught.value.detail.endswith(detail)


def test_a_row_for_another_model() -> None:
    shown = row("a/1", "<seg_image>", "Yes", views=[{"turn": 0, "encoder": "sam"}])
    with pytest.raises(UsageError) as caught:
        row_encoder().encode(shown)
    assert str(caught.value) == (
        "Sample a/1: shows an image through sam, and the model has vlm, dino; make the corpus fit with `vpt-data "
        "render`, or choose another configuration"
    )
    verify(row_encoder("sam").encode(shown), shown, tokenizer("sam"))


@pytest.mark.parametrize(
    ("of_row", "of_model", "detail"),
    [(2, 1, ("2 control tokens", "1 control token")), (1, 4, ("1 control token", "4 control tokens"))],
)
def test_a_row_with_another_number_of_control_tokens(of_row: int, of_model: int, detail: tuple[str, str]) -> None:
    """The layer that reads them has a width for one number of them."""
    with pytest.raises(UsageError) as caught:
        row_encoder(control_tokens=of_model).encode(row("a/1", "What?", reencode.action_turn("dino", of_row)))
    assert str(caught.value) == (
        f"Sample a/1: asks for dino with {detail[0]}, and the model takes {detail[1]} a look; set "
        f"model.control_tokens to {of_row}, or build the corpus with control_tokens = {of_model}"
    )


@pytest.mark.parametrize(("of_row", "of_model"), [(16, 8), (8, 16)])
def test_a_grid_is_that_of_the_model(of_row: int, of_model: int) -> None:
    """A model with more tokens would read a coarser grid without a word, and look at the wrong place."""
    found = {**row("a/1", "<image>", REGION, "<image>", "Yes", views=[WHOLE, CROP]), "k": of_row}
    with pytest.raises(UsageError) as caught:
        row_encoder(k=of_model).encode(found)
    assert str(caught.value) == (
        f"Sample a/1: its regions are on a {of_row} x {of_row} grid and the model's on {of_model} x {of_model}, where "
        f"the same tokens mean other places; set model.k to {of_row}, or build the corpus with k = {of_model}"
    )
    verify(row_encoder(k=of_row).encode(found), found, tokenizer(k=of_row))


def test_rows_without_regions_fit_every_grid() -> None:
    found = {**row("a/1", "<image>", "Yes", views=[WHOLE]), "k": 16}
    verify(row_encoder(k=8).encode(found), found, tokenizer(k=8))


def test_a_tokenizer_without_perception_tokens() -> None:
    plain = Tokenizer.from_str(tokenizer().to_str().replace("region_token_start", "nothing"))
    with pytest.raises(UsageError) as caught:
        RowEncoder(plain, tiny_vision())
    assert str(caught.value) == (
        "The tokenizer has no <|region_token_start|>, expected one of Qwen2-VL with the perception tokens of a 8 x 8 "
        "grid; add `vpt_data.dialogue.tokens.added_tokens` to it"
    )


def test_pads_of_all_encoders_are_known() -> None:
    assert set(PAD) == {"vlm", "dino", "sam", "clip"}
    for name in ("dino", "sam", "clip"):
        mark = {"dino": "<detection_image>", "sam": "<seg_image>", "clip": "<clip_image>"}[name]
        found = row("a/1", f"Describe it.\n{mark}", "A dog.", views=[{"turn": 0, "encoder": name}])
        verify(row_encoder(name).encode(found), found, tokenizer(name))
