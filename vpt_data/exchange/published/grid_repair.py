"""Cells beyond the grid, and the crops that were cut by them, put right without the image.

A published crop shows the cells of its tokens, x1 = int(col0 * W / k) and x2 = int((col1 + 1) * W / k), and so for rows
and heights. So a crop that was cut by an index beyond the grid gives away the side of the image that it was cut from.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

Quad = tuple[int, int, int, int]
_INDEX: Final = re.compile(r"<\|(?P<axis>[xy])_(?P<index>\d{1,9})\|>")


class Look(NamedTuple):
    """A crop: its cells, ends included, and its box in px, half open."""

    cells: Quad
    box: Quad


def beyond(cells: Quad, k: int) -> bool:
    """Whether an index is not on the grid."""
    return max(cells) >= k


def repaired(look: Look, k: int, size: tuple[int, int] | None = None) -> Look | None:
    """The crop with all cells on the grid, or None where the image's side cannot be known from it.

    size   width and height of the image in px, where they are known

    >>> repaired(Look((0, 0, 8, 6), (0, 0, 562, 328)), 8)
    Look(cells=(0, 0, 7, 6), box=(0, 0, 500, 328))
    """
    width, height = size or (None, None)
    columns, rows = _axis(look, 0, k, width), _axis(look, 1, k, height)
    if columns is None or rows is None:
        return None
    (near_x, far_x, x0, x1), (near_y, far_y, y0, y1) = columns, rows
    return Look((near_x, near_y, far_x, far_y), (x0, y0, x1, y1))


def _axis(look: Look, axis: int, k: int, side: int | None) -> Quad | None:
    near, far, start, end = look.cells[axis], look.cells[axis + 2], look.box[axis], look.box[axis + 2]
    if far < k:
        return near, far, start, end
    low, high = _sides(near, far, start, end, k)
    if side is not None:
        low, high = max(low, side), min(high, side)
    if not 1 <= low <= high:
        return None
    near, far = min(near, k - 1), k - 1
    edges = {_edges(near, far, each, k) for each in (low, high)}
    return (near, far, *edges.pop()) if len(edges) == 1 else None


def _sides(near: int, far: int, start: int, end: int, k: int) -> tuple[int, int]:
    """The least and the greatest side of an image that gives this crop; the least is greater where none does."""
    low, high = _range(far + 1, end, k)
    if near:
        others = _range(near, start, k)
        low, high = max(low, others[0]), min(high, others[1])
    elif start:
        return 1, 0
    return low, high


def _range(edge: int, pixel: int, k: int) -> tuple[int, int]:
    """The sides with int(edge * side / k) == pixel."""
    return -(-pixel * k // edge), -(-(pixel + 1) * k // edge) - 1


def _edges(near: int, far: int, side: int, k: int) -> tuple[int, int]:
    start = near * side // k
    return start, max((far + 1) * side // k, start + 1)


def on_grid(text: str, k: int) -> str:
    """A text with every index of a region token on the grid.

    >>> on_grid("<|x_8|><|y_6|>", 8)
    '<|x_7|><|y_6|>'
    """
    return _INDEX.sub(lambda found: _token(found, k), text)


def _token(found: re.Match[str], k: int) -> str:
    return f"<|{found['axis']}_{min(int(found['index']), k - 1)}|>"
