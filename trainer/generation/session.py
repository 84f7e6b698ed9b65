"""Generation in one session: keys and values stay, tokens and pictures are appended to rows of different length."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from trainer.data.parcel import Parcel
from trainer.data.sample import Sample, block
from trainer.model.attention import KeyValue
from trainer.model.phases import Inputs, check, positions, steered
from trainer.model.vpt import Features, VPTModel

Routes = tuple[Tensor, Tensor | None]
#: Control vectors [n, s, width] of n rows, the rows, their encoders -> what is fed in place of the control tokens, and
#: what steers features (None: nothing does).
Steering = Callable[[Tensor, Sequence[int], Sequence[str]], Routes]
_ROOM = 256  # columns of keys and values for which memory is taken ahead


class Session:
    """Rows under generation; `last` [rows, width] is the final state of each row's last token.

    Positions are those that training computes for the whole row. Control tokens may stand first in a block: the vector
    of the first is then the state that the row ended with before. Vectors of a row steer the next slot of their kind,
    also in a later block. A prompt that is `masked` hides its first user turn, as in training.
    """

    def __init__(self, model: VPTModel, prompts: Sequence[Sample], steering: Steering | None = None) -> None:
        """Run the prompts, one a row; each may hold pictures and control tokens. `steering` changes control vectors."""
        self.model, self._steering = model, steering
        self.next = [0] * len(prompts)
        self.last = torch.zeros(len(prompts), model.adapter.width, device=model.device)
        self._valid = torch.zeros(len(prompts), 0, dtype=torch.bool, device=model.device)
        self._kept: list[KeyValue] = []
        self._waiting: list[list[tuple[str, Tensor | None]]] = [[] for _ in prompts]
        # From where on the first control token hides what is before it; None: nothing is hidden, or it is already.
        self._hide = [one.first_user[0] if one.masked and one.first_user[1] else None for one in prompts]
        self.extend(prompts)

    @torch.no_grad()
    def logits(self) -> Tensor:
        """Logits [rows, vocabulary] of each row's next token."""
        return self.model.adapter.head(self.last)

    def step(self, ids: Sequence[int | None]) -> None:
        """Append one token to each row, none where the id is None."""
        self.extend([None if i is None else block(torch.tensor([i])) for i in ids])

    def extend(self, blocks: Sequence[Sample | None]) -> None:
        """Append a block to each row, none where it is None; a block is cut at its control tokens."""
        pieces = [_pieces(one, started=at > 0) if one else [] for one, at in zip(blocks, self.next, strict=True)]
        for number in range(max(map(len, pieces), default=0)):
            self._append([row[number] if number < len(row) else None for row in pieces])

    def keep(self, rows: Sequence[int]) -> None:
        """Go on with these rows only, in this order."""
        index = torch.tensor(rows, dtype=torch.int64, device=self.model.device)
        columns = self._valid[index].any(0).nonzero()[:, 0]
        self._valid = self._valid[index][:, columns]
        self._kept = [(k[index].index_select(2, columns), v[index].index_select(2, columns)) for k, v in self._kept]
        self.last = self.last[index]
        self.next, self._waiting = [self.next[row] for row in rows], [self._waiting[row] for row in rows]
        self._hide = [self._hide[row] for row in rows]

    @torch.no_grad()
    def _append(self, blocks: Sequence[Sample | None]) -> None:
        found = [(row, one) for row, one in enumerate(blocks) if one is not None]
        where = self._positions(found)
        vectors = self._vectors(found)
        for row in vectors:
            if self._hide[row] is not None:
                self._valid[row, self._hide[row] :] = False
                self._hide[row] = None
        out, new, valid = self._run(found, where, vectors)
        self._store(new)
        self._valid = torch.cat([self._valid, valid], dim=1)
        rows = torch.tensor([row for row, _ in found], device=out.device)
        ends = torch.tensor([len(one.input_ids) - 1 for _, one in found], device=out.device)
        self.last = self.last.to(out).index_copy(0, rows, out[rows, ends])
        for row, one in found:
            self.next[row] = int(where[:, row, : len(one.input_ids)].max()) + 1

    def _run(
        self, found: Sequence[tuple[int, Sample]], where: Tensor, vectors: Mapping[int, Routes]
    ) -> tuple[Tensor, list[KeyValue], Tensor]:
        """Final states [rows, L, width] of blocks, their keys and values, and bool [rows, L]: what is no padding."""
        model, shape = self.model, where.shape[1:]
        blocks = [one for _, one in found]
        inputs = Parcel.of(model.planner.inputs(blocks)).opened(model.device)
        features = model.features(inputs, model.pixels(blocks))
        tokens = model.embed(inputs, features)
        cells = torch.cat([torch.arange(len(one.input_ids)) + row * shape[1] for row, one in found]).to(model.device)
        hidden = tokens.new_zeros(shape[0] * shape[1], tokens.shape[1]).index_copy(0, cells, tokens)
        for row, (fed, _) in vectors.items():
            hidden[row * shape[1] : row * shape[1] + len(fed)] = fed
        hidden = self._steer(hidden, found, inputs, features, vectors)
        valid = torch.zeros(shape, dtype=torch.bool, device=model.device)
        valid.view(-1)[cells] = True
        earlier = self._earlier if self._kept else None
        deep = model.deep(features, torch.stack([cells[inputs.seen[0]], inputs.seen[1]]))
        out, new = model.decode(hidden.view(*shape, -1), where, self._mask(valid), earlier=earlier, deep=deep)
        return out, new, valid

    def _earlier(self, layer: int) -> KeyValue:
        """Keys and values of a layer in the columns that are in use."""
        keys, values = self._kept[layer]
        used = self._valid.shape[1]
        return keys[:, :, :used], values[:, :, :used]

    def _store(self, new: Sequence[KeyValue]) -> None:
        """Put new keys and values [rows, heads, L, head width] of all layers behind the columns in use."""
        used, length = self._valid.shape[1], new[0][0].shape[2]
        if not self._kept:
            self._kept = [(keys[:, :, :0], values[:, :, :0]) for keys, values in new]
        if self._kept[0][0].shape[2] < used + length:
            # Room for many tokens at once: with room for one, each token would copy all that is kept.
            keys = new[0][0]
            room = keys.new_empty(*keys.shape[:2], length + _ROOM, keys.shape[3])
            earlier = map(self._earlier, range(len(new)))
            self._kept = [(torch.cat([k, room], 2), torch.cat([v, room], 2)) for k, v in earlier]
        for (keys, values), (k, v) in zip(self._kept, new, strict=True):
            keys[:, :, used : used + length], values[:, :, used : used + length] = k, v

    def _vectors(self, found: Sequence[tuple[int, Sample]]) -> dict[int, Routes]:
        """Control vectors [s, width] of the rows whose block begins with control tokens, by their two routes."""
        calling = [(row, one) for row, one in found if one.controls]
        if not calling:
            return {}
        rows, count = [row for row, _ in calling], self.model.control_tokens
        states = self.last[rows][:, None]
        if count > 1:
            # As in training, all but the last run as ordinary tokens as well; nothing sees their keys and values.
            plain = [(row, block(one.input_ids[: count - 1])) for row, one in calling]
            out, _, _ = self._run(plain, self._positions(plain), {})
            states = torch.cat([states, out[rows]], dim=1)
        vectors = self.model.control_vectors(states)
        routes: Routes = vectors, vectors
        if self._steering is not None:
            routes = self._steering(vectors, rows, [one.controls[0].kind for _, one in calling])
        fed, steering = routes
        return {row: (fed[at], None if steering is None else steering[at]) for at, row in enumerate(rows)}

    def _positions(self, found: Sequence[tuple[int, Sample]]) -> Tensor:
        """Positions int64[3, rows, L] of the blocks."""
        longest = max(len(one.input_ids) for _, one in found)
        coordinates = torch.zeros(3, len(self.next), longest, dtype=torch.int64)
        for row, one in found:
            where = positions(one, self.model.adapter.merge, flat=self.model.positions_1d, start=self.next[row])
            coordinates[:, row, : where.shape[1]] = where
        return coordinates

    def _mask(self, valid: Tensor) -> Tensor:
        """Bool [rows, 1, L, K + L] for new tokens of which `valid` bool [rows, L] are no padding."""
        length = valid.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
        # A padding token sees itself: a row without any key would turn into NaN.
        own = causal & (valid[:, None, :] | torch.eye(length, dtype=torch.bool, device=valid.device))
        return torch.cat([self._valid[:, None, :].expand(-1, length, -1), own], dim=-1)[:, None]

    def _steer(
        self,
        hidden: Tensor,
        found: Sequence[tuple[int, Sample]],
        inputs: Inputs,
        features: Features,
        vectors: Mapping[int, Routes],
    ) -> Tensor:
        """Embeddings of blocks [rows * L, width] with the features that vectors of their rows steer."""
        length, entries = len(hidden) // len(self.next), []
        using: list[Tensor] = []
        for number, (row, one) in enumerate(found):
            if row in vectors:
                self._waiting[row].append((one.controls[0].kind, vectors[row][1]))
            for place, slot in enumerate(one.slots):
                mine = next((item for item in self._waiting[row] if item[0] == slot.kind), None)
                if mine is None:
                    continue
                self._waiting[row] = [item for item in self._waiting[row] if item is not mine]
                if mine[1] is not None:
                    start, first = row * length + slot.start, inputs.first[number][place]
                    entries.append((slot.kind, start, first, slot.length, len(using)))
                    using.append(mine[1])
        if not using:
            return hidden
        return self.model.steer(hidden, features, Parcel.of(steered(entries)).opened(hidden.device), torch.stack(using))


def _pieces(one: Sample, *, started: bool) -> list[Sample]:
    """A block cut before each control token that is not its first token; the first needs a row that has started."""
    check(one, earliest=0 if started else 1)
    cuts = sorted({0, *(control.at for control in one.controls), len(one.input_ids)})
    return [
        block(
            one.input_ids[begin:end],
            [replace(slot, start=slot.start - begin) for slot in one.slots if begin <= slot.start < end],
            [replace(control, at=0) for control in one.controls if control.at == begin],
            id=one.id,
        )
        for begin, end in pairwise(cuts)
    ]
