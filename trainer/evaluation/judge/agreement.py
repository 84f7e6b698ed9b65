"""How far two judges agree: on a few hundred items, before their figures are compared."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from trainer.evaluation.judge.panel import Verdict

#: Items that a second judge is asked for.
ITEMS: Final = 200
#: Scores from here on count as right.
RIGHT: Final = 0.5


class Agreement(msgspec.Struct, frozen=True):
    """Two judges on the same items.

    items       that both gave a score
    same        share of items with the same score
    same_side   share with both scores below RIGHT, or neither
    kappa       Cohen's kappa of that: 1 is agreement, 0 what chance gives; None where both see one side only
    difference  mean score of the first minus that of the second
    """

    items: int
    same: float | None
    same_side: float | None
    kappa: float | None
    difference: float | None


def sample(ids: Sequence[str], count: int = ITEMS) -> list[int]:
    """Places of the ids with the smallest hashes, ascending: the same rows whatever their order and their answers."""
    order = sorted(range(len(ids)), key=lambda place: hashlib.sha256(ids[place].encode()).digest())
    return sorted(order[:count])


def agreement(first: Sequence[Verdict], second: Sequence[Verdict]) -> Agreement:
    """How far two lists of verdicts on the same items agree; items without a score of both are left out.

    >>> agreement([1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 0.5, "no reply"])
    Agreement(items=3, same=0.6666666666666666, same_side=1.0, kappa=1.0, difference=0.16666666666666666)
    """
    both = [
        (one, other)
        for one, other in zip(first, second, strict=True)
        if not isinstance(one, str) and not isinstance(other, str)
    ]
    if not both:
        return Agreement(0, None, None, None, None)
    one, other = np.array(both, np.float64).T
    right, also = one >= RIGHT, other >= RIGHT
    observed = float((right == also).mean())
    by_chance = float(right.mean() * also.mean() + (1 - right.mean()) * (1 - also.mean()))
    kappa = None if by_chance == 1 else (observed - by_chance) / (1 - by_chance)
    return Agreement(len(both), float((one == other).mean()), observed, kappa, float((one - other).mean()))
