"""How a batch of samples is cut into phases: integers only, no model.

A control token needs the final state of the token before it. So a sample with k control tokens runs in k + 1 phases,
each from one control token to the next; a phase sees the keys and values of the phases before it and computes nothing
twice. Phase 0 holds all samples, phase p those with p control tokens or more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

import torch
import xxhash
from torch import Tensor

from trainer.data.encoded import Encoded
from vpt_data.errors import UsageError, VptDataError


@dataclass(frozen=True)
class Masking:
    """Mask modelling: for a share of the samples, what follows the control token cannot see the first user turn.

    `strict`: neither the control token nor anything after it sees what is between the start of the first user turn
    and the control token; the only way from there is the control vector. `paper`: the control token itself still sees
    it.
    """

    ratio: float = 0.0
    seed: int = 0
    scope: Literal["strict", "paper"] = "strict"

    def hits(self, id: str) -> bool:
        """The coin of one sample: the same on every rank, in every epoch and after a resume."""
        return xxhash.xxh3_64_intdigest(f"{self.seed}\0{id}".encode()) < self.ratio * 2.0**64

    def hidden(self, sample: Encoded) -> tuple[int, int]:
        """Half-open range of positions that the rest of a masked sample does not see."""
        start, stop = sample.first_user
        return (start, stop) if start == stop else (start, sample.controls[0].at)


@dataclass(frozen=True)
class Part:
    """One sample's share of a phase: its tokens [begin, end), `first` its first cell in the phase."""

    row: int
    begin: int
    end: int
    first: int


@dataclass(frozen=True)
class Phase:
    """One pass through the layers over a grid of B x L cells; B is 1 where samples are packed.

    `tokens` int64[B, L]: index of the token among all tokens of the batch (0 in padding). `positions` int64[3, B, L].
    `keys` int64[B, K]: which stored cells are seen besides the phase's own; None in phase 0. `mask` bool
    [B, 1, L, K + L]: None means causal. `segments`: of packed samples, how many own cells and how many of `keys`.
    `before` int64[n]: stored cells before the control tokens that open the parts.
    """

    parts: tuple[Part, ...]
    tokens: Tensor
    positions: Tensor
    keys: Tensor | None
    mask: Tensor | None
    segments: tuple[tuple[int, int], ...] | None
    before: Tensor | None


@dataclass(frozen=True)
class Plan:
    """Phases and `place` int64[N]: where the cell of each token is among the cells of all phases."""

    phases: tuple[Phase, ...]
    place: Tensor
    offsets: tuple[int, ...]


def positions(sample: Encoded, merge: int, *, flat: bool = False, start: int = 0) -> Tensor:
    """M-RoPE positions int64[3, T] (time, row, column), the first at `start`.

    Patches of `vlm` slots have rows and columns, `merge` patches to a token; after such a picture text continues at its
    larger side. Features of other slots count like text, as in the reference. `flat` counts everything like text.
    """
    length = len(sample.input_ids)
    if flat:
        return torch.arange(start, start + length).expand(3, length)
    out, at, done = torch.empty(3, length, dtype=torch.int64), start, 0
    for slot in (s for s in sample.slots if s.kind == "vlm" and s.grid is not None):
        out[:, done : slot.start] = torch.arange(at, at + slot.start - done)
        at += slot.start - done
        sides = [slot.grid[0], slot.grid[1] // merge, slot.grid[2] // merge] if slot.grid else []
        grid = torch.meshgrid(*(torch.arange(side) for side in sides), indexing="ij")
        out[:, slot.start : slot.start + slot.length] = torch.stack(grid).flatten(1) + at
        at, done = at + max(sides), slot.start + slot.length
    out[:, done:] = torch.arange(at, at + length - done)
    return out


def steering(sample: Encoded) -> list[int | None]:
    """For each slot the index of the control that steers it: each control takes the next free slot of its kind."""
    taken: list[int | None] = [None] * len(sample.slots)
    for number, control in enumerate(sample.controls):
        for place, slot in enumerate(sample.slots):
            if slot.kind == control.kind and slot.start > control.at and taken[place] is None:
                taken[place] = number
                break
    return taken


def phase_count(samples: Sequence[Encoded]) -> int:
    """Number of phases that a batch needs, 0 if it is empty; under FSDP all ranks must run the largest of theirs."""
    return max((1 + len(sample.controls) for sample in samples), default=0)


def plan(
    samples: Sequence[Encoded], merge: int, *, packed: bool, flat: bool = False, masking: Masking | None = None
) -> Plan:
    """Cut a batch into phases; `masking` None masks no sample."""
    for sample in samples:
        check(sample)
    if packed and masking and masking.scope == "paper":
        raise UsageError("masking.scope is 'paper', which packed samples cannot do; use strict or packing = false")
    offsets = (0, *accumulate(len(sample.input_ids) for sample in samples))
    coordinates = torch.cat([positions(sample, merge, flat=flat) for sample in samples], dim=1)
    place, phases, stored = torch.empty(offsets[-1], dtype=torch.int64), [], 0
    for number in range(phase_count(samples)):
        phase = _phase(samples, number, offsets, coordinates, place, stored, packed=packed, masking=masking)
        stored += phase.tokens.numel()
        phases.append(phase)
    return Plan(tuple(phases), place, offsets)


def check(sample: Encoded, earliest: int = 1) -> None:
    """VptDataError unless slots and controls are inside the sample, and no control before `earliest`."""
    length = len(sample.input_ids)
    for control in sample.controls:
        if not earliest <= control.at < length:
            raise VptDataError(
                f"Sample {sample.id}: control token at {control.at}, expected {earliest} to {length - 1}"
            )
    for slot in sample.slots:
        if not 0 <= slot.start <= slot.start + slot.length <= length:
            raise VptDataError(
                f"Sample {sample.id}: {slot.kind} slot at {slot.start} with {slot.length} tokens leaves the {length} "
                "tokens of the sample; shorten its text, not its slots"
            )


def _phase(
    samples: Sequence[Encoded],
    number: int,
    offsets: tuple[int, ...],
    coordinates: Tensor,
    place: Tensor,
    stored: int,
    *,
    packed: bool,
    masking: Masking | None,
) -> Phase:
    """Phase `number`; writes into `place` where its tokens are."""
    cuts = {
        row: (0, *(control.at for control in sample.controls), len(sample.input_ids))[number : number + 2]
        for row, sample in enumerate(samples)
        if len(sample.controls) >= number
    }
    lengths = [end - begin for begin, end in cuts.values()]
    shape, firsts = _layout(lengths, packed)
    parts = tuple(Part(row, cut[0], cut[1], first) for (row, cut), first in zip(cuts.items(), firsts, strict=True))
    cells = torch.cat([torch.arange(part.first, part.first + part.end - part.begin) for part in parts])
    own = torch.cat([torch.arange(offsets[part.row] + part.begin, offsets[part.row] + part.end) for part in parts])
    tokens, where = torch.zeros(shape, dtype=torch.int64), torch.zeros(3, *shape, dtype=torch.int64)
    tokens.view(-1)[cells] = own
    where.view(3, -1)[:, cells] = coordinates[:, own]
    place[own] = stored + cells
    seen = [_seen(samples[part.row], part, masking) for part in parts]
    keys = _keys([place[offsets[part.row] + kept] for part, kept in zip(parts, seen, strict=True)], packed)
    segments = tuple(zip(lengths, map(len, seen), strict=True)) if packed else None
    if number == 0:
        return Phase(parts, tokens, where, None, None, segments, None)
    mask = None if packed else _mask(samples, parts, seen, shape[1], masking)
    before = place[torch.tensor([offsets[part.row] + part.begin - 1 for part in parts])]
    return Phase(parts, tokens, where, keys, mask, segments, before)


def _layout(lengths: list[int], packed: bool) -> tuple[tuple[int, int], list[int]]:
    """Grid of a phase and the first cell of each part: one row in all, or a padded row each."""
    if packed:
        return (1, sum(lengths)), [0, *accumulate(lengths)][:-1]
    return (len(lengths), max(lengths)), [row * max(lengths) for row in range(len(lengths))]


def _seen(sample: Encoded, part: Part, masking: Masking | None) -> Tensor:
    """Earlier positions of a sample whose keys this part gets; in the paper's scope a mask hides some later."""
    earlier = torch.arange(part.begin)
    if not part.begin or masking is None or masking.scope == "paper" or not masking.hits(sample.id):
        return earlier
    start, stop = masking.hidden(sample)
    return earlier[(earlier < start) | (earlier >= stop)]


def _keys(places: list[Tensor], packed: bool) -> Tensor:
    """Stored cells int64[B, K]."""
    shape, firsts = _layout([len(one) for one in places], packed)
    keys = torch.zeros(shape, dtype=torch.int64)
    for one, first in zip(places, firsts, strict=True):
        keys.view(-1)[first : first + len(one)] = one
    return keys


def _mask(
    samples: Sequence[Encoded], parts: tuple[Part, ...], seen: list[Tensor], own: int, masking: Masking | None
) -> Tensor:
    """Bool [B, 1, own, K + own]: the earlier cells of the sample, and its own in causal order."""
    counts = torch.tensor([len(kept) for kept in seen])
    earlier = (torch.arange(int(counts.max())) < counts[:, None])[:, None, None, :].repeat(1, 1, own, 1)
    if masking and masking.scope == "paper":
        for row, part in enumerate(parts):
            if masking.hits(samples[part.row].id):
                start, stop = masking.hidden(samples[part.row])
                earlier[row, :, 1 if part.begin == samples[part.row].controls[0].at else 0 :, start:stop] = False
    causal = torch.ones(own, own, dtype=torch.bool).tril().expand(len(parts), 1, own, own)
    return torch.cat([earlier, causal], dim=-1)
