"""Perception tokens: their strings, their order in the vocabulary, which carry loss, how literals are
defused.

`grid` holds the region tokens, `reencode` the tokens that call another encoder.
"""

import re
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.dialogue.tokens.grid import region_tokens
from vpt_data.dialogue.tokens.reencode import ENCODERS, encoder_named

IMAGE: Final = "<image>"
#: Any token of the form <|...|>, whether a model has it or not; for pyarrow (RE2) and `re` alike.
SPECIAL_TOKEN: Final = r"<\|[^|<>\s]+\|>"

_QWEN2_VL_FIRST_ID: Final = 151_657


def placeholders() -> dict[str, str]:
    """What stands in a user turn for an image, by the encoder that it is shown through; `vlm` is the model's own."""
    return {"vlm": IMAGE, **{name: entry.placeholder for name, entry in ENCODERS.items()}}


def _special_text() -> str:
    """Placeholders and special tokens, for RE2; group 1 is everything after the `<`.

    The fixed first character matters: RE2 then looks for that byte alone, which makes this several times faster
    than one plain substring search.
    """
    words = "|".join(re.escape(word[1:]) for word in placeholders().values())
    return f"<({SPECIAL_TOKEN[1:]}|{words})"


class AddedToken(NamedTuple):
    """A token to add to a tokenizer. Only `special` ones may vanish when a prediction is decoded."""

    content: str
    special: bool


def added_tokens(encoder: str | None, k: int = 8) -> list[AddedToken]:
    """Tokens that a model for `encoder` (None: for regions only) needs on a k x k grid, in vocabulary order.

    The order is fixed by the released checkpoints: the special token first, then region start and end,
    x_0.., y_0.., action start, action, action end. All but the first are plain, because text is decoded
    without specials and a region or a call must survive that.
    """
    if encoder is None:
        return [AddedToken(content, False) for content in region_tokens(k)]
    entry = encoder_named(encoder)
    plain = [*region_tokens(k), entry.start, entry.control, entry.end]
    return [AddedToken(entry.image_pad, True), *(AddedToken(content, False) for content in plain)]


def token_ids(encoder: str, k: int = 8, first: int = _QWEN2_VL_FIRST_ID) -> dict[str, int]:
    """Token -> id, for a vocabulary whose next free id is `first` (Qwen2-VL: 151657)."""
    return {token.content: first + place for place, token in enumerate(added_tokens(encoder, k))}


def carries_loss(token: str) -> bool:
    """Whether a token of an assistant turn is trained on.

    Not control tokens (the model's own state is fed in their place) and not image pads; every other token
    is, region tokens and the start and end of a call included.

    >>> carries_loss("<|x_3|>"), carries_loss("<|seg_action|>"), carries_loss("<|image_pad|>")
    (True, False, False)
    """
    return not token.endswith("image_pad|>") and all(token != entry.control for entry in ENCODERS.values())


def neutralise(column: pa.StringArray) -> tuple[pa.StringArray, npt.NDArray[np.bool_]]:
    """Defuse placeholders and `<|...|>` tokens in source text: one space after the `<` -> (column, hit [N]).

    Every match changes, so pass text without its own, meant placeholders. Nulls stay null and are no hit; a
    column without a match comes back itself. A second pass finds nothing.

    >>> neutralise(pa.array(["see <image>", "<|x_3|>", "a < b"]))[0].to_pylist()
    ['see < image>', '< |x_3|>', 'a < b']
    """
    if not _holds(column, "<"):
        return column, np.zeros(len(column), np.bool_)
    pattern = _special_text()
    found = pc.fill_null(pc.match_substring_regex(column, pattern), False)
    hit: npt.NDArray[np.bool_] = found.to_numpy(zero_copy_only=False)
    if not hit.any():
        return column, hit
    defused = pc.replace_substring_regex(column.filter(found), pattern, r"< \1")
    return pc.replace_with_mask(column, found, defused), hit


def _holds(column: pa.StringArray, letter: str) -> bool:
    """Whether an ASCII letter occurs anywhere in a column: one look at its bytes, where a pattern takes one a row."""
    if len(column) == 0 or column.buffers()[2] is None:
        return False
    offsets = np.frombuffer(column.buffers()[1], np.int32)
    data = np.frombuffer(column.buffers()[2], np.uint8)[offsets[column.offset] : offsets[column.offset + len(column)]]
    return bool((data == ord(letter)).any())
