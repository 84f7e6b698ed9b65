"""What an intervention may change under generation, and the row as it sees it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from trainer.data.sample import Sample
from trainer.generation.dialog import ControlVectors, Ended, Fault, Row, Shown
from vpt_data.images import views


@dataclass
class Dialog:
    """A row under generation; only `rounds` changes it.

    row       the row that is asked, with all its columns
    images    its images, decoded
    prompt    its tokens; the slots have no pixels: `pictures` has those, uint8[3, H, W]
    turn      ids of the turn that is being said; `calls` are the encoders that it asked for
    turns     texts of the turns before it; looks, invalid, tokens, prompt_tokens, fault, intervened, controls, seconds:
              see `Record`
    ended     how the turn ended, None while it goes on
    actions   turns that have asked for looks
    capped    whether the turn was refused a look
    logprob   of the tokens of the turn that the model chose
    dice      for tokens that are drawn
    """

    row: Row
    images: list[Image.Image] = field(default_factory=list)
    prompt: Sample | None = None
    pictures: list[Tensor] = field(default_factory=list)
    turn: list[int] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    turns: list[str] = field(default_factory=list)
    looks: list[Shown] = field(default_factory=list)
    invalid: Counter[str] = field(default_factory=Counter)
    tokens: list[int] = field(default_factory=list)
    prompt_tokens: int = 0
    ended: Ended | None = None
    fault: Fault | None = None
    intervened: int = 0
    controls: list[ControlVectors] = field(default_factory=list)
    actions: int = 0
    capped: bool = False
    logprob: float = 0.0
    seconds: float = 0.0
    dice: random.Random = field(default_factory=random.Random)


class Policy:
    """Plays a model as it is; an intervention overrides one method.

    One policy serves all rows of a call of `answer`. What it does for a row should depend on this row alone, so that
    rows do not depend on who shares their batch.
    """

    def prefix(self, dialog: Dialog) -> str:
        """What is said for the model at the beginning of each of its turns; `<|im_end|>` at its end ends the turn.

        The start token of a call stands for the whole call.
        """
        return ""

    def allowed(self, dialog: Dialog) -> Tensor | None:
        """Which tokens may be chosen next, bool [vocabulary]; None: all."""
        return None

    def vectors(self, vectors: Tensor, dialogs: Sequence[Dialog], kinds: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Control vectors [n, s, width] of n calls -> what is fed in place of the control tokens, what steers features.

        None instead of the second: the features of these looks are not steered. `kinds` are the encoders.
        """
        return vectors, vectors

    def show(self, dialog: Dialog, looks: Sequence[Shown]) -> list[Image.Image]:
        """One picture for each look that a turn asked for, in their order; none at all: the model goes on without."""
        return [views.pixels(dialog.images[0], look.box) for look in looks]
