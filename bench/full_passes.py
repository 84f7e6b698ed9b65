"""The same model by full passes over whole samples, as the reference computes it: to compare with.

A sample with k control tokens needs k + 1 passes; samples without one run in all of them all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from trainer.data.sample import Sample
from trainer.model.phases import Plan, positions
from trainer.model.vpt import VPTModel


def full_passes(
    model: VPTModel, samples: Sequence[Sample], mask: Tensor | None = None, zeroed: Tensor | None = None
) -> tuple[Plan, Tensor]:
    """The plan of a batch, and final states [cells, width] of its tokens, as `VPTModel.score` takes them.

    In all passes but the first, `mask` bool [B, 1, T, T] replaces causal attention (masked samples are not masked by
    themselves), and the embeddings of the tokens `zeroed` bool[N] are zero: the mask modelling of the reference code.
    """
    batch, shape = model.batch(samples), (len(samples), max(len(sample.input_ids) for sample in samples))
    plan = batch.plan
    # Padded to the longest; place number row * length + position.
    places = torch.cat([torch.arange(len(one.input_ids)) + row * shape[1] for row, one in enumerate(samples)])
    places = places.to(model.device)
    where = torch.zeros(3, *shape, dtype=torch.int64)
    for row, one in enumerate(samples):
        where[:, row, : len(one.input_ids)] = positions(one, model.adapter.merge, flat=model.positions_1d)
    features = model.features(plan.inputs, batch.pixels)
    deep = model.deep(features, torch.stack([places[plan.inputs.seen[0]], plan.inputs.seen[1]]))
    tokens, states = model.embed(plan.inputs, features), torch.empty(0)
    for number, phase in enumerate(plan.phases):
        if phase.controls is not None and phase.before is not None:
            vectors = model.control_vectors(states[(phase.controls - 1).view_as(phase.before)])
            tokens = model.fill(tokens, features, phase, vectors)
        shown = tokens if zeroed is None or not number else tokens * ~zeroed[:, None].to(tokens.device)
        hidden = tokens.new_zeros(shape[0] * shape[1], tokens.shape[1]).index_copy(0, places, shown)
        out, _ = model.decode(hidden.view(*shape, -1), where, mask if number else None, deep=deep, keep=False)
        states = out.flatten(0, 1).index_select(0, places)
    cells = sum(len(phase.tokens) for phase in plan.phases)
    return plan, states.new_zeros(cells, states.shape[1]).index_copy(0, plan.cells, states)
