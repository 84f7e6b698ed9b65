"""What counts as a look, how far it goes, and what is drawn: with a model that says what a script tells it to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from loaders import TEXTS, row_encoder, tokenizer
from PIL import Image
from torch import Tensor

from trainer.data.encode import RowEncoder
from trainer.data.sample import Sample
from trainer.generate import drawn
from trainer.generation import rounds
from trainer.generation.answers import answer
from trainer.generation.dialog import Decoding, Ended, Fault, Record, Shown, question
from trainer.generation.session import Session
from trainer.model.tiny import tiny_model, tiny_tokenizer, tiny_vision
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens.grid import encode
from vpt_data.errors import UsageError

torch.set_num_threads(1)

CALL = ["<|detection_action_start|>", "<|detection_action|>", "<|detection_action_end|>"]


@pytest.fixture(scope="module")
def tiny() -> VPTModel:
    return tiny_model(tiny_tokenizer(TEXTS, "dino"), ["dino"])


def ids(text: str) -> list[int]:
    return list(tokenizer().encode(text, add_special_tokens=False).ids)


def scripted(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch, *turns: str, k: int = 8, **how: Any) -> Record:
    """What becomes of a model that says these turns, and prefers to be silent where it may not."""
    end = ids("<|im_end|>")[0]
    script = [[*ids(turn), end] for turn in turns]

    class Scripted(Session):
        at = (0, 0)

        def extend(self, blocks: Sequence[Sample | None]) -> None:
            if blocks[0] is not None and blocks[0].input_ids[0] == end:
                self.at = self.at[0] + 1, 0
            super().extend(blocks)

        def logits(self) -> Tensor:
            turn, place = self.at
            self.at = turn, place + 1
            made = torch.zeros(1, self.model.adapter.head(self.last).shape[1])
            made[0, end], made[0, script[turn][place]] = 1.0, 2.0
            return made

    monkeypatch.setattr(rounds, "Session", Scripted)
    encoder = RowEncoder(tokenizer(), tiny_vision(), k=k)
    [found] = answer(tiny, encoder, [question(Image.new("RGB", (80, 61)), "What?")], Decoding(**how))
    return found


def region(*cells: int) -> str:
    text: str = encode([cells], 8)[0].as_py()
    return text


BROKEN = [
    (region(3, 2, 1, 4), "region_reversed"),
    (region(1, 5, 2, 4), "region_reversed"),
    (region(1, 2, 3, 4).replace("x_1", "q").replace("y_2", "x_1").replace("q", "y_2"), "region_wrong_order"),
    (region(1, 2, 3, 4).replace("<|y_4|>", ""), "region_wrong_count"),
    (region(1, 2, 3, 4).replace("y_", "x_"), "region_missing_axis"),
    (region(1, 2, 3, 4).replace("<|region_token_end|>", ""), "region_no_end"),
    (region(1, 2, 3, 4).replace("<|region_token_start|>", ""), "region_no_start"),
    (region(1, 2, 3, 4).replace("<|y_2|>", "and"), "region_text_between_tokens"),
    (CALL[1], "action_missing_start"),
    (CALL[2], "action_missing_start"),
]


@pytest.mark.parametrize(("turn", "cause"), BROKEN)
def test_an_invalid_look_is_counted(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch, turn: str, cause: str) -> None:
    stopped = scripted(tiny, monkeypatch, turn)
    assert stopped.ended is Ended.INVALID_LOOK
    assert (stopped.invalid, stopped.turns, stopped.looks) == ({cause: 1}, (turn,), ())
    going = scripted(tiny, monkeypatch, turn, "It is red.", on_invalid="continue")
    assert going.ended is Ended.END_OF_TURN
    assert (going.invalid, going.turns, going.looks) == ({cause: 1}, (turn, "It is red."), ())


def test_cells_beyond_the_grid_are_invalid(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripted(tiny, monkeypatch, region(0, 0, 3, 4), k=4)
    assert (found.invalid, found.looks) == ({"region_index_out_of_range": 1}, ())


def test_crops_are_cut_as_in_training_or_a_cell_larger(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    turns = region(1, 2, 3, 4), "A dog."
    assert scripted(tiny, monkeypatch, *turns).looks == (Shown("region", (1, 2, 3, 4), (10, 15, 40, 38)),)
    larger = scripted(tiny, monkeypatch, *turns, expand=1)
    assert larger.looks == (Shown("region", (1, 2, 3, 4), (0, 7, 50, 45)),)
    border = scripted(tiny, monkeypatch, region(0, 0, 7, 7), "A dog.", expand=1)
    assert border.looks[0].box == (0, 0, 80, 61)


def test_a_turn_may_ask_for_several_looks(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = region(1, 2, 3, 4) + CALL[0] + region(0, 0, 0, 0) + region(1, 2, 0, 0)
    found = scripted(tiny, monkeypatch, asked, "A dog.")
    assert [look.kind for look in found.looks] == ["region", "region", "dino"]
    assert found.turns == (asked.replace(CALL[0], "".join(CALL)), "A dog.")
    assert found.invalid == {"region_reversed": 1}


def test_the_cap_ends_a_loop(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    always = [region(1, 2, 3, 4), CALL[0], region(1, 2, 3, 4)]
    found = scripted(tiny, monkeypatch, *always, max_actions=2)
    assert [look.kind for look in found.looks] == ["region", "dino"] and found.ended is Ended.CAP
    assert (found.turns[2], found.invalid) == ("", {"over_the_cap": 1})


def test_looks_as_the_published_program_reads_them(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reversed region is a box, looks of two kinds are the answer, and in the last turn nothing is a look."""
    how: dict[str, Any] = {"max_actions": 1, "as_published": True, "expand": 1}
    found = scripted(tiny, monkeypatch, region(3, 4, 1, 2), "A dog.", **how)
    assert (found.looks, found.invalid) == ((Shown("region", (1, 2, 3, 4), (0, 7, 50, 45)),), {})
    assert found.turns == (region(3, 4, 1, 2), "A dog.")
    again = scripted(tiny, monkeypatch, CALL[0], region(1, 2, 3, 4), **how)
    assert (again.text, again.looks, again.ended) == (region(1, 2, 3, 4), (Shown("dino"),), Ended.END_OF_TURN)
    for turn in (region(1, 2, 3, 4) + CALL[0], region(1, 2, 3, 4).replace("><|y", "> <|y"), "A dog."):
        found = scripted(tiny, monkeypatch, turn, **how)
        assert (found.looks, found.invalid, found.ended) == ((), {}, Ended.END_OF_TURN)
        assert found.text == turn.replace(CALL[0], "".join(CALL))
    lost = scripted(tiny, monkeypatch, region(1, 2, 3, 4).replace("y_", "x_"), **how)
    assert (lost.ended, lost.invalid) == (Ended.INVALID_LOOK, {"region_crop_failed": 1})


def test_tokens_run_out(tiny: VPTModel, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scripted(tiny, monkeypatch, region(1, 2, 3, 4), "A dog.", max_new_tokens=6)
    assert (found.text, found.looks, len(found.tokens)) == (region(1, 2, 3, 4), (), 6)
    assert (found.invalid, found.ended, found.logprob) == ({"out_of_tokens": 1}, Ended.TOKEN_LIMIT, None)


def asked(tiny: VPTModel, text: str = "What?", **how: Any) -> Record:
    [found] = answer(tiny, row_encoder(), [question(Image.new("RGB", (9, 9)), text)], Decoding(**how))
    return found


def test_what_cannot_be_asked(tiny: VPTModel) -> None:

    with pytest.raises(UsageError, match=r"^force is 'sam', expected one of: region, dino$"):
        asked(tiny, force="sam")
    with pytest.raises(UsageError, match=r"^force is 'dino' and max_actions is 0, expected at least 1 to force an ac"):
        asked(tiny, force="dino", max_actions=0)
    with pytest.raises(UsageError, match=r"expand are 0, 2 and 0, expected at least 1, 0 and 0$"):
        asked(tiny, max_new_tokens=0)
    for text, why in (
        ("What is <|x_1|>?", "a text holds the token <|x_1|>"),
        ("<image><image>", "more placeholders than the 1 views"),
    ):
        found = asked(tiny, text)
        assert (found.ended, found.fault, found.text) == (Ended.FAULT, Fault("malformed", why), "")


def test_the_region_is_drawn() -> None:
    image = Image.new("RGB", (80, 60), "white")
    looks = Shown("dino"), Shown("region", (1, 2, 3, 4), (10, 15, 40, 38))
    seen = drawn(image, Record("a/1", "", ("",), looks, Counter(), Ended.END_OF_TURN, (), 0))
    red, white = (255, 0, 64), (255, 255, 255)
    assert [seen.getpixel(at) for at in ((10, 15), (39, 37), (40, 37), (25, 25), (9, 15))] == [
        red,
        red,
        white,
        white,
        white,
    ]
    assert image.getpixel((10, 15)) == white
