"""Yes or no: what answers say, where POPE's own program and others go wrong, and the figures."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.evaluation.metrics import yes_no
from trainer.evaluation.metrics.table import METRICS
from vpt_data.errors import UsageError


@pytest.mark.parametrize(
    ("text", "ours", "owners"),
    [
        ("yes", 1, 1),
        ("No", 0, 0),
        ("No, there is no dog. Yes.", 0, 0),
        ("There is no dog in the image.", 0, 0),
        ("It is not there", 0, 0),
        # From here on POPE's program reads something that was not said, or nobody can say what was.
        ("Yes, there is no doubt.", 1, 0),
        ("NO", 0, 1),
        ("no!", 0, 1),
        ("Not that I can see.", 0, 1),
        ("There isn't one.", 0, 1),
        ("", -1, 1),
        ("A dog.", -1, 1),
        ("Well. No.", 0, 1),
        ("yes and no", 1, 0),
        ("maybe yes, maybe not", -1, 0),
    ],
)
def test_what_an_answer_says(text: str, ours: int, owners: int) -> None:
    assert (yes_no.said([text])[0], yes_no.said_by_owners([text])[0]) == (ours, owners)


@given(st.lists(st.tuples(st.sampled_from(["yes", "no", "Yes.", "No.", "Yes, it is", "No, it is not"]), st.booleans())))
def test_both_agree_on_answers_that_begin_with_yes_or_no(rows: list[tuple[str, bool]]) -> None:
    texts = [text for text, _ in rows]
    assert yes_no.said(texts).tolist() == yes_no.said_by_owners(texts).tolist()


def test_figures_by_hand() -> None:
    said = [1, 1, 1, 0, 0, -1, -1, 1]
    right = [1, 1, 0, 0, 1, 1, 0, 1]
    found = yes_no.figures(yes_no.outcomes(said, right).sum(axis=0))
    assert found.accuracy == 4 / 8
    assert found.precision == 3 / 4
    assert found.recall == 3 / 5
    assert found.f1 == pytest.approx(2 * 0.75 * 0.6 / 1.35)
    assert found.balanced_accuracy == pytest.approx((3 / 5 + 1 / 3) / 2)
    assert found.yes_ratio == 4 / 8
    assert found.unparsed == 2 / 8


def test_the_yes_ratio_is_that_of_the_model() -> None:
    """A known harness counts the questions whose right answer is yes, which is .5 for every model."""
    found = yes_no.figures(yes_no.outcomes([1, 1, 1, 1], [1, 1, 0, 0]).sum(axis=0))
    assert found.yes_ratio == 1.0


def test_a_sentence_is_read() -> None:
    """The same harness compares whole answers with `yes` and `no`, so that every sentence is wrong."""
    scored = METRICS["yes_no"].score(["Yes, there is a dog."], [["yes"]], ["?"])
    assert (scored.score.tolist(), scored.parsed.tolist()) == ([1.0], [True])


def test_what_says_neither_is_wrong_and_reported() -> None:
    scored = METRICS["yes_no"].score(["I cannot tell yes or no", "A dog"], [["yes"], ["yes"]], ["?"] * 2)
    assert (scored.score.tolist(), scored.parsed.tolist()) == ([0.0, 0.0], [False, False])
    owners = METRICS["pope_owners"].score(["A dog"], [["yes"]], ["?"])
    assert owners.score.tolist() == [1.0]


def test_a_right_answer_that_is_neither_is_an_error() -> None:
    with pytest.raises(UsageError) as caught:
        METRICS["yes_no"].score(["yes"], [["a dog"]], ["?"])
    assert str(caught.value) == (
        "The right answer 'a dog' is neither yes nor no; score its take with another metric (--metric TAKE=NAME)."
    )


OUTCOME = st.tuples(st.sampled_from([-1, 0, 1]), st.sampled_from([0, 1]))


@given(st.lists(OUTCOME, min_size=1))
def test_figures_are_those_of_the_definition(rows: list[tuple[int, int]]) -> None:
    said, right = np.array(rows).T
    counts = yes_no.outcomes(said, right)
    assert (counts.sum(axis=1) == 1).all()
    found = yes_no.figures(counts.sum(axis=0))
    assert found.accuracy == pytest.approx((said == right).mean())
    assert found.yes_ratio == pytest.approx((said == 1).mean())
    assert found.unparsed == pytest.approx((said == -1).mean())
    if not (said == 1).any():
        assert np.isnan(found.precision)
    if (right == 1).any() and (said == 1).any():
        both = ((said == 1) & (right == 1)).sum()
        expected = [both / (said == 1).sum(), both / (right == 1).sum(), 2 * both / ((said == 1).sum() + right.sum())]
        assert [found.precision, found.recall, found.f1] == pytest.approx(expected)


def test_figures_take_many_sums_at_once() -> None:
    counts = np.array([[2, 1, 1, 0, 0, 0], [1, 0, 1, 1, 1, 0]], np.float64)
    found = yes_no.figures(counts)
    assert found.accuracy.tolist() == [yes_no.figures(row).accuracy for row in counts]
