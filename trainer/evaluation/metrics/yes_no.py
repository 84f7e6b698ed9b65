"""Yes or no: what an answer says, and the figures that are made of it.

POPE's own program takes everything for yes in whose first sentence the words `No`, `no` and `not` do not occur: an
empty answer is a yes for it, and so are `NO` and `no!`. It is here as `said_by_owners`, for comparison; `said` reports
what it cannot read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

Said: TypeAlias = npt.NDArray[np.int8]
YES, NO, UNPARSED = np.int8(1), np.int8(0), np.int8(-1)
_WORD: Final = re.compile(r"[a-z]+(?:'[a-z]+)?")
_NEGATIVE: Final = frozenset({"no", "not", "none", "nope", "cannot"})


def said(texts: Sequence[str]) -> Said:
    """What each answer says: 1 yes, 0 no, -1 neither, int8 [N].

    The first word decides where it is `yes` or `no`. Else the whole answer has to hold `yes`, or a negation, and not
    both; `There is a dog.` says neither.

    >>> said(["Yes, there is no doubt", "NO!", "There isn't one.", "There is a dog.", "", "not yes"]).tolist()
    [1, 0, 0, -1, -1, -1]
    """
    return np.array([_said(_WORD.findall(text.lower().replace("’", "'"))) for text in texts], np.int8)


def _said(words: list[str]) -> int:
    if words and words[0] in {"yes", "no"}:
        return int(words[0] == "yes")
    yes = "yes" in words
    no = any(word in _NEGATIVE or word.endswith("n't") for word in words)
    return int(yes) if yes != no else -1


def said_by_owners(texts: Sequence[str]) -> Said:
    """What POPE's program reads: 0 where the first sentence has the word `No`, `no` or `not`, else 1; int8 [N].

    >>> said_by_owners(["There is no dog.", "Yes. No.", "NO", "no!", "Not one.", ""]).tolist()
    [0, 1, 1, 1, 1, 1]
    """
    sentences = (text.split(".")[0].replace(",", "").split(" ") for text in texts)
    return np.array([not {"No", "no", "not"} & set(words) for words in sentences], np.int8)


#: The columns of `outcomes`.
OUTCOMES: Final = ("true_yes", "false_yes", "true_no", "false_no", "unparsed_yes", "unparsed_no")


def outcomes(found: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """What came of each question: said int8 [N], right int8 [N] (1 or 0) -> one-hot float64 [N, 6] as OUTCOMES.

    The last two are answers that say neither, where the right answer is yes and where it is no.

    >>> outcomes([1, 0, -1], [1, 1, 0]).argmax(axis=1).tolist()
    [0, 3, 5]
    """
    answer, truth = np.asarray(found), np.asarray(right)
    kinds = [(YES, YES), (YES, NO), (NO, NO), (NO, YES), (UNPARSED, YES), (UNPARSED, NO)]
    return np.stack([(answer == kind) & (truth == wanted) for kind, wanted in kinds], axis=1).astype(np.float64)


@dataclass(frozen=True)
class YesNo:
    """Figures of yes/no questions, numbers or arrays of the same shape; NaN where one is not defined.

    accuracy           share of right answers; one that says neither is wrong
    balanced_accuracy  mean of the accuracies on questions with the answers yes and no
    precision, recall  of the answer yes; recall counts a yes question without a parsed answer as missed
    f1                 their harmonic mean
    yes_ratio          share of `yes` among the answers of the model (not of the questions)
    unparsed           share of answers that say neither
    """

    accuracy: Any
    balanced_accuracy: Any
    precision: Any
    recall: Any
    f1: Any
    yes_ratio: Any
    unparsed: Any


def figures(counts: npt.ArrayLike) -> YesNo:
    """The figures of sums of `outcomes`: float64 [..., 6] -> a YesNo of arrays [...].

    >>> round(float(figures([2, 1, 1, 0, 0, 0]).f1), 2)
    0.8
    """
    sums = np.asarray(counts, np.float64)
    true_yes, false_yes, true_no, false_no, lost_yes, lost_no = np.moveaxis(sums, -1, 0)
    total = sums.sum(axis=-1)
    yes, no = true_yes + false_no + lost_yes, true_no + false_yes + lost_no
    recall, specificity = _share(true_yes, yes), _share(true_no, no)
    return YesNo(
        accuracy=_share(true_yes + true_no, total),
        balanced_accuracy=(recall + specificity) / 2,
        precision=_share(true_yes, true_yes + false_yes),
        recall=recall,
        f1=_share(2 * true_yes, true_yes + false_yes + yes),
        yes_ratio=_share(true_yes + false_yes, total),
        unparsed=_share(lost_yes + lost_no, total),
    )


def _share(part: Any, whole: Any) -> Any:
    filled = np.full(np.shape(whole), np.nan)
    return np.divide(part, whole, out=filled, where=np.asarray(whole) > 0)[()]
