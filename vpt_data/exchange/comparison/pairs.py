"""Which row of one side is which of the other, and which of them are in another order."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
import numpy.typing as npt

from vpt_data.columns import Bools, Ints

_UInt64 = npt.NDArray[np.uint64]
#: An odd number without a pattern, by which the repeats of a key are distinguished.
_STEP = np.uint64(0x9E3779B97F4A7C15)


def paired(a: list[_UInt64], b: list[_UInt64]) -> tuple[Ints, Ints]:
    """The rows of two sides that are the same row: their places in a and in b, ascending in a.

    a, b   the keys of each side, the surest first, uint64[N] each; rows that one key does not pair are left to the
           next. Where a key repeats, the first row that has it is paired with the first, the second with the second

    >>> a, b = np.array([7, 8, 8, 9], np.uint64), np.array([8, 7, 5], np.uint64)
    >>> paired([a], [b])
    (array([0, 1]), array([1, 0]))
    """
    left_a, left_b = np.arange(len(a[0])), np.arange(len(b[0]))
    found_a, found_b = [left_a[:0]], [left_b[:0]]
    for keys_a, keys_b in zip(a, b, strict=True):
        mine, theirs = _numbered(keys_a[left_a]), _numbered(keys_b[left_b])
        _, in_a, in_b = np.intersect1d(mine, theirs, assume_unique=True, return_indices=True)
        found_a.append(left_a[in_a])
        found_b.append(left_b[in_b])
        left_a, left_b = np.delete(left_a, in_a), np.delete(left_b, in_b)
    rows_a, rows_b = np.concatenate(found_a), np.concatenate(found_b)
    order = np.argsort(rows_a)
    return rows_a[order], rows_b[order]


def _numbered(keys: _UInt64) -> _UInt64:
    """Keys that do not repeat: how often a key came before is added to it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]])) if len(keys) else np.zeros(0, int)
    nth = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    found = np.empty_like(keys)
    found[order] = ordered + nth.astype(np.uint64) * _STEP
    return found


def out_of_order(places: Ints) -> Bools:
    """Which of some distinct places have to move, at the least, for all of them to ascend.

    >>> out_of_order(np.array([0, 3, 1, 2])).tolist()
    [False, True, False, False]
    """
    ends: list[int] = []  # the least last place of an ascending run of each length
    runs: list[int] = []  # where in `places` that is
    before = np.full(len(places), -1)
    for number, place in enumerate(places.tolist()):
        length = bisect_left(ends, place)
        before[number] = runs[length - 1] if length else -1
        ends[length : length + 1], runs[length : length + 1] = [place], [number]
    moved = np.ones(len(places), np.bool_)
    at = runs[-1] if runs else -1
    while at >= 0:
        moved[at] = False
        at = int(before[at])
    return moved
