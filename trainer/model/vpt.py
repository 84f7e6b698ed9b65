"""The VPT model: a stock vision-language model, extra encoders, projectors, and a forward pass at single cost.

The control vector is the final state of the token before the control token. It is fed as the embedding of the control
token and steers the features of the picture that follows; of several control tokens of a look, each has its own. Since
it depends on the prefix alone, the prefix runs once, its keys and values are kept, and only the rest runs after it (see
`phases`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.data.sample import IGNORE, Sample, Slot
from trainer.encoders import KINDS
from trainer.encoders.kind import Tower
from trainer.model.adapter import Adapter
from trainer.model.attention import KeyValue, Store
from trainer.model.phases import Segments, offsets, phase_count, plan, steering
from vpt_data.dialogue.tokens import label_names
from vpt_data.errors import UsageError, VptDataError

_AT_ONCE = 8  # pictures through a tower: a global layer of SAM takes half a gigabyte for each
LABELS_AT_ONCE = 1024  # of each, logits, their float32 copy and its softmax take 1.5 MB in the head


class Output(NamedTuple):
    """Sums over a batch, so that accumulation and ranks can weigh by tokens.

    `loss` is the sum of cross entropies over all labels, each times the weight of its sample, and `labels` the sum of
    those weights (both float32): a sample of weight 2 counts as two. `correct` and `total` are int64, by class.
    """

    loss: Tensor
    labels: Tensor
    correct: Tensor
    total: Tensor


class Features(NamedTuple):
    """Features of all slots of a batch, not steered.

    `slots` has those of (row, number of the slot): [length, width]. `deep` are tensors [D, width] that some models add
    after their first layers at the tokens `deep_tokens` int64[D] of the batch.
    """

    slots: dict[tuple[int, int], Tensor]
    deep: list[Tensor]
    deep_tokens: Tensor


class Steered(NamedTuple):
    """Features [n, width] that control vectors [s, width] are to steer, and the first index where they go."""

    kind: str
    start: int
    features: Tensor
    vectors: Tensor


class VPTModel(nn.Module):
    """A stock `...ForConditionalGeneration` with towers (dino, sam) and projectors (dino, sam, clip)."""

    # Dictionaries of modules, whose values a type checker knows nothing of.
    towers: Any
    projectors: Any

    def __init__(
        self,
        vlm: nn.Module,
        kinds: Sequence[str],
        towers: Mapping[str, Tower] | None = None,
        *,
        control_tokens: int = 1,
        positions_1d: bool = False,
        checkpointing: bool = False,
    ) -> None:
        """Kinds are those that get a projector; each that has a tower of its own needs it.

        Every look has `control_tokens` control tokens. `positions_1d` counts image tokens like text, as the reference
        does in training.
        """
        super().__init__()
        self.vlm = vlm
        self.adapter = Adapter(vlm)
        self.towers = nn.ModuleDict(towers or {})
        self.projectors = nn.ModuleDict()
        for kind in kinds:
            tower = (towers or {}).get(kind)
            if kind not in KINDS or (tower is None and KINDS[kind].tower):
                known = ", ".join(KINDS)
                raise UsageError(f"Kind {kind!r}: expected one of {known}, with its tower if it has one")
            features = tower.width if tower else self.adapter.width
            self.projectors[kind] = KINDS[kind].projector(features, self.adapter.width, control_tokens)
        self.control_tokens = control_tokens
        self.positions_1d = positions_1d
        self.checkpointing = checkpointing

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.vlm.parameters()).device

    def forward(self, samples: Sequence[Sample], phases: int = 0) -> Output:
        """Loss and accuracy of a batch.

        `phases`: run at least as many, with a dummy token if need be. FSDP gathers weights at each call of a layer, so
        all its ranks must make the same number of calls. An empty batch, of a rank that has nothing left, is one dummy.
        """
        missing = max(phases, 1) - phase_count(samples)
        idle = sum((self._idle() for _ in range(missing)), self._anchor())
        if not samples:
            nothing = torch.zeros(len(label_names()), dtype=torch.int64, device=self.device)
            return Output(idle, torch.zeros_like(idle), nothing, nothing)
        out = self.score(samples, *self.states(samples))
        return out._replace(loss=out.loss + idle)

    def logits(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Logits [T, vocabulary] of every token of each sample."""
        states, cells = self.states(samples)
        logits = self.adapter.head(states[cells.to(self.device)])
        return list(torch.split(logits, [len(sample.input_ids) for sample in samples]))

    def states(self, samples: Sequence[Sample]) -> tuple[Tensor, Tensor]:
        """Final states [cells, width] of a batch, and int64[N]: in which cell each token of the batch is."""
        phases, cells = plan(samples, self.adapter.merge, flat=self.positions_1d)
        features = self.features(samples)
        tokens = self.embed(samples, features)
        done: list[Tensor] = []
        kept: list[list[KeyValue]] = []
        for number, phase in enumerate(phases):
            if phase.before is not None:
                vectors = self.control_vectors(torch.cat(done)[phase.before.to(self.device)])
                tokens = self.fill(tokens, samples, features, number - 1, dict(zip(phase.rows, vectors, strict=True)))
            out, new = self.decode(
                tokens.index_select(0, phase.tokens.to(self.device))[None],
                phase.positions,
                earlier=_earlier(tuple(kept)) if kept else None,
                segments=phase.segments.to(self.device),
                deep=self.deep(features, cells - sum(map(len, done)), len(phase.tokens)),
                keep=number + 1 < len(phases),
            )
            done.append(out[0])
            kept.append(new)
        return torch.cat(done), cells

    def control_vectors(self, states: Tensor) -> Tensor:
        """Control vectors [n, s, width] from the final states of the tokens before; a place for experiments."""
        return states

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        mask: Tensor | None = None,
        *,
        earlier: Callable[[int], KeyValue] | None = None,
        segments: Segments | None = None,
        deep: Sequence[tuple[Tensor, Tensor]] = (),
        keep: bool = True,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run all layers over [B, L, width] -> final states, and each layer's keys and values if `keep`.

        `earlier(i)` gives layer i the keys and values before its own. With `segments` B is 1 and the samples are one
        after the other; else `mask` bool [B, 1, L, all keys] is what they see, None: causal. `deep` holds, for each of
        the first layers, what to add after it and where, counted over B and L.
        """
        mask = None if mask is None else mask.to(self.device)
        rope = self.adapter.rope(hidden, positions.to(self.device))
        kept: list[KeyValue] = []

        def run(number: int, layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
            store = Store(None if earlier is None else earlier(number), segments)
            y = self.adapter.run_layer(layer, x, rope, mask, store)
            return (y, *store.new) if keep else (y,)

        for number, layer in enumerate(self.adapter.layers):
            if self.checkpointing and torch.is_grad_enabled():
                # Not transformers' own switch: with it layers drop the store in silence.
                hidden, *new = _recomputed(run, number, layer, hidden)
            else:
                hidden, *new = run(number, layer, hidden)
            if new:
                kept.append((new[0], new[1]))
            if number < len(deep):
                cells, extra = deep[number]
                hidden = hidden.flatten(0, 1).index_add(0, cells, extra.to(hidden.dtype)).view_as(hidden)
        return self.adapter.norm(hidden), kept

    def features(self, samples: Sequence[Sample]) -> Features:
        """Run every encoder once over all its pictures of a batch."""
        starts = offsets(samples)
        found = Features({}, [], torch.empty(0, dtype=torch.int64))
        for kind in ("vlm", *KINDS):
            slots = {(r, n): s for r, one in enumerate(samples) for n, s in enumerate(one.slots) if s.kind == kind}
            if not slots:
                continue
            names = ", ".join(dict.fromkeys(samples[row].id for row, _ in slots))
            if kind not in ("vlm", *self.projectors):
                raise VptDataError(
                    f"Samples {names}: {kind} slots, but this model has {', '.join(self.projectors) or 'no encoder'}"
                )
            features, deep = self._encode(kind, list(slots.values()))
            lengths = [slot.length for slot in slots.values()]
            if len(features) != sum(lengths):
                raise VptDataError(
                    f"Samples {names}: {len(features)} features of {kind} for {sum(lengths)} placeholders; encode with "
                    "the sizes of this model"
                )
            found.slots.update(zip(slots, torch.split(features, lengths), strict=True))
            if kind == "vlm":  # clip has them as well, and steered features are nowhere added to later layers
                at = [torch.arange(slot.length) + starts[row] + slot.start for (row, _), slot in slots.items()]
                found = found._replace(deep=deep, deep_tokens=torch.cat(at))
        return found

    def _encode(self, kind: str, slots: list[Slot]) -> tuple[Tensor, list[Tensor]]:
        """Features of slots, one after the other, not steered, and what is added in later layers."""
        pixels = [slot.pixels for slot in slots if slot.pixels is not None]
        if kind not in self.towers:
            grids = torch.tensor([slot.grid for slot in slots])
            return self.adapter.features(torch.cat(pixels).to(self.device), grids)
        tower, weight = self.towers[kind], next(self.towers[kind].parameters())
        some = [torch.stack(pixels[at : at + _AT_ONCE]).to(weight) for at in range(0, len(pixels), _AT_ONCE)]
        return self.projectors[kind].project(torch.cat([tower(part) for part in some])).flatten(0, 1), []

    def embed(self, samples: Sequence[Sample], features: Features) -> Tensor:
        """Embeddings of all tokens [N, width] of a batch, features that are not steered in their places."""
        tokens = self.adapter.embed(torch.cat([sample.input_ids for sample in samples]).to(self.device))
        if not features.slots:
            return tokens
        starts = offsets(samples)
        at = [starts[row] + samples[row].slots[number].start for row, number in features.slots]
        return _placed(tokens, at, list(features.slots.values()))

    def put(self, tokens: Tensor, steered: Sequence[Steered], controls: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Put steered features, and control vectors [s, width] from their starts on, into tokens [any, width]."""
        starts = [start for start, _ in controls]
        values = [vectors for _, vectors in controls]
        for kind in dict.fromkeys(one.kind for one in steered):
            mine = [one for one in steered if one.kind == kind]
            lengths = [len(one.features) for one in mine]
            features, vectors = torch.cat([one.features for one in mine]), torch.stack([one.vectors for one in mine])
            found = self.projectors[kind].steer(features, vectors, torch.tensor(lengths, device=self.device))
            starts += [one.start for one in mine]
            values += torch.split(found, lengths)
        return _placed(tokens, starts, values) if values else tokens

    def fill(
        self, tokens: Tensor, samples: Sequence[Sample], features: Features, number: int, vectors: Mapping[int, Tensor]
    ) -> Tensor:
        """Put the vectors of control tokens into all tokens [N, width] of a batch, and the features that they steer.

        `vectors` has those [s, width] of the `number`-th look of samples, by their row in the batch.
        """
        starts = offsets(samples)
        known = [(starts[row] + samples[row].controls[number].at, found) for row, found in vectors.items()]
        steered = [
            Steered(slot.kind, starts[row] + slot.start, features.slots[row, place], found)
            for row, found in vectors.items()
            for place, (slot, by) in enumerate(zip(samples[row].slots, steering(samples[row]), strict=True))
            if by == number
        ]
        return self.put(tokens, steered, known)

    def deep(self, features: Features, cells: Tensor, count: int) -> list[tuple[Tensor, Tensor]]:
        """What DeepStack adds after each of the first layers over `count` cells: which of them, and values.

        `cells` int64[N] has the cell of each token of the batch; one that is not below `count` is of another phase.
        """
        if not features.deep:
            return []
        found = cells[features.deep_tokens]
        # Not an index by a mask: it would wait for the device.
        here = ((found >= 0) & (found < count)).nonzero()[:, 0]
        at, rows = found[here].to(self.device), here.to(self.device)
        return [(at, level.index_select(0, rows)) for level in features.deep]

    def score(self, samples: Sequence[Sample], states: Tensor, cells: Tensor) -> Output:
        """Loss and accuracy from final states and the cell of each token; the head runs at labelled positions only."""
        at = [_labelled(sample) for sample in samples]
        wanted = torch.cat([cells[start + where] for start, where in zip(offsets(samples), at, strict=False)])
        labels, classes = (
            torch.cat([column[1:][where] for column, where in zip(columns, at, strict=True)]).to(self.device)
            for columns in ([s.labels for s in samples], [s.classes.long() for s in samples])
        )
        losses, right = self.judge(states.index_select(0, wanted.to(self.device)), labels)
        counts = torch.tensor([len(where) for where in at])
        weights = torch.tensor([sample.weight for sample in samples]).repeat_interleave(counts).to(self.device)
        # Neither bincount nor an index by a mask: both would wait for the device.
        zeros = torch.zeros(len(label_names()), dtype=torch.int64, device=self.device)
        correct, total = (zeros.index_add(0, classes, counted) for counted in (right.long(), torch.ones_like(classes)))
        return Output((losses * weights).sum(dtype=torch.float64).float(), weights.sum(), correct, total)

    def judge(self, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Cross entropy of each label [n], float32, from the final state before it, and whether its logit is largest.

        Logits of one chunk exist at a time: the backward pass computes those of all chunks but the last once more.
        FSDP gathers the head with the root of the model, not at each call, so ranks may have unlike numbers of chunks.
        """

        def some(states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.adapter.head(states).float()
            return functional.cross_entropy(logits, labels, reduction="none"), logits.detach().argmax(-1) == labels

        *before, last = zip(*(torch.split(each, LABELS_AT_ONCE) for each in (states, labels)), strict=True)
        losses, right = zip(*(_recomputed(some, *part) for part in before), some(*last), strict=True)
        return torch.cat(losses), torch.cat(right)

    def _idle(self) -> Tensor:
        """Zero, through a call of every layer and the head."""
        hidden = self.adapter.embed(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        states, _ = self.decode(hidden, torch.zeros(3, 1, 1, dtype=torch.int64), keep=False)
        return self.adapter.head(states).float().sum() * 0.0

    def _anchor(self) -> Tensor:
        """Zero, with every weight in its graph that a batch may leave out; DDP waits for the gradients of all."""
        rarely = [*self.projectors.parameters(), *self.towers.parameters(), *self.adapter.vision.parameters()]
        zero = torch.zeros((), device=self.device)
        return sum((p.flatten()[0].float() * 0.0 for p in rarely if p.requires_grad), zero)


def _recomputed(run: Callable[..., Any], *given: Any) -> Any:
    """What `run` returns; its backward pass runs it again. Nothing in the model is random, so no seed is kept."""
    return checkpoint(run, *given, use_reentrant=False, preserve_rng_state=False)


def _labelled(sample: Sample) -> Tensor:
    """Positions whose next token has a label; a control token never has, whatever `labels` says."""
    wanted = sample.labels != IGNORE
    wanted[0] = False
    for control in sample.controls:
        wanted[control.at : control.at + control.count] = False
    return wanted.nonzero()[:, 0] - 1


def _placed(tokens: Tensor, starts: Sequence[int], values: Sequence[Tensor]) -> Tensor:
    """Tokens [any, width] with rows of values [n, width] from each start on."""
    at = torch.cat([torch.arange(len(value)) + start for start, value in zip(starts, values, strict=True)])
    return tokens.index_copy(0, at.to(tokens.device), torch.cat(list(values)).to(tokens))


def _earlier(kept: tuple[list[KeyValue], ...]) -> Callable[[int], KeyValue]:
    """Keys and values of layer i in all cells so far."""
    return lambda layer: (
        torch.cat([phase[layer][0] for phase in kept], dim=2),
        torch.cat([phase[layer][1] for phase in kept], dim=2),
    )
