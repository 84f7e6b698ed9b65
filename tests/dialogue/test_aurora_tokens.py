"""Depth and pixel tokens: their strings and order, spans through text and Parquet and back, damage counted by cause."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry
from vpt_data.dialogue import tokens
from vpt_data.dialogue.tokens import depth, pixels
from vpt_data.dialogue.tokens.depth import DepthFault
from vpt_data.dialogue.tokens.pixels import PixelFault

BOTH = ("depth", "pixels")
CODES = list(range(100))
SPAN = depth.encode([CODES])[0].as_py()


def test_the_strings_in_their_order() -> None:
    words = [token.content for token in tokens.added_tokens(None, others=BOTH)]
    assert words[:4] == ["<DEPTH_START>", "<DEPTH_END>", "<DEPTH_0>", "<DEPTH_1>"]
    assert words[129:132] == ["<DEPTH_127>", "<PIXEL_0>", "<PIXEL_1>"] and words[-1] == "<PIXEL_335>"
    assert len(words) == len(set(words)) == 466
    assert not any(token.special for token in tokens.added_tokens(None, others=BOTH))


@pytest.mark.parametrize(("others", "first_pixel", "size"), [
    (["depth"], None, 32_130), (["pixels"], 32_000, 32_336), (BOTH, 32_130, 32_466),
])  # fmt: skip
def test_ids_on_a_vocabulary_of_32000(others: list[str], first_pixel: int | None, size: int) -> None:
    ids = tokens.token_ids(None, first=32_000, others=others)
    assert ids.get("<PIXEL_0>") == first_pixel and max(ids.values()) == size - 1
    if "depth" in others:
        assert (ids["<DEPTH_START>"], ids["<DEPTH_END>"], ids["<DEPTH_127>"]) == (32_000, 32_001, 32_129)


def test_a_span_is_102_tokens() -> None:
    assert SPAN.count("<DEPTH") == 102 and SPAN.startswith("<DEPTH_START><DEPTH_0><DEPTH_1>")
    assert depth.decode(f"The depth map is {SPAN}. So A.") == [depth.DepthSpan(tuple(CODES), None)]


def test_codes_through_parquet_and_back(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(0, 128, (50, 100))
    pq.write_table(pa.table({"text": depth.encode(codes)}), tmp_path / "codes.parquet")
    read = pq.read_table(tmp_path / "codes.parquet")["text"].to_pylist()
    assert [span.codes for text in read for span in depth.decode(text)] == [tuple(row) for row in codes.tolist()]
    assert len(depth.encode(np.zeros((0, 100), int))) == 0


@pytest.mark.parametrize(("text", "codes", "fault"), [
    (SPAN.replace("><", "> <"), 100, DepthFault.SPACE_BETWEEN_TOKENS),
    (SPAN.replace("><", ">\n<"), 100, DepthFault.SPACE_BETWEEN_TOKENS),
    (SPAN.removeprefix("<DEPTH_START>"), 100, DepthFault.NO_START),
    (SPAN.removesuffix("<DEPTH_END>"), 100, DepthFault.NO_END),
    (SPAN.replace("<DEPTH_7>", "", 1), 99, DepthFault.WRONG_COUNT),
    (SPAN.replace("<DEPTH_7>", "<DEPTH_7><DEPTH_7>", 1), 101, DepthFault.WRONG_COUNT),
    (SPAN.replace("<DEPTH_7>", "<PIXEL_7>", 1), 99, DepthFault.FOREIGN_TOKEN),
    (SPAN.replace("<DEPTH_7>", "<depth_7>", 1), 99, DepthFault.FOREIGN_TOKEN),
    (SPAN.replace("<DEPTH_7>", "seven", 1), 99, DepthFault.TEXT_BETWEEN_TOKENS),
    (SPAN.replace("<DEPTH_7>", "<DEPTH_128>", 1), 99, DepthFault.INDEX_OUT_OF_RANGE),
    (SPAN.replace("<DEPTH_7>", "<DEPTH_007>", 1), 99, DepthFault.INDEX_OUT_OF_RANGE),
    ("<DEPTH_START><DEPTH_END>", 0, DepthFault.WRONG_COUNT),
])  # fmt: skip
def test_damage_has_one_cause_and_leaves_the_codes_that_exist(text: str, codes: int, fault: DepthFault) -> None:
    [span] = depth.decode(f"Before {text} after.")
    assert (len(span.codes), span.fault) == (codes, fault)
    assert span.usable == (fault is DepthFault.SPACE_BETWEEN_TOKENS)
    assert tokens.FAMILIES["depth"].faults(text, 8) == Counter({f"depth_{fault}": 1})


def test_a_cut_span_does_not_swallow_the_next() -> None:
    cut = SPAN[: SPAN.index("<DEPTH_40>")]
    assert [(len(s.codes), s.fault) for s in depth.decode(f"{cut}{SPAN} and <DEPTH_1><DEPTH_2>")] == [
        (40, DepthFault.NO_END), (100, None), (2, DepthFault.NO_START),
    ]  # fmt: skip


def test_ten_thousand_random_and_damaged_spans() -> None:
    """Whole spans come back exactly; of a damaged one, no code comes back that was not in it."""
    chance = random.Random(0)
    codes = np.random.default_rng(0).integers(0, 128, (10_000, 100))
    for row, text in zip(codes.tolist(), depth.encode(codes).to_pylist(), strict=True):
        words = text.replace("><", ">\0<").split("\0")
        how = chance.choice(["whole", "delete", "repeat", "blank"])
        place = chance.randrange(len(words))
        if how == "delete":
            del words[place]
        elif how == "repeat":
            words.insert(place, words[place])
        elif how == "blank" and place:
            words[place] = " " + words[place]
        found = depth.decode("".join(words))
        if how == "whole" or (how == "blank" and found[0].usable):
            assert [span.codes for span in found] == [tuple(row)]
        else:
            assert any(span.fault for span in found)
            kept = [int(word[7:-1]) for word in words if word[7:-1].isdigit()]
            assert [code for span in found for code in span.codes] == kept


@given(st.lists(st.sampled_from(["<DEPTH_START>", "<DEPTH_END>", "<DEPTH_3>", "<DEPTH_999>", " ", "x", "<PIXEL_1>",
                                 "<PIXEL_336>", "(", ")", ",", "<"]), max_size=20))  # fmt: skip
def test_any_mixture_is_read_and_counted(parts: list[str]) -> None:
    text = "".join(parts)
    spans = depth.decode(text)
    assert sum(len(span.codes) for span in spans) == text.count("<DEPTH_3>")
    assert not any(span.usable for span in spans)
    boxes = pixels.decode(text)
    assert len(boxes.boxes) + boxes.faults.total() >= ("<PIXEL_" in text)


def test_exactly_a_hundred_codes_may_follow_a_start() -> None:
    family, span = tokens.FAMILIES["depth"], [depth.START]
    while (choices := family.follow(span, 8)) is not None:
        span.append(choices[-1])
    assert len(span) == 102 and not family.faults("".join(span), 8)
    assert family.follow([depth.START, "and"], 8) is None


@pytest.mark.parametrize(("codes", "message"), [
    (np.zeros((2, 99)), r"^codes: shape is \[2, 99\], expected \[N, 100\]$"),
    (np.full((1, 100), 128), r"^codes: row 0 holds 128 to 128, expected 0 to 127$"),
])  # fmt: skip
def test_codes_that_do_not_exist(codes: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        depth.encode(codes)


# --- pixel tokens


@given(st.integers(1, 4000), st.integers(1, 4000), st.data())
def test_boxes_come_back_within_a_pixel(wide: int, high: int, data: st.DataObject) -> None:
    x = sorted(data.draw(st.tuples(st.integers(0, wide), st.integers(0, wide)).filter(lambda p: p[0] != p[1])))
    y = sorted(data.draw(st.tuples(st.integers(0, high), st.integers(0, high)).filter(lambda p: p[0] != p[1])))
    box = np.array([[x[0], y[0], x[1], y[1]]], float)
    named = geometry.cells(box, np.array([[wide, high]]), pixels.SIDE, "inside")
    [text] = pixels.encode(named).to_pylist()
    [(x1, y1, x2, y2)] = pixels.decode(text).boxes
    scale = pixels.SIDE / np.array([wide, high, wide, high])
    assert np.abs(np.array([x1, y1, x2 + 1, y2 + 1]) - box[0] * scale).max() <= 1


def test_boxes_of_an_answer() -> None:
    boxes = [(0, 1, 335, 12), (3, 3, 3, 3)]
    lines = [f"Bounding box {n}: {text}" for n, text in enumerate(pixels.encode(boxes).to_pylist(), 1)]
    assert lines[0] == "Bounding box 1: (<PIXEL_0>,<PIXEL_1>,<PIXEL_335>,<PIXEL_12>)"
    assert pixels.decode("\n".join(lines)) == pixels.PixelBoxes(boxes, Counter())


@pytest.mark.parametrize(("text", "count", "fault"), [
    ("( <PIXEL_1>, <PIXEL_2> ,<PIXEL_3>,<PIXEL_4>)", 1, PixelFault.SPACE_BETWEEN_TOKENS),
    ("<PIXEL_1><PIXEL_2><PIXEL_3><PIXEL_4>", 1, PixelFault.NO_PARENTHESES),
    ("(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>", 0, PixelFault.WRONG_COUNT),
    ("(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>,<PIXEL_5>)", 0, PixelFault.WRONG_COUNT),
    ("(<PIXEL_1>,<PIXEL_2>,<PIXEL_3>,<PIXEL_336>)", 0, PixelFault.INDEX_OUT_OF_RANGE),
    ("(<PIXEL_1>,<PIXEL_2>,<DEPTH_3>,<PIXEL_3>,<PIXEL_4>)", 0, PixelFault.FOREIGN_TOKEN),
    ("(<PIXEL_4>,<PIXEL_2>,<PIXEL_3>,<PIXEL_4>)", 0, PixelFault.REVERSED),
])  # fmt: skip
def test_damage_to_a_box_has_one_cause(text: str, count: int, fault: PixelFault) -> None:
    found = pixels.decode(f"Here: {text}\nand (<PIXEL_9>,<PIXEL_9>,<PIXEL_9>,<PIXEL_9>)")
    assert (len(found.boxes), found.faults) == (count + 1, Counter({fault: 1}))
    assert tokens.FAMILIES["pixels"].faults(text, 8) == Counter({f"pixel_{fault}": 1})


@pytest.mark.parametrize(("boxes", "message"), [
    ([[1, 2, 3]], r"^boxes: shape is \[1, 3\], expected \[N, 4\]$"),
    ([[0, 0, 336, 1]], r"^boxes: row 0 is \[0, 0, 336, 1\], expected x1 <= x2, y1 <= y2 in 0 to 335$"),
    ([[5, 0, 4, 1]], r"^boxes: row 0 is \[5, 0, 4, 1\], expected x1 <= x2, y1 <= y2 in 0 to 335$"),
])  # fmt: skip
def test_boxes_that_do_not_exist(boxes: list[list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pixels.encode(boxes)


def test_literals_in_source_texts_are_defused() -> None:
    clean, hit = tokens.neutralise(pa.array(["see <DEPTH_5>", "<PIXEL_999>", "<DEPTH>"]))
    assert (clean.to_pylist(), hit.tolist()) == (["see < DEPTH_5>", "< PIXEL_999>", "<DEPTH>"], [True, True, False])


def test_a_long_text_of_tokens_is_read_in_one_pass() -> None:
    """A model that repeats itself may write megabytes: with a pattern that goes back, this would not end."""
    text = "<PIXEL_1> " * 100_000 + "(" * 100_000 + " " * 100_000 + "<DEPTH_1>" * 100_000
    assert (pixels.decode(text).faults.total(), len(depth.decode(text))) == (1, 1)
