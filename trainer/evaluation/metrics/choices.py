"""Multiple choice: which option an answer means."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

_OPTION: Final = re.compile(r"^\s*\(?([A-Z])[.):]\s*(.*\S)\s*$", re.MULTILINE)
_WHOLE: Final = re.compile(r"\W*([A-Za-z])\W*")
_LEADING: Final = re.compile(r"\s*(?:\(([A-Za-z])\)|([A-Za-z])[.):](?:\s|$))")
#: A small `a` is an article unless a mark follows it.
_NAMED: Final = re.compile(
    r"\b(?i:answer|option|choice)\b(?:\s+(?i:is)\b)?\s*:?\s*\(?([A-Z]|[b-z]|a(?=[).:]|\W*$))\b(?!')"
)
#: A is an article unless it ends the answer or a list goes on after it.
_ALONE: Final = re.compile(r"(?<![\w'])([B-Z]|A(?=\s*(?:or\b|and\b|,)|\W*$))(?![\w'])")


def options(question: str) -> dict[str, str]:
    r"""The options of a question, by letter, where they stand one a line as `A. vase`; empty if they are not A, B, ...

    >>> options("What is it?\nA. vase\nB. clock\nAnswer with the letter.")
    {'A': 'vase', 'B': 'clock'}
    """
    found = dict(_OPTION.findall(question))
    in_order = len(found) >= 2 and list(found) == [chr(ord("A") + place) for place in range(len(found))]
    return found if in_order else {}


def rotated(question: str, turn: int) -> str:
    r"""The question with the texts of its options moved by some places; their letters stay.

    >>> rotated("What is it?\nA. vase\nB. clock\nC. cup", 1)
    'What is it?\nA. clock\nB. cup\nC. vase'
    """
    given = list(options(question).values())
    parts, done = [], 0
    for option in _OPTION.finditer(question):
        parts += [question[done : option.start(2)], given[(ord(option[1]) - ord("A") + turn) % len(given)]]
        done = option.end(2)
    return "".join(parts) + question[done:]


def letters(question: str, right: str) -> list[str]:
    r"""The letter of the right option for each rotation; empty where the question or the right answer has no options.

    >>> letters("What is it?\nA. vase\nB. clock\nC. cup", "B")
    ['B', 'A', 'C']
    """
    given, letter = list(options(question)), right.strip(" ().")
    return [given[given.index(letter) - turn] for turn in range(len(given))] if letter in given else []


def chosen(text: str, given: Mapping[str, str]) -> str | None:
    """The letter of the option that an answer means, or None where it names none or several.

    In this order: nothing but a letter; a letter with a bracket, period or colon in front; "the answer is B"; one
    capital that stands alone and is no article; the words of one option.

    >>> given = {"A": "vase", "B": "clock"}
    >>> [chosen(text, given) for text in ("b", "(B) clock", "The answer is A", "A man with a clock", "A or B", "cup")]
    ['B', 'B', 'A', 'B', None, None]
    """
    for pattern in (_WHOLE.fullmatch, _LEADING.match):
        if (found := pattern(text)) is not None:
            letter = next(group for group in found.groups() if group).upper()
            return letter if letter in given else None
    # "The choice I make is B" names no option I.
    if called := [letter.upper() for letter in _NAMED.findall(text) if letter.upper() in given]:
        return called[0]
    alone = {letter for letter in _ALONE.findall(text) if letter in given}
    if alone:
        return alone.pop() if len(alone) == 1 else None
    plain = text.lower()
    named = [letter for letter, words in given.items() if re.search(rf"\b{re.escape(words.lower())}\b", plain)]
    return named[0] if len(named) == 1 else None


def choice(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], questions: Sequence[str]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    r"""Multiple choice: N predictions, answers (a letter) and questions with options -> (score [N], parsed [N]).

    An answer from which no option can be taken scores 0 and is not parsed.

    >>> choice(["(B)", "maybe"], [["B"], ["A"]], ["?\nA. vase\nB. clock"] * 2)
    (array([1., 0.]), array([ True, False]))
    """
    given = [options(question) for question in questions]
    letters = [chosen(text, of) for text, of in zip(predictions, given, strict=True)]
    wanted = [chosen(right[0], of) for right, of in zip(answers, given, strict=True)]
    parsed = np.array([letter is not None for letter in letters], np.bool_)
    right = [letter == want for letter, want in zip(letters, wanted, strict=True)]
    return np.array(right, np.float64) * parsed, parsed
