"""The messages of a row taken apart: text, perception tokens, placeholders, and which of them carry loss."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

import msgspec

from vpt_data.dialogue.tokens import SPECIAL_TOKEN, carries_loss, depth, grid, placeholders
from vpt_data.dialogue.tokens.reencode import ENCODERS, token_pattern


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a message.

    kind    text, a perception token, a placeholder (`view`), or a whole depth map in its tokens (`map`); a token of the
            form <|...|> that asks for nothing is of the family "other"
    view    of a placeholder: the view that it shows; of a token: the view that it asks for, where there is one
    loss    whether training learns to write it
    src     of a depth map: its picture as a data URI, None where its codes are no use without weights
    """

    kind: Literal["text", "token", "view", "map"]
    text: str
    loss: bool
    family: Literal["region", "action", "other"] | None = None
    view: int | None = None
    src: str | None = None


class Turn(msgspec.Struct, frozen=True):
    """A message."""

    role: str
    loss: bool
    parts: list[Part]


def turns(
    messages: Sequence[Mapping[str, Any]],
    views: Sequence[Mapping[str, Any]],
    drawn: Callable[[str], str | None] = lambda _: None,
) -> list[Turn]:
    """The messages of a row.

    views   its views, of which only turn and encoder are looked at
    drawn   the tokens of a depth map -> its picture as a data URI, None where there is none
    """
    shown, found = 0, []
    for number, message in enumerate(messages):
        trained = message["role"] == "assistant"
        calls, parts = _Calls(views, number + 1), []
        for kind, text in _pieces(message["content"] or ""):
            loss, view = trained and carries_loss(text), None
            if kind == "view":
                view, shown = (shown if shown < len(views) else None), shown + 1
            elif trained and kind in {"region", "action"}:
                view = calls.view(text)
            if kind == "map":
                parts.append(Part(kind=kind, text=text, loss=trained, src=drawn(text)))
            elif kind in {"text", "view"}:
                parts.append(Part(kind=kind, text=text, loss=trained, view=view))
            else:
                parts.append(Part(kind="token", text=text, loss=loss, family=kind, view=view))
        found.append(Turn(message["role"] or "", trained, parts))
    return found


def _pieces(text: str) -> Iterator[tuple[Any, str]]:
    """The text in pieces, each with its kind: text, view, map, region, action, other."""
    words = "|".join(map(re.escape, placeholders().values()))
    whole = f"{depth.START}(?:(?!{depth.START}).)*?{depth.END}"
    named = {"view": words, "map": whole, "region": grid.TOKEN, "action": token_pattern(), "other": SPECIAL_TOKEN}
    pattern = "|".join(f"(?P<{name}>{each})" for name, each in named.items())
    end = 0
    for match in re.finditer(pattern, text):
        if match.start() > end:
            yield "text", text[end : match.start()]
        yield match.lastgroup, match.group()
        end = match.end()
    if end < len(text):
        yield "text", text[end:]


class _Calls:
    """Which view each token of an assistant turn asks for: the n-th call of an encoder is its n-th view in `answer`."""

    def __init__(self, views: Sequence[Mapping[str, Any]], answer: int) -> None:
        there = [(number, view["encoder"]) for number, view in enumerate(views) if view["turn"] == answer]
        self._starts = {grid.START: "vlm", **{entry.start: name for name, entry in ENCODERS.items()}}
        self._left = {name: iter([n for n, encoder in there if encoder == name]) for name in self._starts.values()}
        self._now: int | None = None

    def view(self, token: str) -> int | None:
        """The view that the call with this token asks for; tokens come in the order of the text."""
        if token in self._starts:
            self._now = next(self._left[self._starts[token]], None)
        return self._now
