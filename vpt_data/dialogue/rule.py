"""What a take says once its recipe is resolved: all that rendering needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from vpt_data.dialogue.regions import RegionState as RegionState
from vpt_data.dialogue.regions import inspect_regions as inspect_regions
from vpt_data.dialogue.tokens import neutralise
from vpt_data.errors import UsageError
from vpt_data.take import Boxes, Edge, Expected, Task, Template, Turns


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderRule:
    """What a take says once its recipe is resolved, and whether its source gives whole conversations."""

    take: str
    template: Template
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
        if self.template in {"reencode", "alignment"} and self.encoder is None:
            raise UsageError(f"Take {self.take}: template {self.template} needs an encoder: dino, sam or clip.")
        if self.ask is not None and self.source_conversations:
            raise UsageError(
                f"Take {self.take}: `ask` rewrites questions, but this source gives conversations; drop it."
            )
        for key, text in (("ask", self.ask), ("system", self.system)):
            if text is not None and neutralise(pa.array([text]))[1].any():
                raise UsageError(f"Take {self.take}: `{key}` holds a placeholder or special token; take it out.")

    @property
    def look(self) -> Literal["region", "textbox", "reencode"] | None:
        """The second look in the dialogue; none in evaluation rows and in the arm without control tokens."""
        if self.expected is not None or self.template in {"plain", "alignment"}:
            return None
        if self.template == "reencode":
            return "reencode" if self.control_tokens else None
        return "region" if self.template == "region" else "textbox"

    @property
    def whole(self) -> bool:
        """Whether the messages are whole conversations, not one question and its answer."""
        plain = self.template == "plain" and self.expected is None
        return plain and self.turns == "all" and self.source_conversations


def needs_region(rule: RenderRule) -> bool:
    """Whether a record without a usable region is of no use to this take."""
    return rule.template in {"region", "textbox"} or rule.expected == "region"
