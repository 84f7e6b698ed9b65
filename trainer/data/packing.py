"""Which samples of an optimiser step go through the model together, and on which rank."""

from __future__ import annotations

import heapq
from collections.abc import Sequence

Bins = list[list[int]]

_NEAR = 16  # samples that a rank may choose the next one from


def pack(lengths: Sequence[int], world: int, budget: int) -> list[Bins]:
    """Samples of `lengths` tokens -> [micro-batch][rank] -> numbers of samples.

    Neighbours stay together: a rank takes what is near to each other in `lengths`, so that it reads few row groups. All
    ranks get about as many tokens and as many micro-batches; one is empty only where a rank has fewer samples than
    micro-batches. None has more than `budget` tokens, unless it is a single sample.

    >>> pack([5, 1, 4, 2], world=2, budget=6)
    [[[0, 1], [2, 3]]]
    """
    shares = [sorted(share, key=lambda number: (-lengths[number], number)) for share in _shares(lengths, world)]
    rounds = max(1, *(-(-sum(lengths[number] for number in share) // budget) for share in shares))
    while (found := [_filled(lengths, share, rounds, budget) for share in shares]) and None in found:
        rounds += 1
    return [[bins[at] for bins in found if bins] for at in range(rounds)]


def pack_alike(lengths: Sequence[int], world: int, budget: int) -> list[Bins]:
    """The same as `pack`, with micro-batches that are alike for any `world`; the last ones of some ranks are empty.

    >>> pack_alike([5, 1, 4], world=2, budget=6)
    [[[0], [1, 2]]]
    """
    bins: Bins = [only for [only] in pack(lengths, 1, budget)]
    bins += [[]] * (-len(bins) % world)
    return [bins[at : at + world] for at in range(0, len(bins), world)]


def _shares(lengths: Sequence[int], world: int) -> list[list[int]]:
    """The samples of each rank: the next one, and where that is too long the longest of those near it that is not."""
    left, mean, room, shares = list(range(len(lengths))), sum(lengths) / world, 0.0, []
    for after in reversed(range(world)):
        room += mean
        share: list[int] = []
        while len(left) > after:
            taken = left[0]
            if after and share and lengths[taken] > room:
                fits = [number for number in left[:_NEAR] if lengths[number] <= room]
                if not fits:
                    break
                taken = max(fits, key=lengths.__getitem__)
            left.remove(taken)
            share.append(taken)
            room -= lengths[taken]
        shares.append(share)
    return shares


def _filled(lengths: Sequence[int], longest: list[int], rounds: int, budget: int) -> Bins | None:
    """Each sample to the lightest of so many bins, the heaviest bin first; None if one is too heavy."""
    bins: Bins = [[] for _ in range(rounds)]
    heap = [(0, number) for number in range(rounds)]
    for number in longest:
        load, lightest = heap[0]
        if load and load + lengths[number] > budget:
            return None
        bins[lightest].append(number)
        heapq.heapreplace(heap, (load + lengths[number], lightest))
    # Ranks that wait for each other get bins that are alike.
    return sorted((sorted(found) for found in bins), key=lambda found: (-sum(lengths[n] for n in found), found))
