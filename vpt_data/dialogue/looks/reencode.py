"""A look through another vision encoder: tokens call it, and the next turn shows the whole image through it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from vpt_data.columns import Views
from vpt_data.dialogue.looks.look import Look
from vpt_data.dialogue.tokens.reencode import action_turn, encoder_named

if TYPE_CHECKING:
    from vpt_data.dialogue.rule import RenderRule


def look(annotations: pa.Table, rule: RenderRule) -> Look:
    """The call of the encoder, and the first image of each record through it."""
    encoder, count = encoder_named(rule.encoder or ""), annotations.num_rows
    call = pa.repeat(action_turn(encoder.name, rule.control_tokens), count)
    view = Views(np.arange(count), np.zeros(count, np.int64), np.zeros(count, np.int64), encoder.name)
    return Look(call, pa.repeat(encoder.placeholder, count), view)


def explain(rule: RenderRule) -> str:
    """What the card says of these looks; nothing of the arm without control tokens, which has none."""
    if not rule.control_tokens:
        return ""
    encoder = encoder_named(rule.encoder or "")
    return (
        f"A re-encoding look calls the encoder `{encoder.name}`: `{action_turn(encoder.name, rule.control_tokens)}`. "
        f"The next turn shows the whole image through it, as `{encoder.placeholder}`."
    )
