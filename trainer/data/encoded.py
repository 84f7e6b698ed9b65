"""What `encode` hands to `model`: one sample as token ids, labels and the pictures of its placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

IGNORE = -100  # a label without loss

TEXT, REGION, X, Y, ACTION = range(5)  # values of Encoded.classes
CLASS_NAMES = ("text", "region", "x", "y", "action")


@dataclass(frozen=True)
class Slot:
    """A run of placeholder tokens that visual features replace.

    `start` is the index of its first placeholder in `input_ids`, `length` their number. `grid` is (t, h, w) in patches
    before the 2x2 merge for `vlm` and `clip`, so `length = t * h * w / 4`; it is None for `dino` and `sam`. `pixels`
    is float32: flattened patches [t*h*w, patch_dim] in the order of the Qwen2-VL image processor for `vlm` and
    `clip`, a normalised picture [3, H, W] for `dino` and `sam`.
    """

    kind: str
    start: int
    length: int
    grid: tuple[int, int, int] | None
    pixels: Tensor


@dataclass(frozen=True)
class Control:
    """One control token, `<|KIND_action|>`, at index `at`; its vector is the final hidden state at `at - 1`.

    It steers the next slot of its kind after it.
    """

    kind: str
    at: int


@dataclass(frozen=True)
class Encoded:
    """One sample, not padded; T tokens.

    `input_ids` and `labels` are int64[T] and aligned: `labels[t]` is the token at `t` or IGNORE (the model shifts).
    `classes` is int8[T], one of TEXT, REGION, X, Y, ACTION. `slots` and `controls` are in order of position.
    `first_user` is half open: from `<|im_start|>` of the first user turn up to the start token of the first action,
    or to the end of that turn if the sample has no action. Mask modelling (strict scope) hides it, and whatever is
    between it and the control token, from all that follows. `weight` multiplies its loss.
    """

    id: str
    input_ids: Tensor
    labels: Tensor
    classes: Tensor
    slots: tuple[Slot, ...]
    controls: tuple[Control, ...]
    first_user: tuple[int, int]
    weight: float = 1.0


def block(ids: Tensor, slots: Sequence[Slot] = (), controls: Sequence[Control] = (), *, id: str = "block") -> Encoded:
    """Tokens to append, without labels; slots and controls count from its first token."""
    nothing = torch.full_like(ids, IGNORE)
    return Encoded(id, ids, nothing, torch.zeros_like(ids, dtype=torch.int8), tuple(slots), tuple(controls), (0, 0))
