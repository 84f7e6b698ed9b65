"""Which samples of an optimiser step go through the model together, and on which rank."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Bins = list[list[int]]


def pack(lengths: Sequence[int], world: int, budget: int) -> list[Bins]:
    """Samples of `lengths` tokens -> [micro-batch][rank] -> numbers of samples.

    Every rank gets as many micro-batches as the others; one is empty only if there are fewer samples than places. None
    has more than `budget` tokens, unless it is a single sample.

    >>> pack([5, 1, 4, 2], world=2, budget=6)
    [[[0, 1], [2, 3]]]
    """
    longest = sorted(range(len(lengths)), key=lambda number: (-lengths[number], number))
    bins = _filled(lengths, longest, world, budget)
    # Heaviest first, so that ranks that wait for each other get alike ones.
    bins.sort(key=lambda found: (-sum(lengths[number] for number in found), found))
    return [[sorted(found) for found in bins[at : at + world]] for at in range(0, len(bins), world)]


def _filled(lengths: Sequence[int], longest: list[int], world: int, budget: int) -> Bins:
    """The longest first, each to the lightest bin; more bins until none is too heavy."""
    rounds = max(1, -(-sum(lengths) // (world * budget)))
    while True:
        bins: Bins = [[] for _ in range(world * rounds)]
        heap = [(0, number) for number in range(len(bins))]
        for number in longest:
            load, lightest = heap[0]
            bins[lightest].append(number)
            heapq.heapreplace(heap, (load + lengths[number], lightest))
        if all(load <= budget or len(bins[number]) == 1 for load, number in heap):
            return bins
        rounds += 1
