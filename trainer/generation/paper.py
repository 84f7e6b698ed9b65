"""How the published evaluation program reads the looks in a turn, for comparison with it; without torch.

A region is a start, tokens of columns and rows in any order and number, and an end. Its box is around all of these
cells, so that a reversed or repeated coordinate becomes a box. Without any column, or without any
row, the program cannot cut a crop, and leaves the row out. A blank between two tokens makes plain text of a region.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Final, NamedTuple

from vpt_data.dialogue.tokens import REGION
from vpt_data.dialogue.tokens.grid import END, START
from vpt_data.dialogue.tokens.reencode import ENCODERS

#: The cause under which a row without a crop is counted, once, however many of its regions fail.
CROP_FAILED: Final = "region_crop_failed"


class Turn(NamedTuple):
    """What a turn asks for.

    cells     one rectangle `col0, row0, col1, row1` (ends included) for each region that has columns and rows
    failed    regions that lack all columns or all rows
    encoders  those whose start token is in the text
    """

    cells: tuple[tuple[int, int, int, int], ...]
    failed: int
    encoders: tuple[str, ...]

    @property
    def kind(self) -> str | None:
        """The kind of look, REGION or an encoder; None for none and for several, where the turn is the answer."""
        kinds = [REGION] * bool(self.cells or self.failed) + list(self.encoders)
        return kinds[0] if len(kinds) == 1 else None


def read(text: str, k: int) -> Turn:
    """The looks of a turn on a k x k grid; indices beyond it are no region.

    >>> start, end = "<|region_token_start|>", "<|region_token_end|>"
    >>> read(f"{start}<|x_5|><|y_0|><|x_1|><|x_3|>{end}", 8).cells
    ((1, 0, 5, 0),)
    >>> read(f"{start}<|x_5|><|x_1|>{end}", 8).failed
    1
    """
    cells, failed = [], 0
    for span in _spans(k).finditer(text):
        columns, rows = (sorted(map(int, re.findall(rf"<\|{axis}_(\d+)", span.group()))) for axis in "xy")
        if columns and rows:
            cells.append((columns[0], rows[0], columns[-1], rows[-1]))
        else:
            failed += 1
    return Turn(tuple(cells), failed, tuple(name for name, entry in ENCODERS.items() if entry.start in text))


@cache
def _spans(k: int) -> re.Pattern[str]:
    index = "|".join(map(str, range(k)))
    return re.compile(rf"{re.escape(START)}(<\|[xy]_({index})\|>)+{re.escape(END)}")
