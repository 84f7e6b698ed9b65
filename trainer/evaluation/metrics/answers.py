"""Scores of short answers, each by the definition of the owners of its benchmark.

Every score is a function of columns: predictions (N texts) and answers (N lists of right answers, none of them empty)
-> float64 [N] in 0..1. Nothing is changed in place.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.evaluation.metrics.assignment import best_assignment

Floats: TypeAlias = npt.NDArray[np.float64]
Texts: TypeAlias = Sequence[str]
Golds: TypeAlias = Sequence[Sequence[str]]

#: Below this similarity ANLS is 0; at it, the similarity stays.
ANLS_THRESHOLD: Final = 0.5
#: Numbers are right within this share of the right one.
TOLERANCE: Final = 0.05
#: Persons who have to agree with a prediction for the full VQA accuracy.
AGREEING: Final = 3

_ARTICLES: Final = frozenset({"a", "an", "the"})
_TO_TEN: Final = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS: Final = {word: str(value) for value, word in enumerate(_TO_TEN)} | {"none": "0"}
#: What the owners' table puts apostrophes into: each form, also with one of its apostrophes left out. `I'm` and its
#: like are in that table with a capital, which no lower-cased word matches, so they are not here.
_FORMS: Final = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've
he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't not've
o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's
someone'd someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're
there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've
when's where'd where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't
wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're you've
"""
_CONTRACTIONS: Final = {
    form[:at] + form[at + 1 :]: form for form in _FORMS.split() for at, letter in enumerate(form) if letter == "'"
} | {"somebody'd": "somebodyd"}
_PUNCTUATION: Final = ';/[]"{}()=+\\_-><@`!'
_PERIOD: Final = re.compile(r"\.(?!\d)")


def vqa_normalised(text: str) -> str:
    """A text as the evaluation of VQA and TextVQA compares it: case, punctuation, numbers, articles, contractions.

    Two properties of the owners' code are kept: every period that no digit follows goes, also one after a digit (their
    pattern has a misprint), and a mark becomes a blank unless it has one beside it anywhere in the text.

    >>> vqa_normalised("The Two dogs, dont bark."), vqa_normalised("7-Eleven"), vqa_normalised("3.5 m.")
    ("2 dogs don't bark", '7 eleven', '3.5 m')
    """
    plain = text.lower().replace(",", "").replace("?", "").replace("'s", " 's")
    plain = plain.strip().replace("\n", " ").replace("\t", " ").strip()
    kept = plain
    for mark in _PUNCTUATION:
        beside = f"{mark} " in plain or f" {mark}" in plain
        kept = kept.replace(mark, "" if beside else " ")
    words = (_NUMBERS.get(word, word) for word in _PERIOD.sub("", kept).split())
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(predictions: Texts, answers: Golds) -> Floats:
    """VQA accuracy: min(1, matches / 3), as a mean over the sets that leave out one of the ten answers.

    With m matches of ten this is 0, .3, .6, .9 and then 1. With fewer than four answers all others have to agree, and a
    single answer is compared by itself, so that a prediction which is every answer scores 1 whatever their number.

    >>> vqa_accuracy(["Red"] * 3, [["red", "red"] + ["blue"] * 8, ["red"], ["blue", "red"]])
    array([0.6, 1. , 0.5])
    """
    return _each(_vqa, predictions, answers)


def _vqa(prediction: str, answers: Sequence[str]) -> float:
    said, count = vqa_normalised(prediction), len(answers)
    matches = sum(vqa_normalised(answer) == said for answer in answers)
    if count == 1:
        return float(matches)
    needed = min(AGREEING, count - 1)
    # Leaving out a match leaves one fewer; leaving out another answer leaves them all.
    return (matches * min(needed, matches - 1) + (count - matches) * min(needed, matches)) / (needed * count)


def anls(predictions: Texts, answers: Golds) -> Floats:
    """ANLS of DocVQA: the best similarity 1 - distance / length of the longer text; 0 where it is below .5.

    Case does not count and blanks are collapsed. The owners divide by the length before that, so that blanks around a
    wrong answer raise its score; here they do not.

    >>> anls(["Abcd", "ab", "x"], [["abcd", "y"], ["abcd"], ["abcd"]])
    array([1. , 0.5, 0. ])
    """
    return _each(_anls, predictions, answers)


def _anls(prediction: str, answers: Sequence[str]) -> float:
    said = _collapsed(prediction)
    return max(_similarity(said, _collapsed(answer)) for answer in answers)


def anls_list(predictions: Sequence[Sequence[str]], answers: Golds) -> Floats:
    """ANLS where the answer is a list in any order: N lists of items, N lists of right items -> float64 [N].

    Items are paired so that the sum of their ANLS is largest; it is divided by the length of the longer list. Two empty
    lists ("not answerable") agree.

    >>> anls_list([["b", "a"], ["a"], []], [["a", "b"], ["a", "b"], []])
    array([1. , 0.5, 1. ])
    """
    return np.array([_list_score(said, right) for said, right in zip(predictions, answers, strict=True)], np.float64)


def _list_score(said: Sequence[str], right: Sequence[str]) -> float:
    longer = max(len(said), len(right))
    if longer == 0:
        return 1.0
    table = np.zeros((longer, longer))
    for row, item in enumerate(map(_collapsed, said)):
        table[row, : len(right)] = [_similarity(item, _collapsed(answer)) for answer in right]
    return float(table[np.arange(longer), best_assignment(table)].sum() / longer)


def listed(text: str) -> list[str]:
    r"""The items of an answer that is a list: a JSON list of texts, else one item a line.

    >>> listed('["a", "b, c"]'), listed("a\nb, c\n")
    (['a', 'b, c'], ['a', 'b, c'])
    """
    if text.lstrip().startswith("["):
        try:
            items = json.loads(text)
        except (ValueError, RecursionError):
            items = None
        if isinstance(items, list):
            return [str(item) for item in items]
    return [line.strip() for line in text.splitlines() if line.strip()]


def anls_of_lists(predictions: Texts, answers: Golds) -> Floats:
    """`anls_list` of predictions that are texts (`listed`); the answers of a row are the items of its one list.

    >>> anls_of_lists(["b\\na"], [["a", "b"]])
    array([1.])
    """
    return anls_list([listed(text) for text in predictions], answers)


def exact(predictions: Texts, answers: Golds) -> Floats:
    """1 where a prediction is one of the answers after `vqa_normalised`, else 0.

    >>> exact(["A red bus.", "bus"], [["red bus"], ["the red bus"]])
    array([1., 0.])
    """
    return _each(
        lambda said, right: float(vqa_normalised(said) in set(map(vqa_normalised, right))), predictions, answers
    )


def gqa(predictions: Texts, answers: Golds) -> Floats:
    """Exact match of GQA: lower case, without blanks around it and without a final period.

    >>> gqa(["Pants.", "the pants"], [["pants"], ["pants"]])
    array([1., 0.])
    """
    return _each(lambda said, right: float(_bare(said) in set(map(_bare, right))), predictions, answers)


def relaxed_accuracy(predictions: Texts, answers: Golds) -> Floats:
    """Relaxed accuracy of ChartQA: numbers within 5 % of the right one, other answers exactly, whatever their case.

    A per cent sign divides by 100. The usual code compares with a right answer of 0 as text, so that `0.0` is wrong for
    it; here a number has to be 0 then.

    >>> relaxed_accuracy(["10.4", "10.6", "0.0", "Blue", "5%"], [["10"], ["10"], ["0"], ["blue"], ["0.05"]])
    array([1., 0., 1., 1., 1.])
    """
    return _each(lambda said, right: max(_relaxed(said, answer) for answer in right), predictions, answers)


def _relaxed(said: str, answer: str) -> float:
    if said.strip().lower() == answer.strip().lower():
        return 1.0
    number, right = _number(said), _number(answer)
    return float(number is not None and right is not None and abs(number - right) <= TOLERANCE * abs(right))


def _number(text: str) -> float | None:
    plain = text.strip()
    try:
        value = float(plain[:-1]) / 100 if plain.endswith("%") else float(plain)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def token_f1(predictions: Texts, answers: Golds) -> Floats:
    """The best harmonic mean of precision and recall of words (as for SQuAD) after `vqa_normalised`.

    For answers that are sentences, where the published measure is a judge: it needs none, and it is no substitute.

    >>> token_f1(["the dog barks", "yes"], [["a dog"], ["no"]]).round(2)
    array([0.67, 0.  ])
    """
    return _each(lambda said, right: max(_f1(said, answer) for answer in right), predictions, answers)


def _f1(said: str, answer: str) -> float:
    left, right = vqa_normalised(said).split(), vqa_normalised(answer).split()
    if not left or not right:
        return float(left == right)
    return 2 * (Counter(left) & Counter(right)).total() / (len(left) + len(right))


def _each(score: Callable[[str, Sequence[str]], float], predictions: Texts, answers: Golds) -> Floats:
    return np.array([score(said, right) for said, right in zip(predictions, answers, strict=True)], np.float64)


def _bare(text: str) -> str:
    return text.strip().lower().removesuffix(".").strip()


def _collapsed(text: str) -> str:
    return " ".join(text.lower().split())


def _similarity(said: str, answer: str) -> float:
    longer, shorter = max(len(said), len(answer)), min(len(said), len(answer))
    # The difference in length alone can rule out .5, which spares most of the work on long wrong answers.
    if longer == 0 or said == answer:
        return 1.0
    if shorter < longer * ANLS_THRESHOLD:
        return 0.0
    similarity = 1 - edit_distance(said, answer) / longer
    return similarity if similarity >= ANLS_THRESHOLD else 0.0


def edit_distance(a: str, b: str) -> int:
    """Levenshtein distance: the fewest insertions, deletions and substitutions of characters from `a` to `b`.

    >>> edit_distance("kitten", "sitting"), edit_distance("", "ab")
    (3, 2)
    """
    before = list(range(len(b) + 1))
    for row, letter in enumerate(a, 1):
        after = [row]
        for column, other in enumerate(b):
            after.append(min(before[column] + (letter != other), before[column + 1] + 1, after[column] + 1))
        before = after
    return before[-1]
