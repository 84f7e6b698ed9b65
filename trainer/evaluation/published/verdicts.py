"""Our figures beside published ones, and whether the two can be compared at all."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from trainer.evaluation.published.tables import Paper, Published, Row, Table, rows
from trainer.evaluation.results import Beside, Results, Split, Value, Verdict
from trainer.generation.paper import CROP_FAILED
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
        reasons = [
            *_misprints(table, row, known.column),
            *_rows(known, made, ours),
            *_judges(paper, table.figure, found.judge),
            *_asked(row, made, found.about),
        ]
        splits[split] = _verdict(value, ours, reasons)
    return Beside(name, f"arXiv {paper.arxiv}", number, row.model, table.figure, table.about, splits)


def _verdict(value: float, ours: Value | None, reasons: list[str]) -> Verdict:
    """By our interval: on which side of the published value it is, where nothing else speaks against it."""
    if ours is None or ours.value is None or ours.low is None or ours.high is None:
        reasons = reasons or ["this split has no such figure, or too few images for an interval"]
        return Verdict(value, ours, None, NOT_COMPARABLE, "; ".join(reasons))
    side = "above" if ours.low > value else "below" if ours.high < value else "within"
    return Verdict(value, ours, ours.value - value, NOT_COMPARABLE if reasons else side, "; ".join(reasons))


def _misprints(table: Table, row: Row, column: str) -> Iterator[str]:
    for one in table.misprints:
        if one.column == column and one.row in {None, row.name or row.model}:
            yield f"the published value is a misprint: {one.why}"


def _rows(known: Published, made: Split, ours: Value | None) -> Iterator[str]:
    """The rows that the figure is of; those whose crop failed are in no published figure either, but in its number."""
    count = made.rows if ours is None else ours.rows + made.invalid.get(CROP_FAILED, 0)
    if known.why:
        yield known.why
    elif count != known.rows:
        yield f"{count:,} rows{'' if ours is None else ' in the figure'}, published {known.rows:,}"


def _judges(paper: Paper, figure: str, judge: Mapping[str, Any] | None) -> Iterator[str]:
    if figure != "judge":
        return
    if judge is None:
        yield f"published are scores of a judge (--judge {paper.judges[-1]})"
    elif judge["model"] not in paper.judges:
        yield f"judged by {judge['model']}, published by {paper.judges[-1]}"
    elif judge["prompt"] != paper.prompt:
        yield f"prompt of the judge {judge['prompt']}, published {paper.prompt}"
    elif not judge["as_published"]:
        yield "replies of the judge are not read as published (--judge-as-published)"


def _asked(row: Row, made: Split, about: Mapping[str, Any]) -> Iterator[str]:
    """What differs in the pictures that the model saw; `expand` matters unless it is known to look at no region."""
    generation = about.get("generation")
    expand = generation.get("expand") if isinstance(generation, dict) else about.get("expand")
    if row.pixels is None:
        yield "the paper does not say at which resolution"
    else:
        # An evaluation that asks a model states `pixels` by itself; None: the server decides.
        option = "--longest " if "pixels" in about else "--about pixels="
        yield from _differs("pixels", about.get("pixels"), row.pixels, option)
    if row.expand is not None and about.get("protocol") == "direct":
        yield "the model may not look (protocol direct), the published one does"
    elif row.expand is not None and (not made.triggers or any(one["region"] for one in made.triggers.values())):
        yield from _differs("expand", expand, row.expand, "--about expand=")
    if about.get("intervention"):
        yield f"looks were changed ({about['intervention']})"


def _differs(name: str, ours: object, published: int, option: str) -> Iterator[str]:
    if ours is None:
        yield f"{name} is not stated, published {published} ({option}{published})"
    elif str(ours) != str(published):
        yield f"{name} {ours}, published {published}"
