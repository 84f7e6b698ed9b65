"""Perception tokens: their strings, their order in the vocabulary, which carry loss, how literals are
defused.

family    what a family of tokens is
grid      region tokens
depth     depth tokens of AURORA
pixels    pixel tokens of AURORA
reencode  tokens that call another encoder

A new family is one entry of `FAMILIES`: tokenizer, labels, accuracy and generation of the trainer follow it.
"""

import re
from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.dialogue.tokens import depth, grid, pixels, reencode
from vpt_data.dialogue.tokens.family import Family, Token
from vpt_data.dialogue.tokens.reencode import ENCODERS, encoder_named

IMAGE: Final = "<image>"
#: Any token of the form <|...|>, whether a model has it or not; for pyarrow (RE2) and `re` alike.
SPECIAL_TOKEN: Final = r"<\|[^|<>\s]+\|>"

_QWEN2_VL_FIRST_ID: Final = 151_657

REGION: Final = "region"  # the family of grid tokens, and a look that is through no encoder
#: The families that belong to no encoder; names are Python identifiers.
FAMILIES: Final[dict[str, Family]] = {REGION: grid.FAMILY, "depth": depth.FAMILY, "pixels": pixels.FAMILY}


def families() -> dict[str, Family]:
    """All families by name; that of an encoder has its name."""
    return FAMILIES | {name: reencode.family(entry) for name, entry in ENCODERS.items()}


def label_names() -> tuple[str, ...]:
    """Classes of labels, by which accuracy is reported: `text`, then those of all families."""
    labels = (token.label for family in families().values() for token in family.tokens(1) if token.label)
    return ("text", *dict.fromkeys(labels))


def placeholders() -> dict[str, str]:
    """What stands in a user turn for an image, by the encoder that it is shown through; `vlm` is the model's own."""
    return {"vlm": IMAGE, **{name: entry.placeholder for name, entry in ENCODERS.items()}}


def _special_text() -> str:
    """Placeholders and special tokens, for RE2; group 1 is everything after the `<`.

    The fixed first character matters: RE2 then looks for that byte alone, which makes this several times faster
    than one plain substring search.
    """
    words = [re.escape(word[1:]) for word in placeholders().values()]
    words += [family.pattern[1:] for family in FAMILIES.values() if not family.pattern.startswith(r"<\|")]
    return f"<({SPECIAL_TOKEN[1:]}|{'|'.join(words)})"


def added_tokens(encoder: str | None, k: int = 8, others: Sequence[str] = (REGION,)) -> list[Token]:
    """Tokens that a model for `encoder` (None: for none) and for `others` of `FAMILIES` needs, in vocabulary order.

    The order is fixed by the released checkpoints: the special token first, then region start and end,
    x_0.., y_0.., action start, action, action end. All but the first are plain, because text is decoded
    without specials and a region or a call must survive that. Raises ValueError for a name that is not known.
    """
    if unknown := [name for name in others if name not in FAMILIES]:
        raise ValueError(f"family {unknown[0]!r} is not known, expected one of: {', '.join(FAMILIES)}")
    chosen = [FAMILIES[name] for name in others]
    chosen += [reencode.family(encoder_named(encoder))] if encoder else []
    tokens = [token for family in chosen for token in family.tokens(k)]
    return sorted(tokens, key=lambda token: not token.special)


def token_ids(
    encoder: str | None, k: int = 8, first: int = _QWEN2_VL_FIRST_ID, others: Sequence[str] = (REGION,)
) -> dict[str, int]:
    """Token -> id, for a vocabulary whose next free id is `first` (Qwen2-VL: 151657); the families as `added_tokens`.

    >>> token_ids(None, first=32_000, others=("depth", "pixels"))["<PIXEL_0>"]
    32130
    """
    return {token.content: first + place for place, token in enumerate(added_tokens(encoder, k, others))}


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
