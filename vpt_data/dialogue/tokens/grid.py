"""Region tokens: six tokens that name a rectangle of a k x k grid.

`<|region_token_start|><|x_a|><|y_b|><|x_c|><|y_d|><|region_token_end|>` means columns a..c and rows b..d,
both ends included; in code these are cells `col0, row0, col1, row1` (x and y are words of the tokens only).
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

START: Final = "<|region_token_start|>"
END: Final = "<|region_token_end|>"

_PART: Final = re.compile(r"<\|(?:region_token_(?P<edge>start|end)|(?P<axis>[xy])_(?P<index>-?[0-9]+))\|>")
#: A token of a region, for RE2 and `re` alike.
TOKEN: Final = r"<\|(region_token_(start|end)|[xy]_-?[0-9]+)\|>"
_TABLE_LIMIT: Final = 1 << 16  # pairs worth spelling out in advance: every grid up to k = 256


class RegionFault(StrEnum):
    """What is wrong with a span of region tokens; one with `space_between_tokens` is used all the same."""

    NO_START = "no_start"
    NO_END = "no_end"
    TEXT_BETWEEN_TOKENS = "text_between_tokens"
    MISSING_AXIS = "missing_axis"
    WRONG_COUNT = "wrong_count"
    WRONG_ORDER = "wrong_order"
    INDEX_OUT_OF_RANGE = "index_out_of_range"
    REVERSED = "reversed"
    SPACE_BETWEEN_TOKENS = "space_between_tokens"


@dataclass(frozen=True)
class Decoded:
    """What a text holds: cells `(col0, row0, col1, row1)` of its usable spans in order, faults of all."""

    cells: list[tuple[int, int, int, int]]
    faults: Counter[RegionFault]


def region_tokens(k: int) -> list[str]:
    """The 2 + 2k region tokens of a k x k grid, in vocabulary order: start, end, x_0.., y_0.. ."""
    return [token.content for token in _tokens(k)]


def _tokens(k: int) -> list[Token]:
    if k < 1:
        raise ValueError(f"k is {k}, expected a grid of at least 1 cell a side")
    edges = [Token(edge, "region") for edge in (START, END)]
    return edges + [Token(content, axis) for axis in ("x", "y") for content in _axis(axis, 0, k)]


def _axis(axis: str, first: int, k: int) -> list[str]:
    return [f"<|{axis}_{index}|>" for index in range(first, k)]


def _follow(span: Sequence[str], k: int) -> list[str] | None:
    """What keeps an open span well formed: first column, first row, last column, last row, end."""
    index = [int(token[4:-2]) for token in span[1:] if token[:4] in ("<|x_", "<|y_")]
    said = len(index)
    if said < len(span) - 1 or said > 4:
        return None
    return [END] if said == 4 else _axis("xy"[said % 2], index[said - 2] if said > 1 else 0, k)


def _faults(text: str, k: int) -> Counter[str]:
    return Counter({f"region_{fault}": times for fault, times in decode(text, k).faults.items()})


FAMILY: Final = Family(_tokens, TOKEN, START, _follow, _faults, look=True)


def encode(cells: npt.ArrayLike, k: int) -> pa.StringArray:
    """Region strings of cells [N, 4] (`col0, row0, col1, row1`, ends included) -> N strings.

    Indices of k and more (the `legacy` edge) are spelled as they are. Raises ValueError on a negative index
    and on another shape.

    >>> encode([[0, 1, 7, 6]], 8)[0].as_py()
    '<|region_token_start|><|x_0|><|y_1|><|x_7|><|y_6|><|region_token_end|>'
    """
    index = np.asarray(cells, dtype=np.int64)
    if index.ndim != 2 or index.shape[1] != 4:
        raise ValueError(f"cells: shape is {list(index.shape)}, expected [N, 4]")
    if index.size and index.min() < 0:
        row = int((index < 0).any(axis=1).argmax())
        raise ValueError(f"cells: row {row} is {index[row].tolist()}, expected indices from 0")
    side = max(k, int(index.max(initial=0)) + 1)
    near = _spell(index[:, 0], index[:, 1], side, START + "<|x_{}|><|y_{}|>")
    far = _spell(index[:, 2], index[:, 3], side, "<|x_{}|><|y_{}|>" + END)
    return pc.binary_join_element_wise(near, far, "")


def decode(text: str, k: int) -> Decoded:
    """Find every region span in one assistant text.

    Each bad span counts once, under the first cause of this order: no start, no end, text between tokens,
    missing axis, wrong count, wrong order, index out of range, reversed.

    Blanks between tokens (slow tokenizers insert them) are counted and the span is still used. Tokens of an
    axis outside any span are one `no_start` per run.

    >>> decode("<|region_token_start|><|x_0|><|y_1|><|x_8|><|y_6|><|region_token_end|>", 8)
    Decoded(cells=[], faults=Counter({<RegionFault.INDEX_OUT_OF_RANGE: 'index_out_of_range'>: 1}))
    """
    found: list[tuple[int, int, int, int]] = []
    faults: Counter[RegionFault] = Counter()
    for parts in _spans(text):
        between = _PART.sub("", text[parts[0].start() : parts[-1].end()])
        fault = _fault(parts, between, k)
        if fault:
            faults[fault] += 1
            continue
        if between:
            faults[RegionFault.SPACE_BETWEEN_TOKENS] += 1
        col0, row0, col1, row1 = (int(part["index"]) for part in parts[1:-1])
        found.append((col0, row0, col1, row1))
    return Decoded(found, faults)


def lint(column: pa.StringArray, k: int) -> Counter[RegionFault]:
    """Faults of all region spans in a column of texts (nulls are none). Empty = every span is well formed.

    Texts that are nothing but a span repeat (1,296 rectangles at k = 8), so each distinct text is read once.

    >>> lint(pa.array(["<|x_1|>", None, "no region here"]), 8)
    Counter({<RegionFault.NO_START: 'no_start'>: 1})
    """
    suspects = column.filter(pc.match_substring_regex(column, TOKEN))
    total: Counter[RegionFault] = Counter()
    for text in pc.value_counts(suspects).to_pylist():
        for fault, times in decode(text["values"], k).faults.items():
            total[fault] += times * text["counts"]
    return total


def _spell(col: npt.NDArray[np.int64], row: npt.NDArray[np.int64], side: int, pattern: str) -> pa.StringArray:
    codes = col * side + row
    if side * side <= _TABLE_LIMIT:
        used, where = np.arange(side * side), codes
    else:
        used, where = np.unique(codes, return_inverse=True)
    table = pa.array([pattern.format(*divmod(code, side)) for code in used.tolist()], type=pa.string())
    return table.take(pa.array(where))


def _spans(text: str) -> Iterator[list[re.Match[str]]]:
    """Groups of tokens: a start opens a group, an end closes it, whatever is missing."""
    group: list[re.Match[str]] = []
    for part in _PART.finditer(text):
        if part["edge"] == "start" and group:
            yield group
            group = []
        group.append(part)
        if part["edge"] == "end":
            yield group
            group = []
    if group:
        yield group


def _fault(parts: list[re.Match[str]], between: str, k: int) -> RegionFault | None:
    if parts[0]["edge"] != "start":
        return RegionFault.NO_START
    if parts[-1]["edge"] != "end":
        return RegionFault.NO_END
    if between.strip():
        return RegionFault.TEXT_BETWEEN_TOKENS
    axes = "".join(part["axis"] for part in parts[1:-1])
    if len(set(axes)) == 1:
        return RegionFault.MISSING_AXIS
    if len(axes) != 4:
        return RegionFault.WRONG_COUNT
    if axes != "xyxy":
        return RegionFault.WRONG_ORDER
    return _index_fault([part["index"] for part in parts[1:-1]], k)


def _index_fault(indices: list[str], k: int) -> RegionFault | None:
    # Compared as text: `x_03` and `x_-1` are no tokens either, and a number of 5,000 digits is no int.
    digits = len(str(k))
    if any(len(i) > digits or str(int(i)) != i or not 0 <= int(i) < k for i in indices):
        return RegionFault.INDEX_OUT_OF_RANGE
    col0, row0, col1, row1 = map(int, indices)
    return RegionFault.REVERSED if col0 > col1 or row0 > row1 else None
