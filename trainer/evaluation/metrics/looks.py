"""Calls for a look: which ones an answer made, what was wrong with them, and when they were made.

All of it is read from the turns that a model said, with their perception tokens, so that answers of any program are
scored alike.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from vpt_data.dialogue.tokens import grid
from vpt_data.dialogue.tokens.grid import RegionFault
from vpt_data.dialogue.tokens.reencode import ActionFault, decode_action

#: What `expected` can be in a corpus, and what a model did: also different looks, or only such as cannot be used.
EXPECTED: Final = ("region", "reencode", "none")
TRIGGERED: Final = (*EXPECTED, "several", "invalid")


@dataclass(frozen=True)
class Asked:
    """The looks that the turns of one row asked for.

    cells     the usable regions `col0, row0, col1, row1` (ends included), in order
    encoders  the usable calls, each by its encoder, in order
    invalid   looks that cannot be used, by `region_` or `action_` and a cause of `RegionFault` or `ActionFault`
    """

    cells: tuple[tuple[int, int, int, int], ...]
    encoders: tuple[str, ...]
    invalid: Counter[str]

    @property
    def triggered(self) -> str:
        """The kind of look as in TRIGGERED; a usable look hides an unusable one of the same row."""
        kinds = ["region"] * bool(self.cells) + ["reencode"] * bool(self.encoders)
        if len(kinds) == 2 or len(set(self.encoders)) > 1:
            return "several"
        return kinds[0] if kinds else "invalid" if self.invalid else "none"


def asked(turns: Sequence[str], k: int) -> Asked:
    """What the turns of a model ask for, on a k x k grid. Reversed, repeated or missing coordinates give no region.

    >>> start, end = "<|region_token_start|>", "<|region_token_end|>"
    >>> asked([f"{start}<|x_1|><|y_0|><|x_1|><|y_2|>{end}", "red"], 8).cells
    ((1, 0, 1, 2),)
    >>> asked([f"{start}<|x_5|><|y_0|><|x_1|><|y_2|>{end}"], 8).invalid
    Counter({'region_reversed': 1})
    """
    cells: list[tuple[int, int, int, int]] = []
    encoders: list[str] = []
    invalid: Counter[str] = Counter()
    for text in turns:
        if "<|" not in text:
            continue
        found = grid.decode(text, k)
        cells += found.cells
        # Blanks between tokens are reported elsewhere; such a look is used all the same.
        invalid.update({f"region_{fault}": times for fault, times in found.faults.items() if _unusable(fault)})
        for call in decode_action(text):
            if call.fault is not None and _unusable(call.fault):
                invalid[f"action_{call.fault}"] += 1
            else:
                encoders.append(call.encoder)
    return Asked(tuple(cells), tuple(encoders), invalid)


def _unusable(fault: RegionFault | ActionFault) -> bool:
    return fault not in {RegionFault.SPACE_BETWEEN_TOKENS, ActionFault.SPACE_BETWEEN_TOKENS}


def confusion(expected: Sequence[str], triggered: Sequence[str]) -> npt.NDArray[np.int64]:
    """How often each kind was triggered where each was expected: N names twice -> int64 [3, 5], EXPECTED by TRIGGERED.

    >>> confusion(["region", "region", "none"], ["region", "several", "none"]).tolist()
    [[1, 0, 0, 1, 0], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0]]
    """
    pairs = Counter(zip(expected, triggered, strict=True))
    return np.array([[pairs[row, column] for column in TRIGGERED] for row in EXPECTED], np.int64)
