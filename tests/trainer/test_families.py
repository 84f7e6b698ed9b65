"""A family of tokens is one entry of the table: a made-up one is trained, reported and generated with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from loaders import TEXTS, row, row_encoder
from PIL import Image

from trainer import config
from trainer.data.encode import RowEncoder, Unfit
from trainer.data.sample import Sample
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Record, before_answer
from trainer.generation.policy import Dialog, Policy
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from vpt_data.dialogue import tokens
from vpt_data.dialogue.tokens import FAMILIES, REGION
from vpt_data.dialogue.tokens.family import Family, Token
from vpt_data.errors import UsageError

torch.set_num_threads(1)

START, END, CODES = "<HEIGHT_START>", "<HEIGHT_END>", [f"<HEIGHT_{n}>" for n in range(4)]
SPAN = 6  # codes between start and end


def follow(span: Sequence[str], _: int) -> Sequence[str] | None:
    if END in span:
        return None
    return [END] if len(span) > SPAN else CODES


def faults(text: str, _: int) -> Counter[str]:
    spans = [part.partition(END)[0] for part in text.split(START)[1:]]
    return Counter("height_wrong_count" for span in spans if span.count("<HEIGHT_") != SPAN)


@pytest.fixture
def heights(monkeypatch: pytest.MonkeyPatch) -> Family:
    words = [Token(START, "height"), Token(END, "height"), *(Token(code, "height_code") for code in CODES)]
    made = Family(lambda _: words, "<HEIGHT_([0-9]+|START|END)>", START, follow, faults)
    monkeypatch.setitem(FAMILIES, "heights", made)
    return made


SPOKEN = START + "".join(CODES[n] for n in (0, 1, 2, 3, 1, 0)) + END


def learned_row(answer: str = f"The map is {SPOKEN}. So A.") -> dict[str, Any]:
    return row("a/1", "<image>\nWhich point is higher?", answer, views=[{"turn": 0}])


def encoder(families: Sequence[str] = (REGION, "heights")) -> tuple[RowEncoder, Any]:
    tokenizer = tiny_tokenizer([*TEXTS, "The map is . So A."], "dino", families=families)
    return RowEncoder(tokenizer.backend_tokenizer, tiny_vision(), cutoff=512), tokenizer


def with_pixels(encoder: RowEncoder, sample: Sample) -> Sample:
    image = Image.new("RGB", (80, 60), "red")
    vision = encoder.vision
    return sample.with_pixels([vision.pixels(slot.kind, vision.picture(slot.kind, image)) for slot in sample.slots])


def test_its_tokens_come_after_those_of_the_families_before(heights: Family) -> None:
    added = [token.content for token in tokens.added_tokens("dino", 2, (REGION, "heights"))]
    assert added[0] == "<|detection_image_pad|>"
    assert added[1:7] == [token.content for token in FAMILIES[REGION].tokens(2)]
    assert added[7:13] == [START, END, *CODES]
    assert added[13:] == ["<|detection_action_start|>", "<|detection_action|>", "<|detection_action_end|>"]
    assert [token.content for token in tokens.added_tokens(None, 2, ("heights",))] == [START, END, *CODES]


def test_a_configuration_names_it(heights: Family) -> None:
    assert config.load("tiny").model.families == [REGION]
    assert config.load("tiny", ['model.families=["region", "heights"]']).model.families == [REGION, "heights"]
    with pytest.raises(UsageError, match=r"Unknown value of model.families 'hights'; did you mean heights\?"):
        config.load("tiny", ['model.families=["hights"]'])


def test_its_tokens_are_labels_of_its_own_classes(heights: Family) -> None:
    made, _ = encoder()
    sample = made.encode(learned_row())
    names = tokens.label_names()
    spoken = [names[number] for number in sample.classes.tolist() if names[number].startswith("height")]
    assert spoken == ["height", *["height_code"] * SPAN, "height"]


def test_a_model_learns_it_and_reports_it_by_class(heights: Family) -> None:
    torch.manual_seed(0)
    made, tokenizer = encoder()
    model = tiny_model(tokenizer, ["dino"]).train()
    sample = with_pixels(made, made.encode(learned_row()))
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for _ in range(60):
        optimizer.zero_grad()
        out = model([sample])
        (out.loss / out.labels).backward()
        optimizer.step()
    right = dict(zip(tokens.label_names(), zip(out.correct.tolist(), out.total.tolist(), strict=True), strict=True))
    assert (right["height"], right["height_code"]) == ((2, 2), (SPAN, SPAN))
    assert said(model, made).text == learned_row()["messages"][1]["content"]


def said(model: VPTModel, made: RowEncoder, policy: Policy | None = None, **how: Any) -> Record:
    """What a model says to the question of the row."""
    asked = {**before_answer(learned_row()), "images": [Image.new("RGB", (80, 60), "red")]}
    [found] = answer(model, made, [asked], Decoding(max_new_tokens=40, **how), policy)
    return found


class Begins(Policy):
    def prefix(self, dialog: Dialog) -> str:
        return f"The map is {START}"


def test_with_grammar_a_model_that_has_learned_nothing_says_it_in_order(heights: Family) -> None:
    made, tokenizer = encoder()
    torch.manual_seed(0)
    model = tiny_model(tokenizer, ["dino"])
    wild, strict = (said(model, made, Begins(), grammar=on, temperature=5.0) for on in (False, True))
    assert wild.invalid["height_wrong_count"] == 1
    span = strict.turns[0].partition(START)[2].partition(END)[0]
    assert span.count("<HEIGHT_") == SPAN and re.fullmatch(r"(<HEIGHT_[0-3]>)+", span)
    assert "height_wrong_count" not in strict.invalid


def test_without_it_its_strings_are_refused_and_not_cut_into_pieces(heights: Family) -> None:
    made, _ = encoder((REGION,))
    with pytest.raises(UsageError) as caught:
        made.encode(learned_row())
    assert str(caught.value) == (
        "Sample a/1: holds <HEIGHT_START> of the family heights, and the tokenizer has region, dino; set "
        "model.families or model.encoder, or give another corpus"
    )
    with pytest.raises(UsageError, match=r"holds <\|seg_action\|> of the family sam"):
        row_encoder("dino").encode(row("a/1", "What?", "<|seg_action|>"))


def test_an_index_that_the_family_does_not_have_makes_a_row_unfit(heights: Family) -> None:
    made, _ = encoder()
    for wrong, family in (("<HEIGHT_4>", "heights"), ("<|x_8|>", "region")):
        with pytest.raises(Unfit) as caught:
            made.encode(learned_row(f"The map is {wrong}"))
        assert (caught.value.reason, caught.value.detail) == (
            "malformed",
            f"a text holds {wrong}, which is no token of the family {family}",
        )


def test_literals_in_source_texts_are_defused(heights: Family) -> None:
    import pyarrow as pa

    clean, hit = tokens.neutralise(pa.array(["see <HEIGHT_2>", "a < b", "<|x_1|>"]))
    assert (clean.to_pylist(), hit.tolist()) == (["see < HEIGHT_2>", "a < b", "< |x_1|>"], [True, False, True])
