"""Finished samples for another encoder, prompted or free: as if rendered so, and the way back is exact."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from helpers.template_cases import CAPTION, DOG, GOLDEN, TOWER, TWO, check_rules, rule, table, talk, texts

from vpt_data.dialogue.render import render
from vpt_data.dialogue.retarget import retarget
from vpt_data.errors import CorpusError
from vpt_data.schema import SAMPLE


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
    for rows, talks, template in (
        ([DOG], False, "reencode"),
        ([TOWER], True, "reencode"),
        ([CAPTION], True, "alignment"),
    ):
        for tokens in (1, 3):
            made = [
                render(
                    table(*rows),
                    rule(template, encoder=name, control_tokens=tokens, source_conversations=talks),
                )
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
