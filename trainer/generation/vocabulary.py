"""The tokens that mean more than text under generation: ends of turns, looks, spans of perception tokens."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from trainer.data.encode import RowEncoder
from vpt_data.dialogue.tokens import REGION, families
from vpt_data.dialogue.tokens.reencode import ENCODERS


class Vocabulary:
    """Token ids of a model that has projectors for some kinds of encoders.

    ends    those that end a turn
    starts  kind of look -> the one that opens it; that of an encoder stands for its whole call
    calls   the ones that open a call -> its encoder
    played  those of a call after its start, which are never chosen
    """

    def __init__(self, encoder: RowEncoder, kinds: Iterable[str]) -> None:
        self._encoder, kinds = encoder, list(kinds)
        known = {name: family for name, family in families().items() if name in encoder.families}
        self.ends = {encoder.token_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
        opened = {name: encoder.token_id(family.start) for name, family in known.items() if family.start}
        self.starts = {name: at for name, at in opened.items() if known[name].look and name in (REGION, *kinds)}
        self.calls = {encoder.token_id(ENCODERS[kind].start): kind for kind in kinds}
        self.played = {encoder.token_id(t) for k in kinds for t in (ENCODERS[k].control, ENCODERS[k].end)}
        self._known = known
        self._spans = {at: known[name] for name, at in opened.items()}
        tokens = (token.content for name in opened for token in known[name].tokens(encoder.k) if token.label)
        self._inside = [at for at in map(encoder.token_id, tokens) if at not in self._spans]

    def call(self, kind: str, count: int) -> list[int]:
        """What follows the start of a call with `count` control tokens."""
        entry = ENCODERS[kind]
        return [self._encoder.token_id(word) for word in [entry.control] * count + [entry.end]]

    def faults(self, text: str) -> Counter[str]:
        """What is wrong with the spans in a turn: cause -> how often."""
        return sum((family.faults(text, self._encoder.k) for family in self._known.values()), Counter[str]())

    def grammar(self, turn: Sequence[int], size: int) -> Tensor:
        """What may follow in a turn, bool [size]: in a span what its family says, else all but what is inside spans."""
        begin = next((at for at in reversed(range(len(turn))) if turn[at] in self._spans), None)
        may = None
        if begin is not None:
            said = [self._encoder.tokenizer.id_to_token(token) or "" for token in turn[begin:]]
            may = self._spans[turn[begin]].follow(said, self._encoder.k)
        mask = torch.full((size,), may is None)
        mask[self._inside if may is None else [self._encoder.token_id(token) for token in may]] = may is not None
        return mask
