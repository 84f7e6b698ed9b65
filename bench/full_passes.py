"""The same model by full passes over whole samples, as the reference computes it: to compare with.

A sample with k control tokens needs k + 1 passes; samples without one run in all of them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from trainer.data.encoded import Encoded
from trainer.model.phases import Plan, phase_count, plan
from trainer.model.vpt import VPTModel


def full_passes(model: VPTModel, samples: Sequence[Encoded], mask: Tensor | None = None) -> tuple[Tensor, Plan]:
    """Final states as `VPTModel.states` gives them, without its masking.

    `mask` bool [B, 1, T, T] replaces causal attention in all passes but the first.
    """
    plain = [replace(sample, controls=()) for sample in samples]
    cut = plan(plain, model.adapter.merge, packed=False, flat=model.compat.positions_1d)
    phase = cut.phases[0]
    pictures = model.look(samples)
    tokens = model.embed(samples, pictures)
    deep = model.deep(pictures, cut.place, phase.tokens.shape)
    states = torch.empty(0)
    for number in range(phase_count(samples)):
        if number:
            rows = [row for row, sample in enumerate(samples) if len(sample.controls) >= number]
            before = [phase.parts[row].first + samples[row].controls[number - 1].at - 1 for row in rows]
            vectors = model.control_vectors(states[torch.tensor(before, device=model.device)])
            tokens = model.fill(tokens, samples, pictures, number - 1, dict(zip(rows, vectors, strict=True)))
        hidden = tokens[phase.tokens.to(model.device)]
        out, _ = model.decode(hidden, phase.positions, mask if number else None, deep=deep, keep=False)
        states = out.flatten(0, 1)
    return states, cut
