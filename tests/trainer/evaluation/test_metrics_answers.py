"""Scores of answers: golden cases by the definitions of their owners, and what holds for any answer."""

from __future__ import annotations

import doctest
import importlib
import itertools
import pkgutil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import trainer.evaluation
from trainer.evaluation.metrics import answers, choices, table
from trainer.evaluation.metrics.assignment import best_assignment
from trainer.evaluation.metrics.captions import caption_words, cider

MODULES = [found.name for found in pkgutil.walk_packages(trainer.evaluation.__path__, "trainer.evaluation.")]
#: Texts with all that normalisation touches.
TEXTS = st.text(st.sampled_from("ab1 .,'-/?\n5Té"), max_size=12)


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_are_true(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Red\tCar\n", "red car"),
        ("none", "0"),
        ("Ten apples", "10 apples"),
        ("1,000", "1000"),
        ("3.5", "3.5"),
        ("3.", "3"),
        ("U.S.", "us"),
        ("yes/no", "yes no"),
        ("yes /no", "yes no"),
        ("-5", " 5".strip()),
        ("a-b -c", "ab c"),  # one mark with a blank beside it takes the others with it
        ("couldntve", "couldntve"),
        ("couldnt've", "couldn't've"),
        ("it's", "it 's"),
        ("Im", "im"),  # the owners' table has it with a capital, after all was made lower case
        ("somebody'd", "somebodyd"),
        ("an apple a day", "apple day"),
        ("a", ""),
    ],
)
def test_normalisation_of_vqa(text: str, normal: str) -> None:
    assert answers.vqa_normalised(text) == normal


@pytest.mark.parametrize(("matches", "score"), [(0, 0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1), (10, 1)])
def test_vqa_accuracy_of_ten_answers(matches: int, score: float) -> None:
    given = ["Red"] * matches + ["blue"] * (10 - matches)
    assert answers.vqa_accuracy(["the red."], [given]) == pytest.approx(score)


@pytest.mark.parametrize("count", range(1, 12))
def test_vqa_accuracy_is_full_where_all_agree(count: int) -> None:
    assert answers.vqa_accuracy(["two"], [["2"] * count]) == [1.0]


def test_vqa_accuracy_changes_nothing_in_place() -> None:
    """A known harness rewrites the right answers of its rows while it scores them."""
    given = [["The Red", "Two"]]
    answers.vqa_accuracy(["red"], given)
    assert given == [["The Red", "Two"]]


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("ab", "abcd", 0.5),  # exactly at the threshold: it stays
        ("a", "abc", 0.0),
        ("Hello  World", "hello world", 1.0),
        ("kitten", "mitten", 5 / 6),
        ("", "a", 0.0),
        ("", "", 1.0),
    ],
)
def test_anls(said: str, right: str, score: float) -> None:
    assert answers.anls([said], [[right]]) == pytest.approx(score)


def test_anls_takes_the_best_of_the_answers() -> None:
    assert answers.anls(["cat"], [["dog", "cats", "xyz"]]) == pytest.approx(0.75)


def test_blanks_around_a_wrong_answer_do_not_raise_its_anls() -> None:
    """The usual code divides by the length before blanks are collapsed: 3 / 53 of distance would be .94 right."""
    assert answers.anls(["dog" + " " * 50], [["cat"]]) == [0.0]


def test_lists_are_compared_in_any_order() -> None:
    right = [["north wing", "south wing", "main hall"]]
    for said in itertools.permutations(right[0]):
        assert answers.anls_list([said], right) == [1.0]
    assert answers.anls_list([["main hall", "nothing else", "another"]], right) == pytest.approx(1 / 3)
    assert answers.anls_list([["main hall"] * 3], right) == pytest.approx(1 / 3)
    assert answers.anls_list([[]], right) == [0.0]


@given(
    st.integers(0, 6).flatmap(
        lambda n: st.lists(st.lists(st.floats(0, 1), min_size=n, max_size=n), min_size=n, max_size=n)
    )
)
def test_the_assignment_is_the_best_of_all(rows: list[list[float]]) -> None:
    given = np.array(rows, np.float64).reshape(len(rows), len(rows))
    found = best_assignment(given)
    every = [given[range(len(rows)), list(order)].sum() for order in itertools.permutations(range(len(rows)))]
    assert sorted(found) == list(range(len(rows)))
    assert given[np.arange(len(rows)), found].sum() == pytest.approx(max(every))


@given(TEXTS, TEXTS)
def test_the_distance_is_a_metric(a: str, b: str) -> None:
    distance = answers.edit_distance(a, b)
    assert distance == answers.edit_distance(b, a)
    assert (distance == 0) == (a == b)
    assert abs(len(a) - len(b)) <= distance <= max(len(a), len(b))


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [("105", "100", 1), ("105.1", "100", 0), ("-95", "-100", 1), ("12%", "0.12", 1), ("10", "10%", 0), ("0", "0.0", 1),
     ("1", "0", 0), ("Blue ", "blue", 1), ("the blue", "blue", 0), ("nan", "nan", 1), ("inf", "5", 0), ("", "5", 0)],
)  # fmt: skip
def test_relaxed_accuracy(said: str, right: str, score: float) -> None:
    assert answers.relaxed_accuracy([said], [[right]]) == [score]


def test_cider_is_that_of_pycocoevalcap() -> None:
    """Numbers made with version 1.2 of it, words with its PTB tokenizer in Java."""
    references = [
        ["a red bus parked near a bus stop", "a bus is parked at the stop", "the red bus stands near a sign"],
        ["two women are reading a newspaper", "women in blue read the paper"],
        ["a dog looks at its bowl"],
        ["no"],
    ]
    said = ["a red bus parked near the stop", "two women in blue are reading the paper the paper"]
    scores = cider([*said, "a cat looks at a bowl", "no"], references)
    assert scores == pytest.approx([3.44128581, 1.9490825, 1.99560274, 2.5])


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ('Two women (in blue) are reading "The Times" -- or so it seems...',
         "two women -lrb- in blue -rrb- are reading the times or so it seems"),
        ("He can't see U.S. flags at 10:30 a.m. on the wall", "he ca n't see u.s. flags at 10:30 a.m. on the wall"),
        ("$5.00 & 20% off: buy now", "$ 5.00 & 20 % off buy now"),
        ("they'll go and we've gone, you're here, I'd say", "they 'll go and we 've gone you 're here i 'd say"),
        ("The sign says 'STOP', cannot read it", "the sign says stop can not read it"),
        ("x/y coordinates 1,234 and e-mail me@site.com", "x/y coordinates 1,234 and e-mail me@site.com"),
    ],
)  # fmt: skip
def test_words_of_captions_are_those_of_the_treebank(caption: str, words: str) -> None:
    assert caption_words(caption) == words.split()


QUESTION = "What is it?\nA. vase\nB. wall clock\nC. clock\nD. The A train\nAnswer with the option's letter."


@pytest.mark.parametrize(
    ("said", "letter"),
    [("B", "B"), (" (b). ", "B"), ("C) clock", "C"), ("C: a clock", "C"), ("The answer is (D).", "D"),
     ("I think option C fits", "C"), ("It must be B, I think", "B"), ("A vase stands there", "A"), ("vase", "A"),
     ("A or B", None), ("B and C", None), ("", None), ("E", None), ("a cup", None), ("BC", None), ("clock, vase", None),
     ("A", "A"), ("(A)", "A"), ("D or B", None), ("I pick A.", "A"), ("A, B", None), ("A cup", None),
     ("The answer is a clock.", "C"), ("My answer: a wall clock", None), ("I would answer a vase", "A"),
     ("The choice I make is B", "B"), ("The answers vary", None), ("the answer is: b", "B"), ("Option a.", "A"),
     ("The answer is (a) vase", "A"), ("ANSWER IS C", "C"), ("The answer is E", None)],
)  # fmt: skip
def test_the_option_that_is_meant(said: str, letter: str | None) -> None:
    assert choices.chosen(said, choices.options(QUESTION)) == letter


def test_options_have_to_be_lettered_in_order() -> None:
    assert choices.options("Who?\n(A) one\n(B) two") == {"A": "one", "B": "two"}
    assert choices.options("Who?\nB. one\nC. two") == {}
    assert choices.options("Was it B. Franklin?") == {}


def test_an_answer_without_an_option_is_wrong_and_counted() -> None:
    score, parsed = choices.choice(["B", "A", "no idea"], [["B"]] * 3, [QUESTION] * 3)
    assert (score.tolist(), parsed.tolist()) == ([1, 0, 0], [True, True, False])


#: Right answers that every metric understands, with their questions.
GOLD = {
    "yes_no": (["Yes"], "Is it?"),
    "pope_owners": (["no"], "Is it?"),
    "choice": (["C"], QUESTION),
    "short_or_choice": (["C"], QUESTION),
    "anls_list": (["a", "b"], "Which?"),
}


@pytest.mark.parametrize("name", sorted(set(table.METRICS) - {"cider"}))
def test_a_right_answer_gets_the_highest_score(name: str) -> None:
    right, question = GOLD.get(name, (["the red bus"], "Which?"))
    said = "\n".join(right) if name == "anls_list" else right[0]
    scored = table.METRICS[name].score([said], [right], [question])
    assert (scored.score.tolist(), scored.parsed.tolist()) == ([1.0], [True])


COLUMNS = st.lists(st.tuples(TEXTS, st.lists(TEXTS, min_size=1, max_size=11)), min_size=1, max_size=5)


@pytest.mark.parametrize("name", sorted(set(table.METRICS) - {"choice", "yes_no", "pope_owners"}))
@given(rows=COLUMNS)
def test_scores_have_bounds_and_belong_to_their_rows(name: str, rows: list[tuple[str, list[str]]]) -> None:
    metric = table.METRICS[name]
    said, right = [row[0] for row in rows], [row[1] for row in rows]
    score = metric.score(said, right, ["?"] * len(rows)).score
    assert ((score >= 0) & (score <= metric.highest + 1e-9)).all()
    turned = metric.score(said[::-1], right[::-1], ["?"] * len(rows)).score
    assert turned == pytest.approx(score[::-1])
    reordered = metric.score(said, [each[::-1] for each in right], ["?"] * len(rows)).score
    assert reordered == pytest.approx(score)


@pytest.mark.parametrize("name", ["vqa", "anls", "gqa", "exact", "token_f1", "relaxed"])
@given(text=TEXTS, others=st.lists(TEXTS, max_size=3))
def test_the_same_text_is_right(name: str, text: str, others: list[str]) -> None:
    right = [text] * 4 + others if name == "vqa" else [text, *others]
    assert table.METRICS[name].score([text], [right], ["?"]).score == [1.0]
