"""The same model by full passes over whole samples, as the reference computes it: to compare with.

A sample with k control tokens needs k + 1 passes; samples without one run in all of them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.data.sample import Sample
from trainer.model.phases import offsets, phase_count, positions
from trainer.model.vpt import VPTModel


def full_passes(
    model: VPTModel, samples: Sequence[Sample], mask: Tensor | None = None, zeroed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Final states [N, width] of all tokens of a batch, and their numbers, as `VPTModel.score` takes them.

    In all passes but the first, `mask` bool [B, 1, T, T] replaces causal attention (masked samples are not masked by
    themselves), and the embeddings of the tokens `zeroed` bool[N] are zero: the mask modelling of the reference code.
    """
    starts, shape = offsets(samples), (len(samples), max(len(sample.input_ids) for sample in samples))
    # Padded to the longest; cell number row * length + position.
    cells = torch.cat([torch.arange(len(one.input_ids)) + row * shape[1] for row, one in enumerate(samples)])
    where = torch.zeros(3, *shape, dtype=torch.int64)
    for row, one in enumerate(samples):
        where[:, row, : len(one.input_ids)] = positions(one, model.adapter.merge, flat=model.positions_1d)
    features = model.features(samples)
    tokens, states = model.embed(samples, features), torch.empty(0)
    for number in range(phase_count(samples)):
        if number:
            rows = [row for row, sample in enumerate(samples) if len(sample.controls) >= number]
            calls = [samples[row].controls[number - 1] for row in rows]
            before = [
                starts[row] + call.at - 1 + torch.arange(call.count) for row, call in zip(rows, calls, strict=True)
            ]
            vectors = model.control_vectors(states[torch.stack(before).to(model.device)])
            tokens = model.fill(tokens, samples, features, number - 1, dict(zip(rows, vectors, strict=True)))
        shown = tokens if zeroed is None or not number else tokens * ~zeroed[:, None].to(tokens.device)
        hidden = tokens.new_zeros(shape[0] * shape[1], tokens.shape[1]).index_copy(0, cells.to(tokens.device), shown)
        deep = model.deep(features, cells, len(hidden))
        out, _ = model.decode(hidden.view(*shape, -1), where, mask if number else None, deep=deep, keep=False)
        states = out.flatten(0, 1)[cells.to(model.device)]
    return states, torch.arange(starts[-1])
