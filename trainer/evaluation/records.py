"""Records: one row for each row that was asked, with what was said, what was right, and every score of it.

They are made of items and predictions alone, so answers of our models and of others are scored by the same code, and
all results can be computed again from the file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from trainer.evaluation.items import CIRCULAR, Items, of_rotation
from trainer.evaluation.judge.panel import Item, Verdict
from trainer.evaluation.metrics import answers, regions, table, yes_no
from trainer.evaluation.metrics.looks import Asked
from trainer.evaluation.predictions import Prediction, Read, read_as_said
from trainer.generation.dialog import Ended

_text, _number, _cells = pa.string(), pa.float64(), pa.list_(pa.int32(), 4)

#: Between the answers of the rotations of a question.
ANSWERS_OF_ROTATIONS: Final = " | "
#: Scores of regions; null where a row does not ask for one, its box or what was said is not known, or it is left out.
REGION_SCORES: Final = ("iou_box", "iogt_box", "iou_cells", "iogt_cells", "gold_iou", "best_iou")
RECORD: Final = pa.schema(
    [
        # Which row
        ("id", _text),
        ("take", _text),
        ("split", _text),
        ("dataset", _text),
        ("image", _text),
        ("expected", _text),
        ("question", _text),
        ("answers", pa.list_(_text)),
        # What was said
        ("turns", pa.list_(_text)),
        ("answer", _text),
        ("ended", _text),
        ("fault", _text),
        ("tokens", pa.int32()),
        ("prompt_tokens", pa.int32()),
        ("logprob", _number),
        ("seconds", _number),
        ("intervened", pa.int32()),
        ("control_norms", pa.list_(_number)),
        # The answer
        ("metric", _text),
        ("score", _number),
        ("parsed", pa.bool_()),
        ("said", _text),
        ("exact", _number),
        ("judge", _number),
        ("judge_fault", _text),
        # Looks
        ("triggered", _text),
        ("encoders", pa.list_(_text)),
        ("invalid", pa.list_(_text)),
        ("cells", _cells),
        ("box", pa.list_(pa.float64(), 4)),
        ("size", _text),
        *((name, _number) for name in REGION_SCORES),
    ]
)


def scored(
    items: Items,
    predictions: Sequence[Prediction],
    chosen: Mapping[str, str] | None = None,
    read: Callable[[Prediction, int], Read] = read_as_said,
) -> pa.Table:
    """The records (RECORD) of items and their predictions, in the order of the items; the judge is asked later.

    chosen  take -> name of a metric, before those of `metrics.table.BENCHMARKS`
    read    how a prediction is read, with the side of the grid

    A row without an answer scores 0 in every metric; one whose right answer the corpus does not have is not scored,
    nor one that is left out. Where only the answer is known, columns of looks are null.
    """
    found = [read(one, k) for one, k in zip(predictions, items.table["k"].to_pylist(), strict=True)]
    finals = [one.answer for one in found]
    # A file may have nothing but answers; a model of which all is known has a turn, even where it says nothing.
    looks = [one.looks if given.turns else None for one, given in zip(found, predictions, strict=True)]
    columns: dict[str, Any] = {name: items.texts(name) for name in RECORD.names if name in items.table.column_names}
    columns["turns"] = [one.said for one in predictions]
    columns["answer"] = finals
    for name in ("ended", "fault", "tokens", "prompt_tokens", "logprob", "seconds", "intervened", "control_norms"):
        columns[name] = [getattr(one, name) for one in predictions]
    columns |= _answer_scores(items, found, dict(chosen or {}))
    columns["triggered"] = [look and look.triggered for look in looks]
    columns["encoders"] = [look and look.encoders for look in looks]
    columns["invalid"] = [look and sorted(look.invalid.elements()) for look in looks]
    columns |= _region_scores(items, looks, [one.left_out for one in found])
    return pa.table([pa.array(columns.get(name) or [None] * len(finals), kind) for name, kind in _fields()], RECORD)


def _fields() -> list[tuple[str, pa.DataType]]:
    return [(field.name, field.type) for field in RECORD]


def _answer_scores(items: Items, found: Sequence[Read], chosen: dict[str, str]) -> dict[str, list[Any]]:
    """The columns of the answer, take by take, since each has its metric."""
    takes, questions, right = (items.texts(name) for name in ("take", "question", "answers"))
    finals, scored = (
        [one.answer for one in found],
        [any(r) and not o.left_out for r, o in zip(right, found, strict=True)],
    )
    count = len(finals)
    given = np.array([text is not None for text in finals], np.bool_)
    texts = [text or "" for text in finals]
    score, parsed, exact = np.full(count, np.nan), np.zeros(count, np.bool_), np.full(count, np.nan)
    names = [""] * count
    said: list[str | None] = [None] * count
    for take in sorted(set(takes)):
        metric = table.metric_of(take, chosen)
        rows = np.array([row for row, name in enumerate(takes) if name == take and scored[row]], np.int64)
        some = [[column[row] for row in rows] for column in (texts, right, questions)]
        score[rows], parsed[rows] = metric.score(*some)
        exact[rows] = answers.exact(*some[:2])
        read = metric.reads(some[0]) if metric.reads else None
        names = [metric.name if name == take else kept for name, kept in zip(takes, names, strict=True)]
        for place, row in enumerate(rows):
            if read is not None and read[place] != yes_no.UNPARSED and given[row]:
                said[row] = "yes" if read[place] == yes_no.YES else "no"
    return {
        "metric": names,
        "score": _nulls(score * given),
        "parsed": (parsed & given).tolist(),
        "said": said,
        "exact": _nulls(exact * given),
    }


def _region_scores(items: Items, looks: Sequence[Asked | None], left_out: Sequence[bool]) -> dict[str, list[Any]]:
    """The columns of regions: cells of all rows that named some, scores of those that should have."""
    said = regions.around([look.cells if look else () for look in looks])
    named: npt.NDArray[np.bool_] = np.asarray(~np.isnan(said).any(axis=1))
    grids = items.table["k"].to_numpy()
    wanted = np.array([kind == "region" for kind in items.texts("expected")]) & ~np.isnan(items.boxes).any(axis=1)
    scores = np.full((len(looks), len(REGION_SCORES)), np.nan)
    size: list[str | None] = [None] * len(looks)
    for k in set(grids[wanted].tolist()):
        rows = np.flatnonzero(wanted & (grids == k))
        found = regions.score_regions(said[rows], items.boxes[rows], items.sizes[rows], k)
        scores[rows] = np.stack([getattr(found, name) for name in REGION_SCORES], axis=1)
        for row, place in zip(rows, regions.bucket(items.boxes[rows], items.sizes[rows], k), strict=True):
            size[row] = regions.BUCKETS[place]
    scores[[look is None or out for look, out in zip(looks, left_out, strict=True)]] = np.nan
    columns: dict[str, list[Any]] = {name: _nulls(scores[:, place]) for place, name in enumerate(REGION_SCORES)}
    columns["cells"] = [
        row.astype(int).tolist() if there else None for row, there in zip(said, named.tolist(), strict=True)
    ]
    columns["box"] = [row.tolist() if there else None for row, there in zip(items.boxes, wanted.tolist(), strict=True)]
    columns["size"] = size
    return columns


def _nulls(values: npt.NDArray[np.float64]) -> list[float | None]:
    return [None if np.isnan(value) else value for value in values.tolist()]


def groups(records: pa.Table) -> dict[str, npt.NDArray[np.bool_]]:
    """Name -> its rows, bool [N], of all that has figures of its own: a split with one take, or each take of a split.

    The name is that of the split, or `SPLIT/TAKE` where the split has several. So the rows of a group have one metric.
    """
    splits, takes = (np.array(records[name].to_pylist(), np.str_) for name in ("split", "take"))
    found: dict[str, npt.NDArray[np.bool_]] = {}
    for split in dict.fromkeys(splits.tolist()):
        rows = splits == split
        names = list(dict.fromkeys(takes[rows].tolist()))
        found |= {f"{split}/{take}": rows & (takes == take) for take in names} if len(names) > 1 else {split: rows}
    return found


def circular(records: pa.Table) -> pa.Table:
    """The records with one for all rotations of a question, which is right only if all of them are.

    It has the least score of all rotations, their turns and answers, and no answer if one of them has none
    (_OF_ROTATIONS); question, right answers, look and region are those of the first. Its id ends in `#circular`.
    """
    rotated: dict[str, list[int]] = {}
    for row, (name, turn) in enumerate(map(of_rotation, records["id"].to_pylist())):
        rotated.setdefault(name if turn is None else name + CIRCULAR, []).append(row)
    merged = records.take([rows[0] for rows in rotated.values()])
    columns: dict[str, list[Any]] = {"id": list(rotated)}
    for name, merge in _OF_ROTATIONS.items():
        values = records[name].to_pylist()
        columns[name] = [merge([values[row] for row in rows]) for rows in rotated.values()]
    for name, column in columns.items():
        place = RECORD.get_field_index(name)
        merged = merged.set_column(place, RECORD.field(place), pa.array(column, RECORD.field(place).type))
    return merged


def _joined(values: Sequence[str | None]) -> str | None:
    """All answers; none, or an empty one, if one of them is so."""
    texts = [text for text in values if text]
    return ANSWERS_OF_ROTATIONS.join(texts) if len(texts) == len(values) else None if None in values else ""


def _added(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _together(values: Sequence[list[Any] | None]) -> list[Any] | None:
    known = [value for value in values if value is not None]
    return list(chain.from_iterable(known)) if known else None


def _first(values: Sequence[str | None]) -> str | None:
    return next((value for value in values if value is not None), None)


def _end(values: Sequence[str | None]) -> str | None:
    """The one that is farthest from a plain answer: Ended is in that order."""
    order = [None, *Ended]
    return max(values, key=order.index)


def _least(values: Sequence[float | None]) -> float | None:
    """Null comes first: what is not scored is not right."""
    return min(values, key=lambda value: -1.0 if value is None else value)


#: How each column of a record is made of those of the rotations; the others are those of the first rotation.
_OF_ROTATIONS: Final[dict[str, Callable[[Sequence[Any]], Any]]] = {
    "turns": _together,
    "answer": _joined,
    "ended": _end,
    "fault": _first,
    **dict.fromkeys(("tokens", "prompt_tokens", "logprob", "seconds"), _added),
    "intervened": lambda values: max((value for value in values if value is not None), default=None),
    "control_norms": _together,
    **dict.fromkeys(("score", "exact", "parsed"), _least),
    "invalid": _together,
}


def to_judge(records: pa.Table, questions: Mapping[str, str] | None = None) -> tuple[list[int], list[Item]]:
    """The rows that a judge is shown, by their number, and what it is shown: those that are scored and have an answer.

    questions  id -> what is shown instead of the question
    """
    shown = questions or dict(zip(records["id"].to_pylist(), records["question"].to_pylist(), strict=True))
    columns = zip(*(records[name].to_pylist() for name in ("id", "answers", "answer", "score")), strict=True)
    items = [
        (row, Item(shown[name], right[0], said))
        for row, (name, right, said, score) in enumerate(columns)
        if said is not None and score is not None
    ]
    return [row for row, _ in items], [item for _, item in items]


def judged(records: pa.Table, rows: Sequence[int], verdicts: Sequence[Verdict]) -> pa.Table:
    """The records with the verdicts on some rows (`to_judge`); the others score 0 if they are scored."""
    score: list[float | None] = [0.0 if there else None for there in records["score"].is_valid().to_pylist()]
    fault: list[str | None] = [None] * len(score)
    for row, verdict in zip(rows, verdicts, strict=True):
        score[row], fault[row] = (None, verdict) if isinstance(verdict, str) else (verdict, None)
    for name, column in (("judge", pa.array(score, _number)), ("judge_fault", pa.array(fault, _text))):
        records = records.set_column(records.schema.get_field_index(name), RECORD.field(name), column)
    return records
