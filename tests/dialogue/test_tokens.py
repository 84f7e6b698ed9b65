"""Token strings: vocabulary order, region and re-encoding turns, faults by cause, literals in source text."""

import gzip
import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import geometry
from vpt_data.dialogue import tokens
from vpt_data.dialogue.tokens import grid, reencode
from vpt_data.dialogue.tokens.grid import RegionFault
from vpt_data.dialogue.tokens.reencode import Action, ActionFault

QWEN2_VL_TOKENS = [
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|object_ref_start|>", "<|object_ref_end|>"),
    *("<|box_start|>", "<|box_end|>", "<|quad_start|>", "<|quad_end|>", "<|vision_start|>"),
    *("<|vision_end|>", "<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"),
]


def region(*parts: str) -> str:
    return grid.START + "".join(f"<|{part}|>" for part in parts) + grid.END


# --- vocabulary


@pytest.mark.parametrize(("encoder", "stem"), [("dino", "detection"), ("sam", "seg"), ("clip", "clip")])
def test_ids_on_qwen2_vl(encoder: str, stem: str) -> None:
    ids = tokens.token_ids(encoder)
    assert ids[f"<|{stem}_image_pad|>"] == 151657
    assert (ids["<|region_token_start|>"], ids["<|region_token_end|>"]) == (151658, 151659)
    assert [ids[f"<|x_{i}|>"] for i in range(8)] == list(range(151660, 151668))
    assert [ids[f"<|y_{i}|>"] for i in range(8)] == list(range(151668, 151676))
    action = [ids[f"<|{stem}_action{part}|>"] for part in ("_start", "", "_end")]
    assert action == [151676, 151677, 151678]
    assert len(ids) == 22
    special = [token.content for token in tokens.added_tokens(encoder) if token.special]
    assert special == [f"<|{stem}_image_pad|>"]


@pytest.mark.parametrize(("encoder", "size"), [(None, 392), ("dino", 947), ("sam", 923)])
def test_added_tokens_have_the_size_of_the_released_file(encoder: str | None, size: int) -> None:
    """Sizes of added_tokens.json as listed by the Hub, for the base model and two released checkpoints."""
    table = {token: 151643 + place for place, token in enumerate(QWEN2_VL_TOKENS)}
    if encoder:
        table |= tokens.token_ids(encoder)
    assert len(json.dumps(table, indent=2, sort_keys=True).encode()) + len("\n") == size


def test_size_of_the_released_alignment_file() -> None:
    table = {token: 151643 + place for place, token in enumerate(QWEN2_VL_TOKENS)}
    table |= dict(list(tokens.token_ids("sam").items())[:1])
    assert len(json.dumps(table, indent=2, sort_keys=True).encode()) + len("\n") == 423


@pytest.mark.parametrize("k", [1, 4, 16, 32])
def test_another_grid_needs_no_other_code(k: int) -> None:
    ids = tokens.token_ids("dino", k, first=0)
    assert list(ids.values()) == list(range(6 + 2 * k))
    assert f"<|y_{k - 1}|>" in ids and f"<|x_{k}|>" not in ids


def test_loss_is_on_everything_but_control_tokens_and_pads() -> None:
    for encoder in reencode.ENCODERS:
        silent = [token.content for token in tokens.added_tokens(encoder) if not tokens.carries_loss(token.content)]
        entry = reencode.ENCODERS[encoder]
        assert silent == [entry.image_pad, entry.control]
    assert not tokens.carries_loss("<|image_pad|>")
    assert tokens.carries_loss("<|im_end|>")


def test_placeholders_and_unknown_encoders() -> None:
    assert tokens.placeholders() == {
        "vlm": "<image>",
        "dino": "<detection_image>",
        "sam": "<seg_image>",
        "clip": "<clip_image>",
    }
    columns = [entry.images_column for entry in reencode.ENCODERS.values()]
    assert columns == ["detection_images", "seg_images", "clip_images"]
    assert all(name == entry.name for name, entry in reencode.ENCODERS.items())
    with pytest.raises(ValueError, match=r"encoder 'dinov2' is not known, expected one of: dino, sam, clip"):
        tokens.added_tokens("dinov2")


def test_a_model_without_an_encoder_has_region_tokens_alone() -> None:
    assert [token.content for token in tokens.added_tokens(None, 3)] == grid.region_tokens(3)
    assert not any(token.special for token in tokens.added_tokens(None))


# --- region turns


@given(st.sampled_from([1, 2, 4, 8, 16, 32, 300]), st.data())
def test_encode_and_decode_are_inverse(k: int, data: st.DataObject) -> None:
    index = st.integers(0, k - 1)
    rows = data.draw(st.lists(st.tuples(index, index, index, index), max_size=5))
    cells = geometry.sort_corners(np.array(rows).reshape(-1, 4))[0].astype(np.int32)
    texts = grid.encode(cells, k)
    assert texts.type == pa.string() and len(texts) == len(rows)
    for text, row in zip(texts.to_pylist(), cells.tolist(), strict=True):
        assert grid.decode(text, k) == grid.Decoded([tuple(row)], Counter())
        assert set(text.replace("><", "> <").split()) <= set(grid.region_tokens(k))
    assert grid.decode(" and ".join(texts.to_pylist()), k).cells == [tuple(row) for row in cells.tolist()]
    assert grid.lint(texts, k) == Counter()


def test_the_published_row() -> None:
    published = "<|region_token_start|><|x_0|><|y_0|><|x_8|><|y_6|><|region_token_end|>"
    assert grid.encode([[0, 0, 8, 6]], 8).to_pylist() == [published]
    assert grid.decode(published, 8) == grid.Decoded([], Counter({RegionFault.INDEX_OUT_OF_RANGE: 1}))


def test_encode_spells_what_is_beyond_the_grid_and_refuses_what_has_no_token() -> None:
    assert grid.encode([[0, 0, 70_000, 1]], 8).to_pylist() == [region("x_0", "y_0", "x_70000", "y_1")]
    assert grid.encode(np.empty((0, 4)), 8).to_pylist() == []
    with pytest.raises(ValueError, match=r"cells: row 1 is \[0, -1, 2, 2\], expected indices from 0"):
        grid.encode([[0, 0, 0, 0], [0, -1, 2, 2]], 8)
    with pytest.raises(ValueError, match=r"cells: shape is \[4\], expected \[N, 4\]"):
        grid.encode([0, 0, 1, 1], 8)
    with pytest.raises(ValueError, match=r"k is 0, expected a grid of at least 1 cell"):
        grid.region_tokens(0)


GOOD = region("x_1", "y_2", "x_3", "y_4")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        (region("x_0", "y_0", "x_8", "y_7"), "index_out_of_range"),
        (region("x_0", "y_0", "x_-1", "y_7"), "index_out_of_range"),
        (region("x_0", "y_0", "x_07", "y_7"), "index_out_of_range"),
        (region("x_0", "y_0", "x_" + "9" * 5000, "y_7"), "index_out_of_range"),
        (region("x_0", "x_1", "x_2", "x_3"), "missing_axis"),
        (region("y_0", "y_1"), "missing_axis"),
        (region("y_0", "x_0", "y_1", "x_1"), "wrong_order"),
        (region("x_0", "x_1", "y_0", "y_1"), "wrong_order"),
        (region("x_3", "y_0", "x_2", "y_1"), "reversed"),
        (region("x_0", "y_5", "x_2", "y_1"), "reversed"),
        (region("x_0", "y_0", "x_1"), "wrong_count"),
        (region("x_0", "y_0", "x_1", "y_1", "x_2"), "wrong_count"),
        (region(), "wrong_count"),
        (GOOD.removesuffix(grid.END), "no_end"),
        (GOOD.removeprefix(grid.START), "no_start"),
        ("<|x_1|><|y_1|>", "no_start"),
        (grid.END, "no_start"),
        (GOOD.replace("<|y_2|>", "<|y_2|> to "), "text_between_tokens"),
    ],
)
def test_each_cause_is_counted_once_and_spares_the_next_span(text: str, cause: str) -> None:
    assert grid.decode(text, 8) == grid.Decoded([], Counter({RegionFault(cause): 1}))
    assert grid.decode(GOOD + text, 8).cells == [(1, 2, 3, 4)]
    after = grid.decode(text + " then " + GOOD, 8)
    assert after.cells == [(1, 2, 3, 4)] and after.faults == Counter({RegionFault(cause): 1})


def test_leading_zeros_are_no_token() -> None:
    assert grid.decode(region("x_0", "y_0", "x_07", "y_7"), 16).faults == {RegionFault.INDEX_OUT_OF_RANGE: 1}


def test_spaces_between_tokens_are_counted_and_tolerated() -> None:
    spaced = GOOD.replace("><", "> <")
    assert grid.decode(spaced, 8) == grid.Decoded([(1, 2, 3, 4)], Counter({RegionFault.SPACE_BETWEEN_TOKENS: 1}))


def test_text_without_tokens_has_neither_regions_nor_faults() -> None:
    for text in ("", "the dog", "<|im_end|>", "x_1 <x_1> <|x_|>"):
        assert grid.decode(text, 8) == grid.Decoded([], Counter())


def test_lint_adds_up_a_column() -> None:
    bad = region("x_0", "y_0", "x_8", "y_7")
    column = pa.array([GOOD, bad, None, "Yes", bad, GOOD + GOOD.replace("><", "> <"), "<|x_0|>"])
    expected = {"index_out_of_range": 2, "space_between_tokens": 1, "no_start": 1}
    assert grid.lint(column, 8) == expected
    assert grid.lint(column, 16) == {"space_between_tokens": 1, "no_start": 1}
    assert grid.lint(pa.array([], type=pa.string()), 8) == {}


def test_lint_finds_the_published_defect_in_real_rows(shared: Path) -> None:
    file = shared / "data" / "raw" / "visual_cot" / "viscot_benchmark" / "benchmark_det" / "gqa.jsonl.gz"
    with gzip.open(file, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    boxes, sizes = [r["bbox"] for r in rows], [(r["width"], r["height"]) for r in rows]
    legacy = grid.encode(geometry.cells(boxes, sizes, 8, "legacy"), 8)
    assert grid.lint(legacy, 8) == {"index_out_of_range": 105}
    assert grid.lint(grid.encode(geometry.cells(boxes, sizes, 8), 8), 8) == {}


# --- re-encoding turns


@given(st.sampled_from(["dino", "sam", "clip"]), st.integers(1, 4))
def test_action_turns_are_read_back(encoder: str, n: int) -> None:
    turn = reencode.action_turn(encoder, n)
    assert reencode.decode_action(f"Let me look. {turn} And again: {turn}") == [Action(encoder, n, None)] * 2


def test_the_published_action_turn() -> None:
    published = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
    assert reencode.action_turn("dino") == published
    with pytest.raises(ValueError, match=r"control tokens: 0 asked for, expected at least 1"):
        reencode.action_turn("dino", 0)


@pytest.mark.parametrize(
    ("parts", "control", "cause"),
    [
        (["_start", ""], 1, "missing_end"),
        (["", "_end"], 1, "missing_start"),
        (["", ""], 2, "missing_start"),
        (["_end"], 0, "missing_start"),
        (["_start", "_end"], 0, "missing_control"),
    ],
)
def test_causes_of_bad_actions(parts: list[str], control: int, cause: str) -> None:
    text = "".join(f"<|seg_action{part}|>" for part in parts)
    assert reencode.decode_action(text) == [Action("sam", control, ActionFault(cause))]
    good = reencode.action_turn("clip")
    assert reencode.decode_action(good + text)[0] == Action("clip", 1, None)


def test_bad_actions_of_two_encoders_and_with_text() -> None:
    dino, clip = reencode.ENCODERS["dino"], reencode.ENCODERS["clip"]
    mixed = Action("dino", 0, ActionFault.MIXED_ENCODERS)
    assert reencode.decode_action(dino.start + clip.control + dino.end) == [mixed]
    first_open = [Action("dino", 1, ActionFault.MISSING_END), Action("clip", 1, None)]
    assert reencode.decode_action(dino.start + dino.control + reencode.action_turn("clip")) == first_open
    spaced = f"{dino.start} {dino.control} {dino.end}"
    assert reencode.decode_action(spaced) == [Action("dino", 1, ActionFault.SPACE_BETWEEN_TOKENS)]
    chatty = f"{dino.start} er {dino.control}{dino.end}"
    assert reencode.decode_action(chatty) == [Action("dino", 1, ActionFault.TEXT_BETWEEN_TOKENS)]
    assert reencode.decode_action("no look, <|im_end|>") == []


# --- literals in source text


def test_neutralise_touches_only_what_would_be_read_as_a_token() -> None:
    column = pa.array(["<image>", None, "a<|x_3|>b<seg_image>", "if a < b: <img> <|> | <| x|>", "<|im_end|>", ""])
    clean, hit = tokens.neutralise(column)
    expected = ["< image>", None, "a< |x_3|>b< seg_image>", "if a < b: <img> <|> | <| x|>", "< |im_end|>", ""]
    assert clean.to_pylist() == expected
    assert hit.tolist() == [True, False, True, False, True, False]
    assert clean.type == column.type


def test_neutralise_returns_a_clean_column_itself() -> None:
    column = pa.array(["2 < 3", None])
    clean, hit = tokens.neutralise(column)
    assert clean is column and hit.tolist() == [False, False]
    assert tokens.neutralise(pa.array([None], type=pa.string()))[1].tolist() == [False]
    assert tokens.neutralise(pa.array([], type=pa.string()))[1].tolist() == []


def test_neutralise_knows_every_token_of_ours() -> None:
    ours = {token.content for encoder in reencode.ENCODERS for token in tokens.added_tokens(encoder, 16)}
    column = pa.array(sorted(ours | set(tokens.placeholders().values()) | set(QWEN2_VL_TOKENS)))
    clean, hit = tokens.neutralise(column)
    assert hit.all()
    assert not tokens.neutralise(clean)[1].any()


@given(st.lists(st.sampled_from(["<", ">", "|", "image", "image>", "x_1", " ", "<|x_1|>", "<image>"]), max_size=9))
def test_neutralised_text_holds_no_token(parts: list[str]) -> None:
    text = "".join(parts)
    clean = tokens.neutralise(pa.array([text]))[0]
    assert not tokens.neutralise(clean)[1].any()
    assert clean[0].as_py().replace(" ", "") == text.replace(" ", "")
    assert grid.lint(clean, 8) == {} and all(p not in clean[0].as_py() for p in tokens.placeholders().values())


def test_no_two_encoders_share_a_token() -> None:
    own = [{e.placeholder, e.start, e.control, e.end, e.image_pad} for e in reencode.ENCODERS.values()]
    assert all(not (a & b) for a, b in itertools.combinations(own, 2))


# --- families


def test_every_token_is_of_the_pattern_of_its_family_alone() -> None:
    for name, family in tokens.families().items():
        own = {token.content for token in family.tokens(8)}
        assert (family.start is None or family.start in own) and family.pattern.startswith("<")
        for other, further in tokens.families().items():
            assert all(bool(re.fullmatch(further.pattern, token)) == (other == name) for token in own)


def test_classes_of_labels() -> None:
    assert tokens.label_names() == ("text", "region", "x", "y", "depth", "depth_code", "pixel", "action")


@given(st.integers(1, 12), st.data())
def test_what_may_follow_in_a_region_is_a_region(k: int, data: st.DataObject) -> None:
    family, span = tokens.FAMILIES[tokens.REGION], [grid.START]
    while (choices := family.follow(span, k)) is not None:
        span.append(data.draw(st.sampled_from(choices)))
    assert len(span) == 6 and not family.faults("".join(span), k)
    assert family.follow([grid.START, "and"], k) is None


def test_every_region_can_follow() -> None:
    family = tokens.FAMILIES[tokens.REGION]
    for cells in itertools.product(range(3), repeat=4):
        span = re.findall(r"<\|[a-z_0-9]+\|>", grid.encode([cells], 3)[0].as_py())
        possible = all(token in (family.follow(span[:at], 3) or ()) for at, token in enumerate(span) if at)
        assert possible == (not family.faults("".join(span), 3))


def test_faults_are_those_of_the_own_family() -> None:
    text = "<|x_1|><|seg_action|>"
    found = {name: dict(family.faults(text, 8)) for name, family in tokens.families().items()}
    faulty = {name: faults for name, faults in found.items() if faults}
    assert faulty == {"region": {"region_no_start": 1}, "sam": {"action_missing_start": 1}}


def test_an_unknown_family() -> None:
    with pytest.raises(ValueError, match=r"^family 'depht' is not known, expected one of: region, depth, pixels$"):
        tokens.added_tokens(None, 8, ["depht"])
