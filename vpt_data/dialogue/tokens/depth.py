"""Depth tokens of AURORA: a depth map as 100 codes, row by row on a 10 x 10 grid, between a start and an end.

`<DEPTH_START><DEPTH_17>..<DEPTH_103><DEPTH_END>` are 102 tokens. What a code means is up to the tokenizer that made it
(`vpt_data.depth`): the same strings of two tokenizers are two languages.
"""

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from vpt_data.dialogue.tokens.family import Family, Token

START: Final = "<DEPTH_START>"
END: Final = "<DEPTH_END>"
#: How many codes there are, and how many a span holds: a grid of SIDE x SIDE, row by row.
CODES: Final = 128
SIDE: Final = 10
LENGTH: Final = SIDE * SIDE

_WORDS: Final = tuple(f"<DEPTH_{code}>" for code in range(CODES))
_NUMBERS: Final = {word: code for code, word in enumerate(_WORDS)}
#: A depth token, for RE2 and `re` alike; an index that no code has is matched as well.
TOKEN: Final = "<DEPTH_(START|END|-?[0-9]+)>"
_PART: Final = re.compile(TOKEN)
_FOREIGN: Final = re.compile(r"<[^<>\s]+>")


class DepthFault(StrEnum):
    """What is wrong with a span of depth tokens; one with `space_between_tokens` is used all the same."""

    NO_START = "no_start"
    NO_END = "no_end"
    FOREIGN_TOKEN = "foreign_token"
    TEXT_BETWEEN_TOKENS = "text_between_tokens"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    WRONG_COUNT = "wrong_count"
    SPACE_BETWEEN_TOKENS = "space_between_tokens"


@dataclass(frozen=True, slots=True)
class DepthSpan:
    """A span as it was found: the codes in it that exist, in order, and its fault."""

    codes: tuple[int, ...]
    fault: DepthFault | None

    @property
    def usable(self) -> bool:
        """Whether it is a whole map."""
        return self.fault in (None, DepthFault.SPACE_BETWEEN_TOKENS)


def encode(codes: npt.ArrayLike) -> pa.StringArray:
    """Spans of codes [N, 100] (0..127, row by row) -> N strings.

    Raises ValueError on another shape and on a code that does not exist.

    >>> encode(np.zeros((1, 100), int))[0].as_py()[:36]
    '<DEPTH_START><DEPTH_0><DEPTH_0><DEPT'
    """
    index = np.asarray(codes, np.int64)
    if index.ndim != 2 or index.shape[1] != LENGTH:
        raise ValueError(f"codes: shape is {list(index.shape)}, expected [N, {LENGTH}]")
    wrong = ((index < 0) | (index >= CODES)).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise ValueError(f"codes: row {row} holds {index[row].min()} to {index[row].max()}, expected 0 to {CODES - 1}")
    words = pa.array(_WORDS).take(pa.array(index.ravel()))
    offsets = pa.array(np.arange(len(index) + 1) * LENGTH, pa.int32())
    inside = pc.binary_join(pa.ListArray.from_arrays(offsets, words), "")
    return pc.binary_join_element_wise(START, inside, END, "")


def decode(text: str) -> list[DepthSpan]:
    """Find every depth span in one text, in order, the damaged ones included.

    Each bad span has one fault, the first of: no start, no end, foreign token, text between tokens, index out of
    range, wrong count, space between tokens (slow tokenizers insert blanks; the span is usable). Codes outside any
    span are one `no_start` for each run.

    >>> [(len(span.codes), str(span.fault)) for span in decode("<DEPTH_START><DEPTH_5><DEPTH_128><DEPTH_END>")]
    [(1, 'index_out_of_range')]
    """
    return [_span(text, parts) for parts in _groups(text)]


def _groups(text: str) -> Iterator[list[re.Match[str]]]:
    """Groups of tokens: a start opens a group, an end closes it, whatever is missing."""
    group: list[re.Match[str]] = []
    for part in _PART.finditer(text):
        if part.group() == START and group:
            yield group
            group = []
        group.append(part)
        if part.group() == END:
            yield group
            group = []
    if group:
        yield group


def _span(text: str, parts: list[re.Match[str]]) -> DepthSpan:
    inside = [part.group() for part in parts if part.group() not in (START, END)]
    codes = tuple(_NUMBERS[word] for word in inside if word in _NUMBERS)
    between = _PART.sub("", text[parts[0].start() : parts[-1].end()])
    return DepthSpan(codes, _fault(parts, between, len(codes), len(inside)))


def _fault(parts: list[re.Match[str]], between: str, codes: int, said: int) -> DepthFault | None:
    checks = (
        (DepthFault.NO_START, parts[0].group() != START),
        (DepthFault.NO_END, parts[-1].group() != END),
        (DepthFault.FOREIGN_TOKEN, _FOREIGN.search(between) is not None),
        (DepthFault.TEXT_BETWEEN_TOKENS, bool(between.strip())),
        (DepthFault.INDEX_OUT_OF_RANGE, codes < said),
        (DepthFault.WRONG_COUNT, said != LENGTH),
        (DepthFault.SPACE_BETWEEN_TOKENS, bool(between)),
    )
    return next((fault for fault, found in checks if found), None)


def _follow(span: Sequence[str], _: int) -> Sequence[str] | None:
    """What keeps an open span well formed: exactly 100 codes, then the end."""
    if any(token not in _NUMBERS for token in span[1:]):
        return None
    return _WORDS if len(span) <= LENGTH else [END]


def _faults(text: str, _: int) -> Counter[str]:
    return Counter(f"depth_{span.fault}" for span in decode(text) if span.fault)


_TOKENS: Final = (Token(START, "depth"), Token(END, "depth"), *(Token(word, "depth_code") for word in _WORDS))
FAMILY: Final = Family(lambda _: _TOKENS, TOKEN, START, _follow, _faults)
