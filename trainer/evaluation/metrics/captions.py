"""CIDEr-D of captions, in Python alone.

`pycocoevalcap` has it as well, in a package of 100 MB that splits captions into words by starting Java; what it scores
is compared with ours in the tests, for captions that both split alike.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

_LONGEST: Final = 4  # words of an n-gram
_SIGMA: Final = 6.0
_SCALE: Final = 10.0

_WORD: Final = re.compile(
    r"(?:[a-z]\.){2,}"  # u.s.
    r"|\d+(?:[.,:/]\d+)*"  # 3.5, 1,234, 10:30
    r"|n't|'(?:s|m|d|re|ve|ll)\b"
    r"|[^\W_]+?(?=n't\b)"
    r"|[^\W_]+(?:[-/@._][^\W_]+)*"
    r"|\S"
)
_BRACKETS: Final = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_DROPPED: Final = frozenset("'\"`.?!,:;-–—…")
_Grams: TypeAlias = Counter[tuple[str, ...]]


def caption_words(caption: str) -> list[str]:
    """The words of a caption as the tokenizer of the Penn Treebank splits them, without punctuation.

    >>> " ".join(caption_words("It's a dog's bowl, isn't it? (3.5 litres)"))
    "it 's a dog 's bowl is n't it -lrb- 3.5 litres -rrb-"
    """
    plain = caption.lower().replace("’", "'").replace("cannot", "can not")
    return [_BRACKETS.get(word, word) for word in _WORD.findall(plain) if word not in _DROPPED]


def cider(predictions: Sequence[str], answers: Sequence[Sequence[str]]) -> npt.NDArray[np.float64]:
    """CIDEr-D: N captions, N lists of reference captions -> float64 [N] in 0..10.

    How much an n-gram weighs depends on how many of the N items have it in a reference, so scores of different sets
    cannot be compared, and that of a single item is 0. A caption of fewer than four words cannot reach 10.

    >>> cider(["a red bus", "two cats"], [["a red bus"], ["a dog"]]).round(2)
    array([7.5, 0. ])
    """
    references = [[_grams(text) for text in texts] for texts in answers]
    seen = Counter(gram for texts in references for gram in {gram for text in texts for gram in text})
    items = math.log(max(len(references), 1))
    weights = {gram: items - math.log(count) for gram, count in seen.items()}
    scores = [
        float(np.mean([_similarity(_grams(said), text, weights, items) for text in texts]))
        for said, texts in zip(predictions, references, strict=True)
    ]
    return _SCALE * np.array(scores, np.float64)


def _grams(caption: str) -> _Grams:
    words = caption_words(caption)
    return Counter(
        tuple(words[at : at + size]) for size in range(1, _LONGEST + 1) for at in range(len(words) - size + 1)
    )


def _similarity(said: _Grams, right: _Grams, weights: dict[tuple[str, ...], float], unseen: float) -> float:
    """Mean over the sizes of n-grams of their clipped cosine, less for captions of another length."""
    shared, norms = np.zeros(_LONGEST), np.zeros((2, _LONGEST))
    for gram, count in said.items():
        weight, size = weights.get(gram, unseen), len(gram) - 1
        shared[size] += min(count, right[gram]) * right[gram] * weight**2
        norms[0, size] += (count * weight) ** 2
    for gram, count in right.items():
        norms[1, len(gram) - 1] += (count * weights.get(gram, unseen)) ** 2
    product = np.sqrt(norms[0] * norms[1])
    cosine = np.divide(shared, product, out=np.zeros(_LONGEST), where=product > 0)
    # The owners count pairs of words as the length.
    delta = _pairs(said) - _pairs(right)
    return float(cosine.mean() * math.exp(-(delta**2) / (2 * _SIGMA**2)))


def _pairs(grams: _Grams) -> int:
    return sum(count for gram, count in grams.items() if len(gram) == 2)
