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

from trainer.data.parcel import Parcel
from trainer.data.sample import Batch, Sample
from trainer.encoders import KINDS
from trainer.encoders.kind import Tower
from trainer.model.adapter import Adapter
from trainer.model.attention import KeyValue, Store
from trainer.model.phases import Inputs, Phase, Plan, Planner, Segments, Steered
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
    """Features of all pictures of a batch [F, width], not steered.

    `deep` are tensors [D, width] that some models add after their first layers at the tokens `Inputs.seen`: features of
    the model's own tower once more.
    """

    rows: Tensor
    deep: list[Tensor]


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
        checkpointing: float = 0.0,
    ) -> None:
        """Kinds are those that get a projector; each that has a tower of its own needs it.

        Every look has `control_tokens` control tokens. `positions_1d` counts image tokens like text, as the reference
        does in training. Of the decoder layers, a share of `checkpointing` is not kept but runs again in the backward
        pass.
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

    @property
    def planner(self) -> Planner:
        """Makes the plans that it needs, also in another process."""
        return Planner(self.adapter.merge, self.positions_1d, self.adapter.layout)

    def batch(self, samples: Sequence[Sample]) -> Batch:
        """Samples with their pixels as it takes them, planned on the spot."""
        return Batch(Parcel.of(self.planner(samples)).opened(self.device), self.pixels(samples))

    def pixels(self, samples: Sequence[Sample]) -> dict[str, list[Tensor]]:
        """The pixels of samples as in a batch."""
        found: dict[str, list[Tensor]] = {}
        for slot in (slot for sample in samples for slot in sample.slots):
            if slot.shares is None and slot.pixels is not None:
                found.setdefault(slot.tower, []).append(slot.pixels.to(self.device))
        return found

    def forward(self, given: Batch | Sequence[Sample], phases: int = 0) -> Output:
        """Loss and accuracy of a batch.

        `phases`: run at least as many, with a dummy token if need be. FSDP gathers weights at each call of a layer, so
        all its ranks must make the same number of calls.
        """
        batch = given if isinstance(given, Batch) else self.batch(given)
        missing = phases - len(batch.plan.phases)
        idle = sum((self._idle() for _ in range(missing)), self._anchor())
        out = self.score(batch.plan, self.states(batch))
        return out._replace(loss=out.loss + idle)

    def logits(self, samples: Sequence[Sample]) -> list[Tensor]:
        """Logits [T, vocabulary] of every token of each sample."""
        batch = self.batch(samples)
        logits = self.adapter.head(self.states(batch).index_select(0, batch.plan.cells))
        return list(torch.split(logits, list(batch.plan.lengths)))

    def states(self, batch: Batch) -> Tensor:
        """Final states [cells, width] of a batch."""
        features = self.features(batch.plan.inputs, batch.pixels)
        tokens = self.embed(batch.plan.inputs, features)
        done: list[Tensor] = []
        kept: list[list[KeyValue]] = []
        for phase in batch.plan.phases:
            if phase.before is not None:
                vectors = self.control_vectors(torch.cat(done)[phase.before])
                tokens = self.fill(tokens, features, phase, vectors)
            out, new = self.decode(
                tokens.index_select(0, phase.tokens)[None],
                phase.positions,
                earlier=_earlier(tuple(kept)) if kept else None,
                segments=phase.segments,
                deep=self.deep(features, phase.seen),
                keep=phase is not batch.plan.phases[-1],
            )
            done.append(out[0])
            kept.append(new)
        return torch.cat(done)

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
            again = int((number + 1) * self.checkpointing) > int(number * self.checkpointing)
            if again and torch.is_grad_enabled():
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

    def features(self, inputs: Inputs, pixels: Mapping[str, list[Tensor]]) -> Features:
        """Run every encoder once over all its pictures of a batch."""
        for kind, names in inputs.kinds.items():
            if kind not in ("vlm", *self.projectors):
                known = ", ".join(self.projectors) or "no encoder"
                raise VptDataError(f"Samples {names}: {kind} slots, but this model has {known}")
        rows: list[Tensor] = []
        deep: list[Tensor] = []
        for kind, count, grids in inputs.pictures:
            if kind == "vlm":
                found, deep = self.adapter.features(torch.cat(pixels[kind]), grids, inputs.layout)
            else:
                found = self._encode(kind, pixels[kind])
            if len(found) != count:
                raise VptDataError(
                    f"Samples {inputs.kinds.get(kind, '')}: {len(found)} features of {kind} for {count} placeholders; "
                    "encode with the sizes of this model"
                )
            rows.append(found)
        return Features(torch.cat(rows or [torch.empty(0, self.adapter.width, device=self.device)]), deep)

    def _encode(self, kind: str, pixels: list[Tensor]) -> Tensor:
        """Features [M, width] of pictures through a tower of their own, one after the other."""
        tower, weight = self.towers[kind], next(self.towers[kind].parameters())
        some = [torch.stack(pixels[at : at + _AT_ONCE]).to(weight) for at in range(0, len(pixels), _AT_ONCE)]
        return self.projectors[kind].project(torch.cat([tower(part) for part in some])).flatten(0, 1)

    def embed(self, inputs: Inputs, features: Features) -> Tensor:
        """Embeddings of all tokens [N, width] of a batch, features that are not steered in their places."""
        tokens = self.adapter.embed(inputs.ids)
        return _placed(tokens, inputs.slots[0], features.rows.index_select(0, inputs.slots[1]))

    def fill(self, tokens: Tensor, features: Features, phase: Phase, vectors: Tensor) -> Tensor:
        """Put the control vectors [n, s, width] of a phase into tokens [N, width], and the features that they steer."""
        if phase.controls is not None:
            tokens = _placed(tokens, phase.controls, vectors.flatten(0, 1))
        return self.steer(tokens, features, phase.steered, vectors)

    def steer(self, tokens: Tensor, features: Features, steered: Sequence[Steered], vectors: Tensor) -> Tensor:
        """Put features that control vectors [n, s, width] steer into tokens [any, width]."""
        for one in steered:
            rows, by = features.rows.index_select(0, one.slots[1]), vectors.index_select(0, one.by)
            tokens = _placed(tokens, one.slots[0], self.projectors[one.kind].steer(rows, by, one.lengths))
        return tokens

    def deep(self, features: Features, seen: Tensor) -> list[tuple[Tensor, Tensor]]:
        """What DeepStack adds after each of the first layers, and where; `seen` as in a phase."""
        return [(seen[0], level.index_select(0, seen[1])) for level in features.deep]

    def score(self, plan: Plan, states: Tensor) -> Output:
        """Loss and accuracy from final states [cells, width]; the head runs at labelled positions only."""
        cells, labels, classes, weights = plan.targets
        losses, right = self.judge(states.index_select(0, cells), labels)
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


def _placed(tokens: Tensor, at: Tensor, values: Tensor) -> Tensor:
    """Tokens [any, width] with values [n, width] at int64[n]."""
    return tokens.index_copy(0, at, values.to(tokens))


def _earlier(kept: tuple[list[KeyValue], ...]) -> Callable[[int], KeyValue]:
    """Keys and values of layer i in all cells so far."""
    return lambda layer: (
        torch.cat([phase[layer][0] for phase in kept], dim=2),
        torch.cat([phase[layer][1] for phase in kept], dim=2),
    )
