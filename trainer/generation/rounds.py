"""Generation: the model looks again where it asks for it, and then answers.

A batch runs in rounds, in one session: every row generates its turn to the end, then the rows that asked for regions or
for another encoder are shown them in a user turn, as in training, and the others leave. Nothing is encoded twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import torch
from PIL import Image
from torch import Tensor

from trainer.data.encode import RowEncoder, Unfit
from trainer.data.sample import IGNORE, Control, Sample, block
from trainer.generation import paper
from trainer.generation.dialog import OUT_OF_TOKENS, OVER_THE_CAP, ControlVectors, Decoding, Ended, Fault, Shown
from trainer.generation.policy import Dialog, Policy
from trainer.generation.session import Session
from trainer.generation.vocabulary import Vocabulary
from trainer.model.vpt import VPTModel
from vpt_data import geometry
from vpt_data.dialogue.prompts import crops_turn
from vpt_data.dialogue.tokens import REGION, placeholders
from vpt_data.dialogue.tokens.grid import decode
from vpt_data.errors import UsageError, VptDataError


class Rounds:
    """A batch under generation; `live` are the rows of the session."""

    def __init__(
        self, model: VPTModel, encoder: RowEncoder, dialogs: Sequence[Dialog], how: Decoding, policy: Policy
    ) -> None:
        self.encoder, self.how, self.policy, self.device = encoder, how, policy, model.device
        self.words = Vocabulary(encoder, model.projectors)
        starts = self.words.starts
        if how.force is not None and how.force not in starts:
            raise UsageError(f"force is {how.force!r}, expected one of: {', '.join(starts)}")
        self.live = list(dialogs)
        self.session = Session(model, [self._asked(dialog) for dialog in self.live], self._steering)

    def run(self) -> None:
        """All rounds, until each row has ended."""
        while self.live:
            self._begin()
            while places := [place for place, dialog in enumerate(self.live) if dialog.ended is None]:
                blocks: list[Sample | None] = [None] * len(self.live)
                for place, token in zip(places, self._choose(places), strict=True):
                    blocks[place] = self._spoken(self.live[place], [token])
                self.session.extend(blocks)
            self._next_round()

    def _begin(self) -> None:
        """Say what is said for the model at the beginning of its turn."""
        prefixes = []
        for dialog in self.live:
            prefix = self.policy.prefix(dialog)
            dialog.intervened += prefix != ""
            ids = list(self.encoder.tokenizer.encode(prefix, add_special_tokens=False).ids)
            if self.how.force is not None and not dialog.turns:
                ids = [self.words.starts[self.how.force], *ids]
            prefixes.append([token for token in ids if token not in self.words.played])
        self.session.extend([self._spoken(dialog, ids) for dialog, ids in zip(self.live, prefixes, strict=True)])

    @torch.no_grad()
    def _choose(self, places: Sequence[int]) -> list[int]:
        """A token for each of some rows; none that opens a look where there have been enough."""
        dialogs = [self.live[place] for place in places]
        logits = self.session.logits()[places].float()
        scores = torch.log_softmax(logits, dim=-1)
        for row, dialog in zip(logits, dialogs, strict=True):
            self._mask(row, dialog)
        chosen = self._pick(logits, dialogs)
        opening = list(self.words.starts.values())
        for at, dialog in enumerate(dialogs):
            # The published program plays no look in the last turn, and forbids none.
            refused = dialog.actions >= self.how.max_actions and not self.how.as_published
            if refused and chosen[at] in opening:
                dialog.invalid[OVER_THE_CAP] += 1
                dialog.capped = True
                logits[at, opening] = -torch.inf
                chosen[at] = self._pick(logits[at : at + 1], [dialog])[0]
        found = scores.gather(1, torch.tensor(chosen, device=scores.device)[:, None])[:, 0].tolist()
        for dialog, score in zip(dialogs, found, strict=True):
            dialog.logprob += score
        return chosen

    def _pick(self, logits: Tensor, dialogs: Sequence[Dialog]) -> list[int]:
        if self.how.temperature <= 0:
            return logits.argmax(-1).tolist()
        shares = torch.softmax(logits / self.how.temperature, dim=-1).cumsum(-1)
        # One number a row, so that a row is drawn alike in every batch.
        drawn = torch.tensor([[dialog.dice.random()] for dialog in dialogs]).to(shares) * shares[:, -1:]
        return torch.searchsorted(shares, drawn, right=True)[:, 0].clamp(max=logits.shape[1] - 1).tolist()

    def _mask(self, logits: Tensor, dialog: Dialog) -> None:
        """Make impossible in logits [vocabulary] what grammar and policy do not allow."""
        grammar = self.words.grammar(dialog.turn, len(logits)) if self.how.grammar else None
        masks = [grammar, self.policy.allowed(dialog)]
        for mask in masks:
            if mask is not None:
                logits.masked_fill_(~mask.to(logits.device), -torch.inf)
        if any(mask is not None for mask in masks) and bool(logits.isneginf().all()):
            raise VptDataError(f"Sample {dialog.row['id']}: no token is allowed; let the policy allow one at least.")

    def _spoken(self, dialog: Dialog, ids: Sequence[int]) -> Sample | None:
        """What tokens append to a row whose turn is open: all of a call if one opens it, nothing from its end on."""
        added: list[int] = []
        controls = []
        for token in ids:
            if dialog.ended is not None:
                break
            if token in self.words.ends:
                dialog.ended = Ended.CAP if dialog.capped else Ended.END_OF_TURN
                break
            added.append(token)
            if token in self.words.calls:
                kind, count = self.words.calls[token], self.session.model.control_tokens
                controls.append(Control(kind, len(added), count))
                added += self.words.call(kind, count)
                dialog.calls.append(kind)
            if len(dialog.tokens) + len(added) >= self.how.max_new_tokens:
                dialog.ended = Ended.TOKEN_LIMIT
                dialog.invalid[OUT_OF_TOKENS] += 1
        dialog.turn += added
        dialog.tokens += added
        return block(torch.tensor(added), (), controls) if added and dialog.ended is not Ended.TOKEN_LIMIT else None

    def _next_round(self) -> None:
        """Show the rows what they asked for; those that did not are done."""
        shown = [self._reply(dialog) for dialog in self.live]
        going = [place for place, one in enumerate(shown) if one is not None]
        self.live = [self.live[place] for place in going]
        if going:
            self.session.keep(going)
            self.session.extend([shown[place] for place in going])

    def _reply(self, dialog: Dialog) -> Sample | None:
        """The end of the turn that a row has spoken and what comes after it, up to the header of its next turn."""
        text = self.encoder.tokenizer.decode(dialog.turn, skip_special_tokens=False)
        looks, faults = self._looks_as_published(dialog, text) if self.how.as_published else self._looks(dialog, text)
        dialog.turns.append(text)
        dialog.invalid += faults
        if dialog.ended is Ended.TOKEN_LIMIT or not (looks or faults):
            return None
        if not looks and self.how.on_invalid == "stop":
            dialog.ended = Ended.INVALID_LOOK
            return None
        if dialog.actions >= self.how.max_actions:
            dialog.ended = Ended.CAP if looks else Ended.INVALID_LOOK
            return None
        try:
            shown = self._shown(dialog, looks)
        except Unfit as unfit:
            dialog.ended, dialog.fault = Ended.FAULT, Fault(unfit.reason, unfit.detail)
            return None
        dialog.actions += 1
        dialog.looks += looks
        dialog.prompt_tokens += len(shown.input_ids)
        dialog.turn, dialog.calls, dialog.ended, dialog.capped, dialog.logprob = [], [], None, False, 0.0
        return shown

    def _looks(self, dialog: Dialog, text: str) -> tuple[list[Shown], Counter[str]]:
        """What a turn asks for, and what is wrong with other looks in it."""
        cells = decode(text, self.encoder.k).cells if REGION in self.words.starts else []
        regions = [Shown(REGION, one, self._box(dialog, one)) for one in cells]
        return regions + [Shown(kind) for kind in dialog.calls], self.words.faults(text)

    def _looks_as_published(self, dialog: Dialog, text: str) -> tuple[list[Shown], Counter[str]]:
        """The same as the published program reads it: there is one chance to look, for looks of one kind."""
        turn = paper.read(text, self.encoder.k)
        if dialog.actions >= self.how.max_actions or turn.kind is None:
            return [], Counter()
        if turn.failed:
            return [], Counter({paper.CROP_FAILED: turn.failed})
        regions = [Shown(REGION, one, self._box(dialog, one)) for one in turn.cells]
        return regions + [Shown(kind) for kind in turn.encoders if kind in dialog.calls], Counter()

    def _box(self, dialog: Dialog, cells: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        x0, y0, x1, y1 = geometry.crop([cells], [dialog.images[0].size], self.encoder.k, self.how.expand)[0].tolist()
        return x0, y0, x1, y1

    def _asked(self, dialog: Dialog) -> Sample:
        """The prompt of a row with its pixels on the device of the model."""
        assert dialog.prompt is not None
        dialog.prompt_tokens = len(dialog.prompt.input_ids)
        pixels = self.encoder.vision.pixels
        shown = zip(dialog.prompt.slots, dialog.pictures, strict=True)
        whole = dialog.prompt.with_pixels([pixels(slot.kind, picture.to(self.device)) for slot, picture in shown])
        return replace(whole, masked=self.how.hide)

    def _shown(self, dialog: Dialog, looks: Sequence[Shown]) -> Sample:
        """A user turn that shows what the policy shows, after the end of the model's turn and up to its next one."""
        images = self.policy.show(dialog, looks)
        if len(images) not in (0, len(looks)):
            raise VptDataError(
                f"Sample {dialog.row['id']}: the policy shows {len(images)} pictures for {len(looks)} looks; let it "
                "show one for each, or none."
            )
        if type(self.policy).show is not Policy.show:
            asked_for = Policy().show(dialog, looks)
            dialog.intervened += [*map(_content, images)] != [*map(_content, asked_for)]
        crops = sum(look.kind == REGION for look in looks)
        text = (crops_turn(crops) if crops else "") + "".join(placeholders()[look.kind] for look in looks[crops:])
        # Between no question and no answer to it, so that only the end of an answer and what follows is new.
        turns = ["", "", text] if images else ["", ""]
        kinds = ["vlm" if look.kind == REGION else look.kind for look in looks][: len(images)]
        row = {
            "id": dialog.row["id"],
            "messages": [{"role": ("user", "assistant")[n % 2], "content": turn} for n, turn in enumerate(turns)],
            "views": [
                {"image": n, "encoder": kind, "turn": 2, "box": None, "cells": None} for n, kind in enumerate(kinds)
            ],
            "image_info": [{"width": image.width, "height": image.height} for image in images],
        }
        whole = self.encoder.encode(row, prompt=True)
        cut, vision = int((whole.labels != IGNORE).nonzero()[-1]), self.encoder.vision
        pixels = [
            vision.pixels(kind, vision.picture(kind, image).to(self.device))
            for kind, image in zip(kinds, images, strict=True)
        ]
        slots = [replace(slot, start=slot.start - cut) for slot in whole.with_pixels(pixels).slots]
        return block(whole.input_ids[cut:], slots, id=dialog.row["id"])

    def _steering(self, vectors: Tensor, rows: Sequence[int], kinds: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """What the policy makes of control vectors; those of the model are kept."""
        dialogs = [self.live[row] for row in rows]
        for dialog, kind, own in zip(dialogs, kinds, vectors.float().cpu().numpy(), strict=True):
            dialog.controls.append(ControlVectors(kind, own))
        fed, steering = self.policy.vectors(vectors, dialogs, kinds)
        if fed is not vectors or steering is not vectors:
            for place, dialog in enumerate(dialogs):
                routes = (fed, steering)
                dialog.intervened += not all(r is not None and torch.equal(r[place], vectors[place]) for r in routes)
        return fed, steering


def _content(image: Image.Image) -> tuple[str, tuple[int, int], bytes]:
    return image.mode, image.size, image.tobytes()
