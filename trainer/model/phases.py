"""How a batch of samples is cut into phases, and every index that the model needs for it: no model, and no pixels.

Worker processes make the plan, so that the model neither computes indices nor waits for their way to a GPU.

A control token needs the final state of the token before it. So a sample with n looks that have control tokens runs in
n + 1 phases, each from one control token to the next; a phase sees the keys and values of the phases before it and
computes nothing twice. Phase 0 holds all samples, phase p those with p looks or more, one sample after the other.

A look with several control tokens needs the final states of all but the last of them, too, as ordinary tokens: these
run at the end of a phase, and again, with their vectors as embeddings, at the beginning of the next.

What an index counts:

position  a token of its sample: `at`, `start`, `begin`, `end`
token     a token of the batch, sample after sample: `offsets[row] + position`
feature   a feature of a picture: all pictures of the model's own tower, then those of each other one, each once
cell      a token where it is computed, phase after phase: final states, keys and values are stored in this order; the
          cell of a token that is computed twice is the later one
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from trainer.data.sample import IGNORE, Sample, block
from trainer.encoders import KINDS
from vpt_data.errors import VptDataError


class Segments(NamedTuple):
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


class Pictures(NamedTuple):
    """The pictures of one tower: how many features they have, and grids (t, h, w) of those of the model's own."""

    kind: str
    features: int
    grids: tuple[tuple[int, int, int], ...]


class Inputs(NamedTuple):
    """What the embeddings of a batch are made of.

    ids       int64[N]: token ids
    pictures  by tower; `layout` is what the model's own computes from grids, see `Adapter.layout`
    kinds     encoders that slots name, and the samples that these are of
    slots     int64[2, M]: tokens that features replace, and these features
    seen      int64[2, D]: those of them that some models add in later layers, too: of pictures that nothing steers
    first     the first feature of each slot of each sample
    """

    ids: Tensor
    pictures: tuple[Pictures, ...]
    layout: dict[str, Any]
    kinds: dict[str, str]
    slots: Tensor
    seen: Tensor
    first: tuple[tuple[int, ...], ...]


class Steered(NamedTuple):
    """Slots of one encoder that control vectors steer.

    slots    int64[2, M]: their tokens, and their features, one slot after the other
    lengths  int64[n]: how many of them are of each slot
    by       int64[n]: which of the vectors steers it
    """

    kind: str
    slots: Tensor
    lengths: Tensor
    by: Tensor


class Phase(NamedTuple):
    """One pass of L tokens through the layers.

    tokens     int64[L]: tokens of the batch
    positions  int64[3, 1, L]: M-RoPE
    segments   which tokens see which: keys are counted as cells, those of this phase after those of phases before
    seen       int64[2, D]: what `Inputs.seen` has of this phase, the first of them counted among its L tokens
    before     int64[n, s]: the cells whose final states are the control vectors of the samples; None in phase 0
    controls   int64[n * s]: the tokens that these vectors replace
    steered    what they steer
    """

    tokens: Tensor
    positions: Tensor
    segments: Segments
    seen: Tensor
    before: Tensor | None = None
    controls: Tensor | None = None
    steered: Sequence[Steered] = ()


class Targets(NamedTuple):
    """The n labels: cells of the tokens before them, ids, classes int64[n]; weights of their samples float32[n]."""

    cells: Tensor
    labels: Tensor
    classes: Tensor
    weights: Tensor


class Plan(NamedTuple):
    """All indices of a batch; `cells` int64[N] is the cell of each token, `lengths` the tokens of each sample."""

    inputs: Inputs
    phases: list[Phase]
    targets: Targets
    cells: Tensor
    lengths: tuple[int, ...]


@dataclass(frozen=True)
class Planner:
    """Makes plans for one model; small, and can be sent to other processes.

    merge   patches of a side that become one token
    flat    positions count image tokens like text
    layout  what the model's own tower computes from grids
    """

    merge: int
    flat: bool
    layout: Callable[[Sequence[tuple[int, int, int]]], dict[str, Any]]

    def inputs(self, samples: Sequence[Sample]) -> Inputs:
        """What the embeddings of a batch are made of."""
        starts, kinds = offsets(samples), _kinds(samples)
        first = [[0] * len(sample.slots) for sample in samples]
        towers, done = [], 0
        for tower in ("vlm", *(kind for kind in KINDS if kind in kinds and KINDS[kind].tower)):
            found, grids = done, []
            for row, sample in enumerate(samples):
                for number, slot in enumerate(sample.slots):
                    if slot.tower != tower:
                        continue
                    if slot.shares is not None:
                        first[row][number] = first[row][slot.shares]
                        continue
                    first[row][number], done = done, done + slot.length
                    grids += [slot.grid] if slot.grid is not None else []
            if done > found:
                towers.append(Pictures(tower, done - found, tuple(grids)))
        layout = self.layout(towers[0].grids) if towers and towers[0].kind == "vlm" else {}
        shown = [
            (slot.kind, (start + slot.start, feature, slot.length))
            for start, sample, features in zip(starts, samples, first, strict=False)
            for slot, feature in zip(sample.slots, features, strict=True)
        ]
        slots, plain = _runs([run for _, run in shown]), _runs([run for kind, run in shown if kind == "vlm"])
        ids = torch.cat([sample.input_ids for sample in samples])
        return Inputs(ids, tuple(towers), layout, kinds, slots, plain, tuple(map(tuple, first)))

    def __call__(self, samples: Sequence[Sample]) -> Plan:
        """The plan of a batch; an empty one gets two tokens without labels, because ranks wait for each other."""
        samples = samples or [block(torch.zeros(2, dtype=torch.int64), id="idle")]
        for sample in samples:
            check(sample)
        starts, inputs = offsets(samples), self.inputs(samples)
        coordinates = torch.cat([positions(sample, self.merge, flat=self.flat) for sample in samples], dim=1)
        cells, phases, done = torch.empty(starts[-1], dtype=torch.int64), [], 0
        for number in range(phase_count(samples)):
            phases.append(_phase(samples, number, inputs, cells, done, coordinates))
            cells[phases[-1].tokens] = torch.arange(done, done + len(phases[-1].tokens))
            done += len(phases[-1].tokens)
        lengths = tuple(len(sample.input_ids) for sample in samples)
        return Plan(inputs, phases, _targets(samples, starts, cells), cells, lengths)


def steered(entries: Iterable[tuple[str, int, int, int, int]]) -> list[Steered]:
    """Slots (encoder, first token, first feature, length, number of the vector) by encoder."""
    kinds: dict[str, list[tuple[int, int, int, int]]] = {}
    for kind, *slot in entries:
        kinds.setdefault(kind, []).append((slot[0], slot[1], slot[2], slot[3]))
    return [
        Steered(kind, _runs([slot[:3] for slot in slots]), *torch.tensor([slot[2:] for slot in slots]).T)
        for kind, slots in kinds.items()
    ]


def _kinds(samples: Sequence[Sample]) -> dict[str, str]:
    """The encoders that slots name, and the samples that these are of."""
    kinds: dict[str, dict[str, None]] = {}
    for sample in samples:
        for slot in sample.slots:
            kinds.setdefault(slot.kind, {})[sample.id] = None
    return {kind: ", ".join(ids) for kind, ids in kinds.items()}


def _runs(slots: Sequence[tuple[int, int, int]]) -> Tensor:
    """Runs (first token, first feature, length), one after the other: int64[2, M]."""
    runs = [torch.arange(length) + torch.tensor([[token], [feature]]) for token, feature, length in slots]
    return torch.cat([torch.empty(2, 0, dtype=torch.int64), *runs], dim=1)


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
    samples: Sequence[Sample], number: int, inputs: Inputs, cells: Tensor, done: int, coordinates: Tensor
) -> Phase:
    """Phase `number`; `cells` has the tokens of the phases before it, which filled `done` of them."""
    starts = offsets(samples)
    rows = [row for row, sample in enumerate(samples) if len(sample.controls) >= number]
    spans = {row: _span(samples[row], number) for row in rows}
    tokens = torch.cat([starts[row] + torch.arange(begin, end) for row, (begin, end) in spans.items()])
    where, own = coordinates[:, None, tokens], [end - begin for begin, end in spans.values()]
    places = torch.full((starts[-1],), -1).index_copy(0, tokens, torch.arange(len(tokens)))[inputs.seen[0]]
    seen = torch.stack([places, inputs.seen[1]])[:, places >= 0]
    if not number:
        return Phase(tokens, where, Segments.of(own, own), seen)
    new = torch.split(torch.arange(done, done + len(tokens)), own)
    keys = [
        torch.cat([cells[starts[row] + _seen(samples[row], begin)], mine])
        for (row, (begin, _)), mine in zip(spans.items(), new, strict=True)
    ]
    counts = [samples[row].controls[number - 1].count for row in rows]
    controls = [starts[row] + spans[row][0] + torch.arange(n) for row, n in zip(rows, counts, strict=True)]
    steers = [
        (slot.kind, starts[row] + slot.start, inputs.first[row][place], slot.length, by)
        for by, row in enumerate(rows)
        for place, (slot, control) in enumerate(zip(samples[row].slots, steering(samples[row]), strict=True))
        if control == number - 1
    ]
    segments = Segments.of(own, [len(each) for each in keys], torch.cat(keys))
    before = cells[torch.stack(controls) - 1]
    return Phase(tokens, where, segments, seen, before, torch.cat(controls), steered(steers))


def _targets(samples: Sequence[Sample], starts: list[int], cells: Tensor) -> Targets:
    """The labels of a batch; the first token and control tokens have none, whatever `labels` says."""
    labels, classes = (torch.cat(columns) for columns in ([s.labels for s in samples], [s.classes for s in samples]))
    wanted = labels != IGNORE
    wanted[starts[:-1]] = False
    for start, control in ((start, c) for start, sample in zip(starts, samples, strict=False) for c in sample.controls):
        wanted[start + control.at : start + control.at + control.count] = False
    at = wanted.nonzero()[:, 0]
    lengths = torch.tensor([len(sample.input_ids) for sample in samples])
    weights = torch.tensor([sample.weight for sample in samples]).repeat_interleave(lengths)
    return Targets(cells[at - 1], labels[at], classes[at].long(), weights[at])


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
