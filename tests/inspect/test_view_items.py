"""A row of a corpus as the page shows it: turns in pieces, pictures, boxes, the row as it is stored."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import PIL.Image
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.dialogue.tokens import depth
from vpt_data.dialogue.tokens.grid import encode
from vpt_data.dialogue.tokens.reencode import action_turn
from vpt_data.inspect.view.item import Box, Document, Item, Picture, item
from vpt_data.inspect.view.turns import turns
from vpt_data.schema import SAMPLE

REGION = encode([[0, 1, 7, 6]], 8)[0].as_py()
HOSTILE = "</script><img onerror=alert(1)>\u202e\x00\x1b[31m<!--"


class NoPictures:
    """Pictures that name what was asked for."""

    def image(self, row: Mapping[str, Any], which: int) -> Picture:
        return Picture(f"image {which}", size=(50, 40))

    def crop(self, row: Mapping[str, Any], number: int) -> Picture:
        return Picture(f"crop {number}")


def message(role: str, content: str | None) -> dict[str, Any]:
    return {"role": role, "content": content}


def view(turn: int, encoder: str = "vlm", box: list[int] | None = None) -> dict[str, Any]:
    return {"turn": turn, "image": 0, "encoder": encoder, "box": box, "cells": box and [0, 1, 7, 6]}


def row(**columns: Any) -> dict[str, Any]:
    return dict.fromkeys(SAMPLE.names) | {"id": "a/1"} | columns


def test_a_message_is_text_tokens_and_placeholders() -> None:
    messages = [message("user", "<image>\nwhy?"), message("assistant", REGION), message("user", "<image>"),
            message("assistant", "so")]  # fmt: skip
    first, look, second, answer = turns(messages, [view(0), view(2)])
    assert [(part.kind, part.text, part.view, part.loss) for part in first.parts] == [
        ("view", "<image>", 0, False),
        ("text", "\nwhy?", None, False),
    ]
    assert {(part.kind, part.family, part.view, part.loss) for part in look.parts} == {("token", "region", 1, True)}
    assert [part.view for part in second.parts] == [1]
    assert answer.loss and answer.parts[0].loss


def test_a_control_token_carries_no_loss_and_a_call_names_its_view() -> None:
    messages = [message("user", "q"), message("assistant", action_turn("sam", 2)), message("user", "<seg_image>")]
    call = turns(messages, [view(2, "sam")])[1]
    assert [part.loss for part in call.parts] == [True, False, False, True]
    assert {(part.family, part.view) for part in call.parts} == {("action", 0)}


def test_several_calls_name_their_views_in_order() -> None:
    messages = [
        message("user", "q"),
        message("assistant", REGION + REGION + action_turn("dino")),
        message("user", "..."),
    ]
    parts = turns(messages, [view(2), view(2, "dino"), view(2)])[1].parts
    assert [part.view for part in parts] == [0] * 6 + [2] * 6 + [1] * 3


def test_tokens_that_ask_for_nothing_have_no_view() -> None:
    parts = turns(
        [message("user", REGION), message("assistant", "<|x_1|> <|im_end|><image>"), message("user", None)], []
    )
    assert {part.view for turn in parts for part in turn.parts} == {None}
    assert [part.family for part in parts[1].parts] == ["region", None, "other", None]
    assert parts[2].parts == []


@given(st.lists(st.sampled_from([REGION, action_turn("clip"), "<image>", "<|x_2|>", HOSTILE, "a\nb", "<"])))
def test_the_pieces_are_the_message(pieces: list[str]) -> None:
    content = "".join(pieces)
    for role in ("user", "assistant"):
        (turn,) = turns([message(role, content)], [view(0), view(1)])
        assert "".join(part.text for part in turn.parts) == content


def test_a_depth_map_is_drawn_where_its_codes_need_no_weights() -> None:
    span = depth.encode([list(range(100))])[0].as_py()
    said = f"The map is {span}. So A."
    messages = [
        message("user", "q"),
        message("assistant", f"{said}<DEPTH_START><DEPTH_5> {span.replace('_7>', '_999>')}"),
    ]
    made = {
        name: item(row(messages=messages, meta=json.dumps({"tokenizer_id": f"{name} weights=none"})), NoPictures())
        for name in ("pool10x10-q128", "vqvae")
    }
    parts = made["pool10x10-q128"].turns[1].parts
    assert [part.kind for part in parts] == ["text", "map", "text", "map"]
    assert parts[1].text == span and parts[1].loss and "".join(part.text for part in parts) == messages[1]["content"]
    assert [part.src for part in made["vqvae"].turns[1].parts] == [None] * 4 and parts[3].src is None
    head, _, data = str(parts[1].src).partition(",")
    with PIL.Image.open(io.BytesIO(base64.b64decode(data))) as picture:
        shown = np.asarray(picture)
    # The first code is the darkest, the last one the brightest: 0 and 99 of 127.
    assert head == "data:image/png;base64" and (shown.min(), shown.max()) == (shown[0, 0], shown[-1, -1])
    assert (int(shown[0, 0]), int(shown[-1, -1])) == (1, 199)
    assert turns(messages, [])[1].parts[1].src is None


def test_an_item_has_pictures_boxes_and_the_row_without_bytes() -> None:
    given = row(
        images=[{"bytes": b"x" * 1500, "path": "a/1.jpg"}],
        image_info=[{"width": None, "height": None, "sha256": None, "license": "CC0-1.0", "attribution": "A. B."}],
        regions=[
            {"image": 0, "box": [1, 2, 3.5, 4], "label": HOSTILE},
            {"image": 7, "box": [0, 0, 1, 1], "label": None},
        ],
        views=[view(0), view(2, box=[0, 5, 50, 35])],
        answers=None,
    )  # fmt: skip
    made = item(given, NoPictures(), repaired=["clipped"])
    (image,) = made.images
    assert (image.src, image.width, image.height, image.license) == ("image 0", 50, 40, "CC0-1.0")
    assert image.boxes == [Box((1, 2, 3.5, 4), HOSTILE)]
    assert [(each.src, each.cells) for each in made.views] == [(None, None), ("crop 1", (0, 1, 7, 6))]
    assert made.raw["images"] == [{"bytes": "1,500 bytes", "path": "a/1.jpg"}]
    assert (made.answers, made.repaired, made.other) == ([], ["clipped"], None)


def test_a_document_goes_through_json_whole() -> None:
    made = item(row(question=HOSTILE, messages=[message("user", HOSTILE)]), NoPictures())
    document = Document(title=HOSTILE, corpora=[], chosen="", items=[made])
    again = msgspec.json.decode(msgspec.json.encode(document), type=Document)
    assert again == document
    assert isinstance(again.items[0], Item)
