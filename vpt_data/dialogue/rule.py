"""What a take says once its recipe is resolved: all that rendering needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import pyarrow as pa

from vpt_data.dialogue import ask
from vpt_data.dialogue.templates import TEMPLATES, Template
from vpt_data.dialogue.tokens import neutralise
from vpt_data.dialogue.tokens.reencode import ENCODERS
from vpt_data.errors import UsageError
from vpt_data.take import Boxes, Edge, Expected, Take, Task, Turns

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRule:
    """A resolved take: no rule is left to look up, and it is known whether its source gives whole conversations."""

    take: str
    template: str
    task: Task
    split: str = "train"
    source_conversations: bool = False
    encoder: str | None = None
    prompted: bool = True
    k: int = 8
    edge: Edge = "floor"
    boxes: Boxes = "union"
    crop_margin_cells: int = 0
    control_tokens: int = 1
    turns: Turns = "first"
    expected: Expected | None = None
    ask: str | None = None
    system: str | None = None
    license: str | None = None
    language: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.form.needs_encoder and self.encoder is None:
            raise UsageError(
                f"Take {self.take}: template {self.template} needs an encoder; set encoder to one of "
                f"{', '.join(ENCODERS)}."
            )
        if self.ask is not None and self.source_conversations:
            raise UsageError(
                f"Take {self.take}: `ask` rewrites questions, but this source gives conversations; remove it."
            )
        if self.ask is not None:
            ask.check(self.ask, f"Take {self.take}")
        for key, text in (("ask", self.ask), ("system", self.system)):
            if text is not None and neutralise(pa.array([text]))[1].any():
                raise UsageError(f"Take {self.take}: `{key}` holds a placeholder or special token; remove that.")

    @property
    def form(self) -> Template:
        """The entry of its template."""
        return TEMPLATES[self.template]

    @property
    def looks_again(self) -> bool:
        """Whether its dialogues have a second look: not in evaluation rows, nor in the arm without control tokens."""
        has_one = self.expected is None and self.form.look is not None
        return has_one and (self.control_tokens > 0 or not self.form.calls_encoder)

    @property
    def whole(self) -> bool:
        """Whether the messages are whole conversations, not one question and its answer."""
        return self.turns == "all" and self.source_conversations and self.expected is None

    @property
    def first_encoder(self) -> str:
        """Through which encoder the pictures of the question are shown; `vlm` is the model's own."""
        return self.encoder if self.form.first_encoder and self.encoder else "vlm"


def render_rule(name: str, take: Take, source_conversations: bool) -> RenderRule:
    """The rule of a take of a resolved recipe, key by key, so that a renamed key cannot fall back to a default."""
    return RenderRule(
        take=name,
        template=take.template,
        task=take.task,
        split=_given(take.split),
        source_conversations=source_conversations,
        encoder=take.encoder,
        prompted=_given(take.prompted),
        k=_given(take.k),
        edge=_given(take.edge),
        boxes=_given(take.boxes),
        crop_margin_cells=_given(take.crop_margin_cells),
        control_tokens=_given(take.control_tokens),
        turns=_given(take.turns),
        expected=take.expected,
        ask=take.ask,
        system=take.system,
        license=take.license,
        language=take.language,
        weight=take.weight,
    )


def _given(value: T | None) -> T:
    assert value is not None, "the recipe is not resolved"
    return value
