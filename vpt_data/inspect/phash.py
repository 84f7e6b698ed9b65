"""Whether two pictures look alike: a hash of 64 bits for each, and the search for hashes that are near.

The hash says where a 9 x 8 thumbnail gets brighter to the right. Copies that were resized, compressed again or slightly
retouched differ in few bits. So do some pictures that only look alike from afar, such as two printed pages. Crops and
mirrored copies differ in many.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from PIL import Image

from vpt_data.images import policy

UInt64 = npt.NDArray[np.uint64]
Ints = npt.NDArray[np.int64]

#: A thumbnail whose brightness varies less says nothing: a blank page is near every other blank page.
PLAIN_BELOW = 16
_BITS = np.uint64(1) << np.arange(64, dtype=np.uint64)


def difference_hash(image: Image.Image) -> int | None:
    """64 bits, row by row: whether a cell of the 9 x 8 thumbnail is brighter than the one on its left.

    None for an image so plain that the bits would be noise.
    """
    grey = policy.plain(image).convert("L").resize((9, 8), Image.Resampling.LANCZOS)
    cells = np.asarray(grey).astype(np.int16)
    if int(np.ptp(cells)) < PLAIN_BELOW:
        return None
    return int(_BITS[(cells[:, 1:] > cells[:, :-1]).ravel()].sum())


def close_pairs(hashes: UInt64, radius: int) -> Iterator[tuple[Ints, Ints]]:
    """All pairs (i, j) of hashes that differ in at most `radius` bits, each pair once, in batches: int64[P] twice.

    Two numbers that differ in r bits agree in one of r + 1 groups of bits; so only numbers that share a group are
    compared.
    """
    edges = np.linspace(0, 64, radius + 2).astype(np.uint64)
    bands: list[UInt64] = []
    for low, high in itertools.pairwise(edges):
        bands.append(hashes >> low & np.uint64((1 << int(high - low)) - 1))
        for left, right in equal_pairs(bands[-1]):
            near = np.bitwise_count(hashes[left] ^ hashes[right]) <= radius
            for band in bands[:-1]:  # a pair that agrees in an earlier group was found there
                near &= band[left] != band[right]
            if near.any():
                yield left[near], right[near]


def equal_pairs(keys: UInt64) -> Iterator[tuple[Ints, Ints]]:
    """All pairs (i, j) of equal keys, each once, in batches: int64[P] twice."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    ends = np.searchsorted(ordered, ordered, side="right")
    step, active = 1, np.arange(len(keys))
    while len(active := active[active + step < ends[active]]):
        yield order[active], order[active + step]
        step += 1
