"""Annotations, takes and the rules every sample keeps, for the tests of templates, regions and rendering."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa

from vpt_data.dialogue.rule import RenderRule
from vpt_data.dialogue.tokens import placeholders
from vpt_data.schema import ANNOTATION, SAMPLE

BRIEF = "\nAnswer the question using a single word or phrase."
LETTER = "\nAnswer with the option's letter from the given choices directly."
ANY_PLACEHOLDER = re.compile("|".join(placeholders().values()))


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


def rule(template: str = "region", **values: Any) -> RenderRule:
    values.setdefault("encoder", "dino" if template in {"reencode", "alignment"} else None)
    return RenderRule(take="demo", template=template, task="general", **values)  # type: ignore[arg-type]


def texts(samples: pa.Table, row: int = 0) -> list[str]:
    return [turn["content"] for turn in samples["messages"][row].as_py()]


DOG = annotation(boxes=[[0, 0, 490, 300]])
TWO = annotation(key="two", boxes=[[10, 10, 60, 60], [300, 200, 420, 370], [10, 10, 60, 60]])
SHORT = talk(f"<image>\nIs it day?{BRIEF}", "Yes", "Where is the dog?", "On a pillow", "How many?", "2", key="short")
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

GOLDEN: dict[str, tuple[list[dict[str, Any]], RenderRule, list[int] | None]] = {
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
        assert shown == [(view["turn"], placeholders()[view["encoder"]]) for view in sample["views"]]
        assert all(sample["messages"][at]["role"] == "user" for at, _ in shown)
        assert all(view["image"] < len(sample["images"]) for view in sample["views"])
        assert len(sample["images"]) == len(sample["image_info"])
        assert all(image["bytes"] is None for image in sample["images"])
