"""Generation in a session is the forward pass of training over the same tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import tiny_batches as tb
import torch
from torch import Tensor

from trainer.data.sample import Control, Sample, block
from trainer.generation.session import Session
from trainer.model.phases import positions
from trainer.model.vpt import VPTModel
from vpt_data.errors import VptDataError

torch.set_num_threads(1)


def part(sample: Sample, begin: int, end: int) -> Sample:
    slots = [replace(slot, start=slot.start - begin) for slot in sample.slots if begin <= slot.start < end]
    controls = [replace(c, at=c.at - begin) for c in sample.controls if begin <= c.at < end]
    return block(sample.input_ids[begin:end], slots, controls, id=sample.id)


def samples(count: int = 1) -> list[Sample]:
    return [
        tb.reencode(1, "dino", control_tokens=count),
        tb.plain(2, 9),
        tb.region(3),
        tb.reencode(4, "clip", 11, control_tokens=count),
        tb.twice(5, "dino", "sam", count),
    ]


def crossed(count: int) -> Sample:
    """Two calls, and their pictures in the other order."""
    writer = tb.Writer(6, control_tokens=count)
    writer.question(2, 2, 2)
    for kind in ("dino", "clip"):
        writer.action(kind)
    for kind in ("clip", "dino"):
        writer.picture(kind, 2, 2)
    writer.answer()
    return writer.done()


@pytest.mark.parametrize("control_tokens", [1, 3])
@pytest.mark.parametrize("flat", [False, True])
def test_a_whole_sample_as_prompt_ends_as_in_training(flat: bool, control_tokens: int) -> None:
    model = tb.model(positions_1d=flat, control_tokens=control_tokens)
    given = [*samples(control_tokens), crossed(control_tokens)]
    session = Session(model, given)
    with torch.no_grad():
        expected = torch.stack([logits[-1] for logits in model.logits(given)])
    assert (session.logits() - expected).abs().max() < 2e-5
    ends = [positions(one, 2, flat=flat)[:, -1].max().item() + 1 for one in given]
    assert session.next == ends


@pytest.mark.parametrize("control_tokens", [1, 2])
def test_a_masked_prompt_hides_its_first_user_turn(control_tokens: int) -> None:
    model = tb.model(control_tokens=control_tokens)
    given = [replace(one, masked=True) for one in samples(control_tokens)]
    cuts = [[at for at in outside_slots(one, 7) if at > one.first_user[1]] for one in given]
    with torch.no_grad():
        whole, seen_all = model.logits(given), model.logits([replace(one, masked=False) for one in given])
    for one, logits, cut, seen in zip(given, whole, cuts, replay(model, given, cuts), strict=True):
        expected = logits[[at - 1 for at in [*cut, len(one.input_ids)]]]
        assert (torch.stack(seen) - expected).abs().max() < 1e-4
    differs = [bool((one - other).abs().max() > 1e-4) for one, other in zip(whole, seen_all, strict=True)]
    assert differs == [bool(one.controls) for one in given]


def replay(model: VPTModel, prompts: list[Sample], cuts: list[list[int]]) -> list[list[Tensor]]:
    """Feed each sample in pieces, some a token at a time, with rows idle in between; logits at each cut."""
    bounds = [[*cut, len(one.input_ids)] for one, cut in zip(prompts, cuts, strict=True)]
    begun = (part(one, 0, cut[0]) for one, cut in zip(prompts, bounds, strict=True))
    whole = (
        replace(one, first_user=all.first_user, masked=all.masked) for one, all in zip(begun, prompts, strict=True)
    )
    session = Session(model, list(whole))
    seen = [[row] for row in session.logits()]
    for number in range(max(map(len, bounds)) - 1):
        pieces = [
            part(one, cut[number], cut[number + 1]) if number + 1 < len(cut) else None
            for one, cut in zip(prompts, bounds, strict=True)
        ]
        session.extend(pieces)
        for row, logits in enumerate(session.logits()):
            if pieces[row] is not None:
                seen[row].append(logits)
    return seen


def outside_slots(sample: Sample, step: int) -> list[int]:
    """Places to cut a sample: outside pictures and calls, whose control tokens come together."""
    inside = {at for slot in sample.slots for at in range(slot.start + 1, slot.start + slot.length)}
    inside |= {at for call in sample.controls for at in range(call.at + 1, call.at + call.count)}
    return [at for at in range(step, len(sample.input_ids), step) if at not in inside]


@pytest.mark.parametrize("control_tokens", [1, 2])
@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen3_vl"])
def test_pieces_give_the_logits_of_the_whole(model_type: str, control_tokens: int) -> None:
    patch = 16 if model_type == "qwen3_vl" else 14
    looks = [("clip", 11, patch, control_tokens), ("dino", 2, patch, control_tokens)]
    given = [tb.region(3, patch=patch), tb.reencode(4, *looks[0]), tb.reencode(7, *looks[1])]
    model = tb.model(model_type=model_type, control_tokens=control_tokens)
    cuts = [outside_slots(one, step) for one, step in zip(given, (1, 5, 1), strict=True)]
    with torch.no_grad():
        whole = model.logits(given)
    for one, logits, cut, seen in zip(given, whole, cuts, replay(model, given, cuts), strict=True):
        expected = logits[[at - 1 for at in [*cut, len(one.input_ids)]]]
        assert (torch.stack(seen) - expected).abs().max() < 1e-4
        assert torch.equal(torch.stack(seen).argmax(-1), expected.argmax(-1))


def greedy(model: VPTModel, prompts: list[Sample], steps: int) -> list[list[int]]:
    session, out = Session(model, prompts), [[] for _ in prompts]
    for _ in range(steps):
        chosen = session.logits().argmax(-1).tolist()
        for row, index in zip(out, chosen, strict=True):
            row.append(index)
        session.step(chosen)
    return out


def test_generated_tokens_are_those_of_the_full_forward() -> None:
    model = tb.model()
    prompts = [part(one, 0, one.first_user[1] + 4) for one in samples()]
    for prompt, made in zip(prompts, greedy(model, prompts, 8), strict=True):
        ids = torch.cat([prompt.input_ids, torch.tensor(made)])
        with torch.no_grad():
            logits = model.logits([replace(prompt, input_ids=ids, labels=ids, classes=ids)])[0]
        assert logits[len(prompt.input_ids) - 1 : -1].argmax(-1).tolist() == made


def test_rows_do_not_know_of_each_other() -> None:
    model = tb.model()
    prompts = [part(one, 0, one.first_user[1] + 4) for one in samples()]
    together = greedy(model, prompts, 6)
    assert together == [greedy(model, [prompt], 6)[0] for prompt in prompts]
    order = [3, 0, 4, 2, 1]
    assert greedy(model, [prompts[row] for row in order], 6) == [together[row] for row in order]


def test_rows_leave_and_holes_do_not_matter() -> None:
    model = tb.model()
    prompts = [part(one, 0, one.first_user[1] + 4) for one in samples()]
    session, alone = Session(model, prompts), Session(model, [prompts[3]])
    for ids in ([1, 2, None, 3, None], [None, 5, 6, 7, 8], [9, None, None, 10, 11]):
        session.step(ids)
        alone.step([ids[3]])
    before = session.logits()[3]
    session.keep([4, 3])
    assert (session.logits()[1] - before).abs().max() < 1e-5
    session.step([None, 12])
    alone.step([12])
    assert (session.logits()[1] - alone.logits()[0]).abs().max() < 2e-5
    assert session.next[1] == alone.next[0]


def test_a_session_cannot_start_with_a_control_token() -> None:
    with pytest.raises(VptDataError, match=r"^Sample block: control token at 0, expected 1 to 0$"):
        Session(tb.model(), [block(torch.tensor([5]), controls=[Control("dino", 0)])])


def test_nothing_to_append_changes_nothing() -> None:
    session = Session(tb.model(), [tb.plain(1)])
    before = session.logits()
    session.step([None])
    assert torch.equal(session.logits(), before)
