"""Dialogues, word for word: golden text for a person to read, properties for everything else."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import golden_text
from helpers.template_cases import (
    BRIEF,
    DOG,
    GOLDEN,
    SHORT,
    TEXT_ONLY,
    TOWER,
    annotation,
    check_rules,
    rule,
    table,
    talk,
    texts,
)
from hypothesis import given
from hypothesis import strategies as st

from vpt_data.dialogue import templates
from vpt_data.dialogue.regions import inspect_regions
from vpt_data.dialogue.render import inspect_text, render
from vpt_data.dialogue.retarget import retarget
from vpt_data.dialogue.templates import needs_region
from vpt_data.errors import RawError, UsageError


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, update_golden: bool) -> None:
    rows, how, turn = GOLDEN[name]
    samples = render(table(*rows), how, None if turn is None else np.array(turn, np.int32))
    golden_text.check(name, samples, update_golden)
    check_rules(samples)


# ---- the two published rows


def published(edge: str) -> dict[str, Any]:
    dog = annotation(boxes=[[0, 0, 500, 300]])
    sample: dict[str, Any] = render(table(dog), rule(edge=edge)).to_pylist()[0]
    return sample


@pytest.mark.parametrize(("edge", "col", "crop"), [("legacy", 8, [0, 0, 562, 328]), ("floor", 7, [0, 0, 500, 328])])
def test_published_region_row(edge: str, col: int, crop: list[int]) -> None:
    sample = published(edge)
    prompt = "Identify the region that can help you answer the question, and then answer the question."
    assert sample["messages"] == [
        {"role": "user", "content": f"<image>\nWhat's the dog on? \n{prompt}"},
        {
            "role": "assistant",
            "content": f"<|region_token_start|><|x_0|><|y_0|><|x_{col}|><|y_6|><|region_token_end|>",
        },
        {"role": "user", "content": "<image>"},
        {"role": "assistant", "content": "pillow"},
    ]
    assert [view["box"] for view in sample["views"]] == [None, crop]
    assert sample["views"][1]["cells"] == [0, 0, col, 6]


def test_published_action_row() -> None:
    prompt = "Require additional perception features, and then answer the question."
    samples = render(table(TOWER), rule("reencode", source_conversations=True))
    assert texts(samples)[:3] == [
        f"What type of structure does the clock tower belong to in the image?\n<image>\n{prompt}",
        "<|detection_action_start|><|detection_action|><|detection_action_end|>",
        "<detection_image>",
    ]


def test_textbox_crop_holds_a_pixel_and_stays_inside() -> None:
    rows = table(annotation(boxes=[[500, 375, 500, 375]]), annotation(boxes=[[10.9, 20.2, 30.9, 40.9]]))
    samples = render(rows, rule("textbox", prompted=False))
    assert [row[1]["box"] for row in samples["views"].to_pylist()] == [[499, 374, 500, 375], [10, 20, 30, 40]]
    assert texts(samples, 1) == [
        "<image>\nWhat's the dog on?",
        "[0.022, 0.164, 0.062, 0.206]",
        "<image>",
        "pillow",
    ]


# ---- text


def test_literal_tokens_are_neutralised_and_found() -> None:
    rows = table(
        DOG,
        annotation(boxes=[[0, 0, 9, 9]], question="is <image> here", answers=["<|x_3|>", "ok"]),
        annotation(boxes=[[0, 0, 9, 9]], answers=["fine", "<|x_3|>"]),
    )
    assert inspect_text(rows).tolist() == [False, True, False]
    samples = render(rows, rule(prompted=False))
    check_rules(samples)
    assert texts(samples, 1)[0::3] == ["<image>\nis < image> here", "< |x_3|>"]
    assert samples["question"][1].as_py() == "is <image> here"
    assert samples["answers"][1].as_py() == ["<|x_3|>", "ok"]


@pytest.mark.parametrize(
    ("opening", "size", "hit", "shown"),
    [
        ("<image>\nq", (9, 9), False, "<image>\nq"),
        ("q\n<image>", (9, 9), False, "q\n<image>"),
        ("<image>", (9, 9), False, "<image>"),
        ("q", (9, 9), False, "<image>\nq"),
        ("<image><image>\nq", (9, 9), True, "<image>< image>\nq"),
        ("<image>\nq\n<image>", (9, 9), True, "<image>\nq\n< image>"),
        ("a <image> b", (9, 9), True, "<image>\na < image> b"),
        ("<image>\nq", None, True, "< image>\nq"),
        ("<image>\n<seg_image>", (9, 9), True, "<image>\n< seg_image>"),
    ],
)
def test_the_place_of_the_image(opening: str, size: tuple[int, int] | None, hit: bool, shown: str) -> None:
    rows = table(talk("<image>\nx", "y", "z", "w"), talk(opening, "yes", size=size), DOG)
    assert inspect_text(rows).tolist() == [False, hit, False]
    samples = render(rows.slice(0, 2), rule("plain", source_conversations=True, turns="all"))
    check_rules(samples)
    assert texts(samples, 1) == [shown, "yes"]


def test_literals_in_later_turns() -> None:
    rows = table(SHORT, talk("<image>\na", "b", "<image> c", "<|y_1|>"), TEXT_ONLY)
    assert inspect_text(rows).tolist() == [False, True, False]
    samples = render(rows, rule("plain", source_conversations=True, turns="all"))
    check_rules(samples)
    assert texts(samples, 1) == ["<image>\na", "b", "< image> c", "< |y_1|>"]


def test_a_system_turn_of_the_conversation_stays_unless_the_take_has_one() -> None:
    row = talk("<image>\na", "b", "c", "d")
    row["turns"].insert(0, {"role": "system", "content": "Own <image>."})
    rows = table(SHORT, row)
    assert inspect_text(rows).tolist() == [False, True]
    for turns in ("all", "first"):
        samples = render(rows, rule("plain", source_conversations=True, turns=turns))
        check_rules(samples)
        assert texts(samples, 1)[:3] == ["Own < image>.", "<image>\na", "b"]
    samples = render(rows, rule("reencode", source_conversations=True, system="Ours."))
    check_rules(samples)
    assert texts(samples, 1)[0] == texts(samples, 0)[0] == "Ours."


def test_split_turns_repeat_no_suffix_they_have() -> None:
    row = talk(f"<image>\na{BRIEF}", "b", f"c{BRIEF}", "d", "e", "f", size=None)
    how = rule("plain", source_conversations=True, turns="each")
    samples = render(table(row, row, row), how, np.array([1, 2, -1], np.int32))
    assert [texts(samples, i)[0] for i in (0, 1)] == [f"c{BRIEF}", f"e{BRIEF}"]
    assert samples["id"].to_pylist() == ["demo/00ff#1", "demo/00ff#2", "demo/00ff"]
    assert samples["answers"].to_pylist() == [["d"], ["f"], ["b"]]


def test_given_answers_of_a_conversation_stay_with_its_first_question() -> None:
    row = SHORT | {"answers": ["Yes", "yes it is"]}
    how = rule("plain", source_conversations=True, turns="each")
    samples = render(table(row, row), how, np.array([0, 1], np.int32))
    assert samples["answers"].to_pylist() == [["Yes", "yes it is"], ["On a pillow"]]


@pytest.mark.parametrize(
    ("row", "turn", "found", "needed"),
    [
        (talk("a", "b", "c"), 0, 3, 2),
        (talk("a", "b"), 1, 2, 4),
        (annotation(), 0, 0, 2),
        (talk("a", "b") | {"turns": [{"role": "assistant", "content": "a"}] * 2}, 0, 2, 2),
    ],
)
def test_broken_conversations_are_refused(row: dict[str, Any], turn: int, found: int, needed: int) -> None:
    how = rule("plain", source_conversations=True)
    message = (
        rf"^Take demo, record {row['key']}: a conversation of {found} turns; "
        rf"expected user and assistant in turn, "
        rf"and at least {needed} of them; the reader should have dropped it\.$"
    )
    with pytest.raises(RawError, match=message):
        render(table(SHORT, row), how, np.array([0, turn], np.int32))


def test_a_second_look_needs_an_image() -> None:
    with pytest.raises(UsageError, match=r"^Take demo: 1 records have no image, but template reencode needs one; take"):
        render(table(SHORT, TEXT_ONLY), rule("reencode", source_conversations=True))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"template": "reencode", "encoder": None},
            r"^Take demo: template reencode needs an encoder; set encoder to one of dino, sam, clip\.$",
        ),
        (
            {"ask": "x", "source_conversations": True},
            r"^Take demo: `ask` rewrites questions, but this source gives conversations; remove it\.$",
        ),
        (
            {"ask": "see <image>: {question}"},
            r"^Take demo: `ask` holds a placeholder or special token; remove that\.$",
        ),
        (
            {"system": "<|im_end|>"},
            r"^Take demo: `system` holds a placeholder or special token; remove that\.$",
        ),
    ],
)
def test_rules_that_cannot_be(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        rule(**values)


def test_ask_without_the_question() -> None:
    samples = render(table(DOG), rule("plain", ask="Describe the picture."))
    assert texts(samples) == ["<image>\nDescribe the picture.", "pillow"]
    assert samples["question"].to_pylist() == ["Describe the picture."]


def test_needs_region() -> None:
    assert [needs_region(rule(name)) for name in ("region", "textbox", "plain", "reencode")] == [
        True,
        True,
        False,
        False,
    ]
    assert not needs_region(rule("plain", expected="region"))  # evaluation rows stay, with their status


def test_two_images_are_both_shown() -> None:
    row = annotation()
    row["images"] *= 2
    samples = render(table(row, DOG, TEXT_ONLY | {"question": "Hello", "answers": ["Hi"]}), rule("plain"))
    check_rules(samples)
    assert [texts(samples, i)[0][:17] for i in range(3)] == [
        "<image>\n<image>\nW",
        "<image>\nWhat's th",
        "Hello",
    ]


def test_missing_text_and_no_rows() -> None:
    blank = annotation(question=None, answers=[], meta=None, source_id=None)
    samples = render(table(blank), rule("plain"))
    check_rules(samples)
    assert texts(samples) == ["<image>\n", ""]
    assert samples["question"].to_pylist() == [None]
    for _, how, _ in GOLDEN.values():
        empty = render(table(), how)
        check_rules(empty)
        assert retarget(empty, "sam", False).num_rows == 0
    assert inspect_text(table()).tolist() == []
    assert [part.tolist() for part in inspect_regions(table())] == [[], []]


def test_prompts_are_in_one_module() -> None:
    package = Path(templates.__file__).parents[1]
    holders = [path.name for path in package.rglob("*.py") if "then answer the question" in path.read_text("utf-8")]
    assert holders == ["prompts.py"]


word = st.sampled_from(["<image>", "<|x_1|>", "a", "\n", "<seg_image>", " ", "é", "<", "|>"])
phrase = st.lists(word, max_size=5).map("".join)


@given(st.lists(st.lists(phrase, min_size=1, max_size=3), min_size=1, max_size=4), st.booleans())
def test_any_text_gives_a_sound_dialogue(conversations: list[list[str]], has_image: bool) -> None:
    size = (9, 9) if has_image else None
    rows = table(*(talk(*(turn for text in each for turn in (text, text)), size=size) for each in conversations))
    samples = render(rows, rule("plain", source_conversations=True, turns="all", system="s"))
    check_rules(samples)
    for sample, hit in zip(samples.to_pylist(), inspect_text(rows), strict=True):
        texts = "".join(turn["content"] for turn in sample["messages"])
        assert (("< image>" in texts) or ("< |x_1" in texts) or ("< seg" in texts)) == hit


def test_real_conversations_come_out_verbatim(shared: Path) -> None:
    path = shared / "data/raw/llava/llava_v1_5_mix665k.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    said = [[turn["value"] for turn in record["conversations"]] for record in records]
    rows = table(*(talk(*each, key=str(i)) for i, each in enumerate(said)))
    assert len(said) == 600
    assert not inspect_text(rows).any()
    samples = render(rows, rule("plain", source_conversations=True, turns="all"))
    check_rules(samples)
    assert [texts(samples, i) for i in range(len(said))] == said


def test_a_whole_conversation_goes_on_behind_the_look() -> None:
    """All question-answer pairs stay, as in plain rows: the look stands before the first answer and nothing is lost."""
    rows = table(talk("What is it?\n<image>", "A <|x_1|> tower.", "How old?", "Very old."), talk("Where?", "Here."))
    how = {"source_conversations": True, "turns": "all"}
    samples = render(rows, rule("reencode", **how))
    check_rules(samples)
    prompt = "Require additional perception features, and then answer the question."
    assert texts(samples, 0) == [
        f"What is it?\n<image>\n{prompt}",
        "<|detection_action_start|><|detection_action|><|detection_action_end|>",
        "<detection_image>",
        "A < |x_1|> tower.",
        "How old?",
        "Very old.",
    ]
    plain = render(rows, rule("plain", **how))
    for row in range(2):
        assert texts(samples, row)[3:] == texts(plain, row)[1:]
    assert [[view["turn"] for view in views] for views in samples["views"].to_pylist()] == [[0, 2], [0, 2]]
