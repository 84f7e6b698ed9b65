"""Dialogues, word for word: golden text for a person to read, properties for everything else."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import golden_text
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vpt_data import templates
from vpt_data.errors import CorpusError, RawError, UsageError
from vpt_data.regions import RegionState, inspect_regions, regions_px
from vpt_data.rendering import retarget
from vpt_data.schema import ANNOTATION, SAMPLE, Repair
from vpt_data.templates import Rule, inspect_text, needs_region, render
from vpt_data.tokens import PLACEHOLDERS

BRIEF = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ANY_PLACEHOLDER = re.compile("|".join(PLACEHOLDERS.values()))


def annotation(**values: Any) -> dict[str, Any]:
    """One record; `boxes` and `size` are short for regions and images."""
    boxes, size = values.pop("boxes", []), values.pop("size", (500, 375))
    images = [] if size is None else [{"path": "gqa/images/1.jpg", "width": size[0], "height": size[1]}]
    row: dict[str, Any] = {
        "source": "viscot",
        "dataset": "gqa",
        "split": "train",
        "key": "00ff",
        "source_id": "1",
        "images": images,
        "question": "What's the dog on?",
        "answers": ["pillow", "a pillow"],
        "regions": [{"image": 0, "box": box, "label": None} for box in boxes],
        "region_status": "given" if boxes else "unknown",
        "turns": None,
        "meta": None,
    }
    return row | values


def talk(*texts: str, **values: Any) -> dict[str, Any]:
    """One conversation: texts of user and assistant in turn."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]
    plain = {"source": "llava", "dataset": "coco", "question": None, "answers": [], "turns": turns}
    return annotation(**(plain | values))


def table(*rows: dict[str, Any]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ANNOTATION)


def rule(template: str = "region", **values: Any) -> Rule:
    values.setdefault("encoder", "dino" if template in {"reencode", "alignment"} else None)
    return Rule(take="demo", template=template, task="general", **values)  # type: ignore[arg-type]


def texts(samples: pa.Table, row: int = 0) -> list[str]:
    return [turn["content"] for turn in samples["messages"][row].as_py()]


DOG = annotation(boxes=[[0, 0, 490, 300]])
TWO = annotation(key="two", boxes=[[10, 10, 60, 60], [300, 200, 420, 370], [10, 10, 60, 60]])
SHORT = talk(
    f"<image>\nIs it day?{BRIEF}", "Yes", "Where is the dog?", "On a pillow", "How many?", "2", key="short"
)
TOWER = talk(
    "What type of structure does the clock tower belong to in the image?\n<image>",
    "The clock tower belongs to a church.",
    "Is it old?",
    "It seems so.",
    key="tower",
)
CHOICE = talk(f"<image>\nWhich?\nA. one\nB. two{LETTER}", "B", "And here?\nA. x\nB. y", "A", key="choice")
TEXT_ONLY = talk("Hello", "Hi", "Bye", "Good bye", key="text", size=None)
CAPTION = talk("Describe it.\n<image>", "a dog", key="caption")

GOLDEN: dict[str, tuple[list[dict[str, Any]], Rule, list[int] | None]] = {
    "region": ([DOG, TWO], rule(), None),
    "region_free": ([DOG], rule(prompted=False), None),
    "region_each": ([DOG, TWO], rule(boxes="each"), None),
    "region_k16_margin": ([TWO], rule(k=16, crop_margin_cells=1, boxes="each"), None),
    "region_ask_system": (
        [DOG],
        rule(ask="Look: {question} ({question})", system="You may look twice.", language="en", weight=0.5),
        None,
    ),
    "reencode_question_dino": ([DOG], rule("reencode"), None),
    "reencode_question_sam_two_tokens": ([DOG], rule("reencode", encoder="sam", control_tokens=2), None),
    "reencode_talk_dino": ([TOWER, SHORT], rule("reencode", source_conversations=True), None),
    "reencode_talk_clip_free": (
        [TOWER],
        rule("reencode", encoder="clip", prompted=False, source_conversations=True),
        None,
    ),
    "reencode_talk_each": (
        [SHORT, SHORT, SHORT, CHOICE, TOWER],
        rule("reencode", source_conversations=True, turns="each"),
        [0, 1, 2, 1, 1],
    ),
    "reencode_without_tokens": (
        [SHORT],
        rule("reencode", control_tokens=0, source_conversations=True),
        None,
    ),
    "plain_question": ([DOG], rule("plain"), None),
    "plain_talk_all": (
        [SHORT, TOWER, TEXT_ONLY],
        rule("plain", source_conversations=True, turns="all"),
        None,
    ),
    "plain_talk_first_system": (
        [SHORT, TEXT_ONLY],
        rule("plain", source_conversations=True, system="Be brief."),
        None,
    ),
    "alignment_sam": ([CAPTION], rule("alignment", encoder="sam", source_conversations=True), None),
    "textbox": ([DOG, TWO], rule("textbox"), None),
    "evaluation": ([DOG], rule(expected="region"), None),
    "evaluation_talk": ([TOWER], rule("reencode", expected="reencode", source_conversations=True), None),
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden(name: str, update_golden: bool) -> None:
    rows, how, turn = GOLDEN[name]
    samples = render(table(*rows), how, None if turn is None else np.array(turn, np.int32))
    golden_text.check(name, samples, update_golden)
    check_rules(samples)


def check_rules(samples: pa.Table) -> None:
    """What holds for every sample whatever its template."""
    assert samples.schema.equals(SAMPLE, check_metadata=True)
    samples.validate(full=True)
    for sample in samples.to_pylist():
        roles = [turn["role"] for turn in sample["messages"]]
        assert roles[roles[0] == "system" :] == ["user", "assistant"] * (len(roles) // 2)
        shown = [
            (at, match.group())
            for at, turn in enumerate(sample["messages"])
            for match in ANY_PLACEHOLDER.finditer(turn["content"])
        ]
        assert shown == [(view["turn"], PLACEHOLDERS[view["encoder"]]) for view in sample["views"]]
        assert all(sample["messages"][at]["role"] == "user" for at, _ in shown)
        assert all(view["image"] < len(sample["images"]) for view in sample["views"])
        assert len(sample["images"]) == len(sample["image_info"])
        assert all(image["bytes"] is None for image in sample["images"])


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
    samples = render(table(TOWER), rule("reencode", source_conversations=True))
    assert texts(samples)[:3] == [
        "What type of structure does the clock tower belong to in the image?\n<image>\n"
        "Require additional perception features, and then answer the question.",
        "<|detection_action_start|><|detection_action|><|detection_action_end|>",
        "<detection_image>",
    ]


# ---- the region rule


@pytest.mark.parametrize(
    ("boxes", "size", "state", "repairs"),
    [
        ([[10, 10, 20, 20]], (100, 50), RegionState.OK, 0),
        ([[20, 10, 10, 20]], (100, 50), RegionState.OK, Repair.SWAPPED),
        ([[-5, 10, 20, 70]], (100, 50), RegionState.OK, Repair.CLIPPED),
        ([[10, 10, 10, 20]], (100, 50), RegionState.OK, Repair.ZERO_AREA),
        ([[200, 10, -1, 10]], (100, 50), RegionState.OK, Repair.SWAPPED | Repair.CLIPPED | Repair.ZERO_AREA),
        ([[10, 10, 20, 20], [200, 0, 300, 9]], (100, 50), RegionState.OK, Repair.CLIPPED),
        ([[300, 0, 200, 9]], (100, 50), RegionState.OUTSIDE, 0),
        ([[0, 0, float("nan"), 9]], (100, 50), RegionState.OUTSIDE, 0),
        ([None], (100, 50), RegionState.OUTSIDE, 0),
        ([], (100, 50), RegionState.NONE_GIVEN, 0),
        ([[10, 10, 20, 20]], (None, None), RegionState.NO_SIZE, 0),
        ([[10, 10, 20, 20]], (0, 50), RegionState.NO_SIZE, 0),
        ([[10, 10, 20, 20]], None, RegionState.NO_SIZE, 0),
    ],
)
def test_region_state_and_repairs(
    boxes: list[Any], size: tuple[int, int] | None, state: RegionState, repairs: int
) -> None:
    rows = table(DOG, annotation(boxes=boxes, size=size), DOG)
    flags, status = inspect_regions(rows)
    assert (status.tolist(), flags.tolist()) == ([0, state, 0], [0, repairs, 0])
    assert flags.dtype == np.uint16
    legacy, same = inspect_regions(rows, "legacy")
    assert same.tolist() == status.tolist(), "the edge rule does not decide who is eligible"
    assert legacy[1] == repairs & ~Repair.CLIPPED, "legacy does not clip"


def test_regions_union_each_and_legacy() -> None:
    far = annotation(boxes=[[10, 10, 20, 20], [600, 5, 700, 9], [30, 30, 40, 40], [10, 10, 20, 20]])
    rows = table(annotation(), far)
    assert regions_px(rows).boxes.tolist() == [[10, 10, 40, 40]]
    each = regions_px(rows, "each")
    assert (each.boxes.tolist(), each.row.tolist()) == ([[10, 10, 20, 20], [30, 30, 40, 40]], [1, 1])
    assert regions_px(rows, edge="legacy").boxes.tolist() == [[10, 5, 700, 40]]


def test_regions_keep_to_their_image() -> None:
    row = annotation(size=(500, 375))
    row["images"].append({"path": "b.jpg", "width": 80, "height": 40})
    row["regions"] = [{"image": i, "box": [0, 0, 9, 9 + i], "label": None} for i in (1, 0, 7)]
    union = regions_px(table(row))
    assert (union.image.tolist(), union.sizes.tolist(), union.boxes.tolist()) == ([1], [[80, 40]], [[0, 0, 9, 10]])
    assert regions_px(table(row), "each").image.tolist() == [1, 0]
    samples = render(table(row), rule(boxes="each"))
    check_rules(samples)
    assert [view["image"] for view in samples["views"][0].as_py()] == [0, 1, 1, 0]


def test_regions_of_a_slice_and_of_null_lists() -> None:
    nothing = annotation() | {"regions": None, "images": None}
    rows = pa.concat_tables([table(nothing, DOG), table(TWO, DOG)])
    part = rows.slice(1, 2)
    assert regions_px(part).boxes.tolist() == [[0, 0, 490, 300], [10, 10, 420, 370]]
    assert inspect_regions(rows)[1].tolist() == [1, 0, 0, 0]
    assert render(part, rule()).equals(pa.concat_tables([render(part[i : i + 1], rule()) for i in range(2)]))


def test_legacy_survives_absurd_boxes() -> None:
    samples = render(table(annotation(boxes=[[-1e12, 5, 1e12, 9]])), rule(edge="legacy"))
    assert samples["views"][0][1]["cells"].as_py() == [0, 0, 800, 0]


def test_textbox_crop_holds_a_pixel_and_stays_inside() -> None:
    rows = table(annotation(boxes=[[500, 375, 500, 375]]), annotation(boxes=[[10.9, 20.2, 30.9, 40.9]]))
    samples = render(rows, rule("textbox", prompted=False))
    assert [row[1]["box"] for row in samples["views"].to_pylist()] == [[499, 374, 500, 375], [10, 20, 30, 40]]
    assert texts(samples, 1) == ["<image>\nWhat's the dog on?", "[0.022, 0.164, 0.062, 0.206]", "<image>", "pillow"]


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
        rf"^Take demo, record {row['key']}: a conversation of {found} turns; expected user and assistant in turn, "
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
        ({"template": "reencode", "encoder": None}, r"^Take demo: template reencode needs an encoder: dino, sam or clip\.$"),
        ({"ask": "x", "source_conversations": True}, r"^Take demo: `ask` rewrites questions, but this source gives conversations; drop it\.$"),
        ({"ask": "see <image>: {question}"}, r"^Take demo: `ask` holds a placeholder or special token; take it out\.$"),
        ({"system": "<|im_end|>"}, r"^Take demo: `system` holds a placeholder or special token; take it out\.$"),
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
    assert [needs_region(rule(name)) for name in ("region", "textbox", "plain", "reencode")] == [True, True, False, False]
    assert needs_region(rule("plain", expected="region"))


def test_two_images_are_both_shown() -> None:
    row = annotation()
    row["images"] *= 2
    samples = render(table(row, DOG, TEXT_ONLY | {"question": "Hello", "answers": ["Hi"]}), rule("plain"))
    check_rules(samples)
    assert [texts(samples, i)[0][:17] for i in range(3)] == ["<image>\n<image>\nW", "<image>\nWhat's th", "Hello"]


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
    package = Path(templates.__file__).parent
    holders = [path.name for path in package.rglob("*.py") if "then answer the question" in path.read_text("utf-8")]
    assert holders == ["templates.py"]


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


# ---- another encoder, prompted or free


def every_kind() -> pa.Table:
    parts = [
        render(table(*rows), how, None if turn is None else np.array(turn, np.int32))
        for rows, how, turn in GOLDEN.values()
        if how.encoder in {None, "dino"}
    ]
    return pa.concat_tables(parts)


def test_encoders_round_trip() -> None:
    samples = every_kind()
    clip = retarget(samples, "clip")
    sam = retarget(clip, "sam")
    for part in (clip, sam):
        check_rules(part)
        assert not part.equals(samples)
    assert retarget(sam, "dino").equals(samples)


@pytest.mark.parametrize("encoder", ["sam", "clip"])
def test_retarget_equals_rendering_for_that_encoder(encoder: str) -> None:
    for rows, talks, template in (([DOG], False, "reencode"), ([TOWER], True, "reencode"), ([CAPTION], True, "alignment")):
        for tokens in (1, 3):
            made = [
                render(table(*rows), rule(template, encoder=name, control_tokens=tokens, source_conversations=talks))
                for name in ("dino", encoder)
            ]
            assert retarget(made[0], encoder).equals(made[1])


def test_prompts_round_trip() -> None:
    samples = every_kind()
    talks = frozenset({"llava"})
    free = retarget(samples, prompted=False, conversations=talks)
    assert not any(free["prompted"].to_pylist())
    assert not any("then answer" in text for i in range(free.num_rows) for text in texts(free, i))
    was_free = samples.filter(samples["prompted"])
    back = retarget(free.filter(samples["prompted"]), prompted=True, conversations=talks)
    assert back.equals(was_free)
    assert retarget(back, prompted=True, conversations=talks).equals(back)


@pytest.mark.parametrize("template", ["region", "reencode", "textbox"])
def test_free_equals_rendering_free(template: str) -> None:
    prompted, free = (render(table(DOG, TWO), rule(template, prompted=state)) for state in (True, False))
    assert retarget(prompted, prompted=False).equals(free)
    assert retarget(free, prompted=True).equals(prompted)


def test_retarget_leaves_free_text_alone() -> None:
    call = "<|detection_action_start|><|detection_action|><|detection_action_end|>"
    samples = render(table(talk("<image>\nx", "y")), rule("plain", source_conversations=True))
    spoken = [
        {"role": "user", "content": call},
        {"role": "assistant", "content": f"{call}."},
        {"role": "user", "content": "see <detection_image>"},
        {"role": "assistant", "content": "<detection_image>"},
    ]
    at = samples.schema.get_field_index("messages")
    samples = samples.set_column(at, SAMPLE.field(at), pa.array([spoken], SAMPLE.field(at).type))
    assert retarget(samples, "sam", False).equals(samples)


def test_retarget_says_which_sample_lacks_its_prompt() -> None:
    samples = render(table(TOWER), rule("reencode", source_conversations=True))
    message = r"^Sample demo/tower: marked as prompted, but its question does not end with ' \\nRequire additional"
    with pytest.raises(CorpusError, match=message):
        retarget(samples, prompted=False)


# ---- real rows


def test_vsr_training_file(shared: Path) -> None:
    path = shared / "data/raw/visual_cot/viscot_dataset/vsr_cot_train.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        records = [json.loads(line) for line in lines]
    rows = table(*(
        annotation(
            key=str(i), question=r["question"], answers=[r["answer"]], boxes=r["bboxs"], size=(r["width"], r["height"])
        )
        for i, r in enumerate(records)
    ))
    assert set(inspect_regions(rows)[1]) == {RegionState.OK}
    cells = {}
    for edge in ("floor", "legacy"):
        samples = render(rows, rule(edge=edge))
        cells[edge] = np.array([views[1]["cells"] for views in samples["views"].to_pylist()])
        if edge == "floor":
            check_rules(samples)
    assert len(cells["floor"]) == 3376
    assert (cells["floor"] <= 7).all()
    assert (cells["legacy"] >= 8).any(axis=1).sum() == 986
