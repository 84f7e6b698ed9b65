"""Results: figures of records with their intervals, and all that decides whether two results can be compared."""

from __future__ import annotations

import hashlib
import platform
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, Final

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from trainer.evaluation.metrics import looks, regions, table, yes_no
from trainer.evaluation.predictions import causes
from trainer.evaluation.records import REGION_SCORES, groups
from trainer.evaluation.statistics import (
    CONFIDENCE,
    RESAMPLES,
    Figure,
    Resampled,
    mean,
    mean_columns,
    mean_of_means,
)
from vpt_data import __version__

SCHEMA_VERSION: Final = 2
#: What is averaged over the parts of POPE besides the accuracy.
POPE_AVERAGED: Final = ("precision", "recall", "f1", "yes_ratio")


class Value(msgspec.Struct, frozen=True):
    """A figure: its value and 95 % interval over images, the rows and images it was computed on; None: not defined."""

    value: float | None
    low: float | None
    high: float | None
    rows: int
    images: int


class Compared(msgspec.Struct, frozen=True):
    """The score of this run minus that of another on the rows that both have and score.

    ours, theirs  the mean score of each on these rows
    p             two-sided
    p_holm        adjusted for all splits and runs of the results
    """

    ours: Value
    theirs: Value
    value: float | None
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    rows: int
    images: int


class Intervened(msgspec.Struct, frozen=True):
    """What an intervention did to the rows of one split, against the same model as it is.

    changed        rows in which the model was given something else than it asked for; the others count as they are
    score          mean of the metric under the intervention, over all rows
    difference     that minus the score of the model as it is, on the same rows; None where it changed no row
    of_changed     the same over the changed rows alone
    other_answers  share of the changed rows whose answer is another one
    empty          share of all rows under the intervention without an answer or with an empty one
    judge          as `difference`, of the judge's scores; None without a judge
    """

    rows: int
    images: int
    changed: int
    score: Value
    difference: Compared | None = None
    of_changed: Compared | None = None
    other_answers: Value | None = None
    empty: Value | None = None
    judge: Compared | None = None


class Verdict(msgspec.Struct, frozen=True):
    """A figure beside a published one.

    paper       the published value; None where there is none
    ours        our figure of the same kind; None where there is none
    difference  ours - paper
    verdict     `within`, `above` or `below`: whether the published value is inside our interval, or which side of it we
                are on; or `not comparable`
    why         why not
    """

    paper: float | None
    ours: Value | None
    difference: float | None
    verdict: str
    why: str


class Beside(msgspec.Struct, frozen=True):
    """The figures beside a row of a published table; `splits` by name, `figure` is what the table has."""

    name: str
    paper: str
    table: str
    model: str
    figure: str
    about: str
    splits: dict[str, Verdict]


class Split(msgspec.Struct, frozen=True):
    """What came of one split, or of one take of a split that has several.

    owner           whether the metric is that of the data set's owner
    answered        rows with an answer of the model; the others score 0
    unscored        rows that are in no figure of answers: the corpus has no right answer for them, or, as with the
                    published program, their crop failed (`region_crop_failed` in `invalid`)
    ended           how the rows ended, where that is known
    faults          cause -> rows that could not be asked
    figures         `score` (the mean of the metric), `exact`, `unparsed`, `empty` (rows without an answer or with an
                    empty one), those of `yes_no.YesNo`, for POPE some of them as its own program reads answers
                    (`owners_`), `judge`
    judge_faults    rows for which the judge gave no score; they are not in `judge`
    triggers        expected kind of look -> kind that was triggered -> rows; those of which only the answer is known
                    are in no figure of looks and regions
    trigger_scores  kind that was triggered -> mean of the metric
    invalid         cause -> looks that could not be used
    regions         scores of regions over the rows with a box; `_named`: over those that named a region
    sizes           size of the box -> the same, without `_named`
    """

    rows: int
    images: int
    metric: str
    owner: bool
    answered: int
    unscored: int
    ended: dict[str, int]
    faults: dict[str, int]
    figures: dict[str, Value]
    judge_faults: int
    triggers: dict[str, dict[str, int]]
    trigger_scores: dict[str, Value]
    invalid: dict[str, int]
    regions: dict[str, Value]
    sizes: dict[str, dict[str, Value]]


class Results(msgspec.Struct, frozen=True):
    """results.json.

    items          the rows that were asked: how many, on how many images, a hash of ids, questions, answers and boxes
    answers        a hash of what was said
    settings       how the rows were chosen and scored
    about          what is known of the model and of how it was asked
    averages       unweighted means of several splits
    judge          who judged, by which prompt, and how far a second judge agrees; None where nobody did
    against        name of another run -> split -> the difference
    interventions  name -> split -> what it did to the answers; in the results of the model as it is
    published      the splits beside a row of a published table, where one was named
    """

    schema_version: int
    versions: dict[str, str]
    corpus: dict[str, Any]
    items: dict[str, Any]
    answers: str
    settings: dict[str, Any]
    about: dict[str, Any]
    metrics: dict[str, str]
    splits: dict[str, Split]
    averages: dict[str, Value]
    judge: dict[str, Any] | None = None
    against: dict[str, dict[str, Compared]] = {}
    interventions: dict[str, dict[str, Intervened]] = {}
    published: Beside | None = None


@dataclass(frozen=True)
class Drawing:
    """How intervals are drawn."""

    resamples: int = RESAMPLES
    seed: int = 0


def versions() -> dict[str, str]:
    """Of what scores depend on."""
    return {
        "vpt-data": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "pyarrow": pa.__version__,
    }


def answers_sha256(records: pa.Table) -> str:
    """A hash of all that was said, whatever the order of the rows."""
    columns = (records[name].to_pylist() for name in ("id", "turns", "answer"))
    lines = sorted(msgspec.json.encode(row) for row in zip(*columns, strict=True))
    return hashlib.sha256(b"\n".join(lines)).hexdigest()


def settings(drawing: Drawing, **more: Any) -> dict[str, Any]:
    """The settings of the intervals and others, for results.json."""
    return {"confidence": CONFIDENCE, "resamples": drawing.resamples, "seed": drawing.seed, **more}


def splits(records: pa.Table, drawing: Drawing) -> dict[str, Split]:
    """The results of each split (of `records.groups`), in the order of the records."""
    return {name: _split(records.filter(pa.array(rows)), drawing) for name, rows in groups(records).items()}


def _split(records: pa.Table, drawing: Drawing) -> Split:
    score, images = numbers(records, "score"), records["image"].to_pylist()
    known = records.filter(pc.is_valid(records["triggered"]))
    take, name = records["take"][0].as_py(), records["metric"][0].as_py()
    matrix = looks.confusion(known["expected"].to_pylist(), known["triggered"].to_pylist())
    kinds = np.array(records["triggered"].to_pylist())
    return Split(
        rows=records.num_rows,
        images=len(set(images)),
        metric=name,
        owner=take in table.BENCHMARKS and table.BENCHMARKS[take].owners == name,
        answered=records.num_rows - records["answer"].null_count,
        unscored=records["score"].null_count,
        ended=dict(Counter(filter(None, records["ended"].to_pylist()))),
        faults=dict(sorted(causes(records["fault"].to_pylist()).items())),
        figures=_figures(records, drawing),
        judge_faults=records.num_rows - records["judge_fault"].null_count,
        triggers={
            row: dict(zip(looks.TRIGGERED, matrix[place].tolist(), strict=True))
            for place, row in enumerate(looks.EXPECTED)
            if matrix[place].any()
        },
        trigger_scores={
            kind: mean_value(np.where(kinds == kind, score, np.nan), images, drawing, table.METRICS[name].highest)
            for kind in looks.TRIGGERED
            if (kinds == kind).any()
        },
        invalid=dict(Counter(cause for causes in known["invalid"].to_pylist() for cause in causes)),
        regions=_regions(records, drawing, named=True),
        sizes={
            size: found
            for size in regions.BUCKETS
            if (found := _regions(records.filter(pc.equal(records["size"], size)), drawing))
        },
    )


def _figures(records: pa.Table, drawing: Drawing) -> dict[str, Value]:
    records = records.filter(pc.is_valid(records["score"]))
    if not records.num_rows:
        return {}
    images, metric = records["image"].to_pylist(), table.METRICS[records["metric"][0].as_py()]
    found = {
        "score": mean_value(numbers(records, "score"), images, drawing, metric.highest),
        "exact": mean_value(numbers(records, "exact"), images, drawing),
        "unparsed": mean_value(1.0 - numbers(records, "parsed"), images, drawing),
        "empty": empty(records, drawing),
    }
    if metric.reads is not None:
        right = table.truth(records["answers"].to_pylist())
        found |= _yes_no(_as_said(records["said"].to_pylist()), right, images, drawing)
        if records["take"][0].as_py().startswith("POPE_"):
            said = yes_no.said_by_owners([text or "" for text in records["answer"].to_pylist()])
            # That program reads an empty answer as yes; a row without any was never given to it, and is wrong.
            said[~np.array(records["answer"].is_valid().to_pylist())] = yes_no.UNPARSED
            owners = _yes_no(said, right, images, drawing)
            found |= {f"owners_{name}": owners[name] for name in ("accuracy", "f1", "yes_ratio")}
    if records["judge"].null_count < records.num_rows:
        found["judge"] = mean_value(numbers(records, "judge"), images, drawing)
    return found


def empty(records: pa.Table, drawing: Drawing) -> Value:
    """The share of rows without an answer or with an empty one, over those that are scored."""
    records = records.filter(pc.is_valid(records["score"]))
    nothing = np.array([not text for text in records["answer"].to_pylist()], np.float64)
    return mean_value(nothing, records["image"].to_pylist(), drawing)


def _yes_no(said: yes_no.Said, right: yes_no.Said, images: Sequence[str], drawing: Drawing) -> dict[str, Value]:
    drawn = Resampled(yes_no.outcomes(said, right), images, drawing.resamples, drawing.seed)
    names = [field.name for field in fields(yes_no.YesNo)]
    return {name: value_of(drawn, partial(_yes_no_figure, name)) for name in names}


def _yes_no_figure(name: str, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    found: npt.NDArray[np.float64] = getattr(yes_no.figures(sums), name)
    return found


def _as_said(words: Sequence[str | None]) -> yes_no.Said:
    return np.array([{"yes": 1, "no": 0}.get(word or "", -1) for word in words], np.int8)


def _regions(records: pa.Table, drawing: Drawing, named: bool = False) -> dict[str, Value]:
    images, found = records["image"].to_pylist(), {}
    if records["iou_box"].null_count == records.num_rows:
        return {}
    for name in REGION_SCORES:
        found[name] = mean_value(numbers(records, name), images, drawing)
    if named:
        there = np.array(records["cells"].is_valid().to_pylist())
        for name in REGION_SCORES[:4]:
            found[f"{name}_named"] = mean_value(np.where(there, numbers(records, name), np.nan), images, drawing)
    return found


def averages(records: pa.Table, drawing: Drawing) -> dict[str, Value]:
    """Unweighted means over splits: `score` (where 1 is the highest), `judge`, and those of the parts of POPE.

    These are `pope`, the mean of their scores, and one of each figure of POPE_AVERAGED, such as `pope_f1`.
    """
    unit = np.array([table.METRICS[name].highest == 1.0 for name in records["metric"].to_pylist()])
    pope = np.array([name.startswith("POPE_") for name in records["take"].to_pylist()])
    wanted = {"score": ("score", unit), "pope": ("score", pope), "judge": ("judge", unit | ~unit)}
    means = {
        name: _average(records, np.where(rows, numbers(records, column), np.nan), drawing)
        for name, (column, rows) in wanted.items()
    }
    return {name: value for name, value in means.items() if value is not None} | _pope_averages(records, drawing)


def _pope_averages(records: pa.Table, drawing: Drawing) -> dict[str, Value]:
    """Figures of yes and no, each the mean of those of the parts of POPE; {} for fewer than two parts."""
    takes, metrics, scored = (records[name].to_pylist() for name in ("take", "metric", "score"))
    rows = [
        take.startswith("POPE_") and table.METRICS[metric].reads is not None and score is not None
        for take, metric, score in zip(takes, metrics, scored, strict=True)
    ]
    asked = records.filter(pa.array(rows, pa.bool_()))
    parts = list(groups(asked).values())
    if len(parts) < 2:
        return {}
    found = yes_no.outcomes(_as_said(asked["said"].to_pylist()), table.truth(asked["answers"].to_pylist()))
    columns = np.hstack([found * part[:, None] for part in parts])
    drawn = Resampled(columns, asked["image"].to_pylist(), drawing.resamples, drawing.seed)

    def mean_of_parts(name: str, sums: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        means: npt.NDArray[np.float64] = np.mean(
            [_yes_no_figure(name, one) for one in np.split(sums, len(parts), -1)], 0
        )
        return means

    return {f"pope_{name}": value_of(drawn, partial(mean_of_parts, name)) for name in POPE_AVERAGED}


def _average(records: pa.Table, scores: npt.NDArray[np.float64], drawing: Drawing) -> Value | None:
    """The mean over splits of their means, None for fewer than two; images that splits share are drawn once."""
    there = ~np.isnan(scores)
    parts = [rows[there] for rows in groups(records).values() if (rows & there).any()]
    if len(parts) < 2:
        return None
    columns = np.hstack([mean_columns(np.where(rows, scores[there], np.nan)) for rows in parts])
    images = records["image"].filter(pa.array(there)).to_pylist()
    return value_of(Resampled(columns, images, drawing.resamples, drawing.seed), mean_of_means)


def mean_value(scores: npt.NDArray[np.float64], images: Sequence[str], drawing: Drawing, highest: float = 1.0) -> Value:
    """The mean of the scores that are not NaN, over the rows and images that have one."""
    there = ~np.isnan(scores)
    some = [image for image, kept in zip(images, there, strict=True) if kept]
    drawn = Resampled(mean_columns(scores[there]), some, drawing.resamples, drawing.seed)
    return value_of(drawn, mean, (0.0, highest))


def value_of(drawn: Resampled, figure: Figure, bounds: tuple[float, float] = (0.0, 1.0)) -> Value:
    """A figure for results.json, where NaN is null."""
    found = drawn.interval(figure, bounds)
    value = None if np.isnan(found.value) else found.value
    return Value(value, found.low, found.high, found.rows, found.images)


def numbers(records: pa.Table, name: str) -> npt.NDArray[np.float64]:
    """A column of numbers or flags as float64, null as NaN."""
    found: npt.NDArray[np.float64] = records[name].cast(pa.float64()).to_numpy()
    return found
