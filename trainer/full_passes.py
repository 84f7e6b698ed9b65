"""The same model by full passes over whole samples, as the reference computes it: to compare with, and for R5.

A sample with k control tokens needs k + 1 passes; samples without one run in all of them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.model import Controls, VPTModel
from trainer.plan import Part, Plan, phase_count, plan
from trainer.sample import Encoded


def full_passes(
    model: VPTModel, samples: Sequence[Encoded], *, zero_user_turn: bool = False, mask: Tensor | None = None
) -> tuple[Tensor, Plan]:
    """Final states as `VPTModel.states` gives them, without its masking.

    `mask` bool [B, 1, T, T] replaces causal attention in all passes but the first. `zero_user_turn` sets the
    embeddings between the `<|im_start|>` and `<|im_end|>` of first user turns of samples with a control token to zero
    in all passes but the first.
    """
    plain = [_without_controls(sample) for sample in samples]
    cut = plan(plain, model.adapter.merge, packed=False, flat=model.compat.positions_1d)
    phase = cut.phases[0]
    parts = [Part(part.row, 0, part.end, part.first) for part in phase.parts]
    pictures = model.look(samples)
    tokens = model.embed(samples, pictures)[phase.tokens.to(model.device)]
    deep = model.deep(pictures, cut.place, (tokens.shape[0], tokens.shape[1]))
    controls: Controls = {}
    states = torch.empty(0)
    for number in range(phase_count(samples)):
        if number:
            rows = [row for row, sample in enumerate(samples) if len(sample.controls) >= number]
            before = [parts[row].first + samples[row].controls[number - 1].at - 1 for row in rows]
            vectors = model.control_vectors(states[torch.tensor(before, device=model.device)])
            controls |= {(row, number - 1): vector for row, vector in zip(rows, vectors, strict=True)}
        hidden = model.fill(tokens.flatten(0, 1), samples, parts, pictures, controls).view_as(tokens)
        if number and zero_user_turn:
            hidden = hidden * _user_turns(samples, hidden.shape[1], model.adapter.end_of_turn).to(hidden)[:, :, None]
        out, _ = model.decode(hidden, phase.positions, mask if number else None, deep=deep, keep=False)
        states = out.flatten(0, 1)
    return states, cut


def _without_controls(sample: Encoded) -> Encoded:
    return Encoded(sample.id, sample.input_ids, sample.labels, sample.classes, sample.slots, (), sample.first_user)


def _user_turns(samples: Sequence[Encoded], length: int, end_of_turn: int) -> Tensor:
    """Float [B, length]: 0 strictly inside the first user turn of samples with a control token, else 1."""
    kept = torch.ones(len(samples), length)
    for row, sample in enumerate(samples):
        start, stop = sample.first_user
        if sample.controls and start < stop:
            end = start + int((sample.input_ids[start:] == end_of_turn).nonzero()[0])
            kept[row, start + 1 : end] = 0.0
    return kept
