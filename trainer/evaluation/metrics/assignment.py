"""Pairs of rows and columns of a square table with the largest sum."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def best_assignment(table: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """The column of each row, each column once, with the largest sum: float64 [n, n] -> int64 [n].

    The Hungarian algorithm, O(n^3): rows come in one by one, and each is placed along the cheapest chain of
    replacements, measured with prices of rows and columns. Here so that scipy is not needed.

    >>> best_assignment(np.array([[3.0, 2.0], [2.0, 0.0]]))
    array([1, 0])
    """
    size = len(table)
    cost = -np.asarray(table, np.float64)
    # One column more than there are, which holds the row that is being placed.
    row_price, column_price = np.zeros(size), np.zeros(size + 1)
    holder = np.full(size + 1, -1, np.int64)
    for row in range(size):
        holder[size], at = row, size
        slack, came_from = np.full(size, np.inf), np.full(size, size)
        done = np.zeros(size + 1, np.bool_)
        while holder[at] >= 0:
            done[at] = True
            here = holder[at]
            free = ~done[:size]
            reduced = cost[here] - row_price[here] - column_price[:size]
            better = free & (reduced < slack)
            slack[better], came_from[better] = reduced[better], at
            at = int(np.where(free, slack, np.inf).argmin())
            step = slack[at]
            row_price[holder[done]] += step
            column_price[done] -= step
            slack[~done[:size]] -= step
        while at != size:
            holder[at], at = holder[came_from[at]], int(came_from[at])
        holder[size] = -1
    columns = np.empty(size, np.int64)
    columns[holder[:size]] = np.arange(size)
    return columns
