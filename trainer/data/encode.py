"""A row of a shard -> token ids, labels, classes, slots and control tokens, all written down in one walk.

The text is that of the Qwen2-VL chat template, without a newline after the last turn. Text between two special tokens
is tokenised as a whole, except that a new piece begins after the header of an answer, as when a model generates.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import torch
from tokenizers import Tokenizer

from trainer.data.sample import IGNORE, Control, Sample, Slot
from trainer.data.vision import Vision
from vpt_data.dialogue.tokens import families, label_names, placeholders
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError
from vpt_data.schema import Reason

SYSTEM: Final = "You are a helpful assistant."
TOO_LONG: Final = "too_long"  # the one reason that a builder does not know; the others are vpt_data's `Reason`


class Unfit(Exception):
    """A row that cannot be trained on, as reason and one sentence; the reader skips and names it."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


@dataclass
class _Walk:
    """What has been written so far."""

    ids: list[int] = field(default_factory=list)
    trained: list[bool] = field(default_factory=list)
    slots: list[Slot] = field(default_factory=list)
    controls: list[Control] = field(default_factory=list)
    user: tuple[int, int] = (0, 0)
    called: int | None = None  # where the first start token of an action is

    def write(self, ids: Sequence[int], trained: bool = False) -> None:
        self.ids.extend(ids)
        self.trained.extend([trained] * len(ids))


class RowEncoder:
    """Encodes rows for one tokenizer.

    tokenizer   with Qwen2-VL's special tokens and `added_tokens` of some families and encoders; `families` are those
    k           cells on each side of the grid that its region tokens mean
    control_tokens  of each look through another encoder
    system      the system turn of rows that have none; None: none
    cutoff      a row of more tokens is unfit: cutting it could take half a picture
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        vision: Vision,
        k: int = 8,
        system: str | None = SYSTEM,
        cutoff: int = 2048,
        control_tokens: int = 1,
    ) -> None:
        self.tokenizer, self.k, self._system = tokenizer, k, system
        self.vision, self.cutoff, self.control_tokens = vision, cutoff, control_tokens
        self._turn = self.token_id("<|im_start|>"), self.token_id("<|im_end|>")
        self._frame = self.token_id("<|vision_start|>"), self.token_id("<|vision_end|>")
        self._kinds = {placeholder: kind for kind, placeholder in placeholders().items()}
        self._placeholder = re.compile("|".join(map(re.escape, self._kinds)))
        self._newline, self._answer = self._text("\n"), self._text("assistant\n")
        present = {name: entry for name, entry in ENCODERS.items() if tokenizer.token_to_id(entry.control) is not None}
        self._pads = {"vlm": self.token_id("<|image_pad|>")}
        self._pads |= {name: self.token_id(entry.image_pad) for name, entry in present.items()}
        self._starts = {self.token_id(entry.start) for entry in present.values()}
        self._controls = {self.token_id(entry.control): name for name, entry in present.items()}
        named = (f"(?P<{name}>{family.pattern})" for name, family in families().items())
        self._spelled = re.compile("|".join(named))
        tokens = {name: [token for token in family.tokens(k) if token.label] for name, family in families().items()}
        known = tokenizer.get_vocab().keys()
        self.families = [name for name, own in tokens.items() if any(token.content in known for token in own)]
        number = {label: number for number, label in enumerate(label_names())}
        labels = {self.token_id(token.content): number[token.label] for name in self.families for token in tokens[name]}
        self._classes = torch.zeros(tokenizer.get_vocab_size(), dtype=torch.int8)
        self._classes[list(labels)] = torch.tensor(list(labels.values()), dtype=torch.int8)
        self._added = frozenset(tokenizer.get_added_tokens_decoder())
        self._not_in_answers = self._added.difference(labels)

    def token_id(self, token: str) -> int:
        """The id of a token that the model must have; UsageError without it."""
        found = self.tokenizer.token_to_id(token)
        if found is None:
            raise UsageError(
                f"The tokenizer has no {token}, expected one of Qwen2-VL with the perception tokens of a "
                f"{self.k} x {self.k} grid; add `vpt_data.dialogue.tokens.added_tokens` to it"
            )
        return found

    def _text(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def encode(self, row: Mapping[str, Any], *, prompt: bool = False) -> Sample:
        """The row without pixels; with `prompt` it ends with the header of an answer to come.

        Needs id, messages, views, image_info and k of a row. Raises Unfit if it cannot be trained on, UsageError if it
        is meant for a model with other tokens.
        """
        walk = _Walk()
        messages = list(row["messages"] or ())
        if self._system is not None and (not messages or messages[0]["role"] != "system"):
            self._plain_turn(walk, "system", self._system, -1, row)
        for number, message in enumerate(messages):
            if walk.ids:
                walk.write(self._newline)
            if message["content"] is None:
                raise Unfit(Reason.MALFORMED, f"message {number} has no text")
            if message["role"] == "assistant":
                self._answer_turn(walk, message["content"], row)
            else:
                self._plain_turn(walk, message["role"], message["content"], number, row)
        if prompt:
            walk.write([*self._newline, self._turn[0], *self._answer])
        return self._finished(walk, row)

    def _finished(self, walk: _Walk, row: Mapping[str, Any]) -> Sample:
        if len(walk.slots) != len(row["views"]):
            raise Unfit(Reason.MALFORMED, f"{len(walk.slots)} placeholders for {len(row['views'])} views")
        if len(walk.ids) > self.cutoff:
            raise Unfit(TOO_LONG, f"{len(walk.ids)} tokens, at most {self.cutoff} are trained on")
        if any(view["cells"] is not None for view in row["views"]) and row["k"] != self.k:
            raise UsageError(
                f"Sample {row['id']}: its regions are on a {row['k']} x {row['k']} grid and the model's on "
                f"{self.k} x {self.k}, where the same tokens mean other places; set model.k to {row['k']}, or build "
                f"the corpus with k = {self.k}"
            )
        for control in walk.controls:
            if control.count != self.control_tokens:
                raise UsageError(
                    f"Sample {row['id']}: asks for {control.kind} with {_control_tokens(control.count)}, and the model "
                    f"takes {_control_tokens(self.control_tokens)} a look; set model.control_tokens to {control.count},"
                    f" or build the corpus with control_tokens = {self.control_tokens}"
                )
        weight = 1.0 if row.get("weight") is None else float(row["weight"])
        if not 0 <= weight < math.inf:
            raise Unfit(Reason.MALFORMED, f"its weight is {weight}, expected 0 or more")
        start, end = walk.user
        ids = torch.tensor(walk.ids, dtype=torch.int64)
        labels = ids.masked_fill(~torch.tensor(walk.trained, dtype=torch.bool), IGNORE)
        first_user = start, end if walk.called is None else walk.called
        shown = tuple(walk.slots), tuple(walk.controls)
        return Sample(row["id"], ids, labels, self._classes[ids], *shown, first_user, weight)

    def _plain_turn(self, walk: _Walk, role: str, content: str, number: int, row: Mapping[str, Any]) -> None:
        """A turn without loss: text, and a run of pads for each placeholder."""
        begin = len(walk.ids)
        walk.write([self._turn[0]])
        text, done = f"{role}\n{content}", 0
        for found in self._placeholder.finditer(text):
            self._plain_text(walk, text[done : found.start()], row)
            self._slot(walk, self._kinds[found[0]], number, row)
            done = found.end()
        self._plain_text(walk, text[done:], row)
        walk.write([self._turn[1]])
        if role == "user" and walk.user == (0, 0):
            walk.user = begin, len(walk.ids)

    def _plain_text(self, walk: _Walk, text: str, row: Mapping[str, Any]) -> None:
        ids = self._text(text)
        self._check(text, ids, self._added, row)
        walk.write(ids)

    def _check(self, text: str, ids: list[int], foreign: frozenset[int], row: Mapping[str, Any]) -> None:
        if not foreign.isdisjoint(ids):
            token = next(token for token in ids if token in foreign)
            raise Unfit(Reason.MALFORMED, f"a text holds the token {self.tokenizer.id_to_token(token)}")
        # A token that the tokenizer lacks would become ordinary pieces, and train without a word.
        for found in self._spelled.finditer(text) if "<" in text else ():
            name, content = found.lastgroup, found[0]
            if self.tokenizer.token_to_id(content) is not None:
                continue
            if name in self.families:
                raise Unfit(Reason.MALFORMED, f"a text holds {content}, which is no token of the family {name}")
            raise UsageError(
                f"Sample {row['id']}: holds {content} of the family {name}, and the tokenizer has "
                f"{', '.join(self.families) or 'none'}; set model.families or model.encoder, or give another corpus"
            )

    def _answer_turn(self, walk: _Walk, content: str, row: Mapping[str, Any]) -> None:
        """A trained turn: all of it but its header and the control tokens."""
        if self._placeholder.search(content):
            raise Unfit(Reason.MALFORMED, "an answer holds a placeholder")
        walk.write([self._turn[0], *self._answer])
        ids = self._text(content)
        self._check(content, ids, self._not_in_answers, row)
        begin = len(walk.ids)
        walk.write([*ids, self._turn[1]], trained=True)
        for at, token in enumerate(ids, begin):
            if token in self._starts and walk.called is None:
                walk.called = at
            elif token in self._controls:
                walk.trained[at] = False
                last = walk.controls[-1] if walk.controls else None
                if last and (last.kind, last.at + last.count) == (self._controls[token], at):
                    walk.controls[-1] = replace(last, count=last.count + 1)
                else:
                    walk.controls.append(Control(self._controls[token], at))

    def _slot(self, walk: _Walk, kind: str, number: int, row: Mapping[str, Any]) -> None:
        place = len(walk.slots)
        if place >= len(row["views"]):
            raise Unfit(Reason.MALFORMED, f"more placeholders than the {len(row['views'])} views")
        view = row["views"][place]
        if (view["encoder"], view["turn"]) != (kind, number):
            raise Unfit(Reason.MALFORMED, f"view {place} is {view['encoder']} in turn {view['turn']}, not {kind} here")
        if kind not in self._pads:
            raise UsageError(
                f"Sample {row['id']}: shows an image through {kind}, and the model has {', '.join(self._pads)}; make "
                "the corpus fit with `vpt-data render`, or choose another configuration"
            )
        length, grid = self.vision.tokens(kind, _size(view, row["image_info"]))
        walk.write(self._frame[:1])
        slot, shown = Slot(kind, len(walk.ids), length, grid), (view["image"], view["box"])
        before = zip(walk.slots, row["views"], strict=False)
        same = (n for n, (one, v) in enumerate(before) if (one.tower, v["image"], v["box"]) == (slot.tower, *shown))
        walk.slots.append(replace(slot, shares=next(same, None)))
        walk.write([self._pads[kind]] * length)
        walk.write(self._frame[1:])


def _control_tokens(count: int) -> str:
    return f"{count} control token{'' if count == 1 else 's'}"


def _size(view: Mapping[str, Any], info: Sequence[Mapping[str, Any]]) -> tuple[int, int]:
    """Width and height of what a view shows."""
    if not 0 <= view["image"] < len(info):
        raise Unfit(Reason.MALFORMED, f"a view shows image {view['image']} of {len(info)}")
    if view["box"] is not None:
        x0, y0, x1, y1 = view["box"]
        if x0 >= x1 or y0 >= y1:
            raise Unfit(Reason.MALFORMED, f"a view shows no pixel: box {view['box']}")
        return x1 - x0, y1 - y0
    shown = info[view["image"]]
    if not shown["width"] or not shown["height"]:
        raise Unfit(Reason.NO_SIZE, f"image {view['image']}: no size in the row, and the image is not there")
    return shown["width"], shown["height"]
