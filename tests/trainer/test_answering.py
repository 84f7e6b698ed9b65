"""What an intervention can change, and what happens to rows that cannot be asked."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers import end_to_end
from loaders import TEXTS, row, row_encoder
from PIL import Image
from torch import Tensor

from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Ended, Record, Row, Shown, before_answer, question
from trainer.generation.policy import Dialog, Policy
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import grid, reencode
from vpt_data.errors import UsageError, VptDataError

torch.set_num_threads(1)

REGION = grid.encode([[1, 2, 3, 4]], 8)[0].as_py()
CALL = reencode.action_turn("dino")
END = "<|im_end|>"
SHORT = Decoding(max_new_tokens=20)


@pytest.fixture(scope="module")
def tiny() -> VPTModel:
    torch.manual_seed(0)
    return tiny_model(tiny_tokenizer(TEXTS, "dino"), ["dino"])


def asked(number: int = 0, size: tuple[int, int] = (80, 61)) -> Row:
    return question(Image.linear_gradient("L").resize(size), "What is it? " * (1 + number % 3), id=f"a/{number}")


def ask(model: VPTModel, rows: Sequence[Row], *policy: Policy, how: Decoding = SHORT, **more: Any) -> list[Record]:
    return list(answer(model, row_encoder(), rows, how, *policy, **more))


def only(*tokens: str) -> Tensor:
    mask = torch.zeros(row_encoder().tokenizer.get_vocab_size(), dtype=torch.bool)
    mask[[row_encoder().token_id(token) for token in tokens]] = True
    return mask


class Says(Policy):
    """Says turns for the model."""

    def __init__(self, *turns: str) -> None:
        self.turns = turns

    def prefix(self, dialog: Dialog) -> str:
        return self.turns[len(dialog.turns)] if len(dialog.turns) < len(self.turns) else ""


def test_turns_are_said_for_the_model(tiny: VPTModel) -> None:
    [found] = ask(tiny, [asked()], Says(REGION + END, "A red dog." + END))
    assert (found.turns, found.ended) == ((REGION, "A red dog."), Ended.END_OF_TURN)
    assert found.looks == (Shown("region", (1, 2, 3, 4), (10, 15, 40, 38)),)
    assert found.logprob == 0.0, "it chose nothing"
    [begun] = ask(tiny, [asked()], Says("", "A red"))
    assert begun.turns[0] == ask(tiny, [asked()])[0].turns[0]


def test_a_call_is_said_whole_or_by_its_start(tiny: VPTModel) -> None:
    [whole], [start] = (ask(tiny, [asked()], Says(text)) for text in (CALL, reencode.ENCODERS["dino"].start))
    assert whole == start == ask(tiny, [asked()], how=replace(SHORT, force="dino"))[0]
    assert whole.turns[0].startswith(CALL)


class Routes(Says):
    """Calls DINO and then ends its turn, with other control vectors on some of their routes."""

    def __init__(self, fed: bool, steering: bool | None) -> None:
        super().__init__(CALL + END)
        self.fed, self.steering = fed, steering
        self.seen: list[tuple[set[str], list[str], tuple[int, ...]]] = []

    def vectors(self, vectors: Tensor, dialogs: Sequence[Dialog], kinds: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        self.seen.append(({dialog.row["id"] for dialog in dialogs}, list(kinds), tuple(vectors.shape)))
        other = vectors.roll(1, dims=-1)
        steering = None if self.steering is None else other if self.steering else vectors
        return other if self.fed else vectors, steering

    def allowed(self, dialog: Dialog) -> Tensor | None:
        return only(END)


def test_control_vectors_of_a_batch_change_by_their_two_routes(tiny: VPTModel) -> None:
    rows = [asked(number) for number in range(3)]
    results = []
    for routes in ((False, False), (True, False), (False, True), (True, True), (False, None)):
        policy = Routes(*routes)
        results.append(tuple(one.logprob for one in ask(tiny, rows, policy)))
        assert policy.seen == [({"a/0", "a/1", "a/2"}, ["dino"] * 3, (3, 1, 64))]
    for number, scores in enumerate(results):
        assert all(max(abs(a - b) for a, b in zip(scores, other, strict=True)) > 1e-4 for other in results[:number])


class Shows(Policy):
    def __init__(self, *images: Image.Image) -> None:
        self.images, self.asked = list(images), []

    def prefix(self, dialog: Dialog) -> str:
        return "" if dialog.turns else REGION + END

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        self.asked.append((dialog.row["id"], tuple(looks)))
        return self.images


def test_a_policy_shows_another_picture_and_the_record_keeps_what_was_asked(tiny: VPTModel) -> None:
    small, large = Image.new("RGB", (56, 28), "red"), Image.new("RGB", (112, 112), "red")
    policies = Says(REGION + END), Shows(small), Shows(large), Shows()
    [own], [less], [more], [none] = (ask(tiny, [asked()], policy) for policy in policies)
    assert own.looks == less.looks == more.looks == none.looks == (Shown("region", (1, 2, 3, 4), (10, 15, 40, 38)),)
    sizes = ((30, 23), (56, 28), (112, 112))
    shown = zip((own, less, more), sizes, strict=True)
    rest = {one.prompt_tokens - tiny_vision().tokens("vlm", size)[0] for one, size in shown}
    assert len(rest) == 1 and none.prompt_tokens < rest.pop() - 4, "without a picture there is no user turn"
    with pytest.raises(VptDataError, match=r"^Sample a/0: the policy shows 2 pictures for 1 looks; let it show one"):
        ask(tiny, [asked()], Shows(small, small))


def test_records_count_what_was_changed_and_keep_the_vectors(tiny: VPTModel) -> None:
    own = asked()["images"][0].crop((10, 15, 40, 38)).convert("RGB")
    policies = Policy(), Shows(own), Shows(Image.new("RGB", (30, 23), "red")), Shows()
    assert [ask(tiny, [asked()], policy)[0].intervened for policy in policies] == [0, 1, 2, 2], "each says a region"
    assert [ask(tiny, [asked()], Routes(*routes))[0].intervened for routes in ((False, False), (True, False))] == [1, 2]
    assert ask(tiny, [asked()], Routes(False, None))[0].intervened == 2
    [changed], [plain] = ask(tiny, [asked()], Routes(True, True)), ask(tiny, [asked()], Says(CALL + END))
    assert [(one.kind, one.values.shape) for one in plain.controls] == [("dino", (1, 64))]
    assert (changed.controls[0].values == plain.controls[0].values).all(), "as the model made them"


class Allows(Policy):
    """Only some tokens from place `first` of a turn to place `last`."""

    def __init__(self, *tokens: str, first: int = 0, last: int = 99) -> None:
        self.mask, self.first, self.last = only(*tokens), first, last

    def allowed(self, dialog: Dialog) -> Tensor | None:
        return self.mask if self.first <= len(dialog.turn) <= self.last else None


def test_a_policy_allows_some_tokens(tiny: VPTModel) -> None:
    [found] = ask(tiny, [asked()], Allows("<|x_1|>", last=2))
    assert found.turns[0].startswith("<|x_1|>" * 3) and not found.turns[0].startswith("<|x_1|>" * 4)
    with pytest.raises(VptDataError, match=r"^Sample a/0: no token is allowed; let the policy allow one at least\.$"):
        ask(tiny, [asked()], Allows())


def test_with_grammar_every_region_is_one(tiny: VPTModel) -> None:
    rows, end = [asked(number) for number in range(6)], Allows(END, first=6)
    drawn = Decoding(force="region", temperature=9.0, max_actions=1, max_new_tokens=12)
    wild, strict = (ask(tiny, rows, end, how=replace(drawn, grammar=grammar)) for grammar in (False, True))
    assert not any(one.looks for one in wild) and {one.ended for one in wild} == {Ended.INVALID_LOOK}
    assert all(one.looks and set(one.invalid) <= {"out_of_tokens", "over_the_cap"} for one in strict)


# --- rows


def test_a_row_is_cut_before_one_of_its_answers() -> None:
    crop = {"turn": 2, "box": [10, 15, 40, 38], "cells": [1, 2, 3, 4]}
    found = row("a/1", "<image>\nWhat?", REGION, "<image>", "A dog.", views=[{"turn": 0}, crop])
    first, last = before_answer(found), before_answer(found, -1)
    assert (len(first["messages"]), len(first["views"])) == (1, 1)
    assert (len(last["messages"]), len(last["views"])) == (3, 2)
    assert len(found["messages"]) == 4
    with pytest.raises(UsageError, match=r"^Sample a/1: answer 2 of 2; give a row with answers\.$"):
        before_answer(found, 2)


def png(size: tuple[int, int] = (80, 60)) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, "red").save(file, "PNG")
    return file.getvalue()


def stored(id: str, data: bytes | None, text: str = "What?") -> Row:
    found = row(id, f"<image>\n{text}", views=[{"turn": 0}])
    return {**found, "images": [{"bytes": data, "path": "coco/train2017/000000000001.jpg"}]}


def test_a_row_that_cannot_be_asked_has_a_fault_and_others_go_on(tiny: VPTModel, tmp_path: Path) -> None:
    good, long = stored("good", png()), stored("long", png(), "What is it? " * 400)
    bad, other = stored("bad", png()[:60]), stored("size", png((70, 60)))
    answered = {**good, "messages": [*good["messages"], {"role": "assistant", "content": "A dog."}]}
    rows = [long, good, bad, stored("missing", None), other, answered, {**good, "id": "again"}]
    found = ask(tiny, rows, batch=2, raw=tmp_path)
    assert [one.id for one in found] == ["long", "good", "bad", "missing", "size", "good", "again"]
    faults = [one.fault for one in found]
    assert [fault and fault.reason for fault in faults] == [
        "too_long", None, "bad_image", "missing_image", "bad_image", "malformed", None,
    ]  # fmt: skip
    assert "bad: coco/train2017/000000000001.jpg cannot be decoded" in faults[2].detail  # type: ignore[union-attr]
    assert all((one.ended is Ended.FAULT) == (one.fault is not None) for one in found)
    assert replace(found[1], id="again") == found[-1] == ask(tiny, [rows[-1]])[0]
    with pytest.raises(UsageError, match=r"^missing: .* is not in the shard; give the raw root that holds it\.$"):
        ask(tiny, rows)


@pytest.fixture(scope="module")
def evaluation(sample_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return end_to_end.build("sample_eval", sample_root, tmp_path_factory.mktemp("evaluation"))


def test_rows_of_an_evaluation_corpus(tiny: VPTModel, evaluation: Path, sample_root: Path) -> None:
    of_split = {found["split"]: found for found in end_to_end.rows(evaluation)}
    rows = [before_answer(found) for found in of_split.values()]
    assert {found["expected"] for found in rows} >= {"region", "reencode"}
    together = ask(tiny, rows, how=Decoding(max_new_tokens=6), raw=sample_root, batch=4)
    assert [one.id for one in together] == [found["id"] for found in rows]
    assert not any(one.fault for one in together)
    assert together == ask(tiny, rows, how=Decoding(max_new_tokens=6), raw=sample_root, batch=1, workers=1)


def looked(images: Sequence[Image.Image]) -> Row:
    """A row with several images in its question that looks at a region of the first, and then through DINO."""
    crop = {"turn": 2, "box": [10, 15, 40, 37], "cells": [1, 2, 3, 4]}
    seen = [*({"turn": 0, "image": number} for number in range(len(images))), crop, {"turn": 4, "encoder": "dino"}]
    asked = "<image>" * len(images) + "\nWhat?"
    turns = (asked, REGION, "<image>", CALL, "<detection_image>", "A dog.")
    return {**row("a/1", *turns, views=seen), "images": list(images)}


def test_looks_that_are_given_are_those_that_are_played(tiny: VPTModel) -> None:
    """From the question, after the crop and after both looks: what the model sees then is the same."""
    whole = looked([Image.linear_gradient("L").resize((80, 60)), Image.new("RGB", (80, 60), "red")])
    how, end = replace(SHORT, max_actions=3), only(END)

    class Ends(Says):
        def allowed(self, dialog: Dialog) -> Tensor | None:
            return end

    answers = [
        ask(tiny, [before_answer(whole, number)], Ends(*turns), how=how)[0]
        for number, turns in enumerate(((REGION + END, CALL + END, "A dog."), (CALL + END, "A dog."), ("A dog.",)))
    ]
    assert {(one.text, one.fault) for one in answers} == {("A dog.", None)}
    assert [[look.kind for look in one.looks] for one in answers] == [["region", "dino"], ["dino"], []]
    assert answers[0].looks[0].box == (10, 15, 40, 37)
    assert [one.logprob for one in answers] == pytest.approx([answers[0].logprob] * 3, abs=1e-5)
    assert len({one.prompt_tokens + len(one.tokens) for one in answers}) == 1


def test_rows_are_read_as_they_are_needed(tiny: VPTModel) -> None:
    taken: list[str] = []

    def endless() -> Iterator[Row]:
        for number in itertools.count():
            taken.append(f"a/{number}")
            yield asked(number)

    records = answer(tiny, row_encoder(), endless(), replace(SHORT, max_new_tokens=2), batch=2)
    assert [next(records).id for _ in range(9)] == taken[:9]
    assert len(taken) == 24, "two windows of eight, and one ahead"
    records.close()  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"^batch is 0, expected at least 1 row$"):
        ask(tiny, [asked()], batch=0)
