"""Intervals hold what they promise (by simulation), comparisons are paired, the order of rows means nothing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from helpers.soak import SOAK, some_of
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.metrics import yes_no
from trainer.evaluation.statistics import (
    Resampled,
    difference,
    holm,
    mean,
    mean_columns,
    mean_of_means,
    t_quantile,
)

SIMULATIONS = 2000 if SOAK else 150
#: Three standard deviations of a share of .95 in so many simulations.
SLACK = 3 * (0.95 * 0.05 / SIMULATIONS) ** 0.5


def questions_on_images(seed: int, images: int, together: bool) -> tuple[npt.NDArray[np.float64], list[str]]:
    """Scores with the true mean .6, one to ten rows an image; `together`: all rows of an image are right or wrong."""
    random = np.random.default_rng(seed)
    rows = random.integers(1, 11, size=images)
    chance = np.repeat(random.random(images) < 0.6 if together else np.full(images, 0.6), rows)
    names = np.repeat([f"image {number}" for number in range(images)], rows)
    return (random.random(rows.sum()) < chance).astype(np.float64), names.tolist()


def covered(images: int, together: bool, by_row: bool = False) -> float:
    """How often the interval holds the true mean."""
    hits = 0
    for seed in range(SIMULATIONS):
        scores, names = questions_on_images(seed, images, together)
        groups = [str(number) for number in range(len(names))] if by_row else names
        found = Resampled(mean_columns(scores), groups, resamples=400, seed=seed).interval()
        assert found.low is not None
        assert found.high is not None
        hits += found.low <= 0.6 <= found.high
    return hits / SIMULATIONS


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("images", [12, 60])
def test_intervals_hold_the_truth_in_95_of_100_cases(images: int, together: bool) -> None:
    assert 0.95 - SLACK - 0.01 <= covered(images, together) <= 1.0


def test_drawing_rows_would_promise_far_too_much() -> None:
    """Why images are drawn: with rows, an interval called 95 % holds the truth about every other time."""
    assert covered(60, together=True, by_row=True) < 0.7


def test_chance_alone_is_called_a_difference_in_5_of_100_cases() -> None:
    found = 0
    names = [f"image {number // 5}" for number in range(200)]
    for seed in range(SIMULATIONS):
        # Two runs, each right on all five questions of an image or on none of them.
        ours, theirs = np.repeat(np.random.default_rng(seed).random((2, 40)) < 0.6, 5, axis=1)
        test = difference(mean_columns(ours), mean_columns(theirs), names, resamples=300, seed=seed)
        assert test.p is not None
        found += test.p < 0.05
    assert found / SIMULATIONS <= 0.05 + SLACK


def test_a_small_but_steady_difference_is_found() -> None:
    """Both runs vary far more between images than they differ; pairs see it, two intervals side by side do not."""
    random = np.random.default_rng(0)
    ours = random.random(200)
    theirs = ours - 0.02 + 0.01 * random.standard_normal(200)
    names = [str(number) for number in range(200)]
    test = difference(mean_columns(ours), mean_columns(theirs), names)
    assert test.value == pytest.approx(0.02, abs=0.003)
    assert test.low is not None
    assert test.low > 0.015
    assert test.p == pytest.approx(1 / 2001)
    one, other = (Resampled(mean_columns(scores), names).interval() for scores in (ours, theirs))
    assert one.low is not None
    assert other.high is not None
    assert one.low < other.high


def test_a_run_does_not_differ_from_itself() -> None:
    scores = mean_columns([0.0, 1.0, 1.0, 0.0])
    test = difference(scores, scores, ["a", "a", "b", "c"])
    assert (test.value, test.p) == (0.0, 1.0)
    room = 1 - 0.025 ** (1 / 3)
    assert (test.low, test.high) == pytest.approx((-room, room)), "three images cannot rule out much"


def test_images_that_agree_leave_room_for_others() -> None:
    names = [str(number) for number in range(20)]
    half = Resampled(mean_columns([0.5] * 20), names).interval()
    room = (1 - 0.025 ** (1 / 20)) / 2
    assert (half.low, half.high) == pytest.approx((0.5 - room, 0.5 + room))
    better = difference(mean_columns([1.0] * 20), mean_columns([0.0] * 20), names)
    assert (better.low, better.high) == pytest.approx((1 - 4 * room, 1.0))
    wide = difference(mean_columns([5.0] * 20), mean_columns([5.0] * 20), names, bounds=(-10.0, 10.0))
    assert (wide.low, wide.high) == pytest.approx((-20 * room, 20 * room))


#: How often one run is right and the other wrong on an image, and the reverse.
@pytest.mark.parametrize("shares", some_of([(0.0, 0.0), (0.05, 0.0), (0.02, 0.1), (0.0, 0.95), (0.3, 0.3)], 1, 2))
@pytest.mark.parametrize("images", some_of([5, 12, 40], 1))
def test_intervals_of_differences_hold_the_truth_where_few_images_differ(
    images: int, shares: tuple[float, float]
) -> None:
    """Drawing alone would give an interval without width for most of these runs."""
    hits, names = 0, [str(number) for number in range(images)]
    for seed in range(SIMULATIONS):
        drawn = np.random.default_rng(seed).random(images)
        theirs = (drawn >= shares[0]).astype(np.float64)
        ours = np.where(drawn < sum(shares), 1 - theirs, theirs)
        found = difference(mean_columns(ours), mean_columns(theirs), names, resamples=400, seed=seed)
        assert found.low is not None and found.high is not None
        assert found.low < found.high
        hits += found.low <= shares[0] - shares[1] <= found.high
    assert hits / SIMULATIONS >= 0.90 - SLACK


def test_the_same_seed_gives_the_same_interval() -> None:
    scores, names = questions_on_images(1, 30, together=True)
    first, again = (Resampled(mean_columns(scores), names, seed=5).interval() for _ in range(2))
    assert first == again
    assert first != Resampled(mean_columns(scores), names, seed=6).interval()


@given(st.permutations(list(range(12))))
def test_the_order_of_rows_means_nothing(order: list[int]) -> None:
    scores = np.array([0, 1, 1, 0, 1, 0, 0, 1, 1, 1, 0, 1], np.float64)
    names = list("aabbbccdefgh")
    turned = Resampled(mean_columns(scores[order]), [names[at] for at in order], resamples=50).interval()
    assert turned == Resampled(mean_columns(scores), names, resamples=50).interval()


@pytest.mark.parametrize(("score", "interval"), [(1.0, (0.025 ** (1 / 20), 1.0)), (0.0, (0.0, 1 - 0.025 ** (1 / 20)))])
def test_all_right_is_not_certainty(score: float, interval: tuple[float, float]) -> None:
    """No draw of 20 right images holds a wrong one, so that drawing alone would give an interval without width."""
    found = Resampled(mean_columns([score] * 20), [str(number) for number in range(20)]).interval()
    assert (found.low, found.high) == pytest.approx(interval)


def test_one_image_has_no_interval() -> None:
    found = Resampled(mean_columns([0.0, 1.0]), ["a", "a"]).interval()
    assert (found.value, found.low, found.high, found.rows, found.images) == (0.5, None, None, 2, 1)
    assert difference(mean_columns([1.0]), mean_columns([0.0]), ["a"]).p is None


def test_figures_of_counts() -> None:
    said, right = [1, 1, 0, 0, 1, 0, 1, 0], [1, 1, 0, 0, 0, 1, 1, 0]
    drawn = Resampled(yes_no.outcomes(said * 5, right * 5), [str(number) for number in range(40)])
    found = drawn.interval(lambda sums: yes_no.figures(sums).f1)
    assert found.value == 0.75
    assert found.low is not None
    assert found.high is not None
    assert 0 < found.low < found.value < found.high <= 1


def test_a_figure_that_is_rarely_defined_has_no_interval() -> None:
    said = [1] + [0] * 19
    drawn = Resampled(yes_no.outcomes(said, [0] * 20), [str(number) for number in range(20)])
    assert drawn.interval(lambda sums: yes_no.figures(sums).recall).low is None


def test_an_average_of_splits_counts_each_split_once() -> None:
    columns = np.hstack([mean_columns([1, 1, 1, np.nan]), mean_columns([np.nan, np.nan, np.nan, 0])])
    drawn = Resampled(columns, ["a", "b", "c", "a"])
    assert mean_of_means(drawn.total) == 0.5
    assert mean(mean_columns([1, np.nan]).sum(axis=0)) == 1.0


def test_several_tests_are_adjusted() -> None:
    assert holm([]) == []
    assert holm([0.5]) == [0.5]
    assert holm([0.001] * 3) == pytest.approx([0.003] * 3)
    assert holm([0.9, 0.6]) == [1.0, 1.0]


@pytest.mark.parametrize(("freedom", "limit"), [(1, 12.7062), (2, 4.3027), (5, 2.5706), (30, 2.0423), (10_000, 1.96)])
def test_student(freedom: int, limit: float) -> None:
    assert t_quantile(freedom) == pytest.approx(limit, abs=1e-4)


def test_twenty_thousand_rows_fit_into_memory_in_parts() -> None:
    """As many draws as images at once would be 2000 x 20,000 numbers; the parts give what one piece would."""
    random = np.random.default_rng(0)
    scores, names = random.random(20_000), [str(number) for number in random.integers(12_000, size=20_000)]
    drawn = Resampled(mean_columns(scores), names)
    assert drawn.draws.shape == (2000, 2)
    found = drawn.interval()
    assert found.low is not None
    assert found.high is not None
    assert found.high - found.low == pytest.approx(2 * 1.96 * (1 / 12 / 20_000) ** 0.5, rel=0.1)
