"""Mask modelling: nothing but the control vector passes from the first user turn to what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tiny_batches as tb
import torch
from torch import Tensor

from bench.full_passes import full_passes
from trainer.data.encoded import Encoded
from trainer.model.phases import Masking
from trainer.model.vpt import VPTModel

torch.set_num_threads(1)


def deep(**options: object) -> VPTModel:
    """Deeper than the tiny default and with larger weights: what leaks, leaks through several layers."""
    made = tb.model(**options)
    with torch.no_grad():
        for layer in made.adapter.layers:
            for weight in layer.parameters():
                weight.mul_(3 if weight.dim() > 1 else 1)
    return made


def with_noise(sample: Encoded) -> Encoded:
    """Another image and another question, the rest as it was."""
    image = sample.slots[0]
    ids = sample.input_ids.clone()
    ids[image.start + image.length + 1 : sample.first_user[1] - 1] = torch.tensor([7, 70, 170, 30, 3])
    assert not torch.equal(ids, sample.input_ids)
    slots = (replace(image, pixels=-2 * image.pixels), *sample.slots[1:])
    return replace(sample, input_ids=ids, slots=slots)


def leak(model: VPTModel, sample: Encoded) -> float:
    """How far logits after the control token move with the user turn, while the control vector stays."""
    frozen = torch.linspace(-1, 1, model.adapter.width)
    model.control_vectors = lambda states: frozen.expand_as(states)  # type: ignore[method-assign]
    with torch.no_grad():
        one, other = (model.logits([each])[0][sample.controls[0].at :] for each in (sample, with_noise(sample)))
    return (one - other).abs().max().item()


@pytest.mark.parametrize("packing", [False, True])
@pytest.mark.parametrize("kind", tb.KINDS)
def test_strict_scope_leaks_nothing(kind: str, packing: bool) -> None:
    assert leak(deep(masking=Masking(1.0), packing=packing), tb.reencode(1, kind)) == 0.0


class Naive(Masking):
    """Hides the first user turn alone, and not the template tokens behind it, which have seen it."""

    def hidden(self, sample: Encoded) -> tuple[int, int]:
        return sample.first_user


def test_the_leak_test_sees_leaks() -> None:
    """Negative controls: no masking, template tokens left visible, the control token left seeing."""
    sample = tb.reencode(1, "dino")
    open_, naive = leak(deep(), sample), leak(deep(masking=Naive(1.0)), sample)
    paper = leak(deep(masking=Masking(1.0, scope="paper")), sample)
    assert open_ > 0.1
    assert 1e-2 < naive < open_
    assert 1e-5 < paper < naive
    assert leak(deep(masking=Masking(1.0)).eval(), sample) == open_, "masking is for training only"


def test_the_control_vector_still_passes() -> None:
    model, sample = deep(masking=Masking(1.0)), tb.reencode(1, "dino")
    at = sample.controls[0].at
    with torch.no_grad():
        one, other = (model.logits([each])[0][at:] for each in (sample, with_noise(sample)))
    assert (one - other).abs().max() > 0.1


def whole_mask(samples: Sequence[Encoded], masking: Masking) -> Tensor:
    """Bool [B, 1, T, T] for full passes, written from the definition of the scopes."""
    length = max(len(sample.input_ids) for sample in samples)
    mask = torch.ones(len(samples), 1, length, length, dtype=torch.bool).tril()
    for row, sample in enumerate(samples):
        if sample.controls and masking.hits(sample.id):
            first = sample.controls[0].at
            after = first + (masking.scope == "paper")
            mask[row, :, after:, sample.first_user[0] : first] = False
    return mask


@pytest.mark.parametrize("scope", ["strict", "paper"])
def test_masked_samples_are_full_passes_under_the_written_mask(scope: str) -> None:
    masking = Masking(0.5, 0, scope)
    samples = [tb.plain(1), *(tb.reencode(seed, "dino", seed) for seed in range(2, 8)), tb.twice(9, "dino", "clip")]
    assert 1 < sum(masking.hits(sample.id) for sample in samples[1:]) < 6
    model = tb.model(masking=masking)
    with torch.no_grad():
        got = model.logits(samples)
        states, cut = full_passes(model, samples, mask=whole_mask(samples, masking))
        expected = model.adapter.head(states[cut.place]).split([len(sample.input_ids) for sample in samples])
    assert max((a - b).abs().max().item() for a, b in zip(got, expected, strict=True)) < 3e-6


def test_one_coin_a_sample_at_the_given_rate() -> None:
    ids = [f"gqa/{number}" for number in range(10_000)]
    hits = [Masking(0.5, 7).hits(id) for id in ids]
    assert abs(sum(hits) - 5000) < 3 * 50
    assert hits == [Masking(0.5, 7).hits(id) for id in ids]
    assert hits != [Masking(0.5, 8).hits(id) for id in ids]
    assert not any(Masking(0.0).hits(id) for id in ids)
    assert all(Masking(1.0).hits(id) for id in ids)
    rare = [Masking(0.1, 7).hits(id) for id in ids]
    assert all(both for few, both in zip(rare, hits, strict=True) if few), "a higher rate only adds samples"


def test_the_coin_does_not_depend_on_the_batch() -> None:
    model = tb.model(masking=Masking(0.5, 1))
    samples = [tb.reencode(seed, "clip") for seed in range(6)]
    with torch.no_grad():
        alone = [model.logits([sample])[0] for sample in samples]
        together = model.logits(samples[::-1])[::-1]
    assert max((a - b).abs().max().item() for a, b in zip(alone, together, strict=True)) < 3e-6
