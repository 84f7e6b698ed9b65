"""How sure a figure is: intervals over images, paired comparisons.

Questions on one image are not independent: a model that misreads it fails several of them. So images are drawn again,
not rows. A figure is a function of sums over rows (a mean is `sum / count`, F1 is made of five counts), and the same
draws serve every figure of a split. All of it is determined by the seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

Floats: TypeAlias = npt.NDArray[np.float64]
#: A figure of sums: float64 [..., m] -> float64 [...], NaN where it is not defined.
Figure: TypeAlias = Callable[[Floats], Floats]

CONFIDENCE: Final = 0.95
RESAMPLES: Final = 2000
#: The smallest p that can come out, times the number of tests (`holm`), is 1 / this.
ORDERS_PER_TEST: Final = 40
_CHUNK: Final = 2_000_000  # draws that are in memory at the same time
_NORMAL: Final = NormalDist()


@dataclass(frozen=True)
class Interval:
    """A figure with its 95 % interval and what it was computed on.

    low, high  None where there is none: fewer than two images, or a figure that most draws leave undefined
    """

    value: float
    low: float | None
    high: float | None
    rows: int
    images: int


@dataclass(frozen=True)
class Difference(Interval):
    """A figure of one run minus that of another on the same rows; `p` is two-sided, None without an interval."""

    p: float | None


def mean_columns(scores: npt.ArrayLike) -> Floats:
    """The columns of a mean: scores [N] -> float64 [N, 2]; a NaN is a row that has no score and does not count.

    >>> mean_columns([0.5, np.nan])
    array([[0.5, 1. ],
           [0. , 0. ]])
    """
    given = np.asarray(scores, np.float64)
    counted = ~np.isnan(given)
    return np.stack([np.where(counted, given, 0.0), counted], axis=1)


def mean(sums: Floats) -> Floats:
    """The mean from sums of `mean_columns`: float64 [..., 2] -> [...]."""
    return ratio(sums[..., 0], sums[..., 1])


def mean_of_means(sums: Floats) -> Floats:
    """The unweighted mean of several means: sums of their columns side by side, float64 [..., 2 s] -> [...]."""
    result: Floats = ratio(sums[..., ::2], sums[..., 1::2]).mean(axis=-1)
    return result


def ratio(part: Floats, whole: Floats) -> Floats:
    """Part of the whole, NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=np.asarray(whole) > 0)


class Resampled:
    """Rows grouped by image, and sums over images that were drawn again.

    columns  float64 [N, m], what is added up of each row
    images   N names; rows with the same one stay together
    """

    def __init__(
        self, columns: npt.ArrayLike, images: Sequence[str], resamples: int = RESAMPLES, seed: int = 0
    ) -> None:
        given = np.asarray(columns, np.float64)
        self.sums = by_image(given, images)
        self.rows, self.images = len(given), len(self.sums)
        self.total: Floats = self.sums.sum(axis=0)
        self.draws = _drawn(self.sums, resamples, np.random.default_rng(seed))

    def interval(self, figure: Figure = mean, bounds: tuple[float, float] | None = (0.0, 1.0)) -> Interval:
        """The figure of all rows with its interval; `bounds` are what it cannot leave, None where there are none."""
        value = float(figure(self.total))
        low, high = _limits(value, figure(self.draws), self.images, bounds)
        return Interval(value, low, high, self.rows, self.images)


def by_image(columns: Floats, images: Sequence[str]) -> Floats:
    """Sums of the rows of each image: float64 [N, m], N names -> float64 [images, m], by name.

    >>> by_image(np.array([[1.0], [2.0], [4.0]]), ["b", "a", "b"])
    array([[2.],
           [5.]])
    """
    names, place = np.unique(np.asarray(images, np.str_), return_inverse=True)
    sums = np.zeros((len(names), columns.shape[1]))
    np.add.at(sums, place, columns)
    return sums


def difference(
    ours: npt.ArrayLike,
    theirs: npt.ArrayLike,
    images: Sequence[str],
    figure: Figure = mean,
    resamples: int = RESAMPLES,
    seed: int = 0,
    bounds: tuple[float, float] = (-1.0, 1.0),
    tests: int = 1,
) -> Difference:
    """A figure of one run minus that of another: columns float64 [N, m] twice, of the same rows in the same order.

    The interval is that of the difference, with the same images drawn for both. `p` is how often a difference at least
    as large comes out when, image by image, it is left to a coin which run is which. p is never below
    1 / (1 + orders), so there are more of them where it will be adjusted for many `tests`.
    """
    one, other = by_image(np.asarray(ours, np.float64), images), by_image(np.asarray(theirs, np.float64), images)
    random, width = np.random.default_rng(seed), one.shape[1]
    value = float(figure(one.sum(axis=0)) - figure(other.sum(axis=0)))
    drawn = _drawn(np.hstack([one, other]), resamples, random)
    low, high = _limits(value, figure(drawn[:, :width]) - figure(drawn[:, width:]), len(one), bounds)
    orders = max(resamples, ORDERS_PER_TEST * tests)
    swapped = _swapped(one, other, orders, random)
    by_chance = np.abs(figure(swapped[:, :width]) - figure(swapped[:, width:]))
    # The order as it is belongs to the orders that a coin can give, so that p is never 0.
    p = None if low is None else float((1 + (by_chance >= abs(value) - 1e-12).sum()) / (1 + orders))
    return Difference(value, low, high, len(np.asarray(ours)), len(one), p)


def holm(p: Sequence[float]) -> list[float]:
    """p of several tests, adjusted (Holm) so that all that stay below .05 hold together.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted, worst = [0.0] * len(p), 0.0
    for done, place in enumerate(sorted(range(len(p)), key=lambda place: p[place])):
        worst = max(worst, min(1.0, (len(p) - done) * p[place]))
        adjusted[place] = worst
    return adjusted


def _drawn(sums: Floats, resamples: int, random: np.random.Generator) -> Floats:
    """Sums over as many images as there are, drawn with replacement: float64 [images, m] -> [resamples, m]."""
    images = len(sums)
    drawn = np.zeros((resamples, sums.shape[1]))
    step = max(1, _CHUNK // max(images, 1))
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        picked = random.integers(images, size=(size, images)) + images * np.arange(size)[:, None]
        drawn[start : start + size] = np.bincount(picked.ravel(), minlength=size * images).reshape(size, images) @ sums
    return drawn


def _swapped(one: Floats, other: Floats, orders: int, random: np.random.Generator) -> Floats:
    """Totals of both runs where a coin decides, for each image, which is which: [orders, 2 m]."""
    gained = other - one
    moved = np.zeros((orders, one.shape[1]))
    step = max(1, _CHUNK // max(len(one), 1))
    for start in range(0, orders, step):
        size = min(step, orders - start)
        moved[start : start + size] = random.integers(2, size=(size, len(one)), dtype=np.int8) @ gained
    return np.hstack([one.sum(axis=0) + moved, other.sum(axis=0) - moved])


def _limits(
    value: float, draws: Floats, images: int, bounds: tuple[float, float] | None
) -> tuple[float | None, float | None]:
    """The limits of the middle 95 % of a figure's draws, a little wider for few images.

    Draws from n images spread as if there were n - 1, and their middle is that of a normal distribution; the share cut
    off is that of Student's distribution, as Hesterberg proposes ("expanded percentile interval").
    """
    kept = draws[~np.isnan(draws)]
    if images < 2 or 2 * len(kept) < len(draws):
        return None, None
    if bounds is not None and np.ptp(kept) < 1e-12:
        return _agreed(value, bounds, images)
    reach = math.sqrt(images / (images - 1)) * t_quantile(images - 1)
    tail = _NORMAL.cdf(-reach)
    low, high = np.quantile(kept, [tail, 1 - tail])
    return float(low), float(high)


def _agreed(value: float, bounds: tuple[float, float], images: int) -> tuple[float, float]:
    """Where all images agree no draw differs from them: the limits are what n images can rule out.

    A share of other images that n draws miss in 2.5 of 100 cases may be there, and their figure at a bound.

    >>> [round(limit, 3) for limit in _agreed(0.0, (-1.0, 1.0), 20)]
    [-0.168, 0.168]
    """
    lowest, highest = bounds
    share = 1 - ((1 - CONFIDENCE) / 2) ** (1 / images)
    return value - share * (value - lowest), value + share * (highest - value)


def t_quantile(freedom: int) -> float:
    """What 95 % of Student's distribution do not exceed in size, by its finite series.

    >>> [round(t_quantile(freedom), 3) for freedom in (1, 2, 3, 10, 100)]
    [12.706, 4.303, 3.182, 2.228, 1.984]
    """
    if freedom > 300:
        return _NORMAL.inv_cdf((1 + CONFIDENCE) / 2)
    low, high = 0.0, 100.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_within(middle, freedom) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _t_within(limit: float, freedom: int) -> float:
    """The share of Student's distribution between -limit and limit."""
    angle = math.atan(limit / math.sqrt(freedom))
    odd = freedom % 2
    term = math.cos(angle) ** odd
    total = term if freedom > 1 else 0.0
    for power in range(2 + odd, freedom, 2):
        term *= math.cos(angle) ** 2 * (power - 1) / power
        total += term
    share = math.sin(angle) * total
    return 2 / math.pi * (angle + share) if odd else share
