"""Pixel tokens of AURORA: boxes as four tokens, each a coordinate of the image squashed to 336 x 336.

`(<PIXEL_x1>,<PIXEL_y1>,<PIXEL_x2>,<PIXEL_y2>)` names columns x1..x2 and rows y1..y2, both ends included.
`geometry.cells(boxes, sizes, SIDE, "inside")` makes such numbers of boxes in pixels of the stored image.
"""

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.dialogue.tokens.family import Family, Token

#: Width and height of the squashed image, and so the number of tokens.
SIDE: Final = 336

_WORDS: Final = tuple(f"<PIXEL_{pixel}>" for pixel in range(SIDE))
_NUMBERS: Final = {word: pixel for pixel, word in enumerate(_WORDS)}
#: A pixel token, for RE2 and `re` alike; an index beyond the image is matched as well.
TOKEN: Final = "<PIXEL_-?[0-9]+>"
_PART: Final = re.compile(TOKEN)
_FOREIGN: Final = re.compile(r"<[^<>\s]+>")
#: Tokens with nothing but blanks, commas and tokens that do not belong there between them, with their parentheses.
_BOX: Final = re.compile(rf"(?:\(\s*)?{TOKEN}(?:(?:[\s,]|<[^<>\s]+>)*{TOKEN})?(?:\s*\))?")


class PixelFault(StrEnum):
    """What is wrong with a box of pixel tokens; one with either of the last two is used all the same."""

    FOREIGN_TOKEN = "foreign_token"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    WRONG_COUNT = "wrong_count"
    REVERSED = "reversed"
    NO_PARENTHESES = "no_parentheses"
    SPACE_BETWEEN_TOKENS = "space_between_tokens"


_USED: Final = (None, PixelFault.NO_PARENTHESES, PixelFault.SPACE_BETWEEN_TOKENS)


@dataclass(frozen=True, slots=True)
class PixelBoxes:
    """What a text holds: `(x1, y1, x2, y2)` of its usable boxes in order, ends included, and faults of all."""

    boxes: list[tuple[int, int, int, int]]
    faults: Counter[PixelFault]


def encode(boxes: npt.ArrayLike) -> pa.StringArray:
    """Boxes [N, 4] (`x1, y1, x2, y2` on the squashed image, ends included) -> N strings.

    Raises ValueError on another shape, on a coordinate that is not 0..335 and on swapped corners.

    >>> encode([[0, 1, 335, 12]])[0].as_py()
    '(<PIXEL_0>,<PIXEL_1>,<PIXEL_335>,<PIXEL_12>)'
    """
    pixel = np.asarray(boxes, np.int64)
    if pixel.ndim != 2 or pixel.shape[1] != 4:
        raise ValueError(f"boxes: shape is {list(pixel.shape)}, expected [N, 4]")
    wrong = ((pixel < 0) | (pixel >= SIDE)).any(axis=1) | (pixel[:, :2] > pixel[:, 2:]).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"boxes: row {row} is {pixel[row].tolist()}, expected x1 <= x2, y1 <= y2 in 0 to {SIDE - 1}")
    words = pa.array(_WORDS)
    inside = pc.binary_join_element_wise(*(words.take(pa.array(pixel[:, side])) for side in range(4)), ",")
    return pc.binary_join_element_wise("(", inside, ")", "")


def decode(text: str) -> PixelBoxes:
    """Find every box of pixel tokens in one text.

    Tokens with nothing but blanks, commas and foreign tokens between them are one box, whatever their number. A bad box
    counts once, under the first cause of this order: foreign token, index out of range, wrong count, reversed, no
    parentheses, space between tokens; with either of the last two it is used.

    >>> decode("Box 1: (<PIXEL_3>, <PIXEL_4>, <PIXEL_5>, <PIXEL_6>)")
    PixelBoxes(boxes=[(3, 4, 5, 6)], faults=Counter({<PixelFault.SPACE_BETWEEN_TOKENS: 'space_between_tokens'>: 1}))
    """
    found: list[tuple[int, int, int, int]] = []
    faults: Counter[PixelFault] = Counter()
    for span in _BOX.findall(text):
        numbers = [_NUMBERS.get(word, -1) for word in _PART.findall(span)]
        fault = _fault(span, numbers)
        if fault:
            faults[fault] += 1
        if fault in _USED:
            x1, y1, x2, y2 = numbers
            found.append((x1, y1, x2, y2))
    return PixelBoxes(found, faults)


def _fault(span: str, numbers: list[int]) -> PixelFault | None:
    between = _PART.sub("", span)
    if _FOREIGN.search(between):
        return PixelFault.FOREIGN_TOKEN
    if min(numbers) < 0:
        return PixelFault.INDEX_OUT_OF_RANGE
    if len(numbers) != 4:
        return PixelFault.WRONG_COUNT
    x1, y1, x2, y2 = numbers
    if x1 > x2 or y1 > y2:
        return PixelFault.REVERSED
    if not (between.startswith("(") and between.endswith(")")):
        return PixelFault.NO_PARENTHESES
    return PixelFault.SPACE_BETWEEN_TOKENS if between != "(,,,)" else None


def _faults(text: str, _: int) -> Counter[str]:
    return Counter({f"pixel_{fault}": times for fault, times in decode(text).faults.items()})


_TOKENS: Final = tuple(Token(word, "pixel") for word in _WORDS)
#: A box has no token that opens it: a parenthesis does.
FAMILY: Final = Family(lambda _: _TOKENS, TOKEN, None, lambda span, k: None, _faults)
