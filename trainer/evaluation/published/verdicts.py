"""Our figures beside published ones, and whether the two can be compared at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trainer.evaluation.published.tables import Paper, Published, Row, rows
from trainer.evaluation.results import Beside, Results, Split, Value, Verdict
from vpt_data.errors import UsageError

NOT_COMPARABLE: Final = "not comparable"


def check_name(name: str) -> None:
    """UsageError with all names for one that no published row has."""
    if name not in rows():
        raise UsageError(f"--published {name}: expected one of {', '.join(rows())}.")


def beside(name: str, found: Results) -> Beside:
    """The splits of an evaluation beside a published row (`PAPER:ROW`)."""
    paper, number, row = rows()[name]
    table, splits = paper.tables[number], {}
    for split, made in found.splits.items():
        # A published split is one of our takes, which may share a split with others (`records.groups`).
        known = paper.splits.get(split.rpartition("/")[2])
        value = None if known is None else table.value(row, known.column)
        if known is None or value is None:
            splits[split] = Verdict(None, None, None, NOT_COMPARABLE, "the table has no column for this split")
            continue
        ours = (made.figures | made.regions).get(table.figure)
        reasons = [*_rows(known, made), *_judges(paper, table.figure, found.judge), *_asked(row, made, found.about)]
        splits[split] = _verdict(value, ours, reasons)
    return Beside(name, f"arXiv {paper.arxiv}", number, row.model, table.figure, table.about, splits)


def _verdict(value: float, ours: Value | None, reasons: list[str]) -> Verdict:
    """By our interval: on which side of the published value it is, where nothing else speaks against it."""
    if ours is None or ours.value is None or ours.low is None or ours.high is None:
        reasons = reasons or ["this split has no such figure, or too few images for an interval"]
        return Verdict(value, ours, None, NOT_COMPARABLE, "; ".join(reasons))
    side = "above" if ours.low > value else "below" if ours.high < value else "within"
    return Verdict(value, ours, ours.value - value, NOT_COMPARABLE if reasons else side, "; ".join(reasons))


def _rows(known: Published, made: Split) -> Iterator[str]:
    if known.why:
        yield known.why
    elif made.rows != known.rows:
        yield f"{made.rows:,} rows, published {known.rows:,}"


def _judges(paper: Paper, figure: str, judge: Mapping[str, Any] | None) -> Iterator[str]:
    if figure != "judge":
        return
    if judge is None:
        yield f"published are scores of a judge (--judge {paper.judges[-1]})"
    elif judge["model"] not in paper.judges:
        yield f"judged by {judge['model']}, published by {paper.judges[-1]}"
    elif judge["prompt"] != paper.prompt:
        yield f"prompt of the judge {judge['prompt']}, published {paper.prompt}"


def _asked(row: Row, made: Split, about: Mapping[str, Any]) -> Iterator[str]:
    """What differs in the pictures that the model saw; `expand` matters only where it looked at a region."""
    if row.pixels is None:
        yield "the paper does not say at which resolution"
    else:
        yield from _differs("pixels", about.get("pixels"), row.pixels)
    if row.expand is not None and any(counts["region"] for counts in made.triggers.values()):
        yield from _differs("expand", about.get("generation", about).get("expand"), row.expand)
    if about.get("intervention"):
        yield f"looks were changed ({about['intervention']})"


def _differs(name: str, ours: object, published: int) -> Iterator[str]:
    if ours is None:
        yield f"{name} is not stated, published {published} (--about {name}={published})"
    elif str(ours) != str(published):
        yield f"{name} {ours}, published {published}"
