"""Mask modelling: nothing but the control vector passes from the first user turn to what follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import tiny_batches as tb
import torch
from torch import Tensor

from bench.full_passes import full_passes
from trainer.data.loader import masked
from trainer.data.sample import Sample
from trainer.model import phases
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


def with_noise(sample: Sample) -> Sample:
    """Another image and another question, the rest as it was."""
    image = sample.slots[0]
    ids = sample.input_ids.clone()
    ids[image.start + image.length + 1 : sample.first_user[1] - 1] = torch.tensor([7, 70, 170, 30, 3])
    assert not torch.equal(ids, sample.input_ids)
    slots = (replace(image, pixels=-2 * image.pixels), *sample.slots[1:])
    return replace(sample, input_ids=ids, slots=slots)


def leak(model: VPTModel, sample: Sample) -> float:
    """How far logits after the control token move with the user turn, while the control vector stays."""
    frozen = torch.linspace(-1, 1, model.adapter.width)
    model.control_vectors = lambda states: frozen.expand_as(states)  # type: ignore[method-assign]
    with torch.no_grad():
        one, other = (model.logits([each])[0][sample.controls[0].at :] for each in (sample, with_noise(sample)))
    return (one - other).abs().max().item()


@pytest.mark.parametrize("control_tokens", [1, 3])
@pytest.mark.parametrize("kind", tb.KINDS)
def test_masked_samples_leak_nothing(kind: str, control_tokens: int) -> None:
    sample = tb.reencode(1, kind, control_tokens=control_tokens)
    assert leak(deep(control_tokens=control_tokens), replace(sample, masked=True)) == 0.0


def test_the_leak_test_sees_leaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: no masking, and the template tokens behind the user turn, which have seen it, left visible."""
    sample = tb.reencode(1, "dino")
    open_ = leak(deep(), sample)
    monkeypatch.setattr(phases, "hidden", lambda sample: sample.first_user)
    naive = leak(deep(), replace(sample, masked=True))
    assert open_ > 0.1
    assert 1e-2 < naive < open_


def test_the_control_vector_still_passes() -> None:
    model, sample = deep(), replace(tb.reencode(1, "dino"), masked=True)
    at = sample.controls[0].at
    with torch.no_grad():
        one, other = (model.logits([each])[0][at:] for each in (sample, with_noise(sample)))
    assert (one - other).abs().max() > 0.1


def whole_mask(samples: Sequence[Sample]) -> Tensor:
    """Bool [B, 1, T, T] for full passes, written from the definition of `Sample.masked`."""
    length = max(len(sample.input_ids) for sample in samples)
    mask = torch.ones(len(samples), 1, length, length, dtype=torch.bool).tril()
    for row, sample in enumerate(samples):
        if sample.controls and sample.masked:
            first = sample.controls[0].at
            mask[row, :, first:, sample.first_user[0] : first] = False
    return mask


def test_masked_samples_are_full_passes_under_the_written_mask() -> None:
    samples = [tb.plain(1), *(tb.reencode(seed, "dino", seed) for seed in range(2, 8)), tb.twice(9, "dino", "clip")]
    samples = [replace(sample, masked=number % 2 == 1) for number, sample in enumerate(samples)]
    model = tb.model()
    with torch.no_grad():
        got = model.logits(samples)
        plan, states = full_passes(model, samples, mask=whole_mask(samples))
        expected = model.adapter.head(states[plan.cells]).split([len(sample.input_ids) for sample in samples])
    assert max((a - b).abs().max().item() for a, b in zip(got, expected, strict=True)) < 3e-6


def test_one_coin_a_sample_and_epoch_at_the_given_rate() -> None:
    ids = [f"gqa/{number}" for number in range(10_000)]

    def hits(share: float, seed: int, epoch: int = 0) -> list[bool]:
        return [masked(id, share, seed, epoch) for id in ids]

    half = hits(0.5, 7)
    assert abs(sum(half) - 5000) < 3 * 50
    assert half == hits(0.5, 7)
    assert half != hits(0.5, 8)
    assert not any(hits(0.0, 7))
    assert all(hits(1.0, 7))
    assert all(both for few, both in zip(hits(0.1, 7), half, strict=True) if few), "a higher rate only adds samples"
    both = sum(one and other for one, other in zip(half, hits(0.5, 7, epoch=1), strict=True))
    assert abs(both - 2500) < 3 * 44, "an epoch draws its own coins"


def test_a_mask_does_not_depend_on_the_batch() -> None:
    model = tb.model()
    samples = [replace(tb.reencode(seed, "clip"), masked=seed % 2 == 0) for seed in range(6)]
    with torch.no_grad():
        alone = [model.logits([sample])[0] for sample in samples]
        together = model.logits(samples[::-1])[::-1]
    assert max((a - b).abs().max().item() for a, b in zip(alone, together, strict=True)) < 3e-6
