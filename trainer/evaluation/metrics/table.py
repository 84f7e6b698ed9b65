"""Which metric scores which evaluation split, and what each metric is.

A metric scores rows. What is made of a split is the mean of its rows, with the figures of `yes_no` beside it where a
metric reads yes or no.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from trainer.evaluation.metrics import answers, captions, choices, yes_no
from vpt_data.errors import UsageError, unknown_name

Texts: TypeAlias = Sequence[str]


class Scored(NamedTuple):
    """Scores float64 [N], and where an answer could be read at all, bool [N]."""

    score: npt.NDArray[np.float64]
    parsed: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Metric:
    """A metric over rows: predictions, lists of right answers and questions, N each -> Scored.

    highest  the score of a right answer
    reads    what tells yes from no, for metrics of such questions
    """

    name: str
    meaning: str
    score: Callable[[Texts, Sequence[Texts], Texts], Scored]
    highest: float = 1.0
    reads: Callable[[Texts], yes_no.Said] | None = None


def _plain(function: Callable[[Texts, Sequence[Texts]], npt.NDArray[np.float64]]) -> Callable[..., Scored]:
    """A score that any text can have."""

    def score(predictions: Texts, right: Sequence[Texts], questions: Texts) -> Scored:
        return Scored(function(predictions, right), np.ones(len(predictions), np.bool_))

    return score


def _yes_no(reads: Callable[[Texts], yes_no.Said]) -> Callable[..., Scored]:
    def score(predictions: Texts, right: Sequence[Texts], questions: Texts) -> Scored:
        found = reads(predictions)
        return Scored((found == truth(right)).astype(np.float64), found != yes_no.UNPARSED)

    return score


def truth(right: Sequence[Texts]) -> yes_no.Said:
    """The right answers of yes/no questions, int8 [N] of 1 and 0; UsageError where one is neither."""
    first = [given[0] for given in right]
    said = yes_no.said(first)
    if (unclear := np.flatnonzero(said == yes_no.UNPARSED)).size:
        raise UsageError(
            f"The right answer {first[unclear[0]]!r} is neither yes nor no; score its take with another metric "
            "(--metric TAKE=NAME)."
        )
    return said


def _choice(predictions: Texts, right: Sequence[Texts], questions: Texts) -> Scored:
    if wrong := [question for question in questions if not choices.options(question)]:
        raise UsageError(
            f"The question {wrong[0]!r} has no options, one a line as `A. vase`; score its take with another metric "
            "(--metric TAKE=NAME)."
        )
    return Scored(*choices.choice(predictions, right, questions))


def _short_or_choice(predictions: Texts, right: Sequence[Texts], questions: Texts) -> Scored:
    score = answers.vqa_accuracy(predictions, right)
    parsed = np.ones(len(score), np.bool_)
    picked = [at for at, text in enumerate(questions) if right[at][0].strip(" ().") in choices.options(text)]
    if picked:
        score[picked], parsed[picked] = choices.choice(
            [predictions[at] for at in picked], [right[at] for at in picked], [questions[at] for at in picked]
        )
    return Scored(score, parsed)


METRICS: Final = {
    metric.name: metric
    for metric in (
        Metric("vqa", "VQA accuracy: min(1, matches / 3) over the right answers", _plain(answers.vqa_accuracy)),
        Metric("anls", "ANLS of DocVQA, 0 below .5", _plain(answers.anls)),
        Metric("anls_list", "ANLS of a list in any order, one item a line", _plain(answers.anls_of_lists)),
        Metric("gqa", "exact match, lower case, without a final period", _plain(answers.gqa)),
        Metric("exact", "exact match after the normalisation of VQA", _plain(answers.exact)),
        Metric("token_f1", "overlap of words (F1) after the normalisation of VQA", _plain(answers.token_f1)),
        Metric("relaxed", "relaxed accuracy: numbers within 5 %, else the same text", _plain(answers.relaxed_accuracy)),
        Metric("cider", "CIDEr-D against the references of the split", _plain(captions.cider), highest=10.0),
        Metric("choice", "the letter of the right option", _choice),
        Metric("short_or_choice", "`choice` where options are given, else `vqa`", _short_or_choice),
        Metric("yes_no", "yes or no; an answer that says neither is wrong", _yes_no(yes_no.said), reads=yes_no.said),
        Metric(
            "pope_owners",
            "as POPE's own program: yes unless the first sentence has `No`, `no` or `not`",
            _yes_no(yes_no.said_by_owners),
            reads=yes_no.said_by_owners,
        ),
    )
}


@dataclass(frozen=True)
class Benchmark:
    """How a split is scored without a judge.

    owners  the metric of the data set's owner; None where the owner has none for such rows
    """

    metric: str
    owners: str | None = None


#: By take. The paper scores them all by a judge, the only published measure of the rows of Visual-CoT on CUB,
#: OpenImages, Flickr30k, TextCaps and VSR and of LLaVA's: there, short answers are compared exactly, sentences by word.
BENCHMARKS: Final = {
    "CUB_Birds_action_test": Benchmark("yes_no"),
    "DocVQA_region_test": Benchmark("anls", "anls"),
    "DUDE_region_test": Benchmark("anls", "anls"),
    "Flickr30k_action_test": Benchmark("token_f1"),
    "GQA_region_test": Benchmark("gqa", "gqa"),
    "OI_region_test": Benchmark("exact"),
    "TextCap_region_test": Benchmark("exact"),
    "TextVQA_region_test": Benchmark("vqa", "vqa"),
    "VSR_region_test": Benchmark("exact"),
    "POPE_action_test": Benchmark("yes_no", "pope_owners"),
    "POPE_random_action_test": Benchmark("yes_no", "pope_owners"),
    "POPE_popular_action_test": Benchmark("yes_no", "pope_owners"),
    "POPE_adversarial_action_test": Benchmark("yes_no", "pope_owners"),
    "LLaVA_COCO_free_action_test": Benchmark("token_f1"),
    "LLaVA_COCO_single_action_test": Benchmark("short_or_choice"),
    "LLaVA_GQA_action_test": Benchmark("gqa", "gqa"),
    "plates_region_test": Benchmark("exact"),
}


def metric_of(take: str, chosen: dict[str, str] | None = None) -> Metric:
    """The metric of a take, `chosen` (take -> metric) before BENCHMARKS; UsageError where there is none."""
    name = (chosen or {}).get(take) or (BENCHMARKS[take].metric if take in BENCHMARKS else None)
    if name is None:
        raise UsageError(
            f"Take {take!r} has no metric; choose one with --metric {take}=NAME, out of {', '.join(METRICS)}."
        )
    if name not in METRICS:
        raise unknown_name("metric", name, METRICS)
    return METRICS[name]
