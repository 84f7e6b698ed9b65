"""The forward pass at single cost: against full passes, with and without checkpointing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tiny_batches as tb
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from bench.full_passes import full_passes
from trainer.data.sample import IGNORE, Sample
from trainer.model import vpt
from trainer.model.phases import Segments, phase_count, positions, steering
from trainer.model.vpt import VPTModel
from vpt_data.dialogue.tokens import label_names
from vpt_data.errors import UsageError, VptDataError

torch.set_num_threads(1)


def mixed(kind: str = "dino", control_tokens: int = 1) -> list[Sample]:
    looks = [tb.reencode(seed, kind, words, control_tokens=control_tokens) for seed, words in ((1, 5), (4, 11))]
    return [looks[0], tb.plain(2, 9), tb.region(3), looks[1], tb.twice(5, kind, "clip", control_tokens)]


def full_logits(model: VPTModel, samples: Sequence[Sample], mask: Tensor | None = None) -> list[Tensor]:
    plan, states = full_passes(model, samples, mask=mask)
    return list(model.adapter.head(states[plan.cells]).split([len(sample.input_ids) for sample in samples]))


def apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    return max((a - b).abs().max().item() for a, b in zip(one, other, strict=True))


def grads(model: VPTModel, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def grads_apart(one: dict[str, Tensor], other: dict[str, Tensor]) -> float:
    """Largest difference, as a share of the largest gradient of the same weight."""
    assert one.keys() == other.keys()
    return max(((one[n] - other[n]).abs().max() / one[n].abs().max().clamp(min=1e-3)).item() for n in one)


@pytest.mark.parametrize("control_tokens", [1, 2, 4])
@pytest.mark.parametrize("kind", tb.KINDS)
def test_single_cost_is_full_passes(kind: str, control_tokens: int) -> None:
    model = tb.model(control_tokens=control_tokens)
    samples = [*mixed(kind, control_tokens), *tb.edges(20, kind, control_tokens)]
    got = model.logits(samples)
    assert apart(got, full_logits(model, samples)) < 2e-5
    model.control_vectors = torch.zeros_like  # type: ignore[method-assign]
    assert apart(got, model.logits(samples)) > 0.5, "the control vectors do nothing, so the test shows nothing"


@pytest.mark.parametrize("control_tokens", [1, 3])
def test_single_cost_has_the_gradients_of_full_passes(control_tokens: int) -> None:
    model, samples = tb.model(control_tokens=control_tokens), mixed("dino", control_tokens)
    single = grads(model, model(samples).loss / 10)
    double = grads(model, model.score(*full_passes(model, samples)).loss / 10)
    assert grads_apart({name: single[name] for name in double}, double) < 1e-5


@pytest.mark.parametrize("at_once", [1, 7])
def test_the_loss_in_chunks_is_the_loss(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = tb.model(), mixed()
    whole = model(samples)
    expected = grads(model, whole.loss / 10)
    monkeypatch.setattr(vpt, "LABELS_AT_ONCE", at_once)
    chunked = model(samples)
    assert chunked.loss.item() == pytest.approx(whole.loss.item(), rel=1e-5)
    assert torch.equal(chunked.correct, whole.correct) and torch.equal(chunked.total, whole.total)
    assert grads_apart(grads(model, chunked.loss / 10), expected) < 1e-5


def crossed() -> Sample:
    """Asks for DINO, CLIP and CLIP, and is shown CLIP, DINO and CLIP."""
    writer = tb.Writer(8)
    writer.question(2, 2, 2)
    for kind in ("dino", "clip", "clip"):
        writer.action(kind)
    for kind in ("clip", "dino", "clip", "dino"):
        writer.picture(kind, 2, 2)
    writer.answer()
    return writer.done()


def test_a_control_token_steers_the_next_free_picture_of_its_kind() -> None:
    sample = crossed()
    assert [slot.kind for slot in sample.slots] == ["vlm", "clip", "dino", "clip", "dino"]
    assert steering(sample) == [None, 1, 0, 2, None]


def test_vectors_of_several_control_tokens_are_states_of_ordinary_tokens() -> None:
    """As in the reference: the vectors of a look come from a pass in which its control tokens are ordinary tokens,
    are fed together, and steer its picture together, through one projection of all of them."""
    model, sample, caught = tb.model(control_tokens=3), tb.reencode(1, "dino", control_tokens=3), []
    at = sample.controls[0].at

    def catch(states: Tensor) -> Tensor:
        caught.append(states)
        return states

    model.control_vectors = catch  # type: ignore[method-assign]
    with torch.no_grad():
        batch = model.batch([sample])
        states, cells = model.states(batch), batch.plan.cells
        ordinary = model.states(model.batch([replace(sample, controls=())]))
        assert caught[0].shape == (1, 3, 64)
        assert (caught[0][0] - ordinary[at - 1 : at + 2]).abs().max() < 1e-5
        projector, features = model.projectors["dino"], model.features(batch.plan.inputs, batch.pixels)
        c = projector.linear_condition(torch.nn.functional.layer_norm(caught[0].view(1, 192), (192,)))
        f = features.rows[batch.plan.inputs.first[0][1] :][:16]
        expected = model.embed(batch.plan.inputs, features)
        expected[at : at + 3] = caught[0][0]
        expected[sample.slots[1].start : sample.slots[1].start + 16] = f + (f @ c.T) * c
        length = len(sample.input_ids)
        last, _ = model.decode(expected[None], positions(sample, 2)[:, None], segments=Segments.of([length], [length]))
    assert (states[cells] - last[0]).abs().max() < 2e-5


LOOKS = st.sampled_from(["vlm", *tb.KINDS])


@st.composite
def layouts(draw: st.DrawFn, control_tokens: int) -> Sample:
    """A dialogue with any looks in any order, of any length."""
    writer = tb.Writer(draw(st.integers(0, 10**6)), control_tokens=control_tokens)
    writer.words(draw(st.integers(0, 4)))
    writer.question(draw(st.integers(0, 6)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    for look in draw(st.lists(LOOKS, max_size=3)):
        if look != "vlm":
            writer.action(look)
        writer.look(look, draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        writer.words(draw(st.integers(0, 2)), loss=True)
    writer.answer(draw(st.integers(0, 3)))
    return writer.done()


@settings(max_examples=15)
@given(st.data(), st.integers(1, 3))
def test_any_layout_is_full_passes_together_and_alone(data: st.DataObject, control_tokens: int) -> None:
    samples = data.draw(st.lists(layouts(control_tokens), min_size=1, max_size=4))
    model = tb.model(control_tokens=control_tokens)
    with torch.no_grad():
        together = model.logits(samples)
        assert apart(together, full_logits(model, samples)) < 2e-5
        assert apart(together, [model.logits([sample])[0] for sample in samples]) < 2e-5


def test_together_has_the_loss_and_gradients_of_alone() -> None:
    samples = [replace(sample, masked=number % 2 == 0) for number, sample in enumerate(mixed("sam"))]
    model = tb.model()
    together, alone = model(samples), [model([sample]) for sample in samples]
    loss = sum((out.loss for out in alone), torch.zeros(()))
    assert together.loss.item() == pytest.approx(loss.item(), abs=1e-4)
    assert together.labels == sum(out.labels for out in alone)
    assert grads_apart(grads(model, together.loss / 10), grads(model, loss / 10)) < 1e-5


def test_checkpointing_changes_no_bit() -> None:
    samples = mixed()
    without, with_it = tb.model(), tb.model(checkpointing=True)
    assert grads_apart(grads(without, without(samples).loss), grads(with_it, with_it(samples).loss)) == 0.0


@pytest.mark.parametrize(("share", "again"), [(0.0, []), (0.5, [1]), (1.0, [1, 0])])
def test_a_share_of_the_layers_runs_again(share: float, again: list[int]) -> None:
    model, calls = tb.model(checkpointing=share), []
    for number, layer in enumerate(model.adapter.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: calls.append(number))
    model([tb.plain(1)]).loss.backward()
    assert calls == [0, 1, *again]


def test_the_last_phase_keeps_no_keys() -> None:
    model, samples = tb.model(), [tb.plain(1)]
    hidden = model.adapter.embed(samples[0].input_ids)[None]
    positions = torch.arange(hidden.shape[1]).expand(3, 1, -1)
    assert model.decode(hidden, positions, keep=False)[1] == []
    assert len(model.decode(hidden, positions)[1]) == 2


def test_gradient_reaches_the_control_vector_from_the_answer_and_from_nothing_else() -> None:
    model, caught = tb.model(), []

    def catch(states: Tensor) -> Tensor:
        caught.append(states)
        states.retain_grad()
        return states

    model.control_vectors = catch  # type: ignore[method-assign]
    sample = tb.reencode(1, "dino")
    model([sample]).loss.backward()
    assert caught[0].grad is not None and caught[0].grad.abs().max() > 1e-4
    labels = torch.full_like(sample.labels, IGNORE)
    labels[sample.controls[0].at - 1] = sample.input_ids[sample.controls[0].at - 1]
    caught.clear()
    model([replace(sample, labels=labels)]).loss.backward()
    assert caught[0].grad is not None and caught[0].grad.abs().max() == 0.0


def test_a_label_at_a_control_token_is_no_label() -> None:
    model, sample = tb.model(control_tokens=2), tb.reencode(1, "dino", control_tokens=2)
    one = model([sample])
    for at in range(sample.controls[0].at, sample.controls[0].at + 2):
        labels = sample.labels.clone()
        labels[at] = 17
        other = model([replace(sample, labels=labels)])
        assert one.loss.item() == other.loss.item()
        assert one.labels == other.labels


def test_counts_by_class_are_those_of_all_logits() -> None:
    model, samples = tb.model(), [tb.region(1), tb.reencode(2, "dino"), tb.plain(3)]
    out = model(samples)
    loss, correct, total = 0.0, [0] * len(label_names()), [0] * len(label_names())
    for sample, logits in zip(samples, model.logits(samples), strict=True):
        for at in range(1, len(sample.labels)):
            if sample.labels[at] != IGNORE:
                loss += torch.nn.functional.cross_entropy(logits[at - 1], sample.labels[at]).item()
                total[sample.classes[at]] += 1
                correct[sample.classes[at]] += int(logits[at - 1].argmax() == sample.labels[at])
    assert out.loss.item() == pytest.approx(loss, rel=1e-5)
    assert (out.correct.tolist(), out.total.tolist(), out.labels.item()) == (correct, total, sum(total))
    found = {name: count for name, count in zip(label_names(), total, strict=True) if count}
    assert found == {"text": 17, "region": 2, "x": 2, "y": 2, "action": 2}


def test_a_sample_of_weight_two_is_the_sample_twice() -> None:
    model, one, other = tb.model(), tb.reencode(1, "dino"), tb.plain(2, 9)
    twice, weighed = model([one, one, other]), model([replace(one, weight=2.0), other])
    assert weighed.loss.item() == pytest.approx(twice.loss.item(), rel=1e-5)
    assert weighed.labels.item() == twice.labels.item()
    assert weighed.loss.item() != pytest.approx(model([one, other]).loss.item(), rel=1e-3)
    found = grads(model, weighed.loss / weighed.labels)
    assert grads_apart(found, grads(model, twice.loss / twice.labels)) < 1e-5
    nothing = model([replace(one, weight=0.0), other])
    assert nothing.labels.item() == model([other]).labels.item()
    assert nothing.loss.item() == pytest.approx(model([other]).loss.item(), rel=1e-5)
    assert nothing.total.sum() == model([one, other]).total.sum(), "accuracy counts every label once"


def test_every_weight_has_a_gradient_whatever_the_batch_holds() -> None:
    model = tb.model()
    model([tb.plain(1)]).loss.backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert model.projectors["dino"].linear_condition.weight.grad.abs().max() == 0.0


def test_an_empty_batch_is_zero_with_every_weight_in_its_graph() -> None:
    model = tb.model()
    model.vlm.lm_head.weight = torch.nn.Parameter(model.vlm.lm_head.weight.detach().clone())
    out = model([], phases=2)
    out.loss.backward()
    assert (out.loss.item(), out.labels.item(), out.total.tolist()) == (0.0, 0, [0] * len(label_names()))
    assert all(p.grad is not None and not p.grad.any() for p in model.parameters())


def test_many_pictures_go_through_a_tower_a_few_at_a_time() -> None:
    model, samples = tb.model(), [tb.reencode(seed, "sam") for seed in range(9)]
    seen: list[int] = []
    model.towers["sam"].register_forward_pre_hook(lambda tower, given: seen.append(len(given[0])))
    with torch.no_grad():
        together = model.logits(samples)
        assert seen == [8, 1]
        assert apart(together, [model.logits([sample])[0] for sample in samples]) < 2e-5


def test_dummy_phases_change_nothing() -> None:
    model, samples = tb.model(), [tb.plain(1), tb.reencode(2, "sam")]
    assert phase_count(samples) == 2
    one, other = model(samples), model(samples, phases=4)
    assert one.loss.item() == other.loss.item()
    assert grads_apart(grads(model, one.loss), grads(model, other.loss)) == 0.0


def test_input_embeddings_of_new_tokens_learn() -> None:
    """The reference looks embeddings up without gradient, so an untied model never learns those of its new tokens."""
    samples = [tb.region(1), tb.reencode(2, "dino")]
    names = ["region_token_start", "x_1", "y_2", "region_token_end", "detection_action_start", "detection_action_end"]
    new = [tb.tokenizer().convert_tokens_to_ids(f"<|{name}|>") for name in names]
    model = tb.model()
    model.vlm.lm_head.weight = torch.nn.Parameter(model.vlm.lm_head.weight.detach().clone())
    model(samples).loss.backward()
    found = model.vlm.get_input_embeddings().weight.grad
    assert found[new].abs().amax(1).min() > 0
    control = tb.tokenizer().convert_tokens_to_ids("<|detection_action|>")
    assert found[control].abs().max() == 0, "the state before the control token stands in its place"


def test_half_precision_keeps_half_precision_keys() -> None:
    model, samples = tb.model(), mixed()
    exact = model(samples).loss.item()
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.adapter.embed(samples[1].input_ids)[None]
        _, kept = model.decode(hidden, torch.arange(hidden.shape[1]).expand(3, 1, -1))
        out = model(samples)
    assert {tensor.dtype for pair in kept for tensor in pair} == {torch.bfloat16}
    assert out.loss.dtype == torch.float32
    assert out.loss.item() == pytest.approx(exact, rel=0.02)


def test_control_rows_cost_half_of_two_passes() -> None:
    model = tb.model(["dino"])
    writer = tb.Writer(1)
    writer.question(300, 8, 8)
    writer.action("dino")
    writer.look("dino")
    writer.answer(64)
    samples = [writer.done()]
    model.towers.requires_grad_(False)
    model.adapter.vision.requires_grad_(False)
    batch = model.batch(samples)
    features = model.features(batch.plan.inputs, batch.pixels)
    features = features._replace(rows=features.rows.detach())
    model.features = lambda *_: features  # type: ignore[method-assign]  # only the language model is compared

    def flops(two_passes: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            found = full_passes(model, samples) if two_passes else (batch.plan, model.states(batch))
            model.score(*found).loss.backward()
        return counter.get_total_flops()

    assert flops(two_passes=True) / flops(two_passes=False) >= 1.8


def test_errors_say_what_to_do() -> None:
    model, sample = tb.model(["dino"]), tb.reencode(1, "dino")
    far = replace(sample, controls=(replace(sample.controls[0], at=len(sample.input_ids)),))
    with pytest.raises(VptDataError, match=r"^Sample sample-1: control token at 70, expected 1 to 69$"):
        model([far])
    long = replace(sample, slots=(replace(sample.slots[0], start=60),))
    with pytest.raises(VptDataError, match=r"^Sample sample-1: vlm slot at 60 with 16 tokens leaves the 70 tokens of"):
        model([long])
    short = replace(sample, slots=(sample.slots[0], replace(sample.slots[1], length=9)))
    with pytest.raises(VptDataError, match=r"^Samples sample-1: 16 features of dino for 9 placeholders; encode with"):
        model([short])
    with pytest.raises(VptDataError, match=r"^Samples sample-7: clip slots, but this model has dino$"):
        model([tb.reencode(7, "clip")])
    with pytest.raises(UsageError, match=r"^Kind 'sam': expected one of dino, sam, clip, with its tower if"):
        VPTModel(model.vlm, ["sam"])
