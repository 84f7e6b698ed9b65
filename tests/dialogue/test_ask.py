"""`ask`: the words of a record that a question of a recipe may hold, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import end_to_end
from helpers.template_cases import annotation, check_rules, rule, table, texts

from vpt_data.dialogue.render import render
from vpt_data.errors import UsageError

CAR = {"image": 0, "box": [0, 0, 90, 90], "label": "car"}
BUS = {"image": 0, "box": [100, 0, 190, 90], "label": "<|x_1|> bus"}
NAMELESS = {"image": 0, "box": [0, 100, 90, 190], "label": None}
OWN = end_to_end.OWN.replace('columns = { box = "box",', 'columns = { box = "box", label = "name",')


def question(text: str, *regions: dict[str, object]) -> str:
    """The first user turn of a record with these regions, without the image."""
    samples = render(table(annotation(regions=list(regions))), rule("region", ask=text, prompted=False))
    check_rules(samples)
    return texts(samples)[0].removeprefix("<image>\n")


def test_the_words_of_a_record_are_filled_in() -> None:
    assert question("Where is the {label}?", CAR) == "Where is the car?"
    assert question("{category}: {question}", CAR) == "car: What's the dog on?"
    assert question("{label} {label}", CAR) == "car car"
    assert question("No word {at all", CAR) == "No word {at all"


def test_the_image_comes_last_where_the_text_says_so() -> None:
    assert question("{question} {image}", CAR) == "What's the dog on?\n<image>"
    assert question("{question} Look.{image}", CAR) == "What's the dog on? Look.\n<image>"
    with pytest.raises(UsageError, match=r"`ask` holds \{image\}"):
        rule("region", ask="{image} {question}")


def test_each_label_is_named_once_in_the_order_of_the_boxes() -> None:
    assert question("Where: {label}?", BUS, NAMELESS, CAR, BUS, CAR) == "Where: < |x_1|> bus, car?"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "Where is the {lable}?",
            "{lable}, and only {question}, {label}, {category} can be filled in; did you mean label?",
        ),
        ("Is it {}?", "{}, and only {question}, {label}, {category} can be filled in."),
        ("{label} {xyz}", "{xyz}, and only {question}, {label}, {category} can be filled in."),
    ],
)
def test_a_word_that_nothing_stands_for_is_refused(text: str, expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        rule("region", ask=text)
    assert str(caught.value) == f"Take demo: `ask` holds {expected}"


def test_a_record_without_a_label_is_dropped_with_the_reason(tmp_path: Path) -> None:
    """Only by the take that asks for it."""
    records = end_to_end.own_rows(6)
    for number, record in enumerate(records):
        record["name"] = "lamp" if number % 2 else None
    raw = end_to_end.own_root(tmp_path / "raw", records)
    recipe = end_to_end.recipe_file(tmp_path, OWN)
    corpus = end_to_end.build(recipe, raw, tmp_path / "out", "take.mine.ask=Where is the {label}?")
    assert end_to_end.account(corpus)["mine"].dropped == {"no_region_left": 3}
    assert {drop["detail"] for drop in end_to_end.drops(corpus)} == {"`ask` names the label, and no box has one"}
    assert {row["question"] for row in end_to_end.rows(corpus)} == {"Where is the lamp?"}
    other = end_to_end.build(recipe, raw, tmp_path / "other", "take.mine.ask=See: {question}")
    assert end_to_end.account(other)["mine"].kept == 6


def test_tokens_in_labels_are_neutralised_and_counted_where_they_are_asked_for(tmp_path: Path) -> None:
    records = [row | {"name": name} for row, name in zip(end_to_end.own_rows(2), ("lamp <|x_3|>", "lamp"), strict=True)]
    raw = end_to_end.own_root(tmp_path / "raw", records)
    recipe = end_to_end.recipe_file(tmp_path, OWN)
    corpus = end_to_end.build(recipe, raw, tmp_path / "out", "take.mine.ask=Where is the {label}?")
    assert end_to_end.account(corpus)["mine"].repaired == {"neutralised": 1}
    first_turns = {row["messages"][0]["content"].split("\n")[1].strip() for row in end_to_end.rows(corpus)}
    assert first_turns == {"Where is the lamp < |x_3|>?", "Where is the lamp?"}
    other = end_to_end.build(recipe, raw, tmp_path / "other", "take.mine.ask=See: {question}")
    assert end_to_end.account(other)["mine"].repaired == {}


def test_no_token_is_put_together_of_words() -> None:
    """Neither the recipe's words nor the label holds one."""
    assert question("<{label}>?", CAR | {"label": "image"}) == "< image>?"


def test_the_question_must_be_in_the_file_where_it_is_filled_in(tmp_path: Path) -> None:
    records = [{key: value for key, value in row.items() if key != "question"} for row in end_to_end.own_rows(2)]
    raw = end_to_end.own_root(tmp_path / "raw", records)
    recipe = end_to_end.recipe_file(tmp_path, end_to_end.OWN)
    with pytest.raises(UsageError, match=r"columns\.question"):
        end_to_end.build(recipe, raw, tmp_path / "out", "take.mine.ask=See: {question}")
    corpus = end_to_end.build(recipe, raw, tmp_path / "free", "take.mine.ask=What is here?")
    assert {row["question"] for row in end_to_end.rows(corpus)} == {"What is here?"}
