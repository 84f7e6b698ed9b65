"""Generation in one session: keys and values stay, tokens and pictures are appended to rows of different length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from trainer.data.sample import Control, Sample, block
from trainer.model.adapter import KeyValue
from trainer.model.phases import check, positions
from trainer.model.vpt import Features, Steered, VPTModel


class Session:
    """Rows under generation; `last` [rows, width] is the final state of each row's last token.

    Positions are those that training computes for the whole row. A control token may stand first in a block: its
    vector is then the state that the row ended with before. The vector of a row steers the next slot of its kind, also
    in a later block.
    """

    def __init__(self, model: VPTModel, prompts: Sequence[Sample]) -> None:
        """Run the prompts, one a row; each may hold pictures and control tokens."""
        self.model = model
        self.next = [0] * len(prompts)
        self.last = torch.zeros(len(prompts), model.adapter.width, device=model.device)
        self._valid = torch.zeros(len(prompts), 0, dtype=torch.bool, device=model.device)
        self._kept: list[KeyValue] = []
        self._waiting: list[list[tuple[str, Tensor]]] = [[] for _ in prompts]
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
        self._valid = self._valid[index]
        used = self._valid.any(0)
        self._valid = self._valid[:, used]
        self._kept = [(k[index][:, :, used], v[index][:, :, used]) for k, v in self._kept]
        self.last = self.last[index]
        self.next, self._waiting = [self.next[row] for row in rows], [self._waiting[row] for row in rows]

    @torch.no_grad()
    def _append(self, blocks: Sequence[Sample | None]) -> None:
        model, found = self.model, [(row, one) for row, one in enumerate(blocks) if one is not None]
        shape = len(blocks), max(len(one.input_ids) for _, one in found)
        features = model.features([one for _, one in found])
        tokens = model.embed([one for _, one in found], features)
        cells = torch.cat([torch.arange(len(one.input_ids)) + row * shape[1] for row, one in found])
        hidden = tokens.new_zeros(shape[0] * shape[1], tokens.shape[1])
        hidden[cells.to(model.device)] = tokens
        hidden = model.put(hidden, *self._steer(found, features, shape[1])).view(*shape, -1)
        valid = torch.zeros(shape, dtype=torch.bool)
        valid.view(-1)[cells] = True
        out, new = model.decode(
            hidden,
            self._positions(found, shape),
            self._mask(valid.to(model.device)),
            earlier=self._kept.__getitem__ if self._kept else None,
            deep=model.deep(features, cells, len(hidden.flatten(0, 1))),
        )
        kept = self._kept or [(k[:, :, :0], v[:, :, :0]) for k, v in new]
        self._kept = [(torch.cat([a, c], 2), torch.cat([b, d], 2)) for (a, b), (c, d) in zip(kept, new, strict=True)]
        self._valid = torch.cat([self._valid, valid.to(model.device)], dim=1)
        rows = torch.tensor([row for row, _ in found], device=model.device)
        ends = torch.tensor([len(one.input_ids) - 1 for _, one in found], device=model.device)
        self.last = self.last.to(out).index_copy(0, rows, out[rows, ends])

    def _positions(self, found: Sequence[tuple[int, Sample]], shape: tuple[int, int]) -> Tensor:
        """Positions int64[3, rows, L] of the blocks; moves each row's counter on."""
        coordinates = torch.zeros(3, *shape, dtype=torch.int64)
        for row, one in found:
            where = positions(one, self.model.adapter.merge, flat=self.model.positions_1d, start=self.next[row])
            coordinates[:, row, : where.shape[1]] = where
            self.next[row] = int(where.max()) + 1
        return coordinates

    def _mask(self, valid: Tensor) -> Tensor:
        """Bool [rows, 1, L, K + L] for new tokens of which `valid` bool [rows, L] are no padding."""
        length = valid.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool, device=valid.device).tril()
        # A padding token sees itself: a row without any key would turn into NaN.
        own = causal & (valid[:, None, :] | torch.eye(length, dtype=torch.bool, device=valid.device))
        return torch.cat([self._valid[:, None, :].expand(-1, length, -1), own], dim=-1)[:, None]

    def _steer(
        self, found: Sequence[tuple[int, Sample]], features: Features, length: int
    ) -> tuple[list[Steered], list[tuple[int, Tensor]]]:
        """Control vectors of blocks that begin with a control token, and the features that vectors of the row steer."""
        steered: list[Steered] = []
        known: list[tuple[int, Tensor]] = []
        for number, (row, one) in enumerate(found):
            for control in one.controls:
                vector = self.model.control_vectors(self.last[row][None])[0]
                known.append((row * length, vector))
                self._waiting[row].append((control.kind, vector))
            for place, slot in enumerate(one.slots):
                mine = next((item for item in self._waiting[row] if item[0] == slot.kind), None)
                if mine is not None:
                    self._waiting[row] = [item for item in self._waiting[row] if item is not mine]
                    steered.append(
                        Steered(slot.kind, row * length + slot.start, features.slots[number, place], mine[1])
                    )
        return steered, known


def _pieces(one: Sample, *, started: bool) -> list[Sample]:
    """A block cut before each control token that is not its first token; the first needs a row that has started."""
    check(one, earliest=0 if started else 1)
    cuts = sorted({0, *(control.at for control in one.controls), len(one.input_ids)})
    return [
        block(
            one.input_ids[begin:end],
            [replace(slot, start=slot.start - begin) for slot in one.slots if begin <= slot.start < end],
            [Control(control.kind, 0) for control in one.controls if control.at == begin],
            id=one.id,
        )
        for begin, end in pairwise(cuts)
    ]
