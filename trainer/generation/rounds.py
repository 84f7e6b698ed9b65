"""Generation: the model looks again where it asks for it, and then answers.

A batch runs in rounds, in one session: every row generates its turn to the end, then the rows that asked for regions or
for another encoder are shown them in a user turn, as in training, and the others leave. Nothing is encoded twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from trainer.data.encode import RowEncoder, Unfit
from trainer.data.sample import IGNORE, Control, Sample, block
from trainer.generation.dialog import OUT_OF_TOKENS, OVER_THE_CAP, REGION, Answer, Decoding, Prompt, Shown
from trainer.generation.session import Session
from trainer.model.vpt import VPTModel
from vpt_data import geometry
from vpt_data.dialogue.prompts import crops_turn
from vpt_data.dialogue.tokens import IMAGE, grid, placeholders
from vpt_data.dialogue.tokens.reencode import ENCODERS, decode_action
from vpt_data.errors import UsageError
from vpt_data.images import views


@dataclass
class _Row:
    prompt: Prompt
    name: str
    turn: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    closed: bool = False  # the turn
    turns: list[str] = field(default_factory=list)
    looks: list[Shown] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    actions: int = 0

    def answer(self) -> Answer:
        return Answer(self.turns[-1], tuple(self.turns), tuple(self.looks), self.invalid, tuple(self.tokens))


class Rounds:
    """A batch under generation; `live` are the rows of the session."""

    def __init__(self, model: VPTModel, encoder: RowEncoder, prompts: Sequence[Prompt], how: Decoding) -> None:
        self.encoder, self.how, self.device = encoder, how, model.device
        self.ends = {encoder.token_id(token) for token in ("<|im_end|>", "<|endoftext|>")}
        self.calls = {encoder.token_id(ENCODERS[kind].start): kind for kind in model.projectors}
        self.starts = {REGION: encoder.token_id(grid.START)} | {kind: at for at, kind in self.calls.items()}
        if how.force is not None and how.force not in self.starts:
            raise UsageError(f"force is {how.force!r}, expected one of: {', '.join(self.starts)}")
        self.random = torch.Generator(model.device).manual_seed(how.seed)
        self.rows = [_Row(prompt, f"prompt {number}") for number, prompt in enumerate(prompts)]
        self.live = list(self.rows)
        self.session = Session(model, [self._asked(row) for row in self.rows])

    def run(self) -> list[Answer]:
        """All rounds; an answer for each prompt."""
        if self.how.force is not None:
            self.session.extend([self._spoken(row, self.starts[self.how.force]) for row in self.live])
        while self.live:
            while not all(row.closed for row in self.live):
                tokens = self._choose()
                pairs = zip(self.live, tokens, strict=True)
                self.session.extend([None if row.closed else self._spoken(row, token) for row, token in pairs])
            self._next_round()
        return [row.answer() for row in self.rows]

    @torch.no_grad()
    def _choose(self) -> list[int]:
        """A token for each row; none that opens a look where there have been enough."""
        logits = self.session.logits().float()
        chosen = self._pick(logits)
        opening = set(self.starts.values())
        full = [not row.closed and row.actions >= self.how.max_actions for row in self.live]
        refused = [place for place, token in enumerate(chosen) if full[place] and token in opening]
        if refused:
            logits[:, list(opening)] = -torch.inf
            for place, token in zip(refused, self._pick(logits[refused]), strict=True):
                self.live[place].invalid[OVER_THE_CAP] += 1
                chosen[place] = token
        return chosen

    def _pick(self, logits: Tensor) -> list[int]:
        if self.how.temperature > 0:
            shares = torch.softmax(logits / self.how.temperature, dim=-1)
            logits = torch.zeros_like(shares).scatter_(1, torch.multinomial(shares, 1, generator=self.random), 1.0)
        return logits.argmax(-1).tolist()

    def _spoken(self, row: _Row, token: int) -> Sample | None:
        """What a token appends to its row: nothing if it ends the turn, all of a call if it opens one."""
        if token in self.ends:
            row.closed = True
            return None
        added, controls = [token], []
        if token in self.calls:
            call, count = ENCODERS[self.calls[token]], self.session.model.control_tokens
            added += [self.encoder.token_id(word) for word in [call.control] * count + [call.end]]
            controls = [Control(call.name, 1, count)]
            row.calls.append(call.name)
        row.turn += added
        row.tokens += added
        if len(row.tokens) >= self.how.max_new_tokens:
            row.closed = True
            row.invalid[OUT_OF_TOKENS] += 1
            return None
        return block(torch.tensor(added), (), controls)

    def _next_round(self) -> None:
        """Show the rows what they asked for; those that did not are done."""
        shown = [self._reply(row) for row in self.live]
        going = [place for place, one in enumerate(shown) if one is not None]
        self.live = [self.live[place] for place in going]
        if going:
            self.session.keep(going)
            self.session.extend([shown[place] for place in going])

    def _reply(self, row: _Row) -> Sample | None:
        """The end of the turn that a row has spoken and what comes after it, up to the header of its next turn."""
        text = self.encoder.tokenizer.decode(row.turn, skip_special_tokens=False)
        regions = grid.decode(text, self.encoder.k)
        faults = Counter({f"region_{fault}": times for fault, times in regions.faults.items()})
        faults.update(f"action_{call.fault}" for call in decode_action(text) if call.fault)
        looks = [Shown(REGION, cells, self._box(row, cells)) for cells in regions.cells]
        looks += [Shown(kind) for kind in row.calls]
        row.turns.append(text)
        row.invalid += faults
        row.turn, row.calls, row.closed = [], [], False
        again = bool(looks) or (bool(faults) and self.how.on_invalid == "continue")
        if not again or row.actions >= self.how.max_actions or row.invalid[OUT_OF_TOKENS]:
            return None
        row.actions += 1
        row.looks += looks
        return self._shown(row, looks)

    def _box(self, row: _Row, cells: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = geometry.crop([cells], [row.prompt.image.size], self.encoder.k, self.how.expand)[0].tolist()
        return x0, y0, x1, y1

    def _asked(self, row: _Row) -> Sample:
        turns = [text for pair in row.prompt.turns for text in pair] + [row.prompt.question]
        if IMAGE not in turns[0]:
            turns[0] = f"{IMAGE}\n{turns[0]}"
        return self._encoded(row, turns, [Shown("vlm")])

    def _shown(self, row: _Row, looks: Sequence[Shown]) -> Sample:
        crops = sum(look.kind == REGION for look in looks)
        text = (crops_turn(crops) if crops else "") + "".join(placeholders()[look.kind] for look in looks[crops:])
        # Between no question and no answer to it, so that only the end of an answer and what follows is new.
        return self._encoded(row, ["", "", text] if looks else ["", ""], looks, done=2)

    def _encoded(self, row: _Row, turns: Sequence[str], looks: Sequence[Shown], done: int = 0) -> Sample:
        """Turns as in training and the next header; without the first `done`, except for the end of the last one."""
        image, vision = row.prompt.image, self.encoder.vision
        kinds = ["vlm" if look.kind == REGION else look.kind for look in looks]
        fields = {
            "id": row.name,
            "messages": [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)],
            "views": [
                {"image": 0, "encoder": kind, "turn": done, "box": look.box, "cells": None}
                for kind, look in zip(kinds, looks, strict=True)
            ],
            "image_info": [{"width": image.width, "height": image.height}],
        }
        try:
            whole = self.encoder.encode(fields, prompt=True)
        except Unfit as unfit:
            raise UsageError(f"{row.name}: {unfit.detail}; ask in other words, or raise the cutoff") from unfit
        cut = int((whole.labels != IGNORE).nonzero()[-1]) if done else 0
        shown = [
            vision.pixels(kind, vision.picture(kind, views.pixels(image, look.box)).to(self.device))
            for kind, look in zip(kinds, looks, strict=True)
        ]
        slots = [replace(slot, start=slot.start - cut) for slot in whole.with_pixels(shown).slots]
        return block(whole.input_ids[cut:], slots, [] if done else whole.controls, id=row.name)
