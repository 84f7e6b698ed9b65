"""The record that data and model share: one row as token ids, labels, places of pictures and control tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainer.model.phases import Plan

IGNORE = -100  # a label without loss


@dataclass(frozen=True)
class Slot:
    """A run of placeholder tokens that visual features replace.

    `start` is the index of its first placeholder in `input_ids`, `length` their number. `grid` is (t, h, w) in patches
    before the 2x2 merge for `vlm` and `clip`, so `length = t * h * w / 4`; it is None for `dino` and `sam`. `pixels`
    is float32, or None until they are read: flattened patches [t*h*w, patch_dim] in the order of the Qwen2-VL image
    processor for `vlm` and `clip`, a normalised picture [3, H, W] for `dino` and `sam`. `shares` is the number of an
    earlier slot of the sample that shows the same picture in the same size: it is cut and encoded once for both.
    """

    kind: str
    start: int
    length: int
    grid: tuple[int, int, int] | None
    pixels: Tensor | None = None
    shares: int | None = None

    @property
    def tower(self) -> str:
        """What encodes it: `vlm`, the model's own tower, or another kind that has a tower of its own."""
        return self.kind if self.grid is None else "vlm"


@dataclass(frozen=True)
class Control:
    """The control tokens of one look: `<|KIND_action|>`, `count` times from index `at` on.

    Their vectors are the final states of the tokens before them, from a pass in which they are ordinary tokens.
    Together they steer the next slot of their kind after them.
    """

    kind: str
    at: int
    count: int = 1


@dataclass(frozen=True)
class Sample:
    """One row of T tokens.

    `input_ids` and `labels` are int64[T] and aligned: `labels[t]` is the token at `t` or IGNORE (the model shifts).
    `classes` is int8[T]: indices into `vpt_data.dialogue.tokens.label_names()`. `slots` and `controls` are in order of
    position.
    `first_user` is half open: from `<|im_start|>` of the first user turn up to the start token of the first action,
    or to the end of that turn if the sample has no action. `weight` multiplies the loss. `masked` (mask modelling): the
    first control token and all after it do not see what is between the start of the first user turn and that token;
    the only way from there are the control vectors.
    """

    id: str
    input_ids: Tensor
    labels: Tensor
    classes: Tensor
    slots: tuple[Slot, ...]
    controls: tuple[Control, ...]
    first_user: tuple[int, int]
    weight: float = 1.0
    masked: bool = False

    def with_pixels(self, pixels: Sequence[Tensor]) -> Sample:
        """The same with one tensor for each slot, so that none shares those of another."""
        slots = (replace(slot, pixels=one, shares=None) for slot, one in zip(self.slots, pixels, strict=True))
        return replace(self, slots=tuple(slots))

    def __reduce__(self) -> Any:
        """Arrays on the way between processes: torch would open a file for each tensor."""
        values = [getattr(self, field.name) for field in fields(self)]
        return _received, tuple(value.numpy() if isinstance(value, Tensor) else value for value in values)


@dataclass(frozen=True)
class Batch:
    """What the model takes, all on its device: indices for samples one after the other, and their pictures.

    `pixels` are those of `Slot.pixels`, each picture once, by what encodes it: `vlm` (also for `clip`), `dino`, `sam`.
    """

    plan: Plan
    pixels: dict[str, list[Tensor]]


def _received(*values: Any) -> Sample:
    found: Any = [torch.from_numpy(value) if isinstance(value, np.ndarray) else value for value in values]
    return Sample(*found)


def block(ids: Tensor, slots: Sequence[Slot] = (), controls: Sequence[Control] = (), *, id: str = "block") -> Sample:
    """Tokens to append, without labels; slots and controls count from its first token."""
    nothing = torch.full_like(ids, IGNORE)
    return Sample(id, ids, nothing, torch.zeros_like(ids, dtype=torch.int8), tuple(slots), tuple(controls), (0, 0))
