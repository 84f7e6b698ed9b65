"""The VPT model: a stock vision-language model, extra encoders, projectors, and a forward pass at single cost.

The control vector is the final state of the token before the control token. It is fed as the embedding of the control
token and steers the features of the picture that follows. Since it depends on the prefix alone, the prefix runs once,
its keys and values are kept, and only the rest runs after it (see `plan`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from trainer.data.encoded import CLASS_NAMES, IGNORE, Encoded, Slot
from trainer.encoders import KINDS
from trainer.model.adapter import Adapter, KeyValue, Segments, Store
from trainer.model.phases import Masking, Plan, phase_count, plan, steering
from trainer.model.towers import Tower, has_tower
from vpt_data.errors import UsageError, VptDataError


class Output(NamedTuple):
    """Sums over a batch, so that accumulation and ranks can weigh by tokens.

    `loss` is the sum of cross entropies over all labels, each times the weight of its sample, and `labels` the sum of
    those weights (both float32): a sample of weight 2 counts as two. `correct` and `total` are int64[5], by class.
    """

    loss: Tensor
    labels: Tensor
    correct: Tensor
    total: Tensor


@dataclass(frozen=True)
class Compat:
    """Deviations of the reference code, each off by default.

    `positions_1d`: image tokens get text positions, as in its training. `frozen_embeddings`: no gradient to input
    embeddings. `zero_user_turn`: mask modelling sets the embeddings of the first user turn to zero in a second full
    pass, with one coin for all samples of a batch.
    """

    positions_1d: bool = False
    frozen_embeddings: bool = False
    zero_user_turn: bool = False


class Pictures(NamedTuple):
    """Features of all slots of a batch, not steered.

    `slots` has those of (row, number of the slot). `features` and `at` have them together: [M, width] and the tokens
    int64[M] of the batch that they stand for. `deep` are tensors [D, width] that some models add after their first
    layers at the tokens `deep_at` int64[D].
    """

    features: list[Tensor]
    slots: dict[tuple[int, int], Tensor]
    at: list[Tensor]
    deep: list[Tensor]
    deep_at: Tensor


class Steered(NamedTuple):
    """Features [n, width] that a control vector [width] is to steer, and the first of the cells where they go."""

    kind: str
    cell: int
    features: Tensor
    vector: Tensor


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
        masking: Masking | None = None,
        compat: Compat | None = None,
        packing: bool = False,
        checkpointing: bool = False,
    ) -> None:
        """Kinds are those that get a projector; each that has a tower of its own needs it."""
        super().__init__()
        self.vlm = vlm
        self.adapter = Adapter(vlm)
        self.towers = nn.ModuleDict(towers or {})
        self.projectors = nn.ModuleDict()
        for kind in kinds:
            tower = (towers or {}).get(kind)
            if kind not in KINDS or (tower is None and has_tower(kind)):
                known = ", ".join(KINDS)
                raise UsageError(f"Kind {kind!r}: expected one of {known}, with its tower if it has one")
            features = tower.features if tower else self.adapter.width
            self.projectors[kind] = KINDS[kind].projector(features, self.adapter.width)
        self.masking = masking or Masking()
        self.compat = compat or Compat()
        self.packing = packing
        self.checkpointing = checkpointing

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.vlm.parameters()).device

    def forward(self, samples: Sequence[Encoded], phases: int = 0) -> Output:
        """Loss and accuracy of a batch; mask modelling in training mode only.

        `phases`: run at least as many, with a dummy token if need be. FSDP gathers weights at each call of a layer, so
        all its ranks must make the same number of calls. An empty batch, of a rank that has nothing left, is one dummy.
        """
        missing = max(phases, 1) - phase_count(samples)
        idle = sum((self._idle() for _ in range(missing)), self._anchor())
        if not samples:
            nothing = torch.zeros(len(CLASS_NAMES), dtype=torch.int64, device=self.device)
            return Output(idle, torch.zeros_like(idle), nothing, nothing)
        out = self.score(samples, *self.states(samples))
        return out._replace(loss=out.loss + idle)

    def logits(self, samples: Sequence[Encoded]) -> list[Tensor]:
        """Logits [T, vocabulary] of every token of each sample."""
        states, cut = self.states(samples)
        return list(
            torch.split(self.adapter.head(states[cut.place.to(self.device)]), [len(s.input_ids) for s in samples])
        )

    def states(self, samples: Sequence[Encoded]) -> tuple[Tensor, Plan]:
        """Final states [cells, width] of a batch; `Plan.place` says in which cell each token is."""
        zeroed = self.compat.zero_user_turn
        masking = self.masking if self.training and self.masking.ratio > 0 and not zeroed else None
        cut = plan(samples, self.adapter.merge, packed=self.packing, flat=self.compat.positions_1d, masking=masking)
        pictures = self.look(samples)
        tokens = self.embed(samples, pictures)
        done: list[Tensor] = []
        kept: list[list[KeyValue]] = []
        for number, phase in enumerate(cut.phases):
            if phase.before is not None:
                vectors = self.control_vectors(torch.cat(done)[phase.before.to(self.device)])
                found = {part.row: vector for part, vector in zip(phase.parts, vectors, strict=True)}
                tokens = self.fill(tokens, samples, pictures, number - 1, found)
            hidden = tokens.index_select(0, phase.tokens.flatten().to(self.device)).view(*phase.tokens.shape, -1)
            out, new = self.decode(
                hidden,
                phase.positions,
                phase.mask,
                earlier=None if phase.keys is None else _earlier(tuple(kept), phase.keys.to(self.device)),
                segments=phase.segments,
                deep=self.deep(pictures, cut.place - sum(map(len, done)), phase.tokens.shape),
                keep=number + 1 < len(cut.phases),
            )
            done.append(out.flatten(0, 1))
            kept.append(new)
        if zeroed and self.training and self.masking.hits(samples[0].id):
            return self._again(samples, pictures, tokens)
        return torch.cat(done), cut

    def _again(self, samples: Sequence[Encoded], pictures: Pictures, tokens: Tensor) -> tuple[Tensor, Plan]:
        """The second pass of the reference, over tokens that are filled but hold nothing of first user turns."""
        plain = [replace(sample, controls=()) for sample in samples]
        cut = plan(plain, self.adapter.merge, packed=False, flat=self.compat.positions_1d)
        content = torch.ones(len(tokens), 1)
        for sample, start in zip(samples, cut.offsets, strict=False):
            first, stop = sample.first_user
            if sample.controls and first < stop:
                end = int((sample.input_ids[first:] == self.adapter.end_of_turn).nonzero()[0])
                content[start + first + 1 : start + first + end] = 0.0
        phase = cut.phases[0]
        hidden = (tokens * content.to(tokens))[phase.tokens.to(self.device)]
        deep = self.deep(pictures, cut.place, phase.tokens.shape)
        out, _ = self.decode(hidden, phase.positions, None, deep=deep, keep=False)
        return out.flatten(0, 1), cut

    def control_vectors(self, states: Tensor) -> Tensor:
        """Control vectors [n, width] from the final states of the tokens before; a place for experiments."""
        return states

    def decode(
        self,
        hidden: Tensor,
        positions: Tensor,
        mask: Tensor | None,
        *,
        earlier: Callable[[int], KeyValue] | None = None,
        segments: Segments | None = None,
        deep: Sequence[tuple[Tensor, Tensor, Tensor]] = (),
        keep: bool = True,
    ) -> tuple[Tensor, list[KeyValue]]:
        """Run all layers over [B, L, width] -> final states, and each layer's keys and values if `keep`.

        `earlier(i)` gives layer i the keys and values before its own. `deep` holds, for each of the first layers,
        rows, columns and what to add there after the layer.
        """
        mask = None if mask is None else mask.to(self.device)
        rope = self.adapter.rope(hidden, positions.to(self.device))
        kept: list[KeyValue] = []

        def run(number: int, layer: nn.Module, x: Tensor) -> tuple[Tensor, ...]:
            store = Store(None if earlier is None else lambda: earlier(number))
            y = self.adapter.run_layer(layer, x, rope, mask, store, segments)
            return (y, *store.new) if keep else (y,)

        for number, layer in enumerate(self.adapter.layers):
            if self.checkpointing and torch.is_grad_enabled():
                # Not transformers' own switch: with it layers drop the store in silence.
                hidden, *new = checkpoint(run, number, layer, hidden, use_reentrant=False)
            else:
                hidden, *new = run(number, layer, hidden)
            if new:
                kept.append((new[0], new[1]))
            if number < len(deep):
                rows, columns, extra = deep[number]
                hidden = hidden.index_put((rows, columns), extra.to(hidden.dtype), accumulate=True)
        return self.adapter.norm(hidden), kept

    def look(self, samples: Sequence[Encoded]) -> Pictures:
        """Run every encoder once over all its pictures of a batch."""
        starts = (0, *accumulate(len(sample.input_ids) for sample in samples))
        pictures = Pictures([], {}, [], [], torch.empty(0, dtype=torch.int64))
        for kind in ("vlm", *KINDS):
            found = [(r, n, s) for r, one in enumerate(samples) for n, s in enumerate(one.slots) if s.kind == kind]
            if not found:
                continue
            names = ", ".join(dict.fromkeys(samples[row].id for row, _, _ in found))
            if kind not in ("vlm", *self.projectors):
                raise VptDataError(f"Samples {names}: {kind} slots, but this model has {', '.join(self.projectors)}")
            features, deep = self._see(kind, [slot for _, _, slot in found])
            counted = sum(slot.length for _, _, slot in found)
            if len(features) != counted:
                raise VptDataError(
                    f"Samples {names}: {len(features)} features of {kind} for {counted} placeholders; encode with the "
                    "sizes of this model"
                )
            at = torch.cat([torch.arange(slot.length) + starts[row] + slot.start for row, _, slot in found])
            parts = torch.split(features, [slot.length for _, _, slot in found])
            pictures.slots.update({(row, n): part for (row, n, _), part in zip(found, parts, strict=True)})
            pictures.features.append(features)
            pictures.at.append(at)
            pictures = pictures._replace(deep=deep, deep_at=at) if kind == "vlm" else pictures
        return pictures

    def _see(self, kind: str, slots: list[Slot]) -> tuple[Tensor, list[Tensor]]:
        """Features of slots, one after the other, not steered, and what is added in later layers."""
        if kind not in self.towers:
            pixels = torch.cat([slot.pixels for slot in slots]).to(self.device)
            return self.adapter.look(pixels, torch.tensor([slot.grid for slot in slots], device=self.device))
        pixels = torch.stack([slot.pixels for slot in slots])
        weight = next(self.towers[kind].parameters())
        return self.projectors[kind].project(self.towers[kind](pixels.to(weight))).flatten(0, 1), []

    def embed(self, samples: Sequence[Encoded], pictures: Pictures) -> Tensor:
        """Embeddings of all tokens [N, width], features that are not steered in their places."""
        ids = torch.cat([sample.input_ids for sample in samples]).to(self.device)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.compat.frozen_embeddings):
            tokens = self.adapter.embed(ids)
        if not pictures.features:
            return tokens
        return tokens.index_copy(0, torch.cat(pictures.at).to(self.device), torch.cat(pictures.features).to(tokens))

    def put(self, tokens: Tensor, steered: Sequence[Steered], controls: Sequence[tuple[int, Tensor]]) -> Tensor:
        """Put steered features, and control vectors [width] at their cells, into tokens [cells, width]."""
        cells = [torch.tensor([cell for cell, _ in controls], dtype=torch.int64)]
        values = [torch.stack([vector for _, vector in controls])] if controls else []
        for kind in dict.fromkeys(one.kind for one in steered):
            mine = [one for one in steered if one.kind == kind]
            lengths = torch.tensor([len(one.features) for one in mine], device=self.device)
            features, vectors = torch.cat([one.features for one in mine]), torch.stack([one.vector for one in mine])
            values.append(self.projectors[kind].steer(features, vectors, lengths))
            cells += [torch.arange(len(one.features)) + one.cell for one in mine]
        if not values:
            return tokens
        return tokens.index_copy(0, torch.cat(cells).to(self.device), torch.cat(values).to(tokens))

    def fill(
        self, tokens: Tensor, samples: Sequence[Encoded], pictures: Pictures, number: int, vectors: Mapping[int, Tensor]
    ) -> Tensor:
        """Put the vectors of control tokens into all tokens [N, width] of a batch, and the features that they steer.

        `vectors` has those of the `number`-th control token of samples, by their place in the batch.
        """
        starts = (0, *accumulate(len(sample.input_ids) for sample in samples))
        known = [(starts[row] + samples[row].controls[number].at, vector) for row, vector in vectors.items()]
        steered = [
            Steered(slot.kind, starts[row] + slot.start, pictures.slots[row, place], vector)
            for row, vector in vectors.items()
            for place, (slot, by) in enumerate(zip(samples[row].slots, steering(samples[row]), strict=True))
            if by == number
        ]
        return self.put(tokens, steered, known)

    def deep(self, pictures: Pictures, cells: Tensor, shape: Sequence[int]) -> list[tuple[Tensor, Tensor, Tensor]]:
        """What DeepStack adds over a grid B x L: rows, columns and values after each of the first layers.

        `cells` int64[N] has the cell of each token of the batch; a token outside the grid belongs to another phase.
        """
        if not pictures.deep:
            return []
        found = cells[pictures.deep_at]
        here = (found >= 0) & (found < shape[0] * shape[1])
        rows, columns = (x.to(self.device) for x in (found[here] // shape[1], found[here] % shape[1]))
        return [(rows, columns, level[here.to(self.device)]) for level in pictures.deep]

    def score(self, samples: Sequence[Encoded], states: Tensor, cut: Plan) -> Output:
        """Loss and accuracy; the head runs at labelled positions only."""
        at = [_labelled(sample) for sample in samples]
        cells = torch.cat([cut.place[start + where] for start, where in zip(cut.offsets, at, strict=False)])
        labels, classes = (
            torch.cat([column[1:][where] for column, where in zip(columns, at, strict=True)]).to(self.device)
            for columns in ([s.labels for s in samples], [s.classes.long() for s in samples])
        )
        logits = self.adapter.head(states.index_select(0, cells.to(self.device))).float()
        counts = torch.tensor([len(where) for where in at])
        weights = torch.tensor([sample.weight for sample in samples]).repeat_interleave(counts).to(self.device)
        losses = functional.cross_entropy(logits, labels, reduction="none") * weights
        right = logits.detach().argmax(-1) == labels
        # Neither bincount nor an index by a mask: both would wait for the device.
        zeros = torch.zeros(len(CLASS_NAMES), dtype=torch.int64, device=self.device)
        correct, total = (zeros.index_add(0, classes, counted) for counted in (right.long(), torch.ones_like(classes)))
        return Output(losses.sum(dtype=torch.float64).float(), weights.sum(), correct, total)

    def _idle(self) -> Tensor:
        """Zero, through a call of every layer and the head."""
        hidden = self.adapter.embed(torch.zeros(1, 1, dtype=torch.int64, device=self.device))
        states, _ = self.decode(hidden, torch.zeros(3, 1, 1, dtype=torch.int64), None, keep=False)
        return self.adapter.head(states).float().sum() * 0.0

    def _anchor(self) -> Tensor:
        """Zero, with every weight in its graph that a batch may leave out; DDP waits for the gradients of all."""
        rarely = [*self.projectors.parameters(), *self.towers.parameters(), *self.adapter.vision.parameters()]
        zero = torch.zeros((), device=self.device)
        return sum((p.flatten()[0].float() * 0.0 for p in rarely if p.requires_grad), zero)


def _labelled(sample: Encoded) -> Tensor:
    """Positions whose next token has a label; a control token never has, whatever `labels` says."""
    wanted = sample.labels != IGNORE
    wanted[[0, *(control.at for control in sample.controls)]] = False
    return wanted.nonzero()[:, 0] - 1


def _earlier(kept: tuple[list[KeyValue], ...], keys: Tensor) -> Callable[[int], KeyValue]:
    """Keys and values of layer i at stored cells int64[B, K] of all phases so far."""

    def gather(blocks: list[Tensor]) -> Tensor:
        stored = torch.cat([block.transpose(0, 1).flatten(1, 2) for block in blocks], dim=1)
        found = stored.index_select(1, keys.flatten())
        return found.view(len(found), *keys.shape, -1).transpose(0, 1)

    return lambda layer: (gather([k[layer][0] for k in kept]), gather([k[layer][1] for k in kept]))
