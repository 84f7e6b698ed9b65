"""How a batch of samples is cut into phases: integers only, no model.

A control token needs the final state of the token before it. So a sample with n looks that have control tokens runs in
n + 1 phases, each from one control token to the next; a phase sees the keys and values of the phases before it and
computes nothing twice. Phase 0 holds all samples, phase p those with p looks or more, one sample after the other.

A look with several control tokens needs the final states of all but the last of them, too, as ordinary tokens: these
run at the end of a phase, and again, with their vectors as embeddings, at the beginning of the next.

What an index counts:

position  a token of its sample: `at`, `start`, `begin`, `end`
token     a token of the batch, sample after sample: `offsets[row] + position`
cell      a token where it is computed, phase after phase: final states, keys and values are stored in this order; the
          cell of a token that is computed twice is the later one
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import torch
from torch import Tensor

from trainer.data.sample import Sample
from vpt_data.errors import VptDataError


@dataclass(frozen=True)
class Segments:
    """Which keys are seen by samples whose queries stand one after the other.

    queries  of each sample: how many
    keys     of each sample: how many; the last of them are its own, one a query, and causal
    bounds   int32[2, n + 1]: where queries and keys of each of n samples begin, and at last how many there are
    order    int64[sum of keys]: the keys of all samples, sample after sample; None if they are in this order
    """

    queries: tuple[int, ...]
    keys: tuple[int, ...]
    bounds: Tensor
    order: Tensor | None = None

    @classmethod
    def of(cls, queries: Sequence[int], keys: Sequence[int], order: Tensor | None = None) -> Segments:
        """Segments of so many queries and keys."""
        bounds = torch.tensor([[0, *accumulate(lengths)] for lengths in (queries, keys)], dtype=torch.int32)
        return cls(tuple(queries), tuple(keys), bounds, order)

    def to(self, device: torch.device) -> Segments:
        """The same with tensors on a device."""
        return replace(self, bounds=self.bounds.to(device), order=None if self.order is None else self.order.to(device))


@dataclass(frozen=True)
class Phase:
    """One pass of L tokens through the layers.

    rows       the samples that take part
    tokens     int64[L]: their tokens of the batch
    positions  int64[3, 1, L]: M-RoPE
    segments   which tokens see which: keys are counted as cells, those of this phase after those of phases before
    before     int64[n, s]: the cells whose final states are the control vectors of the samples; None in phase 0
    """

    rows: tuple[int, ...]
    tokens: Tensor
    positions: Tensor
    segments: Segments
    before: Tensor | None = None


def positions(sample: Sample, merge: int, *, flat: bool = False, start: int = 0) -> Tensor:
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


def offsets(samples: Sequence[Sample]) -> list[int]:
    """The first token of each sample among those of the batch, and at last how many there are."""
    return [0, *accumulate(len(sample.input_ids) for sample in samples)]


def steering(sample: Sample) -> list[int | None]:
    """For each slot the index of the control that steers it: each control takes the next free slot of its kind."""
    taken: list[int | None] = [None] * len(sample.slots)
    for number, control in enumerate(sample.controls):
        for place, slot in enumerate(sample.slots):
            if slot.kind == control.kind and slot.start > control.at and taken[place] is None:
                taken[place] = number
                break
    return taken


def phase_count(samples: Sequence[Sample]) -> int:
    """Number of phases that a batch needs, 0 if it is empty; under FSDP all ranks must run the largest of theirs."""
    return max((1 + len(sample.controls) for sample in samples), default=0)


def plan(samples: Sequence[Sample], merge: int, *, flat: bool = False) -> tuple[list[Phase], Tensor]:
    """The phases of a batch, and int64[N]: the cell of each token of the batch."""
    for sample in samples:
        check(sample)
    starts = offsets(samples)
    coordinates = torch.cat([positions(sample, merge, flat=flat) for sample in samples], dim=1)
    cells, phases, done = torch.empty(starts[-1], dtype=torch.int64), [], 0
    for number in range(phase_count(samples)):
        phases.append(_phase(samples, number, starts, cells, done, coordinates))
        tokens = phases[-1].tokens
        cells[tokens] = torch.arange(done, done + len(tokens))
        done += len(tokens)
    return phases, cells


def check(sample: Sample, earliest: int = 1) -> None:
    """VptDataError unless slots and controls are inside the sample, and no control before `earliest`."""
    length = len(sample.input_ids)
    for control in sample.controls:
        if not earliest <= control.at <= length - control.count:
            expected = f"{earliest} to {length - control.count}"
            raise VptDataError(f"Sample {sample.id}: control token at {control.at}, expected {expected}")
    for slot in sample.slots:
        if not 0 <= slot.start <= slot.start + slot.length <= length:
            raise VptDataError(
                f"Sample {sample.id}: {slot.kind} slot at {slot.start} with {slot.length} tokens leaves the {length} "
                "tokens of the sample; shorten its text, not its slots"
            )


def _phase(
    samples: Sequence[Sample], number: int, starts: list[int], cells: Tensor, done: int, coordinates: Tensor
) -> Phase:
    """Phase `number`; `cells` has the tokens of the phases before it, which filled `done` of them."""
    rows = tuple(row for row, sample in enumerate(samples) if len(sample.controls) >= number)
    spans = {row: _span(samples[row], number) for row in rows}
    tokens = torch.cat([starts[row] + torch.arange(begin, end) for row, (begin, end) in spans.items()])
    where = coordinates[:, None, tokens]
    own = [end - begin for begin, end in spans.values()]
    if not number:
        return Phase(rows, tokens, where, Segments.of(own, own))
    new = torch.split(torch.arange(done, done + len(tokens)), own)
    seen = [
        torch.cat([cells[starts[row] + _seen(samples[row], begin)], mine])
        for (row, (begin, _)), mine in zip(spans.items(), new, strict=True)
    ]
    counts = [samples[row].controls[number - 1].count for row in rows]
    before = [starts[row] + spans[row][0] - 1 + torch.arange(n) for row, n in zip(rows, counts, strict=True)]
    segments = Segments.of(own, [len(keys) for keys in seen], torch.cat(seen))
    return Phase(rows, tokens, where, segments, cells[torch.stack(before)])


def _span(sample: Sample, number: int) -> tuple[int, int]:
    """Positions of a sample in phase `number`: from one look's control tokens to the last of the next look's."""
    begin = sample.controls[number - 1].at if number else 0
    following = sample.controls[number] if number < len(sample.controls) else None
    return begin, following.at + following.count - 1 if following else len(sample.input_ids)


def _seen(sample: Sample, begin: int) -> Tensor:
    """Positions before `begin` that the phase which begins there sees."""
    earlier = torch.arange(begin)
    if not (begin and sample.masked):
        return earlier
    start, stop = hidden(sample)
    return earlier[(earlier < start) | (earlier >= stop)]


def hidden(sample: Sample) -> tuple[int, int]:
    """Positions, half open, that the rest of a masked sample does not see.

    Not the user turn alone: the template tokens up to the control token have seen it.
    """
    start, stop = sample.first_user
    return (start, stop) if start == stop else (start, sample.controls[0].at)
